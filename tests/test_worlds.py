"""Two machines, two checkouts, people who meddle, kills, full disks, wrong clocks and time that
passes, drawn by Hypothesis, against a small model of what must never happen.

Whatever comes, the bytes that a recording has now lie somewhere, unless a rule in force let them go
and no hold covered them, or 100ms dropped them before anybody had copied them; and no more is
deleted in a day than the limit allows, by both machines together. Half of the worlds share one
record, which is whole after each step. `RETAINER_WORLDS=300 pytest -m slow tests/test_worlds.py`
plays more of them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import records
from conftest import make_writer
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from project import ROOM, Project, make_project, video

from retainer.cli import process
from retainer.demo.standin import StandIn
from retainer.journal.journal import verify_journal
from retainer.journal.shared import SharedBackend
from retainer.model.setting import Store

WORLDS = int(os.environ.get("RETAINER_WORLDS", "40"))
STEPS = 12
LIMIT = 4
HOSTED_DAYS, SHORT_DAYS = 15, 30
PERIODS = ["9y", f"{SHORT_DAYS}d"]
ENDS = {0, 4, 5, 6, 7, 8, 10, 11, 130}
STORES = ("uploads", "vault", "cold")


def policy(period: str, stores: tuple[str, ...], holds: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything is kept for so long, and uploads make room for it."""
    keeps = {"vault": "all"} | {store: {"room": "sales-*"} for store in stores}
    rules = [
        {"id": f"in-{store}", "match": match, "keep": [{"in": store, "for": period}]}
        | {"then": "delete"}
        for store, match in keeps.items()
    ]
    raw = {"id": "raw", "match": "all", "delete": [{"in": "uploads", "after": "30d"}]}
    return {"version": 1, "rules": [*rules, raw], "holds": holds}


which = st.integers(0, 15)
machines = st.sampled_from(["one", "two"])


class Worlds(RuleBasedStateMachine):
    def __init__(self, *, shared: bool) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.api = StandIn().__enter__()
        one = make_project(self.root / "one", self.api, "local", "")
        one.stores["cold"] = replace(
            one.stores["vault"], name="cold", url=f"file://{self.root}/cold"
        )
        one.limits = {"count": LIMIT, "percent": 100, "bytes": "1TB"}
        two = Project(self.root / "two", self.api, one.stores, one.limits)
        self.state = Store("state", f"file://{self.root}/state") if shared else None
        for name in ("two", "cold", *(["state"] if shared else [])):
            (self.root / name).mkdir()
        if self.state:
            one.state = two.state = {"url": self.state.url}
        self.projects = {"one": one, "two": two}
        self.period, self.holds = "9y", list[dict[str, Any]]()
        self.beside: tuple[str, ...] = ()
        self.room = "sales-0"
        self.assets: dict[str, dict[str, Any]] = {}
        self.days: dict[str, int] = {}
        self.bytes: dict[str, bytes] = {}
        self.hosted: set[str] = set()
        self.free: set[str] = set()
        """What a rule may have let go, or 100ms has dropped."""
        self.gone = Counter[str]()
        self.log: list[str] = []
        self.api.add_room({"id": ROOM, "name": self.room})
        self.write()
        for days in (60, 60, 60, 60, 2):
            self.appears(days, at_100ms=False)
        self.plans_and_applies("one", lifts=False, number=0, data=None)

    def teardown(self) -> None:
        self.api.__exit__(None, None, None)
        shutil.rmtree(self.root)

    # ── what there is ─────────────────────────────────────────────────────────────────────────────

    def write(self) -> None:
        for project in self.projects.values():
            project.write(policy(self.period, self.beside, self.holds))

    def folder(self, store: str) -> Path:
        return Path(self.projects["one"].stores[store].prefix)

    def disk(self, store: str) -> Path:
        """Where a folder lies while another one is mounted in its place."""
        return Path(f"{self.folder(store)}".rstrip("/") + ".disk")

    def files(self, *stores: str) -> list[Path]:
        return [
            path
            for store in stores
            for root in (self.folder(store), self.disk(store))
            for path in root.rglob("*.mp4")
            if "_retainer/tmp" not in str(path)
        ]

    def contents(self, *stores: str) -> list[bytes]:
        return [path.read_bytes() for path in self.files(*stores)]

    def name(self, number: int) -> str:
        names = sorted(self.bytes)
        return names[number % len(names)]

    def is_held(self, name: str) -> bool:
        return any(
            hold["match"] in ({"asset_id": name}, {"room": self.room}) for hold in self.holds
        )

    def content(self) -> bytes:
        return video(len(self.log) * 100 + len(self.bytes), 400)

    @initialize(period=st.sampled_from(PERIODS), beside=st.sampled_from([(), ("cold",)]))
    def begins(self, period: str, beside: tuple[str, ...]) -> None:
        self.beside = beside
        self.rules_change(period)

    # ── recordings, and time ──────────────────────────────────────────────────────────────────────

    @rule(days=st.sampled_from([1, 12, 29, 60]), at_100ms=st.booleans())
    def appears(self, days: int, *, at_100ms: bool) -> None:
        name, content = f"{len(self.bytes) + 1:024x}", self.content()
        age = timedelta(days=days % HOSTED_DAYS if at_100ms else days)
        add = self.projects["one"].hosted if at_100ms else self.projects["one"].uploaded
        self.assets[name] = add(name, content, age=age)
        self.bytes[name], self.days[name] = content, age.days
        if at_100ms:
            self.hosted.add(name)
        self.log.append(f"{name[-2:]} appears, {age.days} days old")

    @rule(number=which, days=st.sampled_from([1, 10, 31]))
    def time_passes(self, number: int, days: int) -> None:
        """For one recording: periods are counted from when it was made."""
        name = self.name(number)
        self.days[name] += days
        made = process._clock() - timedelta(days=self.days[name])
        self.assets[name] |= {"created_at": made.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}
        hosted = name in self.hosted
        self.api.add_asset(self.assets[name], self.bytes[name], hosted=hosted)
        lapsed = hosted and self.days[name] >= HOSTED_DAYS
        if lapsed and self.bytes[name] not in self.contents(*STORES):
            self.free.add(name)
        self.log.append(f"{name[-2:]} is {self.days[name]} days old")

    def an_upload_is_written_over(self, number: int) -> None:
        name = self.name(number)
        path = self.folder("uploads") / f"beam/{ROOM}/Rec-{name}.mp4"
        if path.exists():
            self.bytes[name] = self.content()
            path.write_bytes(self.bytes[name])
            self.free.discard(name)
            self.log.append(f"{name[-2:]} was written over")

    # ── rules and holds ───────────────────────────────────────────────────────────────────────────

    @rule(period=st.sampled_from(PERIODS))
    def rules_change(self, period: str) -> None:
        self.period = period
        self.write()
        if period == "9y":
            self.what_lies_must_stay(self.free)
        self.log.append(f"kept for {period}")

    def what_lies_must_stay(self, names: set[str]) -> None:
        """From now on: whatever plans are on their way."""
        everywhere = set(self.contents(*STORES))
        self.free -= {name for name in names if self.bytes[name] in everywhere}

    @precondition(lambda self: len(self.holds) < 2)
    @rule(number=which, by_room=st.booleans())
    def a_hold_comes(self, number: int, *, by_room: bool) -> None:
        match = {"room": self.room} if by_room else {"asset_id": self.name(number)}
        self.holds.append({"id": f"H{len(self.log)}", "why": "w", "match": match, "in": "vault"})
        self.write()
        self.what_lies_must_stay({name for name in self.free if self.is_held(name)})
        self.log.append(f"hold {match}")

    @precondition(lambda self: self.holds)
    @rule(number=which)
    def a_hold_goes(self, number: int) -> None:
        gone = self.holds.pop(number % len(self.holds))
        self.write()
        self.log.append(f"no hold {gone['match']} any more")

    def the_room_is_renamed(self, number: int) -> None:
        self.room = f"sales-{number}"
        self.api.add_room({"id": ROOM, "name": self.room})
        self.log.append(f"the room is {self.room}")

    # ── people and machines ───────────────────────────────────────────────────────────────────────

    @rule(number=which, data=st.data())
    def somebody_meddles(self, number: int, data: st.DataObject) -> None:
        data.draw(
            st.sampled_from(
                [
                    self.an_upload_is_written_over,
                    self.somebody_removes_a_copy,
                    self.a_disk_comes_or_goes,
                    self.the_room_is_renamed,
                ]
            )
        )(number)

    def somebody_removes_a_copy(self, number: int) -> None:
        """Never the last."""
        everywhere = Counter(self.contents(*STORES))
        copies = [path for path in sorted(self.files("vault")) if everywhere[path.read_bytes()] > 1]
        if copies:
            copies[number % len(copies)].unlink()
            self.log.append("somebody removed a copy")

    def a_disk_comes_or_goes(self, number: int) -> None:
        store = STORES[1 + number % 2]
        if self.disk(store).exists():
            shutil.rmtree(self.folder(store))
            self.disk(store).rename(self.folder(store))
        else:
            self.folder(store).rename(self.disk(store))
            self.folder(store).mkdir()
        self.log.append(f"the disk of {store}")

    @rule(machine=machines, number=which, data=st.data())
    def the_record_suffers(self, machine: str, number: int, data: st.DataObject) -> None:
        state = self.projects[machine].root / ".retainer"
        what = data.draw(st.sampled_from(["is cut", "lost a part"] if self.state else ["is cut"]))
        if number == 0:
            shutil.rmtree(state, ignore_errors=True)
            what = "is gone"
        elif what == "is cut":
            records.cut(state, records.text_of(state).count(b"\n") * number // 16)
        elif self.state:
            name = ["journal/latest.json", "_retainer/lock"][number % 2]
            (Path(self.state.prefix) / name).unlink(missing_ok=True)
        self.log.append(f"the record of {machine} {what}")

    # ── what retainer does ────────────────────────────────────────────────────────────────────────

    @rule(machine=machines, lifts=st.booleans(), number=which, data=st.data())
    def plans_and_applies(
        self, machine: str, *, lifts: bool, number: int, data: st.DataObject | None
    ) -> None:
        """Somebody may come in between."""
        if not (count := self.plans(machine, lifts=lifts)):
            return
        comes = {
            "nothing": lambda: None,
            "a copy goes": lambda: self.somebody_removes_a_copy(number),
            "another upload": lambda: self.an_upload_is_written_over(number),
            "a hold": lambda: self.a_hold_comes(number, by_room=False),
            "other rules": lambda: self.rules_change("9y"),
            "a disk": lambda: self.a_disk_comes_or_goes(number),
        }
        most = ["a copy goes"] * 3  # what every delete rests on
        comes[data.draw(st.sampled_from([*comes, *most])) if data else "nothing"]()
        self.applies(machine, count)

    @rule(machine=machines, other=machines, lifts=st.booleans(), number=which, data=st.data())
    def plans_and_applies_twice(
        self, machine: str, other: str, *, lifts: bool, number: int, data: st.DataObject
    ) -> None:
        """What a first plan has copied, a second may delete elsewhere."""
        self.plans_and_applies(machine, lifts=lifts, number=number, data=None)
        self.plans_and_applies(other, lifts=lifts, number=number, data=data)

    @rule(machine=machines, at=st.integers(1, 60), when=st.sampled_from(["before", "after"]))
    def is_killed(self, machine: str, at: int, when: str) -> None:
        self.in_a_process(machine, KILL_AT=str(at), KILL_WHEN=when)

    @rule(machine=machines, at=st.integers(1, 40))
    def has_a_full_disk(self, machine: str, at: int) -> None:
        self.in_a_process(machine, FULL_AT=str(at))

    @rule(machine=machines, days=st.sampled_from([-400, 400, 4000]))
    def has_a_wrong_clock(self, machine: str, days: int) -> None:
        now = process._clock
        self.log.append(f"the clock is {days} days off")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(process, "_clock", lambda: now() + timedelta(days=days))
            self.plans_and_applies(machine, lifts=False, number=0, data=None)

    @rule(machine=machines, word=st.sampled_from(["verify", "adopt"]))
    def looks_at_a_store(self, machine: str, word: str) -> None:
        done = self.projects[machine].run(word, "vault", expect=None)
        self.ended(word, done.returncode, done.stderr, more={1})

    def plans(self, machine: str, *, lifts: bool = False) -> str | None:
        """How many deletes a plan has that could be applied. `lifts`: a person says of every store
        that what is missing of the record is gone for good."""
        words = [f"--lift=record:{store}" for store in STORES] if lifts else []
        done = self.projects[machine].run("plan", "--out", "p.plan", *words, expect=None)
        self.ended("plan", done.returncode, done.stderr)
        if done.returncode not in (0, 4, 8, 11):
            return None
        if self.period != "9y":
            self.free |= {
                name
                for name, days in self.days.items()
                if days >= SHORT_DAYS and not self.is_held(name)
            }
        pairs = pairwise(done.stdout.split())
        count = next((word for word, after in pairs if after in ("copies,", "copy,")), "0")
        return count.replace(",", "")

    def applies(self, machine: str, count: str, **environment: str) -> None:
        project, before = self.projects[machine], {each: self.files(each) for each in STORES}
        words = ("apply", "p.plan", "--approve-deletes", count)
        if environment:
            child = str(Path(__file__).parent / "kill_child.py")
            done: subprocess.CompletedProcess[str] = subprocess.run(
                [sys.executable, child, *words],
                cwd=project.root,
                env=project.env() | environment,
                check=False,
                capture_output=True,
                text=True,
            )
            self.log.append(f"apply ended with {done.returncode} {environment}")
        else:
            done = project.run(*words, expect=None)
        if "KILL_AT" not in environment:
            self.ended("apply", done.returncode, done.stderr, {1} if environment else set())
        for store in STORES:
            self.gone[store] += len(set(before[store]) - set(self.files(store)))

    def in_a_process(self, machine: str, **environment: str) -> None:
        if count := self.plans(machine):
            self.applies(machine, count, **environment)
        # Nobody waits ten minutes for a dead run of the other machine.
        places = [self.folder(store) for store in STORES]
        for place in (*places, *([Path(self.state.prefix)] if self.state else [])):
            (place / "_retainer" / "lock").unlink(missing_ok=True)

    def ended(
        self, what: str, code: int, said: str, more: frozenset[int] | set[int] = frozenset()
    ) -> None:
        self.log.append(f"{what}: {code} {said.splitlines()[-1:]}")
        assert code in ENDS | {64} | more, self.log
        assert "Traceback" not in said and "could not go on" not in said, (self.log, said)

    # ── what must be so ───────────────────────────────────────────────────────────────────────────

    @invariant()
    def what_must_stay_lies_somewhere(self) -> None:
        everywhere = set(self.contents(*STORES))
        for name, content in self.bytes.items():
            if name in self.hosted and self.days[name] < HOSTED_DAYS:
                continue
            assert name in self.free or content in everywhere, (f"{name} is gone", self.log)

    @invariant()
    def no_more_goes_in_a_day_than_the_limit_allows(self) -> None:
        assert all(count <= LIMIT for count in self.gone.values()), (self.gone, self.log)

    @invariant()
    def the_shared_record_is_whole(self) -> None:
        if self.state:
            folder = Path(self.state.prefix).parent / "reader"
            verify_journal(SharedBackend(folder, self.state.url, make_writer(self.state)))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("shared", [False, True])
def test_nothing_that_must_stay_goes_whatever_comes(*, shared: bool) -> None:
    run_state_machine_as_test(
        lambda: Worlds(shared=shared),
        settings=settings(
            max_examples=WORLDS // 2,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
