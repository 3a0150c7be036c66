"""A store as its bucket's own report shows it, in place of a list, and what that is too old to
show."""

from __future__ import annotations

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

FIRST_REPORT = timedelta(days=3)
"""A store so young may have no report yet: both clouds promise the first within 48 hours."""
EARLY = timedelta(minutes=5)
UNDELIVERED_DAYS = 7
"""So long after its creation 100ms may still deliver a recording (DESIGN.md, section 5)."""
_NOT_OURS = f"NOT starts_with(key, {literal(OWN_PREFIX)})"


def read_report(
    listing: Listing,
    reports: InventoryReports,
    folder: Path,
    now: datetime,
    age: timedelta | None,
    progress: Progress,
) -> bool:
    """Read what a store's bucket reports, in place of a list; whether it stands for one, well or
    badly. That it is of this prefix its identity shows, where the store has one, else anything.

    `age`: of the identity; None where there is none, or where that is not told.
    """
    try:
        report = reports.newest(now)
        if report is None and (age is None or age < FIRST_REPORT):
            listing.said.append("it is listed: its bucket has written no report yet")
            return False
        if report is None:
            raise ListingBroken(
                "its bucket has no finished report where `listing.inventory` says",
                hint="for S3 name destination prefix, source bucket and configuration; the first "
                "report comes within 48 hours",
            )
        if report.at > now + EARLY:
            raise ListingBroken(f"the report {report.name} is of a time still to come")
        rows = reports.fetch(report, folder)
        with closing(connect(folder)) as connection:
            shows, count, size = only_row(
                connection,
                f"""SELECT coalesce(bool_or(key = {literal(IDENTITY_KEY)}), false),
                    count(*) FILTER ({_NOT_OURS}),
                    coalesce(sum(size) FILTER ({_NOT_OURS}), 0)::BIGINT
                FROM read_parquet({exactly(rows)})""",
            )
        if listing.identity is None:
            shows = count > 0
        if not shows and (age is None or now - age > report.at - LATE):
            listing.said.append(
                f"it is listed: its report of {report.at:%Y-%m-%d %H:%M} UTC does not show yet "
                "that it is this store's"
            )
            return False
        if not shows:
            raise ListingBroken(
                f"the report {report.name} does not show {IDENTITY_KEY}, which lies there",
                hint="is it a report of another prefix?",
            )
    except RetainerError as error:
        listing.notes.append(error.told)
        return True
    listing.report, listing.reported_at, listing.complete = rows, report.at, True
    listing.objects, listing.bytes = count, size
    progress(listing.name, listing.objects)
    return True


def take_report(connection: duckdb.DuckDBPyConnection, listing: Listing) -> None:
    """The locks of what a report shows are not known: what is due is looked at."""
    assert listing.report
    columns = ", ".join(REPORTED)
    connection.execute(
        f"INSERT INTO objects (store, {columns}, lock_read) SELECT ?, {columns}, false FROM "
        f"read_parquet({exactly(listing.report)}) WHERE {_NOT_OURS}",
        [listing.name],
    )


def too_old(age: timedelta, hours: float) -> list[str]:
    """A sentence where no plan of a report can be applied any more."""
    old = age.total_seconds() / 3600
    if old < hours:
        return []
    return [
        f"its report is {old:,.0f} hours old, and plans last {hours:g}: nothing can be applied "
        "until a newer one is there, or `limits.plan_age` allows it"
    ]


def look_since(
    connection: duckdb.DuckDBPyConnection, reader: StoreReader, listing: Listing, settings: Settings
) -> None:
    """Look at what a report may be too old for: what the catalog says was written or deleted about
    its time or later, and what 100ms has uploaded since, as far as the report does not show it. Of
    a recording of many objects its folder is listed."""
    assert listing.reported_at
    since = (listing.reported_at - LATE).replace(tzinfo=None)
    found = connection.execute(
        "SELECT DISTINCT CASE WHEN manifest IS NULL THEN key ELSE "
        "regexp_extract(manifest, '^(.*/)[^/]*$', 1) END AS place FROM catalog "
        "WHERE store = ? AND (copied_at IS NULL OR copied_at >= ?) ORDER BY place",
        [listing.name, since],
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
            )
            SELECT DISTINCT CASE WHEN unzipped THEN regexp_extract(key, '^(.*/)[^/]*$', 1)
                ELSE key END AS place
            FROM keys WHERE key NOT IN (SELECT key FROM objects WHERE store = $store)
            ORDER BY place""",
            {"since": since - timedelta(days=UNDELIVERED_DAYS), "store": listing.name},
        ).fetchall()

    def looked(place: str) -> list[Seen]:
        if place.endswith("/"):
            return [*reader.list(place)]
        look = reader.look(place)
        return [look.seen] if look else []

    places = [place for (place,) in found if place]
    try:
        with ThreadPoolExecutor(16) as pool:
            seen = [each for some in pool.map(looked, places) for each in some]
    except RetainerError as error:
        listing.complete = False
        listing.notes.append(f"what is newer than its report cannot be looked at: {error.told}")
        return
    # what lies in a folder begins with its name, and `0` is the letter behind its slash
    spans = ((place, f"{place[:-1]}0" if place.endswith("/") else f"{place}\0") for place in places)
    temp_table(connection, "looked", {"first": "VARCHAR", "behind": "VARCHAR"}, spans)
    connection.execute(
        "DELETE FROM objects WHERE rowid IN (SELECT objects.rowid FROM objects JOIN looked "
        "ON key >= first AND key < behind WHERE store = ?)",
        [listing.name],
    )
    rows = (object_row(listing.name, each, can_lock=True) for each in seen if is_text(each.key))
    fill(connection, "objects", OBJECTS, rows)
    listing.objects, listing.bytes = only_row(
        connection,
        "SELECT count(*), coalesce(sum(size), 0)::BIGINT FROM objects "
        f"WHERE store = {literal(listing.name)}",
    )
