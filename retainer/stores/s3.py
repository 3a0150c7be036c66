"""A store on Amazon S3, and on servers that speak its protocol, each in its dialect
(docs/reference/stores.md)."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import ClassVar, Self

from retainer.errors import (
    CredentialsRefused,
    ListingBroken,
    RetainerError,
    StoreFailed,
    StoreRefused,
)
from retainer.model.diagnosis import Found
from retainer.model.setting import Store
from retainer.patience import Patience
from retainer.ports import (
    Begun,
    Checksum,
    ChecksumKind,
    Deletion,
    Hidden,
    Look,
    Seen,
    StoreReader,
    Version,
    untold,
)
from retainer.stop import Stop
from retainer.stores.calls import Body, Described, Nonsense
from retainer.stores.hidden import NO_VERSION
from retainer.stores.parts import Part, Parts, crc32c_of
from retainer.stores.proofs import OTHER, PROBE, Proven, Put, probe_of
from retainer.stores.reads import ObjectReader
from retainer.stores.s3_account import S3Account
from retainer.stores.s3_answers import locks_in
from retainer.stores.s3_calls import S3Calls
from retainer.stores.s3_uploads import Uploads
from retainer.stores.traits import mfa_in, s3_traits
from retainer.stores.verdict import Verdict
from retainer.stores.wire import Answer, NoAnswer, Request
from retainer.stores.writes import ObjectWriter

_UNTIL = "x-amz-object-lock-retain-until-date"
_VERSION = "x-amz-version-id"
_WRONG_SUM = {"BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch"}
"""Not the header is refused, but these bytes."""
_PROBE_CRC64NVME = Checksum("crc64nvme", "O8bbmJm9D2w=")


class S3Reader(ObjectReader):
    """Reads one prefix of one bucket."""

    calls: S3Calls

    def __init__(
        self,
        store: Store,
        stop: Stop | None = None,
        patience: Patience | None = None,
        *,
        quick: bool = False,
        account: S3Account | None = None,
    ) -> None:
        """`quick`: give up on a silent server in seconds, as a lock must. Raises
        CredentialsRefused, StoreFailed."""
        self.account = account or S3Account(store)
        super().__init__(store, self.account, self.account.calls, stop, patience, quick=quick)
        self._may_see_locks: bool | None = None
        self._may_lock: bool | None = None
        self._says_it_locks = False
        self._wants_a_second_factor: bool | None = None

    def can_lock(self) -> bool:
        return self.locks() is not False

    def locks(self) -> bool | None:
        """Whether objects here may be locked; None where that is not known."""
        try:
            return locks_in(self.wire.ask(self.calls.locking()))
        except NoAnswer:
            return None

    def look(self, key: str) -> Look | None:
        """HEAD leaves out lock headers that the caller has no right to see, so absence alone proves
        nothing where a bucket can lock."""
        answer = self.looked_at(key)
        if answer is None:
            return None
        look = self.said_of(key, answer)
        told = look.seen.lock_read or _UNTIL in answer.headers
        if told or not self._lock_headers_can_be_believed(key):
            return look
        return replace(look, seen=replace(look.seen, lock_read=True))

    def hidden(self, seen: Seen) -> Hidden | None:
        answer = self.ask("look for", seen.key, self.calls.versions(seen.key))
        found = self.said("look for", seen.key, answer, partial(self.calls.hidden, seen))
        if found is None:
            return None
        commands = (self._by_hand(seen.key, mark) for mark in found.marks)
        return replace(found, by_hand=" && ".join(filter(None, commands)))

    def versions(self, under: str) -> Iterator[Version]:
        try:
            for version in super().versions(under):
                seen = version.seen
                yield replace(
                    version,
                    seen=self._with_locks(version)
                    if self._may_carry_locks() and not version.is_marker
                    else replace(seen, lock_read=True),
                    by_hand=self._by_hand(seen.key, version.id),
                )
        except StoreFailed as error:
            raise ListingBroken(error.message, hint=error.hint) from None

    def _with_locks(self, version: Version) -> Seen:
        """A version as a look at just it tells its locks, which no list does. Raises
        StoreFailed."""
        answer = self.ask("look at", version.seen.key, self.calls.look_at(version))
        found = self.said_of(version.seen.key, answer).seen
        if (found.version, found.size) != (version.seen.version, version.seen.size):
            raise self.changed("look at", version.seen)
        told = found.lock_read or _UNTIL in answer.headers
        return replace(found, lock_read=told or self._lock_headers_can_be_believed(found.key))

    def _by_hand(self, key: str, version: str) -> str:
        """The command with which a person removes a version, where the bucket wants a second
        factor: S3 takes none from a program that was not given one. Raises StoreFailed where that
        cannot be read."""
        if self._wants_a_second_factor is None:
            answer = self.ask("look at", "", self.calls.keeping())
            self._wants_a_second_factor = self.said("look at", "", answer, mfa_in)
        if not self._wants_a_second_factor:
            return ""
        name = shlex.quote(self.store.prefix + key)
        return (
            f"aws s3api delete-object --bucket {self.store.bucket} --key {name} "
            f"--version-id {shlex.quote(version)} --mfa 'SERIAL CODE'"
        )

    def traits(self) -> Sequence[Found]:
        def asked(name: str) -> Answer | None:
            try:
                return self.wire.ask(self.calls.setting(name))
            except NoAnswer:
                return None

        try:
            return tuple(s3_traits(self.store, asked))
        except Nonsense:
            said = "what its owner has set cannot be read: the answer makes no sense"
            return (Found(self.name, "unsure", said),)

    def _lock_headers_can_be_believed(self, key: str) -> bool:
        if self._may_see_locks is None:
            self._may_see_locks = not self._may_carry_locks() or self.account.may_see_locks(key)
        return bool(self._may_see_locks)

    def _may_carry_locks(self) -> bool:
        """`can_lock`, asked once: it is wanted of each object that is looked at."""
        if self._may_lock is None:
            self._may_lock = self.can_lock()
        return self._may_lock


class S3Writer(ObjectWriter, S3Reader):
    """Changes one prefix of one bucket, always on a condition."""

    def __init__(
        self,
        store: Store,
        stop: Stop | None = None,
        patience: Patience | None = None,
        *,
        quick: bool = False,
        account: S3Account | None = None,
        like: S3Abilities | None = None,
    ) -> None:
        """`like`: what is known of another writer to the same store."""
        S3Reader.__init__(self, store, stop, patience, quick=quick, account=account)
        self.abilities: S3Abilities = S3Abilities(self, like)
        self.uploads = Uploads(self)

    def impatient(self) -> Self:
        return type(self)(
            self.store, self._stop, quick=True, account=self.account, like=self.abilities
        )

    # ── how the server wants to be spoken to ────────────────────────────────────────────────────

    def sent(self, crc32c: str) -> str | None:
        return crc32c if self.abilities.habit("takes_checksums") else None

    @property
    def whole_kind(self) -> ChecksumKind | None:
        """What an upload in parts is proven by as a whole, where the server takes one."""
        return "crc32c" if self.abilities.habit("takes_whole_checksums") else None

    def only_over(self, version: str | None) -> dict[str, str]:
        if version is not None and self.abilities.habit("bare_tags"):
            return {"if_match": version}
        return super().only_over(version)

    def put(self, new: Described, body: Body, crc32c: str, **condition: str) -> Answer:
        """One write with the strongest checksum that the server takes: some refuse the header."""
        sum_sent = self.sent(crc32c)
        answer = self.ask("write", new.key, self.calls.put(new, body, sum_sent, **condition))
        told = self.calls.refusal_of(answer)
        if sum_sent is None or told is None or told.verdict is not Verdict.CANNOT:
            return answer
        if told.code in _WRONG_SUM:
            return answer
        again = self.ask("write", new.key, self.calls.put(new, body, None, **condition))
        now = self.calls.refusal_of(again)
        if now is not None:
            return again if now.verdict is Verdict.UNMET else answer
        self.abilities.note("takes_checksums", False)
        self.abilities.note("takes_whole_checksums", False)
        return again

    # ── long writes, copies on the server's side ────────────────────────────────────────────────

    def create_long(
        self, new: Described, first: Part, parts: Parts, begun: Begun, over: Seen | None
    ) -> Look:
        return self.uploads.create(new, first, parts, begun, over)

    def abandon(self, key: str, upload: str) -> None:
        self.uploads.abandon(key, upload)

    def copies_from(self, source: StoreReader) -> bool:
        if not isinstance(source, S3Reader):
            return False
        here, there = ((each.store.scheme, each.store.endpoint) for each in (self, source))
        same = here == there or source.account.host == self.account.host
        return same and self.abilities.create and self.abilities.checksum

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
        if not isinstance(source, S3Reader) or not self.copies_from(source) or seen.size == 0:
            return None
        new = Described(key, seen.size, metadata, content_type, lock_until)
        return self.uploads.copy(source, seen, checksum, new, begun)

    def remove(self, version: Version) -> Deletion:
        """What was written while the bucket kept no versions has no id of its own. Where it keeps
        none still, it goes on its ETag. Where it does by now, it is looked at just before: while
        versions are suspended, what is written next takes its place."""
        if version.id == NO_VERSION and version.is_current and not self._has_versions():
            return self.delete(version.seen)
        if version.id == NO_VERSION and not version.is_marker:
            answer = self.ask("look at", version.seen.key, self.calls.look_at(version))
            told = self.calls.refusal_of(answer)
            if told is not None and told.verdict is Verdict.MISSING:
                return Deletion.GONE
            found = self.said_of(version.seen.key, answer).seen
            if (found.version, found.size) != (version.seen.version, version.seen.size):
                return Deletion.CHANGED
        try:
            return super().remove(version)
        except StoreRefused:
            if self._is_locked(version):
                return Deletion.LOCKED
            raise

    def _has_versions(self) -> bool:
        """Raises StoreFailed where that cannot be read."""
        answer = self.ask("look at", "", self.calls.keeping())
        return self.said("look at", "", answer, self.calls.keeps) is not None

    def _is_locked(self, version: Version) -> bool:
        """Whether a refusal was a lock's: many servers do not say (SeaweedFS 4.48, moto 5.2.5)."""
        if version.is_marker:
            return False
        try:
            until = self._with_locks(version).locked_until
        except RetainerError:
            return False
        return until is not None and until > self.server_time()

    def bring_back(self, hidden: Hidden) -> Seen:
        seen = hidden.seen
        if NO_VERSION in hidden.marks:
            raise StoreFailed(
                f"{self.where('bring back', seen.key)}: the bucket kept no versions when it was "
                "deleted, so its marker has no id of its own",
                hint="bring it back by hand, and see that nobody writes there meanwhile",
            )
        for mark in hidden.marks:
            marker = Version(Seen(seen.key, 0, ""), mark, is_marker=True)
            answer = self.ask("bring back", seen.key, self.calls.remove(marker))
            told = self.calls.refusal_of(answer)
            if told is not None and told.verdict is not Verdict.MISSING:
                raise self.failure("bring back", seen.key, told)
        look = self.look(seen.key)
        if look is None or look.seen.version != seen.version:
            raise self.changed("bring back", seen)
        return look.seen

    # ── locks, archives ─────────────────────────────────────────────────────────────────────────

    def lock(self, seen: Seen, until: datetime) -> None:
        """Only where the bucket says that it locks: others take the call for a write, and put its
        words in the place of the object (OpenStack Swift 2.30.1, rclone 1.75.2, nanio 0.1.7)."""
        answer = self.looked_at(seen.key)
        there = self.said_of(seen.key, answer).seen if answer is not None else None
        if answer is None or there is None or there.version != seen.version:
            raise self.changed("lock", seen)
        self._says_it_locks = self._says_it_locks or bool(self.locks())
        if not self._says_it_locks:
            raise StoreFailed(
                f"lock {self.name}:{seen.key}: the bucket does not say that it locks objects",
                hint="does it have Object Lock?",
            )
        in_force = there.retained_until and there.retained_until > self.server_time()
        mode = there.lock_mode if in_force else None
        self.account.retain(seen.key, until, mode, answer.headers.get(_VERSION))

    def lock_version(self, seen: Seen, until: datetime) -> None:
        if self.store.lock and self.locks():
            self.account.retain(seen.key, until)

    def restore(self, seen: Seen) -> None:
        self.account.restore(seen.key, seen.storage_class)


class S3Abilities(Proven):
    """What a server that speaks S3 honours."""

    habits: ClassVar = {"bare_tags": False, "takes_checksums": True, "takes_whole_checksums": True}

    def __init__(self, writer: S3Writer, like: S3Abilities | None = None) -> None:
        super().__init__(writer, like)
        self._writer = writer

    def computes(self, version: str) -> bool | None:
        if "-" in version and "checksum" in self.known:
            return self.parts_checksum
        return self.known.get("checksum")

    def _replaces(self, seen: Seen, put: Put, right: str) -> tuple[bool, Seen, Checksum | None]:
        """Ceph RGW 16.2.15 takes an ETag in If-Match of a PUT only without its quotes
        (../shared/lab/ceph-rgw-conditions.sh)."""
        for bare in (False, True):
            self.note("bare_tags", bare)
            replaces, seen, told = super()._replaces(seen, put, right)
            if replaces:
                return True, seen, told
        self.note("bare_tags", False)
        return False, seen, None

    def _proofs_of_parts(self, probe: Seen) -> Mapping[str, bool]:
        here = self._refuses_end(probe.key, crc32c_of(OTHER), 412, if_none_match="*")
        wrong = self._refuses_end(probe.key, crc32c_of(PROBE), 400)
        whole = wrong and self._writer.whole_kind is not None
        return {"parts": here, "parts_checksum": whole and self.checksum}

    def _refuses_end(self, key: str, whole: str, status: int, **condition: str) -> bool:
        """Whether an upload of `other` ends in a refusal, for its condition or since this is not
        its checksum; not so where none can be made."""
        uploads, calls = self._writer.uploads, self._writer.calls
        try:
            upload = uploads.begin(probe_of(key, len(OTHER)))
        except CredentialsRefused:
            raise
        except StoreFailed:
            return False
        try:
            part = uploads.send(key, upload, 1, OTHER, crc32c_of(OTHER))
            of_all = Checksum("crc32c", whole) if self._writer.whole_kind else None
            end = calls.complete(key, upload, [part], of_all, **condition)
            return self.refused(end, statuses=(status,))
        finally:
            with suppress(RetainerError):
                uploads.abandon(key, upload)

    def _copies(self, probe: Seen) -> bool:
        """Some servers repeat the checksum of the source, so another kind is asked for."""
        writer, other = self._writer, f"{probe.key}-copy"

        def copy(key: str) -> Request:
            new = probe_of(key)
            return writer.calls.copy(writer.calls, probe, new, "crc64nvme", if_none_match="*")

        try:
            if writer.calls.refusal_of(writer.ask("probe", "", copy(other))) is not None:
                return False
            made = writer.seen_by_a_reader(other)
            computed = made is not None and made.checksum == _PROBE_CRC64NVME
            return computed and self.refused(copy(probe.key))
        except RetainerError:
            return False  # they are then made in parts, whose last call is conditional
        finally:
            with suppress(RetainerError):
                writer.ask("probe", "", writer.calls.delete(other, None))
