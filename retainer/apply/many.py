"""A copy of many objects: members first, then playlists from the inside out, its manifest last."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from retainer.apply.copied import Copied, Partial, Piece, Task, Written
from retainer.apply.manifest import Manifest, Member, read_manifest, write_manifest
from retainer.apply.parts import at_100ms, in_store, what_can_be_had
from retainer.apply.place import confirmed_lock, place
from retainer.apply.playlists import Unreadable
from retainer.apply.streams import ready
from retainer.apply.verify import Counted, as_recorded, checksum_of
from retainer.errors import KeyTaken, SourceFailed, Unverified
from retainer.model.setting import MANIFEST
from retainer.planfile import Action, Planned

MEMBERS_AT_ONCE = 4
"""So many objects of one recording are on their way at the same time."""

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


def copy_many(task: Task) -> Copied:
    """Members first, then playlists from the inside out, then the manifest. What lies there already
    is compared, not written again."""
    folder = task.action.target or ""
    there = {seen.key for seen in task.target.list(folder)}
    said: list[str] = []
    parts = in_store(task, said) if task.action.origin else at_100ms(task, said)

    def placed(piece: Piece) -> Written:
        task.check()
        return place(task, piece, look=piece.key in there)

    def place_if_readable(piece: Piece) -> Written | str:
        try:
            return placed(piece)
        except (SourceFailed, Unverified) as error:
            return _as_before(task, before, piece.key) or error.message

    def place_what_can_be_had(piece: Piece) -> Written | Partial | str:
        try:
            with what_can_be_had(task):
                return placed(piece)
        except Partial as partial:
            return partial
        except Unreadable as error:
            earlier = _as_before(task, before, piece.key)
            if earlier is None or not _was_partial(before):
                return earlier or str(error)
            # What did not count then does not count now, since nothing better came.
            return Partial(f"{task.target.name}:{piece.key}", str(error), Copied(earlier))

    before = _manifest_there(task, folder + MANIFEST) if folder + MANIFEST in there else None
    written: dict[str, Written] = {}
    missing, odd, odd_keys = dict(parts.missing), list(parts.odd), set[str]()
    for name, member in zip(
        parts.members, _at_once(place_what_can_be_had, parts.members.values()), strict=True
    ):
        if isinstance(member, str):
            missing[name] = member
        elif isinstance(member, Partial):
            written[name] = member.copied.whole
            odd.append(f"{name}: {member.why}")
            odd_keys.add(folder + name)
        else:
            written[name] = member
    if not written and missing:
        raise SourceFailed(_without(next(iter(missing.items()))))
    if parts.playlists and not any(each.look.seen.size for each in written.values()):
        odd.append("every segment of it is empty")
    faces: list[tuple[str, str]] = []
    for name, outcome in zip(
        parts.thumbnails, _at_once(place_if_readable, parts.thumbnails.values()), strict=True
    ):
        if isinstance(outcome, Written):
            written[name] = outcome
        else:
            faces.append((name, outcome))
    faces += [each for each in parts.left_out if each[0].startswith("thumbnails/")]
    for playlist in parts.playlists:
        written[playlist.name] = placed(
            Piece(folder + playlist.name, partial(ready, playlist.content))
        )
    if faces:
        said.append(
            f"{len(faces)} of its thumbnails could not be read ({faces[0][1]}); the copy is whole "
            "without them"
        )
    reasons = (*map(_without, sorted(missing.items())), *dict.fromkeys(odd))
    left_out = dict([*parts.left_out, *faces, *missing.items()])
    was = {playlist.name: playlist.was for playlist in parts.playlists}
    members = tuple(
        Member(name, each.look.seen.size, each.checksum, each.sha256, was.get(name))
        for name, each in written.items()
    )
    manifest = Manifest(
        task.action.asset_id, parts.entry, members, tuple(left_out.items()), task.record, reasons
    )
    uploads = (
        {folder + name: _upload(task.action, planned) for name, planned in parts.origins.items()}
        if _first_hand(task.action)
        else {}
    )
    copied = Copied(
        _place_manifest(task, manifest, written, before),
        tuple(written.values()),
        tuple(said),
        uploads,
    )
    if reasons:
        replaced = odd_keys | {folder + playlist.name for playlist in parts.playlists}
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        where = f"{task.target.name}:{folder}"
        raise Partial(where, f"{reasons[0]}{more}", copied, frozenset(replaced))
    return copied


def _without(missing: tuple[str, str]) -> str:
    name, why = missing
    return why if posixpath.basename(name) in why else f"{name}: {why}"


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


def _was_partial(before: Before | None) -> bool:
    try:
        return before is not None and bool(read_manifest(before.content).partial)
    except Unverified:
        return True


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
        return confirmed_lock(task, before.written)
    return place(task, Piece(key, partial(ready, write_manifest(manifest))), look=False)


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


def _at_once(act: Callable[[Item], Outcome], items: Iterable[Item]) -> list[Outcome]:
    """Act on all, a few at a time; the first failure ends it, and no more are begun."""
    with ThreadPoolExecutor(MEMBERS_AT_ONCE) as pool:
        futures = [pool.submit(act, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
