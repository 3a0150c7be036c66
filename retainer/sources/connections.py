"""Connections for the bytes of recordings, and where an address leads."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from retainer.stop import Stop
from retainer.wire import Pools

logging.getLogger("urllib3").setLevel(logging.ERROR)  # below that it would log signed URLs

CONNECT_SECONDS = 10.0
STALL_SECONDS = 60.0
"""A connection that brings nothing for so long counts as broken."""


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

    def goes_through_a_proxy(self, address: str) -> bool:
        return self._pools.goes_through_a_proxy(address)


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
    every = [each for number in numbers for each in (number, *_within(number))]
    return any(not each.is_global or getattr(each, "is_site_local", False) for each in every)


_TRANSLATED = tuple(map(IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "::/96")))
"""The last 32 bits of these name an IPv4 address (RFC 6052, 8215, 4291)."""


def _within(number: IPv4Address | IPv6Address) -> list[IPv4Address]:
    """The IPv4 address that an IPv6 address stands for, where it does."""
    if isinstance(number, IPv4Address):
        return []
    found = [number.ipv4_mapped, number.sixtofour]
    if any(number in network for network in _TRANSLATED):
        found.append(IPv4Address(int(number) & 0xFFFFFFFF))
    return [each for each in found if each is not None]
