"""A stream cut into parts of one size, with the checksums that prove each of them and the whole."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass

import anycrc
import google_crc32c

from retainer.ports import Checksum

PART = 8 << 20
_MOST_PARTS = 9_000  # S3 allows 10,000; the rest is for sizes that were understated
_GROWS_EVERY = 1_000  # parts of a stream of unknown length double after so many: 8 TiB in 10,000
_CRC32C = anycrc.Model("CRC32C")


def crc32c_of(content: bytes) -> str:
    """The CRC32C of these bytes, as `Checksum` spells it."""
    return Checksum.of("crc32c", google_crc32c.Checksum(content)).value


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a stream that is sent at once.

    `give_back` lets its memory be used again: memory that is new costs more than all that is done
    with it.
    """

    body: memoryview
    size: int
    crc32c: str
    so_far: str
    """The CRC32C of the stream up to the end of this part."""
    buffer: bytearray
    buffers: list[bytearray]

    def give_back(self) -> None:
        self.body.release()
        self.buffers.append(self.buffer)


def in_parts(chunks: Iterator[bytes], size: int | None, buffers: list[bytearray]) -> Iterator[Part]:
    """The stream in parts of exactly 8 MiB, or of a 9,000th of `size` where that is more; only the
    last one is shorter (Cloudflare R2 takes no others). One empty part for an empty stream.

    Without a `size` they double after each 1,000. `buffers`: those to be used again.
    """
    least = max(PART, -(-(size or 0) // _MOST_PARTS))
    so_far, number, rest, ended = 0, 0, b"", False
    while not ended:
        length = least if size is not None else PART << (number // _GROWS_EVERY)
        buffer = buffers.pop() if buffers else bytearray()
        checksum, filled = google_crc32c.Checksum(), 0
        while filled < length:
            chunk = rest or next(chunks, b"")
            if not chunk:
                ended = True
                break
            taken, rest = chunk[: length - filled], chunk[length - filled :]
            buffer[filled : filled + len(taken)] = taken
            checksum.update(taken)
            filled += len(taken)
        if filled == 0 and number > 0:
            buffers.append(buffer)
            return
        crc = int.from_bytes(checksum.digest(), "big")
        so_far = _CRC32C.combine(so_far, crc, filled) if number else crc
        yield Part(
            memoryview(buffer)[:filled], filled, _spelt(crc), _spelt(so_far), buffer, buffers
        )
        number += 1


def _spelt(crc: int) -> str:
    return base64.b64encode(crc.to_bytes(4, "big")).decode()
