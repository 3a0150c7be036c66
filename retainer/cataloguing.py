"""What is known of the objects in one store: made anew from them alone, recognised for the first
time, or read back and compared."""

from __future__ import annotations

import hashlib
import json
import random
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from retainer.apply.copied import Copied, Written
from retainer.apply.identify import identified
from retainer.apply.manifest import is_manifest, read_manifest
from retainer.apply.record import entries_of, entry_of, members_of, write_part
from retainer.apply.settle import settle
from retainer.apply.verify import Counted, checksum_of, digest_of
from retainer.database import connect, fill
from retainer.errors import FactsIncomplete, Locked, RetainerError
from retainer.holding import locked, owner_of
from retainer.inventory.collect import Progress, collect_store
from retainer.inventory.facts import open_facts, same_version
from retainer.inventory.shapes import recognised
from retainer.journal.anchors import drop_anchor, lost_record
from retainer.journal.file import Journal, open_intents, read_journal
from retainer.journal.lock import Heart
from retainer.journal.stores import known_stores, remember_stores
from retainer.model.catalog import MADE_OF, RECORD
from retainer.model.outcome import Census, Trouble
from retainer.model.rule import FACTS
from retainer.model.setting import MANIFEST, Settings, Store
from retainer.model.tables import create
from retainer.own import anchors_in
from retainer.ports import Checksum, Look, Seen, StoreWriter
from retainer.stop import Stop

WORKERS = 8
PART_ROWS = 2000


@dataclass(frozen=True)
class Work:
    """The store that is worked on, and everything that takes."""

    store: Store
    writer: StoreWriter
    state: Path
    clock: Callable[[], datetime]
    progress: Progress
    stop: Stop = field(default_factory=Stop)


@contextmanager
def _alone(work: Work, what: str) -> Iterator[Callable[[str, Sequence[Mapping[str, Any]]], None]]:
    """The journal and the store's lock, as an apply has them, while entries are written: gives the
    function that writes them, for an event of the journal. Raises Locked; no more is written once
    the lock was lost."""
    journal = Journal(work.state, uuid.uuid4().hex[:12], "-", work.clock)
    name = work.store.name

    def record(event: str, rows: Sequence[Mapping[str, Any]]) -> None:
        for start in range(0, len(rows), PART_ROWS):
            work.stop.check()
            if lost.is_set():
                raise Locked(
                    f"the lock of {name} was lost on the way: what was recorded until then stands",
                    hint="run it again",
                )
            few = [dict(row) for row in rows[start : start + PART_ROWS]]
            part = write_part(work.writer, few, work.clock(), identity.id if identity else None)
            journal.write(event, store=name, part=part, keys=[row["key"] for row in few])

    lost = threading.Event()
    try:
        owner = owner_of(journal, what)
        known = known_stores(work.state)
        with locked(
            {name: work.writer},
            owner,
            {name: known[work.store.place]} if work.store.place in known else {},
        ) as (locks, unusable):
            if name in unusable:
                raise unusable[name]
            identity = identified(work.writer, None)
            if identity is not None:
                remember_stores(work.state, known, {work.store.place: identity.id})
            journal.write("start", what=what, store=name, host=owner.host)
            announced = (
                [each for each in open_intents(journal.before) if each.store == name]
                if locks[name].holds
                else []
            )
            with Heart([locks[name]], lambda _: lost.set()):
                settled = settle(
                    announced,
                    [],
                    {name: work.writer} if locks[name].holds else {},
                    journal,
                    work.clock(),
                    work.stop.check,
                )
                record("settled", settled.entries)
                yield record
                journal.write("end", what=what, finished=not lost.is_set())
                if (
                    locks[name].holds
                    and lost_record(anchors_in(work.writer)[1], journal.state, journal.before)
                    is None
                ):
                    drop_anchor(work.writer, journal, owner.host, work.clock())
    finally:
        journal.close()


def _each(
    work: Work, name: str, act: Callable[[Seen], Any], objects: Sequence[Seen], census: Census
) -> list[Any]:
    """Act on objects, several at a time; what fails is told of that object alone."""

    def acted(seen: Seen) -> Any:
        work.stop.check()
        try:
            return act(seen)
        except RetainerError as error:
            census.failed.append(
                Trouble(name, seen.key, work.store.name, error.message, error.hint)
            )
            return None
        finally:
            work.progress(work.store.name, 1)

    with ThreadPoolExecutor(WORKERS) as pool:
        return [outcome for outcome in pool.map(acted, objects) if outcome is not None]


# ── made anew ─────────────────────────────────────────────────────────────────────────────────────


def rebuild(work: Work) -> Census:
    """Make the catalog again from the objects alone: from their metadata, their manifests, and the
    checksums that the store computes.

    What whole parts still say of objects as they lie there stands, also that one is broken; damaged
    parts are deleted once the new ones are there. What does not explain itself is counted, and left
    alone.
    """
    census = Census()
    with _listed(work, spoilt_parts=True) as (connection, damaged):
        known = {
            row[0]
            for row in connection.execute(
                "SELECT key FROM objects JOIN entry USING (key) WHERE entry.object_size = "
                "objects.size AND entry.version = objects.version "
                "AND deleted IS NOT TRUE"
            ).fetchall()
        }
        objects = _objects(connection, "FROM objects")
    census.looked = len(objects)
    work.writer.conditions().find_out("checksum")  # only what is proven is believed
    folders = [seen for seen in objects if seen.key.endswith(f"/{MANIFEST}")]
    wholes = _each(work, "rebuild", lambda seen: _of_manifest(work, seen), folders, census)
    members = {row["key"] for rows in wholes for row in rows}
    singles = [seen for seen in objects if seen.key not in members | known]
    found = _each(work, "rebuild", lambda seen: _of_metadata(work, seen), singles, census)
    rows = [row for rows in (*wholes, *found) for row in rows if row["key"] not in known]
    with _alone(work, "catalog rebuild") as record:
        record("rebuilt", rows)
        for seen in damaged:
            work.writer.delete(seen)
            census.said.append(f"{seen.key} was damaged, and is gone")
    census.recorded = len(rows)
    census.unknown = len(objects) - len(known | {row["key"] for row in rows}) - len(census.failed)
    return census


def _of_metadata(work: Work, seen: Seen) -> list[dict[str, Any]]:
    """The entry of one file that says of itself whose it is and how long it had to be; nothing
    where it does not."""
    look = work.writer.look(seen.key)
    record = _record_in(look)
    if (
        look is None
        or record is None
        or str(look.seen.size) != (look.metadata or {}).get("retainer-length")
    ):
        return []
    return [record | _entry(work, look)]


def _entry(work: Work, look: Look) -> dict[str, Any]:
    """An object as it lies there, with the checksum that the store has of it, else that of its
    bytes."""
    return entry_of(
        work.store.name,
        Written(look, look.checksum or checksum_of(work.writer, look, "crc32c"), None),
        work.clock(),
    )


def _of_manifest(work: Work, seen: Seen) -> list[dict[str, Any]] | None:
    look = work.writer.look(seen.key)
    if look is None:
        return None
    counted = Counted(work.writer.read(look.seen))
    content = b"".join(counted)
    if not is_manifest(content):
        return None
    manifest, digest = read_manifest(content), counted.digest()
    members_there = members_of(work.writer, seen.key.removesuffix(MANIFEST), manifest)
    copied = Copied(Written(look, digest.checksum, digest.sha256), members_there)
    whole, members = entries_of(work.store.name, copied, manifest.asset_id, work.clock())
    return [
        *members,
        {name: manifest.record.get(name) for name in (*RECORD, *MADE_OF)}
        | {"asset_id": manifest.asset_id}
        | whole,
    ]


def _record_in(look: Look | None) -> dict[str, Any] | None:
    """The record of the asset that an object carries, marked where facts were left out for want of
    room."""
    try:
        found = json.loads((look.metadata or {})["retainer-record"]) if look else None
    except (KeyError, ValueError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("asset_id"), str):
        return None
    unknown = [*(found.get("not_known") or []), *(found.get("left_out") or [])]
    return {name: found.get(name) for name in (*RECORD, *MADE_OF)} | {
        "known_by": "catalog",
        "settled": True,
        "not_known": unknown or None,
    }


# ── recognised ────────────────────────────────────────────────────────────────────────────────────


def adopt(work: Work, facts: Path, settings: Settings) -> Census:
    """Recognise objects that retainer did not put there, and write entries for them, marked as
    inferred. No object is changed.

    By the metadata of a copy; else by the documented shape of its path. What has the path of an
    asset that 100ms still knows is left to a plan, which copies that asset and compares. A path
    tells no date, so that what is known by nothing else is never deleted for its age. Raises
    FactsIncomplete when 100ms's assets could not all be listed.
    """
    census = Census()
    with _listed(work) as (connection, _):
        objects = _objects(connection, "FROM objects ANTI JOIN entry USING (key)")
    known = _known_to_100ms(facts, settings)
    census.looked = len(objects)
    work.writer.conditions().find_out("checksum")  # only what is proven is believed
    rows = _each(
        work,
        "adopt",
        lambda seen: _by_metadata(work, seen) or _by_shape(work, seen, known),
        objects,
        census,
    )
    with _alone(work, "adopt") as record:
        record("adopted", rows)
    census.recorded = len(rows)
    census.unknown = len(objects) - len(rows) - len(census.failed)
    return census


def _known_to_100ms(facts: Path, settings: Settings) -> frozenset[str]:
    """The documented part of every path that 100ms names."""
    connection = open_facts(facts, settings)
    try:
        if connection.execute("FROM listings WHERE kind = 'assets' AND NOT complete").fetchall():
            message = (
                "the assets of 100ms could not all be listed, so what it knows could be "
                "taken for unknown"
            )
            raise FactsIncomplete(message, hint="run it again later")
        paths = connection.execute(
            "SELECT path FROM assets WHERE path IS NOT NULL AND known_by = 'api'"
        ).fetchall()
        return frozenset(told[0] for (path,) in paths if (told := recognised(path)))
    finally:
        connection.close()


def _by_metadata(work: Work, seen: Seen) -> dict[str, Any] | None:
    rows = _of_metadata(work, seen)
    return rows[0] | {"inferred": "metadata"} if rows else None


def _by_shape(work: Work, seen: Seen, known: frozenset[str]) -> dict[str, Any] | None:
    shape, facts = recognised(seen.key) or ("", {})
    if not shape or shape in known or seen.size == 0:
        return None
    look = work.writer.look(seen.key)
    if look is None or look.seen.version != seen.version:
        return None
    entry = _entry(work, look)
    path = f"{work.store.base}{seen.key}"
    identity = {
        "asset_id": f"inferred-{hashlib.sha256(path.encode()).hexdigest()[:24]}",
        "path": path,
        "settled": True,
        "known_by": "catalog",
    }
    unknown = sorted(
        {*FACTS, "asset_id"} - {*facts, "path"}
    )  # no path tells these, so that a match on them is not certain
    return (
        dict.fromkeys(RECORD)
        | facts
        | identity
        | {"not_known": unknown}
        | entry
        | {"inferred": "path"}
    )


# ── read back ─────────────────────────────────────────────────────────────────────────────────────


def scrub(work: Work, percent: float) -> Census:
    """Read copies back and compare them with their checksums; `percent` of them, drawn anew each
    time. What is broken is partial from then on.

    What cannot be read is told, and is not broken for that; nor is what differs only once. What the
    catalog names and is not there any more, or is another object by now, is told too, whatever the
    percentage.
    """
    census = Census()
    same = (
        "entry.object_size = objects.size AND "
        f"{same_version(work.store, 'entry.version', 'objects.version')}"
    )
    with _listed(work) as (connection, _):
        rows = connection.execute(f"""
            SELECT objects.key, objects.size, objects.version, archived, to_json(entry)
            FROM objects JOIN entry USING (key) WHERE {same}
                AND broken IS NOT TRUE ORDER BY objects.key
        """).fetchall()
        # What apply deleted has an entry that says so, or at least a line in this journal, where a
        # run died before it could be written.
        gone = {"key": "VARCHAR", "deleted_at": "TIMESTAMP"}
        connection.execute(create("gone", gone))
        fill(
            connection,
            "gone",
            gone,
            (
                {"key": key, "deleted_at": entry.at.strftime("%Y-%m-%d %H:%M:%S")}
                for entry in read_journal(work.state)
                if entry.event == "deleted" and entry.particulars["store"] == work.store.name
                for key in entry.particulars.get("keys", ())
            ),
        )
        census.missing = [
            row[0]
            for row in connection.execute("""
            SELECT key FROM entry ANTI JOIN objects USING (key) ANTI JOIN gone
                ON gone.key = entry.key AND deleted_at + INTERVAL 1 SECOND >= copied_at
            WHERE deleted IS NOT TRUE ORDER BY key
        """).fetchall()
        ]
        census.replaced = [
            row[0]
            for row in connection.execute(f"""
            SELECT key FROM objects JOIN entry USING (key) WHERE NOT ({same})
                AND deleted IS NOT TRUE AND broken IS NOT TRUE ORDER BY key
        """).fetchall()
        ]
    readable = [row for row in rows if not row[3]]
    census.archived = len(rows) - len(readable)
    drawn = (
        readable
        if percent >= 100
        else random.sample(readable, -int(-len(readable) * percent // 100))
    )
    census.looked = len(drawn)
    entries = {row[0]: json.loads(row[4]) for row in drawn}

    def act(seen: Seen) -> dict[str, Any] | None:
        entry = entries[seen.key]
        for _ in range(2):
            census.bytes += seen.size
            if entry["sha256"] is not None:
                same = digest_of(work.writer, Look(seen)).sha256 == entry["sha256"]
            else:
                recorded = Checksum.found_in(entry)
                same = checksum_of(work.writer, Look(seen), recorded.kind) == recorded
            if same:
                return None
        return dict(entry) | {
            "copied_at": work.clock().strftime("%Y-%m-%d %H:%M:%S.%f"),
            "broken": True,
        }

    broken = _each(work, "verify", act, [Seen(row[0], row[1], row[2]) for row in drawn], census)
    with _alone(work, f"verify {len(drawn)} of {len(rows)} objects") as record:
        record("broken", broken)
    census.broken = sorted(row["key"] for row in broken)
    return census


def _objects(connection: duckdb.DuckDBPyConnection, query: str) -> list[Seen]:
    return [
        Seen(*row)
        for row in connection.execute(f"SELECT key, size, version {query} ORDER BY key").fetchall()
    ]


@contextmanager
def _listed(
    work: Work, *, spoilt_parts: bool = False
) -> Iterator[tuple[duckdb.DuckDBPyConnection, list[Seen]]]:
    """The tables `objects` and `catalog` and the view `entry` of the store, and its damaged parts
    where those are to be passed over."""
    connection = connect(work.state / "catalog")
    try:
        yield (
            connection,
            collect_store(
                connection,
                work.writer,
                work.state / "catalog",
                work.clock,
                spoilt_parts=spoilt_parts,
            ),
        )
    finally:
        connection.close()
