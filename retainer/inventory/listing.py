"""How one list went, and where its rows are until they become facts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from retainer.errors import CredentialsRefused, ListingTorn, RetainerError
from retainer.model.moment import write_lock
from retainer.model.tables import LISTINGS
from retainer.ports import Seen

Progress = Callable[[str, int], None]
"""Told the name of a listing and how many more rows of it have come."""

WENT_ON = "went on from where it was cut"


@dataclass
class Listing:
    """How one listing went; `note` says why it did not finish, in words without secrets."""

    name: str
    kind: str
    started_at: datetime
    finished_at: datetime | None = None
    complete: bool = False
    can_lock: bool = False
    objects: int = 0
    bytes: int = 0
    strays: int = 0
    nameless: int = 0
    """Rows without an id, which could be of anything."""
    identity: str | None = None
    customer: str | None = None
    skew: float | None = None
    anchors: str | None = None
    lost_record: str | None = None
    refused: bool = False
    keeps_deleted: str | None = None
    keeps_removed: str | None = None
    lifecycle: str | None = None
    reported_at: datetime | None = None
    """When the report began that was read in place of a list."""
    locks_unread: bool = False
    """Whether what that report shows may be locked, as only a look tells."""
    notes: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    """What a person should know, and what leaves nothing unfinished."""
    is_resumed: bool = False
    """Whether its first rows came in an earlier run."""
    has_ended: bool = False
    """Whether its last page has come, whatever was wrong with what it told."""
    spool: Path | None = None
    report: Path | None = None
    """The rows of that report."""
    parts: list[Path] = field(default_factory=list)

    def tell_beginning(self, how: str) -> None:
        """Say when a list began of which an earlier run has read some, and how it went on."""
        self.said.append(f"it began at {self.started_at:%H:%M} UTC, and {how}")

    def row(self) -> dict[str, Any]:
        def text(moment: datetime | None) -> str | None:
            return moment.strftime("%Y-%m-%d %H:%M:%S.%f") if moment else None

        return dict.fromkeys(LISTINGS) | {
            "name": self.name,
            "kind": self.kind,
            "complete": self.complete,
            "can_lock": self.can_lock,
            "started_at": text(self.reported_at or self.started_at),
            "finished_at": text(self.finished_at),
            "objects": self.objects,
            "bytes": self.bytes,
            "strays": self.strays,
            "stray_bytes": 0,
            "note": "; ".join(dict.fromkeys(self.notes)) or None,
            "identity": self.identity,
            "customer": self.customer,
            "skew_seconds": self.skew,
            "anchors": self.anchors,
            "lost_record": self.lost_record,
            "refused": self.refused,
            "keeps_deleted": self.keeps_deleted,
            "keeps_removed": self.keeps_removed,
            "lifecycle": self.lifecycle,
            "reported_at": text(self.reported_at),
        }


def spooled(
    listing: Listing, spool: TextIO, rows: Iterable[Mapping[str, Any]], progress: Progress
) -> None:
    """Write rows to a spool file; a listing that breaks keeps what came before, and is left
    unfinished."""
    listing.spool = Path(spool.name)
    try:
        for row in rows:
            spool.write(json.dumps(row) + "\n")
            listing.objects += 1
            if listing.objects % 100 == 0:
                progress(listing.name, 100)
        listing.complete = listing.has_ended = True
    except ListingTorn:
        raise
    except CredentialsRefused as error:
        if listing.kind != "store":
            raise
        listing.refused = True
        listing.notes.append(error.told)
    except RetainerError as error:
        listing.notes.append(error.told)
    progress(listing.name, listing.objects % 100)


def object_row(store: str, seen: Seen, can_lock: bool) -> dict[str, Any]:
    return {
        "store": store,
        "key": seen.key,
        "size": seen.size,
        "version": seen.version,
        "storage_class": seen.storage_class,
        "locked_until": write_lock(seen.locked_until),
        "lock_read": seen.lock_read or not can_lock,
        "archived": seen.archived,
        "retained_until": write_lock(seen.retained_until),
        "lock_mode": seen.lock_mode,
    }
