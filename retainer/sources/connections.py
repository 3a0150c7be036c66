"""Kept-alive HTTP connections, through the proxies and with the certificates that the environment names (urllib3)."""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import certifi
import urllib3

from retainer.errors import SourceFailed

logging.getLogger("urllib3").setLevel(logging.ERROR)  # below that it would log signed URLs

CONNECT_SECONDS = 10.0
STALL_SECONDS = 60.0
"""A connection that brings nothing for so long counts as broken."""


class Connections:
    """Asks. Safe to use from several threads."""

    def __init__(self) -> None:
        how = {
            "maxsize": 32, "timeout": urllib3.Timeout(connect=CONNECT_SECONDS, read=STALL_SECONDS), "retries": False, "ssl_context": _trusted(),
        }  # fmt: skip
        self._pool = urllib3.PoolManager(**how)  # type: ignore[arg-type]
        self._proxies = {
            scheme: urllib3.ProxyManager(url, proxy_headers=_proxy_headers(url), **how)  # type: ignore[arg-type]
            for scheme in ("http", "https") if (url := _proxy(scheme))
        }  # fmt: skip

    def close(self) -> None:
        for pool in (self._pool, *self._proxies.values()):
            pool.clear()

    def get(self, address: str, headers: Mapping[str, str], *, whole: bool) -> urllib3.BaseHTTPResponse:
        """The answer, its body read to the end and decoded, or yet to be read as it comes. A redirect is not followed.

        Raises ValueError for what is no HTTP address, urllib3's HTTPError when no answer comes, or not all of it.
        """
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("no http address")
        pool = self._proxies.get(parts.scheme, self._pool) if not proxy_bypass(parts.hostname) else self._pool
        fields = {"User-Agent": "retainer", **headers}
        return pool.request("GET", address, headers=fields, preload_content=whole, decode_content=whole, redirect=False)


def _trusted() -> ssl.SSLContext:
    """Trusts the authorities in SSL_CERT_FILE or SSL_CERT_DIR, where one of them is set, else certifi's."""
    if file := os.environ.get("SSL_CERT_FILE"):
        try:
            return ssl.create_default_context(cafile=file)
        except OSError as error:
            raise SourceFailed(f"SSL_CERT_FILE names no file of certificates that can be read ({type(error).__name__})") from None
    if folder := os.environ.get("SSL_CERT_DIR"):
        return ssl.create_default_context(capath=folder)
    return ssl.create_default_context(cafile=certifi.where())


def _proxy(scheme: str) -> str | None:
    """The proxy that the environment names for these addresses. Raises SourceFailed for one that is none for HTTP; it may hold a password."""
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
        message = f"the proxy for {scheme} in the environment ({scheme}_proxy or all_proxy) is no http or https address"
        raise SourceFailed(message, hint="set no_proxy=* to use none")
    return parts.geturl()


def _proxy_headers(url: str) -> dict[str, str]:
    auth = urlsplit(url).netloc.rpartition("@")[0]
    return urllib3.make_headers(proxy_basic_auth=unquote(auth)) if auth else {}
