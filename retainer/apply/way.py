"""How an object is copied: decided here, from what lies on both sides and what the servers can."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from retainer.planfile import Planned
from retainer.ports import Look, Seen

THROUGH_HERE = 256 << 10
"""Up to so many bytes are read and written from here also where the servers could copy them: two
calls, and the first bytes are looked at."""


class Way(Enum):
    """What is done."""

    RECOGNISE = "something lies there: it is the copy if it has the same bytes, and is left"
    REPLACE = "what the plan found broken lies there still: written over just that"
    SERVER_COPY = "the servers copy it by themselves"
    THROUGH = "read and written from here"


@dataclass(frozen=True, slots=True)
class Sides:
    """What lies on both sides of a copy.

    `there`: what was seen at its key (None: nothing, or nobody looked: the write's own condition
    says it then). `broken`: what the plan found there that is no copy. `lying`: the source, where
    it lies in a store. `servers_copy`: whether the servers can copy from that store.
    """

    there: Look | None
    broken: Planned | None
    lying: Look | None
    servers_copy: bool


def way(sides: Sides) -> Way:
    """The one way to make this copy."""
    match sides:
        case Sides(there=Look() as there, broken=broken):
            return Way.REPLACE if is_same(there.seen, broken) else Way.RECOGNISE
        case Sides(lying=Look() as lying, servers_copy=True) if lying.seen.size > THROUGH_HERE:
            return Way.SERVER_COPY
    return Way.THROUGH


def is_same(seen: Seen | None, planned: Planned | None) -> bool:
    """Whether what lies there is still what a plan saw; not where there is nothing."""
    return (
        seen is not None
        and planned is not None
        and (seen.version, seen.size) == (planned.version, planned.size)
    )
