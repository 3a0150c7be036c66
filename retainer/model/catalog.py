"""What the catalog beside the copies holds: the object as it was written and verified, and every
fact that `match` can name."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime

from retainer.model.setting import OWN_PREFIX
from retainer.model.tables import ASSETS

CATALOG_PREFIX = f"{OWN_PREFIX}catalog/"
PART_BYTES = 256 << 20
"""A part of a catalog is at most so long; those of retainer have 50,000 entries at most."""
_PART_NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z-([0-9a-f]{32})\.parquet")

RECORD = {name: kind for name, kind in ASSETS.items() if name not in ("asset_no", "many")}
"""Every fact of an asset as 100ms gave it, with the names of its room and template."""

MADE_OF = ("made_of", "made_of_version")
OF_THE_COPY = (*MADE_OF, "in_doubt")
"""What a copy says of itself besides whose it is."""
CATALOG = {
    "store": "VARCHAR",
    "key": "VARCHAR",
    "object_size": "BIGINT",
    "version": "VARCHAR",
    "crc32c": "VARCHAR",
    # in place of it, where an S3 computed that of a copy on the server's side
    "crc64nvme": "VARCHAR",
    "sha256": "VARCHAR",
    "copied_at": "TIMESTAMP",
    # of a recording of many objects: the key of its manifest; on the manifest itself its own
    # key
    "manifest": "VARCHAR",
    "manifest_crc32c": "VARCHAR",  # which manifest of that key
    "members": "INTEGER",  # on a manifest: how many objects it lists
    # a scrub read this version back and found other bytes than were recorded
    "broken": "BOOLEAN",
    # all that could be had, and why it may not be the whole recording
    "partial": "VARCHAR",
    # not copied by retainer, but recognised: by its metadata, or by the shape of its path
    "inferred": "VARCHAR",
    # apply deleted this version: the entry is here so that it is not missed
    "deleted": "BOOLEAN",
    "store_id": "VARCHAR",  # the identity of the store: `store` is only what it was called
    # the path of the upload that it is a copy of, at first or second hand; NULL for what 100ms
    # hosts
    "made_of": "VARCHAR",
    "made_of_version": "VARCHAR",  # the version that the upload had
    # what asked for it, where nothing was certain to: a rule and its match (plan/decide.py)
    "in_doubt": "VARCHAR",
    # until when it was locked by then, holds left out, where a look told so: lists of S3 do not
    "locked_until": "TIMESTAMP",
    "lock_mode": "VARCHAR",  # governance | compliance
} | RECORD
"""One object of a copy. A member of a recording of many objects carries no facts but the asset's
id: those stand with its manifest."""


def part_name(content: bytes, now: datetime) -> str:
    """A part's name: when it was written, and the first half of its SHA-256."""
    return f"{now:%Y%m%dT%H%M%SZ}-{hashlib.sha256(content).hexdigest()[:32]}.parquet"


def is_whole(name: str, content: bytes) -> bool:
    """Whether a part's content is what its name says."""
    found = _PART_NAME.fullmatch(name)
    return found is not None and hashlib.sha256(content).hexdigest()[:32] == found[1]


def is_part(name: str) -> bool:
    return _PART_NAME.fullmatch(name) is not None
