"""The catalog: what was copied and what it is, as Parquet parts under `_retainer/catalog/` of each
store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from retainer.apply.copied import Copied, Written
from retainer.apply.manifest import Manifest
from retainer.apply.verify import as_recorded
from retainer.database import connect, fill, only_row, rows_of, write_parquet
from retainer.errors import KeyTaken, StoreFailed, Unverified
from retainer.model.catalog import (
    CATALOG,
    CATALOG_PREFIX,
    MADE_OF,
    PART_BYTES,
    is_part,
    is_whole,
    part_name,
)
from retainer.model.moment import write_lock
from retainer.model.tables import create
from retainer.ports import Seen, StoreReader, StoreWriter
from retainer.private import private_file


def write_part(
    store: StoreWriter, rows: Sequence[dict[str, Any]], now: datetime, identity: str | None
) -> str:
    """Write a part with these entries; its key. A part is named by its content, so writing it twice
    is writing it once.

    `identity`: the store's own, which tells its entries from those of any other store, whatever
    both are called.
    """
    connection = connect()
    try:
        connection.execute(create("entries", CATALOG))
        fill(
            connection,
            "entries",
            CATALOG,
            (dict.fromkeys(CATALOG) | row | {"store_id": identity} for row in rows),
        )
        return put_part(store, connection, "FROM entries ORDER BY key", now)
    finally:
        connection.close()


def put_part(
    store: StoreWriter, connection: duckdb.DuckDBPyConnection, query: str, now: datetime
) -> str:
    """Write the entries that a query gives as a part; its key. Raises StoreFailed."""
    try:
        path = private_file(".parquet")
        write_parquet(connection, query, path, ", COMPRESSION zstd")
        content = path.read_bytes()
        path.unlink()
    except (OSError, duckdb.Error) as error:
        reason = str(error).splitlines()[0]
        raise StoreFailed(
            f"a part of the catalog of {store.name} could not be made: {reason}",
            hint="is the disk full?",
        ) from None
    key = CATALOG_PREFIX + part_name(content, now)
    with suppress(KeyTaken):  # the same bytes were written a moment ago
        store.create(key, iter([content]), len(content), {}, "application/vnd.apache.parquet")
    return key


def part_files(store: StoreReader, found: Sequence[Seen], check: Callable[[], None]) -> list[Path]:
    """These parts as private files. Raises StoreFailed where one is damaged, or none."""
    return [_read(store, seen, check) for seen in found]


def read_entries(
    store: str, files: Sequence[Path], connection: duckdb.DuckDBPyConnection, where: str = "true"
) -> None:
    """Make the table `entries` of those of these parts that a condition picks. Raises StoreFailed
    where they are of a newer retainer."""
    connection.execute(create("entries", CATALOG))
    for some in rows_of(files):
        more = {
            name for name, *_ in connection.execute(f"DESCRIBE FROM {some}").fetchall()
        } - CATALOG.keys()
        if more:
            raise StoreFailed(
                f"the catalog of {store} has entries of a newer retainer "
                f"({', '.join(sorted(more))}): it is left as it is"
            )
        connection.execute(f"INSERT INTO entries BY NAME FROM {some} WHERE {where}")


def _read(store: StoreReader, seen: Seen, check: Callable[[], None]) -> Path:
    """A part as a private file. Raises StoreFailed where it is none, or damaged."""
    check()
    name = seen.key.removeprefix(CATALOG_PREFIX)
    content = b"".join(store.read(seen)) if is_part(name) and seen.size <= PART_BYTES else b""
    if not is_whole(name, content):
        raise StoreFailed(
            f"{store.name}:{seen.key} is damaged or no part of a catalog: it is left as it is",
            hint=f"`retainer catalog rebuild {store.name}`",
        )
    file = private_file(".parquet")
    file.write_bytes(content)
    return file


OWN = "(store_id IS NULL OR store_id IS NOT DISTINCT FROM $identity)"
"""SQL: whether an entry is of the store that has this identity, and not of one that was copied."""


def write_locks(
    store: StoreWriter,
    identity: str | None,
    files: Sequence[Path],
    locked: Sequence[Seen],
    now: datetime,
) -> str | None:
    """Write the entries of these objects once more, with the locks that they have; `files`: the
    parts that have those entries. The key of the new part, None where no entry is another one by
    that. Raises StoreFailed."""
    connection = connect()
    columns = {"key": "VARCHAR", "version": "VARCHAR", "ends": "TIMESTAMP", "mode": "VARCHAR"}
    rows = (
        {
            "key": seen.key,
            "version": seen.version,
            "ends": write_lock(seen.retained_until),
            "mode": seen.lock_mode,
        }
        for seen in locked
    )
    try:
        connection.execute(create("locked", columns))
        fill(connection, "locked", columns, rows)
        read_entries(store.name, files, connection, "key IN (SELECT key FROM locked)")
        connection.execute(_WITH_ENDS, {"identity": identity})
        if only_row(connection, "SELECT count(*) FROM told")[0] == 0:
            return None
        return put_part(store, connection, "FROM told ORDER BY key", now)
    except (OSError, duckdb.Error) as error:
        reason = str(error).splitlines()[0]
        raise StoreFailed(f"the catalog of {store.name} cannot be read: {reason}") from None
    finally:
        connection.close()


_WITH_ENDS = f"""
    CREATE TABLE told AS SELECT newest.* REPLACE (ends AS locked_until, mode AS lock_mode,
        copied_at + INTERVAL 1 MICROSECOND AS copied_at)
    FROM (
        FROM entries WHERE {OWN}
        QUALIFY row_number() OVER (PARTITION BY key ORDER BY copied_at DESC, version) = 1
    ) AS newest JOIN locked USING (key, version)
    WHERE deleted IS NOT TRUE AND (locked_until, lock_mode) IS DISTINCT FROM (ends, mode)
"""
"""The newest entry counts: one that is a moment newer takes its place."""


def entry_of(store: str, written: Written, now: datetime) -> dict[str, Any]:
    """An object as it was written and verified, as a catalog holds it."""
    seen = written.look.seen
    return {
        "store": store,
        "key": seen.key,
        "object_size": seen.size,
        "version": seen.version,
        written.checksum.kind: written.checksum.value,
        "sha256": written.sha256,
        "copied_at": now.strftime("%Y-%m-%d %H:%M:%S.%f"),
        "locked_until": write_lock(seen.retained_until),
        "lock_mode": seen.lock_mode,
    }


def entries_of(
    store: str, copied: Copied, asset_id: str, now: datetime
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The entry of a copy's one object or manifest, and those of its members."""
    whole = entry_of(store, copied.whole, now)
    if not copied.members:
        return whole, []
    mark = {"manifest": whole["key"], "manifest_crc32c": whole["crc32c"]}
    members = [
        entry_of(store, member, now)
        | mark
        | {"asset_id": asset_id}
        | dict(zip(MADE_OF, copied.uploads.get(member.look.seen.key, ()), strict=False))
        for member in copied.members
    ]
    return whole | mark | {"members": len(members)}, members


def members_of(store: StoreReader, folder: str, manifest: Manifest) -> tuple[Written, ...]:
    """The members of a copy as they lie there, each compared with its manifest by size and
    checksum. Raises Unverified, StoreFailed."""
    found = []
    for member in manifest.members:
        look = as_recorded(store, folder + member.name, member.size, member.checksum)
        if look is None:
            raise Unverified(f"{store.name}:{folder}{member.name} is not what its manifest says")
        found.append(Written(look, member.checksum, member.sha256))
    return tuple(found)
