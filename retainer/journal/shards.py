"""What an apply on many machines leaves in the state for its workers, and they for it.

    _retainer/runs/RUN.json          the word: that the run goes on, and what may not be deleted
    shards/RUN/brief.json            what the run found out before it gave anything away
    shards/RUN/SHARD/journal/…       what is done of one share: a journal like any other

The word is written over every few seconds by the run, and once by whoever finds that it is dead;
everything else is created once. All attempts at a share write to one journal: whoever opens it
takes the next name away from the one before, who can announce nothing more, and so does nothing
more. Its line `ended` says that all of the share was tried. So nothing here is ever removed: a name
that is free again is no fence.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from retainer.errors import Locked, RetainerError, StoreFailed
from retainer.journal.entry import Entry
from retainer.journal.journal import Journal, read_journal
from retainer.journal.ledger import Ledger
from retainer.journal.lock import good_for, is_past, ticks
from retainer.journal.shared import SharedBackend
from retainer.model.setting import OWN_PREFIX
from retainer.ports import Seen, StoreReader
from retainer.stop import Stop

LOOK_EVERY = timedelta(seconds=4)
"""So often a run says that it goes on, and a worker looks."""
SILENT = timedelta(seconds=30)
"""A worker that was told nothing for so long does nothing more."""
OVER = timedelta(minutes=4)
"""So long after its share was fenced no call that an attempt had announced is on its way any more:
SILENT until it finds out that its run is over, after which it sends nothing, and how long a server
may be silent over what was sent; and as much again."""
FENCE_SECONDS = 120.0
"""So long it is tried to fence a share that somebody writes to: four times SILENT."""
_LONGEST = 64 << 20
_JSON = "application/json"


BEGUN, GOING, ENDED, FENCED = "begun", "going", "ended", "fenced"
"""The lines of a share's journal that are about itself: who makes it now, that it does so still,
how it went, and that nobody makes it any more."""


@dataclass(frozen=True, slots=True)
class Word:
    """What a run says: whether the turn of the deletes has come, why none may be made (None: they
    may), rows that are withheld with the reasons, and whether it ends."""

    is_deleting: bool = False
    refused: str | None = None
    withheld: Mapping[int, str] = field(default_factory=dict)
    ends: bool = False

    def written(self, run: str, beat: int) -> bytes:
        reasons = sorted(set(self.withheld.values()))
        numbers = {reason: number for number, reason in enumerate(reasons)}
        told = {
            "run": run,
            "beat": beat,
            "is_deleting": self.is_deleting,
            "refused": self.refused,
            "reasons": reasons,
            "withheld": [[row, numbers[why]] for row, why in sorted(self.withheld.items())],
            "ends": self.ends,
        }
        return json.dumps(told, separators=(",", ":")).encode()

    @staticmethod
    def read(content: bytes, run: str) -> Word:
        """Raises StoreFailed for what no run wrote, or another one."""
        try:
            told = json.loads(content)
            if told["run"] != run:
                raise ValueError
            reasons = [str(reason) for reason in told["reasons"]]
            withheld = {int(row): reasons[number] for row, number in told["withheld"]}
            refused, *flags = told["refused"], told["is_deleting"], told["ends"]
            if not (refused is None or isinstance(refused, str)) or not all(
                isinstance(flag, bool) for flag in flags
            ):
                raise ValueError
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):
            raise StoreFailed(f"the word of the run {run} cannot be read") from None
        return Word(flags[0], refused, withheld, flags[1])


def _word_of(run: str) -> str:
    return f"{OWN_PREFIX}runs/{run}.json"


class Herald:
    """Says every few seconds what a run has to say. Where that fails the word grows old, and every
    worker stops by itself."""

    def __init__(self, state: SharedBackend, run: str, word: Callable[[], Word]) -> None:
        self._state, self._store = state, state.store.impatient()
        self._run, self._word = run, word
        self._guard = threading.Lock()
        self._over = threading.Event()
        self._seen: Seen | None = None
        self._beat = 0

    def __enter__(self) -> Herald:
        """Raises RetainerError where the first word cannot be said."""
        content = self._word().written(self._run, self._beat)
        key = _word_of(self._run)
        self._seen = self._store.create(key, iter([content]), len(content), {}, _JSON).seen
        self._thread = threading.Thread(target=self._go_on, name="retainer-herald", daemon=True)
        self._thread.start()
        return self

    def _go_on(self) -> None:
        while not self._over.wait(LOOK_EVERY.total_seconds()):
            with suppress(Exception):
                self.say()

    def say(self) -> None:
        """Say what is to be said now. Raises RetainerError."""
        with self._guard:
            if not self._over.is_set():
                self._put(self._word())

    def _put(self, word: Word) -> None:
        if not self._state.is_held:
            raise Locked("the lock of the state was lost", hint="run it again")
        self._beat += 1
        content = word.written(self._run, self._beat)
        key = _word_of(self._run)
        if self._seen is None:  # an answer was lost
            found = self._store.whole(key, _LONGEST)
            if found is None:
                raise StoreFailed(f"the word of the run {self._run} was taken away")
            Word.read(found[1], self._run)
            self._seen = found[0].seen
        seen, self._seen = self._seen, None
        self._seen = self._store.replace(seen, content)
        if self._seen is None:
            raise StoreFailed("the word was written over, or an earlier answer was lost")

    def end(self) -> None:
        """Say that it ends, so that workers need not wait for silence."""
        with self._guard:
            self._over.set()
            for _ in range(2):
                with suppress(RetainerError):
                    self._put(Word(refused="the run ends", ends=True))
                    return

    def __exit__(self, *_: object) -> None:
        if not self._over.is_set():
            self.end()
        self._thread.join(LOOK_EVERY.total_seconds())


class Heard(Stop):
    """What a worker was told by a run. It is asked to stop as soon as the run ends, or was silent
    for too long: also a machine that stood still meanwhile finds out before its next act."""

    def __init__(self, store: StoreReader, run: str) -> None:
        """Raises RetainerError where the run says nothing now."""
        super().__init__()
        self._store, self._run = store, run
        self._until = 0.0, 0.0
        self.word = Word(refused="nothing was heard of the run yet")
        self.look()
        if self.is_asked:
            raise StoreFailed(f"the run {run} is over, or was silent for too long")
        threading.Thread(target=self._go_on, name="retainer-ear", daemon=True).start()

    def look(self) -> None:
        """Hear what the run says at this moment. Raises RetainerError where nothing is heard."""
        asked = ticks()
        found = self._store.whole(_word_of(self._run), _LONGEST)
        if found is None or found[0].age is None:
            raise StoreFailed(f"the run {self._run} has said no word that tells its age")
        word = Word.read(found[1], self._run)
        self.word, self._until = word, good_for(SILENT - max(found[0].age, timedelta(0)), asked)
        if word.ends:
            self.ask()

    def _go_on(self) -> None:
        while not super().pause(LOOK_EVERY.total_seconds()):
            with suppress(RetainerError):
                self.look()
            self._check_age()

    def _check_age(self) -> None:
        if is_past(self._until):
            self.ask()

    @property
    def is_asked(self) -> bool:
        self._check_age()
        return super().is_asked

    @property
    def is_over(self) -> bool:
        return self.is_asked

    def check(self) -> None:
        self._check_age()
        super().check()

    def wait(self, seconds: float) -> None:
        self._check_age()
        super().wait(seconds)
        self.check()

    def pause(self, seconds: float) -> bool:
        self._check_age()
        return super().pause(seconds) or self.is_asked


@dataclass(frozen=True, slots=True)
class Brief:
    """What a run found out, and every worker goes by: the stores whose locks it holds, on which no
    delete may rest and why, which cannot be used and why, and which is which.

    `began`: when, RFC 3339; `source`: the address of the 100ms API; `workers`: so many actions each
    machine makes at once; `machines`: so many there were; `restore`: whether what is archived is
    asked to be restored.
    """

    began: str
    source: str
    locked: list[str]
    barred: dict[str, str]
    unusable: dict[str, str]
    identities: dict[str, str]
    workers: int
    machines: int
    restore: bool

    def calls(self, concurrency: int) -> int:
        """How many of so many calls at once to a store are one machine's."""
        return max(1, concurrency // self.machines)

    @staticmethod
    def read(content: bytes) -> Brief:
        try:
            return Brief(**json.loads(content))
        except (ValueError, TypeError, RecursionError):
            raise StoreFailed("what the run left for its workers cannot be read") from None


@dataclass
class Shards:
    """The shares of one run, as they lie in the state."""

    state: SharedBackend
    run: str

    def _under(self, shard: str) -> str:
        return f"shards/{self.run}/{shard}/"

    def leave_brief(self, brief: Brief) -> None:
        """Raises RetainerError."""
        content = json.dumps(asdict(brief), sort_keys=True).encode()
        key = f"shards/{self.run}/brief.json"
        self.state.store.create(key, iter([content]), len(content), {}, _JSON)

    def brief(self) -> Brief:
        """Raises RetainerError."""
        found = self.state.store.whole(f"shards/{self.run}/brief.json", _LONGEST)
        if found is None:
            raise StoreFailed(
                f"the run {self.run} has left nothing for its workers in {self.state.where}",
                hint="is `state:` in its retainer.yaml the place that the run has its record in?",
            )
        return Brief.read(found[1])

    def record(self, shard: str) -> ShardBackend:
        """Where a share's journal lies."""
        return ShardBackend(
            self.state.folder, self.state.url, self.state.store, under=self._under(shard)
        )

    def hush(self) -> None:
        """Say for a run that is dead that it ends, so that its workers need not wait for its
        silence. Where that cannot be said they find out by that."""
        with suppress(RetainerError):
            key = _word_of(self.run)
            if found := self.state.store.whole(key, _LONGEST):
                word = Word(refused="the run ended", ends=True)
                self.state.store.replace(found[0].seen, word.written(self.run, 0))

    def fence(
        self,
        shard: str,
        run: str,
        plan: str,
        clock: Callable[[], datetime],
        wait: Callable[[float], object] = time.sleep,
    ) -> Ledger:
        """No attempt at a share announces anything more: whoever had its journal finds the next
        name taken, and whoever opens it later reads that it is fenced. What its journal comes to.

        One that writes all the while may always be the first at the next name; it ends by itself
        once nobody speaks to it any more. Raises RetainerError.
        """
        until = time.monotonic() + FENCE_SECONDS
        while time.monotonic() < until:
            with suppress(Locked), closing(Journal(self.record(shard), run, plan, clock)) as own:
                own.write(FENCED)
                return own.ledger()
            wait(0.1)
        raise StoreFailed(
            f"the share {shard} of the run {self.run} is still written to",
            hint="end the workers of that run, or restart them; then run it again",
        )

    def lines(self, shard: str) -> Iterator[Entry]:
        """Every line of a share's journal. Raises RetainerError."""
        return read_journal(self.record(shard))

    def ending(self, shard: str) -> tuple[bool, dict[str, Any] | None]:
        """Whether a share is fenced, and what its line `ended` says; None where it has none. Raises
        RetainerError."""
        fenced, told = False, None
        for entry in self.lines(shard):
            fenced = fenced or entry.event == FENCED
            told = entry.particulars if entry.event == ENDED else told
        return fenced, told


class ShardBackend(SharedBackend):
    """`journal.backend.Backend` of one share. Nobody holds it: who opens it last goes on with it,
    and everybody before finds the next name taken."""

    def identity(self) -> str | None:
        return self.under

    def moment(self, now: datetime) -> datetime:
        return now

    def finished(self, number: int) -> None:
        """Its segments are few, and found by their list."""

    @contextmanager
    def alone(self, run: str) -> Iterator[str]:
        self._run = run
        yield run
