"""A plan of a few recordings with a long record behind it, beside the same plan with none: whole
process against whole process, in one run.

    python benchmarks/plan_with_a_long_record.py [--copies 200000] [--rounds 5]

The record has two lines for each copy, in runs of 2,000 copies. `carried over` is the same record as
one old journal.jsonl, which is read whole until a run has closed it. The ratio is the median over
the rounds, each plan beside the one without a record before it, after one round that is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from retainer.journal.entry import START, Entry, sealed
from retainer.journal.folder import FolderBackend
from retainer.journal.ledger import Ledger, closing
from retainer.model.moment import write_moment

RUN = 2000


def made(state: Path, copies: int, *, old: bool) -> None:
    """A record of so many copies, as runs would have written it."""
    now = datetime.now(UTC).replace(microsecond=0)
    (state / "journal").mkdir(parents=True)
    FolderBackend(state).name("ab" * 16)
    ledger, seal = Ledger(), START
    for number in range(1, -(-copies // RUN) + 1):
        path = state / ("journal.jsonl" if old else f"journal/{number:08}.jsonl")
        with path.open("ab") as stream:
            for event, of in run_of(number, now):
                entry = Entry(now, f"run{number}", f"plan{number}", event, of)
                line, seal = sealed(entry, seal)
                stream.write(line)
                ledger.add(replace(entry, seal=seal))
            if not old:
                summary = closing(ledger, f"run{number}", now, now)
                line, seal = sealed(summary, seal)
                stream.write(line)
                ledger = Ledger.read(replace(summary, seal=seal))


def run_of(number: int, now: datetime) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a run writes that copies: an intent and an outcome each, a catalog part every 200."""
    yield "start", {"tool": "0", "expires": write_moment(now + timedelta(hours=24))}
    for row in range(RUN):
        key = f"room-composite/2026/11/29/{number:024x}/{row:024x}/Rec.mp4"
        record = {"key": key, "object_size": 3000, "version": f"{row:032x}"}
        record |= {"sha256": f"{row:064x}", "crc32c": "AAAAAA==", "store": "vault"}
        yield "intent", {"act": "copy", "rows": [row], "store": "vault", "key": key}
        yield "copied", {"row": row, "asset": f"{row:024x}", "rule": "calls", "record": record}
        if row % 200 == 199:
            yield "catalogued", {"store": "vault", "rows": list(range(row - 199, row + 1))}
    yield "end", {"finished": True}


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--copies", type=int, default=200_000)
    arguments.add_argument("--rounds", type=int, default=5)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="retainer-bench-") as name:
        folder = Path(name) / "project"
        folder.mkdir()
        script = Path(__file__).with_name("plan_a_million.py")
        subprocess.run(
            [sys.executable, str(script), "--make", str(folder), "--assets", "30"], check=True
        )
        records = {"none": Path(name) / "none", "long": Path(name) / "long"}
        records["carried over"] = Path(name) / "old"
        records["none"].mkdir()
        made(records["long"], given.copies, old=False)
        made(records["carried over"], given.copies, old=True)
        taken: dict[str, list[float]] = {each: [] for each in records}
        peak: dict[str, int] = dict.fromkeys(records, 0)
        for round_no in range(given.rounds + 1):
            for each, record in records.items():
                if each == "carried over" and round_no > 1:
                    continue
                shutil.rmtree(folder / ".retainer", ignore_errors=True)
                (folder / ".retainer").symlink_to(record)
                command = [sys.executable, "-m", "retainer", "plan", "--facts", "facts.duckdb"]
                seconds, memory = timed([*command, "--out", "x.plan"], folder)
                (folder / ".retainer").unlink()
                if round_no:
                    taken[each].append(seconds)
                peak[each] = max(peak[each], memory)
        lines = sum(1 for path in (records["long"] / "journal").iterdir() for _ in path.open("rb"))
        size = sum(path.stat().st_size for path in (records["long"] / "journal").iterdir())
        print(f"{lines:,} lines, {size / 1e6:.0f} MB", file=sys.stderr)
        ratios = [long / none for long, none in zip(taken["long"], taken["none"], strict=True)]
        print(
            json.dumps(
                {
                    "lines": lines,
                    "none_seconds": round(statistics.median(taken["none"]), 3),
                    "long_seconds": round(statistics.median(taken["long"]), 3),
                    "carried_over_seconds": round(statistics.median(taken["carried over"]), 3),
                    "ratio": round(statistics.median(ratios), 2),
                    "none_MiB": peak["none"] >> 10,
                    "long_MiB": peak["long"] >> 10,
                    "carried_over_MiB": peak["carried over"] >> 10,
                }
            )
        )


def timed(command: list[str], folder: Path) -> tuple[float, int]:
    """Seconds, and the peak of resident memory in KiB, of one process."""
    start = time.monotonic()
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) in (0, 4, 8), command
    return time.monotonic() - start, used.ru_maxrss


if __name__ == "__main__":
    main()
