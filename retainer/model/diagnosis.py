"""What `retainer doctor` found, line by line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Health = Literal["well", "told", "unsure", "worry", "bad"]


@dataclass(frozen=True, slots=True)
class Found:
    """One thing that was looked at: of which place, how it is, in words, and what to do."""

    place: str
    health: Health
    text: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    found: tuple[Found, ...]

    @property
    def is_well(self) -> bool:
        return all(each.health not in ("worry", "bad") for each in self.found)
