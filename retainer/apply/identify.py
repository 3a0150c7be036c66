"""The identity of a store that is written to: read, compared with what is known of it, and made with the first write."""

from __future__ import annotations

from contextlib import suppress

from retainer.errors import KeyTaken, RetainerError, StoreFailed
from retainer.model.identity import IDENTITY_BYTES, IDENTITY_KEY, Identity
from retainer.ports import Look, StoreReader, StoreWriter, read_small


def identity_in(store: StoreReader) -> tuple[Look, Identity] | None:
    """The identity of a store as it lies there; None where it has none yet. Raises StoreFailed, also where it is damaged."""
    found = read_small(store, IDENTITY_KEY, IDENTITY_BYTES)
    if found is None:
        return None
    try:
        return found[0], Identity.read(found[1])
    except ValueError as error:
        raise StoreFailed(f"{store.name}:{IDENTITY_KEY} is damaged: {error}", hint="restore it from a backup") from None


def expect(store: StoreReader, expected: str | None) -> None:
    """Raises StoreFailed where another store lies than is known, or none: nothing may be written then, since a disk may not be mounted."""
    found = identity_in(store) if expected is not None else None
    if expected is None or (found is not None and found[1].id == expected):
        return
    there = f"another one lies there ({found[1].id[:8]}, not {expected[:8]})" if found else f"its {IDENTITY_KEY} is not there"
    hint = "is the right disk mounted? if this is meant, take it out of stores.json in the state folder, and plan again"
    raise StoreFailed(f"{store.name} is not the store that it was: {there}", hint=hint)


def identified(store: StoreWriter, customer: str | None) -> Identity | None:
    """The identity of a store, made where it has none; None where a store without conditional creates has none. Raises StoreFailed."""
    found = identity_in(store)
    if found is None:
        if not store.conditions().create:
            return None
        made = Identity.new(customer)
        with suppress(KeyTaken):
            store.create(IDENTITY_KEY, iter([made.write()]), len(made.write()), {}, "application/json")
        found = identity_in(store)
        return found[1] if found else None
    look, identity = found
    if identity.customer is None and customer is not None and store.conditions().replace:
        told = Identity(identity.id, customer)
        with suppress(RetainerError):
            if store.replace(look.seen, told.write()) is not None:
                return told
    return identity
