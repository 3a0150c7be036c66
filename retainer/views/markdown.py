"""A page as GitHub's markdown, for a comment or a summary. Everything that is told is escaped, so
that no text from a policy or a server can become a link, an image, a mention or HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import assert_never

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
from retainer.views.units import Cell, Weighed, Weight, shown_cell, size

MAX_CHARS = 60_000
"""GitHub takes comments of 65,536 characters."""
_ROWS = (None, 20, 5, 0)
"""So many rows of each list are tried, one after another, until the page is short enough."""
_ALERTS: dict[Weight, str] = {
    "bad": "CAUTION",
    "worry": "WARNING",
    "unsure": "IMPORTANT",
    "good": "NOTE",
    "plain": "NOTE",
}
_MARKS: dict[Weight, str] = {
    "bad": "🔴",
    "worry": "🟠",
    "unsure": "🟡",
    "good": "🟢",
    "plain": "⚪",
}
_PLAIN = {letter: f"\\{letter}" for letter in "\\`*_[]|~"} | {
    "<": "&lt;",
    ">": "&gt;",
    "&": "&amp;",
    "$": "<span>$</span>",  # GitHub's mathematics
}
_AUTOMATIC = re.compile(r"@|#(?=\d)|:(?=//)|:(?=[a-z+][\w+-]*:)|(?i:www)(?=\.)")
"""What GitHub makes a mention, a reference, a link or a picture of by itself: found in what is
rendered, so that no escape helps; a comment behind it does."""
_FIRST = re.compile(r"(?:[-+=#]|\d+[.)])(?=\s|$|[-=])")
_IN_CODE = str.maketrans({letter: f"&#{ord(letter)};" for letter in "<>&$|*_`~[]\\"})


def markdown(document: Document, reading: Reading, max_chars: int = MAX_CHARS) -> str:
    """A document in at most `max_chars` characters: with all rows, with 20, 5 or none of each list,
    and at last without the sections that do not fit. Verdict, totals and counts always stay, and
    what was left out is counted."""
    text = ""
    for rows in _ROWS:
        text = _written(document, reading, rows)
        if len(text) <= max_chars:
            return text
    kept = list(document.blocks)
    dropped = 0
    while kept and len(text) > max_chars:
        longest = max(kept, key=lambda block: len("\n".join(_block(block, reading, 0, 2))))
        kept.remove(longest)
        dropped += 1
        left = f"{dropped} more part{'s' if dropped > 1 else ''} did not fit here."
        short = Document(
            document.title,
            document.verdict,
            (*kept, Prose(left)),
            document.about,
            document.mark,
            document.foot,
        )
        text = _written(short, reading, 0)
    return text if len(text) <= max_chars else text[: max_chars - 2].rsplit("\n", 1)[0] + "\n"


def _written(document: Document, reading: Reading, rows: int | None) -> str:
    out = [f"<!-- {document.mark} -->"] if document.mark else []
    title = escaped(document.title) + (f" — {escaped(document.about)}" if document.about else "")
    if title:
        out += [f"## {title}", ""]
    for note in document.verdict:
        out += [
            f"> [!{_ALERTS[note.weight]}]",
            f"> {text_of(note.text)}",
            *([f"> {text_of(note.hint)}"] if note.hint else []),
            "",
        ]
    for block in document.blocks:
        out += [*_block(block, reading, rows, 3), ""]
    if document.foot:
        out.append(f"<sub>{text_of(document.foot)}</sub>")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(out)).strip("\n") + "\n"


def escaped(text: str) -> str:
    """A text that markdown shows as it is."""
    told = _AUTOMATIC.sub("\\g<0>\0", text)
    if first := _FIRST.match(told):
        told = told[: first.end() - 1] + "\1" + told[first.end() - 1 :]
    told = "".join(_PLAIN.get(letter, letter) for letter in told)
    return told.replace("\0", "<!-- -->").replace("\1", "\\")


def text_of(text: str) -> str:
    """Prose with its `code`."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escaped(text)
    return "".join(
        escaped(part) if number % 2 == 0 else f"<code>{_html(part)}</code>"
        for number, part in enumerate(parts)
    )


def _html(text: str) -> str:
    return text.translate(_IN_CODE)


def _block(block: Block, reading: Reading, rows: int | None, level: int) -> Iterator[str]:
    match block:
        case Note():
            lead = f"{_MARKS[block.weight]} " if block.sign != " " else ""
            bold = block.weight in ("bad", "worry") and block.sign != " "
            told = text_of(block.text)
            yield f"{lead}**{told}**" if bold else f"{lead}{told}"
            if block.hint:
                yield f"<br><sub>{text_of(block.hint)}</sub>"
            yield ""
            for part in block.parts:
                yield from _block(part, reading, rows, level)
                yield ""
        case Prose():
            yield f"<sub>{text_of(block.text)}</sub>" if block.is_aside else text_of(block.text)
        case Facts():
            yield from _rows(
                (Column(""), Column("")), [(name, value) for name, value in block.rows], reading
            )
        case Table():
            yield from _table(block, reading, rows)
        case Bars():
            columns = (Column(""), *(Column(name, block.unit) for name in block.series))
            if block.caption:
                yield f"{text_of(block.caption)}\n"
            yield from _rows(columns, [(label, *values) for label, values in block.rows], reading)
        case Fold():
            yield f"<details><summary>{_html(block.summary.replace('`', ''))}</summary>\n"
            for part in block.blocks:
                yield from _block(part, reading, rows, level)
                yield ""
            yield "</details>"
        case Section():
            yield f"{'#' * level} {escaped(block.title)}\n"
            if block.note:
                yield f"{text_of(block.note)}\n"
            for part in block.blocks:
                yield from _block(part, reading, rows, min(level + 1, 6))
                yield ""
        case Excerpt():
            yield f"<pre>{_html(block.text)}</pre>"
        case Command():
            yield f"Next: <code>{_html(block.text)}</code>"
            if block.note:
                yield f"<br><sub>{text_of(block.note)}</sub>"
        case _:
            assert_never(block)


def _table(table: Table, reading: Reading, rows: int | None) -> Iterator[str]:
    shown = table.rows if rows is None or not table.is_list else table.rows[:rows]
    left = table.more + len(table.rows) - len(shown)
    if table.caption:
        yield f"{text_of(table.caption)}\n"
    if shown:
        yield from _rows(table.columns, shown, reading)
    if left:
        where = f" ({text_of(table.all_at)})" if table.all_at else ""
        yield f"\n{left:,} left out{where}."


def _rows(
    columns: Sequence[Column], rows: Sequence[tuple[Cell, ...]], reading: Reading
) -> Iterator[str]:
    yield "| " + " | ".join(escaped(column.title) or " " for column in columns) + " |"
    yield "|" + "|".join("--:" if column.is_number else "---" for column in columns) + "|"
    for row in rows:
        yield (
            "| "
            + " | ".join(
                _cell(cell, column, reading) for cell, column in zip(row, columns, strict=True)
            )
            + " |"
        )


def _cell(cell: Cell, column: Column, reading: Reading) -> str:
    if column.kind == "bytes" and isinstance(cell, (int, float)):
        return size(cell)
    if isinstance(cell, Weighed):
        return f"{_MARKS[cell.weight]} {text_of(cell.text)}"
    text = shown_cell(cell, column.kind, reading.zone)
    if column.kind == "id" and text:
        return f"<code>{_html(text)}</code>"
    return text_of(text)
