"""Several Parquet files of one schema -> one file, row group by row group, as they are: nothing is
decoded, so that rows that were written once are never written again.

What a file says of itself stands at its end, as a struct of Thrift's compact protocol
(https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md); which fields it
has: https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

_MAGIC = b"PAR1"
_PIECE = 1 << 20
"""So many bytes are copied at a time."""
_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 0, 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS = 4, 5, 6
_WRITTEN = -1
"""A list of which the elements are bytes already."""

Struct = dict[int, tuple[int, Any]]
"""The fields of a struct by their number, in their order: the kind of each, and its value."""

_SCHEMA, _ROWS, _ROW_GROUPS = 2, 3, 4
"""Of a file."""
_COLUMNS, _BEGINS, _ORDINAL = 1, 5, 7
"""Of a row group."""
_CHUNK_BEGINS, _CHUNK_SAYS, _PAGES = 2, 3, (4, 5, 6, 7)
"""Of a column in a row group: where it lies, and where lists of its pages are."""
_PAGES_BEGIN = 9, 10, 11, 14
"""Of what it says: where its pages, its dictionary and its Bloom filter lie."""


def bind(parts: Sequence[Path], whole: Path) -> None:
    """Write the rows of Parquet files, in this order, to a new one, which has the metadata of the
    last of them. Raises ValueError where they are of different schemas, or no Parquet files, and
    OSError."""
    groups, count, rows = BytesIO(), 0, 0
    said: Struct = {}
    with whole.open("xb") as target:
        target.write(_MAGIC)
        for part in parts:
            with part.open("rb") as source:
                before, (said, end) = said, _footer(source)
                if before and before[_SCHEMA] != said[_SCHEMA]:
                    raise ValueError(f"{part.name} has other columns")
                shift = target.tell() - len(_MAGIC)
                for group in said[_ROW_GROUPS][1][1]:
                    _write(groups, _STRUCT, _moved(group, shift))
                    count += 1
                rows += said[_ROWS][1]
                source.seek(len(_MAGIC))
                _copy(source, target, end - len(_MAGIC))
        begins = target.tell()
        said[_ROWS] = said[_ROWS][0], rows
        said[_ROW_GROUPS] = _WRITTEN, (_STRUCT, count, groups.getvalue())
        _write(target, _STRUCT, said)
        target.write((target.tell() - begins).to_bytes(4, "little") + _MAGIC)


def _footer(source: BinaryIO) -> tuple[Struct, int]:
    """What a file says of itself, and where that begins."""
    size = source.seek(0, os.SEEK_END)
    source.seek(max(0, size - 8))
    length, magic = int.from_bytes(source.read(4), "little"), source.read(4)
    begins = size - 8 - length
    if magic != _MAGIC or begins < len(_MAGIC):
        raise ValueError("it is no Parquet file")
    source.seek(begins)
    said: Struct = _read(BytesIO(source.read(length)), _STRUCT)
    return said, begins


def _copy(source: BinaryIO, target: BinaryIO, count: int) -> None:
    while count > 0 and (piece := source.read(min(count, _PIECE))):
        target.write(piece)
        count -= len(piece)
    if count:
        raise ValueError("it is shorter than it says")


def _moved(group: Struct, by: int) -> Struct:
    """A row group, so many bytes further on in a file. What may be left out is: its place among all
    of them, for there can be more than such a place may tell, and lists of pages, in which stands
    where those were."""
    group.pop(_ORDINAL, None)
    for chunk in group[_COLUMNS][1][1]:
        for each in _PAGES:
            chunk.pop(each, None)
        _shift(chunk, (_CHUNK_BEGINS,), by)
        if _CHUNK_SAYS in chunk:
            _shift(chunk[_CHUNK_SAYS][1], _PAGES_BEGIN, by)
    _shift(group, (_BEGINS,), by)
    return group


def _shift(fields: Struct, offsets: Iterable[int], by: int) -> None:
    for each in offsets:
        kind, place = fields.get(each, (0, 0))
        if place:  # at 0 there is the magic, so that it says nothing
            fields[each] = kind, place + by


# ── Thrift's compact protocol ────────────────────────────────────────────────────────────────────


def _read(source: BytesIO, kind: int) -> Any:
    if kind in (_TRUE, _FALSE):
        return None  # the kind says it
    if kind in _INTEGERS:
        number = _read_number(source)
        return (number >> 1) ^ -(number & 1)
    if kind in (_BYTE, _DOUBLE):
        return source.read(1 if kind == _BYTE else 8)
    if kind == _BINARY:
        return source.read(_read_number(source))
    if kind in (_LIST, _SET):
        head = source.read(1)[0]
        of, count = head & 15, head >> 4
        if count == 15:
            count = _read_number(source)
        # in a list each truth takes a byte
        return of, [_read(source, _BYTE if of in (_TRUE, _FALSE) else of) for _ in range(count)]
    if kind == _STRUCT:
        return dict(_read_fields(source))
    raise ValueError(f"it has a field of kind {kind}")


def _read_fields(source: BytesIO) -> Iterator[tuple[int, tuple[int, Any]]]:
    number = 0
    while head := source.read(1)[0]:
        step, kind = head >> 4, head & 15
        number = number + step if step else _read(source, _INTEGERS[0])
        yield number, (kind, _read(source, kind))


def _read_number(source: BytesIO) -> int:
    number = shift = 0
    while True:
        byte = source.read(1)[0]
        number |= (byte & 127) << shift
        if byte < 128:
            return number
        shift += 7


def _write(target: BinaryIO, kind: int, value: Any) -> None:
    if kind in _INTEGERS:
        _write_number(target, value << 1 if value >= 0 else (-value << 1) - 1)
    elif kind in (_BYTE, _DOUBLE):
        target.write(value)
    elif kind == _BINARY:
        _write_number(target, len(value))
        target.write(value)
    elif kind in (_LIST, _SET):
        of, elements = value
        _write_head(target, of, len(elements))
        for each in elements:
            _write(target, _BYTE if of in (_TRUE, _FALSE) else of, each)
    elif kind == _WRITTEN:
        of, count, content = value
        _write_head(target, of, count)
        target.write(content)
    elif kind == _STRUCT:
        last = 0
        for number, (kind_of, field) in value.items():
            shown = _LIST if kind_of == _WRITTEN else kind_of
            if 0 < number - last < 16:
                target.write(bytes([(number - last) << 4 | shown]))
            else:
                target.write(bytes([shown]))
                _write(target, _INTEGERS[0], number)
            _write(target, kind_of, field)
            last = number
        target.write(bytes([_STOP]))


def _write_head(target: BinaryIO, of: int, count: int) -> None:
    """How many of what kind are in a list."""
    target.write(bytes([min(count, 15) << 4 | of]))
    if count >= 15:
        _write_number(target, count)


def _write_number(target: BinaryIO, number: int) -> None:
    while number > 127:
        target.write(bytes([number & 127 | 128]))
        number >>= 7
    target.write(bytes([number]))
