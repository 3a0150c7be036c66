"""Carry out a plan: copies by deadline, then deletes. It may do less than the plan says, never
more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from retainer.apply.copied import Changed, Copied, Partial, Task, Written
from retainer.apply.copy import copy_one
from retainer.apply.delete import BATCH, delete_one, missing_witness, objects_of, rests_on
from retainer.apply.manifest import read_manifest
from retainer.apply.record import entries_of, entry_of, members_of, write_part
from retainer.errors import (
    Archived,
    CredentialsRefused,
    KeyTaken,
    RetainerError,
    SourceFailed,
    SourceGone,
    SourceRefused,
    StoreFailed,
    StoreRefused,
    TooSlow,
)
from retainer.model.outcome import Resting, Summary, Trouble
from retainer.model.setting import HOSTED
from retainer.planfile import Action
from retainer.ports import (
    Abilities,
    Checksum,
    Deletion,
    Downloads,
    Look,
    Seen,
    StoreFailure,
    StoreWriter,
)
from retainer.stop import Stop, Stopped

WORKERS = 32
"""So many actions at once; each server then takes as many calls as it takes (stores/wire.py)."""
PART_ROWS = 200
PART_AGE = timedelta(seconds=60)
TRIES = 3
REFUSALS = 3
"""After so many refusals in a row nothing more is asked of a place in this run."""
SKEW = timedelta(minutes=5)
LOOK_EVERY = timedelta(seconds=10)
"""Policies are looked at again while deletes go on, at most so often: a hold may have been
added."""


class Record(Protocol):
    """The journal, as a run writes to it. An entry is on disk when `write` returns."""

    def write(self, event: str, **particulars: Any) -> None: ...


class Watcher(Protocol):
    """Told how a run goes on, for a progress display."""

    def began(self, action: Action) -> None: ...
    def bytes(self, count: int) -> None: ...
    def ended(self, action: Action, outcome: str, sentence: str | None) -> None: ...


class Lock(Protocol):
    """The lock of one store, as a run asks for it."""

    @property
    def holds(self) -> bool:
        """Whether nobody else can have it, at this moment."""


class _Quietly:
    """A watcher whose troubles (a closed pipe, a full disk below a log) never reach the run."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def began(self, action: Action) -> None:
        with suppress(Exception):
            self._watcher.began(action)

    def bytes(self, count: int) -> None:
        with suppress(Exception):
            self._watcher.bytes(count)

    def ended(self, action: Action, outcome: str, sentence: str | None) -> None:
        with suppress(Exception):
            self._watcher.ended(action, outcome, sentence)


class LockLost(RetainerError):
    """Somebody may have taken this run for dead: nothing more is done in that store."""


@dataclass(frozen=True, slots=True)
class Recheck:
    """What a last look before the deletes found: why none may run (None: they may), and rows that
    are withheld, with the words."""

    refused: str | None
    withheld: Mapping[int, str]


@dataclass(frozen=True)
class Job:
    """Everything a run works with."""

    copies: Sequence[Action]
    deletes: Sequence[Action]
    restores: Sequence[Action]
    stores: Mapping[str, StoreWriter]
    downloads: Downloads
    record_of: Callable[[Action], dict[str, Any]]
    journal: Record
    clock: Callable[[], datetime]
    clocks: Mapping[str, Callable[[], datetime]]
    """Whose clocks ours is compared with before anything is deleted: 100ms's, and each store's by
    its name."""
    watcher: Watcher
    deletes_approved: bool
    recheck: Callable[[], Recheck]
    """Asked once the copies are made, which may be hours after the start, and again while deletes
    go on."""
    locks: Mapping[str, Lock]
    """Of the stores in which a lock was taken."""
    barred: Mapping[str, str]
    """Stores on which no delete may rest, and why, in words."""
    unlocked: Mapping[str, RetainerError]
    """Stores that cannot be used, and why: nothing is changed there."""
    anchor: Callable[[str, Sequence[tuple[str, int, int]]], None]
    """Lets a store remember, before anything is deleted there, what is about to be: rule, count,
    bytes. Raises StoreFailed."""
    stop: Stop
    restore: bool
    """Whether what is archived is asked to be restored."""
    copied_before: Mapping[int, dict[str, Any]]
    catalogued_before: frozenset[int]
    deleted_before: frozenset[int]
    settled: Sequence[dict[str, Any]]
    """The catalog's entries of what earlier runs deleted without being told."""
    identities: Mapping[str, str]
    """The identity of each store whose is known; the catalog's entries carry it."""
    places: Mapping[str, str] = field(default_factory=dict)
    """Where each store lies (`Store.place`)."""
    workers: int = WORKERS


class Run:
    """One run of a job. `lost` may be called from any thread; `job.stop` ends it, from a signal
    handler too."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.summary = Summary()
        self._watcher = _Quietly(job.watcher)
        self._halted = threading.Event()
        self._guard = threading.Lock()
        self._looking = threading.Lock()
        self._uncatalogued: dict[str, list[tuple[int, dict[str, Any]]]] = {}
        self._oldest = job.clock()
        self._conditions: dict[str, Abilities] = {}
        self._told: dict[str, Mapping[str, bool]] = {}
        self._taken_up: set[int] = set()
        self._last_look = Recheck(None, {})
        self._looked_at: datetime | None = None
        self._refusals: dict[str, int] = {}
        self._unusable: dict[str, RetainerError] = dict(job.unlocked)
        for entry in job.settled:
            self._uncatalogued.setdefault(entry["store"], []).append((-1, entry))

    def lost(self, store: str) -> None:
        """The lock of a store was lost: what rests on it ends, and the rest goes on."""
        self.summary.lost_lock = True
        self._rest(
            store,
            f"the lock of {store} was lost, or could not be renewed in time",
            "run it again",
            credentials=False,
        )

    def _check(self, *stores: str) -> None:
        """Raises Stopped when the run must end, and LockLost where somebody may have taken the lock
        of one of these stores."""
        self.job.stop.check()
        if self._halted.is_set():
            raise Stopped
        for name in stores:
            if name in self.job.locks and not self.job.locks[name].holds:
                self.lost(name)
                raise LockLost(
                    f"the lock of {name} was lost, or could not be renewed in time",
                    hint="run it again",
                )

    def go(self) -> Summary:
        """Copies, then the catalog, then deletes. Whatever ends it, what was done is in the journal
        and the catalog."""
        try:
            self._prove()
            self._take_up_copies()
            self._each(self.job.restores, self._restore)
            self._each(self.job.copies, self._copy)
            self._write_parts(everything=True)
            if self.job.deletes_approved:
                self._delete_all()
            else:
                self.summary.left_deletes = sum(
                    action.n not in self.job.deleted_before for action in self.job.deletes
                )
        except Stopped:
            self.summary.interrupted = True
        finally:
            self._write_parts(everything=True)
            for store in self._conditions:
                self._tell_abilities(store)
        return self.summary

    def _prove(self) -> None:
        """Find out what each store honours."""
        witnesses = (
            {each.store for action in self.job.deletes for each in action.witnesses}
            if self.job.deletes_approved
            else set()
        )
        deleted_from = {each.store for each in self.job.deletes if self.job.deletes_approved}
        for name in sorted({each.store for each in self.job.copies} | deleted_from | witnesses):
            if name not in self.job.stores or name in self._unusable:
                continue
            self._check()
            try:
                found = self.job.stores[name].conditions()
                found.find_out("create")
                if name in deleted_from:
                    found.find_out("delete")
            except RetainerError as error:
                # One store that cannot be used must not keep another one's copies from being made.
                self._unusable[name] = error
                continue
            self._conditions[name] = found
            self._tell_abilities(name)

    def _tell_abilities(self, store: str) -> None:
        """Write down what a store honours, where that is news: what rests on less is known by it,
        and the next run of the day need not find it out again."""
        known = self._conditions[store].known
        if known != self._told.get(store):
            self._told[store] = known
            place = self.job.places.get(store, "")
            self.job.journal.write("conditions", store=store, place=place, **known)

    def _clock_is_off(self, stores: Collection[str]) -> str | None:
        """Why this machine's clock cannot be trusted with deletes that rest on these stores;
        100ms's is always asked."""
        for name, time_of in self.job.clocks.items():
            if name != HOSTED and name not in stores:
                continue
            whose = "100ms" if name == HOSTED else name
            try:
                off = time_of() - self.job.clock()
            except RetainerError as error:
                return f"the time of {whose} is not known ({error.message})"
            if abs(off) > SKEW:
                return (
                    f"this machine's clock is {abs(off).total_seconds() / 60:.0f} minutes off "
                    f"that of {whose}"
                )
        return None

    # ── places that refuse ────────────────────────────────────────────────────────────────────────

    def _rest(self, place: str, cause: str, hint: str | None, *, credentials: bool) -> None:
        with self._guard:
            self.summary.resting.setdefault(place, Resting(cause, hint, credentials))

    def _is_resting(self, action: Action, places: Iterable[str]) -> bool:
        """Whether one of the places that an action needs is left alone by now; it is counted
        there."""
        with self._guard:
            found = next((place for place in places if place in self.summary.resting), None)
            if found is not None:
                self.summary.resting[found].actions += 1
        if found is not None:
            self._watcher.ended(action, "resting", None)
        return found is not None

    def _refused(self, action: Action, places: Sequence[str], error: RetainerError) -> bool:
        """Whether an error is a refusal that will be repeated; after a few of them, or one of
        credentials, its place rests."""
        if isinstance(error, CredentialsRefused):
            self._rest(error.store or HOSTED, error.message, error.hint, credentials=True)
            return self._is_resting(action, [error.store or HOSTED])
        if isinstance(error, StoreRefused):
            with self._guard:
                count = self._refusals[error.store] = self._refusals.get(error.store, 0) + 1
            if count >= REFUSALS:
                self._rest(error.store, error.message, error.hint, credentials=False)
        return isinstance(error, LockLost) and self._is_resting(action, places)

    # ── copies ────────────────────────────────────────────────────────────────────────────────────

    def _take_up_copies(self) -> None:
        """Copies that an earlier run verified, but could not catalog before it died: looked at once
        more, then recorded."""
        for action in self.job.copies:
            record = self.job.copied_before.get(action.n)
            if record is None or action.n in self.job.catalogued_before:
                continue
            look = self._still_as_recorded(action)
            try:
                members = self._members_of(action, look) if look and record.get("members") else ()
            except RetainerError:
                continue  # it is partial: the next plan repairs it
            if look is not None:
                whole = Copied(Written(look, Checksum.found_in(record), record["sha256"]), members)
                _, rows = entries_of(action.store, whole, action.asset_id, self.job.clock())
                self._to_catalog(
                    action, self.job.record_of(action) | made_of(action) | record, rows
                )
                self._taken_up.add(action.n)

    def _members_of(self, action: Action, manifest: Look) -> tuple[Written, ...]:
        store = self.job.stores[action.store]
        return members_of(
            store, action.target or "", read_manifest(b"".join(store.read(manifest.seen)))
        )

    def _is_usable(self, action: Action) -> bool:
        """Whether the store of an action can be used at all; otherwise the action has failed."""
        if action.store in self._conditions:
            return True
        error = self._unusable.get(action.store)
        self._failed(
            action,
            error.message if error else f"the store {action.store} cannot be opened",
            error.hint if error else None,
        )
        return False

    def _copy(self, action: Action) -> None:
        places = [action.store, action.source if action.origin and action.source else HOSTED]
        if self._is_resting(action, places) or not self._is_usable(action):
            return
        if (
            action.n in self.job.catalogued_before | self._taken_up
            and action.n in self.job.copied_before
            and self._still_as_recorded(action)
        ):
            with self._guard:
                self.summary.already += 1
            self._watcher.ended(action, "already", None)
            return
        if not self._conditions[action.store].create:
            self._failed(
                action,
                f"{action.store} honours no conditional create, so a copy could overwrite "
                "something",
                "use another store",
            )
            return
        source = self.job.stores.get(action.source or "")
        if action.origin and source is None:
            self._failed(
                action, f"the store {action.source} it should be copied from cannot be opened", None
            )
            return
        record = self.job.record_of(action) | made_of(action)
        self.job.journal.write(
            "intent",
            act="copy",
            rows=[action.n],
            asset=action.asset_id,
            store=action.store,
            key=action.target,
        )

        def begun(key: str, upload: str) -> None:
            self.job.journal.write(
                "upload", row=action.n, store=action.store, key=key, upload=upload
            )

        task = Task(
            action,
            self.job.stores[action.store],
            source if action.origin else None,
            self.job.downloads,
            record,
            self._watcher.bytes,
            lambda: self._check(action.store),
            begun,
        )
        for attempt in range(1, TRIES + 1):
            try:
                self._check(action.store)
                copied = copy_one(task)
            except Changed as error:
                with self._guard:
                    self.summary.changed_copies += 1
                self._skipped(action, f"{error}; make a new plan")
            except (SourceGone, SourceRefused, TooSlow, KeyTaken) as error:
                hint = (
                    "nothing can bring it back from there"
                    if isinstance(error, SourceGone)
                    else error.hint
                )
                self._failed(action, error.message, hint)
            except Partial as error:
                entry = entry_of(action.store, error.written, self.job.clock()) | {
                    "asset_id": action.asset_id,
                    "broken": True,
                }
                self._to_catalog(action, dict(record) | entry, ())
                self._failed(action, error.message, error.hint)
            except Archived as error:
                # Of some classes a listing does not say it (the archive tiers of
                # INTELLIGENT_TIERING): only the read does.
                if self.job.restore and action.origin and error.store == action.source:
                    self._restore(action, unseen=True)
                else:
                    self._failed(action, error.message, error.hint)
            except RetainerError as error:
                if self._refused(action, places, error):
                    return
                if (
                    isinstance(error, SourceFailed | StoreFailed)
                    and not isinstance(error, StoreRefused)
                    and attempt < TRIES
                ):
                    self._pause(attempt)
                    continue
                self._failed(action, error.message, error.hint)
            except Exception as error:
                # Whatever one recording does, the others must be copied; its words may hold
                # anything, so only its kind is told.
                self._failed(action, f"an unexpected {type(error).__name__}", "please report this")
            else:
                with self._guard:
                    for place in places:
                        self._refusals.pop(place, None)
                self._copied(action, copied, record)
            return

    def _pause(self, attempt: int) -> None:
        self.job.stop.wait(min(8.0, 0.25 * 4.0**attempt))

    def _restore(self, action: Action, *, unseen: bool = False) -> None:
        """Ask for what a copy is to be read from to be restored, each object as the plan saw it."""
        source = self.job.stores.get(action.source or "")
        if source is None:
            self._failed(
                action, f"the store {action.source} it should be restored in cannot be opened", None
            )
            return
        try:
            seen: list[Seen] = []
            for planned in action.origin:
                self._check(action.store)
                look = source.look(planned.key)
                if look is None or look.seen.version != planned.version:
                    self._skipped(action, f"{action.source}:{planned.key} is not what the plan saw")
                    return
                seen.append(look.seen)
            archived = [each for each in seen if each.archived]
            if unseen and not archived:
                self._restore_some(source, seen)
            for each in archived:
                self._check(action.store)
                source.restore(each)
        except RetainerError as error:
            self._failed(action, error.message, error.hint)
            return
        self.job.journal.write(
            "restoring", row=action.n, asset=action.asset_id, store=action.source
        )
        with self._guard:
            self.summary.restored += 1
        self._watcher.ended(action, "restoring", None)

    def _restore_some(self, source: StoreWriter, seen: Sequence[Seen]) -> None:
        """Ask for all, where nothing says which are archived: those that are not refuse it. Raises
        StoreFailed where all do."""
        refused: list[StoreFailed] = []
        for each in seen:
            self.job.stop.check()
            try:
                source.restore(each)
            except StoreFailed as error:
                refused.append(error)
        if len(refused) == len(seen):
            raise refused[0]

    def _still_as_recorded(self, action: Action) -> Look | None:
        """The one object or the manifest of a copy that an earlier run made; None when it is not as
        it was."""
        record = self.job.copied_before[action.n]
        try:
            look = (
                self.job.stores[action.store].look(record["key"])
                if action.store in self._conditions
                else None
            )
        except RetainerError:
            return None
        same = look is not None and (look.seen.size, look.seen.version) == (
            record["object_size"],
            record["version"],
        )
        return look if same else None

    def _copied(self, action: Action, copied: Copied, facts: Mapping[str, Any]) -> None:
        whole, members = entries_of(action.store, copied, action.asset_id, self.job.clock())
        self.job.journal.write(
            "copied", row=action.n, asset=action.asset_id, rule=action.rule, record=whole
        )
        self._to_catalog(action, dict(facts) | whole, members)
        said = "; ".join(copied.said)
        with self._guard:
            self.summary.copied += 1
            self.summary.copied_bytes += sum(
                written.look.seen.size for written in (copied.whole, *copied.members)
            )
            if said:
                self.summary.said.append(f"{action.asset_id}: {said}")
        self._watcher.ended(action, "copied", said or None)
        self._write_parts()

    def _to_catalog(
        self, action: Action, record: dict[str, Any], members: Sequence[dict[str, Any]]
    ) -> None:
        """`record`: every fact of the asset, and the entry of the copy's one object or manifest;
        `members`: the entries of its members."""
        with self._guard:
            self._uncatalogued.setdefault(action.store, []).extend(
                (action.n, entry) for entry in (*members, record)
            )

    def _write_parts(self, *, everything: bool = False) -> None:
        """Write what was copied to the catalogs: every 200 copies, every minute, and at the end
        whatever happened."""
        with self._guard:
            late = self.job.clock() - self._oldest > PART_AGE
            ready = {
                store: rows
                for store, rows in self._uncatalogued.items()
                if rows and (everything or late or len(rows) >= PART_ROWS)
            }
            for store in ready:
                self._uncatalogued[store] = []
            if ready:
                self._oldest = self.job.clock()
        for store, rows in ready.items():
            try:
                part = write_part(
                    self.job.stores[store],
                    [record for _, record in rows],
                    self.job.clock(),
                    self.job.identities.get(store),
                )
            except RetainerError as error:
                with self._guard:
                    self._uncatalogued[store] = [*rows, *self._uncatalogued[store]]
                    self.summary.catalog_failures[store] = error.message
                continue
            self.summary.catalog_failures.pop(store, None)
            self.job.journal.write(
                "catalogued", store=store, part=part, rows=sorted({row for row, _ in rows})
            )

    # ── deletes ───────────────────────────────────────────────────────────────────────────────────

    def _delete_all(self) -> None:
        waiting = [action for action in self.job.deletes if not self._was_deleted(action)]
        if not waiting:
            return
        self._check()
        if reason := self._last_look_before(waiting):
            self._leave(waiting, f"{reason}: no deletes")
            return
        waiting = [action for action in self._not_barred(waiting) if self._is_usable(action)]
        for store in sorted({action.store for action in waiting}):
            here = [action for action in waiting if action.store == store]
            try:
                self.job.anchor(store, _by_rule(here))
            except RetainerError as error:
                waiting = [action for action in waiting if action.store != store]
                self._leave(
                    here,
                    f"{store} cannot be made to remember what is deleted there ({error.message}): "
                    "no deletes there",
                )
        single = [
            action
            for action in waiting
            if not self._conditions[action.store].batch_delete or len(action.objects) != 1
        ]
        batched = [
            action
            for action in waiting
            if self._conditions[action.store].batch_delete and len(action.objects) == 1
        ]
        self._each(single, self._delete)
        for batch in _batches(batched):
            self._check()
            self._delete_batch(batch)

    def _was_deleted(self, action: Action) -> bool:
        if action.n not in self.job.deleted_before:
            return False
        self.summary.already += 1
        self._watcher.ended(action, "already", None)
        return True

    def _leave(self, actions: Sequence[Action], sentence: str | None) -> None:
        """Deletes that are not tried, all for one reason, which is told once."""
        with self._guard:
            self.summary.left_deletes += len(actions)
            if sentence and sentence not in self.summary.said:
                self.summary.said.append(sentence)
        for action in actions:
            self._watcher.ended(action, "left", None)

    def _last_look_before(self, actions: Sequence[Action]) -> str | None:
        """Why no delete may be made at this moment: the policies or the plan's age say no, or a
        clock does. None: they may."""
        self._last_look, self._looked_at = self.job.recheck(), self.job.clock()
        stores = frozenset().union(*(rests_on(action) for action in actions))
        return self._last_look.refused or self._clock_is_off(stores - self._unusable.keys())

    def _not_barred(self, actions: Sequence[Action]) -> list[Action]:
        """Those that rest only on stores where a lock is held; the others are left, with one
        sentence for each store."""
        may: list[Action] = []
        left: dict[str, list[Action]] = {}
        for action in actions:
            bar = next(
                (
                    name
                    for name in sorted(rests_on(action))
                    if name in self.job.barred or name not in self.job.locks
                ),
                None,
            )
            if bar is None or action.store in self._unusable:
                may.append(action)
            else:
                left.setdefault(bar, []).append(action)
        for name, group in left.items():
            error = self._unusable.get(name)
            reason = self.job.barred.get(name) or (
                error.message if error else f"its lock was not taken ({name})"
            )
            self._leave(
                group, f"{len(group)} deletes rest on {name}, and none of them is made: {reason}"
            )
        return may

    def _may_go(self, actions: Sequence[Action]) -> list[Action]:
        """Those of these deletes that no hold of this moment may cover; all of them are left once
        the plan itself is refused."""
        with self._looking:
            if self._looked_at is None or abs(self.job.clock() - self._looked_at) > LOOK_EVERY:
                self._last_look, self._looked_at = self.job.recheck(), self.job.clock()
            look = self._last_look
        if look.refused:
            self._leave(actions, f"{look.refused}: no deletes")
            return []
        for action in actions:
            if reason := look.withheld.get(action.n):
                self._skipped(action, reason)
        return [action for action in actions if action.n not in look.withheld]

    def _is_safe(self, action: Action) -> bool:
        """Whether every store that a delete rests on is still held, and its witnesses are as the
        plan saw them."""
        places = sorted(rests_on(action))
        if self._is_resting(action, places):
            return False
        try:
            self._check(*places)
            reason = missing_witness(action, self.job.stores)
        except RetainerError as error:
            if not self._refused(action, places, error):
                self._failed(action, error.message, error.hint)
            return False
        with self._guard:
            for place in places:
                self._refusals.pop(place, None)
        if reason:
            self._skipped(action, reason)
        return reason is None

    def _intend(self, actions: Sequence[Action]) -> None:
        acts = [
            {
                "row": action.n,
                "asset": action.asset_id,
                "rule": action.rule,
                "bytes": sum(each.size for each in action.objects),
                "objects": [[each.key, each.size, each.version] for each in action.objects],
            }
            for action in actions
        ]
        self.job.journal.write(
            "intent",
            act="delete",
            rows=[action.n for action in actions],
            store=actions[0].store,
            acts=acts,
        )

    def _delete(self, action: Action) -> None:
        self._check()
        if not self._may_go([action]) or not self._is_safe(action):
            return
        self._intend([action])
        outcomes: list[Deletion] = []
        try:
            delete_one(
                action,
                self.job.stores[action.store],
                outcomes,
                lambda: self._check(*rests_on(action)),
            )
        except Stopped:
            if outcomes:
                self._settle(action, outcomes, partial=True)
            raise
        except RetainerError as error:
            self._settle_unknown(action, error)
            return
        self._settle(action, outcomes)

    def _delete_batch(self, actions: Sequence[Action]) -> None:
        actions = self._may_go(actions)
        with ThreadPoolExecutor(self.job.workers) as pool:
            safe = [
                action
                for action, is_safe in zip(actions, pool.map(self._is_safe, actions), strict=True)
                if is_safe
            ]
        if not safe:
            return
        self._check()
        if lost := next(
            (
                name
                for name in sorted(frozenset().union(*map(rests_on, safe)))
                if not self.job.locks[name].holds
            ),
            None,
        ):
            self.lost(lost)
            safe = [
                action for action in safe if not self._is_resting(action, sorted(rests_on(action)))
            ]
            if not safe:
                return
        self._intend(safe)
        objects: list[Seen] = [objects_of(action)[0] for action in safe]
        try:
            outcomes = self.job.stores[safe[0].store].delete_batch(objects)
        except RetainerError as error:
            for action in safe:
                self._settle_unknown(action, error)
            return
        for action, outcome in zip(safe, outcomes, strict=True):
            if isinstance(outcome, StoreFailure):
                no = (
                    StoreRefused(outcome.message, store=action.store)
                    if outcome.refused
                    else StoreFailed(outcome.message)
                )
                self._settle_unknown(action, no)
            else:
                self._settle(action, [outcome])

    def _settle_unknown(self, action: Action, error: RetainerError) -> None:
        """A delete without an answer: what lies there tells whether it was done; where that cannot
        be seen, it stays open in the journal."""
        refused = isinstance(error, StoreRefused | CredentialsRefused | LockLost)
        gone: list[str] = []
        try:
            store = self.job.stores[action.store]
            gone = (
                [planned.key for planned in action.objects if store.look(planned.key) is None]
                if not refused
                else []
            )
        except RetainerError:
            self._failed(action, error.message, error.hint, unknown=True)
            return
        if gone:
            self._settle(
                action,
                [
                    Deletion.DELETED if planned.key in gone else Deletion.CHANGED
                    for planned in action.objects
                ],
                partial=len(gone) < len(action.objects),
            )
            if len(gone) == len(action.objects):
                return
        if not self._refused(action, sorted(rests_on(action)), error):
            self._failed(
                action, error.message, error.hint, unknown=refused and len(action.objects) > 1
            )

    def _settle(
        self, action: Action, outcomes: Sequence[Deletion], *, partial: bool = False
    ) -> None:
        """Record what became of the objects of a delete, in their order. `partial`: some of them
        are still to be deleted."""
        ended = list(zip(action.objects, outcomes, strict=False))
        deleted = [planned for planned, outcome in ended if outcome is Deletion.DELETED]
        left = [
            planned.key
            for planned, outcome in ended
            if outcome in (Deletion.CHANGED, Deletion.LOCKED)
        ]
        if not deleted:
            words = {
                Deletion.CHANGED: "it has changed since the plan",
                Deletion.GONE: "it is gone already",
                Deletion.LOCKED: "it is locked",
            }
            self._skipped(
                action,
                words[
                    next(
                        (outcome for outcome in outcomes if outcome is not Deletion.GONE),
                        Deletion.GONE,
                    )
                ],
            )
            return
        size = sum(planned.size for planned in deleted)
        self.job.journal.write(
            "deleted",
            row=action.n,
            asset=action.asset_id,
            store=action.store,
            rule=action.rule,
            bytes=size,
            keys=[planned.key for planned in deleted],
            left=left,
            weak=not self._conditions[action.store].delete,
            partial=partial,
        )
        at = self.job.clock().strftime("%Y-%m-%d %H:%M:%S.%f")
        for planned in deleted:
            entry = {
                "store": action.store,
                "key": planned.key,
                "version": planned.version,
                "asset_id": action.asset_id,
                "copied_at": at,
            }
            self._to_catalog(action, entry | {"deleted": True}, ())
        said = (
            f"{len(left)} of its {len(action.objects)} objects in {action.store} had changed or "
            "are locked, and were left"
            if left
            else None
        )
        with self._guard:
            self.summary.deleted += not partial
            self.summary.deleted_bytes += size
            self._refusals.pop(action.store, None)
            if said and not partial:
                self.summary.said.append(f"{action.asset_id}: {said}")
        self._watcher.ended(action, "deleted", said)
        self._write_parts()

    # ── outcomes ──────────────────────────────────────────────────────────────────────────────────

    def _failed(
        self, action: Action, cause: str, hint: str | None, *, unknown: bool = False
    ) -> None:
        """`unknown`: it may have been done all the same, so that its announcement stays open."""
        self.job.journal.write(
            "failed",
            row=action.n,
            act=action.decision,
            asset=action.asset_id,
            store=action.store,
            cause=cause,
            unknown=unknown,
        )
        with self._guard:
            self.summary.failed.append(
                Trouble(action.decision, action.asset_id, action.store, cause, hint)
            )
        self._watcher.ended(action, "failed", cause)

    def _skipped(self, action: Action, cause: str) -> None:
        self.job.journal.write(
            "skipped",
            row=action.n,
            act=action.decision,
            asset=action.asset_id,
            store=action.store,
            cause=cause,
        )
        with self._guard:
            self.summary.skipped.append(
                Trouble(action.decision, action.asset_id, action.store, cause)
            )
        self._watcher.ended(action, "skipped", cause)

    def _each(self, actions: Iterable[Action], act: Callable[[Action], None]) -> None:
        """Act on each in order, many at a time; on a stop no new one begins, and those under way
        end first."""
        broken: list[BaseException] = []
        free = threading.Semaphore(self.job.workers * 2)

        def watched(action: Action) -> None:
            try:
                self._watcher.began(action)
                act(action)
            except BaseException as error:
                broken.append(error)
                self._halted.set()
            finally:
                free.release()

        with ThreadPoolExecutor(self.job.workers) as pool:
            try:
                for action in actions:
                    free.acquire()
                    self._check()
                    pool.submit(watched, action)
            except BaseException as error:
                broken.append(error)
                self._halted.set()
        if broken:
            raise broken[0]


def made_of(action: Action) -> dict[str, Any]:
    """What an entry of the catalog says of the upload that a copy is made of, at first or second
    hand."""
    return (
        {"made_of": action.made_of.key, "made_of_version": action.made_of.version}
        if action.made_of
        else {}
    )


def _by_rule(actions: Sequence[Action]) -> list[tuple[str, int, int]]:
    """How many deletes of how many bytes each rule asks for."""
    found: dict[str, tuple[int, int]] = {}
    for action in actions:
        count, size = found.get(action.rule, (0, 0))
        found[action.rule] = (count + 1, size + sum(each.size for each in action.objects))
    return [(rule, count, size) for rule, (count, size) in sorted(found.items())]


def _batches(actions: Sequence[Action]) -> Iterator[list[Action]]:
    """Runs of actions on the same store, at most 500 each."""
    by_store: dict[str, list[Action]] = {}
    for action in actions:
        by_store.setdefault(action.store, []).append(action)
    for same in by_store.values():
        for start in range(0, len(same), BATCH):
            yield same[start : start + BATCH]
