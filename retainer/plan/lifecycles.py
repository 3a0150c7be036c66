"""Where rules of a bucket's own stand against the policies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from retainer.model.lifecycle import LifecycleRule
from retainer.model.period import Period
from retainer.model.rule import Policies
from retainer.model.setting import Store


@dataclass(frozen=True, slots=True)
class Against:
    """A rule of a bucket, in words, that would delete what `item` (at `at`, file:line) keeps there.

    For a recording that is made now: `strikes`, when it would go at the earliest; `stays`, until
    when it is to stay, None for ever. `kept`: for how long, as the policy says it, or `a hold`.
    """

    store: str
    rule: str
    item: str
    at: str
    kept: str
    strikes: datetime
    stays: datetime | None


def against(
    rule: LifecycleRule, store: Store, policies: Policies, now: datetime
) -> Iterator[Against]:
    """What a rule of a store's bucket would take too early."""
    if rule.act != "delete" or rule.versions or not concerns(rule, store):
        return
    said, strikes = f"{rule.id} {rule.words}", rule.earliest(now)
    for policy in policies.rules:
        for keep in policy.keeps:
            if keep.store == store.name and not _outlasts(rule, keep.period):
                period = keep.period
                ends = None if period.forever else period.ends(now).replace(tzinfo=UTC)
                at = str(policy.where)
                yield Against(store.name, said, policy.id, at, period.text, strikes, ends)
    for hold in policies.holds:
        if hold.store == store.name and (hold.released is None or hold.released > strikes):
            at = str(hold.where)
            yield Against(store.name, said, hold.id, at, "a hold", strikes, hold.released)


def concerns(rule: LifecycleRule, store: Store) -> bool:
    """Whether a rule of the bucket may be about what lies in a store."""
    return rule.concerns(store.prefix if store.scheme != "file" else "")


def _outlasts(rule: LifecycleRule, period: Period) -> bool:
    """Whether a rule strikes no earlier than a period ends, whenever it begins."""
    if rule.days is None or rule.on is not None or rule.days <= 0:
        return False
    days = min(rule.days, _LONGEST)
    return Period(seconds=days * 86400, text=f"{days}d").reaches(period)


_LONGEST = 1_000_000
"""Days; S3 takes two thousand times as many, which no calendar has."""
