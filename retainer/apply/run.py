"""Carry out a plan: copies by deadline, then deletes. It may do less than the plan says, never more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from retainer.apply.copy import Changed, Copied, Partial, Task, Written, copy_one
from retainer.apply.delete import BATCH, delete_one, missing_witness, objects_of
from retainer.apply.manifest import read_manifest
from retainer.apply.record import entries_of, entry_of, members_of, write_part
from retainer.errors import KeyTaken, RetainerError, SourceFailed, SourceGone, StoreFailed
from retainer.model.outcome import LeftOver, Summary, Trouble
from retainer.planfile import Action
from retainer.ports import Checksum, Conditions, Deletion, Downloads, Look, Seen, StoreFailure, StoreWriter

WORKERS = 8
PART_ROWS = 200
PART_AGE = timedelta(seconds=60)
TRIES = 3
SKEW = timedelta(minutes=5)


class Record(Protocol):
    """The journal, as a run writes to it. An entry is on disk when `write` returns."""

    def write(self, event: str, **particulars: Any) -> None: ...


class Watcher(Protocol):
    """Told how a run goes on, for a progress display."""

    def began(self, action: Action) -> None: ...
    def bytes(self, count: int) -> None: ...
    def ended(self, action: Action, outcome: str, sentence: str | None) -> None: ...


class Stopped(Exception):
    """The run was asked to stop: Ctrl-C, or a lost lock."""


@dataclass(frozen=True, slots=True)
class Recheck:
    """What a last look before the deletes found: why none may run (None: they may), and rows that are withheld, with the words."""

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
    watcher: Watcher
    deletes_approved: bool
    recheck: Callable[[], Recheck]
    """Asked once the copies are made, which may be hours after the start."""
    locks_are_fresh: Callable[[], bool]
    unlocked: Mapping[str, RetainerError]
    """Stores whose lock could not be taken, and why: nothing is changed there."""
    left_over: Sequence[LeftOver]
    copied_before: Mapping[int, dict[str, Any]]
    catalogued_before: frozenset[int]
    deleted_before: frozenset[int]
    intended_before: frozenset[int]
    workers: int = WORKERS


class Run:
    """One run of a job. `stop` may be called from any thread and from a signal handler."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.summary = Summary()
        self._stopping = threading.Event()
        self._guard = threading.Lock()
        self._uncatalogued: dict[str, list[tuple[int, dict[str, Any]]]] = {}
        self._oldest = job.clock()
        self._conditions: dict[str, Conditions] = {}
        self._taken_up: set[int] = set()
        self._withheld: Mapping[int, str] = {}
        self._unusable: dict[str, RetainerError] = dict(job.unlocked)

    def stop(self, *, lost_lock: bool = False) -> None:
        self.summary.lost_lock = self.summary.lost_lock or lost_lock
        self._stopping.set()

    def _check(self) -> None:
        """Raises Stopped when the run must end: it was asked to, or its locks may be taken for dead."""
        if not self.job.locks_are_fresh():
            self.stop(lost_lock=True)
        if self._stopping.is_set():
            raise Stopped

    def go(self) -> Summary:
        """Copies, then the catalog, then deletes. Whatever ends it, what was done is in the journal and the catalog."""
        try:
            self._clear_up()
            self._prove()
            self._take_up_copies()
            self._each(self.job.restores, self._restore)
            self._each(self.job.copies, self._copy)
            self._write_parts(everything=True)
            if self.job.deletes_approved and not self.summary.lost_lock:
                self._delete_all()
            else:
                self.summary.left_deletes = sum(action.n not in self.job.deleted_before for action in self.job.deletes)
        except (Stopped, KeyboardInterrupt):
            self._stopping.set()
            self.summary.interrupted = not self.summary.lost_lock
        finally:
            self._write_parts(everything=True)
        return self.summary

    def _clear_up(self) -> None:
        """Give up what dead runs of this journal left half written, and nothing else."""
        for left in self.job.left_over:
            if left.store not in self.job.stores or left.store in self._unusable:
                continue
            try:
                self.job.stores[left.store].abandon(left.key, left.upload)
            except RetainerError:
                continue  # the next run tries again
            self.job.journal.write("abandoned", store=left.store, key=left.key, upload=left.upload)

    def _prove(self) -> None:
        """Find out what each store honours, and whether our clock is theirs."""
        for name in sorted({action.store for action in (*self.job.copies, *self.job.deletes)}):
            if name not in self.job.stores or name in self._unusable:
                continue
            try:
                found = self.job.stores[name].conditions()
            except RetainerError as error:
                # One store that cannot be used must not keep another one's copies from being made.
                self._unusable[name] = error
                continue
            self._conditions[name] = found
            self.job.journal.write("conditions", store=name, **asdict(found))

    def _clock_is_off(self, names: Iterable[str]) -> str | None:
        for name in names:
            try:
                off = abs(self.job.stores[name].server_time() - self.job.clock())
            except RetainerError as error:
                return f"the time of {name} is not known ({error.message})"
            if off > SKEW:
                return f"this machine's clock is {off.total_seconds() / 60:.0f} minutes off that of {name}"
        return None

    # ── copies ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _take_up_copies(self) -> None:
        """Copies that an earlier run verified, but could not catalog before it died: looked at once more, then recorded."""
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
                self._to_catalog(action, self.job.record_of(action) | record, rows)
                self._taken_up.add(action.n)

    def _members_of(self, action: Action, manifest: Look) -> tuple[Written, ...]:
        store = self.job.stores[action.store]
        return members_of(store, action.target or "", read_manifest(b"".join(store.read(manifest.seen))))

    def _is_usable(self, action: Action) -> bool:
        """Whether the store of an action can be used at all; otherwise the action has failed."""
        if action.store in self._conditions:
            return True
        error = self._unusable.get(action.store)
        self._failed(action, error.message if error else f"the store {action.store} cannot be opened", error.hint if error else None)
        return False

    def _copy(self, action: Action) -> None:
        if not self._is_usable(action):
            return
        if action.n in self.job.catalogued_before | self._taken_up and action.n in self.job.copied_before and self._still_as_recorded(action):
            with self._guard:
                self.summary.already += 1
            self.job.watcher.ended(action, "already", None)
            return
        if not self._conditions[action.store].create:
            self._failed(action, f"{action.store} honours no conditional create, so a copy could overwrite something", "use another store")
            return
        source = self.job.stores.get(action.source or "")
        if action.origin and source is None:
            self._failed(action, f"the store {action.source} it should be copied from cannot be opened", None)
            return
        record = self.job.record_of(action)
        self.job.journal.write("intent", act="copy", rows=[action.n], asset=action.asset_id, store=action.store, key=action.target)

        def begun(key: str, upload: str) -> None:
            self.job.journal.write("upload", row=action.n, store=action.store, key=key, upload=upload)

        task = Task(action, self.job.stores[action.store], source if action.origin else None, self.job.downloads, record, self.job.watcher.bytes,
                    self._check, begun)  # fmt: skip
        for attempt in range(1, TRIES + 1):
            self._check()
            try:
                copied = copy_one(task)
            except Changed as error:
                self._skipped(action, str(error))
            except (SourceGone, KeyTaken) as error:
                hint = "nothing can bring it back from there" if isinstance(error, SourceGone) else error.hint
                self._failed(action, error.message, hint)
            except (SourceFailed, StoreFailed) as error:
                if attempt < TRIES:
                    self._pause(attempt)
                    continue
                self._failed(action, error.message, error.hint)
            except Partial as error:
                entry = entry_of(action.store, error.written, self.job.clock()) | {"asset_id": action.asset_id, "broken": True}
                self._to_catalog(action, dict(record) | entry, ())
                self._failed(action, error.message, error.hint)
            except RetainerError as error:
                self._failed(action, error.message, error.hint)
            except (Stopped, KeyboardInterrupt):
                raise
            except Exception as error:
                # Whatever one recording does, the others must be copied; its words may hold anything, so only its kind is told.
                self._failed(action, f"an unexpected {type(error).__name__}", "please report this")
            else:
                self._copied(action, copied, record)
            return

    def _restore(self, action: Action) -> None:
        """Ask for what a copy is to be read from to be restored, each object as the plan saw it."""
        source = self.job.stores.get(action.source or "")
        if source is None:
            self._failed(action, f"the store {action.source} it should be restored in cannot be opened", None)
            return
        try:
            for planned in action.origin:
                self._check()
                look = source.look(planned.key)
                if look is None or look.seen.version != planned.version:
                    self._skipped(action, f"{action.source}:{planned.key} is not what the plan saw")
                    return
                if look.seen.archived:
                    source.restore(look.seen)
        except RetainerError as error:
            self._failed(action, error.message, error.hint)
            return
        self.job.journal.write("restoring", row=action.n, asset=action.asset_id, store=action.source)
        with self._guard:
            self.summary.restored += 1
        self.job.watcher.ended(action, "restoring", None)

    def _pause(self, attempt: int) -> None:
        if self._stopping.wait(min(8.0, 0.25 * 4.0**attempt)):
            raise Stopped

    def _still_as_recorded(self, action: Action) -> Look | None:
        """The one object or the manifest of a copy that an earlier run made; None when it is not as it was."""
        record = self.job.copied_before[action.n]
        try:
            look = self.job.stores[action.store].look(record["key"]) if action.store in self._conditions else None
        except RetainerError:
            return None
        same = look is not None and (look.seen.size, look.seen.version) == (record["object_size"], record["version"])
        return look if same else None

    def _copied(self, action: Action, copied: Copied, facts: Mapping[str, Any]) -> None:
        whole, members = entries_of(action.store, copied, action.asset_id, self.job.clock())
        self.job.journal.write("copied", row=action.n, asset=action.asset_id, rule=action.rule, record=whole)
        self._to_catalog(action, dict(facts) | whole, members)
        said = "; ".join(copied.said)
        with self._guard:
            self.summary.copied += 1
            self.summary.copied_bytes += sum(written.look.seen.size for written in (copied.whole, *copied.members))
            if said:
                self.summary.said.append(f"{action.asset_id}: {said}")
        self.job.watcher.ended(action, "copied", said or None)
        self._write_parts()

    def _to_catalog(self, action: Action, record: dict[str, Any], members: Sequence[dict[str, Any]]) -> None:
        """`record`: every fact of the asset, and the entry of the copy's one object or manifest; `members`: the entries of its members."""
        with self._guard:
            self._uncatalogued.setdefault(action.store, []).extend((action.n, entry) for entry in (*members, record))

    def _write_parts(self, *, everything: bool = False) -> None:
        """Write what was copied to the catalogs: every 200 copies, every minute, and at the end whatever happened."""
        with self._guard:
            late = self.job.clock() - self._oldest > PART_AGE
            ready = {store: rows for store, rows in self._uncatalogued.items() if rows and (everything or late or len(rows) >= PART_ROWS)}
            for store in ready:
                self._uncatalogued[store] = []
            if ready:
                self._oldest = self.job.clock()
        for store, rows in ready.items():
            try:
                part = write_part(self.job.stores[store], [record for _, record in rows], self.job.clock())
            except RetainerError as error:
                with self._guard:
                    self._uncatalogued[store] = [*rows, *self._uncatalogued[store]]
                    self.summary.catalog_failures[store] = error.message
                continue
            self.summary.catalog_failures.pop(store, None)
            self.job.journal.write("catalogued", store=store, part=part, rows=sorted({row for row, _ in rows}))

    # ── deletes ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _delete_all(self) -> None:
        if not self.job.deletes:
            return
        self._check()
        last_look = self.job.recheck()
        if reason := last_look.refused or self._clock_is_off(sorted({each.store for each in self.job.deletes} & set(self._conditions))):
            self.summary.said.append(f"{reason}: no deletes")
            self.summary.left_deletes = len(self.job.deletes)
            return
        self._withheld = last_look.withheld
        waiting = [action for action in self.job.deletes if self._may_be_tried(action)]
        single = [action for action in waiting if not self._conditions[action.store].batch_delete or len(action.objects) != 1]
        batched = [action for action in waiting if self._conditions[action.store].batch_delete and len(action.objects) == 1]
        self._each(single, self._delete)
        for batch in _batches(batched):
            self._check()
            self._delete_batch(batch)

    def _may_be_tried(self, action: Action) -> bool:
        if action.n in self.job.deleted_before:
            self.summary.already += 1
            self.job.watcher.ended(action, "already", None)
            return False
        if reason := self._withheld.get(action.n):
            self._skipped(action, reason)
            return False
        return self._is_usable(action)

    def _is_safe(self, action: Action) -> bool:
        try:
            reason = missing_witness(action, self.job.stores)
        except RetainerError as error:
            self._failed(action, error.message, error.hint)
            return False
        if reason:
            self._skipped(action, reason)
        return reason is None

    def _intend(self, actions: Sequence[Action]) -> None:
        self.job.journal.write("intent", act="delete", rows=[action.n for action in actions], store=actions[0].store,
                               keys=[planned.key for action in actions for planned in action.objects])  # fmt: skip

    def _delete(self, action: Action) -> None:
        self._check()
        if not self._is_safe(action):
            return
        self._intend([action])
        try:
            outcomes = delete_one(action, self.job.stores[action.store])
        except RetainerError as error:
            self._failed(action, error.message, error.hint)
            return
        self._settle(action, outcomes)

    def _delete_batch(self, actions: Sequence[Action]) -> None:
        with ThreadPoolExecutor(self.job.workers) as pool:
            safe = [action for action, is_safe in zip(actions, pool.map(self._is_safe, actions), strict=True) if is_safe]
        if not safe:
            return
        self._check()
        self._intend(safe)
        objects: list[Seen] = [objects_of(action)[0] for action in safe]
        try:
            outcomes = self.job.stores[safe[0].store].delete_batch(objects)
        except RetainerError as error:
            for action in safe:
                self._failed(action, error.message, error.hint)
            return
        for action, outcome in zip(safe, outcomes, strict=True):
            if isinstance(outcome, StoreFailure):
                self._failed(action, outcome.message, None)
            else:
                self._settle(action, [outcome])

    def _settle(self, action: Action, outcomes: Sequence[Deletion]) -> None:
        """Record what became of the objects of a delete, in their order."""
        ours = {Deletion.DELETED, Deletion.GONE} if action.n in self.job.intended_before else {Deletion.DELETED}
        ended = list(zip(action.objects, outcomes, strict=False))
        deleted = [planned for planned, outcome in ended if outcome in ours]
        left = [planned.key for planned, outcome in ended if outcome in (Deletion.CHANGED, Deletion.LOCKED)]
        if not deleted:
            words = {Deletion.CHANGED: "it has changed since the plan", Deletion.GONE: "it is gone already", Deletion.LOCKED: "it is locked"}
            self._skipped(action, words[next((outcome for outcome in outcomes if outcome is not Deletion.GONE), Deletion.GONE)])
            return
        size = sum(planned.size for planned in deleted)
        self.job.journal.write("deleted", row=action.n, asset=action.asset_id, store=action.store, rule=action.rule, bytes=size,
                               keys=[planned.key for planned in deleted], left=left, weak=not self._conditions[action.store].delete)  # fmt: skip
        said = f"{len(left)} of its {len(action.objects)} objects in {action.store} had changed or are locked, and were left" if left else None
        with self._guard:
            self.summary.deleted += 1
            self.summary.deleted_bytes += size
            if said:
                self.summary.said.append(f"{action.asset_id}: {said}")
        self.job.watcher.ended(action, "deleted", said)

    # ── outcomes ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _failed(self, action: Action, cause: str, hint: str | None) -> None:
        self.job.journal.write("failed", row=action.n, act=action.decision, asset=action.asset_id, store=action.store, cause=cause)
        with self._guard:
            self.summary.failed.append(Trouble(action.decision, action.asset_id, action.store, cause, hint))
        self.job.watcher.ended(action, "failed", cause)

    def _skipped(self, action: Action, cause: str) -> None:
        self.job.journal.write("skipped", row=action.n, act=action.decision, asset=action.asset_id, store=action.store, cause=cause)
        with self._guard:
            self.summary.skipped.append(Trouble(action.decision, action.asset_id, action.store, cause))
        self.job.watcher.ended(action, "skipped", cause)

    def _each(self, actions: Sequence[Action], act: Callable[[Action], None]) -> None:
        """Act on each in order, a few at a time; on a stop no new one begins, and those under way end first."""
        pending: set[Future[None]] = set()

        def watched(action: Action) -> None:
            self.job.watcher.began(action)
            act(action)

        with ThreadPoolExecutor(self.job.workers) as pool:
            try:
                for action in actions:
                    self._check()
                    pending.add(pool.submit(watched, action))
                    if len(pending) >= self.job.workers * 2:
                        done, pending = wait(pending, return_when=FIRST_COMPLETED)
                        for future in done:
                            future.result()
                while pending:
                    done, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
            except BaseException:
                self._stopping.set()
                raise


def _batches(actions: Sequence[Action]) -> Iterator[list[Action]]:
    """Runs of actions on the same store, at most 500 each."""
    by_store: dict[str, list[Action]] = {}
    for action in actions:
        by_store.setdefault(action.store, []).append(action)
    for same in by_store.values():
        for start in range(0, len(same), BATCH):
            yield same[start : start + BATCH]
