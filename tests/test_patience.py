"""How long a call is tried again: the same for 100ms and for every store, told, and never without
an end."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from fault_proxy import FaultProxy
from project import Project, make_project, video
from urllib3.exceptions import NewConnectionError, ProxyError, ReadTimeoutError

from retainer.demo.standin import StandIn
from retainer.patience import Again, Patience
from retainer.stop import Stop
from retainer.stores.verdict import Refusal, Verdict
from retainer.stores.wire import Answer, Request, Wire
from retainer.wire import is_nobody_there


@contextlib.contextmanager
def answering(status: int, headers: dict[str, str]) -> Iterator[str]:
    """A server that says the same to everybody; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def asked(patience: Patience, *, goes_through_after: int = 99, says: float | None = None) -> int:
    """How often a server is asked that goes on failing; `says`: it asks to wait so long."""
    times = 0

    def call() -> None:
        nonlocal times
        times += 1
        if times <= goes_through_after:
            raise Again("it answered 503", says)

    with contextlib.suppress(Again):
        patience.try_again("vault", call)
    return times


def test_a_server_that_is_down_is_waited_for_once_and_not_again_for_each_object() -> None:
    patience = Patience(sleep=lambda _: None)
    assert asked(patience) == 12
    assert asked(patience) < 9
    assert asked(patience, goes_through_after=1) == 2
    assert asked(patience) == 12, "it went through, so that it is waited for again"


def test_one_server_that_is_down_makes_nobody_hasty_with_another() -> None:
    patience = Patience(sleep=lambda _: None)
    asked(patience)
    assert asked(patience.anew()) == 12


def test_no_single_wait_is_longer_than_all_that_was_given() -> None:
    slept: list[float] = []
    asked(Patience(20.0, sleep=slept.append))
    assert max(slept) <= 20 and len(slept) < 11


def test_a_server_that_asks_to_wait_no_time_at_all_is_not_asked_twelve_times_at_once() -> None:
    slept: list[float] = []
    asked(Patience(60.0, sleep=slept.append), says=0.0)
    assert sum(slept) > 10


def test_where_nobody_answered_through_a_proxy_nobody_is_there() -> None:
    refused = NewConnectionError(None, "refused")  # type: ignore[arg-type]
    assert is_nobody_there(ProxyError("no", refused))
    assert not is_nobody_there(ProxyError("no", ReadTimeoutError(None, "", "slow")))  # type: ignore[arg-type]


def test_a_server_that_asks_for_more_than_is_left_is_not_waited_for() -> None:
    slept: list[float] = []
    patience = Patience(20.0, sleep=slept.append)
    asked(patience, says=90.0)
    assert slept == []
    asked(patience, says=40.0)
    assert slept == [], "all was spent, and it has not answered since"


@pytest.mark.parametrize("quick", [False, True])
def test_a_lock_never_waits_for_as_long_as_a_server_asks(quick: bool) -> None:
    """A heartbeat that waits a minute is a lock that others may take for dead."""
    slept: list[float] = []

    class Busy:
        def address(self, request: Request) -> tuple[str, dict[str, str]]:
            return url, {}

        def refusal_of(self, answer: Answer) -> Refusal:
            return Refusal(Verdict.BUSY, answer.status)

        def renewed(self, since: float) -> bool:
            return False

    with answering(503, {"Retry-After": "25"}) as url:
        wire = Wire(Busy(), "busy", Stop(), Patience(sleep=slept.append), quick=quick)
        assert wire.ask(Request("GET", "/")).status == 503
    assert (max(slept) < 1) is quick


@pytest.fixture
def cloud(seaweedfs: str, tmp_path: Path, api: StandIn) -> Project:
    project = make_project(tmp_path / "project", api, "seaweedfs", seaweedfs)
    project.hosted("a" * 24, video(1))
    return project


CLOSED = "http://127.0.0.1:9"


def told_of_waiting(stderr: str) -> list[str]:
    return re.findall(r"^(.*?): .*; again in [0-9.]+ s$", stderr, re.MULTILINE)


def test_waiting_for_a_store_is_told_once_a_minute_and_ends_with_the_patience(
    cloud: Project,
) -> None:
    cloud.stores["vault"] = replace(cloud.stores["vault"], endpoint=CLOSED)
    cloud.write()
    done = cloud.run("plan", "--out", "p.plan", "--patience", "2s", expect=8)
    assert told_of_waiting(done.stderr) == ["vault"]


def test_waiting_for_100ms_is_told_in_the_same_words(cloud: Project) -> None:
    cloud.api.faults.rate_500 = 1.0
    done = cloud.run("plan", "--out", "p.plan", "--patience", "2s", expect=8)
    assert {each.split()[0] for each in told_of_waiting(done.stderr)} == {"100ms"}
    assert len(told_of_waiting(done.stderr)) == 1


def test_an_apply_waits_for_a_store_that_is_down_and_names_it(
    seaweedfs: str, tmp_path: Path, api: StandIn
) -> None:
    with FaultProxy(seaweedfs) as proxy:
        project = make_project(tmp_path / "project", api, "seaweedfs", proxy.url)
        project.hosted("a" * 24, video(1))
        project.plan()
    # A process of its own has no connections left from before.
    done = project.alone("apply", "p.plan", "--patience", "2s")
    assert done.returncode == 7, done.stderr
    assert told_of_waiting(done.stderr) == ["vault"]
    assert "vault" in done.stdout
