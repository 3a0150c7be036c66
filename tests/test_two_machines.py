"""Two machines, two runs, one store: locks that hold, what remembers what, and what was announced
(issue 11)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import servers
from conftest import endpoint_of, make_store, make_writer
from project import ROOM, Project, make_project, pairs, video
from records import cut, entries, open_intents

from retainer.demo.standin import StandIn
from retainer.errors import Locked, StoreFailed
from retainer.holding import locked
from retainer.journal import lock as locks
from retainer.journal.folder import FolderBackend
from retainer.journal.journal import Journal
from retainer.journal.lock import LOCK_KEY, Owner, StoreLock, lock_in
from retainer.ports import Seen, StoreWriter
from retainer.stores.local import LocalWriter

A, B, C = "a" * 24, "b" * 24, "c" * 24
OTHER = Owner("0th3r", "elsewhere", "p", "s", "1:2")


@pytest.fixture
def due(local: Project) -> Project:
    """A is due in uploads, its copy in the vault is the witness; B stays in both."""
    local.uploaded(A, video(1))
    local.uploaded(B, video(2), age=timedelta(days=2))
    local.plan()
    local.apply()
    assert local.plan()["header"]["deletes"] == 1
    return local


def put_lock(store: StoreWriter, content: bytes) -> None:
    store.create(LOCK_KEY, iter([content]), len(content), {}, "application/json")


def aged(project: Project, name: str, seconds: float) -> None:
    path = Path(project.stores[name].prefix) / LOCK_KEY
    then = time.time() - seconds
    os.utime(path, (then, then))


# ── locks ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_delete_needs_the_lock_of_the_store_where_its_witness_lies(due: Project) -> None:
    put_lock(due.writer("vault"), OTHER.write(1))
    assert (
        "another apply holds vault (run 0th3r on elsewhere"
        in due.run("apply", "p.plan", "--approve-deletes", "1", expect=6).stderr
    )
    assert len(due.content("uploads")) == 2


def test_copies_alone_need_no_lock_of_the_store_they_are_read_from(due: Project) -> None:
    put_lock(due.writer("uploads"), OTHER.write(1))
    due.hosted(C, video(3))
    due.plan("q.plan")
    assert due.apply("q.plan", expect=6) == {}  # its delete, though not approved, is of uploads


UNREADABLE = {
    "empty": b"",
    "half": b'{"owner": "x"',
    "a list": b"[]",
    "a number": b'{"owner": 5}',
    "no text": b"\xff\xfe",
    "deep": b"[" * 60_000,
    "from the future": b'{"owner": "x", "heartbeat": "2099-01-01T00:00:00Z"}',
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_a_lock_ages_by_its_object_whatever_it_says(due: Project, content: bytes) -> None:
    put_lock(due.writer("uploads"), content)
    aged(due, "uploads", 300)
    assert "300 s ago" in due.run("apply", "p.plan", "--approve-deletes", "1", expect=6).stderr
    aged(due, "uploads", 601)
    assert due.apply("p.plan", "--approve-deletes", "1")["deleted"] == 1


def test_a_copied_state_folder_does_not_outlive_a_living_run(due: Project) -> None:
    journal = Journal(FolderBackend(due.root / ".retainer"), "first", "p", locks_clock)
    first = StoreLock(
        due.writer("vault"), Owner("first", os.uname().nodename, "p", journal.state, journal.place)
    )
    first.take()
    shutil.copytree(due.root / ".retainer", due.root / "copied")
    copy = Journal(FolderBackend(due.root / "copied"), "second", "p", locks_clock)
    second = Owner("second", os.uname().nodename, "p", copy.state, copy.place)
    assert copy.state == journal.state and copy.place != journal.place
    with pytest.raises(Locked):
        StoreLock(due.writer("vault"), second).take()
    journal.close()
    again = Journal(
        FolderBackend(due.root / ".retainer"), "third", "p", locks_clock
    )  # the same file, and its first run is over
    third = StoreLock(
        due.writer("vault"), Owner("third", os.uname().nodename, "p", again.state, again.place)
    )
    third.take()
    assert third.holds


def locks_clock() -> Any:
    from datetime import UTC, datetime

    return datetime.now(UTC)


def test_a_lock_is_judged_by_the_stores_clock_and_not_by_ours(
    due: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_lock(due.writer("vault"), OTHER.write(1))
    monkeypatch.setattr(time, "time", lambda real=time.time: real() + 11 * 60)
    held = lock_in(due.writer("vault"))
    assert held is not None and not held.is_dead


class Flaky(LocalWriter):
    """A folder of which some answers are lost."""

    lost = 0

    def replace(self, seen: Seen, content: bytes) -> Seen | None:
        done = super().replace(seen, content)
        if self.lost:
            self.lost -= 1
            raise StoreFailed("the answer was lost")
        return done


def test_a_heartbeat_whose_answer_was_lost_is_known_as_ones_own(tmp_path: Path) -> None:
    store = Flaky(make_store("local", "", tmp_path))
    lock = StoreLock(store, OTHER)
    lock.take()
    store.lost = 1
    assert lock.beat()  # not renewed as far as anybody knows, and young enough
    assert lock.beat() and lock.beat()
    assert lock.holds
    lock.give_back()
    assert lock_in(store) is None


def test_a_lock_that_somebody_else_took_is_lost(tmp_path: Path) -> None:
    store = make_writer(make_store("local", "", tmp_path))
    lock = StoreLock(store, OTHER)
    lock.take()
    held = lock_in(store)
    assert held is not None
    store.replace(held.look.seen, replace(OTHER, run="thief").write(1))
    assert not lock.beat() and not lock.holds
    lock.give_back()
    assert lock_in(store) is not None


def test_one_silent_store_does_not_end_the_heartbeats_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "BEAT", timedelta(seconds=0.05))
    silent, sound = (
        Flaky(make_store("local", "", tmp_path, name="silent")),
        make_writer(make_store("local", "", tmp_path, name="sound")),
    )
    both = [StoreLock(silent, OTHER), StoreLock(sound, OTHER)]
    for lock in both:
        lock.take()
    asleep, lost = threading.Event(), []
    silent.replace = lambda *_: (asleep.wait(3), None)[1]  # type: ignore[method-assign]
    before = lock_in(sound)
    with locks.Heart(lost.append) as heart:
        for lock in both:
            heart.beat_for(lock)
        time.sleep(0.5)
        after = lock_in(sound)
        assert (
            before is not None
            and after is not None
            and before.look.seen.version != after.look.seen.version
        )
        assert lost == []
        asleep.set()


def test_a_lock_is_renewed_while_another_store_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "BEAT", timedelta(seconds=0.05))
    sound, slow = (
        make_writer(make_store("local", "", tmp_path, name=name)) for name in ("sound", "slow")
    )
    take = StoreLock.take

    def slowly(self: StoreLock) -> None:
        time.sleep(0.5 if self.store_name == "slow" else 0)
        take(self)

    monkeypatch.setattr(StoreLock, "take", slowly)
    seen: list[str] = []
    beaten = StoreLock.beat

    def beat(self: StoreLock) -> bool:
        seen.append(self.store_name)
        return beaten(self)

    monkeypatch.setattr(StoreLock, "beat", beat)
    with locked({"sound": sound, "slow": slow}, OTHER, {}, seen.append) as held:
        assert seen.count("sound") > 2, "it waited for the other one without a beat"
        assert all(lock.holds for lock in held.locks.values())
    assert lock_in(sound) is None and lock_in(slow) is None


def test_deletes_that_rest_on_a_lost_lock_end_and_copies_elsewhere_go_on(
    due: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retainer.apply import deletes as running

    due.hosted(C, video(3))
    due.plan("q.plan")
    delete_all = running.Deletes.make

    def losing(self: running.Deletes, each: running.Each) -> None:
        self._places.lost("vault")
        delete_all(self, each)

    monkeypatch.setattr(running.Deletes, "make", losing)
    done = due.apply("q.plan", "--approve-deletes", "1", expect=7)
    assert (done["copied"], done["deleted"], done["lost_lock"]) == (1, 0, True)
    assert done["resting"]["vault"]["actions"] == 1


def test_many_objects_stop_where_the_lock_was_lost(tmp_path: Path) -> None:
    from retainer.apply.delete import delete_one
    from retainer.apply.places import LockLost
    from retainer.planfile import Action, Planned
    from retainer.ports import Deletion

    store = make_writer(make_store("local", "", tmp_path))
    objects = []
    for number in range(20):
        seen = store.create(f"a/{number}.ts", iter([b"x"]), 1, {}, "video/mp2t").seen
        objects.append(Planned(store.name, seen.key, seen.size, seen.version))
    action = Action(
        0,
        A,
        store.name,
        "delete",
        "r",
        "p:1",
        None,
        None,
        None,
        20,
        False,
        None,
        (),
        "",
        None,
        tuple(objects),
        (),
        (),
        None,
        {},
    )
    outcomes: list[Deletion] = []

    def check() -> None:
        if len(outcomes) == 7:
            raise LockLost("lost")

    with pytest.raises(LockLost):
        delete_one(action, store, outcomes, check, Counter())
    assert (len(outcomes), len(list(store.list()))) == (7, 13)


def test_unlock_takes_only_what_is_dead_or_named(due: Project) -> None:
    assert "nobody holds vault" in due.run("unlock", "vault").stdout
    put_lock(due.writer("vault"), OTHER.write(1))
    assert "--run 0th3r takes it" in due.run("unlock", "vault", expect=6).stderr
    due.run("unlock", "vault", "--run", "another", expect=6)
    due.run("unlock", "vault", "--run", "0th3r")
    assert lock_in(due.writer("vault")) is None
    put_lock(due.writer("vault"), b"\x1b[2Junreadable")
    due.run("unlock", "vault", expect=6)
    aged(due, "vault", 601)
    told = due.run("unlock", "vault").stdout
    assert "_retainer/lock is gone from vault" in told and "\x1b" not in told


@contextmanager
def deaf_s3(folder: Path) -> Iterator[str]:
    """`rclone serve s3`, which takes every write whatever its condition says (1.75.2)."""
    (folder / "lab-plain").mkdir(parents=True)
    (port,) = servers.free_ports(1)
    rclone = Path(sys.executable).parent / "rclone"
    words = [
        str(rclone),
        "serve",
        "s3",
        "--addr",
        f"127.0.0.1:{port}",
        "--auth-key",
        ",".join(servers.ADMIN),
        "--config",
        "/dev/null",
        str(folder),
    ]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
        endpoint = f"http://127.0.0.1:{port}"
        try:
            servers._ready(lambda: servers.s3_client(endpoint).list_objects_v2(Bucket="lab-plain"))
            yield endpoint
        finally:
            process.terminate()


def test_on_a_server_that_ignores_conditions_no_lock_holds_and_nothing_is_deleted(
    tmp_path: Path, api: StandIn
) -> None:
    with deaf_s3(tmp_path / "served") as endpoint:
        project = make_project(
            tmp_path / "project", api, "local", "", uploads_server="moto", uploads_endpoint=endpoint
        )
        project.uploaded(A, video(1))
        project.uploaded(B, video(2), age=timedelta(days=2))
        project.plan()
        assert project.apply()["copied"] == 2
        plan = project.plan("q.plan")
        assert plan["header"]["deletes"] == 1
        done = project.apply("q.plan", "--approve-deletes", "1", expect=7)
        assert (done["deleted"], done["left_deletes"]) == (0, 1)
        assert "ignores conditions on which a lock rests" in done["said"][0]
        assert len(project.content("uploads")) == 2
        assert "nothing deleted" in json.dumps(project.plan("r.plan")["header"]["sources"])
        put_lock(project.writer("uploads"), OTHER.write(1))
        assert (
            project.run("apply", "q.plan", "--approve-deletes", "1", expect=6).stderr.count("0th3r")
            == 1
        )
        held = lock_in(project.writer("uploads"))
        assert held is not None and held.owner == OTHER


# ── what stores remember of journals, and journals of intents ─────────────────────────────────────


def test_a_journal_whose_end_was_cut_holds_the_deletes_back_until_a_person_says_so(
    due: Project,
) -> None:
    cut(due.root / ".retainer", 3)
    plan = due.plan("q.plan", expect=4)
    assert plan["header"]["held_back"] == ["record of vault"]
    assert "--lift record:vault" in due.run("show", "q.plan").stdout
    due.apply("q.plan", "--approve-deletes", "1", expect=4)
    assert len(due.content("uploads")) == 2
    lifted = due.plan("r.plan", "--lift", "record:vault")
    assert due.apply_all("r.plan", lifted)["deleted"] == 1
    assert due.plan("s.plan")["header"]["held_back"] == []


@pytest.mark.parametrize("what", ["journal", "."])
def test_a_journal_that_is_gone_holds_the_deletes_back(due: Project, what: str) -> None:
    path = due.root / ".retainer" / what
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert due.plan("q.plan", expect=4)["header"]["held_back"] == ["record of vault"]


def test_a_plan_of_another_machine_deletes_nothing_where_this_one_has_no_record(
    due: Project,
) -> None:
    (due.root / ".retainer").rename(due.root / "kept-away")
    done = due.apply("p.plan", "--approve-deletes", "1", expect=7)
    assert (done["deleted"], done["left_deletes"]) == (0, 1)
    assert "--lift record:vault" in done["said"][0]


def test_what_another_machine_deleted_counts_here(due: Project) -> None:
    due.limits = {"count": 1, "percent": 100, "bytes": "1TB"}
    due.write()
    plan = due.plan("q.plan")
    assert due.apply_all("q.plan", plan)["deleted"] == 1
    due.uploaded(C, video(3))
    due.plan("copies.plan", expect=None)
    due.apply("copies.plan", expect=None)
    shutil.rmtree(due.root / ".retainer")
    plan = due.plan("r.plan", "--lift", "record:vault", "--lift", "record:uploads", expect=4)
    assert {limit["name"] for limit in plan["header"]["limits"] if limit["breached"]} == {"count"}


def test_a_damaged_memory_of_a_store_holds_the_deletes_back(due: Project) -> None:
    (Path(due.stores["vault"].prefix) / "_retainer" / "record.json").write_text("{")
    assert due.plan("q.plan", expect=4)["header"]["held_back"] == ["record of vault"]


def test_what_a_killed_batch_has_deleted_is_written_down_by_the_next_apply_of_any_plan(
    seaweedfs: str, tmp_path: Path, api: StandIn
) -> None:
    project = make_project(tmp_path / "project", api, "seaweedfs", seaweedfs)
    names = [f"{number:024x}" for number in range(12)]
    for name in names:
        project.uploaded(name, video(1), age=timedelta(days=60))
    project.uploaded(B, video(2), age=timedelta(days=2))
    project.plan()
    project.apply()
    project.limits = {"count": 15, "percent": 100, "bytes": "1TB"}
    project.write()
    only = f"{{asset_id: [{', '.join(names[:10])}]}}"
    assert project.plan("q.plan", "--only", only)["header"]["deletes"] == 10
    words = "apply", "q.plan", "--approve-deletes", "10"
    code = project.killed(*words, KILL_NAME="delete_batch", KILL_WHEN="after")
    assert code == -9 and len(project.content("uploads")) == 3
    assert len(open_intents(project.root / ".retainer")) == 10
    plan = project.plan("r.plan")
    assert {limit["used"] for limit in plan["header"]["limits"] if limit["name"] == "count"} == {12}
    assert project.apply_all("r.plan", plan)["deleted"] == 2
    told = [
        key
        for entry in entries(project.root / ".retainer")
        if entry.event == "deleted"
        for key in entry.particulars["keys"]
    ]
    assert len(told) == len(set(told)) == 12
    assert open_intents(project.root / ".retainer") == []


def test_a_file_that_a_killed_delete_moved_aside_is_seen_and_gone_after_the_next_run(
    due: Project,
) -> None:
    child = (
        "import os, pathlib, sys\nunlink = pathlib.Path.unlink\ndef dying(self, *words, "
        "**named):\n    os.kill(os.getpid(), 9) if '/going/' in str(self) else None\n    return "
        "unlink(self, *words, **named)\npathlib.Path.unlink = dying\nsys.argv = ['retainer', "
        "'apply', 'p.plan', '--approve-deletes', '1']\nfrom retainer.cli import main\nmain()\n"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", child],
            cwd=due.root,
            env=due.env(),
            check=False,
            capture_output=True,
        ).returncode
        == -9
    )
    going = Path(due.stores["uploads"].prefix) / "_retainer" / "going"
    assert len([path for path in going.rglob("*") if path.is_file()]) == 1
    plan = due.plan("q.plan")
    assert pairs(plan)[A, "uploads"] == "delete"
    assert "half deleted" in json.dumps(plan["header"]["sources"])
    done = due.apply_all("q.plan", plan)
    assert (done["deleted"], done["finished"]) == (1, True)
    assert [path for path in going.rglob("*") if path.is_file()] == [] and len(
        due.content("uploads")
    ) == 1


def test_asking_what_a_folder_can_do_changes_nothing(due: Project) -> None:
    aside = Path(due.stores["uploads"].prefix) / "_retainer" / "going" / "x.mp4"
    aside.parent.mkdir(parents=True)
    aside.write_bytes(b"somebody's")
    before = sorted(Path(due.stores["uploads"].prefix).rglob("*"))
    due.writer("uploads").conditions()
    assert sorted(Path(due.stores["uploads"].prefix).rglob("*")) == before


@pytest.mark.parametrize("server", ["seaweedfs", "moto", "strict_gcs", "fake_gcs", "local"])
def test_a_lock_holds_on_every_server_that_honours_conditions(
    server: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    store = make_writer(make_store(server, endpoint_of(server, request), tmp_path))
    lock = StoreLock(store, OTHER)
    lock.take()
    assert lock.holds and lock.beat()
    held = lock_in(store)
    assert (
        held is not None
        and held.owner == OTHER
        and held.look.age is not None
        and held.look.age < timedelta(seconds=30)
    )
    with pytest.raises(Locked):
        StoreLock(make_writer(store.store), replace(OTHER, run="second", state="another")).take()  # type: ignore[attr-defined]
    lock.give_back()
    assert lock_in(store) is None


@pytest.mark.parametrize("answers", [True, False])
def test_an_apply_where_no_facts_are_asks_for_the_rooms_names(
    local: Project, answers: bool, tmp_path: Path
) -> None:
    """Issue 13, `../shared/field/a04*`: planned in CI, applied on a runbook's host."""
    local.api.add_room({"id": ROOM, "name": "sales-1", "template_id": "t1"})
    local.api.add_template({"id": "t1", "name": "classroom"})
    rule = {
        "id": "sales",
        "match": {"room": "sales-*", "template": "class*"},
        "keep": [{"in": "vault", "for": "30d"}],
        "then": "delete",
    }
    local.write({"version": 1, "rules": [rule]})
    local.hosted(A, video(1))
    local.plan()
    (local.root / ".retainer" / "facts.duckdb").unlink()
    local.api.faults.fail_first = {} if answers else {f"/rooms/{ROOM}": [404] * 9}
    done = local.apply()
    assert done["copied"] == 1
    assert any("do not carry the names" in said for said in done["said"]) is not answers
    local.api._rows["recording-assets"].clear()
    local.api._listings.clear()
    later = (datetime.now(UTC) + timedelta(days=40)).strftime("%Y-%m-%dT%H:%M:%SZ")
    # What was not told then is told by a later plan, while 100ms knows the room.
    plan = local.plan("later.plan", "--as-of", later, expect=4)  # it would empty the store
    assert pairs(plan)[A, "vault"] == "delete"
