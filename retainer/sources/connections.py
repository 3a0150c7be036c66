"""Kept-alive HTTP connections, through the proxies and with the certificates that the environment
names (urllib3)."""

from __future__ import annotations

import logging
import os
import re
import socket
import ssl
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import certifi
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, ProtocolError

from retainer.errors import SourceFailed
from retainer.stop import Stop

logging.getLogger("urllib3").setLevel(logging.ERROR)  # below that it would log signed URLs

CONNECT_SECONDS = 10.0
STALL_SECONDS = 60.0
"""A connection that brings nothing for so long counts as broken."""
WHOLE_SECONDS = 120.0
"""An answer that is read whole is read within so long, whatever comes drop by drop."""


class Spent(Exception):
    """An answer took longer than anything may, or is longer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that was read whole and unpacked."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Connections:
    """Asks. Safe to use from several threads."""

    def __init__(self, stop: Stop) -> None:
        how = {
            "maxsize": 32,
            "timeout": urllib3.Timeout(connect=CONNECT_SECONDS, read=STALL_SECONDS),
            "retries": False,
            "ssl_context": _trusted(),
        }
        self._stop = stop
        self._pool = _timed(urllib3.PoolManager(**how))  # type: ignore[arg-type]
        self._proxies = {
            scheme: _timed(urllib3.ProxyManager(url, proxy_headers=_proxy_headers(url), **how))  # type: ignore[arg-type]
            for scheme in ("http", "https")
            if (url := _proxy(scheme))
        }

    def close(self) -> None:
        for pool in (self._pool, *self._proxies.values()):
            pool.clear()

    def get(self, address: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        """The answer, its body yet to be read as it comes. A redirect is not followed.

        Raises ValueError for what is no HTTP address, urllib3's HTTPError when no answer comes.
        """
        self._stop.check()
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or host_of(address) is None:
            raise ValueError("no http address")
        assert parts.hostname is not None
        pool = (
            self._proxies.get(parts.scheme, self._pool)
            if not proxy_bypass(parts.hostname)
            else self._pool
        )
        fields = {"User-Agent": "retainer", **headers}
        return pool.request(
            "GET",
            address,
            headers=fields,
            preload_content=False,
            decode_content=False,
            redirect=False,
        )

    def whole(self, address: str, headers: Mapping[str, str], most: int) -> Answer:
        """The answer, read to the end within two minutes, and unpacked to at most so many bytes.
        Raises as `get`, and Spent."""
        answer = self.get(address, {"Accept-Encoding": "gzip", **headers})
        try:
            with cut_after(answer, WHOLE_SECONDS) as cut:
                try:
                    content = b"".join(_pieces(answer, most))
                except HTTPError:
                    if cut.is_set():
                        raise Spent(f"an answer did not end within {WHOLE_SECONDS:.0f} s") from None
                    raise
            if answer.headers.get("Content-Encoding", "identity").strip().lower() in (
                "gzip",
                "x-gzip",
            ):
                content = _unpacked(content, most)
            if len(content) > most:
                raise Spent(f"an answer is longer than {most >> 20} MiB")
            return Answer(answer.status, answer.headers, content)
        finally:
            answer.release_conn()

    def goes_through_a_proxy(self, address: str) -> bool:
        parts = urlsplit(address)
        return parts.scheme in self._proxies and not proxy_bypass(parts.hostname or "")


class _Timed:
    """A connection whose answer must begin, with all of its head, within two minutes: one line of
    it, drop by drop, may take for ever."""

    sock: socket.socket | None

    def getresponse(self) -> Any:
        timer = threading.Timer(WHOLE_SECONDS, self._cut)
        timer.daemon = True
        timer.start()
        try:
            return super().getresponse()  # type: ignore[misc]
        finally:
            timer.cancel()

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


def _pieces(answer: urllib3.BaseHTTPResponse, most: int) -> Iterator[bytes]:
    """A body until one piece more than `most`; read to its very end, for only there urllib3 tells
    that it was cut off."""
    came = 0
    while came <= most and (piece := answer.read(1 << 20)):
        came += len(piece)
        yield piece


@contextmanager
def cut_after(answer: urllib3.BaseHTTPResponse, seconds: float) -> Iterator[threading.Event]:
    """While it lasts, a body that has not come within so long is cut off: it then ends in an
    HTTPError, and the event is set."""
    cut = threading.Event()

    def shut() -> None:
        cut.set()
        with suppress(Exception):  # it may have ended at this moment
            answer.shutdown()

    timer = threading.Timer(seconds, shut)
    timer.daemon = True
    timer.start()
    try:
        yield cut
    finally:
        timer.cancel()


def _unpacked(content: bytes, most: int) -> bytes:
    """Unpack gzip. Raises Spent for what would be longer than `most`, ProtocolError for what is cut
    off or no gzip."""
    unpacker = zlib.decompressobj(31)
    try:
        unpacked = unpacker.decompress(content, most + 1)
    except zlib.error:
        raise ProtocolError("no gzip") from None
    if len(unpacked) > most:
        raise Spent(f"an answer is longer than {most >> 20} MiB once it is unpacked")
    if not unpacker.eof:
        raise ProtocolError("cut off")
    return unpacked


def host_of(address: str) -> str | None:
    """The host that an address leads to; None where readers of addresses differ in that, as over a
    backslash, and so where nothing is asked."""
    if re.search(r"[\\\s\x00-\x1f\x7f]", address):
        return None
    try:
        one, other = urlsplit(address).hostname, urllib3.util.parse_url(address).host
    except (ValueError, HTTPError):
        return None
    return one if one and other and one.strip("[]").lower() == other.strip("[]").lower() else None


def is_local(address: str) -> bool:
    """Whether an address leads to this machine or a private network, by name, number or what its
    name stands for."""
    host = host_of(address)
    if host is None:
        return False
    try:
        numbers = [ip_address(host)]
    except ValueError:
        try:
            numbers = [
                ip_address(str(found[4][0]).partition("%")[0])
                for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            ]
        except (OSError, UnicodeError):
            return False  # nobody knows it, so nothing will be reached there
    return any(not number.is_global for number in numbers)


def _trusted() -> ssl.SSLContext:
    """Trusts the authorities in SSL_CERT_FILE or SSL_CERT_DIR, where one of them is set, else
    certifi's."""
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
