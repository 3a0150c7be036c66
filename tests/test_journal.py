"""The journal: segments with summaries, in a folder or in a store that machines share."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import endpoint_of, make_store, make_writer
from hypothesis import given, settings
from hypothesis import strategies as st
from records import entries, segments

from retainer.errors import Locked, RetainerError, StoreFailed
from retainer.journal import journal as journals
from retainer.journal.backend import Backend
from retainer.journal.entry import CLOSED, START, Entry, sealed
from retainer.journal.folder import FolderBackend
from retainer.journal.journal import (
    Journal,
    goes_through,
    read_journal,
    read_ledger,
    verify_journal,
)
from retainer.journal.ledger import Ledger, Marks, Rows, closing
from retainer.journal.lock import DEAD_AFTER
from retainer.journal.shared import PieceTape, SharedBackend

BACKENDS = ("folder", "local", "seaweedfs", "fake_gcs", "strict_gcs")


@pytest.fixture(params=BACKENDS)
def machines(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Backend]:
    """The same state, as the machine with a name sees it."""
    if request.param == "folder":
        return lambda _: FolderBackend(tmp_path / "state")
    endpoint = endpoint_of(request.param, request)
    store = make_store(request.param, endpoint, tmp_path, name="state")
    return lambda name: SharedBackend(tmp_path / name, store.url, make_writer(store))


def now() -> datetime:
    return datetime.now(UTC)


def journal(backend: Backend, run: str = "run", plan: str = "plan") -> Journal:
    return Journal(backend, run, plan, now)


def written(backend: Backend, run: str, *events: str) -> None:
    opened = journal(backend, run)
    for event in events:
        opened.write(event)
    opened.close()


def told(backend: Backend) -> list[str]:
    return [entry.event for entry in read_journal(backend)]


# ── what every place of a record must do ──────────────────────────────────────────────────────────


def test_each_run_is_a_segment_that_ends_with_a_summary(machines: Callable[[str], Backend]) -> None:
    assert read_ledger(machines("a")).is_empty
    written(machines("a"), "r1", "one", "two")
    written(machines("b"), "r2", "three")
    backend = machines("c")
    assert told(backend) == ["one", "two", CLOSED, "three", CLOSED]
    assert backend.newest() == 2
    ledger = read_ledger(backend)
    assert (ledger.lines, ledger.head) == (5, list(read_journal(backend))[-1].seal)
    assert verify_journal(backend).runs == 2


def test_a_run_sees_what_other_machines_did_and_goes_on_from_it(
    machines: Callable[[str], Backend],
) -> None:
    first = journal(machines("a"), "r1", "p")
    first.write("copied", row=3, asset="x", record={"key": "k", "object_size": 1, "version": "v"})
    first.write("catalogued", store="vault", rows=[3])
    first.write("deleted", row=4, asset="y", store="vault", rule="r", bytes=7, keys=["k4"])
    first.close()
    assert machines("a").identity() == machines("b").identity() is not None
    second = journal(machines("b"), "r2", "q")
    done = second.ledger().done("p")
    assert done.is_as_made(3, "k", 1, "v") and not done.is_as_made(3, "k", 1, "w")
    assert 4 in done.deleted and 3 not in done.deleted and done.uncatalogued == {}
    assert second.recent_deletes(now()) == {("vault", "r"): (1, 7)}
    assert second.recent_deletes(now() + timedelta(hours=25)) == {}
    second.close()


def test_only_one_run_has_it_at_a_time(machines: Callable[[str], Backend]) -> None:
    first = journal(machines("a"), "r1")
    first.write("one")
    with pytest.raises(Locked):
        journal(machines("b"), "r2")
    first.close()
    written(machines("b"), "r2", "two")
    assert told(machines("a")) == ["one", CLOSED, "two", CLOSED]


def test_what_a_run_that_died_left_open_is_closed_by_the_next(
    machines: Callable[[str], Backend],
) -> None:
    dead = journal(machines("a"), "r1")
    dead.write("intent", act="copy", rows=[1], store="vault")
    dead._hold.close()  # it ends without a word
    assert read_ledger(machines("b")).lines == 1
    written(machines("b"), "r2", "two")
    assert told(machines("a")) == ["intent", CLOSED, "two", CLOSED]
    verify_journal(machines("a"))


def test_a_run_with_nothing_to_say_leaves_no_segment(machines: Callable[[str], Backend]) -> None:
    written(machines("a"), "r1", "one")
    written(machines("a"), "r2")
    assert machines("a").newest() == 1


def test_a_long_run_goes_on_in_another_segment(
    machines: Callable[[str], Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "SEGMENT_LINES", 3)
    written(machines("a"), "r1", *map(str, range(7)))
    backend = machines("b")
    assert backend.newest() == 3
    assert [each for each in told(backend) if each != CLOSED] == list(map(str, range(7)))
    verify_journal(backend)


def test_a_freeze_and_what_is_archived_lie_beside_it(
    machines: Callable[[str], Backend], tmp_path: Path
) -> None:
    file = tmp_path / "p.plan"
    file.write_bytes(b"one")
    assert machines("a").last_freeze() is None and machines("a").archived("plans/f.plan") is None
    machines("a").add_freeze(b"one\n")
    machines("b").add_freeze(b"two\n")
    assert machines("c").last_freeze() == b"two\n"
    machines("a").archive("plans/f.plan", file)
    file.write_bytes(b"two")
    machines("b").archive("plans/f.plan", file)
    assert machines("c").archived("plans/f.plan") == b"one"
    assert machines("c").archives("plans/") == ["plans/f.plan"]


def test_threads_write_together_and_each_line_once(machines: Callable[[str], Backend]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    opened = journal(machines("a"))
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: opened.write("line", number=number), range(64)))
    opened.close()
    found = [
        each.particulars["number"] for each in read_journal(machines("b")) if each.event == "line"
    ]
    assert sorted(found) == list(range(64))
    verify_journal(machines("b"))


def test_an_anchor_names_a_line_that_is_found_again(machines: Callable[[str], Backend]) -> None:
    opened = journal(machines("a"))
    old = opened.anchor("vault")
    opened.write("one")
    for _ in range(4):
        last = opened.anchor("vault")
    opened.close()
    backend = machines("b")
    ledger = read_ledger(backend)
    assert ledger.has_anchor(*last) and not ledger.has_anchor(*old)
    assert goes_through(backend, ledger, *last) and goes_through(backend, ledger, *old)
    assert not goes_through(backend, ledger, old[0], last[1])
    assert not goes_through(backend, ledger, ledger.lines + 1, last[1])


# ── in a store ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def shared(tmp_path: Path, seaweedfs: str) -> Callable[[str], SharedBackend]:
    store = make_store("seaweedfs", seaweedfs, tmp_path, name="state")
    return lambda name: SharedBackend(tmp_path / name, store.url, make_writer(store))


def test_a_run_that_was_taken_for_dead_can_write_no_more(
    shared: Callable[[str], SharedBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = journal(shared("a"), "slow")
    slow.write("one")
    monkeypatch.setattr("retainer.journal.lock.Held.is_dead", True)
    written(shared("b"), "next", "two")
    with pytest.raises(Locked, match="took this one for dead"):
        slow.write("intent", act="delete", rows=[1], store="vault", acts=[])
    with pytest.raises(Locked):
        slow.write("three")
    slow.close()
    assert told(shared("c")) == ["one", CLOSED, "two", CLOSED]
    assert timedelta(minutes=10) == DEAD_AFTER


def unheard(call: Callable[..., Any]) -> Callable[..., Any]:
    """A call that is done, and whose answer never comes."""

    def done(*words: Any, **named: Any) -> Any:
        call(*words, **named)
        raise StoreFailed("no answer came")

    return done


def test_a_write_whose_answer_was_lost_is_there_once(
    shared: Callable[[str], SharedBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = shared("a")
    opened = journal(backend)
    opened.write("one")
    with monkeypatch.context() as patch:
        patch.setattr(backend.store, "create", unheard(backend.store.create))
        opened.write("two")
    opened.write("three")
    opened.close()
    assert told(shared("b")) == ["one", "two", "three", CLOSED]


def test_what_was_told_to_be_lost_and_is_there_stands_in_its_place(
    shared: Callable[[str], SharedBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = shared("a")
    opened = journal(backend)
    opened.write("one")

    def silent(*words: Any) -> Any:
        raise StoreFailed("no answer came")

    with monkeypatch.context() as patch:
        patch.setattr(backend.store, "create", unheard(backend.store.create))
        patch.setattr(backend.store, "whole", silent)
        with pytest.raises(StoreFailed):
            opened.write("deleted", row=1, asset="x", store="vault", rule="r", bytes=7, keys=[])
    opened.write("three")
    assert opened.recent_deletes(now()) == {("vault", "r"): (1, 7)}
    opened.close()
    assert told(shared("b")) == ["one", "deleted", "three", CLOSED]
    verify_journal(shared("b"))


@pytest.mark.parametrize("hint", [None, b"{", b'{"segment": 1, "pieces": 3}', b'{"segment": -4}'])
def test_the_hint_only_helps(shared: Callable[[str], SharedBackend], hint: bytes | None) -> None:
    for run in ("r1", "r2", "r3"):
        written(shared("a"), run, "one", "two")
    backend = shared("b")
    look = backend.store.look("journal/latest.json")
    assert look is not None
    backend.store.delete(look.seen)
    if hint is not None:
        backend._create("journal/latest.json", hint)
    assert backend.newest() == 3 and read_ledger(backend).lines == 9
    written(shared("c"), "r4", "four")
    assert read_ledger(shared("d")).lines == 11


def test_a_closed_record_is_read_in_three_calls(
    shared: Callable[[str], SharedBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    for run in ("r1", "r2", "r3"):
        written(shared("a"), run, "one", "two")
    backend, asked = shared("b"), list[str]()
    for name in ("whole", "look", "list"):
        call = getattr(backend.store, name)

        def counted(key: str, *more: Any, call: Any = call) -> Any:
            asked.append(key)
            return call(key, *more)

        monkeypatch.setattr(backend.store, name, counted)
    assert read_ledger(backend).lines == 9
    assert asked == [
        "journal/latest.json",
        "journal/00000003/00000003.jsonl",
        "journal/00000004/00000001.jsonl",
    ]


def test_a_piece_that_is_missing_is_no_record(shared: Callable[[str], SharedBackend]) -> None:
    written(shared("a"), "r1", "one", "two", "three")
    backend = shared("b")
    look = backend.store.look("journal/00000001/00000002.jsonl")
    assert look is not None
    backend.store.delete(look.seen)
    with pytest.raises(RetainerError, match="a piece of segment 1 is missing"):
        verify_journal(backend)


def test_a_run_that_slept_cannot_write_behind_another_that_is_over(
    shared: Callable[[str], SharedBackend],
) -> None:
    slow = journal(shared("a"), "slow")  # nothing is written yet
    look = shared("b").store.look("_retainer/lock")
    assert look is not None
    shared("b").store.delete(look.seen)
    written(shared("b"), "next", "two")
    with pytest.raises(Locked):
        slow.write("intent", act="delete", rows=[1], store="vault", acts=[])
    slow.close()
    assert told(shared("c")) == ["two", CLOSED]
    verify_journal(shared("c"))


def test_a_piece_that_lands_while_its_segment_is_closed_is_not_passed_over(
    shared: Callable[[str], SharedBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = journal(shared("a"), "r1")
    dead.write("one")
    tape = dead._tape
    dead._hold.close()
    backend, moment = shared("b"), journals.Ledger.written

    def late(self: Ledger) -> Any:  # just before the summary is written
        with monkeypatch.context() as patch:
            patch.setattr(journals.Ledger, "written", moment)
            if not struck:
                struck.append(1)
                line, _ = sealed(Entry(now(), "r1", "plan", "two", {}), dead.ledger().head)
                assert isinstance(tape, PieceTape)
                tape._backend._create("journal/00000001/00000002.jsonl", line)
        return moment(self)

    struck: list[int] = []
    monkeypatch.setattr(journals.Ledger, "written", late)
    with pytest.raises(Locked):
        journal(backend, "r2")
    monkeypatch.undo()
    written(shared("c"), "r3", "three")
    assert told(shared("d")) == ["one", "two", CLOSED, "three", CLOSED]
    verify_journal(shared("d"))


HINTS = (b'{"segment": 1e999, "pieces": 1}', b'{"segment": 7, "pieces": 2}')
HINTS += (b'{"segment": 2, "pieces": 9}', b'{"segment": 7, "pieces": 0}')
HINTS += (b'{"segment": 99999999, "pieces": 0}',)


@pytest.mark.parametrize("hint", HINTS)
def test_a_hint_that_is_wrong_is_passed_over(
    shared: Callable[[str], SharedBackend], hint: bytes
) -> None:
    written(shared("a"), "r1", "one")
    written(shared("a"), "r2", "two")
    backend = shared("b")
    look = backend.store.look("journal/latest.json")
    assert look is not None
    backend.store.replace(look.seen, hint)
    assert (backend.newest(), read_ledger(backend).lines) == (2, 4)


def test_a_freeze_counts_whatever_else_lies_beside_it(
    shared: Callable[[str], SharedBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    from retainer.journal.freeze import end_freeze, freeze, freeze_in

    backend = shared("a")
    backend._create("freezes/z", b'{"event": "end", "reason": "x"}\n')
    freeze(backend, "INC-1", None, now(), {})
    assert freeze_in(shared("b"), now()) is not None
    with monkeypatch.context() as patch:
        patch.setattr(SharedBackend, "_whole", lambda *_: None)
        assert freeze_in(backend, now()) is not None, "listed, and not to be had"
    end_freeze(backend, "over", now(), {})
    assert freeze_in(shared("b"), now()) is None


def test_a_lock_that_was_lost_once_can_be_taken_again(
    shared: Callable[[str], SharedBackend],
) -> None:
    backend = shared("a")
    first = journal(backend, "r1")
    backend._lost.set()
    with pytest.raises(Locked):
        first.write("one")
    first.close()
    written(backend, "r2", "two")
    assert told(backend) == ["two", CLOSED]


# ── in a folder ───────────────────────────────────────────────────────────────────────────────────


def test_a_journal_that_cannot_be_written_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = journal(FolderBackend(tmp_path))
    opened.write("one")
    with monkeypatch.context() as patch:
        patch.setattr(
            os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        )
        with pytest.raises(RetainerError):
            opened.write("two")
    opened.write("three")
    opened.close()
    assert [entry.event for entry in entries(tmp_path)] == ["one", "three"]


@pytest.mark.parametrize("line", [b"half a line", b'{"at":'])
def test_a_line_that_a_kill_cut_off_is_taken_away_and_told(tmp_path: Path, line: bytes) -> None:
    opened = journal(FolderBackend(tmp_path))
    opened.write("one")
    opened._hold.close()
    with segments(tmp_path)[0].open("ab") as stream:
        stream.write(line)
    assert read_ledger(FolderBackend(tmp_path)).lines == 1
    written(FolderBackend(tmp_path), "r2", "two")
    assert [(each.event, each.particulars) for each in entries(tmp_path)] == [
        ("one", {}),
        ("torn", {"bytes": len(line)}),
        ("two", {}),
    ]


def test_a_line_that_was_edited_stops_whoever_needs_it(tmp_path: Path) -> None:
    written(FolderBackend(tmp_path), "r1", "one", "two", "three")
    (path,) = segments(tmp_path)
    path.write_text(path.read_text().replace('"two"', '"TWO"'))
    for reads in (read_journal, verify_journal):
        with pytest.raises(RetainerError, match="damaged at line 2"):
            list(reads(FolderBackend(tmp_path)))  # type: ignore[call-overload]


@pytest.mark.parametrize("change", ["lines", "lately", "plans", "all"])
def test_a_forged_summary_is_found_by_reading_everything(tmp_path: Path, change: str) -> None:
    opened = journal(FolderBackend(tmp_path))
    opened.write("deleted", row=1, asset="x", store="vault", rule="r", bytes=7, keys=["k"])
    opened.close()
    (path,) = segments(tmp_path)
    *lines, last = path.read_bytes().splitlines(keepends=True)
    before = json.loads(lines[-1])["hash"]
    of = json.loads(last)["of"]
    empty: dict[str, Any] = {"lines": 0, "lately": [], "plans": {}}
    of = (Ledger(lines=1).written() if change == "all" else of | {change: empty[change]}) | {
        "as_of": of["as_of"]
    }
    forged, _ = sealed(Entry(now(), "run", "-", CLOSED, of), before)
    path.write_bytes(b"".join(lines) + forged)
    with pytest.raises(RetainerError, match="is not what the lines before it come to"):
        verify_journal(FolderBackend(tmp_path))


def test_a_summary_of_another_format_says_which_version_can_go_on(tmp_path: Path) -> None:
    written(FolderBackend(tmp_path), "r1", "one")
    (path,) = segments(tmp_path)
    first = path.read_bytes().splitlines(keepends=True)[0]
    of = Ledger(lines=1).written() | {"format": 3}
    made, _ = sealed(Entry(now(), "run", "-", CLOSED, of), json.loads(first)["hash"])
    path.write_bytes(first + made)
    with pytest.raises(RetainerError, match="has format 3, and this retainer reads 1"):
        read_ledger(FolderBackend(tmp_path))


def test_nothing_is_written_that_no_run_could_read_again(tmp_path: Path) -> None:
    """The line would end every later command."""
    with pytest.raises(ValueError, match="no line of a journal"):
        sealed(Entry(now(), "run", "-", "intent", {"act": "restore", "store": "vault"}), START)


@pytest.mark.parametrize(
    "of", [{"lines": 1}, {"lines": 1, "plans": []}, {"lines": 1, "plans": {"p": 3}}]
)
def test_a_summary_that_cannot_be_read_stops_whoever_needs_it(
    tmp_path: Path, of: dict[str, Any]
) -> None:
    written(FolderBackend(tmp_path), "r1", "one")
    (path,) = segments(tmp_path)
    first = path.read_bytes().splitlines(keepends=True)[0]
    forged, _ = sealed(Entry(now(), "run", "-", CLOSED, of), json.loads(first)["hash"])
    path.write_bytes(first + forged)
    with pytest.raises(RetainerError):
        read_ledger(FolderBackend(tmp_path))


def old_journal(state: Path, *events: tuple[str, dict[str, Any]]) -> list[str]:
    """As retainer 0.2 wrote it: one file, and no summary; the hashes of its lines."""
    state.mkdir(parents=True, exist_ok=True)
    (state / "journal.id").write_text("ab" * 16 + "\n")
    seal, seals = START, []
    with (state / "journal.jsonl").open("wb") as stream:
        for event, of in events:
            line, seal = sealed(Entry(now(), "old", "plan", event, of), seal)
            stream.write(line)
            seals.append(seal)
    return seals


def test_an_old_journal_is_read_once_and_carried_over(tmp_path: Path) -> None:
    delete = {"row": 1, "asset": "x", "store": "vault", "rule": "r", "bytes": 7, "keys": ["k"]}
    seals = old_journal(tmp_path, ("start", {"tool": "0.2"}), ("deleted", delete))
    backend = FolderBackend(tmp_path)
    assert read_ledger(backend).recent_deletes(now()) == {("vault", "r"): (1, 7)}
    written(backend, "new", "one")
    assert not (tmp_path / "journal.jsonl").exists()
    assert [path.name for path in segments(tmp_path)] == ["00000000.jsonl", "00000001.jsonl"]
    assert [entry.event for entry in entries(tmp_path)] == ["start", "deleted", "one"]
    assert backend.identity() == "ab" * 16
    ledger = read_ledger(backend)
    assert ledger.recent_deletes(now()) == {("vault", "r"): (1, 7)}
    assert goes_through(backend, ledger, 2, seals[1])  # as a store remembers it
    verify_journal(backend)


def test_a_command_reads_no_more_than_the_last_summary(tmp_path: Path) -> None:
    backend = FolderBackend(tmp_path)
    for run in range(5):
        written(backend, f"r{run}", "one")
    for path in segments(tmp_path)[:-1]:
        path.write_bytes(b"unreadable\n")
    assert read_ledger(backend).lines == 10
    written(backend, "r6", "two")
    with pytest.raises(RetainerError, match="damaged at line 1"):
        verify_journal(backend)


def test_a_folder_that_was_copied_is_another_hold(tmp_path: Path) -> None:
    opened = journal(FolderBackend(tmp_path / "state"))
    opened.write("one")
    shutil.copytree(tmp_path / "state", tmp_path / "copy")
    copy = journal(FolderBackend(tmp_path / "copy"))
    assert copy.state == opened.state and copy.place != opened.place
    copy.close()
    opened.close()


# ── the ledger ────────────────────────────────────────────────────────────────────────────────────

ROW = st.integers(0, 40)
PLAN = st.sampled_from(["p", "q"])
STORE = st.sampled_from(["vault", "cold"])


@st.composite
def events(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    row, store, other = draw(ROW), draw(STORE), draw(st.sampled_from([{}, {"plan": "q"}]))
    record = {"key": f"k{row}", "object_size": row, "version": draw(st.sampled_from("vw"))}
    act = {"row": row, "asset": "x", "rule": "r", "bytes": 3, "objects": [["k", 3, "v"]]}
    return draw(
        st.sampled_from(
            [
                ("start", {"tool": "1", "expires": "2026-11-30T00:00:00Z"}),
                ("copied", {"row": row, "asset": f"a{row}", "record": record}),
                ("catalogued", {"store": store, "rows": [row, row + 1, -1]}),
                ("intent", {"act": "delete", "rows": [row], "store": store, "acts": [act]}),
                ("intent", {"act": "copy", "rows": [row], "store": store}),
                (
                    "deleted",
                    {"row": row, "asset": "x", "store": store, "rule": "r", "bytes": 3}
                    | {"keys": [f"k{row}"], "partial": draw(st.booleans())}
                    | other,
                ),
                ("left", {"row": row, "act": "delete"} | other),
                ("failed", {"row": row, "act": "delete", "unknown": draw(st.booleans())}),
                ("failed", {"row": row, "act": "copy", "asset": f"a{row}", "gone": "mark"}),
                ("failed", {"row": row, "act": "copy", "asset": f"a{row}"}),
                ("upload", {"row": row, "store": store, "key": "k", "upload": f"u{row}"}),
                ("abandoned", {"store": store, "key": "k", "upload": f"u{row}"}),
                ("conditions", {"store": store, "place": "x", "delete": draw(st.booleans())}),
                ("anchor", {"store": store}),
                ("accepted", {"asset": f"a{row}", "at": "x:1", "why": "y"}),
                ("verified", {"store": store, "identity": "i", "began": "b", "upto": f"k{row}"}),
                ("broken", {"store": store, "keys": [f"k{row}"]}),
                ("end", {"finished": draw(st.booleans())}),
            ]
        )
    )


def folded(ledger: Ledger, lines: list[tuple[str, dict[str, Any], str, int]]) -> Ledger:
    start = datetime(2026, 11, 29, tzinfo=UTC)
    for event, of, plan, minutes in lines:
        _, seal = sealed(
            Entry(start + timedelta(minutes=minutes), "run", plan, event, of), ledger.head
        )
        ledger.add(Entry(start + timedelta(minutes=minutes), "run", plan, event, of, seal))
    return ledger


def answers(ledger: Ledger, at: datetime) -> dict[str, Any]:
    """All that a later run asks of it at a moment."""
    done = {
        plan: (
            found.finished,
            {} if found.finished else found.uncatalogued,
            [] if found.finished else sorted(found.deleted),
            [row for row in range(60) if not found.finished and found.was_made(row)],
        )
        for plan in ("p", "q")
        for found in [ledger.done(plan)]
        if not found.until or found.until > at
    }
    return {
        "done": done,
        "lately": ledger.recent_deletes(at),
        "intents": sorted(ledger.open_intents(), key=str),
        "uploads": sorted(ledger.left_over(), key=str),
        "weak": ledger.weak_stores(),
        "proven": ledger.proven_lately(at, "1"),
        "gone": ledger.gone_sources(),
        "untold": {store: keys for store, keys in ledger.untold.items() if keys},
        "points": ledger.points,
        "verified": ledger.verified,
    }


@settings(max_examples=300)
@given(
    lines=st.lists(st.tuples(events(), PLAN, st.integers(0, 600)), max_size=40),
    at=st.integers(0, 40),
)
def test_a_ledger_that_was_closed_on_the_way_answers_as_one_that_was_not(
    lines: list[tuple[tuple[str, dict[str, Any]], str, int]], at: int
) -> None:
    timed = [(event, of, plan, minutes) for (event, of), plan, minutes in lines]
    timed.sort(key=lambda line: line[3])
    later = datetime(2026, 11, 29, tzinfo=UTC) + timedelta(minutes=timed[-1][3] if timed else 0)
    whole = folded(Ledger(), timed)
    first = folded(Ledger(), timed[:at])
    moment = datetime(2026, 11, 29, tzinfo=UTC) + timedelta(
        minutes=timed[min(at, len(timed)) - 1][3] if timed and at else 0
    )
    summary = closing(first, "run", moment, moment)
    through_json = json.loads(json.dumps(summary.particulars))
    again = Ledger.read(replace(summary, particulars=through_json, seal="s"))
    again.lines, again.head = again.lines - 1, first.head  # the summary is a line of its own
    second = folded(again, timed[at:])
    assert answers(second, later) == answers(whole, later)


@given(st.lists(st.integers(0, 5000)))
def test_rows_are_a_set(rows: list[int]) -> None:
    found, before = Rows(), set[int]()
    for row in rows:
        assert found.add(row) is (row not in before)
        before.add(row)
    assert list(found) == sorted(set(rows)) and len(found) == len(set(rows))
    assert all((row in found) == (row in set(rows)) for row in range(0, 5100, 7))


def test_a_million_copies_of_an_unfinished_plan_fit_into_a_summary() -> None:
    marks = Marks()
    for row in range(0, 1_000_000, 1000):
        marks.set(row, row + 1)
    assert Marks.read(marks.written()).get(999_000) == 999_001
    assert Marks.read(marks.written()).get(999_001) == 0
    assert len(marks.written()) < 12_000_000


def test_nothing_of_a_plan_is_remembered_once_it_has_expired() -> None:
    ledger = folded(
        Ledger(),
        [
            ("start", {"tool": "1", "expires": "2026-11-29T05:00:00Z"}, "p", 0),
            ("copied", {"row": 1, "asset": "a", "record": {"key": "k"}}, "p", 1),
        ],
    )
    ledger.forget(datetime(2026, 11, 29, 4, tzinfo=UTC))
    assert ledger.done("p").uncatalogued
    ledger.forget(datetime(2026, 11, 29, 6, tzinfo=UTC))
    assert ledger.plans == {}


# ── what a hostile reader found ───────────────────────────────────────────────────────────────────


def test_an_interrupt_between_the_disk_and_the_ledger_ends_the_run_and_breaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = FolderBackend(tmp_path)
    opened = journal(backend)
    opened.write("one")

    def struck(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Ledger, "add", struck)
        opened.write("deleted", row=1, asset="x", store="vault", rule="r", bytes=7, keys=["k"])
    with pytest.raises(RetainerError, match="interrupted"):
        opened.write("three")
    opened.close()
    written(backend, "r2", "four")
    assert read_ledger(backend).recent_deletes(now()) == {("vault", "r"): (1, 7)}
    verify_journal(backend)


def test_an_interrupt_while_a_summary_is_written_breaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = FolderBackend(tmp_path)
    opened = journal(backend)
    opened.write("one")
    monkeypatch.setattr(journals, "SEGMENT_LINES", 2)

    def struck(*_: object) -> None:
        raise KeyboardInterrupt

    read = Ledger.read
    calls: list[int] = []

    def second(entry: Entry) -> Ledger:  # the first is of what is to be written
        calls.append(1)
        return read(entry) if len(calls) == 1 else struck()  # type: ignore[func-returns-value,return-value]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Ledger, "read", second)
        opened.write("two")
    opened.close()
    written(backend, "r2", "three")
    verify_journal(backend)


def test_another_zlib_makes_no_record_a_forged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retainer.journal import ledger as ledgers

    backend = FolderBackend(tmp_path)
    opened = journal(backend)
    for row in range(50):
        opened.write("copied", row=row, asset="a", record={"key": "k", "version": str(row)})
        opened.write("catalogued", store="vault", rows=[row])
    opened.close()
    compress = ledgers.zlib.compress
    monkeypatch.setattr(ledgers.zlib, "compress", lambda content, _: compress(content, 0))
    verify_journal(backend)


def test_a_summary_that_could_not_be_written_forgets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = [datetime(2026, 11, 29, tzinfo=UTC)]
    backend = FolderBackend(tmp_path)
    opened = Journal(backend, "run", "p", lambda: moment[0])
    opened.write("start", tool="1", expires="2026-11-29T01:00:00Z")
    opened.write("copied", row=1, asset="a", record={"key": "k"})
    moment[0] += timedelta(hours=2)
    monkeypatch.setattr(journals, "SEGMENT_LINES", 3)
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_close", lambda *_: (_ for _ in ()).throw(StoreFailed("503")))
        opened.write("three")
    opened.write("four")
    opened.close()
    verify_journal(backend)


def test_a_clock_that_is_ahead_forgets_nothing_of_the_day(tmp_path: Path) -> None:
    moment = [datetime(2026, 11, 29, tzinfo=UTC)]
    backend = FolderBackend(tmp_path)

    def run(name: str, *events: tuple[str, dict[str, Any]]) -> None:
        opened = Journal(backend, name, "p", lambda: moment[0])
        for event, of in events:
            opened.write(event, **of)
        opened.close()

    delete = {"row": 1, "asset": "x", "store": "vault", "rule": "r", "bytes": 7, "keys": []}
    expires = {"tool": "1", "expires": "2026-11-30T00:00:00Z"}
    run("r1", ("start", expires), ("deleted", delete), ("end", {"finished": True}))
    moment[0] += timedelta(days=4)
    run("r2", ("start", {"tool": "1", "what": "verify"}))
    moment[0] -= timedelta(days=4)
    ledger = read_ledger(backend)
    assert ledger.recent_deletes(moment[0] + timedelta(hours=1)) == {("vault", "r"): (1, 7)}
    assert ledger.done("p").finished
    verify_journal(backend)


def test_a_row_whose_parts_went_on_two_days_counts_on_both() -> None:
    delete = {"row": 1, "asset": "x", "store": "vault", "rule": "r", "bytes": 7, "keys": []}
    start = datetime(2026, 11, 29, tzinfo=UTC)
    lines = [
        ("deleted", delete | {"partial": True}, "p", 0),
        ("deleted", delete, "p", 24 * 60 + 30),
    ]
    ledger = folded(Ledger(), lines)
    assert ledger.recent_deletes(start + timedelta(hours=25)) == {("vault", "r"): (1, 7)}


def test_many_uploads_that_are_open_make_no_copy_slow() -> None:
    ledger = Ledger()
    for row in range(3):
        of = {"row": row, "store": "vault", "key": "k", "upload": f"u{row}"}
        ledger.add(Entry(now(), "run", "p", "upload", of, "s"))
    ledger = Ledger.read(replace(closing(ledger, "run", now(), now()), seal="s"))
    ledger.add(Entry(now(), "run", "p", "copied", {"row": 1, "record": {}}, "t"))
    assert [each.upload for each in ledger.left_over()] == ["u0", "u2"]


def test_a_summary_of_a_version_that_counted_no_lists_is_no_forgery(tmp_path: Path) -> None:
    """It has no `seen`, and a record without one writes none."""
    written(FolderBackend(tmp_path), "r1", "one")
    summary = next(e for e in read_journal(FolderBackend(tmp_path)) if e.event == CLOSED)
    assert "seen" not in summary.particulars
    assert verify_journal(FolderBackend(tmp_path)).runs == 1


def test_what_a_verify_found_unlocked_is_known_until_it_has_come_to_its_end(tmp_path: Path) -> None:
    began = "2026-11-30T00:00:00Z"

    def told(run: str, upto: str, *keys: str) -> list[str]:
        opened = journal(FolderBackend(tmp_path), run)
        if keys:
            opened.write("unlocked", store="vault", part="p", keys=list(keys))
        opened.write("verified", store="vault", identity="i", began=began, upto=upto)
        opened.close()
        return read_ledger(FolderBackend(tmp_path)).verified["vault"].unlocked

    assert told("run-1", "b", "b", "a") == ["a", "b"]
    assert told("run-2", "c") == ["a", "b"], "as the summary of the first run says"
    assert told("run-3", "") == []
    verify_journal(FolderBackend(tmp_path))
