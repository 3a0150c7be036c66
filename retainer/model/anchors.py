"""What a store remembers of the journals that wrote to it (`_retainer/record.json`): where each one
ended, and what it deleted here lately.

So a journal that was cut, removed or left on another machine is noticed, and the limits of 24 hours
belong to the store.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from retainer.model.moment import read_moment, write_moment
from retainer.model.setting import OWN_PREFIX

ANCHORS_KEY = f"{OWN_PREFIX}record.json"
ANCHORS_BYTES = 1 << 20
"""A record is at most so long."""
REMEMBERED = 50
"""So many journals are remembered that deleted nothing within a day."""


@dataclass(frozen=True, slots=True)
class Lately:
    """Deletes of one rule: how many, of how many bytes, and when the last of them was (RFC
    3339)."""

    at: str
    rule: str
    count: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Anchor:
    """The end of one journal, as a run left it: so many lines, the hash of the last. `lately`: what
    it deleted within a day; `planned`: what a run that has not told its end was about to delete."""

    lines: int
    head: str
    at: str
    host: str
    run: str
    lately: tuple[Lately, ...] = ()
    planned: tuple[Lately, ...] = ()


Anchors = Mapping[str, Anchor]
"""By the id of the state folder that a journal lies in."""


def read_anchors(content: bytes) -> dict[str, Anchor]:
    """Raises ValueError when it is damaged."""
    try:
        value = json.loads(content)
        return {str(state): _anchor(item) for state, item in value["journals"].items()}
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it is no record ({type(error).__name__})") from None


def _anchor(item: Mapping[str, Any]) -> Anchor:
    lately, planned = (
        tuple(
            Lately(str(of["at"]), str(of["rule"]), int(of["count"]), int(of["bytes"]))
            for of in item[name]
        )
        for name in ("lately", "planned")
    )
    anchor = Anchor(
        int(item["lines"]),
        str(item["head"]),
        str(item["at"]),
        str(item["host"]),
        str(item["run"]),
        lately,
        planned,
    )
    if read_moment(anchor.at) is None or any(
        read_moment(each.at) is None or each.count < 0 or each.bytes < 0
        for each in (*lately, *planned)
    ):
        raise ValueError("it has no moment where one should be")
    return anchor


def write_anchors(anchors: Anchors, now: datetime) -> bytes:
    """Those that say something of the last 24 hours, and the newest others, so that it stays short.
    `now`: the store's."""
    day = write_moment(now - timedelta(hours=24))
    lately = {
        state: replace(anchor, lately=tuple(each for each in anchor.lately if each.at > day))
        for state, anchor in anchors.items()
    }
    tells = {
        state: any(each.at > day for each in (*anchor.lately, *anchor.planned))
        for state, anchor in lately.items()
    }
    in_order = sorted(lately, key=lambda state: (tells[state], lately[state].at), reverse=True)
    kept = {
        state: lately[state]
        for place, state in enumerate(in_order)
        if place < REMEMBERED or tells[state]
    }
    return (
        json.dumps(
            {"journals": {state: asdict(anchor) for state, anchor in sorted(kept.items())}},
            indent=1,
        ).encode()
        + b"\n"
    )


def deleted_lately(
    anchors: Anchors, now: datetime, own: str | None
) -> tuple[list[tuple[str, int, int]], list[tuple[str, int, int]]]:
    """The deletes of the last 24 hours of which a store remembers: rule, count, bytes; those of the
    journal `own`, and those of all others. Those of an open run are what it was about to do."""
    since = write_moment(now - timedelta(hours=24))
    told = [
        (state == own, (each.rule, each.count, each.bytes))
        for state, anchor in sorted(anchors.items())
        for each in (*anchor.lately, *anchor.planned)
        if each.at > since
    ]
    return [each for is_own, each in told if is_own], [each for is_own, each in told if not is_own]
