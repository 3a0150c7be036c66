"""How long work goes on, on stderr: a live display on a terminal, plain lines elsewhere (which then
need not wait for rich to load)."""

from __future__ import annotations

import re
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from retainer.model.printable import printable
from retainer.views.units import many, size
from retainer.voice import is_for_people, loudness, tell

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from retainer.planfile import Action

_EVERY_SECONDS = 10.0
_WAITS_SECONDS = 60.0
"""Waiting is told at once, and then so often."""


class _Waits:
    """Tells that something waits, a line a minute for each place."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}
        self._guard = threading.Lock()

    def tell(self, live: Progress | None, sentence: str) -> None:
        place = re.split("[ :]", sentence, maxsplit=1)[0]
        with self._guard:
            now = time.monotonic()
            if now - self._told.get(place, float("-inf")) < _WAITS_SECONDS:
                return
            self._told[place] = now
        _say(live, sentence, "dim")


class Gathering:
    """Shows how many rows each listing has brought so far, or how many were decided."""

    def __init__(self, headline: str = "gathering facts…") -> None:
        """`headline`: what is said where nobody sees how far it is; empty: nothing."""
        self._headline = headline
        self._live = _counters() if is_for_people() else None
        self._tasks: dict[str, TaskID] = {}
        self._waits = _Waits()
        self._guard = threading.Lock()

    def __enter__(self) -> Gathering:
        if self._live:
            self._live.start()
        elif self._headline:
            tell(self._headline)
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
        self._waits.tell(self._live, sentence)


class Applying:
    """Shows a run: bytes, rate, time left, failures. `Watcher` of apply/run.py."""

    def __init__(self, actions: int, copy_bytes: int) -> None:
        self._live = _bar() if is_for_people() else None
        self._causes: set[tuple[str, str, str, str]] = set()
        self._waits = _Waits()
        self._total = actions
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
        self._waits.tell(self._live, sentence)

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
        self._show()
        if outcome in ("failed", "skipped") and self._is_news(action, outcome, sentence or ""):
            _say(
                self._live,
                f"{outcome}: {action.decision} {action.asset_id} in {action.store}: {sentence}",
                level="warning",
                act=action.decision,
                asset=action.asset_id,
                store=action.store,
            )

    def elsewhere(self, ended: int, failed: int, size: int) -> None:
        with self._guard:
            self._ended += ended
            self._failed += failed
            self._bytes += size
        if self._live and self._task is not None:
            self._live.advance(self._task, size)
        self._show()

    def _show(self) -> None:
        if self._live and self._task is not None:
            failures = f", [red]{many(self._failed, 'failure')}[/red]" if self._failed else ""
            self._live.update(self._task, state=f"{self._ended:,}/{self._total:,}{failures}")
        else:
            self._line()

    def _is_news(self, action: Action, outcome: str, sentence: str) -> bool:
        """Whether a failure is told when it happens: the first of each cause; the summary has how
        many there were."""
        kind = (outcome, action.decision, action.store, sentence.replace(action.asset_id, "…"))
        with self._guard:
            is_first = kind not in self._causes
            self._causes.add(kind)
        return is_first or loudness() == "verbose"

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
        tell(
            f"{self._ended:,}/{self._total:,} done, {size(self._bytes)} of {size(self._expected)}, "
            f"{size(rate)}/s{left}, "
            f"{many(self._failed, 'failure')}",
            done=self._ended,
            of=self._total,
            bytes=self._bytes,
            failures=self._failed,
        )


def _say(live: Progress | None, sentence: str, style: str | None = None, **fields: Any) -> None:
    """Beside a live display as one of its lines, else as any other sentence."""
    if live:
        live.console.print(printable(sentence), style=style, highlight=False, markup=False)
    else:
        tell(sentence, **fields)


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
