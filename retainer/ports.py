"""What the stages need from the outside world. Readers and writers are different types: a plan has
no object that can write."""

from __future__ import annotations

import base64
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from retainer.errors import StoreFailed
from retainer.model.diagnosis import Found
from retainer.model.inventory import InventoryReport
from retainer.model.lifecycle import LifecycleRule
from retainer.model.setting import Lock
from retainer.model.shard import Part, Shard, Told

if TYPE_CHECKING:
    from concurrent.futures import Future

ChecksumKind = Literal["crc32c", "crc64nvme"]


@dataclass(frozen=True, slots=True)
class Seen:
    """One object as a listing or a look showed it. Everything that changes an object is given one
    of these, never a key alone.

    `key` without the store's prefix; `size` in bytes; `version` is the precondition (S3 ETag, GCS
    generation, file inode-size-mtime). `locked_until` (UTC) is `datetime.max` for a hold without an
    end; it is only to be believed when `lock_read`. `retained_until` leaves holds out, which may
    end at any time.
    """

    key: str
    size: int
    version: str
    storage_class: str | None = None
    locked_until: datetime | None = None
    lock_read: bool = False
    archived: bool = False
    """Whether it must be restored before it can be read."""
    retained_until: datetime | None = None
    lock_mode: Lock | None = None
    """Who can take its own lock back, where it has one."""


@dataclass(frozen=True, slots=True)
class Hidden:
    """An object that was deleted, and that the bucket still has: what was seen of it then.

    `marks`: the delete markers that lie on it, the newest first (S3); `soft`: soft-deleted
    (Google); `until`: when it is gone for good, None where that is not told. `by_hand`: the command
    for a person, where only a second factor lets it come back.
    """

    seen: Seen
    marks: tuple[str, ...] = ()
    soft: bool = False
    until: datetime | None = None
    by_hand: str = ""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an object, as a list of them showed it: what it is, and `id`, what the bucket
    calls it. `is_current`: a look shows it; `is_marker`: it has no bytes, and says that the object
    was deleted."""

    seen: Seen
    id: str
    is_current: bool = False
    is_marker: bool = False
    by_hand: str = ""
    """The command for a person, where the bucket wants a second factor for this."""


class Hasher(Protocol):
    """What is computed of bytes as they go by; hashlib's and google_crc32c's are such."""

    def update(self, chunk: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Checksum:
    """A checksum over all bytes of an object, as base64 of its bytes, the highest first (4 of a
    CRC32C, 8 of a CRC64NVME)."""

    kind: ChecksumKind
    value: str

    @staticmethod
    def of(kind: ChecksumKind, hasher: Hasher) -> Checksum:
        return Checksum(kind, base64.b64encode(hasher.digest()).decode())

    @staticmethod
    def found_in(record: Mapping[str, Any]) -> Checksum:
        """The one that a catalog's entry or a manifest names. Raises KeyError where there is
        none."""
        for kind in get_args(ChecksumKind):
            if value := record.get(kind):
                return Checksum(kind, value)
        raise KeyError("checksum")


@dataclass(frozen=True, slots=True)
class Digest:
    """What was counted and computed while bytes went by. `crc32c` as base64 of 4 big-endian bytes,
    `sha256` as hex."""

    size: int
    crc32c: str
    sha256: str

    @property
    def checksum(self) -> Checksum:
        return Checksum("crc32c", self.crc32c)


@dataclass(frozen=True, slots=True)
class Look:
    """An object looked at by itself: as seen, with the checksum that the store tells, and its
    metadata.

    It may be what an uploader claimed; once its conditions are proven, a writer tells none that the
    store does not compute itself.
    """

    seen: Seen
    checksum: Checksum | None = None
    metadata: Mapping[str, str] | None = None
    told: Checksum | None = None
    """The checksum that is stored with it, whoever computed it: no proof that a copy is right, and
    proof enough that bytes are wrong."""
    age: timedelta | None = None
    """How long ago it was written, by the store's own clock; None where the store does not say."""
    encoding: str = ""
    """How its bytes are packed (Content-Encoding), in small letters."""


class Deletion(Enum):
    """What became of a delete: done, or why it was left alone."""

    DELETED = "deleted"
    CHANGED = "changed"
    GONE = "gone"
    LOCKED = "locked"


Ability = Literal[
    "create", "replace", "delete", "batch_delete", "parts", "copy", "checksum", "parts_checksum"
]


class Abilities(Protocol):
    """What a store was seen to honour, each found out on an object of our own when it is first
    asked for. Each raises StoreFailed where that cannot be found out."""

    @property
    def known(self) -> Mapping[str, bool]:
        """What was found out so far, by the name of the ability."""

    def find_out(self, *abilities: Ability) -> None:
        """Find these out now, so that nothing of it is left for later. Raises StoreFailed."""

    def recall(self, known: Mapping[str, bool]) -> None:
        """Believe what was found out before, by the names that `known` gives."""

    def before_a_lock(self) -> None:
        """Find out what must not be left to the lock itself. Raises StoreFailed."""

    @property
    def create(self) -> bool:
        """A single write goes through only where nothing lies."""

    @property
    def replace(self) -> bool:
        """A write over just one version goes through for that version, and for no other."""

    @property
    def lock(self) -> bool:
        """A lock holds here, so that things may be deleted: `create` and `replace`."""

    @property
    def delete(self) -> bool:
        """A delete is refused where another version lies."""

    @property
    def batch_delete(self) -> bool:
        """The same, for each object of a batch."""

    @property
    def parts(self) -> bool:
        """What is longer than one write also goes through only where nothing lies. Else it is
        looked just before, and the lock of the run is what that rests on."""

    @property
    def copy(self) -> bool:
        """The call that copies on the server's side does so only where nothing lies, and computes a
        checksum of what it wrote."""

    @property
    def checksum(self) -> bool:
        """The store computes a CRC32C of its own, as a write with a wrong one has shown; else what
        was written is read back."""


@dataclass(frozen=True, slots=True)
class Certain:
    """Abilities that are known without a probe."""

    create: bool = True
    replace: bool = True
    delete: bool = True
    batch_delete: bool = False
    parts: bool = True
    copy: bool = False
    checksum: bool = False

    @property
    def known(self) -> Mapping[str, bool]:
        return {name: getattr(self, name) for name in get_args(Ability) if hasattr(self, name)}

    def find_out(self, *abilities: Ability) -> None:
        """They are known already."""

    def recall(self, known: Mapping[str, bool]) -> None:
        """They are known already."""

    def before_a_lock(self) -> None:
        """They are known already."""

    @property
    def lock(self) -> bool:
        return self.create and self.replace


Begun = Callable[[str], None]


def untold(upload: str) -> None:
    """For writes so small that nothing of them is left behind."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a list shows between two keys, read to its end: behind `after` (None: from its
    beginning) up to `end` (None: to its end). `first`: the first key that was seen, `beyond`: the
    first behind the end, which may be the same; None where there was none."""

    after: str | None
    end: str | None
    first: str | None
    beyond: str | None

    def holds(self, key: str) -> bool:
        return (self.after is None or key > self.after) and (self.end is None or key <= self.end)


class StoreReader(Protocol):
    """A store that can be looked at. A listing finishes or raises ListingBroken."""

    @property
    def name(self) -> str: ...

    def list(self, under: str = "") -> Iterator[Seen]:
        """Every object below the store's prefix and `under`; without `under`, less retainer's own.
        Raises ListingBroken."""

    def list_at_once(
        self, bounds: Sequence[str], known: Sequence[Stretch] = ()
    ) -> Generator[Seen | Stretch]:
        """Everything that `list` gives, in any order, many pages at once; and each stretch of it,
        once all of that was given. `bounds`: keys at which it may be split, ascending, such as
        quantiles of what is expected; `known`: stretches that were read before, and of which
        nothing is asked again.

        Raises ListingTorn, perhaps at its end, where that cannot be shown to be all; `list` may
        tell it then. Raises ListingBroken.
        """

    def some_between(self, first: str, last: str, pages: int) -> Iterator[Seen]:
        """Objects whose keys are from `first` to `last`, as far as so many pages go: what it shows
        is there, and what it does not show may be there too. Raises ListingBroken."""

    def can_lock(self) -> bool:
        """Whether objects here may carry locks; True as well where that cannot be found out."""

    def keeps_deleted(self) -> str | None:
        """How what is deleted here can still be read, in words; None: it cannot, or that is not
        known."""

    def keeps_removed(self) -> str | None:
        """The same of what is deleted with every version."""

    def hidden(self, seen: Seen) -> Hidden | None:
        """What is left of just this version, which was deleted; None where nothing of it can be
        brought back. Raises StoreFailed."""

    def versions(self, under: str) -> Iterator[Version]:
        """Every version of the object of just this key, or (with a slash at its end) of all below a
        folder, with their locks; a store that keeps none tells what lies there. Raises
        ListingBroken."""

    def lifecycle(self) -> Sequence[LifecycleRule] | None:
        """What the bucket's own rules delete or move; None where that is not known."""

    def traits(self) -> Sequence[Found]:
        """What else its owner has set, and what does not fit its settings here; what is not known
        is left out, or told as that."""

    def look(self, key: str) -> Look | None:
        """The object with its checksum, metadata and locks; None when it is certainly not there.
        Raises StoreFailed."""

    def read(self, seen: Seen) -> Iterator[bytes]:
        """The bytes of just this version, in pieces of at most 1 MiB. Raises StoreFailed when it
        changed or breaks off."""

    def whole(self, key: str, most: int) -> tuple[Look, bytes] | None:
        """An object of at most so many bytes, in one call where that can be; None when it is
        certainly not there. Its locks are not read. Raises StoreFailed, also where it is longer."""

    def unfinished(self) -> Sequence[str]:
        """Keys whose delete a kill cut short, so that their bytes are still there, moved aside;
        only folders have such. Raises StoreFailed."""

    def server_time(self) -> datetime:
        """The server's clock (UTC), from its `Date`; for folders the newest of what they hold and
        of this machine's. Raises StoreFailed."""


class StoreWriter(StoreReader, Protocol):
    """A store that can be changed, always on a condition."""

    def create(
        self,
        key: str,
        chunks: Iterator[bytes],
        size: int | None,
        metadata: Mapping[str, str],
        content_type: str,
        begun: Begun = untold,
        lock_until: datetime | None = None,
        over: Seen | None = None,
        encoding: str = "",
    ) -> Look:
        """Write an object that does not exist yet from a stream, without touching the disk. `over`:
        the broken one that it replaces instead. `encoding`: how the bytes are packed, which a store
        keeps as Content-Encoding, and a folder cannot.

        Gives the object with the checksum that the store computed of it, where it is known to do so
        and told it in its answer.

        At most 64 MiB are held in memory, and for more than 70 GiB five parts of a 9,000th each.
        `lock_until` (UTC) locks it as the store's settings say; look whether it did. `begun` is
        told of a write that a kill would leave unfinished, before its first byte. Raises KeyTaken
        when something (else than `over`) is there, and then nothing of it has changed; whatever
        `chunks` raises goes through, and leaves nothing behind that a listing shows.
        """

    def copies_from(self, source: StoreReader) -> bool:
        """Whether its servers can copy from there by themselves, only where nothing lies, and tell
        a checksum that they computed of it."""

    def copy_within(
        self,
        source: StoreReader,
        seen: Seen,
        checksum: Checksum,
        key: str,
        metadata: Mapping[str, str],
        content_type: str,
        begun: Begun = untold,
        lock_until: datetime | None = None,
    ) -> Seen | None:
        """Copy on the server's side what has this checksum; None where `copies_from` is not so, and
        where the servers cannot after all or refuse it since its bytes have another. Where they do
        not compare by themselves, look at what they made: its checksum is of that kind.

        Creates only; raises KeyTaken and StoreFailed (also when the source changed).
        """

    def abandon(self, key: str, upload: str) -> None:
        """Give up the unfinished write of a dead run that `begun` was told of; it may be gone
        already. Raises StoreFailed."""

    def lock(self, seen: Seen, until: datetime) -> None:
        """Lock an object, or lock it longer: as the store's settings say, and where it has a lock
        in force already, in the mode of that one. Look whether it did. Raises StoreFailed, also
        where another object lies there."""

    def lock_version(self, seen: Seen, until: datetime) -> None:
        """Lock just what lies there now of an object that is written again and again, where the
        settings lock and each version has a lock of its own; elsewhere nothing. Raises
        StoreFailed."""

    def restore(self, seen: Seen) -> None:
        """Ask for an archived object to become readable for a week, which takes hours and costs
        money. Raises StoreFailed."""

    def delete(self, seen: Seen) -> Deletion:
        """Delete just this version of the object; on a versioned bucket an older version stays
        behind. Raises StoreFailed."""

    def remove(self, version: Version) -> Deletion:
        """Remove just this version, for good; the others stay. No lock is passed by. Raises
        StoreFailed."""

    def bring_back(self, hidden: Hidden) -> Seen:
        """Let a deleted object be there again, as it lies then. It creates only, and takes nothing
        away but delete markers. Raises KeyTaken where something lies there by now, StoreFailed."""

    def put_back(self, key: str) -> bool:
        """Undo a delete that `unfinished` tells of; False where another object lies in its place by
        now. Raises StoreFailed."""

    def delete_batch(self, batch: Sequence[Seen]) -> list[Deletion | StoreFailure]:
        """Delete these versions in one call, each on its own condition. Only where
        `conditions().batch_delete`."""

    def conditions(self) -> Abilities:
        """What this store honours."""

    def prove_on(self, seen: Seen, content: bytes) -> Seen:
        """Find out on an object of ours (a lock) what is honoured of single writes, and give it as
        it lies then: with the same bytes. Raises StoreFailed."""

    def impatient(self) -> StoreWriter:
        """The same store, with what was proven of it, that gives up on a silent server within
        seconds. Raises StoreFailed."""

    def replace(self, seen: Seen, content: bytes) -> Seen | None:
        """Write a new version over just this one (the lock's heartbeat); None when it is another
        one by now."""


@dataclass(frozen=True, slots=True)
class StoreFailure:
    """One object of a batch that was not deleted, or of which nobody knows: a sentence without
    secrets. `refused`: it certainly was not."""

    message: str
    refused: bool = False


class InventoryReports(Protocol):
    """The reports in which a bucket tells by itself what lies in a store."""

    def newest(self, now: datetime) -> InventoryReport | None:
        """The newest that is finished, before its files are read; None where there is none. Raises
        ListingBroken where it is damaged, or of another bucket."""

    def fetch(self, report: InventoryReport, folder: Path) -> Path:
        """Its rows as a Parquet file of `REPORTED` in a new folder, those of retainer's own objects
        among them. Raises ListingBroken, also where a file is missing, or is not as its manifest
        says."""


class Rooms(Protocol):
    """Rooms that 100ms is asked for one by one."""

    def room(self, room_id: str) -> Mapping[str, Any] | None:
        """One room, whatever its state; None where 100ms does not know it. Raises SourceFailed."""

    def template(self, template_id: str) -> Mapping[str, Any] | None:
        """One template; None where 100ms does not know it. Raises SourceFailed."""


@dataclass(frozen=True, slots=True)
class AssetPage:
    """One page of a list of assets, as 100ms gives them; `start`: the cursor that it was asked for
    with, None for the first."""

    start: str | None
    rows: Sequence[Mapping[str, Any]]


class Recordings(Rooms, Protocol):
    """The 100ms API, as far as planning needs it."""

    @property
    def whose(self) -> str:
        """What tells these lists from those of another server or other credentials."""

    def assets(self, kind: str | None, start: str | None = None) -> Iterator[AssetPage]:
        """Every asset of one type as 100ms gives it, or (None) of all, from a page on. Finishes or
        raises ListingBroken."""

    def first_page(self) -> Sequence[Mapping[str, Any]]:
        """One page of assets of any type, to find types that nobody knew of."""

    def honours_type(self, kind: str) -> bool:
        """Whether a list of one type holds nothing else: the filter stands in a guide alone, and a
        server may pass over what it does not know. Raises ListingBroken, SourceFailed."""

    def rooms(self, *, enabled: bool) -> Iterator[Mapping[str, Any]]:
        """Every room of one state. Finishes or raises ListingBroken."""

    def customer(self) -> str | None:
        """100ms's id of the workspace whose credentials these are; None where it cannot be told."""

    def server_time(self) -> datetime:
        """The server's clock (UTC)."""


@dataclass(frozen=True, slots=True)
class Body:
    """An opened source: its length in bytes where the server gave one, its content type, its bytes,
    and its address without the query.

    `encoding`: how they are packed (`Content-Encoding`). `stored_length`: so many they are where
    they lie packed, and are unpacked on their way by the server, which marks their end.
    """

    length: int | None
    content_type: str
    chunks: Iterator[bytes]
    address: str = ""
    encoding: str = ""
    stored_length: int | None = None


class Downloads(Rooms, Protocol):
    """The bytes of what 100ms lists."""

    def open(self, asset_id: str) -> Body:
        """Ask for a presigned URL and open it. Raises SourceGone on 404 and 410, SourceFailed on
        everything else.

        A body that breaks off is gone on with where that is safe; else the chunks raise
        SourceFailed before its length is reached.
        """

    def open_beside(self, address: str) -> Body:
        """Open a member of a recording of many objects at its public address, and follow redirects
        only to where that `may_lead`. Raises as `open`."""

    def has_more(self, asset_id: str, length: int) -> bool:
        """Whether the server has more of a recording than so many bytes. Raises SourceFailed."""

    def may_lead(self, page: str, address: str) -> bool:
        """Whether what lies at one address may lead to another: on the same server, and to the
        hosts that the settings name."""


def looked_and_read(store: StoreReader, key: str, most: int) -> tuple[Look, bytes] | None:
    """`StoreReader.whole` in two calls. Raises StoreFailed."""
    look = store.look(key)
    if look is None:
        return None
    if look.seen.size > most:
        raise too_long(store.name, key, look.seen.size)
    return look, b"".join(store.read(look.seen))


def too_long(store: str, key: str, size: int) -> StoreFailed:
    """What `StoreReader.whole` raises for an object of so many bytes."""
    return StoreFailed(f"read {store}:{key}: {size} bytes are too many for what it should be")


class Engine(Protocol):
    """Machines that make shares of a plan, in the shape of `concurrent.futures`. An engine may make
    a share more than once, and may lose one."""

    @property
    def machines(self) -> int:
        """How many shares are made at once, by now. Raises RetainerError where none is, or the
        engine cannot be reached."""

    def submit(self, shard: Shard | Part) -> Future[str | None]:
        """Let a share be made. The future ends with it, of a part with the SHA-256 of what tells
        what was left; or raises RetainerError: what stands against it on every machine, or that no
        machine could be found to make it."""

    def listen(self, heard: Callable[[Told], None]) -> None:
        """From now on this is told, from any thread, how far shares are; some of it may be lost."""

    def close(self) -> None: ...
