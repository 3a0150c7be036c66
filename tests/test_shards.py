"""What many machines leave for one another in the state: words, fences, and lines that are taken in
(retainer/journal/shards.py, retainer/spreading.py)."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import make_writer

from retainer import spreading
from retainer.errors import Locked, StoreFailed
from retainer.journal import lock as locks
from retainer.journal import shards as shared
from retainer.journal.entry import CLOSED, Entry
from retainer.journal.journal import Journal, read_journal, read_ledger, verify_journal
from retainer.journal.lock import LOCK_KEY, SeenLock, owner
from retainer.journal.shards import ENDED, Heard, Herald, Shards, Word
from retainer.journal.shared import SharedBackend
from retainer.model.outcome import Resting, Summary, Trouble
from retainer.model.setting import Store
from retainer.patience import Patience
from retainer.ports import Seen
from retainer.restoring import deleted_by
from retainer.stop import Stop, Stopped
from retainer.stores.verdict import Refusal
from retainer.stores.wire import Answer, Request, Wire

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
PLAN, OTHER = "a" * 64, "b" * 64


def clock() -> datetime:
    return NOW


@pytest.fixture
def state(tmp_path: Path) -> SharedBackend:
    (tmp_path / "state").mkdir()
    store = make_writer(Store("state", f"file://{tmp_path}/state"))
    return SharedBackend(tmp_path / "machine", f"file://{tmp_path}/state", store)


def attempt(state: SharedBackend, name: str = "one", run: str = "at1") -> Journal:
    return Journal(Shards(state, "run").record(name), run, PLAN, clock)


def copied(row: int) -> tuple[str, dict[str, Any]]:
    record = {"store": "vault", "key": f"k{row}", "object_size": 5, "version": "v"}
    return "copied", {"row": row, "asset": "x", "record": record}


def deleting(row: int) -> tuple[str, dict[str, Any]]:
    act = {"row": row, "asset": "x", "rule": "r", "bytes": 5, "objects": [["k", 5, "v"]]}
    return "intent", {"act": "delete", "rows": [row], "store": "vault", "acts": [act]}


# ── fences ────────────────────────────────────────────────────────────────────────────────────────


def test_whoever_opens_a_share_takes_its_next_line_away_from_the_one_before(
    state: SharedBackend,
) -> None:
    first = attempt(state)
    first.write("begun", host="h1")
    second = attempt(state, run="at2")
    second.write("begun", host="h2")
    with pytest.raises(Locked):
        first.write("intent", **deleting(1)[1])
    second.write(ENDED, odd=0)
    assert Shards(state, "run").ending("one") == (False, {"odd": 0})


def test_a_fenced_share_is_gone_on_with_by_nobody(state: SharedBackend) -> None:
    shards = Shards(state, "run")
    opened, begun = attempt(state, run="opened"), attempt(state, run="begun")
    begun.write("begun", host="h")
    shards.fence("one", "driver", PLAN, clock)
    for each in (opened, begun):
        with pytest.raises(Locked):
            each.write("going")
    assert shards.ending("one") == (True, None)


def test_a_share_that_nobody_began_can_be_fenced(state: SharedBackend) -> None:
    opened = attempt(state)
    Shards(state, "run").fence("one", "driver", PLAN, clock)
    with pytest.raises(Locked):
        opened.write("begun", host="h")


def busy(state: SharedBackend, heard: Stop) -> threading.Thread:
    """An attempt that writes all the while, until it hears that its run is over."""
    own = attempt(state, run="busy")

    def write() -> None:
        with suppress(Locked):
            while not heard.is_asked:
                own.write("going")

    thread = threading.Thread(target=write)
    thread.start()
    return thread


def test_workers_of_a_dead_run_hear_that_it_is_over_from_the_next_one(
    state: SharedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "LOOK_EVERY", timedelta(seconds=0.2))
    monkeypatch.setattr(shared, "SILENT", timedelta(seconds=3600))
    herald = Herald(state, "run", Word)
    herald.__enter__()
    heard = Heard(state.store, "run")
    monkeypatch.setattr(Herald, "_put", lambda *_: None)  # the run is dead
    given_by(state, "one")
    thread = busy(state, heard)
    taken_by_the_next(state)
    thread.join(5)
    assert heard.is_asked and heard.word.ends
    assert Shards(state, "run").ending("one") == (True, None)
    herald._over.set()


def test_a_share_is_fenced_however_often_another_one_was_the_first(
    state: SharedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = list(range(30))
    really = Shards.record
    monkeypatch.setattr(
        Shards,
        "record",
        lambda self, shard: (lost and lost.pop() and Taken()) or really(self, shard),
    )
    Shards(state, "run").fence("one", "driver", PLAN, clock, lambda _: None)
    assert lost == [] and Shards(state, "run").ending("one") == (True, None)


def test_a_share_that_somebody_writes_to_for_ever_is_told(
    state: SharedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "FENCE_SECONDS", 0.5)
    monkeypatch.setattr(Shards, "record", lambda *_: Taken())
    with pytest.raises(StoreFailed, match="the share one of the run run is still written to"):
        Shards(state, "run").fence("one", "driver", PLAN, clock)


class Taken:
    """A record whose next name somebody else always has."""

    def alone(self, run: str) -> Any:
        raise Locked("another run goes on with it")


# ── taking in ─────────────────────────────────────────────────────────────────────────────────────


def test_lines_are_taken_in_once_however_often_that_is_cut_short(
    state: SharedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spreading, "TOGETHER", 3)
    own = attempt(state)
    own.write("begun", host="far")
    for row in range(8):
        own.write_all([copied(row)])
    own.write(ENDED, odd=0)
    own.close()
    late = attempt(state, run="late")
    written, calls = Journal.write_all, [0]

    def write_all(journal: Journal, events: Any) -> None:
        calls[0] += 1
        if calls[0] == 3:  # the fence, and three lines, came through
            raise StoreFailed("it is cut")
        written(journal, events)

    for run in ("driver", "next"):
        journal = Journal(state, run, PLAN if run == "driver" else OTHER, clock)
        if run == "driver":
            journal.write("spread", plan=PLAN, machines=1)
            journal.write("given", name="one")
            monkeypatch.setattr(Journal, "write_all", write_all)
            shards = Shards(state, "run")
            with pytest.raises(StoreFailed):
                spreading.taken_in(shards, "one", 0, journal, PLAN, clock)
            monkeypatch.setattr(Journal, "write_all", written)
        else:
            ledger = journal.ledger()
            known = 4  # `begun`, and three lines
            spreading.taken_in(Shards(state, "run"), "one", known, journal, PLAN, clock)
            assert ledger.done(PLAN).uncatalogued.keys() == set(range(8))
        journal.close()
    rows = [each.particulars["row"] for each in read_journal(state) if each.event == "copied"]
    assert rows == list(range(8))
    with pytest.raises(Locked):  # what it did would be told nowhere
        late.write("begun", host="far")
    verify_journal(state)


def given_by(state: SharedBackend, *names: str) -> None:
    """A run that died after it gave these shares away."""
    journal = Journal(state, "run", PLAN, clock)
    journal.write("spread", plan=PLAN, machines=1)
    for name in names:
        journal.write("given", name=name)
    journal.close()


def taken_by_the_next(state: SharedBackend, plan: str = OTHER) -> list[str]:
    """What the next run says while it takes in what was left."""
    said: list[str] = []
    journal = Journal(state, "next", plan, clock)
    assert spreading.take_in_left(state, journal, clock, Stop(), said.append) == {"run"}
    journal.close()
    assert read_ledger(state).spread == {}
    return said


def test_a_share_with_an_announced_delete_is_waited_for_and_no_other_one(
    state: SharedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spreading, "OVER", timedelta(seconds=0.2))
    given_by(state, "one", "never-begun")
    own = attempt(state)
    own.write_all([copied(1)])
    assert taken_by_the_next(state) == []
    given_by(state, "two")
    other = attempt(state, "two")
    other.write_all([deleting(1)])
    began = time.monotonic()
    assert "may still act" in taken_by_the_next(state)[0]
    assert time.monotonic() - began >= 0.2
    assert [each.plan for each in read_ledger(state).open_intents()] == [PLAN]


def test_what_a_dead_run_deleted_is_told_as_its_own_and_can_be_brought_back(
    state: SharedBackend,
) -> None:
    given_by(state, "one")
    own = attempt(state)
    own.write("begun", host="far")
    own.write_all([deleting(1)])
    row = {"row": 1, "asset": "x", "store": "vault", "rule": "r", "bytes": 5, "keys": ["k"]}
    own.write("deleted", **row)
    taken_by_the_next(state)
    (line,) = (each for each in read_journal(state) if each.event == "deleted")
    assert (line.run, line.by, line.particulars["on"]) == ("next", "run", "far")
    assert line.particulars["plan"] == PLAN
    (wanted,) = deleted_by(read_journal(state), "x")
    assert [seen.key for seen in wanted.objects] == ["k"] and wanted.told.run == "run"


def test_uploads_of_a_dead_run_are_not_those_of_the_next_one(state: SharedBackend) -> None:
    given_by(state, "one")
    own = attempt(state)
    own.write("upload", row=5, store="vault", key="k", upload="u1")
    journal = Journal(state, "next", OTHER, clock)
    spreading.take_in_left(state, journal, clock, Stop(), lambda _: None)
    journal.write_all([copied(5)])
    journal.close()
    assert [each.upload for each in read_ledger(state).left_over()] == ["u1"]


def test_a_retainer_that_knows_of_no_workers_leaves_such_a_record_alone(
    state: SharedBackend,
) -> None:
    given_by(state, "one")
    summaries = [each for each in read_journal(state) if each.event == CLOSED]
    assert summaries[-1].particulars["format"] == 2
    taken_by_the_next(state)
    assert [each for each in read_journal(state) if each.event == CLOSED][-1].particulars[
        "format"
    ] == 1


# ── words ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_word_comes_through_as_it_was_said() -> None:
    word = Word(True, None, {3: "a hold", 1: "a hold", 2: "shared"}, False)
    assert Word.read(word.written("run", 7), "run") == word
    for content in (b"", b"[]", b"{}", word.written("other", 7), b'{"run": "run"}'):
        with pytest.raises(StoreFailed):
            Word.read(content, "run")


def test_a_worker_stops_once_the_run_is_silent_and_sends_nothing_more(
    state: SharedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "LOOK_EVERY", timedelta(seconds=0.1))
    monkeypatch.setattr(shared, "SILENT", timedelta(seconds=1.5))
    herald = Herald(state, "run", lambda: Word(is_deleting=True))
    with herald:
        heard = Heard(state.store, "run")
        time.sleep(2)
        assert not heard.is_asked and heard.word.is_deleting
        monkeypatch.setattr(Herald, "_put", lambda *_: None)
        time.sleep(2)
        assert heard.is_asked and heard.is_over
        with pytest.raises(Stopped):
            heard.check()
        with pytest.raises(StoreFailed):
            Heard(state.store, "run")


def test_a_machine_that_stood_still_finds_out_before_its_next_act(
    state: SharedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Herald(state, "run", Word):
        heard = Heard(state.store, "run")
        monkeypatch.setattr(locks, "ticks", lambda: (time.monotonic(), time.time() + 31))
        with pytest.raises(Stopped):  # one of two clocks stood still with the machine
            heard.check()


def test_a_lost_answer_does_not_silence_a_run(state: SharedBackend) -> None:
    store = state.store
    herald = Herald(state, "run", lambda: Word(is_deleting=True))
    with herald:
        really = herald._store.replace
        lost = [True]

        def replace(seen: Seen, content: bytes) -> Seen | None:
            found = really(seen, content)
            if lost.pop() if lost else False:
                raise StoreFailed("its answer was lost")
            return found

        herald._store.replace = replace  # type: ignore[method-assign]
        with pytest.raises(StoreFailed):
            herald.say()
        herald.say()
        herald.say()
    found = store.whole("_retainer/runs/run.json", 1 << 20)
    assert found is not None and Word.read(found[1], "run").ends


def test_a_run_that_lost_the_state_says_nothing_more(state: SharedBackend) -> None:
    with Herald(state, "run", Word) as herald:
        state._lost.set()
        with pytest.raises(Locked):
            herald.say()


# ── locks, calls, sums ────────────────────────────────────────────────────────────────────────────


def test_a_lock_is_believed_while_it_is_the_run_s_and_young(
    state: SharedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "LOOK_AT_IT", timedelta(0))
    store = state.store
    assert not SeenLock(store, "run").holds
    mine = owner("run", "p", "s", "j").write(1)
    seen = store.create(LOCK_KEY, iter([mine]), len(mine), {}, "application/json").seen
    lock = SeenLock(store, "run")
    assert lock.holds and not SeenLock(store, "other").holds
    monkeypatch.setattr(locks, "ticks", lambda: (time.monotonic(), time.time() + 301))
    monkeypatch.setattr(locks, "LOOK_AT_IT", timedelta(hours=1))
    assert not lock.holds  # it was seen five minutes ago, by one clock
    monkeypatch.undo()
    monkeypatch.setattr(locks, "LOOK_AT_IT", timedelta(0))
    assert lock.holds
    store.replace(seen, owner("other", "p", "s", "j").write(1))
    assert not lock.holds


class _Dialer:
    def address(self, request: Request) -> tuple[str, Mapping[str, str]]:
        return "http://127.0.0.1:1/", {}

    def refusal_of(self, answer: Answer) -> Refusal | None:
        return None

    def renewed(self, since: float) -> bool:
        return False


def test_nothing_is_changed_once_it_is_over_though_it_had_waited_for_its_turn() -> None:
    class Over(Stop):
        @property
        def is_over(self) -> bool:
            return self.is_asked

    stop, sent = Over(), Counter[str]()
    wire = Wire(_Dialer(), "here", stop, Patience(sleep=stop.pause), at_once=1)

    def send(request: Request) -> Any:
        sent[request.method] += 1
        raise OSError("nobody")

    wire._send = send  # type: ignore[method-assign]
    ended: list[BaseException] = []

    def ask() -> None:
        try:
            wire.ask(Request("DELETE", "/x", once=True))
        except BaseException as error:
            ended.append(error)

    with wire._lane:
        waiting = threading.Thread(target=ask)
        waiting.start()
        time.sleep(0.1)
        stop.ask()
    waiting.join(5)
    assert isinstance(ended[0], Stopped) and not sent


def test_what_machines_did_adds_up_and_comes_through_as_it_was() -> None:
    trouble = Trouble("copy", "x", "vault", "why", "hint", "s3://b", NOW)
    one = Summary(copied=2, deleted=1, failed=[trouble], said=["a", "b"])
    one.resting["vault"] = Resting("no", None, True, 3, 1, NOW)
    other = Summary(copied=1, already=4, said=["b", "c"], interrupted=True)
    other.resting["vault"] = Resting("no", None, True, 2, 1, NOW - timedelta(days=1))
    other.impossible["cold"] = Resting("cannot", "x", False)
    again = Summary.read(one.written())
    assert again == one
    one.add(Summary.read(other.written()))
    assert (one.copied, one.already, one.said, one.interrupted) == (3, 4, ["a", "b", "c"], True)
    assert one.resting["vault"].actions == 5
    assert one.resting["vault"].first_leaves_at == NOW - timedelta(days=1)
    assert set(one.impossible) == {"cold"}
    for wrong in ({"copied": 1, "more": 2}, {"failed": [{"x": 1}]}, {"resting": {"vault": 3}}):
        with pytest.raises(ValueError):
            Summary.read(wrong)


def test_a_line_says_when_and_by_whom_it_was_done() -> None:
    here = Entry(NOW, "run", PLAN, "copied", {})
    far = Entry(NOW, "next", PLAN, "copied", {"acted": "2026-11-29T12:00:00Z", "by": "run"})
    assert (here.acted, here.by) == (NOW, "run")
    assert (far.acted, far.by) == (NOW - timedelta(days=1), "run")
