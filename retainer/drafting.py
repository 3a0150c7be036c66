"""A plan's rows on their way to its file: taken from range after range of recordings, put in the
order of the whole, and written with the header."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import duckdb

from retainer.database import ALWAYS, NEVER, literal, only_row, write_parquet
from retainer.planfile import (
    AT_ONCE,
    COLUMNS,
    KEY,
    NO_DIGEST,
    Header,
    canonical,
    digest_of,
    place_of_digest,
)
from retainer.private import private_file

WHILE_WRITING = "180MB"
"""DuckDB's memory while several ranges are put together, on one thread: what it takes to read and
write so many files counts towards no limit (2.0.1)."""
_QUIET = "(FROM quiet_lines ORDER BY asset_no, store)"
_PIECE = ", COMPRESSION lz4, ROW_GROUP_SIZE 10240"
_TOLD = {
    name: f"CASE WHEN {name} > {NEVER} THEN {NEVER} WHEN {name} < {ALWAYS} THEN {ALWAYS} "
    f"ELSE {name} END"
    if kind == "TIMESTAMP"
    else name
    for name, kind in COLUMNS.items()
}
"""SQL: each column as a plan tells it."""


class Draft(AbstractContextManager["Draft"]):
    """Of one plan. Its parts lie in the private folder until it ends."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._parts = 0
        self._quiet: list[str] = []
        self._pieces: list[str] = []
        self._files: list[Path] = []
        self._kinds: dict[str, str] = {}
        self._quiet_kinds: dict[str, str] = {}

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.unlink(missing_ok=True)

    def take(self, *, alone: bool) -> None:
        """The rows of the views lines and quiet_lines. `alone`: there is no other range, so that
        the quiet ones are read where they are."""
        if not self._kinds:
            self._kinds, self._quiet_kinds = self._kinds_of("lines"), self._kinds_of("quiet_lines")
        rows = only_row(self._connection, "SELECT count(*) FROM acting")[0]
        told = f"{_told(COLUMNS)}, {self._parts} AS part, turn, asset_no"
        for first in range(0, rows or not self._parts, AT_ONCE):
            self._pieces.append(
                self._piece(
                    f"SELECT {told} FROM lines "
                    f"WHERE n BETWEEN {first} AND {first + AT_ONCE - 1} ORDER BY n"
                )
            )
        if not alone:
            self._quiet.append(self._piece(f"SELECT {_told(self._quiet_kinds)} FROM {_QUIET}"))
        self._parts += 1

    def write(self, header: Header) -> Path:
        """All that was taken, the quiet rows first, and a header: one file in the private
        folder."""
        half = private_file(".plan")
        few = ", ".join(
            f"({_TOLD[name]})::{self._quiet_kinds[name]} AS {name}"
            if name in self._quiet_kinds
            else f"NULL::{kind} AS {name}"
            for name, kind in COLUMNS.items()
        )
        quiet = _read(self._quiet) if self._quiet else _QUIET
        if self._parts > 1:
            self._connection.execute(f"SET threads = 1; SET memory_limit = '{WHILE_WRITING}'")
        rows = " UNION ALL ".join((f"SELECT {few} FROM {quiet}", *self._numbered()))
        write_parquet(
            self._connection,
            rows,
            half,
            ", COMPRESSION zstd, COMPRESSION_LEVEL 1, DICTIONARY_SIZE_LIMIT 1000, "
            f"ROW_GROUP_SIZE 30720, KV_METADATA {{'{KEY}': {literal(canonical(header))}}}",
        )
        with half.open("r+b") as stream:
            place = place_of_digest(stream, NO_DIGEST)
            assert place is not None
            digest = digest_of(stream, place)
            stream.seek(place)
            stream.write(digest.encode())
        return half

    def _numbered(self) -> Iterator[str]:
        """SQL: the rows that have a number, in its order.

        Of several ranges, a turn is that of the first range, then of the next; only copies with a
        deadline are in the order of all of them.
        """
        pieces = _read(self._pieces)
        if self._parts == 1:
            yield f"SELECT {self._as_they_were('n')} FROM {pieces}"
            return
        urgent = self._urgent(pieces)
        if urgent:
            yield f"SELECT {self._as_they_were('n')} FROM {_read(urgent)}"
        moved: dict[int, dict[int, int]] = {}
        for turn, part, by in self._connection.execute(f"""
            SELECT turn, part, (sum(rows) OVER (ORDER BY turn, part) - rows - first)::INTEGER
            FROM (SELECT turn, part, count(*) AS rows, min(n) AS first FROM {pieces} GROUP BY ALL)
            ORDER BY ALL
        """).fetchall():
            moved.setdefault(turn, {})[part] = by
        for turn, of in moved.items():
            if turn > 0:
                by = ", ".join(str(of.get(part, 0)) for part in range(self._parts))
                yield (
                    f"SELECT {self._as_they_were(f'(n + [{by}][part + 1])')} FROM {pieces} "
                    f"WHERE turn = {turn}"
                )

    def _urgent(self, pieces: str) -> list[str]:
        """Copies with a deadline, in the order of all ranges: files, each with some of them."""
        self._connection.execute(f"""
            CREATE OR REPLACE TEMP TABLE urgent AS
            SELECT asset_no, store, deadline,
                row_number() OVER (ORDER BY deadline, asset_no, store) - 1 AS nth
            FROM {pieces} WHERE turn = 0
        """)
        chunks = self._connection.execute(
            f"SELECT nth // {AT_ONCE} AS chunk, min(deadline), max(deadline) FROM urgent "
            "GROUP BY chunk ORDER BY chunk"
        ).fetchall()
        columns = ", ".join("nth AS n" if name == "n" else f"piece.{name}" for name in COLUMNS)
        # each piece is in the order of deadlines, so that little of it is read that is not wanted
        return [
            self._piece(
                f"SELECT {columns} FROM {pieces} AS piece JOIN urgent USING (asset_no, store) "
                f"WHERE turn = 0 AND piece.deadline BETWEEN '{first}' AND '{last}' "
                f"AND nth // {AT_ONCE} = {number} ORDER BY nth"
            )
            for number, first, last in chunks
        ]

    def _as_they_were(self, number: str) -> str:
        """SQL: the columns of pieces in the kinds that the views have, which Parquet knows not."""
        return ", ".join(
            f"{number if name == 'n' else name}::{self._kinds[name]} AS {name}" for name in COLUMNS
        )

    def _kinds_of(self, view: str) -> dict[str, str]:
        there = self._connection.execute(f"DESCRIBE {view}").fetchall()
        return {name: kind for name, kind, *_ in there if name in COLUMNS}

    def _piece(self, query: str) -> str:
        path = private_file(".parquet")
        self._files.append(path)
        write_parquet(self._connection, query, path, _PIECE)
        return literal(str(path))


def _told(columns: Iterable[str]) -> str:
    return ", ".join(f"{_TOLD[name]} AS {name}" for name in columns)


def _read(files: list[str]) -> str:
    return f"read_parquet([{', '.join(files)}])"
