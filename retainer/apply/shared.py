"""One download of a recording that several stores need, read once and given to each of them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from retainer.errors import RetainerError, SourceFailed
from retainer.ports import Body, Downloads

AHEAD = 4
"""So many pieces (of at most 1 MiB) one reader may be ahead of another."""
ASSEMBLE_SECONDS = 10.0
"""Whoever comes later opens the recording by itself."""
STALL_SECONDS = 60.0
"""Whoever takes nothing for so long holds the others back no longer, and must begin anew."""


class Shared:
    """The downloads of one recording by so many copies: the first opening of each is one and the
    same; whoever opens it again does so alone."""

    def __init__(self, downloads: Downloads, asset_id: str, copies: int) -> None:
        self._downloads, self._asset_id = downloads, asset_id
        self._awaited = set(range(copies))
        self._changed = threading.Condition()
        self._here: list[int] = []
        self._opened: tuple[Body, _Tee] | RetainerError | None = None
        self._opening = False

    def of(self, number: int) -> _One:
        """The downloads as the copy of this number sees them."""
        return _One(self, self._downloads, number)

    def join(self, number: int) -> Body:
        """Raises what `Downloads.open` does, the same for each."""
        with self._changed:
            self._here.append(number)
            self._awaited.discard(number)
            self._changed.notify_all()
            end = time.monotonic() + ASSEMBLE_SECONDS
            while self._awaited and not self._opening and self._opened is None:
                left = end - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            if self._opened is None and not self._opening:
                self._open()
            while self._opened is None:
                self._changed.wait()
            opened = self._opened
        if isinstance(opened, RetainerError):
            raise opened
        body, tee = opened
        if number not in tee.readers:
            return self._downloads.open(self._asset_id)  # it came too late
        return replace(body, chunks=tee.read(number))

    def _open(self) -> None:
        """Opens it for all that are here. With `_changed` held, and not while it opens."""
        self._opening = True
        self._changed.release()
        try:
            body = self._downloads.open(self._asset_id)
        except RetainerError as error:
            opened: Body | RetainerError = error
        except BaseException:
            opened = SourceFailed("it could not be opened")
            raise
        else:
            opened = body
        finally:
            self._changed.acquire()
            self._opened = (
                (opened, _Tee(opened.chunks, self._here)) if isinstance(opened, Body) else opened
            )
            self._changed.notify_all()

    def leave(self, number: int) -> None:
        """This copy has ended, or begins anew: the others wait for it no longer."""
        with self._changed:
            self._awaited.discard(number)
            self._changed.notify_all()
            opened = self._opened
        if isinstance(opened, tuple):
            opened[1].leave(number)


class _One:
    """`Downloads`, as one of the copies sees them."""

    def __init__(self, shared: Shared, downloads: Downloads, number: int) -> None:
        self._shared, self._downloads, self._number = shared, downloads, number
        self._joined = False

    def open(self, asset_id: str) -> Body:
        if self._joined:
            self._shared.leave(self._number)
            return self._downloads.open(asset_id)
        self._joined = True
        return self._shared.join(self._number)

    def open_beside(self, address: str) -> Body:
        return self._downloads.open_beside(address)

    def room(self, room_id: str) -> Mapping[str, Any] | None:
        return self._downloads.room(room_id)

    def template(self, template_id: str) -> Mapping[str, Any] | None:
        return self._downloads.template(template_id)

    def has_more(self, asset_id: str, length: int) -> bool:
        return self._downloads.has_more(asset_id, length)

    def may_lead(self, page: str, address: str) -> bool:
        return self._downloads.may_lead(page, address)


class _Tee:
    """A stream for several readers. Whoever needs the next piece reads it for all; nobody gets
    further ahead of another than `AHEAD` pieces."""

    def __init__(self, pieces: Iterator[bytes], readers: list[int]) -> None:
        self.readers = frozenset(readers)
        self._pieces = pieces
        self._waiting: dict[int, deque[bytes]] = {number: deque() for number in readers}
        self._taken = dict.fromkeys(readers, time.monotonic())
        self._changed = threading.Condition()
        self._reading = self._ended = False
        self._broken: BaseException | None = None

    def read(self, number: int) -> Iterator[bytes]:
        """Raises what the stream raises, and SourceFailed where this reader fell behind."""
        while (piece := self._next(number)) is not None:
            yield piece

    def _next(self, number: int) -> bytes | None:
        with self._changed:
            while True:
                if number not in self._waiting:
                    raise SourceFailed("it fell behind another copy of the same recording")
                mine = self._waiting[number]
                if mine:
                    self._taken[number] = time.monotonic()
                    self._changed.notify_all()
                    return mine.popleft()
                if self._broken is not None:
                    raise self._broken
                if self._ended:
                    return None
                if not self._reading and not self._held_back():
                    break
                self._changed.wait(1.0)
            self._reading = True
        self._read_on()
        return self._next(number)

    def _held_back(self) -> bool:
        """Whether another reader is too far behind; one that does nothing at all is left behind."""
        now = time.monotonic()
        for number, waiting in list(self._waiting.items()):
            if len(waiting) < AHEAD:
                continue
            if now - self._taken[number] < STALL_SECONDS:
                return True
            del self._waiting[number]
        return False

    def _read_on(self) -> None:
        piece: bytes | None = None
        broken: BaseException | None = None
        try:
            piece = next(self._pieces, None)
        except BaseException as error:
            broken = error
        with self._changed:
            self._reading = False
            self._broken, self._ended = broken, piece is None
            if piece is not None:
                for waiting in self._waiting.values():
                    waiting.append(piece)
            self._changed.notify_all()

    def leave(self, number: int) -> None:
        with self._changed:
            self._waiting.pop(number, None)
            last = not self._waiting and not self._reading
            self._changed.notify_all()
        if last and hasattr(self._pieces, "close"):
            with suppress(ValueError):  # another thread closes it at this moment
                self._pieces.close()
