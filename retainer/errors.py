"""Every error that a person may see: a sentence of what, where and what next, and its exit code
beside its class."""

from __future__ import annotations


class RetainerError(Exception):
    """A failure with a sentence for the person. `hint` says what to do next."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def told(self) -> str:
        """The sentence with its hint, for where there is one line."""
        return f"{self.message} ({self.hint})" if self.hint else self.message


class PlanRefused(RetainerError):
    """The plan is stale, expired, edited, truncated or was applied already."""

    exit_code = 5


class Locked(RetainerError):
    """Another run holds the lock of a store or of the state folder."""

    exit_code = 6


class FactsIncomplete(RetainerError):
    """A source or a listing did not finish."""

    exit_code = 8


class Declined(RetainerError):
    """A person said no."""

    exit_code = 9


class PoliciesWrong(RetainerError):
    """Policies, settings or policy tests are wrong."""

    exit_code = 10


class CredentialsRefused(RetainerError):
    """Credentials are missing or were refused: by a store, or by 100ms where none is named."""

    exit_code = 11

    def __init__(self, message: str, *, hint: str | None = None, store: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.store = store


class WrongUsage(RetainerError):
    """The command line makes no sense."""

    exit_code = 64


class ListingBroken(RetainerError):
    """A listing did not finish: what it did not show is not known to be missing."""


class ListingTorn(ListingBroken):
    """A listing in ranges cannot be shown to be whole; one from its beginning to its end may be."""


class StoreFailed(RetainerError):
    """A store answered a read or write with something that is neither yes nor no."""


class StoreRefused(StoreFailed):
    """`store` says no, and will say so again: a right is lacking, or nothing can be written
    there."""

    def __init__(self, message: str, *, hint: str | None = None, store: str) -> None:
        super().__init__(message, hint=hint)
        self.store = store


class Archived(StoreFailed):
    """An object of `store` must be restored before it can be read."""

    def __init__(self, message: str, *, hint: str | None = None, store: str) -> None:
        super().__init__(message, hint=hint)
        self.store = store


class SourceFailed(RetainerError):
    """The bytes of a recording could not be read."""


class SourceGone(SourceFailed):
    """The source says that the bytes are not there (404 or 410)."""


class SourceRefused(SourceFailed):
    """The source says no to one recording, and will say so again, while its credentials hold for
    others."""


class TooSlow(SourceFailed):
    """The bytes of a recording come so slowly that it would take for ever; it is not tried again at
    once."""


class Unverified(RetainerError):
    """What was written is not known to be what was read."""


class KeyTaken(RetainerError):
    """A different object lies where a copy should go; it is never overwritten."""
