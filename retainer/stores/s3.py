"""A store on Amazon S3, and on servers that speak its protocol: what each call means is here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import chain
from typing import TypeVar

from retainer.errors import (
    Archived,
    CredentialsRefused,
    KeyTaken,
    ListingBroken,
    RetainerError,
    StoreFailed,
    StoreRefused,
)
from retainer.model.moment import read_http_date
from retainer.model.setting import OWN_PREFIX, Store
from retainer.ports import (
    Abilities,
    Ability,
    Begun,
    Checksum,
    ChecksumKind,
    Deletion,
    Look,
    Seen,
    StoreFailure,
    StoreReader,
    too_long,
    untold,
)
from retainer.stop import Stop
from retainer.stores.parts import Part, Parts, crc32c_of
from retainer.stores.s3_account import S3Account
from retainer.stores.s3_calls import (
    UNWRITABLE,
    Described,
    NotS3,
    Page,
    PartMade,
    refusal_of,
    written,
)
from retainer.stores.s3_proofs import S3Abilities, believed
from retainer.stores.verdict import Refusal, Verdict
from retainer.stores.wire import Answer, NoAnswer, Request, Wire

Body = bytes | memoryview
Says = TypeVar("Says")

PARTS_AT_ONCE = 3
COPY_PART = 512 << 20
_UNTIL = "x-amz-object-lock-retain-until-date"
_WRONG_SUM = {"BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch"}
"""Not the header is refused, but these bytes."""
RESUMES = 3
"""So often in a row a read is gone on with that brings no new byte."""
_CANNOT = (400, 403, 405, 501)
"""How a server answers that it does not copy by itself, or that the bytes have another checksum:
they then go through here."""


class S3Reader:
    """Reads one prefix of one bucket."""

    def __init__(
        self,
        store: Store,
        stop: Stop | None = None,
        *,
        quick: bool = False,
        account: S3Account | None = None,
    ) -> None:
        """`quick`: give up on a silent server in seconds, as a lock must. Raises
        CredentialsRefused, StoreFailed."""
        self.name = store.name
        self.store = store
        self._stop = stop or Stop()
        self._account = account or S3Account(store)
        self.calls = self._account.calls
        self.wire = Wire(self._account, self._account.host, self._stop, quick=quick)
        self._may_see_locks: bool | None = None
        self._tells_restores = self._tells_checksums = True

    def ask(self, verb: str, key: str, request: Request) -> Answer:
        """One call. A bucket that turns out to be in another region of AWS is asked there. Raises
        StoreFailed when no answer comes."""
        asked = self._account.region
        try:
            answer = self.wire.ask(request)
            told = refusal_of(answer) if answer.status in (301, 307, 400) else None
            if told is not None and told.leads_to and self._account.moves_to(told.leads_to, asked):
                answer = self.wire.ask(request)
        except NoAnswer as error:
            raise self._unanswered(verb, key, error) from None
        return answer

    def _unanswered(self, verb: str, key: str, error: NoAnswer) -> StoreFailed:
        hint = "the connection failed; run it again"
        return StoreFailed(f"{self._where(verb, key)}: {error}", hint=hint)

    def _where(self, verb: str, key: str) -> str:
        return f"{verb} {self.name}:{key}" if key else f"{verb} {self.name}"

    def failure(self, verb: str, key: str, told: Refusal) -> RetainerError:
        """A refusal as a sentence."""
        code = f" {told.code}" if told.code else ""
        said = f"{self._where(verb, key)}: S3 answered {told.status}{code}"
        match told.verdict:
            case Verdict.CREDENTIALS:
                said = f"{self._where(verb, key)}: S3 refused the credentials ({told.code})"
                hint = "see `aws sts get-caller-identity`"
                return CredentialsRefused(said, hint=hint, store=self.name)
            case Verdict.ELSEWHERE:
                return self._leads_elsewhere(said, told)
            case Verdict.ARCHIVED:
                hint = "it is archived: `retainer apply --restore` asks for it"
                return Archived(said, hint=hint, store=self.name)
            case Verdict.REFUSED | Verdict.LOCKED if told.code == "RequestTimeTooSkewed":
                return StoreFailed(said, hint="this machine's clock is off")
            case Verdict.REFUSED if told.code == "SecondLevelDomainForbidden":
                hint = "set `addressing: virtual` for it"
                return StoreFailed(said, hint=hint + _in_its_words(told))
            case Verdict.REFUSED | Verdict.LOCKED:
                hint = "the credentials lack a right there"
                return StoreRefused(said, hint=hint + _in_its_words(told), store=self.name)
            case _:
                return StoreFailed(said, hint=_in_its_words(told).removeprefix("; ") or None)

    def _leads_elsewhere(self, said: str, told: Refusal) -> StoreFailed:
        if told.leads_to and "/" not in told.leads_to:
            hint = f"set `region: {told.leads_to}` for it: that is where the bucket is"
            return StoreFailed(f"{said}, the region {told.leads_to}", hint=hint)
        leads = told.leads_to or "an address that it does not name"
        return StoreFailed(
            f"reach {self.name}: the server answered {told.status} and leads to {leads}",
            hint="write the address itself as its `endpoint`",
        )

    def no_s3(self, verb: str, key: str) -> StoreFailed:
        return StoreFailed(
            f"{self._where(verb, key)}: the answer is none that S3 would give",
            hint="does something else answer in its place?",
        )

    def said(self, verb: str, key: str, answer: Answer, says: Callable[[Answer], Says]) -> Says:
        """What an answer says. Raises what `failure` makes of a refusal, and StoreFailed where it
        is none that S3 would give."""
        if told := refusal_of(answer):
            raise self.failure(verb, key, told)
        try:
            return says(answer)
        except NotS3:
            raise self.no_s3(verb, key) from None

    def list(self, under: str = "") -> Iterator[Seen]:
        then: str | None = None
        try:
            while True:
                self._stop.check()
                page = self._page(under, then)
                for seen in page.objects:
                    if seen.key and (under or not seen.key.startswith(OWN_PREFIX)):
                        yield seen
                if page.then is None:
                    return
                if page.then == then:
                    raise StoreFailed(f"{self._where('list', under)}: the list goes in a circle")
                then = page.then
        except StoreFailed as error:
            raise ListingBroken(error.message, hint=error.hint) from None

    def _page(self, under: str, then: str | None) -> Page:
        answer = self.ask("list", under, self._list_call(under, then))
        told = refusal_of(answer)
        if told is not None and told.verdict is Verdict.CANNOT and self._tells_restores:
            self._tells_restores = False  # Backblaze B2 refuses the header that asks for it
            answer = self.ask("list", under, self._list_call(under, then))
        return self.said("list", under, answer, self.calls.listed)

    def _list_call(self, under: str, then: str | None) -> Request:
        return self.calls.list(under, then, restored=self._tells_restores)

    def can_lock(self) -> bool:
        return self._locks() is not False

    def _locks(self) -> bool | None:
        """Whether objects here may be locked; None where that is not known."""
        try:
            return self.calls.locks(self.wire.ask(self.calls.locking()))
        except NoAnswer:
            return None

    def look(self, key: str) -> Look | None:
        found = self._looked(key)
        if found is None or found[1] or not self._lock_headers_can_be_believed(key):
            return found[0] if found else None
        look = found[0]
        return replace(look, seen=replace(look.seen, lock_read=True))

    def _looked(self, key: str) -> tuple[Look, bool] | None:
        """A look, and whether it says of a lock."""
        answer = self.ask("look at", key, self.calls.look(key, sums=self._tells_checksums))
        told = refusal_of(answer)
        if told is not None and told.verdict is Verdict.CANNOT and self._tells_checksums:
            answer = self.ask("look at", key, self.calls.look(key, sums=False))
            told = refusal_of(answer)
            if told is None or told.verdict is Verdict.MISSING:
                self._tells_checksums = False  # Backblaze B2 refuses the header that asks for it
        if told is not None and told.verdict is Verdict.MISSING:
            return None
        look = self.said("look at", key, answer, partial(self.calls.looked, key))
        return look, look.seen.lock_read or _UNTIL in answer.headers

    def _lock_headers_can_be_believed(self, key: str) -> bool:
        """HEAD leaves out lock headers that the caller has no right to see, so absence alone proves
        nothing where a bucket can lock."""
        if self._may_see_locks is None:
            self._may_see_locks = not self.can_lock() or self._account.may_see_locks(key)
        return bool(self._may_see_locks)

    def read(self, seen: Seen) -> Iterator[bytes]:
        count = idle = 0
        while count < seen.size or count == seen.size == 0:
            try:
                with self.wire.open(self.calls.read(seen, count)) as (answer, body):
                    told = refusal_of(answer)
                    if told is not None and told.verdict in (Verdict.UNMET, Verdict.MISSING):
                        raise StoreFailed(
                            f"read {self.name}:{seen.key}: it changed since it was seen",
                            hint="plan again",
                        )
                    if told is not None:
                        raise self.failure("read", seen.key, told)
                    self._is_still(seen, answer, count)
                    for piece in body:
                        if not seen.key.startswith(OWN_PREFIX):
                            self._stop.check()
                        count, idle = count + len(piece), 0
                        yield piece
                break
            except NoAnswer as error:
                idle += 1
                if idle > RESUMES or self._stop.pause(0.2 * idle):
                    raise self._unanswered("read", seen.key, error) from None
        if count != seen.size:
            raise StoreFailed(
                f"read {self.name}:{seen.key}: {count} bytes came, {seen.size} were seen"
            )

    def _is_still(self, seen: Seen, answer: Answer, start: int) -> None:
        """Raises StoreFailed where an answer to a read is another object's, or begins elsewhere:
        not every server honours the condition of a read."""
        etag = answer.headers.get("etag", "").strip('"')
        if etag and etag != seen.version:
            raise StoreFailed(
                f"read {self.name}:{seen.key}: it changed since it was seen", hint="plan again"
            )
        begins = answer.headers.get("content-range", "").startswith(f"bytes {start}-")
        if start and (answer.status != 206 or not begins):
            raise StoreFailed(f"read {self.name}:{seen.key}: it cannot be gone on with")

    def whole(self, key: str, most: int) -> tuple[Look, bytes] | None:
        return self._whole(key, most, sums=self._tells_checksums)

    def _whole(self, key: str, most: int, *, sums: bool) -> tuple[Look, bytes] | None:
        """`sums`: ask for the checksum, too."""
        try:
            asked = self._account.region
            with self.wire.open(self.calls.whole(key, sums=sums)) as (answer, body):
                told = refusal_of(answer)
                if told is not None and told.verdict is Verdict.CANNOT and sums:
                    found = self._whole(key, most, sums=False)
                    self._tells_checksums = False  # only the header was not taken
                    return found
                if told is not None and told.verdict is Verdict.MISSING:
                    return None
                if (
                    told is not None
                    and told.leads_to
                    and self._account.moves_to(told.leads_to, asked)
                ):
                    return S3Reader.whole(self, key, most)
                if told is not None:
                    raise self.failure("read", key, told)
                look = self.calls.looked(key, answer)
                if look.seen.size > most:
                    raise too_long(self.name, key, look.seen.size)
                content = b"".join(body)
        except NoAnswer as error:
            raise self._unanswered("read", key, error) from None
        except NotS3:
            raise self.no_s3("read", key) from None
        if len(content) != look.seen.size:
            raise StoreFailed(f"read {self.name}:{key}: {len(content)} bytes came")
        return look, content

    def unfinished(self) -> Sequence[str]:
        return ()

    def server_time(self) -> datetime:
        date = read_http_date(self.wire.date)
        if date is None:
            answer = self.ask("reach", "", self.calls.bucket())
            date = read_http_date(answer.headers.get("date"))
        if date is None:
            raise StoreFailed(f"reach {self.name}: the server does not tell its time")
        return date


class S3Writer(S3Reader):
    """Changes one prefix of one bucket, always on a condition."""

    def __init__(
        self,
        store: Store,
        stop: Stop | None = None,
        *,
        quick: bool = False,
        account: S3Account | None = None,
    ) -> None:
        super().__init__(store, stop, quick=quick, account=account)
        self._abilities = S3Abilities(self)

    @property
    def takes_checksums(self) -> bool:
        return self._abilities.habit("takes_checksums")

    @property
    def takes_whole_checksums(self) -> bool:
        return self._abilities.habit("takes_whole_checksums")

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
    ) -> Look:
        with closing(Parts(chunks, size)) as parts:
            first = next(parts)
            known = self.store.storage_class_from if parts.has_more() else first.size
            size = known if size is None else size
            new = Described(key, size, metadata, content_type, lock_until)
            if parts.has_more():
                return self._create_in_parts(new, first, parts, begun, over)
            return self._put(new, first.body, first.crc32c, over)

    def _put(self, new: Described, body: Body, crc32c: str, over: Seen | None) -> Look:
        """One PUT, on the condition that nothing is there, or just `over`."""
        answer = self.put(new, body, crc32c, **self._only_over(over))
        told = refusal_of(answer)
        gone = told is not None and over is not None and told.verdict is Verdict.MISSING
        if told is not None and (told.verdict is Verdict.UNMET or gone):
            raise self._taken(new.key)  # AWS answers 404 where what is written over is not there
        etag, computed = self.said("write", new.key, answer, written)
        return self._written(new.key, len(body), etag, computed)

    def put(self, new: Described, body: Body, crc32c: str, **condition: str) -> Answer:
        """One PUT with the strongest checksum that the server takes: some refuse the header."""
        sum_sent = crc32c if self.takes_checksums else None
        answer = self.ask("write", new.key, self.calls.put(new, body, sum_sent, **condition))
        told = refusal_of(answer)
        if sum_sent is None or told is None or told.verdict is not Verdict.CANNOT:
            return answer
        if told.code in _WRONG_SUM:
            return answer
        again = self.ask("write", new.key, self.calls.put(new, body, None, **condition))
        now = refusal_of(again)
        if now is not None:
            return again if now.verdict is Verdict.UNMET else answer
        self._abilities.note("takes_checksums", False)
        self._abilities.note("takes_whole_checksums", False)
        return again

    def _taken(self, key: str) -> KeyTaken:
        return KeyTaken(f"{self.name}:{key}: something else lies there")

    def _create_in_parts(
        self, new: Described, first: Part, parts: Parts, begun: Begun, over: Seen | None
    ) -> Look:
        upload = self.begin(new)
        try:
            begun(upload)
            sent: list[Future[PartMade]] = []
            size, whole = 0, ""
            with ThreadPoolExecutor(PARTS_AT_ONCE) as pool:
                for part in chain((first,), parts):
                    size, whole = size + part.size, part.so_far
                    if len(sent) >= PARTS_AT_ONCE:
                        sent[-PARTS_AT_ONCE].result()
                    sent.append(pool.submit(self._send, new.key, upload, part, parts))
            of_all = Checksum("crc32c", whole) if self.takes_whole_checksums else None
            done = [each.result() for each in sent]
            answer = self._end("write", new.key, upload, done, of_all, over)
            etag, computed = self.said("write", new.key, answer, self.calls.completed)
            return self._written(new.key, size, etag, computed)
        except BaseException:
            with suppress(RetainerError):
                self.abandon(new.key, upload)
            raise

    @property
    def whole_kind(self) -> ChecksumKind | None:
        """What an upload in parts is proven by as a whole, where the server takes one."""
        return "crc32c" if self.takes_whole_checksums else None

    def begin(self, new: Described) -> str:
        """Begin an upload in parts, with the strongest checksum that the server takes. Raises
        StoreFailed."""
        kind = self.whole_kind
        answer = self.ask("write", new.key, self.calls.begin(new, kind))
        told = refusal_of(answer)
        if told is not None and told.verdict is Verdict.CANNOT and kind is not None:
            again = self.ask("write", new.key, self.calls.begin(new, None))
            if refusal_of(again) is None:
                # Cloudflare R2 has none over a whole upload.
                self._abilities.note("takes_whole_checksums", False)
                answer = again
        return self.said("write", new.key, answer, self.calls.begun)

    def send(self, key: str, upload: str, number: int, body: Body, crc32c: str) -> PartMade:
        """One part of an upload. Raises StoreFailed."""
        sum_sent = crc32c if self.takes_checksums else None
        answer = self.ask("write", key, self.calls.part(key, upload, number, body, sum_sent))
        told_again = sum_sent if self.takes_whole_checksums else None
        return self.said(
            "write", key, answer, lambda made: self.calls.part_made(number, made, told_again)
        )

    def _send(self, key: str, upload: str, part: Part, parts: Parts) -> PartMade:
        try:
            made = self.send(key, upload, part.number, part.body, part.crc32c)
        except BaseException:
            parts.drop(part)  # at once: the stream may be waiting for memory to find out
            raise
        parts.give_back(part)
        return made

    def _end(
        self,
        verb: str,
        key: str,
        upload: str,
        parts: Sequence[PartMade],
        whole: Checksum | None,
        over: Seen | None = None,
    ) -> Answer:
        """The end of an upload in parts. Raises KeyTaken where something lies there."""
        if not self._abilities.parts and self._is_taken(key, over):
            raise self._taken(key)
        request = self.calls.complete(key, upload, parts, whole, **self._only_over(over))
        answer = self.ask(verb, key, request)
        told = refusal_of(answer)
        if told is not None and told.verdict is Verdict.UNMET:
            raise self._taken(key)
        return answer

    def _is_taken(self, key: str, over: Seen | None) -> bool:
        """A look just before a write whose condition does not hold on this server: then the lock of
        the run is what it rests on."""
        there = self.look(key)
        return there is not None and (over is None or there.seen.version != over.version)

    def _written(self, key: str, size: int, etag: str, computed: Checksum | None) -> Look:
        of: Ability = "parts_checksum" if "-" in etag else "checksum"
        return Look(Seen(key, size, etag), computed if self._abilities.known.get(of) else None)

    def _only_over(self, over: Seen | None) -> dict[str, str]:
        """The condition of a write: that nothing is there, or just this object."""
        return {"if_match": self.tag(over.version)} if over else {"if_none_match": "*"}

    def tag(self, version: str) -> str:
        """An ETag as this server takes it in If-Match of a PUT."""
        return version if self._abilities.habit("bare_tags") else f'"{version}"'

    def look(self, key: str) -> Look | None:
        look = super().look(key)
        return None if look is None else believed(look, self._abilities)

    def whole(self, key: str, most: int) -> tuple[Look, bytes] | None:
        found = super().whole(key, most)
        return None if found is None else (believed(found[0], self._abilities), found[1])

    def seen_by_a_reader(self, key: str) -> Look | None:
        """A look that tells whatever the server does."""
        return super().look(key)

    def abandon(self, key: str, upload: str) -> None:
        told = refusal_of(self.ask("clear up", key, self.calls.abandon(key, upload)))
        if told is not None and told.verdict is not Verdict.MISSING and told.code != "NoSuchUpload":
            raise self.failure("clear up", key, told)

    def replace(self, seen: Seen, content: bytes) -> Seen | None:
        new = Described(seen.key, len(content), {}, "application/json")
        try:
            return self._put(new, content, crc32c_of(content), seen).seen
        except KeyTaken:
            return None

    # ── copies on the server's side ─────────────────────────────────────────────────────────────

    def copies_from(self, source: StoreReader) -> bool:
        if not isinstance(source, S3Reader):
            return False
        here, there = ((each.store.scheme, each.store.endpoint) for each in (self, source))
        same = here == there or source._account.host == self._account.host
        return same and self.conditions().create and self.conditions().checksum

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
        if seen.size <= COPY_PART and self.conditions().copy:
            return self._copy_at_once(source, seen, new, checksum)
        return self._copy_in_parts(source, seen, checksum, new, begun)

    def _copy_at_once(
        self, source: S3Reader, seen: Seen, new: Described, checksum: Checksum
    ) -> Seen | None:
        request = self.calls.copy(source.calls, seen, new, checksum.kind, if_none_match="*")
        answer = self.ask("copy to", new.key, request)
        told = refusal_of(answer)
        if told is not None and told.verdict is Verdict.UNMET and self.look(new.key) is not None:
            raise self._taken(new.key)
        if told is not None:
            self._cannot_copy(source, seen, new.key, told)
            return None
        return Seen(new.key, seen.size, self.said("copy to", new.key, answer, self.calls.copied))

    def _copy_in_parts(
        self, source: S3Reader, seen: Seen, checksum: Checksum, new: Described, begun: Begun
    ) -> Seen | None:
        answer = self.ask("copy to", new.key, self.calls.begin(new, checksum.kind))
        if told := refusal_of(answer):
            self._cannot_copy(source, seen, new.key, told)
            return None
        upload = self.said("copy to", new.key, answer, self.calls.begun)
        made: Seen | None = None
        try:
            begun(upload)
            done = self._parts_copied(source, seen, new.key, upload)
            kind = f"Checksum{checksum.kind.upper()}"
            tells = done is not None and all(kind in part.checksums for part in done)
            if done is not None and tells and _is_whole(done, kind, checksum):
                answer = self._end("copy to", new.key, upload, done, checksum)
                if told := refusal_of(answer):
                    self._cannot_copy(source, seen, new.key, told)
                else:
                    etag, _ = self.said("copy to", new.key, answer, self.calls.completed)
                    made = Seen(new.key, seen.size, etag)
        finally:
            if made is None:
                with suppress(RetainerError):
                    self.abandon(new.key, upload)
        return made

    def _parts_copied(
        self, source: S3Reader, seen: Seen, key: str, upload: str
    ) -> list[PartMade] | None:
        done = []
        for number, start in enumerate(range(0, seen.size, COPY_PART), 1):
            self._stop.check()
            end = min(start + COPY_PART, seen.size) - 1
            request = self.calls.copy_part(source.calls, seen, key, upload, number, start, end)
            answer = self.ask("copy to", key, request)
            if told := refusal_of(answer):
                self._cannot_copy(source, seen, key, told)
                return None
            done.append(self.said("copy to", key, answer, partial(self.calls.part_copied, number)))
        return done

    def _cannot_copy(self, source: S3Reader, seen: Seen, key: str, told: Refusal) -> None:
        """Returns where the servers do not copy by themselves, or not what has that checksum.
        Raises StoreFailed for any other reason."""
        if told.verdict in (Verdict.UNMET, Verdict.MISSING):
            raise StoreFailed(
                f"copy {source.name}:{seen.key}: it changed since it was seen", hint="plan again"
            )
        if told.status not in _CANNOT or told.verdict is Verdict.CREDENTIALS:
            raise self.failure("copy to", key, told)

    # ── locks, archives, deletes ────────────────────────────────────────────────────────────────

    def lock(self, seen: Seen, until: datetime) -> None:
        """Only where the bucket says that it locks: others take the call for a write, and put its
        words in the place of the object (OpenStack Swift 2.30.1, rclone 1.75.2, nanio 0.1.7)."""
        if not self._locks():
            raise StoreFailed(
                f"lock {self.name}:{seen.key}: the bucket does not say that it locks objects",
                hint="does it have Object Lock?",
            )
        self._account.retain(seen.key, until)

    def restore(self, seen: Seen) -> None:
        self._account.restore(seen.key, seen.storage_class)

    def delete(self, seen: Seen) -> Deletion:
        honoured = self._abilities.known.get("delete", False)
        if not honoured:
            found = self._looked(seen.key)
            if found is None:
                return Deletion.GONE
            if (found[0].seen.version, found[0].seen.size) != (seen.version, seen.size):
                return Deletion.CHANGED
        # Where the condition is not known to hold, the look before is good for one try alone.
        request = self.calls.delete(seen.key, f'"{seen.version}"', once=not honoured)
        answer = self.ask("delete", seen.key, request)
        told = refusal_of(answer)
        if told is None:
            return Deletion.DELETED
        gone = _gone(answer)
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

    def delete_batch(self, batch: Sequence[Seen]) -> list[Deletion | StoreFailure]:
        together = [seen for seen in batch if not UNWRITABLE.search(seen.key)]
        done = self._deleted_together(together) if together else []
        outcomes = dict(zip(together, done, strict=True))
        return [outcomes[seen] if seen in outcomes else self._deleted_alone(seen) for seen in batch]

    def _deleted_alone(self, seen: Seen) -> Deletion | StoreFailure:
        self._stop.check()
        try:
            return self.delete(seen)
        except CredentialsRefused:
            raise
        except RetainerError as error:
            return StoreFailure(error.message, refused=isinstance(error, StoreRefused))

    def _deleted_together(self, batch: Sequence[Seen]) -> list[Deletion | StoreFailure]:
        many = f"{len(batch)} objects"
        answer = self.ask("delete", many, self.calls.delete_many(batch))
        told = refusal_of(answer)
        if told is not None and told.verdict is Verdict.CANNOT and told.status == 400:
            return [self._deleted_alone(seen) for seen in batch]  # one of its keys is not read
        if told is not None:
            raise self.failure("delete", many, told)
        try:
            deleted, errors = self.calls.deleted_many(answer)
        except NotS3:
            deleted, errors = set(), {}
        gone = _gone(answer)

        def outcome(seen: Seen) -> Deletion | StoreFailure:
            match errors.get(seen.key):
                case "PreconditionFailed":
                    return Deletion.CHANGED if self.look(seen.key) else gone
                case "NoSuchKey":
                    return gone
                case None if seen.key in deleted:
                    return Deletion.DELETED
                case code:
                    said = f"delete {self.name}:{seen.key}: S3 answered {code or 'nothing'}"
                    refused = code in (
                        "AccessDenied",
                        "MethodNotAllowed",
                        "InvalidRequest",
                        "MalformedXML",
                    )
                    return StoreFailure(said, refused=refused)

        return [outcome(seen) for seen in batch]

    # ── what the server honours ─────────────────────────────────────────────────────────────────

    def impatient(self) -> S3Writer:
        other = S3Writer(self.store, self._stop, quick=True, account=self._account)
        other._abilities = S3Abilities(other, self._abilities)
        return other

    def conditions(self) -> Abilities:
        return self._abilities

    def prove_on(self, seen: Seen, content: bytes) -> Seen:
        return self._abilities.prove_on(seen, content)


def _gone(answer: Answer) -> Deletion:
    """Asked more than once, the first may have been done, and its answer lost."""
    return Deletion.DELETED if answer.tries > 1 else Deletion.GONE


def _is_whole(parts: Sequence[PartMade], kind: str, checksum: Checksum) -> bool:
    return len(parts) > 1 or parts[0].checksums[kind] == checksum.value


def _in_its_words(told: Refusal) -> str:
    """What the server says itself, without addresses that may be signed."""
    words = " ".join(told.message.split())[:200]
    return f"; it says: {words}" if words and "X-Amz-" not in words else ""
