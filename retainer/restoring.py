"""What was deleted is looked for in the record, then in the stores, and brought back where a bucket
still has it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Any

from retainer.apply.describe import recorded_in
from retainer.cataloguing import Work, alone, explained
from retainer.errors import RetainerError
from retainer.journal.entry import Entry
from retainer.model.restoration import Deleted, State
from retainer.ports import Hidden, Look, Seen, StoreReader

RUN_DIGITS = 8
"""So many digits of a run's id tell it from every other."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A deleted copy with its objects, as they were deleted; `hidden`: what the bucket has of
    them."""

    told: Deleted
    objects: tuple[Seen, ...]
    asked_by: str = ""
    hidden: tuple[Hidden, ...] = ()


def deleted_by(entries: Iterable[Entry], about: str) -> list[Wanted]:
    """The copies of a recording that were deleted, or those that a run deleted: each once, as it
    was last deleted."""
    announced: dict[tuple[str, int], dict[str, Seen]] = {}
    found: dict[tuple[str, str], tuple[Deleted, dict[str, Seen], str]] = {}
    for entry in entries:
        of = entry.particulars
        plan = of.get("plan", entry.plan)
        if entry.event == "intent" and of.get("act") == "delete":
            for act in of.get("acts", ()):
                objects = (Seen(key, size, version) for key, size, version in act["objects"])
                announced[plan, act["row"]] = {seen.key: seen for seen in objects}
        elif entry.event == "deleted":
            asset, store = str(of.get("asset")), str(of.get("store"))
            is_run = len(about) >= RUN_DIGITS and entry.run.startswith(about)
            if about != asset and not is_run:
                continue
            seen = announced.get((plan, of["row"]), {})
            gone = {key: seen[key] for key in of.get("keys", ()) if key in seen}
            before = found.get((store, asset))
            if before and before[0].run == entry.run:
                gone = before[1] | gone  # of many objects, one part after the other
            told = Deleted(
                asset_id=asset,
                store=store,
                at=entry.at,
                run=entry.run,
                rule=str(of.get("rule", "")),
                objects=len(gone),
                bytes=sum(each.size for each in gone.values()),
                state="unknown",
            )
            found[store, asset] = (told, gone, str(of.get("asked_by", "")))
    return [
        Wanted(told, tuple(objects.values()), asked_by)
        for told, objects, asked_by in found.values()
    ]


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
    if wanted.asked_by == "erasure":
        return _is(wanted, "erased", f"{wanted.told.rule} asked for it")
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
    return _is(wanted, "recoverable" if hidden else "there", hidden=hidden)


def _is_the_same(look: Look, seen: Seen, asset_id: str) -> bool:
    """Whether what lies there is what was deleted: Google gives what comes back another version,
    and then it says itself whose it is."""
    if look.seen.version == seen.version:
        return True
    told = recorded_in(look.metadata) or {}
    return look.seen.size == seen.size and told.get("asset_id", asset_id) == asset_id


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
                keys = [hidden.seen.key for hidden in each.hidden]
                of = {"store": store, "asset": each.told.asset_id, "keys": keys}
                journal.write("intent", act="restore", rows=[], **of)
                try:
                    back = [work.writer.bring_back(hidden) for hidden in each.hidden]
                    rows = [row for seen in back for row in explained(work, seen)]
                except RetainerError as error:
                    journal.write("failed", act="restore", row=-1, cause=error.message, **of)
                    ended.append(_is(each, "unknown", error.message))
                    continue
                record("rebuilt", rows)
                size = sum(seen.size for seen in back)
                journal.write("restored", bytes=size, rule=each.told.rule, **of)
                ended.append(_is(each, "restored"))
    return sorted(ended, key=_place)
