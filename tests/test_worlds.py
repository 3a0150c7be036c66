"""Random worlds: two machines, two checkouts, people who meddle, kills, full disks and wrong clocks,
against a small model of what must never happen.

Whatever comes, the bytes that an upload has now, and the bytes of every recording that a hold
covers, lie somewhere; and no more is deleted in a day than the limit allows, by both machines
together. Half of the worlds share one record, which is whole after each step. `RETAINER_WORLDS=300 pytest -m slow tests/test_worlds.py` plays more of them.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import records
from conftest import make_writer
from project import ROOM, Project, make_project, video

from retainer.cli import process
from retainer.demo.standin import StandIn
from retainer.journal.journal import verify_journal
from retainer.journal.shared import SharedBackend
from retainer.model.setting import Store

WORLDS = int(os.environ.get("RETAINER_WORLDS", "40"))
LIMIT = 4
ENDS = {0, 4, 5, 6, 7, 8, 10, 11, 130}
RULES = [
    {"id": "keep", "match": "all", "keep": [{"in": "vault", "for": "9y"}]},
    {"id": "second", "match": {"room": "sales-*"}, "keep": [{"in": "cold", "for": "9y"}]},
    {"id": "raw", "match": "all", "delete": [{"in": "uploads", "after": "30d"}]},
]


class World:
    def __init__(self, root: Path, api: StandIn, seed: int, *, shared: bool = False) -> None:
        self.draw = random.Random(seed)
        self.api = api
        self.one = make_project(root / "one", api, "local", "")
        cold = replace(self.one.stores["vault"], name="cold", url=f"file://{root}/cold")
        (root / "cold").mkdir()
        self.one.stores["cold"] = cold
        self.one.limits = {"count": LIMIT, "percent": 100, "bytes": "1TB"}
        self.two = Project(root / "two", api, self.one.stores, self.one.limits)
        (root / "two").mkdir()
        self.state = Store("state", f"file://{root}/state") if shared else None
        if self.state:
            (root / "state").mkdir()
            self.one.state = self.two.state = {"url": self.state.url}
        self.holds: list[dict[str, Any]] = []
        self.newest: dict[str, bytes] = {}
        self.held: dict[str, bytes] = {}
        self.room = "sales-1"
        self.gone = 0
        self.log: list[str] = []
        api.add_room({"id": ROOM, "name": self.room})
        self.rules()
        for number in range(8):
            self.upload(f"{number:024x}", timedelta(days=60 if number % 4 else 2))

    def upload(self, name: str, age: timedelta) -> None:
        content = video(self.draw.randrange(1 << 30), 400)
        self.one.uploaded(name, content, age=age)
        self.newest[name] = content

    def rules(self) -> None:
        for project in (self.one, self.two):
            project.write({"version": 1, "rules": RULES, "holds": self.holds})

    def folder(self, store: str) -> Path:
        return Path(self.one.stores[store].prefix)

    def contents(self, *stores: str) -> list[bytes]:
        found = []
        for store in stores:
            for root in (self.folder(store), Path(f"{self.folder(store)}".rstrip("/") + ".disk")):
                found += [
                    path.read_bytes()
                    for path in root.rglob("*.mp4")
                    if "_retainer/tmp" not in str(path)
                ]
        return found

    # ── what may come ─────────────────────────────────────────────────────────────────────────────

    def plan_and_apply(self, project: Project, **environment: str) -> None:
        before = self.contents("uploads")
        done = project.run("plan", "--out", "p.plan", expect=None)
        self.ended("plan", done.returncode, done.stderr)
        if done.returncode not in (0, 4, 8, 11):
            return
        count = next(
            (
                word
                for word, after in zip(done.stdout.split(), done.stdout.split()[1:], strict=False)
                if after in ("copies,", "copy,")
            ),
            "0",
        )
        words = ("apply", "p.plan", "--approve-deletes", count.replace(",", ""))
        if self.draw.random() < 0.3:
            self.meddle()
        if environment:
            child = str(Path(__file__).parent / "kill_child.py")
            killed = subprocess.run(
                [sys.executable, child, *words],
                cwd=project.root,
                env=project.env() | environment,
                check=False,
                capture_output=True,
                text=True,
            )
            self.log.append(f"apply ended with {killed.returncode} {environment}")
            if "FULL_AT" in environment:
                self.ended("full disk", killed.returncode, killed.stderr)
        else:
            done = project.run(*words, expect=None)
            self.ended("apply", done.returncode, done.stderr)
        after = self.contents("uploads")
        self.gone += max(0, len(before) - len(after))

    def ended(self, what: str, code: int, said: str) -> None:
        self.log.append(f"{what}: {code} {said.splitlines()[-1:]}")
        assert code in ENDS | {64} | ({1} if what == "full disk" else set()), self.log
        assert "Traceback" not in said and "could not go on" not in said, (self.log, said)

    def meddle(self) -> None:
        """A person does something; never one that takes the last bytes of a recording."""
        name = self.draw.choice(sorted(self.newest))
        path = self.folder("uploads") / f"beam/{ROOM}/Rec-{name}.mp4"
        match self.draw.randrange(8):
            case 0 if path.exists():
                self.newest[name] = video(self.draw.randrange(1 << 30), 400)
                path.write_bytes(self.newest[name])
                self.log.append(f"overwrote {name[-2:]}")
            case 1:
                self.holds.append(
                    {
                        "id": f"H{len(self.holds)}",
                        "why": "w",
                        "match": self.draw.choice([{"asset_id": name}, {"room": self.room}]),
                        "in": "vault",
                    }
                )
                self.rules()
                self.log.append(f"hold {self.holds[-1]['match']}")
            case 2:
                self.room = f"sales-{self.draw.randrange(100)}"
                self.api.add_room({"id": ROOM, "name": self.room})
                self.log.append(f"room is {self.room}")
            case 3:
                for store in ("vault", "cold"):
                    away = Path(str(self.folder(store)).rstrip("/") + ".disk")
                    if away.exists():
                        shutil.rmtree(self.folder(store))
                        away.rename(self.folder(store))
                    elif self.draw.random() < 0.5:
                        self.folder(store).rename(away)
                        self.folder(store).mkdir()
                self.log.append("disks")
            case 4:
                everywhere = self.contents("uploads", "vault", "cold")
                copies = [
                    each
                    for each in self.folder("vault").rglob("*.mp4")
                    if everywhere.count(each.read_bytes()) > 1
                ]
                if copies:
                    self.draw.choice(copies).unlink()
                    self.log.append("removed a copy")
            case 5 if self.state:
                name = self.draw.choice(["journal/latest.json", "_retainer/lock"])
                (Path(self.state.prefix) / name).unlink(missing_ok=True)
                self.log.append(f"removed {name} of the record")
            case 5:
                project = self.draw.choice([self.one, self.two])
                state = project.root / ".retainer"
                if lines := records.text_of(state).count(b"\n"):
                    records.cut(state, self.draw.randrange(lines + 1))
                    self.log.append("cut a journal")
            case 6:
                shutil.rmtree(
                    self.draw.choice([self.one, self.two]).root / ".retainer", ignore_errors=True
                )
                self.log.append("removed a state folder")
            case _:
                self.upload(
                    f"{self.draw.randrange(100, 1 << 40):024x}",
                    timedelta(days=self.draw.choice([1, 60])),
                )

    def step(self, patch: pytest.MonkeyPatch) -> None:
        project = self.draw.choice([self.one, self.two])
        match self.draw.randrange(8 if self.state else 6):
            case 0:
                self.meddle()
            case 1 | 6 | 7:
                at = {
                    "KILL_AT": str(self.draw.randrange(1, 60)),
                    "KILL_WHEN": self.draw.choice(["before", "after"]),
                }
                if self.draw.random() < 0.3:
                    at = {"FULL_AT": str(self.draw.randrange(1, 40))}
                self.plan_and_apply(project, **at)
                for store in (
                    "uploads",
                    "vault",
                    "cold",
                ):  # nobody waits ten minutes for a dead run of the other machine
                    (self.folder(store) / "_retainer" / "lock").unlink(missing_ok=True)
                if self.state:
                    (Path(self.state.prefix) / "_retainer" / "lock").unlink(missing_ok=True)
            case 2:
                shift, now = timedelta(days=self.draw.choice([-400, 400, 4000])), process._clock
                with pytest.MonkeyPatch.context() as wrong:
                    wrong.setattr(process, "_clock", lambda: now() + shift)
                    self.log.append(f"clock {shift.days}")
                    self.plan_and_apply(project)
            case 3:
                done = project.run(self.draw.choice(["verify", "adopt"]), "vault", expect=None)
                assert done.returncode in ENDS | {1} and "could not go on" not in done.stderr, (
                    self.log,
                    done.stderr,
                )
            case _:
                self.plan_and_apply(project)

    def check(self) -> None:
        everything = self.contents("uploads", "vault", "cold")
        for name, content in self.newest.items():
            assert content in everything, (f"{name} is gone", self.log)
        assert self.gone <= LIMIT, (self.gone, self.log)
        if self.state:
            folder = Path(self.state.prefix).parent / "reader"
            verify_journal(SharedBackend(folder, self.state.url, make_writer(self.state)))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(4))
def test_nothing_that_must_stay_goes_whatever_comes(part: int, tmp_path: Path) -> None:
    for seed in range(part, WORLDS, 4):
        with StandIn() as api, pytest.MonkeyPatch.context() as patch:
            world = World(tmp_path / str(seed), api, seed, shared=seed // 4 % 2 == 1)
            for _ in range(10):
                world.step(patch)
                world.check()
        shutil.rmtree(tmp_path / str(seed))
