"""The tables of facts: from rows as 100ms and the stores give them to assets, copies and listings,
and snapshots of those."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import duckdb

from retainer.database import attach, connect, literal, make_room, only_row, temp_table
from retainer.errors import RetainerError
from retainer.inventory.locate import (
    ANOTHER_RECORDING,
    IN_DELETE_ORDER,
    MANY_OBJECTS,
    PLAYLIST,
    UNZIPPED,
    assets_of_key_sql,
    place_sql,
)
from retainer.model.catalog import CATALOG, RECORD
from retainer.model.moment import moment_at, read_moment
from retainer.model.setting import Settings, Store
from retainer.model.tables import ASSETS, COPIES, LISTINGS, SNAPSHOT_FORMAT, create

ROOMS = {"room_id": "VARCHAR", "room": "VARCHAR", "template": "VARCHAR", "template_id": "VARCHAR"}
OBJECTS = {
    "store": "VARCHAR",
    "key": "VARCHAR",
    "size": "BIGINT",
    "version": "VARCHAR",
    "storage_class": "VARCHAR",
    "locked_until": "TIMESTAMP",
    "lock_read": "BOOLEAN",
    "archived": "BOOLEAN",
    "retained_until": "TIMESTAMP",
    "lock_mode": "VARCHAR",
}
NAMES = {"room_id": "VARCHAR", "what": "VARCHAR", "name": "VARCHAR"}
"""Every name that a room, or its template, was ever seen with."""
NOTHING: Mapping[str, str] = MappingProxyType({})
LONGEST_METADATA = 256 << 10
"""Longer metadata is not read: it is then not known."""
TIMELESS = ("chat", "transcript", "summary")
"""What has no duration, and says that it is 0 (docs/reference/100ms-api.md)."""
_TEXTS = ("type", "status", "room_id", "session_id", "job_id", "path")


def read_asset(raw: Mapping[str, Any]) -> tuple[dict[str, Any] | None, list[str]]:
    """An asset as 100ms gives it -> a row of the staged table and what could not be read of it, in
    words without values.

    A fact of the wrong kind is not known; an absent one is NULL. A row whose id cannot be read is
    None: it could be any asset.
    """
    asset_id = raw.get("id")
    if (
        not isinstance(asset_id, str)
        or not asset_id
        or len(asset_id) > 200
        or not asset_id.isprintable()
    ):
        return None, ["its id is not text that can be printed"]
    row: dict[str, Any] = dict.fromkeys(RECORD) | {
        "asset_id": asset_id,
        "settled": True,
        "known_by": "api",
    }
    not_known: list[str] = []
    for fact in _TEXTS:
        value = raw.get(fact)
        if value is None or value == "":
            continue
        if isinstance(value, str) and is_text(value):
            row[fact] = value
        else:
            not_known.append(fact)
    for fact in ("type", "status"):
        if row[fact] is None and fact not in not_known and fact in raw:
            not_known.append(fact)
    for fact in ("size", "duration"):
        if fact not in raw:
            continue
        number = _number(raw[fact])
        if number == 0 and fact == "duration" and row["type"] in TIMELESS:
            continue
        if number is None or number <= 0:
            not_known.append(fact)
        else:
            row[fact] = int(number) if fact == "size" else number
    metadata = raw.get("metadata")
    if (
        isinstance(metadata, dict)
        and is_text(text := json.dumps(metadata, ensure_ascii=False))
        and len(text) <= LONGEST_METADATA
    ):
        # Keys are compared in one form, as names are.
        row["metadata"] = json.dumps(
            {unicodedata.normalize("NFC", key): value for key, value in metadata.items()},
            sort_keys=True,
        )
    elif metadata is not None:
        not_known.append("metadata")
    for fact in ("user_id", "peer_id"):
        value = raw.get(fact)
        if value is None and isinstance(metadata, dict):
            value = metadata.get(fact)
        if isinstance(value, str) and value and is_text(value):
            row[fact] = value
        elif value not in (None, "") or "metadata" in not_known:
            not_known.append(fact)
    created = raw.get("created_at")
    if isinstance(created, str) and is_text(created):
        row["created_text"] = created
        moment = read_moment(created)
        row["created_at"] = moment.strftime("%Y-%m-%d %H:%M:%S.%f") if moment else None
    thumbnails = raw.get("thumbnails") or []
    thumbnails = [thumbnails] if isinstance(thumbnails, str) else thumbnails
    if isinstance(thumbnails, list) and all(
        isinstance(path, str) and is_text(path) for path in thumbnails
    ):
        row["thumbnails"] = [path.partition("?")[0] for path in thumbnails] or None
    else:
        not_known.append("thumbnails")
    row["not_known"] = not_known or None
    told = [
        f"its {fact} is of the wrong kind" for fact in not_known if fact not in ("size", "duration")
    ]
    if raw.get("created_at") is not None and row["created_at"] is None:
        told.append("its created_at is not a date with a zone")
    return row, told


def is_text(value: str) -> bool:
    """Whether this is text that can be written down: JSON may hold halves of characters."""
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


def _number(value: Any) -> float | None:
    """A number, also one written as text ("4"), as 100ms does in places."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value if abs(value) < 2**62 else None
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return None
        return number if abs(number) < 2**62 else None
    return None


STAGES = {
    "staged_assets": RECORD,
    "rooms": ROOMS,
    "objects": OBJECTS,
    "catalog": CATALOG,
    "listings": LISTINGS,
    "names": NAMES,
}


def stage(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the empty tables that collecting fills."""
    for table, columns in STAGES.items():
        connection.execute(create(table, columns))


def two_facts_are_none(connection: duckdb.DuckDBPyConnection) -> int:
    """Make one row of those that 100ms gave of one asset: the facts that differ are not known.
    Returns of how many assets any did."""
    if only_row(connection, "SELECT count(DISTINCT asset_id) = count(*) FROM staged_assets")[0]:
        return 0
    kept = [name for name in RECORD if name not in ("asset_id", "not_known", "settled", "known_by")]
    differ = {
        name: f"(count(DISTINCT {name}) + (count(*) > count({name}))::INT > 1)" for name in kept
    }
    facts = {
        name: (
            f"CASE WHEN {differ['created_text' if name == 'created_at' else name]} THEN NULL "
            f"ELSE any_value({name}) END"
        )
        for name in kept
    }
    untold = ", ".join(
        f"CASE WHEN {differ[name]} THEN '{name}' END"
        for name in kept
        if not name.startswith("created")
    )
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE merged AS
        SELECT asset_id, {", ".join(f"{sql} AS {name}" for name, sql in facts.items())},
            nullif(list_distinct(list_filter([{untold}],
                lambda name: name IS NOT NULL) || flatten(list(coalesce(not_known, [])))), [])
                AS not_known, bool_and(settled) AS settled, any_value(known_by) AS known_by
        FROM staged_assets GROUP BY asset_id HAVING count(DISTINCT md5(staged_assets::VARCHAR)) > 1
    """)
    connection.execute("DELETE FROM staged_assets WHERE asset_id IN (SELECT asset_id FROM merged)")
    connection.execute("INSERT INTO staged_assets BY NAME FROM merged")
    row = connection.execute("SELECT count(*) FROM merged").fetchone()
    return row[0] if row else 0


def _keep_names(connection: duckdb.DuckDBPyConnection) -> None:
    """Each name that a room was seen with, by today's list, by the catalogs, and by the facts
    before these (the table `earlier`), as `names`."""
    seen = []
    for what in ("room", "template"):
        seen.append(f"SELECT room_id, '{what}' AS what, {what} AS name FROM rooms")
        seen.append(
            f"SELECT room_id, '{what}', unnest(coalesce({what}s, [{what}])) FROM catalog WHERE "
            "room_id IS NOT NULL"
        )
    connection.execute("CREATE TEMP TABLE IF NOT EXISTS earlier AS FROM names LIMIT 0")
    seen.append("FROM earlier")
    connection.execute(f"""
        INSERT INTO names SELECT DISTINCT room_id, what, nfc_normalize(name)
            FROM ({" UNION ALL ".join(seen)})
        WHERE room_id IS NOT NULL AND name IS NOT NULL ORDER BY ALL
    """)
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE seen AS SELECT room_id, what, list(name ORDER BY name) AS "
        "names FROM names GROUP BY ALL"
    )


def _names_seen(what: str, now: str, seen: str) -> str:
    """SQL: the names that the room of an asset was seen with, the one of now among them, where they
    differ; else NULL."""
    every = f"list_sort(list_distinct({seen}.names || [coalesce({now}, '')]))"
    return f"CASE WHEN len({every}) > 1 THEN {every} END AS {what}s"


def assemble(
    connection: duckdb.DuckDBPyConnection, settings: Settings, *, gone_on_with: bool = False
) -> None:
    """Staged rows -> the tables `assets` and `copies`. `gone_on_with`: a list of assets was, so
    that one that came since its beginning may be unseen.

    What is there comes from the listings; what it is from the API, else from the catalog. The order
    of the rows is of no account.
    """
    facts = ", ".join(
        name
        for name in RECORD
        if name
        not in (
            "room",
            "template",
            "template_id",
            "rooms",
            "templates",
            "not_known",
            "settled",
            "known_by",
        )
    )
    connection.execute(create("assets", ASSETS))
    _keep_names(connection)
    columns = ", ".join(ASSETS)
    made_here = {
        "asset_no": "row_number() OVER (ORDER BY asset_id) AS asset_no",
        "many": f"{MANY_OBJECTS} AS many",
    }
    selected = ", ".join(made_here.get(column, column) for column in ASSETS)
    connection.execute(f"""
        INSERT INTO assets ({columns})
        WITH told AS (
            SELECT * FROM staged_assets
            QUALIFY row_number() OVER (PARTITION BY asset_id ORDER BY md5(staged_assets::VARCHAR)) =
                1
        ), by_now AS (
            FROM rooms QUALIFY row_number() OVER (PARTITION BY room_id ORDER BY room NULLS LAST,
                template NULLS LAST) = 1
        ), named AS (
            SELECT {facts}, coalesce(rooms.room, told.room) AS room,
                coalesce(rooms.template, told.template) AS template,
                rooms.template_id AS template_id,
                -- A room always has a template: one that is told without is not known.
                CASE WHEN (room_id IS NOT NULL AND rooms.room_id IS NULL)
                         OR list_contains(not_known, 'room_id')
                     THEN list_concat(coalesce(not_known, []), ['room', 'template', 'template_id'])
                     WHEN room_id IS NOT NULL AND (rooms.template IS NULL
                         OR rooms.template_id IS NULL)
                     THEN list_concat(coalesce(not_known, []),
                         CASE WHEN rooms.template IS NULL THEN ['template'] ELSE [] END ||
                         CASE WHEN rooms.template_id IS NULL THEN ['template_id'] ELSE [] END)
                     ELSE not_known END AS not_known,
                settled, known_by
            FROM told LEFT JOIN by_now AS rooms USING (room_id)
        ), remembered AS (
            SELECT {facts},
                coalesce(nfc_normalize(entry.room), by_now.room) AS room,
                coalesce(nfc_normalize(entry.template), by_now.template) AS template,
                coalesce(entry.template_id, by_now.template_id) AS template_id,
                -- What an apply on another machine could not find out may be known by now.
                nullif(list_filter(not_known, lambda fact: NOT (
                    (fact = 'room' AND by_now.room IS NOT NULL)
                    OR (fact = 'template' AND by_now.template IS NOT NULL)
                    OR (fact = 'template_id' AND by_now.template_id IS NOT NULL))), [])
                    AS not_known,
                coalesce(kind.complete, true) AS settled, 'catalog' AS known_by
            FROM (
                SELECT * FROM catalog
                WHERE asset_id NOT IN (SELECT asset_id FROM staged_assets) AND deleted IS NOT TRUE
                    AND coalesce(manifest = key, true)
                  AND NOT (inferred IS NOT NULL
                      AND path IN (SELECT path FROM staged_assets WHERE path IS NOT NULL))
                QUALIFY row_number() OVER (PARTITION BY asset_id ORDER BY copied_at DESC, store,
                    key) = 1
            ) AS entry
            CROSS JOIN (SELECT bool_and(complete) AS complete FROM listings
                WHERE kind = 'assets') AS kind
            LEFT JOIN by_now USING (room_id)
        ), everyone AS (
            SELECT everyone.*, {_names_seen("room", "room", "by_room")},
                {_names_seen("template", "template", "by_template")}
            FROM (FROM named UNION ALL BY NAME FROM remembered) AS everyone
            LEFT JOIN (FROM seen WHERE what = 'room') AS by_room USING (room_id)
            LEFT JOIN (FROM seen WHERE what = 'template') AS by_template USING (room_id)
        )
        SELECT {selected}
        FROM everyone ORDER BY asset_id
    """)
    connection.execute(create("copies", COPIES))
    # While a list of assets is unfinished, an asset that names the same object of an upload bucket
    # may be unseen.
    settled = "coalesce((SELECT bool_and(complete) FROM listings WHERE kind = 'assets'), true)"
    settled = "false" if gone_on_with else settled
    for store in settings.stores:
        if store.written_by_100ms:
            _claim_uploads(connection, store)
            _place_uploads(connection, store, settled)
        else:
            _place_copies(connection, store)
    _supersede(connection, settings)
    connection.execute("""
        UPDATE listings SET strays = stray.count, stray_bytes = stray.bytes
        FROM (
            SELECT store, count(*) AS count, coalesce(sum(size), 0) AS bytes
            FROM objects ANTI JOIN (SELECT DISTINCT store, object.key
                FROM (SELECT store, unnest(objects) AS object FROM copies)) AS known
            USING (store, key) GROUP BY store
        ) AS stray
        WHERE listings.name = stray.store AND listings.kind = 'store'
    """)


def _claim_uploads(connection: duckdb.DuckDBPyConnection, store: Store) -> None:
    """Which asset an object of a bucket that 100ms uploads to belongs to, as the table `claim`.

    By its own path, by a thumbnail's, or as one of many below the folder beside the path, which
    ends at a slash: a neighbour with a longer name is not in it.
    """
    base, name = literal(store.base), literal(store.name)
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE claim AS
        WITH lying AS (SELECT * FROM objects WHERE store = {name}
        ), named AS (
            SELECT asset_no, size AS told, path, {PLAYLIST} AS unzipped, many,
                path[len({base}) + 1:] AS key,
                regexp_extract(path[len({base}) + 1:], '^(.*/)[^/]+$', 1) AS folder
            FROM assets WHERE starts_with(path, {base})
        ), faces AS (
            SELECT asset_no, face[len({base}) + 1:] AS key
            FROM (SELECT asset_no, unnest(thumbnails) AS face FROM assets WHERE len(thumbnails) > 0)
            WHERE starts_with(face, {base})
        ), folders AS (
            SELECT asset_no, folder FROM named WHERE unzipped AND folder <> ''
        ), inside AS (
            SELECT key, unnest(list_transform(range(1, len(string_split(key, '/'))),
                lambda depth: array_to_string(string_split(key, '/')[1:depth],
                    '/') || '/')) AS folder
            FROM lying WHERE EXISTS (FROM folders) AND key NOT IN (SELECT key FROM named)
                AND NOT {ANOTHER_RECORDING}
        ), claimed AS (
            SELECT asset_no, key FROM named
            UNION SELECT asset_no, key FROM faces
            UNION SELECT asset_no, key FROM inside JOIN folders USING (folder)
        )
        SELECT claimed.asset_no, named.key AS entry, coalesce(unzipped, false) AS unzipped, told,
            path,
            CASE WHEN many THEN folder END AS folder, lying.*
        FROM claimed JOIN lying USING (key) LEFT JOIN named ON named.asset_no = claimed.asset_no
    """)


def same_version(store: Store, one: str, other: str) -> str:
    """SQL: whether two versions of an object with one size are the same. A folder that was restored
    has other inodes, and the same times."""
    return (
        f"split_part({one}, '-', 3) = split_part({other}, '-', 3)"
        if store.scheme == "file"
        else f"{one} = {other}"
    )


def _supersede(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """A copy whose upload has another version by now than was copied is not complete: what lies in
    the upload bucket lies nowhere else.

    Of a recording of many objects each member is compared; what came beside them since has its own
    check, before a delete.
    """
    uploads = [store for store in settings.stores if store.written_by_100ms]
    if not uploads:
        return
    names = ", ".join(literal(store.name) for store in uploads)
    paths = " UNION ALL ".join(
        f"SELECT {literal(store.base)} || key AS path, {_upload_version(store)} AS version FROM "
        f"objects WHERE store = {literal(store.name)}"
        for store in uploads
    )
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE overwritten AS
        SELECT DISTINCT copies.asset_no, copies.store FROM copies
        JOIN (SELECT asset_no, made_of, made_of_version FROM copies
            WHERE store IN ({names})) AS upload
          ON upload.asset_no = copies.asset_no AND upload.made_of = copies.made_of
        WHERE copies.store NOT IN ({names}) AND copies.made_of_version <> upload.made_of_version
            AND copies.folder IS NULL
        UNION
        SELECT DISTINCT asset_no, member.store FROM (
            SELECT * FROM catalog WHERE made_of IS NOT NULL AND manifest <> key
                AND deleted IS NOT TRUE
            QUALIFY row_number() OVER (PARTITION BY store, asset_id,
                made_of ORDER BY copied_at DESC, key) = 1
        ) AS member JOIN ({paths}) AS upload ON upload.path = member.made_of
            AND upload.version <> member.made_of_version
        JOIN assets ON assets.asset_id = member.asset_id
    """)
    connection.execute("""
        UPDATE copies SET complete = false, superseded = true
        WHERE (asset_no, store) IN (SELECT (asset_no, store) FROM overwritten)
    """)


def _upload_version(store: Store) -> str:
    """SQL: the version of an upload, as the catalog of its copies remembers it: a restored folder
    has other inodes."""
    return "version[strpos(version, '-') + 1:]" if store.scheme == "file" else "version"


def _place_uploads(connection: duckdb.DuckDBPyConnection, store: Store, settled: str) -> None:
    """The claimed objects as copies, whatever size 100ms's record says: what is listed is whole.
    What several assets claim binds them together."""
    together = _bound_together(
        connection.execute(
            "SELECT key, asset_no FROM claim WHERE key IN (SELECT key FROM claim GROUP BY key "
            "HAVING count(*) > 1)"
        ).fetchall()
    )
    columns = {"asset_no": "INTEGER", "shared": "VARCHAR"}
    temp_table(connection, "bound", columns, together.items())
    version = _upload_version(store)
    connection.execute(f"""
        INSERT INTO copies
        WITH whole AS (
            SELECT *, key = entry AND (size > 0 OR told IS NULL) AS is_entry FROM claim
        )
        SELECT asset_no, any_value(store),
            coalesce(bool_or(is_entry), false)
                AND (NOT any_value(unzipped) OR count(*) FILTER (size > 0 AND key <> entry) > 0),
            max(locked_until), bool_and(lock_read), any_value(shared), sum(size),
            list(struct_pack(key, size, version,
                complete := coalesce(key <> entry OR is_entry, false)) ORDER BY {IN_DELETE_ORDER}),
            any_value(folder), bool_or(archived), NULL, {settled},
            any_value({literal(store.base)} || entry), CASE
                WHEN count(*) = 1 THEN any_value({version})
                ELSE 'many-' || md5(string_agg(key || '=' || {version}, chr(10) ORDER BY key)) END,
                    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
        FROM whole LEFT JOIN bound USING (asset_no) GROUP BY asset_no
    """)


def _bound_together(claims: Sequence[tuple[str, int]]) -> dict[int, str]:
    """Assets that share objects, also by way of others -> one key for each such group."""
    group: dict[int | str, int | str] = {}

    def root(one: int | str) -> int | str:
        while (above := group.setdefault(one, one)) != one:
            group[one] = group[above]
            one = above
        return one

    for key, asset_no in claims:
        group[root(asset_no)] = root(key)
    keys: dict[int | str, str] = {}
    for key, _ in claims:
        keys[root(key)] = min(key, keys.get(root(key), key))
    return {asset_no: keys[root(asset_no)] for _, asset_no in claims}


def _place_copies(connection: duckdb.DuckDBPyConnection, store: Store) -> None:
    """The objects of a store that retainer fills, as copies. A copy of many objects is complete
    with its manifest and all that it lists; one of another size than 100ms's record says, where the
    record said so when it was made, and the server did not."""
    name = literal(store.name)
    same = same_version(store, "entry.version", "objects.version")
    connection.execute(f"""
        INSERT INTO copies
        WITH entry AS (
            SELECT * FROM catalog WHERE store = {name} QUALIFY row_number() OVER (PARTITION BY key
                ORDER BY copied_at DESC, version) = 1
        ), lying AS (
            SELECT objects.*, entry.asset_id, entry.members, entry.manifest, entry.manifest_crc32c,
                entry.made_of, entry.made_of_version, entry.in_doubt, entry.size AS told,
                entry.copied_at,
                -- Only of the version that the entry is of; a list that tells locks is newer.
                CASE WHEN lock_read THEN coalesce(retained_until, '-infinity')
                    WHEN {same} THEN entry.locked_until END AS locked_through,
                CASE WHEN lock_read THEN objects.lock_mode
                    WHEN {same} THEN entry.lock_mode END AS mode,
                coalesce(entry.object_size = objects.size AND {same} AND broken IS NOT TRUE,
                    false) AS same,
                entry.partial, coalesce({same} AND (broken OR entry.partial IS NOT NULL), false)
                    AS is_broken
            FROM objects LEFT JOIN entry USING (key) WHERE objects.store = {name}
        ), guessed AS (
            SELECT key, asset_id FROM (
                SELECT key, unnest(candidates) AS asset_id,
                    generate_subscripts(candidates, 1) AS rank
                FROM (SELECT key, {assets_of_key_sql(store)} AS candidates FROM lying
                    WHERE asset_id IS NULL)
            ) SEMI JOIN assets USING (asset_id)
            QUALIFY row_number() OVER (PARTITION BY key ORDER BY rank) = 1
        ), whole AS (
            SELECT manifest, manifest_crc32c, max(partial) FILTER (key = manifest) AS partial
            FROM lying WHERE manifest IS NOT NULL AND same
            GROUP BY manifest, manifest_crc32c HAVING count(*) FILTER (key <> manifest) =
                max(members) FILTER (key = manifest)
        ), placed AS (
            SELECT assets.asset_no, assets.path, lying.* EXCLUDE (partial),
                regexp_extract(whole.manifest, '^(.*/)', 1) AS folder,
                same AND CASE WHEN lying.manifest IS NULL THEN NOT {UNZIPPED}
                    AND (lying.partial IS NOT NULL OR lying.size >= coalesce(assets.size, 1)
                        OR lying.told IS NOT DISTINCT FROM assets.size)
                              ELSE whole.manifest IS NOT NULL END AS is_copy,
                coalesce(whole.partial, lying.partial) AS partial
            FROM lying LEFT JOIN guessed USING (key) LEFT
                JOIN whole USING (manifest, manifest_crc32c)
            JOIN assets ON assets.asset_id = coalesce(lying.asset_id, guessed.asset_id)
        ), weighed AS (
            -- Where there is no more than a partial copy, that is the one that a person may accept.
            SELECT *, is_copy AND (partial IS NULL
                OR NOT bool_or(is_copy AND partial IS NULL) OVER (PARTITION BY asset_no))
                AS complete
            FROM placed
        )
        SELECT asset_no, any_value(store), bool_or(complete AND partial IS NULL), max(locked_until),
            bool_and(lock_read), NULL, sum(size),
            list(struct_pack(key, size, version, complete) ORDER BY {IN_DELETE_ORDER}),
                min(folder) FILTER (complete),
            bool_or(archived) FILTER (complete), list(key ORDER BY key) FILTER (is_broken), true,
            arg_max(made_of, copied_at) FILTER (same AND made_of IS NOT NULL),
            arg_max(made_of_version, copied_at) FILTER (same AND made_of IS NOT NULL), NULL,
            max(partial) FILTER (complete),
            arg_max(in_doubt, copied_at) FILTER (complete AND in_doubt IS NOT NULL),
            bool_or(size > 0 AND NOT same AND NOT is_broken), NULL, NULL,
            CASE WHEN bool_and(locked_through IS NOT NULL) FILTER (complete)
                THEN min(locked_through) FILTER (complete) END,
            min(mode) FILTER (complete)
        FROM weighed GROUP BY asset_no
    """)


AT_ONCE = 500_000
"""So many recordings are decided at a time: a plan's memory is that of so many, however many there
are. Up to twice as many are decided together, which is faster."""


def ranges(connection: duckdb.DuckDBPyConnection, size: int | None) -> list[str]:
    """SQL: which recordings are decided together, of so many each (None: all are), in the order of
    their ids; always one at least."""
    if size is None:
        return ["true"]
    (last,) = only_row(connection, "SELECT coalesce(max(asset_no), 0) FROM facts.assets")
    if last <= 2 * size:
        return ["true"]
    first, *others = range(size, last + size, size)
    return [
        f"asset_no <= {first}",
        *(f"asset_no > {end - size} AND asset_no <= {end}" for end in others),
    ]


RANGES_AT_ONCE = 20
"""After so many ranges what was held of the facts is let go."""


def read_anew(connection: duckdb.DuckDBPyConnection) -> None:
    """Let go of what DuckDB holds of the facts that it has read: some kilobytes for each row group
    (2.0.1), which count towards no limit. Raises RetainerError where other facts lie in their place
    by now."""
    before = snapshot_of(connection)
    (path,) = only_row(
        connection, "SELECT path FROM duckdb_databases() WHERE database_name = 'facts'"
    )
    connection.execute("DETACH facts")
    try:
        attach(connection, Path(path))
    except OSError:
        raise replaced(Path(path)) from None
    if _not_plain(connection) or snapshot_of(connection) != before:
        raise replaced(Path(path))


def replaced(path: Path) -> RetainerError:
    """Of a snapshot in whose place others lie before it was read to its end."""
    return RetainerError(f"{path} was replaced while it was read", hint="run it again")


def narrow(connection: duckdb.DuckDBPyConnection, which: str = "true") -> None:
    """Have the views `assets` and `copies` show only the recordings of which some SQL is true."""
    for table in ("assets", "copies"):
        connection.execute(f"CREATE OR REPLACE TEMP VIEW {table} AS FROM all_{table} WHERE {which}")


def add_places(
    connection: duckdb.DuckDBPyConnection, settings: Settings, gone: Mapping[str, str] = NOTHING
) -> None:
    """Make the views that the decision reads: the assets with where 100ms has them, copies and
    listings; and the table of stores.

    Done at every plan, so that a snapshot follows a change of `source.hosted`. `gone`: by their ids
    the assets of which 100ms has said that it has nothing, each with its path then
    (`path_mark`): it lies nowhere, whatever the record says.
    """
    lies_nowhere = "false"
    if gone:
        columns = {"asset_id": "VARCHAR", "mark": "VARCHAR"}
        temp_table(connection, "ended", columns, gone.items())
        connection.execute("""
            CREATE OR REPLACE TEMP TABLE gone AS
            SELECT asset_no FROM facts.assets JOIN ended USING (asset_id)
            WHERE left(sha256(coalesce(split_part(path, '?', 1), '')), 16) = mark
        """)
        lies_nowhere = "asset_no IN (FROM gone)"
    connection.execute(f"""
        CREATE OR REPLACE TEMP VIEW all_assets AS
        SELECT * EXCLUDE (place), coalesce(place = 'hosted', false) AS lies_hosted,
            coalesce(place = 'elsewhere', false) AS lies_elsewhere,
            {lies_nowhere} AS lies_nowhere
        FROM (
            SELECT *, CASE WHEN known_by = 'api' AND (status IS DISTINCT FROM 'failed'
                OR (path IS NOT NULL AND size IS NOT NULL))
                THEN {place_sql(settings)} END AS place FROM facts.assets
        )
    """)
    connection.execute("CREATE OR REPLACE TEMP VIEW all_copies AS FROM facts.copies")
    narrow(connection)
    connection.execute("CREATE OR REPLACE TEMP VIEW listings AS FROM facts.listings")
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE stores (store VARCHAR, scheme VARCHAR, rank INTEGER, filled "
        "BOOLEAN)"
    )
    for rank, store in enumerate(settings.stores):
        connection.execute(
            "INSERT INTO stores VALUES (?, ?, ?, ?)",
            [store.name, store.scheme, rank, not store.written_by_100ms],
        )


def save_snapshot(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Write the facts to a new DuckDB file.

    It contains the names of rooms and templates, and says so in its table `about`.
    """
    connection.execute(f"ATTACH {literal(str(path))} AS snapshot")
    connection.execute(f"""
        CREATE TABLE snapshot.about AS SELECT {SNAPSHOT_FORMAT} AS format, '{_WHAT}' AS what,
            'contains the names of rooms and templates' AS privacy
    """)
    for table in _SNAPSHOT:
        order = {
            "assets": "asset_no",
            "copies": "asset_no, store",
            "listings": "kind, name",
            "names": "ALL",
        }[table]
        connection.execute(f"CREATE TABLE snapshot.{table} AS FROM {table} ORDER BY {order}")
    connection.execute("DETACH snapshot")


_SNAPSHOT = {"assets": ASSETS, "copies": COPIES, "listings": LISTINGS, "names": NAMES}
_WHAT = "retainer facts"
_AGAIN = "make one with `retainer facts --out FILE`"


def is_snapshot(path: Path) -> bool:
    """Whether a file is a snapshot of facts of any format, by what it says of itself."""
    try:
        with connect(attached=path) as connection:
            return _worked_out(connection) is None and connection.execute(
                "SELECT what FROM facts.about"
            ).fetchone() == (_WHAT,)
    except duckdb.Error:
        return False


def open_facts(
    path: Path, settings: Settings, gone: Mapping[str, str] = NOTHING, at_once: int | None = None
) -> duckdb.DuckDBPyConnection:
    """A connection with a snapshot attached read-only as `facts`, and the views that the decision
    reads, with memory for so many recordings at a time (None: all). `gone`: as `add_places`.

    Raises RetainerError when the file is no snapshot of this format: tables of plain columns, and
    nothing that is worked out when it is read.
    """
    if not path.is_file():
        raise RetainerError(f"there is no snapshot of facts at {path}", hint=_AGAIN)
    try:
        connection = connect(attached=path)
    except (duckdb.Error, OSError) as error:
        raise RetainerError(
            f"{path} cannot be read as a snapshot of facts: {_first_line(error)}", hint=_AGAIN
        ) from None
    try:
        if reason := _worked_out(connection):
            raise RetainerError(f"{path} is no snapshot that retainer made: {reason}", hint=_AGAIN)
        found = connection.execute("SELECT format FROM facts.about").fetchone()
        if found is None or found[0] != SNAPSHOT_FORMAT:
            raise RetainerError(
                f"{path} has snapshot format {found and found[0]}; this retainer reads format "
                f"{SNAPSHOT_FORMAT}",
                hint=_AGAIN,
            )
        if reason := _not_plain(connection):
            raise RetainerError(f"{path} is no snapshot that retainer made: {reason}", hint=_AGAIN)
        counted = connection.execute("SELECT count(*) FROM facts.assets").fetchone()
        count = counted[0] if counted else 0
        make_room(connection, count if at_once is None else min(count, 2 * at_once))
        add_places(connection, settings, gone)
    except (duckdb.Error, RetainerError) as error:
        connection.close()
        if isinstance(error, RetainerError):
            raise
        raise RetainerError(
            f"{path} cannot be read as a snapshot of facts: {_first_line(error)}", hint=_AGAIN
        ) from None
    return connection


def partial_copies(path: Path, settings: Settings, asset_id: str) -> list[tuple[str, str]]:
    """The stores in which a snapshot shows no more than a partial copy of a recording, each with
    the reason. Raises RetainerError when the file is no snapshot."""
    connection = open_facts(path, settings)
    try:
        with whole_facts(path):
            return connection.execute(
                "SELECT store, partial FROM copies JOIN assets USING (asset_no) "
                "WHERE asset_id = ? AND partial IS NOT NULL ORDER BY store",
                [asset_id],
            ).fetchall()
    finally:
        connection.close()


def is_complete(path: Path) -> bool:
    """Whether a snapshot of this format is there in which every listing finished."""
    try:
        with duckdb.connect(str(path), read_only=True) as connection:
            found = connection.execute(
                "SELECT (SELECT format FROM about), (SELECT bool_and(complete) FROM listings)"
            ).fetchone()
    except duckdb.Error:
        return False
    return found == (SNAPSHOT_FORMAT, True)


def earlier_names(path: Path) -> list[tuple[str, str, str]]:
    """The names of rooms that an older snapshot holds: room id, room or template, name. Raises
    RetainerError when it is damaged."""
    if not path.is_file():
        return []
    try:
        with connect(attached=path) as connection:
            if _not_plain(connection) is not None:
                return []  # of another format, which held no names
            return connection.execute(
                "SELECT room_id, what, name FROM facts.names ORDER BY ALL"
            ).fetchall()
    except (duckdb.Error, OSError) as error:
        hint = (
            "remove it; a hold by the name of a room that was renamed since is then not known "
            "to hold"
        )
        raise RetainerError(
            f"{path} is damaged ({_first_line(error)}), and it holds the names of rooms", hint=hint
        ) from None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot of facts: a short name (the same for the same listings), how its file lay there,
    when the newest of them ended, which did not finish, and which stores keep what is deleted for a
    while."""

    id: str
    file: str
    gathered: datetime | None
    incomplete: tuple[str, ...]
    keep_deleted: tuple[str, ...]


def snapshot_of(connection: duckdb.DuckDBPyConnection) -> Snapshot:
    """What the facts that were opened are."""
    rows = connection.execute(
        "SELECT name, kind, objects, bytes, started_at::VARCHAR FROM listings ORDER BY ALL"
    ).fetchall()
    file, gathered, incomplete, kept = only_row(
        connection,
        "SELECT getvariable('stood'), epoch(max(finished_at)), "
        "list(name ORDER BY name) FILTER (NOT complete), "
        "list(name ORDER BY name) FILTER (keeps_deleted IS NOT NULL) FROM listings",
    )
    return Snapshot(
        hashlib.sha256(repr(rows).encode()).hexdigest()[:8],
        file,
        moment_at(gathered),
        tuple(incomplete or ()),
        tuple(kept or ()),
    )


@contextmanager
def whole_facts(path: Path) -> Iterator[None]:
    """Whatever DuckDB stumbles over in a snapshot is told as that. Raises RetainerError."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise RetainerError(
            f"{path} cannot be decided on in the memory that retainer takes, and what it spills to "
            f"the disk: {_first_line(error)}",
            hint="is the disk of TMPDIR full? Else it is a fault of retainer: report it, with the "
            "numbers of recordings and rules",
        ) from None
    except duckdb.Error as error:
        if "No space left" in str(error):
            raise RetainerError(
                f"the disk is full: {_first_line(error)}",
                hint="free some of it, or set TMPDIR to a folder with more",
            ) from None
        raise RetainerError(
            f"{path} is damaged, or no snapshot that retainer made: {_first_line(error)}",
            hint=_AGAIN,
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _worked_out(connection: duckdb.DuckDBPyConnection) -> str | None:
    """What in the attached file is worked out when it is read; None when nothing is. Nothing of it
    was read by then."""
    if views := connection.execute(
        "SELECT view_name FROM duckdb_views() WHERE database_name = 'facts' AND NOT internal"
    ).fetchall():
        return f"`{views[0][0]}` in it is a view"
    made = connection.execute(
        "SELECT table_name, column_name FROM duckdb_columns() WHERE database_name = 'facts' AND "
        "NOT internal AND column_default IS NOT NULL"
    ).fetchall()
    return f"`{'.'.join(made[0])}` in it is worked out when it is read" if made else None


def _not_plain(connection: duckdb.DuckDBPyConnection) -> str | None:
    """Why the attached file is more, or less, than tables of plain columns; None when it is what
    retainer writes."""
    if reason := _worked_out(connection):
        return reason
    there: dict[str, dict[str, str]] = {}
    for table, column, kind in connection.execute(
        "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE database_name = "
        "'facts' AND NOT internal"
    ).fetchall():
        there.setdefault(table, {})[column] = kind
    for table, columns in _SNAPSHOT.items():
        plain = dict(
            connection.execute(
                f"SELECT column_name, column_type FROM (DESCRIBE (SELECT {_typed(columns)}))"
            ).fetchall()
        )
        if there.get(table) != plain:
            return f"its table `{table}` has other columns"
    return None


def _typed(columns: Mapping[str, str]) -> str:
    return ", ".join(f"NULL::{kind} AS {name}" for name, kind in columns.items())
