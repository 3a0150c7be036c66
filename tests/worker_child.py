"""What a worker of a test loads first (`dask worker --preload`): the kills of kill_child.py, a wait
of seconds where it would be minutes, and STOP_EVENT=name, at whose first line in a share's journal
the process stands still as a machine does that hangs."""

from __future__ import annotations

import os
import signal
from datetime import timedelta

from kill_child import strike_at

import retainer.working
import retainer.workplace

retainer.workplace.REST_SECONDS = float(os.environ.get("REST", "1"))
retainer.working.OVER = timedelta(seconds=float(os.environ.get("OVER", "2")))
if event := os.environ.get("STOP_EVENT"):
    strike_at(event, signal.SIGSTOP)
