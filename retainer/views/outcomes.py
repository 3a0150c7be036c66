"""What policy tests found."""

from __future__ import annotations

from collections.abc import Sequence

from retainer.model.outcome import Outcome
from retainer.model.printable import shown
from retainer.views.page import Block, Column, Document, Note, Prose, Section, Table


def outcomes_page(
    outcomes: Sequence[Outcome],
    *,
    with_passed: bool = False,
    untested: Sequence[str] = (),
    checked_nothing: str = "",
) -> Document:
    """Those that failed, with a sentence for everything that came out otherwise. `untested`: rules
    and stores that no test touches; `checked_nothing`: why assertions were not asked."""
    outcomes = [shown(outcome) for outcome in outcomes]
    failed = [outcome for outcome in outcomes if outcome.failures]
    passed = [outcome for outcome in outcomes if not outcome.failures]
    told: list[Block] = [
        Note("=", "good", f"passed {outcome.place}: {outcome.name}")
        for outcome in (passed if with_passed else ())
    ]
    told += [
        Note(
            "!",
            "bad",
            f"FAILED {outcome.place}: {outcome.name}",
            parts=tuple(Note(" ", "plain", failure) for failure in outcome.failures),
        )
        for outcome in failed
    ]
    told += [
        Section(
            f"{outcome.name}: what changes at each date",
            (
                Table(
                    "",
                    (
                        Column("at", "moment"),
                        Column("by"),
                        Column("recording", "id"),
                        Column("place", "place"),
                        Column("a second before"),
                        Column("at it"),
                    ),
                    tuple(
                        (turn.at, turn.rule, turn.asset_id, turn.store, turn.before, turn.after)
                        for turn in outcome.turns
                    ),
                ),
            ),
        )
        for outcome in outcomes
        if outcome.turns
    ]
    if untested:
        told.append(Note("?", "unsure", f"No test touches {', '.join(untested)}."))
    if checked_nothing:
        told.append(Note("?", "unsure", checked_nothing))
    return Document("", (), (*told, Prose(f"{len(passed)} passed, {len(failed)} failed")))
