"""How copies lie in a store: class, key, tags, headers, locks; and sources that must be restored
before they can be read."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import hls
import pytest
import servers
from conftest import endpoint_of, gcs_client
from project import POLICY, Project, make_project, pairs, video

from retainer.demo.standin import StandIn
from retainer.errors import StoreFailed
from retainer.ports import Seen
from retainer.stores.s3 import S3Abilities

A, B = "a" * 24, "b" * 24


def made(
    server: str, request: pytest.FixtureRequest, root: Path, api: StandIn, **vault: Any
) -> Project:
    project = make_project(root / "project", api, server, endpoint_of(server, request))
    project.stores["vault"] = replace(project.stores["vault"], **vault)
    project.write()
    return project


def heads(project: Project, server: str, name: str = "vault") -> dict[str, dict[str, Any]]:
    """The HEAD of every copy in an S3 store, by the asset's id."""
    store = project.stores[name]
    client = servers.s3_client(store.endpoint or "")
    keys = [seen.key for seen in project.writer(name).list()]
    return {
        key.split("/")[5]: client.head_object(Bucket=store.bucket, Key=store.prefix + key)
        for key in keys
    }


@pytest.mark.parametrize("server", ["seaweedfs", "moto"])
def test_a_small_file_stays_in_the_standard_class_and_the_plan_says_why(
    server: str, request: pytest.FixtureRequest, tmp_path: Path, api: StandIn
) -> None:
    project = made(server, request, tmp_path, api, storage_class="GLACIER_IR")
    project.hosted(A, video(1, 200_000))
    project.hosted(B, video(2, 3000))
    text = " ".join(project.run("plan", "--out", "p.plan").stdout.split())
    assert (
        "1 of those to vault are under 131 kB and stay in the standard class: GLACIER_IR is billed "
        "as if they were that long" in text
    )
    project.apply()
    assert {
        name: head.get("StorageClass", "STANDARD") for name, head in heads(project, server).items()
    } == {A: "GLACIER_IR", B: "STANDARD"}
    assert set(pairs(project.plan()).values()) == {"keep", "lapses"}


@pytest.mark.parametrize("server", ["seaweedfs", "moto"])
def test_a_small_file_takes_the_class_too_where_the_store_is_told_so(
    server: str, request: pytest.FixtureRequest, tmp_path: Path, api: StandIn
) -> None:
    project = made(server, request, tmp_path, api, storage_class="GLACIER_IR", storage_class_from=0)
    project.hosted(B, video(2, 3000))
    project.plan()
    project.apply()
    assert heads(project, server)[B]["StorageClass"] == "GLACIER_IR"


@pytest.mark.parametrize("size", [3000, 9 << 20])
def test_tags_headers_and_keys_are_those_of_the_store(
    size: int, request: pytest.FixtureRequest, tmp_path: Path, api: StandIn
) -> None:
    tags = (("team", "legal + co"), ("kind", "évidence"))
    project = made(
        "moto",
        request,
        tmp_path,
        api,
        kms_key="alias/evidence",
        tags=tags,
        cache_control="private, no-store",
    )
    project.hosted(A, video(1, size))
    project.plan()
    project.apply()
    head = heads(project, "moto")[A]
    assert (head["ServerSideEncryption"], head["SSEKMSKeyId"], head["CacheControl"]) == (
        "aws:kms",
        "alias/evidence",
        "private, no-store",
    )
    store = project.stores["vault"]
    (seen,) = project.writer("vault").list()
    found = servers.s3_client(store.endpoint or "").get_object_tagging(
        Bucket=store.bucket, Key=store.prefix + seen.key
    )["TagSet"]
    assert {tag["Key"]: tag["Value"] for tag in found} == dict(tags)


@pytest.mark.parametrize("size", [3000, 9 << 20])
def test_class_headers_and_keys_hold_on_gcs_too(
    size: int, request: pytest.FixtureRequest, tmp_path: Path, api: StandIn
) -> None:
    project = made(
        "strict_gcs",
        request,
        tmp_path,
        api,
        storage_class="NEARLINE",
        cache_control="private",
        storage_class_from=0,
    )
    project.hosted(A, video(1, size))
    project.plan()
    project.apply()
    store = project.stores["vault"]
    (blob,) = (
        blob
        for blob in gcs_client(store.endpoint or "").list_blobs(store.bucket, prefix=store.prefix)
        if "_retainer" not in blob.name
    )
    assert (blob.storage_class, blob.cache_control) == ("NEARLINE", "private")


def test_a_store_of_another_clouds_scheme_works_through_an_s3_endpoint(
    request: pytest.FixtureRequest, tmp_path: Path, api: StandIn
) -> None:
    project = make_project(
        tmp_path / "project", api, "seaweedfs", endpoint_of("seaweedfs", request)
    )
    project.stores = {
        name: replace(store, url=store.url.replace("s3://", "oss://"))
        for name, store in project.stores.items()
    }
    project.write()
    key = "beam/Rec-1.mp4"
    replace_scheme = replace(
        project.stores["uploads"], url=project.stores["uploads"].url.replace("oss://", "s3://")
    )
    from conftest import make_writer

    make_writer(replace_scheme).create(key, iter([video(1)]), len(video(1)), {}, "video/mp4")
    asset = project._asset(
        A, video(1), timedelta(days=60), "room-composite", project.stores["uploads"].base + key, {}
    )
    api.add_asset(asset, None, hosted=False, readable=False)
    assert [row["source"] for row in project.plan()["rows"] if row["decision"] == "copy"] == [
        "uploads"
    ]
    assert project.apply()["copied"] == 1
    assert pairs(project.plan("next.plan", expect=None))[A, "vault"] == "keep"


# ── locks ─────────────────────────────────────────────────────────────────────────────────────────


def lock_bucket(server: str, request: pytest.FixtureRequest) -> str:
    name = "lab-locking"
    if server == "strict_gcs":
        client = gcs_client(endpoint_of(server, request))
        if client.lookup_bucket(name) is None:
            client.create_bucket(name, enable_object_retention=True)
        return name
    client = servers.s3_client(endpoint_of(server, request))
    if name not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    return name


@pytest.mark.parametrize("mode", ["governance", "compliance"])
@pytest.mark.parametrize("server", ["seaweedfs", "moto", "strict_gcs"])
def test_copies_are_locked_until_their_keep_is_over_and_the_plan_shows_the_date(
    server: str, mode: str, request: pytest.FixtureRequest, tmp_path: Path, api: StandIn
) -> None:
    project = made(server, request, tmp_path, api)
    vault = project.stores["vault"]
    project.stores["vault"] = replace(
        vault, url=vault.url.replace(vault.bucket, lock_bucket(server, request)), lock=mode
    )
    project.write()
    project.hosted(A, video(1))
    project.uploaded(B, video(2, 9 << 20))
    plan = project.plan()
    ends = {row["asset_id"]: row["keep_until"] for row in plan["rows"] if row["decision"] == "copy"}
    text = project.run("show", "p.plan").stdout
    assert f"vault locks 2 copies ({mode}), the last until {max(ends.values())[:10]}" in " ".join(
        text.split()
    )
    assert ("nobody can take that back" in " ".join(text.split())) is (mode == "compliance")
    assert "locked until" in text and ends[A][:10] in text
    assert project.apply()["copied"] == 2
    for seen in project.writer("vault").list():
        look = project.writer("vault").look(seen.key)
        assert look is not None and look.seen.locked_until is not None
        assert (
            look.seen.locked_until.strftime("%Y-%m-%dT%H:%M:%SZ") == ends[A if A in seen.key else B]
        )
    project.write(
        POLICY | {"erasures": [{"id": "DSR-1", "why": "a request", "match": {"asset_id": A}}]}
    )
    after = {
        (row["asset_id"], row["store"]): (row["decision"], row.get("because"))
        for row in project.plan("erase.plan", expect=None)["rows"]
    }
    assert after[A, "vault"] == ("blocked", "lock") or after[A, "vault"][0] == "keep"


@pytest.mark.parametrize("server", ["seaweedfs", "strict_gcs"])
def test_a_copy_that_lost_its_lock_on_the_way_is_locked_once_more(
    server: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    api: StandIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from conftest import make_writer

    project = made(server, request, tmp_path, api)
    vault = project.stores["vault"]
    project.stores["vault"] = replace(
        vault, url=vault.url.replace(vault.bucket, lock_bucket(server, request)), lock="governance"
    )
    project.write()
    project.hosted(A, video(1))
    project.plan()
    kind = type(make_writer(vault))
    create = kind.create
    monkeypatch.setattr(
        kind, "create", lambda self, *words, lock_until=None: create(self, *words[:6])
    )
    assert project.apply()["copied"] == 1
    (seen,) = project.writer("vault").list()
    look = project.writer("vault").look(seen.key)
    assert (
        look is not None
        and look.seen.locked_until is not None
        and look.seen.locked_until > datetime.now(UTC) + timedelta(days=700)
    )


@pytest.mark.slow
@pytest.mark.parametrize("server", ["seaweedfs", "moto"])
def test_a_bucket_that_cannot_lock_gets_no_copy_that_counts(
    server: str, request: pytest.FixtureRequest, tmp_path: Path, api: StandIn
) -> None:
    project = made(server, request, tmp_path, api, lock="governance")
    project.hosted(A, video(1))
    project.plan()
    done = project.apply(expect=7)
    assert done["copied"] == 0 and "vault" in done["failed"][0]["cause"]
    assert pairs(project.plan("after.plan"))[A, "vault"] == "copy"


# ── archives ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["GLACIER", "DEEP_ARCHIVE"])
@pytest.mark.parametrize("many", [False, True])
def test_what_is_archived_is_no_source_until_it_was_restored(
    many: bool, kind: str, request: pytest.FixtureRequest, tmp_path: Path, api: StandIn
) -> None:
    project = made("moto", request, tmp_path, api)
    project.write(
        POLICY | {"rules": [{"id": "all", "match": "all", "keep": [{"in": "vault", "for": "9y"}]}]}
    )
    project.uploaded_vod(A, hls.simple()) if many else project.uploaded(A, video(1))
    store = project.stores["uploads"]
    client = servers.s3_client(store.endpoint or "")
    for seen in project.writer("uploads").list():
        place = {"Bucket": store.bucket, "Key": store.prefix + seen.key}
        client.put_object(
            **place, Body=client.get_object(**place)["Body"].read(), StorageClass=kind
        )
    plan = project.plan()
    assert plan["header"]["copies"] == 0
    assert "1 recording is to be copied to vault" in " ".join(
        project.run("show", "p.plan").stdout.split()
    )
    project.apply()  # nothing is read, and nothing fails
    project.plan("again.plan")
    assert project.apply("again.plan", "--restore")["restored"] == 1
    assert [
        entry["of"]["asset"] for entry in project.journal() if entry["event"] == "restoring"
    ] == [A]
    assert pairs(project.plan("after.plan"))[A, "vault"] == "copy"
    assert project.apply("after.plan")["copied"] == 1
    assert pairs(project.plan("last.plan"))[A, "vault"] == "keep"


@pytest.mark.slow
def test_what_100ms_still_has_is_read_from_there_and_not_from_an_archive(
    request: pytest.FixtureRequest, tmp_path: Path, api: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    # moto compares no checksum, and what lies in its archive cannot be read back to compare it
    # here.
    prove = S3Abilities.prove_on

    def believing(abilities: S3Abilities, seen: Seen, content: bytes) -> Seen:
        found = prove(abilities, seen, content)
        abilities.note("checksum", True)
        return found

    monkeypatch.setattr(S3Abilities, "prove_on", believing)
    project = made("moto", request, tmp_path, api, storage_class="GLACIER", storage_class_from=0)
    project.hosted(A, video(1))
    project.plan()
    project.apply()
    project.stores["cold"] = replace(
        project.stores["vault"],
        name="cold",
        url=project.stores["vault"].url + "-cold",
        storage_class=None,
    )
    project.write(
        POLICY
        | {
            "rules": [
                {
                    "id": "all",
                    "match": "all",
                    "keep": [{"in": "vault", "for": "9y"}, {"in": "cold", "for": "9y"}],
                }
            ]
        }
    )
    assert [row["source"] for row in project.plan()["rows"] if row["decision"] == "copy"] == [
        "hosted"
    ]
    assert project.apply()["copied"] == 1


@pytest.mark.slow
def test_a_folder_restores_nothing(local: Project) -> None:
    local.hosted(A, video(1))
    local.plan()
    local.apply()
    (seen,) = local.writer("vault").list()
    with pytest.raises(StoreFailed):
        local.writer("vault").restore(seen)
