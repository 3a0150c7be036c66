"""A line of the journal: JSON with the hash of the line before (docs/reference/journal.md)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from retainer.errors import RetainerError
from retainer.model.moment import read_moment, write_moment

START = "0" * 64
"""What the first line of all names as the hash before it."""
CLOSED = "closed"
"""The event that a segment ends with: its particulars are what later runs need of all before."""
_BEFORE_SEAL, _AFTER_SEAL = b',"hash":"', b'"}'
_SEAL_AT = -(len(_BEFORE_SEAL) + 64 + len(_AFTER_SEAL))
_SHAPES: dict[str, dict[str, type | tuple[type, ...]]] = {
    "deleted": {"row": int, "store": str, "rule": str, "bytes": int, "asset": str},
    "copied": {"row": int, "record": dict},
    "catalogued": {"rows": list},
    "locked": {"row": int, "asset": str, "store": str, "keys": list},
    "upload": {"row": int, "store": str, "key": str, "upload": str},
    "abandoned": {"upload": str},
    "conditions": {"store": str},
    "applies": {"policies": str},
    "intent": {"act": str, "rows": list, "store": str},
    "failed": {"row": int, "act": str},
    "skipped": {"row": int, "act": str},
    "left": {"row": int, "act": str},
    "anchor": {"store": str},
    "spread": {"plan": str},
    "given": {"name": str},
    "shard": {"of": str, "name": str, "lines": int, "whole": bool},
    "gathered": {"of": str},
    "end": {"finished": bool},
    CLOSED: {"lines": int},
}
"""What later runs read of each event."""
_ANY: dict[str, type | tuple[type, ...]] = {}


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: when (UTC), in which run, of which plan (its fingerprint), what, and the
    particulars. `seal`: its hash."""

    at: datetime
    run: str
    plan: str
    event: str
    particulars: dict[str, Any]
    seal: str = ""

    @property
    def acted(self) -> datetime:
        """When it was done: by another machine, before it was written down here."""
        return read_moment(str(self.particulars.get("acted") or "")) or self.at

    @property
    def by(self) -> str:
        """The run that did it, which may have died before it was written down."""
        return str(self.particulars.get("by") or self.run)


def sealed(entry: Entry, previous: str) -> tuple[bytes, str]:
    """An entry as a line, and its hash, which is over the bytes before it and a closing brace.
    Raises ValueError for an entry that nobody could read again."""
    if not _has_its_shape(entry.event, entry.particulars):
        raise ValueError(f"no line of a journal is `{entry.event}` with {entry.particulars}")
    line = {
        "at": write_moment(entry.at),
        "run": entry.run,
        "plan": entry.plan,
        "event": entry.event,
        "of": entry.particulars,
        "prev": previous,
    }
    body = json.dumps(line, sort_keys=True, separators=(",", ":")).encode()
    seal = hashlib.sha256(body).hexdigest()
    return body[:-1] + _BEFORE_SEAL + seal.encode() + _AFTER_SEAL + b"\n", seal


def _has_its_shape(event: object, of: Mapping[str, Any]) -> bool:
    shape = _SHAPES.get(event, _ANY) if isinstance(event, str) else _ANY
    return all(isinstance(of.get(name), kind) for name, kind in shape.items())


def opened(text: bytes) -> tuple[Entry, str]:
    """A line, without its end, and the hash that it goes on from. Raises ValueError where it was
    changed, and for what no run writes."""
    body, tail = text[:_SEAL_AT] + b"}", text[_SEAL_AT:]
    seal = hashlib.sha256(body).hexdigest()
    if tail != _BEFORE_SEAL + seal.encode() + _AFTER_SEAL:
        raise ValueError("it does not fit its hash")
    try:
        line = json.loads(body.decode())
        at, of = read_moment(line["at"]), line["of"]
        texts = [line[name] for name in ("run", "plan", "event", "prev")]
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("it is no line of a journal") from error
    run, plan, event, previous = texts
    if (
        at is None
        or not isinstance(of, dict)
        or not all(isinstance(each, str) for each in texts)
        or not _has_its_shape(event, of)
    ):
        raise ValueError("it is no line of a journal")
    return Entry(at, run, plan, event, of, seal), previous


def entries_of(
    lines: Iterable[bytes], where: str, *, previous: str | None, first: int
) -> Iterator[Entry]:
    """The entries of whole lines. `previous`: the hash that the first of them, at line `first`,
    goes on from (None: whatever it says). Raises RetainerError where the chain is broken."""
    for number, line in enumerate(lines, first):
        try:
            entry, before = opened(line.rstrip(b"\n"))
            if previous is not None and before != previous:
                raise ValueError("it does not go on from the line before")
        except ValueError:
            raise RetainerError(
                f"the journal {where} is damaged at line {number}: what was done is no longer "
                "certain",
                hint="restore it from a backup; do not edit it",
            ) from None
        previous = entry.seal
        yield entry
