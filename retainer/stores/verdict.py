"""What a refusal of a cloud means, in words that all of them share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """Why a call was not done."""

    MISSING = "nothing of that name is there"
    UNMET = "its condition did not hold: something is there, or something else than was meant"
    REFUSED = "a right is lacking"
    CREDENTIALS = "the credentials are none, or have ended"
    LOCKED = "the object is locked"
    ARCHIVED = "the object must be restored first"
    BUSY = "the same call may go through later"
    CANNOT = "this server does not do that"
    ELSEWHERE = "the bucket is in another region, or at another address"
    OTHER = "anything else"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A call that was answered by a no. `code` and `message` in the server's own words; `leads_to`:
    the region or address that it names."""

    verdict: Verdict
    status: int
    code: str = ""
    message: str = ""
    leads_to: str | None = None

    @property
    def may_pass(self) -> bool:
        """Whether the same call may go through at once or soon. 409 is left to whoever asked: it
        must look first."""
        return self.verdict is Verdict.BUSY and self.status not in (409, 501)
