"""The DuckDB that every stage works on."""

from __future__ import annotations

import tempfile

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
