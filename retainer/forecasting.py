"""Facts and policies -> what is to come: the decision of today, and what it comes to day by day."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import duckdb

from retainer.database import literal, only_row
from retainer.inventory.facts import open_facts, snapshot_of, whole_facts
from retainer.model.calendar import zone_named
from retainer.model.forecast import PLANS, Coming, Dearer, Forecast, Lying, Once
from retainer.model.price import GIB, MONTH_DAYS, PRICES_OF, STANDARD, Price
from retainer.model.rule import Policies
from retainer.model.setting import Settings, Store
from retainer.plan.ahead import look_ahead
from retainer.plan.decide import decide, timestamp
from retainer.weighing import Making


def forecast(
    facts: Path, settings: Settings, policies: Policies, project: str, making: Making, days: int
) -> Forecast:
    """What the plans of so many days from `making.now` on will do. Raises RetainerError for facts
    that cannot be read."""
    connection = open_facts(facts, settings, dict(making.gone))
    try:
        with whole_facts(facts):
            decide(connection, policies, making.now, settings.timezone)
            look_ahead(connection, making.now)
            return _forecast(connection, settings, project, making.now, days)
    finally:
        connection.close()


def _forecast(
    connection: duckdb.DuckDBPyConnection,
    settings: Settings,
    project: str,
    now: datetime,
    days: int,
) -> Forecast:
    snapshot = snapshot_of(connection)
    (unforeseen,) = only_row(
        connection,
        """
        SELECT count(*) FROM (
            SELECT asset_no FROM expected WHERE verdict = 'unknown'
                OR (there AND created IS NULL AND erasure IS NULL)
                OR (verdict = 'due' AND list_has_any(because, ['unknown', 'lock']) AND free_on > 0)
            UNION SELECT asset_no FROM member JOIN matched USING (cohort_no) WHERE NOT certain
        )
        """,
    )
    lying = tuple(outlook(connection, settings))
    return Forecast(
        now=now,
        days=days,
        project=project,
        timezone=settings.timezone,
        facts_id=snapshot.id,
        gathered=snapshot.gathered,
        incomplete=snapshot.incomplete,
        coming=tuple(_coming(connection, settings, now, days)),
        lying=lying,
        once=tuple(_once(connection, settings, now, days)),
        dearer=tuple(_dearer(connection, settings, days)),
        unpriced=tuple(sorted({each.store for each in lying if each.monthly is None})),
        unforeseen=unforeseen,
        prices_of=PRICES_OF,
        tool=version("retainer"),
    )


def _coming(
    connection: duckdb.DuckDBPyConnection, settings: Settings, now: datetime, days: int
) -> Iterator[Coming]:
    zone = zone_named(settings.timezone)

    def day(plan: int) -> date:
        return (now + timedelta(days=plan)).astimezone(zone).date()

    rows = connection.execute(f"""
        SELECT plan, what, coalesce(rule::VARCHAR, ''), store, count(DISTINCT asset_no), count(*),
            coalesce(sum(bytes), 0)::BIGINT, count(DISTINCT asset_no) FILTER (is_last)
        FROM coming LEFT JOIN names USING (clause_no) WHERE plan < {days}
        GROUP BY ALL ORDER BY ALL
    """).fetchall()
    for plan, what, rule, store, *counts in rows:
        yield Coming(day(plan), what, rule, store, *counts)


def outlook(connection: duckdb.DuckDBPyConnection, settings: Settings) -> Iterator[Lying]:
    """What lies where now and later, from the table `prospect`."""
    later = ", ".join(
        f"coalesce(sum(bytes) FILTER ((there OR copied_on <= {plan}) "
        f"AND (deleted_on IS NULL OR deleted_on > {plan})), 0)::BIGINT"
        for plan in PLANS
    )
    rows = connection.execute(f"""
        SELECT store::VARCHAR, {_is_small(settings)} AS small, coalesce(type, ''),
            coalesce(sum(bytes) FILTER (there), 0)::BIGINT, {later}
        FROM prospect GROUP BY ALL ORDER BY ALL
    """).fetchall()
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


def _once(
    connection: duckdb.DuckDBPyConnection, settings: Settings, now: datetime, days: int
) -> Iterator[Once]:
    spent: dict[str, list[float]] = {}

    def spend(store: str, kind: int, dollars: float) -> None:
        spent.setdefault(store, [0.0] * 4)[kind] += dollars

    copies = connection.execute(f"""
        SELECT store::VARCHAR, {_is_small(settings)} AS small, source, sum(objects)::BIGINT,
            coalesce(sum(bytes), 0)::BIGINT
        FROM prospect WHERE copied_on < {days} GROUP BY ALL
    """).fetchall()
    for name, small, source, objects, size in copies:
        if price := _price(settings, name, small):
            spend(name, 0, price.put * objects / 1000)
        if source and (read := _price(settings, source)):
            spend(source, 1, read.retrieval * size / GIB)
            if not _same_cloud(settings.store(source), settings.store(name)):
                spend(source, 2, read.egress * size / GIB)
    for store in settings.stores:
        for small in (False, True):
            price = _price(settings, store.name, small)
            if price is None or not price.least_days:
                continue
            (early,) = only_row(
                connection,
                f"SELECT coalesce(sum(bytes * greatest(0, {price.least_days} - (deleted_on - "
                f"coalesce(copied_on, -date_diff('day', created, {timestamp(now)}), 0)))), "
                "0)::DOUBLE "
                f"FROM prospect WHERE deleted_on < {days} AND store::VARCHAR = "
                f"{literal(store.name)} AND {_is_small(settings)} = {small}",
            )
            spend(store.name, 3, price.monthly(early) / MONTH_DAYS)
    for name in sorted(spent):
        if any(spent[name]):
            yield Once(name, *spent[name])


def _same_cloud(one: Store | None, other: Store | None) -> bool:
    return bool(one and other and (one.scheme, one.endpoint) == (other.scheme, other.endpoint))


_ENDLESS_DAYS = 36_500


def _dearer(
    connection: duckdb.DuckDBPyConnection, settings: Settings, days: int
) -> Iterator[Dearer]:
    for store in settings.stores:
        cold, standard = settings.price(store), settings.price(store, STANDARD)
        if not (store.storage_class and cold and standard) or cold == standard:
            continue
        lain = f"coalesce(deleted_on - copied_on, {_ENDLESS_DAYS})"
        cost = (
            "({0.put} * objects / 1000 + {0.storage} * bytes / {1} * greatest({2}, {0.least_days})"
            " / {3})"
        )
        dear, plain = (cost.format(each, GIB, lain, MONTH_DAYS) for each in (cold, standard))
        copies, of, dollars, mean_bytes, mean_objects = only_row(
            connection,
            f"SELECT count(*) FILTER ({dear} > {plain}), count(*), "
            f"coalesce(sum({dear} - {plain}) FILTER ({dear} > {plain}), 0)::DOUBLE, "
            "coalesce(avg(bytes), 0)::DOUBLE, coalesce(avg(objects), 1)::DOUBLE "
            f"FROM prospect WHERE copied_on < {days} AND bytes > 0 AND store::VARCHAR = "
            f"{literal(store.name)} AND NOT {_is_small(settings)}",
        )
        if copies:
            even = _break_even(cold, standard, mean_bytes, mean_objects)
            yield Dearer(store.name, store.storage_class, copies, of, dollars, even)


def _break_even(cold: Price, standard: Price, size: float, objects: float) -> int:
    """After how many days the colder class has cost no more than the standard one; -1: never."""
    many = round(objects)

    def pays(days: int) -> bool:
        return cold.kept(size, many, days) <= standard.kept(size, many, days)

    day = bisect_left(range(_ENDLESS_DAYS), True, key=pays)
    return day if day < _ENDLESS_DAYS else -1
