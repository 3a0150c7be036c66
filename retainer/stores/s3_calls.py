"""The S3 protocol as values: what is wanted becomes a request, an answer what it says. No I/O.

Source: https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations.html; what other servers make
of it is in docs/stores.md.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, unquote_plus, urlencode
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from retainer.model.moment import read_http_date, read_moment
from retainer.model.setting import Store
from retainer.ports import Checksum, ChecksumKind, Look, Seen
from retainer.stores.verdict import Refusal, Verdict
from retainer.stores.wire import Answer, Request

CHECKSUMS: dict[ChecksumKind, str] = {"crc32c": "crc32c", "crc64nvme": "crc64nvme"}
UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
"""What XML 1.0 cannot hold: a key with it goes by a call of its own, since one of them fails a
whole DeleteObjects."""
_ARCHIVES = {"GLACIER", "DEEP_ARCHIVE"}
_MODE = {"x-amz-checksum-mode": "ENABLED"}
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
_IS_ERROR = re.compile(rb"\s*(<\?xml[^>]*>\s*)?<Error[\s>]")
_SAYS_LOCKED = re.compile(r"(?i)\b(object )?lock(ed)?\b|\bretention\b|\bWORM\b")
_MISSING = {"404", "NoSuchKey", "NotFound", ""}


class NotS3(Exception):
    """An answer that S3 would not give: something else answers in its place."""


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


def may_pass(answer: Answer) -> bool:
    """Whether the same call may go through at once or soon. 409 is left to whoever asked: it must
    look first."""
    refusal = refusal_of(answer)
    return refusal is not None and (
        refusal.verdict is Verdict.BUSY and refusal.status != 409 and refusal.status != 501
    )


def is_busy(answer: Answer) -> bool:
    return answer.status in (429, 503)


def _error_in(content: bytes) -> dict[str, str]:
    if content.lstrip()[:1] != b"<":
        return {}
    try:
        root = _parsed(content)
    except NotS3:
        return {}
    return _texts(root) if _name(root) == "Error" else {}


# ── reading XML ─────────────────────────────────────────────────────────────────────────────────


def _parsed(content: bytes) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError):
        raise NotS3 from None


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _texts(element: ElementTree.Element) -> dict[str, str]:
    return {_name(child): child.text or "" for child in element}


def _root(answer: Answer, name: str) -> ElementTree.Element:
    root = _parsed(answer.content)
    if _name(root) != name:
        raise NotS3
    return root


# ── requests ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Described:
    """A new object but for its bytes. `lock_until` in UTC."""

    key: str
    size: int
    metadata: Mapping[str, str]
    content_type: str
    lock_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a listing; `then`: what the next one is asked with."""

    objects: Sequence[Seen]
    then: str | None


@dataclass(frozen=True, slots=True)
class PartMade:
    """A part of an upload, as its end names it."""

    number: int
    etag: str
    checksums: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class S3Calls:
    """The calls to one bucket, with what its store asks of every write."""

    store: Store
    base: str
    """What every path begins with: `/bucket` where buckets are no hosts."""

    def _path(self, key: str) -> str:
        return f"{self.base}/{self.store.prefix}{key}"

    def list(self, under: str, then: str | None, *, restored: bool = True) -> Request:
        query = [
            ("list-type", "2"),
            ("encoding-type", "url"),
            ("prefix", self.store.prefix + under),
        ]
        if then is not None:
            query.append(("continuation-token", then))
        headers = {"x-amz-optional-object-attributes": "RestoreStatus"} if restored else {}
        return Request("GET", f"{self.base}/", tuple(query), headers)

    def listed(self, answer: Answer) -> Page:
        """Raises NotS3 for a page of something else, which must not pass for an empty bucket."""
        root = _root(answer, "ListBucketResult")
        objects: list[Seen] = []
        told: dict[str, str] = {}
        for child in root:
            name = _name(child)
            if name == "Contents":
                objects.append(self._seen(child))
            else:
                told[name] = child.text or ""
        if "IsTruncated" not in told or "Name" not in told:
            raise NotS3
        if told.get("EncodingType") == "url":
            objects = [_decoded(seen, len(self.store.prefix)) for seen in objects]
        else:
            objects = [_below(seen, seen.key, len(self.store.prefix)) for seen in objects]
        if told["IsTruncated"] not in ("true", "false"):
            raise NotS3
        more = told["IsTruncated"] == "true"
        if more and not told.get("NextContinuationToken"):
            raise NotS3
        return Page(objects, told["NextContinuationToken"] if more else None)

    def _seen(self, item: ElementTree.Element) -> Seen:
        told, restored = {}, False
        for child in item:
            name = _name(child)
            told[name] = child.text or ""
            if name == "RestoreStatus":
                restored = "RestoreExpiryDate" in _texts(child)
        try:
            key, size, etag = told["Key"], int(told["Size"]), told["ETag"].strip('"')
        except (KeyError, ValueError):
            raise NotS3 from None
        kind = told.get("StorageClass") or None
        return Seen(key, size, etag, kind, archived=kind in _ARCHIVES and not restored)

    def look(self, key: str, *, sums: bool = True) -> Request:
        """`sums`: ask for the checksum, too."""
        return Request("HEAD", self._path(key), headers=_MODE if sums else {})

    def looked(self, key: str, answer: Answer) -> Look:
        """`lock_read` is set only where a lock was told. Raises NotS3."""
        head = answer.headers
        etag, length = head.get("etag", ""), head.get("content-length", "")
        if not etag or not length.isdigit():
            raise NotS3
        until = read_moment(head.get("x-amz-object-lock-retain-until-date", ""))
        if head.get("x-amz-object-lock-legal-hold") == "ON":
            until = _WITHOUT_END
        kind = head.get("x-amz-storage-class")
        archived = kind in _ARCHIVES and 'ongoing-request="false"' not in head.get(
            "x-amz-restore", ""
        )
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
            ),
            checksum=told,
            metadata=metadata,
            told=told,
            age=now - then if now and then else None,
        )

    def read(self, seen: Seen, start: int = 0) -> Request:
        headers = {"if-match": f'"{seen.version}"'}
        if start:
            headers["range"] = f"bytes={start}-"
        return Request("GET", self._path(seen.key), headers=headers)

    def whole(self, key: str, *, sums: bool = True) -> Request:
        """An object that is read without a look before."""
        return Request("GET", self._path(key), headers=_MODE if sums else {})

    def put(
        self, new: Described, body: bytes | memoryview, checksum: str | None, **condition: str
    ) -> Request:
        """`checksum`: the CRC32C, where the server takes one; else Content-MD5."""
        headers = self._described(new) | _proof(body, checksum) | _conditions(condition)
        return Request("PUT", self._path(new.key), headers=headers, body=body)

    def _described(self, new: Described) -> dict[str, str]:
        store = self.store
        headers = {f"x-amz-meta-{name}": value for name, value in new.metadata.items()}
        headers["content-type"] = new.content_type
        if storage_class := store.class_of(new.key, new.size):
            headers["x-amz-storage-class"] = storage_class
        if store.kms_key:
            headers["x-amz-server-side-encryption"] = "aws:kms"
            headers["x-amz-server-side-encryption-aws-kms-key-id"] = store.kms_key
        if store.tags:
            headers["x-amz-tagging"] = urlencode(store.tags)
        if store.cache_control:
            headers["cache-control"] = store.cache_control
        if store.lock and new.lock_until is not None:
            headers["x-amz-object-lock-mode"] = store.lock.upper()
            headers["x-amz-object-lock-retain-until-date"] = new.lock_until.strftime(
                "%Y-%m-%dT%H:%M:%SZ"
            )
        return headers

    def delete(self, key: str, etag: str | None, *, once: bool = False) -> Request:
        headers = {"if-match": etag} if etag is not None else {}
        return Request("DELETE", self._path(key), headers=headers, once=once)

    def delete_many(self, batch: Sequence[Seen]) -> Request:
        objects = "".join(
            f"<Object><Key>{_in_xml(self.store.prefix + seen.key)}</Key>"
            f"<ETag>&quot;{_in_xml(seen.version)}&quot;</ETag></Object>"
            for seen in batch
        )
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"{objects}<Quiet>false</Quiet></Delete>"
        ).encode()
        headers = {"content-type": "application/xml"} | _proof(body, None)
        return Request("POST", f"{self.base}/", (("delete", ""),), headers, body)

    def deleted_many(self, answer: Answer) -> tuple[set[str], dict[str, str]]:
        """The keys that were deleted, and the code of each that was not. Raises NotS3."""
        deleted: set[str] = set()
        errors: dict[str, str] = {}
        length = len(self.store.prefix)
        for child in _root(answer, "DeleteResult"):
            told = _texts(child)
            key = told.get("Key", "")[length:]
            match _name(child):
                case "Deleted":
                    deleted.add(key)
                case "Error":
                    errors[key] = told.get("Code", "")
        return deleted, errors

    def copy(
        self, source: S3Calls, seen: Seen, new: Described, kind: ChecksumKind, **condition: str
    ) -> Request:
        """CopyObject. The source must still be as it was seen."""
        headers = self._described(new) | _conditions(condition) | source._copied(seen)
        headers["x-amz-metadata-directive"] = headers["x-amz-tagging-directive"] = "REPLACE"
        headers["x-amz-checksum-algorithm"] = CHECKSUMS[kind].upper()
        return Request("PUT", self._path(new.key), headers=headers)

    def _copied(self, seen: Seen) -> dict[str, str]:
        path = quote(f"{self.store.bucket}/{self.store.prefix}{seen.key}", safe="/~")
        return {"x-amz-copy-source": path, "x-amz-copy-source-if-match": f'"{seen.version}"'}

    def copied(self, answer: Answer) -> str:
        """The ETag of a copy or of a part that was copied. Raises NotS3."""
        return _etag_in(_parsed(answer.content))

    # ── uploads in parts ────────────────────────────────────────────────────────────────────────

    def begin(self, new: Described, kind: ChecksumKind | None) -> Request:
        headers = self._described(new)
        if kind is not None:
            headers["x-amz-checksum-algorithm"] = CHECKSUMS[kind].upper()
            headers["x-amz-checksum-type"] = "FULL_OBJECT"
        return Request("POST", self._path(new.key), (("uploads", ""),), headers)

    def begun(self, answer: Answer) -> str:
        """The upload's id. Raises NotS3."""
        upload = _texts(_root(answer, "InitiateMultipartUploadResult")).get("UploadId")
        if not upload:
            raise NotS3
        return upload

    def part(
        self, key: str, upload: str, number: int, body: memoryview | bytes, checksum: str | None
    ) -> Request:
        query = (("partNumber", str(number)), ("uploadId", upload))
        return Request("PUT", self._path(key), query, _proof(body, checksum), body)

    def part_made(self, number: int, answer: Answer, checksum: str | None) -> PartMade:
        """Raises NotS3."""
        if not (etag := answer.headers.get("etag")):
            raise NotS3
        return PartMade(number, etag, {"ChecksumCRC32C": checksum} if checksum else {})

    def copy_part(
        self, source: S3Calls, seen: Seen, key: str, upload: str, number: int, start: int, end: int
    ) -> Request:
        """`end`: the last byte that is copied."""
        query = (("partNumber", str(number)), ("uploadId", upload))
        headers = source._copied(seen) | {"x-amz-copy-source-range": f"bytes={start}-{end}"}
        return Request("PUT", self._path(key), query, headers)

    def part_copied(self, number: int, answer: Answer) -> PartMade:
        """Raises NotS3."""
        root = _parsed(answer.content)
        sums = {name: text for name, text in _texts(root).items() if name.startswith("Checksum")}
        return PartMade(number, f'"{_etag_in(root)}"', sums)

    def complete(
        self,
        key: str,
        upload: str,
        parts: Sequence[PartMade],
        whole: Checksum | None,
        **condition: str,
    ) -> Request:
        listed = "".join(_part_xml(part) for part in parts)
        body = (
            '<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"{listed}</CompleteMultipartUpload>"
        ).encode()
        headers = {"content-type": "application/xml"} | _conditions(condition)
        if whole is not None:
            headers[f"x-amz-checksum-{CHECKSUMS[whole.kind]}"] = whole.value
            headers["x-amz-checksum-type"] = "FULL_OBJECT"
        return Request("POST", self._path(key), (("uploadId", upload),), headers, body)

    def completed(self, answer: Answer) -> tuple[str, Checksum | None]:
        """The ETag, and the checksum that the answer tells. Raises NotS3."""
        root = _root(answer, "CompleteMultipartUploadResult")
        told = _texts(root)
        named = {
            f"x-amz-{name}".lower().replace("checksum", "checksum-"): value
            for name, value in told.items()
            if name.startswith("Checksum")
        }
        return _etag_in(root), checksum_told(named, in_parts=False)

    def abandon(self, key: str, upload: str) -> Request:
        return Request("DELETE", self._path(key), (("uploadId", upload),))

    def bucket(self) -> Request:
        """A look at the bucket alone, for the server's time."""
        return Request("HEAD", f"{self.base}/")

    def locking(self) -> Request:
        return Request("GET", f"{self.base}/", (("object-lock", ""),))

    def locks(self, answer: Answer) -> bool | None:
        """Whether objects here may be locked; None where the answer does not tell."""
        told = refusal_of(answer)
        if told is not None:
            known = ("ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration")
            return False if told.code in known or told.status == 501 else None
        try:
            found = _texts(_root(answer, "ObjectLockConfiguration"))
        except NotS3:
            return False
        return found.get("ObjectLockEnabled") == "Enabled"


def written(answer: Answer) -> tuple[str, Checksum | None]:
    """The ETag of what was put, and the checksum that the answer tells. Raises NotS3."""
    etag = answer.headers.get("etag", "").strip('"')
    if not etag:
        raise NotS3
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


def _proof(body: bytes | memoryview, checksum: str | None) -> dict[str, str]:
    if checksum is not None:
        # moto 5.2.5 computes and keeps a checksum only where its kind is named besides.
        return {"x-amz-checksum-crc32c": checksum, "x-amz-sdk-checksum-algorithm": "CRC32C"}
    digest = hashlib.md5(body, usedforsecurity=False).digest()
    return {"content-md5": base64.b64encode(digest).decode()}


def _conditions(condition: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in condition.items()}


def _etag_in(root: ElementTree.Element) -> str:
    etag = _texts(root).get("ETag", "").strip('"')
    if not etag:
        raise NotS3
    return etag


def _part_xml(part: PartMade) -> str:
    sums = "".join(f"<{name}>{_in_xml(value)}</{name}>" for name, value in part.checksums.items())
    return (
        f"<Part><ETag>{_in_xml(part.etag)}</ETag>{sums}"
        f"<PartNumber>{part.number}</PartNumber></Part>"
    )


def _in_xml(text: str) -> str:
    return escape(text, {'"': "&quot;", "\r": "&#13;", "\n": "&#10;"})


def _decoded(seen: Seen, length: int) -> Seen:
    return _below(seen, unquote_plus(seen.key), length)


def _below(seen: Seen, key: str, length: int) -> Seen:
    return Seen(key[length:], seen.size, seen.version, seen.storage_class, archived=seen.archived)
