"""Google Cloud Storage: deletes and writes of a store beside those of google-cloud-storage, on our
strict stand-in, each answer so much later as asked for.

    python benchmarks/gcs_beside_its_client.py [--objects 2000] [--delay-ms 30] [--rounds 5]

Deletes name a generation in both. The client deletes one by one, as retainer did before, and by its
own `batch()`, whose outcomes come as one exception; the store a hundred in a call, with an outcome
each. Writes are of 4 KiB, by eight threads, on the condition that nothing is there. A ratio is the
store's rate over the client's, the median over the rounds. No emulator honours these conditions, and
none of this was measured on Google's own servers.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from copy_beside_rclone import servers, table
from delaying import delayed
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from retainer.model.setting import Store
from retainer.ports import Deletion, Seen
from retainer.stores.gcs import GcsWriter

STAND_IN = Path(servers.__file__).parent / "gcs_standin.py"


@contextmanager
def stand_in() -> Iterator[str]:
    (port,) = servers.free_ports(1)
    with subprocess.Popen([sys.executable, str(STAND_IN), "--port", str(port)]) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            servers._ready(lambda: client_of(url).create_bucket("bench"))
            yield url
        finally:
            process.kill()


def client_of(url: str) -> storage.Client:
    return storage.Client(
        project="bench", credentials=AnonymousCredentials(), client_options={"api_endpoint": url}
    )


def timed(count: int, act: Callable[[], object]) -> float:
    """How many a second."""
    start = time.perf_counter()
    act()
    return count / (time.perf_counter() - start)


def put(writer: GcsWriter, prefix: str, count: int) -> list[Seen]:
    def one(number: int) -> Seen:
        key = f"{prefix}/{number:06}"
        return writer.create(key, iter([bytes(4096)]), 4096, {}, "video/mp4").seen

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(one, range(count)))


def rates(url: str, near: str, count: int) -> dict[str, float]:
    writer = GcsWriter(Store("v", "gs://bench/100ms", endpoint=url))
    setter = GcsWriter(Store("v", "gs://bench/100ms", endpoint=near))
    writer.conditions().find_out("create", "delete", "batch_delete")
    bucket = client_of(url).bucket("bench")
    few = min(count, 300)

    def ours(seen: list[Seen]) -> None:
        assert writer.delete_batch(seen) == [Deletion.DELETED] * len(seen)

    def one_by_one(seen: list[Seen]) -> None:
        for each in seen:
            bucket.delete_blob(f"100ms/{each.key}", if_generation_match=int(each.version))

    def by_batch(seen: list[Seen]) -> None:
        for start in range(0, len(seen), 100):
            with bucket.client.batch():
                for each in seen[start : start + 100]:
                    bucket.delete_blob(f"100ms/{each.key}", if_generation_match=int(each.version))

    def written() -> None:
        def one(number: int) -> None:
            blob = bucket.blob(f"100ms/theirs/{number:06}")
            blob.upload_from_string(bytes(4096), "video/mp4", if_generation_match=0)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one, range(few)))

    many, some, more = (
        put(setter, "ours", count),
        put(setter, "single", few),
        put(setter, "batch", few),
    )
    return {
        "deletes, the store": timed(count, lambda: ours(many)),
        "deletes, its client one by one": timed(few, lambda: one_by_one(some)),
        "deletes, its client's batch": timed(few, lambda: by_batch(more)),
        "writes, the store": timed(few, lambda: put(writer, "written", few)),
        "writes, its client": timed(few, written),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--objects", type=int, default=2000)
    arguments.add_argument("--delay-ms", type=float, default=30.0)
    arguments.add_argument("--rounds", type=int, default=5)
    given = arguments.parse_args()
    found = []
    for _ in range(given.rounds):
        with stand_in() as near, delayed(near, given.delay_ms) as away:
            found.append(rates(away, near, given.objects))
    rows = [["", "objects/s", "the store's over it"]]
    for name in found[0]:
        ours = name.split(",")[0] + ", the store"
        ratio = statistics.median(each[ours] / each[name] for each in found)
        rows.append(
            [name, f"{statistics.median(each[name] for each in found):.0f}", f"{ratio:.1f}"]
        )
    print(f"{given.objects} objects, {given.delay_ms:g} ms a call")
    print(table(rows))


if __name__ == "__main__":
    main()
