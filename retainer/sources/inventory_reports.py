"""The reports in which a bucket tells by itself what lies in it: found, fetched, checked, and made
rows of one kind."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb
import google_crc32c

from retainer.database import connect, exactly, literal, only_row, write_parquet
from retainer.errors import ListingBroken
from retainer.model.inventory import REPORTED, InventoryReport, ReportFile
from retainer.model.setting import OWN_PREFIX, Store
from retainer.ports import Checksum, StoreReader
from retainer.sources import s3_inventory, storage_insights

_FILES_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class _Dialect:
    """How one cloud writes its reports. `needed`: the columns without which there are no facts."""

    newest: Callable[[Store, StoreReader, str, datetime], InventoryReport | None]
    needed: tuple[str, ...]
    rows_sql: Callable[[Mapping[str, str], str], str]


_DIALECTS = {
    "s3": _Dialect(s3_inventory.newest, s3_inventory.NEEDED, s3_inventory.rows_sql),
    "gs": _Dialect(storage_insights.newest, storage_insights.NEEDED, storage_insights.rows_sql),
}


class BucketReports:
    """Reports of one store's bucket."""

    def __init__(self, store: Store, reader: StoreReader, folder: str) -> None:
        """`reader`: of the whole bucket that the reports lie in, as manifests name files by their
        keys in it; `folder`: with a slash at its end."""
        self._store, self._reader, self._folder = store, reader, folder
        self._dialect = _DIALECTS[store.scheme]

    def newest(self, now: datetime) -> InventoryReport | None:
        return self._dialect.newest(self._store, self._reader, self._folder, now)

    def fetch(self, report: InventoryReport, folder: Path) -> Path:
        folder.mkdir(parents=True)
        packed = all(each.key.endswith(".gz") for each in report.files)
        ends = f"{report.form}.gz" if packed else report.form
        files = {folder / f"{n}.{ends}": each for n, each in enumerate(report.files)}
        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            for done in [pool.submit(self._fetch, each, path) for path, each in files.items()]:
                done.result()
        made = folder / "objects.parquet"
        with closing(connect(folder)) as connection:
            try:
                self._make_rows(connection, report, [*files], made)
            except (duckdb.Error, csv.Error, ValueError) as error:
                reason = str(error).partition("\n")[0]
                raise ListingBroken(f"the report {report.name} cannot be read: {reason}") from None
        for path in files:
            path.unlink()
        return made

    def _fetch(self, file: ReportFile, path: Path) -> None:
        """One file, as its manifest and the bucket say it is. Raises ListingBroken, StoreFailed."""
        look = self._reader.look(file.key)
        if look is None:
            raise ListingBroken(f"the report lacks a file: {file.key} is not there")
        md5, crc32c = hashlib.md5(usedforsecurity=False), google_crc32c.Checksum()
        with path.open("wb") as out:
            for piece in self._reader.read(look.seen):
                md5.update(piece)
                crc32c.update(piece)
                out.write(piece)
        told = look.checksum or look.told
        is_whole = (
            file.size in (None, look.seen.size)
            and (file.md5 is None or file.md5.lower() == md5.hexdigest())
            and (told is None or told.kind != "crc32c" or told == Checksum.of("crc32c", crc32c))
        )
        if not is_whole:
            raise ListingBroken(f"the report's {file.key} is not what its manifest says")

    def _make_rows(
        self,
        connection: duckdb.DuckDBPyConnection,
        report: InventoryReport,
        files: list[Path],
        made: Path,
    ) -> None:
        """Raises ListingBroken, duckdb.Error."""
        if report.form == "orc":
            files = [_as_parquet(path) for path in files]
        if not files:
            empty = ", ".join(f"NULL::{kind} AS {name}" for name, kind in REPORTED.items())
            write_parquet(connection, f"SELECT {empty} LIMIT 0", made)
            return
        source = _source(report, files)
        told = connection.execute(f"DESCRIBE FROM {source}").fetchall()
        columns = {_plain(name): f'"{name.replace(chr(34), chr(34) * 2)}"' for name, *_ in told}
        if missing := [name for name in self._dialect.needed if name not in columns]:
            raise ListingBroken(
                f"the report {report.name} does not tell each object's {' and '.join(missing)}",
                hint="add that to the fields of its configuration",
            )
        every = f"({self._dialect.rows_sql(columns, report.form)} FROM {source})"
        prefix, bucket = literal(self._store.prefix), literal(self._store.bucket)
        ours = f"is_there AND starts_with(key, {prefix})"
        # what retainer keeps for itself is written again and again, and read live
        once = f"{ours} AND NOT starts_with(key, {literal(self._store.prefix + OWN_PREFIX)})"
        count, unread, others, twice = only_row(
            connection,
            f"""SELECT count(*), count(*) FILTER (key IS NULL
                    OR ({ours} AND (size IS NULL OR size < 0 OR version IS NULL))),
                count(*) FILTER (bucket IS DISTINCT FROM {bucket}),
                count(*) FILTER ({once}) - count(DISTINCT hash(key)) FILTER ({once})
            FROM {every}""",
        )
        for wrong, what in (
            (unread, "rows without a key, a size or a version"),
            (others, f"rows of other buckets than {self._store.bucket}"),
            (twice, "rows that name an object again"),
            (abs(count - report.rows) if report.rows is not None else 0, "rows too many or few"),
        ):
            if wrong:
                raise ListingBroken(f"the report {report.name} has {wrong:,} {what}")
        below = f"key[len({prefix}) + 1:]"
        selected = ", ".join(f"{below} AS key" if name == "key" else name for name in REPORTED)
        write_parquet(
            connection,
            f"SELECT {selected} FROM {every} WHERE {ours} AND len(key) > len({prefix})",
            made,
        )


def _plain(name: str) -> str:
    """A column's name as all forms of a report have it: LastModifiedDate, last_modified_date."""
    return name.lower().replace("_", "")


def _source(report: InventoryReport, files: list[Path]) -> str:
    """SQL: the rows of a report as its files have them."""
    listed = ", ".join(exactly(path) for path in files)
    if report.form != "csv":
        return f"read_parquet([{listed}])"
    options: dict[str, str] = {
        "auto_detect": "false",
        "delim": literal(report.delimiter),
        "quote": "'\"'",
        "escape": "'\"'",
        "nullstr": "''",
        "header": "false" if report.columns else "true",
    }
    names = report.columns or _header(files, report)
    typed = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in names)
    options["columns"] = f"{{{typed}}}"
    told = ", ".join(f"{name} = {value}" for name, value in options.items())
    return f"read_csv([{listed}], {told})"


def _header(files: list[Path], report: InventoryReport) -> tuple[str, ...]:
    """The columns that the first line of each file names: DuckDB goes by the place of a column once
    it is told their names. Raises ListingBroken where they differ."""
    found = set()
    for path in files:
        with path.open(encoding="utf-8", errors="replace", newline="") as lines:
            row = next(csv.reader(lines, delimiter=report.delimiter), [])
            found.add(tuple(row))
    if len(found) != 1 or len(set(names := found.pop())) != len(names):
        raise ListingBroken(
            f"the files of the report {report.name} do not have the same columns",
            hint="let its configuration write a header into each CSV",
        )
    return names


def _as_parquet(path: Path) -> Path:
    """An ORC file in the form that DuckDB reads. Raises ListingBroken without pyarrow."""
    try:
        from pyarrow import ArrowException, orc, parquet
    except ImportError:
        raise ListingBroken(
            "a report in ORC is read with pyarrow, which is not installed",
            hint="pip install 'retainer[orc]', or let the configuration write Parquet",
        ) from None
    made = path.with_suffix(".parquet")
    try:
        file = orc.ORCFile(path)
        with parquet.ParquetWriter(made, file.schema) as writer:
            for number in range(file.nstripes):
                writer.write_batch(file.read_stripe(number))
    except (ArrowException, OSError) as error:
        raise ListingBroken(f"a file of the report cannot be read as ORC: {error}") from None
    return made
