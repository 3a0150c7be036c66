"""How long work goes on, on stderr: a live display on a terminal, plain lines elsewhere (which then
need not wait for rich to load)."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

from retainer.model.printable import printable
from retainer.views.units import many, size

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from retainer.planfile import Action

_EVERY_SECONDS = 10.0


class Gathering:
    """Shows how many rows each listing has brought so far."""

    def __init__(self, headline: str = "gathering facts…") -> None:
        self._headline = headline
        self._live = _counters() if sys.stderr.isatty() else None
        self._tasks: dict[str, TaskID] = {}
        self._guard = threading.Lock()

    def __enter__(self) -> Gathering:
        if self._live:
            self._live.start()
        else:
            print(self._headline, file=sys.stderr)  # noqa: T201
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def rows(self, name: str, count: int) -> None:
        if not self._live:
            return
        name = printable(name)
        with self._guard:
            task = self._tasks.get(name)
            if task is None:
                task = self._tasks[name] = self._live.add_task(name, total=None)
        self._live.advance(task, count)

    def waiting(self, sentence: str) -> None:
        _say(self._live, sentence, "dim")


class Applying:
    """Shows a run: bytes, rate, time left, failures. `Watcher` of apply/run.py."""

    def __init__(self, copies: int, copy_bytes: int, deletes: int) -> None:
        self._live = _bar() if sys.stderr.isatty() else None
        self._total = copies + deletes
        self._bytes = 0
        self._expected = copy_bytes
        self._ended = 0
        self._failed = 0
        self._guard = threading.Lock()
        self._began = self._told = time.monotonic()
        self._task = (
            self._live.add_task("applying", total=copy_bytes or None, state="")
            if self._live
            else None
        )

    def __enter__(self) -> Applying:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def began(self, action: Action) -> None:
        return

    def waiting(self, sentence: str) -> None:
        _say(self._live, sentence, "dim")

    def bytes(self, count: int) -> None:
        with self._guard:
            self._bytes += count
        if self._live and self._task is not None:
            self._live.advance(self._task, count)
        else:
            self._line()

    def ended(self, action: Action, outcome: str, sentence: str | None) -> None:
        with self._guard:
            self._ended += 1
            self._failed += outcome == "failed"
        if self._live and self._task is not None:
            failures = f", [red]{many(self._failed, 'failure')}[/red]" if self._failed else ""
            self._live.update(self._task, state=f"{self._ended:,}/{self._total:,}{failures}")
        else:
            self._line()
        if outcome in ("failed", "skipped"):
            _say(
                self._live,
                f"{outcome}: {action.decision} {action.asset_id} in {action.store}: {sentence}",
            )

    def _line(self) -> None:
        """Without a terminal, a line every ten seconds."""
        with self._guard:
            now = time.monotonic()
            if now - self._told < _EVERY_SECONDS:
                return
            self._told = now
            rate = self._bytes / max(now - self._began, 0.001)
        left = (
            f", about {(self._expected - self._bytes) / rate:.0f} s left"
            if rate and self._expected > self._bytes
            else ""
        )
        print(  # noqa: T201
            f"{self._ended:,}/{self._total:,} done, {size(self._bytes)} of {size(self._expected)}, "
            f"{size(rate)}/s{left}, "
            f"{many(self._failed, 'failure')}",
            file=sys.stderr,
        )


def _say(live: Progress | None, sentence: str, style: str | None = None) -> None:
    sentence = printable(sentence)
    if live:
        live.console.print(sentence, style=style, highlight=False, markup=False)
    else:
        print(sentence, file=sys.stderr)  # noqa: T201


def _counters() -> Progress:
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TextColumn("{task.completed:,.0f}"),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    numbers = (
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[state]}"),
    )
    return Progress(
        TextColumn("{task.description}"), BarColumn(), *numbers, console=Console(stderr=True)
    )
