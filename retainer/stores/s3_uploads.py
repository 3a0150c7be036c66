"""Writes of S3 that take more than one call: uploads in parts, and copies that the servers make by
themselves."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from retainer.errors import RetainerError
from retainer.ports import Begun, Checksum, Look, Seen
from retainer.stores.calls import Body, Described
from retainer.stores.parts import Part, Parts
from retainer.stores.s3_answers import (
    PartMade,
    completed,
    copied,
    part_copied,
    refusal_of,
    upload_begun,
)
from retainer.stores.verdict import Refusal, Verdict
from retainer.stores.wire import Answer

if TYPE_CHECKING:
    from retainer.stores.s3 import S3Reader, S3Writer

PARTS_AT_ONCE = 3
COPY_PART = 512 << 20
_CANNOT = (400, 403, 405, 501)
"""How a server answers that it does not copy by itself, or that the bytes have another checksum:
they then go through here."""


class Uploads:
    """To one store."""

    def __init__(self, writer: S3Writer) -> None:
        self._writer = writer

    # ── of a stream ─────────────────────────────────────────────────────────────────────────────

    def create(
        self, new: Described, first: Part, parts: Parts, begun: Begun, over: Seen | None
    ) -> Look:
        """Raises as `StoreWriter.create`; an upload that does not end is given up."""
        writer, upload = self._writer, self.begin(new)
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
            kind = writer.whole_kind
            of_all = Checksum(kind, whole) if kind else None
            done = [each.result() for each in sent]
            answer = self._end("write", new.key, upload, done, of_all, over)
            etag, computed = writer.said("write", new.key, answer, completed)
            if not etag:
                return writer.made(new.key, size, self._etag_of(new.key, size), None)
            return writer.made(new.key, size, etag, computed)
        except BaseException:
            with suppress(RetainerError):
                self.abandon(new.key, upload)
            raise

    def begin(self, new: Described) -> str:
        """Begin an upload in parts, with the strongest checksum that the server takes. Raises
        StoreFailed."""
        writer, kind = self._writer, self._writer.whole_kind
        answer = writer.ask("write", new.key, writer.calls.begin(new, kind))
        told = refusal_of(answer)
        if told is not None and told.verdict is Verdict.CANNOT and kind is not None:
            again = writer.ask("write", new.key, writer.calls.begin(new, None))
            if refusal_of(again) is None:
                # Cloudflare R2 has none over a whole upload.
                writer.abilities.note("takes_whole_checksums", False)
                answer = again
        return writer.said("write", new.key, answer, upload_begun)

    def send(self, key: str, upload: str, number: int, body: Body, crc32c: str) -> PartMade:
        """One part of an upload. Raises StoreFailed."""
        writer, sum_sent = self._writer, self._writer.sent(crc32c)
        answer = writer.ask("write", key, writer.calls.part(key, upload, number, body, sum_sent))
        told_again = sum_sent if writer.whole_kind else None
        return writer.said(
            "write", key, answer, lambda made: writer.calls.part_made(number, made, told_again)
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
        """Raises KeyTaken where something lies there."""
        writer = self._writer
        if not writer.abilities.parts and writer.is_taken(key, over):
            raise writer.taken(key)
        condition = writer.only_over(over.version if over else None)
        answer = writer.ask(
            verb, key, writer.calls.complete(key, upload, parts, whole, **condition)
        )
        told = refusal_of(answer)
        if told is not None and told.verdict is Verdict.UNMET:
            raise writer.taken(key)
        return answer

    def _etag_of(self, key: str, size: int) -> str:
        """What lies there now, where the end of an upload did not tell: it is read back, since no
        checksum of it is known either. Raises StoreFailed."""
        look = self._writer.seen_by_a_reader(key)
        if look is None or look.seen.size != size:
            raise self._writer.nonsense("write", key)
        return look.seen.version

    def abandon(self, key: str, upload: str) -> None:
        """Raises StoreFailed."""
        writer = self._writer
        told = refusal_of(writer.ask("clear up", key, writer.calls.abandon(key, upload)))
        if told is not None and told.verdict is not Verdict.MISSING and told.code != "NoSuchUpload":
            raise writer.failure("clear up", key, told)

    # ── on the server's side ────────────────────────────────────────────────────────────────────

    def copy(
        self, source: S3Reader, seen: Seen, checksum: Checksum, new: Described, begun: Begun
    ) -> Seen | None:
        """In one call, where that is safe. Raises as `StoreWriter.copy_within`."""
        if seen.size <= COPY_PART and self._writer.abilities.copy:
            return self._copy_at_once(source, seen, new, checksum)
        return self._copy_in_parts(source, seen, checksum, new, begun)

    def _copy_at_once(
        self, source: S3Reader, seen: Seen, new: Described, checksum: Checksum
    ) -> Seen | None:
        writer = self._writer
        nothing = writer.only_over(None)
        request = writer.calls.copy(source.calls, seen, new, checksum.kind, **nothing)
        answer = writer.ask("copy to", new.key, request)
        told = refusal_of(answer)
        if told is not None and told.verdict is Verdict.UNMET and writer.look(new.key) is not None:
            raise writer.taken(new.key)
        if told is not None:
            self._cannot_copy(source, seen, new.key, told)
            return None
        return Seen(new.key, seen.size, writer.said("copy to", new.key, answer, copied))

    def _copy_in_parts(
        self, source: S3Reader, seen: Seen, checksum: Checksum, new: Described, begun: Begun
    ) -> Seen | None:
        writer = self._writer
        answer = writer.ask("copy to", new.key, writer.calls.begin(new, checksum.kind))
        if told := refusal_of(answer):
            self._cannot_copy(source, seen, new.key, told)
            return None
        upload = writer.said("copy to", new.key, answer, upload_begun)
        made: Seen | None = None
        try:
            begun(upload)
            done = self._parts_copied(source, seen, new.key, upload)
            if done is not None and _is_whole(done, checksum):
                answer = self._end("copy to", new.key, upload, done, checksum)
                if told := refusal_of(answer):
                    self._cannot_copy(source, seen, new.key, told)
                else:
                    etag, _ = writer.said("copy to", new.key, answer, completed)
                    made = Seen(new.key, seen.size, etag or self._etag_of(new.key, seen.size))
        finally:
            if made is None:
                with suppress(RetainerError):
                    self.abandon(new.key, upload)
        return made

    def _parts_copied(
        self, source: S3Reader, seen: Seen, key: str, upload: str
    ) -> list[PartMade] | None:
        writer, done = self._writer, []
        for number, start in enumerate(range(0, seen.size, COPY_PART), 1):
            writer.check()
            end = min(start + COPY_PART, seen.size) - 1
            request = writer.calls.copy_part(source.calls, seen, key, upload, number, start, end)
            answer = writer.ask("copy to", key, request)
            if told := refusal_of(answer):
                self._cannot_copy(source, seen, key, told)
                return None
            done.append(writer.said("copy to", key, answer, partial(part_copied, number)))
        return done

    def _cannot_copy(self, source: S3Reader, seen: Seen, key: str, told: Refusal) -> None:
        """Returns where the servers do not copy by themselves, or not what has that checksum.
        Raises StoreFailed for any other reason."""
        if told.verdict in (Verdict.UNMET, Verdict.MISSING):
            raise source.changed("copy", seen)
        if told.status not in _CANNOT or told.verdict is Verdict.CREDENTIALS:
            raise self._writer.failure("copy to", key, told)


def _is_whole(parts: Sequence[PartMade], checksum: Checksum) -> bool:
    """Whether every part tells its checksum, and one that is alone has that of the whole."""
    kind = f"Checksum{checksum.kind.upper()}"
    tells = all(kind in part.checksums for part in parts)
    return tells and (len(parts) > 1 or parts[0].checksums[kind] == checksum.value)
