"""Catalogs that stay short, and that tell nothing of a person once a recording was erased."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from conftest import Lab
from project import POLICY, ROOM, Project, make_project, video

from retainer.apply import compact as compacting
from retainer.apply.compact import compact
from retainer.apply.record import write_part
from retainer.demo.standin import StandIn
from retainer.errors import RetainerError, StoreFailed
from retainer.model.catalog import CATALOG_PREFIX
from retainer.ports import Deletion, StoreWriter
from retainer.private import private_file

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
A, B, C = "a" * 24, "b" * 24, "c" * 24
SESSION = "5e55" + "e" * 20


def entry(number: int, at: datetime = NOW, **more: Any) -> dict[str, Any]:
    key = f"chat/2026/11/01/{ROOM}/{number:024x}/chat.csv"
    return {
        "store": "lab",
        "key": key,
        "object_size": 3,
        "version": f"v{number}",
        "sha256": "0" * 64,
        "copied_at": at.strftime("%Y-%m-%d %H:%M:%S.%f"),
        "asset_id": f"{number:024x}",
        "room": "dr-jekyll",
        "room_id": ROOM,
        "session_id": SESSION,
    } | more


def parts(store: StoreWriter) -> list[str]:
    return [seen.key for seen in store.list(CATALOG_PREFIX)]


def rows(store: StoreWriter) -> list[dict[str, Any]]:
    files = []
    for seen in store.list(CATALOG_PREFIX):
        files.append(private_file(".parquet"))
        files[-1].write_bytes(b"".join(store.read(seen)))
    names = ", ".join(f"'{file}'" for file in files)
    found = duckdb.sql(
        f"FROM read_parquet([{names}], union_by_name = true) ORDER BY key, copied_at"
    )
    return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]


def merged(store: StoreWriter, monkeypatch: pytest.MonkeyPatch, **erased: str) -> Any:
    monkeypatch.setattr(compacting, "MERGE_FROM", 2)
    return compact(store, "me", erased, NOW + compacting.MARKERS_FOR * 2, lambda: None)


def test_many_parts_become_one_with_the_newest_of_each_key(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = lab.writer
    write_part(store, [entry(1), entry(2)], NOW, "me")
    write_part(store, [entry(1, NOW + timedelta(hours=1), version="w1")], NOW, "me")
    write_part(store, [entry(3)], NOW, "me")
    before = parts(store)
    done = merged(store, monkeypatch)
    assert (done.before, done.erased, list(done.parts)) == (3, (), parts(store))
    assert not set(before) & set(parts(store))
    assert [row["version"] for row in rows(store)] == ["w1", "v2", "v3"]
    assert merged(store, monkeypatch) is None


def test_a_catalog_of_few_parts_is_left_alone(lab: Lab) -> None:
    store = lab.writer
    write_part(store, [entry(1)], NOW, "me")
    before = parts(store)
    assert compact(store, "me", {}, NOW, lambda: None) is None and parts(store) == before


def test_a_marker_goes_once_no_other_entry_needs_it(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = lab.writer
    write_part(store, [entry(1), entry(2)], NOW, "me")
    write_part(store, [entry(1, NOW + timedelta(hours=1), deleted=True)], NOW, "me")
    merged(store, monkeypatch)
    assert [(row["version"], row["deleted"]) for row in rows(store)] == [("v1", True), ("v2", None)]
    write_part(store, [entry(3)], NOW, "me")
    merged(store, monkeypatch)
    assert [row["version"] for row in rows(store)] == ["v2", "v3"]


def test_entries_of_another_store_stay_as_they_are(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = lab.writer
    write_part(store, [entry(1)], NOW, "another")
    write_part(store, [entry(1, NOW + timedelta(hours=1), version="w1")], NOW, "me")
    merged(store, monkeypatch, **{f"{1:024x}": "DSR-1"})
    assert [(row["store_id"], row["version"]) for row in rows(store)] == [
        ("another", "v1"),
        ("me", "w1"),
    ]


def test_of_an_erased_recording_an_id_a_size_and_a_checksum_are_left(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = lab.writer
    write_part(store, [entry(1), entry(2)], NOW, "me")
    write_part(store, [entry(1, NOW + timedelta(hours=1), deleted=True, sha256=None)], NOW, "me")
    done = compact(store, "me", {f"{1:024x}": "DSR-1"}, NOW, lambda: None)
    assert done is not None and done.erased == (f"{1:024x}",)
    erased, other = rows(store)
    told = {name: value for name, value in erased.items() if value is not None}
    assert told.keys() == {
        *("key", "store", "store_id", "asset_id", "object_size", "version", "sha256"),
        *("copied_at", "deleted"),
    }
    assert told["key"] == f"_retainer/erased/{1:024x}" and told["sha256"] == "0" * 64
    assert other["room"] == "dr-jekyll"
    content = b"".join(b"".join(store.read(seen)) for seen in store.list(CATALOG_PREFIX))
    assert f"{1:024x}/chat.csv".encode() not in content
    again = compact(store, "me", {f"{1:024x}": "DSR-1"}, NOW, lambda: None)
    assert again is None or len(rows(store)) == 2


def test_a_recording_of_which_something_is_still_there_is_not_forgotten(lab: Lab) -> None:
    store = lab.writer
    write_part(store, [entry(1), entry(1, key="another/key")], NOW, "me")
    write_part(store, [entry(1, NOW + timedelta(hours=1), deleted=True)], NOW, "me")
    assert compact(store, "me", {f"{1:024x}": "DSR-1"}, NOW, lambda: None) is None
    assert len(rows(store)) == 3


@pytest.mark.parametrize("what", ["damaged", "newer", "no part"])
def test_what_cannot_be_merged_whole_is_left_as_it_is(
    lab: Lab, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = lab.writer
    write_part(store, [entry(1)], NOW, "me")
    write_part(store, [entry(2)], NOW, "me")
    if what == "newer":
        file = private_file(".parquet")
        duckdb.sql("SELECT 'x' AS key, 1 AS flavour").write_parquet(str(file))
        content = file.read_bytes()
        from retainer.model.catalog import part_name

        name = part_name(content, NOW)
    else:
        content = b"PAR1"
        name = "notes.txt" if what == "no part" else f"20261129T120000Z-{'0' * 32}.parquet"
    store.create(CATALOG_PREFIX + name, iter([content]), len(content), {}, "text/plain")
    before = parts(store)
    with pytest.raises(StoreFailed, match="left as it is"):
        merged(store, monkeypatch)
    assert parts(store) == before


@pytest.mark.parametrize("at", range(6))
def test_a_stop_at_any_moment_loses_no_entry(
    at: int, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = lab.writer
    for number in range(3):
        write_part(store, [entry(number)], NOW, "me")
    calls: list[int] = []

    def check() -> None:
        calls.append(1)
        if len(calls) > at:
            raise RetainerError("stop")

    monkeypatch.setattr(compacting, "MERGE_FROM", 2)
    with pytest.raises(RetainerError):
        compact(store, "me", {}, NOW, check)
    assert {row["version"] for row in rows(store)} == {"v0", "v1", "v2"}
    merged(store, monkeypatch)
    assert [row["version"] for row in rows(store)] == ["v0", "v1", "v2"]


# ── in a run ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def erased(tmp_path: Path, api: StandIn) -> Project:
    """A is copied under its room's name, and then erased for DSR-1; B stays."""
    project = make_project(tmp_path / "project", api, "local", "")
    api.add_room({"id": ROOM, "name": "dr-jekyll", "template": "clinic"})
    project.hosted(A, video(1), session_id=SESSION)
    project.hosted(B, video(2))
    project.plan()
    project.apply()
    erasure = {"id": "DSR-1", "why": "Art. 17", "match": {"session_id": SESSION}}
    project.write(POLICY | {"erasures": [erasure]})
    return project


def catalog_bytes(project: Project, store: str) -> list[dict[str, Any]]:
    return rows(project.writer(store))


def test_an_erasure_reaches_the_catalog_and_the_caches(erased: Project) -> None:
    plan = erased.plan("e.plan")
    done = erased.apply("e.plan", "--approve-deletes", str(plan["header"]["deletes"]))
    assert done["deleted"] == 1
    assert any("tells no more of 1 erased recording" in said for said in done["said"])
    (left,) = (row for row in catalog_bytes(erased, "vault") if row["asset_id"] == A)
    assert left["deleted"] and left["sha256"] and left["object_size"]
    assert left["room"] is left["session_id"] is left["room_id"] is left["created_at"] is None
    erased.plan("f.plan")
    cached = sorted((erased.root / ".retainer" / "catalog" / "vault").iterdir())
    told = duckdb.sql(
        f"SELECT count(*) FROM read_parquet({[str(c) for c in cached]}) "
        f"WHERE session_id = '{SESSION}'"
    ).fetchall()
    assert told == [(0,)]
    (compacted,) = (each["of"] for each in erased.journal() if each["event"] == "compacted")
    assert compacted["erased"] == {A: "DSR-1"}
    assert json.loads(erased.run("verify", "vault", "--format", "json").stdout)["missing"] == []
    assert "deleted from vault for DSR-1" in erased.run("history", A).stdout
    erased.api._rows["recording-assets"].pop(A)  # 100ms has dropped it
    erased.api._listings.clear()
    erased.plan("g.plan")
    (request,) = json.loads(erased.run("erasure", "list", "--format", "json").stdout)["erasures"]
    assert (request["state"], request["recordings"], request["forgotten"]) == ("done", 0, 1)
    assert "the catalogs tell no more of them" in erased.run("erasure", "list").stdout
    assert "is whole" in erased.run("audit", "verify").stdout


def test_an_erasure_that_a_kill_cut_short_reaches_the_catalog_with_the_next_run(
    erased: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    import retainer.applying

    def broken(*_: Any) -> None:
        raise StoreFailed("the store went away")

    plan = erased.plan("e.plan")
    with monkeypatch.context() as patch:
        patch.setattr(retainer.applying, "compact", broken)
        done = erased.apply("e.plan", "--approve-deletes", str(plan["header"]["deletes"]))
    assert any("was not made shorter" in said for said in done["said"])
    erased.hosted(C, video(3))
    erased.plan("g.plan")
    erased.apply("g.plan")
    (left,) = (row for row in catalog_bytes(erased, "vault") if row["asset_id"] == A)
    assert left["session_id"] is None


def test_a_catalog_that_has_become_long_is_merged_at_the_end_of_a_run(
    local: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compacting, "MERGE_FROM", 3)
    counts = []
    for number in range(4):
        local.hosted(f"{number:024x}", video(number))
        local.plan()
        local.apply()
        counts.append(len(parts(local.writer("vault"))))
    assert counts == [1, 2, 1, 2]
    assert len(rows(local.writer("vault"))) == 4
    local.run("audit", "verify", "--stores")


def test_a_reader_whose_list_was_overtaken_reads_it_anew(
    erased: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retainer.inventory import collect
    from retainer.stores.local import LocalReader

    real, struck = LocalReader.read, []

    def read(self: LocalReader, seen: Any) -> Any:
        if seen.key.startswith(CATALOG_PREFIX) and not struck:
            struck.append(seen.key)
            store = erased.writer("vault")
            with monkeypatch.context() as patch:
                patch.setattr(compacting, "MERGE_FROM", 1)
                patch.setattr(LocalReader, "read", real)
                identity = json.loads(
                    (Path(erased.stores["vault"].prefix) / "_retainer" / "store.json").read_text()
                )["id"]
                write_part(store, [entry(9)], NOW, identity)
                compact(store, identity, {}, NOW, lambda: None)
        return real(self, seen)

    import shutil

    shutil.rmtree(erased.root / ".retainer" / "catalog")
    monkeypatch.setattr(LocalReader, "read", read)
    plan = erased.plan("h.plan")
    assert struck and not plan["header"]["incomplete"]
    assert collect.PART_BYTES > 0


@pytest.mark.slow
def test_a_plan_after_the_catalog_was_merged_is_the_same(
    erased: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        erased.hosted(f"{number:024x}", video(number))
        erased.plan(f"{number}.plan")
        erased.apply(f"{number}.plan", expect=None)
    before = erased.plan("x.plan")["rows"]
    monkeypatch.setattr(compacting, "MERGE_FROM", 2)
    store = erased.writer("vault")
    identity = json.loads(
        (Path(erased.stores["vault"].prefix) / "_retainer" / "store.json").read_text()
    )["id"]
    assert compact(store, identity, {}, datetime.now(UTC), lambda: None) is not None
    assert len(parts(store)) == 1
    assert erased.plan("z.plan")["rows"] == before


# ── what a hostile reader found ───────────────────────────────────────────────────────────────────


def test_a_name_that_a_room_once_had_still_holds_what_was_recorded_there(
    tmp_path: Path, api: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the entry of a deleted copy knew it, on a machine that has no facts of before."""
    import shutil

    project = make_project(tmp_path / "project", api, "local", "")
    api.add_room({"id": ROOM, "name": "dr-jekyll"})
    hold = {"id": "H", "why": "x", "match": {"room": "dr-jekyll"}, "in": "uploads"}
    project.write(POLICY | {"holds": [hold]})
    project.hosted(A, video(1))
    project.plan()
    project.apply()
    store = project.writer("vault")
    (known,) = (row for row in rows(store) if row["asset_id"] == A)
    (seen,) = (seen for seen in store.list() if seen.key == known["key"])
    store.delete(seen)
    marker = {name: known[name] for name in ("store", "key", "version", "asset_id")}
    at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    write_part(
        store, [marker | {"copied_at": at, "deleted": True}], datetime.now(UTC), known["store_id"]
    )
    api.add_room({"id": ROOM, "name": "mr-hyde"})
    project.uploaded(B, video(2), age=timedelta(days=60))
    project.write(POLICY | {"rules": POLICY["rules"][1:], "holds": [hold]})

    def decided(name: str) -> list[str]:
        (project.root / ".retainer" / "facts.duckdb").unlink(missing_ok=True)
        shutil.rmtree(project.root / ".retainer" / "catalog", ignore_errors=True)
        found = project.plan(name, expect=None)["rows"]
        return [
            row["decision"] for row in found if (row["asset_id"], row["store"]) == (B, "uploads")
        ]

    assert decided("x.plan") == ["keep"]
    for _ in range(2):
        monkeypatch.setattr(compacting, "MERGE_FROM", 1)
        assert compact(store, known["store_id"], {}, datetime.now(UTC), lambda: None) is not None
        assert decided("y.plan") == ["keep"]


class Locked:
    """A store in which what is there stays."""

    def __init__(self, store: StoreWriter) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def delete(self, seen: Any) -> Deletion:
        return Deletion.LOCKED


def test_an_erasure_is_not_told_where_the_old_parts_stay(lab: Lab) -> None:
    store: Any = Locked(lab.writer)
    write_part(store, [entry(1)], NOW, "me")
    write_part(store, [entry(1, NOW + timedelta(hours=1), deleted=True)], NOW, "me")
    with pytest.raises(StoreFailed, match="stays"):
        compact(store, "me", {f"{1:024x}": "DSR-1"}, NOW, lambda: None)
    assert any(row["room"] for row in rows(lab.writer))
