"""What goes on, on stderr: sentences for people, or JSON lines for machines. How much of it is
told, and in which form, is said once, before any command."""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import cache
from typing import Any, Literal

from retainer.model.printable import printable

Loudness = Literal["quiet", "normal", "verbose"]
"""How much of what goes on is told: nothing, each cause once, or every single failure."""
Form = Literal["text", "json"]
Level = Literal["info", "warning", "error"]

_loudness: Loudness = "normal"
_form: Form = "text"


def speak(loudness: Loudness = "normal", form: Form = "text") -> None:
    """From now on so much is told, in this form."""
    global _loudness, _form
    _loudness, _form = loudness, form


def loudness() -> Loudness:
    """How much is told."""
    return _loudness


def is_json() -> bool:
    """Whether machines read what goes on."""
    return _form == "json"


def is_for_people() -> bool:
    """Whether a live display makes sense on a terminal."""
    return _form == "text" and _loudness != "quiet" and sys.stderr.isatty()


def tell(sentence: str, level: Level = "info", **fields: Any) -> None:
    """What goes on, unless nothing is to be told of it. `fields`: what a machine may want to have
    by itself; where people read, only the sentence is told."""
    if _loudness != "quiet":
        say(sentence, level, **fields)


def say(sentence: str, level: Level = "info", hint: str | None = None, **fields: Any) -> None:
    """A sentence on stderr, on one line, and on a second what to do. A stderr that was closed, or a
    full disk below it, stops nothing."""
    with suppress(OSError, ValueError):
        if _form == "json":
            told = {name: value for name, value in fields.items() if value is not None}
            more = {"hint": printable(hint)} if hint else {}
            _logger().msg(printable(sentence), level=level, **told, **more)
            return
        prefix = "error: " if level == "error" else ""
        print(f"{prefix}{printable(sentence)}", file=sys.stderr)  # noqa: T201
        if hint:
            print(f"hint: {printable(hint)}", file=sys.stderr)  # noqa: T201


@cache
def _processors() -> list[Any]:
    import structlog

    return [
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.JSONRenderer(sort_keys=True, ensure_ascii=True),
    ]


def _logger() -> Any:
    import structlog

    return structlog.wrap_logger(structlog.PrintLogger(sys.stderr), processors=_processors())
