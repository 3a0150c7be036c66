"""Whether what was written is what was read: size and a strong checksum, and no error page saved as
a recording."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain

import google_crc32c

from retainer.errors import SourceFailed, Unverified
from retainer.ports import Checksum, ChecksumKind, Digest, Hasher, Look, StoreReader


class Counted:
    """A stream that counts and digests what goes by, and looks at its first bytes before it lets
    any through.

    Ends in SourceFailed where the bytes are not of their kind, or do not have the checksum that was
    told.
    """

    def __init__(
        self,
        chunks: Iterable[bytes],
        kind: str | None = None,
        content_type: str = "",
        told: Checksum | None = None,
        *,
        stored: bool = False,
    ) -> None:
        """`kind`: what the bytes must be (see `kind_of`); None: whatever comes. `told`: the
        checksum that is stored with them.

        `stored`: they lie in a store, where they may be compressed, so that they do not begin as
        their kind does.
        """
        self._chunks = chunks
        self._kind = kind
        self._content_type = content_type
        self._size = 0
        self._crc32c = google_crc32c.Checksum()
        self._sha256 = hashlib.sha256()
        self._stored = stored
        self._told = told
        self._as_told = (
            self._crc32c if told is None or told.kind == "crc32c" else _hasher(told.kind)
        )
        self._hashers: set[Hasher] = {self._crc32c, self._sha256, self._as_told}

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._judged():
            self._size += len(chunk)
            for hasher in self._hashers:
                hasher.update(chunk)
            yield chunk
        if self._told and self._told != Checksum.of(self._told.kind, self._as_told):
            raise SourceFailed(
                "the bytes do not have the checksum that is stored with them",
                hint="they are damaged there, or were from the start",
            )

    def _judged(self) -> Iterator[bytes]:
        """The chunks, none of them empty, once the first kibibyte was looked at."""
        chunks = iter(self._chunks)
        head = b""
        while len(head) < 1024 and (chunk := next(chunks, None)) is not None:
            head += chunk
        compressed = self._stored and head.startswith(_GZIP)
        if (
            self._kind
            and head
            and not compressed
            and (reason := not_a_recording(self._kind, self._content_type, head[:1024]))
        ):
            raise SourceFailed(
                f"the bytes are no {self._kind}: {reason}",
                hint="look at the recording in the 100ms dashboard",
            )
        yield from filter(None, chain([head], chunks))

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


_KINDS = {
    "room-composite": "mp4",
    "room-composite-legacy": "mp4",
    "stream": "mp4",
    "track": "webm",
    "chat": "csv",
    "summary": "json",
}
"""What each type's file is (docs/100ms-api.md); a transcript is what its name says, and so is a
`room-vod`, else it is zipped."""
_STARTS: dict[str, tuple[bytes, ...]] = {
    "webm": (b"\x1aE\xdf\xa3",),
    "zip": (b"PK\x03\x04", b"PK\x05\x06"),
    "m3u8": (b"#EXTM3U",),
    "json": (b"{", b"["),
    "vtt": (b"WEBVTT",),
    "jpg": (b"\xff\xd8\xff",),
    "jpeg": (b"\xff\xd8\xff",),
    "png": (b"\x89PNG",),
}
_BOXES = (
    b"ftyp",
    b"styp",
    b"moov",
    b"moof",
    b"mdat",
    b"free",
    b"skip",
    b"wide",
    b"sidx",
    b"emsg",
    b"prft",
)
_GZIP = b"\x1f\x8b"
_TEXTS = ("m3u8", "csv", "txt", "srt", "json", "vtt", "xml", "ttml")


def kind_of(asset_type: str | None, name: str) -> str:
    """What the bytes of a recording must be: by the asset's type; of a member and of a transcript,
    by the end of its name; else `file`."""
    end = name.rpartition(".")[2].lower()
    by_name = (
        end
        if end in {*_STARTS, *_TEXTS, "mp4", "m4s", "cmfv", "cmfa"}
        else "zip"
        if asset_type == "room-vod"
        else "file"
    )
    return _KINDS.get(asset_type or "", by_name)


def kind_beside(name: str) -> str | None:
    """What a member must be that lies in a bucket, where somebody may have put what 100ms does not:
    no error page, and of a text nobody knows."""
    return None if kind_of(None, name) in _TEXTS else "file"


def not_a_recording(kind: str, content_type: str, first: bytes) -> str | None:
    """Why these first bytes cannot be of this kind, or None."""
    start = first.lstrip(b"\xef\xbb\xbf \t\r\n")
    said = content_type.split(";")[0].strip().lower()
    if said == "text/html" or start[:9].lower().startswith((b"<!doctype", b"<html")):
        return "an HTML page"
    if start.startswith(b"<?xml") and kind not in ("xml", "ttml"):
        return "an XML error"
    if _is_error_json(start):
        return "a JSON error"
    if kind not in _TEXTS and said in ("application/json", "application/xml", "text/xml"):
        return f"the server calls it {said}"
    match kind:
        case "mp4" | "m4s" | "cmfv" | "cmfa":
            return None if first[4:8] in _BOXES else "it does not begin like one"
        case "srt" if not re.match(rb"[0-9]+\s*[\r\n]", start):
            return "it does not begin with a number"
        case "csv" | "txt" | "srt" | "xml" | "ttml":
            return "it is not text" if b"\0" in first else None
        case _ if kind in _STARTS:
            return (
                None
                if (start if kind in _TEXTS else first).startswith(_STARTS[kind])
                else "it does not begin like one"
            )
    return None


def _is_error_json(start: bytes) -> bool:
    if not start.startswith(b"{") or len(start) >= 1000:
        return False
    try:
        body = json.loads(start)
    except ValueError:
        return False
    return (
        isinstance(body, dict)
        and bool({"code", "error", "errors"} & body.keys())
        and len(body) <= 4
    )


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
