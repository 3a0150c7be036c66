"""What a store remembers of the journals that wrote to it (`_retainer/record.json`): where each one ended, and what it deleted here lately.

So a journal that was cut, removed or left on another machine is noticed, and the limits of 24 hours belong to the store.
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
REMEMBERED = timedelta(days=30)
"""A journal that wrote nothing for so long is forgotten, but for the last one."""


@dataclass(frozen=True, slots=True)
class Lately:
    """Deletes of one rule: how many, of how many bytes, and when the last of them was (RFC 3339)."""

    at: str
    rule: str
    count: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Anchor:
    """The end of one journal, as a run left it: so many lines, the hash of the last. `open`: the run has not told its end."""

    lines: int
    head: str
    at: str
    host: str
    run: str
    open: bool
    lately: tuple[Lately, ...] = ()


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
    lately = tuple(Lately(str(of["at"]), str(of["rule"]), int(of["count"]), int(of["bytes"])) for of in item["lately"])
    anchor = Anchor(int(item["lines"]), str(item["head"]), str(item["at"]), str(item["host"]), str(item["run"]), bool(item["open"]), lately)
    if read_moment(anchor.at) is None or any(read_moment(each.at) is None or each.count < 0 or each.bytes < 0 for each in lately):
        raise ValueError("it has no moment where one should be")
    return anchor


def write_anchors(anchors: Anchors, now: datetime) -> bytes:
    """Those that are not forgotten, with the deletes of the last 24 hours."""
    newest = max(anchors, key=lambda state: anchors[state].at)
    kept = {
        state: replace(anchor, lately=tuple(each for each in anchor.lately if each.at > write_moment(now - timedelta(hours=24))))
        for state, anchor in anchors.items()
        if state == newest or anchor.at > write_moment(now - REMEMBERED)
    }
    return json.dumps({"journals": {state: asdict(anchor) for state, anchor in sorted(kept.items())}}, indent=1).encode() + b"\n"


def deleted_elsewhere(anchors: Anchors, own: str | None, now: datetime) -> list[tuple[str, int, int]]:
    """The deletes of the last 24 hours of which other journals than `own` tell: rule, count, bytes. Those of an open run are what it was
    about to do."""
    since = write_moment(now - timedelta(hours=24))
    others = (anchor for state, anchor in sorted(anchors.items()) if state != (own or ""))
    return [(each.rule, each.count, each.bytes) for anchor in others for each in anchor.lately if each.at > since]
