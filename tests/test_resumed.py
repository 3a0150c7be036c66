"""A list of 100ms that was cut goes on where it stood, and begins anew where that is not certain."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from project import Project

from retainer.inventory import asset_list, bookmark
from retainer.inventory.bookmark import Page, bookmark_of, held, keep, spool_of

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
KIND = "chat"
WITHIN = timedelta(hours=12)


def chats(project: Project, count: int) -> set[str]:
    """So many recordings of one type, of which 100ms lists a hundred a page."""
    return {project.hosted(f"c{number:023x}", b"a,b\n", kind=KIND)["id"] for number in range(count)}


def facts(project: Project, *, expect: int | None = 0) -> dict[str, Any]:
    """Gathers; the list of one type, as the facts have it."""
    project.run("facts", "--out", "f.duckdb", expect=expect)
    with duckdb.connect(str(project.root / "f.duckdb"), read_only=True) as found:
        complete, objects, note, began = found.execute(
            "SELECT complete, objects, note, started_at FROM listings WHERE name = ?",
            [f"100ms {KIND}"],
        ).fetchall()[0]
        ids = {row[0] for row in found.execute("SELECT asset_id FROM assets").fetchall()}
    return {"complete": complete, "objects": objects, "note": note, "ids": ids, "began": began}


def asked(project: Project) -> list[str | None]:
    """The cursors that the list of one type was asked with since it was last looked."""
    requests = project.api.requests
    project.api._requests.clear()
    pages = [each.query for each in requests if each.query.get("type") == KIND]
    return [each.get("start") for each in pages if each["limit"] == "100"]


@pytest.fixture
def cut(local: Project) -> Project:
    """Five pages of recordings, whose list was cut before the fourth."""
    local.impatient = True
    chats(local, 450)
    local.write()
    local.api.faults.list_fail = {KIND: 3}
    came = facts(local, expect=8)
    assert (came["complete"], came["objects"]) == (False, 300)
    local.api.faults.list_fail = {}
    asked(local)
    return local


def test_a_list_that_was_cut_goes_on_where_it_stood(cut: Project) -> None:
    came = facts(cut)
    assert (came["complete"], came["objects"], len(came["ids"])) == (True, 450, 450)
    assert "went on from where it was cut" in came["note"]
    starts = asked(cut)
    # the last page that had come is asked for again, and then what is behind it
    assert len(starts) == 3 and None not in starts


def test_facts_are_as_old_as_the_beginning_of_a_list_that_was_cut(cut: Project) -> None:
    began = bookmark_of(spools(cut)[0], Page, datetime.now(UTC), WITHIN)
    time.sleep(1)
    came = facts(cut)
    assert began is not None
    assert came["began"].replace(tzinfo=UTC) == began.began


def change_a_row_of_the_last_page(project: Project) -> None:
    (path,) = spools(project)
    row = json.loads(path.read_text().splitlines()[-7])
    project.api.faults.broken_rows = {row["asset_id"]: {"id": "another"}}


def spools(project: Project) -> list[Path]:
    return sorted((project.root / ".retainer" / "lists").glob("*.jsonl"))


def test_a_list_that_ended_begins_anew_and_nothing_of_it_stays(cut: Project) -> None:
    assert len(spools(cut)) == 1
    facts(cut)
    assert list((cut.root / ".retainer" / "lists").iterdir()) == []
    asked(cut)
    assert facts(cut)["note"] is None
    assert asked(cut)[0] is None and len(asked(cut)) == 0


def test_where_the_last_page_is_another_the_list_begins_anew(cut: Project) -> None:
    change_a_row_of_the_last_page(cut)
    came = facts(cut)
    assert (came["complete"], came["objects"], len(came["ids"])) == (True, 450, 450)
    assert came["note"] is None
    assert asked(cut)[1] is None


def test_an_old_cursor_begins_anew(cut: Project) -> None:
    (path,) = spools(cut)
    beside = path.with_suffix(".json")
    told = json.loads(beside.read_text())
    at = datetime.now(UTC) - bookmark.RESUMED_WITHIN
    told |= {"began": at.isoformat(), "at": at.isoformat()}
    beside.write_text(json.dumps(told))
    assert facts(cut)["objects"] == 450
    assert asked(cut)[0] is None


def test_a_list_that_is_older_than_plans_last_begins_anew(cut: Project) -> None:
    settings = cut.root / "retainer.yaml"
    settings.write_text(settings.read_text().replace("limits:", "limits:\n  plan_age: 1h"))
    (path,) = spools(cut)
    beside = path.with_suffix(".json")
    began = datetime.now(UTC) - timedelta(minutes=30)
    beside.write_text(json.dumps(json.loads(beside.read_text()) | {"began": began.isoformat()}))
    assert facts(cut)["objects"] == 450
    assert asked(cut)[0] is None


def test_other_credentials_begin_anew(cut: Project) -> None:
    cut.api.access_key = "another-key"
    assert len(facts(cut)["ids"]) == 450
    assert asked(cut)[0] is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.with_suffix(".json").write_text("{"),
        lambda path: path.with_suffix(".json").write_text('{"began": 3}'),
        lambda path: path.with_suffix(".json").unlink(),
        lambda path: os.truncate(path, 100),
        lambda path: path.unlink(),
    ],
)
def test_what_is_damaged_begins_anew(cut: Project, spoil: Any) -> None:
    spoil(spools(cut)[0])
    came = facts(cut)
    assert (came["objects"], len(came["ids"])) == (450, 450)
    assert asked(cut)[0] is None


def test_what_was_half_written_behind_the_bookmark_is_cut_off(cut: Project) -> None:
    (path,) = spools(cut)
    with path.open("a") as stream:
        stream.write('{"asset_id": "half')
    assert len(facts(cut)["ids"]) == 450
    assert None not in asked(cut)


def test_a_list_is_cut_again_and_goes_on_again(cut: Project) -> None:
    cut.api.faults.list_fail = {KIND: 4}
    came = facts(cut, expect=8)
    assert (came["complete"], came["objects"]) == (False, 400)
    cut.api.faults.list_fail = {}
    asked(cut)
    assert facts(cut)["objects"] == 450
    assert len(asked(cut)) == 2


def test_where_100ms_answers_and_not_that_page_the_list_begins_anew(cut: Project) -> None:
    cut.api.faults.list_fail = {KIND: 1}
    came = facts(cut, expect=8)
    assert (came["complete"], came["objects"]) == (False, 100)
    cut.api.faults.list_fail = {}
    assert facts(cut)["objects"] == 450


def test_while_100ms_does_not_answer_nothing_is_forgotten(cut: Project) -> None:
    cut.api.faults.list_fail = {KIND: 0}
    came = facts(cut, expect=8)
    assert (came["complete"], came["objects"], len(came["ids"])) == (False, 300, 450)
    cut.api.faults.list_fail = {}
    asked(cut)
    assert facts(cut)["objects"] == 450
    assert None not in asked(cut)


def test_of_two_that_list_at_once_one_goes_on_and_one_begins_anew(cut: Project) -> None:
    with held(cut.root / ".retainer" / "lists") as folder:
        assert folder is not None
        came = facts(cut)
        assert (came["complete"], came["objects"], came["note"]) == (True, 450, None)
        assert asked(cut)[0] is None
        assert len(spools(cut)) == 1  # the other one's stays
    assert "went on" in facts(cut)["note"]


def test_rows_without_an_id_stay_in_mind(local: Project) -> None:
    local.impatient = True
    chats(local, 450)
    local.write()
    local.api.faults.broken_rows = {f"c{7:023x}": {"id": None}}
    local.api.faults.list_fail = {KIND: 3}
    facts(local, expect=8)
    local.api.faults.list_fail = {}
    came = facts(local, expect=8)
    assert came["objects"] == 449 and not came["complete"]


def test_a_killed_run_is_gone_on_with(local: Project) -> None:
    """It stands where it was last written down; of the lists that had ended nothing is asked."""
    pages = bookmark.PAGES_BETWEEN + 2
    chats(local, pages * 100 + 50)
    local.write()
    local.api.faults.list_fail = {KIND: pages}  # tried again for two minutes
    process = subprocess.Popen(
        local.command("facts", "--out", "f.duckdb"),
        cwd=local.root,
        env=local.env(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        ends = time.monotonic() + 60
        while not local.api.faults.counts["list_fail"]:
            assert time.monotonic() < ends, "it never came so far"
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    local.api.faults.list_fail = {}
    local.api._requests.clear()
    came = facts(local)
    full = [each.query for each in local.api.requests if each.query.get("limit") == "100"]
    assert (came["complete"], came["objects"]) == (True, pages * 100 + 50)
    assert len(came["ids"]) == pages * 100 + 50
    assert len([each for each in full if each.get("type") == KIND]) == 4
    assert not [each for each in full if each.get("type") == "summary"]


def test_a_bookmark_of_a_list_that_began_anew_is_gone(cut: Project) -> None:
    """Else a kill would leave it beside rows that are not those it tells of."""
    change_a_row_of_the_last_page(cut)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asset_list, "keep", lambda _path, _mark: None)
        cut.api.faults.list_fail = {KIND: 3}
        facts(cut, expect=8)
    assert len(spools(cut)) == 1 and not spools(cut)[0].with_suffix(".json").exists()


def test_a_kill_soon_after_a_list_began_anew_loses_nothing(cut: Project) -> None:
    """The bookmark of before would cut the new rows where the old ones ended."""
    change_a_row_of_the_last_page(cut)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asset_list, "keep", lambda _path, _mark: None)
        cut.api.faults.list_fail = {KIND: 4}
        facts(cut, expect=8)
    cut.api.faults.broken_rows, cut.api.faults.list_fail = {}, {}
    came = facts(cut)
    assert came["complete"] and len(came["ids"]) == 450


@pytest.mark.parametrize("spoilt", [{"size": 10**9}, {"began": "2020-01-01T00:00:00Z"}])
def test_where_a_list_begins_a_bookmark_that_was_no_good_is_gone(
    cut: Project, spoilt: dict[str, Any]
) -> None:
    (path,) = spools(cut)
    beside = path.with_suffix(".json")
    beside.write_text(json.dumps(json.loads(beside.read_text()) | spoilt))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asset_list, "keep", lambda _path, _mark: None)
        cut.api.faults.list_fail = {KIND: 3}
        facts(cut, expect=8)
    assert not beside.exists()


def test_rows_that_cannot_be_read_any_more_are_removed_and_told(cut: Project) -> None:
    (path,) = spools(cut)
    size = path.stat().st_size
    path.write_bytes(b"\0" * size)
    told = cut.run("facts", "--out", "f.duckdb", expect=1).stderr
    assert "they are removed: run it again" in told
    assert len(facts(cut)["ids"]) == 450


def test_an_id_with_half_a_letter_ends_no_list(local: Project) -> None:
    local.impatient = True
    chats(local, 150)
    local.write()
    local.api.faults.broken_rows = {f"c{7:023x}": {"id": "\ud800"}}
    came = facts(local, expect=8)
    assert (came["complete"], came["objects"]) == (False, 149)


def test_after_a_list_was_gone_on_with_no_upload_goes_for_one_plan(local: Project) -> None:
    """One that came since its beginning may be unseen, and may name the same object."""
    local.impatient = True
    local.copied_and_due("d" * 24, "a" * 24)
    chats(local, 250)
    local.api.faults.list_fail = {KIND: 1}
    assert local.plan(expect=8)["header"]["deletes"] == 0
    local.api.faults.list_fail = {}
    assert local.plan()["header"]["deletes"] == 0
    assert local.plan()["header"]["deletes"] == 1


# ── the bookmark itself ─────────────────────────────────────────────────────────────────────────


def test_a_bookmark_is_read_as_it_was_written(tmp_path: Path) -> None:
    spool = spool_of(tmp_path, "ours", None)
    spool.write_text("x" * 50)
    mark = Page(NOW, NOW, 50, "cursor", "ab", True, 2, 1, 1, ("odd",))
    keep(spool, mark)
    assert bookmark_of(spool, Page, NOW + timedelta(hours=1), WITHIN) == mark


@pytest.mark.parametrize("after", [timedelta(hours=6), timedelta(seconds=-1)])
def test_a_bookmark_of_another_day_is_none(tmp_path: Path, after: timedelta) -> None:
    spool = spool_of(tmp_path, "ours", None)
    spool.write_text("x" * 50)
    keep(spool, Page(NOW, NOW, 50, None, ""))
    assert bookmark_of(spool, Page, NOW + after, WITHIN) is None


def test_a_spool_that_is_shorter_than_its_bookmark_says_is_none(tmp_path: Path) -> None:
    spool = spool_of(tmp_path, "ours", None)
    spool.write_text("x" * 49)
    mark = Page(NOW, NOW, 50, None, "")
    keep(spool, mark)
    assert bookmark_of(spool, Page, NOW, WITHIN) is None
    keep(spool, replace(mark, size=49))
    assert bookmark_of(spool, Page, NOW, WITHIN) is not None


def test_each_list_of_each_workspace_has_a_place_of_its_own(tmp_path: Path) -> None:
    places = {spool_of(tmp_path, *each) for each in (("a", None), ("a", "chat"), ("b", None))}
    assert len(places) == 3


def test_only_one_process_lists_into_a_folder(tmp_path: Path) -> None:
    with held(tmp_path / "lists") as one, held(tmp_path / "lists") as other:
        assert (one, other) == (tmp_path / "lists", None)
    with held(tmp_path / "lists") as again:
        assert again is not None


def test_nobody_else_may_look_into_the_folder(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir(mode=0o777)
    (tmp_path / "lists").chmod(0o777)
    with held(tmp_path / "lists"):
        assert (tmp_path / "lists").stat().st_mode & 0o077 == 0


def test_what_nobody_goes_on_with_is_removed(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    old, young = tmp_path / "lists" / "old.jsonl", tmp_path / "lists" / "young.jsonl"
    for path, age in ((old, timedelta(hours=7)), (young, timedelta(hours=5))):
        path.write_text("{}")
        moment = (datetime.now(UTC) - age).timestamp()
        os.utime(path, (moment, moment))
    with held(tmp_path / "lists"):
        assert (old.exists(), young.exists()) == (False, True)


def test_a_link_to_a_folder_is_none(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "lists").symlink_to(tmp_path / "elsewhere")
    with held(tmp_path / "lists") as folder:
        assert folder is None


def test_where_no_folder_can_be_made_none_is_held(tmp_path: Path) -> None:
    (tmp_path / "lists").write_text("a file")
    with held(tmp_path / "lists") as folder:
        assert folder is None
