"""What a run is told of the places that it works on, place by place."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from retainer.apply.job import Job
from retainer.apply.outcomes import Outcomes
from retainer.apply.places import SKEW, Places
from retainer.errors import RetainerError, StoreFailed
from retainer.stop import Stop

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
Clock = Callable[[], datetime]


def at(off: timedelta) -> Clock:
    return lambda: NOW + off


def mute() -> datetime:
    raise StoreFailed("no answer")


def places(**of: Any) -> Places:
    told = {"stores": {}, "unlocked": {}, "clocks": {}, "locks": {}, "places": {}, "stop": Stop()}
    job = SimpleNamespace(**(told | {"clock": lambda: NOW} | of))
    return Places(cast(Job, job), cast(Outcomes, SimpleNamespace(summary=None)))


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
