"""Copies that nothing was certain to ask for: made when they must be, remembered as that, and undone
once it is certain that nothing asks for them (issue 13)."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import hls
import pytest
from conftest import endpoint_of
from project import POLICY, ROOM, Project, make_project, pairs, video

from retainer.demo.standin import StandIn
from retainer.model.rule import Glob, Rule, Where
from retainer.plan.decide import doubt_of

A, B = "a" * 24, "b" * 24
LIFTED = ("--lift=empty:store:vault", "--lift=percent:store:vault")


def rule(**more: Any) -> dict[str, Any]:
    sales = {"id": "sales", "match": {"room": "sales-*"}, "keep": [{"in": "vault", "for": "7y"}]}
    return POLICY | {"rules": [sales | more]}


def named(project: Project, name: str) -> None:
    project.api.faults.rooms_fail = False
    project.api.add_room({"id": ROOM, "name": name, "template": "t", "template_id": "7e3"})


def copied_in_doubt(project: Project) -> Project:
    """Two recordings that are about to leave, while nobody knows what their room is called."""
    project.write(rule())
    project.hosted(A, video(1), age=timedelta(days=12))
    project.hosted_vod(B, hls.simple(), age=timedelta(days=12))
    project.api.faults.rooms_fail = True
    project.impatient = True
    project.plan(expect=8)
    assert project.apply()["copied"] == 2
    return project


@pytest.mark.parametrize("server", ["local", "seaweedfs", "strict_gcs"])
def test_a_copy_made_in_doubt_goes_once_its_rule_is_certain_not_to_ask_for_it(
    server: str, request: pytest.FixtureRequest, tmp_path: Path, api: StandIn
) -> None:
    endpoint = "" if server == "local" else endpoint_of(server, request)
    project = copied_in_doubt(make_project(tmp_path / "project", api, server, endpoint))
    assert pairs(project.plan(expect=8))[A, "vault"] == "keep"  # still in doubt
    named(project, "classroom-1")
    plan = project.plan("due.plan", *LIFTED)
    assert {pairs(plan)[name, "vault"] for name in (A, B)} == {"delete"}
    rows = {(row["asset_id"], row["store"]): row for row in plan["rows"]}
    assert rows[A, "vault"]["rule"] == "sales"
    shown = " ".join(project.run("show", "due.plan").stdout.split())
    assert "copied in doubt, and the rule is certain by now not to ask for it" in shown
    assert "copied in doubt" in " ".join(project.run("explain", A).stdout.split())
    done = project.apply_all("due.plan", plan)
    assert (done["deleted"], done["failed"], done["skipped"]) == (2, [], [])
    assert pairs(project.plan()).get((A, "vault")) is None


def test_it_counts_towards_the_limits(local: Project) -> None:
    copied_in_doubt(local)
    named(local, "classroom-1")
    assert "empty:store:vault" in local.run("plan", "--out", "p.plan", expect=4).stdout


def test_once_the_rule_is_certain_to_ask_for_it_the_copy_is_kept(local: Project) -> None:
    copied_in_doubt(local)
    named(local, "sales-1")
    assert pairs(local.plan())[A, "vault"] == "keep"


@pytest.mark.parametrize(
    "changed",
    [
        rule(match={"room": "board-*"}),
        rule(id="other"),
        POLICY | {"rules": [{"id": "sales", "match": {"room": "sales-*"}, "at_most": "9y"}]},
    ],
    ids=["another match", "another rule", "it keeps nothing"],
)
def test_another_rule_than_asked_for_it_deletes_nothing(
    local: Project, changed: dict[str, Any]
) -> None:
    copied_in_doubt(local)
    named(local, "classroom-1")
    local.write(changed)
    assert pairs(local.plan(expect=None))[A, "vault"] in ("unmanaged", "keep")


def test_what_anything_else_keeps_stays(local: Project) -> None:
    copied_in_doubt(local)
    named(local, "classroom-1")
    more = {"id": "all", "match": {"asset_id": [A, B]}, "keep": [{"in": "vault", "for": "2y"}]}
    local.write(rule() | {"rules": [*rule()["rules"], more]})
    assert pairs(local.plan())[A, "vault"] == "keep"
    hold = {"id": "LIT", "why": "x", "match": {"asset_id": A}, "in": "vault"}
    local.write(rule() | {"holds": [hold]})
    assert pairs(local.plan("held.plan", *LIFTED))[A, "vault"] == "keep"


def test_a_copy_of_which_something_was_certain_is_not_undone(local: Project) -> None:
    local.write(rule())
    local.hosted(A, video(1), age=timedelta(days=12))
    named(local, "sales-1")
    local.plan()
    local.apply()
    named(local, "classroom-1")
    local.api.faults.rooms_fail = False
    (local.root / ".retainer/facts.duckdb").unlink()
    assert pairs(local.plan())[A, "vault"] in ("keep", "unmanaged")


def test_a_plan_that_claims_doubt_of_a_copy_that_says_nothing_of_it_deletes_nothing(
    local: Project,
) -> None:
    copied_in_doubt(local)
    named(local, "classroom-1")
    plan = local.plan("due.plan", *LIFTED)
    for path in Path(local.stores["vault"].prefix).rglob("*.json"):
        text = path.read_text(encoding="utf-8", errors="replace")
        if "in_doubt" in text and "retainer-record" in text:
            stat = path.stat()
            path.write_text(text.replace("in_doubt", "in_dxxbt"))
            assert stat.st_size == path.stat().st_size
    done = local.apply_all("due.plan", plan)
    assert done["deleted"] == 0
    assert {each["cause"] for each in done["skipped"]} == {
        "it does not say of itself that it was copied in doubt"
    }


def test_a_rebuilt_catalog_remembers_the_doubt(local: Project) -> None:
    copied_in_doubt(local)
    for seen in list(local.writer("vault").list("_retainer/catalog/")):
        local.writer("vault").delete(seen)
    census = json.loads(local.run("catalog", "rebuild", "vault", "--format", "json").stdout)
    assert census["failed"] == []
    named(local, "classroom-1")
    assert {pairs(local.plan("due.plan", *LIFTED))[name, "vault"] for name in (A, B)} == {"delete"}


def test_a_doubt_is_of_one_rule_and_one_match() -> None:
    one, other = (
        Rule(id, Glob("room", (name,)), Where("policies/a.yaml", 3))
        for id, name in (("sales", "sales-*"), ("sales", "board-*"))
    )
    assert doubt_of(one) != doubt_of(other) and doubt_of(one).startswith("sales@")
