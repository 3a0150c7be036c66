"""What a worker of a test loads first: with KILLED it is killed when it is about to tell
of its first range, and with HANGS it takes a minute for that."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import retainer.ranging
import retainer.workplace
from retainer.model.shard import Part

retainer.workplace.REST_SECONDS = 0.5


def strike() -> None:
    """Dask loads what it is to load before more than once."""
    told = retainer.ranging._tell

    def killed(part: Part, *more: Any) -> str:
        if "KILLED" in os.environ:
            os.kill(os.getpid(), signal.SIGKILL)
        if "HANGS" in os.environ:
            time.sleep(60)
        return told(part, *more)

    retainer.ranging._tell = killed


strike()
