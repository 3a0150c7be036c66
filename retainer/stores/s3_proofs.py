"""What a server honours, found out when it is first relied on: some ignore a condition in silence,
and some repeat any checksum that they are sent (docs/stores.md has which)."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, get_args

from retainer.errors import CredentialsRefused, RetainerError, StoreFailed
from retainer.model.setting import OWN_PREFIX
from retainer.ports import Ability, Checksum, Look, Seen
from retainer.stores.parts import crc32c_of
from retainer.stores.s3_calls import Described, NotS3, refusal_of, written
from retainer.stores.verdict import Refusal, Verdict
from retainer.stores.wire import Request

if TYPE_CHECKING:
    from retainer.stores.s3 import S3Writer

_PROBE, _OTHER = b"probe", b"other"
_PROBE_CRC64NVME = Checksum("crc64nvme", "O8bbmJm9D2w=")
_WRONG = "0" * 32
"""An ETag that no object has."""
_HABITS = {"bare_tags": False, "takes_checksums": True, "takes_whole_checksums": True}
"""What a writer has to know besides, of how the server wants to be spoken to; what most want."""
_NEVER_A_NO = (Verdict.CREDENTIALS, Verdict.ELSEWHERE, Verdict.REFUSED, Verdict.BUSY)
"""These say nothing of whether a condition or a checksum is honoured, whatever their status."""


class Put(Protocol):
    """A write of the same bytes with this checksum, on a condition."""

    def __call__(self, crc32c: str, /, **condition: str) -> Request: ...


class S3Abilities:
    """Of one store. Safe to use from several threads; each answer raises StoreFailed where it
    cannot be found out."""

    def __init__(self, writer: S3Writer, like: S3Abilities | None = None) -> None:
        """`like`: of another writer to the same store; what one finds out, both know."""
        self._writer, self._calls = writer, writer.calls
        self._known: dict[str, bool] = {} if like is None else like._known
        self._proving: Any = threading.RLock() if like is None else like._proving

    @property
    def known(self) -> Mapping[str, bool]:
        return dict(self._known)

    def recall(self, known: Mapping[str, bool]) -> None:
        names = (*get_args(Ability), *_HABITS)
        with self._proving:
            self._known |= {name: known[name] for name in names if name in known}

    def find_out(self, *abilities: Ability) -> None:
        for ability in abilities:
            self._of(ability)

    def habit(self, name: str) -> bool:
        """How the server wants to be spoken to (`_HABITS`)."""
        return self._known.get(name, _HABITS[name])

    def note(self, name: str, value: bool) -> None:
        self._known[name] = value

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
            etag, _ = self._writer.said("probe", "", answer, written)
            yield Seen(key, len(_PROBE), etag)
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
            refused = False
            if replace:  # else it could be written over what is somebody else's by now
                over = put(wrong, if_match=writer.tag(seen.version))
                refused, seen, _ = self._refused_over(seen, over, statuses=(400,))
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
        return self._is_no(told, statuses), seen, None

    def _replaces(self, seen: Seen, put: Put, right: str) -> tuple[bool, Seen, Checksum | None]:
        """Whether a write over the right version goes through, and one over another version does
        not; and the checksum that is told of it.

        Ceph RGW 16.2.15 takes an ETag in If-Match of a PUT only without its quotes
        (../shared/lab/ceph-rgw-conditions.sh).
        """
        writer = self._writer
        for bare in (False, True):
            self.note("bare_tags", bare)
            wrong = put(right, if_match=writer.tag(_WRONG))
            refused, seen, _ = self._refused_over(seen, wrong)
            if not refused:
                break
            answer = writer.ask("probe", "", put(right, if_match=writer.tag(seen.version)))
            told = refusal_of(answer)
            if told is None:
                etag, checksum = written(answer)
                return True, Seen(seen.key, seen.size, etag), checksum
            self._is_no(told)
        self.note("bare_tags", False)
        return False, seen, None

    def _is_no(self, told: Refusal, statuses: tuple[int, ...] = ()) -> bool:
        """Whether a refusal is one of those that were wanted. Raises StoreFailed,
        CredentialsRefused for one that says nothing of it."""
        if told.verdict in _NEVER_A_NO:
            raise self._writer.failure("probe", "", told)
        if told.status in statuses or (told.verdict is Verdict.UNMET and 412 in statuses):
            return True
        if told.status in (400, 412, 501):
            return False
        raise self._writer.failure("probe", "", told)

    def _refused(self, request: Request, statuses: tuple[int, ...] = (412,)) -> bool:
        """Whether a call that must fail does. Raises StoreFailed for any other failure."""
        told = refusal_of(self._writer.ask("probe", "", request))
        return told is not None and self._is_no(told, statuses)

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
            return self._is_no(told)
        deleted, errors = self._calls.deleted_many(answer)
        return bool(errors) and not deleted

    def _prove_parts(self, key: str) -> None:
        """Whether the end of an upload in parts is refused where something lies, and where its
        checksum is wrong."""
        here = self._refuses_end(key, crc32c_of(_OTHER), 412, if_none_match="*")
        wrong = self._refuses_end(key, crc32c_of(_PROBE), 400) and self._writer.whole_kind
        self._known |= {"parts": here, "parts_checksum": bool(wrong) and self.checksum}

    def _refuses_end(self, key: str, whole: str, status: int, **condition: str) -> bool:
        """Whether an upload of `other` ends in a refusal, for its condition or since this is not
        its checksum; not so where none can be made."""
        writer, calls = self._writer, self._calls
        try:
            upload = writer.begin(_new(key, _OTHER))
        except CredentialsRefused:
            raise
        except StoreFailed:
            return False
        try:
            part = writer.send(key, upload, 1, _OTHER, crc32c_of(_OTHER))
            of_all = Checksum("crc32c", whole) if writer.whole_kind else None
            end = calls.complete(key, upload, [part], of_all, **condition)
            return self._refused(end, statuses=(status,))
        finally:
            with suppress(RetainerError):
                writer.abandon(key, upload)

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
