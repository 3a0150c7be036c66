"""`retainer`, killed with SIGKILL before or after its n-th effect: KILL_AT=n,
KILL_WHEN=before|after. KILL_COUNT=FILE only counts them. KILL_EVENT=name kills it once that event
is in the journal, KILL_NAME=name at the first (or KILL_NTH) effect of that name. FULL_AT=n: it lives,
and the disk is full from the n-th file on that it writes.

An effect is every call that changes a store and every write of the journal.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys
import threading
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import retainer.applying
import retainer.wiring
from retainer.journal.folder import FileTape
from retainer.journal.journal import Journal
from retainer.journal.shared import PieceTape

AT, WHEN, COUNT = (
    int(os.environ.get("KILL_AT", "0")),
    os.environ.get("KILL_WHEN", ""),
    os.environ.get("KILL_COUNT", ""),
)
NAME = os.environ.get("KILL_NAME", "")
NTH = int(os.environ.get("KILL_NTH", "1"))
"""The first effect of this name (or the NTH) strikes that is not about retainer's own objects, in
place of the one with the number."""
EFFECTS = ("create", "copy_within", "delete", "delete_batch", "lock", "remove", "replace")
seen: list[str] = []
named: list[str] = []


def counted(name: str, call: Any) -> Any:
    def wrapped(*words: Any, **more: Any) -> Any:
        seen.append(name)
        at = len(seen) == AT
        if name == NAME and not any(str(word).startswith("_retainer/") for word in words):
            named.append(name)
            at = len(named) == NTH
        if at and WHEN == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = call(*words, **more)
        if at and WHEN == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        if COUNT:
            Path(COUNT).write_text("\n".join(seen))
        return result

    return wrapped


def wrapped_writer(store: Any, *words: Any, opened: Any = retainer.wiring.open_writer) -> Any:
    writer = opened(store, *words)
    for name in EFFECTS:
        setattr(writer, name, counted(name, getattr(writer, name)))
    return writer


retainer.wiring.open_writer = wrapped_writer
FileTape.append = counted("journal", FileTape.append)  # type: ignore[method-assign]
PieceTape.append = counted("journal", PieceTape.append)  # type: ignore[method-assign]


@cache
def strike_at(event: str, with_what: signal.Signals) -> None:
    """Send a signal once that event is in the journal. Said twice it is said once: Dask loads what
    it is to load before more than once."""
    written = Journal.write_all

    def write_and_strike(self: Journal, events: Any) -> None:
        written(self, events)
        if any(named == event for named, _ in events):
            # a signal to the process may be taken by another thread, while this one goes on
            signal.pthread_kill(threading.get_ident(), with_what)

    Journal.write_all = write_and_strike  # type: ignore[method-assign]


if event := os.environ.get("KILL_EVENT"):
    strike_at(event, signal.SIGKILL)
if full_at := int(os.environ.get("FULL_AT", "0")):
    synced, files = os.fsync, count(1)

    def on_a_full_disk(number: int) -> None:
        if stat.S_ISREG(os.fstat(number).st_mode) and next(files) >= full_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        synced(number)

    os.fsync = on_a_full_disk
carried_out = retainer.applying.carry_out
retainer.applying.carry_out = lambda *words, **named: carried_out(*words, **named | {"workers": 1})  # type: ignore[assignment]

if __name__ == "__main__":
    from retainer.cli import main

    sys.argv[0] = "retainer"
    main()
