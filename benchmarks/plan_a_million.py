"""Planning a million assets beside DuckDB reading the same facts once: whole process against whole
process, in one run.

    python benchmarks/plan_a_million.py [--assets 1000000] [--rounds 5]

Facts: 1,000,000 assets over 18 months, 1,300,000 copies in 2 stores, 12 rules: a running system,
where 98 % of what is wanted lies where it should, and the rest has to be copied, deleted or left
alone. Both sides start a new Python for every round. `plan` writes the plan file with every row and
its reason, and reads it back to show it; the peer reads every column once: `SELECT max(column)`
over each. Python may keep its bytecode, as on anyone's machine, and one round of each that is not
counted comes first. The ratio is the median over the rounds, each plan beside the read before it.
Peak memory is the child's resident set (ru_maxrss).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from retainer import weighing
from retainer.inventory.facts import AT_ONCE, NAMES, add_places
from retainer.model.tables import ASSETS, COPIES, LISTINGS, SNAPSHOT_FORMAT, create
from retainer.plan.decide import ask
from retainer.settings import load_project
from retainer.weighing import in_ranges

SETTINGS = """\
version: 1
timezone: Europe/Berlin
source: { hosted: [ "s3://hms-prod-*" ] }
stores:
  vault: { url: s3://bench-vault/100ms, region: eu-west-1 }
  cold: { url: gs://bench-cold/100ms }
limits: { deletes: { count: 10000000, percent: 100, bytes: 900TB, last_copies: 10000000 }, plan_age: 24h }
"""

POLICY = """\
version: 1
rules:
  - { id: composites, match: { type: [room-composite, room-composite-legacy] }, keep: [ { in: vault, for: 2y }, { in: cold, for: 7y, after: 200d } ], then: delete }
  - { id: sales, match: { type: [room-composite, transcript], room: sales-* }, keep: [ { in: vault, for: 7y } ] }
  - { id: clinic, match: { room: "clinic-[0-4]?" }, keep: [ { in: cold, for: 6y } ] }
  - { id: chats, match: { type: chat }, keep: [ { in: vault, for: 1y } ], then: delete }
  - { id: words, match: { type: [transcript, summary] }, keep: [ { in: vault, for: 18mo } ], then: delete }
  - { id: tracks, match: { type: track, size: { min: 1000 } }, keep: [ { in: vault, for: 400d } ], then: delete }
  - { id: streams, match: { type: stream }, keep: [ { in: cold, for: 9mo } ], then: delete }
  - { id: large, match: { size: { min: 970000000 } }, keep: [ { in: cold, for: 3y } ] }
  - { id: short, match: { duration: { max: 30 }, not: { room: sales-* } }, delete: [ { in: vault, after: 30d } ] }
  - { id: old-cold, match: { created: { before: 2024-06-01 } }, delete: [ { in: cold, after: 2y } ] }
  - { id: layers, match: { metadata: { num_layers: 3 } }, keep: [ { in: vault, for: 400d } ] }
  - { id: ceiling, match: { all: [ { type: track }, { any: [ { user_id: u-1 }, { peer_id: p-1 } ] } ] }, at_most: 10y }
"""

FACTS = """
INSERT INTO assets BY NAME
SELECT i AS asset_no, printf('%024x', i * 7919) AS asset_id,
    (['room-composite','chat','transcript','summary','track','stream','room-composite-legacy','room-composite'])[1 + i % 8] AS type,
    'completed' AS status, md5((i % 20000)::VARCHAR)[:24] AS room_id, md5((i // 3)::VARCHAR)[:24] AS session_id,
    (['sales-','clinic-','class-','ops-'])[1 + i % 4] || (i % 20000) AS room, 'template-' || (i % 12) AS template,
    's3://hms-prod-eu/5f00/beam/' || md5((i % 20000)::VARCHAR)[:24] || '/2025-01-01/Rec-' || md5(i::VARCHAR) || '.mp4' AS path,
    CASE WHEN i % 8 = 5 THEN 'u-' || (i % 5000) END AS user_id, CASE WHEN i % 8 IN (4, 5) THEN uuid()::VARCHAR END AS peer_id,
    1 + (hash(i) % 1000000000)::BIGINT AS size, (hash(i + 1) % 7200)::DOUBLE AS duration,
    TIMESTAMP '2026-11-20 00:00:00' - to_seconds((hash(i + 2) % (550 * 86400))::BIGINT) AS created_at,
    strftime(TIMESTAMP '2026-11-20 00:00:00' - to_seconds((hash(i + 2) % (550 * 86400))::BIGINT), '%Y-%m-%dT%H:%M:%SZ') AS created_text,
    json_object('num_layers', (i % 5)::VARCHAR, 'max_width', 1280, 'max_height', 720)::VARCHAR AS metadata, false AS many, true AS settled, 'api' AS known_by
FROM range(1, {assets} + 1) AS _(i);
INSERT INTO listings (name, kind, complete, can_lock, started_at, finished_at, objects, bytes, strays, stray_bytes)
VALUES ('vault', 'store', true, false, now()::TIMESTAMP, now()::TIMESTAMP, 900000, 0, 0, 0),
       ('cold', 'store', true, false, now()::TIMESTAMP, now()::TIMESTAMP, 400000, 0, 0, 0),
       ('100ms', 'assets', true, false, now()::TIMESTAMP, now()::TIMESTAMP, 1000000, 0, 0, 0),
       ('100ms rooms', 'rooms', true, false, now()::TIMESTAMP, now()::TIMESTAMP, 20000, 0, 0, 0);
CREATE TABLE about AS SELECT {format} AS format;
"""

COPIES_WANTED = """
INSERT INTO facts.copies BY NAME
SELECT asset_no, store, asset_no % 499 <> 0 AS complete, true AS lock_read, size AS bytes,
    [struct_pack(key := type || '/2026/01/01/' || room_id || '/' || asset_id || '/Rec.mp4', size := size, version := md5(asset_id || store),
     complete := asset_no % 499 <> 0)] AS objects, false AS archived, true AS owners_known
FROM (
    SELECT asset_no, store FROM member JOIN demand USING (cohort_no) WHERE wanted AND hash(asset_no, store) % 100 < 98
    UNION ALL
    (SELECT asset_no, store FROM (SELECT asset_no, unnest(['vault', 'cold']) AS store FROM member) AS every
     ANTI JOIN (SELECT asset_no, store FROM member JOIN demand USING (cohort_no) WHERE wanted) AS wanted USING (asset_no, store)
     ORDER BY hash(asset_no, store) LIMIT greatest(0, (SELECT count(*) * 13 // 10 FROM member) - (SELECT count(*) * 98 // 100 FROM member JOIN demand USING (cohort_no) WHERE wanted)))
) AS placed JOIN assets USING (asset_no)
ORDER BY asset_no, store
"""

READ = """
import duckdb, sys
c = duckdb.connect(sys.argv[1], read_only=True)
for table in ('assets', 'copies', 'listings'):
    c.execute(f'SELECT max(COLUMNS(*)) FROM {table}').fetchall()
"""


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--assets", type=int, default=1_000_000)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.make:
        make_facts(given.make, given.assets)
        return
    with tempfile.TemporaryDirectory(prefix="retainer-bench-") as name:
        folder = Path(name)
        # In a process of its own: a child's ru_maxrss begins with what its parent held.
        subprocess.run(
            [sys.executable, __file__, "--make", name, "--assets", str(given.assets)], check=True
        )
        read_times, plan_times, peak = [], [], 0
        for round_no in range(given.rounds + 1):
            seconds, _ = timed([sys.executable, "-c", READ, "facts.duckdb"], folder)
            planning, memory = timed(
                [
                    sys.executable,
                    "-m",
                    "retainer",
                    "plan",
                    "--facts",
                    "facts.duckdb",
                    "--out",
                    "bench.plan",
                ],
                folder,
            )
            if round_no > 0:
                read_times.append(seconds)
                plan_times.append(planning)
                peak = max(peak, memory)
        read, plan = statistics.median(read_times), statistics.median(plan_times)
        print(f"plan file of {(folder / 'bench.plan').stat().st_size / 1e6:.0f} MB")
        ratio = statistics.median(
            each / beside for each, beside in zip(plan_times, read_times, strict=True)
        )
        print(
            json.dumps(
                {
                    "read_seconds": round(read, 2),
                    "plan_seconds": round(plan, 2),
                    "ratio": round(ratio, 2),
                    "peak_MiB": peak // 1024,
                }
            )
        )


def make_facts(folder: Path, assets: int) -> None:
    """Write a project and its snapshot to a folder."""
    (folder / "policies").mkdir(parents=True)
    (folder / "retainer.yaml").write_text(SETTINGS)
    (folder / "policies" / "bench.yaml").write_text(POLICY)
    with empty_facts(folder) as connection:
        connection.execute(
            FACTS.replace("{assets}", str(assets)).replace("{format}", str(SNAPSHOT_FORMAT))
        )
    place_copies(folder)
    with duckdb.connect(str(folder / "facts.duckdb"), read_only=True) as connection:
        counts = connection.execute(
            "SELECT (SELECT count(*) FROM assets), (SELECT count(*) FROM copies)"
        ).fetchone()
    print(
        f"{counts[0]:,} assets, {counts[1]:,} copies, snapshot of "
        f"{(folder / 'facts.duckdb').stat().st_size / 1e6:.0f} MB, {os.cpu_count()} cores",
        flush=True,
    )


def empty_facts(folder: Path) -> duckdb.DuckDBPyConnection:
    """A snapshot with its tables and nothing in them, to be filled and closed."""
    connection = duckdb.connect(str(folder / "facts.duckdb"))
    tables = {"assets": ASSETS, "copies": COPIES, "listings": LISTINGS, "names": NAMES}
    for table, columns in tables.items():
        connection.execute(create(table, columns))
    return connection


def place_copies(folder: Path) -> None:
    """Put 1.3 copies for each recording where the rules want them, and some where they do not."""
    settings, policies, _ = load_project(folder)
    connection = duckdb.connect()
    connection.execute(f"ATTACH '{folder}/facts.duckdb' AS facts")
    add_places(connection, settings)
    question = ask(connection, policies, datetime.now(UTC), settings.timezone)
    weighing.RANGES_AT_ONCE = sys.maxsize  # else they are attached anew, and only to be read
    for _ in in_ranges(connection, question, AT_ONCE):
        connection.execute(COPIES_WANTED)
    connection.close()


def timed(command: list[str], folder: Path) -> tuple[float, int]:
    """Wall seconds and peak resident memory (KiB) of one child process. Exits when it fails."""
    began = time.perf_counter()
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
    }
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if code := os.waitstatus_to_exitcode(status):
        sys.exit(f"{' '.join(command)} ended with {code}")
    return seconds, usage.ru_maxrss


if __name__ == "__main__":
    main()
