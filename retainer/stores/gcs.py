"""Google Cloud Storage (google-cloud-storage)."""

from __future__ import annotations

import dataclasses
import os
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import google_crc32c
import requests
from google.api_core.exceptions import (
    BadRequest,
    Forbidden,
    GoogleAPICallError,
    NotFound,
    PreconditionFailed,
    RetryError,
    Unauthorized,
)
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY

from retainer.errors import (
    CredentialsRefused,
    KeyTaken,
    ListingBroken,
    RetainerError,
    StoreFailed,
    StoreRefused,
)
from retainer.model.moment import read_http_date
from retainer.model.setting import OWN_PREFIX, Store
from retainer.ports import (
    Begun,
    Certain,
    Checksum,
    Deletion,
    Look,
    Seen,
    StoreFailure,
    StoreReader,
    looked_and_read,
    untold,
)
from retainer.stop import Stop

_PIECE = 1 << 20
_CHUNK = 8 << 20
_TROUBLE = (
    GoogleAPICallError,
    GoogleAuthError,
    RetryError,
    requests.RequestException,
    DataCorruption,
    InvalidResponse,
    OSError,
)


class GcsReader:
    """Reads one prefix of one bucket. What a listing says of holds and retention is complete: no
    further look is needed."""

    def __init__(self, store: Store, stop: Stop | None = None, *, quick: bool = False) -> None:
        """`quick`: give up on a silent server in seconds, as a lock must. Raises
        CredentialsRefused."""
        self.name = store.name
        self.store = store
        self._stop = stop or Stop()
        emulated = store.endpoint or os.environ.get("STORAGE_EMULATOR_HOST")
        options = {"api_endpoint": store.endpoint} if store.endpoint else None
        try:
            self._client = (
                storage.Client(
                    project="emulated", credentials=AnonymousCredentials(), client_options=options
                )
                if emulated
                else storage.Client()
            )
        except (GoogleAuthError, OSError, ValueError, AttributeError, TypeError, KeyError):
            raise CredentialsRefused(
                f"reach {store.name}: there are no Google credentials",
                hint="run `gcloud auth application-default login`",
                store=store.name,
            ) from None
        self._bucket = self._client.bucket(store.bucket)
        self._retry = DEFAULT_RETRY.with_timeout(5.0 if emulated else 15.0 if quick else 60.0)
        self._timeout = (5, 10) if quick else (10, 60)

    def _full(self, key: str) -> str:
        return self.store.prefix + key

    def _failed(self, verb: str, key: str, error: Exception) -> RetainerError:
        where = f"{verb} {self.name}:{key}" if key else f"{verb} {self.name}"
        if isinstance(error, GoogleAuthError | Unauthorized):
            return CredentialsRefused(
                f"{where}: Google refused the credentials",
                hint="see `gcloud auth list`",
                store=self.name,
            )
        if isinstance(error, RetryError) and isinstance(error.cause, GoogleAPICallError):
            error = error.cause
        if isinstance(error, InvalidResponse):
            return StoreFailed(f"{where}: GCS answered {error.response.status_code}")
        if isinstance(error, GoogleAPICallError):
            if isinstance(error, Forbidden):
                return StoreRefused(
                    f"{where}: GCS answered {error.code}",
                    hint="the credentials lack a right there",
                    store=self.name,
                )
            return StoreFailed(f"{where}: GCS answered {error.code}")
        return StoreFailed(
            f"{where}: {type(error).__name__}", hint="the connection failed; run it again"
        )

    def _seen(self, blob: Any) -> Seen:
        until = blob.retention_expiration_time
        if blob.temporary_hold or blob.event_based_hold:
            until = datetime.max.replace(tzinfo=UTC)
        own = getattr(getattr(blob, "retention", None), "retain_until_time", None)
        until = max(filter(None, (until, own)), default=None)
        return Seen(
            blob.name[len(self.store.prefix) :],
            int(blob.size or 0),
            str(blob.generation),
            blob.storage_class,
            until,
            lock_read=True,
        )

    def list(self, under: str = "") -> Iterator[Seen]:
        try:
            for blob in self._client.list_blobs(
                self._bucket, prefix=self._full(under) or None, retry=self._retry
            ):
                self._stop.check()
                key = blob.name[len(self.store.prefix) :]
                if key and (under or not key.startswith(OWN_PREFIX)):
                    yield self._seen(blob)
        except _TROUBLE as error:
            failure = self._failed("list", under, error)
            raise (
                failure
                if isinstance(failure, CredentialsRefused)
                else ListingBroken(failure.message, hint=failure.hint)
            ) from None

    def can_lock(self) -> bool:
        return False

    def look(self, key: str) -> Look | None:
        try:
            blob = self._bucket.get_blob(self._full(key), retry=self._retry)
        except _TROUBLE as error:
            raise self._failed("look at", key, error) from None
        if blob is None:
            return None
        told = _checksum_of(blob)
        return Look(
            self._seen(blob),
            told,
            blob.metadata or {},
            told,
            self._age(blob) if key.startswith(OWN_PREFIX) else None,
        )

    def _age(self, blob: storage.Blob) -> timedelta | None:
        """How long ago an object was written, by the server's own clock; asked for only where it
        matters, as it takes another call."""
        return None if blob.updated is None else self.server_time() - blob.updated

    def read(self, seen: Seen) -> Iterator[bytes]:
        blob = self._bucket.blob(self._full(seen.key), chunk_size=_CHUNK)
        count = 0
        try:
            if seen.size:
                with blob.open(
                    "rb",
                    if_generation_match=int(seen.version),
                    raw_download=True,
                    retry=self._retry,
                ) as body:
                    while piece := body.read(_PIECE):
                        if not seen.key.startswith(OWN_PREFIX):
                            self._stop.check()
                        count += len(piece)
                        yield piece
        except (PreconditionFailed, NotFound):
            raise StoreFailed(
                f"read {self.name}:{seen.key}: it changed since it was seen", hint="plan again"
            ) from None
        except _TROUBLE as error:
            raise self._failed("read", seen.key, error) from None
        if count != seen.size:
            raise StoreFailed(
                f"read {self.name}:{seen.key}: {count} bytes came, {seen.size} were seen"
            )

    def whole(self, key: str, most: int) -> tuple[Look, bytes] | None:
        return looked_and_read(self, key, most)

    def unfinished(self) -> Sequence[str]:
        return ()

    def server_time(self) -> datetime:
        base = (
            self.store.endpoint
            or os.environ.get("STORAGE_EMULATOR_HOST")
            or "https://storage.googleapis.com"
        ).rstrip("/")
        try:
            date = requests.head(
                f"{base}/storage/v1/b/{self.store.bucket}", timeout=30
            ).headers.get("Date")
        except requests.RequestException as error:
            raise self._failed("reach", "", error) from None
        moment = read_http_date(date)
        if moment is None:
            raise StoreFailed(f"reach {self.name}: the server does not tell its time")
        return moment


class GcsWriter(GcsReader):
    """Changes one prefix of one bucket, always on a condition."""

    def __init__(self, store: Store, stop: Stop | None = None, *, quick: bool = False) -> None:
        super().__init__(store, stop, quick=quick)
        self._proven: Certain | None = None
        self._proving = threading.Lock()

    def _blob(
        self, key: str, metadata: Mapping[str, str], size: int, lock_until: datetime | None
    ) -> Any:
        blob = self._bucket.blob(
            self._full(key), chunk_size=_CHUNK, kms_key_name=self.store.kms_key
        )
        blob.metadata = dict(metadata)
        if storage_class := self.store.class_of(key, size):
            blob.storage_class = storage_class
        if self.store.cache_control:
            blob.cache_control = self.store.cache_control
        if lock_until is not None:
            self._retain(blob, lock_until)
        return blob

    def _retain(self, blob: Any, until: datetime) -> None:
        blob.retention.mode = "Locked" if self.store.lock == "compliance" else "Unlocked"
        blob.retention.retain_until_time = until

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
        buffer, more = bytearray(), False
        for chunk in chunks:
            buffer += chunk
            if len(buffer) > _CHUNK:
                more = True
                break
        known = size if size is not None else self.store.storage_class_from if more else len(buffer)
        blob = self._blob(key, metadata, known, lock_until)
        options = {
            "if_generation_match": int(over.version) if over else 0,
            "checksum": "crc32c",
            "retry": self._retry,
        }
        try:
            if not more:
                blob.upload_from_string(bytes(buffer), content_type=content_type, **options)
                return self._written(key, len(buffer), blob)
            count = len(buffer)
            with blob.open("wb", chunk_size=_CHUNK, content_type=content_type, **options) as target:
                target.write(bytes(buffer))
                buffer.clear()
                for chunk in chunks:
                    target.write(chunk)
                    count += len(chunk)
            blob.reload(retry=self._retry)
            return self._written(key, count, blob)
        except PreconditionFailed:
            raise KeyTaken(f"{self.name}:{key}: something else lies there") from None
        except _TROUBLE as error:
            # The client translates the errors of whole uploads, and not those of streamed ones.
            if isinstance(error, InvalidResponse) and error.response.status_code == 412:
                raise KeyTaken(f"{self.name}:{key}: something else lies there") from None
            raise self._failed("write", key, error) from None

    def _written(self, key: str, size: int, blob: storage.Blob) -> Look:
        computed = (
            _checksum_of(blob) if self._proven is not None and self._proven.checksum else None
        )
        return Look(Seen(key, size, str(blob.generation)), computed)

    def look(self, key: str) -> Look | None:
        look = super().look(key)
        if look is None or self._proven is None or self._proven.checksum:
            return look
        return dataclasses.replace(look, checksum=None)

    def prove_on(self, seen: Seen, content: bytes) -> Seen:
        self.conditions()
        return seen

    def abandon(self, key: str, upload: str) -> None:
        """Nothing is left behind that counts: an unfinished resumable upload is not stored, and
        ends after a week."""

    def copies_from(self, source: StoreReader) -> bool:
        if not isinstance(source, GcsReader) or source.store.endpoint != self.store.endpoint:
            return False
        return self.conditions().create and self.conditions().copy and self.conditions().checksum

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
        if not isinstance(source, GcsReader) or not self.copies_from(source):
            return None
        blob = self._blob(key, metadata, seen.size, lock_until)
        origin = source._bucket.blob(source._full(seen.key))
        try:
            current = source._bucket.get_blob(source._full(seen.key), retry=self._retry)
            if current is None or str(current.generation) != seen.version:
                raise StoreFailed(
                    f"copy {source.name}:{seen.key}: it changed since it was seen",
                    hint="plan again",
                )
            blob.content_type = content_type
            token = None
            while True:
                token, _, _ = blob.rewrite(
                    origin,
                    token=token,
                    if_generation_match=0,
                    if_source_generation_match=int(seen.version),
                    retry=self._retry,
                )
                if token is None:
                    break
            return Seen(key, int(blob.size), str(blob.generation))
        except PreconditionFailed:
            if self.look(key) is not None:
                raise KeyTaken(f"{self.name}:{key}: something else lies there") from None
            raise StoreFailed(
                f"copy {source.name}:{seen.key}: it changed since it was seen", hint="plan again"
            ) from None
        except Forbidden:
            return None
        except _TROUBLE as error:
            raise self._failed("copy to", key, error) from None

    def lock(self, seen: Seen, until: datetime) -> None:
        try:
            blob = self._bucket.get_blob(
                self._full(seen.key), generation=int(seen.version), retry=self._retry
            )
            if blob is None:
                raise StoreFailed(f"lock {self.name}:{seen.key}: it changed since it was seen")
            self._retain(blob, until)
            blob.patch(if_metageneration_match=blob.metageneration, retry=self._retry)
        except _TROUBLE as error:
            raise self._failed("lock", seen.key, error) from None

    def restore(self, seen: Seen) -> None:
        raise StoreFailed(
            f"restore {self.name}:{seen.key}: every class of Google Cloud Storage can be read at "
            "once"
        )

    def delete(self, seen: Seen) -> Deletion:
        if not self.conditions().delete:
            found = self.look(seen.key)
            if found is None:
                return Deletion.GONE
            if found.seen.version != seen.version:
                return Deletion.CHANGED
        asked = 0

        def ask() -> None:
            nonlocal asked
            asked += 1
            # Never blob.delete() of a listed blob: it names the generation, which is permanent even
            # where versioning is on.
            self._bucket.delete_blob(
                self._full(seen.key),
                if_generation_match=int(seen.version),
                retry=None,
                timeout=self._timeout,
            )

        # Asked twice, the first may have been done, and its answer lost.
        gone = Deletion.GONE
        try:
            try:
                self._retry(ask)()
            finally:
                gone = Deletion.DELETED if asked > 1 else Deletion.GONE
        except NotFound:
            return gone
        except PreconditionFailed:
            return Deletion.CHANGED if self.look(seen.key) else gone
        except Forbidden as error:
            found = self.look(seen.key)
            if found is not None and (
                found.seen.locked_until is not None
                or "retention" in str(error).lower()
                or "hold" in str(error).lower()
            ):
                return Deletion.LOCKED
            raise self._failed("delete", seen.key, error) from None
        except _TROUBLE as error:
            raise self._failed("delete", seen.key, error) from None
        return Deletion.DELETED

    def put_back(self, key: str) -> bool:
        return True

    def delete_batch(self, batch: Sequence[Seen]) -> list[Deletion | StoreFailure]:
        raise StoreFailed(f"delete in {self.name}: GCS objects are deleted one by one")

    def impatient(self) -> GcsWriter:
        other = GcsWriter(self.store, self._stop, quick=True)
        other._proven = self.conditions()
        return other

    def conditions(self) -> Certain:
        with self._proving:
            if self._proven is None:
                self._proven = self._prove()
            return self._proven

    def _prove(self) -> Certain:
        name = self._full(f"{OWN_PREFIX}probe-{uuid.uuid4().hex}")
        try:
            blob = self._bucket.blob(name)
            blob.upload_from_string(b"probe", retry=self._retry)
            found = self._bucket.get_blob(name, retry=self._retry)
            create = self._refused(
                lambda: self._bucket.blob(name).upload_from_string(
                    b"other", if_generation_match=0, retry=None
                )
            )
            checksum = (
                found is not None
                and found.crc32c == _crc(b"probe")
                and self._computes_checksums(name)
            )
            copy = self._refuses_copies(blob)
            replace = self._replaces(name)
            delete = self._refused(
                lambda: self._bucket.delete_blob(name, if_generation_match=1, retry=None)
            )
            delete = delete and self._bucket.get_blob(name, retry=self._retry) is not None
            if delete:
                with suppress(
                    Forbidden
                ):  # a bucket with retention keeps the probe until its time is over
                    self._bucket.delete_blob(name, retry=self._retry)
        except _TROUBLE as error:
            raise self._failed("probe", "", error) from None
        return Certain(
            create=create,
            delete=delete,
            batch_delete=False,
            checksum=checksum,
            replace=replace,
            copy=copy,
        )

    def _replaces(self, name: str) -> bool:
        """Whether a write over the right generation goes through, and one over another does not."""
        found = self._bucket.get_blob(name, retry=self._retry)
        if found is None:
            return False
        write = self._bucket.blob(name).upload_from_string
        if not self._refused(lambda: write(b"other", if_generation_match=1, retry=None)):
            return False
        try:
            write(b"probe", if_generation_match=int(found.generation), retry=None)
        except (PreconditionFailed, Forbidden):
            return False  # a bucket with retention keeps the probe as it is
        return True

    def _refuses_copies(self, blob: storage.Blob) -> bool:
        try:
            return self._refused(
                lambda: self._bucket.blob(blob.name).rewrite(
                    blob, if_generation_match=0, retry=None
                )
            )
        except _TROUBLE:
            return False  # copies then go through here

    def _computes_checksums(self, name: str) -> bool:
        """Whether a write is refused whose CRC32C is not that of its bytes, or the store tells the
        true one nevertheless."""
        blob = self._bucket.blob(f"{name}-sum")
        blob.crc32c = _crc(b"probe")
        try:
            blob.upload_from_string(b"other", if_generation_match=0, checksum=None, retry=None)
        except BadRequest:
            return True
        with suppress(Forbidden):
            self._bucket.delete_blob(blob.name, retry=self._retry)
        return bool(blob.crc32c == _crc(b"other"))

    @staticmethod
    def _refused(call: Any) -> bool:
        try:
            call()
        except PreconditionFailed:
            return True
        except Forbidden:
            return False
        return False

    def replace(self, seen: Seen, content: bytes) -> Seen | None:
        blob = self._bucket.blob(self._full(seen.key))
        try:
            blob.upload_from_string(
                content,
                if_generation_match=int(seen.version),
                retry=self._retry,
                timeout=self._timeout,
            )
        except PreconditionFailed:
            return None
        except _TROUBLE as error:
            raise self._failed("write", seen.key, error) from None
        return Seen(seen.key, len(content), str(blob.generation))


def _checksum_of(blob: storage.Blob) -> Checksum | None:
    return Checksum("crc32c", blob.crc32c) if blob.crc32c else None


def _crc(content: bytes) -> str:
    return Checksum.of("crc32c", google_crc32c.Checksum(content)).value
