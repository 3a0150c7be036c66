"""Named examples at every boundary of DESIGN.md, section 5: one second before, and at it. Every
expected value is written out.

Assets are `completed` and were created on 2026-01-31T10:30:00Z unless an example says otherwise.
"""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from generate import now_of, policies_of

from retainer.cases import Decider
from retainer.model.moment import read_moment, write_moment
from retainer.plan.decide import decide
from retainer.private import private_folder

CREATED = "2026-01-31T10:30:00Z"


def _decider() -> Decider:
    """One for as long as the private folder stays, which a test of commands may have removed."""
    return _decider_in(private_folder())


@cache
def _decider_in(_folder: Path) -> Decider:
    decider = Decider()
    decider.connection.execute("SET threads = 1")
    return decider


def _policies(*rules: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"id": f"k{number}", "match": "all"} | rule for number, rule in enumerate(rules)]


def delete(after: str, store: str = "vault", **more: Any) -> dict[str, Any]:
    return {"delete": [{"in": store, "after": after}]} | more


def keep(
    period: str, store: str = "vault", after: str | None = None, basis: str | None = None
) -> dict[str, Any]:
    return (
        {"in": store, "for": period}
        | ({"after": after} if after else {})
        | ({"basis": basis} if basis else {})
    )


def said(
    now: str,
    rules: list[dict[str, Any]],
    *copies: str,
    zone: str = "UTC",
    created: str | None = CREATED,
    asset: dict[str, Any] | None = None,
    holds: list[dict[str, Any]] | None = None,
    erased: bool = False,
    unfinished: tuple[str, ...] = (),
) -> dict[str, str]:
    """What is decided of one asset in words, by store: `keep until …`, `copy by …`, `blocked: …`,
    or the decision alone.

    `copies`: the stores where a complete copy lies; `vault~`: a partial one. Shown are these, and
    the stores of keeps and holds.
    """
    case = {
        "timezone": zone,
        "now": now,
        "rules": _policies(*rules),
        "holds": [
            {"id": f"h{number}", "why": "a matter", "match": "all"} | hold
            for number, hold in enumerate(holds or [])
        ],
        "erasures": [{"id": "e", "why": "a request", "match": "all"}] if erased else [],
        "assets": [
            {"id": "a", "type": "chat", "status": "completed", "created_at": created}
            | (asset or {})
        ],
        "copies": [
            {
                "asset": "a",
                "in": copy.rstrip("~"),
                "state": "partial" if copy.endswith("~") else "complete",
            }
            for copy in copies
        ],
        "unfinished": list(unfinished),
    }
    decisions = _decider().decide(case, policies_of(case), now_of(case), zone)
    shown = {copy["in"] for copy in case["copies"]} | {
        item["in"] for rule in rules for item in rule.get("keep", ())
    }
    assert shown.issuperset(
        store for (_, store), decision in decisions.items() if decision["is"] != "none"
    )
    return {
        store: _in_words(decisions[pair]) if (pair := ("a", store)) in decisions else "none"
        for store in shown
    }


def _in_words(decision: dict[str, Any]) -> str:
    match decision["is"]:
        case "keep" | "lapses" as name:
            return f"{name} until {decision['until']}"
        case "copy":
            return f"copy by {decision['deadline']}"
        case "blocked":
            return f"blocked: {' '.join(decision['because'])}"
        case name:
            return str(name)


# ── The ends of keeps and deletes ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-03-02T23:59:59Z", "keep until 2026-03-03T00:00:00Z"),
        ("2026-03-03T00:00:00Z", "delete"),
    ],
)
def test_a_keep_that_ends_in_a_delete_keeps_to_its_last_second(now: str, expected: str) -> None:
    assert said(now, [{"keep": [keep("30d")], "then": "delete"}], "vault") == {"vault": expected}


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-03-02T23:59:59Z", "keep until 2026-03-03T00:00:00Z"),
        ("2026-03-03T00:00:00Z", "unmanaged"),
    ],
)
def test_a_keep_alone_leaves_what_it_kept(now: str, expected: str) -> None:
    assert said(now, [{"keep": [keep("30d")]}], "vault") == {"vault": expected}


@pytest.mark.parametrize(
    ("now", "expected"),
    [("2026-03-02T23:59:59Z", "copy by none"), ("2026-03-03T00:00:00Z", "none")],
)
def test_a_keep_asks_for_its_copy_to_its_last_second(now: str, expected: str) -> None:
    assert said(now, [{"keep": [keep("30d")]}], "cold") == {"vault": expected, "cold": "unmanaged"}


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-03-17T23:59:59Z", "keep until 2026-03-18T00:00:00Z"),
        ("2026-03-18T00:00:00Z", "delete"),
    ],
)
def test_a_delete_is_due_at_the_start_of_the_day_after_its_last(now: str, expected: str) -> None:
    assert said(now, [delete("45d")], "vault") == {"vault": expected}
    assert said(now, [delete("45d"), {"keep": [keep("30d")]}], "vault") == {"vault": expected}
    assert said(now, [delete("1d"), {"keep": [keep("45d")]}], "vault") == {"vault": expected}
    assert said(now, [delete("45d")], "vault~") == {"vault": expected}


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-03-17T23:59:59Z", "keep until 2026-03-18T00:00:00Z"),
        ("2026-03-18T00:00:00Z", "delete"),
    ],
)
def test_an_at_most_is_due_in_every_store_at_once(now: str, expected: str) -> None:
    assert said(now, [{"at_most": "45d"}], "vault", "cold") == {"vault": expected, "cold": expected}
    assert said(now, [{"at_most": "45d"}, delete("90d")], "vault") == {"vault": expected}


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-04-30T23:59:59Z", "keep until 2026-05-02T00:00:00Z"),
        ("2026-05-02T00:00:00Z", "delete"),
    ],
)
def test_a_keep_that_reaches_beyond_an_at_most_wins_to_its_end(now: str, expected: str) -> None:
    assert said(now, [{"at_most": "45d"}, {"keep": [keep("90d")]}], "vault") == {"vault": expected}


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-03-02T23:59:59Z", "keep until 2026-03-03T00:00:00Z"),
        ("2026-03-03T00:00:00Z", "delete"),
    ],
)
def test_an_erased_asset_goes_when_its_legal_keep_ends(now: str, expected: str) -> None:
    rules = [{"keep": [keep("30d", basis="legal"), keep("7y")]}, delete("1y")]
    assert said(now, rules, "vault", erased=True) == {"vault": expected}


# ── After, and the bridge until then ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("now", "expected"),
    [("2026-05-01T23:59:59Z", "none"), ("2026-05-02T00:00:00Z", "copy by none")],
)
def test_a_copy_with_an_after_is_due_from_the_day_after_it(now: str, expected: str) -> None:
    said_of = said(now, [{"keep": [keep("7y"), keep("7y", "cold", after="90d")]}], "vault")
    assert said_of == {"vault": "keep until 2033-02-01T00:00:00Z", "cold": expected}


@pytest.mark.parametrize(("period", "expected"), [("89d", "copy by none"), ("90d", "none")])
def test_a_keep_bridges_when_it_ends_at_the_second_the_other_begins_and_not_before(
    period: str, expected: str
) -> None:
    rules = [{"keep": [keep(period), keep("7y", "cold", after="90d")]}]
    assert said("2026-02-20T00:00:00Z", rules, "vault")["cold"] == expected


@pytest.mark.parametrize(
    ("released", "expected"),
    [("2026-05-01T23:59:59Z", "copy by none"), ("2026-05-02T00:00:00Z", "none"), (None, "none")],
)
def test_a_hold_bridges_when_it_is_released_at_the_second_the_keep_begins_and_not_before(
    released: str | None, expected: str
) -> None:
    hold = {"in": "vault"} | ({"released": released} if released else {})
    assert (
        said(
            "2026-02-20T00:00:00Z",
            [{"keep": [keep("7y", "cold", after="90d")]}],
            "vault",
            holds=[hold],
        )["cold"]
        == expected
    )


def test_a_hold_bridges_a_keep_in_its_own_store_too_and_a_keep_does_not() -> None:
    hosted = "2026-02-02T00:00:00Z"
    assert (
        said(hosted, [{"keep": [keep("7y", after="90d")]}], "cold", holds=[{"in": "cold"}])["vault"]
        == "none"
    )
    assert (
        said(hosted, [{"keep": [keep("90d"), keep("7y", after="90d")]}], "vault~", "hosted")[
            "vault"
        ]
        == "copy by 2026-02-13T10:30:00Z"
    )
    assert said(hosted, [{"keep": [keep("1d"), keep("7y", after="90d")]}], "vault") == {
        "vault": "keep until 2033-02-01T00:00:00Z"
    }


@pytest.mark.parametrize(
    ("now", "vault", "cold"),
    [
        ("2026-05-01T23:59:59Z", "keep until 2026-05-02T00:00:00Z", "none"),
        ("2026-05-02T00:00:00Z", "blocked: unsatisfied", "copy by none"),
    ],
)
def test_what_bridged_is_not_deleted_before_the_later_copy_was_seen(
    now: str, vault: str, cold: str
) -> None:
    rules = [{"keep": [keep("90d"), keep("7y", "cold", after="90d")], "then": "delete"}]
    assert said(now, rules, "vault") == {"vault": vault, "cold": cold}


# ── 15 days, 48 hours, 7 days ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("now", "vault", "hosted"),
    [
        (
            "2026-02-13T10:30:00Z",
            "copy by 2026-02-13T10:30:00Z",
            "lapses until 2026-02-15T10:30:00Z",
        ),
        (
            "2026-02-15T10:29:59Z",
            "copy by 2026-02-13T10:30:00Z",
            "lapses until 2026-02-15T10:30:00Z",
        ),
        ("2026-02-15T10:30:00Z", "lost", "none"),
    ],
)
def test_100ms_has_a_hosted_asset_for_15_days_to_the_second(
    now: str, vault: str, hosted: str
) -> None:
    for zone in ("UTC", "Asia/Kolkata"):
        assert said(now, [{"keep": [keep("1y")]}], "hosted", zone=zone) == {
            "vault": vault,
            "hosted": hosted,
        }


@pytest.mark.parametrize(
    ("now", "deadline"),
    [("2026-02-15T10:29:59Z", "2026-02-13T10:30:00Z"), ("2026-02-15T10:30:00Z", "none")],
)
def test_what_lies_elsewhere_is_tried_past_day_15_without_a_deadline(
    now: str, deadline: str
) -> None:
    assert said(now, [{"keep": [keep("1y")]}], "elsewhere") == {
        "vault": f"copy by {deadline}",
        "elsewhere": "unmanaged",
    }


def test_15_days_and_48_hours_are_hours_and_take_no_notice_of_a_change_of_clocks() -> None:
    found = said(
        "2026-03-21T00:00:00Z",
        [{"keep": [keep("1y")]}],
        "hosted",
        zone="Europe/Berlin",
        created="2026-03-20T10:30:00Z",
    )
    assert found == {
        "vault": "copy by 2026-04-02T10:30:00Z",
        "hosted": "lapses until 2026-04-04T10:30:00Z",
    }


def test_the_fraction_of_a_second_counts_and_is_not_shown() -> None:
    created = "2026-01-31T10:30:00.500000Z"
    at = said("2026-02-15T10:30:00Z", [{"keep": [keep("1y")]}], "hosted", created=created)
    assert at == {
        "vault": "copy by 2026-02-13T10:30:00Z",
        "hosted": "lapses until 2026-02-15T10:30:00Z",
    }
    assert said("2026-02-15T10:30:01Z", [{"keep": [keep("1y")]}], "hosted", created=created) == {
        "vault": "lost",
        "hosted": "none",
    }


@pytest.mark.parametrize(
    ("now", "expected"), [("2026-02-07T10:29:59Z", "waiting"), ("2026-02-07T10:30:00Z", "none")]
)
def test_a_failed_recording_is_waited_for_until_it_is_7_days_old(now: str, expected: str) -> None:
    assert said(now, [{"keep": [keep("1y")]}], asset={"status": "failed"}) == {"vault": expected}


def test_a_failed_recording_of_unknown_age_is_waited_for_and_never_read_from_100ms() -> None:
    rules = [{"keep": [keep("1y")]}]
    assert said("2026-11-22T00:00:00Z", rules, asset={"status": "failed"}, created=None) == {
        "vault": "waiting"
    }
    found = said("2026-02-02T00:00:00Z", rules, "elsewhere", asset={"status": "failed"})
    assert found == {"vault": "waiting", "elsewhere": "unmanaged"}


# ── Dates that are trusted ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("created", "expected"),
    [
        ("2026-11-22T00:05:00Z", "keep until 2026-11-22T01:05:00Z"),
        ("2026-11-22T00:05:00.000001Z", "blocked: untrusted-time"),
        ("2026-11-22T00:05:01Z", "blocked: untrusted-time"),
        ("2015-01-01T00:00:00Z", "delete"),
        ("2014-12-31T23:59:59Z", "blocked: untrusted-time"),
        ("2014-12-31T23:59:59-00:01", "delete"),
        ("2026-01-31T10:30:00", "blocked: untrusted-time"),
        ("2026-01-31", "blocked: untrusted-time"),
        ("2026-02-30T10:30:00Z", "blocked: untrusted-time"),
        ("2026-01-31T10:30:00+05:30", "delete"),
        ("", "blocked: untrusted-time"),
        (None, "blocked: untrusted-time"),
    ],
)
def test_a_date_is_trusted_from_2015_on_and_up_to_5_minutes_from_now(
    created: str | None, expected: str
) -> None:
    assert said("2026-11-22T00:00:00Z", [delete("1h")], "vault", created=created) == {
        "vault": expected
    }


def test_a_keep_of_an_untrusted_date_runs_at_once_and_has_no_end() -> None:
    rules = [{"keep": [keep("2d"), keep("7y", "cold", after="90d")], "then": "delete"}]
    found = said("2026-11-22T00:00:00Z", rules, "vault", "hosted", created="2014-12-31T23:59:59Z")
    assert found == {
        "vault": "keep until forever",
        "cold": "copy by none",
        "hosted": "lapses until forever",
    }
    only_100ms = said("2026-11-22T00:00:00Z", rules, "hosted", created="2026-11-22T00:05:01Z")
    assert only_100ms == {
        "vault": "copy by 2026-11-22T00:00:00Z",
        "cold": "copy by 2026-11-22T00:00:00Z",
        "hosted": "lapses until forever",
    }


# ── Holds ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("zone", "now", "expected"),
    [
        ("UTC", "2026-09-30T23:59:59Z", "keep until forever"),
        ("UTC", "2026-10-01T00:00:00Z", "delete"),
        ("Europe/Berlin", "2026-09-30T21:59:59Z", "keep until forever"),
        ("Europe/Berlin", "2026-09-30T22:00:00Z", "delete"),
        ("Asia/Kolkata", "2026-09-30T18:29:59Z", "keep until forever"),
        ("Asia/Kolkata", "2026-09-30T18:30:00Z", "delete"),
    ],
)
def test_a_hold_released_on_a_date_ends_with_the_start_of_that_day(
    zone: str, now: str, expected: str
) -> None:
    assert said(
        now, [delete("30d")], "vault", zone=zone, holds=[{"in": "vault", "released": "2026-10-01"}]
    ) == {"vault": expected}


@pytest.mark.parametrize(
    ("now", "expected"),
    [("2026-10-01T09:59:59Z", "blocked: hold"), ("2026-10-01T10:00:00Z", "delete")],
)
def test_a_hold_released_at_a_moment_ends_with_it(now: str, expected: str) -> None:
    found = said(
        now,
        [delete("30d")],
        "vault",
        "cold",
        holds=[{"in": "cold", "released": "2026-10-01T12:00:00+02:00"}],
    )
    assert found["vault"] == expected


# ── Locks ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("locked_until", "lock_read", "expected"),
    [
        ("TIMESTAMP '2026-11-22 00:00:01'", True, ("blocked", ["lock"])),
        ("TIMESTAMP '2026-11-22 00:00:00'", True, ("delete", [])),
        ("TIMESTAMP '2026-11-21 23:59:59'", True, ("delete", [])),
        ("TIMESTAMP 'infinity'", True, ("blocked", ["lock"])),
        ("NULL", True, ("delete", [])),
        ("NULL", False, ("blocked", ["lock"])),
    ],
)
def test_a_lock_ends_with_its_last_second_and_one_that_could_not_be_read_stands(
    locked_until: str, lock_read: bool, expected: tuple[str, list[str]]
) -> None:
    case = {
        "timezone": "UTC",
        "now": "2026-11-22T00:00:00Z",
        "rules": _policies(delete("30d")),
        "assets": [{"id": "a", "type": "chat", "created_at": CREATED}],
        "copies": [{"asset": "a", "in": "vault"}],
    }
    decider, policies = _decider(), policies_of(case)
    decider.decide(case, policies, now_of(case), "UTC")
    decider.connection.execute(
        f"UPDATE places SET locked_until = {locked_until}, lock_read = {lock_read}"
    )
    decide(decider.connection, policies, now_of(case), "UTC")
    assert decider.connection.execute("SELECT decision, because FROM decided").fetchall() == [
        expected
    ]


# ── Hours, days, months, years ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("created", "now", "expected"),
    [
        (CREATED, "2026-02-01T22:29:59Z", "keep until 2026-02-01T22:30:00Z"),
        (CREATED, "2026-02-01T22:30:00Z", "delete"),
        ("2026-01-31T10:30:00.000001Z", "2026-02-01T22:30:00Z", "keep until 2026-02-01T22:30:00Z"),
        ("2026-01-31T10:30:00.000001Z", "2026-02-01T22:30:01Z", "delete"),
        ("2026-01-31T10:29:59.999999Z", "2026-02-01T22:29:59Z", "keep until 2026-02-01T22:29:59Z"),
        ("2026-01-31T10:29:59.999999Z", "2026-02-01T22:30:00Z", "delete"),
        ("2026-03-28T23:30:00Z", "2026-03-30T11:29:59Z", "keep until 2026-03-30T11:30:00Z"),
        ("2026-03-28T23:30:00Z", "2026-03-30T11:30:00Z", "delete"),
    ],
)
def test_hours_are_exact_to_the_microsecond_in_every_zone(
    created: str, now: str, expected: str
) -> None:
    for zone in ("UTC", "Europe/Berlin"):
        assert said(now, [delete("36h")], "vault", created=created, zone=zone) == {
            "vault": expected
        }


@pytest.mark.parametrize(
    ("created", "period", "due"),
    [
        ("2026-01-28T10:30:00Z", "1mo", "2026-03-01T00:00:00Z"),
        ("2026-01-29T10:30:00Z", "1mo", "2026-03-01T00:00:00Z"),
        ("2026-01-31T23:59:59Z", "1mo", "2026-03-01T00:00:00Z"),
        ("2024-01-31T10:30:00Z", "1mo", "2024-03-01T00:00:00Z"),
        ("2024-01-28T10:30:00Z", "1mo", "2024-02-29T00:00:00Z"),
        ("2026-03-31T10:30:00Z", "1mo", "2026-05-01T00:00:00Z"),
        ("2025-08-31T10:30:00Z", "6mo", "2026-03-01T00:00:00Z"),
        ("2025-12-31T00:00:00Z", "2mo", "2026-03-01T00:00:00Z"),
        ("2024-02-29T10:30:00Z", "1y", "2025-03-01T00:00:00Z"),
        ("2024-02-29T10:30:00Z", "4y", "2028-03-01T00:00:00Z"),
        ("2023-02-28T10:30:00Z", "1y", "2024-02-29T00:00:00Z"),
        ("2026-01-31T10:30:00Z", "7y", "2033-02-01T00:00:00Z"),
        ("2026-01-31T10:30:00Z", "2555d", "2033-01-30T00:00:00Z"),
        ("2026-01-31T10:30:00Z", "P1Y6M", "2027-08-01T00:00:00Z"),
        ("2026-01-31T10:30:00Z", "2w", "2026-02-15T00:00:00Z"),
        ("2026-02-14T00:00:00Z", "1d", "2026-02-16T00:00:00Z"),
        ("2026-02-13T23:59:59.999999Z", "1d", "2026-02-15T00:00:00Z"),
    ],
)
def test_a_calendar_period_ends_with_the_day_that_has_its_date(
    created: str, period: str, due: str
) -> None:
    assert said(_a_second_before(due), [delete(period)], "vault", created=created) == {
        "vault": f"keep until {due}"
    }


def _a_second_before(text: str) -> str:
    moment = read_moment(text)
    assert moment is not None
    return write_moment(moment - timedelta(seconds=1))


@pytest.mark.parametrize(
    ("zone", "created", "due"),
    [
        # the day of the change is a day, of 23 and of 25 hours
        ("Europe/Berlin", "2026-03-27T23:30:00Z", "2026-03-29T22:00:00Z"),
        ("Europe/Berlin", "2026-03-28T22:59:59Z", "2026-03-29T22:00:00Z"),
        ("Europe/Berlin", "2026-03-28T23:00:00Z", "2026-03-30T22:00:00Z"),
        ("Europe/Berlin", "2026-10-24T21:59:59Z", "2026-10-25T23:00:00Z"),
        ("Europe/Berlin", "2026-10-24T22:00:00Z", "2026-10-26T23:00:00Z"),
        ("Europe/Berlin", "2026-10-25T22:59:59Z", "2026-10-26T23:00:00Z"),
        # a day whose midnight does not exist starts at 01:00
        ("America/Sao_Paulo", "2018-11-02T12:00:00Z", "2018-11-04T03:00:00Z"),
        ("America/Sao_Paulo", "2018-11-03T12:00:00Z", "2018-11-05T02:00:00Z"),
        ("Asia/Beirut", "2025-03-28T12:00:00Z", "2025-03-29T22:00:00Z"),
        ("Africa/Cairo", "2025-04-23T12:00:00Z", "2025-04-24T22:00:00Z"),
        # a day whose midnight comes twice starts with the first
        ("America/Havana", "2025-10-31T12:00:00Z", "2025-11-02T04:00:00Z"),
        ("Atlantic/Azores", "2025-10-24T12:00:00Z", "2025-10-26T00:00:00Z"),
        # half an hour, and a quarter
        ("Australia/Lord_Howe", "2026-04-03T12:00:00Z", "2026-04-04T13:00:00Z"),
        ("Asia/Kathmandu", "2026-01-31T18:14:59Z", "2026-02-01T18:15:00Z"),
        ("Asia/Kathmandu", "2026-01-31T18:15:00Z", "2026-02-02T18:15:00Z"),
    ],
)
def test_a_day_starts_when_its_date_is_first_seen_on_a_clock_of_the_zone(
    zone: str, created: str, due: str
) -> None:
    assert said(_a_second_before(due), [delete("1d")], "vault", created=created, zone=zone) == {
        "vault": f"keep until {due}"
    }
    assert said(due, [delete("1d")], "vault", created=created, zone=zone) == {"vault": "delete"}


@pytest.mark.parametrize(
    ("zone", "released"),
    [
        ("America/Sao_Paulo", "2018-11-04T03:00:00Z"),
        ("America/Havana", "2018-11-04T04:00:00Z"),
        ("Europe/Berlin", "2018-11-03T23:00:00Z"),
    ],
)
def test_a_hold_released_on_such_a_day_ends_when_it_starts(zone: str, released: str) -> None:
    holds = [{"in": "vault", "released": "2018-11-04"}]
    created = "2018-01-31T10:30:00Z"
    assert said(
        _a_second_before(released), [delete("1d")], "vault", created=created, zone=zone, holds=holds
    ) == {"vault": "keep until forever"}
    assert said(released, [delete("1d")], "vault", created=created, zone=zone, holds=holds) == {
        "vault": "delete"
    }


# ── Matches ───────────────────────────────────────────────────────────────────────────────────────


def answers(questions: list[tuple[Any, dict[str, Any]]], zone: str = "UTC") -> list[str]:
    """Whether each match is a yes, a no or not certain of an asset with these facts: what a rule
    that keeps and deletes does with it.

    All are asked in one case: each of an asset of its own, by a rule for that asset alone.
    """
    names = [f"a{number}" for number in range(len(questions))]
    case = {
        "timezone": zone,
        "now": "2026-11-22T00:00:00Z",
        "rules": [
            {
                "id": name,
                "match": {"all": [{"asset_id": name}, match]},
                "keep": [keep("1y")],
                "delete": [{"in": "cold", "after": "1h"}],
            }
            for name, (match, _) in zip(names, questions, strict=True)
        ],
        "assets": [
            {"id": name, "created_at": CREATED} | facts
            for name, (_, facts) in zip(names, questions, strict=True)
        ],
        "copies": [{"asset": name, "in": store} for name in names for store in ("vault", "cold")],
    }
    decisions = _decider().decide(case, policies_of(case), now_of(case), zone)
    told = {
        ("keep", "delete"): "yes",
        ("keep", "blocked"): "yes",
        ("keep", "unmanaged"): "not certain",
        ("unmanaged", "unmanaged"): "no",
    }
    return [told[decisions[name, "vault"]["is"], decisions[name, "cold"]["is"]] for name in names]


def check(table: list[tuple[Any, dict[str, Any], str]], zone: str = "UTC") -> None:
    """Every row of the table: a match, the facts of an asset, and the answer."""
    found = answers([(match, facts) for match, facts, _ in table], zone)
    assert [
        (match, facts, answer) for (match, facts, _), answer in zip(table, found, strict=True)
    ] == table


def test_created_is_from_after_on_and_before_before() -> None:
    check(
        [
            ({"created": {"after": "2026-01-31T10:30:00Z"}}, {}, "yes"),
            ({"created": {"after": "2026-01-31T10:30:01Z"}}, {}, "no"),
            ({"created": {"before": "2026-01-31T10:30:00Z"}}, {}, "no"),
            ({"created": {"before": "2026-01-31T10:30:01Z"}}, {}, "yes"),
            ({"created": {"after": "2026-01-31"}}, {}, "yes"),
            ({"created": {"before": "2026-01-31"}}, {}, "no"),
            ({"created": {"after": "2026-02-01"}}, {}, "no"),
            ({"created": {"before": "2026-02-01"}}, {}, "yes"),
        ]
    )


@pytest.mark.parametrize(
    ("zone", "before", "start"),
    [
        ("Asia/Kolkata", "2026-01-30T18:29:59Z", "2026-01-30T18:30:00Z"),
        ("Europe/Berlin", "2026-01-30T22:59:59Z", "2026-01-30T23:00:00Z"),
    ],
)
def test_a_date_in_a_match_is_the_start_of_that_day_in_the_zone(
    zone: str, before: str, start: str
) -> None:
    match = {"created": {"after": "2026-01-31"}}
    check([(match, {"created_at": before}, "no"), (match, {"created_at": start}, "yes")], zone)


@pytest.mark.parametrize(
    "match", [{"created": {"before": "2030-01-01"}}, {"not": {"created": {"before": "2030-01-01"}}}]
)
def test_an_untrusted_date_is_not_certain_in_a_match(match: Any) -> None:
    rules = [{"match": match, "keep": [keep("1h")]}, delete("1h")]
    assert said("2026-11-22T00:00:00Z", rules, "vault", created=None) == {
        "vault": "keep until forever"
    }
    assert said("2026-11-22T00:00:00Z", [delete("1h", match=match)], "vault", created=None) == {
        "vault": "unmanaged"
    }


@pytest.mark.parametrize("name", ["size", "duration"])
def test_min_and_max_are_included_and_0_is_not_known(name: str) -> None:
    match = {name: {"min": 1000, "max": 2000}}
    check(
        [
            (match, {name: 999}, "no"),
            (match, {name: 1000}, "yes"),
            (match, {name: 2000}, "yes"),
            (match, {name: 2001}, "no"),
            ({name: {"min": 1000}}, {name: 1000}, "yes"),
            ({name: {"max": 1000}}, {name: 1001}, "no"),
            (match, {name: 0}, "not certain"),
            (match, {name: None}, "not certain"),
            (match, {}, "no"),
            ({"not": match}, {name: 999}, "yes"),
            ({"not": match}, {name: 1000}, "no"),
            ({"not": match}, {name: 0}, "not certain"),
            ({"not": match}, {name: None}, "not certain"),
            ({"not": match}, {}, "not certain"),
        ]
    )


@pytest.mark.parametrize(
    "name",
    ["room", "template", "path", "type", "status", "room_id", "session_id", "user_id", "peer_id"],
)
def test_a_fact_not_carried_is_a_no_and_one_not_read_is_not_certain(name: str) -> None:
    yes, no = {"status": ("completed", "failed")}.get(name, ("chat", "track"))
    match = {name: yes}
    check(
        [
            (match, {name: yes}, "yes"),
            (match, {name: no}, "no"),
            ({"not": match}, {name: yes}, "no"),
            ({"not": match}, {name: no}, "yes"),
            (match, {}, "no"),
            ({"not": match}, {}, "not certain"),
            ({"not": {"not": match}}, {}, "no"),
            ({"not": {"not": {"not": match}}}, {}, "not certain"),
            (match, {"not_known": [name]}, "not certain"),
            ({"not": match}, {"not_known": [name]}, "not certain"),
            ({"not": {"not": match}}, {"not_known": [name]}, "not certain"),
        ]
    )


def test_not_certain_passes_through_any_and_all_as_in_three_valued_logic() -> None:
    maybe, yes, no = {"room": "x"}, {"type": "chat"}, {"type": "track"}
    facts = {"type": "chat", "not_known": ["room"]}
    check(
        [
            ({"any": [maybe, yes]}, facts, "yes"),
            ({"any": [maybe, no]}, facts, "not certain"),
            ({"any": [no, no]}, facts, "no"),
            ({"all": [maybe, yes]}, facts, "not certain"),
            ({"all": [maybe, no]}, facts, "no"),
            ({"all": [yes, yes]}, facts, "yes"),
            (maybe | yes, facts, "not certain"),
            (maybe | no, facts, "no"),
            ({"not": maybe | no}, facts, "yes"),
            ({"not": {"any": [maybe, yes]}}, facts, "no"),
            ("all", facts, "yes"),
            ({"not": {"all": [maybe, yes]}}, facts, "not certain"),
            ({"type": ["track", "chat"]}, facts, "yes"),
            ({"room": ["x", "*"]}, facts, "not certain"),
        ]
    )


def test_metadata_is_compared_as_text_key_by_key() -> None:
    check(
        [
            ({"metadata": {"n": 4}}, {"metadata": {"n": "4"}}, "yes"),
            ({"metadata": {"n": "4"}}, {"metadata": {"n": 4}}, "yes"),
            ({"metadata": {"live": "true"}}, {"metadata": {"live": True}}, "yes"),
            ({"metadata": {"n": [4, 5]}}, {"metadata": {"n": 5}}, "yes"),
            ({"metadata": {"n": 4}}, {"metadata": {"n": 5}}, "no"),
            ({"metadata": {"a/b~c": "x"}}, {"metadata": {"a/b~c": "x"}}, "yes"),
            ({"metadata": {"n": 4}}, {"metadata": {"N": 4}}, "no"),
            ({"metadata": {"n": 4}}, {"metadata": {}}, "no"),
            ({"metadata": {"n": 4}}, {"metadata": None}, "no"),
            ({"not": {"metadata": {"n": 4}}}, {"metadata": {}}, "not certain"),
            ({"metadata": {"n": 4}}, {"not_known": ["metadata"]}, "not certain"),
            ({"metadata": {"n": 4, "m": 2}}, {"metadata": {"n": 4, "m": 1}}, "no"),
        ]
    )


@pytest.mark.parametrize("name", ["user_id", "peer_id"])
def test_user_and_peer_come_from_the_asset_and_else_from_its_metadata(name: str) -> None:
    check(
        [
            ({name: "u1"}, {"metadata": {name: "u1"}}, "yes"),
            ({name: "u1"}, {name: "u2", "metadata": {name: "u1"}}, "no"),
            ({name: "u1"}, {name: "u2", "not_known": ["metadata"]}, "no"),
            ({name: "u1"}, {"not_known": ["metadata"]}, "not certain"),
        ]
    )


def test_a_glob_is_the_shells() -> None:
    table = [
        ("sales-*", "sales-", "yes"),
        ("sales-*", "Sales-1", "no"),
        ("sales-?", "sales-1", "yes"),
        ("sales-?", "sales-12", "no"),
        ("*-1", "sales-1", "yes"),
        ("sales", "sales-1", "no"),
        ("[Ss]ales", "Sales", "yes"),
        ("[!s]ales", "Sales", "yes"),
        ("[^s]ales", "sales", "no"),
        ("r[0-9]", "r5", "yes"),
        ("r[0-9]", "r", "no"),
        ("r[5", "r[5", "yes"),
        ("[]r]x", "]x", "yes"),
        ("[!]r]x", "]x", "no"),
        ("a.c", "abc", "no"),
        ("a*", "a\nb", "yes"),
        ("ü?", "üß", "yes"),
        ("50%", "500", "no"),
        ("a_c", "abc", "no"),
        ("r[a-]", "r-", "yes"),
        ("r[*]", "r*", "yes"),
        ("r[*]", "rx", "no"),
        ("*", "", "yes"),
    ]
    check([({"room": pattern}, {"room": room}, answer) for pattern, room, answer in table])


def test_a_range_that_runs_backwards_is_empty_and_not_in_it_is_any_letter() -> None:
    table = [
        ("r[9-0]", "r5", "no"),
        ("r[9-0x]", "rx", "yes"),
        ("r[!9-0]", "r5", "yes"),
        ("r[!9-0]", "r", "no"),
        ("r[!9-0x]", "rx", "no"),
    ]
    check([({"room": pattern}, {"room": room}, answer) for pattern, room, answer in table])


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
@pytest.mark.parametrize(
    "text",
    [
        "it's",
        "'; DROP TABLE assets; --",
        "a -- b",
        "$now",
        "$matches",
        "$hourly",
        "$local_day",
        "$start_of_day",
    ],
)
def test_what_a_policy_says_is_text_and_never_sql(text: str, zone: str) -> None:
    check(
        [
            ({"room_id": text}, {"room_id": text}, "yes"),
            ({"room_id": text}, {"room_id": "another"}, "no"),
            ({"room": f"{text}*"}, {"room": f"{text} 1"}, "yes"),
            ({"metadata": {text: text}}, {"metadata": {text: text}}, "yes"),
        ],
        zone,
    )
