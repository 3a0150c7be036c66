"""A thousand recordings of every type, the faults that strike them, and what must become of
each."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import hls

from retainer.demo.standin import ALWAYS, UPLOADS, Faults, StandIn, sample_assets

HOSTED = "s3://hms-prod-eu/5f00/"
STRUCK = ("429", "500", "503", "404", "cut", "cut twice", "html", "json", "no length", "stall")
"""What strikes every tenth of what 100ms hosts: all of it passes."""
FAULTS = (
    "rate_429",
    "rate_500",
    "drop_rate",
    "fail_first",
    "cut_bodies",
    "html_with_200",
    "json_error_with_200",
    "no_length",
    "stall_after",
)
"""The fields of `Faults` that this makes use of."""


@dataclass
class Recording:
    """An asset and its bytes, by names below its folder, the first of which its path names.

    `why`: what must be said of it where it can never be copied whole.
    """

    asset: dict[str, Any]
    files: dict[str, bytes]
    hosted: bool
    unzipped: bool = False
    missing: set[str] = field(default_factory=set)
    """Names that are not there."""
    readable: bool = True
    why: str | None = None

    @property
    def id(self) -> str:
        return str(self.asset["id"])

    @property
    def there(self) -> dict[str, bytes]:
        return {name: content for name, content in self.files.items() if name not in self.missing}

    @property
    def folder(self) -> str:
        """Where its copy goes, by the default layout."""
        return f"{self.asset['type']}/{self.asset['created_at'][:10].replace('-', '/')}/{self.asset['room_id']}/{self.id}/"

    @property
    def sources(self) -> dict[str, bytes]:
        """What its copy is made of, by key."""
        return {self.folder + name: content for name, content in self.there.items()}

    @property
    def manifest(self) -> str | None:
        """The key of its copy's manifest, if its copy is more than one file."""
        return f"{self.folder}manifest.json" if self.unzipped or self.asset["thumbnails"] else None


def thousand(now: datetime, uploads: str) -> tuple[list[Recording], Faults]:
    """A thousand recordings, hosted by 100ms or below `uploads`; 50 of them can never be copied
    whole, besides those that failed at 100ms."""
    rng = random.Random("thousand")
    recordings = [
        _sampled(asset, content, uploads, now, rng) for asset, content in sample_assets(910, now)
    ]
    recordings += [
        _unzipped(number, recordings[number].asset["room_id"], uploads, now, rng)
        for number in range(90)
    ]
    faults = Faults(retry_after=0, rate_429=0.1, rate_500=0.1, drop_rate=0.1)
    _strike(recordings, faults)
    _spoil(recordings, faults, now)
    return recordings, faults


def serve(recordings: Iterable[Recording], api: StandIn, uploads: str, folder: Path) -> None:
    """Let 100ms know them all, and lay out in `folder` what it has uploaded to our bucket, below
    `uploads`."""
    for each in recordings:
        if not each.hosted:
            api.add_asset(each.asset, hosted=False, readable=False)
            place = folder / each.asset["path"].removeprefix(uploads).rpartition("/")[0]
            for name, content in each.there.items():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                (place / name).write_bytes(content)
        elif each.unzipped:
            api.add_asset(each.asset, files=each.there, readable=each.readable)
        else:
            api.add_asset(each.asset, next(iter(each.there.values()), None), readable=each.readable)


def _sampled(
    asset: dict[str, Any], content: bytes, uploads: str, now: datetime, rng: random.Random
) -> Recording:
    """What the stand-in makes up, and some of it longer than one part of an upload, without
    thumbnails, or of size null."""
    age = now - datetime.fromisoformat(asset["created_at"])
    if asset["path"] is None:
        return Recording(
            asset, {}, hosted=True, why="waiting" if age < timedelta(days=7) else "none"
        )
    hosted = not asset["path"].startswith(UPLOADS)
    if rng.random() < 0.005:
        content += rng.randbytes(9 << 20)
    if asset["thumbnails"] and rng.random() < 0.5:
        asset["thumbnails"] = None
    asset["created_at"] = _stamp(
        now - age * (0.7 if hosted else 1)
    )  # what 100ms has hosted for 15 days would be lost
    asset["path"] = asset["path"].replace(f"{UPLOADS}/", uploads)
    asset["size"] = len(content) if asset["size"] else rng.choice((0, None))
    files = {asset["path"].rpartition("/")[2]: content}
    if asset["thumbnails"] and not hosted:
        asset["thumbnails"] = [face.replace(f"{UPLOADS}/", uploads) for face in asset["thumbnails"]]
        files |= {
            f"thumbnails/{face.rpartition('/')[2]}": _jpeg(rng) for face in asset["thumbnails"]
        }
    return Recording(asset, files, hosted)


def _unzipped(number: int, room: str, uploads: str, now: datetime, rng: random.Random) -> Recording:
    """A recording in pieces: two in three are hosted, one in thirty is made of whatever a playlist
    can point to, one in four has thumbnails."""
    id, hosted = f"c{number:023x}", number % 3 < 2
    created = now - timedelta(days=rng.uniform(1, 14 if hosted else 400))
    files = (
        hls.rich()
        if number % 31 == 0
        else {
            "master.m3u8": b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n0/index.m3u8\n",
            "0/index.m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nseg-0.ts\n#EXTINF:2,\nseg-1.ts\n#EXT-X-ENDLIST\n",
            "0/seg-0.ts": b"G" + rng.randbytes(187),
            "0/seg-1.ts": b"G" + rng.randbytes(375),
        }
    )
    base = f"{HOSTED if hosted else uploads}hls/{room}/{id}/vod"
    faces = [f"thumbnails/thumbnail-{face}.jpg" for face in (1, 2)] if number % 4 == 0 else []
    asset = {
        "id": id,
        "job_id": f"b{id[1:]}",
        "room_id": room,
        "session_id": f"d{id[1:]}",
        "type": "room-vod",
        "status": "completed",
        "path": f"{base}/master.m3u8",
        "size": None,
        "duration": 60,
        "created_at": _stamp(created),
        "thumbnails": [f"{base}/{face}" for face in faces],
        "metadata": {"num_layers": "4", "max_width": 1920, "max_height": 1080},
    }
    return Recording(asset, files | {face: _jpeg(rng) for face in faces}, hosted, unzipped=True)


def _stamp(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S.%fZ}"


def _jpeg(rng: random.Random) -> bytes:
    return b"\xff\xd8\xff\xe0" + rng.randbytes(200)


def _strike(recordings: Iterable[Recording], faults: Faults) -> None:
    hosted = [each for each in recordings if each.hosted and each.files]
    for each, fault in zip(hosted[::10], cycle(STRUCK), strict=False):
        name = next(reversed(each.files))
        id, address = (
            (f"{each.id}/{name}", f"/cdn/{each.id}/{name}")
            if each.unzipped
            else (each.id, f"/media/{each.id}")
        )
        match fault:
            case "cut":
                faults.cut_bodies[id] = (100, 1)
            case "cut twice":
                faults.cut_bodies[id] = (50, 2)
            case "html":
                faults.html_with_200[id] = 1
            case "json":
                faults.json_error_with_200[id] = 1
            case "no length":
                faults.no_length[id] = 1
            case "stall":
                faults.stall_after[id] = (100, 0.3, 1)
            case status:
                faults.fail_first[address] = [int(status)]


def _spoil(recordings: Sequence[Recording], faults: Faults, now: datetime) -> None:
    """What does not pass. Every fifth is taken, so that all types are among them."""

    def kind(*, hosted: bool, unzipped: bool) -> Iterator[Recording]:
        return (
            each
            for each in recordings[::5]
            if each.files and (each.hosted, each.unzipped) == (hosted, unzipped)
        )

    single, ours = kind(hosted=True, unzipped=False), kind(hosted=False, unzipped=False)
    for each in _next(single, 6, "lost"):
        each.asset["created_at"] = _stamp(now - timedelta(days=16))
    for each in _next(ours, 6, "lost"):
        each.missing = set(each.files)
    for each in _next(single, 6, "lost"):  # once 100ms has said that it is not there
        each.asset["created_at"] = _stamp(
            now - timedelta(days=3)
        )  # within a day nobody believes it
        each.missing = set(each.files)
    for each in _next(kind(hosted=True, unzipped=True), 5, "gone from 100ms (404)"):
        each.missing = {name for name in each.files if name.endswith("seg-1.ts")}
    for each in _next(kind(hosted=False, unzipped=True), 3, "it is not there"):
        each.missing = {name for name in each.files if name.endswith("seg-1.ts")}
    for each in _next(single, 6, "the server answered 403"):
        each.readable = False
    for each in _next(single, 6, "an HTML page"):
        faults.html_with_200[each.id] = ALWAYS
    for each in _next(single, 6, "nobody says how many there are"):
        each.asset["size"] = None
        faults.no_length[each.id] = ALWAYS
    for each in islice(single, 6):  # it is the record that is doubted
        each.asset["size"] = len(next(iter(each.files.values()))) + 1


def _next(kind: Iterator[Recording], count: int, why: str) -> Iterator[Recording]:
    for each in islice(kind, count):
        each.why = why
        yield each
