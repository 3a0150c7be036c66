"""Freezes: no delete of any run on this state, until a person ends it or its time is over.

Each begin and each end is a line of `freezes.jsonl`, appended and never changed: an apply that is
on its way holds the journal itself, and must hear of it too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from retainer.errors import RetainerError
from retainer.model.moment import read_moment, write_moment

FILE = "freezes.jsonl"
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


def freeze_in(state: Path, now: datetime) -> Freeze | None:
    """The freeze that is in force at a moment; None where there is none.

    What cannot be read may be one: it counts as in force.
    """
    try:
        lines = (state / FILE).read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return None
    except OSError as error:
        return Freeze(f"{FILE} cannot be read ({error.strerror})")
    last = _read(lines[-1]) if lines else {}
    if last is None:
        return Freeze(f"the last line of {FILE} cannot be read; `retainer freeze --end` ends it")
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


def freeze(state: Path, reason: str, until: datetime | None, now: datetime) -> None:
    """From now on nothing is deleted by any run on this state. Raises RetainerError."""
    _append(state, "freeze", reason, now, {"until": write_moment(until)} if until else {})


def end_freeze(state: Path, reason: str, now: datetime) -> None:
    """Deletes may run again. Raises RetainerError."""
    _append(state, "end", reason, now, {})


def _append(
    state: Path, event: str, reason: str, now: datetime, more: Mapping[str, object]
) -> None:
    line = {"at": write_moment(now), "event": event, "reason": reason, "host": os.uname().nodename}
    try:
        state.mkdir(parents=True, exist_ok=True)
        with (state / FILE).open("ab") as stream:
            # a line that a full disk cut off must not swallow this one
            begins = b"" if _ends_well(state / FILE) else b"\n"
            stream.write(begins + json.dumps(line | dict(more)).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise RetainerError(
            f"{state / FILE} cannot be written: {error.strerror}",
            hint="nothing has changed; stop what runs `retainer apply` instead",
        ) from None


def _ends_well(file: Path) -> bool:
    content = file.read_bytes()
    return not content or content.endswith(b"\n")
