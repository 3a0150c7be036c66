"""What a worker of a test loads first (`dask worker --preload`): the kills of kill_child.py, a wait
of seconds where it would be minutes, and STOP_EVENT=name, at whose first line in a share's journal
the process stands still as a machine does that hangs."""

from __future__ import annotations

import os
import signal
import threading
from datetime import timedelta
from typing import Any

import retainer.journal.shards
import retainer.working
from retainer.journal.journal import Journal

if any(name.startswith("KILL_") for name in os.environ):
    import kill_child  # noqa: F401

retainer.working.REST_SECONDS = float(os.environ.get("REST", "1"))
retainer.working.OVER = timedelta(seconds=float(os.environ.get("OVER", "2")))
if (event := os.environ.get("STOP_EVENT")) and not hasattr(Journal, "stands_still"):
    Journal.stands_still = True  # type: ignore[attr-defined]
    written = Journal.write_all

    def write_and_stand_still(self: Journal, events: Any) -> None:
        written(self, events)
        if any(named == event for named, _ in events):
            # a signal to the process may be taken by another thread, while this one goes on
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)

    Journal.write_all = write_and_stand_still  # type: ignore[method-assign]
