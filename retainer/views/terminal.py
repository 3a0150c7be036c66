"""A page as text for a terminal or a log, as wide as the reader's. No meaning is carried by colour
alone."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import assert_never

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style
from rich.table import Table as RichTable
from rich.text import Text

from retainer.views.page import (
    Bars,
    Block,
    Column,
    Command,
    Document,
    Excerpt,
    Facts,
    Fold,
    Note,
    Prose,
    Reading,
    Section,
    Table,
)
from retainer.views.units import Kind, Weight, shown_cell, size

_STYLES: dict[Weight, str] = {
    "bad": "bold red",
    "worry": "bold yellow",
    "unsure": "yellow",
    "good": "bold green",
    "plain": "",
}


@dataclass(frozen=True, slots=True)
class Page:
    """How text is laid out: its width in columns, and whether colour may be used."""

    width: int = 160
    colour: bool = False

    def paint(self, text: str, style: str) -> str:
        if not (self.colour and style):
            return text
        return Style.parse(style).render(text, color_system=ColorSystem.STANDARD)

    def wrapped(self, text: str, indent: str = "", hanging: str | None = None) -> str:
        return "\n".join(_wrapped(text, max(self.width, 40), indent, hanging))


def _wrapped(text: str, width: int, indent: str, hanging: str | None = None) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent if hanging is None else hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )


def terminal(document: Document, page: Page, reading: Reading) -> str:
    """A document as lines of text. A word is never cut: one that is longer than the page stands on
    a line of its own."""
    title = document.title + (f", {document.about}" if document.about else "")
    out = [page.paint(line, "bold") for line in _wrapped(title, max(page.width, 40), "")]
    if document.verdict:
        out += ["", *_blocks(document.verdict, page, reading, "")]
    before: Block | None = None
    for block in document.blocks:
        if out and not (isinstance(block, (Note, Prose)) and type(before) is type(block)):
            out.append("")
        out += _block(block, page, reading, "")
        before = block
    if document.foot:
        out += ["", page.wrapped(document.foot)]
    return "\n".join(line.rstrip() for line in out).strip("\n") + "\n"


def _blocks(blocks: Sequence[Block], page: Page, reading: Reading, indent: str) -> Iterator[str]:
    for block in blocks:
        yield from _block(block, page, reading, indent)


def _block(block: Block, page: Page, reading: Reading, indent: str) -> Iterator[str]:
    width = max(page.width, 40)
    match block:
        case Note():
            style = _STYLES[block.weight]
            lead = indent if block.sign == " " else f"{indent}{block.sign} "
            for line in _wrapped(block.text, width, lead, " " * len(lead)):
                yield page.paint(line, style)
            deeper = indent + "  "
            if block.hint:
                yield from _wrapped(f"hint: {block.hint}", width, deeper, deeper + " " * 6)
            yield from _blocks(block.parts, page, reading, deeper)
        case Prose():
            for line in _wrapped(block.text, width, indent):
                yield page.paint(line, "dim" if block.is_aside else "")
        case Facts():
            room = max((cell_len(name) for name, _ in block.rows), default=0)
            for name, value in block.rows:
                lead = f"{indent}{name}{' ' * (room - cell_len(name))}  "
                yield from _wrapped(value, width, lead, " " * cell_len(lead)) or [lead]
        case Table():
            yield from _table(block, page, reading, indent)
        case Bars():
            yield from _bars(block, page, indent)
        case Fold():
            yield from _block(Section(block.summary, block.blocks), page, reading, indent)
        case Section():
            for line in _wrapped(block.title, width, indent):
                yield page.paint(line, "bold")
            if block.note:
                yield from _wrapped(block.note, width, indent + "  ")
            yield from _blocks(block.blocks, page, reading, indent + "  ")
        case Excerpt():
            gutter = f"{block.number:>5} | "
            text, column, marked = windowed(
                block.text, block.column, block.width, width - len(gutter)
            )
            yield page.paint(gutter, "dim") + text
            yield (
                page.paint(" " * 6 + "| ", "dim")
                + " " * (column - 1)
                + page.paint("^" * max(1, marked), "red")
            )
        case Command():
            yield f"{indent}Next: {block.text}"
            if block.note:
                yield from _wrapped(block.note, width, indent + " " * 6)
        case _:
            assert_never(block)


def _table(table: Table, page: Page, reading: Reading, indent: str) -> Iterator[str]:
    width = max(page.width, 40)
    if table.caption:
        yield from _wrapped(table.caption, width, indent)
    if table.rows:
        yield from _grid(table, width, page, reading, indent)
    if table.more:
        where = f" ({table.all_at})" if table.all_at else ""
        yield from _wrapped(f"… and {table.more:,} more{where}", width, indent)


def _grid(table: Table, width: int, page: Page, reading: Reading, indent: str) -> Iterator[str]:
    titled = any(column.title for column in table.columns)
    grid = RichTable(
        box=SIMPLE_HEAD if titled else None,
        show_header=titled,
        show_edge=False,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        header_style="dim",
    )
    texts = [
        [
            shown_cell(cell, column.kind, reading.zone)
            for cell, column in zip(row, table.columns, strict=True)
        ]
        for row in table.rows
    ]
    needed = 0
    for number, column in enumerate(table.columns):
        longest = max(cell_len(text) for text in (column.title, *(row[number] for row in texts)))
        whole = column.kind != "text" or longest <= 16
        needed += (longest if whole else min(longest, 16)) + 3
        grid.add_column(
            Text(column.title),
            justify="right" if column.is_number else "left",
            no_wrap=whole,
            overflow="crop" if whole else "fold",
            min_width=longest if whole else min(longest, 16),
        )
    if needed + len(indent) > width:
        kinds = [column.kind for column in table.columns]
        for row in texts:
            cells = zip(table.columns, row, strict=True)
            told = ", ".join(_by_itself(column, text, kinds) for column, text in cells if text)
            yield from _wrapped(told, width, indent, indent + "  ")
        return
    for row in texts:
        grid.add_row(*(Text(text) for text in row))
    console = Console(
        width=width - len(indent),
        force_terminal=page.colour,
        no_color=not page.colour,
        color_system="standard" if page.colour else None,
        legacy_windows=False,
        _environ={},
    )
    with console.capture() as captured:
        console.print(grid)
    for line in captured.get().splitlines():
        yield indent + _TRAILING.sub(r"\1", line)


_TRAILING = re.compile(r" +((?:\x1b\[[0-9;]*m)*)$")
_PLAIN = (
    "",
    "type",
    "note",
    "why",
    "why then",
    "last copy",
    "means",
    "becomes",
    "what",
    "where",
    "setting",
)
"""Titles of columns whose cells say by themselves what they are."""


def _by_itself(column: Column, text: str, kinds: Sequence[Kind]) -> str:
    """A cell that stands in no column; `kinds`: those of all columns beside it."""
    alone = column.title in _PLAIN or (
        column.kind in ("id", "bytes") and kinds.count(column.kind) == 1
    )
    return text if alone else f"{column.title} {text}"


_BAR = 24


def _bars(bars: Bars, page: Page, indent: str) -> Iterator[str]:
    yield from _wrapped(bars.caption, max(page.width, 40), indent)
    highest = max((value for _, values in bars.rows for value in values), default=0) or 1
    room = max((cell_len(label) for label, _ in bars.rows), default=0)
    named = max((cell_len(name) for name in bars.series), default=0)
    taken = len(indent) + room + (named + 2 if named else 0) + 2 + 2 + 9
    longest = max(4, min(_BAR, max(page.width, 40) - taken))
    for label, values in bars.rows:
        for number, (name, value) in enumerate(zip(bars.series, values, strict=True)):
            bar = "█" * round(longest * value / highest)
            told = size(value) if bars.unit == "bytes" else f"{value:,.0f}"
            lead = label if number == 0 else ""
            series = f"  {name}{' ' * (named - cell_len(name))}" if named else ""
            lead += " " * (room - cell_len(lead)) + series
            yield f"{indent}{lead}  {bar:<{longest}}  {told:>9}"


def windowed(text: str, column: int, width: int, room: int) -> tuple[str, int, int]:
    """The part of a long line around its mistake: the text, and where the mistake stands in it."""
    start = 0 if column - 1 + width <= room else max(0, column - 1 - room // 3)
    shown = text[start : start + max(room, 20)]
    return shown, column - start, max(1, min(width, len(shown) - (column - start) + 1))


def aligned(rows: Iterable[Sequence[str]], indent: str = "  ") -> str:
    """Columns side by side, each as wide as its widest text."""
    listed = [list(row) for row in rows]
    widths = [max(len(row[n]) for row in listed) for n in range(len(listed[0]))] if listed else []
    return "\n".join(
        indent
        + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in listed
    )
