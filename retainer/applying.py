"""A plan file and the world of today -> a run: what is checked before, what is withheld, and the records that copies carry."""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from retainer.apply.run import Job, Recheck, Run, Watcher
from retainer.database import connect
from retainer.errors import PlanRefused, RetainerError, StoreFailed
from retainer.inventory.facts import open_facts
from retainer.journal.file import Entry, Journal, done_before, left_over, recent_deletes
from retainer.journal.lock import Heart, StoreLock
from retainer.model.catalog import RECORD
from retainer.model.moment import read_moment
from retainer.model.outcome import Summary
from retainer.model.rule import NAME_FACTS, Hold, Policies
from retainer.model.setting import Settings
from retainer.plan.limits import Deletes, evaluate
from retainer.plan.predicates import predicate
from retainer.planfile import ACTIONS, Action, PlanFile, Planned, actions, moment_of, read_plan
from retainer.planning import item_digest, policy_digest
from retainer.ports import Downloads, StoreWriter


@dataclass(frozen=True)
class Prepared:
    """A plan that may be applied now, and what may be done of it. `held_back`: why no delete may run, in words."""

    plan: PlanFile
    copies: list[Action]
    deletes: list[Action]
    archived: list[Action]
    held_back: list[str]


def prepare(
    path: Path, settings: Settings, policies: Policies, now: datetime, fingerprint: str | None, journal: Sequence[Entry] = ()
) -> Prepared:
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
    held_back = [*header.held_back, *_over_by_now(plan, settings, journal, now)]
    return Prepared(plan, list(actions(plan, "copy")), _with_shared_witnesses(plan), list(actions(plan, "copy", archived=True)), held_back)


def _with_shared_witnesses(plan: PlanFile) -> list[Action]:
    """The deletes; where two assets name one object, the copies of both must be there when it goes."""
    deletes = list(actions(plan, "delete"))
    witnesses: dict[tuple[str, str], set[Planned]] = {}
    for action in deletes:
        for planned in action.objects:
            witnesses.setdefault((action.store, planned.key), set()).update(action.witnesses)
    return [
        replace(action, witnesses=tuple(sorted(set().union(*(witnesses[action.store, planned.key] for planned in action.objects)), key=str)))
        for action in deletes
    ]


def _over_by_now(plan: PlanFile, settings: Settings, journal: Sequence[Entry], now: datetime) -> list[str]:
    """Limits that the plan kept when it was made, and that it would breach with what other plans have deleted since."""
    others = [entry for entry in journal if entry.plan != plan.fingerprint]
    recent = [Deletes(store, rule, count, size) for (store, rule), (count, size) in recent_deletes(others, now).items()]
    planned = [Deletes(*row) for row in plan.connection.execute(
        f"SELECT store, rule, count(*), coalesce(sum(bytes), 0)::BIGINT FROM plan WHERE {ACTIONS} AND decision = 'delete' GROUP BY ALL"
    ).fetchall()]  # fmt: skip
    lifted = {(limit.name, limit.scope) for limit in plan.header.limits if limit.lifted or limit.breached}
    found = evaluate(settings.limits, planned, recent, {})
    return [
        f"limit {limit.name} of {limit.scope}, with the deletes of other plans"
        for limit in found
        if limit.breached and limit.name in ("count", "bytes") and (limit.name, limit.scope) not in lifted
    ]


def _withheld(plan: PlanFile, policies: Policies, now: datetime) -> dict[int, str]:
    """The deletes that may not be done today: a new hold may cover them, or an asset that names the same object may not go."""
    found = _newly_held(plan, policies, now)
    owners: dict[tuple[str, str], set[int]] = {}
    staying: set[int] = set()
    for n, store, action, aside in plan.connection.execute(
        "SELECT n, store, action, because FROM plan WHERE decision = 'delete' AND n IS NOT NULL"
    ).fetchall():
        if aside:
            staying.add(n)
        for each in json.loads(action)["objects"] or ():
            owners.setdefault((store, each["key"]), set()).add(n)
    shared = [numbers for numbers in owners.values() if len(numbers) > 1]
    stay = staying | set(found)
    while more := {n for numbers in shared if numbers & stay for n in numbers} - stay:
        stay |= more
        found |= dict.fromkeys(more, "another recording has an object in common with it, and may not go")
    return found


def _newly_held(plan: PlanFile, policies: Policies, now: datetime) -> dict[int, str]:
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


_PLAN_FACTS = ("type", "status", "room_id", "session_id", "user_id", "peer_id", "path", "size", "duration", "thumbnails", "not_known")


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

    A plan holds no names; where the facts do not know an asset any more, its room's name is marked as not known. Facts are read for a
    thousand copies at a time, in the order in which they are made.
    """

    _AT_ONCE = 1000

    def __init__(self, facts: Path, settings: Settings, copies: Sequence[Action]) -> None:
        self._order = list(dict.fromkeys(action.asset_id for action in copies))
        self._place = {asset_id: place for place, asset_id in enumerate(self._order)}
        self._read: dict[str, dict[str, Any] | None] = {}
        self._guard = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None
        if facts.is_file():
            try:
                self._connection = open_facts(facts, settings)
            except RetainerError:
                self._connection = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def __call__(self, action: Action) -> dict[str, Any]:
        with self._guard:
            if action.asset_id not in self._read:
                self._read_on(self._place[action.asset_id])
            found = self._read[action.asset_id]
        record = found or dict.fromkeys(_RECORDED) | _facts_row(action)
        unnamed = [] if found else NAME_FACTS
        return record | {"not_known": [*(record.get("not_known") or []), *unnamed] or None, "settled": True, "known_by": "catalog"}

    def _read_on(self, place: int) -> None:
        if len(self._read) > 4 * self._AT_ONCE:
            self._read.clear()
        wanted = self._order[place : place + self._AT_ONCE]
        self._read |= dict.fromkeys(wanted)
        if self._connection is not None:
            told = ", ".join("strftime(created_at, '%Y-%m-%d %H:%M:%S.%f')" if name == "created_at" else name for name in _RECORDED)
            rows = self._connection.execute(f"SELECT {told} FROM facts.assets WHERE asset_id IN (SELECT unnest(?))", [wanted]).fetchall()
            records = (dict(zip(_RECORDED, row, strict=True)) for row in rows)
            self._read |= {record["asset_id"]: record for record in records}


_RECORDED = tuple(name for name in RECORD if name != "job_id")


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
    restore: bool = False,
    today: Callable[[], tuple[Settings, Policies] | None],
    on_run: Callable[[Run], None] = lambda _: None,
    workers: int | None = None,
) -> Summary:
    """Take the locks, run, and write the journal. Raises Locked, and PlanRefused for a plan that was applied already.

    `today`: the settings and policies as they are when the deletes begin, None when they are wrong by then.
    """
    plan = prepared.plan

    def recheck() -> Recheck:
        current, now = today(), clock()
        if moment_of(plan.header.expires) <= now:
            return Recheck(f"the plan expired at {plan.header.expires}, while it was copying", {})
        if current is None or plan.header.policy_digest != policy_digest(current[1], current[0]):
            return Recheck("rules, erasures, stores or the time zone have changed while it was copying", {})
        return Recheck(None, _withheld(plan, current[1], now))

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
        locks = [StoreLock(writers[name], run_id, plan.header.plan_id, clock, dead) for name in sorted(written_to & set(writers))]
        taken: list[StoreLock] = []
        unlocked: dict[str, RetainerError] = {}
        try:
            for lock in locks:
                try:
                    lock.take()
                except StoreFailed as error:
                    unlocked[lock.store_name] = error  # a store that cannot be written to fails its own actions alone
                    continue
                taken.append(lock)
        except BaseException:
            for lock in taken:
                lock.give_back()
            raise
        records = Records(state / "facts.duckdb", settings, prepared.copies)
        job = Job(
            copies=prepared.copies, deletes=prepared.deletes, restores=prepared.archived if restore else [], stores=writers, downloads=downloads,
            record_of=records, journal=journal, clock=clock, watcher=watcher,
            deletes_approved=approved, recheck=recheck, locks_are_fresh=lambda: all(lock.is_fresh() for lock in taken), unlocked=unlocked,
            left_over=left_over(journal.before), copied_before=before.copies, catalogued_before=before.catalogued,
            deleted_before=before.deletes, intended_before=before.intended, **({"workers": workers} if workers else {}),
        )  # fmt: skip
        run = Run(job)
        on_run(run)
        with Heart(taken, lambda: run.stop(lost_lock=True)), closing(records):
            summary = run.go()
        journal.write("end", finished=summary.finished, copied=summary.copied, deleted=summary.deleted, failed=len(summary.failed),
                      skipped=len(summary.skipped), interrupted=summary.interrupted)  # fmt: skip
        return summary
    finally:
        journal.close()
