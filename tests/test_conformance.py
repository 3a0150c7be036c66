"""Every case of conformance/ comes out as it says, through the reader, the rules and the SQL that
`retainer test` uses."""

from __future__ import annotations

from pathlib import Path

import pytest
import reference
import yaml

from retainer.cases import Decider, Outcome, run_file

FOLDER = Path(__file__).parent / "conformance"
SHARED = Path(__file__).parents[2] / "shared" / "conformance"
FILES = sorted(FOLDER.glob("*.yaml"))
CASES = 124
OWN = {"every-property.yaml", "statuses.yaml", "versions.yaml"}
"""Files of issues that came after the shared ones."""
CHANGED = {"not-certain.yaml"}
"""Files in which an issue changed a decision, with a comment that names it."""


@pytest.fixture(scope="module")
def decider() -> Decider:
    decider = Decider()
    decider.connection.execute("SET threads = 1")
    return decider


def _outcomes(path: Path, decider: Decider) -> list[Outcome]:
    outcomes, diagnostics = run_file(path, path.name, None, decider)
    assert not diagnostics
    return outcomes


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_case_of_a_file_comes_out_as_it_says(path: Path, decider: Decider) -> None:
    outcomes = _outcomes(path, decider)
    assert outcomes
    assert not [
        (outcome.name, outcome.place, outcome.failures) for outcome in outcomes if outcome.failures
    ]
    assert [outcome.name for outcome in outcomes] == [
        test["name"] for test in yaml.safe_load(path.read_text())["tests"]
    ]


def test_no_case_is_left_out() -> None:
    assert sum(len(yaml.safe_load(path.read_text())["tests"]) for path in FILES) == CASES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_reference_that_the_laws_are_compared_with_passes_them_too(path: Path) -> None:
    file = yaml.safe_load(path.read_text())
    assert not [
        problem
        for test in file["tests"]
        for problem in reference.failures(test, file.get("timezone", "UTC"))
    ]


def test_an_expectation_that_is_wrong_is_noticed(decider: Decider, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(
        (FOLDER / "elsewhere.yaml")
        .read_text()
        .replace("deadline: none", "deadline: '2026-02-13T10:30:00Z'")
    )
    outcomes = _outcomes(wrong, decider)
    assert [outcome.failures for outcome in outcomes] == [
        (),
        ("a in vault: deadline is none, expected 2026-02-13T10:30:00Z",),
    ]


@pytest.mark.skipif(
    not SHARED.is_dir(),
    reason="the shared folder lies beside the repository only where the project is built",
)
def test_the_cases_are_those_of_the_shared_folder_byte_for_byte() -> None:
    here, there = (
        {path.name: path.read_bytes() for path in folder.iterdir()} for folder in (FOLDER, SHARED)
    )
    assert here.keys() - OWN == there.keys()
    assert {name for name in there if here[name] != there[name]} == CHANGED
