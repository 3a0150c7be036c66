"""Take the locks of stores, once it is certain that they are the stores that they should be."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from retainer.errors import Locked, RetainerError
from retainer.journal.journal import Journal
from retainer.journal.lock import Heart, Owner, StoreLock, owner
from retainer.own import identity_in, must_be
from retainer.ports import StoreWriter


def owner_of(journal: Journal, plan: str, *, alone: bool = True) -> Owner:
    """Who holds the locks of a run. Not `alone`: other machines act for it too, so that it is not
    over when its process is."""
    place = journal.place if alone else f"{journal.place} and workers"
    return owner(journal.run, plan, journal.state, place)


@dataclass(frozen=True)
class Held:
    """The locks that were taken, why some could not be, and what renews them."""

    locks: dict[str, StoreLock]
    unusable: dict[str, RetainerError]
    heart: Heart


@contextmanager
def locked(
    stores: Mapping[str, StoreWriter],
    owner: Owner,
    expected: Mapping[str, str],
    lost: Callable[[str], None],
    optional: Collection[str] = (),
    over: Collection[str] = (),
    stay: Callable[[], bool] = lambda: False,
) -> Iterator[Held]:
    """The locks of all these stores, each renewed from when it was taken: another store may be
    waited for meanwhile. Whatever happens, they are given back at the end, unless they are to
    `stay`: then nobody renews them, and they die of their age.

    `expected`: the identity that a store must have. A store that cannot be written to, or is
    another one, fails its own actions alone. `lost`: told of a lock that was lost. `optional`:
    stores that are nice to have, in which another run may be. `over`: runs that certainly are.
    Raises Locked when another run holds one of the others.
    """
    taken: dict[str, StoreLock] = {}
    unusable: dict[str, RetainerError] = {}
    try:
        with Heart(lost) as heart:
            for name, store in stores.items():
                lock = StoreLock(store, owner, over)
                try:
                    if name in expected:
                        found = identity_in(store)
                        must_be(name, found[1] if found else None, expected[name])
                    lock.take()
                except Locked as error:
                    if name not in optional:
                        raise
                    unusable[name] = error
                    continue
                except RetainerError as error:
                    unusable[name] = error
                    continue
                taken[name] = lock
                heart.beat_for(lock)
            yield Held(taken, unusable, heart)
    finally:
        if not stay():
            for lock in taken.values():
                lock.give_back()
