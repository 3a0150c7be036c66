"""Commands for who begins: init, iam, schema, help, demo."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click
from click.exceptions import Exit

from retainer.cli.group import cli
from retainer.cli.options import PATIENCE, complete_code, form_option
from retainer.cli.printing import print_page, terminal_page
from retainer.cli.process import MEANINGS, now, stop
from retainer.cli.project import record_in, state_of, the_project
from retainer.errors import WrongUsage
from retainer.stop import Stopped

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from retainer.rights import For
    from retainer.starter import Answers


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
            raise WrongUsage(mistake.message, hint=mistake.hint)


@cli.command()
@click.option(
    "--for",
    "purpose",
    type=click.Choice(["plan", "apply", "restore"]),
    required=True,
    help="To read alone; also to copy and delete; also to bring back what was deleted.",
)
@click.option(
    "--cloud",
    type=click.Choice(["aws", "google"]),
    help="Only the policy of this cloud, as it takes it.",
)
def iam(purpose: For, cloud: str | None) -> None:
    """Print the least rights that the stores of retainer.yaml need, for S3 and Google Cloud.

    A plan and an apply delete no version, so no right to that is asked for, but where a rule says
    `versions: all`; a restore takes delete markers away, which S3 counts as that. Examples:
    `retainer iam --for plan`, `retainer iam --for apply --cloud aws > policy.json`
    """
    from retainer.rights import rights_text

    _, settings, policies = the_project()
    clouds = (cloud,) if cloud else ()
    click.echo(rights_text(settings, purpose, clouds, policies.purged_in()), nl=False)


@cli.command()
@click.option("--only", metavar="PLACE", help="Only this store, `100ms` or `record`.")
@PATIENCE
@form_option()
def doctor(only: str | None, patience: timedelta | None, form: str) -> None:
    """Look at 100ms, each bucket and the record: can they be reached, whose are they, what will a
    delete mean there, does a rule of the bucket's own stand against the policies, what to do.

    Changes nothing. Exit 1 where something is to be looked at.
    Examples: `retainer doctor`, `retainer doctor --only vault`
    """
    from retainer import doctoring, wiring
    from retainer.approving import ALLOWED
    from retainer.journal.stores import known_stores
    from retainer.model.diagnosis import Diagnosis, Found
    from retainer.progress import Gathering
    from retainer.views.diagnosis import diagnosis_page
    from retainer.views.machine import diagnosis_json

    root, settings, policies = the_project()
    places = ["100ms", "record", *(store.name for store in settings.stores)]
    if only is not None and only not in places:
        raise WrongUsage(f"there is no `{only}` to look at", hint=f"one of {', '.join(places)}")
    state = state_of(root, settings)
    with Gathering("looking at stores…") as shown:
        patient = wiring.patience_of(patience, stop(), shown.waiting)
        record, known = record_in(root, settings, patience), known_stores(state)
        past = cache(partial(doctoring.read_past, record))  # it may lie in a store
        found: list[Found] = []
        if only in (None, "100ms"):
            opened = partial(wiring.open_api, settings, stop(), patient)
            found += doctoring.of_100ms(opened, now)
        if only in (None, "record"):
            found += doctoring.of_record(record, past, now())
            found += doctoring.of_approvals(settings, root / ALLOWED)
        for store in settings.stores:
            if only in (None, store.name):
                reader = partial(wiring.open_reader, store, stop(), patient)
                reports = partial(wiring.open_reports, store, stop(), patient)
                found += doctoring.of_store(
                    store, reader, reports, policies, settings, past, known, now
                )
    told = Diagnosis(tuple(found))
    if form == "json":
        click.echo(diagnosis_json(told), nl=False)
    else:
        print_page(diagnosis_page(told), settings.timezone, form)
    if not told.is_well:
        raise Exit(1)


ANSWERS = (
    *("plan", "row", "apply", "explain", "forecast", "impact", "policy-diff", "standing"),
    *("certificate", "doctor", "history", "report", "restore", "verify"),
)


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
@click.argument("code", required=False, shell_complete=complete_code)
def help_(code: str | None) -> None:
    """Explain an exit code, or the code of a diagnostic. Without one, list them all.

    Examples: `retainer help P208`, `retainer help 7`
    """
    from retainer.policy.codes import CODES
    from retainer.policy.diagnostics import nearest
    from retainer.views.terminal import aligned

    if code is None:
        click.echo(aligned((key, title) for key, (title, _) in CODES.items()))
        click.echo("\nAn exit code too: `retainer help 7`")
        return
    if code.isdecimal() and int(code) in MEANINGS:
        click.echo(terminal_page().wrapped(f"exit {int(code)}: {MEANINGS[int(code)]}"))
        return
    if code.upper() not in CODES:
        close = nearest(code.upper(), CODES)
        raise WrongUsage(
            f"there is no code {code}",
            hint=f"did you mean {close}?" if close else "`retainer help` lists them",
        )
    title, text = CODES[code.upper()]
    click.echo(
        terminal_page().wrapped(f"{code.upper()}: {title}") + "\n\n" + terminal_page().wrapped(text)
    )


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that lets a shell complete commands, options, stores, limits and codes.

    Examples: `retainer completion bash > ~/.local/share/bash-completion/completions/retainer`,
    `retainer completion zsh > ~/.zfunc/_retainer`
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None  # click has these three
    click.echo(found(cli, {}, "retainer", "_RETAINER_COMPLETE").source())


@cli.command()
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    help="A new folder to play in. Default: a temporary one.",
)
@click.option(
    "--serve",
    is_flag=True,
    help="Then let the stand-in for 100ms answer on, until Ctrl-C, to change a rule and apply.",
)
def demo(folder: Path | None, serve: bool) -> None:
    """Show all of it in under half a minute: no network, no account, nothing outside a new folder.

    The real code runs against a local stand-in for the 100ms API and stores that are folders.
    Examples: `retainer demo`, `retainer demo --folder play --serve`
    """
    from retainer.demo.story import tell

    def wait() -> None:
        with suppress(KeyboardInterrupt, Stopped):
            while True:
                stop().wait(3600)

    tell(folder, terminal_page(), wait if serve else None)
