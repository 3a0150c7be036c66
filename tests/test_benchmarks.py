"""The benchmarks that need no download still run: the tables that they fill have changed under it
once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_the_plan_benchmark_runs_with_few_assets() -> None:
    script = Path(__file__).parents[1] / "benchmarks" / "plan_a_million.py"
    done = subprocess.run(
        [sys.executable, str(script), "--assets", "2000", "--rounds", "1"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout.splitlines()[-1])) == {
        "read_seconds",
        "plan_seconds",
        "ratio",
        "peak_MiB",
    }


def test_the_record_benchmark_runs_with_few_copies() -> None:
    script = Path(__file__).parents[1] / "benchmarks" / "plan_with_a_long_record.py"
    done = subprocess.run(
        [sys.executable, str(script), "--copies", "4000", "--rounds", "1"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["lines"] > 8000


def test_the_impact_benchmark_runs_with_few_assets() -> None:
    script = Path(__file__).parents[1] / "benchmarks" / "impact_beside_a_plan.py"
    done = subprocess.run(
        [sys.executable, str(script), "--assets", "2000", "--rounds", "1"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["ratio"] > 0


def test_the_report_benchmark_runs_with_few_objects() -> None:
    script = Path(__file__).parents[1] / "benchmarks" / "a_report.py"
    done = subprocess.run(
        [sys.executable, str(script), "--objects", "2000", "--rounds", "1"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["ratio"] > 0


def test_the_benchmark_of_many_machines_runs_with_few_copies() -> None:
    script = Path(__file__).parents[1] / "benchmarks" / "apply_on_many.py"
    few = ["--far", "20", "--near", "4", "--machines", "1", "2", "--delay-ms", "1"]
    done = subprocess.run([sys.executable, str(script), *few], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert set(told) == {"far", "near"} and told["far"]["1 machines"] == 1.0
