"""Numbers with their units, moments and spans of time, as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def size(count: float | None) -> str:
    """Bytes with a decimal unit, as clouds bill them: 1.2 GB."""
    if count is None:
        return "? B"
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB", "TB", "PB"):
        count /= 1000
        if count < 999.5 or unit == "PB":
            return f"{count:.3g} {unit}" if count < 100 else f"{count:.0f} {unit}"
    return ""


def many(count: int, noun: str, plural: str | None = None) -> str:
    """`1 copy`, `1,200 copies`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def moment(when: datetime | None) -> str:
    """To the minute, in UTC."""
    return "never" if when is None else when.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def span(length: timedelta) -> str:
    """A length of time, roughly: `40 hours`, `12 days`."""
    seconds = abs(length.total_seconds())
    for unit, in_seconds in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= in_seconds * (3 if unit == "day" else 1):
            return many(int(seconds // in_seconds), unit)
    return many(int(seconds), "second")


def relative(when: datetime, now: datetime) -> str:
    """`in 40 hours`, `3 days ago`."""
    return f"in {span(when - now)}" if when > now else f"{span(now - when)} ago"
