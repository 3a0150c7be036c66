"""A page as one HTML file: it needs no network and no script, and prints. Everything that is told
is escaped by the template engine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from jinja2 import Environment, StrictUndefined, Template, pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape

from retainer.views.page import Bars, Block, Document, Reading, Table
from retainer.views.units import Cell, Kind, Weighed, shown_cell

MOST_ROWS = 5_000
"""So many rows of a list a page has; the rest stands in the machine's forms."""


def html(document: Document, reading: Reading) -> str:
    """A document as a whole HTML file."""
    return (
        _template().render(
            page=document, css=Markup(_file("page.css")), most=MOST_ROWS, zone=reading.zone
        )
        + "\n"
    )


def _file(name: str) -> str:
    return files("retainer.views").joinpath(name).read_text(encoding="utf-8")


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters |= {
        "prose": _prose,
        "kind": _kind,
        "pickers": _pickers,
        "picked": _picked,
        "highest": _highest,
        "cell": _cell,
        "svg": _svg,
    }
    return environment.from_string(_file("page.html.jinja"))


def _prose(text: str) -> Markup:
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return Markup("").join(
        escape(part) if number % 2 == 0 else Markup("<code>{}</code>").format(part)
        for number, part in enumerate(parts)
    )


@pass_context
def _cell(context: Context, cell: Cell, kind: Kind) -> str:
    if isinstance(cell, Weighed):
        return Markup('<span class="{}">{}</span>').format(cell.weight, cell.text)
    return shown_cell(cell, kind, context["zone"])


def _kind(block: Block) -> str:
    return type(block).__name__


@dataclass(frozen=True, slots=True)
class Picker:
    """Buttons that show only the rows with one value of a column; `name`: of the group."""

    name: str
    title: str
    column: int
    values: tuple[str, ...]


_FEW_ROWS, _MANY_VALUES = 12, 12


@pass_context
def _pickers(context: Context, table: Table) -> list[Picker]:
    """By which columns the rows of a long list can be picked: those of a few texts or places. It
    takes style sheets alone; where a browser does not know `:has`, all rows stay."""
    rows = table.rows[:MOST_ROWS]
    if not table.is_list or len(rows) < _FEW_ROWS:
        return []
    mark = hashlib.sha256(repr((table.columns, rows)).encode()).hexdigest()[:8]
    found = []
    for number, column in enumerate(table.columns):
        if column.kind not in ("text", "place"):
            continue
        texts = {shown_cell(row[number], column.kind, context["zone"]) for row in rows}
        if 1 < len(texts) <= _MANY_VALUES:
            found.append(Picker(f"p{mark}-{number}", column.title, number, tuple(sorted(texts))))
    return found


@pass_context
def _picked(context: Context, row: Sequence[Cell], pickers: Sequence[Picker]) -> str:
    """The classes of a row, by which it is picked."""
    return " ".join(
        f"{each.name}-{each.values.index(shown_cell(row[each.column], 'text', context['zone']))}"
        for each in pickers
    )


def _highest(bars: Bars) -> float:
    return max((value for _, values in bars.rows for value in values), default=0) or 1


_COLOURS = ["#7d8790", "#3b8ede", "#c77a2b"]
"""Seen on a light page and on a dark one; the bars of one label stand one below another."""
_FAINT = {
    "labelColor": "currentColor",
    "tickColor": "currentColor",
    "domainColor": "currentColor",
    "gridColor": "#8886",
}


def _svg(bars: Bars) -> Markup:
    """A chart as a drawing, where the extra `charts` is installed; else nothing, as the table has
    bars of its own."""
    try:
        import vl_convert
    except ImportError:
        return Markup("")
    values = [
        {"label": label, "series": name, "value": value}
        for label, row in bars.rows
        for name, value in zip(bars.series, row, strict=True)
    ]
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "width": 560,
        "height": {"step": 12},
        "background": None,
        "data": {"values": values},
        "mark": "bar",
        "encoding": {
            "y": {"field": "label", "type": "nominal", "sort": None, "title": None},
            "yOffset": {"field": "series", "sort": None},
            "x": {
                "field": "value",
                "type": "quantitative",
                "title": bars.unit,
                "axis": {"format": "~s", "titleColor": "currentColor"},
            },
            "color": {
                "field": "series",
                "sort": None,
                "title": None,
                "scale": {"range": _COLOURS},
                "legend": {"labelColor": "currentColor"} if len(bars.series) > 1 else None,
            },
        },
        "config": {"axis": _FAINT, "view": {"stroke": None}},
    }
    # It makes the drawing in this process, of data alone: no network, and its texts are escaped.
    drawn = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
    return Markup('<div class="drawn" role="img" aria-label="{}">').format(bars.caption) + Markup(
        f"{drawn}</div>"
    )
