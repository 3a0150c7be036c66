"""The word that was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from retainer.model.diagnostic import Diagnostic, Span

__all__ = ["Diagnostic", "Span", "nearest"]

_SYNONYMS = {
    "filter": "match",
    "where": "match",
    "when": "match",
    "select": "match",
    "if": "match",
    "store": "in",
    "to": "in",
    "bucket": "in",
    "place": "in",
    "days": "for",
    "ttl": "for",
    "retention": "for",
    "period": "for",
    "duration": "for",
    "name": "id",
    "description": "why",
    "reason": "why",
    "comment": "why",
    "retain": "keep",
    "expire": "delete",
    "remove": "delete",
    "max": "at_most",
    "maximum": "at_most",
    "tz": "timezone",
    "or": "any",
    "and": "all",
    "room_name": "room",
    "prefix": "url",
    "storageClass": "storage_class",
}


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant, or None."""
    choices = list(known)
    if (synonym := _SYNONYMS.get(word)) in choices:
        return synonym
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6) or difflib.get_close_matches(
        word.lower().replace("_", "-"), choices, n=1, cutoff=0.6
    )
    return close[0] if close else None
