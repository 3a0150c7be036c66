"""HLS playlists followed to their ends: every object that they lead to, and an error for whatever
is not understood."""

from __future__ import annotations

import hashlib

import pytest

from retainer.apply.playlists import Tree, follow
from retainer.errors import SourceFailed

AT = "https://cdn.example/x/vod/"


def media(*lines: str, end: str = "#EXT-X-ENDLIST") -> str:
    return "\n".join(["#EXTM3U", "#EXT-X-TARGETDURATION:2", *lines, end, ""])


def master(*lines: str) -> str:
    return "\n".join(["#EXTM3U", *lines, ""])


def segment(uri: str) -> str:
    return f"#EXTINF:2,\n{uri}"


def followed(
    files: dict[str, str | bytes], entry: str = "master.m3u8", beside: tuple[str, ...] = ()
) -> Tree:
    def read(address: str) -> bytes:
        content = files[address.removeprefix(AT)]
        return content if isinstance(content, bytes) else content.encode()

    return follow(AT + entry, read, [AT + name for name in beside])


def test_a_media_playlist_alone_is_a_recording() -> None:
    tree = followed({"a.m3u8": media(segment("0.ts"), segment("1.ts"))}, "a.m3u8")
    assert (tree.members, tree.entry) == ({"0.ts": AT + "0.ts", "1.ts": AT + "1.ts"}, "a.m3u8")


def test_everything_that_a_playlist_names_is_a_member() -> None:
    rich = media(
        '#EXT-X-MAP:URI="init.mp4",BYTERANGE="10@0"',
        '#EXT-X-KEY:METHOD=AES-128,URI="k1.key"',
        "#EXT-X-BYTERANGE:5@0",
        segment("all.m4s"),
        '#EXT-X-PART:DURATION=1,URI="part.mp4"',
        '#EXT-X-KEY:METHOD=AES-128,URI="k2.key"',
        "#EXT-X-BYTERANGE:5@5",
        segment("all.m4s"),
        '#EXT-X-MAP:URI="init2.mp4"',
        segment("last.m4s"),
        '#EXT-X-KEY:METHOD=AES-128,URI="data:text/plain;base64,AAAA"',
        segment("inline.m4s"),
    )
    top = master(
        '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="x",URI="a.m3u8"',
        '#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="s",NAME="x",URI="s.m3u8"',
        '#EXT-X-SESSION-KEY:METHOD=AES-128,URI="top.key"',
        '#EXT-X-SESSION-DATA:DATA-ID="x",URI="d.json"',
        '#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=1,URI="i.m3u8"',
        '#EXT-X-STREAM-INF:BANDWIDTH=1,AUDIO="a"',
        "v.m3u8",
    )
    lists = {
        "a.m3u8": media(segment("a.aac")),
        "s.m3u8": media(segment("s.vtt")),
        "i.m3u8": media(segment("all.m4s")),
        "v.m3u8": rich,
    }
    tree = followed({"master.m3u8": top, **lists})
    assert set(tree.members) == {
        "init.mp4",
        "init2.mp4",
        "k1.key",
        "k2.key",
        "all.m4s",
        "part.mp4",
        "last.m4s",
        "inline.m4s",
        "a.aac",
        "s.vtt",
        "top.key",
        "d.json",
    }
    assert {playlist.name: playlist.content for playlist in tree.playlists} == {
        name: text.encode() for name, text in {"master.m3u8": top, **lists}.items()
    }
    assert tree.playlists[-1].name == "master.m3u8" and not any(
        playlist.was for playlist in tree.playlists
    )


def test_what_lies_above_the_entry_keeps_its_place_beside_it() -> None:
    low = {"https://cdn.example/x/low/v.m3u8": media(segment("0.ts"))}
    tree = followed({"master.m3u8": master("#EXT-X-STREAM-INF:BANDWIDTH=1", "../low/v.m3u8")} | low)
    assert (tree.entry, set(tree.members)) == ("vod/master.m3u8", {"low/0.ts"})


def test_names_are_decoded_and_the_playlist_stays_as_it_is() -> None:
    text = media(segment("seg%201.ts"))
    tree = followed({"a.m3u8": text}, "a.m3u8")
    assert (set(tree.members), tree.playlists[0].content) == ({"seg 1.ts"}, text.encode())


def test_one_path_with_two_queries_is_two_members_that_the_playlist_leads_to() -> None:
    text = media(segment("s.ts?part=1"), segment("s.ts?part=2"), segment("plain.ts"))
    tree = followed({"a.m3u8": text}, "a.m3u8")
    one, two = (
        f"s-{hashlib.sha256(query).hexdigest()[:12]}.ts" for query in (b"part=1", b"part=2")
    )
    assert set(tree.members) == {one, two, "plain.ts"}
    assert tree.playlists[0].content.decode() == media(
        segment(one), segment(two), segment("plain.ts")
    )
    assert tree.playlists[0].was == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("uri", [AT + "0/k.key", "/x/vod/0/k.key", "//cdn.example/x/vod/0/k.key"])
def test_an_absolute_address_on_the_same_host_becomes_a_relative_one(uri: str) -> None:
    text = media(f'#EXT-X-KEY:METHOD=AES-128,URI="{uri}",IV=0x0', segment("1/s.ts"))
    tree = followed({"0/a.m3u8": text}, "0/a.m3u8")
    assert set(tree.members) == {"k.key", "1/s.ts"}
    assert tree.playlists[0].content.decode() == text.replace(uri, "k.key")


def test_a_byte_order_mark_and_crlf_are_kept() -> None:
    content = b"\xef\xbb\xbf" + media(segment("0.ts")).replace("\n", "\r\n").encode()
    assert followed({"a.m3u8": content}, "a.m3u8").playlists[0].content == content


def test_what_lies_beside_it_is_a_member_too() -> None:
    tree = followed(
        {"a.m3u8": media(segment("0.ts"), segment("poster.jpg"))},
        "a.m3u8",
        ("thumbnails/1.jpg", "poster.jpg", "a.m3u8"),
    )
    assert (set(tree.members), set(tree.beside)) == ({"0.ts", "poster.jpg"}, {"thumbnails/1.jpg"})


def test_a_member_that_would_lie_where_the_manifest_does_gets_another_name() -> None:
    tree = followed(
        {"a.m3u8": media(segment("manifest.json"), segment("0/manifest.json"))}, "a.m3u8"
    )
    assert set(tree.members) == {"_manifest.json", "0/_manifest.json"}
    assert tree.playlists[0].content.decode() == media(
        segment("_manifest.json"), segment("0/_manifest.json")
    )


@pytest.mark.parametrize(
    "files, sentence",
    [
        ({"master.m3u8": ""}, "is no playlist"),
        ({"master.m3u8": "<html></html>"}, "is no playlist"),
        ({"master.m3u8": b"#EXTM3U\n\xff\xfe"}, "is no playlist"),
        ({"master.m3u8": b"#EXTM3U\n" + b"#" * (17 << 20)}, "is longer than 16 MiB"),
        ({"master.m3u8": media(segment("0.ts"), end="")}, "has no end"),
        ({"master.m3u8": media()}, "names no segment"),
        (
            {
                "master.m3u8": media(
                    '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="x",URI="a.m3u8"', segment("0.ts")
                )
            },
            "which no playlist may",
        ),
        ({"master.m3u8": media("stray.ts")}, "names no segment"),
        (
            {"master.m3u8": media('#EXT-X-NEW-THING:A,URI="new.bin"', segment("0.ts"))},
            "does not understand",
        ),
        (
            {"master.m3u8": media('#EXT-X-MAP:URI="{$name}.mp4"', segment("0.ts"))},
            "does not understand",
        ),
        (
            {"master.m3u8": media(segment("https://other.example/0.ts"))},
            "another host (https://other.example)",
        ),
        (
            {"master.m3u8": media(segment("http://cdn.example/x/vod/0.ts"))},
            "another host (http://cdn.example)",
        ),
        ({"master.m3u8": media(segment("https://cdn.example:8443/0.ts"))}, "another host"),
        ({"master.m3u8": media(segment("https://user@cdn.example/0.ts"))}, "another host"),
        ({"master.m3u8": media(segment("file:///etc/passwd"))}, "a file on this machine"),
        (
            {"master.m3u8": media('#EXT-X-KEY:METHOD=SAMPLE-AES,URI="skd://key"', segment("0.ts"))},
            "another host (skd://key)",
        ),
        ({"master.m3u8": media(segment("a%2f..%2f..%2fx.ts"))}, "no name that a store could keep"),
        ({"master.m3u8": media(segment("a%00b.ts"))}, "no name that a store could keep"),
        ({"master.m3u8": media(segment("x" * 300))}, "no name that a store could keep"),
        ({"master.m3u8": media(segment("master.m3u8"))}, "a loop"),
        ({"master.m3u8": master("#EXT-X-STREAM-INF:BANDWIDTH=1", "master.m3u8")}, "a loop"),
        (
            {
                "master.m3u8": master("#EXT-X-STREAM-INF:BANDWIDTH=1", "b.m3u8"),
                "b.m3u8": master("#EXT-X-STREAM-INF:BANDWIDTH=1", "c.m3u8"),
            },
            "a loop",
        ),
        (
            {
                "master.m3u8": master("#EXT-X-STREAM-INF:BANDWIDTH=1", "b.m3u8"),
                "b.m3u8": media(segment("master.m3u8")),
            },
            "a loop",
        ),
    ],
)
def test_what_is_not_whole_or_not_understood_is_an_error(
    files: dict[str, str | bytes], sentence: str
) -> None:
    with pytest.raises(SourceFailed) as failed:
        followed(files)
    assert sentence in failed.value.message
    assert "?" not in failed.value.message
