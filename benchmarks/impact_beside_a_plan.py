"""What a change of two rules does, beside one plan of the same facts: whole process against whole
process, in one run.

    python benchmarks/impact_beside_a_plan.py [--assets 100000] [--rounds 5]

Facts as in plan_a_million.py. The change keeps chats for 6 months instead of a year, and sales for 5
years instead of 7. An impact decides twice, writes every pair of both sides to a file, and joins
them; a plan decides once and writes its file. The ratio is the median over the rounds, each impact
beside the plan before it, after one round of each that is not counted.
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
from pathlib import Path

from plan_a_million import POLICY, SETTINGS

CHANGED = POLICY.replace(
    "{ type: chat }, keep: [ { in: vault, for: 1y }",
    "{ type: chat }, keep: [ { in: vault, for: 6mo }",
).replace("keep: [ { in: vault, for: 7y } ]", "keep: [ { in: vault, for: 5y } ]")


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--assets", type=int, default=100_000)
    arguments.add_argument("--rounds", type=int, default=5)
    given = arguments.parse_args()
    assert CHANGED != POLICY
    with tempfile.TemporaryDirectory(prefix="retainer-bench-") as name:
        folder = Path(name) / "project"
        folder.mkdir()
        script = Path(__file__).with_name("plan_a_million.py")
        subprocess.run(
            [sys.executable, str(script), "--make", str(folder), "--assets", str(given.assets)],
            check=True,
        )
        base = Path(name) / "base"
        (base / "policies").mkdir(parents=True)
        (base / "retainer.yaml").write_text(SETTINGS)
        (base / "policies" / "bench.yaml").write_text(POLICY)
        (folder / "policies" / "bench.yaml").write_text(CHANGED)
        retainer = [sys.executable, "-m", "retainer"]
        plans, impacts, peak = [], [], 0
        for round_no in range(given.rounds + 1):
            plan, _ = timed(
                [*retainer, "plan", "--facts", "facts.duckdb", "--out", "x.plan"], folder
            )
            told = [*retainer, "impact", "--base", str(base), "--facts", "facts.duckdb"]
            seconds, memory = timed([*told, "--format", "markdown", "--out", "x.md"], folder)
            if round_no:
                plans.append(plan)
                impacts.append(seconds)
                peak = max(peak, memory)
        ratio = statistics.median(
            each / beside for each, beside in zip(impacts, plans, strict=True)
        )
        print((folder / "x.md").read_text().splitlines()[1])
        print(
            json.dumps(
                {
                    "plan_seconds": round(statistics.median(plans), 2),
                    "impact_seconds": round(statistics.median(impacts), 2),
                    "ratio": round(ratio, 2),
                    "peak_MiB": peak // 1024,
                }
            )
        )


def timed(command: list[str], folder: Path) -> tuple[float, int]:
    """Wall seconds and peak resident memory (KiB) of one child process. Exits when it fails."""
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if (code := os.waitstatus_to_exitcode(status)) not in (0, 2, 3, 4):
        sys.exit(f"{' '.join(command)} ended with {code}")
    return seconds, usage.ru_maxrss


if __name__ == "__main__":
    main()
