"""Storage Insights inventory reports of Google Cloud Storage: the newest of a configuration, and
how its rows are to be read.

Source: Google Cloud Storage documentation, "Inventory reports", and the reference of ReportDetail
and FrequencyOptions. A report's shards are `CONFIGURATION_TIME_NUMBER.csv` or `.parquet`; when all
are written, `CONFIGURATION_TIME_manifest.json` names them. It has no checksums: those of the
objects themselves stand for them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ValidationError

from retainer.errors import ListingBroken
from retainer.model.inventory import LOOKED_BACK, InventoryReport, ReportFile
from retainer.model.moment import read_moment
from retainer.model.setting import Store
from retainer.ports import StoreReader

NEEDED = ("bucket", "name", "size", "generation", "storageclass", "timedeleted")
"""Without `timeDeleted` what was deleted where versions are kept would count as there."""
_MANIFEST = re.compile(r"(?:.*/)?([^/]+)_([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z?)_manifest\.json")
_MANIFEST_BYTES = 64 << 20


class _Manifest(BaseModel):
    report_config: dict[str, Any] = {}
    records_processed: int
    snapshot_time: str
    shard_count: int
    report_shards_file_names: list[str]


def newest(store: Store, reader: StoreReader, folder: str, now: datetime) -> InventoryReport | None:
    """The newest finished report of the last forty days; None where there is none. Raises
    ListingBroken where not every shard of it is there."""
    seen = {each.key: each for each in reader.list(folder)}
    since = f"{now - LOOKED_BACK:%Y-%m-%dT%H:%M}"
    found = [match for key in seen if (match := _MANIFEST.fullmatch(key)) and match[2] >= since]
    if not found:
        return None
    if len({match[1] for match in found}) > 1:
        raise ListingBroken(
            f"several configurations write their reports to gs://{reader.name}",
            hint="give each a destination of its own",
        )
    last = max(found, key=lambda match: match[2])
    read = reader.whole(last[0], _MANIFEST_BYTES)
    try:
        manifest = _Manifest.model_validate_json(read[1] if read else b"")
        moment = read_moment(manifest.snapshot_time)
    except ValidationError:
        moment = None
    if moment is None:
        raise ListingBroken(f"the report of {last[2]} has a manifest that cannot be read")
    beside = last[0].rpartition("/")[0]
    keys = [
        f"{beside}/{name.rpartition('/')[2]}".lstrip("/")
        for name in manifest.report_shards_file_names
    ]
    if missing := [key for key in keys if key not in seen]:
        raise ListingBroken(f"the report of {last[2]} lacks files, such as {missing[0]}")
    if len(set(keys)) != manifest.shard_count:
        raise ListingBroken(
            f"the report of {last[2]} names {len(set(keys))} files, and has {manifest.shard_count}"
        )
    is_parquet = all(key.endswith(".parquet") for key in keys)
    return InventoryReport(
        last[2],
        moment,
        "parquet" if is_parquet else "csv",
        tuple(ReportFile(key, seen[key].size) for key in keys),
        delimiter=_delimiter(manifest.report_config),
        rows=manifest.records_processed,
        hides_locks=True,
    )


def _delimiter(config: Mapping[str, Any]) -> str:
    options = config.get("csv_options") or config.get("csvOptions") or {}
    told = options.get("delimiter") if isinstance(options, dict) else None
    return told if isinstance(told, str) and len(told) == 1 else ","


def rows_sql(columns: Mapping[str, str], form: str) -> str:
    """SQL over a report's rows: those of `REPORTED` with `bucket`, of what is there now: nothing
    that was deleted, or replaced, since. `columns`: how each is written, by its plain name."""
    return f"""
        SELECT {columns["bucket"]} AS bucket, {columns["name"]} AS key,
            nullif({columns["size"]}::VARCHAR, '')::BIGINT AS size,
            nullif({columns["generation"]}::VARCHAR, '') AS version,
            nullif({columns["storageclass"]}, '') AS storage_class, false AS archived,
            nullif({columns["timedeleted"]}::VARCHAR, '') IS NULL AS is_there
    """
