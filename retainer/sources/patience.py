"""How a call is tried again: which answers may pass, how long a server asks to wait, and how long
all of it may take."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import tenacity

from retainer.errors import SourceFailed

BUDGET_SECONDS = 120.0
"""One call is tried again for at most this long; a server that asks for more patience than is left
gets none."""
HASTY_SECONDS = 10.0
"""The same, while others are waiting."""
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


@dataclass(frozen=True, slots=True)
class Patience:
    """`budget` in seconds, and `asked_budget` where the server itself asks to wait, which concerns
    all calls; `on_wait` is told in a sentence of every wait."""

    budget: float = BUDGET_SECONDS
    asked_budget: float = BUDGET_SECONDS * ASKED_TIMES
    sleep: Callable[[float], None] = time.sleep
    on_wait: Callable[[str], None] = lambda _: None

    def try_again(self, what: str, call: Callable[[], Answer]) -> Answer:
        """Make a call until it does not raise Again. Raises SourceFailed when it went on so for the
        budget or 12 tries."""

        def budget_of(error: BaseException | None) -> float:
            if isinstance(error, Again) and error.nobody:
                return min(NOBODY_SECONDS, self.budget)
            asked = isinstance(error, Again) and error.patience is not None
            return self.asked_budget if asked else self.budget

        def is_enough(state: tenacity.RetryCallState) -> bool:
            error = state.outcome.exception() if state.outcome else None
            ends = (state.seconds_since_start or 0.0) + state.upcoming_sleep
            return state.attempt_number >= TRIES or ends > budget_of(error)

        def before_sleep(state: tenacity.RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            self.on_wait(f"{what}: {error}; again in {state.upcoming_sleep:.1f} s")

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.patience if isinstance(error, Again) else None
            return (
                backoff(state.attempt_number)
                if asked is None
                else asked + random.uniform(0.0, min(1.0, asked))
            )

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Again),
            wait=wait,
            stop=is_enough,
            sleep=self.sleep,
            before_sleep=before_sleep,
            reraise=True,
        )
        try:
            return retrying(call)
        except Again as error:
            budget = budget_of(error)
            if error.patience is not None and error.patience > budget:
                message = (
                    f"{what}: {error} and asks to wait {error.patience:.0f} s, longer than "
                    f"the {budget:.0f} s that one call may take"
                )
                raise SourceFailed(message, hint="run it again later") from None
            raise SourceFailed(
                f"{what}: {error}, and went on so for {budget:.0f} s or {TRIES} tries",
                hint="run it again later",
            ) from None


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
