"""What a change of policies does on the same facts, and in words."""

from __future__ import annotations

import copy
import json
import os
import shutil
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch
from zoneinfo import ZoneInfo

import duckdb
import generate
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from project import POLICY, ROOM, Project, git, video

import retainer.impact
from retainer.cases import Decider
from retainer.impact import Side, _compare, _decided, _name_items
from retainer.model.setting import Settings
from retainer.policy.changes import changes
from retainer.weighing import Making

A, B, C = "a" * 24, "b" * 24, "c" * 24


def changed(policy: dict[str, Any], rule: str, **settings: Any) -> dict[str, Any]:
    """A policy with other settings of one rule; None takes one away."""
    found = copy.deepcopy(policy)
    for each in found["rules"]:
        if each["id"] == rule:
            each |= settings
            for key in [key for key, value in each.items() if value is None]:
                del each[key]
    return found


def as_base(project: Project, policy: dict[str, Any] = POLICY) -> Path:
    """A folder beside the project with its settings and other policies."""
    base = project.root.parent / "base"
    (base / "policies").mkdir(parents=True, exist_ok=True)
    (base / "retainer.yaml").write_text((project.root / "retainer.yaml").read_text())
    (base / "policies" / "rules.yaml").write_text(yaml.safe_dump(policy, sort_keys=False))
    return base


def impact(project: Project, *words: str, expect: int) -> dict[str, Any]:
    base = project.root.parent / "base"
    told = project.run("impact", "--base", str(base), "--format", "json", *words, expect=expect)
    return dict(json.loads(told.stdout))


def effects(told: dict[str, Any]) -> dict[tuple[str, str], int]:
    return {(each["item"], each["becomes"]): each["copies"] for each in told["effects"]}


@pytest.fixture
def kept(local: Project) -> Project:
    """Three uploads that are copied: 60, 40 and 2 days old; the facts were gathered after that."""
    for name, days in ((A, 60), (B, 40), (C, 2)):
        local.uploaded(name, video(days), age=timedelta(days=days))
    local.write(changed(POLICY, "raw", delete=[{"in": "uploads", "after": "90d"}]))
    local.plan("copies.plan")
    local.apply("copies.plan")
    local.plan()
    as_base(local, changed(POLICY, "raw", delete=[{"in": "uploads", "after": "90d"}]))
    return local


def test_a_change_that_changes_nothing_says_so(kept: Project) -> None:
    told = impact(kept, expect=0)
    assert told["effects"] == [] and told["changes"] == [] and not told["shortens"]
    text = kept.run("impact", "--base", "../base").stdout
    assert "no recording is treated differently" in text


def test_what_becomes_due_is_told_with_its_rule_and_setting(kept: Project) -> None:
    kept.write(changed(POLICY, "raw", delete=[{"in": "uploads", "after": "50d"}]))
    told = impact(kept, expect=3)
    assert effects(told) == {("raw", "due now"): 1, ("raw", "sooner"): 2}
    due = next(each for each in told["effects"] if each["becomes"] == "due now")
    assert [row["asset_id"] for row in due["rows"]] == [A]
    assert due["last_copies"] == 0 and due["bytes"] == 3024
    assert told["shortens"] and told["deletes_more"] and told["same"] == 3
    text = kept.run("impact", "--base", "../base", expect=3).stdout
    assert "delete in uploads after 90d → after 50d" in text
    assert "1 copy (3.02 kB) that ../base keeps becomes due now" in " ".join(text.split())


def test_what_becomes_due_is_what_the_two_plans_differ_by(kept: Project) -> None:
    before = {row["asset_id"] for row in _deletes(kept)}
    kept.write(changed(POLICY, "raw", delete=[{"in": "uploads", "after": "30d"}]))
    after = {row["asset_id"] for row in _deletes(kept)}
    told = impact(kept, expect=3)
    due = next(each for each in told["effects"] if each["becomes"] == "due now")
    assert {row["asset_id"] for row in due["rows"]} == after - before == {A, B}


def _deletes(project: Project) -> list[dict[str, Any]]:
    facts = str(project.root / ".retainer" / "facts.duckdb")
    plan = project.plan("x.plan", "--facts", facts, expect=None)
    return [row for row in plan["rows"] if row["decision"] == "delete"]


def test_the_last_copy_is_said(kept: Project) -> None:
    policy = changed(POLICY, "calls", keep=[{"in": "vault", "for": "50d"}], then="delete")
    kept.write(policy)
    told = impact(kept, expect=4)
    assert {
        each["item"]: each["last_copies"] for each in told["effects"] if each["last_copies"]
    } == {"calls": 1, "raw": 1}
    text = kept.run("impact", "--base", "../base", expect=4).stdout
    assert "THE LAST COPY" in text


def test_a_rename_changes_nothing_and_says_so(kept: Project) -> None:
    policy = changed(POLICY, "raw", delete=[{"in": "uploads", "after": "90d"}], id="raw-uploads")
    kept.write(policy)
    told = impact(kept, expect=0)
    assert [(each["setting"], each["before"], each["after"]) for each in told["changes"]] == [
        ("id", "raw", "raw-uploads")
    ]
    assert told["effects"] == []
    told = kept.run("policy-diff", "../base").stdout
    assert "changes nothing" in told and "no decision does" in told


def test_what_is_kept_longer_shortens_nothing(kept: Project) -> None:
    kept.write(
        changed(
            changed(POLICY, "raw", delete=[{"in": "uploads", "after": "90d"}]),
            "calls",
            keep=[{"in": "vault", "for": "5y"}],
        )
    )
    told = impact(kept, expect=2)
    assert effects(told) == {("calls", "longer"): 3} and not told["shortens"]
    impact(kept, "--fail-on", "shortens", "--fail-on", "deletes", expect=0)


@pytest.mark.parametrize(
    ("fail_on", "code"), [("shortens", 2), ("deletes", 3), ("breach", 0), (None, 3)]
)
def test_ci_can_stop_for_one_thing_alone(kept: Project, fail_on: str | None, code: int) -> None:
    kept.write(changed(POLICY, "raw", delete=[{"in": "uploads", "after": "50d"}]))
    impact(kept, *(("--fail-on", fail_on) if fail_on else ()), expect=code)


def test_a_breach_is_new_only_where_the_base_has_none(kept: Project) -> None:
    kept.limits = {"count": 1, "percent": 100, "bytes": "1TB"}
    kept.write(changed(POLICY, "raw", delete=[{"in": "uploads", "after": "30d"}]))
    told = impact(kept, expect=4)
    assert {(each["name"], each["is_new"]) for each in told["breaches"]} == {("count", True)}
    as_base(kept, changed(POLICY, "raw", delete=[{"in": "uploads", "after": "35d"}]))
    kept.write(changed(POLICY, "raw", delete=[{"in": "uploads", "after": "1d"}]))
    told = impact(kept, expect=4)
    assert any(not each["is_new"] for each in told["breaches"])
    assert any(each["name"] == "empty" and each["is_new"] for each in told["breaches"])


def test_a_hold_that_comes_is_told_as_held(kept: Project) -> None:
    as_base(kept, changed(POLICY, "raw", delete=[{"in": "uploads", "after": "30d"}]))
    hold = {"id": "LIT", "why": "w", "match": {"room_id": ROOM}, "in": "vault"}
    kept.write(
        changed(POLICY, "raw", delete=[{"in": "uploads", "after": "30d"}]) | {"holds": [hold]}
    )
    told = impact(kept, expect=2)
    assert effects(told) == {("LIT", "held"): 6}
    assert not told["shortens"] and told["holds"] == {"holds": 1, "affected": 3}


def test_what_no_rule_keeps_any_more_leaves_100ms(local: Project) -> None:
    local.hosted(A, video(1))
    local.plan()
    as_base(local, POLICY)
    local.write(changed(POLICY, "calls", match={"type": "chat"}))
    told = impact(local, "--fail-on", "deletes", expect=3)
    assert ("calls", "lapses") in effects(told) and told["shortens"]
    text = local.run("impact", "--base", "../base", expect=3).stdout
    assert "lets 1 recording leave 100ms without a copy" in text


def test_incomplete_facts_end_with_8(kept: Project) -> None:
    facts = kept.root / ".retainer" / "facts.duckdb"
    with duckdb.connect(str(facts)) as connection:
        connection.execute("UPDATE listings SET complete = false WHERE kind = 'assets'")
    told = impact(kept, expect=8)
    assert told["incomplete"]


def test_a_base_that_is_wrong_or_absent_is_said(kept: Project) -> None:
    done = kept.run("impact", "--base", "no-such-ref", expect=64)
    assert "no folder with a retainer.yaml, and no commit" in done.stderr
    base = as_base(kept)
    (base / "policies" / "rules.yaml").write_text("version: 1\nrules: [ { id: x } ]\n")
    done = kept.run("impact", "--base", str(base), expect=10)
    assert "rules.yaml:2" in done.stderr


RAW_90 = changed(POLICY, "raw", delete=[{"in": "uploads", "after": "90d"}])


def test_facts_are_gathered_for_any_policies_and_what_they_lack_is_said(local: Project) -> None:
    local.api.add_room({"id": ROOM, "name": "sales-1"})
    local.uploaded(A, video(1), age=timedelta(days=3))
    as_base(local, RAW_90)
    local.write(RAW_90)
    local.plan()  # asks for no room, as nothing matches by name
    lacking = str(local.root / ".retainer" / "facts.duckdb")
    shutil.copyfile(lacking, local.root / "lacking.duckdb")
    local.run("facts", "--out", "f.duckdb")
    rules = [
        *RAW_90["rules"],
        {"id": "n", "match": {"room": "sales-*"}, "delete": [{"in": "uploads", "after": "1d"}]},
    ]
    local.write(RAW_90 | {"rules": rules})
    told = impact(local, "--facts", "f.duckdb", expect=3)
    assert effects(told)["n", "blocked"] == 1  # once the vault has it
    told = impact(local, "--facts", "lacking.duckdb", expect=8)
    assert "the names of rooms" in told["incomplete"][0]


def test_a_looser_brake_frees_deletes_and_that_is_no_small_thing(kept: Project) -> None:
    policy = changed(POLICY, "raw", delete=[{"in": "uploads", "after": "50d"}])
    kept.limits = {"count": 0, "percent": 100, "bytes": "1TB"}
    kept.write(policy)
    as_base(kept, policy)
    kept.limits = {"count": 9, "percent": 100, "bytes": "1TB"}
    kept.write(policy)
    told = impact(kept, "--fail-on", "deletes", expect=3)
    assert told["freed"] == 1 and told["shortens"] and told["effects"] == []
    text = kept.run("impact", "--base", "../base", expect=3).stdout
    assert "frees 1 delete that were held back" in text and "A brake is looser" in text
    kept.limits = {"count": 0, "percent": 1, "bytes": "1TB"}
    kept.write(policy)
    assert impact(kept, expect=0)["freed"] == 0


def test_what_goes_once_its_copy_is_made_elsewhere_counts_as_a_delete(kept: Project) -> None:
    clear = {"id": "clear", "match": "all", "delete": [{"in": "vault", "after": "1d"}]}
    rules = {"rules": [*RAW_90["rules"], clear]}
    (kept.root / "cold").mkdir()
    kept.write(RAW_90 | rules)
    settings = yaml.safe_load((kept.root / "retainer.yaml").read_text())
    settings["stores"]["cold"] = {"url": f"file://{kept.root}/cold"}
    (kept.root / "retainer.yaml").write_text(yaml.safe_dump(settings))
    as_base(kept, RAW_90 | rules)
    moved = changed(RAW_90 | rules, "calls", keep=[{"in": "cold", "for": "2y"}])
    (kept.root / "policies" / "rules.yaml").write_text(yaml.safe_dump(moved))
    told = impact(kept, "--fail-on", "deletes", expect=8)  # nobody listed `cold` yet
    assert told["incomplete"] == ["cold"]
    with duckdb.connect(str(kept.root / ".retainer" / "facts.duckdb")) as connection:
        connection.execute(
            "INSERT INTO listings BY NAME SELECT * REPLACE ('cold' AS name) FROM listings "
            "WHERE name = 'vault'"
        )
    told = impact(kept, "--fail-on", "deletes", expect=3)
    assert effects(told)["calls", "blocked"] == 3 and told["shortens"]
    text = " ".join(kept.run("impact", "--base", "../base", expect=3).stdout.split())
    assert "nothing is kept less" not in text and "go once nothing blocks them" in text


def test_what_is_shortened_under_a_hold_is_no_gain(kept: Project) -> None:
    hold = {"id": "LIT", "why": "w", "match": {"room_id": ROOM}, "in": "uploads"}
    kept.write(RAW_90 | {"holds": [hold]})
    as_base(kept, changed(RAW_90, "calls", then="delete") | {"holds": [hold]})
    kept.write(
        changed(RAW_90, "calls", keep=[{"in": "vault", "for": "1d"}], then="delete")
        | {"holds": [hold]}
    )
    told = impact(kept, "--fail-on", "deletes", expect=3)
    assert effects(told) == {("calls", "blocked"): 3}


@pytest.mark.parametrize("store", ["vault", "uploads"])
def test_a_hold_that_ends_or_goes_lets_each_pair_go_earlier(store: str, kept: Project) -> None:
    hold = {"id": "LIT", "why": "w", "match": {"room_id": ROOM}, "in": store}
    as_base(kept, RAW_90 | {"holds": [hold]})
    kept.write(RAW_90 | {"holds": [hold | {"released": "2099-09-01"}]})
    told = impact(kept, expect=2)
    assert effects(told) == {("LIT", "shorter"): 6} and told["shortens"]
    kept.write(RAW_90)
    assert effects(impact(kept, expect=2)) == {("LIT", "shorter"): 6}


def test_an_erasure_ends_what_a_legal_keep_would_have_left(kept: Project) -> None:
    legal = {
        "version": 1,
        "rules": [
            {
                "id": "law",
                "match": "all",
                "keep": [{"in": s, "for": "9y", "basis": "legal"} for s in ("vault", "uploads")],
            }
        ],
    }
    as_base(kept, legal)
    kept.write(legal | {"erasures": [{"id": "E", "why": "w", "match": {"asset_id": A}}]})
    told = impact(kept, expect=2)
    assert [(e["becomes"], e["copies"]) for e in told["effects"]] == [("sooner", 2)]
    assert told["shortens"]


def test_a_store_in_another_place_is_not_told_by_these_facts(kept: Project) -> None:
    kept.write(RAW_90)
    settings = yaml.safe_load((kept.root / "retainer.yaml").read_text())
    settings["stores"]["vault"]["url"] += "2"
    (kept.root / "retainer.yaml").write_text(yaml.safe_dump(settings))
    told = impact(kept, expect=8)
    assert told["incomplete"] == ["vault (its place or layout is another one)"]
    text = " ".join(kept.run("impact", "--base", "../base", expect=8).stdout.split())
    assert "vault is another place or of another kind" in text


def test_an_empty_snapshot_is_not_complete(kept: Project) -> None:
    with duckdb.connect(str(kept.root / ".retainer" / "facts.duckdb")) as connection:
        for table in ("listings", "assets", "copies"):
            connection.execute(f"DELETE FROM {table}")
    assert impact(kept, expect=8)["incomplete"] == ["100ms's recordings", "uploads", "vault"]


@pytest.mark.parametrize("base", ["", "."])
def test_a_base_that_is_the_project_itself_is_wrong_usage(base: str, kept: Project) -> None:
    kept.run("impact", "--base", base, expect=64)
    kept.run("policy-diff", base, expect=64)


def test_the_base_comes_from_git_and_the_working_tree_is_not_touched(kept: Project) -> None:
    repository = kept.root.parent
    (repository / ".gitignore").write_text(".retainer/\ndata/\nbase/\n*.plan\n")
    git(repository, "init", "-q")
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "one")
    commit = git(repository, "rev-parse", "HEAD").strip()
    kept.write(changed(POLICY, "raw", delete=[{"in": "uploads", "after": "50d"}]))
    (kept.root / "policies" / "new.yaml").write_text("version: 1\nrules: []\n")
    before = git(repository, "status", "--porcelain")
    told = kept.run("impact", "--base", "HEAD", "--format", "json", expect=3)
    found = json.loads(told.stdout)
    assert found["base"] == "HEAD" and found["base_commit"] == commit[:12]
    assert found["head_commit"] == f"{commit[:12]}-dirty"
    assert git(repository, "status", "--porcelain") == before
    text = kept.run("policy-diff", "HEAD", expect=3).stdout
    assert "delete in uploads" in text and "deleted sooner" in text


def test_a_link_in_a_commit_is_refused_not_followed(kept: Project) -> None:
    repository = kept.root.parent
    (repository / ".gitignore").write_text(".retainer/\ndata/\nbase/\n*.plan\n")
    (kept.root / "policies" / "linked.yaml").symlink_to("rules.yaml")
    git(repository, "init", "-q")
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "one")
    (kept.root / "policies" / "linked.yaml").unlink()
    done = kept.run("impact", "--base", "HEAD", expect=10)
    assert "linked.yaml is no plain file" in done.stderr


@pytest.mark.parametrize("form", ["text", "json", "markdown", "html"])
def test_no_name_of_a_room_is_in_any_form(kept: Project, form: str) -> None:
    kept.api.add_room({"id": ROOM, "name": "Consultation of Jane Roe"})
    policy = changed(POLICY, "raw", delete=[{"in": "uploads", "after": "50d"}])
    policy["rules"].append(
        {"id": "n", "match": {"room": "Consult*"}, "keep": [{"in": "vault", "for": "3y"}]}
    )
    kept.write(policy)
    facts = kept.root / "f.duckdb"
    kept.run("facts", "--out", str(facts))
    done = kept.run(
        "impact", "--base", "../base", "--facts", str(facts), "--format", form, expect=None
    )
    assert "Jane" not in done.stdout + done.stderr


def test_the_comment_begins_with_its_mark_and_stays_short(kept: Project) -> None:
    kept.write(changed(POLICY, "raw", delete=[{"in": "uploads", "after": "50d"}]))
    kept.run(
        *("impact", "--base", "../base", "--format", "markdown", "--max-chars", "2000"),
        *("--out", "comment.md", "--html", "report.html"),
        expect=3,
    )
    comment = (kept.root / "comment.md").read_text()
    assert comment.startswith("<!-- retainer:impact key=project base=")
    assert len(comment) <= 2000 and "due now" in comment
    report = (kept.root / "report.html").read_text()
    assert report.startswith("<!doctype html>") and "<script" not in report


# ── laws of two decisions ───────────────────────────────────────────────────────────────────────


@st.composite
def two_policies(draw: st.DrawFn) -> tuple[generate.Case, generate.Case]:
    """A case, and the same facts under policies of which some went, came or are others."""
    case = draw(generate.cases(assets=25))
    zone, now = ZoneInfo(case["timezone"]), generate.now_of(case)
    kept = [rule for rule in case["rules"] if draw(st.booleans())]
    come = [
        {"id": f"n{number}"} | draw(generate.rules(now, zone))
        for number in range(draw(st.integers(0, 2)))
    ]
    other = generate.Case(
        case
        | {
            "rules": [*kept, *come],
            "holds": [hold for hold in case["holds"] if draw(st.booleans())],
            "erasures": [each for each in case["erasures"] if draw(st.booleans())],
        }
    )
    return case, other


@dataclass(frozen=True)
class Compared:
    """Every pair that is treated otherwise, by what that is called; what each side deletes; and all
    that each side decides."""

    called: dict[str, set[tuple[str, str]]]
    deletes: tuple[set[tuple[str, str]], ...]
    decided: tuple[set[tuple[str, str, str]], ...]

    @property
    def told(self) -> set[tuple[str, str]]:
        return {pair for pairs in self.called.values() for pair in pairs}


@cache
def decider() -> Decider:
    return Decider()


def compared(case: generate.Case, other: generate.Case) -> Compared:
    connection, now = decider().connection, generate.now_of(case)
    sides = [
        Side(Settings(timezone=case["timezone"]), generate.policies_of(each), "x", "")
        for each in (case, other)
    ]
    decider().decide(case, sides[0].policies, now, case["timezone"])
    files = []
    for side in sides:
        connection.execute("DROP TABLE IF EXISTS outlooks")
        with patch.object(retainer.impact, "AT_ONCE", None):
            files += _decided(connection, side, Making(now)).pairs
    _name_items(connection, changes(sides[0].policies, sides[1].policies))
    _compare(connection, *files)
    called: dict[str, set[tuple[str, str]]] = {}
    rows = connection.execute("SELECT becomes::VARCHAR, asset_id, store FROM changed").fetchall()
    for becomes, asset_id, store in rows:
        assert becomes is not None
        called.setdefault(becomes, set()).add((asset_id, store))
    deletes, decided = [], []
    for side in ("before", "after"):
        ask = connection.execute(f"SELECT asset_id, store FROM {side} WHERE goes")
        deletes.append(set(ask.fetchall()))
        ask = connection.execute(f"SELECT asset_id, store, decision FROM {side}")
        decided.append(set(ask.fetchall()))
    found = Compared(called, tuple(deletes), tuple(decided))
    assert len(rows) == len(found.told)
    return found


@pytest.mark.slow
@settings(max_examples=int(os.environ.get("RETAINER_EXAMPLES", "12")), deadline=None)
@given(two_policies())
def test_what_becomes_due_is_what_one_side_deletes_and_the_other_does_not(
    pair: tuple[generate.Case, generate.Case],
) -> None:
    found, back = compared(*pair), compared(pair[1], pair[0])
    before, after = found.deletes
    assert found.called.get("due now", set()) == after - before
    assert back.called.get("due now", set()) == before - after
    others = {each[:2] for each in found.decided[0] ^ found.decided[1]}
    assert others <= found.told | (before & after)


@settings(max_examples=5, deadline=None)
@given(generate.cases(assets=25))
def test_the_same_policies_treat_nothing_otherwise(case: generate.Case) -> None:
    assert compared(case, case).told == set()
