"""What holds and erasures come to: what they cover, what stands against them, and until when."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from project import ROOM, Project, video

from retainer.standing import a_month_after

pytestmark = pytest.mark.slow

A, B, C, D, E, F = ("6544d1e2f3a4b5c6d7e8f90" + each for each in "abcdef")
SESSION = "65f0aa11bb22cc33dd44ee55"
KEEP = {"id": "calls", "match": "all", "keep": [{"in": "vault", "for": "2y"}]}


def policy(**more: Any) -> dict[str, Any]:
    return {"version": 1, "rules": [KEEP]} | more


def hold(**match: Any) -> dict[str, Any]:
    return {"id": "LIT-204", "why": "Acme v. Example", "match": match, "in": "vault"}


def erasure(requested: date | None = None, **match: Any) -> dict[str, Any]:
    asked = {"requested": requested.isoformat()} if requested else {}
    return {"id": "DSR-17", "why": "Art. 17", "match": match} | asked


def told(project: Project, *words: str, expect: int = 0) -> dict[str, Any]:
    return dict(json.loads(project.run(*words, "--format", "json", expect=expect).stdout))


@pytest.fixture
def kept(local: Project) -> Project:
    """Three recordings of one session, of which two have a copy and one is at 100ms alone."""
    local.api.add_room({"id": ROOM, "name": "sales-weekly"})
    for number, name in enumerate((A, B)):
        local.hosted(name, video(number), session_id=SESSION)
    local.write(policy())
    local.plan("p.plan")
    local.apply("p.plan")
    local.hosted(C, video(3), age=timedelta(days=12), session_id=SESSION)
    local.plan("q.plan")
    return local


# ── holds ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_hold_tells_what_it_covers_what_has_its_copy_and_what_leaves(kept: Project) -> None:
    kept.write(policy(holds=[hold(session_id=SESSION)]))
    (one,) = told(kept, "hold", "list")["holds"]
    assert (one["recordings"], one["perhaps"], one["complete"], one["to_copy"]) == (3, 0, 2, 1)
    assert (one["only_at_100ms"], one["is_met"]) == (1, False)
    assert one["first_leaves"].startswith(f"{datetime.now(UTC) + timedelta(days=3):%Y-%m-%d}")
    said = kept.run("hold", "check", expect=1).stdout
    assert "1 hold is not met" in said and "LIT-204: 1 recording is only at 100ms" in said
    kept.apply("q.plan")
    kept.plan("r.plan")
    assert "Each recording under a hold has a complete copy." in kept.run("hold", "check").stdout


def test_a_hold_that_is_not_certain_covers_perhaps(kept: Project) -> None:
    match = {"not": {"user_id": "u-1"}}  # no recording here carries a user
    kept.write(policy(holds=[hold(**match)]))
    (one,) = told(kept, "hold", "list")["holds"]
    assert (one["recordings"], one["perhaps"]) == (0, 3)


def test_a_hold_that_covers_nothing_is_not_met_and_says_so(kept: Project) -> None:
    kept.write(policy(holds=[hold(asset_id="nobody")]))
    assert "LIT-204 covers no recording that is known" in kept.run("hold", "check", expect=1).stdout


def test_a_hold_tells_what_it_stops(kept: Project) -> None:
    ends = {"id": "soon", "match": "all", "keep": [{"in": "vault", "for": "1h"}], "then": "delete"}
    kept.write({"version": 1, "rules": [ends], "holds": [hold(session_id=SESSION)]})
    (one,) = told(kept, "hold", "list")["holds"]
    assert one["stops"] == 2


def test_one_that_was_released_is_over(kept: Project) -> None:
    over = hold(session_id=SESSION) | {"released": "2026-01-01"}
    kept.write(policy(holds=[over]))
    assert "No hold is in force." in kept.run("hold", "check").stdout


# ── erasures ──────────────────────────────────────────────────────────────────────────────────────


def state_of(project: Project) -> dict[str, Any]:
    (one,) = told(project, "erasure", "list")["erasures"]
    return dict(one)


def test_an_erasure_goes_from_due_to_lapses_to_done(kept: Project) -> None:
    kept.write(policy(erasures=[erasure(asset_id=A)]))
    assert (state_of(kept)["state"], state_of(kept)["due"]) == ("due", 1)
    assert state_of(kept)["undecided"] == [], "it names a recording, and no person"
    plan = kept.plan("e.plan")
    kept.apply_all("e.plan", plan)
    kept.plan("f.plan")
    after = state_of(kept)
    assert (after["state"], after["due"], after["lapsing"]) == ("lapses", 0, 1)
    assert after["last_lapses"] is not None


def of_a_person(*decided: dict[str, Any]) -> dict[str, Any]:
    return erasure(user_id="u-1") | ({"decided": list(decided)} if decided else {})


@pytest.fixture
def person(kept: Project) -> Project:
    """Streams of two people in the session of the three composites, and a track, which tells a peer
    and no user."""
    for name, user in ((D, "u-1"), (E, "u-2")):
        facts = {"user_id": user, "peer_id": f"p-{user}"}
        kept.hosted(name, video(4), type="stream", session_id=SESSION, **facts)
    kept.hosted(F, video(6), type="track", session_id=SESSION, peer_id="p-u-2")
    kept.write(policy(erasures=[of_a_person()]))
    kept.plan("person.plan")
    return kept


def test_what_may_show_a_person_who_is_erased_needs_a_decision(person: Project) -> None:
    one = state_of(person)
    assert one["recordings"] == 1
    assert {each["asset_id"] for each in one["undecided"]} == {A, B, C, F}, (
        "E names another user; a track names none"
    )
    assert one["state"] == "needs a decision"
    said = person.run("erasure", "list").stdout
    assert "4 recordings of the same sessions may show the person" in said and A in said


def test_what_was_decided_is_erased_or_stays_and_is_not_asked_again(person: Project) -> None:
    decided = (
        {"asset_id": [A, C], "decision": "erase", "why": "they speak"},
        {"asset_id": [B, F], "decision": "stay", "why": "it does not show them"},
    )
    person.write(policy(erasures=[of_a_person(*decided)]))
    plan = person.plan("decided.plan")
    assert state_of(person)["undecided"] == []
    due = {
        (each["asset_id"], each["decision"])
        for each in plan["rows"]
        if each["decision"] == "delete"
    }
    assert due == {(A, "delete")}, "C lies at 100ms alone, and lapses"
    assert state_of(person)["state"] == "due"
    person.apply_all("decided.plan", plan)
    person.plan("after.plan")
    assert state_of(person)["state"] == "lapses"


def test_what_tells_the_person_may_be_gone_before_anybody_decided(person: Project) -> None:
    """The stream is copied, erased and forgotten; that somebody has to look is not."""
    person.write(policy())
    person.plan("all.plan")
    person.apply("all.plan")
    person.write(policy(erasures=[of_a_person()]))
    plan = person.plan("erase.plan")
    person.apply_all("erase.plan", plan)
    person.api._rows["recording-assets"].pop(D)
    person.api._listings.clear()
    person.plan("after.plan")
    one = state_of(person)
    assert (one["recordings"], one["undecided"], one["state"]) == (0, [], "needs a decision")
    assert "nobody has decided" in " ".join(person.run("erasure", "list").stdout.split())
    stays = {"asset_id": [A, B, C, F], "decision": "stay", "why": "it does not show them"}
    person.write(policy(erasures=[of_a_person(stays)]))
    person.plan("decided.plan")
    assert state_of(person)["state"] == "done"


def test_a_decision_that_fits_no_recording_of_the_sessions_is_told(person: Project) -> None:
    other = "9" * 24
    person.hosted(other, video(7), session_id="another")
    decided = (
        {"asset_id": [A.upper(), B], "decision": "stay", "why": "w"},
        {"asset_id": [C, F, other], "decision": "erase", "why": "w"},
    )
    person.write(policy(erasures=[of_a_person(*decided)]))
    person.plan("misfits.plan")
    one = state_of(person)
    assert one["misfits"] == [A.upper(), other]
    assert [each["asset_id"] for each in one["undecided"]] == [A]
    assert "a `stay` that fits nothing protects nothing" in " ".join(
        person.run("erasure", "list").stdout.split()
    )


def test_what_stays_is_not_erased_even_where_the_match_finds_it(person: Project) -> None:
    stays = {"asset_id": A, "decision": "stay", "why": "somebody else of that name"}
    person.write(policy(erasures=[erasure(session_id=SESSION) | {"decided": [stays]}]))
    plan = person.plan("stays.plan")
    assert [each["asset_id"] for each in plan["rows"] if each["decision"] == "delete"] == [B]


def test_what_is_decided_both_ways_is_a_mistake(person: Project) -> None:
    decided = [{"asset_id": A, "decision": each, "why": "because"} for each in ("erase", "stay")]
    person.write(policy(erasures=[of_a_person(*decided)]))
    assert "P220" in person.run("validate", expect=10).stderr


def test_what_a_hold_or_a_legal_keep_protects_is_blocked_and_says_by_what(kept: Project) -> None:
    kept.write(policy(holds=[hold(asset_id=A)], erasures=[erasure(session_id=SESSION)]))
    one = state_of(kept)
    assert one["state"] == "blocked"
    assert [(each["because"], each["copies"]) for each in one["barred"]] == [("hold", 1)]
    legal = {"id": "law", "match": {"asset_id": B}}
    legal |= {"keep": [{"in": "vault", "for": "7y", "basis": "legal"}]}
    kept.write({"version": 1, "rules": [KEEP, legal], "erasures": [erasure(session_id=SESSION)]})
    (barred,) = state_of(kept)["barred"]
    assert (barred["because"], barred["copies"]) == ("legal", 1)
    assert barred["until"].startswith(str(datetime.now(UTC).year + 7))
    text = kept.run("erasure", "list").stdout
    assert "`basis: legal`" in text and "1 copy in vault stay" in text


def test_what_lies_in_a_bucket_that_nobody_declared_is_not_erased(kept: Project) -> None:
    kept.write(policy(erasures=[erasure(asset_id=D)]))
    asset = kept.hosted(D, video(9), path="s3://somebodys-bucket/x/Rec.mp4")
    assert asset["path"].startswith("s3://somebodys")
    kept.plan("x.plan")
    one = state_of(kept)
    assert (one["state"], one["lapsing"]) == ("blocked", 0)
    assert [each["because"] for each in one["barred"]] == ["undeclared"]
    assert "nobody declared that bucket" in kept.run("erasure", "list").stdout


def test_a_copy_that_a_legal_keep_still_asks_for_is_no_erasure_that_is_done(kept: Project) -> None:
    legal = {"id": "law", "match": {"asset_id": C}}
    legal |= {"keep": [{"in": "vault", "for": "7y", "basis": "legal"}]}
    kept.write({"version": 1, "rules": [KEEP, legal], "erasures": [erasure(asset_id=C)]})
    one = state_of(kept)
    assert (one["state"], one["barred"][0]["because"]) == ("blocked", "legal")


def test_an_erasure_of_nobody_known_is_not_done(kept: Project) -> None:
    kept.write(policy(erasures=[erasure(asset_id="nobody")]))
    assert state_of(kept)["state"] == "nothing known"


def test_where_a_listing_did_not_finish_nothing_is_done(kept: Project) -> None:
    kept.write(policy(erasures=[erasure(asset_id=D)]))
    kept.hosted(D, video(9))
    (kept.root / "data").rename(kept.root / "unmounted")
    kept.run("plan", "--out", "x.plan", expect=8)
    facts = str(kept.root / "torn.duckdb")
    kept.run("facts", "--out", facts, expect=8)
    (one,) = told(kept, "erasure", "list", "--facts", facts)["erasures"]
    assert one["state"] == "unknown" and one["unknown"] >= 1


@pytest.mark.parametrize(("days", "late"), [(27, False), (33, True)])
def test_a_request_whose_month_is_over_fails_the_check(
    days: int, late: bool, kept: Project
) -> None:
    requested = (datetime.now(UTC) - timedelta(days=days)).date()
    kept.write(policy(erasures=[erasure(requested, asset_id=A)]))
    done = kept.run("erasure", "check", expect=1 if late else 0)
    assert ("its month is over" in done.stdout) is late


@pytest.mark.parametrize(
    ("asked", "by"),
    [
        (date(2026, 11, 1), date(2026, 12, 1)),
        (date(2026, 12, 31), date(2027, 1, 31)),
        (date(2026, 1, 31), date(2026, 2, 28)),
        (date(2028, 1, 31), date(2028, 2, 29)),
        (date(2026, 3, 31), date(2026, 4, 30)),
    ],
)
def test_a_month_ends_on_the_same_day_or_on_the_last(asked: date, by: date) -> None:
    assert a_month_after(asked) == by


@pytest.mark.parametrize("form", ["text", "markdown", "html"])
def test_no_name_of_a_room_is_in_any_form(form: str, kept: Project) -> None:
    more = {"holds": [hold(room="sales-*")], "erasures": [erasure(session_id=SESSION)]}
    kept.write(policy(**more))
    for words in (("hold", "list"), ("erasure", "list")):
        assert "weekly" not in kept.run(*words, "--format", form).stdout
