"""A stream cut into parts of one size, with the checksums that prove each of them and the whole."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import anycrc
import google_crc32c

from retainer.ports import Checksum

PART = 8 << 20
_STEP = 256 << 10  # Google takes no other pieces of an upload that goes on
_MOST_PARTS = 9_000  # S3 allows 10,000; the rest is for sizes that were understated
_GROWS_EVERY = 1_000  # parts of a stream of unknown length double after so many: 8 TiB in 10,000
_CRC32C = anycrc.Model("CRC32C")


def crc32c_of(content: bytes) -> str:
    """The CRC32C of these bytes, as `Checksum` spells it."""
    return Checksum.of("crc32c", google_crc32c.Checksum(content)).value


class Buffers:
    """The memory of parts that are on their way, used again: memory that is new costs more than all
    that is done with it. Safe to use from several threads."""

    def __init__(self, most: int, spare: int) -> None:
        """`most` at once, and whoever wants one more waits. `spare`: so many are kept where nobody
        uses them."""
        self._most, self._keep = most, spare
        self._out = 0
        self._spare: list[bytearray] = []
        self._free = threading.Condition()

    def take(self) -> bytearray:
        with self._free:
            while self._out >= self._most:
                self._free.wait()
            self._out += 1
            return self._spare.pop() if self._spare else bytearray()

    def give_back(self, buffer: bytearray) -> None:
        with self._free:
            self._out -= 1
            if len(self._spare) < self._keep:
                self._spare.append(buffer)
            self._free.notify()


SHARED = Buffers(46, 8)
"""368 MiB for all stores together; what is read ahead for several of them (apply/shared.py) is
64 MiB more at most."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a stream that is sent at once."""

    number: int
    body: memoryview
    size: int
    crc32c: str
    so_far: str
    """The CRC32C of the stream up to the end of this part."""


class Parts:
    """The stream in parts of exactly 8 MiB, or of a 9,000th of `size` where that is more; only the
    last one is shorter (Cloudflare R2 takes no others). One empty part for an empty stream.

    Without a `size` they double after each 1,000. Whatever the stream raises goes through. Each
    part is given back once it was sent, and `close` gives back the rest. Whoever waits for memory
    holds none but what is on its way, so that many streams at once never wait for each other.
    """

    def __init__(
        self, chunks: Iterator[bytes], size: int | None, buffers: Buffers = SHARED
    ) -> None:
        self._chunks, self._size, self._buffers = chunks, size, buffers
        self._out: dict[int, tuple[memoryview, bytearray]] = {}
        self._number = self._so_far = 0
        self._rest = b""
        self._ended = False

    def __iter__(self) -> Iterator[Part]:
        return self

    def has_more(self) -> bool:
        """Whether another part will come."""
        if not self._rest and not self._ended:
            self._rest = next(self._chunks, b"")
            self._ended = not self._rest
        return bool(self._rest)

    def __next__(self) -> Part:
        if self._ended or (self._number and not self.has_more()):
            raise StopIteration
        buffer = self._buffers.take()
        try:
            filled, crc = self._fill(buffer)
        except BaseException:
            self._buffers.give_back(buffer)
            raise
        self._so_far = _CRC32C.combine(self._so_far, crc, filled) if self._number else crc
        self._number += 1
        body = memoryview(buffer)[:filled]
        self._out[self._number] = (body, buffer)
        return Part(self._number, body, filled, _spelt(crc), _spelt(self._so_far))

    def _fill(self, buffer: bytearray) -> tuple[int, int]:
        """How many bytes there are for the next part, and their CRC32C."""
        grown = PART << (self._number // _GROWS_EVERY)
        length = grown if self._size is None else max(PART, -(-self._size // _MOST_PARTS))
        length = -(-length // _STEP) * _STEP
        checksum, filled = google_crc32c.Checksum(), 0
        while filled < length:
            chunk = self._rest or next(self._chunks, b"")
            if not chunk:
                self._ended = True
                break
            taken, self._rest = chunk[: length - filled], chunk[length - filled :]
            buffer[filled : filled + len(taken)] = taken
            checksum.update(taken)
            filled += len(taken)
        return filled, int.from_bytes(checksum.digest(), "big")

    def give_back(self, part: Part) -> None:
        body, buffer = self._out.pop(part.number)
        body.release()
        self._buffers.give_back(buffer)

    def drop(self, part: Part) -> None:
        """Give its room back, and not its memory: what failed to send it may hold it still."""
        self._out.pop(part.number)
        self._buffers.give_back(bytearray())

    def close(self) -> None:
        """Only once nothing is sent any more."""
        for body, buffer in self._out.values():
            body.release()
            self._buffers.give_back(buffer)
        self._out.clear()
        self._ended = True


def _spelt(crc: int) -> str:
    return base64.b64encode(crc.to_bytes(4, "big")).decode()
