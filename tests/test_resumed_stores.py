"""The list of a store that was cut goes on behind the stretches that had ended, and begins anew where
that is not certain."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from conftest import Lab, make_writer
from project import POLICY, Project, make_project
from test_ranges import small_pages

from retainer.demo.standin import StandIn
from retainer.errors import ListingTorn, StoreFailed
from retainer.inventory import bookmark, store_list
from retainer.inventory.listing import Listing
from retainer.inventory.store_list import _Going, list_store
from retainer.ports import Seen, StoreReader, Stretch
from retainer.stores import ranges, reads

pytestmark = pytest.mark.sampled

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
WITHIN = timedelta(hours=12)
KEYS = [f"{folder}/{number:03}" for folder in "abcdef" for number in range(20)]


@dataclass
class Cut:
    """A store whose list breaks behind so many stretches."""

    reader: StoreReader
    after: int | None = None
    asked: list[Sequence[Stretch]] = field(default_factory=list)
    fails: Callable[[], Exception] = lambda: StoreFailed("no answer")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.reader, name)

    def list_at_once(
        self, bounds: Sequence[str], known: Sequence[Stretch] = ()
    ) -> Generator[Seen | Stretch]:
        self.asked.append(known)
        ended = 0
        for each in self.reader.list_at_once(bounds, known):
            if isinstance(each, Stretch) and ended == self.after:
                raise self.fails()
            ended += isinstance(each, Stretch)
            yield each


@dataclass
class Bench:
    reader: StoreReader
    path: Path
    now: datetime = NOW

    def list(self, after: int | None = None, **more: Any) -> tuple[Listing, Cut]:
        listing = Listing(self.reader.name, "store", self.now)
        cut = Cut(self.reader, after, **more)
        list_store(cut, listing, self.path, lambda: self.now, lambda *_: None, goes_on=WITHIN)
        return listing, cut

    def keys(self) -> list[str]:
        return sorted(json.loads(line)["key"] for line in self.path.read_text().splitlines())


@pytest.fixture
def bench(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Six folders of twenty objects, in pages of seven."""
    if lab.server == "local":
        pytest.skip(reason="a folder is listed in one go")
    for key in KEYS:
        lab.writer.create(key, iter([b"x"]), 1, {}, "video/mp4")
    small_pages(lab.writer, monkeypatch)
    return Bench(lab.writer, tmp_path / "spool.jsonl")


def test_a_list_that_was_cut_goes_on_behind_what_had_ended(bench: Bench) -> None:
    cut, _ = bench.list(after=3)
    assert not cut.complete and "no answer" in cut.notes and cut.objects < 120
    bench.now += timedelta(hours=1)
    whole, asked = bench.list()
    assert [len(each) for each in asked.asked] == [3]
    assert (whole.complete, whole.objects, whole.bytes) == (True, 120, 120)
    assert bench.keys() == KEYS
    assert whole.started_at == NOW and whole.is_resumed
    assert "it began at 12:00 UTC, and went on from where it was cut" in whole.said
    again, asked = bench.list()
    assert asked.asked == [()] and again.started_at == bench.now and not again.is_resumed


def test_it_is_cut_again_and_goes_on_again(bench: Bench) -> None:
    bench.list(after=2)
    bench.list(after=2)
    whole, asked = bench.list()
    assert len(asked.asked[0]) == 4 and whole.complete and bench.keys() == KEYS


def test_a_kill_loses_what_came_in_the_last_seconds(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_list, "KEEP_SECONDS", 0.0)
    kept = bookmark.keep
    marks: list[int] = []

    def keep(spool: Path, mark: Any) -> None:
        marks.append(len(mark.ended))
        if len(marks) <= 3:  # and then the process is dead
            kept(spool, mark)

    monkeypatch.setattr(store_list, "keep", keep)
    bench.list(after=5)
    monkeypatch.setattr(store_list, "keep", kept)
    whole, asked = bench.list()
    assert [len(each) for each in asked.asked] == [3]
    assert (whole.complete, whole.objects) == (True, 120) and bench.keys() == KEYS


def test_what_was_written_behind_the_bookmark_is_left_out(bench: Bench) -> None:
    bench.list(after=3)
    with bench.path.open("a") as spool:
        spool.write(bench.path.read_text().splitlines()[0] + '\n{"store": "half')
    whole, _ = bench.list()
    assert whole.is_resumed and bench.keys() == KEYS


def cut_again_without(bench: Bench, where: object, name: str) -> list[Sequence[Stretch]]:
    """What is known to a list after two that were cut, the second of which lacked a function."""
    bench.list(after=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(where, name, lambda *_: None)
        bench.list(after=2)
    return bench.list()[1].asked


def test_a_kill_soon_after_it_went_on_loses_nothing_of_before(bench: Bench) -> None:
    asked = cut_again_without(bench, _Going, "_mark")
    assert [len(each) for each in asked] == [3] and bench.keys() == KEYS


def test_a_bookmark_does_not_stay_beside_rows_of_which_it_does_not_tell(bench: Bench) -> None:
    """As where the disk is full when it is to be written anew."""
    assert cut_again_without(bench, store_list, "keep") == [()] and bench.keys() == KEYS


class Full(io.FileIO):
    """A file on a disk that is full for a moment."""

    left: int | None = None

    def write(self, data: Any) -> int:
        if Full.left is not None:
            Full.left -= len(data)
            if Full.left < 0:
                Full.left = None
                raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


@pytest.mark.parametrize("limit", [0, 5_000, 9_000, 18_000])
@pytest.mark.parametrize("every", [0.0, 5.0])
def test_what_could_not_be_written_is_not_taken_for_written(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, limit: int, every: float
) -> None:
    """Python forgets what it had kept for a write that failed, and the next one may go through."""
    opened = Path.open

    def half_full(path: Path, mode: str = "r", *more: Any, **named: Any) -> Any:
        if path == bench.path and mode == "a":
            return io.TextIOWrapper(io.BufferedWriter(Full(path, mode)), encoding="utf-8")
        return opened(path, mode, *more, **named)

    monkeypatch.setattr(store_list, "KEEP_SECONDS", every)
    Full.left = limit
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", half_full)
        with pytest.raises(OSError, match="No space left"):
            bench.list()
    whole, _ = bench.list()
    assert whole.complete and bench.keys() == KEYS


def test_a_bookmark_is_not_left_beside_the_rows_of_another_process(bench: Bench) -> None:
    """As where somebody removed the folder while two listed, one after the other."""

    def fails() -> Exception:
        bench.path.unlink()
        bench.path.write_text('{"store": "vault", "key": "a/001", "size": 1}\n' * 60)
        return StoreFailed("no answer")

    bench.list(after=3, fails=fails)
    _, asked = bench.list()
    assert asked.asked == [()] and bench.keys() == KEYS


def test_of_objects_without_a_readable_name_no_list_goes_on(bench: Bench) -> None:
    """Of those a spool tells nothing, and they are to be told."""

    class Odd(Cut):
        def list_at_once(
            self, bounds: Sequence[str], known: Sequence[Stretch] = ()
        ) -> Generator[Seen | Stretch]:
            yield Seen("\ud800", 1, "v")
            yield from super().list_at_once(bounds, known)

    bench.reader = Odd(bench.reader, 3)
    listing, _ = bench.list()
    assert not listing.complete and "1 objects have names that are no Unicode" in listing.said[0]
    _, asked = bench.list()
    assert asked.asked == [()]


def test_a_list_that_is_short_by_now_has_each_object_once(bench: Bench) -> None:
    bench.list(after=3)
    writer: Any = bench.reader
    for seen in list(writer.list()):
        if seen.key not in ("a/001", "f/019"):
            writer.delete(seen)
    bench.list()
    assert len(set(bench.keys())) == len(bench.keys()) <= 62


def torn() -> Exception:
    return ListingTorn("the ranges of its list do not meet")


def test_what_does_not_meet_any_more_begins_anew(bench: Bench) -> None:
    """Something was written just where a stretch that had ended meets one that had not."""
    bench.list(after=3)
    bench.now += timedelta(hours=1)
    stands = bookmark.bookmark_of(bench.path, bookmark.Stretches, bench.now, WITHIN)
    assert stands is not None
    ends = {each.end for each in stands.ended}
    begins = {each.after for each in stands.ended}
    beside = [each.beyond for each in stands.ended if each.end and each.end not in begins]
    beside += [each.first for each in stands.ended if each.after and each.after not in ends]
    writer: Any = bench.reader
    writer.create(f"{beside[0]}"[:-1], iter([b"x"]), 1, {}, "video/mp4")
    whole, asked = bench.list()
    assert [len(each) for each in asked.asked] == [3, 0]
    assert whole.complete and whole.objects == 121 and not whole.is_resumed
    assert whole.started_at == bench.now


def test_torn_twice_is_read_page_by_page(bench: Bench) -> None:
    bench.list(after=3)
    bench.now += timedelta(hours=1)
    whole, asked = bench.list(after=0, fails=torn)
    assert [len(each) for each in asked.asked] == [3, 0]
    assert (whole.complete, whole.objects, whole.bytes) == (True, 120, 120)
    assert bench.keys() == KEYS and whole.started_at == bench.now and whole.said == []
    assert bookmark.bookmark_of(bench.path, bookmark.Stretches, bench.now, WITHIN) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.with_suffix(".json").write_text("{"),
        lambda path: path.with_suffix(".json").unlink(),
        lambda path: os.truncate(path, 100),
        lambda path: path.write_bytes(b"\0" * path.stat().st_size),
        lambda path: path.write_bytes(path.read_bytes().replace(b"/003", b"/00x", 1)),
        lambda path: path.write_text("".join(sorted(path.read_text().splitlines(True))[::-1])),
        lambda path: path.unlink(),
    ],
)
def test_what_is_damaged_begins_anew(bench: Bench, spoil: Callable[[Path], object]) -> None:
    bench.list(after=3)
    spoil(bench.path)
    whole, _ = bench.list()
    assert whole.complete and not whole.is_resumed and bench.keys() == KEYS


def test_what_is_too_old_begins_anew(bench: Bench) -> None:
    bench.list(after=3)
    bench.now += bookmark.RESUMED_WITHIN
    whole, asked = bench.list()
    assert asked.asked == [()] and not whole.is_resumed and bench.keys() == KEYS


# ── the command ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def project(seaweedfs: str, tmp_path: Path, api: StandIn) -> Project:
    return make_project(tmp_path / "project", api, "seaweedfs", seaweedfs)


DAYS = 6


@pytest.fixture
def cut(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Copies of many days in a vault, whose list was cut."""
    for number in range(36):
        age = timedelta(days=1 + number % DAYS)
        project.hosted(f"c{number:023x}", b"a,b\n", kind="chat", age=age)
    project.plan()
    project.apply()
    small_pages(make_writer(project.stores["vault"]), monkeypatch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reads, "in_ranges", breaks_behind(3))
        assert facts(project, expect=8)["complete"] is False
    return project


def breaks_behind(count: int) -> Any:
    def broken(*asked: Any) -> Iterator[Sequence[Seen] | Stretch]:
        ended = 0
        for page in ranges.in_ranges(*asked):
            yield page
            ended += isinstance(page, Stretch)
            if ended == count:
                raise StoreFailed("no answer")

    return broken


def facts(project: Project, *, expect: int = 0, name: str = "vault") -> dict[str, Any]:
    """Gathers; the list of the vault, as the facts have it."""
    project.run("facts", "--out", "f.duckdb", expect=expect)
    with duckdb.connect(str(project.root / "f.duckdb"), read_only=True) as found:
        rows = found.execute(
            "SELECT complete, objects, note, started_at FROM listings WHERE name = ?", [name]
        ).fetchall()
        copies = found.execute(
            "SELECT count(*) FROM copies WHERE store = ? AND complete", [name]
        ).fetchall()
    names = "complete", "objects", "note", "began"
    return dict(zip(names, rows[0], strict=True)) | {"copies": copies[0][0]}


def kept(project: Project) -> list[Path]:
    return sorted((project.root / ".retainer" / "lists").iterdir())


def test_facts_that_were_cut_go_on_and_are_as_old_as_their_beginning(cut: Project) -> None:
    (told,) = (path for path in kept(cut) if path.suffix == ".json")
    began = datetime.fromisoformat(json.loads(told.read_text())["began"])
    asked: list[Any] = []

    def counted(*words: Any) -> Any:
        asked.append(words[2])
        return ranges.in_ranges(*words)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reads, "in_ranges", counted)
        came = facts(cut)
    assert (came["complete"], came["objects"], came["copies"]) == (True, 36, 36)
    assert came["began"].replace(tzinfo=UTC) == began
    assert "went on from where it was cut" in came["note"]
    assert sorted(map(len, asked))[-1] == 3
    assert kept(cut) == [], "nothing of it stays"
    assert facts(cut)["note"] is None


def test_a_plan_of_a_list_that_went_on_deletes_what_is_due(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is new in a store asks for no delete, unlike a recording that nobody has seen."""
    project.many_due(20)
    small_pages(make_writer(project.stores["vault"]), monkeypatch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reads, "in_ranges", breaks_behind(1))
        assert project.plan(expect=8)["header"]["deletes"] == 0
    assert [path.suffix for path in kept(project)].count(".json") == 1
    assert project.plan()["header"]["deletes"] > 0


def test_another_catalog_begins_anew(cut: Project) -> None:
    """What was copied since would seem to be missing from what was listed before."""
    lists = cut.root / ".retainer" / "lists"
    shutil.copytree(lists, cut.root / "aside")
    cut.hosted("d" * 24, b"a,b\n", kind="chat", age=timedelta(days=1))
    cut.plan()
    cut.apply()
    shutil.copytree(cut.root / "aside", lists, dirs_exist_ok=True)  # as another machine has them
    came = facts(cut)
    assert (came["complete"], came["copies"], came["note"]) == (True, 37, None)


def test_what_a_killed_apply_copied_since_begins_anew(cut: Project) -> None:
    """It is in no catalog yet, and would seem to be in no list either."""
    lists = cut.root / ".retainer" / "lists"
    shutil.copytree(lists, cut.root / "aside")
    cut.hosted("c" + "0" * 21 + "ff", b"a,b\n", kind="chat", age=timedelta(days=DAYS))
    cut.plan()
    code = cut.killed("apply", "p.plan", KILL_NAME="create", KILL_WHEN="after")
    assert code == -signal.SIGKILL
    shutil.copytree(cut.root / "aside", lists, dirs_exist_ok=True)  # as another machine has them
    came = facts(cut)
    assert (came["complete"], came["objects"], came["note"]) == (True, 37, None)


def test_a_store_that_was_renamed_begins_anew(cut: Project) -> None:
    """The rows of before name it otherwise."""
    cut.stores["archive"] = replace(cut.stores.pop("vault"), name="archive")
    policy = json.loads(json.dumps(POLICY).replace("vault", "archive"))
    cut.write(policy)
    came = facts(cut, name="archive")
    assert (came["complete"], came["objects"], came["copies"]) == (True, 36, 36)
    assert came["note"] is None


def test_a_store_that_nobody_has_named_yet_begins_anew(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing tells whether it is the same one."""
    for number in range(20):
        project.uploaded(f"a{number:023x}", b"x" * 9)
    small_pages(make_writer(project.stores["uploads"]), monkeypatch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reads, "in_ranges", breaks_behind(1))
        facts(project, expect=8)
    assert [path for path in kept(project) if path.suffix == ".json"] == []
