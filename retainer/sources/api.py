"""The 100ms recording-assets API over HTTP (facts: docs/100ms-api.md)."""

from __future__ import annotations

import logging
import random
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import jwt
import tenacity

from retainer.errors import CredentialsRefused, ListingBroken, SourceFailed, SourceGone
from retainer.ports import Body

logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO it would log signed URLs

PAGE = 100
TOKEN_LIFE_SECONDS = 24 * 3600
RENEW_BEFORE_SECONDS = 300
RETRY_BUDGET_SECONDS = 300.0
"""One call is tried again for at most this long; a server that asks for more patience than is left gets none."""
STALL_SECONDS = 60.0
"""A connection that brings nothing for so long counts as broken."""
RESUMES = 3
"""So often in a row a download is gone on with that brings no new byte; then it is given up."""

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Credentials:
    """An app access key with its secret, or a ready-made management token."""

    access_key: str = ""
    secret: str = ""
    token: str = ""

    def __repr__(self) -> str:
        return "Credentials(…)"


class _Token:
    """A management token that is renewed before it ends (HS256; claims as in docs/100ms-api.md)."""

    def __init__(self, credentials: Credentials, clock: Callable[[], float]) -> None:
        self._credentials = credentials
        self._clock = clock
        self._lock = threading.Lock()
        self._token, self._ends = credentials.token, float("inf")
        if not credentials.token:
            self._ends = 0.0

    @property
    def ready_made(self) -> bool:
        return bool(self._credentials.token)

    def get(self) -> str:
        with self._lock:
            now = self._clock()
            if now > self._ends - RENEW_BEFORE_SECONDS:
                start = int(now)
                claims = {"access_key": self._credentials.access_key, "type": "management", "version": 2, "jti": str(uuid.uuid4()),
                          "iat": start, "nbf": start, "exp": start + TOKEN_LIFE_SECONDS}  # fmt: skip
                self._token = jwt.encode(claims, self._credentials.secret, algorithm="HS256")
                self._ends = start + TOKEN_LIFE_SECONDS
            return self._token

    def drop(self, token: str) -> None:
        """Forget a token that the server refused, unless another thread has renewed it already."""
        with self._lock:
            if token == self._token and not self.ready_made:
                self._ends = 0.0


class _Again(Exception):
    """This call may go through later; `patience` is how long the server asked to wait, in seconds."""

    def __init__(self, message: str, patience: float | None = None) -> None:
        super().__init__(message)
        self.patience = patience


def _may_pass(status: int) -> bool:
    """Whether a call that was answered so may go through later."""
    return status in (408, 425, 429) or status >= 500


def _asked_patience(answer: httpx.Response) -> float | None:
    """The seconds a 429 or 503 asks for: from the header, or from the text where only that names them; None for any other answer."""
    if answer.status_code not in (429, 503):
        return None
    header = answer.headers.get("Retry-After", "")
    if header.isascii() and header.isdigit():
        return float(header)
    try:
        answer.read()
    except httpx.HTTPError:
        return None
    found = re.search(r"(?i)\bafter\s+([0-9]+(?:\.[0-9]+)?)\s*(ms|milli|s|min|m\b)?", answer.text[:2000])
    if not found:
        return None
    scale = {"ms": 0.001, "milli": 0.001, "min": 60.0, "m": 60.0}.get((found[2] or "s").lower(), 1.0)
    return float(found[1]) * scale


class HmsApi:
    """Lists assets and rooms, and opens recordings. Safe to use from several threads."""

    def __init__(
        self,
        url: str,
        credentials: Credentials,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        retry_budget: float = RETRY_BUDGET_SECONDS,
        on_wait: Callable[[str], None] = lambda _: None,
    ) -> None:
        held = (credentials.access_key, credentials.secret) if not credentials.token else (credentials.token,)
        if not all(text and text.isascii() and text.isprintable() for text in held):
            raise CredentialsRefused(
                "the credentials for the 100ms API are empty, or have letters in them that cannot be sent",
                hint="check HMS_ACCESS_KEY and HMS_SECRET, or HMS_MANAGEMENT_TOKEN",
            )
        self._base = url.rstrip("/")
        self._token = _Token(credentials, clock)
        self._sleep = sleep
        self._budget = retry_budget
        self._on_wait = on_wait
        limits = httpx.Limits(max_connections=32, max_keepalive_connections=32)
        timeout = httpx.Timeout(STALL_SECONDS, connect=10.0)
        agent = {"User-Agent": "retainer"}
        self._api = httpx.Client(timeout=timeout, limits=limits, headers=agent)
        self._media = httpx.Client(timeout=timeout, limits=limits, headers=agent | {"Accept-Encoding": "identity"}, follow_redirects=True)
        self._date: str | None = None

    def close(self) -> None:
        self._api.close()
        self._media.close()

    def server_time(self) -> datetime:
        if self._date is None:
            self._get("/recording-assets", {"limit": "10"})
        if self._date is None:
            raise SourceFailed("100ms: the server does not tell its time")
        return parsedate_to_datetime(self._date)

    def assets(self, kind: str) -> Iterator[Mapping[str, Any]]:
        yield from self._pages("/recording-assets", {"type": kind})

    def first_page(self) -> Sequence[Mapping[str, Any]]:
        return self._rows(self._get("/recording-assets", {"limit": str(PAGE)}), "/recording-assets")

    def rooms(self) -> Iterator[Mapping[str, Any]]:
        yield from self._pages("/rooms", {})

    def _pages(self, path: str, query: dict[str, str]) -> Iterator[Mapping[str, Any]]:
        start: str | None = None
        cursors: set[str] = set()
        while True:
            try:
                page = self._get(path, query | {"limit": str(PAGE)} | ({"start": start} if start else {}))
            except SourceFailed as error:
                raise ListingBroken(error.message, hint=error.hint) from None
            rows = self._rows(page, path)
            yield from rows
            limit = page.get("limit")
            if len(rows) < (limit if isinstance(limit, int) and 0 < limit <= PAGE else PAGE):
                return
            start = page.get("last")
            if not isinstance(start, str) or not start:
                raise ListingBroken(f"100ms {path}: a full page came without `last`, so the rest cannot be asked for")
            if start in cursors:
                raise ListingBroken(f"100ms {path}: the cursor goes in a circle")
            cursors.add(start)

    @staticmethod
    def _rows(page: Mapping[str, Any], path: str) -> Sequence[Mapping[str, Any]]:
        rows = page.get("data")
        if rows is None and "last" in page:
            return []
        if not isinstance(rows, list):
            raise ListingBroken(f"100ms {path}: an answer has no list of rows in it")
        return [row if isinstance(row, dict) else {} for row in rows]

    def _get(self, path: str, query: dict[str, str]) -> Mapping[str, Any]:
        """One call, tried again within the budget. Raises SourceGone (404), CredentialsRefused (401, 403), SourceFailed."""
        return self._patiently(f"100ms {path}", lambda: self._once(path, query))

    def _patiently(self, what: str, call: Callable[[], Answer]) -> Answer:
        def before_sleep(state: tenacity.RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            self._on_wait(f"{what}: {error}; again in {state.upcoming_sleep:.1f} s")

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.patience if isinstance(error, _Again) else None
            return _backoff(state.attempt_number) if asked is None else asked + random.uniform(0.0, min(1.0, asked))

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Again),
            wait=wait,
            stop=tenacity.stop_before_delay(self._budget) | tenacity.stop_after_attempt(12),
            sleep=self._sleep,
            before_sleep=before_sleep,
            reraise=True,
        )
        try:
            return retrying(call)
        except _Again as error:
            raise SourceFailed(f"{what}: {error}, and went on so for {self._budget:.0f} s or 12 tries", hint="run it again later") from None

    def _once(self, path: str, query: dict[str, str]) -> Mapping[str, Any]:
        for fresh in (False, True):
            token = self._token.get()
            try:
                answer = self._api.get(self._base + path, params=query, headers={"Authorization": f"Bearer {token}"})
            except httpx.HTTPError as error:
                raise _Again(f"the connection failed ({type(error).__name__})") from None
            if answer.status_code == 401 and not fresh and not self._token.ready_made:
                self._token.drop(token)
                continue
            break
        self._date = answer.headers.get("Date") or self._date
        status = answer.status_code
        if status in (401, 403):
            raise CredentialsRefused(
                f"100ms refused the credentials ({status})",
                hint="check HMS_ACCESS_KEY and HMS_SECRET" if not self._token.ready_made else "the management token may have ended; make a new one",
            )
        if status in (404, 410):
            raise SourceGone(f"100ms {path}: {status}, it is not there")
        if _may_pass(status):
            raise _Again(f"it answered {status}", _asked_patience(answer))
        if status != 200:
            raise SourceFailed(f"100ms {path}: it answered {status}")
        try:
            page = answer.json()
        except (ValueError, RecursionError):
            raise _Again("an answer was cut off or is not JSON") from None
        if not isinstance(page, dict):
            raise _Again("an answer is not a JSON object")
        return page

    def open(self, asset_id: str) -> Body:
        answer = self._opened(asset_id, {})
        length = answer.headers.get("Content-Length", "")
        return Body(int(length) if length.isdigit() else None, answer.headers.get("Content-Type", ""), self._pieces(asset_id, answer))

    def _opened(self, asset_id: str, range_asked: Mapping[str, str]) -> httpx.Response:
        """The answer to a presigned URL, a new one each time since they end. Raises SourceGone, SourceFailed."""
        return self._patiently("opening the recording", lambda: self._opened_once(asset_id, range_asked))

    def _opened_once(self, asset_id: str, range_asked: Mapping[str, str]) -> httpx.Response:
        for fresh in (False, True):
            url = self._get(f"/recording-assets/{quote(asset_id, safe='')}/presigned-url", {}).get("url")
            if not isinstance(url, str) or not url.startswith(("https://", "http://")):
                raise SourceFailed("100ms gave no presigned URL for it")
            try:
                answer = self._media.send(self._media.build_request("GET", url, headers=dict(range_asked)), stream=True)
            except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
                raise SourceFailed(f"opening the recording: its presigned URL is of no use ({type(error).__name__})") from None
            except httpx.HTTPError as error:
                raise _Again(f"the connection failed ({type(error).__name__})") from None
            if answer.status_code == 403 and not fresh:
                answer.close()
                continue
            break
        status = answer.status_code
        if status == 200 or (status == 206 and range_asked):
            return answer
        patience = _asked_patience(answer)
        answer.close()
        if status in (404, 410):
            raise SourceGone(f"the recording is gone from 100ms ({status})")
        if _may_pass(status):
            raise _Again(f"the server answered {status}", patience)
        hint = "100ms may only have the right to write to that bucket: declare it as a store" if status == 403 else None
        raise SourceFailed(f"opening the recording: the server answered {status}", hint=hint)

    def _pieces(self, asset_id: str, answer: httpx.Response) -> Iterator[bytes]:
        """The body, to its end. Where it breaks off or stalls it goes on from there, if the server shows that it is still the same file."""
        length, etag = answer.headers.get("Content-Length", ""), answer.headers.get("ETag", "")
        came, tries = 0, 0
        while True:
            try:
                for piece in answer.iter_raw():
                    came, tries = came + len(piece), 0
                    yield piece
                return
            except httpx.HTTPError as error:
                broke = f"reading the recording: it broke off after {came} bytes ({type(error).__name__})"
            finally:
                answer.close()
            tries += 1
            if not length.isdigit() or not etag.startswith('"'):
                raise SourceFailed(f"{broke}, and the server names nothing to go on from", hint="run it again")
            if tries > RESUMES:
                raise SourceFailed(f"{broke}, {RESUMES} times in a row", hint="run it again later")
            self._on_wait(f"{broke}; going on from there")
            self._sleep(_backoff(tries))
            answer = self._opened(asset_id, {"Range": f"bytes={came}-", "If-Range": etag})
            if answer.status_code != 206 or answer.headers.get("Content-Range") != f"bytes {came}-{int(length) - 1}/{length}":
                answer.close()
                raise SourceFailed(f"{broke}, and what the server has now is another file, or it cannot go on in the middle", hint="run it again")


def _backoff(attempt: int) -> float:
    """Seconds before try number `attempt` + 1: twice as long each time, at most a minute, with jitter."""
    return float(min(60.0, 0.5 * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0))

