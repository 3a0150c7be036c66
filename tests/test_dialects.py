"""Makers of storage whose S3 differs, played by a proxy before SeaweedFS: what they document, and
what a copy must be there all the same."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import servers
from conftest import make_store, make_writer, without
from fault_proxy import FaultProxy
from project import make_project, pairs, video

from retainer.demo.standin import StandIn
from retainer.errors import CredentialsRefused, ListingBroken, StoreFailed
from retainer.journal.lock import LOCK_KEY, Owner, StoreLock
from retainer.stores import s3_account
from retainer.stores.wire import Answer, Request, Wire

SHORT, LONG = "a" * 24, "b" * 24
Refused = Callable[[str, str, Mapping[str, str]], tuple[int, str] | None]


def backblaze(method: str, path: str, headers: Mapping[str, str]) -> tuple[int, str] | None:
    """Backblaze B2 knows no checksum headers, nor attributes of a listing
    (https://www.backblaze.com/docs/cloud-storage-s3-compatible-api)."""
    names = ("x-amz-checksum", "x-amz-sdk-checksum", "x-amz-optional-object-attributes")
    known = not any(name.lower().startswith(names) for name in headers)
    return None if known else (400, "InvalidArgument")


def cloudflare(method: str, path: str, headers: Mapping[str, str]) -> tuple[int, str] | None:
    """Cloudflare R2 has no checksum over a whole upload in parts
    (https://developers.cloudflare.com/r2/api/s3/api/)."""
    whole = headers.get("x-amz-checksum-type") == "FULL_OBJECT" and path.endswith("uploads=")
    return (501, "NotImplemented") if whole else None


MAKERS: dict[str, Refused] = {"Backblaze B2": backblaze, "Cloudflare R2": cloudflare}


@pytest.fixture
def proxy(seaweedfs: str) -> Iterator[FaultProxy]:
    with FaultProxy(seaweedfs) as proxy:
        yield proxy


@pytest.mark.parametrize("maker", MAKERS)
def test_copies_are_made_and_seen_complete_whatever_headers_a_maker_refuses(
    maker: str, proxy: FaultProxy, tmp_path: Path, api: StandIn
) -> None:
    proxy.refuses = MAKERS[maker]
    project = make_project(tmp_path / "project", api, "seaweedfs", proxy.url)
    contents = {SHORT: video(1), LONG: video(2, 20 << 20)}
    for name, content in contents.items():
        project.hosted(name, content)
    project.plan()
    project.apply()
    assert sorted(project.content("vault").values()) == sorted(contents.values())
    plan = project.plan("after.plan")
    assert {decision for (_, store), decision in pairs(plan).items() if store == "vault"} == {
        "keep"
    }


def test_all_parts_but_the_last_have_one_size_however_the_bytes_come(
    proxy: FaultProxy, tmp_path: Path
) -> None:
    """Cloudflare R2 and Backblaze B2 take no others."""
    sizes: list[int] = []

    def note(method: str, path: str, headers: Mapping[str, str]) -> None:
        if method == "PUT" and "partNumber" in path and "/k?" in path:
            sizes.append(int(headers["content-length"]))

    proxy.refuses = note
    writer = make_writer(make_store("seaweedfs", proxy.url, tmp_path))
    chunks = (bytes(size) for size in [333_333, 8 << 20, 1, 9 << 20, 777_777])
    writer.create("k", chunks, None, {}, "video/mp4")
    assert sorted(sizes)[1:] == [8 << 20] * (len(sizes) - 1) and len(sizes) == 3


def test_a_store_that_wants_virtual_hosts_is_told_how_to_get_them(
    proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.refuses = lambda method, path, headers: (
        (403, "SecondLevelDomainForbidden") if headers["host"].startswith("127.") else None
    )
    store = make_store("seaweedfs", proxy.url, tmp_path)
    with pytest.raises(ListingBroken) as caught:
        list(make_writer(store).list())
    assert "addressing: virtual" in (caught.value.hint or "")
    named = dataclasses.replace(
        store, endpoint=proxy.url.replace("127.0.0.1", "s3.lab"), addressing="virtual"
    )
    account = s3_account.S3Account(named)
    assert account.host.startswith(f"{store.bucket}.s3.lab:")
    assert account.calls.look("k").path == f"/{store.prefix}k"


def test_a_role_is_assumed_for_a_store(
    moto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    s3_account.session.cache_clear()
    role = "arn:aws:iam::123456789012:role/archive"
    store = dataclasses.replace(make_store("moto", moto, tmp_path), role_arn=role)
    account = s3_account.S3Account(store)
    assert account._keys().access_key not in (os.environ["AWS_ACCESS_KEY_ID"], "")
    assert account._keys().token, "the credentials of a role have a token"
    assert make_writer(store).create("k", iter([b"x"]), 1, {}, "video/mp4").seen.size == 1
    s3_account.session.cache_clear()


def test_a_profile_that_is_none_is_told(tmp_path: Path, moto: str) -> None:
    store = dataclasses.replace(make_store("moto", moto, tmp_path), profile="no-such")
    with pytest.raises(CredentialsRefused) as caught:
        s3_account.S3Account(store)
    assert "ProfileNotFound" in caught.value.message


def test_a_store_without_object_locks_says_so_with_501(proxy: FaultProxy, tmp_path: Path) -> None:
    """localbucket 1.2.1 answers so (../shared/lab.md)."""
    proxy.refuses = lambda method, path, headers: (
        (501, "NotImplemented") if path.endswith("?object-lock=") else None
    )
    writer = make_writer(make_store("seaweedfs", proxy.url, tmp_path))
    writer.create("k", iter([b"x"]), 1, {}, "video/mp4")
    look = writer.look("k")
    assert look is not None and look.seen.lock_read and not writer.can_lock()


def test_a_lock_is_never_sent_to_a_store_that_does_not_say_that_it_locks(
    proxy: FaultProxy, tmp_path: Path
) -> None:
    """OpenStack Swift, rclone and nanio take the call for a write of its words."""
    sent: list[str] = []
    proxy.refuses = lambda method, path, headers: (
        (501, "NotImplemented") if path.endswith("?object-lock=") else sent.append(path)
    )
    writer = make_writer(make_store("seaweedfs", proxy.url, tmp_path))
    seen = writer.create("k", iter([b"x"]), 1, {}, "video/mp4").seen
    with pytest.raises(StoreFailed):
        writer.lock(seen, datetime(2033, 1, 1, tzinfo=UTC))
    assert not any("retention" in path for path in sent)


def test_what_a_listing_does_not_say_is_archived_is_restored_where_that_is_asked(
    proxy: FaultProxy, tmp_path: Path, api: StandIn
) -> None:
    """The archive tiers of INTELLIGENT_TIERING: listed like anything, and only a read is refused
    (https://docs.aws.amazon.com/AmazonS3/latest/userguide/intelligent-tiering-overview.html)."""
    asked: list[str] = []

    def archived(method: str, path: str, headers: Mapping[str, str]) -> tuple[int, str] | None:
        if path.endswith("?restore"):
            asked.append(path)
            return (202, "")
        read = method == "GET" and f"Rec-{SHORT}" in path
        return (403, "InvalidObjectState") if read else None

    project = make_project(tmp_path / "project", api, "seaweedfs", proxy.url)
    project.uploaded(SHORT, video(1))
    project.plan()
    proxy.refuses = archived
    failed = project.apply(expect=7)["failed"]
    assert "--restore" in failed[0]["hint"] and asked == []
    assert project.apply("p.plan", "--restore")["restored"] == 1 and len(asked) == 1
    proxy.refuses = lambda method, path, headers: None
    project.plan("after.plan")
    assert project.apply("after.plan")["copied"] == 1


# ── locks on servers that differ ────────────────────────────────────────────────────────────────


def owner(run: str) -> Owner:
    return Owner(run, "host", "plan", "state", "journal")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Callable[[Request], Request | Answer]]]:
    """What every call of every writer goes through: another call, or an answer in its place."""
    ask, changes = Wire.ask, []

    def changed(wire: Wire, request: Request) -> Answer:
        for change in changes:
            found = change(request)
            if isinstance(found, Answer):
                return found
            request = found
        return ask(wire, request)

    monkeypatch.setattr(Wire, "ask", changed)
    yield changes


def test_no_lock_is_held_where_too_little_is_honoured_also_if_it_cannot_be_removed(
    seaweedfs: str, tmp_path: Path, asked: list[Callable[[Request], Request | Answer]]
) -> None:
    asked.append(without("if-match"))
    asked.append(lambda request: Answer(403, {}) if request.method == "DELETE" else request)
    lock = StoreLock(make_writer(make_store("seaweedfs", seaweedfs, tmp_path)), owner("a"))
    lock.take()
    assert not lock.holds and not lock.beat()


def test_what_was_found_out_of_a_server_is_remembered_with_how_it_wants_to_be_spoken_to(
    moto: str, tmp_path: Path, asked: list[Callable[[Request], Request | Answer]]
) -> None:
    """Ceph RGW 16.2.15 takes a bare ETag in If-Match of a PUT, and no other."""

    def as_ceph(request: Request) -> Request:
        tag = request.headers.get("if-match")
        if tag is None or request.method != "PUT":
            return request
        read = f'"{"0" * 32}"' if tag.startswith('"') else f'"{tag}"'
        return dataclasses.replace(request, headers={**request.headers, "if-match": read})

    asked.append(as_ceph)
    store = make_store("moto", moto, tmp_path)
    first = make_writer(store)
    StoreLock(first, owner("a")).take()
    known = first.conditions().known
    assert known["replace"] and known["bare_tags"]
    first.delete(first.look(LOCK_KEY).seen)  # type: ignore[union-attr]
    second = make_writer(store)
    second.conditions().recall(known)
    lock = StoreLock(second, owner("b"))
    lock.take()
    before = second.look(LOCK_KEY)
    assert lock.beat() and second.look(LOCK_KEY) != before


def test_a_beat_that_renews_nothing_does_not_count(
    seaweedfs: str, tmp_path: Path, asked: list[Callable[[Request], Request | Answer]]
) -> None:
    lock = StoreLock(make_writer(make_store("seaweedfs", seaweedfs, tmp_path)), owner("a"))
    lock.take()
    beaten = lock._beaten
    asked.append(lambda request: Answer(412, {}) if "if-match" in request.headers else request)
    assert lock.beat() and lock._beaten == beaten, "it is held as long as it was, and no longer"


def test_a_lock_that_somebody_took_away_is_lost(
    seaweedfs: str, tmp_path: Path, asked: list[Callable[[Request], Request | Answer]]
) -> None:
    """AWS answers a write over what is not there with 404, SeaweedFS with 412."""
    writer = make_writer(make_store("seaweedfs", seaweedfs, tmp_path))
    lock = StoreLock(writer, owner("a"))
    lock.take()
    writer.delete(writer.look(LOCK_KEY).seen)  # type: ignore[union-attr]
    no_key = Answer(404, {}, b"<Error><Code>NoSuchKey</Code></Error>")
    asked.append(lambda request: no_key if "if-match" in request.headers else request)
    assert not lock.beat() and not lock.holds


def test_a_key_that_http_would_make_another_one_is_never_sent(
    seaweedfs: str, tmp_path: Path
) -> None:
    writer = make_writer(make_store("seaweedfs", seaweedfs, tmp_path))
    writer.create("b", iter([b"x"]), 1, {}, "video/mp4")
    for key in ("a/../b", "./b", "a/.", ".."):
        with pytest.raises(StoreFailed):
            writer.look(key)
    assert writer.look("b") is not None


def test_an_answer_that_is_another_objects_ends_a_read(
    seaweedfs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not every server honours If-Match of a GET."""
    writer = make_writer(make_store("seaweedfs", seaweedfs, tmp_path))
    seen = writer.create("k", iter([b"first"]), 5, {}, "video/mp4").seen
    servers.s3_client(seaweedfs).put_object(
        Bucket=writer.store.bucket,  # type: ignore[attr-defined]
        Key=f"{writer.store.prefix}k",  # type: ignore[attr-defined]
        Body=b"other",
    )
    send = Wire._send
    monkeypatch.setattr(
        Wire, "_send", lambda wire, request: send(wire, without("if-match")(request))
    )
    with pytest.raises(StoreFailed):
        b"".join(writer.read(seen))


def test_a_store_that_cannot_do_what_a_plan_needs_is_named_once(
    tmp_path: Path, api: StandIn, seaweedfs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rclone 1.75.2 and nanio 0.1.7 ignore the condition of a write."""
    send = Wire._send

    def deaf(wire: Wire, request: Request) -> object:
        ignores = "vault" in request.path and request.method == "PUT"
        return send(wire, without("if-none-match", "if-match")(request) if ignores else request)

    monkeypatch.setattr(Wire, "_send", deaf)
    project = make_project(tmp_path / "project", api, "seaweedfs", seaweedfs)
    project.stores["vault"] = dataclasses.replace(
        project.stores["vault"], url=project.stores["vault"].url + "/vault"
    )
    project.write()
    for number in range(5):
        project.hosted(f"{number:024x}", video(number))
    project.plan()
    done = project.apply(expect=7)
    assert (done["copied"], done["failed"], project.content("vault")) == (0, [], {})
    assert done["impossible"]["vault"]["actions"] == 5
    assert "honours no conditional create" in done["impossible"]["vault"]["cause"]
    assert "failed" not in [line["event"] for line in project.journal()]
    told = project.run("plan").stdout
    assert " ".join(told.split()).count("Not possible for that: 5 copies of this plan") == 1


@pytest.mark.parametrize("changes", [False, True])
def test_an_object_whose_list_tells_another_version_is_copied_while_that_stays(
    tmp_path: Path, api: StandIn, seaweedfs: str, monkeypatch: pytest.MonkeyPatch, changes: bool
) -> None:
    """OpenStack Swift 2.30.1 does so with copies of what was uploaded in parts."""
    tagged = re.compile(rb"(beam/[^<]*/Rec-a+\.mp4</Key>.*?<ETag>)[^<]*(</ETag>)", re.DOTALL)
    ask, shown = Wire.ask, [b"5eed" * 8]

    def otherwise(wire: Wire, request: Request) -> Answer:
        answer = ask(wire, request)
        if ("list-type", "2") not in request.query:
            return answer
        other = rb"\g<1>&quot;" + shown[0] + rb"&quot;\g<2>"
        return dataclasses.replace(answer, content=tagged.sub(other, answer.content))

    monkeypatch.setattr(Wire, "ask", otherwise)
    project = make_project(tmp_path / "project", api, "seaweedfs", seaweedfs)
    project.uploaded(SHORT, video(1, 300_000), age=timedelta(days=2))
    project.plan()
    if changes:
        shown[0] = b"0dd0" * 8
    done = project.apply(expect=7 if changes else 0)
    assert (done["copied"], len(done["skipped"])) == ((0, 1) if changes else (1, 0))
    if not changes:
        assert pairs(project.plan())[SHORT, "vault"] == "keep"


def test_an_upload_whose_end_tells_no_version_is_looked_at_and_read_back(
    tmp_path: Path, api: StandIn, seaweedfs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ceph RGW 16.2.15 answers with an empty ETag, and no checksum."""
    ask, ended = Wire.ask, []

    def silent(wire: Wire, request: Request) -> Answer:
        answer = ask(wire, request)
        if request.method != "POST" or "uploadId" not in dict(request.query):
            return answer
        ended.append(request)
        told = re.sub(rb"<(Checksum\w+)>[^<]*</\1>", b"", answer.content)
        told = re.sub(rb"<ETag>[^<]*</ETag>", b"<ETag></ETag>", told)
        return dataclasses.replace(answer, content=told)

    monkeypatch.setattr(Wire, "ask", silent)
    project = make_project(tmp_path / "project", api, "seaweedfs", seaweedfs)
    project.hosted(SHORT, video(1, 20 << 20))
    project.plan()
    assert project.apply()["copied"] == 1 and ended
    assert list(project.content("vault").values()) == [video(1, 20 << 20)]
    assert pairs(project.plan())[SHORT, "vault"] == "keep"
