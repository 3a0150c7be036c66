"""Where a journal ended, as the stores remember it: whether this state folder's journal is whole, and what other ones deleted lately."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from retainer.errors import KeyTaken, StoreFailed
from retainer.journal.file import Entry, Journal, read_journal, recent_deletes
from retainer.model.anchors import ANCHORS_BYTES, ANCHORS_KEY, Anchor, Anchors, Lately, read_anchors, write_anchors
from retainer.model.moment import read_moment, write_moment
from retainer.ports import Look, StoreReader, StoreWriter, read_small


def anchors_in(store: StoreReader) -> tuple[Look | None, dict[str, Anchor]]:
    """What a store remembers. Raises StoreFailed, also where it is damaged."""
    found = read_small(store, ANCHORS_KEY, ANCHORS_BYTES)
    if found is None:
        return None, {}
    try:
        return found[0], read_anchors(found[1])
    except ValueError as error:
        raise StoreFailed(f"{store.name}:{ANCHORS_KEY} is damaged: {error}", hint="restore it, or move it away if nobody can") from None


def lost_record(anchors: Anchors, state: str | None, entries: Sequence[Entry]) -> str | None:
    """Why this state folder's journal cannot be all that was done in a store, in words; None where nothing speaks against it."""
    own = anchors.get(state or "")
    if own is not None:
        if own.lines <= len(entries) and (own.lines == 0 or entries[own.lines - 1].seal == own.head):
            return None
        return f"the journal ends before its line {own.lines:,}, which was written at {own.at} (run {own.run} on {own.host}): it was cut or replaced"
    if anchors and not any(entry.event == "start" for entry in entries):
        last = max(anchors.values(), key=lambda anchor: anchor.at)
        return f"this state folder has no record of any run, and the store remembers one: the last at {last.at} ({last.run} on {last.host})"
    return None


def drop_anchor(
    store: StoreWriter, journal: Journal, host: str, now: datetime, planned: Sequence[tuple[str, int, int]] = (), *, open_: bool
) -> None:
    """Let a store remember where the journal ends now, and what it has deleted there, with `planned` (rule, count, bytes) as if it were done.

    Raises StoreFailed. Only for a run that holds the store's lock.
    """
    look, anchors = anchors_in(store)
    lines, head = journal.end
    counts: dict[str, tuple[int, int]] = {}
    done = ((rule, count, size) for (name, rule), (count, size) in recent_deletes(read_journal(journal.path.parent), now).items()
            if name == store.name)  # fmt: skip
    for rule, count, size in (*done, *planned):
        before = counts.get(rule, (0, 0))
        counts[rule] = (before[0] + count, before[1] + size)
    lately = tuple(Lately(write_moment(now), rule, count, size) for rule, (count, size) in sorted(counts.items()))
    kept = _earlier(anchors.get(journal.state), lately, now)
    anchors[journal.state] = Anchor(lines, head, write_moment(now), host, journal.run, open_, kept)
    content = write_anchors(anchors, now)
    if look is not None:
        if store.replace(look.seen, content) is None:
            raise StoreFailed(f"{store.name}:{ANCHORS_KEY} was changed by somebody else")
        return
    try:
        store.create(ANCHORS_KEY, iter([content]), len(content), {}, "application/json")
    except KeyTaken:
        raise StoreFailed(f"{store.name}:{ANCHORS_KEY} was made by somebody else at the same moment") from None


def _earlier(before: Anchor | None, lately: tuple[Lately, ...], now: datetime) -> tuple[Lately, ...]:
    """The counts of now with the moments of before where a count has not grown, so that it ends 24 hours after the delete, not after the run."""
    was = {(each.rule, each.count, each.bytes): each.at for each in (before.lately if before else ())}
    return tuple(
        Lately(at if (at := was.get((each.rule, each.count, each.bytes))) and (moment := read_moment(at)) and moment <= now else each.at,
               each.rule, each.count, each.bytes)
        for each in lately
    )  # fmt: skip
