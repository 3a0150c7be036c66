"""Amazon S3 and servers that speak its protocol (boto3)."""

from __future__ import annotations

import re
import threading
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from importlib.metadata import version
from io import BytesIO
from itertools import chain
from typing import Any
from urllib.parse import urlencode

import boto3
import botocore.session
import google_crc32c
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigNotFound,
    ConfigParseError,
    CredentialRetrievalError,
    InvalidConfigError,
    InvalidRegionError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)

from retainer.errors import (
    CredentialsRefused,
    KeyTaken,
    ListingBroken,
    RetainerError,
    StoreFailed,
    StoreRefused,
)
from retainer.model.moment import read_http_date, read_moment
from retainer.model.setting import OWN_PREFIX, Store
from retainer.ports import (
    Begun,
    Checksum,
    ChecksumKind,
    Conditions,
    Deletion,
    Look,
    Seen,
    StoreFailure,
    StoreReader,
    untold,
)
from retainer.stop import Stop

_PIECE = 1 << 20
_PART = 8 << 20
_PARTS_AT_ONCE = 3
_MOST_PARTS = 9_000  # S3 allows 10,000; the rest is for sizes that were understated
_GROWS_EVERY = (
    1_000  # parts of a stream of unknown length double after so many of them: 8 TiB in 10,000
)
_COPY_PART = 512 << 20
_NO_ANSWER = (BotoCoreError, KeyError)
_TROUBLE = (ClientError, *_NO_ANSWER)
_CANNOT = (400, 403, 405, 501)
"""How a server answers that it does not copy by itself, or that the bytes have another checksum:
they then go through here."""
_ARCHIVES = {"GLACIER", "DEEP_ARCHIVE"}
_NO_PARTS = (400, 405, 501)
"""How a server answers that it takes no upload in parts that begins as ours do: then none will be
made there."""
_RESTORED_DAYS = 7
_CHECKSUMS: dict[ChecksumKind, str] = {"crc32c": "CRC32C", "crc64nvme": "CRC64NVME"}
_PROBE_CRC64NVME = Checksum("crc64nvme", "O8bbmJm9D2w=")
_WITHOUT_END = datetime.max.replace(tzinfo=UTC)
_CREDENTIAL_CODES = {
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
_NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
    SSOError,
    ProfileNotFound,
    ConfigNotFound,
    ConfigParseError,
    InvalidConfigError,
)
_WRONG_REGION = (NoRegionError, InvalidRegionError)
_REDIRECTS = (301, 302, 303, 307, 308)
_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
"""What XML 1.0 cannot hold: a key with it goes by a call of its own, since one of them fails a
whole DeleteObjects."""


@cache
def _session() -> boto3.Session:
    """Shared by all stores. Times stay text as the server gave it: reading that of every key would
    take two thirds of a listing's CPU."""
    session = botocore.session.get_session()
    session.get_component("response_parser_factory").set_parser_defaults(
        timestamp_parser=lambda told: told
    )
    return boto3.Session(botocore_session=session)


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _is_missing(error: ClientError) -> bool:
    return _status(error) == 404 and _code(error) in ("404", "NoSuchKey", "NotFound")


def _is_conflict(error: ClientError) -> bool:
    """Whether a condition did not hold. A 409 says only that another write is going on: it may go
    through later."""
    return _status(error) == 412 or _code(error) == "PreconditionFailed"


def _was_sent_again(answer: Mapping[str, Any]) -> bool:
    """Whether an answer is to a second attempt: the first may have been done, and its answer
    lost."""
    return int(answer.get("ResponseMetadata", {}).get("RetryAttempts", 0)) > 0


class S3Reader:
    """Reads one prefix of one bucket."""

    def __init__(self, store: Store, stop: Stop | None = None, *, quick: bool = False) -> None:
        """`quick`: give up on a silent server in seconds, as a lock must. Raises
        CredentialsRefused, StoreFailed."""
        self.name = store.name
        self.store = store
        self._stop = stop or Stop()
        try:
            self._client: Any = self._connected(quick)
        except (BotoCoreError, ValueError) as error:
            if isinstance(error, ValueError) and not isinstance(error, BotoCoreError):
                raise StoreFailed(
                    f"reach {self.name}: {error}", hint="look at its `endpoint` and `region`"
                ) from None
            raise self._failed("reach", "", error) from None
        self._client.meta.events.register_first("needs-retry.s3", self._redirected)
        self._may_read_locks: bool | None = None

    def _connected(self, quick: bool) -> Any:
        store = self.store
        return _session().client(
            "s3",
            region_name=store.region or ("us-east-1" if store.endpoint else None),
            endpoint_url=store.endpoint,
            config=Config(
                signature_version="s3v4",
                max_pool_connections=32,
                connect_timeout=5 if quick else 10,
                read_timeout=10 if quick else 60,
                retries={"mode": "standard", "max_attempts": 2 if quick else 5},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                user_agent=f"retainer/{version('retainer')}",
                # What is sent is signed by its CRC32C, which the server checks, and not by a
                # SHA-256 besides.
                s3={
                    "payload_signing_enabled": False,
                    "addressing_style": "path"
                    if store.endpoint and store.scheme == "s3"
                    else "auto",
                },
            ),
        )

    def _redirected(self, response: Any, **_: Any) -> None:
        """Ends a call that is answered by a redirect, before botocore follows it (1.43: for ever,
        where nothing names a region)."""
        status = response[0].status_code if response else 0
        headers = response[0].headers if response else {}
        region = headers.get("x-amz-bucket-region")
        if status in _REDIRECTS and not (region and not self.store.endpoint):
            leads = (
                f"the region {region}"
                if region
                else _without_query(headers.get("Location") or "an address that it does not name")
            )
            hint = (
                f"set `region: {region}` for it"
                if region
                else "write the address itself as its `endpoint`"
            )
            raise StoreFailed(
                f"reach {self.name}: the server answered {status} and leads to {leads}", hint=hint
            )

    def _full(self, key: str) -> str:
        return self.store.prefix + key

    def _failed(self, verb: str, key: str, error: Exception) -> RetainerError:
        where = f"{verb} {self.name}:{key}" if key else f"{verb} {self.name}"
        if isinstance(error, RetainerError):
            return error
        if isinstance(error, _NO_CREDENTIALS) or (
            isinstance(error, ClientError) and _code(error) in _CREDENTIAL_CODES
        ):
            why = _code(error) if isinstance(error, ClientError) else type(error).__name__
            return CredentialsRefused(
                f"{where}: S3 refused the credentials, or there are none ({why})",
                hint="see `aws sts get-caller-identity`",
                store=self.name,
            )
        if isinstance(error, _WRONG_REGION):
            return StoreFailed(
                f"{where}: no region that S3 knows is named",
                hint="set `region` for it in retainer.yaml",
            )
        if isinstance(error, ClientError):
            code = "" if _code(error) == str(_status(error)) else f" {_code(error)}"
            said = f"{where}: S3 answered {_status(error)}{code}"
            if region := _region_in(error):
                return StoreFailed(
                    said, hint=f"set `region: {region}` for it: that is where the bucket is"
                )
            if _code(error) == "RequestTimeTooSkewed":
                return StoreFailed(said, hint="this machine's clock is off")
            if _status(error) in (401, 403, 405):
                return StoreRefused(
                    said, hint="the credentials lack a right there", store=self.name
                )
            return StoreFailed(said)
        if isinstance(error, KeyError):
            return StoreFailed(
                f"{where}: the answer is none that S3 would give",
                hint="does something else answer in its place?",
            )
        return StoreFailed(
            f"{where}: {type(error).__name__}", hint="the connection failed; run it again"
        )

    def list(self, under: str = "") -> Iterator[Seen]:
        try:
            for page in self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.store.bucket,
                Prefix=self._full(under),
                OptionalObjectAttributes=["RestoreStatus"],
            ):
                self._stop.check()
                if "IsTruncated" not in page or "Name" not in page:
                    raise KeyError(
                        "IsTruncated"
                    )  # a page of something else, which must not pass for an empty bucket
                for item in page.get("Contents", ()):
                    key = item["Key"][len(self.store.prefix) :]
                    if key and (under or not key.startswith(OWN_PREFIX)):
                        kind = item.get("StorageClass")
                        restored = "RestoreExpiryDate" in item.get("RestoreStatus", {})
                        yield Seen(
                            key,
                            item["Size"],
                            item["ETag"].strip('"'),
                            kind,
                            archived=kind in _ARCHIVES and not restored,
                        )
        except (*_TROUBLE, StoreFailed) as error:
            failure = self._failed("list", under, error)
            raise (
                failure
                if isinstance(failure, CredentialsRefused)
                else ListingBroken(failure.message, hint=failure.hint)
            ) from None

    def can_lock(self) -> bool:
        try:
            answer = self._client.get_object_lock_configuration(Bucket=self.store.bucket)
        except ClientError as error:
            return _code(error) not in (
                "ObjectLockConfigurationNotFoundError",
                "NoSuchObjectLockConfiguration",
            )
        except BotoCoreError:
            return True
        return bool(answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled")

    def look(self, key: str) -> Look | None:
        try:
            head = self._client.head_object(
                Bucket=self.store.bucket, Key=self._full(key), ChecksumMode="ENABLED"
            )
        except ClientError as error:
            if _is_missing(error):
                return None
            raise self._failed("look at", key, error) from None
        except _NO_ANSWER as error:
            raise self._failed("look at", key, error) from None
        retained = head.get("ObjectLockRetainUntilDate")
        until = None if retained is None else read_moment(str(retained))
        if head.get("ObjectLockLegalHoldStatus") == "ON":
            until = _WITHOUT_END
        in_parts = "-" in head["ETag"]
        whole = (
            head.get("ChecksumType", "COMPOSITE" if in_parts else "FULL_OBJECT") == "FULL_OBJECT"
        )
        told = _checksum_in(head) if whole else None
        return Look(
            Seen(
                key,
                head["ContentLength"],
                head["ETag"].strip('"'),
                head.get("StorageClass"),
                until,
                lock_read=until is not None
                or (retained is None and self._lock_headers_can_be_believed(key)),
                archived=head.get("StorageClass") in _ARCHIVES
                and 'ongoing-request="false"' not in head.get("Restore", ""),
            ),
            checksum=told,
            metadata=head.get("Metadata", {}),
            told=told,
            age=_age(head),
        )

    def _lock_headers_can_be_believed(self, key: str) -> bool:
        """HEAD leaves out lock headers that the caller has no right to see, so absence alone proves
        nothing where a bucket can lock."""
        if self._may_read_locks is None and not self.can_lock():
            self._may_read_locks = True
        if self._may_read_locks is None:
            allowed = True
            for ask in (self._client.get_object_retention, self._client.get_object_legal_hold):
                try:
                    ask(Bucket=self.store.bucket, Key=self._full(key))
                except ClientError as error:
                    if _status(error) >= 500:
                        return False
                    allowed = (
                        allowed and _status(error) in (400, 404) and _code(error) != "AccessDenied"
                    )
                except BotoCoreError:
                    return False
            self._may_read_locks = allowed
        return self._may_read_locks

    def read(self, seen: Seen) -> Iterator[bytes]:
        count = 0
        try:
            answer = self._client.get_object(
                Bucket=self.store.bucket, Key=self._full(seen.key), IfMatch=f'"{seen.version}"'
            )
            for piece in answer["Body"].iter_chunks(_PIECE):
                if not seen.key.startswith(OWN_PREFIX):
                    self._stop.check()
                count += len(piece)
                yield piece
        except ClientError as error:
            if _is_conflict(error) or _is_missing(error):
                raise StoreFailed(
                    f"read {self.name}:{seen.key}: it changed since it was seen", hint="plan again"
                ) from None
            raise self._failed("read", seen.key, error) from None
        except Exception as error:
            raise self._failed("read", seen.key, error) from None
        if count != seen.size:
            raise StoreFailed(
                f"read {self.name}:{seen.key}: {count} bytes came, {seen.size} were seen"
            )

    def unfinished(self) -> Sequence[str]:
        return ()

    def server_time(self) -> datetime:
        try:
            answer = self._client.head_bucket(Bucket=self.store.bucket)["ResponseMetadata"]
        except ClientError as error:
            answer = error.response["ResponseMetadata"]
        except _NO_ANSWER as error:
            raise self._failed("reach", "", error) from None
        date = read_http_date(answer.get("HTTPHeaders", {}).get("date"))
        if date is None:
            raise StoreFailed(f"reach {self.name}: the server does not tell its time")
        return date


class S3Writer(S3Reader):
    """Changes one prefix of one bucket, always on a condition."""

    _proven: Conditions | None = None

    def __init__(self, store: Store, stop: Stop | None = None, *, quick: bool = False) -> None:
        super().__init__(store, stop, quick=quick)
        self._proving = threading.Lock()
        self._bare_tags = False
        self._buffers: list[BytesIO] = []
        self._encrypted = (
            {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": store.kms_key}
            if store.kms_key
            else {}
        )
        """With every write, also of a probe or a lock: a bucket may refuse those that do not say
        so."""

    def _extra(
        self,
        key: str,
        metadata: Mapping[str, str],
        content_type: str,
        size: int,
        lock_until: datetime | None,
        kind: ChecksumKind = "crc32c",
    ) -> dict[str, Any]:
        extra: dict[str, Any] = {
            "Metadata": dict(metadata),
            "ContentType": content_type,
            "ChecksumAlgorithm": _CHECKSUMS[kind],
        }
        if storage_class := self.store.class_of(key, size):
            extra["StorageClass"] = storage_class
        extra |= self._encrypted
        if self.store.tags:
            extra["Tagging"] = urlencode(self.store.tags)
        if self.store.cache_control:
            extra["CacheControl"] = self.store.cache_control
        if self.store.lock and lock_until is not None:
            extra |= {
                "ObjectLockMode": self.store.lock.upper(),
                "ObjectLockRetainUntilDate": lock_until,
            }
        return extra

    def create(
        self,
        key: str,
        chunks: Iterator[bytes],
        size: int | None,
        metadata: Mapping[str, str],
        content_type: str,
        begun: Begun = untold,
        lock_until: datetime | None = None,
        over: Seen | None = None,
    ) -> Look:
        parts = _parts(chunks, size, self._buffers)
        first = next(parts)
        second = next(parts, None)
        known = (
            size
            if size is not None
            else first.size
            if second is None
            else self.store.storage_class_from
        )
        extra = self._extra(key, metadata, content_type, known, lock_until)
        try:
            if second is not None:
                return self._create_in_parts(key, chain((first, second), parts), extra, begun, over)
            answer = self._client.put_object(
                Bucket=self.store.bucket,
                Key=self._full(key),
                Body=first.body,
                ChecksumCRC32C=first.crc32c,
                **self._only_over(over),
                **extra,
            )
            self._buffers.append(first.body)
            return self._written(key, first.size, answer)
        except ClientError as error:
            if _is_conflict(error):
                raise KeyTaken(f"{self.name}:{key}: something else lies there") from None
            raise self._failed("write", key, error) from None
        except _NO_ANSWER as error:
            raise self._failed("write", key, error) from None

    def _create_in_parts(
        self,
        key: str,
        parts: Iterator[_Part],
        extra: dict[str, Any],
        begun: Begun,
        over: Seen | None,
    ) -> Look:
        place = {"Bucket": self.store.bucket, "Key": self._full(key)}
        upload = self._client.create_multipart_upload(**place, ChecksumType="FULL_OBJECT", **extra)
        place["UploadId"] = upload["UploadId"]

        def send(number: int, part: _Part) -> dict[str, Any]:
            answer = self._client.upload_part(
                **place, PartNumber=number, Body=part.body, ChecksumCRC32C=part.crc32c
            )
            self._buffers.append(part.body)
            return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumCRC32C": part.crc32c}

        try:
            begun(upload["UploadId"])
            done: list[dict[str, Any]] = []
            going: deque[Future[dict[str, Any]]] = deque()
            size, whole = 0, ""
            with ThreadPoolExecutor(_PARTS_AT_ONCE) as pool:
                for number, part in enumerate(parts, 1):
                    size, whole = size + part.size, part.so_far
                    if len(going) == _PARTS_AT_ONCE:
                        done.append(going.popleft().result())
                    going.append(pool.submit(send, number, part))
                done += [each.result() for each in going]
            answer = self._client.complete_multipart_upload(
                **place,
                MultipartUpload={"Parts": done},
                **self._only_over(over),
                ChecksumType="FULL_OBJECT",
                ChecksumCRC32C=whole,
            )
            return self._written(key, size, answer)
        except BaseException:
            with suppress(RetainerError):
                self.abandon(key, upload["UploadId"])
            raise

    def _written(self, key: str, size: int, answer: Mapping[str, Any]) -> Look:
        computed = (
            _checksum_in(answer) if self._proven is not None and self._proven.checksum else None
        )
        return Look(Seen(key, size, answer["ETag"].strip('"')), computed)

    def _only_over(self, over: Seen | None) -> dict[str, str]:
        """The condition of a write: that nothing is there, or just this object."""
        return {"IfMatch": self._tag(over.version)} if over else {"IfNoneMatch": "*"}

    def look(self, key: str) -> Look | None:
        look = super().look(key)
        return None if look is None else look.as_proven(self._proven)

    def abandon(self, key: str, upload: str) -> None:
        try:
            self._client.abort_multipart_upload(
                Bucket=self.store.bucket, Key=self._full(key), UploadId=upload
            )
        except _TROUBLE as error:
            if not (
                isinstance(error, ClientError)
                and (_code(error) == "NoSuchUpload" or _is_missing(error))
            ):
                raise self._failed("clear up", key, error) from None

    def copies_from(self, source: StoreReader) -> bool:
        here = (self.store.scheme, self.store.endpoint)
        if not isinstance(source, S3Reader) or (source.store.scheme, source.store.endpoint) != here:
            return False
        return self.conditions().create and self.conditions().checksum

    def copy_within(
        self,
        source: StoreReader,
        seen: Seen,
        checksum: Checksum,
        key: str,
        metadata: Mapping[str, str],
        content_type: str,
        begun: Begun = untold,
        lock_until: datetime | None = None,
    ) -> Seen | None:
        if not isinstance(source, S3Reader) or not self.copies_from(source) or seen.size == 0:
            return None
        extra = self._extra(key, metadata, content_type, seen.size, lock_until, checksum.kind)
        if seen.size <= _COPY_PART and self.conditions().copy:
            return self._copy_at_once(source, seen, key, extra)
        return self._copy_in_parts(source, seen, checksum, key, extra, begun)

    def _copy_at_once(
        self, source: S3Reader, seen: Seen, key: str, extra: dict[str, Any]
    ) -> Seen | None:
        try:
            answer = self._client.copy_object(
                Bucket=self.store.bucket,
                Key=self._full(key),
                CopySource={"Bucket": source.store.bucket, "Key": source._full(seen.key)},
                CopySourceIfMatch=f'"{seen.version}"',
                IfNoneMatch="*",
                MetadataDirective="REPLACE",
                TaggingDirective="REPLACE",
                **extra,
            )["CopyObjectResult"]
            return Seen(key, seen.size, answer["ETag"].strip('"'))
        except _TROUBLE as error:
            if (
                isinstance(error, ClientError)
                and _is_conflict(error)
                and self.look(key) is not None
            ):
                raise KeyTaken(f"{self.name}:{key}: something else lies there") from None
            self._cannot_copy(source, seen, key, error)
            return None

    def _copy_in_parts(
        self,
        source: S3Reader,
        seen: Seen,
        checksum: Checksum,
        key: str,
        extra: dict[str, Any],
        begun: Begun,
    ) -> Seen | None:
        place = {"Bucket": self.store.bucket, "Key": self._full(key)}
        origin = {"Bucket": source.store.bucket, "Key": source._full(seen.key)}
        try:
            upload = self._client.create_multipart_upload(
                **place, ChecksumType="FULL_OBJECT", **extra
            )
        except _TROUBLE as error:
            self._cannot_copy(source, seen, key, error)
            return None
        place["UploadId"] = upload["UploadId"]
        kind = f"Checksum{_CHECKSUMS[checksum.kind]}"
        try:
            begun(upload["UploadId"])
            done = []
            for number, start in enumerate(range(0, seen.size, _COPY_PART), 1):
                self._stop.check()
                end = min(start + _COPY_PART, seen.size) - 1
                answer = self._client.upload_part_copy(
                    **place,
                    PartNumber=number,
                    CopySource=origin,
                    CopySourceIfMatch=f'"{seen.version}"',
                    CopySourceRange=f"bytes={start}-{end}",
                )["CopyPartResult"]
                told = {
                    name: value for name, value in answer.items() if name.startswith("Checksum")
                }
                done.append({"PartNumber": number, "ETag": answer["ETag"]} | told)
            if any(kind not in part for part in done) or (
                len(done) == 1 and done[0][kind] != checksum.value
            ):
                with suppress(RetainerError):
                    self.abandon(key, upload["UploadId"])
                return None  # it computes none of what it copies, or copied something else
            answer = self._client.complete_multipart_upload(
                **place,
                MultipartUpload={"Parts": done},
                IfNoneMatch="*",
                ChecksumType="FULL_OBJECT",
                **{kind: checksum.value},
            )
            return Seen(key, seen.size, answer["ETag"].strip('"'))
        except BaseException as error:
            with suppress(RetainerError):
                self.abandon(key, upload["UploadId"])
            if (
                isinstance(error, ClientError)
                and _is_conflict(error)
                and error.operation_name == "CompleteMultipartUpload"
            ):
                raise KeyTaken(f"{self.name}:{key}: something else lies there") from None
            if not isinstance(error, _TROUBLE):
                raise
            self._cannot_copy(source, seen, key, error)
            return None

    def _cannot_copy(self, source: S3Reader, seen: Seen, key: str, error: Exception) -> None:
        """Returns where the servers do not copy by themselves, or not what has that checksum.
        Raises StoreFailed for any other reason."""
        if isinstance(error, ClientError):
            if _is_conflict(error) or _is_missing(error):
                raise StoreFailed(
                    f"copy {source.name}:{seen.key}: it changed since it was seen",
                    hint="plan again",
                ) from None
            if _status(error) in _CANNOT:
                return
        raise self._failed("copy to", key, error) from None

    def lock(self, seen: Seen, until: datetime) -> None:
        mode = (self.store.lock or "governance").upper()
        try:
            self._client.put_object_retention(
                Bucket=self.store.bucket,
                Key=self._full(seen.key),
                Retention={"Mode": mode, "RetainUntilDate": until},
            )
        except _TROUBLE as error:
            raise self._failed("lock", seen.key, error) from None

    def restore(self, seen: Seen) -> None:
        try:
            self._client.restore_object(
                Bucket=self.store.bucket,
                Key=self._full(seen.key),
                RestoreRequest={"Days": _RESTORED_DAYS, "GlacierJobParameters": {"Tier": "Bulk"}},
            )
        except _TROUBLE as error:
            if not (isinstance(error, ClientError) and _code(error) == "RestoreAlreadyInProgress"):
                raise self._failed("restore", seen.key, error) from None

    def delete(self, seen: Seen) -> Deletion:
        if not self.conditions().delete:
            found = self.look(seen.key)
            if found is None:
                return Deletion.GONE
            if (found.seen.version, found.seen.size) != (seen.version, seen.size):
                return Deletion.CHANGED
        try:
            self._client.delete_object(
                Bucket=self.store.bucket, Key=self._full(seen.key), IfMatch=f'"{seen.version}"'
            )
        except ClientError as error:
            gone = Deletion.DELETED if _was_sent_again(error.response) else Deletion.GONE
            if _is_missing(error):
                return gone
            if _is_conflict(error):
                return Deletion.CHANGED if self.look(seen.key) else gone
            if (
                _status(error) == 403
                and "lock" in str(error.response.get("Error", {}).get("Message", "")).lower()
            ):
                return Deletion.LOCKED
            raise self._failed("delete", seen.key, error) from None
        except _NO_ANSWER as error:
            raise self._failed("delete", seen.key, error) from None
        return Deletion.DELETED

    def put_back(self, key: str) -> bool:
        return True

    def delete_batch(self, batch: Sequence[Seen]) -> list[Deletion | StoreFailure]:
        together = [seen for seen in batch if not _UNWRITABLE.search(seen.key)]
        outcomes = (
            dict(zip(together, self._deleted_together(together), strict=True)) if together else {}
        )
        return [outcomes[seen] if seen in outcomes else self._deleted_alone(seen) for seen in batch]

    def _deleted_alone(self, seen: Seen) -> Deletion | StoreFailure:
        self._stop.check()
        try:
            return self.delete(seen)
        except CredentialsRefused:
            raise
        except RetainerError as error:
            return StoreFailure(error.message, refused=isinstance(error, StoreRefused))

    def _deleted_together(self, batch: Sequence[Seen]) -> list[Deletion | StoreFailure]:
        objects = [{"Key": self._full(seen.key), "ETag": f'"{seen.version}"'} for seen in batch]
        try:
            answer = self._client.delete_objects(
                Bucket=self.store.bucket, Delete={"Objects": objects, "Quiet": False}
            )
        except _TROUBLE as error:
            if (
                isinstance(error, ClientError)
                and _status(error) == 400
                and not _region_in(error)
                and _code(error) not in _CREDENTIAL_CODES
            ):
                return [
                    self._deleted_alone(seen) for seen in batch
                ]  # one of its keys is none that this server reads
            raise self._failed("delete", f"{len(batch)} objects", error) from None
        gone = Deletion.DELETED if _was_sent_again(answer) else Deletion.GONE
        deleted = {item["Key"] for item in answer.get("Deleted", ())}
        errors = {item["Key"]: str(item.get("Code", "")) for item in answer.get("Errors", ())}

        def outcome(seen: Seen) -> Deletion | StoreFailure:
            key = self._full(seen.key)
            match errors.get(key):
                case "PreconditionFailed":
                    return Deletion.CHANGED if self.look(seen.key) else gone
                case "NoSuchKey":
                    return gone
                case None if key in deleted:
                    return Deletion.DELETED
                case code:
                    said = f"delete {self.name}:{seen.key}: S3 answered {code or 'nothing'}"
                    return StoreFailure(
                        said,
                        refused=code
                        in ("AccessDenied", "MethodNotAllowed", "InvalidRequest", "MalformedXML"),
                    )

        return [outcome(seen) for seen in batch]

    def impatient(self) -> S3Writer:
        other = S3Writer(self.store, self._stop, quick=True)
        other._proven, other._bare_tags = self.conditions(), self._bare_tags
        return other

    def conditions(self) -> Conditions:
        with self._proving:
            if self._proven is None:
                self._proven = self._prove()
            return self._proven

    def _prove(self) -> Conditions:
        key = f"{OWN_PREFIX}probe-{uuid.uuid4().hex}"
        place = {"Bucket": self.store.bucket, "Key": self._full(key)}
        put, wrong = (
            partial(self._client.put_object, **place, **self._encrypted),
            '"00000000000000000000000000000000"',
        )
        try:
            version = put(Body=b"probe", ChecksumCRC32C=_crc(b"probe"))["ETag"].strip('"')
            probe = super().look(key)
            create = self._refused(
                lambda: put(Body=b"other", IfNoneMatch="*", ChecksumCRC32C=_crc(b"other"))
            )
            create = create and self._refuses_parts(place, _crc(b"other"), IfNoneMatch="*")
            copy = create and self._refuses_copies(place, key)
            computed = (version, Checksum("crc32c", _crc(b"probe")))
            checksum = probe is not None and (probe.seen.version, probe.checksum) == computed
            checksum = checksum and self._refused(
                lambda: put(Body=b"probe", ChecksumCRC32C=_crc(b"other")), statuses=(400,)
            )
            checksum = checksum and self._refuses_parts(place, _crc(b"probe"))
            replace = create and self._replaces(put, key, version)
            delete = (
                self._refused(lambda: self._client.delete_object(**place, IfMatch=wrong))
                and super().look(key) is not None
            )
            batch = (
                delete
                and self._refuses_batch(place | {"ETag": wrong})
                and super().look(key) is not None
            )
            self._client.delete_object(**place)
        except _TROUBLE as error:
            with suppress(*_TROUBLE):
                self._client.delete_object(**place)
            raise self._failed("probe", "", error) from None
        return Conditions(
            create=create,
            delete=delete,
            batch_delete=batch,
            checksum=checksum,
            replace=replace,
            copy=copy,
        )

    def _replaces(self, put: Any, key: str, version: str) -> bool:
        """Whether a write over the right version goes through, and one over another version does
        not.

        Ceph RGW 16.2.15 takes an ETag in If-Match of a PUT only without its quotes
        (../shared/lab/ceph-rgw-conditions.sh).
        """
        if not self._refused(
            lambda: put(
                Body=b"other",
                IfMatch='"00000000000000000000000000000000"',
                ChecksumCRC32C=_crc(b"other"),
            )
        ):
            return False
        for self._bare_tags in (False, True):
            try:
                put(Body=b"probe", IfMatch=self._tag(version), ChecksumCRC32C=_crc(b"probe"))
            except ClientError as error:
                if not _is_conflict(error) and _status(error) not in (400, 501):
                    raise
                continue
            return self._refused(
                partial(
                    put, Body=b"other", IfMatch=self._tag("0" * 32), ChecksumCRC32C=_crc(b"other")
                )
            )
        self._bare_tags = False
        return False

    def _tag(self, version: str) -> str:
        """An ETag as this server takes it in If-Match of a PUT."""
        return version if self._bare_tags else f'"{version}"'

    def _refuses_parts(self, place: Mapping[str, str], whole: str, **condition: str) -> bool:
        """Whether an upload in parts ends in a refusal, for its condition or since this is not the
        checksum of its bytes (`other`)."""
        upload, told = dict(place), {"ChecksumCRC32C": _crc(b"other")}
        try:
            how = {"ChecksumAlgorithm": "CRC32C", "ChecksumType": "FULL_OBJECT"} | self._encrypted
            upload["UploadId"] = self._client.create_multipart_upload(**place, **how)["UploadId"]
            part = {
                "PartNumber": 1,
                "ETag": self._client.upload_part(**upload, PartNumber=1, Body=b"other", **told)[
                    "ETag"
                ],
            } | told
            end = partial(
                self._client.complete_multipart_upload,
                **upload,
                MultipartUpload={"Parts": [part]},
                ChecksumType="FULL_OBJECT",
            )
            return self._refused(
                lambda: end(ChecksumCRC32C=whole, **condition), statuses=(400, 412)
            )
        except ClientError as error:
            if _status(error) in _NO_PARTS:
                return True
            raise
        finally:
            if "UploadId" in upload:
                with suppress(*_TROUBLE):
                    self._client.abort_multipart_upload(**upload)

    def _refuses_copies(self, place: Mapping[str, str], key: str) -> bool:
        """Whether CopyObject writes over nothing, and has a checksum computed of what it wrote:
        some servers repeat the one of the source."""
        how = {
            "MetadataDirective": "REPLACE",
            "IfNoneMatch": "*",
            "ChecksumAlgorithm": "CRC64NVME",
        } | self._encrypted
        copy = partial(self._client.copy_object, CopySource=place, **how)
        other = dict(place) | {"Key": place["Key"] + "-copy"}
        try:
            copy(**other)
            made = super().look(key + "-copy")
            return (
                made is not None
                and made.checksum == _PROBE_CRC64NVME
                and self._refused(lambda: copy(**place))
            )
        except ClientError:
            return False  # they are then made in parts, whose last call is conditional
        finally:
            with suppress(*_TROUBLE):
                self._client.delete_object(**other)

    def _refuses_batch(self, entry: Mapping[str, str]) -> bool:
        answer: dict[str, Any] = {}
        objects = [{"Key": entry["Key"], "ETag": entry["ETag"]}]
        refused = self._refused(
            lambda: answer.update(
                self._client.delete_objects(Bucket=entry["Bucket"], Delete={"Objects": objects})
            )
        )
        return not refused and bool(answer.get("Errors")) and not answer.get("Deleted")

    @staticmethod
    def _refused(call: Any, statuses: tuple[int, ...] = (412,)) -> bool:
        """Whether a call that must fail on its condition does. Any other failure goes through."""
        try:
            call()
        except ClientError as error:
            if _is_conflict(error) or _status(error) in statuses:
                return True
            if _status(error) in (400, 501):
                return False
            raise
        return False

    def replace(self, seen: Seen, content: bytes) -> Seen | None:
        try:
            answer = self._client.put_object(
                Bucket=self.store.bucket,
                Key=self._full(seen.key),
                Body=content,
                IfMatch=self._tag(seen.version),
                ChecksumCRC32C=_crc(content),
                **self._encrypted,
            )
        except ClientError as error:
            if _is_conflict(error) or _is_missing(error):
                return None
            raise self._failed("write", seen.key, error) from None
        except _NO_ANSWER as error:
            raise self._failed("write", seen.key, error) from None
        return Seen(seen.key, len(content), answer["ETag"].strip('"'))


def _checksum_in(head: Mapping[str, Any]) -> Checksum | None:
    """What S3 computed of a whole object: of those it may have, the ones that are known here."""
    for kind, name in _CHECKSUMS.items():
        if (value := head.get(f"Checksum{name}")) and "-" not in value:
            return Checksum(kind, value)
    return None


def _age(head: Mapping[str, Any]) -> timedelta | None:
    """How long ago an object was written, by the server's own `Date`."""
    told = (
        head.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date"),
        head.get("LastModified"),
    )
    now, then = map(read_http_date, told)
    return now - then if now and then else None


def _region_in(error: ClientError) -> str | None:
    """The region that S3 names where a request went to another one."""
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    named = headers.get("x-amz-bucket-region") or error.response.get("Error", {}).get("Region")
    return str(named) if named and _status(error) in (301, 307, 400) else None


def _without_query(address: str) -> str:
    return address.partition("?")[0][:200]


def _crc(content: bytes) -> str:
    return Checksum.of("crc32c", google_crc32c.Checksum(content)).value


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece of a stream that is sent at once. Its buffer is used again: memory that is new costs
    more than all that is done with it."""

    body: BytesIO
    size: int
    crc32c: str
    so_far: str
    """The CRC32C of the stream up to the end of this part."""


def _parts(chunks: Iterator[bytes], size: int | None, buffers: list[BytesIO]) -> Iterator[_Part]:
    """The stream in parts of at least 8 MiB, the last one shorter, and no more of them than S3
    takes; one empty part for an empty stream.

    `buffers`: those to be used again.
    """
    least, number = max(_PART, -(-(size or 0) // _MOST_PARTS)), 0
    whole: google_crc32c.Checksum | None = None
    while True:
        body, checksum = _emptied(buffers), google_crc32c.Checksum()
        for chunk in chunks:
            body.write(chunk)
            checksum.update(chunk)
            if whole:
                whole.update(chunk)
            if body.tell() >= (least if size is not None else least << (number // _GROWS_EVERY)):
                break
        length = body.tell()
        if length == 0 and whole:
            buffers.append(body)
            return
        whole = whole or checksum.copy()
        body.truncate()
        body.seek(0)
        yield _Part(
            body, length, Checksum.of("crc32c", checksum).value, Checksum.of("crc32c", whole).value
        )
        number += 1


def _emptied(buffers: list[BytesIO]) -> BytesIO:
    try:
        buffer = buffers.pop()
    except IndexError:
        return BytesIO()
    buffer.seek(0)
    return buffer
