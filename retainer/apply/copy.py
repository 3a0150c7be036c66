"""One copy: from a presigned URL or another store to new objects, each verified before it counts, a
recording's manifest last."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import chain
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urljoin, urlsplit

from retainer.apply.manifest import Manifest, Member, is_manifest, read_manifest, write_manifest
from retainer.apply.playlists import LONGEST_BYTES, Playlist, Tree, follow
from retainer.apply.verify import (
    Counted,
    as_recorded,
    checksum_of,
    kind_beside,
    kind_of,
    proven_same,
)
from retainer.errors import KeyTaken, RetainerError, SourceFailed, Unverified
from retainer.model.setting import MANIFEST
from retainer.planfile import Action, Planned
from retainer.ports import Begun, Body, Checksum, Downloads, Look, Seen, StoreReader, StoreWriter

CONTENT_TYPES = {
    "mp4": "video/mp4",
    "webm": "video/webm",
    "zip": "application/zip",
    "csv": "text/csv",
    "json": "application/json",
    "txt": "text/plain",
    "srt": "application/x-subrip",
    "m3u8": "application/vnd.apple.mpegurl",
    "ts": "video/mp2t",
    "m4s": "video/iso.segment",
    "aac": "audio/aac",
    "vtt": "text/vtt",
    "jpg": "image/jpeg",
    "png": "image/png",
}
MEMBERS_AT_ONCE = 4
"""So many objects of one recording are on their way at the same time."""
SMALL = 8 << 20
"""So many bytes are written without a look before: where something lies already, the condition of
the write says so, which was proven."""
THROUGH_HERE = 256 << 10
"""Up to so many bytes are read and written from here also where the servers could copy them: two
calls in place of two to four, and the first bytes are looked at."""
LONGEST_UNTOLD = 1 << 40
"""What comes without a length from anywhere is given up after so many bytes."""
_METADATA_BYTES = 1900
"""S3 allows 2 KB of metadata on an object, names included."""

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class Partial(Unverified):
    """What came was kept, and may not be all. The next copy may replace it."""

    def __init__(self, message: str, written: Written) -> None:
        super().__init__(message)
        self.written = written


class Changed(Exception):
    """The source is not what the plan saw: nothing was done."""


@dataclass(frozen=True, slots=True)
class Task:
    """A copy that is to be made, and everything it takes.

    `source`: the store to read from, None for 100ms. `tell` is given the bytes as they go by;
    `check` raises to stop; `begun` is told of a key and a write that a kill would leave unfinished.
    """

    action: Action
    target: StoreWriter
    source: StoreReader | None
    downloads: Downloads
    record: Mapping[str, Any]
    tell: Callable[[int], None]
    check: Callable[[], None]
    begun: Callable[[str, str], None]
    verified: dict[str, Written] = field(default_factory=dict)
    """What was verified by its key, so that another try does not begin anew."""


@dataclass(frozen=True, slots=True)
class Written:
    """An object as it lies in the target, and what was compared with its source."""

    look: Look
    checksum: Checksum
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Copied:
    """A copy that counts: its one object, or its manifest and its members. `said`: what a person
    should know of it."""

    whole: Written
    members: tuple[Written, ...] = ()
    said: tuple[str, ...] = ()
    uploads: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """By the key of a member: the path of the upload that it is a copy of, and the version that it
    had."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A source that was opened, and not yet read. `expected`: the length that it must have; `told`:
    the least that 100ms's record says of it.

    `lying`: it lies so in a store, which perhaps copies it by itself.
    """

    counted: Counted
    expected: int | None
    told: int | None = None
    lying: Look | None = None
    may_be_empty: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """One object of a recording: where it goes, and how it is read."""

    key: str
    open: Callable[[], Stream]


def copy_one(task: Task) -> Copied:
    """Make and verify one copy, or recognise that it is there already.

    Raises Changed, KeyTaken (a different object lies there), SourceGone, SourceFailed, StoreFailed,
    Unverified.
    """
    assert task.action.target is not None
    if task.action.target.endswith("/"):
        return _copy_many(task)
    said: list[str] = []
    size: int | None
    if task.action.origin:
        (planned,) = task.action.origin
        piece = Piece(
            task.action.target,
            partial(_from_store, task, planned, kind_of(task.action.type, planned.key)),
        )
        size = planned.size
    else:
        piece = Piece(
            task.action.target,
            lambda: _recording(task, task.downloads.open(task.action.asset_id), said),
        )
        size = task.action.facts.get("size")
    return Copied(_place(task, piece, look=not size or size > SMALL), said=tuple(said))


# ── one object ────────────────────────────────────────────────────────────────────────────────────


def _place(task: Task, piece: Piece, *, look: bool) -> Written:
    """Copy one object and verify it. `look`: something may lie there already; the same bytes are
    recognised and not written again."""
    if piece.key not in task.verified:
        task.verified[piece.key] = _locked(task, _placed(task, piece, look=look))
    return task.verified[piece.key]


def _locked(task: Task, written: Written) -> Written:
    """Look that a lock that was asked for is really there, since copies can drop it, and lock once
    more. Raises Unverified, StoreFailed."""
    until, seen = task.action.lock_until, written.look.seen
    if until is None:
        return written
    if not _is_locked(task.target.look(seen.key), seen, until):
        task.target.lock(seen, until)
        if not _is_locked(task.target.look(seen.key), seen, until):
            message = f"{task.target.name}:{seen.key} is there, but without its lock"
            raise Unverified(message, hint="does the bucket have Object Lock or object retention?")
    return written


def _is_locked(look: Look | None, seen: Seen, until: datetime) -> bool:
    return (
        look is not None
        and look.seen.version == seen.version
        and look.seen.locked_until is not None
        and look.seen.locked_until >= until
    )


def _placed(task: Task, piece: Piece, *, look: bool) -> Written:
    target = task.target
    broken = next((planned for planned in task.action.broken if planned.key == piece.key), None)
    there = target.look(piece.key) if look or broken else None
    is_broken = (
        there is not None
        and broken is not None
        and (there.seen.version, there.seen.size) == (broken.version, broken.size)
    )
    stream = piece.open()
    if there is not None and not is_broken:
        return _same(task, piece.key, there, stream)  # a run died after its write
    begun: Begun = partial(task.begun, piece.key)
    if there is None and _servers_copy(task, stream):
        written = _copied_within(task, piece, stream, begun)
        if written is not None:
            return written
        stream = piece.open()
    chunks = _watched(stream, task, replacing=there is not None)
    metadata = object_metadata(task.record, stream.expected)
    answered = None
    try:
        answered = target.create(
            piece.key,
            chunks,
            stream.expected,
            metadata,
            content_type_of(piece.key),
            begun,
            task.action.lock_until,
            there.seen if there else None,
        )
    except KeyTaken:
        # Another writer, or our own write whose answer was lost: what lies there decides.
        for _ in chunks:
            pass
    return _proven(task, piece.key, stream, answered)


def _servers_copy(task: Task, stream: Stream) -> bool:
    long = stream.lying is not None and stream.lying.seen.size > THROUGH_HERE
    return long and task.source is not None and task.target.copies_from(task.source)


def _copied_within(task: Task, piece: Piece, stream: Stream, begun: Begun) -> Written | None:
    """A copy that the servers make by themselves, compared with its source; None where they do not.

    What has no checksum to be compared with is read first, so that nothing is written before it was
    looked at.
    """
    target, source, lying = task.target, task.source, stream.lying
    assert source is not None and lying is not None
    seen, key = lying.seen, piece.key
    checksum, sha256 = lying.checksum, None
    if checksum is None:
        for _ in _watched(stream, task):
            pass
        digest = stream.counted.digest()
        checksum, sha256 = digest.checksum, digest.sha256
    metadata = object_metadata(task.record, seen.size)
    try:
        made = target.copy_within(
            source,
            seen,
            checksum,
            key,
            metadata,
            content_type_of(key),
            begun,
            task.action.lock_until,
        )
        if made is None:
            return None
    except KeyTaken:
        there = target.look(key)
        if there is None:
            raise
        return _same(task, key, there, piece.open())  # perhaps our own, and the answer was lost
    there = target.look(key)
    if (
        there is None
        or there.seen.size != seen.size
        or checksum_of(target, there, checksum.kind) != checksum
    ):
        if target.conditions().delete:
            with suppress(RetainerError):  # else it would look like a copy
                target.delete(made)
        raise Unverified(f"{target.name}:{key} has another checksum than {source.name}:{seen.key}")
    if sha256 is None:
        task.tell(seen.size)
    return Written(there, checksum, sha256)


def _same(task: Task, key: str, there: Look, stream: Stream) -> Written:
    """What lies there, if it has the bytes of the source: by the checksums of both stores, else by
    those of the bytes, which are read again."""
    lying = stream.lying
    if (
        lying is not None
        and lying.checksum is not None
        and (lying.checksum, lying.seen.size) == (there.checksum, there.seen.size)
    ):
        task.tell(lying.seen.size)
        return Written(there, lying.checksum, None)
    for _ in _watched(stream, task):
        pass
    return _proven(task, key, stream)


def _proven(task: Task, key: str, stream: Stream, answered: Look | None = None) -> Written:
    """`answered`: what the store said of its write. Where it told no checksum, or another one, what
    lies there is looked at."""
    digest, look = stream.counted.digest(), answered
    try:
        if look is None or (look.seen.size, look.checksum) != (digest.size, digest.checksum):
            look = proven_same(task.target, key, digest)
    except Unverified as error:
        raise KeyTaken(
            f"{task.target.name}:{key}: a different object lies there: {error.message}",
            hint="look at it and move it away; retainer never overwrites",
        ) from None
    written = Written(look, digest.checksum, digest.sha256)
    if reason := _not_believable(digest.size, stream):
        raise Partial(
            f"{task.target.name}:{key}: {reason}; kept, but it counts as partial", written
        )
    return written


def _not_believable(came: int, stream: Stream) -> str | None:
    """Why so many bytes may not be all: nobody says how many there are, or 100ms's own record says
    more."""
    if stream.expected is None:
        return f"{came} bytes came and nobody says how many there are"
    if stream.told is not None and came < stream.told:
        return f"{came} bytes came, 100ms's record says {stream.told}"
    return None


def _as_planned(store: StoreReader, planned: Planned) -> Look:
    look = store.look(planned.key)
    if look is None or (look.seen.version, look.seen.size) != (planned.version, planned.size):
        raise Changed(f"{store.name}:{planned.key} is not what the plan saw")
    return look


def _watched(stream: Stream, task: Task, *, replacing: bool = False) -> Iterator[bytes]:
    """The stream, watched. One that is empty, not as long as it must be or not what its store says
    ends in SourceFailed, so that nothing is written of it; and so does one that would not count,
    where it would replace something."""
    came = 0
    most = stream.expected if stream.expected is not None else LONGEST_UNTOLD
    for chunk in stream.counted:
        task.check()
        came += len(chunk)
        if came > most:
            raise SourceFailed(
                f"more than {most} bytes came", hint="look at the recording in the 100ms dashboard"
            )
        yield chunk
        task.tell(len(chunk))
    if came == 0 and not stream.may_be_empty:
        raise SourceFailed("no byte came", hint="look at the recording in the 100ms dashboard")
    if stream.expected is not None and came != stream.expected:
        raise SourceFailed(f"{came} bytes came of {stream.expected}", hint="run it again")
    if replacing and (reason := _not_believable(came, stream)):
        raise SourceFailed(reason)


def _from_store(
    task: Task, planned: Planned, kind: str | None, *, may_be_empty: bool = False
) -> Stream:
    assert task.source is not None
    lying = _as_planned(task.source, planned)
    counted = Counted(task.source.read(lying.seen), kind, told=lying.told, stored=True)
    return Stream(counted, lying.seen.size, lying=lying, may_be_empty=may_be_empty)


def _recording(task: Task, body: Body, said: list[str]) -> Stream:
    """The one file that a recording is, or its biggest one; what 100ms's record says of its size is
    compared with what comes."""
    told = task.action.facts.get("size")
    if body.length is not None and told is not None and body.length > told:
        said.append(f"100ms's record says {told} bytes, {body.length} came")
    kind = kind_of(task.action.type, _path(task.action))
    return Stream(
        Counted(body.chunks, kind, body.content_type),
        body.length if body.length is not None else told,
        told,
    )


# ── a recording of many objects ───────────────────────────────────────────────────────────────────


def _copy_many(task: Task) -> Copied:
    """Members first, then playlists from the inside out, then the manifest. What lies there already
    is compared, not written again."""
    folder = task.action.target or ""
    there = {seen.key for seen in task.target.list(folder)}
    said: list[str] = []
    parts = _parts_in_store(task) if task.action.origin else _parts_at_100ms(task, said)

    def place(piece: Piece) -> Written:
        task.check()
        return _place(task, piece, look=piece.key in there)

    def place_if_readable(piece: Piece) -> Written | str:
        try:
            return place(piece)
        except (SourceFailed, Unverified) as error:
            return _as_before(task, before, piece.key) or error.message

    before = _manifest_there(task, folder + MANIFEST) if folder + MANIFEST in there else None
    written = dict(zip(parts.members, _at_once(place, parts.members.values()), strict=True))
    left_out: list[tuple[str, str]] = list(parts.left_out)
    for name, outcome in zip(
        parts.thumbnails, _at_once(place_if_readable, parts.thumbnails.values()), strict=True
    ):
        if isinstance(outcome, Written):
            written[name] = outcome
        else:
            left_out.append((name, outcome))
    for playlist in parts.playlists:
        written[playlist.name] = place(
            Piece(folder + playlist.name, partial(_ready, playlist.content))
        )
    if left_out:
        said.append(
            f"{len(left_out)} of its thumbnails could not be read ({left_out[0][1]}); the copy is "
            "whole without them"
        )
    was = {playlist.name: playlist.was for playlist in parts.playlists}
    members = tuple(
        Member(name, each.look.seen.size, each.checksum, each.sha256, was.get(name))
        for name, each in written.items()
    )
    manifest = Manifest(task.action.asset_id, parts.entry, members, tuple(left_out), task.record)
    uploads = (
        {folder + name: _upload(task.action, planned) for name, planned in parts.origins.items()}
        if _first_hand(task.action)
        else {}
    )
    return Copied(
        _place_manifest(task, manifest, written, before),
        tuple(written.values()),
        tuple(said),
        uploads,
    )


def _first_hand(action: Action) -> bool:
    """Whether a copy is made of what 100ms uploaded, and not of another copy of that."""
    return action.made_of is not None and any(
        action.made_of.key.endswith(f"/{planned.key}") for planned in action.origin
    )


def _upload(action: Action, planned: Planned) -> tuple[str, str]:
    """The path and version of an upload, as facts have them: of a file's version without its inode,
    which a restored folder has not."""
    assert action.made_of is not None
    entry = next(each for each in action.origin if action.made_of.key.endswith(f"/{each.key}"))
    is_file = action.made_of.key.startswith("file://")
    return action.made_of.key.removesuffix(entry.key) + planned.key, planned.version.partition("-")[
        2
    ] if is_file else planned.version


@dataclass(frozen=True, slots=True)
class Before:
    """The manifest that an earlier copy left. `content` may be damaged."""

    written: Written
    content: bytes


def _manifest_there(task: Task, key: str) -> Before | None:
    look = task.target.look(key)
    if look is None:
        return None
    counted = Counted(task.target.read(look.seen))
    content = b"".join(counted)
    digest = counted.digest()
    return Before(Written(look, digest.checksum, digest.sha256), content)


def _as_before(task: Task, before: Before | None, key: str) -> Written | None:
    """A member as an earlier copy left it, where it cannot be read anew."""
    try:
        members = read_manifest(before.content).members if before else ()
    except Unverified:
        return None
    member = next((each for each in members if (task.action.target or "") + each.name == key), None)
    look = as_recorded(task.target, key, member.size, member.checksum) if member else None
    return Written(look, member.checksum, member.sha256) if member and look else None


def _place_manifest(
    task: Task, manifest: Manifest, written: Mapping[str, Written], before: Before | None
) -> Written:
    key = f"{task.action.target}{MANIFEST}"
    is_broken = any(planned.key == key for planned in task.action.broken)
    if before is not None and not is_broken:
        earlier = read_manifest(before.content)
        if (earlier.asset_id, earlier.entry) != (manifest.asset_id, manifest.entry) or not _lists(
            task, earlier, written
        ):
            said = f"{task.target.name}:{key}: the copy that lies there was made of other objects"
            raise KeyTaken(said, hint="look at it and move it away; retainer never overwrites")
        return _locked(task, before.written)
    return _place(task, Piece(key, partial(_ready, write_manifest(manifest))), look=False)


def _lists(task: Task, manifest: Manifest, written: Mapping[str, Written]) -> bool:
    """Whether a manifest lists these objects and no others (a copy made by servers may have a
    checksum of another kind, and no SHA-256)."""
    members = {member.name: member for member in manifest.members}
    return members.keys() == written.keys() and all(
        each.look.seen.size == members[name].size
        and (
            members[name].checksum == each.checksum
            or members[name].checksum
            == checksum_of(task.target, each.look, members[name].checksum.kind)
        )
        for name, each in written.items()
    )


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


def _parts_in_store(task: Task) -> Parts:
    """What the plan saw beside the recording's path, if the playlists there lead to nothing
    else."""
    source, action, folder = task.source, task.action, task.action.target or ""
    assert source is not None
    planned = named_in(action.folder, action.origin)
    entry = posixpath.basename(_path(action)) or MANIFEST
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
            partial(_from_store, task, each, judged.get(name), may_be_empty=name != entry),
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
    lying = _as_planned(store, planned)
    return b"".join(Counted(store.read(lying.seen), told=lying.told))


def _parts_at_100ms(task: Task, said: list[str]) -> Parts:
    """What the presigned URL leads to: one file, or a master playlist and all that it leads to; and
    the thumbnails beside it."""
    folder, action = task.action.target or "", task.action
    path = _path(action)
    body = task.downloads.open(action.asset_id)
    first = next(body.chunks, b"")
    body = Body(body.length, body.content_type, chain([first], body.chunks), body.address)
    faces, left_out = _thumbnail_addresses(path, action.facts.get("thumbnails") or (), body.address)
    if not _is_unzipped(action.type, path) or first.startswith(b"PK"):
        name = _safe_name(path)
        opened = [body]

        def again() -> Stream:
            return _recording(
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


def _path(action: Action) -> str:
    return str(action.facts.get("path") or "")


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


def _ready(content: bytes) -> Stream:
    return Stream(Counted([content]), len(content))


def _at_once(act: Callable[[Item], Outcome], items: Iterable[Item]) -> list[Outcome]:
    """Act on all, a few at a time; the first failure ends it, and no more are begun."""
    with ThreadPoolExecutor(MEMBERS_AT_ONCE) as pool:
        futures = [pool.submit(act, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


# ── what an object says of itself ─────────────────────────────────────────────────────────────────


def object_metadata(record: Mapping[str, Any], length: int | None) -> dict[str, str]:
    """What fits of an asset's record in an object's metadata, as ASCII JSON, and how many bytes it
    is to have, where somebody said so.

    The longest facts are left out first.
    """
    said = {} if length is None else {"retainer-length": str(length)}
    facts = {key: value for key, value in record.items() if value is not None}
    left_out: list[str] = []
    while True:
        facts |= {"left_out": left_out} if left_out else {}
        text = json.dumps(facts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        if len(text) <= _METADATA_BYTES or len(facts) <= 2:
            return {"retainer-record": text[:_METADATA_BYTES]} | said
        longest = max(
            (key for key in facts if key not in ("asset_id", "left_out")),
            key=lambda key: len(str(facts[key])),
        )
        del facts[longest]
        left_out.append(longest)


def content_type_of(key: str) -> str:
    return CONTENT_TYPES.get(key.rpartition(".")[2].lower(), "application/octet-stream")
