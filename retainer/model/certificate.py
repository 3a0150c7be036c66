"""What became of a recording, a room, a session, or of all that an erasure asked for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from retainer.model.history import Happening


@dataclass(frozen=True, slots=True)
class Looked:
    """An object that was deleted, as a store shows it now: `is_there`, and behind it so many
    `hidden` versions. None where it could not be looked at, and `note` says why; it also says where
    its versions could not be."""

    store: str
    key: str
    is_there: bool | None
    note: str = ""
    hidden: int = 0


@dataclass(frozen=True, slots=True)
class Certificate:
    """`deleted`: each copy that went, `left`: each that the record knows of and that did not;
    `lapses`: what 100ms still has, and until when, as a plan last saw it; `purged`: of which
    recordings the catalogs tell no more than id, size and checksum. `looked`: when, empty where
    nobody asked the stores."""

    about: str
    record: str
    made: datetime
    recordings: tuple[str, ...]
    deleted: tuple[Happening, ...]
    left: tuple[Happening, ...]
    lapses: tuple[tuple[str, datetime | None], ...]
    purged: tuple[str, ...]
    looked: tuple[Looked, ...]
    plans: int
    lines: int
    first_hash: str
    last_hash: str

    @property
    def is_gone(self) -> bool:
        """Whether no copy is left that the record knows of, and none was seen or could be."""
        seen = all(each.is_there is False for each in self.looked)
        at_100ms = any(until is None or until > self.made for _, until in self.lapses)
        return bool(self.recordings) and not self.left and seen and not at_100ms
