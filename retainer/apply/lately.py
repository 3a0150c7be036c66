"""What is asked of today again and again while a run goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Generic, TypeVar

LOOK_EVERY = timedelta(seconds=10)
"""Policies are looked at again at most so often: a hold may have been added."""
Answer = TypeVar("Answer")


class Lately(Generic[Answer]):
    """An answer that is asked for anew once it is older than `every`, or the clock went back.
    Safe to use from several threads."""

    def __init__(
        self,
        ask: Callable[[], Answer],
        clock: Callable[[], datetime],
        every: timedelta | None = None,
    ) -> None:
        """`every`: None is `LOOK_EVERY`."""
        self._ask, self._clock, self._every = ask, clock, every
        self._guard = threading.Lock()
        self._last: tuple[datetime, Answer] | None = None

    def __call__(self) -> Answer:
        every = LOOK_EVERY if self._every is None else self._every
        with self._guard:
            if self._last is None or abs(self._clock() - self._last[0]) > every:
                answer = self._ask()
                self._last = self._clock(), answer
            return self._last[1]

    def anew(self) -> Answer:
        with self._guard:
            self._last = None
        return self()
