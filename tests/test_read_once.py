"""What is approved is what runs, and a plan, a snapshot and a catalog part are data (issue 11, read
once)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
import records
from fault_proxy import FaultProxy
from project import ROOM, Project, git, pairs, video

from retainer import applying
from retainer.apply import deletes as running
from retainer.apply import lately
from retainer.errors import PlanRefused
from retainer.planfile import actions, overview, read_plan
from retainer.ports import AssetPage

A, B, C = "a" * 24, "b" * 24, "c" * 24


@pytest.fixture
def due(local: Project) -> Project:
    local.uploaded(A, video(1))
    local.uploaded(B, video(2), age=timedelta(days=2))
    local.plan("copies.plan")
    local.apply("copies.plan")
    local.hosted(C, video(3))
    assert local.plan()["header"]["deletes"] == 1
    return local


HOLD = [{"id": "LIT-1", "why": "court", "match": {"asset_id": A}, "in": "vault"}]


def policy_with(**more: Any) -> dict[str, Any]:
    from project import POLICY

    return POLICY | more


def test_a_new_plan_under_the_same_name_does_not_make_a_new_hold_count_for_nothing(
    due: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete_all = running.Deletes.make

    def meanwhile(self: running.Deletes, each: running.Each) -> None:
        due.write(policy_with(holds=HOLD))
        due.plan("p.plan")
        delete_all(self, each)

    monkeypatch.setattr(running.Deletes, "make", meanwhile)
    done = due.apply("p.plan", "--approve-deletes", "1")
    assert [trouble["cause"] for trouble in done["skipped"]] == [
        "the hold LIT-1 is newer than the plan and may cover it"
    ]
    assert len(due.content("uploads")) == 2


def test_a_hold_that_is_added_while_deletes_go_on_holds(
    due: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lately, "LOOK_EVERY", timedelta(0))
    last_look = running.Deletes._last_look_before

    def then_a_hold(self: running.Deletes) -> str | None:
        found = last_look(self)
        due.write(policy_with(holds=HOLD))
        return found

    monkeypatch.setattr(running.Deletes, "_last_look_before", then_a_hold)
    due.apply("p.plan", "--approve-deletes", "1")
    assert len(due.content("uploads")) == 2


def test_a_plan_is_opened_once(due: Project) -> None:
    (due.root / "today.plan").symlink_to("p.plan")
    plan = read_plan(due.root / "today.plan")
    (due.root / "today.plan").unlink()
    (due.root / "p.plan").write_bytes(b"another plan")
    assert len(list(actions(plan, "delete"))) == 1
    assert overview(plan).deletes[0].count == 1
    assert applying._beside(plan, []) == {}


def test_plans_with_a_star_in_their_name_are_one_file_each(due: Project) -> None:
    due.plan("q*.plan")
    due.plan("qz.plan", "--only", "{type: chat}")
    shown = json.loads(due.run("show", "q*.plan", "--format", "json").stdout)
    assert sum(row["decision"] == "copy" for row in shown["rows"]) == shown["header"]["copies"] == 1


def test_the_default_plan_has_a_name_of_its_own_and_a_link_leads_to_it(due: Project) -> None:
    state = due.root / ".retainer"
    due.run("plan")
    first = str((state / "last.plan").readlink())
    due.hosted("d" * 24, video(4))
    told = due.run("plan").stdout
    second = str((state / "last.plan").readlink())
    assert first != second and (state / first).exists() and (state / second).exists()
    assert f"retainer apply .retainer/{second}" in told
    assert read_plan(state / "last.plan").header.plan_id == Path(second).stem


IN_THE_WAY: dict[str, Callable[[Path], Path]] = {
    "a policy": lambda root: root / "policies" / "rules.yaml",
    "a new file under policies": lambda root: root / "policies" / "new.plan",
    "the settings": lambda root: root / "retainer.yaml",
    "the journal": lambda root: root / ".retainer" / "journal" / "00000001.jsonl",
    "a new file in the state folder": lambda root: root / ".retainer" / "stores.new",
    "a snapshot": lambda root: root / ".retainer" / "facts.duckdb",
    "a folder": lambda root: root,
    "a device": lambda root: Path("/dev/null"),
    "somebody's file": lambda root: made(root / "notes.plan", b"important"),
    "a link that leads nowhere": lambda root: linked(root / "link.plan"),
}


def made(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def linked(path: Path) -> Path:
    path.symlink_to("/nowhere/at/all")
    return path


@pytest.mark.parametrize("place", IN_THE_WAY.values(), ids=IN_THE_WAY)
def test_a_plan_replaces_nothing_but_an_older_one(
    due: Project, place: Callable[[Path], Path]
) -> None:
    path = place(due.root)
    before = path.read_bytes() if path.is_file() else None
    asked = due.api.requests if hasattr(due.api, "requests") else None
    due.run("plan", "--out", str(path), expect=64)
    assert (path.read_bytes() if path.is_file() else None) == before
    assert asked == (due.api.requests if hasattr(due.api, "requests") else None)
    due.run("facts", "--out", str(path), expect=0 if path.name == "facts.duckdb" else 64)


def test_a_snapshot_and_a_plan_replace_older_ones(due: Project) -> None:
    for _ in range(2):
        due.run("facts", "--out", "f.duckdb")
        due.plan("again.plan")


def test_plans_that_are_made_at_once_do_not_meet(due: Project) -> None:
    import subprocess

    made = [
        subprocess.Popen(
            due.command("plan", "--out", f"{number}.plan"),
            cwd=due.root,
            env=due.env(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for number in range(3)
    ]
    assert [process.wait() for process in made if process.communicate()] == [0, 0, 0]
    assert not [
        path.name for path in (due.root / ".retainer").iterdir() if path.name.startswith(".")
    ]


# ── data ──────────────────────────────────────────────────────────────────────────────────────────


def spoilt(due: Project, *statements: str) -> None:
    due.run("facts", "--out", "f.duckdb")
    connection = duckdb.connect(str(due.root / "f.duckdb"))
    for statement in statements:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    "statements",
    [
        (
            "ALTER TABLE assets RENAME TO t",
            "CREATE VIEW assets AS SELECT * REPLACE ((SELECT content FROM read_text('{secret}')) "
            "AS room_id) FROM t",
        ),
        ("CREATE VIEW more AS SELECT 1",),
        (
            "ALTER TABLE listings RENAME TO t",
            "CREATE TABLE listings AS SELECT * EXCLUDE (note) FROM t",
            "CREATE TABLE x (a INT, b INT GENERATED ALWAYS AS (a + 1))",
        ),
        ("ALTER TABLE assets ALTER size TYPE VARCHAR",),
        ("DROP TABLE copies",),
        ("UPDATE about SET format = 99",),
        ("UPDATE assets SET metadata = '{{'", "UPDATE assets SET asset_id = NULL"),
    ],
    ids=[
        "a view of a file",
        "another view",
        "a column worked out",
        "another kind",
        "a table missing",
        "another format",
        "damage",
    ],
)
def test_a_snapshot_is_plain_data(
    due: Project, tmp_path: Path, statements: tuple[str, ...]
) -> None:
    (tmp_path / "secret").write_text("TOP-SECRET")
    spoilt(due, *(each.format(secret=tmp_path / "secret") for each in statements))
    done = due.run(
        "plan", "--facts", "f.duckdb", "--out", "x.plan", "--format", "json", expect=None
    )
    assert done.returncode in (1, 0) and "TOP-SECRET" not in done.stdout + done.stderr
    assert done.returncode == 0 or "could not go on" not in done.stderr


def test_a_database_opens_nothing_that_it_was_not_told_of(tmp_path: Path) -> None:
    from retainer.database import connect

    (tmp_path / "secret.csv").write_text("a\n1\n")
    with connect() as connection:
        for query in (
            f"FROM read_csv('{tmp_path}/secret.csv')",
            f"ATTACH '{tmp_path}/x.db'",
            f"COPY (SELECT 1) TO '{tmp_path}/x.csv'",
            "SET enable_external_access = true",
            "INSTALL httpfs",
        ):
            with pytest.raises(duckdb.Error):
                connection.execute(query)


def forged(
    due: Project, header: Callable[[dict[str, Any]], dict[str, Any]] | None = None, *statements: str
) -> Path:
    """A plan with another header and other rows, and the digest that docs/reference/plan-file.md asks for: no
    secret is needed for that."""
    import hashlib

    connection = duckdb.connect()
    source = due.root / "p.plan"
    raw = connection.execute(
        f"SELECT value FROM parquet_kv_metadata('{source}') WHERE key = 'retainer.plan'"
    ).fetchone()
    told = json.loads(bytes(raw[0])) if raw else {}
    told = (header or dict)(told)
    connection.execute(f"CREATE TABLE t AS FROM read_parquet('{source}')")
    for statement in statements:
        connection.execute(statement)
    text = json.dumps(told | {"digest": "0" * 64}, sort_keys=True, separators=(",", ":")).replace(
        "'", "''"
    )
    target = due.root / "forged.plan"
    connection.execute(
        f"COPY t TO '{target}' (FORMAT parquet, KV_METADATA {{'retainer.plan': '{text}'}})"
    )
    content = bytearray(target.read_bytes())
    place = content.rfind(b"0" * 64)
    content[place : place + 64] = hashlib.sha256(content).hexdigest().encode()
    target.write_bytes(content)
    return target


def objects(**more: Any) -> str:
    first = "action->>'$.objects[0]"
    made = (
        f"json_object('key', {first}.key', 'size', ({first}.size')::BIGINT, 'version', "
        f"{first}.version')"
    )
    patch = json.dumps(more).replace("'", "''")
    return (
        "UPDATE t SET action = json_merge_patch(action::JSON, json_object('objects', "
        f"[json_merge_patch({made}, '{patch}'::JSON)])) WHERE decision = 'delete'"
    )


def aimed(target: str) -> str:
    return (
        "UPDATE t SET action = json_merge_patch(action::JSON, "
        f"'{json.dumps({'target': target})}') WHERE decision = 'copy'"
    )


FORGED: dict[str, tuple[Any, tuple[str, ...]]] = {
    "as it was": (None, ()),
    "a rule that deletes nothing": (
        None,
        ("UPDATE t SET rule = 'calls' WHERE decision = 'delete'",),
    ),
    "a rule that is not there": (None, ("UPDATE t SET rule = 'nobody' WHERE decision = 'delete'",)),
    "a key under _retainer/": (None, (objects(key="_retainer/catalog/x.parquet"),)),
    "a key out of the store": (None, (objects(key="../../outside.txt"),)),
    "a key from the root": (None, (objects(key="/etc/passwd"),)),
    "a key with NUL": (None, (objects(key="a\0b"),)),
    "a key that is a number": (None, (objects(key=5),)),
    "a size that is text": (None, (objects(size="x"),)),
    "another count": (lambda header: header | {"deletes": 0}, ()),
    "another store": (None, ("UPDATE t SET store = 'nowhere' WHERE decision = 'delete'",)),
    "a target under _retainer/": (None, (aimed("_retainer/lock"),)),
    "a target of a folder alone": (None, (aimed("/"),)),
    "no target": (None, (aimed(""),)),
    "a target of another recording": (None, (aimed("room-composite/2026/01/01/x/ffff/Rec.mp4"),)),
    "a copy into uploads": (None, ("UPDATE t SET store = 'uploads' WHERE decision = 'copy'",)),
    "numbers twice": (None, ("UPDATE t SET n = 0 WHERE n IS NOT NULL",)),
    "an action that is none": (None, ("UPDATE t SET action = '{' WHERE decision = 'delete'",)),
    "no action": (None, ("UPDATE t SET action = NULL WHERE decision = 'delete'",)),
    "an unknown decision": (None, ("UPDATE t SET decision = 'burn' WHERE decision = 'delete'",)),
    "a column of another kind": (None, ("ALTER TABLE t ALTER until TYPE VARCHAR",)),
    "a column less": (None, ("ALTER TABLE t DROP COLUMN action",)),
    "no moment": (lambda header: header | {"as_of": "soon"}, ()),
    "a header that is a list": (lambda header: {"items": ["x"]}, ()),
}


@pytest.mark.parametrize("header, statements", FORGED.values(), ids=FORGED)
def test_what_a_forged_plan_claims_is_checked_before_anything_is_done(
    due: Project, header: Any, statements: tuple[str, ...]
) -> None:
    before = due.content("uploads"), due.content("vault")
    path = forged(due, header, *statements)
    if not (header or statements):
        assert due.apply(path.name, "--approve-deletes", "1")["deleted"] == 1
        return
    done = due.run("apply", path.name, "--approve-deletes", "1", expect=None)
    assert done.returncode in (5, 64), done
    assert "could not go on" not in done.stderr
    assert (due.content("uploads"), due.content("vault")) == before


def test_a_plan_that_is_no_file_is_refused(due: Project, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/zero"), tmp_path / "none"):
        with pytest.raises(PlanRefused):
            read_plan(path)


def test_limits_are_worked_out_from_the_rows_whatever_the_header_says(due: Project) -> None:
    due.limits = {"count": 0, "percent": 100, "bytes": "1TB"}
    due.write()
    plan = due.plan("p.plan", expect=4)
    assert plan["header"]["deletes"] == 1
    path = forged(due, lambda header: header | {"limits": []})
    assert due.apply(path.name, "--approve-deletes", "1", expect=4)["deleted"] == 0


# ── two facts are no fact; names ──────────────────────────────────────────────────────────────────


def test_what_differs_between_two_rows_of_one_asset_is_not_known(local: Project) -> None:
    asset = local.uploaded(A, video(1))
    local.uploaded(B, video(2), age=timedelta(days=2))
    local.plan()
    local.apply()
    twice = dict(asset) | {"session_id": "5" * 24}
    local.api.assets_twice = twice  # type: ignore[attr-defined]
    from retainer.sources.api import HmsApi

    listed = HmsApi.assets

    def doubled(self: HmsApi, kind: str, start: str | None = None) -> Iterator[AssetPage]:
        yield from listed(self, kind, start)
        if kind == "room-composite":
            yield AssetPage(start, [twice])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HmsApi, "assets", doubled)
        local.write(
            policy_with(
                holds=[{"id": "H", "why": "w", "match": {"session_id": "5" * 24}, "in": "vault"}]
            )
        )
        plan = local.plan("q.plan")
    assert pairs(plan)[A, "uploads"] == "blocked"
    assert "two different sets of facts" in json.dumps(plan["header"]["sources"])


@pytest.mark.parametrize("held_by", ["acme-board", "renamed"])
def test_a_renamed_room_is_still_held_and_is_told(local: Project, held_by: str) -> None:
    local.api.add_room({"id": ROOM, "name": "acme-board", "template": "t"})
    hold = [{"id": "LIT-1", "why": "court", "match": {"room": held_by}, "in": "vault"}]
    local.write(
        policy_with(holds=[{"id": "X", "why": "w", "match": {"room": "nobody"}, "in": "vault"}])
    )
    local.uploaded(A, video(1))
    local.uploaded(B, video(2), age=timedelta(days=2))
    local.plan()
    local.apply()
    local.api.add_room({"id": ROOM, "name": "renamed", "template": "t"})
    local.write(policy_with(holds=hold))
    plan = local.plan("q.plan")
    assert pairs(plan)[A, "uploads"] == "blocked"
    assert [(each["room_id"], each["what"]) for each in plan["header"]["renamed"]] == [
        (ROOM, "room")
    ]
    told = " ".join(local.run("show", "q.plan").stdout.split())
    assert f"The room {ROOM} was seen under several names" in told and "acme-board" not in told
    assert "`acme-board`, `renamed`" in " ".join(local.run("plan", "--names").stdout.split())


def test_a_hold_that_covers_nothing_is_told_first(due: Project) -> None:
    due.write(
        policy_with(
            holds=[{"id": "LIT-9", "why": "w", "match": {"asset_id": A.upper()}, "in": "vault"}]
        )
    )
    told = due.run("plan").stdout
    assert "! The hold LIT-9 (policies/rules.yaml" in told.split("\nDeletes")[0]
    (item,) = [
        each
        for each in json.loads(due.run("plan", "--format", "json").stdout)["header"]["items"]
        if each["id"] == "LIT-9"
    ]
    assert (item["matches"], item["may_match"]) == (0, 0)


def test_a_hold_by_a_name_in_another_unicode_form_holds(local: Project) -> None:
    local.api.add_room({"id": ROOM, "name": "Cafe\u0301", "template": "t"})
    local.write(
        policy_with(holds=[{"id": "H", "why": "w", "match": {"room": "Caf\u00e9"}, "in": "vault"}])
    )
    local.uploaded(A, video(1))
    local.plan()
    local.apply()
    assert pairs(local.plan("q.plan"))[A, "uploads"] == "blocked"


# ── a copy remembers its source ───────────────────────────────────────────────────────────────────


def overwrite(project: Project, name: str, content: bytes) -> None:
    path = Path(project.stores["uploads"].prefix) / f"beam/{ROOM}/Rec-{name}.mp4"
    path.write_bytes(content)


@pytest.mark.parametrize("grown", [0, 700])
def test_what_was_overwritten_after_its_copy_is_copied_beside_before_it_goes(
    due: Project, grown: int
) -> None:
    newest = video(77, 3000 + grown)
    overwrite(due, A, newest)
    if grown:
        path = due.stores["uploads"].base + f"beam/{ROOM}/Rec-{A}.mp4"
        due.api.add_asset(
            due._asset(A, newest, timedelta(days=60), "room-composite", path, {}),
            newest,
            hosted=False,
        )
    plan = due.plan("q.plan")
    assert pairs(plan)[A, "uploads"] == "blocked" and plan["header"]["deletes"] == 0
    assert "overwritten in an upload bucket" in " ".join(due.run("show", "q.plan").stdout.split())
    assert due.apply("q.plan")["copied"] == 2
    assert {video(1), newest} <= set(due.content("vault").values())
    after = due.plan("r.plan")
    assert pairs(after)[A, "uploads"] == "delete" and after["header"]["copies"] == 0
    assert due.apply_all("r.plan", after)["deleted"] == 1
    assert due.plan("s.plan")["header"]["copies"] == 0


def test_a_required_copy_that_was_skipped_since_its_source_changed_is_no_success(
    due: Project,
) -> None:
    due.uploaded("d" * 24, video(4), age=timedelta(days=3))
    due.plan("q.plan")
    overwrite(due, "d" * 24, video(5))
    done = due.apply("q.plan", expect=7)
    assert (done["changed_copies"], done["finished"]) == (1, False)


def test_a_keep_in_a_bucket_that_100ms_fills_is_never_copied_to(local: Project) -> None:
    local.write(
        {
            "version": 1,
            "rules": [
                {
                    "id": "k",
                    "match": "all",
                    "keep": [{"in": "uploads", "for": "1y"}, {"in": "vault", "for": "30d"}],
                }
            ],
        }
    )
    local.hosted(A, video(1))
    local.hosted(B, video(2), age=timedelta(days=9))
    plan = local.plan()
    assert (pairs(plan)[A, "uploads"], pairs(plan)[B, "uploads"]) == ("waiting", "lost")
    assert local.apply()["copied"] == 2


# ── verify ────────────────────────────────────────────────────────────────────────────────────────


def test_verify_sees_what_is_missing_and_what_is_another_object(due: Project) -> None:
    due.apply("p.plan", "--approve-deletes", "1")
    kept = sorted(Path(due.stores["vault"].prefix).rglob("*.mp4"))
    kept[0].unlink()
    kept[1].write_bytes(b"x" * 10)
    census = json.loads(due.run("verify", "vault", "--format", "json", expect=1).stdout)
    assert (len(census["missing"]), len(census["replaced"]), census["broken"]) == (1, 1, [])
    assert "! missing: vault:" in due.run("verify", "vault", expect=1).stdout


def test_what_apply_deleted_is_not_missed(due: Project) -> None:
    due.write(
        {
            "version": 1,
            "rules": [
                {
                    "id": "raw",
                    "match": {"asset_id": A},
                    "keep": [{"in": "vault", "for": "2d"}],
                    "then": "delete",
                },
                {
                    "id": "calls",
                    "match": {"not": {"asset_id": A}},
                    "keep": [{"in": "vault", "for": "2y"}],
                },
            ],
        }
    )
    plan = due.plan("q.plan")
    assert due.apply_all("q.plan", plan)["deleted"] == 1
    assert json.loads(due.run("verify", "vault", "--format", "json").stdout)["missing"] == []
    records.remove(due.root / ".retainer")
    assert json.loads(due.run("verify", "vault", "--format", "json").stdout)["missing"] == []


# ── clocks, credentials, refusals ─────────────────────────────────────────────────────────────────


def test_a_clock_that_100ms_contradicts_deletes_nothing_from_folders(
    due: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retainer.cli import process

    clock = process._clock
    monkeypatch.setattr(process, "_clock", lambda: clock() + timedelta(days=3000))
    plan = due.plan("q.plan", expect=4)
    assert "clock: this machine's was 3,000 days off that of 100ms" in plan["header"]["held_back"]
    monkeypatch.setattr(process, "_clock", lambda: clock() + timedelta(minutes=6))
    done = due.apply("p.plan", "--approve-deletes", "1", expect=7)
    assert done["deleted"] == 0 and "6 minutes off that of 100ms" in done["said"][0]


@pytest.mark.slow
def test_where_100ms_cannot_be_asked_for_its_time_nothing_is_deleted(due: Project) -> None:
    due.api.__exit__(None, None, None)
    due.impatient = True
    done = due.apply("p.plan", "--approve-deletes", "1", expect=7)
    assert done["deleted"] == 0 and any(
        "the time of 100ms is not known" in sentence for sentence in done["said"]
    )


def test_a_clock_that_is_behind_the_newest_file_of_a_folder_deletes_nothing(due: Project) -> None:
    future = Path(due.stores["uploads"].prefix) / "future.mp4"
    future.write_bytes(b"x")
    then = future.stat().st_mtime + 3600
    os.utime(future, (then, then))
    assert [
        reason.partition(":")[0] for reason in due.plan("q.plan", expect=4)["header"]["held_back"]
    ] == ["clock"]


def test_copies_between_stores_need_no_credentials_of_100ms(
    due: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    due.uploaded("d" * 24, video(4), age=timedelta(days=3))
    due.plan("q.plan")
    monkeypatch.setattr(Project, "env", lambda self: {"HMS_ACCESS_KEY": "", "HMS_SECRET": ""})
    done = due.apply("q.plan", expect=11)
    assert done["copied"] == 1 and done["resting"]["hosted"]["credentials"]


def test_a_store_whose_credentials_are_refused_rests_at_once(
    seaweedfs: str, tmp_path: Path, api: Any
) -> None:
    from fault_proxy import Fault
    from project import make_project

    with FaultProxy(seaweedfs) as proxy:
        project = make_project(tmp_path / "project", api, "seaweedfs", proxy.url)
        for number in range(100):
            project.hosted(f"{number:024x}", video(number))
        project.plan()
        body = 403
        proxy.faults.append(Fault("PUT", "room-composite", status=body))
        before = len(api.requests) if hasattr(api, "requests") else 0
        done = project.apply("p.plan", expect=7)
        assert (
            done["copied"] == 0 and len(done["failed"]) + done["resting"]["vault"]["actions"] == 100
        )
        assert done["resting"]["vault"]["actions"] >= 30
        assert before == 0 or len(api.requests) - before < 160, "where 200 would bring them all"


def test_one_key_that_xml_cannot_hold_does_not_fail_its_batch(
    moto: str, tmp_path: Path, api: Any
) -> None:
    import servers
    from conftest import make_store, make_writer

    store = make_store("moto", moto, tmp_path)
    writer = make_writer(store)
    seen = [
        writer.create(f"a/{name}.mp4", iter([b"x"]), 1, {}, "video/mp4").seen
        for name in ("one", "two")
    ]
    asked: list[Any] = []
    original = writer._deleted_together  # type: ignore[attr-defined]
    writer._deleted_together = lambda batch: (
        asked.append([each.key for each in batch]),
        original(batch),
    )[1]  # type: ignore[attr-defined]
    writer._deleted_alone = lambda each: asked.append(each.key) or writer.delete(seen[0])  # type: ignore[attr-defined]
    odd = type(seen[0])("a/od\x02d.mp4", 1, "v")
    outcomes = writer.delete_batch([odd, seen[1]])
    assert asked == [["a/two.mp4"], "a/od\x02d.mp4"] and len(outcomes) == 2
    assert servers is not None


def test_errors_nobody_foresaw_are_a_sentence_and_their_traceback_a_file(
    local: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retainer import planning

    def fails(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("s3cr3t words")

    monkeypatch.setattr(planning, "make_plan", fails)
    done = local.run("plan", expect=1)
    assert (
        "could not go on: ZeroDivisionError" in done.stderr
        and "s3cr3t" not in done.stderr
        and "Traceback" not in done.stderr
    )
    (told,) = (local.root / ".retainer").glob("error-*.txt")
    assert "ZeroDivisionError" in told.read_text() and told.stat().st_mode & 0o077 == 0


def test_a_plan_says_whether_its_policies_are_those_of_its_commit(local: Project) -> None:
    """Whatever else lies in the folder: facts, plans, the record."""
    git(local.root, "init", "--quiet")
    git(local.root, "add", "retainer.yaml", "policies")
    git(local.root, "commit", "--quiet", "--message", "policies")
    assert local.plan()["header"]["git_dirty"] is False
    with (local.root / "policies" / "rules.yaml").open("a") as rules:
        rules.write("# not committed\n")
    assert local.plan()["header"]["git_dirty"] is True


def test_a_copy_that_is_made_without_the_facts_of_its_plan_is_certain_of_no_metadata(
    local: Project,
) -> None:
    """A plan has the documented keys alone; a hold on another one may cover it."""
    local.hosted("b" * 24, video(1), metadata={"matter": "LIT-9"})
    local.plan()
    (local.root / ".retainer" / "facts.duckdb").unlink()
    local.apply()
    parts = Path(local.stores["vault"].prefix) / "_retainer" / "catalog" / "*.parquet"
    ((unknown,),) = duckdb.execute(f"SELECT not_known FROM '{parts}'").fetchall()
    assert "metadata" in unknown
