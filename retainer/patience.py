"""How a call is tried again: which answers may pass, how long a server asks to wait, and how long
all of it may take."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Mapping
from copy import copy
from typing import TypeVar

import tenacity

BUDGET_SECONDS = 120.0
"""One call is tried again for at most this long; a server that asks for more patience than is left
gets none."""
HASTY_SECONDS = 10.0
"""The same, while others are waiting."""
SPENT_TIMES = 1 / 12
"""So many times as long, once a server has spent all of it."""
ASKED_TIMES = 2.5
"""So many times as long, where the server itself says when to come again."""
NOBODY_SECONDS = 15.0
"""The same, where nobody is there to answer: an unknown host, a refused connection."""
TRIES = 12

Answer = TypeVar("Answer")


class Again(Exception):
    """This call may go through later; `patience` is how long the server asked to wait, in seconds;
    `nobody`: no server was there."""

    def __init__(
        self, message: str, patience: float | None = None, *, nobody: bool = False
    ) -> None:
        super().__init__(message)
        self.patience = patience
        self.nobody = nobody
        self.why_no_more = ""
        """The end of a sentence that begins with this failure, once it was the last one."""


class Patience:
    """With one server, or with all of one kind. Safe to use from several threads."""

    def __init__(
        self,
        budget: float = BUDGET_SECONDS,
        *,
        sleep: Callable[[float], object] = time.sleep,
        on_wait: Callable[[str], None] = lambda _: None,
        tries: int = TRIES,
    ) -> None:
        """`budget`: seconds that one call may go on for; `on_wait` is told in a sentence of every
        wait."""
        self.budget = budget
        self._asked_budget = budget * ASKED_TIMES
        self._sleep, self._on_wait, self._tries = sleep, on_wait, tries
        self._is_spent = False

    def anew(self) -> Patience:
        """The same with another server, of which nothing is known yet."""
        other = copy(self)
        other._is_spent = False
        return other

    def hasty(self, tries: int = TRIES) -> Patience:
        """The same for a few seconds, unless the server asks to wait."""
        other = self.anew()
        other.budget, other._tries = min(HASTY_SECONDS, self.budget), tries
        return other

    def try_again(
        self, what: str, call: Callable[[], Answer], aside: Callable[[], float] = lambda: 0.0
    ) -> Answer:
        """Make a call until it does not raise Again. Raises the last one when it went on so for the
        budget or 12 tries. `aside`: seconds of it in which the server was not asked.

        After that the next calls get little of it until one goes through: a server that is down is
        waited for once, and not again for each object.
        """

        def is_enough(state: tenacity.RetryCallState) -> bool:
            ends = (state.seconds_since_start or 0.0) - aside() + state.upcoming_sleep
            return state.attempt_number >= self._tries or ends > self._budget_of(_of(state))

        def before_sleep(state: tenacity.RetryCallState) -> None:
            self._on_wait(f"{what}: {_of(state)}; again in {state.upcoming_sleep:.1f} s")

        def wait(state: tenacity.RetryCallState) -> float:
            asked = _of(state).patience or 0.0
            # one that says 0 would else be asked 12 times within a moment
            jitter = random.uniform(0.0, min(1.0, asked))
            return max(asked + jitter, backoff(state.attempt_number))

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Again),
            wait=wait,
            stop=is_enough,
            sleep=self._rest,
            before_sleep=before_sleep,
            reraise=True,
        )
        try:
            answer = retrying(call)
        except Again as last:
            last.why_no_more = self._why_no_more(last)
            self._is_spent = True
            raise
        self._is_spent = False
        return answer

    def _rest(self, seconds: float) -> None:
        self._sleep(seconds)

    def pause(self, sentence: str, tries: int) -> None:
        """Wait before something is gone on with for the try number `tries` + 1."""
        self._on_wait(sentence)
        self._sleep(backoff(tries))

    def _why_no_more(self, last: Again) -> str:
        budget = self._whole_budget_of(last)
        if last.patience is not None and last.patience > budget:
            return (
                f" and asks to wait {last.patience:.0f} s, longer than the {budget:.0f} s that one "
                "call may take"
            )
        return f", and went on so for {budget:.0f} s or {self._tries} tries"

    def _budget_of(self, error: Again) -> float:
        return self._whole_budget_of(error) * (SPENT_TIMES if self._is_spent else 1)

    def _whole_budget_of(self, error: Again) -> float:
        if error.patience is not None:
            return self._asked_budget
        return min(NOBODY_SECONDS, self.budget) if error.nobody else self.budget


def _of(state: tenacity.RetryCallState) -> Again:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, Again)
    return error


def backoff(attempt: int) -> float:
    """Seconds before try number `attempt` + 1: twice as long each time, at most a minute, with
    jitter."""
    return float(min(60.0, 0.5 * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0))


def may_pass(status: int) -> bool:
    """Whether a call that was answered so may go through later."""
    return status in (408, 425, 429) or status >= 500


def asked_patience(
    status: int, headers: Mapping[str, str], text: Callable[[], str]
) -> float | None:
    """The seconds a 429 or 503 asks for: from the header, or from the text where only that names
    them; None for any other answer."""
    if status not in (429, 503):
        return None
    header = headers.get("Retry-After", "")
    if header.isascii() and header.isdigit():
        return float(header)
    found = re.search(r"(?i)\bafter\s+([0-9]+(?:\.[0-9]+)?)\s*(ms|milli|s|min|m\b)?", text()[:2000])
    if not found:
        return None
    scale = {"ms": 0.001, "milli": 0.001, "min": 60.0, "m": 60.0}.get(
        (found[2] or "s").lower(), 1.0
    )
    return float(found[1]) * scale
