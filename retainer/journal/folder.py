"""A state in a folder of this machine: a file for each segment, and one run at a time by a lock on
a file."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

from retainer.errors import Locked, RetainerError
from retainer.whole import whole

SEGMENTS = "journal"
OLD_JOURNAL = "journal.jsonl"
"""Where all of it lay until 0.2: the segment with the number 0, once a run has carried it over."""
LOCK_FILE = "journal.lock"
_ID_FILE = "journal.id"
_FREEZES = "freezes.jsonl"
_WRITABLE = "is the disk full or read-only? `state:` in retainer.yaml names the folder"


@dataclass(frozen=True)
class FolderBackend:
    """`journal.backend.Backend` in a folder."""

    folder: Path

    @property
    def where(self) -> str:
        return str(self.folder)

    def _path(self, number: int) -> Path:
        path = self.folder / SEGMENTS / f"{number:08}.jsonl"
        old = self.folder / OLD_JOURNAL
        return old if number == 0 and not path.exists() else path

    # ── who it is ───────────────────────────────────────────────────────────────────────────────

    def identity(self) -> str | None:
        try:
            text = (self.folder / _ID_FILE).read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(self.folder / _ID_FILE, error) from None
        return as_identity(text, str(self.folder / _ID_FILE))

    def name(self, identity: str) -> None:
        try:
            with (self.folder / _ID_FILE).open("x", encoding="ascii") as stream:
                stream.write(identity + "\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise _unwritable(self.folder / _ID_FILE, error) from None

    # ── segments ────────────────────────────────────────────────────────────────────────────────

    def newest(self) -> int | None:
        try:
            names = [path.name for path in (self.folder / SEGMENTS).iterdir()]
        except FileNotFoundError:
            names = []
        except OSError as error:
            raise _unreadable(self.folder / SEGMENTS, error) from None
        found = [int(name[:8]) for name in names if re.fullmatch(r"[0-9]{8}\.jsonl", name)]
        old = [0] if (self.folder / OLD_JOURNAL).exists() else []
        return max([*found, *old], default=None)

    def last_line(self, number: int) -> bytes | None:
        path = self._path(number)
        try:
            with path.open("rb") as stream:
                end = stream.seek(0, os.SEEK_END)
                tail, at = b"", end
                while at > 0 and tail.rstrip(b"\n").rfind(b"\n") < 0:
                    at = max(0, at - max(_PIECE, len(tail)))
                    stream.seek(at)
                    tail = stream.read(end - at)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(path, error) from None
        return tail[:-1].rpartition(b"\n")[2] + b"\n" if tail.endswith(b"\n") else None

    def lines(self, number: int) -> Iterator[bytes]:
        path = self._path(number)
        try:
            with path.open("rb") as stream:
                yield from stream
        except FileNotFoundError:
            return
        except OSError as error:
            raise _unreadable(path, error) from None

    def open(self, number: int) -> FileTape:
        path = self._path(number)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            is_new = not path.exists()
            stream = path.open("a+b", buffering=0)
            if is_new:
                _make_durable(path.parent)
        except OSError as error:
            raise _unwritable(path, error) from None
        return FileTape(stream, path)

    def moment(self, now: datetime) -> datetime:
        return now

    def finished(self, number: int) -> None:
        """The old journal becomes the segment that it is: an older retainer finds none, and deletes
        nothing."""
        old = self.folder / OLD_JOURNAL
        if number == 0 and old.exists():
            try:
                (self.folder / SEGMENTS).mkdir(exist_ok=True)
                old.rename(self.folder / SEGMENTS / f"{0:08}.jsonl")
            except OSError as error:
                raise _unwritable(old, error) from None

    @contextmanager
    def alone(self, run: str) -> Iterator[str]:
        path = self.folder / LOCK_FILE
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            stream = path.open("a+b", buffering=0)
        except OSError as error:
            raise _unwritable(path, error) from None
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise Locked(
                    f"another run is writing to the journal in {self.folder}",
                    hint="wait until it has ended, or say --wait 15m",
                ) from None
            there = os.fstat(stream.fileno())
            yield f"{there.st_dev}:{there.st_ino}:{_boot()}"

    # ── beside the journal ──────────────────────────────────────────────────────────────────────

    def last_freeze(self) -> bytes | None:
        path = self.folder / _FREEZES
        try:
            lines = path.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(path, error) from None
        return lines[-1] if lines else None

    def add_freeze(self, line: bytes) -> None:
        path = self.folder / _FREEZES
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with path.open("a+b") as stream:
                # a line that a full disk cut off must not swallow this one
                stream.seek(0)
                content = stream.read()
                begins = b"" if not content or content.endswith(b"\n") else b"\n"
                stream.write(begins + line)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise _unwritable(path, error) from None

    def archive(self, name: str, file: Path) -> None:
        place = self.folder / name
        if place.exists():
            return
        try:
            with whole(place) as half:
                shutil.copyfile(file, half)
        except OSError as error:
            raise _unwritable(place, error) from None

    def archived(self, name: str) -> bytes | None:
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(self.folder / name, error) from None

    def held(self) -> str | None:
        """A lock on a file tells nobody whose it is."""
        return None

    def archives(self, under: str) -> list[str]:
        folder, _, start = under.rpartition("/")
        try:
            names = [path.name for path in (self.folder / folder).iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unreadable(self.folder / folder, error) from None
        return sorted(
            f"{folder}/{name}"
            for name in names
            if name.startswith(start) and not name.endswith(".half")
        )


def as_identity(text: str, where: str, hint: str = "restore it from a backup") -> str:
    """The identity of a state, as it stands in a file or an object. Raises RetainerError."""
    if not re.fullmatch("[0-9a-f]{32}", text):
        raise RetainerError(f"{where} is damaged: it should hold 32 hex digits", hint=hint)
    return text


_PIECE = 1 << 16


class FileTape:
    """`journal.backend.Tape` at the end of a file."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream, self._path = stream, path
        try:
            content_end = self._whole_lines()
            self._stream.truncate(content_end)
        except OSError as error:
            self._stream.close()
            raise _unwritable(path, error) from None
        self._size = content_end

    def _whole_lines(self) -> int:
        """Where the last whole line ends."""
        at = self._stream.seek(0, os.SEEK_END)
        while at > 0:
            start = max(0, at - _PIECE)
            found = os.pread(self._stream.fileno(), at - start, start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            at = start
        return 0

    def append(self, content: bytes) -> None:
        try:
            written = os.write(self._stream.fileno(), content)
            if written != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._stream.fileno())
        except BaseException as error:
            # Whatever interrupts a line takes it back, so that the chain stays whole and the act
            # that waits for it is not begun.
            os.ftruncate(self._stream.fileno(), self._size)
            if isinstance(error, OSError):
                raise _unwritable(self._path, error) from None
            raise
        self._size += len(content)

    def left_behind(self) -> bytes:
        return b""

    @property
    def is_long(self) -> bool:
        return False

    def close(self) -> None:
        self._stream.close()


def _boot() -> str:
    """What tells this start of this machine from every other; empty where the system does not
    say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _make_durable(folder: Path) -> None:
    """The name of a new file is on the disk too. Raises OSError."""
    with suppress(PermissionError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _unreadable(path: Path, error: OSError) -> RetainerError:
    return RetainerError(
        f"the journal {path} cannot be read: {error.strerror}",
        hint="make it readable; what was done stands in it",
    )


def _unwritable(path: Path, error: OSError) -> RetainerError:
    return RetainerError(f"the journal {path} cannot be written: {error.strerror}", hint=_WRITABLE)
