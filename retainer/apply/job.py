"""What a run works with."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from retainer.errors import RetainerError
from retainer.planfile import Action
from retainer.ports import Downloads, StoreWriter
from retainer.stop import Stop

WORKERS = 32
"""So many actions at once; each server then takes as many calls as it takes (stores/wire.py)."""


class Actions(Protocol):
    """What a plan says is to be done, read as it is needed: each call begins anew."""

    def copies(self, only: Collection[int] | None = None) -> Iterator[Action]:
        """By the hour of their deadlines, those of one recording beside each other. `only`: of
        these rows."""

    def restores(self) -> Iterator[Action]:
        """Copies whose source must be restored first."""

    def locks(self) -> Iterator[Action]:
        """What is kept and to be locked longer."""

    def deletes(self, store: str) -> Iterator[Action]:
        """Those in one store, by where the copies lie that make them safe."""

    @property
    def locked_in(self) -> frozenset[str]:
        """The stores in which something is locked longer."""

    @property
    def written_to(self) -> frozenset[str]:
        """The stores in which something is written, or locked."""

    @property
    def deleted_in(self) -> Mapping[str, int]:
        """How many deletes there are in each store."""

    @property
    def rested_on(self) -> frozenset[str]:
        """The stores that must not change under a delete."""


class Record(Protocol):
    """The journal, as a run writes to it. An entry is on disk when `write` returns."""

    def write(self, event: str, **particulars: Any) -> None: ...

    def write_all(self, events: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """On disk together; a kill in the middle leaves the first of them."""


class Before(Protocol):
    """What earlier runs of this plan have done, by row number."""

    @property
    def uncatalogued(self) -> Mapping[int, dict[str, Any]]:
        """The records of copies that were verified, and that no catalog is known to have."""

    def was_made(self, row: int) -> bool:
        """Whether a row was copied, and a catalog tells of it."""

    def is_as_made(self, row: int, key: str, size: int, version: str) -> bool:
        """Whether an object is what was copied then."""

    @property
    def deleted(self) -> Collection[int]:
        """The rows of which everything is gone."""


class Watcher(Protocol):
    """Told how a run goes on, for a progress display."""

    def began(self, action: Action) -> None: ...
    def bytes(self, count: int) -> None: ...
    def ended(self, action: Action, outcome: str, sentence: str | None) -> None: ...
    def elsewhere(self, ended: int, failed: int, size: int) -> None:
        """So many more have ended on another machine, so many of them badly, and so many more bytes
        were copied."""


class Elsewhere(Protocol):
    """Other machines, which make what a plan says in shares of it."""

    def copies(self) -> None:
        """All of them; what became of them is told to the outcomes of the run. Raises Stopped,
        RetainerError."""

    def deletes(self, store: str) -> None:
        """Those in one store that no earlier run has made. Raises as `copies`."""


class Lock(Protocol):
    """The lock of one store, as a run asks for it."""

    @property
    def holds(self) -> bool:
        """Whether nobody else can have it, at this moment."""


@dataclass(frozen=True, slots=True)
class Recheck:
    """What a last look before the deletes found: why none may run (None: they may), and rows that
    are withheld, with the words."""

    refused: str | None
    withheld: Mapping[int, str]


@dataclass(frozen=True)
class Job:
    """Everything a run works with."""

    plan: Actions
    stores: Mapping[str, StoreWriter]
    downloads: Downloads
    hasty_downloads: Downloads
    """The same, which give up soon on what fails."""
    record_of: Callable[[Action], dict[str, Any]]
    journal: Record
    clock: Callable[[], datetime]
    clocks: Mapping[str, Callable[[], datetime]]
    """Whose clocks ours is compared with before anything is deleted: 100ms's, and each store's by
    its name."""
    watcher: Watcher
    deletes_approved: bool
    outdated: Callable[[], str | None]
    """Why nothing of the plan is wanted any more, in words; None where it is."""
    recheck: Callable[[], Recheck]
    """Asked once the copies are made, which may be hours after the start, and again while deletes
    go on."""
    locks: Mapping[str, Lock]
    """Of the stores in which a lock was taken."""
    barred: Mapping[str, str]
    """Stores on which no delete may rest, and why, in words."""
    unlocked: Mapping[str, RetainerError]
    """Stores that cannot be used, and why: nothing is changed there."""
    anchor: Callable[[str, Sequence[tuple[str, int, int]]], None] | None
    """Lets a store remember, before anything is deleted there, what is about to be: rule, count,
    bytes. Raises StoreFailed. None: whoever gave this share has done so."""
    stop: Stop
    restore: bool
    """Whether what is archived is asked to be restored."""
    before: Before
    settled: Sequence[dict[str, Any]]
    """The catalog's entries of what earlier runs deleted without being told."""
    identities: Mapping[str, str]
    """The identity of each store whose is known; the catalog's entries carry it."""
    mark_of: Callable[[str], str]
    """What a path is told by in the journal."""
    keep_deleted: Mapping[str, str] = field(default_factory=dict)
    """How what is deleted in a store can still be read, in words."""
    keep_removed: Mapping[str, str] = field(default_factory=dict)
    """The same of what is deleted with every version."""
    asking: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Of each rule and erasure, by its id, which of the two it is, and why people wrote that it is
    there."""
    reported: Collection[str] = ()
    """Stores whose objects are known by a report of their bucket, which is older than a list: each
    is looked at before it goes."""
    places: Mapping[str, str] = field(default_factory=dict)
    """Where each store lies (`Store.place`)."""
    look_every: timedelta | None = None
    """How old an answer of `recheck` may be; None: as old as `Lately` lets it be."""
    workers: int = WORKERS
