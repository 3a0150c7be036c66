"""Deletes on one server: `retainer apply` beside `s5cmd rm`, whole process against whole process, in
one run.

    python benchmarks/delete_beside_s5cmd.py [--objects 20000] [--rounds 5] [--peers DIR]

Objects of 64 bytes lie in `bench-uploads`, as 100ms puts them there; each was copied to
`bench-vault`, which is what makes its delete safe. retainer carries out a plan with all deletes,
made and approved before the clock starts: every witness is looked at, each delete names the version
that it means, and each is written into a journal before and after. s5cmd deletes by one wildcard,
whatever lies there. Each has a fresh SeaweedFS; the order goes round. A ratio is retainer's figure
over s5cmd's, the median over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from copy_beside_rclone import (
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
from copy_within_beside_peers import S5CMD, UPLOADS, VAULT, api_of, upload

SETTINGS = """\
version: 1
source: {{ url: {api} }}
stores:
  uploads: {{ url: s3://{uploads}/rec, endpoint: {endpoint}, region: us-east-1, layout: 100ms }}
  vault: {{ url: s3://{vault}/100ms, endpoint: {endpoint}, region: us-east-1 }}
limits: {{ deletes: {{ count: 1000000, percent: 100, bytes: 1TB }} }}
"""
POLICY = """\
version: 1
rules:
  - id: all
    match: { type: room-composite }
    keep: [ { in: vault, for: 2y } ]
    delete: [ { in: uploads, after: 30d } ]
"""


def run_retainer(folder: Path, endpoint: str, count: int, peers: tuple[Path, Path]) -> Used:
    recordings = [Recording(n, 64) for n in range(1, count + 1)]
    young = Recording(0, 64)  # stays, so that the bucket is not emptied
    upload(endpoint, [*recordings, young], crc32c=True)
    with api_of(recordings) as api:
        created = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        path = f"s3://{UPLOADS}/rec/beam/{ROOM}/{young.name}"
        api.add_asset(asset(young, path, created), hosted=False)
        environment = tool_environment(api, endpoint)
        settings = SETTINGS.format(api=api.url, uploads=UPLOADS, vault=VAULT, endpoint=endpoint)
        project = folder / "project"
        make_plan(project, settings, POLICY, environment)
        retainer = [sys.executable, "-m", "retainer"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(
            [*retainer, "apply", "bench.plan"],
            cwd=project,
            env=environment,
            check=True,
            **quiet,  # type: ignore[call-overload]
        )
        subprocess.run(
            [*retainer, "plan", "--out", "deletes.plan"],
            cwd=project,
            env=environment,
            check=True,
            **quiet,  # type: ignore[call-overload]
        )
        return measured(
            [*retainer, "apply", "deletes.plan", "--approve-deletes", str(count)],
            project,
            environment,
        )


def run_s5cmd(folder: Path, endpoint: str, count: int, peers: tuple[Path, Path]) -> Used:
    recordings = [Recording(n, 64) for n in range(1, count + 1)]
    upload(endpoint, recordings, crc32c=True)
    with api_of([]) as api:
        environment = tool_environment(api, endpoint)
        return measured([str(peers[1]), *S5CMD, "rm", f"s3://{UPLOADS}/rec/*"], folder, environment)


TOOLS = {"retainer": run_retainer, "s5cmd": run_s5cmd}


def left(endpoint: str) -> int:
    pages = servers.s3_client(endpoint).get_paginator("list_objects_v2")
    prefix = f"rec/beam/{ROOM}/"
    listed = (page.get("Contents", ()) for page in pages.paginate(Bucket=UPLOADS, Prefix=prefix))
    return sum(not item["Key"].endswith("/Rec-0.mp4") for page in listed for item in page)


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--objects", type=int, default=20_000)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--peers", type=Path, help="a folder for s5cmd, to use again")
    given = arguments.parse_args()
    used: dict[str, list[Used]] = {tool: [] for tool in TOOLS}
    with tempfile.TemporaryDirectory(prefix="retainer-bench-") as name:
        folder = Path(name)
        peers = find_peers(given.peers.absolute() if given.peers else folder / "peers")
        for round_no in range(given.rounds):
            for tool in sorted(TOOLS, reverse=bool(round_no % 2)):
                with (
                    tempfile.TemporaryDirectory(dir=folder) as place,
                    seaweedfs(UPLOADS, VAULT) as endpoint,
                ):
                    each = TOOLS[tool](Path(place), endpoint, given.objects, peers)
                    if stay := left(endpoint):
                        sys.exit(f"{tool} left {stay} objects")
                used[tool].append(each)
                print(
                    f"# round {round_no + 1}, {tool}: {each.wall:.2f} s, CPU {each.cpu:.2f} s, "
                    f"{each.peak // 1024} MiB",
                    file=sys.stderr,
                )
    rows = [["", "objects/s", "CPU s/1,000", "peak MiB"]]
    for tool, found in used.items():
        rate = statistics.median(given.objects / each.wall for each in found)
        cost = statistics.median(each.cpu / given.objects * 1000 for each in found)
        peak = max(each.peak for each in found) // 1024
        rows.append([tool, f"{rate:.0f}", f"{cost:.3f}", str(peak)])
    pairs = list(zip(used["retainer"], used["s5cmd"], strict=True))
    rate = statistics.median(theirs.wall / ours.wall for ours, theirs in pairs)
    cost = statistics.median(ours.cpu / theirs.cpu for ours, theirs in pairs)
    rows.append(["retainer's over s5cmd's", f"{rate:.2f}", f"{cost:.2f}", ""])
    print(f"{given.objects} deletes")
    print(table(rows))


if __name__ == "__main__":
    main()
