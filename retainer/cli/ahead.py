"""Commands that say what would be, or why: impact, forecast, policy-diff, explain, hold,
erasure."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click
from click.exceptions import Exit

from retainer.cli.check import tested
from retainer.cli.group import cli, help_alone
from retainer.cli.options import MAX_CHARS, OUT, as_moment, facts_option, form_option
from retainer.cli.plans import MOST_SHOWN
from retainer.cli.printing import print_page, put, reading_in, written
from retainer.cli.process import EXIT, now
from retainer.cli.project import (
    cooling_at,
    last_facts,
    ledger_in,
    making_at,
    project_root,
    record_in,
    the_project,
)
from retainer.errors import PoliciesWrong
from retainer.voice import tell

if TYPE_CHECKING:
    from retainer.model.change import Impact
    from retainer.model.standing import Standing
    from retainer.views.page import Reading

MOST_IN_REPORT = 500
"""So many recordings of each effect a report of an impact tells."""


@cli.command()
@click.option(
    "--base",
    required=True,
    metavar="REF|DIR",
    help="What to compare with: a commit (origin/main), or a folder with a retainer.yaml.",
)
@facts_option("Facts to decide on. Default: those of the last plan, else they are gathered.")
@click.option("--as-of", callback=as_moment, metavar="T", help="Decide for this moment.")
@click.option(
    "--fail-on",
    multiple=True,
    type=click.Choice(["shortens", "deletes", "breach"]),
    help="Exit 0 but for these: something is kept less long (2), is due now (3), or breaches a "
    "limit (4).",
)
@form_option()
@MAX_CHARS
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the answer to this file."
)
@click.option(
    "--html",
    "report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the same as one HTML file beside it.",
)
def impact(
    base: str,
    snapshot: Path | None,
    as_of: datetime | None,
    fail_on: tuple[str, ...],
    form: str,
    max_chars: int | None,
    out: Path | None,
    report: Path | None,
) -> None:
    """Say what a change of the policies does: which recordings go now, sooner, later or elsewhere.

    The policies of BASE and those at hand are decided on the same facts at the same moment; what is
    due anyway is told apart. Exit 0 where no recording is treated differently, 2 where some are, 3
    where something is due now that was not, 4 for a limit or a ceiling that is newly breached, 8
    for facts that are incomplete, 10 for policies that are wrong. Merging deletes nothing: only
    `apply` does.

    \b
    Examples:
      retainer impact --base origin/main
      retainer impact --base origin/main --facts facts.duckdb --format markdown --out comment.md
      retainer impact --base ../main --fail-on deletes --fail-on breach
    """
    from dataclasses import replace

    from retainer.impact import Side
    from retainer.impact import impact as decided
    from retainer.revision import commit_of, project_at
    from retainer.views.impact import impact_page
    from retainer.views.machine import impact_json

    root, settings, policies = the_project()
    before, was, commit = project_at(base, root)
    snapshot = snapshot or last_facts(root, settings, policies)
    making = making_at(record_in(root, settings), as_of or now(), offline=True)
    told = decided(
        snapshot,
        Side(before, was, base, commit),
        Side(settings, policies, "this change", commit_of(root)),
        root.name,
        making,
        MOST_IN_REPORT if report or form == "html" else 20,
    )
    told = replace(told, tests=tested(root, policies))
    code = _impact_exit(told, fail_on)
    reading = reading_in(settings.timezone)
    whole = impact_page(
        told, reading, code, max(20, MOST_SHOWN["html"] // (len(told.effects) or 1))
    )
    if form == "json":
        put(out, impact_json(told))
    else:
        page = whole if form == "html" else impact_page(told, reading, code)
        put(out, written(page, settings.timezone, form, max_chars))
    if report is not None:
        put(report, written(whole, settings.timezone, "html"))
    raise Exit(code)


def _impact_exit(told: Impact, fail_on: tuple[str, ...]) -> int:
    """The exit code of an impact; where several apply: 10 > 8 > 4 > 3 > 2. `fail_on`: only for the
    last three of them."""
    if told.tests and not told.tests.is_well:
        return PoliciesWrong.exit_code
    if told.incomplete:
        return EXIT["incomplete"]
    fails = set(fail_on) or {"shortens", "deletes", "breach", "effects"}
    if told.breaches_more and "breach" in fails:
        return EXIT["held back"]
    if told.deletes_more and "deletes" in fails:
        return EXIT["deletes"]
    if ((told.effects or told.shortens) and "effects" in fails) or (
        told.shortens and "shortens" in fails
    ):
        return EXIT["only copies"]
    return 0


@cli.command()
@click.option(
    "--days", type=click.IntRange(1, 3660), default=90, show_default=True, help="So far ahead."
)
@facts_option("Facts to look ahead from. Default: those of the last plan, else they are gathered.")
@form_option("jsonl", "csv", "ics")
@MAX_CHARS
@OUT
def forecast(
    days: int, snapshot: Path | None, form: str, max_chars: int | None, out: Path | None
) -> None:
    """Say what the plans of the next days will delete and copy, what will leave 100ms, what will
    lie where, and about what it costs.

    It is today's decision, looked at for later days: of what is recorded from now on it knows
    nothing. Exit 8 where the facts are incomplete.

    \b
    Examples:
      retainer forecast
      retainer forecast --days 365 --facts facts.duckdb --format html --out year.html
      retainer forecast --format ics --out retention.ics
    """
    from retainer.forecasting import forecast as foreseen
    from retainer.views.forecast import forecast_page
    from retainer.views.machine import forecast_csv, forecast_json, forecast_lines

    root, settings, policies = the_project()
    facts = snapshot or last_facts(root, settings, policies)
    making = making_at(record_in(root, settings), now(), offline=True)
    told = foreseen(facts, settings, policies, root.name, making, days)
    if form == "ics":
        from retainer.views.calendar import calendar

        text = calendar(told)
    elif form in ("json", "jsonl", "csv"):
        rows = {"jsonl": forecast_lines, "csv": forecast_csv}
        text = forecast_json(told) if form == "json" else "".join(rows[form](told))
    else:
        page = forecast_page(told, reading_in(settings.timezone))
        text = written(page, settings.timezone, form, max_chars)
    put(out, text)
    if told.incomplete:
        raise Exit(EXIT["incomplete"])


@cli.command("policy-diff")
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="[NEW]", required=False)
@form_option()
def policy_diff(old: str, new: str | None, form: str) -> None:
    """Say in words what is written otherwise, without any facts: each rule keeps longer, shorter,
    elsewhere, or for other recordings.

    OLD and NEW are commits, or folders with a retainer.yaml; without NEW, the policies at hand.
    Exit 0 where nothing is another one, 2 where something is, 3 where something may go sooner.
    Examples: `retainer policy-diff origin/main`, `retainer policy-diff v1 v2`
    """
    from retainer.policy.changes import changes
    from retainer.revision import project_at
    from retainer.views.changes import changes_page
    from retainer.views.machine import changes_json

    root = project_root()
    before, was, _ = project_at(old, root)
    if new is None:
        _, after, is_now = the_project()
    else:
        after, is_now, _ = project_at(new, root)
    found = changes(was, is_now, before, after)
    if form == "json":
        click.echo(changes_json(found), nl=False)
    else:
        print_page(changes_page(found, old, new or "this change"), after.timezone, form)
    means = [change for change in found if change.turn != "same"]
    shortens = any(change.shortens for change in means)
    raise Exit(EXIT["deletes"] if shortens else EXIT["only copies"] if means else 0)


@cli.command()
@click.argument("asset_id")
@click.option("--as-of", callback=as_moment, metavar="T", help="Explain it for this moment.")
@facts_option("Facts to explain from.")
@click.option(
    "--names",
    is_flag=True,
    help="Show the names of rooms and templates, and metadata, also without a terminal.",
)
@form_option()
def explain(
    asset_id: str, as_of: datetime | None, snapshot: Path | None, names: bool, form: str
) -> None:
    """Say why one asset is treated as it is: every rule, what matched, what won, and what changes
    next and when.

    Works on the facts of the last plan. Example: `retainer explain 6544d1e2f3a4b5c6d7e8f901 --as-of
    2027-01-01`
    """
    from dataclasses import replace

    from retainer.explaining import explain as explained
    from retainer.views.explanation import explanation_page
    from retainer.views.machine import explanation_json

    root, settings, policies = the_project()
    snapshot = snapshot or last_facts(root, settings, policies)
    ledger = ledger_in(record_in(root, settings), offline=True)
    gone = ledger.gone_sources() if ledger else {}
    moment = as_of or now()
    cooling = cooling_at(root, settings, policies, ledger, moment)
    if cooling.unknown:
        tell(f"a plan holds its deletes back: {cooling.unknown}")
    told = explained(snapshot, settings, cooling.beside(policies), asset_id, moment, gone)
    if not (names or sys.stdout.isatty()):
        hidden = ("room", "template", "metadata")
        told = replace(
            told,
            facts=tuple(
                (name, "(hidden; --names shows it)" if name in hidden else value)
                for name, value in told.facts
            ),
        )
    if form == "json":
        click.echo(explanation_json(told), nl=False)
    else:
        print_page(explanation_page(told, reading_in(settings.timezone)), settings.timezone, form)


@cli.group(invoke_without_command=True)
@click.pass_context
def hold(context: click.Context) -> None:
    """The holds in force: what each covers, and whether that has its copies."""
    help_alone(context)


@cli.group(invoke_without_command=True)
@click.pass_context
def erasure(context: click.Context) -> None:
    """The erasures that are asked for: how far each is, and what stands against it."""
    help_alone(context)


def _standing(snapshot: Path | None, form: str, page_of: str) -> tuple[Standing, Reading]:
    """Show what holds, or erasures, come to by the last facts."""
    from dataclasses import replace

    from retainer.journal.ledger import Ledger
    from retainer.standing import standing
    from retainer.views.machine import standing_json
    from retainer.views.standing import erasures_page, holds_page

    root, settings, policies = the_project()
    facts = snapshot or last_facts(root, settings, policies)
    ledger = ledger_in(record_in(root, settings), offline=True) or Ledger()
    gone, forgotten = ledger.gone_sources(), ledger.purged
    moment = now()
    counting = cooling_at(root, settings, policies, ledger, moment).beside(policies)
    told = standing(facts, settings, counting, moment, gone, forgotten)
    reading = reading_in(settings.timezone)
    if page_of == "holds":
        told, page = replace(told, erasures=()), holds_page(told, reading)
    else:
        told, page = replace(told, holds=()), erasures_page(told, reading)
    if form == "json":
        click.echo(standing_json(told), nl=False)
    else:
        print_page(page, settings.timezone, form)
    return told, reading


@hold.command("list")
@facts_option("Facts to look in.")
@form_option()
def hold_list(snapshot: Path | None, form: str) -> None:
    """List the holds in force: how many recordings each covers, for certain or perhaps, how many
    have their copy, and what lies at 100ms alone.

    Works on the facts of the last plan. Example: `retainer hold list`
    """
    _standing(snapshot, form, "holds")


@hold.command("check")
@facts_option("Facts to look in.")
@form_option()
def hold_check(snapshot: Path | None, form: str) -> None:
    """The same, and exit 1 where a hold covers nothing, or a recording of it has no complete copy.

    Example: `retainer hold check` each night, after the apply and a new plan
    """
    told, _ = _standing(snapshot, form, "holds")
    if not all(each.is_met for each in told.holds):
        raise Exit(1)


@erasure.command("list")
@facts_option("Facts to look in.")
@form_option()
def erasure_list(snapshot: Path | None, form: str) -> None:
    """List the erasures: their state (due, blocked by what and until when, lapses at 100ms, done),
    and until when each must be answered.

    Works on the facts of the last plan. Example: `retainer erasure list`
    """
    _standing(snapshot, form, "erasures")


@erasure.command("check")
@facts_option("Facts to look in.")
@form_option()
def erasure_check(snapshot: Path | None, form: str) -> None:
    """The same, and exit 1 where the month of a request is over and it is not done.

    Example: `retainer erasure check` each week
    """
    from retainer.views.standing import is_late

    told, reading = _standing(snapshot, form, "erasures")
    if any(is_late(each, told, reading) for each in told.erasures):
        raise Exit(1)
