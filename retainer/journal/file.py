"""The journal: JSON lines under `state:`, each with the hash of the one before (format:
docs/reference/journal.md)."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any

from retainer.errors import Locked, RetainerError
from retainer.model.moment import read_moment, write_moment
from retainer.model.outcome import LeftOver

JOURNAL_FILE = "journal.jsonl"
_ID_FILE = "journal.id"
_START = "0" * 64
_WRITABLE = "is the disk full or read-only? `state:` in retainer.yaml names the folder"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: when (UTC), in which run, of which plan (its fingerprint), what, and the
    particulars."""

    at: datetime
    run: str
    plan: str
    event: str
    particulars: dict[str, Any]
    seal: str = ""


_BEFORE_SEAL, _AFTER_SEAL = b',"hash":"', b'"}'
_SEAL_AT = -(len(_BEFORE_SEAL) + 64 + len(_AFTER_SEAL))
_SHAPES: dict[str, dict[str, type | tuple[type, ...]]] = {
    "deleted": {"row": int, "store": str, "rule": str, "bytes": int, "asset": str},
    "copied": {"row": int, "record": dict},
    "catalogued": {"rows": list},
    "upload": {"row": int, "store": str, "key": str, "upload": str},
    "abandoned": {"upload": str},
    "conditions": {"store": str},
    "intent": {"act": str, "rows": list, "store": str},
    "failed": {"row": int, "act": str},
    "skipped": {"row": int, "act": str},
    "left": {"row": int, "act": str},
    "end": {"finished": bool},
}
"""What later runs read of each event."""
_ANY: dict[str, type | tuple[type, ...]] = {}


def _sealed(line: dict[str, Any]) -> tuple[bytes, str]:
    """A line with its hash, which is over the bytes before it and a closing brace."""
    body = json.dumps(line, sort_keys=True, separators=(",", ":")).encode()
    seal = hashlib.sha256(body).hexdigest()
    return body[:-1] + f',"hash":"{seal}"}}\n'.encode(), seal


def _opened(text: bytes) -> tuple[dict[str, Any], str]:
    """A line and its hash. Raises ValueError where they do not belong together, and for what no run
    writes."""
    body, tail = text[:_SEAL_AT] + b"}", text[_SEAL_AT:]
    seal = hashlib.sha256(body).hexdigest()
    if tail != _BEFORE_SEAL + seal.encode() + _AFTER_SEAL:
        raise ValueError
    line = json.loads(body.decode())
    of = line["of"]
    if not isinstance(of, dict):
        raise ValueError
    for name, kind in _SHAPES.get(line["event"], _ANY).items():
        if not isinstance(of.get(name), kind):
            raise ValueError
    for name in ("at", "run", "plan", "event"):
        if not isinstance(line[name], str):
            raise ValueError
    return line, seal


def _entries(
    content: bytes, path: Path, *, previous: str = _START, first: int = 1
) -> Iterator[Entry]:
    """Every entry. `previous`: the hash that the first of them, at line `first`, goes on from.
    Raises RetainerError where the chain is broken."""
    for number, text in enumerate(content.split(b"\n")[:-1], first):
        try:
            line, seal = _opened(text)
            at = read_moment(line["at"])
            if line["prev"] != previous or at is None:
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise RetainerError(
                f"the journal {path} is damaged at line {number}: what was done is no longer "
                "certain",
                hint="restore the file from a backup; do not edit it",
            ) from None
        previous = seal
        yield Entry(at, line["run"], line["plan"], line["event"], line["of"], seal)


def _after(known: Sequence[Entry], content: bytes, path: Path) -> Iterator[Entry]:
    """Every entry of a journal that may begin with those that are known: each line's hash answers
    for all before it. Raises RetainerError where the chain is broken."""
    if known:
        end = _BEFORE_SEAL + known[-1].seal.encode() + _AFTER_SEAL + b"\n"
        at = content.find(end) + len(end)
        if at >= len(end) and content.count(b"\n", 0, at) == len(known):
            yield from known
            yield from _entries(content[at:], path, previous=known[-1].seal, first=len(known) + 1)
            return
    yield from _entries(content, path)


def read_journal(folder: Path) -> list[Entry]:
    """Every entry under a state folder, oldest first; a last line that a kill cut off is passed
    over. Raises RetainerError."""
    path = folder / JOURNAL_FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RetainerError(
            f"the journal {path} cannot be read: {error.strerror}",
            hint="make it readable; what was done stands in it",
        ) from None
    return list(_entries(content[: content.rfind(b"\n") + 1], path))


def state_id(folder: Path) -> str | None:
    """The random identity of a state folder, made with its journal; None where there is none yet.
    Raises RetainerError."""
    try:
        text = (folder / _ID_FILE).read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RetainerError(f"{folder / _ID_FILE} cannot be read: {error.strerror}") from None
    if not re.fullmatch("[0-9a-f]{32}", text):
        raise RetainerError(
            f"{folder / _ID_FILE} is damaged: it should hold 32 hex digits",
            hint="restore it from a backup",
        )
    return text


def _boot() -> str:
    """What tells this start of this machine from every other; empty where the system does not
    say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


class Journal:
    """The journal opened for one run. An entry is on disk when `write` returns. Safe to use from
    several threads."""

    def __init__(
        self,
        folder: Path,
        run: str,
        plan: str,
        clock: Callable[[], datetime],
        known: Sequence[Entry] = (),
    ) -> None:
        """`known`: what this process has read of it just now, which is not read again. Raises
        Locked when another run has it open, RetainerError when it is damaged or cannot be
        written."""
        self.run = run
        self.plan = plan
        self.path = folder / JOURNAL_FILE
        self._clock = clock
        self._lock, self._syncing = threading.Lock(), threading.Lock()
        self._reading = threading.Lock()
        self._taken_back = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._stream: IO[bytes] = self.path.open("a+b", buffering=0)
        except OSError as error:
            raise RetainerError(
                f"the journal {self.path} cannot be written: {error.strerror}", hint=_WRITABLE
            ) from None
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._stream.close()
            raise Locked(
                f"another run is writing to {self.path}", hint="wait until it has ended"
            ) from None
        try:
            self._begin(folder, known)
        except BaseException:
            self._stream.close()
            raise

    def _begin(self, folder: Path, known: Sequence[Entry]) -> None:
        there = os.fstat(self._stream.fileno())
        self.place = f"{there.st_dev}:{there.st_ino}:{_boot()}"
        """Which file it is on this machine, since it was started: a copy of it is another one, and
        so is that of a cloned machine."""
        self._stream.seek(0)
        content = self._stream.read()
        whole = self._size = content.rfind(b"\n") + 1
        self.before = list(_after(known, content[:whole], self.path))
        self._previous = self.before[-1].seal if self.before else _START
        self._lines = len(self.before)
        self._entries, self._read = list(self.before), whole
        self._synced, self._synced_seal, self._synced_lines = whole, self._previous, self._lines
        own = state_id(folder)
        if own is None:
            own = uuid.uuid4().hex
            try:
                with (folder / _ID_FILE).open("x", encoding="ascii") as stream:
                    stream.write(own + "\n")
                    stream.flush()
                    os.fsync(stream.fileno())
            except OSError as error:
                raise RetainerError(
                    f"{folder / _ID_FILE} cannot be written: {error.strerror}", hint=_WRITABLE
                ) from None
        self.state = own
        if whole < len(content):
            # A kill cut the last line off. What it announced was not begun, for an act waits until
            # its line is on disk.
            self._stream.truncate(whole)
            self.write("torn", bytes=len(content) - whole)

    @property
    def end(self) -> tuple[int, str]:
        """So many lines are on the disk, and the hash of the last of them."""
        with self._lock:
            return self._synced_lines, self._synced_seal

    def entries(self) -> list[Entry]:
        """Everything so far, also what this run has written; each line is read once. Raises
        RetainerError."""
        with self._reading:
            start, until = self._read, self._synced
            if until > start:
                content = os.pread(self._stream.fileno(), until - start, start)
                known = self._entries
                seal = known[-1].seal if known else _START
                known += _entries(content, self.path, previous=seal, first=len(known) + 1)
                self._read = until
            return list(self._entries)

    def write(self, event: str, **particulars: Any) -> None:
        self.write_all([(event, particulars)])

    def write_all(self, events: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Several entries, on disk together when this returns. Where it raises none of them is
        there; a kill in the middle leaves the first of them."""
        with self._lock:
            lines, seal = [], self._previous
            for event, particulars in events:
                line = {
                    "at": write_moment(self._clock()),
                    "run": self.run,
                    "plan": self.plan,
                    "event": event,
                    "of": particulars,
                    "prev": seal,
                }
                text, seal = _sealed(line)
                lines.append(text)
            content = b"".join(lines)
            try:
                written = os.write(self._stream.fileno(), content)
                if written != len(content):
                    raise OSError(errno.ENOSPC, "it could not be written whole")
            except BaseException as error:
                # Whatever interrupts a line takes it back, so that the chain stays whole and the
                # act that waits for it is not begun.
                os.ftruncate(self._stream.fileno(), self._size)
                if isinstance(error, OSError):
                    raise RetainerError(
                        f"the journal {self.path} cannot be written: {error.strerror}",
                        hint="is the disk full?",
                    ) from None
                raise
            self._size += len(content)
            self._previous = seal
            self._lines += len(lines)
            mine, before = self._size, self._taken_back
        self._sync(mine, before)

    def _sync(self, size: int, taken_back: int) -> None:
        """Return when so much is on the disk. One fsync serves every line that waits for it; when
        it fails, all of them are taken back."""
        with self._syncing:
            if self._synced >= size and taken_back == self._taken_back:
                return
            with self._lock:
                reached, seal, lines = self._size, self._previous, self._lines
                lost = taken_back != self._taken_back
            try:
                if lost:
                    raise OSError(errno.EIO, "it was taken back with a line before it")
                os.fsync(self._stream.fileno())
            except OSError as error:
                with self._lock:
                    if not lost:
                        os.ftruncate(self._stream.fileno(), self._synced)
                        self._size, self._previous, self._lines = (
                            self._synced,
                            self._synced_seal,
                            self._synced_lines,
                        )
                        self._taken_back += 1
                raise RetainerError(
                    f"the journal {self.path} cannot be written: {error.strerror}",
                    hint="is the disk full?",
                ) from None
            with self._lock:
                self._synced, self._synced_seal, self._synced_lines = reached, seal, lines

    def close(self) -> None:
        self._stream.close()


@dataclass(frozen=True, slots=True)
class Done:
    """What earlier runs of a plan have done, by row number: copies with their records, and
    deletes."""

    copies: dict[int, dict[str, Any]]
    catalogued: frozenset[int]
    deletes: frozenset[int]
    finished: bool


def done_before(entries: list[Entry], plan: str) -> Done:
    """What the journal says of a plan, by its fingerprint."""
    copies: dict[int, dict[str, Any]] = {}
    catalogued: set[int] = set()
    deletes: set[int] = set()
    finished = False
    for entry in entries:
        of = entry.particulars
        if of.get("plan", entry.plan) != plan:
            continue
        match entry.event:
            case "copied":
                copies[of["row"]] = of["record"]
            case "catalogued":
                catalogued.update(of["rows"])
            case "deleted" if not of.get("partial"):
                deletes.add(of["row"])
            case "end":
                finished = finished or of["finished"]
    return Done(copies, frozenset(catalogued), frozenset(deletes), finished)


def path_mark(path: str) -> str:
    """What tells one path of a recording from another in the journal: SHA-256, 16 hex digits."""
    return hashlib.sha256(path.partition("?")[0].encode()).hexdigest()[:16]


def gone_sources(entries: Iterable[Entry]) -> dict[str, str]:
    """The assets whose last copy from 100ms ended in 404 or 410, each with the mark of the path
    that it had: it is not tried again each night, until it has another path."""
    found: dict[str, str] = {}
    for entry in entries:
        of = entry.particulars
        match entry.event:
            case "failed" if of["act"] == "copy" and isinstance(of.get("gone"), str):
                found[of.get("asset", "")] = of["gone"]
            case "copied":
                found.pop(of.get("asset", ""), None)
            case "failed" if of["act"] == "copy":
                found.pop(of.get("asset", ""), None)  # something came, so it was there
    return found


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


@dataclass(frozen=True, slots=True)
class Intended:
    """A delete that was announced, and of which nobody knows whether it was done: one row of one
    plan."""

    at: datetime
    run: str
    plan: str
    row: int
    asset: str
    store: str
    rule: str
    bytes: int
    objects: tuple[tuple[str, int, str], ...]


def open_intents(entries: Iterable[Entry]) -> list[Intended]:
    """The deletes, of any plan, that a run was about to make when it ended, or whose answer it
    never saw. Raises RetainerError."""
    found: dict[tuple[str, int], Intended] = {}
    for entry in entries:
        of = entry.particulars
        match entry.event:
            case "intent" if of["act"] == "delete":
                found |= {(each.plan, each.row): each for each in _intended(entry)}
            case "deleted":
                found.pop((of.get("plan", entry.plan), of["row"]), None)
            case "left" | "skipped" | "failed" if of["act"] == "delete" and not of.get("unknown"):
                found.pop((of.get("plan", entry.plan), of["row"]), None)
    return list(found.values())


def _intended(entry: Entry) -> list[Intended]:
    of = entry.particulars
    try:
        return [
            Intended(
                entry.at,
                entry.run,
                entry.plan,
                int(act["row"]),
                str(act["asset"]),
                of["store"],
                str(act["rule"]),
                int(act["bytes"]),
                tuple((str(key), int(size), str(version)) for key, size, version in act["objects"]),
            )
            for act in of["acts"]
        ]
    except (KeyError, TypeError, ValueError):
        message = (
            f"the journal has an announcement of {entry.at:%Y-%m-%d %H:%M} (run {entry.run}) "
            "that cannot be read"
        )
        raise RetainerError(
            message, hint="restore the file from a backup; do not edit it"
        ) from None


def recent_deletes(
    entries: Sequence[Entry], now: datetime, *, but: str | None = None
) -> dict[tuple[str, str], tuple[int, int]]:
    """How many deletes of how many bytes the last 24 hours saw, by (store, rule), with those that
    may have been made.

    `but`: a plan whose own are left out.
    """
    sizes: dict[tuple[str, int, str, str], int] = {}

    def add(at: datetime, plan: str, row: int, store: str, rule: str, size: int) -> None:
        if at > now - timedelta(hours=24) and plan != but:
            sizes[plan, row, store, rule] = sizes.get((plan, row, store, rule), 0) + size

    for entry in entries:
        if entry.event == "deleted":
            of = entry.particulars
            add(
                entry.at,
                of.get("plan", entry.plan),
                of["row"],
                of["store"],
                of["rule"],
                of["bytes"],
            )
    for intended in open_intents(entries):
        add(intended.at, intended.plan, intended.row, intended.store, intended.rule, intended.bytes)
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for (_, _, store, rule), size in sizes.items():
        count, total = found.get((store, rule), (0, 0))
        found[store, rule] = (count + 1, total + size)
    return found


def done_lately(entries: Iterable[Entry], plan: str) -> dict[tuple[str, str], int]:
    """How many deletes one plan has made, or was about to make, by (store, rule)."""
    rows: dict[tuple[str, str], set[int]] = {}
    for entry in entries:
        of = entry.particulars
        if entry.event == "deleted" and of.get("plan", entry.plan) == plan:
            rows.setdefault((of["store"], of["rule"]), set()).add(of["row"])
    return {key: len(found) for key, found in rows.items()}


_WEAKNESSES = {
    "create": "honours no conditional create: nothing is copied there, and nothing deleted",
    "replace": (
        "honours no conditional replace, so no lock holds there: nothing is deleted there, nor for "
        "a copy there"
    ),
    "delete": (
        "honours no conditional delete: apply looks at each object just before it deletes it"
    ),
    "parts": (
        "honours no condition at the end of an upload in parts: what is long rests on the run's "
        "lock alone"
    ),
    "checksum": "computes no checksum of its own: apply reads back what it wrote",
}
"""What it means that a store lacks an ability, the worst first."""


def weak_stores(entries: list[Entry]) -> dict[str, tuple[str, str]]:
    """Stores that were seen to lack an ability, as they were last seen: the worst that is lacking,
    and what that means."""
    seen: dict[str, dict[str, bool]] = {}
    for entry in entries:
        if entry.event == "conditions":
            of = dict(entry.particulars)
            seen.setdefault(of.pop("store"), {}).update(of)
    return {
        store: next(each for each in _WEAKNESSES.items() if known.get(each[0]) is False)
        for store, known in seen.items()
        if any(known.get(lacks) is False for lacks in _WEAKNESSES)
    }


PROVEN_FOR = timedelta(hours=24)
"""So long it is believed that a server honours what it was seen to honour."""


def proven_lately(entries: Iterable[Entry], now: datetime, tool: str) -> dict[str, dict[str, bool]]:
    """What was found out of servers within a day by this version of retainer, by the place where
    the store lies (`Store.place`)."""
    versions: dict[str, str] = {}
    found: dict[str, dict[str, bool]] = {}
    for entry in entries:
        of = entry.particulars
        if entry.event == "start":
            versions[entry.run] = of.get("tool", "")
            continue
        recent = timedelta(0) <= now - entry.at < PROVEN_FOR and versions.get(entry.run) == tool
        if entry.event == "conditions" and recent and of.get("place"):
            known = {name: value for name, value in of.items() if isinstance(value, bool)}
            found.setdefault(of["place"], {}).update(known)
    return found
