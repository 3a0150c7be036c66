"""What the answers of Google Cloud Storage say. No I/O.

Source: https://cloud.google.com/storage/docs/json_api/v1 and, for the answers that are no JSON,
https://cloud.google.com/storage/docs/performing-resumable-uploads, …/docs/batch.
"""

from __future__ import annotations

import email
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from retainer.model.moment import read_http_date, read_moment
from retainer.model.setting import Lock
from retainer.ports import Checksum, Look, Seen
from retainer.stores.calls import EARLIER_VERSIONS, Nonsense, Page
from retainer.stores.verdict import Refusal, Verdict
from retainer.stores.wire import Answer

_WITHOUT_END = datetime.max.replace(tzinfo=UTC)
_SAYS_LOCKED = re.compile(r"(?i)\b(retention|hold)\b")
_CRC32C = re.compile(r"\bcrc32c=([A-Za-z0-9+/=]{8})")
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")


def refusal_of(answer: Answer) -> Refusal | None:
    """Why a call was not done; None where it was, or (308 without an address) goes on."""
    status = answer.status
    leads_to = answer.headers.get("location", "").partition("?")[0][:200] or None
    if 200 <= status < 300 or (status == 308 and leads_to is None):
        return None
    code, message = "", ""
    try:
        error = json.loads(answer.content)["error"]
        message = str(error["message"])
        code = str(error["errors"][0]["reason"])
    except (ValueError, KeyError, IndexError, TypeError):
        if b"<" not in answer.content[:200]:
            message = answer.content[:200].decode(errors="replace")
    verdict = _verdict(status, code, message)
    return Refusal(verdict, status, code, message, leads_to if status // 100 == 3 else None)


def _verdict(status: int, code: str, message: str) -> Verdict:
    match status:
        case 401:
            return Verdict.CREDENTIALS
        case 403 if code in ("rateLimitExceeded", "userRateLimitExceeded"):
            return Verdict.BUSY
        case 403 if _SAYS_LOCKED.search(message):
            return Verdict.LOCKED
        case 403 | 405:
            return Verdict.REFUSED
        case 404 if "bucket does not exist" in message:
            return Verdict.OTHER
        case 404:
            return Verdict.MISSING
        case 412:
            return Verdict.UNMET
        case 301 | 302 | 303 | 307 | 308:
            return Verdict.ELSEWHERE
        case 501:
            return Verdict.CANNOT
        case 408 | 409 | 425 | 429:
            return Verdict.BUSY
        case _ if status >= 500:
            return Verdict.BUSY
    return Verdict.OTHER


MODES: dict[str, Lock] = {"Unlocked": "governance", "Locked": "compliance"}


def _retained_until(item: Mapping[str, Any]) -> datetime | None:
    ends = (
        item.get("retentionExpirationTime"),
        (item.get("retention") or {}).get("retainUntilTime"),
    )
    found = [read_moment(str(end)) for end in ends if end]
    if None in found:
        return _WITHOUT_END  # it is locked, and nobody can read until when
    return max(filter(None, found), default=None)


def parsed(answer: Answer) -> dict[str, Any]:
    try:
        found = json.loads(answer.content)
    except ValueError:
        raise Nonsense from None
    if not isinstance(found, dict):
        raise Nonsense
    return found


# ── lists and looks; `length`: of the store's prefix ────────────────────────────────────────────


def page_of(answer: Answer, length: int) -> Page:
    """Raises Nonsense for a page of something else, which must not pass for an empty bucket."""
    told = parsed(answer)
    items = told.get("items", [])
    if told.get("kind") != "storage#objects" or not isinstance(items, list):
        raise Nonsense
    return Page([seen_in(item, length) for item in items], told.get("nextPageToken") or None)


def folders_in(answer: Answer, length: int) -> list[str]:
    """Raises Nonsense."""
    found = parsed(answer).get("prefixes", [])
    if not isinstance(found, list):
        raise Nonsense
    return [str(each)[length:] for each in found]


def seen_in(item: Any, length: int) -> Seen:
    """Raises Nonsense."""
    try:
        key, size = str(item["name"])[length:], int(item.get("size", 0))
        version, until = str(int(item["generation"])), _retained_until(item)
        mode = MODES.get(str((item.get("retention") or {}).get("mode")))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Nonsense from None
    held = item.get("temporaryHold") or item.get("eventBasedHold")
    return Seen(
        key,
        size,
        version,
        item.get("storageClass"),
        _WITHOUT_END if held else until,
        lock_read=True,
        retained_until=until,
        lock_mode=mode,
    )


def kept_behind(answer: Answer) -> str | None:
    """How what is deleted in this bucket can still be read: by versions, or for some days, seven
    unless somebody changed that (cloud.google.com/storage/docs/soft-delete). Raises Nonsense."""
    try:
        if (parsed(answer).get("versioning") or {}).get("enabled"):
            return EARLIER_VERSIONS
    except AttributeError:
        raise Nonsense from None
    return soft_deleted(answer)


def soft_deleted(answer: Answer) -> str | None:
    """How what is deleted with every version can still be read. Raises Nonsense."""
    told = parsed(answer)
    try:
        seconds = int((told.get("softDeletePolicy") or {}).get("retentionDurationSeconds") or 0)
    except (AttributeError, TypeError, ValueError):
        raise Nonsense from None
    return f"the bucket keeps it for {seconds / 86400:g} days (soft delete)" if seconds else None


def look_of(answer: Answer, length: int) -> Look:
    """Raises Nonsense."""
    item = parsed(answer)
    told, written_at = _checksum_in(item), read_moment(str(item.get("updated", "")))
    now = read_http_date(answer.headers.get("date"))
    age = now - written_at if now and written_at else None
    encoding = str(item.get("contentEncoding") or "").lower()
    return Look(seen_in(item, length), told, item.get("metadata") or {}, told, age, encoding)


def opened(key: str, answer: Answer) -> Look:
    """What the head of an object's bytes says of it, which is not its metadata. Raises Nonsense."""
    head, version = answer.headers, version_in(answer)
    length = head.get("x-goog-stored-content-length") or head.get("content-length", "")
    if version is None or not length.isdecimal():
        raise Nonsense
    found = _CRC32C.search(head.get("x-goog-hash", ""))
    told = Checksum("crc32c", found[1]) if found else None
    now, then = read_http_date(head.get("date")), read_http_date(head.get("last-modified"))
    seen = Seen(key, int(length), version, head.get("x-goog-storage-class"))
    encoding = head.get("x-goog-stored-content-encoding", "").replace("identity", "").lower()
    return Look(seen, told, None, told, now - then if now and then else None, encoding)


def version_in(answer: Answer) -> str | None:
    """Whose bytes an answer holds, where it tells."""
    version = answer.headers.get("x-goog-generation", "")
    return version if version.isdecimal() else None


# ── writes and deletes ──────────────────────────────────────────────────────────────────────────


def written(answer: Answer) -> tuple[str, Checksum | None]:
    """The generation of what was written, and its checksum. Raises Nonsense."""
    item = parsed(answer)
    return seen_in(item, 0).version, _checksum_in(item)


def kept(answer: Answer) -> int:
    """How many bytes of an unfinished write are there."""
    found = re.fullmatch(r"bytes=0-(\d+)", answer.headers.get("range", ""))
    return int(found[1]) + 1 if found else 0


def copied(answer: Answer, length: int) -> Seen | str:
    """A copy, or what its next step is asked with. Raises Nonsense."""
    told = parsed(answer)
    if told.get("done") is True:
        return seen_in(told.get("resource"), length)
    if not told.get("rewriteToken"):
        raise Nonsense
    return str(told["rewriteToken"])


def deleted_many(batch: Sequence[Seen], answer: Answer) -> Mapping[str, Refusal | None]:
    """As `Calls.deleted_many`."""
    kind = answer.headers.get("content-type", "")
    message = email.message_from_bytes(f"content-type: {kind}\r\n\r\n".encode() + answer.content)
    if not message.is_multipart():
        raise Nonsense
    ended: dict[str, Refusal | None] = {}
    for part in message.walk():
        if part.get_content_type() != "application/http":
            continue
        number = re.fullmatch(r"<response-(\d+)>", (part.get("content-id") or "").strip())
        inner = part.get_payload(decode=True)
        status = _STATUS.match(inner) if isinstance(inner, bytes) else None
        if number is None or status is None or int(number[1]) >= len(batch):
            raise Nonsense
        assert isinstance(inner, bytes)
        _, _, content = inner.replace(b"\r\n", b"\n").partition(b"\n\n")
        ended[batch[int(number[1])].key] = refusal_of(Answer(int(status[1]), {}, content))
    return ended


def _checksum_in(item: Mapping[str, Any]) -> Checksum | None:
    return Checksum("crc32c", item["crc32c"]) if item.get("crc32c") else None
