"""Why one asset is treated as it is, as values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Considered:
    """One rule, hold or erasure, and whether it matches: yes, no, not certain, or over (a released
    hold)."""

    id: str
    kind: str
    rule_at: str
    matches: str


@dataclass(frozen=True, slots=True)
class Stage:
    """What one clause asks for: its store (all for at_most), from when to when (None: no such end),
    and whether it runs."""

    rule: str
    kind: str
    store: str | None
    begins: datetime | None
    ends: datetime | None
    runs: bool


@dataclass(frozen=True, slots=True)
class Pair:
    """What was decided for the asset in one place."""

    store: str
    decision: str
    because: tuple[str, ...]
    rule: str | None
    until: datetime | None
    deadline: datetime | None
    keep_until: datetime | None
    delete_from: datetime | None
    there: bool
    complete: bool
    partial: str | None = None
    """Why what lies there is no more than a partial copy."""
    recoverable: str | None = None
    """How it can still be read once it is deleted there, in words."""
    versions: int | None = None
    """Of a delete that is for good: so many versions go."""
    by_hand: tuple[str, ...] = ()
    """The commands for a person, where the bucket wants a second factor for that."""
    also: str | None = None
    """Of a delete: the keep that was the last to end; of what a hold blocks: the hold that is
    certain to cover it."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything about one asset at one moment. `next_at` and `next_pairs`: when its decisions
    change by themselves, and to what."""

    asset_id: str
    now: datetime
    facts: tuple[tuple[str, str], ...]
    considered: tuple[Considered, ...]
    stages: tuple[Stage, ...]
    pairs: tuple[Pair, ...]
    next_at: datetime | None
    next_pairs: tuple[Pair, ...]
    gathered: datetime | None
