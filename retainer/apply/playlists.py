"""What an HLS recording consists of: its playlists followed to their ends (RFC 8216), with a name
for everything that they lead to."""

from __future__ import annotations

import hashlib
import posixpath
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from retainer.apply.uris import LINE_ENDS, Page, Role, lines_of, page_of
from retainer.errors import SourceFailed
from retainer.model.address import joined, may_lead, origin_of
from retainer.model.setting import MANIFEST

LONGEST_BYTES = 16 << 20
"""A playlist is at most so long."""
MOST_OBJECTS = 100_000
"""A recording is at most so many objects."""
LONGEST_TOGETHER = 256 << 20
"""All playlists of a recording have at most so many bytes."""
LONGEST_PIECE = 200
"""A piece of a name has at most so many bytes."""
_MEMBERS = (Role.SEGMENT, Role.DATA)


class Unreadable(Exception):
    """A part of a recording cannot be had; its text says why. What can be had is kept without
    it."""


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
    in the order they are written; and what lies beside it, which no playlist names.

    `opaque`: the names of members that may be any bytes. `missing`: names of what cannot be had,
    and why; `odd`: what else speaks against its being whole; `unneeded`: names that no client
    fetches; `said`: what a person should know.
    """

    members: dict[str, str]
    playlists: tuple[Playlist, ...]
    beside: dict[str, str]
    opaque: frozenset[str] = frozenset()
    missing: Mapping[str, str] = field(default_factory=dict)
    odd: tuple[str, ...] = ()
    unneeded: tuple[str, ...] = ()
    said: tuple[str, ...] = ()

    @property
    def entry(self) -> str:
        """The name of the playlist that a player begins with."""
        return self.playlists[-1].name

    @property
    def encrypted(self) -> bool:
        """Whether some of its members are encrypted as a whole, so that they do not begin as their
        names say."""
        return any(b"METHOD=AES-" in playlist.content for playlist in self.playlists)


def follow(
    entry: str,
    read: Callable[[str], bytes],
    beside: Iterable[str] = (),
    *,
    may_lead: Callable[[str, str], bool] = may_lead,
    still_written: bool = False,
    in_store: bool = False,
) -> Tree:
    """Follow a recording's playlists from the address of the first one; `read` gives the bytes at
    an address, or raises Unreadable.

    `beside`: addresses of more members, which no playlist names. `may_lead`: whether one address
    may lead to another. `still_written`: a playlist without an end may get one, and is waited for.
    `in_store`: it lies in a store, whose keys know no queries.
    Names are paths below the folder that holds everything. Raises SourceFailed where the first
    playlist is none, for a loop, where nothing can be had at all, and whatever else `read` raises.
    """
    walk = _Walk(entry, read, may_lead, still_written=still_written, in_store=in_store)
    return walk.tree(beside)


class _Walk:
    def __init__(
        self,
        entry: str,
        read: Callable[[str], bytes],
        may_lead: Callable[[str, str], bool],
        *,
        still_written: bool,
        in_store: bool,
    ) -> None:
        self._entry, self._read, self._may_lead = entry, read, may_lead
        self._still_written, self._in_store = still_written, in_store
        self._pages: dict[str, Page] = {}
        self._contents: dict[str, bytes] = {}
        self._length = 0
        self._missing: dict[str, str] = {}
        self._odd: list[str] = []
        self._said: list[str] = []

    def tree(self, beside: Iterable[str]) -> Tree:
        entry, pages = self._entry, self._pages
        try:
            self._open(entry, {})
        except Unreadable as error:
            raise SourceFailed(
                str(error), hint="look at the recording in the 100ms dashboard"
            ) from None
        for uri in pages[entry].named(Role.PLAYLIST):
            self._variant(uri)
        members = self._members()
        if circle := next((address for address in members if address in pages), None):
            said = f"{_short(circle)} is named as a part of itself: a loop of playlists"
            raise SourceFailed(said)
        if not members:
            why = [*self._missing.values(), *self._odd, f"{_short(entry)} names no segment"][0]
            raise SourceFailed(why, hint="look at the recording in the 100ms dashboard")
        if len(members) + len(pages) > MOST_OBJECTS:
            raise SourceFailed(f"its playlists name more than {MOST_OBJECTS:,} objects")
        others = [
            address
            for address in dict.fromkeys(beside)
            if address not in pages and address not in members
        ]
        unneeded = self._unneeded(members)
        here = [address for address in unneeded if may_lead(entry, address)]
        names = names_of([*pages, *members, *others, *self._missing, *here], entry)
        in_order = [*(address for address in pages if address != entry), entry]
        return Tree(
            {names[address]: address for address in members},
            tuple(self._kept(address, names) for address in in_order),
            {names[address]: address for address in others},
            frozenset(names[address] for address, role in members.items() if role is Role.DATA),
            {names[address]: why for address, why in self._missing.items()},
            tuple(dict.fromkeys(self._odd)),
            tuple(dict.fromkeys(names.get(address, address) for address in unneeded)),
            tuple(dict.fromkeys(self._said)),
        )

    def _open(self, address: str, above: Mapping[str, str]) -> None:
        """Read a playlist. Raises Unreadable where it is none."""
        content = self._read(address)
        if len(content) > LONGEST_BYTES:
            raise Unreadable(
                f"{_short(address)} is longer than {LONGEST_BYTES >> 20} MiB: no playlist"
            )
        page = page_of(content.decode("utf-8", "surrogateescape"), address, above)
        if page is None:
            raise Unreadable(f"{_short(address)} is no playlist")
        if not page.is_master and not page.ended:
            said = f"{_short(address)} has no end: it is still being written, or was cut off"
            if self._still_written:
                raise SourceFailed(said, hint="plan and apply again later")
            self._odd.append(said)
        if page.first and not page.is_master:
            self._said.append(
                f"{_short(address)} begins with segment {page.first}: what came before is not in it"
            )
        self._odd += [f"{_short(address)} {why}" for why in page.odd]
        self._pages[address], self._contents[address] = page, content
        self._length += len(content)
        if self._length > LONGEST_TOGETHER:
            raise SourceFailed(
                f"its playlists are longer than {LONGEST_TOGETHER >> 20} MiB together"
            )

    def _variant(self, uri: str) -> None:
        entry = self._entry
        address = self._led_to(entry, uri)
        if address == entry:
            raise SourceFailed(f"{_short(entry)} leads back to itself: a loop of playlists")
        if address is None or address in self._pages or address in self._missing:
            return
        try:
            self._open(address, self._pages[entry].defined)
        except Unreadable as error:
            self._missing[address] = str(error)
            return
        if self._pages[address].is_master:
            raise SourceFailed(
                f"{_short(entry)} leads to {_short(address)}, which leads to more playlists: a "
                "loop, or no HLS"
            )

    def _members(self) -> dict[str, Role]:
        found: dict[str, Role] = {}
        for page, read in self._pages.items():
            for uri in read.uris:
                if uri.role in _MEMBERS and (address := self._led_to(page, uri.text)):
                    found.setdefault(address, uri.role)
        return {address: role for address, role in found.items() if address not in self._missing}

    def _unneeded(self, members: Mapping[str, Role]) -> list[str]:
        found = []
        for page, read in self._pages.items():
            for uri in read.uris:
                address = self._joined(page, uri.text) if uri.role is Role.NEVER else None
                if address and address not in members and not address.startswith("data:"):
                    found.append(address)
        return [address for address in dict.fromkeys(found) if address not in self._pages]

    def _joined(self, page: str, uri: str) -> str | None:
        address = joined(page, uri)
        return address.partition("?")[0] if address and self._in_store else address

    def _led_to(self, page: str, uri: str) -> str | None:
        """Where a URI leads; None where it may not, which is then missing."""
        address = self._joined(page, uri)
        if address is None:
            self._odd.append(f"{_short(page)} has an address in it that is none")
            return None
        if not self._may_lead(page, address):
            parts = urlsplit(address)
            what = (
                "a file on this machine"
                if parts.scheme == "file"
                else f"another host ({parts.scheme}://{parts.hostname or ''})"
            )
            self._missing.setdefault(
                address,
                f"{_short(page)} leads to {what}, which is not followed: is it one of "
                "`source.media_hosts`?",
            )
        return address

    def _kept(self, address: str, names: Mapping[str, str]) -> Playlist:
        """A playlist byte for byte, or, where it names something absolutely or with a query, with
        names that lead to the copies beside it.

        Raises SourceFailed unless every URI of what is kept leads to something that has a name.
        """
        page = self._pages[address]
        folder = posixpath.dirname(names[address])
        text, at = [], 0
        for uri in page.uris:
            led_to = self._joined(address, uri.text)
            name = names.get(led_to) if led_to is not None else _NOWHERE
            if name is not None and uri.role is not Role.HINT:
                raw = page.text[uri.start : uri.end]
                kept = _relative(raw, uri.text, folder, name)
                text += [page.text[at : uri.start], kept]
                at = uri.end
        kept = "".join([*text, page.text[at:]])
        kept = self._without_hints(address, kept)
        if not page.is_master and not page.ended:
            kept = f"{kept.rstrip()}\n#EXT-X-ENDLIST\n"
        self._leads_to_itself(address, kept, folder, {*names.values(), _NOWHERE})
        content = self._contents[address]
        if kept == page.text:
            return Playlist(names[address], content)
        was = hashlib.sha256(content).hexdigest()
        return Playlist(names[address], kept.encode("utf-8", "surrogateescape"), was)

    def _read_again(self, address: str, text: str) -> Page:
        page = page_of(text, address, self._pages[address].defined)
        assert page is not None
        return page

    def _without_hints(self, address: str, text: str) -> str:
        """The text without the lines of hints that name an address."""
        if not any(uri.role is Role.HINT for uri in self._pages[address].uris):
            return text
        hints = [uri.start for uri in self._read_again(address, text).uris if uri.role is Role.HINT]
        kept, dropped = [], False
        for start, line in lines_of(text):
            is_end = LINE_ENDS.fullmatch(line) is not None
            if not is_end:
                after = bisect_left(hints, start)
                dropped = after < len(hints) and hints[after] < start + len(line)
            if not dropped:
                kept.append(line)
            dropped = dropped and not is_end
        return "".join(kept)

    def _leads_to_itself(self, address: str, text: str, folder: str, kept: set[str]) -> None:
        """Read once more what is to be kept, as a player will: each URI must lead to a part of the
        copy."""
        for uri in self._read_again(address, text).uris:
            if uri.role is Role.NEVER:
                continue
            parts = urlsplit(uri.text)
            name = posixpath.normpath(posixpath.join(folder, unquote(parts.path)))
            if parts.scheme or parts.netloc or parts.query or name not in kept:
                raise SourceFailed(
                    f"a copy of {_short(address)} would lead to something that is no part of it",
                    hint="please report this",
                )


def _relative(raw: str, uri: str, folder: str, name: str) -> str:
    """A URI as it is, where it leads to this name in a copy; else one that does."""
    led_to = quote(posixpath.relpath(name, folder or "."))
    try:
        parts = urlsplit(uri)
    except ValueError:
        return led_to
    is_plain = raw == uri and not (
        parts.scheme or parts.netloc or parts.query or parts.fragment or uri.startswith("/")
    )
    if is_plain and posixpath.normpath(posixpath.join(folder, unquote(parts.path))) == name:
        return raw
    return led_to


def _short(address: str) -> str:
    return f"the playlist {unquote(posixpath.basename(urlsplit(address).path))}"


def names_of(addresses: Sequence[str], entry: str) -> dict[str, str]:
    """A path for each address below the folder that holds them all; what is of another server than
    the first playlist gets a folder of its own. No two are alike."""
    here, names, taken = origin_of(entry), dict[str, str](), {_NOWHERE}
    marks = {each: hashlib.sha256(each.encode("utf-8", "surrogateescape")) for each in addresses}
    paths = {
        each: _storable(unquote(urlsplit(each).path, errors="replace"), mark.hexdigest()[:12])
        for each, mark in marks.items()
    }
    root = posixpath.commonpath(
        [posixpath.dirname(path) for each, path in paths.items() if origin_of(each) == here]
    ).rstrip("/")
    for address, path in paths.items():
        parts, mark = urlsplit(address), marks[address].hexdigest()[:12]
        name = path[len(root) + 1 :]
        if origin_of(address) != here:
            name = f"{_OTHERS}{_storable('/' + (parts.hostname or 'none'), mark)}{path}"
        if parts.query:
            name = _marked(name, hashlib.sha256(parts.query.encode()).hexdigest()[:12])
        if name in taken:
            name = _marked(name, mark)
        taken.add(name)
        names[address] = name
    return names


_OTHERS = "other-hosts"
_NOWHERE = "no-address"
"""Stands in a copy's playlist for what is no address."""
_UNSTORABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufffd\ud800-\udfff]")


def _storable(path: str, mark: str) -> str:
    """A path that every store can keep; where it had to be changed, with a mark of its own."""
    pieces = [
        piece
        if piece not in ("", ".", "..")
        and len(piece.encode(errors="replace")) <= LONGEST_PIECE
        and not _UNSTORABLE.search(piece)
        else _UNSTORABLE.sub("_", piece).strip(".")[:50] or "_"
        for piece in path.split("/")[1:]
    ]
    found = "/" + "/".join(pieces)
    if posixpath.basename(found) == MANIFEST:
        return posixpath.join(posixpath.dirname(found), f"_{MANIFEST}")
    return found if found == path else _marked(found, mark)


def _marked(path: str, mark: str) -> str:
    stem, end = posixpath.splitext(path)
    return f"{stem}-{mark}{end}"
