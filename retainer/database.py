"""The DuckDB that every stage works on."""

from __future__ import annotations

import tempfile

import duckdb

MEMORY_LIMIT = "700MB"


def connect() -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB that loads nothing from a network, and that spills to disk instead of growing past 700 MB."""
    return duckdb.connect(
        config={"autoinstall_known_extensions": "false", "memory_limit": MEMORY_LIMIT, "temp_directory": f"{tempfile.gettempdir()}/retainer-spill"}
    )
