"""The identity of a store that is written to: made with the first write, and told once whose
recordings lie there."""

from __future__ import annotations

from contextlib import suppress

from retainer.errors import KeyTaken, RetainerError
from retainer.model.identity import IDENTITY_KEY, Identity
from retainer.own import identity_in
from retainer.ports import StoreWriter


def identified(store: StoreWriter, customer: str | None) -> Identity | None:
    """The identity of a store, made where it has none; None where a store without conditional
    creates has none. Raises StoreFailed."""
    found = identity_in(store)
    if found is None:
        if not store.conditions().create:
            return None
        made = Identity.new(customer)
        content = made.write()
        try:
            store.create(IDENTITY_KEY, iter([content]), len(content), {}, "application/json")
        except KeyTaken:
            found = identity_in(store)
            return found[1] if found else None
        return made
    look, identity = found
    if identity.customer is None and customer is not None and store.conditions().replace:
        told = Identity(identity.id, customer)
        with suppress(RetainerError):
            if store.replace(look.seen, told.write()) is not None:
                return told
    return identity
