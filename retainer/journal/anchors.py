"""Where a journal ended, as the stores remember it: whether this state's journal is whole,
and what is deleted from a store in a day."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial

from retainer.errors import KeyTaken, RetainerError, StoreFailed
from retainer.journal.backend import Reading
from retainer.journal.journal import Journal, goes_through
from retainer.journal.ledger import Ledger
from retainer.model.anchors import ANCHORS_KEY, Anchor, Anchors, Lately, write_anchors
from retainer.model.moment import write_moment
from retainer.own import anchors_in
from retainer.ports import Seen, StoreReader, StoreWriter


def lost_record(
    anchors: Anchors | None, state: str | None, goes_through: Callable[[int, str], bool]
) -> str | None:
    """Why this state's journal cannot be all that was done in a store, in words; None where nothing
    speaks against it. `goes_through`: whether the journal's line with a number has a hash."""
    if anchors is None:
        return (
            f"what the store remembers of earlier runs cannot be read ({ANCHORS_KEY}: it is "
            "damaged, or was deleted)"
        )
    own = anchors.get(state or "")
    if own is not None:
        if goes_through(own.lines, own.head):
            return None
        return (
            f"the journal ends before its line {own.lines:,}, which was written at {own.at} "
            f"(run {own.run} on {own.host}): it was cut or replaced"
        )
    if anchors:
        last = max(anchors.values(), key=lambda anchor: anchor.at)
        return (
            "the journal here knows of no run there, and the store remembers one: the last at "
            f"{last.at} ({last.run} on {last.host})"
        )
    return None


Judge = Callable[["Anchors | None"], "str | None"]
"""Why a record cannot be all that was done in a store, by what the store remembers."""


def judge_of(record: Reading, ledger: Ledger) -> Judge:
    """`lost_record` of a record that was read. Raises RetainerError."""
    own, stands = record.identity(), partial(goes_through, record, ledger)
    return lambda anchors: lost_record(anchors, own, stands)


LOCKED_FOR = timedelta(days=400)
"""So long what a store remembers of a run stays behind, whoever overwrites or deletes it, where it
can be locked: a year, and time to ask."""


def keep_anchor(store: StoreWriter, journal: Journal, host: str, now: datetime) -> None:
    """As `drop_anchor`, at the end of a run, and locked where the settings lock."""
    now = _by_the_store(store, now)
    store.lock_version(drop_anchor(store, journal, host, now), now + LOCKED_FOR)


def drop_anchor(
    store: StoreWriter,
    journal: Journal,
    host: str,
    now: datetime,
    planned: Sequence[tuple[str, int, int]] = (),
) -> Seen:
    """Let a store remember where the journal ends now, what it has deleted there, and what is about
    to be deleted (rule, count, bytes). Gives the object that says so.

    Times are the store's. Raises StoreFailed. Only for a run that holds the store's lock, and whose
    journal is whole (or known to be lost).
    """
    now = _by_the_store(store, now)
    look, found = anchors_in(store)
    anchors = found or {}
    own = anchors.get(journal.state)
    unknown = own is not None and not journal.goes_through(own.lines, own.head)
    lines, head = journal.anchor(store.name)
    counts = {
        rule: found
        for (name, rule), found in journal.recent_deletes(now).items()
        if name == store.name
    }
    lately = _lately((*own.lately, *(own.planned if unknown else ())) if own else (), counts, now)
    going = tuple(Lately(write_moment(now), *each) for each in planned)
    anchors[journal.state] = Anchor(
        lines, head, write_moment(now), host, journal.run, lately, going
    )
    content = write_anchors(anchors, now)
    if look is not None:
        written = store.replace(look.seen, content)
        if written is None:
            raise StoreFailed(f"{store.name}:{ANCHORS_KEY} was changed by somebody else")
        return written
    try:
        chunks = iter([content])
        return store.create(ANCHORS_KEY, chunks, len(content), {}, "application/json").seen
    except KeyTaken:
        raise StoreFailed(
            f"{store.name}:{ANCHORS_KEY} was made by somebody else at the same moment"
        ) from None


def _by_the_store(store: StoreReader, now: datetime) -> datetime:
    try:
        return store.server_time()
    except RetainerError:
        return now


def _lately(
    before: Sequence[Lately], counts: dict[str, tuple[int, int]], now: datetime
) -> tuple[Lately, ...]:
    """What is counted now, and never less than was counted within the day: a journal that was lost,
    or a store renamed, forgets nothing.

    A count that has not grown keeps its moment, so that it ends 24 hours after the delete, and not
    after the last run.
    """
    since = write_moment(now - timedelta(hours=24))
    was: dict[str, Lately] = {}
    for each in before:
        if each.at > since:
            same = was.get(each.rule)
            was[each.rule] = (
                each
                if same is None
                else Lately(each.at, each.rule, same.count + each.count, same.bytes + each.bytes)
            )
    found = []
    for rule in sorted(was.keys() | counts.keys()):
        count, size = counts.get(rule, (0, 0))
        old = was.get(rule)
        found.append(
            old
            if old is not None and old.count >= count
            else Lately(write_moment(now), rule, count, size)
        )
    return tuple(found)
