"""Writes the reports that a cloud makes of a bucket, from a list of it. No cloud made these: they
follow the documented schemas (Amazon S3 User Guide, "Amazon S3 Inventory list" and "Locating your
inventory list"; Google Cloud Storage, "Inventory reports" and the reference of ReportDetail)."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus

import pyarrow as pa
from pyarrow import orc, parquet

from retainer.ports import Seen

Put = Callable[[str, bytes], None]
"""Writes an object into the bucket of the reports."""
S3_COLUMNS = {
    "bucket": pa.string(),
    "key": pa.string(),
    "version_id": pa.string(),
    "is_latest": pa.bool_(),
    "is_delete_marker": pa.bool_(),
    "size": pa.int64(),
    "last_modified_date": pa.timestamp("ms"),
    "e_tag": pa.string(),
    "storage_class": pa.string(),
    "is_multipart_uploaded": pa.bool_(),
}
GCS_COLUMNS = (
    "project",
    "bucket",
    "name",
    "location",
    "size",
    "timeCreated",
    "timeDeleted",
    "updated",
    "storageClass",
    "etag",
    "retentionExpirationTime",
    "crc32c",
    "md5Hash",
    "generation",
    "metageneration",
    "contentType",
    "contentEncoding",
    "timeStorageClassUpdated",
)


def s3_row(bucket: str, key: str, size: int, etag: str) -> dict[str, Any]:
    """A row as S3 Inventory has it of an object; `key` as the bucket has it."""
    return {
        "bucket": bucket,
        "key": key,
        "version_id": None,
        "is_latest": True,
        "is_delete_marker": False,
        "size": size,
        "last_modified_date": datetime(2026, 11, 1, tzinfo=UTC),
        "e_tag": etag,
        "storage_class": "STANDARD",
        "is_multipart_uploaded": False,
    }


def s3_rows(bucket: str, prefix: str, objects: Iterable[Seen]) -> list[dict[str, Any]]:
    return [s3_row(bucket, prefix + each.key, each.size, each.version) for each in objects]


def _as_csv(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> bytes:
    out = io.StringIO()
    lines = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
    for row in rows:
        told = [row[name] for name in columns]
        lines.writerow(
            [
                quote_plus(each, safe="/") if name == "key" else _text(each)
                for name, each in zip(columns, told, strict=True)
            ]
        )
    return gzip.compress(out.getvalue().encode())


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%S.000Z}"
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _as_table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> pa.Table:
    return pa.table(
        {name: pa.array([row[name] for row in rows], S3_COLUMNS[name]) for name in columns}
    )


def s3_inventory(
    put: Put,
    folder: str,
    bucket: str,
    rows: Sequence[dict[str, Any]],
    at: datetime,
    *,
    form: str = "Parquet",
    parts: int = 1,
    columns: Sequence[str] = tuple(S3_COLUMNS),
    **manifest: Any,
) -> str:
    """Write a report; gives the key of its manifest. `manifest`: what it says instead."""
    listed = []
    ends = {"CSV": "csv.gz", "Parquet": "parquet", "ORC": "orc"}[form]
    for number in range(parts):
        some = rows[number::parts]
        if form == "CSV":
            content = _as_csv(some, columns)
        else:
            sink = pa.BufferOutputStream()
            write = parquet.write_table if form == "Parquet" else _write_orc
            write(_as_table(some, columns), sink)
            content = sink.getvalue().to_pybytes()
        key = f"{folder}/data/{at:%Y%m%d%H%M%S}-{number}.{ends}"
        put(key, content)
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        listed.append({"key": key, "size": len(content), "MD5checksum": md5})
    names = {"bucket": "Bucket", "key": "Key", "e_tag": "ETag"}
    told = {
        "sourceBucket": bucket,
        "destinationBucket": "arn:aws:s3:::reports",
        "version": "2016-11-30",
        "creationTimestamp": str(int(at.timestamp() * 1000)),
        "fileFormat": form,
        "fileSchema": ", ".join(
            names.get(each) or "".join(map(str.capitalize, each.split("_"))) for each in columns
        )
        if form == "CSV"
        else "message s3.inventory { … }",
        "files": listed,
    } | manifest
    return s3_manifest(put, folder, at, told)


def s3_manifest(put: Put, folder: str, at: datetime, told: dict[str, Any]) -> str:
    content = json.dumps(told).encode()
    key = f"{folder}/{at.astimezone(UTC):%Y-%m-%dT%H-%MZ}/manifest.json"
    put(key, content)
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    put(key.replace(".json", ".checksum"), md5.encode())
    return key


def _write_orc(table: pa.Table, sink: pa.BufferOutputStream) -> None:
    orc.write_table(table, sink)


def gcs_row(bucket: str, name: str, size: int, generation: str) -> dict[str, Any]:
    """A row as Storage Insights has it of an object."""
    return dict.fromkeys(GCS_COLUMNS) | {
        "project": "123456",
        "bucket": bucket,
        "name": name,
        "location": "EU",
        "size": size,
        "storageClass": "STANDARD",
        "generation": generation,
    }


def gcs_rows(bucket: str, prefix: str, objects: Iterable[Seen]) -> list[dict[str, Any]]:
    return [gcs_row(bucket, prefix + each.key, each.size, each.version) for each in objects]


def storage_insights(
    put: Put,
    folder: str,
    rows: Sequence[dict[str, Any]],
    at: datetime,
    *,
    form: str = "csv",
    parts: int = 1,
    config: str = "1a34-f2e4",
    columns: Sequence[str] = GCS_COLUMNS,
    **manifest: Any,
) -> str:
    """Write a report; gives the key of its manifest. `manifest`: what it says instead."""
    begin = f"{folder}/{config}_{at:%Y-%m-%dT%H:%M}_"
    names = []
    for number in range(parts):
        some = rows[number::parts]
        if form == "csv":
            out = io.StringIO()
            lines = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\n")
            lines.writeheader()
            lines.writerows({name: _text(each) for name, each in row.items()} for row in some)
            content = out.getvalue().encode()
        else:
            sink = pa.BufferOutputStream()
            told_of = {
                name: pa.array(
                    [row[name] for row in some], pa.int64() if name == "size" else pa.string()
                )
                for name in columns
            }
            parquet.write_table(pa.table(told_of), sink)
            content = sink.getvalue().to_pybytes()
        put(f"{begin}{number}.{form}", content)
        names.append(f"{begin}{number}.{form}".rpartition("/")[2])
    told = {
        "report_config": {"csv_options": {"delimiter": ",", "header_required": True}},
        "records_processed": len(rows),
        "snapshot_time": f"{at:%Y-%m-%dT%H:%M:%SZ}",
        "target_datetime": f"{at:%Y-%m-%dT%H:%M:%SZ}",
        "shard_count": parts,
        "report_shards_file_names": names,
    } | manifest
    put(f"{begin}manifest.json", json.dumps(told).encode())
    return f"{begin}manifest.json"
