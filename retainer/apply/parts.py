"""What a recording of many objects consists of: where it lies in a store, or behind its presigned
URL."""

from __future__ import annotations

import hashlib
import posixpath
import re
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from itertools import chain
from urllib.parse import quote, unquote, urljoin, urlsplit

from retainer.apply.copied import Changed, Piece, Stream, Task
from retainer.apply.kinds import GZIP, kind_beside, kind_of
from retainer.apply.manifest import is_manifest, read_manifest
from retainer.apply.playlists import LONGEST_BYTES, Playlist, Tree, Unreadable, follow
from retainer.apply.streams import as_planned, from_store, path_of, recording
from retainer.apply.verify import Counted
from retainer.errors import SourceFailed, SourceGone, Unverified
from retainer.model.setting import MANIFEST
from retainer.planfile import Planned
from retainer.ports import Body, StoreReader


@dataclass(frozen=True, slots=True)
class Parts:
    """What a recording consists of, by names below its folder. `left_out`: thumbnails that cannot
    be read, and what no client fetches; `missing`: what is lacking, and `odd`: what else speaks
    against its being whole."""

    entry: str
    members: dict[str, Piece]
    playlists: tuple[Playlist, ...] = ()
    thumbnails: Mapping[str, Piece] = field(default_factory=dict)
    left_out: Sequence[tuple[str, str]] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    odd: Sequence[str] = ()
    origins: Mapping[str, Planned] = field(default_factory=dict)
    """What each member is a copy of, where that lies in a store."""


def in_store(task: Task, said: list[str]) -> Parts:
    """What the plan saw beside the recording's path."""
    source, action, folder = task.source, task.action, task.action.target or ""
    assert source is not None
    planned = named_in(action.folder, action.origin)
    entry = posixpath.basename(path_of(action)) or MANIFEST
    if (ours := planned.pop(MANIFEST, None)) is not None:
        content = _read(source, ours)
        if is_manifest(content):
            entry = read_manifest(content).entry
        elif f"_{MANIFEST}" in planned:
            both = (
                f"{source.name}:{action.folder} has both {MANIFEST} and _{MANIFEST}, which in a "
                "copy would be one"
            )
            raise Unverified(both, hint="rename one of them")
        else:
            planned[f"_{MANIFEST}"] = ours
    if entry not in planned:
        raise Changed(f"{source.name}:{action.folder}{entry} is not among what the plan saw")
    members: Mapping[str, Planned] = planned
    tree: Tree | None = None
    judged: dict[str, str | None] = {entry: kind_of(action.type, entry)}
    if entry.lower().endswith(".m3u8"):
        named, beside, tree = found_in(source, planned, entry, still_written=is_still_written(task))
        members = named | beside
        judged = {name: kind_beside(name) for name in named}
        said += tree.said

    def piece(name: str, each: Planned) -> Piece:
        return Piece(
            folder + name,
            partial(from_store, task, each, judged.get(name), may_be_empty=name != entry),
        )

    return Parts(
        entry,
        {name: piece(name, each) for name, each in members.items()},
        tree.playlists if tree else (),
        left_out=_unneeded(tree) if tree else (),
        missing=tree.missing if tree else {},
        odd=tree.odd if tree else (),
        origins=planned,
    )


DAY = timedelta(days=1)
"""So long 100ms may still write to what it lists; what has no end after that will have none."""


def is_still_written(task: Task) -> bool:
    """Whether a playlist without an end may yet get one."""
    created = task.action.created
    return created is not None and task.now - created < DAY


def _unneeded(tree: Tree) -> list[tuple[str, str]]:
    return [(name, "no client fetches it") for name in tree.unneeded]


def found_in(
    store: StoreReader, planned: Mapping[str, Planned], entry: str, *, still_written: bool = False
) -> tuple[dict[str, Planned], dict[str, Planned], Tree]:
    """Follow the playlists of a recording that lies in a store: what they name and what lies beside
    it, by names in a copy; and they themselves, with what they name that is not there.

    `planned`: everything that lies there, by its name below the recording's folder. Raises
    SourceFailed, Unverified.
    """
    by_key = {each.key: each for each in planned.values()}
    read: set[str] = set()

    def lying(address: str) -> Planned | None:
        return by_key.get(unquote(urlsplit(address).path[1:]))

    def content(address: str) -> bytes:
        found = lying(address)
        if found is None:
            playlist = unquote(address.rpartition("/")[2])
            raise Unreadable(f"the playlist {playlist} is not there")
        read.add(found.key)
        if found.size > LONGEST_BYTES:
            raise Unreadable(f"{found.size} bytes are no playlist")
        return unpacked(_read(store, found))

    tree = follow(
        f"http://{store.name}/{quote(planned[entry].key)}",
        content,
        still_written=still_written,
        in_store=True,
    )
    found = {name: lying(address) for name, address in tree.members.items()}
    missing = {name: "it is not there" for name, each in found.items() if each is None}
    if missing and still_written:
        raise Unverified(
            f"{store.name}:{planned[entry].key}: its playlists name {len(missing)} objects that "
            f"are not there, such as {min(missing)}",
            hint="was the upload to that bucket finished?",
        )
    tree = replace(tree, missing={**tree.missing, **missing})
    named = {name: each for name, each in found.items() if each is not None}
    read |= {each.key for each in named.values()}
    beside = {name: each for name, each in planned.items() if each.key not in read}
    if both := sorted(named.keys() & beside.keys()):
        raise Unverified(
            f"{store.name}:{beside[both[0]].key} and another object would have the same name in a "
            "copy"
        )
    return named, beside, tree


def named_in(folder: str, objects: Sequence[Planned]) -> dict[str, Planned]:
    """Objects by their names below a recording's folder; what lies outside of it, as thumbnails
    may, goes into one of its own."""
    named: dict[str, Planned] = {}
    for each in objects:
        name = (
            each.key[len(folder) :]
            if each.key.startswith(folder)
            else f"thumbnails/{posixpath.basename(each.key)}"
        )
        if name in named:
            mark = hashlib.sha256(each.key.encode()).hexdigest()[:12]
            name = f"thumbnails/{mark}-{posixpath.basename(each.key)}"
        named[name] = each
    return named


def _read(store: StoreReader, planned: Planned) -> bytes:
    """A playlist or manifest, whole. Raises Unverified when it is too long to be one, SourceFailed
    when it is damaged."""
    if planned.size > LONGEST_BYTES:
        raise Unverified(f"{store.name}:{planned.key}: {planned.size} bytes are no playlist")
    lying = as_planned(store, planned)
    return b"".join(Counted(store.read(lying.seen), told=lying.told))


def at_100ms(task: Task, said: list[str]) -> Parts:
    """What the presigned URL leads to: one file, or a master playlist and all that it leads to; and
    the thumbnails beside it."""
    folder, action = task.action.target or "", task.action
    path = path_of(action)
    body = task.downloads.open(action.asset_id)
    first = next(body.chunks, b"")
    body = replace(body, chunks=chain([first], body.chunks))
    faces, left_out = _thumbnail_addresses(path, action.facts.get("thumbnails") or (), body.address)
    if not _is_unzipped(action.type, path) or first.startswith(b"PK"):
        name = _safe_name(path)
        opened = [body]

        def again() -> Stream:
            return recording(
                task, opened.pop() if opened else task.downloads.open(action.asset_id), said
            )

        thumbnails = {
            f"thumbnails/{number:03}-{_safe_name(unquote(face))}": face
            for number, face in enumerate(faces, 1)
        }
        return Parts(
            name, {name: Piece(folder + name, again)}, (), _beside(task, thumbnails), left_out
        )
    entry = _whole(body, "m3u8")

    def read(address: str) -> bytes:
        task.check()
        if address == body.address:
            return entry
        with what_can_be_had(task):
            return _whole(task.downloads.open_beside(address), "m3u8")

    tree = follow(
        body.address,
        read,
        faces,
        may_lead=task.downloads.may_lead,
        still_written=is_still_written(task),
    )
    said += tree.said
    opaque = tree.members.keys() if tree.encrypted else tree.opaque
    return Parts(
        tree.entry,
        _beside(task, tree.members, opaque),
        tree.playlists,
        _beside(task, tree.beside),
        [*left_out, *_unneeded(tree)],
        tree.missing,
        tree.odd,
    )


@contextmanager
def what_can_be_had(task: Task) -> Iterator[None]:
    """What is gone, or cannot be read by the last try, ends in Unreadable: the rest is kept without
    it."""
    try:
        yield
    except SourceFailed as error:
        if task.last or isinstance(error, SourceGone):
            raise Unreadable(error.message) from None
        raise


def _safe_name(path: str) -> str:
    """The last piece of a path as a name that every store can keep, and that is not the
    manifest's."""
    name = (
        re.sub("[^A-Za-z0-9._-]+", "_", posixpath.basename(path))[:150].lstrip(".") or "recording"
    )
    return f"_{name}" if name == MANIFEST else name


def _is_unzipped(asset_type: str | None, path: str) -> bool:
    """As `UNZIPPED` in inventory/locate.py; a plan's path has no query."""
    return path.lower().endswith(".m3u8") or (
        asset_type == "room-vod" and not path.lower().endswith((".zip", ".mp4"))
    )


def _beside(
    task: Task, addresses: Mapping[str, str], opaque: Collection[str] = ()
) -> dict[str, Piece]:
    def opened(name: str, address: str) -> Stream:
        body = task.downloads.open_beside(address)
        return Stream(
            Counted(
                body.chunks,
                "file" if name in opaque or body.length == 0 else kind_of(None, name),
                body.content_type,
                strict=not task.last,
            ),
            body.length,
            may_be_empty=body.length == 0,
            whole=body.stored_length is not None,
            encoding=body.encoding,
        )

    return {
        name: Piece((task.action.target or "") + name, partial(opened, name, address))
        for name, address in addresses.items()
    }


def _thumbnail_addresses(
    path: str, thumbnails: Sequence[str], address: str
) -> tuple[list[str], list[tuple[str, str]]]:
    """Where the thumbnails must be if they lie to the recording's address as their paths lie to its
    path; and those of which nobody knows."""
    bucket, folder = path.partition("://")[2].partition("/")[0], posixpath.dirname(path)
    found, unknown = [], []
    for thumbnail in thumbnails:
        if bucket and thumbnail.partition("://")[2].partition("/")[0] == bucket:
            found.append(urljoin(address, quote(posixpath.relpath(thumbnail, folder))))
        else:
            unknown.append((f"thumbnails/{_safe_name(thumbnail)}", "100ms gives no address for it"))
    return found, unknown


def _whole(body: Body, kind: str) -> bytes:
    """A body that must be short. Raises SourceFailed when it is not, when it breaks off, and when
    it is of another kind."""
    content = bytearray()
    for chunk in Counted(body.chunks, kind, body.content_type):
        content += chunk
        if len(content) > LONGEST_BYTES:
            raise SourceFailed(f"a playlist is longer than {LONGEST_BYTES >> 20} MiB")
    if not content or (body.length is not None and len(content) != body.length):
        raise SourceFailed(
            f"a playlist is cut off: {len(content)} bytes came"
            + (f" of {body.length}" if body.length is not None else "")
        )
    return unpacked(bytes(content))


def unpacked(content: bytes) -> bytes:
    """A playlist, which may be stored as gzip. Raises SourceFailed for what is damaged or too
    long."""
    if not content.startswith(GZIP):
        return content
    unpacker = zlib.decompressobj(31)
    try:
        found = unpacker.decompress(content, LONGEST_BYTES)
    except zlib.error:
        found = b""
    if not unpacker.eof:
        raise SourceFailed("a playlist is packed as gzip, and damaged or too long")
    return found
