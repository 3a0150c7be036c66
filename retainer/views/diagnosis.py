"""What `retainer doctor` found."""

from __future__ import annotations

from retainer.model.diagnosis import Diagnosis, Health
from retainer.model.printable import shown
from retainer.views.page import Document, Note, Sign
from retainer.views.units import Weight, many

_SIGNS: dict[Health, tuple[Sign, Weight]] = {
    "well": ("=", "good"),
    "told": (" ", "plain"),
    "unsure": ("?", "unsure"),
    "worry": ("!", "worry"),
    "bad": ("!", "bad"),
}


def diagnosis_page(told: Diagnosis) -> Document:
    """A line for each thing that was looked at, with what to do."""
    told = shown(told)
    wrong = sum(each.health in ("worry", "bad") for each in told.found)
    if wrong:
        verdict = Note("!", "worry", f"{many(wrong, 'thing')} to look at.")
    else:
        verdict = Note("=", "good", "Nothing stands against a plan and an apply.")
    notes = tuple(
        Note(*_SIGNS[each.health], f"{each.place}: {each.text}", each.hint) for each in told.found
    )
    return Document("Doctor", (verdict,), notes)
