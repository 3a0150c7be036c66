"""One copy: from a presigned URL or another store to new objects, each verified before it counts, a
recording's manifest last."""

from __future__ import annotations

from functools import partial

from retainer.apply.copied import Copied, Piece, Task
from retainer.apply.kinds import kind_of
from retainer.apply.many import copy_many
from retainer.apply.place import place
from retainer.apply.streams import from_store, recording

SMALL = 8 << 20
"""So many bytes are written without a look before: where something lies already, the condition of
the write says so, which was proven."""


def copy_one(task: Task) -> Copied:
    """Make and verify one copy, or recognise that it is there already.

    Raises Changed, KeyTaken (a different object lies there), SourceGone, SourceFailed, StoreFailed,
    Partial, Unverified.
    """
    action = task.action
    assert action.target is not None
    if action.target.endswith("/"):
        return copy_many(task)
    said: list[str] = []
    if action.origin:
        (planned,) = action.origin
        kind = kind_of(action.type, planned.key)
        piece = Piece(action.target, partial(from_store, task, planned, kind, may_be_empty=True))
        size: int | None = planned.size
        if (told := action.facts.get("size")) not in (None, size):
            said.append(f"100ms's record says {told} bytes, {size} lie there")
    else:
        piece = Piece(
            action.target, lambda: recording(task, task.downloads.open(action.asset_id), said)
        )
        size = action.facts.get("size")
    return Copied(place(task, piece, look=not size or size > SMALL), said=tuple(said))
