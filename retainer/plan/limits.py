"""How much a plan may delete: for every store and every rule, together with the last 24 hours;
emptying a store is always a breach."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from retainer.model.setting import DeleteLimits

NOTHING: Mapping[str, int] = MappingProxyType({})
PERCENT_FROM = 20
"""Percentages are judged from this many deletes on: of three recordings, one is a third. `percent:
0` means none, from the first on."""


@dataclass(frozen=True, slots=True)
class Deletes:
    """How many deletes of how many bytes one rule asks for in one store."""

    store: str
    rule: str
    count: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Held:
    """What one store holds before the plan: copies of known assets."""

    copies: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit as evaluated. `scope` is `store:NAME` or `rule:ID`; `used` includes the last 24
    hours."""

    name: str
    scope: str
    used: float
    allowed: float
    breached: bool
    lately: float = 0.0
    """How much of `used` the last 24 hours brought, before the plan."""


def remembered(
    recent: Iterable[Deletes], own: Iterable[Deletes], others: Iterable[Deletes]
) -> list[Deletes]:
    """The deletes of the last 24 hours, each once: of those in the own journal and those that the
    stores remember of it the larger number, and those that they remember of others."""
    found = {(each.store, each.rule): each for each in recent}
    for each in own:
        known = found.get((each.store, each.rule))
        if known is None or known.count < each.count:
            found[each.store, each.rule] = each
    return [*found.values(), *others]


def liftable(stores: Iterable[str], rules: Iterable[str], ceilings: Iterable[str]) -> list[str]:
    """Whatever a person can lift, as a plan names it. `ceilings`: rules with an `at_most`."""
    stores = list(stores)
    found = [f"{name}:rule:{rule}" for rule in rules for name in ("count", "bytes", "last_copies")]
    for store in stores:
        found += [f"{name}:store:{store}" for name in ("count", "bytes", "percent", "empty")]
        found += [
            f"{name}:{store}"
            for name in ("record", "workspace", "clock", "lifecycle", "disappeared")
        ]
    found += ["disappeared:100ms", "cooling:policies"]
    return [*found, *(f"clash:{rule}" for rule in ceilings)]


def evaluate(
    limits: DeleteLimits,
    planned: Iterable[Deletes],
    recent: Iterable[Deletes],
    held: Mapping[str, Held],
    passing: Collection[str] = (),
    last: Mapping[str, int] = NOTHING,
) -> list[Limit]:
    """Every limit that a delete of the plan counts towards, the breached ones first. `recent`: the
    last 24 hours of the journal; `passing`: stores that may be emptied; `last`: of how many
    recordings each rule takes the last copy, without saying that they are to end."""
    planned, recent = list(planned), list(recent)
    touched = {f"store:{each.store}" for each in planned} | {
        f"rule:{each.rule}" for each in planned
    }
    count: dict[str, int] = defaultdict(int)
    size: dict[str, int] = defaultdict(int)
    now: dict[str, int] = defaultdict(int)
    for each in (*planned, *recent):
        for scope in (f"store:{each.store}", f"rule:{each.rule}"):
            count[scope] += each.count
            size[scope] += each.bytes
    lately: dict[str, Deletes] = {}
    for each in recent:
        for scope in (f"store:{each.store}", f"rule:{each.rule}"):
            known = lately.get(scope, Deletes("", "", 0, 0))
            lately[scope] = Deletes("", "", known.count + each.count, known.bytes + each.bytes)
    for each in planned:
        now[each.store] += each.count
    found: list[Limit] = []
    for scope in sorted(touched):
        before = lately.get(scope, Deletes("", "", 0, 0))
        found.append(
            Limit(
                "count",
                scope,
                count[scope],
                limits.count,
                count[scope] > limits.count,
                before.count,
            )
        )
        found.append(
            Limit(
                "bytes", scope, size[scope], limits.bytes, size[scope] > limits.bytes, before.bytes
            )
        )
        kind, _, store = scope.partition(":")
        if kind == "rule" and (takes := last.get(store, 0)):
            allowed = limits.last_copies
            found.append(Limit("last_copies", scope, takes, allowed, takes > allowed))
        if kind == "store" and store not in passing:
            copies = held[store].copies if store in held else 0
            total = copies + count[scope] - now[store]
            percent = 100.0 * count[scope] / total if total else 0.0
            judged = count[scope] >= PERCENT_FROM or limits.percent == 0
            found.append(
                Limit(
                    "percent",
                    scope,
                    round(percent, 2),
                    limits.percent,
                    judged and percent > limits.percent,
                    round(100.0 * (count[scope] - now[store]) / total, 2) if total else 0.0,
                )
            )
            if copies and now[store] >= copies:
                found.append(Limit("empty", scope, now[store], copies - 1, True))
    return sorted(found, key=lambda limit: (not limit.breached, limit.scope, limit.name))
