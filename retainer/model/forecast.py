"""What is to come, as values: what daily plans will do, what will lie where, and about what it
costs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from retainer.model.price import MONTH_DAYS

MONTHS = (1, 3, 6, 12)
"""So many months ahead it is told what lies where, besides now."""
PLANS = tuple(round(months * MONTH_DAYS) for months in MONTHS)
"""The daily plans that stand for those months."""


@dataclass(frozen=True, slots=True)
class Coming:
    """What the plan of one day does by one rule in one store, or what leaves 100ms on that day and
    is nowhere else, since no rule keeps it."""

    day: date
    what: Literal["copy", "delete", "leaves"]
    rule: str
    store: str
    recordings: int
    copies: int
    bytes: int
    last_copies: int


@dataclass(frozen=True, slots=True)
class Lying:
    """What lies in a store in one storage class of one type of recording: bytes now and after each
    of MONTHS, and about what that costs in dollars a month; None where no price is known."""

    store: str
    storage_class: str
    type: str
    bytes: tuple[int, ...]
    monthly: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class Once:
    """What the copies and deletes of a store cost beside storage, in dollars: requests to write,
    reading from a colder class, bytes that leave their cloud, and deleting before a class's least
    time is over."""

    store: str
    requests: float
    retrieval: float
    egress: float
    early: float

    @property
    def total(self) -> float:
        return self.requests + self.retrieval + self.egress + self.early


@dataclass(frozen=True, slots=True)
class Dearer:
    """Copies to come that cost more in a store's class than they would in the standard one, in
    dollars over their time; `break_even_days`: from when on an average one of them would cost
    less."""

    store: str
    storage_class: str
    copies: int
    of: int
    dollars: float
    break_even_days: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """What daily plans will do, if what is known today is all there is: nothing is recorded, no
    rule changes, and all succeeds."""

    now: datetime
    days: int
    project: str
    timezone: str
    facts_id: str
    gathered: datetime | None
    incomplete: tuple[str, ...]
    coming: tuple[Coming, ...]
    lying: tuple[Lying, ...]
    once: tuple[Once, ...]
    dearer: tuple[Dearer, ...]
    unpriced: tuple[str, ...]
    """Stores whose price is not known."""
    unforeseen: int
    """Of so many recordings not all can be said: a date, a lock, a listing, or whether a rule
    matches is not certain."""
    prices_of: str
    tool: str
