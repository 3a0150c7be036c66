"""One object in its place: read, judged, digested, written and confirmed, the one way that `way`
says."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial

from retainer.apply.copied import Copied, Partial, Piece, Stream, Task, Written
from retainer.apply.describe import content_type_of, object_metadata
from retainer.apply.streams import not_believable, watched
from retainer.apply.verify import checksum_of, locked, proven_same
from retainer.apply.way import THROUGH_HERE, Sides, Way, way
from retainer.errors import KeyTaken, RetainerError, Unverified
from retainer.ports import Begun, Checksum, Look, Seen


def place(task: Task, piece: Piece, *, look: bool) -> Written:
    """Copy one object and verify it. `look`: something may lie there already; the same bytes are
    recognised and not written again.

    Raises KeyTaken, Partial, Unverified, SourceFailed, StoreFailed.
    """
    if piece.key not in task.verified:
        task.verified[piece.key] = confirmed_lock(task, _placed(task, piece, look=look))
    return task.verified[piece.key]


def _placed(task: Task, piece: Piece, *, look: bool) -> Written:
    broken = next((each for each in task.action.broken if each.key == piece.key), None)
    there = task.target.look(piece.key) if look or broken else None
    stream = piece.open()
    match way(Sides(there, broken, stream.lying, there is None and _servers_copy(task, stream))):
        case Way.RECOGNISE:
            assert there is not None
            return _same(task, piece.key, there, stream)  # a run died after its write
        case Way.SERVER_COPY:
            return _by_servers(task, piece, stream) or _through(task, piece, piece.open(), None)
        case Way.REPLACE | Way.THROUGH:
            return _through(task, piece, stream, there)


def _servers_copy(task: Task, stream: Stream) -> bool:
    """Whether the servers can; not asked of what is short, since to find out takes calls. What is
    packed goes through here, as not every server takes over how it is (SeaweedFS 4.48)."""
    lying, source = stream.lying, task.source
    if lying is None or source is None or lying.seen.size <= THROUGH_HERE or lying.encoding:
        return False
    return task.target.copies_from(source)


def _through(task: Task, piece: Piece, stream: Stream, over: Look | None) -> Written:
    """Read and write it from here."""
    chunks = watched(stream, task, replacing=over is not None)
    metadata = object_metadata(task.record, stream.expected)
    answered = None
    try:
        answered = task.target.create(
            piece.key,
            chunks,
            stream.expected,
            metadata,
            content_type_of(piece.key),
            partial(task.begun, piece.key),
            task.action.lock_until,
            over.seen if over else None,
            stream.encoding,
        )
    except KeyTaken:
        # Another writer, or our own write whose answer was lost: what lies there decides.
        for _ in chunks:
            pass
    return _proven(task, piece.key, stream, answered)


def _by_servers(task: Task, piece: Piece, stream: Stream) -> Written | None:
    """A copy that the servers make by themselves, compared with its source; None where they do not.

    What has no checksum to be compared with is read first, so that nothing is written before it was
    looked at.
    """
    target, source, lying = task.target, task.source, stream.lying
    assert source is not None and lying is not None
    seen, key = lying.seen, piece.key
    checksum, sha256 = lying.checksum, None
    if checksum is None:
        for _ in watched(stream, task):
            pass
        digest = stream.counted.digest()
        checksum, sha256 = digest.checksum, digest.sha256
    metadata = object_metadata(task.record, seen.size)
    begun: Begun = partial(task.begun, key)
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
    written = _confirmed(task, key, made, seen, checksum)
    if sha256 is None:
        task.tell(seen.size)
    return Written(written, checksum, sha256)


def _confirmed(task: Task, key: str, made: Seen, seen: Seen, checksum: Checksum) -> Look:
    """What the servers made, if it has this checksum. Raises Unverified."""
    target = task.target
    there = target.look(key)
    right = there is not None and there.seen.size == seen.size
    if there is None or not right or checksum_of(target, there, checksum.kind) != checksum:
        with suppress(RetainerError):  # else it would look like a copy
            if target.conditions().delete:
                target.delete(made)
        source = task.source.name if task.source else ""
        raise Unverified(f"{target.name}:{key} has another checksum than {source}:{seen.key}")
    return there


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
    for _ in watched(stream, task):
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
    if reason := not_believable(digest.size, stream):
        raise Partial(f"{task.target.name}:{key}", reason, Copied(written))
    return written


def confirmed_lock(task: Task, written: Written) -> Written:
    """Look that a lock that was asked for is really there, and lock once more. Raises Unverified,
    StoreFailed."""
    until, seen = task.action.lock_until, written.look.seen
    if until is None:
        return written
    found = locked(task.target, seen, until)
    if found is None:
        raise Unverified(f"{task.target.name}:{seen.key} was written, and changed since")
    return replace(written, look=replace(written.look, seen=found[0]))
