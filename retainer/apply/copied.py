"""The nouns of a copy: what it takes, what it is made of, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from retainer.apply.verify import Counted
from retainer.errors import Unverified
from retainer.planfile import Action
from retainer.ports import Checksum, Downloads, Look, StoreReader, StoreWriter


@dataclass(frozen=True, slots=True)
class Written:
    """An object as it lies in the target, and what was compared with its source."""

    look: Look
    checksum: Checksum
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Copied:
    """A copy that counts: its one object, or its manifest and its members. `said`: what a person
    should know of it."""

    whole: Written
    members: tuple[Written, ...] = ()
    said: tuple[str, ...] = ()
    uploads: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """By the key of a member: the path of the upload that it is a copy of, and the version that it
    had."""


class Partial(Unverified):
    """What came was kept, and may not be all. The next copy may replace it, and of its members
    those of these keys. `why`: what speaks against it, without where."""

    def __init__(
        self, where: str, why: str, copied: Copied, odd: frozenset[str] = frozenset()
    ) -> None:
        super().__init__(f"{where}: {why}; kept, but it counts as partial")
        self.why, self.copied, self.odd = why, copied, odd


class Changed(Exception):
    """The source is not what the plan saw: nothing was done."""


@dataclass(frozen=True, slots=True)
class Task:
    """A copy that is to be made, and everything it takes.

    `source`: the store to read from, None for 100ms. `tell` is given the bytes as they go by;
    `check` raises to stop; `begun` is told of a key and a write that a kill would leave unfinished.
    `now`: when it began. `last`: it is not tried again in this run, so that what is odd is better
    than nothing.
    """

    action: Action
    target: StoreWriter
    source: StoreReader | None
    downloads: Downloads
    record: Mapping[str, Any]
    tell: Callable[[int], None]
    check: Callable[[], None]
    begun: Callable[[str, str], None]
    now: datetime
    last: bool = False
    verified: dict[str, Written] = field(default_factory=dict)
    """What was verified by its key, so that another try does not begin anew."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A source that was opened, and not yet read. `expected`: the length that it must have; `told`:
    the least that 100ms's record says of it.

    `lying`: it lies so in a store, which perhaps copies it by itself. `whole`: its end is marked,
    whatever its length. `encoding`: how it is packed.
    """

    counted: Counted
    expected: int | None
    told: int | None = None
    lying: Look | None = None
    may_be_empty: bool = False
    whole: bool = False
    encoding: str = ""


@dataclass(frozen=True, slots=True)
class Piece:
    """One object of a recording: where it goes, and how it is read."""

    key: str
    open: Callable[[], Stream]
