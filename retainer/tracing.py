"""What went on as OpenTelemetry spans: a command, each listing, each copy and delete. Only where
the environment names a collector (OTEL_EXPORTER_OTLP_ENDPOINT) and the extra `otel` is installed.

A span has ids, stores, counts and outcomes; no key, no address, no words of an error. Whatever the
collector does changes nothing of how a command ends, and it is waited for 5 s at most.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from retainer.voice import say

if TYPE_CHECKING:
    from retainer.apply.job import Watcher
    from retainer.inventory.listing import Listing
    from retainer.planfile import Action

SECONDS = 5.0
"""So long the collector is waited for when a command ends."""
QUEUE = 16_384
"""So many spans wait for a collector at most; more are dropped, and counted."""
_NAMED_BY = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class _Trace:
    """Of one command."""

    def __init__(self, command: str) -> None:
        """Raises ImportError where the extra is not installed."""
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
        from opentelemetry.trace import set_span_in_context

        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)  # it would name addresses
        named = os.environ.get("OTEL_SERVICE_NAME") or "retainer"
        told = {SERVICE_NAME: named, SERVICE_VERSION: version("retainer")}
        self._provider = TracerProvider(resource=Resource.create(told), shutdown_on_exit=False)
        exporter = OTLPSpanExporter(timeout=SECONDS)
        send = exporter.export

        def counted(spans: Sequence[Any]) -> SpanExportResult:
            result = send(spans)
            if result is SpanExportResult.SUCCESS:
                self._taken += len(spans)
            return result

        # neither a flush nor a full queue says what was not taken
        exporter.export = counted  # type: ignore[method-assign]
        self._provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=QUEUE))
        self._tracer = self._provider.get_tracer("retainer", version("retainer"))
        self._made = self._taken = 0
        self._counting = threading.Lock()
        self._root = self._tracer.start_span(f"retainer {command}")
        self._context = set_span_in_context(self._root)

    def span(self, name: str, began: datetime | None = None, **facts: Any) -> Any:
        """A span below the command's, which is to be ended."""
        return self._tracer.start_span(
            name,
            self._context,
            attributes=_named(facts),
            start_time=_nanoseconds(began) if began else None,
        )

    def ended(self, span: Any, at: datetime | None = None) -> None:
        """A span ends, now or then."""
        span.end(_nanoseconds(at) if at else None)
        with self._counting:
            self._made += bool(span.is_recording() or span.get_span_context().trace_flags.sampled)

    def end(self, code: int) -> int:
        """How many spans the collector did not take in time."""
        self._root.set_attributes(_named({"exit_code": code}))
        self.ended(self._root)

        def flush() -> None:
            with suppress(Exception):
                self._provider.force_flush(int(SECONDS * 1000))

        flushing = threading.Thread(target=flush, daemon=True)
        flushing.start()
        flushing.join(SECONDS)
        return self._made - self._taken


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1e9)


def _named(facts: dict[str, Any]) -> dict[str, Any]:
    return {f"retainer.{name}": value for name, value in facts.items() if value is not None}


_trace: _Trace | None = None


def _is_off() -> bool:
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    return off or os.environ.get("OTEL_TRACES_EXPORTER", "").lower() == "none"


def begin(command: str) -> None:
    """A command begins, of this name."""
    global _trace
    _trace = None
    if not any(os.environ.get(name) for name in _NAMED_BY) or _is_off():
        return
    try:
        _trace = _Trace(command)
    except ImportError:
        say("no traces: a collector is named, and `retainer[otel]` is not installed", "warning")
    except Exception as error:  # whatever the environment has named: its words may hold it
        say(f"no traces: {type(error).__name__}", "warning")


def listed(listings: Iterable[Listing]) -> None:
    """Tell how each listing went."""
    for each in listings if _trace else ():
        assert _trace is not None
        span = _trace.span(
            f"list {each.name}",
            each.started_at,
            source=each.name,
            kind=each.kind,
            complete=each.complete,
            rows=each.objects,
            bytes=each.bytes,
        )
        _trace.ended(span, each.finished_at)


def watching(watcher: Watcher) -> Watcher:
    """The same, which also tells of each copy and delete."""
    return _Watching(_trace, watcher) if _trace else watcher


def end(code: int) -> None:
    """The command that began has ended so."""
    global _trace
    trace, _trace = _trace, None
    if trace is not None and (lost := trace.end(code)):
        say(f"traces: their collector did not take {lost:,} spans", "warning")


class _Watching:
    def __init__(self, trace: _Trace, watcher: Watcher) -> None:
        self._trace, self._watcher = trace, watcher
        self._spans: dict[int, Any] = {}

    def began(self, action: Action) -> None:
        if action.n not in self._spans:  # else it is tried again
            self._spans[action.n] = self._trace.span(
                action.decision,
                asset_id=action.asset_id,
                store=action.store,
                source=action.source,
                rule=action.rule,
                bytes=action.bytes,
            )
        self._watcher.began(action)

    def bytes(self, count: int) -> None:
        self._watcher.bytes(count)

    def ended(self, action: Action, outcome: str, sentence: str | None) -> None:
        span = self._spans.pop(action.n, None)
        if span is not None:
            span.set_attributes(_named({"outcome": outcome}))
            self._trace.ended(span)
        self._watcher.ended(action, outcome, sentence)

    def elsewhere(self, ended: int, failed: int, size: int) -> None:
        self._watcher.elsewhere(ended, failed, size)
