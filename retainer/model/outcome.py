"""How policy tests and runs went, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any

from retainer.model.moment import read_moment, write_moment


@dataclass(frozen=True, slots=True)
class Outcome:
    """One test: its name, its place, and a sentence for everything that came out otherwise (none:
    it passed)."""

    name: str
    place: str
    failures: tuple[str, ...]
    touched: frozenset[str] = frozenset()
    """The ids of the project's rules, holds and erasures that matched one of its recordings."""
    stores: frozenset[str] = frozenset()
    """The places of which it expects something."""
    turns: tuple[Turn, ...] = ()
    """What changes at each date of each rule, where that was asked for."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A date at which something begins or ends: what is decided of a pair one second before it, and
    at it."""

    at: datetime
    rule: str
    asset_id: str
    store: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Trouble:
    """One action that was not carried out: why, and what to do."""

    decision: str
    asset_id: str
    store: str
    cause: str
    hint: str | None = None
    bucket: str = ""
    """Of a copy from 100ms: where its path lies, such as `s3://acme-rec`."""
    leaves_at: datetime | None = None
    """When 100ms drops what it alone has."""

    @property
    def kind(self) -> tuple[str, str, str, str]:
        """The same for troubles that have one cause, whatever the recording."""
        cause = self.cause.replace(self.asset_id, "…") if self.asset_id else self.cause
        return self.decision, self.store, self.bucket, cause


@dataclass(frozen=True, slots=True)
class LeftOver:
    """A write that a dead run began and did not end: `upload` is what the store calls it."""

    store: str
    key: str
    upload: str


@dataclass
class Census:
    """What a look at every object of a store has found: `recorded` entries were written; `known`
    objects are what the catalog says; `unknown` ones say nothing of themselves.

    `bytes` were read back; `broken` are keys whose bytes are not those that were recorded;
    `missing` ones are in the catalog and not in the store, `replaced` ones are other objects by
    now; `unlocked` ones are not locked for as long as they were; `archived` ones could not be
    read.
    """

    looked: int = 0
    known: int = 0
    recorded: int = 0
    unknown: int = 0
    bytes: int = 0
    archived: int = 0
    broken: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    unlocked: list[str] = field(default_factory=list)
    failed: list[Trouble] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


@dataclass
class Summary:
    """What a run has done. `skipped` had changed or was no longer safe; `failed` went wrong."""

    copied: int = 0
    copied_bytes: int = 0
    deleted: int = 0
    deleted_bytes: int = 0
    purged: int = 0
    """So many of the copies that were deleted went for good, with every version."""
    restored: int = 0
    locked: int = 0
    """So many copies that were kept are locked longer by it."""
    locked_already: int = 0
    """So many that the plan wanted to be locked were, for long enough."""
    already: int = 0
    left_deletes: int = 0
    left_locks: int = 0
    failed: list[Trouble] = field(default_factory=list)
    skipped: list[Trouble] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    catalog_failures: dict[str, str] = field(default_factory=dict)
    """Stores whose catalog could not be written: their copies do not count until the same plan is
    applied again."""
    interrupted: bool = False
    lost_lock: bool = False
    resting: dict[str, Resting] = field(default_factory=dict)
    """Places that are left alone for the rest of the run, after they refused what was asked of
    them."""
    impossible: dict[str, Resting] = field(default_factory=dict)
    """Stores that cannot take copies: what is to be done elsewhere is not touched by that."""
    changed_copies: int = 0
    """Copies that were skipped since their source is another one by now: this plan cannot make
    them."""

    @property
    def finished(self) -> bool:
        unfinished = (
            self.failed
            or self.catalog_failures
            or self.left_deletes
            or self.left_locks
            or self.interrupted
            or self.lost_lock
            or self.resting
            or self.impossible
        )
        return not (unfinished or self.changed_copies)

    def add(self, other: Summary) -> None:
        """What another machine has done of the same plan."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.failed += other.failed
        self.skipped += other.skipped
        self.said += [each for each in other.said if each not in self.said]
        self.catalog_failures |= other.catalog_failures
        self.interrupted = self.interrupted or other.interrupted
        self.lost_lock = self.lost_lock or other.lost_lock
        for mine, theirs in ((self.resting, other.resting), (self.impossible, other.impossible)):
            for place, resting in theirs.items():
                if place in mine:
                    mine[place].add(resting)
                else:
                    mine[place] = resting

    def written(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self, dict_factory=_plain)

    @staticmethod
    def read(of: Mapping[str, Any]) -> Summary:
        """Raises ValueError for what is none."""
        try:
            summary = Summary(**of)
            for troubles in (summary.failed, summary.skipped):
                troubles[:] = [Trouble(**_moments(each)) for each in troubles]  # type: ignore[arg-type]
            for places in (summary.resting, summary.impossible):
                for place, each in places.items():
                    places[place] = Resting(**_moments(each))  # type: ignore[arg-type]
        except (TypeError, AttributeError) as error:
            raise ValueError("it is no summary of a run") from error
        return summary


_COUNTS = [each.name for each in fields(Summary) if each.type == "int"]


def _plain(of: list[tuple[str, Any]]) -> dict[str, Any]:
    return {
        name: write_moment(value) if isinstance(value, datetime) else value for name, value in of
    }


def _moments(of: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: read_moment(value) if name.endswith("leaves_at") and value else value
        for name, value in of.items()
    }


@dataclass
class Resting:
    """Why a place is left alone, and how many actions were not tried for that."""

    cause: str
    hint: str | None
    credentials: bool
    """Whether its credentials were refused."""
    actions: int = 0
    leaving: int = 0
    """So many of them are copies of what 100ms alone has, and drops."""
    first_leaves_at: datetime | None = None

    def count(self, leaves_at: datetime | None) -> None:
        """One more action that was not tried."""
        self.actions += 1
        if leaves_at is not None:
            self.leaving += 1
            self.first_leaves_at = min(self.first_leaves_at or leaves_at, leaves_at)

    def add(self, other: Resting) -> None:
        """Those that another machine did not try."""
        self.actions += other.actions
        self.leaving += other.leaving
        moments = [each for each in (self.first_leaves_at, other.first_leaves_at) if each]
        self.first_leaves_at = min(moments, default=None)
