"""Periods as policies write them: `36h 30d 2w 6mo 7y forever` and ISO 8601."""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache


@dataclass(frozen=True, slots=True)
class Period:
    """A length of time counted from `created_at`.

    Calendar parts (`months`, `days`) end at the start of the day after; `seconds` are exact. The
    two are never mixed. `forever` has no end.
    """

    months: int = 0
    days: int = 0
    seconds: int = 0
    forever: bool = False
    text: str = field(default="", compare=False)

    @property
    def exact(self) -> bool:
        return self.seconds > 0

    @cache  # noqa: B019 - periods are few
    def is_longer_than(self, other: Period) -> bool:
        """Whether this period ends after the other one, from whatever moment they are counted."""
        if self.forever or other.forever:
            return self.forever and not other.forever
        slack = _slack(self, other)
        return all(_end(start, self) > _end(start, other) + slack for start in _STARTS)

    @cache  # noqa: B019 - periods are few
    def reaches(self, other: Period) -> bool:
        """Whether this period ends no earlier than the other one, from whatever moment they are
        counted: 366d reaches 1y, and 365d does not."""
        if self.forever or other.forever:
            return self.forever
        slack = _slack(self, other)
        return all(_end(start, self) >= _end(start, other) + slack for start in _STARTS)

    def ends(self, start: datetime) -> datetime:
        """Where it ends in a calendar without zones, counted from a moment; not for ever."""
        return _end(start.replace(tzinfo=None), self)


def _slack(one: Period, other: Period) -> timedelta:
    """A calendar day may have 23 or 25 hours."""
    return timedelta(hours=2) if one.exact != other.exact else timedelta()


def _end(start: datetime, period: Period) -> datetime:
    """Where a period ends in a calendar without zones."""
    if period.exact:
        return start + timedelta(seconds=period.seconds)
    months = start.year * 12 + start.month - 1 + period.months
    year, month = divmod(months, 12)
    day = min(start.day, monthrange(year, month + 1)[1])
    return datetime(year, month + 1, day) + timedelta(days=period.days + 1)  # noqa: DTZ001


_STARTS = tuple(
    datetime(year, month, min(day, monthrange(year, month)[1]), hour, minute)  # noqa: DTZ001
    for year in (2023, 2024, 2025, 2026, 2096, 2097, 2098, 2099)
    for month in range(1, 13)
    for day in (1, 27, 28, 29, 30, 31)
    for hour, minute in ((0, 0), (23, 59))
)
"""Starts that show every difference: each month's ends, in and after leap years, and around 2100,
which has no leap day."""


_SHORT = re.compile(r"([0-9]+)(h|d|w|mo|y)")
_ISO = re.compile(
    r"P(?=[0-9T])(?:([0-9]+)Y)?(?:([0-9]+)M)?(?:([0-9]+)W)?(?:([0-9]+)D)?(?:T(?=[0-9])(?:([0-9]+)H)?(?:([0-9]+)M)?(?:([0-9]+)S)?)?"
)
_LONGEST_YEARS = 1000


_SPELT = re.compile(r"([0-9]+)\s*(hour|h|day|d|week|w|month|mo|year|yr|y)s?")
_UNITS = {"hour": "h", "day": "d", "week": "w", "month": "mo", "year": "y", "yr": "y"}


def _meant(text: str) -> str | None:
    """What was probably meant by what is no period: units in words or capitals, or several side by
    side."""
    spelt = text.strip().lower()
    if spelt == "forever":
        return "forever"
    found = [(count, _UNITS.get(unit, unit)) for count, unit in _SPELT.findall(spelt)]
    if not found or _SPELT.sub("", spelt).strip(" ,+"):
        return None
    if len(found) == 1:
        return "".join(found[0])
    several = {unit: count for count, unit in found}
    if len(several) < len(found) or "h" in several:
        return None
    iso = {"y": "Y", "mo": "M", "w": "W", "d": "D"}
    return "P" + "".join(several[unit] + iso[unit] for unit in iso if unit in several)


def parse_period(text: str) -> Period:
    """Read a period. Raises ValueError with a sentence that says what is wrong and what to
    write."""
    if text == "forever":
        return Period(forever=True, text=text)
    if re.search(r"[0-9]{8}", text):
        raise ValueError(f"longer than {_LONGEST_YEARS} years; write `forever` if it has no end")
    if found := _SHORT.fullmatch(text):
        count, unit = int(found[1]), found[2]
        period = {
            "h": Period(seconds=count * 3600, text=text),
            "d": Period(days=count, text=text),
            "w": Period(days=count * 7, text=text),
            "mo": Period(months=count, text=text),
            "y": Period(months=count * 12, text=text),
        }[unit]
    elif found := _ISO.fullmatch(text):
        years, months, weeks, days, hours, minutes, seconds = (
            int(part or 0) for part in found.groups()
        )
        period = Period(
            months=years * 12 + months,
            days=weeks * 7 + days,
            seconds=hours * 3600 + minutes * 60 + seconds,
            text=text,
        )
        if "T" in text and not text.startswith("PT"):
            raise ValueError(
                "a date part and a time part cannot stand together; write only one of them"
            )
    elif re.fullmatch(r"[0-9]+m", text):
        raise ValueError(
            f"`m` may mean minutes or months; write `{text}o` for months, or hours as "
            f"`{text[:-1]}h`"
        )
    elif re.fullmatch(r"-.*", text):
        raise ValueError("a period cannot be negative")
    elif re.fullmatch(r"[0-9]*[.,][0-9]+\s*[a-z]+", text):
        raise ValueError(
            "fractions are not periods; use a smaller unit, such as 36h for one and a half days"
        )
    else:
        meant = _meant(text)
        try:
            meant = parse_period(meant).text if meant else None
        except ValueError:
            meant = None
        raise ValueError(
            f"not a period; did you mean `{meant}`?"
            if meant
            else "not a period; write for example 36h, 30d, 2w, 6mo, 7y, forever or P1Y6M"
        )
    if period == Period():
        raise ValueError("a period of nothing; the shortest is 1h")
    if period.months / 12 + period.days / 366 + period.seconds / (366 * 86400) > _LONGEST_YEARS:
        raise ValueError(f"longer than {_LONGEST_YEARS} years; write `forever` if it has no end")
    return period
