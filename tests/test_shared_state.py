"""One state that two machines share: the same record, the same limits, one lock, and who said so."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import endpoint_of, make_store, make_writer
from fault_proxy import FaultProxy
from project import POLICY, Project, video

from retainer.journal.entry import CLOSED, Entry
from retainer.journal.journal import read_journal, verify_journal
from retainer.journal.shared import SharedBackend
from retainer.model.setting import Store

A, B, C = "a" * 24, "b" * 24, "c" * 24
SERVERS = ("seaweedfs", "fake_gcs")


def place_of(store: Store) -> dict[str, Any]:
    said = {"url": store.url, "endpoint": store.endpoint, "region": store.region}
    return {key: value for key, value in said.items() if value}


@pytest.fixture(params=SERVERS)
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    endpoint = endpoint_of(request.param, request)
    return make_store(request.param, endpoint, tmp_path, name="state")


def machines_of(local: Project, state: Store) -> tuple[Project, Project]:
    local.state = place_of(state)
    local.write()
    other = replace(local, root=local.root.parent / "another-machine")
    other.write()
    return local, other


@pytest.fixture
def machines(local: Project, state: Store) -> tuple[Project, Project]:
    """Two folders with the same settings, as on two machines."""
    return machines_of(local, state)


def record(state: Store, tmp_path: Path) -> SharedBackend:
    return SharedBackend(tmp_path / "reader", state.url, make_writer(state))


def lines(state: Store, tmp_path: Path) -> list[Entry]:
    return [each for each in read_journal(record(state, tmp_path)) if each.event != CLOSED]


def test_what_one_machine_did_the_other_knows(
    machines: tuple[Project, Project], state: Store, tmp_path: Path
) -> None:
    one, two = machines
    one.uploaded(A, video(1))
    one.uploaded(B, video(2))
    one.uploaded(C, video(3), age=timedelta(days=2))
    one.plan()
    assert one.apply()["copied"] == 3
    one.limits["count"] = two.limits["count"] = 2
    one.write()
    two.write()
    plan = two.plan("q.plan")  # no record is missing there
    assert (plan["header"]["deletes"], plan["header"]["held_back"]) == (2, [])
    assert plan["header"]["remembered"] == "journal"
    only = one.plan("one.plan", "--only", f"{{asset_id: {A}}}")
    assert one.apply_all("one.plan", only)["deleted"] == 1
    one.uploaded("d" * 24, video(4))
    one.plan("r.plan", expect=None)
    one.apply("r.plan", expect=None)
    breached = two.plan("s.plan", expect=4)["header"]["limits"]
    assert {(each["name"], each["used"]) for each in breached if each["breached"]} == {("count", 3)}
    assert not (one.root / ".retainer" / "journal").exists()
    verify_journal(record(state, tmp_path))


def test_a_run_that_was_killed_is_gone_on_with_on_another_machine(
    machines: tuple[Project, Project], state: Store, tmp_path: Path
) -> None:
    one, two = machines
    for number in range(6):
        one.hosted(f"{number:024x}", video(number))
    one.plan()
    (two.root / "p.plan").write_bytes((one.root / "p.plan").read_bytes())
    assert one.killed("apply", "p.plan", KILL_AT="20", KILL_WHEN="after") == -signal.SIGKILL
    held = two.run("apply", "p.plan", expect=6).stderr
    assert "another apply holds state (run " in held and "unless it is renewed" in held
    run = held.split("run ", 1)[1].split()[0]
    two.run("unlock", "state", expect=6)
    two.run("unlock", "state", "--run", run)
    two.run("unlock", "vault", "--run", run)
    done = two.apply()
    assert done["failed"] == [] and done["copied"] + done["already"] == 6
    told = [each.particulars["row"] for each in lines(state, tmp_path) if each.event == "copied"]
    assert sorted(set(told)) == list(range(6)) and len(told) <= 7
    assert len(two.content("vault")) == 6
    one.apply(expect=5)  # its end is known there too
    assert "applied already" in one.run("apply", "p.plan", expect=5).stderr
    verify_journal(record(state, tmp_path))


@pytest.mark.slow
def test_two_applies_at_once_are_one_after_the_other_with_wait(
    machines: tuple[Project, Project], state: Store
) -> None:
    one, two = machines
    for number in range(20):
        one.hosted(f"{number:024x}", video(number, 100_000))
    one.plan()
    one.api.faults.bytes_per_second = 20_000
    first = subprocess.Popen(
        one.command("apply", "p.plan"), cwd=one.root, env=one.env(), stderr=subprocess.DEVNULL
    )
    writer = make_writer(state)
    for _ in range(600):
        if writer.look("_retainer/lock") is not None:
            break
        time.sleep(0.05)
    two.plan("q.plan")
    two.run("apply", "q.plan", expect=6)
    one.api.faults.bytes_per_second = None
    done = two.apply("q.plan", "--wait", "2m")
    assert first.wait(60) == 0
    assert done["failed"] == [] and len(two.content("vault")) == 20


def test_a_freeze_of_one_machine_holds_on_the_other(machines: tuple[Project, Project]) -> None:
    one, two = machines
    one.copied_and_due(A, B)
    assert "s3://" in one.run("freeze", "--reason", "INC-1").stdout or "gs://" in str(one.state)
    assert "INC-1" in two.run("freeze").stdout
    plan = two.plan("q.plan", expect=4)
    assert plan["header"]["frozen"].endswith("INC-1")
    two.run("freeze", "--end", "--reason", "it is understood")
    assert one.plan("r.plan")["header"]["held_back"] == []


@pytest.fixture
def away(local: Project, seaweedfs: str, tmp_path: Path) -> Iterator[tuple[Project, FaultProxy]]:
    """A state on a server that may be taken away."""
    with FaultProxy(seaweedfs) as proxy:
        state = make_store("seaweedfs", proxy.url, tmp_path, name="state")
        machines_of(local, state)
        yield local, proxy


@pytest.mark.slow
def test_a_state_that_cannot_be_reached_stops_a_run_and_not_a_look(
    away: tuple[Project, FaultProxy],
) -> None:
    project, _ = away
    project.copied_and_due(A, B)
    project.state = {"url": "s3://lab-plain/nowhere", "endpoint": "http://127.0.0.1:1"}
    project.write()
    project.environment["RETAINER_PATIENCE"] = "1s"
    project.run("apply", "p.plan", "--approve-deletes", "1", expect=1)
    assert len(project.content("uploads")) == 2
    done = project.run("plan", "--facts", ".retainer/facts.duckdb", "--out", "q.plan", expect=None)
    assert "the state in s3://lab-plain/nowhere cannot be read" in done.stderr
    project.run("explain", A)


def test_a_state_on_a_server_without_conditions_is_refused(
    local: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retainer.stores.local import LocalWriter

    state = make_store("local", "", tmp_path, name="state")
    machines_of(local, state)
    local.hosted(A, video(1))
    local.plan()
    weak = {"create": True, "replace": False}
    conditions = type("Weak", (), {"known": weak, "lock": False, "before_a_lock": lambda _: None})
    kept = LocalWriter.conditions

    def asked(self: LocalWriter) -> Any:
        return conditions() if self.name == "state" else kept(self)

    monkeypatch.setattr(LocalWriter, "conditions", asked)
    assert "the state cannot lie in file://" in local.run("apply", "p.plan", expect=1).stderr
    assert local.content("vault") == {}


WRONG: dict[str, Any] = {
    "half a url": "s3:/acme",
    "a url of a folder": "file:state",
    "in a store": {"url": "s3://acme-vault/100ms/state"},
    "around a store": {"url": "s3://acme-vault"},
    "no bucket": {"url": "s3://"},
    "azure": {"url": "azure://acme/state"},
    "a query": {"url": "s3://acme-audit/state?x=1"},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_place_where_no_state_can_lie_is_a_mistake(tmp_path: Path, wrong: Any) -> None:
    from retainer.settings import load_settings

    settings = {"version": 1, "stores": {"vault": {"url": "s3://acme-vault/100ms"}}, "state": wrong}
    (tmp_path / "retainer.yaml").write_text(json.dumps(settings))
    found = load_settings(tmp_path)[1]
    assert [each.code for each in found] == ["S311"]


def test_a_store_may_not_be_called_as_the_state_is(tmp_path: Path) -> None:
    from retainer.settings import load_settings

    settings = {"version": 1, "stores": {"state": {"url": "s3://a-vault/x"}}, "state": "gs://b-b/s"}
    (tmp_path / "retainer.yaml").write_text(json.dumps(settings))
    assert [each.code for each in load_settings(tmp_path)[1]] == ["P210"]


# ── who said so ───────────────────────────────────────────────────────────────────────────────────


def test_a_run_tells_who_from_where_and_for_which_ticket(local: Project) -> None:
    local.environment |= {"GITHUB_ACTIONS": "true", "GITHUB_ACTOR": "dana", "GITHUB_RUN_ID": "77"}
    plan = local.copied_and_due(A, B).plan("q.plan")
    local.apply("q.plan", "--approve-deletes", "1", "--ticket", "OPS-1234")
    start = [each["of"] for each in local.journal() if each["event"] == "start"][-1]
    assert start["who"]["actor"] == "dana" and start["who"]["job"] == "77" and start["who"]["user"]
    assert (start["ticket"], start["approvals"], start["expires"]) == (
        "OPS-1234",
        [],
        plan["header"]["expires"],
    )


@pytest.mark.parametrize("ticket", ["", " ", "two\nlines", "x" * 201])
def test_a_ticket_is_one_line(local: Project, ticket: str) -> None:
    local.run("apply", "p.plan", "--ticket", ticket, expect=64)


def test_a_delete_is_written_down_with_all_that_led_to_it(local: Project) -> None:
    local.copied_and_due(A, B)
    local.apply_all("p.plan", local.plan())
    (deleted,) = (each["of"] for each in local.journal() if each["event"] == "deleted")
    assert deleted["rule_at"].startswith("policies/rules.yaml:")
    assert (deleted["type"], deleted["last_copy"], deleted["store"]) == (
        "room-composite",
        False,
        "uploads",
    )
    assert deleted["created"] < deleted["due"] and deleted["witnesses"][0][0] == "vault"


def test_the_plan_that_was_applied_is_kept_as_it_was(local: Project) -> None:
    local.copied_and_due(A, B)
    local.apply_all("p.plan", local.plan())
    kept = sorted((local.root / ".retainer" / "applied").glob("*.plan"))
    assert (local.root / "p.plan").read_bytes() in [path.read_bytes() for path in kept]


# ── a second person ───────────────────────────────────────────────────────────────────────────────


def key(folder: Path, name: str) -> Path:
    path = folder / name
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path)], check=True
    )
    return path


@pytest.fixture
def signed(local: Project, tmp_path: Path) -> Project:
    """Deletes want a second person; dana's and ana's keys count, mallory's does not."""
    local.copied_and_due(A, B)
    settings = (local.root / "retainer.yaml").read_text()
    settings = settings.replace("limits:\n", "limits:\n  second_person: true\n")
    (local.root / "retainer.yaml").write_text(settings)
    allowed = ""
    for name in ("dana", "ana"):
        public = key(tmp_path, name).with_suffix(".pub").read_text()
        allowed += f'{name}@acme.example namespaces="retainer-plan" {public}'
    (local.root / "allowed_signers").write_text(allowed)
    key(tmp_path, "mallory")
    local.plan()
    return local


def approve(project: Project, tmp_path: Path, name: str, by: str, expect: int = 0) -> None:
    environment, project.environment = project.environment, project.environment | {"LOGNAME": by}
    try:
        project.run(
            "approve", "p.plan", "--key", str(tmp_path / name), "--deletes", "1", expect=expect
        )
    finally:
        project.environment = environment


def apply(project: Project, by: str) -> tuple[int, str, list[dict[str, Any]]]:
    project.environment["LOGNAME"] = by
    done = project.run("apply", "p.plan", "--approve-deletes", "1", "--format", "json", expect=None)
    start = [each["of"] for each in project.journal() if each["event"] == "start"][-1]
    return json.loads(done.stdout)["deleted"], done.stderr, start["approvals"]


def test_nothing_is_deleted_without_a_second_person(signed: Project, tmp_path: Path) -> None:
    deleted, said, _ = apply(signed, "ops")
    assert deleted == 0 and "not signed by a second person" in said
    approve(signed, tmp_path, "dana", "dana")
    deleted, said, approvals = apply(signed, "ops")
    assert deleted == 1 and "approved by dana@acme.example" in said
    assert [(each["principal"], each["user"]) for each in approvals] == [
        ("dana@acme.example", "dana")
    ]


def test_nobody_is_their_own_second_person(signed: Project, tmp_path: Path) -> None:
    approve(signed, tmp_path, "dana", "dana")
    for name in ("dana", "Dana"):
        deleted, said, _ = apply(signed, name)
        assert deleted == 0 and "a second person must" in said
    approve(signed, tmp_path, "dana", "root")  # the same key under another name
    assert apply(signed, "dana")[0] == 0


def test_of_two_people_the_one_who_does_not_apply_counts(signed: Project, tmp_path: Path) -> None:
    approve(signed, tmp_path, "dana", "dana")
    approve(signed, tmp_path, "ana", "ana")
    deleted, _, approvals = apply(signed, "Dana")
    assert (deleted, [each["user"] for each in approvals]) == (1, ["ana"])


@pytest.fixture(params=["file", "seaweedfs"])
def signed_in_a_store(request: pytest.FixtureRequest, signed: Project, tmp_path: Path) -> Project:
    """The same with a record that machines share."""
    server = {"file": "local"}.get(request.param, request.param)
    signed.state = place_of(
        make_store(server, endpoint_of(server, request), tmp_path, name="state")
    )
    text = (signed.root / "retainer.yaml").read_text()
    (signed.root / "retainer.yaml").write_text(text + f"state: {json.dumps(signed.state)}\n")
    signed.plan("p.plan", "--lift", "record:vault", "--lift", "record:uploads")
    return signed


def test_an_approval_is_found_where_the_record_is_shared(
    signed_in_a_store: Project, tmp_path: Path
) -> None:
    approve(signed_in_a_store, tmp_path, "dana", "dana")
    signed_in_a_store.environment["LOGNAME"] = "ops"
    done = signed_in_a_store.run("apply", "p.plan", "--approve-deletes", "1")
    assert "approved by dana@acme.example" in done.stderr


def test_a_key_that_stands_in_no_line_signs_nothing(signed: Project, tmp_path: Path) -> None:
    words = ("approve", "p.plan", "--key", str(tmp_path / "mallory"), "--deletes", "1")
    assert "is nobody's key" in signed.run(*words, expect=1).stderr
    assert not (signed.root / ".retainer" / "approvals").exists()


def test_a_key_that_is_not_allowed_counts_for_nothing(signed: Project, tmp_path: Path) -> None:
    allowed = signed.root / "allowed_signers"
    before = allowed.read_text()
    allowed.write_text(before.replace("dana@", "x@", 1).split("\n", 1)[0] + "\n")
    approve(signed, tmp_path, "dana", "mallory")
    allowed.write_text(before.split("\n", 1)[1])
    deleted, said, _ = apply(signed, "ops")
    assert deleted == 0 and "signed by nobody whose key stands in allowed_signers" in said
    (signed.root / "allowed_signers").unlink()
    assert "there is no allowed_signers" in apply(signed, "ops")[1]


def forged(content: dict[str, str]) -> dict[str, str]:
    return content | {"message": content["message"].replace('"deletes": 1', '"deletes": 9')}


def moved(content: dict[str, str]) -> dict[str, str]:
    return content  # to another plan, below


@pytest.mark.parametrize("how", [forged, moved])
def test_an_approval_counts_for_just_what_was_signed(
    signed: Project, tmp_path: Path, how: Any
) -> None:
    approve(signed, tmp_path, "dana", "dana")
    (path,) = (signed.root / ".retainer" / "approvals").iterdir()
    content = json.loads(path.read_text())
    path.write_text(json.dumps(how(content)))
    if how is moved:
        signed.uploaded(C, video(3), age=timedelta(days=1))
        signed.plan()
        other = hashlib.sha256((signed.root / "p.plan").read_bytes()).hexdigest()
        path.rename(path.with_name(other + path.name[64:]))
    deleted, said, _ = apply(signed, "ops")
    assert deleted == 0 and "an approval does not count" in said


@pytest.mark.parametrize("words", [("--deletes", "2"), ()])
def test_what_is_signed_is_the_number_of_deletes(
    signed: Project, tmp_path: Path, words: tuple[str, ...]
) -> None:
    signed.run("approve", "p.plan", "--key", str(tmp_path / "dana"), *words, expect=9)
    assert not (signed.root / ".retainer" / "approvals").exists()


def test_a_key_that_is_none_is_an_error_that_says_so(signed: Project, tmp_path: Path) -> None:
    (tmp_path / "none").write_text("no key")
    (tmp_path / "none").chmod(0o600)
    words = ("approve", "p.plan", "--key", str(tmp_path / "none"), "--deletes", "1")
    assert "signs nothing" in signed.run(*words, expect=1).stderr


def test_a_plan_of_copies_needs_nobody(signed: Project, tmp_path: Path) -> None:
    signed.write(POLICY | {"rules": POLICY["rules"][:1]})
    signed.hosted(C, video(3))
    signed.plan()
    assert "needs no approval" in signed.run("approve", "p.plan", expect=64).stderr
