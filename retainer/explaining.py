"""Facts and policies -> why one asset is treated as it is: every rule considered, what matched,
what won, what changes next."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from retainer.errors import RetainerError
from retainer.inventory.facts import open_facts, snapshot_of, whole_facts
from retainer.model.explanation import Considered, Explanation, Pair, Stage
from retainer.model.moment import moment_at
from retainer.model.rule import Policies
from retainer.model.setting import Settings
from retainer.plan.decide import decide, items_of


def explain(
    facts: Path,
    settings: Settings,
    policies: Policies,
    asset_id: str,
    now: datetime,
    gone: Mapping[str, str],
) -> Explanation:
    """`gone`: what the journal has seen end in 404 or 410. Raises RetainerError when the facts do
    not know the asset."""
    connection = open_facts(facts, settings, gone)
    try:
        with whole_facts(facts):
            return _explained(connection, settings, policies, asset_id, now)
    finally:
        connection.close()


def _explained(
    connection: duckdb.DuckDBPyConnection,
    settings: Settings,
    policies: Policies,
    asset_id: str,
    now: datetime,
) -> Explanation:
    found = connection.execute(
        "SELECT asset_no FROM facts.assets WHERE asset_id = ?", [asset_id]
    ).fetchone()
    if found is None:
        near = connection.execute(
            "SELECT asset_id FROM facts.assets WHERE levenshtein(asset_id, $id) <= 2 "
            "ORDER BY levenshtein(asset_id, $id), asset_id LIMIT 1",
            {"id": asset_id},
        ).fetchone()
        raise RetainerError(
            f"no asset {asset_id} is known",
            hint=f"did you mean {near[0]}?"
            if near
            else f"`retainer history {asset_id}` says what was done with it; `retainer plan` "
            "gathers the facts anew",
        )
    # What it shares objects with is decided with it: the one may go only when the other may.
    connection.execute(f"""
        CREATE TEMP TABLE together AS SELECT {found[0]} AS asset_no UNION
        SELECT asset_no FROM copies WHERE (store, shared) IN (SELECT (store, shared) FROM copies
            WHERE asset_no = {found[0]} AND shared IS NOT NULL)
    """)
    connection.execute(
        "CREATE TEMP TABLE own_copies AS FROM copies WHERE asset_no IN (FROM together)"
    )
    connection.execute("CREATE OR REPLACE TEMP VIEW copies AS FROM own_copies")
    connection.execute(
        "CREATE TEMP TABLE own_facts AS FROM assets WHERE asset_no IN (FROM together)"
    )
    connection.execute("CREATE OR REPLACE TEMP VIEW assets AS FROM own_facts")
    decide(connection, policies, now, settings.timezone)
    pairs = _pairs(connection, asset_id)
    considered = _considered(connection, policies, asset_id, now)
    stages = _stages(connection, asset_id)
    next_at, next_pairs = None, pairs
    for candidate in _candidates(connection, policies, now):
        decide(connection, policies, candidate, settings.timezone)
        then = _pairs(connection, asset_id)
        if [(pair.store, pair.decision, pair.because) for pair in then] != [
            (pair.store, pair.decision, pair.because) for pair in pairs
        ]:
            next_at, next_pairs = candidate, then
            break
    return Explanation(
        asset_id,
        now,
        _facts(connection, asset_id),
        considered,
        stages,
        pairs,
        next_at,
        next_pairs if next_at else (),
        snapshot_of(connection).gathered,
    )


def _finite(column: str) -> str:
    return f"CASE WHEN isfinite({column}) THEN epoch({column}) END"


def _pairs(connection: duckdb.DuckDBPyConnection, asset_id: str) -> tuple[Pair, ...]:
    rows = connection.execute(
        f"""
        SELECT store, decision, because, clause_no, {_finite("until")}, {_finite("deadline")},
            {_finite("keep_until")}, {_finite("delete_from")},
            there, complete, partial,
            CASE WHEN purged_by IS NULL THEN keeps_deleted ELSE keeps_removed END, also_no,
            CASE WHEN purged_by IS NOT NULL
                THEN len(list_filter(versions, lambda v: NOT v.marker)) END,
            CASE WHEN purged_by IS NOT NULL THEN by_hand END
        FROM decided
        LEFT JOIN (SELECT asset_no, store AS place, partial, versions, by_hand FROM copies) AS copy
            ON copy.asset_no = decided.asset_no AND place = store::VARCHAR
        LEFT JOIN (SELECT name, keeps_deleted, keeps_removed FROM listings WHERE kind = 'store')
            ON name = store::VARCHAR
        WHERE asset_id = ? ORDER BY store
    """,
        [asset_id],
    ).fetchall()
    names = dict(connection.execute("SELECT clause_no, rule FROM names").fetchall())
    return tuple(
        Pair(
            store,
            decision,
            tuple(because),
            names.get(clause),
            moment_at(until),
            moment_at(deadline),
            moment_at(keep),
            moment_at(delete),
            there,
            complete,
            partial,
            recoverable=kept,
            also=names.get(also),
            versions=versions,
            by_hand=tuple(by_hand or ()),
        )
        for (
            store,
            decision,
            because,
            clause,
            until,
            deadline,
            keep,
            delete,
            there,
            complete,
            partial,
            kept,
            also,
            versions,
            by_hand,
        ) in rows
    )


def _considered(
    connection: duckdb.DuckDBPyConnection, policies: Policies, asset_id: str, now: datetime
) -> tuple[Considered, ...]:
    certain = dict(
        connection.execute(
            f"SELECT item_no, certain FROM matched WHERE cohort_no = ({_COHORT})", [asset_id]
        ).fetchall()
    )
    numbers = {
        id(item): number
        for number, item in enumerate(items_of(policies, now.replace(microsecond=0)), 1)
    }
    words = {True: "yes", False: "not certain", None: "no"}
    found = []
    for item in policies.items():
        matches = words[certain.get(numbers[id(item)])] if id(item) in numbers else "over"
        found.append(Considered(item.id, type(item).__name__.lower(), str(item.where), matches))
    return tuple(found)


_COHORT = "SELECT cohort_no FROM member WHERE asset_id = ?"


def _stages(connection: duckdb.DuckDBPyConnection, asset_id: str) -> tuple[Stage, ...]:
    rows = connection.execute(
        f"""
        SELECT rule, kind, store, {_finite("begins")}, {_finite("ends")}, runs FROM standing
            JOIN names USING (clause_no)
        WHERE cohort_no = ({_COHORT}) ORDER BY clause_no
    """,
        [asset_id],
    ).fetchall()
    return tuple(
        Stage(rule, kind, store, moment_at(begins), moment_at(ends), runs)
        for rule, kind, store, begins, ends, runs in rows
    )


def _candidates(
    connection: duckdb.DuckDBPyConnection, policies: Policies, now: datetime
) -> list[datetime]:
    """Every moment after `now` at which something about this asset may change by itself."""
    rows = connection.execute("""
        SELECT epoch(moment) FROM (
            SELECT begins AS moment FROM standing UNION SELECT ends FROM standing
            UNION SELECT created + INTERVAL 15 DAY FROM member UNION SELECT created + INTERVAL 7 DAY
                FROM member
            UNION SELECT locked_until FROM copies
        ) WHERE isfinite(moment)
    """).fetchall()
    # A moment is reached with the first whole second that is not before it.
    moments = {datetime.fromtimestamp(-(-row[0] // 1), UTC) for row in rows}
    moments |= {hold.released for hold in policies.holds if hold.released is not None}
    return sorted(moment for moment in moments if moment > now)


_TOLD = (
    "type",
    "status",
    "room_id",
    "room",
    "template",
    "template_id",
    "session_id",
    "job_id",
    "user_id",
    "peer_id",
    "path",
    "size",
    "duration",
    "created_text",
    "metadata",
    "not_known",
    "known_by",
)


def _facts(connection: duckdb.DuckDBPyConnection, asset_id: str) -> tuple[tuple[str, str], ...]:
    row = connection.execute(
        f"SELECT {', '.join(f'{name}::VARCHAR' for name in _TOLD)} FROM assets WHERE asset_id = ?",
        [asset_id],
    ).fetchone()
    return tuple(
        (name.removesuffix("_text"), value)
        for name, value in zip(_TOLD, row or (), strict=True)
        if value is not None
    )
