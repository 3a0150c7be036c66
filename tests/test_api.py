"""The 100ms client against the stand-in over real HTTP: everything that is listed comes, or the
listing says that it broke."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import re
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import certifi
import jwt
import pytest

from retainer.demo.standin import ALWAYS, ERROR_BODY, HOSTED, Faults, StandIn
from retainer.errors import (
    CredentialsRefused,
    ListingBroken,
    RetainerError,
    SourceFailed,
    SourceGone,
    SourceRefused,
)
from retainer.model.rule import ASSET_TYPES
from retainer.patience import BUDGET_SECONDS, Patience
from retainer.ports import Body
from retainer.sources.answers import Answers
from retainer.sources.api import (
    MINTED_BACK_SECONDS,
    RENEW_BEFORE_SECONDS,
    TOKEN_LIFE_SECONDS,
    Credentials,
    HmsApi,
)
from retainer.sources.media import RESUMES

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
SECRET = "a-secret-that-nobody-may-ever-read-in-a-message"
BODY = bytes(range(256)) * 40
_LEAKS = re.compile(rf"{SECRET}|eyJ[\w-]|X-Signature|X-Expires|/media/|Bearer ")


class Witness(StandIn):
    """The stand-in, which notes the tokens that it was shown."""

    def __init__(self, **options: Any) -> None:
        super().__init__(secret=SECRET, **options)
        self.tokens: list[str] = []

    def _check_token(self, header: str) -> None:
        self.tokens.append(header.removeprefix("Bearer "))
        super()._check_token(header)


class Lab:
    """The stand-in and its clients, at one clock that `at` moves. Nobody really sleeps: `slept`
    tells for how long they would have."""

    def __init__(self) -> None:
        self.at = NOW
        self.server = Witness(now=lambda: self.at)
        self.faults: Faults = self.server.faults
        self.slept: list[float] = []
        self.told: list[str] = []
        self.clients: list[HmsApi] = []

    def client(
        self,
        credentials: Credentials | None = None,
        *,
        url: str | None = None,
        budget: float = BUDGET_SECONDS,
        **options: Any,
    ) -> HmsApi:
        credentials = credentials or Credentials(access_key=self.server.access_key, secret=SECRET)
        options.setdefault("clock", lambda: self.at.timestamp())
        api = HmsApi(
            url or self.server.url,
            credentials,
            patience=Patience(budget, sleep=self.slept.append, on_wait=self.told.append),
            **options,
        )
        self.clients.append(api)
        return api

    def fill(self, count: int, type: str = "chat") -> set[str]:
        ids = {f"{type}{number:05d}" for number in range(count)}
        for id in ids:
            self.server.add_asset(an_asset(id, type=type))
        return ids

    def asked(self, part: str = "") -> int:
        """How many requests had this in their path."""
        return sum(part in each.path for each in self.server.requests)


def an_asset(id: str = "a1", **facts: Any) -> dict[str, Any]:
    usual = {
        "type": "chat",
        "status": "completed",
        "room_id": "r1",
        "path": f"{HOSTED}/a.mp4",
        "size": len(BODY),
    }
    return {"id": id, **usual, "created_at": "2026-11-20T00:00:00Z", **facts}


@pytest.fixture(scope="module", autouse=True)
def one_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No TLS is spoken here, and reading all roots would cost every client 90 ms: one is enough."""
    file = tmp_path_factory.mktemp("roots") / "root.pem"
    before, end, _ = Path(certifi.where()).read_text().partition("-----END CERTIFICATE-----")
    file.write_text(before + end + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(file))
        yield


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    with lab.server:
        yield lab
    for client in lab.clients:
        client.close()
    assert not [each for each in lab.told if _LEAKS.search(each)]


@contextlib.contextmanager
def fails(kind: type[RetainerError]) -> Iterator[list[RetainerError]]:
    """It fails just so, with a sentence, and nothing that is told of it, to whatever depth,
    contains a secret."""
    caught: list[RetainerError] = []
    with pytest.raises(kind) as info:
        yield caught
    error = info.value
    caught.append(error)
    assert type(error) is kind
    assert error.message
    assert error.hint is None or error.hint
    told = "\n".join(
        [
            error.message,
            error.hint or "",
            str(error),
            repr(error),
            *traceback.format_exception_only(error),
        ]
    )
    while error.__cause__ is not None or (
        error.__context__ is not None and not error.__suppress_context__
    ):
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
        told += f"\n{error}\n{error!r}"
    assert not _LEAKS.search(told), told


Answer = tuple[int, dict[str, str], bytes | Iterator[bytes | threading.Event]]


@contextlib.contextmanager
def scripted(answer: Callable[[str, Any], Answer]) -> Iterator[str]:
    """A server that answers what the script says, for what the stand-in never does; its base.
    Without a Content-Length of its own it adds one.

    A body of pieces stalls at an event until that is set.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            status, headers, body = answer(self.path, self.headers)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if not {"Content-Length", "Transfer-Encoding"} & headers.keys():
                self.send_header("Content-Length", str(len(body)))
            else:
                self.close_connection = True
            self.end_headers()
            for piece in [body] if isinstance(body, bytes) else body:
                if isinstance(piece, threading.Event):
                    piece.wait(10)
                else:
                    self.wfile.write(piece)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def said(value: Any, status: int = 200, **headers: str) -> Answer:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return status, {"Content-Type": "application/json", **named}, json.dumps(value).encode()


def rows_of(api: HmsApi, kind: str) -> Iterator[Mapping[str, Any]]:
    """Every asset of one type, page after page."""
    return (row for page in api.assets(kind) for row in page.rows)


def whole(body: Body) -> bytes:
    return b"".join(body.chunks)


# ── Pages ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "count, calls", [(0, 1), (1, 1), (99, 1), (100, 2), (101, 2), (200, 3), (250, 3)]
)
def test_every_asset_of_a_type_comes_page_by_page(lab: Lab, count: int, calls: int) -> None:
    ids = lab.fill(count)
    lab.fill(7, "summary")
    came = [row["id"] for row in rows_of(lab.client(), "chat")]
    assert (set(came), len(came)) == (ids, count)
    assert lab.asked("/recording-assets") == calls


def test_pages_are_as_large_as_100ms_allows_and_each_begins_where_the_last_one_ended(
    lab: Lab,
) -> None:
    lab.fill(250)
    list(rows_of(lab.client(), "chat"))
    assert {each.query["limit"] for each in lab.server.requests} == {"100"}
    starts = [each.query.get("start") for each in lab.server.requests]
    assert starts[0] is None
    assert len(set(starts)) == 3


def test_rooms_come_page_by_page(lab: Lab) -> None:
    for number in range(120):
        lab.server.add_room({"id": f"r{number}", "name": f"room {number}", "template": "default"})
    assert {row["id"] for row in lab.client().rooms()} == {f"r{number}" for number in range(120)}
    assert lab.asked("/rooms") == 2


def test_the_first_page_is_one_call_for_any_type(lab: Lab) -> None:
    lab.fill(60)
    lab.server.add_asset(an_asset("new", type="whiteboard"))
    assert {row["type"] for row in lab.client().first_page()} == {"chat", "whiteboard"}
    assert [each.query for each in lab.server.requests] == [{"limit": "100"}]


def test_rows_that_a_page_repeats_pass_through(lab: Lab) -> None:
    lab.faults.repeat_rows = 10
    ids = lab.fill(250)
    came = [row["id"] for row in rows_of(lab.client(), "chat")]
    assert set(came) == ids
    assert len(came) > 250


def test_assets_that_arrive_while_a_list_is_read_do_not_disturb_it(lab: Lab) -> None:
    ids = lab.fill(250)
    lab.faults.arrivals = {0: [(an_asset(f"new{number}"), None) for number in range(30)]}
    came = [row["id"] for row in rows_of(lab.client(), "chat")]
    assert len(came) == len(set(came))
    assert set(came) >= ids


def test_rows_come_as_100ms_gives_them(lab: Lab) -> None:
    row = an_asset("a1", size="12", metadata={"num_layers": "4"}, path=None, thumbnails=["x"])
    lab.server.add_asset(row)
    assert list(rows_of(lab.client(), "chat")) == [row]


@pytest.mark.parametrize("broken", ["text", 7, None, [1]])
def test_a_row_that_is_no_mapping_comes_as_an_empty_one(lab: Lab, broken: Any) -> None:
    lab.fill(3)
    lab.faults.broken_rows = {"chat00001": broken}
    assert sorted(len(row) for row in rows_of(lab.client(), "chat")) == [0, 7, 7]


def test_a_smaller_page_than_asked_for_is_a_full_one_when_the_answer_says_so() -> None:
    pages = {None: (["a", "b"], "b"), "b": (["c", "d"], "d"), "d": (["e"], "e")}

    def answer(path: str, _: Any) -> Answer:
        ids, last = pages[found[1] if (found := re.search(r"start=(\w+)", path)) else None]
        return said({"limit": 2, "data": [{"id": id} for id in ids], "last": last})

    with scripted(answer) as base:
        assert [row["id"] for row in HmsApi(base, Credentials(token="t")).rooms()] == [
            "a",
            "b",
            "c",
            "d",
            "e",
        ]


FULL = [{"id": str(number)} for number in range(100)]


@pytest.mark.parametrize(
    "page, says",
    [
        ({"limit": 100, "data": FULL, "last": "same"}, "circle"),
        ({"limit": 100, "data": FULL}, "without `last`"),
        ({"limit": 100, "data": FULL, "last": ""}, "without `last`"),
        ({"limit": 100, "data": FULL, "last": 7}, "without `last`"),
        ({"data": FULL}, "without `last`"),
        ({"limit": 100}, "no list of rows"),
        ({"limit": 100, "data": "x", "last": ""}, "no list of rows"),
        ({"limit": 100, "data": {"a": 1}, "last": ""}, "no list of rows"),
        ({}, "no list of rows"),
        ([], "not a JSON object"),
        (7, "not a JSON object"),
    ],
)
def test_a_list_that_cannot_be_followed_to_its_end_breaks(lab: Lab, page: Any, says: str) -> None:
    with scripted(lambda *_: said(page)) as base, fails(ListingBroken) as caught:
        list(lab.client(url=base).rooms())
    assert says in caught[0].message


@pytest.mark.parametrize(
    "page",
    [
        {"limit": 100, "data": None, "last": ""},
        {"limit": 100, "data": [], "last": ""},
        {"data": []},
    ],
)
def test_an_empty_list_is_an_empty_list(lab: Lab, page: Any) -> None:
    with scripted(lambda *_: said(page)) as base:
        assert list(lab.client(url=base).rooms()) == []


def test_cursors_that_go_round_in_a_longer_circle_break_the_list(lab: Lab) -> None:
    follows = {None: "a", "a": "b", "b": "c", "c": "a"}

    def answer(path: str, _: Any) -> Answer:
        found = re.search(r"start=(\w+)", path)
        return said({"limit": 100, "data": FULL, "last": follows[found[1] if found else None]})

    with scripted(answer) as base, fails(ListingBroken):
        list(lab.client(url=base).rooms())


# ── Tokens ────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_is_minted_with_the_claims_that_100ms_documents(lab: Lab) -> None:
    lab.client().first_page()
    at_any_time = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}
    claims = jwt.decode(lab.server.tokens[0], SECRET, algorithms=["HS256"], options=at_any_time)
    assert jwt.get_unverified_header(lab.server.tokens[0])["alg"] == "HS256"
    start = int(NOW.timestamp()) - MINTED_BACK_SECONDS
    assert claims.pop("jti")
    usual = {"access_key": lab.server.access_key, "type": "management", "version": 2}
    assert claims == usual | {"iat": start, "nbf": start, "exp": start + TOKEN_LIFE_SECONDS}


def test_a_token_is_used_again_until_it_is_renewed_before_its_end(lab: Lab) -> None:
    api = lab.client()
    life = TOKEN_LIFE_SECONDS - MINTED_BACK_SECONDS - RENEW_BEFORE_SECONDS
    for seconds in (0, life, life + 1):
        lab.at = NOW + timedelta(seconds=seconds)
        api.first_page()
    first, second, third = lab.server.tokens
    assert first == second != third


def test_a_list_that_outlives_its_token_goes_on_with_another(lab: Lab) -> None:
    lab.fill(250)
    rows = rows_of(lab.client(), "chat")
    came = [next(rows) for _ in range(100)]
    lab.at += timedelta(days=3)
    came += rows
    assert len({row["id"] for row in came}) == 250
    assert len(set(lab.server.tokens)) == 2
    assert len(lab.server.tokens) == 3


def test_threads_share_one_token(lab: Lab) -> None:
    lab.fill(10)
    api = lab.client()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: api.first_page(), range(24)))
    assert len(set(lab.server.tokens)) == 1


def test_every_token_has_an_id_of_its_own(lab: Lab) -> None:
    for _ in range(2):
        lab.client().first_page()
    assert (
        len(
            {
                jwt.decode(token, options={"verify_signature": False})["jti"]
                for token in lab.server.tokens
            }
        )
        == 2
    )


def test_a_token_that_the_server_refuses_is_replaced_once(lab: Lab) -> None:
    api = lab.client()
    api.first_page()
    lab.server.revoked.add(lab.server.tokens[0])
    api.first_page()
    assert len(set(lab.server.tokens)) == 2
    assert lab.slept == []


@pytest.mark.parametrize("minutes", [-600, -30, 30, 600])
def test_a_clock_that_is_off_does_not_pass_for_a_wrong_secret(lab: Lab, minutes: int) -> None:
    """Issue 13: a token is minted once more by the server's `Date`."""
    off = timedelta(minutes=minutes)
    api = lab.client(clock=lambda: (lab.at + off).timestamp())
    api.first_page()
    api.first_page()
    assert len(lab.server.requests) <= 3
    lab.server.secret = "another-secret-than-the-one-that-the-client-has"
    with fails(CredentialsRefused) as caught:
        api.first_page()
    assert f"clock: it is {abs(minutes)} minutes off" in (caught[0].hint or "")


def test_a_ready_made_token_is_sent_as_it_is(lab: Lab) -> None:
    token = lab.server.ready_token()
    api = lab.client(Credentials(token=token))
    api.first_page()
    lab.at += timedelta(days=6)
    api.first_page()
    assert lab.server.tokens == [token, token]


def test_a_ready_made_token_that_has_ended_is_told_as_such(lab: Lab) -> None:
    api = lab.client(Credentials(token=lab.server.ready_token(timedelta(hours=1))))
    lab.at += timedelta(hours=1)
    with fails(CredentialsRefused) as caught:
        list(rows_of(api, "chat"))
    assert "make a new one" in (caught[0].hint or "")
    assert (len(lab.server.requests), lab.slept) == (1, [])


@pytest.mark.parametrize(
    "call",
    [
        lambda api: list(rows_of(api, "chat")),
        lambda api: list(api.rooms()),
        lambda api: api.first_page(),
        lambda api: api.open("a1"),
        lambda api: api.server_time(),
    ],
    ids=["assets", "rooms", "first page", "open", "time"],
)
def test_a_wrong_secret_is_refused_without_being_told(
    lab: Lab, call: Callable[[HmsApi], Any]
) -> None:
    lab.server.secret = "another-secret-than-the-one-that-the-client-has"
    with fails(CredentialsRefused) as caught:
        call(lab.client())
    assert caught[0].message.startswith("100ms refused the credentials (401: ")
    assert "secret" not in caught[0].message
    assert "HMS_SECRET" in (caught[0].hint or "")
    assert lab.slept == []
    of_one = any("presigned" in asked.path for asked in lab.server.requests)
    assert len(lab.server.requests) == (4 if of_one else 2), "and the list is asked too"


@pytest.mark.parametrize("status", [401, 403])
def test_one_recording_that_is_refused_does_not_speak_for_all(lab: Lab, status: int) -> None:
    lab.faults.fail_first = {"/recording-assets/a1/presigned-url": [status] * 20}
    with fails(SourceRefused) as caught:
        lab.client().open("a1")
    assert "refuses this recording, and takes the credentials for others" in caught[0].message


def test_a_wrong_access_key_is_refused(lab: Lab) -> None:
    with fails(CredentialsRefused):
        lab.client(Credentials(access_key="another", secret=SECRET)).first_page()


def test_credentials_that_lack_a_right_are_refused(lab: Lab) -> None:
    lab.faults.fail_first = {"/rooms": [403] * 20}
    with fails(CredentialsRefused):
        list(lab.client().rooms())
    assert (len(lab.server.requests), lab.slept) == (1, [])


@pytest.mark.parametrize(
    "credentials",
    [
        Credentials(),
        Credentials(access_key="k"),
        Credentials(token="ü"),
        Credentials(token="eyJhbGci\neyJh"),
    ],
    ids=["none", "no secret", "not ASCII", "two lines"],
)
def test_credentials_that_cannot_be_sent_are_refused(lab: Lab, credentials: Credentials) -> None:
    with fails(CredentialsRefused):
        lab.client(credentials).first_page()
    assert lab.slept == []


def test_credentials_do_not_show_themselves() -> None:
    shown = (
        f"{Credentials('key', SECRET, 'token')!r} {Credentials('key', SECRET, 'token')} "
        f"{[Credentials('key', SECRET)]}"
    )
    assert SECRET not in shown
    assert "token" not in shown


# ── Patience ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("header", [False, True], ids=["in its text", "in its header"])
def test_a_429_is_waited_out_for_as_long_as_it_asks(lab: Lab, header: bool) -> None:
    lab.fill(3)
    lab.faults.retry_after, lab.faults.retry_after_header = 45, header
    lab.faults.fail_first = {"/recording-assets": [429]}
    assert len(list(rows_of(lab.client(), "chat"))) == 3
    assert len(lab.slept) == 1
    assert 45 <= lab.slept[0] <= 46


def test_no_more_calls_than_allowed_are_under_way_at_once(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.fill(3)
    under_way, most, counting = 0, 0, threading.Lock()
    ask = Answers.get

    def counted(*words: Any) -> Any:
        nonlocal under_way, most
        with counting:
            under_way += 1
            most = max(most, under_way)
        try:
            time.sleep(0.01)
            return ask(*words)
        finally:
            with counting:
                under_way -= 1

    monkeypatch.setattr(Answers, "get", counted)
    api = lab.client(at_once=3)
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda _: list(rows_of(api, "chat")), range(24)))
    assert most == 3


def test_after_a_429_half_as_many_go_at_once_until_more_go_through(lab: Lab) -> None:
    """Many lists share what one account may ask; so do clients of it in one process."""
    lab.fill(3)
    lab.faults.fail_first = {"/recording-assets": [429, 429]}
    api, other = lab.client(at_once=8), lab.client(at_once=8)
    assert api._lane.limit == 8
    list(rows_of(api, "chat"))
    assert api._lane.limit == other._lane.limit == 2
    for _ in range(4):
        list(rows_of(other, "chat"))
    assert api._lane.limit > 2
    for _ in range(60):
        list(rows_of(other, "chat"))
    assert api._lane.limit == 8


def test_to_wait_for_other_calls_is_not_to_wait_for_a_server_that_fails(lab: Lab) -> None:
    """It would be given up with few tries where many calls share what is left of the room."""
    lab.fill(3)
    lab.faults.fail_first = {"/recording-assets": [500]}
    api = lab.client(at_once=1, budget=1.0)
    with ThreadPoolExecutor(1) as pool:
        with api._lane:
            listed = pool.submit(lambda: list(rows_of(api, "chat")))
            time.sleep(1.2)
        assert len(listed.result()) == 3


def test_lists_at_once_of_a_server_that_takes_few_calls_in_a_second_are_whole(lab: Lab) -> None:
    ids = lab.fill(250)
    lab.faults.most_a_second = 15
    api = HmsApi(
        lab.server.url,
        Credentials(access_key=lab.server.access_key, secret=SECRET),
        clock=lambda: lab.at.timestamp(),
        patience=Patience(),
    )
    with contextlib.closing(api), ThreadPoolExecutor(8) as pool:
        lists = list(pool.map(lambda _: list(rows_of(api, "chat")), range(8)))
    assert lab.faults.counts["most_a_second"] > 0
    assert all({row["id"] for row in rows} == ids for rows in lists)
    assert api._lane.limit < 16


@pytest.mark.parametrize(
    "text, header, low, high",
    [
        ("rate limit exceeded, retry after 45 seconds", None, 45, 46),
        ("retry after 45 seconds", "7", 7, 8),
        ("", "7", 7, 8),
        ("", "0", 0.25, 0.5),
        ("Retry after 1.5s", None, 1.5, 2.5),
        ("retry after 500 ms", None, 0.5, 1),
        ("retry after 500 milliseconds", None, 0.5, 1),
        ("retry after 2 minutes", None, 120, 121),
        ("retry after 2 min", None, 120, 121),
        ("retry after 2m", None, 120, 121),
        ("retry after 30", None, 30, 31),
        ("slow down", None, 0.25, 0.5),
        ("", "Sun, 22 Nov 2026 12:00:30 GMT", 0.25, 0.5),
        ("", "soon", 0.25, 0.5),
        ("", "-5", 0.25, 0.5),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_the_patience_that_is_asked_for_is_read_from_header_or_text(
    lab: Lab, status: int, text: str, header: str | None, low: float, high: float
) -> None:
    answers = [
        said({"message": text}, status, **({"Retry_After": header} if header else {})),
        said({"data": []}),
    ]
    with scripted(lambda *_: answers.pop(0)) as base:
        list(lab.client(url=base).rooms())
    assert len(lab.slept) == 1
    assert low <= lab.slept[0] <= high


def test_a_500_does_not_say_how_long_to_wait(lab: Lab) -> None:
    answers = [said({"message": "retry after 200 seconds"}, 500), said({"data": []})]
    with scripted(lambda *_: answers.pop(0)) as base:
        list(lab.client(url=base).rooms())
    assert lab.slept[0] <= 0.5


def test_more_patience_than_the_budget_is_not_given(lab: Lab) -> None:
    lab.faults.retry_after = 301
    lab.faults.fail_first = {"/recording-assets": [429]}
    with fails(ListingBroken) as caught:
        list(rows_of(lab.client(), "chat"))
    assert "429" in caught[0].message
    assert (lab.slept, len(lab.server.requests)) == ([], 1)


def test_the_budget_can_be_smaller(lab: Lab) -> None:
    lab.faults.rate_429 = 1.0
    lab.faults.retry_after = 20
    with fails(ListingBroken):
        list(rows_of(lab.client(budget=5.0), "chat"))
    assert lab.slept == []


def test_where_nobody_is_there_it_is_given_up_in_15_seconds(lab: Lab) -> None:
    with fails(ListingBroken) as told:
        list(rows_of(lab.client(url="http://127.0.0.1:9/v2"), "chat"))
    assert "the connection failed (ConnectError), and went on so for 15 s" in str(told[0])
    assert max(lab.slept) <= 15  # nobody really waits here, so that only single pauses count


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again_with_growing_pauses(lab: Lab, status: int) -> None:
    lab.fill(3)
    lab.faults.retry_after = 0
    lab.faults.fail_first = {"/recording-assets": [status] * 3}
    assert len(list(rows_of(lab.client(), "chat"))) == 3
    assert len(lab.slept) == 3
    if status != 429:
        assert [
            low <= pause <= 2 * low for pause, low in zip(lab.slept, (0.25, 0.5, 1.0), strict=True)
        ] == [True] * 3


@pytest.mark.parametrize("status", [301, 400, 404, 410, 418])
def test_what_will_not_pass_is_not_tried_again(lab: Lab, status: int) -> None:
    lab.faults.fail_first = {"/recording-assets": [status]}
    with fails(ListingBroken) as caught:
        list(rows_of(lab.client(), "chat"))
    assert str(status) in caught[0].message
    assert (lab.slept, len(lab.server.requests)) == ([], 1)


def test_a_server_that_fails_for_good_breaks_the_list_after_12_tries(lab: Lab) -> None:
    lab.faults.rate_500 = 1.0
    with fails(ListingBroken) as caught:
        list(rows_of(lab.client(), "chat"))
    assert caught[0].hint == "run it again later"
    assert len(lab.server.requests) == 12
    assert len(lab.slept) == 11
    assert max(lab.slept) <= 60


def test_each_page_has_the_whole_budget(lab: Lab) -> None:
    lab.fill(250)
    lab.faults.fail_first = {"limit=100": [500] * 8, "start=": [500] * 8}
    assert len(list(rows_of(lab.client(), "chat"))) == 250
    assert len(lab.slept) == 16


def test_dropped_connections_are_tried_again(lab: Lab) -> None:
    lab.fill(3)
    lab.faults.drop_first = 2
    assert len(list(rows_of(lab.client(), "chat"))) == 3
    assert len(lab.slept) == 2


def test_a_server_that_drops_everything_breaks_the_list(lab: Lab) -> None:
    lab.faults.drop_first = ALWAYS
    with fails(ListingBroken) as caught:
        list(rows_of(lab.client(), "chat"))
    assert "connection" in caught[0].message


def test_a_server_that_is_not_there_breaks_the_list(lab: Lab) -> None:
    with scripted(lambda *_: said({})) as base:
        pass
    with fails(ListingBroken):
        list(lab.client(url=base).rooms())


def test_an_answer_cut_in_the_middle_is_asked_for_again(lab: Lab) -> None:
    ids = lab.fill(150)
    lab.faults.cut_lists = 1
    assert {row["id"] for row in rows_of(lab.client(), "chat")} == ids
    assert len(lab.slept) == 1


def test_answers_that_are_always_cut_break_the_list(lab: Lab) -> None:
    lab.fill(150)
    lab.faults.cut_lists = ALWAYS
    with fails(ListingBroken) as caught:
        list(rows_of(lab.client(), "chat"))
    assert "cut off" in caught[0].message


@pytest.mark.parametrize(
    "answer",
    [
        (200, {"Content-Type": "text/html"}, b"<html>Back in a moment</html>"),
        (200, {}, b""),
        (200, {}, b'{"data": [{"id": "\xff"}]}'),
        (200, {"Content-Encoding": "gzip"}, b"this is no gzip"),
        (302, {"Location": "/elsewhere"}, b""),
        (200, {"Content-Length": "1000"}, b'{"data": []}'),
        (204, {}, b""),
    ],
    ids=[
        "HTML",
        "nothing",
        "not UTF-8",
        "broken gzip",
        "a redirect",
        "less than its length",
        "no content",
    ],
)
def test_an_answer_that_is_no_list_breaks_the_list(lab: Lab, answer: Answer) -> None:
    with scripted(lambda *_: answer) as base, fails(ListingBroken):
        list(lab.client(url=base, budget=20.0).rooms())


def test_what_came_before_a_list_broke_has_come(lab: Lab) -> None:
    lab.fill(250)
    lab.faults.list_fail = {"chat": 1}
    came = []
    with fails(ListingBroken):
        for row in rows_of(lab.client(), "chat"):
            came.append(row["id"])
    assert len(came) == 100


def test_one_list_that_breaks_leaves_the_others_alone(lab: Lab) -> None:
    lab.fill(5)
    lab.fill(5, "summary")
    lab.faults.list_fail = {"chat": 0}
    lab.faults.rooms_fail = True
    api = lab.client()
    assert len(list(rows_of(api, "summary"))) == 5
    for broken in (lambda: list(rows_of(api, "chat")), lambda: list(api.rooms())):
        with fails(ListingBroken):
            broken()


def test_a_bad_day_loses_nothing(lab: Lab) -> None:
    """A fifth of all calls fail in one way or another, on nine lists at the same time."""
    kinds = {kind: lab.fill(230, kind) for kind in (*ASSET_TYPES, "x-new")}
    lab.faults.rate_429 = lab.faults.rate_500 = lab.faults.drop_rate = 0.07
    lab.faults.repeat_rows, lab.faults.cut_lists = 3, 4
    api = lab.client()
    with ThreadPoolExecutor(9) as pool:
        found = dict(
            zip(
                kinds,
                pool.map(lambda kind: {row["id"] for row in rows_of(api, kind)}, kinds),
                strict=True,
            )
        )
    assert found == kinds


def test_a_pause_is_told_with_its_reason_and_length(lab: Lab) -> None:
    lab.faults.fail_first = {"/rooms": [429, 500]}
    lab.faults.retry_after = 20
    list(lab.client().rooms())
    told = [re.sub(r"[0-9.]+ s$", "N s", each) for each in lab.told]
    assert told == [
        "100ms /rooms: it answered 429; again in N s",
        "100ms /rooms: it answered 500; again in N s",
    ]


# ── The server's clock ────────────────────────────────────────────────────────────────────────────


def test_the_servers_time_is_asked_for_when_it_is_not_known(lab: Lab) -> None:
    lab.faults.date_skew = 600
    assert lab.client().server_time() == NOW + timedelta(seconds=600)


def test_the_servers_time_comes_with_every_answer(lab: Lab) -> None:
    api = lab.client()
    api.first_page()
    lab.at += timedelta(hours=1)
    list(api.rooms())
    assert api.server_time() == NOW + timedelta(hours=1)
    assert len(lab.server.requests) == 2


# ── The bytes ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def recorded(lab: Lab) -> Lab:
    """One hosted asset, `a1`, of `BODY`."""
    lab.server.add_asset(an_asset("a1", type="room-composite"), BODY)
    return lab


def test_a_recording_is_opened_with_its_length_and_type(recorded: Lab) -> None:
    body = recorded.client().open("a1")
    assert (body.length, body.content_type, whole(body)) == (len(BODY), "video/mp4", BODY)


def test_an_empty_recording_has_the_length_nought(lab: Lab) -> None:
    lab.server.add_asset(an_asset("a1"), b"")
    body = lab.client().open("a1")
    assert (body.length, whole(body)) == (0, b"")


def test_a_large_recording_comes_in_pieces_of_at_most_1_mib(lab: Lab) -> None:
    piece = bytes(1 << 16)
    lab.server.add_asset(an_asset("a1"), lambda: iter([piece] * 80))
    sizes = [len(chunk) for chunk in lab.client().open("a1").chunks]
    assert sum(sizes) == 80 << 16
    assert max(sizes) <= 1 << 20
    assert len(sizes) >= 5


def test_the_bytes_are_asked_for_as_they_are_and_without_a_token(lab: Lab) -> None:
    seen: list[dict[str, str]] = []

    def answer(path: str, headers: Any) -> Answer:
        if "presigned" in path:
            return said({"id": "a1", "url": f"{base}/file?X-Signature=0123"})
        seen.append({name.lower(): value for name, value in headers.items()})
        return 200, {"Content-Type": "video/mp4"}, BODY

    with scripted(answer) as base:
        assert whole(lab.client(url=base).open("a1")) == BODY
    assert seen[0]["accept-encoding"] == "identity"
    assert "authorization" not in seen[0]


def test_a_body_without_a_length_says_so_and_comes_whole(recorded: Lab) -> None:
    recorded.faults.no_length = {"*": ALWAYS}
    body = recorded.client().open("a1")
    assert (body.length, whole(body)) == (None, BODY)


@pytest.mark.parametrize("after", [1, 100, len(BODY) - 1])
def test_a_body_cut_in_the_middle_is_gone_on_with_from_there(recorded: Lab, after: int) -> None:
    recorded.faults.cut_bodies = {"a1": (after, 3)}
    assert whole(recorded.client().open("a1")) == BODY
    cuts = recorded.faults.counts["cut_bodies"]
    assert 1 <= cuts <= 3
    assert (recorded.asked("/media/"), len(recorded.slept)) == (1 + cuts, cuts)


def test_each_new_byte_gives_new_patience(recorded: Lab) -> None:
    step = len(BODY) // (RESUMES + 4)
    recorded.faults.cut_bodies = {"a1": (step, ALWAYS)}
    assert whole(recorded.client().open("a1")) == BODY
    assert recorded.faults.counts["cut_bodies"] > RESUMES


def test_a_body_that_brings_nothing_more_is_given_up(recorded: Lab) -> None:
    recorded.faults.cut_bodies = {"a1": (0, ALWAYS)}
    with fails(SourceFailed) as caught:
        whole(recorded.client().open("a1"))
    assert f"broke off after 0 bytes (ProtocolError), {RESUMES} times in a row" in caught[0].message
    assert recorded.asked("/media/") == 1 + RESUMES


def test_a_url_that_ends_in_the_middle_is_asked_for_again(recorded: Lab) -> None:
    recorded.faults.cut_bodies = {"a1": (100, 1)}
    chunks = recorded.client().open("a1").chunks
    first = next(chunks)
    recorded.faults.fail_first = {"/media/": [403]}
    assert first + b"".join(chunks) == BODY
    assert (recorded.asked("/presigned-url"), recorded.asked("/media/")) == (3, 3)


@pytest.mark.parametrize(
    ("status", "error"), [(404, SourceGone), (410, SourceGone), (400, SourceFailed)]
)
def test_a_recording_that_goes_away_in_the_middle_fails_as_what_it_is(
    recorded: Lab, status: int, error: type[RetainerError]
) -> None:
    recorded.faults.cut_bodies = {"a1": (100, 1)}
    chunks = recorded.client().open("a1").chunks
    next(chunks)
    recorded.faults.fail_first = {"/media/": [status]}
    with fails(error):
        b"".join(chunks)


def test_a_store_that_stumbles_in_the_middle_is_waited_for(recorded: Lab) -> None:
    recorded.faults.cut_bodies = {"a1": (100, 1)}
    chunks = recorded.client().open("a1").chunks
    first = next(chunks)
    recorded.faults.fail_first = {"/media/": [503, 429, 500]}
    assert first + b"".join(chunks) == BODY


def test_another_file_in_the_middle_is_never_joined_to_the_first(recorded: Lab) -> None:
    recorded.faults.cut_bodies = {"a1": (100, 1)}
    chunks = recorded.client().open("a1").chunks
    next(chunks)
    recorded.server.add_asset(an_asset("a1", type="room-composite"), BODY[:50] + b"x" + BODY[51:])
    with fails(SourceFailed) as caught:
        b"".join(chunks)
    assert "another file" in caught[0].message


def test_a_body_that_stalls_is_gone_on_with_on_a_new_connection(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retainer.sources.connections.STALL_SECONDS", 0.3)
    over = threading.Event()
    piece = b"x" * (1 << 20)

    def answer(path: str, headers: Any) -> Answer:
        if "presigned" in path:
            return said({"url": f"{base}/file?X-Signature=0123"})
        if headers.get("Range") == f"bytes={len(piece)}-":
            return (
                206,
                {"Content-Range": f"bytes {len(piece)}-{len(piece) + 3}/{len(piece) + 4}"},
                b"wide",
            )
        return 200, {"Content-Length": str(len(piece) + 4), "ETag": '"1"'}, iter([piece, over])

    with scripted(answer) as base:
        assert whole(lab.client(url=base).open("a1")) == piece + b"wide"
        over.set()


@pytest.mark.parametrize("sent", [{}, {"ETag": 'W/"1"'}, {"ETag": ""}])
def test_without_a_strong_etag_nothing_is_joined(lab: Lab, sent: dict[str, str]) -> None:
    def answer(path: str, _: Any) -> Answer:
        if "presigned" in path:
            return said({"url": f"{base}/file?X-Signature=0123"})
        return 200, {"Content-Length": "9"} | sent, b"hello"

    with scripted(answer) as base, fails(SourceFailed) as caught:
        whole(lab.client(url=base).open("a1"))
    assert "names nothing to go on from" in caught[0].message


@pytest.mark.parametrize(
    "window", [None, "bytes 4-8/9", "bytes 5-8/10", "bytes 5-7/9", "bytes */9", "5-8/9"]
)
def test_a_part_that_is_not_just_what_is_missing_is_refused(lab: Lab, window: str | None) -> None:
    def answer(path: str, headers: Any) -> Answer:
        if "presigned" in path:
            return said({"url": f"{base}/file?X-Signature=0123"})
        if "Range" in headers:
            return 206, {"Content-Range": window} if window else {}, b"ello"
        return 200, {"Content-Length": "9", "ETag": '"1"'}, b"hello"

    with scripted(answer) as base, fails(SourceFailed) as caught:
        whole(lab.client(url=base).open("a1"))
    assert "cannot go on in the middle" in caught[0].message


def test_a_chunked_body_that_never_ends_properly_fails(lab: Lab) -> None:
    def answer(path: str, _: Any) -> Answer:
        if "presigned" in path:
            return said({"url": f"{base}/file?X-Signature=0123"})
        return 200, {"Transfer-Encoding": "chunked"}, b"5\r\nhello\r\n"

    with scripted(answer) as base:
        body = lab.client(url=base).open("a1")
        assert body.length is None
        with fails(SourceFailed):
            whole(body)


@pytest.mark.parametrize("fault", ["html_with_200", "json_error_with_200"])
def test_what_comes_with_a_200_is_not_judged_here_but_its_type_is_told(
    recorded: Lab, fault: str
) -> None:
    setattr(recorded.faults, fault, {"a1": 1})
    body = recorded.client().open("a1")
    assert body.content_type in ("text/html", "application/json")
    assert whole(body) == ERROR_BODY or fault == "html_with_200"


def test_an_asset_that_100ms_does_not_know_is_gone(lab: Lab) -> None:
    with fails(SourceGone) as caught:
        lab.client().open("nobody")
    assert "404" in caught[0].message


@pytest.mark.parametrize("status", [404, 410])
def test_bytes_that_are_not_there_are_gone(recorded: Lab, status: int) -> None:
    recorded.faults.fail_first = {"/media/": [status]}
    with fails(SourceGone) as caught:
        recorded.client().open("a1")
    assert str(status) in caught[0].message


@pytest.mark.parametrize("presign", [False, True])
def test_after_15_days_a_hosted_recording_is_gone(recorded: Lab, presign: bool) -> None:
    recorded.faults.gone_presign_404 = presign
    api = recorded.client()
    recorded.at = datetime(2026, 12, 4, 23, 59, 59, tzinfo=UTC)
    assert whole(api.open("a1")) == BODY
    recorded.at += timedelta(seconds=1)
    with fails(SourceGone):
        api.open("a1")


def test_a_failed_recording_has_no_bytes(lab: Lab) -> None:
    lab.server.add_asset(an_asset("a1", status="failed", path=None), None)
    with fails(SourceGone):
        lab.client().open("a1")


def test_a_url_that_has_ended_is_asked_for_once_more(recorded: Lab) -> None:
    recorded.faults.fail_first = {"/media/": [403]}
    assert whole(recorded.client().open("a1")) == BODY
    assert (recorded.asked("/presigned-url"), recorded.asked("/media/")) == (2, 2)


def test_a_recording_that_may_not_be_read_fails_and_is_not_called_gone(lab: Lab) -> None:
    lab.server.add_asset(an_asset("a1"), BODY, readable=False)
    with fails(SourceFailed) as caught:
        lab.client().open("a1")
    assert "403" in caught[0].message
    assert "declare it as a store" in (caught[0].hint or "")
    assert (lab.asked("/presigned-url"), lab.asked("/media/")) == (2, 2)


def test_a_url_that_is_never_valid_fails(recorded: Lab) -> None:
    recorded.faults.expire_urls_after = 0
    with fails(SourceFailed):
        recorded.client().open("a1")
    assert recorded.asked("/media/") == 2


@pytest.mark.parametrize("status", [400, 401, 416, 429, 500, 503])
def test_a_store_that_answers_otherwise_fails_and_is_not_called_gone(
    recorded: Lab, status: int
) -> None:
    recorded.faults.fail_first = {"/media/": [status] * 20}
    with fails(SourceFailed) as caught:
        recorded.client().open("a1")
    assert str(status) in caught[0].message


def test_the_call_for_a_url_is_tried_again_like_any_other(recorded: Lab) -> None:
    recorded.faults.fail_first = {"/presigned-url": [500, 429]}
    recorded.faults.retry_after = 2
    assert whole(recorded.client().open("a1")) == BODY
    assert len(recorded.slept) == 2


def test_a_call_for_a_url_that_fails_for_good_fails_and_is_not_called_gone(recorded: Lab) -> None:
    recorded.faults.fail_first = {"/presigned-url": [500] * 50}
    with fails(SourceFailed):
        recorded.client().open("a1")


def test_a_part_that_nobody_asked_for_is_no_recording(lab: Lab) -> None:
    def answer(path: str, _: Any) -> Answer:
        if "presigned" in path:
            return said({"url": f"{base}/file?X-Signature=0123"})
        return 206, {"Content-Range": "bytes 0-4/9"}, b"hello"

    with scripted(answer) as base, fails(SourceFailed) as caught:
        lab.client(url=base).open("a1")
    assert "206" in caught[0].message


def test_a_redirect_is_followed(recorded: Lab) -> None:
    def answer(path: str, _: Any) -> Answer:
        if "presigned" in path:
            return said({"url": f"{base}/first?X-Signature=0123"})
        return (
            (302, {"Location": "/second?X-Signature=4567"}, b"")
            if "first" in path
            else (200, {}, BODY)
        )

    with scripted(answer) as base:
        assert whole(recorded.client(url=base).open("a1")) == BODY


def test_a_redirect_without_end_fails(lab: Lab) -> None:
    def answer(path: str, _: Any) -> Answer:
        return (
            said({"url": f"{base}/file?X-Signature=0123"})
            if "presigned" in path
            else (302, {"Location": path}, b"")
        )

    with scripted(answer) as base, fails(SourceFailed):
        lab.client(url=base).open("a1")


def closed_port() -> str:
    with scripted(lambda *_: said({})) as base:
        return base


@pytest.mark.parametrize(
    "url",
    [
        None,
        "",
        7,
        "file:///etc/passwd",
        "ftp://x/y",
        "javascript:1",
        "http://",
        "https://[x?X-Signature=0123",
        "http://a b/?X-Signature=0123",
        "http://x:99999/?X-Signature=0123",
        "http://127.0.0.1:1/\n?X-Signature=0123",
    ],
)
def test_a_presigned_url_that_is_none_fails(lab: Lab, url: Any) -> None:
    with scripted(lambda *_: said({"id": "a1", "url": url})) as base, fails(SourceFailed):
        lab.client(url=base).open("a1")


def test_a_store_that_is_not_there_fails_without_telling_the_url(lab: Lab) -> None:
    gone = closed_port()
    with (
        scripted(lambda *_: said({"url": f"{gone}/media/a1?X-Signature=0123"})) as base,
        fails(SourceFailed) as caught,
    ):
        lab.client(url=base).open("a1")
    assert "connection" in caught[0].message


STRANGE = ["a b", "ü😀", "100%", "a%2Fb", "a/b", "a?b", "a#b", "a+b", "a&b=c", "a;b", "x" * 200]


@pytest.mark.parametrize("id", STRANGE)
def test_an_id_of_any_letters_opens_its_own_bytes(lab: Lab, id: str) -> None:
    for each in STRANGE:
        lab.server.add_asset(an_asset(each), f"the bytes of {each}".encode())
    assert whole(lab.client().open(id)) == f"the bytes of {id}".encode()


# ── the way there ─────────────────────────────────────────────────────────────────────────────────


def test_the_proxies_of_the_environment_are_asked_and_those_hosts_that_need_none_are_not(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str | None]] = []

    def answer(path: str, headers: Any) -> Answer:
        asked.append((path.partition("?")[0], headers.get("Proxy-Authorization")))
        return (
            (200, {}, BODY)
            if "/media" in path
            else said({"url": "http://bucket.invalid/media?X-Signature=0123"})
        )

    with scripted(answer) as base:
        monkeypatch.setenv("http_proxy", base.replace("//", "//me:top%2Fsecret@"))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert lab.client().first_page() == []
        assert asked == []
        assert whole(lab.client(url="http://api.invalid/v2").open("a1")) == BODY
    password = "Basic " + base64.b64encode(b"me:top/secret").decode()
    assert asked == [
        ("http://api.invalid/v2/recording-assets/a1/presigned-url", password),
        ("http://bucket.invalid/media", password),
    ]


@pytest.mark.parametrize(
    "form",
    [
        "http_proxy=http://{}",
        "http_proxy={}",
        "http_proxy=HTTP://{}",
        "all_proxy=http://{}",
        "ALL_PROXY={}",
    ],
)
def test_a_proxy_may_be_named_in_many_ways(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    with scripted(lambda *_: (200, {}, BODY)) as base:
        name, _, value = form.partition("=")
        monkeypatch.setenv(name, value.format(base.partition("://")[2]))
        assert whole(lab.client().open_beside("http://bucket.invalid/media")) == BODY


@pytest.mark.parametrize(
    "value", ["socks5://me:secret@127.0.0.1:1080", "http://[secret", "http://proxy:secret"]
)
def test_a_proxy_that_cannot_be_used_is_told_and_not_passed_by(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("https_proxy", value)
    with fails(SourceFailed) as caught:
        lab.client()
    assert "proxy for https" in caught[0].message and "secret" not in caught[0].message


def test_certificates_that_cannot_be_read_are_told(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file")
    with fails(SourceFailed) as caught:
        lab.client()
    assert "SSL_CERT_FILE" in caught[0].message


def test_the_signature_of_a_segments_address_is_not_told(lab: Lab) -> None:
    with scripted(lambda *_: (403, {}, b"")) as base, fails(SourceFailed) as caught:
        lab.client().open_beside(f"{base}/a/seg%201.ts?X-Signature=a/secret")
    assert "seg 1.ts" in caught[0].message and "secret" not in caught[0].message


@pytest.mark.parametrize(
    "url", ["api.100ms.live/v2", "ftp://api.100ms.live", "http://", "http://[api"]
)
def test_what_is_no_address_of_a_server_is_told_as_that_and_not_tried_again(
    lab: Lab, url: str
) -> None:
    with fails(SourceFailed) as caught:
        lab.client(url=url).first_page()
    assert "`url` in retainer.yaml" in caught[0].message
    assert lab.slept == []


@pytest.mark.parametrize(
    ("hosts", "leads", "copied"),
    [
        ((), "/second", True),
        ((), "http://localhost:{port}/second", False),
        (("local*",), "http://localhost:{port}/second", True),
        (("cdn.example",), "http://localhost:{port}/second", False),
    ],
)
def test_a_part_is_followed_where_the_settings_say(
    lab: Lab, hosts: tuple[str, ...], leads: str, copied: bool
) -> None:
    def answer(path: str, _: Any) -> Answer:
        port = base.rpartition(":")[2]
        to = {"Location": leads.format(port=port)}
        return (302, to, b"") if "first" in path else (200, {}, BODY)

    with scripted(answer) as base:
        client = lab.client(url=base, media_hosts=hosts)
        if copied:
            assert whole(client.open_beside(f"{base}/first.ts")) == BODY
        else:
            with fails(SourceFailed) as caught:
                client.open_beside(f"{base}/first.ts")
            assert "leads to another host (localhost)" in caught[0].message
            assert "source.media_hosts" in (caught[0].hint or "")


@pytest.mark.parametrize("nonsense", ["http://[bad/x", "http://x:99999/y", "//[", "mailto:x"])
@pytest.mark.parametrize("beside", [True, False])
def test_a_redirect_to_nonsense_fails_as_any_other(lab: Lab, nonsense: str, beside: bool) -> None:
    def answer(path: str, _: Any) -> Answer:
        if "presigned" in path:
            return said({"url": f"{base}/first"})
        return 302, {"Location": nonsense}, b""

    with scripted(answer) as base, fails(SourceFailed):
        client = lab.client(url=base)
        client.open_beside(f"{base}/first") if beside else client.open("a1")


@pytest.mark.parametrize(
    ("page", "address", "leads"),
    [
        ("https://cdn.example/a", "https://CDN.example:443/b", True),
        ("https://cdn.example/a", "http://cdn.example/b", False),
        ("https://cdn.example/a", "https://one.parts.example/b", True),
        ("https://cdn.example/a", "http://one.parts.example/b", False),
        ("http://cdn.example/a", "http://one.parts.example/b", True),
        ("https://cdn.example/a", "https://parts.example/b", False),
        ("https://cdn.example/a", "https://user@cdn.example/b", False),
        ("https://cdn.example/a", "file:///b", False),
        ("https://cdn.example/a", "https://cdn.example:99999/b", False),
        ("https://cdn.example/a", "https://[bad/b", False),
    ],
)
def test_where_one_address_may_lead(lab: Lab, page: str, address: str, leads: bool) -> None:
    client = lab.client(media_hosts=("*.parts.example",))
    assert client.may_lead(page, address) is leads


def test_a_server_is_quoted_less_what_names_a_person(lab: Lab) -> None:
    error = (
        b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>User: "
        b"arn:aws:iam::1234:user/jane is not authorized to see https://b.example/k?X-Signature=1"
        b"</Message></Error>"
    )

    def answer(path: str, _: Any) -> Answer:
        return said({"url": f"{base}/file"}) if "presigned" in path else (403, {}, error)

    with scripted(answer) as base, fails(SourceFailed) as caught:
        lab.client(url=base).open("a1")
    assert "403 (AccessDenied: User: … is not authorized to see …)" in caught[0].message


@pytest.mark.parametrize("knows_gzip", [True, False])
def test_what_gcs_would_unpack_is_asked_for_as_it_is_stored(lab: Lab, knows_gzip: bool) -> None:
    packed = gzip.compress(BODY)
    stored = {
        "x-goog-stored-content-encoding": "gzip",
        "x-goog-stored-content-length": str(len(packed)),
    }

    def answer(path: str, headers: Any) -> Answer:
        if "presigned" in path:
            return said({"url": f"{base}/file"})
        if headers.get("Accept-Encoding") == "gzip" and knows_gzip:
            return 200, {**stored, "Content-Encoding": "gzip"}, packed
        return 200, stored, BODY

    with scripted(answer) as base:
        body = lab.client(url=base).open("a1")
        assert b"".join(body.chunks) == (packed if knows_gzip else BODY)
    assert body.encoding == ("gzip" if knows_gzip else "")
    assert body.stored_length == (None if knows_gzip else len(packed))
