"""What a bucket still has of an object that was deleted, as its answers say. No I/O.

Sources: https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectVersions.html and
…/userguide/ManagingDelMarkers.html; https://cloud.google.com/storage/docs/soft-delete and
…/object-versioning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_plus

from retainer.model.moment import read_moment
from retainer.ports import Hidden, Seen
from retainer.stores.calls import Nonsense
from retainer.stores.gcs_answers import parsed
from retainer.stores.s3_answers import name_of, root_of, texts
from retainer.stores.wire import Answer

NO_VERSION = "null"
"""What S3 calls the version that was written while the bucket kept none: the next write takes its
place, so a delete of it may hit something else."""


def hidden_at_s3(seen: Seen, full_key: str, answer: Answer) -> Hidden | None:
    """`answer`: of ListObjectVersions for this key. None where that version is not there, where
    another one was made since, or where no delete marker lies on it. Raises Nonsense, also where
    not all versions of the key came."""
    root = root_of(answer, "ListVersionsResult")
    told = texts(root)
    encoded = told.get("EncodingType") == "url"
    versions: list[Mapping[str, str]] = []
    marks: list[Mapping[str, str]] = []
    others = False
    for child in root:
        kind, of = name_of(child), texts(child)
        if kind not in ("Version", "DeleteMarker"):
            continue
        key = unquote_plus(of.get("Key", "")) if encoded else of.get("Key", "")
        if key != full_key:
            others = True
        elif of.get("IsLatest") not in ("true", "false") or not of.get("VersionId"):
            raise Nonsense
        else:
            (versions if kind == "Version" else marks).append(of)
    if told.get("IsTruncated") not in ("true", "false"):
        raise Nonsense
    if told["IsTruncated"] == "true" and not others:
        raise Nonsense
    if not any(mark["IsLatest"] == "true" for mark in marks):
        return None
    newest = max((of.get("LastModified", "") for of in versions), default="")
    lately = [of for of in versions if of.get("LastModified", "") == newest]
    if not lately or not all(
        of.get("ETag", "").strip('"') == seen.version and of.get("Size") == str(seen.size)
        for of in lately
    ):
        return None
    above = [mark for mark in marks if mark.get("LastModified", "") >= newest]
    above.sort(key=lambda mark: (mark["IsLatest"] == "true", mark.get("LastModified", "")))
    return Hidden(seen, marks=tuple(mark["VersionId"] for mark in reversed(above)))


def hidden_at_google(seen: Seen, full_key: str, answer: Answer, *, soft: bool) -> Hidden | None:
    """`answer`: of a list of versions, or (`soft`) of what is soft-deleted. Raises Nonsense."""
    items = parsed(answer).get("items", [])
    if not isinstance(items, list):
        raise Nonsense
    for item in items:
        if not isinstance(item, dict):
            raise Nonsense
        if item.get("name") == full_key and str(item.get("generation")) == seen.version:
            return _of_google(seen, item, soft=soft)
    return None


def _of_google(seen: Seen, item: Mapping[str, Any], *, soft: bool) -> Hidden | None:
    if not soft and not item.get("timeDeleted"):
        return None
    until = read_moment(str(item.get("hardDeleteTime", ""))) if soft else None
    return Hidden(seen, soft=soft, until=until)
