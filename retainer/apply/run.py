"""Carry out a plan: copies by deadline, then deletes, then locks. It may do less than the plan
says, never more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from retainer.apply.copies import Copies
from retainer.apply.deletes import Deletes
from retainer.apply.job import Elsewhere, Job
from retainer.apply.locks import Locks
from retainer.apply.outcomes import Outcomes
from retainer.apply.places import Places
from retainer.model.outcome import Summary
from retainer.planfile import Action
from retainer.stop import Stopped

Unit = TypeVar("Unit", Action, list[Action])


class Run:
    """One run of a job. `lost` may be called from any thread; `job.stop` ends it, from a signal
    handler too."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.outcomes = Outcomes(job)
        self.places = Places(job, self.outcomes)
        self._copies = Copies(job, self.places, self.outcomes)
        self._locks = Locks(job, self.places, self.outcomes)
        self._deletes = Deletes(job, self.places, self.outcomes)

    @property
    def summary(self) -> Summary:
        return self.outcomes.summary

    def lost(self, store: str) -> None:
        """The lock of a store was lost: what rests on it ends, and the rest goes on."""
        self.places.lost(store)

    def go(self, elsewhere: Elsewhere | None = None) -> Summary:
        """Copies, then the catalog, then deletes, then locks. Whatever ends it, what was done is in
        the journal and the catalog. `elsewhere`: who makes the copies and deletes, where that is
        not this machine."""
        plan, approved = self.job.plan, self.job.deletes_approved
        try:
            deleted_in = plan.deleted_in.keys() if approved else frozenset[str]()
            rested_on = plan.rested_on if approved else frozenset[str]()
            self.places.prove(plan.written_to | deleted_in | rested_on, deleted_in)
            self._copies.take_up()
            if self.job.restore:
                self._each(plan.restores(), self._copies.restore)
            if elsewhere is None:
                for copies in self._copies.passes():
                    self._each(copies, self._copies.make)
            else:
                self.outcomes.write_parts(everything=True)  # by it others know what is made
                elsewhere.copies()
            self.outcomes.write_parts(everything=True)
            if approved:
                here = partial(self._deletes.make_in, each=self._each)
                self._deletes.make(elsewhere.deletes if elsewhere else here)
            else:
                self.summary.left_deletes = self._deletes.left
            self._locks.make(self._each)
        except Stopped:
            self.summary.interrupted = True
        finally:
            self._copies.tell_waiting()
            self.outcomes.write_parts(everything=True)
            self.places.tell_abilities()
        return self.summary

    def _each(self, units: Iterable[Unit], act: Callable[[Unit], None]) -> None:
        """Act on each in order, many at a time; on a stop no new one begins, and those under way
        end first."""
        broken: list[BaseException] = []
        free = threading.Semaphore(self.job.workers * 2)

        def watched(unit: Unit) -> None:
            try:
                for action in unit if isinstance(unit, list) else [unit]:
                    self.outcomes.watcher.began(action)
                act(unit)
            except BaseException as error:
                broken.append(error)
                self.places.halt()
            finally:
                free.release()

        with ThreadPoolExecutor(self.job.workers) as pool:
            try:
                for unit in units:
                    free.acquire()
                    self.places.check()
                    pool.submit(watched, unit)
            except BaseException as error:
                broken.append(error)
                self.places.halt()
        if broken:
            raise broken[0]
