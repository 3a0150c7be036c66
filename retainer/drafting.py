"""A plan's rows on their way to its file: taken from range after range of recordings, put in the
order of the whole, and written with the header."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import duckdb

from retainer.binding import bind
from retainer.database import ALWAYS, NEVER, literal, memory_of, only_row, write_parquet
from retainer.errors import RetainerError
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

IN_ORDER = "360MB"
"""DuckDB's memory while quiet rows are written. It (2.0.1) writes in order on more than one thread
only where half of what it may take is 4 MiB for each column and thread, however little it does take
(findings/duckdb-copy-in-order.sh)."""
WHILE_WRITING = "180MB"
"""DuckDB's memory while several ranges are put together, on one thread: what it takes to read and
write so many files counts towards no limit (2.0.1)."""
_FINAL = ", COMPRESSION zstd, COMPRESSION_LEVEL 1, DICTIONARY_SIZE_LIMIT 1000, ROW_GROUP_SIZE 30720"
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

    def __init__(self, connection: duckdb.DuckDBPyConnection, first: int = 0) -> None:
        """`first`: which of the ranges of recordings comes first."""
        self._connection = connection
        self._parts = first
        self._quiet: list[Path] = []
        self._pieces: list[Path] = []
        self._files: list[Path] = []
        self._kinds: dict[str, str] = {}

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.unlink(missing_ok=True)

    def take(self) -> None:
        """The rows of the views lines and quiet_lines: the quiet ones as they will stand in the
        file, and the others as they will be put in order."""
        self.learn()
        with memory_of(self._connection, IN_ORDER):
            self._quiet.append(self._written(self._quiet_rows(), _FINAL))
        rows = only_row(self._connection, "SELECT count(*) FROM acting")[0]
        told = f"{_told(COLUMNS)}, {self._parts} AS part, turn, asset_no"
        for first in range(0, rows or not self._parts, AT_ONCE):
            self._pieces.append(
                self._written(
                    f"SELECT {told} FROM lines "
                    f"WHERE n BETWEEN {first} AND {first + AT_ONCE - 1} ORDER BY n",
                    _PIECE,
                )
            )
        self._parts += 1

    def learn(self) -> None:
        """Of which kinds the columns of the view lines are."""
        self._kinds = self._kinds or self._kinds_of("lines")

    @property
    def taken(self) -> tuple[list[Path], list[Path]]:
        """What was taken, as it lies in the private folder: the quiet rows, and the others."""
        return self._quiet, self._pieces

    def join(self, quiet: Sequence[Path], pieces: Sequence[Path]) -> None:
        """The next range, as another draft has taken it."""
        self._quiet += quiet
        self._pieces += pieces
        self._files += [*quiet, *pieces]
        self._parts += 1

    def write(self, header: Header) -> Path:
        """All that was taken, the quiet rows first, and a header: one file in the private folder.
        Raises RetainerError where it cannot be written."""
        half = private_file(".plan")
        if self._parts > 1:
            self._connection.execute(f"SET threads = 1; SET memory_limit = '{WHILE_WRITING}'")
        rows = " UNION ALL ".join(self._numbered())
        told = f", KV_METADATA {{'{KEY}': {literal(canonical(header))}}}"
        numbered = self._written(rows, _FINAL + told)
        try:
            bind([*self._quiet, numbered], half)
            with half.open("r+b") as stream:
                place = place_of_digest(stream, NO_DIGEST)
                assert place is not None
                digest = digest_of(stream, place)
                stream.seek(place)
                stream.write(digest.encode())
        except (ValueError, IndexError) as error:
            raise RetainerError(f"the parts of a plan do not fit together: {error}") from None
        except OSError as error:
            raise RetainerError(
                f"a plan cannot be written in {half.parent}: {error.strerror}",
                hint="free some of its disk, or set TMPDIR to a folder with more",
            ) from None
        return half

    def _quiet_rows(self) -> str:
        few = self._kinds_of("quiet_lines")
        columns = ", ".join(
            f"({_TOLD[name]})::{few[name]} AS {name}" if name in few else f"NULL::{kind} AS {name}"
            for name, kind in self._kinds.items()
        )
        return f"SELECT {columns} FROM (FROM quiet_lines ORDER BY asset_no, store)"

    def _numbered(self) -> Iterator[str]:
        """SQL: the rows that have a number, in its order.

        Of several ranges, a turn is that of the first range, then of the next; only copies with a
        deadline are in the order of all of them.
        """
        pieces = _read(self._pieces)
        if self._parts == 1:
            yield f"SELECT {self._as_they_were('n')} FROM {pieces}"
            return
        # also where there are none: of nothing there would be no query
        yield f"SELECT {self._as_they_were('n')} FROM {pieces} WHERE false"
        if urgent := self._urgent(pieces):
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

    def _urgent(self, pieces: str) -> list[Path]:
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
            self._written(
                f"SELECT {columns} FROM {pieces} AS piece JOIN urgent USING (asset_no, store) "
                f"WHERE turn = 0 AND piece.deadline BETWEEN '{first}' AND '{last}' "
                f"AND nth // {AT_ONCE} = {number} ORDER BY nth",
                _PIECE,
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
        kinds = {name: kind for name, kind, *_ in there}
        return {name: kinds[name] for name in COLUMNS if name in kinds}

    def _written(self, query: str, options: str) -> Path:
        path = private_file(".parquet")
        self._files.append(path)
        write_parquet(self._connection, query, path, options)
        return path


def _told(columns: Iterable[str]) -> str:
    return ", ".join(f"{_TOLD[name]} AS {name}" for name in columns)


def _read(files: Sequence[Path]) -> str:
    return f"read_parquet([{', '.join(literal(str(file)) for file in files)}])"
