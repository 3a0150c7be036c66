"""A run that gives its copies and deletes to other machines, in shares: what they did is taken into
its journal, share by share."""

from __future__ import annotations

import hashlib
import threading
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import duckdb

from retainer.apply.run import Run
from retainer.errors import RetainerError
from retainer.journal.entry import CLOSED, Entry
from retainer.journal.journal import Journal
from retainer.journal.shards import (
    BEGUN,
    ENDED,
    FENCED,
    GOING,
    LOOK_EVERY,
    OVER,
    Brief,
    Herald,
    Shards,
    Word,
)
from retainer.journal.shared import SharedBackend
from retainer.model.moment import write_moment
from retainer.model.outcome import Summary, Trouble
from retainer.model.shard import Shard, ShardAct, Told, is_of_deletes
from retainer.planfile import COPY_ORDER, DELETE_ORDER, PlanFile, turns
from retainer.ports import Engine
from retainer.stop import Stop

MOST = 1_000
"""A share has at most so many actions: what one machine that dies leaves to be looked at again."""
LEAST = 32
"""And at least so many, where there are: beginning one takes some ten calls to the state."""
SHARES = 4
"""So many shares for each machine at least, where that leaves enough in each: the last ones end at
about the same time."""
AHEAD = 2
"""So many shares for each machine are given away at once: a brake or a Ctrl-C finds the others
still here."""
TRIES = 3
"""A share that no machine has ended is given away so often."""
AGAIN_SECONDS = 5.0
"""So long, times its tries, before a share that failed is given away again."""
LEAVE_SECONDS = 5.0
"""A run that is to end waits so long for those of its workers that hear of it at once."""
NOBODY_SECONDS = 600.0
"""So long a worker is waited for: what is held meanwhile, such as locks, is not held for ever."""
KNOWN_SECONDS = 120.0
"""So long it is believed that deletes may go on, where it takes long to find out again."""
TOGETHER = 500
"""So many lines of a share are written into the journal at once."""


def _code() -> str:
    """A digest over the program: a checkout has one version for whatever stands in it."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*")):
        if path.suffix in (".py", ".sql"):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


_MADE_WITH = f"retainer {version('retainer')} ({_code()}), duckdb {duckdb.__version__}"
"""As it was when this was loaded: what lies on the disk may be another version by now."""


def made_with() -> str:
    """The versions that the order of a plan's rows, and what is done of them, rest on."""
    return _MADE_WITH


Task = TypeVar("Task")


def given_away(
    engine: Engine,
    waiting: deque[Task],
    going: dict[Future[str | None], Task],
    give: Callable[[Task], Future[str | None]],
    check: Callable[[], None],
    told: Callable[[str], None],
    may_give: Callable[[], bool] = lambda: True,
) -> Iterator[tuple[Future[str | None], Task]]:
    """Each task that has ended, so or so, while others are given away: a few for each machine.
    `waiting`: those that nobody has, to which those may be added that are tried again; `going`:
    what each machine has.

    `check` is asked all the while, and `told` that nobody is there. Ends also where `may_give` says
    no, and nobody has any more. Raises RetainerError where no worker came for long.
    """
    alone_since = time.monotonic()
    while waiting or going:
        check()
        if machines := engine.machines:
            alone_since = time.monotonic()
        elif time.monotonic() - alone_since > NOBODY_SECONDS:
            raise RetainerError(
                f"the scheduler had no worker for {NOBODY_SECONDS / 60:.0f} minutes",
                hint="start some, and give the same command once more",
            )
        else:
            told("scheduler: it has no worker now, and one is waited for")
        while waiting and len(going) < max(1, machines) * AHEAD and may_give():
            task = waiting.popleft()
            going[give(task)] = task
        if not going:
            return
        for future in wait(going, timeout=1.0, return_when=FIRST_COMPLETED).done:
            yield future, going.pop(future)


def shard_rows(plan: PlanFile, act: ShardAct, store: str = "") -> array[int]:
    """The rows of a plan in the order in which shares are cut from them."""
    if act == "copy":
        return turns(plan, "copy", COPY_ORDER)
    return turns(plan, "delete", DELETE_ORDER, store)


@dataclass
class Spreading:
    """`apply.job.Elsewhere`, for one run."""

    engine: Engine
    shards: Shards
    journal: Journal
    plan: PlanFile
    run: Run
    waiting: Callable[[str], None]
    """Told of what is waited for."""
    nameless: int = 0
    """So many copies do not carry the names of their rooms."""
    _herald: Herald = field(init=False)
    _progress: dict[str, Told] = field(default_factory=dict)
    _open: set[str] = field(default_factory=set)
    """Shares that were given away, and may be at work."""
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _looking: threading.Lock = field(default_factory=threading.Lock)
    """Two looks at once would share what they ask, and take each other's answers."""
    _looked: tuple[float, Word] = (0.0, Word(refused="no delete is due yet"))
    """What was found about the deletes at last, and when (monotonic seconds)."""
    _braked: str | None = None
    _over: threading.Event = field(default_factory=threading.Event)

    def go(self, brief: Brief) -> Summary:
        """The run, from its first word to its last."""
        self.journal.write("spread", plan=self.plan.fingerprint, machines=self.engine.machines)
        self.shards.leave_brief(brief)
        self.engine.listen(self._heard)
        self._herald = Herald(self.shards.state, self.journal.run, self._word)
        try:
            with self._herald:
                summary = self.run.go(self)
        finally:
            self._over.set()
        if not self._open:
            self.journal.write("gathered", of=self.journal.run)
        else:
            said = (
                f"{len(self._open):,} shares have not ended: the next apply sees to it that nobody "
                "is at work on them any more, and takes in what was done"
            )
            if any(map(is_of_deletes, self._open)):
                said += "; until then the stores stay locked to others, for ten minutes at most"
            summary.said.append(said)
        return summary

    # ── what is said to the workers ─────────────────────────────────────────────────────────────

    def _word(self) -> Word:
        """As it was found at last, where that is young enough: to find it may take longer than a
        worker waits for a word."""
        at, word = self._looked
        if word.is_deleting and (braked := self._brake()):
            return Word(is_deleting=True, refused=braked)
        if word.is_deleting and time.monotonic() - at > KNOWN_SECONDS:
            said = "nobody could say for two minutes whether deletes may go on"
            return Word(is_deleting=True, refused=said)
        return word

    def _look(self) -> None:
        with self._looking:
            at, look = time.monotonic(), self.run.job.recheck()
            word = Word(is_deleting=True, refused=look.refused, withheld=dict(look.withheld))
            self._looked = at, word

    def _keep_looking(self) -> None:
        while not self._over.wait(LOOK_EVERY.total_seconds()):
            with suppress(Exception):
                self._look()

    def _brake(self) -> str | None:
        self._braked = self._braked or self.run.outcomes.brake()
        return self._braked

    # ── giving shares away ──────────────────────────────────────────────────────────────────────

    def copies(self) -> None:
        self._make("copy", "", list(self._cut("copy", "")))

    def deletes(self, store: str) -> None:
        was_deleting = self._looked[1].is_deleting
        self._look()
        self._herald.say()
        if not was_deleting:
            threading.Thread(target=self._keep_looking, name="retainer-look", daemon=True).start()
        self._make("delete", store, list(self._cut("delete", store)))

    def _cut(self, act: ShardAct, store: str) -> Iterator[tuple[Shard, int]]:
        """The shares in their order, each with how many of its actions no earlier run has made;
        none of deletes where all are."""
        rows = shard_rows(self.plan, act, store)
        before = self.run.job.before
        done = before.was_made if act == "copy" else before.deleted.__contains__
        machines = self.engine.machines
        shares = machines * SHARES if machines > 1 else 1  # one has nobody to wait for
        size = min(MOST, max(LEAST, -(-len(rows) // shares)))
        for first in range(0, len(rows), size):
            some = rows[first : first + size]
            left = len(some) - sum(map(done, some))
            if act == "delete" and not left:
                self.run.outcomes.join(Summary(already=len(some)), 0, 0)
                self.run.outcomes.watcher.elsewhere(len(some), 0, 0)
                continue
            run, fingerprint = self.journal.run, self.plan.fingerprint
            yield Shard(fingerprint, run, act, first, len(some), made_with(), store), left

    def _make(self, act: ShardAct, store: str, shards: list[tuple[Shard, int]]) -> None:
        waiting = deque(shards)
        going: dict[Future[str | None], tuple[Shard, int]] = {}
        tries: Counter[str] = Counter()

        def give(task: tuple[Shard, int]) -> Future[str | None]:
            shard, _ = task
            tries[shard.name] += 1
            if shard.name not in self._open:
                self.journal.write("given", name=shard.name)
                self._open.add(shard.name)
            return self.engine.submit(shard)

        ended = given_away(
            self.engine,
            waiting,
            going,
            give,
            self.run.places.check,
            self.waiting,
            lambda: act == "copy" or not self._brake(),
        )
        try:
            for future, (shard, left) in ended:
                if not self._take(future, shard, is_last=tries[shard.name] == TRIES):
                    waiting.append((shard, left))  # behind all others
                    self.run.job.stop.wait(AGAIN_SECONDS * tries[shard.name])
        except BaseException:
            self._leave({future: shard for future, (shard, _) in going.items()})
            raise
        if waiting:
            self.run.outcomes.say(self._braked)
            left = sum(left for _, left in waiting)
            self.run.outcomes.join(Summary(left_deletes=left), 0, 0)

    def _heard(self, told: Told) -> None:
        """How far a share is; one that is begun anew counts from where it was."""
        with self._guard:
            known = self._progress.get(told.shard, Told(told.shard, 0, 0, 0))
            now = Told(
                told.shard,
                max(told.ended, known.ended),
                max(told.failed, known.failed),
                max(told.bytes, known.bytes),
            )
            self._progress[told.shard] = now
        self.run.outcomes.watcher.elsewhere(
            now.ended - known.ended, now.failed - known.failed, now.bytes - known.bytes
        )

    # ── taking in what was done ─────────────────────────────────────────────────────────────────

    def _take(self, future: Future[str | None], shard: Shard, *, is_last: bool) -> bool:
        """Take in what became of a share; whether it has ended, or was given up. Raises
        RetainerError where no other machine would fare better."""
        cause, hint = "", None
        try:
            future.result()
        except RetainerError as error:
            if error.exit_code != RetainerError.exit_code:
                raise
            cause, hint = error.message, error.hint
        except (Exception, CancelledError) as error:
            cause = f"the engine gave it up ({type(error).__name__})"
        if cause and not is_last:
            return False
        if cause and self.shards.ending(shard.name)[1] is None:
            said = f"{shard.count:,} of them were given to another machine, and were not made"
            trouble = Trouble(shard.act, "", shard.store, f"{said}: {cause}", hint)
            self.run.outcomes.join(Summary(failed=[trouble]), 0, 0)
            return True
        told, done = taken_in(
            self.shards, shard.name, 0, self.journal, self.plan.fingerprint, self.run.job.clock
        )
        self._open.discard(shard.name)
        summary = Summary.read(told["summary"])
        self._heard(Told(shard.name, shard.count, len(summary.failed), summary.copied_bytes))
        earlier = done.copied - summary.copied, done.deleted - summary.deleted
        summary.already -= sum(earlier)
        summary.copied, summary.deleted = done.copied, done.deleted
        summary.copied_bytes = max(summary.copied_bytes, done.copied_bytes)
        summary.deleted_bytes = max(summary.deleted_bytes, done.deleted_bytes)
        self.nameless += int(told["nameless"])
        self.run.outcomes.join(summary, int(told["odd"]), int(told["good"]) + earlier[1])
        return True

    def _leave(self, going: dict[Future[str | None], Shard]) -> None:
        """The run is to end: all workers are told, and those that end soon are taken in."""
        self._herald.end()
        for future in wait(going, timeout=LEAVE_SECONDS).done:
            with suppress(RetainerError):
                self._take(future, going[future], is_last=False)


def taken_in(
    shards: Shards,
    name: str,
    known: int,
    journal: Journal,
    plan: str,
    clock: Callable[[], datetime],
) -> tuple[dict[str, Any], Summary]:
    """Write what was done of a share into the journal, but for its first `known` lines, which are
    there; nothing more is done of it. What its line `ended` says (nothing where it has none), and
    what all attempts together have done. Raises RetainerError."""
    shards.fence(name, journal.run, plan, clock)
    told: list[tuple[str, dict[str, Any]]] = []
    hosts: dict[str, str] = {}
    ended: dict[str, Any] = {}
    done = {"copied": dict[int, int](), "deleted": dict[int, int]()}
    count = 0

    def write(*, whole: bool) -> None:
        of = {"of": shards.run, "name": name, "lines": count, "whole": whole}
        journal.write_all([*told, ("shard", of | {"on": sorted(set(hosts.values()))})])
        told.clear()

    for entry in shards.lines(name):
        count += 1
        if entry.event == BEGUN:
            hosts[entry.run] = str(entry.particulars.get("host"))
        if entry.event == ENDED:
            ended = entry.particulars
        if entry.event in (BEGUN, GOING, ENDED, FENCED, CLOSED):
            continue
        if entry.event in done and not entry.particulars.get("partial"):
            done[entry.event][entry.particulars["row"]] = _bytes_of(entry)
        if count <= known:
            continue
        of = {"plan": plan} if plan != journal.plan else {}
        of |= {"by": shards.run} if shards.run != journal.run else {}
        of |= {"acted": write_moment(entry.acted), "on": hosts.get(entry.run, "?")}
        told.append((entry.event, of | entry.particulars))
        if len(told) >= TOGETHER:
            write(whole=False)
    write(whole=True)
    copied, deleted = done["copied"], done["deleted"]
    return ended, Summary(
        copied=len(copied),
        copied_bytes=sum(copied.values()),
        deleted=len(deleted),
        deleted_bytes=sum(deleted.values()),
    )


def _bytes_of(entry: Entry) -> int:
    of = entry.particulars
    return int(of["bytes"] if entry.event == "deleted" else of["record"].get("object_size") or 0)


def take_in_left(
    state: SharedBackend,
    journal: Journal,
    clock: Callable[[], datetime],
    stop: Stop,
    told: Callable[[str], None],
) -> frozenset[str]:
    """Write down what was done of shares that dead runs had given away, once it is certain that
    nobody acts for them any more; which runs these are. Raises RetainerError, Stopped.

    No attempt announces anything once its share is fenced; what was announced by then, and not
    told, may be on its way for some minutes.
    """

    def at_work(seconds: float) -> None:
        told("state: workers of a run that is dead are still at work, and are told to end")
        stop.wait(seconds)

    dead = {run: (plan, dict(given)) for run, (plan, given) in journal.ledger().spread.items()}
    for run, (plan, given) in dead.items():
        shards = Shards(state, run)
        shards.hush()
        is_open = False
        for name in given:
            stop.check()
            is_open |= bool(shards.fence(name, journal.run, plan, clock, at_work).intents)
        if is_open:
            _wait(OVER, f"state: workers of the run {run} may still act", stop, told)
        for name, known in given.items():
            stop.check()
            taken_in(shards, name, known, journal, plan, clock)
        journal.write("gathered", of=run)
    return frozenset(dead)


def _wait(span: timedelta, why: str, stop: Stop, told: Callable[[str], None]) -> None:
    until = time.monotonic() + span.total_seconds()
    while (left := until - time.monotonic()) > 0:
        told(f"{why}: {left:.0f} s more")
        stop.wait(min(10.0, left))
