"""Options that several commands have, and how what is typed is read."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from retainer.errors import WrongUsage

if TYPE_CHECKING:
    from collections.abc import Callable

    from retainer.model.rule import Match


ANNOTATED = click.option(
    "--format",
    "form",
    type=click.Choice(["text", "github", "gitlab", "sarif", "junit"]),
    default="text",
    help="github: annotations of a workflow; gitlab: code quality; sarif: 2.1.0.",
)


OUT = click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the answer to this file."
)


def as_moment(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> datetime | None:
    from retainer.model.moment import read_moment

    if value is None:
        return None
    moment = read_moment(value if "T" in value.upper() else f"{value}T00:00:00Z")
    if moment is None or not 2015 <= moment.year < 9000:
        raise click.BadParameter(
            f"`{value}` is not a moment; write 2026-11-22 or 2026-11-22T10:00:00Z"
        )
    return moment


def as_fingerprint(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> str | None:
    if value is None or re.fullmatch(r"[0-9a-fA-F]{12,64}", value):
        return value
    raise click.BadParameter("write at least the first 12 of its 64 hex digits")


def as_span(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> timedelta | None:
    from retainer.model.period import Period, parse_period

    if value is None:
        return None
    try:
        period = parse_period(value)
    except ValueError:
        period = Period(forever=True)
    if period.forever or period.months:
        raise click.BadParameter(f"`{value}` is no length of time; write 72h, 3d or 2w")
    return timedelta(days=period.days, seconds=period.seconds)


def only_match(text: str | None) -> Match | None:
    """A match from the command line: YAML as in a rule, such as `{type: chat}` or `all`."""
    from retainer.policy.load import load_text
    from retainer.policy.parse import parse_policies

    if text is None:
        return None
    document, mistakes = load_text(
        f"version: 1\nrules:\n  - id: only\n    match: {text}\n    at_most: 1d\n", "--only"
    )
    if not mistakes:
        policies, mistakes = parse_policies(document, "UTC")
        mistakes = [mistake for mistake in mistakes if not mistake.is_warning]
        if not mistakes:
            return policies.rules[0].match
    first = mistakes[0]
    raise WrongUsage(
        f"--only: {first.message}" + (f" ({first.hint})" if first.hint else ""),
        hint="for example --only '{type: chat}'",
    )


def form_option(*more: str) -> Callable[[Any], Any]:
    """The option that says in which form a command answers."""
    known = ["text", "json", "markdown", "html", *more]
    return click.option(
        "--format",
        "form",
        type=click.Choice(known),
        default="text",
        help="Of the answer on stdout."
        if not more
        else "Of the answer; jsonl and csv: its rows"
        + (
            "; gitlab: its widget on a merge request." if "gitlab" in more else "; ics: a calendar."
        ),
    )


MAX_CHARS = click.option(
    "--max-chars",
    type=click.IntRange(min=2000),
    metavar="N",
    help="Markdown is at most so long (60000): lists are cut first, counts and totals stay.",
)
