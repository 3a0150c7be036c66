#!/usr/bin/env bash
# DuckDB 2.0.1: what read_parquet holds of each file it was given (its footer, what it knows of its columns) counts
# towards no memory_limit. 5,000 small files with sixty columns each, a table made of them in one statement, take some
# four times the limit, although all that the database itself admits to stays below it; the same files by two hundred
# stay near it, and take no longer. It matters to who keeps a table as many small parts, as lakes and catalogs do.
#
# Seen on 2026-11-29 (2 cores, limit 280 MB, 1,000,000 rows; resident set of a process of its own):
#   all 5,000 at once        1,074 MB
#   by 200                     333 MB
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'duckdb==2.0.1'
cat > "$work/read.py" <<'PYTHON'
import resource
import sys

import duckdb

folder, at_once = sys.argv[1], int(sys.argv[2])
files = [f"{folder}/{number}.parquet" for number in range(5000)]
database = duckdb.connect(config={"memory_limit": "280MB", "temp_directory": f"{folder}/spill"})
for start in range(0, len(files), at_once):
    rows = f"FROM read_parquet({files[start : start + at_once]!r}, union_by_name = true)"
    database.execute(f"INSERT INTO parts BY NAME {rows}" if start else f"CREATE TABLE parts AS {rows}")
assert database.execute("SELECT count(*) FROM parts").fetchone() == (1_000_000,)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // 1_000_000)
PYTHON
"$work/venv/bin/python" - "$work" <<'PYTHON'
import os
import subprocess
import sys

import duckdb

work = sys.argv[1]
few = ", ".join(f"NULL::VARCHAR AS column_{number}" for number in range(55))
duckdb.execute(
    "COPY (SELECT 'key/' || i AS key, 'v' || i AS version, i AS size, true AS gone, now() AS at, "
    f"{few} FROM range(200) r(i)) TO '{work}/0.parquet' (FORMAT parquet)"
)
for number in range(1, 5000):
    os.link(f"{work}/0.parquet", f"{work}/{number}.parquet")
print("duckdb", duckdb.__version__)
took = {}
for at_once in (5000, 200):
    done = subprocess.run(
        [sys.executable, f"{work}/read.py", work, str(at_once)],
        check=True, capture_output=True, text=True,
    )
    took[at_once] = int(done.stdout)
    print(f"{at_once:5} files at once: {took[at_once]} MB where 280 are allowed")
assert took[5000] > 2 * 280 > took[200], "this has changed"
PYTHON
