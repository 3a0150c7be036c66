"""What retainer itself keeps in a store, as every stage reads it: which store it is, and what it
remembers of the journals."""

from __future__ import annotations

from retainer.errors import ListingBroken, StoreFailed
from retainer.model.anchors import ANCHORS_BYTES, ANCHORS_KEY, Anchor, read_anchors
from retainer.model.identity import IDENTITY_BYTES, IDENTITY_KEY, Identity
from retainer.ports import Look, StoreReader


def identity_in(store: StoreReader) -> tuple[Look, Identity] | None:
    """The identity of a store as it lies there; None where it has none yet. Raises StoreFailed,
    also where it is damaged."""
    found = store.whole(IDENTITY_KEY, IDENTITY_BYTES)
    if found is None:
        return None
    try:
        return found[0], Identity.read(found[1])
    except ValueError as error:
        raise StoreFailed(
            f"{store.name}:{IDENTITY_KEY} is damaged: {error}", hint="restore it from a backup"
        ) from None


def must_be(store: str, found: Identity | None, expected: str | None) -> None:
    """Raises StoreFailed where another store lies than is known, or none: it is neither believed
    empty nor written to, as after a lost mount."""
    if expected is None or (found is not None and found.id == expected):
        return
    there = (
        f"another one lies there ({found.id[:8]}, not {expected[:8]})"
        if found
        else f"its {IDENTITY_KEY} is not there"
    )
    hint = (
        "is the right disk mounted? if this is meant, take it out of stores.json in the state "
        "folder, and plan again"
    )
    raise StoreFailed(f"{store} is not the store that it was: {there}", hint=hint)


def anchors_in(
    store: StoreReader, *, or_hidden: bool = False
) -> tuple[Look | None, dict[str, Anchor] | None]:
    """What a store remembers, and the object that says so; None where that is there and cannot be
    read, or (`or_hidden`) where it was deleted and the bucket has versions of it still. Raises
    StoreFailed."""
    try:
        found = store.whole(ANCHORS_KEY, ANCHORS_BYTES)
    except StoreFailed:
        look = store.look(ANCHORS_KEY)
        if look is None or look.seen.size <= ANCHORS_BYTES:
            raise
        return look, None
    if found is None:
        return None, None if or_hidden and _was_deleted(store) else {}
    try:
        return found[0], read_anchors(found[1])
    except ValueError:
        return found[0], None


def _was_deleted(store: StoreReader) -> bool:
    """Whether what a store remembered is hidden there; not so where that cannot be listed, as
    without the right to it."""
    try:
        return any(not each.is_marker for each in store.versions(ANCHORS_KEY))
    except ListingBroken:
        return False
