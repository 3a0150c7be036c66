"""The HLS samples play to their end, and the player that says so notices whatever is missing."""

from collections.abc import Callable
from pathlib import Path

import av
import hls
import pytest

from retainer.demo.standin import StandIn

SAMPLES = pytest.mark.parametrize("sample", [hls.simple, hls.rich])
REFUSALS = (av.FFmpegError, OSError, ValueError)

Sample = Callable[[], hls.Files]


def laid(files: hls.Files, folder: Path) -> Path:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def cdn(api: StandIn, files: hls.Files, entry: str = "master.m3u8") -> str:
    api.add_asset({"id": "a1", "type": "room-vod"}, files=files)
    return f"{api.url.removesuffix('v2')}cdn/a1/{entry}"


@SAMPLES
def test_a_sample_plays_to_its_end_from_a_folder(sample: Sample, tmp_path: Path) -> None:
    assert hls.played(laid(sample(), tmp_path)) == pytest.approx(hls.SECONDS)


@SAMPLES
def test_a_sample_plays_to_its_end_from_the_cdn(sample: Sample, api: StandIn) -> None:
    assert hls.served(cdn(api, sample())) == pytest.approx(hls.SECONDS)


@pytest.mark.parametrize(
    "sample, streams",
    [(hls.simple, {"video": 2, "audio": 2}), (hls.rich, {"video": 4, "audio": 1, "subtitle": 1})],
)
def test_ffmpeg_finds_by_itself_what_a_master_names(
    sample: Sample, streams: dict[str, int], api: StandIn
) -> None:
    with av.open(cdn(api, sample()), options=hls.NO_PROXY) as recording:
        found = [stream.type for stream in recording.streams]
    assert {type: found.count(type) for type in found} == streams


def test_a_media_playlist_plays_without_a_master(tmp_path: Path, api: StandIn) -> None:
    assert hls.played(laid(hls.simple(), tmp_path), "layer-1/index.m3u8") == pytest.approx(
        hls.SECONDS
    )
    assert hls.served(cdn(api, hls.simple(), "layer-1/index.m3u8")) == pytest.approx(hls.SECONDS)


@SAMPLES
@pytest.mark.parametrize("left", [None, 0, 0.5], ids=["missing", "empty", "half"])
def test_each_file_is_missed_when_it_is_not_whole(
    sample: Sample, left: float | None, tmp_path: Path
) -> None:
    files, unnoticed = sample(), []
    laid(files, tmp_path)
    for path, data in files.items():
        if left is None:
            (tmp_path / path).unlink()
        else:
            (tmp_path / path).write_bytes(data[: int(len(data) * left)])
        try:
            unnoticed.append((path, hls.played(tmp_path)))
        except REFUSALS:
            (tmp_path / path).write_bytes(data)
    assert unnoticed == []


@pytest.mark.parametrize(
    "path",
    [
        "fmp4/init.mp4",
        "audio/seg-1.m4s",
        "encrypted/keys/1.key",
        "ranges/all.ts",
        "spaced/seg 1.ts",
        "subtitles/seg-1.vtt",
    ],
)
def test_a_file_that_the_cdn_does_not_give_or_cuts_is_missed(path: str, api: StandIn) -> None:
    files = hls.rich()
    half = files | {path: files[path][: len(files[path]) // 2]}
    missing = {each: data for each, data in files.items() if each != path}
    for broken in (half, missing):
        with pytest.raises(REFUSALS):
            hls.served(cdn(api, broken))


def test_nothing_is_played_from_outside_the_folder(tmp_path: Path, api: StandIn) -> None:
    files, playlist = hls.simple(), "layer-0/index.m3u8"
    (tmp_path / "far.ts").write_bytes(files["layer-0/seg-1.ts"])
    segment = cdn(api, files, "layer-0/seg-1.ts")
    for far in (segment, segment.removeprefix("http:"), "..%2F..%2Ffar.ts"):
        folder = laid(
            files | {playlist: files[playlist].replace(b"seg-1.ts", far.encode())},
            tmp_path / "recording",
        )
        with pytest.raises(REFUSALS):
            hls.played(folder)
    assert api.requests == []


def test_a_query_on_a_uri_is_no_part_of_a_name(tmp_path: Path, api: StandIn) -> None:
    files = hls.rich()
    for path in files:
        if path.endswith("/index.m3u8"):
            files[path] = (
                files[path]
                .replace(b".ts\n", b".ts?v=1\n")
                .replace(b".m4s\n", b".m4s?v=1\n")
                .replace(b'.key"', b'.key?v=1"')
            )
    assert hls.played(laid(files, tmp_path)) == pytest.approx(hls.SECONDS)
    assert hls.served(cdn(api, files)) == pytest.approx(hls.SECONDS)


@pytest.mark.parametrize("sample", [hls.simple, hls.rich, hls.thumbnails])
def test_a_sample_is_the_same_each_time_and_is_the_callers_own(sample: Sample) -> None:
    first = sample()
    assert first == sample() == sample.__wrapped__()  # type: ignore[attr-defined]
    first.clear()
    assert sample()


def test_thumbnails_are_pictures(tmp_path: Path) -> None:
    folder = laid(hls.thumbnails(), tmp_path)
    for path in hls.thumbnails():
        with av.open(str(folder / path)) as picture:
            assert [(frame.width, frame.height) for frame in picture.decode(video=0)] == [(64, 36)]
