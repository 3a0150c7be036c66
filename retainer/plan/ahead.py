"""The decision -> what it comes to on later days."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from importlib.resources import files

from duckdb import DuckDBPyConnection

from retainer.plan.decide import timestamp
from retainer.plan.predicates import filled


@cache
def _sql() -> str:
    return files("retainer.plan").joinpath("ahead.sql").read_text(encoding="utf-8")


def look_ahead(connection: DuckDBPyConnection, now: datetime) -> None:
    """Make `prospect` and `coming` from what was decided at `now`: for each pair the number of the
    daily plan, from today's 0 on, with which it is copied, deleted, or leaves 100ms."""
    connection.execute(filled(_sql(), {"$now": timestamp(now)}))
