"""Spans for a collector of OpenTelemetry: which there are, what they hold, and that they change
nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from project import ROOM, Project, video

A = "a" * 24


class Collector:
    """Takes spans as a collector does, over OTLP."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.answer = 200
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(collector.answer)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @property
    def spans(self) -> list[Any]:
        return [
            span
            for body in self.bodies
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


def facts_of(span: Any) -> dict[str, Any]:
    return {
        each.key.removeprefix("retainer."): getattr(each.value, each.value.WhichOneof("value"))
        for each in span.attributes
    }


def test_a_plan_and_an_apply_are_told_as_spans_without_names_or_addresses(
    local: Project, collector: Collector
) -> None:
    local.api.add_room({"id": ROOM, "name": "sales-of-jane-doe"})
    local.hosted(A, video(1))
    local.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.url
    assert local.alone("plan", "--out", "p.plan").returncode == 0
    listings = {span.name: span for span in collector.spans}
    assert {"retainer plan", "list vault", "list uploads"} <= listings.keys()
    vault = facts_of(listings["list vault"])
    assert (vault["complete"], vault["kind"]) == (True, "store")
    assert facts_of(listings["retainer plan"])["exit_code"] == 0
    collector.bodies.clear()

    done = local.alone("apply", "p.plan")
    assert (done.returncode, "warning" in done.stderr) == (0, False), done.stderr
    root, copy = sorted(collector.spans, key=lambda span: span.name != "retainer apply")
    assert copy.parent_span_id == root.span_id
    assert facts_of(copy) == {
        "asset_id": A,
        "store": "vault",
        "source": "hosted",
        "rule": "calls",
        "bytes": len(video(1)),
        "outcome": "copied",
    }
    assert root.start_time_unix_nano <= copy.start_time_unix_nano <= copy.end_time_unix_nano
    said = b"".join(collector.bodies)
    for secret in (b"jane", b"http", b"Rec-", local.api.secret.encode()):
        assert secret not in said


@pytest.mark.parametrize("how", ["refuses", "is not there", "is silent", "is no address"])
def test_a_collector_that_takes_nothing_changes_nothing(
    how: str, local: Project, collector: Collector
) -> None:
    local.hosted(A, video(1))
    silent = socket.create_server(("127.0.0.1", 0))
    collector.answer = 400
    local.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = {
        "refuses": collector.url,
        "is not there": "http://127.0.0.1:9",
        "is silent": f"http://127.0.0.1:{silent.getsockname()[1]}",
        "is no address": "http://user:pass word@/secret-token",
    }[how]
    began = time.monotonic()
    done = local.alone("plan", "--out", "p.plan")
    silent.close()
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 30
    assert "traces" in done.stderr and "Traceback" not in done.stderr
    assert "secret-token" not in done.stderr


def test_without_a_collector_nothing_is_loaded_for_it(local: Project) -> None:
    looked = (
        "import sys; from retainer.tracing import begin, end; begin('plan'); end(0); "
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert (
        subprocess.run([sys.executable, "-c", looked], env=local.env(), check=False).returncode == 0
    )


def test_where_the_extra_is_not_installed_that_is_said(local: Project) -> None:
    looked = (
        "import sys; sys.modules['opentelemetry'] = None; "
        "from retainer.tracing import begin, end; begin('plan'); end(0)"
    )
    environment = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", looked], env=environment, capture_output=True, text=True, check=True
    )
    assert "`retainer[otel]` is not installed" in done.stderr


def test_spans_that_were_not_taken_are_counted(collector: Collector) -> None:
    looked = (
        "from retainer import tracing; tracing.QUEUE = 512; tracing.begin('apply')\n"
        "trace = tracing._trace\n"
        "for number in range(50_000): trace.ended(trace.span('copy'))\n"
        "tracing.end(0)"
    )
    environment = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    done = subprocess.run(
        [sys.executable, "-c", looked], env=environment, capture_output=True, text=True, check=True
    )
    lost = 50_001 - len(collector.spans)
    assert lost > 0
    assert f"their collector did not take {lost:,} spans" in done.stderr


@pytest.mark.parametrize("off", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_traces_are_off_where_opentelemetry_is(
    off: dict[str, str], local: Project, collector: Collector
) -> None:
    local.environment |= {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url} | off
    assert local.alone("plan", "--out", "p.plan").returncode == 0
    assert collector.bodies == []


def test_an_interrupt_while_a_silent_collector_is_waited_for_is_no_traceback(
    local: Project,
) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{silent.getsockname()[1]}"
    local.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = address
    with subprocess.Popen(
        local.command("validate"),
        cwd=local.root,
        env=local.env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None and child.stdout.readline().startswith("valid")
        time.sleep(1)
        child.send_signal(signal.SIGINT)
        _, stderr = child.communicate(timeout=30)
    silent.close()
    assert (child.returncode, "Traceback" in stderr) == (130, False), stderr
