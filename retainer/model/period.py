"""Periods as policies write them: `36h 30d 2w 6mo 7y forever` and ISO 8601."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Period:
    """A length of time counted from `created_at`.

    Calendar parts (`months`, `days`) end at the start of the day after; `seconds` are exact. The two are never mixed.
    `forever` has no end.
    """

    months: int = 0
    days: int = 0
    seconds: int = 0
    forever: bool = False
    text: str = field(default="", compare=False)

    @property
    def exact(self) -> bool:
        return self.seconds > 0

    def shortest_days(self) -> float:
        """The fewest days that this period can last."""
        if self.forever:
            return math.inf
        return self.days + self.seconds / 86400 + (math.floor(self.months * 30.436875 - 3) if self.months else 0)

    def longest_days(self) -> float:
        """The most days that this period can last."""
        if self.forever:
            return math.inf
        return self.days + self.seconds / 86400 + (math.ceil(self.months * 30.436875 + 3) if self.months else 0)

    def is_longer_than(self, other: Period) -> bool:
        """Whether this period ends after the other one from every starting day."""
        if self.exact == other.exact and (self.months == 0) == (other.months == 0) and not (self.forever or other.forever):
            mine, theirs = (self.months, self.days, self.seconds), (other.months, other.days, other.seconds)
            if all(a >= b for a, b in zip(mine, theirs, strict=True)):
                return mine != theirs
        return self.shortest_days() > other.longest_days()


_SHORT = re.compile(r"([0-9]+)(h|d|w|mo|y)")
_ISO = re.compile(r"P(?=[0-9T])(?:([0-9]+)Y)?(?:([0-9]+)M)?(?:([0-9]+)W)?(?:([0-9]+)D)?(?:T(?=[0-9])(?:([0-9]+)H)?(?:([0-9]+)M)?(?:([0-9]+)S)?)?")
_LONGEST_YEARS = 1000


def parse_period(text: str) -> Period:
    """Read a period. Raises ValueError with a sentence that says what is wrong and what to write."""
    if text == "forever":
        return Period(forever=True, text=text)
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
        years, months, weeks, days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
        period = Period(
            months=years * 12 + months, days=weeks * 7 + days, seconds=hours * 3600 + minutes * 60 + seconds, text=text
        )
        if period.seconds and (period.months or period.days):
            raise ValueError("a date part and a time part cannot stand together; write only one of them")
    elif re.fullmatch(r"[0-9]+m", text):
        raise ValueError(f"`m` may mean minutes or months; write `{text}o` for months, or hours as `{text[:-1]}h`")
    elif re.fullmatch(r"-.*", text):
        raise ValueError("a period cannot be negative")
    elif re.fullmatch(r"[0-9]*[.,][0-9]+\s*[a-z]+", text):
        raise ValueError("fractions are not periods; use a smaller unit, such as 36h for one and a half days")
    else:
        raise ValueError("not a period; write for example 36h, 30d, 2w, 6mo, 7y, forever or P1Y6M")
    if period == Period():
        raise ValueError("a period of nothing; the shortest is 1h")
    if period.longest_days() > _LONGEST_YEARS * 366:
        raise ValueError(f"longer than {_LONGEST_YEARS} years; write `forever` if it has no end")
    return period
