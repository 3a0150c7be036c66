"""The manifest of a copy of many objects: written last, so that a copy without one is no copy
(format: docs/reference/journal.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retainer.errors import Unverified
from retainer.model.setting import MANIFEST
from retainer.ports import Checksum

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Member:
    """One object, by its name below the manifest's folder. `was`: the SHA-256 of a playlist before
    its addresses were made relative."""

    name: str
    size: int
    checksum: Checksum
    sha256: str | None = None
    was: str | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """`entry`: the member that is opened first. `left_out`: names that could not be read, and why;
    they are no part of the copy. `partial`: why it is not the whole recording."""

    asset_id: str
    entry: str
    members: tuple[Member, ...]
    left_out: tuple[tuple[str, str], ...]
    record: Mapping[str, Any]
    partial: tuple[str, ...] = ()


def write_manifest(manifest: Manifest) -> bytes:
    """The same manifest gives the same bytes."""
    value = {
        "retainer_manifest": FORMAT_VERSION,
        "asset_id": manifest.asset_id,
        "entry": manifest.entry,
        "members": [
            _told(member) for member in sorted(manifest.members, key=lambda member: member.name)
        ],
        "left_out": [{"name": name, "why": why} for name, why in sorted(manifest.left_out)],
        "record": {key: value for key, value in manifest.record.items() if value is not None},
    } | ({"partial": list(manifest.partial)} if manifest.partial else {})
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def _told(member: Member) -> dict[str, Any]:
    facts = {
        "name": member.name,
        "size": member.size,
        member.checksum.kind: member.checksum.value,
        "sha256": member.sha256,
        "was": member.was,
    }
    return {name: value for name, value in facts.items() if value is not None}


def is_manifest(content: bytes) -> bool:
    """Whether this was meant as a manifest of ours; a recording may have a file of that name of its
    own."""
    return b'"retainer_manifest":' in content


def read_manifest(content: bytes) -> Manifest:
    """Raises Unverified when it is damaged, of another format, or names two members alike."""
    try:
        value = json.loads(content)
        if value["retainer_manifest"] != FORMAT_VERSION:
            raise ValueError
        if len({of["name"] for of in value["members"]}) < len(value["members"]):
            raise ValueError
        return Manifest(
            value["asset_id"],
            value["entry"],
            tuple(
                Member(
                    of["name"], of["size"], Checksum.found_in(of), of.get("sha256"), of.get("was")
                )
                for of in value["members"]
            ),
            tuple((left["name"], left["why"]) for left in value["left_out"]),
            value["record"],
            tuple(map(str, value.get("partial", ()))),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Unverified(
            f"a {MANIFEST} is damaged, or of a format that this retainer does not read"
        ) from None
