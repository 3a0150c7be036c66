"""The command line: each command strings the stages together; only this file prints, and only here
errors are caught."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import traceback
import uuid
import warnings
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import rich_click as click
from click.exceptions import Exit

from retainer.errors import (
    CredentialsRefused,
    Declined,
    FactsIncomplete,
    PoliciesWrong,
    RetainerError,
    WrongUsage,
)
from retainer.model.printable import printable
from retainer.private import forget_private_folder, keep_private_in
from retainer.stop import Stop, Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from retainer.apply.run import Run
    from retainer.cataloguing import Work
    from retainer.journal.file import Entry
    from retainer.model.change import Impact, Tested
    from retainer.model.diagnostic import Diagnostic
    from retainer.model.outcome import Census, Outcome
    from retainer.model.rule import Match, Policies
    from retainer.model.setting import Settings, Store
    from retainer.planfile import PlanFile
    from retainer.planning import Making
    from retainer.starter import Answers
    from retainer.views.page import Document, Reading
    from retainer.views.terminal import Page

EXIT = {
    "only copies": 2,
    "deletes": 3,
    "held back": 4,
    "partly": 7,
    "incomplete": 8,
    "at risk": 12,
    "interrupted": 130,
}

click.rich_click.TEXT_MARKUP = "ansi"
click.rich_click.MAX_WIDTH = 100


def now() -> datetime:
    """The clock of this command, read once and passed on."""
    return datetime.now(UTC)


STOP = Stop()
"""What this command is asked to stop by; made anew with each."""
_GRACE_SECONDS = 8.0
"""So long a command that was asked to stop may take to end by itself; then it ends as a kill would
end it, which loses nothing."""


def main() -> NoReturn:
    """Run the command line; every error ends here, as a sentence on stderr and its exit code."""
    global STOP
    STOP = Stop()
    _applying.clear()
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # whoever started it has closed it
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
    warnings.simplefilter("ignore")  # what libraries think of keys and versions is nothing for here
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # whatever the locale cannot write
    before = [
        (number, signal.signal(number, _interrupted))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN  # as nohup has it
    ]
    try:
        code = _run()
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    _leave(code if isinstance(code, int) else 0)


def _run() -> object:
    try:
        return cli.main(standalone_mode=False)
    except Exit as leave:
        return leave.exit_code
    except (click.Abort, KeyboardInterrupt, Stopped):
        _say("interrupted: what had not ended is left as it was; run the command again")
        return EXIT["interrupted"]
    except click.ClickException as error:
        error.show()
        return WrongUsage.exit_code if isinstance(error, click.UsageError) else 1
    except RetainerError as error:
        _say(f"error: {error.message}")
        if error.hint:
            _say(f"hint: {error.hint}")
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return _unforeseen(error)


def _say(sentence: str) -> None:
    """A sentence on stderr, on one line. A stderr that was closed, or a full disk below it, stops
    nothing."""
    with suppress(OSError, ValueError):
        click.echo(printable(sentence), err=True)


def _unforeseen(error: Exception) -> int:
    """Tell an error that nobody foresaw: what and where, and where the rest of it was written. Its
    words may hold anything, so they are not told."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    what = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    named = (
        f" ({error.filename})"
        if isinstance(error, OSError) and isinstance(error.filename, str)
        else ""
    )
    text = "".join(traceback.format_exception(error))
    _say(
        f"error: `retainer {' '.join(sys.argv[1:2])}` could not go on: {what}{named}, in "
        f"{Path(last.filename).name}:{last.lineno}"
    )
    for folder in _error_folders():
        path = folder / f"error-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.getpid()}.txt"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.touch(0o600, exist_ok=False)
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
        except OSError:
            continue
        _say(
            f"hint: run it again; if it stays so, report it with {path} (read that first: it may "
            "name recordings)"
        )
        return 1
    _say("hint: run it again; if it stays so, report it")
    return 1


def _error_folders() -> list[Path]:
    """Where a traceback may be written: the state folder, else the folder for temporary files."""
    from retainer.settings import find_root, load_settings

    folders = [Path(tempfile.gettempdir())]
    try:
        if (root := find_root(Path.cwd())) and (settings := load_settings(root)[0]):
            folders.insert(0, root / settings.state)
    except Exception:
        return folders  # what went wrong may be these very settings
    return folders


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    """The first Ctrl-C, SIGTERM or SIGHUP asks for an end, and a second one ends at once, as a kill
    would."""
    if STOP.is_asked:
        _exit_now()
    STOP.ask()
    late = threading.Timer(_GRACE_SECONDS, _exit_now)
    late.daemon = True
    late.start()
    if not _applying:
        raise KeyboardInterrupt
    _say(
        "stopping: what is under way is given up, and the journal is written (once more to end at "
        "once)"
    )


_applying: list[Run] = []
"""The run that is under way: it ends by itself once it is asked to."""


def _exit_now() -> None:
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    forget_private_folder()
    os._exit(EXIT["interrupted"])


def _leave(code: int) -> NoReturn:
    """End. Threads that were given up may still wait for an answer, and are not waited for."""
    if STOP.is_asked:
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        _exit_now()
    sys.exit(code)


def _page(stream: Any = None) -> Page:
    from retainer.views.terminal import Page

    stream = stream or sys.stdout
    forced = os.environ.get("FORCE_COLOR", "") not in ("", "0", "false")
    refused = bool(os.environ.get("NO_COLOR"))
    if stream is None or not stream.isatty():
        return Page(colour=forced and not refused)
    colour = forced or os.environ.get("TERM") != "dumb"
    return Page(os.get_terminal_size(stream.fileno()).columns, colour and not refused)


def _reading(timezone: str) -> Reading:
    """Who reads what this command says: in the policies' zone, now."""
    from retainer.model.calendar import zone_named
    from retainer.views.page import Reading

    try:
        return Reading(zone_named(timezone), now())
    except ValueError:
        return Reading(clock=now())


def _print(document: Document, timezone: str, form: str = "text", *, err: bool = False) -> None:
    """A page in the form that was asked for: text, markdown or html."""
    # the page itself knows whether colour may be used
    click.echo(_written(document, timezone, form, err=err), err=err, nl=False, color=True)


def _written(
    document: Document, timezone: str, form: str, max_chars: int | None = None, *, err: bool = False
) -> str:
    reading = _reading(timezone)
    if form == "markdown":
        from retainer.views.markdown import MAX_CHARS, markdown

        return markdown(document, reading, max_chars or MAX_CHARS)
    if form == "html":
        from retainer.views.html import html

        return html(document, reading)
    from retainer.views.terminal import terminal

    return terminal(document, _page(sys.stderr if err else sys.stdout), reading)


def _root() -> Path:
    from retainer.settings import find_root

    root = find_root(Path.cwd())
    if root is None:
        raise PoliciesWrong(
            "there is no retainer.yaml here or in any folder above",
            hint="`retainer init` writes one",
        )
    return root


def _project() -> tuple[Path, Settings, Policies]:
    """The project's settings and policies; mistakes are shown, all of them, and end the command."""
    from retainer.settings import load_project

    root = _root()
    settings, policies, mistakes = load_project(root)
    _fail_on(mistakes)
    keep_private_in(_state(root, settings))
    return root, settings, policies


_ANNOTATED = click.option(
    "--format",
    "form",
    type=click.Choice(["text", "github", "gitlab", "sarif", "junit"]),
    default="text",
    help="github: annotations of a workflow; gitlab: code quality; sarif: 2.1.0.",
)
_OUT = click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the answer to this file."
)


def _annotate(
    mistakes: list[Diagnostic],
    form: str,
    out: Path | None,
    root: Path,
    suite: str,
    passed: Sequence[Outcome] = (),
    checked: Sequence[str] = (),
) -> None:
    """Tell mistakes in the form of a CI system, with paths from the root of the repository."""
    from retainer.policy.codes import CODES
    from retainer.revision import prefix_of
    from retainer.views.annotations import annotated

    titles, suite = {code: title for code, (title, _) in CODES.items()}, f"retainer {suite}"
    _put(out, annotated(form, mistakes, titles, prefix_of(root), suite, passed, checked))


def _fail_on(mistakes: list[Diagnostic]) -> None:
    from retainer.views.mistakes import mistakes_page

    if mistakes:
        _print(mistakes_page(mistakes), "UTC", err=True)
    if any(not mistake.is_warning for mistake in mistakes):
        raise Exit(PoliciesWrong.exit_code)


def _moment(
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


def _fingerprint(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> str | None:
    if value is None or re.fullmatch(r"[0-9a-fA-F]{12,64}", value):
        return value
    raise click.BadParameter("write at least the first 12 of its 64 hex digits")


def _horizon(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> timedelta | None:
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


def _form(*more: str) -> Callable[[Any], Any]:
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


_MAX_CHARS = click.option(
    "--max-chars",
    type=click.IntRange(min=2000),
    metavar="N",
    help="Markdown is at most so long (60000): lists are cut first, counts and totals stay.",
)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=True,
)
@click.version_option(package_name="retainer")
@click.pass_context
def cli(context: click.Context) -> None:
    """Keep what 100ms records: which recordings, where, and for how long, as reviewed policies.

    A plan shows what they mean today; apply does exactly what the plan says, and never deletes on a
    guess.

    \b
    Examples:
      retainer demo                       all of it in a new folder, without a network or an account
      retainer init; retainer validate    a careful start
      retainer plan --out today.plan
      retainer apply today.plan --approve-deletes 12
    """
    _help_alone(context)


def _help_alone(context: click.Context) -> None:
    """Without a command the help is what was asked for, and 2 would mean that there is work."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@cli.command()
@click.option(
    "--store",
    "stores",
    multiple=True,
    metavar="[NAME=]URL",
    help="Where copies go, the first one first: s3://bucket/prefix, gs://bucket/prefix, file:///dir.",
)
@click.option(
    "--uploads", metavar="[NAME=]URL", help="A bucket of yours that 100ms itself uploads to."
)
@click.option("--region", metavar="R", help="Of the stores on S3.")
@click.option("--timezone", metavar="ZONE", help="The calendar of your policies (UTC).")
@click.option("--ci", type=click.Choice(["github", "gitlab"]), help="Also write its workflow.")
def init(
    stores: tuple[str, ...],
    uploads: str | None,
    region: str | None,
    timezone: str | None,
    ci: str | None,
) -> None:
    """Write a careful start: retainer.yaml, policies/ with their tests, the editor's schema.

    One bucket is enough. On a terminal it asks what no option says, five questions at most. Nothing
    that exists is changed, but that lines are added to a .gitignore. Examples: `retainer init`,
    `retainer init --store s3://acme-vault/100ms --ci github`
    """
    from retainer.policy.schema import json_schema
    from retainer.starter import EXAMPLE, Answers, missing_lines, start

    exists = os.path.lexists("retainer.yaml")
    if (stores or uploads) and exists:
        raise WrongUsage(
            "retainer.yaml is there already, so no store is written to it",
            hint="declare it there under `stores:`",
        )
    if uploads and not stores:
        raise WrongUsage("--uploads needs a --store beside it, where copies go")
    if not stores and not exists and sys.stdin.isatty() and sys.stdout.isatty():
        answers = _asked(timezone, ci)
    elif stores:
        answers = _answers(stores, uploads, region, timezone, ci)
    else:
        answers = Answers(EXAMPLE.stores, timezone or "UTC", (), ci)
    files = start(answers)
    _would_be_valid(files)
    if exists or Path("policies").exists():
        # what is here already is not mixed with rules that nobody asked for
        files = {name: text for name, text in files.items() if name.startswith(".git")}
    files[".retainer/schema.json"] = json.dumps(json_schema(), indent=2) + "\n"
    for name, content in files.items():
        path = Path(name)
        if os.path.lexists(path):
            click.echo(f"= {name} is there already")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as stream:
            stream.write(content)
        click.echo(f"+ {name}")
    ignored = Path(".gitignore")
    missing = missing_lines(ignored.read_bytes() if ignored.exists() else b"")
    if missing:
        with ignored.open("ab") as lines:
            lines.write(missing)
        click.echo(f"+ .gitignore: {len(missing.split())} lines")
    if not stores and answers.stores == EXAMPLE.stores and "retainer.yaml" in files:
        click.echo("! its stores are placeholders: write your own into retainer.yaml first")
    click.echo(
        "Next: edit retainer.yaml and policies/, then `retainer validate && retainer lint && "
        "retainer test`"
    )
    if answers.ci:
        _tell_of_ci(answers.ci)


def _tell_of_ci(system: str) -> None:
    """What a workflow needs that no file can give it."""
    from importlib.metadata import version

    from retainer.revision import prefix_of

    if below := prefix_of(Path.cwd()):
        click.echo(f"! {system} reads the file at the repository's root, not in {below}: move it")
    click.echo(
        "Then: `retainer iam --for plan` and `--for apply` say which rights its jobs need; set the "
        f"variable RETAINER to what pip installs, if that is not retainer=={version('retainer')} "
        "(such as git+https://…)"
    )


def _answers(
    stores: tuple[str, ...],
    uploads: str | None,
    region: str | None,
    timezone: str | None,
    ci: str | None,
) -> Answers:
    from dataclasses import replace

    from retainer.starter import Answers, StartStore, named

    found: list[StartStore] = []
    for url in stores:
        found.append(named(url, tuple(store.name for store in found)))
    if uploads:
        taken = tuple(store.name for store in found)
        found.append(named(uploads, taken, is_upload=True))
    if region:
        found = [
            replace(store, region=region) if store.url.startswith("s3:") else store
            for store in found
        ]
    return Answers(tuple(found), timezone or "UTC", (), ci)


def _asked(timezone: str | None, ci: str | None) -> Answers:
    """Ask what is to be declared; nothing typed takes what stands in brackets."""
    from retainer.model.setting import SCHEMES

    def ask(question: str, default: str = "") -> str:
        return str(click.prompt(question, default=default, show_default=bool(default))).strip()

    def place(question: str, *, may_be_none: bool = True) -> str:
        while True:
            told = ask(question)
            if told.rpartition("=")[2].startswith(SCHEMES) or (may_be_none and not told):
                return told
            click.echo(f"it begins with one of {', '.join(SCHEMES)}")

    vault = place(
        "Where do copies go (s3://bucket/prefix, gs://bucket/prefix, file:///folder)?",
        may_be_none=False,
    )
    second = place("A second place for what is kept longer (nothing: none)?")
    uploads = place("A bucket of yours that 100ms itself uploads to (nothing: none)?")
    zone = timezone or ask("In which time zone are days counted?", "UTC")
    system = ci or ask("Which CI gets a workflow (github, gitlab, none)?", "none")
    return _answers(
        tuple(filter(None, (vault, second))),
        uploads or None,
        None,
        zone,
        system if system in ("github", "gitlab") else None,
    )


def _would_be_valid(files: Mapping[str, str]) -> None:
    """Raises WrongUsage where what was answered makes no valid project; nothing was written yet."""
    from retainer.private import private_file
    from retainer.settings import load_project

    folder = private_file("-start")
    for name in ("retainer.yaml", "policies/recordings.yaml", "policies/holds-and-erasures.yaml"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[name], encoding="utf-8")
    _, _, mistakes = load_project(folder)
    for mistake in mistakes:
        if not mistake.is_warning:
            raise WrongUsage(
                f"{mistake.message} ({mistake.file}:{mistake.span.line})", hint=mistake.hint
            )


@cli.command()
@click.option(
    "--for",
    "purpose",
    type=click.Choice(["plan", "apply"]),
    required=True,
    help="What is to be allowed: to read alone, or also to copy and delete.",
)
@click.option(
    "--cloud",
    type=click.Choice(["aws", "google"]),
    help="Only the policy of this cloud, as it takes it.",
)
def iam(purpose: str, cloud: str | None) -> None:
    """Print the least rights that the stores of retainer.yaml need, for S3 and Google Cloud.

    No version is ever deleted, so no right to that is asked for. Examples: `retainer iam --for
    plan`, `retainer iam --for apply --cloud aws > policy.json`
    """
    from retainer.rights import rights_text

    _, settings, _ = _project()
    clouds = (cloud,) if cloud else ()
    click.echo(rights_text(settings, "plan" if purpose == "plan" else "apply", clouds), nl=False)


@cli.command()
@_ANNOTATED
@_OUT
def validate(form: str, out: Path | None) -> None:
    """Check retainer.yaml and every policy, offline: all mistakes of all files in one run.

    Examples: `retainer validate`, `retainer validate --format github`
    """
    from retainer.policy.files import policy_files
    from retainer.settings import load_project
    from retainer.views.units import many

    root = _root()
    settings, policies, mistakes = load_project(root)
    if form == "text":
        _fail_on(mistakes)
    else:
        files = [path.relative_to(root).as_posix() for path in policy_files(root).files]
        _annotate(mistakes, form, out, root, "validate", checked=["retainer.yaml", *files])
        raise Exit(PoliciesWrong.exit_code if any(not each.is_warning for each in mistakes) else 0)
    counts = (
        many(len(policies.rules), "rule"),
        many(len(policies.holds), "hold"),
        many(len(policies.erasures), "erasure"),
    )
    click.echo(f"valid: {', '.join(counts)}, {many(len(settings.stores), 'store')}")
    if passed := policy_files(root).passed_over:
        named = ", ".join(map(printable, passed[:5])) + (", …" if len(passed) > 5 else "")
        click.echo(
            f"not read, as {many(len(passed), 'name')} under policies/ "
            f"{'is' if len(passed) == 1 else 'are'} plainly no policy: {named}"
        )


@cli.command()
@click.option(
    "--facts",
    "snapshot",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Also tell what matches no recording of this snapshot.",
)
@click.option("--strict", is_flag=True, help="Exit 10 where there is any warning.")
@_ANNOTATED
@_OUT
def lint(snapshot: Path | None, strict: bool, form: str, out: Path | None) -> None:
    """Warn of what is allowed and is hardly meant: deletes of everything, rules that match nothing
    or change nothing, classes that cost more than they save.

    Warnings only; `--strict` makes them an error. Examples: `retainer lint`, `retainer lint --facts
    facts.duckdb --strict`
    """
    from retainer.planning import matches_of
    from retainer.policy.advice import advise
    from retainer.wiring import aws_regions

    root, settings, policies = _project()
    matched = matches_of(snapshot, settings, policies, now()) if snapshot else None
    found = advise(policies, settings, aws_regions(), matched)
    if form == "text":
        from retainer.views.mistakes import mistakes_page

        told = _written(mistakes_page(found), "UTC", "text") if found else "nothing to warn of\n"
        _put(out, told)
    else:
        _annotate(found, form, out, root, "lint", checked=["retainer.yaml"])
    if strict and found:
        raise Exit(PoliciesWrong.exit_code)


ANSWERS = ("plan", "row", "apply", "explain", "forecast", "impact", "policy-diff", "verify")


@cli.command()
@click.option(
    "--of",
    "form",
    type=click.Choice(["policies", *ANSWERS]),
    default="policies",
    help="Of what a command answers with `--format json` (row: a line of jsonl).",
)
def schema(form: str) -> None:
    """Print the JSON Schema of policies and of retainer.yaml, for editors, or of an answer.

    Examples: `retainer schema > .retainer/schema.json`, `retainer schema --of plan`
    """
    from retainer.policy.schema import json_schema
    from retainer.views.machine import schema_of

    told = json_schema() if form == "policies" else schema_of(form)
    click.echo(json.dumps(told, indent=2))


@cli.command("help")
@click.argument("code", required=False)
def help_(code: str | None) -> None:
    """Explain a diagnostic code. Without one, list them all.

    Example: `retainer help P208`
    """
    from retainer.policy.codes import CODES
    from retainer.policy.diagnostics import nearest
    from retainer.views.terminal import aligned

    if code is None:
        click.echo(aligned((key, title) for key, (title, _) in CODES.items()))
        return
    if code.upper() not in CODES:
        close = nearest(code.upper(), CODES)
        raise WrongUsage(
            f"there is no code {code}",
            hint=f"did you mean {close}?" if close else "`retainer help` lists them",
        )
    title, text = CODES[code.upper()]
    click.echo(_page().wrapped(f"{code.upper()}: {title}") + "\n\n" + _page().wrapped(text))


def _gathered(
    root: Path, settings: Settings, policies: Policies, out: Path, *, for_any_policies: bool = False
) -> None:
    """Ask 100ms and every store, and leave a snapshot of the facts at `out`."""
    from retainer import wiring
    from retainer.journal.anchors import lost_record
    from retainer.journal.file import read_journal, state_id
    from retainer.journal.stores import known_stores, remember_stores
    from retainer.planning import gather
    from retainer.progress import Gathering

    state = _state(root, settings)
    journal, own, known = read_journal(state), state_id(state), known_stores(state)
    with Gathering() as shown:
        api = wiring.open_api(settings, shown.waiting, STOP)
        readers = [wiring.open_reader(store, STOP) for store in settings.stores]
        listings = gather(
            settings,
            policies,
            api,
            readers,
            out=out,
            cache=state / "catalog",
            clock=now,
            known=settings.identities(known),
            judge=lambda anchors: lost_record(anchors, own, journal),
            before=sorted({state / "facts.duckdb", out}),
            progress=shown.rows,
            for_any_policies=for_any_policies,
        )
    places = settings.places
    seen = {
        places[each.name]: each.identity
        for each in listings
        if each.kind == "store" and each.identity and each.complete
    }
    remember_stores(state, known, seen)


def _state(root: Path, settings: Settings) -> Path:
    return root / settings.state


@cli.command()
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The snapshot to write (one DuckDB file).",
)
def facts(out: Path) -> None:
    """Gather what exists into a snapshot, so that a plan elsewhere needs no credentials and no
    connection.

    It contains the names of rooms and templates: treat it as you treat those. Example: `retainer
    facts --out facts.duckdb`
    """
    import duckdb

    from retainer.inventory.facts import is_snapshot
    from retainer.planfile import may_be_written, put_in_place
    from retainer.private import private_file

    root, settings, policies = _project()
    _not_in_the_way(out, root, settings, ".duckdb")
    may_be_written(out, is_snapshot, "a snapshot of facts")
    _gathered(root, settings, policies, out, for_any_policies=True)
    if out.resolve() != (kept := _state(root, settings) / "facts.duckdb").resolve():
        copy = private_file(".duckdb")
        shutil.copyfile(out, copy)
        put_in_place(copy, kept)  # the next facts remember by it what rooms were called
    with duckdb.connect(str(out), read_only=True) as connection:
        rows = connection.execute(
            "SELECT (SELECT count(*) FROM assets), (SELECT count(*) FROM copies), "
            "bool_and(complete) FROM listings"
        ).fetchone()
    assert rows is not None
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
    callback=_moment,
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
@click.option(
    "--facts",
    "snapshot",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Plan from a snapshot, offline.",
)
@click.option(
    "--detailed-exitcode",
    is_flag=True,
    help="Exit 2 when there are actions, 3 when some of them are deletes.",
)
@click.option(
    "--fail-if-at-risk",
    callback=_horizon,
    metavar="D",
    help="Exit 12 when something leaves 100ms within D (72h) without a copy.",
)
@click.option(
    "--fail-if-lapsing",
    callback=_horizon,
    metavar="D",
    help="Exit 12 when something leaves 100ms within D (72h) since no rule keeps it.",
)
@click.option(
    "--lift",
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
@_form("jsonl", "csv", "gitlab")
@_MAX_CHARS
def plan(
    out: Path | None,
    as_of: datetime | None,
    only: str | None,
    snapshot: Path | None,
    detailed_exitcode: bool,
    fail_if_at_risk: timedelta | None,
    fail_if_lapsing: timedelta | None,
    lift: tuple[str, ...],
    with_names: bool,
    form: str,
    max_chars: int | None,
) -> None:
    """Show what the policies mean today, and write it to a plan file.

    Examples: `retainer plan --out today.plan`, `retainer plan --facts facts.duckdb
    --detailed-exitcode`, `retainer plan --fail-if-at-risk 72h`
    """
    from retainer.journal.file import read_journal
    from retainer.planfile import is_plan, may_be_written, put_in_place, read_plan
    from retainer.planning import make_plan, names_of
    from retainer.private import private_file
    from retainer.whole import whole

    root, settings, policies = _project()
    _only_limits(lift, settings, policies)
    match = _only(only)
    state = _state(root, settings)
    last = state / "last.plan"
    if out is not None:
        _not_in_the_way(out, root, settings, ".plan")
        may_be_written(out, is_plan, "a plan")
    journal = read_journal(state)
    facts = snapshot
    try:
        if facts is None:
            # Of its own until the plan is made of it: another plan in this project may be gathering
            # too.
            facts = private_file(".duckdb")
            _gathered(root, settings, policies, facts)
        moment = as_of or now()
        making = _making(journal, state, moment, only=match, scope=only, lifts=frozenset(lift))
        made_at = private_file(".plan")
        make_plan(facts, settings, policies, root, making, made_at)
        if snapshot is None:
            put_in_place(facts, state / "facts.duckdb")
    finally:
        if snapshot is None and facts is not None:
            facts.unlink(missing_ok=True)
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
    names = (
        names_of(snapshot or state / "facts.duckdb")
        if made.header.renamed and (with_names or sys.stdout.isatty())
        else None
    )
    told = state / "told-losses.json"
    _show(made, out, form, names, frozenset(_texts_in(told)), max_chars)
    if form == "text" and as_of is None and snapshot is None:
        rows = made.connection.execute("SELECT asset_id FROM plan WHERE decision = 'lost'")
        with suppress(OSError), whole(told) as half:
            half.write_text(json.dumps(sorted({asset_id for (asset_id,) in rows.fetchall()})))
    ends = {"leaves_at IS NOT NULL": fail_if_at_risk, "because = 'not-kept'": fail_if_lapsing}
    leaves = any(
        horizon is not None and _leaves(made, which, moment + horizon)
        for which, horizon in ends.items()
    )
    raise Exit(_plan_exit(made, detailed_exitcode, leaves=leaves))


def _only_limits(lifts: tuple[str, ...], settings: Settings, policies: Policies) -> None:
    """Raises WrongUsage for what no limit is called: it would lift nothing, without a word."""
    from retainer.plan.limits import liftable
    from retainer.policy.diagnostics import nearest

    known = liftable(
        (store.name for store in settings.stores),
        [*(rule.id for rule in policies.rules), *(each.id for each in policies.erasures)],
        (rule.id for rule in policies.rules if rule.at_most),
    )
    for lift in lifts:
        if lift not in known:
            close = nearest(lift, known)
            raise WrongUsage(
                f"--lift: `{lift}` is no limit of this project",
                hint=f"did you mean `{close}`?"
                if close
                else "a plan names what it breaches, such as count:store:vault",
            )


def _making(journal: list[Entry], state: Path, moment: datetime, **more: Any) -> Making:
    """What a decision is made with: its moment, and what this machine's journal says."""
    from retainer.journal.file import gone_sources, recent_deletes, state_id, weak_stores
    from retainer.plan.limits import Deletes
    from retainer.planning import Making

    return Making(
        moment,
        recent=tuple(
            Deletes(store, rule, count, size)
            for (store, rule), (count, size) in recent_deletes(journal, moment).items()
        ),
        has_journal=bool(journal),
        weak=tuple(weak_stores(journal).items()),
        state=state_id(state),
        gone=tuple(gone_sources(journal).items()),
        **more,
    )


def _texts_in(path: Path) -> list[str]:
    """The texts of a list that retainer wrote for itself; none where there is no such list."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return []
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


def _not_in_the_way(out: Path, root: Path, settings: Settings, end: str) -> None:
    """Raises WrongUsage for a place where policies, or retainer's own record, are looked for."""
    from retainer.policy.files import POLICY_FOLDER

    place = Path(os.path.realpath(out))
    if place.is_relative_to(os.path.realpath(root / POLICY_FOLDER)):
        raise WrongUsage(
            f"{out} lies under policies/, where everything is read as a policy",
            hint="name another folder",
        )
    if place.is_relative_to(os.path.realpath(_state(root, settings))) and not place.name.endswith(
        end
    ):
        raise WrongUsage(
            f"{out} lies in the state folder, where retainer keeps its record",
            hint=f"name it so that it ends in {end}",
        )


def _link(link: Path, target: Path) -> None:
    """Let `last.plan` lead to the plan just made; something else of that name stays as it is."""
    from retainer.planfile import is_plan, may_be_written

    half = link.with_name(f".{uuid.uuid4().hex}.half")
    try:
        may_be_written(link, is_plan, "a plan")
        half.symlink_to(target.relative_to(link.parent))
        half.replace(link)
    except (OSError, WrongUsage) as error:
        _say(f"{link} still leads to an older plan: {error}")
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
    if header.held_back:
        return EXIT["held back"]
    if leaves:
        return EXIT["at risk"]
    if detailed and header.deletes:
        return EXIT["deletes"]
    return EXIT["only copies"] if detailed and header.copies else 0


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
        _reading(timezone),
        made.fingerprint,
        os.path.relpath(path),
        names or {},
    )
    click.echo(_written(page, timezone, form, max_chars), nl=False, color=True)


MOST_IN_REPORT = 500
"""So many recordings of each effect a report of an impact tells."""
MOST_SHOWN = {"text": 10, "markdown": 100, "html": 5_000}
"""So many recordings of each group a page tells."""


@cli.command()
@click.option(
    "--base",
    required=True,
    metavar="REF|DIR",
    help="What to compare with: a commit (origin/main), or a folder with a retainer.yaml.",
)
@click.option(
    "--facts",
    "snapshot",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Facts to decide on. Default: those of the last plan, else they are gathered.",
)
@click.option("--as-of", callback=_moment, metavar="T", help="Decide for this moment.")
@click.option(
    "--fail-on",
    multiple=True,
    type=click.Choice(["shortens", "deletes", "breach"]),
    help="Exit 0 but for these: something is kept less long (2), is due now (3), or breaches a "
    "limit (4).",
)
@_form()
@_MAX_CHARS
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
    from retainer.journal.file import read_journal
    from retainer.revision import commit_of, project_at
    from retainer.views.impact import impact_page
    from retainer.views.machine import impact_json

    root, settings, policies = _project()
    state = _state(root, settings)
    before, was, commit = project_at(base, root)
    snapshot = snapshot or _last_facts(root, settings, policies)
    making = _making(read_journal(state), state, as_of or now())
    told = decided(
        snapshot,
        Side(before, was, base, commit),
        Side(settings, policies, "this change", commit_of(root)),
        root.name,
        making,
        MOST_IN_REPORT if report or form == "html" else 20,
    )
    told = replace(told, tests=_tested(root, policies))
    code = _impact_exit(told, fail_on)
    reading = _reading(settings.timezone)
    whole = impact_page(
        told, reading, code, max(20, MOST_SHOWN["html"] // (len(told.effects) or 1))
    )
    if form == "json":
        _put(out, impact_json(told))
    else:
        page = whole if form == "html" else impact_page(told, reading, code)
        _put(out, _written(page, settings.timezone, form, max_chars))
    if report is not None:
        _put(report, _written(whole, settings.timezone, "html"))
    raise Exit(code)


@cli.command()
@click.option(
    "--days", type=click.IntRange(1, 3660), default=90, show_default=True, help="So far ahead."
)
@click.option(
    "--facts",
    "snapshot",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Facts to look ahead from. Default: those of the last plan, else they are gathered.",
)
@_form("jsonl", "csv", "ics")
@_MAX_CHARS
@_OUT
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
    from retainer.journal.file import read_journal
    from retainer.views.forecast import forecast_page
    from retainer.views.machine import forecast_csv, forecast_json, forecast_lines

    root, settings, policies = _project()
    facts = snapshot or _last_facts(root, settings, policies)
    making = _making(read_journal(_state(root, settings)), _state(root, settings), now())
    told = foreseen(facts, settings, policies, root.name, making, days)
    if form == "ics":
        from retainer.views.calendar import calendar

        text = calendar(told)
    elif form in ("json", "jsonl", "csv"):
        rows = {"jsonl": forecast_lines, "csv": forecast_csv}
        text = forecast_json(told) if form == "json" else "".join(rows[form](told))
    else:
        page = forecast_page(told, _reading(settings.timezone))
        text = _written(page, settings.timezone, form, max_chars)
    _put(out, text)
    if told.incomplete:
        raise Exit(EXIT["incomplete"])


def _last_facts(root: Path, settings: Settings, policies: Policies) -> Path:
    """The facts of the last plan; they are gathered where there are none."""
    snapshot = _state(root, settings) / "facts.duckdb"
    if not snapshot.is_file():
        _gathered(root, settings, policies, snapshot, for_any_policies=True)
    return snapshot


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


def _put(path: Path | None, text: str) -> None:
    """Print a text, or leave it at a path, whole or not at all."""
    from retainer.whole import whole

    if path is None:
        click.echo(text, nl=False, color=True)
        return
    if not path.absolute().parent.is_dir():
        raise WrongUsage(f"there is no folder {path.parent} to write {path.name} to")
    try:
        with whole(path) as half:
            half.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise RetainerError(f"{path} cannot be written: {error.strerror}") from None


@cli.command("policy-diff")
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="[NEW]", required=False)
@_form()
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

    root = _root()
    before, was, _ = project_at(old, root)
    if new is None:
        _, after, is_now = _project()
    else:
        after, is_now, _ = project_at(new, root)
    found = changes(was, is_now, before, after)
    if form == "json":
        click.echo(changes_json(found), nl=False)
    else:
        _print(changes_page(found, old, new or "this change"), after.timezone, form)
    means = [change for change in found if change.turn != "same"]
    shortens = any(change.shortens for change in means)
    raise Exit(EXIT["deletes"] if shortens else EXIT["only copies"] if means else 0)


@cli.command()
@click.argument("path", metavar="PLAN", type=click.Path(path_type=Path))
@_form("jsonl", "csv", "gitlab")
@_MAX_CHARS
def show(path: Path, form: str, max_chars: int | None) -> None:
    """Show a plan file again. JSON lists every row with its reason.

    Examples: `retainer show today.plan`, `retainer show today.plan --format html > plan.html`,
    `retainer show today.plan --format jsonl | jq 'select(.decision == "delete")'`
    """
    from retainer.planfile import read_plan

    _show(read_plan(path), path, form, max_chars=max_chars)


@cli.command()
@click.argument("path", metavar="PLAN", type=click.Path(path_type=Path))
@click.option(
    "--approve-deletes",
    type=int,
    metavar="N",
    help="Approve the plan's deletes; N must be the plan's own count, or 0 for copies only.",
)
@click.option(
    "--fingerprint",
    callback=_fingerprint,
    metavar="F",
    help="Insist that this is the plan that was reviewed; its first 12 digits suffice.",
)
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
    help="So many actions at once (32); a store far away takes more, a small machine fewer.",
)
@_form()
def apply(
    path: Path,
    approve_deletes: int | None,
    fingerprint: str | None,
    restore: bool,
    workers: int | None,
    form: str,
) -> None:
    """Do what a plan says: copies by their deadlines, then deletes. What has changed since is
    skipped.

    On a terminal it asks for the number of deletes; without one and without --approve-deletes it
    only copies. A run that was interrupted goes on when it is given the same plan again.

    Examples: `retainer apply today.plan`, `retainer apply today.plan --approve-deletes 12`
    """
    from retainer import wiring
    from retainer.applying import World, carry_out, prepare
    from retainer.journal.file import read_journal
    from retainer.progress import Applying
    from retainer.views.machine import summary_json
    from retainer.views.plan import until_when
    from retainer.views.run import run_page

    root, settings, policies = _project()
    state = _state(root, settings)
    prepared = prepare(path, settings, policies, now(), fingerprint, read_journal(state))
    approved = _approved(prepared.deleted, prepared.held_back, approve_deletes)
    header = prepared.plan.header
    needed = prepared.copied_to | prepared.deleted_in.keys()
    stores = wiring.open_stores(settings, needed, STOP)
    with Applying(prepared.copied, header.copy_bytes, prepared.deleted if approved else 0) as shown:
        world = World(
            settings,
            state,
            stores,
            *wiring.open_downloads(settings, shown.waiting, STOP),
            now,
            wiring.clock_of_100ms(settings),
            lambda: _today(root),
            STOP,
        )
        done = carry_out(
            prepared,
            world,
            watcher=shown,
            approved=approved,
            restore=restore,
            on_run=_applying.append,
            workers=workers,
        )
    _applying.clear()
    if form == "json":
        click.echo(summary_json(done), nl=False)
    else:
        reading = _reading(header.timezone)
        until = until_when(header.limits, now(), reading) or ""
        page = run_page(done, str(path), prepared.deleted, prepared.held_back, until)
        _print(page, header.timezone, form)
    if done.interrupted:
        raise Exit(EXIT["interrupted"])
    if any(resting.credentials for resting in done.resting.values()):
        raise Exit(CredentialsRefused.exit_code)
    if not done.finished:
        raise Exit(
            EXIT["held back"]
            if done.left_deletes and prepared.held_back and not done.failed
            else EXIT["partly"]
        )


def _today(root: Path) -> tuple[Settings, Policies] | None:
    """The project as it is by now; None when it is wrong."""
    from retainer.settings import load_project

    settings, policies, mistakes = load_project(root)
    return None if any(not mistake.is_warning for mistake in mistakes) else (settings, policies)


def _approved(count: int, held_back: list[str], approve: int | None) -> bool:
    """Whether a person has approved the deletes, by their number. Nothing else is a yes."""
    if count == 0:
        return False
    if held_back:
        _say(f"the plan's {count} deletes are held back: {', '.join(held_back)}. Its copies run.")
        return False
    if approve is not None:
        if approve == 0:
            _say(f"none of the plan's {count} deletes is approved: only its copies run")
            return False
        if approve != count:
            raise WrongUsage(
                f"--approve-deletes {approve}, but the plan has {count} deletes",
                hint="show the plan again and read them",
            )
        return True
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        _say(
            f"the plan's {count} deletes are not approved (--approve-deletes {count}): only its "
            "copies run"
        )
        return False
    typed = click.prompt(
        f"This plan deletes {count} copies. Type that number to approve, or nothing for copies "
        "only",
        default="",
        show_default=False,
    )
    if typed.strip() == str(count):
        return True
    if typed.strip():
        raise Declined("that is not the number of deletes: nothing was done")
    return False


def _census(store: str, form: str, what: str, act: Callable[[Work], Census]) -> None:
    """Look at every object of a store, and show what was found."""
    from retainer import wiring
    from retainer.cataloguing import Work
    from retainer.progress import Gathering
    from retainer.views.census import census_page
    from retainer.views.machine import census_json

    root, settings, _ = _project()
    declared = _declared(settings, store)
    with Gathering(f"looking at the objects of {store}…") as shown:
        census = act(
            Work(
                declared,
                wiring.open_writer(declared, STOP),
                _state(root, settings),
                now,
                shown.rows,
                STOP,
            )
        )
    if form == "json":
        click.echo(census_json(census), nl=False)
    else:
        _print(census_page(census, what, store), settings.timezone, form)
    if census.failed or census.broken or census.missing or census.replaced:
        raise Exit(EXIT["partly"] if census.failed else 1)


def _declared(settings: Settings, store: str) -> Store:
    from retainer.policy.diagnostics import nearest

    declared = settings.store(store)
    if declared is None:
        close = nearest(store, [each.name for each in settings.stores])
        raise WrongUsage(
            f"there is no store `{store}`",
            hint=f"did you mean `{close}`?"
            if close
            else "retainer.yaml declares them under `stores:`",
        )
    return declared


@cli.command()
@click.argument("store")
@click.option(
    "--run",
    "run_id",
    metavar="ID",
    help=(
        "The run that holds it, where it is known to be over and its lock is younger than 10 "
        "minutes."
    ),
)
def unlock(store: str, run_id: str | None) -> None:
    """Take away the lock that a dead run left in a store. Never one that a living run renews.

    A lock that nobody renewed for 10 minutes, by the store's clock, is dead. A younger one stays,
    unless its run is named: look first that it is really over, on its host. Examples: `retainer
    unlock vault`, `retainer unlock vault --run 6f1c2a9b03d4`
    """
    from retainer import wiring
    from retainer.errors import Locked
    from retainer.journal.lock import LOCK_KEY, lock_in
    from retainer.ports import Deletion

    _, settings, _ = _project()
    writer = wiring.open_writer(_declared(settings, store), STOP)
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


@cli.command()
@click.argument("store")
@_form()
def adopt(store: str, form: str) -> None:
    """Recognise recordings that 100ms or a person put into a store, and catalog them as inferred.
    No object is changed.

    By the metadata of copies and by the documented shapes of paths. What is known by its path alone
    has no date: it is kept, held and erased like anything else, but never deleted for its age.
    Example: `retainer adopt uploads`
    """
    from retainer.cataloguing import adopt as adopted

    root, settings, policies = _project()

    def act(work: Work) -> Census:
        facts = _state(root, settings) / "facts.duckdb"
        _gathered(root, settings, policies, facts)
        return adopted(work, facts, settings)

    _census(store, form, "adopted", act)


@cli.group(invoke_without_command=True)
@click.pass_context
def catalog(context: click.Context) -> None:
    """The catalog of what was copied, which lies beside the copies."""
    _help_alone(context)


@catalog.command("rebuild")
@click.argument("store")
@_form()
def catalog_rebuild(store: str, form: str) -> None:
    """Make the catalog of a store again from its objects alone: their metadata, their manifests and
    their checksums.

    Damaged parts of the old one are removed, whole ones stay. Example: `retainer catalog rebuild
    vault`
    """
    from retainer.cataloguing import rebuild

    _census(store, form, "catalogued anew", rebuild)


@cli.command()
@click.argument("store")
@click.option(
    "--sample",
    type=click.FloatRange(0, 100, min_open=True),
    default=100.0,
    metavar="P",
    help="Only P percent of the objects, drawn anew.",
)
@_form()
def verify(store: str, sample: float, form: str) -> None:
    """Read copies back and compare them with their checksums. What is broken is partial from then
    on, and the next plan repairs it.

    Exit 1 when something is broken, 7 when something could not be read.
    Examples: `retainer verify vault`, `retainer verify vault --sample 2` every night
    """
    from retainer.cataloguing import scrub

    _census(store, form, "verified", lambda work: scrub(work, sample))


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
    root, settings, policies = _project()
    if told := next((each for each in policies.accepts if each.asset_id == asset_id), None):
        raise WrongUsage(f"{told.where} accepts {asset_id} already")
    snapshot = _state(root, settings) / "facts.duckdb"
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
@click.argument("asset_id")
@click.option("--as-of", callback=_moment, metavar="T", help="Explain it for this moment.")
@click.option(
    "--facts",
    "snapshot",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Facts to explain from.",
)
@click.option(
    "--names",
    is_flag=True,
    help="Show the names of rooms and templates, and metadata, also without a terminal.",
)
@_form()
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
    from retainer.journal.file import gone_sources, read_journal
    from retainer.views.explanation import explanation_page
    from retainer.views.machine import explanation_json

    root, settings, policies = _project()
    snapshot = snapshot or _last_facts(root, settings, policies)
    gone = gone_sources(read_journal(_state(root, settings)))
    told = explained(snapshot, settings, policies, asset_id, as_of or now(), gone)
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
        _print(explanation_page(told, _reading(settings.timezone)), settings.timezone, form)


@cli.command()
@click.argument(
    "files",
    nargs=-1,
    metavar="[FILE…]",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option("-v", "--verbose", is_flag=True, help="Also list what passed.")
@click.option(
    "--boundaries",
    is_flag=True,
    help="Also decide each case on both sides of each date of each rule, and say what changes.",
)
@click.option(
    "--facts",
    "snapshot",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Answer the files' `assertions:` about the real recordings of this snapshot.",
)
@_ANNOTATED
@_OUT
def test(
    files: tuple[Path, ...],
    verbose: bool,
    boundaries: bool,
    snapshot: Path | None,
    form: str,
    out: Path | None,
) -> None:
    """Run policy tests: cases that say what must be decided, through the same SQL as a plan.

    Without FILE those in tests/*.yaml of the project. Cases without rules of their own test the
    project's. Examples: `retainer test`, `retainer test -v --boundaries`, `retainer test --facts
    facts.duckdb`
    """
    from contextlib import nullcontext

    from retainer.cases import Decider, ask, run_file
    from retainer.settings import find_root
    from retainer.views.annotations import of_outcomes
    from retainer.views.outcomes import outcomes_page

    root = find_root(Path.cwd())
    project = _project() if root else None
    if not files:
        files = _test_files(root)
    own = project[2] if project else None
    decider, outcomes, mistakes = Decider(), [], []
    if snapshot is not None and project is None:
        raise WrongUsage("--facts asks about the policies of a project, and there is none here")
    answering = (
        ask(snapshot, project[1], project[2], now()) if snapshot and project else nullcontext()
    )
    with answering as asked:
        for path in files:
            name = _named_from(path, root)
            found, wrong = run_file(path, name, own, decider, boundaries=boundaries, asked=asked)
            outcomes += found
            mistakes += wrong
    timezone = project[1].timezone if project else "UTC"
    if form == "text":
        page = outcomes_page(
            outcomes, with_passed=verbose, untested=_untested(own, outcomes) if own else ()
        )
        _put(out, _written(page, timezone, form))
        _fail_on(mistakes)
    else:
        passed = [outcome for outcome in outcomes if not outcome.failures]
        _annotate(
            [*mistakes, *of_outcomes(outcomes)], form, out, root or Path.cwd(), "test", passed
        )
    wrong_files = any(not mistake.is_warning for mistake in mistakes)
    if wrong_files or any(outcome.failures for outcome in outcomes):
        raise Exit(PoliciesWrong.exit_code)


def _tested(root: Path, own: Policies) -> Tested | None:
    """How the project's own tests go with its policies; None where it has none."""
    from retainer.cases import Decider, run_file
    from retainer.model.change import Tested

    passed, failed, unread, decider = 0, [], [], None
    for path in _found_tests(root):
        decider = decider or Decider()
        name = _named_from(path, root)
        outcomes, mistakes = run_file(path, name, own, decider)
        passed += sum(not outcome.failures for outcome in outcomes)
        failed += [f"{each.name} ({each.place})" for each in outcomes if each.failures]
        unread += [name] if any(not mistake.is_warning for mistake in mistakes) else []
    return Tested(passed, tuple(failed), tuple(unread)) if decider else None


def _found_tests(root: Path | None) -> tuple[Path, ...]:
    folder = (root or Path.cwd()) / "tests"
    return tuple(
        sorted(
            Path(os.path.relpath(path))
            for end in ("yaml", "yml")
            for path in folder.glob(f"*.{end}")
        )
    )


def _test_files(root: Path | None) -> tuple[Path, ...]:
    found = _found_tests(root)
    if not found:
        raise WrongUsage(
            f"there are no tests in {os.path.relpath((root or Path.cwd()) / 'tests')}",
            hint="write tests/*.yaml, or name files: `retainer test FILE`",
        )
    return found


def _named_from(path: Path, root: Path | None) -> str:
    """A file as it is told: from the project's root, where it lies in it."""
    place = path.resolve()
    inside = root is not None and place.is_relative_to(root.resolve())
    return place.relative_to(root.resolve()).as_posix() if inside and root else str(path)


def _untested(own: Policies, outcomes: list[Outcome]) -> list[str]:
    """The rules, holds and erasures that match nothing in any test, and the stores of which none
    expects anything; none where no test is of the project's policies."""
    touched = frozenset().union(*(outcome.touched for outcome in outcomes))
    if not touched:
        return []
    stores = frozenset().union(*(outcome.stores for outcome in outcomes))
    return [
        f"{type(item).__name__.lower()} {item.id} ({item.where})"
        for item in own.items()
        if item.id not in touched
    ] + [f"store {name}" for name in sorted(own.stores_named() - stores)]


@cli.command()
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    help="A new folder to play in. Default: a temporary one.",
)
def demo(folder: Path | None) -> None:
    """Show all of it in under half a minute: no network, no account, nothing outside a new folder.

    The real code runs against a local stand-in for the 100ms API and stores that are folders.
    """
    from retainer.demo.story import tell

    tell(folder, _page())


if __name__ == "__main__":
    main()
