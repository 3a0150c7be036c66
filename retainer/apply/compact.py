"""The catalog made short: its many parts become few, entries that newer ones have replaced go, and
what named a person, a room or a session goes from what is left of erased recordings.

The new parts are written and read back before an old one goes, so that whoever reads meanwhile sees
each entry at least once; the newest of each key counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import duckdb

from retainer.apply.record import OWN, part_files, put_part, read_entries
from retainer.database import connect, only_row
from retainer.errors import StoreFailed
from retainer.model.catalog import CATALOG, CATALOG_PREFIX, PART_BYTES, is_whole
from retainer.model.setting import OWN_PREFIX
from retainer.ports import Deletion, StoreWriter

MERGE_FROM = 100
"""So many parts are read at each plan of a machine without a cache, before they become few."""
ROWS = 50_000
MARKERS_FOR = timedelta(days=7)
"""So long a marker of a delete stays that no other entry needs: another machine may still have the
parts of before in its cache, and a bucket's report may still show what went (inventory/
bucket_report.py)."""


@dataclass(frozen=True, slots=True)
class Compacted:
    """So many parts became those; of `erased` recordings an id, a size and a checksum are left."""

    before: int
    parts: tuple[str, ...]
    erased: tuple[str, ...]


def is_worth_it(parts: int, erased: Mapping[str, str]) -> bool:
    """Whether a catalog should be looked at, of which so many parts are known to have been
    written."""
    return bool(erased) or parts >= MERGE_FROM


def compact(
    store: StoreWriter,
    identity: str | None,
    erased: Mapping[str, str],
    now: datetime,
    check: Callable[[], None],
) -> Compacted | None:
    """Merge the parts of a store's catalog where they are many, or where a recording was erased
    that it still tells of (`erased`: by its id). None where nothing was to be done.

    Only for a run that holds the store's lock. Raises StoreFailed where a part is damaged, or of a
    newer retainer: then nothing has changed.
    """
    found = list(store.list(CATALOG_PREFIX))
    if len(found) < MERGE_FROM and not erased:
        return None
    for seen in found:
        check()
        look = store.look(seen.key)
        if look is not None and look.seen.locked_until is not None:
            raise StoreFailed(
                f"{store.name}:{seen.key} is locked: the parts of the catalog stay as they are",
                hint="let what lies under _retainer/ be free of default retention",
            )
    files = part_files(store, found, check)
    connection = connect()
    try:
        read_entries(store.name, files, connection)
        connection.execute(f"CREATE TABLE before AS SELECT {_NAMING} FROM entries")
        gone = _erase(connection, identity, erased)
        if len(found) < MERGE_FROM and not gone:
            return None
        connection.execute(_MERGED, {"identity": identity, "fresh": now - MARKERS_FOR})
        connection.execute(_NAMES, {"identity": identity, "now": now.replace(tzinfo=None)})
        count = int(only_row(connection, "SELECT count(*) FROM merged")[0])
        made: list[str] = []
        for start in range(0, count, ROWS):
            check()
            some = f"FROM merged ORDER BY key, copied_at LIMIT {ROWS} OFFSET {start}"
            key = put_part(store, connection, some, now)
            back = store.whole(key, PART_BYTES)
            if back is None or not is_whole(key.removeprefix(CATALOG_PREFIX), back[1]):
                raise StoreFailed(f"{store.name}:{key} was written, and cannot be read back")
            made.append(key)
    except (OSError, duckdb.Error) as error:
        reason = str(error).splitlines()[0]
        raise StoreFailed(f"the catalog of {store.name} cannot be merged: {reason}") from None
    finally:
        connection.close()
        for file in files:
            file.unlink(missing_ok=True)
    for seen in found:
        check()
        if seen.key in made:
            continue
        if store.delete(seen) not in (Deletion.DELETED, Deletion.GONE):
            raise StoreFailed(f"{store.name}:{seen.key} stays: it was changed, or is locked")
    return Compacted(len(found), tuple(made), tuple(sorted(gone)))


_NAMING = "asset_id, store, store_id, room_id, room, rooms, template, templates"
_MERGED = f"""
    CREATE TABLE merged AS SELECT * EXCLUDE (place, others) FROM (
        SELECT *, count(*) OVER of_key AS others,
            row_number() OVER (of_key ORDER BY copied_at DESC, version) AS place
        FROM entries WINDOW of_key AS (PARTITION BY key,
            CASE WHEN {OWN} THEN '' ELSE store_id END)
    ) WHERE place = 1 AND NOT (others = 1 AND deleted IS TRUE AND copied_at < $fresh
        AND NOT starts_with(key, '{OWN_PREFIX}'))
"""


def _borne(table: str) -> str:
    """SQL: the names of rooms and templates that its entries bear."""
    return " UNION ALL ".join(
        f"SELECT asset_id, store, room_id, '{what}' AS what, "
        f"unnest(coalesce({what}s, [{what}])) AS name FROM {table}"
        for what in ("room", "template")
    )


_NAMES = f"""
    INSERT INTO merged BY NAME
    SELECT '{OWN_PREFIX}names/' || room_id || '/' || md5(what || name) AS key, '-' AS version,
        '-' AS asset_id, true AS deleted, $now AS copied_at, $identity AS store_id,
        any_value(store) AS store, room_id,
        CASE WHEN what = 'room' THEN name END AS room,
        CASE WHEN what = 'template' THEN name END AS template
    FROM (
        SELECT store, room_id, what, name FROM ({_borne(f"(FROM before WHERE {OWN})")})
        WHERE room_id IS NOT NULL AND name IS NOT NULL AND (asset_id NOT IN (FROM erasing)
            OR room_id IN (SELECT room_id FROM merged
                WHERE room_id IS NOT NULL AND deleted IS NOT TRUE))
    ) AS known
    ANTI JOIN ({_borne("merged")}) AS still USING (room_id, what, name)
    GROUP BY room_id, what, name
"""
"""A name that a room or its template once had, and that no entry bears any more: a hold by it still
covers what else was recorded in that room. It stands by itself, and names no recording. A room of
which only erased recordings were copied keeps no name."""


def _erase(
    connection: duckdb.DuckDBPyConnection, identity: str | None, erased: Mapping[str, str]
) -> set[str]:
    """Leave one entry of each erased recording of which nothing is there any more: its id, size and
    checksum. Gives their ids; another copy of it here is waited for."""
    connection.execute(
        f"""
        CREATE TABLE erasing AS SELECT asset_id FROM (
            SELECT key, asset_id, deleted FROM entries
            WHERE asset_id IN (SELECT unnest($assets)) AND {OWN}
            QUALIFY row_number() OVER (PARTITION BY key ORDER BY copied_at DESC, version) = 1
        ) GROUP BY asset_id HAVING bool_and(coalesce(deleted, false))
    """,
        {"identity": identity, "assets": sorted(erased)},
    )
    kept = {"asset_id", "object_size", "version", "crc32c", "crc64nvme", "sha256"}
    kept |= {"copied_at", "deleted", "store", "store_id", "key"}
    nothing = ", ".join(f"NULL AS {name}" for name in CATALOG if name not in kept)
    connection.execute(
        f"""
        INSERT INTO entries BY NAME SELECT '{OWN_PREFIX}erased/' || asset_id AS key, asset_id,
            any_value(store) AS store, any_value(store_id) AS store_id, max(copied_at) AS copied_at,
            max(object_size) AS object_size, arg_max(version, copied_at) AS version,
            arg_max(crc32c, copied_at) FILTER (crc32c IS NOT NULL) AS crc32c,
            arg_max(crc64nvme, copied_at) FILTER (crc64nvme IS NOT NULL) AS crc64nvme,
            arg_max(sha256, copied_at) FILTER (sha256 IS NOT NULL) AS sha256,
            true AS deleted, {nothing}
        FROM entries WHERE asset_id IN (FROM erasing) AND coalesce(manifest = key, true) AND {OWN}
            AND NOT starts_with(key, '{OWN_PREFIX}')
        GROUP BY asset_id
    """,
        {"identity": identity},
    )
    connection.execute(
        f"DELETE FROM entries WHERE asset_id IN (FROM erasing) AND {OWN} "
        f"AND NOT starts_with(key, '{OWN_PREFIX}')",
        {"identity": identity},
    )
    return {asset for (asset,) in connection.execute("FROM erasing").fetchall()}
