"""The copies of a plan: tried, tried again where that may help, and recorded."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import groupby
from typing import Any

from retainer.apply.copied import Changed, Copied, Partial, Task, Written
from retainer.apply.copy import copy_one
from retainer.apply.job import Job
from retainer.apply.manifest import read_manifest
from retainer.apply.outcomes import Outcomes
from retainer.apply.places import Places
from retainer.apply.record import entries_of, members_of
from retainer.apply.shared import Shared
from retainer.errors import (
    Archived,
    KeyTaken,
    RetainerError,
    SourceFailed,
    SourceGone,
    SourceRefused,
    StoreFailed,
    StoreRefused,
    TooSlow,
)
from retainer.model.setting import HOSTED, MANIFEST
from retainer.planfile import Action
from retainer.ports import Checksum, Downloads, Look, Seen, StoreWriter

TRIES = 3
SOON = timedelta(hours=24)
"""What is so long past its deadline leaves 100ms within a day: it is not put behind the others."""
LONG = 4 << 20
"""A quarter of the workers at most has so long bodies on its way at once: more of them are slower
on few cores (docs/performance.md), and take more memory."""
TOGETHER = 16
"""So many copies at once go beside another of the same recording: one that waits for the other
holds memory meanwhile (stores/parts.py), of which there must be enough for all."""


@dataclass(frozen=True, slots=True)
class _Again:
    """A copy that failed and is tried again, and what of it was verified."""

    action: Action
    error: RetainerError
    verified: dict[str, Written]


class Copies:
    """Of one run. Safe to use from several threads."""

    def __init__(self, job: Job, places: Places, outcomes: Outcomes) -> None:
        self._job, self._places, self._outcomes = job, places, outcomes
        self._taken_up: set[int] = set()
        self._attempt = 1
        self._again: dict[int, _Again] = {}
        self._bodies = threading.Semaphore(max(1, job.workers // 4))
        self._together = min(job.workers, TOGETHER)
        self._more = threading.Semaphore(self._together)
        self._counting = threading.Lock()

    def passes(self) -> Iterator[Iterator[list[Action]]]:
        """All copies, and then, twice, those that failed and may go through by now: what keeps
        failing holds nothing else up."""
        yield self._due(None)
        for self._attempt in range(2, TRIES + 1):
            if self._again:
                self._pause(self._attempt - 1)
                yield self._due(frozenset(self._again))

    def _due(self, only: frozenset[int] | None) -> Iterator[list[Action]]:
        """The copies in their order; those of one recording that 100ms sends as one file come
        together, so that it is downloaded once."""
        for _, same in groupby(self._job.plan.copies(only), key=_shares):
            yield list(same)

    def make(self, actions: Sequence[Action]) -> None:
        """Copies that a pass gave together."""
        size = actions[0].bytes
        with self._bodies if size is None or size >= LONG else nullcontext():
            self._make(actions)

    def _make(self, actions: Sequence[Action]) -> None:
        if len(actions) == 1:
            self._copy(actions[0], self._downloads(actions[0]))
            return
        shared = Shared(self._downloads(actions[0]), actions[0].asset_id, len(actions))

        def one(number: int) -> None:
            try:
                self._copy(actions[number], shared.of(number))
            finally:
                shared.leave(number)

        others = len(actions) - 1
        with self._counting:  # all at once: two that have some each would wait for each other
            for _ in range(min(others, self._together)):
                self._more.acquire()
        try:
            with ThreadPoolExecutor(len(actions)) as pool:
                for done in [pool.submit(one, number) for number in range(len(actions))]:
                    done.result()
        finally:
            self._more.release(min(others, self._together))

    # ── of earlier runs ─────────────────────────────────────────────────────────────────────────

    def take_up(self) -> None:
        """Copies that an earlier run verified, but could not catalog before it died: looked at once
        more, then recorded."""
        rows = self._job.before.uncatalogued.keys()
        for action in self._job.plan.copies(rows) if rows else ():
            record = self._job.before.uncatalogued[action.n]
            look = self._looked_at(action, record["key"])
            if look is not None and (look.seen.size, look.seen.version) != (
                record["object_size"],
                record["version"],
            ):
                look = None
            try:
                members = self._members_of(action, look) if look and record.get("members") else ()
            except RetainerError:
                continue  # it is partial: the next plan repairs it
            if look is not None:
                whole = Copied(Written(look, Checksum.found_in(record), record["sha256"]), members)
                _, entries = entries_of(action.store, whole, action.asset_id, self._job.clock())
                facts = self._job.record_of(action) | of_the_copy(action) | record
                self._outcomes.to_catalog(action, facts, entries)
                self._taken_up.add(action.n)

    def _members_of(self, action: Action, manifest: Look) -> tuple[Written, ...]:
        store = self._job.stores[action.store]
        return members_of(
            store, action.target or "", read_manifest(b"".join(store.read(manifest.seen)))
        )

    def _was_made(self, action: Action) -> bool:
        if action.n in self._taken_up:
            return True  # it was looked at a moment ago
        if action.target is None or not self._job.before.was_made(action.n):
            return False
        is_folder = action.target.endswith("/")
        look = self._looked_at(action, action.target + MANIFEST * is_folder)
        return look is not None and self._job.before.is_as_made(
            action.n, look.seen.key, look.seen.size, look.seen.version
        )

    def _looked_at(self, action: Action, key: str) -> Look | None:
        """The one object or the manifest of a copy that an earlier run made; None when it is not
        there, or cannot be seen."""
        if not self._places.knows(action.store):
            return None
        try:
            return self._job.stores[action.store].look(key)
        except RetainerError:
            return None

    # ── one copy ────────────────────────────────────────────────────────────────────────────────

    def _copy(self, action: Action, downloads: Downloads) -> None:
        before = self._again.pop(action.n, None)
        verified = before.verified if before else {}
        places = [action.store, action.source if action.origin and action.source else HOSTED]
        if self._places.is_resting(action, places) or not self._places.is_usable(action):
            return
        if self._was_made(action):
            self._outcomes.already(action)
            return
        if not self._places.abilities(action.store).create:
            said = "honours no conditional create, so a copy could overwrite something"
            self._places.cannot(action, f"{action.store} {said}", "use another store")
            return
        if action.origin and action.source not in self._job.stores:
            said = f"the store {action.source} it should be copied from cannot be opened"
            self._outcomes.failed(action, said, None)
            return
        record = self._job.record_of(action) | of_the_copy(action)
        if self._attempt == 1:
            self._outcomes.intends(action, key=action.target)
        self._try(action, places, self._task(action, record, downloads, verified), record)

    def _task(
        self,
        action: Action,
        record: dict[str, Any],
        downloads: Downloads,
        verified: dict[str, Written],
    ) -> Task:
        def begun(key: str, upload: str) -> None:
            self._job.journal.write(
                "upload", row=action.n, store=action.store, key=key, upload=upload
            )

        return Task(
            action,
            self._job.stores[action.store],
            self._job.stores.get(action.source or "") if action.origin else None,
            downloads,
            record,
            self._outcomes.watcher.bytes,
            lambda: self._places.check(action.store),
            begun,
            self._job.clock(),
            verified=verified,
        )

    def _downloads(self, action: Action) -> Downloads:
        """Those that give up soon, while others may be waiting behind."""
        hasty = self._attempt == 1 and not self._leaves_soon(action)
        return self._job.hasty_downloads if hasty else self._job.downloads

    def _leaves_soon(self, action: Action) -> bool:
        return action.deadline is not None and self._job.clock() - action.deadline > SOON

    def _try(
        self, action: Action, places: Sequence[str], task: Task, record: dict[str, Any]
    ) -> None:
        soon = self._leaves_soon(action)
        for attempt in range(self._attempt, TRIES + 1):
            try:
                self._places.check(action.store)
                copied = copy_one(replace(task, last=attempt == TRIES))
            except Changed as error:
                self._outcomes.source_changed(action, str(error))
            except Partial as error:
                self._outcomes.kept(action, error, record)
            except SourceGone as error:
                self._outcomes.gone(action, error.message)
            except (SourceRefused, TooSlow, KeyTaken) as error:
                self._outcomes.failed(action, error.message, error.hint)
            except Archived as error:
                # Of some classes a listing does not say it (the archive tiers of
                # INTELLIGENT_TIERING): only the read does.
                if self._job.restore and action.origin and error.store == action.source:
                    self.restore(action, unseen=True)
                else:
                    self._outcomes.failed(action, error.message, error.hint)
            except RetainerError as error:
                if self._places.refused(action, places, error):
                    return
                passes = isinstance(error, SourceFailed | StoreFailed)
                if passes and not isinstance(error, StoreRefused) and attempt < TRIES:
                    if soon:
                        self._pause(attempt)
                        continue
                    self._again[action.n] = _Again(action, error, task.verified)
                    return
                self._outcomes.failed(action, error.message, error.hint)
            except Exception as error:
                # Whatever one recording does, the others must be copied; its words may hold
                # anything, so only its kind is told.
                self._outcomes.failed(
                    action, f"an unexpected {type(error).__name__}", "please report this"
                )
            else:
                self._places.answered(*places)
                self._outcomes.copied(action, copied, record)
            return

    def tell_waiting(self) -> None:
        """What failed and was to be tried again, where the run ends before that."""
        for each in list(self._again.values()):
            self._outcomes.failed(each.action, each.error.message, each.error.hint)
        self._again.clear()

    def _pause(self, attempt: int) -> None:
        self._job.stop.wait(min(8.0, 0.25 * 4.0**attempt))

    # ── what is archived ────────────────────────────────────────────────────────────────────────

    def restore(self, action: Action, *, unseen: bool = False) -> None:
        """Ask for what a copy is to be read from to be restored, each object as the plan saw it.
        `unseen`: only a read has told that some of it is archived."""
        source = self._job.stores.get(action.source or "")
        if source is None:
            said = f"the store {action.source} it should be restored in cannot be opened"
            self._outcomes.failed(action, said, None)
            return
        try:
            seen: list[Seen] = []
            for planned in action.origin:
                self._places.check(action.store)
                look = source.look(planned.key)
                if look is None or look.seen.version != planned.version:
                    said = f"{action.source}:{planned.key} is not what the plan saw"
                    self._outcomes.skipped(action, said)
                    return
                seen.append(look.seen)
            archived = [each for each in seen if each.archived]
            if unseen and not archived:
                self._restore_some(source, seen)
            for each in archived:
                self._places.check(action.store)
                source.restore(each)
        except RetainerError as error:
            self._outcomes.failed(action, error.message, error.hint)
            return
        self._outcomes.restoring(action)

    def _restore_some(self, source: StoreWriter, seen: Sequence[Seen]) -> None:
        """Ask for all, where nothing says which are archived: those that are not refuse it. Raises
        StoreFailed where all do."""
        refused: list[StoreFailed] = []
        for each in seen:
            self._places.check()
            try:
                source.restore(each)
            except StoreFailed as error:
                refused.append(error)
        if len(refused) == len(seen):
            raise refused[0]


def _shares(action: Action) -> tuple[str, int]:
    """What copies have in common that one download can feed: the recording, where it comes from
    100ms and is one file."""
    alone = action.origin or (action.target or "").endswith("/")
    return action.asset_id, action.n if alone else -1


def of_the_copy(action: Action) -> dict[str, Any]:
    """What an entry of the catalog says of a copy besides whose it is: the upload that it is made
    of, at first or second hand, and what asked for it in doubt."""
    upload = (
        {"made_of": action.made_of.key, "made_of_version": action.made_of.version}
        if action.made_of
        else {}
    )
    marks = {"in_doubt": action.doubt, "partial": action.partial}
    return upload | {name: value for name, value in marks.items() if value}
