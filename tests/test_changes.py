"""Two policies in words: which way each setting turns, and whether something may go sooner."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from retainer.model.period import parse_period
from retainer.model.rule import (
    Acceptance,
    Delete,
    Erasure,
    Everything,
    Hold,
    Keep,
    OneOf,
    Policies,
    Rule,
    Where,
)
from retainer.model.setting import DeleteLimits, Settings, Source, Store
from retainer.policy.changes import changes

AT = Where("policies/a.yaml", 3)
CHAT = OneOf("type", ("chat",))


def keep(period: str, store: str = "vault", after: str | None = None, legal: bool = False) -> Keep:
    return Keep(store, parse_period(period), parse_period(after) if after else None, legal)


def delete(after: str, store: str = "vault") -> Delete:
    return Delete(store, parse_period(after))


RULE = Rule("a", CHAT, AT, (keep("1y"),), (delete("2y", "uploads"),))


@pytest.mark.parametrize(
    ("more", "turn", "shortens"),
    [
        ({"keeps": (keep("2y"),)}, "longer", False),
        ({"keeps": (keep("6mo"),)}, "shorter", True),
        ({"keeps": (keep("365d"),)}, "shorter", True),  # not longer in every year
        ({"keeps": (keep("1y", "cold"),)}, "elsewhere", True),
        ({"keeps": (keep("1y"), keep("1y", "cold"))}, "added", False),
        ({"keeps": ()}, "removed", True),
        ({"keeps": (keep("1y", after="30d"),)}, "shorter", True),
        ({"keeps": (keep("1y", legal=True),)}, "longer", False),
        ({"deletes": (delete("1y", "uploads"),)}, "shorter", True),
        ({"deletes": (delete("3y", "uploads"),)}, "longer", False),
        ({"deletes": ()}, "longer", False),
        ({"deletes": (*RULE.deletes, delete("9y"))}, "shorter", True),
        ({"then_delete": True}, "shorter", True),
        ({"at_most": parse_period("9y")}, "shorter", True),
        ({"match": Everything()}, "others", True),
        ({"why": "other"}, "same", False),
        ({"where": Where("policies/b.yaml", 9)}, "same", False),
    ],
)
def test_a_setting_of_a_rule(more: dict[str, Any], turn: str, shortens: bool) -> None:
    found = changes(Policies((RULE,)), Policies((replace(RULE, **more),)))
    assert [(each.turn, each.shortens) for each in found] == [(turn, shortens)]


def test_nothing_changes_where_only_lines_do() -> None:
    moved = replace(RULE, where=Where("policies/a.yaml", 99))
    assert changes(Policies((RULE,)), Policies((moved,))) == []


def test_a_rule_that_comes_or_goes_is_told_by_what_it_asks_for() -> None:
    came = changes(Policies(), Policies((RULE,)))
    assert [(c.setting, c.after, c.shortens) for c in came] == [
        ("keep in vault", "1y", False),
        ("delete in uploads", "after 2y", True),
    ]
    went = changes(Policies((RULE,)), Policies())
    assert [(c.setting, c.before, c.shortens) for c in went] == [
        ("keep in vault", "1y", True),
        ("delete in uploads", "after 2y", False),
    ]


def test_holds_erasures_and_what_people_accept() -> None:
    hold = Hold("h", CHAT, AT, "vault")
    erasure = Erasure("e", CHAT, AT)
    accepted = Acceptance("x", AT)

    def told(old: Policies, new: Policies) -> list[tuple[str, bool]]:
        return [(each.turn, each.shortens) for each in changes(old, new)]

    until = replace(hold, released=datetime(2027, 1, 1, tzinfo=UTC))
    assert told(Policies(holds=(hold,)), Policies()) == [("removed", True)]
    assert told(Policies(), Policies(holds=(hold,))) == [("added", False)]
    assert told(Policies(holds=(hold,)), Policies(holds=(until,))) == [("shorter", True)]
    assert told(Policies(holds=(until,)), Policies(holds=(hold,))) == [("longer", False)]
    assert told(Policies(), Policies(erasures=(erasure,))) == [("added", True)]
    assert told(Policies(erasures=(erasure,)), Policies()) == [("removed", False)]
    assert told(Policies(), Policies(accepts=(accepted,))) == [("added", True)]
    assert told(Policies(), Policies(losses=(accepted,))) == [("added", False)]


@pytest.mark.parametrize(
    ("more", "shortens"),
    [
        ({"timezone": "Asia/Tokyo"}, True),
        ({"source": Source(hosted=("s3://x-*",))}, True),
        ({"limits": DeleteLimits(count=501)}, True),
        ({"limits": DeleteLimits(count=499)}, False),
        ({"limits": DeleteLimits(last_copies=1)}, True),
        ({"stores": (Store("vault", "s3://other/x"),)}, True),
        ({"stores": (Store("vault", "s3://b/x", may_be_emptied=True),)}, True),
        ({"stores": (Store("vault", "s3://b/x"), Store("cold", "gs://c"))}, False),
    ],
)
def test_a_setting_of_the_operator(more: dict[str, Any], shortens: bool) -> None:
    old = Settings((Store("vault", "s3://b/x"),))
    found = changes(Policies(), Policies(), old, replace(old, **more))
    assert found and any(each.shortens for each in found) is shortens
