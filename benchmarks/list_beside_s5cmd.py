"""A long listing from far away: a store's reader beside `s5cmd ls`, whole process against whole
process, in one run.

    python benchmarks/list_beside_s5cmd.py [--objects 200000] [--delay-ms 30] [--rounds 5]
    [--peers DIR]

The server answers from memory (canned_s3.py), a thousand keys a page, each answer so much later as
the delay says. Three ways: in ranges whose bounds the catalog expects, in ranges that are found by
folders, and page by page, as every listing was before; each asks for all keys, and counts them. Each
ratio is s5cmd's wall time over that way's, the median over the rounds. Requests are counted by the
server: beside the number of full pages.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from canned_s3 import canned, key_of
from copy_beside_rclone import Used, find_peers, measured, table, tool_environment

from retainer.demo.standin import StandIn

LIST = """\
import sys
from retainer.model.setting import Store
from retainer.ports import Seen
from retainer.stores.s3 import S3Reader
endpoint, way, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
sys.path.insert(0, sys.argv[4])
from canned_s3 import key_of
reader = S3Reader(Store("v", "s3://bench/100ms", endpoint=endpoint, region="us-east-1"))
bounds = [key_of(n)[6:] for n in range(7999, count - 1000, 8000)] if way == "catalog" else []
objects = reader.list() if way == "pages" else reader.list_at_once(bounds)
found = sum(isinstance(each, Seen) for each in objects)
assert found == count, (found, count)
"""
WAYS = ("catalog", "folders", "pages")


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--objects", type=int, default=200_000)
    arguments.add_argument("--delay-ms", type=float, default=30.0)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--peers", type=Path, help="a folder for s5cmd, to use again")
    given = arguments.parse_args()
    used: dict[str, list[Used]] = {}
    asked: dict[str, int] = {}
    here = str(Path(__file__).parent)
    with tempfile.TemporaryDirectory(prefix="retainer-bench-") as name:
        folder = Path(name)
        _, s5cmd = find_peers(given.peers.absolute() if given.peers else folder / "peers")
        for round_no in range(given.rounds):
            tools = ["s5cmd", *WAYS]
            for tool in tools[round_no % 4 :] + tools[: round_no % 4]:
                with canned(given.objects, given.delay_ms) as server, StandIn() as api:
                    if tool == "s5cmd":
                        command = [str(s5cmd), "ls", "s3://bench/100ms/*"]
                    else:
                        words = [server.url, tool, str(given.objects), here]
                        command = [sys.executable, "-c", LIST, *words]
                    each = measured(command, folder, tool_environment(api, server.url))
                    asked[tool] = server.requests()
                used.setdefault(tool, []).append(each)
                print(
                    f"# round {round_no + 1}, {tool}: {each.wall:.2f} s, CPU {each.cpu:.2f} s",
                    file=sys.stderr,
                )
    rows = [["", "s", "s5cmd's over it", "CPU s", "peak MiB", "requests"]]
    for tool in ("s5cmd", *WAYS):
        ratio = statistics.median(
            theirs.wall / ours.wall for theirs, ours in zip(used["s5cmd"], used[tool], strict=True)
        )
        rows.append(
            [
                tool,
                f"{statistics.median(each.wall for each in used[tool]):.2f}",
                f"{ratio:.1f}",
                f"{statistics.median(each.cpu for each in used[tool]):.2f}",
                str(max(each.peak for each in used[tool]) // 1024),
                str(asked[tool]),
            ]
        )
    assert key_of(0)
    print(f"{given.objects} keys, {given.objects // 1000} full pages, {given.delay_ms:g} ms a call")
    print(table(rows))


if __name__ == "__main__":
    main()
