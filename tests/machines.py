"""A scheduler of Dask and its workers, each a process of its own, as on machines of their own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from project import Project

DASK = {
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "10s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "10s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "15s",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "5s",
}


@dataclass
class Machines:
    """A scheduler, and workers that come and go."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    scheme: str = "tcp"
    address: str = ""

    def _start(self, name: str, cwd: Path, env: Mapping[str, str], *words: str) -> int:
        log = (self.folder / f"{name}.log").open("wb")
        process = subprocess.Popen(
            [sys.executable, "-m", "distributed.cli." + words[0], *words[1:], "--no-dashboard"],
            cwd=cwd,
            env={**env, **DASK, **self.environment},
            stdout=log,
            stderr=log,
        )
        self.processes.append(process)
        return len(self.processes) - 1

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def wait_for(self, name: str, pattern: str) -> str:
        for _ in range(600):
            if found := re.search(pattern, self.said(name)):
                return found[1]
            time.sleep(0.05)
        raise AssertionError(f"{name} said nothing of {pattern}:\n{self.said(name)}")

    def scheduler(self) -> None:
        self._start(
            "scheduler", self.folder, os.environ, "dask_scheduler", "--port", "0",
            "--host", f"{self.scheme}://127.0.0.1", "--protocol", self.scheme,
        )  # fmt: skip
        self.address = self.wait_for("scheduler", rf"Scheduler at:\s+({self.scheme}://\S+)")

    def worker(
        self, project: Project, *words: str, name: str = "worker", threads: int = 1, **env: str
    ) -> int:
        """One more, with a project of its own; its number among the processes."""
        name = f"{name}-{len(self.processes)}"
        root = self.folder / name
        root.mkdir()
        replace(project, root=root).write_from(project)
        number = self._start(
            name, root, project.env() | env, "dask_worker", self.address, "--no-nanny",
            "--nthreads", str(threads), "--name", name, "--local-directory", str(root / "dask"),
            *words,
        )  # fmt: skip
        self.wait_for(name, r"(Registered to)")
        return number

    def signal(self, number: int, what: signal.Signals) -> None:
        self.processes[number].send_signal(what)


@contextmanager
def machines(scheme: str = "tcp", **environment: str) -> Iterator[Machines]:
    with tempfile.TemporaryDirectory(prefix="machines-") as folder:
        lab = Machines(Path(folder), environment, scheme=scheme)
        try:
            lab.scheduler()
            yield lab
        finally:
            for process in lab.processes:
                process.kill()
            for process in lab.processes:
                process.wait()
