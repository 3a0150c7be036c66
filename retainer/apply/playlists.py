"""What an HLS recording consists of: its playlists followed to their ends (RFC 8216), with a name
for everything that they lead to."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote, urljoin, urlsplit

import m3u8

from retainer.errors import SourceFailed
from retainer.model.setting import MANIFEST

LONGEST_BYTES = 16 << 20
"""A playlist is at most so long."""
MOST_OBJECTS = 100_000
"""A recording is at most so many objects."""
_ATTRIBUTE = re.compile(r'[ \t]*([A-Za-z0-9_-]+)[ \t]*=[ \t]*(?:"([^"]*)"|([^,"]*?))[ \t]*(?:,|$)')
"""One of an attribute list, as players read it: blanks around it, and quotes that may be
missing."""
_TAG = re.compile(r"#(EXT[A-Za-z0-9-]*):(.*)", re.DOTALL | re.IGNORECASE)
_LISTS = ("EXT-X-MEDIA", "EXT-X-I-FRAME-STREAM-INF", "EXT-X-IMAGE-STREAM-INF")
_HINTS = (
    "EXT-X-PRELOAD-HINT",
    "EXT-X-RENDITION-REPORT",
    "EXT-X-CONTENT-STEERING",
    "EXT-X-DATERANGE",
)
"""What comes next in a live stream, which server to prefer, what to play in between: their
addresses are no part of the recording, and in a copy they would lead away from it."""
_NO_LIST = ("EXTINF", "EXT-X-PROGRAM-DATE-TIME", "EXT-X-BYTERANGE")
_NAMES_ADDRESS = re.compile(r"(?i)(^|-)URI$|^X-ASSET-LIST$")
_LINE_ENDS = re.compile("(\r\n|\r|\n)")
_OTHER_ENDS = re.compile("[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
"""What Python takes for the end of a line, and HLS does not."""


@dataclass(frozen=True, slots=True)
class Playlist:
    """A playlist as it is to be kept. `was`: the SHA-256 (hex) of what was read, where addresses in
    it had to become relative ones."""

    name: str
    content: bytes
    was: str | None = None


@dataclass(frozen=True, slots=True)
class Tree:
    """A recording's members, each with the address it is read from, by their names; its playlists,
    in the order they are written; and what lies beside it, which no playlist names."""

    members: dict[str, str]
    playlists: tuple[Playlist, ...]
    beside: dict[str, str]

    @property
    def entry(self) -> str:
        """The name of the playlist that a player begins with."""
        return self.playlists[-1].name

    @property
    def encrypted(self) -> bool:
        """Whether some of its members are encrypted as a whole, so that they do not begin as their
        names say."""
        return any(b"METHOD=AES-" in playlist.content for playlist in self.playlists)


@dataclass(frozen=True, slots=True)
class _Uri:
    """A URI and its place in a playlist's text; `kind`: playlist, other, or hint."""

    start: int
    end: int
    text: str
    kind: str


@dataclass(frozen=True, slots=True)
class _Page:
    """A playlist as it was read, with every URI in it by its place: what is followed is what is
    rewritten."""

    content: bytes
    text: str
    is_master: bool
    uris: tuple[_Uri, ...]

    def named(self, kind: str) -> tuple[str, ...]:
        """The URIs of one kind that lead to something."""
        return tuple(
            dict.fromkeys(
                uri.text
                for uri in self.uris
                if uri.kind == kind and not uri.text.startswith("data:")
            )
        )


def follow(entry: str, read: Callable[[str], bytes], beside: Iterable[str] = ()) -> Tree:
    """Follow a recording's playlists from the address of the first one; `read` gives the bytes at
    an address.

    `beside`: addresses of more members, which no playlist names. Names are paths below the folder
    that holds everything. Raises SourceFailed for a playlist that is none, that has no end, that
    leads in a circle or to another host, and whatever `read` raises.
    """
    pages = {entry: _page(entry, read(entry))}
    for uri in pages[entry].named("playlist"):
        address = _address(entry, uri)
        if address == entry:
            raise SourceFailed(f"{_short(entry)} leads back to itself: a loop of playlists")
        if address not in pages:
            pages[address] = _page(address, read(address))
            if pages[address].is_master:
                raise SourceFailed(
                    f"{_short(entry)} leads to {_short(address)}, which leads to more playlists: a "
                    "loop, or no HLS"
                )
    members = dict.fromkeys(
        _address(page, uri) for page in pages for uri in pages[page].named("other")
    )
    if circle := next((address for address in members if address in pages), None):
        raise SourceFailed(f"{_short(circle)} is named as a part of itself: a loop of playlists")
    if len(members) + len(pages) > MOST_OBJECTS:
        raise SourceFailed(f"its playlists name more than {MOST_OBJECTS:,} objects")
    others = [
        address
        for address in dict.fromkeys(beside)
        if address not in pages and address not in members
    ]
    names = _names([*pages, *members, *others])
    in_order = [*(address for address in pages if address != entry), entry]
    playlists = tuple(_kept(address, pages[address], names) for address in in_order)
    return Tree(
        {names[address]: address for address in members},
        playlists,
        {names[address]: address for address in others},
    )


def _page(address: str, content: bytes) -> _Page:
    if len(content) > LONGEST_BYTES:
        raise SourceFailed(
            f"{_short(address)} is longer than {LONGEST_BYTES >> 20} MiB: no playlist"
        )
    try:
        text = content.decode("utf-8-sig")
        if not text.startswith("#EXTM3U"):
            raise ValueError
        parsed = m3u8.loads(_OTHER_ENDS.sub(" ", text))
    except Exception:
        # The library raises whatever its parsing stumbled over.
        raise SourceFailed(
            f"{_short(address)} is no playlist", hint="look at the recording in the 100ms dashboard"
        ) from None
    if "#EXT-X-SKIP" in text.upper():
        raise SourceFailed(
            f"{_short(address)} leaves out what an earlier one had (EXT-X-SKIP)",
            hint="plan and apply again later",
        )
    lists = _given(
        [*parsed.playlists, *parsed.media, *parsed.iframe_playlists, *parsed.image_playlists]
    )
    segments = [*parsed.segments, *(part for segment in parsed.segments for part in segment.parts)]
    others = _given(
        [*segments, *parsed.keys, *parsed.segment_map, *parsed.session_keys, *parsed.session_data]
    )
    is_master = bool(parsed.is_variant or lists)
    if lists and parsed.segments:
        raise SourceFailed(f"{_short(address)} names playlists and segments, which no playlist may")
    odd = f"{_short(address)} names something in a way that retainer does not understand"
    try:
        uris = tuple(_uris(text))
    except ValueError:
        raise SourceFailed(odd, hint="please report this") from None
    # The library reads playlists as well, so that what our reader overlooked, or takes for
    # something else, is noticed.
    ours = {kind: {uri.text for uri in uris if uri.kind == kind} for kind in ("playlist", "other")}
    if (
        set(lists) - ours["playlist"]
        or set(others) - ours["other"]
        or any("{$" in uri.text for uri in uris)
    ):
        raise SourceFailed(odd, hint="please report this")
    if not is_master and not segments:
        raise SourceFailed(
            f"{_short(address)} names no segment",
            hint="look at the recording in the 100ms dashboard",
        )
    if not is_master and not parsed.is_endlist:
        raise SourceFailed(
            f"{_short(address)} has no end: it is still being written, or was cut off",
            hint="plan and apply again later",
        )
    return _Page(content, text, is_master, uris)


def _given(items: Sequence[object]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(uri for item in items if (uri := getattr(item, "uri", None))))


def _uris(text: str) -> Iterator[_Uri]:
    """Every URI of a playlist, by its place. Raises ValueError where a line names one in a way that
    no attribute list has."""
    start, of_playlist = 0, False
    for line in _LINE_ENDS.split(text):
        bare = line.strip()
        tag = _TAG.fullmatch(line.rstrip())
        if tag is not None and tag[1].upper() not in _NO_LIST:
            yield from _in_attributes(tag, start)
            of_playlist = of_playlist or tag[1].upper() == "EXT-X-STREAM-INF"
        elif bare and not bare.startswith("#"):
            begin = start + line.index(bare)
            yield _Uri(begin, begin + len(bare), bare, "playlist" if of_playlist else "other")
            of_playlist = False
        start += len(line)


def _in_attributes(tag: re.Match[str], start: int) -> Iterator[_Uri]:
    name, listed, at = tag[1].upper(), tag[2], 0
    if not re.search(r"(?i)(URI|X-ASSET-LIST)[ \t]*=", listed):
        return
    while at < len(listed):
        found = _ATTRIBUTE.match(listed, at)
        if found is None:
            raise ValueError
        if _NAMES_ADDRESS.search(found[1]):
            group = 2 if found[2] is not None else 3
            begin = start + tag.start(2)
            kind = "hint" if name in _HINTS else "playlist" if name in _LISTS else "other"
            if found[group]:
                yield _Uri(begin + found.start(group), begin + found.end(group), found[group], kind)
        at = found.end()


def _address(page: str, uri: str) -> str:
    """Where a URI leads. Raises SourceFailed when that is not on the recording's own host."""
    try:
        address = urljoin(page, uri).partition("#")[0]
        here, there = urlsplit(page), urlsplit(address)
    except ValueError:
        raise SourceFailed(f"{_short(page)} has an address in it that is none") from None
    if (here.scheme, here.netloc) != (there.scheme, there.netloc):
        what = (
            "a file on this machine"
            if there.scheme == "file"
            else f"another host ({there.scheme}://{there.hostname or ''})"
        )
        raise SourceFailed(
            f"{_short(page)} leads to {what}, which is not followed",
            hint="look at the recording in the 100ms dashboard",
        )
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
        if any(
            piece in ("", ".", "..") or not piece.isprintable() or len(piece.encode()) > 200
            for piece in pieces
        ):
            raise SourceFailed(f"`{path[-80:]!r}` is no name that a store could keep")
        if posixpath.basename(path) == MANIFEST:
            path = posixpath.join(posixpath.dirname(path), f"_{MANIFEST}")
        if parts.query:
            stem, end = posixpath.splitext(path)
            path = f"{stem}-{hashlib.sha256(parts.query.encode()).hexdigest()[:12]}{end}"
        paths[address] = path
    if len(set(paths.values())) < len(paths):
        raise SourceFailed(
            "two of its objects would have one name in a copy", hint="please report this"
        )
    root = posixpath.commonpath([posixpath.dirname(path) for path in paths.values()]).rstrip("/")
    return {address: path[len(root) + 1 :] for address, path in paths.items()}


def _kept(address: str, page: _Page, names: dict[str, str]) -> Playlist:
    """A playlist byte for byte, or, where it names something absolutely or with a query, with names
    that lead to the copies beside it.

    Raises SourceFailed unless every URI of what is kept leads to something that is kept.
    """
    folder = posixpath.dirname(names[address])

    def relative(uri: str) -> str:
        name, parts = names[_address(address, uri)], urlsplit(uri)
        is_plain = not (parts.scheme or parts.netloc or parts.query or uri.startswith("/"))
        if is_plain and posixpath.normpath(posixpath.join(folder, unquote(parts.path))) == name:
            return uri
        return quote(posixpath.relpath(name, folder or "."))

    pieces, at = [], 0
    for uri in page.uris:
        if uri.kind != "hint" and not uri.text.startswith("data:"):
            pieces += [page.text[at : uri.start], relative(uri.text)]
            at = uri.end
    text = _without_hints("".join([*pieces, page.text[at:]]))
    _leads_to_itself(address, text, folder, set(names.values()))
    if text == page.text:
        return Playlist(names[address], page.content)
    return Playlist(names[address], text.encode(), hashlib.sha256(page.content).hexdigest())


def _without_hints(text: str) -> str:
    """The text without the lines of hints that name an address."""
    parts = _LINE_ENDS.split(text)
    kept = []
    for line, end in zip(parts[::2], [*parts[1::2], ""], strict=True):
        tag = _TAG.fullmatch(line.rstrip())
        if tag is None or tag[1].upper() not in _HINTS or not any(_in_attributes(tag, 0)):
            kept.append(line + end)
    return "".join(kept)


def _leads_to_itself(address: str, text: str, folder: str, kept: set[str]) -> None:
    """Read once more what is to be kept, as a player will: each URI must lead to a part of the
    copy."""
    for uri in _uris(text):
        parts = urlsplit(uri.text)
        name = posixpath.normpath(posixpath.join(folder, unquote(parts.path)))
        if parts.scheme != "data" and (
            parts.scheme or parts.netloc or parts.query or name not in kept
        ):
            raise SourceFailed(
                f"a copy of {_short(address)} would lead to something that is no part of it",
                hint="please report this",
            )
