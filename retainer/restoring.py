"""What was deleted is looked for in the record, then in the stores, and brought back where a bucket
still has it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from retainer.apply.describe import recorded_in
from retainer.cataloguing import Work, alone, explained
from retainer.errors import Locked, RetainerError, StoreFailed
from retainer.journal.entry import Entry
from retainer.model.restoration import Deleted, State
from retainer.model.setting import MANIFEST
from retainer.ports import Hidden, Look, Seen, StoreReader

RUN_DIGITS = 8
"""So many digits of a run's id tell it from every other."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A deleted copy with its objects, as they were deleted; `hidden`: what the bucket has of them.

    `erasure`: the one that asked for the recording, anywhere. `half`: it was brought back, and the
    catalog may not know. `broken`: keys whose bytes a scrub had found to be others.
    """

    told: Deleted
    objects: tuple[Seen, ...]
    erasure: str = ""
    half: bool = False
    broken: frozenset[str] = frozenset()
    hidden: tuple[Hidden, ...] = ()


@dataclass
class _Copy:
    """What the record says of one place of one recording, as far as it was read."""

    objects: dict[str, Seen]
    runs: set[str]
    told: Deleted
    is_whole: bool
    half: bool = False


def deleted_by(entries: Iterable[Entry], about: str) -> list[Wanted]:
    """The copies of a recording that were deleted, or those that a run deleted or had begun to:
    each once, as it was last deleted, with all its parts."""
    announced: dict[tuple[str, int], tuple[str, dict[str, Seen]]] = {}
    found: dict[tuple[str, str], _Copy] = {}
    erased: dict[str, str] = {}
    broken: set[tuple[str, str]] = set()
    for entry in entries:
        of = entry.particulars
        place = (str(of.get("store")), str(of.get("asset")))
        match entry.event:
            case "intent" if of["act"] == "delete":
                for act in of.get("acts", ()):
                    objects = (Seen(key, size, version) for key, size, version in act["objects"])
                    row = (of.get("plan", entry.plan), act["row"])
                    announced[row] = (entry.by, {seen.key: seen for seen in objects})
            case "intent" if of["act"] == "restore" and place in found:
                found[place].half = True
            case "restored" if place in found:
                found[place].half = False
            case "broken":
                broken |= {(place[0], str(key)) for key in of.get("keys", ())}
            case "copied":
                record = of["record"]
                broken.discard((str(record.get("store")), str(record.get("key"))))
            case "deleted":
                if of.get("asked_by") == "erasure":
                    erased[place[1]] = str(of["rule"])
                row = (of.get("plan", entry.plan), of["row"])
                run, seen = announced.get(row, ("", {}))
                gone = {key: seen[key] for key in of.get("keys", ()) if key in seen}
                _add(found, entry, place, {entry.by, run}, gone)
    return [
        Wanted(
            replace(
                copy.told,
                objects=len(copy.objects),
                bytes=sum(each.size for each in copy.objects.values()),
            ),
            tuple(copy.objects.values()),
            erased.get(asset, ""),
            copy.half,
            frozenset(key for key in copy.objects if (store, key) in broken),
        )
        for (store, asset), copy in found.items()
        if asset == about
        or (len(about) >= RUN_DIGITS and any(run.startswith(about) for run in copy.runs))
    ]


def _add(
    found: dict[tuple[str, str], _Copy],
    entry: Entry,
    place: tuple[str, str],
    runs: set[str],
    gone: dict[str, Seen],
) -> None:
    """One more delete of a copy. Of many objects, one part goes after the other, perhaps in other
    runs; after the last of them it is another copy that goes."""
    of = entry.particulars
    before = found.get(place)
    if before is not None and not before.is_whole:
        gone, runs = before.objects | gone, before.runs | runs
    told = Deleted(
        asset_id=place[1],
        store=place[0],
        at=entry.acted,
        run=entry.by,
        rule=str(of["rule"]),
        objects=0,
        bytes=0,
        state="unknown",
    )
    found[place] = _Copy(gone, runs - {""}, told, not of.get("partial"))


def looked_for(
    wanted: Sequence[Wanted],
    opened: Callable[[str], StoreReader | None],
    progress: Callable[[str, int], None],
) -> list[Wanted]:
    """What the stores still have of it. `opened`: a store by its name; None where it is not
    declared."""
    found = []
    for store, group in groupby(sorted(wanted, key=_place), key=lambda each: each.told.store):
        copies = list(group)
        try:
            reader = opened(store)
        except RetainerError as error:
            found += [_is(each, "unknown", note=error.message) for each in copies]
            continue
        for each in copies:
            found.append(_looked_for(each, reader))
            progress(store, 1)
    return found


def _place(wanted: Wanted) -> tuple[str, datetime, str]:
    return wanted.told.store, wanted.told.at, wanted.told.asset_id


def _is(wanted: Wanted, state: State, note: str = "", hidden: Sequence[Hidden] = ()) -> Wanted:
    until = min((each.until for each in hidden if each.until), default=None)
    return replace(
        wanted, told=replace(wanted.told, state=state, note=note, until=until), hidden=tuple(hidden)
    )


def _looked_for(wanted: Wanted, reader: StoreReader | None) -> Wanted:
    if wanted.erasure:
        return _is(wanted, "erased", f"{wanted.erasure} asked for the recording")
    if reader is None:
        return _is(wanted, "unknown", "no store of this name is declared any more")
    if not wanted.objects:
        return _is(wanted, "unknown", "the record does not say which version went")
    hidden, gone = [], 0
    try:
        for seen in wanted.objects:
            look = reader.look(seen.key)
            if look is not None:
                if not _is_the_same(look, seen, wanted.told.asset_id):
                    return _is(wanted, "taken", "something else lies there by now")
            elif found := reader.hidden(seen):
                hidden.append(found)
            else:
                gone += 1
    except RetainerError as error:
        return _is(wanted, "unknown", error.message)
    if gone:
        of = f"{gone} of its {len(wanted.objects)} objects are" if hidden else "it is"
        return _is(wanted, "gone", f"{of} gone for good, as far as the bucket tells")
    if by_hand := tuple(each.by_hand for each in hidden if each.by_hand):
        needs_a_person = _is(wanted, "by hand", hidden=hidden)
        return replace(needs_a_person, told=replace(needs_a_person.told, by_hand=by_hand))
    if not hidden and wanted.half:
        return _is(wanted, "recoverable", "it lies there, and the catalog may not know of it")
    return _is(wanted, "recoverable" if hidden else "there", hidden=hidden)


def _is_the_same(look: Look, seen: Seen, asset_id: str) -> bool:
    """Whether what lies there is what was deleted. S3 gives it back with its ETag; Google gives it
    another generation, a number, and then it says itself whose it is."""
    if look.seen.version == seen.version:
        return True
    told = recorded_in(look.metadata) or {}
    is_google = seen.version.isdecimal() and look.seen.version.isdecimal()
    return is_google and look.seen.size == seen.size and told.get("asset_id", asset_id) == asset_id


def bring_back(
    wanted: Sequence[Wanted], worked: Callable[[str], Work], told: Mapping[str, Any]
) -> list[Wanted]:
    """Bring back what is recoverable, store by store, alone in each, and let the catalog know of
    it. What stands in its way is told of that copy alone. `told`: what the record says of each run.

    Raises Locked and whatever opens a store; what came back until then stands, and is found there
    by the next try.
    """
    ended = [each for each in wanted if each.told.state != "recoverable"]
    able = [each for each in wanted if each.told.state == "recoverable"]
    for store, group in groupby(sorted(able, key=_place), key=lambda each: each.told.store):
        work = worked(store)
        with alone(work, "restore", **told) as (record, journal):
            for each in group:
                work.stop.check()
                keys = [seen.key for seen in each.objects]
                of = {"store": store, "asset": each.told.asset_id, "keys": keys}
                journal.write("intent", act="restore", rows=[], **of)
                try:
                    for hidden in each.hidden:
                        work.writer.bring_back(hidden)
                    rows, size = _entries(work, each)
                    record("rebuilt", rows)
                except Locked:
                    raise
                except RetainerError as error:
                    journal.write("failed", act="restore", row=-1, cause=error.message, **of)
                    ended.append(_is(each, "unknown", error.message))
                    continue
                journal.write("restored", bytes=size, rule=each.told.rule, **of)
                ended.append(_is(each, "restored"))
    return sorted(ended, key=_place)


def _entries(work: Work, wanted: Wanted) -> tuple[list[dict[str, Any]], int]:
    """What the catalog is to say of a copy that lies there again, newer than what it says of the
    delete, and its size. What was known to be broken is so still. Raises StoreFailed."""
    least = wanted.told.at + timedelta(seconds=1)
    copied_at = max(work.clock(), least).strftime("%Y-%m-%d %H:%M:%S.%f")
    lying: list[Seen] = []
    for seen in wanted.objects:
        look = work.writer.look(seen.key)
        if look is None:
            raise StoreFailed(f"look at {work.store.name}:{seen.key}: it did not come back")
        lying.append(look.seen)
    # a manifest tells of its members, which would tell less of themselves
    tell = [seen for seen in lying if seen.key.endswith(f"/{MANIFEST}")] or lying
    rows = [
        {**row, "copied_at": copied_at} | ({"broken": True} if row["key"] in wanted.broken else {})
        for seen in tell
        for row in explained(work, seen)
    ]
    return rows, sum(seen.size for seen in lying)
