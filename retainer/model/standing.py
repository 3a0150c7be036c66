"""What holds and erasures come to now: each with the recordings that it covers, and what becomes of
them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime


@dataclass(frozen=True, slots=True)
class HoldNow:
    """A hold. `recordings` it covers for certain, `perhaps` others; `complete` of all those have a
    complete copy in its store, `to_copy` are about to get one.

    `only_at_100ms`: those of which no store has a complete copy, the first until `first_leaves`.
    `stops`: copies that would be deleted but for it.
    """

    id: str
    at: str
    why: str
    owner: str
    store: str
    released: datetime | None
    recordings: int
    perhaps: int
    complete: int
    to_copy: int
    lost: int
    only_at_100ms: int
    first_leaves: datetime | None
    stops: int

    @property
    def is_met(self) -> bool:
        """Whether each recording that it may cover has a complete copy in its store."""
        return self.complete == self.recordings + self.perhaps > 0


@dataclass(frozen=True, slots=True)
class Barred:
    """Copies that an erasure cannot delete, or that are even to be made: where, until when if that
    is known, and why: as in a plan, `legal` (a keep with that basis) or `undeclared` (its
    bucket)."""

    because: str
    store: str
    copies: int
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Undecided:
    """A recording that may show a person who is to be erased: somebody has to look."""

    asset_id: str
    type: str
    created: datetime | None
    session_id: str


@dataclass(frozen=True, slots=True)
class ErasureNow:
    """An erasure. `due` copies are deleted by the next plan; `lapsing` recordings lie at 100ms, the
    last of them until `last_lapses`; of `unknown` pairs a listing did not finish.

    `answer_by`: a month after it was requested. `undecided`: where a person is erased, the
    recordings of the same sessions that do not tell whom they show, of which nobody has decided.
    """

    id: str
    at: str
    why: str
    owner: str
    requested: datetime | None
    answer_by: date | None
    recordings: int
    perhaps: int
    due: int
    barred: tuple[Barred, ...]
    lapsing: int
    last_lapses: datetime | None
    unknown: int
    undecided: tuple[Undecided, ...]
    misfits: tuple[str, ...] = ()
    """What stands under `decided:` and is no recording of those sessions, as far as they are
    known."""
    is_blind: bool = False
    """A person is erased, nothing that tells them is known any more, and nobody has decided on what
    else their sessions have."""
    forgotten: int = 0
    """Recordings that were deleted for it, and of which catalogs tell no more, counted for each
    store."""

    @property
    def state(self) -> str:
        """In a word: nothing known, blocked, unknown, due, needs a decision, lapses, done."""
        if not self.recordings and not self.forgotten:
            return "nothing known"
        if self.barred:
            return "blocked"
        if self.unknown:
            return "unknown"
        if self.due:
            return "due"
        if self.undecided or self.is_blind:
            return "needs a decision"
        return "lapses" if self.lapsing else "done"


@dataclass(frozen=True, slots=True)
class Standing:
    """All of a project, at a moment, by facts that were gathered before it."""

    now: datetime
    gathered: datetime | None
    holds: tuple[HoldNow, ...] = ()
    erasures: tuple[ErasureNow, ...] = ()
    recoverable: tuple[str, ...] = ()
    """Stores that keep what is deleted there, and how."""
