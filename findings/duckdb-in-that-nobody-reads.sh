#!/bin/sh
# DuckDB 2.0.1 works out `x IN (SELECT ...)` of a view also where nobody reads that column: columns of
# a view that are expressions are left out of a query that does not ask for them, but a subquery has
# become a (mark) join by then, and joins stay, with every expression that they compare. A view with
# `(id, sha256(path)) IN (SELECT ...) AS is_gone` computes the SHA-256 of each path for
# `SELECT max(size)`. A table of the few ids that are meant, joined once, is the way round.
# Seen with DuckDB 2.0.1:
#   sha256 in a column of the view that is not asked for: False
#   sha256 in an IN that is not asked for:                True
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check duckdb==2.0.1
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import duckdb

connection = duckdb.connect()
connection.execute("CREATE TABLE calls AS SELECT i AS id, i || '.mp4' AS path, i AS size FROM range(5000) AS _(i)")
connection.execute("CREATE TABLE gone (id BIGINT, mark VARCHAR)")


def hashes(column):
    connection.execute(f"CREATE OR REPLACE VIEW told AS SELECT *, {column} AS told FROM calls")
    plan = connection.execute("EXPLAIN SELECT max(size) FROM told").fetchall()[0][1]
    return "sha256" in plan


plain = hashes("sha256(path)")
within = hashes("(id, sha256(path)) IN (SELECT (id, mark) FROM gone)")
print("sha256 in a column of the view that is not asked for:", plain)
print("sha256 in an IN that is not asked for:               ", within)
assert (plain, within) == (False, True), "this has changed"
PYTHON
echo "as described"
