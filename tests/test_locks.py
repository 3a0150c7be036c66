"""Object Lock, holds and retention on real servers: what is locked is seen to be locked, is never
deleted, and is freed in its time."""

from __future__ import annotations

import json
import shutil
import signal
import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest
import servers
from conftest import endpoint_of, gcs_client, make_writer
from gcs_standin import GcsStandIn
from project import POLICY, Project, make_project, pairs, video
from test_cooling import begun, commit
from test_impact import as_base
from test_kill import killed
from test_read_once import forged

from retainer.apply import locks
from retainer.apply.outcomes import Outcomes
from retainer.cli import applies
from retainer.demo.standin import StandIn
from retainer.errors import StoreRefused
from retainer.impact import _locks as locks_told
from retainer.model.anchors import ANCHORS_KEY
from retainer.model.catalog import CATALOG_PREFIX, part_name
from retainer.model.setting import Store
from retainer.planfile import Action, TargetState
from retainer.ports import Deletion, Seen, StoreWriter
from retainer.stop import Stopped
from retainer.stores.gcs import GcsWriter
from retainer.stores.s3 import S3Writer
from retainer.stores.wire import Answer, Request

LATER = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
FOREVER = datetime.max.replace(tzinfo=UTC)


def locking_bucket(server: str, endpoint: str) -> str:
    """A new bucket whose objects can be locked."""
    bucket = f"lab-lock-{uuid.uuid4().hex[:12]}"
    if server == "strict_gcs":
        gcs_client(endpoint).create_bucket(bucket, enable_object_retention=True)
    else:
        servers.s3_client(endpoint).create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    return bucket


def lock(server: str, store: Store, key: str, how: str) -> datetime | None:
    """Lock an object as its owner would, with the provider's own client, and return until when."""
    name = store.prefix + key
    assert store.endpoint is not None
    if server == "strict_gcs":
        blob = gcs_client(store.endpoint).bucket(store.bucket).get_blob(name)
        assert blob is not None
        if how == "hold":
            blob.temporary_hold = True
        elif how == "retention":
            blob.retention.mode, blob.retention.retain_until_time = "Unlocked", LATER
        if how != "none":
            blob.patch()
    else:
        client = servers.s3_client(store.endpoint)
        if how == "hold":
            client.put_object_legal_hold(Bucket=store.bucket, Key=name, LegalHold={"Status": "ON"})
        elif how == "retention":
            client.put_object_retention(
                Bucket=store.bucket,
                Key=name,
                Retention={"Mode": "GOVERNANCE", "RetainUntilDate": LATER},
            )
    return {"hold": FOREVER, "retention": LATER, "none": None}[how]


@pytest.fixture(params=["seaweedfs", "moto", "strict_gcs"])
def locking(request: pytest.FixtureRequest) -> tuple[str, Store, StoreWriter]:
    server = request.param
    endpoint = endpoint_of(server, request)
    scheme = "gs" if server == "strict_gcs" else "s3"
    bucket = locking_bucket(server, endpoint)
    store = Store(
        "vault",
        f"{scheme}://{bucket}/rec",
        region=None if scheme == "gs" else "us-east-1",
        endpoint=endpoint,
    )
    return server, store, make_writer(store)


@pytest.mark.parametrize("how", ["hold", "retention", "none"])
def test_a_look_tells_until_when_an_object_is_locked(
    locking: tuple[str, Store, StoreWriter], how: str
) -> None:
    server, store, writer = locking
    if (server, how) == ("moto", "none"):
        pytest.skip(
            reason=(
                "moto answers 500 where an object has no retention, which is no word that it is "
                "free"
            )
        )
    writer.create("a.mp4", iter([b"abc"]), 3, {}, "video/mp4")
    until = lock(server, store, "a.mp4", how)
    look = writer.look("a.mp4")
    assert look is not None
    assert (look.seen.locked_until, look.seen.lock_read) == (until, True)


@pytest.mark.parametrize("how", ["hold", "retention"])
def test_a_locked_version_is_told_as_one_and_is_not_removed(
    locking: tuple[str, Store, StoreWriter], how: str
) -> None:
    """Also by those who could pass a governance lock by, if they said so: retainer never does."""
    server, _, writer = locking
    writer.create("a.mp4", iter([b"abc"]), 3, {}, "video/mp4")
    until = lock(server, locking[1], "a.mp4", how)
    (found,) = writer.versions("a.mp4")
    assert (found.seen.locked_until, found.seen.lock_read) == (until, True)
    assert writer.remove(found) is Deletion.LOCKED
    assert writer.look("a.mp4") is not None


def test_to_lock_an_object_asks_for_that_object_alone(strict_gcs: GcsStandIn) -> None:
    """google-cloud-storage 3.17.1 asks for the bucket in the background, which is a right more and
    a denied call in its audit log."""
    bucket = locking_bucket("strict_gcs", strict_gcs.url)
    store = Store("vault", f"gs://{bucket}/rec", endpoint=strict_gcs.url, lock="governance")
    writer = make_writer(store)
    seen = writer.create("a.mp4", iter([b"abc"]), 3, {}, "video/mp4").seen
    before = len(strict_gcs.requests)
    writer.lock(seen, LATER)
    time.sleep(0.5)
    asked = [(method, path) for method, path, _ in strict_gcs.requests[before:]]
    assert [method for method, _ in asked] == ["GET", "PATCH"]
    assert all(path.endswith("a.mp4") for _, path in asked)
    look = writer.look("a.mp4")
    assert look is not None and look.seen.locked_until == LATER


def test_a_lock_whose_end_cannot_be_read_is_none_that_was_read(
    locking: tuple[str, Store, StoreWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _, writer = locking
    if server == "strict_gcs":
        pytest.skip(reason="its client reads the time")
    writer.create("a.mp4", iter([b"abc"]), 3, {}, "video/mp4")
    ask = writer.wire.ask  # type: ignore[attr-defined]

    def next_year(request: Request) -> Answer:
        answer: Answer = ask(request)
        said = {**answer.headers, "x-amz-object-lock-retain-until-date": "next year"}
        return replace(answer, headers={name.lower(): value for name, value in said.items()})

    monkeypatch.setattr(writer, "wire", SimpleNamespace(ask=next_year))
    look = writer.look("a.mp4")
    assert look is not None and (look.seen.locked_until, look.seen.lock_read) == (None, False)


@pytest.mark.parametrize("server", ["seaweedfs", "strict_gcs"])
def test_a_plan_deletes_only_what_is_not_locked_and_says_so(
    server: str, request: pytest.FixtureRequest, tmp_path: Path, api: StandIn
) -> None:
    project = on_locking_bucket(
        make_project(tmp_path / "project", api, server, endpoint_of(server, request)), server
    )
    how = {"a" * 24: "hold", "b" * 24: "retention", "c" * 24: "none"}
    for seed, name in enumerate(how):
        project.uploaded(name, video(seed))
    project.uploaded("d" * 24, video(9), age=timedelta(days=3))
    keys = {key.split("Rec-")[1][:24]: key for key in project.content("uploads")}
    project.plan()
    project.apply()
    for name, lock_of_it in how.items():
        lock(server, project.stores["uploads"], keys[name], lock_of_it)

    plan = project.plan("2.plan")
    assert {
        name: decision for (name, store), decision in pairs(plan).items() if store == "uploads"
    } == {"a" * 24: "blocked", "b" * 24: "blocked", "c" * 24: "delete", "d" * 24: "keep"}
    assert {row["because"] for row in plan["rows"] if row["decision"] == "blocked"} == {"lock"}
    assert project.apply_all("2.plan", plan)["deleted"] == 1
    assert set(project.content("uploads")) == {
        keys[name] for name in ("a" * 24, "b" * 24, "d" * 24)
    }


def test_a_delete_of_what_was_locked_since_the_plan_fails_and_harms_nothing(
    request: pytest.FixtureRequest, tmp_path: Path, api: StandIn
) -> None:
    project = on_locking_bucket(
        make_project(tmp_path / "project", api, "strict_gcs", endpoint_of("strict_gcs", request)),
        "strict_gcs",
    )
    for seed, name in enumerate(("a" * 24, "b" * 24)):
        project.uploaded(name, video(seed))
    project.uploaded("d" * 24, video(9), age=timedelta(days=3))
    project.plan()
    project.apply()
    plan = project.plan("2.plan")
    key = next(key for key in project.content("uploads") if "a" * 24 in key)
    lock("strict_gcs", project.stores["uploads"], key, "hold")
    done: dict[str, Any] = project.apply(
        "2.plan", "--approve-deletes", str(plan["header"]["deletes"]), expect=None
    )
    assert done["deleted"] == 1
    assert key in project.content("uploads")


def test_a_bucket_that_keeps_every_object_takes_copies_and_holds_no_lock_so_that_nothing_is_deleted_there(
    strict_gcs: GcsStandIn, tmp_path: Path, api: StandIn
) -> None:
    project = make_project(tmp_path / "project", api, "strict_gcs", strict_gcs.url)
    bucket = gcs_client(strict_gcs.url).bucket(f"lab-kept-{uuid.uuid4().hex[:12]}")
    bucket.retention_period = 3600
    bucket.create()
    project.stores["vault"] = replace(project.stores["vault"], url=f"gs://{bucket.name}/v")
    project.write()
    project.hosted("a" * 24, video(1))
    project.plan()
    assert project.apply()["copied"] == 1
    assert list(project.content("vault").values()) == [video(1)]
    assert list(project.writer("vault").list("_retainer/lock")) == []
    assert "no lock holds there" in project.run("plan").stdout


def on_locking_bucket(project: Project, server: str) -> Project:
    uploads = project.stores["uploads"]
    assert uploads.endpoint is not None
    bucket = locking_bucket(server, uploads.endpoint)
    project.stores["uploads"] = replace(uploads, url=f"{uploads.scheme}://{bucket}/up")
    project.write()
    return project


@pytest.fixture(params=["seaweedfs", "moto"])
def remembering(request: pytest.FixtureRequest, tmp_path: Path, api: StandIn) -> Project:
    """A project whose vault locks its copies, and has one."""
    server = request.param
    endpoint = endpoint_of(server, request)
    project = make_project(tmp_path / "project", api, server, endpoint)
    bucket = locking_bucket(server, endpoint)
    vault = project.stores["vault"]
    project.stores["vault"] = replace(vault, url=f"s3://{bucket}/v", lock="governance")
    project.write()
    project.hosted("a" * 24, video(1))
    project.plan()
    assert project.apply()["copied"] == 1
    return project


def test_what_a_store_remembers_of_a_run_is_locked_where_copies_are(remembering: Project) -> None:
    (now,) = [each for each in remembering.writer("vault").versions(ANCHORS_KEY) if each.is_current]
    assert now.seen.locked_until is not None
    left = now.seen.locked_until - datetime.now(UTC)
    assert timedelta(days=399) < left < timedelta(days=401)
    remembering.hosted("b" * 24, video(2))
    remembering.plan("2.plan")
    assert remembering.apply("2.plan")["copied"] == 1  # what is locked can be written over
    found = list(remembering.writer("vault").versions(ANCHORS_KEY))
    assert sum(each.seen.locked_until is not None for each in found) == 2


def test_a_deleted_memory_of_a_store_is_noticed_where_versions_are_kept(
    remembering: Project,
) -> None:
    """Also where the record is deleted with it: as by somebody who would like neither."""
    vault = remembering.stores["vault"]
    client = servers.s3_client(vault.endpoint or "")
    client.delete_object(Bucket=vault.bucket, Key=vault.prefix + ANCHORS_KEY)
    shutil.rmtree(remembering.root / ".retainer" / "journal")
    plan = remembering.plan("2.plan", expect=None)
    (lost,) = [each["lost_record"] for each in plan["header"]["sources"] if each["name"] == "vault"]
    assert "is damaged, or was deleted" in lost
    said = remembering.run("audit", "verify", "--stores", expect=None)
    assert "is damaged, or was deleted" in said.stdout + said.stderr


# ── a lock made longer when a keep is ───────────────────────────────────────────────────────────


def keeping(*keeps: str, **more: Any) -> dict[str, Any]:
    """A policy that keeps recordings of calls in the vault for so long."""
    kept = [{"in": "vault", "for": each} for each in keeps]
    match = {"type": ["room-composite", "room-vod"]}
    return {"version": 1, "rules": [{"id": "calls", "match": match, "keep": kept} | more]}


@pytest.fixture(params=["seaweedfs", pytest.param("moto", marks=pytest.mark.slow), "strict_gcs"])
def vault(request: pytest.FixtureRequest, tmp_path: Path, api: StandIn) -> Project:
    """A project whose vault locks its copies until their keep of a year is over, and has one."""
    server = request.param
    endpoint = endpoint_of(server, request)
    project = make_project(tmp_path / "project", api, server, endpoint)
    vault = project.stores["vault"]
    bucket = locking_bucket(server, endpoint)
    project.stores["vault"] = replace(vault, url=f"{vault.scheme}://{bucket}/v", lock="governance")
    project.write(keeping("1y"))
    project.hosted("a" * 24, video(1))
    project.plan()
    assert project.apply()["copied"] == 1
    return project


def ends_of_locks(project: Project) -> dict[str, datetime | None]:
    writer = project.writer("vault")
    looks = [writer.look(seen.key) for seen in writer.list()]
    return {look.seen.key: look.seen.locked_until for look in looks if look is not None}


def retain(store: Store, key: str, mode: str, until: datetime) -> None:
    """Lock an object otherwise, as somebody can who may pass governance by."""
    name = store.prefix + key
    if store.scheme == "gs":
        blob = gcs_client(store.endpoint or "").bucket(store.bucket).get_blob(name)
        assert blob is not None
        blob.retention.mode = {"governance": "Unlocked", "compliance": "Locked"}[mode]
        blob.retention.retain_until_time = until
        blob.patch(override_unlocked_retention=True)
    else:
        servers.s3_client(store.endpoint or "").put_object_retention(
            Bucket=store.bucket,
            Key=name,
            Retention={"Mode": mode.upper(), "RetainUntilDate": until},
            BypassGovernanceRetention=True,
        )


def to_be_locked(plan: dict[str, Any]) -> list[dict[str, Any]]:
    found = [row for row in plan["rows"] if row["decision"] == "keep" and row.get("lock_until")]
    assert len(found) == plan["header"]["locks"]
    return found


def test_a_lock_is_made_longer_when_its_keep_is(vault: Project) -> None:
    (before,) = ends_of_locks(vault).values()
    assert before is not None and before < datetime.now(UTC) + timedelta(days=367)
    assert to_be_locked(vault.plan("same.plan")) == []

    vault.write(keeping("3y"))
    plan = vault.plan("longer.plan")
    (row,) = to_be_locked(plan)
    assert (row["rule"], row["n"]) == ("calls", 0)
    assert [each["key"] for each in row["objects"]] == list(vault.content("vault"))
    done = vault.apply("longer.plan")
    assert (done["locked"], done["locked_already"], done["failed"]) == (1, 0, [])
    (after,) = ends_of_locks(vault).values()
    assert after is not None and after.strftime("%Y-%m-%dT%H:%M:%SZ") == row["lock_until"]
    assert after > datetime.now(UTC) + timedelta(days=3 * 365 - 3)
    (told,) = [each["of"] for each in vault.journal() if each["event"] == "locked"]
    assert (told["until"], told["keys"]) == (row["lock_until"], list(vault.content("vault")))

    assert to_be_locked(vault.plan("again.plan")) == []  # the catalog, or the list, knows


def test_a_lock_stays_as_long_as_it_is_when_its_keep_becomes_shorter(vault: Project) -> None:
    before = ends_of_locks(vault)
    vault.write(keeping("30d"))
    assert to_be_locked(vault.plan("shorter.plan")) == []
    vault.apply("shorter.plan")
    assert ends_of_locks(vault) == before


def test_what_is_not_the_copy_that_the_plan_saw_is_not_locked(vault: Project) -> None:
    (key,) = vault.content("vault")
    vault.write(keeping("3y"))
    vault.plan("longer.plan")
    store = vault.stores["vault"]
    if store.scheme == "gs":
        blob = gcs_client(store.endpoint or "").bucket(store.bucket).get_blob(store.prefix + key)
        assert blob is not None
        blob.retention.mode, blob.retention.retain_until_time = None, None
        blob.patch(override_unlocked_retention=True)
        blob.upload_from_string(b"another")
    else:
        servers.s3_client(store.endpoint or "").put_object(
            Bucket=store.bucket, Key=store.prefix + key, Body=b"another"
        )
    done = vault.apply("longer.plan")
    assert (done["locked"], [each["cause"] for each in done["skipped"]]) == (
        0,
        ["it has changed since the plan"],
    )
    look = vault.writer("vault").look(key)
    assert look is not None and look.seen.locked_until is None


def test_every_object_of_a_recording_is_locked_longer(vault: Project) -> None:
    vault.hosted_vod(
        "c" * 24,
        {
            "master.m3u8": b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nlow.m3u8\n",
            "low.m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n0.ts\n#EXT-X-ENDLIST\n",
            "0.ts": b"\x47" + bytes(187),
        },
    )
    vault.plan("vod.plan")
    assert vault.apply("vod.plan")["copied"] == 1
    vault.write(keeping("3y"))
    vault.plan("longer.plan")
    assert vault.apply("longer.plan")["locked"] == 2
    ends = ends_of_locks(vault).values()
    assert len(ends) == 5
    assert all(end and end > datetime.now(UTC) + timedelta(days=1000) for end in ends)
    assert to_be_locked(vault.plan("again.plan")) == []


def test_a_catalog_of_before_is_told_of_locks_by_the_first_apply(vault: Project) -> None:
    """Such as one that retainer 0.x wrote; also where all are long enough already."""
    if vault.stores["vault"].scheme == "gs":
        pytest.skip(reason="its lists tell locks, so no catalog must")
    (key,) = vault.content("vault")
    writer = vault.writer("vault")
    (part,) = writer.list(CATALOG_PREFIX)
    path = vault.root / "part.parquet"
    path.write_bytes(b"".join(writer.read(part)))
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT * EXCLUDE locked_until FROM '{path}') TO '{path}.old' (FORMAT parquet)"
        )
    content = path.with_name("part.parquet.old").read_bytes()
    assert writer.delete(part) is Deletion.DELETED
    name = part_name(content, datetime.now(UTC))
    writer.create(CATALOG_PREFIX + name, iter([content]), len(content), {}, "application/x")

    assert [row["asset_id"] for row in to_be_locked(vault.plan("first.plan"))] == ["a" * 24]
    done = vault.apply("first.plan")
    assert (done["locked"], done["locked_already"]) == (0, 1)
    assert to_be_locked(vault.plan("second.plan")) == []
    assert list(ends_of_locks(vault)) == [key]


def test_a_lock_is_made_longer_in_the_mode_that_it_has(vault: Project) -> None:
    """S3 changes no mode of what is locked without the right to pass it by."""
    store = vault.stores["vault"]
    (key,) = vault.content("vault")
    vault.stores["vault"] = replace(store, lock="compliance")
    vault.write(keeping("3y"))
    vault.plan("longer.plan")
    assert vault.apply("longer.plan")["locked"] == 1
    if store.scheme == "gs":
        blob = gcs_client(store.endpoint or "").bucket(store.bucket).get_blob(store.prefix + key)
        assert blob is not None and blob.retention.mode == "Unlocked"
    else:
        client = servers.s3_client(store.endpoint or "")
        told = client.head_object(Bucket=store.bucket, Key=store.prefix + key)
        assert told["ObjectLockMode"] == "GOVERNANCE"


def test_a_lock_is_not_made_longer_for_what_is_not_certain_to_ask(vault: Project) -> None:
    vault.write(
        {
            "version": 1,
            "rules": [
                *keeping("1y")["rules"],
                {
                    "id": "perhaps",
                    "match": {"room": "sales-*"},  # 100ms tells no rooms here
                    "keep": [{"in": "vault", "for": "3y"}],
                },
            ],
        }
    )
    plan = vault.plan("perhaps.plan", expect=None)
    (row,) = [row for row in plan["rows"] if row["store"] == "vault"]
    assert row["until"] > (datetime.now(UTC) + timedelta(days=1000)).isoformat()
    assert to_be_locked(plan) == []


def test_only_leaves_out_locks_too(vault: Project) -> None:
    vault.write(keeping("3y"))
    assert to_be_locked(vault.plan("none.plan", "--only", "{type: room-vod}")) == []
    assert len(to_be_locked(vault.plan("all.plan", "--only", "{type: room-composite}"))) == 1


def test_nothing_is_locked_longer_once_the_policies_are_others(
    vault: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ends_of_locks(vault)
    vault.write(keeping("3y"))
    vault.plan("longer.plan")
    with monkeypatch.context() as patch:
        patch.setattr(applies, "_today", lambda _root: None)  # as an editor saves them
        done = vault.apply("longer.plan", expect=7)
    assert (done["locked"], done["left_locks"]) == (0, 1)
    assert any("nothing more is locked longer" in each for each in done["said"])
    assert ends_of_locks(vault) == before
    assert vault.apply("longer.plan")["locked"] == 1  # the plan goes on


def test_a_plan_and_a_run_say_until_when_locks_are_made_longer(vault: Project) -> None:
    vault.write(keeping("3y"))
    text = vault.run("plan", "--out", "longer.plan").stdout
    assert "Lock 1 copy longer." in text
    assert "only someone with the right to bypass governance can take that back" in text
    assert "retainer apply longer.plan" in text
    assert vault.run("plan", "--detailed-exitcode", expect=2).returncode == 2
    done = vault.run("apply", "longer.plan")
    assert "1 copy in vault locked longer, the last until" in done.stderr
    assert "locked 1 copy longer" in done.stdout
    assert "locked in vault for calls" in vault.run("history", "a" * 24).stdout


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("nth", [1, 2])
def test_a_kill_while_locks_are_made_longer_loses_nothing(
    vault: Project, nth: int, when: str
) -> None:
    vault.hosted("b" * 24, video(2))
    vault.plan("more.plan")
    vault.apply("more.plan")
    vault.write(keeping("3y"))
    assert len(to_be_locked(vault.plan())) == 2
    killing = {"KILL_NAME": "lock", "KILL_NTH": str(nth), "KILL_WHEN": when}
    assert killed(vault, **killing) == -signal.SIGKILL
    done = vault.apply()
    assert done["locked"] + done["locked_already"] == 2 and done["failed"] == []
    ends = ends_of_locks(vault).values()
    assert all(end and end > datetime.now(UTC) + timedelta(days=1000) for end in ends)
    assert to_be_locked(vault.plan("after.plan")) == []
    assert "whole" in vault.run("audit", "verify").stdout


@pytest.mark.parametrize("until", ["2199-01-01T00:00:00Z", None])
def test_a_forged_plan_locks_nothing_for_longer_than_a_rule_keeps(
    vault: Project, until: str | None
) -> None:
    before = ends_of_locks(vault)
    vault.write(keeping("3y"))
    vault.plan()
    patch = json.dumps({"lock_until": until})
    path = forged(
        vault,
        None,
        f"UPDATE t SET action = json_merge_patch(action::JSON, '{patch}') WHERE n IS NOT NULL",
    )
    assert "none that `retainer plan` writes" in vault.run("apply", path.name, expect=5).stderr
    assert ends_of_locks(vault) == before


@pytest.mark.slow
def test_what_still_counts_as_it_was_locks_nothing_for_so_long(vault: Project) -> None:
    """`limits: { cooling: 30d }`: a promise of before is kept, and binds no new copy for years."""
    commit(begun(vault), keeping("3y"))
    vault.plan()
    assert vault.apply()["locked"] == 1
    commit(vault, keeping("1y"))
    vault.hosted("b" * 24, video(2))
    plan = vault.plan("short.plan")
    (cooled,) = plan["header"]["cooled"]
    (copy,) = [row for row in plan["rows"] if row["decision"] == "copy"]
    a_while = (datetime.now(UTC) + timedelta(days=400)).isoformat()
    assert (cooled["kept"], copy["lock_until"] < a_while < copy["keep_until"]) == ("3y", True)
    assert vault.apply("short.plan")["copied"] == 1
    assert to_be_locked(vault.plan("again.plan")) == []


@pytest.mark.parametrize("held", [False, True], ids=["alone", "under a hold"])
def test_a_lock_that_somebody_took_back_is_found_by_verify_and_made_again(
    vault: Project, held: bool
) -> None:
    """Whoever may pass governance by can; lists of S3 do not tell. A hold that lies over it may go
    at any time, and then nothing would lock it."""
    store = vault.stores["vault"]
    (key,) = vault.content("vault")
    (before,) = ends_of_locks(vault).values()
    assert vault.run("verify", "vault").returncode == 0
    sooner = datetime.now(UTC) + timedelta(days=2)
    retain(store, key, "governance", sooner)
    if held:
        lock("strict_gcs" if store.scheme == "gs" else "s3", store, key, "hold")
    said = vault.run("verify", "vault", expect=1).stdout
    assert f"not locked for as long as it was: vault:{key}" in said
    assert "unlocked" in [each["event"] for each in vault.journal()]
    assert len(to_be_locked(vault.plan("again.plan"))) == 1
    assert vault.apply("again.plan")["locked"] == 1
    look = vault.writer("vault").look(key)
    assert look is not None and look.seen.retained_until == before
    assert vault.run("verify", "vault").returncode == 0


def test_a_lock_that_nobody_could_take_back_is_not_made_longer_by_a_softer_setting(
    vault: Project,
) -> None:
    """Nobody asks for a lock like that any more; a plan of which nobody knew it is told once."""
    store = vault.stores["vault"]
    (key,) = vault.content("vault")
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=500)
    retain(store, key, "compliance", until)
    vault.write(keeping("3y"))
    plan = vault.plan("longer.plan")
    if store.scheme == "gs":  # whose lists tell
        assert to_be_locked(plan) == []
    else:
        (skipped,) = vault.apply("longer.plan")["skipped"]
        assert "nobody could take back" in skipped["cause"]
    assert ends_of_locks(vault) == {key: until}
    assert to_be_locked(vault.plan("again.plan")) == []


def test_what_is_under_a_hold_is_locked_longer_below_it_and_once(vault: Project) -> None:
    store = vault.stores["vault"]
    (key,) = vault.content("vault")
    lock("strict_gcs" if store.scheme == "gs" else "s3", store, key, "hold")
    vault.write(keeping("3y"))
    vault.plan("longer.plan")
    assert vault.apply("longer.plan")["locked"] == 1
    look = vault.writer("vault").look(key)
    assert look is not None and look.seen.locked_until == FOREVER
    assert look.seen.retained_until is not None
    assert look.seen.retained_until > datetime.now(UTC) + timedelta(days=1000)
    assert to_be_locked(vault.plan("again.plan")) == []


@pytest.mark.parametrize(
    "rule",
    [{"at_most": "2y"}, {"also": {"id": "DSR-1", "why": "w", "match": {"room": "sales-*"}}}],
    ids=["a ceiling", "an erasure that may match"],
)
def test_nothing_is_locked_beyond_what_may_end_it(vault: Project, rule: dict[str, Any]) -> None:
    policy = keeping("3y", **{name: of for name, of in rule.items() if name == "at_most"})
    if erasure := rule.get("also"):
        policy["erasures"] = [erasure]
    vault.write(policy)
    rows = to_be_locked(vault.plan("longer.plan", expect=None))
    latest = (datetime.now(UTC) + timedelta(days=2 * 366)).isoformat()
    assert all(row["lock_until"] < latest for row in rows)
    assert len(rows) == (1 if "at_most" in rule else 0)


def test_locks_that_are_refused_stop_after_a_few_and_nothing_else_does(
    vault: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As without `s3:PutObjectRetention`, or `storage.objects.setRetention`."""
    monkeypatch.setattr(locks, "FAILURES", 2)
    kind = S3Writer if vault.stores["vault"].scheme == "s3" else GcsWriter

    def refused(_self: StoreWriter, seen: Seen, _until: datetime) -> None:
        raise StoreRefused(f"lock vault:{seen.key}: 403", store="vault")

    for number in range(4):
        vault.uploaded(f"{number}" * 24, video(number))
    vault.uploaded("d" * 24, video(9), age=timedelta(days=3))
    rules = [*keeping("1y")["rules"], POLICY["rules"][1]]
    vault.write({"version": 1, "rules": rules})
    vault.plan("copies.plan")
    vault.apply("copies.plan")
    longer = {"version": 1, "rules": [*keeping("3y")["rules"], POLICY["rules"][1]]}
    vault.write(longer)
    plan = vault.plan("longer.plan")
    assert (plan["header"]["locks"], plan["header"]["deletes"]) == (6, 4)
    with monkeypatch.context() as patch:
        patch.setattr(kind, "lock", refused)
        done = vault.apply("longer.plan", "--approve-deletes", "4", "--workers", "1", expect=7)
    assert (done["deleted"], done["locked"], done["resting"]) == (4, 0, {})
    assert len(done["failed"]) + done["left_locks"] == 6 and done["left_locks"]
    assert vault.apply("longer.plan", "--approve-deletes", "4")["locked"] == 6


@pytest.mark.parametrize("server", ["moto"])
def test_a_bucket_that_locks_nothing_is_told_and_no_lock_is_planned_there(
    server: str, request: pytest.FixtureRequest, tmp_path: Path, api: StandIn
) -> None:
    project = make_project(tmp_path / "project", api, server, endpoint_of(server, request))
    project.write(keeping("1y"))
    project.hosted("a" * 24, video(1))
    project.plan()
    project.apply()
    project.stores["vault"] = replace(project.stores["vault"], lock="governance")
    project.write(keeping("1y"))
    assert to_be_locked(project.plan("again.plan")) == []
    assert "its bucket locks nothing" in project.run("show", "again.plan").stdout
    assert "the bucket locks nothing" in project.run("doctor", expect=None).stdout


def test_a_run_that_is_stopped_tells_the_catalog_what_it_locked(
    vault: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault.hosted("b" * 24, video(2))
    vault.plan("more.plan")
    vault.apply("more.plan")
    vault.write(keeping("3y"))
    vault.plan("longer.plan")
    told = Outcomes.locked

    def then_stop(self: Outcomes, action: Action, *, is_new: bool) -> None:
        told(self, action, is_new=is_new)
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Outcomes, "locked", then_stop)
        done = vault.apply("longer.plan", "--workers", "1", expect=130)
    assert done["interrupted"] and done["locked"] == 1
    assert len(to_be_locked(vault.plan("again.plan"))) == 1


def test_impact_tells_what_a_change_locks_also_of_copies_that_are_still_to_be_made(
    vault: Project,
) -> None:
    """70y for 7y is most dangerous where nobody can take it back."""
    store = vault.stores["vault"]
    vault.stores["vault"] = replace(store, lock="compliance")
    vault.write(keeping("1y"))
    vault.hosted("b" * 24, video(2))
    vault.plan()
    base = as_base(vault, keeping("1y"))
    vault.write(keeping("70y"))
    words = ("impact", "--base", str(base), "--facts", ".retainer/facts.duckdb")
    (told,) = json.loads(vault.run(*words, "--format", "json", expect=None).stdout)["locks"]
    known = 1 if store.scheme == "gs" else 2  # S3's catalog knows that the old one is softer
    assert (told["store"], told["new"], told["longer"], told["before"]) == ("vault", 1, 1, 1)
    assert told["final"] in (1, known) and told["last"] > "2090"
    said = vault.run(*words, expect=None).stdout
    assert "vault would lock 1 new copy and 1 copy that lie there longer (1 on" in said


@pytest.mark.parametrize(
    "was, now, is_told",
    [
        ((1200, "2027-01-01T00:00:00Z"), (1199, "2097-01-01T00:00:00Z"), True),
        ((1200, "2027-01-01T00:00:00Z"), (1200, "2027-01-01T00:00:00Z"), False),
        ((0, None), (1, "2027-01-01T00:00:00Z"), True),
        ((5, "2027-01-01T00:00:00Z"), (0, None), False),
    ],
)
def test_a_later_end_is_told_also_where_fewer_are_locked(
    was: tuple[int, str | None], now: tuple[int, str | None], *, is_told: bool
) -> None:
    before, after = (
        {"vault": TargetState("vault", None, 0, 0, "compliance", 0, 0, None, *side, side[0])}
        for side in (was, now)
    )
    assert [each.store for each in locks_told(before, after)] == ["vault"] * is_told


def test_locks_are_made_longer_also_where_no_run_can_hold_a_lock(
    strict_gcs: GcsStandIn, tmp_path: Path, api: StandIn
) -> None:
    """In a bucket that keeps every object for a while no lock of a run holds; copies run there."""
    project = make_project(tmp_path / "project", api, "strict_gcs", strict_gcs.url)
    bucket = gcs_client(strict_gcs.url).bucket(locking_bucket("strict_gcs", strict_gcs.url))
    bucket.reload()
    bucket.retention_period = 3600
    bucket.patch()
    project.stores["vault"] = replace(
        project.stores["vault"], url=f"gs://{bucket.name}/v", lock="governance"
    )
    project.write(keeping("1y"))
    project.hosted("a" * 24, video(1))
    project.plan()
    assert project.apply()["copied"] == 1
    project.write(keeping("3y"))
    project.plan("longer.plan")
    assert project.apply("longer.plan")["locked"] == 1
    assert to_be_locked(project.plan("again.plan")) == []
