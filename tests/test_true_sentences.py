"""Sentences that were false once: each is true now, on real runs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import duckdb
import pytest
import yaml
from project import POLICY, ROOM, Project, git, video

pytestmark = pytest.mark.slow

A, B, C = "a" * 24, "b" * 24, "c" * 24


def told(project: Project, *words: str, expect: int | None = 0) -> str:
    return " ".join(project.run(*words, expect=expect).stdout.split())


@pytest.fixture
def due(local: Project) -> Project:
    return local.copied_and_due(A, B)


def test_not_all_is_well_where_the_api_was_down(local: Project) -> None:
    local.hosted(A, video(1))
    local.run("plan")
    facts = local.root / ".retainer" / "facts.duckdb"
    with duckdb.connect(str(facts)) as connection:
        connection.execute("UPDATE listings SET complete = false WHERE kind = 'assets'")
        connection.execute("DELETE FROM assets")
    text = told(local, "plan", "--facts", str(facts), "--out", "x.plan", expect=8)
    assert "The stores are as the policies want them" not in text
    assert "Next: retainer plan, when what did not finish can be read again" in text


def test_an_erasure_has_the_date_of_its_request_and_of_no_other_rule(due: Project) -> None:
    due.write(
        POLICY
        | {
            "rules": [
                *POLICY["rules"],
                {"id": "later", "match": "all", "delete": [{"in": "uploads", "after": "2y"}]},
            ],
            "erasures": [
                {"id": "DSR", "why": "w", "match": {"asset_id": B}, "requested": "2026-11-01"}
            ],
        }
    )
    text = told(due, "plan", expect=None)
    erased = text.split("by DSR", 1)[1].split(" - ", 1)[0]
    assert "erased, as requested on 2026-11-01" in erased and "due since" not in erased


def test_lifted_limits_hold_nothing_back(due: Project) -> None:
    due.limits = {"count": 0, "percent": 100, "bytes": "1TB"}
    due.write()
    text = told(due, "plan", expect=4)
    assert "The deletes of this plan are held back, its copies can run: limit count" in text
    lifts = ("--lift", "count:store:uploads", "--lift", "count:rule:raw")
    text = told(due, "plan", *lifts)
    assert "held back" not in text and "Limits are breached, and lifted." in text


def test_the_keep_that_was_the_last_to_end_is_named_beside_the_rule_that_deletes(
    local: Project,
) -> None:
    keep = {"id": "classes", "match": {"type": "room-composite"}}
    local.uploaded(A, video(1), age=timedelta(days=60))
    local.write(
        {
            "version": 1,
            "rules": [
                keep | {"keep": [{"in": "uploads", "for": "50d"}]},
                {"id": "raw", "match": "all", "delete": [{"in": "uploads", "after": "30d"}]},
            ],
        }
    )
    text = told(local, "plan", expect=None)
    assert "by raw (policies/rules.yaml" in text and "classes kept it until then" in text
    explained = told(local, "explain", A)
    assert "until when classes kept it, by raw" in explained


def test_whence_the_deletes_of_the_last_day_are_known_is_said(due: Project) -> None:
    assert "with the deletes of the last 24 hours, here and on other machines" in told(due, "plan")
    facts = due.root / "facts.duckdb"
    due.run("facts", "--out", str(facts))
    elsewhere = due.root.parent / "elsewhere"
    shutil.copytree(due.root, elsewhere, ignore=shutil.ignore_patterns(".retainer"))
    text = told(
        Project(elsewhere, due.api, due.stores), "plan", "--facts", str(facts), "--out", "x.plan"
    )
    assert "that the stores remember; there is no journal here" in text
    with duckdb.connect(str(facts)) as connection:
        connection.execute("UPDATE listings SET anchors = NULL")
    text = told(
        Project(elsewhere, due.api, due.stores), "plan", "--facts", str(facts), "--out", "x.plan"
    )
    assert "without the deletes of the last 24 hours: there is no journal here" in text


def test_deletes_that_a_snapshot_remembers_count_in_a_plan_made_elsewhere(due: Project) -> None:
    due.apply("p.plan", "--approve-deletes", "1")
    due.uploaded(C, video(9), age=timedelta(days=90))
    due.plan("c.plan")
    due.apply("c.plan")
    facts = due.root / "facts.duckdb"
    due.run("facts", "--out", str(facts))
    elsewhere = due.root.parent / "elsewhere"
    shutil.copytree(due.root, elsewhere, ignore=shutil.ignore_patterns(".retainer"))
    plan = Project(elsewhere, due.api, due.stores).plan("x.plan", "--facts", str(facts))
    limit = next(
        each
        for each in plan["header"]["limits"]
        if (each["name"], each["scope"]) == ("count", "rule:raw")
    )
    assert (limit["used"], limit["lately"]) == (2, 1)


def test_a_plan_of_old_facts_can_be_read_not_applied(due: Project) -> None:
    facts = due.root / "old.duckdb"
    shutil.copyfile(due.root / ".retainer" / "facts.duckdb", facts)
    with duckdb.connect(str(facts)) as connection:
        connection.execute(
            "UPDATE listings SET started_at = started_at - INTERVAL 3 DAY, "
            "finished_at = finished_at - INTERVAL 3 DAY"
        )
    text = told(due, "plan", "--facts", str(facts), "--out", "x.plan")
    assert "from facts that are 3 days old" in text.split("!")[0]
    assert "This plan can be read, not applied: its facts are of" in text
    assert "Next: retainer apply" not in text and "before 20" not in text
    assert "expired" in due.run("apply", "x.plan", expect=5).stderr


def test_a_plan_for_a_later_day_is_not_said_to_be_applied_next(due: Project) -> None:
    text = told(due, "plan", "--as-of", "2031-01-01", "--out", "x.plan", expect=None)
    assert "which is still to come" in text and "Next: retainer apply" not in text


def test_what_is_left_after_exit_4_is_said_with_its_reason(due: Project) -> None:
    due.limits = {"count": 0, "percent": 100, "bytes": "1TB"}
    due.write()
    due.run("plan", "--out", "x.plan", expect=4)
    text = told(due, "apply", "x.plan", expect=4)
    assert "goes on where this run ended" not in text
    assert "nothing is left to do but 1 delete, held back: limit count of" in text
    assert "until the policies or `limits:` change, or a person lifts it" in text


def test_what_the_last_day_alone_holds_back_is_free_when_it_is_over(due: Project) -> None:
    due.limits = {"count": 1, "percent": 100, "bytes": "1TB"}
    due.write()
    due.run("plan", "--out", "x.plan")
    due.apply("x.plan", "--approve-deletes", "1")
    due.uploaded(C, video(9), age=timedelta(days=90))
    due.run("plan", "--out", "y.plan")
    due.apply("y.plan")
    text = told(due, "plan", expect=4)
    assert "what was deleted in the last 24 hours counts too: plan again by" in text


def test_what_disappears_is_a_change_too(local: Project) -> None:
    local.hosted(A, video(1), kind="track")
    local.plan()
    text = told(local, "explain", A)
    assert "if nothing else has changed by then: . nothing lies in hosted any more" in text


def test_the_age_of_facts_is_counted_from_now(local: Project) -> None:
    local.hosted(A, video(1))
    local.plan()
    text = told(local, "explain", A, "--as-of", "2031-01-01")
    assert re.search(r"from facts gathered \d+ seconds? ago type", text)
    text = told(local, "plan", "--as-of", "2031-01-01")
    assert re.search(r"from facts that are \d+ seconds? old", text)


def test_mistakes_in_settings_and_policies_are_told_together(local: Project) -> None:
    settings = yaml.safe_load((local.root / "retainer.yaml").read_text())
    settings["timezon"] = "UTC"
    settings["stores"]["vault"]["regoin"] = "eu-west-1"
    (local.root / "retainer.yaml").write_text(yaml.safe_dump(settings))
    local_policy = {
        "version": 1,
        "rules": [
            {"id": "a b", "match": {"type": "caht"}, "keep": [{"in": "valut", "for": "6m"}]},
            {"id": "c", "match": "all", "keep": [{"in": "vault", "for": "1d", "after": "2d"}]},
        ],
    }
    (local.root / "policies" / "rules.yaml").write_text(yaml.safe_dump(local_policy))
    out = local.run("validate", expect=10).stderr
    for code in ("P101", "P105", "P104", "P202", "P208", "P204"):
        assert code in out, code


def test_what_did_not_exist_yet_is_not_said_to_have_no_age(local: Project) -> None:
    local.hosted(A, video(1), age=timedelta(hours=2))
    local.plan()
    then = (datetime.now(UTC) - timedelta(days=3)).strftime("%Y-%m-%dT%H:%M:%SZ")
    text = told(local, "plan", "--as-of", then, "--out", "x.plan")
    assert "it was not made yet then (recorded" in text and "its age is not known" not in text


def test_a_rule_that_may_not_ask_for_a_copy_is_said_to_perhaps(local: Project) -> None:
    local.hosted(A, video(1), age=timedelta(days=13))
    local.api.faults.rooms_fail = True
    local.impatient = True
    local.write(
        {
            "version": 1,
            "rules": [
                {"id": "classes", "match": {"room": "c*"}, "keep": [{"in": "vault", "for": "1y"}]}
            ],
        }
    )
    text = told(local, "plan", expect=8)
    assert "1 copy to vault, 3.02 kB, perhaps for classes" in text


def test_recordings_are_counted_as_recordings_and_copies_as_copies(local: Project) -> None:
    for name in (A, B):
        local.hosted(name, video(1))
    local.write(
        {
            "version": 1,
            "rules": [
                {
                    "id": "two",
                    "match": "all",
                    "keep": [{"in": "vault", "for": "1y"}, {"in": "uploads2", "for": "1y"}],
                }
            ],
        }
    )
    settings = yaml.safe_load((local.root / "retainer.yaml").read_text())
    settings["stores"]["uploads2"] = {"url": f"file://{local.root}/data2"}
    (local.root / "data2").mkdir()
    (local.root / "retainer.yaml").write_text(yaml.safe_dump(settings))
    assert "Make 4 copies of 2 recordings" in told(local, "plan")


def test_a_certain_hold_says_so_with_its_id(due: Project) -> None:
    hold = {"id": "LIT-1", "why": "w", "match": {"room_id": ROOM}, "in": "vault"}
    due.write(POLICY | {"holds": [hold]})
    text = told(due, "plan")
    assert "the hold LIT-1 covers it" in text and "may cover" not in text
    assert "the hold LIT-1 covers it" in told(due, "explain", A)
    due.write(POLICY | {"holds": [hold | {"match": {"user_id": "u"}}]})
    assert "a hold may cover it" not in told(due, "plan", expect=None)
    due.write(POLICY | {"holds": [hold | {"match": {"not": {"user_id": "u"}}}]})
    assert "a hold may cover it" in told(due, "plan", expect=None)


def test_a_plan_of_the_earlier_format_is_still_read(due: Project) -> None:
    """Column `also` came with 4.2: what an older plan lacks is not there."""
    from retainer.database import connect
    from retainer.planfile import COLUMNS, _take_rows

    plan = due.root / "p.plan"
    older = due.root / "older.parquet"
    with duckdb.connect() as connection:
        columns = ", ".join(name for name in COLUMNS if name != "also")
        connection.execute(
            f"COPY (SELECT {columns} FROM read_parquet('{plan}')) TO '{older}' (FORMAT parquet)"
        )
    with connect(due.root) as connection:
        _take_rows(connection, older)
        rows = connection.execute("SELECT count(*), count(also) FROM plan").fetchone()
    assert rows is not None and rows[0] > 0 and rows[1] == 0


def test_duckdb_reads_a_plan_as_the_docs_say(due: Project) -> None:
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            "import duckdb; print(duckdb.sql(\"FROM read_parquet('p.plan')\").fetchall()[0][1])",
        ],
        cwd=due.root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() in (A, B)
    assert json.loads(due.run("show", "p.plan", "--format", "jsonl").stdout.splitlines()[0])


def test_a_plan_that_was_applied_is_not_said_to_be_applied_next(due: Project) -> None:
    deletes = due.plan("p.plan")["header"]["deletes"]
    assert "Next: retainer apply p.plan" in told(due, "show", "p.plan")
    due.apply("p.plan", "--approve-deletes", str(deletes))
    text = told(due, "show", "p.plan")
    assert (
        "Next: nothing: this plan was applied, to its end." in text and "Next: retainer" not in text
    )


def test_a_commit_is_that_of_the_project_whatever_git_is_told_of_another(
    due: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "start"]):
        git(due.root, *words)
    head = git(due.root, "rev-parse", "HEAD").strip()
    monkeypatch.setenv("GIT_DIR", str(due.root.parent))  # as a hook of another repository has it
    assert due.plan("p.plan")["header"]["git_commit"] == head


def test_what_is_explained_has_its_units(due: Project) -> None:
    text = told(due, "explain", A)
    assert "size 3.02 kB (3,024 B)" in text and " UTC (" in text.split("created ", 1)[1][:40]


def test_a_catalog_that_is_whole_already_is_said_to_be(due: Project) -> None:
    text = told(due, "catalog", "rebuild", "vault")
    assert "0 objects in vault (2 objects are in the catalog already)" in text


def test_the_age_of_facts_that_an_impact_rests_on_is_said(due: Project) -> None:
    base = due.root.parent / "base"
    shutil.copytree(due.root, base, ignore=shutil.ignore_patterns(".retainer"))
    due.run("plan", expect=None)
    facts = due.root / ".retainer" / "facts.duckdb"
    assert "days old" not in told(due, "impact", "--base", "../base").split("retainer 0.")[0]
    with duckdb.connect(str(facts)) as connection:
        connection.execute("UPDATE listings SET finished_at = finished_at - INTERVAL 5 DAY")
    assert "These facts are 5 days old" in told(due, "impact", "--base", "../base")
