"""Two policies and one snapshot of facts -> what the second treats otherwise: the same decision
twice at the same moment, and one join."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import duckdb

from retainer.database import literal, only_row, write_parquet
from retainer.forecasting import outlook
from retainer.inventory.facts import open_facts, snapshot_of, whole_facts
from retainer.model.change import (
    BECOMES,
    Affected,
    Breach,
    Change,
    Clashing,
    Effect,
    HeldItems,
    Impact,
    LockedLonger,
    Month,
    Standing,
)
from retainer.model.forecast import Lying
from retainer.model.moment import moment_at
from retainer.model.rule import Policies
from retainer.model.setting import Settings
from retainer.plan.ahead import look_ahead
from retainer.plan.decide import timestamp
from retainer.planfile import TargetState, cliff_of, moment_of
from retainer.policy.changes import changes
from retainer.private import private_file
from retainer.weighing import Making, Weighing, targets_of, weigh


@dataclass(frozen=True, slots=True)
class Side:
    """Policies with their settings, and what to call them."""

    settings: Settings
    policies: Policies
    name: str
    commit: str


def impact(
    facts: Path, old: Side, new: Side, project: str, making: Making, shown: int = 20
) -> Impact:
    """What `new` treats otherwise than `old` at `making.now`; of each effect the `shown` largest
    copies one by one. Raises RetainerError for facts that cannot be read."""
    before = _side(facts, old, making)
    connection = open_facts(facts, new.settings, dict(making.gone))
    try:
        with whole_facts(facts):
            after = _decided(connection, new, making)
            told = changes(old.policies, new.policies, old.settings, new.settings)
            holds = [hold.id for hold in new.policies.holds]
            _compare(connection, before.pairs, after.pairs, told, holds)
            return _impact(connection, old, new, project, making, (before, after), told, shown)
    finally:
        connection.close()


def _side(facts: Path, side: Side, making: Making) -> Decided:
    connection = open_facts(facts, side.settings, dict(making.gone))
    try:
        with whole_facts(facts):
            return _decided(connection, side, making)
    finally:
        connection.close()


_PAIR = (
    "asset_id, store::VARCHAR AS store, decision::VARCHAR AS decision, because, "
    "rule::VARCHAR AS rule, keep_until, delete_from, until, bytes"
)


_FOR_GOOD = (
    "versions IS NOT NULL OR coalesce(decision = 'blocked' AND list_has_any("
    "string_split(because, ', '), ['versions', 'second-factor']), false)"
)
"""SQL: whether every version is to go, also where a snapshot that was gathered for other policies
does not know them, so that the delete waits for another."""


@dataclass(frozen=True, slots=True)
class Decided:
    """Every pair of one side, as a Parquet file in the private folder, its limits, what will lie
    where, and how."""

    pairs: Path
    weighing: Weighing
    lying: tuple[Lying, ...]
    targets: Mapping[str, TargetState]


def _decided(connection: duckdb.DuckDBPyConnection, side: Side, making: Making) -> Decided:
    weighing = weigh(connection, side.settings, side.policies, making)
    # of the recording, whatever the pair: until when holds may freeze it, and whether it is erased
    connection.execute("""
        CREATE OR REPLACE TEMP TABLE bound AS
        SELECT asset_id, max(ends) FILTER (kind = 'hold') AS frozen,
            bool_or(kind = 'erasure') AS erased
        FROM member JOIN standing USING (cohort_no) WHERE kind IN ('hold', 'erasure')
        GROUP BY asset_id
    """)
    path = private_file(".parquet")
    write_parquet(
        connection,
        f"SELECT pair.*, frozen, coalesce(erased, false) AS erased FROM ("
        f"SELECT {_PAIR}, last_copy, leaves_at, {_FOR_GOOD} AS for_good FROM lines UNION ALL "
        f"SELECT {_PAIR}, false, NULL, false FROM quiet_lines) AS pair "
        "LEFT JOIN bound USING (asset_id)",
        path,
    )
    look_ahead(connection, making.now)
    lying = tuple(outlook(connection, side.settings))
    targets = {each.name: each for each in targets_of(connection, side.settings)}
    return Decided(path, weighing, lying, targets)


def _compare(
    connection: duckdb.DuckDBPyConnection,
    before: Path,
    after: Path,
    told: Sequence[Change],
    holds: Sequence[str] = (),
) -> None:
    """The tables `before` and `after`, and `changed`: every pair that is treated otherwise, what it
    comes to, and the item that this is put down to."""
    for name, path in (("before", before), ("after", after)):
        connection.execute(
            f"CREATE OR REPLACE TEMP VIEW {name} AS SELECT *, "
            "coalesce(decision = 'delete' AND because IS NULL, false) AS goes, "
            # until when it is promised to be kept, and when it goes: never, if nothing deletes it
            "CASE WHEN decision = 'keep' AND until = 'infinity' THEN until "
            "ELSE coalesce(keep_until, '-infinity') END AS promised, "
            "CASE WHEN erased THEN coalesce(keep_until, '-infinity') "
            "ELSE coalesce(delete_from, 'infinity') END AS ends, "
            # until when a hold may keep what lies there from going
            "CASE WHEN decision IN ('keep', 'blocked', 'unmanaged', 'delete', 'copy') "
            "THEN coalesce(frozen, '-infinity') ELSE '-infinity' END AS freezes "
            f"FROM read_parquet({literal(str(path))})"
        )
    items = {change.item for change in told} | {change.before for change in told}
    for name, ids in (("touched", items), ("holding", set(holds))):
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} (item VARCHAR)")
        for each in sorted(ids):
            connection.execute(f"INSERT INTO {name} VALUES (?)", [each])
    kinds = ", ".join(map(literal, BECOMES))
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE changed AS
        WITH pair AS (
            SELECT coalesce(o.asset_id, n.asset_id) AS asset_id,
                coalesce(o.store, n.store) AS store, coalesce(n.bytes, o.bytes) AS bytes,
                coalesce(o.decision, 'none') AS was, coalesce(n.decision, 'none') AS comes_to,
                o.because AS had, n.because AS has, o.rule AS old_rule, n.rule AS new_rule,
                coalesce(o.goes, false) AS went, coalesce(n.goes, false) AS goes,
                coalesce(o.promised, '-infinity') AS promised,
                coalesce(n.promised, '-infinity') AS promises,
                coalesce(o.ends, 'infinity') AS ended, coalesce(n.ends, 'infinity') AS ends,
                coalesce(o.freezes, '-infinity') AS froze,
                coalesce(n.freezes, '-infinity') AS freezes,
                coalesce(n.last_copy, false) AS last_copy,
                -- what was to be hidden is to go with every version
                coalesce(n.for_good AND NOT o.for_good
                    AND (o.goes OR o.decision = 'blocked'), false) AS for_good,
                CASE WHEN n.rule IN (FROM touched) THEN n.rule
                     WHEN o.rule IN (FROM touched) THEN o.rule END AS own
            FROM before AS o FULL JOIN after AS n
                ON o.asset_id = n.asset_id AND o.store = n.store
        )
        SELECT *, CASE
            WHEN for_good THEN 'for good'
            WHEN goes THEN 'due now'
            WHEN comes_to = 'lapses' AND has = 'not-kept' AND had IS DISTINCT FROM 'not-kept'
                THEN 'lapses'
            WHEN comes_to = 'blocked' AND NOT went AND was <> 'blocked' THEN 'blocked'
            WHEN comes_to = 'blocked' AND contains(coalesce(has, ''), 'hold')
                AND NOT contains(coalesce(had, ''), 'hold') THEN 'held'
            WHEN went THEN 'spared'
            WHEN comes_to = 'lost' AND was <> 'lost' THEN 'lost'
            WHEN was = 'lost' AND comes_to <> 'lost' THEN 'not missed'
            WHEN comes_to = 'copy' AND was <> 'copy' THEN 'copied'
            WHEN was = 'copy' AND comes_to <> 'copy' THEN 'not copied'
            WHEN freezes < froze THEN 'shorter'
            WHEN ends < ended AND freezes = 'infinity' THEN 'blocked'
            WHEN ends < ended THEN 'sooner'
            WHEN freezes > froze THEN 'held'
            WHEN was = 'blocked' AND comes_to <> 'blocked' THEN 'released'
            WHEN promises < promised THEN 'shorter'
            WHEN ends > ended THEN 'later'
            WHEN promises > promised THEN 'longer'
            ELSE 'otherwise' END::ENUM ({kinds}) AS becomes,
            -- what has no changed rule, as what lapses at 100ms or is held, is put down to what
            -- changed of the recording's other pairs
            coalesce(own, max(own) OVER (PARTITION BY asset_id), new_rule, old_rule, '') AS item
        FROM pair
        WHERE for_good OR NOT (went AND goes) AND NOT (was = 'lost' AND comes_to = 'lost') AND (
            was <> comes_to OR went <> goes OR had IS DISTINCT FROM has
            OR promised <> promises OR ended <> ends OR froze <> freezes)
    """)


def _impact(
    connection: duckdb.DuckDBPyConnection,
    old: Side,
    new: Side,
    project: str,
    making: Making,
    decided: tuple[Decided, Decided],
    told: Sequence[Change],
    shown: int,
) -> Impact:
    was, now = (side.weighing for side in decided)
    assets, pairs = only_row(connection, "SELECT count(DISTINCT asset_id), count(*) FROM changed")
    both = only_row(
        connection,
        "SELECT count(*) FILTER (o.goes AND n.goes), "
        "coalesce(sum(n.bytes) FILTER (o.goes AND n.goes), 0)::BIGINT, "
        "count(*) FILTER (o.decision = 'copy' AND n.decision = 'copy'), "
        "coalesce(sum(n.bytes) FILTER (o.decision = 'copy' AND n.decision = 'copy'), 0)::BIGINT "
        "FROM before AS o JOIN after AS n ON o.asset_id = n.asset_id AND o.store = n.store",
    )
    snapshot = snapshot_of(connection)
    standing = _standing(connection, "after")
    touched = {change.item for change in told}
    owners = {
        item.owner
        for side in (old, new)
        for item in side.policies.items()
        if item.id in touched and item.owner
    }
    held = only_row(
        connection,
        "SELECT count(DISTINCT asset_id) FROM changed WHERE contains(coalesce(has, ''), 'hold') "
        "OR new_rule IN (FROM holding)",
    )
    in_force = [
        hold for hold in new.policies.holds if hold.released is None or hold.released > making.now
    ]
    return Impact(
        now=making.now,
        base=old.name,
        base_commit=old.commit,
        head=new.name,
        head_commit=new.commit,
        project=project,
        facts_id=snapshot.id,
        gathered=snapshot.gathered,
        incomplete=(*snapshot.incomplete, *_not_told(connection, old, new)),
        changes=tuple(told),
        effects=tuple(_effects(connection, shown)),
        assets=assets,
        same=standing.pairs - pairs if standing.pairs > pairs else 0,
        old=_standing(connection, "before"),
        new=standing,
        both_delete=both[0],
        both_delete_bytes=both[1],
        both_copy=both[2],
        both_copy_bytes=both[3],
        breaches=tuple(_breaches(was, now)),
        clashes=tuple(_clashes(was, now)),
        holds=HeldItems(len(in_force), held[0]),
        locks=tuple(_locks(*(side.targets for side in decided))),
        freed=_freed(was, now, standing),
        owners=tuple(sorted(owners)),
        months=tuple(_months(connection, making.now)),
        cliff=tuple(connection.execute(cliff_of("after", timestamp(making.now))).fetchall()),
        recoverable=snapshot.keep_deleted,
        tool=version("retainer"),
        remembered=now.remembered,
        lying_before=decided[0].lying,
        lying_after=decided[1].lying,
        uncertain=tuple(
            (item.id, maybe)
            for item, (_, maybe) in zip(now.items, now.matches, strict=True)
            if maybe
        ),
        undeclared=tuple((each.bucket, each.assets) for each in now.undeclared),
    )


def _not_told(connection: duckdb.DuckDBPyConnection, old: Side, new: Side) -> Iterable[str]:
    """What these facts do not tell, though one of the sides asks for it."""
    listed = connection.execute("SELECT kind, name FROM listings").fetchall()
    kinds, stores = {kind for kind, _ in listed}, {n for kind, n in listed if kind == "store"}
    if "assets" not in kinds:
        yield "100ms's recordings"
    if "rooms" not in kinds and any(side.policies.ask_for_rooms() for side in (old, new)):
        yield "the names of rooms (`retainer facts` gathers them)"
    for store in new.settings.stores:
        was = old.settings.store(store.name)
        if was is None:
            continue
        if store.name not in stores:
            yield store.name
        elif (was.place, {was.layout, *was.layouts}) != (
            store.place,
            {store.layout, *store.layouts},
        ):
            yield f"{store.name} (its place or layout is another one)"


def _effects(connection: duckdb.DuckDBPyConnection, shown: int) -> Iterable[Effect]:
    # the first moment that matters: when it goes now, or till when it was promised
    finite = "CASE WHEN isfinite({0}) THEN epoch({0}) END"
    groups = connection.execute(f"""
        SELECT item, becomes::VARCHAR, count(DISTINCT asset_id), count(*),
            coalesce(sum(bytes), 0)::BIGINT, count(DISTINCT asset_id) FILTER (goes AND last_copy),
            min(CASE WHEN becomes IN ('sooner', 'later') THEN {finite.format("ends")}
                     WHEN becomes IN ('shorter', 'longer') THEN {finite.format("promises")} END)
        FROM changed GROUP BY item, becomes ORDER BY becomes, count(*) DESC, item
    """).fetchall()
    rows = connection.execute(f"""
        SELECT item, becomes::VARCHAR, changed.asset_id, type, store, bytes, was, comes_to,
            {finite.format("CASE WHEN isfinite(ended) THEN ended ELSE promised END")},
            {
        finite.format("CASE WHEN goes THEN NULL WHEN isfinite(ends) THEN ends ELSE promises END")
    },
            coalesce(new_rule, old_rule), goes AND last_copy
        FROM changed LEFT JOIN (SELECT asset_id, type FROM assets) AS kinds USING (asset_id)
        QUALIFY row_number() OVER (PARTITION BY item, becomes
            ORDER BY bytes DESC NULLS LAST, changed.asset_id, store) <= {shown}
        ORDER BY bytes DESC NULLS LAST, changed.asset_id, store
    """).fetchall()
    rows_of: dict[tuple[str, str], list[Affected]] = {}
    for item, becomes, *row in rows:
        asset_id, kind, store, size, was, comes_to, before, after, rule, last = row
        rows_of.setdefault((item, becomes), []).append(
            Affected(
                asset_id,
                kind,
                store,
                size,
                was,
                comes_to,
                moment_at(before),
                moment_at(after),
                rule,
                last,
            )
        )
    for item, becomes, assets, copies, size, last, first in groups:
        yield Effect(
            item,
            becomes,
            assets,
            copies,
            size,
            last,
            moment_at(first),
            tuple(rows_of.get((item, becomes), ())),
        )


def _standing(connection: duckdb.DuckDBPyConnection, side: str) -> Standing:
    row = only_row(
        connection,
        f"""SELECT count(*) FILTER (goes), coalesce(sum(bytes) FILTER (goes), 0)::BIGINT,
            count(*) FILTER (decision = 'copy'),
            coalesce(sum(bytes) FILTER (decision = 'copy'), 0)::BIGINT,
            count(DISTINCT asset_id) FILTER (goes AND last_copy),
            count(DISTINCT asset_id) FILTER (decision = 'lost'),
            coalesce(sum(bytes) FILTER (decision = 'lost'), 0)::BIGINT,
            count(DISTINCT asset_id) FILTER (leaves_at IS NOT NULL),
            epoch(min(leaves_at)),
            count(*) FILTER (because = 'not-kept'), count(*)
        FROM {side}""",
    )
    *counts, first, lapsing, pairs = row
    deletes, delete_bytes, copies, copy_bytes, last, lost, lost_bytes, at_risk = counts
    return Standing(
        deletes=deletes,
        delete_bytes=delete_bytes,
        copies=copies,
        copy_bytes=copy_bytes,
        last_copies=last,
        lost=lost,
        lost_bytes=lost_bytes,
        at_risk=at_risk,
        first_leaves_at=moment_at(first),
        lapsing=lapsing,
        pairs=pairs,
    )


def _freed(was: Weighing, now: Weighing, standing: Standing) -> int:
    """How many deletes the brakes of the old side hold back, and those of the new one do not."""

    def held(weighing: Weighing) -> bool:
        breached = any(limit.breached and not limit.lifted for limit in weighing.limits)
        return breached or any(not clash.lifted for clash in weighing.clashes)

    return standing.deletes if held(was) and not held(now) else 0


def _locks(
    was: Mapping[str, TargetState], now: Mapping[str, TargetState]
) -> Iterable[LockedLonger]:
    for name, target in now.items():
        before = was.get(name)
        then = (before.locked + before.longer) if before else 0
        new, longer, last = target.locked, target.longer, _last(target)
        if last and (new + longer > then or last > (_last(before) or last)):
            final = target.longer_final + (new if target.lock == "compliance" else 0)
            yield LockedLonger(name, new, longer, then, final, moment_of(last))


def _last(target: TargetState | None) -> str | None:
    """Until when the last lock lasts that is made there."""
    ends = [target.lock_last, target.longest] if target else []
    return max((end for end in ends if end), default=None)


def _months(connection: duckdb.DuckDBPyConnection, now: datetime) -> Iterable[Month]:
    """What ends in each of the next 24 months, on both sides."""
    until = f"{timestamp(now)} + INTERVAL 24 MONTH"
    rows = connection.execute(f"""
        SELECT strftime(until, '%Y-%m') AS month, coalesce(sum(bytes) FILTER (side = 0), 0)::BIGINT,
            coalesce(sum(bytes) FILTER (side = 1), 0)::BIGINT
        FROM (SELECT 0 AS side, * FROM before UNION ALL SELECT 1 AS side, * FROM after)
        WHERE decision = 'keep' AND until < {until} GROUP BY month ORDER BY month
    """).fetchall()
    for month, before, after in rows:
        yield Month(month, before, after)


def _breaches(was: Weighing, now: Weighing) -> Iterable[Breach]:
    before = {(limit.name, limit.scope): limit for limit in was.limits}
    for limit in now.limits:
        if limit.breached:
            earlier = before.get((limit.name, limit.scope))
            yield Breach(
                limit.name,
                limit.scope,
                earlier.used if earlier else 0.0,
                limit.used,
                limit.allowed,
                not (earlier and earlier.breached),
            )


def _clashes(was: Weighing, now: Weighing) -> Iterable[Clashing]:
    before = {(clash.ceiling, clash.keep) for clash in was.clashes}
    for clash in now.clashes:
        is_new = (clash.ceiling, clash.keep) not in before
        yield Clashing(clash.ceiling, clash.keep, clash.assets, is_new)
