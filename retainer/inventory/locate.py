"""Where an asset lies: its key in a store, the asset that a key belongs to, and the place that its
`path` names."""

from __future__ import annotations

import re
from functools import cache
from urllib.parse import unquote

from retainer.database import literal
from retainer.model.setting import Settings, Store

_FIELDS = ("type", "yyyy", "mm", "dd", "room_id", "session_id", "asset_id", "filename")
_EXTENSIONS = {
    "room-composite": "mp4",
    "room-composite-legacy": "mp4",
    "room-vod": "zip",
    "chat": "csv",
    "transcript": "txt",
    "summary": "json",
    "track": "webm",
    "stream": "mp4",
}

PLAYLIST = "coalesce(lower(split_part(path, '?', 1)) LIKE '%.m3u8', false)"
"""SQL: the path names a playlist, whose segments lie in the folder beside it (100ms-api.md, "Where
the bytes are")."""
_ONE_FILE = "coalesce(regexp_matches(lower(split_part(path, '?', 1)), '[.](zip|mp4)$'), false)"
UNZIPPED = f"({PLAYLIST} OR (type IS NOT DISTINCT FROM 'room-vod' AND NOT {_ONE_FILE}))"
"""SQL: a recording that is, or may be, playlists and segments."""
MANY_OBJECTS = f"({UNZIPPED} OR coalesce(len(thumbnails) > 0, false))"
"""SQL: an asset that is more than one file."""
ANOTHER_RECORDING = (
    r"regexp_matches(key, "
    r"'/(Rec-[0-9a-f]{24}-[0-9]+(-[^/]*)?[.](mp4|zip|csv)|[0-9a-f-]{36}[.]webm"
    r"|[0-9a-f-]{36}/[0-9a-f-]{36}[.]mp4)$')"
)
"""SQL: an object that by its documented name is a recording of its own, and no part of the folder
it lies in."""
IN_DELETE_ORDER = """
    ends_with(key, 'manifest.json'), CASE WHEN ends_with(key, 'manifest.json') THEN -len(key) END,
    parse_filename(key) IS DISTINCT FROM parse_filename(split_part(path, '?', 1)),
        NOT lower(key) LIKE '%.m3u8',
    len(string_split(key, '/')), key"""
"""SQL over the objects of an asset: the entry that its path names first, then playlists from the
outside in, a manifest last."""


def _segment(column: str, otherwise: str) -> str:
    """SQL: a column as one safe piece of a key; only an asset's id must survive exactly, and it is
    quoted instead."""
    return (
        f"coalesce(nullif(left(ltrim(regexp_replace({column}, '[^A-Za-z0-9._-]+', '_', 'g'), "
        f"'.'), 150), ''), {otherwise})"
    )


def key_sql(store: Store) -> str:
    """SQL over the assets table (with `created`): the key of an asset's copy in a store, without
    the store's prefix.

    A recording of many objects gets a folder, with a slash at its end.
    """
    return f"CASE WHEN many THEN {_filled(_folder(store.layout))} ELSE {_filled(store.layout)} END"


def _folder(layout: str) -> str:
    """The layout of a folder: that of a file, without its name where that stands by itself."""
    return layout.removesuffix("{filename}") if layout.endswith("/{filename}") else f"{layout}/"


def _filled(layout: str) -> str:
    extension = (
        "CASE type "
        + " ".join(f"WHEN '{name}' THEN '.{end}'" for name, end in _EXTENSIONS.items())
        + " ELSE '' END"
    )
    asset_id = "replace(replace(replace(url_encode(asset_id), '.', '%2E'), '-', '%2D'), '_', '%5F')"
    pieces = {
        "type": _segment("type", "'untyped'"),
        "yyyy": "coalesce(strftime(created, '%Y'), 'undated')",
        "mm": "coalesce(strftime(created, '%m'), '00')",
        "dd": "coalesce(strftime(created, '%d'), '00')",
        "room_id": _segment("room_id", "'no-room'"),
        "session_id": _segment("session_id", "'no-session'"),
        "asset_id": asset_id,
        "filename": _segment(
            "parse_filename(split_part(path, '?', 1))", f"({asset_id} || {extension})"
        ),
    }
    parts = [
        pieces[part[1:-1]] if part.startswith("{") else literal(part)
        for part in re.split(r"(\{\w+\})", layout)
        if part
    ]
    return " || ".join(parts)


@cache
def layout_regex(layout: str) -> str:
    """RE2: a key made from this layout; group 1 is the quoted asset id."""
    seen = False
    out = ""
    for part in re.split(r"(\{\w+\})", layout):
        if part == "{asset_id}" and not seen:
            seen, out = True, out + r"([^/._-]+)"
        elif part.startswith("{") and part[1:-1] in _FIELDS:
            out += r"[^/]+?"
        else:
            out += re.sub(r"([][(){}.*+?^$|\\])", r"\\\1", part)
    return f"^{out}{'.+' if layout.endswith('/') else ''}$"


def assets_of_key_sql(store: Store) -> str:
    """SQL over an objects table: the ids of the assets whose copy in this store might have this
    key, the likeliest first, or NULL."""
    layouts = (store.layout, *store.layouts)
    patterns = [layout_regex(layout) for layout in (*layouts, *map(_folder, layouts))]
    found = [
        f"try(url_decode(nullif(regexp_extract(key, {literal(pattern)}, 1), '')))"
        for pattern in patterns
    ]
    return f"[{', '.join(found)}]"


def assets_of_key(store: Store, key: str) -> set[str]:
    """The ids of the assets whose copy in this store might have this key: as `assets_of_key_sql`,
    for one key."""
    layouts = (store.layout, *store.layouts)
    found = (re.match(layout_regex(layout), key) for layout in (*layouts, *map(_folder, layouts)))
    return {unquote(each[1]) for each in found if each}


def _in_bucket(pattern: str) -> str:
    """SQL: whether `path` lies in a bucket that fits the pattern. A pattern that only ends in `*`
    needs no look at the bucket."""
    if pattern.endswith("*") and not set(pattern[:-1]) & set("*?["):
        return f"starts_with(path, {literal(pattern[:-1])})"
    return f"regexp_extract(path, '^[a-z0-9]+://[^/]+') GLOB {literal(pattern)}"


def place_sql(settings: Settings) -> str:
    """SQL over the assets table: where its `path` lies: 'hosted', 'elsewhere', or NULL for a bucket
    that 100ms uploads to.

    Raises nothing; what nobody declared, and an asset without a path, lies elsewhere.
    """
    own = [
        f"starts_with(path, {literal(store.base)})"
        for store in settings.stores
        if store.written_by_100ms
    ]
    hosted = [_in_bucket(pattern.rstrip("/")) for pattern in settings.source.hosted]
    own_sql, hosted_sql = " OR ".join(own) or "false", " OR ".join(hosted) or "false"
    return (
        f"CASE WHEN coalesce({own_sql}, false) THEN NULL WHEN coalesce({hosted_sql}, false) "
        "THEN 'hosted' ELSE 'elsewhere' END"
    )
