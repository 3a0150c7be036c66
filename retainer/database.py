"""The DuckDB that every stage works on."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

import duckdb

MEMORY_LIMIT = "700MB"
BYTES_PER_ASSET = 700
"""What deciding takes for each asset, measured with benchmarks/plan_a_million.py."""


def make_room(connection: duckdb.DuckDBPyConnection, assets: int) -> None:
    """Raise the memory limit for more than a million assets."""
    if assets > 1_000_000:
        connection.execute(f"SET memory_limit = '{assets * BYTES_PER_ASSET // 1_000_000}MB'")


def connect() -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB that loads nothing from a network, and that spills to disk instead of growing past 700 MB."""
    return duckdb.connect(
        config={"autoinstall_known_extensions": "false", "memory_limit": MEMORY_LIMIT, "temp_directory": f"{tempfile.gettempdir()}/retainer-spill"}
    )


def literal(text: str) -> str:
    """Text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def fill(connection: duckdb.DuckDBPyConnection, table: str, columns: Mapping[str, str], rows: Iterable[Mapping[str, Any]]) -> int:
    """Append rows to a table through a spool file, which is far faster than single inserts. Returns how many."""
    count = 0
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as spool:
        for row in rows:
            spool.write(json.dumps(row) + "\n")
            count += 1
        spool.flush()
        if count:
            fill_from(connection, table, columns, [spool.name])
    return count


def fill_from(connection: duckdb.DuckDBPyConnection, table: str, columns: Mapping[str, str], spools: list[str]) -> None:
    """Append the rows of JSON-lines files to a table."""
    read = ", ".join(f"'{name}': '{'VARCHAR' if kind == 'TIMESTAMP' else kind}'" for name, kind in columns.items())
    select = ", ".join(f"{name}::{kind}" if kind == "TIMESTAMP" else f'"{name}"' for name, kind in columns.items())
    names = ", ".join(f'"{name}"' for name in columns)
    connection.execute(
        f"INSERT INTO {table} ({names}) SELECT {select} FROM read_json(?, format = 'newline_delimited', "
        f"columns = {{{read}}}, maximum_object_size = 67108864)",
        [spools],
    )
