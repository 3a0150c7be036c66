"""A plan file and the world of today -> a run: what is checked before, what is withheld, and the records that copies carry."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from retainer.apply.run import Job, Run, Watcher
from retainer.database import connect
from retainer.errors import PlanRefused, RetainerError
from retainer.inventory.facts import open_facts
from retainer.journal.file import Journal, done_before
from retainer.journal.lock import Heart, StoreLock
from retainer.model.catalog import RECORD
from retainer.model.moment import read_moment
from retainer.model.outcome import Summary
from retainer.model.rule import NAME_FACTS, Hold, Policies
from retainer.model.setting import Settings
from retainer.plan.predicates import predicate
from retainer.planfile import Action, PlanFile, actions, moment_of, read_plan
from retainer.planning import item_digest, policy_digest
from retainer.ports import Downloads, StoreWriter


@dataclass(frozen=True)
class Prepared:
    """A plan that may be applied now, and what may be done of it. `held_back`: why no delete may run, in words."""

    plan: PlanFile
    copies: list[Action]
    deletes: list[Action]
    withheld: dict[int, str]
    held_back: list[str]


def prepare(path: Path, settings: Settings, policies: Policies, now: datetime, fingerprint: str | None) -> Prepared:
    """Read a plan and check it against today. Raises PlanRefused: stale, expired, edited, truncated, for another moment."""
    plan = read_plan(path)
    again = "make a new plan with `retainer plan --out FILE`"
    if fingerprint is not None and fingerprint.lower() != plan.fingerprint:
        raise PlanRefused(
            f"the plan's fingerprint is {plan.fingerprint}, and that is not the one that was approved", hint="apply the file that was reviewed"
        )
    header = plan.header
    if moment_of(header.as_of) > now + timedelta(minutes=5):
        raise PlanRefused(f"the plan is for {header.as_of}, which is still to come: it can be shown, not applied", hint=again)
    if moment_of(header.expires) <= now:
        raise PlanRefused(f"the plan expired at {header.expires}", hint=again)
    if header.policy_digest != policy_digest(policies, settings):
        raise PlanRefused("rules, erasures, stores or the time zone have changed since the plan", hint=again)
    return Prepared(
        plan, list(actions(plan, "copy")), list(actions(plan, "delete")), _withheld(plan, policies, now), plan.header.held_back
    )


def _withheld(plan: PlanFile, policies: Policies, now: datetime) -> dict[int, str]:
    """The deletes that a hold of today, unknown to the plan, does not certainly leave alone."""
    known = {item.digest for item in plan.header.items if item.kind == "hold"}
    fresh: list[Hold] = [
        hold for hold in policies.holds if (hold.released is None or hold.released > now) and item_digest(hold) not in known
    ]
    if not fresh:
        return {}
    connection = connect()
    try:
        columns = {name: kind for name, kind in RECORD.items() if name not in ("room", "template")} | {"n": "INTEGER", "created": "TIMESTAMP",
                   "room": "VARCHAR", "template": "VARCHAR"}  # fmt: skip
        connection.execute(f"CREATE TABLE due ({', '.join(f'{name} {kind}' for name, kind in columns.items())})")
        names = list(columns)
        for action in actions(plan, "delete"):
            row = _facts_row(action) | {"n": action.n, "created": action.created}
            # What a plan leaves out is not known here: names always, and metadata beyond the documented keys.
            row["not_known"] = [*(row.get("not_known") or []), *NAME_FACTS, "metadata"]
            connection.execute(f"INSERT INTO due ({', '.join(names)}) VALUES ({', '.join('?' for _ in names)})", [row.get(name) for name in names])
        found: dict[int, str] = {}
        for hold in fresh:
            for (n,) in connection.execute(f"SELECT n FROM due WHERE ({predicate(hold.match)}) IS NOT FALSE").fetchall():
                found[n] = f"the hold {hold.id} is newer than the plan and may cover it"
        return found
    finally:
        connection.close()


_PLAN_FACTS = ("type", "status", "room_id", "session_id", "user_id", "peer_id", "path", "size", "duration", "not_known")


def _facts_row(action: Action) -> dict[str, Any]:
    facts = action.facts
    created = read_moment(str(facts.get("created") or ""))
    metadata = facts.get("metadata")
    return {
        **{name: facts.get(name) for name in _PLAN_FACTS},
        "asset_id": action.asset_id,
        "created_text": facts.get("created"),
        "created_at": created.strftime("%Y-%m-%d %H:%M:%S.%f") if created else None,
        "metadata": json.dumps({key: value for key, value in metadata.items() if value is not None}) if metadata else None,
    }


class Records:
    """Every fact that `match` can name, for the copies to carry: from the facts that were gathered, else from the plan.

    A plan holds no names; where the facts do not know an asset any more, its room's name is marked as not known.
    """

    def __init__(self, facts: Path, settings: Settings) -> None:
        self._connection: duckdb.DuckDBPyConnection | None = None
        if facts.is_file():
            try:
                self._connection = open_facts(facts, settings)
            except RetainerError:
                self._connection = None

    def __call__(self, action: Action) -> dict[str, Any]:
        names = [name for name in RECORD if name not in ("job_id", "has_thumbnails")]
        told = ", ".join("strftime(created_at, '%Y-%m-%d %H:%M:%S.%f')" if name == "created_at" else name for name in names)
        if self._connection is not None:
            row = self._connection.cursor().execute(f"SELECT {told} FROM facts.assets WHERE asset_id = ?", [action.asset_id]).fetchone()
            if row is not None:
                return dict(zip(names, row, strict=True)) | {"settled": True, "known_by": "catalog"}
        record = dict.fromkeys(names) | _facts_row(action)
        return record | {"not_known": [*(record.get("not_known") or []), *NAME_FACTS], "settled": True, "known_by": "catalog"}


def carry_out(
    prepared: Prepared,
    settings: Settings,
    *,
    state: Path,
    writers: Mapping[str, StoreWriter],
    downloads: Downloads,
    clock: Callable[[], datetime],
    watcher: Watcher,
    approved: bool,
    on_run: Callable[[Run], None] = lambda _: None,
    workers: int | None = None,
) -> Summary:
    """Take the locks, run, and write the journal. Raises Locked, and PlanRefused for a plan that was applied already."""
    plan = prepared.plan
    run_id = uuid.uuid4().hex[:12]
    journal = Journal(state, run_id, plan.fingerprint, clock)
    try:
        before = done_before(journal.before, plan.fingerprint)
        if before.finished:
            raise PlanRefused("this plan was applied already, to its end", hint="make a new plan with `retainer plan --out FILE`")
        journal.write("start", plan_id=plan.header.plan_id, copies=len(prepared.copies), deletes=len(prepared.deletes), approved=approved,
                      tool=plan.header.tool, host=os.uname().nodename)  # fmt: skip
        written_to = {action.store for action in (*prepared.copies, *prepared.deletes)}
        dead = frozenset(entry.run for entry in journal.before)
        locks = [StoreLock(writers[name], run_id, plan.header.plan_id, clock, dead) for name in sorted(written_to)]
        taken: list[StoreLock] = []
        job = Job(
            copies=prepared.copies, deletes=prepared.deletes, stores=writers, downloads=downloads,
            record_of=Records(state / "facts.duckdb", settings), journal=journal, clock=clock, watcher=watcher,
            deletes_approved=approved, withheld=prepared.withheld, copied_before=before.copies, catalogued_before=before.catalogued,
            deleted_before=before.deletes, intended_before=before.intended, **({"workers": workers} if workers else {}),
        )  # fmt: skip
        run = Run(job)
        on_run(run)
        try:
            for lock in locks:
                lock.take()
                taken.append(lock)
        except BaseException:
            for lock in taken:
                lock.give_back()
            raise
        with Heart(taken, lambda: run.stop(lost_lock=True)):
            summary = run.go()
        journal.write("end", finished=summary.finished, copied=summary.copied, deleted=summary.deleted, failed=len(summary.failed),
                      skipped=len(summary.skipped), interrupted=summary.interrupted)  # fmt: skip
        return summary
    finally:
        journal.close()
