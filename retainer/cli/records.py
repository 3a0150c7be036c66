"""Commands that answer from the record: audit, certificate, history, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click
from click.exceptions import Exit

from retainer.cli.group import cli, help_alone
from retainer.cli.options import MAX_CHARS, OUT, PATIENCE, as_moment, form_option
from retainer.cli.printing import print_page, put, reading_in, written
from retainer.cli.process import now, stop
from retainer.cli.project import readers_of, record_in, the_project
from retainer.errors import RetainerError, WrongUsage

if TYPE_CHECKING:
    from datetime import datetime, timedelta


@cli.group(invoke_without_command=True)
@click.pass_context
def audit(context: click.Context) -> None:
    """What the record is worth."""
    help_alone(context)


@audit.command("verify")
@click.option(
    "--stores", "asks_stores", is_flag=True, help="Also ask each store where it saw the record end."
)
@PATIENCE
def audit_verify(asks_stores: bool, patience: timedelta | None) -> None:
    """Read all of the record: the hash of each line, the chain over all runs, and every summary.

    Exit 1 where something was changed, taken out or cut off. Examples: `retainer audit verify`,
    `retainer audit verify --stores`
    """
    from retainer import wiring
    from retainer.journal.anchors import judge_of
    from retainer.journal.journal import read_ledger, verify_journal
    from retainer.model.moment import write_moment
    from retainer.model.printable import printable
    from retainer.own import anchors_in
    from retainer.views.units import many

    root, settings, _ = the_project()
    record = record_in(root, settings, patience)
    found = verify_journal(record)
    if found.first is None or found.last is None:
        click.echo(f"the record in {record.where} is empty: nothing was done yet")
    else:
        click.echo(
            f"the record in {record.where} is whole: {many(found.lines, 'line')} of "
            f"{many(found.runs, 'run')}, from {write_moment(found.first.at)} to "
            f"{write_moment(found.last.at)}"
        )
        click.echo(f"first hash  {found.first.seal}")
        click.echo(f"last hash   {found.last.seal}")
    if not asks_stores:
        return
    judge = judge_of(record, read_ledger(record))
    wrong = 0
    for store in settings.stores:
        try:
            reader = wiring.open_reader(store, stop(), wiring.patience_of(patience, stop()))
            said = judge(anchors_in(reader, or_hidden=True)[1])
        except RetainerError as error:
            said = error.message
        wrong += said is not None
        click.echo(printable(f"{store.name}: {said or 'what it remembers is in the record'}"))
    if wrong:
        raise Exit(1)


@cli.command()
@click.argument("about", metavar="ID|RULE|RUN")
@PATIENCE
@form_option()
def history(about: str, patience: timedelta | None, form: str) -> None:
    """Say what was done with a recording, for a rule or an erasure, or by a run, and why, also when
    it is long gone.

    From the record alone: who applied it, by which rule and approval, what made each delete safe.
    Examples: `retainer history 6544d1e2f3a4b5c6d7e8f901`, `retainer history DSR-17`, `retainer
    history 6f1c2a9b03d4`
    """
    from retainer.history import history as told_of
    from retainer.journal.journal import read_journal
    from retainer.views.history import history_page
    from retainer.views.machine import history_json

    if not about.strip():
        raise WrongUsage("whose history?", hint="`retainer report` tells everything")
    root, settings, _ = the_project()
    record = record_in(root, settings, patience)
    told = told_of(read_journal(record), record.where, about=about)
    if form == "json":
        click.echo(history_json(told), nl=False)
    else:
        page = history_page(told, reading_in(settings.timezone))
        print_page(page, settings.timezone, form)
    if not told.happenings and not told.runs:
        raise Exit(1)


@cli.command()
@click.argument("about", metavar="ID|ROOM|SESSION|ERASURE")
@click.option(
    "--stores", "asks_stores", is_flag=True, help="Look once more at each object that was deleted."
)
@PATIENCE
@form_option()
@OUT
def certificate(
    about: str, asks_stores: bool, patience: timedelta | None, form: str, out: Path | None
) -> None:
    """Certify what became of a recording, of a room or a session by its id, or of all that an
    erasure asked for: every copy, by which rule, plan, person and approval, and what is left.

    From the record and the plans that were applied. It names ids alone. Exit 1 where something is
    left, or nothing is known.

    \b
    Examples:
      retainer certificate DSR-17 --stores --format html --out DSR-17.html
      retainer certificate 6544d1e2f3a4b5c6d7e8f901
    """
    from retainer import wiring
    from retainer.certifying import certificate as certified
    from retainer.views.certificate import certificate_page
    from retainer.views.machine import certificate_json

    if not about.strip():
        raise WrongUsage("of what?", hint="the id of a recording, a room, a session or an erasure")
    root, settings, _ = the_project()
    record = record_in(root, settings, patience)
    opened = readers_of(settings, wiring.patience_of(patience, stop())) if asks_stores else None
    told = certified(record, about, now(), opened)
    if form == "json":
        put(out, certificate_json(told))
    else:
        page = certificate_page(told, reading_in(settings.timezone))
        put(out, written(page, settings.timezone, form, None))
    if not told.is_gone:
        raise Exit(1)


@cli.command()
@click.option("--from", "since", callback=as_moment, metavar="DAY", help="From then on.")
@click.option("--to", "until", callback=as_moment, metavar="DAY", help="Until then, not itself.")
@PATIENCE
@form_option("csv")
@MAX_CHARS
@OUT
def report(
    since: datetime | None,
    until: datetime | None,
    patience: timedelta | None,
    form: str,
    max_chars: int | None,
    out: Path | None,
) -> None:
    """Tell a span of time for an audit: a register of each deletion with what led to it, what was
    due and when it went, holds, erasures, losses, what plans saw, runs, exceptions, and what the
    record can prove.

    From the record and the plans that were applied, offline. CSV is the register of deletions.

    \b
    Examples:
      retainer report --from 2026-01-01 --to 2027-01-01 --format html --out 2026.html
      retainer report --format csv --out deletions.csv
    """
    from retainer.history import history as told_of
    from retainer.journal.journal import read_journal
    from retainer.reporting import report as reported
    from retainer.views.history import report_page
    from retainer.views.machine import register_csv, report_json

    if since and until and since >= until:
        raise WrongUsage("--from is not before --to")
    root, settings, _ = the_project()
    record = record_in(root, settings, patience)
    told = told_of(read_journal(record), record.where, since=since, until=until)
    if form == "json":
        put(out, report_json(reported(record, told)))
    elif form == "csv":
        put(out, "".join(register_csv(told)))
    else:
        page = report_page(reported(record, told), reading_in(settings.timezone))
        put(out, written(page, settings.timezone, form, max_chars))
    if told.too_early:
        raise Exit(1)
