"""Addresses as HTTP has them: whose they are, and where a reference in one leads (RFC 3986)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from urllib.parse import quote, urlsplit

_PORTS = {"http": 80, "https": 443}
_SAFE = "!$&'()*+,;=:@/?%-._~[]"


def origin_of(address: str) -> tuple[str, str, int | None]:
    """Scheme, host and port, in one form. Raises ValueError for what is no address."""
    parts = urlsplit(address)
    scheme, user = parts.scheme.lower(), parts.netloc.rpartition("@")[0]
    host = (parts.hostname or "").rstrip(".")
    return scheme, f"{user}@{host}" if user else host, parts.port or _PORTS.get(scheme)


def may_lead(page: str, address: str, hosts: Sequence[str] = ()) -> bool:
    """Whether what lies at one address may lead to another: on the same server, or by the same
    scheme or https to a host that one of these patterns fits."""
    try:
        (scheme, here, port), (to_scheme, there, to_port) = origin_of(page), origin_of(address)
    except ValueError:
        return False
    if (scheme, here, port) == (to_scheme, there, to_port):
        return True
    safe = to_scheme == "https" or to_scheme == scheme == "http"
    return safe and any(fnmatchcase(there, pattern.lower()) for pattern in hosts)


def joined(base: str, uri: str) -> str | None:
    """Where a reference in what lies at `base` leads, without its fragment and with its letters
    quoted; None where that is no address. The base's own path stays as it is, since a store may
    have a key with `//` or `..` in it."""
    uri = quote(uri.partition("#")[0].encode("utf-8", "surrogateescape"), safe=_SAFE)
    try:
        at = urlsplit(base)
        scheme = urlsplit(uri).scheme if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", uri) else ""
        if scheme and ("://" in uri or scheme in ("urn", "data", "skd")):
            found = uri
        elif uri.startswith("//"):
            found = f"{at.scheme}:{uri}"
        elif uri.startswith("/"):
            found = f"{at.scheme}://{at.netloc}{_without_dots('', uri)}"
        elif uri.startswith("?"):
            found = f"{at.scheme}://{at.netloc}{at.path}{uri}"
        elif not uri:
            found = base.partition("#")[0]
        else:
            folder = at.path.rpartition("/")[0]
            found = f"{at.scheme}://{at.netloc}{_without_dots(folder, f'/{uri}')}"
        origin_of(found)
    except ValueError:
        return None
    return found


def _without_dots(folder: str, rest: str) -> str:
    """A path below a folder, with the `.` and `..` of the rest taken out."""
    path, mark, query = rest.partition("?")
    pieces = folder.split("/") if folder else [""]
    steps = path.split("/")[1:]
    for step in steps:
        if step == "..":
            if len(pieces) > 1:
                pieces.pop()
        elif step != ".":
            pieces.append(step)
    if steps[-1] in (".", ".."):
        pieces.append("")
    return "/".join(pieces) + mark + query
