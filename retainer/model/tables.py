"""The tables of facts: what every stage may rely on, and what a snapshot holds.

All moments are `TIMESTAMP` in UTC, sizes are bytes, durations seconds.
"""

from __future__ import annotations

SNAPSHOT_FORMAT = 1

OBJECT = 'STRUCT("key" VARCHAR, size BIGINT, version VARCHAR, complete BOOLEAN)'
"""One object of a copy. `version` is the precondition: an S3 ETag, a GCS generation, or a file's inode, size and mtime."""

ASSETS = {
    "asset_no": "INTEGER",  # the place of asset_id in the order of all asset_ids
    "asset_id": "VARCHAR",
    "type": "VARCHAR",
    "status": "VARCHAR",
    "room_id": "VARCHAR",
    "session_id": "VARCHAR",
    "room": "VARCHAR",
    "template": "VARCHAR",
    "path": "VARCHAR",
    "user_id": "VARCHAR",
    "peer_id": "VARCHAR",
    "size": "BIGINT",
    "duration": "DOUBLE",
    "created_at": "TIMESTAMP",  # NULL when created_text is not RFC 3339 with a zone
    "created_text": "VARCHAR",
    "metadata": "VARCHAR",  # a JSON object
    "not_known": "VARCHAR[]",  # facts that could not be read; NULL when all could
    "many": "BOOLEAN",  # many objects (unzipped HLS, thumbnails), which cannot be copied or deleted yet
    "settled": "BOOLEAN",  # false: its listing did not finish and did not show it, so newer facts may exist
    "known_by": "VARCHAR",  # api | catalog
}

COPIES = {
    "asset_no": "INTEGER",
    "store": "VARCHAR",
    "complete": "BOOLEAN",
    "locked_until": "TIMESTAMP",  # infinity: a hold without an end
    "lock_read": "BOOLEAN",
    "shared": "VARCHAR",  # the key, where another asset names it too
    "bytes": "BIGINT",
    "objects": f"{OBJECT}[]",
    "owners_known": "BOOLEAN",  # false: an asset that names the same object may be unseen
}

LISTINGS = {
    "name": "VARCHAR",
    "kind": "VARCHAR",  # store | assets | rooms
    "complete": "BOOLEAN",
    "can_lock": "BOOLEAN",
    "started_at": "TIMESTAMP",
    "finished_at": "TIMESTAMP",
    "objects": "BIGINT",  # rows for assets and rooms
    "bytes": "BIGINT",
    "strays": "BIGINT",  # objects of no known asset; unreadable rows for assets
    "stray_bytes": "BIGINT",
    "note": "VARCHAR",
}


def create(name: str, columns: dict[str, str]) -> str:
    """The statement that makes an empty table of these columns."""
    return f"CREATE TABLE {name} ({', '.join(f'{column} {kind}' for column, kind in columns.items())})"
