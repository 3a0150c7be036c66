"""A bucket that is changed, whatever the cloud: only what is not there is created, only what was
seen is replaced or deleted. A cloud adds how its long writes and its copies are made (s3.py,
gcs.py)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Self

from retainer.errors import CredentialsRefused, KeyTaken, RetainerError, StoreRefused
from retainer.ports import (
    Abilities,
    Begun,
    Checksum,
    Deletion,
    Look,
    Seen,
    StoreFailure,
    StoreReader,
    Version,
    untold,
)
from retainer.stores.calls import Body, Described, Nonsense
from retainer.stores.parts import Part, Parts, crc32c_of
from retainer.stores.reads import ObjectReader
from retainer.stores.verdict import Refusal, Verdict
from retainer.stores.wire import Answer

if TYPE_CHECKING:
    from retainer.stores.proofs import Proven


class ObjectWriter(ObjectReader):
    """Changes one prefix of one bucket, always on a condition."""

    abilities: Proven

    # ── what each cloud does in its own way ─────────────────────────────────────────────────────

    @abstractmethod
    def impatient(self) -> Self: ...

    @abstractmethod
    def create_long(
        self, new: Described, first: Part, parts: Parts, begun: Begun, over: Seen | None
    ) -> Look:
        """What is longer than one write. Raises as `create`."""

    @abstractmethod
    def copies_from(self, source: StoreReader) -> bool: ...

    # ── writing ─────────────────────────────────────────────────────────────────────────────────

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
        with closing(Parts(chunks, size)) as parts:
            first = next(parts)
            known = self.store.storage_class_from if parts.has_more() else first.size
            size = known if size is None else size
            new = Described(key, size, metadata, content_type, lock_until, encoding)
            if parts.has_more():
                return self.create_long(new, first, parts, begun, over)
            return self._put(new, first.body, first.crc32c, over)

    def replace(self, seen: Seen, content: bytes) -> Seen | None:
        new = Described(seen.key, len(content), {}, "application/json")
        try:
            return self._put(new, content, crc32c_of(content), seen).seen
        except KeyTaken:
            return None

    def _put(self, new: Described, body: Body, crc32c: str, over: Seen | None) -> Look:
        """One write, on the condition that nothing is there, or just `over`."""
        answer = self.put(new, body, crc32c, **self.only_over(over.version if over else None))
        told = self.calls.refusal_of(answer)
        gone = told is not None and over is not None and told.verdict is Verdict.MISSING
        if told is not None and (told.verdict is Verdict.UNMET or gone):
            raise self.taken(new.key)  # AWS answers 404 where what is written over is not there
        version, computed = self.said("write", new.key, answer, self.calls.written)
        return self.made(new.key, len(body), version, computed)

    def put(self, new: Described, body: Body, crc32c: str, **condition: str) -> Answer:
        """One write with the strongest checksum that the server takes."""
        return self.ask("write", new.key, self.calls.put(new, body, crc32c, **condition))

    def sent(self, crc32c: str) -> str | None:
        """The checksum that goes with a write, where the server takes one."""
        return crc32c

    def made(self, key: str, size: int, version: str, computed: Checksum | None) -> Look:
        """What was written, with the checksum that was told of it where the store is known to
        compute one."""
        known = self.abilities.computes(version)
        return Look(Seen(key, size, version), computed if known else None)

    def taken(self, key: str) -> KeyTaken:
        return KeyTaken(f"{self.name}:{key}: something else lies there")

    def is_taken(self, key: str, over: Seen | None) -> bool:
        """A look just before a write whose condition does not hold on this server: then the lock of
        the run is what it rests on."""
        there = self.look(key)
        return there is not None and (over is None or there.seen.version != over.version)

    def only_over(self, version: str | None) -> dict[str, str]:
        """The condition of a write: that nothing is there, or just this version."""
        return self.calls.only_over(version)

    def look(self, key: str) -> Look | None:
        look = super().look(key)
        return None if look is None else self.abilities.believed(look)

    def whole(self, key: str, most: int) -> tuple[Look, bytes] | None:
        found = super().whole(key, most)
        return None if found is None else (self.abilities.believed(found[0]), found[1])

    def seen_by_a_reader(self, key: str) -> Look | None:
        """A look that tells whatever the server does."""
        return super().look(key)

    # ── deleting ────────────────────────────────────────────────────────────────────────────────

    def delete(self, seen: Seen) -> Deletion:
        honoured = self.abilities.known.get("delete", False)
        if not honoured:
            answer = self.looked_at(seen.key)
            if answer is None:
                return Deletion.GONE
            found = self.said_of(seen.key, answer).seen
            if (found.version, found.size) != (seen.version, seen.size):
                return Deletion.CHANGED
        # Where the condition is not known to hold, the look before is good for one try alone.
        request = self.calls.delete(seen.key, seen.version, once=not honoured)
        answer = self.ask("delete", seen.key, request)
        return self._became(seen, self.calls.refusal_of(answer), answer)

    def remove(self, version: Version) -> Deletion:
        answer = self.ask("remove a version of", version.seen.key, self.calls.remove(version))
        return self._became(version.seen, self.calls.refusal_of(answer), answer)

    def _became(self, seen: Seen, told: Refusal | None, answer: Answer) -> Deletion:
        """What became of an object. Asked more than once, the first may have been done, and its
        answer lost. Raises what `failure` makes of a refusal that is no such answer."""
        if told is None:
            return Deletion.DELETED
        gone = Deletion.DELETED if answer.tries > 1 else Deletion.GONE
        match told.verdict:
            case Verdict.MISSING:
                return gone
            case Verdict.UNMET:
                return Deletion.CHANGED if self.look(seen.key) else gone
            case Verdict.LOCKED:
                return Deletion.LOCKED
        raise self.failure("delete", seen.key, told)

    def put_back(self, key: str) -> bool:
        return True

    def lock_version(self, seen: Seen, until: datetime) -> None:
        """What is locked at Google cannot be written over, unless the bucket keeps versions."""

    def delete_batch(self, batch: Sequence[Seen]) -> list[Deletion | StoreFailure]:
        done: dict[Seen, Deletion | StoreFailure] = {}
        together = [seen for seen in batch if self.calls.goes_in_a_batch(seen.key)]
        for start in range(0, len(together), self.calls.batch):
            try:
                done |= self._deleted_together(together[start : start + self.calls.batch])
            except RetainerError as error:
                if not done:
                    raise
                # What calls before have deleted stands; of this one and those that were never made
                # it is known only where it was refused.
                refused = isinstance(error, StoreRefused | CredentialsRefused)
                failure = StoreFailure(error.message, refused=refused)
                done |= dict.fromkeys(together[start:], failure)
                break
        return [done[seen] if seen in done else self._deleted_alone(seen) for seen in batch]

    def _deleted_alone(self, seen: Seen) -> Deletion | StoreFailure:
        self._stop.check()
        try:
            return self.delete(seen)
        except CredentialsRefused:
            raise
        except RetainerError as error:
            return StoreFailure(error.message, refused=isinstance(error, StoreRefused))

    def _deleted_together(self, batch: Sequence[Seen]) -> dict[Seen, Deletion | StoreFailure]:
        many = f"{len(batch)} objects"
        answer = self.ask("delete", many, self.calls.delete_many(batch))
        told = self.calls.refusal_of(answer)
        if told is not None and told.verdict is Verdict.CANNOT and told.status == 400:
            return {}  # one of its keys is not read: they go one by one
        if told is not None:
            raise self.failure("delete", many, told)
        try:
            ended = self.calls.deleted_many(batch, answer)
        except Nonsense:
            ended = {}
        return {seen: self._ended(seen, ended, answer) for seen in batch}

    def _ended(
        self, seen: Seen, ended: Mapping[str, Refusal | None], answer: Answer
    ) -> Deletion | StoreFailure:
        if seen.key not in ended:
            said = f"{self.where('delete', seen.key)}: {self._cloud.cloud} answered nothing"
            return StoreFailure(said)
        told = ended[seen.key]
        try:
            return self._became(seen, told, answer)
        except RetainerError as error:
            assert told is not None
            certainly = told.verdict in (Verdict.REFUSED, Verdict.CANNOT, Verdict.CREDENTIALS)
            return StoreFailure(error.message, refused=certainly)

    # ── what the server honours ─────────────────────────────────────────────────────────────────

    def conditions(self) -> Abilities:
        return self.abilities

    def prove_on(self, seen: Seen, content: bytes) -> Seen:
        return self.abilities.prove_on(seen, content)
