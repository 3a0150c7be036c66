"""The journal, a segment for each run: read from the last summary on, and opened for one run."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from retainer.errors import RetainerError
from retainer.journal.backend import Backend, Reading, Tape
from retainer.journal.entry import CLOSED, START, Entry, entries_of, opened, sealed
from retainer.journal.ledger import Ledger, closing
from retainer.model.moment import read_moment

SEGMENT_LINES = 50_000
"""A long run goes on in another segment after so many lines, so that what is open stays short."""


def _whole(lines: Iterator[bytes], cut: list[int] | None = None) -> Iterator[bytes]:
    """Without a last one that a kill cut off: what it announced was not begun. `cut`: takes how
    long that is."""
    for line in lines:
        if line.endswith(b"\n"):
            yield line
        elif cut is not None:
            cut.append(len(line))


def _summary(backend: Reading, number: int) -> Entry | None:
    """What a segment is closed with; None where it is open. Raises RetainerError."""
    line = backend.last_line(number)
    if line is None:
        return None
    try:
        entry, _ = opened(line.rstrip(b"\n"))
    except ValueError:
        return None  # whoever reads the lines before it tells which is damaged
    return entry if entry.event == CLOSED else None


def read_ledger(backend: Reading) -> Ledger:
    """What the journal comes to: by its last summary, and the lines after it. Raises
    RetainerError."""
    return _read(backend)[0]


def _read(backend: Reading) -> tuple[Ledger, int | None, bool, int]:
    """The ledger, the number of the newest segment, whether that is closed, and how many bytes of
    its last line a kill has left."""
    newest = backend.newest()
    if newest is None:
        return Ledger(), None, True, 0
    number, summary = newest, _summary(backend, newest)
    while summary is None and number > 0:
        number -= 1
        summary = _summary(backend, number)
    ledger = Ledger.read(summary) if summary else Ledger()
    cut: list[int] = []
    for each in range(number + 1 if summary else number, newest + 1):
        for entry in entries_of(
            _whole(backend.lines(each), cut),
            f"{backend.where}, segment {each}",
            previous=ledger.head,
            first=ledger.lines + 1,
        ):
            ledger.add(entry)
    return ledger, newest, summary is not None and number == newest, sum(cut)


def read_journal(backend: Reading) -> Iterator[Entry]:
    """Every entry, oldest first, of every segment; what a kill cut off is passed over. Raises
    RetainerError where the chain is broken."""
    previous, line = START, 1
    for number in range((backend.newest() or 0) + 1):
        for entry in entries_of(
            _whole(backend.lines(number)),
            f"{backend.where}, segment {number}",
            previous=previous,
            first=line,
        ):
            previous, line = entry.seal, line + 1
            yield entry


def goes_through(backend: Reading, ledger: Ledger, lines: int, head: str) -> bool:
    """Whether the line with this number has this hash, so that a store's anchor is of this very
    journal. What the ledger does not know is looked for in all of it. Raises RetainerError."""
    if ledger.has_anchor(lines, head) or (lines, head) == (ledger.lines, ledger.head):
        return True
    if lines > ledger.lines:
        return False
    return any(
        number == lines and entry.seal == head
        for number, entry in enumerate(read_journal(backend), 1)
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a whole journal was found to be: so many lines of so many runs, from when until when,
    and the hash of the first and the last line."""

    lines: int
    runs: int
    first: Entry | None
    last: Entry | None


def verify_journal(backend: Reading) -> Verdict:
    """Read everything: each line's hash, the chain over all segments, and that each summary is what
    the lines before it come to. Raises RetainerError where something was changed."""
    ledger, number = Ledger(), 0
    first: Entry | None = None
    last: Entry | None = None
    runs: set[str] = set()
    for number, entry in enumerate(read_journal(backend), 1):
        first, last = first or entry, entry
        runs.add(entry.run)
        if entry.event == CLOSED:
            if not _comes_to(ledger, entry):
                raise RetainerError(
                    f"the summary in line {number:,} of the journal is not what the lines before "
                    f"it come to ({entry.at:%Y-%m-%d %H:%M}, run {entry.run})",
                    hint="it was forged, or another version of retainer wrote it; every line is "
                    "still in its place",
                )
            ledger = Ledger.read(entry)
        else:
            ledger.add(entry)
    return Verdict(number, len(runs), first, last)


def _comes_to(ledger: Ledger, summary: Entry) -> bool:
    """Whether a summary is what the lines before it come to, as of the moment that it names."""
    as_of = read_moment(str(summary.particulars.get("as_of")))
    if as_of is None:
        return False
    mine = closing(ledger, summary.run, summary.at, as_of)
    told, own = Ledger.read(summary), Ledger.read(mine)  # compressed bytes differ between zlibs
    same_keys = summary.particulars.keys() == mine.particulars.keys()
    return same_keys and told.written() == own.written()


@dataclass
class _Waiting:
    """Entries of one call that are to be written together."""

    events: Sequence[tuple[str, Mapping[str, Any]]]
    at: datetime
    point: tuple[int, str] | None = None
    error: RetainerError | None = None


class Journal:
    """The journal opened for one run, and for no other meanwhile. An entry is durable when `write`
    returns. Safe to use from several threads."""

    def __init__(
        self, backend: Backend, run: str, plan: str, clock: Callable[[], datetime]
    ) -> None:
        """Raises Locked when another run has it open, RetainerError when it is damaged or cannot be
        written."""
        self.run, self.plan, self.backend = run, plan, backend
        self._clock = clock
        self._adding, self._flushing = threading.Lock(), threading.Lock()
        self._waiting: list[_Waiting] = []
        self._tape: Tape | None = None
        self._hold = ExitStack()
        try:
            self.place = self._hold.enter_context(backend.alone(run))
            """What holds it on this machine, since it was started: a copy of the folder is another
            one, and so is that of a cloned machine."""
            self._begin()
        except BaseException:
            self._hold.close()
            raise

    def _begin(self) -> None:
        self._ledger, newest, is_closed, cut = _read(self.backend)
        self._since = self._ledger.last
        self._number = (newest or 0) + 1
        self._lines = self._bytes = self._summary_bytes = 0
        self._is_broken = False
        self.state = self.backend.identity() or self._named()
        if newest is None:
            return
        if is_closed:
            self.backend.finished(newest)
            return
        # A run that died left its segment open.
        tape = self.backend.open(newest)
        try:
            self._close(tape, newest)
        finally:
            tape.close()
        if cut:
            # What it announced was not begun, for an act waits until its line is durable.
            self.write("torn", bytes=cut)

    def _named(self) -> str:
        own = uuid.uuid4().hex
        self.backend.name(own)
        return own

    def ledger(self) -> Ledger:
        """What it comes to by now, with what this run has written. Not to be changed, and to be
        asked only while nothing is written."""
        return self._ledger

    def recent_deletes(self, now: datetime) -> dict[tuple[str, str], tuple[int, int]]:
        with self._flushing:
            return self._ledger.recent_deletes(now)

    def goes_through(self, lines: int, head: str) -> bool:
        """`goes_through` of this journal."""
        with self._flushing:
            return goes_through(self.backend, self._ledger, lines, head)

    def write(self, event: str, **particulars: Any) -> None:
        self.write_all([(event, particulars)])

    def write_all(self, events: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Several entries, durable together when this returns. Where it raises none of them is
        there; a kill in the middle leaves the first of them."""
        self._written(events)

    def anchor(self, store: str) -> tuple[int, str]:
        """Write down that a store is about to be told where the journal ends: how many lines there
        are by that, and the hash of the last."""
        return self._written([("anchor", {"store": store})])

    def _written(self, events: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[int, str]:
        mine = _Waiting(events, self._clock().replace(microsecond=0))
        with self._adding:
            self._waiting.append(mine)
        with self._flushing:  # whoever comes first writes for all that wait
            if mine.point is None and mine.error is None:
                self._flush()
        if mine.error is not None:
            raise mine.error
        assert mine.point is not None
        return mine.point

    def _flush(self) -> None:
        with self._adding:
            waiting, self._waiting = self._waiting, []
        try:
            if self._tape is None:
                self._tape = self.backend.open(self._number)
            self._append(self._tape, waiting)
        except BaseException as error:
            told = error if isinstance(error, RetainerError) else RetainerError("interrupted")
            for each in waiting:
                each.error = told
            if not isinstance(error, RetainerError):
                raise

    def _append(self, tape: Tape, waiting: Sequence[_Waiting]) -> None:
        if self._is_broken:
            raise RetainerError(
                "the journal was interrupted in the middle of a line", hint="run it again"
            )
        while True:
            lines: list[bytes] = []
            added: list[Entry] = []
            points: list[tuple[int, str]] = []
            number, seal = self._ledger.lines, self._ledger.head
            for each in waiting:
                for event, particulars in each.events:
                    entry = Entry(each.at, self.run, self.plan, event, dict(particulars))
                    line, seal = sealed(entry, seal)
                    number += 1
                    lines.append(line)
                    added.append(replace(entry, seal=seal))
                points.append((number, seal))
            content = b"".join(lines)
            # Whatever interrupts it until its lines are folded, the next run reads them and goes
            # on; this one writes nothing more.
            self._is_broken = True
            try:
                tape.append(content)
            except RetainerError:
                self._is_broken = False
                if late := tape.left_behind():
                    self._take_up(late)
                    continue
                raise
            break
        for entry in added:
            self._ledger.add(entry)
        self._is_broken = False
        for each, point in zip(waiting, points, strict=True):
            each.point = point
        self._lines += len(added)
        self._bytes += len(content)
        is_long = self._lines >= SEGMENT_LINES or tape.is_long
        if is_long and self._bytes >= self._summary_bytes:
            with suppress(RetainerError):  # it goes on in this one, and is closed later
                self._close(tape, self._number)
                tape.close()
                self._tape, self._number = None, self._number + 1
                self._lines = self._bytes = 0

    def _take_up(self, content: bytes) -> None:
        """Lines of this run that were told to be lost, and are there."""
        for entry in entries_of(
            content.splitlines(keepends=True),
            self.backend.where,
            previous=self._ledger.head,
            first=self._ledger.lines + 1,
        ):
            self._ledger.add(entry)

    def _close(self, tape: Tape, number: int) -> None:
        now = self._clock().replace(microsecond=0)
        # A clock that is ahead must not make it forget what others still count.
        as_of = self.backend.moment(min(now, self._since or now))
        summary = closing(self._ledger, self.run, now, as_of)
        line, seal = sealed(summary, self._ledger.head)
        self._is_broken = True
        try:
            tape.append(line)
        except RetainerError:
            self._is_broken = False
            raise
        self._summary_bytes = len(line)
        self._ledger = Ledger.read(replace(summary, seal=seal))
        self._is_broken = False
        self.backend.finished(number)

    def close(self) -> None:
        """Close the segment with its summary; where that fails, the next run does."""
        with self._flushing, self._hold:
            if self._tape is not None:
                with suppress(RetainerError):
                    if not self._is_broken:
                        self._close(self._tape, self._number)
                self._tape.close()
                self._tape = None
