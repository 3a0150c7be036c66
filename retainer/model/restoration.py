"""What was deleted, and whether it can be brought back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

State = Literal["recoverable", "by hand", "restored", "there", "taken", "gone", "erased", "unknown"]
"""It can be brought back; only by a person with a second factor; it was, just now; it lies there
already; something else lies there; the bucket has nothing of it; an erasure asked for it, so that
it stays away; nobody could look, or it did not come back."""


@dataclass(frozen=True, slots=True)
class Deleted:
    """A copy that was deleted: of which recording, where, when, by which run and rule. `objects` so
    many, of `bytes` bytes; `until`: when it is gone for good, None where the bucket does not
    tell."""

    asset_id: str
    store: str
    at: datetime
    run: str
    rule: str
    objects: int
    bytes: int
    state: State
    until: datetime | None = None
    note: str = ""
    by_hand: tuple[str, ...] = ()
    """The commands that bring it back, where only a person can give them."""


@dataclass(frozen=True, slots=True)
class Restoration:
    """`about`: the recording or the run that was asked for. `asking`: the rules that would have it
    deleted again."""

    about: str
    copies: tuple[Deleted, ...]
    asking: tuple[str, ...] = ()

    @property
    def recoverable(self) -> int:
        """So many copies can be brought back."""
        return sum(each.state == "recoverable" for each in self.copies)
