"""Small servers that speak S3 and honour little of it: what they lack is found out, named once, and
nothing is overwritten or deleted there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import servers
from conftest import make_store, make_writer
from project import Project, make_project, video

from retainer.demo.standin import StandIn

pytestmark = pytest.mark.slow
A = "a" * 24
HONOURED = {
    "localbucket": {"create": True, "replace": False, "delete": False, "batch_delete": False},
    "nanio": {"create": False, "replace": False, "delete": False, "batch_delete": False},
    "rclone": {"create": False, "replace": False, "delete": False, "batch_delete": False},
}
"""localbucket 1.2.1, nanio 0.1.7, rclone 1.75.2."""


@pytest.fixture(params=HONOURED)
def weak(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    with servers.weak(request.param) as endpoint:
        yield request.param, endpoint


def test_what_a_weak_server_honours_is_found_out(weak: tuple[str, str], tmp_path: Path) -> None:
    name, endpoint = weak
    abilities = make_writer(make_store("seaweedfs", endpoint, tmp_path)).conditions()
    found = {ability: getattr(abilities, ability) for ability in HONOURED[name]}
    assert found == HONOURED[name]
    assert not abilities.lock and not abilities.checksum and not abilities.copy


@pytest.fixture
def project(weak: tuple[str, str], tmp_path: Path, api: StandIn) -> Project:
    """Both stores on the weak server, and a folder that is none."""
    found = make_project(tmp_path / "project", api, "seaweedfs", weak[1])
    found.uploaded(A, video(1))
    found.uploaded("b" * 24, video(2), age=timedelta(days=2))
    return found


def test_nothing_is_overwritten_or_deleted_on_a_weak_server(
    project: Project, weak: tuple[str, str]
) -> None:
    creates = HONOURED[weak[0]]["create"]
    before = project.content("uploads")
    project.plan()
    done = project.apply(expect=0 if creates else 7)
    assert (done["copied"], done["failed"]) == (2 if creates else 0, [])
    plan = project.plan("again.plan", expect=None)
    approved = str(plan["header"]["deletes"])
    done = project.apply("again.plan", "--approve-deletes", approved, expect=None)
    assert done["deleted"] == 0 and project.content("uploads") == before
    told = " ".join(project.run("plan", expect=None).stdout.split())
    assert told.count("honours no conditional") >= 1
    if not creates:
        assert told.count("Not possible for that: 2 copies") == 1


def test_a_weak_server_is_a_source(weak: tuple[str, str], tmp_path: Path, api: StandIn) -> None:
    project = make_project(
        tmp_path / "project", api, "local", "", uploads_server="seaweedfs", uploads_endpoint=weak[1]
    )
    project.stores["uploads"] = replace(project.stores["uploads"], region="us-east-1")
    project.write()
    project.uploaded(A, video(1))
    project.uploaded("b" * 24, video(2, 700_000))
    project.plan()
    assert project.apply()["copied"] == 2
    assert sorted(project.content("vault").values()) == sorted([video(1), video(2, 700_000)])
