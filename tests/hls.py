"""Real small HLS recordings, made with PyAV, and a player that is content with nothing less than
every frame of them."""

from __future__ import annotations

import io
import math
import re
from array import array
from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import cache, wraps
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit

import av
import httpx
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

Files = dict[str, bytes]
"""A recording: content by path below its folder."""

SECONDS = 3
"""What each sample lasts; a segment lasts one of them."""

_WIDTH, _HEIGHT, _FPS, _RATE = 64, 36, 10, 16_000
_X264 = {"preset": "ultrafast", "x264-params": f"keyint={_FPS}:scenecut=0:threads=1"}
_COLOURS = bytes(range(256)) * 20
_SOUND = array("f", (math.sin(2 * math.pi * 440 * n / _RATE) / 2 for n in range(_RATE // _FPS)))
_KEY = bytes(range(16))
_ANY_NAME = {"allowed_extensions": "ALL", "extension_picky": "0"}
"""Else FFmpeg reads no `.key`, and no segment whose URI has a query, from a folder."""
NO_PROXY = {"http_proxy": "none"}
"""Else FFmpeg takes one from the environment, for 127.0.0.1 too; an empty text does not stop it."""


def _made_once(make: Callable[[], Files]) -> Callable[[], Files]:
    made = cache(make)
    return wraps(make)(lambda: dict(made()))


@_made_once
def simple() -> Files:
    """Two layers of picture and sound in `.ts` segments."""
    layers = [
        _muxed(f"layer-{layer}", "seg-%d.ts", video=layer + 1, audio=True) for layer in (0, 1)
    ]
    return (
        {"master.m3u8": _master("layer-0/index.m3u8", "layer-1/index.m3u8")} | layers[0] | layers[1]
    )


@_made_once
def rich() -> Files:
    """Whatever a playlist can point to.

    Variants, silent: `fmp4` with an init section, `encrypted` under a key (a segment's IV is its
    number), `ranges` of one file, `spaced` with a `%20` in a URI. Renditions: `audio`, with an init
    section too, and `subtitles`. `iframes` are the key frames of `ranges`, by ranges of the same
    file.
    """
    fmp4 = _muxed("fmp4", "seg-%d.m4s", video=3, hls_segment_type="fmp4")
    audio = _muxed("audio", "seg-%d.m4s", audio=True, hls_segment_type="fmp4")
    ranges = _muxed("ranges", "all.ts", video=4, hls_flags="single_file")

    encrypted = {
        path: data if path.endswith("m3u8") else _encrypted(path, data)
        for path, data in _muxed("encrypted", "seg-%d.ts", video=5).items()
    }
    keyed = b'#EXT-X-KEY:METHOD=AES-128,URI="keys/1.key"\n#EXTINF'
    encrypted["encrypted/index.m3u8"] = encrypted["encrypted/index.m3u8"].replace(
        b"#EXTINF", keyed, 1
    )
    encrypted["encrypted/keys/1.key"] = _KEY

    spaced = _muxed("spaced", "seg-%d.ts", video=6)
    spaced["spaced/seg 1.ts"] = spaced.pop("spaced/seg-1.ts")
    spaced["spaced/index.m3u8"] = spaced["spaced/index.m3u8"].replace(b"seg-1.ts", b"seg%201.ts")

    subtitles = {f"subtitles/seg-{number}.vtt": _sentence(number) for number in range(SECONDS)}
    subtitles["subtitles/index.m3u8"] = _media(f"seg-{number}.vtt" for number in range(SECONDS))
    iframes = {
        "iframes/index.m3u8": _media(
            _key_frames(ranges["ranges/index.m3u8"], ranges["ranges/all.ts"]),
            "#EXT-X-I-FRAMES-ONLY",
        )
    }

    master = _master(
        *(f"{variant}/index.m3u8" for variant in ("fmp4", "encrypted", "ranges", "spaced")),
        groups=',AUDIO="sound",SUBTITLES="text"',
        renditions=(
            '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="sound",NAME="English",LANGUAGE="en",DEFAULT=YES,AUTOSELECT=YES,URI="audio/index.m3u8"',
            '#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="text",NAME="English",LANGUAGE="en",AUTOSELECT=YES,URI="subtitles/index.m3u8"',
            f'#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=60000,RESOLUTION={_WIDTH}x{_HEIGHT},URI="iframes/index.m3u8"',
        ),
    )
    return (
        {"master.m3u8": master} | fmp4 | audio | ranges | encrypted | spaced | subtitles | iframes
    )


@_made_once
def thumbnails() -> Files:
    """Two JPEGs."""
    return {f"thumbnails/thumbnail-{number}.jpg": _jpeg(number) for number in (1, 2)}


def played(folder: Path, entry: str = "master.m3u8") -> float:
    """Seconds of the shortest variant that has pictures, after every playlist was played to its end
    from nothing but `folder`.

    Raises whatever was wrong: a file that is not there, a frame that is broken, anything that is
    shorter than its playlist says. URIs are read as a web server reads them, `seg%201.ts?x` is `seg
    1.ts`; FFmpeg by itself takes them for names as they stand.
    """

    def read(uri: str) -> bytes:
        parts = urlsplit(uri)
        path = (folder / unquote(parts.path).lstrip("/")).resolve()
        if parts.scheme or parts.netloc or not path.is_relative_to(folder.resolve()):
            raise FileNotFoundError(f"{uri} is not in {folder}")
        return path.read_bytes()

    def opened(uri: str, _: int, options: dict[str, str]) -> io.BytesIO:
        path = uri.removeprefix("crypto:")
        return io.BytesIO(read(path) if path == uri else _decrypted(read(path), options))

    return _shortest(f"/{quote(entry)}", read, options=_ANY_NAME, io_open=opened)


def served(url: str) -> float:
    """`played`, from a web server, which FFmpeg asks by itself."""
    with httpx.Client(trust_env=False) as client:
        return _shortest(
            url, lambda uri: client.get(uri).raise_for_status().content, options=NO_PROXY
        )


def _shortest(entry: str, read: Callable[[str], bytes], **how: Any) -> float:
    master = read(entry).decode()
    variants = re.findall(r"^#EXT-X-STREAM-INF:.*\n(.+)", master, re.M)
    if not variants:
        return _lasted(entry, master, how)["video"]
    renditions = re.findall(r'^#EXT-X-(?:MEDIA|I-FRAME-STREAM-INF):.*URI="(.+?)"', master, re.M)
    lasted = [
        _lasted(uri, read(uri).decode(), how)
        for uri in (urljoin(entry, each) for each in variants + renditions)
    ]
    return min(each["video"] for each in lasted[: len(variants)] if "video" in each)


def _lasted(uri: str, playlist: str, how: dict[str, Any]) -> dict[str, float]:
    """Seconds by type of stream. A key frame or a sentence that stands for a whole piece of time
    lasts as long as that piece."""
    pieces = [float(each) for each in re.findall(r"^#EXTINF:([\d.]+)", playlist, re.M)]
    sparse = "#EXT-X-I-FRAMES-ONLY" in playlist
    if "#EXT-X-ENDLIST" not in playlist:
        raise ValueError(f"{uri}: no end, which FFmpeg would wait for")
    with av.open(uri, timeout=30, **how) as recording:
        lasted = dict.fromkeys((stream.type for stream in recording.streams), 0.0)
        for stream in recording.streams:
            if stream.codec_context is None:
                raise ValueError(f"{uri}: no codec for {stream}")
            stream.codec_context.options = {"err_detect": "explode"}
        for packet in recording.demux():
            if (
                packet.is_corrupt and not sparse
            ):  # so a transport stream's demuxer calls the last packet before a gap
                raise ValueError(f"{uri}: {packet} is corrupt")
            for frame in packet.decode():
                match frame:
                    case av.VideoFrame() if not sparse:
                        seconds = float(frame.duration * frame.time_base)
                    case av.AudioFrame():
                        seconds = frame.samples / frame.sample_rate
                    case _:
                        seconds = sum(pieces) / len(pieces)
                lasted[packet.stream.type] += seconds
    if not lasted or min(lasted.values()) < sum(pieces) - 0.05:
        raise ValueError(f"{uri}: {lasted} of {sum(pieces)} seconds")
    return lasted


def _muxed(
    folder: str, segments: str, *, video: int = 0, audio: bool = False, **options: str
) -> Files:
    """A media playlist with what it points to. Each number is another `video`."""
    files: Files = {}

    class Kept(io.BytesIO):
        def __init__(self, path: str, *_: object) -> None:
            super().__init__()
            self.name = path

        def close(self) -> None:
            if not self.closed:
                files[self.name] = (
                    files.get(self.name, b"") + self.getvalue()
                )  # a single file is opened again at the end, and nothing is written
            super().close()

    options |= {
        "hls_time": "1",
        "hls_playlist_type": "vod",
        "hls_segment_filename": f"{folder}/{segments}",
        "fflags": "+bitexact",
    }
    with av.open(f"{folder}/index.m3u8", "w", format="hls", options=options, io_open=Kept) as out:
        if video:
            pictures = out.add_stream(
                "libx264", rate=_FPS, width=_WIDTH, height=_HEIGHT, pix_fmt="yuv420p", options=_X264
            )
        if audio:
            sounds = out.add_stream("aac", rate=_RATE, layout="mono")
        for number in range(SECONDS * _FPS):
            if video:
                picture = _picture(video * 40 + number * 7)
                picture.pts = number
                out.mux(pictures.encode(picture))
            if audio:
                sound = av.AudioFrame("fltp", "mono", len(_SOUND))
                sound.sample_rate, sound.pts = _RATE, number * len(_SOUND)
                sound.planes[0].update(_SOUND.tobytes())
                out.mux(sounds.encode(sound))
        for stream in out.streams:
            out.mux(stream.encode(None))
    return files


def _picture(colour: int, format: str = "yuv420p") -> av.VideoFrame:
    picture = av.VideoFrame(_WIDTH, _HEIGHT, format)
    for plane in picture.planes:
        plane.update(_COLOURS[colour : colour + plane.buffer_size])
    return picture


def _jpeg(number: int) -> bytes:
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = (
        _WIDTH,
        _HEIGHT,
        "yuvj420p",
        Fraction(1, _FPS),
    )
    return b"".join(bytes(packet) for packet in encoder.encode(_picture(number * 40, "yuvj420p")))


def _sentence(number: int) -> bytes:
    return (
        f"WEBVTT\nX-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:0\n\n00:00:0{number}.000 --> "
        f"00:00:0{number}.900\nSentence {number}\n\n"
    ).encode()


def _encrypted(path: str, segment: bytes) -> bytes:
    iv = int(path.rpartition("-")[2].removesuffix(".ts")).to_bytes(16, "big")
    padder, encryptor = PKCS7(128).padder(), Cipher(AES(_KEY), CBC(iv)).encryptor()
    return encryptor.update(padder.update(segment) + padder.finalize()) + encryptor.finalize()


def _decrypted(segment: bytes, options: dict[str, str]) -> bytes:
    key, iv = (bytes.fromhex(options[name]) for name in ("key", "iv"))
    unpadder, decryptor = PKCS7(128).unpadder(), Cipher(AES(key), CBC(iv)).decryptor()
    return unpadder.update(decryptor.update(segment) + decryptor.finalize()) + unpadder.finalize()


def _key_frames(playlist: bytes, stream: bytes) -> list[str]:
    """Ranges from where a segment begins to where its second frame does."""
    pieces = []
    for length, first in re.findall(r"BYTERANGE:(\d+)@(\d+)", playlist.decode()):
        with av.open(io.BytesIO(stream[int(first) :][: int(length)])) as segment:
            _, second, *_ = segment.demux()
        pieces.append(f"#EXT-X-BYTERANGE:{second.pos}@{first}\n../ranges/all.ts")
    return pieces


def _master(*variants: str, groups: str = "", renditions: tuple[str, ...] = ()) -> bytes:
    told = (
        f"#EXT-X-STREAM-INF:BANDWIDTH={400_000 - at * 50_000},RESOLUTION={_WIDTH}x{_HEIGHT}{groups}\n{uri}"
        for at, uri in enumerate(variants)
    )
    return _playlist(*renditions, *told)


def _media(pieces: Iterable[str], *tags: str) -> bytes:
    """Each piece lasts one second."""
    usual = ("#EXT-X-TARGETDURATION:1", "#EXT-X-MEDIA-SEQUENCE:0", "#EXT-X-PLAYLIST-TYPE:VOD")
    return _playlist(
        *usual, *tags, *(f"#EXTINF:1.000000,\n{each}" for each in pieces), "#EXT-X-ENDLIST"
    )


def _playlist(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in ("#EXTM3U", "#EXT-X-VERSION:7", *lines)).encode()
