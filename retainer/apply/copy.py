"""One copy: from a presigned URL or another store to a new object, verified before it counts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from retainer.apply.verify import Counted, digest_of, proven_same
from retainer.errors import KeyTaken, Unverified
from retainer.planfile import Action, Planned
from retainer.ports import Begun, Digest, Downloads, Look, StoreReader, StoreWriter

CONTENT_TYPES = {"mp4": "video/mp4", "webm": "video/webm", "zip": "application/zip", "csv": "text/csv", "json": "application/json",
                 "txt": "text/plain", "srt": "application/x-subrip"}  # fmt: skip
_METADATA_BYTES = 1900
"""S3 allows 2 KB of metadata on an object, names included."""


class Changed(Exception):
    """The source is not what the plan saw: nothing was done."""


@dataclass(frozen=True, slots=True)
class Copied:
    """A copy that counts: where it lies and what was compared. `said`: something a person should know of it."""

    look: Look
    crc32c: str
    sha256: str | None
    said: str | None = None


def object_metadata(record: Mapping[str, Any]) -> dict[str, str]:
    """What fits of an asset's record in an object's metadata, as ASCII JSON; the longest facts are left out first."""
    facts = {key: value for key, value in record.items() if value is not None}
    while True:
        text = json.dumps(facts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        if len(text) <= _METADATA_BYTES or len(facts) <= 1:
            return {"retainer-record": text[:_METADATA_BYTES] if len(facts) <= 1 else text}
        longest = max((key for key in facts if key != "asset_id"), key=lambda key: len(str(facts[key])))
        del facts[longest]


def copy_one(
    action: Action,
    target: StoreWriter,
    source: StoreReader | None,
    downloads: Downloads,
    record: Mapping[str, Any],
    tell: Callable[[int], None],
    check: Callable[[], None],
    begun: Begun,
) -> Copied:
    """Make and verify one copy, or recognise that it is there already.

    `source`: the store to read from, None for 100ms. `tell` is given the bytes as they go by; `check` raises to stop; `begun` is told of a
    write that a kill would leave unfinished.
    Raises Changed, KeyTaken (a different object lies there), SourceGone, SourceFailed, StoreFailed, Unverified.
    """
    assert action.target is not None
    there = target.look(action.target)
    if there is not None:
        return _recognised(action, target, there, source, downloads, tell, check)
    metadata = object_metadata(record)
    if source is not None and action.source_object is not None:
        seen = _as_planned(source, action.source_object)
        copied = target.copy_within(source, seen.seen, action.target, metadata, begun)
        if copied is not None:
            tell(seen.seen.size)
            return _same_on_both_sides(source, seen, target, action.target)
    counted, expected, said = _opened(action, source, downloads)
    stream = _watched(counted, tell, check)
    try:
        target.create(action.target, stream, expected, metadata, content_type_of(action.target), begun)
    except KeyTaken:
        # Another writer, or our own write whose answer was lost: what lies there decides.
        for _ in stream:
            pass
    digest = counted.digest()
    try:
        look = proven_same(target, action.target, digest)
    except Unverified as error:
        said = f"{target.name}:{action.target}: a different object lies there: {error.message}"
        raise KeyTaken(said, hint="look at it and move it away; retainer never overwrites") from None
    _length_is_believable(action, target, digest, expected)
    return Copied(look, digest.crc32c, digest.sha256, said)


def _opened(action: Action, source: StoreReader | None, downloads: Downloads) -> tuple[Counted, int | None, str | None]:
    """The source's stream, the length that it must have, and what a person should know of it."""
    if source is not None and action.source_object is not None:
        seen = _as_planned(source, action.source_object).seen
        return Counted(source.read(seen), action.type, ""), seen.size, None
    body = downloads.open(action.asset_id)
    told = action.facts.get("size")
    said = None
    if body.length is not None and told is not None and body.length > told:
        said = f"100ms's record says {told} bytes, {body.length} came"
    return Counted(body.chunks, action.type, body.content_type), body.length if body.length is not None else told, said


def _length_is_believable(action: Action, target: StoreWriter, digest: Digest, expected: int | None) -> None:
    """Whole by the length that somebody gave, and not shorter than 100ms's own record. Raises Unverified: then it is partial."""
    told = action.facts.get("size") if action.source_object is None else None
    where = f"{target.name}:{action.target}"
    if digest.size == 0:
        raise Unverified(f"{where}: no byte came; it counts as partial", hint="look at the recording in the 100ms dashboard")
    if expected is None:
        raise Unverified(f"{where}: {digest.size} bytes came and nobody says how many there are; kept, but it counts as partial")
    if digest.size != expected:
        raise Unverified(f"{where}: {digest.size} bytes came of {expected}; kept, but it counts as partial")
    if told is not None and digest.size < told:
        raise Unverified(f"{where}: {digest.size} bytes came, 100ms's record says {told}; kept, but it counts as partial")


def _as_planned(store: StoreReader, planned: Planned) -> Look:
    look = store.look(planned.key)
    if look is None or (look.seen.version, look.seen.size) != (planned.version, planned.size):
        raise Changed(f"{store.name}:{planned.key} is not what the plan saw")
    return look


def _same_on_both_sides(source: StoreReader, seen: Look, target: StoreWriter, key: str) -> Copied:
    """Compare the checksums of a copy made by the servers; where one of them has none, the bytes are read back."""
    there = target.look(key)
    if there is None or there.seen.size != seen.seen.size:
        raise Unverified(f"{target.name}:{key} is not as long as {source.name}:{seen.seen.key}")
    if seen.crc32c is not None and seen.crc32c == there.crc32c:
        return Copied(there, seen.crc32c, None)
    ours, theirs = digest_of(source, seen), digest_of(target, there)
    if ours != theirs:
        raise Unverified(f"{target.name}:{key} has another checksum than {source.name}:{seen.seen.key}")
    return Copied(there, ours.crc32c, ours.sha256)


def _recognised(
    action: Action, target: StoreWriter, there: Look, source: StoreReader | None, downloads: Downloads,
    tell: Callable[[int], None], check: Callable[[], None],
) -> Copied:  # fmt: skip
    """An object lies where the copy should go (a run died after its write): the same bytes are recorded, not copied again."""
    if source is not None and action.source_object is not None:
        seen = _as_planned(source, action.source_object)
        if seen.crc32c is not None and (seen.crc32c, seen.seen.size) == (there.crc32c, there.seen.size):
            tell(seen.seen.size)
            return Copied(there, seen.crc32c, None)
    counted, expected, said = _opened(action, source, downloads)
    for _ in _watched(counted, tell, check):
        pass
    digest = counted.digest()
    try:
        look = proven_same(target, there.seen.key, digest)
    except Unverified:
        raise KeyTaken(
            f"{target.name}:{there.seen.key}: a different object lies there", hint="look at it and move it away; retainer never overwrites"
        ) from None
    _length_is_believable(action, target, digest, expected)
    return Copied(look, digest.crc32c, digest.sha256, said)


def _watched(counted: Counted, tell: Callable[[int], None], check: Callable[[], None]) -> Iterator[bytes]:
    for chunk in counted:
        check()
        yield chunk
        tell(len(chunk))


def content_type_of(key: str) -> str:
    return CONTENT_TYPES.get(key.rpartition(".")[2].lower(), "application/octet-stream")
