"""Facts and policies -> what is to come: the decision of today, and what it comes to day by day."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb

from retainer.database import add_rows, literal, only_row
from retainer.inventory.facts import AT_ONCE, open_facts, snapshot_of, whole_facts
from retainer.model.calendar import zone_named
from retainer.model.forecast import PLANS, Coming, Dearer, Forecast, Lying, Once
from retainer.model.price import GIB, MONTH_DAYS, PRICES_OF, STANDARD, Price
from retainer.model.rule import Policies
from retainer.model.setting import Settings, Store
from retainer.plan.ahead import look_ahead
from retainer.plan.decide import ask, timestamp
from retainer.weighing import Making, in_ranges


def forecast(
    facts: Path, settings: Settings, policies: Policies, project: str, making: Making, days: int
) -> Forecast:
    """What the plans of so many days from `making.now` on will do. Raises RetainerError for facts
    that cannot be read."""
    now = making.now
    connection = open_facts(facts, settings, dict(making.gone), AT_ONCE)
    try:
        with whole_facts(facts):
            question = ask(connection, policies, now, settings.timezone)
            for alone in in_ranges(
                connection, question, AT_ONCE, lambda: look_ahead(connection, now)
            ):
                look_ahead(connection, now, alone=alone)
                add_outlook(connection, settings)
                _add(connection, settings, now, days)
            return _forecast(connection, settings, project, now, days)
    finally:
        connection.close()


def _add(
    connection: duckdb.DuckDBPyConnection, settings: Settings, now: datetime, days: int
) -> None:
    """What comes of a range, in tables that grow with each: came, unforeseen, copied, early,
    dear."""
    add_rows(
        connection,
        "came",
        f"""
        SELECT plan, what, coalesce(rule::VARCHAR, '') AS rule, store,
            count(DISTINCT asset_no) AS recordings, count(*) AS copies,
            coalesce(sum(bytes), 0)::BIGINT AS bytes,
            count(DISTINCT asset_no) FILTER (is_last) AS last_copies
        FROM coming LEFT JOIN names USING (clause_no) WHERE plan < {days} GROUP BY ALL
        """,
    )
    add_rows(
        connection,
        "unforeseen",
        """
        SELECT count(*) AS recordings FROM (
            SELECT asset_no FROM expected WHERE verdict = 'unknown'
                OR (there AND created IS NULL AND erasure IS NULL)
                OR (verdict = 'due' AND list_has_any(because, ['unknown', 'lock']) AND free_on > 0)
            UNION SELECT asset_no FROM member JOIN matched USING (cohort_no) WHERE NOT certain
        )
        """,
    )
    add_rows(
        connection,
        "copied",
        f"""
        SELECT store::VARCHAR AS store, {_is_small(settings)} AS small, source,
            sum(objects)::BIGINT AS objects, coalesce(sum(bytes), 0)::BIGINT AS bytes
        FROM prospect WHERE copied_on < {days} GROUP BY ALL
        """,
    )
    for table, each in (("early", _early(settings, now, days)), ("dear", _dear(settings, days))):
        if several := " UNION ALL ".join(each):
            add_rows(connection, table, several)


def _early(settings: Settings, now: datetime, days: int) -> Iterator[str]:
    """SQL: of each store and class with a least time, the bytes that go before it is over, each
    times the days that are left of it."""
    for store in settings.stores:
        for small in (False, True):
            price = _price(settings, store.name, small)
            if price and price.least_days:
                yield (
                    f"SELECT {literal(store.name)} AS store, {small} AS small, "
                    f"coalesce(sum(bytes * greatest(0, {price.least_days} - (deleted_on - "
                    f"coalesce(copied_on, -date_diff('day', created, {timestamp(now)}), 0)))), "
                    "0) AS byte_days "
                    f"FROM prospect WHERE deleted_on < {days} AND store::VARCHAR = "
                    f"{literal(store.name)} AND {_is_small(settings)} = {small}"
                )


def _dear(settings: Settings, days: int) -> Iterator[str]:
    """SQL: of each store with a class of its own, the copies to come that cost more there than in
    the standard one, and by how many dollars, and what all of them are."""
    lain = f"coalesce(deleted_on - copied_on, {_ENDLESS_DAYS})"
    cost = (
        "({0.put} * objects / 1000 + {0.storage} * bytes / {1} * greatest({2}, {0.least_days})"
        " / {3})"
    )
    for store, *classes in _colder(settings):
        dear, plain = (cost.format(each, GIB, lain, MONTH_DAYS) for each in classes)
        yield (
            f"SELECT {literal(store.name)} AS store, count(*) FILTER ({dear} > {plain}) AS copies, "
            f"count(*) AS of_all, coalesce(sum({dear} - {plain}) FILTER ({dear} > {plain}), 0)"
            "::DOUBLE AS dollars, coalesce(sum(bytes), 0)::BIGINT AS bytes, "
            "coalesce(sum(objects), 0)::BIGINT AS objects "
            f"FROM prospect WHERE copied_on < {days} AND bytes > 0 AND store::VARCHAR = "
            f"{literal(store.name)} AND NOT {_is_small(settings)}"
        )


def _forecast(
    connection: duckdb.DuckDBPyConnection,
    settings: Settings,
    project: str,
    now: datetime,
    days: int,
) -> Forecast:
    snapshot = snapshot_of(connection)
    (unforeseen,) = only_row(connection, "SELECT sum(recordings)::BIGINT FROM unforeseen")
    lying = tuple(outlook(connection, settings))
    return Forecast(
        now=now,
        days=days,
        project=project,
        timezone=settings.timezone,
        facts_id=snapshot.id,
        gathered=snapshot.gathered,
        incomplete=snapshot.incomplete,
        coming=tuple(_coming(connection, settings, now)),
        lying=lying,
        once=tuple(_once(connection, settings)),
        dearer=tuple(_dearer(connection, settings)),
        unpriced=tuple(sorted({each.store for each in lying if each.monthly is None})),
        unforeseen=unforeseen,
        prices_of=PRICES_OF,
        tool=version("retainer"),
    )


def _coming(
    connection: duckdb.DuckDBPyConnection, settings: Settings, now: datetime
) -> Iterator[Coming]:
    zone = zone_named(settings.timezone)

    def day(plan: int) -> date:
        return (now + timedelta(days=plan)).astimezone(zone).date()

    rows = connection.execute("""
        SELECT plan, what, rule, store, sum(recordings)::BIGINT, sum(copies)::BIGINT,
            sum(bytes)::BIGINT, sum(last_copies)::BIGINT
        FROM came GROUP BY ALL ORDER BY ALL
    """).fetchall()
    for plan, what, rule, store, *counts in rows:
        yield Coming(day(plan), what, rule, store, *counts)


def add_outlook(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """What of a range lies where now and later, from the table `prospect`."""
    later = ", ".join(
        f"coalesce(sum(bytes) FILTER ((there OR copied_on <= {plan}) "
        f"AND (deleted_on IS NULL OR deleted_on > {plan})), 0)::BIGINT AS after_{plan}"
        for plan in PLANS
    )
    add_rows(
        connection,
        "outlooks",
        f"""
        SELECT store::VARCHAR AS store, {_is_small(settings)} AS small, coalesce(type, '') AS type,
            coalesce(sum(bytes) FILTER (there), 0)::BIGINT AS bytes, {later}
        FROM prospect GROUP BY ALL
        """,
    )


def outlook(connection: duckdb.DuckDBPyConnection, settings: Settings) -> Iterator[Lying]:
    """What lies where now and later, once every range was added."""
    later = ", ".join(f"sum(after_{plan})::BIGINT" for plan in PLANS)
    rows = connection.execute(
        f"SELECT store, small, type, sum(bytes)::BIGINT, {later} FROM outlooks "
        "GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    strays = connection.execute(
        "SELECT name, stray_bytes FROM listings WHERE kind = 'store' AND stray_bytes > 0 "
        "ORDER BY name"
    ).fetchall()
    rows += [(name, False, "", *[size] * (1 + len(PLANS))) for name, size in strays]
    for name, small, kind, *sizes in rows:
        if store := settings.store(name):
            price = _price(settings, name, small)
            monthly = tuple(price.monthly(size) for size in sizes) if price else None
            yield Lying(name, _class(store, small), kind, tuple(sizes), monthly)


def _class(store: Store, small: bool) -> str:
    """The class of what lies in a store; empty: the bucket's own."""
    return "" if store.storage_class is None or small else store.storage_class


def _is_small(settings: Settings) -> str:
    """SQL: whether the objects of a pair stay in the standard class of a store that has another."""
    cases = " ".join(
        f"WHEN {literal(store.name)} THEN bytes < objects * {store.storage_class_from}"
        for store in settings.stores
        if store.storage_class
    )
    return f"coalesce(CASE store::VARCHAR {cases} END, false)" if cases else "false"


def _price(settings: Settings, name: str | None, small: bool = False) -> Price | None:
    store = settings.store(name) if name else None
    return settings.price(store, _class(store, small) or STANDARD) if store else None


def _once(connection: duckdb.DuckDBPyConnection, settings: Settings) -> Iterator[Once]:
    spent: dict[str, list[float]] = {}

    def spend(store: str, kind: int, dollars: float) -> None:
        spent.setdefault(store, [0.0] * 4)[kind] += dollars

    copies = connection.execute(
        "SELECT store, small, source, sum(objects)::BIGINT, sum(bytes)::BIGINT FROM copied "
        "GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    for name, small, source, objects, size in copies:
        if price := _price(settings, name, small):
            spend(name, 0, price.put * objects / 1000)
        if source and (read := _price(settings, source)):
            spend(source, 1, read.retrieval * size / GIB)
            if not _same_cloud(settings.store(source), settings.store(name)):
                spend(source, 2, read.egress * size / GIB)
    for name, small, byte_days in _rows(
        connection, "early", "store, small, sum(byte_days)::DOUBLE"
    ):
        if price := _price(settings, name, small):
            spend(name, 3, price.monthly(byte_days) / MONTH_DAYS)
    for name in sorted(spent):
        if any(spent[name]):
            yield Once(name, *spent[name])


def _same_cloud(one: Store | None, other: Store | None) -> bool:
    return bool(one and other and (one.scheme, one.endpoint) == (other.scheme, other.endpoint))


_ENDLESS_DAYS = 36_500


def _colder(settings: Settings) -> Iterator[tuple[Store, Price, Price]]:
    """The stores with a class of their own that costs something else, and what it and the standard
    one cost."""
    for store in settings.stores:
        cold, standard = settings.price(store), settings.price(store, STANDARD)
        if store.storage_class and cold and standard and cold != standard:
            yield store, cold, standard


def _dearer(connection: duckdb.DuckDBPyConnection, settings: Settings) -> Iterator[Dearer]:
    found = {
        name: row
        for name, *row in _rows(
            connection,
            "dear",
            "store, sum(copies)::BIGINT, sum(of_all)::BIGINT, sum(dollars)::DOUBLE, "
            "sum(bytes)::DOUBLE, sum(objects)::DOUBLE",
        )
    }
    for store, cold, standard in _colder(settings):
        copies, of_all, dollars, size, objects = found[store.name]
        if copies:
            even = _break_even(cold, standard, size / of_all, objects / of_all)
            yield Dearer(store.name, store.storage_class or "", copies, of_all, dollars, even)


def _rows(connection: duckdb.DuckDBPyConnection, table: str, columns: str) -> list[tuple[Any, ...]]:
    """What all ranges come to in a table that there is only where one of them added to it."""
    if not connection.execute(
        "SELECT 1 FROM duckdb_tables() WHERE temporary AND table_name = ?", [table]
    ).fetchall():
        return []
    return connection.execute(f"SELECT {columns} FROM {table} GROUP BY ALL ORDER BY ALL").fetchall()


def _break_even(cold: Price, standard: Price, size: float, objects: float) -> int:
    """After how many days the colder class has cost no more than the standard one; -1: never."""
    many = round(objects)

    def pays(days: int) -> bool:
        return cold.kept(size, many, days) <= standard.kept(size, many, days)

    day = bisect_left(range(_ENDLESS_DAYS), True, key=pays)
    return day if day < _ENDLESS_DAYS else -1
