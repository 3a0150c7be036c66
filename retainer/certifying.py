"""The record and the plans that were applied -> a certificate of what is gone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime

from retainer.applied import applied_plans
from retainer.errors import RetainerError
from retainer.history import history
from retainer.journal.backend import Reading
from retainer.journal.entry import Entry
from retainer.journal.journal import read_journal
from retainer.model.certificate import Certificate, Looked
from retainer.model.history import Happening
from retainer.planfile import LYING, PlanFile, moment_of
from retainer.ports import StoreReader


def certificate(
    record: Reading,
    about: str,
    now: datetime,
    opened: Callable[[str], StoreReader | None] | None = None,
) -> Certificate:
    """`about`: the id of a recording, a room, a session or an erasure. `opened`: a store by its
    name, None where it is not declared; without it no store is asked.

    Raises RetainerError where the record, or a plan beside it, cannot be read: what could not be
    read may say that something is left.
    """
    purged: set[str] = set()
    told = history(_noting(read_journal(record), purged), record.where)
    ids = {
        each.asset_id
        for each in told.happenings
        if about == each.asset_id or (about == each.rule and each.asked_by == "erasure")
    } - {""}
    plans = 0
    for plan in applied_plans(record):
        plans += 1
        ids |= _named_in(plan, about)
    seen = [
        (moment_of(plan.header.as_of), _rows_of(plan, ids))
        for plan in (applied_plans(record) if ids else ())
    ]
    deleted = tuple(each for each in told.deletions if each.asset_id in ids)
    return Certificate(
        about=about,
        record=told.record,
        made=now,
        recordings=tuple(sorted(ids)),
        deleted=deleted,
        left=tuple(_left([each for each in told.happenings if each.asset_id in ids], seen)),
        lapses=tuple(sorted(_lapsing(seen, now))),
        purged=tuple(sorted(purged & ids)),
        looked=tuple(_looked(deleted, opened)) if opened else (),
        plans=plans,
        lines=told.lines,
        first_hash=told.first_hash,
        last_hash=told.last_hash,
    )


Row = tuple[str, str, str, bool, datetime | None]
"""Of a plan: recording, place, decision, whether something of it lies there, until when."""


def _named_in(plan: PlanFile, about: str) -> set[str]:
    """The recordings of a room or a session that a plan copied or deleted, and those that an
    erasure of this name asked for."""
    rows = plan.connection.execute(
        "SELECT DISTINCT asset_id FROM plan WHERE $erases AND rule = $about "
        "AND decision IN ('lapses', 'delete') "
        "OR decision IN ('copy', 'delete') AND action IS NOT NULL "
        "AND $about IN (action->>'$.facts.room_id', action->>'$.facts.session_id')",
        {
            "about": about,
            "erases": any(
                item.id == about and item.kind == "erasure" for item in plan.header.items
            ),
        },
    ).fetchall()
    return {asset_id for (asset_id,) in rows}


def _rows_of(plan: PlanFile, ids: set[str]) -> list[Row]:
    rows = plan.connection.execute(
        f"SELECT asset_id, store, decision, {LYING} AND store <> 'hosted', "
        "CASE WHEN until < TIMESTAMP '9999-12-31' THEN until END FROM plan "
        "WHERE asset_id IN (SELECT unnest(?::VARCHAR[]))",
        [sorted(ids)],
    ).fetchall()
    return [(*row, until.replace(tzinfo=UTC) if until else None) for *row, until in rows]


def _left(
    happenings: Sequence[Happening], seen: Sequence[tuple[datetime, Sequence[Row]]]
) -> Iterator[Happening]:
    """What was copied, came back, or was seen by a plan, and did not go since."""
    lying: dict[tuple[str, str], Happening] = {}
    told: list[tuple[datetime, Happening | Sequence[Row]]] = [(at, rows) for at, rows in seen]
    told += [(each.at, each) for each in happenings]
    for at, what in sorted(told, key=lambda each: each[0]):
        if isinstance(what, Happening):
            place = (what.asset_id, what.store)
            if what.event in ("copied", "restored"):
                lying[place] = what
            elif what.event == "deleted":
                lying.pop(place, None)
            continue
        assets = {asset for asset, *_ in what}
        lying = {place: each for place, each in lying.items() if place[0] not in assets}
        lying |= {
            (asset, store): Happening(at, "seen", asset, store, "", "")
            for asset, store, _, lies, _ in what
            if lies
        }
    yield from (each for _, each in sorted(lying.items()))


def _lapsing(
    seen: Sequence[tuple[datetime, Sequence[Row]]], now: datetime
) -> Iterator[tuple[str, datetime | None]]:
    """What 100ms still has, as the last plan that knew of it says."""
    last: dict[str, Row | None] = {}
    for _, rows in sorted(seen, key=lambda each: each[0]):
        last |= {row[0]: None for row in rows}
        last |= {row[0]: row for row in rows if row[2] == "lapses"}
    for asset, row in last.items():
        if row is not None and (row[-1] is None or row[-1] > now):
            yield asset, row[-1]


def _noting(entries: Iterable[Entry], purged: set[str]) -> Iterator[Entry]:
    """The same entries, while the recordings are noted that the catalogs tell no more of."""
    for entry in entries:
        if entry.event == "compacted":
            purged.update(map(str, entry.particulars.get("erased", ())))
        yield entry


def _looked(
    deleted: tuple[Happening, ...], opened: Callable[[str], StoreReader | None]
) -> Iterator[Looked]:
    """Each object that was deleted, looked at once more."""
    readers: dict[str, StoreReader | None] = {}
    for each in deleted:
        for key in each.keys:
            try:
                if each.store not in readers:
                    readers[each.store] = opened(each.store)
                reader = readers[each.store]
                if reader is None:
                    yield Looked(each.store, key, None, "no store of this name is declared")
                elif reader.look(key) is not None:
                    yield Looked(each.store, key, is_there=True)
                else:
                    yield _behind(each.store, key, reader)
            except RetainerError as error:
                yield Looked(each.store, key, None, error.message)


def _behind(store: str, key: str, reader: StoreReader) -> Looked:
    """What is hidden behind an object that is not there."""
    try:
        hidden = sum(not each.is_marker for each in reader.versions(key))
    except RetainerError as error:
        said = f"it is not there, and its versions could not be read ({error.message})"
        return Looked(store, key, False, said)
    return Looked(store, key, False, hidden=hidden)
