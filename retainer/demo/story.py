"""`retainer demo`: the real command line against a local stand-in for the 100ms API, in a new
folder."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from retainer.demo.standin import Faults, StandIn
from retainer.errors import RetainerError
from retainer.planfile import read_plan
from retainer.views.terminal import Page

MP4 = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2"
HELD, ERASED = "5e55000000000000000000aa", "5e55000000000000000000bb"
EXPLAINED = "a55e70000000000000000001"

SETTINGS = """\
version: 1
timezone: Europe/Berlin
source:
  url: {api}                      # a stand-in for the 100ms API on this machine
  hosted: [ "s3://hms-demo-*" ]
stores:
  uploads: {{ url: "file://{folder}/uploads", layout: 100ms }}    # where 100ms uploads to
  vault:   {{ url: "file://{folder}/vault" }}
limits: {{ deletes: {{ count: 500, percent: 80, bytes: 100GB }}, plan_age: 24h }}
state: .retainer
"""
POLICY = """\
version: 1
rules:
  - id: calls
    why: Every call is kept for two years
    owner: "@demo/platform"
    match: { type: [room-composite, chat, transcript] }
    keep: [ { in: vault, for: 2y } ]
  - id: uploads-are-raw
    why: The upload bucket is for arriving, not for keeping
    owner: "@demo/platform"
    match: { type: room-composite }
    delete: [ { in: uploads, after: 30d } ]      # only once the vault's copy was seen complete
"""
HOLDS = f"""\
version: 1
holds:
  - id: LIT-204
    why: Demo v. Example
    owner: "@demo/legal"
    match: {{ session_id: {HELD} }}
    in: vault
erasures:
  - id: DSR-17
    why: A person asked for it (Art. 17)
    requested: TODAY
    match: {{ session_id: {ERASED} }}
"""


def tell(folder: Path | None, page: Page, wait: Callable[[], None] | None = None) -> None:
    """Run the story. `wait`: what is done while the stand-in still answers, once all is told.

    Raises RetainerError when the folder is not empty, or when a step does not end as it must.
    """
    folder = (folder or Path(tempfile.mkdtemp(prefix="retainer-demo-"))).resolve()
    if folder.exists() and any(folder.iterdir()):
        raise RetainerError(f"{folder} is not empty", hint="name a folder that does not exist yet")
    now = datetime.now(UTC)
    with StandIn(
        faults=Faults(
            broken_rows={"bad0000000000000000000aa": {"created_at": 1699999999, "size": "many"}}
        )
    ) as api:
        _furnish(api, folder, now)
        steps = _Steps(folder, page, api)
        steps.say(
            f"A project in {folder}: two stores that are folders, a policy, a hold and an erasure."
        )
        steps.run(0, "validate")
        steps.say(
            "What do the policies mean today? Some recordings are 40 hours from the day on which "
            "100ms drops them."
        )
        steps.run(0, "plan", "--out", "first.plan")
        steps.say("Why is one of them treated as it is?")
        steps.run(0, "explain", EXPLAINED)
        steps.say("Do it. The one delete is the erasure; its number is the approval.")
        steps.apply("first.plan")
        steps.say(
            "The copies are there, so what waited for them is due now: a delete comes one plan "
            "after its copy."
        )
        steps.run(0, "plan", "--out", "second.plan")
        steps.apply("second.plan")
        steps.say("And now there is nothing left to do.")
        steps.run(0, "plan", "--out", "third.plan")
        if (
            read_plan(folder / "third.plan").header.copies
            + read_plan(folder / "third.plan").header.deletes
        ):
            raise RetainerError(
                "the third plan of the demo is not empty: this is a mistake in retainer",
                hint=f"look into {folder}",
            )
        _next(folder, page)
        if wait:
            click.echo(
                f"\nThe stand-in for 100ms answers at {api.url} until Ctrl-C. In another terminal:"
                f"\n  cd {folder}"
                f"\n  export HMS_ACCESS_KEY={api.access_key} HMS_SECRET={api.secret}"
                "\n  retainer plan --out fourth.plan      # change a rule before it"
            )
            sys.stdout.flush()
            wait()


def _next(folder: Path, page: Page) -> None:
    click.echo(page.paint("\nTry next", "bold"))
    for command, meaning in (
        (f"cd {folder}", "look at policies/, retainer.yaml, and what lies in vault/"),
        (
            "retainer show first.plan --format json",
            "every pair of a recording and a place, with its reason",
        ),
        (f"retainer explain {EXPLAINED} --as-of 2029-01-01", "what will be decided later"),
        (
            "git init -q && git add -A && git commit -qm start",
            "then change a rule, and ask what that does, offline:",
        ),
        ("retainer impact --base HEAD", "as text, markdown or HTML, as on a pull request"),
        ("retainer init", "in a folder of your own"),
    ):
        click.echo(f"  {command}\n      {meaning}")


class _Steps:
    """Runs commands as a person would, and shows them."""

    def __init__(self, folder: Path, page: Page, api: StandIn) -> None:
        self._folder = folder
        self._page = page
        self._environment = os.environ | {
            "HMS_ACCESS_KEY": api.access_key,
            "HMS_SECRET": api.secret,
        }

    def say(self, sentence: str) -> None:
        click.echo("\n" + self._page.wrapped(self._page.paint(f"# {sentence}", "cyan"), "", "# "))

    def run(self, expected: int, *words: str) -> None:
        click.echo(self._page.paint("$ retainer " + " ".join(words), "bold"))
        sys.stdout.flush()
        # through a pipe it is told by this process, which knows when nobody reads on
        done = subprocess.run(
            [sys.executable, "-m", "retainer", *words],
            cwd=self._folder,
            env=self._environment,
            check=False,
            text=True,
            encoding="utf-8",
            stdout=None if sys.stdout.isatty() else subprocess.PIPE,
        )
        click.echo(done.stdout or "", nl=False, color=True)
        if done.returncode != expected:
            raise RetainerError(
                f"`retainer {' '.join(words)}` ended with {done.returncode} instead of {expected}",
                hint=f"look into {self._folder}",
            )

    def apply(self, plan: str) -> None:
        self.run(
            0,
            "apply",
            plan,
            "--approve-deletes",
            str(read_plan(self._folder / plan).header.deletes),
        )


def _furnish(api: StandIn, folder: Path, now: datetime) -> None:
    """The project's files, the recordings at 100ms, and what 100ms has uploaded."""
    (folder / "policies").mkdir(parents=True)
    (folder / "uploads").mkdir()
    (folder / "vault").mkdir()
    (folder / "retainer.yaml").write_text(SETTINGS.format(api=api.url, folder=folder))
    (folder / ".gitignore").write_text(".retainer/\nuploads/\nvault/\n*.plan\n")
    (folder / "policies" / "calls.yaml").write_text(POLICY)
    holds = HOLDS.replace("TODAY", now.date().isoformat())
    (folder / "policies" / "holds.yaml").write_text(holds)
    for asset, content in _recordings(folder, now):
        path = str(asset["path"])
        own = path.startswith("file://")
        if own:
            target = Path(path.removeprefix("file://"))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        api.add_asset(asset, content, hosted=not own)


def _recordings(folder: Path, now: datetime) -> Iterator[tuple[dict[str, object], bytes]]:
    draw = random.Random(17)

    def asset(
        name: str,
        age: timedelta,
        kind: str,
        content: bytes,
        *,
        own: bool = False,
        session: str | None = None,
    ) -> tuple[dict[str, object], bytes]:
        created = now - age
        room = f"60000000000000000000000{draw.randrange(4)}"
        end = {"room-composite": "mp4", "chat": "csv", "transcript": "txt"}[kind]
        base = f"file://{folder}/uploads" if own else "s3://hms-demo-ap-south-1/5f00"
        return {
            "id": name,
            "job_id": f"b{name[1:]}",
            "room_id": room,
            "session_id": session or f"5e55{draw.randrange(16**8):020x}",
            "type": kind,
            "status": "completed",
            "path": f"{base}/{'chat' if kind == 'chat' else 'beam'}/{room}/"
            f"{created:%Y-%m-%d}/Rec-{name}.{end}",
            "size": len(content),
            "duration": 1800,
            "created_at": created.strftime("%Y-%m-%dT%H:%M:%S.123456789Z"),
            "thumbnails": None,
            "metadata": None,
        }, content

    def video(kilobytes: int) -> bytes:
        return MP4 + draw.randbytes(kilobytes * 1000)

    cliff = timedelta(days=15) - timedelta(hours=40)
    for number in range(1, 4):
        yield asset(
            f"a55e7000000000000000000{number}",
            cliff + timedelta(minutes=number),
            "room-composite",
            video(700),
        )
    for number in range(1, 4):
        chat = b"SenderPeerID,SenderName,SenderUserID,Roles,SentAt,Type,Message\n" * number
        yield asset(f"c4a70000000000000000000{number}", timedelta(days=number), "chat", chat)
    yield asset(
        "7ea500000000000000000001", timedelta(days=4), "transcript", b"Good morning.\n" * 40
    )
    for number in range(1, 5):
        yield asset(
            f"0ld0000000000000000000a{number}",
            timedelta(days=60 + number),
            "room-composite",
            video(900),
            own=True,
        )
    yield asset(
        "4e1d000000000000000000aa",
        timedelta(days=80),
        "room-composite",
        video(500),
        own=True,
        session=HELD,
    )
    yield asset(
        "e5a5ed0000000000000000bb",
        timedelta(days=50),
        "room-composite",
        video(400),
        own=True,
        session=ERASED,
    )
    yield asset("bad0000000000000000000aa", timedelta(days=3), "room-composite", video(300))
