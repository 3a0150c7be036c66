"""What the record answers, a year later: of a recording, a run, a span of time; and what it is
worth."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from project import POLICY, Project, video
from records import cut, segments

pytestmark = pytest.mark.slow

A, B, C = "a" * 24, "b" * 24, "c" * 24


@pytest.fixture
def told(local: Project) -> Project:
    """A was copied and deleted in uploads for a ticket, B copied."""
    local.copied_and_due(A, B)
    plan = local.plan()
    local.apply("p.plan", "--approve-deletes", str(plan["header"]["deletes"]), "--ticket", "OPS-7")
    return local


def test_a_recording_is_told_from_its_copy_to_its_delete(told: Project) -> None:
    text = told.run("history", A).stdout
    lines = [line for line in text.splitlines() if re.search(r"20[0-9-]{8} [0-9:]{5} UTC", line)]
    assert [re.search(r"copied|deleted", line)[0] for line in lines[:2]] == ["copied", "deleted"]  # type: ignore[index]
    assert "for calls" in text and "for raw (policies/rules.yaml:" in text
    assert "(OPS-7)" in text and "safe by 1 other object" in text and "sha256 " in text


def test_what_is_gone_is_answered_from_the_record_alone(told: Project) -> None:
    (told.root / ".retainer" / "facts.duckdb").unlink()
    for store in told.stores.values():
        shutil.rmtree(store.prefix)
    found = json.loads(told.run("history", A, "--format", "json").stdout)
    assert [each["event"] for each in found["happenings"]] == ["copied", "deleted"]
    deleted = found["happenings"][1]
    assert (deleted["asked_by"], deleted["last_copy"], deleted["ticket"]) == (
        "rule",
        False,
        "OPS-7",
    )
    assert deleted["due"] and deleted["created"] < deleted["due"]


def test_a_run_is_told_by_its_id(told: Project) -> None:
    run = told.journal()[-1]["run"]
    found = json.loads(told.run("history", run, "--format", "json").stdout)
    assert [each["run"] for each in found["runs"]] == [run]
    assert {each["event"] for each in found["happenings"]} == {"deleted"}


def test_all_that_was_done_for_a_rule_is_told_by_its_id(told: Project) -> None:
    found = json.loads(told.run("history", "raw", "--format", "json").stdout)
    assert [(each["event"], each["asset_id"]) for each in found["happenings"]] == [("deleted", A)]
    assert A in told.run("history", "raw").stdout


@pytest.mark.parametrize("about", [C, "b", "no-such", "../x", "%"])
def test_what_the_record_does_not_know_is_said_and_names_no_other(
    told: Project, about: str
) -> None:
    done = told.run("history", about, expect=1)
    assert "The record says nothing of" in done.stdout and A not in done.stdout


def test_a_history_of_nothing_is_wrong_usage(told: Project) -> None:
    assert "`retainer report`" in told.run("history", " ", expect=64).stderr


def test_explain_of_what_is_not_known_suggests_history_and_no_other_recording(
    told: Project,
) -> None:
    done = told.run("explain", "12345", expect=1)
    assert "retainer history 12345" in done.stderr and A not in done.stderr + done.stdout
    assert f"did you mean {A}?" in told.run("explain", A[:-1] + "b", expect=1).stderr


def test_a_report_has_each_deletion_and_its_grounds(told: Project) -> None:
    text = told.run("report").stdout
    assert "Nothing was deleted before it was due." in text and "OPS-7" in text
    rows = list(csv.DictReader(io.StringIO(told.run("report", "--format", "csv").stdout)))
    assert [(row["asset_id"], row["store"], row["rule"]) for row in rows] == [(A, "uploads", "raw")]
    assert rows[0]["witnesses"].startswith("vault:") and rows[0]["at"].endswith("Z")


def test_a_report_is_of_its_span_alone(told: Project) -> None:
    assert "Nothing was deleted." in told.run("report", "--to", "2020-01-01").stdout
    assert "Nothing was deleted." in told.run("report", "--from", "2099-01-01").stdout
    told.run("report", "--from", "2020-01-02", "--to", "2020-01-01", expect=64)


def test_a_report_is_one_page_of_html(told: Project, tmp_path: Path) -> None:
    told.run("report", "--format", "html", "--out", str(tmp_path / "r.html"))
    text = (tmp_path / "r.html").read_text()
    assert "Register of deletions" in text and "<script" not in text


def test_a_report_tells_what_plans_saw_and_how_late_what_was_due_went(told: Project) -> None:
    found = json.loads(told.run("report", "--format", "json").stdout)
    first, second = found["plans"]
    assert [(store, count) for store, count, _ in first["stores"]] == [("uploads", 2)]
    assert [(store, count) for store, count, _ in second["stores"]] == [
        ("uploads", 2),
        ("vault", 2),
    ]
    assert first["recordings"] == 2 and not first["unfinished"] and not first["lost"]
    (raw,) = [each for each in found["punctual"] if each["rule"] == "raw"]
    # made 60 days ago, and due the day after the 30th
    assert raw["deleted"] == 1 and 28 < raw["median_days"] == raw["worst_days"] < 31
    text = told.run("report").stdout
    assert "Due and done" in text and "What plans saw" in text and "Lost" not in text


def test_a_report_tells_holds_erasures_losses_and_what_is_left(told: Project) -> None:
    told.uploaded(C, video(3))
    told.hosted("d" * 24, video(4), status="completed")
    hold = {"id": "LIT-1", "why": "Acme v. Example", "match": {"asset_id": C}, "in": "vault"}
    erasure = {"id": "DSR-1", "why": "ticket 4711", "match": {"asset_id": B}}
    erasure["requested"] = "2026-01-31"
    told.write(POLICY | {"holds": [hold], "erasures": [erasure]})
    told.plan("copies.plan", expect=None)
    told.run("apply", "copies.plan", "--approve-deletes", "2", expect=None)
    told.plan("then.plan", expect=None)
    told.run("apply", "then.plan", expect=None)
    found = json.loads(told.run("report", "--format", "json").stdout)
    one, two = found["requests"]
    assert (one["id"], one["recordings"], one["answer_by"], one["deleted"]) == (
        "DSR-1",
        1,
        "2026-02-28",
        2,
    )
    assert (two["id"], two["kind"], two["recordings"], two["why"]) == (
        "LIT-1",
        "hold",
        1,
        "Acme v. Example",
    )
    (raw,) = [each for each in found["punctual"] if each["rule"] == "raw"]
    assert raw["left"] == [["hold", 1]]
    text = " ".join(told.run("report").stdout.split())
    assert "Holds and erasures" in text and "2026-02-28" in text
    early = json.loads(told.run("report", "--to", "2020-01-01", "--format", "json").stdout)
    assert early["plans"] == early["requests"] == early["punctual"] == early["lost"] == []


def test_a_loss_that_a_plan_saw_is_in_the_report(told: Project) -> None:
    told.uploaded(C, video(3))
    for key in told.content("uploads"):
        if C in key:
            Path(told.stores["uploads"].prefix, key).unlink()
    told.plan("lost.plan", expect=None)
    told.run("apply", "lost.plan", expect=None)
    found = json.loads(told.run("report", "--format", "json").stdout)
    assert [(asset, store) for asset, store, _ in found["lost"]] == [(C, "vault")]
    assert f"{C} was wanted in vault" in told.run("report").stdout


def test_what_was_lifted_and_what_did_not_end_are_exceptions(told: Project) -> None:
    told.limits["count"] = 0
    told.uploaded(C, video(3))
    told.write()
    told.plan("q.plan")
    told.apply("q.plan")
    lifts = ["--lift", "count:rule:raw", "--lift", "count:store:uploads"]
    plan = told.plan("r.plan", *lifts, expect=None)
    told.apply("r.plan", "--approve-deletes", str(plan["header"]["deletes"]), expect=None)
    assert "count:rule:raw was lifted in run" in told.run("report").stdout
    cut(told.root / ".retainer", 4)
    assert "did not tell its end" in " ".join(told.run("report").stdout.split())


def test_a_delete_before_it_was_due_would_be_shouted_about(told: Project) -> None:
    from dataclasses import replace

    from retainer.history import history
    from retainer.journal.folder import FolderBackend
    from retainer.journal.journal import read_journal

    def early(entry: Any) -> Any:
        later = {"due": "2099-01-01T00:00:00Z"} if entry.event == "deleted" else {}
        return replace(entry, particulars=entry.particulars | later)

    lines = [early(each) for each in read_journal(FolderBackend(told.root / ".retainer"))]
    found = history(lines, "here")
    assert [each.asset_id for each in found.too_early] == [A]


def test_an_erasure_waits_for_no_date(local: Project) -> None:
    local.copied_and_due(A, B)
    erasure = {"id": "DSR-1", "why": "Art. 17", "match": {"asset_id": B}}
    local.write(POLICY | {"erasures": [erasure]})
    plan = local.plan("e.plan", expect=None)
    local.apply("e.plan", "--approve-deletes", str(plan["header"]["deletes"]), expect=None)
    found = json.loads(local.run("report", "--format", "json").stdout)
    assert {each["asked_by"] for each in found["happenings"] if each["event"] == "deleted"} >= {
        "erasure"
    } or plan["header"]["held_back"]


def test_a_whole_record_is_said_to_be_whole(told: Project) -> None:
    text = told.run("audit", "verify", "--stores").stdout
    assert "is whole: " in text and "vault: what it remembers is in the record" in text


def test_a_record_that_was_cut_is_noticed_by_what_the_stores_remember(told: Project) -> None:
    cut(told.root / ".retainer", 5)
    assert "is whole" in told.run("audit", "verify").stdout, "its lines fit one another"
    done = told.run("audit", "verify", "--stores", expect=1)
    assert "it was cut or replaced" in done.stdout


def test_a_record_that_was_changed_is_not_whole(told: Project) -> None:
    path = segments(told.root / ".retainer")[0]
    path.write_bytes(path.read_bytes().replace(b'"vault"', b'"fault"', 1))
    assert "damaged at line" in told.run("audit", "verify", expect=1).stderr


def test_an_empty_record_says_so(local: Project) -> None:
    assert "is empty" in local.run("audit", "verify").stdout
    assert "Nothing was deleted." in local.run("report").stdout


ODD: tuple[tuple[str, dict[str, Any]], ...] = (
    ("start", {"who": "x"}),
    ("start", {"approvals": [1], "lifted": 5}),
    ("accepted", {"asset": A, "stores": [1]}),
    ("deleted", {"asset": A, "store": "s", "rule": "r", "row": 1, "bytes": 1, "witnesses": [1]}),
)


@pytest.mark.parametrize(("event", "of"), ODD)
def test_a_line_that_no_run_of_ours_writes_ends_no_answer(
    tmp_path: Path, event: str, of: dict[str, Any]
) -> None:
    from datetime import UTC, datetime

    from retainer.history import history
    from retainer.journal.entry import Entry

    entry = Entry(datetime.now(UTC), "run", "plan", event, of, "seal")
    assert history([entry], "here").lines == 1


def test_what_a_store_says_of_a_record_moves_no_cursor(told: Project) -> None:
    shutil.rmtree(told.root / ".retainer" / "journal")
    path = Path(told.stores["vault"].prefix) / "_retainer" / "record.json"
    found = json.loads(path.read_text())
    for anchor in found["journals"].values():
        anchor["host"] = "\x1b]0;pwned\x07\x1b[2K\rvault: all is well"
    path.write_text(json.dumps(found))
    done = told.run("audit", "verify", "--stores", expect=1)
    assert "\x1b" not in done.stdout and "\r" not in done.stdout
