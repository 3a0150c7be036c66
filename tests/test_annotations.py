"""Mistakes in the forms of CI systems, and what is allowed and hardly meant."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from project import POLICY, Project, video

from retainer.model.diagnostic import Diagnostic, Span
from retainer.model.outcome import Outcome
from retainer.model.period import parse_period
from retainer.model.rule import (
    AllOf,
    AnyOf,
    Between,
    Created,
    Delete,
    Everything,
    Glob,
    Keep,
    Match,
    Not,
    OneOf,
    Policies,
    Rule,
    Where,
)
from retainer.model.setting import Settings, Store
from retainer.policy.advice import advise, implies, impossible
from retainer.policy.codes import CODES
from retainer.views.annotations import annotated, of_outcomes

TITLES = {code: title for code, (title, _) in CODES.items()}


def mistake(number: int, message: str = "it is wrong", **more: Any) -> Diagnostic:
    return Diagnostic("P101", "policies/a b.yaml", Span(number, 3, number, 9), message, **more)


def test_github_is_told_ten_errors_and_how_many_more() -> None:
    found = [mistake(n) for n in range(1, 14)] + [mistake(99, is_warning=True)]
    lines = annotated("github", list(reversed(found)), TITLES, "ops/").splitlines()
    errors = [line for line in lines if line.startswith("::error ")]
    assert len(errors) == 10 and len(lines) == 11
    assert errors[0] == (
        "::error file=ops/policies/a b.yaml,line=1,endLine=1,col=3,endColumn=8,"
        "title=P101 unknown key::it is wrong"
    )
    assert errors[-1].endswith("… and 3 more errors that GitHub would not show")


@pytest.mark.parametrize("text", ["100%", "a\nb", "a\r::error::b", "x,y:z"])
def test_what_is_told_to_github_cannot_be_another_command(text: str) -> None:
    told = annotated("github", [mistake(1, text, hint=text)], {"P101": text}, text)
    # GitHub looks for commands where lines begin
    assert told.count("\n") == 1 and told.startswith("::error file=")
    assert told.removesuffix("\n").isprintable()


def test_sarif_fits_its_schema() -> None:
    """The schema is that of schemastore.org (Apache-2.0), of SARIF 2.1.0-rtm.5."""
    path = Path(__file__).parent / "schemas" / "sarif-2.1.0-rtm.5.json"
    found = [mistake(1), mistake(2, is_warning=True), mistake(3, hint="do so")]
    told = json.loads(annotated("sarif", found, TITLES, "ops/"))
    jsonschema.validate(told, json.loads(path.read_text()))
    (run,) = told["runs"]
    place = run["results"][0]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "ops/policies/a%20b.yaml"
    assert [each["level"] for each in run["results"]] == ["error", "warning", "error"]
    jsonschema.validate(json.loads(annotated("sarif", [], TITLES)), json.loads(path.read_text()))


def test_gitlab_knows_a_mistake_again_when_its_line_has_moved() -> None:
    one, other = (
        json.loads(annotated("gitlab", [mistake(n), mistake(n + 9)], TITLES)) for n in (1, 5)
    )
    assert [each["fingerprint"] for each in one] == [each["fingerprint"] for each in other]
    assert len({each["fingerprint"] for each in one}) == 2
    assert {"description", "check_name", "fingerprint", "severity", "location"} <= one[0].keys()


def test_junit_counts_what_passed_and_what_failed() -> None:
    outcomes = [Outcome("a <b> & c", "tests/x.yaml:3", ()), Outcome("d", "tests/x.yaml:9", ("e",))]
    told = annotated(
        "junit", of_outcomes(outcomes), TITLES, suite="retainer test", passed=outcomes[:1]
    )
    root = ElementTree.fromstring(told)
    assert (root.get("tests"), root.get("failures")) == ("2", "1")
    assert {case.get("name") for case in root} == {"a <b> & c", "T402 at line 9"}


def test_validate_answers_in_every_form(local: Project) -> None:
    assert local.run("validate", "--format", "github").stdout == ""
    (local.root / "policies" / "bad.yml").write_text("version: 1\nrules: [{ id: x, mtch: all }]\n")
    told = local.run("validate", "--format", "github", expect=10).stdout
    assert "::error file=policies/bad.yml,line=2" in told
    for form in ("gitlab", "sarif", "junit"):
        local.run("validate", "--format", form, "--out", f"x.{form}", expect=10)
        assert "P101" in (local.root / f"x.{form}").read_text()


# ── what is allowed and hardly meant ────────────────────────────────────────────────────────────

VAULT = Store("vault", "s3://acme-vault/x", region="eu-west-1")


def rule(id: str, match: Match, line: int = 1, **more: Any) -> Rule:
    return Rule(id, match, Where("policies/a.yaml", line), **({"owner": "@a"} | more))


def keep(period: str, store: str = "vault") -> dict[str, Any]:
    return {"keeps": (Keep(store, parse_period(period)),)}


def codes(
    *rules: Rule, stores: tuple[Store, ...] = (VAULT,), matched: dict[str, int] | None = None
) -> list[tuple[str, str]]:
    regions = ("eu-west-1", "eu-central-1")
    found = advise(Policies(rules), Settings(stores), regions, matched)
    assert all(each.is_warning for each in found)
    return [(each.code, each.message) for each in found]


CHAT, CALL = OneOf("type", ("chat",)), OneOf("type", ("room-composite",))


def test_a_sound_policy_gets_no_advice() -> None:
    assert (
        codes(rule("a", CHAT, **keep("1y"), then_delete=True), rule("b", CALL, **keep("2y"))) == []
    )


@pytest.mark.parametrize(
    "more",
    [
        {"deletes": (Delete("vault", parse_period("30d")),)},
        {"at_most": parse_period("1y")},
        keep("1y") | {"then_delete": True},
    ],
)
def test_a_delete_of_everything_is_told(more: dict[str, Any]) -> None:
    assert [code for code, _ in codes(rule("a", Everything(), **more))] == ["L501"]


@pytest.mark.parametrize(
    ("match", "is_impossible"),
    [
        (AllOf((CHAT, CALL)), True),
        (AllOf((CHAT, Not(CHAT))), True),
        (AllOf((CHAT, Not(CALL))), False),
        (AllOf((CHAT, Not(Everything()))), True),
        (AnyOf((AllOf((CHAT, CALL)), CHAT)), False),
        (AnyOf((AllOf((CHAT, CALL)), AllOf((CHAT, Not(CHAT))))), True),
        (Between("size", 9, 1), True),
        (Created(datetime(2027, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)), True),
        (CHAT, False),
    ],
)
def test_what_can_match_nothing_is_told(match: Match, is_impossible: bool) -> None:
    assert (impossible(match) is not None) is is_impossible


@pytest.mark.parametrize(
    ("one", "other", "does"),
    [
        (CHAT, Everything(), True),
        (Everything(), CHAT, False),
        (CHAT, OneOf("type", ("chat", "track")), True),
        (OneOf("type", ("chat", "track")), CHAT, False),
        (AllOf((CHAT, Glob("room", ("a*",)))), CHAT, True),
        (CHAT, AllOf((CHAT, Glob("room", ("a*",)))), False),
        (AnyOf((CHAT, CALL)), OneOf("type", ("chat", "room-composite")), True),
        (CHAT, AnyOf((CALL, CHAT)), True),
        (Not(CHAT), CALL, False),
        (Glob("room", ("a*",)), Glob("room", ("a*", "b*")), True),
    ],
)
def test_one_match_within_another(one: Match, other: Match, does: bool) -> None:
    assert implies(one, other) is does


def test_a_rule_that_another_covers_is_told_once() -> None:
    wide = rule("wide", Everything(), 1, **keep("2y"))
    assert codes(wide, rule("narrow", CHAT, 5, **keep("1y")))[0][0] == "L503"
    assert codes(wide, rule("longer", CHAT, 5, **keep("3y"))) == []
    assert len(codes(rule("a", CHAT, 1, **keep("1y")), rule("b", CHAT, 5, **keep("1y")))) == 1


def test_what_a_snapshot_does_not_match_is_told() -> None:
    assert codes(rule("a", CHAT, **keep("1y")), matched={"a": 1}) == []
    assert [c for c, _ in codes(rule("a", CHAT, **keep("1y")), matched={"a": 0})] == ["L504"]


def test_stores_regions_and_classes_are_looked_at() -> None:
    a = rule("a", CHAT, **keep("1y"))
    unused = Store("cold", "gs://b")
    assert [c for c, _ in codes(a, stores=(VAULT, unused))] == ["L505"]
    nowhere = Store("vault", "s3://b", region="eu-wset-1")
    assert [c for c, _ in codes(a, stores=(nowhere,))] == ["L506"]
    odd = Store("vault", "s3://b", storage_class="GLACIER_INSTANT")
    assert [c for c, _ in codes(a, stores=(odd,))] == ["L507"]
    minio = Store("vault", "s3://b", region="x", storage_class="Y", endpoint="https://m.example")
    assert codes(a, stores=(minio,)) == []


@pytest.mark.parametrize(
    ("period", "storage_class", "code"),
    [
        ("30d", "STANDARD_IA", None),
        ("29d", "STANDARD_IA", "L508"),
        ("10d", "STANDARD_IA", "L509"),
        ("60d", "GLACIER_IR", "L508"),
        ("10d", "GLACIER_IR", "L509"),
        ("1y", "DEEP_ARCHIVE", None),
    ],
)
def test_a_class_that_is_billed_longer_than_the_rule_keeps_is_told(
    period: str, storage_class: str, code: str | None
) -> None:
    store = Store("vault", "s3://b", storage_class=storage_class)
    found = codes(rule("a", CHAT, **keep(period), then_delete=True), stores=(store,))
    assert [each for each, _ in found] == ([code] if code else [])


def test_for_ever_needs_someone_to_answer_for_it() -> None:
    assert [c for c, _ in codes(rule("a", CHAT, owner="", **keep("forever")))] == ["L510"]
    assert codes(rule("a", CHAT, **keep("forever"))) == []


def test_a_delete_that_hides_what_another_would_take_for_good_is_told() -> None:
    def gone(after: str, *, versions: bool = False) -> tuple[Delete, ...]:
        return (Delete("vault", parse_period(after), versions=versions),)

    final = rule("final", CHAT, 1, deletes=gone("90d", versions=True))

    def told(**more: Any) -> list[str]:
        other = rule("other", OneOf("type", ("chat", "track")), 5, **more)
        return [code for code, _ in codes(final, other) if code == "L512"]

    assert told(deletes=gone("30d")) == ["L512"]
    assert told(deletes=gone("30d", versions=True)) == []
    assert told(deletes=gone("1y")) == []
    assert told(at_most=parse_period("45d")) == ["L512"]
    assert told(**keep("60d"), then_delete=True) == ["L512"]
    assert told(**keep("60d")) == []
    assert [c for c, _ in codes(final, rule("b", CALL, 5, deletes=gone("30d")))] == []


def test_lint_ends_with_0_and_with_10_where_it_is_strict(local: Project) -> None:
    rules = [*POLICY["rules"], {"id": "x", "match": "all", "at_most": "9y"}]
    local.write(POLICY | {"rules": rules})
    assert "warning[L501] policies/rules.yaml" in local.run("lint").stdout
    local.run("lint", "--strict", expect=10)
    local.hosted("a" * 24, video(1))
    local.plan()
    facts = str(local.root / ".retainer" / "facts.duckdb")
    assert "`raw` matches no" not in local.run("lint", "--facts", facts).stdout


def test_what_commands_answer_fits_the_schemas_that_are_published(local: Project) -> None:
    def schema(form: str) -> dict[str, Any]:
        told = json.loads(local.run("schema", "--of", form).stdout)
        jsonschema.Draft202012Validator.check_schema(told)
        return dict(told)

    def fits(form: str, *words: str, expect: int | None = 0) -> None:
        told = json.loads(local.run(*words, "--format", "json", expect=expect).stdout)
        jsonschema.validate(told, schema(form))
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**told, "format_version": 7}, schema(form))

    local.hosted("a" * 24, video(1))
    local.uploaded("b" * 24, video(2))
    fits("plan", "plan", "--out", "p.plan")
    fits("plan", "show", "p.plan")
    for line in local.run("show", "p.plan", "--format", "jsonl").stdout.splitlines():
        jsonschema.validate(json.loads(line), schema("row"))
    fits("explain", "explain", "a" * 24)
    shutil.copytree(local.root / "policies", local.root / "old" / "policies")
    shutil.copyfile(local.root / "retainer.yaml", local.root / "old" / "retainer.yaml")
    fits("impact", "impact", "--base", "old")
    fits("policy-diff", "policy-diff", "old")
    fits("apply", "apply", "p.plan")
    fits("verify", "verify", "vault")
