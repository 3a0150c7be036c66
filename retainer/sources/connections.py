"""Whole answers of 100ms, of a bounded length and within a bounded time; where addresses lead."""

from __future__ import annotations

import logging
import re
import socket
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError, ProtocolError

from retainer.stop import Stop
from retainer.wire import WHOLE_SECONDS, Pools, cut_after

logging.getLogger("urllib3").setLevel(logging.ERROR)  # below that it would log signed URLs

CONNECT_SECONDS = 10.0
STALL_SECONDS = 60.0
"""A connection that brings nothing for so long counts as broken."""


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
        self._stop = stop
        self._pools = Pools(connect=CONNECT_SECONDS, read=STALL_SECONDS)

    def close(self) -> None:
        self._pools.close()

    def get(self, address: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        """The answer, its body yet to be read as it comes. A redirect is not followed.

        Raises ValueError for what is no HTTP address, urllib3's HTTPError when no answer comes.
        """
        self._stop.check()
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or host_of(address) is None:
            raise ValueError("no http address")
        return self._pools.open("GET", address, {"User-Agent": "retainer", **headers})

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
        return self._pools.goes_through_a_proxy(address)


def _pieces(answer: urllib3.BaseHTTPResponse, most: int) -> Iterator[bytes]:
    """A body until one piece more than `most`; read to its very end, for only there urllib3 tells
    that it was cut off."""
    came = 0
    while came <= most and (piece := answer.read(1 << 20)):
        came += len(piece)
        yield piece


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
