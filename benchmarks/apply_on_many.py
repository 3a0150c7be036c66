"""One apply by 1, 2 and 4 machines, and by none: `retainer apply` with `--on` and without it, whole
process against whole process, in one run.

    python benchmarks/apply_on_many.py [--far 1200] [--delay-ms 30] [--machines 1 2 4]
    [--near 200] [--rounds 1]

Far: recordings of 4 KiB are copied between two buckets of a SeaweedFS whose every answer comes 30 ms
later, the record's too, one at a time on each machine (`--workers 1`). So the wire is the limit, and
not these cores: N machines should do N times what one does. Near: 200 recordings of 8 MiB from
presigned URLs to a SeaweedFS beside it, by one machine with 32 at a time, and by the same process
without any: what the shares cost. A number of 0 leaves one out.

A machine is a worker of Dask, a process of its own with one thread, started before the clock; the
scheduler too. What is counted is the apply's own process, from its start to its end, and its plan is
made before. The server is a fresh one each time, with its data in TMPDIR. Afterwards every copy is
looked at.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import copy_beside_rclone as near
import copy_within_beside_peers as far
from copy_beside_rclone import MIB, Recording, Used, make_plan, measured, seaweedfs, table
from delaying import delayed

STATE = "bench-state"
RECORD = "state: {{ url: s3://{state}/record, endpoint: {endpoint}, region: us-east-1 }}\n"


@contextmanager
def cluster(count: int, project: Path, environment: dict[str, str]) -> Iterator[str]:
    """The address of a scheduler that has so many workers."""
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str, *words: str) -> Path:
        log = project.parent / f"{name}.log"
        with log.open("wb") as out:
            command = [sys.executable, "-m", f"distributed.cli.{words[0]}", *words[1:]]
            started.append(
                subprocess.Popen(
                    [*command, "--no-dashboard"],
                    cwd=project,
                    env=environment,
                    stdout=out,
                    stderr=out,
                )
            )
        return log

    def wait_for(log: Path, said: str) -> str:
        while said not in log.read_text():
            if any(process.poll() is not None for process in started):
                sys.exit(log.read_text())
            time.sleep(0.1)
        return log.read_text().partition(said)[2].split()[0]

    try:
        scheduler = start("scheduler", "dask_scheduler", "--port", "0", "--host", "127.0.0.1")
        address = wait_for(scheduler, "Scheduler at:")
        for number in range(count):
            local = str(project.parent / f"dask-{number}")
            words = ("--no-nanny", "--nthreads", "1", "--local-directory", local)
            log = start(f"worker-{number}", "dask_worker", address, *words)
            wait_for(log, "Registered to:")
        yield address
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.wait()


def apply(
    folder: Path,
    settings: str,
    policy: str,
    environment: dict[str, str],
    machines: int | None,
    *more: str,
) -> Used:
    """What an apply takes on so many machines; None: on none but this process."""
    project = folder / "project"
    make_plan(project, settings, policy, environment)
    command = [sys.executable, "-m", "retainer", "apply", "bench.plan", *more]
    if machines is None:
        return measured(command, project, environment)
    with cluster(machines, project, environment) as address:
        return measured([*command, "--on", address], project, environment)


def run_far(count: int, machines: int, delay: float) -> Used:
    recordings = [Recording(n, 4096) for n in range(1, count + 1)]
    with tempfile.TemporaryDirectory(prefix="retainer-bench-") as name:
        with seaweedfs(far.UPLOADS, far.VAULT, STATE) as server, far.api_of(recordings) as api:
            far.upload(server, recordings, crc32c=True)
            with delayed(server, delay) as endpoint:
                settings = far.SETTINGS + RECORD
                used = apply(
                    Path(name),
                    settings.format(
                        api=api.url,
                        uploads=far.UPLOADS,
                        vault=far.VAULT,
                        endpoint=endpoint,
                        state=STATE,
                    ),
                    far.POLICY,
                    near.tool_environment(api, endpoint),
                    machines,
                    "--workers",
                    "1",
                )
            far.check_all(server, recordings)
    return used


def run_near(count: int, machines: int | None) -> Used:
    recordings = [Recording(n, 8 * MIB) for n in range(1, count + 1)]
    with tempfile.TemporaryDirectory(prefix="retainer-bench-") as name:
        folder = Path(name)
        with near.source(folder) as (port, block), near.Api(port, recordings) as api:
            with seaweedfs(near.BUCKET, STATE) as endpoint:
                settings = near.SETTINGS + RECORD
                used = apply(
                    folder,
                    settings.format(
                        api=api.url, bucket=near.BUCKET, endpoint=endpoint, state=STATE
                    ),
                    near.POLICY,
                    near.tool_environment(api, endpoint),
                    machines,
                )
                near.check_all(endpoint, recordings, block)
    return used


def compared(title: str, runs: dict[str, list[float]], count: int) -> dict[str, float]:
    """Print how long each took, and how many times faster than the first it was, the median of the
    rounds; the latter by name."""
    first = next(iter(runs.values()))
    rows = [[title, "s", "copies/s", "times the first"]]
    found = {}
    for name, seconds in runs.items():
        times = statistics.median(one / other for one, other in zip(first, seconds, strict=True))
        median = statistics.median(seconds)
        rows.append([name, f"{median:.1f}", f"{count / median:.1f}", f"{times:.2f}"])
        found[name] = round(times, 3)
    print(table(rows), end="\n\n", flush=True)
    return found


def main(words: Sequence[str] | None = None) -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--far", type=int, default=1200, help="how many recordings of 4 KiB")
    arguments.add_argument("--near", type=int, default=200, help="how many recordings of 8 MiB")
    arguments.add_argument("--delay-ms", type=float, default=30.0)
    arguments.add_argument("--machines", type=int, nargs="+", default=[1, 2, 4])
    arguments.add_argument("--rounds", type=int, default=1)
    given = arguments.parse_args(words)
    told: dict[str, dict[str, float]] = {}
    if given.far:
        runs: dict[str, list[float]] = {f"{each} machines": [] for each in given.machines}
        for _ in range(given.rounds):
            for each in given.machines:
                used = run_far(given.far, each, given.delay_ms)
                runs[f"{each} machines"].append(used.wall)
        told["far"] = compared(f"far, {given.far} copies", runs, given.far)
    if given.near:
        beside: dict[str, list[float]] = {"this process": [], "one machine": []}
        for _ in range(given.rounds):
            beside["this process"].append(run_near(given.near, None).wall)
            beside["one machine"].append(run_near(given.near, 1).wall)
        told["near"] = compared(f"near, {given.near} copies", beside, given.near)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
