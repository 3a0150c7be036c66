"""Servers that die in the middle of an apply (SIGKILL) and come back with what they have on their
disk: that of the stores, that of the record, and 100ms.

`RETAINER_ROUNDS=40 pytest -m slow tests/test_dying_servers.py` lets them die more often.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
import servers
from project import POLICY, Project, make_project, video

from retainer.demo.standin import StandIn

ROUNDS = int(os.environ.get("RETAINER_ROUNDS", "4"))
YOUNG = "f" * 24
MANY = 16
"""New recordings in each round, half of them uploads that are due once they are copied."""


def add(project: Project, number: int) -> dict[str, bytes]:
    """More recordings: what each of them is, by its id."""
    found = {}
    for each in range(MANY):
        name = f"{number * MANY + each + 1:024x}"
        found[name] = video(each)
        if each % 2:
            project.hosted(name, found[name], age=timedelta(days=1))
        else:
            project.uploaded(name, found[name], age=timedelta(days=40))
    return found


def is_upload(name: str) -> bool:
    return int(name, 16) % 2 == 1


def applying(project: Project, name: str) -> subprocess.Popen[bytes]:
    deletes = str(project.plan(name, expect=None)["header"]["deletes"])
    command = project.command("apply", name, "--approve-deletes", deletes, "--patience", "4s")
    quiet = subprocess.DEVNULL
    return subprocess.Popen(
        command, cwd=project.root, env=project.env(), stdout=quiet, stderr=quiet
    )


def check(project: Project, wanted: dict[str, bytes]) -> None:
    """What lies in the vault is what was recorded, and an upload is only gone where it lies
    there."""
    vault = {key.split("/")[5]: content for key, content in project.content("vault").items()}
    assert all(wanted[name] == content for name, content in vault.items())
    uploads = {key.rpartition("Rec-")[2][:24] for key in project.content("uploads")}
    assert uploads | vault.keys() >= {name for name in wanted if is_upload(name)}


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["stores", "record", "100ms"])
def test_a_server_that_dies_in_the_middle_takes_nothing_with_it(
    victim: str, tmp_path: Path
) -> None:
    chance = random.Random(victim)
    with ExitStack() as stack:
        api = stack.enter_context(StandIn())
        stores = stack.enter_context(servers.running_seaweedfs(buckets=["lab-plain"]))
        record = stack.enter_context(servers.running_seaweedfs(buckets=["lab-state"]))
        project = make_project(tmp_path / "project", api, "seaweedfs", stores.endpoint)
        project.state = {"url": "s3://lab-state/r", "endpoint": record.endpoint}
        project.state |= {"region": "us-east-1"}
        project.limits = {"count": 5000, "percent": 100, "bytes": "1TB"}
        project.write(POLICY)
        project.uploaded(YOUNG, video(9), age=timedelta(days=2))  # so that nothing is emptied
        dies: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "stores": (stores.kill, stores.start),
            "record": (record.kill, record.start),
            "100ms": (lambda: api.__exit__(), api.__enter__),
        }
        wanted = {YOUNG: video(9)}
        ended = []
        for number in range(ROUNDS):
            wanted |= add(project, number)
            run = applying(project, f"{number}.plan")
            time.sleep(chance.uniform(0.6, 3.0))
            kill, back = dies[victim]
            kill()
            time.sleep(chance.uniform(0.0, 6.0))
            back()
            run.wait(120)
            ended.append(run.returncode)
            check(project, wanted)
        assert set(ended) <= {0, 1, 5, 6, 7}, ended
        for number in range(6):  # a lock of a run that could not say farewell ends by itself
            run = applying(project, f"last-{number}.plan")
            if run.wait(120) == 6:
                time.sleep(30)
        assert project.plan("none.plan", expect=None)["header"]["copies"] == 0
        check(project, wanted)
        vault = {key.split("/")[5] for key in project.content("vault")}
        assert vault >= wanted.keys()
        left = {key.rpartition("Rec-")[2][:24] for key in project.content("uploads")}
        assert left == {YOUNG}, "what was due is gone by now"
        project.run("audit", "verify", "--stores")
