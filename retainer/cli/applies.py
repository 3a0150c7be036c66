"""Commands that carry a plan out: apply, unlock."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click
from click.exceptions import Exit

from retainer.cli.group import cli
from retainer.cli.options import (
    COMPLETE_STORE,
    FINGERPRINT,
    METRICS,
    PATIENCE,
    TICKET,
    WAIT,
    WEBHOOK,
    as_moment,
    form_option,
)
from retainer.cli.printing import measure, notify, print_page, reading_in, told_to
from retainer.cli.process import EXIT, applying, now, stop
from retainer.cli.project import declared_store, engine_at, record_for, record_in, the_project
from retainer.errors import CredentialsRefused, Declined, Locked, WrongUsage
from retainer.model.moment import write_moment
from retainer.model.printable import printable
from retainer.tracing import watching
from retainer.voice import say, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime, timedelta

    from retainer.applying import Prepared
    from retainer.approving import Approval
    from retainer.journal.backend import Backend
    from retainer.model.outcome import Summary
    from retainer.model.rule import Policies
    from retainer.model.setting import Settings
    from retainer.ports import Engine


@cli.command()
@click.argument("path", metavar="PLAN", type=click.Path(path_type=Path))
@click.option(
    "--approve-deletes",
    type=int,
    metavar="N",
    help=(
        "Approve the plan's deletes; N must be the plan's own count, or 0: copies only, and exit 0 "
        "when all were made."
    ),
)
@FINGERPRINT
@click.option(
    "--restore",
    is_flag=True,
    help=(
        "Ask for archived sources to be restored for a week (bulk tier; takes hours, costs money)."
    ),
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    metavar="N",
    help="So many actions at once (32); a store far away takes more, a small machine fewer. With "
    "`--on`: on each machine.",
)
@click.option(
    "--on",
    metavar="SCHEDULER",
    help=(
        "Let the machines of a Dask scheduler make the copies and deletes, such as "
        "tls://scheduler:8786 (extra `cluster`; `state:` must be a store)."
    ),
)
@TICKET
@WAIT
@PATIENCE
@METRICS
@WEBHOOK
@form_option()
def apply(
    path: Path,
    approve_deletes: int | None,
    fingerprint: str | None,
    restore: bool,
    workers: int | None,
    on: str | None,
    ticket: str | None,
    wait: timedelta | None,
    patience: timedelta | None,
    metrics: Path | None,
    webhook: str | None,
    form: str,
) -> None:
    """Do what a plan says: copies by their deadlines, then deletes, then locks. What has changed
    since is skipped.

    On a terminal it asks for the number of deletes; without one and without --approve-deletes it
    only copies. A run that was interrupted goes on when it is given the same plan again.

    Examples: `retainer apply today.plan`, `retainer apply today.plan --approve-deletes 12`,
    `retainer apply today.plan --on tls://scheduler:8786`
    """
    from retainer import wiring
    from retainer.applying import World, carry_out, prepare
    from retainer.approving import Approval
    from retainer.journal.freeze import freeze_in
    from retainer.journal.journal import read_ledger
    from retainer.progress import Applying
    from retainer.revision import commit_with
    from retainer.views.machine import summary_json
    from retainer.views.notice import notice
    from retainer.views.plan import until_when
    from retainer.views.run import beginning, run_page
    from retainer.who import who

    with told_to(webhook, "apply", metrics):
        root, settings, policies = the_project()
        backend = record_for(root, settings, patience)
        frozen = freeze_in(backend, now())
        ledger = read_ledger(backend)
        prepared = prepare(path, settings, policies, now(), fingerprint, ledger, frozen)
        header = prepared.plan.header
        reading = reading_in(header.timezone)
        tell(
            beginning(
                header,
                prepared.plan.fingerprint,
                prepared.copied_to,
                prepared.locked_in,
                prepared.deleted_in,
                reading,
                held_back=bool(prepared.held_back) or approve_deletes == 0,
            )
        )
        identity, signed = who(), list[Approval]()
        if settings.second_person and prepared.deleted:
            signed = _signed(backend, root, prepared, identity)
        approved = _approved(
            prepared.deleted,
            prepared.held_back,
            approve_deletes,
            unsigned=settings.second_person and not signed,
        )
        needed = prepared.written_to | prepared.deleted_in.keys()
        deletes = prepared.deleted if approved else 0
        count = prepared.copied + header.locks + deletes
        with Applying(count, header.copy_bytes) as shown, _engine(on, settings) as engine:
            patient = wiring.patience_of(patience, stop(), shown.waiting)
            world = World(
                settings,
                backend,
                wiring.open_stores(settings, needed, stop(), patient),
                *wiring.open_downloads(settings, stop(), patient),
                now,
                wiring.clock_of_100ms(settings),
                lambda: _today(root),
                stop(),
                identity,
                ticket,
                commit_with(root),
                [each.written() for each in signed],
                engine,
                shown.waiting,
            )
            done = _once_free(
                wait,
                shown.waiting,
                lambda: carry_out(
                    prepared,
                    world,
                    watcher=watching(shown),
                    approved=approved,
                    restore=restore,
                    on_run=applying.append,
                    workers=workers,
                ),
            )
    applying.clear()
    code = _run_exit(
        done, held_back=bool(prepared.held_back), only_copies_asked=approve_deletes == 0
    )
    until = until_when(header.limits, now(), reading) or ""
    page = run_page(done, str(path), prepared.deleted, reading, prepared.held_back, until)
    if form == "json":
        click.echo(summary_json(done), nl=False)
    else:
        print_page(page, header.timezone, form)
    if metrics is not None:
        from retainer.views.metrics import run_metrics

        measure(metrics, run_metrics(done, code, now().timestamp()))
    counts = {"copied": done.copied, "deleted": done.deleted, "failed": len(done.failed)}
    plan_id = prepared.plan.fingerprint[:12]
    notify(webhook, notice(page), event="run", exit_code=code, plan=plan_id, **counts)
    raise Exit(code)


@contextmanager
def _engine(address: str | None, settings: Settings) -> Iterator[Engine | None]:
    """The machines behind a scheduler; None where none is named. Raises WrongUsage where they could
    not share a record."""
    if address is None:
        yield None
        return
    if settings.shared is None:
        raise WrongUsage(
            "--on needs a record that all machines can reach, and `state:` is a folder",
            hint="name a store under `state:` in retainer.yaml (docs/how-to/shared-record.md)",
        )
    with engine_at(address) as engine:
        yield engine


_LOOK_AGAIN = 10.0
"""Seconds between two looks at a lock that another run has."""


def _once_free(
    wait: timedelta | None, told: Callable[[str], None], act: Callable[[], Summary]
) -> Summary:
    """What a run comes to, tried again for so long while another run is in its way. Raises
    Locked."""
    until = time.monotonic() + (wait.total_seconds() if wait else 0.0)
    while True:
        try:
            return act()
        except Locked as error:
            left = until - time.monotonic()
            if left <= 0:
                raise
            told(f"{error.message}: waiting, {left / 60:.0f} min more at most")
            stop().wait(min(_LOOK_AGAIN, left))


def _run_exit(done: Summary, *, held_back: bool, only_copies_asked: bool) -> int:
    """The exit code of a run; where several apply: 130 > 11 > 7 > 4. Deletes that were not asked
    for are nothing left undone."""
    if done.interrupted:
        return EXIT["interrupted"]
    if any(resting.credentials for resting in done.resting.values()):
        return CredentialsRefused.exit_code
    if (replace(done, left_deletes=0) if only_copies_asked else done).finished:
        return 0
    only_held = done.left_deletes and held_back and not done.failed
    return EXIT["held back"] if only_held else EXIT["partly"]


def _today(root: Path) -> tuple[Settings, Policies] | None:
    """The project as it is by now; None when it is wrong."""
    from retainer.settings import load_project

    settings, policies, mistakes = load_project(root)
    return None if any(not mistake.is_warning for mistake in mistakes) else (settings, policies)


def _signed(
    backend: Backend, root: Path, prepared: Prepared, identity: Mapping[str, str]
) -> list[Approval]:
    """The approvals of other people that count for a plan; why others do not is told."""
    from retainer.approving import approvals, by_another

    found, wrong = approvals(backend, root, prepared.plan.fingerprint, prepared.deleted)
    for reason in wrong:
        say(f"an approval does not count: {reason}")
    others = by_another(found, identity)
    if found and not others:
        say("the approval of this plan is by who applies it, and a second person must")
    for each in others:
        say(f"approved by {each.principal} at {write_moment(each.at)}")
    return others


def _approved(
    count: int, held_back: list[str], approve: int | None, *, unsigned: bool = False
) -> bool:
    """Whether a person has approved the deletes, by their number. Nothing else is a yes.
    `unsigned`: a second person must have signed them, and has not."""
    from retainer.views.units import many

    if count == 0:
        return False
    are = "is" if count == 1 else "are"
    deletes = f"{many(count, 'delete')} of the plan {are}"
    if held_back:
        say(f"{deletes} held back: {', '.join(held_back)}. Its copies run.")
        return False
    if unsigned and approve != 0:
        say(f"{deletes} not signed by a second person (`retainer approve PLAN`): only copies run")
        return False
    if approve is not None:
        if approve == 0:
            say(f"{deletes} not approved: only its copies run")
            return False
        if approve != count:
            raise WrongUsage(
                f"--approve-deletes {approve}, but the plan has {many(count, 'delete')}",
                hint="show the plan again and read them",
            )
        return True
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        say(f"{deletes} not approved (--approve-deletes {count}): only its copies run")
        return False
    typed = click.prompt(
        f"This plan deletes {many(count, 'copy', 'copies')}. Type that number to approve, or "
        "nothing for copies only",
        default="",
        show_default=False,
    )
    if typed.strip() == str(count):
        return True
    if typed.strip():
        raise Declined("that is not the number of deletes: nothing was done")
    return False


@cli.command()
@click.option("--reason", metavar="WHY", help="Why nothing may be deleted, or why it may again.")
@click.option(
    "--until",
    callback=as_moment,
    metavar="MOMENT",
    help="When it ends by itself (UTC): 2026-12-24 or 2026-12-24T10:00:00Z. Else a person ends it.",
)
@click.option("--end", "ends", is_flag=True, help="End it: deletes may run again.")
def freeze(reason: str | None, until: datetime | None, ends: bool) -> None:
    """Stop all deletes of all runs on this state, also of one that is on its way. Copies go on.

    A plan says so (exit 4), and an apply deletes nothing; one that is deleting stops within ten
    seconds, on other machines (`apply --on`) within half a minute. Without an option it tells
    whether there is one. Examples: `retainer freeze --reason "INC-42: why did these go?"`,
    `retainer freeze --end --reason "INC-42 is understood"`
    """
    from retainer.inventory.facts import is_text
    from retainer.journal.freeze import LONGEST_REASON, end_freeze, freeze_in
    from retainer.journal.freeze import freeze as frozen_from
    from retainer.who import who

    root, settings, _ = the_project()
    moment = now()
    if reason is None:
        if ends or until:
            raise WrongUsage("say why, with --reason", hint="it is kept with the record")
        found = freeze_in(record_in(root, settings), moment)
        click.echo(printable(found.words if found else "no freeze: deletes may run"))
        return
    if not reason.strip() or len(reason) > LONGEST_REASON or not is_text(reason):
        said = f"a reason has at most {LONGEST_REASON} letters, and some"
        raise WrongUsage(said, hint='such as "INC-42: why did these go?"')
    if ends:
        if until:
            raise WrongUsage("--end and --until do not go together")
        end_freeze(record_for(root, settings), reason, moment, who())
        click.echo("the freeze is over: deletes may run")
        return
    if until is not None and until <= moment:
        raise WrongUsage("--until is over already", hint="name a moment that is still to come")
    frozen_from(record_for(root, settings), reason, until, moment, who())
    ending = f" until {write_moment(until)}" if until else ""
    click.echo(f"nothing is deleted by any run on {settings.record}{ending}; copies go on")
    click.echo("Next: retainer freeze --end --reason WHY")


@cli.command()
@click.argument("path", metavar="PLAN", type=click.Path(path_type=Path))
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    default=Path("~/.ssh/id_ed25519"),
    show_default=True,
    help="The SSH key to sign with; a public one where an agent has the other half.",
)
@click.option(
    "--deletes",
    type=int,
    metavar="N",
    help="The plan's own number of deletes, where there is no terminal to type it on.",
)
@FINGERPRINT
@PATIENCE
def approve(
    path: Path, key: Path, deletes: int | None, fingerprint: str | None, patience: timedelta | None
) -> None:
    """Sign the deletes of a plan, so that somebody else may apply them.

    With `limits: {second_person: true}` an apply deletes nothing without it. Whose key counts
    stands in `allowed_signers` beside retainer.yaml, in the format of ssh-keygen(1). What is signed
    is the plan's fingerprint; it lies beside the journal. Read the plan first.
    Examples: `retainer approve today.plan`, `retainer approve today.plan --deletes 12`
    """
    import os

    from retainer.applying import prepare
    from retainer.approving import ALLOWED
    from retainer.approving import approve as signed
    from retainer.journal.journal import read_ledger
    from retainer.views.units import many
    from retainer.who import known_as, who

    root, settings, policies = the_project()
    backend = record_for(root, settings, patience)
    prepared = prepare(path, settings, policies, now(), fingerprint, read_ledger(backend))
    count, header = prepared.deleted, prepared.plan.header
    if count == 0:
        raise WrongUsage(f"{path} deletes nothing, so it needs no approval")
    click.echo(
        f"{path}: {many(count, 'delete')}, {many(header.last_copies, 'last copy', 'last copies')}, "
        f"fingerprint {prepared.plan.fingerprint[:12]}"
    )
    typed = str(deletes) if deletes is not None else ""
    if deletes is None and sys.stdin.isatty():
        typed = click.prompt("Type the number of deletes to sign them", default="").strip()
    if typed != str(count):
        raise Declined(f"nothing was signed: the plan has {many(count, 'delete')}")
    identity = who()
    fingerprint = prepared.plan.fingerprint
    host = os.uname().nodename
    allowed = root / ALLOWED
    principal = signed(
        backend, fingerprint, count, key.expanduser(), allowed, now(), identity, host
    )
    me = known_as(identity)
    click.echo(printable(f"signed as {principal}; it does not count where {me} applies the plan"))
    click.echo(f"Next: somebody else says retainer apply {path} --approve-deletes {count}")


@cli.command()
@click.argument("store", shell_complete=COMPLETE_STORE)
@click.option(
    "--run",
    "run_id",
    metavar="ID",
    help=(
        "The run that holds it, where it is known to be over and its lock is younger than 10 "
        "minutes."
    ),
)
@PATIENCE
def unlock(store: str, run_id: str | None, patience: timedelta | None) -> None:
    """Take away the lock that a dead run left in a store. Never one that a living run renews.

    A lock that nobody renewed for 10 minutes, by the store's clock, is dead. A younger one stays,
    unless its run is named: look first that it is really over, on its host. Examples: `retainer
    unlock vault`, `retainer unlock vault --run 6f1c2a9b03d4`
    """
    from retainer import wiring
    from retainer.journal.lock import LOCK_KEY, lock_in
    from retainer.ports import Deletion
    from retainer.progress import Gathering

    _, settings, _ = the_project()
    is_state = settings.shared is not None and store == settings.shared.name
    declared = settings.shared if is_state else declared_store(settings, store)
    assert declared is not None
    with Gathering(f"looking at the lock of {store}…") as shown:
        patient = wiring.patience_of(patience, stop(), shown.waiting)
        writer = wiring.open_writer(declared, stop(), patient)
        held = lock_in(writer)
    if held is None:
        click.echo(f"nobody holds {store}")
        return
    named = run_id is not None and held.owner is not None and held.owner.run == run_id
    if not held.is_dead and not named:
        whose = (
            f"--run {printable(held.owner.run)} takes it, if that run is known to be over"
            if held.owner
            else "wait until it is 10 minutes old"
        )
        raise Locked(held.words(store), hint=f"it may be alive; {whose}")
    if writer.delete(held.look.seen) is Deletion.CHANGED:
        raise Locked(
            f"the lock of {store} was renewed at this moment: its run is alive", hint="wait for it"
        )
    click.echo(
        f"{LOCK_KEY} is gone from {store}: "
        + printable(held.words(store).removeprefix("another apply holds "))
    )
