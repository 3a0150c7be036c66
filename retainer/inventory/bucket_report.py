"""A store as its bucket's own report shows it, in place of a list, and what that is too old to
show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import duckdb

from retainer.database import connect, exactly, fill, literal, only_row, temp_table
from retainer.errors import ListingBroken, RetainerError
from retainer.inventory.facts import OBJECTS, is_text
from retainer.inventory.listing import Listing, Progress, object_row
from retainer.inventory.locate import UNZIPPED
from retainer.model.identity import IDENTITY_KEY
from retainer.model.inventory import LATE, REPORTED
from retainer.model.setting import OWN_PREFIX, Settings
from retainer.ports import InventoryReports, Seen, StoreReader

EARLY = timedelta(minutes=5)
UNDELIVERED_DAYS = 7
"""So long after its creation 100ms may still deliver a recording (DESIGN.md, section 5)."""
TOGETHER, PAGES = 1000, 3
"""So many keys that are beside one another are looked for in a list of so many pages."""
WORTH_A_LIST = 100
"""Where one in so many objects would have to be looked at by itself, the store is listed."""
FEW = 10_000
"""A store is taken for so much larger than it is: the looks of a small one are few in any case."""
_NOT_OURS = f"NOT starts_with(key, {literal(OWN_PREFIX)})"


def read_report(
    listing: Listing,
    reports: InventoryReports,
    folder: Path,
    now: datetime,
    age: timedelta,
    identity: Seen | None,
    progress: Progress,
) -> bool:
    """Read what a store's bucket reports, in place of a list; whether that can be. Else it is said
    why, and the store is to be listed: a list is always right, if slower.

    `age`: how long plans last; a report that is nearly as old leaves no time to apply one.
    `identity`: the object that says which store it is, as it lies there. It must stand in the
    report: no manifest tells which prefix was reported. Where a store has none yet, anything must.
    """
    try:
        report = reports.newest(now)
        if report is None:
            raise ListingBroken("its bucket has written no report of late")
        if report.at > now + EARLY or not report.leaves_time(now, age):
            raise ListingBroken(
                f"its newest report is of {report.at:%Y-%m-%d %H:%M} UTC, and plans last "
                f"{age.total_seconds() / 3600:g} hours (`limits.plan_age`)"
            )
        rows = reports.fetch(report, folder)
        with closing(connect(folder)) as connection:
            shown, count, size = only_row(
                connection,
                f"""SELECT any_value(version) FILTER (key = {literal(IDENTITY_KEY)}),
                    count(*) FILTER ({_NOT_OURS}),
                    coalesce(sum(size) FILTER ({_NOT_OURS}), 0)::BIGINT
                FROM read_parquet({exactly(rows)})""",
            )
        if not (count if identity is None else shown == identity.version):
            raise ListingBroken(
                f"its report of {report.at:%Y-%m-%d %H:%M} UTC does not show "
                f"{IDENTITY_KEY if identity else 'anything'} of it"
            )
    except RetainerError as error:
        listing.said.append(f"it is listed: {error.told}")
        return False
    listing.report, listing.reported_at, listing.complete = rows, report.at, True
    listing.objects, listing.bytes = count, size
    listing.locks_unread = listing.can_lock or report.hides_locks
    progress(listing.name, listing.objects)
    return True


def take_report(connection: duckdb.DuckDBPyConnection, listing: Listing) -> None:
    """The rows of a report -> the table `objects`."""
    assert listing.report
    columns = ", ".join(REPORTED)
    connection.execute(
        f"INSERT INTO objects (store, {columns}, lock_read) SELECT $store, {columns}, $read FROM "
        f"read_parquet({exactly(listing.report)}) WHERE {_NOT_OURS}",
        {"store": listing.name, "read": not listing.locks_unread},
    )


def look_since(
    connection: duckdb.DuckDBPyConnection, reader: StoreReader, listing: Listing, settings: Settings
) -> bool:
    """Look at what a report may be too old for: what the catalog says was written or deleted about
    its time or later, and what 100ms has uploaded since, as far as the report does not show it. Of
    a recording of many objects its folder is listed.

    Whether that was done; not where a list of the store costs less. What cannot be looked at leaves
    the list unfinished.
    """
    places = _places(connection, listing, settings)
    if places is None:
        return False
    folders, keys = _apart(places)
    try:
        with ThreadPoolExecutor(16) as pool:
            spans = [keys[at : at + TOGETHER] for at in range(0, len(keys), TOGETHER)]
            seen = {
                each.key: each
                for some in pool.map(lambda span: _beside_each_other(reader, span), spans)
                for each in some
            }
            unseen = [key for key in keys if key not in seen]
            if WORTH_A_LIST * (len(unseen) + len(folders)) > listing.objects + FEW:
                return False
            seen |= {look.seen.key: look.seen for look in pool.map(reader.look, unseen) if look}
            seen |= {
                each.key: each
                for some in pool.map(lambda folder: [*reader.list(folder)], folders)
                for each in some
            }
    except RetainerError as error:
        listing.complete = False
        listing.notes.append(f"what is newer than its report cannot be looked at: {error.told}")
        return True
    _take(connection, listing, folders, keys, [each for each in seen.values() if is_text(each.key)])
    return True


def _places(
    connection: duckdb.DuckDBPyConnection, listing: Listing, settings: Settings
) -> set[str] | None:
    """What is to be looked at: keys, and folders with a slash at their end; None where that is most
    of the store."""
    assert listing.reported_at
    since = (listing.reported_at - LATE).replace(tzinfo=None)
    recent = "FROM catalog WHERE store = ? AND (copied_at IS NULL OR copied_at >= ?)"
    given = [listing.name, since]
    row = connection.execute(f"SELECT count(*) {recent}", given).fetchone()
    if row is None or 3 * row[0] > listing.objects + FEW:
        return None
    found = connection.execute(
        "SELECT DISTINCT CASE WHEN manifest IS NULL THEN key ELSE "
        f"regexp_extract(manifest, '^(.*/)[^/]*$', 1) END {recent}",
        given,
    ).fetchall()
    store = settings.store(listing.name)
    if store and store.written_by_100ms:
        base = literal(store.base)
        found += connection.execute(
            f"""WITH young AS (
                FROM staged_assets WHERE created_at IS NULL OR created_at >= $since
            ), told AS (
                SELECT path, {UNZIPPED} AS unzipped FROM young
                UNION ALL SELECT unnest(thumbnails), false FROM young
            ), keys AS (
                SELECT path[len({base}) + 1:] AS key, unzipped FROM told
                WHERE starts_with(path, {base})
            ), shown AS (
                SELECT key FROM objects WHERE store = $store
            )
            SELECT DISTINCT regexp_extract(key, '^(.*/)[^/]*$', 1) FROM keys WHERE unzipped
            UNION SELECT key FROM keys ANTI JOIN shown USING (key) WHERE NOT unzipped""",
            {"since": since - timedelta(days=UNDELIVERED_DAYS), "store": listing.name},
        ).fetchall()
    places = {place for (place,) in found if place is not None}
    return None if "" in places else places  # many objects at the root: all of it


def _apart(places: Iterable[str]) -> tuple[list[str], list[str]]:
    """Folders and keys, each in order, less those that lie in one of the folders."""
    folders: list[str] = []
    keys: list[str] = []
    for place in sorted(places):
        if folders and place.startswith(folders[-1]):
            continue
        (folders if place.endswith("/") else keys).append(place)
    return folders, keys


def _beside_each_other(reader: StoreReader, keys: Sequence[str]) -> list[Seen]:
    """Those of these keys, in order, that a short list of what lies between them shows."""
    wanted = set(keys)
    return [each for each in reader.some_between(keys[0], keys[-1], PAGES) if each.key in wanted]


def _take(
    connection: duckdb.DuckDBPyConnection,
    listing: Listing,
    folders: Sequence[str],
    keys: Sequence[str],
    seen: Sequence[Seen],
) -> None:
    """Put what was seen in the place of what the report showed there."""
    temp_table(connection, "looked", {"place": "VARCHAR"}, [(each,) for each in (*folders, *keys)])
    connection.execute(
        "DELETE FROM objects WHERE store = ? AND key IN (FROM looked)", [listing.name]
    )
    for length in sorted({len(folder) for folder in folders}):  # each by its hash, not by ranges
        connection.execute(
            "DELETE FROM objects WHERE store = ? AND left(key, ?) IN (FROM looked WHERE len(place) "
            "= ? AND ends_with(place, '/'))",
            [listing.name, length, length],
        )
    rows = (object_row(listing.name, each, listing.can_lock) for each in seen)
    fill(connection, "objects", OBJECTS, rows)
    listing.objects, listing.bytes = only_row(
        connection,
        "SELECT count(*), coalesce(sum(size), 0)::BIGINT FROM objects "
        f"WHERE store = {literal(listing.name)}",
    )
