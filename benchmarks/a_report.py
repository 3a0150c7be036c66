"""A bucket's own report of ten million objects made into facts, beside DuckDB reading the same file
once: whole process against whole process, in one run.

    python benchmarks/a_report.py [--objects 10000000] [--rounds 3]

The report is an S3 Inventory as Parquet, in files of a million rows with the documented columns,
written by DuckDB (no cloud made it). `report` fetches each file through a reader that gives it from
this disk, computes its MD5, checks every row, and leaves the rows in the table `objects`; the peer
reads every column once. Peak memory is the child's resident set (ru_maxrss).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from retainer.database import connect
from retainer.inventory.bucket_report import read_report, take_report
from retainer.inventory.facts import stage
from retainer.inventory.listing import Listing
from retainer.model.setting import Store
from retainer.ports import Look, Seen
from retainer.sources.inventory_reports import BucketReports

STORE = Store("vault", "s3://bench-vault/100ms", inventory="s3://bench-reports/daily")
EACH = 1_000_000
ROWS = """
SELECT 'bench-vault' AS bucket, '100ms/room-composite/2026/' || lpad((1 + i % 12)::VARCHAR, 2, '0')
    || '/01/' || md5((i % 20000)::VARCHAR)[:24] || '/' || md5(i::VARCHAR)[:24] || '/Rec.mp4' AS key,
    NULL::VARCHAR AS version_id, true AS is_latest, false AS is_delete_marker, i AS size,
    TIMESTAMP '2026-11-01' AS last_modified_date, md5((i + 7)::VARCHAR) AS e_tag,
    'STANDARD' AS storage_class, false AS is_multipart_uploaded
FROM range({first}, {last}) AS _(i)
"""


class FromDisk:
    """Gives the objects of a folder by their keys, as a bucket would."""

    name = "bench-reports"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def some_between(self, first: str, last: str, pages: int) -> Iterator[Seen]:
        keys = (
            path.relative_to(self.folder).as_posix() for path in self.folder.rglob("manifest.*")
        )
        return (Seen(key, 0, "1") for key in keys)

    def whole(self, key: str, most: int) -> tuple[None, bytes]:
        return None, (self.folder / key).read_bytes()

    def look(self, key: str) -> Look:
        return Look(Seen(key, (self.folder / key).stat().st_size, "1"))

    def read(self, seen: Seen) -> Iterator[bytes]:
        with (self.folder / seen.key).open("rb") as stream:
            while piece := stream.read(1 << 20):
                yield piece


def make(folder: Path, objects: int) -> None:
    files = []
    for first in range(0, objects, EACH):
        key = f"daily/data/{first}.parquet"
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = ROWS.format(first=first, last=min(first + EACH, objects))
        duckdb.sql(f"COPY ({rows}) TO '{path}' (FORMAT parquet, COMPRESSION snappy)")
        with path.open("rb") as stream:
            md5 = hashlib.file_digest(stream, "md5").hexdigest()
        files.append({"key": key, "size": path.stat().st_size, "MD5checksum": md5})
    now = datetime.now(UTC)
    manifest = {
        "sourceBucket": "bench-vault",
        "creationTimestamp": str(int(now.timestamp() * 1000)),
        "fileFormat": "Parquet",
        "fileSchema": "message s3.inventory { … }",
        "files": files,
    }
    content = json.dumps(manifest).encode()
    dated = folder / f"daily/{now:%Y-%m-%dT%H-%MZ}"
    dated.mkdir()
    (dated / "manifest.json").write_bytes(content)
    (dated / "manifest.checksum").write_text(hashlib.md5(content).hexdigest())
    print(f"{objects:,} objects, {sum(each['size'] for each in files) / 1e6:.0f} MB")


def report(folder: Path) -> None:
    now = datetime.now(UTC)
    listing = Listing("vault", "store", now)
    reports = BucketReports(STORE, FromDisk(folder), "daily/")  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory(prefix="retainer-bench-") as name:
        made = Path(name) / "report"
        day = now - datetime.fromtimestamp(0, UTC)
        assert read_report(listing, reports, made, now, day, None, lambda *_: None), listing.said
        with connect(made) as connection:
            stage(connection)
            take_report(connection, listing)
            assert connection.execute("SELECT count(*) FROM objects").fetchone() == (
                listing.objects,
            )


def scan(folder: Path) -> None:
    duckdb.sql(f"SELECT max(COLUMNS(*)) FROM '{folder}/daily/data/*.parquet'").fetchall()


def timed(what: str, folder: Path) -> tuple[float, int]:
    """Seconds and peak MiB of a process of its own."""
    before = time.monotonic()
    done = subprocess.run(
        [sys.executable, __file__, "--act", what, "--folder", str(folder)],
        check=True,
        capture_output=True,
        text=True,
    )
    return time.monotonic() - before, int(done.stdout)


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--objects", type=int, default=10_000_000)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--act", choices=("make", "report", "scan"), help=argparse.SUPPRESS)
    arguments.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.act:
        {"report": report, "scan": scan}[given.act](given.folder)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        return
    with tempfile.TemporaryDirectory(prefix="retainer-bench-") as name:
        folder = Path(name)
        make(folder, given.objects)
        rounds = [
            (timed("scan", folder), timed("report", folder)) for _ in range(given.rounds + 1)
        ][1:]
    scans, reports = [each[0][0] for each in rounds], [each[1][0] for each in rounds]
    print(
        json.dumps(
            {
                "scan_seconds": round(statistics.median(scans), 2),
                "report_seconds": round(statistics.median(reports), 2),
                "ratio": round(
                    statistics.median(b / a for a, b in zip(scans, reports, strict=True)), 2
                ),
                "peak_MiB": max(each[1][1] for each in rounds),
            }
        )
    )


if __name__ == "__main__":
    main()
