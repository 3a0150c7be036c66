#!/bin/sh
# DuckDB 2.0.1 writes a Parquet column as REQUIRED ("not null") where it can show that no row has a
# NULL there, though the table's column takes NULLs: two exports of one table, made on two days, have
# two schemas, and a reader that compares schemas (a dataset of pyarrow, a strict loader) stops at the
# second. `SET disabled_optimizers = 'statistics_propagation'` makes every column OPTIONAL.
# Seen with DuckDB 2.0.1 and pyarrow 26.0.1:
#   without a NULL: [False, False]
#   with a NULL:    [True, True]
#   same rows as the first, statistics not propagated: [True, True]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check duckdb==2.0.1 pyarrow==26.0.1
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import duckdb
import pyarrow.parquet as parquet

connection = duckdb.connect()
connection.execute("CREATE TABLE calls (room VARCHAR, seconds INTEGER)")


def nullable(name):
    connection.execute(f"COPY calls TO '{name}.parquet' (FORMAT parquet)")
    return [field.nullable for field in parquet.read_schema(f"{name}.parquet")]


connection.execute("INSERT INTO calls VALUES ('board', 60)")
monday = nullable("monday")
connection.execute("SET disabled_optimizers = 'statistics_propagation'")
again = nullable("again")
connection.execute("RESET disabled_optimizers")
connection.execute("INSERT INTO calls VALUES (NULL, NULL)")
tuesday = nullable("tuesday")
print("without a NULL:", monday)
print("with a NULL:   ", tuesday)
print("same rows as the first, statistics not propagated:", again)
assert (monday, tuesday, again) == ([False] * 2, [True] * 2, [True] * 2), "this has changed"
PYTHON
echo "as described"
