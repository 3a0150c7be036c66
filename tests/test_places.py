"""What a run is told of the places that it works on, place by place."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from retainer.apply.job import Job
from retainer.apply.outcomes import Outcomes
from retainer.apply.places import REFUSALS, SKEW, LockLost, Places
from retainer.errors import CredentialsRefused, RetainerError, StoreFailed, StoreRefused
from retainer.model.outcome import Resting
from retainer.planfile import Action
from retainer.stop import Stop, Stopped

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
Clock = Callable[[], datetime]


def at(off: timedelta) -> Clock:
    return lambda: NOW + off


def mute() -> datetime:
    raise StoreFailed("no answer")


class Told:
    """What a run counts and tells."""

    def __init__(self) -> None:
        self.summary = SimpleNamespace(resting={}, impossible={}, lost_lock=False)
        self.lines: list[str] = []

    @property
    def watcher(self) -> Any:
        return SimpleNamespace(ended=lambda _action, how, _why: self.lines.append(how))

    def __getattr__(self, name: str) -> Any:  # failed, impossible: what is told of one action
        return lambda _action, cause, *_: self.lines.append(f"{name}: {cause}")

    def counts(self) -> dict[str, int]:
        return {name: each.actions for name, each in self.summary.resting.items()}


def places(outcomes: Told | None = None, **of: Any) -> Places:
    told = {"stores": {}, "unlocked": {}, "clocks": {}, "locks": {}, "places": {}, "stop": Stop()}
    job = SimpleNamespace(**(told | {"clock": lambda: NOW} | of))
    return Places(cast(Job, job), cast(Outcomes, outcomes or Told()))


def action(store: str = "uploads") -> Action:
    return cast(Action, SimpleNamespace(store=store, leaves_at=None))


def held(**locks: bool) -> dict[str, Any]:
    return {name: SimpleNamespace(holds=holds) for name, holds in locks.items()}


OFF = SKEW + timedelta(minutes=5)


@pytest.mark.parametrize(
    ("clocks", "said"),
    [
        ({}, None),
        ({"a": at(OFF), "uploads": at(OFF)}, "10 minutes off that of uploads"),
        ({"a": at(OFF), "uploads": at(-OFF)}, "10 minutes off that of uploads"),
        ({"a": mute, "uploads": mute}, "the time of uploads is not known (no answer)"),
        ({"a": mute, "broken": mute, "uploads": at(SKEW)}, None),
        ({"hosted": at(OFF), "uploads": at(timedelta())}, "10 minutes off that of 100ms"),
        ({"hosted": at(SKEW), "uploads": at(SKEW + timedelta(seconds=1))}, "that of uploads"),
    ],
)
def test_no_delete_goes_by_a_clock_that_a_place_contradicts_on_which_it_rests(
    clocks: dict[str, Clock], said: str | None
) -> None:
    found = places(clocks=clocks, unlocked={"broken": StoreFailed("x")}).clock_is_off(
        {"uploads", "broken"}
    )
    assert (found is None) if said is None else (found is not None and said in found)


class Conditions:
    def __init__(self, asked: list[tuple[str, str]], name: str) -> None:
        self.asked, self.name, self.known = asked, name, {"create": True}

    def find_out(self, ability: str) -> None:
        if self.name == "broken":
            raise RetainerError("no answer")
        self.asked.append((self.name, ability))


def test_one_store_that_cannot_be_used_keeps_no_other_from_being() -> None:
    """And what a delete needs is found out where something is deleted, and nowhere else."""
    asked: list[tuple[str, str]] = []
    stores = {
        name: SimpleNamespace(conditions=lambda name=name: Conditions(asked, name))
        for name in ("broken", "uploads", "vault", "without a lock")
    }
    journal = SimpleNamespace(write=lambda *_, **__: None)
    unlocked = {"a lock": StoreFailed("held"), "without a lock": StoreFailed("held")}
    of = places(stores=stores, unlocked=unlocked, journal=journal)
    of.prove(["vault", "uploads", "not opened", "broken", "without a lock"], {"uploads"})
    assert asked == [("uploads", "create"), ("uploads", "delete"), ("vault", "create")]
    assert [name for name in stores if of.knows(name)] == ["uploads", "vault"]
    assert str(of.why_unusable("broken")) == "no answer"


def test_what_a_store_honours_is_written_down_where_it_is_news() -> None:
    written: list[str] = []
    of = places(
        stores={"vault": SimpleNamespace(conditions=lambda: found)},
        journal=SimpleNamespace(write=lambda _event, **told: written.append(str(told))),
        places={"vault": "s3://vault/x"},
    )
    found = Conditions([], "vault")
    of.prove(["vault"], set())
    of.tell_abilities()
    found.known = {"create": True, "delete": False}
    of.tell_abilities()
    of.tell_abilities()
    assert written == [
        "{'store': 'vault', 'place': 's3://vault/x', 'create': True}",
        "{'store': 'vault', 'place': 's3://vault/x', 'create': True, 'delete': False}",
    ]


# ── locks ─────────────────────────────────────────────────────────────────────────────────────────


def test_where_a_lock_was_lost_nothing_more_is_done_and_elsewhere_all_is() -> None:
    told = Told()
    of = places(told, locks=held(uploads=True, vault=False))
    of.check()
    of.check("uploads", "no lock is needed there")
    assert not told.summary.lost_lock
    with pytest.raises(LockLost, match="the lock of vault was lost"):
        of.check("uploads", "vault")
    assert told.summary.lost_lock and told.counts() == {"vault": 0}
    assert not told.summary.resting["vault"].credentials
    assert of.is_resting(action("vault"), ["uploads", "vault"])
    assert not of.is_resting(action(), ["uploads"])
    assert told.counts() == {"vault": 1} and told.lines == ["resting"]


@pytest.mark.parametrize(
    ("locks", "holds"),
    [({"uploads": True, "vault": True}, True), ({"uploads": True, "vault": False}, False)],
)
def test_the_locks_of_all_stores_that_a_delete_rests_on_hold(
    locks: dict[str, bool], holds: bool
) -> None:
    told = Told()
    of = places(told, locks=held(**locks, cold=False))
    assert of.still_holds(action(), ["vault", "uploads"]) is holds
    assert told.counts() == ({} if holds else {"vault": 1})
    assert told.summary.lost_lock is not holds


def test_after_something_broke_no_action_begins() -> None:
    of = places()
    of.check()
    of.halt()
    with pytest.raises(Stopped):
        of.check()


# ── refusals ──────────────────────────────────────────────────────────────────────────────────────


def test_a_store_that_refuses_again_and_again_rests_and_an_answer_counts_anew() -> None:
    told = Told()
    of = places(told)
    no = StoreRefused("403", hint="a right is lacking", store="uploads")
    for _ in range(REFUSALS - 1):
        assert not of.refused(action(), ["uploads", "vault"], no)
    of.answered("vault", "cold")
    of.answered("uploads")
    for _ in range(REFUSALS - 1):
        assert not of.refused(action(), ["uploads"], no)
    assert told.counts() == {}
    # one of its actions fails for it; those after that are not tried
    assert not of.refused(action(), ["uploads"], no)
    assert told.summary.resting["uploads"] == Resting(
        "403", "a right is lacking", credentials=False
    )
    assert of.is_resting(action(), ["uploads"]) and told.counts() == {"uploads": 1}


def test_what_is_no_refusal_rests_nothing() -> None:
    told = Told()
    of = places(told)
    for _ in range(2 * REFUSALS):
        assert not of.refused(action(), ["uploads"], StoreFailed("no answer"))
    assert told.counts() == {}


@pytest.mark.parametrize("store", ["vault", None])
def test_refused_credentials_rest_a_place_at_once(store: str | None) -> None:
    told = Told()
    of = places(told)
    assert of.refused(action(), ["uploads"], CredentialsRefused("401", store=store))
    assert told.counts() == {store or "hosted": 1}
    assert told.summary.resting[store or "hosted"].credentials


def test_an_action_that_fails_since_a_lock_was_lost_is_counted_there() -> None:
    told = Told()
    of = places(told, locks=held(vault=False))
    with pytest.raises(LockLost) as lost:
        of.check("vault")
    assert of.refused(action(), ["uploads", "vault"], lost.value)
    assert not of.refused(action(), ["uploads"], lost.value)
    assert told.counts() == {"vault": 1}


def test_what_a_store_cannot_do_is_told_once_and_counted() -> None:
    told = Told()
    of = places(told)
    for _ in range(2):
        of.cannot(action(), "no conditional writes", "another store")
    found = told.summary.impossible["uploads"]
    assert (found.actions, found.credentials, told.counts()) == (2, False, {})


def test_a_store_that_cannot_be_used_fails_its_own_actions() -> None:
    told = Told()
    of = places(told, unlocked={"vault": StoreFailed("held by somebody")})
    assert not of.is_usable(action("vault")) and not of.is_usable(action("cold"))
    assert told.lines == ["failed: held by somebody", "failed: the store cold cannot be opened"]
