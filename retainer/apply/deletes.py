"""The deletes of a plan: only where nothing has changed that they rest on, announced before, and
settled after."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from types import MappingProxyType
from typing import Any

from retainer.apply.delete import (
    BATCH,
    and_removed,
    delete_one,
    missing_witness,
    not_as_reported,
    not_in_doubt,
    objects_of,
    rests_on,
    seen_together,
)
from retainer.apply.job import Job
from retainer.apply.lately import Lately
from retainer.apply.outcomes import Outcomes
from retainer.apply.places import LockLost, Places
from retainer.errors import CredentialsRefused, RetainerError, StoreFailed, StoreRefused
from retainer.planfile import Action
from retainer.ports import Deletion, Seen, StoreFailure
from retainer.stop import Stopped
from retainer.versions import versions_of

NONE_REMOVED: Mapping[str, int] = MappingProxyType({})
BATCHES = 4
"""So many batches are on their way at once; what a kill leaves open is looked at later."""
Each = Callable[[Iterator[list[Action]], Callable[[list[Action]], None]], None]
"""Acts on each, many at a time."""


class Deletes:
    """Of one run."""

    def __init__(self, job: Job, places: Places, outcomes: Outcomes) -> None:
        self._job, self._places, self._outcomes = job, places, outcomes
        self._batches = threading.Semaphore(BATCHES)
        self._today = Lately(job.recheck, job.clock, job.look_every)
        self._braked: str | None = None

    def make(self, in_store: Callable[[str], None]) -> None:
        """All of them, store by store; `in_store` makes those of one."""
        if not self.left:
            for store in self._job.plan.deleted_in:
                for action in self._job.plan.deletes(store):
                    self._outcomes.already(action)
            return
        self._places.check()
        if reason := self._last_look_before():
            waiting = chain.from_iterable(map(self._waiting, self._job.plan.deleted_in))
            self._outcomes.left(waiting, f"{reason}: no deletes")
            return
        for store in self._job.plan.deleted_in:
            self._places.check()
            if self._is_remembered(store):
                in_store(store)

    @property
    def left(self) -> int:
        """How many were not made by an earlier run."""
        return sum(self._job.plan.deleted_in.values()) - len(self._job.before.deleted)

    def _waiting(self, store: str) -> Iterator[Action]:
        """Those in a store that no earlier run has made; the others are told so."""
        for action in self._job.plan.deletes(store):
            if action.n in self._job.before.deleted:
                self._outcomes.already(action)
            else:
                yield action

    # ── what must be so ─────────────────────────────────────────────────────────────────────────

    def _last_look_before(self) -> str | None:
        """Why no delete may be made at this moment: the policies or the plan's age say no, or a
        clock does. None: they may."""
        return self._today.anew().refused or self._places.clock_is_off(self._job.plan.rested_on)

    def _is_remembered(self, store: str) -> bool:
        """Let a store remember what is about to be deleted there; whether anything may be."""
        if self._job.anchor is None:
            return True
        planned: dict[str, tuple[int, int]] = {}
        barred: Counter[str] = Counter()
        for action in self._job.plan.deletes(store):
            if action.n in self._job.before.deleted:
                continue
            if bar := self._bar(action):
                barred[bar] += 1
                continue
            count, size = planned.get(action.rule, (0, 0))
            planned[action.rule] = count + 1, size + action.size
        for name, count in sorted(barred.items()):
            said = f"{count} deletes rest on {name}, and none of them is made"
            self._outcomes.say(f"{said}: {self._why_barred(name)}")
        if not planned or not self._places.knows(store):
            return True
        try:
            self._job.anchor(store, [(rule, *planned[rule]) for rule in sorted(planned)])
        except RetainerError as error:
            said = f"{store} cannot be made to remember what is deleted there ({error.message})"
            waiting = (each for each in self._waiting(store) if not self._is_barred(each))
            self._outcomes.left(waiting, f"{said}: no deletes there")
            return False
        return True

    def _bar(self, action: Action) -> str | None:
        """The store on which this delete cannot rest; None where that is told of each action, or
        nothing is against it."""
        if self._places.why_unusable(action.store):
            return None
        names = sorted(rests_on(action))
        return next((name for name in names if self._rests_badly_on(name)), None)

    def _rests_badly_on(self, name: str) -> bool:
        return name in self._job.barred or name not in self._job.locks

    def _why_barred(self, name: str) -> str:
        error = self._places.why_unusable(name)
        reason = self._job.barred.get(name)
        return reason or (error.message if error else f"its lock was not taken ({name})")

    def _is_barred(self, action: Action) -> bool:
        """It is counted then; why, its store's sentence says."""
        if self._bar(action) is None:
            return False
        self._outcomes.left([action], None)
        return True

    # ── store by store ──────────────────────────────────────────────────────────────────────────

    def make_in(self, store: str, each: Each) -> None:
        """What is one object goes with others in a call, where that is safe; all else by itself."""
        batches = self._places.knows(store) and self._places.abilities(store).batch_delete
        together: list[Action] = []

        def units() -> Iterator[list[Action]]:
            for action in self._waiting(store):
                if self._is_barred(action) or not self._places.is_usable(action):
                    continue
                if not batches or not goes_in_a_batch(action):
                    yield [action]
                    continue
                together.append(action)
                if len(together) == BATCH:
                    yield together.copy()
                    together.clear()
            if together:
                yield together

        each(units(), self._delete_some)

    def _delete_some(self, actions: list[Action]) -> None:
        first = actions[0]
        batches = self._places.abilities(first.store).batch_delete
        if not batches or not goes_in_a_batch(first):
            self._delete(first)
            return
        with self._batches:
            self._delete_batch(actions)

    def _may_go(self, actions: Sequence[Action]) -> list[Action]:
        """Those of these deletes that no hold of this moment may cover; all of them are left once
        the plan itself is refused."""
        look = self._today()
        if look.refused:
            self._outcomes.left(actions, f"{look.refused}: no deletes")
            return []
        if braked := self._brake():
            self._outcomes.left(actions, braked)
            return []
        for action in actions:
            if reason := look.withheld.get(action.n):
                self._outcomes.skipped(action, reason, is_odd=False)
        return [action for action in actions if action.n not in look.withheld]

    def _brake(self) -> str | None:
        """The brake's sentence, as it was when it was pulled: it is told once."""
        self._braked = self._braked or self._outcomes.brake()
        return self._braked

    def _is_safe(
        self, action: Action, *, seen: Mapping[str, Mapping[str, Seen]] = MappingProxyType({})
    ) -> bool:
        """Whether every store that a delete rests on is still held, and its witnesses are as the
        plan saw them. `seen`: what was seen just now."""
        places = sorted(rests_on(action))
        if self._places.is_resting(action, places):
            return False
        try:
            self._places.check(*places)
            store = self._job.stores[action.store]
            reason = missing_witness(action, self._job.stores, seen) or not_in_doubt(action, store)
            if not reason and action.store in self._job.reported:
                reason = not_as_reported(action, store)
        except RetainerError as error:
            if not self._places.refused(action, places, error):
                self._outcomes.failed(action, error.message, error.hint)
            return False
        self._places.answered(*rests_on(action) - {action.store})  # a look there is no delete
        if reason:
            self._outcomes.skipped(action, reason)
        return reason is None

    def _still_holds(self, action: Action) -> bool:
        return self._places.still_holds(action, rests_on(action))

    def _intend(self, actions: Sequence[Action]) -> None:
        acts = [
            {
                "row": action.n,
                "asset": action.asset_id,
                "rule": action.rule,
                "asked_by": self._job.asking.get(action.rule, (None, None))[0],
                "bytes": action.size,
                "objects": [[each.key, each.size, each.version] for each in action.objects],
            }
            | _versions_of(action)
            for action in actions
        ]
        self._job.journal.write(
            "intent",
            act="delete",
            rows=[action.n for action in actions],
            store=actions[0].store,
            acts=acts,
        )

    def _delete(self, action: Action) -> None:
        self._places.check()
        if not self._may_go([action]) or not self._is_safe(action):
            return
        self._intend([action])
        outcomes: list[Deletion] = []
        removed: Counter[str] = Counter()
        try:
            delete_one(
                action,
                self._job.stores[action.store],
                outcomes,
                lambda: self._places.check(*rests_on(action)),
                removed,
            )
        except Stopped:
            if outcomes:
                self._settle([(action, outcomes)], partial=True, removed=removed)
            raise
        except RetainerError as error:
            self._settle_unknown(action, error, removed)
            return
        self._settle([(action, outcomes)], removed=removed)

    def _delete_batch(self, actions: Sequence[Action]) -> None:
        self._places.check()
        actions = self._may_go(actions)
        is_safe = partial(self._is_safe, seen=seen_together(actions, self._job.stores))
        with ThreadPoolExecutor(self._job.workers) as pool:
            safe = [
                action
                for action, yes in zip(actions, pool.map(is_safe, actions), strict=True)
                if yes
            ]
        self._places.check()
        safe = [each for each in self._may_go(safe) if self._still_holds(each)]
        if not safe:
            return
        self._intend(safe)
        self._places.check()
        safe = [each for each in safe if self._still_holds(each)]  # the disk may have been slow
        if not safe:
            return
        objects: list[Seen] = [objects_of(action)[0] for action in safe]
        try:
            outcomes = self._job.stores[safe[0].store].delete_batch(objects)
        except RetainerError as error:
            for action in safe:
                self._settle_unknown(action, error)
            return
        both = list(zip(safe, outcomes, strict=True))
        ended = [(each, [said]) for each, said in both if not isinstance(said, StoreFailure)]
        if ended:
            self._settle(ended)
        troubles = [(each, said) for each, said in both if isinstance(said, StoreFailure)]
        for action, trouble in troubles:
            self._settle_unknown(action, _as_error(action, trouble))
            if ended:
                self._places.answered(action.store)  # it does what it is asked, but for these

    # ── what became of it ───────────────────────────────────────────────────────────────────────

    def _settle(
        self,
        ended: Sequence[tuple[Action, Sequence[Deletion]]],
        *,
        partial: bool = False,
        removed: Mapping[str, int] = NONE_REMOVED,
    ) -> None:
        """What became of deletes in one store. `partial`: some objects are still to be deleted;
        `removed`: so many versions of each object went for good."""
        store = ended[0][0].store
        weak = not self._places.abilities(store).delete
        self._outcomes.deleted(ended, weak=weak, partial=partial, removed=removed)
        self._places.answered(store)

    def _settle_unknown(
        self, action: Action, error: RetainerError, removed: Mapping[str, int] = NONE_REMOVED
    ) -> None:
        """A delete without an answer: what lies there tells whether it was done; where that cannot
        be seen, it stays open in the journal."""
        refused = isinstance(error, StoreRefused | CredentialsRefused | LockLost)
        gone: list[str] = []
        try:
            store = self._job.stores[action.store]
            if not refused and action.versions:
                left = versions_of(store, [each.key for each in action.objects])
                gone = [key for key, versions in left.items() if not versions]
            elif not refused:
                gone = [each.key for each in action.objects if store.look(each.key) is None]
        except RetainerError:
            self._outcomes.failed(action, error.message, error.hint, unknown=True)
            return
        if gone:
            outcomes = [
                Deletion.DELETED if each.key in gone else Deletion.CHANGED
                for each in action.objects
            ]
            some = len(gone) < len(action.objects)
            self._settle([(action, outcomes)], partial=some, removed=removed)
            if len(gone) == len(action.objects):
                return
        if not self._places.refused(action, sorted(rests_on(action)), error):
            unknown = refused and len(action.objects) > 1
            cause = and_removed(error.message, removed)
            self._outcomes.failed(action, cause, error.hint, unknown=unknown)


def goes_in_a_batch(action: Action) -> bool:
    """Whether it is one call, and one that can be made with others."""
    return len(action.objects) == 1 and not action.versions


def _versions_of(action: Action) -> dict[str, Any]:
    """What an announcement says of versions, where those are to go."""
    if not action.versions:
        return {}
    listed = [[each.seen.key, each.id, each.seen.size] for each in action.versions]
    return {"versions": listed, "versions_by": action.versions_by}


def _as_error(action: Action, failure: StoreFailure) -> RetainerError:
    if failure.refused:
        return StoreRefused(failure.message, store=action.store)
    return StoreFailed(failure.message)
