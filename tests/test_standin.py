"""The stand-in for the 100ms API keeps what the platform documents, and misbehaves only as told."""

import contextlib
import csv
import io
import json
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import pytest

from retainer.demo.standin import (
    ALWAYS,
    ERROR_BODY,
    GARBAGE,
    HOSTED,
    UPLOADS,
    Faults,
    StandIn,
    main,
    order_key,
    sample_assets,
    sample_rooms,
)

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
BODY = bytes(range(256)) * 40
FILES = {
    "master.m3u8": b"#EXTM3U\nlow/index.m3u8\n",
    "low/index.m3u8": b"#EXTM3U\nseg%201.ts\n",
    "low/seg 1.ts": BODY,
}
ROOM = {
    "id": "r1",
    "name": "sales-1",
    "enabled": True,
    "template_id": "t1",
    "created_at": "2026-01-01T00:00:00Z",
}


def an_asset(id: str = "a1", **facts: Any) -> dict[str, Any]:
    usual = {
        "type": "room-composite",
        "status": "completed",
        "room_id": "r1",
        "session_id": "s1",
        "path": f"{HOSTED}/a.mp4",
    }
    return {
        "id": id,
        **usual,
        "size": len(BODY),
        "created_at": "2026-11-20T07:44:27.010516042Z",
        **facts,
    }


class Api:
    """The server under test at a clock that stands at `NOW` (`at` moves it), and a client with a
    token."""

    def __init__(self) -> None:
        self.at = NOW
        self.server = StandIn(now=lambda: self.at, secret="0123456789abcdef" * 4)
        self.faults = self.server.faults
        self.http = httpx.Client(
            trust_env=False, timeout=5, verify=False
        )  # no TLS here: reading the roots would cost 50 ms a test

    def token(self, **claims: Any) -> str:
        now = int(self.at.timestamp())
        usual = {
            "access_key": self.server.access_key,
            "type": "management",
            "version": 2,
            "jti": "j",
            "iat": now,
            "nbf": now,
            "exp": now + 60,
        }
        merged = {name: value for name, value in (usual | claims).items() if value is not None}
        return jwt.encode(merged, self.server.secret, "HS256")

    def get(self, path: str, token: str | None = None, **query: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token or self.server.ready_token()}"}
        return self.http.get(self.server.url + path, params=query, headers=headers)

    def pages(self, path: str = "/recording-assets", **query: Any) -> list[list[dict[str, Any]]]:
        pages, limit = [], query.get("limit", 10)
        while True:
            page = self.get(path, **query).raise_for_status().json()
            pages.append(page["data"])
            if len(page["data"]) < limit:
                return pages
            query["start"] = page["last"]

    def media_url(self, id: str = "a1", **query: Any) -> str:
        return str(
            self.get(f"/recording-assets/{id}/presigned-url", **query)
            .raise_for_status()
            .json()["url"]
        )

    def cdn(self, path: str, id: str = "a1", method: str = "GET", **headers: str) -> httpx.Response:
        url = f"{self.server.url.removesuffix('v2')}cdn/{id}/{path}"
        return self.http.request(
            method, url, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )

    def media(self, id: str = "a1", **headers: str) -> httpx.Response:
        return self.http.get(
            self.media_url(id),
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    with api.server, api.http:
        yield api


@pytest.mark.parametrize(
    "claims",
    [
        {"access_key": "other"},
        {"type": "app"},
        {"version": 1},
        {"version": "2"},
        {"jti": None},
        {"jti": ""},
        {"iat": None},
        {"nbf": None},
        {"exp": None},
        {"iat": NOW.timestamp() + 0.5},
        {"nbf": NOW.timestamp() + 0.5},
        {"exp": NOW.timestamp()},
        {"exp": "soon"},
    ],
    ids=str,
)
def test_a_token_with_one_wrong_claim_is_refused(api: Api, claims: dict[str, Any]) -> None:
    assert api.get("/rooms", token=api.token()).status_code == 200
    refused = api.get("/rooms", token=api.token(**claims))
    assert (refused.status_code, refused.json()["code"], refused.json()["message"]) == (
        401,
        401,
        "Token validation error",
    )
    assert refused.json()["details"]


@pytest.mark.parametrize(
    "key, algorithm",
    [("another secret, that is long enough too", "HS256"), (None, "HS512"), (None, "none")],
)
def test_a_token_signed_otherwise_is_refused(api: Api, key: str | None, algorithm: str) -> None:
    claims = jwt.decode(api.token(), options={"verify_signature": False})
    secret = "" if algorithm == "none" else key or api.server.secret
    assert api.get("/rooms", token=jwt.encode(claims, secret, algorithm)).status_code == 401


def test_no_token_is_refused(api: Api) -> None:
    assert api.http.get(api.server.url + "/rooms").status_code == 401


def test_a_revoked_token_is_refused(api: Api) -> None:
    token = api.server.ready_token()
    assert api.get("/rooms", token=token).status_code == 200
    api.server.revoked.add(token)
    assert api.get("/rooms", token=token).status_code == 401


def test_a_ready_token_ends_with_its_life(api: Api) -> None:
    token = api.server.ready_token(timedelta(seconds=60))
    api.at += timedelta(seconds=59)
    assert api.get("/rooms", token=token).status_code == 200
    api.at += timedelta(seconds=1)
    assert api.get("/rooms", token=token).status_code == 401


def test_a_short_secret_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        StandIn(secret="short")


@pytest.mark.parametrize(
    "path",
    [
        "/recordings",
        "/recording-assets/",
        "/recording-assets/unknown",
        "/recording-assets/unknown/presigned-url",
        "/../x",
    ],
)
def test_an_unknown_route_or_asset_is_404(api: Api, path: str) -> None:
    answer = api.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, 404)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_nothing_can_be_deleted_or_changed(api: Api, method: str) -> None:
    api.server.add_asset(an_asset())
    headers = {"Authorization": f"Bearer {api.token()}"}
    answer = api.http.request(
        method, api.server.url + "/recording-assets/a1", headers=headers, content=b"{}"
    )
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET")
    assert api.get("/recording-assets/a1").json() == an_asset()


@pytest.mark.parametrize(
    "query",
    [{"limit": v} for v in (9, 101, "ten", "")]
    + [
        {"status": "gone"},
        {"type": "movie"},
        {"room_id": ""},
        {"start": "unknown"},
        {"sort": "date"},
    ],
    ids=str,
)
def test_a_parameter_that_is_not_allowed_is_400(api: Api, query: dict[str, Any]) -> None:
    assert api.get("/recording-assets", **query).status_code == 400


@pytest.mark.parametrize(
    "query",
    [
        {"enabled": "yes"},
        {"before": "2026-01-01"},
        {"after": "now"},
        {"name": ["a", "b"]},
        {"room_id": "r1"},
    ],
    ids=str,
)
def test_a_rooms_parameter_that_is_not_allowed_is_400(api: Api, query: dict[str, Any]) -> None:
    assert api.get("/rooms", **query).status_code == 400


def test_a_list_pages_by_cursor_and_gives_every_row_once(api: Api) -> None:
    for i in range(23):
        api.server.add_asset(an_asset(f"a{i}"))
    pages = api.pages()
    assert [len(page) for page in pages] == [10, 10, 3]
    assert sorted(row["id"] for page in pages for row in page) == sorted(f"a{i}" for i in range(23))
    assert pages == api.pages()
    assert api.get("/recording-assets").json().keys() == {"limit", "data", "last"}


def test_a_list_of_a_whole_number_of_pages_ends_with_an_empty_one(api: Api) -> None:
    for i in range(10):
        api.server.add_asset(an_asset(f"a{i}"))
    assert [len(page) for page in api.pages()] == [10, 0]


def test_a_list_is_not_in_the_order_of_dates(api: Api) -> None:
    for i in range(20):
        api.server.add_asset(an_asset(f"a{i:02}", created_at=f"2026-11-01T00:00:{i:02}Z"))
    dates = [row["created_at"] for row in api.pages(limit=100)[0]]
    assert dates not in (sorted(dates), sorted(dates, reverse=True))


@pytest.mark.parametrize(
    "query, ids",
    [
        ({"type": "chat"}, {"b"}),
        ({"status": "failed"}, {"c"}),
        ({"room_id": "r2"}, {"d"}),
        ({"session_id": "s2"}, {"d"}),
    ],
)
def test_a_filter_gives_what_it_names(api: Api, query: dict[str, str], ids: set[str]) -> None:
    for asset in (
        an_asset("a"),
        an_asset("b", type="chat"),
        an_asset("c", status="failed"),
        an_asset("d", room_id="r2", session_id="s2"),
    ):
        api.server.add_asset(asset)
    assert {row["id"] for row in api.pages(**query)[0]} == ids


def test_a_new_type_can_be_asked_for_once_there_is_one(api: Api) -> None:
    assert api.get("/recording-assets", type="hologram").status_code == 400
    api.server.add_asset(an_asset(type="hologram"))
    assert len(api.pages(type="hologram")[0]) == 1


@pytest.mark.parametrize(
    "query, found",
    [
        ({"name": "sales-1"}, True),
        ({"name": "sales"}, False),
        ({"enabled": "false"}, False),
        ({"template_id": "t1"}, True),
        ({"before": "2026-01-01T00:00:00Z"}, True),
        ({"before": "2025-12-31T23:59:59Z"}, False),
        ({"after": "2026-01-01T00:00:00Z"}, True),
        ({"after": "2026-01-01T00:00:01Z"}, False),
    ],
    ids=str,
)
def test_rooms_are_filtered(api: Api, query: dict[str, str], found: bool) -> None:
    api.server.add_room(ROOM)
    assert api.pages("/rooms", **query) == [[ROOM] if found else []]


def test_an_asset_is_served_as_it_was_given(api: Api) -> None:
    odd = an_asset(path=None, size=0, metadata=None, duration="12")
    api.server.add_asset(odd)
    assert api.get("/recording-assets/a1").json() == odd


def test_a_presigned_url_gives_the_bytes(api: Api) -> None:
    api.server.add_asset(an_asset(), BODY)
    given = api.get("/recording-assets/a1/presigned-url").json()
    assert (given["id"], given["path"], given["expiry"]) == ("a1", f"{HOSTED}/a.mp4", 3 * 86400)
    answer = api.http.get(given["url"])
    assert (answer.status_code, answer.content, answer.headers["Content-Type"]) == (
        200,
        BODY,
        "video/mp4",
    )
    assert answer.headers["Content-Length"] == str(len(BODY))


def test_a_presigned_url_on_alibaba_lives_nine_hours(api: Api) -> None:
    api.server.add_asset(an_asset(path="oss://bucket/a.mp4"), BODY)
    assert api.get("/recording-assets/a1/presigned-url").json()["expiry"] == 9 * 3600


@pytest.mark.parametrize("duration", [0, -1, 604801, "1h"])
def test_a_presign_duration_that_makes_no_sense_is_400(api: Api, duration: object) -> None:
    api.server.add_asset(an_asset(), BODY)
    assert (
        api.get("/recording-assets/a1/presigned-url", presign_duration=duration).status_code == 400
    )


def test_an_expired_url_is_403_in_xml(api: Api) -> None:
    api.server.add_asset(an_asset(), BODY)
    url = api.media_url(presign_duration=60)
    api.at += timedelta(seconds=59)
    assert api.http.get(url).status_code == 200
    api.at += timedelta(seconds=1)
    late = api.http.get(url)
    assert (late.status_code, late.headers["Content-Type"]) == (403, "application/xml")
    assert "<Code>AccessDenied</Code><Message>Request has expired</Message>" in late.text


@pytest.mark.parametrize(
    "part, other",
    [
        ("Expires=", "Expires=9"),
        ("Signature=", "Signature=0"),
        ("/a1?", "/a2?"),
        ("X-Signature", "Signature"),
    ],
)
def test_a_url_that_was_touched_is_403(api: Api, part: str, other: str) -> None:
    api.server.add_asset(an_asset(), BODY)
    api.server.add_asset(an_asset("a2"), BODY)
    answer = api.http.get(api.media_url().replace(part, other))
    assert (answer.status_code, "SignatureDoesNotMatch" in answer.text) == (403, True)


def test_media_refuses_a_request_that_carries_a_token(api: Api) -> None:
    api.server.add_asset(an_asset(), BODY)
    assert api.media(Authorization=f"Bearer {api.token()}").status_code == 400


@pytest.mark.parametrize(
    "range, first, end",
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-", 100, len(BODY)),
        ("bytes=-5", len(BODY) - 5, len(BODY)),
        ("bytes=9-99999999", 9, len(BODY)),
    ],
)
def test_a_range_is_served(api: Api, range: str, first: int, end: int) -> None:
    api.server.add_asset(an_asset(), BODY)
    answer = api.media(Range=range)
    assert (answer.status_code, answer.content) == (206, BODY[first:end])
    assert answer.headers["Content-Range"] == f"bytes {first}-{end - 1}/{len(BODY)}"


def test_a_range_beyond_the_end_is_416(api: Api) -> None:
    api.server.add_asset(an_asset(), BODY)
    answer = api.media(Range=f"bytes={len(BODY)}-")
    assert (answer.status_code, answer.headers["Content-Range"]) == (416, f"bytes */{len(BODY)}")


def test_if_range_serves_the_whole_once_the_bytes_have_changed(api: Api) -> None:
    api.server.add_asset(an_asset(), BODY)
    etag = api.media().headers["ETag"]
    assert api.media(Range="bytes=5-", If_Range=etag).status_code == 206
    api.server.add_asset(an_asset(), BODY[::-1])
    changed = api.media(Range="bytes=5-", If_Range=etag)
    assert (changed.status_code, changed.content) == (200, BODY[::-1])


def test_head_gives_the_headers_alone(api: Api) -> None:
    api.server.add_asset(an_asset(), BODY)
    answer = api.http.head(api.media_url())
    assert (answer.status_code, answer.content, answer.headers["Content-Length"]) == (
        200,
        b"",
        str(len(BODY)),
    )


def test_a_callable_is_streamed_with_its_length_and_ranges(api: Api) -> None:
    api.server.add_asset(
        an_asset(size=None), lambda: (BODY[i : i + 1000] for i in range(0, len(BODY), 1000))
    )
    answer = api.media()
    assert (answer.content, answer.headers["Content-Length"]) == (BODY, str(len(BODY)))
    assert api.media(Range="bytes=999-3001").content == BODY[999:3002]


@pytest.mark.parametrize(
    "age, hosted, created, status",
    [
        (timedelta(days=15) - timedelta(seconds=1), True, True, 200),
        (timedelta(days=15), True, True, 404),
        (timedelta(days=400), False, True, 200),
        (timedelta(days=400), True, False, 200),
    ],
)
def test_hosted_bytes_of_a_readable_date_are_gone_on_day_15(
    api: Api, age: timedelta, hosted: bool, created: bool, status: int
) -> None:
    made = NOW - age
    api.server.add_asset(
        an_asset(created_at=f"{made:%Y-%m-%dT%H:%M:%S}Z" if created else "yesterday"),
        BODY,
        hosted=hosted,
    )
    answer = api.media()
    assert answer.status_code == status
    assert ("<Code>NoSuchKey</Code>" in answer.text) == (status == 404)


def test_past_day_15_the_presigned_url_call_can_be_made_to_fail_too(api: Api) -> None:
    api.server.add_asset(an_asset(created_at="2026-01-01T00:00:00Z"), BODY)
    api.faults.gone_presign_404 = True
    assert api.get("/recording-assets/a1/presigned-url").status_code == 404


def test_a_failed_asset_has_no_presigned_url(api: Api) -> None:
    api.server.add_asset(an_asset(status="failed"))
    assert api.get("/recording-assets/a1/presigned-url").status_code == 404


def test_under_write_only_rights_the_media_is_403(api: Api) -> None:
    api.server.add_asset(an_asset(), BODY, hosted=False, readable=False)
    assert api.media().status_code == 403


def test_the_presigned_url_of_unzipped_hls_is_a_public_one_of_its_entry(api: Api) -> None:
    base = api.server.url.removesuffix("v2")
    api.server.add_asset(an_asset("a 1", type="room-vod"), files=FILES)
    api.server.add_asset(an_asset("a2", type="room-vod"), files=FILES, entry="low/seg 1.ts")
    given = api.get("/recording-assets/a%201/presigned-url").json()
    assert given == {
        "id": "a 1",
        "path": f"{HOSTED}/a.mp4",
        "url": f"{base}cdn/a%201/master.m3u8",
        "expiry": 3 * 86400,
    }
    assert api.http.get(given["url"]).content == FILES["master.m3u8"]
    assert api.media_url("a2") == f"{base}cdn/a2/low/seg%201.ts"


def test_every_member_of_unzipped_hls_is_served_under_its_path_whatever_the_query(api: Api) -> None:
    api.server.add_asset(an_asset(), files=FILES)
    assert [
        api.cdn(path).content for path in ("master.m3u8", "low/index.m3u8", "low/seg%201.ts")
    ] == [*FILES.values()]
    assert api.cdn("low%2Fseg%201.ts?X-Signature=0&v=/../x").content == BODY
    head = api.cdn("low/seg%201.ts", method="HEAD")
    assert (head.status_code, head.content, head.headers["Content-Length"]) == (
        200,
        b"",
        str(len(BODY)),
    )


@pytest.mark.parametrize(
    "path", ["", "low", "low/", "seg%201.ts", "low/seg%25201.ts", "/master.m3u8"]
)
def test_a_path_on_the_cdn_that_was_not_given_is_404_in_xml(api: Api, path: str) -> None:
    api.server.add_asset(an_asset(), files=FILES)
    answer = api.cdn(path)
    assert (
        answer.status_code,
        answer.headers["Content-Type"],
        "<Code>NoSuchKey</Code>" in answer.text,
    ) == (404, "application/xml", True)


def test_a_recording_that_is_one_file_is_not_on_the_cdn(api: Api) -> None:
    api.server.add_asset(an_asset(), BODY)
    assert [
        api.cdn(path, id).status_code
        for path, id in (("", "a1"), ("None", "a1"), ("a.mp4", "a1"), ("master.m3u8", "a2"))
    ] == [404] * 4


def test_content_and_files_exclude_each_other(api: Api) -> None:
    with pytest.raises(ValueError, match="not both"):
        api.server.add_asset(an_asset(), BODY, files=FILES)


@pytest.mark.parametrize(
    "path, kind",
    [
        ("a.m3u8", "application/vnd.apple.mpegurl"),
        ("a.b/c.ts", "video/mp2t"),
        ("a.m4s", "video/mp4"),
        ("a.mp4", "video/mp4"),
        ("a.vtt", "text/vtt"),
        ("a.aac", "audio/aac"),
        ("a.jpg", "image/jpeg"),
        ("a.key", "application/octet-stream"),
        ("ts", "application/octet-stream"),
    ],
)
def test_a_member_has_the_content_type_of_its_extension(api: Api, path: str, kind: str) -> None:
    api.server.add_asset(an_asset(), files={path: BODY})
    assert api.cdn(path).headers["Content-Type"] == kind


def test_ranges_of_a_member_are_served_as_long_as_its_bytes_stay(api: Api) -> None:
    api.server.add_asset(an_asset(), files=FILES)
    etags = [api.cdn(path).headers["ETag"] for path in ("low/seg%201.ts", "low/index.m3u8")]
    part = api.cdn("low/seg%201.ts", Range="bytes=5-9", If_Range=etags[0])
    assert (part.status_code, part.content, part.headers["Content-Range"]) == (
        206,
        BODY[5:10],
        f"bytes 5-9/{len(BODY)}",
    )
    assert [
        api.cdn("low/seg%201.ts", Range="bytes=5-", If_Range=etag).status_code for etag in etags
    ] == [206, 200]
    assert api.cdn("low/seg%201.ts", Range=f"bytes={len(BODY)}-").status_code == 416


def test_a_member_can_be_a_callable(api: Api) -> None:
    api.server.add_asset(an_asset(), files={"a.ts": lambda: iter([BODY, BODY])})
    assert (api.cdn("a.ts").content, api.cdn("a.ts").headers["Content-Length"]) == (
        BODY * 2,
        str(2 * len(BODY)),
    )


def test_on_day_15_every_member_is_gone(api: Api) -> None:
    api.server.add_asset(an_asset(created_at="2026-11-07T12:00:01Z"), files=FILES)
    api.server.add_asset(
        an_asset("own", created_at="2026-11-07T12:00:01Z"), files=FILES, hosted=False
    )
    assert [api.cdn(path).status_code for path in FILES] == [200] * 3
    api.at += timedelta(seconds=1)
    assert [api.cdn(path).status_code for path in FILES] == [404] * 3
    assert api.cdn("master.m3u8", "own").status_code == 200
    assert api.get("/recording-assets/a1/presigned-url").status_code == 200
    api.faults.gone_presign_404 = True
    assert api.get("/recording-assets/a1/presigned-url").status_code == 404


def test_the_cdn_refuses_what_is_not_readable_a_token_and_a_change(api: Api) -> None:
    api.server.add_asset(an_asset(), files=FILES, readable=False)
    assert [api.cdn(path).status_code for path in FILES] == [403] * 3
    api.server.add_asset(an_asset(), files=FILES)
    assert api.cdn("master.m3u8", Authorization=f"Bearer {api.token()}").status_code == 400
    assert api.cdn("master.m3u8", method="DELETE").status_code == 405


def test_an_asset_that_is_replaced_leaves_no_member_behind(api: Api) -> None:
    api.server.add_asset(an_asset(), files=FILES)
    api.server.add_asset(an_asset(), files={"master.m3u8": BODY})
    assert [api.cdn(path).status_code for path in FILES] == [200, 404, 404]
    api.server.add_asset(an_asset(), BODY)
    assert (api.cdn("master.m3u8").status_code, api.media().content) == (404, BODY)


def test_every_request_is_written_down(api: Api) -> None:
    api.get("/rooms", limit=20)
    assert api.server.requests == [("GET", "/v2/rooms", {"limit": "20"})]


def test_requests_share_a_connection(api: Api) -> None:
    opened: list[str] = []
    api.http.event_hooks = {
        "response": [
            lambda answer: opened.append(
                str(answer.extensions["network_stream"].get_extra_info("client_addr"))
            )
        ]
    }
    for path in ("/rooms", "/nothing", "/rooms"):
        api.get(path)
    assert len(set(opened)) == 1


def test_after_the_block_nothing_answers() -> None:
    with StandIn() as server, httpx.Client(trust_env=False) as client:
        client.get(server.url)
        server.__exit__()
        with pytest.raises(httpx.TransportError):
            client.get(server.url)


def test_a_429_says_how_long_to_wait_in_its_text_alone(api: Api) -> None:
    api.faults.rate_429, api.faults.retry_after = 1.0, 7
    answer = api.get("/rooms")
    assert (answer.status_code, answer.json()["message"]) == (
        429,
        "rate limit exceeded, retry after 7 seconds",
    )
    assert "Retry-After" not in answer.headers
    api.faults.retry_after_header = True
    assert api.get("/rooms").headers["Retry-After"] == "7"


def test_random_faults_strike_at_their_rate_and_the_same_way_each_time() -> None:
    def statuses(seed: int) -> tuple[list[int], int]:
        api = Api()
        api.server.faults = Faults(seed=seed, rate_500=0.5)
        with api.server, api.http:
            return [api.get("/rooms").status_code for _ in range(60)], api.server.faults.counts[
                "rate_500"
            ]

    first, count = statuses(1)
    assert statuses(1)[0] == first != statuses(2)[0]
    assert first.count(500) == count
    assert 15 < count < 45


def test_fail_first_answers_its_statuses_and_then_behaves(api: Api) -> None:
    api.server.add_asset(an_asset(), BODY)
    api.faults.fail_first = {"type=chat": [500, 429], "/media/": [503]}
    assert [
        api.get("/recording-assets", type=kind).status_code
        for kind in ("chat", "track", "chat", "chat")
    ] == [500, 200, 429, 200]
    slow = api.media()
    assert (slow.status_code, "<Code>SlowDown</Code>" in slow.text, api.media().status_code) == (
        503,
        True,
        200,
    )
    assert api.faults.counts["fail_first"] == 3


def test_a_dropped_connection_gives_no_answer(api: Api) -> None:
    api.faults.drop_first = 1
    with pytest.raises(httpx.RemoteProtocolError):
        api.get("/rooms")
    assert api.get("/rooms").status_code == 200
    api.faults.drop_rate = 1.0
    with pytest.raises(httpx.RemoteProtocolError):
        api.get("/rooms")


def test_repeated_rows_come_with_a_cursor_that_still_ends(api: Api) -> None:
    for i in range(23):
        api.server.add_asset(an_asset(f"a{i}"))
    api.faults.repeat_rows = 2
    pages = api.pages()
    assert pages[1][:2] == pages[0][-2:]
    assert len({row["id"] for page in pages for row in page}) == 23
    assert sum(map(len, pages)) == 23 + 2 * (len(pages) - 1)


def test_a_cut_list_is_a_200_that_is_no_json(api: Api) -> None:
    api.faults.cut_lists = 1
    cut = api.get("/rooms")
    assert cut.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        cut.json()
    assert api.get("/rooms").json()["data"] == []


def test_the_list_of_rooms_can_fail_alone(api: Api) -> None:
    api.faults.rooms_fail = True
    assert [api.get(path).status_code for path in ("/rooms", "/rooms", "/recording-assets")] == [
        500,
        500,
        200,
    ]


def test_one_listing_can_fail_for_ever_from_a_page_on(api: Api) -> None:
    for i in range(25):
        api.server.add_asset(an_asset(f"a{i:02}", type="chat"))
    api.faults.list_fail = {"chat": 1}
    last = api.get("/recording-assets", type="chat").json()["last"]
    assert [
        api.get("/recording-assets", type="chat", start=last).status_code for _ in range(2)
    ] == [500, 500]
    assert [len(page) for page in api.pages()] == [10, 10, 5]


def test_a_broken_row_is_garbage_and_the_cursor_is_not(api: Api) -> None:
    api.server.add_asset(an_asset())
    api.faults.broken_rows = {"a1": GARBAGE}
    page = api.get("/recording-assets", type="room-composite").json()
    assert (page["last"], page["data"]) == ("a1", [an_asset() | GARBAGE])
    api.faults.broken_rows = {"a1": None}
    assert api.get("/recording-assets").json()["data"] == [None]


def test_an_asset_that_arrives_behind_the_cursor_is_missed(api: Api) -> None:
    ids = sorted((f"a{i}" for i in range(22)), key=order_key)
    for id in ids[1:-1]:
        api.server.add_asset(an_asset(id))
    api.faults.arrivals = {0: [(an_asset(ids[0]), None), (an_asset(ids[-1]), BODY)]}
    seen = {row["id"] for page in api.pages() for row in page}
    assert (ids[0] in seen, ids[-1] in seen) == (False, True)
    assert len(api.pages(limit=100)[0]) == 22


def test_urls_can_expire_before_the_answer_says(api: Api) -> None:
    api.server.add_asset(an_asset(), BODY)
    api.faults.expire_urls_after = 0
    assert api.get("/recording-assets/a1/presigned-url").json()["expiry"] == 3 * 86400
    assert api.media().status_code == 403


def test_a_cut_body_ends_early_under_its_full_length_and_can_be_resumed(api: Api) -> None:
    api.server.add_asset(an_asset(), BODY)
    api.faults.cut_bodies = {"*": (1000, 2)}
    for _ in range(2):
        got = bytearray()
        with (
            pytest.raises(httpx.RemoteProtocolError),
            api.http.stream("GET", api.media_url()) as answer,
        ):
            assert answer.headers["Content-Length"] == str(len(BODY))
            for piece in answer.iter_raw():
                got += piece
        assert got == BODY[:1000]
    assert api.media(Range="bytes=1000-").content == BODY[1000:]
    assert api.faults.counts["cut_bodies"] == 2


def test_html_and_json_can_come_in_place_of_the_bytes_with_status_200(api: Api) -> None:
    api.server.add_asset(an_asset(), BODY)
    api.faults.html_with_200, api.faults.json_error_with_200 = {"a1": 1}, {"*": ALWAYS}
    html, error = api.media(), api.media()
    assert (html.status_code, html.headers["Content-Type"], error.status_code) == (
        200,
        "text/html",
        200,
    )
    assert (error.content, len(ERROR_BODY), error.json()["code"]) == (ERROR_BODY, 59, 404)


def test_a_body_can_come_without_a_length(api: Api) -> None:
    api.server.add_asset(an_asset(), BODY)
    api.faults.no_length = {"a1": 1}
    answer = api.media()
    assert ("Content-Length" in answer.headers, answer.content) == (False, BODY)


def test_a_stalled_body_pauses_after_its_first_bytes(api: Api) -> None:
    api.server.add_asset(an_asset(), lambda: (BODY[i : i + 600] for i in range(0, len(BODY), 600)))
    api.faults.stall_after = {"a1": (1000, 3, 1)}
    got = b""
    with (
        pytest.raises(httpx.ReadTimeout),
        api.http.stream("GET", api.media_url(), timeout=0.5) as answer,
    ):
        for piece in answer.iter_raw():
            got += piece
    assert got == BODY[:1000]


def test_a_stalled_body_goes_on_to_its_end(api: Api) -> None:
    api.server.add_asset(an_asset(), BODY)
    api.faults.stall_after = {"*": (1000, 0.1, 1)}
    begun = time.monotonic()
    assert (api.media().content, time.monotonic() - begun >= 0.1) == (BODY, True)
    assert (api.media().content, api.faults.counts["stall_after"]) == (BODY, 1)


def test_a_slow_body_comes_at_its_pace(api: Api) -> None:
    api.server.add_asset(an_asset(), BODY)
    api.faults.bytes_per_second = len(BODY) * 5
    begun = time.monotonic()
    assert api.media().content == BODY
    assert time.monotonic() - begun > 0.19


@pytest.mark.parametrize("id", ["a1/low/seg 1.ts", "a1", "*"])
def test_a_fault_by_id_strikes_a_member_by_its_own_id_or_else_its_assets(api: Api, id: str) -> None:
    api.server.add_asset(an_asset(), files=FILES)
    api.faults.html_with_200, api.faults.json_error_with_200, api.faults.no_length = (
        {id: 1},
        {id: 1},
        {id: 1},
    )
    html, error, endless, whole = (api.cdn("low/seg%201.ts") for _ in range(4))
    assert (html.headers["Content-Type"], error.content) == ("text/html", ERROR_BODY)
    assert [("Content-Length" in each.headers, each.content) for each in (endless, whole)] == [
        (False, BODY),
        (True, BODY),
    ]
    api.faults.cut_bodies = {id: (1000, 1)}
    with pytest.raises(httpx.RemoteProtocolError):
        api.cdn("low/seg%201.ts")
    assert api.cdn("low/seg%201.ts", Range="bytes=1000-").content == BODY[1000:]


def test_a_fault_by_id_strikes_each_member_by_itself_and_what_is_named_goes_first(api: Api) -> None:
    api.server.add_asset(an_asset(), files=FILES)
    api.server.add_asset(an_asset("a2"), files=FILES)
    api.faults.json_error_with_200 = {"a1/master.m3u8": 2, "a1": 1, "*": 0}
    struck = {
        f"{id}/{path}": [api.cdn(path, id).content == ERROR_BODY for _ in range(3)]
        for id in ("a1", "a2")
        for path in FILES
    }
    assert struck == {
        "a1/master.m3u8": [True, True, False],
        "a1/low/index.m3u8": [True, False, False],
        "a1/low/seg 1.ts": [True, False, False],
        "a2/master.m3u8": [False, False, False],
        "a2/low/index.m3u8": [False, False, False],
        "a2/low/seg 1.ts": [False, False, False],
    }


def test_the_cdn_fails_drops_and_slows_like_other_media(api: Api) -> None:
    api.server.add_asset(an_asset(), files=FILES)
    api.faults.rate_429 = api.faults.rate_500 = 1.0
    api.faults.fail_first = {"/cdn/a1/low/seg%20": [503]}
    assert [
        api.cdn(path).status_code for path in ("master.m3u8", "low/seg%201.ts", "low/seg%201.ts")
    ] == [200, 503, 200]
    api.faults.bytes_per_second = len(BODY) * 5
    begun = time.monotonic()
    assert (api.cdn("low/seg%201.ts").content, time.monotonic() - begun > 0.19) == (BODY, True)
    api.faults.drop_rate = 1.0
    with pytest.raises(httpx.RemoteProtocolError):
        api.cdn("master.m3u8")


def test_the_date_header_goes_by_the_clock_and_can_be_wrong(api: Api) -> None:
    assert api.get("/rooms").headers["Date"] == "Sun, 22 Nov 2026 12:00:00 GMT"
    api.faults.date_skew = -600
    assert api.get("/rooms").headers["Date"] == "Sun, 22 Nov 2026 11:50:00 GMT"


def test_samples_are_the_same_each_time_and_lie_in_the_past() -> None:
    samples = list(sample_assets(200, NOW))
    assert samples == [*sample_assets(200, NOW)] != [*sample_assets(200, NOW, seed=2)]
    assert samples[:20] == [*sample_assets(20, NOW)]
    assert len({asset["id"] for asset, _ in samples}) == 200
    assert all(asset["created_at"] < f"{NOW:%Y-%m-%dT%H:%M:%S}" for asset, _ in samples)


def test_eight_samples_have_every_type() -> None:
    assert len({asset["type"] for asset, _ in sample_assets(8, NOW)}) == 8


def test_samples_lie_in_rooms_that_are_listed_and_in_two_buckets() -> None:
    samples, rooms = (
        [asset for asset, _ in sample_assets(500, NOW)],
        {room["id"] for room in sample_rooms(NOW)},
    )
    assert {asset["room_id"] for asset in samples} == rooms
    assert {"s3://" + asset["path"].split("/")[2] for asset in samples if asset["path"]} == {
        HOSTED.rpartition("/")[0],
        UPLOADS.rpartition("/")[0],
    }


def test_samples_have_the_first_bytes_of_their_type() -> None:
    for asset, content in sample_assets(200, NOW):
        if asset["status"] == "failed":
            assert (asset["path"], content) == (None, b"")
            continue
        match asset["path"].rpartition(".")[2]:
            case "mp4":
                assert content[4:8] == b"ftyp"
            case "webm":
                assert content[:4] == b"\x1a\x45\xdf\xa3"
            case "zip":
                assert "master.m3u8" in zipfile.ZipFile(io.BytesIO(content)).namelist()
            case "csv":
                header = "SenderPeerID,SenderName,SenderUserID,Roles,SentAt,Type,Message"
                assert next(csv.reader(io.StringIO(content.decode()))) == header.split(",")
            case "json":
                assert json.loads(content)
            case suffix:
                assert suffix in ("txt", "srt")
                assert content.decode().strip()


def test_samples_are_served_under_the_content_type_of_their_kind(api: Api) -> None:
    for asset, content in sample_assets(13, NOW):
        api.server.add_asset(asset, content or b"-", hosted=False)
    types = {
        asset["path"].rpartition(".")[2]: api.media(asset["id"]).headers["Content-Type"]
        for asset, _ in sample_assets(13, NOW)
        if asset["path"]
    }
    assert types == {
        "mp4": "video/mp4",
        "csv": "text/csv",
        "txt": "text/plain",
        "json": "application/json",
        "webm": "video/webm",
        "zip": "application/zip",
        "srt": "text/plain",
    }


def test_by_hand_it_prints_what_a_client_needs() -> None:
    command = [
        sys.executable,
        "-m",
        "retainer.demo.standin",
        "--port",
        "0",
        "--assets",
        "25",
        "--fault",
        "retry_after=3",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            _, key, secret, curl = (server.stdout.readline().strip() for _ in range(4))
            token, url = curl.split("'")[1].removeprefix("Authorization: "), curl.split("'")[3]
            answer = httpx.get(url, headers={"Authorization": token}, trust_env=False)
        finally:
            server.terminate()
    assert (key.startswith("export HMS_ACCESS_KEY="), secret.startswith("export HMS_SECRET=")) == (
        True,
        True,
    )
    assert len(answer.json()["data"]) == 10


@pytest.mark.parametrize(
    "fault", ["rate_492=1", "rate_429=often", "rate_429=[1]", "rooms_fail=1", "counts=1"]
)
def test_a_fault_that_is_not_understood_is_wrong_usage(
    fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--fault", fault]) == 64
    assert fault.partition("=")[0] in capsys.readouterr().err


def test_help_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SystemExit):
        main(["--help"])
    assert "--fault" in capsys.readouterr().out
