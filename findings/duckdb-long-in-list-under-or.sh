#!/usr/bin/env bash
# DuckDB 2.0.1: what a long list of constants behind IN costs depends on what stands around it. Alone in WHERE, after an
# AND, and as a bare projection 20,000 of them are looked up at once; the very same IN under OR, or inside CASE, costs
# many times as much (it fails below five). Written as IN (SELECT unnest([...])) it is fast there too, with the same rows.
# It matters to who writes rules to SQL: one OR over a list of ids, and a plan of seconds takes minutes.
#
# Seen on 2026-11-28 (2 cores, 200,000 rows):
#   alone in WHERE                    0.14 s    1.0 x    20000 rows
#   AND another condition             0.18 s    1.3 x     6667 rows
#   bare projection                   0.14 s    1.0 x    20000 rows
#   OR another condition              4.05 s   28.5 x    80000 rows
#   inside CASE                       2.72 s   19.2 x     6667 rows
#   OR, IN (SELECT unnest([...]))     0.08 s    0.6 x    80000 rows
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'duckdb==2.0.1'
"$work/venv/bin/python" - <<'PYTHON'
import time

import duckdb

database = duckdb.connect()
database.execute("CREATE TABLE seen AS SELECT 'id-' || i AS id, i % 3 AS kind FROM range(200000) r(i)")
constants = ", ".join(f"'id-{each * 7}'" for each in range(20000))
plain, unnested = f"id IN ({constants})", f"id IN (SELECT unnest([{constants}]))"
expected = {
    "alone in WHERE": (f"count(*) FROM seen WHERE {plain}", False, 20000),
    "AND another condition": (f"count(*) FROM seen WHERE kind = 1 AND {plain}", False, 6667),
    "bare projection": (f"count(*) FILTER (WHERE x) FROM (SELECT {plain} AS x FROM seen)", False, 20000),
    "OR another condition": (f"count(*) FROM seen WHERE kind = 1 OR {plain}", True, 80000),
    "inside CASE": (f"count(*) FROM seen WHERE CASE WHEN kind = 1 THEN {plain} END", True, 6667),
    "OR, IN (SELECT unnest([...]))": (f"count(*) FROM seen WHERE kind = 1 OR {unnested}", False, 80000),
}
print("duckdb", duckdb.__version__)
alone = None
for name, (query, slow, rows) in expected.items():
    took = []
    for _ in range(3):
        began = time.monotonic()
        found = database.execute(f"SELECT {query}").fetchone()[0]
        took.append(time.monotonic() - began)
    alone = alone or min(took)
    print(f"{name:32} {min(took):5.2f} s {min(took) / alone:6.1f} x {found:8} rows")
    assert found == rows, f"other rows: {name}"
    assert (min(took) > 5 * alone) == slow, f"this has changed: {name}"
PYTHON
