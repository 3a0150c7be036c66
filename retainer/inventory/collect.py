"""Ask 100ms and every store what there is. Each listing finishes, or is marked unfinished with the reason."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from retainer.database import fill, fill_from
from retainer.errors import CredentialsRefused, ListingBroken, RetainerError, SourceFailed
from retainer.inventory.facts import OBJECTS, ROOMS, assemble, is_text, read_asset, stage
from retainer.model.catalog import CATALOG, CATALOG_PREFIX, RECORD, is_part, is_whole
from retainer.model.rule import ASSET_TYPES
from retainer.model.setting import Settings
from retainer.model.tables import LISTINGS
from retainer.ports import Recordings, Seen, StoreReader

Progress = Callable[[str, int], None]
"""Told the name of a listing and how many more rows of it have come."""


@dataclass
class Listing:
    """How one listing went; `note` says why it did not finish, in words without secrets."""

    name: str
    kind: str
    started_at: datetime
    finished_at: datetime | None = None
    complete: bool = False
    can_lock: bool = False
    objects: int = 0
    bytes: int = 0
    strays: int = 0
    notes: list[str] = field(default_factory=list)
    spool: Path | None = None
    parts: list[Path] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        def text(moment: datetime | None) -> str | None:
            return moment.strftime("%Y-%m-%d %H:%M:%S.%f") if moment else None

        return dict.fromkeys(LISTINGS) | {
            "name": self.name, "kind": self.kind, "complete": self.complete, "can_lock": self.can_lock, "started_at": text(self.started_at),
            "finished_at": text(self.finished_at), "objects": self.objects, "bytes": self.bytes, "strays": self.strays, "stray_bytes": 0,
            "note": "; ".join(self.notes) or None,
        }  # fmt: skip


def collect(
    connection: duckdb.DuckDBPyConnection,
    settings: Settings,
    recordings: Recordings,
    readers: Sequence[StoreReader],
    *,
    rooms_asked: bool,
    cache: Path,
    clock: Callable[[], datetime],
    progress: Progress = lambda _name, _rows: None,
) -> list[Listing]:
    """Fill the tables of facts. Every listing runs at the same time as the others; `cache` keeps catalog parts between runs.

    Raises CredentialsRefused; any other failure leaves its listing marked unfinished.
    """
    stage(connection)
    with tempfile.TemporaryDirectory(prefix="retainer-") as folder, ThreadPoolExecutor(16) as pool:
        spools = Path(folder)
        kinds = list(ASSET_TYPES)
        first = Listing("100ms types", "assets", clock(), complete=True)
        try:
            shown = (row.get("type") for row in recordings.first_page())
            kinds += sorted({kind for kind in shown if isinstance(kind, str) and kind and is_text(kind)} - set(kinds))
        except (ListingBroken, SourceFailed) as error:
            first.complete = False
            first.notes.append(f"types that 100ms added lately are not known: {error.message}")
        first.finished_at = clock()
        jobs = [pool.submit(_assets, recordings, kind, spools / f"assets-{number}", clock, progress) for number, kind in enumerate(kinds)]
        jobs += [pool.submit(_store, reader, spools / f"store-{number}", cache, clock, progress) for number, reader in enumerate(readers)]
        if rooms_asked:
            jobs.append(pool.submit(_rooms, recordings, spools / "rooms", clock, progress))
        listings = [first, *(job.result() for job in jobs)]
        for listing in listings:
            columns = {"assets": ("staged_assets", RECORD), "rooms": ("rooms", ROOMS), "store": ("objects", OBJECTS)}[listing.kind]
            if listing.spool and listing.spool.stat().st_size:
                fill_from(connection, *columns, [str(listing.spool)])
            if listing.parts:
                _read_parts(connection, listing)
    if unknown := set(kinds) - set(ASSET_TYPES):
        first.notes.append(f"100ms lists types that this retainer does not know: {', '.join(sorted(map(str, unknown)))}")
    fill(connection, "listings", LISTINGS, (listing.row() for listing in listings))
    assemble(connection, settings)
    return listings


def collect_store(
    connection: duckdb.DuckDBPyConnection, reader: StoreReader, cache: Path, clock: Callable[[], datetime], *, spoilt_parts: bool = False
) -> list[Seen]:
    """Fill the tables `objects` and `catalog` from one store, and make the view `entry`: the newest entry of each key.

    With `spoilt_parts` damaged parts of the catalog are passed over, and given back. Raises ListingBroken when anything else could not be read.
    """
    stage(connection)
    damaged: list[Seen] = []
    with tempfile.TemporaryDirectory(prefix="retainer-") as folder:
        listing = _store(reader, Path(folder) / "store", cache, clock, lambda _name, _rows: None, damaged if spoilt_parts else None)
        if listing.spool and listing.spool.stat().st_size:
            fill_from(connection, "objects", OBJECTS, [str(listing.spool)])
        if listing.parts:
            _read_parts(connection, listing)
    if not listing.complete:
        raise ListingBroken("; ".join(listing.notes) or f"the listing of {reader.name} did not finish")
    connection.execute("CREATE VIEW entry AS FROM catalog QUALIFY row_number() OVER (PARTITION BY key ORDER BY copied_at DESC, version) = 1")
    return damaged


def _spooled(listing: Listing, path: Path, rows: Iterable[Mapping[str, Any]], progress: Progress) -> None:
    """Write rows to a spool file; a listing that breaks keeps what came before, and is left unfinished."""
    listing.spool = path
    with path.open("w", encoding="utf-8") as spool:
        try:
            for row in rows:
                spool.write(json.dumps(row) + "\n")
                listing.objects += 1
                if listing.objects % 100 == 0:
                    progress(listing.name, 100)
            listing.complete = True
        except CredentialsRefused:
            raise
        except RetainerError as error:
            listing.notes.append(error.message)
    progress(listing.name, listing.objects % 100)


def _assets(recordings: Recordings, kind: str, path: Path, clock: Callable[[], datetime], progress: Progress) -> Listing:
    listing = Listing(f"100ms {kind}", "assets", clock())

    def rows() -> Iterator[dict[str, Any]]:
        for raw in recordings.assets(kind):
            row, told = read_asset(raw)
            if row is None or told:
                listing.strays += 1
                if len(listing.notes) < 5:
                    listing.notes.append(f"asset {row['asset_id'] if row else 'unknown'}: {', '.join(told)}")
            if row is None:
                nameless.append(True)
            else:
                yield row

    nameless: list[bool] = []
    _spooled(listing, path, rows(), progress)
    if nameless:
        # A row without an id could be any asset, so nothing is known to be missing from this listing.
        listing.complete = False
    listing.finished_at = clock()
    return listing


def _rooms(recordings: Recordings, path: Path, clock: Callable[[], datetime], progress: Progress) -> Listing:
    listing = Listing("100ms rooms", "rooms", clock())

    def rows() -> Iterator[dict[str, Any]]:
        for raw in recordings.rooms():
            room_id, name, template = raw.get("id"), raw.get("name"), raw.get("template")
            texts = [text for text in (room_id, name, template) if text is not None]
            if room_id and all(isinstance(text, str) and is_text(text) for text in texts):
                yield {"room_id": room_id, "room": name or None, "template": template or None}
            else:
                listing.strays += 1

    _spooled(listing, path, rows(), progress)
    listing.finished_at = clock()
    return listing


def _store(
    reader: StoreReader, path: Path, cache: Path, clock: Callable[[], datetime], progress: Progress, damaged: list[Seen] | None = None
) -> Listing:
    listing = Listing(reader.name, "store", clock())
    try:
        listing.can_lock = True
        listing.can_lock = reader.can_lock()
        listing.parts = _catalog_parts(reader, cache / reader.name, damaged)
    except CredentialsRefused:
        raise
    except RetainerError as error:
        listing.notes.append(error.message)

    def rows() -> Iterator[dict[str, Any]]:
        for seen in reader.list():
            if not is_text(seen.key):
                unreadable.append(seen.key)
                continue
            listing.bytes += seen.size
            yield _object_row(reader.name, seen, listing.can_lock)

    unreadable: list[str] = []
    readable = not listing.notes
    _spooled(listing, path, rows(), progress)
    listing.complete = listing.complete and readable
    if unreadable:
        listing.notes.append(f"{len(unreadable)} objects have names that are no Unicode; they are never touched")
    listing.finished_at = clock()
    return listing


def _object_row(store: str, seen: Seen, can_lock: bool) -> dict[str, Any]:
    return {
        "store": store, "key": seen.key, "size": seen.size, "version": seen.version, "storage_class": seen.storage_class,
        "locked_until": locked_text(seen.locked_until), "lock_read": seen.lock_read or not can_lock,
        "archived": seen.archived,
    }  # fmt: skip


def locked_text(until: datetime | None) -> str | None:
    """A lock's end as DuckDB reads it; `datetime.max` is a hold without an end."""
    if until is None:
        return None
    return "infinity" if until.year >= 9999 else until.strftime("%Y-%m-%d %H:%M:%S")


def _catalog_parts(reader: StoreReader, cache: Path, damaged: list[Seen] | None) -> list[Path]:
    """Every catalog part of a store as a local file, checked against the digest in its name. `damaged`: takes those that are not whole.

    Raises ListingBroken where there is no list to take them, StoreFailed.
    """
    cache.mkdir(parents=True, exist_ok=True)
    parts: list[Path] = []
    for seen in reader.list(CATALOG_PREFIX):
        name = seen.key[len(CATALOG_PREFIX) :]
        if not is_part(name):
            if damaged is not None:
                damaged.append(seen)
                continue
            raise ListingBroken(f"{reader.name}: `{seen.key}` is no part of a catalog", hint="who wrote it? remove it by hand")
        path = cache / name
        if not (path.is_file() and is_whole(name, path.read_bytes())):
            content = b"".join(reader.read(seen))
            if not is_whole(name, content) and not is_whole(name, content := b"".join(reader.read(seen))):
                if damaged is not None:
                    damaged.append(seen)
                    continue
                raise ListingBroken(f"{reader.name}: the catalog part `{seen.key}` is damaged")
            half = path.with_suffix(".half")
            half.write_bytes(content)
            half.replace(path)
        parts.append(path)
    return sorted(parts)


def _read_parts(connection: duckdb.DuckDBPyConnection, listing: Listing) -> None:
    known = ", ".join(f"'{name}'" for name in CATALOG)
    try:
        # A part of an older retainer lacks columns, one of a newer has more.
        connection.execute(
            f"INSERT INTO catalog BY NAME SELECT COLUMNS(lambda name: name IN ({known})) FROM read_parquet(?, union_by_name = true)",
            [[str(part) for part in listing.parts]],
        )
        if connection.execute("FROM catalog WHERE (key IS NULL OR version IS NULL OR asset_id IS NULL) LIMIT 1").fetchall():
            raise duckdb.Error("it has entries without a key, a version or an asset")
    except duckdb.Error as error:
        listing.complete = False
        listing.notes.append(f"{listing.name}: the catalog cannot be read: {str(error).splitlines()[0]}")
