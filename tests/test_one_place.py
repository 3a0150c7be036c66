"""A place is one place: what a store is called, where it is mounted and whose recordings lie in it
(issue 11)."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from fault_proxy import FaultProxy
from project import Project, make_project, pairs, video

from retainer.demo.standin import StandIn
from retainer.model.identity import Identity

A, B = "a" * 24, "b" * 24
KEEP_AND_DROP = {
    "version": 1,
    "rules": [
        {"id": "long", "match": "all", "keep": [{"in": "vault", "for": "9y"}]},
        {"id": "short", "match": "all", "keep": [{"in": "old", "for": "30d"}], "then": "delete"},
    ],
}


@pytest.fixture
def kept(local: Project) -> Project:
    """Two recordings that 100ms hosts, each with a copy in the vault."""
    for number, name in enumerate((A, B)):
        local.hosted(name, video(number))
    local.plan()
    local.apply()
    return local


def vault(project: Project) -> Path:
    return Path(project.stores["vault"].prefix)


def test_one_bucket_behind_two_addresses_is_refused_before_anything_is_deleted(
    seaweedfs: str, tmp_path: Path, api: StandIn
) -> None:
    with FaultProxy(seaweedfs) as proxy:
        project = make_project(tmp_path / "project", api, "seaweedfs", seaweedfs)
        project.stores["old"] = replace(project.stores["vault"], name="old", endpoint=proxy.url)
        project.write(KEEP_AND_DROP)
        project.hosted(A, video(1))
        project.plan()
        done = project.run("apply", "p.plan", expect=10)
        assert "are one store, under two names" in done.stderr
        assert project.content("vault") == {}
        assert (
            "are one store, under two names"
            in project.run("plan", "--out", "q.plan", expect=10).stderr
        )


def test_a_store_has_one_identity_for_ever(kept: Project) -> None:
    first = Identity.read((vault(kept) / "_retainer" / "store.json").read_bytes())
    kept.plan("again.plan")
    assert Identity.read((vault(kept) / "_retainer" / "store.json").read_bytes()) == first
    assert (
        json.loads((kept.root / ".retainer" / "stores.json").read_text())[
            kept.stores["vault"].place
        ]
        == first.id
    )


def test_a_disk_that_is_not_mounted_is_an_unfinished_listing(kept: Project) -> None:
    vault(kept).rename(f"{vault(kept)}.disk")
    vault(kept).mkdir()
    plan = kept.plan("q.plan", expect=8)
    assert {decision for (_, store), decision in pairs(plan).items() if store == "vault"} == {
        "unknown"
    }
    assert "is the right disk mounted?" in next(
        source["note"] for source in plan["header"]["sources"] if source["name"] == "vault"
    )
    kept.apply("q.plan")
    assert list(vault(kept).iterdir()) == []


def test_a_disk_that_was_unmounted_after_the_plan_is_not_written_to(kept: Project) -> None:
    kept.hosted("c" * 24, video(3))
    assert kept.plan("q.plan")["header"]["copies"] == 1
    vault(kept).rename(f"{vault(kept)}.disk")
    vault(kept).mkdir()
    (failed,) = kept.apply("q.plan", expect=7)["failed"]
    assert "is not the store that it was" in failed["cause"]
    assert list(vault(kept).iterdir()) == []


def test_another_store_in_the_place_of_one_is_not_that_one(kept: Project) -> None:
    (vault(kept) / "_retainer" / "store.json").write_bytes(Identity.new(None).write())
    assert "another one lies there" in json.dumps(
        kept.plan("q.plan", expect=8)["header"]["sources"]
    )


def test_what_a_person_says_is_meant_is_taken(kept: Project) -> None:
    shutil.rmtree(vault(kept))
    vault(kept).mkdir()
    known = kept.root / ".retainer" / "stores.json"
    known.write_text(
        json.dumps(
            {
                place: each
                for place, each in json.loads(known.read_text()).items()
                if place != kept.stores["vault"].place
            }
        )
    )
    assert kept.plan("q.plan", expect=0)["header"]["copies"] == 2


def test_a_store_that_is_renamed_has_lost_nothing(kept: Project) -> None:
    kept.stores["archive"] = replace(kept.stores.pop("vault"), name="archive")
    kept.write(
        {
            "version": 1,
            "rules": [{"id": "calls", "match": "all", "keep": [{"in": "archive", "for": "2y"}]}],
        }
    )
    assert {
        decision
        for (_, store), decision in pairs(kept.plan("q.plan")).items()
        if store == "archive"
    } == {"keep"}


@pytest.mark.parametrize("server", ["seaweedfs", "strict_gcs"])
def test_a_bucket_that_is_renamed_has_lost_nothing(
    server: str, request: pytest.FixtureRequest, tmp_path: Path, api: StandIn
) -> None:
    from conftest import endpoint_of

    project = make_project(tmp_path / "project", api, server, endpoint_of(server, request))
    project.hosted(A, video(1))
    project.plan()
    project.apply()
    project.stores["archive"] = replace(project.stores.pop("vault"), name="archive")
    project.write(
        {
            "version": 1,
            "rules": [{"id": "calls", "match": "all", "keep": [{"in": "archive", "for": "2y"}]}],
        }
    )
    assert pairs(project.plan("q.plan"))[A, "archive"] == "keep"
    assert "\n= verified: 1 object" in project.run("verify", "archive").stdout


def test_a_folder_that_was_restored_with_its_times_has_lost_nothing(kept: Project) -> None:
    shutil.copytree(vault(kept), f"{vault(kept)}.new", copy_function=shutil.copy2)
    shutil.rmtree(vault(kept))
    Path(f"{vault(kept)}.new").rename(vault(kept))
    assert {
        decision for (_, store), decision in pairs(kept.plan("q.plan")).items() if store == "vault"
    } == {"keep"}
    assert "verified: 2 objects" in kept.run("verify", "vault").stdout


def test_a_folder_that_was_restored_without_its_times_is_not_lost_and_a_rebuild_mends_it(
    kept: Project,
) -> None:
    for path in vault(kept).rglob("*.mp4"):
        path.write_bytes(path.read_bytes())
    for name in (A, B):
        kept.hosted(name, video(0), age=timedelta(days=40))  # 100ms has dropped them
    assert {
        decision
        for (_, store), decision in pairs(kept.plan("q.plan", expect=8)).items()
        if store == "vault"
    } == {"uncatalogued"}
    assert "retainer catalog rebuild" in kept.run("show", "q.plan").stdout
    kept.run("catalog", "rebuild", "vault")
    assert {
        decision for (_, store), decision in pairs(kept.plan("r.plan")).items() if store == "vault"
    } == {"keep"}


def test_the_recordings_of_another_workspace_are_told_and_hold_the_deletes_back(
    local: Project,
) -> None:
    local.api.add_room({"id": "6" * 24, "name": "board", "customer_id": "production"})
    local.uploaded(A, video(1))
    local.uploaded(B, video(2), age=timedelta(days=2))
    local.plan()
    local.apply()
    path = vault(local) / "_retainer" / "store.json"
    identity = Identity.read(path.read_bytes())
    assert identity.customer == "production"
    path.write_bytes(replace(identity, customer="staging").write())
    plan = local.plan("q.plan", expect=4)
    assert (plan["header"]["deletes"], plan["header"]["held_back"]) == (1, ["workspace of vault"])
    assert "another workspace" in local.run("show", "q.plan").stdout
    local.apply("q.plan", "--approve-deletes", "1", expect=4)
    assert len(local.content("uploads")) == 2
    lifted = local.plan("r.plan", "--lift", "workspace:vault", expect=0)
    assert local.apply_all("r.plan", lifted)["deleted"] == 1


def test_a_store_inside_its_own_link_is_listed_without_it(kept: Project) -> None:
    (vault(kept) / "loop").symlink_to(".")
    (vault(kept) / "out").symlink_to("/etc")
    assert kept.plan("q.plan")["header"]["incomplete"] is False
    shutil.move(vault(kept) / "_retainer" / "catalog", vault(kept).parent / "elsewhere")
    (vault(kept) / "_retainer" / "catalog").symlink_to(vault(kept).parent / "elsewhere")
    assert "none is followed inside a store" in json.dumps(
        kept.plan("r.plan", expect=8)["header"]["sources"]
    )
