"""A server that retainer cannot write to is a source all the same."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
import servers
from conftest import endpoint_of
from project import ROOM, make_project, pairs, video

from retainer.demo.standin import StandIn

pytestmark = pytest.mark.skipif("LAB_SERVER" not in os.environ, reason="tests/by_hand/run.sh")
A, B, C = "a" * 24, "b" * 24, "c" * 24


@pytest.mark.parametrize("server", [os.environ.get("LAB_SERVER", "none")])
def test_what_lies_there_is_copied_to_a_store_and_seen_complete(
    server: str, request: pytest.FixtureRequest, tmp_path: Path, api: StandIn
) -> None:
    """Also what was uploaded in parts, and a copy of that, whose list tells another version."""
    project = make_project(
        tmp_path / "p",
        api,
        "local",
        "",
        uploads_server=server,
        uploads_endpoint=endpoint_of(server, request),
    )
    store = project.stores["uploads"]
    client = servers.s3_client(store.endpoint or "")
    long = video(2, 12 << 20)[: 12 << 20]
    contents = {A: video(1), B: long, C: long}

    def key(name: str) -> str:
        return f"{store.prefix}beam/{ROOM}/Rec-{name}.mp4"

    for name, content in contents.items():
        asset = project._asset(
            name,
            content,
            timedelta(days=2),
            "room-composite",
            f"s3://{store.bucket}/{key(name)}",
            {},
        )
        api.add_asset(asset, content, hosted=False)
    client.put_object(Bucket=store.bucket, Key=key(A), Body=contents[A])
    place = {"Bucket": store.bucket, "Key": key(B)}
    upload = client.create_multipart_upload(**place)["UploadId"]
    parts = []
    for number, start in enumerate(range(0, 12 << 20, 6 << 20), 1):
        body = contents[B][start : start + (6 << 20)]
        made = client.upload_part(**place, UploadId=upload, PartNumber=number, Body=body)
        parts.append({"PartNumber": number, "ETag": made["ETag"]})
    client.complete_multipart_upload(**place, UploadId=upload, MultipartUpload={"Parts": parts})
    client.copy_object(Bucket=store.bucket, Key=key(C), CopySource=place)
    project.plan()
    done = project.apply(expect=None)
    assert (done["skipped"], done["failed"], done["copied"]) == ([], [], 3)
    assert sorted(project.content("vault").values()) == sorted(contents.values())
    assert {pairs(project.plan())[name, "vault"] for name in contents} == {"keep"}
