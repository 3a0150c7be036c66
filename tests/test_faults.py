"""The fault matrix: every row of docs/reference/faults.md against the stand-in for 100ms, folders, and
SeaweedFS behind a proxy that spoils answers.

The table is the expectation: a test strikes, and its row says what is printed, the exit codes and
the counts. Whatever strikes, nothing false is recorded, and once it is over a new plan and its
apply complete everything. Faults of single recordings, uploads and lists strike together in one
run, each its own, so that the others must go on; all other faults have a run of their own.

1. A body that ends too early without an error (a Content-Length that is too short, the end of the
connection) stays under the copy's own key,
   and every later copy stops at it: "a different object lies there".
2. A body that always breaks off within its first bytes is told as "it does not begin like one", for
it is judged by those bytes.
3. A listing that is answered 200 with no listing in it counts as finished and empty: the plan says
that recordings are lost.
4. A write that is answered 200 with something else ends in a KeyError: the whole run where it is
the lock, the probe or the catalog.
5. 409 for an upload, which asks to try again, is told as "a different object lies there", where
nothing lies.
6. A copy on the server's side whose last answer is lost fails: "something else lies there", which
is the copy.
7. A delete that was done and whose answer was lost is recorded as skipped ("it is gone already"),
and never as deleted.
8. Without room for temporary files the run ends with a traceback.
"""

from __future__ import annotations

import base64
import functools
import gc
import json
import os
import re
import resource
import socket
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import botocore.loaders
import duckdb
import google_crc32c
import pytest
import servers
from conftest import make_writer
from fault_proxy import Fault, FaultProxy, raw_server
from project import POLICY, Project, make_project, video
from records import text_of

from retainer import private, wiring
from retainer.apply.copies import Copies
from retainer.demo.standin import ALWAYS, ERROR_BODY, Faults, StandIn
from retainer.model.catalog import is_whole
from retainer.patience import Patience

pytestmark = pytest.mark.slow

HOSTED, SECOND, CHAT = "a1" + "0" * 22, "a2" + "0" * 22, "a3" + "0" * 22
"""Hosted by 100ms: two composites and a chat."""
OLD, STAYS, LARGE = "b1" + "0" * 22, "b2" + "0" * 22, "b3" + "0" * 22
"""Uploaded to our own bucket: one that is due there once its copy was seen complete, one that
stays, and, in one test, a long one."""
LONG, BIG = video(3, 300_000), video(5, 9 << 20)
"""So long that the servers copy it by themselves, and so long that they do it in parts."""
SHORT = video(7)
"""So short that it is read and written from here."""
CSV = b"SenderPeerID,SenderName,SenderUserID,Roles,SentAt,Type,Message\n"
SIZE = len(video(1))
HALF = SIZE // 2

HTML = b"<!DOCTYPE html><html><body>Sign in to the hotel's network</body></html>"
XML = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>InternalError</Code><Message>We '
    b"encountered an internal error.</Message></Error>"
)

TLS, LOADER = (
    functools.cache(ssl.create_default_context),
    functools.cache(botocore.loaders.create_loader),
)
"""What clients read from the disk, for each of them anew: a tenth of a second that no fault is
about."""

TABLE = Path(__file__).parents[1] / "docs" / "reference" / "faults.md"


# ── the table ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Row:
    """One row of docs/reference/faults.md: fragments of what is printed (`…` stands for anything), exit codes
    by command, and how many of what."""

    says: tuple[str, ...]
    exits: tuple[tuple[str, int], ...]
    counts: Mapping[str, int]

    def fits(self, text: str, events: Counter[str]) -> None:
        # when it leaves 100ms stands between a cause and its hint (tests/test_night.py)
        said = LEAVING.sub("", " ".join(text.split()))
        assert "an unexpected" not in said, text
        for fragment in self.says:
            assert re.search(".*".join(re.escape(part) for part in fragment.split("…")), said), (
                f"not said: {fragment}\n{text}"
            )
        assert {name: events[name] for name in self.counts} == self.counts, text


LEAVING = re.compile(
    r"; (?:it leaves|[0-9,]+ of them leaves?) 100ms(?:, the first)? on \S+ \S+ \S+ \([^)]*\)"
)


@functools.cache
def table() -> dict[str, Row]:
    """The rows by the name of their test. A test has one row, and a row one test."""
    rows: dict[str, Row] = {}
    for line in TABLE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and cells[4].startswith("`test_"):
            name = cells[4].strip("`")
            assert name not in rows, f"two rows for {name}"
            counts = {
                word: int(number)
                for number, word in re.findall(r"(\d+) (copied|failed|deleted|skipped)", cells[3])
            }
            exits = tuple(
                (command, int(code))
                for command, code in re.findall(r"(plan|apply) (\d+)", cells[2])
            )
            rows[name] = Row(tuple(re.findall(r"`([^`]+)`", cells[1])), exits, counts)
    return rows


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Row:
    assert request.node.name in table(), "docs/reference/faults.md has no row for it"
    return table()[request.node.name]


def test_every_row_names_a_test_and_every_test_of_a_fault_has_a_row() -> None:
    named: set[str] = set()
    for name, test in globals().items():
        if name.startswith("test_") and "row" in test.__annotations__:
            marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
            named |= (
                {f"{name}[{each}]" for mark in marks for each in mark.args[1]} if marks else {name}
            )
    assert named == set(table())


# ── a project that faults strike ──────────────────────────────────────────────────────────────────


Change = Callable[[Any, Any], Any]
"""An answer of the stand-in and the headers of its request -> the answer that is given in its
place."""


class Faulty(StandIn):
    """The stand-in, whose answers to whatever contains a part of a target can be changed at
    will."""

    def __init__(self) -> None:
        super().__init__()
        self.changes: dict[str, Change] = {}
        self.struck: set[str] = set()
        """The parts whose change was made use of."""
        self.address = ""

    @property
    def url(self) -> str:
        """Where the project is told that the API is."""
        return self.address or super().url

    def _answer(self, method: str, target: str, headers: Any) -> Any:
        answer = super()._answer(method, target, headers)
        for part, change in list(self.changes.items()):
            if answer is not None and part in target:
                answer = change(answer, headers)
                self.struck.add(part)
        return answer


def once(change: Change) -> Change:
    left = [change]
    return lambda answer, headers: left.pop()(answer, headers) if left else answer


OFTEN: dict[str, Callable[[Change], Change]] = {"once": once, "for ever": lambda change: change}


def instead(body: bytes, kind: str = "application/json", status: int = 200) -> Change:
    return lambda answer, _: replace(
        answer,
        status=status,
        headers={"Content-Type": kind},
        body=[body],
        length=len(body),
        cut=None,
    )


def answered(status: int) -> Change:
    return instead(b'{"code": %d, "message": "no", "details": []}' % status, status=status)


def cut_at(place: int) -> Change:
    """The recording never comes beyond this byte, wherever a Range begins."""

    def change(answer: Any, _: Any) -> Any:
        begins = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
        return replace(answer, cut=max(0, place - (int(begins[1]) if begins else 0)))

    return change


def presigned_at(address: str) -> Change:
    """The presigned URL names another server."""

    def change(answer: Any, _: Any) -> Any:
        page = json.loads(b"".join(answer.body))
        body = json.dumps(page | {"url": re.sub(r"^http://[^/]+", address, page["url"])}).encode()
        return replace(answer, body=[body], length=len(body))

    return change


@dataclass(frozen=True)
class State:
    """What lies in the vault and in uploads, and what is recorded of it."""

    vault: dict[str, bytes]
    uploads: set[str]
    copied: list[dict[str, Any]]
    catalog: list[dict[str, Any]]

    def holds_nothing_false(self, sources: Mapping[str, bytes]) -> None:
        """Every object is byte for byte the recording, every record is of an object that is there,
        and what was deleted has a verified copy."""
        for name, content in sources.items():
            if name in self.vault:
                assert self.vault[name] == content, (
                    f"what lies in the vault for {name} is not the recording: "
                    f"{self.vault[name][:60]!r}"
                )
            for record in (
                record for record in (*self.copied, *self.catalog) if f"/{name}/" in record["key"]
            ):
                assert name in self.vault, f"{name} is recorded, and not there"
                assert (record["store"], record["object_size"], record["crc32c"]) == (
                    "vault",
                    len(content),
                    crc32c(content),
                )
        assert STAYS in self.uploads or STAYS not in sources
        assert (
            OLD in self.uploads
            or OLD not in sources
            or OLD in {entry["asset_id"] for entry in self.catalog}
        )

    def is_complete(self, sources: Mapping[str, bytes]) -> None:
        """Every one of them is in the vault, and recorded there."""
        recorded = {entry["asset_id"] for entry in self.catalog}
        assert {name: self.vault.get(name) for name in sources} == sources
        assert set(sources) <= recorded, f"not recorded: {set(sources) - recorded}"


def crc32c(content: bytes) -> str:
    return base64.b64encode(google_crc32c.Checksum(content).digest()).decode()


@dataclass(eq=False)
class Scene:
    """A project on stores, and everything that can strike it."""

    project: Project
    api: Faulty
    waits: list[float]
    proxy: FaultProxy | None = None
    sources: dict[str, bytes] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    """Recordings that 100ms has dropped: no later plan can complete them."""
    lifts: tuple[str, ...] = ()
    """What the plan after it has to be told."""
    stack: ExitStack = field(default_factory=ExitStack)

    def nowhere(self, how: str) -> str:
        """An address that no server can be spoken to at."""
        match how:
            case "no such name":
                return "http://gone.lab"
            case "refused":
                return f"http://127.0.0.1:{servers.free_ports(1)[0]}"
            case "hangs up":
                return self.stack.enter_context(raw_server(b""))
            case _:
                return self.stack.enter_context(raw_server(b"SSH-2.0-OpenSSH_9.9\r\n"))

    def host(self, name: str, content: bytes, **more: Any) -> None:
        self.project.hosted(name, content, **more)
        self.sources[name] = content

    def upload(self, name: str, content: bytes, age: timedelta = timedelta(days=2)) -> None:
        self.project.uploaded(name, content, age=age)
        self.sources[name] = content

    def spoil(self, *faults: Fault) -> None:
        assert self.proxy
        self.proxy.faults += faults

    def lift(self) -> None:
        """Every fault is over."""
        self.api.faults, self.api.address, self.api.now = Faults(), "", lambda: datetime.now(UTC)
        self.api.changes.clear()
        self.project.environment = {}
        GONE.discard("store.lab")
        if self.proxy:
            self.proxy.up()
            self.proxy.faults.clear()
        self.project.write()

    def run(
        self, command: str, words: tuple[str, ...] = (), expect: int | None = None
    ) -> tuple[int, str]:
        """The exit code, and all that was printed."""
        done = self.project.run(
            command,
            *(("--out", "p.plan") if command == "plan" else ("p.plan",)),
            *words,
            expect=expect,
        )
        said = done.stdout + done.stderr
        assert "Traceback" not in said and not any(
            secret in said for secret in ("X-Signature", "eyJ", self.api.secret)
        )
        return done.returncode, said

    def completed(self) -> State:
        """A new plan and its apply, once the fault is over."""
        # an apply keeps the facts open until it is collected, and a plan of the same process could
        # not write them
        gc.collect()
        plan = self.project.plan("after.plan", *self.lifts)
        if plan["header"]["copies"] or plan["header"]["deletes"]:
            self.project.apply(
                "after.plan", "--approve-deletes", str(plan["header"]["deletes"]), expect=None
            )
        assert [
            seen.key
            for seen in self.writer("vault").list("_retainer/")
            if "/lock" in seen.key or "/tmp/" in seen.key
        ] == []
        return self.state()

    def under(
        self,
        row: Row,
        strike: Callable[[], object],
        *,
        lift: Callable[[], object] = lambda: None,
        approve: int = 0,
        only: str = "",
    ) -> None:
        """Plan and apply; the commands that the row has an exit for run under the fault, and then
        it is lifted."""
        words = {
            "plan": ("--only", f"{{asset_id: {only}}}") if only else (),
            "apply": ("--approve-deletes", str(approve)) if approve else (),
        }
        if row.exits[0][0] == "apply":
            self.run("plan", words["plan"], 0)
        before, text = len(self.journal()), ""
        strike()
        try:
            for command, code in row.exits:
                text += self.run(command, words[command], code)[1]
            row.fits(text, Counter(entry["event"] for entry in self.journal()[before:]))
            assert set(self.api.changes) <= self.api.struck and all(
                fault.seen > fault.skip for fault in (self.proxy.faults if self.proxy else ())
            )
            self.state().holds_nothing_false(self.sources)
        finally:
            lift()
        self.lift()
        after = self.completed()
        after.holds_nothing_false(self.sources)
        after.is_complete(
            {name: content for name, content in self.sources.items() if name not in self.lost}
        )

    def journal(self) -> list[dict[str, Any]]:
        return self.project.journal()

    @functools.cache  # noqa: B019
    def writer(self, name: str) -> Any:
        """A way to a store past the proxy."""
        store = self.project.stores[name]
        return make_writer(
            replace(store, endpoint=f"http://{self.proxy.store}") if self.proxy else store
        )

    def state(self) -> State:
        vault = self.writer("vault")
        copied = [entry["of"]["record"] for entry in self.journal() if entry["event"] == "copied"]
        uploads = {
            seen.key.rpartition("Rec-")[2].partition(".")[0]
            for seen in self.writer("uploads").list()
        }
        entries = self.catalog()
        partial = {
            (entry["key"], entry["version"])
            for entry in entries
            if entry["broken"] or entry["partial"]
        }
        lies = {
            seen.key.split("/")[5]: b"".join(vault.read(seen))
            for seen in vault.list()
            if (seen.key, seen.version) not in partial
        }
        return State(
            lies,
            uploads,
            copied,
            [entry for entry in entries if not (entry["broken"] or entry["partial"])],
        )

    def catalog(self) -> list[dict[str, Any]]:
        """Every entry of the vault's catalog, read by DuckDB from parts that are whole; `broken`,
        `partial`: what was kept and does not count."""
        vault, entries = self.writer("vault"), []
        for seen in vault.list("_retainer/catalog/"):
            content = b"".join(vault.read(seen))
            assert is_whole(seen.key.rpartition("/")[2], content)
            part = self.project.root / "part.parquet"
            part.write_bytes(content)
            found = duckdb.sql(
                "SELECT asset_id, store, key, object_size, version, crc32c, broken, partial "
                f"FROM '{part}'"
            )
            entries += [
                dict(zip(found.columns, values, strict=True)) for values in found.fetchall()
            ]
        return entries


GONE: set[str] = set()
"""Names under `.lab` are this machine, but not those in this set: they are unknown, and at once,
whatever resolver this machine has."""


def resolved(
    host: Any, *words: Any, resolve: Callable[..., Any] = socket.getaddrinfo, **named: Any
) -> Any:
    name = host.decode() if isinstance(host, bytes) else str(host)
    if name in GONE:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return resolve("127.0.0.1" if name.endswith(".lab") else host, *words, **named)


@contextmanager
def quick() -> Iterator[list[float]]:
    """Every wait between two tries is noted and not waited for: some rows would take minutes. How
    often is tried stays as it is.

    And what is copied on the server's side is large from 6 MiB on, and not from 512.
    """
    asked: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", resolved)
        patch.setattr(
            wiring,
            "patience_of",
            lambda _, stop, on_wait=lambda _: None: Patience(sleep=asked.append, on_wait=on_wait),
        )
        patch.setattr(Copies, "_pause", lambda _, attempt: asked.append(attempt))
        patch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=asked.append))
        patch.setattr("ssl.create_default_context", TLS)
        patch.setattr("botocore.session.create_loader", LOADER)
        patch.setattr("retainer.stores.s3_uploads.COPY_PART", 6 << 20)
        # A client that failed a hundred times tries nothing again; faults that strike together must
        # not tell on each other so.
        patch.setattr("botocore.retries.quota.RetryQuota.acquire", lambda *_: True)
        yield asked


@contextmanager
def made_in(root: Path, seaweedfs: str = "") -> Iterator[Scene]:
    """An empty scene: stores that are folders, for the faults of 100ms and of disks, or on
    SeaweedFS behind the proxy, for the faults of stores."""
    with quick() as waits, Faulty() as api, ExitStack() as stack:
        proxy = (
            stack.enter_context(FaultProxy(seaweedfs, copies_as_aws=True)) if seaweedfs else None
        )
        GONE.clear()
        GONE.add("gone.lab")
        yield Scene(
            make_project(root, api, *(("seaweedfs", proxy.url) if proxy else ("local", ""))),
            api,
            waits,
            proxy,
            stack=stack,
        )


def filled(scene: Scene) -> Scene:
    scene.host(HOSTED, video(1))
    scene.host(SECOND, video(2))
    scene.host(CHAT, CSV, kind="chat")
    scene.upload(OLD, video(3), timedelta(days=60))
    scene.upload(STAYS, video(4))
    return scene


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Scene]:
    with made_in(tmp_path / "project") as scene:
        yield filled(scene)


@pytest.fixture
def cloud(tmp_path: Path, seaweedfs: str) -> Iterator[Scene]:
    with made_in(tmp_path / "project", seaweedfs) as scene:
        yield filled(scene)


# ── many faults in one run, each of one recording, upload or list ─────────────────────────────────


@dataclass(frozen=True)
class Strike:
    """A fault of one recording, which a run meets beside those of others. `arm` is called when the
    plan is made (for lists: before)."""

    arm: Callable[[Scene, str], object]
    content: bytes = b""
    told: int | None = None
    """The size that 100ms's record gives while the fault lasts."""
    kind: str = "room-composite"
    uploaded: bool = False
    """It lies in our own bucket, and is copied on the server's side."""
    lost: bool = False
    """100ms drops it for good."""


@dataclass(frozen=True)
class Together:
    """How a run went: for each fault its recording, and for all of them the exits, the output, the
    events, and the state then and afterwards."""

    scene: Scene
    names: dict[str, str]
    strikes: Mapping[str, Strike]
    exits: tuple[tuple[str, int], ...]
    text: str
    events: list[dict[str, Any]]
    struck: State
    after: State

    def fits(self, fault: str, row: Row) -> None:
        name, kind = self.names[fault], self.strikes[fault].kind
        said = re.findall(
            rf"^(?:failed: copy {name}|[!?] (?:copy )?{name}| +! 100ms {kind})\b.*(?:\n +[^!?+ "
            rf"].*)*",
            self.text,
            re.MULTILINE,
        )
        # what has one cause is told together: a list by its kind, a recording by the journal's cause
        causes = [
            " ".join(str(entry["of"]["cause"]).replace(name, "…").split())
            for entry in self.events
            if entry["of"].get("asset") == name and "cause" in entry["of"]
        ]
        for block in re.findall(
            r"^ *! (?:[0-9,]+ copies\b|100ms .* listings did).*(?:\n +[^!?+ ].*)*",
            self.text,
            re.MULTILINE,
        ):
            told = " ".join(block.split())
            if f"100ms {kind}" in told or any(cause in told for cause in causes):
                said.append(block)
        row.fits(
            "\n".join(said),
            Counter(entry["event"] for entry in self.events if entry["of"].get("asset") == name),
        )
        assert self.exits == row.exits
        struck = self.scene.api.struck | (self.scene.proxy.struck if self.scene.proxy else set())
        assert self.strikes[fault].lost or any(
            name in part or f"{kind}&" in part for part in struck
        ), "the fault did not strike"
        source = {name: self.scene.sources[name]}
        self.struck.holds_nothing_false(source)
        self.after.holds_nothing_false(source)
        if not self.strikes[fault].lost:
            self.after.is_complete(source)


def run_together(scene: Scene, strikes: Mapping[str, Strike], planned: bool) -> Together:
    """One plan and apply with all of them, then one without. `planned`: the plan is made under the
    faults."""
    names = {fault: f"a{number:023x}" for number, fault in enumerate(strikes)}
    for fault, strike in strikes.items():
        content = strike.content or video(int(names[fault][1:], 16))
        if strike.uploaded:
            scene.upload(names[fault], content)
        else:
            scene.host(
                names[fault],
                content,
                kind=strike.kind,
                **({} if strike.told is None else {"size": strike.told}),
            )
    scene.project.write(
        POLICY
        | {"rules": [{"id": "everything", "match": "all", "keep": [{"in": "vault", "for": "2y"}]}]}
    )
    exits, text = [], ""
    for command in ("plan", "apply"):
        if planned == (command == "plan"):
            for fault, strike in strikes.items():
                strike.arm(scene, names[fault])
        code, said = scene.run(command)
        if command == "apply" or planned:
            exits.append((command, code))
            text += said
    events, struck = scene.journal(), scene.state()
    for fault, strike in strikes.items():
        if not strike.lost and not strike.uploaded:
            scene.host(names[fault], scene.sources[names[fault]], kind=strike.kind)
    scene.lift()
    scene.project.write(
        POLICY
        | {"rules": [{"id": "everything", "match": "all", "keep": [{"in": "vault", "for": "2y"}]}]}
    )
    return Together(scene, names, strikes, tuple(exits), text, events, struck, scene.completed())


@pytest.fixture(scope="module")
def together(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Callable[..., Together]:
    """The run that a fault is met in: with all of its kind whose row has the same exits."""

    @functools.cache
    def met(test: str, exits: tuple[tuple[str, int], ...]) -> Together | Exception:
        kind = {
            "test_a_fault_of_one_recording": RECORDINGS,
            "test_a_fault_of_one_upload": UPLOADS,
            "test_a_fault_of_one_list": LISTS,
        }[test]
        strikes = {
            fault: strike
            for fault, strike in kind.items()
            if table()[f"{test}[{fault}]"].exits == exits
        }
        store = request.getfixturevalue("seaweedfs") if kind is UPLOADS else ""
        with made_in(tmp_path_factory.mktemp("together") / "project", store) as scene:
            try:
                return run_together(scene, strikes, kind is LISTS)
            except (
                Exception
            ) as error:  # kept, so that a run that fails is not made anew for each of its rows
                return error

    def of(request: pytest.FixtureRequest, row: Row) -> Together:
        found = met(request.node.originalname, row.exits)
        if isinstance(found, Exception):
            raise found
        return found

    return of


def of_recording(part: str, change: Change, often: str = "for ever", **more: Any) -> Strike:
    return Strike(
        lambda scene, name: scene.api.changes.update({part.format(name): OFTEN[often](change)}),
        **more,
    )


URL, BYTES = "/{}/presigned-url", "/media/{}"
NOT_THERE = (404, 410)
"""What was answered so is lost at the next plan."""
STATUSES = (400, 401, 403, 404, 408, 410, 425, 429, 500, 502, 503, 504)
PLACES = {"byte 0": 0, "byte 1": 1, "byte 1023": 1023, "the half": HALF, "the last byte": SIZE - 1}
OTHERS = {
    "an HTML page": HTML,
    "a JSON error": ERROR_BODY,
    "an XML error": XML,
    "zeros": bytes(SIZE),
    "nothing": b"",
}
PAGES = {
    "an HTML page": HTML,
    "a JSON error": ERROR_BODY,
    "half a page": b'{"limit": 100, "data": [{"id"',
    "nothing": b"",
    "a list": b"[]",
}


def in_the_middle(act: Callable[[Scene, str], object]) -> Callable[[Scene, str], object]:
    """The first body of this recording breaks off at its half, and at that moment something
    happens."""

    def arm(scene: Scene, name: str) -> None:
        def change(answer: Any, headers: Any) -> Any:
            act(scene, name)
            return cut_at(HALF)(answer, headers)

        scene.api.changes[f"/media/{name}"] = once(change)

    return arm


def lapse(scene: Scene, name: str) -> None:
    """It has become 15 days old."""
    scene.project.hosted(name, scene.sources[name], age=timedelta(days=15, minutes=1))


def in_pieces(first: bytes, second: bytes) -> Change:
    """A body that arrives in two pieces, as a slow network may deliver it."""

    def slowly() -> Iterator[bytes]:
        yield first
        time.sleep(0.2)
        yield second

    return lambda answer, _: replace(
        answer, headers={"Content-Type": ""}, body=slowly(), length=len(first + second)
    )


def until_the_end(scene: Scene, name: str, size: int) -> None:
    """Nothing in the answer tells where it ends, but that the connection does; the record knows."""
    address = scene.stack.enter_context(
        raw_server(
            b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\n\r\n" + scene.sources[name][:size]
        )
    )
    scene.api.changes[f"/{name}/presigned-url"] = presigned_at(address)


def half_of_it(answer: Any, _: Any) -> Any:
    """Half of the recording, under a Content-Length that fits the half."""
    half = b"".join(answer.body)[:HALF]
    return replace(answer, body=[half], length=HALF)


RECORDINGS: dict[str, Strike] = {
    **{
        f"URL {status}, {often}": of_recording(
            URL, answered(status), often, lost=status in NOT_THERE
        )
        for status in STATUSES
        for often in OFTEN
    },
    **{
        f"bytes {status}, {often}": of_recording(
            BYTES, answered(status), often, lost=status in NOT_THERE
        )
        for status in (206, 302, *STATUSES, 416)
        for often in OFTEN
    },
    **{
        f"cut at {place}, {often}": of_recording(BYTES, cut_at(byte), often)
        for place, byte in PLACES.items()
        for often in OFTEN
    },
    **{
        f"200 with {other}, {often}": of_recording(BYTES, instead(body, "video/mp4"), often)
        for other, body in OTHERS.items()
        for often in OFTEN
    },
    **{
        f"URL 200 with {page}, {often}": of_recording(URL, instead(body), often)
        for page, body in PAGES.items()
        for often in OFTEN
    },
    "URL 200 with the name of a file": of_recording(URL, instead(b'{"url": "file:///etc/passwd"}')),
    "a JSON error in two pieces for a chat of unknown size": of_recording(
        BYTES, in_pieces(ERROR_BODY[:1], ERROR_BODY[1:]), kind="chat", content=CSV, told=0
    ),
    "the record says more": of_recording(BYTES, lambda answer, _: answer, told=SIZE + 1000),
    "the record says less": of_recording(BYTES, lambda answer, _: answer, told=SIZE - 1000),
    "no Content-Length": of_recording(BYTES, lambda answer, _: replace(answer, length=None)),
    "no Content-Length, and the record says nothing": of_recording(
        BYTES, lambda answer, _: replace(answer, length=None), told=0
    ),
    "no Content-Length, and cut": of_recording(
        BYTES, lambda answer, _: replace(answer, length=None, cut=HALF)
    ),
    "a Content-Length that is too short": of_recording(BYTES, half_of_it),
    **{
        f"URL leads nowhere: {how}, {often}": Strike(
            lambda scene, name, how=how, often=often: scene.api.changes.update(
                {URL.format(name): OFTEN[often](presigned_at(scene.nowhere(how)))}
            )
        )
        for how in ("no such name", "refused", "hangs up", "no HTTP")
        for often in OFTEN
    },
    "no length but the connection's end, whole": Strike(
        lambda scene, name: until_the_end(scene, name, SIZE)
    ),
    "no length but the connection's end, cut": Strike(
        lambda scene, name: until_the_end(scene, name, HALF)
    ),
    "a file that is replaced in the middle": Strike(
        in_the_middle(lambda scene, name: scene.host(name, video(99)))
    ),
    "lapsed before the apply": Strike(lapse, lost=True),
    "lapsed in the middle": Strike(in_the_middle(lapse), lost=True),
}


@pytest.mark.parametrize("fault", RECORDINGS)
def test_a_fault_of_one_recording(
    fault: str, row: Row, together: Callable[..., Together], request: pytest.FixtureRequest
) -> None:
    together(request, row).fits(fault, row)


def of_list(number: int, change: Change, often: str) -> Strike:
    """The list of a type that only this one recording is of."""
    kind = f"type-{number}-{often[0]}"
    return Strike(
        lambda scene, _: scene.api.changes.update({f"type={kind}&": OFTEN[often](change)}),
        kind=kind,
    )


ANSWERS = {
    **{str(status): answered(status) for status in STATUSES if status not in (401, 403)},
    **{f"200 with {page}": instead(body) for page, body in PAGES.items()},
}
LISTS: dict[str, Strike] = {
    f"{fault}, {often}": of_list(number, change, often)
    for number, (fault, change) in enumerate(ANSWERS.items())
    for often in OFTEN
}


@pytest.mark.parametrize("fault", LISTS)
def test_a_fault_of_one_list(
    fault: str, row: Row, together: Callable[..., Together], request: pytest.FixtureRequest
) -> None:
    together(request, row).fits(fault, row)


def of_upload(fault: Fault, **more: Any) -> Strike:
    return Strike(
        lambda scene, name: scene.spoil(replace(fault, part=fault.part.format(name))), **more
    )


TIMES = {"once": 1, "for ever": ALWAYS}
COPIED = {
    "on the server's side": ("{}", LONG),
    "on the server's side, in parts": ("{}.*partNumber", BIG),
}
UPLOADS: dict[str, Strike] = {
    **{
        f"{status}, {often}": of_upload(Fault("PUT", "{}", times, status=status))
        for status in (400, 403, 404, 429, 500, 503, 507)
        for often, times in TIMES.items()
    },
    **{
        f"200 with {other}, for ever": of_upload(Fault("PUT", "{}", body=body))
        for other, body in {"an HTML page": HTML, "nothing": b"", "an XML error": XML}.items()
    },
    "a JSON error in two pieces for a chat of unknown size": RECORDINGS[
        "a JSON error in two pieces for a chat of unknown size"
    ],
    "the answer is lost": of_upload(Fault("PUT", "{}", 1, cut=-1)),
    "the answer to the end of a big one is lost": of_upload(
        Fault("POST", "{}.*uploadId", 1, cut=-1), content=BIG
    ),
    **{
        f"{on}: {status}, {often}": of_upload(
            Fault("PUT", part, times, status=status), uploaded=True, content=content
        )
        for on, (part, content) in COPIED.items()
        for status in (500, 503)
        for often, times in TIMES.items()
    },
    **{
        f"{on}: 200 with {other}, for ever": of_upload(
            Fault("PUT", part, body=body), uploaded=True, content=content
        )
        for on, (part, content) in COPIED.items()
        for other, body in {"an XML error": XML, "an HTML page": HTML}.items()
    },
    **{
        f"{on}: the answer is lost": of_upload(
            Fault("PUT", part, 1, cut=-1), uploaded=True, content=content
        )
        for on, (part, content) in COPIED.items()
    },
    **{
        f"from a bucket: {how}": of_upload(
            Fault("GET", "{}", times, **what), uploaded=True, content=SHORT
        )
        for how, times, what in (
            ("500, once", 1, {"status": 500}),
            ("500, for ever", ALWAYS, {"status": 500}),
            ("403, for ever", ALWAYS, {"status": 403}),
            ("the body is cut, once", 1, {"cut": HALF}),
            ("the body is cut, for ever", ALWAYS, {"cut": HALF}),
            ("other bytes, once", 1, {"instead": video(8)}),
            ("other bytes, for ever", ALWAYS, {"instead": video(8)}),
            (
                "a JSON error as long as it, for ever",
                ALWAYS,
                {"instead": ERROR_BODY.ljust(len(SHORT))},
            ),
        )
    },
}


@pytest.mark.parametrize("fault", UPLOADS)
def test_a_fault_of_one_upload(
    fault: str, row: Row, together: Callable[..., Together], request: pytest.FixtureRequest
) -> None:
    together(request, row).fits(fault, row)


ENDS = {
    f"{on}, {how}": (content, Fault(method, part, 1, cut=cut))
    for on, (content, method, part) in {
        "at once": (LONG, "PUT", LARGE),
        "in parts": (BIG, "POST", f"{LARGE}.*uploadId"),
    }.items()
    for how, cut in {"is lost": -1, "breaks off": 60}.items()
}


@pytest.mark.parametrize("how", ENDS)
def test_a_copy_on_the_servers_side_whose_last_answer_does_not_arrive(
    how: str, cloud: Scene, row: Row
) -> None:
    content, fault = ENDS[how]
    cloud.upload(LARGE, content)
    cloud.under(row, lambda: cloud.spoil(replace(fault)))


@pytest.mark.parametrize("often", TIMES)
def test_an_upload_that_is_refused_with_409(often: str, cloud: Scene, row: Row) -> None:
    """S3 says so when something else is under way with the same key, and asks to try again."""
    cloud.under(row, lambda: cloud.spoil(Fault("PUT", SECOND, TIMES[often], status=409)))


# ── faults of the whole of 100ms ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fault", ["401, once", "401, for ever", "403, once", "403, for ever"])
def test_a_list_refuses_the_credentials(fault: str, folders: Scene, row: Row) -> None:
    status, _, often = fault.partition(", ")
    folders.under(
        row, lambda: folders.api.changes.update({"type=chat": OFTEN[often](answered(int(status)))})
    )


@pytest.mark.parametrize(
    "where",
    [f"the {what}: {how}" for what in ("plan", "apply") for how in ("no such name", "refused")],
)
def test_no_connection_to_100ms(where: str, folders: Scene, row: Row) -> None:
    def strike() -> None:
        folders.api.address = f"{folders.nowhere(where.partition(': ')[2])}/v2".replace(
            "http://gone", "https://gone"
        )
        folders.project.write()

    folders.under(row, strike)


def test_a_body_whose_first_piece_is_three_bytes(folders: Scene, row: Row) -> None:
    content = folders.sources[SECOND]
    folders.under(
        row,
        lambda: folders.api.changes.update(
            {f"/media/{SECOND}": in_pieces(content[:3], content[3:])}
        ),
    )


def test_a_body_that_stalls(folders: Scene, row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second of patience instead of a minute."""
    monkeypatch.setattr("retainer.sources.connections.STALL_SECONDS", 0.5)

    def stalling() -> Iterator[bytes]:
        yield folders.sources[SECOND][:HALF]
        time.sleep(1)
        yield folders.sources[SECOND][HALF:]

    folders.under(
        row,
        lambda: folders.api.changes.update(
            {f"/media/{SECOND}": once(lambda answer, _: replace(answer, body=stalling()))}
        ),
    )
    assert [asked.path for asked in folders.api.requests].count(f"/media/{SECOND}") > 1


@pytest.mark.parametrize(
    "when",
    [
        "at the start, once",
        "at the start, for ever",
        "in the middle, once",
        "in the middle, for ever",
    ],
)
def test_a_presigned_url_that_has_expired(when: str, folders: Scene, row: Row) -> None:
    faults = folders.api.faults

    def strike() -> None:
        match when:
            case "at the start, once":
                faults.expire_urls_after = 0
                folders.api.changes["/media/"] = once(
                    lambda answer, _: setattr(faults, "expire_urls_after", None) or answer
                )
            case "at the start, for ever":
                faults.expire_urls_after = 0
            case "in the middle, once":
                faults.expire_urls_after = 60
                in_the_middle(
                    lambda scene, _: setattr(
                        scene.api, "now", lambda: datetime.now(UTC) + timedelta(minutes=2)
                    )
                )(folders, SECOND)
            case _:
                in_the_middle(
                    lambda _, name: faults.fail_first.update({f"/media/{name}": [403] * 1000})
                )(folders, SECOND)

    folders.under(row, strike)


@pytest.mark.parametrize(
    "storm", ["told in the text", "told in a header", "for ever", "told to wait an hour"]
)
def test_a_storm_of_429(storm: str, folders: Scene, row: Row) -> None:
    """Half of all calls, or all of them."""
    faults = folders.api.faults
    told = storm.startswith("told in")

    def strike() -> None:
        faults.rate_429 = 0.5 if told else 1.0
        faults.retry_after = 3600 if "hour" in storm else 20
        faults.retry_after_header = "header" in storm

    folders.under(row, strike)
    assert not told or max(folders.waits) >= 20


@pytest.mark.parametrize("when", ["before the plan", "before the apply", "in the middle"])
def test_a_ready_made_token_that_ends(when: str, folders: Scene, row: Row) -> None:
    token = folders.api.ready_token()
    folders.project.environment = {
        "HMS_ACCESS_KEY": "",
        "HMS_SECRET": "",
        "HMS_MANAGEMENT_TOKEN": token,
    }
    if when == "in the middle":
        arm = in_the_middle(lambda scene, _: scene.api.revoked.add(token))
        folders.under(row, lambda: arm(folders, SECOND), only=SECOND)
    else:
        folders.under(row, lambda: folders.api.revoked.add(token))


def test_a_minted_token_that_ends_in_the_middle(folders: Scene, row: Row) -> None:
    """Every token that was used so far is refused from then on."""
    used: set[str] = set()

    def strike() -> None:
        folders.api.changes["/v2/"] = lambda answer, headers: (
            used.add(headers["Authorization"].removeprefix("Bearer ")) or answer
        )
        in_the_middle(lambda scene, _: scene.api.revoked.update(used))(folders, SECOND)

    folders.under(row, strike)
    assert len(used) > 1


# ── faults of a whole store ───────────────────────────────────────────────────────────────────────


def in_place(scene: Scene) -> None:
    """OLD is in the vault, seen complete, and due in uploads."""
    scene.project.plan("first.plan")
    scene.project.apply("first.plan")


@pytest.mark.parametrize(
    "where",
    [
        "the plan: no such name",
        "the plan: refused",
        "the apply: no such name",
        "the apply: refused",
    ],
)
def test_no_connection_to_the_store(where: str, cloud: Scene, row: Row) -> None:
    assert cloud.proxy
    if "name" in where:
        for name, store in cloud.project.stores.items():
            cloud.project.stores[name] = replace(
                store, endpoint=cloud.proxy.url.replace("127.0.0.1", "store.lab")
            )
        cloud.project.write()
    cloud.under(row, cloud.proxy.down if "refused" in where else lambda: GONE.add("store.lab"))


LISTING = Fault("GET", "list-type=2")
LISTINGS = {
    "403": replace(LISTING, status=403),
    "503, once": replace(LISTING, times=1, status=503),
    "503, for ever": replace(LISTING, status=503),
    "200 with an XML error": replace(LISTING, body=XML),
    "200 with an HTML page": replace(LISTING, body=HTML),
    "200 with nothing": replace(LISTING, body=b""),
    "an answer that breaks off": replace(LISTING, cut=50),
}


@pytest.mark.parametrize("fault", LISTINGS)
def test_a_listing_of_stores_that_goes_wrong(fault: str, cloud: Scene, row: Row) -> None:
    cloud.under(row, lambda: cloud.spoil(replace(LISTINGS[fault])))


def test_a_catalog_that_breaks_off_while_it_is_read(cloud: Scene, row: Row) -> None:
    in_place(cloud)
    for path in (cloud.project.root / ".retainer" / "catalog").rglob("*.parquet"):
        path.unlink()
    cloud.under(row, lambda: cloud.spoil(Fault("GET", "_retainer/catalog/2", cut=-1)))


OWN = {
    f"the {what}: {how}": replace(fault, part=f"_retainer/{what}")
    for what in ("lock", "probe", "catalog")
    for how, fault in {
        "507": Fault("PUT", "", status=507),
        "200 with an HTML page": Fault("PUT", "", body=HTML),
    }.items()
}


@pytest.mark.parametrize("fault", OWN)
def test_a_fault_of_what_retainer_keeps_for_itself(fault: str, cloud: Scene, row: Row) -> None:
    """A probe is made where something is to be deleted."""
    deletes = "probe" in fault
    if deletes:
        in_place(cloud)
    cloud.under(row, lambda: cloud.spoil(replace(OWN[fault])), approve=int(deletes))


def test_the_answers_to_the_lock_and_the_catalog_are_lost(cloud: Scene, row: Row) -> None:
    cloud.under(
        row,
        lambda: cloud.spoil(
            *(Fault("PUT", f"_retainer/{what}", 1, cut=-1) for what in ("lock", "catalog"))
        ),
    )


DELETES = {
    "the answer is lost": Fault("POST", "delete", 1, skip=1, cut=-1),
    "503, for ever": Fault("POST", "delete", skip=1, status=503),
    "200 with an HTML page": Fault("POST", "delete", skip=1, body=HTML),
    "the copy in the vault cannot be looked at": Fault("HEAD", OLD, status=503),
}


@pytest.mark.parametrize("fault", DELETES)
def test_a_delete_that_goes_wrong(fault: str, cloud: Scene, row: Row) -> None:
    """The first two requests of its kind are apply's own probes, of the store and of that which has
    the witness."""
    in_place(cloud)
    cloud.under(row, lambda: cloud.spoil(replace(DELETES[fault])), approve=1)


def test_a_store_that_answers_slowly(cloud: Scene, row: Row) -> None:
    cloud.under(
        row, lambda: cloud.spoil(*(Fault(method, "", delay=0.1) for method in ("GET", "PUT")))
    )


def test_a_store_that_answers_too_late(
    cloud: Scene, row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has stored the bytes; a second of patience instead of a minute."""
    monkeypatch.setattr("retainer.stores.wire.READ_SECONDS", 1.0)
    cloud.under(row, lambda: cloud.spoil(Fault("PUT", SECOND, 1, delay=1.3)))


# ── disks ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def small_disk() -> Iterator[Callable[[Path], None]]:
    """Mounts 128 KiB of memory on a folder, where this user may."""
    mounted: list[Path] = []

    def mount(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)],
            capture_output=True,
            check=False,
        ).returncode:
            pytest.skip("only root may mount a small disk")
        mounted.append(folder)

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_folder_on_a_full_disk(
    folders: Scene, row: Row, small_disk: Callable[[Path], None]
) -> None:
    vault = Path(folders.project.stores["vault"].prefix)
    small_disk(vault)
    folders.host(SECOND, video(5, 200_000))
    folders.under(
        row,
        lambda: None,
        lift=lambda: subprocess.run(["mount", "-o", "remount,size=4m", str(vault)], check=True),
    )


def test_a_file_larger_than_this_user_may_write(folders: Scene, row: Row) -> None:
    folders.host(SECOND, video(5, 300_000))
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    folders.under(
        row,
        lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, usual[1])),
        lift=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, usual),
    )


def test_no_room_for_temporary_files(
    folders: Scene, row: Row, small_disk: Callable[[Path], None], tmp_path: Path
) -> None:
    """Where the plan is read into, and a part of the catalog is made before it is written to the
    store."""
    small_disk(tmp_path / "tmp")
    with suppress(OSError), (tmp_path / "tmp" / "fill").open("wb", buffering=0) as stream:
        while stream.write(bytes(4096)):
            pass
    with pytest.MonkeyPatch.context() as patch:

        def strike() -> None:
            patch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
            patch.setattr("retainer.cli.project.keep_private_in", lambda _state: None)
            patch.setattr("retainer.private._home", None)
            private._mine.clear()

        def lift() -> None:
            patch.undo()
            private._mine.clear()

        folders.under(row, strike, lift=lift)


@pytest.mark.parametrize("lines", [0, 5, 12])
def test_no_room_for_the_journal(lines: int, folders: Scene, row: Row) -> None:
    """After so many lines."""
    written: list[int] = []

    def write(descriptor: int, content: bytes) -> int:
        if len(written) >= lines:
            raise OSError(28, "No space left on device")
        written.append(descriptor)
        return os.write(descriptor, content)

    full = SimpleNamespace(**vars(os) | {"write": write})
    with pytest.MonkeyPatch.context() as patch:
        folders.under(
            row, lambda: patch.setattr("retainer.journal.folder.os", full), lift=patch.undo
        )


# ── two at once ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "where", ["the same plan", "another plan, folders", "another plan, SeaweedFS"]
)
def test_two_applies_at_once(where: str, row: Row, request: pytest.FixtureRequest) -> None:
    """A run of another process is copying when ours begins."""
    scene: Scene = request.getfixturevalue("cloud" if "SeaweedFS" in where else "folders")
    other = scene.project
    if where != "the same plan":
        other = Project(scene.project.root.with_name("other"), scene.api, scene.project.stores)
        other.write()
        other.plan()
        scene.lifts = (
            "--lift",
            "record:vault",
        )  # it never wrote there: a record that was lost would look the same
    running: list[subprocess.Popen[str]] = []
    go_on = threading.Event()

    def held(answer: Any) -> Iterator[bytes]:
        go_on.wait(60)
        yield from answer.body

    def strike() -> None:
        scene.api.changes["/media/"] = lambda answer, _: replace(answer, body=held(answer))
        running.append(
            subprocess.Popen(
                other.command("apply", "p.plan"),
                cwd=other.root,
                env=other.env(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        end = time.monotonic() + 60
        while b'"intent"' not in text_of(other.root / ".retainer") and time.monotonic() < end:
            time.sleep(0.02)

    def ended() -> None:
        go_on.set()
        said, _ = running[0].communicate(timeout=60)
        assert running[0].returncode == 0, said

    scene.under(row, strike, lift=ended)
