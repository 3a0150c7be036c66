"""What is another one in the policies by now, in words and without any facts: each rule keeps
longer, shorter, elsewhere, or for other recordings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TypeVar, assert_never

from retainer.model.change import Change, Turn
from retainer.model.moment import write_moment
from retainer.model.period import Period
from retainer.model.rule import (
    Acceptance,
    AllOf,
    AnyOf,
    Between,
    Created,
    Delete,
    Erasure,
    Everything,
    Glob,
    Hold,
    Keep,
    Match,
    Metadata,
    Not,
    OneOf,
    Policies,
    Rule,
    Thumbnails,
    meaning,
)
from retainer.model.setting import Settings

Some = TypeVar("Some", Rule, Hold, Erasure)
Say = Callable[[str, str, str, Turn, bool], Change]
"""Makes a change of one item: setting, before, after, its turn, and whether it shortens."""


def changes(
    old: Policies, new: Policies, before: Settings | None = None, after: Settings | None = None
) -> list[Change]:
    """Every setting that is another one, in the order of the new files, and then what is gone.

    A rule that has another id and says the same is renamed: limits count under the new name, and
    nothing else changes.
    """
    found: list[Change] = []
    found += _items("rule", old.rules, new.rules, _rule)
    found += _items("hold", old.holds, new.holds, _hold)
    found += _items("erasure", old.erasures, new.erasures, _erasure)
    found += _entries("accept", old.accepts, new.accepts)
    found += _entries("losses", old.losses, new.losses)
    if before and after:
        found += _settings(before, after)
    return found


def _items(
    kind: str,
    old: Sequence[Some],
    new: Sequence[Some],
    compare: Callable[[Some, Some], Iterator[Change]],
) -> Iterator[Change]:
    was = {item.id: item for item in old}
    now = {item.id: item for item in new}
    gone = [item for item in old if item.id not in now]
    for item in new:
        at = str(item.where)
        earlier = was.get(item.id)
        if earlier is None:
            renamed = next((each for each in gone if meaning(each) == meaning(item)), None)
            if renamed is not None:
                gone.remove(renamed)
                yield Change(item.id, kind, at, "id", renamed.id, item.id, "same")
            else:
                yield from _added(kind, item)
            continue
        yield from compare(earlier, item)
        if earlier.where.file != item.where.file:
            yield Change(item.id, kind, at, "file", earlier.where.file, item.where.file, "same")
        for name in ("why", "owner"):
            one, other = getattr(earlier, name), getattr(item, name)
            if one != other:
                yield Change(item.id, kind, at, name, one, other, "same")
    for item in gone:
        yield from _removed(kind, item)


def _added(kind: str, item: Rule | Hold | Erasure) -> Iterator[Change]:
    for setting, text, goes in _settings_of(item):
        yield Change(item.id, kind, str(item.where), setting, "", text, "added", goes)


def _removed(kind: str, item: Rule | Hold | Erasure) -> Iterator[Change]:
    for setting, text, goes in _settings_of(item):
        yield Change(item.id, kind, str(item.where), setting, text, "", "removed", not goes)


def _settings_of(item: Rule | Hold | Erasure) -> Iterator[tuple[str, str, bool]]:
    """What an item asks for: the setting, its text, and whether something goes for it."""
    match item:
        case Rule():
            for keep in item.keeps:
                yield f"keep in {keep.store}", _keep(keep), False
            for delete in item.deletes:
                yield f"delete in {delete.store}", _delete(delete), True
            if item.then_delete:
                yield "then", "delete", True
            if item.at_most:
                yield "at_most", _text(item.at_most), True
        case Hold():
            yield f"hold in {item.store}", _released(item.released), False
        case Erasure():
            yield "erases", match_text(item.match), True


def _rule(old: Rule, new: Rule) -> Iterator[Change]:
    def change(setting: str, before: str, after: str, turn: Turn, shortens: bool) -> Change:
        return Change(new.id, "rule", str(new.where), setting, before, after, turn, shortens)

    if old.match != new.match:
        yield change("match", match_text(old.match), match_text(new.match), "others", True)
    yield from _keeps(old, new, change)
    was = {delete.store: delete for delete in old.deletes}
    now = {delete.store: delete for delete in new.deletes}
    for store in dict.fromkeys((*was, *now)):
        one, other = was.get(store), now.get(store)
        if one == other:
            continue
        before, after = (_delete(each) if each else "" for each in (one, other))
        sooner = other is not None and (
            one is None
            or not other.after.reaches(one.after)
            or (other.versions and not one.versions)
        )
        turn: Turn = "shorter" if sooner else "longer"
        yield change(f"delete in {store}", before, after, turn, sooner)
    if old.then_delete != new.then_delete:
        before, after = ("delete" if each.then_delete else "leave" for each in (old, new))
        turn = "shorter" if new.then_delete else "longer"
        yield change("then", before, after, turn, new.then_delete)
    if old.at_most != new.at_most:
        sooner = new.at_most is not None and (
            old.at_most is None or not new.at_most.reaches(old.at_most)
        )
        before, after = (_text(each.at_most) if each.at_most else "" for each in (old, new))
        yield change("at_most", before, after, "shorter" if sooner else "longer", sooner)


def _keeps(old: Rule, new: Rule, change: Say) -> Iterator[Change]:
    was: dict[str, list[Keep]] = {}
    now: dict[str, list[Keep]] = {}
    for keeps, into in ((old.keeps, was), (new.keeps, now)):
        for keep in keeps:
            into.setdefault(keep.store, []).append(keep)
    gone = [store for store in was if store not in now]
    came = [store for store in now if store not in was]
    moved = None
    if len(gone) == len(came) == 1 and _periods(was[gone[0]]) == _periods(now[came[0]]):
        moved = (gone[0], came[0])
        yield change("keep in", *moved, "elsewhere", True)
    for store in dict.fromkeys((*was, *now)):
        if moved and store in moved:
            continue
        one, other = was.get(store, []), now.get(store, [])
        if one == other:
            continue
        before, after = (" and ".join(map(_keep, each)) for each in (one, other))
        shorter = _is_shorter(one, other)
        turn: Turn = (
            "added" if not one else "removed" if not other else "shorter" if shorter else "longer"
        )
        ends = not one and new.then_delete  # what lies there already goes with it
        yield change(f"keep in {store}", before, after, turn, shorter or ends)


def _periods(keeps: Iterable[Keep]) -> list[tuple[Period, Period | None, bool]]:
    return [(keep.period, keep.after, keep.legal) for keep in keeps]


def _is_shorter(old: Sequence[Keep], new: Sequence[Keep]) -> bool:
    """Whether something that was kept may be kept less: a shorter period, a later beginning, or no
    legal basis any more."""
    for keep in old:
        reaching = [
            other
            for other in new
            if other.period.reaches(keep.period)
            and (other.after is None or other.after == keep.after)
            and (other.legal or not keep.legal)
        ]
        if not reaching:
            return True
    return False


def _hold(old: Hold, new: Hold) -> Iterator[Change]:
    def change(setting: str, before: str, after: str, turn: Turn, shortens: bool) -> Change:
        return Change(new.id, "hold", str(new.where), setting, before, after, turn, shortens)

    if old.match != new.match:
        yield change("match", match_text(old.match), match_text(new.match), "others", True)
    if old.store != new.store:
        yield change("in", old.store, new.store, "elsewhere", False)
    if old.released != new.released:
        sooner = new.released is not None and (old.released is None or new.released < old.released)
        turn: Turn = "shorter" if sooner else "longer"
        yield change("released", _released(old.released), _released(new.released), turn, sooner)


def _erasure(old: Erasure, new: Erasure) -> Iterator[Change]:
    if old.match != new.match:
        yield Change(
            new.id,
            "erasure",
            str(new.where),
            "match",
            match_text(old.match),
            match_text(new.match),
            "others",
            True,
        )
    if old.requested != new.requested:
        before, after = (
            write_moment(each.requested) if each.requested else "" for each in (old, new)
        )
        yield Change(new.id, "erasure", str(new.where), "requested", before, after, "same")


def _entries(kind: str, old: Sequence[Acceptance], new: Sequence[Acceptance]) -> Iterator[Change]:
    was, now = ({each.asset_id: each for each in entries} for entries in (old, new))
    for name in dict.fromkeys((*was, *now)):
        if (name in was) == (name in now):
            continue
        entry = now.get(name) or was[name]
        turn: Turn = "added" if name in now else "removed"
        before, after = (name if name in side else "" for side in (was, now))
        counts = kind == "accept" and name in now  # what is safe for it may be deleted elsewhere
        yield Change(name, kind, str(entry.where), kind, before, after, turn, counts)


def _settings(old: Settings, new: Settings) -> Iterator[Change]:
    """What retainer.yaml says otherwise, as far as it bears on decisions and limits. Another zone,
    place or bucket of 100ms's, and a brake that is looser, may let something go sooner."""
    was, now = _told(old), _told(new)
    looser = {name for name, value in _brakes(new).items() if value > _brakes(old).get(name, 0)}
    for name in dict.fromkeys((*was, *now)):
        if was.get(name) == now.get(name):
            continue
        before, after = was.get(name, ""), now.get(name, "")
        turn: Turn = "added" if not before else "removed" if not after else "otherwise"
        if before and after and name.startswith("stores."):
            turn = "elsewhere"
        elif name in _brakes(old):
            turn = "looser" if name in looser else "tighter"
        shortens = name in looser or name in ("timezone", "source.hosted") or turn == "elsewhere"
        yield Change(
            "retainer.yaml", "settings", "retainer.yaml", name, before, after, turn, shortens
        )


def _told(settings: Settings) -> dict[str, str]:
    limits = settings.limits
    return {
        "timezone": settings.timezone,
        "source.hosted": ", ".join(settings.source.hosted),
        "limits.deletes.count": f"{limits.count:,}",
        "limits.deletes.percent": f"{limits.percent:g}",
        "limits.deletes.bytes": f"{limits.bytes:,} B",
        "limits.deletes.last_copies": f"{limits.last_copies:,}",
        "limits.plan_age": f"{settings.plan_age_hours:g} h",
        "limits.cooling": f"{_cooling(settings):g} h" if settings.cooling else "",
        "may_be_emptied": ", ".join(sorted(settings.may_be_emptied)),
    } | {
        f"stores.{store.name}": " ".join(
            filter(
                None,
                (
                    store.url,
                    "layout 100ms" if store.written_by_100ms else "",
                    store.storage_class,
                    store.lock,
                ),
            )
        )
        for store in settings.stores
    }


def _brakes(settings: Settings) -> dict[str, float]:
    """How much may be deleted without a word, by setting."""
    limits = settings.limits
    return {
        "limits.deletes.count": limits.count,
        "limits.deletes.percent": limits.percent,
        "limits.deletes.bytes": limits.bytes,
        "limits.deletes.last_copies": limits.last_copies,
        "may_be_emptied": len(settings.may_be_emptied),
        "limits.cooling": -_cooling(settings),
    }


def _cooling(settings: Settings) -> float:
    """In hours."""
    return settings.cooling.total_seconds() / 3600 if settings.cooling else 0.0


def _text(period: Period) -> str:
    return period.text or "forever"


def _keep(keep: Keep) -> str:
    after = f" after {_text(keep.after)}" if keep.after else ""
    return f"{_text(keep.period)}{after}{', basis legal' if keep.legal else ''}"


def _delete(delete: Delete) -> str:
    return f"after {_text(delete.after)}{', with every version' if delete.versions else ''}"


def _released(when: datetime | None) -> str:
    return write_moment(when) if when else "not released"


def match_text(match: Match) -> str:
    """A match as a policy writes it, on one line."""
    match match:
        case Everything():
            return "all"
        case OneOf(fact=fact, values=values) | Glob(fact=fact, patterns=values):
            return f"{fact}: {_list(values)}"
        case Between(fact=fact, low=low, high=high):
            return f"{fact}: {_range(low, high)}"
        case Created(after=after, before=before):
            ends = {"after": after, "before": before}
            told = ", ".join(f"{name}: {write_moment(at)}" for name, at in ends.items() if at)
            return f"created: {{{told}}}"
        case Metadata(key=key, values=values, low=low, high=high):
            return f"metadata.{key}: {_list(values) if values else _range(low, high)}"
        case Thumbnails(any=has, patterns=patterns):
            return f"thumbnails: {_list(patterns) if patterns else str(has).lower()}"
        case AllOf(parts=parts):
            return ", ".join(map(_inner, parts))
        case AnyOf(parts=parts):
            return f"any: [{'; '.join(map(match_text, parts))}]"
        case Not(part=part):
            return f"not: {{{match_text(part)}}}"
        case _:
            assert_never(match)


def _inner(match: Match) -> str:
    return f"{{{match_text(match)}}}" if isinstance(match, AllOf) else match_text(match)


def _list(values: Sequence[str]) -> str:
    return values[0] if len(values) == 1 else f"[{', '.join(values)}]"


def _range(low: float | None, high: float | None) -> str:
    ends: Mapping[str, float | None] = {"min": low, "max": high}
    told = ", ".join(f"{name}: {value:g}" for name, value in ends.items() if value is not None)
    return f"{{{told}}}"
