"""The locks of a plan: what is kept in a store that locks, and is not locked until its keep is
over, is locked longer; and the catalog is told, since lists of S3 tell no locks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial

from retainer.apply.job import Job
from retainer.apply.lately import Lately
from retainer.apply.outcomes import Outcomes
from retainer.apply.places import Places
from retainer.apply.record import write_locks
from retainer.apply.verify import locked
from retainer.errors import RetainerError
from retainer.model.moment import write_moment
from retainer.planfile import Action, Planned
from retainer.ports import Seen

TOLD_AT_ONCE = 50_000
"""The catalog is told of so many objects at once: each time its parts are read."""
Each = Callable[[Iterator[Action], Callable[[Action], None]], None]
"""Acts on each, many at a time."""


class Locks:
    """Of one run. What a kill leaves open needs no care: a lock is only ever made longer, and the
    next plan looks again."""

    def __init__(self, job: Job, places: Places, outcomes: Outcomes) -> None:
        self._job, self._places, self._outcomes = job, places, outcomes
        self._outdated = Lately(job.outdated, job.clock)
        self._guard = threading.Lock()
        self._untold: dict[str, list[tuple[str, str, datetime]]] = {}

    def make(self, each: Each) -> None:
        """All of them. None is begun once the plan is not what people want today: nobody may be
        able to take it back."""
        each(self._wanted(), self._make)
        for store in sorted(self._untold):
            self._tell(store)

    def _wanted(self) -> Iterator[Action]:
        for action in self._job.plan.locks():
            if reason := self._outdated():
                self._outcomes.say(f"{reason}: nothing more is locked longer")
                return
            yield action

    def _make(self, action: Action) -> None:
        if not self._places.is_usable(action) or self._places.is_resting(action, [action.store]):
            return
        assert action.lock_until is not None
        if action.lock_until <= self._job.clock():
            self._outcomes.skipped(action, "its keep is over by now")
            return
        made: list[str] = []
        try:
            for planned in action.objects:
                self._places.check(action.store)
                if not self._is_locked(action, planned, action.lock_until, made):
                    self._outcomes.skipped(action, "it has changed since the plan")
                    return
        except RetainerError as error:
            if not self._places.refused(action, [action.store], error):
                self._outcomes.failed(action, error.message, error.hint)
            return
        finally:
            self._outcomes.lengthened(action, made)
        self._places.answered(action.store)
        self._outcomes.locked(action, is_new=bool(made))

    def _is_locked(
        self, action: Action, planned: Planned, until: datetime, made: list[str]
    ) -> bool:
        """Whether an object is locked for so long by now; else another one lies there. `made`:
        takes the keys of those that were not."""
        seen = Seen(planned.key, planned.size, planned.version)

        def announce() -> None:
            if not made:
                self._job.journal.write(
                    "intent",
                    act="lock",
                    rows=[action.n],
                    asset=action.asset_id,
                    store=action.store,
                    until=write_moment(until),
                )

        found = locked(self._job.stores[action.store], seen, until, announce)
        if found is None:
            return False
        end, is_new = found
        made += [seen.key] * is_new
        if end.year < 9999:  # a hold may end at any time
            self._is_to_be_told(action.store, (seen.key, seen.version, end))
        return True

    def _is_to_be_told(self, store: str, end: tuple[str, str, datetime]) -> None:
        with self._guard:
            untold = self._untold.setdefault(store, [])
            untold.append(end)
            many = len(untold) >= TOLD_AT_ONCE
        if many:
            self._tell(store)

    def _tell(self, store: str) -> None:
        with self._guard:
            ends, self._untold[store] = self._untold[store], []
        if not ends:
            return
        identity = self._job.identities.get(store)
        try:
            part = write_locks(
                self._job.stores[store],
                identity,
                ends,
                self._job.clock(),
                partial(self._places.check, store),
            )
        except RetainerError as error:
            said = (
                f"the catalog of {store} was not told until when {len(ends):,} objects are locked"
            )
            self._outcomes.say(f"{said}: the next plan looks again ({error.message})")
            return
        if part is not None:
            self._job.journal.write("catalogued", store=store, part=part, rows=[])
