"""Options that several commands have, and how what is typed is read."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from retainer.errors import RetainerError, WrongUsage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from retainer.model.rule import Match, Policies
    from retainer.model.setting import Settings


def _as_wait(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> timedelta | None:
    if value is None:
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,3})(s|m|min|h)", value)
    if found is None:
        raise click.BadParameter(f"`{value}` is no time to wait; write 90s, 10m or 1h")
    unit = {"s": "seconds", "h": "hours"}.get(found[2], "minutes")
    return timedelta(**{unit: int(found[1])})


PATIENCE = click.option(
    "--patience",
    callback=_as_wait,
    metavar="D",
    help=(
        "How long a failing call to 100ms or a store is tried again (2m); 15 s where nobody is "
        "there."
    ),
)
WAIT = click.option(
    "--wait",
    callback=_as_wait,
    metavar="D",
    help="Wait so long for another run that has the state or a store (15m); else exit 6 at once.",
)
METRICS = click.option(
    "--metrics",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write metrics for Prometheus there, as node_exporter's textfile collector reads them.",
)


def _checked(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    from retainer.webhook import check_address

    value = value.strip() if value else None  # a secret may end with its line
    if value:
        check_address(value)
    return value or None


WEBHOOK = click.option(
    "--webhook",
    envvar="RETAINER_WEBHOOK",
    callback=_checked,
    metavar="URL",
    help="Tell a webhook how it ended; better as RETAINER_WEBHOOK, since the address is a secret.",
)


def facts_option(what: str) -> Callable[[Any], Any]:
    """The option that names a snapshot of facts; `what` is done with it."""
    return click.option(
        "--facts",
        "snapshot",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help=what,
    )


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


def as_ticket(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> str | None:
    if value is None or (value.strip() and len(value) <= 200 and value.isprintable()):
        return value
    raise click.BadParameter("a ticket is one line of at most 200 letters")


TICKET = click.option(
    "--ticket",
    metavar="T",
    callback=as_ticket,
    help="What this run belongs to, such as OPS-1234; it stands in the record of all it did.",
)


def as_fingerprint(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> str | None:
    if value is None or re.fullmatch(r"[0-9a-fA-F]{12,64}", value):
        return value
    raise click.BadParameter("write at least the first 12 of its 64 hex digits")


FINGERPRINT = click.option(
    "--fingerprint",
    callback=as_fingerprint,
    metavar="F",
    help="Insist that this is the plan that was reviewed; its first 12 digits suffice.",
)


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
    from retainer.policy.diagnostics import Diagnostic
    from retainer.policy.parse import parse_match

    if text is None:
        return None
    found = parse_match(text, "--only")
    if isinstance(found, Diagnostic):
        raise WrongUsage(
            f"--only: {found.message}" + (f" ({found.hint})" if found.hint else ""),
            hint="for example --only '{type: chat}'",
        )
    return found


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


def _completing(names: Callable[[Settings, Policies], Iterable[str]]) -> Callable[..., list[str]]:
    """Completes what a project declares; nothing where it cannot be read."""

    def complete(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
        from retainer.settings import find_root, load_project

        try:
            root = find_root(Path.cwd())
            if root is None:
                return []
            settings, policies, _ = load_project(root)
            return sorted(name for name in names(settings, policies) if name.startswith(begun))
        except RetainerError:
            return []

    return complete


COMPLETE_STORE = _completing(lambda settings, _: (store.name for store in settings.stores))


def limits_of(settings: Settings, policies: Policies) -> list[str]:
    """What `--lift` can be given in a project."""
    from retainer.plan.limits import liftable

    return sorted(
        liftable(
            (store.name for store in settings.stores),
            [*(rule.id for rule in policies.rules), *(each.id for each in policies.erasures)],
            (rule.id for rule in policies.rules if rule.at_most),
        )
    )


COMPLETE_LIMIT = _completing(limits_of)


def complete_code(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Completes a diagnostic code."""
    from retainer.policy.codes import CODES

    return [code for code in CODES if code.startswith(begun.upper())]
