"""What was deleted and a bucket still has is brought back, and nothing else."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import servers
from conftest import endpoint_of, gcs_client
from hls import simple
from project import POLICY, Project, make_project, pairs, video

from retainer.demo.standin import StandIn

A, B = "a" * 24, "b" * 24
END: dict[str, Any] = {"version": 1, "rules": [{"id": "end", "match": "all", "at_most": "1d"}]}
KEEP: dict[str, Any] = {
    "version": 1,
    "rules": [{"id": "calls", "match": "all", "keep": [{"in": "vault", "for": "2y"}]}],
}


@pytest.fixture(params=["moto", "seaweedfs", "strict_gcs"])
def kept(request: pytest.FixtureRequest, tmp_path: Path, api: StandIn) -> Project:
    """A project whose stores lie in a bucket that keeps versions."""
    endpoint = endpoint_of(request.param, request)
    project = make_project(tmp_path / "project", api, request.param, endpoint)
    for name, store in project.stores.items():
        prefix = store.url.rpartition("/")[2] + name
        scheme = store.url.partition(":")[0]
        project.stores[name] = replace(store, url=f"{scheme}://lab-versioned/{prefix}")
    project.write(POLICY)
    return project


def deleted(project: Project) -> dict[str, bytes]:
    """Both copies of two recordings are gone from the vault; what lay there."""
    for name, content in {A: video(1), B: video(2)}.items():
        project.uploaded(name, content)
    project.write(KEEP)
    project.plan("copies.plan")
    project.apply("copies.plan")
    before = project.content("vault")
    assert len(before) == 2
    project.write(END)
    lifts = [f"empty:store:{name}" for name in project.stores]
    project.run("plan", "--out", "end.plan", *(word for each in lifts for word in ("--lift", each)))
    project.run("apply", "end.plan", "--approve-deletes", "4")
    assert not project.content("vault")
    project.write(KEEP)
    return before


def looked(project: Project, about: str, *words: str, expect: int = 0) -> list[dict[str, Any]]:
    done = project.run("restore", about, "--format", "json", *words, expect=expect)
    return list(json.loads(done.stdout)["copies"])


def states(copies: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    return {(each["asset_id"], each["store"]): each["state"] for each in copies}


def run_of(project: Project) -> str:
    return next(line["run"] for line in project.journal() if line["event"] == "deleted")


def test_all_that_a_run_deleted_comes_back_and_the_next_plan_finds_it_whole(kept: Project) -> None:
    before, run = deleted(kept), run_of(kept)
    text = " ".join(kept.run("restore", run).stdout.split())
    assert "4 copies" in text and f"retainer restore {run} --approve 4" in text
    assert not kept.content("vault")  # nothing was changed
    assert "4 copies can be" in kept.run("restore", run, "--approve", "3", expect=64).stderr
    assert not kept.content("vault")
    copies = looked(kept, run, "--approve", "4", "--ticket", "INC-42")
    assert set(states(copies).values()) == {"restored"}
    assert kept.content("vault") == before
    found = pairs(kept.plan("after.plan"))
    # Google gives an upload that came back another generation, as if it had been overwritten
    decided = "copy" if kept.stores["uploads"].scheme == "gs" else "keep"
    assert found[A, "vault"] == found[B, "vault"] == decided
    assert kept.run("audit", "verify").stdout.count("is whole") == 1
    told = kept.run("history", A).stdout
    assert "restored in vault" in told and "(INC-42)" in told
    assert set(states(looked(kept, run)).values()) == {"there"}
    kept.run("restore", run, "--approve", "1", expect=64)


def test_one_recording_comes_back_alone_and_its_rule_is_named(kept: Project) -> None:
    deleted(kept)
    kept.write(END)
    text = " ".join(kept.run("restore", A, "--approve", "2").stdout.split())
    assert "2 copies" in text and "came back" in text
    assert "end would have it deleted again: write a hold first" in text
    assert len(kept.content("vault")) == 1


def test_what_lies_there_by_now_is_not_written_over(kept: Project) -> None:
    before = deleted(kept)
    key = next(key for key in before if A in key)
    kept.writer("vault").create(key, iter([b"another"]), 7, {}, "video/mp4")
    found = states(looked(kept, run_of(kept)))
    assert (found[A, "vault"], found[B, "vault"]) == ("taken", "recoverable")
    kept.run("restore", run_of(kept), "--approve", "3", expect=7)
    assert kept.content("vault") == {**before, key: b"another"}


def test_a_recording_of_many_objects_comes_back_whole(kept: Project) -> None:
    kept.uploaded_vod(A, simple())
    kept.write(KEEP)
    kept.plan("copies.plan")
    kept.apply("copies.plan")
    before = kept.content("vault")
    assert len(before) > 3
    kept.write(END)
    kept.run("plan", "--out", "end.plan", "--lift", "empty:store:vault", expect=None)
    kept.run("plan", "--out", "end.plan", "--only", "all", *LIFTS, expect=None)
    kept.run("apply", "end.plan", "--approve-deletes", "2", expect=None)
    assert not kept.content("vault")
    kept.write(KEEP)
    assert states(looked(kept, A))[A, "vault"] == "recoverable"
    looked(kept, A, "--approve", str(len(looked(kept, A))))
    assert kept.content("vault") == before
    decided = "copy" if kept.stores["uploads"].scheme == "gs" else "keep"
    assert pairs(kept.plan("after.plan"))[A, "vault"] == decided


LIFTS = ("--lift", "empty:store:vault", "--lift", "empty:store:uploads")


def test_what_an_erasure_asked_for_stays_away(kept: Project) -> None:
    kept.uploaded(A, video(1))
    kept.uploaded(B, video(2))
    kept.write(KEEP)
    kept.plan("copies.plan")
    kept.apply("copies.plan")
    erasure = {"id": "DSR-17", "why": "x", "match": {"asset_id": A}, "requested": "2026-11-01"}
    kept.write(KEEP | {"erasures": [erasure]})
    kept.plan("erase.plan")
    kept.run("apply", "erase.plan", "--approve-deletes", "2")
    assert set(states(looked(kept, A, expect=1)).values()) == {"erased"}
    kept.run("restore", A, "--approve", "2", expect=64)


def test_a_folder_keeps_nothing_and_an_unknown_name_is_told(local: Project) -> None:
    deleted(local)
    assert set(states(looked(local, A, expect=1)).values()) == {"gone"}
    assert "knows of no delete of cellar" in local.run("restore", "cellar", expect=1).stdout
    local.run("restore", " ", expect=64)


def test_a_store_that_cannot_be_reached_hides_no_other(kept: Project) -> None:
    deleted(kept)
    url = kept.stores["uploads"].url
    settings = (kept.root / "retainer.yaml").read_text()
    (kept.root / "retainer.yaml").write_text(settings.replace(url, url.replace("lab-", "no-")))
    found = states(looked(kept, A))
    assert (found[A, "uploads"], found[A, "vault"]) == ("unknown", "recoverable")


def test_a_version_that_somebody_removed_is_gone(kept: Project) -> None:
    before = deleted(kept)
    key = next(key for key in before if A in key)
    store = kept.stores["vault"]
    if store.scheme == "s3":
        client = servers.s3_client(store.endpoint or "")
        found = client.list_object_versions(Bucket=store.bucket, Prefix=store.prefix + key)
        client.delete_object(
            Bucket=store.bucket, Key=store.prefix + key, VersionId=found["Versions"][0]["VersionId"]
        )
    else:
        bucket = gcs_client(store.endpoint or "").bucket(store.bucket)
        blobs = list(bucket.list_blobs(prefix=store.prefix + key, versions=True))
        bucket.delete_blob(blobs[0].name, generation=blobs[0].generation)
    expected = "recoverable" if store.scheme == "gs" else "gone"  # soft-deleted by then
    assert states(looked(kept, run_of(kept)))[A, "vault"] == expected


def test_nothing_is_said_to_come_back_from_a_record_that_is_gone(local: Project) -> None:
    deleted(local)
    shutil.rmtree(local.root / ".retainer" / "journal")
    local.run("restore", A, expect=1)
