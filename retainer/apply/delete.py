"""One delete: only what the plan saw, only while its witnesses are there, only on a condition."""

from __future__ import annotations

from collections.abc import Mapping

from retainer.planfile import Action
from retainer.ports import Deletion, Seen, StoreReader, StoreWriter


def missing_witness(action: Action, stores: Mapping[str, StoreReader]) -> str | None:
    """Why a delete is not safe at this moment: a copy that makes it safe is no longer as the plan saw it. None: it is.

    Raises StoreFailed when a witness cannot be looked at.
    """
    for witness in action.witnesses:
        store = stores.get(witness.store)
        look = store.look(witness.key) if store else None
        if look is None:
            return f"the copy in {witness.store} that makes it safe is not there any more"
        if (look.seen.version, look.seen.size) != (witness.version, witness.size):
            return f"the copy in {witness.store} that makes it safe has changed"
    return None


def objects_of(action: Action) -> list[Seen]:
    """What the plan saw, as it must still be."""
    return [Seen(planned.key, planned.size, planned.version) for planned in action.objects]


def delete_one(action: Action, store: StoreWriter) -> Deletion:
    """Delete every object of a copy. The outcome that is worst to miss counts: CHANGED and LOCKED before DELETED before GONE."""
    outcomes = [store.delete(seen) for seen in objects_of(action)]
    for worst in (Deletion.CHANGED, Deletion.LOCKED, Deletion.DELETED):
        if worst in outcomes:
            return worst
    return Deletion.GONE
