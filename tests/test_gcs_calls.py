"""Google's JSON API as values: requests beside those of google-cloud-storage, what answers mean, and
what a store makes of them on the strict stand-in."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from conftest import gcs_client, intercept, make_store
from gcs_standin import GcsStandIn
from google.auth.credentials import Credentials
from google.cloud.exceptions import GoogleCloudError
from project import make_project, video
from urllib3 import HTTPResponse

from retainer.demo.standin import StandIn
from retainer.errors import CredentialsRefused, KeyTaken, StoreFailed
from retainer.model.setting import Store
from retainer.ports import Deletion, Seen, StoreFailure
from retainer.stop import Stop
from retainer.stores.calls import Described, Nonsense
from retainer.stores.gcs import GcsWriter
from retainer.stores.gcs_account import GcsAccount
from retainer.stores.gcs_answers import refusal_of
from retainer.stores.gcs_calls import GcsCalls
from retainer.stores.parts import crc32c_of
from retainer.stores.verdict import Verdict
from retainer.stores.wire import Answer, Request, Wire

MiB = 1 << 20
BUCKET = "lab-plain"
CALLS = GcsCalls(Store("vault", f"gs://{BUCKET}/rec"))
KEY = "room-composite/2026/a b+c&d=é%20/x'\"~.mp4"
SEEN = Seen(KEY, 5, "77")
NEW = Described("to", 5, {"retainer-record": '{"a":  1}'}, "video/mp4")
NOTHING = {"ifGenerationMatch": "0"}

Theirs = Callable[[Any], None]
REQUESTS: dict[str, tuple[Request, Theirs]] = {
    "look": (CALLS.look(KEY), lambda bucket: bucket.get_blob(f"rec/{KEY}")),
    "read": (
        CALLS.read(SEEN),
        lambda bucket: bucket.blob(f"rec/{KEY}").download_as_bytes(if_generation_match=77),
    ),
    "create": (
        CALLS.put(NEW, b"hello", crc32c_of(b"hello"), **NOTHING),
        lambda bucket: bucket.blob("rec/to").upload_from_string(b"hello", if_generation_match=0),
    ),
    "begin a long write": (
        CALLS.begin(NEW, NOTHING),
        lambda bucket: bucket.blob("rec/to").create_resumable_upload_session(if_generation_match=0),
    ),
    "delete": (
        CALLS.delete(KEY, "77"),
        lambda bucket: bucket.delete_blob(f"rec/{KEY}", if_generation_match=77),
    ),
    "copy": (
        CALLS.copy(CALLS, SEEN, NEW, "token", NOTHING),
        lambda bucket: bucket.blob("rec/to").rewrite(
            bucket.blob(f"rec/{KEY}"),
            token="token",
            if_generation_match=0,
            if_source_generation_match=77,
        ),
    ),
    "list": (CALLS.list("a b/", None), lambda bucket: list(bucket.list_blobs(prefix="rec/a b/"))),
}
UNSAID = {"projection", "prettyPrint", "fields", "alt"}
"""What changes the form of an answer alone."""


@pytest.mark.parametrize("case", REQUESTS)
def test_a_request_is_the_one_that_googles_own_client_sends(
    strict_gcs: GcsStandIn, case: str
) -> None:
    ours, theirs = REQUESTS[case]
    before = len(strict_gcs.requests)
    with suppress(GoogleCloudError):
        theirs(gcs_client(strict_gcs.url).bucket(BUCKET))
    sent = [each for each in strict_gcs.requests[before:] if "/o" in each[1]]
    method, path, query = sent[0]
    assert (ours.method, unquote(ours.path)) == (method, path.replace("/download/", "/"))
    left = {name: value for name, value in ours.query if name not in UNSAID}
    assert left == {name: value for name, value in query.items() if name not in UNSAID}


def error(code: int, reason: str, message: str = "") -> bytes:
    detail = {"message": message, "domain": "global", "reason": reason}
    return json.dumps({"error": {"code": code, "message": message, "errors": [detail]}}).encode()


HELD = "Object 'b/o' is under active Temporary hold and cannot be deleted, overwritten or archived"
KEPT = "Object 'b/o' is subject to bucket's retention policy or object retention"
VERDICTS: dict[str, tuple[Answer, Verdict, bool]] = {
    "nothing there": (
        Answer(404, {}, error(404, "notFound", "No such object")),
        Verdict.MISSING,
        False,
    ),
    "no bucket": (
        Answer(404, {}, error(404, "notFound", "The specified bucket does not exist.")),
        Verdict.OTHER,
        False,
    ),
    "a condition": (Answer(412, {}, error(412, "conditionNotMet")), Verdict.UNMET, False),
    "no right": (
        Answer(403, {}, error(403, "forbidden", "x does not have")),
        Verdict.REFUSED,
        False,
    ),
    "a hold": (Answer(403, {}, error(403, "objectUnderActiveHold", HELD)), Verdict.LOCKED, False),
    "retention": (
        Answer(403, {}, error(403, "retentionPolicyNotMet", KEPT)),
        Verdict.LOCKED,
        False,
    ),
    "too many": (Answer(429, {}, error(429, "rateLimitExceeded")), Verdict.BUSY, True),
    "too many, as 403": (Answer(403, {}, error(403, "rateLimitExceeded")), Verdict.BUSY, True),
    "a token that has ended": (
        Answer(401, {}, error(401, "authError")),
        Verdict.CREDENTIALS,
        False,
    ),
    "a wrong checksum": (Answer(400, {}, error(400, "invalid")), Verdict.OTHER, False),
    "503 as text": (Answer(503, {}, b"backend"), Verdict.BUSY, True),
    "no such call": (Answer(501, {}, b""), Verdict.CANNOT, False),
    "a redirect": (Answer(308, {"location": "http://x.example/y?z"}), Verdict.ELSEWHERE, False),
    "a page of something else": (Answer(403, {}, b"<html>Sign in</html>"), Verdict.REFUSED, False),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_an_answer_means_one_thing(case: str) -> None:
    answer, verdict, passes = VERDICTS[case]
    told = refusal_of(answer)
    assert told is not None and (told.verdict, told.may_pass) == (verdict, passes)
    assert "?" not in (told.leads_to or "")


def test_a_write_that_goes_on_is_no_refusal() -> None:
    assert refusal_of(Answer(308, {"range": "bytes=0-99"})) is None
    assert refusal_of(Answer(200, {})) is None


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"<html>", b'{"kind": "storage#buckets"}', b'{"items": 3}']
)
def test_a_page_of_something_else_is_no_empty_bucket(content: bytes) -> None:
    with pytest.raises(Nonsense):
        CALLS.listed(Answer(200, {}, content))


@pytest.mark.parametrize("end", ["2999-13-45T00:00:00Z", "soon", 5])
def test_a_retention_whose_end_cannot_be_read_has_none(end: object) -> None:
    item = {"name": "rec/k", "generation": "1", "size": "1", "retentionExpirationTime": end}
    (seen,) = CALLS.listed(
        Answer(200, {}, json.dumps({"kind": "storage#objects", "items": [item]}).encode())
    ).objects
    assert seen.locked_until is not None and seen.locked_until.year == 9999


def test_a_long_write_goes_on_at_our_own_address_whatever_the_server_names() -> None:
    told = {"location": "http://elsewhere.example/upload/storage/v1/b/x/o?upload_id=a%2Fb"}
    upload = CALLS.begun(Answer(200, told))
    assert (upload.path, upload.query) == ("/upload/storage/v1/b/x/o", (("upload_id", "a/b"),))
    for location in ("", "http://x.example", "nonsense"):
        with pytest.raises(Nonsense):
            CALLS.begun(Answer(200, {"location": location}))


# ── on the stand-in ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def writer(strict_gcs: GcsStandIn, tmp_path: Path) -> GcsWriter:
    found = GcsWriter(make_store("strict_gcs", strict_gcs.url, tmp_path))
    found.conditions().find_out("create", "delete", "parts")
    return found


def put(writer: GcsWriter, key: str, content: bytes = b"x") -> Seen:
    return writer.create(key, iter([content]), len(content), {}, "video/mp4").seen


def test_a_batch_tells_what_became_of_each(writer: GcsWriter, strict_gcs: GcsStandIn) -> None:
    seen = {key: put(writer, f"b/{key}?&=/é") for key in ("goes", "changed", "gone", "held")}
    bucket = gcs_client(strict_gcs.url).bucket(writer.store.bucket)

    def name(key: str) -> str:
        return writer.store.prefix + seen[key].key

    bucket.blob(name("changed")).upload_from_string(b"other")
    bucket.delete_blob(name("gone"))
    held = bucket.get_blob(name("held"))
    held.temporary_hold = True
    held.patch()
    assert writer.delete_batch(list(seen.values())) == [
        Deletion.DELETED,
        Deletion.CHANGED,
        Deletion.GONE,
        Deletion.LOCKED,
    ]
    assert sorted(each.key for each in writer.list()) == [seen["changed"].key, seen["held"].key]


def test_a_batch_takes_a_hundred_in_one_call(writer: GcsWriter, strict_gcs: GcsStandIn) -> None:
    seen = [put(writer, f"many/{number:03}") for number in range(230)]
    before = len(strict_gcs.requests)
    assert writer.delete_batch(seen) == [Deletion.DELETED] * 230
    calls = [path for _, path, _ in strict_gcs.requests[before:] if path.startswith("/batch")]
    assert len(calls) == 3 and list(writer.list()) == []


def test_what_a_batch_does_not_tell_of_is_not_known(writer: GcsWriter) -> None:
    seen = put(writer, "k")
    for page in (b"", b"<html>", b"--x\r\n\r\n"):
        intercept(writer, "DeleteObjects", lambda _, page=page: Answer(200, {}, page))  # type: ignore[misc]
        (outcome,) = writer.delete_batch([seen])
        assert isinstance(outcome, StoreFailure) and not outcome.refused


def test_one_call_of_a_batch_that_fails_is_not_known(
    writer: GcsWriter, strict_gcs: GcsStandIn
) -> None:
    seen = [put(writer, "a"), put(writer, "b")]
    strict_gcs.fail_next("DELETE", "/a", 503)
    first, second = writer.delete_batch(seen)
    assert isinstance(first, StoreFailure) and not first.refused and "503" in first.message
    assert second is Deletion.DELETED


def test_a_batch_whose_answer_was_lost_is_done(writer: GcsWriter, strict_gcs: GcsStandIn) -> None:
    seen = [put(writer, "a"), put(writer, "b")]
    strict_gcs.fail_next("POST", "/batch", 0, after=True)
    assert writer.delete_batch(seen) == [Deletion.DELETED, Deletion.DELETED]


CONTENT = bytes(range(256)) * (20 * MiB // 256)


def stream() -> Iterator[bytes]:
    return (CONTENT[at : at + MiB] for at in range(0, len(CONTENT), MiB))


def puts(change: Callable[[Request], Request | Answer]) -> Callable[[Request], Request | Answer]:
    return lambda request: change(request) if request.method == "PUT" else request


def test_a_long_write_goes_on_from_what_the_server_kept(writer: GcsWriter) -> None:
    cut = [True]

    def less(request: Request) -> Request:
        """The server takes one MiB of the first piece."""
        if not cut.pop() if cut else True:
            return request
        headers = request.headers | {"content-range": f"bytes 0-{MiB - 1}/*"}
        return dataclasses.replace(request, headers=headers, body=bytes(request.body[:MiB]))

    intercept(writer, None, puts(less))
    look = writer.create("long", stream(), len(CONTENT), {}, "video/mp4")
    assert not cut and look.checksum is not None and look.checksum.value == crc32c_of(CONTENT)
    assert b"".join(writer.read(look.seen)) == CONTENT


@pytest.mark.parametrize("status", [0, 503])
def test_a_long_write_whose_last_answer_was_lost_is_done(
    writer: GcsWriter, strict_gcs: GcsStandIn, status: int
) -> None:
    strict_gcs.fail_next("PUT", "upload_id", status, times=1, after=True)
    look = writer.create("long", stream(), len(CONTENT), {}, "video/mp4")
    strict_gcs.faults.clear()
    assert b"".join(writer.read(look.seen)) == CONTENT


@pytest.mark.parametrize("kept", ["bytes=0-1", "bytes=0-99999999", "", "bytes=7-9"])
def test_a_long_write_that_does_not_go_on_fails(writer: GcsWriter, kept: str) -> None:
    intercept(writer, None, puts(lambda _: Answer(308, {"range": kept})))
    with pytest.raises(StoreFailed):
        writer.create("long", stream(), len(CONTENT), {}, "video/mp4")
    assert writer.look("long") is None


def test_what_is_taken_while_a_long_write_goes_on_stays(writer: GcsWriter) -> None:
    def slowly() -> Iterator[bytes]:
        yield from stream()
        put(writer, "raced", b"another")

    with pytest.raises(KeyTaken):
        writer.create("raced", slowly(), None, {}, "video/mp4")
    look = writer.look("raced")
    assert look is not None and look.seen.size == 7


def test_a_stream_that_breaks_gives_its_upload_up(
    writer: GcsWriter, strict_gcs: GcsStandIn
) -> None:
    def breaking() -> Iterator[bytes]:
        yield from (bytes(MiB) for _ in range(9))
        raise RuntimeError("the source broke")

    before = len(strict_gcs.requests)
    with pytest.raises(RuntimeError):
        writer.create("broken", breaking(), None, {}, "video/mp4")
    assert ("DELETE", "upload_id") in [
        (method, name) for method, _, query in strict_gcs.requests[before:] for name in query
    ]


# ── whose credentials ───────────────────────────────────────────────────────────────────────────


@pytest.fixture
def no_google(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without credentials of Google."""
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "CLOUDSDK_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    return tmp_path


GOOGLE = Store("cold", "gs://acme-cold/100ms")


def test_without_credentials_the_error_says_so(no_google: Path) -> None:
    for store in (GOOGLE, dataclasses.replace(GOOGLE, endpoint="https://storage.example.com")):
        with pytest.raises(CredentialsRefused, match="there are no Google credentials"):
            GcsAccount(store)


@pytest.mark.parametrize("endpoint", [None, "https://restricted.googleapis.com"])
def test_user_credentials_need_no_project_and_an_endpoint_is_not_anonymous(
    no_google: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str | None
) -> None:
    user = {
        "type": "authorized_user",
        "client_id": "c.apps.googleusercontent.com",
        "client_secret": "s",
        "refresh_token": "r",
    }
    (no_google / "user.json").write_text(json.dumps(user))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(no_google / "user.json"))
    for impersonate in (None, "keeper@acme.iam.gserviceaccount.com"):
        account = GcsAccount(
            dataclasses.replace(GOOGLE, endpoint=endpoint, impersonate=impersonate)
        )
        assert account._credentials is not None
        account._credentials.token = "a-token"  # as if it had been renewed
        account._credentials.expiry = datetime(2999, 1, 1, tzinfo=UTC).replace(tzinfo=None)
        address, headers = account.address(Request("GET", "/storage/v1/b/acme-cold"))
        assert headers["authorization"] == "Bearer a-token"
        assert address.startswith(endpoint or "https://storage.googleapis.com/")


class Renewable(Credentials):
    """Google's, as a metadata server gives them: each token is good until it says so."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def refresh(self, request: object) -> None:
        self.count += 1
        self.token = f"token-{self.count}"
        self.expiry = datetime(2999, 1, 1, tzinfo=UTC).replace(tzinfo=None)


def test_a_token_that_is_refused_before_its_time_is_renewed_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A machine whose clock is behind takes an ended token for a good one."""
    credentials = Renewable()
    monkeypatch.setattr("google.auth.default", lambda scopes: (credentials, None))
    account, good = GcsAccount(GOOGLE), {"Bearer token-2"}
    account.address(Request("GET", "/"))
    account._renewed_at -= 3000
    wire, asked = Wire(account, "storage", Stop()), []

    def send(request: Request) -> Any:
        bearer = account.address(request)[1]["authorization"]
        asked.append(bearer)
        status = 200 if bearer in good else 401
        return HTTPResponse(BytesIO(b"{}"), {}, status, preload_content=False)

    monkeypatch.setattr(wire, "_send", send)
    assert wire.ask(Request("GET", "/")).status == 200
    assert asked == ["Bearer token-1", "Bearer token-2"]
    good.clear()
    assert wire.ask(Request("GET", "/")).status == 401  # a new token is not refused for its age
    assert (asked[2:], credentials.count) == (["Bearer token-2"], 2)


def test_what_is_asked_without_tls_never_gets_a_token(
    no_google: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = GcsAccount(dataclasses.replace(GOOGLE, endpoint="http://127.0.0.1:4443"))
    assert "authorization" not in account.address(Request("GET", "/"))[1]
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "127.0.0.1:4443")
    assert GcsAccount(GOOGLE).address(Request("GET", "/x"))[0] == "http://127.0.0.1:4443/x"
    assert os.environ["STORAGE_EMULATOR_HOST"]


def test_what_a_bucket_honours_is_found_out_once_a_day(
    strict_gcs: GcsStandIn, tmp_path: Path, api: StandIn
) -> None:
    project = make_project(tmp_path / "project", api, "strict_gcs", strict_gcs.url)
    counts = []
    for name in ("a" * 24, "b" * 24):
        project.hosted(name, video(1))
        project.plan()
        before = len(strict_gcs.requests)
        assert project.apply()["copied"] == 1
        counts.append(len(strict_gcs.requests) - before)
    assert counts[1] <= 12 < counts[0], counts


def test_what_calls_before_have_deleted_is_told_where_a_later_one_is_refused(
    writer: GcsWriter, strict_gcs: GcsStandIn
) -> None:
    seen = [put(writer, f"many/{number:03}") for number in range(130)]
    ask, made = writer.wire.ask, []

    def second_refused(request: Request) -> Answer:
        made.append(request.path)
        if made.count("/batch/storage/v1") == 2 and request.path.startswith("/batch"):
            return Answer(403, {}, error(403, "quotaExceeded"))
        return ask(request)

    writer.wire.ask = second_refused  # type: ignore[method-assign]
    outcomes = writer.delete_batch(seen)
    assert outcomes[:100] == [Deletion.DELETED] * 100
    assert all(isinstance(each, StoreFailure) and each.refused for each in outcomes[100:])
