"""The tables of facts: what every stage may rely on, and what a snapshot holds.

All moments are `TIMESTAMP` in UTC, sizes are bytes, durations seconds.
"""

from __future__ import annotations

SNAPSHOT_FORMAT = 9

OBJECT = 'STRUCT("key" VARCHAR, size BIGINT, version VARCHAR, complete BOOLEAN)'
"""One object of a copy. `version` is the precondition: an S3 ETag, a GCS generation, or a file's
inode, size and mtime."""

VERSION = (
    'STRUCT("key" VARCHAR, size BIGINT, version VARCHAR, id VARCHAR, current BOOLEAN, '
    "marker BOOLEAN)"
)
"""One version of an object of a copy: `version` as above, `id` what the bucket calls it."""

ASSETS = {
    "asset_no": "INTEGER",  # the place of asset_id in the order of all asset_ids
    "asset_id": "VARCHAR",
    "type": "VARCHAR",
    "status": "VARCHAR",
    "room_id": "VARCHAR",
    "session_id": "VARCHAR",
    "job_id": "VARCHAR",
    "room": "VARCHAR",
    "template": "VARCHAR",
    "template_id": "VARCHAR",
    "path": "VARCHAR",
    "user_id": "VARCHAR",
    "peer_id": "VARCHAR",
    "size": "BIGINT",
    "duration": "DOUBLE",
    "created_at": "TIMESTAMP",  # NULL when created_text is not RFC 3339 with a zone
    "created_text": "VARCHAR",
    "metadata": "VARCHAR",  # a JSON object
    "thumbnails": "VARCHAR[]",  # their paths
    "not_known": "VARCHAR[]",  # facts that could not be read; NULL when all could
    "many": "BOOLEAN",  # a recording of many objects: unzipped HLS, or one with thumbnails
    # false: its listing did not finish and did not show it, so newer facts may exist
    "settled": "BOOLEAN",
    "known_by": "VARCHAR",  # api | catalog
    "rooms": "VARCHAR[]",  # the names that its room was seen with, where they differ; else NULL
    "templates": "VARCHAR[]",
}

COPIES = {
    "asset_no": "INTEGER",
    "store": "VARCHAR",
    "complete": "BOOLEAN",
    "locked_until": "TIMESTAMP",  # infinity: a hold without an end
    "lock_read": "BOOLEAN",
    # the same for all assets that have objects here in common: one of those objects' keys
    "shared": "VARCHAR",
    "bytes": "BIGINT",
    # in the order in which they are deleted: the entry first, a manifest last
    "objects": f"{OBJECT}[]",
    # where the names of a recording of many objects begin; NULL where it is one file
    "folder": "VARCHAR",
    "archived": "BOOLEAN",  # something of it must be restored before it can be read
    # keys of objects that a scrub found broken, or that were kept as partial: a copy replaces them
    "broken": "VARCHAR[]",
    "owners_known": "BOOLEAN",  # false: an asset that names the same object may be unseen
    # of a complete copy: the path of the upload that it is made of, at first or second hand
    "made_of": "VARCHAR",
    # the version that the upload had then; of an upload: the one that it has
    "made_of_version": "VARCHAR",
    # the upload that it is made of has another version by now, so that it is not complete any more
    "superseded": "BOOLEAN",
    # why it is no more than all that could be had; it counts once a person accepts it
    "partial": "VARCHAR",
    "in_doubt": "VARCHAR",  # of a complete copy: what asked for it, where nothing was certain to
    "uncatalogued": "BOOLEAN",  # something lies under its key that the catalog does not vouch for
    # of a copy that is due with every version: all that the bucket has of its objects, delete
    # markers among them; NULL: not read
    "versions": f"{VERSION}[]",
    # the commands for a person, where the bucket removes versions only with a second factor
    "by_hand": "VARCHAR[]",
    # until when all of its objects are known to be locked, by the list or else by the catalog;
    # -infinity: something of it is known not to be; NULL: not known
    "locked_through": "TIMESTAMP",
    "lock_mode": "VARCHAR",  # compliance, where nobody could take one of those locks back
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
    # of a store: its id (retainer/model/identity.py); NULL where it has none yet
    "identity": "VARCHAR",
    # the workspace of 100ms: whose recordings lie in a store, whose credentials listed the assets
    "customer": "VARCHAR",
    # how far its clock was ahead of this machine's; NULL where it tells none
    "skew_seconds": "DOUBLE",
    "anchors": "VARCHAR",  # JSON: what a store remembers of journals (retainer/model/anchors.py)
    # why the journal where the facts were gathered is not all that was done there
    "lost_record": "VARCHAR",
    "refused": "BOOLEAN",  # its credentials were refused
    "keeps_deleted": "VARCHAR",  # how what is deleted there can still be read; NULL: not at all
    "keeps_removed": "VARCHAR",  # the same of what is deleted with every version
    # JSON: what the bucket's own rules delete or move (model/lifecycle.py); NULL: not known
    "lifecycle": "VARCHAR",
    # when its bucket's own report began, which was read in place of a list; NULL: it was listed
    "reported_at": "TIMESTAMP",
}


def create(name: str, columns: dict[str, str]) -> str:
    """The statement that makes an empty table of these columns."""
    return (
        f"CREATE TABLE {name} ({', '.join(f'{column} {kind}' for column, kind in columns.items())})"
    )
