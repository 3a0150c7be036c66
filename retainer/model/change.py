"""What a change of policies does, as values: in words alone, and counted on the facts of a day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from retainer.model.forecast import Lying

Turn = Literal[
    "longer",
    "shorter",
    "elsewhere",
    "others",
    "added",
    "removed",
    "looser",
    "tighter",
    "otherwise",
    "same",
]
"""What a changed setting means for what it covers: kept longer or shorter, in another place, for
other recordings; a setting or item that came, or went; a brake that lets more or less pass, another
setting of the operator; or nothing (a name, a place in a file)."""


@dataclass(frozen=True, slots=True)
class Change:
    """One setting of one rule, hold, erasure or of retainer.yaml that is another one by now.

    `setting`: such as `keep in vault`; `before` and `after`: as a policy writes them, empty where
    there was none, or is none. `shortens`: whether something may go earlier for it.
    """

    item: str
    kind: str
    at: str
    setting: str
    before: str
    after: str
    turn: Turn
    shortens: bool = False


Becomes = Literal[
    "due now",
    "for good",
    "lapses",
    "sooner",
    "shorter",
    "blocked",
    "held",
    "lost",
    "not copied",
    "not missed",
    "spared",
    "released",
    "copied",
    "later",
    "longer",
    "otherwise",
]
"""What a pair of a recording and a place comes to by a change, the gravest first."""
BECOMES: tuple[Becomes, ...] = get_args(Becomes)
GOES: frozenset[Becomes] = frozenset({"due now", "for good", "lapses", "blocked"})
"""What goes: now, or with every version where it could be brought back, when 100ms drops it, or
once nothing blocks it any more."""
SHORTENS: frozenset[Becomes] = GOES | {"sooner", "shorter", "not copied"}


@dataclass(frozen=True, slots=True)
class Affected:
    """One pair that the change treats otherwise: until when it was kept, and until when it is."""

    asset_id: str
    type: str | None
    store: str
    bytes: int | None
    was: str
    comes_to: str
    before: datetime | None
    after: datetime | None
    rule: str | None
    last_copy: bool


@dataclass(frozen=True, slots=True)
class Effect:
    """What one changed item does to those pairs that come to the same.

    `assets`: recordings; `copies`: pairs; `first`: the first moment at which it matters; `rows`:
    the largest few.
    """

    item: str
    becomes: Becomes
    assets: int
    copies: int
    bytes: int
    last_copies: int
    first: datetime | None
    rows: tuple[Affected, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """How one side stands at that moment: what is due anyway, and what is or will be lost."""

    deletes: int
    delete_bytes: int
    copies: int
    copy_bytes: int
    last_copies: int
    lost: int
    lost_bytes: int
    at_risk: int
    first_leaves_at: datetime | None
    lapsing: int
    pairs: int


@dataclass(frozen=True, slots=True)
class Breach:
    """A limit that the result would breach: how much of it is used, before and after."""

    name: str
    scope: str
    before: float
    after: float
    allowed: float
    is_new: bool


@dataclass(frozen=True, slots=True)
class Clashing:
    """A ceiling that a keep reaches beyond, of so many recordings."""

    ceiling: str
    keep: str
    assets: int
    is_new: bool


@dataclass(frozen=True, slots=True)
class HeldItems:
    """Holds that are in force, and how many of the recordings that the change touches they may
    cover."""

    holds: int
    affected: int


@dataclass(frozen=True, slots=True)
class Month:
    """A month, such as 2027-03, and how many bytes of copies end in it, before and after."""

    month: str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Tested:
    """How the project's policy tests went: so many passed, and those that failed by name and
    place. `unread`: files with mistakes of their own."""

    passed: int
    failed: tuple[str, ...]
    unread: tuple[str, ...] = ()

    @property
    def is_well(self) -> bool:
        return not (self.failed or self.unread)


@dataclass(frozen=True, slots=True)
class LockedLonger:
    """So many copies are to be locked in a store when they are made, and so many longer that lie
    there; the last of them until when. So many of all by the policies of before, and so many that
    nobody could take back."""

    store: str
    new: int
    longer: int
    before: int
    final: int
    last: datetime


@dataclass(frozen=True, slots=True)
class Impact:
    """What a change of policies does on the facts of a day, apart from what is due anyway."""

    now: datetime
    base: str
    base_commit: str
    head: str
    head_commit: str
    project: str
    facts_id: str
    gathered: datetime | None
    incomplete: tuple[str, ...]
    """The listings that did not finish."""
    changes: tuple[Change, ...]
    effects: tuple[Effect, ...]
    assets: int
    """How many recordings are treated otherwise."""
    same: int
    """How many pairs are treated as before."""
    old: Standing
    new: Standing
    both_delete: int
    both_delete_bytes: int
    both_copy: int
    both_copy_bytes: int
    breaches: tuple[Breach, ...]
    clashes: tuple[Clashing, ...]
    holds: HeldItems
    locks: tuple[LockedLonger, ...]
    """Where more is locked longer, or for longer, than before."""
    freed: int
    """So many deletes were held back by a limit or a clash, and are not any more."""
    owners: tuple[str, ...]
    months: tuple[Month, ...]
    cliff: tuple[tuple[int, int, int], ...]
    """By the days that 100ms still has it: how many recordings a rule keeps after the change, and
    none."""
    recoverable: tuple[str, ...]
    """Stores of which what is deleted can still be read for a while."""
    tool: str
    remembered: str
    lying_before: tuple[Lying, ...]
    lying_after: tuple[Lying, ...]
    """What lies where, now and later, on both sides."""
    uncertain: tuple[tuple[str, int], ...] = ()
    """Rules, holds and erasures that match so many recordings, or do not: that is not certain."""
    undeclared: tuple[tuple[str, int], ...] = ()
    """Buckets that nobody declared, and how many recordings are said to lie there."""
    tests: Tested | None = None
    """Of the changed policies; None where there are no tests."""

    @property
    def deletes_more(self) -> bool:
        """Whether something goes that did not, by itself or since a brake is looser."""
        return bool(self.freed) or any(effect.becomes in GOES for effect in self.effects)

    @property
    def shortens(self) -> bool:
        """Whether something is kept less long than before, or not kept at all."""
        return any(change.shortens for change in self.changes) or any(
            effect.becomes in SHORTENS for effect in self.effects
        )

    @property
    def breaches_more(self) -> bool:
        """Whether a limit is breached, or a ceiling reached beyond, that was not."""
        breached = any(each.is_new for each in self.breaches)
        return breached or any(each.is_new for each in self.clashes)
