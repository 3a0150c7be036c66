"""A strict and nasty local stand-in for the 100ms recording-assets API, over real HTTP on
127.0.0.1.

It keeps what the platform documents, takes the awkward side where the documentation is silent, and
misbehaves on request (`Faults`). By hand: `python -m retainer.demo.standin --port 8100 --assets 60
--fault rate_429=0.1`.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import io
import json
import math
import random
import re
import socket
import socketserver
import sys
import threading
import time
import uuid
import zipfile
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.utils import format_datetime
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qsl, quote, unquote
from xml.sax.saxutils import escape

import jwt

Json = dict[str, Any]
Content = bytes | Callable[[], Iterator[bytes]]

ACCESS_KEY = "5f00ba5eba11000000000001"
SECRET = "standin-secret-that-opens-nothing-but-the-stand-in"
HOSTED = "s3://hms-prod-ap-south-1/5f00c0ffee00000000000001"
"""Where `sample_assets` puts what 100ms hosts."""
UPLOADS = "s3://acme-raw/rec"
"""Where `sample_assets` puts what 100ms uploads to the customer's own bucket."""
HOSTED_LIFE = timedelta(days=15)
ALWAYS = sys.maxsize
"""As a number of requests: every one of them."""
GARBAGE: Json = {
    "created_at": 1699999999,
    "type": None,
    "size": "big",
    "path": 7,
    "metadata": "none",
}
"""A value for `Faults.broken_rows`."""
ERROR_BODY = b'{"code":404,"message":"recording not found","details":[""]}'
"""The 59 bytes that a careless client saves as an mp4."""

_CONTENT_TYPES = {
    "room-composite": "video/mp4",
    "room-composite-legacy": "video/mp4",
    "room-vod": "application/zip",
    "chat": "text/csv",
    "transcript": "text/plain",
    "summary": "application/json",
    "track": "video/webm",
    "stream": "video/mp4",
}
_MEMBER_TYPES = {
    ".m3u8": "application/vnd.apple.mpegurl",
    ".ts": "video/mp2t",
    ".m4s": "video/mp4",
    ".mp4": "video/mp4",
    ".aac": "audio/aac",
    ".vtt": "text/vtt",
    ".jpg": "image/jpeg",
}
_PARAMETERS = {
    "rooms": {"name", "enabled", "template_id", "before", "after", "start", "limit"},
    "recording-assets": {"room_id", "session_id", "status", "type", "start", "limit"},
}
_ROUTE = re.compile(r"/v2/(?:(rooms|recording-assets|templates)(?:/([^/]+)(/presigned-url)?)?)")
_S3_CODES = {
    400: "InvalidArgument",
    403: "AccessDenied",
    404: "NoSuchKey",
    405: "MethodNotAllowed",
    416: "InvalidRange",
    503: "SlowDown",
}
_PIECE = 1 << 16


class Seen(NamedTuple):
    """One request: its method, its path as sent (still percent-encoded), its query (the last value
    of each parameter)."""

    method: str
    path: str
    query: dict[str, str]


@dataclass(slots=True)
class Faults:
    """What goes wrong, and how often. Every field may be changed while the server runs;
    `counts[field]` tells how often it has struck.

    Probabilities (0 to 1) are drawn from `seed`, the request's target (for media: its path) and how
    often that target was asked for, so that the order in which parallel requests arrive does not
    matter. In the fields by id, "*" stands for every id that is not named. The id of a member of
    unzipped HLS is "<asset>/<path>", and "<asset>" stands for each of its members that is not
    named.
    """

    seed: int = 1
    rate_429: float = 0.0
    """Probability that an API call is answered 429."""
    rate_500: float = 0.0
    """Probability that an API call is answered 500."""
    retry_after: int = 1
    """Seconds that a 429 asks for, in its text."""
    retry_after_header: bool = False
    """A 429 says so in a Retry-After header too."""
    most_a_second: int = 0
    """More API calls than so many in a second are answered 429; 0: as many as come."""
    fail_first: dict[str, list[int]] = field(default_factory=dict)
    """Part of a request's path and query (API or media) -> statuses to answer first; each is taken
    out of the list when it is used."""
    drop_rate: float = 0.0
    """Probability that the connection is closed with no answer (API and media)."""
    drop_first: int = 0
    """So many requests, the first ones, are dropped like that."""
    repeat_rows: int = 0
    """Rows of the previous page that each later page of a list begins with; the cursor goes on."""
    cut_lists: int = 0
    """So many lists, the first ones, are JSON cut in the middle, with status 200 and a
    Content-Length that fits the cut."""
    rooms_fail: bool = False
    """The list of rooms answers 500."""
    list_fail: dict[str, int] = field(default_factory=dict)
    """The `type` that a list of assets asks for ("" = none) -> the page, counted from 0, from which
    on it answers 500."""
    null_pages: bool = False
    """An empty page of a list has null in place of its rows."""
    type_ignored: bool = False
    """A list of one type gives assets of every type, as for a parameter that nobody knows."""
    broken_rows: dict[str, Any] = field(default_factory=dict)
    """Id of an asset or room -> fields served in place of the true ones (`GARBAGE`), or anything
    but a dict, served in place of the row."""
    arrivals: dict[int, list[tuple[Json, bytes | None]]] = field(default_factory=dict)
    """Page, counted from 0, of any list of assets -> assets and contents added once that page is
    made up. Taken out of the dict when used."""
    gone_presign_404: bool = False
    """Past day 15 the presigned-url call answers 404 as well."""
    expire_urls_after: float | None = None
    """Seconds that presigned URLs really live, whatever the answer's `expiry` says. 0: never
    valid."""
    cut_bodies: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Id -> (k, n): the first n bodies longer than k bytes stop after k bytes, under the full
    Content-Length, and the connection closes."""
    stall_after: dict[str, tuple[int, float, int]] = field(default_factory=dict)
    """Id -> (k, s, n): the first n bodies longer than k bytes pause for s seconds after k bytes,
    and then go on."""
    html_with_200: dict[str, int] = field(default_factory=dict)
    """Id -> so many media requests, the first ones, are answered 200 with a page of HTML."""
    json_error_with_200: dict[str, int] = field(default_factory=dict)
    """Id -> so many media requests, the first ones, are answered 200 with `ERROR_BODY`."""
    no_length: dict[str, int] = field(default_factory=dict)
    """Id -> so many media requests, the first ones, are answered in full, chunked and without a
    Content-Length."""
    bytes_per_second: int | None = None
    """The pace of media bodies."""
    date_skew: float = 0.0
    """Seconds that the Date header is ahead of the server's clock. Tokens and URLs go by the
    clock."""
    counts: Counter[str] = field(default_factory=Counter, init=False)
    _turns: Counter[tuple[str, str]] = field(default_factory=Counter, init=False, repr=False)
    _taken: list[float] = field(default_factory=list, init=False, repr=False)
    _lock: threading.Lock = field(
        default_factory=threading.Lock, init=False, repr=False, compare=False
    )

    def _chance(self, fault: str, key: str, probability: float) -> bool:
        if not probability:
            return False
        with self._lock:
            self._turns[fault, key] += 1
            strikes = (
                random.Random(f"{self.seed} {fault} {key} {self._turns[fault, key]}").random()
                < probability
            )
            self.counts[fault] += strikes
        return strikes

    def _first(self, fault: str, n: int, key: str = "") -> bool:
        with self._lock:
            strikes = self._turns[fault, key] < n
            self._turns[fault, key] += strikes
            self.counts[fault] += strikes
        return strikes

    def _first_of(self, fault: str, ids: Sequence[str]) -> bool:
        return self._first(fault, self._told(fault, ids, 0), ids[0])

    def _told(self, fault: str, ids: Sequence[str], usual: Any) -> Any:
        table: dict[str, Any] = getattr(self, fault)
        return next((table[id] for id in (*ids, "*") if id in table), usual)

    def _struck(self, fault: str, strikes: object) -> bool:
        return self._first(fault, ALWAYS if strikes else 0)

    def _drops(self, key: str) -> bool:
        return self._first("drop_first", self.drop_first) or self._chance(
            "drop_rate", key, self.drop_rate
        )

    def _status(self, target: str, media: bool) -> int | None:
        with self._lock:
            for part, statuses in self.fail_first.items():
                if part in target and statuses:
                    self.counts["fail_first"] += 1
                    return statuses.pop(0)
        if not media and self._chance("rate_429", target, self.rate_429):
            return 429
        if not media and self.most_a_second and self._is_too_often():
            return 429
        return 500 if not media and self._chance("rate_500", target, self.rate_500) else None

    def _is_too_often(self) -> bool:
        """What is refused does not count."""
        with self._lock:
            now = time.monotonic()
            self._taken = [at for at in self._taken if now - at < 1.0]
            if len(self._taken) >= self.most_a_second:
                self.counts["most_a_second"] += 1
                return True
            self._taken.append(now)
            return False


class StandIn:
    """The server; it runs from `with` to the end of the block, and after that every connection to
    it is closed.

    It has one clock, `now` (aware datetimes): tokens, URLs, day 15 and the Date header all go by
    it, with no leeway. Faults strike before a token is looked at; `revoked` holds tokens that are
    refused although they are valid. `secret` has 32 bytes or more. `port` 0 takes a free one.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        access_key: str = ACCESS_KEY,
        secret: str = SECRET,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        faults: Faults | None = None,
    ) -> None:
        if len(secret.encode()) < 32:
            raise ValueError(
                "secret must have 32 bytes or more: PyJWT warns of shorter ones at every token"
            )
        self.access_key, self.secret, self.now = access_key, secret, now
        self.faults = faults or Faults()
        self.revoked: set[str] = set()
        self._port = port
        self._server: _Server | None = None
        self._lock = threading.RLock()
        self._requests: list[Seen] = []
        self._rows: dict[str, dict[str, Json]] = {
            "rooms": {},
            "recording-assets": {},
            "templates": {},
        }
        self._recordings: dict[str, _Recording] = {}
        self._listings: dict[tuple[str, tuple[tuple[str, str], ...]], list[tuple[bytes, str]]] = {}

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", self._port), self)
        self._port = self._server.server_address[1]
        threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True, name="standin"
        ).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server.hang_up()
            self._server = None

    @property
    def url(self) -> str:
        """The base of the API, `http://127.0.0.1:PORT/v2`; the port is known once the server
        runs."""
        return f"http://127.0.0.1:{self._port}/v2"

    @property
    def requests(self) -> list[Seen]:
        """What was asked so far, dropped and refused requests too, in the order of arrival."""
        with self._lock:
            return list(self._requests)

    def ready_token(self, life: timedelta = timedelta(days=7)) -> str:
        """A management token, different each time, valid for `life` from now on."""
        issued = int(self.now().timestamp())
        claims: Json = {
            "access_key": self.access_key,
            "type": "management",
            "version": 2,
            "jti": str(uuid.uuid4()),
        }
        return jwt.encode(
            claims | {"iat": issued, "nbf": issued, "exp": issued + int(life.total_seconds())},
            self.secret,
            "HS256",
        )

    def add_room(self, room: Json) -> None:
        """Serve `room` as given; one of the same `id` is replaced."""
        self._add("rooms", room)

    def add_template(self, template: Json) -> None:
        """Serve `template` as given; one of the same `id` is replaced."""
        self._add("templates", template)

    def add_asset(
        self,
        asset: Json,
        content: Content | None = None,
        *,
        hosted: bool = True,
        readable: bool = True,
        files: Mapping[str, Content] | None = None,
        entry: str = "master.m3u8",
    ) -> None:
        """Serve `asset` as given, right or wrong; one of the same `id` is replaced.

        `content` None: there are no such bytes (404). A callable gives the same pieces each time;
        it is run once more, to be measured. `hosted`: gone 15 days after a readable `created_at`.
        Not `readable`: the presigned URL answers 403. `files`, in place of `content`: unzipped HLS,
        by path below the recording's folder. The presigned URL is then the public one of `entry` on
        the CDN, `http://127.0.0.1:PORT/cdn/<id>/<entry>`; the other files are beside it, each under
        its path, percent-encoded.
        """
        if files is not None and content is not None:
            raise ValueError("content or files, not both")
        members: dict[str | None, _File] = {
            path: _File(each) for path, each in (files or {}).items()
        }
        if content is not None:
            members[None] = _File(content)
        with self._lock:
            self._add("recording-assets", asset)
            self._recordings[asset["id"]] = _Recording(
                hosted, readable, members, None if files is None else entry
            )

    def _add(self, kind: str, row: Json) -> None:
        if not isinstance(row.get("id"), str) or not row["id"]:
            raise ValueError(f"no id in {row!r}")
        with self._lock:
            self._rows[kind][row["id"]] = dict(row)
            self._listings.clear()

    def _answer(self, method: str, target: str, headers: Message) -> _Answer | None:
        """None: close the connection without an answer."""
        path, _, text = target.partition("?")
        pairs = parse_qsl(text, keep_blank_values=True)
        query = dict(pairs)
        with self._lock:
            self._requests.append(Seen(method, path, query))
        media = path.startswith(("/media/", "/cdn/"))
        if self.faults._drops(path if media else target):
            return None
        try:
            if status := self.faults._status(target, media):
                raise _Refused(status)
            if media:
                return self._media(method, path, query, headers)
            return self._api(method, path, pairs, headers)
        except _Refused as refused:
            return refused.answer(self.faults, xml=media)

    def _api(
        self, method: str, path: str, pairs: list[tuple[str, str]], headers: Message
    ) -> _Answer:
        if not path.startswith("/v2/"):
            raise _Refused(404)
        self._check_token(headers.get("Authorization", ""))
        if not (route := _ROUTE.fullmatch(path)):
            raise _Refused(404)
        if method != "GET":
            raise _Refused(405, headers={"Allow": "GET"})
        kind, id, presign = route.groups()
        if (presign and kind != "recording-assets") or (kind == "templates" and not id):
            raise _Refused(404)
        query = dict(pairs)
        allowed = _PARAMETERS[kind] if not id else {"presign_duration"} if presign else set()
        if len(query) < len(pairs) or not query.keys() <= allowed:
            raise _Refused(
                400, "invalid query", f"allowed, each once: {', '.join(sorted(allowed))}"
            )
        if not id:
            return self._list(kind, query)
        id = unquote(id)
        if id not in self._rows[kind]:
            raise _Refused(404)
        return self._presigned(id, query) if presign else _json(200, self._row(kind, id))

    def _check_token(self, header: str) -> None:
        token = header.removeprefix("Bearer ")
        try:
            if token == header:
                raise jwt.InvalidTokenError("no bearer token")
            claims = jwt.decode(
                token,
                self.secret,
                algorithms=["HS256"],
                options={
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                    "require": ["jti", "iat", "nbf", "exp"],
                },
            )
        except jwt.PyJWTError as error:
            raise _Refused(401, detail=str(error)) from error
        now = self.now().timestamp()
        times = [claims[name] for name in ("iat", "nbf", "exp")]
        if any(type(moment) not in (int, float) for moment in times):
            raise _Refused(401, detail="iat, nbf and exp are numbers")
        for wrong, detail in (
            (token in self.revoked, "token is revoked"),
            (claims.get("access_key") != self.access_key, "not found"),
            (claims.get("type") != "management", "type is not management"),
            (type(claims.get("version")) is not int or claims["version"] != 2, "version is not 2"),
            (not claims["jti"], "jti is empty"),
            (max(times[:2]) > now, "token used before issued"),
            (times[2] <= now, "token is expired"),
        ):
            if wrong:
                raise _Refused(401, detail=detail)

    def _list(self, kind: str, query: dict[str, str]) -> _Answer:
        faults = self.faults
        for name, value in query.items():
            if not self._valid(kind, name, value):
                raise _Refused(400, f"invalid {name}", value)
        limit, start = int(query.get("limit", "10")), query.get("start")
        asked = {name: value for name, value in query.items() if name not in ("start", "limit")}
        if kind == "rooms":
            asked.setdefault("enabled", "true")
        if faults._struck("type_ignored", faults.type_ignored and "type" in asked):
            del asked["type"]
        filters = tuple(sorted(asked.items()))
        repeat = min(faults.repeat_rows, limit - 1) if start else 0
        with self._lock:
            order = self._listing(kind, filters)
            at = bisect_right(order, order_key(start)) if start else 0
            page = max(0, 1 + (at - limit) // (limit - repeat)) if start else 0
            first = max(0, at - repeat)
            ids = [id for _, id in order[first : first + limit]]
            rows = [self._row(kind, id) for id in ids]
        assets = kind == "recording-assets"
        if faults._struck(
            "list_fail", assets and page >= faults.list_fail.get(query.get("type", ""), math.inf)
        ):
            raise _Refused(500)
        if faults._struck("rooms_fail", not assets and faults.rooms_fail):
            raise _Refused(500)
        faults._struck("repeat_rows", repeat)
        for asset, content in faults.arrivals.pop(page, []) if assets else []:
            faults._struck("arrivals", True)
            self.add_asset(asset, content)
        nothing = None if faults._struck("null_pages", not ids and faults.null_pages) else rows
        told: Json = {"limit": limit, "data": rows or nothing}
        body = json.dumps(told | ({"last": ids[-1]} if ids else {})).encode()
        return _whole(
            200,
            body[: len(body) // 2] if faults._first("cut_lists", faults.cut_lists) else body,
            "application/json",
        )

    def _valid(self, kind: str, name: str, value: str) -> bool:
        match name:
            case "limit":
                return re.fullmatch("[0-9]{2,3}", value) is not None and 10 <= int(value) <= 100
            case "start":
                return value in self._rows[kind]
            case "status":
                return value in ("completed", "failed")
            case "type":
                return value in _CONTENT_TYPES or any(
                    row.get("type") == value for row in list(self._rows[kind].values())
                )
            case "enabled":
                return value in ("true", "false")
            case "before" | "after":
                return _moment(value) is not None
        return bool(value)

    def _listing(self, kind: str, filters: tuple[tuple[str, str], ...]) -> list[tuple[bytes, str]]:
        if (kind, filters) not in self._listings:
            chosen = (
                id
                for id, row in self._rows[kind].items()
                if all(_matches(row, *each) for each in filters)
            )
            self._listings[kind, filters] = sorted(map(order_key, chosen))
        return self._listings[kind, filters]

    def _row(self, kind: str, id: str) -> Any:
        row, broken = self._rows[kind][id], self.faults.broken_rows
        if not self.faults._struck("broken_rows", id in broken):
            return row
        return row | broken[id] if isinstance(broken[id], dict) else broken[id]

    def _gone(self, id: str) -> bool:
        created = _moment(self._rows["recording-assets"][id].get("created_at"))
        return (
            self._recordings[id].hosted
            and created is not None
            and self.now() - created >= HOSTED_LIFE
        )

    def _presigned(self, id: str, query: dict[str, str]) -> _Answer:
        asset = self._rows["recording-assets"][id]
        usual = "32400" if str(asset.get("path")).startswith("oss://") else "259200"
        seconds = query.get("presign_duration", usual)
        if not re.fullmatch("[0-9]{1,6}", seconds) or not 0 < int(seconds) <= 604800:
            raise _Refused(400, "invalid presign_duration", seconds)
        if asset.get("status") == "failed" or self.faults._struck(
            "gone_presign_404", self.faults.gone_presign_404 and self._gone(id)
        ):
            raise _Refused(404)
        entry, quoted = self._recordings[id].entry, quote(id, safe="")
        target = (
            f"media/{quoted}?{self._signed(id, int(seconds))}"
            if entry is None
            else f"cdn/{quoted}/{quote(entry)}"
        )
        url = f"{self.url.removesuffix('v2')}{target}"
        return _json(200, {"id": id, "path": asset.get("path"), "url": url, "expiry": int(seconds)})

    def _signed(self, id: str, seconds: int) -> str:
        life = seconds if self.faults.expire_urls_after is None else self.faults.expire_urls_after
        self.faults._struck("expire_urls_after", self.faults.expire_urls_after is not None)
        expires = int(self.now().timestamp() + life)
        return f"X-Signature={self._signature(id, str(expires))}&X-Expires={expires}"

    def _signature(self, id: str, expires: str) -> str:
        return hmac.new(self.secret.encode(), f"{id}\n{expires}".encode(), "sha256").hexdigest()

    def _check_signature(self, id: str, query: dict[str, str]) -> None:
        expires = query.get("X-Expires", "")
        if not hmac.compare_digest(
            self._signature(id, expires).encode(), query.get("X-Signature", "").encode()
        ):
            raise _Refused(
                403,
                "The request signature we calculated does not match the signature you provided",
                "SignatureDoesNotMatch",
            )
        if self.now().timestamp() >= int(expires):
            raise _Refused(403, "Request has expired")

    def _media(self, method: str, path: str, query: dict[str, str], headers: Message) -> _Answer:
        faults = self.faults
        if method not in ("GET", "HEAD"):
            raise _Refused(405, headers={"Allow": "GET, HEAD"})
        if "Authorization" in headers:
            raise _Refused(
                400,
                "Only one auth mechanism allowed: the X-Signature query parameter or the "
                "Authorization header",
            )
        member: str | None = None
        if path.startswith("/cdn/"):
            id, _, member = map(unquote, path.removeprefix("/cdn/").partition("/"))
        else:
            id = unquote(path.removeprefix("/media/"))
            self._check_signature(id, query)
        recording = self._recordings.get(id)
        if recording and not recording.readable:
            raise _Refused(403, "Access Denied")
        if not recording or member not in recording.files or self._gone(id):
            raise _Refused(404, "The specified key does not exist.")
        asset, file, ids = (
            self._rows["recording-assets"][id],
            recording.files[member],
            (id,) if member is None else (f"{id}/{member}", id),
        )
        if faults._first_of("html_with_200", ids):
            return _whole(
                200, b"<!DOCTYPE html><html><body>Back in a moment</body></html>", "text/html"
            )
        if faults._first_of("json_error_with_200", ids):
            return _whole(200, ERROR_BODY, "application/json")
        length, etag = file.measured
        sent = {
            "Content-Type": _content_type(asset, member),
            "ETag": etag,
            "Accept-Ranges": "bytes",
        }
        if created := _moment(asset.get("created_at")):
            sent["Last-Modified"] = format_datetime(created.astimezone(UTC), usegmt=True)
        if faults._first_of("no_length", ids):
            return _Answer(200, sent, file.pieces(0, length), None, pace=faults.bytes_per_second)
        status, first, end = 200, 0, length
        if headers.get("If-Range", etag) in (etag, sent.get("Last-Modified")) and (
            window := _window(headers.get("Range", ""), length)
        ):
            status, (first, end) = 206, window
            sent["Content-Range"] = f"bytes {first}-{end - 1}/{length}"
        body = file.pieces(first, end)
        after, seconds, times = faults._told("stall_after", ids, (0, 0, 0))
        if method == "GET" and after < end - first and faults._first("stall_after", times, ids[0]):
            body = _stalled(body, after, seconds)
        after, times = faults._told("cut_bodies", ids, (0, 0))
        cut = (
            after
            if method == "GET"
            and after < end - first
            and faults._first("cut_bodies", times, ids[0])
            else None
        )
        return _Answer(status, sent, body, end - first, cut, faults.bytes_per_second)


def order_key(id: str) -> tuple[bytes, str]:
    """What lists are sorted by: stable, and without regard to dates. An arrival is met by a reader
    whose cursor is smaller."""
    return hashlib.blake2b(id.encode(), digest_size=8).digest(), id


def _moment(text: object) -> datetime | None:
    """None: not RFC 3339 with a zone."""
    if not isinstance(text, str) or not re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", text
    ):
        return None
    with suppress(ValueError):
        return datetime.fromisoformat(text)
    return None


def _matches(row: Json, name: str, value: str) -> bool:
    if name == "enabled":
        return bool(row.get("enabled", True)) == (value == "true")
    if name not in ("before", "after"):
        return bool(row.get(name) == value)
    created, bound = _moment(row.get("created_at")), _moment(value)
    return (
        created is not None
        and bound is not None
        and (created <= bound if name == "before" else created >= bound)
    )


def _window(header: str, length: int) -> tuple[int, int] | None:
    """First byte and end of a single range; None: nothing that S3 honours. Beyond the end: 416."""
    if not (found := re.fullmatch(r"bytes=([0-9]*)-([0-9]*)", header)) or header == "bytes=-":
        return None
    first, last = found.groups()
    if first and last and int(last) < int(first):
        return None
    start = int(first) if first else max(0, length - int(last))
    if start >= length:
        raise _Refused(
            416,
            "The requested range is not satisfiable",
            headers={"Content-Range": f"bytes */{length}"},
        )
    return start, min(int(last) + 1, length) if first and last else length


def _content_type(asset: Json, member: str | None) -> str:
    if member is not None:
        return _MEMBER_TYPES.get(PurePosixPath(member).suffix, "application/octet-stream")
    return (
        "application/json"
        if str(asset.get("path")).endswith(".json")
        else _CONTENT_TYPES.get(str(asset.get("type")), "binary/octet-stream")
    )


def _stalled(pieces: Iterable[bytes], after: int, seconds: float) -> Iterator[bytes]:
    for piece in pieces:
        if 0 <= after < len(piece):
            yield piece[:after]
            time.sleep(seconds)
            yield piece[after:]
        else:
            yield piece
        after -= len(piece)


@dataclass(frozen=True)
class _File:
    content: Content

    @cached_property
    def measured(self) -> tuple[int, str]:
        """Length in bytes, and ETag."""
        length, digest = 0, hashlib.md5(usedforsecurity=False)
        for piece in self._all():
            length += len(piece)
            digest.update(piece)
        return length, f'"{digest.hexdigest()}"'

    def _all(self) -> Iterable[bytes]:
        return self.content() if callable(self.content) else [self.content]

    def pieces(self, first: int, end: int) -> Iterator[bytes]:
        at = 0
        for piece in self._all():
            yield piece[max(0, first - at) : end - at]
            at += len(piece)
            if at >= end:
                return


class _Recording(NamedTuple):
    hosted: bool
    readable: bool
    files: Mapping[str | None, _File]
    """By path on the CDN; under None what a signed URL gives."""
    entry: str | None
    """None: the presigned URL is a signed one."""


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: dict[str, str]
    body: Iterable[bytes]
    length: int | None
    cut: int | None = None
    pace: int | None = None


def _whole(
    status: int, body: bytes, content_type: str, headers: Mapping[str, str] | None = None
) -> _Answer:
    return _Answer(status, {"Content-Type": content_type, **(headers or {})}, [body], len(body))


def _json(status: int, value: object, headers: Mapping[str, str] | None = None) -> _Answer:
    return _whole(status, json.dumps(value).encode(), "application/json", headers)


class _Refused(Exception):
    def __init__(
        self,
        status: int,
        message: str = "",
        detail: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status, self.message, self.detail, self.headers = (
            status,
            message,
            detail,
            dict(headers or {}),
        )

    def answer(self, faults: Faults, xml: bool) -> _Answer:
        usual = {
            401: "Token validation error",
            404: "not found",
            405: "method not allowed",
            500: "internal server error",
        }
        message = self.message or usual.get(self.status, f"status {self.status}")
        if self.status == 429:
            message = f"rate limit exceeded, retry after {faults.retry_after} seconds"
            if faults.retry_after_header:
                self.headers["Retry-After"] = str(faults.retry_after)
        if not xml:
            return _json(
                self.status,
                {
                    "code": self.status,
                    "message": message,
                    "details": [self.detail] if self.detail else [],
                },
                self.headers,
            )
        code = self.detail or _S3_CODES.get(self.status, "InternalError")
        body = (
            '<?xml version="1.0" '
            f'encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>'
        )
        return _whole(self.status, body.encode(), "application/xml", self.headers)


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], standin: StandIn) -> None:
        self.standin = standin
        self._open: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(
            self
        )  # HTTPServer's own asks the resolver for this host's name, which can take seconds

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version, server_version, sys_version = "HTTP/1.1", "standin", ""
    disable_nagle_algorithm = True
    server: _Server

    def date_time_string(self, timestamp: float | None = None) -> str:
        standin = self.server.standin
        return format_datetime(
            (standin.now() + timedelta(seconds=standin.faults.date_skew)).astimezone(UTC),
            usegmt=True,
        )

    def log_message(self, *_: Any) -> None:
        pass

    def _respond(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if length.isdecimal() and int(length) <= _PIECE and "Transfer-Encoding" not in self.headers:
            self.rfile.read(int(length))
        else:
            self.close_connection = True
        answer = self.server.standin._answer(self.command, self.path, self.headers)
        if answer is None:
            self._hang_up()
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header(
            *(
                ("Transfer-Encoding", "chunked")
                if answer.length is None
                else ("Content-Length", str(answer.length))
            )
        )
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self._send(answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _respond

    def _send(self, answer: _Answer) -> None:
        left = answer.cut
        step = _PIECE if answer.pace is None else max(1, min(_PIECE, int(answer.pace / 20)))
        for whole in answer.body:
            for at in range(0, len(whole), step):
                piece = whole[at : at + step][:left]
                if answer.pace:
                    time.sleep(len(piece) / answer.pace)
                self.wfile.write(
                    b"%x\r\n%b\r\n" % (len(piece), piece) if answer.length is None else piece
                )
                if left is not None and (left := left - len(piece)) == 0:
                    self._hang_up()
                    return
        if answer.length is None:
            self.wfile.write(b"0\r\n\r\n")

    def _hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


_ROOMS = (
    "sales-emea sales-apac support-1 support-2 interview-eng interview-ops standup board "
    "class-algebra class-history webinar-launch webinar-q3"
)
_OWN_BUCKET = ("class", "webinar")
_VARIANTS = (
    ("room-composite", ""),
    ("chat", ""),
    ("transcript", "txt"),
    ("summary", "json"),
    ("track", "video"),
    ("stream", "regular"),
    ("room-vod", ""),
    ("room-composite-legacy", ""),
    ("transcript", "json"),
    ("track", "audio"),
    ("room-composite", "layer"),
    ("stream", "screen"),
    ("transcript", "srt"),
)


def sample_rooms(now: datetime, seed: int = 1) -> list[Json]:
    """The twelve rooms that `sample_assets` with the same `seed` records in. The templates `class`
    and `webinar` upload to `UPLOADS`."""
    rng = random.Random(f"rooms {seed}")
    templates: dict[str, str] = {}
    rooms = []
    for name in _ROOMS.split():
        template = name.partition("-")[0]
        room = {
            "id": _hex(rng),
            "name": name,
            "enabled": True,
            "description": "",
            "customer_id": HOSTED.rpartition("/")[2],
        }
        room |= {
            "template_id": templates.setdefault(template, _hex(rng)),
            "template": template,
            "region": "in",
        }
        rooms.append(room | {"created_at": _stamp(now - timedelta(days=500 + rng.random()), rng)})
    return rooms


def sample_assets(n: int, now: datetime, seed: int = 1) -> Iterator[tuple[Json, bytes]]:
    """`n` assets and their contents, the same for the same `n`, `now` and `seed`, and with a
    smaller `n` the first of them.

    From eight on, every type is among them; from 156 on, every room. What lies below `HOSTED` is up
    to 20 days old, what lies below `UPLOADS` up to 400. A few are `failed` (no path, no bytes); a
    few have size 0, or metadata null, although the file is whole. Else `size` is the length of the
    content in bytes.
    """
    rng = random.Random(f"assets {seed}")
    rooms = sample_rooms(now, seed)
    for number in range(n):
        type_, variant = _VARIANTS[number % len(_VARIANTS)]
        if number % len(_VARIANTS) == 0:
            room = rooms[number // len(_VARIANTS) * 5 % len(rooms)]
            own = room["template"] in _OWN_BUCKET
            base = UPLOADS if own else HOSTED
            start = now - timedelta(days=rng.uniform(0.2, 400 if own else 20))
            seconds = rng.randrange(120, 7200)
            session, job, epoch, peer, stream = (
                _hex(rng),
                _hex(rng),
                int(start.timestamp()),
                _uuid(rng),
                _uuid(rng),
            )
        day, recording = (
            f"{room['id']}/{start.astimezone(UTC):%Y-%m-%d}",
            f"Rec-{room['id']}-{epoch}",
        )
        thumbnails: list[str] | None = None
        metadata: Json = {}
        match type_:
            case "room-composite" if variant:
                path, metadata = (
                    f"hls/{day}/{epoch}/file-recording/{recording}-0.mp4",
                    {"layer": 0, "resolution": {"width": 1920, "height": 1080}},
                )
            case "room-composite":
                path, metadata = (
                    f"beam/{day}/{recording}.mp4",
                    {"resolution": {"width": 1280, "height": 720}},
                )
            case "room-composite-legacy":
                path = f"{day}/{session}/Rec-{session}-{epoch}.mp4"
            case "room-vod":
                path, metadata = (
                    f"hls/{day}/{epoch}/vod/{recording}.zip",
                    {"num_layers": "4", "max_width": 1920, "max_height": 1080},
                )
                thumbnails = [
                    f"{base}/hls/{day}/{epoch}/vod/thumbnails/thumbnail-{i}.jpg" for i in (1, 2)
                ]
            case "chat":
                path = f"chat/{day}/{recording}.csv"
            case "track":
                track = _uuid(rng)
                path = f"{day}/{session}/{peer}/{stream}/{track}.webm"
                metadata = {
                    "track_id": track,
                    "stream_id": stream,
                    "peer_id": peer,
                    "track_type": variant,
                }
            case "stream":
                path = f"{day}/{session}/{peer}/{stream}/{recording}-{variant}.mp4"
                metadata = {
                    "stream_id": stream,
                    "peer_id": peer,
                    "user_id": f"user-{rng.randrange(100)}",
                    "stream_type": variant,
                }
            case _:
                path, metadata = (
                    f"{type_}/{day}/{recording}-{type_}.{variant}",
                    {"output_mode": variant},
                )
        content = _content(path.rpartition(".")[2], rng)
        created = start + timedelta(seconds=seconds + rng.uniform(30, 600))
        asset: Json = {
            "id": _hex(rng),
            "job_id": job,
            "room_id": room["id"],
            "session_id": session,
            "type": type_,
            "status": "completed",
        }
        asset |= {
            "path": f"{base}/{path}",
            "size": len(content),
            "duration": seconds,
            "created_at": _stamp(created, rng),
        }
        asset |= {"thumbnails": thumbnails, "metadata": metadata}
        match rng.randrange(50):
            case 0 | 1:
                asset, content = (
                    asset | {"status": "failed", "path": None, "size": 0, "thumbnails": None},
                    b"",
                )
            case 2:
                asset["size"] = 0
            case 3:
                asset["metadata"] = None
        yield asset, content


def _hex(rng: random.Random) -> str:
    return rng.randbytes(12).hex()


def _uuid(rng: random.Random) -> str:
    return str(uuid.UUID(bytes=rng.randbytes(16), version=4))


def _stamp(moment: datetime, rng: random.Random) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{rng.randrange(10**9):09d}Z"


def _content(suffix: str, rng: random.Random) -> bytes:
    noise = rng.randbytes(rng.randrange(200, 2000))
    lines = [
        (i * 7, rng.choice(("Good morning", "Can you hear me?", "Let us begin", "Thank you, bye")))
        for i in range(rng.randrange(2, 9))
    ]
    match suffix:
        case "mp4":
            boxes = ((b"ftyp", b"isom\x00\x00\x02\x00isomiso2avc1mp41"), (b"mdat", noise))
            return b"".join(
                (len(body) + 8).to_bytes(4, "big") + name + body for name, body in boxes
            )
        case "webm":
            return (
                b"\x1a\x45\xdf\xa3\x8b\x42\x82\x84webm\x42\x87\x81\x04"
                + b"\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff"
                + noise
            )
        case "zip":
            with zipfile.ZipFile(buffer := io.BytesIO(), "w") as archive:
                archive.writestr(
                    zipfile.ZipInfo("master.m3u8"),
                    "#EXTM3U\n#EXTINF:6,\nseg-0.ts\n#EXT-X-ENDLIST\n",
                )
                archive.writestr(zipfile.ZipInfo("seg-0.ts"), noise)
            return buffer.getvalue()
        case "csv":
            rows = (
                f"{_uuid(rng)},Ada,user-1,host,{at},chat,{json.dumps(text)}\n" for at, text in lines
            )
            return (
                "SenderPeerID,SenderName,SenderUserID,Roles,SentAt,Type,Message\n" + "".join(rows)
            ).encode()
        case "json":
            return json.dumps(
                [{"start": at, "speaker": "Ada", "text": text} for at, text in lines]
            ).encode()
        case "srt":
            return "".join(
                f"{i}\n00:00:{at:02d},000 --> 00:00:{at + 5:02d},000\n{text}\n\n"
                for i, (at, text) in enumerate(lines, 1)
            ).encode()
    return "".join(f"Ada: {text}\n" for _, text in lines).encode()


def _faults(options: Sequence[str]) -> Faults:
    """ValueError: a sentence that says what is wrong."""
    faults = Faults()
    known = {each.name for each in fields(Faults) if each.init and each.name != "arrivals"}
    for option in options:
        name, _, text = option.partition("=")
        if name not in known:
            raise ValueError(f"no fault {name!r}; there are {', '.join(sorted(known))}")
        try:
            value = json.loads(text or "true")
        except ValueError:
            raise ValueError(f"{name}: {text!r} is not JSON") from None
        usual = getattr(faults, name)
        wanted = type(usual) if isinstance(usual, bool | dict) else float
        if not (type(value) in (int, float) if wanted is float else isinstance(value, wanted)):
            raise ValueError(f"{name}: {text!r} is not a {wanted.__name__}")
        setattr(faults, name, int(value) if type(usual) is int else value)
    return faults


def main(argv: Sequence[str] | None = None) -> int:
    """Serve made-up assets until Ctrl-C; usage errors exit with 64."""
    parser = argparse.ArgumentParser(
        "python -m retainer.demo.standin",
        description="A local stand-in for the 100ms recording-assets API.",
    )
    parser.add_argument(
        "--port", type=int, default=8100, help="0 takes a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--assets",
        type=int,
        default=60,
        metavar="N",
        help="how many made-up assets to serve (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="another number makes up others (default: %(default)s)"
    )
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="NAME=JSON",
        help='rate_429=0.1, rooms_fail, fail_first={"/media/":[503]}',
    )
    options = parser.parse_args(argv)
    try:
        faults = _faults(options.fault)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 64
    now = datetime.now(UTC)
    standin = StandIn(port=options.port, faults=faults)
    for room in sample_rooms(now, options.seed):
        standin.add_room(room)
    for asset, content in sample_assets(options.assets, now, options.seed):
        standin.add_asset(asset, content or None, hosted=not str(asset["path"]).startswith(UPLOADS))
    with standin:
        print(f"# 100ms stand-in with {options.assets} assets at {standin.url} (Ctrl-C ends it)")
        print(f"export HMS_ACCESS_KEY={standin.access_key}\nexport HMS_SECRET={standin.secret}")
        print(
            f"curl -H 'Authorization: Bearer {standin.ready_token()}' "
            f"'{standin.url}/recording-assets?limit=10'",
            flush=True,
        )
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
