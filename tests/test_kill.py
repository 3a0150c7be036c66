"""A SIGKILL before and after every effect of a small run, each followed by a resume: nothing lost,
nothing done twice."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import servers
from conftest import endpoint_of, make_writer
from project import POLICY, Project, make_project, pairs, video
from records import entries

from retainer.demo.standin import StandIn
from retainer.errors import StoreFailed
from retainer.journal.entry import Entry
from retainer.journal.journal import read_journal, verify_journal
from retainer.journal.ledger import Ledger
from retainer.journal.shared import SharedBackend
from retainer.model.outcome import LeftOver
from retainer.model.setting import Store

HOSTED = {"a1" + "0" * 22: video(1), "a2" + "0" * 22: video(2)}
OLD = "b1" + "0" * 22
ERASED = ("e1" + "0" * 22, "e2" + "0" * 22)
EFFECTS = 45


def small_run(root: Path, api: StandIn, *, shared: bool = False) -> Project:
    """Two copies from 100ms, one between folders, and two deletes for an erasure, in one plan."""
    project = make_project(root, api, "local", "")
    if shared:
        (root / "state").mkdir()
        project.state = {"url": f"file://{root}/state"}
    project.write(
        POLICY
        | {
            "erasures": [
                {"id": "DSR-1", "why": "a request", "match": {"session_id": "5e55" + "e" * 20}}
            ]
        }
    )
    for name, content in HOSTED.items():
        project.hosted(name, content)
    project.uploaded(OLD, video(3))
    for name in ERASED:
        project.uploaded(name, video(4), session_id="5e55" + "e" * 20, age=timedelta(days=9))
    plan = project.plan()
    assert (plan["header"]["copies"], plan["header"]["deletes"]) == (3, 2)
    return project


def killed(project: Project, **how: str) -> int:
    return project.killed("apply", "p.plan", "--approve-deletes", "2", **how)


def test_there_are_as_many_effects_as_are_killed_below(tmp_path: Path, api: StandIn) -> None:
    project = small_run(tmp_path / "project", api)
    assert killed(project, KILL_COUNT=str(tmp_path / "effects")) == 0
    effects = (tmp_path / "effects").read_text().split()
    assert Counter(effects) == {"journal": 25, "create": 12, "replace": 3, "delete": 5}
    assert len(effects) == EFFECTS


@pytest.mark.parametrize(
    ("at", "when"),
    [(at, "before") for at in range(1, EFFECTS + 1)]
    + [
        pytest.param(at, "after", marks=[pytest.mark.slow] if at % 3 else [])
        for at in range(1, EFFECTS + 1)
    ],
)
def test_a_kill_loses_nothing_and_repeats_nothing(
    at: int, when: str, tmp_path: Path, api: StandIn
) -> None:
    project = small_run(tmp_path / "project", api)
    assert killed(project, KILL_AT=str(at), KILL_WHEN=when) == -signal.SIGKILL
    ended = any(
        entry.event == "end" and entry.particulars["finished"]
        for entry in entries(project.root / ".retainer")
    )
    project.apply("p.plan", "--approve-deletes", "2", expect=5 if ended else 0)

    vault = {key.split("/")[5]: content for key, content in project.content("vault").items()}
    assert vault == HOSTED | {OLD: video(3)}
    assert [key.rpartition("Rec-")[2] for key in project.content("uploads")] == [f"{OLD}.mp4"]

    told = entries(project.root / ".retainer")
    assert all(
        count == 1
        for count in Counter(
            each.particulars["row"] for each in told if each.event in ("copied", "deleted")
        ).values()
    )
    assert not any(each.event in ("failed", "skipped") for each in told)

    after = pairs(
        project.plan("after.plan", expect=4)
    )  # the one delete that waited for its copy would empty the store
    assert {
        pair: decision for pair, decision in after.items() if decision not in ("lapses", "keep")
    } == {(OLD, "uploads"): "delete"}
    assert sum(decision == "keep" for decision in after.values()) == 3


IN_A_STORE = 75
"""Effects where the record lies in a store, which has a lock and an object for each line."""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    "at",
    [
        pytest.param(at, marks=[pytest.mark.slow] if at % 4 else [])
        for at in range(1, IN_A_STORE + 1)
    ],
)
def test_a_kill_loses_nothing_where_the_record_lies_in_a_store(
    at: int, when: str, tmp_path: Path, api: StandIn
) -> None:
    project = small_run(tmp_path / "project", api, shared=True)
    code = killed(project, KILL_AT=str(at), KILL_WHEN=when)
    assert code == -signal.SIGKILL
    place = Store("state", project.state["url"]) if project.state else None
    assert place is not None
    backend = SharedBackend(tmp_path / "reader", place.url, make_writer(place))
    ended = any(
        each.event == "end" and each.particulars["finished"] for each in read_journal(backend)
    )
    project.apply("p.plan", "--approve-deletes", "2", expect=5 if ended else 0)
    vault = {key.split("/")[5]: content for key, content in project.content("vault").items()}
    assert vault == HOSTED | {OLD: video(3)}
    assert [key.rpartition("Rec-")[2] for key in project.content("uploads")] == [f"{OLD}.mp4"]
    verify_journal(backend)
    assert project.plan("after.plan", expect=4)["header"]["copies"] == 0


@pytest.mark.parametrize("server", ["seaweedfs", "moto"])
def test_what_a_dead_run_left_half_uploaded_is_given_up_and_nothing_else(
    server: str, request: pytest.FixtureRequest, tmp_path: Path, api: StandIn
) -> None:
    endpoint = endpoint_of(server, request)
    project = make_project(tmp_path / "project", api, server, endpoint)
    name, content = "a" * 24, video(1, 17 << 20)
    project.hosted(name, content)
    project.plan()
    vault, client = project.stores["vault"], servers.s3_client(endpoint)
    foreign = client.create_multipart_upload(
        Bucket=vault.bucket, Key=vault.prefix + "somebody-elses"
    )["UploadId"]

    def open_uploads() -> set[str]:
        return {
            each["UploadId"]
            for each in client.list_multipart_uploads(Bucket=vault.bucket, Prefix=vault.prefix).get(
                "Uploads", ()
            )
        }

    assert killed(project, KILL_EVENT="upload") == -signal.SIGKILL
    assert len(open_uploads() - {foreign}) == 1
    assert project.apply()["copied"] == 1
    assert open_uploads() == {foreign}
    assert list(project.content("vault").values()) == [content]
    assert [
        entry.event
        for entry in entries(project.root / ".retainer")
        if entry.event in ("upload", "abandoned", "copied")
    ] == ["upload", "abandoned", "upload", "copied"]


def test_an_upload_is_left_over_until_it_became_a_copy_or_was_given_up() -> None:
    def entry(run: str, event: str, **particulars: Any) -> Entry:
        return Entry(datetime.now(UTC), run, "p", event, particulars)

    def upload(run: str, row: int, name: str) -> Entry:
        return entry(run, "upload", row=row, store="vault", key=f"k{row}", upload=name)

    before = [
        upload("r1", 0, "u0"),
        entry("r1", "copied", row=0, record={}),
        upload("r1", 1, "u1"),
        upload("r1", 2, "u2"),
        upload("r1", 2, "u3"),
        entry("r1", "copied", row=2, record={}),
        upload("r2", 1, "u4"),
        upload("r2", 5, "u5"),
        entry("r3", "abandoned", upload="u5"),
    ]
    ledger = Ledger()
    for each in before:
        ledger.add(each)
    assert ledger.left_over() == [LeftOver("vault", "k1", "u1"), LeftOver("vault", "k1", "u4")]


def test_a_folder_gives_up_only_its_own_half_written_file(tmp_path: Path, api: StandIn) -> None:
    project = make_project(tmp_path / "project", api, "local", "")
    writer = project.writer("vault")
    begun: list[str] = []

    def chunks() -> Iterator[bytes]:
        yield b"half"
        (half,) = (path for path in Path(project.stores["vault"].prefix).rglob(begun[0]))
        half.with_name("f" * 32).write_bytes(half.read_bytes())  # what a kill would leave
        half.with_name("0" * 32).write_bytes(b"another run's")
        yield b"whole"

    writer.create("a.mp4", chunks(), None, {}, "video/mp4", begun.append)
    writer.abandon("a.mp4", "f" * 32)
    writer.abandon("a.mp4", begun[0])  # gone already
    left = {path.name for path in Path(project.stores["vault"].prefix).rglob("*") if path.is_file()}
    assert left == {"a.mp4", "0" * 32}
    with pytest.raises(StoreFailed):
        writer.abandon("a.mp4", "../../a.mp4")
