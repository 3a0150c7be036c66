"""Whole answers of the 100ms API, of a bounded length and within a bounded time (httpx)."""

from __future__ import annotations

import logging
import threading
import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import httpcore
import httpx

from retainer.errors import SourceFailed
from retainer.sources.connections import CONNECT_SECONDS, STALL_SECONDS, host_of
from retainer.stop import Stop
from retainer.wire import WHOLE_SECONDS, proxy_for, trusted_authorities

logging.getLogger("httpx").setLevel(logging.WARNING)  # it would tell of every call


class Spent(Exception):
    """An answer took longer than anything may, or is longer."""


class Unanswered(Exception):
    """No whole answer came; its text is the kind of failure. `nobody`: no server was there."""

    def __init__(self, kind: str, *, nobody: bool = False) -> None:
        super().__init__(kind)
        self.nobody = nobody


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that was read whole and unpacked. Names of headers are in small letters."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Answers:
    """Asks. Safe to use from several threads."""

    def __init__(self, stop: Stop) -> None:
        """Raises SourceFailed for proxies or certificates that are none."""
        self._stop = stop
        self._trusted = trusted_authorities()
        self._clients: dict[str | None, httpx.Client] = {}
        self._guard = threading.Lock()

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def get(self, address: str, headers: Mapping[str, str], most: int) -> Answer:
        """The answer, read to the end within two minutes, and unpacked to at most so many bytes. A
        redirect is not followed.

        Raises ValueError for what is no HTTP address, Unanswered, Spent.
        """
        self._stop.check()
        if urlsplit(address).scheme not in ("http", "https") or host_of(address) is None:
            raise ValueError("no http address")
        sent = {"User-Agent": "retainer", "Accept-Encoding": "gzip", **headers}
        client = self._client_for(address)
        _deadline.at = time.monotonic() + WHOLE_SECONDS
        try:
            with client.stream("GET", address, headers=sent) as response:
                content = _at_most(response.iter_raw(), most)
                if response.headers.get("content-encoding", "").strip().lower() in _PACKED:
                    content = _unpacked(content, most)
                return Answer(response.status_code, response.headers, content)
        except httpx.InvalidURL:
            raise ValueError("no http address") from None
        except (httpx.HTTPError, httpx.StreamError) as error:
            if time.monotonic() >= _deadline.at:
                raise Spent(f"an answer did not end within {WHOLE_SECONDS:.0f} s") from None
            nobody = isinstance(error, httpx.ConnectError)
            raise Unanswered(type(error).__name__, nobody=nobody) from None
        finally:
            _deadline.at = float("inf")

    def _client_for(self, address: str) -> httpx.Client:
        proxy = proxy_for(address)
        with self._guard:
            if proxy not in self._clients:
                self._clients[proxy] = self._client(proxy)
            return self._clients[proxy]

    def _client(self, proxy: str | None) -> httpx.Client:
        try:
            transport = httpx.HTTPTransport(verify=self._trusted, proxy=proxy)
        except (httpx.InvalidURL, ValueError):
            raise SourceFailed(
                "the proxy in the environment is no http or https address",
                hint="set no_proxy=* to use none",
            ) from None
        # httpx has no way to say how long a whole answer may take: httpcore's streams have.
        transport._pool._network_backend = _Ending()
        timeout = httpx.Timeout(STALL_SECONDS, connect=CONNECT_SECONDS)
        nobodys = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        return httpx.Client(
            transport=transport,
            timeout=timeout,
            trust_env=False,
            cookies=nobodys,
            auth=lambda request: request,  # else a user in the address would replace the token
        )


_PACKED = ("gzip", "x-gzip")


class _Deadline(threading.local):
    at = float("inf")


_deadline = _Deadline()


class _Ending(httpcore.NetworkBackend):
    """Connections whose reads end when the answer that this thread waits for must: one line of it,
    drop by drop, may take for ever."""

    def __init__(self) -> None:
        self._backend = httpcore.SyncBackend()

    def connect_tcp(self, *words: Any, **named: Any) -> httpcore.NetworkStream:
        return _EndingStream(self._backend.connect_tcp(*words, **named))

    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)


class _EndingStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left = _deadline.at - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the answer must have ended")
        return self._stream.read(
            max_bytes, min(left, STALL_SECONDS if timeout is None else timeout)
        )

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(self, *words: Any, **named: Any) -> httpcore.NetworkStream:
        return _EndingStream(self._stream.start_tls(*words, **named))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _at_most(pieces: Iterable[bytes], most: int) -> bytes:
    content = bytearray()
    for piece in pieces:
        content += piece
        if len(content) > most:
            raise Spent(f"an answer is longer than {most >> 20} MiB")
    return bytes(content)


def _unpacked(content: bytes, most: int) -> bytes:
    """Unpack gzip. Raises Spent for what would be longer than `most`, Unanswered for what is cut
    off or no gzip."""
    unpacker = zlib.decompressobj(31)
    try:
        unpacked = unpacker.decompress(content, most + 1)
    except zlib.error:
        raise Unanswered("no gzip") from None
    if len(unpacked) > most:
        raise Spent(f"an answer is longer than {most >> 20} MiB once it is unpacked")
    if not unpacker.eof:
        raise Unanswered("cut off")
    return unpacked
