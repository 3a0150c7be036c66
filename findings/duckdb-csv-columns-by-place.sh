#!/bin/sh
# DuckDB 2.0.1, read_csv over several files whose header lines name the same columns in another order:
# without `columns` the values are put together by name, as read_parquet does. With `columns`, which
# gives names and types, every file is read by place, and its header is passed over without a look:
# values stand under the wrong names, and no error says so, though names and header could be compared.
# So where the shards of a report may differ in order (or lack a column of the same type), their
# headers have to be compared before types are given.
# Seen with DuckDB 2.0.1:
#   header alone: [('a', '1'), ('b', '2')]
#   columns told: [('a', '1'), ('2', 'b')]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check duckdb==2.0.1
cd "$folder"
printf 'name,size\na,1\n' > one.csv
printf 'size,name\n2,b\n' > two.csv
"$folder/venv/bin/python" - <<'PYTHON'
import duckdb

files = "['one.csv', 'two.csv'], header = true"
by_header = duckdb.sql(f"FROM read_csv({files}, all_varchar = true)").fetchall()
by_place = duckdb.sql(
    f"FROM read_csv({files}, columns = {{'name': 'VARCHAR', 'size': 'VARCHAR'}})"
).fetchall()
print("header alone:", by_header)
print("columns told:", by_place)
assert by_header == [("a", "1"), ("b", "2")], "this has changed"
assert by_place == [("a", "1"), ("2", "b")], "this has changed"
PYTHON
echo "as described"
