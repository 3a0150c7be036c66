"""What a recording of many objects consists of: where it lies in a store, or behind its presigned
URL."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from urllib.parse import quote, unquote, urljoin, urlsplit

from retainer.apply.copied import Changed, Piece, Stream, Task
from retainer.apply.manifest import is_manifest, read_manifest
from retainer.apply.playlists import LONGEST_BYTES, Playlist, Tree, follow
from retainer.apply.streams import as_planned, from_store, path_of, recording
from retainer.apply.verify import Counted, kind_beside, kind_of
from retainer.errors import SourceFailed, Unverified
from retainer.model.setting import MANIFEST
from retainer.planfile import Planned
from retainer.ports import Body, StoreReader


@dataclass(frozen=True, slots=True)
class Parts:
    """What a recording consists of, by names below its folder. Thumbnails that cannot be read are
    left out, and nothing else is."""

    entry: str
    members: dict[str, Piece]
    playlists: tuple[Playlist, ...] = ()
    thumbnails: Mapping[str, Piece] = field(default_factory=dict)
    left_out: Sequence[tuple[str, str]] = ()
    origins: Mapping[str, Planned] = field(default_factory=dict)
    """What each member is a copy of, where that lies in a store."""


def in_store(task: Task) -> Parts:
    """What the plan saw beside the recording's path, if the playlists there lead to nothing
    else."""
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
    playlists: tuple[Playlist, ...] = ()
    judged: dict[str, str | None] = {entry: kind_of(action.type, entry)}
    if entry.lower().endswith(".m3u8"):
        named, beside, tree = whole_in(source, planned, entry)
        members, playlists, judged = (
            named | beside,
            tree.playlists,
            {name: kind_beside(name) for name in named},
        )

    def piece(name: str, each: Planned) -> Piece:
        return Piece(
            folder + name,
            partial(from_store, task, each, judged.get(name), may_be_empty=name != entry),
        )

    return Parts(
        entry,
        {name: piece(name, each) for name, each in members.items()},
        playlists,
        origins=planned,
    )


def whole_in(
    store: StoreReader, planned: Mapping[str, Planned], entry: str
) -> tuple[dict[str, Planned], dict[str, Planned], Tree]:
    """Follow the playlists of a recording that lies in a store: what they name and what lies beside
    it, by names in a copy; and they themselves.

    `planned`: everything that lies there, by its name below the recording's folder. Raises
    Unverified when a playlist names something else.
    """
    by_key = {each.key: each for each in planned.values()}
    read: set[str] = set()

    def lying(address: str) -> Planned | None:
        return by_key.get(unquote(urlsplit(address).path[1:]))

    def content(address: str) -> bytes:
        found = lying(address)
        if found is None:
            playlist = unquote(address.rpartition("/")[2])
            raise Unverified(
                f"{store.name}: the playlist {playlist} is missing",
                hint="was the upload to that bucket finished?",
            )
        read.add(found.key)
        return _read(store, found)

    tree = follow(f"http://{store.name}/{quote(planned[entry].key)}", content)
    found = {name: lying(address) for name, address in tree.members.items()}
    if missing := sorted(name for name, each in found.items() if each is None):
        raise Unverified(
            f"{store.name}:{planned[entry].key}: its playlists name {len(missing)} objects that "
            f"are not there, such as {missing[0]}",
            hint="was the upload to that bucket finished?",
        )
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
    body = Body(body.length, body.content_type, chain([first], body.chunks), body.address)
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
        return (
            entry
            if address == body.address
            else _whole(task.downloads.open_beside(address), "m3u8")
        )

    tree = follow(body.address, read, faces)
    return Parts(
        tree.entry,
        _beside(task, tree.members, encrypted=tree.encrypted),
        tree.playlists,
        _beside(task, tree.beside),
        left_out,
    )


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
    task: Task, addresses: Mapping[str, str], *, encrypted: bool = False
) -> dict[str, Piece]:
    def opened(name: str, address: str) -> Stream:
        body = task.downloads.open_beside(address)
        return Stream(
            Counted(body.chunks, "file" if encrypted else kind_of(None, name), body.content_type),
            body.length,
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
    return bytes(content)
