"""What is known of the objects in one store: made anew from them alone, recognised for the first
time, or read back and compared."""

from __future__ import annotations

import hashlib
import json
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

import duckdb

from retainer.apply.copied import Copied, Written
from retainer.apply.describe import recorded_in
from retainer.apply.identify import identified
from retainer.apply.kinds import kind_of
from retainer.apply.manifest import is_manifest, read_manifest
from retainer.apply.record import entries_of, entry_of, members_of, write_part
from retainer.apply.settle import settle
from retainer.apply.verify import Counted, checksum_of, digest_of
from retainer.database import connect, fill, only_row
from retainer.errors import FactsIncomplete, Locked, RetainerError, SourceFailed, StoreFailed
from retainer.holding import locked, owner_of
from retainer.inventory.collect import collect_store
from retainer.inventory.facts import open_facts, same_version
from retainer.inventory.listing import Progress
from retainer.inventory.shapes import recognised
from retainer.journal.anchors import keep_anchor, lost_record
from retainer.journal.backend import Backend
from retainer.journal.journal import Journal, read_ledger
from retainer.journal.stores import known_stores, remember_stores
from retainer.model.catalog import OF_THE_COPY, RECORD
from retainer.model.moment import read_lock, read_moment, write_lock, write_moment
from retainer.model.outcome import Census, Trouble
from retainer.model.rule import FACTS
from retainer.model.setting import MANIFEST, Settings, Store
from retainer.model.tables import create
from retainer.own import anchors_in
from retainer.ports import Checksum, Look, Seen, StoreWriter
from retainer.stop import Stop

WORKERS = 8
PART_ROWS = 2000
PART_AGE = timedelta(seconds=60)
GONE_ON_WITHIN = timedelta(days=7)
"""What was verified longer ago is read again."""


@dataclass(frozen=True)
class Work:
    """The store that is worked on, and everything that takes."""

    store: Store
    writer: StoreWriter
    backend: Backend
    clock: Callable[[], datetime]
    progress: Progress
    stop: Stop = field(default_factory=Stop)

    @property
    def state(self) -> Path:
        return self.backend.folder


_Record = Callable[[str, Sequence[Mapping[str, Any]]], None]


class _Item(Protocol):
    """What is acted on."""

    @property
    def key(self) -> str: ...


Item = TypeVar("Item", bound=_Item)


@contextmanager
def alone(work: Work, what: str, **told: Any) -> Iterator[tuple[_Record, Journal]]:
    """The journal and the store's lock, as an apply has them, while entries are written: gives the
    function that writes them, for an event of the journal. `told`: what else the record says of
    this run. Raises Locked; no more is written once the lock was lost."""
    journal = Journal(work.backend, uuid.uuid4().hex[:12], "-", work.clock)
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
        if spread := sorted(journal.ledger().spread):
            raise Locked(
                f"workers of the run {spread[0]} may still be at work",
                hint="give its plan to `retainer apply` once more: that waits for them",
            )
        owner = owner_of(journal, what)
        known = known_stores(work.state)
        expected = {name: known[work.store.place]} if work.store.place in known else {}
        with locked({name: work.writer}, owner, expected, lambda _: lost.set()) as held:
            if name in held.unusable:
                raise held.unusable[name]
            lock = held.locks[name]
            identity = identified(work.writer, None)
            if identity is not None:
                remember_stores(work.state, known, {work.store.place: identity.id})
            open_intents = journal.ledger().open_intents()
            journal.write("start", what=what, store=name, host=owner.host, **told)
            announced = [each for each in open_intents if each.store == name] if lock.holds else []
            settled = settle(
                announced,
                [],
                {name: work.writer} if lock.holds else {},
                journal,
                work.clock(),
                work.stop.check,
            )
            record("settled", settled.entries)
            yield record, journal
            journal.write("end", what=what, finished=not lost.is_set())
            if (
                lock.holds
                and lost_record(anchors_in(work.writer)[1], journal.state, journal.goes_through)
                is None
            ):
                keep_anchor(work.writer, journal, owner.host, work.clock())
    finally:
        journal.close()


def _each(
    work: Work, name: str, act: Callable[[Item], Any], objects: Iterable[Item], census: Census
) -> Iterator[tuple[Item, Any]]:
    """What comes of acting on objects, several at a time, in their order; what fails is told of
    that object alone."""

    def acted(seen: Item) -> tuple[Item, Any]:
        work.stop.check()
        try:
            return seen, act(seen)
        except RetainerError as error:
            census.failed.append(
                Trouble(name, seen.key, work.store.name, error.message, error.hint)
            )
            return seen, None
        finally:
            work.progress(work.store.name, 1)

    with ThreadPoolExecutor(WORKERS) as pool:
        going: deque[Future[tuple[Item, Any]]] = deque()
        try:
            for seen in objects:
                going.append(pool.submit(acted, seen))
                if len(going) >= 4 * WORKERS:
                    yield going.popleft().result()
            while going:
                yield going.popleft().result()
        finally:
            for each in going:
                each.cancel()


class _Recorded:
    """Entries that are written as they come: some thousand at a time or every minute, each time
    alone in the store. What was written stands, whatever ends the run."""

    def __init__(
        self, work: Work, what: str, event: str, then: Callable[[Journal], None] = lambda _: None
    ) -> None:
        """`then`: what is done each time, with the store's lock, once all is written."""
        self._work, self._what, self._event, self._then = work, what, event, then
        self._rows: dict[str, list[Mapping[str, Any]]] = {event: []}
        self._since, self._waits = work.clock(), False
        self.count = 0

    def add(self, rows: Iterable[Mapping[str, Any]], event: str = "") -> None:
        """Where an apply has the store, or it does not answer, they wait for a minute. `event`:
        where it is not that of most."""
        self._rows.setdefault(event or self._event, []).extend(rows)
        late = self._work.clock() - self._since > PART_AGE
        if late or (sum(map(len, self._rows.values())) >= PART_ROWS and not self._waits):
            self._waits = True
            with suppress(Locked, StoreFailed):
                self.write()
                self._waits = False
            self._since = self._work.clock()

    def write(self) -> None:
        """Raises Locked, StoreFailed."""
        with alone(self._work, self._what) as (record, journal):
            for event in list(self._rows):
                record(event, self._rows[event])
                self.count += len(self._rows.pop(event))
            self._then(journal)


# ── made anew ─────────────────────────────────────────────────────────────────────────────────────


def rebuild(work: Work) -> Census:
    """Make the catalog again from the objects alone: from their metadata, their manifests, and the
    checksums that the store computes.

    What whole parts still say of objects as they lie there stands, also that one is broken; damaged
    parts are deleted once the new ones are there. What does not explain itself is counted, and left
    alone.
    """
    census = Census()
    recorded = _Recorded(work, "catalog rebuild", "rebuilt")
    with _listed(work, spoilt_parts=True) as (connection, damaged):
        connection.execute(
            "CREATE TABLE known AS SELECT key FROM objects JOIN entry USING (key) WHERE "
            "entry.object_size = objects.size AND entry.version = objects.version "
            "AND deleted IS NOT TRUE"
        )
        of_many = {"key": "VARCHAR"}
        connection.execute(create("of_many", of_many))
        work.writer.conditions().find_out("checksum")  # only what is proven is believed
        manifests = _objects(connection, f"FROM objects WHERE ends_with(key, '/{MANIFEST}')")
        found = _each(work, "rebuild", partial(_of_manifest, work), manifests, census)
        for rows in _together(row for _, told in found for row in told or ()):
            keys = [row["key"] for row in rows]
            fill(connection, "of_many", of_many, ({"key": key} for key in keys))
            known = connection.execute(
                "SELECT key FROM known WHERE key IN (SELECT unnest(?::VARCHAR[]))", [keys]
            ).fetchall()
            known_keys = {key for (key,) in known}
            recorded.add([row for row in rows if row["key"] not in known_keys])
        left = "FROM objects ANTI JOIN known USING (key) ANTI JOIN of_many USING (key)"
        singles = 0
        for _, rows in _each(
            work, "rebuild", partial(_of_metadata, work), _objects(connection, left), census
        ):
            recorded.add(rows or ())
            singles += len(rows or ())
        census.looked, census.known, many = only_row(
            connection,
            "SELECT (SELECT count(*) FROM objects), (SELECT count(*) FROM known), "
            "(SELECT count(DISTINCT key) FROM of_many ANTI JOIN known USING (key))",
        )

    recorded.write()
    if damaged:
        with alone(work, "catalog rebuild"):
            for seen in damaged:
                work.writer.delete(seen)
                census.said.append(f"{seen.key} was damaged, and is gone")
    census.recorded = recorded.count
    census.unknown = census.looked - census.known - many - singles - len(census.failed)
    return census


def _together(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Rows by the thousand."""
    each = iter(rows)
    while few := list(islice(each, PART_ROWS)):
        yield few


def explained(work: Work, seen: Seen) -> Sequence[Mapping[str, Any]]:
    """The catalog's entries of an object that says of itself what it is: one, or those of all that
    its manifest lists; none where it does not. Raises StoreFailed."""
    if seen.key.endswith(f"/{MANIFEST}"):
        return _of_manifest(work, seen) or ()
    return _of_metadata(work, seen)


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
    kind = kind_of(record["type"], seen.key)
    odd = None if look.seen.archived else _oddity(work, look, kind)
    told = (recorded_in(look.metadata) or {}).get("partial")
    return [record | _entry(work, look) | {"partial": odd or told}]


def _oddity(work: Work, look: Look, kind: str) -> str | None:
    """What of an object's bytes speaks against its being what it should be, so that it was kept as
    a partial copy: by their beginning, and by the end of a zip. Raises StoreFailed."""
    counted = Counted(work.writer.read(look.seen), kind)
    try:
        for _ in counted:
            if kind != "zip":
                break
    except SourceFailed as error:
        return error.message
    return counted.odd


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
    # Of a partial copy nobody knows which members were odd: the next copy may replace any.
    partial = {"partial": next(iter(manifest.partial), None)}
    return [
        *(member | partial for member in members),
        {name: manifest.record.get(name) for name in (*RECORD, *OF_THE_COPY)}
        | {"asset_id": manifest.asset_id}
        | partial
        | whole,
    ]


def _record_in(look: Look | None) -> dict[str, Any] | None:
    """The record of the asset that an object carries, marked where facts were left out for want of
    room."""
    found = recorded_in(look.metadata if look else None)
    if found is None or not isinstance(found.get("asset_id"), str):
        return None
    unknown = [*(found.get("not_known") or []), *(found.get("left_out") or [])]
    return {name: found.get(name) for name in (*RECORD, *OF_THE_COPY)} | {
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
    recorded = _Recorded(work, "adopt", "adopted")
    with _listed(work) as (connection, _):
        known = _known_to_100ms(facts, settings)
        work.writer.conditions().find_out("checksum")  # only what is proven is believed

        def act(seen: Seen) -> dict[str, Any] | None:
            return _by_metadata(work, seen) or _by_shape(work, seen, known)

        objects = _objects(connection, "FROM objects ANTI JOIN entry USING (key)")
        for _, row in _each(work, "adopt", act, objects, census):
            census.looked += 1
            recorded.add([row] if row else [])
    recorded.write()
    census.recorded = recorded.count
    census.unknown = census.looked - recorded.count - len(census.failed)
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


@dataclass(frozen=True, slots=True)
class _Copy:
    """An object as it lies there, and what the catalog says of it."""

    seen: Seen
    entry: Mapping[str, Any]

    @property
    def key(self) -> str:
        return self.seen.key


def scrub(work: Work, percent: float) -> Census:
    """Read copies back and compare them with their checksums; `percent` of them, drawn anew each
    time. What is broken is partial from then on. All of them are read in the order of their keys,
    and a run that was cut is gone on with within a week of its beginning.

    What cannot be read is told, and is not broken for that; nor is what differs only once. What the
    catalog names and is not there any more, or is another object by now, is told too, whatever the
    percentage. What is not locked for as long as it was is told, and the next plan locks it again.
    """
    census = Census()
    so_far = _begun(work, census) if percent >= 100 else _SoFar(work.clock())
    with _listed(work) as (connection, _):
        _compare(work, connection, census)
        # What was copied since is read whatever its key.
        left = "NOT archived AND (key > $1 OR copied_at >= $2)"
        row = connection.execute(
            f"CREATE TABLE drawn AS FROM same WHERE {left} ORDER BY random() "
            f"LIMIT (SELECT ceil(count(*) * $3 / 100) FROM same WHERE {left})",
            [so_far.upto, so_far.began.replace(tzinfo=None), min(percent, 100.0)],
        ).fetchone()
        census.looked = row[0] if row else 0
        what = f"verify {census.looked} of {census.known} objects"
        then = partial(so_far.write, work) if percent >= 100 else lambda _: None
        recorded = _Recorded(work, what, "broken", then)
        check = partial(_otherwise, work, census)
        for copy, found in _each(work, "verify", check, _drawn(connection), census):
            so_far.read(copy.key, well=found is not None)
            if not found:
                recorded.add([])
            elif "broken" in found:
                census.broken.append(copy.key)
                recorded.add([_with(work, copy, found)])
            else:
                census.unlocked.append(copy.key)
                recorded.add([_with(work, copy, found)], "unlocked")
    so_far.upto = ""
    recorded.write()
    census.broken.sort()
    census.unlocked.sort()
    return census


@dataclass
class _SoFar:
    """How far a verify of all has come: everything up to a key was read, since it began."""

    began: datetime
    upto: str = ""
    stuck: bool = False
    """Something could not be read, and is to be read again: it does not count as read."""

    def read(self, key: str, *, well: bool) -> None:
        self.stuck = self.stuck or not well
        if not self.stuck:
            self.upto = max(self.upto, key)

    def write(self, work: Work, journal: Journal) -> None:
        journal.write(
            "verified",
            store=work.store.name,
            identity=known_stores(work.state).get(work.store.place),
            began=write_moment(self.began),
            upto=self.upto,
        )


def _begun(work: Work, census: Census) -> _SoFar:
    """The verify of all that was cut in just this store, if it began within a week; else one that
    begins now. What it has found broken is told once more."""
    now, identity = work.clock(), known_stores(work.state).get(work.store.place)
    told = read_ledger(work.backend).verified.get(work.store.name)
    if identity is None or told is None or not told.upto or told.identity != identity:
        return _SoFar(now)
    began = read_moment(told.began)
    if began is None or now - began > GONE_ON_WITHIN:
        return _SoFar(now)
    found = _SoFar(began, told.upto)
    census.broken += told.broken
    census.unlocked += told.unlocked
    census.said.append(
        f"this goes on behind {found.upto}, where a run ended that began at "
        f"{began:%Y-%m-%d %H:%M} UTC; what lay before was read then"
    )
    return found


def _compare(work: Work, connection: duckdb.DuckDBPyConnection, census: Census) -> None:
    """Makes the table `same`: the objects that are what the catalog says of them. What is missing,
    replaced or archived is counted."""
    same = (
        "entry.object_size = objects.size AND "
        f"{same_version(work.store, 'entry.version', 'objects.version')}"
    )
    connection.execute(
        "CREATE TABLE same AS SELECT objects.key, objects.size, objects.version, archived, "
        "entry.copied_at, "
        f"to_json(entry) AS told FROM objects JOIN entry USING (key) WHERE {same} "
        "AND broken IS NOT TRUE"
    )
    row = connection.execute("SELECT count(*), count(*) FILTER (archived) FROM same").fetchone()
    census.known, census.archived = row or (0, 0)
    # What apply deleted has an entry that says so, or at least a line in this journal, where a run
    # died before it could be written.
    gone = {"key": "VARCHAR", "deleted_at": "TIMESTAMP"}
    connection.execute(create("gone", gone))
    fill(
        connection,
        "gone",
        gone,
        (
            {"key": key, "deleted_at": at.replace("T", " ").removesuffix("Z")}
            for key, (at, _, _) in read_ledger(work.backend).untold.get(work.store.name, {}).items()
        ),
    )
    missing = connection.execute("""
        SELECT key FROM entry ANTI JOIN objects USING (key) ANTI JOIN gone
            ON gone.key = entry.key AND deleted_at + INTERVAL 1 SECOND >= copied_at
        WHERE deleted IS NOT TRUE ORDER BY key
    """).fetchall()
    census.missing = [key for (key,) in missing]
    replaced = connection.execute(f"""
        SELECT key FROM objects JOIN entry USING (key) WHERE NOT ({same})
            AND deleted IS NOT TRUE AND broken IS NOT TRUE ORDER BY key
    """).fetchall()
    census.replaced = [key for (key,) in replaced]


def _drawn(connection: duckdb.DuckDBPyConnection) -> Iterator[_Copy]:
    cursor = connection.cursor()
    cursor.execute("SELECT key, size, version, told FROM drawn ORDER BY key")
    while rows := cursor.fetchmany(1000):
        for key, size, version, told in rows:
            yield _Copy(Seen(key, size, version), json.loads(told))


def _is_broken(work: Work, census: Census, copy: _Copy) -> bool:
    """Whether it differs from what was recorded, twice. Raises StoreFailed."""
    for _ in range(2):
        census.bytes += copy.seen.size
        if copy.entry["sha256"] is not None:
            same = digest_of(work.writer, Look(copy.seen)).sha256 == copy.entry["sha256"]
        else:
            recorded = Checksum.found_in(copy.entry)
            same = checksum_of(work.writer, Look(copy.seen), recorded.kind) == recorded
        if same:
            return False
    return True


def _otherwise(work: Work, census: Census, copy: _Copy) -> dict[str, Any]:
    """What the catalog must say otherwise of an object; nothing where it is as it was recorded.
    Raises StoreFailed."""
    if _is_broken(work, census, copy):
        return {"broken": True}
    recorded = read_lock(copy.entry["locked_until"])
    if recorded is None or recorded <= work.clock():
        return {}
    look = work.writer.look(copy.key)
    if look is None or look.seen.version != copy.seen.version:
        return {}
    end = look.seen.retained_until
    if (end is None and not look.seen.lock_read) or (end is not None and end >= recorded):
        return {}
    return {"locked_until": write_lock(end), "lock_mode": look.seen.lock_mode}


def _with(work: Work, copy: _Copy, found: Mapping[str, Any]) -> dict[str, Any]:
    at = work.clock().strftime("%Y-%m-%d %H:%M:%S.%f")
    return dict(copy.entry) | {"copied_at": at} | dict(found)


def _objects(connection: duckdb.DuckDBPyConnection, query: str) -> Iterator[Seen]:
    """Read as they are needed."""
    cursor = connection.cursor()
    cursor.execute(f"SELECT key, size, version {query} ORDER BY key")
    while rows := cursor.fetchmany(1000):
        for row in rows:
            yield Seen(*row)


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
