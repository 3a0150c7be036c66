"""A report in which a bucket tells by itself what lies in it, in place of a list."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

REPORTED = {
    "key": "VARCHAR",
    "size": "BIGINT",
    "version": "VARCHAR",
    "storage_class": "VARCHAR",
    "archived": "BOOLEAN",
}
"""The rows of a report once it is read: one for each object that is there, its key without the
store's prefix."""
LOOKED_BACK = timedelta(days=40)
"""Reports come daily or weekly: an older one is none."""
LATE = timedelta(days=2)
"""What was written so long before a report, or later, may be missing from it, and what was deleted
may stand in it: S3's are a rolling snapshot, and eventually consistent (Amazon S3 User Guide,
"Inventory consistency"). No figure is given there: this is a careful guess."""


@dataclass(frozen=True, slots=True)
class ReportFile:
    """One file of a report: its key in the reports' bucket, and what the manifest says of it."""

    key: str
    size: int | None = None
    md5: str | None = None


@dataclass(frozen=True, slots=True)
class InventoryReport:
    """A finished report, before its files are read.

    `at` (UTC): when the bucket began to be looked through. `columns` and `delimiter` are of a CSV:
    without columns, its first line names them. `rows`: so many it must have, where its manifest
    says.
    """

    name: str
    at: datetime
    form: Literal["csv", "parquet", "orc"]
    files: tuple[ReportFile, ...]
    columns: tuple[str, ...] = ()
    delimiter: str = ","
    rows: int | None = None
    hides_locks: bool = False
    """Whether any object may have holds that no report of this kind tells."""

    def leaves_time(self, now: datetime, plan_age: timedelta) -> bool:
        """Whether a plan of it could still be applied for a while: it expires by `at`."""
        return self.at > now - plan_age * 3 / 4
