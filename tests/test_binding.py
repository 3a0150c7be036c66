"""Parquet files that are bound into one: the same rows, for every reader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow
import pyarrow.parquet
import pytest

from retainer.binding import bind

COLUMNS = (
    "n, 'room ' || (n % 97) AS room, CASE WHEN n % 3 = 0 THEN NULL ELSE n * 1.5::DOUBLE END AS d, "
    "CASE WHEN n % 5 > 0 THEN [n, n + 1] END AS l, n % 2 = 0 AS even, "
    "TIMESTAMP '2026-11-20' + to_seconds(n::BIGINT) AS moment, "
    "(CASE WHEN n % 7 = 0 THEN 'keep' END)::ENUM ('keep', 'delete') AS decision, "
    "NULL::VARCHAR AS action"
)


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        # as retainer writes: a schema that does not depend on the rows
        connection.execute("SET disabled_optimizers = 'statistics_propagation'")
        yield connection


def written(
    connection: duckdb.DuckDBPyConnection, path: Path, first: int, last: int, options: str = ""
) -> Path:
    connection.execute(
        f"COPY (SELECT {COLUMNS} FROM (SELECT range::INTEGER AS n FROM range({first}, {last}))) "
        f"TO '{path}' (FORMAT parquet, ROW_GROUP_SIZE 2048{options})"
    )
    return path


def test_every_reader_finds_the_rows_of_all_parts_in_their_order(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    bounds = [(0, 5_000), (5_000, 5_000), (5_000, 5_001), (5_001, 30_000)]
    parts = [
        written(connection, tmp_path / f"{number}.parquet", *each, f", COMPRESSION {how}")
        for number, (each, how) in enumerate(
            zip(bounds, ("zstd", "lz4", "uncompressed", "snappy"), strict=True)
        )
    ]
    bind(parts, tmp_path / "whole.parquet")
    wanted = written(connection, tmp_path / "wanted.parquet", 0, 30_000)
    rows = [
        connection.execute(f"FROM '{path}'").fetchall()
        for path in (tmp_path / "whole.parquet", wanted)
    ]
    assert rows[0] == rows[1] and len(rows[0]) == 30_000
    table = pyarrow.parquet.read_table(tmp_path / "whole.parquet")
    assert table.equals(pyarrow.parquet.read_table(wanted))


def test_what_helps_to_find_rows_leads_to_them(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """Statistics and Bloom filters belong to the row group that they came with."""
    parts = [
        written(connection, tmp_path / f"{first}.parquet", first, first + 9_000)
        for first in (0, 9_000, 18_000)
    ]
    whole = tmp_path / "whole.parquet"
    bind(parts, whole)
    for where, count in (
        ("n = 26999", 1),
        ("room = 'room 5'", 279),
        ("room = 'room 97'", 0),
        ("decision = 'keep'", 3_858),
        ("moment >= TIMESTAMP '2026-11-20 05:00:00'", 9_000),
    ):
        found = connection.execute(f"SELECT count(*) FROM '{whole}' WHERE {where}").fetchone()
        assert found == (count,), where
    filters = connection.execute(
        "SELECT count(DISTINCT bloom_filter_offset), count(bloom_filter_offset), "
        f"max(bloom_filter_offset + bloom_filter_length) FROM parquet_metadata('{whole}')"
    ).fetchone()
    assert filters and filters[0] == filters[1] >= 15 and filters[2] < whole.stat().st_size


def test_every_place_is_told_anew(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    """Other readers go by other ones of them."""
    parts = [
        written(connection, tmp_path / f"{first}.parquet", first, first + 3_000)
        for first in (0, 3_000)
    ]
    whole = tmp_path / "whole.parquet"
    bind(parts, whole)
    told = "row_group_id, column_id, file_offset, dictionary_page_offset, data_page_offset"
    places = [
        connection.execute(f"SELECT {told} FROM parquet_metadata('{path}')").fetchall()
        for path in (*parts, whole)
    ]
    last = connection.execute(
        "SELECT max(bloom_filter_offset + bloom_filter_length), max(data_page_offset + "
        f"total_compressed_size) FROM parquet_metadata('{parts[0]}')"
    ).fetchone()
    assert last is not None
    shift = binding_shift(parts[0])
    assert shift >= max(each or 0 for each in last) - 4
    moved = [
        (group + 2, column, *(each + shift if each else each for each in more))
        for group, column, *more in places[1]
    ]
    assert places[2] == [*places[0], *moved]


def binding_shift(part: Path) -> int:
    """How many bytes of a file are not what stands at its end, less those at its beginning."""
    content = part.read_bytes()
    return len(content) - 8 - int.from_bytes(content[-8:-4], "little") - 4


def test_lists_of_pages_are_left_out_for_they_tell_where_pages_were(tmp_path: Path) -> None:
    tables = [pyarrow.table({"n": range(first, first + 5_000)}) for first in (0, 5_000)]
    parts = [tmp_path / "a", tmp_path / "b"]
    for part, table in zip(parts, tables, strict=True):
        pyarrow.parquet.write_table(table, part, write_page_index=True, data_page_size=512)
        assert pyarrow.parquet.read_metadata(part).row_group(0).column(0).has_offset_index
    bind(parts, tmp_path / "whole")
    told = pyarrow.parquet.read_metadata(tmp_path / "whole")
    for group in range(2):
        column = told.row_group(group).column(0)
        assert not column.has_offset_index and not column.has_column_index
    assert pyarrow.parquet.read_table(tmp_path / "whole").equals(pyarrow.concat_tables(tables))


def test_the_metadata_is_that_of_the_last(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    first = written(connection, tmp_path / "a", 0, 10, ", KV_METADATA {'plan': 'first'}")
    last = written(connection, tmp_path / "b", 10, 10, ", KV_METADATA {'plan': 'last'}")
    bind([first, last], tmp_path / "whole")
    said = connection.execute(
        f"SELECT key::VARCHAR, value::VARCHAR FROM parquet_kv_metadata('{tmp_path / 'whole'}')"
    )
    assert said.fetchall() == [("plan", "last")]


def test_more_row_groups_than_a_place_in_the_file_can_count(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """Thrift's `ordinal` of a row group has 16 bits."""
    part = tmp_path / "part.parquet"
    connection.execute(
        f"COPY (SELECT range % 2 AS n FROM range(409600)) TO '{part}' "
        "(FORMAT parquet, ROW_GROUP_SIZE 2048)"
    )
    whole = tmp_path / "whole.parquet"
    bind([part] * 165, whole)
    found = connection.execute(
        f"SELECT num_rows, num_row_groups FROM parquet_file_metadata('{whole}')"
    ).fetchone()
    assert found == (409600 * 165, 33_000)
    assert pyarrow.parquet.ParquetFile(whole).read_row_group(32_999).num_rows == 2048
    sums = connection.execute(f"SELECT sum(n) FROM '{whole}'").fetchone()
    assert sums == (409600 * 165 // 2,)


def test_what_has_other_columns_is_not_bound(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    first = written(connection, tmp_path / "a", 0, 10)
    connection.execute(f"COPY (SELECT 1 AS n) TO '{tmp_path / 'b'}' (FORMAT parquet)")
    with pytest.raises(ValueError, match="b has other columns"):
        bind([first, tmp_path / "b"], tmp_path / "whole")


@pytest.mark.parametrize("spoil", [lambda b: b[:-1], lambda b: b[:20], lambda b: b""])
def test_what_is_no_parquet_file_is_not_bound(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, spoil: object
) -> None:
    part = written(connection, tmp_path / "a", 0, 10)
    part.write_bytes(spoil(part.read_bytes()))  # type: ignore[operator]
    with pytest.raises(ValueError, match="no Parquet file"):
        bind([part], tmp_path / "whole")


def test_nothing_is_written_over(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    part = written(connection, tmp_path / "a", 0, 10)
    with pytest.raises(FileExistsError):
        bind([part], part)
