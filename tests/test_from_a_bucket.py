"""What lies in a bucket already: short objects are read and written from here, long ones copied by
the servers, and neither without proof."""

from __future__ import annotations

import gzip
import random
import signal
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import hls
import pytest
import servers
from conftest import SERVERS, endpoint_of, gcs_client
from project import ROOM, Project, make_project, pairs, video
from test_cataloguing import ALL
from test_kill import killed

from retainer.apply.copies import Copies
from retainer.demo.standin import StandIn
from retainer.ports import Checksum, Look
from retainer.stores.s3 import S3Reader, S3Writer

A, B = "a" * 24, "b" * 24
SHORT, LONG, LONGER = 3000, 300_000, 9 << 20


@pytest.fixture(autouse=True)
def no_waits_between_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Copies, "_pause", lambda *_: None)


def made(server: str, request: pytest.FixtureRequest, root: Path, api: StandIn) -> Project:
    project = make_project(root / "project", api, server, endpoint_of(server, request))
    project.write(ALL)
    return project


def key_of(project: Project, name: str) -> str:
    return next(key for key in project.content("uploads") if name in key)


def put_as(project: Project, key: str, content: bytes, **more: Any) -> None:
    uploads = project.stores["uploads"]
    servers.s3_client(uploads.endpoint or "").put_object(
        Bucket=uploads.bucket, Key=uploads.prefix + key, Body=content, **more
    )


@pytest.mark.parametrize("size", [SHORT, LONG, LONGER])
@pytest.mark.parametrize("server", SERVERS)
def test_what_somebody_put_in_the_copys_place_is_left_there(
    server: str, size: int, request: pytest.FixtureRequest, tmp_path: Path, api: StandIn
) -> None:
    project = made(server, request, tmp_path, api)
    project.uploaded(A, video(1, size))
    (row,) = (row for row in project.plan()["rows"] if row["decision"] == "copy")
    project.writer("vault").create(row["target"], iter([b"the only one"]), 12, {}, "video/mp4")
    assert "a different object lies there" in project.apply(expect=7)["failed"][0]["cause"]
    assert list(project.content("vault").values()) == [b"the only one"]


@pytest.mark.parametrize("size", [SHORT, LONG])
@pytest.mark.parametrize(("kind", "wrong"), [("CRC32C", "AAAAAA=="), ("CRC64NVME", "AAAAAAAAAAA=")])
@pytest.mark.parametrize("beside", ["a copy", "a delete"])
def test_what_does_not_have_the_checksum_that_is_stored_with_it_is_not_copied(
    beside: str,
    kind: str,
    wrong: str,
    size: int,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    api: StandIn,
) -> None:
    """moto keeps whatever checksum it is told, as a disk keeps that of bytes which it has lost. A
    plan with deletes there finds that out."""
    project = made("moto", request, tmp_path, api)
    for name, seed in ((A, 1), (B, 2)):
        project.uploaded(name, video(seed, size))
    if beside == "a delete":
        project.write(
            ALL | {"erasures": [{"id": "DSR-1", "why": "a request", "match": {"asset_id": B}}]}
        )
    key = key_of(project, A)
    put_as(project, key, video(1, size), ChecksumAlgorithm=kind, **{f"Checksum{kind}": wrong})
    done = project.apply(
        "p.plan", "--approve-deletes", str(project.plan(expect=None)["header"]["deletes"]), expect=7
    )
    assert (done["copied"], done["deleted"]) == ((1, 0) if beside == "a copy" else (0, 1))
    assert "do not have the checksum that is stored with them" in done["failed"][0]["cause"]
    assert list(project.content("vault").values()) == (
        [video(2, size)] if beside == "a copy" else []
    )

    put_as(project, key, video(1, size))
    project.plan(expect=None)
    assert project.apply()["copied"] == 1
    assert video(1, size) in project.content("vault").values()


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ("seaweedfs", "do not have the checksum that is stored with them"),
        ("seaweedfs_as_aws", "has another checksum than uploads:"),
    ],
)
def test_a_copy_by_servers_of_what_has_another_checksum_does_not_stay(
    server: str,
    said: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    api: StandIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In parts it is not even made: the server is told the checksum that must come."""
    project = made(server, request, tmp_path, api)
    project.uploaded(A, video(1, LONG))
    project.plan()
    look, wrong = S3Reader.look, Checksum("crc32c", "AAAAAA==")

    def damaged(self: S3Reader, key: str) -> Look | None:
        found = look(self, key)
        return (
            replace(found, checksum=wrong, told=wrong)
            if found and A in key and self.name == "uploads"
            else found
        )

    with monkeypatch.context() as patch:
        patch.setattr(S3Reader, "look", damaged)
        assert said in project.apply(expect=7)["failed"][0]["cause"]
    assert project.content("vault") == {}
    project.plan()
    assert project.apply()["copied"] == 1


def test_a_wrong_copy_by_the_servers_is_told_as_theirs(
    request: pytest.FixtureRequest, tmp_path: Path, api: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = made("seaweedfs", request, tmp_path, api)
    project.uploaded(A, video(1, LONG))
    project.plan()

    def wrong(self: S3Writer, source: Any, seen: Any, checksum: Any, key: str, *_: Any) -> Any:
        return self.create(key, iter([bytes(seen.size)]), seen.size, {}, "video/mp4").seen

    monkeypatch.setattr(S3Writer, "copy_within", wrong)
    done = project.apply(expect=7)
    assert (done["copied"], "has another checksum than uploads:" in done["failed"][0]["cause"]) == (
        0,
        True,
    )
    assert project.content("vault") == {}


@pytest.mark.parametrize("server", ["seaweedfs", "moto", "strict_gcs"])
def test_an_error_that_was_saved_as_a_recording_is_not_copied(
    server: str, request: pytest.FixtureRequest, tmp_path: Path, api: StandIn
) -> None:
    """Two of five files of one public archive were such bodies. 100ms's own record says that they
    are recordings."""
    project = made(server, request, tmp_path, api)
    project.uploaded(A, b'{"code": 403, "message": "Token expired", "details": []}')
    project.uploaded(B, video(2))
    project.plan()
    done = project.apply(expect=7)
    assert done["copied"] == 1
    assert "the bytes are no mp4: a JSON error" in done["failed"][0]["cause"]
    assert list(project.content("vault").values()) == [video(2)]


@pytest.mark.parametrize("summed", [True, False])
def test_what_must_be_read_to_be_compared_is_judged_before_anything_is_written(
    summed: bool, request: pytest.FixtureRequest, tmp_path: Path, api: StandIn
) -> None:
    """A page too long to be read where the store tells its checksum: then the servers copy it, and
    nobody looks at it."""
    project = made("seaweedfs", request, tmp_path, api)
    page = b"<!DOCTYPE html><html>" + bytes(LONG)
    project.uploaded(A, page)
    if not summed:
        uploads, key = project.stores["uploads"], key_of(project, A)
        servers.s3_client(uploads.endpoint or "").put_object(
            Bucket=uploads.bucket, Key=uploads.prefix + key, Body=page
        )
    project.plan()
    project.apply(expect=0 if summed else 7)
    assert list(project.content("vault").values()) == ([page] if summed else [])


@pytest.mark.parametrize("lines", [200, 200_000])
@pytest.mark.parametrize("server", ["seaweedfs", "moto", "strict_gcs", "fake_gcs"])
def test_what_is_stored_compressed_is_copied_as_it_is_stored(
    server: str, lines: int, request: pytest.FixtureRequest, tmp_path: Path, api: StandIn
) -> None:
    project = made(server, request, tmp_path, api)
    numbers = random.Random(1)
    stored = gzip.compress(
        b"".join(b"peer,name,%d\n" % numbers.getrandbits(40) for _ in range(lines)), mtime=0
    )
    uploads, key = project.stores["uploads"], f"chat/{ROOM}/Chat-{A}.csv"
    if server.endswith("gcs"):
        blob = gcs_client(uploads.endpoint or "").bucket(uploads.bucket).blob(uploads.prefix + key)
        blob.content_encoding = "gzip"
        blob.upload_from_string(stored, content_type="text/csv")
    else:
        put_as(project, key, stored, ContentEncoding="gzip", ContentType="text/csv")
    api.add_asset(
        project._asset(A, stored, timedelta(days=60), "chat", uploads.base + key, {}),
        stored,
        hosted=False,
    )
    project.plan()
    assert project.apply()["copied"] == 1
    assert list(project.content("vault").values()) == [stored]


def test_an_error_that_was_saved_as_a_segment_fails_its_recording(local: Project) -> None:
    local.write(ALL)
    segment = next(name for name in hls.simple() if name.endswith(".ts"))
    local.uploaded_vod(A, hls.simple() | {segment: b'{"code": 403, "message": "Token expired"}'})
    local.uploaded_vod(
        B, hls.simple() | {"notes.json": b'{"error": "none", "by": "somebody"}'}
    )  # no member, so anything may be in it
    local.plan()
    done = local.apply(expect=7)
    assert done["copied"] == 1
    assert "a JSON error" in done["failed"][0]["cause"]


def test_encrypted_segments_may_begin_like_anything(local: Project) -> None:
    local.write(ALL)
    index = b'#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXT-X-KEY:METHOD=AES-128,URI="1.key"\n#EXTINF:6,\nseg-0.m4s\n#EXT-X-ENDLIST\n'
    files = {
        "master.m3u8": index,
        "1.key": random.Random(1).randbytes(16),
        "seg-0.m4s": random.Random(2).randbytes(999),
    }
    local.uploaded_vod(A, files)
    local.hosted_vod(B, files)
    local.plan()
    assert local.apply()["copied"] == 2


def test_a_playlist_that_is_not_as_it_was_stored_fails_its_recording(
    request: pytest.FixtureRequest, tmp_path: Path, api: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut at a line's end it would lead to fewer segments, and nobody would miss them."""
    project = made("seaweedfs", request, tmp_path, api)
    project.uploaded_vod(A, hls.simple())
    project.plan()
    read = S3Reader.read

    def fewer(self: S3Reader, seen: Any) -> Iterator[bytes]:
        content = b"".join(read(self, seen))
        lines = content.splitlines(keepends=True)
        shorter = b"".join(line for line in lines if line not in lines[-3:-1])
        yield (
            shorter
            if self.name == "uploads" and seen.key.endswith("layer-0/index.m3u8")
            else content
        )

    monkeypatch.setattr(S3Reader, "read", fewer)
    assert (
        "do not have the checksum that is stored with them"
        in project.apply(expect=7)["failed"][0]["cause"]
    )


@pytest.mark.parametrize("size", [SHORT, LONG])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_around_the_write_of_a_copy_loses_nothing(
    when: str, size: int, request: pytest.FixtureRequest, tmp_path: Path, api: StandIn
) -> None:
    project = made("seaweedfs", request, tmp_path, api)
    project.uploaded(A, video(1, size))
    project.plan()
    effect = "create" if size == SHORT else "copy_within"
    assert killed(project, KILL_NAME=effect, KILL_WHEN=when) == -signal.SIGKILL
    assert project.apply()["copied"] == 1
    assert list(project.content("vault").values()) == [video(1, size)]
    assert pairs(project.plan())[A, "vault"] == "keep"


@pytest.mark.parametrize("size", [SHORT, LONG])
def test_what_is_stored_packed_is_kept_as_it_is_and_says_so(
    size: int, request: pytest.FixtureRequest, tmp_path: Path, api: StandIn
) -> None:
    """`../shared/field/b15*`: what is inside is judged, what is stored is kept."""
    project = made("seaweedfs", request, tmp_path, api)
    text = "SenderPeerID,SenderName\n" + "".join(f"{n},{n * n}\n" for n in range(size))
    packed = gzip.compress(text.encode(), mtime=0)
    project.uploaded(A, packed, type="chat")
    put_as(project, key_of(project, A), packed, ContentEncoding="gzip", ContentType="text/csv")
    project.plan()
    assert project.apply()["copied"] == 1
    vault = project.writer("vault")
    (seen,) = vault.list()
    look = vault.look(seen.key)
    assert look is not None and look.encoding == "gzip"
    assert project.content("vault")[seen.key] == packed
