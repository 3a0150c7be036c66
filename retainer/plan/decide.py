"""Rules and facts -> `decided`: the few parts that decide.sql is assembled from, and the facts it
works on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from duckdb import DuckDBPyConnection

from retainer.database import literal, temp_table
from retainer.model.calendar import changes, start_of_day, zone_named
from retainer.model.period import Period
from retainer.model.rule import Erasure, Hold, Policies, Rule
from retainer.plan.matching import make_matches, named_items
from retainer.plan.predicates import filled, predicate, sections

Item = Rule | Hold | Erasure
DECISIONS = (
    "copy",
    "delete",
    "blocked",
    "lost",
    "uncatalogued",
    "unknown",
    "waiting",
    "keep",
    "unmanaged",
    "lapses",
    "none",
)


@dataclass(frozen=True, slots=True)
class Clause:
    """One thing that one rule, hold or erasure asks for. `kind`: keep, delete, at_most, hold,
    erasure."""

    item: Item
    kind: str
    store: str | None = None
    begins: Period | None = None
    ends: Period | None = None
    legal: bool = False
    versions: bool = False
    """Whether each version goes too, for good."""
    is_end: bool = False
    """Whether it says itself that a recording is to end, and not only that a place is cleared."""


def items_of(policies: Policies, now: datetime) -> list[Item]:
    """Everything that can match at `now`, in the order of the files: a released hold is over."""
    holds = (hold for hold in policies.holds if hold.released is None or hold.released > now)
    return [*policies.rules, *holds, *policies.erasures]


def doubt_of(rule: Rule) -> str:
    """What a copy remembers that this rule alone asked for, and not for certain: the rule's id, and
    a digest of its match, since another match would be another question."""
    return f"{rule.id}@{hashlib.sha256(repr(rule.match).encode()).hexdigest()[:12]}"


def clauses_of(items: Iterable[Item]) -> Iterator[Clause]:
    """What the items ask for, each keep, delete, ceiling, hold and erasure on its own."""
    for item in items:
        match item:
            case Rule():
                for keep in item.keeps:
                    yield Clause(item, "keep", keep.store, keep.after, keep.period, keep.legal)
                    if item.then_delete:
                        yield Clause(item, "delete", keep.store, None, keep.period, is_end=True)
                for delete in item.deletes:
                    yield Clause(
                        item, "delete", delete.store, None, delete.after, versions=delete.versions
                    )
                if item.at_most:
                    yield Clause(item, "at_most", None, None, item.at_most, is_end=True)
            case Hold():
                yield Clause(item, "hold", item.store)
            case Erasure():
                yield Clause(item, "erasure", is_end=True)


@dataclass(frozen=True, slots=True)
class _Sql:
    """decide.sql in its order: what makes `dated`, what weighs each pair, what is found out of keys
    that two assets name, and what is decided then."""

    dated: str
    weighed: str
    sharing: str
    decided: str


def _sql() -> _Sql:
    headings = "What matches", "Keys that two assets name", "What is due"
    return _Sql(*sections("decide.sql", *headings))


def timestamp(moment: datetime) -> str:
    """A moment as an SQL literal, cut to the second."""
    return f"TIMESTAMP '{moment:%Y-%m-%d %H:%M:%S}'"


def _table(
    connection: DuckDBPyConnection, name: str, columns: str, rows: Sequence[tuple[object, ...]]
) -> None:
    """Small tables by one statement: of a thousand rows it would take a second."""
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} ({columns})")
    for start in range(0, len(rows), 100):
        few = rows[start : start + 100]
        one = f"({', '.join('?' for _ in few[0])})"
        connection.execute(
            f"INSERT INTO {name} VALUES {', '.join([one] * len(few))}",
            [value for row in few for value in row],
        )


def _enum(words: Iterable[str]) -> str:
    """SQL: a type of these words, which a million rows hold and write far faster than text."""
    return f"ENUM ({', '.join(map(literal, sorted(set(words)) or ['none']))})"


_FIRST = datetime(2015, 1, 1, tzinfo=UTC)
"""No trusted date is before this one."""


def _calendar(connection: DuckDBPyConnection, timezone: str, now: datetime) -> None:
    """The tables offsets(since, shift), a zone's clock from 2015 to now, and day_start(local_day,
    moment), when days begin that end periods."""
    zone = zone_named(timezone)
    offsets = [
        (since.replace(tzinfo=None), shift)
        for since, shift in changes(zone, _FIRST, now + timedelta(days=1))
    ]
    _table(connection, "offsets", "since TIMESTAMP, shift INTERVAL", offsets)
    days = (
        []
        if timezone == "UTC"
        else connection.execute(f"""
        SELECT DISTINCT (day + to_months(months) + to_days(days) + INTERVAL 1 DAY)::DATE
        FROM (SELECT unnest(generate_series(DATE '2014-12-31',
            ({timestamp(now)} + INTERVAL 2 DAY)::DATE, INTERVAL 1 DAY)) AS day)
        CROSS JOIN (SELECT DISTINCT months, days FROM periods WHERE NOT forever AND micros = 0)
    """).fetchall()
    )
    rows = ((f"{day}", f"{start_of_day(day, zone):%Y-%m-%d %H:%M:%S}") for (day,) in days)
    temp_table(connection, "day_start", {"local_day": "DATE", "moment": "TIMESTAMP"}, rows)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of the facts at one moment, whatever range of them is looked at: the clauses
    that a clause_no counts, from 1, and what decide.sql is completed with."""

    clauses: tuple[Clause, ...]
    items: tuple[Item, ...]
    parts: Mapping[str, str]


def decide(
    connection: DuckDBPyConnection, policies: Policies, now: datetime, timezone: str
) -> tuple[Clause, ...]:
    """Decide every pair at `now` (UTC) from the tables assets, copies, listings and stores(store,
    scheme, rank).

    Leaves `decided`, `clashes` and names(clause_no, rule, rule_at), and returns the clauses that
    their clause_no counts, from 1.
    """
    question = ask(connection, policies, now, timezone)
    decide_range(connection, question, alone=True)
    return question.clauses


def decide_range(connection: DuckDBPyConnection, question: Question, *, alone: bool) -> None:
    """Decide the recordings that `assets` and `copies` hold at this moment. `alone`: nothing but
    these has a key that one of them has; else a range that holds all of those was decided alone
    before."""
    matching = make_matches(connection, [item.match for item in question.items])
    parts = {"$matches": matching.told, "$joins": matching.joins, **question.parts}
    sql = _sql()
    shared = sql.sharing if alone else ""
    connection.execute(filled(sql.weighed + shared + sql.decided, parts))


def ask(
    connection: DuckDBPyConnection, policies: Policies, now: datetime, timezone: str
) -> Question:
    """Make what is asked of all recordings: the tables that decide.sql is given, less the facts,
    and names(clause_no, rule, rule_at)."""
    now = now.replace(microsecond=0)
    items = items_of(policies, now)
    clauses = list(clauses_of(items))
    periods = list(
        dict.fromkeys(
            period for clause in clauses for period in (clause.begins, clause.ends) if period
        )
    )
    numbers: dict[Period | None, int] = {period: number for number, period in enumerate(periods, 1)}
    item_no = {id(item): number for number, item in enumerate(items, 1)}
    clause_rows = [
        (
            number,
            item_no[id(clause.item)],
            clause.kind,
            clause.store,
            numbers.get(clause.begins),
            numbers.get(clause.ends),
            clause.legal,
            clause.item.released.replace(tzinfo=None)
            if isinstance(clause.item, Hold) and clause.item.released
            else None,
            isinstance(clause.item, Rule) and clause.item.cooled,
            clause.versions,
        )
        for number, clause in enumerate(clauses, 1)
    ]
    _table(
        connection,
        "clauses",
        "clause_no INTEGER, item_no INTEGER, kind VARCHAR, store VARCHAR, begins_after INTEGER, "
        "ends_after INTEGER, "
        "legal BOOLEAN, released TIMESTAMP, cooled BOOLEAN, versions BOOLEAN",
        clause_rows,
    )
    period_rows = [
        (numbers[each], each.months, each.days, each.seconds * 1_000_000, each.forever)
        for each in periods
    ]
    _table(
        connection,
        "periods",
        "period_no INTEGER, months INTEGER, days INTEGER, micros BIGINT, forever BOOLEAN",
        period_rows,
    )

    doubts = [
        (number, item_no[id(clause.item)], clause.store, doubt_of(clause.item))
        for number, clause in enumerate(clauses, 1)
        if clause.kind == "keep" and isinstance(clause.item, Rule) and not clause.item.cooled
    ]
    columns = "clause_no INTEGER, item_no INTEGER, store VARCHAR, doubt VARCHAR"
    _table(connection, "doubts", columns, doubts)
    for table, entries in (("accepted", policies.accepts), ("excused", policies.losses)):
        known = sorted({each.asset_id for each in entries})
        _table(connection, table, "asset_id VARCHAR", [(each,) for each in known])

    made = (
        "VIEW decided, TABLE due, TABLE sharing, TABLE blocked, TABLE weighed, TABLE undone, "
        "TABLE missing, VIEW lying, "
        "VIEW counted, VIEW unfinished, TABLE demand, TYPE place, TYPE decision"
    )
    connection.execute(
        "; ".join(f"DROP {each.replace(' ', ' IF EXISTS ')}" for each in made.split(", "))
    )
    connection.execute(
        f"CREATE TEMP TYPE decision AS ENUM ({', '.join(map(literal, (*DECISIONS, 'due')))})"
    )
    connection.execute(
        "CREATE TEMP TYPE place AS ENUM (SELECT name FROM (SELECT unnest(['hosted', 'elsewhere']) "
        "AS name UNION SELECT store FROM stores "
        "UNION SELECT DISTINCT store FROM copies UNION SELECT name FROM listings WHERE kind = "
        "'store' "
        "UNION SELECT store FROM clauses WHERE store IS NOT NULL) ORDER BY name)"
    )
    connection.execute(filled(_sql().dated, {"$now": timestamp(now)}))
    exact = {
        id(clause.item)
        for clause in clauses
        for period in (clause.begins, clause.ends)
        if period and period.exact
    }
    by_name = named_items([item.match for item in items])
    hourly = [
        "true" if number in by_name else f"({predicate(item.match)}) IS NOT FALSE"
        for number, item in enumerate(items, 1)
        if id(item) in exact
    ]
    _calendar(connection, timezone, now)
    later = "(day + to_months(months) + to_days(days) + INTERVAL 1 DAY)"
    parts = {
        "$now": timestamp(now),
        "$hourly": "true" if "true" in hourly else " OR ".join(hourly) or "false",
        "$start_of_day": f"{later}::TIMESTAMP"
        if timezone == "UTC"
        else f"(SELECT moment FROM day_start WHERE local_day = {later}::DATE)",
    }
    names = [
        (number, clause.item.id, str(clause.item.where)) for number, clause in enumerate(clauses, 1)
    ]
    ids, places = _enum(row[1] for row in names), _enum(row[2] for row in names)
    _table(connection, "names", f"clause_no INTEGER, rule {ids}, rule_at {places}", names)
    return Question(tuple(clauses), tuple(items), parts)
