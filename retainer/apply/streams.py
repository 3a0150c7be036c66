"""Where the bytes of a copy come from, opened and not yet read; and how they are watched as they go
by."""

from __future__ import annotations

from collections.abc import Iterator

from retainer.apply.copied import Changed, Stream, Task
from retainer.apply.kinds import kind_of
from retainer.apply.verify import Counted
from retainer.apply.way import THROUGH_HERE, is_same
from retainer.errors import SourceFailed, StoreFailed
from retainer.planfile import Action, Planned
from retainer.ports import Body, Look, StoreReader

LONGEST_UNTOLD = 1 << 40
"""What comes without a length from anywhere is given up after so many bytes."""


def from_store(
    task: Task, planned: Planned, kind: str | None, *, may_be_empty: bool = False
) -> Stream:
    """An object of a store as the plan saw it; a short one is read at once, in the call that looks
    at it. Raises Changed, StoreFailed."""
    source = task.source
    assert source is not None
    if planned.size <= THROUGH_HERE:
        try:
            found = source.whole(planned.key, THROUGH_HERE)
        except StoreFailed:
            as_planned(source, planned)  # it may have become long
            raise
        if found is None or not is_same(found[0].seen, planned):
            raise _changed(source, planned)
        lying, chunks = found[0], iter((found[1],))
    else:
        lying = as_planned(source, planned)
        chunks = source.read(lying.seen)
    counted = Counted(chunks, kind, told=lying.told, strict=not task.last)
    return Stream(
        counted, lying.seen.size, lying=lying, may_be_empty=may_be_empty, encoding=lying.encoding
    )


def as_planned(store: StoreReader, planned: Planned) -> Look:
    """An object, if it is still what the plan saw. Raises Changed, ListingBroken, StoreFailed."""
    look = store.look(planned.key)
    if look is None or not (is_same(look.seen, planned) or _is_listed_so(store, look, planned)):
        raise _changed(store, planned)
    return look


def _is_listed_so(store: StoreReader, look: Look, planned: Planned) -> bool:
    """Whether an object has another version when it is looked at than in a list, which still shows
    the one that the plan saw: so OpenStack Swift 2.30.1 with copies of what was uploaded in parts
    (../shared/lab/swift-multipart-etag.sh)."""
    if look.seen.size != planned.size:
        return False
    listed = store.some_between(planned.key, planned.key, 1)
    shown = any(is_same(seen, planned) for seen in listed)
    again = store.look(planned.key) if shown else None
    return again is not None and again.seen.version == look.seen.version


def _changed(store: StoreReader, planned: Planned) -> Changed:
    return Changed(f"{store.name}:{planned.key} is not what the plan saw")


def recording(task: Task, body: Body, said: list[str]) -> Stream:
    """The one file that a recording is, or its biggest one. Where 100ms's record says more than the
    server, and that has no more behind it, the record is what is doubted. Raises SourceFailed."""
    told, length = task.action.facts.get("size"), body.length
    if length is not None and told is not None and length != told:
        if 0 < length < told and task.downloads.has_more(task.action.asset_id, length):
            raise SourceFailed(f"{length} bytes are announced, and the server has more than that")
        said.append(f"100ms's record says {told} bytes, {length} came")
    kind = kind_of(task.action.type, path_of(task.action))
    counted = Counted(body.chunks, kind, body.content_type, strict=not task.last)
    if body.stored_length is not None and told in (None, body.stored_length):
        return Stream(counted, length, whole=True)  # the record says what it has when it is packed
    return Stream(
        counted,
        length if length is not None else told,
        told if length is None else None,
        may_be_empty=length == 0 and not told,
        encoding=body.encoding,
    )


def path_of(action: Action) -> str:
    return str(action.facts.get("path") or "")


def ready(content: bytes) -> Stream:
    return Stream(Counted([content]), len(content))


def watched(stream: Stream, task: Task, *, replacing: bool = False) -> Iterator[bytes]:
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
    if replacing and (reason := not_believable(came, stream)):
        raise SourceFailed(reason)


def not_believable(came: int, stream: Stream) -> str | None:
    """Why this may not be the whole recording: nobody says how many bytes there are, 100ms's own
    record says more where the server says nothing, or they are odd."""
    if stream.expected is None and not stream.whole:
        return f"{came} bytes came and nobody says how many there are"
    if stream.told is not None and came < stream.told:
        return f"{came} bytes came, 100ms's record says {stream.told}"
    return stream.counted.odd
