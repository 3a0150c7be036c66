"""One download of a recording that several stores need."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import endpoint_of, make_store, make_writer
from project import Project, make_project, video

from retainer.apply import shared
from retainer.apply.shared import Shared
from retainer.demo.standin import StandIn
from retainer.errors import SourceFailed, SourceGone
from retainer.planfile import actions, read_plan
from retainer.ports import Body

A = "a" * 24
PIECES = [random.Random(n).randbytes(1000 + n) for n in range(40)]
WHOLE = b"".join(PIECES)


class Source:
    """Downloads that are counted. `breaks`: after so many pieces, the first of them."""

    def __init__(self, *, breaks: int | None = None, gone: bool = False) -> None:
        self.opened = self.closed = self.read = 0
        self._breaks, self._gone = breaks, gone

    def open(self, asset_id: str) -> Body:
        self.opened += 1
        if self._gone:
            raise SourceGone("it is gone")
        return Body(len(WHOLE), "video/mp4", self._pieces(self.opened), "http://media/x")

    def open_beside(self, address: str) -> Body:
        raise AssertionError(address)

    def _pieces(self, which: int) -> Iterator[bytes]:
        try:
            for number, piece in enumerate(PIECES):
                if which == 1 and number == self._breaks:
                    raise SourceFailed("it broke off")
                self.read += 1
                yield piece
        finally:
            self.closed += 1


def together(
    source: Source, copies: int, act: Callable[[int, Any], bytes | None]
) -> list[bytes | Exception | None]:
    """Every copy at once, each with its own view of the downloads."""
    one = Shared(source, A, copies)

    def run(number: int) -> bytes | Exception | None:
        try:
            return act(number, one.of(number))
        except Exception as error:
            return error
        finally:
            one.leave(number)

    with ThreadPoolExecutor(copies) as pool:
        return list(pool.map(run, range(copies), timeout=60))


def whole(_: int, downloads: Any) -> bytes:
    return b"".join(downloads.open(A).chunks)


@pytest.mark.parametrize("copies", [2, 3, 7])
def test_one_download_feeds_every_copy(copies: int) -> None:
    source = Source()
    assert together(source, copies, whole) == [WHOLE] * copies
    assert (source.opened, source.read) == (1, len(PIECES))


@pytest.mark.parametrize("seed", range(8))
def test_every_copy_gets_every_byte_at_its_own_pace(seed: int) -> None:
    source, wait = Source(), random.Random(seed)
    paces = [[wait.uniform(0, 0.004) for _ in PIECES] for _ in range(3)]

    def slowly(number: int, downloads: Any) -> bytes:
        found = b""
        for piece, pace in zip(downloads.open(A).chunks, paces[number], strict=True):
            found += piece
            time.sleep(pace)
        return found

    assert together(source, 3, slowly) == [WHOLE] * 3
    assert source.opened == 1


def test_nobody_gets_far_ahead_of_another() -> None:
    source, held = Source(), threading.Event()
    seen: list[int] = []

    def act(number: int, downloads: Any) -> bytes:
        chunks = downloads.open(A).chunks
        if number == 0:
            first = next(chunks)
            held.wait(0.5)
            seen.append(source.read)
            return first + b"".join(chunks)
        return b"".join(chunks)

    assert together(source, 2, act) == [WHOLE, WHOLE]
    assert seen[0] <= shared.AHEAD + 2


@pytest.mark.parametrize("when", ["before it opens", "in the middle"])
def test_a_copy_that_ends_early_holds_nobody_back(when: str) -> None:
    source = Source()

    def act(number: int, downloads: Any) -> bytes | None:
        if number == 0:
            if when == "in the middle":
                next(downloads.open(A).chunks)
            raise RuntimeError("this store failed")
        return whole(number, downloads)

    first, *others = together(source, 3, act)
    assert isinstance(first, RuntimeError) and others == [WHOLE, WHOLE]
    assert source.opened == 1


def test_a_copy_that_takes_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "STALL_SECONDS", 0.3)
    source, over = Source(), threading.Event()

    def act(number: int, downloads: Any) -> bytes | None:
        chunks = downloads.open(A).chunks
        if number == 0:
            next(chunks)
            over.wait(30)
            return b"".join(chunks)
        found = b"".join(chunks)
        over.set()
        return found

    slow, fast = together(source, 2, act)
    assert fast == WHOLE and isinstance(slow, SourceFailed)


def test_whoever_comes_late_opens_it_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "ASSEMBLE_SECONDS", 0.1)
    source = Source()

    def act(number: int, downloads: Any) -> bytes:
        time.sleep(0.5 * number)
        return whole(number, downloads)

    assert together(source, 2, act) == [WHOLE, WHOLE]
    assert source.opened == 2


def test_what_breaks_off_breaks_off_for_all_and_each_begins_anew() -> None:
    source = Source(breaks=20)

    def act(_: int, downloads: Any) -> bytes:
        with pytest.raises(SourceFailed):
            b"".join(downloads.open(A).chunks)
        return b"".join(downloads.open(A).chunks)

    assert together(source, 3, act) == [WHOLE] * 3
    assert source.opened == 4


def test_what_is_gone_is_gone_for_all() -> None:
    source = Source(gone=True)
    assert all(isinstance(each, SourceGone) for each in together(source, 3, whole))
    assert source.opened == 1


def test_a_download_that_nobody_reads_to_its_end_is_closed() -> None:
    source = Source()

    def act(_: int, downloads: Any) -> bytes:
        piece: bytes = next(downloads.open(A).chunks)
        return piece

    together(source, 2, act)
    assert source.closed == 1


# ── of a plan ───────────────────────────────────────────────────────────────────────────────────

TWICE = {
    "version": 1,
    "rules": [
        {
            "id": "calls",
            "match": {"type": "room-composite"},
            "keep": [{"in": "vault", "for": "2y"}, {"in": "cold", "for": "1y"}],
        }
    ],
}


@pytest.fixture(params=["local", "seaweedfs", "strict_gcs"])
def two(request: pytest.FixtureRequest, tmp_path: Path, api: StandIn) -> Project:
    """A project that keeps each recording in two stores, one of them a folder."""
    server = request.param
    project = make_project(tmp_path / "p", api, server, endpoint_of(server, request))
    project.stores["cold"] = make_store("local", "", tmp_path / "p" / "data", name="cold")
    project.write(TWICE)
    return project


def downloads(api: StandIn) -> int:
    return sum(seen.path.startswith("/media/") for seen in api.requests)


def test_each_recording_is_downloaded_once_for_two_stores(two: Project) -> None:
    two.hosted(A, video(1, 30_000_000))
    for number in range(5):
        two.hosted(f"{number}" * 24, video(number + 2))
    two.plan()
    before = downloads(two.api)
    assert two.apply()["copied"] == 12
    assert downloads(two.api) - before == 6
    for store in ("vault", "cold"):
        assert sorted(two.content(store).values()) == sorted(
            [video(1, 30_000_000), *(video(number + 2) for number in range(5))]
        )
    assert two.plan()["rows"] and not [
        row for row in two.plan()["rows"] if row["decision"] == "copy"
    ]


def test_a_failure_in_one_store_does_not_stop_the_other(two: Project) -> None:
    asset = two.hosted(A, video(1, 12_000_000))
    two.plan()
    (action,) = [
        each for each in actions(read_plan(two.root / "p.plan"), "copy") if each.store == "cold"
    ]
    cold = make_writer(two.stores["cold"])
    assert action.target
    cold.create(action.target, iter([b"another"]), 7, {}, "video/mp4")
    done = two.apply(expect=7)
    assert (done["copied"], len(done["failed"])) == (1, 1), asset
    assert "a different object lies there" in done["failed"][0]["cause"]
    assert list(two.content("vault").values()) == [video(1, 12_000_000)]
