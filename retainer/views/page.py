"""What a page says, as a value. Each thing that is told makes one of these (plan.py, run.py, …),
and each form is one renderer of them (terminal.py, markdown.py, html.py).

A text is one line of prose; what stands in `backticks` is code. Whatever comes from outside is text
like any other: a renderer escapes all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Literal

from retainer.views.units import Cell, Kind, Weight

Sign = Literal["-", "!", "?", "+", "=", ".", " "]
"""What a note is about without any colour: delete, worry, not certain, copy, keep, lapse."""


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence that stands for itself, and what to do about it."""

    sign: Sign
    weight: Weight
    text: str
    hint: str | None = None
    parts: tuple[Block, ...] = ()
    """What belongs to it, such as the first few recordings."""


@dataclass(frozen=True, slots=True)
class Prose:
    """A sentence or two without a sign."""

    text: str
    is_aside: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and what they are, one below the other."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. One without a title says by itself what it is."""

    title: str
    kind: Kind = "text"

    @property
    def is_number(self) -> bool:
        return self.kind in ("count", "bytes", "dollars")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows with typed cells: counts, bytes and moments stay what they are until they are shown.

    `more`: so many rows are left out; `all_at`: where they are. `is_list`: its rows may be left out
    where a page must be short (totals and limits may not).
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    more: int = 0
    all_at: str = ""
    is_list: bool = False


@dataclass(frozen=True, slots=True)
class Bars:
    """A chart as data: for each label one number of each series."""

    caption: str
    unit: Literal["count", "bytes", "dollars"]
    series: tuple[str, ...]
    rows: tuple[tuple[str, tuple[float, ...]], ...]


@dataclass(frozen=True, slots=True)
class Fold:
    """What is told only to who opens it; where nothing can be opened, all of it."""

    summary: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: tuple[Block, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A line of a file with a stretch of it underlined; `column` counts from 1."""

    number: int
    text: str
    column: int
    width: int


@dataclass(frozen=True, slots=True)
class Command:
    """What to type next, so that it can be copied as it is; `note`: until when, or why."""

    text: str
    note: str = ""


Block = Note | Prose | Facts | Table | Bars | Fold | Section | Excerpt | Command


@dataclass(frozen=True, slots=True)
class Document:
    """A page: its title, the verdict (what one minute is enough for), and the rest by weight."""

    title: str
    verdict: tuple[Note, ...]
    blocks: tuple[Block, ...]
    about: str = ""
    """Of what, and when: on the first line."""
    mark: str = ""
    """By what a program finds this page again, such as the comment that it replaces."""
    foot: str = ""
    charts: tuple[Section, ...] = ()
    """What only a page that can be leafed through shows."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Who reads: in which zone moments are told, and what time it is for them, which is not always
    the moment that a plan is for."""

    zone: tzinfo = UTC
    clock: datetime | None = None
