"""What is asked of Google Cloud Storage, by its JSON API, as values. No I/O.

Source: https://cloud.google.com/storage/docs/json_api/v1 and, for the answers that are no JSON,
https://cloud.google.com/storage/docs/performing-resumable-uploads, …/docs/batch.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any, ClassVar, Literal
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from retainer.model.lifecycle import LifecycleRule
from retainer.model.setting import Store
from retainer.ports import Checksum, Hidden, Look, Seen, Version
from retainer.stores.calls import Body, Described, Nonsense, Page, VersionPage
from retainer.stores.gcs_answers import (
    copied,
    deleted_many,
    folders_in,
    kept_behind,
    look_of,
    opened,
    page_of,
    parsed,
    refusal_of,
    version_in,
    written,
)
from retainer.stores.hidden import hidden_at_google, versions_at_google
from retainer.stores.lifecycles import gcs_lifecycle
from retainer.stores.verdict import Refusal
from retainer.stores.wire import Answer, Request

_FIELDS = (
    "name,size,generation,storageClass,retentionExpirationTime,retention,temporaryHold,"
    "eventBasedHold"
)

Conditions = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class GcsCalls:
    """The calls to one bucket, with what its store asks of every write."""

    store: Store

    batch: ClassVar[int] = 100
    no_version: ClassVar[str] = "1"

    def refusal_of(self, answer: Answer) -> Refusal | None:
        return refusal_of(answer)

    def only_over(self, version: str | None) -> dict[str, str]:
        return {"ifGenerationMatch": version or "0"}

    def _bucket(self) -> str:
        return f"/storage/v1/b/{quote(self.store.bucket, safe='')}"

    def _object(self, key: str) -> str:
        return f"{self._bucket()}/o/{quote(self.store.prefix + key, safe='')}"

    # ── lists and looks ─────────────────────────────────────────────────────────────────────────

    def list(
        self, under: str, then: str | None, *, after: str | None = None, extras: bool = True
    ) -> Request:
        """What is asked for begins with `after` itself, where that is there."""
        query = [
            ("prefix", self.store.prefix + under),
            ("fields", f"kind,nextPageToken,items({_FIELDS})"),
        ]
        if then is not None:
            query.append(("pageToken", then))
        if after is not None:
            query.append(("startOffset", self.store.prefix + after))
        return Request("GET", f"{self._bucket()}/o", tuple(query))

    def folders(self, under: str) -> Request:
        query = (
            ("prefix", self.store.prefix + under),
            ("delimiter", "/"),
            ("fields", "kind,prefixes"),
        )
        return Request("GET", f"{self._bucket()}/o", query)

    def folders_told(self, answer: Answer) -> Sequence[str]:
        return folders_in(answer, len(self.store.prefix))

    def listed(self, answer: Answer) -> Page:
        return page_of(answer, len(self.store.prefix))

    def look(self, key: str, *, extras: bool = True) -> Request:
        return Request("GET", self._object(key))

    def looked(self, key: str, answer: Answer) -> Look:
        return look_of(answer, len(self.store.prefix))

    def read(self, seen: Seen, start: int = 0) -> Request:
        """As it is stored: what is stored as gzip would be sent unpacked to whoever does not take
        gzip."""
        headers = {"accept-encoding": "gzip"} | ({"range": f"bytes={start}-"} if start else {})
        query = (("alt", "media"), ("ifGenerationMatch", seen.version))
        return Request("GET", self._object(seen.key), query, headers)

    def whole(self, key: str, *, extras: bool = True) -> Request:
        headers = {"accept-encoding": "gzip"}
        return Request("GET", self._object(key), (("alt", "media"),), headers)

    def opened(self, key: str, answer: Answer) -> Look:
        return opened(key, answer)

    def version_in(self, answer: Answer) -> str | None:
        return version_in(answer)

    def setting(self, fields: str) -> Request:
        """What the bucket's owner has set under these names."""
        return Request("GET", self._bucket(), (("fields", fields),))

    def keeping(self) -> Request:
        return self.setting("versioning,softDeletePolicy")

    def keeps(self, answer: Answer) -> str | None:
        return kept_behind(answer)

    def versions(self, under: str, then: str | None = None, *, soft: bool = False) -> Request:
        """Of what begins with this; or what is soft-deleted of it."""
        query = [
            ("prefix", self.store.prefix + under),
            ("softDeleted" if soft else "versions", "true"),
            ("fields", f"kind,nextPageToken,items({_FIELDS},timeDeleted,hardDeleteTime)"),
        ]
        if then is not None:
            query.append(("pageToken", then))
        return Request("GET", f"{self._bucket()}/o", tuple(query))

    def versions_told(self, answer: Answer) -> VersionPage:
        return versions_at_google(answer, len(self.store.prefix))

    def hidden(self, seen: Seen, soft: bool, answer: Answer) -> Hidden | Literal["newer"] | None:
        return hidden_at_google(seen, self.store.prefix + seen.key, answer, soft=soft)

    def restore(self, hidden: Hidden) -> Request:
        """What is soft-deleted, as a new generation, where nothing lies."""
        query = (("generation", hidden.seen.version), ("ifGenerationMatch", "0"))
        path = f"{self._object(hidden.seen.key)}/restore"
        return Request("POST", path, query, {"content-length": "0"})

    def revive(self, hidden: Hidden, token: str | None) -> Request:
        """A step of a copy of an earlier generation to where it lay, where nothing lies."""
        path = self._object(hidden.seen.key)
        query = [("sourceGeneration", hidden.seen.version), ("ifGenerationMatch", "0")]
        if token is not None:
            query.append(("rewriteToken", token))
        to = path.replace("/storage/v1", "/rewriteTo")
        return Request("POST", path + to, tuple(query), {"content-length": "0"})

    def lifecycle(self) -> Request:
        return self.setting("lifecycle")

    def rules(self, answer: Answer) -> Sequence[LifecycleRule] | None:
        return None if self.refusal_of(answer) is not None else gcs_lifecycle(parsed(answer))

    def bucket(self) -> Request:
        return Request("GET", self._bucket(), (("fields", "kind"),))

    # ── writes ──────────────────────────────────────────────────────────────────────────────────

    def put(self, new: Described, body: Body, checksum: str | None, **condition: str) -> Request:
        """The object and what describes it, in one body."""
        mark = uuid.uuid4().hex
        described = self._described(new) | ({"crc32c": checksum} if checksum else {})
        head = (
            f"--{mark}\r\ncontent-type: application/json; charset=UTF-8\r\n\r\n"
            f"{json.dumps(described)}\r\n--{mark}\r\ncontent-type: {new.content_type}\r\n\r\n"
        ).encode()
        whole = b"".join((head, body, f"\r\n--{mark}--\r\n".encode()))
        headers = {"content-type": f"multipart/related; boundary={mark}"}
        query = (("uploadType", "multipart"), *self._encrypted(), *condition.items())
        return Request("POST", f"/upload{self._bucket()}/o", query, headers, whole)

    def written(self, answer: Answer) -> tuple[str, Checksum | None]:
        return written(answer)

    def begin(self, new: Described, condition: Conditions) -> Request:
        """A write that goes on over several calls."""
        headers = {
            "content-type": "application/json; charset=UTF-8",
            "x-upload-content-type": new.content_type,
        }
        query = (("uploadType", "resumable"), *self._encrypted(), *condition.items())
        body = json.dumps(self._described(new)).encode()
        return Request("POST", f"/upload{self._bucket()}/o", query, headers, body)

    def begun(self, answer: Answer) -> Request:
        """What the write goes on with, asked of the same server whatever address it names: whoever
        has that address can write. Raises Nonsense."""
        parts = urlsplit(answer.headers.get("location", ""))
        if not parts.path.startswith("/") or not parts.query:
            raise Nonsense
        query = parse_qsl(parts.query, keep_blank_values=True)
        return Request("PUT", quote(unquote(parts.path), safe="/~:"), tuple(query))

    def goes_on(self, upload: Request, body: Body, start: int, total: int | None) -> Request:
        """The bytes from `start`. `total`: they end with it."""
        span = f"{start}-{start + len(body) - 1}" if body else "*"
        headers = {"content-range": f"bytes {span}/{'*' if total is None else total}"}
        return Request("PUT", upload.path, upload.query, headers, body)

    def given_up(self, upload: Request) -> Request:
        return Request("DELETE", upload.path, upload.query, {"content-length": "0"}, once=True)

    def copy(
        self, source: GcsCalls, seen: Seen, new: Described, token: str | None, condition: Conditions
    ) -> Request:
        """A step of a copy. The source must still be as it was seen."""
        path = source._object(seen.key) + self._object(new.key).replace("/storage/v1", "/rewriteTo")
        query = [*condition.items(), ("ifSourceGenerationMatch", seen.version)]
        if self.store.kms_key:
            query.append(("destinationKmsKeyName", self.store.kms_key))
        if token is not None:
            query.append(("rewriteToken", token))
        described = self._described(new) | {"contentType": new.content_type}
        del described["name"]
        headers = {"content-type": "application/json; charset=UTF-8"}
        return Request("POST", path, tuple(query), headers, json.dumps(described).encode())

    def copied(self, answer: Answer) -> Seen | str:
        return copied(answer, len(self.store.prefix))

    def _encrypted(self) -> tuple[tuple[str, str], ...]:
        return (("kmsKeyName", self.store.kms_key),) if self.store.kms_key else ()

    def _described(self, new: Described) -> dict[str, Any]:
        store = self.store
        described: dict[str, Any] = {"name": store.prefix + new.key, "metadata": dict(new.metadata)}
        if new.encoding:
            described["contentEncoding"] = new.encoding
        if storage_class := store.class_of(new.key, new.size):
            described["storageClass"] = storage_class
        if store.cache_control:
            described["cacheControl"] = store.cache_control
        if store.lock and new.lock_until is not None:
            until = new.lock_until.astimezone(UTC).isoformat(timespec="microseconds")
            described["retention"] = {
                "mode": retention_mode(store),
                "retainUntilTime": until.replace("+00:00", "Z"),
            }
        return described

    # ── deletes ─────────────────────────────────────────────────────────────────────────────────

    def delete(self, key: str, version: str | None, *, once: bool = False) -> Request:
        """The live object, on a condition, and never `generation=`: a delete that names it is for
        good even where versioning is on."""
        query = (("ifGenerationMatch", version),) if version is not None else ()
        return Request("DELETE", self._object(key), query, once=once)

    def remove(self, version: Version) -> Request:
        query = (("generation", version.id), ("ifGenerationMatch", version.id))
        return Request("DELETE", self._object(version.seen.key), query)

    def goes_in_a_batch(self, key: str) -> bool:
        return True

    def delete_many(self, batch: Sequence[Seen]) -> Request:
        mark = uuid.uuid4().hex
        calls = "".join(
            f"--{mark}\r\ncontent-type: application/http\r\n"
            f"content-transfer-encoding: binary\r\ncontent-id: <{number}>\r\n\r\n"
            f"DELETE {self._object(seen.key)}?ifGenerationMatch={seen.version} HTTP/1.1\r\n\r\n\r\n"
            for number, seen in enumerate(batch)
        )
        headers = {"content-type": f"multipart/mixed; boundary={mark}"}
        body = f"{calls}--{mark}--\r\n".encode()
        return Request("POST", "/batch/storage/v1", (), headers, body)

    def deleted_many(self, batch: Sequence[Seen], answer: Answer) -> Mapping[str, Refusal | None]:
        return deleted_many(batch, answer)


def retention_mode(store: Store) -> str:
    return "Locked" if store.lock == "compliance" else "Unlocked"
