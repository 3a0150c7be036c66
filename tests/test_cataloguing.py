"""`catalog rebuild`, `adopt` and `verify`: what is known of objects comes from themselves, is
marked where it is inferred, and is checked."""

from __future__ import annotations

import base64
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import anycrc
import duckdb
import hls
import pytest
import servers
from conftest import SERVERS, endpoint_of
from project import POLICY, ROOM, Project, make_project, pairs, video

from retainer import cataloguing
from retainer.apply.copies import Copies
from retainer.demo.standin import StandIn
from retainer.inventory.shapes import recognised
from retainer.ports import Seen
from retainer.stop import Stop, Stopped
from retainer.stores.s3 import S3Reader

A, B, C = "a" * 24, "b" * 24, "c" * 24
SESSION = "5e55" + "0" * 20
ALL = POLICY | {"rules": [{"id": "all", "match": "all", "keep": [{"in": "vault", "for": "2y"}]}]}


def filled(project: Project) -> Project:
    """A single recording and one of many objects lie complete in the vault."""
    project.write(ALL)
    project.hosted(A, video(1))
    project.hosted_vod(B, hls.simple())
    project.plan()
    assert project.apply()["copied"] == 2
    return project


@pytest.fixture
def vault(local: Project) -> Project:
    return filled(local)


def parts_of(project: Project) -> list[Any]:
    writer = project.writer("vault")
    return list(writer.list("_retainer/catalog/"))


def lose_the_catalog(project: Project) -> None:
    for seen in parts_of(project):
        project.writer("vault").delete(seen)


def catalog_of(project: Project) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for seen in parts_of(project):
        part = project.root / "part.parquet"
        part.write_bytes(b"".join(project.writer("vault").read(seen)))
        found = duckdb.sql(f"FROM '{part}'")
        rows += [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]
    return rows


def path_of(project: Project, end: str, store: str = "vault") -> Path:
    root = Path(project.stores[store].prefix)
    (path,) = (
        path
        for path in root.rglob("*")
        if path.as_posix().endswith(end) and "_retainer" not in path.parts
    )
    return path


def rot(path: Path) -> None:
    """Flip a byte as a failing disk would: nothing else of the file changes."""
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    with path.open("r+b") as stream:
        stream.write(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


# ── made anew ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("server", [name for name in SERVERS if name != "fake_gcs"])
def test_a_lost_catalog_is_made_again_from_the_objects_alone(
    server: str, request: pytest.FixtureRequest, tmp_path: Path, api: StandIn
) -> None:
    project = filled(make_project(tmp_path / "project", api, server, endpoint_of(server, request)))
    before = {row["asset_id"]: row for row in project.plan()["rows"] if row["store"] == "vault"}
    lose_the_catalog(project)
    assert pairs(project.plan("lost.plan"))[A, "vault"] == "copy"
    census = json.loads(project.run("catalog", "rebuild", "vault", "--format", "json").stdout)
    assert (census["recorded"], census["unknown"], census["failed"]) == (
        2 + len(hls.simple()),
        0,
        [],
    )
    after = {
        row["asset_id"]: row
        for row in project.plan("after.plan")["rows"]
        if row["store"] == "vault"
    }
    assert {name: (row["decision"], row["until"]) for name, row in after.items()} == {
        name: ("keep", before[name]["until"]) for name in (A, B)
    }


def test_a_claim_that_a_server_repeats_is_not_taken_for_a_checksum_of_its_own(
    request: pytest.FixtureRequest, tmp_path: Path, api: StandIn
) -> None:
    """moto keeps any checksum that it is sent: what a member's bytes are only they themselves
    tell."""
    project = filled(make_project(tmp_path / "project", api, "moto", endpoint_of("moto", request)))
    lose_the_catalog(project)
    store, client = project.stores["vault"], servers.s3_client(endpoint_of("moto", request))
    (key,) = (
        store.prefix + seen.key
        for seen in project.writer("vault").list()
        if seen.key.endswith("layer-0/index.m3u8")
    )
    head = client.head_object(Bucket=store.bucket, Key=key, ChecksumMode="ENABLED")
    claim = {"ChecksumAlgorithm": "CRC32C", "ChecksumCRC32C": head["ChecksumCRC32C"]}
    client.put_object(Bucket=store.bucket, Key=key, Body=b"x" * head["ContentLength"], **claim)
    assert (
        client.head_object(Bucket=store.bucket, Key=key, ChecksumMode="ENABLED")["ChecksumCRC32C"]
        == head["ChecksumCRC32C"]
    )
    census = json.loads(
        project.run("catalog", "rebuild", "vault", "--format", "json", expect=7).stdout
    )
    assert "is not what its manifest says" in census["failed"][0]["cause"]


def test_what_100ms_forgot_is_still_known_after_a_rebuild(vault: Project) -> None:
    lose_the_catalog(vault)
    vault.run("catalog", "rebuild", "vault")
    vault.api._rows["recording-assets"].clear()
    vault.api._listings.clear()
    rows = {row["asset_id"]: row for row in vault.plan()["rows"]}
    assert {
        name: (row["decision"], row["store"], row["rule"]) for name, row in rows.items()
    } == dict.fromkeys((A, B), ("keep", "vault", "all"))


def test_a_damaged_part_is_removed_and_the_store_can_be_planned_again(vault: Project) -> None:
    part = path_of_part(vault)
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    vault.plan("broken.plan", expect=8)
    text = vault.run("catalog", "rebuild", "vault").stdout
    assert "was damaged, and is gone" in " ".join(text.split())
    assert set(pairs(vault.plan()).values()) == {"keep", "lapses"}


def path_of_part(project: Project) -> Path:
    (part,) = (Path(project.stores["vault"].prefix) / "_retainer/catalog").iterdir()
    return part


def test_what_does_not_explain_itself_is_counted_and_left_alone(vault: Project) -> None:
    path_of(vault, f"Rec-{A}.mp4").write_bytes(b"shorter than it was to be")
    (Path(vault.stores["vault"].prefix) / "notes.txt").write_text("a person's")
    lose_the_catalog(vault)
    census = json.loads(vault.run("catalog", "rebuild", "vault", "--format", "json").stdout)
    assert (census["recorded"], census["unknown"]) == (1 + len(hls.simple()), 2)
    assert pairs(vault.plan())[A, "vault"] == "copy"


@pytest.mark.parametrize("harm", ["gone", "changed"])
def test_a_copy_of_many_objects_that_is_not_what_its_manifest_says_is_not_recorded(
    vault: Project, harm: str
) -> None:
    member = path_of(vault, "layer-0/index.m3u8")
    member.unlink() if harm == "gone" else member.write_bytes(b"other")
    lose_the_catalog(vault)
    census = json.loads(
        vault.run("catalog", "rebuild", "vault", "--format", "json", expect=7).stdout
    )
    assert "is not what its manifest says" in census["failed"][0]["cause"]
    assert pairs(vault.plan())[B, "vault"] == "copy"


@pytest.fixture
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Copies, "_pause", lambda *_: None)


@pytest.mark.usefixtures("without_pauses")
@pytest.mark.parametrize("odd", ["not begun like its kind", "a zip without an end"])
def test_a_partial_copy_of_one_file_stays_partial_after_a_rebuild(local: Project, odd: str) -> None:
    local.write(ALL)
    if odd == "a zip without an end":
        content = b"PK\x03\x04" + b"x" * 4000
        local.hosted(A, content, kind="room-vod", path="s3://hms-prod-eu/vod.zip")
    else:
        local.hosted(A, bytes(5000))
    local.plan()
    assert "counts as partial" in local.apply(expect=7)["failed"][0]["cause"]
    lose_the_catalog(local)
    local.run("catalog", "rebuild", "vault")
    assert pairs(local.plan())[A, "vault"] == "copy"


@pytest.mark.usefixtures("without_pauses")
def test_what_is_partial_under_another_name_stays_beside_the_copy_and_holds_up_nothing(
    local: Project,
) -> None:
    local.write(ALL)
    local.hosted(A, bytes(5000))
    local.hosted(B, video(2))
    local.plan()
    local.apply(expect=7)
    local.hosted(A, video(1), path="s3://hms-prod-eu/renamed.mp4")
    local.plan()
    assert local.apply()["copied"] == 1
    assert pairs(local.plan())[A, "vault"] == "keep"
    assert bytes(5000) in local.content("vault").values()


@pytest.mark.usefixtures("without_pauses")
@pytest.mark.parametrize("lost", ["a segment", "the end"])
def test_a_partial_copy_of_many_objects_is_replaced_after_a_rebuild(
    local: Project, lost: str
) -> None:
    files = hls.simple()
    index = next(name for name in files if name.endswith("index.m3u8"))
    if lost == "the end":
        files[index] = files[index].replace(b"#EXT-X-ENDLIST", b"")
    else:
        del files[max(name for name in files if name.endswith(".ts"))]
    local.write(ALL)
    local.hosted_vod(A, files)
    local.plan()
    assert "counts as partial" in local.apply(expect=7)["failed"][0]["cause"]
    lose_the_catalog(local)
    local.run("catalog", "rebuild", "vault")
    assert pairs(local.plan())[A, "vault"] == "copy"
    local.hosted_vod(A, hls.simple())
    local.plan()
    assert local.apply()["copied"] == 1
    assert pairs(local.plan())[A, "vault"] == "keep"


def test_a_store_that_nobody_declared_is_wrong_usage(vault: Project) -> None:
    assert "did you mean `vault`?" in vault.run("verify", "vualt", expect=64).stderr


# ── recognised ────────────────────────────────────────────────────────────────────────────────────

PEER, STREAM, TRACK = (
    f"{digit * 8}-{digit * 4}-4{digit * 3}-8{digit * 3}-{digit * 12}" for digit in "123"
)
SHAPES = {
    f"beam/{ROOM}/2024-01-02/Rec-{ROOM}-1704153600.mp4": {
        "type": "room-composite",
        "room_id": ROOM,
    },
    f"hls/{ROOM}/2024-01-02/1704153600/file-recording/Rec-{ROOM}-1704153600-0.mp4": {
        "type": "room-composite",
        "room_id": ROOM,
    },
    f"hls/{ROOM}/2024-01-02/1704153600/vod/Rec-{ROOM}-1704153600.zip": {
        "type": "room-vod",
        "room_id": ROOM,
    },
    f"chat/{ROOM}/2024-01-02/Rec-{ROOM}-1704153600.csv": {"type": "chat", "room_id": ROOM},
    f"{ROOM}/2024-01-02/{SESSION}/Rec-{SESSION}-1704153600.mp4": {
        "type": "room-composite-legacy",
        "room_id": ROOM,
        "session_id": SESSION,
    },
    f"{ROOM}/2024-01-02/{SESSION}/{PEER}/{STREAM}/{TRACK}.webm": {
        "type": "track",
        "room_id": ROOM,
        "session_id": SESSION,
        "peer_id": PEER,
    },
    f"beam/{ROOM}/20240102/Rec-{ROOM}-1704153600000.mp4": {
        "type": "room-composite",
        "room_id": ROOM,
    },
    f"chat/{ROOM}/2024-January-02/Rec-{ROOM}-1704153600.csv": {"type": "chat", "room_id": ROOM},
    f"hls/{ROOM}/20240102/1704153600/hls-vod/Rec-{ROOM}-1704153600.zip": {
        "type": "room-vod",
        "room_id": ROOM,
    },
    f"{ROOM}/20240102/{SESSION}/{PEER}/{STREAM}/{STREAM}.mp4": {
        "type": "stream",
        "room_id": ROOM,
        "session_id": SESSION,
        "peer_id": PEER,
    },
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("before", ["", "5f00/", "s3://acme/x/"])
def test_a_documented_path_tells_type_room_session_and_peer(shape: str, before: str) -> None:
    assert recognised(before + shape) == (shape, SHAPES[shape])


@pytest.mark.parametrize(
    "key",
    [
        "",
        "notes.txt",
        f"beam/{ROOM}/Rec-{ROOM}-1.mp4",
        f"beam/{ROOM}/2024-01-02/Rec-{SESSION}-1.mp4",
        f"xbeam/{ROOM}/2024-01-02/Rec-{ROOM}-1.mp4",
        f"beam/{ROOM}/2024-01-02/Rec-{ROOM}-1.mp4.part",
        f"beam/{ROOM.upper()}/2024-01-02/Rec-{ROOM.upper()}-1.mp4",
    ],
)
def test_any_other_path_tells_nothing(key: str) -> None:
    assert recognised(key) is None


@pytest.mark.parametrize("store", ["uploads", "vault"])
def test_what_lies_there_already_is_adopted_as_inferred_and_no_object_is_changed(
    local: Project, store: str
) -> None:
    for key in SHAPES:
        local.writer(store).create(
            key, iter([video(len(key))]), len(video(len(key))), {}, "video/mp4"
        )
    local.writer(store).create("notes.txt", iter([b"a person's"]), 10, {}, "text/plain")
    before = local.content(store)
    local.write(
        {
            "version": 1,
            "rules": [
                {
                    "id": "old",
                    "match": {"room_id": ROOM},
                    "keep": [{"in": store, "for": "2y"}],
                    "then": "delete",
                }
            ],
        }
        if store == "vault"
        else {
            "version": 1,
            "rules": [
                {"id": "old", "match": {"room_id": ROOM}, "delete": [{"in": store, "after": "30d"}]}
            ],
        }
    )
    census = json.loads(local.run("adopt", store, "--format", "json").stdout)
    assert (census["looked"], census["recorded"], census["unknown"]) == (
        len(SHAPES) + 1,
        len(SHAPES),
        1,
    )
    assert local.content(store) == before
    rows = local.plan()["rows"]
    # A path tells no date: nothing goes for its age.
    assert [(row["decision"], row.get("because")) for row in rows] == (
        [("keep", None)] if store == "vault" else [("blocked", "untrusted-time")]
    ) * len(SHAPES)
    assert json.loads(local.run("adopt", store, "--format", "json").stdout)["recorded"] == 0
    local.write(
        {
            "version": 1,
            "rules": [
                {"id": "old", "match": {"room_id": ROOM}, "keep": [{"in": "vault", "for": "2y"}]}
            ],
            "erasures": [{"id": "DSR-1", "why": "a request", "match": {"session_id": SESSION}}],
        }
    )
    erased = local.plan("erase.plan", expect=None)
    of_the_session = sum(facts.get("session_id") == SESSION for facts in SHAPES.values())
    assert sum(row["decision"] == "delete" for row in erased["rows"]) == of_the_session == 3


def test_what_100ms_still_knows_is_left_to_a_plan(local: Project) -> None:
    key, _, _, other, *_ = SHAPES
    asset = local._asset(
        A, video(1), timedelta(days=2), "room-composite", local.stores["uploads"].base + key, {}
    )
    local.api.add_asset(asset, video(1), hosted=False)
    for store in ("uploads", "vault"):
        for name in (key, other):
            local.writer(store).create(name, iter([video(1)]), len(video(1)), {}, "video/mp4")
    assert json.loads(local.run("adopt", "vault", "--format", "json").stdout)["recorded"] == 1
    assert json.loads(local.run("adopt", "uploads", "--format", "json").stdout)["recorded"] == 1


def test_a_copy_that_carries_its_record_is_adopted_with_its_date(vault: Project) -> None:
    (seen,) = (seen for seen in vault.writer("vault").list() if seen.key.endswith(f"Rec-{A}.mp4"))
    look = vault.writer("vault").look(seen.key)
    assert look is not None
    vault.writer("vault").create(
        f"moved/Rec-{A}.mp4",
        vault.writer("vault").read(seen),
        seen.size,
        look.metadata or {},
        "video/mp4",
    )
    vault.writer("vault").delete(seen)
    assert pairs(vault.plan())[A, "vault"] == "copy"
    assert json.loads(vault.run("adopt", "vault", "--format", "json").stdout)["recorded"] == 1
    assert pairs(vault.plan())[A, "vault"] == "keep"


def test_nothing_is_adopted_while_100ms_cannot_be_listed_whole(local: Project) -> None:
    local.impatient = True
    local.api.faults.list_fail = {"chat": 0}
    local.run("adopt", "vault", expect=8)


# ── read back ─────────────────────────────────────────────────────────────────────────────────────


def test_copies_that_are_what_was_recorded_pass(vault: Project) -> None:
    text = vault.run("verify", "vault").stdout
    objects = 2 + len(hls.simple())
    assert f"verified: {objects} objects in vault" in text
    assert [each for each in vault.journal() if each["event"] == "end"][-1]["of"] == {
        "what": f"verify {objects} of {objects} objects",
        "finished": True,
    }


@pytest.mark.parametrize(
    "rotten", [f"Rec-{A}.mp4", "layer-0/index.m3u8", "master.m3u8", "manifest.json"]
)
@pytest.mark.parametrize("source", ["100ms", "another store"])
def test_what_rots_is_found_is_partial_from_then_on_and_is_repaired(
    local: Project, rotten: str, source: str
) -> None:
    if source == "another store":
        from conftest import make_store

        local.stores["cold"] = make_store("local", "", local.root / "data", name="cold")
        local.write(
            ALL
            | {
                "rules": [
                    {
                        "id": "all",
                        "match": "all",
                        "keep": [{"in": "vault", "for": "2y"}, {"in": "cold", "for": "2y"}],
                    }
                ]
            }
        )
        local.hosted(A, video(1))
        local.hosted_vod(B, hls.simple())
        local.plan()
        local.apply()
        local.api.faults.fail_first = {"/media/": [404] * 99, "/cdn/": [404] * 99}
    else:
        filled(local)
    whole = local.content("vault")
    rot(path_of(local, rotten))
    assert pairs(local.plan()) == pairs(local.plan())  # nothing that a listing shows has changed
    census = json.loads(local.run("verify", "vault", "--format", "json", expect=1).stdout)
    assert [key.endswith(rotten) for key in census["broken"]] == [True]
    assert "\n= verified" in local.run("verify", "vault").stdout  # it is known already
    plan = local.plan("repair.plan")
    assert pairs(plan)[A if A in rotten else B, "vault"] == "copy"
    assert local.apply("repair.plan")["copied"] == 1
    assert local.content("vault") == whole
    assert pairs(local.plan())[A if A in rotten else B, "vault"] == "keep"
    assert "broken" not in local.run("verify", "vault").stdout


def test_what_an_s3_copied_by_itself_is_compared_recorded_and_verified_by_its_own_crc64nvme(
    seaweedfs: str, tmp_path: Path, api: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most of what lies on AWS has that checksum alone, so that nothing need be read to compare a
    copy."""
    project = make_project(tmp_path / "project", api, "seaweedfs", seaweedfs)
    project.write(ALL)
    project.uploaded(A, video(1))
    project.uploaded_vod(B, hls.simple())
    uploads, client = project.stores["uploads"], servers.s3_client(seaweedfs)
    for key, content in project.content("uploads").items():
        crc = base64.b64encode(anycrc.Model("CRC64-NVME").calc(content).to_bytes(8, "big")).decode()
        client.put_object(
            Bucket=uploads.bucket, Key=uploads.prefix + key, Body=content, ChecksumCRC64NVME=crc
        )
    project.plan()
    for part in ("way", "place", "streams"):
        monkeypatch.setattr(f"retainer.apply.{part}.THROUGH_HERE", 0)
    whole: list[str] = []
    read = S3Reader.read

    def noted(self: S3Reader, seen: Seen) -> Iterator[bytes]:
        whole.append(seen.key)
        yield from read(self, seen)

    with monkeypatch.context() as patch:
        patch.setattr(S3Reader, "read", noted)
        assert project.apply()["copied"] == 2
    assert {
        key
        for key in whole
        if not key.endswith((".m3u8", ".parquet")) and not key.startswith("_retainer/")
    } == set()
    entries = {row["key"]: row for row in catalog_of(project)}
    copies = [
        row for row in entries.values() if not row["key"].endswith((".m3u8", "manifest.json"))
    ]
    assert len(copies) > 2 and all(row["crc64nvme"] and row["crc32c"] is None for row in copies)

    assert "broken" not in project.run("verify", "vault").stdout
    lose_the_catalog(project)
    assert json.loads(project.run("catalog", "rebuild", "vault", "--format", "json").stdout)[
        "recorded"
    ] == len(entries)
    assert {row["key"]: row["crc64nvme"] for row in catalog_of(project)} == {
        key: row["crc64nvme"] for key, row in entries.items()
    }
    (recording,) = (row["key"] for row in copies if row["asset_id"] == A)
    monkeypatch.setattr(
        S3Reader,
        "read",
        lambda self, seen: iter([b"x" * seen.size]) if seen.key == recording else read(self, seen),
    )
    assert json.loads(project.run("verify", "vault", "--format", "json", expect=1).stdout)[
        "broken"
    ] == [recording]


def test_a_repair_replaces_only_the_version_that_was_found_broken(vault: Project) -> None:
    path = path_of(vault, f"Rec-{A}.mp4")
    rot(path)
    vault.run("verify", "vault", expect=1)
    vault.plan("repair.plan")
    path.write_bytes(b"somebody's own")
    done = vault.apply("repair.plan", expect=7)
    assert "a different object lies there" in done["failed"][0]["cause"]
    assert path.read_bytes() == b"somebody's own"


def test_a_sample_reads_so_many_percent(vault: Project) -> None:
    objects = 2 + len(hls.simple())
    census = json.loads(vault.run("verify", "vault", "--sample", "20", "--format", "json").stdout)
    assert census["looked"] == -(-objects * 20 // 100)


def test_what_cannot_be_read_is_told_and_is_not_broken_for_that(
    vault: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retainer.errors import StoreFailed
    from retainer.stores.local import LocalReader

    read = LocalReader.read

    def failing(self: LocalReader, seen: Any) -> Any:
        if seen.key.endswith(".mp4"):
            raise StoreFailed("the disk does not answer")
        return read(self, seen)

    monkeypatch.setattr(LocalReader, "read", failing)
    census = json.loads(vault.run("verify", "vault", "--format", "json", expect=7).stdout)
    assert (census["broken"], [trouble["cause"] for trouble in census["failed"]]) == (
        [],
        ["the disk does not answer"],
    )
    monkeypatch.undo()
    assert pairs(vault.plan())[A, "vault"] == "keep"


# ── cut in the middle ───────────────────────────────────────────────────────────────────────────


@pytest.fixture
def bit_by_bit(local: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Twelve copies, and entries that are written after each object."""
    for number in range(12):
        local.hosted(f"{number:024x}", video(number))
    local.plan()
    assert local.apply()["copied"] == 12
    time.sleep(1.1)  # what was copied in the second in which a verify began is read again
    monkeypatch.setattr(cataloguing, "PART_AGE", timedelta(seconds=-1))
    monkeypatch.setattr(cataloguing, "WORKERS", 1)
    return local


def cut_after(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """The run ends when it looks at one more object."""
    seen: list[Any] = []
    check = Stop.check

    def cut(self: Stop) -> None:
        check(self)
        if threading.current_thread().name.startswith("ThreadPool"):
            seen.append(1)
            if len(seen) > count:
                raise Stopped

    monkeypatch.setattr(Stop, "check", cut)


def test_a_rebuild_that_was_cut_goes_on_with_what_is_left(
    bit_by_bit: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = catalog_of(bit_by_bit)
    lose_the_catalog(bit_by_bit)
    with monkeypatch.context() as patch:
        cut_after(patch, 8)
        bit_by_bit.run("catalog", "rebuild", "vault", expect=None)
    some = len(catalog_of(bit_by_bit))
    assert 0 < some < 12
    census = json.loads(bit_by_bit.run("catalog", "rebuild", "vault", "--format", "json").stdout)
    assert census["recorded"] == 12 - some
    assert len(catalog_of(bit_by_bit)) == len(whole)


def test_a_verify_that_was_cut_goes_on_where_it_ended(
    bit_by_bit: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = path_of(bit_by_bit, f"Rec-{2:024x}.mp4")
    rot(broken)
    with monkeypatch.context() as patch:
        cut_after(patch, 8)
        bit_by_bit.run("verify", "vault", expect=None)
    census = json.loads(bit_by_bit.run("verify", "vault", "--format", "json", expect=None).stdout)
    assert 0 < census["looked"] < 12 and "this goes on behind" in census["said"][0]
    again = json.loads(bit_by_bit.run("verify", "vault", "--format", "json").stdout)
    assert (again["looked"], again["broken"]) == (11, []), "the broken one is known by now"


def test_a_verify_that_was_cut_long_ago_begins_anew(
    bit_by_bit: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        cut_after(patch, 8)
        bit_by_bit.run("verify", "vault", expect=None)
    monkeypatch.setattr(cataloguing, "GONE_ON_WITHIN", timedelta(0))
    census = json.loads(bit_by_bit.run("verify", "vault", "--format", "json").stdout)
    assert census["looked"] == 12


def test_what_could_not_be_read_is_read_again_by_the_run_that_goes_on(
    bit_by_bit: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retainer.errors import StoreFailed
    from retainer.stores.local import LocalReader

    read = LocalReader.read

    def failing(self: LocalReader, seen: Any) -> Any:
        if seen.key.endswith(f"Rec-{2:024x}.mp4"):
            raise StoreFailed("the disk does not answer")
        return read(self, seen)

    with monkeypatch.context() as patch:
        patch.setattr(LocalReader, "read", failing)
        cut_after(patch, 8)
        bit_by_bit.run("verify", "vault", expect=None)
    rot(path_of(bit_by_bit, f"Rec-{2:024x}.mp4"))
    census = json.loads(bit_by_bit.run("verify", "vault", "--format", "json", expect=1).stdout)
    assert len(census["broken"]) == 1


def test_a_verify_that_was_cut_in_another_store_of_that_name_is_not_gone_on_with(
    bit_by_bit: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        cut_after(patch, 8)
        bit_by_bit.run("verify", "vault", expect=None)
    (tmp_path / "another").mkdir()
    bit_by_bit.stores["vault"] = replace(
        bit_by_bit.stores["vault"], url=f"file://{tmp_path / 'another'}"
    )
    bit_by_bit.write()
    bit_by_bit.plan("there.plan")
    bit_by_bit.apply("there.plan")
    rot(path_of(bit_by_bit, f"Rec-{1:024x}.mp4"))
    census = json.loads(bit_by_bit.run("verify", "vault", "--format", "json", expect=1).stdout)
    assert (census["looked"], len(census["broken"])) == (12, 1)


def test_what_was_copied_since_a_verify_was_cut_is_read_whatever_its_key(
    bit_by_bit: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        cut_after(patch, 8)
        bit_by_bit.run("verify", "vault", expect=None)
    bit_by_bit.hosted(f"{0:023x}f", video(77))
    bit_by_bit.plan("more.plan")
    bit_by_bit.apply("more.plan")
    rot(path_of(bit_by_bit, f"Rec-{0:023x}f.mp4"))
    census = json.loads(bit_by_bit.run("verify", "vault", "--format", "json", expect=1).stdout)
    assert len(census["broken"]) == 1
