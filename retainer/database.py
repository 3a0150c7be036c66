"""The DuckDB that every stage works on. What it is given is data: it opens no file that it was not
told of."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from retainer.private import private_file, private_folder

MEMORY_LIMIT = "280MB"
BYTES_PER_ASSET = 700
"""What deciding takes for each asset, measured with benchmarks/plan_a_million.py."""


def make_room(connection: duckdb.DuckDBPyConnection, assets: int) -> None:
    """Raise the memory limit for more than a million assets."""
    if assets > 1_000_000:
        connection.execute(f"SET memory_limit = '{assets * BYTES_PER_ASSET // 1_000_000}MB'")


@contextmanager
def memory_of(connection: duckdb.DuckDBPyConnection, limit: str) -> Iterator[None]:
    """What is asked here may take so much memory."""
    (before,) = only_row(connection, "SELECT current_setting('memory_limit')")
    connection.execute(f"SET memory_limit = {literal(limit)}")
    try:
        yield
    finally:
        connection.execute(f"SET memory_limit = {literal(before)}")


NEVER, ALWAYS = "TIMESTAMP '9999-12-31'", "TIMESTAMP '0001-01-01'"
"""SQL: what stands for an end that never comes, and for one that always was, where infinity cannot:
Parquet has none, and other readers fail on what DuckDB writes for it."""


def write_parquet(
    connection: duckdb.DuckDBPyConnection, query: str, path: Path, options: str = ""
) -> None:
    """Write the rows of a query to a new Parquet file whose schema does not depend on them: DuckDB
    (2.0.1) else writes a column as REQUIRED where it can show that no row of it is NULL
    (findings/duckdb-required-by-rows.sh)."""
    with without(connection, "statistics_propagation"):
        connection.execute(f"COPY ({query}) TO {literal(str(path))} (FORMAT parquet{options})")


AS_WRITTEN = "join_order", "build_side_probe_side"
"""What has to be left out so that joins are made in the order in which they are written, each
holding its right side. DuckDB (2.0.1) guesses how many rows of a range of a table there are, by a
factor of ten too many, and then holds the wider side."""


@contextmanager
def without(connection: duckdb.DuckDBPyConnection, *optimizers: str) -> Iterator[None]:
    """What is asked here is not optimized in these ways."""
    connection.execute(f"SET disabled_optimizers = {literal(','.join(optimizers))}")
    try:
        yield
    finally:
        connection.execute("RESET disabled_optimizers")


FILES_AT_ONCE = 200


def rows_of(files: Sequence[Path]) -> Iterator[str]:
    """SQL: the rows of Parquet files, of so many at a time, which may lack columns that others
    have. What DuckDB (2.0.1) holds of each file counts towards no memory limit: 5,000 small ones
    take 850 MB where 280 are allowed, and 315 by two hundred."""
    for start in range(0, len(files), FILES_AT_ONCE):
        some = ", ".join(exactly(file) for file in files[start : start + FILES_AT_ONCE])
        yield f"read_parquet([{some}], union_by_name = true)"


def connect(*folders: Path, attached: Path | None = None) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB that spills to disk instead of growing past its limit, and that loads
    nothing from a network. Raises OSError where `attached` is no file.

    It can open files in the private folder and in `folders`, and no others: neither a view nor a
    function in what it reads can name another. `attached`: a database file, attached read-only as
    `facts`, which can be attached again.
    """
    connection = duckdb.connect(
        config={
            "autoinstall_known_extensions": "false",
            "memory_limit": MEMORY_LIMIT,
            "temp_directory": str(private_file("-spill")),
        }
    )
    allowed = ", ".join(
        spelt
        for folder in (private_folder(), *folders)
        for spelt in (literal(str(folder.resolve())), exactly(folder.resolve()), exactly(folder))
    )
    connection.execute(f"SET allowed_directories = [{allowed}]")
    if attached is not None:
        connection.execute(f"SET allowed_paths = [{literal(str(attached))}]")
        attach(connection, attached)
    connection.execute(
        "SET TimeZone = 'UTC'"
    )  # else a moment with a zone would be shifted by the machine's
    connection.execute("SET enable_external_access = false")
    return connection


def attach(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Attach a database file read-only as `facts`. Its variable `stood` says how the file lay there
    just before. Raises OSError."""
    connection.execute(f"SET VARIABLE stood = {literal(stands(path))}")
    connection.execute(f"ATTACH {literal(str(path))} AS facts (READ_ONLY)")


def stands(path: Path) -> str:
    """Of a file what changes with it, on every machine that sees it: bytes, and when it was written
    last. Raises OSError."""
    found = path.stat()
    return f"{found.st_size} {found.st_mtime_ns}"


def only_row(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
    """The row of a query that always has one."""
    row = connection.execute(sql).fetchone()
    assert row is not None
    return row


def literal(text: str) -> str:
    """Text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def exactly(path: Path) -> str:
    """A path as an SQL literal for functions that read files, which would take `*`, `?` and `[` in
    it for a pattern.

    DuckDB 2.0.1 compares the pattern, not the file it leads to, with the folders that are allowed.
    """
    return literal("".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(path)))


def fill(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    columns: Mapping[str, str],
    rows: Iterable[Mapping[str, Any]],
) -> int:
    """Append rows to a table through a spool file, which is far faster than single inserts. Returns
    how many."""
    count, longest = 0, 0
    with tempfile.NamedTemporaryFile(
        "w", suffix=".jsonl", encoding="utf-8", dir=private_folder()
    ) as spool:
        for row in rows:
            longest = max(longest, spool.write(json.dumps(row) + "\n"))
            count += 1
        spool.flush()
        if count:
            fill_from(connection, table, columns, [spool.name], longest)
    return count


def add_rows(connection: duckdb.DuckDBPyConnection, table: str, query: str) -> None:
    """Append the rows of a query to a temporary table, which is made for them where there is none:
    what each of several ranges comes to."""
    connection.execute(f"CREATE TEMP TABLE IF NOT EXISTS {table} AS FROM ({query}) LIMIT 0")
    connection.execute(f"INSERT INTO {table} {query}")


def temp_table(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    columns: Mapping[str, str],
    rows: Iterable[Sequence[object]],
) -> None:
    """Make a temporary table of these rows, in place of one of that name."""
    typed = ", ".join(f"{name} {kind}" for name, kind in columns.items())
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {table} ({typed})")
    fill(connection, table, columns, (dict(zip(columns, row, strict=True)) for row in rows))


def fill_from(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    columns: Mapping[str, str],
    spools: list[str],
    longest: int = 64 << 20,
) -> None:
    """Append the rows of JSON-lines files to a table. `longest`: no line has more bytes; DuckDB
    (2.0.1) holds twice as many for each thread."""
    read = ", ".join(
        f"'{name}': '{'VARCHAR' if kind == 'TIMESTAMP' else kind}'"
        for name, kind in columns.items()
    )
    select = ", ".join(
        f"{name}::{kind}" if kind == "TIMESTAMP" else f'"{name}"' for name, kind in columns.items()
    )
    names = ", ".join(f'"{name}"' for name in columns)
    connection.execute(
        f"INSERT INTO {table} ({names}) SELECT {select} FROM read_json(?, format = "
        "'newline_delimited', "
        f"columns = {{{read}}}, maximum_object_size = {max(longest, 1 << 20)})",
        [spools],
    )
