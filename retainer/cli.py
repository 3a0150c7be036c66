"""The command line: each command strings the stages together; only this file prints, and only here errors are caught."""

from __future__ import annotations

import json
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import rich_click as click
from click.exceptions import Exit

from retainer.errors import Declined, FactsIncomplete, PoliciesWrong, RetainerError, WrongUsage

if TYPE_CHECKING:
    from collections.abc import Callable

    from retainer.apply.run import Run
    from retainer.cataloguing import Work
    from retainer.model.diagnostic import Diagnostic
    from retainer.model.outcome import Census
    from retainer.model.rule import Match, Policies
    from retainer.model.setting import Settings
    from retainer.planfile import PlanFile
    from retainer.views.human import Page

EXIT = {"only copies": 2, "deletes": 3, "held back": 4, "partly": 7, "incomplete": 8, "at risk": 12, "interrupted": 130}

click.rich_click.TEXT_MARKUP = "ansi"
click.rich_click.MAX_WIDTH = 100


def now() -> datetime:
    """The clock of this command, read once and passed on."""
    return datetime.now(UTC)


def main() -> NoReturn:
    """Run the command line; every error ends here, as a sentence on stderr and its exit code."""
    try:
        code = cli.main(standalone_mode=False)
    except Exit as leave:
        code = leave.exit_code
    except click.Abort:
        click.echo("interrupted", err=True)
        code = EXIT["interrupted"]
    except click.ClickException as error:
        error.show()
        code = WrongUsage.exit_code if isinstance(error, click.UsageError) else 1
    except RetainerError as error:
        click.echo(f"error: {error.message}", err=True)
        if error.hint:
            click.echo(f"hint: {error.hint}", err=True)
        code = error.exit_code
    except KeyboardInterrupt:
        code = EXIT["interrupted"]
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _page(stream: Any = None) -> Page:
    from retainer.views.human import Page

    stream = stream or sys.stdout
    if not stream.isatty():
        return Page()
    colour = "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    return Page(os.get_terminal_size(stream.fileno()).columns, colour)


def _root() -> Path:
    from retainer.settings import find_root

    root = find_root(Path.cwd())
    if root is None:
        raise PoliciesWrong("there is no retainer.yaml here or in any folder above", hint="`retainer init` writes one")
    return root


def _project() -> tuple[Path, Settings, Policies]:
    """The project's settings and policies; mistakes are shown, all of them, and end the command."""
    from retainer.settings import load_project

    root = _root()
    settings, policies, mistakes = load_project(root)
    _fail_on(mistakes)
    return root, settings, policies


def _fail_on(mistakes: list[Diagnostic]) -> None:
    from retainer.views.human import mistakes_text

    if mistakes:
        click.echo(mistakes_text(mistakes, _page(sys.stderr)), err=True, nl=False)
        raise Exit(PoliciesWrong.exit_code)


def _moment(_context: click.Context, _parameter: click.Parameter, value: str | None) -> datetime | None:
    from retainer.model.moment import read_moment

    if value is None:
        return None
    moment = read_moment(value if "T" in value.upper() else f"{value}T00:00:00Z")
    if moment is None:
        raise click.BadParameter(f"`{value}` is not a moment; write 2026-11-22 or 2026-11-22T10:00:00Z")
    return moment


def _horizon(_context: click.Context, _parameter: click.Parameter, value: str | None) -> timedelta | None:
    from retainer.model.period import parse_period

    if value is None:
        return None
    try:
        period = parse_period(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if period.forever or period.months:
        raise click.BadParameter("write hours, days or weeks, such as 72h")
    return timedelta(days=period.days, seconds=period.seconds)


def _only(text: str | None) -> Match | None:
    """A match from the command line: YAML as in a rule, such as `{type: chat}` or `all`."""
    from retainer.policy.load import load_text
    from retainer.policy.parse import parse_policies

    if text is None:
        return None
    document, mistakes = load_text(f"version: 1\nrules:\n  - id: only\n    match: {text}\n    at_most: 1d\n", "--only")
    if not mistakes:
        policies, mistakes = parse_policies(document, "UTC")
        if not mistakes:
            return policies.rules[0].match
    first = mistakes[0]
    raise WrongUsage(f"--only: {first.message}" + (f" ({first.hint})" if first.hint else ""), hint="for example --only '{type: chat}'")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="retainer")
def cli() -> None:
    """Keep what 100ms records: which recordings, where, and for how long, as reviewed policies.

    A plan shows what they mean today; apply does exactly what the plan says, and never deletes on a guess.

    \b
    Examples:
      retainer demo                       all of it in a new folder, without a network or an account
      retainer init; retainer validate    a careful start
      retainer plan --out today.plan
      retainer apply today.plan --approve-deletes 12
    """


@cli.command()
def init() -> None:
    """Write a careful start: retainer.yaml, policies/ and the editor's schema.

    Nothing that exists is changed. Example: `mkdir retention && cd retention && retainer init`
    """
    from retainer.policy.schema import json_schema
    from retainer.starter import STARTER

    files = {**STARTER, ".retainer/schema.json": json.dumps(json_schema(), indent=2) + "\n", ".gitignore": ".retainer/\n"}
    for name, content in files.items():
        path = Path(name)
        if path.exists():
            click.echo(f"= {name} is there already")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        click.echo(f"+ {name}")
    click.echo("Next: edit retainer.yaml and policies/, then `retainer validate`")


@cli.command()
def validate() -> None:
    """Check retainer.yaml and every policy, offline: all mistakes of all files in one run.

    Example: `retainer validate`
    """
    _, settings, policies = _project()
    from retainer.views.units import many

    counts = (many(len(policies.rules), "rule"), many(len(policies.holds), "hold"), many(len(policies.erasures), "erasure"))
    click.echo(f"valid: {', '.join(counts)}, {many(len(settings.stores), 'store')}")


@cli.command()
def schema() -> None:
    """Print the JSON Schema of policies and of retainer.yaml, for editors.

    Example: `retainer schema > .retainer/schema.json`
    """
    from retainer.policy.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


@cli.command("help")
@click.argument("code", required=False)
def help_(code: str | None) -> None:
    """Explain a diagnostic code. Without one, list them all.

    Example: `retainer help P208`
    """
    from retainer.policy.codes import CODES
    from retainer.policy.diagnostics import nearest
    from retainer.views.human import table

    if code is None:
        click.echo(table((key, title) for key, (title, _) in CODES.items()))
        return
    if code.upper() not in CODES:
        close = nearest(code.upper(), CODES)
        raise WrongUsage(f"there is no code {code}", hint=f"did you mean {close}?" if close else "`retainer help` lists them")
    title, text = CODES[code.upper()]
    click.echo(_page().wrapped(f"{code.upper()}: {title}") + "\n\n" + _page().wrapped(text))


def _gathered(root: Path, settings: Settings, policies: Policies, out: Path) -> None:
    """Ask 100ms and every store, and leave a snapshot of the facts at `out`."""
    from retainer import wiring
    from retainer.planning import gather
    from retainer.progress import Gathering

    with Gathering() as shown:
        api = wiring.open_api(settings, shown.waiting)
        readers = [wiring.open_reader(store) for store in settings.stores]
        gather(settings, policies, api, readers, out=out, cache=_state(root, settings) / "catalog", clock=now, progress=shown.rows)


def _state(root: Path, settings: Settings) -> Path:
    return root / settings.state


@cli.command()
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The snapshot to write (one DuckDB file).")
def facts(out: Path) -> None:
    """Gather what exists into a snapshot, so that a plan elsewhere needs no credentials and no connection.

    It contains the names of rooms and templates: treat it as you treat those. Example: `retainer facts --out facts.duckdb`
    """
    import duckdb

    root, settings, policies = _project()
    _gathered(root, settings, policies, out)
    with duckdb.connect(str(out), read_only=True) as connection:
        rows = connection.execute("SELECT (SELECT count(*) FROM assets), (SELECT count(*) FROM copies), bool_and(complete) FROM listings").fetchone()
    assert rows is not None
    click.echo(f"{rows[0]:,} assets and {rows[1]:,} copies in {out}, with the names of rooms and templates")
    click.echo(f"Next: retainer plan --facts {out}")
    if not rows[2]:
        raise FactsIncomplete("a listing did not finish: `retainer plan` says which, and plans no delete that could be concerned")


@cli.command()
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Where to write the plan. Default: .retainer/last.plan")
@click.option("--as-of", callback=_moment, metavar="T", help="Plan for this moment; one in the future can be shown, never applied.")
@click.option("--only", metavar="MATCH", help="Only actions on what matches, such as '{type: chat}'; the decision still sees everything.")
@click.option("--facts", "snapshot", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Plan from a snapshot, offline.")
@click.option("--detailed-exitcode", is_flag=True, help="Exit 2 when there are actions, 3 when some of them are deletes.")
@click.option("--fail-if-at-risk", callback=_horizon, metavar="D", help="Exit 12 when something leaves 100ms within D (72h) without a copy.")
@click.option("--lift", multiple=True, metavar="LIMIT", help="Lift one breached limit or clash, as the plan names it, such as count:store:vault.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text")
def plan(
    out: Path | None, as_of: datetime | None, only: str | None, snapshot: Path | None, detailed_exitcode: bool,
    fail_if_at_risk: timedelta | None, lift: tuple[str, ...], form: str,
) -> None:  # fmt: skip
    """Show what the policies mean today, and write it to a plan file.

    Examples: `retainer plan --out today.plan`, `retainer plan --facts facts.duckdb --detailed-exitcode`,
    `retainer plan --fail-if-at-risk 72h`
    """
    from retainer.journal.file import read_journal, recent_deletes, weak_stores
    from retainer.plan.limits import Deletes
    from retainer.planfile import read_plan
    from retainer.planning import Making, make_plan

    root, settings, policies = _project()
    match = _only(only)
    state = _state(root, settings)
    if snapshot is None:
        snapshot = state / "facts.duckdb"
        _gathered(root, settings, policies, snapshot)
    moment = as_of or now()
    journal = read_journal(state)
    recent = tuple(Deletes(store, rule, count, size) for (store, rule), (count, size) in recent_deletes(journal, moment).items())
    making = Making(moment, match, only, frozenset(lift), recent, tuple(weak_stores(journal).items()))
    out = out or state / "last.plan"
    make_plan(snapshot, settings, policies, root, making, out)
    made = read_plan(out)
    _show(made, out, form)
    raise Exit(_plan_exit(made, moment, detailed_exitcode, fail_if_at_risk))


def _plan_exit(made: PlanFile, moment: datetime, detailed: bool, horizon: timedelta | None) -> int:
    """The exit code of a plan; where several apply: 8 > 4 > 12 > 3 > 2."""
    header = made.header
    if header.incomplete:
        return EXIT["incomplete"]
    if header.held_back:
        return EXIT["held back"]
    if horizon is not None:
        row = made.connection.execute("SELECT epoch(min(leaves_at)) FROM plan").fetchone()
        if row and row[0] is not None and row[0] <= (moment + horizon).timestamp():
            return EXIT["at risk"]
    if detailed and header.deletes:
        return EXIT["deletes"]
    return EXIT["only copies"] if detailed and header.copies else 0


def _show(made: PlanFile, path: Path, form: str) -> None:
    from retainer.planfile import overview
    from retainer.views.human import plan_text
    from retainer.views.machine import plan_json

    shown = os.path.relpath(path)
    text = plan_json(made) if form == "json" else plan_text(made.header, overview(made), _page(), made.fingerprint, shown)
    click.echo(text, nl=False)


@cli.command()
@click.argument("path", metavar="PLAN", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text")
def show(path: Path, form: str) -> None:
    """Show a plan file again. JSON lists every row with its reason.

    Example: `retainer show today.plan --format json | jq '.rows[] | select(.decision == "delete")'`
    """
    from retainer.planfile import read_plan

    _show(read_plan(path), path, form)


@cli.command()
@click.argument("path", metavar="PLAN", type=click.Path(path_type=Path))
@click.option("--approve-deletes", type=int, metavar="N", help="Approve the plan's deletes; N must be the plan's own count.")
@click.option("--fingerprint", metavar="F", help="Insist that this is the plan that was reviewed.")
@click.option("--restore", is_flag=True, help="Ask for archived sources to be restored for a week (bulk tier; takes hours, costs money).")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text")
def apply(path: Path, approve_deletes: int | None, fingerprint: str | None, restore: bool, form: str) -> None:
    """Do what a plan says: copies by their deadlines, then deletes. What has changed since is skipped.

    On a terminal it asks for the number of deletes; without one and without --approve-deletes it only copies.
    A run that was interrupted goes on when it is given the same plan again.

    Examples: `retainer apply today.plan`, `retainer apply today.plan --approve-deletes 12`
    """
    from retainer import wiring
    from retainer.applying import carry_out, prepare
    from retainer.journal.file import read_journal
    from retainer.progress import Applying
    from retainer.views.human import summary_text
    from retainer.views.machine import summary_json

    root, settings, policies = _project()
    prepared = prepare(path, settings, policies, now(), fingerprint, read_journal(_state(root, settings)))
    approved = _approved(len(prepared.deletes), prepared.held_back, approve_deletes)
    needed = {action.source for action in prepared.copies}
    stores = wiring.open_stores(settings, {action.store for action in (*prepared.copies, *prepared.deletes)})
    header = prepared.plan.header
    running: list[Run] = []
    with Applying(len(prepared.copies), header.copy_bytes, len(prepared.deletes) if approved else 0) as shown, _Interrupts(running):
        api = wiring.open_api(settings, shown.waiting) if needed & {"hosted", "elsewhere"} else None
        done = carry_out(
            prepared, settings, state=_state(root, settings), writers=stores, downloads=api or wiring.NoDownloads(), clock=now,
            watcher=shown, approved=approved, restore=restore, on_run=running.append, today=lambda: _today(root),
        )  # fmt: skip
    click.echo(summary_json(done) if form == "json" else summary_text(done, _page(), str(path)), nl=False)
    if done.interrupted:
        raise Exit(EXIT["interrupted"])
    if not done.finished:
        raise Exit(EXIT["held back"] if done.left_deletes and prepared.held_back and not done.failed else EXIT["partly"])


def _today(root: Path) -> tuple[Settings, Policies] | None:
    """The project as it is by now; None when it is wrong."""
    from retainer.settings import load_project

    settings, policies, mistakes = load_project(root)
    return None if mistakes else (settings, policies)


class _Interrupts:
    """While it lasts, the first Ctrl-C or SIGTERM asks the run to stop; a second one ends it at once, as a kill would."""

    def __init__(self, runs: list[Run]) -> None:
        self._runs = runs
        self._before: list[tuple[int, Any]] = []

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        for signum, handler in self._before:
            signal.signal(signum, handler)
        if not self._runs:
            raise KeyboardInterrupt
        click.echo("stopping: what is under way is given up, and the journal is written (once more to end at once)", err=True)
        for run in self._runs:
            run.stop()

    def __enter__(self) -> None:
        self._before = [(number, signal.signal(number, self._handle)) for number in (signal.SIGINT, signal.SIGTERM)]

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)


def _approved(count: int, held_back: list[str], approve: int | None) -> bool:
    """Whether a person has approved the deletes, by their number. Nothing else is a yes."""
    if count == 0:
        return False
    if held_back:
        click.echo(f"the plan's {count} deletes are held back: {', '.join(held_back)}. Its copies run.", err=True)
        return False
    if approve is not None:
        if approve != count:
            raise WrongUsage(f"--approve-deletes {approve}, but the plan has {count} deletes", hint="show the plan again and read them")
        return True
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        click.echo(f"the plan's {count} deletes are not approved (--approve-deletes {count}): only its copies run", err=True)
        return False
    typed = click.prompt(f"This plan deletes {count} copies. Type that number to approve, or nothing for copies only", default="", show_default=False)
    if typed.strip() == str(count):
        return True
    if typed.strip():
        raise Declined("that is not the number of deletes: nothing was done")
    return False


def _census(store: str, form: str, what: str, act: Callable[[Work], Census]) -> None:
    """Look at every object of a store, and show what was found."""
    from retainer import wiring
    from retainer.cataloguing import Work
    from retainer.policy.diagnostics import nearest
    from retainer.progress import Gathering
    from retainer.views.human import census_text
    from retainer.views.machine import census_json

    root, settings, _ = _project()
    declared = settings.store(store)
    if declared is None:
        close = nearest(store, [each.name for each in settings.stores])
        raise WrongUsage(f"there is no store `{store}`", hint=f"did you mean `{close}`?" if close else "retainer.yaml declares them under `stores:`")
    with Gathering(f"looking at the objects of {store}…") as shown:
        census = act(Work(declared, wiring.open_writer(declared), _state(root, settings), now, shown.rows))
    click.echo(census_json(census) if form == "json" else census_text(census, _page(), what, store), nl=False)
    if census.failed or census.broken:
        raise Exit(EXIT["partly"] if census.failed else 1)


FORM = click.option("--format", "form", type=click.Choice(["text", "json"]), default="text")


@cli.command()
@click.argument("store")
@FORM
def adopt(store: str, form: str) -> None:
    """Recognise recordings that 100ms or a person put into a store, and catalog them as inferred. No object is changed.

    By the metadata of copies and by the documented shapes of paths. What is known by its path alone has no date: it is kept, held and erased
    like anything else, but never deleted for its age. Example: `retainer adopt uploads`
    """
    from retainer.cataloguing import adopt as adopted

    root, settings, policies = _project()

    def act(work: Work) -> Census:
        facts = _state(root, settings) / "facts.duckdb"
        _gathered(root, settings, policies, facts)
        return adopted(work, facts, settings)

    _census(store, form, "adopted", act)


@cli.group()
def catalog() -> None:
    """The catalog of what was copied, which lies beside the copies."""


@catalog.command("rebuild")
@click.argument("store")
@FORM
def catalog_rebuild(store: str, form: str) -> None:
    """Make the catalog of a store again from its objects alone: their metadata, their manifests and their checksums.

    Damaged parts of the old one are removed, whole ones stay. Example: `retainer catalog rebuild vault`
    """
    from retainer.cataloguing import rebuild

    _census(store, form, "catalogued anew", rebuild)


@cli.command()
@click.argument("store")
@click.option("--sample", type=click.FloatRange(0, 100, min_open=True), default=100.0, metavar="P", help="Only P percent of the objects, drawn anew.")
@FORM
def verify(store: str, sample: float, form: str) -> None:
    """Read copies back and compare them with their checksums. What is broken is partial from then on, and the next plan repairs it.

    Exit 1 when something is broken, 7 when something could not be read.
    Examples: `retainer verify vault`, `retainer verify vault --sample 2` every night
    """
    from retainer.cataloguing import scrub

    _census(store, form, "verified", lambda work: scrub(work, sample))


@cli.command()
@click.argument("asset_id")
@click.option("--as-of", callback=_moment, metavar="T", help="Explain it for this moment.")
@click.option("--facts", "snapshot", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Facts to explain from.")
@click.option("--names", is_flag=True, help="Show the names of rooms and templates, and metadata, also without a terminal.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text")
def explain(asset_id: str, as_of: datetime | None, snapshot: Path | None, names: bool, form: str) -> None:
    """Say why one asset is treated as it is: every rule, what matched, what won, and what changes next and when.

    Works on the facts of the last plan. Example: `retainer explain 6544d1e2f3a4b5c6d7e8f901 --as-of 2027-01-01`
    """
    from dataclasses import replace

    from retainer.explaining import explain as explained
    from retainer.views.human import explanation_text
    from retainer.views.machine import explanation_json

    root, settings, policies = _project()
    if snapshot is None:
        snapshot = _state(root, settings) / "facts.duckdb"
        if not snapshot.is_file():
            _gathered(root, settings, policies, snapshot)
    told = explained(snapshot, settings, policies, asset_id, as_of or now())
    if not (names or sys.stdout.isatty()):
        hidden = ("room", "template", "metadata")
        told = replace(told, facts=tuple((name, "(hidden; --names shows it)" if name in hidden else value) for name, value in told.facts))
    click.echo(explanation_json(told) if form == "json" else explanation_text(told, _page()), nl=False)


@cli.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE…", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def test(files: tuple[Path, ...]) -> None:
    """Run policy tests: cases that say what must be decided, through the same SQL as a plan.

    Cases without rules of their own test the project's. Example: `retainer test tests/*.yaml`
    """
    from retainer.cases import Decider, run_file
    from retainer.settings import find_root
    from retainer.views.human import outcomes_text

    own = _project()[2] if find_root(Path.cwd()) else None
    decider = Decider()
    outcomes, mistakes = [], []
    for path in files:
        found, wrong = run_file(path, str(path), own, decider)
        outcomes += found
        mistakes += wrong
    click.echo(outcomes_text(outcomes, _page()), nl=False)
    _fail_on(mistakes)
    if any(outcome.failures for outcome in outcomes):
        raise Exit(PoliciesWrong.exit_code)


@cli.command()
@click.option("--folder", type=click.Path(path_type=Path), help="A new folder to play in. Default: a temporary one.")
def demo(folder: Path | None) -> None:
    """Show all of it in under half a minute: no network, no account, nothing outside a new folder.

    The real code runs against a local stand-in for the 100ms API and stores that are folders.
    """
    from retainer.demo.story import tell

    tell(folder, _page())


if __name__ == "__main__":
    main()
