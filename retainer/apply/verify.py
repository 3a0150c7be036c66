"""Whether what was written is what was read: size and a strong checksum, and no error page saved as
a recording."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import chain

import google_crc32c

from retainer.apply.kinds import (
    HEAD,
    LONGEST_END_OF_ZIP,
    NEVER_EMPTY,
    error_page,
    has_end_of_zip,
    inside,
    oddity,
)
from retainer.errors import SourceFailed, Unverified
from retainer.model.setting import Lock
from retainer.ports import (
    Checksum,
    ChecksumKind,
    Digest,
    Hasher,
    Look,
    Seen,
    StoreReader,
    StoreWriter,
)


class Counted:
    """A stream that counts and digests what goes by, and looks at its first bytes before it lets
    any through.

    Ends in SourceFailed where an error page came, or the bytes do not have the checksum that was
    told.
    """

    def __init__(
        self,
        chunks: Iterable[bytes],
        kind: str | None = None,
        content_type: str = "",
        told: Checksum | None = None,
        *,
        strict: bool = False,
    ) -> None:
        """`kind`: what the bytes are expected to be (see `kind_of`); None: whatever comes. `told`:
        the checksum that is stored with them. `strict`: what begins oddly ends in SourceFailed too,
        since the next try may bring better."""
        self._chunks = chunks
        self._kind = kind
        self._content_type = content_type
        self._size = 0
        self._crc32c = google_crc32c.Checksum()
        self._sha256 = hashlib.sha256()
        self._strict = strict
        self._told = told
        self._as_told = (
            self._crc32c if told is None or told.kind == "crc32c" else _hasher(told.kind)
        )
        self._hashers: set[Hasher] = {self._crc32c, self._sha256, self._as_told}
        self.odd: str | None = None
        """Once it has ended: why these may not be the bytes that were expected."""

    def __iter__(self) -> Iterator[bytes]:
        tail = b""
        for chunk in self._judged():
            self._size += len(chunk)
            for hasher in self._hashers:
                hasher.update(chunk)
            if self._kind == "zip":
                tail = (tail + chunk)[-LONGEST_END_OF_ZIP:]
            yield chunk
        if self._told and self._told != Checksum.of(self._told.kind, self._as_told):
            raise SourceFailed(
                "the bytes do not have the checksum that is stored with them",
                hint="they are damaged there, or were from the start",
            )
        if tail and not has_end_of_zip(tail):
            self._is_odd("it has no end of central directory")
        if self._size == 0 and self._kind in NEVER_EMPTY:
            self._is_odd("it is empty")

    def _judged(self) -> Iterator[bytes]:
        """The chunks, none of them empty, once the first kibibyte was looked at."""
        chunks = iter(self._chunks)
        head = b""
        while len(head) < HEAD and (chunk := next(chunks, None)) is not None:
            head += chunk
        if self._kind and head:
            first = inside(head)[:HEAD]
            error = error_page(self._kind, self._content_type, first)
            odd = oddity(self._kind, self._content_type, first)
            if reason := error or (odd if self._strict else None):
                raise SourceFailed(
                    f"the bytes are no {self._kind}: {reason}",
                    hint="look at the recording in the 100ms dashboard",
                )
            if odd:
                self._is_odd(odd)
        yield from filter(None, chain([head], chunks))

    def _is_odd(self, reason: str) -> None:
        self.odd = f"the bytes are no {self._kind}: {reason}"

    def digest(self) -> Digest:
        return Digest(
            self._size, Checksum.of("crc32c", self._crc32c).value, self._sha256.hexdigest()
        )


class _Crc64Nvme:
    def __init__(self) -> None:
        import anycrc  # only what an S3 made by itself needs it

        self._model, self._number = anycrc.Model("CRC64-NVME"), 0

    def update(self, chunk: bytes) -> None:
        self._number = self._model.calc(chunk, self._number)

    def digest(self) -> bytes:
        return self._number.to_bytes(8, "big")


def _hasher(kind: ChecksumKind) -> Hasher:
    return google_crc32c.Checksum() if kind == "crc32c" else _Crc64Nvme()


def digest_of(store: StoreReader, look: Look) -> Digest:
    """The digest of an object's bytes, read back. Raises StoreFailed."""
    counted = Counted(store.read(look.seen))
    for _ in counted:
        pass
    return counted.digest()


def checksum_of(store: StoreReader, look: Look, kind: ChecksumKind) -> Checksum:
    """An object's checksum of one kind: the store's own, else that of the bytes read back. Raises
    StoreFailed."""
    if look.checksum is not None and look.checksum.kind == kind:
        return look.checksum
    return _computed(store.read(look.seen), kind)


def _computed(chunks: Iterable[bytes], kind: ChecksumKind) -> Checksum:
    hasher = _hasher(kind)
    for chunk in chunks:
        hasher.update(chunk)
    return Checksum.of(kind, hasher)


def as_recorded(store: StoreReader, key: str, size: int, checksum: Checksum) -> Look | None:
    """The object, if what lies there still has this size and checksum. Raises StoreFailed."""
    look = store.look(key)
    return (
        look
        if look is not None
        and look.seen.size == size
        and checksum_of(store, look, checksum.kind) == checksum
        else None
    )


def proven_same(store: StoreReader, key: str, digest: Digest) -> Look:
    """Look at what was written, and compare its size and checksum. Raises Unverified when they
    differ, StoreFailed otherwise."""
    look = store.look(key)
    if look is None:
        raise Unverified(f"{store.name}:{key} was written and is not there")
    if look.seen.size != digest.size:
        raise Unverified(f"{store.name}:{key} has {look.seen.size} bytes, {digest.size} were sent")
    # A store may state a checksum of another kind than it says, so the bytes themselves have the
    # last word.
    if look.checksum != digest.checksum and digest_of(store, look).sha256 != digest.sha256:
        raise Unverified(f"{store.name}:{key} has another checksum than what was sent")
    return look


def locked(
    store: StoreWriter,
    seen: Seen,
    until: datetime,
    announce: Callable[[], None] = lambda: None,
    mode: Lock | None = None,
) -> tuple[Seen, bool] | None:
    """An object with its lock, and whether it was locked (longer) for that; None where another one
    lies there by now. `announce` is told before anything is asked for.

    What was asked for is looked at: copies can drop a lock, and servers can forget one. A lock in
    force that nobody could take back is left as it is where `mode` says governance. Raises
    Unverified, StoreFailed.
    """
    for is_new in (False, True):
        if is_new:
            announce()
            store.lock(seen, until)
        look = store.look(seen.key)
        if look is None or look.seen.version != seen.version:
            return None
        end = look.seen.retained_until
        if end is not None and (end >= until or (mode and _is_final(look.seen, mode, store))):
            return look.seen, is_new
    raise Unverified(
        f"{store.name}:{seen.key} is there, but without its lock",
        hint="does the bucket have Object Lock or object retention?",
    )


def _is_final(seen: Seen, mode: Lock, store: StoreReader) -> bool:
    """Whether nobody can take this lock back, other than people want it."""
    end = seen.retained_until
    in_force = end is not None and end > store.server_time()
    return in_force and seen.lock_mode == "compliance" and mode != "compliance"
