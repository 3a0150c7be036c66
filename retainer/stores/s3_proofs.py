"""What a server honours, found out when it is first relied on: some ignore a condition in silence,
and some repeat any checksum that they are sent (docs/stores.md has which)."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, get_args

from retainer.errors import RetainerError, StoreFailed
from retainer.model.setting import OWN_PREFIX
from retainer.ports import Ability, Checksum, Look, Seen
from retainer.stores.parts import crc32c_of
from retainer.stores.s3_calls import Described, NotS3, PartMade, refusal_of, written
from retainer.stores.verdict import Verdict
from retainer.stores.wire import Request

if TYPE_CHECKING:
    from retainer.stores.s3 import S3Writer

_PROBE, _OTHER = b"probe", b"other"
_PROBE_CRC64NVME = Checksum("crc64nvme", "O8bbmJm9D2w=")
_WRONG = "0" * 32
"""An ETag that no object has."""
_HABITS = ("bare_tags", "takes_checksums", "takes_whole_checksums")
"""What the writer has to know besides, of how the server wants to be spoken to."""
_NO_PARTS = (400, 405, 501)
"""How a server answers that it takes no upload in parts that begins as ours do: then none will be
made there."""


class Put(Protocol):
    """A write of the same bytes with this checksum, on a condition."""

    def __call__(self, crc32c: str, /, **condition: str) -> Request: ...


class S3Abilities:
    """Of one store. Safe to use from several threads; each answer raises StoreFailed where it
    cannot be found out."""

    def __init__(self, writer: S3Writer, known: dict[Ability, bool] | None = None) -> None:
        """`known`: what is certain already."""
        self._writer, self._calls = writer, writer.calls
        self._known: dict[Ability, bool] = {} if known is None else known
        self._proving = threading.RLock()

    @property
    def known(self) -> Mapping[str, bool]:
        return {str(name): known for name, known in dict(self._known).items()} | (
            {name: getattr(self._writer, name) for name in _HABITS} if self._known else {}
        )

    def recall(self, known: Mapping[str, bool]) -> None:
        with self._proving:
            self._known |= {name: known[name] for name in get_args(Ability) if name in known}
            for name in _HABITS:
                setattr(self._writer, name, known.get(name, getattr(self._writer, name)))

    @property
    def shared(self) -> dict[Ability, bool]:
        """What is known, and what will be: for another writer to the same store."""
        return self._known

    @property
    def lock(self) -> bool:
        return self.create and self.replace

    @property
    def create(self) -> bool:
        return self._of("create")

    @property
    def replace(self) -> bool:
        return self._of("replace")

    @property
    def checksum(self) -> bool:
        return self._of("checksum")

    @property
    def delete(self) -> bool:
        return self._of("delete")

    @property
    def batch_delete(self) -> bool:
        return self._of("batch_delete")

    @property
    def parts(self) -> bool:
        return self._of("parts")

    @property
    def parts_checksum(self) -> bool:
        return self._of("parts_checksum")

    @property
    def copy(self) -> bool:
        return self._of("copy")

    def _of(self, ability: Ability) -> bool:
        with self._proving:
            if ability not in self._known:
                self._prove(ability)
            return self._known[ability]

    def _prove(self, ability: Ability) -> None:
        with self._sensible(), self._probe() as probe:
            match ability:
                case "create" | "replace" | "checksum":
                    self.prove_on(probe, _PROBE)
                case "delete" | "batch_delete":
                    self._prove_deletes(probe)
                case "parts" | "parts_checksum":
                    self._prove_parts(probe.key)
                case "copy":
                    self._known["copy"] = self._copies(probe)

    @contextmanager
    def _sensible(self) -> Iterator[None]:
        """Raises StoreFailed for an answer that S3 would not give."""
        try:
            yield
        except NotS3:
            raise self._writer.no_s3("probe", "") from None

    @contextmanager
    def _probe(self) -> Iterator[Seen]:
        """An object of our own that goes afterwards, whatever comes."""
        key = f"{OWN_PREFIX}probe-{uuid.uuid4().hex}"
        try:
            answer = self._writer.put(_new(key, _PROBE), _PROBE, crc32c_of(_PROBE))
            if told := refusal_of(answer):
                raise self._writer.failure("probe", "", told)
            yield Seen(key, len(_PROBE), written(answer)[0])
        finally:
            with suppress(RetainerError):
                self._writer.ask("probe", "", self._calls.delete(key, None))

    # ── single writes, on an object that is ours ────────────────────────────────────────────────

    def prove_on(self, seen: Seen, content: bytes) -> Seen:
        """Find out on an object of ours whether a write over it is refused where nothing may be
        there, or another version, or where its checksum is wrong. The object as it lies then: its
        bytes stay the same. Raises StoreFailed."""
        with self._proving, self._sensible():
            if {"create", "replace", "checksum"} <= self._known.keys():
                return seen
            writer, new = self._writer, _new(seen.key, content)
            right, wrong = crc32c_of(content), crc32c_of(content + _OTHER)

            def put(crc32c: str, /, **condition: str) -> Request:
                sent = crc32c if writer.takes_checksums else None
                return self._calls.put(new, content, sent, **condition)

            create, seen, _ = self._refused_over(seen, put(right, if_none_match="*"))
            replace, told = False, None
            if create:
                replace, seen, told = self._replaces(seen, put, right)
            refused, seen, _ = self._refused_over(seen, put(wrong), statuses=(400,))
            if told is None and refused and writer.takes_checksums:
                look = writer.seen_by_a_reader(seen.key)
                told = look.checksum if look else None
            checksum = refused and told == Checksum("crc32c", right)
            self._known |= {"create": create, "replace": replace, "checksum": checksum}
            return seen

    def _refused_over(
        self, seen: Seen, request: Request, statuses: tuple[int, ...] = (412,)
    ) -> tuple[bool, Seen, Checksum | None]:
        """Whether a write that must fail does; where it does not, what lies there by then, and the
        checksum that the answer tells."""
        answer = self._writer.ask("probe", "", request)
        told = refusal_of(answer)
        if told is None:
            etag, checksum = written(answer)
            return False, Seen(seen.key, seen.size, etag), checksum
        return self._is_no(told.verdict, told.status, statuses), seen, None

    def _replaces(self, seen: Seen, put: Put, right: str) -> tuple[bool, Seen, Checksum | None]:
        """Whether a write over the right version goes through, and one over another version does
        not; and the checksum that is told of it.

        Ceph RGW 16.2.15 takes an ETag in If-Match of a PUT only without its quotes
        (../shared/lab/ceph-rgw-conditions.sh).
        """
        writer = self._writer
        for bare in (False, True):
            writer.bare_tags = bare
            wrong = put(right, if_match=writer.tag(_WRONG))
            refused, seen, _ = self._refused_over(seen, wrong)
            if not refused:
                break
            answer = writer.ask("probe", "", put(right, if_match=writer.tag(seen.version)))
            told = refusal_of(answer)
            if told is None:
                etag, checksum = written(answer)
                return True, Seen(seen.key, seen.size, etag), checksum
            if told.verdict is not Verdict.UNMET and told.status not in (400, 501):
                raise writer.failure("probe", "", told)
        writer.bare_tags = False
        return False, seen, None

    def _is_no(self, verdict: Verdict, status: int, statuses: tuple[int, ...]) -> bool:
        if verdict is Verdict.UNMET or status in statuses:
            return True
        if status in (400, 501):
            return False
        raise StoreFailed(f"probe {self._writer.name}: S3 answered {status}")

    def _refused(self, request: Request, statuses: tuple[int, ...] = (412,)) -> bool:
        """Whether a call that must fail does. Raises StoreFailed for any other failure."""
        told = refusal_of(self._writer.ask("probe", "", request))
        if told is None or told.verdict in (Verdict.UNMET,) or told.status in statuses:
            return told is not None
        if told.status in (400, 501):
            return False
        raise self._writer.failure("probe", "", told)

    # ── deletes, parts, copies: on a probe ──────────────────────────────────────────────────────

    def _prove_deletes(self, probe: Seen) -> None:
        delete = self._refused(self._calls.delete(probe.key, f'"{_WRONG}"'))
        delete = delete and self._is_there(probe)
        batch = delete and self._refuses_batch(probe) and self._is_there(probe)
        self._known |= {"delete": delete, "batch_delete": batch}

    def _is_there(self, probe: Seen) -> bool:
        return self._writer.seen_by_a_reader(probe.key) is not None

    def _refuses_batch(self, probe: Seen) -> bool:
        request = self._calls.delete_many([Seen(probe.key, probe.size, _WRONG)])
        answer = self._writer.ask("probe", "", request)
        if told := refusal_of(answer):
            if told.verdict is Verdict.UNMET or told.status in (400, 501):
                return False
            raise self._writer.failure("probe", "", told)
        deleted, errors = self._calls.deleted_many(answer)
        return bool(errors) and not deleted

    def _prove_parts(self, key: str) -> None:
        """Whether the end of an upload in parts is refused where something lies, and where its
        checksum is wrong."""
        here = self._refuses_end(key, crc32c_of(_OTHER), if_none_match="*")
        wrong = self._refuses_end(key, crc32c_of(_PROBE))
        self._known |= {"parts": here, "parts_checksum": wrong and self.checksum}

    def _refuses_end(self, key: str, whole: str, **condition: str) -> bool:
        """Whether an upload of `other` ends in a refusal, for its condition or since this is not
        its checksum."""
        writer, calls = self._writer, self._calls
        kind = writer.whole_kind
        answer = writer.ask("probe", "", calls.begin(_new(key, _OTHER), kind))
        if told := refusal_of(answer):
            if told.status in _NO_PARTS:
                return True
            raise writer.failure("probe", "", told)
        upload = calls.begun(answer)
        try:
            part = self._part(key, upload)
            of_all = Checksum("crc32c", whole) if kind else None
            return self._refused(
                calls.complete(key, upload, [part], of_all, **condition), statuses=(400, 412)
            )
        finally:
            with suppress(RetainerError):
                writer.abandon(key, upload)

    def _part(self, key: str, upload: str) -> PartMade:
        crc32c = crc32c_of(_OTHER) if self._writer.takes_checksums else None
        request = self._calls.part(key, upload, 1, _OTHER, crc32c)
        answer = self._writer.ask("probe", "", request)
        if told := refusal_of(answer):
            raise self._writer.failure("probe", "", told)
        return self._calls.part_made(1, answer, crc32c)

    def _copies(self, probe: Seen) -> bool:
        """Whether CopyObject writes over nothing, and has a checksum computed of what it wrote:
        some servers repeat the one of the source."""
        if not self.create:
            return False
        writer, other = self._writer, f"{probe.key}-copy"

        def copy(key: str) -> Request:
            new = _new(key, _PROBE)
            return self._calls.copy(self._calls, probe, new, "crc64nvme", if_none_match="*")

        try:
            if refusal_of(writer.ask("probe", "", copy(other))) is not None:
                return False
            made = writer.seen_by_a_reader(other)
            computed = made is not None and made.checksum == _PROBE_CRC64NVME
            return computed and self._refused(copy(probe.key))
        except RetainerError:
            return False  # they are then made in parts, whose last call is conditional
        finally:
            with suppress(RetainerError):
                writer.ask("probe", "", self._calls.delete(other, None))


def believed(look: Look, abilities: S3Abilities) -> Look:
    """A look, without a checksum of which it is known that the server repeats any that it is sent;
    as it is where nothing is known."""
    known = abilities.known
    if look.checksum is None or "checksum" not in known:
        return look
    proven = abilities.parts_checksum if "-" in look.seen.version else known["checksum"]
    return look if proven else replace(look, checksum=None)


def _new(key: str, content: bytes) -> Described:
    return Described(key, len(content), {}, "application/octet-stream")
