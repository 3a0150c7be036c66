"""Moments in UTC, read from RFC 3339 text and written for people and files."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache

_RFC3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)


@lru_cache(1024)
def read_moment(text: str) -> datetime | None:
    """An RFC 3339 moment with a zone as UTC, cut to the microsecond; None when it is not one (a
    leap second is not)."""
    found = _RFC3339.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    micro = int((found[7] or "0")[:6].ljust(6, "0"))
    offset = timedelta(hours=int(found[9] or 0), minutes=int(found[10] or 0))
    if offset >= timedelta(days=1) or int(found[10] or 0) > 59:
        return None
    try:
        local = datetime(year, month, day, hour, minute, second, micro, UTC)
        return local - offset if found[8] != "-" else local + offset
    except (ValueError, OverflowError):
        return None


def read_http_date(text: object) -> datetime | None:
    """A `Date` or `Last-Modified` of HTTP as UTC, which it always means; None when it is none."""
    try:
        moment = parsedate_to_datetime(str(text))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def write_moment(moment: datetime) -> str:
    """A moment as RFC 3339 in UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_lock(until: datetime | None) -> str | None:
    """The end of a lock as DuckDB reads it; `datetime.max` is a hold without an end."""
    if until is None:
        return None
    return "infinity" if until.year >= 9999 else until.strftime("%Y-%m-%d %H:%M:%S")


def read_lock(text: str | None) -> datetime | None:
    """The end of a lock as `write_lock` wrote it; None where there is none."""
    if text is None:
        return None
    if text == "infinity":
        return datetime.max.replace(tzinfo=UTC)
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def moment_at(seconds: float | None) -> datetime | None:
    """Seconds since 1970, as DuckDB's `epoch` gives them, as a moment in UTC; None stays None."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
