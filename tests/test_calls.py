"""How many calls to a store something takes: each costs a round trip, and at some clouds money."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from project import Project, make_project, video

from retainer.demo.standin import StandIn
from retainer.stores.wire import Request, Wire

A, B = "a" * 24, "b" * 24


@pytest.fixture
def project(tmp_path: Path, api: StandIn, seaweedfs: str) -> Project:
    return make_project(tmp_path / "project", api, "seaweedfs", seaweedfs)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every call, by its method and the last of its path."""
    made: list[str] = []
    send = Wire._send

    def noted(wire: Wire, request: Request) -> object:
        made.append(f"{request.method} {request.path[-30:]}")
        return send(wire, request)

    monkeypatch.setattr(Wire, "_send", noted)
    yield made


def test_an_apply_of_one_copy_takes_few_calls(project: Project, calls: list[str]) -> None:
    for name, most in ((A, 15), (B, 12)):
        project.hosted(name, video(1))
        project.plan()
        calls.clear()
        project.apply()
        assert len(calls) <= most, "\n".join(calls)


def test_a_short_copy_within_a_cloud_takes_two(project: Project, calls: list[str]) -> None:
    for number in range(20):
        project.uploaded(f"{number:024x}", video(number))
    project.plan()
    calls.clear()
    project.apply()
    assert len([call for call in calls if ".mp4" in call]) == 40, "\n".join(calls)


def test_many_deletes_take_one_list_of_what_makes_them_safe_and_one_call(
    project: Project, calls: list[str]
) -> None:
    plan = project.many_due(40)
    calls.clear()
    assert project.apply_all("p.plan", plan)["deleted"] == 40
    assert not [call for call in calls if ".mp4" in call], "\n".join(calls)
    assert len([call for call in calls if call.startswith("POST ")]) <= 2, "\n".join(calls)
