"""Facts and policies -> what each hold and each erasure comes to now: what it covers, and what
stands against it."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path

import duckdb

from retainer.database import NEVER, add_rows, literal, only_row, temp_table
from retainer.inventory.facts import AT_ONCE, open_facts, snapshot_of, whole_facts
from retainer.model.calendar import zone_named
from retainer.model.moment import moment_at
from retainer.model.rule import PERSON_FACTS, Erasure, Hold, Policies, facts_asked
from retainer.model.setting import RESERVED_STORES, Settings
from retainer.model.standing import Barred, ErasureNow, HoldNow, Standing, Undecided
from retainer.plan.decide import ask, timestamp
from retainer.weighing import in_ranges

_NO_STORES = ", ".join(map(literal, RESERVED_STORES))


def standing(
    facts: Path,
    settings: Settings,
    policies: Policies,
    now: datetime,
    gone: Mapping[str, str],
    forgotten: Mapping[str, int],
) -> Standing:
    """`gone`: what the journal has seen end in 404 or 410; `forgotten`: of how many recordings the
    catalogs tell no more, by the erasure. A hold that was released is left out.
    Raises RetainerError for facts that cannot be read."""
    connection = open_facts(facts, settings, gone, AT_ONCE)
    try:
        with whole_facts(facts):
            question = ask(connection, policies, now, settings.timezone)
            numbered = [
                (number, item)
                for number, item in enumerate(question.items, 1)
                if isinstance(item, Hold | Erasure)
            ]
            _name_items(connection, numbered)
            for _ in in_ranges(connection, question, AT_ONCE):
                _add(connection, now)
            recoverable = connection.execute(
                "SELECT name, keeps_deleted FROM listings WHERE kind = 'store' "
                "AND keeps_deleted IS NOT NULL ORDER BY ALL"
            ).fetchall()
            return Standing(
                now,
                snapshot_of(connection).gathered,
                tuple(_hold(connection, n, each) for n, each in numbered if isinstance(each, Hold)),
                tuple(
                    _erasure(connection, n, each, settings.timezone, forgotten.get(each.id, 0))
                    for n, each in numbered
                    if isinstance(each, Erasure)
                ),
                tuple(f"{name} {how}" for name, how in recoverable),
            )
    finally:
        connection.close()


def _name_items(
    connection: duckdb.DuckDBPyConnection, numbered: Sequence[tuple[int, Hold | Erasure]]
) -> None:
    """The tables `holding`, with the store of each hold, and `erasing`."""
    holding = [(number, each.store) for number, each in numbered if isinstance(each, Hold)]
    erasing = [(number,) for number, each in numbered if isinstance(each, Erasure)]
    temp_table(connection, "holding", {"item_no": "INTEGER", "store": "VARCHAR"}, holding)
    temp_table(connection, "erasing", {"item_no": "INTEGER"}, erasing)


def _add(connection: duckdb.DuckDBPyConnection, now: datetime) -> None:
    """What each item comes to in a range, in tables that grow with each: counts, held, erased,
    barred, and `told`, the recordings that are certain to be those of an erasure."""
    # once for all: `decided` is worked out anew each time it is read
    connection.execute("""
        CREATE OR REPLACE TEMP TABLE covered AS
        SELECT item_no, certain, asset_no FROM matched JOIN member USING (cohort_no)
            WHERE item_no IN (SELECT item_no FROM holding UNION ALL FROM erasing);
        CREATE OR REPLACE TEMP TABLE found AS
        SELECT item_no, certain, kind, decided.* FROM covered JOIN decided USING (asset_no)
            LEFT JOIN (SELECT clause_no, kind FROM clauses) USING (clause_no);
    """)
    add_rows(
        connection,
        "counts",
        "SELECT item_no, count(*) FILTER (certain) AS sure, "
        "count(*) FILTER (NOT certain) AS perhaps FROM covered GROUP BY item_no",
    )
    add_rows(
        connection,
        "held",
        f"""
        SELECT item_no, count(*) FILTER (complete AND here) AS complete,
            count(*) FILTER (decision = 'copy' AND here) AS to_copy,
            count(*) FILTER (decision = 'lost' AND here) AS lost,
            count(*) FILTER (decision = 'lapses' AND NOT kept) AS alone,
            count(*) FILTER (decision = 'blocked' AND list_contains(because, 'hold')
                OR decision = 'keep' AND kind = 'hold' AND delete_from <= {timestamp(now)})
                AS stops,
            min(until) FILTER (decision = 'lapses' AND NOT kept AND until < {NEVER}) AS first
        FROM (
            SELECT found.*, found.store::VARCHAR = holding.store AS here,
                coalesce(bool_or(complete AND found.store::VARCHAR NOT IN ({_NO_STORES}))
                    OVER (PARTITION BY item_no, asset_no), false) AS kept
            FROM found JOIN holding USING (item_no)
        )
        GROUP BY item_no
        """,
    )
    add_rows(
        connection,
        "erased",
        f"""
        SELECT item_no, count(*) FILTER (decision = 'delete') AS due,
            count(*) FILTER (decision = 'unknown') AS not_known,
            count(*) FILTER (decision = 'lapses') AS lapsing,
            max(until) FILTER (decision = 'lapses' AND until < {NEVER}) AS last
        FROM found SEMI JOIN erasing USING (item_no) WHERE certain GROUP BY item_no
        """,
    )
    add_rows(
        connection,
        "barred",
        # until the last of them ends; where one never does, or that is not known, there is no end
        """
        SELECT item_no, CASE WHEN store = 'elsewhere' THEN 'undeclared'
                WHEN decision = 'blocked' THEN array_to_string(because, ', ')
                WHEN kind = 'hold' THEN 'hold' ELSE 'legal' END AS why,
            store::VARCHAR AS store, count(*) AS copies,
            max(coalesce(CASE WHEN decision = 'keep' THEN until END, locked_until, 'infinity'))
                AS until
        FROM (FROM found SEMI JOIN erasing USING (item_no)) AS found
        LEFT JOIN (SELECT asset_no, store AS place, locked_until FROM copies) AS copy
            ON copy.asset_no = found.asset_no AND place = store::VARCHAR
        WHERE certain AND (decision IN ('blocked', 'keep', 'copy')
            OR store = 'elsewhere' AND there)
        GROUP BY ALL
        """,
    )
    add_rows(
        connection,
        "told",
        "SELECT item_no, asset_no FROM covered SEMI JOIN erasing USING (item_no) WHERE certain",
    )


def _counts(connection: duckdb.DuckDBPyConnection, number: int) -> tuple[int, int]:
    """How many recordings an item covers for certain, and how many perhaps."""
    certain, perhaps = only_row(
        connection,
        "SELECT coalesce(sum(sure), 0)::BIGINT, coalesce(sum(perhaps), 0)::BIGINT FROM counts "
        f"WHERE item_no = {number}",
    )
    return certain, perhaps


def _hold(connection: duckdb.DuckDBPyConnection, number: int, hold: Hold) -> HoldNow:
    complete, to_copy, lost, alone, stops, first = only_row(
        connection,
        "SELECT coalesce(sum(COLUMNS(* EXCLUDE (item_no, first))), 0)::BIGINT, epoch(min(first)) "
        f"FROM held WHERE item_no = {number}",
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
    connection: duckdb.DuckDBPyConnection,
    number: int,
    erasure: Erasure,
    timezone: str,
    forgotten: int,
) -> ErasureNow:
    due, unknown, lapsing, last = only_row(
        connection,
        "SELECT coalesce(sum(COLUMNS(* EXCLUDE (item_no, last))), 0)::BIGINT, epoch(max(last)) "
        f"FROM erased WHERE item_no = {number}",
    )
    barred = connection.execute(
        "SELECT why, store, sum(copies)::BIGINT, "
        f"CASE WHEN max(until) < {NEVER} THEN epoch(max(until)) END FROM barred "
        f"WHERE item_no = {number} GROUP BY why, store ORDER BY why, store"
    ).fetchall()
    day = erasure.requested.astimezone(zone_named(timezone)).date() if erasure.requested else None
    return ErasureNow(
        erasure.id,
        str(erasure.where),
        erasure.why,
        erasure.owner,
        erasure.requested,
        a_month_after(day) if day else None,
        *_counts(connection, number),
        due,
        tuple(Barred(why, store, count, moment_at(until)) for why, store, count, until in barred),
        lapsing,
        moment_at(last),
        unknown,
        _undecided(connection, number, erasure),
        _misfits(connection, number, erasure, forgotten),
        is_blind=erasure.is_of_a_person and forgotten > 0 and not (erasure.stays or erasure.erases),
        forgotten=forgotten,
    )


_SESSIONS = """
    SELECT session_id FROM assets JOIN told USING (asset_no)
    WHERE item_no = {} AND session_id IS NOT NULL
        AND asset_id NOT IN (SELECT unnest(?::VARCHAR[]))
"""
"""The sessions of what an erasure's match finds, less what was decided."""


def _misfits(
    connection: duckdb.DuckDBPyConnection, number: int, erasure: Erasure, forgotten: int
) -> tuple[str, ...]:
    """What was decided of a recording that is not known, or of no session of the erasure: it may
    be misspelt. Nothing is told once something was erased, since that is not known any more."""
    if forgotten:
        return ()
    rows = connection.execute(
        "SELECT id FROM (SELECT unnest(?::VARCHAR[]) AS id) WHERE id NOT IN (SELECT asset_id "
        f"FROM assets WHERE session_id IN ({_SESSIONS.format(number)})) ORDER BY id",
        [[*erasure.stays, *erasure.erases], list(erasure.erases)],
    ).fetchall()
    return tuple(each for (each,) in rows)


def _undecided(
    connection: duckdb.DuckDBPyConnection, number: int, erasure: Erasure
) -> tuple[Undecided, ...]:
    """What may show the person too: recordings of the same sessions that do not carry what the
    erasure asks for. A composite shows everybody who was in the room, and names nobody."""
    if not erasure.is_of_a_person:
        return ()
    asked = facts_asked(erasure.match) & {*PERSON_FACTS}
    rows = connection.execute(
        f"""
        SELECT asset_id, coalesce(type, ''), epoch(created_at), session_id FROM assets
        WHERE session_id IN ({_SESSIONS.format(number)})
        AND asset_no NOT IN (SELECT asset_no FROM told WHERE item_no = {number})
        AND ({" OR ".join(f"{fact} IS NULL" for fact in sorted(asked))})
        AND asset_id NOT IN (SELECT unnest(?::VARCHAR[]))
        ORDER BY created_at NULLS FIRST, asset_id
        """,
        [list(erasure.erases), list(erasure.stays)],
    ).fetchall()
    return tuple(
        Undecided(asset_id, kind, moment_at(created), session)
        for asset_id, kind, created, session in rows
    )


def a_month_after(day: date) -> date:
    """When a request must be answered: within one month of its receipt (GDPR, Art. 12(3)); where
    the month is shorter, on its last day (Regulation 1182/71, Art. 3(2)(c))."""
    year, month = day.year + day.month // 12, day.month % 12 + 1
    return date(year, month, min(day.day, monthrange(year, month)[1]))
