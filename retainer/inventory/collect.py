"""Ask 100ms and every store what there is. Each listing finishes, or is marked unfinished with the
reason."""

from __future__ import annotations

import tempfile
import time
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import duckdb

from retainer.database import fill, fill_from, rows_of
from retainer.errors import (
    CredentialsRefused,
    ListingBroken,
    PoliciesWrong,
    RetainerError,
    SourceFailed,
    StoreFailed,
)
from retainer.inventory.asset_list import list_assets
from retainer.inventory.bookmark import forget, held, spool_of
from retainer.inventory.bucket_report import look_since, read_report, take_report
from retainer.inventory.facts import OBJECTS, ROOMS, assemble, is_text, stage, two_facts_are_none
from retainer.inventory.listing import Listing, Progress, spooled
from retainer.inventory.store_list import list_store
from retainer.model.anchors import Anchor, write_anchors
from retainer.model.catalog import CATALOG, CATALOG_PREFIX, PART_BYTES, RECORD, is_part, is_whole
from retainer.model.lifecycle import write_rules
from retainer.model.printable import printable
from retainer.model.rule import ASSET_TYPES
from retainer.model.setting import Settings
from retainer.model.tables import LISTINGS, create
from retainer.own import anchors_in, identity_in, must_be
from retainer.ports import InventoryReports, Recordings, Rooms, Seen, StoreReader
from retainer.private import private_folder
from retainer.whole import whole

MISSED_FROM = 20
"""So many must be gone from a list before a share of it is judged."""
LOOK_UPS, LOOK_UP_SECONDS = 1000, 60.0
"""So many rooms (and templates) are asked for one by one, and for so long."""
NOTHING: Mapping[str, tuple[str, int, str]] = MappingProxyType({})
NO_REPORTS: Mapping[str, InventoryReports] = MappingProxyType({})
Judge = Callable[["Mapping[str, Anchor] | None"], "str | None"]


def collect(
    connection: duckdb.DuckDBPyConnection,
    settings: Settings,
    recordings: Recordings,
    readers: Sequence[StoreReader],
    *,
    rooms_asked: bool,
    cache: Path,
    clock: Callable[[], datetime],
    known: Mapping[str, str] | None = None,
    judge: Judge = lambda _anchors: None,
    seen: Mapping[str, tuple[str, int, str]] = NOTHING,
    meant: Collection[str] = (),
    reports: Mapping[str, InventoryReports] = NO_REPORTS,
    lists: Path | None = None,
    record: str = "",
    progress: Progress = lambda _name, _rows: None,
) -> list[Listing]:
    """Fill the tables of facts. Every listing runs at the same time as the others; `cache` keeps
    catalog parts between runs.

    `known`: the identity that each store must have, by its name; `judge` says why a store's memory
    of journals speaks against this one's; `seen`: how many objects each list had when it was last
    seen, with the store's identity, by its name; `meant`: of which of them a person said that what
    is missing may be; `reports`: what tells of a store in place of a list, by its name;
    `lists`: a folder from which lists go on that were cut; `record`: where the record ends.

    Raises CredentialsRefused where 100ms refuses them, PoliciesWrong where two stores are one; any
    other failure leaves its listing marked unfinished.
    """
    stage(connection)
    with (
        tempfile.TemporaryDirectory(dir=private_folder()) as folder,
        held(lists or Path(folder) / "lists") as going,
        ThreadPoolExecutor(16) as pool,
    ):
        spools, age = Path(folder), timedelta(hours=settings.plan_age_hours)
        kinds = _kinds(recordings)
        jobs = [
            pool.submit(
                list_assets,
                recordings,
                kind,
                kinds,
                spool_of(going or spools, recordings.whose, kind),
                clock,
                progress,
                goes_on=age / 2 if going else None,
            )
            for kind in (None, *kinds)
        ]
        jobs += [
            pool.submit(
                _store,
                reader,
                spools / f"store-{number}",
                cache,
                clock,
                progress,
                (known or {}).get(reader.name),
                judge,
                reports=reports.get(reader.name),
                age=age,
                lists=going,
                bound=(settings.places.get(reader.name, ""), record),
            )
            for number, reader in enumerate(readers)
        ]
        if rooms_asked:
            jobs.append(pool.submit(_rooms, recordings, spools / "rooms", clock, progress))
        customer, skew = recordings.customer(), _skew(recordings, clock)
        listings = [job.result() for job in jobs]
        first = listings[0]
        first.customer, first.skew = customer, skew
        _one_place_each(listings)
        for listing in (*listings[1:], first):
            columns = {
                "assets": ("staged_assets", RECORD),
                "rooms": ("rooms", ROOMS),
                "store": ("objects", OBJECTS),
            }[listing.kind]
            if listing is first and kinds:
                columns = "others", RECORD
                connection.execute(create("others", RECORD))
            if listing.spool and listing.spool.stat().st_size:
                try:
                    fill_from(connection, *columns, [str(listing.spool)])
                except (duckdb.InvalidInputException, duckdb.ConversionException):
                    forget(listing.spool)
                    raise RetainerError(
                        f"the rows of {listing.name} that were kept cannot be read any more",
                        hint="they are removed: run it again",
                    ) from None
            if listing.report:
                take_report(connection, listing)
            if listing.parts:
                _read_parts(connection, listing)
        if kinds:
            first.objects = _add_others(connection)
        if twice := two_facts_are_none(connection):
            first.notes.append(
                f"{twice} assets were listed with two different sets of facts; what differs is not "
                "known"
            )
        stores = [each for each in listings if each.kind == "store"]
        for number, (reader, listing) in enumerate(zip(readers, stores, strict=True)):
            if listing.reported_at and not look_since(connection, reader, listing, settings):
                after = spools / f"after-{number}"
                _list_after_all(connection, reader, listing, after, clock, progress)
                listing.finished_at = clock()
        first.notes += _new_types(connection)
        for listing in listings:
            _miss(listing, seen, settings.limits.disappeared, meant)
        if rooms_asked and all(each.complete for each in listings if each.kind == "rooms"):
            first.notes += _look_up_rooms(connection, recordings)
        fill(connection, "listings", LISTINGS, (listing.row() for listing in listings))
        resumed = any(each.is_resumed for each in listings if each.kind == "assets")
        assemble(connection, settings, gone_on_with=resumed)
        for listing in listings:  # while nobody else may go on with them
            if listing.has_ended and listing.spool:
                forget(listing.spool)
    return listings


def _miss(
    listing: Listing,
    seen: Mapping[str, tuple[str, int, str]],
    most: float,
    meant: Collection[str] = (),
) -> None:
    """Leave a list unfinished in which too much is missing of what it had."""
    identity, objects, _ = seen.get(listing.name, ("", 0, ""))
    missing = objects - listing.objects
    if (
        listing.complete
        and identity in ("", listing.identity)
        and missing >= MISSED_FROM
        and 100 * missing > most * objects
    ):
        place = listing.name if listing.kind == "store" else "100ms"
        said = (
            f"{missing:,} of the {objects:,} that it had at the last apply are gone from it, and "
            "retainer did not delete them"
        )
        if listing.name in meant:
            listing.notes.append(f"{said}; a person said that this is meant")
            return
        listing.complete = False
        listing.notes.append(f"{said}: if that is meant, `--lift disappeared:{place}`")


def _kinds(recordings: Recordings) -> list[str]:
    """The types that are listed each by itself, at the same time: those that are known, and those
    that a first page shows. None of them where the server passes over what type is asked for, or
    refuses to be asked for one."""
    try:
        told = [row.get("type") for row in recordings.first_page()]
    except (ListingBroken, SourceFailed):
        return [*ASSET_TYPES]
    shown = {kind for kind in told if isinstance(kind, str) and kind and is_text(kind)}
    unseen = [kind for kind in ASSET_TYPES if kind not in shown] or [*ASSET_TYPES]
    try:
        if not recordings.honours_type(unseen[0]):
            return []
    except (ListingBroken, SourceFailed):
        return []
    return [*ASSET_TYPES, *sorted(shown - set(ASSET_TYPES))]


def _add_others(connection: duckdb.DuckDBPyConnection) -> int:
    """Add what the list of all types shows and those of one type do not; how many that are. What
    both show may have changed between them, and one answer is enough."""
    connection.execute("DELETE FROM others WHERE asset_id IN (SELECT asset_id FROM staged_assets)")
    connection.execute("INSERT INTO staged_assets FROM others")
    row = connection.execute("SELECT count(*) FROM others").fetchone()
    connection.execute("DROP TABLE others")
    return row[0] if row else 0


def _new_types(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """A sentence where there are recordings of types that are not known here."""
    known = ", ".join(f"'{kind}'" for kind in ASSET_TYPES)
    counts = connection.execute(
        f"SELECT type, count(DISTINCT asset_id) FROM staged_assets WHERE type NOT IN ({known}) "
        "GROUP BY type ORDER BY type"
    ).fetchall()
    if not counts:
        return []
    told = ", ".join(f"{printable(kind)[:60]} ({count:,})" for kind, count in counts[:20])
    more = f" and {len(counts) - 20} more" if len(counts) > 20 else ""
    return [f"100ms lists types that this retainer does not know: {told}{more}"]


def _look_up_rooms(connection: duckdb.DuckDBPyConnection, recordings: Recordings) -> list[str]:
    """Ask one by one for rooms that recordings name and the list did not show, and for the names of
    templates that rooms have only the id of; and a sentence of what stays unknown."""
    ends = time.monotonic() + LOOK_UP_SECONDS

    def looked_up(
        ids: str, one: Callable[[str], Mapping[str, Any] | None]
    ) -> Iterator[Mapping[str, Any]]:
        wanted = [row[0] for row in connection.execute(f"{ids} LIMIT {LOOK_UPS}").fetchall()]

        def asked(each: str) -> Mapping[str, Any] | None:
            if time.monotonic() > ends:
                return None
            try:
                return one(each)
            except RetainerError:  # also where a right is lacking for just this one
                return None

        with ThreadPoolExecutor(8) as pool:
            for each, found in zip(wanted, pool.map(asked, wanted), strict=True):
                if found is not None and found.get("id", each) == each:
                    yield {**found, "id": each}

    missing = (
        "SELECT DISTINCT room_id FROM staged_assets WHERE room_id IS NOT NULL AND room_id NOT IN "
        "(SELECT room_id FROM rooms) ORDER BY room_id"
    )
    found = [room for raw in looked_up(missing, recordings.room) if (room := _room(raw))]
    fill(connection, "rooms", ROOMS, found)
    nameless = (
        "SELECT DISTINCT template_id FROM rooms WHERE template IS NULL AND template_id IS NOT NULL "
        "ORDER BY template_id"
    )
    for raw in looked_up(nameless, recordings.template):
        connection.execute(
            "UPDATE rooms SET template = ? WHERE template_id = ? AND template IS NULL",
            [_template(raw), raw["id"]],
        )
    row = connection.execute(
        "SELECT count(DISTINCT asset_id), count(DISTINCT room_id) FROM staged_assets WHERE room_id "
        "IS NOT NULL AND room_id NOT IN (SELECT room_id FROM rooms)"
    ).fetchone()
    if row is None or not row[0]:
        return []
    return [
        f"100ms does not tell the room of {row[0]:,} listed recordings (different rooms: "
        f"{row[1]:,})"
    ]


def _skew(source: Recordings | StoreReader, clock: Callable[[], datetime]) -> float | None:
    """How far a server's clock is ahead of ours, in seconds; None where it cannot be asked."""
    try:
        return (source.server_time() - clock()).total_seconds()
    except (RetainerError, ValueError):
        return None


ONE_STORE = (
    "give each a place of its own; where one is a copy of the other, remove "
    "_retainer/store.json from the copy"
)


def _one_place_each(listings: Sequence[Listing]) -> None:
    """Raises PoliciesWrong where two stores have one identity: a delete in the one would take what
    the other keeps."""
    seen: dict[str, str] = {}
    for listing in listings:
        if (
            listing.identity is not None
            and (other := seen.setdefault(listing.identity, listing.name)) != listing.name
        ):
            raise PoliciesWrong(
                f"`{other}` and `{listing.name}` are one store, under two names", hint=ONE_STORE
            )


def collect_store(
    connection: duckdb.DuckDBPyConnection,
    reader: StoreReader,
    cache: Path,
    clock: Callable[[], datetime],
    *,
    spoilt_parts: bool = False,
) -> list[Seen]:
    """Fill the tables `objects` and `catalog` from one store, and make the view `entry`: the newest
    entry of each key.

    With `spoilt_parts` damaged parts of the catalog are passed over, and given back. Raises
    ListingBroken when anything else could not be read.
    """
    stage(connection)
    damaged: list[Seen] = []
    with tempfile.TemporaryDirectory(dir=private_folder()) as folder:
        listing = _store(
            reader,
            Path(folder) / "store",
            cache,
            clock,
            lambda _name, _rows: None,
            damaged=damaged if spoilt_parts else None,
        )
        if listing.spool and listing.spool.stat().st_size:
            fill_from(connection, "objects", OBJECTS, [str(listing.spool)])
        if listing.parts:
            _read_parts(connection, listing)
    if not listing.complete:
        raise ListingBroken(
            "; ".join(listing.notes) or f"the listing of {reader.name} did not finish"
        )
    connection.execute(
        "CREATE VIEW entry AS FROM catalog QUALIFY row_number() OVER (PARTITION BY key ORDER BY "
        "copied_at DESC, version) = 1"
    )
    return damaged


def _rooms(
    recordings: Recordings, path: Path, clock: Callable[[], datetime], progress: Progress
) -> Listing:
    listing = Listing("100ms rooms", "rooms", clock())

    def rows() -> Iterator[dict[str, Any]]:
        for enabled in (True, False):
            for raw in recordings.rooms(enabled=enabled):
                row = _room(raw)
                if row is None:
                    listing.strays += 1
                else:
                    yield row

    with path.open("w", encoding="utf-8") as spool:
        spooled(listing, spool, rows(), progress)
    listing.finished_at = clock()
    return listing


def _room(raw: Mapping[str, Any]) -> dict[str, Any] | None:
    """A room as 100ms gives it -> a row; None where it cannot be read."""
    texts = {name: raw.get(name) for name in ("id", "name", "template", "template_id")}
    if not texts["id"] or not all(
        text is None or (isinstance(text, str) and is_text(text)) for text in texts.values()
    ):
        return None
    return {
        "room_id": texts["id"],
        "room": _in_one_form(texts["name"]),
        "template": _in_one_form(texts["template"]),
        "template_id": texts["template_id"] or None,
    }


def _template(raw: Mapping[str, Any]) -> str | None:
    """The name of a template as 100ms gives it; None where it cannot be read."""
    name = raw.get("name")
    return _in_one_form(name) if isinstance(name, str) and is_text(name) else None


def room_of(source: Rooms, room_id: str) -> dict[str, Any] | None:
    """A room that is asked for by its id, with the name of its template; None where 100ms does not
    know it. Raises SourceFailed."""
    row = _room(source.room(room_id) or {})
    if row and row["room_id"] == room_id:
        if row["template"] is None and row["template_id"] is not None:
            row["template"] = _template(source.template(row["template_id"]) or {})
        return row
    return None


def _in_one_form(name: str | None) -> str | None:
    """A name in the form in which names are compared: what looks the same may be written in several
    ways."""
    return unicodedata.normalize("NFC", name) if name else None


def _store(
    reader: StoreReader,
    path: Path,
    cache: Path,
    clock: Callable[[], datetime],
    progress: Progress,
    expected: str | None = None,
    judge: Judge = lambda _anchors: None,
    damaged: list[Seen] | None = None,
    reports: InventoryReports | None = None,
    age: timedelta = timedelta(days=1),
    lists: Path | None = None,
    bound: Sequence[str] = (),
) -> Listing:
    listing = Listing(reader.name, "store", clock())
    identity: Seen | None = None
    try:
        listing.can_lock = True
        listing.can_lock = reader.can_lock()
        listing.keeps_deleted = reader.keeps_deleted()
        listing.keeps_removed = reader.keeps_removed()
        rules = reader.lifecycle()
        listing.lifecycle = None if rules is None else write_rules(rules)
        identity = _recognise(reader, listing, expected, judge, clock())
        listing.parts = _catalog_parts(reader, cache / reader.name, damaged)
        if moved := reader.unfinished():
            aside = f"{len(moved)} objects are half deleted since a run died, such as {moved[0]}"
            listing.said.append(f"{aside}; the next apply ends that, or puts them back")
    except CredentialsRefused as error:
        listing.refused = True
        listing.notes.append(error.told)
    except RetainerError as error:
        listing.notes.append(error.told)

    readable = not listing.notes
    is_reported = (
        reports is not None
        and readable
        and read_report(
            listing,
            reports,
            path.with_name(f"{path.name}-report"),
            clock(),
            age,
            identity,
            progress,
        )
    )
    if not listing.refused and not is_reported:
        goes_on = None
        if lists and readable and listing.identity:
            # With another catalog or record than the rows of before were listed beside, what was
            # copied since would seem to be missing.
            parts = [part.name for part in listing.parts]
            whose = (reader.name, *bound, listing.identity, parts, listing.can_lock)
            path = spool_of(lists, repr(whose), "store")
            goes_on = age / 2
        list_store(reader, listing, path, clock, progress, goes_on=goes_on)
    listing.skew = _skew(reader, clock) if listing.complete else None
    listing.complete = listing.complete and readable
    listing.notes += listing.said
    listing.finished_at = clock()
    return listing


def _list_after_all(
    connection: duckdb.DuckDBPyConnection,
    reader: StoreReader,
    listing: Listing,
    path: Path,
    clock: Callable[[], datetime],
    progress: Progress,
) -> None:
    """List a store in place of its report, which is too old to save anything."""
    connection.execute("DELETE FROM objects WHERE store = ?", [listing.name])
    progress(listing.name, -listing.objects)
    listing.objects, listing.reported_at, listing.complete = 0, None, False
    listing.locks_unread = False
    listing.said = ["it is listed: too much is newer than its report to be looked at one by one"]
    list_store(reader, listing, path, clock, progress)
    listing.notes += listing.said
    if path.stat().st_size:
        fill_from(connection, "objects", OBJECTS, [str(path)])


def _recognise(
    reader: StoreReader, listing: Listing, expected: str | None, judge: Judge, now: datetime
) -> Seen | None:
    """Which store this is, and what it remembers; the object that says which, where there is one.
    Raises StoreFailed where it is not the one that is known: an unmounted disk looks empty."""
    found = identity_in(reader)
    if found is not None:
        listing.identity, listing.customer = found[1].id, found[1].customer
    must_be(reader.name, found[1] if found else None, expected)
    look, anchors = anchors_in(reader, or_hidden=True)
    if look is not None or anchors is None:
        listing.lost_record = judge(anchors)
        listing.anchors = write_anchors(anchors, now).decode() if anchors is not None else None
    return found[0].seen if found else None


def _catalog_parts(reader: StoreReader, cache: Path, damaged: list[Seen] | None) -> list[Path]:
    """Every catalog part of a store as a local file, checked against the digest in its name.
    `damaged`: takes those that are not whole. A part that went while it was to be read was merged
    by another run: the list is read anew.

    Raises ListingBroken where there is no list to take them, StoreFailed.
    """
    for _ in range(3):
        with suppress(_Merged):
            return _parts_listed(reader, cache, damaged)
    raise ListingBroken(f"the catalog of {reader.name} changes faster than it can be read")


class _Merged(Exception):
    """A part that was listed is not there any more."""


def _parts_listed(reader: StoreReader, cache: Path, damaged: list[Seen] | None) -> list[Path]:
    cache.mkdir(parents=True, exist_ok=True)
    parts: list[Path] = []
    for seen in reader.list(CATALOG_PREFIX):
        name = seen.key[len(CATALOG_PREFIX) :]
        if not is_part(name):
            if damaged is not None:
                continue  # nobody knows whose it is, so it is left alone
            raise ListingBroken(
                f"{reader.name}: `{seen.key}` is no part of a catalog",
                hint="who wrote it? remove it by hand",
            )
        path = cache / name
        if not (path.is_file() and is_whole(name, path.read_bytes())):
            if seen.size > PART_BYTES:
                raise ListingBroken(
                    f"{reader.name}: the catalog part `{seen.key}` is longer than any that "
                    "retainer writes"
                )
            try:
                content = b"".join(reader.read(seen))
            except StoreFailed:
                if reader.look(seen.key) is None:
                    raise _Merged from None
                raise
            if not is_whole(name, content) and not is_whole(
                name, content := b"".join(reader.read(seen))
            ):
                if damaged is not None:
                    damaged.append(seen)
                    continue
                raise ListingBroken(f"{reader.name}: the catalog part `{seen.key}` is damaged")
            with whole(path) as made:
                made.write_bytes(content)
        parts.append(path)
    for old in cache.iterdir():
        if old not in parts and is_part(old.name):
            old.unlink(missing_ok=True)  # it was merged, and may tell of what was erased since
    return sorted(parts)


def _read_parts(connection: duckdb.DuckDBPyConnection, listing: Listing) -> None:
    """The entries of a store's catalog, which are its own by its identity, whatever it was called
    when they were written."""
    known = ", ".join(f"'{name}'" for name in CATALOG)
    try:
        # A part of an older retainer lacks columns, one of a newer has more.
        connection.execute("CREATE OR REPLACE TEMP TABLE entries AS FROM catalog LIMIT 0")
        for some in rows_of(listing.parts):
            connection.execute(
                f"INSERT INTO entries BY NAME SELECT COLUMNS(lambda name: name IN ({known})) FROM "
                f"{some}"
            )
        if connection.execute(
            "FROM entries WHERE (key IS NULL OR version IS NULL OR asset_id IS NULL) LIMIT 1"
        ).fetchall():
            raise duckdb.Error("it has entries without a key, a version or an asset")
        connection.execute("UPDATE entries SET store = ?", [listing.name])
        own = "store_id IS NULL OR store_id IS NOT DISTINCT FROM ?"
        connection.execute(f"INSERT INTO catalog FROM entries WHERE {own}", [listing.identity])
        others = connection.execute(
            f"SELECT count(*) FROM entries WHERE NOT ({own})", [listing.identity]
        ).fetchone()
        if others and others[0]:
            listing.notes.append(
                f"{others[0]:,} entries of its catalog are of another store: `retainer catalog "
                f"rebuild {listing.name}`"
            )
    except duckdb.Error as error:
        listing.complete = False
        listing.notes.append(
            f"{listing.name}: the catalog cannot be read: {str(error).splitlines()[0]}"
        )
