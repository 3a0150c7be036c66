"""What is wrong in a file, and exactly where."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A stretch of text: lines and columns from 1, `end_column` just past the last character."""

    line: int
    column: int
    end_line: int
    end_column: int


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One mistake: a stable code (see `codes.py`), its place, the line it stands on, a sentence and what to do."""

    code: str
    file: str
    span: Span
    message: str
    hint: str | None = None
    text: str = ""

    @property
    def order(self) -> tuple[str, Span, str, str]:
        return (self.file, self.span, self.code, self.message)


_SYNONYMS = {
    "filter": "match", "where": "match", "when": "match", "select": "match", "if": "match",
    "store": "in", "to": "in", "bucket": "in", "place": "in", "days": "for", "ttl": "for", "retention": "for",
    "period": "for", "duration": "for", "name": "id", "description": "why", "reason": "why", "comment": "why",
    "retain": "keep", "expire": "delete", "remove": "delete", "max": "at_most", "maximum": "at_most", "tz": "timezone",
    "or": "any", "and": "all", "room_name": "room", "prefix": "url", "storageClass": "storage_class",
}  # fmt: skip


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant, or None."""
    choices = list(known)
    if (synonym := _SYNONYMS.get(word)) in choices:
        return synonym
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6) or difflib.get_close_matches(
        word.lower().replace("_", "-"), choices, n=1, cutoff=0.6
    )
    return close[0] if close else None
