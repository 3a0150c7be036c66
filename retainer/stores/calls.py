"""What the calls of all clouds have in common: their nouns, and what a store asks of a protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from retainer.model.lifecycle import LifecycleRule
from retainer.ports import Checksum, Look, Seen, Version
from retainer.stores.verdict import Refusal
from retainer.stores.wire import Answer, Dialer, Request

Body = bytes | memoryview
EARLIER_VERSIONS = "the bucket keeps versions, and it can be read by its own"
"""How what is deleted can still be read."""


class Nonsense(Exception):
    """An answer that this cloud would not give: something else answers in its place."""


@dataclass(frozen=True, slots=True)
class Described:
    """A new object but for its bytes. `lock_until` in UTC."""

    key: str
    size: int
    metadata: Mapping[str, str]
    content_type: str
    lock_until: datetime | None = None
    encoding: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a listing; `then`: what the next one is asked with."""

    objects: Sequence[Seen]
    then: str | None


@dataclass(frozen=True, slots=True)
class VersionPage:
    """A page of a list of versions; `then`: as that of Page."""

    versions: Sequence[Version]
    then: str | None


class Calls(Protocol):
    """A protocol as values: what is wanted becomes a request, an answer what it says. No I/O;
    whatever reads an answer raises Nonsense."""

    @property
    def batch(self) -> int:
        """So many objects at most are deleted in one call."""

    @property
    def no_version(self) -> str:
        """A version that no object has."""

    def refusal_of(self, answer: Answer) -> Refusal | None:
        """Why a call was not done; None where it was."""

    def only_over(self, version: str | None) -> dict[str, str]:
        """The condition of a write: that just this version lies there, or (None) nothing."""

    def list(
        self, under: str, then: str | None, *, after: str | None = None, extras: bool = True
    ) -> Request:
        """`after`: only what comes behind this key. `extras`: ask for what not every server has a
        word for."""

    def folders(self, under: str) -> Request:
        """A page of the folders right below one, and not of what lies in them."""

    def folders_told(self, answer: Answer) -> Sequence[str]: ...

    def listed(self, answer: Answer) -> Page: ...

    def lifecycle(self) -> Request: ...

    def rules(self, answer: Answer) -> Sequence[LifecycleRule] | None:
        """None where the answer does not tell."""

    def look(self, key: str, *, extras: bool = True) -> Request: ...

    def looked(self, key: str, answer: Answer) -> Look:
        """`lock_read` is set only where what it tells of locks is all."""

    def read(self, seen: Seen, start: int = 0) -> Request: ...

    def whole(self, key: str, *, extras: bool = True) -> Request:
        """An object that is read without a look before."""

    def opened(self, key: str, answer: Answer) -> Look:
        """What the head of its answer says of it."""

    def version_in(self, answer: Answer) -> str | None:
        """Whose bytes an answer holds, where it tells."""

    def put(self, new: Described, body: Body, checksum: str | None, **condition: str) -> Request:
        """`checksum`: the CRC32C, where the server takes one."""

    def written(self, answer: Answer) -> tuple[str, Checksum | None]:
        """The version of what was put, and the checksum that the answer tells."""

    def delete(self, key: str, version: str | None, *, once: bool = False) -> Request: ...

    def goes_in_a_batch(self, key: str) -> bool: ...

    def delete_many(self, batch: Sequence[Seen]) -> Request: ...

    def deleted_many(self, batch: Sequence[Seen], answer: Answer) -> Mapping[str, Refusal | None]:
        """By its key why an object was not deleted, None where it was. What is not named is not
        known."""

    def versions(self, under: str, then: str | None = None) -> Request:
        """Of what begins with this, in pages."""

    def versions_told(self, answer: Answer) -> VersionPage: ...

    def remove(self, version: Version) -> Request:
        """Remove just this version, by the id that a list of them gave: the one call that is for
        good. A restore takes delete markers away by it."""

    def keeping(self) -> Request:
        """What the bucket keeps of what is deleted."""

    def keeps(self, answer: Answer) -> str | None:
        """How that can still be read, in words; None: it cannot."""

    def bucket(self) -> Request:
        """A look at the bucket alone, for the server's time."""


class Account(Dialer, Protocol):
    """One bucket as these credentials reach it."""

    @property
    def cloud(self) -> str: ...

    @property
    def whose(self) -> str:
        """How a person sees whose credentials are used."""

    @property
    def host(self) -> str: ...

    @property
    def region(self) -> str:
        """Where the bucket is asked."""

    def moves_to(self, region: str, asked: str) -> bool:
        """Ask in another region from now on; whether that is another one than was asked."""

    def hint_for(self, told: Refusal) -> str | None:
        """What a refusal means that this cloud is known for, and nobody's right."""
