"""The contract of ports.StoreWriter, on every server that has the feature. A new store is one line
in conftest.SERVERS."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anycrc
import google_crc32c
import pytest
import servers
from conftest import (
    Lab,
    endpoint_of,
    gcs_client,
    intercept,
    make_store,
    make_writer,
    operation_of,
    without,
)

from retainer.apply.verify import checksum_of, proven_same
from retainer.errors import KeyTaken, ListingBroken, StoreFailed, Unverified
from retainer.model.setting import Store
from retainer.ports import Checksum, Deletion, Digest, Look, Seen, Version
from retainer.stores.s3 import S3Writer
from retainer.stores.wire import Answer, Request

MiB = 1 << 20


def put(
    lab: Lab, key: str, content: bytes = b"hello", metadata: dict[str, str] | None = None
) -> Seen:
    return lab.writer.create(key, iter([content]), len(content), metadata or {}, "video/mp4").seen


def content_of(lab: Lab, key: str) -> bytes:
    look = lab.writer.look(key)
    assert look is not None
    return b"".join(lab.writer.read(look.seen))


def crc32c(content: bytes) -> str:
    return base64.b64encode(google_crc32c.Checksum(content).digest()).decode()


def overwrite(lab: Lab, key: str, content: bytes) -> None:
    """As somebody else would, without any condition."""
    store: Store = lab.writer.store  # type: ignore[attr-defined]
    if store.scheme == "file":
        path = Path(store.prefix) / key
        stat = path.stat()
        path.write_bytes(content)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    elif store.scheme == "s3":
        servers.s3_client(lab.endpoint).put_object(
            Bucket=store.bucket, Key=store.prefix + key, Body=content
        )
    else:
        gcs_client(lab.endpoint).bucket(store.bucket).blob(store.prefix + key).upload_from_string(
            content
        )


def test_what_was_created_is_listed_looked_at_and_read(lab: Lab) -> None:
    seen = put(lab, "a/b/one.mp4", b"0123456789", {"retainer-asset": "a1"})
    assert [(each.key, each.size, each.version) for each in lab.writer.list()] == [
        ("a/b/one.mp4", 10, seen.version)
    ]
    look = lab.writer.look("a/b/one.mp4")
    assert look is not None and look.metadata == {"retainer-asset": "a1"}
    assert content_of(lab, "a/b/one.mp4") == b"0123456789"


def test_an_absent_object_is_none(lab: Lab) -> None:
    put(lab, "there")
    assert lab.writer.look("not/there") is None


def test_an_empty_object_can_be_created_and_read(lab: Lab) -> None:
    put(lab, "empty", b"")
    assert content_of(lab, "empty") == b""


def test_a_create_never_overwrites(lab: Lab) -> None:
    put(lab, "k", b"first")
    with pytest.raises(KeyTaken):
        put(lab, "k", b"second")
    assert content_of(lab, "k") == b"first"


def test_a_large_create_never_overwrites(lab: Lab) -> None:
    put(lab, "k", b"first")
    with pytest.raises(KeyTaken):
        lab.writer.create("k", iter([bytes(MiB)] * 17), 17 * MiB, {}, "video/mp4")
    assert content_of(lab, "k") == b"first"


def test_of_many_creates_at_once_one_wins(lab: Lab) -> None:
    lab.needs("creates in one step")

    def attempt(number: int) -> bool:
        try:
            put(lab, "raced", f"{number}".encode())
        except KeyTaken:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        wins = list(pool.map(attempt, range(8)))
    assert sum(wins) == 1
    assert content_of(lab, "raced") == str(wins.index(True)).encode()


@pytest.mark.parametrize("size", [8 * MiB - 1, 8 * MiB, 8 * MiB + 1, 16 * MiB, 19 * MiB + 7])
def test_a_stream_of_any_length_arrives_whole(lab: Lab, size: int) -> None:
    content = random.Random(size).randbytes(size)
    pieces = (content[start : start + 300_001] for start in range(0, size, 300_001))
    seen = lab.writer.create("big", pieces, None, {}, "video/mp4").seen
    assert seen.size == size
    assert content_of(lab, "big") == content
    proven_same(
        lab.writer, "big", Digest(size, crc32c(content), hashlib.sha256(content).hexdigest())
    )
    with pytest.raises(Unverified):
        proven_same(
            lab.writer, "big", Digest(size, crc32c(b"other"), hashlib.sha256(b"other").hexdigest())
        )


@pytest.mark.parametrize("before", [0, 5, 18 * MiB])
def test_a_stream_that_breaks_leaves_nothing_that_is_listed(lab: Lab, before: int) -> None:
    def breaking() -> Iterator[bytes]:
        for start in range(0, before, MiB):
            yield bytes(min(MiB, before - start))
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError):
        lab.writer.create("broken", breaking(), None, {}, "video/mp4")
    assert lab.writer.look("broken") is None
    assert list(lab.writer.list()) == []


def test_a_delete_removes_just_what_was_seen(lab: Lab) -> None:
    seen, other = put(lab, "x/one"), put(lab, "x/two")
    assert lab.writer.delete(seen) is Deletion.DELETED
    assert list(lab.writer.list()) == [
        dataclasses.replace(next(iter(lab.writer.list())), key="x/two")
    ]
    assert other.key == "x/two"


def test_a_changed_object_survives_a_delete(lab: Lab) -> None:
    seen = put(lab, "k", b"first")
    overwrite(lab, "k", b"other")
    assert lab.writer.delete(seen) is Deletion.CHANGED
    assert content_of(lab, "k") == b"other"


def test_deleting_what_is_gone_says_so(lab: Lab) -> None:
    seen = put(lab, "k")
    assert lab.writer.delete(seen) is Deletion.DELETED
    assert lab.writer.delete(seen) is Deletion.GONE


def test_a_read_of_a_changed_object_fails(lab: Lab) -> None:
    lab.needs("conditional reads")
    seen = put(lab, "k", b"first")
    overwrite(lab, "k", b"other")
    with pytest.raises(StoreFailed):
        b"".join(lab.writer.read(seen))


def test_a_delete_where_versioning_is_on_leaves_a_version_behind(
    lab: Lab, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    lab.needs("versions")
    store = make_store(
        lab.server, endpoint_of(lab.server, request), tmp_path, bucket="lab-versioned"
    )
    writer = make_writer(store)
    assert "keeps versions" in (writer.keeps_deleted() or "")
    seen = writer.create("kept", iter([b"content"]), 7, {}, "video/mp4").seen
    assert writer.delete(seen) is Deletion.DELETED
    assert writer.look("kept") is None
    if store.scheme == "s3":
        found = servers.s3_client(lab.endpoint).list_object_versions(
            Bucket=store.bucket, Prefix=store.prefix + "kept"
        )
        assert len(found["Versions"]) == 1
    else:
        versions = list(
            gcs_client(lab.endpoint).list_blobs(
                store.bucket, prefix=store.prefix + "kept", versions=True
            )
        )
        assert len(versions) == 1


@pytest.fixture
def versioned(lab: Lab, request: pytest.FixtureRequest, tmp_path: Path) -> Lab:
    """A store in a bucket that keeps versions."""
    lab.needs("versions")
    endpoint = endpoint_of(lab.server, request)
    store = make_store(lab.server, endpoint, tmp_path, bucket="lab-versioned")
    return dataclasses.replace(lab, writer=make_writer(store))


def test_what_was_deleted_where_versions_are_kept_is_brought_back_as_it_was(versioned: Lab) -> None:
    seen = put(versioned, "a/k", b"content", {"retainer-asset": "a1"})
    put(versioned, "a/k-behind", b"other")
    assert versioned.writer.hidden(seen) is None  # it is there
    assert versioned.writer.delete(seen) is Deletion.DELETED
    hidden = versioned.writer.hidden(seen)
    assert hidden is not None and hidden.seen == seen
    back = versioned.writer.bring_back(hidden)
    look = versioned.writer.look("a/k")
    assert look is not None and look.seen == dataclasses.replace(
        back, locked_until=look.seen.locked_until, lock_read=look.seen.lock_read
    )
    assert look.metadata == {"retainer-asset": "a1"}
    assert content_of(versioned, "a/k") == b"content"
    assert (back.version == seen.version) is (versioned.writer.store.scheme == "s3")  # type: ignore[attr-defined]


def test_what_was_deleted_twice_is_brought_back_once(versioned: Lab) -> None:
    """Somebody deleted again what was deleted: S3 lays one more marker upon it."""
    seen = put(versioned, "k", b"content")
    assert versioned.writer.delete(seen) is Deletion.DELETED
    store: Store = versioned.writer.store  # type: ignore[attr-defined]
    if store.scheme == "s3":
        servers.s3_client(versioned.endpoint).delete_object(
            Bucket=store.bucket, Key=store.prefix + "k"
        )
    hidden = versioned.writer.hidden(seen)
    assert hidden is not None
    versioned.writer.bring_back(hidden)
    assert content_of(versioned, "k") == b"content"


def test_nothing_is_brought_back_over_what_lies_there_by_now(versioned: Lab) -> None:
    seen = put(versioned, "k", b"content")
    assert versioned.writer.delete(seen) is Deletion.DELETED
    hidden = versioned.writer.hidden(seen)
    assert hidden is not None
    put(versioned, "k", b"somebody else's")
    with pytest.raises((KeyTaken, StoreFailed)):
        versioned.writer.bring_back(hidden)
    assert content_of(versioned, "k") == b"somebody else's"
    if versioned.writer.store.scheme == "s3":  # type: ignore[attr-defined]
        assert versioned.writer.hidden(seen) is None


def test_another_version_is_not_taken_for_the_one_that_was_deleted(versioned: Lab) -> None:
    seen = put(versioned, "k", b"content")
    other = dataclasses.replace(seen, version=seen.version[::-1])
    assert versioned.writer.delete(seen) is Deletion.DELETED
    assert versioned.writer.hidden(other) is None
    assert versioned.writer.hidden(dataclasses.replace(seen, key="never")) is None


def versions_of(lab: Lab, under: str) -> list[Version]:
    return list(lab.writer.versions(under))


def test_every_version_of_just_one_key_is_told(versioned: Lab) -> None:
    put(versioned, "a/k", b"1")
    overwrite(versioned, "a/k", b"22")
    overwrite(versioned, "a/k", b"333")
    put(versioned, "a/k-behind", b"4444")
    put(versioned, "b", b"55555")
    found = versions_of(versioned, "a/k")
    assert sorted(each.seen.size for each in found) == [1, 2, 3]
    assert {each.seen.key for each in found} == {"a/k"}
    assert len({each.id for each in found}) == 3
    look = versioned.writer.look("a/k")
    (current,) = [each for each in found if each.is_current]
    assert look is not None and (current.seen.version, current.seen.size) == (look.seen.version, 3)
    assert sorted(each.seen.size for each in versions_of(versioned, "a/")) == [1, 2, 3, 4]
    assert versions_of(versioned, "never") == versions_of(versioned, "never/") == []


def test_a_delete_marker_is_told_as_one(versioned: Lab) -> None:
    if versioned.writer.store.scheme == "gs":  # type: ignore[attr-defined]
        pytest.skip(reason="Google has no delete markers")
    assert versioned.writer.delete(put(versioned, "k")) is Deletion.DELETED
    found = versions_of(versioned, "k")
    assert sorted((each.is_marker, each.is_current) for each in found) == [
        (False, False),
        (True, True),
    ]


def test_only_the_version_that_is_named_is_removed(versioned: Lab) -> None:
    first = put(versioned, "k", b"1")
    overwrite(versioned, "k", b"22")
    overwrite(versioned, "k", b"333")
    (oldest,) = [each for each in versions_of(versioned, "k") if each.seen.size == 1]
    assert versioned.writer.remove(oldest) is Deletion.DELETED
    assert sorted(each.seen.size for each in versions_of(versioned, "k")) == [2, 3]
    assert content_of(versioned, "k") == b"333"
    # Amazon says that what is not there was removed, Google that it is not there
    assert versioned.writer.remove(oldest) in (Deletion.DELETED, Deletion.GONE)
    assert content_of(versioned, "k") == b"333"
    assert versioned.writer.hidden(first) is None


def test_once_all_versions_are_removed_nothing_can_be_brought_back(versioned: Lab) -> None:
    put(versioned, "k", b"1")
    overwrite(versioned, "k", b"22")
    found = versions_of(versioned, "k")
    for each in sorted(found, key=lambda each: each.is_current):
        assert versioned.writer.remove(each) is Deletion.DELETED
    assert versions_of(versioned, "k") == []
    assert versioned.writer.look("k") is None
    (current,) = [each for each in found if each.is_current]
    hidden = versioned.writer.hidden(current.seen)
    soft = versioned.server == "strict_gcs"  # which keeps it for a week more, as Google does
    assert (hidden is not None and hidden.soft) is soft


def test_removing_what_was_overwritten_leaves_what_is_new(versioned: Lab) -> None:
    put(versioned, "k", b"1")
    (current,) = versions_of(versioned, "k")
    overwrite(versioned, "k", b"22")
    assert versioned.writer.remove(current) is Deletion.DELETED
    assert content_of(versioned, "k") == b"22"


def test_where_no_versions_are_kept_the_one_there_is_told_and_removed(lab: Lab) -> None:
    put(lab, "a/k", b"content")
    put(lab, "a/l", b"other")
    (found,) = versions_of(lab, "a/k")
    assert found.is_current and not found.is_marker and found.seen.size == 7
    assert lab.writer.remove(found) is Deletion.DELETED
    assert lab.writer.look("a/k") is None
    assert content_of(lab, "a/l") == b"other"


def test_where_no_versions_are_kept_what_changed_is_not_removed(lab: Lab) -> None:
    lab.needs("conditional deletes")
    put(lab, "k", b"content")
    (found,) = versions_of(lab, "k")
    overwrite(lab, "k", b"somebody else's")
    assert lab.writer.remove(found) in (Deletion.CHANGED, Deletion.GONE)
    assert content_of(lab, "k") == b"somebody else's"


def test_what_is_gone_for_good_is_not_hidden(lab: Lab) -> None:
    """Where a bucket keeps nothing; one of Google's keeps it for a week."""
    seen = put(lab, "k", b"content")
    assert lab.writer.delete(seen) is Deletion.DELETED
    hidden = lab.writer.hidden(seen)
    if lab.server != "strict_gcs":
        assert hidden is None
        return
    assert hidden is not None and hidden.soft and hidden.until is not None
    back = lab.writer.bring_back(hidden)
    assert content_of(lab, "k") == b"content"
    with pytest.raises(KeyTaken):
        lab.writer.bring_back(hidden)
    assert back.version != seen.version


def test_the_conditions_that_a_server_honours_are_found_out(lab: Lab) -> None:
    conditions = lab.writer.conditions()
    assert conditions.create
    assert conditions.delete is ("conditional deletes" not in lab.lacks)
    assert conditions.batch_delete is ("batch deletes" not in lab.lacks)
    assert conditions.parts is ("conditional streamed uploads" not in lab.lacks)
    assert conditions.checksum is ("checksums" not in lab.lacks)
    assert conditions.copy is ("copies in one call" not in lab.lacks)
    assert list(lab.writer.list("_retainer/")) == []


@pytest.mark.parametrize(
    "call, create, parts, copy",
    [
        ("PutObject", False, True, False),
        ("CompleteMultipartUpload", True, False, True),
        ("CopyObject", True, True, False),
    ],
)
def test_a_call_whose_condition_is_ignored_is_found_out(
    seaweedfs_as_aws: str, tmp_path: Path, call: str, create: bool, parts: bool, copy: bool
) -> None:
    writer = S3Writer(make_store("seaweedfs_as_aws", seaweedfs_as_aws, tmp_path))

    intercept(writer, call, without("if-none-match"))
    conditions = writer.conditions()
    assert (conditions.create, conditions.parts, conditions.copy) == (create, parts, copy)


@pytest.mark.parametrize("call", ["PutObject", "CompleteMultipartUpload"])
def test_a_call_whose_checksum_is_ignored_is_found_out(
    seaweedfs: str, tmp_path: Path, call: str
) -> None:
    writer = S3Writer(make_store("seaweedfs", seaweedfs, tmp_path))

    intercept(writer, call, without("x-amz-checksum-crc32c"))
    assert not writer.conditions().parts_checksum
    assert writer.conditions().checksum is (call != "PutObject")


def test_a_store_without_uploads_in_parts_takes_single_writes(
    seaweedfs: str, tmp_path: Path
) -> None:
    writer = S3Writer(make_store("seaweedfs", seaweedfs, tmp_path))
    no = Answer(501, {}, b"<Error><Code>NotImplemented</Code></Error>")
    intercept(writer, "CreateMultipartUpload", lambda _: no)
    assert writer.conditions().create
    writer.create("a", iter([b"one"]), 3, {}, "video/mp4")
    with pytest.raises(StoreFailed):
        writer.create("b", iter([bytes(MiB)] * 9), 9 * MiB, {}, "video/mp4")


def test_every_write_is_one_that_a_strict_bucket_takes(
    seaweedfs_as_aws: str, tmp_path: Path
) -> None:
    """A policy may demand the encryption with every write, and AWS demands a checksum of every part
    where a bucket locks by default."""
    store = dataclasses.replace(
        make_store("seaweedfs_as_aws", seaweedfs_as_aws, tmp_path), kms_key="alias/evidence"
    )
    writer, sent = S3Writer(store), set()

    key, kind = "x-amz-server-side-encryption-aws-kms-key-id", "x-amz-server-side-encryption"

    def watch(request: Request) -> Request:
        operation = operation_of(request)
        sent.add(operation)
        if operation in ("PutObject", "CreateMultipartUpload", "CopyObject"):
            assert request.headers.get(key) == "alias/evidence", operation
        if operation in ("PutObject", "UploadPart"):
            assert "x-amz-checksum-crc32c" in request.headers, operation
        return without(key, kind)(request)  # SeaweedFS has no such key

    intercept(writer, None, watch)
    assert writer.conditions().copy
    first = writer.create("a", iter([b"one"]), 3, {}, "video/mp4")
    assert writer.replace(first.seen, b"two")
    writer.create("b", iter([bytes(MiB)] * 9), 9 * MiB, {}, "video/mp4")
    look = writer.look("b")
    assert (
        look
        and look.checksum
        and writer.copy_within(writer, look.seen, look.checksum, "c", {}, "video/mp4")
    )
    assert {"PutObject", "UploadPart", "CreateMultipartUpload", "CopyObject"} <= sent


@pytest.mark.parametrize("size", [5, 17 * MiB])
def test_only_of_a_store_that_refuses_wrong_checksums_is_one_believed(lab: Lab, size: int) -> None:
    content = random.Random(7).randbytes(size)
    written = lab.writer.create(
        "a", (content[at : at + MiB] for at in range(0, size, MiB)), size, {}, "video/mp4"
    )
    in_parts = size > 8 * MiB
    assert written.checksum is None or in_parts, "what is not proven by the write itself is not yet"
    computed = Checksum("crc32c", crc32c(content)) if lab.writer.conditions().checksum else None
    look = lab.writer.look("a")
    assert look is not None and (look.seen.version, look.checksum) == (
        written.seen.version,
        computed,
    )
    again = lab.writer.create(
        "b", (content[at : at + MiB] for at in range(0, size, MiB)), size, {}, "video/mp4"
    )
    assert again.checksum == computed


def test_a_listing_pages_through_everything_and_leaves_out_retainers_own(lab: Lab) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: put(lab, f"n/{n:04}", b"x"), range(1050)))
    put(lab, "_retainer/catalog/part", b"x")
    assert sorted(each.key for each in lab.writer.list()) == [f"n/{n:04}" for n in range(1050)]
    assert [each.key for each in lab.writer.list("_retainer/catalog/")] == [
        "_retainer/catalog/part"
    ]


def test_a_listing_that_breaks_raises(lab: Lab, tmp_path: Path) -> None:
    broken = dataclasses.replace(
        lab.writer.store,  # type: ignore[attr-defined]
        url=f"file://{tmp_path}/not-there"
        if lab.server == "local"
        else f"{lab.writer.store.scheme}://no-such-bucket/x",  # type: ignore[attr-defined]
    )
    with pytest.raises(ListingBroken):
        list(make_writer(broken).list())


def test_the_server_tells_its_time(lab: Lab) -> None:
    from datetime import UTC, datetime, timedelta

    assert abs(lab.writer.server_time() - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_replace_wins_only_over_what_was_seen(lab: Lab) -> None:
    assert lab.writer.conditions().replace
    first = put(lab, "_retainer/lock", b"one")
    second = lab.writer.replace(first, b"two")
    assert second is not None
    assert lab.writer.replace(first, b"three") is None
    assert content_of(lab, "_retainer/lock") == b"two"


@pytest.mark.parametrize("key", ["päth/ünï ço.de", "a b/c+d&e=f", "percent%20/%2F", "quote'\"/x"])
def test_any_key_comes_back_as_it_was_written(lab: Lab, key: str) -> None:
    seen = put(lab, key, b"k")
    assert [each.key for each in lab.writer.list()] == [key]
    assert lab.writer.delete(seen) is Deletion.DELETED


@pytest.mark.parametrize("size", [5, 17 * MiB])
def test_how_bytes_are_packed_is_kept_with_them(lab: Lab, size: int) -> None:
    content = random.Random(6).randbytes(size)
    lab.writer.create("k", iter([content]), size, {}, "text/csv", encoding="gzip")
    look = lab.writer.look("k")
    assert look is not None
    assert look.encoding == ("" if lab.writer.store.scheme == "file" else "gzip")
    assert content_of(lab, "k") == content
    put(lab, "plain", b"5")
    plain = lab.writer.look("plain")
    assert plain is not None and plain.encoding == ""


def test_a_copy_on_the_servers_side_is_whole_and_never_overwrites(
    lab: Lab, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    lab.needs("server-side copies")
    source = make_writer(
        make_store(lab.server, endpoint_of(lab.server, request), tmp_path, name="other")
    )
    content = random.Random(5).randbytes(9 * MiB)
    source.create("from", iter([content]), len(content), {}, "video/mp4")
    seen, checksum = source.look("from").seen, Checksum("crc32c", crc32c(content))  # type: ignore[union-attr]
    copied = lab.writer.copy_within(
        source, seen, checksum, "to", {"retainer-asset": "a1"}, "video/mp4"
    )
    assert copied is not None and copied.size == len(content)
    assert content_of(lab, "to") == content
    look = lab.writer.look("to")
    assert look is not None and (look.checksum, (look.metadata or {}).get("retainer-asset")) == (
        checksum,
        "a1",
    )
    with pytest.raises(KeyTaken):
        lab.writer.copy_within(source, seen, checksum, "to", {}, "video/mp4")


def test_servers_copy_only_where_that_is_proven_to_be_safe(
    lab: Lab, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    source = make_writer(
        make_store(lab.server, endpoint_of(lab.server, request), tmp_path, name="other")
    )
    seen = source.create("from", iter([b"content"]), 7, {}, "video/mp4").seen
    assert lab.writer.copies_from(source) is ("server-side copies" not in lab.lacks)
    if "server-side copies" in lab.lacks:
        assert (
            lab.writer.copy_within(
                source, seen, Checksum("crc32c", crc32c(b"content")), "to", {}, "video/mp4"
            )
            is None
        )
        assert lab.writer.look("to") is None


def test_what_has_another_checksum_is_not_copied_or_is_seen_to_have_another(
    lab: Lab, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    lab.needs("server-side copies")
    source = make_writer(
        make_store(lab.server, endpoint_of(lab.server, request), tmp_path, name="other")
    )
    seen = source.create("from", iter([b"content"]), 7, {}, "video/mp4").seen
    made = lab.writer.copy_within(
        source, seen, Checksum("crc32c", crc32c(b"another")), "to", {}, "video/mp4"
    )
    look = lab.writer.look("to")
    if "copies in one call" in lab.lacks:
        assert made is None and look is None
    else:
        assert look is not None and look.checksum == Checksum("crc32c", crc32c(b"content"))


def test_a_changed_source_is_not_copied_on_the_servers_side(
    lab: Lab, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    lab.needs("server-side copies")
    source_lab = dataclasses.replace(
        lab,
        writer=make_writer(
            make_store(lab.server, endpoint_of(lab.server, request), tmp_path, name="other")
        ),
    )
    seen = put(source_lab, "from", b"first")
    overwrite(source_lab, "from", b"other")
    with pytest.raises(StoreFailed):
        lab.writer.copy_within(
            source_lab.writer, seen, Checksum("crc32c", crc32c(b"first")), "to", {}, "video/mp4"
        )
    assert lab.writer.look("to") is None


def crc64nvme(content: bytes) -> str:
    return base64.b64encode(anycrc.Model("CRC64-NVME").calc(content).to_bytes(8, "big")).decode()


@pytest.mark.parametrize("part", [512 * MiB, 5 * MiB])
@pytest.mark.parametrize("server", ["seaweedfs", "seaweedfs_as_aws"])
def test_what_s3_computed_by_itself_is_computed_of_the_copy_too(
    server: str,
    part: int,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("retainer.stores.s3_uploads.COPY_PART", part)
    endpoint = request.getfixturevalue(server)
    source, target = (
        S3Writer(make_store(server, endpoint, tmp_path, name=name)) for name in ("other", "vault")
    )
    content = random.Random(6).randbytes(9 * MiB)
    servers.s3_client(endpoint).put_object(
        Bucket=source.store.bucket,
        Key=f"{source.store.prefix}from",
        Body=content,
        ChecksumCRC64NVME=crc64nvme(content),
    )
    look = source.look("from")
    checksum = Checksum("crc64nvme", crc64nvme(content))
    assert look is not None and look.checksum == checksum
    assert target.copy_within(source, look.seen, checksum, "to", {}, "video/mp4") is not None
    there = target.look("to")
    assert there is not None and there.checksum == look.checksum
    assert checksum_of(target, Look(there.seen), "crc64nvme") == look.checksum, (
        "and so do its bytes, read back"
    )
    with pytest.raises(KeyTaken):
        target.copy_within(source, look.seen, checksum, "to", {}, "video/mp4")


@pytest.mark.parametrize("server", ["seaweedfs", "seaweedfs_as_aws"])
def test_a_copy_of_what_has_no_checksum_gets_one(
    server: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    endpoint = request.getfixturevalue(server)
    source, target = (
        S3Writer(make_store(server, endpoint, tmp_path, name=name)) for name in ("other", "vault")
    )
    servers.s3_client(endpoint).put_object(
        Bucket=source.store.bucket, Key=f"{source.store.prefix}from", Body=b"bare"
    )
    look = source.look("from")
    assert look is not None and look.checksum is None
    checksum = Checksum("crc32c", crc32c(b"bare"))
    assert target.copy_within(source, look.seen, checksum, "to", {}, "video/mp4") is not None
    there = target.look("to")
    assert there is not None and there.checksum == checksum


def test_a_batch_deletes_each_object_on_its_own_condition(lab: Lab) -> None:
    lab.needs("batch deletes")
    keep, go, gone = put(lab, "keep", b"first"), put(lab, "go"), put(lab, "gone")
    overwrite(lab, "keep", b"other")
    lab.writer.delete(gone)
    outcome = lab.writer.delete_batch([keep, go, gone])
    assert outcome[:2] == [Deletion.CHANGED, Deletion.DELETED]
    assert outcome[2] in (Deletion.GONE, Deletion.DELETED)
    assert content_of(lab, "keep") == b"other"
