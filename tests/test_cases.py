"""Policy tests: what they find by themselves, and what they ask real recordings."""

from __future__ import annotations

from datetime import timedelta

import pytest
import yaml
from project import Project, video

A, B = "a" * 24, "b" * 24
CASE = {
    "name": "a call is copied",
    "now": "2026-11-22T00:00:00Z",
    "assets": [{"id": "a", "type": "chat", "created_at": "2026-11-20T00:00:00Z"}],
    "copies": [{"asset": "a", "in": "hosted"}],
    "expect": [{"asset": "a", "in": "vault", "is": "copy"}],
}


def write(project: Project, *cases: dict[str, object], **more: object) -> None:
    (project.root / "tests").mkdir(exist_ok=True)
    (project.root / "tests" / "a.yaml").write_text(
        yaml.safe_dump({"version": 1, **({"tests": list(cases)} if cases else {}), **more})
    )


def test_tests_are_found_by_themselves_and_what_passed_is_listed_on_request(local: Project) -> None:
    done = local.run("test", expect=64)
    assert "there are no tests in" in done.stderr
    write(local, CASE)
    assert "passed tests/a.yaml" not in local.run("test").stdout
    assert "= passed tests/a.yaml:13: a call is copied" in local.run("test", "-v").stdout


def test_rules_and_stores_that_no_test_touches_are_named(local: Project) -> None:
    write(local, CASE)
    told = local.run("test").stdout
    assert "No test touches rule raw (policies/rules.yaml:11), store uploads." in told


@pytest.mark.parametrize(
    ("section", "key", "meant"),
    [("assets", "tipe", "type"), ("copies", "stat", "state"), ("expect", "til", "until")],
)
def test_an_unknown_fact_in_a_case_is_a_mistake(
    section: str, key: str, meant: str, local: Project
) -> None:
    wrong = {**CASE, section: [{**CASE[section][0], key: "x"}]}  # type: ignore[index]
    write(local, wrong)
    done = local.run("test", expect=10)
    assert f"unknown key `{key}`" in done.stderr and f"did you mean `{meant}`?" in done.stderr


def test_boundaries_show_what_changes_at_each_date(local: Project) -> None:
    write(
        local,
        {
            **CASE,
            "copies": [{"asset": "a", "in": "vault"}],
            "expect": [{"asset": "a", "in": "vault", "is": "keep"}],
        },
    )
    text = local.run("test", "--boundaries").stdout
    assert "2028-11-21 00:00 UTC" in text and "unmanaged" in text
    with_delete = {
        "version": 1,
        "rules": [
            {
                "id": "calls",
                "match": {"type": "chat"},
                "keep": [{"in": "vault", "for": "2y"}],
                "then": "delete",
            }
        ],
    }
    local.write(with_delete)
    lines = local.run("test", "--boundaries").stdout.splitlines()
    assert any(line.split()[-3:] == ["vault", "keep", "delete"] for line in lines)


def test_assertions_ask_real_recordings_and_name_the_offenders(local: Project) -> None:
    local.uploaded(A, video(1), age=timedelta(days=40))
    local.uploaded(B, video(2), age=timedelta(days=3), type="track")
    local.plan()
    facts = ("--facts", str(local.root / ".retainer" / "facts.duckdb"))
    never = {"name": "tracks stay", "match": {"type": "track"}, "never": "deleted"}
    write(local, assertions=[never])
    local.run("test", *facts)
    write(local, assertions=[never | {"name": "calls stay", "match": {"type": "room-composite"}}])
    told = local.run("test", *facts, expect=10).stdout
    assert f"1 recording otherwise: {A}" in told
    write(local, assertions=[{"name": "kept", "match": "all", "kept_in": ["vault"]}])
    assert f"1 recording otherwise: {B}" in local.run("test", *facts, expect=10).stdout
    write(local, assertions=[{"name": "one", "match": {"type": "room-composite"}, "kept_in": 1}])
    local.run("test", *facts)
    write(local, assertions=[{"name": "now", "match": "all", "never": ["blocked"]}])
    assert f"1 recording otherwise: {A}" in local.run("test", *facts, expect=10).stdout


@pytest.mark.parametrize(
    ("assertion", "said"),
    [
        ({"name": "x", "match": {"tipe": "chat"}, "kept_in": 1}, "unknown key `tipe`"),
        ({"name": "x", "match": "all"}, "needs `never` or `kept_in`"),
        ({"name": "x", "match": "all", "never": "gone"}, "`never` is one of"),
        ({"name": "x", "match": "all", "kept_in": {"a": 1}}, "a number of stores"),
        ({"name": "x", "mach": "all", "kept_in": 1}, "did you mean `match`?"),
    ],
)
def test_a_mistake_in_an_assertion_is_told_without_facts_too(
    assertion: dict[str, object], said: str, local: Project
) -> None:
    write(local, assertions=[assertion])
    assert said in local.run("test", expect=10).stderr


def test_assertions_without_facts_are_only_read(local: Project) -> None:
    write(local, CASE, assertions=[{"name": "x", "match": "all", "never": "deleted"}])
    assert "1 passed, 0 failed" in local.run("test").stdout


def test_failed_tests_are_told_in_the_form_of_a_ci(local: Project) -> None:
    write(local, {**CASE, "expect": [{"asset": "a", "in": "vault", "is": "keep"}]})
    told = local.run("test", "--format", "github", expect=10).stdout
    assert told.startswith("::error file=tests/a.yaml,line=") and "is is copy" in told
    assert 'failures="1"' in local.run("test", "--format", "junit", expect=10).stdout
