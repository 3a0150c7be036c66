"""The list of a store: many stretches of it at once, and on from where an earlier run was cut."""

from __future__ import annotations

import hashlib
import json
import os
import time
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

import duckdb

from retainer.database import connect, rows_of
from retainer.errors import ListingTorn
from retainer.inventory.bookmark import Stretches, bookmark_of, drop, keep
from retainer.inventory.facts import is_text
from retainer.inventory.listing import WENT_ON, Listing, Progress, object_row, spooled
from retainer.ports import Seen, StoreReader, Stretch
from retainer.whole import whole

KEEP_SECONDS = 5.0
"""So often it is written down which stretches have ended."""
_PAGE = 1000
_PAGES = 20
"""A range has so many pages: each asks for one more, to see that the next one begins there."""
_PARTS_OF_A_LONG_LIST = 20


def list_store(
    reader: StoreReader,
    listing: Listing,
    path: Path,
    clock: Callable[[], datetime],
    progress: Progress,
    *,
    goes_on: timedelta | None = None,
) -> None:
    """Write the objects of a store to a spool at `path`, many pages at once where that can be shown
    to be all.

    `goes_on`: with the stretches that an earlier run has read to their ends, which began within so
    long, and so that a later one may; None: neither. What fails leaves the list unfinished.
    """
    stands = bookmark_of(path, Stretches, listing.started_at, goes_on) if goes_on else None
    path.touch(mode=0o600)
    bounds = _bounds(listing.parts)
    going = _Going(reader, listing, path, clock, progress, is_kept=goes_on is not None)
    known = stands.ended if stands and going.take_over(stands) else ()
    if not known:
        going.begin()
    if not going.at_once(bounds, known) and not (known and going.at_once(bounds, ())):
        going.page_by_page()
    if listing.is_resumed:
        listing.tell_beginning(WENT_ON)
    if going.unreadable:
        listing.said.append(
            f"{len(going.unreadable)} objects have names that are no Unicode; they are never "
            "touched"
        )


@dataclass
class _Going:
    """A list that is written to a spool."""

    reader: StoreReader
    listing: Listing
    path: Path
    clock: Callable[[], datetime]
    progress: Progress
    is_kept: bool
    """Whether it is written down how far it is."""
    unreadable: list[str] = field(default_factory=list)
    _size: int = 0
    _rows_there: int = 0
    _digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    """Of what was found in the spool by now."""

    def take_over(self, stands: Stretches) -> bool:
        """Keep those rows of the spool that are of stretches that have ended; False where they
        cannot be read any more."""
        known = sorted(stands.ended, key=lambda each: each.after or "")
        begins = [each.after or "" for each in known]
        objects = size = 0
        digest = hashlib.sha256()
        drop(self.path)  # it does not tell of what is made of the spool here
        try:
            with self.path.open("rb") as spool, whole(self.path) as half:
                half.touch(mode=0o600)
                with half.open("wb") as kept:
                    for line in spool:
                        if spool.tell() > stands.size:
                            break
                        digest.update(line)
                        row = json.loads(line)
                        number = bisect_left(begins, row["key"]) - 1
                        if number >= 0 and known[number].holds(row["key"]):
                            kept.write(line)
                            objects += 1
                            size += int(row["size"])
                if digest.hexdigest() != stands.digest:
                    raise ValueError
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            return False
        listing = self.listing
        listing.started_at, listing.is_resumed = stands.began, True
        listing.objects, listing.bytes = objects, size
        self.progress(listing.name, objects // 100 * 100)
        self._keep(stands.ended)
        return True

    def at_once(self, bounds: Sequence[str], known: Sequence[Stretch]) -> bool:
        """By stretches, of which some are known; False where that cannot be shown to be all, and
        the list is to begin anew."""
        ended = [*known]
        try:
            with (
                self.path.open("a", encoding="utf-8") as spool,
                closing(self.reader.list_at_once(bounds, known)) as found,
            ):
                self._write(spool, self._objects(found, ended, spool))
                # not where writing failed: what was to be written then is nowhere
                if ended and not self.listing.has_ended:
                    self._mark(spool, ended)
        except ListingTorn:
            self.begin()
            return False
        if self.listing.has_ended:
            drop(self.path)  # to list it once more is quicker than what may still come
        return True

    def page_by_page(self) -> None:
        with self.path.open("a", encoding="utf-8") as spool:
            self._write(spool, self.reader.list())

    def _objects(
        self, found: Iterable[Seen | Stretch], ended: list[Stretch], spool: TextIO
    ) -> Iterator[Seen]:
        """And now and then it is written down which stretches have ended."""
        kept_at = time.monotonic()
        for each in found:
            if isinstance(each, Seen):
                yield each
                continue
            ended.append(each)
            if time.monotonic() - kept_at > KEEP_SECONDS:
                self._mark(spool, ended)
                kept_at = time.monotonic()

    def _write(self, spool: TextIO, objects: Iterator[Seen]) -> None:
        # Closed whatever comes, so that nobody goes on reading a list that is not wanted.
        with closing(self._rows(objects)) as rows:
            spooled(self.listing, spool, rows, self.progress)

    def _rows(self, objects: Iterator[Seen]) -> Generator[dict[str, Any]]:
        for seen in objects:
            if not is_text(seen.key):
                self.unreadable.append(seen.key)
                continue
            self.listing.bytes += seen.size
            yield object_row(self.reader.name, seen, self.listing.can_lock)

    def _mark(self, spool: TextIO, ended: Sequence[Stretch]) -> None:
        spool.flush()
        with suppress(OSError):  # somebody else's may lie there by now
            if os.path.samestat(os.fstat(spool.fileno()), self.path.stat()):
                self._keep(ended)

    def _keep(self, ended: Sequence[Stretch]) -> None:
        """Write down which stretches have ended, where the spool has every row that was written to
        it. It tells nothing of objects without a readable name."""
        if not self.is_kept or self.unreadable:
            return
        with self.path.open("rb") as spool:
            spool.seek(self._size)
            while piece := spool.read(1 << 20):
                self._digest.update(piece)
                self._size += len(piece)
                self._rows_there += piece.count(b"\n")
        if self._rows_there == self.listing.objects:
            began, digest = self.listing.started_at, self._digest.hexdigest()
            keep(self.path, Stretches(began, self.clock(), self._size, digest, tuple(ended)))

    def begin(self) -> None:
        """Forget what was written."""
        listing = self.listing
        drop(self.path)
        os.truncate(self.path, 0)
        self.progress(listing.name, -(listing.objects // 100 * 100))
        listing.objects = listing.bytes = 0
        self.unreadable.clear()
        self._size = self._rows_there = 0
        self._digest = hashlib.sha256()
        if listing.is_resumed:
            listing.started_at, listing.is_resumed = self.clock(), False


def _bounds(parts: Sequence[Path]) -> list[str]:
    """Where the listing of a store may be split: behind every so many full pages of the keys that
    its catalog expects; nowhere, where they are few, or the catalog cannot be read."""
    if len(parts) < _PARTS_OF_A_LONG_LIST:
        return []
    connection = connect(parts[0].parent)
    try:
        connection.execute("CREATE TABLE told (key VARCHAR, deleted BOOLEAN, copied_at TIMESTAMP)")
        for some in rows_of(parts):
            connection.execute(f"INSERT INTO told SELECT key, deleted, copied_at FROM {some}")
        connection.execute(
            "CREATE TABLE expected AS SELECT key, row_number() OVER (ORDER BY key) AS n FROM ("
            "  SELECT key, arg_max(coalesce(deleted, false), copied_at) AS gone FROM told"
            "  GROUP BY key) WHERE NOT gone"
        )
        row = connection.execute("SELECT count(*) FROM expected").fetchone()
        pages = (row[0] if row else 0) // _PAGE
        each = _PAGE * _PAGES
        rows = connection.execute(
            "SELECT key FROM expected WHERE n % ? = 0 AND n < ? ORDER BY key",
            [each, (pages - 1) * _PAGE],
        ).fetchall()
        return [key for (key,) in rows] if pages >= 2 * _PAGES else []
    except duckdb.Error:
        return []  # it is read again for what it says, and that is told then
    finally:
        connection.close()
