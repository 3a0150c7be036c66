"""The S3 protocol as values: requests beside botocore's own, signatures beside botocore's own, and
what answers mean."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from xml.etree import ElementTree

import boto3
import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from conftest import intercept, make_store

from retainer.errors import StoreFailed
from retainer.model.setting import Store
from retainer.ports import Checksum, Seen
from retainer.stores.calls import Described, Nonsense
from retainer.stores.parts import PART, Buffers, Parts, crc32c_of
from retainer.stores.s3 import S3Writer
from retainer.stores.s3_answers import PartMade, refusal_of
from retainer.stores.s3_calls import S3Calls
from retainer.stores.sigv4 import encoded_path, encoded_query, signed
from retainer.stores.verdict import Verdict
from retainer.stores.wire import Answer, NoAnswer, Request

STORE = Store(
    "vault",
    "s3://acme-vault/rec",
    region="eu-west-1",
    endpoint="http://127.0.0.1:9",
    storage_class="STANDARD_IA",
    storage_class_from=0,
    kms_key="alias/evidence",
    tags=(("team", "a&b"), ("kept", "7 y")),
    cache_control="private",
    lock="governance",
)
CALLS = S3Calls(STORE, "/acme-vault")
UNTIL = datetime(2033, 11, 28, 1, 2, 3, tzinfo=UTC)
KEY = "room-composite/2026/a b+c&d=é%20/x'\"~.mp4"
NEW = Described(KEY, 5, {"retainer-record": '{"a":  1}'}, "video/mp4", UNTIL)
SEEN = Seen("beam/Rec 1+2.mp4", 9, "0123abcd")
PLACE = {"Bucket": "acme-vault", "Key": f"rec/{KEY}"}
DESCRIBED = {
    "Metadata": {"retainer-record": '{"a":  1}'},
    "ContentType": "video/mp4",
    "StorageClass": "STANDARD_IA",
    "ServerSideEncryption": "aws:kms",
    "SSEKMSKeyId": "alias/evidence",
    "Tagging": "team=a%26b&kept=7+y",
    "CacheControl": "private",
    "ObjectLockMode": "GOVERNANCE",
    "ObjectLockRetainUntilDate": UNTIL,
}
CRC = crc32c_of(b"hello")
COPIED = {
    "CopySource": {"Bucket": "acme-vault", "Key": f"rec/{SEEN.key}"},
    "CopySourceIfMatch": '"0123abcd"',
}
PART_LIST = [{"PartNumber": 1, "ETag": '"e1"', "ChecksumCRC32C": CRC}]
CASES: dict[str, tuple[Request, str, dict[str, Any]]] = {
    "list": (
        CALLS.list("a b/", None),
        "list_objects_v2",
        {
            "Bucket": "acme-vault",
            "Prefix": "rec/a b/",
            "EncodingType": "url",
            "OptionalObjectAttributes": ["RestoreStatus"],
        },
    ),
    "list on": (
        CALLS.list("", "to/ken=", extras=False),
        "list_objects_v2",
        {
            "Bucket": "acme-vault",
            "Prefix": "rec/",
            "EncodingType": "url",
            "ContinuationToken": "to/ken=",
        },
    ),
    "look": (CALLS.look(KEY), "head_object", PLACE | {"ChecksumMode": "ENABLED"}),
    "read": (CALLS.read(Seen(KEY, 5, "ab")), "get_object", PLACE | {"IfMatch": '"ab"'}),
    "read on": (
        CALLS.read(Seen(KEY, 5, "ab"), 3),
        "get_object",
        PLACE | {"IfMatch": '"ab"', "Range": "bytes=3-"},
    ),
    "create": (
        CALLS.put(NEW, b"hello", CRC, if_none_match="*"),
        "put_object",
        PLACE
        | DESCRIBED
        | {
            "Body": b"hello",
            "ChecksumCRC32C": CRC,
            "ChecksumAlgorithm": "CRC32C",
            "IfNoneMatch": "*",
        },
    ),
    "replace": (
        CALLS.put(NEW, b"hello", CRC, if_match='"ab"'),
        "put_object",
        PLACE
        | DESCRIBED
        | {
            "Body": b"hello",
            "ChecksumCRC32C": CRC,
            "ChecksumAlgorithm": "CRC32C",
            "IfMatch": '"ab"',
        },
    ),
    "delete": (CALLS.delete(KEY, "ab"), "delete_object", PLACE | {"IfMatch": '"ab"'}),
    "copy": (
        CALLS.copy(CALLS, SEEN, NEW, "crc64nvme", if_none_match="*"),
        "copy_object",
        PLACE
        | DESCRIBED
        | COPIED
        | {
            "IfNoneMatch": "*",
            "MetadataDirective": "REPLACE",
            "TaggingDirective": "REPLACE",
            "ChecksumAlgorithm": "CRC64NVME",
        },
    ),
    "begin": (
        CALLS.begin(NEW, "crc32c"),
        "create_multipart_upload",
        PLACE | DESCRIBED | {"ChecksumAlgorithm": "CRC32C", "ChecksumType": "FULL_OBJECT"},
    ),
    "part": (
        CALLS.part(KEY, "up", 7, b"hello", CRC),
        "upload_part",
        PLACE
        | {
            "UploadId": "up",
            "PartNumber": 7,
            "Body": b"hello",
            "ChecksumCRC32C": CRC,
            "ChecksumAlgorithm": "CRC32C",
        },
    ),
    "copy a part": (
        CALLS.copy_part(CALLS, SEEN, KEY, "up", 2, 3, 8),
        "upload_part_copy",
        PLACE | COPIED | {"UploadId": "up", "PartNumber": 2, "CopySourceRange": "bytes=3-8"},
    ),
    "complete": (
        CALLS.complete(
            KEY,
            "up",
            [PartMade(1, '"e1"', {"ChecksumCRC32C": CRC})],
            Checksum("crc32c", CRC),
            if_none_match="*",
        ),
        "complete_multipart_upload",
        PLACE
        | {
            "UploadId": "up",
            "MultipartUpload": {"Parts": PART_LIST},
            "ChecksumCRC32C": CRC,
            "ChecksumType": "FULL_OBJECT",
            "IfNoneMatch": "*",
        },
    ),
    "abandon": (CALLS.abandon(KEY, "up"), "abort_multipart_upload", PLACE | {"UploadId": "up"}),
    "bucket": (CALLS.bucket(), "head_bucket", {"Bucket": "acme-vault"}),
    "keeping": (CALLS.keeping(), "get_bucket_versioning", {"Bucket": "acme-vault"}),
    "locking": (CALLS.locking(), "get_object_lock_configuration", {"Bucket": "acme-vault"}),
}
NOT_SENT = {
    "user-agent",
    "authorization",
    "x-amz-date",
    "x-amz-content-sha256",
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "content-length",
    "expect",
    "accept-encoding",
    "x-amz-security-token",
    "host",
}


def by_botocore(operation: str, arguments: dict[str, Any]) -> AWSRequest:
    """The request as botocore serializes it, before it is sent."""
    client = boto3.client(
        "s3",
        region_name="eu-west-1",
        endpoint_url="http://127.0.0.1:9",
        aws_access_key_id="AKIA",
        aws_secret_access_key="secret",
        config=Config(
            s3={"addressing_style": "path", "payload_signing_enabled": False},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
    found: list[AWSRequest] = []

    class Sent(Exception):
        pass

    def take(request: Any, **_: Any) -> None:
        found.append(request)
        raise Sent

    client.meta.events.register("before-send.s3", take)
    with pytest.raises(Sent):
        getattr(client, operation)(**arguments)
    return found[0]


def texts(headers: Any) -> dict[str, str]:
    return {
        name.lower(): value.decode() if isinstance(value, bytes) else value
        for name, value in headers.items()
        if name.lower() not in NOT_SENT
    }


def tree(body: bytes) -> Any:
    """XML less the order in which siblings stand."""

    def of(element: ElementTree.Element) -> Any:
        children = sorted((of(child) for child in element), key=repr)
        return element.tag.rpartition("}")[2], (element.text or "").strip(), children

    return of(ElementTree.fromstring(body))


@pytest.mark.parametrize("case", CASES)
def test_a_request_is_the_one_that_botocore_sends(case: str) -> None:
    request, operation, arguments = CASES[case]
    golden = by_botocore(operation, arguments)
    parts = urlsplit(golden.url)
    path = encoded_path(request.path)
    assert (request.method, path.rstrip("/")) == (golden.method, parts.path.rstrip("/"))
    asked = dict(parse_qsl(encoded_query(request.query), keep_blank_values=True))
    told = dict(parse_qsl(parts.query, keep_blank_values=True))
    assert asked == told
    ours, theirs = texts(request.headers), texts(golden.headers)
    ours.pop("content-type", None) if "content-type" not in theirs else None
    ours.pop("x-amz-sdk-checksum-algorithm", None)
    theirs.pop("x-amz-sdk-checksum-algorithm", None)
    if "x-amz-object-lock-retain-until-date" in theirs:
        assert theirs.pop("x-amz-object-lock-retain-until-date").startswith("2033-11-28T01:02:03")
        assert ours.pop("x-amz-object-lock-retain-until-date") == "2033-11-28T01:02:03Z"
    assert ours == theirs
    if request.body and operation == "complete_multipart_upload":
        assert tree(bytes(request.body)) == tree(golden.body)
    elif request.body:
        assert bytes(request.body) == b"hello"


@pytest.mark.parametrize("token", [None, "a session/token=="])
@pytest.mark.parametrize("case", CASES)
def test_a_signature_is_the_one_that_botocore_makes(
    case: str, token: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, _, _ = CASES[case]
    now = datetime(2026, 11, 28, 9, 8, 7, tzinfo=UTC)
    credentials = Credentials("AKIAEXAMPLE", "se/cr+et", token)
    path, query = encoded_path(request.path), encoded_query(request.query)
    ours = signed(
        request.method,
        "acme.example:9000",
        path,
        query,
        {"user-agent": "retainer", "accept-encoding": "identity", **request.headers},
        credentials.get_frozen_credentials(),
        "eu-west-1",
        now,
    )
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: now.replace(tzinfo=None))
    url = f"http://acme.example:9000{path}{'?' + query if query else ''}"
    theirs = AWSRequest(request.method, url, dict(request.headers), b"")
    theirs.context["payload_signing_enabled"] = False
    theirs.headers["X-Amz-Content-SHA256"] = "UNSIGNED-PAYLOAD"
    auth = botocore.auth.S3SigV4Auth(credentials, "s3", "eu-west-1")
    monkeypatch.setattr(auth, "payload", lambda _: "UNSIGNED-PAYLOAD")
    auth.add_auth(theirs)
    assert ours["authorization"] == theirs.headers["Authorization"]


def error(code: str, message: str = "", **more: str) -> bytes:
    rest = "".join(f"<{name}>{text}</{name}>" for name, text in more.items())
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code>'
        f"<Message>{message}</Message>{rest}</Error>"
    ).encode()


VERDICTS: dict[str, tuple[Answer, Verdict, bool]] = {
    "a HEAD of nothing": (Answer(404, {}), Verdict.MISSING, False),
    "no key": (Answer(404, {}, error("NoSuchKey")), Verdict.MISSING, False),
    "no bucket": (Answer(404, {}, error("NoSuchBucket")), Verdict.OTHER, False),
    "no such upload": (Answer(404, {}, error("NoSuchUpload")), Verdict.OTHER, False),
    "a condition": (Answer(412, {}, error("PreconditionFailed")), Verdict.UNMET, False),
    "a write at the same time": (
        Answer(409, {}, error("ConditionalRequestConflict")),
        Verdict.BUSY,
        False,
    ),
    "no right": (Answer(403, {}, error("AccessDenied", "Access Denied")), Verdict.REFUSED, False),
    "blocked, not locked": (
        Answer(403, {}, error("AccessDenied", "public access is blocked")),
        Verdict.REFUSED,
        False,
    ),
    "locked": (
        Answer(
            403, {}, error("AccessDenied", "Access Denied because object protected by object lock.")
        ),
        Verdict.LOCKED,
        False,
    ),
    "archived": (Answer(403, {}, error("InvalidObjectState")), Verdict.ARCHIVED, False),
    "a token that has ended": (Answer(400, {}, error("ExpiredToken")), Verdict.CREDENTIALS, False),
    "a wrong secret": (Answer(403, {}, error("SignatureDoesNotMatch")), Verdict.CREDENTIALS, False),
    "slow down": (Answer(503, {}, error("SlowDown")), Verdict.BUSY, True),
    "slow down, of a 400": (Answer(400, {}, error("RequestTimeout")), Verdict.BUSY, True),
    "too many": (Answer(429, {}), Verdict.BUSY, True),
    "an error of its own": (Answer(500, {}, error("InternalError")), Verdict.BUSY, True),
    "an error inside a 200": (Answer(200, {}, error("InternalError")), Verdict.BUSY, True),
    "not done there": (Answer(501, {}, error("NotImplemented")), Verdict.CANNOT, False),
    "a header it does not know": (Answer(400, {}, error("InvalidArgument")), Verdict.CANNOT, False),
    "another region": (
        Answer(301, {"x-amz-bucket-region": "eu-central-1"}),
        Verdict.ELSEWHERE,
        False,
    ),
    "another region, of a 400": (
        Answer(400, {}, error("AuthorizationHeaderMalformed", Region="eu-central-1")),
        Verdict.ELSEWHERE,
        False,
    ),
    "a redirect": (Answer(302, {"location": "http://x.example/y?z"}), Verdict.ELSEWHERE, False),
    "a page of something else": (Answer(403, {}, b"<html>Sign in</html>"), Verdict.REFUSED, False),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_an_answer_means_one_thing(case: str) -> None:
    answer, verdict, passes = VERDICTS[case]
    told = refusal_of(answer)
    assert told is not None and told.verdict is verdict
    told = refusal_of(answer)
    assert told is not None and told.may_pass is passes
    assert "?" not in (told.leads_to or "")


def test_what_was_done_is_no_refusal() -> None:
    deleted = b"<DeleteResult><Error><Key>a</Key><Code>AccessDenied</Code></Error></DeleteResult>"
    assert refusal_of(Answer(200, {}, deleted)) is None
    assert refusal_of(Answer(204, {})) is None


PAGE = (
    "<ListBucketResult><Name>b</Name><IsTruncated>{more}</IsTruncated>{rest}"
    "<Contents><Key>rec/a+b%2Bc</Key><Size>3</Size><ETag>&quot;e&quot;</ETag></Contents>"
    "</ListBucketResult>"
)


@pytest.mark.parametrize(
    ("rest", "key"), [("<EncodingType>url</EncodingType>", "a b+c"), ("", "a+b%2Bc")]
)
def test_a_key_is_decoded_only_where_the_page_says_that_it_is_encoded(rest: str, key: str) -> None:
    page = CALLS.listed(Answer(200, {}, PAGE.format(more="false", rest=rest).encode()))
    assert [seen.key for seen in page.objects] == [key] and page.then is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html></html>",
        b"<ListBucketResult></ListBucketResult>",
        b"<ListBucketResult><Name>b</Name></ListBucketResult>",
        PAGE.format(more="true", rest="").encode(),
        PAGE.format(more="false", rest="").replace("<Size>3", "<Size>x").encode(),
        PAGE.format(more="false", rest="")[:-9].encode(),
    ],
)
def test_a_page_of_something_else_is_no_listing(content: bytes) -> None:
    with pytest.raises(Nonsense):
        CALLS.listed(Answer(200, {}, content))


@pytest.mark.parametrize("answer", [Answer(200, {}), Answer(200, {"etag": '"e"'})])
def test_a_look_at_something_else_is_none(answer: Answer) -> None:
    with pytest.raises(Nonsense):
        CALLS.looked("k", answer)


HEAD = {"etag": '"e"', "content-length": "5"}
LOOKS: dict[str, tuple[dict[str, str], Callable[[Any], bool]]] = {
    "archived": ({"x-amz-storage-class": "GLACIER"}, lambda look: look.seen.archived),
    "restored": (
        {
            "x-amz-storage-class": "GLACIER",
            "x-amz-restore": 'ongoing-request="false", expiry-date="x"',
        },
        lambda look: not look.seen.archived,
    ),
    "an archive of Intelligent-Tiering": (
        {"x-amz-storage-class": "INTELLIGENT_TIERING", "x-amz-archive-status": "ARCHIVE_ACCESS"},
        lambda look: look.seen.archived,
    ),
    "a checksum of parts is none of the whole": (
        {"etag": '"e-2"', "x-amz-checksum-crc32c": "AAAAAA==-2"},
        lambda look: look.checksum is None,
    ),
    "a checksum of the whole": (
        {
            "etag": '"e-2"',
            "x-amz-checksum-crc32c": "AAAAAA==",
            "x-amz-checksum-type": "FULL_OBJECT",
        },
        lambda look: look.checksum == Checksum("crc32c", "AAAAAA=="),
    ),
    "a hold without an end": (
        {"x-amz-object-lock-legal-hold": "ON"},
        lambda look: look.seen.locked_until.year == 9999 and look.seen.lock_read,
    ),
    "a lock": (
        {"x-amz-object-lock-retain-until-date": "2033-01-02T03:04:05.000Z"},
        lambda look: look.seen.locked_until == datetime(2033, 1, 2, 3, 4, 5, tzinfo=UTC),
    ),
}


@pytest.mark.parametrize("case", LOOKS)
def test_a_head_says_what_an_object_is(case: str) -> None:
    headers, holds = LOOKS[case]
    assert holds(CALLS.looked("k", Answer(200, HEAD | headers)))


def test_a_delete_of_many_names_each_version_and_keeps_what_xml_would_lose() -> None:
    keys = ["a&b<c>", "line\nbreak\r", 'quote"']
    request = CALLS.delete_many([Seen(key, 1, "e1") for key in keys])
    found = ElementTree.fromstring(bytes(request.body))
    assert [item[0].text for item in found if item.tag.endswith("Object")] == [
        f"rec/{key}" for key in keys
    ]
    assert {item[1].text for item in found if item.tag.endswith("Object")} == {'"e1"'}
    assert base64.b64decode(request.headers["content-md5"])


@pytest.mark.parametrize("chunk", [1_000_003, PART, PART + 1, 3 * PART])
@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 2 * PART, 2 * PART + 7])
def test_a_stream_is_cut_into_parts_of_one_size(chunk: int, size: int) -> None:
    content = bytes(range(251)) * (size // 251 + 1)
    content = content[:size]
    chunks = (content[at : at + chunk] for at in range(0, size, chunk))
    buffers, came = Buffers(1, 1), []
    parts = Parts(chunks, size, buffers)
    for part in parts:
        came.append((bytes(part.body), part.crc32c, part.so_far))
        parts.give_back(part)
    assert b"".join(body for body, _, _ in came) == content
    assert [len(body) for body, _, _ in came[:-1]] == [PART] * (len(came) - 1)
    assert [crc for _, crc, _ in came] == [crc32c_of(body) for body, _, _ in came]
    assert came[-1][2] == crc32c_of(content)
    assert buffers.take() is not None, "the only one was given back each time"


def test_streams_at_once_never_wait_for_each_others_memory() -> None:
    """Eight of several parts with memory for two."""
    buffers, sizes = Buffers(2, 1), [0, 5, PART, PART + 1, 2 * PART, 3 * PART + 7, 9, PART - 1]

    def sent(size: int) -> int:
        chunks = (bytes(min(1 << 20, size - at)) for at in range(0, size, 1 << 20))
        came = 0
        with closing(Parts(chunks, None, buffers)) as parts:
            for part in parts:
                time.sleep(0.01)
                came += part.size
                parts.give_back(part)
        return came

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(sent, sizes, timeout=60)) == sizes


def test_memory_is_given_back_whatever_a_stream_does() -> None:
    def breaking() -> Iterator[bytes]:
        yield bytes(PART + 1)
        raise RuntimeError("the source broke")

    buffers = Buffers(3, 1)
    for _ in range(5):
        with pytest.raises(RuntimeError), closing(Parts(breaking(), None, buffers)) as parts:
            list(parts)
    assert all(buffers.take() is not None for _ in range(3))


def test_a_stream_whose_parts_cannot_be_sent_ends_and_waits_for_no_memory(
    seaweedfs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that failed hold all the memory there is while the next one is cut."""
    monkeypatch.setattr(Parts.__init__, "__defaults__", (Buffers(2, 1),))
    writer = S3Writer(make_store("seaweedfs", seaweedfs, tmp_path))
    writer.conditions().find_out("parts")

    def silent(_: Request) -> Answer:
        raise NoAnswer("gone")

    intercept(writer, "UploadPart", silent)
    for _ in range(3):
        with pytest.raises(StoreFailed):
            writer.create("k", iter([bytes(1 << 20)] * 40), None, {}, "video/mp4")
