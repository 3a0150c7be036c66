"""Files that are there whole or not at all: written beside their place, on the disk, and then
renamed."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A new name beside `path`. What is written there takes the place of `path`, unless the block
    raises. Raises OSError."""
    half = path.with_name(f".{uuid.uuid4().hex}.half")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield half
        with half.open("rb") as stream:
            os.fsync(stream.fileno())
        half.replace(path)
    finally:
        with suppress(OSError):
            half.unlink(missing_ok=True)
