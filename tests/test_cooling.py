"""What a keep had promised that was shortened or taken out still counts for a while, as the commits
of earlier applies say it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import test_in_doubt as in_doubt
import yaml
from conftest import make_store
from project import Project, git, pairs, video

from retainer import applying
from retainer.journal.journal import Journal
from retainer.planfile import Header, read_plan

A, B = ("6544d1e2f3a4b5c6d7e8f90" + each for each in "ab")
LONG, SHORT = "1y", "20d"


def policy(period: str | None, **more: Any) -> dict[str, Any]:
    """`uploads` is cleared by another rule, which nothing else depends on."""
    rules: list[dict[str, Any]] = [{"id": "ends", "match": {"type": "chat"}, "at_most": "9y"}]
    if period:
        keep = {"in": "vault", "for": period}
        rules.append({"id": "calls", "match": "all", "keep": [keep], "then": "delete"} | more)
    return {"version": 1, "rules": rules}


def begun(project: Project) -> Project:
    """A repository whose commits hold settings and policies alone."""
    (project.root / ".gitignore").write_text(
        "*\n!.gitignore\n!retainer.yaml\n!policies\n!policies/*\n"
    )
    git(project.root, "init", "-q")
    return project


def commit(project: Project, policies: dict[str, Any], cooling: str | None = "30d") -> None:
    write(project, policies, cooling)
    git(project.root, "add", "-A")
    git(project.root, "commit", "-qm", "policies", "--allow-empty")


def write(project: Project, policies: dict[str, Any], cooling: str | None) -> None:
    project.write(policies)
    path = project.root / "retainer.yaml"
    settings = yaml.safe_load(path.read_text())
    if cooling:
        settings["limits"]["cooling"] = cooling
    path.write_text(yaml.safe_dump(settings))


def header(project: Project, *words: str, expect: int = 0) -> Header:
    project.run("plan", "--out", "p.plan", *words, expect=expect)
    return read_plan(project.root / "p.plan").header


@pytest.fixture
def applied(local: Project) -> Project:
    """A copy of forty days, which by a commit is to be kept for a year, as an apply knows; and a
    young one, so that nothing is emptied."""
    commit(begun(local), policy(LONG))
    local.uploaded(A, video(1))
    local.uploaded(B, video(2), age=timedelta(days=2))
    header(local)
    local.apply()
    return local


def test_a_shortened_keep_still_counts_as_it_was(applied: Project) -> None:
    commit(applied, policy(SHORT))
    made = header(applied)
    assert made.deletes == 0
    (cooled,) = made.cooled
    assert (cooled.rule, cooled.kept, cooled.store, cooled.until) == ("calls", LONG, "vault", None)
    assert cooled.at.endswith(":policies/rules.yaml:7") and len(cooled.at.split(":")[0]) == 8
    said = " ".join(applied.run("show", "p.plan").stdout.split())
    assert "1 keep was shortened or taken out, and still counts as it was" in said
    assert f"rule calls ({cooled.at})" in applied.run("explain", A).stdout


def test_a_keep_that_is_gone_still_asks_for_copies(applied: Project) -> None:
    commit(applied, policy(None))
    applied.uploaded("c" * 24, video(3), age=timedelta(days=1))
    made = header(applied)
    assert (made.copies, made.deletes) == (1, 0)


def test_it_ends_when_its_time_is_over_from_the_first_apply_by_other_policies(
    applied: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(applied, policy(SHORT))
    header(applied)
    applied.apply()
    (cooled,) = header(applied).cooled
    assert cooled.until is not None
    until = datetime.fromisoformat(cooled.until)
    assert timedelta(days=29, hours=23) < until - datetime.now(UTC) < timedelta(days=30, hours=1)
    as_of = (until + timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    made = header(applied, "--as-of", as_of, expect=4)  # the young one too, so that all is gone
    assert (made.cooled, made.deletes) == ([], 2)


def test_without_cooling_or_with_a_lift_it_does_not_count(applied: Project) -> None:
    commit(applied, policy(SHORT), cooling=None)
    assert header(applied).deletes == 1
    commit(applied, policy(SHORT))
    made = header(applied, "--lift", "cooling:policies")
    assert (made.deletes, made.cooling_lifted, made.held_back) == (1, True, [])
    applied.apply("p.plan", "--approve-deletes", "1")
    starts = [each for each in applied.journal() if each["event"] == "start"]
    assert starts[-1]["of"]["lifted"] == ["cooling:policies"]


def test_a_longer_keep_and_a_new_ceiling_clash_with_nothing_that_cools(applied: Project) -> None:
    commit(applied, policy("2y"))
    made = header(applied)
    assert (len(made.cooled), made.clashes, made.deletes) == (1, [], 0)
    commit(applied, policy(None) | {"rules": [{"id": "top", "match": "all", "at_most": "30d"}]})
    made = header(applied)
    assert (made.clashes, made.held_back) == ([], [])
    due = read_plan(applied.root / "p.plan").connection.execute(
        "SELECT store FROM plan WHERE decision = 'delete'"
    )
    assert due.fetchall() == [("uploads",)], "no keep ever asked for it there"


@pytest.mark.parametrize("loses", ["commit", "changes"])
def test_where_the_earlier_policies_cannot_be_read_nothing_is_deleted(
    applied: Project, loses: str
) -> None:
    if loses == "changes":  # applied as they were in no commit
        write(applied, policy("3y"), "30d")
        header(applied)
        applied.apply()
    commit(applied, policy(SHORT))
    if loses == "commit":  # a clone that does not go back so far
        for each in (applied.root / ".git").glob("objects/??/*"):
            each.chmod(0o600)
        git(applied.root, "checkout", "--orphan", "alone")
        git(applied.root, "commit", "-qm", "alone")
        git(applied.root, "branch", "-D", "master")
        git(applied.root, "reflog", "expire", "--expire=now", "--all")
        git(applied.root, "gc", "--prune=now", "-q")
    made = header(applied, expect=4 if loses == "commit" else 0)
    if loses == "changes":
        assert made.deletes == 0, "what is known of the year still counts"
        assert "no commit of git is known" in made.cooling_unknown
        return
    assert made.deletes == 1
    assert any("is not known" in each for each in made.held_back)
    assert "--lift cooling:policies" in applied.run("show", "p.plan").stdout
    applied.apply("p.plan", "--approve-deletes", "1", expect=4)
    assert len(applied.content("vault")) == 2
    assert header(applied, "--lift", "cooling:policies").held_back == []


def test_a_plan_made_without_the_record_deletes_nothing_that_still_counts(applied: Project) -> None:
    commit(applied, policy(SHORT))
    applied.run("facts", "--out", "facts.duckdb")
    state, aside = applied.root / ".retainer", applied.root / "aside"
    state.rename(aside)  # as in CI, where no record is
    made = header(applied, "--facts", "facts.duckdb")
    assert made.deletes == 1
    for each in applied.root.glob(".retainer"):
        each.rename(applied.root / "of-ci")
    aside.rename(state)
    applied.apply("p.plan", "--approve-deletes", "1", expect=4)
    said = applied.run("apply", "p.plan", "--approve-deletes", "1", expect=4)
    assert "still count, and this plan was made without them" in said.stdout + said.stderr
    assert len(applied.content("vault")) == 2


def test_what_would_cool_for_ever_is_a_mistake(applied: Project) -> None:
    write(applied, policy(SHORT), "forever")
    assert "P208" in applied.run("validate", expect=10).stderr


# ── what a reviewer broke ─────────────────────────────────────────────────────────────────────────

LATER = {
    "version": 1,
    "rules": [
        {"id": "k", "match": "all", "keep": [{"in": "vault", "for": "7y", "after": "100d"}]},
        {"id": "raw", "match": "all", "delete": [{"in": "uploads", "after": "30d"}]},
    ],
}


def kept_in(store: str) -> dict[str, Any]:
    keep = {"in": store, "for": "200d"}
    return {"version": 1, "rules": [{"id": "u", "match": "all", "keep": [keep]}]}


@pytest.mark.parametrize("store", ["uploads", "cold"])
def test_what_cools_takes_the_place_of_no_keep_that_has_not_begun(
    local: Project, store: str
) -> None:
    """It only adds to what is kept: with it there is no copy less, and no delete more."""
    if store == "cold":
        local.stores["cold"] = make_store("local", "", local.root / "data", name="cold")
    commit(begun(local), kept_in(store))
    local.uploaded(A, video(1))
    local.uploaded(B, video(2), age=timedelta(days=2))
    local.plan("first.plan")
    local.apply("first.plan")
    commit(local, LATER)
    local.hosted("c" * 24, video(3), age=timedelta(days=12))
    lifted = pairs(local.plan("lifted.plan", "--lift", "cooling:policies", expect=None))
    cooled = pairs(local.plan("cooled.plan", expect=None))
    assert lifted["c" * 24, "vault"] == cooled["c" * 24, "vault"] == "copy"
    assert {pair for pair in cooled if cooled[pair] == "delete"} <= {
        pair for pair in lifted if lifted[pair] == "delete"
    }


def test_a_store_that_has_another_name_by_now_is_the_same_place(applied: Project) -> None:
    applied.stores = {
        "archive" if name == "vault" else name: replace(store, name="archive")
        if name == "vault"
        else store
        for name, store in applied.stores.items()
    }
    renamed = policy(SHORT)
    renamed["rules"][1]["keep"][0]["in"] = "archive"
    commit(applied, renamed)
    applied.hosted("c" * 24, video(3), age=timedelta(days=12))
    made = header(applied)
    assert [(each.store, each.kept) for each in made.cooled] == [("archive", LONG)]
    assert (made.deletes, made.copies) == (0, 1)
    applied.apply()


def test_a_store_that_lies_elsewhere_by_now_has_the_keep_of_its_name(applied: Project) -> None:
    applied.stores["vault"] = make_store("local", "", applied.root / "data", name="vault")
    commit(applied, policy(SHORT))
    made = header(applied)
    assert [(each.store, each.kept) for each in made.cooled] == [("vault", LONG)]
    assert (made.deletes, made.copies) == (0, 2)


def test_a_keep_in_a_store_that_is_gone_asks_for_nothing(applied: Project) -> None:
    applied.stores = {"uploads": applied.stores["uploads"]}
    commit(applied, {"version": 1, "rules": [{"id": "x", "match": "all", "at_most": "9y"}]})
    made = header(applied)
    assert (made.cooled, made.copies) == ([], 0)
    applied.apply()


def test_what_was_copied_in_doubt_is_not_due_since_its_rule_cools(local: Project) -> None:
    local.uploaded("c" * 24, video(3), age=timedelta(days=40))
    commit(begun(local), in_doubt.rule())
    with pytest.MonkeyPatch.context() as as_committed:
        as_committed.setattr(type(local), "write", lambda *_: None)
        in_doubt.copied_in_doubt(local)
    in_doubt.named(local, "classroom-1")
    keep = {"in": "vault", "for": "1y"}
    rules = [{"id": "else", "match": {"room": "board-*"}, "keep": [keep]}]
    commit(local, {"version": 1, "rules": rules})
    lifts = ("--lift=empty:store:vault", "--lift=percent:store:vault")
    lifted = local.plan("lifted.plan", *lifts, "--lift=cooling:policies", expect=None)
    cooled = local.plan("cooled.plan", *lifts, expect=None)
    assert cooled["header"]["deletes"] <= lifted["header"]["deletes"]


def test_a_record_of_before_promises_what_nobody_knows(
    local: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older retainer wrote no `applies`; its summaries are still what an audit comes to."""
    commit(begun(local), policy(LONG))
    local.uploaded(A, video(1))
    local.uploaded(B, video(2), age=timedelta(days=2))
    header(local)
    write_line = Journal.write
    with monkeypatch.context() as older:
        older.setattr(
            Journal,
            "write",
            lambda self, event, **of: None if event == "applies" else write_line(self, event, **of),
        )
        local.apply()
    local.run("audit", "verify")
    commit(local, policy(SHORT))
    made = header(local, expect=4)
    assert (made.deletes, len(made.held_back)) == (1, 1)
    local.apply("p.plan", "--approve-deletes", "0")
    assert header(local, expect=4).held_back, "other policies went before, and ended only now"
    local.run("audit", "verify")


def test_a_lift_means_what_was_known_then(applied: Project, tmp_path: Path) -> None:
    commit(applied, policy(SHORT))
    assert header(applied, "--lift", "cooling:policies").deletes == 1
    shutil.copy(applied.root / "p.plan", tmp_path / "lifted.plan")
    commit(applied, policy("5y"))  # another machine, before that plan is applied
    header(applied)
    applied.apply()
    commit(applied, policy(SHORT))
    shutil.copy(tmp_path / "lifted.plan", applied.root / "p.plan")
    done = applied.run("apply", "p.plan", "--approve-deletes", "1", expect=4)
    assert "still count, and this plan was made without them" in done.stderr
    assert len(applied.content("vault")) == 2


def test_policies_that_another_apply_brings_between_check_and_locks_count(
    applied: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(applied, policy(SHORT))
    assert header(applied, "--lift", "cooling:policies").deletes == 1
    checked = applying._not_weighed
    seen: list[bool] = []

    def later(header: Any, *rest: Any) -> Any:
        if seen:  # the second look, with the locks held
            yield "cooling: policies of another machine"
        else:
            yield from checked(header, *rest)
        seen.append(True)

    monkeypatch.setattr(applying, "_not_weighed", later)
    done = applied.run("apply", "p.plan", "--approve-deletes", "1", expect=None)
    assert "policies of another machine: no deletes" in done.stdout
    assert len(applied.content("vault")) == 2


def test_policies_that_git_does_not_show_are_in_no_commit(applied: Project) -> None:
    with (applied.root / ".gitignore").open("a") as ignored:
        ignored.write("policies/more.yaml\n")
    more = {"version": 1, "rules": [{"id": "m", "match": "all"}]}
    more["rules"][0]["keep"] = [{"in": "vault", "for": "3y"}]  # type: ignore[index]
    (applied.root / "policies" / "more.yaml").write_text(yaml.safe_dump(more))
    header(applied)
    applied.apply()
    (applied.root / "policies" / "more.yaml").unlink()
    commit(applied, policy(LONG))
    assert "no commit of git is known" in header(applied).cooling_unknown


def test_longer_than_the_record_remembers_nothing_can_cool(applied: Project) -> None:
    write(applied, policy(SHORT), "2y")
    assert "400 days at the most" in applied.run("validate", expect=10).stderr
