"""What an HLS recording consists of: its playlists followed to their ends (RFC 8216), with a name for everything that they lead to."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote, urljoin, urlsplit

import m3u8

from retainer.errors import SourceFailed
from retainer.model.setting import MANIFEST

LONGEST_BYTES = 16 << 20
"""A playlist is at most so long."""
MOST_OBJECTS = 100_000
"""A recording is at most so many objects."""
_ATTRIBUTE = re.compile(r'(?<=[:,])(URI=")([^"]*)(")')
_HINTS = ("#EXT-X-PRELOAD-HINT:", "#EXT-X-RENDITION-REPORT:")


@dataclass(frozen=True, slots=True)
class Playlist:
    """A playlist as it is to be kept. `was`: the SHA-256 (hex) of what was read, where addresses in it had to become relative ones."""

    name: str
    content: bytes
    was: str | None = None


@dataclass(frozen=True, slots=True)
class Tree:
    """A recording's members, each with the address it is read from, by their names; its playlists, in the order they are written; and what
    lies beside it, which no playlist names."""

    members: dict[str, str]
    playlists: tuple[Playlist, ...]
    beside: dict[str, str]

    @property
    def entry(self) -> str:
        """The name of the playlist that a player begins with."""
        return self.playlists[-1].name

    @property
    def encrypted(self) -> bool:
        """Whether some of its members are encrypted as a whole, so that they do not begin as their names say."""
        return any(b"METHOD=AES-" in playlist.content for playlist in self.playlists)


@dataclass(frozen=True, slots=True)
class _Page:
    """A playlist as it was read: the URIs in it that lead to playlists, and those that lead to anything else."""

    content: bytes
    text: str
    is_master: bool
    playlists: tuple[str, ...]
    others: tuple[str, ...]


def follow(entry: str, read: Callable[[str], bytes], beside: Iterable[str] = ()) -> Tree:
    """Follow a recording's playlists from the address of the first one; `read` gives the bytes at an address.

    `beside`: addresses of more members, which no playlist names. Names are paths below the folder that holds everything.
    Raises SourceFailed for a playlist that is none, that has no end, that leads in a circle or to another host, and whatever `read` raises.
    """
    pages = {entry: _page(entry, read(entry))}
    for uri in pages[entry].playlists:
        address = _address(entry, uri)
        if address == entry:
            raise SourceFailed(f"{_short(entry)} leads back to itself: a loop of playlists")
        if address not in pages:
            pages[address] = _page(address, read(address))
            if pages[address].is_master:
                raise SourceFailed(f"{_short(entry)} leads to {_short(address)}, which leads to more playlists: a loop, or no HLS")
    members = dict.fromkeys(_address(page, uri) for page in pages for uri in pages[page].others)
    if circle := next((address for address in members if address in pages), None):
        raise SourceFailed(f"{_short(circle)} is named as a part of itself: a loop of playlists")
    if len(members) + len(pages) > MOST_OBJECTS:
        raise SourceFailed(f"its playlists name more than {MOST_OBJECTS:,} objects")
    others = [address for address in dict.fromkeys(beside) if address not in pages and address not in members]
    names = _names([*pages, *members, *others])
    in_order = [*(address for address in pages if address != entry), entry]
    playlists = tuple(_kept(address, pages[address], names) for address in in_order)
    return Tree({names[address]: address for address in members}, playlists, {names[address]: address for address in others})


def _page(address: str, content: bytes) -> _Page:
    if len(content) > LONGEST_BYTES:
        raise SourceFailed(f"{_short(address)} is longer than {LONGEST_BYTES >> 20} MiB: no playlist")
    try:
        text = content.decode("utf-8-sig")
        if not text.startswith("#EXTM3U"):
            raise ValueError
        parsed = m3u8.loads(text)
    except Exception:
        # The library raises whatever its parsing stumbled over.
        raise SourceFailed(f"{_short(address)} is no playlist", hint="look at the recording in the 100ms dashboard") from None
    lists = _given([*parsed.playlists, *parsed.media, *parsed.iframe_playlists, *parsed.image_playlists])
    segments = [*parsed.segments, *(part for segment in parsed.segments for part in segment.parts)]
    others = _given([*segments, *parsed.keys, *parsed.segment_map, *parsed.session_keys, *parsed.session_data])
    is_master = bool(parsed.is_variant or lists)
    if lists and parsed.segments:
        raise SourceFailed(f"{_short(address)} names playlists and segments, which no playlist may")
    if set(_all_uris(text)) - set(lists) - set(others):
        raise SourceFailed(f"{_short(address)} names something in a way that retainer does not understand", hint="please report this")
    if not is_master and not segments:
        raise SourceFailed(f"{_short(address)} names no segment", hint="look at the recording in the 100ms dashboard")
    if not is_master and not parsed.is_endlist:
        raise SourceFailed(f"{_short(address)} has no end: it is still being written, or was cut off", hint="plan and apply again later")
    return _Page(content, text, is_master, lists, tuple(uri for uri in others if not uri.startswith("data:")))


def _given(items: Sequence[object]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(uri for item in items if (uri := getattr(item, "uri", None))))


def _all_uris(text: str) -> list[str]:
    """Every URI that stands in a playlist, whatever it is for; a check on the library, whose silence would lose a part of a recording."""
    found: list[str] = []
    for line in map(str.strip, text.splitlines()):
        if line.startswith("#"):
            found += [uri for _, uri, _ in _ATTRIBUTE.findall(line) if not line.startswith(_HINTS)]
        elif line:
            found.append(line)
    return [uri for uri in found if uri]


def _address(page: str, uri: str) -> str:
    """Where a URI leads. Raises SourceFailed when that is not on the recording's own host."""
    try:
        address = urljoin(page, uri).partition("#")[0]
        here, there = urlsplit(page), urlsplit(address)
    except ValueError:
        raise SourceFailed(f"{_short(page)} has an address in it that is none") from None
    if (here.scheme, here.netloc) != (there.scheme, there.netloc):
        what = "a file on this machine" if there.scheme == "file" else f"another host ({there.scheme}://{there.hostname or ''})"
        raise SourceFailed(f"{_short(page)} leads to {what}, which is not followed", hint="look at the recording in the 100ms dashboard")
    return address


def _short(address: str) -> str:
    return f"the playlist {unquote(posixpath.basename(urlsplit(address).path))}"


def _names(addresses: Sequence[str]) -> dict[str, str]:
    """A path for each address below the folder that holds them all."""
    paths: dict[str, str] = {}
    for address in addresses:
        parts = urlsplit(address)
        path = unquote(parts.path)
        pieces = path.split("/")[1:]
        if any(piece in ("", ".", "..") or not piece.isprintable() or len(piece.encode()) > 200 for piece in pieces):
            raise SourceFailed(f"`{path[-80:]!r}` is no name that a store could keep")
        if posixpath.basename(path) == MANIFEST:
            path = posixpath.join(posixpath.dirname(path), f"_{MANIFEST}")
        if parts.query:
            stem, end = posixpath.splitext(path)
            path = f"{stem}-{hashlib.sha256(parts.query.encode()).hexdigest()[:12]}{end}"
        paths[address] = path
    root = posixpath.commonpath([posixpath.dirname(path) for path in paths.values()]).rstrip("/")
    return {address: path[len(root) + 1 :] for address, path in paths.items()}


def _kept(address: str, page: _Page, names: dict[str, str]) -> Playlist:
    """A playlist byte for byte, or, where it names something absolutely or with a query, with names that lead to the copies beside it."""
    folder = posixpath.dirname(names[address])

    def relative(uri: str) -> str:
        if uri.startswith("data:"):
            return uri
        name, parts = names[_address(address, uri)], urlsplit(uri)
        is_plain = not (parts.scheme or parts.netloc or parts.query or uri.startswith("/"))
        if is_plain and posixpath.normpath(posixpath.join(folder, unquote(parts.path))) == name:
            return uri
        return quote(posixpath.relpath(name, folder or "."))

    lines = []
    for line in page.text.splitlines(keepends=True):
        bare = line.strip()
        if bare.startswith("#") and not bare.startswith(_HINTS):
            line = _ATTRIBUTE.sub(lambda found: found[1] + relative(found[2]) + found[3], line)
        elif bare and not bare.startswith("#"):
            line = line.replace(bare, relative(bare))
        lines.append(line)
    text = "".join(lines)
    if text == page.text:
        return Playlist(names[address], page.content)
    return Playlist(names[address], text.encode(), hashlib.sha256(page.content).hexdigest())
