"""What earlier runs announced, and nobody knows whether they did it: looked at, and written down,
before anything new is done."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from retainer.errors import RetainerError
from retainer.model.outcome import LeftOver
from retainer.ports import StoreReader, StoreWriter
from retainer.versions import versions_of


class Announced(Protocol):
    """A delete of which only the intent is known (journal/file.py)."""

    @property
    def plan(self) -> str: ...
    @property
    def row(self) -> int: ...
    @property
    def asset(self) -> str: ...
    @property
    def store(self) -> str: ...
    @property
    def rule(self) -> str: ...
    @property
    def asked_by(self) -> str: ...
    @property
    def objects(self) -> tuple[tuple[str, int, str], ...]: ...
    @property
    def versions(self) -> tuple[tuple[str, str, int], ...]: ...
    @property
    def versions_by(self) -> str: ...


class Record(Protocol):
    def write(self, event: str, **particulars: Any) -> None: ...


@dataclass(frozen=True, slots=True)
class Settled:
    """`gone`: the objects (store, key) that such deletes have taken; `entries`: what the catalogs
    are to say of them; `said`: what a person should know."""

    gone: frozenset[tuple[str, str]]
    entries: tuple[dict[str, Any], ...]
    said: tuple[str, ...]


def settle(
    announced: Sequence[Announced],
    left_over: Sequence[LeftOver],
    stores: Mapping[str, StoreWriter],
    journal: Record,
    now: datetime,
    check: Callable[[], None],
    erasures: Collection[str] = (),
    *,
    alone: bool = True,
) -> Settled:
    """Close the open intents of every plan in these stores, undo what a kill cut short in the
    middle, give up what is half uploaded.

    `erasures`: the ids of those that the policies have, for announcements of older versions, which
    do not say who asked. Nothing is deleted here: what is to go, a plan of today says. What cannot
    be looked at stays open, and counts towards the limits. `alone`: nobody else is at work in these
    stores, so that whatever was moved aside there is a dead run's; else only what was announced.
    """
    deleted, gone_by_now = 0, set[tuple[str, str]]()
    said: list[str] = []
    entries: list[dict[str, Any]] = []
    at = now.strftime("%Y-%m-%d %H:%M:%S.%f")
    ours = {(each.store, key) for each in announced for key, _, _ in each.objects}
    for name, store in stores.items():
        try:
            for key in store.unfinished():
                if not alone and (name, key) not in ours:
                    continue
                check()
                if store.put_back(key):
                    said.append(
                        f"{name}:{key} had been moved aside by a run that died, and lies in its "
                        "place again"
                    )
                else:
                    said.append(
                        f"{name}:{key} was moved aside by a run that died (to _retainer/going/), "
                        "and another object lies in its place"
                    )
        except RetainerError as error:
            said.append(error.message)
    for each in announced:
        if each.store not in stores:
            continue
        check()
        try:
            gone = _gone(each, stores[each.store])
            removed = _removed(each, stores[each.store])
        except RetainerError:
            continue
        more = {"versions": len(removed), "versions_by": each.versions_by} if each.versions else {}
        if gone:
            keys, size = [key for key, _, _ in gone], sum(size for _, size, _ in gone)
            if each.versions:
                size = sum(size for key, _, size in removed if key in keys)
            remains = [key for key, _, _ in each.objects if key not in keys]
            journal.write(
                "deleted",
                plan=each.plan,
                row=each.row,
                asset=each.asset,
                store=each.store,
                rule=each.rule,
                bytes=size,
                keys=keys,
                left=remains,
                partial=bool(remains),
                asked_by=each.asked_by or ("erasure" if each.rule in erasures else None),
                **more,
            )
            deleted += 1
            gone_by_now |= {(each.store, key) for key in keys}
            entries += [
                {
                    "store": each.store,
                    "key": key,
                    "version": version,
                    "asset_id": each.asset,
                    "copied_at": at,
                    "deleted": True,
                }
                for key, _, version in gone
            ]
        else:
            journal.write(
                "left",
                act="delete",
                plan=each.plan,
                row=each.row,
                asset=each.asset,
                store=each.store,
                **(more if removed else {}),
            )
    if deleted:
        said.append(
            f"{deleted} {'delete' if deleted == 1 else 'deletes'} of earlier runs had been done, "
            "and nobody had told: now the journal does"
        )
    for left in left_over:
        if left.store in stores:
            check()
            try:
                stores[left.store].abandon(left.key, left.upload)
            except RetainerError:
                continue  # the next run tries again
            journal.write("abandoned", store=left.store, key=left.key, upload=left.upload)
    return Settled(frozenset(gone_by_now), tuple(entries), tuple(said))


def _gone(each: Announced, store: StoreReader) -> list[tuple[str, int, str]]:
    """Its objects that are not there any more in the version that was to go. Raises StoreFailed."""
    gone = []
    for key, size, version in each.objects:
        look = store.look(key)
        if look is None or look.seen.version != version:
            gone.append((key, size, version))
    return gone


def _removed(each: Announced, store: StoreReader) -> list[tuple[str, str, int]]:
    """Its versions that are not there any more. Raises ListingBroken."""
    if not each.versions:
        return []
    there = versions_of(store, [key for key, _, _ in each.objects])
    left = {(key, version.id) for key, of in there.items() for version in of}
    return [one for one in each.versions if one[:2] not in left]
