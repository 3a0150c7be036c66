"""What became of each action: told to the journal first, then to the summary, the catalogs and
whoever watches."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

from retainer.apply.copied import Copied, Partial
from retainer.apply.delete import and_removed
from retainer.apply.job import Job, Watcher
from retainer.apply.record import entries_of, write_part
from retainer.errors import RetainerError
from retainer.model.moment import write_moment
from retainer.model.outcome import Summary, Trouble
from retainer.planfile import Action, Planned
from retainer.ports import Deletion

BRAKE_FROM, BRAKE_SHARE = 20, 0.1
"""Once so many deletes were tried, and more than this share of them failed or found something else
than the plan saw, no more are made: somebody else is at work there, or something is wrong."""
PART_ROWS = 200
PART_AGE = timedelta(seconds=60)


class Outcomes:
    """Of one run. Safe to use from several threads."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.summary = Summary()
        self.watcher = _Quietly(job.watcher)
        self._guard = threading.Lock()
        self._oldest = job.clock()
        self._odd_deletes = self._good_deletes = 0
        self._uncatalogued: dict[str, list[tuple[int, dict[str, Any]]]] = {}
        for entry in job.settled:
            self._uncatalogued.setdefault(entry["store"], []).append((-1, entry))

    # ── what was not done ───────────────────────────────────────────────────────────────────────

    def brake(self) -> str | None:
        """Why no more deletes may be made, since too many of those that were tried went wrong."""
        with self._guard:
            odd, tried = self._odd_deletes, self._odd_deletes + self._good_deletes
        if tried < BRAKE_FROM or odd <= tried * BRAKE_SHARE:
            return None
        return (
            f"{odd:,} of {tried:,} deletes failed, or found something else than the plan saw: no "
            "more deletes (look what else writes there, and make a new plan)"
        )

    @property
    def tried(self) -> tuple[int, int]:
        """How many deletes went wrong or found something else than the plan saw, and how many were
        made."""
        with self._guard:
            return self._odd_deletes, self._good_deletes

    def join(self, summary: Summary, odd: int, good: int) -> None:
        """What another machine has done, and the same two counts of it."""
        with self._guard:
            self.summary.add(summary)
            self._odd_deletes += odd
            self._good_deletes += good

    def _not_done(self, event: str, action: Action, cause: str, **more: Any) -> None:
        self._job.journal.write(
            event,
            row=action.n,
            act=action.decision,
            asset=action.asset_id,
            store=action.store,
            cause=cause,
            **more,
        )

    def failed(
        self, action: Action, cause: str, hint: str | None, *, unknown: bool = False, **more: str
    ) -> None:
        """`unknown`: it may have been done all the same, so that its announcement stays open.
        `more`: what later runs read of it."""
        self._not_done("failed", action, cause, unknown=unknown, **more)
        with self._guard:
            self._odd_deletes += action.decision == "delete"
            self.summary.failed.append(_trouble(action, cause, hint))
        self.watcher.ended(action, "failed", cause)

    def gone(self, action: Action, cause: str) -> None:
        """100ms says that it has nothing of it: the next plan does not try it again."""
        if action.facts.get("status") not in (None, "completed", "failed"):
            self.failed(action, cause, "100ms has not made it yet, and may never")
            return
        mark = self._job.mark_of(str(action.facts.get("path") or ""))
        self.failed(action, cause, "nothing can bring it back from there", gone=mark)

    def skipped(self, action: Action, cause: str, *, is_odd: bool = True) -> None:
        """`is_odd`: something is not as the plan saw it, and no person's word stands against
        it."""
        self._not_done("skipped", action, cause)
        with self._guard:
            self._odd_deletes += is_odd and action.decision == "delete"
            self.summary.skipped.append(_trouble(action, cause, None))
        self.watcher.ended(action, "skipped", cause)

    def source_changed(self, action: Action, cause: str) -> None:
        with self._guard:
            self.summary.changed_copies += 1
        self.skipped(action, f"{cause}; make a new plan")

    def left(self, actions: Iterable[Action], sentence: str | None) -> None:
        """Deletes or locks that are not tried, all for one reason, which is told once."""
        self.say(sentence)
        for action in actions:
            with self._guard:
                self.summary.left_deletes += action.decision == "delete"
                self.summary.left_locks += action.decision == "lock"
            self.watcher.ended(action, "left", None)

    def impossible(self, action: Action, cause: str) -> None:
        """It was not tried, since its store cannot do it."""
        self._not_done("left", action, cause)
        self.watcher.ended(action, "left", None)

    def already(self, action: Action) -> None:
        with self._guard:
            self.summary.already += 1
        self.watcher.ended(action, "already", None)

    def say(self, sentence: str | None) -> None:
        with self._guard:
            if sentence and sentence not in self.summary.said:
                self.summary.said.append(sentence)

    def intends(self, action: Action, **more: Any) -> None:
        """It is about to be done: what a kill would leave open is known by that."""
        self._job.journal.write(
            "intent",
            act=action.decision,
            rows=[action.n],
            asset=action.asset_id,
            store=action.store,
            **more,
        )

    # ── what was done ───────────────────────────────────────────────────────────────────────────

    def copied(self, action: Action, copied: Copied, facts: Mapping[str, Any]) -> None:
        whole, members = entries_of(action.store, copied, action.asset_id, self._job.clock())
        self._job.journal.write(
            "copied", row=action.n, asset=action.asset_id, rule=action.rule, record=whole
        )
        self.to_catalog(action, dict(facts) | whole, members)
        said = "; ".join(copied.said)
        with self._guard:
            self.summary.copied += 1
            self.summary.copied_bytes += sum(
                written.look.seen.size for written in (copied.whole, *copied.members)
            )
            if said:
                self.summary.said.append(f"{action.asset_id}: {said}")
        self.watcher.ended(action, "copied", said or None)
        self.write_parts()

    def kept(self, action: Action, partial: Partial, facts: Mapping[str, Any]) -> None:
        """What came is kept, and does not count."""
        whole, members = entries_of(
            action.store, partial.copied, action.asset_id, self._job.clock()
        )
        marks = {"asset_id": action.asset_id, "partial": partial.why}
        for member in members:
            member["partial"] = partial.why if member["key"] in partial.odd else None
        self.to_catalog(action, dict(facts) | whole | marks, members)
        self.failed(action, partial.message, None)

    def lengthened(self, action: Action, keys: Sequence[str]) -> None:
        """These of its objects were locked longer, whatever became of the others."""
        if keys:
            self._job.journal.write(
                "locked",
                row=action.n,
                asset=action.asset_id,
                store=action.store,
                rule=action.rule,
                until=write_moment(action.lock_until) if action.lock_until else None,
                keys=list(keys),
            )

    def locked(self, action: Action, *, is_new: bool) -> None:
        """All of them are locked for so long; `is_new`: some were not."""
        with self._guard:
            self.summary.locked += is_new
            self.summary.locked_already += not is_new
        self.watcher.ended(action, "locked", None)

    def restoring(self, action: Action) -> None:
        self._job.journal.write(
            "restoring", row=action.n, asset=action.asset_id, store=action.source
        )
        with self._guard:
            self.summary.restored += 1
        self.watcher.ended(action, "restoring", None)

    def deleted(
        self,
        ended: Sequence[tuple[Action, Sequence[Deletion]]],
        *,
        weak: bool,
        partial: bool = False,
        removed: Mapping[str, int],
    ) -> None:
        """Record what became of the objects of some deletes in one store, in their order. `weak`:
        the store does not refuse to delete another version; `partial`: some of their objects are
        still to be deleted; `removed`: so many versions of each object went for good."""
        done: list[tuple[Action, list[Planned], list[str]]] = []
        for action, outcomes in ended:
            each = list(zip(action.objects, outcomes, strict=False))
            deleted = [planned for planned, outcome in each if outcome is Deletion.DELETED]
            stayed = (Deletion.CHANGED, Deletion.LOCKED)
            left = [planned.key for planned, outcome in each if outcome in stayed]
            if deleted:
                done.append((action, deleted, left))
            else:
                self.skipped(action, and_removed(_why_not(outcomes), removed))
        if not done:
            return
        self._job.journal.write_all(
            [
                (
                    "deleted",
                    {
                        "row": action.n,
                        "asset": action.asset_id,
                        "store": action.store,
                        "rule": action.rule,
                        "bytes": action.size_of({planned.key for planned in deleted}),
                        "keys": [planned.key for planned in deleted],
                        "left": left,
                        "weak": weak,
                        "partial": partial,
                        "recoverable": self._recoverable(action),
                    }
                    | self._because(action)
                    | _for_good(action, sum(removed.values())),
                )
                for action, deleted, left in done
            ]
        )
        for action, deleted, left in done:
            self._gone(action, deleted, left, partial=partial)
        self.write_parts()

    def _recoverable(self, action: Action) -> str | None:
        """How what is deleted can still be read, in words."""
        kept = self._job.keep_removed if action.versions else self._job.keep_deleted
        return kept.get(action.store)

    def _because(self, action: Action) -> dict[str, Any]:
        """What a delete can be answered for with, a year later."""
        asked, why = self._job.asking.get(action.rule, (None, None))
        return {
            "type": action.type,
            "asked_by": asked,
            "why": why,
            "rule_at": action.at,
            "created": write_moment(action.created) if action.created else None,
            "kept_until": action.kept_until,
            "kept_by": action.also,
            "due": action.due_from,
            "last_copy": action.last_copy,
            "witnesses": [
                [each.store, each.key, each.size, each.version] for each in action.witnesses
            ],
        }

    def _gone(
        self, action: Action, deleted: Sequence[Planned], left: Sequence[str], *, partial: bool
    ) -> None:
        at = self._job.clock().strftime("%Y-%m-%d %H:%M:%S.%f")
        for planned in deleted:
            entry = {
                "store": action.store,
                "key": planned.key,
                "version": planned.version,
                "asset_id": action.asset_id,
                "copied_at": at,
            }
            self.to_catalog(action, entry | {"deleted": True}, ())
        said = (
            f"{len(left)} of its {len(action.objects)} objects in {action.store} had changed or "
            "are locked, and were left"
            if left
            else None
        )
        with self._guard:
            if (how := self._recoverable(action)) and not action.versions:
                sentence = f"what was deleted in {action.store} is hidden, and recoverable: {how}"
                self.summary.said += [sentence] if sentence not in self.summary.said else []
            self.summary.deleted += not partial
            self._good_deletes += not partial
            self.summary.deleted_bytes += action.size_of({planned.key for planned in deleted})
            self.summary.purged += bool(action.versions) and not partial
            if said and not partial:
                self.summary.said.append(f"{action.asset_id}: {said}")
        self.watcher.ended(action, "deleted", said)

    # ── the catalogs ────────────────────────────────────────────────────────────────────────────

    def to_catalog(
        self, action: Action, record: dict[str, Any], members: Sequence[dict[str, Any]]
    ) -> None:
        """`record`: every fact of the asset, and the entry of the copy's one object or manifest;
        `members`: the entries of its members."""
        with self._guard:
            self._uncatalogued.setdefault(action.store, []).extend(
                (action.n, entry) for entry in (*members, record)
            )

    def write_parts(self, *, everything: bool = False) -> None:
        """Write what was copied to the catalogs: every 200 copies, every minute, and at the end
        whatever happened."""
        with self._guard:
            late = self._job.clock() - self._oldest > PART_AGE
            ready = {
                store: rows
                for store, rows in self._uncatalogued.items()
                if rows and (everything or late or len(rows) >= PART_ROWS)
            }
            for store in ready:
                self._uncatalogued[store] = []
            if ready:
                self._oldest = self._job.clock()
        for store, rows in ready.items():
            try:
                part = write_part(
                    self._job.stores[store],
                    [record for _, record in rows],
                    self._job.clock(),
                    self._job.identities.get(store),
                )
            except RetainerError as error:
                with self._guard:
                    self._uncatalogued[store] = [*rows, *self._uncatalogued[store]]
                    self.summary.catalog_failures[store] = error.message
                continue
            self.summary.catalog_failures.pop(store, None)
            self._job.journal.write(
                "catalogued", store=store, part=part, rows=sorted({row for row, _ in rows})
            )


def _trouble(action: Action, cause: str, hint: str | None) -> Trouble:
    return Trouble(
        action.decision,
        action.asset_id,
        action.store,
        cause,
        hint,
        _bucket_of(action),
        action.leaves_at,
    )


def _bucket_of(action: Action) -> str:
    """Where the path of a recording lies that is copied from 100ms."""
    path = str(action.facts.get("path") or "")
    if action.decision != "copy" or action.origin or "://" not in path:
        return ""
    scheme, _, rest = path.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"


def _for_good(action: Action, removed: int) -> dict[str, Any]:
    """How many versions went with it, and by which rule, where all were to."""
    return {"versions": removed, "versions_by": action.versions_by} if action.versions else {}


def _why_not(outcomes: Sequence[Deletion]) -> str:
    words = {
        Deletion.CHANGED: "it has changed since the plan",
        Deletion.GONE: "it is gone already",
        Deletion.LOCKED: "it is locked",
    }
    stayed = (outcome for outcome in outcomes if outcome is not Deletion.GONE)
    return words[next(stayed, Deletion.GONE)]


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

    def elsewhere(self, ended: int, failed: int, size: int) -> None:
        with suppress(Exception):
            self._watcher.elsewhere(ended, failed, size)
