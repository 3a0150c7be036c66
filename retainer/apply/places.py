"""The places that a run works on: what they honour, whether their locks hold, and which are left
alone since they refuse what is asked of them."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta

from retainer.apply.job import Job
from retainer.apply.outcomes import Outcomes
from retainer.errors import CredentialsRefused, RetainerError, StoreRefused
from retainer.model.outcome import Resting
from retainer.model.setting import HOSTED
from retainer.planfile import Action
from retainer.ports import Abilities
from retainer.stop import Stopped

REFUSALS = 3
"""After so many refusals in a row nothing more is asked of a place in this run."""
SKEW = timedelta(minutes=5)


class LockLost(RetainerError):
    """Somebody may have taken this run for dead: nothing more is done in that store."""


class Places:
    """Of one run. Safe to use from several threads."""

    def __init__(self, job: Job, outcomes: Outcomes) -> None:
        self._job, self._outcomes = job, outcomes
        self._summary = outcomes.summary
        self._guard = threading.Lock()
        self._halted = threading.Event()
        self._abilities: dict[str, Abilities] = {}
        self._told: dict[str, Mapping[str, bool]] = {}
        self._refusals: dict[str, int] = {}
        self._unusable: dict[str, RetainerError] = dict(job.unlocked)

    # ── may this run go on ──────────────────────────────────────────────────────────────────────

    def halt(self) -> None:
        """Something broke: no new action begins."""
        self._halted.set()

    def check(self, *stores: str) -> None:
        """Raises Stopped when the run must end, and LockLost where somebody may have taken the lock
        of one of these stores."""
        self._job.stop.check()
        if self._halted.is_set():
            raise Stopped
        for name in stores:
            if name in self._job.locks and not self._job.locks[name].holds:
                self.lost(name)
                raise LockLost(_lost(name), hint="run it again")

    def lost(self, store: str) -> None:
        """The lock of a store was lost: what rests on it ends, and the rest goes on."""
        self._summary.lost_lock = True
        self._rest(store, _lost(store), "run it again", credentials=False)

    def still_holds(self, action: Action, stores: Iterable[str]) -> bool:
        """Whether the locks of all these stores hold at this moment; each that does not is left
        alone from now on."""
        lapsed = [name for name in sorted(stores) if not self._job.locks[name].holds]
        for name in lapsed:
            self.lost(name)
        return not (lapsed and self.is_resting(action, lapsed))

    def clock_is_off(self, stores: Collection[str]) -> str | None:
        """Why this machine's clock cannot be trusted with deletes that rest on these stores;
        100ms's is always asked."""
        for name, time_of in self._job.clocks.items():
            if name != HOSTED and (name not in stores or name in self._unusable):
                continue
            whose = "100ms" if name == HOSTED else name
            try:
                off = time_of() - self._job.clock()
            except RetainerError as error:
                return f"the time of {whose} is not known ({error.message})"
            if abs(off) > SKEW:
                minutes = abs(off).total_seconds() / 60
                return f"this machine's clock is {minutes:.0f} minutes off that of {whose}"
        return None

    # ── what they honour ────────────────────────────────────────────────────────────────────────

    def prove(self, stores: Iterable[str], deleted_in: Collection[str]) -> None:
        """Find out what each store honours. One store that cannot be used must not keep another
        one's copies from being made."""
        for name in sorted(stores):
            if name not in self._job.stores or name in self._unusable:
                continue
            self.check()
            try:
                found = self._job.stores[name].conditions()
                found.find_out("create")
                if name in deleted_in:
                    found.find_out("delete")
            except RetainerError as error:
                self._unusable[name] = error
                continue
            self._abilities[name] = found
            self._tell(name)

    def tell_abilities(self) -> None:
        """Write down what each store honours, where that is news: what rests on less is known by
        it, and the next run of the day need not find it out again."""
        for store in self._abilities:
            self._tell(store)

    def _tell(self, store: str) -> None:
        known = self._abilities[store].known
        if known != self._told.get(store):
            self._told[store] = known
            place = self._job.places.get(store, "")
            self._job.journal.write("conditions", store=store, place=place, **known)

    def abilities(self, store: str) -> Abilities:
        """Of a store that is usable."""
        return self._abilities[store]

    def why_unusable(self, store: str) -> RetainerError | None:
        return self._unusable.get(store)

    def is_usable(self, action: Action) -> bool:
        """Whether the store of an action can be used at all; otherwise the action has failed."""
        if action.store in self._abilities:
            return True
        error = self._unusable.get(action.store)
        self._outcomes.failed(
            action,
            error.message if error else f"the store {action.store} cannot be opened",
            error.hint if error else None,
        )
        return False

    def knows(self, store: str) -> bool:
        """Whether it can be used."""
        return store in self._abilities

    # ── which refuse ────────────────────────────────────────────────────────────────────────────

    def _rest(self, place: str, cause: str, hint: str | None, *, credentials: bool) -> None:
        with self._guard:
            self._summary.resting.setdefault(place, Resting(cause, hint, credentials))

    def is_resting(self, action: Action, places: Iterable[str]) -> bool:
        """Whether one of the places that an action needs is left alone by now; it is counted
        there."""
        with self._guard:
            found = next((place for place in places if place in self._summary.resting), None)
            if found is not None:
                self._summary.resting[found].count(action.leaves_at)
        if found is not None:
            self._outcomes.watcher.ended(action, "resting", None)
        return found is not None

    def refused(self, action: Action, places: Sequence[str], error: RetainerError) -> bool:
        """Whether an error is a refusal that will be repeated; after a few of them, or one of
        credentials, its place rests."""
        if isinstance(error, CredentialsRefused):
            self._rest(error.store or HOSTED, error.message, error.hint, credentials=True)
            return self.is_resting(action, [error.store or HOSTED])
        if isinstance(error, StoreRefused):
            with self._guard:
                count = self._refusals[error.store] = self._refusals.get(error.store, 0) + 1
            if count >= REFUSALS:
                self._rest(error.store, error.message, error.hint, credentials=False)
        return isinstance(error, LockLost) and self.is_resting(action, places)

    def cannot(self, action: Action, cause: str, hint: str) -> None:
        """The store of an action cannot do what is to be done there: told once, and counted. It may
        be read from all the same."""
        with self._guard:
            told = self._summary.impossible.setdefault(
                action.store, Resting(cause, hint, credentials=False)
            )
            told.count(action.leaves_at)
        self._outcomes.impossible(action, cause)

    def answered(self, *places: str) -> None:
        """They did what was asked of them: refusals are counted from here."""
        with self._guard:
            for place in places:
                self._refusals.pop(place, None)


def _lost(store: str) -> str:
    return f"the lock of {store} was lost, or could not be renewed in time"
