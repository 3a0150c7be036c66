"""The lists of what 100ms has, each of which goes on where an earlier run was cut."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from retainer.errors import ListingBroken
from retainer.inventory.bookmark import PAGES_BETWEEN, Page, bookmark_of, drop, keep
from retainer.inventory.facts import read_asset
from retainer.inventory.listing import WENT_ON, Listing, Progress, spooled
from retainer.ports import AssetPage, Recordings

OTHER_TYPES = "100ms types"
"""The list of all types, of which those count that no list of one type has shown."""


def list_assets(
    recordings: Recordings,
    kind: str | None,
    kinds: Sequence[str],
    path: Path,
    clock: Callable[[], datetime],
    progress: Progress,
    *,
    goes_on: timedelta | None,
) -> Listing:
    """The assets of one type; or (None) all, so that none is missed that is of a type that nobody
    knew of, or that a filter leaves out. What is odd about those of `kinds` is told where they are
    listed by themselves.

    `goes_on`: from where an earlier run was cut that began within so long, whose rows lie at
    `path`, and so that a later one may; None: neither. Raises CredentialsRefused; any other failure
    leaves the list unfinished.
    """
    name = f"100ms {kind or 'assets'}" if kind or not kinds else OTHER_TYPES
    listing = Listing(name, "assets", clock())
    stands = bookmark_of(path, Page, listing.started_at, goes_on) if goes_on else None
    if stands is None:
        drop(path)
        path.touch(mode=0o600)
    spool: TextIO
    with path.open("r+" if stands else "w", encoding="utf-8") as spool:
        if stands:
            _go_on(listing, stands, spool)
            progress(name, listing.objects // 100 * 100)

        def rows() -> Iterator[dict[str, Any]]:
            nonlocal stands
            pages, is_new = _pages(recordings, kind, stands)
            if stands and is_new:
                progress(name, -(listing.objects // 100 * 100))
                drop(path)
                _begin(listing, spool, clock())
                stands = None
            for number, page in enumerate(pages, 1):
                yield from _read(listing, page, () if kind else kinds)
                spool.flush()
                stands = _mark(listing, page, os.fstat(spool.fileno()).st_size, clock())
                if goes_on and number % PAGES_BETWEEN == 0:
                    keep(path, stands)

        try:
            spooled(listing, spool, rows(), progress)
        finally:
            if goes_on and stands:
                keep(path, replace(stands, ended=listing.has_ended))
    if listing.nameless:
        listing.complete = False  # they could be any asset, so nothing is known to be missing
    listing.notes += listing.said
    listing.finished_at = clock()
    return listing


def _pages(
    recordings: Recordings, kind: str | None, stands: Page | None
) -> tuple[Iterator[AssetPage], bool]:
    """The pages that are still to be read, and whether those are all, from the first one on.

    A cursor may mean nothing any more, and an empty page in answer to it would pass for the end of
    the list: so the last page that was read is asked for again, and must be the same. Raises
    ListingBroken.
    """
    if stands is None:
        return iter(recordings.assets(kind)), True
    if stands.ended:
        return iter(()), False
    try:
        pages = iter(recordings.assets(kind, stands.start))
        if _digest(next(pages)) == stands.page:
            return pages, False
    except ListingBroken:
        pass  # where 100ms does not answer at all, the first page tells it
    pages = iter(recordings.assets(kind))
    return chain([next(pages)], pages), True


def _digest(page: AssetPage) -> str:
    """Of the ids of a page, in their order."""
    ids = json.dumps([row.get("id") for row in page.rows])
    return hashlib.sha256(ids.encode()).hexdigest()


def _read(
    listing: Listing, page: AssetPage, told_elsewhere: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """The rows of a page; what is odd about them is told, but of types that are told elsewhere."""
    for raw in page.rows:
        row, told = read_asset(raw)
        if row is None or (told and raw.get("type") not in told_elsewhere):
            listing.strays += 1
            if len(listing.notes) < 5:
                listing.notes.append(
                    f"asset {row['asset_id'] if row else 'unknown'}: {', '.join(told)}"
                )
        if row is None:
            listing.nameless += 1
        else:
            yield row


def _mark(listing: Listing, page: AssetPage, size: int, now: datetime) -> Page:
    return Page(
        listing.started_at,
        now,
        size,
        page.start,
        _digest(page),
        objects=listing.objects,
        strays=listing.strays,
        nameless=listing.nameless,
        notes=tuple(listing.notes),
    )


def _go_on(listing: Listing, stands: Page, spool: TextIO) -> None:
    """Take over what an earlier run has written."""
    spool.truncate(stands.size)
    spool.seek(0, os.SEEK_END)
    listing.started_at = stands.began
    listing.objects, listing.strays = stands.objects, stands.strays
    listing.nameless, listing.notes = stands.nameless, [*stands.notes]
    listing.is_resumed = True
    listing.tell_beginning("was read to its end then" if stands.ended else WENT_ON)


def _begin(listing: Listing, spool: TextIO, now: datetime) -> None:
    """Forget what was taken over."""
    spool.seek(0)
    spool.truncate()
    listing.started_at = now
    listing.objects = listing.strays = listing.nameless = 0
    listing.notes, listing.said, listing.is_resumed = [], [], False
