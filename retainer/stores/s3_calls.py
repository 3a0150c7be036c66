"""What is asked of S3, as values. No I/O.

Source: https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations.html; what other servers make
of it is in docs/reference/stores.md.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import quote, urlencode
from xml.sax.saxutils import escape

from retainer.model.lifecycle import LifecycleRule
from retainer.model.setting import Store
from retainer.ports import Checksum, ChecksumKind, Hidden, Look, Seen, Version
from retainer.stores.calls import Body, Described, Nonsense, Page, VersionPage
from retainer.stores.hidden import hidden_at_s3, versions_at_s3
from retainer.stores.lifecycles import s3_lifecycle
from retainer.stores.s3_answers import (
    CHECKSUMS,
    PartMade,
    folders_in,
    look_of,
    name_of,
    page_of,
    parsed,
    refusal_named,
    refusal_of,
    root_of,
    texts,
    versions_in,
    written,
)
from retainer.stores.verdict import Refusal
from retainer.stores.wire import Answer, Request

_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
"""What XML 1.0 cannot hold: a key with it goes by a call of its own, since one of them fails a
whole DeleteObjects."""
_MODE = {"x-amz-checksum-mode": "ENABLED"}
_BEHIND = ("key-marker", "version-id-marker")
"""What a page of versions goes on with."""


@dataclass(frozen=True, slots=True)
class S3Calls:
    """The calls to one bucket, with what its store asks of every write."""

    store: Store
    base: str
    """What every path begins with: `/bucket` where buckets are no hosts."""

    batch: ClassVar[int] = 1000
    no_version: ClassVar[str] = "0" * 32

    def refusal_of(self, answer: Answer) -> Refusal | None:
        return refusal_of(answer)

    def _path(self, key: str) -> str:
        return f"{self.base}/{self.store.prefix}{key}"

    def list(
        self, under: str, then: str | None, *, after: str | None = None, extras: bool = True
    ) -> Request:
        query = [
            ("list-type", "2"),
            ("encoding-type", "url"),
            ("prefix", self.store.prefix + under),
        ]
        if then is not None:
            query.append(("continuation-token", then))
        elif after is not None:
            query.append(("start-after", self.store.prefix + after))
        headers = {"x-amz-optional-object-attributes": "RestoreStatus"} if extras else {}
        return Request("GET", f"{self.base}/", tuple(query), headers)

    def folders(self, under: str) -> Request:
        query = [
            ("list-type", "2"),
            ("encoding-type", "url"),
            ("delimiter", "/"),
            ("prefix", self.store.prefix + under),
        ]
        return Request("GET", f"{self.base}/", tuple(query))

    def folders_told(self, answer: Answer) -> Sequence[str]:
        return folders_in(answer, len(self.store.prefix))

    def listed(self, answer: Answer) -> Page:
        return page_of(answer, len(self.store.prefix))

    def look(self, key: str, *, extras: bool = True) -> Request:
        return Request("HEAD", self._path(key), headers=_MODE if extras else {})

    def looked(self, key: str, answer: Answer) -> Look:
        return look_of(key, answer)

    def read(self, seen: Seen, start: int = 0) -> Request:
        headers = {"if-match": f'"{seen.version}"'}
        if start:
            headers["range"] = f"bytes={start}-"
        return Request("GET", self._path(seen.key), headers=headers)

    def whole(self, key: str, *, extras: bool = True) -> Request:
        return Request("GET", self._path(key), headers=_MODE if extras else {})

    def opened(self, key: str, answer: Answer) -> Look:
        return look_of(key, answer)

    def version_in(self, answer: Answer) -> str | None:
        return answer.headers.get("etag", "").strip('"') or None

    def only_over(self, version: str | None) -> dict[str, str]:
        return {"if_none_match": "*"} if version is None else {"if_match": f'"{version}"'}

    def put(self, new: Described, body: Body, checksum: str | None, **condition: str) -> Request:
        """`checksum`: the CRC32C, where the server takes one; else Content-MD5."""
        headers = self._described(new) | _proof(body, checksum) | _conditions(condition)
        return Request("PUT", self._path(new.key), headers=headers, body=body)

    def _described(self, new: Described) -> dict[str, str]:
        store = self.store
        headers = {f"x-amz-meta-{name}": value for name, value in new.metadata.items()}
        headers["content-type"] = new.content_type
        if new.encoding:
            headers["content-encoding"] = new.encoding
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

    def written(self, answer: Answer) -> tuple[str, Checksum | None]:
        return written(answer)

    def delete(self, key: str, version: str | None, *, once: bool = False) -> Request:
        headers = {"if-match": f'"{version}"'} if version is not None else {}
        return Request("DELETE", self._path(key), headers=headers, once=once)

    def goes_in_a_batch(self, key: str) -> bool:
        return _UNWRITABLE.search(key) is None

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

    def deleted_many(self, batch: Sequence[Seen], answer: Answer) -> Mapping[str, Refusal | None]:
        ended: dict[str, Refusal | None] = {}
        length = len(self.store.prefix)
        for child in root_of(answer, "DeleteResult"):
            told = texts(child)
            key = told.get("Key", "")[length:]
            match name_of(child):
                case "Deleted":
                    ended.setdefault(key, None)
                case "Error":
                    ended[key] = refusal_named(told.get("Code", ""), told.get("Message", ""))
        return ended

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

    # ── uploads in parts ────────────────────────────────────────────────────────────────────────

    def begin(self, new: Described, kind: ChecksumKind | None) -> Request:
        headers = self._described(new)
        if kind is not None:
            headers["x-amz-checksum-algorithm"] = CHECKSUMS[kind].upper()
            headers["x-amz-checksum-type"] = "FULL_OBJECT"
        return Request("POST", self._path(new.key), (("uploads", ""),), headers)

    def part(
        self, key: str, upload: str, number: int, body: memoryview | bytes, checksum: str | None
    ) -> Request:
        query = (("partNumber", str(number)), ("uploadId", upload))
        return Request("PUT", self._path(key), query, _proof(body, checksum), body)

    def part_made(self, number: int, answer: Answer, checksum: str | None) -> PartMade:
        """Raises Nonsense."""
        if not (etag := answer.headers.get("etag")):
            raise Nonsense
        return PartMade(number, etag, {"ChecksumCRC32C": checksum} if checksum else {})

    def copy_part(
        self, source: S3Calls, seen: Seen, key: str, upload: str, number: int, start: int, end: int
    ) -> Request:
        """`end`: the last byte that is copied."""
        query = (("partNumber", str(number)), ("uploadId", upload))
        headers = source._copied(seen) | {"x-amz-copy-source-range": f"bytes={start}-{end}"}
        return Request("PUT", self._path(key), query, headers)

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

    def abandon(self, key: str, upload: str) -> Request:
        return Request("DELETE", self._path(key), (("uploadId", upload),))

    def bucket(self) -> Request:
        """A look at the bucket alone, for the server's time."""
        return Request("HEAD", f"{self.base}/")

    def setting(self, name: str) -> Request:
        """What the bucket's owner has set under this name."""
        return Request("GET", f"{self.base}/", ((name, ""),))

    def keeping(self) -> Request:
        return self.setting("versioning")

    def keeps(self, answer: Answer) -> str | None:
        return versions_in(answer)

    def versions(self, under: str, then: str | None = None) -> Request:
        """Those of a key that is asked for come before those of keys that begin with it."""
        query = [("versions", ""), ("encoding-type", "url"), ("prefix", self.store.prefix + under)]
        query += [each for each in zip(_BEHIND, json.loads(then or "[]"), strict=False) if each[1]]
        return Request("GET", f"{self.base}/", tuple(query))

    def versions_told(self, answer: Answer) -> VersionPage:
        return versions_at_s3(answer, len(self.store.prefix))

    def look_at(self, version: Version) -> Request:
        return Request("HEAD", self._path(version.seen.key), (("versionId", version.id),))

    def remove(self, version: Version) -> Request:
        return Request("DELETE", self._path(version.seen.key), (("versionId", version.id),))

    def hidden(self, seen: Seen, answer: Answer) -> Hidden | None:
        return hidden_at_s3(seen, self.store.prefix + seen.key, answer)

    def lifecycle(self) -> Request:
        return self.setting("lifecycle")

    def rules(self, answer: Answer) -> Sequence[LifecycleRule] | None:
        told = refusal_of(answer)
        if told is not None:
            return () if told.code == "NoSuchLifecycleConfiguration" else None
        return s3_lifecycle(parsed(answer.content))

    def locking(self) -> Request:
        return self.setting("object-lock")


def _proof(body: bytes | memoryview, checksum: str | None) -> dict[str, str]:
    if checksum is not None:
        # moto 5.2.5 computes and keeps a checksum only where its kind is named besides.
        return {"x-amz-checksum-crc32c": checksum, "x-amz-sdk-checksum-algorithm": "CRC32C"}
    digest = hashlib.md5(body, usedforsecurity=False).digest()
    return {"content-md5": base64.b64encode(digest).decode()}


def _conditions(condition: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in condition.items()}


def _part_xml(part: PartMade) -> str:
    sums = "".join(f"<{name}>{_in_xml(value)}</{name}>" for name, value in part.checksums.items())
    return (
        f"<Part><ETag>{_in_xml(part.etag)}</ETag>{sums}"
        f"<PartNumber>{part.number}</PartNumber></Part>"
    )


def _in_xml(text: str) -> str:
    return escape(text, {'"': "&quot;", "\r": "&#13;", "\n": "&#10;"})
