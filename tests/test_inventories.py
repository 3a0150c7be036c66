"""Reports of a bucket in place of a list: what they show, what they are refused for, and what they
are too old to show."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
import servers
from conftest import endpoint_of, gcs_client, make_store, make_writer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from inventories import (
    GCS_COLUMNS,
    gcs_row,
    gcs_rows,
    s3_inventory,
    s3_row,
    s3_rows,
    storage_insights,
)
from project import POLICY, Project, make_project, pairs, video

from retainer.errors import ListingBroken
from retainer.inventory import bucket_report
from retainer.model.setting import Store
from retainer.ports import StoreReader
from retainer.settings import load_settings
from retainer.stores.s3 import S3Writer
from retainer.wiring import open_reports

NOW = datetime.now(UTC).replace(microsecond=0)
BUCKET = "lab-plain"
Rows = Sequence[dict[str, Any]]


@dataclass
class Bucket:
    """A store on a server, and the place beside it where reports of its bucket are written."""

    server: str
    store: Store
    put: Callable[[str, bytes], None]
    folder: str

    def write(self, rows: Rows, at: datetime = NOW, form: str = "", **more: Any) -> str:
        if self.server.endswith("gcs"):
            return storage_insights(self.put, self.folder, rows, at, form=form or "csv", **more)
        return s3_inventory(self.put, self.folder, BUCKET, rows, at, form=form or "Parquet", **more)

    def rows(self, reader: StoreReader) -> list[dict[str, Any]]:
        make = gcs_rows if self.server.endswith("gcs") else s3_rows
        own = reader.list("_retainer/")
        return make(BUCKET, self.store.prefix, [*reader.list(), *own])

    def row(self, key: str, **more: Any) -> dict[str, Any]:
        """Of an object that need not be there."""
        name = self.store.prefix + key
        if self.server.endswith("gcs"):
            return gcs_row(BUCKET, name, 3, "1700000000000001") | more
        return s3_row(BUCKET, name, 3, "9e107d9d372bb6826bd81d3542a419d6") | more

    def read(self, folder: Path, now: datetime = NOW) -> list[tuple[str, int, str]]:
        """The rows of the newest report: key, size, version."""
        reports = open_reports(self.store)
        assert reports is not None
        report = reports.newest(now)
        assert report is not None
        made = reports.fetch(report, folder / uuid.uuid4().hex)
        return duckdb.sql(f"SELECT key, size, version FROM '{made}' ORDER BY key").fetchall()


def writes_to(server: str, endpoint: str) -> Callable[[str, bytes], None]:
    if server.endswith("gcs"):
        bucket = gcs_client(endpoint).bucket("lab-reports")
        return lambda key, content: bucket.blob(key).upload_from_string(content)
    client = servers.s3_client(endpoint)
    return lambda key, content: client.put_object(Bucket="lab-reports", Key=key, Body=content)


def bucket_on(server: str, request: pytest.FixtureRequest, folder: Path) -> Bucket:
    endpoint = endpoint_of(server, request)
    store = make_store(server, endpoint, folder)
    place = f"inventory/{BUCKET}/{uuid.uuid4().hex[:8]}"
    store = replace(store, inventory=f"{store.scheme}://lab-reports/{place}")
    return Bucket(server, store, writes_to(server, endpoint), place)


@pytest.fixture
def s3(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    return bucket_on("seaweedfs", request, tmp_path)


@pytest.fixture(params=["seaweedfs", "fake_gcs", "strict_gcs"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    return bucket_on(request.param, request, tmp_path)


@pytest.fixture
def gcs(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    return bucket_on("strict_gcs", request, tmp_path)


# ── what a report shows ─────────────────────────────────────────────────────────────────────────

ODD_KEYS = (
    "plain.mp4",
    "a b/c d.mp4",
    "plus+and%2Bpercent%.mp4",
    "quote\"and'comma,.mp4",
    "größe/日本/🎥.mp4",
    "100%25.mp4",
    "semi;colon&amp;.mp4",
)


@pytest.mark.parametrize(
    ("server", "form"),
    [
        ("seaweedfs", "CSV"),
        ("seaweedfs", "Parquet"),
        ("seaweedfs", "ORC"),
        ("fake_gcs", "csv"),
        ("fake_gcs", "parquet"),
        ("strict_gcs", "csv"),
    ],
)
def test_a_report_shows_what_a_list_shows(
    server: str, form: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    bucket = bucket_on(server, request, tmp_path)
    writer = make_writer(bucket.store)
    for number, key in enumerate(ODD_KEYS):
        writer.create(key, iter([b"x" * number]), number, {}, "video/mp4")
    bucket.write(bucket.rows(writer), form=form, parts=3)
    assert bucket.read(tmp_path) == sorted(
        (each.key, each.size, each.version) for each in writer.list()
    )


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    some.lists(
        some.text(some.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40),
        unique=True,
        max_size=20,
    ),
    some.sampled_from(["CSV", "Parquet", "ORC"]),
    some.integers(1, 3),
)
def test_any_key_is_read_as_it_is(
    s3: Bucket, tmp_path: Path, keys: list[str], form: str, files: int
) -> None:
    s3.folder = f"inventory/{BUCKET}/{uuid.uuid4().hex[:8]}"
    s3.store = replace(s3.store, inventory=f"s3://lab-reports/{s3.folder}")
    s3.write([s3.row(key) for key in keys], form=form, parts=files)
    assert [key for key, *_ in s3.read(tmp_path)] == sorted(keys)


@pytest.mark.parametrize("form", ["CSV", "Parquet", "ORC"])
def test_only_the_version_that_is_there_is_read(s3: Bucket, tmp_path: Path, form: str) -> None:
    gone = {"is_latest": True, "is_delete_marker": True, "size": None, "e_tag": None}
    rows = [
        s3.row("a.mp4", version_id="2"),
        s3.row("a.mp4", version_id="1", is_latest=False),
        s3.row("b.mp4", version_id="4", **gone),
        s3.row("b.mp4", version_id="3", is_latest=False),
        s3_row(BUCKET, "other-prefix/c.mp4", 3, "e"),
    ]
    s3.write(rows, form=form)
    assert [key for key, *_ in s3.read(tmp_path)] == ["a.mp4"]


def test_a_report_of_current_versions_alone_says_nothing_of_versions(
    s3: Bucket, tmp_path: Path
) -> None:
    s3.write(
        [s3.row("a.mp4")], form="CSV", columns=("bucket", "key", "size", "e_tag", "storage_class")
    )
    assert [key for key, *_ in s3.read(tmp_path)] == ["a.mp4"]


def test_what_google_deleted_or_replaced_is_not_there(gcs: Bucket, tmp_path: Path) -> None:
    rows = [gcs.row("a.mp4"), gcs.row("b.mp4", timeDeleted="2026-11-02T00:00:00Z")]
    gcs.write(rows)
    assert [key for key, *_ in gcs.read(tmp_path)] == ["a.mp4"]


def test_the_newest_finished_report_is_read(bucket: Bucket, tmp_path: Path) -> None:
    bucket.write([bucket.row("old.mp4")], NOW - timedelta(days=1))
    bucket.write([bucket.row("new.mp4")], NOW - timedelta(hours=3))
    bucket.write([bucket.row("older.mp4")], NOW - timedelta(days=2))
    assert [key for key, *_ in bucket.read(tmp_path)] == ["new.mp4"]


def test_a_report_that_is_being_written_is_not_read(s3: Bucket, tmp_path: Path) -> None:
    s3.write([s3.row("old.mp4")], NOW - timedelta(days=1))
    s3.put(f"{s3.folder}/{NOW:%Y-%m-%dT%H-%MZ}/manifest.json", b"{")
    assert [key for key, *_ in s3.read(tmp_path)] == ["old.mp4"]


# ── what a report is refused for ────────────────────────────────────────────────────────────────


def refused(bucket: Bucket, folder: Path, match: str) -> None:
    with pytest.raises(ListingBroken, match=match):
        bucket.read(folder)


def test_no_report_is_no_list(bucket: Bucket, tmp_path: Path) -> None:
    reports = open_reports(bucket.store)
    assert reports is not None and reports.newest(NOW) is None


def test_a_report_of_last_quarter_is_none(s3: Bucket, tmp_path: Path) -> None:
    s3.write([s3.row("a.mp4")], NOW - timedelta(days=60))
    reports = open_reports(s3.store)
    assert reports is not None and reports.newest(NOW) is None


def test_a_manifest_is_what_its_checksum_says(s3: Bucket, tmp_path: Path) -> None:
    key = s3.write([s3.row("a.mp4")])
    s3.put(key.replace(".json", ".checksum"), b"0" * 32)
    refused(s3, tmp_path, "not what its manifest.checksum says")


def test_a_report_of_another_bucket_is_refused(s3: Bucket, tmp_path: Path) -> None:
    s3.write([s3.row("a.mp4")], sourceBucket="acme-raw")
    refused(s3, tmp_path, "is of the bucket acme-raw, not of lab-plain")


@pytest.mark.parametrize("files", [[{"key": "x", "size": "many", "MD5checksum": ""}], "none"])
def test_a_manifest_that_makes_no_sense_is_refused(
    s3: Bucket, tmp_path: Path, files: object
) -> None:
    s3.write([s3.row("a.mp4")], files=files)
    refused(s3, tmp_path, "a manifest that cannot be read")


def test_every_file_must_be_there(s3: Bucket, tmp_path: Path) -> None:
    lost = {"key": f"{s3.folder}/data/lost.parquet", "size": 3, "MD5checksum": "0" * 32}
    s3.write([s3.row("a.mp4")], files=[lost])
    refused(s3, tmp_path, "lost.parquet is not there")


@pytest.mark.parametrize("content", [b"", None])
def test_every_file_is_what_the_manifest_says(
    s3: Bucket, tmp_path: Path, content: bytes | None
) -> None:
    """Neither shorter nor, in the same length, another one: a report of other objects."""
    for number, name in enumerate(("c.mp4", "b.mp4")):
        s3.write([s3.row("a.mp4"), s3.row(name)], NOW + timedelta(minutes=number), parts=2)
    first, second = (
        f"{s3.folder}/data/{NOW + timedelta(minutes=number):%Y%m%d%H%M%S}-1.parquet"
        for number in range(2)
    )
    client = servers.s3_client(s3.store.endpoint or "")
    other = client.get_object(Bucket="lab-reports", Key=first)["Body"].read()
    assert len(other) == client.head_object(Bucket="lab-reports", Key=second)["ContentLength"]
    s3.put(second, other if content is None else content)
    refused(s3, tmp_path, "is not what its manifest says")


def test_a_column_that_facts_need_must_be_there(s3: Bucket, tmp_path: Path) -> None:
    s3.write([s3.row("a.mp4")], form="CSV", columns=("bucket", "key", "size"))
    refused(s3, tmp_path, "does not tell each object's etag")


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        (lambda s3: [s3.row("a.mp4"), s3.row("a.mp4")], "1 rows that name an object again"),
        (lambda s3: [s3.row("a.mp4", size=None)], "1 rows without a key, a size or a version"),
        (lambda s3: [s3.row("a.mp4", e_tag=None)], "1 rows without a key, a size or a version"),
        (lambda s3: [s3_row("acme", "x", 3, "e")], "1 rows of other buckets than lab-plain"),
    ],
)
def test_rows_that_make_no_sense_refuse_the_whole_report(
    s3: Bucket, tmp_path: Path, rows: Callable[[Bucket], Rows], match: str
) -> None:
    s3.write(rows(s3))
    refused(s3, tmp_path, match)


def test_a_file_that_is_no_parquet_is_refused(s3: Bucket, tmp_path: Path) -> None:
    content = b"no parquet"
    key = f"{s3.folder}/data/x.parquet"
    s3.put(key, content)
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    s3.write([], files=[{"key": key, "size": len(content), "MD5checksum": md5}])
    refused(s3, tmp_path, "cannot be read")


@pytest.mark.parametrize("moment", ["0", "99999999999999999999", "-62135596800000", "soon"])
def test_a_report_of_no_time_is_refused_with_a_sentence(on_s3: Reported, moment: str) -> None:
    on_s3.project.copied_and_due("d" * 24, "a" * 24)
    on_s3.report(creationTimestamp=moment)
    is_listed(on_s3, "vault", "it is listed: ")


def test_a_csv_that_is_none_is_refused_with_a_sentence(gcs: Bucket, tmp_path: Path) -> None:
    key = gcs.write([gcs.row("a.mp4")])
    gcs.put(key.replace("manifest.json", "0.csv"), b"x" * 200_000)
    refused(gcs, tmp_path, "cannot be read: field larger than field limit")


def test_an_orc_that_is_none_is_refused_with_a_sentence(s3: Bucket, tmp_path: Path) -> None:
    content, key = b"ORC no", f"{s3.folder}/data/x.orc"
    s3.put(key, content)
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    s3.write(
        [], form="ORC", parts=1, files=[{"key": key, "size": len(content), "MD5checksum": md5}]
    )
    refused(s3, tmp_path, "cannot be read as ORC")


@pytest.mark.parametrize("name", ["timeDeleted", "storageClass", "bucket", "generation"])
def test_a_field_of_google_that_facts_need_must_be_there(
    gcs: Bucket, tmp_path: Path, name: str
) -> None:
    gcs.write([gcs.row("a.mp4")], columns=[each for each in GCS_COLUMNS if each != name])
    refused(gcs, tmp_path, f"does not tell each object's {name.lower()}")


def test_what_is_odd_outside_of_a_store_is_none_of_its_business(s3: Bucket, tmp_path: Path) -> None:
    odd = s3_row(BUCKET, "elsewhere/x.mp4", 3, "e")
    own = s3.row("_retainer/lock")
    s3.write([s3.row("a.mp4"), odd, odd | {"size": None}, own, own])
    assert "a.mp4" in [key for key, *_ in s3.read(tmp_path)]


def test_a_report_of_google_of_last_quarter_is_none(gcs: Bucket) -> None:
    gcs.write([gcs.row("a.mp4")], NOW - timedelta(days=60))
    reports = open_reports(gcs.store)
    assert reports is not None and reports.newest(NOW) is None


def test_every_shard_must_be_there(gcs: Bucket, tmp_path: Path) -> None:
    gcs.write([gcs.row("a.mp4")], report_shards_file_names=["lost_0.csv"])
    refused(gcs, tmp_path, "lacks files, such as .*lost_0.csv")


def test_a_report_has_as_many_shards_as_it_says(gcs: Bucket, tmp_path: Path) -> None:
    gcs.write([gcs.row("a.mp4")], shard_count=2)
    refused(gcs, tmp_path, "names 1 files, and has 2")


@pytest.mark.parametrize("count", [1, 3])
def test_a_report_has_as_many_rows_as_it_says(gcs: Bucket, tmp_path: Path, count: int) -> None:
    gcs.write([gcs.row("a.mp4"), gcs.row("b.mp4")], records_processed=count)
    refused(gcs, tmp_path, "1 rows too many or few")


def test_two_configurations_in_one_folder_are_refused(gcs: Bucket, tmp_path: Path) -> None:
    gcs.write([gcs.row("a.mp4")])
    gcs.write([gcs.row("b.mp4")], NOW - timedelta(days=1), config="77aa-0c1d")
    refused(gcs, tmp_path, "several configurations write their reports")


def test_a_csv_of_google_must_have_its_header(gcs: Bucket, tmp_path: Path) -> None:
    key = gcs.write([gcs.row("a.mp4"), gcs.row("b.mp4")], parts=2)
    shard = key.replace("manifest.json", "1.csv")
    gcs.put(shard, b"123456,lab-plain,x\n")
    refused(gcs, tmp_path, "do not have the same columns")


# ── a plan from a report ────────────────────────────────────────────────────────────────────────


@dataclass
class Reported:
    """A project, and the buckets whose reports tell of its stores."""

    project: Project
    buckets: dict[str, Bucket]

    def report(self, at: datetime | None = None, **more: Any) -> None:
        """What lies in each store now, as a report that began `at` has it."""
        for name, bucket in self.buckets.items():
            rows = bucket.rows(self.project.writer(name))
            bucket.write(rows, at or datetime.now(UTC), **more)

    def plan(self, *words: str, expect: int | None = 0) -> dict[str, Any]:
        return self.project.plan("p.plan", *words, expect=expect)


def reported_on(server: str, request: pytest.FixtureRequest, folder: Path, api: Any) -> Reported:
    endpoint = endpoint_of(server, request)
    project = make_project(folder / "project", api, server, endpoint)
    buckets = {}
    for name, store in project.stores.items():
        place = f"inventory/{BUCKET}/{uuid.uuid4().hex[:8]}"
        project.stores[name] = replace(store, inventory=f"{store.scheme}://lab-reports/{place}")
        buckets[name] = Bucket(server, project.stores[name], writes_to(server, endpoint), place)
    project.write()
    return Reported(project, buckets)


@pytest.fixture(params=["seaweedfs", "strict_gcs"])
def reported(request: pytest.FixtureRequest, tmp_path: Path, api: Any) -> Reported:
    return reported_on(request.param, request, tmp_path, api)


@pytest.fixture
def on_s3(request: pytest.FixtureRequest, tmp_path: Path, api: Any) -> Reported:
    return reported_on("seaweedfs", request, tmp_path, api)


def test_a_plan_from_reports_is_the_plan_from_lists(reported: Reported) -> None:
    project = reported.project
    listed = project.copied_and_due("d" * 24, "a" * 24)
    assert listed.plan()["header"]["sources"][-1]["reported"] is None  # it was listed
    before = pairs(project.plan("listed.plan"))
    reported.report()
    plan = reported.plan()
    assert pairs(plan) == before
    stores = [each for each in plan["header"]["sources"] if each["kind"] == "store"]
    assert all(each["reported"] for each in stores)
    done = project.apply_all("p.plan", plan)
    assert (done["deleted"], done["failed"], done["skipped"]) == (1, [], [])
    assert f"beam/60000000000000000000000a/Rec-{'d' * 24}.mp4" not in project.content("uploads")


def test_until_there_is_a_report_a_new_store_is_listed(on_s3: Reported) -> None:
    on_s3.project.uploaded("d" * 24, video(1))
    plan = on_s3.plan()
    assert plan["header"]["copies"] == 1 and not plan["header"]["incomplete"]
    assert "has written no report of late" in plan["header"]["sources"][-1]["note"]


def test_what_was_copied_since_the_report_is_not_copied_again(reported: Reported) -> None:
    project = reported.project
    project.copied_and_due("d" * 24, "a" * 24)
    reported.report()
    project.hosted("c" * 24, video(3))
    project.apply_all("p.plan", reported.plan())
    plan = reported.plan()
    assert plan["header"]["copies"] == 0
    assert pairs(plan)["c" * 24, "vault"] == "keep"


def test_what_was_deleted_since_the_report_is_not_deleted_again(reported: Reported) -> None:
    project = reported.project
    project.copied_and_due("d" * 24, "a" * 24)
    reported.report()
    project.apply_all("p.plan", reported.plan())
    plan = reported.plan()
    assert plan["header"]["deletes"] == 0
    assert ("d" * 24, "uploads") not in pairs(plan)


def test_what_somebody_else_deleted_since_the_report_is_no_copy(on_s3: Reported) -> None:
    project = on_s3.project
    project.copied_and_due("d" * 24, "a" * 24)
    on_s3.report()
    writer = project.writer("uploads")
    due = next(each for each in writer.list() if "d" * 24 in each.key)
    writer.delete(due)
    plan = on_s3.plan()
    assert plan["header"]["deletes"] == 0
    assert ("d" * 24, "uploads") not in pairs(plan)


def test_what_100ms_uploaded_since_the_report_is_copied(reported: Reported) -> None:
    project = reported.project
    project.copied_and_due("d" * 24, "a" * 24)
    reported.report()
    project.uploaded("b" * 24, video(5), age=timedelta(hours=3))
    plan = reported.plan()
    assert pairs(plan)["b" * 24, "vault"] == "copy"
    assert project.apply("p.plan", expect=7)["copied"] == 1


def test_many_objects_that_were_uploaded_since_the_report_are_seen(on_s3: Reported) -> None:
    project = on_s3.project
    project.copied_and_due("d" * 24, "a" * 24)
    on_s3.report()
    files = {"master.m3u8": b"#EXTM3U\n#EXTINF:4,\n0.ts\n#EXT-X-ENDLIST\n", "0.ts": b"\x47" * 188}
    project.uploaded_vod("b" * 24, files, age=timedelta(hours=3))
    rule = {"id": "vod", "match": {"type": "room-vod"}, "keep": [{"in": "vault", "for": "1y"}]}
    project.write(POLICY | {"rules": [*POLICY["rules"], rule]})
    assert pairs(on_s3.plan())["b" * 24, "vault"] == "copy"
    project.apply("p.plan", expect=7)
    assert pairs(on_s3.plan())["b" * 24, "vault"] == "keep"


def test_what_was_overwritten_since_the_report_stays(on_s3: Reported) -> None:
    project = on_s3.project
    project.copied_and_due("d" * 24, "a" * 24)
    on_s3.report()
    plan = on_s3.plan()
    project.uploaded("d" * 24, video(77))
    done = project.apply_all("p.plan", plan)
    assert (done["deleted"], len(done["skipped"])) == (0, 1)
    assert f"beam/60000000000000000000000a/Rec-{'d' * 24}.mp4" in project.content("uploads")


def test_what_is_another_object_by_now_is_not_planned_for_deletion(on_s3: Reported) -> None:
    project = on_s3.project
    project.copied_and_due("d" * 24, "a" * 24)
    on_s3.report()
    project.uploaded("d" * 24, video(77))
    plan = on_s3.plan()
    assert stores_of(plan)["uploads"]["reported"]
    assert plan["header"]["deletes"] == 0
    assert pairs(plan)["d" * 24, "uploads"] == "blocked"


def test_each_delete_from_a_report_is_looked_at_first(
    on_s3: Reported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a server passes over the condition of a delete: the look alone must hold."""
    project = on_s3.project
    project.copied_and_due("d" * 24, "a" * 24)
    on_s3.report()
    plan = on_s3.plan()
    project.uploaded("d" * 24, video(77))
    called: list[str] = []
    monkeypatch.setattr(S3Writer, "delete", lambda _self, seen: called.append(seen.key))
    monkeypatch.setattr(
        S3Writer, "delete_batch", lambda _self, batch: called.extend(each.key for each in batch)
    )
    done = project.apply("p.plan", "--approve-deletes", str(plan["header"]["deletes"]), expect=None)
    assert "is not what its bucket's report showed" in str(done["skipped"])
    assert not [key for key in called if not key.startswith("_retainer/")]


def stores_of(plan: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in plan["header"]["sources"] if each["kind"] == "store"}


def is_listed(reported: Reported, store: str, why: str) -> None:
    """The plan is that of a list, and tells why."""
    project = reported.project
    plan = reported.plan()
    source = stores_of(plan)[store]
    assert source["complete"] and source["reported"] is None
    assert why in source["note"]
    for name, each in project.stores.items():
        project.stores[name] = replace(each, inventory=None)
    project.write()
    assert pairs(plan) == pairs(project.plan("listed.plan"))
    assert plan["header"]["deletes"] == 1


def test_where_a_report_is_of_a_time_to_come_the_store_is_listed(on_s3: Reported) -> None:
    on_s3.project.copied_and_due("d" * 24, "a" * 24)
    on_s3.report(NOW + timedelta(hours=1))
    is_listed(on_s3, "vault", "its newest report is of ")


def test_where_a_report_is_of_another_prefix_the_store_is_listed(on_s3: Reported) -> None:
    on_s3.project.copied_and_due("d" * 24, "a" * 24)
    for bucket in on_s3.buckets.values():
        bucket.write([s3_row(BUCKET, "other/x.mp4", 3, "e")])
    is_listed(on_s3, "uploads", "does not show anything of it")


def test_where_a_report_does_not_show_the_store_itself_it_is_listed(on_s3: Reported) -> None:
    project = on_s3.project
    project.copied_and_due("d" * 24, "a" * 24)
    bucket = on_s3.buckets["vault"]
    rows = bucket.rows(project.writer("vault"))
    bucket.write([each for each in rows if not each["key"].endswith("store.json")])
    is_listed(on_s3, "vault", "does not show _retainer/store.json of it")


def test_where_a_report_is_of_the_store_that_lay_there_before_it_is_listed(on_s3: Reported) -> None:
    project = on_s3.project
    project.copied_and_due("d" * 24, "a" * 24)
    bucket = on_s3.buckets["vault"]
    rows = bucket.rows(project.writer("vault"))
    bucket.write(
        [each | {"e_tag": "other"} if each["key"].endswith("store.json") else each for each in rows]
    )
    is_listed(on_s3, "vault", "does not show _retainer/store.json of it")


def test_where_a_report_is_damaged_the_store_is_listed(on_s3: Reported) -> None:
    on_s3.project.copied_and_due("d" * 24, "a" * 24)
    on_s3.report()
    on_s3.buckets["vault"].write([], datetime.now(UTC), sourceBucket="acme")
    is_listed(on_s3, "vault", "is of the bucket acme")


def test_where_the_reports_cannot_be_reached_the_store_is_listed(on_s3: Reported) -> None:
    project = on_s3.project
    project.copied_and_due("d" * 24, "a" * 24)
    project.stores["vault"] = replace(project.stores["vault"], inventory="s3://no-such-bucket/x")
    project.write()
    is_listed(on_s3, "vault", "it is listed: ")


def test_where_a_report_is_older_than_plans_last_the_store_is_listed(on_s3: Reported) -> None:
    on_s3.project.copied_and_due("d" * 24, "a" * 24)
    on_s3.report(datetime.now(UTC) - timedelta(hours=19))
    is_listed(on_s3, "uploads", "and plans last 24 hours (`limits.plan_age`)")


def test_where_too_much_is_newer_than_a_report_the_store_is_listed(
    on_s3: Reported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_report, "FEW", 0)
    monkeypatch.setattr(bucket_report, "PAGES", 0)
    on_s3.project.copied_and_due("d" * 24, "a" * 24)
    on_s3.report()
    on_s3.project.uploaded("b" * 24, video(5), age=timedelta(hours=3))
    on_s3.project.uploaded("b" * 23 + "c", video(6), age=timedelta(hours=3))
    is_listed(on_s3, "uploads", "too much is newer than its report")


def test_a_plan_is_as_old_as_its_oldest_report(on_s3: Reported) -> None:
    project = on_s3.project
    project.copied_and_due("d" * 24, "a" * 24)
    began = datetime.now(UTC) - timedelta(hours=15)
    on_s3.report(began)
    plan = on_s3.plan()
    expires = datetime.fromisoformat(plan["header"]["expires"])
    assert abs(expires - began - timedelta(hours=24)) < timedelta(seconds=2)
    shown = project.run("show", "p.plan").stdout
    assert "uploads and vault from a report that is 15 hours old" in " ".join(shown.split())
    assert project.apply_all("p.plan", plan)["deleted"] == 1


def test_a_look_ahead_from_a_report_names_no_locks_where_there_are_none(on_s3: Reported) -> None:
    project = on_s3.project
    project.copied_and_due("d" * 24, "a" * 24)
    on_s3.report()
    later = (datetime.now(UTC) + timedelta(days=40)).strftime("%Y-%m-%dT%H:%M:%SZ")
    ahead = on_s3.plan("--as-of", later, expect=None)
    assert pairs(ahead)["a" * 24, "uploads"] == "delete"


def test_another_policy_over_facts_from_a_report_names_no_locks(on_s3: Reported) -> None:
    project = on_s3.project
    project.copied_and_due("d" * 24, "a" * 24)
    on_s3.report()
    project.run("facts", "--out", "f.duckdb")
    rules = [
        *POLICY["rules"][:1],
        POLICY["rules"][1] | {"delete": [{"in": "uploads", "after": "1d"}]},
    ]
    project.write(POLICY | {"rules": rules})
    plan = on_s3.plan("--facts", "f.duckdb", expect=None)
    assert pairs(plan)["a" * 24, "uploads"] == "delete"


MASTER = b"#EXTM3U\n#EXTINF:4,\n0.ts\n#EXTINF:4,\n1.ts\n#EXT-X-ENDLIST\n"
VOD = {"master.m3u8": MASTER, "0.ts": b"\x47" * 188, "1.ts": b"\x47" * 376}
OF_VODS = {
    "id": "vod",
    "match": {"type": "room-vod"},
    "keep": [{"in": "vault", "for": "40d"}],
    "then": "delete",
}


def objects_of(project: Project, store: str) -> list[str]:
    with duckdb.connect(str(project.root / ".retainer" / "facts.duckdb"), read_only=True) as facts:
        rows = facts.execute(
            "SELECT o.key FROM (SELECT unnest(objects) AS o FROM copies WHERE store = ?) "
            "ORDER BY o.key",
            [store],
        ).fetchall()
    return [key for (key,) in rows]


def test_a_young_recording_of_which_a_report_shows_a_part_is_seen_whole(on_s3: Reported) -> None:
    project = on_s3.project
    project.copied_and_due("d" * 24, "a" * 24)
    project.uploaded_vod("b" * 24, VOD, age=timedelta(hours=27))
    bucket = on_s3.buckets["uploads"]
    rows = bucket.rows(project.writer("uploads"))
    bucket.write([each for each in rows if not each["key"].endswith("1.ts")])
    on_s3.buckets["vault"].write(on_s3.buckets["vault"].rows(project.writer("vault")))
    project.write(POLICY | {"rules": [*POLICY["rules"], OF_VODS]})
    plan = on_s3.plan()
    done = project.apply("p.plan", "--approve-deletes", str(plan["header"]["deletes"]))
    assert (done["copied"], done["failed"]) == (1, [])
    assert len([key for key in objects_of(project, "uploads") if "b" * 24 in key]) == 3


@pytest.mark.slow
def test_no_object_is_told_twice(on_s3: Reported) -> None:
    """Neither where a thumbnail lies in a folder that is listed, nor where what was copied was
    deleted, and copied again."""
    project = on_s3.project
    project.copied_and_due("d" * 24, "a" * 24)
    base = project.stores["uploads"].base
    thumbnail = f"hls/60000000000000000000000a/{'b' * 24}/vod/thumb.jpg"
    project.uploaded_vod(
        "b" * 24,
        VOD | {"thumb.jpg": b"\xff\xd8\xff" + b"j" * 50},
        age=timedelta(hours=30),
        thumbnails=[base + thumbnail],
    )
    on_s3.report()
    policy = POLICY | {"rules": [*POLICY["rules"], OF_VODS]}
    gone = OF_VODS | {"keep": [{"in": "vault", "for": "1h"}]}
    project.write(policy)
    plan = on_s3.plan()
    each_object_once(on_s3, plan, "uploads")
    for rules in ([*POLICY["rules"], gone], policy["rules"], None):
        project.apply("p.plan", "--approve-deletes", str(plan["header"]["deletes"]), expect=None)
        project.write(POLICY | {"rules": rules or policy["rules"]})
        plan = on_s3.plan(expect=None)
    assert pairs(plan)["b" * 24, "vault"] == "keep"
    each_object_once(on_s3, plan, "vault")


def each_object_once(reported: Reported, plan: dict[str, Any], store: str) -> None:
    assert stores_of(plan)[store]["reported"]
    project = reported.project
    listed = [each.key for each in project.writer(store).list()]
    assert sorted(objects_of(project, store)) == sorted(listed)


def test_a_lock_that_no_report_tells_is_looked_for(
    request: pytest.FixtureRequest, tmp_path: Path, api: Any
) -> None:
    reported = reported_on("strict_gcs", request, tmp_path, api)
    project = reported.project
    project.copied_and_due("d" * 24, "a" * 24)
    store = project.stores["uploads"]
    held = gcs_client(store.endpoint or "").bucket(store.bucket)
    blob = held.blob(f"{store.prefix}beam/60000000000000000000000a/Rec-{'d' * 24}.mp4")
    blob.temporary_hold = True
    blob.patch()
    reported.report()
    plan = reported.plan()
    assert plan["header"]["deletes"] == 0
    assert pairs(plan)["d" * 24, "uploads"] == "blocked"


# ── beside a plan ───────────────────────────────────────────────────────────────────────────────


def test_doctor_tells_how_old_the_newest_report_is(on_s3: Reported) -> None:
    project = on_s3.project
    project.copied_and_due("d" * 24, "a" * 24)
    told = project.run("doctor", "--only", "vault", expect=1).stdout
    assert "no finished report lies in s3://lab-reports/" in " ".join(told.split())
    on_s3.report(datetime.now(UTC) - timedelta(hours=30))
    told = project.run("doctor", "--only", "vault", expect=1).stdout
    assert "newest report is 30 hours old (1 files), and plans last 24" in " ".join(told.split())
    on_s3.report(datetime.now(UTC) - timedelta(hours=3))
    told = project.run("doctor", "--only", "vault").stdout
    assert "its bucket's newest report is 3 hours old (1 files)" in " ".join(told.split())


def test_doctor_tells_of_a_report_that_cannot_be_read(on_s3: Reported) -> None:
    project = on_s3.project
    project.copied_and_due("d" * 24, "a" * 24)
    on_s3.buckets["vault"].write([], sourceBucket="acme")
    told = project.run("doctor", "--only", "vault", expect=1).stdout
    assert "is of the bucket acme, not of lab-plain" in " ".join(told.split())


def test_a_plan_may_read_the_reports_and_an_apply_need_not(on_s3: Reported) -> None:
    told = json.loads(on_s3.project.run("iam", "--for", "plan", "--cloud", "aws").stdout)
    rights = {each["Sid"]: each["Resource"] for each in told["Statement"]}
    folder = on_s3.buckets["vault"].folder
    assert rights["Vault2ReportsBucket"] == ["arn:aws:s3:::lab-reports"]
    assert rights["Vault2Reports"] == [f"arn:aws:s3:::lab-reports/{folder}/*"]
    told = json.loads(on_s3.project.run("iam", "--for", "apply", "--cloud", "aws").stdout)
    assert not [each for each in told["Statement"] if "Reports" in each["Sid"]]


def test_a_plan_may_read_the_reports_at_google(
    request: pytest.FixtureRequest, tmp_path: Path, api: Any
) -> None:
    project = reported_on("strict_gcs", request, tmp_path, api).project
    told = json.loads(project.run("iam", "--for", "plan", "--cloud", "google").stdout)
    assert told["buckets"] == ["gs://lab-plain", "gs://lab-reports"]
    told = json.loads(project.run("iam", "--for", "apply", "--cloud", "google").stdout)
    assert told["buckets"] == ["gs://lab-plain"]


def test_how_a_store_is_listed_does_not_outdate_a_plan(on_s3: Reported) -> None:
    project = on_s3.project
    project.copied_and_due("d" * 24, "a" * 24)
    plan = on_s3.plan()
    for name, store in project.stores.items():
        project.stores[name] = replace(store, inventory=None)
    project.write()
    assert project.apply_all("p.plan", plan)["deleted"] == 1


@pytest.mark.parametrize(
    ("store", "inventory", "said"),
    [
        ("file:///tmp/x", "s3://acme-reports/x", "only s3:// and gs:// have reports"),
        ("s3://acme/rec", "gs://acme-reports/x", "is no place for reports: s3://bucket/folder"),
        ("s3://acme/rec", "s3://acme-reports", "names no folder"),
        ("s3://acme/rec", "s3://acme-reports/a?b=c", "has a query"),
        ("s3://acme/rec", "s3://acme/rec/reports", "lie in `v`, as its objects"),
    ],
)
def test_reports_that_cannot_be_are_a_mistake(
    tmp_path: Path, store: str, inventory: str, said: str
) -> None:
    text = f"version: 1\nstores: {{ v: {{ url: '{store}', listing: {{ inventory: '{inventory}' }} }} }}\n"
    (tmp_path / "retainer.yaml").write_text(text)
    mistakes = load_settings(tmp_path)[1]
    assert len(mistakes) == 1 and said in mistakes[0].message
