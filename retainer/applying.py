"""A plan file and the world of today -> a run: what is checked before, what is withheld, and the
records that copies carry."""

from __future__ import annotations

import json
import os
import re
import threading
import uuid
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb

from retainer.apply.compact import compact, is_worth_it
from retainer.apply.delete import rests_on
from retainer.apply.identify import identified
from retainer.apply.job import WORKERS, Job, Recheck, Watcher
from retainer.apply.run import Run
from retainer.apply.settle import Settled, settle
from retainer.database import connect, fill
from retainer.errors import Locked, PlanRefused, PoliciesWrong, RetainerError, StoreFailed
from retainer.holding import locked, owner_of
from retainer.inventory.asset_list import OTHER_TYPES
from retainer.inventory.collect import room_of
from retainer.inventory.facts import open_facts
from retainer.inventory.locate import assets_of_key
from retainer.journal.anchors import drop_anchor, keep_anchor, lost_record
from retainer.journal.backend import APPLIED, Backend
from retainer.journal.freeze import Freeze, freeze_in
from retainer.journal.journal import Journal
from retainer.journal.ledger import Done, Ledger, path_mark
from retainer.journal.lock import StoreLock
from retainer.journal.shards import Brief, Shards
from retainer.journal.shared import SharedBackend
from retainer.journal.stores import known_stores, remember_stores
from retainer.model.anchors import deleted_lately
from retainer.model.catalog import RECORD
from retainer.model.moment import read_moment, write_moment
from retainer.model.outcome import Summary
from retainer.model.rule import NAME_FACTS, Erasure, Hold, Policies, Rule
from retainer.model.setting import HOSTED, OWN_PREFIX, Settings, Store
from retainer.model.tables import create
from retainer.own import anchors_in
from retainer.plan.decide import doubt_of
from retainer.plan.limits import Deletes, Held, evaluate, remembered
from retainer.plan.predicates import predicate
from retainer.planfile import (
    ACTIONS,
    COPY_ORDER,
    DELETE_ORDER,
    Action,
    Header,
    PlanFile,
    Planned,
    actions,
    assets_copied,
    check_actions,
    moment_of,
    named_twice,
    read_plan,
)
from retainer.planning import ONE_STORE, item_digest, policy_digest
from retainer.ports import Downloads, Engine, Rooms, StoreWriter
from retainer.spreading import Spreading, take_in_left
from retainer.stop import Stop


@dataclass(frozen=True)
class Prepared:
    """A plan that may be applied now, and what may be done of it: `apply.job.Actions`.

    `held_back`: why no delete may run, in words. `sharing`: the rows of deletes that have an object
    in common; `beside`: for each of those, what makes the others safe. `ending`: the rules and
    erasures by which a last copy may go.
    """

    plan: PlanFile
    held_back: list[str]
    copied_to: frozenset[str]
    locked_in: frozenset[str]
    copied: int
    deleted_in: Mapping[str, int]
    rested_on: frozenset[str]
    beside: Mapping[int, tuple[Planned, ...]]
    sharing: Sequence[frozenset[int]]
    ending: frozenset[str]

    @property
    def written_to(self) -> frozenset[str]:
        """The stores in which something is written, or locked."""
        return self.copied_to | self.locked_in

    @property
    def stores_needed(self) -> frozenset[str]:
        """The stores that any of it touches."""
        return self.written_to | self.deleted_in.keys() | self.rested_on

    @property
    def deleted(self) -> int:
        """How many deletes there are."""
        return sum(self.deleted_in.values())

    def copies(self, only: Collection[int] | None = None) -> Iterator[Action]:
        return actions(self.plan, "copy", order=COPY_ORDER, only=only)

    def restores(self) -> Iterator[Action]:
        return actions(self.plan, "copy", archived=True)

    def locks(self) -> Iterator[Action]:
        return actions(self.plan, "lock")

    def deletes(self, store: str, only: Collection[int] | None = None) -> Iterator[Action]:
        for action in actions(self.plan, "delete", order=DELETE_ORDER, store=store, only=only):
            more = self.beside.get(action.n)
            yield action if more is None else replace(action, witnesses=more)


def prepare(
    path: Path,
    settings: Settings,
    policies: Policies,
    now: datetime,
    fingerprint: str | None,
    ledger: Ledger,
    frozen: Freeze | None = None,
) -> Prepared:
    """Read a plan and check it against today. `ledger`: what was done until now; `frozen`: the
    freeze of today. Raises PlanRefused: stale, expired, edited, truncated, for another moment."""
    plan = read_plan(path)
    again = "make a new plan with `retainer plan --out FILE`"
    if fingerprint is not None and not plan.fingerprint.startswith(fingerprint.lower()):
        raise PlanRefused(
            f"the plan's fingerprint is {plan.fingerprint}, and that is not the one that was "
            "approved",
            hint="apply the file that was reviewed",
        )
    header = plan.header
    if moment_of(header.as_of) > now + timedelta(minutes=5):
        raise PlanRefused(
            f"the plan is for {header.as_of}, which is still to come: it can be shown, not applied",
            hint=again,
        )
    if moment_of(header.expires) <= now:
        raise PlanRefused(f"the plan expired at {header.expires}", hint=again)
    if header.policy_digest != policy_digest(policies, settings):
        raise PlanRefused(f"{_changed(header, policies)} since the plan was made", hint=again)
    held_back = [
        *(reason for reason in header.held_back if reason != header.frozen),
        *([frozen.words] if frozen and header.deletes else []),
        *_not_weighed(header, settings, ledger, now),
        *_over_by_now(plan, settings, policies.ending(), ledger, ((), ()), now),
    ]
    check_actions(plan)
    copied_to: Counter[str] = Counter()
    deleted_in: Counter[str] = Counter()
    rested_on: set[str] = set()

    latest = _latest_locks(settings, policies, now)

    def sound(found: Iterator[Action]) -> Iterator[Action]:
        for action in found:
            if reason := _impossible(action, settings, policies, latest):
                raise PlanRefused(
                    f"row {action.n} of the plan is none that `retainer plan` writes: {reason}",
                    hint=again,
                )
            yield action

    for action in sound(actions(plan, "copy")):
        copied_to[action.store] += 1
    for action in sound(actions(plan, "delete")):
        deleted_in[action.store] += 1
        rested_on |= rests_on(action)
    for _ in sound(actions(plan, "copy", archived=True)):
        pass
    locked_in = {action.store for action in sound(actions(plan, "lock"))}
    sharing = [frozenset(rows) for _, _, rows in named_twice(plan)]
    return Prepared(
        plan,
        held_back,
        frozenset(copied_to),
        frozenset(locked_in),
        copied_to.total(),
        dict(sorted(deleted_in.items())),
        frozenset(rested_on),
        _beside(plan, sharing),
        sharing,
        policies.ending(),
    )


def _not_weighed(
    header: Header, settings: Settings, ledger: Ledger, now: datetime
) -> Iterator[str]:
    """Why no delete may run where policies of earlier applies still count, and the plan was made
    without that record."""
    if settings.cooling is None or not header.deletes:
        return
    known = {*header.weighed, header.policy_digest}
    for reign in ledger.applied_within(settings.cooling, now):
        if reign.policies not in known:
            yield (
                f"cooling: policies {reign.commit[:12] or 'of no known commit'}, which were "
                "applied lately, still count, and this plan was made without them"
            )
            return


def _impossible(
    action: Action, settings: Settings, policies: Policies, latest: Mapping[str, datetime]
) -> str | None:
    """Why no honest plan has this action: what a forged one could claim. None: it may be one.
    `latest`: `_latest_locks`."""
    store = settings.store(action.store)
    if store is None:
        return f"there is no store {action.store}"
    for planned in (*action.origin, *action.objects, *action.broken, *action.witnesses):
        place = settings.store(planned.store)
        if place is None:
            return f"there is no store {planned.store}"
        if not _is_of_a_recording(planned.key) or (
            place.scheme == "file" and not _is_plain(planned.key)
        ):
            return f"the key `{planned.key[:80]}` is none of a recording"
    if action.target is not None and (reason := _no_target(action, store)):
        return reason
    if reason := _no_lock(action, latest.get(action.store)):
        return reason
    if action.decision == "copy":
        if action.target is None or store.written_by_100ms:
            return (
                f"nothing is copied to {action.store}"
                if store.written_by_100ms
                else "a copy has no target"
            )
        inside = action.target if action.target.endswith("/") else None
        if any(
            planned.key != action.target and not (inside and planned.key.startswith(inside))
            for planned in action.broken
        ):
            return "it would replace an object of another recording"
        return None
    if not action.objects:
        return f"a {action.decision} names no object"
    if action.decision == "lock":
        return None
    if reason := _no_versions(action, policies):
        return reason
    asking: list[Rule | Erasure] = [*policies.rules, *policies.erasures]
    asks = any(
        _asks_for(item, action.store) or _asked_in_doubt(item, action)
        for item in asking
        if item.id == action.rule
    )
    return (
        None if asks else f"no rule or erasure `{action.rule}` deletes anything in {action.store}"
    )


def _latest_locks(settings: Settings, policies: Policies, now: datetime) -> dict[str, datetime]:
    """Beyond when, in each store that locks, no plan of today locks anything, in whatever zone."""
    ends: dict[str, datetime] = {}
    for keep in (keep for rule in policies.rules for keep in rule.keeps):
        store = settings.store(keep.store)
        if store is not None and store.lock and not keep.period.forever:
            end = keep.period.ends(now).replace(tzinfo=UTC) + timedelta(days=2)
            ends[store.name] = max(end, ends.get(store.name, end))
    return ends


def _no_lock(action: Action, latest: datetime | None) -> str | None:
    """Why no honest plan locks anything for so long: nobody may be able to take that back. None:
    one may, or it locks nothing."""
    if action.lock_until is None:
        return "it does not say until when" if action.decision == "lock" else None
    if latest is None or action.lock_until > latest:
        said = f"no rule keeps anything in {action.store} so that it is locked for so long"
        return f"{said} (or the plan was made before retainer was updated)"
    return None


def _no_versions(action: Action, policies: Policies) -> str | None:
    """Why no honest plan removes the versions that this delete names. None: one may, or it names
    none."""
    if not action.versions:
        return "it names no versions" if action.versions_by else None
    if not any(
        each.store == action.store and each.versions
        for rule in policies.rules
        if rule.id == action.versions_by
        for each in rule.deletes
    ):
        return f"no rule `{action.versions_by}` removes versions in {action.store}"
    current = [version.seen for version in action.versions if version.is_current]
    if Counter((seen.key, seen.size, seen.version) for seen in current) != Counter(
        (each.key, each.size, each.version) for each in action.objects
    ):
        return "its versions are not those of its objects"
    keys = {each.key for each in action.objects}
    if any(version.seen.key not in keys for version in action.versions):
        return "it would remove versions of another object"
    named = {(version.seen.key, version.id) for version in action.versions}
    if len(named) < len(action.versions):
        return "it names a version twice"
    return None


def _record_accepted(header: Header, journal: Journal) -> None:
    """Write down, once, which partial copies count and who says so."""
    told = set(journal.ledger().accepted)
    for each in header.accepted:
        if each.stores and (each.asset_id, each.at, each.why) not in told:
            journal.write(
                "accepted",
                asset=each.asset_id,
                stores=each.stores,
                partial=each.partial,
                at=each.at,
                why=each.why,
                owner=each.owner,
            )


def _is_of_a_recording(key: str) -> bool:
    """A bucket may hold keys with `//` or a slash at their beginning; none of them is retainer's
    own, also where a server reads them as one."""
    return (
        bool(key)
        and "\0" not in key
        and not re.sub("/+", "/", key).lstrip("/").startswith(OWN_PREFIX)
    )


def _is_plain(key: str) -> bool:
    return not any(piece in ("", ".", "..") for piece in key.split("/"))


def _no_target(action: Action, store: Store) -> str | None:
    """Why a copy cannot go where it says: it must be a plain key, and one that leads back to just
    this recording."""
    target = action.target or ""
    if not _is_plain(target.removesuffix("/")) or not _is_of_a_recording(target):
        return f"the key `{target[:80]}` is none of a recording"
    if action.asset_id not in assets_of_key(store, target + "x" * target.endswith("/")):
        return f"the key `{target[:80]}` is none of {action.asset_id}"
    return None


def _asked_in_doubt(item: Rule | Erasure, action: Action) -> bool:
    """Whether a rule may have asked for a copy here without being certain."""
    return (
        isinstance(item, Rule)
        and action.doubt == doubt_of(item)
        and any(keep.store == action.store for keep in item.keeps)
    )


def _asks_for(item: Rule | Erasure, store: str) -> bool:
    """Whether a rule or an erasure deletes anything in this store at all."""
    match item:
        case Rule():
            return (
                bool(item.at_most)
                or any(each.store == store for each in item.deletes)
                or (item.then_delete and any(keep.store == store for keep in item.keeps))
            )
        case Erasure():
            return True


def _beside(plan: PlanFile, sharing: Sequence[frozenset[int]]) -> dict[int, tuple[Planned, ...]]:
    """Where two assets name one object, the copies of both must be there when it goes."""
    if not sharing:
        return {}
    every = frozenset().union(*sharing)
    own = {each.n: set(each.witnesses) for each in actions(plan, "delete", only=every)}
    found = {n: set(witnesses) for n, witnesses in own.items()}
    for rows in sharing:
        together = set().union(*(own.get(n, set()) for n in rows))
        for n in rows:
            if n in found:
                found[n] |= together
    return {n: tuple(sorted(witnesses, key=str)) for n, witnesses in found.items()}


def _over_by_now(
    plan: PlanFile,
    settings: Settings,
    ending: frozenset[str],
    ledger: Ledger,
    remembers: Remembers,
    now: datetime,
) -> list[str]:
    """Limits that the plan kept when it was made, and that it would breach with what other plans,
    here and on other machines, have deleted since; worked out from its rows, whatever its header
    says of them."""
    recent = [
        Deletes(store, rule, count, size)
        for (store, rule), (count, size) in ledger.recent_deletes(now, but=plan.fingerprint).items()
    ]
    cursor = plan.connection.cursor()  # others may ask the plan meanwhile
    planned = [
        Deletes(*row)
        for row in cursor.execute(
            "SELECT store, coalesce(rule, ''), count(*), coalesce(sum(bytes), 0)::BIGINT "
            "FROM numbered "
            f"WHERE {ACTIONS} AND decision = 'delete' GROUP BY ALL"
        ).fetchall()
    ]
    # What rests on no witness is the last copy, whatever the row says of that.
    last = dict(
        cursor.execute(
            "SELECT coalesce(rule, ''), count(DISTINCT asset_id) FROM numbered "
            f"WHERE {ACTIONS} AND decision = 'delete' AND action->>'$.doubt' IS NULL "
            "AND coalesce(json_array_length(action, '$.witnesses'), 0) = 0 GROUP BY ALL"
        ).fetchall()
    )
    # So many copies lie there at the most: what is to be copied, or was lost, may be there in part.
    held = {
        store: Held(copies, size)
        for store, copies, size in cursor.execute(
            "SELECT store, count(*), coalesce(sum(bytes), 0)::BIGINT FROM plan WHERE decision <> "
            "'none' GROUP BY store"
        ).fetchall()
    }
    told = {
        (limit.name, limit.scope) for limit in plan.header.limits if limit.lifted or limit.breached
    }
    return [
        f"limit {limit.name} of {limit.scope}"
        + (", with the deletes of other plans" if limit.lately else "")
        for limit in evaluate(
            settings.limits,
            planned,
            remembered(recent, *remembers),
            held,
            settings.may_be_emptied,
            {rule: count for rule, count in last.items() if rule not in ending},
        )
        if limit.breached and (limit.name, limit.scope) not in told
    ]


Remembers = tuple[Sequence[Deletes], Sequence[Deletes]]
"""What stores remember of the deletes of the last 24 hours: those of the own journal, but for this
plan's, and those of others."""


def withheld(prepared: Prepared, policies: Policies, now: datetime) -> dict[int, str]:
    """The deletes that may not be done today: a new hold may cover them, or an asset that names the
    same object may not go."""
    plan = prepared.plan
    found = _newly_held(plan, policies, now)
    cursor = plan.connection.cursor()
    staying = {
        n
        for (n,) in cursor.execute(
            "SELECT n FROM numbered WHERE decision = 'delete' AND because IS NOT NULL"
        ).fetchall()
    }
    stay = staying | set(found)
    while more := {n for numbers in prepared.sharing if numbers & stay for n in numbers} - stay:
        stay |= more
        found |= dict.fromkeys(
            more, "another recording has an object in common with it, and may not go"
        )
    return found


def _newly_held(plan: PlanFile, policies: Policies, now: datetime) -> dict[int, str]:
    """The deletes that a hold of today, unknown to the plan, does not certainly leave alone."""
    known = {item.digest for item in plan.header.items if item.kind == "hold"}
    fresh: list[Hold] = [
        hold
        for hold in policies.holds
        if (hold.released is None or hold.released > now) and item_digest(hold) not in known
    ]
    if not fresh:
        return {}
    connection = connect()
    try:
        columns = RECORD | {"n": "INTEGER", "created": "TIMESTAMP"}
        connection.execute(create("due", columns))
        fill(connection, "due", columns, (_due_row(each) for each in actions(plan, "delete")))
        found: dict[int, str] = {}
        for hold in fresh:
            for (n,) in connection.execute(
                f"SELECT n FROM due WHERE ({predicate(hold.match)}) IS NOT FALSE"
            ).fetchall():
                found[n] = f"the hold {hold.id} is newer than the plan and may cover it"
        return found
    finally:
        connection.close()


def _due_row(action: Action) -> dict[str, Any]:
    """What is known of a delete: names never, and metadata only by the documented keys."""
    row = _facts_row(action)
    unknown = [*(row["not_known"] or []), *NAME_FACTS, "metadata"]
    created = action.created.strftime("%Y-%m-%d %H:%M:%S.%f") if action.created else None
    return row | {"n": action.n, "created": created, "not_known": unknown}


_PLAN_FACTS = (
    "type",
    "status",
    "room_id",
    "session_id",
    "job_id",
    "template_id",
    "user_id",
    "peer_id",
    "path",
    "size",
    "duration",
    "thumbnails",
    "not_known",
)


def _facts_row(action: Action) -> dict[str, Any]:
    facts = action.facts
    created = read_moment(str(facts.get("created") or ""))
    metadata = facts.get("metadata")
    return {
        **{name: facts.get(name) for name in _PLAN_FACTS},
        "not_known": [
            *(facts.get("not_known") or []),
            *(name for name in _PLAN_FACTS if name not in facts),  # of a plan of an older retainer
        ]
        or None,
        "asset_id": action.asset_id,
        "created_text": facts.get("created"),
        "created_at": created.strftime("%Y-%m-%d %H:%M:%S.%f") if created else None,
        "metadata": json.dumps({key: value for key, value in metadata.items() if value is not None})
        if metadata
        else None,
    }


class Records:
    """Every fact that `match` can name, for the copies to carry: from the facts that were gathered,
    else from the plan.

    A plan holds no names; where the facts do not know an asset any more, or never did on this
    machine, 100ms is asked for its room, and what it does not tell is marked as not known. Facts
    are read for a thousand recordings at a time, in the order in which they are
    copied.
    """

    _AT_ONCE, _CHUNKS = 1000, 8

    def __init__(
        self, facts: Path, settings: Settings, coming: Iterator[str], rooms: Rooms
    ) -> None:
        """`coming`: the recordings, in the order in which they are copied."""
        self._rooms, self._told = rooms, dict[str, Mapping[str, Any]]()
        self._troubles = self.nameless = 0
        self._asking = threading.Lock()
        self._coming = coming
        self._read: dict[str, dict[str, Any] | None] = {}
        self._chunks: deque[list[str]] = deque()
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
                self._read_on(action.asset_id)
            found = self._read[action.asset_id]
        unnamed: list[str] = []
        record: dict[str, Any] = dict(found or {})
        if not found:
            record = dict.fromkeys(_RECORDED) | _facts_row(action)
            record.update(self._names_of(record["room_id"]))
            unnamed = [name for name in NAME_FACTS if record[name] is None]
            self.nameless += bool(unnamed)
            unnamed.append("metadata")  # a plan has the documented keys alone
        return record | {
            "not_known": [*(record.get("not_known") or []), *unnamed] or None,
            "settled": True,
            "known_by": "catalog",
        }

    def _names_of(self, room_id: str | None) -> Mapping[str, Any]:
        """The names of a room and its template, asked once; none where 100ms does not tell, or has
        not answered several times."""
        with self._asking:
            if room_id is None or self._troubles >= TROUBLES:
                return {}
            if room_id not in self._told:
                try:
                    row = room_of(self._rooms, room_id) or {}
                except RetainerError:
                    self._troubles += 1
                    return {}
                self._told[room_id] = {name: row.get(name) for name in NAME_FACTS}
            return self._told[room_id]

    def _read_on(self, asset_id: str) -> None:
        """The next thousand, which it is among where copies go in their order. Those of before the
        last few thousand are forgotten."""
        coming = list(islice(self._coming, self._AT_ONCE))
        wanted = coming if asset_id in coming else [*coming, asset_id]
        self._read |= dict.fromkeys(wanted)
        self._chunks.append(wanted)
        if len(self._chunks) > self._CHUNKS:
            for gone in self._chunks.popleft():
                self._read.pop(gone, None)
        if self._connection is not None and wanted:
            told = ", ".join(
                "strftime(created_at, '%Y-%m-%d %H:%M:%S.%f')" if name == "created_at" else name
                for name in _RECORDED
            )
            rows = self._connection.execute(
                f"SELECT {told} FROM facts.assets WHERE asset_id IN (SELECT unnest(?))", [wanted]
            ).fetchall()
            records = (dict(zip(_RECORDED, row, strict=True)) for row in rows)
            self._read |= {record["asset_id"]: record for record in records}


_RECORDED = tuple(RECORD)
TROUBLES = 3
"""After so many rooms that could not be asked for, no more are."""


@dataclass(frozen=True)
class World:
    """What a run works on besides its plan. `hasty_downloads` give up soon; `clock_of_100ms` asks
    for no credentials."""

    settings: Settings
    backend: Backend
    writers: Mapping[str, StoreWriter]
    downloads: Downloads
    hasty_downloads: Downloads
    clock: Callable[[], datetime]
    clock_of_100ms: Callable[[], datetime]
    today: Callable[[], tuple[Settings, Policies] | None]
    """The settings and policies as they are when the deletes begin, None when they are wrong by
    then."""
    stop: Stop
    who: Mapping[str, str]
    """Who applies, as the system and a CI say it (`retainer.who`)."""
    ticket: str | None = None
    commit: str = ""
    """A commit of git that has just these settings and policies; empty where none is known."""
    approvals: Sequence[Mapping[str, str]] = ()
    """Who else has approved this plan, by which key, and when."""
    engine: Engine | None = None
    """The machines that make the copies and deletes; None: this one."""
    waiting: Callable[[str], None] = lambda _: None
    """Told of what is waited for, in a sentence."""


def _lifted(header: Header) -> list[str]:
    """What a person said may be so all the same, as `--lift` names it."""
    return [
        *(f"{limit.name}:{limit.scope}" for limit in header.limits if limit.lifted),
        *(f"clash:{clash.ceiling}" for clash in header.clashes if clash.lifted),
        *sorted({f"lifecycle:{each.store}" for each in header.own_rules if each.lifted}),
        *sorted({f"{what}:{each.place}" for each in header.sources for what in each.lifted}),
        *(["cooling:policies"] if header.cooling_lifted else []),
    ]


def _changed(header: Header, policies: Policies) -> str:
    """Which rules and erasures are others than a plan was made with."""
    then = {item.id: item.digest for item in header.items if item.kind != "hold"}
    now = {item.id: item_digest(item) for item in policies.items() if not isinstance(item, Hold)}
    found = [
        *(f"{name} has changed" for name in now if then.get(name, now[name]) != now[name]),
        *(f"{name} is new" for name in now if name not in then),
        *(f"{name} is gone" for name in then if name not in now),
    ]
    if not found:
        return "stores, the time zone, accepted copies or hosted buckets have changed"
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return f"{', '.join(found[:5])}{more}"


def carry_out(
    prepared: Prepared,
    world: World,
    *,
    watcher: Watcher,
    approved: bool,
    restore: bool = False,
    on_run: Callable[[Run], None] = lambda _: None,
    workers: int | None = None,
) -> Summary:
    """Take the locks, close what earlier runs left open, run, and write the journal.

    Raises Locked, PlanRefused for a plan that was applied already, PoliciesWrong where two stores
    turn out to be one.
    """
    plan, header = prepared.plan, prepared.plan.header
    run_id = uuid.uuid4().hex[:12]
    journal = Journal(world.backend, run_id, plan.fingerprint, world.clock)
    try:
        over: frozenset[str] = frozenset()
        if isinstance(world.backend, SharedBackend):
            over = take_in_left(world.backend, journal, world.clock, world.stop, world.waiting)
        earlier = journal.ledger()
        if earlier.done(plan.fingerprint).finished:
            raise PlanRefused(
                "this plan was applied already, to its end",
                hint="make a new plan with `retainer plan --out FILE`",
            )
        journal.write(
            "start",
            plan_id=header.plan_id,
            copies=prepared.copied,
            locks=header.locks,
            deletes=prepared.deleted,
            approved=approved,
            expires=header.expires,
            tool=version("retainer"),
            host=os.uname().nodename,
            who=dict(world.who),
            ticket=world.ticket,
            approvals=[dict(each) for each in world.approvals],
            commit=header.git_commit,
            dirty=header.git_dirty,
            policies=header.policy_digest,
            lifted=_lifted(header),
            seen=[
                [source.name, source.identity or "", source.objects]
                for source in header.sources
                if source.complete and source.name != OTHER_TYPES
            ],
            seen_at=header.created,
        )
        world.backend.archive(f"{APPLIED}{plan.fingerprint}.plan", plan.copy)
        _record_accepted(header, journal)
        needed = prepared.written_to | prepared.deleted_in.keys()
        if approved:
            needed |= prepared.rested_on
        owner = owner_of(journal, header.plan_id, alone=world.engine is None)
        announced, left = earlier.open_intents(), earlier.left_over()
        open_in = {each.store for each in announced} - needed
        stores = {
            name: world.writers[name] for name in sorted((needed | open_in) & set(world.writers))
        }
        places = world.settings.places
        proven = earlier.proven_lately(world.clock(), version("retainer"))
        for name, store in stores.items():
            with suppress(RetainerError):  # a folder that is not there is told by its lock
                store.conditions().recall(proven.get(places[name], {}))
        lost: list[str] = []

        def may_still_be_deleted() -> bool:
            """A delete that a worker announced may arrive after this run has ended."""
            return journal.ledger().may_delete(run_id)

        with locked(
            stores,
            owner,
            _expected(header, world),
            lost.append,
            open_in,
            over,
            may_still_be_deleted,
        ) as held:

            def check() -> None:
                world.stop.check()
                if lost:
                    raise Locked(
                        f"the lock of {lost[0]} was lost before anything was done",
                        hint="run it again",
                    )

            ground = _ground(stores, held.locks, held.unusable, plan, world, journal)
            journal.write(
                "applies",
                policies=header.policy_digest,
                commit=world.commit,
                after_others=earlier.has_acted,
            )
            settled = settle(
                [each for each in announced if each.store in ground.locks],
                [each for each in left if each.store in ground.locks],
                {name: stores[name] for name in ground.locks},
                journal,
                world.clock(),
                check,
                {item.id for item in header.items if item.kind == "erasure"},
            )
            ledger = journal.ledger()
            beyond = [
                *_over_by_now(
                    plan, world.settings, prepared.ending, ledger, ground.remembers, world.clock()
                ),
                *_not_weighed(header, world.settings, ledger, world.clock()),
            ]
            job = _job(
                prepared,
                world,
                journal,
                ground,
                approved=approved and not beyond,
                restore=restore,
                watcher=watcher,
                before=ledger.done(plan.fingerprint),
                settled=settled,
                workers=workers,
                host=owner.host,
            )
            run = Run(job)
            run.summary.said += [
                *settled.said,
                *(f"{reason}: no deletes" for reason in beyond if approved),
            ]
            on_run(run)
            held.heart.tell(run.lost)
            with closing(_records(job)) as records:
                summary = _gone(run, job, world, ground, journal, prepared)
            if records.nameless:
                summary.said.append(
                    f"{records.nameless:,} copies do not carry the names of their rooms and "
                    "templates: rules by name are not certain of them until 100ms tells them "
                    "(give the apply the facts of its plan as .retainer/facts.duckdb)"
                )
            journal.write(
                "end",
                finished=summary.finished,
                copied=summary.copied,
                locked=summary.locked,
                deleted=summary.deleted,
                failed=len(summary.failed),
                skipped=len(summary.skipped),
                interrupted=summary.interrupted,
            )
            plan.connection.close()  # a long catalog takes as much memory as a long plan
            if not summary.interrupted:
                _compact(stores, ground, journal, world, summary)
            for name, lock in ground.locks.items():
                if lock.holds and name not in ground.lost:
                    try:
                        keep_anchor(stores[name], journal, owner.host, world.clock())
                    except RetainerError as error:
                        summary.said.append(
                            f"{name} does not remember this run's end ({error.message})"
                        )
            return summary
    finally:
        journal.close()


def _gone(
    run: Run, job: Job, world: World, ground: Ground, journal: Journal, prepared: Prepared
) -> Summary:
    """How the run went, here or on other machines."""
    if world.engine is None:
        return run.go()
    assert isinstance(world.backend, SharedBackend), "only a state in a store is shared"
    brief = Brief(
        began=write_moment(world.clock()),
        source=world.settings.source.url,
        locked=sorted(ground.locks),
        barred=dict(ground.barred),
        unusable={name: error.message for name, error in ground.unusable.items()},
        identities=dict(ground.identities),
        workers=job.workers,
        machines=max(1, world.engine.machines),
        restore=job.restore,
    )
    shards = Shards(world.backend, journal.run)
    spreading = Spreading(world.engine, shards, journal, prepared.plan, run, world.waiting)
    summary = spreading.go(brief)
    _records(job).nameless += spreading.nameless
    return summary


def _compact(
    stores: Mapping[str, StoreWriter],
    ground: Ground,
    journal: Journal,
    world: World,
    summary: Summary,
) -> None:
    """Make the catalogs short where they have become long, and let what was erased go from them.
    What stands against it is told, and tried again by the next run."""
    for name, lock in ground.locks.items():
        if not lock.holds:
            continue

        def check(lock: StoreLock = lock, name: str = name) -> None:
            if world.stop.is_asked or not lock.holds:
                raise Locked(f"the lock of {name} was lost, or the run is to end")

        ledger = journal.ledger()
        erased = dict(ledger.erased.get(name, {}))
        if not is_worth_it(ledger.parts.get(name, 0), erased):
            continue
        try:
            done = compact(stores[name], ground.identities.get(name), erased, world.clock(), check)
        except RetainerError as error:
            summary.said.append(f"the catalog of {name} was not made shorter: {error.message}")
            continue
        if done is not None:
            requests = {asset: erased[asset] for asset in done.erased}
            journal.write(
                "compacted", store=name, before=done.before, parts=list(done.parts), erased=requests
            )
            if requests:
                summary.said.append(
                    f"the catalog of {name} tells no more of {len(requests):,} erased "
                    f"{'recording' if len(requests) == 1 else 'recordings'} than id, size and "
                    "checksum"
                )


def _expected(header: Header, world: World) -> dict[str, str]:
    """The identity that each store must have: what the plan saw there, else what this state folder
    knows."""
    return world.settings.identities(known_stores(world.backend.folder)) | {
        source.name: source.identity
        for source in header.sources
        if source.kind == "store" and source.identity
    }


@dataclass(frozen=True)
class Ground:
    """What the stores of a run are found to be. `locks`: those that hold; `barred`: stores on which
    no delete may rest, and why.

    `remembers`: what they tell of the last 24 hours.
    """

    locks: Mapping[str, StoreLock]
    unusable: Mapping[str, RetainerError]
    barred: Mapping[str, str]
    identities: Mapping[str, str]
    remembers: Remembers
    lost: frozenset[str]
    """Stores in which the journal is not all that was done, and nobody said that its record is gone
    for good."""


def _ground(
    stores: Mapping[str, StoreWriter],
    taken: Mapping[str, StoreLock],
    unusable: dict[str, RetainerError],
    plan: PlanFile,
    world: World,
    journal: Journal,
) -> Ground:
    """Whose the stores are, whether their locks hold, and whether the journal is all that was done
    in them."""
    header = plan.header
    barred: dict[str, str] = {}
    identities: dict[str, str] = {}
    mine: list[Deletes] = []
    others: list[Deletes] = []
    missing: set[str] = set()
    here = journal.ledger().deleted_by(plan.fingerprint)
    for name in taken:
        try:
            _still_there(stores[name], header)
            identity = identified(stores[name], header.customer)
            _, anchors = anchors_in(stores[name])
        except RetainerError as error:
            unusable[name] = error
            continue
        if identity is not None:
            if other := next(
                (other for other, found in identities.items() if found == identity.id), None
            ):
                raise PoliciesWrong(
                    f"`{other}` and `{name}` are one store, under two names", hint=ONE_STORE
                )
            identities[name] = identity.id
            foreign = identity.customer and header.customer and identity.customer != header.customer
            if foreign and not header.is_lifted("workspace", name):
                barred[name] = (
                    f"it holds the recordings of another workspace ({identity.customer}, not "
                    f"{header.customer})"
                )
        if not taken[name].holds:
            barred[name] = (
                "that server ignores conditions on which a lock rests, so another run could be "
                "there"
            )
        if (
            lost := lost_record(anchors, journal.state, journal.goes_through)
        ) and not header.is_lifted("record", name):
            barred[name] = (
                f"{lost}; plan again, and say `--lift record:{name}` if that record is gone for "
                "good"
            )
            missing.add(name)
        own, rest = deleted_lately(anchors or {}, world.clock(), journal.state)
        # What this very plan did stands in its rows, and is not counted twice.
        mine += [
            Deletes(name, rule, max(0, count - here.get((name, rule), 0)), size)
            for rule, count, size in own
        ]
        others += [Deletes(name, *each) for each in rest]
    places = world.settings.places
    seen = {places[name]: found for name, found in identities.items() if name in places}
    remember_stores(world.backend.folder, known_stores(world.backend.folder), seen)
    locks = {name: lock for name, lock in taken.items() if lock.holds and name not in unusable}
    return Ground(locks, unusable, barred, identities, (mine, others), frozenset(missing))


def _still_there(store: StoreWriter, header: Header) -> None:
    """Raises StoreFailed where a plan saw objects in a store without an identity, and none is
    there: its disk may not be mounted."""
    seen = next(
        (
            source
            for source in header.sources
            if source.kind == "store" and source.name == store.name
        ),
        None,
    )
    if (
        seen is not None
        and seen.identity is None
        and seen.objects
        and next(iter(store.list()), None) is None
    ):
        raise StoreFailed(
            f"{store.name} is empty, and the plan saw {seen.objects:,} objects in it",
            hint="is its disk mounted? plan again",
        )


def _job(
    prepared: Prepared,
    world: World,
    journal: Journal,
    ground: Ground,
    *,
    approved: bool,
    restore: bool,
    watcher: Watcher,
    before: Done,
    settled: Settled,
    workers: int | None,
    host: str,
) -> Job:
    plan = prepared.plan
    for row in _settled_rows(prepared, settled):
        before.deleted.add(row)

    def outdated(current: tuple[Settings, Policies] | None) -> str | None:
        if moment_of(plan.header.expires) <= world.clock():
            return f"the plan expired at {plan.header.expires}, since this run began"
        if current is None or plan.header.policy_digest != policy_digest(current[1], current[0]):
            what = _changed(plan.header, current[1]) if current else "the policies became wrong"
            return f"{what} since this run began"
        return None

    def recheck() -> Recheck:
        current, now = world.today(), world.clock()
        if (reason := outdated(current)) or current is None:
            return Recheck(reason, {})
        if current[0].limits != world.settings.limits and (
            over := _over_by_now(
                plan, current[0], prepared.ending, journal.ledger(), ground.remembers, now
            )
        ):
            return Recheck(over[0], {})
        if reason := next(_not_weighed(plan.header, current[0], journal.ledger(), now), None):
            return Recheck(reason, {})
        if current[0].second_person and not world.approvals:
            return Recheck("a second person must sign it by now (`retainer approve`)", {})
        if frozen := freeze_in(world.backend, now):
            return Recheck(frozen.words, {})
        return Recheck(None, withheld(prepared, current[1], now))

    def anchor(store: str, planned: Sequence[tuple[str, int, int]]) -> None:
        drop_anchor(world.writers[store], journal, host, world.clock(), planned)

    return Job(
        **of_the_plan(plan.header),
        plan=prepared,
        restore=restore,
        stores=world.writers,
        downloads=world.downloads,
        hasty_downloads=world.hasty_downloads,
        record_of=Records(
            world.backend.folder / "facts.duckdb",
            world.settings,
            assets_copied(plan),
            world.downloads,
        ),
        journal=journal,
        clock=world.clock,
        clocks={HOSTED: world.clock_of_100ms}
        | {name: store.server_time for name, store in world.writers.items()},
        watcher=watcher,
        deletes_approved=approved,
        outdated=lambda: outdated(world.today()),
        recheck=recheck,
        locks=ground.locks,
        barred=ground.barred,
        unlocked=ground.unusable,
        anchor=anchor,
        stop=world.stop,
        before=before,
        settled=settled.entries,
        identities=ground.identities,
        places=world.settings.places,
        workers=workers or WORKERS,
    )


def of_the_plan(header: Header) -> dict[str, Any]:
    """What a job knows by the plan alone, wherever it is done."""
    sources = header.sources
    return {
        "mark_of": path_mark,
        "keep_deleted": {each.name: each.keeps_deleted for each in sources if each.keeps_deleted},
        "keep_removed": {each.name: each.keeps_removed for each in sources if each.keeps_removed},
        "asking": {each.id: (each.kind, each.why) for each in header.items if each.kind != "hold"},
        "reported": {each.name for each in sources if each.reported},
    }


def _settled_rows(prepared: Prepared, settled: Settled) -> Iterator[int]:
    """The deletes whose objects are all gone by what earlier runs announced."""
    for store in sorted({store for store, _ in settled.gone}):
        for each in prepared.deletes(store):
            if all((each.store, one.key) in settled.gone for one in each.objects):
                yield each.n


def _records(job: Job) -> Records:
    assert isinstance(job.record_of, Records)
    return job.record_of
