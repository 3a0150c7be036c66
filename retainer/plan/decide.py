"""Rules and facts -> the table `decided`: the few parts that decide.sql is assembled from, and the facts it works on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files

from duckdb import DuckDBPyConnection

from retainer.model.period import Period
from retainer.model.rule import Erasure, Hold, Policies, Rule
from retainer.plan.predicates import literal, predicate

Item = Rule | Hold | Erasure


@dataclass(frozen=True, slots=True)
class Clause:
    """One thing that one rule, hold or erasure asks for. `kind`: keep, delete, at_most, hold, erasure."""

    item: Item
    kind: str
    store: str | None = None
    begins: Period | None = None
    ends: Period | None = None
    legal: bool = False


def items_of(policies: Policies, now: datetime) -> list[Item]:
    """Everything that can match at `now`, in the order of the files: a released hold is over."""
    holds = (hold for hold in policies.holds if hold.released is None or hold.released > now)
    return [*policies.rules, *holds, *policies.erasures]


def clauses_of(items: Iterable[Item]) -> Iterator[Clause]:
    """What the items ask for, each keep, delete, ceiling, hold and erasure on its own."""
    for item in items:
        match item:
            case Rule():
                for keep in item.keeps:
                    yield Clause(item, "keep", keep.store, keep.after, keep.period, keep.legal)
                    if item.then_delete:
                        yield Clause(item, "delete", keep.store, None, keep.period)
                for delete in item.deletes:
                    yield Clause(item, "delete", delete.store, None, delete.after)
                if item.at_most:
                    yield Clause(item, "at_most", None, None, item.at_most)
            case Hold():
                yield Clause(item, "hold", item.store)
            case Erasure():
                yield Clause(item, "erasure")


@cache
def _decision_sql() -> str:
    return files("retainer.plan").joinpath("decide.sql").read_text()


def timestamp(moment: datetime) -> str:
    """A moment as an SQL literal, cut to the second."""
    return f"TIMESTAMP '{moment:%Y-%m-%d %H:%M:%S}'"


def _values(rows: Sequence[tuple[object, ...]], columns: str, empty: str) -> str:
    def written(value: object) -> str:
        match value:
            case None:
                return "NULL"
            case bool() | int():
                return str(value)
            case _:
                return literal(str(value))

    if not rows:
        return f"SELECT * FROM (SELECT {empty}) WHERE false"
    return "SELECT * FROM (VALUES " + ", ".join(f"({', '.join(map(written, row))})" for row in rows) + f") AS _({columns})"


def decide(connection: DuckDBPyConnection, policies: Policies, now: datetime, timezone: str) -> list[Clause]:
    """Decide every pair at `now` (UTC) from the tables assets, copies, listings and stores(store, scheme, rank).

    Leaves the tables `decided`, `clashes` and names(clause_no, rule, rule_at), and returns the clauses that their clause_no and item_no count, from 1.
    """
    now = now.replace(microsecond=0)
    items = items_of(policies, now)
    clauses = list(clauses_of(items))
    periods = list(dict.fromkeys(period for clause in clauses for period in (clause.begins, clause.ends) if period))
    numbers = {period: number for number, period in enumerate(periods, 1)}
    item_no = {id(item): number for number, item in enumerate(items, 1)}
    clause_rows: list[tuple[object, ...]] = [
        (number, item_no[id(clause.item)], clause.kind, clause.store,
         numbers[clause.begins] if clause.begins else None, numbers[clause.ends] if clause.ends else None, clause.legal,
         f"{clause.item.released:%Y-%m-%d %H:%M:%S.%f}" if isinstance(clause.item, Hold) and clause.item.released else None)
        for number, clause in enumerate(clauses, 1)
    ]  # fmt: skip
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE clauses AS SELECT clause_no::INTEGER AS clause_no, item_no::INTEGER AS item_no, kind::VARCHAR AS kind, "
        "store::VARCHAR AS store, begins_after::INTEGER AS begins_after, ends_after::INTEGER AS ends_after, legal::BOOLEAN AS legal, released::TIMESTAMP AS released FROM ("
        + _values(clause_rows, "clause_no, item_no, kind, store, begins_after, ends_after, legal, released",
                  "1 AS clause_no, 1 AS item_no, '' AS kind, '' AS store, 1 AS begins_after, 1 AS ends_after, true AS legal, '' AS released")
        + ")"
    )  # fmt: skip
    period_rows: list[tuple[object, ...]] = [
        (numbers[period], period.months, period.days, period.seconds * 1_000_000, period.forever) for period in periods
    ]
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE periods AS "
        + _values(period_rows, "period_no, months, days, micros, forever",
                  "1 AS period_no, 1 AS months, 1 AS days, 1 AS micros, true AS forever")
    )  # fmt: skip

    connection.execute("DROP TABLE IF EXISTS decided; DROP TABLE IF EXISTS pair; DROP TYPE IF EXISTS place")
    connection.execute(
        "CREATE TEMP TYPE place AS ENUM (SELECT name FROM (SELECT unnest(['hosted', 'elsewhere']) AS name UNION SELECT store FROM stores "
        "UNION SELECT DISTINCT store FROM copies UNION SELECT name FROM listings WHERE kind = 'store' "
        "UNION SELECT store FROM clauses WHERE store IS NOT NULL) ORDER BY name)"
    )
    letters = [f"CASE ({predicate(item.match)}) WHEN true THEN 'y' WHEN false THEN 'n' ELSE '?' END" for item in items]
    exact = {id(clause.item) for clause in clauses for period in (clause.begins, clause.ends) if period and period.exact}
    hourly = [f"({predicate(item.match)}) IS NOT FALSE" for item in items if id(item) in exact]
    later = "(day + to_months(months::INTEGER) + to_days(days::INTEGER) + INTERVAL 1 DAY)::TIMESTAMP"
    zone = literal(timezone)
    parts = {
        "$now": timestamp(now),
        "$matches": " || ".join(letters) or "''",
        "$hourly": " OR ".join(hourly) or "false",
        "$local_day": "slot::DATE" if timezone == "UTC" else f"timezone({zone}, timezone('UTC', slot))::DATE",
        "$start_of_day": later if timezone == "UTC" else f"timezone('UTC', timezone({zone}, {later}))",
    }
    sql = "\n".join(line.split("--", 1)[0] for line in _decision_sql().splitlines())
    for name, part in parts.items():
        sql = sql.replace(name, part)
    connection.execute(sql)
    connection.execute("CREATE OR REPLACE TEMP TABLE names (clause_no INTEGER, rule VARCHAR, rule_at VARCHAR)")
    if clauses:
        names = [(number, clause.item.id, str(clause.item.where)) for number, clause in enumerate(clauses, 1)]
        connection.execute("INSERT INTO names " + _values(names, "clause_no, rule, rule_at", ""))
    return clauses
