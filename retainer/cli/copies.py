"""Commands about what lies in a store, or lay there: adopt, catalog, verify, accept, restore."""

from __future__ import annotations

from typing import TYPE_CHECKING

import rich_click as click
from click.exceptions import Exit

from retainer.cli.group import cli, help_alone
from retainer.cli.options import COMPLETE_STORE, PATIENCE, TICKET, form_option
from retainer.cli.printing import print_page, reading_in
from retainer.cli.process import EXIT, now, stop
from retainer.cli.project import (
    declared_store,
    gathered,
    keep_facts,
    readers_of,
    record_for,
    state_of,
    the_project,
)
from retainer.errors import RetainerError, WrongUsage

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from retainer.cataloguing import Work
    from retainer.inventory.listing import Progress
    from retainer.journal.backend import Backend
    from retainer.model.outcome import Census
    from retainer.model.setting import Settings
    from retainer.patience import Patience


def _census(
    store: str, form: str, patience: timedelta | None, what: str, act: Callable[[Work], Census]
) -> None:
    """Look at every object of a store, and show what was found."""
    from retainer import wiring
    from retainer.progress import Gathering
    from retainer.views.census import census_page
    from retainer.views.machine import census_json

    root, settings, _ = the_project()
    backend = record_for(root, settings, patience)
    with Gathering(f"looking at the objects of {store}…") as shown:
        patient = wiring.patience_of(patience, stop(), shown.waiting)
        census = act(_work(settings, backend, store, patient, shown.rows))
    if form == "json":
        click.echo(census_json(census), nl=False)
    else:
        print_page(census_page(census, what, store), settings.timezone, form)
    if any((census.failed, census.broken, census.missing, census.replaced, census.unlocked)):
        raise Exit(EXIT["partly"] if census.failed else 1)


def _work(
    settings: Settings, backend: Backend, store: str, patience: Patience, progress: Progress
) -> Work:
    """A store to work on. Raises WrongUsage where it is not declared."""
    from retainer import wiring
    from retainer.cataloguing import Work

    declared = declared_store(settings, store)
    writer = wiring.open_writer(declared, stop(), patience)
    return Work(declared, writer, backend, now, progress, stop())


@cli.command()
@click.argument("store", shell_complete=COMPLETE_STORE)
@PATIENCE
@form_option()
def adopt(store: str, patience: timedelta | None, form: str) -> None:
    """Recognise recordings that 100ms or a person put into a store, and catalog them as inferred.
    No object is changed.

    By the metadata of copies and by the documented shapes of paths. What is known by its path alone
    has no date: it is kept, held and erased like anything else, but never deleted for its age.
    Example: `retainer adopt uploads`
    """
    from retainer.cataloguing import adopt as adopted
    from retainer.private import private_file

    root, settings, policies = the_project()

    def act(work: Work) -> Census:
        facts = private_file(".duckdb")
        gathered(root, settings, policies, facts, patience=patience)
        found = adopted(work, facts, settings)
        keep_facts(facts, state_of(root, settings) / "facts.duckdb")
        return found

    _census(store, form, patience, "adopted", act)


@cli.group(invoke_without_command=True)
@click.pass_context
def catalog(context: click.Context) -> None:
    """The catalog of what was copied, which lies beside the copies."""
    help_alone(context)


@catalog.command("rebuild")
@click.argument("store", shell_complete=COMPLETE_STORE)
@PATIENCE
@form_option()
def catalog_rebuild(store: str, patience: timedelta | None, form: str) -> None:
    """Make the catalog of a store again from its objects alone: their metadata, their manifests and
    their checksums.

    Damaged parts of the old one are removed, whole ones stay. Example: `retainer catalog rebuild
    vault`
    """
    from retainer.cataloguing import rebuild

    _census(store, form, patience, "catalogued anew", rebuild)


@cli.command()
@click.argument("store", shell_complete=COMPLETE_STORE)
@click.option(
    "--sample",
    type=click.FloatRange(0, 100, min_open=True),
    default=100.0,
    metavar="P",
    help="Only P percent of the objects, drawn anew.",
)
@PATIENCE
@form_option()
def verify(store: str, sample: float, patience: timedelta | None, form: str) -> None:
    """Read copies back and compare them with their checksums. What is broken is partial from then
    on, and the next plan repairs it. What is not locked for as long as it was is locked again.

    Exit 1 when something is broken or unlocked, 7 when something could not be read.
    Examples: `retainer verify vault`, `retainer verify vault --sample 2` every night
    """
    from retainer.cataloguing import scrub

    _census(store, form, patience, "verified", lambda work: scrub(work, sample))


@cli.command()
@click.argument("asset_id")
@click.option("--reason", required=True, metavar="WHY", help="Why it is good enough.")
@click.option("--owner", metavar="WHO", help="Who answers for it, such as @acme/legal.")
def accept(asset_id: str, reason: str, owner: str | None) -> None:
    """Write down that the partial copy of a recording counts from now on, as an entry in
    policies/accepted.yaml, which is reviewed like any rule.

    Example: `retainer accept 6544d1e2f3a4b5c6d7e8f901 --reason "plays to its last minute"`
    """
    from retainer.inventory.facts import is_text, partial_copies
    from retainer.policy.accepting import ACCEPTED, with_acceptance
    from retainer.whole import whole

    if not is_text(reason + (owner or "")):
        raise WrongUsage("the reason is no text that can be written down", hint="write it in UTF-8")
    root, settings, policies = the_project()
    if told := next((each for each in policies.accepts if each.asset_id == asset_id), None):
        raise WrongUsage(f"{told.where} accepts {asset_id} already")
    snapshot = state_of(root, settings) / "facts.duckdb"
    found = partial_copies(snapshot, settings, asset_id) if snapshot.is_file() else None
    if found == []:
        raise WrongUsage(
            f"no partial copy of {asset_id} is known by the last plan",
            hint=f"`retainer plan` looks again, and `retainer explain {asset_id}` says what it saw",
        )
    path = root / ACCEPTED
    try:
        before = path.read_text(encoding="utf-8") if path.exists() else None
        text = with_acceptance(before, asset_id, reason, owner)
        with whole(path) as half:
            half.write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise RetainerError(f"{path} cannot be written: {reason}") from None
    for store, why in found or ():
        click.echo(f"{store}: {why}")
    click.echo(f"{asset_id} is accepted in {ACCEPTED}")
    click.echo("Next: have that reviewed, and `retainer plan`")


@cli.command()
@click.argument("about", metavar="RUN|ID")
@click.option(
    "--approve",
    type=int,
    metavar="N",
    help="Bring them back; N must be how many copies can be, as it is told without.",
)
@TICKET
@PATIENCE
@form_option()
def restore(
    about: str, approve: int | None, ticket: str | None, patience: timedelta | None, form: str
) -> None:
    """Look for what was deleted of a recording, or by a run, and bring back what a bucket still
    has: under a delete marker, as an earlier version, or soft-deleted.

    Without --approve nothing is changed. It never writes over anything, and what an erasure asked
    for stays away. Examples: `retainer restore 6544d1e2f3a4b5c6d7e8f901`, `retainer restore
    6f1c2a9b03d4 --approve 12`
    """
    from retainer import restoring, wiring
    from retainer.journal.journal import read_journal
    from retainer.model.restoration import Restoration
    from retainer.progress import Gathering
    from retainer.views.machine import restoration_json
    from retainer.views.restoration import restoration_page
    from retainer.who import who

    if not about.strip():
        raise WrongUsage("what is to be brought back?", hint="a recording's id, or a run's")
    root, settings, policies = the_project()
    backend = record_for(root, settings, patience)
    with Gathering("looking for what was deleted…") as shown:
        patient = wiring.patience_of(patience, stop(), shown.waiting)
        wanted = restoring.deleted_by(read_journal(backend), about)
        found = restoring.looked_for(wanted, readers_of(settings, patient), shown.rows)
        able = sum(each.told.state == "recoverable" for each in found)
        if approve is not None and approve != able:
            raise WrongUsage(
                f"--approve {approve}, but {able} copies can be brought back",
                hint=f"look again: `retainer restore {about}`",
            )
        if approve:
            found = restoring.bring_back(
                found,
                lambda name: _work(settings, backend, name, patient, shown.rows),
                {"who": dict(who()), "ticket": ticket},
            )
    rules = {each.told.rule for each in found} & {rule.id for rule in policies.rules}
    told = Restoration(about, tuple(each.told for each in found), tuple(sorted(rules)))
    if form == "json":
        click.echo(restoration_json(told), nl=False)
    else:
        page = restoration_page(told, reading_in(settings.timezone))
        print_page(page, settings.timezone, form)
    states = {each.state for each in told.copies}
    if approve and states & {"unknown", "taken"}:
        raise Exit(EXIT["partly"])
    if not states & {"recoverable", "restored", "there"}:
        raise Exit(1)
