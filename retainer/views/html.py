"""A page as one HTML file: it needs no network and no script, and prints. Everything that is told
is escaped by the template engine."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from jinja2 import Environment, StrictUndefined, Template, pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape

from retainer.views.page import Bars, Block, Document, Reading
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
    environment.filters |= {"prose": _prose, "kind": _kind, "highest": _highest, "cell": _cell}
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


def _highest(bars: Bars) -> float:
    return max((value for _, values in bars.rows for value in values), default=0) or 1
