"""Whether what was written is what was read: size and a strong checksum, and no error page saved as a recording."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator

import google_crc32c

from retainer.errors import SourceFailed, Unverified
from retainer.ports import Digest, Look, StoreReader


class Counted:
    """A stream that counts and digests what goes by, and looks at its first bytes before it lets any through."""

    def __init__(self, chunks: Iterator[bytes], asset_type: str | None, content_type: str) -> None:
        self._chunks = chunks
        self._type = asset_type
        self._content_type = content_type
        self._size = 0
        self._crc32c = google_crc32c.Checksum()
        self._sha256 = hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        first = True
        for chunk in self._chunks:
            if not chunk:
                continue
            if first:
                first = False
                if reason := not_a_recording(self._type, self._content_type, chunk[:1024]):
                    raise SourceFailed(f"the bytes are no {self._type or 'recording'}: {reason}", hint="look at the recording in the 100ms dashboard")
            self._size += len(chunk)
            self._crc32c.update(chunk)
            self._sha256.update(chunk)
            yield chunk

    def digest(self) -> Digest:
        return Digest(self._size, base64.b64encode(self._crc32c.digest()).decode(), self._sha256.hexdigest())


def not_a_recording(asset_type: str | None, content_type: str, first: bytes) -> str | None:
    """Why these first bytes cannot be an asset of this type, or None. Types and their files: docs/100ms-api.md."""
    start = first.lstrip(b"\xef\xbb\xbf \t\r\n")
    kind = content_type.split(";")[0].strip().lower()
    if kind == "text/html" or start[:9].lower().startswith((b"<!doctype", b"<html")):
        return "an HTML page"
    if start.startswith(b"<?xml"):
        return "an XML error"
    if _is_error_json(start):
        return "a JSON error"
    match asset_type:
        case "room-composite" | "room-composite-legacy" | "stream":
            return None if first[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide") else "not an mp4"
        case "track":
            return None if first.startswith(b"\x1aE\xdf\xa3") else "not a webm"
        case "room-vod":
            return None if first.startswith(b"PK") else "not a zip"
        case "summary":
            return None if start[:1] in (b"{", b"[") else "not JSON"
        case "chat" | "transcript":
            return "not text" if b"\0" in first else None
        case _:
            return None


def _is_error_json(start: bytes) -> bool:
    if not start.startswith(b"{") or len(start) >= 1000:
        return False
    try:
        body = json.loads(start)
    except ValueError:
        return False
    return isinstance(body, dict) and bool({"code", "error", "errors"} & body.keys()) and len(body) <= 4


def digest_of(store: StoreReader, look: Look) -> Digest:
    """The digest of an object's bytes, read back. Raises StoreFailed."""
    counted = Counted(store.read(look.seen), None, "")
    for _ in counted:
        pass
    return counted.digest()


def proven_same(store: StoreReader, key: str, digest: Digest) -> Look:
    """Look at what was written, and compare its size and checksum. Raises Unverified when they differ, StoreFailed otherwise."""
    look = store.look(key)
    if look is None:
        raise Unverified(f"{store.name}:{key} was written and is not there")
    if look.seen.size != digest.size:
        raise Unverified(f"{store.name}:{key} has {look.seen.size} bytes, {digest.size} were sent")
    # A store may state a checksum of another kind than it says, so the bytes themselves have the last word.
    if look.crc32c != digest.crc32c and digest_of(store, look).sha256 != digest.sha256:
        raise Unverified(f"{store.name}:{key} has another checksum than what was sent")
    return look
