"""Commands that say what is: facts, plan, show."""

from __future__ import annotations

import json
import os
import shutil
import sys
import uuid
from contextlib import ExitStack, suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from click.exceptions import Exit

from retainer.cli.group import cli
from retainer.cli.options import (
    COMPLETE_LIMIT,
    MAX_CHARS,
    METRICS,
    PATIENCE,
    WEBHOOK,
    as_moment,
    as_span,
    facts_option,
    form_option,
    limits_of,
    only_match,
)
from retainer.cli.printing import measure, notify, reading_in, told_to, written
from retainer.cli.process import EXIT, now, stop
from retainer.cli.project import (
    engine_at,
    gathered,
    keep_facts,
    making_at,
    not_in_the_way,
    record_in,
    state_of,
    the_project,
)
from retainer.errors import CredentialsRefused, FactsIncomplete, RetainerError, WrongUsage
from retainer.voice import say, tell

if TYPE_CHECKING:
    from collections.abc import Mapping

    from retainer.model.rule import Policies
    from retainer.model.setting import Settings
    from retainer.planfile import PlanFile


@cli.command()
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The snapshot to write (one DuckDB file).",
)
@click.option(
    "--lift",
    multiple=True,
    metavar="LIMIT",
    help="Say that so much is gone from a list on purpose, as in disappeared:vault.",
)
@PATIENCE
def facts(out: Path, lift: tuple[str, ...], patience: timedelta | None) -> None:
    """Gather what exists into a snapshot, so that a plan elsewhere needs no credentials and no
    connection.

    It contains the names of rooms and templates: treat it as you treat those. Example: `retainer
    facts --out facts.duckdb`
    """
    import duckdb

    from retainer.inventory.facts import is_snapshot
    from retainer.planfile import may_be_written
    from retainer.private import private_file

    root, settings, policies = the_project()
    _only_limits(lift, settings, policies)
    not_in_the_way(out, root, settings, ".duckdb")
    may_be_written(out, is_snapshot, "a snapshot of facts")
    made = private_file(".duckdb")
    gathered(
        root,
        settings,
        policies,
        made,
        for_any_policies=True,
        before=(out,),
        patience=patience,
        lifts=lift,
    )
    for_the_next, copy = state_of(root, settings) / "facts.duckdb", private_file(".duckdb")
    shutil.copyfile(made, copy)
    with duckdb.connect(str(made), read_only=True) as connection:
        rows = connection.execute(
            "SELECT (SELECT count(*) FROM assets), (SELECT count(*) FROM copies), "
            "bool_and(complete) FROM listings"
        ).fetchone()
    assert rows is not None
    is_news = keep_facts(made, out)
    if out.resolve() != for_the_next.resolve():
        keep_facts(copy, for_the_next)  # the next facts remember by it what rooms were called
    if not is_news:
        raise FactsIncomplete(
            f"a listing did not finish: {out} stays as it was, since all of its listings had",
            hint="run it again, or remove that file to have what could be read",
        )
    click.echo(
        f"{rows[0]:,} assets and {rows[1]:,} copies in {out}, with the names of rooms and templates"
    )
    click.echo(f"Next: retainer plan --facts {out}")
    if not rows[2]:
        raise FactsIncomplete(
            "a listing did not finish: `retainer plan` says which, and plans no delete that could "
            "be concerned"
        )


@cli.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Where to write the plan. Default: a name of its own; .retainer/last.plan leads to it.",
)
@click.option(
    "--as-of",
    callback=as_moment,
    metavar="T",
    help="Plan for this moment; one in the future can be shown, never applied.",
)
@click.option(
    "--only",
    metavar="MATCH",
    help=(
        "Only actions on what matches, such as '{type: chat}'; the decision still sees everything."
    ),
)
@facts_option("Plan from a snapshot, offline.")
@click.option(
    "--on",
    metavar="SCHEDULER",
    help=(
        "Let the machines of a Dask scheduler decide ranges of recordings, such as "
        "tls://scheduler:8786 (extra `cluster`; with --facts in a folder that all of them see)."
    ),
)
@click.option(
    "--detailed-exitcode",
    is_flag=True,
    help="Exit 2 when there are actions, 3 when some of them are deletes.",
)
@click.option(
    "--fail-if-at-risk",
    callback=as_span,
    metavar="D",
    help="Exit 12 when something leaves 100ms within D (72h) without a copy.",
)
@click.option(
    "--fail-if-lapsing",
    callback=as_span,
    metavar="D",
    help="Exit 12 when something leaves 100ms within D (72h) since no rule keeps it.",
)
@click.option(
    "--lift",
    shell_complete=COMPLETE_LIMIT,
    multiple=True,
    metavar="LIMIT",
    help="Lift one breached limit or clash, as the plan names it, such as count:store:vault.",
)
@click.option(
    "--names",
    "with_names",
    is_flag=True,
    help="Tell the names of rooms that were renamed, also without a terminal.",
)
@PATIENCE
@METRICS
@WEBHOOK
@form_option("jsonl", "csv", "gitlab")
@MAX_CHARS
def plan(
    out: Path | None,
    as_of: datetime | None,
    only: str | None,
    snapshot: Path | None,
    on: str | None,
    detailed_exitcode: bool,
    fail_if_at_risk: timedelta | None,
    fail_if_lapsing: timedelta | None,
    lift: tuple[str, ...],
    with_names: bool,
    patience: timedelta | None,
    metrics: Path | None,
    webhook: str | None,
    form: str,
    max_chars: int | None,
) -> None:
    """Show what the policies mean today, and write it to a plan file.

    Examples: `retainer plan --out today.plan`, `retainer plan --facts facts.duckdb
    --detailed-exitcode`, `retainer plan --fail-if-at-risk 72h`
    """
    from retainer.planfile import is_plan, may_be_written, put_in_place, read_plan
    from retainer.views.plan import moment_of
    from retainer.whole import whole

    with told_to(webhook, "plan"):
        root, settings, policies = the_project()
    _only_limits(lift, settings, policies)
    if on is not None and snapshot is None:
        raise WrongUsage(
            "--on needs --facts: a snapshot in a folder that all machines see",
            hint="make one there with `retainer facts --out /shared/facts.duckdb`",
        )
    match = only_match(only)
    state = state_of(root, settings)
    last = state / "last.plan"
    if out is not None:
        not_in_the_way(out, root, settings, ".plan")
        may_be_written(out, is_plan, "a plan")
    with told_to(webhook, "plan"):
        made_at, names = _made(
            (root, settings, policies),
            snapshot,
            as_of,
            wants_names=with_names or sys.stdout.isatty(),
            on=on,
            patience=patience,
            only=match,
            scope=only,
            lifts=frozenset(lift),
        )
    made = read_plan(made_at)
    if out is None:
        # A name of its own, so that a plan which is being applied is never written over; the link
        # is only for people.
        out = state / "plans" / f"{made.header.plan_id}.plan"
        put_in_place(made_at, out)
        _link(last, out)
    else:
        may_be_written(out, is_plan, "a plan")
        put_in_place(made_at, out)
    told = state / "told-losses.json"
    _show(
        made,
        out,
        form,
        names if made.header.renamed else None,
        frozenset(_texts_in(told)),
        max_chars,
    )
    if form == "text" and as_of is None and snapshot is None:
        rows = made.connection.execute("SELECT asset_id FROM plan WHERE decision = 'lost'")
        with suppress(OSError), whole(told) as half:
            half.write_text(json.dumps(sorted({asset_id for (asset_id,) in rows.fetchall()})))
    ends = {"leaves_at IS NOT NULL": fail_if_at_risk, "because = 'not-kept'": fail_if_lapsing}
    leaves = any(
        horizon is not None and _leaves(made, which, moment_of(made.header.as_of) + horizon)
        for which, horizon in ends.items()
    )
    code = _plan_exit(made, detailed_exitcode, leaves=leaves)
    _tell_others(made, out, code, metrics, webhook)
    raise Exit(code)


def _tell_others(
    made: PlanFile, path: Path, code: int, metrics: Path | None, webhook: str | None
) -> None:
    """Metrics of a plan, and a message where somebody should hear of it."""
    from retainer.planfile import overview
    from retainer.views.metrics import plan_metrics
    from retainer.views.notice import notice
    from retainer.views.plan import plan_page

    worrying = webhook is not None and code in _WORRYING
    if metrics is None and not worrying:
        return
    header, brief = made.header, overview(made, 1)
    if metrics is not None:
        measure(metrics, plan_metrics(header, brief))
    if worrying:
        page = plan_page(header, brief, reading_in(header.timezone), made.fingerprint, str(path))
        counts = {"copies": header.copies, "locks": header.locks, "deletes": header.deletes}
        plan_id = made.fingerprint[:12]
        notify(webhook, notice(page), event="plan", exit_code=code, plan=plan_id, **counts)


def _made(
    project: tuple[Path, Settings, Policies],
    snapshot: Path | None,
    as_of: datetime | None,
    *,
    wants_names: bool,
    on: str | None,
    patience: timedelta | None,
    **making: Any,
) -> tuple[Path, Mapping[tuple[str, str], list[str]] | None]:
    """Make a plan from a snapshot, or from facts that are gathered for it; where it lies, and the
    names of rooms where somebody wants them."""
    from retainer.planning import make_plan, names_of
    from retainer.private import private_file
    from retainer.progress import Gathering

    root, settings, policies = project
    state = state_of(root, settings)
    record = record_in(root, settings, patience)
    facts = snapshot
    try:
        if facts is None:
            # Of its own until the plan is made of it: another plan in this project may be
            # gathering too.
            facts = private_file(".duckdb")
            gathered(
                root,
                settings,
                policies,
                facts,
                for_any_policies=settings.cooling is not None,
                patience=patience,
                lifts=making.get("lifts", ()),
            )
        made_at = private_file(".plan")
        # the clock is read once all is gathered, so that nothing of it is of the future
        making_now = making_at(
            record, as_of or now(), cooling=project, offline=snapshot is not None, **making
        )
        with Gathering(headline="") as shown, ExitStack() as held:
            more: dict[str, Any] = {"progress": partial(shown.rows, "decided")}
            if on is not None:
                from retainer.ranging import Ranging

                engine = held.enter_context(engine_at(on))
                elsewhere = facts, policies, stop(), shown.waiting, more["progress"]
                more["elsewhere"] = Ranging(engine, *elsewhere)
            make_plan(facts, settings, policies, root, making_now, made_at, **more)
        names = names_of(facts) if wants_names else None
        if snapshot is None and not keep_facts(facts, state / "facts.duckdb"):
            tell(
                "a listing did not finish: explain, impact and forecast go on with the last whole "
                "facts"
            )
        return made_at, names
    finally:
        if snapshot is None and facts is not None:
            facts.unlink(missing_ok=True)


_WORRYING = (4, 8, 11, 12)
"""The exit codes of a plan that somebody should hear of."""


def _only_limits(lifts: tuple[str, ...], settings: Settings, policies: Policies) -> None:
    """Raises WrongUsage for what no limit is called: it would lift nothing, without a word."""
    from retainer.policy.diagnostics import nearest

    known = limits_of(settings, policies)
    for lift in lifts:
        if lift not in known:
            close = nearest(lift, known)
            raise WrongUsage(
                f"--lift: `{lift}` is no limit of this project",
                hint=f"did you mean `{close}`?"
                if close
                else "a plan names what it breaches, such as count:store:vault",
            )


def _texts_in(path: Path) -> list[str]:
    """The texts of a list that retainer wrote for itself; none where there is no such list."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return []
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


def _link(link: Path, target: Path) -> None:
    """Let `last.plan` lead to the plan just made; something else of that name stays as it is."""
    from retainer.planfile import is_plan, may_be_written

    half = link.with_name(f".{uuid.uuid4().hex}.half")
    try:
        may_be_written(link, is_plan, "a plan")
        half.symlink_to(target.relative_to(link.parent))
        half.replace(link)
    except (OSError, WrongUsage) as error:
        say(f"{link} still leads to an older plan: {error}")
    finally:
        half.unlink(missing_ok=True)


def _leaves(made: PlanFile, which: str, by: datetime) -> bool:
    """Whether anything of these rows leaves 100ms by then."""
    row = made.connection.execute(
        f"SELECT epoch(min(coalesce(leaves_at, until))) FROM plan WHERE {which}"
    ).fetchone()
    return bool(row and row[0] is not None and row[0] <= by.timestamp())


def _plan_exit(made: PlanFile, detailed: bool, *, leaves: bool) -> int:
    """The exit code of a plan; where several apply: 11 > 8 > 4 > 12 > 3 > 2. `leaves`: something
    leaves 100ms that a person asked to be told of."""
    header = made.header
    if any(source.refused for source in header.sources):
        return CredentialsRefused.exit_code
    if header.incomplete or _uncatalogued(made):
        return EXIT["incomplete"]
    if header.held_back or any(not each.lifted for each in header.own_rules):
        return EXIT["held back"]
    if leaves:
        return EXIT["at risk"]
    if detailed and header.deletes:
        return EXIT["deletes"]
    return EXIT["only copies"] if detailed and (header.copies or header.locks) else 0


def _uncatalogued(made: PlanFile) -> bool:
    """Whether something lies where a copy should, and no catalog vouches for it."""
    found = "SELECT 1 FROM plan WHERE decision = 'uncatalogued' LIMIT 1"
    return made.connection.execute(found).fetchone() is not None


def _show(
    made: PlanFile,
    path: Path,
    form: str,
    names: Mapping[tuple[str, str], list[str]] | None = None,
    told_losses: frozenset[str] = frozenset(),
    max_chars: int | None = None,
    *,
    applied: bool = False,
) -> None:
    from retainer.planfile import overview
    from retainer.views.machine import plan_csv, plan_json, plan_lines, plan_widget
    from retainer.views.plan import plan_page

    if form in ("jsonl", "csv"):
        for line in plan_lines(made) if form == "jsonl" else plan_csv(made):
            click.echo(line, nl=False)
        return
    if form in ("json", "gitlab"):
        click.echo(plan_json(made) if form == "json" else plan_widget(made), nl=False)
        return
    timezone = made.header.timezone
    page = plan_page(
        made.header,
        overview(made, MOST_SHOWN[form], told_losses, with_charts=form == "html"),
        reading_in(timezone),
        made.fingerprint,
        os.path.relpath(path),
        names or {},
        applied=applied,
    )
    click.echo(written(page, timezone, form, max_chars), nl=False, color=True)


MOST_SHOWN = {"text": 10, "markdown": 100, "html": 5_000}
"""So many recordings of each group a page tells."""


@cli.command()
@click.argument("path", metavar="PLAN", type=click.Path(path_type=Path))
@form_option("jsonl", "csv", "gitlab")
@MAX_CHARS
def show(path: Path, form: str, max_chars: int | None) -> None:
    """Show a plan file again. JSON lists every row with its reason.

    Examples: `retainer show today.plan`, `retainer show today.plan --format html > plan.html`,
    `retainer show today.plan --format jsonl | jq 'select(.decision == "delete")'`
    """
    from retainer.planfile import read_plan

    made = read_plan(path)
    _show(made, path, form, max_chars=max_chars, applied=_is_applied(made))


def _is_applied(made: PlanFile) -> bool:
    """Whether the journal of the project here, if there is one, has this plan's end."""
    from retainer.journal.journal import read_ledger
    from retainer.settings import find_root, load_settings

    try:
        root = find_root(Path.cwd())
        settings = load_settings(root)[0] if root else None
        if root is None or settings is None:
            return False
        return read_ledger(record_in(root, settings)).done(made.fingerprint).finished
    except RetainerError:
        return False
