"""Copies between buckets of one server: `retainer apply` beside `s5cmd cp` and `rclone copy`, whole
process against whole process, in one run.

    python benchmarks/copy_within_beside_peers.py [--objects 2000] [--bytes 4096] [--rounds 3]
    [--without-crc32c] [--delay-ms 30] [--peers DIR]

Recordings of 4 KiB lie in the bucket `bench-uploads`, as 100ms puts them there, and are copied to
`bench-vault` on the same SeaweedFS, a fresh one for each tool and round. The order goes round.
retainer carries out a plan that was made before the clock starts; s5cmd copies by one wildcard,
rclone by one `copy`, each with the settings below, which were the best of those tried. Wall time
and CPU seconds as in copy_beside_rclone.py; afterwards every copy is read. A ratio is retainer's
figure over the tool's, the median over the rounds.

The three do not do the same: for each object s5cmd sends one CopyObject, which overwrites what lies
there; rclone looks at the source first and at the copy afterwards; retainer looks at the source,
copies with conditions on both sides, compares checksums, and writes a journal and a catalog. Up to
256 KiB it reads and writes the object itself: two calls. What is longer (`--bytes 300000`) the
servers copy, and it looks at the copy: on SeaweedFS, whose CopyObject computes no checksum of what
it wrote, in parts, five calls in place of the three that it makes on a store like AWS. S3 computes
a CRC32C where the uploader asked for it; `--without-crc32c` shows what it costs where none is
stored, and a long source has to be read first.
"""

from __future__ import annotations

import argparse
import base64
import statistics
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import google_crc32c
from copy_beside_rclone import (
    MP4,
    ROOM,
    Recording,
    Used,
    asset,
    find_peers,
    make_plan,
    measured,
    seaweedfs,
    servers,
    table,
    tool_environment,
)
from delaying import delayed

from retainer.demo.standin import StandIn

UPLOADS, VAULT = "bench-uploads", "bench-vault"
S5CMD = ["--numworkers", "64", "--log", "error"]
RCLONE = [
    "--transfers",
    "32",
    "--checkers",
    "32",
    "--fast-list",
    "--no-traverse",
    "--s3-no-check-bucket",
    "--size-only",
]
SETTINGS = """\
version: 1
source: {{ url: {api}, hosted: [ "s3://hms-prod-*" ] }}
stores:
  uploads: {{ url: s3://{uploads}/rec, endpoint: {endpoint}, region: us-east-1, layout: 100ms }}
  vault: {{ url: s3://{vault}/100ms, endpoint: {endpoint}, region: us-east-1 }}
"""
POLICY = """\
version: 1
rules:
  - { id: all, match: { type: room-composite }, keep: [ { in: vault, for: 2y } ] }
"""


def content(recording: Recording) -> bytes:
    head = MP4 + recording.n.to_bytes(8, "big")
    return (head + recording.n.to_bytes(4, "big") * (recording.size // 4))[: recording.size]


def upload(endpoint: str, recordings: list[Recording], crc32c: bool) -> None:
    """Put the recordings where 100ms would."""
    client = servers.s3_client(endpoint)

    def put(each: Recording) -> None:
        body = content(each)
        more = (
            {"ChecksumCRC32C": base64.b64encode(google_crc32c.Checksum(body).digest()).decode()}
            if crc32c
            else {}
        )
        client.put_object(
            Bucket=UPLOADS,
            Key=f"rec/beam/{ROOM}/{each.name}",
            Body=body,
            ContentType="video/mp4",
            **more,
        )

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(put, recordings))


def api_of(recordings: list[Recording]) -> StandIn:
    """A 100ms that has uploaded the recordings to our bucket."""
    api = StandIn()
    created = (datetime.now(UTC) - timedelta(days=60)).strftime("%Y-%m-%dT%H:%M:%SZ")
    for each in recordings:
        api.add_asset(
            asset(each, f"s3://{UPLOADS}/rec/beam/{ROOM}/{each.name}", created), hosted=False
        )
    return api


def run_retainer(
    folder: Path, api: StandIn, endpoint: str, environment: dict[str, str], _: tuple[Path, Path]
) -> Used:
    make_plan(
        folder / "project",
        SETTINGS.format(api=api.url, uploads=UPLOADS, vault=VAULT, endpoint=endpoint),
        POLICY,
        environment,
    )
    return measured(
        [sys.executable, "-m", "retainer", "apply", "bench.plan"], folder / "project", environment
    )


def run_s5cmd(
    folder: Path, api: StandIn, endpoint: str, environment: dict[str, str], peers: tuple[Path, Path]
) -> Used:
    return measured(
        [str(peers[1]), *S5CMD, "cp", f"s3://{UPLOADS}/rec/*", f"s3://{VAULT}/100ms/"],
        folder,
        environment,
    )


def run_rclone(
    folder: Path, api: StandIn, endpoint: str, environment: dict[str, str], peers: tuple[Path, Path]
) -> Used:
    return measured(
        [str(peers[0]), "copy", f"lab:{UPLOADS}/rec", f"lab:{VAULT}/100ms", *RCLONE],
        folder,
        environment,
    )


TOOLS = {"retainer": run_retainer, "s5cmd": run_s5cmd, "rclone": run_rclone}


def check_all(endpoint: str, recordings: list[Recording]) -> None:
    """Every recording is there once, with its bytes. Exits otherwise."""
    client = servers.s3_client(endpoint)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=VAULT, Prefix="100ms/")
    listed = [
        item["Key"]
        for page in pages
        for item in page.get("Contents", ())
        if item["Key"].endswith(".mp4")
    ]
    found = {key.rpartition("/")[2]: key for key in listed}
    if len(listed) != len(recordings) or found.keys() != {each.name for each in recordings}:
        sys.exit(f"{len(listed)} objects are there, not {len(recordings)}")

    def wrong(each: Recording) -> bool:
        return client.get_object(Bucket=VAULT, Key=found[each.name])["Body"].read() != content(each)

    with ThreadPoolExecutor(16) as pool:
        if any(pool.map(wrong, recordings)):
            sys.exit("an object has other bytes than its source")


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--objects", type=int, default=2000)
    arguments.add_argument("--bytes", type=int, default=4096, help="the size of each")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument(
        "--delay-ms", type=float, default=0.0, help="how much later each answer of the server comes"
    )
    arguments.add_argument(
        "--without-crc32c", action="store_true", help="the uploads carry no CRC32C"
    )
    arguments.add_argument(
        "--peers",
        type=Path,
        help="a folder for rclone and s5cmd, to use again; made where there is none",
    )
    given = arguments.parse_args()
    recordings = [Recording(n, given.bytes) for n in range(1, given.objects + 1)]
    used: dict[str, list[Used]] = {tool: [] for tool in TOOLS}
    with tempfile.TemporaryDirectory(prefix="retainer-bench-") as name:
        folder = Path(name)
        peers = find_peers(given.peers.absolute() if given.peers else folder / "peers")
        for round_no in range(given.rounds):
            order = list(TOOLS)[round_no % 3 :] + list(TOOLS)[: round_no % 3]
            for tool in order:
                with (
                    tempfile.TemporaryDirectory(dir=folder) as place,
                    seaweedfs(UPLOADS, VAULT) as endpoint,
                    api_of(recordings) as api,
                ):
                    upload(endpoint, recordings, not given.without_crc32c)
                    with delayed(endpoint, given.delay_ms) as away:
                        each = TOOLS[tool](
                            Path(place), api, away, tool_environment(api, away), peers
                        )
                    check_all(endpoint, recordings)
                used[tool].append(each)
                print(
                    f"# round {round_no + 1}, {tool}: {each.wall:.2f} s, CPU {each.cpu:.2f} s, "
                    f"{each.peak // 1024} MiB",
                    file=sys.stderr,
                )
    print(
        f"{given.objects} x {given.bytes} bytes, {'no' if given.without_crc32c else 'with'} CRC32C"
    )
    rows = [
        ["", "objects/s", "retainer's over it", "CPU s/1,000", "retainer's over it", "peak MiB"]
    ]
    print(table(rows + [row(tool, given.objects, used) for tool in TOOLS]))


def row(tool: str, objects: int, used: dict[str, list[Used]]) -> list[str]:
    """Medians of the rounds; a ratio is the median of the rounds' own ratios, retainer's figure
    over this tool's."""

    def rate(each: Used) -> float:
        return objects / each.wall

    def cost(each: Used) -> float:
        return each.cpu / objects * 1000

    def ratio(figure: Callable[[Used], float]) -> float:
        return statistics.median(
            figure(ours) / figure(theirs)
            for ours, theirs in zip(used["retainer"], used[tool], strict=True)
        )

    return [
        tool,
        f"{statistics.median(map(rate, used[tool])):.0f}",
        f"{ratio(rate):.2f}",
        f"{statistics.median(map(cost, used[tool])):.2f}",
        f"{ratio(cost):.2f}",
        str(max(each.peak for each in used[tool]) // 1024),
    ]


if __name__ == "__main__":
    main()
