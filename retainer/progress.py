"""How long work goes on, on stderr: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from retainer.views.units import many, size

if TYPE_CHECKING:
    from retainer.planfile import Action

_EVERY_SECONDS = 10.0


class Gathering:
    """Shows how many rows each listing has brought so far."""

    def __init__(self, headline: str = "gathering facts…") -> None:
        self._headline = headline
        self._live = sys.stderr.isatty()
        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.completed:,.0f}"), console=Console(stderr=True), transient=True
        )
        self._tasks: dict[str, object] = {}
        self._guard = threading.Lock()

    def __enter__(self) -> Gathering:
        if self._live:
            self._progress.start()
        else:
            print(self._headline, file=sys.stderr)  # noqa: T201
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._progress.stop()

    def rows(self, name: str, count: int) -> None:
        if not self._live:
            return
        with self._guard:
            task = self._tasks.get(name)
            if task is None:
                task = self._tasks[name] = self._progress.add_task(name, total=None)
        self._progress.advance(task, count)  # type: ignore[arg-type]

    def waiting(self, sentence: str) -> None:
        self._progress.console.print(sentence, style="dim", highlight=False) if self._live else print(sentence, file=sys.stderr)  # noqa: T201


class Applying:
    """Shows a run: bytes, rate, time left, failures. `Watcher` of apply/run.py."""

    def __init__(self, copies: int, copy_bytes: int, deletes: int) -> None:
        self._live = sys.stderr.isatty()
        self._total = copies + deletes
        self._bytes = 0
        self._expected = copy_bytes
        self._ended = 0
        self._failed = 0
        self._guard = threading.Lock()
        self._began = self._told = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[state]}"), console=Console(stderr=True),
        )  # fmt: skip
        self._task = self._progress.add_task("applying", total=copy_bytes or None, state="")

    def __enter__(self) -> Applying:
        if self._live:
            self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._progress.stop()

    def began(self, action: Action) -> None:
        return

    def waiting(self, sentence: str) -> None:
        self._progress.console.print(sentence, style="dim", highlight=False, markup=False) if self._live else print(sentence, file=sys.stderr)  # noqa: T201

    def bytes(self, count: int) -> None:
        with self._guard:
            self._bytes += count
        if self._live:
            self._progress.advance(self._task, count)
        else:
            self._line()

    def ended(self, action: Action, outcome: str, sentence: str | None) -> None:
        with self._guard:
            self._ended += 1
            self._failed += outcome == "failed"
        if self._live:
            failures = f", [red]{many(self._failed, 'failure')}[/red]" if self._failed else ""
            self._progress.update(self._task, state=f"{self._ended:,}/{self._total:,}{failures}")
        else:
            self._line()
        if outcome in ("failed", "skipped"):
            said = f"{outcome}: {action.decision} {action.asset_id} in {action.store}: {sentence}"
            self._progress.console.print(said, highlight=False, markup=False) if self._live else print(said, file=sys.stderr)  # noqa: T201

    def _line(self) -> None:
        """Without a terminal, a line every ten seconds."""
        with self._guard:
            now = time.monotonic()
            if now - self._told < _EVERY_SECONDS:
                return
            self._told = now
            rate = self._bytes / max(now - self._began, 0.001)
        left = f", about {(self._expected - self._bytes) / rate:.0f} s left" if rate and self._expected > self._bytes else ""
        print(f"{self._ended:,}/{self._total:,} done, {size(self._bytes)} of {size(self._expected)}, {size(rate)}/s{left}, "  # noqa: T201
              f"{many(self._failed, 'failure')}", file=sys.stderr)  # fmt: skip
