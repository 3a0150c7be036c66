"""The catalog: what was copied and what it is, as Parquet parts under `_retainer/catalog/` of each
store."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import duckdb

from retainer.apply.copied import Copied, Written
from retainer.apply.manifest import Manifest
from retainer.apply.verify import as_recorded
from retainer.database import connect, fill, write_parquet
from retainer.errors import KeyTaken, StoreFailed, Unverified
from retainer.model.catalog import CATALOG, CATALOG_PREFIX, MADE_OF, part_name
from retainer.model.tables import create
from retainer.ports import StoreReader, StoreWriter
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
