"""Every version of some objects, as a bucket lists them: what a plan names is read as an apply
reads it again."""

from __future__ import annotations

from collections.abc import Sequence

from retainer.ports import StoreReader, Version

LISTED_SINGLY = 8
"""The versions of so many objects are listed one by one; of more, in a list of their folder."""


def versions_of(store: StoreReader, keys: Sequence[str]) -> dict[str, list[Version]]:
    """By key, in the order of `keys`, what the bucket has of each, the current version last; of
    what it has nothing, an empty list. Raises ListingBroken."""
    found: dict[str, list[Version]] = {key: [] for key in keys}
    folder = _folder_of(keys)
    if len(keys) > LISTED_SINGLY and folder:
        for version in store.versions(folder):
            found.get(version.seen.key, []).append(version)
    else:
        for key in keys:
            found[key] = list(store.versions(key))
    return {key: sorted(of, key=lambda each: each.is_current) for key, of in found.items()}


def _folder_of(keys: Sequence[str]) -> str:
    """The innermost folder in which all of these lie, with its slash; empty where there is none."""
    first, last = min(keys), max(keys)
    same = next(
        (n for n, (one, other) in enumerate(zip(first, last, strict=False)) if one != other),
        min(len(first), len(last)),
    )
    return first[: first.rfind("/", 0, same) + 1]
