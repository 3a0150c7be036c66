"""What strangers found: hostile text, answers and files, each with the right value (issue 11;
reviews of 2026-11-28)."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import servers
from conftest import intercept, make_store, make_writer
from fault_proxy import FaultProxy
from hypothesis import given
from hypothesis import strategies as st
from project import POLICY, ROOM, Project, make_project, pairs, video
from records import open_intents, remove

from retainer.demo.standin import StandIn
from retainer.journal.ledger import Ledger
from retainer.model.anchors import (
    ANCHORS_BYTES,
    Anchor,
    deleted_lately,
    read_anchors,
    write_anchors,
)
from retainer.model.calendar import changes, start_of_day, zone_named, zone_names
from retainer.model.moment import read_http_date
from retainer.model.printable import printable, shown
from retainer.plan import matching
from retainer.sources.connections import host_of, is_local
from retainer.sources.words import said_in
from retainer.stop import Stop, Stopped
from retainer.stores.wire import Request

A, B, C = "a" * 24, "b" * 24, "c" * 24


@pytest.fixture
def due(local: Project) -> Project:
    return local.copied_and_due(A, B)


def hold(**match: Any) -> dict[str, Any]:
    return POLICY | {"holds": [{"id": "LIT-1", "why": "court", "match": match, "in": "vault"}]}


# ── holds that are newer than the plan ────────────────────────────────────────────────────────────


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/Los_Angeles"])
def test_a_newer_hold_by_date_holds_in_every_zone_that_a_machine_may_be_in(
    due: Project, zone: str
) -> None:
    (row,) = [
        each
        for each in due.plan("q.plan")["rows"]
        if (each["asset_id"], each["store"]) == (A, "uploads")
    ]
    created = datetime.fromisoformat(row["created"])
    around = [f"{created + timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%SZ}" for minutes in (-1, 1)]
    due.write(hold(created=dict(zip(("after", "before"), around, strict=True))))
    done = subprocess.run(
        due.command("apply", "q.plan", "--approve-deletes", "1"),
        cwd=due.root,
        env=due.env() | {"TZ": zone},
        check=False,
        capture_output=True,
        text=True,
    )
    assert "is newer than the plan and" in done.stdout and len(due.content("uploads")) == 2


def test_a_newer_hold_on_what_a_plan_cuts_off_of_a_path_holds(local: Project) -> None:
    local.uploaded(A, video(1))
    local.uploaded(B, video(2), age=timedelta(days=2))
    local.plan("copies.plan")
    local.apply("copies.plan")
    local.api.add_asset(
        {
            **local._asset(
                A,
                video(1),
                timedelta(days=60),
                "room-composite",
                local.stores["uploads"].base + f"beam/{ROOM}/Rec-{A}.mp4?case=7",
                {},
            )
        },
        video(1),
        hosted=False,
    )
    plan = local.plan("q.plan")
    local.write(hold(path="*case=7"))
    done = local.apply("q.plan", "--approve-deletes", str(plan["header"]["deletes"]), expect=None)
    assert done.get("deleted", 0) == 0 and len(local.content("uploads")) == 2


def test_a_warning_in_a_policy_stops_no_delete(due: Project) -> None:
    due.write(
        POLICY
        | {
            "rules": [
                *POLICY["rules"],
                {
                    "id": "x",
                    "match": {"room": "board, legal"},
                    "keep": [{"in": "vault", "for": "1y"}],
                },
            ]
        }
    )
    plan = due.plan("q.plan")
    assert due.apply_all("q.plan", plan)["deleted"] == 1


def test_an_id_holds_in_whatever_unicode_form_it_is_written(local: Project) -> None:
    told = {"user_id": "jose\u0301", "metadata": {"classe\u0301": "x"}}
    local.uploaded(A, video(1), **told)
    local.uploaded(B, video(2), age=timedelta(days=2))
    local.plan("copies.plan")
    local.apply("copies.plan")
    for match in (
        {"user_id": "jose\u0301"},
        {"user_id": "jos\u00e9"},
        {"metadata": {"class\u00e9": "x"}},
        {"metadata": {"classe\u0301": "x"}},
    ):
        local.write(hold(**match))
        assert pairs(local.plan("q.plan"))[A, "uploads"] == "blocked", match


def test_limits_that_become_smaller_while_a_run_copies_are_kept(
    due: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retainer.apply import deletes as running

    delete_all = running.Deletes.make

    def meanwhile(self: running.Deletes, each: running.Each) -> None:
        due.limits = {"count": 0, "percent": 100, "bytes": "1TB"}
        due.write()
        delete_all(self, each)

    monkeypatch.setattr(running.Deletes, "make", meanwhile)
    assert due.apply("p.plan", "--approve-deletes", "1", expect=7)["deleted"] == 0


# ── killed in the middle ──────────────────────────────────────────────────────────────────────────


def test_what_a_killed_delete_moved_aside_is_put_back_where_a_hold_covers_it_by_now(
    due: Project,
) -> None:
    child = (
        "import os, pathlib, sys\nunlink = pathlib.Path.unlink\ndef dying(self, *words, "
        "**named):\n    os.kill(os.getpid(), 9) if '/going/' in str(self) else None\n    return "
        "unlink(self, *words, **named)\npathlib.Path.unlink = dying\nsys.argv = ['retainer', "
        "'apply', 'p.plan', '--approve-deletes', '1']\nfrom retainer.cli import main\nmain()\n"
    )
    subprocess.run(
        [*due.command()[:1], "-c", child],
        cwd=due.root,
        env=due.env(),
        check=False,
        capture_output=True,
    )
    due.write(hold(asset_id=A))
    due.hosted(C, video(3))
    assert pairs(due.plan("q.plan"))[A, "uploads"] == "blocked"
    done = due.apply("q.plan")
    assert "lies in its place again" in " ".join(done["said"])
    assert {video(1), video(2)} == set(due.content("uploads").values())
    assert open_intents(due.root / ".retainer") == []


def test_a_delete_in_two_halves_counts_once(tmp_path: Path) -> None:
    from retainer.journal.entry import Entry

    now = datetime.now(UTC)
    common = {"row": 1, "store": "vault", "rule": "r", "asset": A}
    halves = [
        Entry(now, "r1", "p", "deleted", common | {"bytes": 3, "partial": True}),
        Entry(now, "r2", "p", "deleted", common | {"bytes": 4}),
    ]
    ledger = Ledger()
    for half in halves:
        ledger.add(half)
    assert ledger.recent_deletes(now) == {("vault", "r"): (1, 7)}


@pytest.mark.parametrize("silent", [False, True])
def test_an_object_of_a_batch_whose_fate_was_not_told_is_looked_at(
    seaweedfs: str, tmp_path: Path, api: StandIn, silent: bool
) -> None:
    with FaultProxy(seaweedfs) as proxy:
        project = make_project(tmp_path / "project", api, "seaweedfs", proxy.url)
        for number in range(3):
            project.uploaded(f"{number:024x}", video(number))
        project.uploaded(B, video(9), age=timedelta(days=2))
        project.plan("copies.plan")
        project.apply("copies.plan")
        plan = project.plan()
        from retainer.stores.s3 import S3Writer

        together = S3Writer._deleted_together

        def altered(self: S3Writer, batch: Any) -> Any:
            from retainer.ports import StoreFailure

            outcomes = together(self, batch)
            outcomes[0] = StoreFailure(
                "S3 answered nothing" if silent else "S3 answered InternalError"
            )
            return outcomes

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(S3Writer, "_deleted_together", altered)
            assert project.apply_all("p.plan", plan)["deleted"] == 3


# ── memory of journals ────────────────────────────────────────────────────────────────────────────


def anchor(minutes: int, *lately: Any) -> Anchor:
    at = datetime(2026, 11, 28, 12, tzinfo=UTC) - timedelta(minutes=minutes)
    return Anchor(1, "0" * 64, f"{at:%Y-%m-%dT%H:%M:%SZ}", "h", "r", tuple(lately))


def test_a_store_remembers_no_more_than_can_be_read_again() -> None:
    now = datetime(2026, 11, 28, 12, tzinfo=UTC)
    many = {f"{number:032x}": anchor(number) for number in range(10_000)}
    content = write_anchors(many, now)
    assert len(content) < ANCHORS_BYTES and f"{0:032x}" in read_anchors(content)


def test_what_was_deleted_within_the_day_is_never_forgotten() -> None:
    from retainer.model.anchors import Lately

    now = datetime(2026, 11, 28, 12, tzinfo=UTC)
    told = Lately("2026-11-28T01:00:00Z", "r", 3, 30)
    anchors = {f"{number:032x}": anchor(number) for number in range(100)} | {
        "f" * 32: anchor(9_000, told)
    }
    assert deleted_lately(read_anchors(write_anchors(anchors, now)), now, None)[1] == [("r", 3, 30)]


@pytest.mark.parametrize("quiet", [("apply", "q.plan"), ("verify", "vault")])
def test_a_lost_record_is_not_forgotten_by_a_run_that_deletes_nothing(
    due: Project, quiet: tuple[str, ...]
) -> None:
    (due.root / ".retainer").rename(due.root / "away")
    due.hosted(C, video(3))
    due.plan("q.plan", expect=4)
    due.run(*quiet, expect=None)
    assert due.plan("r.plan", expect=4)["header"]["held_back"] == ["record of vault"]


def test_a_lifted_record_forgets_no_delete_of_the_day(due: Project) -> None:
    due.limits = {"count": 1, "percent": 100, "bytes": "1TB"}
    due.write()
    assert due.apply_all("p.plan", due.plan("p.plan"))["deleted"] == 1
    due.uploaded(C, video(3))
    due.plan("q.plan", expect=None)
    due.apply("q.plan", expect=None)
    remove(due.root / ".retainer")
    plan = due.plan("r.plan", "--lift", "record:vault", "--lift", "record:uploads", expect=4)
    assert [
        limit["used"]
        for limit in plan["header"]["limits"]
        if (limit["name"], limit["scope"]) == ("count", "store:uploads")
    ] == [2]


def test_a_damaged_memory_can_be_lifted_and_is_written_anew(due: Project) -> None:
    path = Path(due.stores["vault"].prefix) / "_retainer" / "record.json"
    path.write_text("{")
    due.hosted(C, video(3))
    plan = due.plan("q.plan", "--lift", "record:vault")
    assert due.apply_all("q.plan", plan)["copied"] == 1
    assert read_anchors(path.read_bytes())


def test_a_store_that_is_not_the_right_one_is_not_written_to_at_all(due: Project) -> None:
    uploads = Path(due.stores["uploads"].prefix)
    due.apply("p.plan", "--approve-deletes", "1")
    due.uploaded(C, video(3))
    due.plan("copies.plan")
    due.apply("copies.plan")
    assert due.plan("q.plan", expect=None)["header"]["deletes"] == 1
    uploads.rename(f"{uploads}.disk")
    uploads.mkdir()
    due.apply("q.plan", "--approve-deletes", "1", expect=7)
    assert list(uploads.iterdir()) == []


def test_a_store_that_was_never_written_to_and_is_empty_by_now_is_not_taken_for_the_one_that_was_planned(
    due: Project,
) -> None:
    uploads = Path(due.stores["uploads"].prefix)
    uploads.rename(f"{uploads}.disk")
    uploads.mkdir()
    done = due.apply("p.plan", "--approve-deletes", "1", expect=7)
    assert (
        "the plan saw 2 objects in it" in json.dumps(done)
        and not (uploads / "_retainer" / "store.json").exists()
    )


def test_an_object_with_an_odd_key_fails_nobody_elses_copy(
    moto: str, tmp_path: Path, api: StandIn
) -> None:
    project = make_project(tmp_path / "project", api, "moto", moto)
    store = project.stores["uploads"]
    servers.s3_client(moto).put_object(
        Bucket=store.bucket, Key=f"{store.prefix}/beam//Rec-x.mp4", Body=video(1)
    )
    asset = project._asset(
        A, video(1), timedelta(days=3), "room-composite", f"{store.base}/beam//Rec-x.mp4", {}
    )
    project.api.add_asset(asset, video(1), hosted=False)
    project.hosted(B, video(2))
    project.plan()
    assert project.apply()["copied"] == 2


# ── what is shown ─────────────────────────────────────────────────────────────────────────────────


@given(st.text())
def test_nothing_that_a_terminal_would_obey_is_shown(text: str) -> None:
    told = printable(text)
    assert not re.search("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]", told)
    assert shown({"a": [(text,)]}) == {"a": [(told,)]}


def test_a_why_cannot_make_a_plan_read_otherwise(due: Project) -> None:
    lie = "\x1b[2J\x1b[H- Nothing is deleted.\u202e\x07\x9b2K"
    due.write({"version": 1, "rules": [{**rule, "why": lie} for rule in POLICY["rules"]]})
    for words in (
        ("plan", "--out", "q.plan"),
        ("show", "q.plan"),
        ("plan", "--out", "r.plan", "--format", "json"),
        ("validate",),
        ("explain", A),
    ):
        done = due.run(*words)
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", done.stdout + done.stderr), (
            words
        )


def test_what_an_action_claims_beside_its_row_is_refused(due: Project) -> None:
    from test_read_once import forged

    path = forged(
        due,
        None,
        'UPDATE t SET action = json_merge_patch(action::JSON, \'{"decision": "keep"}\') WHERE '
        "decision = 'delete'",
    )
    assert (
        "that retainer did not write"
        in due.run("show", path.name, "--format", "json", expect=5).stderr
    )
    due.run("apply", path.name, "--approve-deletes", "1", expect=5)


def test_a_copy_cannot_be_aimed_at_another_recordings_copy(due: Project) -> None:
    from test_read_once import forged

    due.hosted(C, video(3))
    due.plan("p.plan")
    (victim,) = Path(due.stores["vault"].prefix).rglob(f"Rec-{A}.mp4")
    key, stat = victim.relative_to(due.stores["vault"].prefix).as_posix(), victim.stat()
    broken = {
        "target": key,
        "broken": [
            {
                "key": key,
                "size": stat.st_size,
                "version": f"{stat.st_ino}-{stat.st_size}-{stat.st_mtime_ns}",
            }
        ],
    }
    path = forged(
        due,
        None,
        f"UPDATE t SET action = json_merge_patch(action::JSON, '{json.dumps(broken)}') WHERE "
        "decision = 'copy'",
    )
    before = victim.read_bytes()
    due.run("apply", path.name, expect=5)
    assert victim.read_bytes() == before


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("see https://x.example/a?X-Amz-Signature=abc", "see …"),
        ("see https&#x3A;&#x2F;&#x2F;x.example/a", "see …"),
        ("bad request X-Amz-Signature=abc&X-Amz-Date=2", "bad request …"),
        ("room 'Jane Doe' is not there", "… is not there"),
        ("the bucket 'acme' is not there", "the bucket 'acme' is not there"),
        ("jane@example.org may not", "… may not"),
    ],
)
def test_a_servers_words_are_told_without_what_is_nobodys_business(said: str, told: str) -> None:
    assert said_in(json.dumps({"code": 400, "message": said})) == told


# ── the network ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "address, local",
    [
        ("http://127.0.0.1/x", True),
        ("http://169.254.169.254/latest", True),
        ("http://10.1.2.3", True),
        ("http://[::1]/", True),
        ("http://[fd00::1]/", True),
        ("https://8.8.8.8/", False),
        ("http://0.0.0.0/", True),
        ("http://100.64.0.1/", True),
        ("http://[64:ff9b::a00:1]/", True),
        ("http://[64:ff9b::808:808]/", False),
        ("http://[2002:7f00:1::]/", True),
        ("http://[::127.0.0.1]/", True),
    ],
)
def test_an_address_on_this_machine_or_in_a_private_network_is_known(
    address: str, local: bool
) -> None:
    assert is_local(address) is local


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1\\@8.8.8.8/x",
        "http://8.8.8.8 /x",
        "http://8.8.8.8\t/x",
        "http://[::1",
        "http:///x",
    ],
)
def test_an_address_that_readers_take_for_two_hosts_is_none(address: str) -> None:
    assert host_of(address) is None


@pytest.mark.parametrize(
    "text, moment",
    [
        ("Sat, 28 Nov 2026 10:00:00 GMT", "10:00"),
        ("Sat, 28 Nov 2026 10:00:00 -0000", "10:00"),
        ("Sat, 28 Nov 2026 10:00:00", "10:00"),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_a_date_of_http_is_utc_or_none(text: Any, moment: str | None) -> None:
    found = read_http_date(text)
    assert (f"{found:%H:%M}" if found else None) == moment


def test_a_list_whose_cursors_never_end_is_unfinished(local: Project) -> None:
    from retainer.errors import ListingBroken
    from retainer.sources.api import Credentials, HmsApi

    api = HmsApi(local.api.url, Credentials(token="t"))
    pages = iter(range(10**6))
    rows = [{"id": f"{number}"} for number in range(100)]
    api._get = lambda path, query: {"limit": 100, "data": rows, "last": f"c{next(pages)}"}  # type: ignore[method-assign]
    with pytest.raises(ListingBroken, match="has no end"):
        list(api.assets("chat"))


def test_an_answer_that_unpacks_to_more_than_it_may_is_none() -> None:
    import zlib

    from retainer.sources.answers import Spent, _unpacked

    packer = zlib.compressobj(9, 8, 31)
    bomb = packer.compress(b" " * (8 << 20)) + packer.flush()
    with pytest.raises(Spent):
        _unpacked(bomb, 1 << 20)


@pytest.mark.slow
def test_a_body_that_is_longer_than_its_record_ends_at_once(local: Project) -> None:
    local.hosted(A, video(1, 5000), size=3000)
    local.api.faults.no_length = {"*": 99}
    local.plan()
    done = local.apply("p.plan", expect=7)
    assert done["copied"] == 0 and "more than 3000 bytes came" in done["failed"][0]["cause"]


# ── stop ──────────────────────────────────────────────────────────────────────────────────────────


def test_stop_ends_every_wait() -> None:
    stop = Stop()
    stop.ask()
    began = time.monotonic()
    with pytest.raises(Stopped):
        stop.wait(60)
    assert time.monotonic() - began < 1
    with pytest.raises(Stopped):
        stop.check()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("words", [("plan",), ("apply", "p.plan")])
def test_a_command_that_waits_for_100ms_ends_within_seconds(
    local: Project, number: int, words: tuple[str, ...]
) -> None:
    local.hosted(A, video(1))
    local.plan()
    local.api.faults.rate_429, local.api.faults.retry_after = 1.0, 45
    process = subprocess.Popen(
        local.command(*words),
        cwd=local.root,
        env=local.env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(3)
    process.send_signal(number)
    began = time.monotonic()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and time.monotonic() - began < 12
    assert "Traceback" not in err and ("interrupted" in err or "stopping" in err)


# ── calendars and matches ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "zone, day, begins",
    [
        ("Antarctica/Casey", date(2023, 3, 9), "2023-03-08 13:00"),
        ("Antarctica/Vostok", date(2023, 12, 18), "2023-12-17 17:00"),
        ("America/Sao_Paulo", date(2018, 11, 4), "2018-11-04 03:00"),
        ("America/Havana", date(2025, 11, 2), "2025-11-02 04:00"),
        ("America/Havana", date(2025, 3, 9), "2025-03-09 05:00"),
        ("Pacific/Apia", date(2011, 12, 30), "2011-12-30 10:00"),
        ("Africa/Cairo", date(2024, 4, 26), "2024-04-25 22:00"),
        ("UTC", date(2026, 1, 1), "2026-01-01 00:00"),
    ],
)
def test_a_day_begins_at_its_first_instant(zone: str, day: date, begins: str) -> None:
    assert f"{start_of_day(day, zone_named(zone)):%Y-%m-%d %H:%M}" == begins


@pytest.mark.parametrize(
    "name",
    ["localtime", "posix/Europe/Berlin", "right/Europe/Berlin", "Nowhere", "../etc/passwd", ""],
)
def test_what_the_package_does_not_have_is_no_zone(name: str) -> None:
    with pytest.raises(ValueError, match="is not a time zone"):
        zone_named(name)


@given(st.sampled_from(sorted(zone_names())), st.integers(0, 12 * 365))
def test_an_instant_lies_in_the_day_that_the_offsets_say(name: str, day: int) -> None:
    zone, moment = (
        zone_named(name),
        datetime(2015, 1, 2, 3, 15, tzinfo=UTC) + timedelta(days=day, hours=day % 24),
    )
    offset = [
        shift
        for since, shift in changes(
            zone, datetime(2015, 1, 1, tzinfo=UTC), datetime(2028, 1, 1, tzinfo=UTC)
        )
        if since <= moment
    ][-1]
    assert (moment + offset).date() == moment.astimezone(zone).date()


@pytest.mark.slow
def test_many_rules_decide_as_a_few_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worlds of the laws, with every match looked at by itself, and with those that name
    something joined by what they name."""
    from test_laws import examples, rows_of

    for example in examples(60):
        few = rows_of(example.case)
        with monkeypatch.context() as patch:
            patch.setattr(matching, "FEW", 0)
            assert rows_of(example.case) == few


def test_locks_that_hold_on_ceph_take_a_bare_etag(moto: str, tmp_path: Path) -> None:
    """Ceph RGW 16.2.15 takes an ETag in If-Match of a PUT only without its quotes; here a server
    that does so is played to the writer."""
    writer = make_writer(make_store("moto", moto, tmp_path))

    def as_ceph(request: Request) -> Request:
        tag = request.headers.get("if-match")
        if tag is None:
            return request
        read = '"00000000000000000000000000000000"' if tag.startswith('"') else f'"{tag}"'
        return replace(request, headers={**request.headers, "if-match": read})

    intercept(writer, "PutObject", as_ceph)
    assert writer.conditions().replace
    seen = writer.create("_retainer/lock", iter([b"one"]), 3, {}, "application/json").seen
    renewed = writer.replace(seen, b"two")
    assert renewed is not None and writer.replace(seen, b"three") is None
