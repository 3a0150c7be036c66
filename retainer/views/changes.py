"""What is written otherwise in the policies, in words."""

from __future__ import annotations

from collections.abc import Sequence

from retainer.model.change import Change
from retainer.model.printable import shown
from retainer.views.impact import changes_table
from retainer.views.page import Document, Note
from retainer.views.units import many


def changes_page(changes: Sequence[Change], before: str, after: str) -> Document:
    """Each changed setting from `before` to `after`, and whether something may go sooner."""
    changes = shown(tuple(changes))
    means = [change for change in changes if change.turn != "same"]
    sooner = [change for change in means if change.shortens]
    if sooner:
        items = ", ".join(dict.fromkeys(change.item for change in sooner))
        verdict = Note("-", "worry", f"Something may go sooner or be kept for less time: {items}.")
    elif means:
        verdict = Note("+", "good", f"{many(len(means), 'setting')} changed; nothing goes sooner.")
    elif changes:
        verdict = Note("=", "good", "Only names, texts or files changed: no decision does.")
    else:
        verdict = Note("=", "good", "Nothing is written otherwise.")
    return Document(f"{before} → {after}", (verdict,), (changes_table(changes),) if changes else ())
