"""The tables of facts: from rows as 100ms and the stores give them to assets, copies and listings, and snapshots of those."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from retainer.database import connect, fill, literal, make_room
from retainer.errors import RetainerError
from retainer.inventory.locate import ANOTHER_RECORDING, IN_DELETE_ORDER, MANY_OBJECTS, PLAYLIST, UNZIPPED, assets_of_key_sql, place_sql
from retainer.model.catalog import CATALOG, RECORD
from retainer.model.moment import read_moment
from retainer.model.setting import Settings, Store
from retainer.model.tables import ASSETS, COPIES, LISTINGS, SNAPSHOT_FORMAT, create

ROOMS = {"room_id": "VARCHAR", "room": "VARCHAR", "template": "VARCHAR"}
OBJECTS = {
    "store": "VARCHAR",
    "key": "VARCHAR",
    "size": "BIGINT",
    "version": "VARCHAR",
    "storage_class": "VARCHAR",
    "locked_until": "TIMESTAMP",
    "lock_read": "BOOLEAN",
    "archived": "BOOLEAN",
}
_TEXTS = ("type", "status", "room_id", "session_id", "job_id", "path")


def read_asset(raw: Mapping[str, Any]) -> tuple[dict[str, Any] | None, list[str]]:
    """An asset as 100ms gives it -> a row of the staged table and what could not be read of it, in words without values.

    A fact of the wrong kind is not known; an absent one is NULL. A row whose id cannot be read is None: it could be any asset.
    """
    asset_id = raw.get("id")
    if not isinstance(asset_id, str) or not asset_id or len(asset_id) > 200 or not is_text(asset_id):
        return None, ["its id is not text"]
    row: dict[str, Any] = dict.fromkeys(RECORD) | {"asset_id": asset_id, "settled": True, "known_by": "api"}
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
        if number is None or number <= 0:
            not_known.append(fact)
        else:
            row[fact] = int(number) if fact == "size" else number
    metadata = raw.get("metadata")
    if isinstance(metadata, dict) and is_text(json.dumps(metadata, ensure_ascii=False)):
        row["metadata"] = json.dumps(metadata, sort_keys=True)
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
    if isinstance(thumbnails, list) and all(isinstance(path, str) and is_text(path) for path in thumbnails):
        row["thumbnails"] = [path.partition("?")[0] for path in thumbnails] or None
    else:
        not_known.append("thumbnails")
    row["not_known"] = not_known or None
    told = [f"its {fact} is of the wrong kind" for fact in not_known if fact not in ("size", "duration")]
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


STAGES = {"staged_assets": RECORD, "rooms": ROOMS, "objects": OBJECTS, "catalog": CATALOG, "listings": LISTINGS}


def stage(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the empty tables that collecting fills."""
    for table, columns in STAGES.items():
        connection.execute(create(table, columns))


def assemble(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Staged rows -> the tables `assets` and `copies`.

    What is there comes from the listings; what it is from the API, else from the catalog. The order of the rows is of no account.
    """
    facts = ", ".join(name for name in RECORD if name not in ("room", "template", "not_known", "settled", "known_by"))
    connection.execute(create("assets", ASSETS))
    columns = ", ".join(ASSETS)
    connection.execute(f"""
        INSERT INTO assets ({columns})
        WITH told AS (
            SELECT * FROM staged_assets
            QUALIFY row_number() OVER (PARTITION BY asset_id ORDER BY md5(staged_assets::VARCHAR)) = 1
        ), named AS (
            SELECT {facts}, coalesce(rooms.room, told.room) AS room, coalesce(rooms.template, told.template) AS template,
                CASE WHEN room_id IS NOT NULL AND rooms.room_id IS NULL
                     THEN list_concat(coalesce(not_known, []), ['room', 'template'])
                     WHEN list_contains(not_known, 'room_id')
                     THEN list_concat(not_known, ['room', 'template']) ELSE not_known END AS not_known,
                settled, known_by
            FROM told LEFT JOIN (FROM rooms QUALIFY row_number() OVER (PARTITION BY room_id ORDER BY room, template) = 1) AS rooms
            USING (room_id)
        ), remembered AS (
            SELECT {facts}, room, template, not_known,
                coalesce(kind.complete AND list_contains(kind.names, '100ms ' || type), kind.complete IS NULL) AS settled, 'catalog' AS known_by
            FROM (
                SELECT * FROM catalog
                WHERE asset_id NOT IN (SELECT asset_id FROM staged_assets) AND coalesce(manifest = key, true)
                  AND NOT (inferred IS NOT NULL AND path IN (SELECT path FROM staged_assets WHERE path IS NOT NULL))
                QUALIFY row_number() OVER (PARTITION BY asset_id ORDER BY copied_at DESC, store, key) = 1
            ) AS entry
            CROSS JOIN (SELECT bool_and(complete) AS complete, list(name) AS names FROM listings WHERE kind = 'assets') AS kind
        ), everyone AS (FROM named UNION ALL BY NAME FROM remembered)
        SELECT {columns.replace("asset_no", "row_number() OVER (ORDER BY asset_id) AS asset_no").replace("many", f"{MANY_OBJECTS} AS many")}
        FROM everyone ORDER BY asset_id
    """)
    connection.execute(create("copies", COPIES))
    # While a list of assets is unfinished, an asset that names the same object of an upload bucket may be unseen.
    settled = "coalesce((SELECT bool_and(complete) FROM listings WHERE kind = 'assets'), true)"
    for store in settings.stores:
        if store.written_by_100ms:
            _claim_uploads(connection, store)
            _place_uploads(connection, settled)
        else:
            _place_copies(connection, store)
    connection.execute("""
        UPDATE listings SET strays = stray.count, stray_bytes = stray.bytes
        FROM (
            SELECT store, count(*) AS count, coalesce(sum(size), 0) AS bytes
            FROM objects ANTI JOIN (SELECT DISTINCT store, object.key FROM (SELECT store, unnest(objects) AS object FROM copies)) AS known
            USING (store, key) GROUP BY store
        ) AS stray
        WHERE listings.name = stray.store AND listings.kind = 'store'
    """)


def _claim_uploads(connection: duckdb.DuckDBPyConnection, store: Store) -> None:
    """Which asset an object of a bucket that 100ms uploads to belongs to, as the table `claim`.

    By its own path, by a thumbnail's, or as one of many below the folder beside the path, which ends at a slash: a neighbour with a longer
    name is not in it.
    """
    base, name = literal(store.base), literal(store.name)
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE claim AS
        WITH lying AS (SELECT * FROM objects WHERE store = {name}
        ), named AS (
            SELECT asset_no, size AS told, path, {PLAYLIST} AS unzipped, many, path[len({base}) + 1:] AS key,
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
                lambda depth: array_to_string(string_split(key, '/')[1:depth], '/') || '/')) AS folder
            FROM lying WHERE EXISTS (FROM folders) AND key NOT IN (SELECT key FROM named) AND NOT {ANOTHER_RECORDING}
        ), claimed AS (
            SELECT asset_no, key FROM named
            UNION SELECT asset_no, key FROM faces
            UNION SELECT asset_no, key FROM inside JOIN folders USING (folder)
        )
        SELECT claimed.asset_no, named.key AS entry, coalesce(unzipped, false) AS unzipped, told, path,
            CASE WHEN many THEN folder END AS folder, lying.*
        FROM claimed JOIN lying USING (key) LEFT JOIN named ON named.asset_no = claimed.asset_no
    """)


def _place_uploads(connection: duckdb.DuckDBPyConnection, settled: str) -> None:
    """The claimed objects as copies. What several assets claim binds them together."""
    together = _bound_together(
        connection.execute("SELECT key, asset_no FROM claim WHERE key IN (SELECT key FROM claim GROUP BY key HAVING count(*) > 1)").fetchall()
    )
    connection.execute("CREATE OR REPLACE TEMP TABLE bound (asset_no INTEGER, shared VARCHAR)")
    fill(connection, "bound", {"asset_no": "INTEGER", "shared": "VARCHAR"}, ({"asset_no": no, "shared": key} for no, key in together.items()))
    connection.execute(f"""
        INSERT INTO copies
        WITH whole AS (
            SELECT *, size > 0 AND key = entry AND (unzipped OR told IS NULL OR told = size) AS is_entry FROM claim
        )
        SELECT asset_no, any_value(store),
            coalesce(bool_or(is_entry), false) AND (NOT any_value(unzipped) OR count(*) FILTER (size > 0 AND key <> entry) > 0),
            max(locked_until), bool_and(lock_read), any_value(shared), sum(size),
            list(struct_pack(key, size, version, complete := coalesce(key <> entry OR is_entry, false)) ORDER BY {IN_DELETE_ORDER}),
            any_value(folder), bool_or(archived), NULL, {settled}
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
    """The objects of a store that retainer fills, as copies. A copy of many objects is complete with its manifest and all that it lists."""
    name = literal(store.name)
    connection.execute(f"""
        INSERT INTO copies
        WITH entry AS (
            SELECT * FROM catalog WHERE store = {name} QUALIFY row_number() OVER (PARTITION BY key ORDER BY copied_at DESC, version) = 1
        ), lying AS (
            SELECT objects.*, entry.asset_id, entry.members, entry.manifest, entry.manifest_crc32c,
                coalesce(entry.object_size = objects.size AND entry.version = objects.version AND broken IS NOT TRUE, false) AS same,
                coalesce(entry.version = objects.version AND broken, false) AS is_broken
            FROM objects LEFT JOIN entry USING (key) WHERE objects.store = {name}
        ), guessed AS (
            SELECT key, asset_id FROM (
                SELECT key, unnest(candidates) AS asset_id, generate_subscripts(candidates, 1) AS rank
                FROM (SELECT key, {assets_of_key_sql(store)} AS candidates FROM lying WHERE asset_id IS NULL)
            ) SEMI JOIN assets USING (asset_id)
            QUALIFY row_number() OVER (PARTITION BY key ORDER BY rank) = 1
        ), whole AS (
            SELECT manifest, manifest_crc32c FROM lying WHERE manifest IS NOT NULL AND same
            GROUP BY manifest, manifest_crc32c HAVING count(*) FILTER (key <> manifest) = max(members) FILTER (key = manifest)
        ), placed AS (
            SELECT assets.asset_no, assets.path, lying.*, regexp_extract(whole.manifest, '^(.*/)', 1) AS folder,
                same AND CASE WHEN lying.manifest IS NULL THEN NOT {UNZIPPED} AND lying.size >= coalesce(assets.size, 1)
                              ELSE whole.manifest IS NOT NULL END AS complete
            FROM lying LEFT JOIN guessed USING (key) LEFT JOIN whole USING (manifest, manifest_crc32c)
            JOIN assets ON assets.asset_id = coalesce(lying.asset_id, guessed.asset_id)
        )
        SELECT asset_no, any_value(store), bool_or(complete), max(locked_until), bool_and(lock_read), NULL, sum(size),
            list(struct_pack(key, size, version, complete) ORDER BY {IN_DELETE_ORDER}), min(folder) FILTER (complete),
            bool_or(archived) FILTER (complete), list(key ORDER BY key) FILTER (is_broken), true
        FROM placed GROUP BY asset_no
    """)


def add_places(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Make the views that the decision reads: the assets with where 100ms has them, copies and listings; and the table of stores.

    Done at every plan, so that a snapshot follows a change of `source.hosted`.
    """
    connection.execute(f"""
        CREATE OR REPLACE TEMP VIEW assets AS
        SELECT * EXCLUDE (place), coalesce(place = 'hosted', false) AS lies_hosted, coalesce(place = 'elsewhere', false) AS lies_elsewhere
        FROM (
            SELECT *, CASE WHEN known_by = 'api' AND status IS DISTINCT FROM 'failed' THEN {place_sql(settings)} END AS place FROM facts.assets
        )
    """)
    connection.execute("CREATE OR REPLACE TEMP VIEW copies AS FROM facts.copies")
    connection.execute("CREATE OR REPLACE TEMP VIEW listings AS FROM facts.listings")
    connection.execute("CREATE OR REPLACE TEMP TABLE stores (store VARCHAR, scheme VARCHAR, rank INTEGER)")
    for rank, store in enumerate(settings.stores):
        connection.execute("INSERT INTO stores VALUES (?, ?, ?)", [store.name, store.scheme, rank])


def save_snapshot(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Write the facts to one DuckDB file, replacing an older one only when the new one is whole.

    It contains the names of rooms and templates, and says so in its table `about`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.half")
    half.unlink(missing_ok=True)
    connection.execute("ATTACH ? AS snapshot", [str(half)])
    connection.execute(f"""
        CREATE TABLE snapshot.about AS SELECT {SNAPSHOT_FORMAT} AS format, 'retainer facts' AS what,
            'contains the names of rooms and templates' AS privacy
    """)
    for table in ("assets", "copies", "listings"):
        order = {"assets": "asset_no", "copies": "asset_no, store", "listings": "kind, name"}[table]
        connection.execute(f"CREATE TABLE snapshot.{table} AS FROM {table} ORDER BY {order}")
    connection.execute("DETACH snapshot")
    half.replace(path)


def open_facts(path: Path, settings: Settings) -> duckdb.DuckDBPyConnection:
    """A connection with a snapshot attached read-only as `facts`, and the views that the decision reads.

    Raises RetainerError when the file is no snapshot of this format.
    """
    connection = connect()
    try:
        connection.execute(f"ATTACH {literal(str(path))} AS facts (READ_ONLY)")
        found = connection.execute("SELECT format FROM facts.about").fetchone()
    except duckdb.Error as error:
        connection.close()
        raise RetainerError(
            f"{path} cannot be read as a snapshot of facts: {str(error).splitlines()[0]}",
            hint="make one with `retainer facts --out FILE`",
        ) from None
    if found is None or found[0] != SNAPSHOT_FORMAT:
        connection.close()
        raise RetainerError(f"{path} has snapshot format {found and found[0]}; this retainer reads format {SNAPSHOT_FORMAT}")
    try:
        counted = connection.execute("SELECT count(*) FROM facts.assets").fetchone()
        make_room(connection, counted[0] if counted else 0)
        add_places(connection, settings)
        connection.execute("SELECT asset_no, settled FROM assets LIMIT 0; SELECT asset_no, owners_known FROM copies LIMIT 0; FROM listings LIMIT 0")
    except duckdb.Error as error:
        connection.close()
        raise RetainerError(
            f"{path} is no whole snapshot of facts: {str(error).splitlines()[0]}", hint="make one with `retainer facts --out FILE`"
        ) from None
    return connection
