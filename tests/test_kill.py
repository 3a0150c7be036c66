"""A SIGKILL before and after every effect of a small run, each followed by a resume: nothing lost, nothing done twice."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from project import POLICY, Project, make_project, pairs, video

from retainer.demo.standin import StandIn
from retainer.journal.file import read_journal

HOSTED = {"a1" + "0" * 22: video(1), "a2" + "0" * 22: video(2)}
OLD = "b1" + "0" * 22
ERASED = ("e1" + "0" * 22, "e2" + "0" * 22)
EFFECTS = 28


def small_run(root: Path, api: StandIn) -> Project:
    """Two copies from 100ms, one between folders, and two deletes for an erasure, in one plan."""
    project = make_project(root, api, "local", "")
    project.write(POLICY | {"erasures": [{"id": "DSR-1", "why": "a request", "match": {"session_id": "5e55" + "e" * 20}}]})
    for name, content in HOSTED.items():
        project.hosted(name, content)
    project.uploaded(OLD, video(3))
    for name in ERASED:
        project.uploaded(name, video(4), session_id="5e55" + "e" * 20, age=timedelta(days=9))
    plan = project.plan()
    assert (plan["header"]["copies"], plan["header"]["deletes"]) == (3, 2)
    return project


def killed(project: Project, **how: str) -> int:
    child = str(Path(__file__).parent / "kill_child.py")
    done = subprocess.run([sys.executable, child, "apply", "p.plan", "--approve-deletes", "2"], cwd=project.root, env=project.env() | how,
                          capture_output=True, text=True, timeout=60, check=False)  # fmt: skip
    return done.returncode


def test_there_are_as_many_effects_as_are_killed_below(tmp_path: Path, api: StandIn) -> None:
    project = small_run(tmp_path / "project", api)
    assert killed(project, KILL_COUNT=str(tmp_path / "effects")) == 0
    effects = (tmp_path / "effects").read_text().split()
    assert Counter(effects) == {"journal": 15, "create": 6, "copy_within": 1, "replace": 2, "delete": 4}
    assert len(effects) == EFFECTS


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", range(1, EFFECTS + 1))
def test_a_kill_loses_nothing_and_repeats_nothing(at: int, when: str, tmp_path: Path, api: StandIn) -> None:
    project = small_run(tmp_path / "project", api)
    assert killed(project, KILL_AT=str(at), KILL_WHEN=when) == -signal.SIGKILL
    ended = any(entry.event == "end" and entry.particulars["finished"] for entry in read_journal(project.root / ".retainer"))
    project.apply("p.plan", "--approve-deletes", "2", expect=5 if ended else 0)

    vault = {key.split("/")[5]: content for key, content in project.content("vault").items()}
    assert vault == HOSTED | {OLD: video(3)}
    assert [key.rpartition("Rec-")[2] for key in project.content("uploads")] == [f"{OLD}.mp4"]

    entries = read_journal(project.root / ".retainer")
    assert all(count == 1 for count in Counter(each.particulars["row"] for each in entries if each.event in ("copied", "deleted")).values())
    assert not any(each.event in ("failed", "skipped") for each in entries)

    after = pairs(project.plan("after.plan", expect=4))  # the one delete that waited for its copy would empty the store
    assert {pair: decision for pair, decision in after.items() if decision not in ("lapses", "keep")} == {(OLD, "uploads"): "delete"}
    assert sum(decision == "keep" for decision in after.values()) == 3
