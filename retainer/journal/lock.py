"""One apply at a time per store: a lock object by conditional create, with a heartbeat; a dead one
expires by the store's own clock."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from retainer.errors import KeyTaken, Locked, RetainerError, StoreFailed
from retainer.model.moment import write_moment
from retainer.model.setting import OWN_PREFIX
from retainer.ports import Deletion, Look, Seen, StoreReader, StoreWriter
from retainer.who import who

LOCK_KEY = f"{OWN_PREFIX}lock"
BEAT = timedelta(seconds=60)
DEAD_AFTER = timedelta(minutes=10)
"""A lock that was not written for so long belongs to a dead run. A run stops using a store when its
own is half as old."""
LOOK_AT_IT = timedelta(seconds=15)
"""Another process of a run looks so often at a lock that the run renews."""
_LOCK_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a lock: the run, its host and plan; `state`: the state folder's id, and `journal`:
    which file its journal is on that host."""

    run: str
    host: str
    plan: str
    state: str
    journal: str
    user: str = ""
    since: str = ""
    """When the run began, by its host's clock (RFC 3339)."""

    @staticmethod
    def read(content: bytes) -> Owner | None:
        """None for a lock that nobody can read."""
        try:
            found: Any = json.loads(content)
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, dict) or not isinstance(found.get("owner"), str):
            return None
        texts = {name: value for name, value in found.items() if isinstance(value, str)}
        return Owner(
            texts["owner"],
            *(texts.get(name, "?") for name in ("host", "plan", "state", "journal")),
            *(texts.get(name, "") for name in ("user", "since")),
        )

    def write(self, beat: int) -> bytes:
        owner = {
            "owner": self.run,
            "host": self.host,
            "plan": self.plan,
            "state": self.state,
            "journal": self.journal,
            "user": self.user,
            "since": self.since,
            "beat": beat,
        }
        return json.dumps(owner, sort_keys=True).encode()

    def certainly_outlived(self, other: Owner) -> bool:
        """Whether another owner is over for certain: this run has the lock of the very journal that
        the other one wrote to."""
        return other.run != self.run and (other.host, other.state, other.journal) == (
            self.host,
            self.state,
            self.journal,
        )


def owner(run: str, plan: str, state: str, journal: str) -> Owner:
    """A run that begins now, on this host, by this user."""
    now = write_moment(datetime.now(UTC))
    return Owner(run, os.uname().nodename, plan, state, journal, who()["user"], now)


@dataclass(frozen=True, slots=True)
class Held:
    """A lock as it lies in a store. `owner`: None where it cannot be read; `age`: by the store's
    clock, None where it tells none."""

    look: Look
    owner: Owner | None

    @property
    def is_dead(self) -> bool:
        return self.look.age is not None and self.look.age >= DEAD_AFTER

    def words(self, store: str) -> str:
        last = ""
        if (age := self.look.age) is not None:
            ago = max(0, round(age.total_seconds()))
            left = round(DEAD_AFTER.total_seconds()) - ago
            last = f", last written {ago} s ago by that store's clock"
            last += f"; free in {left} s unless it is renewed" if left > 0 else "; it is dead"
        by = f" by {self.owner.user}" if self.owner and self.owner.user else ""
        since = f", since {self.owner.since}" if self.owner and self.owner.since else ""
        whose = (
            f"run {self.owner.run}{by} on {self.owner.host}{since}"
            if self.owner
            else f"a run that cannot be read from {LOCK_KEY}"
        )
        return f"another apply holds {store} ({whose}{last})"


def lock_in(store: StoreReader) -> Held | None:
    """The lock of a store; None when nobody has it. Raises StoreFailed."""
    try:
        found = store.whole(LOCK_KEY, _LOCK_BYTES)
    except StoreFailed:
        look = store.look(LOCK_KEY)  # it was renewed in between, or is no lock of ours
        return None if look is None else Held(look, None)
    return None if found is None else Held(found[0], Owner.read(found[1]))


class StoreLock:
    """The lock of one store for one run. It holds only where the store was seen to honour the
    conditions that it rests on."""

    def __init__(self, store: StoreWriter, owner: Owner, over: Collection[str] = ()) -> None:
        """`over`: runs of which nobody acts any more."""
        self._store = store
        self._owner, self._over = owner, over
        self._seen: Seen | None = None
        self._beats = 0
        self._honoured = False
        self._guard = threading.Lock()
        self._beaten = ticks()

    @property
    def store_name(self) -> str:
        return self._store.name

    @property
    def holds(self) -> bool:
        """Whether nobody else can have the lock, nor take it for dead."""
        return self._honoured and self._seen is not None and self._age() < DEAD_AFTER / 2

    def _age(self) -> timedelta:
        return timedelta(seconds=_since(self._beaten, ticks()))

    def _content(self) -> bytes:
        self._beats += 1
        return self._owner.write(self._beats)

    def take(self) -> None:
        """Take it, where a lock holds at all; else only look that nobody has it. Raises Locked when
        a living run does, StoreFailed."""
        abilities = self._store.conditions()
        abilities.before_a_lock()
        known = abilities.known
        held = lock_in(self._store)
        if held is not None and not self._may_be_taken(held):
            hint = (
                "wait for it (--wait 15m); a lock that nobody renews for "
                f"{DEAD_AFTER.seconds // 60} minutes is dead, and "
                f"`retainer unlock {self.store_name}` takes it away before where its run is known "
                "to be over"
            )
            raise Locked(held.words(self.store_name), hint=hint)
        if not known.get("create", True) or not known.get("replace", True):
            return
        self._store = self._store.impatient()  # a silent server must not outlast half a beat
        began = ticks()
        self._seen = seen = held.look.seen if held is not None else self._created()
        self._seen = self._renewed(seen, ours=held is None)
        self._beaten = began
        self._honoured = self._store.conditions().lock
        if not self._honoured:
            self.give_back()

    def _created(self) -> Seen:
        content = self._content()
        try:
            return self._store.create(
                LOCK_KEY, iter([content]), len(content), {}, "application/json"
            ).seen
        except KeyTaken:
            held = lock_in(self._store)
            if held is None or held.owner != self._owner:
                raise Locked(
                    f"another apply took the lock of {self.store_name} at the same moment",
                    hint="wait for it",
                ) from None
            return held.look.seen  # our own create, whose answer was lost

    def _may_be_taken(self, held: Held) -> bool:
        return held.is_dead or (
            held.owner is not None
            and (
                held.owner == self._owner
                or held.owner.run in self._over
                or self._owner.certainly_outlived(held.owner)
            )
        )

    def _renewed(self, seen: Seen, *, ours: bool) -> Seen | None:
        """The first heartbeat, at once: a bucket that keeps every object shows itself before
        anything is copied there.

        What the server honours of single writes is found out by it, where that is not known and
        nobody else can be at this lock. The lock as it was where too little for one is honoured.
        """
        try:
            proves = ours and "replace" not in self._store.conditions().known
            if proves:
                seen = self._store.prove_on(seen, self._owner.write(self._beats))
            if proves or not self._store.conditions().lock:
                return seen
            beat = self._written_over(seen)
        except StoreFailed as error:
            self.give_back()
            hint = (
                "a bucket with a retention policy cannot hold retainer's lock: let each object "
                "have its own retention instead"
            )
            raise StoreFailed(
                f"the lock of {self.store_name} cannot be renewed: {error.message}", hint=hint
            ) from None
        if beat is None:
            self._seen = None
            raise Locked(
                f"another apply took the lock of {self.store_name} at the same moment",
                hint="wait for it",
            )
        return beat

    def _written_over(self, seen: Seen) -> Seen | None:
        """The lock after one more beat; None where it is another run's by now. Raises StoreFailed,
        also where it is ours still and was not renewed."""
        renewed = self._store.replace(seen, self._content())
        if renewed is None:
            renewed = self._own()
            if renewed is not None and renewed.version == seen.version:
                raise StoreFailed("the server refused its own version")
        return renewed

    def _own(self) -> Seen | None:
        """The lock as it lies there, if this run wrote it: a write whose answer was lost."""
        held = lock_in(self._store)
        return held.look.seen if held is not None and held.owner == self._owner else None

    def beat(self) -> bool:
        """Renew the heartbeat. False when the lock is no longer ours, or was not renewed for too
        long."""
        with self._guard:
            if not self.holds or self._seen is None:
                return False
            began = ticks()
            try:
                renewed = self._written_over(self._seen)
            except RetainerError:
                return self.holds  # the next beat may go through
            self._seen = renewed
            if renewed is None:
                return False
            self._beaten = began
            return True

    def give_back(self) -> None:
        with self._guard:
            if self._seen is None:
                return
            try:
                seen = self._seen if self.holds else self._own()
                ended = self._store.delete(seen) if seen is not None else Deletion.GONE
                if ended is Deletion.CHANGED and (own := self._own()) is not None:
                    ended = self._store.delete(own)
                if ended in (Deletion.DELETED, Deletion.GONE):
                    self._seen = None
            except RetainerError:
                return


class SeenLock:
    """The lock of one store as another process of its run sees it, that does not renew it. Safe to
    use from several threads."""

    def __init__(self, store: StoreReader, run: str) -> None:
        self._store, self._run = store, run
        self._guard = threading.Lock()
        self._looked: tuple[float, float] | None = None
        self._until = (0.0, 0.0)

    @property
    def holds(self) -> bool:
        """Whether it is the run's, and nobody can take it for dead; looked at every 15 s."""
        with self._guard:
            now = ticks()
            if self._looked is None or _since(self._looked, now) > LOOK_AT_IT.total_seconds():
                self._look(now)
            return not is_past(self._until)

    def _look(self, now: tuple[float, float]) -> None:
        self._looked = now
        try:
            held = lock_in(self._store)
        except RetainerError:
            return  # what was seen last counts as long as it is young
        age = held.look.age if held and held.owner and held.owner.run == self._run else None
        young = timedelta(0) if age is None else DEAD_AFTER / 2 - max(age, timedelta(0))
        self._until = good_for(young, now)


def _since(then: tuple[float, float], now: tuple[float, float]) -> float:
    return max(after - before for before, after in zip(then, now, strict=True))


def good_for(span: timedelta, since: tuple[float, float]) -> tuple[float, float]:
    """Until when by both clocks, so long after a moment (`ticks`)."""
    return since[0] + span.total_seconds(), since[1] + span.total_seconds()


def is_past(until: tuple[float, float]) -> bool:
    """Whether it is later by one of the clocks at least."""
    return any(now >= end for now, end in zip(ticks(), until, strict=True))


def ticks() -> tuple[float, float]:
    """Seconds by two clocks: the one stands still while a laptop sleeps, the other jumps when
    somebody sets it."""
    return time.monotonic(), time.time()


class Heart:
    """Beats for each lock of a run by itself, from the moment that it was taken, so that one silent
    store stops nothing on another; `lost` is told of a lock that was lost. Whoever took them gives
    them back."""

    def __init__(self, lost: Callable[[str], None]) -> None:
        self._lost = lost
        self._stop = threading.Event()
        self._beating: list[threading.Thread] = []

    def beat_for(self, lock: StoreLock) -> None:
        """Renew a lock from now on, where it is one that holds."""
        if lock.holds:
            name = f"retainer-heart-{lock.store_name}"
            thread = threading.Thread(target=self._run, args=(lock,), name=name, daemon=True)
            self._beating.append(thread)
            thread.start()

    def tell(self, lost: Callable[[str], None]) -> None:
        """From now on this is told of a lock that is lost."""
        self._lost = lost

    def _run(self, lock: StoreLock) -> None:
        while not self._stop.wait(BEAT.total_seconds()):
            try:
                beaten = lock.beat()
            except Exception:
                beaten = False
            if not beaten:
                self._lost(lock.store_name)
                return

    def __enter__(self) -> Heart:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._beating:
            thread.join(BEAT.total_seconds() / 2)
