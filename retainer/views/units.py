"""Numbers with their units, moments and spans of time, as people read them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Literal

Kind = Literal["text", "id", "place", "count", "bytes", "dollars", "moment", "since", "through"]
"""What a cell is: `moment` to the minute; `since`: a moment whose day is meant, where it is the
start of one; `through`: the end of something, by its last day."""
Weight = Literal["bad", "worry", "unsure", "good", "plain"]
"""How much something matters: it goes or failed; a person should look; it is not certain; it is
well; it is told."""


@dataclass(frozen=True, slots=True)
class Weighed:
    """A text that matters so much."""

    weight: Weight
    text: str


Cell = str | int | float | datetime | Weighed | None


def shown_cell(cell: Cell, kind: Kind, zone: tzinfo = UTC) -> str:
    """A cell of a table as text, by what its column holds."""
    if cell is None:
        return "? B" if kind == "bytes" else ""
    if isinstance(cell, datetime):
        return {"since": since, "through": through}.get(kind, moment)(cell, zone)
    if isinstance(cell, Weighed):
        return cell.text
    if isinstance(cell, str):
        return cell
    if kind == "bytes":
        return size(cell)
    if kind == "dollars":
        return dollars(cell)
    return f"{cell:,}" if isinstance(cell, int) else f"{cell:,g}"


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


def dollars(amount: float) -> str:
    """An estimate in US dollars: never more than three digits that mean something."""
    sign, amount = "−" if amount < 0 else "", abs(amount)
    if amount >= 100:
        return f"{sign}${float(f'{amount:.3g}'):,.0f}"
    return f"{sign}${amount:.2f}" if amount >= 0.01 else "$0" if not amount else f"under {sign}1 ¢"


def about(amount: float) -> str:
    """The same in a sentence: `about $37`, `under 1 ¢`, `nothing`."""
    if not amount:
        return "nothing"
    told = dollars(amount)
    return told if told.startswith("under") else f"about {told}"


def many(count: int, noun: str, plural: str | None = None) -> str:
    """`1 copy`, `1,200 copies`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def moment(when: datetime | None, zone: tzinfo = UTC) -> str:
    """To the minute, in a zone that is named."""
    return "never" if when is None else when.astimezone(zone).strftime("%Y-%m-%d %H:%M %Z")


def since(when: datetime | None, zone: tzinfo = UTC) -> str:
    """From when something holds: the day alone where it begins with the day."""
    if when is None:
        return "never"
    day = _whole_day(when, zone)
    return day.strftime("%Y-%m-%d") if day else moment(when, zone)


def through(when: datetime | None, zone: tzinfo = UTC) -> str:
    """Until when something holds, with the last day that counts: what ends as a day begins was kept
    through the day before."""
    if when is None:
        return "forever"
    day = _whole_day(when, zone)
    if day is None:
        return f"until {moment(when, zone)}"
    return f"through {day - timedelta(days=1):%Y-%m-%d}"


def _whole_day(when: datetime, zone: tzinfo) -> datetime | None:
    """The local day whose first instant a moment is, or None."""
    local = when.astimezone(zone)
    before = (when - timedelta(seconds=1)).astimezone(zone)
    return local if before.date() < local.date() else None


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
