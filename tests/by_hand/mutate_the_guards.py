"""Mistakes planted in what stands before a delete (apply/), one by one, by cosmic-ray: which of
them does the suite notice?

    python tests/by_hand/mutate_the_guards.py [--every 3] [--report]

It works in a copy of this tree and an environment of its own, both in `/tmp/retainer-guards`, and
goes on where it was cut: a mistake takes a minute or three. `--report` only tells what is known.
"""

from __future__ import annotations

import argparse
import shutil
import sqlite3
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLACE = Path("/tmp/retainer-guards")
TREE, TOOLS, RECORD = PLACE / "tree", PLACE / "tools", PLACE / "mistakes.sqlite"
GUARDS = ("delete", "deletes", "verify", "settle", "places")
TESTS = ("apply_safety", "versions", "many_safety", "two_machines", "freeze", "what_is_left")
TESTS += ("locks", "limits", "kill")
SWAPS = (
    *("AddNot", "Delete_Not", "OrWithAnd", "AndWithOr", "Eq_NotEq", "NotEq_Eq", "Is_IsNot"),
    *("IsNot_Is", "ZeroIterationForLoop", "ContinueWithBreak", "TrueWithFalse", "FalseWithTrue"),
    *("ExceptionReplacer", "Gt_GtE", "GtE_Gt", "Lt_LtE", "LtE_Lt"),
)
"""The ends of the names of cosmic-ray's operators that a guard can fall to; others change what no
guard is made of, such as numbers in messages."""


def begin(every: int) -> None:
    """A copy of the tree, the tool, and the list of mistakes."""
    ignored = shutil.ignore_patterns(".git", ".hypothesis", "*cache*")
    shutil.copytree(ROOT, TREE, ignore=ignored)
    venv.create(TOOLS, with_pip=True)
    subprocess.run([TOOLS / "bin/pip", "install", "-q", "cosmic-ray==8.7.0"], check=True)
    tests = " ".join(f"tests/test_{name}.py" for name in TESTS)
    modules = ", ".join(f'"retainer/apply/{name}.py"' for name in GUARDS)
    command = (
        f"env PYTHONPATH={TREE}:{TREE}/tests {sys.executable} -m pytest -x -q -p no:cacheprovider "
        f"-p no:xdist {tests}"
    )
    (PLACE / "guards.toml").write_text(
        f"[cosmic-ray]\nmodule-path = [{modules}]\ntimeout = 900.0\nexcluded-modules = []\n"
        f'test-command = "{command}"\n\n[cosmic-ray.distributor]\nname = "local"\n'
    )
    ray("init")
    with sqlite3.connect(RECORD) as record:
        rows = record.execute(
            "SELECT job_id, operator_name FROM mutation_specs "
            "ORDER BY module_path, start_pos_row, start_pos_col, operator_name"
        ).fetchall()
        chosen = [job for job, name in rows if name.endswith(SWAPS)][::every]
        for job, _ in rows:
            if job not in chosen:
                record.execute("DELETE FROM mutation_specs WHERE job_id = ?", [job])
                record.execute("DELETE FROM work_items WHERE job_id = ?", [job])


def ray(verb: str) -> None:
    command = [TOOLS / "bin/cosmic-ray", verb, PLACE / "guards.toml", RECORD]
    subprocess.run(command, cwd=TREE, check=True)


def report() -> None:
    with sqlite3.connect(RECORD) as record:
        planted = record.execute("SELECT count(*) FROM work_items").fetchone()[0]
        for outcome, count in record.execute(
            "SELECT test_outcome, count(*) FROM work_results GROUP BY test_outcome"
        ).fetchall():
            print(f"{outcome}: {count} of {planted}")
        for (diff,) in record.execute(
            "SELECT diff FROM work_results WHERE test_outcome = 'SURVIVED'"
        ).fetchall():
            print(diff)


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--every", type=int, default=1, metavar="N", help="each Nth mistake")
    arguments.add_argument("--report", action="store_true")
    given = arguments.parse_args()
    if not given.report:
        if not RECORD.exists():
            begin(given.every)
        ray("exec")
    report()


if __name__ == "__main__":
    main()
