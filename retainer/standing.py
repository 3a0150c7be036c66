"""Facts and policies -> what each hold and each erasure comes to now: what it covers, and what
stands against it."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb

from retainer.inventory.facts import open_facts, whole_facts
from retainer.model.calendar import zone_named
from retainer.model.moment import moment_at
from retainer.model.rule import Erasure, Hold, Policies
from retainer.model.setting import Settings
from retainer.model.standing import Barred, ErasureNow, HoldNow, Standing
from retainer.plan.decide import decide, items_of, timestamp


def standing(
    facts: Path, settings: Settings, policies: Policies, now: datetime, gone: Mapping[str, str]
) -> Standing:
    """`gone`: what the journal has seen end in 404 or 410. A hold that was released is left out.
    Raises RetainerError for facts that cannot be read."""
    connection = open_facts(facts, settings, gone)
    try:
        with whole_facts(facts):
            decide(connection, policies, now, settings.timezone)
            _cover(connection)
            numbered = list(enumerate(items_of(policies, now.replace(microsecond=0)), 1))
            row = connection.execute(
                "SELECT epoch(max(finished_at)) FROM facts.listings"
            ).fetchone()
            recoverable = connection.execute(
                "SELECT name, keeps_deleted FROM listings WHERE kind = 'store' "
                "AND keeps_deleted IS NOT NULL ORDER BY ALL"
            ).fetchall()
            return Standing(
                now,
                datetime.fromtimestamp(row[0], UTC) if row and row[0] else None,
                tuple(
                    _hold(connection, n, each, now)
                    for n, each in numbered
                    if isinstance(each, Hold)
                ),
                tuple(
                    _erasure(connection, n, each, settings.timezone)
                    for n, each in numbered
                    if isinstance(each, Erasure)
                ),
                tuple(f"{name} {how}" for name, how in recoverable),
            )
    finally:
        connection.close()


def _cover(connection: duckdb.DuckDBPyConnection) -> None:
    """`covered`: each item and each recording that it matches; `there`: what is decided of it."""
    connection.execute("""
        CREATE TEMP TABLE covered AS
        SELECT item_no, certain, asset_no, asset_id FROM matched JOIN member USING (cohort_no);
        CREATE TEMP TABLE kept_somewhere AS
        SELECT DISTINCT asset_no FROM decided
            WHERE complete AND store::VARCHAR NOT IN ('hosted', 'elsewhere');
        CREATE TEMP VIEW leaving AS
        SELECT covered.*, CASE WHEN isfinite(until) THEN until END AS leaves_at
        FROM covered JOIN decided USING (asset_no) WHERE decision = 'lapses';
    """)


def _one(connection: duckdb.DuckDBPyConnection, query: str, values: list[Any]) -> tuple[Any, ...]:
    row = connection.execute(query, values).fetchone()
    assert row is not None
    return tuple(row)


def _counts(connection: duckdb.DuckDBPyConnection, number: int) -> tuple[int, int]:
    """How many recordings an item covers for certain, and how many perhaps."""
    return _one(
        connection,
        "SELECT count(*) FILTER (certain), count(*) FILTER (NOT certain) FROM covered "
        "WHERE item_no = ?",
        [number],
    )


def _hold(connection: duckdb.DuckDBPyConnection, number: int, hold: Hold, now: datetime) -> HoldNow:
    complete, to_copy, lost = _one(
        connection,
        """
        SELECT count(*) FILTER (complete), count(*) FILTER (decision = 'copy'),
            count(*) FILTER (decision = 'lost')
        FROM covered JOIN decided USING (asset_no) WHERE item_no = ? AND store::VARCHAR = ?
        """,
        [number, hold.store],
    )
    alone, first = _one(
        connection,
        "SELECT count(*), epoch(min(leaves_at)) FROM leaving WHERE item_no = ? "
        "AND asset_no NOT IN (FROM kept_somewhere)",
        [number],
    )
    (stops,) = _one(
        connection,
        f"""
        SELECT count(*) FROM covered JOIN decided USING (asset_no)
        LEFT JOIN clauses USING (clause_no) WHERE covered.item_no = ?
        AND (decision = 'blocked' AND list_contains(because, 'hold')
            OR decision = 'keep' AND kind = 'hold' AND delete_from <= {timestamp(now)})
        """,
        [number],
    )
    return HoldNow(
        hold.id,
        str(hold.where),
        hold.why,
        hold.owner,
        hold.store,
        hold.released,
        *_counts(connection, number),
        complete,
        to_copy,
        lost,
        alone,
        moment_at(first),
        stops,
    )


def _erasure(
    connection: duckdb.DuckDBPyConnection, number: int, erasure: Erasure, timezone: str
) -> ErasureNow:
    due, unknown = _one(
        connection,
        """
        SELECT count(*) FILTER (decision = 'delete'), count(*) FILTER (decision = 'unknown')
        FROM covered JOIN decided USING (asset_no) WHERE item_no = ? AND certain
        """,
        [number],
    )
    barred = connection.execute(
        """
        SELECT CASE WHEN decided.store = 'elsewhere' THEN 'undeclared'
                WHEN decision = 'blocked' THEN array_to_string(because, ', ')
                WHEN kind = 'hold' THEN 'hold' ELSE 'legal' END AS why,
            decided.store::VARCHAR, count(*),
            epoch(max(coalesce(CASE WHEN decision = 'keep' THEN until END, locked_until))
                FILTER (isfinite(coalesce(CASE WHEN decision = 'keep' THEN until END,
                    locked_until))))
        FROM covered JOIN decided USING (asset_no) LEFT JOIN clauses USING (clause_no)
        LEFT JOIN (SELECT asset_no, store AS place, locked_until FROM copies) AS copy
            ON copy.asset_no = decided.asset_no AND place = decided.store::VARCHAR
        WHERE covered.item_no = ? AND certain AND (decision IN ('blocked', 'keep', 'copy')
            OR decided.store = 'elsewhere' AND there)
        GROUP BY ALL ORDER BY ALL
        """,
        [number],
    ).fetchall()
    lapsing, last = _one(
        connection,
        "SELECT count(*), epoch(max(leaves_at)) FROM leaving WHERE item_no = ? AND certain",
        [number],
    )
    (others,) = _one(
        connection,
        """
        SELECT count(*) FROM assets WHERE session_id IN (
            SELECT session_id FROM assets JOIN covered USING (asset_no) WHERE item_no = ?)
        AND asset_no NOT IN (SELECT asset_no FROM covered WHERE item_no = ? AND certain)
        """,
        [number, number],
    )
    day = erasure.requested.astimezone(zone_named(timezone)).date() if erasure.requested else None
    return ErasureNow(
        erasure.id,
        str(erasure.where),
        erasure.why,
        erasure.owner,
        erasure.requested,
        _a_month_after(day) if day else None,
        *_counts(connection, number),
        due,
        tuple(Barred(why, store, count, moment_at(until)) for why, store, count, until in barred),
        lapsing,
        moment_at(last),
        unknown,
        others,
    )


def _a_month_after(day: date) -> date:
    """When a request must be answered: within one month of its receipt (GDPR, Art. 12(3)); where
    the month is shorter, on its last day (Regulation 1182/71, Art. 3(2)(c))."""
    year, month = day.year + day.month // 12, day.month % 12 + 1
    return date(year, month, min(day.day, monthrange(year, month)[1]))
