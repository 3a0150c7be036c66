"""The journal: JSON lines under `state:`, each with the hash of the one before (format: docs/journal.md)."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any

from retainer.errors import Locked, RetainerError
from retainer.model.moment import read_moment, write_moment
from retainer.model.outcome import LeftOver

JOURNAL_FILE = "journal.jsonl"
_START = "0" * 64


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: when (UTC), in which run, of which plan (its fingerprint), what, and the particulars."""

    at: datetime
    run: str
    plan: str
    event: str
    particulars: dict[str, Any]


def _sealed(line: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(line, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _entries(content: bytes, path: Path) -> Iterator[tuple[Entry, str]]:
    """Every entry with its hash. Raises RetainerError where the chain is broken."""
    previous = _START
    for number, text in enumerate(content.splitlines(), 1):
        try:
            line = json.loads(text)
            seal = line.pop("hash")
            if line["prev"] != previous or _sealed(line) != seal:
                raise ValueError
            at = read_moment(line["at"])
            if at is None:
                raise ValueError
            entry = Entry(at, line["run"], line["plan"], line["event"], line["of"])
        except (ValueError, KeyError, TypeError):
            raise RetainerError(
                f"the journal {path} is damaged at line {number}: what was done is no longer certain",
                hint="restore the file from a backup; do not edit it",
            ) from None
        previous = seal
        yield entry, seal


def read_journal(folder: Path) -> list[Entry]:
    """Every entry under a state folder, oldest first; a last line that a kill cut off is passed over. Raises RetainerError."""
    path = folder / JOURNAL_FILE
    if not path.is_file():
        return []
    content = path.read_bytes()
    return [entry for entry, _ in _entries(content[: content.rfind(b"\n") + 1], path)]


class Journal:
    """The journal opened for one run. An entry is on disk when `write` returns. Safe to use from several threads."""

    def __init__(self, folder: Path, run: str, plan: str, clock: Callable[[], datetime]) -> None:
        """Raises Locked when another run has it open, RetainerError when it is damaged or cannot be written."""
        self.run = run
        self.plan = plan
        self.path = folder / JOURNAL_FILE
        self._clock = clock
        self._lock, self._syncing = threading.Lock(), threading.Lock()
        self._taken_back = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._stream: IO[bytes] = self.path.open("a+b", buffering=0)
        except OSError as error:
            raise RetainerError(f"the journal {self.path} cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._stream.close()
            raise Locked(f"another run is writing to {self.path}", hint="wait until it has ended") from None
        self._stream.seek(0)
        content = self._stream.read()
        whole = self._size = content.rfind(b"\n") + 1
        self.before: list[Entry] = []
        self._previous = _START
        for entry, seal in _entries(content[:whole], self.path):
            self.before.append(entry)
            self._previous = seal
        self._synced, self._synced_seal = whole, self._previous
        if whole < len(content):
            # A kill cut the last line off. What it announced was not begun, for an act waits until its line is on disk.
            self._stream.truncate(whole)
            self.write("torn", bytes=len(content) - whole)

    def write(self, event: str, **particulars: Any) -> None:
        with self._lock:
            line = {"at": write_moment(self._clock()), "run": self.run, "plan": self.plan, "event": event, "of": particulars,
                    "prev": self._previous}  # fmt: skip
            seal = _sealed(line)
            content = (json.dumps(line | {"hash": seal}, sort_keys=True, separators=(",", ":")) + "\n").encode()
            try:
                written = os.write(self._stream.fileno(), content)
                if written != len(content):
                    raise OSError(errno.ENOSPC, "it could not be written whole")
            except BaseException as error:
                # Whatever interrupts a line takes it back, so that the chain stays whole and the act that waits for it is not begun.
                os.ftruncate(self._stream.fileno(), self._size)
                if isinstance(error, OSError):
                    raise RetainerError(f"the journal {self.path} cannot be written: {error.strerror}", hint="is the disk full?") from None
                raise
            self._size += len(content)
            self._previous = seal
            mine, before = self._size, self._taken_back
        self._sync(mine, before)

    def _sync(self, size: int, taken_back: int) -> None:
        """Return when so much is on the disk. One fsync serves every line that waits for it; when it fails, all of them are taken back."""
        with self._syncing:
            if self._synced >= size and taken_back == self._taken_back:
                return
            with self._lock:
                reached, seal = self._size, self._previous
                lost = taken_back != self._taken_back
            try:
                if lost:
                    raise OSError(errno.EIO, "it was taken back with a line before it")
                os.fsync(self._stream.fileno())
            except OSError as error:
                with self._lock:
                    if not lost:
                        os.ftruncate(self._stream.fileno(), self._synced)
                        self._size, self._previous = self._synced, self._synced_seal
                        self._taken_back += 1
                raise RetainerError(f"the journal {self.path} cannot be written: {error.strerror}", hint="is the disk full?") from None
            self._synced, self._synced_seal = reached, seal

    def close(self) -> None:
        self._stream.close()


@dataclass(frozen=True, slots=True)
class Done:
    """What earlier runs of a plan have done, by row number: copies with their records, deletes, and what they only intended."""

    copies: dict[int, dict[str, Any]]
    catalogued: frozenset[int]
    deletes: frozenset[int]
    intended: frozenset[int]
    finished: bool


def done_before(entries: list[Entry], plan: str) -> Done:
    """What the journal says of a plan, by its fingerprint."""
    copies: dict[int, dict[str, Any]] = {}
    catalogued: set[int] = set()
    deletes: set[int] = set()
    intended: set[int] = set()
    finished = False
    for entry in entries:
        if entry.plan != plan:
            continue
        of = entry.particulars
        match entry.event:
            case "intent":
                intended.update(of["rows"])
            case "copied":
                copies[of["row"]] = of["record"]
            case "catalogued":
                catalogued.update(of["rows"])
            case "deleted":
                deletes.add(of["row"])
            case "end":
                finished = finished or of["finished"]
    return Done(copies, frozenset(catalogued), frozenset(deletes), frozenset(intended), finished)


def left_over(entries: list[Entry]) -> list[LeftOver]:
    """What was begun and neither became a copy nor was given up."""
    found: dict[str, LeftOver] = {}
    rows: dict[tuple[str, int], list[str]] = {}
    for entry in entries:
        of = entry.particulars
        match entry.event:
            case "upload":
                found[of["upload"]] = LeftOver(of["store"], of["key"], of["upload"])
                rows.setdefault((entry.run, of["row"]), []).append(of["upload"])
            case "copied":
                for upload in rows.pop((entry.run, of["row"]), ()):
                    found.pop(upload, None)
            case "abandoned":
                found.pop(of["upload"], None)
    return list(found.values())


def recent_deletes(entries: list[Entry], now: datetime) -> dict[tuple[str, str], tuple[int, int]]:
    """How many deletes of how many bytes the last 24 hours saw, by (store, rule)."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for entry in entries:
        if entry.event == "deleted" and entry.at > now - timedelta(hours=24):
            key = (entry.particulars["store"], entry.particulars["rule"])
            count, size = found.get(key, (0, 0))
            found[key] = (count + 1, size + int(entry.particulars["bytes"]))
    return found


def weak_stores(entries: list[Entry]) -> dict[str, str]:
    """Stores whose last probe found a condition that they do not honour, and what that means."""
    found: dict[str, str] = {}
    for entry in entries:
        if entry.event == "conditions":
            of = entry.particulars
            found.pop(of["store"], None)
            if not of["create"]:
                found[of["store"]] = "honours no conditional create: nothing is copied there"
            elif not of["delete"]:
                found[of["store"]] = "honours no conditional delete: apply looks at each object just before it deletes it"
            elif not of.get("checksum", True):
                found[of["store"]] = "computes no checksum of its own: apply reads back what it wrote"
    return found
