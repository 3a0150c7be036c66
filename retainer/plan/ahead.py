"""The decision -> what it comes to on later days."""

from __future__ import annotations

from datetime import datetime

from duckdb import DuckDBPyConnection

from retainer.database import AS_WRITTEN, without
from retainer.plan.decide import timestamp
from retainer.plan.predicates import filled, sections


def look_ahead(connection: DuckDBPyConnection, now: datetime, *, alone: bool = True) -> None:
    """Make `prospect` and `coming` from what was decided at `now`: for each pair the number of the
    daily plan, from today's 0 on, with which it is copied, deleted, or leaves 100ms.

    `alone`: nothing but these recordings has a key that one of them has; else a look ahead at all
    of those came before, as in `decide_range`.
    """
    foreseen, together, comes = sections("ahead.sql", "Keys that two recordings name", "What comes")
    sql = foreseen + (together if alone else "") + comes
    with without(connection, *AS_WRITTEN):
        connection.execute(filled(sql, {"$now": timestamp(now)}))
