"""Approvals of a plan by a second person: a signature over the plan's fingerprint, kept beside the
journal, and what of it counts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from retainer.errors import RetainerError
from retainer.journal.backend import Backend, Reading
from retainer.model.moment import read_moment, write_moment
from retainer.private import private_file
from retainer.signing import sign, signer
from retainer.who import known_as

ALLOWED = "allowed_signers"
"""Beside retainer.yaml: who may approve, a line for each key, reviewed like the policies."""
_UNDER = "approvals/"


@dataclass(frozen=True, slots=True)
class Approval:
    """Somebody's word for a plan: the principal of the key, when, and the user and the host it was
    signed by."""

    principal: str
    at: datetime
    user: str
    host: str

    def written(self) -> dict[str, str]:
        return {
            "principal": self.principal,
            "at": write_moment(self.at),
            "user": self.user,
            "host": self.host,
        }


def approve(
    backend: Backend,
    fingerprint: str,
    deletes: int,
    key: Path,
    allowed: Path,
    now: datetime,
    who: Mapping[str, str],
    host: str,
) -> str:
    """Sign a plan and keep that beside the journal; as whom, by the file of allowed signers. Raises
    RetainerError, also for a key that stands in no line of it: then nothing is kept."""
    message = {
        "plan": fingerprint,
        "deletes": deletes,
        "at": write_moment(now),
        "user": known_as(who),
        "host": host,
    }
    text = json.dumps(message, sort_keys=True)
    signature = sign(text.encode(), key)
    principal = signer(text.encode(), signature, allowed) if allowed.is_file() else None
    if principal is None:
        raise RetainerError(
            f"{key} is nobody's key by {allowed}: its signature would count for nothing",
            hint="have its public half reviewed into that file, as a line of ssh-keygen(1)",
        )
    kept = json.dumps({"message": text, "signature": signature}).encode() + b"\n"
    file = private_file(".json")
    file.write_bytes(kept)
    name = hashlib.sha256(kept).hexdigest()[:16]
    backend.archive(f"{_UNDER}{fingerprint}-{name}.json", file)
    return principal


def approvals(
    record: Reading, root: Path, fingerprint: str, deletes: int
) -> tuple[list[Approval], list[str]]:
    """The approvals of a plan that are signed by allowed signers, oldest first; and why others do
    not count, in words. Raises RetainerError."""
    allowed = root / ALLOWED
    found: list[Approval] = []
    wrong: list[str] = []
    for name in record.archives(f"{_UNDER}{fingerprint}-"):
        content = record.archived(name)
        if not allowed.is_file():
            wrong.append(f"there is no {ALLOWED} beside retainer.yaml")
            break
        try:
            told: Any = json.loads(content or b"")
            text, signature = str(told["message"]), str(told["signature"])
            message = json.loads(text)
            at = read_moment(str(message["at"]))
            about = (message["plan"], message["deletes"])
            user, host = str(message["user"]), str(message["host"])
        except (ValueError, KeyError, TypeError, RecursionError):
            wrong.append(f"{name} cannot be read")
            continue
        principal = signer(text.encode(), signature, allowed)
        if principal is None:
            wrong.append(f"{name} is signed by nobody whose key stands in {ALLOWED}")
        elif at is None or about != (fingerprint, deletes):
            wrong.append(f"{name} is about another plan")
        else:
            found.append(Approval(principal, at, user, host))
    return sorted(found, key=lambda each: (each.at, each.principal)), wrong


def by_another(found: list[Approval], who: Mapping[str, str]) -> list[Approval]:
    """Those that are another person's than who applies, by every name that is known of both."""
    me = {name.casefold() for key in ("user", "actor") if (name := who.get(key))}
    return [
        each
        for each in found
        if me.isdisjoint(
            name.casefold()
            for name in (each.user, each.principal, each.principal.partition("@")[0])
        )
    ]
