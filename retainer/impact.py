"""Two policies and one snapshot of facts -> what the second treats otherwise: the same decision
twice at the same moment, and one join, range by range of recordings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import duckdb

from retainer.database import ALWAYS, NEVER, add_rows, literal, only_row, temp_table, write_parquet
from retainer.errors import RetainerError
from retainer.forecasting import add_outlook, outlook
from retainer.inventory.facts import AT_ONCE, Snapshot, open_facts, snapshot_of, whole_facts
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
from retainer.weighing import Making, Weighing, deciding, targets_of, weigh


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
    connection = open_facts(facts, new.settings, dict(making.gone), AT_ONCE)
    try:
        with whole_facts(facts):
            after = _decided(connection, new, making)
            if before.snapshot != after.snapshot:
                raise RetainerError(
                    f"{facts} was replaced while the two policies were compared on it",
                    hint="run it again",
                )
            told = changes(old.policies, new.policies, old.settings, new.settings)
            _name_items(connection, told, [hold.id for hold in new.policies.holds])
            for one, other in zip(before.pairs, after.pairs, strict=True):
                _compare(connection, one, other)
                _add(connection, making.now, shown)
                one.unlink()
                other.unlink()
            return _impact(connection, old, new, project, making, (before, after), told, shown)
    finally:
        connection.close()


def _side(facts: Path, side: Side, making: Making) -> Decided:
    connection = open_facts(facts, side.settings, dict(making.gone), AT_ONCE)
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
    """Of one side the facts that it was decided on; every pair, as Parquet files in the private
    folder, one for each range of recordings; its limits, what will lie where, and how."""

    snapshot: Snapshot
    pairs: tuple[Path, ...]
    weighing: Weighing
    lying: tuple[Lying, ...]
    targets: Mapping[str, TargetState]


def _decided(connection: duckdb.DuckDBPyConnection, side: Side, making: Making) -> Decided:
    pairs: list[Path] = []

    def take(*, alone: bool) -> None:
        pairs.append(_pairs(connection))
        look_ahead(connection, making.now, alone=alone)
        add_outlook(connection, side.settings)

    weighing = weigh(
        deciding(connection, side.settings, side.policies, making),
        take,
        AT_ONCE,
        together=lambda: look_ahead(connection, making.now),
    )
    lying = tuple(outlook(connection, side.settings))
    targets = {each.name: each for each in targets_of(connection, side.settings)}
    return Decided(snapshot_of(connection), tuple(pairs), weighing, lying, targets)


def _pairs(connection: duckdb.DuckDBPyConnection) -> Path:
    """Every pair of the range that was decided last."""
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
    return path


def _name_items(
    connection: duckdb.DuckDBPyConnection, told: Sequence[Change], holds: Sequence[str] = ()
) -> None:
    """The tables `touched`, the items that are others than before, and `holding`, the holds."""
    items = {change.item for change in told} | {change.before for change in told}
    for name, ids in (("touched", items), ("holding", set(holds))):
        temp_table(connection, name, {"item": "VARCHAR"}, ([each] for each in sorted(ids)))


def _compare(connection: duckdb.DuckDBPyConnection, before: Path, after: Path) -> None:
    """The views `before` and `after` of one range, and `changed`: every pair of it that is treated
    otherwise, what it comes to, and the item that this is put down to."""
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


_FINITE = f"CASE WHEN {{0}} > {ALWAYS} AND {{0}} < {NEVER} THEN epoch({{0}}) END"
"""SQL: seconds since 1970 of a moment that a calendar has."""
_LARGEST_FIRST = "bytes DESC NULLS LAST, asset_id, store"


def _add(connection: duckdb.DuckDBPyConnection, now: datetime, shown: int) -> None:
    """What a range comes to, in tables that grow with each: compared, standings, effects, affected,
    ending, lapsing."""
    add_rows(
        connection,
        "compared",
        """
        SELECT count(*) FILTER (o.goes AND n.goes) AS both_delete,
            coalesce(sum(n.bytes) FILTER (o.goes AND n.goes), 0)::BIGINT AS both_delete_bytes,
            count(*) FILTER (o.decision = 'copy' AND n.decision = 'copy') AS both_copy,
            coalesce(sum(n.bytes) FILTER (o.decision = 'copy' AND n.decision = 'copy'), 0)::BIGINT
                AS both_copy_bytes,
            (SELECT count(DISTINCT asset_id) FROM changed) AS assets,
            (SELECT count(*) FROM changed) AS pairs,
            (SELECT count(DISTINCT asset_id) FROM changed
                WHERE contains(coalesce(has, ''), 'hold') OR new_rule IN (FROM holding)) AS held
        FROM before AS o JOIN after AS n ON o.asset_id = n.asset_id AND o.store = n.store
        """,
    )
    for side in ("before", "after"):
        add_rows(
            connection,
            "standings",
            f"""
            SELECT '{side}' AS side, count(*) FILTER (goes) AS deletes,
                coalesce(sum(bytes) FILTER (goes), 0)::BIGINT AS delete_bytes,
                count(*) FILTER (decision = 'copy') AS copies,
                coalesce(sum(bytes) FILTER (decision = 'copy'), 0)::BIGINT AS copy_bytes,
                count(DISTINCT asset_id) FILTER (goes AND last_copy) AS last_copies,
                count(DISTINCT asset_id) FILTER (decision = 'lost') AS lost,
                coalesce(sum(bytes) FILTER (decision = 'lost'), 0)::BIGINT AS lost_bytes,
                count(DISTINCT asset_id) FILTER (leaves_at IS NOT NULL) AS at_risk,
                min(leaves_at) AS first_leaves_at,
                count(*) FILTER (because = 'not-kept') AS lapsing, count(*) AS pairs
            FROM {side}
            """,
        )
        # of what ends in each of the next 24 months
        add_rows(
            connection,
            "ending",
            f"""
            SELECT '{side}' AS side, strftime(until, '%Y-%m') AS month,
                coalesce(sum(bytes), 0)::BIGINT AS bytes
            FROM {side}
            WHERE decision = 'keep' AND until < {timestamp(now)} + INTERVAL 24 MONTH GROUP BY month
            """,
        )
    add_rows(
        connection,
        "effects",
        # the first moment that matters: when it goes now, or till when it was promised
        f"""
        SELECT item, becomes, count(DISTINCT asset_id) AS assets, count(*) AS copies,
            coalesce(sum(bytes), 0)::BIGINT AS bytes,
            count(DISTINCT asset_id) FILTER (goes AND last_copy) AS last_copies,
            min(CASE WHEN becomes IN ('sooner', 'later') THEN {_FINITE.format("ends")}
                WHEN becomes IN ('shorter', 'longer') THEN {_FINITE.format("promises")} END)
                AS first
        FROM changed GROUP BY item, becomes
        """,
    )
    add_rows(
        connection,
        "affected",
        f"""
        SELECT item, becomes, asset_id, store, bytes, was, comes_to,
            CASE WHEN isfinite(ended) THEN ended ELSE promised END AS ended,
            CASE WHEN goes THEN NULL WHEN isfinite(ends) THEN ends ELSE promises END AS ends,
            coalesce(new_rule, old_rule) AS rule, goes AND last_copy AS is_last
        FROM changed
        QUALIFY row_number() OVER (PARTITION BY item, becomes ORDER BY {_LARGEST_FIRST}) <= {shown}
        """,
    )
    add_rows(connection, "lapsing", cliff_of("after", timestamp(now)))


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
    *both, assets, pairs, held = only_row(
        connection, "SELECT sum(COLUMNS(*))::BIGINT FROM compared"
    )
    snapshot = decided[1].snapshot
    standing = _standing(connection, "after")
    touched = {change.item for change in told}
    owners = {
        item.owner
        for side in (old, new)
        for item in side.policies.items()
        if item.id in touched and item.owner
    }
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
        holds=HeldItems(len(in_force), held),
        locks=tuple(_locks(*(side.targets for side in decided))),
        freed=_freed(was, now, standing),
        owners=tuple(sorted(owners)),
        months=tuple(_months(connection)),
        cliff=tuple(
            connection.execute(
                "SELECT days, sum(kept)::BIGINT, sum(not_kept)::BIGINT FROM lapsing "
                "GROUP BY days ORDER BY days"
            ).fetchall()
        ),
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
    groups = connection.execute("""
        SELECT item, becomes::VARCHAR, sum(assets)::BIGINT, sum(copies)::BIGINT AS copies,
            sum(bytes)::BIGINT, sum(last_copies)::BIGINT, min(first)
        FROM effects GROUP BY item, becomes ORDER BY effects.becomes, copies DESC, item
    """).fetchall()
    rows = connection.execute(f"""
        SELECT item, becomes::VARCHAR, asset_id, type, store, bytes, was, comes_to,
            {_FINITE.format("ended")}, {_FINITE.format("ends")}, rule, is_last
        FROM affected LEFT JOIN (SELECT asset_id, type FROM assets) AS kinds USING (asset_id)
        QUALIFY row_number() OVER (PARTITION BY item, becomes ORDER BY {_LARGEST_FIRST}) <= {shown}
        ORDER BY {_LARGEST_FIRST}
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
        f"""
        SELECT sum(COLUMNS(* EXCLUDE (side, first_leaves_at, lapsing, pairs)))::BIGINT,
            epoch(min(first_leaves_at)), sum(lapsing)::BIGINT, sum(pairs)::BIGINT
        FROM standings WHERE side = '{side}'
        """,
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


def _months(connection: duckdb.DuckDBPyConnection) -> Iterable[Month]:
    """What ends in each of the next 24 months, on both sides."""
    rows = connection.execute("""
        SELECT month, coalesce(sum(bytes) FILTER (side = 'before'), 0)::BIGINT,
            coalesce(sum(bytes) FILTER (side = 'after'), 0)::BIGINT
        FROM ending GROUP BY month ORDER BY month
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
