"""Dask.distributed as the engine that makes shares: it finds a machine for each, and another one
where a machine died. Another engine is another such file.

What a worker is given is a share (`model.shard`) of a plan's actions, or of the recordings that a
plan is made for, in plain values: no credential, no name, no address. What it tells is how far it
is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from retainer.errors import PlanRefused, PoliciesWrong, RetainerError, StoreFailed, WrongUsage
from retainer.model.shard import Part, Shard, Told

TOPIC = "retainer"
CONNECT_SECONDS = 20


def on_worker(told: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a worker calls: None, or what was left of a part, or why the share was not made. Errors
    go as plain values: those of another version, or of a library, might not be readable where they
    arrive."""
    from distributed import Semaphore, get_worker

    from retainer.ranging import decide_part
    from retainer.working import work
    from retainer.workplace import told_from_here

    worker = get_worker()
    _do_not_sample(worker)

    def tell(how_far: Told) -> None:
        worker.log_event(TOPIC, asdict(how_far))

    def permit(store: str, leases: int) -> AbstractContextManager[object]:
        name = f"retainer-{told.get('run')}-{store}"
        held: AbstractContextManager[object] = Semaphore(max_leases=leases, name=name)
        return held

    try:
        if "folder" in told:
            return {"left": decide_part(told, Path.cwd())}
        work(told, Path.cwd(), tell, permit)
    except RetainerError as error:
        kind = type(error).__name__
        return {"kind": kind, "message": error.message, "hint": error.hint}
    except Exception as error:  # its words may hold anything
        unexpected = StoreFailed(f"an unexpected {type(error).__name__}")
        return {"kind": "", "message": told_from_here(unexpected).message}
    return None


_KINDS = {each.__name__: each for each in (PlanRefused, PoliciesWrong, StoreFailed)}


def _do_not_sample(worker: Any) -> None:
    """End Dask's profiler in a worker. Every 10 ms it asks for the frames of all threads, which in
    CPython before 3.11.9 can lock the whole process up for good
    (https://github.com/python/cpython/issues/106883): it did, in one of three benchmarks."""
    for name in ("profile", "profile-cycle"):
        if callback := worker.periodic_callbacks.pop(name, None):
            worker.loop.add_callback(callback.stop)


class Cluster:
    """`ports.Engine` on a scheduler of Dask."""

    def __init__(self, address: str) -> None:
        """`address`: `tls://HOST:PORT`, or `tcp://` on this machine alone. Raises RetainerError
        where the extra is not installed or nobody answers."""
        self._address = address
        try:
            from dask import config
            from distributed import Client
        except ImportError:
            raise WrongUsage(
                "`--on` needs the extra `cluster`", hint='pip install "retainer[cluster]"'
            ) from None
        needed = ("ca-file", "client.cert", "client.key")
        has_all = all(config.get(f"distributed.comm.tls.{name}", None) for name in needed)
        if address.startswith("tls") and not has_all:
            raise WrongUsage(
                "no certificate is set up for Dask, and tls:// needs one on both sides",
                hint="DASK_DISTRIBUTED__COMM__TLS__CA_FILE, …__CLIENT__CERT and …__CLIENT__KEY "
                "name the files (docs/how-to/many-machines.md)",
            )
        for name in ("distributed", "distributed.client", "distributed.core", "tornado"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what goes wrong is told below
        try:
            self._client = Client(
                address, timeout=CONNECT_SECONDS, set_as_default=False, name="retainer"
            )
        except Exception as error:  # of many kinds, down to TypeError
            raise RetainerError(
                f"the scheduler {address} does not answer ({type(error).__name__})",
                hint="does it run, and are the certificates right? (docs/how-to/many-machines.md)",
            ) from None
        self._executor = self._client.get_executor(pure=False)

    @property
    def machines(self) -> int:
        """So many threads of workers; each makes one share at a time. A scheduler that was lost is
        waited for as long as Dask itself tries to reach it again."""
        while self._client.status == "connecting":
            time.sleep(0.2)
        try:
            scheduler: Any = self._client.scheduler
            threads = self._client.sync(scheduler.ncores, callback_timeout=CONNECT_SECONDS)
            return sum(threads.values())
        except Exception:
            raise self._lost() from None

    def _lost(self) -> RetainerError:
        return RetainerError(
            f"the scheduler {self._address} was lost: it ended, or cannot be reached any more",
            hint="give the same command once more when it runs again, or without `--on`",
        )

    def submit(self, shard: Shard | Part) -> Future[str | None]:
        made: Future[str | None] = Future()

        def ended(future: Future[Mapping[str, Any] | None]) -> None:
            try:
                told = future.result()
            except BaseException as error:
                made.set_exception(StoreFailed(f"Dask gave it up ({type(error).__name__})"))
                return
            if told is None or "left" in told:
                made.set_result(str(told["left"]) if told else None)
                return
            kind = _KINDS.get(str(told.get("kind")), StoreFailed)
            made.set_exception(kind(str(told.get("message")), hint=told.get("hint")))

        try:
            future = self._executor.submit(on_worker, shard.written())
        except Exception:
            raise self._lost() from None
        future.add_done_callback(ended)
        return made

    def listen(self, heard: Callable[[Told], None]) -> None:
        def event(told: tuple[float, Mapping[str, Any]]) -> None:
            try:  # distributed (2026.8.0) adds which worker it was
                shard, *counts = (told[1][name] for name in ("shard", "ended", "failed", "bytes"))
                heard(Told(str(shard), *map(int, counts)))
            except (KeyError, TypeError, ValueError):
                return  # another program's

        self._client.subscribe_topic(TOPIC, event)

    def close(self) -> None:
        self._client.close(timeout=5)
