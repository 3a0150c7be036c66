"""One token for "stop": whoever loops over calls, or waits, asks it; Ctrl-C, SIGTERM and a lost
lock say it."""

from __future__ import annotations

import threading


class Stopped(BaseException):
    """The work was asked to end. No `except Exception` takes it for a failure of what it was
    doing."""


class Stop:
    """May be asked from any thread and from a signal handler."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    @property
    def is_asked(self) -> bool:
        return self._asked.is_set()

    @property
    def is_over(self) -> bool:
        """Whether nothing may be changed any more, not even to end in order."""
        return False

    def ask(self) -> None:
        self._asked.set()

    def check(self) -> None:
        """Raises Stopped once it was asked."""
        if self._asked.is_set():
            raise Stopped

    def wait(self, seconds: float) -> None:
        """Wait so long. Raises Stopped as soon as it is asked."""
        if self._asked.wait(seconds):
            raise Stopped

    def pause(self, seconds: float) -> bool:
        """Wait so long, or until it is asked; whether it was."""
        return self._asked.wait(seconds)
