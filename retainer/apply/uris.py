"""One playlist: every URI in it by its place, and what it says of itself (RFC 8216). Whatever else
stands in its tags is nobody's to judge (6.3.1: clients ignore what they do not know)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from urllib.parse import parse_qs, urlsplit


class Role(Enum):
    """What a URI leads to."""

    PLAYLIST = "another playlist"
    SEGMENT = "media"
    DATA = "a key or session data: whatever comes"
    HINT = "what comes next in a live stream, or is played in between: no part of the recording"
    NEVER = "what no client fetches"


@dataclass(frozen=True, slots=True)
class Uri:
    """A URI and its place in a playlist's text; `text`: with its variables put in."""

    start: int
    end: int
    text: str
    role: Role


@dataclass(frozen=True, slots=True)
class Page:
    """A playlist as it was read. `first`: the number of its first segment; `odd`: what speaks
    against its being whole."""

    text: str
    uris: tuple[Uri, ...]
    is_master: bool
    ended: bool
    first: int = 0
    odd: tuple[str, ...] = ()
    defined: Mapping[str, str] = field(default_factory=dict)

    def named(self, *roles: Role) -> tuple[str, ...]:
        """The URIs of these roles, each once."""
        return tuple(dict.fromkeys(uri.text for uri in self.uris if uri.role in roles))


_TAG = re.compile(r"#(EXT[A-Za-z0-9-]*)(?::(.*))?", re.DOTALL | re.IGNORECASE)
_ATTRIBUTE = re.compile(r'[ \t]*([A-Za-z0-9_-]+)[ \t]*=[ \t]*+(?:"([^"]*)"|([^,"]*+))[ \t]*(?:,|$)')
"""One of an attribute list, as players read it: blanks around it, and quotes that may be
missing."""
_NAMES_ADDRESS = re.compile(r"(?i)(^|-)URI$|^X-ASSET-LIST$")
_MAY_NAME_ADDRESS = re.compile(r"(?i)(URI|X-ASSET-LIST)[ \t]*=")
_LISTS = ("EXT-X-MEDIA", "EXT-X-I-FRAME-STREAM-INF", "EXT-X-IMAGE-STREAM-INF")
_KEYS = ("EXT-X-KEY", "EXT-X-SESSION-KEY")
_HINTS = (
    "EXT-X-PRELOAD-HINT",
    "EXT-X-RENDITION-REPORT",
    "EXT-X-CONTENT-STEERING",
    "EXT-X-DATERANGE",
)
_NO_LIST = ("EXTINF", "EXT-X-PROGRAM-DATE-TIME", "EXT-X-BYTERANGE")
_VARIABLE = re.compile(r"\{\$([A-Za-z0-9_-]+)\}")
_SCHEME = re.compile(r"(?i)(urn|data|skd|[a-z][a-z0-9+.-]*(?=://)):")
LONGEST_URI = 16 << 10
"""What variables are put into is at most so much longer for it."""
LINE_ENDS = re.compile("(\r\n|\r|\n)")
BLANKS = " \t\ufeff"
"""Python takes more for blanks and for ends of lines than HLS does."""


def page_of(text: str, address: str, above: Mapping[str, str]) -> Page | None:
    """What a playlist's text says; None where it is none. `above`: the variables of the playlist
    that leads to it."""
    if not text.lstrip(BLANKS + "\r\n").startswith("#EXTM3U"):
        return None
    reader = _Reader(address, above)
    for start, line in lines_of(text):
        reader.read(start, line)
    return reader.page(text)


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """Each line, without its end, and where it begins."""
    start = 0
    for line in LINE_ENDS.split(text):
        yield start, line
        start += len(line)


class _Reader:
    """Reads line by line."""

    def __init__(self, address: str, above: Mapping[str, str]) -> None:
        self._address, self._above = address, above
        self._uris: list[tuple[str, Uri]] = []
        self._defined: dict[str, str] = {}
        self._leads_on = self._gap = self._ended = self._lists = self._segments = False
        self._first = 0
        self._odd: list[str] = []
        self._last_segment = -1

    def read(self, start: int, line: str) -> None:
        bare = line.strip(BLANKS + "\r\n")
        tag = _TAG.fullmatch(bare)
        if tag is not None:
            self._tag(tag[1].upper(), tag[2] or "", start + line.index(bare) + tag.start(2))
        elif bare and not bare.startswith("#"):
            begin = start + line.index(bare)
            role = Role.PLAYLIST if self._leads_on else Role.SEGMENT
            if role is Role.SEGMENT:
                self._last_segment = begin
                self._parts_are_no_part()
                role = Role.NEVER if self._gap else role
            self._add("", begin, bare, role)
            self._gap = self._leads_on = False

    def _tag(self, name: str, listed: str, at: int) -> None:
        match name:
            case "EXT-X-ENDLIST":
                self._ended = True
            case "EXT-X-GAP":
                self._gap = True
            case "EXTINF":
                self._segments = True
            case "EXT-X-STREAM-INF":
                self._lists = self._leads_on = True
            case "EXT-X-MEDIA-SEQUENCE":
                number = listed.strip()
                self._first = (
                    int(number) if number.isascii() and number.isdigit() and len(number) < 20 else 0
                )
            case "EXT-X-DEFINE":
                self._define(listed)
            case "EXT-X-SKIP":
                self._odd.append("leaves out what an earlier one had (EXT-X-SKIP)")
        self._lists = self._lists or name in _LISTS
        if name not in _NO_LIST and _MAY_NAME_ADDRESS.search(listed):
            self._addresses_in(name, listed, at)

    def _addresses_in(self, name: str, listed: str, at: int) -> None:
        found = _attributes(listed)
        if found is None:
            self._odd.append("names something in a way that retainer does not understand")
            return
        is_gap = any(key.upper() == "GAP" and value == "YES" for key, value, _ in found)
        for key, value, begin in found:
            if _NAMES_ADDRESS.search(key) and value:
                self._add(name, at + begin, value, Role.NEVER if is_gap else _role_of(name))

    def _add(self, tag: str, begin: int, raw: str, role: Role) -> None:
        text = raw
        if sum(len(self._defined.get(name, "")) for name in _VARIABLE.findall(raw)) < LONGEST_URI:
            text = _VARIABLE.sub(lambda found: self._defined.get(found[1], found[0]), raw)
        scheme = _SCHEME.match(text)
        if role in (Role.SEGMENT, Role.DATA) and scheme is not None:
            told = scheme[1].lower()
            if told in ("urn", "data", "skd") or (tag in _KEYS and told not in ("http", "https")):
                role = Role.NEVER
        if _VARIABLE.search(text):
            self._odd.append(
                "names something by a variable that nothing defines, or that is too long"
            )
            role = Role.NEVER
        self._uris.append((tag, Uri(begin, begin + len(raw), text, role)))

    def _define(self, listed: str) -> None:
        told = {key.upper(): value for key, value, _ in _attributes(listed) or ()}
        if "NAME" in told:
            self._defined[told["NAME"]] = told.get("VALUE", "")
        elif (name := told.get("IMPORT")) is not None and name in self._above:
            self._defined[name] = self._above[name]
        elif (name := told.get("QUERYPARAM")) is not None:
            values = parse_qs(urlsplit(self._address).query).get(name)
            if values:
                self._defined[name] = values[0]

    def _parts_are_no_part(self) -> None:
        """The parts of a segment, which has all that they have."""
        for number in range(len(self._uris) - 1, -1, -1):
            tag, uri = self._uris[number]
            if not tag:
                break
            if tag == "EXT-X-PART" and uri.role is Role.SEGMENT:
                self._uris[number] = (tag, replace(uri, role=Role.HINT))

    def page(self, text: str) -> Page:
        used = {uri.text for _, uri in self._uris if uri.start < self._last_segment}
        parts = [uri.start for tag, uri in self._uris if tag == "EXT-X-PART"]
        last = max([self._last_segment, *parts])
        uris = tuple(
            replace(uri, role=Role.NEVER)
            if tag in ("EXT-X-MAP", "EXT-X-KEY") and uri.start > last and uri.text not in used
            else uri
            for tag, uri in self._uris
        )
        is_master = self._lists and not self._segments
        odd = list(dict.fromkeys(self._odd))
        if not is_master and not any(uri.role in (Role.SEGMENT, Role.NEVER) for uri in uris):
            odd.append("names no segment")
        return Page(
            text,
            uris,
            is_master,
            self._ended,
            self._first,
            tuple(odd),
            {**self._above, **self._defined},
        )


def _role_of(tag: str) -> Role:
    if tag in _HINTS:
        return Role.HINT
    if tag in _LISTS:
        return Role.PLAYLIST
    return Role.DATA if tag in (*_KEYS, "EXT-X-SESSION-DATA") else Role.SEGMENT


def _attributes(listed: str) -> list[tuple[str, str, int]] | None:
    """The names and values of an attribute list, and where each value begins; None where it is
    none."""
    found, at = [], 0
    while at < len(listed):
        each = _ATTRIBUTE.match(listed, at)
        if each is None:
            return None
        group = 2 if each[2] is not None else 3
        found.append((each[1], each[group].rstrip(" \t"), each.start(group)))
        at = each.end()
    return found
