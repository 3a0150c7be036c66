"""A run that gives its copies and deletes to other machines, in shares: what they did is taken into
its journal, share by share."""

from __future__ import annotations

import threading
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from typing import Any

import duckdb

from retainer.apply.job import Before, Recheck
from retainer.apply.lately import Lately
from retainer.apply.run import Run
from retainer.errors import RetainerError
from retainer.journal.entry import CLOSED
from retainer.journal.journal import Journal, read_journal
from retainer.journal.shards import Brief, Herald, Shards, Word
from retainer.journal.shared import SharedBackend
from retainer.model.moment import write_moment
from retainer.model.outcome import Summary, Trouble
from retainer.model.shard import Shard, ShardAct, Told
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
LEAVE_SECONDS = 5.0
"""A run that is to end waits so long for those of its workers that hear of it at once."""
BEGUN = "begun"
"""The first line of each attempt at a share: who makes it."""


def made_with() -> str:
    """The versions that the order of a plan's rows, and what is done of them, rest on."""
    return f"retainer {version('retainer')}, duckdb {duckdb.__version__}"


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
    recheck: Lately[Recheck]
    before: Before
    clock: Callable[[], datetime]
    stop: Stop
    waiting: Callable[[str], None]
    """Told of what is waited for."""
    _herald: Herald = field(init=False)
    _progress: dict[str, Told] = field(default_factory=dict)
    _open: set[str] = field(default_factory=set)
    """Shares that were given away, and may be at work."""
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _is_deleting: bool = False

    def go(self, brief: Brief) -> Summary:
        """The run, from its first word to its last."""
        self.journal.write("spread", plan=self.plan.fingerprint, machines=self.engine.machines)
        self.shards.leave_brief(brief)
        self.engine.listen(self._heard)
        self._herald = Herald(self.shards.state.store, self.journal.run, self._word)
        with self._herald:
            summary = self.run.go(self)
        if not self._open:
            self.journal.write("gathered", of=self.journal.run)
        else:
            summary.said.append(
                f"{len(self._open):,} shares have not ended: the next apply waits until it is "
                "certain that nobody is at work on them, and takes in what was done"
            )
        return summary

    def _word(self) -> Word:
        """What is said to all workers now."""
        if not self._is_deleting:
            return Word("no delete is due yet")
        if braked := self.run.outcomes.brake():
            return Word(braked)
        look = self.recheck()
        return Word(look.refused, dict(look.withheld))

    # ── giving shares away ──────────────────────────────────────────────────────────────────────

    def copies(self) -> None:
        self._make("copy", "", list(self._cut("copy", "")))

    def deletes(self, store: str) -> None:
        self._is_deleting = True
        self._herald.say(self._word())
        self._make("delete", store, list(self._cut("delete", store)))

    def _cut(self, act: ShardAct, store: str) -> Iterator[Shard]:
        """The shares in their order, without those of which all was done by earlier runs."""
        rows = shard_rows(self.plan, act, store)
        done = self.before.was_made if act == "copy" else self.before.deleted.__contains__
        machines = self.engine.machines
        shares = machines * SHARES if machines > 1 else 1  # one has nobody to wait for
        size = min(MOST, max(LEAST, -(-len(rows) // shares)))
        for first in range(0, len(rows), size):
            some = rows[first : first + size]
            if act == "delete" and all(map(done, some)):
                self.run.outcomes.join(Summary(already=len(some)), 0, 0)
                self.run.outcomes.elsewhere(len(some), 0, 0)
                continue
            run, fingerprint = self.journal.run, self.plan.fingerprint
            yield Shard(fingerprint, run, act, first, len(some), made_with(), store)

    def _make(self, act: ShardAct, store: str, shards: list[Shard]) -> None:
        waiting = deque(shards)
        going: dict[Future[None], Shard] = {}
        tries: Counter[str] = Counter()
        try:
            while waiting or going:
                self.run.places.check()
                if not self.engine.machines:
                    self.waiting("scheduler: it has no worker now, and the shares wait for one")
                while waiting and len(going) < max(1, self.engine.machines) * AHEAD:
                    if act == "delete" and self.run.outcomes.brake():
                        break
                    shard = waiting.popleft()
                    tries[shard.name] += 1
                    self._open.add(shard.name)
                    going[self.engine.submit(shard)] = shard
                if not going:
                    break  # braked
                for future in wait(going, timeout=1.0, return_when=FIRST_COMPLETED).done:
                    shard = going.pop(future)
                    if self._take(future, shard, is_last=tries[shard.name] == TRIES):
                        continue
                    waiting.append(shard)  # behind all others
                    self.stop.wait(1.0)
        except BaseException:
            self._leave(going)
            raise
        left = sum(shard.count for shard in waiting)
        if left:
            self.run.outcomes.say(self.run.outcomes.brake())
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
        self.run.outcomes.elsewhere(
            now.ended - known.ended, now.failed - known.failed, now.bytes - known.bytes
        )

    # ── taking in what was done ─────────────────────────────────────────────────────────────────

    def _take(self, future: Future[None], shard: Shard, *, is_last: bool) -> bool:
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
        told = self.shards.ended(shard.name)
        if told is None and not is_last:
            return False
        if told is None:
            said = f"{shard.count:,} of them were given to another machine, and were not made"
            trouble = Trouble(shard.act, "", shard.store, f"{said}: {cause or 'no mark'}", hint)
            self.run.outcomes.join(Summary(failed=[trouble]), 0, 0)
            return True
        taken_in(self.shards, shard.name, self.journal, self.plan.fingerprint, self.clock)
        self._open.discard(shard.name)
        summary = Summary.read(told["summary"])
        self._heard(Told(shard.name, shard.count, len(summary.failed), summary.copied_bytes))
        self.run.outcomes.join(summary, int(told["odd"]), int(told["good"]))
        return True

    def _leave(self, going: dict[Future[None], Shard]) -> None:
        """The run is to end: all workers are told, and those that end soon are taken in."""
        self._herald.end()
        for future in wait(going, timeout=LEAVE_SECONDS).done:
            with suppress(RetainerError):
                self._take(future, going[future], is_last=False)


def taken_in(
    shards: Shards, name: str, journal: Journal, plan: str, clock: Callable[[], datetime]
) -> None:
    """Write what was done of a share into the journal, all of it together; nothing more is done of
    it. Raises RetainerError."""
    shards.fence(name, journal.run, plan, clock)
    told: list[tuple[str, dict[str, Any]]] = []
    hosts: dict[str, str] = {}
    lines, head = 0, ""
    for entry in read_journal(shards.record(name)):
        lines, head = lines + 1, entry.seal
        if entry.event == BEGUN:
            hosts[entry.run] = str(entry.particulars.get("host"))
        elif entry.event not in (CLOSED, "fenced"):
            of = {"plan": plan} if plan != journal.plan else {}
            of |= {"acted": write_moment(entry.at), "on": hosts.get(entry.run, "?")}
            told.append((entry.event, of | entry.particulars))
    end = {"of": shards.run, "name": name, "lines": lines, "head": head}
    journal.write_all([*told, ("shard", end | {"on": sorted(set(hosts.values()))})])


def take_in_left(
    state: SharedBackend,
    journal: Journal,
    clock: Callable[[], datetime],
    stop: Stop,
    told: Callable[[str], None],
) -> frozenset[str]:
    """Write down what was done of shares that dead runs had given away, once it is certain that
    nobody acts for them any more; which runs these are. Raises RetainerError, Stopped."""
    dead = dict(journal.ledger().spread)
    for run, (plan, known) in dead.items():
        shards = Shards(state, run)
        left = [name for name in shards.names() if name not in known]
        shards.wait_until_over(left, stop, told)
        for name in left:
            stop.check()
            taken_in(shards, name, journal, plan, clock)
        journal.write("gathered", of=run)
    return frozenset(dead)
