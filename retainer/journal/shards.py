"""What an apply on many machines leaves in the state for its workers, and they for it.

    _retainer/runs/RUN.json          the word: that the run goes on, and what may not be deleted
    shards/RUN/brief.json            what the run found out before it gave anything away
    shards/RUN/SHARD/journal/…       what is done of one share: a journal like any other
    shards/RUN/SHARD/done.json       that nobody acts for this share any more, and how it went

The word is written over by the run alone, every few seconds; everything else is created once. Two
attempts at one share write to one journal: whoever opens it takes the next name away from the one
before, who can announce nothing more, and so does nothing more. So nothing here is ever removed: a
name that is free again is no fence.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from retainer.errors import KeyTaken, RetainerError, StoreFailed
from retainer.journal.journal import Journal
from retainer.journal.lock import ticks
from retainer.journal.shared import SharedBackend
from retainer.model.setting import OWN_PREFIX
from retainer.ports import Seen, StoreReader, StoreWriter
from retainer.stop import Stop

LOOK_EVERY = timedelta(seconds=4)
"""So often a run says that it goes on, and a worker looks."""
SILENT = timedelta(seconds=30)
"""A worker that was told nothing for so long does nothing more."""
OVER = timedelta(minutes=4)
"""After so long without a word nobody acts for a run any more: SILENT, what a call that was made
then may be tried again for, and how long a server may be silent over it."""
_LONGEST = 64 << 20
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Word:
    """What a run says: why no delete may be made (None: they may), rows that are withheld with the
    reasons, and whether it ends."""

    refused: str | None = None
    withheld: Mapping[int, str] = field(default_factory=dict)
    ends: bool = False

    def written(self, run: str, beat: int) -> bytes:
        reasons = sorted(set(self.withheld.values()))
        numbers = {reason: number for number, reason in enumerate(reasons)}
        told = {
            "run": run,
            "beat": beat,
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
            refused, ends = told["refused"], told["ends"]
            if not (refused is None or isinstance(refused, str)) or not isinstance(ends, bool):
                raise ValueError
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):
            raise StoreFailed(f"the word of the run {run} cannot be read") from None
        return Word(refused, withheld, ends)


def _word_of(run: str) -> str:
    return f"{OWN_PREFIX}runs/{run}.json"


class Herald:
    """Says every few seconds what a run has to say. Where that fails the word grows old, and every
    worker stops by itself."""

    def __init__(self, store: StoreWriter, run: str, word: Callable[[], Word]) -> None:
        self._store, self._run, self._word = store.impatient(), run, word
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
                self.say(self._word())

    def say(self, word: Word) -> None:
        """Raises RetainerError."""
        with self._guard:
            if self._over.is_set() and not word.ends:
                return
            self._beat += 1
            content = word.written(self._run, self._beat)
            if self._seen is not None:
                self._seen = self._store.replace(self._seen, content)
            if self._seen is None:  # an answer was lost, and it is there, or it is another's
                found = self._store.whole(_word_of(self._run), _LONGEST)
                self._seen = found[0].seen if found and found[1] == content else None

    def end(self) -> None:
        """Say that it ends, so that workers need not wait for silence."""
        self._over.set()
        with suppress(RetainerError):
            self.say(Word("the run ends", ends=True))

    def __exit__(self, *_: object) -> None:
        self.end()
        self._thread.join(LOOK_EVERY.total_seconds())


def silence(store: StoreReader, run: str) -> timedelta | None:
    """How long ago a run said its last word, by the store's clock; None where it never said one.
    Raises RetainerError."""
    found = store.whole(_word_of(run), _LONGEST)
    return None if found is None else found[0].age or timedelta(0)


class Heard(Stop):
    """What a worker was told by a run. It is asked to stop as soon as the run ends, or was silent
    for too long: also a machine that stood still meanwhile finds out before its next act."""

    def __init__(self, store: StoreReader, run: str) -> None:
        """Raises RetainerError where the run says nothing now."""
        super().__init__()
        self._store, self._run = store, run
        self._until = 0.0, 0.0
        self.word = Word("nothing was heard of the run yet")
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
        left = (SILENT - max(found[0].age, timedelta(0))).total_seconds()
        self.word, self._until = word, (asked[0] + left, asked[1] + left)
        if word.ends:
            self.ask()

    def _go_on(self) -> None:
        while not super().pause(LOOK_EVERY.total_seconds()):
            with suppress(RetainerError):
                self.look()
            self._check_age()

    def _check_age(self) -> None:
        if any(now > until for now, until in zip(ticks(), self._until, strict=True)):
            self.ask()

    @property
    def is_asked(self) -> bool:
        self._check_age()
        return super().is_asked

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
    delete may rest and why, which cannot be used and why, and which is which; `began`: when, RFC
    3339; `workers`: so many actions each machine makes at once; `machines`: so many there were;
    `restore`: whether what is archived is asked to be restored."""

    began: str
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
        self._leave(f"shards/{self.run}/brief.json", asdict(brief))

    def brief(self) -> Brief:
        """Raises RetainerError."""
        found = self.state.store.whole(f"shards/{self.run}/brief.json", _LONGEST)
        if found is None:
            raise StoreFailed(f"the run {self.run} has left nothing for its workers")
        return Brief.read(found[1])

    def end(self, shard: str, told: Mapping[str, Any]) -> None:
        """Mark that nobody acts for a share any more; the first one counts. Raises
        RetainerError."""
        with suppress(KeyTaken):
            self._leave(f"{self._under(shard)}done.json", told)

    def ended(self, shard: str) -> dict[str, Any] | None:
        """How a share went; None where it is not marked yet. Raises RetainerError."""
        found = self.state.store.whole(f"{self._under(shard)}done.json", _LONGEST)
        if found is None:
            return None
        try:
            return dict(json.loads(found[1]))
        except (ValueError, TypeError, RecursionError):
            raise StoreFailed(f"the mark of the share {shard} cannot be read") from None

    def _leave(self, key: str, told: Mapping[str, Any]) -> None:
        content = json.dumps(told, sort_keys=True).encode()
        self.state.store.create(key, iter([content]), len(content), {}, _JSON)

    def wait_until_over(
        self, names: Sequence[str], stop: Stop, told: Callable[[str], None]
    ) -> None:
        """Wait until nobody acts for these shares any more: each is marked, or the run was silent
        for so long that every worker has stopped. Raises RetainerError, Stopped."""
        for name in names:
            while self.ended(name) is None:
                ago = silence(self.state.store, self.run)
                if ago is None or ago >= OVER:
                    return
                left = (OVER - ago).total_seconds()
                told(f"workers of the run {self.run} may still act: {left:.0f} s more at most")
                stop.wait(min(5.0, left + 0.1))

    def names(self) -> list[str]:
        """The shares of which something was written down. Raises RetainerError."""
        under = f"shards/{self.run}/"
        keys = (seen.key.removeprefix(under) for seen in self.state.store.list(under))
        return sorted({key.partition("/")[0] for key in keys if "/" in key})

    def record(self, shard: str) -> ShardBackend:
        """Where a share's journal lies."""
        return ShardBackend(
            self.state.folder, self.state.url, self.state.store, under=self._under(shard)
        )

    def fence(self, shard: str, run: str, plan: str, clock: Callable[[], datetime]) -> None:
        """No attempt at a share announces anything more: whoever had its journal finds the next
        name taken, and whoever opens it later finds the mark. Raises RetainerError."""
        with closing(Journal(self.record(shard), run, plan, clock)) as journal:
            journal.write("fenced")


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
