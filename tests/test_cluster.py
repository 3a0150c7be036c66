"""An apply on many machines: a scheduler and workers as processes, and what becomes of a run when
any of them dies, hangs, or is another than it should be (docs/how-to/many-machines.md)."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import test_ranging
import yaml
from conftest import make_store, make_writer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from distributed import Client
from fault_proxy import Fault, FaultProxy
from machines import Machines, machines
from project import POLICY, Project, make_project, video
from test_shared_state import place_of

import retainer.spreading
from retainer.demo.standin import StandIn
from retainer.journal.entry import CLOSED, Entry
from retainer.journal.journal import read_journal, read_ledger, verify_journal
from retainer.journal.shards import FENCED, Shards
from retainer.journal.shared import SharedBackend
from retainer.model.setting import Store
from retainer.model.shard import Shard

CHILD = str(Path(__file__).parent / "worker_child.py")


@pytest.fixture
def lab() -> Iterator[Machines]:
    with machines() as found:
        yield found


@pytest.fixture
def project(local: Project, tmp_path: Path) -> Project:
    """A project on folders, with its state in a folder that all machines reach."""
    (tmp_path / "state").mkdir()
    local.state = {"url": f"file://{tmp_path}/state"}
    local.write()
    return local


def record_of(project: Project) -> SharedBackend:
    assert project.state is not None
    place = project.state
    more = {name: value for name, value in place.items() if name != "url"}
    store = Store("state", place["url"], **more)
    return SharedBackend(project.root / "reader", store.url, make_writer(store))


def told(project: Project, *events: str) -> list[Entry]:
    return [each for each in read_journal(record_of(project)) if each.event in events]


def is_whole(project: Project, copied: int = 0, deleted: int = 0) -> None:
    """The journal is whole, tells each action once, and nothing is left open or not taken in."""
    verify_journal(record_of(project))
    ledger = read_ledger(record_of(project))
    assert (ledger.open_intents(), ledger.left_over(), ledger.spread) == ([], [], {})
    for event, count in (("copied", copied), ("deleted", deleted)):
        rows = Counter(
            (each.plan, each.particulars["row"])
            for each in told(project, event)
            if not each.particulars.get("partial")
        )
        assert sum(rows.values()) == count, (event, sum(rows.values()))
        assert set(rows.values()) <= {1}, rows.most_common(3)


def hosted(project: Project, count: int, size: int = 3000) -> None:
    for number in range(count):
        project.hosted(f"{number:024x}", video(number, size))


def due(project: Project, count: int) -> dict[str, Any]:
    """A plan with so many deletes, whose copies were made here."""
    project.write(POLICY)
    return project.many_due(count)


def driven(project: Project, lab: Machines, *words: str) -> subprocess.Popen[str]:
    """An apply as a process of its own, of one action at a time on each machine."""
    more = ("--workers", "1", "--format", "json", "--on", lab.address)
    return subprocess.Popen(
        project.command("apply", "p.plan", *more, *words),
        cwd=project.root,
        env=project.env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said_by(driver: subprocess.Popen[str], code: int = 0) -> dict[str, Any]:
    out, err = driver.communicate(timeout=120)
    assert driver.returncode == code, err + out
    return dict(json.loads(out)) if out else {}


def stands_still(pid: int) -> None:
    for _ in range(600):
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T":
            return
        time.sleep(0.05)
    raise AssertionError("it goes on")


# ── where nothing happens ─────────────────────────────────────────────────────────────────────────


def test_two_machines_copy_and_then_delete_what_one_would(
    seaweedfs: str, tmp_path: Path, api: StandIn, lab: Machines
) -> None:
    project = make_project(tmp_path / "project", api, "seaweedfs", seaweedfs)
    project.state = place_of(make_store("seaweedfs", seaweedfs, tmp_path, name="state"))
    project.write()
    lab.worker(project)
    lab.worker(project)
    for number in range(70):
        project.uploaded(f"{number:024x}", video(number))
    project.uploaded("a" * 24, video(99), age=timedelta(days=2))
    project.plan()
    done = project.apply("p.plan", "--on", lab.address)
    assert (done["copied"], done["failed"], done["skipped"]) == (71, [], [])
    hosts = {each.particulars["on"] for each in told(project, "copied")}
    assert hosts == {os.uname().nodename}
    plan = project.plan("q.plan")
    assert plan["header"]["deletes"] == 70
    deleted = project.run(
        "apply", "q.plan", "--on", lab.address, "--approve-deletes", "70", "--format", "json"
    )
    assert json.loads(deleted.stdout)["deleted"] == 70
    assert len(project.content("vault")) == 71 and len(project.content("uploads")) == 1
    is_whole(project, copied=71, deleted=70)
    project.apply("p.plan", "--on", lab.address, expect=5)
    assert project.plan("r.plan")["header"]["deletes"] == 0
    assert project.plan("r.plan")["header"]["copies"] == 0


def test_deletes_follow_the_copies_of_the_same_plan(project: Project, lab: Machines) -> None:
    due(project, 40)
    for number in range(40):
        project.hosted(f"c{number:023x}", video(number))
    plan = project.plan()
    assert (plan["header"]["copies"], plan["header"]["deletes"]) == (40, 40)
    lab.worker(project)
    done = project.apply("p.plan", "--on", lab.address, "--approve-deletes", "40")
    assert (done["copied"], done["deleted"], done["left_deletes"]) == (40, 40, 0)
    events = [each.event for each in told(project, "copied", "deleted") if "on" in each.particulars]
    assert events == ["copied"] * 40 + ["deleted"] * 40
    is_whole(project, copied=81, deleted=40)


def test_what_a_worker_is_given_names_nobody_and_opens_nothing(
    project: Project, lab: Machines
) -> None:
    hosted(project, 3)
    lab.worker(project)
    project.plan()
    project.apply("p.plan", "--on", lab.address)
    given = Shard("f" * 64, "run", "copy", 0, 3, "x").written()
    assert {name: type(value) for name, value in given.items()} == {
        "plan": str, "run": str, "act": str, "first": int, "count": int, "made_with": str,
        "store": str,
    }  # fmt: skip
    said = lab.said("worker-1") + lab.said("scheduler")
    for secret in (project.api.secret, project.api.access_key, "Signature", "://hms", f"{2:024x}"):
        assert secret not in said


@pytest.mark.slow
def test_the_driver_tells_how_far_the_machines_are(project: Project, lab: Machines) -> None:
    hosted(project, 24, 60_000)
    lab.worker(project)
    project.plan()
    project.api.faults.bytes_per_second = 12_000
    words = ("--workers", "8", "--on", lab.address)
    said = project.alone("--log-format", "json", "apply", "p.plan", *words).stderr
    far = [each for each in map(json.loads, said.splitlines()) if "done" in each]
    assert far and all(each["of"] == 24 for each in far), said
    assert 0 < far[0]["done"] < 24, said
    assert any(each["bytes"] > 0 for each in far), said


@pytest.mark.slow
def test_an_open_scheduler_or_one_that_is_not_there_is_refused(project: Project) -> None:
    hosted(project, 1)
    project.plan()
    tcp = project.run("apply", "p.plan", "--on", "tcp://scheduler:8786", expect=64).stderr
    assert "whoever reaches an open scheduler runs programs on its workers" in tcp
    nobody = project.run("apply", "p.plan", "--on", "tcp://127.0.0.1:1", expect=1).stderr
    assert "the scheduler tcp://127.0.0.1:1 does not answer" in nobody


def test_machines_need_a_record_that_all_of_them_reach(local: Project) -> None:
    local.hosted("b" * 24, video(1))
    local.plan()
    alone = local.run("apply", "p.plan", "--on", "tls://scheduler:8786", expect=64).stderr
    assert "`state:` is a folder" in alone


def test_a_worker_is_not_sampled_once_it_has_made_a_share(project: Project, lab: Machines) -> None:
    """distributed 2026.8.0 on CPython 3.11.7: its profiler locked a worker up for good."""
    hosted(project, 1)
    lab.worker(project)
    project.plan()
    with Client(lab.address, set_as_default=False) as client:
        (before,) = client.run(lambda dask_worker: set(dask_worker.periodic_callbacks)).values()
        assert "profile" in before
        project.apply("p.plan", "--on", lab.address)
        (after,) = client.run(lambda dask_worker: set(dask_worker.periodic_callbacks)).values()
    assert before - after == {"profile", "profile-cycle"}


@pytest.mark.slow
def test_the_calls_to_a_store_that_bounds_them_are_bounded_over_all_machines(
    seaweedfs: str, tmp_path: Path, project: Project, lab: Machines
) -> None:
    began: list[float] = []
    with FaultProxy(seaweedfs) as proxy:
        vault = make_store("seaweedfs", seaweedfs, tmp_path, name="vault")
        project.stores["vault"] = replace(vault, endpoint=proxy.url)
        project.write()
        settings = project.root / "retainer.yaml"
        text = settings.read_text().replace("  vault:\n", "  vault:\n    concurrency: 3\n")
        settings.write_text(text)
        hosted(project, 66)
        project.plan()
        lab.worker(project)
        lab.worker(project)

        def counted(_: str, path: str, __: object) -> None:
            if ".mp4" in path:
                began.append(time.monotonic())

        proxy.refuses = counted
        delay = 0.3
        proxy.faults.append(Fault("PUT", r"\.mp4", delay=delay))
        proxy.faults.append(Fault("HEAD", r"\.mp4", delay=delay))
        done = said_by(driven(project, lab, "--workers", "8"))
    assert done["copied"] == 66
    at_once = [sum(start <= each < start + delay * 0.9 for each in began) for start in began]
    assert max(at_once) in (2, 3), Counter(at_once)


@pytest.mark.slow
def test_the_calls_to_100ms_are_bounded_over_all_machines(
    project: Project, lab: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way: set[int] = set()
    at_once: list[int] = []
    answered = project.api._answer

    def counted(method: str, target: str, headers: Any) -> Any:
        if "presigned-url" in target:
            under_way.add(threading.get_ident())
            at_once.append(len(under_way))
            time.sleep(0.1)
            under_way.discard(threading.get_ident())
        return answered(method, target, headers)

    settings = project.root / "retainer.yaml"
    text = settings.read_text().replace("source:\n", "source:\n  concurrency: 2\n")
    settings.write_text(text)
    hosted(project, 66)
    project.plan()
    lab.worker(project)
    lab.worker(project)
    monkeypatch.setattr(project.api, "_answer", counted)
    assert said_by(driven(project, lab, "--workers", "8"))["copied"] == 66
    assert max(at_once) == 2, Counter(at_once)


@contextmanager
def certificates(folder: Path) -> Iterator[dict[str, str]]:
    """What lets Dask speak TLS, and with nobody who has no certificate of this authority."""
    now, name = datetime.now(UTC), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lab")])
    key = ec.generate_private_key(ec.SECP256R1())
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    tls = "DASK_DISTRIBUTED__COMM__TLS"
    yield {
        "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "true",
        f"{tls}__CA_FILE": str(folder / "cert.pem"),
        **{f"{tls}__{who}__CERT": str(folder / "cert.pem") for who in ROLES},
        **{f"{tls}__{who}__KEY": str(folder / "key.pem") for who in ROLES},
    }


ROLES = ("SCHEDULER", "WORKER", "CLIENT")


def test_machines_are_spoken_to_over_tls_and_only_by_who_has_a_certificate(
    project: Project, tmp_path: Path
) -> None:
    hosted(project, 3)
    project.plan()
    with certificates(tmp_path) as tls, machines("tls", **tls) as lab:
        assert lab.address.startswith("tls://")
        lab.worker(project)
        stranger = driven(project, lab)
        _, said = stranger.communicate(timeout=60)
        assert stranger.returncode == 64 and "no certificate" in said, said
        project.environment |= tls
        assert said_by(driven(project, lab))["copied"] == 3
    is_whole(project, copied=3)


# ── who may make a share ──────────────────────────────────────────────────────────────────────────


def test_another_version_on_a_worker_is_refused_with_both(
    project: Project, lab: Machines, tmp_path: Path
) -> None:
    other = tmp_path / "other" / "retainer-9.9.9.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: retainer\nVersion: 9.9.9\n")
    hosted(project, 2)
    lab.worker(project, PYTHONPATH=str(other.parent))
    project.plan()
    said = project.run("apply", "p.plan", "--on", lab.address, expect=5).stderr
    assert "has retainer 9.9.9 (" in said and "and this run retainer 0." in said
    assert project.content("vault") == {}
    assert project.apply()["copied"] == 2
    is_whole(project, copied=2)


def test_a_worker_with_other_rules_makes_nothing(project: Project, lab: Machines) -> None:
    hosted(project, 2)
    project.plan()
    project.write(POLICY | {"rules": POLICY["rules"][:1]})
    lab.worker(project)
    project.write()
    said = project.run("apply", "p.plan", "--on", lab.address, expect=5).stderr
    assert "raw is gone since the plan was made" in said and "the worker on" in said
    assert project.content("vault") == {}


def test_a_worker_that_asks_another_100ms_finds_nothing_lost(
    project: Project, lab: Machines
) -> None:
    """What the other one does not have would else count as lost, and not be tried again."""
    hosted(project, 2)
    project.plan()
    with StandIn() as other:
        here, project.api = project.api, other
        project.write()
        lab.worker(project)
        project.api = here
        project.write()
        said = project.run("apply", "p.plan", "--on", lab.address, expect=10).stderr
    assert "its `source.url` is another one" in said
    assert project.apply()["copied"] == 2
    is_whole(project, copied=2)


def a_sound_one_copies_all(project: Project, lab: Machines, *words: str, **env: str) -> None:
    """What a worker that is started so cannot make, beside it."""
    hosted(project, 200)
    project.plan()
    lab.worker(project, "--preload", CHILD, *words, **env, REST="4")
    lab.worker(project, "--preload", CHILD)
    done = project.apply("p.plan", "--on", lab.address)
    assert (done["copied"], done["failed"]) == (200, [])
    is_whole(project, copied=200)


@pytest.mark.slow
def test_a_worker_that_cannot_reach_a_store_leaves_the_shares_to_others(
    seaweedfs: str, tmp_path: Path, project: Project, lab: Machines
) -> None:
    project.stores["vault"] = make_store("seaweedfs", seaweedfs, tmp_path, name="vault")
    project.write()
    nowhere = {"HTTP_PROXY": "http://127.0.0.1:1", "http_proxy": "http://127.0.0.1:1"}
    a_sound_one_copies_all(project, lab, **nowhere)


@pytest.mark.slow
def test_a_worker_without_credentials_leaves_the_copies_to_others(
    project: Project, lab: Machines
) -> None:
    a_sound_one_copies_all(project, lab, HMS_ACCESS_KEY="", HMS_SECRET="")


@pytest.mark.slow
def test_a_hold_that_only_a_worker_has_withholds_its_deletes(
    project: Project, lab: Machines
) -> None:
    due(project, 3)
    hold = {"id": "LIT-1", "why": "x", "match": {"asset_id": f"{1:024x}"}, "in": "vault"}
    project.write(POLICY | {"holds": [hold]})
    lab.worker(project)
    project.write(POLICY)
    done = project.apply("p.plan", "--on", lab.address, "--approve-deletes", "3")
    assert done["deleted"] == 2 and "LIT-1" in done["skipped"][0]["cause"]
    assert any(f"{1:024x}" in key for key in project.content("uploads"))


@pytest.mark.slow
def test_a_worker_whose_disk_is_full_leaves_the_shares_to_others(
    project: Project, lab: Machines, tmp_path: Path
) -> None:
    full = tmp_path / "full.py"
    full.write_text(
        "import errno, retainer.journal.shared\n"
        "def fetch(*_):\n"
        "    raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "retainer.journal.shared.SharedReading.fetch = fetch\n"
    )
    a_sound_one_copies_all(project, lab, "--preload", str(full))


@pytest.mark.slow
def test_where_no_worker_has_credentials_it_is_told_which_and_what_is_missing(
    project: Project, lab: Machines
) -> None:
    hosted(project, 2)
    project.plan()
    none = {"HMS_ACCESS_KEY": "", "HMS_SECRET": ""}
    lab.worker(project, "--preload", CHILD, **none, REST="1")
    done = project.apply("p.plan", "--on", lab.address, expect=7)
    (failed,) = done["failed"]
    assert "the worker on " in failed["cause"] and "no credentials for the 100ms" in failed["cause"]
    assert failed["hint"] == "start it with HMS_… in its environment"


def test_a_worker_whose_store_is_another_one_writes_nothing_there(
    project: Project, lab: Machines, tmp_path: Path
) -> None:
    hosted(project, 2)
    project.plan()
    lab.worker(project)
    vault = Path(project.stores["vault"].prefix)
    project.apply("p.plan")  # it has an identity from now on
    project.hosted("b" * 24, video(7))
    project.plan("q.plan")
    (vault / "_retainer" / "store.json").write_text('{"id": "%s"}' % ("0" * 32))
    done = project.apply("q.plan", "--on", lab.address, expect=7)
    assert done["copied"] == 0 and len(list(vault.rglob("*.mp4"))) == 2


# ── what dies ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "when", "nth"),
    [
        ("create", "before", 5),
        ("create", "after", 9),
        pytest.param("journal", "before", 12, marks=pytest.mark.slow),
        pytest.param("journal", "after", 21, marks=pytest.mark.slow),
        pytest.param("journal", "after", 2, marks=pytest.mark.slow),
    ],
)
def test_a_worker_that_is_killed_while_it_copies(
    project: Project, lab: Machines, name: str, when: str, nth: int
) -> None:
    hosted(project, 40)
    project.plan()
    how = {"KILL_AT": str(nth)} if name == "journal" else {"KILL_NAME": name, "KILL_NTH": str(nth)}
    killed = lab.worker(project, "--preload", CHILD, KILL_WHEN=when, **how)
    driver = driven(project, lab)
    assert lab.processes[killed].wait(60) == -signal.SIGKILL
    lab.worker(project, "--preload", CHILD)
    done = said_by(driver)
    assert done["failed"] == done["skipped"] == [] and len(project.content("vault")) == 40
    assert (done["copied"], done["already"]) == (40, 0)
    is_whole(project, copied=40)


@pytest.mark.parametrize(
    ("name", "when", "nth"),
    [
        ("delete", "before", 3),
        ("delete", "after", 3),
        pytest.param("delete", "after", 1, marks=pytest.mark.slow),
        pytest.param("delete", "before", 40, marks=pytest.mark.slow),
    ],
)
def test_a_worker_that_is_killed_while_it_deletes(
    project: Project, lab: Machines, name: str, when: str, nth: int
) -> None:
    plan = due(project, 40)
    how = {"KILL_NAME": name, "KILL_NTH": str(nth)}
    killed = lab.worker(project, "--preload", CHILD, KILL_WHEN=when, **how)
    driver = driven(project, lab, "--approve-deletes", str(plan["header"]["deletes"]))
    assert lab.processes[killed].wait(60) == -signal.SIGKILL
    lab.worker(project, "--preload", CHILD)
    done = said_by(driver)
    assert done["failed"] == done["skipped"] == [] and len(project.content("uploads")) == 1
    assert (done["deleted"], done["already"]) == (40, 0)
    assert len(project.content("vault")) == 41
    is_whole(project, copied=41, deleted=40)


@pytest.mark.slow
def test_a_worker_that_stands_still_before_a_delete_deletes_nothing_twice(
    project: Project, lab: Machines
) -> None:
    plan = due(project, 40)
    hung = lab.worker(project, "--preload", CHILD, STOP_EVENT="intent")
    driver = driven(project, lab, "--approve-deletes", str(plan["header"]["deletes"]))
    stands_still(lab.processes[hung].pid)
    lab.worker(project, "--preload", CHILD)
    done = said_by(driver)
    assert (done["deleted"], done["failed"], done["skipped"]) == (40, [], [])
    lab.signal(hung, signal.SIGCONT)
    time.sleep(3)
    assert len(project.content("uploads")) == 1 and len(project.content("vault")) == 41
    is_whole(project, copied=41, deleted=40)


@pytest.mark.slow
def test_a_worker_that_stands_still_is_replaced_and_does_nothing_more(
    project: Project, lab: Machines
) -> None:
    hosted(project, 40)
    project.plan()
    hung = lab.worker(project, "--preload", CHILD, STOP_EVENT="copied")
    driver = driven(project, lab)
    stands_still(lab.processes[hung].pid)
    lab.worker(project, "--preload", CHILD)
    done = said_by(driver)
    assert (done["copied"], done["already"], done["failed"]) == (40, 0, [])
    before = len(list(record_of(project).store.list("shards/")))
    lab.signal(hung, signal.SIGCONT)
    time.sleep(3)
    assert len(list(record_of(project).store.list("shards/"))) == before
    assert len(project.content("vault")) == 40
    is_whole(project, copied=40)


def copied_by_now(project: Project) -> int:
    return len(list(Path(project.stores["vault"].prefix).rglob("*.mp4")))


def copying(project: Project, lab: Machines, pace: int = 100_000) -> subprocess.Popen[str]:
    """An apply of sixty copies that one machine makes, of which three are there; `pace`: so many
    bytes come in a second."""
    hosted(project, 60, 60_000)
    project.plan()
    project.api.faults.bytes_per_second = pace
    lab.worker(project)
    driver = driven(project, lab)
    until_copied(project, 3)
    return driver


def until_copied(project: Project, count: int) -> None:
    for _ in range(600):
        if copied_by_now(project) >= count:
            return
        time.sleep(0.05)
    raise AssertionError("it copies nothing")


@pytest.mark.slow
def test_a_driver_that_is_killed_while_it_copies(project: Project, lab: Machines) -> None:
    driver = copying(project, lab)
    driver.kill()
    driver.communicate()
    project.api.faults.bytes_per_second = None
    done = project.apply("p.plan", "--on", lab.address)  # at once: copies are harmless
    assert done["failed"] == [] and done["copied"] + done["already"] == 60
    assert done["already"] >= 3 and len(project.content("vault")) == 60
    is_whole(project, copied=60)


@pytest.mark.slow
def test_a_driver_that_is_killed_before_a_share_was_begun(project: Project, lab: Machines) -> None:
    plan = due(project, 40)
    deletes = str(plan["header"]["deletes"])
    driver = driven(project, lab, "--approve-deletes", deletes)
    until_given(project)
    driver.kill()
    driver.communicate()
    lab.worker(project, "--preload", CHILD)  # it is given the share at the scheduler, perhaps
    done = project.apply("p.plan", "--approve-deletes", deletes)
    assert (done["deleted"], done["failed"]) == (40, [])
    time.sleep(5)
    given = told(project, "given")
    shards = Shards(record_of(project), given[0].run)
    events = {line.event for each in given for line in shards.lines(each.particulars["name"])}
    assert events == {FENCED, CLOSED}
    is_whole(project, copied=41, deleted=40)


def until_given(project: Project) -> None:
    for _ in range(600):
        if told(project, "given"):
            return
        time.sleep(0.1)
    raise AssertionError("it gives nothing away")


@pytest.mark.slow
def test_a_driver_that_is_killed_while_a_worker_is_about_to_delete(
    project: Project, lab: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = due(project, 40)
    deletes = str(plan["header"]["deletes"])
    hung = lab.worker(project, "--preload", CHILD, STOP_EVENT="intent")
    driver = driven(project, lab, "--approve-deletes", deletes)
    stands_still(lab.processes[hung].pid)
    driver.kill()
    driver.communicate()
    again = driven(project, lab, "--approve-deletes", deletes)
    time.sleep(5)
    again.send_signal(signal.SIGINT)
    assert "may still act" in again.communicate(timeout=30)[1] and again.returncode == 130
    assert len(project.content("uploads")) == 41
    time.sleep(26)  # with what went before: longer than a worker believes in a run
    monkeypatch.setattr(retainer.spreading, "OVER", timedelta(seconds=1))
    done = project.apply("p.plan", "--approve-deletes", deletes)
    assert (done["deleted"], done["failed"]) == (40, [])
    lab.signal(hung, signal.SIGCONT)
    time.sleep(3)
    is_whole(project, copied=41, deleted=40)


@pytest.mark.slow
@pytest.mark.parametrize("ends", ["Ctrl-C", "the scheduler is killed"])
def test_the_stores_stay_locked_to_others_while_a_delete_may_arrive(
    ends: str, project: Project, lab: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another project would take what the delete rests on."""
    deletes = str(due(project, 40)["header"]["deletes"])
    hung = lab.worker(project, "--preload", CHILD, STOP_EVENT="intent")
    driver = driven(project, lab, "--approve-deletes", deletes)
    stands_still(lab.processes[hung].pid)
    if ends == "Ctrl-C":
        driver.send_signal(signal.SIGINT)
    else:
        lab.signal(0, signal.SIGKILL)
    driver.communicate(timeout=90)
    assert driver.returncode == (130 if ends == "Ctrl-C" else 1)

    other = Project(tmp_path / "other", project.api, dict(project.stores))
    other.root.mkdir()
    keep = {"match": "all", "keep": [{"in": "uploads", "for": "2y"}]}
    go = {"match": {"type": "room-composite"}, "delete": [{"in": "vault", "after": "30d"}]}
    other.write({"version": 1, "rules": [{"id": "keep", **keep}, {"id": "go", **go}]})
    plan = other.plan("q.plan", "--lift", "record:vault", "--lift", "record:uploads")
    approve = "--approve-deletes", str(plan["header"]["deletes"])
    assert plan["header"]["deletes"] == 40
    assert "another apply holds" in other.run("apply", "q.plan", *approve, expect=6).stderr

    monkeypatch.setattr(retainer.spreading, "OVER", timedelta(seconds=1))
    done = project.apply("p.plan", "--approve-deletes", deletes)
    assert (done["deleted"], done["failed"]) == (40, [])
    lab.signal(hung, signal.SIGCONT)
    time.sleep(3)
    is_whole(project, copied=41, deleted=40)


@pytest.mark.slow
def test_a_scheduler_that_is_killed(project: Project, lab: Machines) -> None:
    driver = copying(project, lab)
    lab.signal(0, signal.SIGKILL)
    _, said = driver.communicate(timeout=90)
    assert driver.returncode == 1 and "was lost" in said, said
    project.api.faults.bytes_per_second = None
    done = project.apply("p.plan")  # without machines
    assert done["failed"] == [] and done["already"] >= 3 and len(project.content("vault")) == 60
    is_whole(project, copied=60)


@pytest.mark.slow
def test_ctrl_c_ends_the_workers_too(project: Project, lab: Machines) -> None:
    driver = copying(project, lab)
    driver.send_signal(signal.SIGINT)
    assert driver.wait(30) == 130
    time.sleep(6)
    there = copied_by_now(project)
    time.sleep(3)
    assert copied_by_now(project) == there < 60
    project.api.faults.bytes_per_second = None
    done = project.apply("p.plan", "--on", lab.address)
    assert done["copied"] + done["already"] == 60 and done["failed"] == []
    is_whole(project, copied=60)


@pytest.mark.slow
def test_a_worker_that_loses_the_state_stops_and_another_goes_on(
    seaweedfs: str, tmp_path: Path, api: StandIn, lab: Machines
) -> None:
    project = make_project(tmp_path / "project", api, "local", "")
    state = make_store("seaweedfs", seaweedfs, tmp_path, name="state")
    project.state = place_of(state)
    hosted(project, 60, 60_000)
    project.api.faults.bytes_per_second = 200_000
    with FaultProxy(seaweedfs) as proxy:
        project.state = place_of(replace(state, endpoint=proxy.url))
        project.write()
        lab.worker(project, "--preload", CHILD)
        project.state = place_of(state)
        project.write()
        project.plan()
        driver = driven(project, lab)
        until_copied(project, 3)
        proxy.down()
        lab.worker(project, "--preload", CHILD)
        project.api.faults.bytes_per_second = None
        out, said = driver.communicate(timeout=200)
        proxy.up()
    assert driver.returncode == 0, said + out
    assert len(project.content("vault")) == 60
    is_whole(project, copied=60)


@pytest.mark.slow
def test_two_drivers_with_one_plan_are_one(project: Project, lab: Machines) -> None:
    driver = copying(project, lab, 300_000)
    other = replace(project, root=project.root.parent / "other")
    other.root.mkdir()
    other.write_from(project)
    (other.root / "p.plan").write_bytes((project.root / "p.plan").read_bytes())
    said = other.run("apply", "p.plan", "--on", lab.address, expect=6).stderr
    assert "another apply holds" in said
    assert driver.wait(60) == 0
    is_whole(project, copied=60)


# ── what stays with the driver ────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_a_freeze_stops_the_deletes_of_all_machines(project: Project, lab: Machines) -> None:
    plan = due(project, 40)
    driver = driven(project, lab, "--approve-deletes", str(plan["header"]["deletes"]))
    until_given(project)
    project.run("freeze", "--reason", "INC-1")
    time.sleep(20)
    lab.worker(project)
    done = said_by(driver, 7)
    assert (done["deleted"], done["left_deletes"]) == (0, 40)
    assert any("INC-1" in each for each in done["said"]), done["said"]
    assert len(project.content("uploads")) == 41
    is_whole(project, copied=41)


def test_a_hold_that_only_the_driver_knows_is_kept_by_all_machines(
    project: Project, lab: Machines
) -> None:
    plan = due(project, 40)
    lab.worker(project)
    held = {"id": "LIT-1", "why": "x", "match": {"asset_id": f"{3:024x}"}, "in": "vault"}
    project.write(POLICY | {"holds": [held]})
    deletes = str(plan["header"]["deletes"])
    done = project.apply("p.plan", "--on", lab.address, "--approve-deletes", deletes)
    assert done["deleted"] == 39 and [each["asset_id"] for each in done["skipped"]] == [f"{3:024x}"]
    assert len(project.content("uploads")) == 2
    is_whole(project, copied=41, deleted=39)


def test_what_changed_is_skipped_and_too_much_of_it_pulls_the_brake_of_all_machines(
    project: Project, lab: Machines
) -> None:
    plan = due(project, 140)
    lab.worker(project)
    for path in Path(project.stores["uploads"].prefix).rglob("*.mp4"):
        path.write_bytes(path.read_bytes() + b"!")
    deletes = str(plan["header"]["deletes"])
    done = project.apply(
        "p.plan", "--on", lab.address, "--approve-deletes", deletes, "--workers", "1", expect=7
    )
    assert done["deleted"] == 0 and 20 <= len(done["skipped"]) <= 44
    assert done["left_deletes"] == 140 - len(done["skipped"])
    assert len(project.content("uploads")) == 141


# ── what stands in examples/cluster ───────────────────────────────────────────────────────────────

EXAMPLES = Path(__file__).parents[1] / "examples" / "cluster"


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def tools_of(folder: Path, **more: str) -> str:
    """A PATH on which `retainer` and `dask` are those of this environment."""
    folder.mkdir(parents=True)
    for name, text in {
        "retainer": f'exec {sys.executable} -m retainer "$@"',
        "python3": f'exec {sys.executable} "$@"',
        "dask": f'exec {Path(sys.executable).with_name("dask")} "$@"',
        **more,
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.slow
def test_the_script_for_one_machine_applies_a_plan(project: Project, tmp_path: Path) -> None:
    hosted(project, 3)
    project.plan()
    done = subprocess.run(
        [str(EXAMPLES / "one-machine.sh"), "p.plan", "2", "--format", "json"],
        cwd=project.root,
        env=project.env() | {"PATH": tools_of(tmp_path / "bin"), "PORT": free_port()},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout[done.stdout.index("{") :])["copied"] == 3
    is_whole(project, copied=3)


@pytest.mark.slow
def test_the_script_for_a_fleet_applies_a_plan(project: Project, tmp_path: Path) -> None:
    hosted(project, 3)
    project.plan()
    hosts = tmp_path / "hosts"
    ssh = (
        f'while [ "$1" != one ] && [ "$1" != two ]; do shift; done; echo "$1" >> {hosts}; eval "$2"'
    )
    with certificates(tmp_path) as tls:
        done = subprocess.run(
            [str(EXAMPLES / "fleet.sh"), "p.plan", "--format", "json"],
            cwd=project.root,
            env=project.env()
            | tls
            | {"PATH": tools_of(tmp_path / "bin", ssh=ssh), "PORT": free_port()}
            | {"HOSTS": "one two", "SCHEDULER_HOST": "127.0.0.1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout[done.stdout.index("{") :])["copied"] == 3
    assert sorted(hosts.read_text().split()) == ["one", "two"]
    is_whole(project, copied=3)


@pytest.mark.slow
def test_the_cluster_for_kubernetes_is_one_that_its_operator_takes(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(tmp_path)]
    if subprocess.run([*pip, "dask-kubernetes==2026.3.0"], check=False).returncode:
        pytest.skip("the registry cannot be reached")
    wheel = zipfile.ZipFile(next(tmp_path.glob("*.whl")))
    name = "dask_kubernetes/operator/deployment/helm/dask-kubernetes-operator/crds/daskcluster.yaml"
    definition = yaml.safe_load(wheel.read(name))
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    cluster = yaml.safe_load((EXAMPLES / "daskcluster.yaml").read_text())
    assert cluster["apiVersion"] == f"{definition['spec']['group']}/v1"
    assert cluster["kind"] == definition["spec"]["names"]["kind"]
    wanted = closed(schema)["properties"]["spec"]
    jsonschema.validate(cluster["spec"], wanted)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**cluster["spec"], "workers": 4}, wanted)
    for role in ("worker", "scheduler"):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": role}}
        (tmp_path / "pod.yaml").write_text(
            yaml.safe_dump(pod | {"spec": cluster["spec"][role]["spec"]})
        )
        validate = [str(Path(sys.executable).with_name("kubernetes-validate")), "--strict"]
        subprocess.run([*validate, str(tmp_path / "pod.yaml")], check=True)


def closed(schema: Any) -> Any:
    """A schema of Kubernetes as its server reads it: what it does not name is an error."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: closed(value) for name, value in schema.items()}
    is_closed = made.get("type") == "object" and "properties" in made
    if is_closed and not made.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


def test_every_row_of_the_page_is_a_test() -> None:
    page = (Path(__file__).parents[1] / "docs" / "how-to" / "many-machines.md").read_text()
    named = re.findall(r"^\| .* \| `(test_\w+)` \|$", page, re.MULTILINE)
    there = globals().keys() | vars(test_ranging).keys()
    assert len(named) == 19 + 11 and [each for each in named if each not in there] == []
