"""The locks of a plan: what is kept in a store that locks, and is not locked until its keep is
over, is locked longer; and the catalog is told, since lists of S3 tell no locks."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from retainer.apply.job import Job
from retainer.apply.lately import Lately
from retainer.apply.outcomes import Outcomes
from retainer.apply.places import LockLost, Places
from retainer.apply.record import part_files, write_locks
from retainer.apply.verify import locked
from retainer.errors import CredentialsRefused, RetainerError
from retainer.model.catalog import CATALOG_PREFIX
from retainer.model.moment import write_moment
from retainer.planfile import Action, Planned
from retainer.ports import Seen

TOLD_AT_ONCE = 50_000
"""The catalog is told of so many objects at once: each time its parts are read."""
FAILURES = 10
"""After so many in a row no more is locked in a store: it may lack the right, or the feature, and
that is no word against its copies and deletes."""
Each = Callable[[Iterator[Action], Callable[[Action], None]], None]
"""Acts on each, many at a time."""


class Locks:
    """Of one run. What a kill leaves open needs no care: a lock is only ever made longer, and the
    next plan looks again."""

    def __init__(self, job: Job, places: Places, outcomes: Outcomes) -> None:
        self._job, self._places, self._outcomes = job, places, outcomes
        self._outdated = Lately(job.outdated, job.clock)
        self._guard, self._telling = threading.Lock(), threading.Lock()
        self._failures: Counter[str] = Counter()
        self._untold: dict[str, list[Seen]] = {}
        self._parts: dict[str, list[Path]] = {}

    def make(self, each: Each) -> None:
        """All of them. None is begun once the plan is not what people want today, or the clock
        cannot be trusted: nobody may be able to take it back."""
        if not self._job.plan.locked_in:
            return
        clock = self._places.clock_is_off(self._job.plan.locked_in)
        try:
            each(self._wanted(clock), self._make)
        finally:
            for store in sorted(self._untold):
                self._tell(store)
            for file in (file for files in self._parts.values() for file in files):
                file.unlink(missing_ok=True)

    def _wanted(self, against: str | None) -> Iterator[Action]:
        """Those that may be made; the others are left. `against`: why none may."""
        for action in self._job.plan.locks():
            if reason := against or self._outdated():
                against = reason
                self._outcomes.left([action], f"{reason}: nothing more is locked longer")
            elif self._failures[action.store] >= FAILURES:
                self._outcomes.left(
                    [action], f"{FAILURES} locks in a row failed in {action.store}: no more there"
                )
            else:
                yield action

    def _make(self, action: Action) -> None:
        if not self._places.is_usable(action) or self._places.is_resting(action, [action.store]):
            return
        assert action.lock_until is not None
        if action.lock_until <= self._job.clock():
            self._outcomes.skipped(action, "its keep is over by now")
            return
        made: list[str] = []
        why_not = None
        try:
            for planned in action.objects:
                self._places.check(action.store)
                why_not = why_not or self._lock(action, planned, action.lock_until, made)
        except RetainerError as error:
            if not isinstance(error, CredentialsRefused | LockLost) or not self._places.refused(
                action, [action.store], error
            ):
                self._failures[action.store] += 1
                self._outcomes.failed(action, error.message, error.hint)
            return
        finally:
            self._outcomes.lengthened(action, made)
        self._failures[action.store] = 0
        if why_not:
            self._outcomes.skipped(action, why_not)
        else:
            self._outcomes.locked(action, is_new=bool(made))

    def _lock(
        self, action: Action, planned: Planned, until: datetime, made: list[str]
    ) -> str | None:
        """Why an object is not locked for so long by now; None where it is. `made`: takes the keys
        of those that were not."""

        def announce() -> None:
            if not made:
                self._outcomes.intends(action, until=write_moment(until))

        store = self._job.stores[action.store]
        seen = Seen(planned.key, planned.size, planned.version)
        found = locked(store, seen, until, announce, action.lock_mode)
        if found is None:
            return "it has changed since the plan"
        there, is_new = found
        made += [seen.key] * is_new
        self._is_to_be_told(action.store, there)
        if there.retained_until is not None and there.retained_until < until:
            return (
                "it has a lock that nobody could take back, and the settings ask for one that "
                "somebody can: it stays as it is"
            )
        return None

    def _is_to_be_told(self, store: str, seen: Seen) -> None:
        with self._guard:
            untold = self._untold.setdefault(store, [])
            untold.append(seen)
            many = len(untold) >= TOLD_AT_ONCE
        if many:
            self._tell(store)

    def _tell(self, store: str) -> None:
        """Let the catalog of a store know; also when the run is to end, as with what was copied."""
        with self._guard:
            seen, self._untold[store] = self._untold[store], []
        lock = self._job.locks.get(store)  # none where a server ignores what locks rest on
        if not seen or (lock is not None and not lock.holds):
            return
        writer, identity = self._job.stores[store], self._job.identities.get(store)
        try:
            with self._telling:
                if store not in self._parts:
                    found = list(writer.list(CATALOG_PREFIX))
                    self._parts[store] = part_files(writer, found, lambda: None)
                files = self._parts[store]
                part = write_locks(writer, identity, files, seen, self._job.clock())
        except RetainerError as error:
            said = f"the catalog of {store} was not told of the locks of {len(seen):,} objects"
            self._outcomes.say(f"{said}: the next plan looks again ({error.message})")
            return
        if part is not None:
            self._job.journal.write("catalogued", store=store, part=part, rows=[])
