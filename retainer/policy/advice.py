"""What is allowed and is hardly meant: `retainer lint`. Each finding is a warning, with its rule's
place; none of them changes what is decided."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from retainer.model.diagnostic import Diagnostic, Span
from retainer.model.period import Period
from retainer.model.price import MONTH_DAYS, PRICES, PRICES_OF, STANDARD
from retainer.model.rule import (
    AllOf,
    AnyOf,
    Between,
    Created,
    Erasure,
    Everything,
    Glob,
    Match,
    Not,
    OneOf,
    Policies,
    Rule,
    Where,
    facts_asked,
)
from retainer.model.setting import Settings, Store
from retainer.policy.diagnostics import nearest


def advise(
    policies: Policies,
    settings: Settings,
    regions: Collection[str] = (),
    matched: Mapping[str, int] | None = None,
) -> list[Diagnostic]:
    """`regions`: those of AWS that are known, none where they are not; `matched`: how many
    recordings of a snapshot each rule, hold and erasure matches, or may match."""
    found = [
        *_everything(policies),
        *_nothing(policies),
        *_covered(policies),
        *_unmatched(policies, matched),
        *_unused(policies, settings),
        *_places(settings, regions),
        *_classes(policies, settings),
        *_endless(policies),
        *_names(policies, settings),
        *_too_late(policies),
    ]
    return sorted(found, key=lambda each: each.order)


def _warning(code: str, where: Where, message: str, hint: str | None = None) -> Diagnostic:
    span = Span(where.line, 1, where.line, 1)
    return Diagnostic(code, where.file, span, message, hint, is_warning=True)


def _everything(policies: Policies) -> Iterator[Diagnostic]:
    items: tuple[Rule | Erasure, ...] = (*policies.rules, *policies.erasures)
    for item in items:
        if not isinstance(item.match, Everything):
            continue
        takes = (
            "is deleted"
            if isinstance(item, Rule) and (item.deletes or item.then_delete)
            else "is deleted at the latest then"
            if isinstance(item, Rule) and item.at_most
            else "is erased"
            if not isinstance(item, Rule)
            else None
        )
        if takes:
            yield _warning(
                "L501",
                item.where,
                f"`{item.id}` matches all: whatever no keep or hold covers {takes}",
                "name the types that are meant, so that a new type of 100ms's is not among them",
            )


def _nothing(policies: Policies) -> Iterator[Diagnostic]:
    for item in policies.items():
        if reason := impossible(item.match):
            yield _warning(
                "L502",
                item.where,
                f"`{item.id}` can match no recording: {reason}",
                "mend its match",
            )


def impossible(match: Match) -> str | None:
    """Why no recording can match, or None where one may."""
    match match:
        case Between(fact=fact, low=low, high=high) if (
            low is not None and high is not None and low > high
        ):
            return f"`{fact}` cannot be over {low:g} and under {high:g}"
        case Created(after=after, before=before) if after and before and after >= before:
            return "`created` cannot be after its own end"
        case AllOf(parts=parts):
            for part in parts:
                if reason := impossible(part):
                    return reason
            listed: dict[str, set[str]] = {}
            for part in parts:
                if isinstance(part, OneOf):
                    values = set(part.values)
                    listed[part.fact] = listed.get(part.fact, values) & values
            empty = [fact for fact, values in listed.items() if not values]
            if empty:
                return f"`{empty[0]}` cannot be two things at once"
            for part in parts:
                if isinstance(part, Not) and any(implies(other, part.part) for other in parts):
                    return "one part of it excludes another"
            return None
        case AnyOf(parts=parts):
            reasons = [impossible(part) for part in parts]
            return reasons[0] if reasons and all(reasons) else None
        case Not(part=Everything()):
            return "it excludes everything"
        case _:
            return None


def implies(one: Match, other: Match) -> bool:
    """Whether whatever matches `one` surely matches `other`; False where that is not plain."""
    match one, other:
        case _, Everything():
            return True
        case _ if one == other:
            return True
        case OneOf(fact=fact, values=values), OneOf(fact=same, values=more) if fact == same:
            return set(values) <= set(more)
        case Glob(fact=fact, patterns=values), Glob(fact=same, patterns=more) if fact == same:
            return set(values) <= set(more) or "*" in more
        case AnyOf(parts=parts), _:
            return all(implies(part, other) for part in parts)
        case _, AllOf(parts=parts):
            return all(implies(one, part) for part in parts)
        case AllOf(parts=parts), _:
            return any(implies(part, other) for part in parts)
        case _, AnyOf(parts=parts):
            return any(implies(one, part) for part in parts)
        case _:
            return False


def _covered(policies: Policies) -> Iterator[Diagnostic]:
    for rule in policies.rules:
        for other in policies.rules:
            if other is rule or not implies(rule.match, other.match):
                continue
            alike = implies(other.match, rule.match) and _asks_no_more(other, rule)
            if _asks_no_more(rule, other) and not (alike and other.id > rule.id):
                yield _warning(
                    "L503",
                    rule.where,
                    f"`{rule.id}` asks for nothing that `{other.id}` ({other.where}) does not ask "
                    "for of the same recordings",
                    "the longest keep wins: change that one instead, or remove this"
                    if rule.keeps and rule.keeps != other.keeps
                    else "one of them is enough",
                )
                break


def _asks_no_more(rule: Rule, other: Rule) -> bool:
    """Whether everything that a rule does, another does too."""
    keeps = all(
        any(
            keep.store == each.store
            and each.period.reaches(keep.period)
            and (each.after is None or each.after == keep.after)
            and (each.legal or not keep.legal)
            for each in other.keeps
        )
        for keep in rule.keeps
    )
    deletes = all(
        any(
            delete.store == each.store
            and delete.after.reaches(each.after)
            and (each.versions or not delete.versions)
            for each in other.deletes
        )
        for delete in rule.deletes
    )
    ceiling = rule.at_most is None or (
        other.at_most is not None and rule.at_most.reaches(other.at_most)
    )
    ends = not rule.then_delete or other.then_delete  # not before the longer of the two keeps
    return keeps and deletes and ceiling and ends


def _unmatched(policies: Policies, matched: Mapping[str, int] | None) -> Iterator[Diagnostic]:
    for item in policies.items() if matched is not None else ():
        if not (matched or {}).get(item.id, 0):
            yield _warning(
                "L504",
                item.where,
                f"`{item.id}` matches no recording of this snapshot",
                "is its match spelt as 100ms spells it (case, blanks)?",
            )


def _unused(policies: Policies, settings: Settings) -> Iterator[Diagnostic]:
    used = policies.stores_named()
    ceiling = any(rule.at_most for rule in policies.rules)
    for store in settings.stores:
        if store.name not in used and not ceiling and not store.written_by_100ms:
            yield _warning(
                "L505",
                Where("retainer.yaml", 1),
                f"no rule and no hold names the store `{store.name}`",
                "remove it once nothing lies there: what does is never touched",
            )


def _places(settings: Settings, regions: Collection[str]) -> Iterator[Diagnostic]:
    for store in settings.stores:
        at = Where("retainer.yaml", 1)
        if (
            store.scheme == "s3"
            and store.endpoint is None
            and store.region
            and regions
            and store.region not in regions
        ):
            close = nearest(store.region, regions)
            yield _warning(
                "L506",
                at,
                f"AWS has no region `{store.region}` (store `{store.name}`)",
                f"did you mean `{close}`?" if close else None,
            )
        known = PRICES.get(store.scheme)
        wanted = store.storage_class
        if known and wanted and wanted not in known and store.endpoint is None:
            close = nearest(wanted.upper(), known)
            yield _warning(
                "L507",
                at,
                f"there is no storage class `{wanted}` (store `{store.name}`)",
                f"did you mean `{close}`?" if close else f"one of {', '.join(known)}",
            )


def _days(period: Period) -> float:
    """About how many days a period has."""
    if period.forever:
        return float("inf")
    return period.months * MONTH_DAYS + period.days + period.seconds / 86400


def _classes(policies: Policies, settings: Settings) -> Iterator[Diagnostic]:
    stores: dict[str, Store] = {store.name: store for store in settings.stores}
    for rule in policies.rules:
        for keep in rule.keeps:
            store = stores.get(keep.store)
            known = PRICES.get(store.scheme, {}) if store and store.endpoint is None else {}
            price = known.get(store.storage_class or "") if store else None
            if store is None or price is None or not rule.then_delete:
                continue
            lies = _days(keep.period) - (_days(keep.after) if keep.after else 0)
            if lies >= price.least_days:
                continue
            standard, billed = known[STANDARD].storage * lies, price.storage * price.least_days
            dearer = billed > standard
            than = (
                f"that is {billed / standard:.1f} times what the standard class would cost "
                f"for that time (list prices of {PRICES_OF})"
                if dearer
                else "cheaper than the standard class all the same"
            )
            yield _warning(
                "L509" if dearer else "L508",
                rule.where,
                f"`{rule.id}` keeps for {keep.period.text} in `{store.name}`, whose class "
                f"{store.storage_class} is billed for {price.least_days} days at least: {than}",
                "use a store in the standard class for what is kept so briefly" if dearer else None,
            )


def _endless(policies: Policies) -> Iterator[Diagnostic]:
    for rule in policies.rules:
        if not rule.owner and any(keep.period.forever for keep in rule.keeps):
            yield _warning(
                "L510",
                rule.where,
                f"`{rule.id}` keeps for ever, and nobody is said to answer for that",
                'write `owner: "@team"`',
            )


def _names(policies: Policies, settings: Settings) -> Iterator[Diagnostic]:
    for item in policies.items():
        if "room" in facts_asked(item.match) and settings.source.hosted:
            yield _warning(
                "L511",
                item.where,
                f"`{item.id}` matches by the name of a room: workspaces with HIPAA get hashed "
                "names from 100ms, and a room can be renamed",
                "match `room_id` or `template_id` where that is so",
            )


def _too_late(policies: Policies) -> Iterator[Diagnostic]:
    """Deletes with every version that another delete comes before: it hides what they would
    take."""
    for rule in policies.rules:
        for last in filter(lambda each: each.versions, rule.deletes):
            for other in policies.rules:
                if not implies(rule.match, other.match):
                    continue
                sooner = [
                    after
                    for after in _hiding_in(last.store, other)
                    if not after.reaches(last.after)
                ]
                if sooner:
                    yield _warning(
                        "L512",
                        rule.where,
                        f"`{rule.id}` takes every version in `{last.store}` after "
                        f"{last.after.text}, and `{other.id}` deletes there after "
                        f"{sooner[0].text}: what that hides is not found again",
                        f"write `versions: all` beside the delete of `{other.id}` too",
                    )


def _hiding_in(store: str, rule: Rule) -> Iterator[Period]:
    """When a rule deletes in a store, and leaves the versions."""
    for delete in rule.deletes:
        if delete.store == store and not delete.versions:
            yield delete.after
    for keep in rule.keeps if rule.then_delete else ():
        if keep.store == store:
            yield keep.period
    if rule.at_most:
        yield rule.at_most
