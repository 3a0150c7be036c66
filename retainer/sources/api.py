"""The 100ms recording-assets API over HTTP (facts: docs/reference/100ms-api.md)."""

from __future__ import annotations

import hashlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from posixpath import basename
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

import jwt

from retainer.errors import (
    CredentialsRefused,
    ListingBroken,
    RetainerError,
    SourceFailed,
    SourceGone,
    SourceRefused,
)
from retainer.lane import lane_of
from retainer.model.moment import read_http_date
from retainer.model.setting import CALLS_AT_ONCE
from retainer.patience import Again, Patience, asked_patience, may_pass
from retainer.ports import AssetPage, Body
from retainer.sources.answers import Answers, Spent, Unanswered
from retainer.sources.connections import Connections, is_local
from retainer.sources.media import Media
from retainer.sources.words import insist, said_in
from retainer.stop import Stop

PAGE = 100
LIST_SECONDS = 12 * 3600.0
"""One list may take so long: ten million rows in pages of 100, at two answers a second."""
IDLE_PAGES = 3
"""So many full pages in a row may hold only rows that were seen before; new recordings can move
what comes next, and not for ever."""
LONGEST_ANSWER = 64 << 20
"""An answer of the API is at most so long, unpacked."""
LONGEST_ERROR = 4000
TOKEN_LIFE_SECONDS = 24 * 3600
RENEW_BEFORE_SECONDS = 300
MINTED_BACK_SECONDS = 60
"""A token is valid from so long ago, since clocks differ."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """An app access key with its secret, or a ready-made management token."""

    access_key: str = ""
    secret: str = ""
    token: str = ""

    def __repr__(self) -> str:
        return "Credentials(…)"


class _Token:
    """A management token that is renewed before it ends (HS256; claims as in
    docs/reference/100ms-api.md)."""

    def __init__(self, credentials: Credentials, clock: Callable[[], float]) -> None:
        self._credentials = credentials
        self._clock = clock
        self._lock = threading.Lock()
        self._ahead = 0.0
        self._token, self._ends = credentials.token, float("inf")
        if not credentials.token:
            self._ends = 0.0

    @property
    def ready_made(self) -> bool:
        return bool(self._credentials.token)

    def get(self) -> str:
        with self._lock:
            now = self._clock() + self._ahead
            if now > self._ends - RENEW_BEFORE_SECONDS:
                start = int(now) - MINTED_BACK_SECONDS
                claims = {
                    "access_key": self._credentials.access_key,
                    "type": "management",
                    "version": 2,
                    "jti": str(uuid.uuid4()),
                    "iat": start,
                    "nbf": start,
                    "exp": start + TOKEN_LIFE_SECONDS,
                }
                self._token = jwt.encode(claims, self._credentials.secret, algorithm="HS256")
                self._ends = start + TOKEN_LIFE_SECONDS
            return self._token

    def drop(self, token: str, date: datetime | None) -> None:
        """Forget a token that the server refused, unless another thread has renewed it already; the
        next is minted by the server's clock."""
        with self._lock:
            if token == self._token and not self.ready_made:
                self._ends = 0.0
                self._ahead = date.timestamp() - self._clock() if date else 0.0

    @property
    def minutes_off(self) -> int:
        """How far this machine's clock was off the server's when a token was refused."""
        return round(abs(self._ahead) / 60)


class _News:
    """Whether the pages of a list still bring rows that were not seen before. Of a long list it
    remembers one id of sixteen."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._pages = self._idle = 0

    def have_ended(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        self._pages += 1
        ids = {hash(str(row.get("id"))) for row in rows}
        if self._pages > 1000:
            ids = {each for each in ids if each % 16 == 0}
        if ids:
            self._idle = 0 if ids - self._seen else self._idle + 1
            self._seen |= ids
        return self._idle >= IDLE_PAGES


def server_time(url: str) -> datetime:
    """100ms's clock from its `Date`: any answer tells it, so no credentials are needed. Raises
    SourceFailed."""
    answers = Answers(Stop())
    try:
        address = f"{url.rstrip('/')}/recording-assets?limit=10"
        date = read_http_date(answers.get(address, {}, LONGEST_ANSWER).headers.get("date"))
    except (Unanswered, ValueError, Spent):
        date = None
    finally:
        answers.close()
    if date is None:
        raise SourceFailed(
            f"100ms at {url} does not tell its time", hint="is it reachable from here?"
        )
    return date


class HmsApi:
    """Lists assets and rooms, and opens recordings. Safe to use from several threads."""

    def __init__(
        self,
        url: str,
        credentials: Credentials,
        *,
        clock: Callable[[], float] = time.time,
        patience: Patience | None = None,
        stop: Stop | None = None,
        media_hosts: Sequence[str] = (),
        at_once: int = CALLS_AT_ONCE,
    ) -> None:
        """`media_hosts`: patterns of the hosts that parts of a recording may lie on, beside its
        own; `at_once`: so many calls at most, those for the bytes of recordings aside."""
        held = (
            (credentials.access_key, credentials.secret)
            if not credentials.token
            else (credentials.token,)
        )
        if not all(text and text.isascii() and text.isprintable() for text in held):
            raise CredentialsRefused(
                "the credentials for the 100ms API are empty, or have letters in them that cannot "
                "be sent",
                hint="check HMS_ACCESS_KEY and HMS_SECRET, or HMS_MANAGEMENT_TOKEN",
            )
        self._base, self._held = url.rstrip("/"), held[0]
        self._token = _Token(credentials, clock)
        self._stop = stop or Stop()
        self._patience = patience or Patience(sleep=self._stop.pause)
        self._lane = lane_of(self._base, at_once)
        self._answers = Answers(self._stop)
        self._connections = Connections(self._stop)
        self._media = Media(self._connections, self._patience, is_local(self._base), media_hosts)
        self._date: str | None = None

    def hasty(self) -> HmsApi:
        """The same, over the same connections, which soon gives up what fails, unless 100ms asks to
        wait."""
        other = copy(self)
        other._patience = self._patience.hasty()
        other._media = self._media.with_patience(other._patience)
        return other

    def close(self) -> None:
        self._answers.close()
        self._connections.close()

    def server_time(self) -> datetime:
        if self._date is None:
            self._get("/recording-assets", {"limit": "10"})
        date = read_http_date(self._date)
        if date is None:
            raise SourceFailed("100ms: the server does not tell its time")
        return date

    def customer(self) -> str | None:
        try:
            rows = self._rows(self._once("/rooms", {"limit": "10"}, []), "/rooms")
        except (Again, RetainerError):
            return None
        told = {row.get("customer_id") for row in rows}
        one = told.pop() if len(told) == 1 else None
        return one if isinstance(one, str) and one else None

    @property
    def whose(self) -> str:
        return hashlib.sha256(repr((self._base, self._held)).encode()).hexdigest()

    def assets(self, kind: str | None, start: str | None = None) -> Iterator[AssetPage]:
        return self._pages("/recording-assets", {"type": kind} if kind else {}, start)

    def honours_type(self, kind: str) -> bool:
        page = self._get("/recording-assets", {"type": kind, "limit": "10"})
        return all(row.get("type") == kind for row in self._rows(page, "/recording-assets"))

    def first_page(self) -> Sequence[Mapping[str, Any]]:
        return self._rows(self._get("/recording-assets", {"limit": str(PAGE)}), "/recording-assets")

    def rooms(self, *, enabled: bool = True) -> Iterator[Mapping[str, Any]]:
        for page in self._pages("/rooms", {"enabled": "true" if enabled else "false"}):
            yield from page.rows

    def room(self, room_id: str) -> Mapping[str, Any] | None:
        return self._one(f"/rooms/{quote(room_id, safe='')}")

    def template(self, template_id: str) -> Mapping[str, Any] | None:
        return self._one(f"/templates/{quote(template_id, safe='')}")

    def _one(self, path: str) -> Mapping[str, Any] | None:
        try:
            return self._get(path, {})
        except SourceGone:
            return None

    def _pages(
        self, path: str, query: dict[str, str], start: str | None = None
    ) -> Iterator[AssetPage]:
        cursors: set[str] = set()
        ends = time.monotonic() + LIST_SECONDS
        news = _News()
        while True:
            self._stop.check()
            if time.monotonic() > ends:
                raise ListingBroken(
                    f"100ms {path}: the list did not end within {LIST_SECONDS / 3600:.0f} hours",
                    hint="run it again later",
                )
            try:
                page = self._get(
                    path, query | {"limit": str(PAGE)} | ({"start": start} if start else {})
                )
            except SourceFailed as error:
                raise ListingBroken(error.message, hint=error.hint) from None
            rows = self._rows(page, path)
            if news.have_ended(rows):
                raise ListingBroken(
                    f"100ms {path}: {IDLE_PAGES} pages in a row brought nothing new, so the list "
                    "has no end"
                )
            yield AssetPage(start, rows)
            limit = page.get("limit")
            if len(rows) < (limit if isinstance(limit, int) and 0 < limit <= PAGE else PAGE):
                return
            start = page.get("last")
            if not isinstance(start, str) or not start:
                raise ListingBroken(
                    f"100ms {path}: a full page came without `last`, so the rest cannot be asked "
                    "for"
                )
            if start in cursors:
                raise ListingBroken(f"100ms {path}: the cursor goes in a circle")
            cursors.add(start)

    @staticmethod
    def _rows(page: Mapping[str, Any], path: str) -> Sequence[Mapping[str, Any]]:
        rows = page.get("data")
        if rows is None and {"data", "last"} & page.keys():
            return []  # so an empty list is written in some languages
        if not isinstance(rows, list):
            raise ListingBroken(f"100ms {path}: an answer has no list of rows in it")
        return [row if isinstance(row, dict) else {} for row in rows]

    def _get(self, path: str, query: dict[str, str]) -> Mapping[str, Any]:
        """One call, tried again within the budget. Raises SourceGone (404), CredentialsRefused
        (401, 403), SourceFailed."""
        queued: list[float] = []
        return insist(
            self._patience,
            f"100ms {path}",
            lambda: self._once(path, query, queued),
            lambda: sum(queued),
        )

    def _once(self, path: str, query: dict[str, str], queued: list[float]) -> Mapping[str, Any]:
        """`queued`: takes the seconds in which other calls were under way."""
        address = self._base + path + (f"?{urlencode(query)}" if query else "")
        for fresh in (False, True):
            token = self._token.get()
            try:
                with self._lane as seconds:
                    queued.append(seconds)
                    answer = self._answers.get(
                        address, {"Authorization": f"Bearer {token}"}, LONGEST_ANSWER
                    )
            except Spent as error:
                raise SourceFailed(f"100ms {path}: {error}") from None
            except ValueError:
                raise SourceFailed(
                    f"100ms {path}: its `url` in retainer.yaml is no address of a server"
                ) from None
            except Unanswered as error:
                raise Again(f"the connection failed ({error})", nobody=error.nobody) from None
            if answer.status == 401 and not fresh and not self._token.ready_made:
                self._token.drop(token, read_http_date(answer.headers.get("Date")))
                continue
            break
        self._date = answer.headers.get("Date") or self._date
        status = answer.status
        text = answer.content[:LONGEST_ERROR].decode(errors="replace") if status != 200 else ""
        said = f": {told}" if (told := said_in(text)) else ""
        self._lane.ended(busy=status == 429)
        if status in (401, 403):
            hint = "check HMS_ACCESS_KEY and HMS_SECRET"
            if self._token.ready_made:
                hint = "the management token may have ended; make a new one"
            elif (off := self._token.minutes_off) > 1:
                hint += f", and this machine's clock: it is {off} minutes off that of 100ms"
            raise CredentialsRefused(f"100ms refused the credentials ({status}{said})", hint=hint)
        if status in (404, 410):
            raise SourceGone(f"100ms {path}: {status}, it is not there{said}")
        if may_pass(status):
            patience = asked_patience(status, answer.headers, lambda: text)
            raise Again(f"it answered {status}", patience)
        if status != 200:
            raise SourceFailed(f"100ms {path}: it answered {status}{said}")
        try:
            page = json.loads(answer.content)
        except (ValueError, RecursionError):
            raise Again("an answer was cut off or is not JSON") from None
        if not isinstance(page, dict):
            raise Again("an answer is not a JSON object")
        return page

    def open(self, asset_id: str) -> Body:
        return self._media.body("the recording", lambda: self._presigned(asset_id), anywhere=True)

    def open_beside(self, address: str) -> Body:
        return self._media.body(
            unquote(basename(urlsplit(address).path))[-80:], lambda: address, anywhere=False
        )

    def has_more(self, asset_id: str, length: int) -> bool:
        return self._media.has_more("the recording", lambda: self._presigned(asset_id), length)

    def may_lead(self, page: str, address: str) -> bool:
        return self._media.may_lead(page, address)

    def _presigned(self, asset_id: str) -> str:
        try:
            url = self._get(f"/recording-assets/{quote(asset_id, safe='')}/presigned-url", {}).get(
                "url"
            )
        except CredentialsRefused as error:
            # One recording that is refused must not keep the others from being copied in time: are
            # the credentials refused elsewhere too?
            self._get("/recording-assets", {"limit": "10"})
            told = error.message.partition("(")[2].rpartition(")")[0]
            raise SourceRefused(
                f"100ms refuses this recording, and takes the credentials for others ({told})",
                hint="does it belong to another workspace, or may 100ms not read its bucket?",
            ) from None
        if (
            not isinstance(url, str)
            or not url.lower().startswith(("https://", "http://"))
            or len(url) > 16_384
        ):
            raise SourceFailed("100ms gave no presigned URL for it")
        return url
