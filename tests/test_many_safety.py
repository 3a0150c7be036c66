"""What must never go wrong with recordings of many objects; each of these once did, and was found
by reading with fresh eyes."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import hls
import pytest
from project import ROOM, Project, pairs, video
from test_cataloguing import ALL, rot
from test_many import POLICY, folder_of, path_of

from retainer.errors import StoreFailed

A, B, C = "a" * 24, "b" * 24, "c" * 24
LIFTED = ("--lift", "empty:store:uploads", "--lift", "empty:store:vault")
FACE = next(iter(hls.thumbnails().values()))


@pytest.fixture
def vods(local: Project) -> Project:
    local.write(POLICY)
    return local


def put(project: Project, key: str, content: bytes) -> None:
    project.writer("uploads").create(
        key, iter([content]), len(content), {}, "application/octet-stream"
    )


def everything(project: Project) -> set[bytes]:
    return {
        content for store in ("uploads", "vault") for content in project.content(store).values()
    }


def applied(project: Project, name: str) -> dict[str, Any]:
    return project.apply_all(name, project.plan(name, *LIFTED, expect=None))


def test_what_appears_in_a_folder_after_its_copy_is_not_deleted_with_it(vods: Project) -> None:
    vods.uploaded_vod(A, hls.simple())
    vods.plan()
    vods.apply()
    put(vods, f"hls/{ROOM}/{A}/vod/late/poster.mp4", video(9))
    plan = vods.plan("due.plan", *LIFTED, expect=None)
    assert plan["header"]["deletes"] == 0
    assert "among its objects is one that no other copy has" in " ".join(
        vods.run("show", "due.plan").stdout.split()
    )
    applied(vods, "again.plan")
    assert everything(vods) >= {video(9), *hls.simple().values()}


def test_thumbnails_of_the_same_name_are_both_copied(vods: Project) -> None:
    base = vods.stores["uploads"].base
    for number in (1, 2):
        put(vods, f"faces/{number}/1.jpg", FACE + bytes([number]))
    vods.uploaded_vod(
        A, hls.simple(), thumbnails=[f"{base}faces/{number}/1.jpg" for number in (1, 2)]
    )
    vods.plan()
    vods.apply()
    applied(vods, "due.plan")
    assert {FACE + b"\1", FACE + b"\2"} <= set(vods.content("vault").values())


def test_a_folder_that_lacks_a_segment_does_not_make_a_delete_safe(local: Project) -> None:
    def keeping(vault: str) -> dict[str, Any]:
        keeps = [{"in": "vault", "for": vault}, {"in": "uploads", "for": "2y"}]
        return {
            "version": 1,
            "rules": [{"id": "v", "match": {"type": "room-vod"}, "keep": keeps, "then": "delete"}],
        }

    local.write(keeping("10d"))
    local.uploaded_vod(A, hls.simple(), age=timedelta(days=5))
    local.plan()
    assert local.apply()["copied"] == 1
    next(Path(local.stores["uploads"].prefix).rglob("*.ts")).unlink()
    local.write(keeping("2d"))
    assert [
        row.get("because")
        for row in local.plan("due.plan", *LIFTED, expect=None)["rows"]
        if row["store"] == "vault"
    ] == ["uncovered"]
    assert applied(local, "due.plan")["deleted"] == 0
    assert set(folder_of(local, "vault", A)) == {*hls.simple(), "manifest.json"}


def test_two_files_that_a_copy_would_call_by_one_name_are_an_error(vods: Project) -> None:
    vods.uploaded_vod(A, hls.simple() | {"manifest.json": b"{}one", "_manifest.json": b"{}two"})
    vods.plan()
    assert "which in a copy would be one" in vods.apply(expect=7)["failed"][0]["cause"]
    applied(vods, "due.plan") if vods.plan("due.plan", *LIFTED, expect=None)["header"][
        "deletes"
    ] else None
    assert {b"{}one", b"{}two"} <= everything(vods)


def test_a_manifest_json_of_somebody_elses_is_copied_under_another_name_before_it_is_deleted(
    vods: Project,
) -> None:
    vods.uploaded_vod(A, hls.simple() | {"manifest.json": b"{}one"})
    vods.plan()
    vods.apply()
    assert applied(vods, "due.plan")["deleted"] == 1
    assert folder_of(vods, "vault", A)["_manifest.json"] == b"{}one"


def test_a_member_called_manifest_json_behind_the_cdn_is_kept_under_another_name(
    vods: Project,
) -> None:
    files = hls.simple()
    index = next(name for name in files if name.endswith("index.m3u8"))
    files[index] = files[index].replace(
        b"#EXT-X-ENDLIST", b"#EXTINF:1.0,\n../manifest.json\n#EXT-X-ENDLIST"
    )
    vods.hosted_vod(A, files | {"manifest.json": b'{"a": 1}'})
    vods.plan()
    assert vods.apply()["copied"] == 1
    assert folder_of(vods, "vault", A)["_manifest.json"] == b'{"a": 1}'
    assert pairs(vods.plan())[A, "vault"] == "keep"


def test_a_rebuild_does_not_take_a_broken_copy_for_whole(local: Project) -> None:
    local.write(ALL)
    local.hosted(A, video(1))
    local.plan()
    local.apply()
    rot(path_of(local, "vault", f"Rec-{A}.mp4"))
    local.run("verify", "vault", expect=1)
    local.run("catalog", "rebuild", "vault")
    assert pairs(local.plan())[A, "vault"] == "copy"


def test_facts_that_did_not_fit_into_metadata_are_not_known_after_a_rebuild_so_that_a_hold_still_freezes(
    local: Project,
) -> None:
    local.write(ALL)
    local.hosted(A, video(1), metadata={"matter": "LIT-9", "notes": "x" * 4000})
    local.plan()
    local.apply()
    for seen in list(local.writer("vault").list("_retainer/catalog/")):
        local.writer("vault").delete(seen)
    local.run("catalog", "rebuild", "vault")
    local.api._rows["recording-assets"].clear()
    local.api._listings.clear()
    hold = {
        "id": "LIT-9",
        "why": "a matter",
        "match": {"metadata": {"matter": "LIT-9"}},
        "in": "vault",
    }
    local.write(
        ALL
        | {
            "holds": [hold],
            "erasures": [{"id": "DSR-1", "why": "a request", "match": {"room_id": ROOM}}],
        }
    )
    row = next(row for row in local.plan(expect=None)["rows"] if row["store"] == "vault")
    assert row["decision"] != "delete"


@pytest.mark.parametrize("fact", ["session_id", "asset_id", "peer_id", "user_id", "status"])
def test_a_hold_on_what_a_path_does_not_tell_freezes_an_inferred_recording(
    local: Project, fact: str
) -> None:
    key = f"beam/{ROOM}/2024-01-02/Rec-{ROOM}-1704153600.mp4"
    local.writer("vault").create(key, iter([video(1)]), len(video(1)), {}, "video/mp4")
    local.run("adopt", "vault")
    match = {fact: "completed" if fact == "status" else "6" * 24}
    local.write(
        {
            "version": 1,
            "holds": [{"id": "LIT-9", "why": "a matter", "match": match, "in": "vault"}],
            "erasures": [{"id": "DSR-1", "why": "a request", "match": {"room_id": ROOM}}],
        }
    )
    assert [row["decision"] for row in local.plan(expect=None)["rows"]] == ["keep"]


def test_a_new_hold_on_one_of_three_that_share_objects_keeps_all_three(local: Project) -> None:
    base = local.stores["uploads"].base
    for number in (1, 2):
        put(local, f"faces/{number}.jpg", FACE + bytes([number]))
    for name, faces in ((A, (1,)), (B, (1, 2)), (C, (2,))):
        local.uploaded_vod(
            name, hls.simple(), thumbnails=[f"{base}faces/{number}.jpg" for number in faces]
        )
    erasure = {"id": "DSR-1", "why": "a request", "match": {"room_id": ROOM}}
    local.write(POLICY | {"erasures": [erasure]})
    plan = local.plan("erase.plan", *LIFTED, expect=None)
    assert plan["header"]["deletes"] == 3
    local.write(
        POLICY
        | {
            "erasures": [erasure],
            "holds": [{"id": "LIT-9", "why": "a matter", "match": {"asset_id": C}, "in": "vault"}],
        }
    )
    before = local.content("uploads")
    assert local.apply("erase.plan", "--approve-deletes", "3")["deleted"] == 0
    assert local.content("uploads") == before


def test_a_copy_that_a_killed_run_made_and_that_lost_a_member_is_not_counted_as_done(
    vods: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retainer.apply import outcomes

    def no_room(*_: Any) -> str:
        raise StoreFailed("the catalog cannot be written")

    vods.hosted_vod(A, hls.simple())
    vods.plan()
    with monkeypatch.context() as patch:
        patch.setattr(outcomes, "write_part", no_room)
        vods.apply(expect=7)
    member = path_of(vods, "vault", "layer-0/index.m3u8")
    content, stat = member.read_bytes(), member.stat()
    member.write_bytes(bytes(len(content)))
    os.utime(member, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    done = vods.apply(expect=7)
    assert done["already"] == 0 and "a different object lies there" in done["failed"][0]["cause"]
    assert pairs(vods.plan())[A, "vault"] == "copy"
