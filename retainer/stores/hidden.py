"""The versions that a bucket has of an object, and what it still has of one that was deleted, as
its answers say. No I/O.

Sources: https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectVersions.html and
…/userguide/ManagingDelMarkers.html; https://cloud.google.com/storage/docs/soft-delete and
…/object-versioning.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal
from urllib.parse import unquote_plus

from retainer.model.moment import read_moment
from retainer.ports import Hidden, Seen, Version
from retainer.stores.calls import Nonsense, VersionPage
from retainer.stores.gcs_answers import parsed, seen_in
from retainer.stores.s3_answers import name_of, root_of, texts
from retainer.stores.wire import Answer

NO_VERSION = "null"
"""What S3 calls the version that was written while the bucket kept none: the next write takes its
place, so a delete of it may hit something else."""


_Told = tuple[str, str, Mapping[str, str]]
"""Version or DeleteMarker, the whole key, and what is said of it."""


def _told_at_s3(answer: Answer) -> tuple[list[_Told], str | None]:
    """What a page of ListObjectVersions has, and what the next one is asked with: a key and a
    version, as JSON. Raises Nonsense."""
    root = root_of(answer, "ListVersionsResult")
    told = texts(root)
    encoded = told.get("EncodingType") == "url"
    listed: list[_Told] = []
    for child in root:
        kind, of = name_of(child), texts(child)
        if kind not in ("Version", "DeleteMarker"):
            continue
        if of.get("IsLatest") not in ("true", "false") or not of.get("VersionId"):
            raise Nonsense
        key = of.get("Key", "")
        listed.append((kind, unquote_plus(key) if encoded else key, of))
    match told.get("IsTruncated"):
        case "false":
            return listed, None
        case "true" if told.get("NextKeyMarker"):
            key = told["NextKeyMarker"]
            key = unquote_plus(key) if encoded else key
            return listed, json.dumps([key, told.get("NextVersionIdMarker", "")])
    raise Nonsense


def versions_at_s3(answer: Answer, length: int) -> VersionPage:
    """`length`: of the store's prefix. Raises Nonsense."""
    listed, then = _told_at_s3(answer)
    found = []
    for kind, key, of in listed:
        marker = kind == "DeleteMarker"
        size, etag = of.get("Size", ""), of.get("ETag", "").strip('"')
        if not marker and (not size.isdecimal() or not etag):
            raise Nonsense
        seen = Seen(key[length:], 0 if marker else int(size), etag, of.get("StorageClass") or None)
        found.append(Version(seen, of["VersionId"], of["IsLatest"] == "true", marker))
    return VersionPage(found, then)


def versions_at_google(answer: Answer, length: int) -> VersionPage:
    """`length`: of the store's prefix. Raises Nonsense."""
    told = parsed(answer)
    items = told.get("items", [])
    if told.get("kind") != "storage#objects" or not isinstance(items, list):
        raise Nonsense
    found = []
    for item in items:
        seen = seen_in(item, length)
        found.append(Version(seen, seen.version, not item.get("timeDeleted")))
    return VersionPage(found, told.get("nextPageToken") or None)


def hidden_at_s3(seen: Seen, full_key: str, answer: Answer) -> Hidden | None:
    """`answer`: of ListObjectVersions for this key. None where that version is not there, where
    another one was made since, or where no delete marker lies on it. Raises Nonsense, also where
    not all versions of the key came."""
    every, then = _told_at_s3(answer)
    listed = [(kind, of) for kind, key, of in every if key == full_key]
    if then and len(listed) == len(every):
        raise Nonsense
    marks, found = _newest_first(listed)
    is_ours = (
        found is not None
        and found.get("ETag", "").strip('"') == seen.version
        and found.get("Size") == str(seen.size)
        and not {each["VersionId"] for each in marks}
        & {of["VersionId"] for kind, of in listed if kind == "Version"}
    )
    if not marks or not is_ours:
        return None
    return Hidden(seen, marks=tuple(mark["VersionId"] for mark in marks))


def _newest_first(
    listed: list[tuple[str, Mapping[str, str]]],
) -> tuple[list[Mapping[str, str]], Mapping[str, str] | None]:
    """The markers on top of a key, and the version right under them. Amazon lists the newest first,
    whatever its LastModified says, which for an upload in parts is when that was begun; moto 5.2.5
    lists versions before markers, and then LastModified is all there is."""
    if listed and listed[0][1]["IsLatest"] != "true":
        listed = sorted(
            listed, key=lambda each: (each[1]["IsLatest"] == "true", each[1].get("LastModified"))
        )[::-1]
    marks: list[Mapping[str, str]] = []
    for kind, of in listed:
        if kind == "Version":
            return marks, of
        marks.append(of)
    return marks, None


def hidden_at_google(
    seen: Seen, full_key: str, answer: Answer, *, soft: bool
) -> Hidden | Literal["newer"] | None:
    """`answer`: of a list of versions, or (`soft`) of what is soft-deleted. `newer`: something was
    written there since. Raises Nonsense, also where not all of it came."""
    told = parsed(answer)
    items = told.get("items", [])
    if not isinstance(items, list):
        raise Nonsense
    found: Hidden | None = None
    others = False
    for item in items:
        try:
            if item["name"] != full_key:
                others = True
                continue
            generation = int(item["generation"])
        except (KeyError, TypeError, ValueError):
            raise Nonsense from None
        if generation > int(seen.version):
            return "newer"
        if generation == int(seen.version) and (soft or item.get("timeDeleted")):
            until = read_moment(str(item.get("hardDeleteTime", ""))) if soft else None
            found = Hidden(seen, soft=soft, until=until)
    if told.get("nextPageToken") and not others:
        raise Nonsense
    return found
