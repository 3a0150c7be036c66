"""A long listing in ranges that are read at once, each beginning where the one before it ends; and
the proof that together they are the whole list."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from retainer.errors import ListingTorn
from retainer.ports import Seen, Stretch
from retainer.stores.calls import Page

RANGES_AT_ONCE = 32
_DEEPEST, _ENOUGH, _MOST = 4, 16, 256
_AHEAD = 64
"""So many pages at most wait until somebody takes them."""

Ask = Callable[[str | None, str | None], Page]
"""A page of what comes after a key (None: from the beginning), or that goes on from a token."""


def in_ranges(
    ask: Ask, bounds: Sequence[str], known: Sequence[Stretch] = ()
) -> Iterator[Sequence[Seen] | Stretch]:
    """The pages of a list, in any order, and each range behind its pages. `bounds`: where it is
    split, ascending; `known`: ranges that were read before.

    Raises ListingTorn, perhaps after many pages, where the ranges do not meet: the server ignores
    where a range is to begin, lists in another order than that of bytes, or the list has changed
    just there. What `ask` raises goes through.
    """
    between = _unread(bounds, known)
    pages: queue.Queue[Sequence[Seen] | Stretch | BaseException] = queue.Queue(_AHEAD)
    over = threading.Event()
    ended = [*known]

    def put(page: Sequence[Seen] | Stretch | BaseException) -> None:
        while not over.is_set():
            try:
                pages.put(page, timeout=0.5)
                return
            except queue.Full:
                continue

    def read(after: str | None, end: str | None) -> None:
        try:
            if not over.is_set():
                put(_one_range(ask, after, end, put, over))
        except BaseException as error:
            put(error)

    with ThreadPoolExecutor(RANGES_AT_ONCE) as pool:
        try:
            for after, end in between:
                pool.submit(read, after, end)
            while len(ended) < len(known) + len(between):
                page = pages.get()
                if isinstance(page, BaseException):
                    raise page
                if isinstance(page, Stretch):
                    ended.append(page)
                yield page
        finally:
            over.set()
    _meet(sorted(ended, key=lambda each: each.after or ""))


def _unread(
    bounds: Sequence[str], known: Sequence[Stretch]
) -> Sequence[tuple[str | None, str | None]]:
    """Between which keys a list is to be read still: split at the bounds, and where what is known
    of it begins and ends."""
    read = {each.after: each.end for each in known}
    sides = {side for both in read.items() for side in both if side is not None}
    inside = {
        bound for bound in bounds if bound not in sides and any(each.holds(bound) for each in known)
    }
    split_at = sorted({*bounds, *sides} - inside)
    between = zip([None, *split_at], [*split_at, None], strict=True)
    return [(after, end) for after, end in between if (after, end) not in read.items()]


def _one_range(
    ask: Ask,
    after: str | None,
    end: str | None,
    put: Callable[[Sequence[Seen]], None],
    over: threading.Event,
) -> Stretch:
    then: str | None = None
    first: str | None = None
    last = after
    while not over.is_set():
        page = ask(after, then)
        mine: list[Seen] = []
        for seen in page.objects:
            if last is not None and seen.key <= last:
                raise ListingTorn("its list is not in the order of bytes, or ignores its beginning")
            first, last = first or seen.key, seen.key
            if end is not None and seen.key > end:
                put(mine)
                return Stretch(after, end, first, seen.key)
            mine.append(seen)
        put(mine)
        if last is not None and last == end and mine and page.then is not None:
            return Stretch(after, end, first, _behind(ask(after, page.then), last))
        if page.then is None:
            return Stretch(after, end, first, None)
        if page.then == then:
            raise ListingTorn("the list goes in a circle")
        then = page.then
    return Stretch(after, end, first, None)


def _behind(page: Page, last: str) -> str:
    """The first key behind the end of a range that ended with its page."""
    if not page.objects or page.objects[0].key <= last:
        raise ListingTorn("its list does not go on where it said so")
    return page.objects[0].key


def _meet(ranges: Sequence[Stretch]) -> None:
    """Raises ListingTorn where a range does not begin with what the one before saw behind its
    end."""
    for number, this in enumerate(ranges[:-1]):
        following = next((each.first for each in ranges[number + 1 :] if each.first), None)
        if this.beyond != following:
            raise ListingTorn("the ranges of its list do not meet")


def split(folders: Callable[[str], Sequence[str]]) -> list[str]:
    """Bounds where nothing is known of the keys: the folders that lie in them, down to where there
    are enough. `folders`: those right below a folder, with a slash at their end, some at least.

    The slash stays: SeaweedFS 4.48 leaves out what lies in `a/` where it is to begin behind `a`."""
    level = [""]
    for _ in range(_DEEPEST):
        asked, rest = level[:RANGES_AT_ONCE], level[RANGES_AT_ONCE:]
        below = [found for folder in asked for found in folders(folder) or [folder]]
        level = sorted({*below, *rest})
        if len(level) >= _ENOUGH:
            break
    step = max(1, len(level) // _MOST)
    return [folder for folder in level[::step] if folder]
