"""Freezes: no delete of any run on this state, until a person ends it or its time is over.

Each begin and each end is a line beside the journal, added and never changed: an apply that is on
its way holds the journal itself, and must hear of it too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from retainer.errors import RetainerError
from retainer.journal.backend import Backend, Reading
from retainer.model.moment import read_moment, write_moment

LONGEST_REASON = 500


@dataclass(frozen=True, slots=True)
class Freeze:
    """In force from `since` (None: nobody can read when) until `until` (None: until it is ended),
    for `reason`."""

    reason: str
    since: datetime | None = None
    until: datetime | None = None

    @property
    def words(self) -> str:
        """Why nothing may be deleted, without a full stop."""
        since = f" since {write_moment(self.since)}" if self.since else ""
        until = f" until {write_moment(self.until)}" if self.until else ""
        return f"freeze{since}{until}: {self.reason}"


def freeze_in(backend: Reading, now: datetime) -> Freeze | None:
    """The freeze that is in force at a moment; None where there is none.

    What cannot be read may be one: it counts as in force.
    """
    try:
        line = backend.last_freeze()
    except RetainerError as error:
        return Freeze(f"whether there is one cannot be read ({error.message})")
    last = _read(line) if line is not None else {}
    if last is None:
        return Freeze("the last one cannot be read; `retainer freeze --end` ends it")
    if last.get("event") != "freeze":
        return None
    since, until = (read_moment(str(last.get(name))) for name in ("at", "until"))
    if last.get("until") and until is None:
        return Freeze(f"{last.get('reason')} (nobody can read until when)", since)
    return None if until is not None and until <= now else Freeze(str(last["reason"]), since, until)


def _read(line: bytes) -> Mapping[str, Any] | None:
    try:
        told = json.loads(line)
    except ValueError:
        return None
    is_whole = line.endswith(b"\n") and isinstance(told, dict) and told.get("reason")
    return told if is_whole and told.get("event") in ("freeze", "end") else None


def freeze(
    backend: Backend, reason: str, until: datetime | None, now: datetime, who: Mapping[str, str]
) -> None:
    """From now on nothing is deleted by any run on this state. Raises RetainerError."""
    more = {"until": write_moment(until)} if until else {}
    _add(backend, "freeze", reason, now, {**who, **more})


def end_freeze(backend: Backend, reason: str, now: datetime, who: Mapping[str, str]) -> None:
    """Deletes may run again. Raises RetainerError."""
    _add(backend, "end", reason, now, who)


def _add(backend: Backend, event: str, reason: str, now: datetime, more: Mapping[str, str]) -> None:
    line = {"at": write_moment(now), "event": event, "reason": reason, "host": os.uname().nodename}
    try:
        backend.add_freeze(json.dumps({**more, **line}).encode() + b"\n")
    except RetainerError as error:
        raise RetainerError(
            f"the freeze cannot be written: {error.message}",
            hint="nothing has changed; stop what runs `retainer apply` instead",
        ) from None
