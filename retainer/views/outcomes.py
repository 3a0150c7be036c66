"""What policy tests found."""

from __future__ import annotations

from collections.abc import Sequence

from retainer.model.outcome import Outcome
from retainer.model.printable import shown
from retainer.views.page import Document, Note, Prose


def outcomes_page(outcomes: Sequence[Outcome], *, with_passed: bool = False) -> Document:
    """Those that failed, with a sentence for everything that came out otherwise."""
    outcomes = [shown(outcome) for outcome in outcomes]
    failed = [outcome for outcome in outcomes if outcome.failures]
    passed = [outcome for outcome in outcomes if not outcome.failures]
    told = [
        Note("=", "good", f"passed {outcome.place}: {outcome.name}")
        for outcome in (passed if with_passed else ())
    ] + [
        Note(
            "!",
            "bad",
            f"FAILED {outcome.place}: {outcome.name}",
            parts=tuple(Note(" ", "plain", failure) for failure in outcome.failures),
        )
        for outcome in failed
    ]
    return Document("", (), (*told, Prose(f"{len(passed)} passed, {len(failed)} failed")))
