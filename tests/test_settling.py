"""What is written down of deletes whose end nobody told: of runs that died, and of calls that were
not answered."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from conftest import make_store, make_writer
from project import Project

from retainer.apply import settle as settling
from retainer.apply.delete import missing_witness, seen_together
from retainer.apply.places import REFUSALS
from retainer.apply.settle import settle
from retainer.errors import StoreFailed, StoreRefused
from retainer.model.outcome import LeftOver
from retainer.planfile import Action, Planned
from retainer.ports import Certain, Deletion, Look, Seen, StoreFailure, Version
from retainer.stores.local import LocalWriter

A = "a" * 24


@dataclass
class Announced:
    """A delete of which only the intent is known."""

    store: str
    objects: tuple[tuple[str, int, str], ...]
    rule: str = "clear"
    asked_by: str = ""
    versions: tuple[tuple[str, str, int], ...] = ()
    versions_by: str = ""
    plan: str = "p"
    row: int = 7
    asset: str = A


@dataclass
class Record:
    lines: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def write(self, event: str, **of: Any) -> None:
        self.lines.append((event, of))

    def told(self, *names: str) -> list[tuple[Any, ...]]:
        return [(event, *(of.get(name) for name in names)) for event, of in self.lines]


class Broken(LocalWriter):
    """One that does not answer."""

    def look(self, key: str) -> Look | None:
        raise StoreFailed(f"look at {key}: no answer")

    def abandon(self, key: str, upload: str) -> None:
        raise StoreFailed(f"abandon {key}: no answer")


@pytest.fixture
def vault(tmp_path: Path) -> LocalWriter:
    writer = make_writer(make_store("local", "", tmp_path))
    assert isinstance(writer, LocalWriter)
    return writer


@pytest.fixture
def broken(tmp_path: Path) -> Broken:
    return Broken(replace(make_store("local", "", tmp_path), name="broken"))


def put(writer: LocalWriter, key: str, content: bytes = b"bytes") -> tuple[str, int, str]:
    seen = writer.create(key, iter([content]), len(content), {}, "text/plain").seen
    return key, seen.size, seen.version


def settled(
    record: Record, *announced: Announced, left: tuple[LeftOver, ...] = (), **stores: LocalWriter
) -> settling.Settled:
    now = datetime(2026, 11, 30, 12, tzinfo=UTC)
    return settle(announced, left, stores, record, now, lambda: None, ["DSR-1"])


def test_what_a_dead_run_announced_is_written_down_as_it_lies_there(
    vault: LocalWriter, broken: Broken
) -> None:
    here, other = put(vault, "here"), put(vault, "other")
    gone, changed = ("gone", 3, "1-3-1"), (other[0], other[1], "0-1-1")
    record = Record()
    found = settled(
        record,
        Announced("broken", (here,)),
        Announced("not opened", (gone,)),
        Announced("vault", (here,)),
        Announced("vault", (gone,), rule="DSR-1"),
        Announced("vault", (changed, here), asked_by="erasure"),
        broken=broken,
        vault=vault,
    )
    assert record.told("bytes", "keys", "left", "partial", "asked_by") == [
        ("left", None, None, None, None, None),
        ("deleted", 3, ["gone"], [], False, "erasure"),
        ("deleted", 5, ["other"], ["here"], True, "erasure"),
    ]
    assert found.gone == {("vault", "gone"), ("vault", "other")}
    assert [(each["key"], each["version"], each["deleted"]) for each in found.entries] == [
        ("gone", "1-3-1", True),
        ("other", "0-1-1", True),
    ]
    assert found.said == (
        "2 deletes of earlier runs had been done, and nobody had told: now the journal does",
    )


class Aside(LocalWriter):
    """One in which a dead run had moved some objects aside."""

    aside: dict[str, bool]

    def unfinished(self) -> list[str]:
        return list(self.aside)

    def put_back(self, key: str) -> bool:
        return self.aside[key]


class Mute(LocalWriter):
    def unfinished(self) -> list[str]:
        raise StoreFailed("mute: no answer")


def test_what_a_dead_run_had_moved_aside_is_put_back_or_told(tmp_path: Path) -> None:
    """A store that does not answer keeps no other from being asked."""
    stores = [kind(make_store("local", "", tmp_path)) for kind in (Mute, Aside)]
    stores[1].aside = {"here": True, "there": False}  # type: ignore[union-attr]
    asked: list[None] = []
    found = settle(
        [],
        [],
        {"mute": stores[0], "vault": stores[1]},
        Record(),
        datetime(2026, 11, 30, 12, tzinfo=UTC),
        lambda: asked.append(None),
    )
    assert (found.said, len(asked)) == (
        (
            "mute: no answer",
            "vault:here had been moved aside by a run that died, and lies in its place again",
            "vault:there was moved aside by a run that died (to _retainer/going/), and another "
            "object lies in its place",
        ),
        2,
    )


def test_one_that_no_erasure_asked_for_says_so_and_is_told_as_one(vault: LocalWriter) -> None:
    record = Record()
    found = settled(record, Announced("vault", (("gone", 3, "1"),)), vault=vault)
    assert record.told("asked_by") == [("deleted", None)]
    assert found.said[0].startswith("1 delete of earlier runs had")


def test_of_versions_those_are_counted_that_went(
    vault: LocalWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a folder, which has none; those of real servers are tests/test_versions.py's."""
    here = put(vault, "here")
    left = {"here": ["v1"], "gone": []}

    def versions(_store: object, keys: list[str]) -> dict[str, list[Version]]:
        return {
            key: [Version(Seen(key, 1, each), each, is_current=True) for each in left[key]]
            for key in keys
        }

    monkeypatch.setattr(settling, "versions_of", versions)
    record = Record()
    some = (("here", "v1", 5), ("here", "v0", 4))
    settled(
        record,
        Announced("vault", (here,), versions=some, versions_by="clear"),
        Announced("vault", (here,), versions=some[:1], versions_by="clear"),
        Announced(
            "vault",
            (here, ("gone", 3, "1")),
            versions=(*some, ("gone", "w1", 3), ("gone", "w0", 20)),
            versions_by="clear",
        ),
        vault=vault,
    )
    assert record.told("versions", "versions_by", "bytes", "keys") == [
        ("left", 1, "clear", None, None),
        ("left", None, None, None, None),
        ("deleted", 3, "clear", 23, ["gone"]),
    ]


def test_a_copy_in_a_store_that_is_not_open_makes_nothing_safe(vault: LocalWriter) -> None:
    key, size, version = put(vault, "here")
    witnesses = [Planned("vault", key, size, version), Planned("cold", "there", 1, "1")]
    action = cast(Action, SimpleNamespace(witnesses=witnesses, facts={}))
    said = missing_witness(action, {"vault": vault})
    assert said == "the copy in cold that makes it safe is not there any more"
    witnesses.pop()
    assert missing_witness(action, {"vault": vault}) is None
    vault.delete(Seen(key, size, version))
    said = missing_witness(action, {"vault": vault})
    assert said == "the copy in vault that makes it safe is not there any more"
    put(vault, "here", b"other")
    said = missing_witness(action, {"vault": vault})
    assert said == "the copy in vault that makes it safe has changed"


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\n0.ts\n#EXTINF:6,\n1.ts\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    ("playlist", "names", "path", "said"),
    [
        (PLAYLIST, "01", "s3://b/x/index.m3u8", None),
        (PLAYLIST, "0", "s3://b/x/index.m3u8", "1 of its objects are missing, such as 1.ts"),
        (PLAYLIST, "0", "s3://b/x/other.m3u8", None),
        (PLAYLIST, "0", None, None),
        (b"<html>", "01", "s3://b/x/index.m3u8", "no playlist"),
    ],
)
def test_an_upload_of_many_objects_makes_nothing_safe_unless_it_is_whole(
    vault: LocalWriter, playlist: bytes, names: str, path: str | None, said: str | None
) -> None:
    """The playlist that the record names is read; of ours a manifest says it."""
    objects = [put(vault, f"x/{name}.ts") for name in names] + [
        put(vault, "x/index.m3u8", playlist)
    ]
    witnesses = [Planned("vault", *each) for each in objects]
    action = cast(Action, SimpleNamespace(witnesses=witnesses, facts={"path": path}))
    found = missing_witness(action, {"vault": vault})
    assert (found is None) if said is None else (found is not None and said in found)
    manifest = Planned("vault", *put(vault, "x/manifest.json"))
    ours = SimpleNamespace(witnesses=[*witnesses, manifest], facts={"path": path})
    assert missing_witness(cast(Action, ours), {"vault": vault}) is None


def test_an_upload_whose_playlist_changes_while_it_is_looked_at_makes_nothing_safe(
    vault: LocalWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness = Planned("vault", *put(vault, "x/index.m3u8", PLAYLIST))
    facts = {"path": "s3://b/x/index.m3u8"}
    action = cast(Action, SimpleNamespace(witnesses=[witness], facts=facts))
    really = LocalWriter.look

    def look(self: LocalWriter, key: str) -> Look | None:
        found = really(self, key)
        self.delete(Seen(witness.key, witness.size, witness.version))
        return found

    monkeypatch.setattr(LocalWriter, "look", look)
    found = missing_witness(action, {"vault": vault})
    assert found is not None and found.startswith(
        "the copy in vault that makes it safe is not whole"
    )


@pytest.mark.parametrize(("count", "shown"), [(8, 0), (9, 9)])
def test_only_many_witnesses_are_looked_for_in_a_list(
    vault: LocalWriter, monkeypatch: pytest.MonkeyPatch, count: int, shown: int
) -> None:
    """And those in a store that is not open by nobody."""

    def between(self: LocalWriter, first: str, last: str, _pages: int) -> list[Seen]:
        return [each for each in self.list() if first <= each.key <= last]

    monkeypatch.setattr(LocalWriter, "some_between", between)
    here = [Planned("vault", *put(vault, f"x/{number}")) for number in range(count)]
    put(vault, "x/00")
    there = [Planned("a", f"x/{number}", 1, "1") for number in range(9)]
    actions = [
        cast(Action, SimpleNamespace(witnesses=pair)) for pair in zip(there * 2, here, strict=False)
    ]
    found = seen_together(actions, {"vault": vault})
    assert {name: sorted(of) for name, of in found.items()} == (
        {"vault": sorted(each.key for each in here)} if shown else {}
    )


def test_an_upload_that_cannot_be_given_up_keeps_no_other_from_being(
    vault: LocalWriter, broken: Broken
) -> None:
    record = Record()
    left = tuple(LeftOver(name, "key", "0" * 32) for name in ("broken", "not opened", "vault"))
    settled(record, left=left, broken=broken, vault=vault)
    assert record.told("store", "key", "upload") == [("abandoned", "vault", "key", "0" * 32)]


# ── calls without an answer ───────────────────────────────────────────────────────────────────────


def due(local: Project, count: int) -> None:
    plan = local.many_due(count, "due.plan", "--lift", "percent:store:uploads")
    assert plan["header"]["deletes"] == count


Act = Callable[[LocalWriter, Seen], Deletion]
BATCHES, SINGLY = Certain(batch_delete=True), Certain()
either = pytest.mark.parametrize("honours", [BATCHES, SINGLY], ids=["together", "singly"])


def deleting(
    monkeypatch: pytest.MonkeyPatch,
    act: Callable[[Act, LocalWriter, Seen], Deletion],
    *,
    honours: Certain = BATCHES,
) -> None:
    """Every delete of a recording in a folder as `act` does it, by itself or with others."""
    really = LocalWriter.delete

    def delete(self: LocalWriter, seen: Seen) -> Deletion:
        if seen.key.startswith("_retainer/"):
            return really(self, seen)
        return act(really, self, seen)

    def together(self: LocalWriter, batch: Sequence[Seen]) -> list[Deletion | StoreFailure]:
        said: list[Deletion | StoreFailure] = []
        for each in batch:
            try:
                said.append(delete(self, each))
            except StoreFailed as error:
                said.append(StoreFailure(error.message, refused=isinstance(error, StoreRefused)))
        return said

    monkeypatch.setattr(LocalWriter, "delete", delete)
    monkeypatch.setattr(LocalWriter, "delete_batch", together)
    monkeypatch.setattr(LocalWriter, "conditions", lambda _: honours)


@either
@pytest.mark.parametrize("is_done", [True, False])
def test_a_delete_without_an_answer_is_told_by_what_lies_there(
    local: Project, monkeypatch: pytest.MonkeyPatch, is_done: bool, honours: Certain
) -> None:
    due(local, 1)

    def unanswered(really: Act, writer: LocalWriter, seen: Seen) -> Deletion:
        if is_done:
            really(writer, seen)
        raise StoreFailed("delete: no answer")

    deleting(monkeypatch, unanswered, honours=honours)
    done = local.apply("due.plan", "--approve-deletes", "1", expect=None)
    assert (done["deleted"], len(done["failed"])) == ((1, 0) if is_done else (0, 1))
    ends = [line["of"]["partial"] for line in local.journal() if line["event"] == "deleted"]
    assert ends == ([False] if is_done else [])


@either
def test_where_it_cannot_be_seen_the_next_run_looks(
    local: Project, monkeypatch: pytest.MonkeyPatch, honours: Certain
) -> None:
    due(local, 1)
    really_look = LocalWriter.look
    with monkeypatch.context() as patch:
        asked: list[str] = []

        def unanswered(really: Act, writer: LocalWriter, seen: Seen) -> Deletion:
            really(writer, seen)
            asked.append(seen.key)
            raise StoreFailed("delete: no answer")

        def look(self: LocalWriter, key: str) -> Look | None:
            if key in asked:
                raise StoreFailed("look: no answer")
            return really_look(self, key)

        deleting(patch, unanswered, honours=honours)
        patch.setattr(LocalWriter, "look", look)
        done = local.apply("due.plan", "--approve-deletes", "1", expect=None)
        assert (done["deleted"], len(done["failed"])) == (0, 1)
    assert [line for line in local.journal() if line["event"] == "deleted"] == []
    local.plan("again.plan")
    said = " ".join(local.apply("again.plan")["said"])
    assert "1 delete of earlier runs had been done" in said


@either
def test_refusals_are_counted_from_the_last_delete_that_was_answered(
    local: Project, monkeypatch: pytest.MonkeyPatch, honours: Certain
) -> None:
    """A store rests once it refused a few in a row, not a few of many."""
    count = 2 * REFUSALS + 2
    due(local, count)
    calls: list[str] = []

    def every_second(really: Act, writer: LocalWriter, seen: Seen) -> Deletion:
        calls.append(seen.key)
        if len(calls) % 2:
            raise StoreRefused("delete: 403", store="uploads")
        return really(writer, seen)

    deleting(monkeypatch, every_second, honours=honours)
    done = local.apply("due.plan", "--approve-deletes", str(count), "--workers", "1", expect=None)
    assert (len(calls), done["deleted"]) == (count, count // 2)
    failed = [line["of"] for line in local.journal() if line["event"] == "failed"]
    assert [each["unknown"] for each in failed] == [False] * (count // 2)


def test_a_store_remembers_before_a_delete_what_is_about_to_go_and_not_what_went(
    local: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    due(local, 3)
    planned: list[int] = []

    def once(really: Act, writer: LocalWriter, seen: Seen) -> Deletion:
        told = json.loads((writer.root / "_retainer/record.json").read_text())
        planned.append(
            sum(each["count"] for of in told["journals"].values() for each in of["planned"])
        )
        if len(planned) == 2:
            raise KeyboardInterrupt
        return really(writer, seen)

    deleting(monkeypatch, once, honours=SINGLY)
    local.apply("due.plan", "--approve-deletes", "3", "--workers", "1", expect=None)
    done = local.apply("due.plan", "--approve-deletes", "3", "--workers", "1", expect=None)
    assert planned == [3, 3, 2, 2]
    assert (done["deleted"], done["already"]) == (2, 1)


@either
def test_of_several_each_is_told_as_it_came_out(
    local: Project, monkeypatch: pytest.MonkeyPatch, honours: Certain
) -> None:
    """And whether the store would have refused another version."""
    due(local, 4)
    said = {"0": Deletion.CHANGED, "1": Deletion.LOCKED, "2": Deletion.GONE}

    def as_said(really: Act, writer: LocalWriter, seen: Seen) -> Deletion:
        number = next(each for each in "0123" if f"{int(each):024}" in seen.key)
        return said[number] if number in said else really(writer, seen)

    weak = replace(honours, delete=False)
    deleting(monkeypatch, as_said, honours=weak)
    done = local.apply("due.plan", "--approve-deletes", "4", "--workers", "1", expect=None)
    (gone,) = [line["of"] for line in local.journal() if line["event"] == "deleted"]
    assert (done["deleted"], gone["weak"], gone["asset"]) == (1, True, f"{3:024}")
    assert sorted(each["asset_id"][-1] for each in done["skipped"]) == ["0", "1", "2"]


def test_a_batch_that_was_not_answered_is_told_by_what_lies_there(
    local: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    due(local, 3)
    deleting(monkeypatch, lambda really, writer, seen: really(writer, seen))

    def unanswered(self: LocalWriter, batch: Sequence[Seen]) -> list[Deletion | StoreFailure]:
        for seen in batch[:2]:
            self.delete(seen)
        raise StoreFailed("no answer")

    monkeypatch.setattr(LocalWriter, "delete_batch", unanswered)
    done = local.apply("due.plan", "--approve-deletes", "3", expect=None)
    assert (done["deleted"], len(done["failed"]), done["skipped"]) == (2, 1, [])
    told = [line["of"]["asset"] for line in local.journal() if line["event"] == "deleted"]
    assert len(set(told)) == 2


def test_deletes_that_rest_on_a_store_that_cannot_be_locked_are_left_and_told_once(
    local: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A witness that anybody may take at the same moment is none."""
    due(local, 2)
    create = LocalWriter.create

    def refused(self: LocalWriter, key: str, *more: Any) -> Any:
        if self.name == "vault" and key.startswith("_retainer/"):
            raise StoreRefused(f"write vault:{key}: 403", store="vault")
        return create(self, key, *more)

    monkeypatch.setattr(LocalWriter, "create", refused)
    done = local.apply("due.plan", "--approve-deletes", "2", expect=None)
    assert (done["deleted"], done["failed"], done["left_deletes"]) == (0, [], 2)
    (told,) = [each for each in done["said"] if "none of them is made" in each]
    assert told.startswith("2 deletes rest on vault, and none of them is made: ")
    assert len(local.content("uploads")) == 3


def test_a_batch_that_a_store_refuses_is_the_last_one_there(
    local: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    due(local, REFUSALS + 1)

    def refused(_really: Act, _writer: LocalWriter, _seen: Seen) -> Deletion:
        raise StoreRefused("delete: 403", store="uploads")

    deleting(monkeypatch, refused)
    done = local.apply("due.plan", "--approve-deletes", str(REFUSALS + 1), expect=None)
    assert (done["deleted"], list(done["resting"])) == (0, ["uploads"])
