"""Pages to stdout or a file, in the form that was asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from click.exceptions import Exit

from retainer.cli.process import now
from retainer.errors import PoliciesWrong, RetainerError, WrongUsage
from retainer.model.printable import printable
from retainer.voice import Level, is_json, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retainer.model.diagnostic import Diagnostic
    from retainer.model.outcome import Outcome
    from retainer.views.page import Document, Reading
    from retainer.views.terminal import Page


def terminal_page(stream: Any = None) -> Page:
    from retainer.views.terminal import Page

    stream = stream or sys.stdout
    forced = os.environ.get("FORCE_COLOR", "") not in ("", "0", "false")
    refused = bool(os.environ.get("NO_COLOR"))
    if stream is None or not stream.isatty():
        return Page(colour=forced and not refused)
    colour = forced or os.environ.get("TERM") != "dumb"
    return Page(os.get_terminal_size(stream.fileno()).columns, colour and not refused)


def reading_in(timezone: str) -> Reading:
    """Who reads what this command says: in the policies' zone, now."""
    from retainer.model.calendar import zone_named
    from retainer.views.page import Reading

    try:
        return Reading(zone_named(timezone), now())
    except ValueError:
        return Reading(clock=now())


def print_page(document: Document, timezone: str, form: str = "text", *, err: bool = False) -> None:
    """A page in the form that was asked for: text, markdown or html."""
    # the page itself knows whether colour may be used
    click.echo(written(document, timezone, form, err=err), err=err, nl=False, color=True)


def written(
    document: Document, timezone: str, form: str, max_chars: int | None = None, *, err: bool = False
) -> str:
    reading = reading_in(timezone)
    if form == "markdown":
        from retainer.views.markdown import MAX_CHARS, markdown

        return markdown(document, reading, max_chars or MAX_CHARS)
    if form == "html":
        from retainer.views.html import html

        return html(document, reading)
    from retainer.views.terminal import terminal

    return terminal(document, terminal_page(sys.stderr if err else sys.stdout), reading)


def put(path: Path | None, text: str) -> None:
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


def annotate(
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
    put(out, annotated(form, mistakes, titles, prefix_of(root), suite, passed, checked))


def fail_on(mistakes: list[Diagnostic]) -> None:
    from retainer.views.mistakes import mistakes_page

    if mistakes and is_json():
        for each in mistakes:
            level: Level = "warning" if each.is_warning else "error"
            at = f"{each.file}:{each.span.line}:{each.span.column}"
            say(each.message, level, each.hint, code=each.code, at_line=at)
    elif mistakes:
        print_page(mistakes_page(mistakes), "UTC", err=True)
    if any(not mistake.is_warning for mistake in mistakes):
        raise Exit(PoliciesWrong.exit_code)


@contextmanager
def told_to(webhook: str | None, command: str, metrics: Path | None = None) -> Iterator[None]:
    """An error that ends a command is told to a webhook too, and to whoever reads the metrics of a
    run: nobody may look at the night's log."""

    def tell_others(text: str, code: int) -> None:
        if metrics is not None:
            from retainer.views.metrics import refused_metrics

            measure(metrics, refused_metrics(code, now().timestamp()))
        notify(webhook, text, event="error", exit_code=code)

    try:
        yield
    except RetainerError as error:
        tell_others(printable(f"retainer {command}: {error.told}"), error.exit_code)
        raise
    except Exit as ended:
        if ended.exit_code == PoliciesWrong.exit_code:
            said = "the policies are wrong, so that nothing was done"
            tell_others(f"retainer {command}: {said}", ended.exit_code)
        raise
    except Exception as error:
        tell_others(f"retainer {command} could not go on: {type(error).__name__}", 1)
        raise


def measure(path: Path, text: str) -> None:
    """Leave metrics at a path. That they cannot be is said, and changes nothing of how the command
    ends."""
    try:
        put(path, text)
    except RetainerError as error:
        say(f"the metrics: {error.message}", "warning")


def notify(webhook: str | None, text: str, **facts: Any) -> None:
    """Tell a webhook, where there is one. That it cannot be told is said, and changes nothing."""
    from retainer.webhook import send

    if webhook is None:
        return
    try:
        send(webhook, text, facts)
    except RetainerError as error:
        say(error.message, "warning")
