"""The stand-in behaves as Google documents, seen through the real google-cloud-storage client."""

import base64
import io
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import google_crc32c
import pytest
import requests
from gcs_standin import CHUNK, MIB, GcsStandIn
from google.api_core.exceptions import (
    BadRequest,
    Conflict,
    Forbidden,
    MethodNotImplemented,
    NotFound,
    NotModified,
    PreconditionFailed,
    RetryError,
)
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY

QUICK = DEFAULT_RETRY.with_delay(initial=0.01, maximum=0.02).with_timeout(0.3)
WEEK = 7 * 86400


@pytest.fixture
def server() -> Iterator[GcsStandIn]:
    with GcsStandIn() as running:
        yield running


@pytest.fixture
def client(server: GcsStandIn) -> storage.Client:
    return storage.Client(
        project="test",
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": server.url},
    )


@pytest.fixture
def bucket(client: storage.Client) -> storage.Bucket:
    return make_bucket(client, "plain")


def make_bucket(client: storage.Client, name: str, **settings: Any) -> storage.Bucket:
    """Without soft delete, unless the settings say otherwise, so that what is deleted is gone."""
    made = client.bucket(name)
    made.soft_delete_policy.retention_duration_seconds = settings.pop("soft_delete", 0)
    object_retention = settings.pop("object_retention", False)
    for key, value in settings.items():
        setattr(made, key, value)
    made.create(enable_object_retention=object_retention)
    return made


def put(
    bucket: storage.Bucket, name: str = "a", data: bytes = b"data", **options: Any
) -> storage.Blob:
    blob = bucket.blob(name)
    blob.upload_from_string(data, **options)
    return blob


def hold(blob: storage.Blob, **holds: bool) -> None:
    for key, value in holds.items():
        setattr(blob, key, value)
    blob.patch()


def names(bucket: storage.Bucket, **options: Any) -> list[str]:
    return [blob.name for blob in bucket.list_blobs(**options)]


def insert(server: GcsStandIn, metadata: dict[str, Any]) -> requests.Response:
    """For what the client does not send: it leaves holds out of its uploads."""
    body = (
        "--x\r\nContent-Type: "
        f"application/json\r\n\r\n{json.dumps(metadata)}\r\n--x\r\nContent-Type: "
        "text/plain\r\n\r\ndata\r\n--x--"
    )
    url = f"{server.url}/upload/storage/v1/b/plain/o?uploadType=multipart"
    return requests.post(
        url, data=body, headers={"Content-Type": "multipart/related; boundary=x"}, timeout=5
    )


def generations(bucket: storage.Bucket, **options: Any) -> list[int]:
    return [blob.generation for blob in bucket.list_blobs(**options)]


def refused(
    error: type[Exception], words: str
) -> AbstractContextManager[pytest.ExceptionInfo[Exception]]:
    return pytest.raises(error, match=words)


@pytest.mark.parametrize(
    ("key", "label"), [("temporary_hold", "Temporary"), ("event_based_hold", "Event-Based")]
)
@pytest.mark.parametrize("versioned", [False, True])
def test_a_held_object_is_neither_deleted_nor_overwritten_nor_archived(
    client: storage.Client, key: str, label: str, versioned: bool
) -> None:
    bucket = make_bucket(client, "held", versioning_enabled=versioned)
    blob, source = put(bucket), put(bucket, "source", b"new")
    hold(blob, **{key: True})
    words = (
        f"'held/a' is under active {label} hold and cannot be deleted, overwritten or archived "
        "until hold is removed"
    )
    for act in (
        lambda: bucket.delete_blob("a"),
        lambda: bucket.delete_blob("a", generation=blob.generation),
        lambda: put(bucket, "a", b"new"),
        lambda: bucket.copy_blob(source, bucket, "a"),
        lambda: bucket.blob("a").rewrite(source),
        lambda: bucket.blob("a").upload_from_file(io.BytesIO(b"new")),
    ):
        with refused(Forbidden, words):
            act()
    assert bucket.blob("a").download_as_bytes() == b"data"
    assert getattr(next(iter(bucket.list_blobs(prefix="a"))), key) is True
    hold(blob, **{key: False})
    bucket.delete_blob("a")


def test_new_objects_take_the_default_event_based_hold_unless_they_refuse_it(
    server: GcsStandIn, client: storage.Client
) -> None:
    bucket = make_bucket(client, "plain", default_event_based_hold=True)
    assert put(bucket, "a").event_based_hold is True
    insert(server, {"name": "b", "eventBasedHold": False})
    bucket.delete_blob("b")


def test_bucket_retention_refuses_deletes_and_overwrites_until_it_has_passed(
    server: GcsStandIn, client: storage.Client
) -> None:
    bucket = make_bucket(client, "kept", retention_period=60)
    blob = put(bucket)
    assert blob.retention_expiration_time - blob.time_created == timedelta(seconds=60)
    for act in (
        lambda: bucket.delete_blob("a"),
        lambda: bucket.delete_blob("a", generation=blob.generation),
        lambda: put(bucket),
    ):
        with refused(
            Forbidden,
            "'kept/a' is subject to bucket's retention policy or object retention and cannot be "
            "deleted or overwritten until",
        ):
            act()
    server.time_shift = 61
    bucket.delete_blob("a")


def test_a_retained_live_version_may_become_noncurrent_but_is_not_removed(
    client: storage.Client,
) -> None:
    bucket = make_bucket(client, "kept", retention_period=60, versioning_enabled=True)
    blob = put(bucket)
    bucket.delete_blob("a")
    with refused(Forbidden, "retention policy"):
        bucket.delete_blob("a", generation=blob.generation)
    assert generations(bucket, versions=True) == [blob.generation]


def test_releasing_an_event_based_hold_starts_the_retention_period(
    server: GcsStandIn, client: storage.Client
) -> None:
    bucket = make_bucket(client, "kept", retention_period=60, default_event_based_hold=True)
    blob = put(bucket)
    assert blob.retention_expiration_time is None
    server.time_shift = 100
    hold(blob, event_based_hold=False)
    assert blob.retention_expiration_time - blob.updated == timedelta(seconds=60)
    with refused(Forbidden, "retention policy"):
        bucket.delete_blob("a")


def test_object_retention_keeps_until_its_time_and_shrinks_only_by_override(
    server: GcsStandIn, client: storage.Client
) -> None:
    bucket = make_bucket(client, "locks", object_retention=True)
    blob, until = put(bucket), datetime.now(UTC) + timedelta(hours=1)
    blob.retention.mode, blob.retention.retain_until_time = "Unlocked", until
    blob.patch()
    with refused(Forbidden, "object retention"):
        bucket.delete_blob("a")
    blob.retention.retain_until_time = until - timedelta(minutes=1)
    with refused(Forbidden, "cannot be shortened"):
        blob.patch()
    blob.patch(override_unlocked_retention=True)
    server.time_shift = 3600
    bucket.delete_blob("a")


def test_object_retention_needs_a_bucket_that_has_it(bucket: storage.Bucket) -> None:
    blob = put(bucket)
    blob.retention.mode, blob.retention.retain_until_time = (
        "Locked",
        datetime.now(UTC) + timedelta(hours=1),
    )
    with refused(BadRequest, "not enabled"):
        blob.patch()


def test_a_precondition_is_checked_before_a_hold(bucket: storage.Bucket) -> None:
    blob = put(bucket)
    hold(blob, temporary_hold=True)
    with refused(
        PreconditionFailed, "At least one of the pre-conditions you specified did not hold"
    ):
        bucket.delete_blob("a", if_generation_match=blob.generation + 1)


@pytest.mark.parametrize(
    "condition",
    [
        "generation_match",
        "generation_not_match",
        "metageneration_match",
        "metageneration_not_match",
    ],
)
def test_every_write_honours_every_precondition(bucket: storage.Bucket, condition: str) -> None:
    blob, source = put(bucket), put(bucket, "source")
    actual = blob.metageneration if condition.startswith("meta") else blob.generation
    wrong = {f"if_{condition}": actual if "not" in condition else actual + 1}
    right = {f"if_{condition}": actual + 1 if "not" in condition else actual}
    blob.metadata = {"k": "v"}
    uploads = (
        lambda options: bucket.blob("a").upload_from_string(b"new", **options),
        lambda options: bucket.blob("a", chunk_size=CHUNK).upload_from_file(
            io.BytesIO(b"new"), **options
        ),
    )
    if (
        condition == "metageneration_not_match"
    ):  # which the client misspells in its uploads: ifMetaGenerationNotMatch
        with refused(MethodNotImplemented, "ifMetaGenerationNotMatch"):
            uploads[0](right)
        uploads = ()
    for act in (
        *uploads,
        lambda options: bucket.blob("a").rewrite(source, **options),
        lambda options: bucket.copy_blob(source, bucket, "a", **options),
        lambda options: bucket.delete_blob("a", **options),
        lambda options: blob.patch(**options),
    ):
        with refused(PreconditionFailed, "pre-conditions"):
            act(wrong)
    assert bucket.get_blob("a").generation == blob.generation
    blob.patch(**right)
    assert blob.metageneration == 2


def test_the_source_of_a_copy_and_of_a_rewrite_has_preconditions_too(
    bucket: storage.Bucket,
) -> None:
    source = put(bucket)
    for condition in ({"if_source_generation_match": 1}, {"if_source_metageneration_not_match": 1}):
        with refused(PreconditionFailed, "pre-conditions"):
            bucket.copy_blob(source, bucket, "b", **condition)
        with refused(PreconditionFailed, "pre-conditions"):
            bucket.blob("b").rewrite(source, **condition)
    assert names(bucket) == ["a"]


def test_generation_zero_means_that_the_object_must_not_exist(bucket: storage.Bucket) -> None:
    put(bucket, if_generation_match=0)
    with refused(PreconditionFailed, "pre-conditions"):
        put(bucket, if_generation_match=0)
    with refused(NotFound, "No such object: plain/b"):
        bucket.delete_blob("b", if_generation_match=1)
    with refused(PreconditionFailed, "pre-conditions"):
        put(bucket, "b", if_generation_match=1)


def test_a_read_whose_generation_did_not_change_answers_304_and_a_stale_one_412(
    bucket: storage.Bucket,
) -> None:
    blob = put(bucket)
    with pytest.raises(NotModified):
        blob.reload(if_generation_not_match=blob.generation)
    with pytest.raises(PreconditionFailed):
        bucket.blob("a").download_as_bytes(if_generation_match=1)


def test_a_plain_delete_on_a_versioned_bucket_keeps_the_version_and_one_by_generation_does_not(
    client: storage.Client,
) -> None:
    bucket = make_bucket(client, "versions", versioning_enabled=True)
    first, second = put(bucket, data=b"1").generation, put(bucket, data=b"2").generation
    bucket.delete_blob("a")
    assert names(bucket) == []
    assert generations(bucket, versions=True) == [first, second]
    assert all(blob.time_deleted for blob in bucket.list_blobs(versions=True))
    assert bucket.blob("a", generation=first).download_as_bytes() == b"1"
    with pytest.raises(NotFound):
        bucket.delete_blob("a")
    bucket.delete_blob("a", generation=first)
    assert generations(bucket, versions=True) == [second]
    listed = put(bucket, data=b"3")
    next(iter(bucket.list_blobs())).delete()
    assert listed.generation not in generations(bucket, versions=True)


def test_a_soft_deleted_object_is_listed_and_restored_until_its_time(
    server: GcsStandIn, client: storage.Client
) -> None:
    bucket = make_bucket(client, "soft", soft_delete=WEEK)
    first = put(bucket)
    bucket.delete_blob("a")
    assert names(bucket) == names(bucket, versions=True) == []
    (soft,) = bucket.list_blobs(soft_deleted=True)
    assert soft.hard_delete_time - soft.soft_delete_time == timedelta(seconds=WEEK)
    restored = bucket.restore_blob("a", generation=first.generation)
    assert restored.generation > first.generation
    assert restored.download_as_bytes() == b"data"
    with pytest.raises(PreconditionFailed):
        bucket.restore_blob("a", generation=first.generation, if_generation_match=0)
    server.time_shift = WEEK + 1
    assert names(bucket, soft_deleted=True) == []
    with pytest.raises(NotFound):
        bucket.restore_blob("a", generation=first.generation)


def test_restoring_without_a_soft_delete_policy_is_refused(bucket: storage.Bucket) -> None:
    with refused(BadRequest, "soft delete policy must be set"):
        bucket.restore_blob("a", generation=1)


def test_a_large_rewrite_takes_several_calls_and_appears_only_at_the_end(
    bucket: storage.Bucket,
) -> None:
    source, target = put(bucket, data=bytes(2 * MIB + 1)), bucket.blob("b")
    token, done, size = target.rewrite(source)
    assert (done, size) == (MIB, 2 * MIB + 1)
    token, done, size = target.rewrite(source, token=token)
    assert token is not None
    assert done == 2 * MIB
    assert names(bucket) == ["a"]
    assert target.rewrite(source, token=token) == (None, size, size)
    assert target.crc32c == source.crc32c


def test_a_rewrite_stops_when_its_source_or_its_target_changed(bucket: storage.Bucket) -> None:
    put(bucket, data=bytes(MIB + 1))
    source, target = bucket.blob("a"), bucket.blob("b")
    token, _, _ = target.rewrite(source)
    guarded = {"if_generation_match": 0, "token": target.rewrite(source)[0]}
    put(bucket, "b", b"someone else's")
    with pytest.raises(PreconditionFailed):
        target.rewrite(source, **guarded)
    put(bucket, data=bytes(MIB + 2))
    with refused(NotFound, "the source changed"):
        target.rewrite(source, token=token)
    assert bucket.blob("b").download_as_bytes() == b"someone else's"


def test_a_copy_takes_the_metadata_but_neither_the_holds_nor_the_class(
    bucket: storage.Bucket,
) -> None:
    source = bucket.blob("a")
    source.metadata, source.storage_class, source.temporary_hold = {"k": "v"}, "NEARLINE", True
    source.upload_from_string(b"x", content_type="video/mp4")
    copied = bucket.copy_blob(source, bucket, "b")
    assert (copied.metadata, copied.content_type, copied.storage_class, copied.temporary_hold) == (
        {"k": "v"},
        "video/mp4",
        "STANDARD",
        None,
    )


def test_the_storage_class_changes_by_rewrite_and_not_by_patch(bucket: storage.Bucket) -> None:
    blob = put(bucket)
    blob.update_storage_class("COLDLINE")
    assert bucket.get_blob("a").storage_class == "COLDLINE"
    blob.storage_class = "ARCHIVE"
    with refused(BadRequest, "rewrite"):
        blob.patch()


def test_a_patch_merges_metadata_and_raises_only_the_metageneration(bucket: storage.Bucket) -> None:
    blob = put(bucket)
    blob.metadata = {"a": "1", "b": "2"}
    blob.patch()
    blob.metadata = {"a": None, "c": "3"}
    blob.patch()
    again = bucket.get_blob("a")
    assert (again.metadata, again.generation, again.metageneration) == (
        {"b": "2", "c": "3"},
        blob.generation,
        3,
    )
    assert again.etag == blob.etag


def test_a_listing_has_every_name_once_in_utf8_order_over_many_pages(
    server: GcsStandIn, bucket: storage.Bucket
) -> None:
    server.page_size = 3
    wanted = ["a", "a b+c%2F?#", "a-b", "a/", "a/b/ç", "a/b/ü/📼", "z//x", "é", "\uffff", "😀"]
    for name in reversed(wanted):
        put(bucket, name)
    pages = list(bucket.list_blobs().pages)
    assert [page.num_items for page in pages] == [3, 3, 3, 1]
    assert names(bucket) == sorted(wanted, key=str.encode) == wanted
    assert names(bucket, start_offset="a/", end_offset="é") == ["a/", "a/b/ç", "a/b/ü/📼", "z//x"]
    assert all(bucket.blob(name).download_as_bytes() == b"data" for name in wanted)
    server.page_size = 1
    folded = bucket.list_blobs(delimiter="/")
    assert [blob.name for blob in folded] == ["a", "a b+c%2F?#", "a-b", "é", "\uffff", "😀"]
    assert folded.prefixes == {"a/", "z/"}
    assert [
        page.num_items + len(page.prefixes) for page in bucket.list_blobs(delimiter="/").pages
    ] == [1] * 8
    assert names(bucket, prefix="a/", max_results=2) == ["a/", "a/b/ç"]


def test_versions_of_one_name_may_lie_on_different_pages(
    server: GcsStandIn, client: storage.Client
) -> None:
    server.page_size = 2
    bucket = make_bucket(client, "versions", versioning_enabled=True)
    made = [put(bucket, name).generation for name in "aaabb"]
    assert generations(bucket, versions=True) == made


def test_a_broken_listing_stays_broken_after_its_first_pages(
    server: GcsStandIn, bucket: storage.Bucket
) -> None:
    server.page_size = 1
    for name in "abc":
        put(bucket, name)
    server.break_listing_after(2)
    for _ in range(2):
        listing = iter(bucket.list_blobs(retry=QUICK))
        assert [next(listing).name, next(listing).name] == ["a", "b"]
        with refused(RetryError, "last exception: 500"):
            next(listing)
    server.break_listing_after(None)
    assert names(bucket) == ["a", "b", "c"]


def test_partial_responses_have_only_the_fields_that_were_asked_for(bucket: storage.Bucket) -> None:
    hold(put(bucket), temporary_hold=True)
    (blob,) = bucket.list_blobs(fields="items(name,size),nextPageToken")
    assert (blob.name, blob.size, blob.temporary_hold, blob.generation) == ("a", 4, None, None)
    with refused(BadRequest, "Invalid field selection holds"):
        names(bucket, fields="items(name,holds)")


def start_session(server: GcsStandIn, **query: str) -> str:
    reply = requests.post(
        f"{server.url}/upload/storage/v1/b/plain/o",
        params={"uploadType": "resumable", "name": "a"} | query,
        timeout=5,
    )
    return reply.headers["Location"]


def send(url: str, content_range: str, data: bytes = b"") -> requests.Response:
    return requests.put(url, data=data, headers={"Content-Range": content_range}, timeout=5)


def test_a_resumable_upload_appears_whole_with_its_last_chunk_or_not_at_all(
    server: GcsStandIn, bucket: storage.Bucket
) -> None:
    url = start_session(server)
    assert send(url, f"bytes 0-{CHUNK - 1}/*", bytes(CHUNK)).status_code == 308
    assert send(url, "bytes */*").headers["Range"] == f"bytes=0-{CHUNK - 1}"
    assert send(url, f"bytes {CHUNK}-{CHUNK + 9}/*", bytes(10)).status_code == 400
    assert (
        send(url, f"bytes {2 * CHUNK}-{2 * CHUNK + 9}/{2 * CHUNK + 10}", bytes(10)).status_code
        == 503
    )
    assert names(bucket) == []
    done = send(url, f"bytes {CHUNK}-{CHUNK + 9}/{CHUNK + 10}", bytes(10))
    assert done.json()["size"] == str(CHUNK + 10)
    assert send(url, "bytes */*").json() == done.json()
    assert names(bucket) == ["a"]


def test_a_resumable_upload_checks_its_precondition_again_at_the_end(
    server: GcsStandIn, bucket: storage.Bucket
) -> None:
    url = start_session(server, ifGenerationMatch="0")
    put(bucket, data=b"first")
    assert send(url, "bytes 0-3/4", b"late").status_code == 412
    assert bucket.blob("a").download_as_bytes() == b"first"


def test_a_hold_set_during_a_resumable_upload_refuses_its_end(
    server: GcsStandIn, bucket: storage.Bucket
) -> None:
    blob, url = put(bucket), start_session(server)
    hold(blob, temporary_hold=True)
    assert send(url, "bytes 0-3/4", b"late").status_code == 403


def test_a_cancelled_session_takes_no_more_bytes(
    server: GcsStandIn, bucket: storage.Bucket
) -> None:
    url = start_session(server)
    assert requests.delete(url, timeout=5).status_code == 499
    assert send(url, "bytes 0-3/4", b"late").status_code == 499
    assert names(bucket) == []


def test_the_client_uploads_streams_in_chunks_and_survives_a_lost_answer(
    server: GcsStandIn, bucket: storage.Bucket
) -> None:
    data = bytes(range(256)) * 3000
    server.fail_next("PUT", "upload_id=", 503, times=2, after=True)
    blob = bucket.blob("a", chunk_size=CHUNK)
    blob.upload_from_file(io.BytesIO(data), size=len(data), retry=QUICK.with_timeout(5))
    with bucket.blob("b", chunk_size=CHUNK).open("wb") as stream:
        stream.write(data)
    assert bucket.blob("a").download_as_bytes() == bucket.blob("b").download_as_bytes() == data


@pytest.mark.parametrize("checksum", ["crc32c", "md5"])
def test_an_upload_whose_checksum_does_not_fit_is_refused_and_leaves_nothing(
    server: GcsStandIn, bucket: storage.Bucket, checksum: str
) -> None:
    wrong = base64.b64encode(google_crc32c.value(b"other").to_bytes(4, "big")).decode()
    single = insert(server, {"name": "a", "crc32c" if checksum == "crc32c" else "md5Hash": wrong})
    url = start_session(server)
    resumed = requests.put(
        url, data=b"data", headers={"X-Goog-Hash": f"{checksum}={wrong}"}, timeout=5
    )
    for reply in (single, resumed):
        assert reply.status_code == 400
        assert "doesn't match calculated" in reply.json()["error"]["message"]
    assert send(url, "bytes */4").status_code == 404
    assert names(bucket) == []


def test_a_download_has_ranges_checksums_and_its_stored_encoding(
    server: GcsStandIn, bucket: storage.Bucket
) -> None:
    blob = bucket.blob("a")
    blob.content_encoding = "gzip"
    blob.upload_from_string(b"0123456789", checksum="md5")
    url = f"{server.url}/download/storage/v1/b/plain/o/a?alt=media"
    with requests.get(url, headers={"Range": "bytes=2-4"}, stream=True, timeout=5) as part:
        assert (part.status_code, part.raw.read(), part.headers["Content-Encoding"]) == (
            206,
            b"234",
            "gzip",
        )
        assert part.headers["Content-Range"] == "bytes 2-4/10"
        assert part.headers["x-goog-hash"] == f"crc32c={blob.crc32c}, md5={blob.md5_hash}"
        assert part.headers["x-goog-generation"] == str(blob.generation)
    assert requests.get(url, headers={"Range": "bytes=10-"}, timeout=5).status_code == 416
    put(bucket, "b", b"0123456789")
    assert bucket.blob("b").download_as_bytes(start=8) == b"89"
    with refused(NotFound, "No such object: plain/c"):
        bucket.blob("c").download_as_bytes()


def test_each_part_of_a_batch_has_its_own_precondition_and_answer(
    client: storage.Client, bucket: storage.Bucket
) -> None:
    first, second = put(bucket, "a"), put(bucket, "b/ü")
    hold(put(bucket, "c"), temporary_hold=True)
    with client.batch(raise_exception=False) as batch:
        bucket.delete_blob("a", if_generation_match=first.generation)
        bucket.delete_blob("b/ü", if_generation_match=second.generation + 1)
        bucket.delete_blob("c")
        bucket.delete_blob("d")
    assert [reply.status_code for reply in batch._responses] == [204, 412, 403, 404]
    assert names(bucket) == ["b/ü", "c"]


def test_a_batch_echoes_each_content_id(server: GcsStandIn, bucket: storage.Bucket) -> None:
    put(bucket)
    body = (
        "--x\nContent-Type: application/http\nContent-ID: <one+1>\n\nDELETE "
        "/storage/v1/b/plain/o/a HTTP/1.1\n\n\n--x--\n"
    )
    reply = requests.post(
        f"{server.url}/batch/storage/v1",
        data=body,
        headers={"Content-Type": "multipart/mixed; boundary=x"},
        timeout=5,
    )
    assert "Content-ID: <response-one+1>" in reply.text
    assert "HTTP/1.1 204 No Content" in reply.text


def test_a_bucket_is_made_once_and_goes_only_when_empty(client: storage.Client) -> None:
    bucket = make_bucket(client, "versions", versioning_enabled=True)
    with pytest.raises(Conflict):
        client.create_bucket("versions")
    put(bucket)
    bucket.delete_blob("a")
    with refused(Conflict, "not empty"):
        bucket.delete()
    bucket.delete(force=True)
    with refused(NotFound, "The specified bucket does not exist"):
        bucket.blob("a").reload()


def test_faults_hit_as_often_as_asked_before_or_after_the_request_took_effect(
    server: GcsStandIn, bucket: storage.Bucket
) -> None:
    put(bucket)
    server.fail_next("DELETE", "/o/a", 503)
    bucket.delete_blob("a", retry=QUICK)
    assert [method for method, path, _ in server.requests if path == "/storage/v1/b/plain/o/a"] == [
        "DELETE",
        "DELETE",
    ]
    put(bucket)
    for status in (503, 0):
        server.fail_next("DELETE", "/o/a", status, after=True)
        with pytest.raises(NotFound):
            bucket.delete_blob("a", retry=QUICK)
        put(bucket)


def test_the_date_header_can_be_wrong_while_the_objects_times_are_right(
    server: GcsStandIn, bucket: storage.Bucket
) -> None:
    server.clock_offset = -3600
    answered = parsedate_to_datetime(
        requests.get(f"{server.url}/storage/v1/b/plain", timeout=5).headers["Date"]
    )
    assert timedelta(minutes=59) < put(bucket).time_created - answered < timedelta(minutes=61)


def test_a_stopped_server_answers_nobody_and_keeps_what_it_had(
    server: GcsStandIn, bucket: storage.Bucket
) -> None:
    put(bucket)
    server.stop()
    with pytest.raises(Exception, match=r"Connection|Remote|reset"):
        names(bucket, retry=None)
    server.start()
    assert names(bucket, retry=QUICK) == ["a"]


def test_the_emulator_variable_leads_the_client_here(
    server: GcsStandIn, bucket: storage.Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
    other = storage.Client(project="test", credentials=AnonymousCredentials()).bucket("plain")
    put(other)
    assert names(bucket) == ["a"]
    assert other.blob("a").download_as_bytes() == b"data"


@pytest.mark.parametrize(
    ("method", "path", "options"),
    [
        ("GET", "/plain/a", {}),
        ("HEAD", "/storage/v1/b/plain", {}),
        ("GET", "/storage/v1/b/plain/iam", {}),
        ("POST", "/storage/v1/b/plain/o/a/compose", {}),
        ("GET", "/storage/v1/b/plain/o?matchGlob=*", {}),
        ("GET", "/storage/v1/b/plain/o?ifGenerationMatch=1", {}),
        ("GET", "/storage/v1/b/plain/o/a", {"headers": {"If-Match": "x"}}),
        ("PATCH", "/storage/v1/b/plain/o/a", {"json": {"hold": True}}),
        ("PATCH", "/storage/v1/b/plain", {"json": {"website": {}}}),
    ],
)
def test_what_is_not_modelled_is_never_a_silent_200(
    server: GcsStandIn, bucket: storage.Bucket, method: str, path: str, options: Any
) -> None:
    put(bucket)
    reply = requests.request(method, server.url + path, timeout=5, **options)
    assert reply.status_code == 501
    assert method == "HEAD" or "does not model" in reply.text
