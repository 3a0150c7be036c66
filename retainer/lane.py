"""How many calls to one server are under way at once."""

from __future__ import annotations

import threading
import time
from functools import cache

FIRST_AT_ONCE = 32
MOST_AT_ONCE = 256


class Lane:
    """So many calls to one server at once: more after each row of successes, half where it says
    that it is too many (additive increase, multiplicative decrease)."""

    def __init__(self, first: int = FIRST_AT_ONCE, most: int = MOST_AT_ONCE) -> None:
        self._limit, self._most = first, most
        self._going = self._row = 0
        self._free = threading.Condition()

    @property
    def limit(self) -> int:
        return self._limit

    def __enter__(self) -> float:
        """Gives the seconds that it took until there was room."""
        began = time.monotonic()
        with self._free:
            while self._going >= self._limit:
                self._free.wait()
            self._going += 1
        return time.monotonic() - began

    def __exit__(self, *_: object) -> None:
        with self._free:
            self._going -= 1
            self._free.notify()

    def ended(self, *, busy: bool) -> None:
        """Told of each answer."""
        with self._free:
            self._row = 0 if busy else self._row + 1
            if busy:
                self._limit = max(1, self._limit // 2)
            elif self._row >= self._limit and self._limit < self._most:
                self._limit, self._row = self._limit + 1, 0
                self._free.notify()


@cache
def lane_of(host: str, at_once: int) -> Lane:
    """The lane to one server, which all share that go there with the same bound."""
    return Lane(min(FIRST_AT_ONCE, at_once), at_once)
