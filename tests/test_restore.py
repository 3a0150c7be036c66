"""What was deleted and a bucket still has is brought back, and nothing else."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import servers
from conftest import endpoint_of, gcs_client
from hls import simple
from project import Project, make_project, pairs, video, where_versions_are_kept

from retainer.cli import copies
from retainer.demo.standin import StandIn
from retainer.journal.entry import Entry
from retainer.ports import Hidden, Seen
from retainer.restoring import deleted_by
from retainer.stores import s3
from retainer.stores.calls import Nonsense
from retainer.stores.hidden import hidden_at_google, hidden_at_s3
from retainer.stores.wire import Answer

A, B = "a" * 24, "b" * 24
END: dict[str, Any] = {"version": 1, "rules": [{"id": "end", "match": "all", "at_most": "1d"}]}
KEEP: dict[str, Any] = {
    "version": 1,
    "rules": [{"id": "calls", "match": "all", "keep": [{"in": "vault", "for": "2y"}]}],
}

ERASURES: dict[str, Any] = {
    "erasures": [{"id": "DSR-17", "why": "x", "match": {"asset_id": A}, "requested": "2026-11-01"}]
}


@pytest.fixture(params=[pytest.param("moto", marks=pytest.mark.slow), "seaweedfs", "strict_gcs"])
def kept(request: pytest.FixtureRequest, tmp_path: Path, api: StandIn) -> Project:
    """A project whose stores lie in a bucket that keeps versions."""
    endpoint = endpoint_of(request.param, request)
    project = make_project(tmp_path / "project", api, request.param, endpoint)
    return where_versions_are_kept(project)


def deleted(project: Project) -> dict[str, bytes]:
    """Both copies of two recordings are gone from the vault; what lay there."""
    for name, content in {A: video(1), B: video(2)}.items():
        project.uploaded(name, content)
    project.write(KEEP)
    project.plan("copies.plan")
    project.apply("copies.plan")
    before = project.content("vault")
    assert len(before) == 2
    project.write(END)
    lifts = [f"empty:store:{name}" for name in project.stores]
    project.run("plan", "--out", "end.plan", *(word for each in lifts for word in ("--lift", each)))
    project.run("apply", "end.plan", "--approve-deletes", "4")
    assert not project.content("vault")
    project.write(KEEP)
    return before


def looked(project: Project, about: str, *words: str, expect: int = 0) -> list[dict[str, Any]]:
    done = project.run("restore", about, "--format", "json", *words, expect=expect)
    return list(json.loads(done.stdout)["copies"])


def states(copies: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    return {(each["asset_id"], each["store"]): each["state"] for each in copies}


def run_of(project: Project) -> str:
    return next(line["run"] for line in project.journal() if line["event"] == "deleted")


def test_all_that_a_run_deleted_comes_back_and_the_next_plan_finds_it_whole(kept: Project) -> None:
    before, run = deleted(kept), run_of(kept)
    text = " ".join(kept.run("restore", run).stdout.split())
    assert "4 copies" in text and f"retainer restore {run} --approve 4" in text
    assert not kept.content("vault")  # nothing was changed
    assert "4 copies can be" in kept.run("restore", run, "--approve", "3", expect=64).stderr
    assert not kept.content("vault")
    copies = looked(kept, run, "--approve", "4", "--ticket", "INC-42")
    assert set(states(copies).values()) == {"restored"}
    assert kept.content("vault") == before
    found = pairs(kept.plan("after.plan"))
    # Google gives an upload that came back another generation, as if it had been overwritten
    decided = "copy" if kept.stores["uploads"].scheme == "gs" else "keep"
    assert found[A, "vault"] == found[B, "vault"] == decided
    assert kept.run("audit", "verify").stdout.count("is whole") == 1
    told = kept.run("history", A).stdout
    assert "restored in vault" in told and "(INC-42)" in told
    assert set(states(looked(kept, run)).values()) == {"there"}
    kept.run("restore", run, "--approve", "1", expect=64)


def test_one_recording_comes_back_alone_and_its_rule_is_named(kept: Project) -> None:
    deleted(kept)
    kept.write(END)
    text = " ".join(kept.run("restore", A, "--approve", "2").stdout.split())
    assert "2 copies" in text and "came back" in text
    assert "end would have it deleted again: write a hold first" in text
    assert len(kept.content("vault")) == 1


def test_what_lies_there_by_now_is_not_written_over(kept: Project) -> None:
    before = deleted(kept)
    key = next(key for key in before if A in key)
    kept.writer("vault").create(key, iter([b"another"]), 7, {}, "video/mp4")
    found = states(looked(kept, run_of(kept)))
    assert (found[A, "vault"], found[B, "vault"]) == ("taken", "recoverable")
    kept.run("restore", run_of(kept), "--approve", "3", expect=7)
    assert kept.content("vault") == {**before, key: b"another"}


def test_a_recording_of_many_objects_comes_back_whole(kept: Project) -> None:
    kept.uploaded_vod(A, simple())
    kept.write(KEEP)
    kept.plan("copies.plan")
    kept.apply("copies.plan")
    before = kept.content("vault")
    assert len(before) > 3
    kept.write(END)
    kept.run("plan", "--out", "end.plan", "--lift", "empty:store:vault", expect=None)
    kept.run("plan", "--out", "end.plan", "--only", "all", *LIFTS, expect=None)
    kept.run("apply", "end.plan", "--approve-deletes", "2", expect=None)
    assert not kept.content("vault")
    kept.write(KEEP)
    assert states(looked(kept, A))[A, "vault"] == "recoverable"
    looked(kept, A, "--approve", str(len(looked(kept, A))))
    assert kept.content("vault") == before
    decided = "copy" if kept.stores["uploads"].scheme == "gs" else "keep"
    assert pairs(kept.plan("after.plan"))[A, "vault"] == decided


LIFTS = ("--lift", "empty:store:vault", "--lift", "empty:store:uploads")


def asked_to_erase(project: Project) -> None:
    """Two uploads, copied, and a plan that erases the first."""
    project.uploaded(A, video(1))
    project.uploaded(B, video(2))
    project.write(KEEP)
    project.plan("copies.plan")
    project.apply("copies.plan")
    project.write(KEEP | ERASURES)
    project.plan("erase.plan")


def test_where_a_second_factor_is_wanted_a_person_is_told_the_command_and_nothing_is_tried(
    kept: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No server here knows MFA delete: of its answer alone this is otherwise."""
    if kept.stores["vault"].scheme != "s3":
        pytest.skip("Google has no such thing")
    deleted(kept)
    answer = b"<VersioningConfiguration><Status>Enabled</Status><MfaDelete>Enabled</MfaDelete></VersioningConfiguration>"
    assert s3.mfa_in(Answer(200, {}, answer))
    assert not s3.mfa_in(Answer(200, {}, answer.replace(b"<MfaDelete>Enabled</MfaDelete>", b"")))
    monkeypatch.setattr(s3, "mfa_in", lambda _answer: True)
    (found,) = (each for each in looked(kept, A, expect=1) if each["store"] == "vault")
    (command,) = found["by_hand"]
    assert found["state"] == "by hand"
    assert command.startswith("aws s3api delete-object --bucket lab-versioned --key ")
    assert A in command and "--version-id" in command and command.endswith("--mfa 'SERIAL CODE'")
    text = kept.run("restore", A, expect=1).stdout
    assert "without the second factor" in text and "catalog rebuild" in text
    kept.run("restore", A, "--approve", "2", expect=64)
    assert not kept.content("vault")


def test_what_an_erasure_asked_for_stays_away(kept: Project) -> None:
    asked_to_erase(kept)
    kept.run("apply", "erase.plan", "--approve-deletes", "2")
    assert set(states(looked(kept, A, expect=1)).values()) == {"erased"}
    kept.run("restore", A, "--approve", "2", expect=64)


def test_a_folder_keeps_nothing_and_an_unknown_name_is_told(local: Project) -> None:
    deleted(local)
    assert set(states(looked(local, A, expect=1)).values()) == {"gone"}
    assert "knows of no delete of cellar" in local.run("restore", "cellar", expect=1).stdout
    local.run("restore", " ", expect=64)


def test_a_store_that_cannot_be_reached_hides_no_other(kept: Project) -> None:
    deleted(kept)
    url = kept.stores["uploads"].url
    settings = (kept.root / "retainer.yaml").read_text()
    (kept.root / "retainer.yaml").write_text(settings.replace(url, url.replace("lab-", "no-")))
    found = states(looked(kept, A))
    assert (found[A, "uploads"], found[A, "vault"]) == ("unknown", "recoverable")


def test_a_version_that_somebody_removed_is_gone(kept: Project) -> None:
    before = deleted(kept)
    key = next(key for key in before if A in key)
    store = kept.stores["vault"]
    if store.scheme == "s3":
        client = servers.s3_client(store.endpoint or "")
        found = client.list_object_versions(Bucket=store.bucket, Prefix=store.prefix + key)
        client.delete_object(
            Bucket=store.bucket, Key=store.prefix + key, VersionId=found["Versions"][0]["VersionId"]
        )
    else:
        bucket = gcs_client(store.endpoint or "").bucket(store.bucket)
        blobs = list(bucket.list_blobs(prefix=store.prefix + key, versions=True))
        bucket.delete_blob(blobs[0].name, generation=blobs[0].generation)
    expected = "recoverable" if store.scheme == "gs" else "gone"  # soft-deleted by then
    assert states(looked(kept, run_of(kept)))[A, "vault"] == expected


def test_nothing_is_said_to_come_back_from_a_record_that_is_gone(local: Project) -> None:
    deleted(local)
    shutil.rmtree(local.root / ".retainer" / "journal")
    local.run("restore", A, expect=1)


# ── what a reviewer broke ─────────────────────────────────────────────────────────────────────────


def test_what_was_erased_anywhere_comes_back_nowhere(kept: Project) -> None:
    """A rule had deleted the upload before the erasure came, and it was copied again in between."""
    deleted(kept)
    run = run_of(kept)
    kept.uploaded(A, video(1))
    kept.plan("again.plan", expect=None)
    kept.run("apply", "again.plan")
    kept.write(KEEP | ERASURES)
    kept.run("plan", "--out", "erase.plan", *LIFTS)
    kept.run("apply", "erase.plan", "--approve-deletes", "2")
    assert set(states(looked(kept, A, expect=1)).values()) == {"erased"}
    found = states(looked(kept, run))  # what went again since is no more of that run
    assert {asset for asset, _ in found} == {B}


def test_an_erasure_that_another_command_settles_is_one_still(
    kept: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retainer.apply.outcomes import Outcomes

    asked_to_erase(kept)

    def cut(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Outcomes, "deleted", cut)
        kept.run("apply", "erase.plan", "--approve-deletes", "2", expect=None)
    kept.write(KEEP)  # nobody's policies name it any more
    for store in kept.stores:
        kept.run("verify", store, expect=None)
    settled = [line["of"] for line in kept.journal() if line["event"] == "deleted"]
    assert settled and {of["asked_by"] for of in settled} == {"erasure"}
    assert set(states(looked(kept, A, expect=1)).values()) == {"erased"}


def test_what_came_back_and_was_not_recorded_is_recorded_by_the_next_try(
    kept: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retainer import cataloguing
    from retainer.errors import StoreFailed

    before = deleted(kept)

    def fails(*_: object) -> None:
        raise StoreFailed("write the catalog: no space")

    with monkeypatch.context() as patch:
        patch.setattr(cataloguing, "write_part", fails)
        kept.run("restore", run_of(kept), "--approve", "4", expect=7)
    assert kept.content("vault") == before
    # of what 100ms uploaded no catalog tells, so nothing of that is missing
    found = states(looked(kept, run_of(kept)))
    assert (found[A, "uploads"], found[A, "vault"]) == ("there", "recoverable")
    looked(kept, run_of(kept), "--approve", "2")
    decided = "copy" if kept.stores["uploads"].scheme == "gs" else "keep"
    assert pairs(kept.plan("after.plan"))[A, "vault"] == decided
    assert set(states(looked(kept, run_of(kept))).values()) == {"there"}


def test_a_clock_that_is_behind_records_what_came_back_all_the_same(
    kept: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted(kept)
    clock = copies.now
    monkeypatch.setattr(copies, "now", lambda: clock() - timedelta(minutes=4))
    looked(kept, B, "--approve", "2")
    decided = "copy" if kept.stores["uploads"].scheme == "gs" else "keep"
    assert pairs(kept.plan("after.plan"))[B, "vault"] == decided


def test_what_was_known_to_be_broken_is_so_still() -> None:
    act = {"row": 1, "asset": A, "rule": "r", "bytes": 1, "objects": [["k", 1, "e1"]]}
    gone = {"row": 1, "asset": A, "rule": "r", "bytes": 1, "store": "vault", "keys": ["k"]}
    moment = datetime(2026, 11, 29, tzinfo=UTC)
    lines = [
        Entry(moment, "run-1-run", "p", "broken", {"store": "vault", "keys": ["k"]}),
        Entry(
            moment,
            "run-1-run",
            "p",
            "intent",
            {"act": "delete", "rows": [1], "store": "vault", "acts": [act]},
        ),
        Entry(moment, "run-2-run", "-", "deleted", gone | {"plan": "p"}),
    ]
    (one,) = deleted_by(lines, A)
    assert one.broken == {"k"}
    assert deleted_by(lines, "run-1-run") == deleted_by(lines, "run-2-run") == [one]
    again = Entry(
        moment, "run-0-run", "q", "copied", {"row": 1, "record": {"store": "vault", "key": "k"}}
    )
    (one,) = deleted_by([lines[0], again, *lines[1:]], A)
    assert not one.broken


def test_the_parts_of_a_copy_that_went_in_two_runs_belong_together() -> None:
    objects = [[f"k{n}", 1, f"e{n}"] for n in range(3)]
    act = {"row": 1, "asset": A, "rule": "r", "bytes": 3, "objects": objects}
    announced = {"act": "delete", "rows": [1], "store": "vault", "acts": [act]}
    gone = {"row": 1, "asset": A, "rule": "r", "bytes": 1, "store": "vault"}
    moment = datetime(2026, 11, 29, tzinfo=UTC)
    lines = [
        Entry(moment, "run-1-run", "p", "intent", announced),
        Entry(moment, "run-1-run", "p", "deleted", gone | {"keys": ["k0"], "partial": True}),
        Entry(moment, "run-2-run", "p", "intent", announced),
        Entry(moment, "run-2-run", "p", "deleted", gone | {"keys": ["k1", "k2"]}),
    ]
    for about in (A, "run-1-run", "run-2-run"):
        (one,) = deleted_by(lines, about)
        assert [seen.key for seen in one.objects] == ["k0", "k1", "k2"]
    (one,) = deleted_by([*lines, *lines[2:]], A)  # copied, and deleted once more
    assert [seen.key for seen in one.objects] == ["k1", "k2"]


def versions_of(*listed: tuple[str, str, str, str]) -> Answer:
    """Kind, id, ETag and moment of each, the newest first."""
    text = "".join(
        f"<{kind}><Key>p/k</Key><VersionId>{id}</VersionId><IsLatest>"
        f"{str(number == 0).lower()}</IsLatest><LastModified>{at}</LastModified>"
        + (f"<ETag>&quot;{etag}&quot;</ETag><Size>1</Size>" if kind == "Version" else "")
        + f"</{kind}>"
        for number, (kind, id, etag, at) in enumerate(listed)
    )
    body = f"<ListVersionsResult><IsTruncated>false</IsTruncated>{text}</ListVersionsResult>"
    return Answer(200, {}, body.encode())


def test_the_order_of_amazon_counts_and_not_when_an_upload_was_begun() -> None:
    answer = versions_of(
        ("DeleteMarker", "m2", "", "2026-11-29T10:00:00Z"),
        ("Version", "v1", "e1", "2026-11-29T08:00:00Z"),
        ("DeleteMarker", "m1", "", "2026-11-29T09:00:00Z"),
        ("Version", "v0", "e0", "2026-11-29T08:30:00Z"),
    )
    found = hidden_at_s3(Seen("k", 1, "e1"), "p/k", answer)
    assert found is not None and found.marks == ("m2",)
    assert hidden_at_s3(Seen("k", 1, "e0"), "p/k", answer) is None
    twice = versions_of(
        ("DeleteMarker", "x", "", "2026-11-29T10:00:00Z"),
        ("Version", "x", "e1", "2026-11-29T08:00:00Z"),
    )
    assert hidden_at_s3(Seen("k", 1, "e1"), "p/k", twice) is None


@pytest.mark.parametrize(
    "body",
    [
        b"<Nothing/>",
        b"<ListVersionsResult/>",
        b"not xml",
        b"<ListVersionsResult><IsTruncated>true</IsTruncated></ListVersionsResult>",
        b"<ListVersionsResult><IsTruncated>false</IsTruncated><Version><Key>p/k</Key></Version>"
        b"</ListVersionsResult>",
    ],
)
def test_an_answer_that_s3_would_not_give_is_no_answer(body: bytes) -> None:
    with pytest.raises(Nonsense):
        hidden_at_s3(Seen("k", 1, "e1"), "p/k", Answer(200, {}, body))


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{",
        b'{"items": 3}',
        b'{"items": [3]}',
        b'{"nextPageToken": "x"}',
        b'{"items": [{"name": "p/k", "generation": "x"}]}',
    ],
)
def test_an_answer_that_google_would_not_give_is_no_answer(body: bytes) -> None:
    with pytest.raises(Nonsense):
        hidden_at_google(Seen("k", 1, "17"), "p/k", Answer(200, {}, body), soft=False)


def test_an_older_generation_is_not_brought_back_over_a_newer_one() -> None:
    items = [{"name": "p/k", "generation": each, "timeDeleted": "x"} for each in ("17", "18")]
    answer = Answer(200, {}, json.dumps({"items": items}).encode())
    assert hidden_at_google(Seen("k", 1, "17"), "p/k", answer, soft=False) == "newer"
    assert isinstance(hidden_at_google(Seen("k", 1, "18"), "p/k", answer, soft=False), Hidden)
