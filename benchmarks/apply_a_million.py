"""A plan of a million deletes, made, shown and applied: how much memory each takes, whole process by
whole process.

    python benchmarks/apply_a_million.py [--recordings 1000000]

The recordings are files of 64 bytes in a folder, each the last copy and due, so that every row of
the plan is acted on. There is no peer: `rm -r` beside it, which keeps no record, says what the disk
takes. Peak memory is the child's resident set (ru_maxrss), in MB (10^6 bytes).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from copy_beside_rclone import tool_environment
from copy_within_beside_peers import api_of
from plan_a_million import empty_facts, timed

from retainer.model.tables import SNAPSHOT_FORMAT

SETTINGS = """\
version: 1
source: { url: {api} }
stores: { vault: { url: "file://{folder}/vault" } }
limits: { deletes: { count: 10000000, percent: 100, bytes: 900TB, last_copies: 10000000 }, plan_age: 24h }
"""
POLICY = """\
version: 1
rules: [ { id: chats, match: { type: chat }, keep: [ { in: vault, for: 30d } ], then: delete } ]
"""
FACTS = """
INSERT INTO assets BY NAME
SELECT i AS asset_no, printf('%024x', i * 7919) AS asset_id, 'chat' AS type, 'completed' AS status,
    '60000000000000000000000a' AS room_id, 64 AS size, TIMESTAMP '2026-01-01 00:00:00' AS created_at,
    '2026-01-01T00:00:00Z' AS created_text, false AS many, true AS settled, 'catalog' AS known_by
FROM range(1, {count} + 1) AS _(i);
INSERT INTO listings (name, kind, complete, can_lock, started_at, finished_at, objects, bytes, strays, stray_bytes)
VALUES ('vault', 'store', true, false, now()::TIMESTAMP, now()::TIMESTAMP, {count}, 64 * {count}, 0, 0),
       ('100ms', 'assets', true, false, now()::TIMESTAMP, now()::TIMESTAMP, 0, 0, 0, 0);
CREATE TABLE about AS SELECT {format} AS format;
INSERT INTO copies BY NAME
SELECT asset_no, 'vault' AS store, true AS complete, true AS lock_read, 64 AS bytes, false AS archived, true AS owners_known,
    [struct_pack(key := column0, size := 64, version := column1, complete := true)] AS objects
FROM (SELECT row_number() OVER () AS asset_no, * FROM read_csv('{seen}', header = false, all_varchar = true));
"""


def make(folder: Path, count: int) -> None:
    """The files, the project, and a snapshot that says what lies there."""
    (folder / "policies").mkdir()
    (folder / "policies" / "all.yaml").write_text(POLICY)
    content = bytes(64)
    with (folder / "seen.csv").open("w") as seen:
        for number in range(1, count + 1):
            room = f"{number // 50:024x}"
            key = f"chat/2026/01/{1 + number % 28:02}/{room}/{number * 7919:024x}/chat.csv"
            path = folder / "vault" / key
            path.parent.mkdir(parents=True)
            path.write_bytes(content)
            stat = path.stat()
            seen.write(f"{key},{stat.st_ino}-{stat.st_size}-{stat.st_mtime_ns}\n")
    with empty_facts(folder) as connection:
        facts = FACTS.replace("{count}", str(count)).replace("{format}", str(SNAPSHOT_FORMAT))
        connection.execute(facts.replace("{seen}", str(folder / "seen.csv")))


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--recordings", type=int, default=1_000_000)
    arguments.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.make:
        make(given.make, given.recordings)
        return
    with tempfile.TemporaryDirectory(prefix="retainer-bench-") as name, api_of([]) as api:
        folder = Path(name)
        subprocess.run(
            [sys.executable, __file__, "--make", name, "--recordings", str(given.recordings)],
            check=True,
        )
        settings = SETTINGS.replace("{api}", api.url).replace("{folder}", name)
        (folder / "retainer.yaml").write_text(settings)
        os.environ |= tool_environment(api, "")
        retainer = [sys.executable, "-m", "retainer"]
        number = str(given.recordings)
        for command in (
            ["plan", "--facts", "facts.duckdb", "--out", "all.plan", "--lift", "empty:store:vault"],
            ["show", "all.plan"],
            ["apply", "all.plan", "--approve-deletes", number],
        ):
            seconds, peak = timed([*retainer, *command], folder)
            print(f"{command[0]}: {seconds:,.1f} s, {peak * 1024 / 1e6:,.0f} MB", flush=True)
        left = sum(1 for _ in (folder / "vault" / "chat").rglob("*.csv"))
        if left:
            sys.exit(f"{left} recordings are still there")


if __name__ == "__main__":
    main()
