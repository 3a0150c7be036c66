"""A strict in-memory stand-in for the Google Cloud Storage JSON API.

Emulators ignore holds, retention and the preconditions of deletes; this one enforces them with the
answers that Google documents and sends. What it does not model (a route, a parameter, a field, a
header) it refuses with 501, never with 200.
"""

from __future__ import annotations

import argparse
import base64
import bisect
import contextlib
import email
import hashlib
import json
import re
import socket
import sys
import threading
import traceback
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from email.message import Message
from email.utils import format_datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from typing import Any, Self
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import google_crc32c

Json = dict[str, Any]

CHUNK = 256 * 1024
MIB = 1024 * 1024
MAX_BATCH = 100
HOLDS = {"temporaryHold": "Temporary", "eventBasedHold": "Event-Based"}
STORAGE_CLASSES = {
    "STANDARD",
    "NEARLINE",
    "COLDLINE",
    "ARCHIVE",
    "MULTI_REGIONAL",
    "REGIONAL",
    "DURABLE_REDUCED_AVAILABILITY",
}
CONDITIONS = (
    "GenerationMatch",
    "GenerationNotMatch",
    "MetagenerationMatch",
    "MetagenerationNotMatch",
)
IF, IF_SOURCE = ({prefix + condition for condition in CONDITIONS} for prefix in ("if", "ifSource"))
COMMON_PARAMETERS = {
    "alt",
    "prettyPrint",
    "key",
    "quotaUser",
    "fields",
    "projection",
    "project",
    "userProject",
}
UNMODELLED_HEADERS = re.compile(
    r"(?i)x-goog-(copy-source-)?encryption-|x-goog-if-|if-(none-)?match$|if-(un)?modified-since$|if-range$"
)


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


WRITABLE = words(
    "cacheControl contentDisposition contentEncoding contentLanguage contentType customTime "
    "eventBasedHold metadata retention storageClass temporaryHold"
)
OUTPUT_ONLY = words(
    "bucket crc32c etag generation hardDeleteTime id kind md5Hash mediaLink metageneration name "
    "retentionExpirationTime selfLink size softDeleteTime "
    "timeCreated timeDeleted timeStorageClassUpdated updated"
)
BUCKET_WRITABLE = words(
    "defaultEventBasedHold iamConfiguration labels lifecycle location retentionPolicy "
    "softDeletePolicy storageClass versioning"
)
ANSWER_FIELDS = words(
    "* done enabled items mode nextPageToken objectSize prefixes resource retainUntilTime "
    "rewriteToken totalBytesRewritten"
)
ANSWER_FIELDS |= words(
    "effectiveTime objectRetention projectNumber retentionDurationSeconds retentionPeriod"
)
ANSWER_FIELDS |= WRITABLE | OUTPUT_ONLY | BUCKET_WRITABLE
RETENTION_KEPT = {
    "Unlocked": "The unlocked object retention cannot be removed and its retention period cannot "
    "be shortened "
    "without overriding unlocked retention intent and permission.",
    "Locked": (
        "The locked object retention cannot be removed. Its retention mode cannot be changed "
        "and its retention period cannot be shortened."
    ),
}
FAULT_REASONS = {
    401: "authError",
    403: "forbidden",
    404: "notFound",
    412: "conditionNotMet",
    429: "rateLimitExceeded",
}


class Refused(Exception):
    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message

    def payload(self) -> Json:
        detail = {"message": self.message, "domain": "global", "reason": self.reason}
        if self.status == 412:
            detail |= {"locationType": "header", "location": "If-Match"}
        return {"error": {"code": self.status, "message": self.message, "errors": [detail]}}


def invalid(message: str, reason: str = "invalid") -> Refused:
    return Refused(400, reason, message)


def unmodelled(message: str) -> Refused:
    return Refused(501, "notImplemented", f"the stand-in does not model {message}")


def no_such(bucket: str, name: str, why: str = "") -> Refused:
    return Refused(404, "notFound", f"No such object: {bucket}/{name}{why}")


@dataclass
class Reply:
    status: int = 200
    payload: Json | None = None
    body: bytes = b""
    headers: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Call:
    method: str
    path: str
    query: dict[str, str]
    headers: Message
    body: bytes

    def flag(self, name: str) -> bool:
        return self.query.get(name, "false").lower() == "true"

    def number(self, name: str) -> int | None:
        return integer(self.query, name)


@dataclass(eq=False)
class Version:
    name: str
    data: bytes
    generation: int
    created: datetime
    meta: Json
    metageneration: int = 1
    updated: datetime = field(init=False)
    deleted: datetime | None = None
    soft_deleted: datetime | None = None
    hard_delete: datetime | None = None
    hold_released: datetime | None = None
    crc32c: str = field(init=False)
    md5: str = field(init=False)

    def __post_init__(self) -> None:
        self.updated = self.created
        self.crc32c = base64.b64encode(google_crc32c.value(self.data).to_bytes(4, "big")).decode()
        self.md5 = base64.b64encode(hashlib.md5(self.data, usedforsecurity=False).digest()).decode()


@dataclass
class Bucket:
    name: str
    created: datetime
    meta: Json
    object_retention: bool
    metageneration: int = 1
    names: list[str] = field(default_factory=list)
    versions: dict[str, list[Version]] = field(default_factory=dict)
    soft: list[Version] = field(default_factory=list)

    @property
    def versioned(self) -> bool:
        return bool(self.meta.get("versioning", {}).get("enabled"))

    @property
    def soft_delete_seconds(self) -> int:
        return int(self.meta["softDeletePolicy"]["retentionDurationSeconds"])

    def find(self, name: str, generation: int | None = None) -> Version | None:
        versions = self.versions.get(name, [])
        if generation is None:
            return versions[-1] if versions and versions[-1].deleted is None else None
        return next((version for version in versions if version.generation == generation), None)

    def add(self, version: Version) -> None:
        if version.name not in self.versions:
            bisect.insort(self.names, version.name)
        self.versions.setdefault(version.name, []).append(version)

    def remove(self, version: Version) -> None:
        self.versions[version.name].remove(version)
        if not self.versions[version.name]:
            del self.versions[version.name]
            del self.names[bisect.bisect_left(self.names, version.name)]

    def erase(self, version: Version, now: datetime) -> None:
        self.remove(version)
        if self.soft_delete_seconds:
            version.soft_deleted, version.hard_delete = (
                now,
                now + timedelta(seconds=self.soft_delete_seconds),
            )
            self.soft.append(version)

    def retained_until(self, version: Version) -> datetime | None:
        ends = []
        if own := version.meta.get("retention"):
            ends.append(datetime.fromisoformat(own["retainUntilTime"]))
        if (policy := self.meta.get("retentionPolicy")) and not version.meta.get("eventBasedHold"):
            ends.append(
                (version.hold_released or version.created)
                + timedelta(seconds=int(policy["retentionPeriod"]))
            )
        return max(ends, default=None)


@dataclass
class Session:
    bucket: str
    name: str
    body: Json
    query: dict[str, str]
    size: int | None
    data: bytearray = field(default_factory=bytearray)
    cancelled: bool = False
    resource: Json | None = None


@dataclass
class Rewrite:
    source: Version
    names: tuple[str, str, str, str]
    done: int = 0


@dataclass
class Fault:
    method: str
    path_substring: str
    status: int
    times: int
    after: bool


def parse_json(body: bytes) -> Json:
    try:
        value = json.loads(body or b"{}")
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise invalid("Parse Error", "parseError")
    return value


def integer(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if text is not None and not re.fullmatch(r"\d+", text):
        raise invalid(f"Invalid value for {name}: {text!r}")
    return None if text is None else int(text)


def rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def etag(generation: int, metageneration: int) -> str:
    def varint(value: int) -> bytes:
        return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)

    return base64.b64encode(
        b"\x08" + varint(generation) + b"\x10" + varint(metageneration)
    ).decode()


def select_fields(payload: Json, selector: str) -> Json:
    """The partial response of `fields=items(name,size),nextPageToken`: what was not asked for is
    not there."""
    root: Json = {}
    stack, node = [root], root
    for token in re.findall(r"[^,()/\s]+|[,()]", selector):
        if token == "(":
            stack.append(node)
        elif token in ",)":
            if token == ")":
                stack.pop()
            node = stack[-1]
        elif token in ANSWER_FIELDS or "metadata" in selector or "labels" in selector:
            node = node.setdefault(token, {})
        else:
            raise Refused(400, "invalidParameter", f"Invalid field selection {token}")

    def pick(value: Any, tree: Json) -> Any:
        if isinstance(value, list):
            return [pick(each, tree) for each in value]
        if not tree or not isinstance(value, dict):
            return value
        return {
            k: pick(v, tree.get(k) or tree.get("*") or {})
            for k, v in value.items()
            if k in tree or "*" in tree
        }

    picked: Json = pick(payload, root)
    return picked


def check_conditions(
    query: Mapping[str, str],
    found: Version | Bucket | None,
    prefix: str = "if",
    reading: bool = False,
) -> None:
    """An absent object counts as generation 0, so that ifGenerationMatch=0 means "must not
    exist"."""
    for condition in CONDITIONS:
        wanted = integer(query, prefix + condition)
        actual = getattr(
            found, "metageneration" if condition.startswith("Meta") else "generation", 0
        )
        negated = "NotMatch" in condition
        if wanted is not None and (wanted == actual) == negated:
            status = 304 if reading and negated else 412
            raise Refused(
                status,
                "conditionNotMet",
                "At least one of the pre-conditions you specified did not hold.",
            )


def given_hashes(body: Json, headers: Message) -> list[tuple[str, str]]:
    given = [("crc32c", body.get("crc32c") or ""), ("md5", body.get("md5Hash") or "")]
    given += [
        (name, value)
        for name, _, value in (
            part.strip().partition("=") for part in headers.get("X-Goog-Hash", "").split(",")
        )
    ]
    return [(name, value) for name, value in given if value]


def split_related(content_type: str, body: bytes) -> tuple[Json, str, bytes]:
    """A multipart/related upload, split by hand because the email parser would change binary
    bytes."""
    boundary = email.message_from_string(f"Content-Type: {content_type}\n\n").get_param("boundary")
    sections = (b"\r\n" + body).split(f"\r\n--{boundary}".encode())
    if boundary is None or len(sections) != 4 or not sections[3].startswith(b"--"):
        raise invalid("Malformed multipart body.", "badRequest")
    (_, _, metadata), (head, _, media) = (
        part.lstrip(b" \t").removeprefix(b"\r\n").partition(b"\r\n\r\n") for part in sections[1:3]
    )
    media_type = email.message_from_bytes(head + b"\n\n").get("Content-Type", "")
    return parse_json(metadata), media_type, media


Handler = Callable[..., Reply]
ROUTES: list[tuple[str, re.Pattern[str], set[str], Handler]] = []


def route(
    methods: str, pattern: str, parameters: str = "", *more: set[str]
) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        expression = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern))
        allowed = COMMON_PARAMETERS.union(parameters.split(), *more)
        ROUTES.extend((method, expression, allowed, handler) for method in methods.split())
        return handler

    return register


class GcsStandIn:
    default_soft_delete_seconds = 7 * 86400

    def __init__(self, port: int = 0) -> None:
        self.page_size = 1000
        self.rewrite_chunk = MIB
        self.clock_offset = 0.0  # seconds, for the Date header only
        self.time_shift = 0.0  # seconds, for the service's own clock: ages, retention, soft delete
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self._port = port
        self._pages: int | None = None
        self._buckets: dict[str, Bucket] = {}
        self._sessions: dict[str, Session] = {}
        self._rewrites: dict[str, Rewrite] = {}
        self._generation = 0
        self._lock = threading.RLock()
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> Self:
        self._server = _Server(self._port, self)
        self._port = self._server.server_address[1]
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        return self

    def stop(self) -> None:
        """Cuts the kept-alive connections too; what is stored stays, and start() serves it again on
        the same port."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def fail_next(
        self, method: str, path_substring: str, status: int, times: int = 1, *, after: bool = False
    ) -> None:
        """Fail matching requests; `after`: only once they took effect. Status 0 drops the
        connection, method "" is any."""
        self.faults.append(Fault(method, path_substring, status, times, after))

    def break_listing_after(self, pages: int | None) -> None:
        """Every page of an objects.list after the first `pages` answers 500, however often it is
        asked; None mends it."""
        self._pages = pages

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.time_shift)

    def answer(self, method: str, target: str, headers: Message, body: bytes) -> Reply | None:
        """The reply, or None where the connection is to be dropped."""
        split = urlsplit(target)
        call = Call(
            method, split.path, dict(parse_qsl(split.query, keep_blank_values=True)), headers, body
        )
        shown = unquote(split.path)
        with self._lock:
            self.requests.append((method, shown, dict(call.query)))
            where = f"{shown}?{unquote(split.query)}"
            fault = next(
                (
                    f
                    for f in self.faults
                    if f.times > 0 and f.method in ("", method) and f.path_substring in where
                ),
                None,
            )
            if fault is not None:
                fault.times -= 1
            try:
                reply = self._dispatch(call) if fault is None or fault.after else Reply()
                if fault is not None and fault.status == 0:
                    return None
                if fault is not None:
                    raise Refused(
                        fault.status,
                        FAULT_REASONS.get(fault.status, "backendError"),
                        f"Injected failure {fault.status}",
                    )
                if reply.payload is not None and "fields" in call.query:
                    reply.payload = select_fields(reply.payload, call.query["fields"])
            except Refused as refused:
                reply = Reply(refused.status, refused.payload())
                if call.query.get("alt") == "media":
                    reply = Reply(
                        refused.status,
                        None,
                        refused.message.encode(),
                        [("Content-Type", "text/html; charset=UTF-8")],
                    )
            except Exception:
                traceback.print_exc()
                reply = Reply(
                    501,
                    unmodelled(
                        f"what happened at {method} {target}: {traceback.format_exc()}"
                    ).payload(),
                )
        if reply.payload is not None:
            reply.body = json.dumps(reply.payload, ensure_ascii=False).encode()
            reply.headers.append(("Content-Type", "application/json; charset=UTF-8"))
        if reply.status in (204, 304):
            reply.body = b""
        return reply

    def _dispatch(self, call: Call) -> Reply:
        for method, expression, allowed, handler in ROUTES:
            found = expression.fullmatch(call.path)
            if method != call.method or not found:
                continue
            if unknown := call.query.keys() - allowed:
                raise unmodelled(f"{sorted(unknown)} on {call.method} {call.path}")
            if unknown := {name for name in call.headers if UNMODELLED_HEADERS.match(name)}:
                raise unmodelled(f"the headers {sorted(unknown)}")
            try:
                names = {
                    key: unquote(value, errors="strict") for key, value in found.groupdict().items()
                }
            except UnicodeDecodeError:
                raise invalid("A name is not valid UTF-8.") from None
            return handler(self, call, **names)
        raise unmodelled(f"{call.method} {call.path}")

    def _bucket(self, name: str) -> Bucket:
        if name not in self._buckets:
            raise Refused(404, "notFound", "The specified bucket does not exist.")
        return self._buckets[name]

    def _version(self, bucket: Bucket, name: str, generation: int | None) -> Version:
        version = bucket.find(name, generation)
        if version is None:
            raise no_such(bucket.name, name)
        return version

    def _soft_deleted(self, bucket: Bucket) -> list[Version]:
        if not bucket.soft_delete_seconds:
            raise invalid("bucket soft delete policy must be set.")
        bucket.soft = [
            version
            for version in bucket.soft
            if version.hard_delete and version.hard_delete > self.now()
        ]
        return bucket.soft

    def _soft_version(self, bucket: Bucket, name: str, generation: int | None) -> Version:
        if generation is None:
            raise invalid("You must specify a generation.", "required")
        version = next(
            (v for v in self._soft_deleted(bucket) if (v.name, v.generation) == (name, generation)),
            None,
        )
        if version is None:
            raise no_such(bucket.name, name)
        return version

    def _refuse_kept(self, bucket: Bucket, version: Version, archiving: bool = False) -> None:
        """Google's refusal to lose a held or retained version; retention, unlike a hold, lets it
        become noncurrent."""
        subject = f"Object '{bucket.name}/{version.name}' is"
        for key, label in HOLDS.items():
            if version.meta.get(key):
                message = (
                    f"{subject} under active {label} hold and cannot be deleted, overwritten "
                    "or archived until hold is removed."
                )
                raise Refused(403, "forbidden", message)
        until = bucket.retained_until(version)
        if not archiving and until and until > self.now():
            message = (
                f"{subject} subject to bucket's retention policy or object retention and "
                "cannot be deleted or overwritten until "
            )
            raise Refused(
                403,
                "retentionPolicyNotMet",
                message + until.astimezone(timezone(timedelta(hours=-7))).isoformat(),
            )

    def _retire(self, bucket: Bucket, version: Version) -> None:
        self._refuse_kept(bucket, version, archiving=bucket.versioned)
        if bucket.versioned:
            version.deleted = self.now()
        else:
            bucket.erase(version, self.now())

    def _object_meta(self, bucket: Bucket, body: Json) -> Json:
        self._check_fields(body)
        meta = {key: value for key, value in body.items() if key in WRITABLE and value is not None}
        if "metadata" in meta:
            meta["metadata"] = {
                key: value for key, value in meta["metadata"].items() if value is not None
            }
        meta.setdefault("storageClass", bucket.meta["storageClass"])
        if meta["storageClass"] not in STORAGE_CLASSES:
            raise invalid(f"Invalid storage class: {meta['storageClass']}")
        if bucket.meta.get("defaultEventBasedHold"):
            meta.setdefault("eventBasedHold", True)
        if "retention" in meta:
            self._check_retention(bucket, meta["retention"])
            if meta.get("eventBasedHold"):
                raise invalid("Retention and event based holds cannot be configured together.")
        return meta

    @staticmethod
    def _check_fields(body: Json) -> None:
        if unknown := body.keys() - WRITABLE - OUTPUT_ONLY:
            raise unmodelled(f"the object fields {sorted(unknown)}")
        for key in HOLDS.keys() & body.keys():
            if not isinstance(body[key], bool | None):
                raise invalid(f"Invalid value for: {key}")
        if any(
            not isinstance(value, str | None) for value in (body.get("metadata") or {}).values()
        ):
            raise invalid("Invalid value for: metadata")

    def _check_retention(self, bucket: Bucket, wanted: Any) -> datetime:
        if not bucket.object_retention:
            raise invalid("Object retention is not enabled on the bucket.")
        for key, label in (("mode", "retention mode"), ("retainUntilTime", "retain until time")):
            if not isinstance(wanted, dict) or not wanted.get(key):
                raise invalid(f"Missing {label}. Both mode and retain until time are required.")
        if wanted["mode"] not in ("Locked", "Unlocked"):
            raise invalid(f"Invalid value for: {wanted['mode']} is not a valid value")
        try:
            until = datetime.fromisoformat(wanted["retainUntilTime"])
            if until.tzinfo is None:
                raise ValueError
        except ValueError:
            raise invalid(
                "Illegal timestamp format; timestamps must end with 'Z' or have a valid timezone "
                "offset."
            ) from None
        if until <= self.now():
            raise invalid("Retain until time cannot be in the past.")
        return until

    def _changed_retention(
        self, bucket: Bucket, old: Json | None, wanted: Json | None, override: bool
    ) -> Json | None:
        if wanted == {}:
            return old
        removing = wanted is None or (
            wanted.get("mode", 0) is None and wanted.get("retainUntilTime", 0) is None
        )
        until = None if removing else self._check_retention(bucket, wanted)
        if old is not None:
            shortened = until is None or until < datetime.fromisoformat(old["retainUntilTime"])
            relocked = until is not None and wanted is not None and wanted["mode"] != old["mode"]
            if (shortened or relocked) and (old["mode"] == "Locked" or not override):
                raise Refused(403, "forbidden", RETENTION_KEPT[old["mode"]])
        return None if removing else wanted

    def _put(
        self,
        bucket: Bucket,
        name: str,
        data: bytes,
        body: Json,
        query: Mapping[str, str],
        given: Iterable[tuple[str, str]] = (),
    ) -> Version:
        """The one way in for every new generation: conditions, then checksums, then holds; it
        appears whole or not at all."""
        self._check_name(name)
        live = bucket.find(name)
        check_conditions(query, live)
        meta = self._object_meta(bucket, body)
        moment = self.now()
        version = Version(
            name, data, max(self._generation + 1, int(moment.timestamp() * 1e6)), moment, meta
        )
        for kind, value in given:
            label, actual = {
                "crc32c": ("CRC32C", version.crc32c),
                "md5": ("MD5 hash", version.md5),
            }[kind]
            if value != actual:
                raise invalid(
                    f'Provided {label} "{value}" doesn\'t match calculated {label} "{actual}".'
                )
        if live is not None:
            self._retire(bucket, live)
        self._generation = version.generation
        bucket.add(version)
        return version

    @staticmethod
    def _check_name(name: str) -> None:
        if not name:
            raise invalid("Required parameter: name", "required")
        if (
            len(name.encode()) > 1024
            or name in (".", "..")
            or "\r" in name
            or "\n" in name
            or name.startswith(".well-known/acme-challenge/")
        ):
            raise invalid(f"Invalid object name: {name!r}")

    def _resource(self, bucket: Bucket, version: Version) -> Json:
        path = f"storage/v1/b/{quote(bucket.name, safe='')}/o/{quote(version.name, safe='')}"
        moments = {
            "timeCreated": version.created,
            "updated": version.updated,
            "timeStorageClassUpdated": version.created,
            "timeDeleted": version.deleted,
            "softDeleteTime": version.soft_deleted,
            "hardDeleteTime": version.hard_delete,
            "retentionExpirationTime": bucket.retained_until(version),
        }
        return {
            "kind": "storage#object",
            "id": f"{bucket.name}/{version.name}/{version.generation}",
            "selfLink": f"{self.url}/{path}",
            "mediaLink": f"{self.url}/download/{path}?generation={version.generation}&alt=media",
            "name": version.name,
            "bucket": bucket.name,
            "generation": str(version.generation),
            "metageneration": str(version.metageneration),
            "size": str(len(version.data)),
            "md5Hash": version.md5,
            "crc32c": version.crc32c,
            "etag": etag(version.generation, version.metageneration),
            **{key: rfc3339(moment) for key, moment in moments.items() if moment is not None},
            **version.meta,
        }

    def _bucket_resource(self, bucket: Bucket) -> Json:
        return {
            "kind": "storage#bucket",
            "id": bucket.name,
            "selfLink": f"{self.url}/storage/v1/b/{bucket.name}",
            "name": bucket.name,
            "projectNumber": "1",
            "metageneration": str(bucket.metageneration),
            "etag": etag(0, bucket.metageneration),
            "timeCreated": rfc3339(bucket.created),
            **({"objectRetention": {"mode": "Enabled"}} if bucket.object_retention else {}),
            **bucket.meta,
        }

    def _bucket_meta(self, old: Json, body: Json) -> Json:
        if unknown := body.keys() - BUCKET_WRITABLE - ANSWER_FIELDS:
            raise unmodelled(f"the bucket fields {sorted(unknown)}")
        meta = dict(old)
        for key in body.keys() & BUCKET_WRITABLE:
            meta[key] = (
                {**meta.get(key, {}), **body[key]} if isinstance(body[key], dict) else body[key]
            )
        meta = {key: value for key, value in meta.items() if value is not None}
        for key, period, shortest, longest in (
            ("retentionPolicy", "retentionPeriod", 1, 100 * 31557600),
            ("softDeletePolicy", "retentionDurationSeconds", 7 * 86400, 90 * 86400),
        ):
            if key in meta and meta[key] != old.get(key):
                seconds = int(meta[key].get(period, -1))
                if not shortest <= seconds <= longest and (key, seconds) != ("softDeletePolicy", 0):
                    raise invalid(f"Invalid value for {key}.{period}")
                meta[key] = {period: str(seconds), "effectiveTime": rfc3339(self.now())}
        return meta

    @route("POST", "/storage/v1/b", "enableObjectRetention")
    def bucket_insert(self, call: Call) -> Reply:
        body = parse_json(call.body)
        name = body.get("name")
        if not isinstance(name, str) or not re.fullmatch(
            r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", name
        ):
            raise invalid(f"Invalid bucket name: {name!r}")
        if name in self._buckets:
            raise Refused(
                409,
                "conflict",
                "Your previous request to create the named bucket succeeded and you already own "
                "it.",
            )
        soft_delete = {
            "retentionDurationSeconds": str(self.default_soft_delete_seconds),
            "effectiveTime": rfc3339(self.now()),
        }
        meta = self._bucket_meta(
            {"location": "US", "storageClass": "STANDARD", "softDeletePolicy": soft_delete}, body
        )
        self._buckets[name] = Bucket(name, self.now(), meta, call.flag("enableObjectRetention"))
        return Reply(200, self._bucket_resource(self._buckets[name]))

    @route(
        "GET PATCH DELETE",
        "/storage/v1/b/{bucket}",
        "ifMetagenerationMatch ifMetagenerationNotMatch",
    )
    def bucket_itself(self, call: Call, bucket: str) -> Reply:
        found = self._bucket(bucket)
        check_conditions(call.query, found, reading=call.method == "GET")
        if call.method == "DELETE":
            if found.names:
                raise Refused(409, "conflict", "The bucket you tried to delete is not empty.")
            del self._buckets[bucket]
            return Reply(204)
        if call.method == "PATCH":
            found.meta = self._bucket_meta(found.meta, parse_json(call.body))
            found.metageneration += 1
        return Reply(200, self._bucket_resource(found))

    @route(
        "GET",
        "/storage/v1/b/{bucket}/o",
        "prefix delimiter maxResults pageToken versions softDeleted startOffset endOffset",
    )
    def list_objects(self, call: Call, bucket: str) -> Reply:
        found = self._bucket(bucket)
        versions, soft_deleted = call.flag("versions"), call.flag("softDeleted")
        if versions and soft_deleted:
            raise invalid("versions and softDeleted cannot be requested together.")
        names, by_name = found.names, found.versions
        if soft_deleted:
            by_name = {}
            for version in sorted(self._soft_deleted(found), key=lambda v: (v.name, v.generation)):
                by_name.setdefault(version.name, []).append(version)
            names = list(by_name)
        try:
            kind, after, generation, page = json.loads(
                base64.urlsafe_b64decode(call.query.get("pageToken") or "WyIiLCAiIiwgMCwgMF0=")
            )
        except ValueError:
            raise invalid("Invalid argument.") from None
        if self._pages is not None and page >= self._pages:
            raise Refused(
                500, "internalError", "We encountered an internal error. Please try again."
            )
        if (wanted := call.number("maxResults")) == 0:
            raise invalid("Invalid argument.")
        room = min(wanted or self.page_size, self.page_size)
        prefix, delimiter, end = (
            call.query.get(key, "") for key in ("prefix", "delimiter", "endOffset")
        )
        items: list[Json] = []
        prefixes: list[str] = []
        last, more = [kind, after, generation], False
        beginning = max(prefix, call.query.get("startOffset", ""), after)
        for name in islice(names, bisect.bisect_left(names, beginning), None):
            if not name.startswith(prefix) or (end and name >= end):
                break
            if kind == "prefix" and name.startswith(after):
                continue
            shown = [v for v in by_name[name] if versions or soft_deleted or v.deleted is None]
            cut = name.find(delimiter, len(prefix)) if delimiter else -1
            if cut >= 0 and shown:
                group = name[: cut + len(delimiter)]
                if prefixes and prefixes[-1] == group:
                    continue
                if more := len(items) + len(prefixes) >= room:
                    break
                prefixes.append(group)
                last = ["prefix", group, 0]
                continue
            for version in shown:
                if (
                    kind == "name"
                    and name == after
                    and (version.generation <= generation or not (versions or soft_deleted))
                ):
                    continue
                if more := len(items) + len(prefixes) >= room:
                    break
                items.append(self._resource(found, version))
                last = ["name", name, version.generation]
            if more:
                break
        payload: Json = {"kind": "storage#objects"}
        if more:
            payload["nextPageToken"] = base64.urlsafe_b64encode(
                json.dumps([*last, page + 1]).encode()
            ).decode()
        return Reply(
            200,
            payload
            | ({"prefixes": prefixes} if prefixes else {})
            | ({"items": items} if items else {}),
        )

    @route("GET", "/storage/v1/b/{bucket}/o/{name}", "generation softDeleted", IF)
    @route("GET", "/download/storage/v1/b/{bucket}/o/{name}", "generation", IF)
    def object_get(self, call: Call, bucket: str, name: str) -> Reply:
        found = self._bucket(bucket)
        media = call.query.get("alt") == "media" or call.path.startswith("/download/")
        find = self._soft_version if call.flag("softDeleted") else self._version
        version = find(found, name, call.number("generation"))
        if media and version.soft_deleted:
            raise no_such(bucket, name)
        check_conditions(call.query, version, reading=True)
        return self._media(call, version) if media else Reply(200, self._resource(found, version))

    @staticmethod
    def _media(call: Call, version: Version) -> Reply:
        size, meta = len(version.data), version.meta
        headers = [
            ("ETag", etag(version.generation, version.metageneration)),
            ("x-goog-generation", str(version.generation)),
            ("x-goog-metageneration", str(version.metageneration)),
            ("x-goog-hash", f"crc32c={version.crc32c}"),
            ("x-goog-hash", f"md5={version.md5}"),
            ("x-goog-storage-class", meta["storageClass"]),
            ("x-goog-stored-content-encoding", meta.get("contentEncoding", "identity")),
            ("x-goog-stored-content-length", str(size)),
            ("Last-Modified", format_datetime(version.updated, usegmt=True)),
            ("Accept-Ranges", "bytes"),
        ]
        shown = {
            "cacheControl": "Cache-Control",
            "contentDisposition": "Content-Disposition",
            "contentEncoding": "Content-Encoding",
        }
        shown |= {"contentLanguage": "Content-Language", "contentType": "Content-Type"}
        headers += [(name, meta[key]) for key, name in shown.items() if key in meta]
        found = re.fullmatch(r"bytes=(\d*)-(\d*)", call.headers.get("Range", ""))
        first, last = found.groups() if found else ("", "")
        if not (first or last) or (first and last and int(last) < int(first)):
            return Reply(200, None, version.data, headers)
        start = int(first) if first else max(0, size - int(last))
        stop = min(size, int(last) + 1) if first and last else size
        if start >= stop:
            text = b"The requested range cannot be satisfied."
            return Reply(
                416,
                None,
                text,
                [
                    ("Content-Range", f"bytes */{size}"),
                    ("Content-Type", "text/html; charset=UTF-8"),
                ],
            )
        return Reply(
            206,
            None,
            version.data[start:stop],
            [*headers, ("Content-Range", f"bytes {start}-{stop - 1}/{size}")],
        )

    @route(
        "PATCH PUT", "/storage/v1/b/{bucket}/o/{name}", "generation overrideUnlockedRetention", IF
    )
    def object_patch(self, call: Call, bucket: str, name: str) -> Reply:
        """PUT replaces the metadata but, as far as it does not name them, leaves holds and
        retention alone."""
        found = self._bucket(bucket)
        version = self._version(found, name, call.number("generation"))
        check_conditions(call.query, version)
        body = parse_json(call.body)
        self._check_fields(body)
        if body.get("storageClass") not in (None, version.meta["storageClass"]):
            raise invalid("The storage class of an object is changed by a rewrite, not by a patch.")
        meta = dict(version.meta)
        if call.method == "PUT":
            meta = {key: meta[key] for key in ("storageClass", "retention", *HOLDS) if key in meta}
        for key in (body.keys() & WRITABLE) - {"storageClass"}:
            value = body[key]
            if key == "metadata" and value is not None:
                value = {k: v for k, v in {**meta.get(key, {}), **value}.items() if v is not None}
            if key == "retention":
                value = self._changed_retention(
                    found, version.meta.get(key), value, call.flag("overrideUnlockedRetention")
                )
            meta[key] = value
        meta = {key: value for key, value in meta.items() if value is not None}
        if "retention" in meta and meta.get("eventBasedHold"):
            raise invalid("Retention and event based holds cannot be configured together.")
        if version.meta.get("eventBasedHold") and not meta.get("eventBasedHold"):
            version.hold_released = self.now()
        version.meta, version.updated = meta, self.now()
        version.metageneration += 1
        return Reply(200, self._resource(found, version))

    @route("DELETE", "/storage/v1/b/{bucket}/o/{name}", "generation", IF)
    def object_delete(self, call: Call, bucket: str, name: str) -> Reply:
        found = self._bucket(bucket)
        generation = call.number("generation")
        version = self._version(found, name, generation)
        check_conditions(call.query, version)
        if generation is None:
            self._retire(found, version)
        else:
            self._refuse_kept(found, version)
            found.erase(version, self.now())
        return Reply(204)

    @route("POST", "/storage/v1/b/{bucket}/o/{name}/restore", "generation copySourceAcl", IF)
    def object_restore(self, call: Call, bucket: str, name: str) -> Reply:
        found = self._bucket(bucket)
        source = self._soft_version(found, name, call.number("generation"))
        body = {
            key: value
            for key, value in source.meta.items()
            if key != "retention" and key not in HOLDS
        }
        return Reply(
            200, self._resource(found, self._put(found, name, source.data, body, call.query))
        )

    def _copy_body(self, call: Call, source: Version) -> Json:
        """No metadata in the request: the source's, without class, holds and retention. Any at all:
        only what was sent."""
        body = parse_json(call.body)
        self._check_fields(body)
        if body.keys() & WRITABLE:
            return body
        return {
            key: value
            for key, value in source.meta.items()
            if key not in ("storageClass", "retention", *HOLDS)
        }

    @route(
        "POST",
        "/storage/v1/b/{bucket}/o/{name}/copyTo/b/{to_bucket}/o/{to_name}",
        "sourceGeneration",
        IF,
        IF_SOURCE,
    )
    def object_copy(
        self, call: Call, bucket: str, name: str, to_bucket: str, to_name: str
    ) -> Reply:
        source = self._version(self._bucket(bucket), name, call.number("sourceGeneration"))
        check_conditions(call.query, source, "ifSource")
        target = self._bucket(to_bucket)
        return Reply(
            200,
            self._resource(
                target,
                self._put(target, to_name, source.data, self._copy_body(call, source), call.query),
            ),
        )

    @route(
        "POST",
        "/storage/v1/b/{bucket}/o/{name}/rewriteTo/b/{to_bucket}/o/{to_name}",
        "sourceGeneration rewriteToken maxBytesRewrittenPerCall",
        IF,
        IF_SOURCE,
    )
    def object_rewrite(
        self, call: Call, bucket: str, name: str, to_bucket: str, to_name: str
    ) -> Reply:
        source = self._version(self._bucket(bucket), name, call.number("sourceGeneration"))
        check_conditions(call.query, source, "ifSource")
        target = self._bucket(to_bucket)
        live = target.find(to_name)
        check_conditions(call.query, live)
        if live is not None:
            self._refuse_kept(target, live, archiving=target.versioned)
        body = self._copy_body(call, source)
        names = (bucket, name, to_bucket, to_name)
        token = call.query.get("rewriteToken") or uuid.uuid4().hex
        state = (
            self._rewrites.get(token) if "rewriteToken" in call.query else Rewrite(source, names)
        )
        if state is None or state.names != names:
            raise invalid("Invalid rewrite token.")
        if state.source is not source:
            raise no_such(bucket, name, " (the source changed during the rewrite)")
        step = call.number("maxBytesRewrittenPerCall")
        if step is not None and (step == 0 or step % MIB):
            raise invalid("maxBytesRewrittenPerCall must be an integral multiple of 1 MiB.")
        size = len(source.data)
        state.done = min(size, state.done + min(step or self.rewrite_chunk, self.rewrite_chunk))
        payload: Json = {
            "kind": "storage#rewriteResponse",
            "totalBytesRewritten": str(state.done),
            "objectSize": str(size),
        }
        payload["done"] = state.done == size
        if not payload["done"]:
            self._rewrites[token] = state
            return Reply(200, payload | {"rewriteToken": token})
        self._rewrites.pop(token, None)
        return Reply(
            200,
            payload
            | {
                "resource": self._resource(
                    target, self._put(target, to_name, source.data, body, call.query)
                )
            },
        )

    @route(
        "POST",
        "/(?:resumable/)?upload/storage/v1/b/{bucket}/o",
        "uploadType name contentEncoding",
        IF,
    )
    def object_insert(self, call: Call, bucket: str) -> Reply:
        found = self._bucket(bucket)
        kind = call.query.get("uploadType")
        sent_type, data = call.headers.get("Content-Type", ""), call.body
        body: Json = {}
        if kind == "multipart":
            body, sent_type, data = split_related(sent_type, call.body)
        elif kind == "resumable":
            body, sent_type = parse_json(call.body), call.headers.get("X-Upload-Content-Type", "")
        elif kind != "media":
            raise invalid(f"Invalid uploadType: {kind!r}")
        name = call.query.get("name") or body.get("name") or ""
        body.setdefault("contentType", sent_type or "application/octet-stream")
        if "contentEncoding" in call.query:
            body["contentEncoding"] = call.query["contentEncoding"]
        if kind != "resumable":
            return Reply(
                200,
                self._resource(
                    found,
                    self._put(
                        found, name, data, body, call.query, given_hashes(body, call.headers)
                    ),
                ),
            )
        self._check_name(name)
        check_conditions(call.query, found.find(name))
        self._object_meta(found, body)
        declared = call.headers.get("X-Upload-Content-Length")
        upload = uuid.uuid4().hex
        self._sessions[upload] = Session(
            bucket, name, body, call.query, int(declared) if declared else None
        )
        location = f"{self.url}/upload/storage/v1/b/{quote(bucket, safe='')}/o?uploadType=resumable&upload_id={upload}"
        return Reply(200, None, b"", [("Location", location), ("X-GUploader-UploadID", upload)])

    @route(
        "PUT DELETE",
        "/(?:resumable/)?upload/storage/v1/b/{bucket}/o",
        "uploadType upload_id name",
        IF,
    )
    def session_put(self, call: Call, bucket: str) -> Reply:
        session = self._sessions.get(call.query.get("upload_id", ""))
        if session is None or session.bucket != bucket:
            raise Refused(404, "notFound", "No such upload session.")
        if session.resource is not None:
            return Reply(200, session.resource)
        if session.cancelled or call.method == "DELETE":
            session.cancelled = True
            session.data.clear()
            return Reply(499)
        held, body = len(session.data), call.body
        sent = call.headers.get(
            "Content-Range", f"bytes 0-{len(body) - 1}/{len(body)}" if body else "bytes */0"
        )
        found = re.fullmatch(r"bytes (?:\*|(\d+)-(\d+))/(?:\*|(\d+))", sent)
        if found is None:
            raise invalid(f"Invalid Content-Range: {sent!r}")
        first, last, total = (None if text is None else int(text) for text in found.groups())
        if total is not None and session.size not in (None, total):
            raise invalid(
                f"The upload has {total} bytes, X-Upload-Content-Length declared {session.size}."
            )
        if first is not None and last is not None:
            if last - first + 1 != len(body) or (total is not None and last >= total):
                raise invalid(f"Content-Range {sent!r} does not fit a body of {len(body)} bytes.")
            if first > held:
                offsets = (
                    f"the upload offset is {first} byte(s), which exceeds already uploaded "
                    f"size of {held} byte(s)."
                )
                raise Refused(
                    503,
                    "backendError",
                    f"Invalid request.  According to the Content-Range header, {offsets}",
                )
            if last + 1 != total and len(body) % CHUNK:
                raise invalid(
                    f"A chunk other than the last has a multiple of {CHUNK} bytes. The received "
                    f"request contained {len(body)} bytes."
                )
            session.data += body[held - first :]
        elif body:
            raise invalid(f"Content-Range {sent!r} takes no body.")
        if total is None or len(session.data) != total:
            progress = [("Range", f"bytes=0-{len(session.data) - 1}")] if session.data else []
            if call.headers.get("X-GUploader-No-308") == "yes":
                return Reply(200, None, b"", [*progress, ("X-HTTP-Status-Code-Override", "308")])
            return Reply(308, None, b"", progress)
        target = self._bucket(bucket)
        given = given_hashes(session.body, call.headers)
        del self._sessions[
            call.query["upload_id"]
        ]  # a refused end ends the session: nothing may appear later
        session.resource = self._resource(
            target,
            self._put(
                target, session.name, bytes(session.data), session.body, session.query, given
            ),
        )
        session.data.clear()
        self._sessions[call.query["upload_id"]] = session
        return Reply(200, session.resource)

    @route("POST", "/batch/storage/v1|/batch")
    def batch(self, call: Call) -> Reply:
        message = email.message_from_bytes(
            b"Content-Type: "
            + call.headers.get("Content-Type", "").encode()
            + b"\r\n\r\n"
            + call.body
        )
        parts = [part for part in message.get_payload() if isinstance(part, Message)]
        if message.get_content_type() != "multipart/mixed" or not parts:
            raise invalid("Failed to parse batch request.", "badRequest")
        if len(parts) > MAX_BATCH:
            raise invalid(
                f"The batch request has {len(parts)} calls, the limit is {MAX_BATCH}.", "badRequest"
            )
        boundary, out = f"batch_{uuid.uuid4().hex}", b""
        for part in parts:
            text = part.get_payload(decode=True)
            head, _, body = (
                (text if isinstance(text, bytes) else b"")
                .replace(b"\r\n", b"\n")
                .partition(b"\n\n")
            )
            request, _, header_lines = head.decode().partition("\n")
            method, target, *_ = [*request.split(" "), "", ""]
            if not urlsplit(target).path.startswith("/storage/v1/") or "alt=media" in target:
                reply: Reply | None = Reply(400, None, b"Only metadata calls can be batched.")
            else:
                reply = self.answer(
                    method, target, email.message_from_string(header_lines + "\n\n"), body
                )
            reply = reply or Reply(503)
            identity = (part.get("Content-ID") or "").strip().strip("<>")
            lines = [
                "--" + boundary,
                "Content-Type: application/http",
                *([f"Content-ID: <response-{identity}>"] if identity else []),
                "",
            ]
            lines += [
                f"HTTP/1.1 {reply.status} {phrase(reply.status)}",
                *(f"{name}: {value}" for name, value in reply.headers),
            ]
            out += (
                "\r\n".join([*lines, f"Content-Length: {len(reply.body)}", "", ""]).encode()
                + reply.body
                + b"\r\n"
            )
        return Reply(
            200,
            None,
            out + f"--{boundary}--\r\n".encode(),
            [("Content-Type", f"multipart/mixed; boundary={boundary}")],
        )


def phrase(status: int) -> str:
    if status == 308:
        return "Resume Incomplete"
    return (
        HTTPStatus(status).phrase
        if status in HTTPStatus._value2member_map_
        else "Client Closed Request"
    )


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, port: int, stand_in: GcsStandIn) -> None:
        self.stand_in = stand_in
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _RequestHandler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _RequestHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _body(self) -> bytes | None:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            return body if len(body) == length else None
        body = b""
        while line := self.rfile.readline():
            size = int(line.split(b";")[0], 16)
            chunk = self.rfile.read(size)
            if len(chunk) != size or not self.rfile.readline():
                return None
            body += chunk
            if size == 0:
                return body
        return None

    def _serve(self) -> None:
        stand_in = self.server.stand_in
        body = self._body()
        reply = (
            stand_in.answer(self.command, self.path, self.headers, body)
            if body is not None
            else None
        )
        if reply is None:
            self.close_connection = True
            return
        date = format_datetime(
            stand_in.now() + timedelta(seconds=stand_in.clock_offset), usegmt=True
        )
        length = [] if reply.status in (204, 304) else [("Content-Length", str(len(reply.body)))]
        lines = [
            f"{name}: {value}"
            for name, value in [("Date", date), ("Server", "UploadServer"), *reply.headers, *length]
        ]
        head = "\r\n".join(
            [f"HTTP/1.1 {reply.status} {phrase(reply.status)}", *lines, "", ""]
        ).encode()
        self.wfile.write(head + (b"" if self.command == "HEAD" else reply.body))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _serve


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    with GcsStandIn(parser.parse_args().port) as server:
        print(f"STORAGE_EMULATOR_HOST={server.url}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
