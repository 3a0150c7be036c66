"""What the bytes of a recording may be: error pages in their place, odd ones, and what is only
unusual."""

from __future__ import annotations

import gzip

import pytest

from retainer.apply.kinds import error_page, inside, kind_of, oddity
from retainer.apply.verify import Counted
from retainer.errors import SourceFailed

MP4 = b"\0\0\0\x18ftypisom" + bytes(20)
WEBM = b"\x1aE\xdf\xa3" + b"w" * 40
MP3 = b"ID3\x04\0" + bytes(20)
AAC = b"\xff\xf1\x50\x80" + b"\xaa" * 40
TS = b"G@\0\x10" + b"\xff" * 184 + b"G"
ZIP_END = b"PK\x05\x06" + bytes(18)


@pytest.mark.parametrize(
    ("kind", "first"),
    [
        ("mp4", MP4),
        ("mp4", b"\0\0\0\x10uuid" + bytes(40)),
        ("mp4", WEBM),
        ("webm", MP4),
        ("mp4", MP3),
        ("mp3", b"\xff\xfb\x90\x00" + bytes(40)),
        ("aac", AAC),
        ("mp4", TS),
        ("csv", b"SenderPeerID\nhello\0there"),
        ("csv", "a,b\n".encode("utf-16")),
        ("csv", b"\xff\xfea\0,\0b\0"),
        ("txt", b"John: hello"),
        ("srt", b"WEBVTT\n\n"),
        ("srt", b"\n"),
        ("json", b"null"),
        ("json", b"17"),
        ("json", b'{"error":null,"words":[],"sentences":[]}'),
        ("json", b"John: hello"),
        ("txt", b"<?xml version='1.0'?><tt/>"),
        ("file", b"\x8a" * 16),
        ("ts", b"\x8a" * 16),
    ],
)
def test_what_is_only_unusual_is_well(kind: str, first: bytes) -> None:
    assert error_page(kind, "", first) is None
    assert oddity(kind, "", first) is None


@pytest.mark.parametrize(
    ("kind", "content_type", "first", "reason"),
    [
        ("mp4", "", b"<!DOCTYPE html>", "an HTML page"),
        ("csv", "", b"\n <html>", "an HTML page"),
        ("mp4", "", b"<?xml version='1.0'?>\n<Error><Code>AccessDenied", "an XML error"),
        ("txt", "", b"<Error><Code>NoSuchKey", "an XML error"),
        ("csv", "", b'{"code":404,"message":"no","details":[]}', "a JSON error"),
        ("file", "", b'{"error":{"code":403}}', "a JSON error"),
        ("mp4", "text/html; charset=utf-8", b"\x01\x02", "the server calls it text/html"),
        ("mp4", "application/json", b"[1]", "the server calls it application/json"),
        ("mp4", "", b"upstream connect error", "text"),
        ("zip", "", b"Access denied", "text"),
        ("ts", "text/plain", b"no healthy upstream", "text"),
    ],
)
def test_an_error_in_the_place_of_a_recording_is_refused(
    kind: str, content_type: str, first: bytes, reason: str
) -> None:
    assert error_page(kind, content_type, first) == reason


@pytest.mark.parametrize(
    ("kind", "content_type", "first", "reason"),
    [
        ("mp4", "", bytes(50), "it does not begin like an mp4"),
        ("webm", "", b"PK\x03\x04", "it begins like a zip"),
        ("mp4", "", b"#EXTM3U\n", "it does not begin like an mp4"),
        ("csv", "", MP4, "it begins like an mp4"),
        ("json", "", b"\x89PNG\r\n", "it begins like a png"),
        ("csv", "text/html", b"a,b", "the server calls it text/html"),
        ("jpg", "", MP4, "it begins like an mp4"),
    ],
)
def test_what_is_odd_is_no_error_page(
    kind: str, content_type: str, first: bytes, reason: str
) -> None:
    assert error_page(kind, content_type, first) is None
    assert oddity(kind, content_type, first) == reason


def test_media_is_media_whatever_the_server_calls_it() -> None:
    for said in ("text/html", "application/json", "text/plain", "application/xml"):
        assert error_page("mp4", said, MP4) is None
        assert oddity("mp4", said, MP4) is None


@pytest.mark.parametrize(
    ("asset_type", "name", "kind"),
    [
        ("track", "x.mp4", "mp4"),
        ("room-composite", "x.webm", "webm"),
        ("room-composite", "x.mp3", "mp3"),
        ("room-composite", "x.txt", "mp4"),
        ("chat", "x.mp4", "csv"),
        ("chat", "x.json", "json"),
        ("transcript", "x.vtt", "vtt"),
    ],
)
def test_the_end_of_a_name_counts_as_much_as_the_type(
    asset_type: str, name: str, kind: str
) -> None:
    assert kind_of(asset_type, name) == kind


def test_what_is_packed_is_judged_by_what_is_inside() -> None:
    page = gzip.compress(b"<html>" + b"x" * 5000)
    with pytest.raises(SourceFailed, match="an HTML page"):
        list(Counted([page], "csv"))
    text = gzip.compress(b"a,b\n" * 5000)
    counted = Counted([text[:100], text[100:]], "csv")
    assert b"".join(counted) == text and counted.odd is None
    assert inside(b"\x1f\x8bno gzip") == b"\x1f\x8bno gzip"


@pytest.mark.parametrize(
    ("content", "odd"),
    [
        (b"PK\x03\x04" + b"z" * 100, "it has no end of central directory"),
        (b"PK\x03\x04" + b"z" * 100 + ZIP_END, None),
        (b"PK\x07\x08PK\x03\x04" + b"z" * 100 + ZIP_END, None),
        (b"MZ\x90\0" + b"z" * 200_000 + ZIP_END + b"c" * 60_000, None),
        (b"PK\x03\x04" + ZIP_END + b"z" * 200_000, "it has no end of central directory"),
        (b"", "it is empty"),
    ],
)
@pytest.mark.parametrize("piece", [7, 1 << 16])
def test_a_zip_is_what_has_an_end_near_its_end(content: bytes, odd: str | None, piece: int) -> None:
    pieces = [content[at : at + piece] for at in range(0, len(content), piece)]
    counted = Counted(pieces, "zip")
    assert b"".join(counted) == content
    assert counted.odd == (odd and f"the bytes are no zip: {odd}")


def test_what_begins_oddly_is_refused_while_a_next_try_may_bring_better() -> None:
    with pytest.raises(SourceFailed, match="does not begin like an mp4"):
        list(Counted([bytes(50)], "mp4", strict=True))
    counted = Counted([bytes(50)], "mp4")
    assert b"".join(counted) == bytes(50)
    assert counted.odd == "the bytes are no mp4: it does not begin like an mp4"


def test_bytes_of_which_no_kind_is_expected_are_whatever_they_are() -> None:
    """What is read back from a store is compared, and not judged."""
    page = b"<html>not found</html>"
    counted = Counted([page], content_type="text/html")
    assert (b"".join(counted), counted.odd) == (page, None)


def test_nothing_at_all_is_no_error_page() -> None:
    counted = Counted([], "mp4", "application/json")
    assert (list(counted), counted.odd) == ([], "the bytes are no mp4: it is empty")


def test_what_begins_oddly_goes_through_unless_a_better_try_is_to_come() -> None:
    odd = bytes(range(200, 256))
    counted = Counted([odd], "mp4")
    assert b"".join(counted) == odd and counted.odd is not None
    with pytest.raises(SourceFailed, match="the bytes are no mp4"):
        list(Counted([odd], "mp4", strict=True))
