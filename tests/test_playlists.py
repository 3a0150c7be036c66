"""HLS playlists followed to their ends: every object that they lead to, and what cannot be had."""

from __future__ import annotations

import hashlib

import pytest

from retainer.apply.playlists import Tree, Unreadable, follow
from retainer.errors import SourceFailed

AT = "https://cdn.example/x/vod/"


def media(*lines: str, end: str = "#EXT-X-ENDLIST") -> str:
    return "\n".join(["#EXTM3U", "#EXT-X-TARGETDURATION:2", *lines, end, ""])


def master(*lines: str) -> str:
    return "\n".join(["#EXTM3U", *lines, ""])


def segment(uri: str) -> str:
    return f"#EXTINF:2,\n{uri}"


def followed(
    files: dict[str, str | bytes],
    entry: str = "master.m3u8",
    beside: tuple[str, ...] = (),
    *,
    still_written: bool = False,
) -> Tree:
    def read(address: str) -> bytes:
        content = files.get(address.removeprefix(AT))
        if content is None:
            raise Unreadable(f"{address} is gone")
        return content if isinstance(content, bytes) else content.encode()

    return follow(AT + entry, read, [AT + name for name in beside], still_written=still_written)


def test_a_media_playlist_alone_is_a_recording() -> None:
    tree = followed({"a.m3u8": media(segment("0.ts"), segment("1.ts"))}, "a.m3u8")
    assert (tree.members, tree.entry) == ({"0.ts": AT + "0.ts", "1.ts": AT + "1.ts"}, "a.m3u8")


def test_everything_that_a_playlist_names_is_a_member() -> None:
    rich = media(
        '#EXT-X-MAP:URI="init.mp4",BYTERANGE="10@0"',
        '#EXT-X-KEY:METHOD=AES-128,URI="k1.key"',
        "#EXT-X-BYTERANGE:5@0",
        segment("all.m4s"),
        '#EXT-X-KEY:METHOD=AES-128,URI="k2.key"',
        "#EXT-X-BYTERANGE:5@5",
        segment("all.m4s"),
        '#EXT-X-MAP:URI="init2.mp4"',
        segment("last.m4s"),
        '#EXT-X-KEY:METHOD=AES-128,URI="data:text/plain;base64,AAAA"',
        segment("inline.m4s"),
        '#EXT-X-PART:DURATION=1,URI="part.mp4"',
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


V = "#EXT-X-STREAM-INF:BANDWIDTH=1"


@pytest.mark.parametrize(
    "files, sentence",
    [
        ({"master.m3u8": ""}, "is no playlist"),
        ({"master.m3u8": "<html></html>"}, "is no playlist"),
        ({"master.m3u8": b"#EXTM3U\n" + b"#" * (17 << 20)}, "is longer than 16 MiB"),
        ({"master.m3u8": media()}, "names no segment"),
        ({"master.m3u8": media("#EXT-X-GAP", segment("0.ts"))}, "names no segment"),
        ({"master.m3u8": master(V, "v.m3u8")}, "v.m3u8 is gone"),
        ({"master.m3u8": media(segment("https://other.example/0.ts"))}, "https://other.example"),
        ({"master.m3u8": media(segment("http://cdn.example/x/vod/0.ts"))}, "http://cdn.example"),
        ({"master.m3u8": media(segment("https://cdn.example:8443/0.ts"))}, "another host"),
        ({"master.m3u8": media(segment("https://user@cdn.example/0.ts"))}, "another host"),
        ({"master.m3u8": media(segment("file:///etc/passwd"))}, "a file on this machine"),
        ({"master.m3u8": media(segment("http://[bad/0.ts"))}, "an address in it that is none"),
        ({"master.m3u8": media(segment("master.m3u8"))}, "a loop"),
        ({"master.m3u8": master(V, "master.m3u8")}, "a loop"),
        ({"master.m3u8": master(V, "b.m3u8"), "b.m3u8": master(V, "c.m3u8")}, "a loop"),
        ({"master.m3u8": master(V, "b.m3u8"), "b.m3u8": media(segment("master.m3u8"))}, "a loop"),
    ],
)
def test_where_nothing_can_be_had_it_is_an_error(
    files: dict[str, str | bytes], sentence: str
) -> None:
    with pytest.raises(SourceFailed) as failed:
        followed(files)
    assert sentence in failed.value.message


WHOLE = segment("0.ts")


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([WHOLE, segment("https://other.example/1.ts")], "leads to another host"),
        ([WHOLE, segment("file:///etc/passwd")], "a file on this machine"),
        ([WHOLE, segment("http://[bad/1.ts")], "an address in it that is none"),
        ([WHOLE, segment("{$name}.ts")], "by a variable that nothing defines"),
        ([WHOLE, '#EXT-X-NEW-THING:A,URI="new.bin"'], "does not understand"),
        (["#EXT-X-SKIP:SKIPPED-SEGMENTS=3", WHOLE], "leaves out what an earlier one had"),
    ],
)
def test_what_can_be_had_is_kept_and_what_cannot_is_named(lines: list[str], sentence: str) -> None:
    tree = followed({"a.m3u8": media(*lines)}, "a.m3u8")
    assert set(tree.members) == {"0.ts"}
    assert sentence in "; ".join([*tree.missing.values(), *tree.odd])
    kept = tree.playlists[-1].content.decode()
    assert "://" not in kept


def test_a_variant_that_is_gone_or_empty_or_none_leaves_the_others() -> None:
    top = master(V, "a.m3u8", V, "gone.m3u8", V, "empty.m3u8", V, "page.m3u8")
    files: dict[str, str | bytes] = {
        "master.m3u8": top,
        "a.m3u8": media(segment("0.ts")),
        "empty.m3u8": media(),
        "page.m3u8": "<html></html>",
    }
    tree = followed(files)
    assert set(tree.members) == {"0.ts"}
    assert set(tree.missing) == {"gone.m3u8", "page.m3u8"}
    assert tree.odd == ("the playlist empty.m3u8 names no segment",)
    assert tree.playlists[-1].content.decode() == top


def test_what_has_no_end_is_waited_for_or_gets_one() -> None:
    text = media(segment("0.ts"), end="")
    with pytest.raises(SourceFailed, match="has no end"):
        followed({"a.m3u8": text}, "a.m3u8", still_written=True)
    tree = followed({"a.m3u8": text}, "a.m3u8")
    assert "has no end" in tree.odd[0]
    assert tree.playlists[0].content.decode() == media(segment("0.ts"))


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("#EXT-X-GAP\n#EXTINF:2,\n1.ts", ("1.ts",)),
        ("#EXT-X-GAP\n#EXTINF:2,\nhttps://cdn.example/x/vod/1.ts?q", None),
        ('#EXT-X-KEY:METHOD=SAMPLE-AES,URI="skd://key"', ("skd://key",)),
        ('#EXT-X-KEY:METHOD=SAMPLE-AES,URI="urn:uuid:1"', ("urn:uuid:1",)),
        ('#EXT-X-KEY:METHOD=AES-128,URI="data:text/plain;base64,AAAA"', ()),
        ('#EXT-X-PART:DURATION=1,GAP=YES,URI="part.mp4"', ("part.mp4",)),
        ('#EXT-X-MAP:URI=""', ()),
    ],
)
def test_what_no_client_fetches_is_left_out_and_named(
    line: str, named: tuple[str, ...] | None
) -> None:
    text = media(segment("0.ts"), line, segment("2.ts"))
    tree = followed({"a.m3u8": text}, "a.m3u8")
    assert set(tree.members) == {"0.ts", "2.ts"}
    assert (dict(tree.missing), tree.odd) == ({}, ())
    if named is not None:
        assert tree.unneeded == named and tree.playlists[0].content.decode() == text
    else:
        assert "://" not in tree.playlists[0].content.decode()


@pytest.mark.parametrize("tag", ["EXT-X-MAP", "EXT-X-KEY"])
def test_what_stands_after_the_last_segment_is_needed_only_if_it_was_before(tag: str) -> None:
    line = f'#{tag}:METHOD=AES-128,URI="k"'
    after = followed({"a.m3u8": media(segment("0.ts"), line)}, "a.m3u8")
    assert (set(after.members), after.unneeded) == ({"0.ts"}, ("k",))
    before = followed({"a.m3u8": media(line, segment("0.ts"), line)}, "a.m3u8")
    assert set(before.members) == {"0.ts", "k"}


def test_the_parts_of_a_segment_are_dropped_since_it_has_all_of_them() -> None:
    part = '#EXT-X-PART:DURATION=1,URI="0.p{}.m4s"'
    text = media(part.format(0), part.format(1), segment("0.m4s"), part.format(2))
    tree = followed({"a.m3u8": text}, "a.m3u8")
    assert set(tree.members) == {"0.m4s", "0.p2.m4s"}
    assert tree.playlists[0].content.decode() == media(segment("0.m4s"), part.format(2))


def test_a_key_and_session_data_may_be_any_bytes() -> None:
    files: dict[str, str | bytes] = {
        "master.m3u8": master(
            '#EXT-X-SESSION-DATA:DATA-ID="x",URI="d.json",FORMAT=JSON', V, "a.m3u8"
        ),
        "a.m3u8": media('#EXT-X-KEY:METHOD=SAMPLE-AES,URI="k.txt"', segment("0.ts")),
    }
    assert followed(files).opaque == {"d.json", "k.txt"}


@pytest.mark.parametrize("letter", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c"])
def test_a_line_ends_where_hls_says(letter: str) -> None:
    text = media(f"#EXTINF:2,one{letter}two\n0.ts", f"# a{letter}b.ts", segment("1.ts"))
    tree = followed({"a.m3u8": text}, "a.m3u8")
    assert set(tree.members) == {"0.ts", "1.ts"}
    assert tree.playlists[0].content == text.encode()


def test_bytes_that_are_no_utf_8_are_kept_as_they_are() -> None:
    content = media(segment("0.ts")).encode().replace(b",\n", b",caf\xe9\n")
    assert followed({"a.m3u8": content}, "a.m3u8").playlists[0].content == content


def test_variables_are_put_in_and_come_from_the_master_and_the_address() -> None:
    files: dict[str, str | bytes] = {
        "master.m3u8": master('#EXT-X-DEFINE:NAME="p",VALUE="v"', V, "{$p}/i.m3u8?n=7"),
        "v/i.m3u8?n=7": media(
            '#EXT-X-DEFINE:IMPORT="p"', '#EXT-X-DEFINE:QUERYPARAM="n"', segment("{$p}{$n}.ts")
        ),
    }
    tree = followed(files)
    assert tree.members == {"v/v7.ts": AT + "v/v7.ts"}
    assert b"{$" not in tree.playlists[-1].content


def test_a_long_playlist_is_read_in_one_pass() -> None:
    """A day in parts and segments of two seconds; what is not linear does not end in time."""
    lines = [f'#EXT-X-PART:DURATION=1,URI="p{n}.m4s"\n' + segment(f"{n}.ts") for n in range(20_000)]
    keys = [f'#EXT-X-KEY:METHOD=AES-128,URI="k{n}"' for n in range(20_000)]
    tree = followed({"a.m3u8": media(*lines, *keys)}, "a.m3u8")
    assert (len(tree.members), len(tree.unneeded)) == (20_000, 20_000)
    assert b"EXT-X-PART" not in tree.playlists[0].content


def test_a_window_is_kept_and_said() -> None:
    text = media("#EXT-X-MEDIA-SEQUENCE:25", segment("25.ts"))
    tree = followed({"a.m3u8": text}, "a.m3u8")
    assert tree.odd == () and "begins with segment 25" in tree.said[0]


def test_names_that_no_store_could_keep_get_others() -> None:
    uris = [
        "a%2f..%2f..%2fx.ts",
        "a%00b.ts",
        "x" * 300,
        "b//c.ts",
        "会 議.ts",
        "%E4%BC%9A%20%E8%AD%B0.ts",
    ]
    tree = followed({"a.m3u8": media(*map(segment, uris))}, "a.m3u8")
    assert (dict(tree.missing), tree.odd, len(tree.members)) == ({}, (), 5)
    for name in tree.members:
        pieces = name.split("/")
        assert all(piece not in ("", ".", "..") and len(piece.encode()) < 200 for piece in pieces)
    assert "会 議.ts" in tree.members


def test_parts_on_another_host_that_may_be_followed_get_a_folder_of_their_own() -> None:
    text = media(segment("https://cdn2.example/x/vod/0.ts"), segment("0.ts"))

    def read(address: str) -> bytes:
        return text.encode()

    tree = follow(
        AT + "a.m3u8",
        read,
        may_lead=lambda page, address: "cdn2" in address or page[:20] == address[:20],
    )
    assert set(tree.members) == {"0.ts", "other-hosts/cdn2.example/x/vod/0.ts"}
    assert "cdn2.example/x" in tree.playlists[0].content.decode()
    assert "://" not in tree.playlists[0].content.decode()


def test_no_name_of_this_host_is_that_of_another_host_or_of_what_is_no_address() -> None:
    own = segment("other-hosts/cdn2.example/0.ts")
    text = media(segment("https://cdn2.example/0.ts"), own, segment("no-address"))
    tree = follow(AT + "a.m3u8", lambda _: text.encode(), may_lead=lambda page, address: True)
    assert len(tree.members) == 3 and "no-address" not in tree.members
    kept = [line for line in tree.playlists[0].content.decode().splitlines() if line[:1] != "#"]
    assert set(kept) == set(tree.members)


def test_what_is_no_address_below_a_folder_leads_nowhere_and_the_rest_is_kept() -> None:
    tree = followed(
        {
            "master.m3u8": master("#EXT-X-STREAM-INF:BANDWIDTH=1", "a/b.m3u8"),
            "a/b.m3u8": media(segment("0.ts"), segment("https://[x/1.ts")),
        }
    )
    assert set(tree.members) == {"a/0.ts"} and "an address in it that is none" in tree.odd[0]
    assert "../no-address" in tree.playlists[0].content.decode()


def test_a_variable_that_would_make_an_address_too_long_is_not_put_in() -> None:
    define = f'#EXT-X-DEFINE:NAME="x",VALUE="{"v" * 10_000}"'
    tree = followed({"a.m3u8": media(define, segment("{$x}{$x}.ts"), segment("0.ts"))}, "a.m3u8")
    assert set(tree.members) == {"0.ts"} and "too long" in tree.odd[0]


@pytest.mark.parametrize(
    "uri", ["HTTPS://CDN.example/x/vod/0.ts", "https://cdn.example:443/x/vod/0.ts"]
)
def test_one_host_has_several_spellings(uri: str) -> None:
    tree = followed({"a.m3u8": media(segment(uri))}, "a.m3u8")
    assert set(tree.members) == {"0.ts"}
