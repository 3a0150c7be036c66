"""The calendar of a time zone, from one database: the `tzdata` package, whatever the machine has.
No other part knows of zones."""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import cache, lru_cache
from importlib.metadata import version
from zoneinfo import ZoneInfo

zoneinfo.reset_tzpath(
    ()
)  # zoneinfo would take the machine's files first, and those of Debian 12 differ in fifteen zones

_STEP = timedelta(hours=6)
"""No zone has changed its clock twice within so long since 2015."""


@cache
def zone_named(name: str) -> ZoneInfo:
    """A zone of the IANA database. Raises ValueError for any other name, such as `localtime`."""
    try:
        return ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"`{name}` is not a time zone") from None


def zone_names() -> frozenset[str]:
    """The names of all zones."""
    return frozenset(zoneinfo.available_timezones())


def zones_version() -> str:
    """The version of the database, such as 2026.2."""
    return version("tzdata")


@lru_cache(1 << 20)
def start_of_day(day: date, zone: ZoneInfo) -> datetime:
    """The first instant of a local day, in UTC: where a clock shows midnight twice, the first;
    where it never does, what follows."""
    midnight = datetime.combine(day, time(), zone)
    first = midnight.replace(fold=0).astimezone(UTC)
    if first.astimezone(zone).date() >= day and first.astimezone(zone).replace(
        tzinfo=None
    ) == midnight.replace(tzinfo=None):
        return first
    # Midnight was skipped. Both readings of it lie beside the gap, which ends between them.
    early, late = sorted((first, midnight.replace(fold=1).astimezone(UTC)))
    while late - early > timedelta(seconds=1):
        middle = early + (late - early) / 2
        early, late = (early, middle) if middle.astimezone(zone).date() >= day else (middle, late)
    return late.replace(microsecond=0)


def changes(
    zone: ZoneInfo, first: datetime, last: datetime
) -> Iterator[tuple[datetime, timedelta]]:
    """The zone's offsets between two moments (UTC): from when each one is in force."""
    moment, offset = first, _offset(zone, first)
    yield first, offset
    if zone.utcoffset(None) is not None:
        return  # only a zone whose clock never changes can say it of no moment
    while moment < last:
        following = moment + _STEP
        if (then := _offset(zone, following)) != offset:
            before, after = moment, following
            while after - before > timedelta(seconds=1):
                middle = before + (after - before) / 2
                before, after = (
                    (middle, after) if _offset(zone, middle) == offset else (before, middle)
                )
            yield after.replace(microsecond=0), then
            offset = then
        moment = following


def _offset(zone: ZoneInfo, moment: datetime) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()
