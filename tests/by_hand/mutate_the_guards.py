"""Mistakes planted in what stands before a delete (apply/), one by one, by cosmic-ray: which of
them does the suite notice?

    python tests/by_hand/mutate_the_guards.py [--every 3 [--first 1]] [--report]

It works in a copy of this tree, with tools of its own, both in `/tmp/retainer-guards`, and goes on
where it was cut. The tests run once to learn which of them comes by which line; of a mistake those
are asked that come by its line, the quickest first. With `--first` several halves run side by side.
`--report` only tells what is known, of all of them: what was not noticed, less what
`survivors.md` explains.
"""

from __future__ import annotations

import argparse
import difflib
import json
import shutil
import sqlite3
import subprocess
import sys
import venv
from collections import Counter, defaultdict
from pathlib import Path
from xml.etree import ElementTree

from survivors import explained

ROOT = Path(__file__).parents[2]
PLACE = Path("/tmp/retainer-guards")
TOOLS, SEEN = PLACE / "tools", PLACE / "seen.json"
GUARDS = ("delete", "deletes", "verify", "settle", "places")
TESTS = ("deletes", "one_delete", "settling", "places", "kinds", "apply_safety", "versions")
TESTS += ("many_safety", "two_machines", "freeze", "what_is_left", "limits")
SWAPS = (
    *("AddNot", "Delete_Not", "OrWithAnd", "AndWithOr", "Eq_NotEq", "NotEq_Eq", "Is_IsNot"),
    *("IsNot_Is", "ZeroIterationForLoop", "ContinueWithBreak", "TrueWithFalse", "FalseWithTrue"),
    *("ExceptionReplacer", "Gt_GtE", "GtE_Gt", "Lt_LtE", "LtE_Lt"),
)
"""The ends of the names of cosmic-ray's operators that a guard can fall to; others change what no
guard is made of, such as numbers in messages."""


def copied(name: str) -> Path:
    tree = PLACE / name
    if not tree.exists():
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git", ".hypothesis", "*cache*"))
    return tree


def pytest(tree: Path, *arguments: str, more: str = "") -> int:
    paths = f"{tree}:{tree / 'tests'}{more}"
    command = ["env", f"PYTHONPATH={paths}", sys.executable, "-m", "pytest", "-q", *arguments]
    return subprocess.run(command, cwd=tree, stdout=subprocess.DEVNULL).returncode


def learn() -> None:
    """Which tests come by which line of the guards, and how many seconds each takes."""
    venv.create(TOOLS, with_pip=True)
    pip = TOOLS / "bin/pip"
    subprocess.run([pip, "install", "-q", "cosmic-ray==8.7.0"], check=True)
    coverage = PLACE / "coverage"
    more = ["install", "-q", "--target", coverage, "--no-deps", "coverage", "pytest-cov"]
    subprocess.run([pip, *more], check=True)
    tree, told = copied("whole"), PLACE / "junit.xml"
    pytest(
        tree,
        *("-n", "2", "--cov=retainer.apply", "--cov-context=test", "--cov-report=json:cov.json"),
        *(f"--junitxml={told}", *(f"tests/test_{name}.py" for name in TESTS)),
        more=f":{coverage}",
    )
    shown = [sys.executable, "-m", "coverage", "json", "--show-contexts", "-q", "-o", "cov.json"]
    paths = f"PYTHONPATH={coverage}"
    subprocess.run(["env", paths, *shown], cwd=tree, check=True)
    seconds = {
        f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}": float(
            case.get("time", 0)
        )
        for case in ElementTree.parse(told).iter("testcase")
        if case.find("failure") is None and case.find("skipped") is None
    }
    files = json.loads((tree / "cov.json").read_text())["files"]
    seen = {
        guard: {
            line: sorted(
                {name for each in tests if (name := each.rpartition("|")[0]) in seconds},
                key=seconds.__getitem__,
            )
            for line, tests in files[f"retainer/apply/{guard}.py"]["contexts"].items()
        }
        for guard in GUARDS
    }
    SEEN.write_text(json.dumps(seen))


def begin(every: int, first: int) -> None:
    """A tree for this share of the mistakes, and their list."""
    tree, toml, record = copied(f"tree-{first}"), PLACE / f"{first}.toml", record_of(first)
    modules = ", ".join(f'"retainer/apply/{name}.py"' for name in GUARDS)
    command = f"{sys.executable} {Path(__file__).resolve()} --ask {tree}"
    toml.write_text(
        f"[cosmic-ray]\nmodule-path = [{modules}]\ntimeout = 900.0\nexcluded-modules = []\n"
        f'test-command = "{command}"\n\n[cosmic-ray.distributor]\nname = "local"\n'
    )
    ray("init", first)
    with sqlite3.connect(record) as known:
        rows = known.execute(
            "SELECT job_id, operator_name FROM mutation_specs "
            "ORDER BY module_path, start_pos_row, start_pos_col, operator_name, occurrence"
        ).fetchall()
        chosen = [job for job, name in rows if name.endswith(SWAPS)][first::every]
        for job, _ in rows:
            if job not in chosen:
                known.execute("DELETE FROM mutation_specs WHERE job_id = ?", [job])
                known.execute("DELETE FROM work_items WHERE job_id = ?", [job])


def record_of(first: int) -> Path:
    return PLACE / f"{first}.sqlite"


def ray(verb: str, first: int) -> None:
    command = [TOOLS / "bin/cosmic-ray", verb, PLACE / f"{first}.toml", record_of(first)]
    subprocess.run(command, cwd=PLACE / f"tree-{first}", check=True)


def ask(tree: Path) -> int:
    """Run the tests that come by what differs in a tree: 0 where all of them pass."""
    seen = json.loads(SEEN.read_text())
    asked: list[str] = []
    for guard in GUARDS:
        file = f"retainer/apply/{guard}.py"
        was, now = ((each / file).read_text().splitlines() for each in (PLACE / "whole", tree))
        for tag, start, end, _, _ in difflib.SequenceMatcher(None, was, now, False).get_opcodes():
            # a line that goes over several is known by its first; what is not run is known by
            # what stands before it
            around = range(start + 1, end + 1) if tag != "equal" else ()
            for line in around:
                near = [n for n in range(line, 0, -1) if str(n) in seen[guard]]
                asked += seen[guard][str(near[0])] if near else []
    quickest = list(dict.fromkeys(asked))
    few, rest = quickest[:15], quickest[15:60]
    for some in (few, rest):
        if some and pytest(tree, "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *some):
            return 1
    return 0


def words_of(diff: str) -> str:
    """What a mistake changes, and in which file."""
    file = diff.partition("retainer/apply/")[2].partition(".py")[0]
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++", "@@"))]
    was = " ".join(line[1:].strip() for line in lines if line.startswith("-"))
    now = " ".join(line[1:].strip() for line in lines if line.startswith("+"))
    return f"`{file}: {was}` → `{now}`"


def report() -> None:
    outcomes: Counter[str] = Counter()
    left: dict[str, int] = defaultdict(int)
    for record in sorted(PLACE.glob("*.sqlite")):
        with sqlite3.connect(record) as known:
            outcomes["planted"] += known.execute("SELECT count(*) FROM work_items").fetchone()[0]
            for outcome, diff in known.execute("SELECT test_outcome, diff FROM work_results"):
                outcomes[outcome] += 1
                if outcome == "SURVIVED":
                    left[words_of(diff)] += 1
    for name, count in outcomes.items():
        print(f"{name.lower()}: {count}")
    known_why = explained()
    for words, count in left.items():
        print(f"{'explained' if words in known_why else 'not noticed'}: {count} × {words}")


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--every", type=int, default=1, metavar="N", help="each Nth mistake")
    arguments.add_argument("--first", type=int, default=0, metavar="K", help="from the Kth on")
    arguments.add_argument("--report", action="store_true")
    arguments.add_argument("--ask", type=Path, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.ask:
        sys.exit(ask(given.ask))
    if not given.report:
        if not SEEN.exists():
            learn()
        if not record_of(given.first).exists():
            begin(given.every, given.first)
        ray("exec", given.first)
    report()


if __name__ == "__main__":
    main()
