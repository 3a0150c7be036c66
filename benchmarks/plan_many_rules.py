"""Planning 100,000 assets under 3,000 rules and a hold over 20,000 ids, beside the same assets
under 12 rules: whole processes, in one run.

    python benchmarks/plan_many_rules.py [--rounds 3]

A rule for each customer, by the beginning of its rooms' names, as a platform with many tenants
writes them. The ratio is that of the medians of the processes' CPU time (user and system).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from plan_a_million import SETTINGS, make_facts

ASSETS = 100_000


def many(folder: Path) -> None:
    """3,000 rules in files of 500, and the hold."""
    for number in range(6):
        rules = [
            {
                "id": f"customer-{number}-{each}",
                "match": {"type": "room-composite", "room": f"sales-{number * 500 + each}*"},
                "keep": [{"in": "vault", "for": "7y"}],
            }
            for each in range(500)
        ]
        (folder / f"rules-{number}.yaml").write_text(json.dumps({"version": 1, "rules": rules}))
    ids = [f"{number * 7919:024x}" for number in range(1, 20_001)]
    hold = {"id": "LIT-1", "why": "a case", "in": "vault", "match": {"asset_id": ids}}
    (folder / "holds.yaml").write_text(json.dumps({"version": 1, "holds": [hold]}))


def cpu(folder: Path, facts: Path) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "retainer", "plan", "--facts", str(facts), "--out", "x.plan"]
    subprocess.run(
        command,
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"NO_COLOR": "1"},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        (root / "many" / "policies").mkdir(parents=True)
        (root / "many" / "retainer.yaml").write_text(SETTINGS)
        many(root / "many" / "policies")
        (root / "few").mkdir()
        make_facts(root / "few", ASSETS)
        seconds: dict[str, list[float]] = {"few": [], "many": []}
        for number in range(given.rounds + 1):
            for name, each in seconds.items():
                took = cpu(root / name, root / "few" / "facts.duckdb")
                if number:
                    each.append(took)
        medians = {name: statistics.median(each) for name, each in seconds.items()}
        print(
            f"12 rules: {medians['few']:.2f} CPU s; 3,000 rules and a hold over 20,000 ids: "
            f"{medians['many']:.2f} CPU s; "
            f"ratio {medians['many'] / medians['few']:.2f}"
        )


if __name__ == "__main__":
    main()
