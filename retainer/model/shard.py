"""A share of a plan, or of making one, as it is given to another machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

ShardAct = Literal["copy", "delete"]


@dataclass(frozen=True, slots=True)
class Shard:
    """Actions of one kind of a plan: `count` of them from number `first` on, in the order in which
    the plan's are made. It names no recording and holds no secret: whoever makes it reads the plan
    itself, and has rights of its own.

    `plan`: the fingerprint; `run`: of the apply that gives it; `store`: where it deletes (empty:
    copies, of all stores); `made_with`: the versions that read a plan in one order.
    """

    plan: str
    run: str
    act: ShardAct
    first: int
    count: int
    made_with: str
    store: str = ""

    @property
    def name(self) -> str:
        """What tells it from the others of its run, in a key."""
        return "-".join(filter(None, (self.act, self.store, f"{self.first:09}")))

    def written(self) -> dict[str, Any]:
        """As plain values, which any version can read."""
        return asdict(self)

    @staticmethod
    def read(of: Mapping[str, Any]) -> Shard:
        """Raises ValueError for what this version does not know."""
        try:
            return Shard(**of)
        except TypeError as error:
            raise ValueError("it is no share of a plan that this version knows") from error


def is_of_deletes(name: str) -> bool:
    """Of a share, by its name."""
    return name.startswith("delete-")


@dataclass(frozen=True, slots=True)
class Part:
    """A range of the recordings that a plan is made for, by its number. It names none of them:
    `folder` has what whoever decides it goes by, and takes what comes of it; `terms`: the SHA-256
    of that; `made_with`: the versions that decide alike."""

    folder: str
    number: int
    made_with: str
    terms: str

    @property
    def name(self) -> str:
        return f"{self.number:06}"

    def written(self) -> dict[str, Any]:
        """As plain values, which any version can read."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Told:
    """How far a share is, since it was begun by whoever makes it now: so many of its actions have
    ended, so many of these went wrong, and so many bytes were copied."""

    shard: str
    ended: int
    failed: int
    bytes: int
