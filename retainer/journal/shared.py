"""A state in a store that several machines share. Nothing is written over there but a hint and the
lock: a segment is objects that are created, each once, in their order. So whoever closes the
segment of a dead run takes the next name away from it, and it can write no more."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from retainer.errors import KeyTaken, Locked, RetainerError, StoreFailed
from retainer.journal.entry import CLOSED, opened
from retainer.journal.folder import FolderBackend, as_identity
from retainer.journal.lock import Heart, StoreLock, lock_in, owner
from retainer.ports import Look, StoreReader, StoreWriter

_MOST = 256 << 20
"""An object of a segment is at most so long."""
_SMALL = 1 << 20
_LARGEST = 10**8
"""A number of a segment or a piece is smaller."""
_LATEST = "journal/latest.json"
_ID = "journal/id"
_JSON = "application/json"
_AT_ONCE = 16
_LONG = 1_000
"""A segment of so many pieces takes long to read."""


def _key(number: int, piece: int) -> str:
    return f"journal/{number:08}/{piece:08}.jsonl"


@dataclass
class SharedReading:
    """`journal.backend.Reading` in a store. `url`: as the settings write it."""

    folder: Path
    url: str
    store: StoreReader
    under: str = field(default="", kw_only=True)
    """What the names of the journal begin with there."""
    _read: dict[int, int] = field(default_factory=dict, kw_only=True)
    """So many pieces of a segment were read: what comes behind them is another run's."""
    _closed: tuple[int, bytes] = field(default=(0, b""), kw_only=True)
    """The segment that the hint named when it was last read, and its last line; 0 where none
    was."""

    @property
    def where(self) -> str:
        return self.url

    def _whole(self, key: str, most: int = _SMALL) -> bytes | None:
        found = self.store.whole(self.under + key, most)
        return found[1] if found else None

    def identity(self) -> str | None:
        text = self._whole(_ID)
        if text is None:
            return None
        found = text.decode("ascii", errors="replace").strip()
        return as_identity(found, f"{self.url}/{_ID}", "restore an older version of it")

    def _hint(self) -> tuple[Look | None, int, int]:
        """The object that says which segment was closed last, its number, and of how many pieces it
        is; zeros where that is not so."""
        self._closed = (0, b"")
        found = self.store.whole(self.under + _LATEST, _SMALL)
        if found is None:
            return None, 0, 0
        try:
            told: Any = json.loads(found[1])
            number, pieces = int(told["segment"]), int(told["pieces"])
            last = self._whole(_key(number, pieces), _MOST) if 0 < number < _LARGEST else None
            line = (last or b"").rstrip(b"\n").rpartition(b"\n")[2]
            is_closed = 0 < pieces < _LARGEST and opened(line)[0].event == CLOSED
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
            return found[0], 0, 0
        if not is_closed:
            return found[0], 0, 0
        self._closed = (number, line + b"\n")
        return found[0], number, pieces

    def newest(self) -> int | None:
        _, number, _ = self._hint()
        if number == 0:
            listed = self.store.list(f"{self.under}journal/")
            names = (seen.key.removeprefix(self.under) for seen in listed)
            found = (re.fullmatch(r"journal/([0-9]{8})/[0-9]{8}\.jsonl", name) for name in names)
            number = max((int(each[1]) for each in found if each), default=0)
        while self.store.look(self.under + _key(number + 1, 1)) is not None:
            number += 1
        return number or None

    def _pieces(self, number: int) -> int:
        """So many objects a segment has. Raises RetainerError where one of them is missing."""
        under = f"{self.under}journal/{number:08}/"
        found = sorted(
            int(seen.key.removeprefix(under)[:8])
            for seen in self.store.list(under)
            if re.fullmatch(r"[0-9]{8}\.jsonl", seen.key.removeprefix(under))
        )
        if found != list(range(1, len(found) + 1)):
            raise RetainerError(
                f"the journal {self.url} is damaged: a piece of segment {number} is missing",
                hint="restore it, or an older version of it; do not edit it",
            )
        return len(found)

    def last_line(self, number: int) -> bytes | None:
        if self._closed[0] == number > 0:
            return self._closed[1]
        pieces = self._pieces(number)
        if pieces == 0:
            return None
        return self._piece(number, pieces).rstrip(b"\n").rpartition(b"\n")[2] + b"\n"

    def _piece(self, number: int, piece: int) -> bytes:
        content = self._whole(_key(number, piece), _MOST)
        if content is None or not content.endswith(b"\n"):
            raise RetainerError(
                f"the journal {self.url} is damaged: {_key(number, piece)} is "
                f"{'not there' if content is None else 'cut off'}",
                hint="restore it, or an older version of it; do not edit it",
            )
        return content

    def lines(self, number: int) -> Iterator[bytes]:
        count = self._read[number] = self._pieces(number)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for start in range(1, count + 1, 4 * _AT_ONCE):
                pieces = range(start, min(start + 4 * _AT_ONCE, count + 1))
                for content in pool.map(lambda piece: self._piece(number, piece), pieces):
                    yield from content.splitlines(keepends=True)

    def _freezes(self) -> list[str]:
        return sorted(seen.key for seen in self.store.list("freezes/") if _NUMBERED(seen.key))

    def last_freeze(self) -> bytes | None:
        names = self._freezes()
        return (self._whole(names[-1]) or b"") if names else None

    def archived(self, name: str) -> bytes | None:
        return self._whole(name, _MOST)

    def fetch(self, name: str, path: Path) -> bool:
        """Leave a file that was kept at a path, however long it is; whether there is one."""
        look = self.store.look(name)
        if look is None:
            return False
        with path.open("xb") as file:
            for chunk in self.store.read(look.seen):
                file.write(chunk)
        return True

    def archives(self, under: str) -> list[str]:
        folder = under.rpartition("/")[0] + "/"  # a folder's listing knows no half names
        return sorted(seen.key for seen in self.store.list(folder) if seen.key.startswith(under))

    def held(self) -> str | None:
        found = lock_in(self.store)
        return found.words("the state") if found else None


@dataclass
class SharedBackend(SharedReading):
    """`journal.backend.Backend` in a store."""

    store: StoreWriter
    _run: str = ""
    _told: dict[int, int] = field(default_factory=dict)
    """Pieces of the segments that this run has written."""
    _lost: threading.Event = field(default_factory=threading.Event)
    _lock: StoreLock | None = None

    @property
    def is_held(self) -> bool:
        """Whether no other run can have the state."""
        return not self._lost.is_set() and (self._lock is None or self._lock.holds)

    def name(self, identity: str) -> None:
        self._create(_ID, f"{identity}\n".encode(), "text/plain")

    def _create(self, key: str, content: bytes, kind: str = _JSON) -> None:
        self.store.create(self.under + key, iter([content]), len(content), {}, kind)

    def open(self, number: int) -> PieceTape:
        """Behind what was read of it: a piece that nobody here has read is another run's, and takes
        the name away."""
        return PieceTape(self, number, self._told.get(number, self._read.get(number, 0)))

    def moment(self, now: datetime) -> datetime:
        with suppress(RetainerError):
            return min(now, self.store.server_time().replace(microsecond=0))
        return now

    def finished(self, number: int) -> None:
        with suppress(RetainerError):  # a hint: the next command goes on from an older one
            look, hinted, _ = self._hint()
            pieces = self._told.get(number) or self._pieces(number)
            content = json.dumps({"segment": number, "pieces": pieces}).encode()
            if look is None:
                self._create(_LATEST, content)
            elif hinted < number:
                self.store.replace(look.seen, content)

    @contextmanager
    def alone(self, run: str) -> Iterator[str]:
        with FolderBackend(self.folder).alone(run) as place:
            self._run, self._lost = run, threading.Event()
            self._read.clear()
            self._told.clear()
            lock = StoreLock(self.store, owner(run, "-", self.url, place))
            lost = self._lost
            with Heart(lambda _: lost.set()) as heart:
                lock.take()
                try:
                    if not lock.holds:
                        raise StoreFailed(
                            f"the state cannot lie in {self.url}: that server ignores the "
                            "conditions that a lock rests on",
                            hint="name another store under `state:`; docs/reference/stores.md "
                            "says which hold",
                        )
                    heart.beat_for(lock)
                    self._lock = lock
                    yield place
                finally:
                    self._lock = None
                    lock.give_back()

    def add_freeze(self, line: bytes) -> None:
        for _ in range(3):
            last = ([0] + [int(name[-13:-5]) for name in self._freezes()])[-1]
            with suppress(KeyTaken):  # somebody else said something at this moment
                self._create(f"freezes/{last + 1:08}.json", line)
                return
        raise StoreFailed(f"{self.url}/freezes/ is being written by others", hint="say it again")

    def archive(self, name: str, file: Path) -> None:
        if self.store.look(name) is not None:
            return
        with suppress(KeyTaken), file.open("rb") as stream:
            chunks = iter(lambda: stream.read(1 << 20), b"")
            kind = "application/octet-stream"
            self.store.create(name, chunks, file.stat().st_size, {}, kind)


_NUMBERED = re.compile(r"freezes/[0-9]{8}\.json").fullmatch


class PieceTape:
    """`journal.backend.Tape` that creates one object after the other."""

    def __init__(self, backend: SharedBackend, number: int, pieces: int) -> None:
        self._backend, self._number, self._pieces = backend, number, pieces
        self._late = b""

    def append(self, content: bytes) -> None:
        if not self._backend.is_held:
            raise Locked(f"the lock of the state in {self._backend.url} was lost", hint=_AGAIN)
        key = _key(self._number, self._pieces + 1)
        try:
            self._backend._create(key, content, "application/x-ndjson")
        except KeyTaken:
            self._already_there(key, content)
        except RetainerError:
            # It may have been written all the same, and only the answer was lost.
            with suppress(RetainerError):
                if self._backend._whole(key, _MOST) == content:
                    self._wrote()
                    return
            raise
        self._wrote()

    def _wrote(self) -> None:
        self._pieces += 1
        self._backend._told[self._number] = self._pieces

    def _already_there(self, key: str, content: bytes) -> None:
        there = self._backend._piece(self._number, self._pieces + 1)
        if there == content:
            return
        if self._is_ours(there):
            self._late = there
            self._wrote()
            raise StoreFailed(f"{key} holds what was told to be lost")
        self._backend._lost.set()
        raise Locked(
            f"another run goes on with the state in {self._backend.url}, and took this one for "
            "dead",
            hint=_AGAIN,
        )

    def _is_ours(self, content: bytes) -> bool:
        try:
            return all(opened(line)[0].run == self._backend._run for line in content.splitlines())
        except ValueError:
            return False

    def left_behind(self) -> bytes:
        late, self._late = self._late, b""
        return late

    @property
    def is_long(self) -> bool:
        return self._pieces >= _LONG

    def close(self) -> None:
        """Every piece is whole already."""


_AGAIN = "what was done until now is written down; give the same plan once more"
