"""HTTP as every store and source speaks it (urllib3): pools of kept-alive connections, through the
proxies and with the certificates that the environment names, and an end for every answer."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import certifi
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import NewConnectionError, ProxyError

from retainer.errors import SourceFailed

logging.getLogger("urllib3").setLevel(logging.ERROR)  # below that it would log signed URLs

WHOLE_SECONDS = 120.0
"""The head of an answer is there within so long, whatever comes drop by drop."""


class Pools:
    """Kept-alive connections. Safe to use from several threads."""

    def __init__(self, *, connect: float = 10.0, read: float = 60.0, at_once: int = 32) -> None:
        """`connect`, `read`: seconds after which a silent server counts as gone. Raises
        SourceFailed for proxies or certificates that are none."""
        how: dict[str, Any] = {
            "maxsize": at_once,
            "timeout": urllib3.Timeout(connect=connect, read=read),
            "retries": False,
            "ssl_context": trusted_authorities(),
        }
        self._pool = _timed(urllib3.PoolManager(**how))
        self._proxies = {
            scheme: _timed(urllib3.ProxyManager(url, proxy_headers=_proxy_headers(url), **how))
            for scheme in ("http", "https")
            if (url := _proxy(scheme))
        }

    def close(self) -> None:
        for pool in (self._pool, *self._proxies.values()):
            pool.clear()

    def open(
        self, method: str, address: str, headers: Mapping[str, str], body: Any = None
    ) -> urllib3.BaseHTTPResponse:
        """The answer, its body yet to be read as it comes. A redirect is not followed. Raises
        urllib3's HTTPError when no answer comes."""
        return self._pool_for(address).request(
            method,
            address,
            headers=headers,
            body=body,
            preload_content=False,
            decode_content=False,
            redirect=False,
        )

    def _pool_for(self, address: str) -> urllib3.PoolManager:
        if not self._proxies:
            return self._pool
        parts = urlsplit(address)
        if proxy_bypass(parts.hostname or ""):
            return self._pool
        return self._proxies.get(parts.scheme, self._pool)

    def goes_through_a_proxy(self, address: str) -> bool:
        return self._pool_for(address) is not self._pool


def is_nobody_there(error: Exception) -> bool:
    """Whether no answer came since no server is there: an unknown host, a refused connection."""
    if isinstance(error, ProxyError):
        error = error.original_error
    return isinstance(error, NewConnectionError)


class _Watch:
    """One thread that cuts what takes too long: a timer for each answer would cost more than the
    answer."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ends: dict[int, tuple[float, Callable[[], None]]] = {}
        self._marks = count()
        self._wakes = float("inf")
        self._runs = False

    @contextmanager
    def over(self, seconds: float, cut: Callable[[], None]) -> Iterator[None]:
        """While it lasts: `cut` is called once it has lasted so long."""
        mark, end = next(self._marks), time.monotonic() + seconds
        with self._changed:
            self._ends[mark] = (end, cut)
            if not self._runs:
                self._runs = True
                threading.Thread(target=self._go, name="wire-watch", daemon=True).start()
            elif end < self._wakes:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._ends.pop(mark, None)

    def _go(self) -> None:
        while True:
            for cut in self._late():
                with suppress(Exception):  # it may have ended at this moment
                    cut()

    def _late(self) -> list[Callable[[], None]]:
        """Waits until something is late."""
        with self._changed:
            while True:
                now = time.monotonic()
                late = [mark for mark, (end, _) in self._ends.items() if end <= now]
                if late:
                    return [self._ends.pop(mark)[1] for mark in late]
                self._wakes = min((end for end, _ in self._ends.values()), default=float("inf"))
                self._changed.wait(self._wakes - now if self._ends else None)


_watch = _Watch()


class _Timed:
    """A connection whose answer must begin, with all of its head, within two minutes: one line of
    it, drop by drop, may take for ever."""

    sock: socket.socket | None

    def getresponse(self) -> Any:
        with _watch.over(WHOLE_SECONDS, self._cut):
            return super().getresponse()  # type: ignore[misc]

    def _cut(self) -> None:
        with suppress(OSError, AttributeError):
            if self.sock is not None:
                self.sock.shutdown(socket.SHUT_RDWR)


class _Plain(_Timed, HTTPConnection):
    pass


class _Encrypted(_Timed, HTTPSConnection):
    pass


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Plain


class _EncryptedPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Encrypted


def _timed(manager: urllib3.PoolManager) -> urllib3.PoolManager:
    manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _EncryptedPool}
    return manager


@contextmanager
def cut_after(answer: urllib3.BaseHTTPResponse, seconds: float) -> Iterator[threading.Event]:
    """While it lasts, a body that has not come within so long is cut off: it then ends in an
    HTTPError, and the event is set."""
    cut = threading.Event()

    def shut() -> None:
        cut.set()
        answer.shutdown()

    with _watch.over(seconds, shut):
        yield cut


def trusted_authorities() -> ssl.SSLContext:
    """Trusts the authorities in SSL_CERT_FILE or SSL_CERT_DIR, where one of them is set, else
    certifi's. Raises SourceFailed for a file that is none."""
    if file := os.environ.get("SSL_CERT_FILE"):
        try:
            return ssl.create_default_context(cafile=file)
        except OSError as error:
            raise SourceFailed(
                "SSL_CERT_FILE names no file of certificates that can be read "
                f"({type(error).__name__})"
            ) from None
    if folder := os.environ.get("SSL_CERT_DIR"):
        return ssl.create_default_context(capath=folder)
    return ssl.create_default_context(cafile=certifi.where())


def proxy_for(address: str) -> str | None:
    """The proxy that the environment names for an address. Raises SourceFailed for one that is none
    for HTTP."""
    parts = urlsplit(address)
    return None if proxy_bypass(parts.hostname or "") else _proxy(parts.scheme)


def _proxy(scheme: str) -> str | None:
    """The proxy that the environment names for these addresses. Raises SourceFailed for one that is
    none for HTTP; it may hold a password."""
    named = getproxies()
    url = named.get(scheme) or named.get("all")
    if not url:
        return None
    url = url if "://" in url else f"http://{url}"
    kind, _, rest = url.partition("://")
    try:
        parts = urlsplit(f"{kind.lower()}://{rest}")
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        message = (
            f"the proxy for {scheme} in the environment ({scheme}_proxy or all_proxy) is no "
            "http or https address"
        )
        raise SourceFailed(message, hint="set no_proxy=* to use none")
    return parts.geturl()


def _proxy_headers(url: str) -> dict[str, str]:
    auth = urlsplit(url).netloc.rpartition("@")[0]
    return urllib3.make_headers(proxy_basic_auth=unquote(auth)) if auth else {}
