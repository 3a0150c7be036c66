"""What the answers of S3 say. No I/O.

Source: https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations.html; what other servers make
of it is in docs/reference/stores.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from retainer.model.moment import read_http_date, read_moment
from retainer.model.setting import ARCHIVES, Lock
from retainer.ports import Checksum, ChecksumKind, Look, Seen
from retainer.stores.calls import EARLIER_VERSIONS, Nonsense, Page
from retainer.stores.verdict import Refusal, Verdict
from retainer.stores.wire import Answer

CHECKSUMS: dict[ChecksumKind, str] = {"crc32c": "crc32c", "crc64nvme": "crc64nvme"}
_WITHOUT_END = datetime.max.replace(tzinfo=UTC)

_CREDENTIALS = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidToken",
    "InvalidClientTokenId",
    "TokenRefreshRequired",
    "RequestExpired",
    "UnrecognizedClientException",
}
_BUSY = {
    "InternalError",
    "SlowDown",
    "ServiceUnavailable",
    "RequestTimeout",
    "RequestTimeoutException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "RequestLimitExceeded",
    "BandwidthLimitExceeded",
    "PriorRequestNotComplete",
}
_LOCKED = {"ObjectLocked", "FileImmutable", "ObjectUnderRetention"}
_OF_A_BATCH = {
    "PreconditionFailed": 412,
    "NoSuchKey": 404,
    "AccessDenied": 403,
    "MethodNotAllowed": 405,
    "InvalidRequest": 400,
    "MalformedXML": 400,
}
"""With which status each of these answers a call of its own."""
_IS_ERROR = re.compile(rb"\s*(<\?xml[^>]*>\s*)?<Error[\s>]")
_SAYS_LOCKED = re.compile(r"(?i)\b(object )?lock(ed)?\b|\bretention\b|\bWORM\b")
_MISSING = {"404", "NoSuchKey", "NotFound", ""}


def refusal_of(answer: Answer) -> Refusal | None:
    """Why a call was not done; None where it was. CopyObject and CompleteMultipartUpload can answer
    200 and fail in their body."""
    status = answer.status
    if 200 <= status < 300 and not (status == 200 and _IS_ERROR.match(answer.content)):
        return None
    told = _error_in(answer.content)
    code, message = told.get("Code", ""), told.get("Message", "")
    region = answer.headers.get("x-amz-bucket-region") or told.get("Region")
    if region and status in (301, 307, 400):
        return Refusal(Verdict.ELSEWHERE, status, code, message, region)
    return Refusal(_verdict(status, code, message), status, code, message, _location(answer))


def _verdict(status: int, code: str, message: str) -> Verdict:
    match status, code:
        case _, "InvalidObjectState":
            return Verdict.ARCHIVED
        case _, code if code in _CREDENTIALS:
            return Verdict.CREDENTIALS
        case _, code if code in _LOCKED:
            return Verdict.LOCKED
        case (403, _) if _SAYS_LOCKED.search(message):
            return Verdict.LOCKED
        case ((301 | 302 | 303 | 307 | 308), _):
            return Verdict.ELSEWHERE
        case (412, _) | (_, "PreconditionFailed"):
            return Verdict.UNMET
        case 404, code if code in _MISSING:
            return Verdict.MISSING
        case (409, _) | (408 | 425 | 429, _):
            # 409: another write is going on, and says nothing of what it will leave.
            return Verdict.BUSY
        case (400 | 501, _) if code not in _BUSY:
            return Verdict.CANNOT
        case ((401 | 403 | 405), _):
            return Verdict.REFUSED
        case _ if status >= 500 or code in _BUSY:
            return Verdict.BUSY
    return Verdict.OTHER


def _location(answer: Answer) -> str | None:
    address = answer.headers.get("location") if answer.status in (301, 302, 303, 307, 308) else None
    return address.partition("?")[0][:200] if address else None


def refusal_named(code: str, message: str) -> Refusal:
    """Why one object of a batch was not deleted."""
    status = _OF_A_BATCH.get(code, 500)
    return Refusal(_verdict(status, code, message), status, code, message)


def _error_in(content: bytes) -> dict[str, str]:
    if content.lstrip()[:1] != b"<":
        return {}
    try:
        root = parsed(content)
    except Nonsense:
        return {}
    return texts(root) if name_of(root) == "Error" else {}


# ── reading XML ─────────────────────────────────────────────────────────────────────────────────


def parsed(content: bytes) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError):
        raise Nonsense from None


def name_of(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def texts(element: ElementTree.Element) -> dict[str, str]:
    return {name_of(child): child.text or "" for child in element}


def root_of(answer: Answer, name: str) -> ElementTree.Element:
    root = parsed(answer.content)
    if name_of(root) != name:
        raise Nonsense
    return root


def page_of(answer: Answer, length: int) -> Page:
    """`length`: of the store's prefix. Raises Nonsense for a page of something else, which must not
    pass for an empty bucket."""
    root = root_of(answer, "ListBucketResult")
    items: list[ElementTree.Element] = []
    told: dict[str, str] = {}
    space = root.tag[: root.tag.rfind("}") + 1]
    for child in root:
        if child.tag == f"{space}Contents":
            items.append(child)
        else:
            told[name_of(child)] = child.text or ""
    if told.get("IsTruncated") not in ("true", "false") or "Name" not in told:
        raise Nonsense
    encoded = told.get("EncodingType") == "url"
    objects = [_seen(item, space, length, encoded=encoded) for item in items]
    more = told["IsTruncated"] == "true"
    if more and not told.get("NextContinuationToken"):
        raise Nonsense
    return Page(objects, told["NextContinuationToken"] if more else None)


def folders_in(answer: Answer, length: int) -> list[str]:
    """Raises Nonsense."""
    root = root_of(answer, "ListBucketResult")
    encoded = texts(root).get("EncodingType") == "url"
    found = [texts(child).get("Prefix", "") for child in root if name_of(child) == "CommonPrefixes"]
    return [(unquote_plus(each) if encoded else each)[length:] for each in found]


def _seen(item: ElementTree.Element, space: str, length: int, *, encoded: bool) -> Seen:
    """`space`: what stands before the name of every element."""
    told = {child.tag: child.text or "" for child in item}
    try:
        key, size = told[f"{space}Key"], int(told[f"{space}Size"])
        etag = told[f"{space}ETag"].strip('"')
    except (KeyError, ValueError):
        raise Nonsense from None
    if encoded and ("%" in key or "+" in key):
        key = unquote_plus(key)
    kind = told.get(f"{space}StorageClass") or None
    archived = kind in ARCHIVES
    if archived and f"{space}RestoreStatus" in told:
        restored = item.find(f"{space}RestoreStatus/{space}RestoreExpiryDate")
        archived = restored is None
    return Seen(key[length:], size, etag, kind, archived=archived)


MODES: dict[str, Lock] = {"GOVERNANCE": "governance", "COMPLIANCE": "compliance"}


def look_of(key: str, answer: Answer) -> Look:
    """`lock_read` is set only where a lock was told. Raises Nonsense."""
    head = answer.headers
    etag, length = head.get("etag", ""), head.get("content-length", "")
    if not etag or not length.isdecimal():
        raise Nonsense
    until = retained = read_moment(head.get("x-amz-object-lock-retain-until-date", ""))
    mode = MODES.get(head.get("x-amz-object-lock-mode", ""))
    if head.get("x-amz-object-lock-legal-hold") == "ON":
        until = _WITHOUT_END
    kind = head.get("x-amz-storage-class")
    archived = kind in ARCHIVES and 'ongoing-request="false"' not in head.get("x-amz-restore", "")
    archived = archived or head.get("x-amz-archive-status") is not None
    told = checksum_told(head, in_parts="-" in etag)
    metadata = {
        name.lower()[11:]: value
        for name, value in head.items()
        if name.lower().startswith("x-amz-meta-")
    }
    now, then = read_http_date(head.get("date")), read_http_date(head.get("last-modified"))
    return Look(
        Seen(
            key,
            int(length),
            etag.strip('"'),
            kind,
            until,
            lock_read=until is not None,
            archived=archived,
            retained_until=retained,
            lock_mode=mode,
        ),
        checksum=told,
        metadata=metadata,
        told=told,
        age=now - then if now and then else None,
        encoding=_encoding_in(head.get("content-encoding", "")),
    )


def _encoding_in(header: str) -> str:
    """`aws-chunked` says how it was sent, and some uploaders and servers keep it."""
    told = [each.strip().lower() for each in header.split(",")]
    return ", ".join(each for each in told if each not in ("", "aws-chunked", "identity"))


def written(answer: Answer) -> tuple[str, Checksum | None]:
    """The ETag of what was put, and the checksum that the answer tells. Raises Nonsense."""
    etag = answer.headers.get("etag", "").strip('"')
    if not etag:
        raise Nonsense
    return etag, checksum_told(answer.headers, in_parts=False)


def checksum_told(headers: Mapping[str, str], *, in_parts: bool) -> Checksum | None:
    """The checksum of a whole object that headers tell. Of an upload in parts it is one of parts,
    unless its type says otherwise."""
    kind = headers.get("x-amz-checksum-type", "COMPOSITE" if in_parts else "FULL_OBJECT")
    if kind != "FULL_OBJECT":
        return None
    for name in CHECKSUMS:
        value = headers.get(f"x-amz-checksum-{name}")
        if value and "-" not in value:
            return Checksum(name, value)
    return None


@dataclass(frozen=True, slots=True)
class PartMade:
    """A part of an upload, as its end names it."""

    number: int
    etag: str
    checksums: Mapping[str, str]


def part_copied(number: int, answer: Answer) -> PartMade:
    """Raises Nonsense."""
    root = parsed(answer.content)
    sums = {name: text for name, text in texts(root).items() if name.startswith("Checksum")}
    return PartMade(number, f'"{etag_in(root)}"', sums)


def copied(answer: Answer) -> str:
    """The ETag of a copy. Raises Nonsense."""
    return etag_in(parsed(answer.content))


def completed(answer: Answer) -> tuple[str, Checksum | None]:
    """The ETag of an upload in parts (empty, where Ceph RGW 16.2.15 answers), and the checksum that
    the answer tells. Raises Nonsense."""
    root = root_of(answer, "CompleteMultipartUploadResult")
    told = texts(root)
    named = {
        f"x-amz-{name}".lower().replace("checksum", "checksum-"): value
        for name, value in told.items()
        if name.startswith("Checksum")
    }
    if "ETag" not in told:
        raise Nonsense
    return told["ETag"].strip('"'), checksum_told(named, in_parts=False)


def upload_begun(answer: Answer) -> str:
    """The upload's id. Raises Nonsense."""
    upload = texts(root_of(answer, "InitiateMultipartUploadResult")).get("UploadId")
    if not upload:
        raise Nonsense
    return upload


def locks_in(answer: Answer) -> bool | None:
    """Whether objects of this bucket may be locked; None where the answer does not tell."""
    told = refusal_of(answer)
    if told is not None:
        known = ("ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration")
        return False if told.code in known or told.status == 501 else None
    try:
        found = texts(root_of(answer, "ObjectLockConfiguration"))
    except Nonsense:
        return False
    return found.get("ObjectLockEnabled") == "Enabled"


def versions_in(answer: Answer) -> str | None:
    """How what is deleted in this bucket can still be read. Where versions are suspended, those of
    before are still there. (moto 5.2.5 calls the whole otherwise.) Raises Nonsense."""
    found = texts(parsed(answer.content))
    return EARLIER_VERSIONS if found.get("Status") in ("Enabled", "Suspended") else None


def etag_in(root: ElementTree.Element) -> str:
    etag = texts(root).get("ETag", "").strip('"')
    if not etag:
        raise Nonsense
    return etag
