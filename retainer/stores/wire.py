"""One call to a store: signed anew for each try, tried again where that may help, and never more of
them at once than the server takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol

from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError

from retainer.lane import MOST_AT_ONCE, Lane, lane_of
from retainer.patience import Again, Patience, asked_patience
from retainer.stop import Stop, Stopped
from retainer.stores.verdict import Refusal, Verdict
from retainer.wire import Pools, cut_after, is_nobody_there

LONGEST_ANSWER = 64 << 20
"""An answer that is read whole is at most so long."""
CONNECT_SECONDS, READ_SECONDS = 10.0, 60.0
"""A server that is silent for so long counts as gone."""
WHOLE_SECONDS = 300.0
PIECE = 1 << 20
READS = ("GET", "HEAD")
BUSY = (429, 503)
"""So a server asks for fewer calls at once."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked. `path` as its dialer takes it, `query` not encoded yet; names of headers are
    in small letters."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | memoryview = b""
    once: bool = False
    """Not tried again, whatever comes."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `tries`: so often it was asked; after more than one, an earlier try may have
    been done, and its answer lost."""

    status: int
    headers: Mapping[str, str]
    content: bytes = b""
    tries: int = 1


class NoAnswer(Exception):
    """No answer came at all; what was asked may have been done. Its text is the kind of failure."""


class _Passing(Again):
    """What may pass: an answer that says so, or none."""

    def __init__(
        self,
        said: str,
        answer: Answer | None = None,
        patience: float | None = None,
        *,
        nobody: bool = False,
    ) -> None:
        self._answer, self._said = answer, said
        told = f"it answered {said}" if answer else f"the connection failed ({said})"
        super().__init__(told, patience, nobody=nobody)

    def as_it_ended(self) -> Answer:
        """Raises NoAnswer where none came."""
        if self._answer is None:
            raise NoAnswer(self._said)
        return self._answer


class Dialer(Protocol):
    """How a cloud is spoken to: its server, and what it wants to see before it answers."""

    def address(self, request: Request) -> tuple[str, Mapping[str, str]]:
        """The whole address and all headers, signed at this moment."""

    def refusal_of(self, answer: Answer) -> Refusal | None:
        """Why a call was not done; None where it was."""

    def renewed(self, since: float) -> bool:
        """Whether there are newer credentials than those of a call that was begun at `since`
        (monotonic seconds), got now if need be: a call that was refused for them may then pass."""


class Wire:
    """Asks one server. Safe to use from several threads."""

    def __init__(
        self,
        dialer: Dialer,
        host: str,
        stop: Stop,
        patience: Patience | None = None,
        *,
        name: str = "",
        at_once: int = MOST_AT_ONCE,
        quick: bool = False,
    ) -> None:
        """`name`: what waits are told of. `at_once`: so many calls at most. `quick`: give up on a
        silent server in seconds, and never wait for others, as a lock must."""
        connect, read = (5.0, 10.0) if quick else (CONNECT_SECONDS, READ_SECONDS)
        self._pools = pools_of(connect, read)
        self._dialer, self._stop = dialer, stop
        self._name = name or host
        usual = patience or Patience(sleep=stop.pause)
        self._patience = usual.hasty(tries=2) if quick else usual.anew()
        self._heeds = not quick
        self._told: tuple[str, float] = ("", 0.0)
        self._lane = Lane(MOST_AT_ONCE, MOST_AT_ONCE) if quick else lane_of(host, at_once)

    @property
    def date(self) -> str | None:
        """The `Date` of an answer of the last second, where there was one."""
        date, at = self._told
        return date if time.monotonic() - at < 1.0 else None

    def ask(self, request: Request) -> Answer:
        """The answer, read whole. Raises NoAnswer."""
        return self._try(request, _whole)

    @contextmanager
    def open(self, request: Request) -> Iterator[tuple[Answer, Iterator[bytes]]]:
        """The answer, and its body as it comes. The body raises NoAnswer where it breaks off, or
        stalls. Raises NoAnswer."""
        opened: list[BaseHTTPResponse] = []

        def begin(response: BaseHTTPResponse) -> tuple[int, Mapping[str, str], bytes]:
            if response.status >= 300:
                return _whole(response)
            opened.append(response)
            return response.status, response.headers, b""

        answer = self._try(request, begin)
        try:
            yield answer, _pieces(opened[0]) if opened else iter((answer.content,))
        finally:
            for response in opened:
                response.close()  # what was read to its end is in the pool again already

    def _try(
        self,
        request: Request,
        take: Callable[[BaseHTTPResponse], tuple[int, Mapping[str, str], bytes]],
    ) -> Answer:
        tries = 0
        last: _Passing | None = None

        def once() -> Answer:
            nonlocal tries, last
            if last is not None and self._stop.is_asked:
                return last.as_it_ended()
            tries += 1
            try:
                return self._once(request, take, tries)
            except _Passing as error:
                last = error
                raise

        try:
            return once() if request.once else self._patience.try_again(self._name, once)
        except _Passing as error:
            return error.as_it_ended()

    def _once(
        self,
        request: Request,
        take: Callable[[BaseHTTPResponse], tuple[int, Mapping[str, str], bytes]],
        tries: int,
    ) -> Answer:
        """Raises _Passing for what may pass."""
        began = time.monotonic()
        with self._lane:
            if request.method not in READS and self._stop.is_over:
                raise Stopped  # it may have waited for long
            try:
                answer = Answer(*take(self._send(request)), tries=tries)
            except (HTTPError, OSError) as error:
                nobody = is_nobody_there(error)
                raise _Passing(type(error).__name__, nobody=nobody) from None
        self._told = (answer.headers.get("date", ""), time.monotonic())
        self._lane.ended(busy=answer.status in BUSY)
        told = self._dialer.refusal_of(answer)
        if told is None:
            return answer
        has_ended = told.verdict is Verdict.CREDENTIALS and tries == 1 and not request.once
        if has_ended and self._dialer.renewed(began):
            return self._once(request, take, tries + 1)
        if not told.may_pass:
            return answer
        asked = asked_patience(answer.status, answer.headers, lambda: "")
        said = f"{answer.status} {told.code}".strip()
        raise _Passing(said, answer, asked if self._heeds else None)

    def _send(self, request: Request) -> BaseHTTPResponse:
        address, headers = self._dialer.address(request)
        return self._pools.open(request.method, address, headers, request.body or None)


@cache
def pools_of(connect: float, read: float) -> Pools:
    """Connections that all stores share; seconds until a silent server counts as gone."""
    return Pools(connect=connect, read=read, at_once=MOST_AT_ONCE)


def _whole(response: BaseHTTPResponse) -> tuple[int, Mapping[str, str], bytes]:
    try:
        if response.length_remaining == 0:
            content = response.read()
        else:
            with cut_after(response, WHOLE_SECONDS):
                content = response.read(LONGEST_ANSWER)
                if response.read(1):
                    raise HTTPError("an answer is too long")
        return response.status, response.headers, content
    except BaseException:
        response.close()
        raise
    finally:
        response.release_conn()


def _pieces(response: BaseHTTPResponse) -> Iterator[bytes]:
    try:
        while piece := response.read(PIECE):
            yield piece
    except (HTTPError, OSError) as error:
        raise NoAnswer(type(error).__name__) from None
