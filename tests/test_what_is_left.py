"""What stays behind: bytes that a bucket keeps of what was deleted, stores that may be emptied, and
files of runs that were killed."""

from __future__ import annotations

import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import endpoint_of, make_store
from project import POLICY, ROOM, Project, make_project, pairs, video
from records import entries

from retainer.demo.standin import StandIn

A, B = "a" * 24, "b" * 24


@pytest.mark.parametrize("server", ["seaweedfs", "strict_gcs"])
@pytest.mark.parametrize("versioned", [True, False])
def test_what_a_bucket_keeps_of_what_is_deleted_is_said_in_plan_apply_journal_and_explain(
    server: str, versioned: bool, request: pytest.FixtureRequest, tmp_path: Path, api: StandIn
) -> None:
    project = make_project(tmp_path / "project", api, server, endpoint_of(server, request))
    if versioned:
        there = make_store(
            server, endpoint_of(server, request), tmp_path, name="uploads", bucket="lab-versioned"
        )
        project.stores["uploads"] = replace(there, layout="100ms")
        project.write()
    project.copied_and_due(A, B)
    how = "keeps versions" if versioned else "7 days (soft delete)"
    kept = versioned or server == "strict_gcs"
    out = " ".join(project.run("plan", "--out", "p.plan").stdout.split())
    assert ("hidden, and recoverable: the bucket keeps" in out) is kept
    assert (how in out) is kept
    assert ("hidden and recoverable" in project.run("explain", A).stdout) is kept
    done = project.apply("p.plan", "--approve-deletes", "1")
    assert done["deleted"] == 1
    assert any("is hidden, and recoverable" in each for each in done["said"]) is kept
    (entry,) = (e for e in entries(project.root / ".retainer") if e.event == "deleted")
    assert (how in (entry.particulars["recoverable"] or "")) is kept


def test_a_store_that_may_be_emptied_is_emptied_without_a_lift(local: Project) -> None:
    local.uploaded(A, video(1))
    local.limits = local.limits | {"last_copies": 1}
    local.write(
        POLICY
        | {
            "rules": [
                {
                    "id": "raw",
                    "match": {"room_id": ROOM},
                    "delete": [{"in": "uploads", "after": "1h"}],
                }
            ]
        }
    )
    assert "empty:store:uploads" in local.run("plan", "--out", "p.plan", expect=4).stdout
    path = local.root / "retainer.yaml"
    path.write_text(
        path.read_text().replace("layout: 100ms", "layout: 100ms\n    may_be_emptied: true")
    )
    assert pairs(local.plan())[A, "uploads"] == "delete"
    assert local.apply("p.plan", "--approve-deletes", "1")["deleted"] == 1


def left(project: Project) -> list[Path]:
    """Files with the name of a room in them, but for what is meant to have it."""
    found = []
    for path in project.root.rglob("*"):
        meant = path.name in ("facts.duckdb", "f.duckdb", "rules.yaml")
        with suppress(OSError):
            if path.is_file() and not meant and b"sales-secret" in path.read_bytes():
                found.append(path)
    return found


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("words", [("plan",), ("adopt", "uploads")])
def test_a_run_that_is_ended_leaves_no_names_of_rooms_behind(
    local: Project, number: int, words: tuple[str, ...]
) -> None:
    """SIGKILL: the next run removes them."""
    local.api.add_room({"id": ROOM, "name": "sales-secret"})
    local.hosted(A, video(1))
    local.write(POLICY | {"rules": [POLICY["rules"][0] | {"match": {"room": "sales-*"}}]})
    local.api.faults.fail_first = {"type=track": [429] * 1000}
    local.api.faults.retry_after = 45
    process = subprocess.Popen(
        local.command(*words),
        cwd=local.root,
        env=local.env() | {"TMPDIR": str(local.root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    private = local.root / ".retainer/private"
    ends = time.monotonic() + 20
    while time.monotonic() < ends and not left(local):
        time.sleep(0.05)
    assert left(local) and private.stat().st_mode & 0o777 == 0o700
    process.send_signal(number)
    process.communicate(timeout=30)
    local.api.faults.fail_first = {}
    if number == signal.SIGKILL:
        subprocess.run(
            local.command("plan", "--out", "p.plan"),
            cwd=local.root,
            env=local.env(),
            capture_output=True,
            check=False,
        )
    assert list(private.iterdir()) == []
    assert left(local) == []
    assert not [path for path in local.root.iterdir() if path.name.startswith("retainer-")]
