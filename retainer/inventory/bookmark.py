"""Where a list stands, so that one that was cut goes on instead of beginning anew: one cursor of
100ms is strictly serial, and ten million recordings are a hundred thousand pages."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from retainer.model.tables import SNAPSHOT_FORMAT
from retainer.ports import Stretch
from retainer.whole import whole

RESUMED_WITHIN = timedelta(hours=6)
"""A list of which longer ago was written down where it stands begins anew."""
PAGES_BETWEEN = 20
"""After so many pages it is written down anew where a list stands."""
_TOOL = version("retainer")


@dataclass(frozen=True, slots=True)
class Bookmark:
    """What was written by `at` of a list that began at `began`: `size` bytes of its spool."""

    began: datetime
    at: datetime
    size: int


@dataclass(frozen=True, slots=True)
class Page(Bookmark):
    """Up to the page of 100ms that the cursor `start` asks for, with the digest `page`. `ended`:
    that was the last."""

    start: str | None
    page: str
    ended: bool = False
    objects: int = 0
    strays: int = 0
    nameless: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stretches(Bookmark):
    """These stretches of a store's list to their ends, and some rows of others; `digest`: the
    SHA-256 of all that."""

    digest: str
    ended: tuple[Stretch, ...]


Mark = TypeVar("Mark", bound=Bookmark)


@contextmanager
def held(folder: Path) -> Iterator[Path | None]:
    """The folder of spools and bookmarks, which only this user may look into, while no other
    process lists into it; None where one does, or where there can be none. What nobody goes on
    with is removed."""
    with ExitStack() as holding:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            hold = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            holding.callback(os.close, hold)
            if os.fstat(hold).st_uid != os.geteuid():
                raise PermissionError
            os.fchmod(hold, 0o700)
            fcntl.flock(hold, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for path in folder.iterdir():
                if time.time() - path.stat().st_mtime > RESUMED_WITHIN.total_seconds():
                    path.unlink()
        except OSError:
            holding.close()
            yield None
            return
        yield folder


def spool_of(folder: Path, whose: str, kind: str | None) -> Path:
    """Where the rows of one list lie. `whose`: whose recordings or objects these are, and where;
    other versions of retainer may read them otherwise."""
    told = repr((whose, kind, _TOOL, SNAPSHOT_FORMAT))
    return folder / f"{hashlib.sha256(told.encode()).hexdigest()[:32]}.jsonl"


def bookmark_of(spool: Path, form: type[Mark], now: datetime, within: timedelta) -> Mark | None:
    """Where the list stands whose rows are in a spool; None where it is to begin anew, also where
    it did not begin `within` so long."""
    try:
        found = TypeAdapter(form).validate_json(_beside(spool).read_bytes())
        is_there = spool.stat().st_size >= found.size
        is_young = found.began <= found.at <= now < found.at + RESUMED_WITHIN
        return found if is_there and is_young and now - found.began < within else None
    except (OSError, ValidationError, TypeError):
        return None


def keep(spool: Path, bookmark: Bookmark) -> None:
    """Write down where a list stands, once its rows are on the disk; what cannot be written is
    begun anew next time."""
    with suppress(OSError, ValueError), spool.open("rb") as rows, whole(_beside(spool)) as half:
        os.fsync(rows.fileno())
        half.touch(mode=0o600)
        half.write_bytes(TypeAdapter(type(bookmark)).dump_json(bookmark))


def drop(spool: Path) -> None:
    """What is written into the spool from now on is another list than its bookmark tells of. Raises
    OSError where that cannot be made so."""
    _beside(spool).unlink(missing_ok=True)


def forget(spool: Path) -> None:
    """The list begins anew next time."""
    with suppress(OSError):
        drop(spool)
        spool.unlink(missing_ok=True)


def _beside(spool: Path) -> Path:
    return spool.with_suffix(".json")
