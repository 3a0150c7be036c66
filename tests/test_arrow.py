"""The whole arrow on real servers, over the network, through the command line: plan, apply, plan,
apply, plan."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
import servers
from conftest import SERVERS, endpoint_of
from project import POLICY, Project, make_project, pairs, video

from retainer.demo.standin import StandIn


@pytest.fixture(params=list(SERVERS))
def project(request: pytest.FixtureRequest, tmp_path: Path, api: StandIn) -> Project:
    return make_project(
        tmp_path / "project", api, request.param, endpoint_of(request.param, request)
    )


def test_plan_apply_plan_apply_plan_ends_with_an_empty_plan(project: Project) -> None:
    hosted = {f"a{n:023x}": video(n) for n in range(1, 4)}
    old = {f"b{n:023x}": video(n + 10, 150_000 * n) for n in range(1, 4)}
    for name, content in hosted.items():
        project.hosted(name, content)
    for name, content in old.items():
        project.uploaded(name, content)
    project.uploaded("c" + "0" * 23, video(99), age=timedelta(days=3))

    first = project.plan("1.plan")
    assert (first["header"]["copies"], first["header"]["deletes"]) == (7, 0)
    assert {decision for (_, store), decision in pairs(first).items() if store == "uploads"} == {
        "blocked",
        "keep",
    }
    project.apply("1.plan")

    second = project.plan("2.plan")
    assert (second["header"]["copies"], second["header"]["deletes"]) == (0, 3)
    deletes = [row for row in second["rows"] if row["decision"] == "delete"]
    assert {row["asset_id"] for row in deletes} == set(old)
    assert all(row["witnesses"] and row["witnesses"][0]["store"] == "vault" for row in deletes)
    assert second["header"]["last_copies"] == 0
    done = project.apply_all("2.plan", second)
    assert done["deleted"] == 3

    third = project.plan("3.plan")
    assert (third["header"]["copies"], third["header"]["deletes"]) == (0, 0)
    vault = project.content("vault")
    by_asset = {key.split("/")[5]: content for key, content in vault.items()}
    assert by_asset == hosted | old | {"c" + "0" * 23: video(99)}
    assert len(project.content("uploads")) == 1


@pytest.mark.parametrize(
    ("source", "target"),
    [("seaweedfs", "strict_gcs"), ("strict_gcs", "seaweedfs"), ("local", "moto")],
)
def test_between_clouds_recordings_are_streamed(
    source: str, target: str, request: pytest.FixtureRequest, tmp_path: Path, api: StandIn
) -> None:
    project = make_project(
        tmp_path / "project",
        api,
        target,
        endpoint_of(target, request),
        uploads_server=source,
        uploads_endpoint=endpoint_of(source, request),
    )
    content = video(5, 17 << 20)
    project.uploaded("b" * 24, content)
    project.apply_all("p.plan", project.plan())
    assert (
        pairs(project.plan(expect=4))["b" * 24, "uploads"] == "delete"
    )  # it would empty the store
    plan = project.plan("p.plan", "--lift", "empty:store:uploads")
    project.apply_all("p.plan", plan)
    assert list(project.content("vault").values()) == [content]
    assert project.content("uploads") == {}


def test_what_the_api_has_forgotten_is_decided_from_the_catalog_as_before(
    project: Project, tmp_path: Path
) -> None:
    policy = POLICY | {
        "rules": [
            *POLICY["rules"],
            {"id": "room", "match": {"room": "sales-*"}, "keep": [{"in": "vault", "for": "5y"}]},
        ]
    }
    project.write(policy)
    project.api.add_room({"id": "60000000000000000000000a", "name": "sales-7", "template": "calls"})
    project.hosted("a" * 24, video(1), metadata={"num_layers": "4"})
    project.apply(
        "p.plan", *(["--approve-deletes", "0"] if project.plan()["header"]["deletes"] else [])
    )
    before = next(row for row in project.plan()["rows"] if row["store"] == "vault")
    with StandIn() as empty:
        project.api = empty
        project.write(policy)
        after = next(row for row in project.plan()["rows"] if row["store"] == "vault")
    ours = ("asset_id", "decision", "rule", "keep_until", "until", "created")
    assert before["rule"] == "room"
    assert {key: before.get(key) for key in ours} == {key: after.get(key) for key in ours}


def test_each_copy_carries_its_record(project: Project) -> None:
    project.hosted("a" * 24, video(1), metadata={"num_layers": "4"})
    project.plan()
    project.apply()
    writer = project.writer("vault")
    (copy,) = writer.list()
    look = writer.look(copy.key)
    assert look is not None and look.metadata is not None
    record = json.loads(look.metadata["retainer-record"])
    assert (record["asset_id"], record["type"], record["room_id"]) == (
        "a" * 24,
        "room-composite",
        "60000000000000000000000a",
    )
    (part,) = writer.list("_retainer/catalog/")
    (project.root / "part.parquet").write_bytes(b"".join(writer.read(part)))
    rows = duckdb.sql(
        "SELECT asset_id, key, object_size, version, length(sha256), metadata FROM "
        f"'{project.root}/part.parquet'"
    ).fetchall()
    assert rows == [("a" * 24, copy.key, copy.size, copy.version, 64, '{"num_layers": "4"}')]


def test_a_plan_needs_no_right_to_write(seaweedfs: str, tmp_path: Path, api: StandIn) -> None:
    project = make_project(tmp_path / "project", api, "seaweedfs", seaweedfs)
    project.hosted("a" * 24, video(1))
    project.environment = {
        "AWS_ACCESS_KEY_ID": servers.READ_ONLY[0],
        "AWS_SECRET_ACCESS_KEY": servers.READ_ONLY[1],
    }
    assert project.plan()["header"]["copies"] == 1
    (failed,) = project.apply(expect=7)["failed"]
    assert "AccessDenied" in failed["cause"]


def test_a_snapshot_is_planned_from_without_credentials_or_connection(local: Project) -> None:
    local.hosted("a" * 24, video(1))
    live = local.plan("live.plan", "--as-of", "2026-11-22T00:00:00Z", expect=None)
    local.run("facts", "--out", "facts.duckdb")
    local.environment = {
        "HMS_ACCESS_KEY": "",
        "HMS_SECRET": "",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
    }
    asked = len(local.api.requests)
    offline = local.plan(
        "offline.plan", "--facts", "facts.duckdb", "--as-of", "2026-11-22T00:00:00Z", expect=None
    )
    assert pairs(live) == pairs(offline)
    assert len(local.api.requests) == asked


def test_the_same_facts_policies_and_moment_give_the_same_plan_byte_for_byte(
    local: Project,
) -> None:
    for n in range(40):
        local.hosted(f"a{n:023x}", video(n))
    local.run("facts", "--out", "facts.duckdb")
    moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    for name in ("one.plan", "two.plan"):
        local.plan(name, "--facts", "facts.duckdb", "--as-of", moment, expect=None)
    assert (local.root / "one.plan").read_bytes() == (local.root / "two.plan").read_bytes()
    in_order = (
        f"FROM read_parquet('{local.root}/one.plan', file_row_number = true) ORDER BY "
        "file_row_number"
    )
    rows = duckdb.sql(f"SELECT n, asset_id, store {in_order}").fetchall()
    quiet, numbered = (
        [row[1:] for row in rows if row[0] is None],
        [row[0] for row in rows if row[0] is not None],
    )
    assert rows[: len(quiet)] == [(None, *row) for row in sorted(quiet)]
    assert numbered == list(range(40))


def test_a_copy_of_a_dead_run_is_recognised_and_not_copied_again(project: Project) -> None:
    content = video(1)
    project.hosted("a" * 24, content)
    plan = project.plan()
    (row,) = [row for row in plan["rows"] if row["decision"] == "copy"]
    written = (
        project.writer("vault")
        .create(row["target"], iter([content]), len(content), {}, "video/mp4")
        .seen
    )
    assert pairs(project.plan())["a" * 24, "vault"] == "copy"
    assert project.apply()["copied"] == 1
    assert [seen.version for seen in project.writer("vault").list()] == [written.version]
    assert pairs(project.plan())["a" * 24, "vault"] == "keep"


def test_a_different_object_in_the_way_is_never_overwritten(project: Project) -> None:
    project.hosted("a" * 24, video(1))
    plan = project.plan()
    (row,) = [row for row in plan["rows"] if row["decision"] == "copy"]
    project.writer("vault").create(row["target"], iter([b"precious"]), 8, {}, "video/mp4")
    done = project.apply(expect=7)
    assert "a different object lies there" in done["failed"][0]["cause"]
    assert list(project.content("vault").values()) == [b"precious"]
