"""What a copy says of itself, so that it explains itself where every record is gone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

CONTENT_TYPES = {
    "mp4": "video/mp4",
    "webm": "video/webm",
    "zip": "application/zip",
    "csv": "text/csv",
    "json": "application/json",
    "txt": "text/plain",
    "srt": "application/x-subrip",
    "m3u8": "application/vnd.apple.mpegurl",
    "ts": "video/mp2t",
    "m4s": "video/iso.segment",
    "aac": "audio/aac",
    "vtt": "text/vtt",
    "jpg": "image/jpeg",
    "png": "image/png",
}
_METADATA_BYTES = 1900
"""S3 allows 2 KB of metadata on an object, names included."""


def object_metadata(record: Mapping[str, Any], length: int | None) -> dict[str, str]:
    """What fits of an asset's record in an object's metadata, as ASCII JSON, and how many bytes it
    is to have, where somebody said so.

    The longest facts are left out first.
    """
    said = {} if length is None else {"retainer-length": str(length)}
    facts = {key: value for key, value in record.items() if value is not None}
    left_out: list[str] = []
    while True:
        facts |= {"left_out": left_out} if left_out else {}
        text = json.dumps(facts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        if len(text) <= _METADATA_BYTES or len(facts) <= 2:
            return {"retainer-record": text[:_METADATA_BYTES]} | said
        longest = max(
            (key for key in facts if key not in ("asset_id", "left_out", "in_doubt")),
            key=lambda key: len(str(facts[key])),
        )
        del facts[longest]
        left_out.append(longest)


def recorded_in(metadata: Mapping[str, str] | None) -> dict[str, Any] | None:
    """The record that an object carries; None where it carries none."""
    try:
        found = json.loads((metadata or {})["retainer-record"])
    except (KeyError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def content_type_of(key: str) -> str:
    return CONTENT_TYPES.get(key.rpartition(".")[2].lower(), "application/octet-stream")
