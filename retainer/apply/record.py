"""The catalog: what was copied and what it is, as Parquet parts under `_retainer/catalog/` of each store."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from retainer.database import connect
from retainer.errors import KeyTaken
from retainer.model.catalog import CATALOG, CATALOG_PREFIX, part_name
from retainer.model.tables import create
from retainer.ports import StoreWriter


def write_part(store: StoreWriter, rows: Sequence[dict[str, Any]], now: datetime) -> str:
    """Write a part with these entries; its key. A part is named by its content, so writing it twice is writing it once."""
    connection = connect()
    try:
        connection.execute(create("entries", CATALOG))
        names = list(CATALOG)
        marks = ", ".join("?" for _ in names)
        connection.executemany(f"INSERT INTO entries VALUES ({marks})", [[row.get(name) for name in names] for row in rows])
        with tempfile.TemporaryDirectory(prefix="retainer-") as folder:
            path = Path(folder) / "part.parquet"
            connection.execute(f"COPY (FROM entries ORDER BY key) TO '{path}' (FORMAT parquet, COMPRESSION zstd)")
            content = path.read_bytes()
    finally:
        connection.close()
    key = CATALOG_PREFIX + part_name(content, now)
    try:
        store.create(key, iter([content]), len(content), {}, "application/vnd.apache.parquet")
    except KeyTaken:
        return key
    return key
