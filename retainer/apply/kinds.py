"""What the bytes of a recording may be: an error page in its place is refused, and what is only odd
is kept, and said."""

from __future__ import annotations

import json
import re
import zlib

_OF_TYPES = {
    "room-composite": "mp4",
    "room-composite-legacy": "mp4",
    "stream": "mp4",
    "track": "webm",
    "chat": "csv",
    "summary": "json",
}
"""What each type's file is (docs/reference/100ms-api.md); a transcript is what its name says, and
so is a `room-vod`, else it is zipped."""
_TEXTS = ("m3u8", "csv", "txt", "srt", "json", "vtt", "xml", "ttml")
_IMAGES = ("jpg", "jpeg", "png")
_MEDIA = ("mp4", "m4a", "mov", "m4s", "cmfv", "cmfa", "webm", "mkv", "mp3", "aac", "ogg", "wav")
NEVER_EMPTY = (*_MEDIA, *_IMAGES, "zip", "ts")
_BOXES = (
    b"ftyp",
    b"styp",
    b"moov",
    b"moof",
    b"mdat",
    b"meta",
    b"free",
    b"skip",
    b"wide",
    b"uuid",
    b"sidx",
    b"emsg",
    b"prft",
    b"pdin",
)
_STARTS = (
    (b"\x1aE\xdf\xa3", "webm"),
    (b"OggS", "ogg"),
    (b"RIFF", "wav"),
    (b"ID3", "mp3"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"PK\x07\x08", "zip"),
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG", "png"),
)
GZIP = b"\x1f\x8b"
_END_OF_ZIP = b"PK\x05\x06"
LONGEST_END_OF_ZIP = 22 + 0xFFFF
"""So near to its end a zip has its end of central directory (APPNOTE.TXT 4.3.16): a spanning marker
or a program may stand before everything else."""
HEAD = 1024
"""So many bytes are looked at before any goes through."""


def kind_of(asset_type: str | None, name: str) -> str:
    """What the bytes of a recording are expected to be: by the end of its name, where that is none
    that its type cannot be, else by its type; else `file`."""
    end = name.rpartition(".")[2].lower()
    by_type = "zip" if asset_type == "room-vod" else _OF_TYPES.get(asset_type or "", "file")
    known = end in (*_TEXTS, *NEVER_EMPTY)
    alike = by_type in ("zip", "file") or (by_type in _TEXTS) == (end in _TEXTS)
    return end if known and alike else by_type


def kind_beside(name: str) -> str | None:
    """What a member must be that lies in a bucket, where somebody may have put what 100ms does not:
    no error page, and of a text nobody knows."""
    return None if kind_of(None, name) in _TEXTS else "file"


def error_page(kind: str, content_type: str, first: bytes) -> str | None:
    """What of an error stands in the place of these bytes, by the first of them; None: nothing that
    is known to be one. `kind`: as `kind_of` gives it; `content_type`: as the server calls them."""
    if _container(first):
        return None
    start = first.lstrip(b"\xef\xbb\xbf \t\r\n")
    said = content_type.split(";")[0].strip().lower()
    if start[:9].lower().startswith((b"<!doctype", b"<html")):
        return "an HTML page"
    if re.match(rb"(?s)<\?xml.{0,200}?<Error\b|<Error\b", start):
        return "an XML error"
    if _is_error_json(start):
        return "a JSON error"
    if kind in _TEXTS:
        return None
    if said in ("text/html", "application/json", "application/xml", "text/xml"):
        return f"the server calls it {said}"
    if kind in NEVER_EMPTY and not start.startswith(b"#EXTM3U") and _is_text(first):
        return "text"
    return None


def oddity(kind: str, content_type: str, first: bytes) -> str | None:
    """Why these may not be the bytes that were expected, though they are no error page; None:
    nothing speaks against them. Texts can be anything that is no media."""
    found = _container(first)
    if kind in _TEXTS:
        if content_type.split(";")[0].strip().lower() == "text/html":
            return "the server calls it text/html"
        return f"it begins like {_a(found)}" if found else None
    if kind in _MEDIA:
        well = found is not None and found not in ("zip", *_IMAGES)
    elif kind in _IMAGES:
        well = found in ("jpg", "png")
    else:
        return None
    if well:
        return None
    return f"it begins like {_a(found)}" if found else f"it does not begin like {_a(kind)}"


def has_end_of_zip(tail: bytes) -> bool:
    """Whether what ends so, in `LONGEST_END_OF_ZIP` bytes at least or all of them, can be a whole
    zip."""
    return _END_OF_ZIP in tail


def inside(first: bytes) -> bytes:
    """The first bytes of what is packed as gzip; whatever else as it is."""
    if not first.startswith(GZIP):
        return first
    try:
        return zlib.decompressobj(31).decompress(first, HEAD)
    except zlib.error:
        return first


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiom" else f"a {kind}"


def _container(first: bytes) -> str | None:
    """What these bytes begin like, where it is one of the usual kinds of file."""
    if first[4:8] in _BOXES:
        return "mp4"
    for start, kind in _STARTS:
        if first.startswith(start):
            return kind
    if len(first) > 1 and first[0] == 0xFF:
        layer_of = {0xE2: "mp3", 0xE4: "mp3", 0xF0: "aac"}
        frame = first[1] & (0xF6 if first[1] & 0xF6 == 0xF0 else 0xE6)
        return layer_of.get(frame)
    if first[:1] == b"G" and b"\0" in first[:188] and first[188:189] in (b"", b"G"):
        return "ts"
    return None


def _is_text(first: bytes) -> bool:
    try:
        text = first.decode()
    except UnicodeDecodeError as error:
        if error.start < len(first) - 3 or len(first) < HEAD:
            return False
        text = first[: error.start].decode()
    return bool(text) and all(letter.isprintable() or letter in "\t\r\n\f" for letter in text)


def _is_error_json(start: bytes) -> bool:
    if not start.startswith(b"{") or len(start) >= HEAD - 24:
        return False
    try:
        body = json.loads(start)
    except ValueError:
        return False
    return (
        isinstance(body, dict)
        and any(body.get(key) for key in ("code", "error", "errors"))
        and len(body) <= 4
    )
