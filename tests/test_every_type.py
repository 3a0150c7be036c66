"""Every type of recording with every property that 100ms tells, hosted and in a bucket, all the way
from the list to the delete. The table that comes out stands in docs/reference/100ms-api.md; with
RETAINER_WRITE_DOCS=1 it is written there."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import servers
from project import ROOM, Project, make_project, pairs, video

from retainer.demo.standin import StandIn
from retainer.model.rule import ASSET_TYPES
from retainer.stores.parts import crc32c_of

PAGE = Path(__file__).parents[1] / "docs/reference/100ms-api.md"
BEGIN, END = "<!-- every type: tests/test_every_type.py -->", "<!-- end -->"
STEPS = ("listed", "matched", "planned", "explained", "copied", "verified", "deleted")
TEMPLATE = "7e3" + "0" * 21
USER, PEER = "user-7", "11111111-1111-4111-8111-111111111111"


def zipped() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("master.m3u8", "#EXTM3U\n")
    return made.getvalue()


FILES: Mapping[str, tuple[str, bytes, dict[str, Any]]] = {
    "room-composite": ("mp4", video(1), {"resolution": {"width": 1280, "height": 720}}),
    "room-composite-legacy": ("mp4", video(2), {"resolution": {"width": 640, "height": 480}}),
    "room-vod": ("zip", zipped(), {"num_layers": "4", "max_width": 1280, "max_height": 720}),
    "chat": ("csv", b"SenderPeerID,SenderName\n", {}),
    "transcript": ("txt", b"good morning\n", {"output_mode": "txt"}),
    "summary": ("json", b'{"summary": "good morning"}', {"output_mode": "json"}),
    "track": ("webm", b"\x1aE\xdf\xa3" + b"w" * 900, {"track_type": "video"}),
    "stream": ("mp4", video(3), {"stream_type": "screen"}),
}
"""By type the end of its name, its bytes, and the metadata that only it has."""


def asset(project: Project, kind: str, *, hosted: bool) -> dict[str, Any]:
    """A recording with every property, none of them like another recording's."""
    number = ASSET_TYPES.index(kind) * 2 + hosted
    end, content, metadata = FILES[kind]
    base = "s3://hms-prod-eu/" if hosted else project.stores["uploads"].base
    told = project._asset(
        f"{number:024x}",
        content,
        timedelta(days=2),
        kind,
        f"{base}rec/{kind}/x{number}.{end}",
        {
            "session_id": f"5e55{number:020x}",
            "duration": 0 if kind in ("chat", "transcript", "summary") else 100 + number,
            "metadata": metadata | {"peer_id": PEER, "user_id": USER},
        },
    )
    if kind == "room-vod":
        told["thumbnails"] = [f"{base}rec/{kind}/thumbs/{number}.jpg"]
    return told


def place(project: Project, told: dict[str, Any]) -> None:
    content = FILES[told["type"]][1]
    hosted = told["path"].startswith("s3://hms-prod")
    project.api.add_asset(told, content, hosted=hosted)
    if hosted:
        return
    store = project.stores["uploads"]
    for key, body in {
        told["path"]: content,
        **{face: b"\xff\xd8\xff" + b"j" * 90 for face in told["thumbnails"] or ()},
    }.items():
        servers.s3_client(store.endpoint or "").put_object(
            Bucket=store.bucket,
            Key=store.prefix + key.removeprefix(store.base),
            Body=body,
            ChecksumCRC32C=crc32c_of(body),
        )


def matches(told: dict[str, Any]) -> dict[str, Any]:
    """By property a match that only it fits, or that tells it from what it is not."""
    metadata = {
        key: value for key, value in told["metadata"].items() if not isinstance(value, dict)
    }
    return {
        "id": {"asset_id": told["id"]},
        "job_id": {"job_id": told["job_id"]},
        "room_id": {"room_id": told["room_id"]},
        "room": {"room": "sales-*"},
        "template": {"template": "def*"},
        "template_id": {"template_id": TEMPLATE},
        "session_id": {"session_id": told["session_id"]},
        "type": {"type": told["type"]},
        "status": {"status": "completed"},
        "path": {"path": f"*/{told['path'].rpartition('/')[2]}"},
        "size": {"size": {"min": told["size"], "max": told["size"]}},
        "duration": {"duration": {"min": 1}},
        "created_at": {"created": {"after": told["created_at"]}},
        "thumbnails": {"thumbnails": bool(told["thumbnails"])},
        "metadata": {"metadata": {key: str(value) for key, value in metadata.items()}},
        "nested metadata": {"metadata": {"resolution.width": {"min": 1}}}
        if "resolution" in told["metadata"]
        else "all",
        "user_id": {"user_id": USER},
        "peer_id": {"peer_id": PEER},
    }


def answer(told: dict[str, Any], name: str) -> str:
    """What has no duration is a plain no to it."""
    return "no" if name == "duration" and not told["duration"] else "yes"


def rules(told: dict[str, Any], **asks: Any) -> list[dict[str, Any]]:
    """A rule for each property of a recording, and that recording alone."""
    return [
        {
            "id": f"{told['id'][-2:]}-{name.replace(' ', '-')}",
            "match": {"all": [{"asset_id": told["id"]}, match]},
            **asks,
        }
        for name, match in matches(told).items()
    ]


@pytest.fixture(scope="module")
def held(
    seaweedfs: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, bool], set[str]]:
    """By type, and whether 100ms hosts it, the steps that were seen to hold."""
    found: dict[tuple[str, bool], set[str]] = {}
    with StandIn() as api:
        folder = tmp_path_factory.mktemp("every")
        project = make_project(folder / "project", api, "seaweedfs", seaweedfs)
        api.add_room(
            {"id": ROOM, "name": "sales-1", "template": "default", "template_id": TEMPLATE}
        )
        both = {
            (kind, hosted): asset(project, kind, hosted=hosted)
            for kind in ASSET_TYPES
            for hosted in (True, False)
        }
        for told in both.values():
            place(project, told)
        keep = {"keep": [{"in": "vault", "for": "1y"}]}
        project.write(
            {"version": 1, "rules": [r for told in both.values() for r in rules(told, **keep)]}
        )
        planned = pairs(project.plan())
        before = {key: _explained(project, told["id"]) for key, told in both.items()}
        project.apply()
        census = json.loads(project.run("verify", "vault", "--format", "json").stdout)
        kept = pairs(project.plan())
        lying = project.content("vault")
        delete = {"delete": [{"in": "vault", "after": "1h"}, {"in": "uploads", "after": "1h"}]}
        project.limits = project.limits | {"last_copies": len(both)}
        project.write(
            {"version": 1, "rules": [r for told in both.values() for r in rules(told, **delete)]}
        )
        lifts = [
            f"--lift={limit}:store:{store}"
            for store in ("vault", "uploads")
            for limit in ("empty", "percent")
        ]
        last = project.plan("due.plan", *lifts)
        done = project.apply_all("due.plan", last)
        left = {store: set(project.content(store)) for store in ("vault", "uploads")}
        assert not done["failed"], done
        for (kind, hosted), told in both.items():
            id_, facts = told["id"], dict(before[kind, hosted]["facts"])
            mine = [key for key in lying if f"/{id_}/" in key]
            copies = [lying[key] for key in mine]
            considered = [
                each
                for each in before[kind, hosted]["considered"]
                if each["id"].startswith(f"{id_[-2:]}-")
            ]
            steps = {
                "listed": all(
                    str(told[name]) == facts.get(name)
                    for name in (
                        "job_id",
                        "room_id",
                        "session_id",
                        "type",
                        "status",
                        "path",
                        "size",
                    )
                )
                and json.loads(facts["metadata"]) == told["metadata"],
                "matched": [each["matches"] for each in considered]
                == [answer(told, name) for name in matches(told)],
                "planned": planned[id_, "vault"] == "copy",
                "explained": any(
                    (pair["store"], pair["decision"]) == ("vault", "copy")
                    for pair in before[kind, hosted]["pairs"]
                ),
                "copied": kept[id_, "vault"] == "keep" and FILES[kind][1] in copies,
                "verified": census["looked"] == len(lying) and not census["broken"],
                "deleted": bool(mine)
                and not left["vault"] & set(mine)
                and not any(id_ in key or f"x{int(id_, 16)}." in key for key in left["uploads"]),
            }
            found[kind, hosted] = {name for name, holds in steps.items() if holds}
    return found


def _explained(project: Project, name: str) -> dict[str, Any]:
    return dict(json.loads(project.run("explain", name, "--names", "--format", "json").stdout))


@pytest.mark.parametrize("hosted", [True, False], ids=["hosted", "in a bucket"])
@pytest.mark.parametrize("kind", ASSET_TYPES)
def test_every_type_goes_all_the_way(
    held: dict[tuple[str, bool], set[str]], kind: str, hosted: bool
) -> None:
    assert set(STEPS) - held[kind, hosted] == set()


def test_the_table_in_the_docs_is_what_was_seen(held: dict[tuple[str, bool], set[str]]) -> None:
    lines = ["| type | " + " | ".join(STEPS) + " |", "| --- |" + " --- |" * len(STEPS)]
    for kind in ASSET_TYPES:
        cells = []
        for step in STEPS:
            places = [
                name
                for name, hosted in (("hosted", True), ("bucket", False))
                if step in held[kind, hosted]
            ]
            cells.append(" + ".join(places) or "no")
        lines.append(f"| `{kind}` | " + " | ".join(cells) + " |")
    table = "\n".join(lines)
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    inside, _, after = rest.partition(END)
    if os.environ.get("RETAINER_WRITE_DOCS"):
        PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")
        return
    assert inside.strip() == table
