"""How an object is copied, as a table: every way, and each of its boundaries."""

from __future__ import annotations

import pytest

from retainer.apply.way import THROUGH_HERE, Sides, Way, way
from retainer.planfile import Planned
from retainer.ports import Look, Seen

SHORT, LONG = Look(Seen("s", THROUGH_HERE, "v")), Look(Seen("s", THROUGH_HERE + 1, "v"))
THERE = Look(Seen("k", 5, "v1"))
BROKEN = Planned("vault", "k", 5, "v1")
TABLE = {
    "100ms, nothing there": (Sides(None, None, None, False), Way.THROUGH),
    "100ms, something there": (Sides(THERE, None, None, False), Way.RECOGNISE),
    "100ms, the broken one there": (Sides(THERE, BROKEN, None, False), Way.REPLACE),
    "100ms, the broken one went": (Sides(None, BROKEN, None, False), Way.THROUGH),
    "short, the servers can": (Sides(None, None, SHORT, True), Way.THROUGH),
    "long, the servers can": (Sides(None, None, LONG, True), Way.SERVER_COPY),
    "long, the servers cannot": (Sides(None, None, LONG, False), Way.THROUGH),
    "long, something there": (Sides(THERE, None, LONG, True), Way.RECOGNISE),
    "long, the broken one there": (Sides(THERE, BROKEN, LONG, True), Way.REPLACE),
    "another version than was broken": (
        Sides(THERE, Planned("vault", "k", 5, "v2"), LONG, True),
        Way.RECOGNISE,
    ),
    "another length than was broken": (
        Sides(THERE, Planned("vault", "k", 6, "v1"), LONG, True),
        Way.RECOGNISE,
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_there_is_one_way_to_make_a_copy(case: str) -> None:
    sides, expected = TABLE[case]
    assert way(sides) is expected
