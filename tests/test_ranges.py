"""A listing in ranges that are read at once: everything once, or an error, whatever the server
does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import pytest
from conftest import Lab
from hypothesis import given, settings
from hypothesis import strategies as st

from retainer.errors import ListingBroken, ListingTorn, StoreFailed
from retainer.ports import Seen, Stretch
from retainer.stores.calls import Page
from retainer.stores.ranges import in_ranges, split

KEYS = st.text(st.sampled_from("ab-/é\U0001f600"), min_size=1, max_size=5)
Order = Callable[[str], object]


class Server:
    """A list in pages. `order`: the one in which it lists; `ignores`: where to begin."""

    def __init__(
        self,
        keys: Sequence[str],
        page: int,
        order: Order = lambda key: key,
        *,
        ignores: bool = False,
    ) -> None:
        self._keys = sorted(set(keys), key=order)  # type: ignore[arg-type]
        self._page, self._order, self._ignores = page, order, ignores
        self.asked = 0
        self._guard = threading.Lock()

    def ask(self, after: str | None, then: str | None) -> Page:
        with self._guard:
            self.asked += 1
        start = then if then is not None else None if self._ignores else after
        left = [
            key
            for key in self._keys
            if start is None or self._order(key) > self._order(start)  # type: ignore[operator]
        ]
        page, more = left[: self._page], len(left) > self._page
        return Page([Seen(key, 1, "v") for key in page], page[-1] if more else None)


def tree(key: str) -> object:
    """As SeaweedFS 4.48 lists: folder by folder."""
    return key.split("/")


def listed(server: Server, bounds: Sequence[str], known: Sequence[Stretch] = ()) -> list[str]:
    return sorted(
        seen.key
        for page in in_ranges(server.ask, bounds, known)
        if not isinstance(page, Stretch)
        for seen in page
    )


@settings(max_examples=300)
@given(st.lists(KEYS, max_size=30), st.lists(KEYS, max_size=6, unique=True), st.integers(1, 7))
def test_ranges_give_everything_once(keys: list[str], bounds: list[str], page: int) -> None:
    assert listed(Server(keys, page), sorted(bounds)) == sorted(set(keys))


@settings(max_examples=300)
@given(
    st.lists(KEYS, max_size=30),
    st.lists(KEYS, max_size=6, unique=True),
    st.lists(KEYS, max_size=6, unique=True),
    st.integers(1, 7),
    st.randoms(use_true_random=False),
)
def test_with_stretches_that_are_known_the_rest_is_read_once(
    keys: list[str], bounds: list[str], others: list[str], page: int, chance: Random
) -> None:
    """Wherever the list is split the second time."""
    server = Server(keys, page)
    pages = list(in_ranges(server.ask, sorted(bounds)))
    stretches = [each for each in pages if isinstance(each, Stretch)]
    assert len(stretches) == len(bounds) + 1
    known = chance.sample(stretches, chance.randint(0, len(stretches)))
    rest = [key for key in set(keys) if not any(each.holds(key) for each in known)]
    assert listed(server, sorted(others), known) == sorted(rest)


def test_of_what_is_known_nothing_is_asked() -> None:
    keys = [f"{number:04}" for number in range(1000)]
    server = Server(keys, 10)
    pages = list(in_ranges(server.ask, keys[99::100][:-1]))
    known = [each for each in pages if isinstance(each, Stretch) and each.after != "0499"]
    server.asked = 0
    assert listed(server, keys[49::50], known) == keys[500:600]
    assert server.asked == 12, "the ten pages of two ranges, and a look behind each"
    server.asked = 0
    assert listed(server, [], [*known, Stretch("0499", "0599", "0500", "0600")]) == []
    assert server.asked == 0


@pytest.mark.parametrize("changed", ["0499", "0600", "0600a"])
def test_a_list_that_changed_beside_what_is_known_is_not_believed(changed: str) -> None:
    keys = [f"{number:04}" for number in range(1000)]
    pages = list(in_ranges(Server(keys, 10).ask, ["0499", "0599"]))
    known = [each for each in pages if isinstance(each, Stretch) and each.after != "0499"]
    now = [key for key in keys if key != changed] if changed in keys else [*keys, changed]
    if changed == "0600":  # the first that was known behind what is read now
        with pytest.raises(ListingTorn):
            listed(Server(now, 10), [], known)
    else:  # in the midst of what is known nobody looks, as nobody does behind a range while others are read
        assert listed(Server(now, 10), [], known) == keys[500:600]


@settings(max_examples=300)
@given(
    st.lists(KEYS, max_size=30),
    st.lists(KEYS, min_size=1, max_size=6, unique=True),
    st.integers(1, 7),
    st.booleans(),
)
def test_of_a_list_in_another_order_or_without_a_beginning_nothing_is_missed(
    keys: list[str], bounds: list[str], page: int, ignores: bool
) -> None:
    server = Server(keys, page, tree, ignores=ignores)
    try:
        found = listed(server, sorted(bounds))
    except ListingTorn:
        return
    assert found == sorted(set(keys))


@pytest.mark.parametrize("passed_over", [1, 5, 10])
def test_what_a_server_leaves_out_at_the_beginning_of_a_range_is_noticed(passed_over: int) -> None:
    """Also where a range ends just with its page."""
    keys = [f"{number:04}" for number in range(100)]
    server = Server(keys, 10)

    def ask(after: str | None, then: str | None) -> Page:
        if after is None or then is not None:
            return server.ask(after, then)
        return server.ask(keys[keys.index(after) + passed_over], then)

    with pytest.raises(ListingTorn):
        for _ in in_ranges(ask, ["0049"]):
            pass


def test_a_beginning_that_is_ignored_is_noticed() -> None:
    with pytest.raises(ListingTorn):
        listed(Server("abcdefgh", 2, ignores=True), ["d"])


def test_a_list_that_changes_between_two_ranges_is_not_believed() -> None:
    before, after = Server("abcfgh", 2), Server("abcefgh", 2)

    def ask(start: str | None, then: str | None) -> Page:
        return (before if start is None else after).ask(start, then)

    with pytest.raises(ListingTorn):
        for _ in in_ranges(ask, ["d"]):
            pass


def test_as_few_pages_are_asked_for_as_there_are_where_the_bounds_fit() -> None:
    keys = [f"{number:04}" for number in range(1000)]
    server = Server(keys, 10)
    assert listed(server, keys[99::100][:-1]) == keys
    assert server.asked == 109, "and one for each bound, to see that the next range begins there"


def test_a_range_that_fails_fails_the_list() -> None:
    server = Server("abcdefgh", 2)

    def ask(start: str | None, then: str | None) -> Page:
        if start == "d":
            raise StoreFailed("no answer")
        return server.ask(start, then)

    with pytest.raises(StoreFailed):
        for _ in in_ranges(ask, ["d"]):
            pass


def test_whoever_stops_in_the_middle_leaves_nothing_behind() -> None:
    server = Server([f"{number:05}" for number in range(20_000)], 10)
    pages: Iterator[Sequence[Seen] | Stretch] = in_ranges(
        server.ask, [f"{n:05}" for n in range(0, 20_000, 100)]
    )
    next(pages)
    pages.close()  # type: ignore[attr-defined]
    asked = server.asked
    assert asked < 2000 and not [
        each for each in threading.enumerate() if each.name.startswith("ThreadPoolExecutor")
    ]


def test_folders_are_bounds_where_nothing_is_known() -> None:
    tree = {"": ["a/", "a-b/"], "a/": ["a/x/"], "a-b/": ["a-b/y/"]}
    assert split(lambda folder: tree.get(folder, [])) == ["a-b/y/", "a/x/"]
    assert split(lambda _: []) == []
    wide = split(lambda folder: [f"{number:04}/" for number in range(1000)] if not folder else [])
    assert 100 < len(wide) <= 400 and wide == sorted(wide)


# ── on servers ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def filled(lab: Lab) -> tuple[Lab, list[str]]:
    keys = [f"{folder}/{number:03}" for folder in ("a", "b b", "c+é") for number in range(20)]
    for key in [*keys, "_retainer/catalog/x"]:
        lab.writer.create(key, iter([b"x"]), 1, {}, "video/mp4")
    return lab, sorted(keys)


@pytest.mark.parametrize("bounds", [[], ["a/019", "b b/003"], ["a/0195", "b", "zz"]])
def test_every_store_lists_at_once_what_it_lists(
    filled: tuple[Lab, list[str]], bounds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab, keys = filled
    if lab.server != "local":
        small_pages(lab.writer, monkeypatch)
    given = list(lab.writer.list_at_once(bounds))
    found = [each for each in given if isinstance(each, Seen)]
    assert sorted(each.key for each in found) == keys
    assert sorted(found, key=lambda each: each.key) == sorted(
        lab.writer.list(), key=lambda each: each.key
    )
    known = [each for each in given if isinstance(each, Stretch)][:1]
    rest = [each for each in lab.writer.list_at_once([], known) if isinstance(each, Seen)]
    assert sorted(each.key for each in rest) == [
        key for key in keys if not any(each.holds(key) for each in known)
    ]


def small_pages(writer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of seven objects."""
    from dataclasses import replace

    kind, name = type(writer.calls), "max-keys" if writer.store.scheme == "s3" else "maxResults"
    list_call = kind.list

    def short(self: object, *words: object, **named: object) -> object:
        request = list_call(self, *words, **named)
        return replace(request, query=(*request.query, (name, "7")))

    monkeypatch.setattr(kind, "list", short)


def test_a_bucket_that_is_not_there_is_no_empty_list(lab: Lab) -> None:
    from dataclasses import replace

    from conftest import make_writer

    if lab.server == "local":
        pytest.skip(reason="a folder has no bucket")
    store = lab.writer.store  # type: ignore[attr-defined]
    gone = make_writer(replace(store, url=f"{store.scheme}://no-such-bucket/x"))
    for bounds in ([], ["m"]):
        with pytest.raises(ListingBroken):
            list(gone.list_at_once(bounds))
