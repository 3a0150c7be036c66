"""Where a state lies: a folder on this machine (folder.py), or a store that several machines share
(shared.py)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Protocol

APPLIED = "applied/"
"""Where plans that were applied are kept beside the journal, by their fingerprint."""


class Tape(Protocol):
    """The open end of one segment."""

    def append(self, content: bytes) -> None:
        """Whole lines, durable when it returns. Where it raises, none of them is there. Raises
        RetainerError, Locked where another run has closed the segment."""

    def left_behind(self) -> bytes:
        """Lines of ours that an earlier `append` told to be lost, and that came through after all;
        each is given once. They stand before what is appended next."""

    @property
    def is_long(self) -> bool:
        """Whether it is time to go on in another segment, whatever it holds."""

    def close(self) -> None: ...


class Reading(Protocol):
    """The journal's segments, by their numbers, and what lies beside them. Every method raises
    RetainerError where the state cannot be read."""

    @property
    def where(self) -> str:
        """For people: a path or a URL."""

    @property
    def folder(self) -> Path:
        """What this machine keeps for itself: facts, caches, which store lies where."""

    def identity(self) -> str | None:
        """The random identity of the state, 32 hex digits; None where it has none yet."""

    def newest(self) -> int | None:
        """The number of the newest segment; None where there is none."""

    def last_line(self, number: int) -> bytes | None:
        """The last line of a segment that may be closed, without reading the others; None where
        none is whole."""

    def lines(self, number: int) -> Iterator[bytes]:
        """Every line of a segment, each with its end but perhaps the last, which a kill cut
        off."""

    def held(self) -> str | None:
        """Which run has the state, in words, where that is known."""

    def last_freeze(self) -> bytes | None:
        """The newest line about freezes; None where there is none."""

    def archived(self, name: str) -> bytes | None:
        """A file that was kept; None where there is none."""

    def archives(self, under: str) -> list[str]:
        """The names of kept files that begin so, sorted."""


class Backend(Reading, Protocol):
    """A state that can be written to. Every method raises RetainerError where it cannot."""

    def name(self, identity: str) -> None:
        """Give it one, which it does not have yet."""

    def open(self, number: int) -> Tape:
        """The end of a segment as far as it was read, which begins with it where it was not; what
        a kill cut off there is gone. Where another run has written more, `append` raises
        Locked."""

    def moment(self, now: datetime) -> datetime:
        """What time it is for the state: this machine's `now`, and no later than its server
        says."""

    def finished(self, number: int) -> None:
        """A segment was closed: what helps to find it again."""

    def alone(self, run: str) -> AbstractContextManager[str]:
        """No other run writes to this state meanwhile; gives what tells this hold on this machine
        from every other (`Owner.journal`). Raises Locked."""

    def add_freeze(self, line: bytes) -> None:
        """A line about freezes, durable when it returns."""

    def archive(self, name: str, file: Path) -> None:
        """Keep a file for good, unless one of that name is kept already."""
