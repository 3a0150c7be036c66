"""One delete: only what the plan saw, only while its witnesses are there, only on a condition."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import groupby
from types import MappingProxyType

from retainer.apply.copied import Changed
from retainer.apply.describe import recorded_in
from retainer.apply.parts import found_in, named_in
from retainer.apply.way import is_same
from retainer.errors import RetainerError, SourceFailed, StoreFailed, Unverified
from retainer.model.setting import MANIFEST
from retainer.planfile import Action, Planned
from retainer.ports import Deletion, Seen, StoreFailure, StoreReader, StoreWriter, Version
from retainer.versions import versions_of

BATCH = 1000
LOOKED_AT_SINGLY = 8
"""So many witnesses in one store are looked at one by one; more are found in a listing of their
folder."""


def rests_on(action: Action) -> frozenset[str]:
    """The stores that must not change under a delete: where it deletes, and where its witnesses
    lie."""
    return frozenset({action.store, *(witness.store for witness in action.witnesses)})


def seen_together(
    actions: Sequence[Action], stores: Mapping[str, StoreReader]
) -> dict[str, dict[str, Seen]]:
    """By store and key the witnesses of these deletes that a list of what lies between them shows;
    what it does not show is looked at by itself."""
    wanted: dict[str, set[str]] = {}
    for action in actions:
        for witness in action.witnesses:
            wanted.setdefault(witness.store, set()).add(witness.key)
    found: dict[str, dict[str, Seen]] = {}
    for name, keys in wanted.items():
        if len(keys) <= LOOKED_AT_SINGLY or name not in stores:
            continue
        pages = 1 + 2 * len(keys) // 1000
        with suppress(RetainerError):  # the look at each of them tells it better
            between = stores[name].some_between(min(keys), max(keys), pages)
            found[name] = {seen.key: seen for seen in between if seen.key in keys}
    return found


def missing_witness(
    action: Action,
    stores: Mapping[str, StoreReader],
    seen: Mapping[str, Mapping[str, Seen]] = MappingProxyType({}),
) -> str | None:
    """Why a delete is not safe at this moment: a copy that makes it safe is no longer as the plan
    saw it. None: it is. `seen`: what was seen just now (`seen_together`).

    Raises StoreFailed and ListingBroken when a witness cannot be looked at.
    """
    for name, group in groupby(
        sorted(action.witnesses, key=lambda each: each.store), key=lambda each: each.store
    ):
        witnesses = list(group)
        known = seen.get(name, {})
        unseen = [each for each in witnesses if not is_same(known.get(each.key), each)]
        found = _as_they_are(stores[name], unseen) if name in stores and unseen else {}
        for witness in unseen:
            if witness.key not in found:
                return f"the copy in {name} that makes it safe is not there any more"
            if not is_same(found[witness.key], witness):
                return f"the copy in {name} that makes it safe has changed"
        if reason := _not_whole(action, stores[name], witnesses):
            return f"the copy in {name} that makes it safe is not whole: {reason}"
    return None


def _not_whole(action: Action, store: StoreReader, witnesses: Sequence[Planned]) -> str | None:
    """What is missing of playlists and segments that no manifest of ours vouches for, as 100ms
    uploads them."""
    named_so = str(action.facts.get("path") or "").rpartition("/")[2]
    entry = next(
        (
            each
            for each in witnesses
            if each.key.lower().endswith(".m3u8") and each.key.rpartition("/")[2] == named_so
        ),
        None,
    )
    if entry is None or any(each.key.endswith(f"/{MANIFEST}") for each in witnesses):
        return None
    try:
        planned = named_in(entry.key[: -len(named_so)], witnesses)
        _, _, tree = found_in(store, planned, named_so)
        if tree.missing:
            return f"{len(tree.missing)} of its objects are missing, such as {min(tree.missing)}"
        return next(iter(tree.odd), None)
    except (SourceFailed, Unverified) as error:
        return error.message
    except Changed as error:
        return str(error)
    return None


def _as_they_are(store: StoreReader, planned: Sequence[Planned]) -> dict[str, Seen]:
    folders = {each.key.rpartition("/")[0] + "/" for each in planned}
    if len(planned) <= LOOKED_AT_SINGLY or "/" in folders:
        looks = {each.key: store.look(each.key) for each in planned}
        return {key: look.seen for key, look in looks.items() if look is not None}
    outermost = [
        folder
        for folder in folders
        if not any(folder != other and folder.startswith(other) for other in folders)
    ]
    return {seen.key: seen for folder in outermost for seen in store.list(folder)}


def not_in_doubt(action: Action, store: StoreReader) -> str | None:
    """Why a copy that was made in doubt may not go for that: it does not say so of itself. None: it
    does, or another reason deletes it. Raises StoreFailed."""
    if action.doubt is None:
        return None
    look = store.look(action.objects[-1].key)
    told = recorded_in(look.metadata if look else None) or {}
    if told.get("in_doubt") == action.doubt:
        return None
    return "it does not say of itself that it was copied in doubt"


def not_as_reported(action: Action, store: StoreReader) -> str | None:
    """Why what a report showed may not go: something else lies there by now. None: what lies there
    is what was seen, or is gone. Raises StoreFailed, ListingBroken."""
    found = _as_they_are(store, action.objects)
    changed = any(
        each.key in found and not is_same(found[each.key], each) for each in action.objects
    )
    return "it is not what its bucket's report showed" if changed else None


def objects_of(action: Action) -> list[Seen]:
    """What the plan saw, as it must still be, in the order in which it goes."""
    return [Seen(planned.key, planned.size, planned.version) for planned in action.objects]


def delete_one(
    action: Action,
    store: StoreWriter,
    outcomes: list[Deletion],
    check: Callable[[], None],
    removed: Counter[str],
) -> None:
    """Delete the objects of a copy by their keys: what a player would open first, a manifest last,
    and that only when all else is gone.

    The outcomes are added in the order of the action's objects, and end early: where the first one
    has changed or is locked, nothing else is touched. `removed`: takes how many versions of each
    object went, where all are to. `check` is asked before every call, and whatever it raises ends
    it. Raises StoreFailed; what is left then goes when the same plan is applied again.
    """
    if action.versions:
        for outcome in _with_versions(action, store, check, removed):
            outcomes.append(outcome)
        return
    first, *rest = objects_of(action)
    check()
    outcomes.append(store.delete(first))
    if rest and not _left(outcomes):
        for outcome in _deleted(store, rest[:-1], check):
            outcomes.append(outcome)
        if not _left(outcomes):
            check()
            outcomes.append(store.delete(rest[-1]))


def _with_versions(
    action: Action, store: StoreWriter, check: Callable[[], None], removed: Counter[str]
) -> Iterator[Deletion]:
    """Remove every version of each object, the current one last: what a kill leaves is still
    listed, and the next plan finds it.

    Nothing goes unless the bucket has what the plan named, or what an earlier try left of it, and
    none of it is locked. A server that does not know versions takes the call for a delete of the
    object: so it is looked at after the first. Raises StoreFailed, also where something is left.
    """
    keys = [each.key for each in action.objects]
    there = versions_of(store, keys)
    if reason := _not_as_planned(action, there, store.server_time()):
        yield from (reason for _ in keys)
        return
    for planned in action.objects:
        if not there[planned.key]:
            yield Deletion.GONE
            continue
        for nth, version in enumerate(there[planned.key]):
            check()
            if nth == 1:
                look = store.look(planned.key)
                if not is_same(look.seen if look else None, planned):
                    yield Deletion.CHANGED
                    return
            outcome = store.remove(version)
            if outcome in (Deletion.CHANGED, Deletion.LOCKED):
                yield outcome
                return
            removed[planned.key] += outcome is Deletion.DELETED and not version.is_marker
        yield Deletion.DELETED
    check()
    if left := sum(map(len, versions_of(store, keys).values())):
        raise StoreFailed(f"{left} versions are there after all of them were removed")


def _not_as_planned(
    action: Action, there: Mapping[str, Sequence[Version]], now: datetime
) -> Deletion | None:
    """Why none of these versions may go: what became of the object, or of its lock."""
    planned = {(each.seen.key, each.id): each for each in action.versions}
    for of in there.values():
        for each in of:
            known = planned.get((each.seen.key, each.id))
            if known is None or not _is_as_planned(each, known):
                return Deletion.CHANGED
            until = each.seen.locked_until
            is_locked = not each.seen.lock_read or (until is not None and until > now)
            if is_locked or each.by_hand:
                return Deletion.LOCKED
        if of and not of[-1].is_current:
            return Deletion.CHANGED
    return None


def _is_as_planned(each: Version, known: Version) -> bool:
    same = (each.seen.version, each.seen.size) == (known.seen.version, known.seen.size)
    return same and (each.is_current, each.is_marker) == (known.is_current, known.is_marker)


def and_removed(cause: str, removed: Mapping[str, int]) -> str:
    """Why something was not done, with what went for good before."""
    count = sum(removed.values())
    return f"{cause} ({count} versions below it were removed before)" if count else cause


def _left(outcomes: Sequence[Deletion]) -> bool:
    return Deletion.CHANGED in outcomes or Deletion.LOCKED in outcomes


def _deleted(
    store: StoreWriter, objects: Sequence[Seen], check: Callable[[], None]
) -> Iterator[Deletion]:
    if not store.conditions().batch_delete:
        for seen in objects:
            check()
            yield store.delete(seen)
        return
    for start in range(0, len(objects), BATCH):
        check()
        for outcome in store.delete_batch(objects[start : start + BATCH]):
            if isinstance(outcome, StoreFailure):
                raise StoreFailed(outcome.message)
            yield outcome
