"""What can be brought back of what was deleted, and what was."""

from __future__ import annotations

from collections.abc import Iterator

from retainer.model.printable import shown
from retainer.model.restoration import Restoration, State
from retainer.views.page import Block, Column, Command, Document, Note, Prose, Reading, Table
from retainer.views.units import Cell, many, size

_WORDS: dict[State, str] = {
    "recoverable": "can be brought back",
    "by hand": "only with a second factor",
    "restored": "brought back",
    "there": "lies there",
    "taken": "something else lies there",
    "gone": "gone for good",
    "erased": "stays away",
    "unknown": "not known",
}
_MOST = 20
"""So many commands are told."""
_COLUMNS = (
    Column("recording", "id"),
    Column("in"),
    Column("size", "bytes"),
    Column("deleted", "moment"),
    Column("by"),
    Column(""),
    Column("until", "moment"),
    Column("note"),
)


def restoration_page(told: Restoration, reading: Reading) -> Document:
    """What was asked for, copy by copy."""
    told = shown(told)
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            each.asset_id,
            each.store,
            each.bytes,
            each.at,
            each.rule,
            _WORDS[each.state],
            each.until,
            each.note,
        )
        for each in told.copies
    )
    table: list[Block] = [Table("", _COLUMNS, rows)] if rows else []
    return Document(f"What was deleted: {told.about}", (_verdict(told),), (*table, *_next(told)))


def _verdict(told: Restoration) -> Note:
    back = [each for each in told.copies if each.state == "restored"]
    if back:
        total = size(sum(each.bytes for each in back))
        left = sum(each.state in ("unknown", "taken") for each in told.copies)
        rest = f"; {many(left, 'copy', 'copies')} could not be" if left else ""
        return Note("+", "good", f"{many(len(back), 'copy', 'copies')}, {total}, came back{rest}.")
    if not told.copies:
        return Note("?", "unsure", f"The record knows of no delete of {told.about}.")
    if told.recoverable:
        able = [each for each in told.copies if each.state == "recoverable"]
        total = size(sum(each.bytes for each in able))
        can = f"{many(len(able), 'copy', 'copies')}, {total}, can be brought back"
        return Note("=", "good", f"{can}. Nothing was changed.")
    if all(each.state == "there" for each in told.copies):
        return Note("=", "good", "All of it lies there.")
    if any(each.by_hand for each in told.copies):
        return Note(
            "!",
            "worry",
            "Nothing can be brought back without the second factor that the bucket wants.",
        )
    there = sum(each.state == "there" for each in told.copies)
    some = f" {many(there, 'copy lies', 'copies lie')} there." if there else ""
    return Note("!", "worry", f"Nothing more can be brought back.{some}")


def _next(told: Restoration) -> Iterator[Block]:
    came_back = any(each.state == "restored" for each in told.copies)
    if told.asking and (told.recoverable or came_back):
        yield Prose(
            f"{' and '.join(told.asking)} would have it deleted again: write a hold first "
            "(docs/how-to/restore.md)."
        )
    if commands := [each for copy in told.copies for each in copy.by_hand]:
        for command in commands[:_MOST]:
            yield Command(command)
        left_out = len(commands) - _MOST
        more = f" {left_out:,} more: `--format json` has every one." if left_out > 0 else ""
        yield Prose(
            "SERIAL and CODE are those of the bucket owner's device (MFA delete). Then `retainer "
            f"catalog rebuild` of that store, so that it is known again.{more}"
        )
    if told.recoverable:
        yield Command(
            f"retainer restore {told.about} --approve {told.recoverable}", "brings them back"
        )
    elif came_back:
        yield Command("retainer plan", "which says what is due now")
