"""Mistakes planted in decide.sql, one by one: which of them does the suite notice?

    PYTHONPATH=tests python tests/by_hand/mutate_the_decision.py [--every 3 [--first 1]] [--then-the-suite]

Each mistake swaps one operator, constant, join or aggregate. First every conformance case, and
the cases that the laws draw beside the reference, are decided with it; what those do not notice
is, with `--then-the-suite`, put into a copy of this tree, where the tests that decide anything
run. What is left is printed, with whether `survivors.md` explains it. On one core a whole run takes
half an hour, and each that is left a few minutes more with the suite.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import conftest  # noqa: F401  (hypothesis draws the same examples each time)
import test_columns
from generate import Case
from survivors import explained

import retainer.plan.decide as deciding
from retainer.cases import Decider, run_file

ROOT = Path(__file__).parents[2]
SQL = ROOT / "retainer/plan/decide.sql"
SWAPS: tuple[tuple[str, str], ...] = (
    (r" < ", " <= "),
    (r" <= ", " < "),
    (r" >= ", " > "),
    (r" > ", " >= "),
    (r"(?<![<>!]) = ", " <> "),
    (r" <> ", " = "),
    (r"\bAND\b(?! NULL)", "OR"),
    (r"\bOR\b(?! REPLACE)", "AND"),
    (r"\bNOT (?!NULL|IN\b|TRUE|FALSE)", ""),
    (r"\bNOT IN\b", "IN"),
    (r"\bIS NOT NULL\b", "IS NULL"),
    (r"\bIS NULL\b", "IS NOT NULL"),
    (r"\bIS NOT TRUE\b", "IS FALSE"),
    (r"\bIS NOT FALSE\b", "IS TRUE"),
    (r"\btrue\b", "false"),
    (r"\bfalse\b", "true"),
    (r"\bINTERVAL (\d+)\b", lambda found: f"INTERVAL {int(found[1]) + 1}"),
    (r"(?<!-)\binfinity\b", "-infinity"),
    (r"-infinity\b", "infinity"),
    (r"\barg_max\(", "arg_min("),
    (r"\barg_min\(", "arg_max("),
    (r"(?<!arg_)\bmax\(", "min("),
    (r"(?<!arg_)\bmin\(", "max("),
    (r"\bbool_or\(", "bool_and("),
    (r"\bbool_and\(", "bool_or("),
    (r"\bgreatest\(", "least("),
    (r"-clause_no", "clause_no"),
    (r"\bLEFT JOIN\b", "JOIN"),
    (r"\bANTI JOIN\b", "SEMI JOIN"),
    (r"\bUNION\b(?! ALL)", "UNION ALL"),
    (r"\bSELECT DISTINCT\b", "SELECT"),
    (r"\('keep', 'hold'\)", "('keep')"),
    (r"\('delete', 'at_most'\)", "('delete')"),
    (r"\('keep', 'hold', 'delete'\)", "('keep', 'delete')"),
    (r"THEN 'copy'", "THEN 'waiting'"),
    (r"THEN 'waiting'", "THEN 'lost'"),
    (r"'lost'(?= END)", "'none'"),
    (r"ELSE 'unknown'", "ELSE 'lost'"),
    (r"THEN 'unknown'", "THEN 'none'"),
    (r"THEN 'keep'", "THEN 'due'"),
    (r"THEN 'due'", "THEN 'unmanaged'"),
    (r"ELSE 'none'", "ELSE 'lost'"),
    (r"= 'y'", "= 'm'"),
    (r"\bcode::INTEGER % 2 = 1", "code::INTEGER % 2 = 0"),
)  # fmt: skip
TESTS = ("laws", "boundaries", "facts", "in_doubt", "cases", "accepted", "limits", "impact")
TESTS += ("ahead", "standing", "every_type", "true_sentences", "what_is_left", "one_place")


@dataclass(frozen=True)
class Mutant:
    """One mistake: in which line, what it does to that, and the whole text."""

    line: int
    change: str
    text: str

    @property
    def words(self) -> str:
        return f"line {self.line}: {self.change}"


def mutants() -> Iterator[Mutant]:
    """Every mistake of one place, in the order of the lines; comments are let alone."""
    text = SQL.read_text(encoding="utf-8")
    code = re.sub(r"--.*", lambda comment: "¶" * len(comment[0]), text)
    found = []
    for pattern, by in SWAPS:
        for place in re.finditer(pattern, code):
            now = by(place) if callable(by) else by
            if "CREATE OR REPLACE" in code[place.start() - 7 : place.end() + 8]:
                continue
            start, end = place.span()
            line = text.count("\n", 0, start) + 1
            before = text[text.rfind("\n", 0, start) + 1 : start].lstrip()
            behind = text[end : text.find("\n", end)]
            change = f"{before}⟨{place[0].strip()} → {now.strip() or 'nothing'}⟩{behind}"
            found.append(Mutant(line, change, text[:start] + now + text[end:]))
    yield from sorted(found, key=lambda each: (each.line, each.change))


@dataclass(frozen=True)
class Prepared:
    """A case that lies in tables of its own, and what the reference says of it."""

    case: Case
    decider: Decider
    wanted: dict[test_columns.Pair, dict[str, Any]]


def prepared() -> Iterator[Prepared]:
    """The cases that the suite decides beside the reference."""
    for case in test_columns.every_case():
        decider = Decider()
        decider.connection.execute("SET threads = 1")
        test_columns.lay(case, decider)
        yield Prepared(case, decider, test_columns.wanted(case))


def is_noticed(mutant: Mutant, examples: list[Prepared]) -> bool:
    """Whether a case beside the reference, or a conformance case, comes out otherwise."""
    before, mark, after = mutant.text.partition("-- ── What matches")
    deciding._parts_of_the_sql = lambda: (before, mark + after)  # type: ignore[assignment]
    decider = Decider()
    try:
        for each in examples:
            found = test_columns.found(each.case, each.decider)
            if test_columns.differences(each.case, found, each.wanted):
                return True
        for path in sorted((ROOT / "tests/conformance").glob("*.yaml")):
            outcomes, _ = run_file(path, path.name, None, decider)
            if any(outcome.failures for outcome in outcomes):
                return True
    except Exception:  # whatever comes of it is no decision
        return True
    finally:
        decider.connection.close()
    return False


def passes_the_suite(mutant: Mutant, tree: Path) -> bool:
    """Whether the tests that decide anything pass with it."""
    (tree / "retainer/plan/decide.sql").write_text(mutant.text, encoding="utf-8")
    files = [f"tests/test_{name}.py" for name in TESTS]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "--timeout=120", *files],
        cwd=tree,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": f"{tree}:{tree / 'tests'}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return done.returncode == 0


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--only", default="", help="mistakes whose words contain this")
    arguments.add_argument("--every", type=int, default=1, metavar="N", help="each Nth mistake")
    arguments.add_argument("--first", type=int, default=0, metavar="K", help="from the Kth on")
    arguments.add_argument("--then-the-suite", action="store_true")
    given = arguments.parse_args()
    examples = list(prepared())
    planted = [each for each in mutants() if given.only in each.words][given.first :: given.every]
    left = []
    for each in planted:
        if not is_noticed(each, examples):
            left.append(each)
            print(f"not noticed by the cases: {each.words}", flush=True)
    print(f"{len(planted)} mistakes, {len(left)} not noticed by the cases", flush=True)
    if given.then_the_suite:
        with tempfile.TemporaryDirectory() as folder:
            tree = Path(folder) / "tree"
            shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git", ".hypothesis"))
            left = [each for each in left if passes_the_suite(each, tree)]
        print(f"{len(left)} not noticed by the suite either", flush=True)
    why = explained()
    for each in left:
        print(f"{'explained' if f'`{each.change}`' in why else 'not noticed'}: {each.words}")
    share = 100 * (1 - len(left) / len(planted)) if planted else 100.0
    print(f"{share:.1f} % of {len(planted)} noticed")


if __name__ == "__main__":
    main()
