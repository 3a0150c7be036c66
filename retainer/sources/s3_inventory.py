"""S3 Inventory: the newest report of a configuration, and how its rows are to be read.

Source: Amazon S3 User Guide, "Locating your inventory list" and "Amazon S3 Inventory list". A
report lies in DATE/manifest.json below `destination prefix/source bucket/configuration`, and
DATE/manifest.checksum is the MD5 of that.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import BaseModel

from retainer.errors import ListingBroken
from retainer.model.inventory import LOOKED_BACK, InventoryReport, ReportFile
from retainer.model.setting import ARCHIVES, Store
from retainer.ports import StoreReader

NEEDED = ("bucket", "key", "size", "etag", "storageclass")
_DATED = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}-[0-9]{2}Z)/manifest\.(json|checksum)")
_MANIFEST_BYTES = 64 << 20
_FORMS: Mapping[str, Literal["csv", "parquet", "orc"]] = {
    "CSV": "csv",
    "Parquet": "parquet",
    "ORC": "orc",
}


class _File(BaseModel):
    key: str
    size: int
    MD5checksum: str


class _Manifest(BaseModel):
    sourceBucket: str
    creationTimestamp: int
    fileFormat: Literal["CSV", "Parquet", "ORC"]
    fileSchema: str
    files: list[_File]


def newest(store: Store, reader: StoreReader, folder: str, now: datetime) -> InventoryReport | None:
    """The newest finished report of the last forty days; None where there is none. Raises
    ListingBroken where it is not what its checksum says, or another bucket's."""
    since = f"{folder}{now - LOOKED_BACK:%Y-%m-%d}"
    until = f"{folder}{now + timedelta(days=2):%Y-%m-%d}"
    parts: dict[str, set[str]] = {}
    for seen in reader.some_between(since, until, pages=3):
        if found := _DATED.fullmatch(seen.key[len(folder) :]):
            parts.setdefault(found[1], set()).add(found[2])
    # manifest.json alone is one that is being written
    finished = [name for name, both in parts.items() if both == {"json", "checksum"}]
    if not finished:
        return None
    name = max(finished)
    content, told = (
        _content(reader, f"{folder}{name}/manifest.{end}") for end in ("json", "checksum")
    )
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != told.decode("latin-1").strip():
        raise ListingBroken(f"the report {name} is not what its manifest.checksum says")
    try:
        manifest = _Manifest.model_validate_json(content)
        moment = datetime.fromtimestamp(manifest.creationTimestamp / 1000, UTC)
    except (ValueError, OverflowError, OSError):  # one of which pydantic raises too
        raise ListingBroken(f"the report {name} has a manifest that cannot be read") from None
    if manifest.sourceBucket != store.bucket:
        raise ListingBroken(
            f"the report {name} is of the bucket {manifest.sourceBucket}, not of {store.bucket}"
        )
    form = _FORMS[manifest.fileFormat]
    return InventoryReport(
        name,
        moment,
        form,
        tuple(ReportFile(each.key, each.size, each.MD5checksum) for each in manifest.files),
        tuple(map(str.strip, manifest.fileSchema.split(","))) if form == "csv" else (),
    )


def _content(reader: StoreReader, key: str) -> bytes:
    found = reader.whole(key, _MANIFEST_BYTES)
    if found is None:
        raise ListingBroken(f"the report's {key} is not there any more")
    return found[1]


def rows_sql(columns: Mapping[str, str], form: str) -> str:
    """SQL over a report's rows: those of `REPORTED` with `bucket`, of what is there now: neither an
    older version nor a delete marker. `columns`: how each is written, by its plain name.

    Keys are URL-encoded in a CSV, and only there.
    """
    key = columns["key"]
    if form == "csv":
        key = f"try(url_decode(replace({key}, '+', '%20')))"
    latest, marker = columns.get("islatest", "'true'"), columns.get("isdeletemarker", "'false'")
    kind = f"nullif({columns['storageclass']}, '')"
    return f"""
        SELECT {columns["bucket"]} AS bucket, {key} AS key,
            nullif({columns["size"]}::VARCHAR, '')::BIGINT AS size,
            nullif(trim({columns["etag"]}, '"'), '') AS version,
            {kind} AS storage_class,
            coalesce({kind} IN {ARCHIVES}, false) AS archived,
            coalesce(nullif({latest}::VARCHAR, '')::BOOLEAN, true)
                AND NOT coalesce(nullif({marker}::VARCHAR, '')::BOOLEAN, false) AS is_there
    """
