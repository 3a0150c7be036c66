"""`versions: all`: what a delete takes for good, and nothing else, on servers that keep versions."""

from __future__ import annotations

import hashlib
import json
import signal
import uuid
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
import servers
from conftest import endpoint_of, gcs_client
from hls import simple
from project import Project, git, make_project, video, where_versions_are_kept
from test_kill import killed

from retainer import planfile
from retainer.demo.standin import StandIn
from retainer.errors import ListingBroken, StoreFailed
from retainer.model.period import Period
from retainer.model.rule import Delete, Everything, Rule, Where, meaning
from retainer.planfile import read_plan
from retainer.ports import Deletion, StoreWriter, Version
from retainer.stores import s3
from retainer.stores.reads import ObjectReader
from retainer.stores.writes import ObjectWriter
from retainer.versions import versions_of

A, B, YOUNG = "a" * 24, "b" * 24, "c" * 24


def policy(**delete: str) -> dict[str, Any]:
    """Kept in the vault; gone from the uploads after 30 days, as `delete` says."""
    keep = {"id": "calls", "match": "all", "keep": [{"in": "vault", "for": "2y"}]}
    raw = {"id": "raw", "match": "all", "delete": [{"in": "uploads", "after": "30d", **delete}]}
    return {"version": 1, "rules": [keep, raw]}


FOR_GOOD = policy(versions="all")


@pytest.fixture(params=[pytest.param("moto", marks=pytest.mark.slow), "seaweedfs", "strict_gcs"])
def kept(request: pytest.FixtureRequest, tmp_path: Path, api: StandIn) -> Project:
    """A project whose stores lie in a bucket that keeps versions."""
    endpoint = endpoint_of(request.param, request)
    project = make_project(tmp_path / "project", api, request.param, endpoint)
    where_versions_are_kept(project)
    project.uploaded(YOUNG, video(3), age=timedelta(days=2))  # so that nothing is emptied
    return project


@pytest.fixture(params=["seaweedfs"])
def at_s3(request: pytest.FixtureRequest, tmp_path: Path, api: StandIn) -> Project:
    project: Project = kept.__wrapped__(request, tmp_path, api)  # type: ignore[attr-defined]
    return project


def overwrite(project: Project, key: str, content: bytes) -> None:
    """As somebody else would: one more version of an upload."""
    store = project.stores["uploads"]
    assert store.endpoint is not None
    if store.scheme == "s3":
        servers.s3_client(store.endpoint).put_object(
            Bucket=store.bucket, Key=store.prefix + key, Body=content
        )
    else:
        bucket = gcs_client(store.endpoint).bucket(store.bucket)
        bucket.blob(store.prefix + key).upload_from_string(content)


def uploads(project: Project) -> dict[str, bytes]:
    """What lies there, but for what is young."""
    return {key: each for key, each in project.content("uploads").items() if YOUNG not in key}


def versions(project: Project, key: str) -> list[Version]:
    return list(project.writer("uploads").versions(key))


def due(project: Project) -> str:
    """An upload that was overwritten twice, was copied since, and may go by now; its key."""
    project.uploaded(A, video(7))
    (key,) = uploads(project)
    overwrite(project, key, video(8))
    overwrite(project, key, video(1))
    project.uploaded(B, video(2))
    project.write(FOR_GOOD)
    project.plan("copies.plan")
    project.apply("copies.plan")
    assert len(versions(project, key)) == 3
    return key


def of_uploads(plan: dict[str, Any], name: str = A) -> dict[str, Any]:
    (row,) = [row for row in plan["rows"] if (row["asset_id"], row["store"]) == (name, "uploads")]
    return dict(row)


def test_what_goes_with_every_version_cannot_be_brought_back(kept: Project) -> None:
    key = due(kept)
    plan = kept.plan()
    row = of_uploads(plan)
    assert (row["decision"], row["versions"], row["bytes"]) == ("delete", 3, 9072)
    assert row["removes_by"] == "raw"
    assert plan["header"]["purges"] == plan["header"]["deletes"] == 2
    text = " ".join(kept.run("show", "p.plan").stdout.split())
    soft = kept.stores["uploads"].scheme == "gs"
    assert "each with every version that the bucket keeps of it" in text
    assert ("recoverable only while the bucket keeps it for 7 days" in text) is soft
    assert ("nothing brings them back" in text) is not soft
    assert "with every version (3), for good" in kept.run("explain", A).stdout.replace("\n  ", " ")

    assert kept.apply_all("p.plan", plan)["deleted"] == 2
    assert versions(kept, key) == [] and uploads(kept) == {}
    assert sorted(kept.content("vault").values()) == sorted([video(1), video(2), video(3)])
    (deleted,) = [
        line["of"]
        for line in kept.journal()
        if line["event"] == "deleted" and line["of"]["asset"] == A
    ]
    assert (deleted["versions"], deleted["versions_by"], deleted["bytes"]) == (3, "raw", 9072)
    assert (deleted["recoverable"] is not None) is soft
    assert "with every version (3), for good" in kept.run("history", A).stdout
    copies = json.loads(kept.run("restore", A, "--format", "json", expect=None).stdout)["copies"]
    assert [each["state"] for each in copies] == ["recoverable" if soft else "gone"]
    told = kept.run("certificate", A, "--stores", expect=None).stdout
    assert "with every version (3), for good" in told and "hidden behind it" not in told
    kept.run("audit", "verify")


def test_without_the_word_the_versions_stay_and_a_certificate_tells_them(kept: Project) -> None:
    key = due(kept)
    kept.write(policy())
    plan = kept.plan()
    assert "versions" not in of_uploads(plan) and plan["header"]["purges"] == 0
    assert kept.apply_all("p.plan", plan)["deleted"] == 2
    assert sum(not each.is_marker for each in versions(kept, key)) == 3
    assert "3 versions are hidden behind it" in kept.run(
        "certificate", A, "--stores", expect=None
    ).stdout.replace("\n  ", " ")


def test_a_delete_marker_below_goes_too(at_s3: Project) -> None:
    project = at_s3
    project.uploaded(A, video(7))
    (key,) = uploads(project)
    store = project.stores["uploads"]
    client = servers.s3_client(store.endpoint or "")
    client.delete_object(Bucket=store.bucket, Key=store.prefix + key)
    overwrite(project, key, video(1))
    project.write(FOR_GOOD)
    project.plan("copies.plan")
    project.apply("copies.plan")
    plan = project.plan()
    assert of_uploads(plan)["versions"] == 2
    assert len(of_uploads(plan)["removes"]) == 3
    project.apply_all("p.plan", plan)
    assert versions(project, key) == []


def test_all_versions_of_many_objects_go(kept: Project) -> None:
    files = simple()
    kept.uploaded_vod(A, files)
    key = next(key for key in uploads(kept) if key.endswith("master.m3u8"))
    content = uploads(kept)[key]
    overwrite(kept, key, b"#EXTM3U\n")
    overwrite(kept, key, content)
    kept.write(FOR_GOOD)
    kept.plan("copies.plan")
    kept.apply("copies.plan")
    plan = kept.plan()
    assert of_uploads(plan)["versions"] == len(files) + 2
    assert kept.apply_all("p.plan", plan)["deleted"] == 1
    assert versions(kept, key.rpartition("/")[0] + "/") == []


def test_what_was_overwritten_since_the_plan_keeps_every_version(kept: Project) -> None:
    key = due(kept)
    plan = kept.plan()
    overwrite(kept, key, video(9))
    done = kept.apply_all("p.plan", plan)
    assert (done["deleted"], len(done["skipped"])) == (1, 1)
    assert len(versions(kept, key)) == 4
    # the copy is of another upload by now
    assert of_uploads(kept.plan("2.plan"))["decision"] == "blocked"


def test_versions_that_cannot_be_read_stay_with_what_lies_upon_them(
    kept: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = due(kept)

    def broken(self: ObjectReader, under: str) -> Any:
        raise ListingBroken("the server did not answer")

    monkeypatch.setattr(type(kept.writer("uploads")), "versions", broken)
    monkeypatch.setattr(ObjectReader, "versions", broken)
    monkeypatch.setattr(s3.S3Reader, "versions", broken)
    row = of_uploads(kept.plan())
    assert (row["decision"], row["because"]) == ("blocked", "versions")
    assert "could not be read" in kept.run("show", "p.plan").stdout.replace("\n    ", " ")
    monkeypatch.undo()
    assert len(versions(kept, key)) == 3


def test_facts_for_other_policies_do_not_let_versions_go(kept: Project) -> None:
    """A snapshot that was gathered before somebody wrote the word has none of them."""
    due(kept)
    kept.write(policy())
    kept.run("facts", "--out", "before.duckdb")
    kept.write(FOR_GOOD)
    row = of_uploads(kept.plan("p.plan", "--facts", "before.duckdb"))
    assert (row["decision"], row["because"]) == ("blocked", "versions")


def test_where_a_second_factor_is_wanted_a_person_gets_the_commands(
    at_s3: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = due(at_s3)
    monkeypatch.setattr(s3, "mfa_in", lambda _answer: True)
    row = of_uploads(at_s3.plan())
    assert (row["decision"], row["because"]) == ("blocked", "second-factor")
    commands = [
        line.strip()
        for line in at_s3.run("explain", A, "--format", "markdown").stdout.splitlines()
        if "delete-object" in line
    ]
    assert len(commands) == 3
    assert all(f"--version-id {each.id}" in " ".join(commands) for each in versions(at_s3, key))


@pytest.mark.parametrize("call", [1, 2, 3])
def test_what_is_cut_short_goes_on_and_nothing_is_forgotten(
    kept: Project, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """The current version goes last: whatever breaks, the plan after it finds the copy again."""
    key = due(kept)
    plan = kept.plan()
    calls = 0
    writer = type(kept.writer("uploads"))
    removed = writer.remove

    def breaks(self: StoreWriter, version: Version) -> Deletion:
        nonlocal calls
        if version.seen.key == key:
            calls += 1
            if calls == call:
                raise StoreFailed("the server did not answer")
        return removed(self, version)

    monkeypatch.setattr(writer, "remove", breaks)
    kept.apply("p.plan", "--approve-deletes", str(plan["header"]["deletes"]), expect=7)
    monkeypatch.undo()
    assert len(versions(kept, key)) == 4 - call and key in uploads(kept)
    (failed,) = [line["of"] for line in kept.journal() if line["event"] == "failed"]
    below = f"({call - 1} versions below it were removed before)"
    assert (below in failed["cause"]) is (call > 1)
    found = kept.plan("2.plan")
    assert of_uploads(found)["versions"] == 4 - call
    assert kept.apply_all("p.plan", plan)["deleted"] == 1
    assert versions(kept, key) == [] and uploads(kept) == {}
    kept.run("audit", "verify")


def test_a_server_that_takes_a_version_for_the_object_is_stopped_after_one(
    kept: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then what lies there is not as it was, and no other version is asked for."""
    key = due(kept)
    plan = kept.plan()
    asked: list[Version] = []

    def ignores(self: ObjectWriter, version: Version) -> Deletion:
        asked.append(version)
        look = self.look(version.seen.key)
        assert look is not None
        return self.delete(look.seen)

    monkeypatch.setattr(type(kept.writer("uploads")), "remove", ignores)
    kept.apply("p.plan", "--approve-deletes", str(plan["header"]["deletes"]), expect=None)
    assert len([each for each in asked if each.seen.key == key]) == 1
    monkeypatch.undo()
    assert sum(not each.is_marker for each in versions(kept, key)) == 3


def test_a_folder_keeps_no_versions_and_its_deletes_are_as_ever(
    tmp_path: Path, api: StandIn
) -> None:
    project = make_project(tmp_path / "project", api, "local", "")
    project.uploaded(A, video(1))
    project.uploaded(YOUNG, video(3), age=timedelta(days=2))
    project.write(FOR_GOOD)
    project.plan("copies.plan")
    project.apply("copies.plan")
    plan = project.plan()
    assert of_uploads(plan)["versions"] == 1
    assert project.apply_all("p.plan", plan)["deleted"] == 1
    assert uploads(project) == {}


def test_the_word_is_told_where_policies_are_compared(at_s3: Project) -> None:
    project = at_s3
    project.write(policy())
    before = project.root / "before"
    before.mkdir()
    for name in ("retainer.yaml", "policies"):
        (project.root / name).rename(before / name)
    project.write(FOR_GOOD)
    done = project.run("policy-diff", "before", expect=None)
    assert "after 30d, with every version" in done.stdout + done.stderr


def test_the_rights_to_versions_are_asked_for_only_where_a_rule_removes_them(
    at_s3: Project,
) -> None:
    def asked(purpose: str) -> set[str]:
        told = json.loads(at_s3.run("iam", "--for", purpose, "--cloud", "aws").stdout)
        return {each for part in told["Statement"] for each in part["Action"]}

    at_s3.write(policy())
    assert not {each for each in asked("plan") | asked("apply") if each.endswith("ersions")}
    assert not {each for each in asked("plan") | asked("apply") if each.endswith("ObjectVersion")}
    at_s3.write(FOR_GOOD)
    reads, writes = asked("plan"), asked("apply")
    assert {"s3:ListBucketVersions", "s3:GetObjectVersion"} <= reads
    assert "s3:DeleteObjectVersion" in writes - reads
    assert not [each for each in writes if "Bypass" in each]


def forged(plan: Path, **action: Any) -> None:
    """The same plan with something else in the action of its first delete, by whoever can make a
    Parquet file, its digest right."""
    found = read_plan(plan)
    header = found.header.model_copy(update={"digest": "0" * 64})
    text = planfile.canonical(header).replace("'", "''")
    patch = json.dumps(action).replace("'", "''")
    with duckdb.connect() as other:
        other.execute(
            f"COPY (SELECT * REPLACE (CASE WHEN decision = 'delete' AND asset_id = '{A}' THEN "
            f"json_merge_patch(action, '{patch}')::VARCHAR ELSE action END AS action) "
            f"FROM read_parquet('{found.copy}')) TO '{plan}' (FORMAT parquet, "
            f"KV_METADATA {{'retainer.plan': '{text}'}})"
        )
    content = bytearray(plan.read_bytes())
    place = content.rfind(b"0" * 64)
    content[place : place + 64] = hashlib.sha256(content).hexdigest().encode()
    plan.write_bytes(content)


@pytest.mark.parametrize(
    "what",
    [
        "no rule",
        "another rule",
        "versions of another object",
        "without the current one",
        "another current one",
        "a word more",
        "a version twice",
    ],
)
def test_a_plan_that_would_remove_what_no_rule_asks_for_is_refused(
    at_s3: Project, what: str
) -> None:
    key = due(at_s3)
    plan = at_s3.plan()
    listed = of_uploads(plan)["removes"]
    other = of_uploads(plan, B)["removes"]
    forged(
        at_s3.root / "p.plan",
        **{
            "no rule": {"removes_by": None},
            "another rule": {"removes_by": "calls"},
            "versions of another object": {"removes": [*listed, *other]},
            "without the current one": {
                "removes": [each for each in listed if not each["current"]]
            },
            "another current one": {
                "removes": [each | {"version": "x"} if each["current"] else each for each in listed]
            },
            "a version twice": {"removes": [*listed, listed[0]]},
            "a word more": {"removes": [each | {"bypass": True} for each in listed]},
        }[what],
    )
    said = at_s3.run("apply", "p.plan", "--approve-deletes", "2", expect=5)
    assert "Traceback" not in said.stderr
    assert len(versions(at_s3, key)) == 3


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_kill_at_any_version_leaves_a_copy_that_the_next_run_finds(
    at_s3: Project, when: str, nth: int
) -> None:
    key = due(at_s3)
    at_s3.plan()
    code = killed(at_s3, KILL_NAME="remove", KILL_NTH=str(nth), KILL_WHEN=when)
    assert code == -signal.SIGKILL
    gone = nth - (when == "before")
    assert len(versions(at_s3, key)) == 3 - gone
    assert (key in uploads(at_s3)) is (gone < 3)
    at_s3.apply("p.plan", "--approve-deletes", "2")
    assert versions(at_s3, key) == [] and uploads(at_s3) == {}
    assert sorted(at_s3.content("vault").values()) == sorted([video(1), video(2), video(3)])
    at_s3.run("audit", "verify")
    assert at_s3.plan("after.plan")["header"]["deletes"] == 0


# ── what a hostile reader found ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("server", ["moto", "seaweedfs"])
@pytest.mark.parametrize("since", ["the upload", "the plan"])
def test_what_was_written_before_versions_were_kept_goes_too(
    server: str, since: str, request: pytest.FixtureRequest, tmp_path: Path, api: StandIn
) -> None:
    """It has no id of its own, and a plain delete would only hide it."""
    endpoint = endpoint_of(server, request)
    project = make_project(tmp_path / "project", api, server, endpoint)
    client, bucket = servers.s3_client(endpoint), f"lab-late-{uuid.uuid4().hex[:10]}"
    client.create_bucket(Bucket=bucket)
    uploaded = project.stores["uploads"]
    project.stores["uploads"] = replace(uploaded, url=f"s3://{bucket}/up")
    project.write(FOR_GOOD)
    project.uploaded(YOUNG, video(3), age=timedelta(days=2))
    project.uploaded(A, video(1))
    (key,) = uploads(project)

    def keep_versions() -> None:
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})

    if since == "the upload":
        keep_versions()
    project.plan("copies.plan")
    project.apply("copies.plan")
    plan = project.plan()
    assert of_uploads(plan)["versions"] == 1
    keep_versions()
    project.apply_all("p.plan", plan)
    assert versions(project, key) == []


@pytest.mark.parametrize("how", ["the same bytes", "a marker", "a lock"])
def test_what_came_between_plan_and_apply_leaves_every_version(
    how: str, request: pytest.FixtureRequest, tmp_path: Path, api: StandIn
) -> None:
    endpoint = endpoint_of("seaweedfs", request)
    project = make_project(tmp_path / "project", api, "seaweedfs", endpoint)
    client, bucket = servers.s3_client(endpoint), f"lab-lock-{uuid.uuid4().hex[:10]}"
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    project.stores["uploads"] = replace(project.stores["uploads"], url=f"s3://{bucket}/up")
    project.write(FOR_GOOD)
    project.uploaded(YOUNG, video(3), age=timedelta(days=2))
    key = due(project)
    project.plan()
    name = project.stores["uploads"].prefix + key
    if how == "the same bytes":
        overwrite(project, key, video(9))
        overwrite(project, key, video(1))
    elif how == "a marker":
        client.delete_object(Bucket=bucket, Key=name)
    else:
        old = next(each for each in versions(project, key) if not each.is_current)
        client.put_object_legal_hold(
            Bucket=bucket, Key=name, VersionId=old.id, LegalHold={"Status": "ON"}
        )
    before = {each.id for each in versions(project, key)}
    done = project.apply("p.plan", "--approve-deletes", "2", expect=None)
    assert (done["deleted"], len(done["skipped"])) == (1, 1)
    assert {each.id for each in versions(project, key)} == before
    if how == "a lock":
        assert of_uploads(project.plan("2.plan"))["because"] == "lock"


def test_a_later_word_is_another_policy() -> None:
    """Two deletes in one store, of which the one or the other takes the versions."""

    def rule(first: bool, second: bool) -> Rule:
        deletes = tuple(
            Delete("uploads", Period(days=days), versions=versions)
            for days, versions in ((30, first), (900, second))
        )
        return Rule("raw", Everything(), Where("x.yaml", 1), deletes=deletes)

    assert meaning(rule(True, False)) != meaning(rule(False, True))
    assert len(meaning(rule(False, False))) == len(meaning(rule(True, False))) - 1


@pytest.mark.slow
def test_a_kill_tells_how_many_versions_went(at_s3: Project) -> None:
    due(at_s3)
    at_s3.plan()
    at_each = {"KILL_NAME": "remove", "KILL_WHEN": "after"}
    assert killed(at_s3, KILL_NTH="2", **at_each) == -signal.SIGKILL
    hold = {"id": "H", "why": "w", "match": "all", "in": "vault"}
    at_s3.write(FOR_GOOD | {"holds": [hold]})
    at_s3.plan("2.plan")
    at_s3.apply("2.plan", expect=None)
    assert "2 versions were removed for good" in at_s3.run("history", A).stdout
    at_s3.write(FOR_GOOD)
    at_s3.plan()
    assert killed(at_s3, KILL_NTH="1", **at_each) == -signal.SIGKILL
    at_s3.plan("3.plan")
    at_s3.apply("3.plan", "--approve-deletes", "1", expect=None)
    (told,) = [
        line["of"]
        for line in at_s3.journal()
        if line["event"] == "deleted" and line["of"]["asset"] == A
    ]
    assert (told["versions"], told["versions_by"], told["bytes"]) == (1, "raw", 3024)


@pytest.mark.parametrize("facts_of", ["before", "after"])
def test_a_pull_request_with_the_word_is_told_as_the_gravest(at_s3: Project, facts_of: str) -> None:
    project = at_s3
    due(project)
    git(project.root, "init", "-q", "-b", "main")
    (project.root / ".gitignore").write_text("*\n!policies\n!policies/*\n!retainer.yaml\n")
    project.write(policy())
    git(project.root, "add", "-A")
    git(project.root, "commit", "-qm", "x")
    if facts_of == "before":
        project.run("facts", "--out", "f.duckdb")
    project.write(FOR_GOOD)
    if facts_of == "after":
        project.run("facts", "--out", "f.duckdb")
    words = ("impact", "--base", "main", "--facts", "f.duckdb", "--fail-on", "deletes")
    done = project.run(*words, expect=None)
    text = " ".join(done.stdout.split())
    assert "2 copies for good, with every version" in text
    assert "they could be brought back, and cannot any more" in text
    assert "Nothing becomes due" not in text
    assert done.returncode not in (0, 2), text


def test_objects_below_a_folder_without_a_name_are_listed_in_their_own() -> None:
    asked: list[str] = []

    class Lister:
        def versions(self, under: str) -> list[Version]:
            asked.append(under)
            return []

    keys = [f"hls/r//x/vod/{number}.ts" for number in range(12)]
    assert versions_of(Lister(), keys) == {key: [] for key in keys}  # type: ignore[arg-type]
    assert asked == ["hls/r//x/vod/"]
    asked.clear()
    versions_of(Lister(), [*keys, "hls/r//thumb.png"])  # type: ignore[arg-type]
    assert asked == ["hls/r//"]
