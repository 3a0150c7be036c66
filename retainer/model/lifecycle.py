"""Rules of a bucket's own that delete or move what lies there, whatever the policies say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta

from retainer.model.moment import read_moment, write_moment


@dataclass(frozen=True, slots=True)
class LifecycleRule:
    """One act of one rule: `delete`, or `move` to another storage class (`to`).

    `prefixes`: of which keys, none for all. `days` after an object was made, or `on` a date;
    neither where other conditions alone decide. `narrowed`: those other conditions, in words.
    `versions`: only versions that newer ones have replaced.
    """

    id: str
    act: str
    prefixes: tuple[str, ...] = ()
    days: int | None = None
    on: datetime | None = None
    to: str = ""
    narrowed: tuple[str, ...] = ()
    versions: bool = False

    def concerns(self, prefix: str) -> bool:
        """Whether it may be about keys below a prefix."""
        return not self.prefixes or any(
            each.startswith(prefix) or prefix.startswith(each) for each in self.prefixes
        )

    def earliest(self, made: datetime) -> datetime:
        """When it may strike an object that was made at a moment, at the earliest."""
        if self.on is not None:
            return max(self.on, made)
        try:
            return made + timedelta(days=self.days or 0)
        except OverflowError:
            return datetime.max.replace(tzinfo=made.tzinfo)

    @property
    def words(self) -> str:
        """What it does, and when."""
        what = "deletes" if self.act == "delete" else f"moves to {self.to}"
        whose = "replaced versions of " if self.versions else ""
        where = " or ".join(f"`{each}…`" for each in self.prefixes) or "everything"
        when = (
            f"on {self.on:%Y-%m-%d}"
            if self.on
            else f"after {self.days:,} {'day' if self.days == 1 else 'days'}"
            if self.days is not None
            else "at any time"
        )
        only = f" (only where {' and '.join(self.narrowed)})" if self.narrowed else ""
        return f"{what} {whose}{where} {when}{only}"


def write_rules(rules: Sequence[LifecycleRule]) -> str:
    """As JSON, for a snapshot."""
    return json.dumps(
        [asdict(rule) | {"on": write_moment(rule.on) if rule.on else None} for rule in rules]
    )


def read_rules(text: str) -> tuple[LifecycleRule, ...]:
    """What `write_rules` wrote. Raises ValueError."""
    try:
        rules = [LifecycleRule(**of) for of in json.loads(text)]
        return tuple(
            replace(
                rule,
                prefixes=tuple(map(str, rule.prefixes)),
                narrowed=tuple(map(str, rule.narrowed)),
                days=None if rule.days is None else int(rule.days),
                on=read_moment(str(rule.on)) if rule.on else None,
            )
            for rule in rules
        )
    except TypeError:
        raise ValueError("no rules of a bucket") from None
