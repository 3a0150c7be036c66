"""A span of time, for an audit: what the record says, and what the plans that were applied saw."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from retainer.model.history import History


@dataclass(frozen=True, slots=True)
class PlanSeen:
    """What a plan that was applied saw: `recordings` it knew of, copies by store with their bytes,
    lists that did not finish, and how many pairs were blocked and lost."""

    at: datetime
    plan: str
    recordings: int
    stores: tuple[tuple[str, int, int], ...]
    unfinished: tuple[str, ...]
    blocked: int
    lost: int


@dataclass(frozen=True, slots=True)
class Punctual:
    """Of a rule: how many copies went, how many days after they were due (the median and the
    worst), and how many the last plan of the span left though they were due, by the reason."""

    rule: str
    deleted: int
    median_days: float | None
    worst_days: float | None
    left: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Request:
    """A hold or an erasure, from the first to the last plan that had it: how many recordings it
    covered at most. Of an erasure: when it came, until when it must be answered, how many copies
    went for it."""

    id: str
    kind: str
    why: str
    owner: str
    first: datetime
    last: datetime
    recordings: int
    requested: str | None = None
    answer_by: date | None = None
    deleted: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    history: History
    plans: tuple[PlanSeen, ...]
    punctual: tuple[Punctual, ...]
    requests: tuple[Request, ...]
    lost: tuple[tuple[str, str, datetime], ...]
    """Recordings that were wanted somewhere and that nobody has, with the place, since the first
    plan that said so."""
