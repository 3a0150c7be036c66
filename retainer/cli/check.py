"""Commands that need no facts: validate, lint, test."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click
from click.exceptions import Exit

from retainer.cli.group import cli
from retainer.cli.options import ANNOTATED, OUT, facts_option
from retainer.cli.printing import annotate, fail_on, put, written
from retainer.cli.process import now
from retainer.cli.project import project_root, the_project
from retainer.errors import PoliciesWrong, WrongUsage
from retainer.model.printable import printable

if TYPE_CHECKING:
    from retainer.model.change import Tested
    from retainer.model.outcome import Outcome
    from retainer.model.rule import Policies


@cli.command()
@ANNOTATED
@OUT
def validate(form: str, out: Path | None) -> None:
    """Check retainer.yaml and every policy, offline: all mistakes of all files in one run.

    Examples: `retainer validate`, `retainer validate --format github`
    """
    from retainer.policy.files import policy_files
    from retainer.settings import load_project
    from retainer.views.units import many

    root = project_root()
    settings, policies, mistakes = load_project(root)
    if form == "text":
        fail_on(mistakes)
    else:
        files = [path.relative_to(root).as_posix() for path in policy_files(root).files]
        annotate(mistakes, form, out, root, "validate", checked=["retainer.yaml", *files])
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
@facts_option("Also tell what matches no recording of this snapshot.")
@click.option("--strict", is_flag=True, help="Exit 10 where there is any warning.")
@ANNOTATED
@OUT
def lint(snapshot: Path | None, strict: bool, form: str, out: Path | None) -> None:
    """Warn of what is allowed and is hardly meant: deletes of everything, rules that match nothing
    or change nothing, classes that cost more than they save.

    Warnings only; `--strict` makes them an error. Examples: `retainer lint`, `retainer lint --facts
    facts.duckdb --strict`
    """
    from retainer.planning import matches_of
    from retainer.policy.advice import advise
    from retainer.wiring import aws_regions

    root, settings, policies = the_project()
    matched = matches_of(snapshot, settings, policies, now()) if snapshot else None
    found = advise(policies, settings, aws_regions(), matched)
    if form == "text":
        from retainer.views.mistakes import mistakes_page

        told = written(mistakes_page(found), "UTC", "text") if found else "nothing to warn of\n"
        put(out, told)
    else:
        annotate(found, form, out, root, "lint", checked=["retainer.yaml"])
    if strict and found:
        raise Exit(PoliciesWrong.exit_code)


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
@facts_option("Answer the files' `assertions:` about the real recordings of this snapshot.")
@ANNOTATED
@OUT
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
    project = the_project() if root else None
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
        put(out, written(page, timezone, form))
        fail_on(mistakes)
    else:
        passed = [outcome for outcome in outcomes if not outcome.failures]
        annotate([*mistakes, *of_outcomes(outcomes)], form, out, root or Path.cwd(), "test", passed)
    wrong_files = any(not mistake.is_warning for mistake in mistakes)
    if wrong_files or any(outcome.failures for outcome in outcomes):
        raise Exit(PoliciesWrong.exit_code)


def tested(root: Path, own: Policies) -> Tested | None:
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
