"""Mistakes and warnings in files, each with its place, the line underlined, and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from retainer.model.diagnostic import Diagnostic
from retainer.model.printable import printable
from retainer.views.page import Block, Document, Excerpt, Note, Prose
from retainer.views.units import many


def mistakes_page(mistakes: Sequence[Diagnostic]) -> Document:
    """Warnings first, so that what must be mended stands at the end, where a terminal stops."""
    warnings = [each for each in mistakes if each.is_warning]
    wrong = [each for each in mistakes if not each.is_warning]
    files = len({each.file for each in wrong})
    return Document(
        "",
        (),
        (
            *(block for each in (*warnings, *wrong) for block in _told(each)),
            *(
                [
                    Prose(
                        f"{many(len(wrong), 'mistake')} in {many(files, 'file')}. `retainer help "
                        "CODE` explains a code."
                    )
                ]
                if wrong
                else []
            ),
        ),
    )


def _told(mistake: Diagnostic) -> Iterator[Block]:
    word = "warning" if mistake.is_warning else "error"
    yield Note(
        " ",
        "worry" if mistake.is_warning else "bad",
        f"{word}[{mistake.code}] {place(mistake)}: {printable(mistake.message)}",
        None,
        tuple(_below(mistake)),
    )


def _below(mistake: Diagnostic) -> Iterator[Block]:
    if mistake.text:
        yield Excerpt(mistake.span.line, *_escaped(mistake))
    if mistake.hint:
        yield Note(" ", "plain", f"hint: {printable(mistake.hint)}")


def place(mistake: Diagnostic) -> str:
    """File, line and column, as editors read them."""
    return f"{printable(mistake.file)}:{mistake.span.line}:{mistake.span.column}"


def _escaped(mistake: Diagnostic) -> tuple[str, int, int]:
    """The line of a mistake as it can be shown, and where the mistake stands in it: its column from
    1, and its width."""
    text, start = mistake.text.rstrip().replace("\t", " "), mistake.span.column - 1
    width = _width(mistake)
    before, wrong, after = (
        printable(text[part])
        for part in (slice(start), slice(start, start + width), slice(start + width, None))
    )
    return before + wrong + after, len(before) + 1, len(wrong)


def _width(mistake: Diagnostic) -> int:
    span = mistake.span
    return (
        span.end_column - span.column
        if span.end_line == span.line
        else len(mistake.text.rstrip()) - span.column + 1
    )
