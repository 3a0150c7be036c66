"""One apply at a time per store: a lock object by conditional create, with a heartbeat; a dead one expires."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from retainer.errors import KeyTaken, Locked, RetainerError, StoreFailed
from retainer.model.moment import read_moment, write_moment
from retainer.model.setting import OWN_PREFIX
from retainer.ports import Deletion, Seen, StoreWriter

LOCK_KEY = f"{OWN_PREFIX}lock"
BEAT = timedelta(seconds=60)
DEAD_AFTER = timedelta(minutes=10)
"""A lock whose last heartbeat is older than this belongs to a dead run. A run stops when its own is half as old."""


class StoreLock:
    """Holds the lock of one store for one run."""

    def __init__(self, store: StoreWriter, run: str, plan: str, clock: Callable[[], datetime], dead: frozenset[str] = frozenset()) -> None:
        """`dead`: runs that are certainly over, since this run holds the journal that they wrote to."""
        self._dead = dead
        self._store = store
        self._run = run
        self._plan = plan
        self._clock = clock
        self._seen: Seen | None = None
        self._beaten = clock()

    @property
    def store_name(self) -> str:
        return self._store.name

    def _content(self) -> bytes:
        owner = {"owner": self._run, "host": socket.gethostname(), "plan": self._plan, "heartbeat": write_moment(self._clock())}
        return json.dumps(owner, sort_keys=True).encode()

    def take(self) -> None:
        """Raises Locked when a living run holds it, StoreFailed where a heartbeat could not be written (a bucket that keeps every object)."""
        content = self._content()
        try:
            self._seen = self._store.create(LOCK_KEY, iter([content]), len(content), {}, "application/json").seen
            self._seen = self._replaced(self._seen)
        except KeyTaken:
            self._take_over()
        self._beaten = self._clock()

    def _replaced(self, seen: Seen) -> Seen:
        try:
            renewed = self._store.replace(seen, self._content())
        except StoreFailed as error:
            self.give_back()
            hint = "a bucket with a retention policy cannot hold retainer's lock: let each object have its own retention instead"
            raise StoreFailed(f"the lock of {self._store.name} cannot be renewed: {error.message}", hint=hint) from None
        if renewed is None:
            raise Locked(f"another apply took the lock of {self._store.name} at the same moment", hint="wait for it")
        return renewed

    def _take_over(self) -> None:
        look = self._store.look(LOCK_KEY)
        if look is None:
            raise Locked(f"the lock of {self._store.name} was just given back", hint="try again")
        owner = self._read(look.seen)
        heartbeat = read_moment(str(owner.get("heartbeat", "")))
        if owner.get("owner") == self._run:
            self._seen = look.seen  # our own create, whose answer was lost
            return
        alive = heartbeat is None or self._clock() - heartbeat < DEAD_AFTER
        if alive and owner.get("owner") not in self._dead:
            since = f"its last heartbeat was at {owner.get('heartbeat', '?')}"
            raise Locked(
                f"another apply holds {self._store.name} (run {owner.get('owner', '?')} on {owner.get('host', '?')}; {since})",
                hint=f"wait for it; if it died, its lock expires {DEAD_AFTER.seconds // 60} minutes after its last heartbeat",
            )
        self._seen = self._replaced(look.seen)

    def _read(self, seen: Seen) -> dict[str, Any]:
        try:
            found = json.loads(b"".join(self._store.read(seen)))
        except (ValueError, RetainerError):
            return {}
        return found if isinstance(found, dict) else {}

    def is_fresh(self) -> bool:
        """Whether the heartbeat was renewed lately enough that nobody may take the lock to be dead."""
        return self._clock() - self._beaten < DEAD_AFTER / 2

    def beat(self) -> bool:
        """Renew the heartbeat. False when the lock is no longer ours, or was not renewed for too long: the run must stop."""
        if self._seen is None or not self.is_fresh():
            return False
        try:
            renewed = self._store.replace(self._seen, self._content())
        except RetainerError:
            return True  # the next beat may go through; if none does, the first condition ends the run
        if renewed is None:
            return False
        self._seen, self._beaten = renewed, self._clock()
        return True

    def give_back(self) -> None:
        if self._seen is None:
            return
        try:
            if self._store.delete(self._seen) is Deletion.DELETED:
                self._seen = None
        except RetainerError:
            return


class Heart:
    """Beats for every lock of a run in the background; `lost` is set when one of them is lost."""

    def __init__(self, locks: list[StoreLock], lost: Callable[[], None]) -> None:
        self._locks = locks
        self._lost = lost
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retainer-heart", daemon=True)

    def _run(self) -> None:
        while not self._stop.wait(BEAT.total_seconds()):
            try:
                beaten = all([lock.beat() for lock in self._locks])
            except Exception:
                beaten = False
            if not beaten:
                self._lost()
                return

    def __enter__(self) -> Heart:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for lock in self._locks:
            lock.give_back()
