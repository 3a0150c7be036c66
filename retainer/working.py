"""A share of a plan, made by a worker: it reads the plan itself, with its own rights, and goes by
what the run leaves for it in the state."""

from __future__ import annotations

import os
import threading
import time
import uuid
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from retainer import wiring
from retainer.apply.job import Job, Recheck
from retainer.apply.run import Run
from retainer.apply.settle import settle
from retainer.applying import Prepared, Records, of_the_plan, prepare, withheld
from retainer.errors import CredentialsRefused, Locked, PoliciesWrong, RetainerError, StoreFailed
from retainer.journal.backend import APPLIED
from retainer.journal.journal import Journal, read_ledger
from retainer.journal.ledger import Done
from retainer.journal.lock import SeenLock
from retainer.journal.shards import BEGUN, ENDED, GOING, OVER, Brief, Heard, Shards
from retainer.journal.shared import SharedBackend
from retainer.model.moment import read_moment
from retainer.model.rule import Policies
from retainer.model.setting import HOSTED, Settings
from retainer.model.shard import Shard, ShardAct, Told
from retainer.own import identity_in, must_be
from retainer.patience import Patience
from retainer.planfile import Action, assets_copied
from retainer.ports import Downloads, StoreWriter
from retainer.private import keep_private_in, private_file
from retainer.spreading import made_with, shard_rows
from retainer.stop import Stop, Stopped
from retainer.workplace import must_be_alike, project_here, told_from_here

PATIENCE = timedelta(seconds=60)
"""A worker tries one call again for so long; `journal.shards.OVER` counts on it."""
TELL_EVERY = 0.5
"""Seconds between two words of how far a share is."""
GOING_EVERY = 15.0
"""Seconds after which an attempt that is in the middle of an act finds out whether the share is its
own still."""
Permit = Callable[[str, int], AbstractContextManager[object]]
"""Holds one of so many leases of this name, over all workers."""


def work(told: Mapping[str, Any], root: Path, tell: Callable[[Told], None], permit: Permit) -> None:
    """Make a share, or find that it was made. `root`: where the worker's project lies, or below it.

    Raises PlanRefused, PoliciesWrong for what stands against every share here, and StoreFailed
    where another attempt may do better.
    """
    must_be_alike(told, made_with())
    shard = Shard.read(told)
    try:
        _bench_of(shard, root).make(shard, tell, permit)
    except Stopped:
        raise StoreFailed("the run was over, or silent, before this share was made") from None
    except Locked:
        raise StoreFailed("another machine goes on with this share") from None
    except RetainerError as error:
        raise told_from_here(error) from None


_benches: dict[str, _Bench] = {}
_guard = threading.Lock()


def _bench_of(shard: Shard, root: Path) -> _Bench:
    """What this process has for a run; made anew where it was told to stop, or another run came."""
    with _guard:
        bench = _benches.get(shard.run)
        if bench is None or bench.stop.is_asked:
            bench = _bench(shard, root)
            for other in _benches.values():
                other.close()
            _benches.clear()
            _benches[shard.run] = bench
        return bench


def _bench(shard: Shard, root: Path) -> _Bench:
    """Raises RetainerError."""
    settings, policies, found = project_here(root)
    folder = found / settings.state
    keep_private_in(folder)
    patience = wiring.patience_of(PATIENCE, Stop())
    state = wiring.open_backend(settings, folder, Stop(), patience)
    if not isinstance(state, SharedBackend):
        raise PoliciesWrong(
            "its `state:` is a folder of its own",
            hint="it must be the store that the run has its record in",
        )
    shards = Shards(state, shard.run)
    brief = shards.brief()
    if brief.source != settings.source.url:
        raise PoliciesWrong(
            "its `source.url` is another one", hint="give it the same retainer.yaml"
        )
    stop = Heard(state.store, shard.run)
    try:
        return _bench_for(shard, settings, policies, shards, brief, stop)
    except BaseException:
        stop.ask()
        raise


def _bench_for(
    shard: Shard, settings: Settings, policies: Policies, shards: Shards, brief: Brief, stop: Heard
) -> _Bench:
    """Raises RetainerError."""
    state = shards.state
    path = private_file(".plan")
    began = read_moment(brief.began)
    if began is None or not state.fetch(f"{APPLIED}{shard.plan}.plan", path):
        raise StoreFailed(f"the state does not have the plan {shard.plan[:12]}")
    ledger = read_ledger(state)
    try:
        prepared = prepare(path, settings, policies, began, shard.plan, ledger)
    finally:
        path.unlink()
    capped = replace(
        settings,
        stores=tuple(
            replace(each, concurrency=brief.calls(each.concurrency)) if each.concurrency else each
            for each in settings.stores
        ),
        source=replace(settings.source, concurrency=brief.calls(settings.source.concurrency)),
    )
    patient = wiring.patience_of(PATIENCE, stop)
    _same_workspace(capped, prepared.plan.header.customer, stop, patient)
    stores = wiring.open_stores(capped, frozenset(), stop, patient)
    unusable = {name: RetainerError(why) for name, why in brief.unusable.items()}
    proven = ledger.proven_lately(_now(), version("retainer"))
    for name, store in stores.items():
        if name not in unusable and name in prepared.stores_needed:
            store.conditions().recall(proven.get(settings.places[name], {}))
            found = identity_in(store)
            must_be(name, found[1] if found else None, brief.identities.get(name))
    locks = {
        name: SeenLock(stores[name].impatient(), shard.run)
        for name in brief.locked
        if name in stores
    }
    for name in brief.locked:
        if name not in locks or not locks[name].holds:
            raise StoreFailed(f"the run's lock of {name} cannot be seen from here")
    return _Bench(
        settings,
        policies,
        prepared,
        shards,
        brief,
        stop,
        ledger.done(shard.plan),
        stores,
        unusable,
        locks,
        wiring.open_downloads(capped, stop, patient),
    )


def _same_workspace(
    settings: Settings, customer: str | None, stop: Stop, patience: Patience
) -> None:
    """Raises PoliciesWrong where 100ms tells of another workspace here: it would have nothing of
    what is to be copied, and that would pass for lost."""
    with suppress(CredentialsRefused):
        told = wiring.open_api(settings, stop, patience).customer()
        if told and customer and told != customer:
            raise PoliciesWrong(
                f"its credentials for 100ms are of another workspace ({told}, not {customer})"
            )


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class _Bench:
    """What a worker has for one run."""

    settings: Settings
    policies: Policies
    """As they lie here: a hold that only this checkout has withholds deletes, too."""
    prepared: Prepared
    shards: Shards
    brief: Brief
    stop: Heard
    before: Done
    stores: Mapping[str, StoreWriter]
    unusable: Mapping[str, RetainerError]
    locks: Mapping[str, SeenLock]
    downloads: tuple[Downloads, Downloads]
    orders: dict[tuple[ShardAct, str], array[int]] = field(default_factory=dict)
    """The rows in the order in which shares are cut from them."""
    ordering: threading.Lock = field(default_factory=threading.Lock)

    @cached_property
    def held_here(self) -> Mapping[int, str]:
        """The deletes that this checkout withholds."""
        return withheld(self.prepared, self.policies, _now())

    def close(self) -> None:
        self.stop.ask()
        self.prepared.plan.connection.close()
        self.prepared.plan.copy.unlink(missing_ok=True)

    def make(self, shard: Shard, tell: Callable[[Told], None], permit: Permit) -> None:
        """Raises RetainerError, Stopped."""
        if shard.act == "copy":
            self._must_have_credentials(shard)
        attempt = uuid.uuid4().hex[:12]
        journal = Journal(self.shards.record(shard.name), attempt, shard.plan, _now)
        with closing(journal), ExitStack() as permits:
            if journal.ledger().lines and self._has_ended(shard):
                return
            for store in self.settings.stores:  # in one order, so that none waits for another
                if store.concurrency:
                    leases = store.concurrency // self.brief.calls(store.concurrency)
                    permits.enter_context(permit(store.name, leases))
            journal.write(BEGUN, host=os.uname().nodename)
            if journal.ledger().intents:
                self._wait_for_others(journal)
            self.stop.look()
            if shard.act == "delete" and not self.stop.word.is_deleting:
                raise StoreFailed("the run says that no delete is due yet")
            share = _Share(self.prepared, shard, self._rows(shard))
            with closing(self._records(share)) as records:
                job, said = self._job(share, journal, tell, records)
                run = Run(job)
                run.summary.said += said
                summary = run.go()
            if summary.interrupted and not self.stop.word.ends:
                raise StoreFailed("the run was silent for too long", hint="is the state reachable?")
            odd, good = run.outcomes.tried
            told = {"odd": odd, "good": good, "nameless": records.nameless}
            journal.write(ENDED, summary=summary.written(), **told)

    def _must_have_credentials(self, shard: Shard) -> None:
        """Raises StoreFailed where there are none that a share needs: another worker may have
        some, and the run would end where 100ms refuses."""
        try:
            wiring.credentials()
        except CredentialsRefused as error:
            if self._asks_100ms(shard):
                hint = "start it with HMS_… in its environment"
                raise StoreFailed(error.message, hint=hint) from None

    def _asks_100ms(self, shard: Shard) -> bool:
        """Whether some copy of a share is read from 100ms."""
        cursor = self.prepared.plan.connection.cursor()
        return bool(
            cursor.execute(
                "SELECT 1 FROM numbered WHERE n IN (SELECT unnest($rows::INTEGER[])) "
                "AND action->>'$.origin' IS NULL LIMIT 1",
                {"rows": sorted(self._rows(shard))},
            ).fetchall()
        )

    def _has_ended(self, shard: Shard) -> bool:
        """By an attempt that was believed dead, or since the run took it in."""
        fenced, told = self.shards.ending(shard.name)
        return fenced or told is not None

    def _wait_for_others(self, journal: Journal) -> None:
        """Until what an attempt before has announced can be on its way no more."""
        until = time.monotonic() + OVER.total_seconds()
        while time.monotonic() < until:
            self.stop.wait(min(GOING_EVERY, OVER.total_seconds()))
            journal.write(GOING)

    def _rows(self, shard: Shard) -> Collection[int]:
        with self.ordering:
            key = shard.act, shard.store
            if key not in self.orders:
                self.orders[key] = shard_rows(self.prepared.plan, shard.act, shard.store)
            return frozenset(self.orders[key][shard.first : shard.first + shard.count])

    def _records(self, share: _Share) -> Records:
        copied = share.rows if share.shard.act == "copy" else ()
        facts = self.shards.state.folder / "facts.duckdb"
        coming = assets_copied(self.prepared.plan, copied)
        return Records(facts, self.settings, coming, self.downloads[0])

    def _job(
        self, share: _Share, journal: Journal, tell: Callable[[Told], None], records: Records
    ) -> tuple[Job, tuple[str, ...]]:
        """And what is to be said of earlier attempts."""
        plan, shard, rows = self.prepared.plan, share.shard, share.rows
        earlier, stop = journal.ledger(), _Attempt(self.stop, journal)
        settled = settle(
            earlier.open_intents(),
            earlier.left_over(),
            {name: self.stores[name] for name in self.locks},
            journal,
            _now(),
            stop.check,
            {item.id for item in plan.header.items if item.kind == "erasure"},
            alone=False,
        )
        before = _Before(self.before, journal.ledger().done(shard.plan), rows)
        downloads, hasty = self.downloads
        job = Job(
            **of_the_plan(plan.header),
            plan=share,
            stores=self.stores,
            downloads=downloads,
            hasty_downloads=hasty,
            record_of=records,
            journal=journal,
            clock=_now,
            clocks={HOSTED: wiring.clock_of_100ms(self.settings)}
            | {name: store.server_time for name, store in self.stores.items()},
            watcher=_Counting(shard.name, tell),
            deletes_approved=shard.act == "delete",
            outdated=lambda: None,
            recheck=lambda: Recheck(
                self.stop.word.refused, {**self.held_here, **self.stop.word.withheld}
            ),
            locks=self.locks,
            barred=self.brief.barred,
            unlocked=self.unusable,
            anchor=None,
            stop=stop,
            restore=self.brief.restore,
            before=before,
            settled=settled.entries,
            identities=self.brief.identities,
            places=self.settings.places,
            look_every=timedelta(0),
            workers=self.brief.workers,
        )
        return job, settled.said


class _Attempt(Stop):
    """The end of one attempt at a share: that of its run, or that another one has taken over."""

    def __init__(self, run: Heard, journal: Journal) -> None:
        super().__init__()
        self._run, self._journal = run, journal
        self._guard = threading.Lock()
        self._told = time.monotonic()

    @property
    def is_asked(self) -> bool:
        return super().is_asked or self._run.is_asked

    def check(self) -> None:
        self._run.check()
        super().check()
        with self._guard:
            if time.monotonic() - self._told < GOING_EVERY:
                return
            self._told = time.monotonic()
        try:
            self._journal.write(GOING)
        except Locked:
            self.ask()
            raise Stopped from None

    def wait(self, seconds: float) -> None:
        self._run.wait(seconds)
        self.check()

    def pause(self, seconds: float) -> bool:
        return self._run.pause(seconds) or self.is_asked


@dataclass(frozen=True)
class _Share:
    """`apply.job.Actions`: those of a plan that a share is of."""

    whole: Prepared
    shard: Shard
    rows: Collection[int]

    def copies(self, only: Collection[int] | None = None) -> Iterator[Action]:
        if self.shard.act != "copy":
            return iter(())
        return self.whole.copies(self.rows if only is None else only)

    def restores(self) -> Iterator[Action]:
        return iter(())

    def locks(self) -> Iterator[Action]:
        return iter(())

    def deletes(self, store: str) -> Iterator[Action]:
        return self.whole.deletes(store, self.rows)

    @property
    def locked_in(self) -> frozenset[str]:
        return frozenset()

    @property
    def written_to(self) -> frozenset[str]:
        return self.whole.copied_to if self.shard.act == "copy" else frozenset()

    @property
    def deleted_in(self) -> Mapping[str, int]:
        return {self.shard.store: len(self.rows)} if self.shard.act == "delete" else {}

    @property
    def rested_on(self) -> frozenset[str]:
        return self.whole.rested_on if self.shard.act == "delete" else frozenset()


class _Before:
    """`apply.job.Before`: what earlier runs, and earlier attempts at this share, have done."""

    def __init__(self, runs: Done, attempts: Done, rows: Collection[int]) -> None:
        self._both = (attempts, runs)
        self.uncatalogued = {
            row: record for row, record in attempts.uncatalogued.items() if row in rows
        }
        self.deleted = frozenset(
            row for row in rows if row in attempts.deleted or row in runs.deleted
        )

    def was_made(self, row: int) -> bool:
        return any(done.was_made(row) for done in self._both)

    def is_as_made(self, row: int, key: str, size: int, version: str) -> bool:
        return any(done.is_as_made(row, key, size, version) for done in self._both)


class _Counting:
    """`apply.job.Watcher` that tells every half second how far it is."""

    def __init__(self, shard: str, tell: Callable[[Told], None]) -> None:
        self._shard, self._tell = shard, tell
        self._guard = threading.Lock()
        self._ended = self._failed = self._bytes = 0
        self._told = time.monotonic()

    def began(self, action: Action) -> None:
        return

    def bytes(self, count: int) -> None:
        self._add(0, 0, count)

    def ended(self, action: Action, outcome: str, sentence: str | None) -> None:
        self._add(1, outcome == "failed", 0)

    def elsewhere(self, ended: int, failed: int, size: int) -> None:
        self._add(ended, failed, size)

    def _add(self, ended: int, failed: int, size: int) -> None:
        with self._guard:
            self._ended += ended
            self._failed += failed
            self._bytes += size
            now = time.monotonic()
            if now - self._told < TELL_EVERY:
                return
            self._told = now
            told = Told(self._shard, self._ended, self._failed, self._bytes)
        self._tell(told)
