"""What apply refuses, skips and never does; on folders, where every change can be made by hand."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import endpoint_of, make_store
from project import POLICY, ROOM, Project, make_project, pairs, video
from records import entries, text_of

from retainer import planfile
from retainer.apply import deletes as deleting
from retainer.apply.copies import Copies
from retainer.demo.standin import ALWAYS, StandIn
from retainer.errors import CredentialsRefused, ListingBroken, PlanRefused
from retainer.journal.lock import Held
from retainer.model.setting import DEFAULT_LAYOUT
from retainer.planfile import read_plan
from retainer.ports import Certain, Seen, StoreFailure
from retainer.stores.local import LocalWriter

A, B, C = "a" * 24, "b" * 24, "c" * 24
ERASED = {"erasures": [{"id": "DSR-1", "why": "a request", "match": {"asset_id": [B]}}]}


def path_of(project: Project, store: str, name: str) -> Path:
    files = (
        path
        for path in Path(project.stores[store].prefix).rglob("*")
        if path.is_file() and "_retainer" not in path.parts
    )
    (path,) = [path for path in files if name in str(path)]
    return path


@pytest.fixture
def due(local: Project) -> Project:
    """B lies complete in the vault and is due in uploads; C is there to stay, so that nothing
    empties a store."""
    return local.copied_and_due(B, C)


# ── deletes ───────────────────────────────────────────────────────────────────────────────────────


def test_without_approval_nothing_is_deleted_and_the_exit_code_says_so(due: Project) -> None:
    done = due.run("apply", "p.plan", expect=7)
    assert "not approved" in done.stderr and "1 delete was not carried out" in done.stdout
    assert len(due.content("uploads")) == 2
    assert due.apply("p.plan", "--approve-deletes", "1")["deleted"] == 1


@pytest.mark.parametrize(("count", "code"), [("0", 0), ("2", 64), ("999", 64), ("-1", 64)])
def test_another_number_approves_nothing(due: Project, count: str, code: int) -> None:
    """0 is what a workflow says that wants copies alone."""
    due.run("apply", "p.plan", "--approve-deletes", count, expect=code)
    assert len(due.content("uploads")) == 2


def test_an_object_that_changed_since_the_plan_survives(due: Project) -> None:
    path = path_of(due, "uploads", B)
    path.write_bytes(b"somebody's new recording")
    done = due.apply("p.plan", "--approve-deletes", "1")
    assert (done["deleted"], done["skipped"][0]["cause"]) == (0, "it has changed since the plan")
    assert path.read_bytes() == b"somebody's new recording"


@pytest.mark.parametrize("harm", ["gone", "shorter", "as long as before"])
def test_a_delete_whose_witness_is_gone_or_changed_is_skipped(due: Project, harm: str) -> None:
    witness = path_of(due, "vault", B)
    match harm:
        case "gone":
            witness.unlink()
        case "shorter":
            witness.write_bytes(b"x")
        case _:
            witness.write_bytes(bytes(witness.stat().st_size))
    done = due.apply("p.plan", "--approve-deletes", "1")
    assert done["deleted"] == 0 and "makes it safe" in done["skipped"][0]["cause"]
    assert len(due.content("uploads")) == 2


@pytest.mark.parametrize(
    ("match", "deleted"),
    [
        ({"asset_id": B}, 0),
        ({"asset_id": C}, 1),
        ({"room": "x-*"}, 0),
        ({"metadata": {"colour": "red"}}, 0),
        ({"type": "chat"}, 1),
        ({"created": {"before": "2020-01-01"}}, 1),
    ],
)
def test_what_a_hold_newer_than_the_plan_may_cover_is_skipped(
    due: Project, match: dict[str, Any], deleted: int
) -> None:
    due.write(
        POLICY | {"holds": [{"id": "LIT-1", "why": "a matter", "match": match, "in": "vault"}]}
    )
    done = due.apply("p.plan", "--approve-deletes", "1")
    assert done["deleted"] == deleted
    assert deleted or "LIT-1 is newer than the plan" in done["skipped"][0]["cause"]


def test_an_erasure_takes_the_last_copy_and_the_plan_says_so(local: Project) -> None:
    local.write(POLICY | ERASED)
    local.uploaded(B, video(1), age=timedelta(days=2))
    local.uploaded(C, video(2), age=timedelta(days=2))
    plan = local.plan()
    assert plan["header"]["last_copies"] == 1
    assert "THE LAST COPY" in local.run("show", "p.plan").stdout
    assert local.apply("p.plan", "--approve-deletes", "1")["deleted"] == 1


def test_a_breached_limit_holds_the_deletes_back_and_lets_the_copies_run(local: Project) -> None:
    local.limits = {"count": 0, "percent": 100, "bytes": "1TB"}
    local.write(POLICY | ERASED)
    local.uploaded(B, video(1), age=timedelta(days=2))
    local.uploaded(C, video(2), age=timedelta(days=2))
    text = local.run("plan", "--out", "p.plan", expect=4).stdout
    assert "--lift count:store:uploads" in text and "--lift count:rule:DSR-1" in text
    done = local.apply("p.plan", "--approve-deletes", "1", expect=4)
    assert (done["copied"], done["deleted"]) == (1, 0)
    local.plan("lifted.plan", "--lift", "count:store:uploads", "--lift", "count:rule:DSR-1")
    assert local.apply("lifted.plan", "--approve-deletes", "1")["deleted"] == 1


def test_deletes_of_the_last_24_hours_count_towards_the_limit(due: Project) -> None:
    due.apply("p.plan", "--approve-deletes", "1")
    due.limits = {"count": 1, "percent": 100, "bytes": "1TB"}
    due.write(
        POLICY | {"erasures": [{"id": "DSR-2", "why": "a request", "match": {"asset_id": C}}]}
    )
    due.uploaded("d" * 24, video(9), age=timedelta(days=1))
    used = {
        limit["scope"]: limit["used"]
        for limit in due.plan("n.plan", expect=4)["header"]["limits"]
        if limit["name"] == "count"
    }
    assert used["store:uploads"] == 2


def test_a_clash_is_shown_and_holds_the_deletes_back(due: Project) -> None:
    due.write(
        POLICY
        | {
            "rules": [
                *POLICY["rules"],
                {"id": "ceiling", "match": {"type": "room-composite"}, "at_most": "90d"},
            ]
        }
    )
    text = due.run("plan", "--out", "p.plan", expect=4).stdout
    assert "Clash: calls keeps 2 recordings longer than ceiling allows" in text
    due.apply("p.plan", "--approve-deletes", "1", expect=4)
    assert len(due.content("uploads")) == 2


# ── plans that are refused ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("piece", [1 << 20, 1000, 33])
def test_an_edited_plan_is_refused_wherever_a_byte_was_flipped(
    piece: int, due: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it is read, piece by piece, and wherever the digest lies in those."""
    monkeypatch.setattr(planfile, "_PIECE", piece)
    read_plan(due.root / "p.plan").connection.close()
    whole = (due.root / "p.plan").read_bytes()
    refused = 0
    for place in range(0, len(whole), max(1, len(whole) // 150)):
        (due.root / "bad.plan").write_bytes(
            whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        )
        with pytest.raises(PlanRefused):
            read_plan(due.root / "bad.plan")
        refused += 1
    assert refused >= 150
    due.run("apply", "bad.plan", expect=5)


@pytest.mark.parametrize("part", [0, 0.3, 0.9, 0.999])
def test_a_truncated_plan_is_refused(due: Project, part: float) -> None:
    whole = (due.root / "p.plan").read_bytes()
    (due.root / "cut.plan").write_bytes(whole[: int(len(whole) * part)])
    due.run("apply", "cut.plan", expect=5)


def test_a_plan_is_refused_when_rules_erasures_or_stores_have_changed(due: Project) -> None:
    for policy, said in (
        (POLICY | {"rules": POLICY["rules"][:1]}, "raw is gone"),
        (POLICY | ERASED, "is new"),
    ):
        due.write(policy)
        assert f"{said} since the plan was made" in due.run("apply", "p.plan", expect=5).stderr
    due.write()
    settings = due.root / "retainer.yaml"
    settings.write_text(settings.read_text() + "timezone: Asia/Kolkata\n")
    told = due.run("apply", "p.plan", expect=5).stderr
    assert "stores, the time zone, accepted copies or hosted buckets have changed since" in told
    due.write()
    assert due.apply("p.plan", "--approve-deletes", "1")["deleted"] == 1


def test_a_plan_for_the_future_is_shown_and_never_applied(due: Project) -> None:
    later = (datetime.now(UTC) + timedelta(days=400)).strftime("%Y-%m-%d")
    due.plan("later.plan", "--as-of", later, expect=None)
    assert "still to come" in due.run("apply", "later.plan", expect=5).stderr


def test_a_plan_from_old_facts_has_expired(due: Project) -> None:
    settings = (due.root / "retainer.yaml").read_text()
    (due.root / "retainer.yaml").write_text(settings + "\n".join(["", ""]).replace("\n\n", "\n"))
    due.run("facts", "--out", "facts.duckdb")
    text = (
        (due.root / "retainer.yaml").read_text().replace("limits:\n", "limits:\n  plan_age: PT1S\n")
    )
    (due.root / "retainer.yaml").write_text(text)
    due.plan("old.plan", "--facts", "facts.duckdb")
    time.sleep(1.2)
    assert "expired" in due.run("apply", "old.plan", expect=5).stderr


def test_a_finished_plan_is_refused(due: Project) -> None:
    due.apply("p.plan", "--approve-deletes", "1")
    assert (
        "applied already" in due.run("apply", "p.plan", "--approve-deletes", "1", expect=5).stderr
    )


def test_only_the_plan_that_was_reviewed_is_applied(due: Project) -> None:
    due.run("apply", "p.plan", "--fingerprint", "0" * 64, expect=5)
    found = re.search(r"fingerprint  ([0-9a-f]{64})", due.run("show", "p.plan").stdout)
    assert found
    for too_short in ("", found[1][:11], "x" * 12):
        due.run("apply", "p.plan", "--fingerprint", too_short, expect=64)
    other = "1" if found[1][11] == "0" else "0"
    due.run("apply", "p.plan", "--fingerprint", found[1][:11] + other, expect=5)
    due.apply("p.plan", "--fingerprint", found[1][:12].upper(), "--approve-deletes", "1")


# ── one at a time ─────────────────────────────────────────────────────────────────────────────────


def test_a_store_that_another_run_has_locked_is_left_alone(due: Project) -> None:
    content = (
        b'{"owner": "other", "host": "elsewhere", "heartbeat": "%s"}'
        % datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode()
    )
    due.writer("uploads").create(
        "_retainer/lock", iter([content]), len(content), {}, "application/json"
    )
    assert (
        "another apply holds uploads (run other on elsewhere"
        in due.run("apply", "p.plan", "--approve-deletes", "1", expect=6).stderr
    )
    assert len(due.content("uploads")) == 2


def test_a_dead_lock_expires(due: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Held, "is_dead", True
    )  # no server can be made to say that it wrote something 10 minutes ago
    content = b'{"owner": "other", "host": "elsewhere"}'
    due.writer("uploads").create(
        "_retainer/lock", iter([content]), len(content), {}, "application/json"
    )
    assert due.apply("p.plan", "--approve-deletes", "1")["deleted"] == 1
    assert list(due.writer("uploads").list("_retainer/lock")) == []


# ── faults of the source ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("html_with_200", "an HTML page"),
        ("json_error_with_200", "a JSON error"),
        ("cut_bodies", "it broke off"),
        ("no_length", ""),
    ],
)
def test_nothing_false_is_recorded(local: Project, fault: str, words: str) -> None:
    local.hosted(A, video(1, 50_000), size=0)
    local.hosted(C, video(2), kind="room-composite")
    local.plan()
    setattr(local.api.faults, fault, {A: (0, ALWAYS)} if fault == "cut_bodies" else {A: ALWAYS})
    done = local.apply(expect=7)
    assert done["copied"] == 1
    (failed,) = done["failed"]
    assert failed["asset_id"] == A and words in failed["cause"]
    after = pairs(local.plan("after.plan"))
    assert (after[A, "vault"], after[C, "vault"]) == ("copy", "keep")


def test_a_body_that_is_cut_once_is_copied_whole_in_the_end(local: Project) -> None:
    content = video(1, 500_000)
    local.hosted(A, content)
    local.plan()
    local.api.faults.cut_bodies = {A: (200_000, 2)}
    assert local.apply()["copied"] == 1
    assert list(local.content("vault").values()) == [content]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "size", "words"),
    [
        (b"", 1_000_000, "no byte came"),
        (b"", 0, "the bytes are no mp4: it is empty; kept, but it counts as partial"),
        (bytes(5000), 0, "it does not begin like an mp4; kept, but it counts as partial"),
    ],
)
def test_a_recording_that_is_empty_or_none_is_no_copy(
    local: Project, content: bytes, size: int, words: str
) -> None:
    local.hosted(A, content, size=size)
    local.plan()
    assert words in local.apply(expect=7)["failed"][0]["cause"]
    assert pairs(local.plan())[A, "vault"] == "copy"
    local.hosted(A, video(1))
    local.plan()
    assert local.apply()["copied"] == 1
    assert list(local.content("vault").values()) == [video(1)]


def test_where_the_server_has_no_more_the_record_is_what_is_doubted(local: Project) -> None:
    """Issue 13: `../shared/field/b08*`."""
    local.hosted(A, video(1), size=1_000_000)
    local.plan()
    done = local.apply()
    assert f"100ms's record says 1000000 bytes, {len(video(1))} came" in done["said"][0]
    assert pairs(local.plan())[A, "vault"] == "keep"


def test_an_empty_text_is_what_it_is(local: Project) -> None:
    local.hosted(A, b"", size=0, kind="chat", path="s3://hms-prod-x/chat.csv")
    local.plan()
    assert local.apply()["copied"] == 1
    assert list(local.content("vault").values()) == [b""]
    assert pairs(local.plan())[A, "vault"] == "keep"


def test_what_100ms_says_is_gone_is_lost_and_tried_once_more_before_it_leaves(
    local: Project,
) -> None:
    """Issue 13: not copied again every night with exit 7."""
    asset = local.hosted(A, video(1), age=timedelta(days=3))
    local.plan()
    local.api.add_asset(asset, None)
    assert "gone from 100ms (404)" in local.apply(expect=7)["failed"][0]["cause"]
    assert pairs(local.plan())[A, "vault"] == "lost"
    shown = local.run("plan", "--out", "p.plan").stdout
    assert "Next: nothing that retainer can do, and not all is well: 1 lost" in " ".join(
        shown.split()
    )
    assert "lost in vault" in local.run("explain", A).stdout
    soon = (datetime.now(UTC) + timedelta(days=10, hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert pairs(local.plan("soon.plan", "--as-of", soon))[A, "vault"] == "copy"
    local.hosted(A, video(1), age=timedelta(days=3), path="s3://hms-prod-x/elsewhere.mp4")
    assert pairs(local.plan())[A, "vault"] == "copy"
    assert local.apply()["copied"] == 1


def test_a_404_within_a_day_is_not_believed(local: Project) -> None:
    asset = local.hosted(A, video(1), age=timedelta(hours=3))
    local.plan()
    local.api.add_asset(asset, None)
    local.apply(expect=7)
    local.hosted(A, video(1), age=timedelta(hours=3))
    local.plan()
    assert local.apply()["copied"] == 1


@pytest.mark.parametrize("age", [3, 14.9])
def test_what_keeps_failing_goes_behind_the_others_unless_it_leaves_within_hours(
    local: Project, age: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 13: sixteen dead ones held a sound one back for 21 minutes."""
    monkeypatch.setattr(Copies, "_pause", lambda *_: None)
    dead = [f"{n:024x}" for n in range(3)]
    for name in dead:
        local.hosted(name, video(1), age=timedelta(days=age))
    local.hosted(A, video(2), age=timedelta(days=2))
    local.plan()
    local.api.faults.fail_first = {f"{name}/presigned-url": [500] * 1000 for name in dead}
    local.impatient = True
    done = local.apply("p.plan", "--workers", "2", expect=7)
    assert (done["copied"], len(done["failed"])) == (1, 3)
    ended = [
        entry.event
        for entry in entries(local.root / ".retainer")
        if entry.event in ("copied", "failed")
    ]
    assert (ended[0] == "copied") is (age == 3)


def test_one_trouble_of_many_recordings_is_told_once_by_their_bucket(local: Project) -> None:
    names = [f"{n:024x}" for n in range(7)]
    for n, name in enumerate(names):
        bucket = "acme-hipaa" if n < 6 else "other"
        local.hosted(name, video(1), path=f"azure://{bucket}/{name}.mp4")
    local.plan()
    local.api.faults.fail_first = {f"{name}/presigned-url": [404] * 9 for name in names}
    told = " ".join(local.run("apply", "p.plan", expect=7).stdout.split())
    assert "! 6 copies from azure://acme-hipaa in vault failed: 100ms /recording-assets/…" in told
    assert f"{', '.join(names[:5])} and 1 more" in told
    assert told.count("nothing can bring it back from there") == 2


def test_storms_of_429_and_500_are_waited_out(local: Project) -> None:
    for n in range(12):
        local.hosted(f"a{n:023x}", video(n))
    local.plan()
    local.api.faults.rate_429 = 0.3
    local.api.faults.rate_500 = 0.2
    assert local.apply()["copied"] == 12


def test_a_broken_listing_is_exit_8_and_copies_go_on(local: Project) -> None:
    local.hosted(A, video(1))
    local.hosted(C, b"SenderPeerID,SenderName\n", kind="chat")
    local.api.faults.list_fail = {"chat": 0}
    local.impatient = True
    done = local.run("plan", "--out", "p.plan", expect=8)
    assert "100ms chat did not finish" in done.stdout
    assert local.apply()["copied"] == 2  # the list of all types shows the chat too


# ── interruption, and what is never told ──────────────────────────────────────────────────────────


def test_ctrl_c_stops_the_run_and_the_same_plan_goes_on(local: Project) -> None:
    for n in range(40):  # more than are on their way at once
        local.hosted(f"a{n:023x}", video(n, 400_000))
    local.plan()
    local.api.faults.bytes_per_second = 150_000
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(
        local.command("apply", "p.plan"), cwd=local.root, env=local.env(), text=True, **pipes
    )
    for _ in range(600):  # until the first copy is under way
        if b'"intent"' in text_of(local.root / ".retainer"):
            break
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert "Next: retainer apply p.plan\n      which goes on where this run ended" in out
    assert list(Path(local.stores["vault"].prefix).rglob("_retainer/lock")) == []
    local.api.faults.bytes_per_second = None
    local.apply()
    assert len(local.content("vault")) == 40


def test_no_name_secret_or_signed_url_is_in_a_plan_a_journal_or_an_output(local: Project) -> None:
    local.api.add_room(
        {"id": "6" + "0" * 22 + "a", "name": "dr-jekyll-and-mr-hyde", "template": "secret-template"}
    )
    local.write(
        POLICY
        | {
            "rules": [
                *POLICY["rules"],
                {"id": "r", "match": {"room": "dr-*"}, "keep": [{"in": "vault", "for": "5y"}]},
            ]
        }
    )
    local.hosted(A, video(1), metadata={"host": "Henry Jekyll"})
    local.hosted(B, video(2))
    local.api.faults.html_with_200 = {B: ALWAYS}
    said = (
        local.run("plan", "--out", "p.plan").stdout
        + local.run("show", "p.plan", "--format", "json").stdout
    )
    done = local.run("apply", "p.plan", expect=7)
    said += done.stdout + done.stderr + local.run("explain", A).stdout
    kept = (local.root / "p.plan").read_bytes() + text_of(local.root / ".retainer") + said.encode()
    for secret in ("jekyll", "Jekyll", "secret-template", "X-Signature", local.api.secret, "eyJ"):
        assert secret.encode() not in kept


# ── what a review found ───────────────────────────────────────────────────────────────────────────


def shared(local: Project) -> None:
    """B and D name one object of the upload bucket; both are complete in the vault and due
    there."""
    local.uploaded(B, video(1))
    local.uploaded(C, video(2), age=timedelta(days=2))
    twin = local._asset(
        "d" * 24,
        video(1),
        timedelta(days=70),
        "room-composite",
        f"{local.stores['uploads'].base}beam/{ROOM}/Rec-{B}.mp4",
        {},
    )
    local.api.add_asset(twin, video(1), hosted=False)
    local.plan("copies.plan")
    local.apply("copies.plan")


def test_an_object_that_two_recordings_name_goes_only_when_both_may_go_today(
    local: Project,
) -> None:
    shared(local)
    plan = local.plan()
    assert sorted(row["asset_id"] for row in plan["rows"] if row["decision"] == "delete") == [
        B,
        "d" * 24,
    ]
    local.write(
        POLICY
        | {
            "holds": [
                {"id": "LIT-1", "why": "a matter", "match": {"asset_id": "d" * 24}, "in": "vault"}
            ]
        }
    )
    done = local.apply("p.plan", "--approve-deletes", "2")
    assert done["deleted"] == 0
    assert any("has an object in common" in skipped["cause"] for skipped in done["skipped"])
    assert len(local.content("uploads")) == 2


def test_an_object_that_two_recordings_name_needs_the_witnesses_of_both(local: Project) -> None:
    shared(local)
    local.plan()
    path_of(local, "vault", "d" * 24).unlink()
    assert local.apply("p.plan", "--approve-deletes", "2")["deleted"] == 0
    assert len(local.content("uploads")) == 2


def test_limits_see_what_only_leaves_out(local: Project) -> None:
    for n in range(3):
        local.uploaded(f"b{n:023x}", video(n))
    local.uploaded(C, video(9), age=timedelta(days=2))
    local.plan()
    local.apply()
    local.limits = {"count": 2, "percent": 100, "bytes": "1TB"}
    local.write()
    plan = local.plan("p.plan", "--only", f"{{asset_id: {'b' + '0' * 23}}}", expect=4)
    assert plan["header"]["deletes"] == 1


def test_two_plans_made_at_once_cannot_delete_more_than_the_limit_together(local: Project) -> None:
    for n in range(2):
        local.uploaded(f"b{n:023x}", video(n))
    local.uploaded(C, video(9), age=timedelta(days=2))
    local.plan()
    local.apply()
    local.limits = {"count": 2, "percent": 100, "bytes": "1TB"}
    local.write()
    for n in range(2):
        local.plan(f"{n}.plan", "--only", f"{{asset_id: b{n:023x}}}")
    local.limits = {"count": 1, "percent": 100, "bytes": "1TB"}
    local.write()
    assert local.apply("0.plan", "--approve-deletes", "1")["deleted"] == 1
    assert local.apply("1.plan", "--approve-deletes", "1", expect=4)["deleted"] == 0


def test_a_store_that_cannot_be_used_fails_its_own_actions_alone(local: Project) -> None:
    local.stores["cold"] = make_store("local", "", local.root / "data", name="cold")
    rules = [
        *POLICY["rules"],
        {"id": "cold", "match": {"type": "room-composite"}, "keep": [{"in": "cold", "for": "1y"}]},
    ]
    local.write(POLICY | {"rules": rules})
    local.hosted(A, video(1))
    local.plan()
    Path(local.stores["cold"].prefix).rmdir()
    done = local.apply(expect=7)
    assert (done["copied"], [failed["store"] for failed in done["failed"]]) == (1, ["cold"])


def test_a_name_with_half_a_character_ends_no_plan(local: Project) -> None:
    local.api.add_room({"id": ROOM, "name": "half \ud83d", "template": "t"})
    local.write(
        POLICY
        | {
            "rules": [
                *POLICY["rules"],
                {"id": "r", "match": {"room": "x-*"}, "keep": [{"in": "vault", "for": "5y"}]},
            ]
        }
    )
    local.hosted(A, video(1), session_id="\ud83d")
    assert pairs(local.plan())[A, "vault"] == "copy"


# ── many deletes at once ──────────────────────────────────────────────────────────────────────────


@pytest.fixture(params=["local", "seaweedfs", "strict_gcs"])
def many_due(request: pytest.FixtureRequest, tmp_path: Path, api: StandIn) -> Project:
    """Thirty uploads that are copied, and may go."""
    server = request.param
    project = make_project(tmp_path / "project", api, server, endpoint_of(server, request))
    for number in range(30):
        project.uploaded(f"{number:024x}", video(number))
    project.uploaded(A, video(99), age=timedelta(days=2))
    project.plan("copies.plan")
    project.apply("copies.plan")
    assert project.plan()["header"]["deletes"] == 30
    return project


@pytest.mark.parametrize("listed", ["as it is", "nothing", "another version", "not at all"])
def test_of_many_deletes_only_those_go_whose_copies_are_there(
    many_due: Project, monkeypatch: pytest.MonkeyPatch, listed: str
) -> None:
    """Whatever the list of what lies between them shows."""
    vault = many_due.writer("vault")
    copies = sorted(vault.list(), key=lambda each: each.key)
    gone, changed = copies[3], copies[7]
    vault.conditions().find_out("delete")
    vault.delete(gone)
    vault.delete(changed)
    vault.create(changed.key, iter([b"another"]), 7, {}, "video/mp4")
    between = type(vault).some_between

    def shown(self: Any, first: str, last: str, pages: int) -> Iterator[Seen]:
        match listed:
            case "not at all":
                raise ListingBroken("no answer")
            case "another version":
                for seen in between(self, first, last, pages):
                    yield replace(seen, version="1", size=1)
            case "as it is":
                yield from between(self, first, last, pages)

    monkeypatch.setattr(type(vault), "some_between", shown)
    done = many_due.apply("p.plan", "--approve-deletes", "30")
    assert (done["deleted"], len(done["skipped"])) == (28, 2)
    assert len(many_due.content("uploads")) == 3


def test_no_delete_of_a_batch_goes_once_locks_have_lapsed(
    many_due: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that was slow, or a machine that slept, at the last moment."""
    intend = deleting.Deletes._intend

    def asleep(self: deleting.Deletes, actions: Any) -> None:
        intend(self, actions)
        for lock in self._job.locks.values():
            lock._honoured = False  # type: ignore[attr-defined]

    monkeypatch.setattr(deleting.Deletes, "_intend", asleep)
    done = many_due.apply("p.plan", "--approve-deletes", "30", expect=7)
    local = many_due.stores["uploads"].scheme == "file"  # there each is announced by itself
    assert done["deleted"] == 0 and (local or done["resting"].keys() == {"uploads", "vault"})
    assert len(many_due.content("uploads")) == 31


def test_credentials_that_are_refused_while_witnesses_are_listed_stop_only_what_rests_there(
    many_due: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = type(many_due.writer("vault"))

    def refused(self: Any, *_: Any) -> Iterator[Seen]:
        raise CredentialsRefused("the token has ended", store=self.name)
        yield

    monkeypatch.setattr(vault, "some_between", refused)
    assert many_due.apply("p.plan", "--approve-deletes", "30")["deleted"] == 30


def test_a_store_that_cannot_be_written_to_is_read_from_all_the_same(
    local: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One copy that is not possible there keeps none from being made of what lies there."""
    conditions = LocalWriter.conditions

    def weak(self: LocalWriter) -> Any:
        return Certain(create=False) if self.name == "uploads" else conditions(self)

    local.stores["uploads"] = replace(local.stores["uploads"], layout=DEFAULT_LAYOUT)
    rules = [
        {"id": "both", "match": {"type": "chat"}, "keep": [{"in": "uploads", "for": "1y"}]},
        {
            "id": "moved",
            "match": {"type": "room-composite"},
            "keep": [{"in": "vault", "for": "2y"}, {"in": "uploads", "for": "1y"}],
        },
    ]
    local.write({"version": 1, "rules": [rules[1] | {"keep": [rules[1]["keep"][1]]}]})  # type: ignore[index]
    for number in range(3):
        local.hosted(f"{number:024x}", video(number))
    local.plan("there.plan")
    assert local.apply("there.plan")["copied"] == 3
    local.write({"version": 1, "rules": rules})
    local.hosted(A, b"time,name\n1,x\n", kind="chat")
    local.plan()
    monkeypatch.setattr(LocalWriter, "conditions", weak)
    done = local.apply(expect=7)
    assert (done["copied"], done["failed"], done["resting"]) == (3, [], {})
    assert done["impossible"]["uploads"]["actions"] == 1
    left = [line["of"] for line in local.journal() if line["event"] == "left"]
    assert [each["act"] for each in left] == ["copy"]


def test_a_batch_of_which_most_is_deleted_lets_no_store_rest(
    many_due: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = type(many_due.writer("uploads"))
    if many_due.stores["uploads"].scheme == "file":
        pytest.skip(reason="a folder has no batches")
    delete_batch = uploads.delete_batch

    def some_denied(self: Any, batch: Any) -> Any:
        done = delete_batch(self, batch[5:])
        return [StoreFailure("denied", refused=True)] * 5 + done

    monkeypatch.setattr(uploads, "delete_batch", some_denied)
    done = many_due.apply("p.plan", "--approve-deletes", "30", expect=7)
    assert (done["deleted"], len(done["failed"]), done["resting"]) == (25, 5, {})


# ── the brake ─────────────────────────────────────────────────────────────────────────────────────


def forty_due(local: Project, count: int = 40) -> list[Path]:
    """The uploads that are due, in the order in which they are deleted."""
    for number in range(count):
        local.uploaded(f"{number:024x}", video(number, 300))
    local.uploaded("f" * 24, video(99), age=timedelta(days=2))
    local.plan()
    local.apply()
    assert local.plan()["header"]["deletes"] == count
    folder = Path(local.stores["uploads"].prefix)
    return [path for path in sorted(folder.rglob("*.mp4")) if "f" * 24 not in path.name]


def test_no_more_is_deleted_once_too_many_objects_are_others_than_the_plan_saw(
    local: Project,
) -> None:
    due = forty_due(local)
    for path in due[:4]:
        path.write_bytes(video(1000))
    words = ("--approve-deletes", "40", "--workers", "1")
    done = local.apply("p.plan", *words, expect=7)
    assert (done["deleted"], len(done["skipped"]), done["left_deletes"]) == (16, 4, 20)
    (said,) = (each for each in done["said"] if "no more deletes" in each)
    assert said.startswith("4 of 20 deletes failed, or found something else than the plan saw")
    assert len(local.content("uploads")) == 25


def test_a_tenth_is_no_brake_and_neither_is_a_newer_hold(local: Project) -> None:
    due = forty_due(local)
    for path in due[:2]:
        path.write_bytes(video(1000))
    held = [f"{number:024x}" for number in range(30, 40)]
    hold = {"id": "H", "why": "x", "match": {"asset_id": held}, "in": "vault"}
    local.write(POLICY | {"holds": [hold]})
    words = ("--approve-deletes", "40", "--workers", "1")
    done = local.apply("p.plan", *words, expect=None)
    assert (done["deleted"], len(done["skipped"]), done["left_deletes"]) == (28, 12, 0)
