"""Amazon S3 and servers that speak its protocol (boto3)."""

from __future__ import annotations

import base64
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import boto3
import google_crc32c
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from retainer.errors import CredentialsRefused, KeyTaken, ListingBroken, RetainerError, StoreFailed
from retainer.model.setting import OWN_PREFIX, Store
from retainer.ports import Begun, Conditions, Deletion, Look, Seen, StoreFailure, StoreReader, untold

_PIECE = 1 << 20
_PART = 8 << 20
_MOST_PARTS = 9_000  # S3 allows 10,000; the rest is for sizes that were understated
_COPY_PART = 512 << 20
_CREDENTIAL_CODES = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"}


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _is_missing(error: ClientError) -> bool:
    return _status(error) == 404 and _code(error) in ("404", "NoSuchKey", "NotFound")


def _is_conflict(error: ClientError) -> bool:
    return _status(error) in (409, 412) or _code(error) in ("PreconditionFailed", "ConditionalRequestConflict")


class S3Reader:
    """Reads one prefix of one bucket."""

    def __init__(self, store: Store) -> None:
        self.name = store.name
        self.store = store
        self._client: Any = boto3.client(
            "s3",
            region_name=store.region or ("us-east-1" if store.endpoint else None),
            endpoint_url=store.endpoint,
            config=Config(
                signature_version="s3v4",
                max_pool_connections=32,
                connect_timeout=10,
                read_timeout=60,
                retries={"mode": "standard", "max_attempts": 5},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"addressing_style": "path"} if store.endpoint else {},
            ),
        )
        self._may_read_locks: bool | None = None

    def _full(self, key: str) -> str:
        return self.store.prefix + key

    def _failed(self, verb: str, key: str, error: Exception) -> RetainerError:
        where = f"{verb} {self.name}:{key}" if key else f"{verb} {self.name}"
        if isinstance(error, NoCredentialsError) or (isinstance(error, ClientError) and _code(error) in _CREDENTIAL_CODES):
            return CredentialsRefused(
                f"{where}: S3 refused the credentials, or there are none", hint="see `aws sts get-caller-identity`"
            )
        if isinstance(error, ClientError):
            hint = "the credentials lack a right there" if _status(error) == 403 else None
            return StoreFailed(f"{where}: S3 answered {_status(error)} {_code(error)}", hint=hint)
        return StoreFailed(f"{where}: {type(error).__name__}", hint="the connection failed; run it again")

    def list(self, under: str = "") -> Iterator[Seen]:
        try:
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.store.bucket, Prefix=self._full(under)):
                for item in page.get("Contents", ()):
                    key = item["Key"][len(self.store.prefix) :]
                    if key and (under or not key.startswith(OWN_PREFIX)):
                        yield Seen(key, item["Size"], item["ETag"].strip('"'), item.get("StorageClass"))
        except (ClientError, BotoCoreError, KeyError) as error:
            failure = self._failed("list", under, error)
            raise failure if isinstance(failure, CredentialsRefused) else ListingBroken(failure.message, hint=failure.hint) from None

    def can_lock(self) -> bool:
        try:
            answer = self._client.get_object_lock_configuration(Bucket=self.store.bucket)
        except ClientError as error:
            return _code(error) not in ("ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration")
        except BotoCoreError:
            return True
        return bool(answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled")

    def look(self, key: str) -> Look | None:
        try:
            head = self._client.head_object(Bucket=self.store.bucket, Key=self._full(key), ChecksumMode="ENABLED")
        except ClientError as error:
            if _is_missing(error):
                return None
            raise self._failed("look at", key, error) from None
        except BotoCoreError as error:
            raise self._failed("look at", key, error) from None
        until = head.get("ObjectLockRetainUntilDate")
        if head.get("ObjectLockLegalHoldStatus") == "ON":
            until = datetime.max.replace(tzinfo=UTC)
        in_parts = "-" in head["ETag"]
        whole = head.get("ChecksumType", "COMPOSITE" if in_parts else "FULL_OBJECT") == "FULL_OBJECT"
        return Look(
            Seen(key, head["ContentLength"], head["ETag"].strip('"'), head.get("StorageClass"), until,
                 lock_read=until is not None or self._lock_headers_can_be_believed(key)),
            crc32c=head.get("ChecksumCRC32C") if whole and "-" not in head.get("ChecksumCRC32C", "") else None,
            metadata=head.get("Metadata", {}),
        )  # fmt: skip

    def _lock_headers_can_be_believed(self, key: str) -> bool:
        """HEAD leaves out lock headers that the caller has no right to see, so absence alone proves nothing."""
        if self._may_read_locks is None:
            allowed = True
            for ask in (self._client.get_object_retention, self._client.get_object_legal_hold):
                try:
                    ask(Bucket=self.store.bucket, Key=self._full(key))
                except ClientError as error:
                    if _status(error) >= 500:
                        return False
                    allowed = allowed and _status(error) in (400, 404) and _code(error) != "AccessDenied"
                except BotoCoreError:
                    return False
            self._may_read_locks = allowed
        return self._may_read_locks

    def read(self, seen: Seen) -> Iterator[bytes]:
        count = 0
        try:
            answer = self._client.get_object(Bucket=self.store.bucket, Key=self._full(seen.key), IfMatch=f'"{seen.version}"')
            for piece in answer["Body"].iter_chunks(_PIECE):
                count += len(piece)
                yield piece
        except ClientError as error:
            if _is_conflict(error) or _is_missing(error):
                raise StoreFailed(f"read {self.name}:{seen.key}: it changed since it was seen", hint="plan again") from None
            raise self._failed("read", seen.key, error) from None
        except Exception as error:
            raise self._failed("read", seen.key, error) from None
        if count != seen.size:
            raise StoreFailed(f"read {self.name}:{seen.key}: {count} bytes came, {seen.size} were seen")

    def server_time(self) -> datetime:
        try:
            answer = self._client.head_bucket(Bucket=self.store.bucket)["ResponseMetadata"]
        except ClientError as error:
            answer = error.response["ResponseMetadata"]
        except BotoCoreError as error:
            raise self._failed("reach", "", error) from None
        date = answer.get("HTTPHeaders", {}).get("date")
        if not date:
            raise StoreFailed(f"reach {self.name}: the server does not tell its time")
        return parsedate_to_datetime(date)


class S3Writer(S3Reader):
    """Changes one prefix of one bucket, always on a condition."""

    _proven: Conditions | None = None

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._proving = threading.Lock()

    def _extra(self, metadata: Mapping[str, str], content_type: str) -> dict[str, Any]:
        extra: dict[str, Any] = {"Metadata": dict(metadata), "ContentType": content_type}
        if self.store.storage_class:
            extra["StorageClass"] = self.store.storage_class
        return extra

    def create(
        self, key: str, chunks: Iterator[bytes], size: int | None, metadata: Mapping[str, str], content_type: str, begun: Begun = untold
    ) -> Seen:
        part_size = max(_PART, -(-(size or 0) // _MOST_PARTS))
        parts = _parts(chunks, part_size)
        first = next(parts)
        second = next(parts, None)
        extra = self._extra(metadata, content_type)
        try:
            if second is None:
                answer = self._client.put_object(
                    Bucket=self.store.bucket, Key=self._full(key), Body=first, IfNoneMatch="*", ChecksumCRC32C=_crc(first), **extra
                )
                return Seen(key, len(first), answer["ETag"].strip('"'))
            return self._create_in_parts(key, first, second, parts, extra, begun)
        except ClientError as error:
            if _is_conflict(error):
                raise KeyTaken(f"{self.name}:{key}: something else lies there") from None
            raise self._failed("write", key, error) from None
        except BotoCoreError as error:
            raise self._failed("write", key, error) from None

    def _create_in_parts(self, key: str, first: bytes, second: bytes, rest: Iterator[bytes], extra: dict[str, Any], begun: Begun) -> Seen:
        place = {"Bucket": self.store.bucket, "Key": self._full(key)}
        upload = self._client.create_multipart_upload(**place, ChecksumAlgorithm="CRC32C", ChecksumType="FULL_OBJECT", **extra)
        place["UploadId"] = upload["UploadId"]
        try:
            begun(upload["UploadId"])
            done, size, whole = [], 0, google_crc32c.Checksum()

            def send(number: int, part: bytes) -> None:
                nonlocal size
                answer = self._client.upload_part(**place, PartNumber=number, Body=part, ChecksumCRC32C=_crc(part))
                done.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumCRC32C": _crc(part)})
                whole.update(part)
                size += len(part)

            send(1, first)
            send(2, second)
            del first, second
            for number, part in enumerate(rest, 3):
                send(number, part)
            answer = self._client.complete_multipart_upload(
                **place, MultipartUpload={"Parts": done}, IfNoneMatch="*", ChecksumType="FULL_OBJECT",
                ChecksumCRC32C=base64.b64encode(whole.digest()).decode(),
            )  # fmt: skip
            return Seen(key, size, answer["ETag"].strip('"'))
        except BaseException:
            with suppress(RetainerError):
                self.abandon(key, upload["UploadId"])
            raise

    def abandon(self, key: str, upload: str) -> None:
        try:
            self._client.abort_multipart_upload(Bucket=self.store.bucket, Key=self._full(key), UploadId=upload)
        except (ClientError, BotoCoreError) as error:
            if not (isinstance(error, ClientError) and (_code(error) == "NoSuchUpload" or _is_missing(error))):
                raise self._failed("clear up", key, error) from None

    def copy_within(self, source: StoreReader, seen: Seen, key: str, metadata: Mapping[str, str], begun: Begun = untold) -> Seen | None:
        if not isinstance(source, S3Reader) or source.store.endpoint != self.store.endpoint or seen.size == 0:
            return None
        place = {"Bucket": self.store.bucket, "Key": self._full(key)}
        origin = {"Bucket": source.store.bucket, "Key": source._full(seen.key)}
        try:
            upload = self._client.create_multipart_upload(
                **place, ChecksumAlgorithm="CRC32C", ChecksumType="FULL_OBJECT", **self._extra(metadata, "application/octet-stream")
            )
        except (ClientError, BotoCoreError) as error:
            raise self._failed("write", key, error) from None
        place["UploadId"] = upload["UploadId"]
        try:
            begun(upload["UploadId"])
            done = []
            for number, start in enumerate(range(0, seen.size, _COPY_PART), 1):
                end = min(start + _COPY_PART, seen.size) - 1
                answer = self._client.upload_part_copy(
                    **place, PartNumber=number, CopySource=origin, CopySourceIfMatch=f'"{seen.version}"',
                    CopySourceRange=f"bytes={start}-{end}",
                )["CopyPartResult"]  # fmt: skip
                part = {"PartNumber": number, "ETag": answer["ETag"]}
                done.append(part | ({"ChecksumCRC32C": answer["ChecksumCRC32C"]} if "ChecksumCRC32C" in answer else {}))
            answer = self._client.complete_multipart_upload(**place, MultipartUpload={"Parts": done}, IfNoneMatch="*")
            return Seen(key, seen.size, answer["ETag"].strip('"'))
        except ClientError as error:
            with suppress(RetainerError):
                self.abandon(key, upload["UploadId"])
            operation = error.operation_name
            if _is_conflict(error) and operation == "CompleteMultipartUpload":
                raise KeyTaken(f"{self.name}:{key}: something else lies there") from None
            if _is_conflict(error) or _is_missing(error):
                raise StoreFailed(f"copy {source.name}:{seen.key}: it changed since it was seen", hint="plan again") from None
            if _status(error) in (400, 403, 405, 501):
                return None
            raise self._failed("copy to", key, error) from None
        except BaseException as error:
            with suppress(RetainerError):
                self.abandon(key, upload["UploadId"])
            if isinstance(error, BotoCoreError):
                raise self._failed("copy to", key, error) from None
            raise

    def delete(self, seen: Seen) -> Deletion:
        if not self.conditions().delete:
            found = self.look(seen.key)
            if found is None:
                return Deletion.GONE
            if (found.seen.version, found.seen.size) != (seen.version, seen.size):
                return Deletion.CHANGED
        try:
            self._client.delete_object(Bucket=self.store.bucket, Key=self._full(seen.key), IfMatch=f'"{seen.version}"')
        except ClientError as error:
            if _is_missing(error):
                return Deletion.GONE
            if _is_conflict(error):
                return Deletion.CHANGED if self.look(seen.key) else Deletion.GONE
            if _status(error) == 403 and "lock" in str(error.response.get("Error", {}).get("Message", "")).lower():
                return Deletion.LOCKED
            raise self._failed("delete", seen.key, error) from None
        except BotoCoreError as error:
            raise self._failed("delete", seen.key, error) from None
        return Deletion.DELETED

    def delete_batch(self, batch: Sequence[Seen]) -> list[Deletion | StoreFailure]:
        objects = [{"Key": self._full(seen.key), "ETag": f'"{seen.version}"'} for seen in batch]
        try:
            answer = self._client.delete_objects(Bucket=self.store.bucket, Delete={"Objects": objects, "Quiet": False})
        except (ClientError, BotoCoreError) as error:
            raise self._failed("delete", f"{len(batch)} objects", error) from None
        deleted = {item["Key"] for item in answer.get("Deleted", ())}
        errors = {item["Key"]: str(item.get("Code", "")) for item in answer.get("Errors", ())}

        def outcome(seen: Seen) -> Deletion | StoreFailure:
            key = self._full(seen.key)
            match errors.get(key):
                case "PreconditionFailed" | "ConditionalRequestConflict":
                    return Deletion.CHANGED if self.look(seen.key) else Deletion.GONE
                case "NoSuchKey":
                    return Deletion.GONE
                case None if key in deleted:
                    return Deletion.DELETED
                case code:
                    return StoreFailure(f"delete {self.name}:{seen.key}: S3 answered {code or 'nothing'}")

        return [outcome(seen) for seen in batch]

    def conditions(self) -> Conditions:
        with self._proving:
            if self._proven is None:
                self._proven = self._prove()
            return self._proven

    def _prove(self) -> Conditions:
        key = f"{OWN_PREFIX}probe-{uuid.uuid4().hex}"
        place = {"Bucket": self.store.bucket, "Key": self._full(key)}
        wrong = '"00000000000000000000000000000000"'
        try:
            version = self._client.put_object(**place, Body=b"probe", ChecksumCRC32C=_crc(b"probe"))["ETag"]
            create = self._refused(lambda: self._client.put_object(**place, Body=b"other", IfNoneMatch="*", ChecksumCRC32C=_crc(b"other")))
            version = version if create else self._client.head_object(**place)["ETag"]
            delete = self._refused(lambda: self._client.delete_object(**place, IfMatch=wrong)) and self.look(key) is not None
            batch = False
            if delete:
                entry = {"Key": self._full(key), "ETag": wrong}
                answer: dict[str, Any] = {}

                def attempt() -> None:
                    answer.update(self._client.delete_objects(Bucket=self.store.bucket, Delete={"Objects": [entry]}))

                batch = (self._refused(attempt) or bool(answer.get("Errors"))) and not answer.get("Deleted") and self.look(key) is not None
                batch = batch and bool(answer.get("Errors"))
            self._client.delete_object(**place)
        except (ClientError, BotoCoreError) as error:
            raise self._failed("probe", "", error) from None
        return Conditions(create=create, delete=delete, batch_delete=batch)

    @staticmethod
    def _refused(call: Any) -> bool:
        """Whether a call that must fail on its condition does. Any other failure goes through."""
        try:
            call()
        except ClientError as error:
            if _is_conflict(error):
                return True
            if _status(error) in (400, 501):
                return False
            raise
        return False

    def replace(self, seen: Seen, content: bytes) -> Seen | None:
        try:
            answer = self._client.put_object(
                Bucket=self.store.bucket, Key=self._full(seen.key), Body=content, IfMatch=f'"{seen.version}"', ChecksumCRC32C=_crc(content)
            )
        except ClientError as error:
            if _is_conflict(error) or _is_missing(error):
                return None
            raise self._failed("write", seen.key, error) from None
        except BotoCoreError as error:
            raise self._failed("write", seen.key, error) from None
        return Seen(seen.key, len(content), answer["ETag"].strip('"'))


def _crc(content: bytes) -> str:
    return base64.b64encode(google_crc32c.Checksum(content).digest()).decode()


def _parts(chunks: Iterator[bytes], size: int) -> Iterator[bytes]:
    """The stream cut into parts of `size` bytes, the last one shorter; one empty part for an empty stream."""
    buffer, sent = bytearray(), False
    for chunk in chunks:
        buffer += chunk
        while len(buffer) >= size:
            yield bytes(buffer[:size])
            del buffer[:size]
            sent = True
    if buffer or not sent:
        yield bytes(buffer)
