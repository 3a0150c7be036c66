"""A certificate says what went, by whose word, and what is left."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from project import ROOM, Project, video

A, B, C = "a" * 24, "b" * 24, "c" * 24
KEEP: dict[str, Any] = {
    "version": 1,
    "rules": [{"id": "calls", "match": "all", "keep": [{"in": "vault", "for": "2y"}]}],
}
LAST = ("--lift", "last_copies:rule:end")
ERASE: dict[str, Any] = KEEP | {
    "erasures": [
        {"id": "DSR-17", "why": "ticket 4711", "match": {"asset_id": A}, "requested": "2026-11-01"}
    ]
}


def certified(project: Project, about: str, *words: str, expect: int = 0) -> dict[str, Any]:
    done = project.run("certificate", about, "--format", "json", *words, expect=expect)
    return dict(json.loads(done.stdout))


@pytest.fixture
def erased(local: Project) -> Project:
    """Two uploads, copied; all of the first went for an erasure."""
    local.uploaded(A, video(1), session_id="s" * 24)
    local.uploaded(B, video(2), session_id="s" * 24)
    local.write(KEEP)
    local.plan("copies.plan")
    local.apply("copies.plan")
    local.write(ERASE)
    local.plan("erase.plan")
    local.run("apply", "erase.plan", "--approve-deletes", "2", "--ticket", "OPS-1")
    return local


@pytest.mark.parametrize("about", [A, "DSR-17"])
def test_what_went_for_an_erasure_is_certified(erased: Project, about: str) -> None:
    told = certified(erased, about, "--stores")
    assert told["is_gone"] and told["recordings"] == [A] and told["left"] == []
    assert {each["store"] for each in told["deleted"]} == {"uploads", "vault"}
    assert {each["ticket"] for each in told["deleted"]} == {"OPS-1"}
    assert [each["is_there"] for each in told["looked"]] == [False, False]
    text = " ".join(erased.run("certificate", about).stdout.split())
    assert "No copy of 1 recording is left that the record knows of." in text
    assert "The stores were not asked" in text and "ticket 4711" in text
    assert "for erasure DSR-17 (policies/rules.yaml:" in text and "ticket OPS-1" in text


@pytest.mark.parametrize("about", [ROOM, "s" * 24])
def test_a_room_and_a_session_name_what_is_left_of_them(erased: Project, about: str) -> None:
    told = certified(erased, about, expect=1)
    assert told["recordings"] == [A, B]
    assert {(each["asset_id"], each["store"]) for each in told["left"]} == {
        (B, "uploads"),
        (B, "vault"),
    }
    assert "Not all of 2 recordings is gone: 2 copies left" in " ".join(
        erased.run("certificate", about, expect=1).stdout.split()
    )


def test_what_100ms_alone_has_is_no_copy_that_went(local: Project) -> None:
    local.hosted(A, video(1), age=timedelta(days=3))
    local.write(ERASE)
    local.uploaded(B, video(2))
    local.plan("p.plan")
    local.apply("p.plan")
    told = certified(local, "DSR-17", expect=1)
    assert [asset for asset, _ in told["lapses"]] == [A] and told["deleted"] == []
    assert "100ms has some of it" in local.run("certificate", "DSR-17", expect=1).stdout


def test_what_came_to_lie_there_again_is_seen(erased: Project) -> None:
    told = certified(erased, A, "--stores")
    key = next(each["key"] for each in told["looked"] if each["store"] == "vault")
    path = Path(erased.stores["vault"].prefix, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"again")
    told = certified(erased, A, "--stores", expect=1)
    assert [each["is_there"] for each in told["looked"]].count(True) == 1
    assert "vault:" in erased.run("certificate", A, "--stores", expect=1).stdout


def test_a_store_that_cannot_be_asked_certifies_nothing(erased: Project) -> None:
    settings = (erased.root / "retainer.yaml").read_text().replace("  vault:", "  cellar:")
    (erased.root / "retainer.yaml").write_text(settings)
    rules = erased.root / "policies" / "rules.yaml"
    rules.write_text(rules.read_text().replace("in: vault", "in: cellar"))
    told = certified(erased, A, "--stores", expect=1)
    assert [each["note"] for each in told["looked"] if each["is_there"] is None] == [
        "no store of this name is declared"
    ]


def test_an_upload_that_only_a_plan_saw_is_left(local: Project) -> None:
    """The record of copies knows nothing of what 100ms uploads."""
    local.uploaded(A, video(1))
    local.write(KEEP)
    local.plan("copies.plan")
    local.apply("copies.plan")
    gone = [{"id": "end", "match": "all", "delete": [{"in": "vault", "after": "1d"}]}]
    local.write({"version": 1, "rules": gone})
    local.run("plan", "--out", "p.plan", "--lift", "empty:store:vault", *LAST)
    local.run("apply", "p.plan", "--approve-deletes", "1")
    told = certified(local, A, expect=1)
    assert [(each["event"], each["store"]) for each in told["left"]] == [("seen", "uploads")]


def test_a_plan_that_is_not_what_it_was_certifies_nothing(erased: Project) -> None:
    kept = sorted((erased.root / ".retainer" / "applied").iterdir())
    kept[0].write_bytes(kept[1].read_bytes())
    assert "is not the plan that was applied" in erased.run("certificate", A, expect=1).stderr
    kept[0].write_bytes(b"")
    erased.run("certificate", A, expect=5)


def test_what_nobody_knows_is_told(local: Project) -> None:
    assert "knows nothing of cellar" in local.run("certificate", "cellar", expect=1).stdout
    local.run("certificate", " ", expect=64)


def test_it_can_be_printed(erased: Project) -> None:
    erased.run("certificate", "DSR-17", "--format", "html", "--out", "c.html")
    page = (erased.root / "c.html").read_text()
    assert "<h1" in page and "DSR-17" in page
