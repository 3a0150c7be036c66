"""Where a list of 100ms stands, so that one that was cut goes on instead of beginning anew: one
cursor is strictly serial, and ten million recordings are a hundred thousand pages."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from retainer.whole import whole

RESUMED_WITHIN = timedelta(hours=6)
"""A list that began longer ago begins anew, or, where that is shorter, one that is older than plans
last."""
PAGES_BETWEEN = 20
"""After so many pages it is written down anew where a list stands."""


@dataclass(frozen=True, slots=True)
class Bookmark:
    """What was written of a list that began at `began`: `size` bytes of its spool, up to the page
    that the cursor `start` asks for, which had the ids `ids`. `ended`: that was the last page."""

    began: datetime
    size: int
    start: str | None
    ids: tuple[str, ...]
    ended: bool = False
    objects: int = 0
    strays: int = 0
    nameless: int = 0
    notes: tuple[str, ...] = field(default=())


_FORM = TypeAdapter(Bookmark)


@contextmanager
def held(folder: Path) -> Iterator[Path | None]:
    """The folder of spools and bookmarks, which only this user may look into, while no other
    process lists into it; None where one does, or where none can be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        hold = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield None
        return
    try:
        fcntl.flock(hold, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(hold)
        yield None
        return
    try:
        yield folder
    finally:
        os.close(hold)


def spool_of(folder: Path, whose: str, kind: str | None) -> Path:
    """Where the rows of one list lie. `whose`: whose recordings these are, and where."""
    name = hashlib.sha256(repr((whose, kind)).encode()).hexdigest()[:32]
    return folder / f"{name}.jsonl"


def bookmark_of(spool: Path, now: datetime, within: timedelta) -> Bookmark | None:
    """Where the list stands whose rows are in a spool; None where it is to begin anew, also where
    it began not `within` so long."""
    try:
        found = _FORM.validate_json(_beside(spool).read_bytes())
        if spool.stat().st_size < found.size:
            return None
        return found if timedelta() <= now - found.began < within else None
    except (OSError, ValidationError, TypeError):
        return None


def keep(spool: Path, bookmark: Bookmark) -> None:
    """Write down where a list stands; what cannot be written is begun anew next time."""
    with suppress(OSError), whole(_beside(spool)) as half:
        half.touch(mode=0o600)
        half.write_bytes(_FORM.dump_json(bookmark))


def forget(spool: Path) -> None:
    """The list begins anew next time."""
    for path in (_beside(spool), spool):
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _beside(spool: Path) -> Path:
    return spool.with_suffix(".json")
