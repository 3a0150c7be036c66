"""Plans of which other machines decide the ranges (docs/how-to/many-machines.md): with workers as
processes, and, where it is about what they leave for one another, with one in this process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import generate
import pytest
import test_cooling as cooling_of
from generate import Case, now_of, policies_of
from hypothesis import Phase, given, settings
from machines import Machines, machines
from project import POLICY, Project, video
from test_by_ranges import (
    SIZE,
    an_example,
    decider,
    limited,
    planned,
    settings_of,
    sharing,
    snapshot,
)

from retainer import planning, ranging, workplace
from retainer.cases import Decider
from retainer.errors import PlanRefused, PoliciesWrong, RetainerError, StoreFailed
from retainer.model.rule import Acceptance, OneOf, Policies, Where
from retainer.model.setting import Settings
from retainer.model.shard import Part, Shard, Told
from retainer.planning import make_plan
from retainer.private import private_folder
from retainer.ranging import Ranging, decide_part
from retainer.stop import Stop, Stopped
from retainer.weighing import Making

__all__ = ["decider"]
CHILD = str(Path(__file__).parent / "ranging_child.py")


# ── with a worker in this process ─────────────────────────────────────────────────────────────────


@dataclass
class Here:
    """`ports.Engine` of two machines that are this one."""

    root: Path
    spoil: Callable[[Part], None] = lambda _part: None
    """What is done once a range was decided."""
    made: list[int] = field(default_factory=list)
    machines: int = 2

    def submit(self, shard: Shard | Part) -> Future[str | None]:
        assert isinstance(shard, Part)
        told: Future[str | None] = Future()
        try:
            self.made.append(shard.number)
            left = decide_part(json.loads(json.dumps(shard.written())), self.root)
            self.spoil(shard)
            told.set_result(left)
        except RetainerError as error:
            told.set_exception(error)
        return told

    def listen(self, heard: Callable[[Told], None]) -> None:
        raise AssertionError

    def close(self) -> None:
        return


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody rests, waits or moves to another private folder."""
    monkeypatch.setattr(workplace, "REST_SECONDS", 0.0)
    monkeypatch.setattr(ranging, "AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(ranging, "SEEN_SECONDS", 0.3)
    monkeypatch.setattr(ranging, "keep_private_in", lambda _state: None)


@dataclass
class Bench:
    """A snapshot of a case, and those who make plans of it."""

    case: Case
    facts: Path
    monkeypatch: pytest.MonkeyPatch
    size: int = 10

    def one(self, name: str, **making: Any) -> bytes:
        """The plan that this process makes by itself."""
        out = self.facts.parent / name
        with limited(self.size, 2, 7):
            make_plan(*self._given(), Making(now_of(self.case), **making), out)
        return out.read_bytes()

    def many(
        self,
        name: str,
        engine: Here,
        *,
        worker: Callable[[Settings, Policies], tuple[Settings, Policies]] = lambda *both: both,
        stop: Stop | None = None,
        **making: Any,
    ) -> bytes:
        """The one of which others decide the ranges. `worker`: what settings and policies they
        have."""
        facts, own, policies, project = self._given()
        theirs = worker(own, policies)
        self.monkeypatch.setattr(ranging, "project_here", lambda _root: (*theirs, project))
        self.monkeypatch.setattr(ranging, "AT_ONCE", self.size)
        out = self.facts.parent / name
        elsewhere = Ranging(
            engine, facts, policies, stop or Stop(), lambda _said: None, lambda _count: None
        )
        with limited(self.size, 2, 7):
            made = Making(now_of(self.case), **making)
            make_plan(facts, own, policies, project, made, out, elsewhere=elsewhere)
        return out.read_bytes()

    def _given(self) -> tuple[Path, Settings, Policies, Path]:
        return self.facts, settings_of(self.case), policies_of(self.case), self.facts.parent

    def left(self) -> list[str]:
        return [path.name for path in self.facts.parent.iterdir() if path.suffix == ".ranges"]


@pytest.fixture
def bench(tmp_path: Path, decider: Decider, monkeypatch: pytest.MonkeyPatch) -> Bench:
    case, facts = an_example(), tmp_path / "facts.duckdb"
    snapshot(case, decider, facts)
    return Bench(case, facts, monkeypatch)


def test_a_plan_of_many_is_byte_for_byte_that_of_one(
    tmp_path: Path, decider: Decider, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = 0

    @settings(max_examples=3, phases=(Phase.generate,))
    @given(generate.cases(assets=SIZE))
    def compare(case: Case) -> None:
        nonlocal made
        made += 1
        case = generate.enriched(case, Random(made))
        facts = tmp_path / f"{made}.duckdb"
        snapshot(case, decider, facts)
        bench, engine = Bench(case, facts, monkeypatch, size=20), Here(tmp_path)
        assert bench.many("many.plan", engine) == bench.one("one.plan")
        assert engine.made == [0, 1, 2, 3] and bench.left() == []

    compare()


def test_a_key_that_recordings_of_two_ranges_share_goes_only_when_both_may(
    shares_keys: Bench,
) -> None:
    engine = Here(shares_keys.facts.parent)
    assert shares_keys.many("many.plan", engine) == shares_keys.one("one.plan")
    header, rows = planned(shares_keys.facts.parent / "many.plan")
    assert header["deletes"] == 4 and ("blocked", "shared") in [row[3:5] for row in rows]


@pytest.mark.slow
def test_what_the_record_and_the_command_say_reaches_every_range(bench: Bench) -> None:
    """As what 100ms has lost, and --only."""
    some = {each["id"] for each in bench.case["assets"]}
    gone = tuple((asset_id, ranging.hashlib.sha256(b"").hexdigest()[:16]) for asset_id in some)
    scope = "{type: chat}"
    more = {
        "only": OneOf("type", ("chat",)),
        "scope": scope,
        "gone": gone,
        "lifts": frozenset({"cooling:policies"}),
    }
    engine = Here(bench.facts.parent)
    assert bench.many("many.plan", engine, **more) == bench.one("one.plan", **more)
    assert bench.one("all.plan") != bench.one("one.plan", **more)


def test_one_range_is_decided_where_the_plan_is_made(bench: Bench) -> None:
    bench.size, engine = SIZE, Here(bench.facts.parent)
    assert bench.many("many.plan", engine) == bench.one("one.plan")
    assert engine.made == []


@pytest.mark.slow
def test_a_range_that_failed_is_given_away_again(bench: Bench) -> None:
    failed = []

    def fail(part: Part) -> None:
        if len(failed) < 2:
            failed.append(part.number)
            raise StoreFailed("the machine was lost")

    engine = Here(bench.facts.parent, spoil=fail)
    assert bench.many("many.plan", engine) == bench.one("one.plan")
    assert len(engine.made) == len(set(engine.made)) + 2


@pytest.mark.slow
def test_a_range_that_fails_everywhere_ends_the_plan(bench: Bench) -> None:
    def fail(part: Part) -> None:
        if part.number == 3:
            raise StoreFailed("its disk is full")

    engine = Here(bench.facts.parent, spoil=fail)
    with pytest.raises(StoreFailed, match="its disk is full"):
        bench.many("many.plan", engine)
    assert engine.made.count(3) == 3
    assert bench.left() == [] and not (bench.facts.parent / "many.plan").exists()


def changed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def renamed(path: Path) -> None:
    told = json.loads(path.read_text())
    told["quiet"][0][0] = f"../{path.parent.name}/{told['quiet'][0][0]}"
    path.write_text(json.dumps(told))


def fewer(path: Path) -> None:
    told = json.loads(path.read_text())
    told["sums"]["sure"].pop()
    path.write_text(json.dumps(told))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("which", "spoil"),
    [
        ("{}-*.parquet", changed),
        ("{}-*.parquet", Path.unlink),
        ("{}-*.json", lambda path: path.write_text("{")),
        ("{}-*.json", lambda path: path.write_text('{"sums": {}}')),
        ("{}-*.json", renamed),
        ("{}-*.json", fewer),
        ("{}-*.json", Path.unlink),
    ],
)
def test_what_was_left_otherwise_than_it_was_made_is_not_taken_in(
    bench: Bench, which: str, spoil: Callable[[Path], object]
) -> None:
    def strike(part: Part) -> None:
        if part.number == 2:
            for path in Path(part.folder).glob(which.format(part.name)):
                spoil(path)

    engine = Here(bench.facts.parent, spoil=strike)
    with pytest.raises(StoreFailed, match=r"range 2 cannot be read|another folder"):
        bench.many("many.plan", engine)
    assert engine.made.count(2) == 3, "it is tried again"
    assert bench.left() == [] and not (bench.facts.parent / "many.plan").exists()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["quiet", "pieces", "acts"])
def test_each_file_of_a_range_is_compared_with_what_was_written(bench: Bench, what: str) -> None:
    def strike(part: Part) -> None:
        if part.number == 0:
            folder = Path(part.folder)
            told = json.loads(max(folder.glob(f"{part.name}-*.json")).read_text())
            changed(folder / told[what][0][0])

    with pytest.raises(StoreFailed, match="range 0 cannot be read"):
        engine = Here(bench.facts.parent, spoil=strike)
        bench.monkeypatch.setattr(ranging, "TRIES", 1)
        bench.many("many.plan", engine)


def emptied(path: Path) -> None:
    with duckdb.connect() as connection:
        rows = f"FROM read_parquet('{path}') LIMIT 0"
        connection.execute(f"COPY ({rows}) TO '{path}.half' (FORMAT parquet)")
    Path(f"{path}.half").replace(path)


def later(path: Path) -> None:
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"now": "2036-01-01T00:00:00Z"}))


@pytest.mark.parametrize(
    ("which", "spoil"),
    [
        ("sharing.parquet", changed),
        ("sharing.parquet", emptied),
        ("sharing.parquet", lambda path: path.write_bytes(path.read_bytes()[:-9])),
        ("terms.json", later),
    ],
)
def test_what_the_command_left_is_believed_only_as_it_left_it(
    shares_keys: Bench, which: str, spoil: Callable[[Path], object]
) -> None:
    """Where nothing is told of a shared key, a delete would take what another recording needs."""
    left = Ranging._leave

    def leave(self: Ranging, asked: Any, draft: Any, folder: Path) -> str:
        digest = left(self, asked, draft, folder)
        spoil(folder / which)
        return digest

    shares_keys.monkeypatch.setattr(Ranging, "_leave", leave)
    with pytest.raises(StoreFailed, match="is not what the command left there"):
        shares_keys.many("many.plan", Here(shares_keys.facts.parent))


def test_a_shared_key_of_which_nothing_is_known_is_not_deleted(shares_keys: Bench) -> None:
    def nothing(connection: duckdb.DuckDBPyConnection, _folder: Path, _terms: Any) -> None:
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE sharing AS "
            "SELECT 'uploads'::place AS store, ''::VARCHAR AS shared, true AS all_go LIMIT 0"
        )

    shares_keys.monkeypatch.setattr(ranging, "_take_sharing", nothing)
    shares_keys.many("many.plan", Here(shares_keys.facts.parent))
    header, rows = planned(shares_keys.facts.parent / "many.plan")
    assert header["deletes"] == 0
    assert [row[4] for row in rows if row[3] == "blocked"] == ["shared"] * 5


@pytest.fixture
def shares_keys(tmp_path: Path, decider: Decider, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Three pairs of uploads, of which one recording is held, so that four may go."""
    case = sharing("30d", ["2026-01-01T00:00:00Z"] * 6)
    held = {"id": "LIT-1", "why": "x", "in": "uploads"}
    case |= {"holds": [held | {"match": {"asset_id": case["assets"][5]["id"]}}]}
    facts = tmp_path / "facts.duckdb"
    snapshot(case, decider, facts)
    return Bench(case, facts, monkeypatch, size=2)


LOST = Acceptance("no such recording", Where("policies/x.yaml", 1))


def moved(own: Settings, policies: Policies) -> tuple[Settings, Policies]:
    first, *others = policies.rules
    where = replace(first.where, line=first.where.line + 1)
    return own, replace(policies, rules=(replace(first, where=where), *others))


@pytest.mark.slow
@pytest.mark.parametrize(
    "worker",
    [
        lambda own, policies: (own, replace(policies, rules=policies.rules[1:])),
        lambda own, policies: (own, replace(policies, losses=(LOST,))),
        lambda own, policies: (own, replace(policies, accepts=(LOST,))),
        lambda own, policies: (replace(own, timezone="Asia/Kolkata"), policies),
        lambda own, policies: (replace(own, stores=own.stores[::-1]), policies),
        moved,
    ],
)
def test_a_worker_with_other_policies_decides_nothing(
    bench: Bench, worker: Callable[[Settings, Policies], tuple[Settings, Policies]]
) -> None:
    engine = Here(bench.facts.parent)
    with pytest.raises(PoliciesWrong, match="are not those of the plan"):
        bench.many("many.plan", engine, worker=worker)
    assert len(engine.made) <= 4, "it stands against every range"
    assert bench.left() == []


def test_other_versions_decide_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    here = ranging.versions()
    versions = iter(["retainer 9.9.9, duckdb 1.0, tzdata 2020.1"] * 7)
    monkeypatch.setattr(ranging, "versions", lambda: next(versions, here))
    with pytest.raises(PlanRefused, match=r"has retainer 0\..* and this run retainer 9\.9\.9"):
        bench.many("many.plan", Here(bench.facts.parent))


@pytest.mark.slow
def test_other_facts_in_the_same_place_are_noticed(bench: Bench) -> None:
    """Also where every list is the same, and only what is told of a copy is another."""
    other = bench.facts.parent / "other.duckdb"
    other.write_bytes(bench.facts.read_bytes())
    with duckdb.connect(str(other)) as facts:
        facts.execute("UPDATE copies SET complete = true, lock_read = true, locked_until = NULL")

    def swap(part: Part) -> None:
        if other.exists():
            other.replace(bench.facts)

    with pytest.raises(RetainerError, match="is another snapshot here"):
        bench.many("many.plan", Here(bench.facts.parent, spoil=swap))


@pytest.mark.slow
def test_facts_that_are_written_to_while_a_worker_decides_are_noticed_there(bench: Bench) -> None:
    decided, opened, was = ranging.decide_range, ranging.open_facts, bench.facts.stat()

    def as_they_were(*words: Any) -> Any:
        os.utime(bench.facts, ns=(was.st_atime_ns, was.st_mtime_ns))
        return opened(*words)

    def touched(*words: Any, **more: Any) -> None:
        decided(*words, **more)
        os.utime(bench.facts, (1, 1))

    bench.monkeypatch.setattr(ranging, "open_facts", as_they_were)
    bench.monkeypatch.setattr(ranging, "decide_range", touched)
    with pytest.raises(RetainerError, match="is another snapshot here"):
        bench.many("many.plan", Here(bench.facts.parent))


@pytest.mark.slow
def test_facts_that_are_replaced_at_last_are_noticed(bench: Bench) -> None:
    def swap(part: Part) -> None:
        if part.number == 11:
            os.utime(bench.facts, (1, 1))

    with pytest.raises(RetainerError, match="was replaced while it was read"):
        bench.many("many.plan", Here(bench.facts.parent, spoil=swap))


@pytest.mark.slow
def test_a_worker_keeps_no_file_of_a_range_that_it_could_not_tell_of(bench: Bench) -> None:
    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    bench.monkeypatch.setattr(ranging, "_tell", full)
    before = set(private_folder().iterdir())
    with pytest.raises(StoreFailed, match="No space left"):
        bench.many("many.plan", Here(bench.facts.parent))
    left = {path.suffix for path in set(private_folder().iterdir()) - before}
    assert ".parquet" not in left


@pytest.mark.slow
def test_a_folder_into_which_a_worker_writes_still_is_removed(bench: Bench) -> None:
    """It may leave a file at any time, but not once the folder has another name."""
    gone = []
    removed = ranging.shutil.rmtree

    def busy(path: Path, **more: Any) -> None:
        removed(path, **more)
        if not gone:
            path.mkdir()  # as a file that comes in between keeps it from going
        gone.append(path)

    bench.monkeypatch.setattr(ranging.shutil, "rmtree", busy)
    bench.many("many.plan", Here(bench.facts.parent))
    assert bench.left() == [] and len(gone) == 2 and gone[0].name.endswith("-over.ranges")


def test_a_plan_that_is_asked_to_end_leaves_nothing(bench: Bench) -> None:
    stop = Stop()
    with pytest.raises(Stopped):
        bench.many("many.plan", Here(bench.facts.parent, spoil=lambda _part: stop.ask()), stop=stop)
    assert bench.left() == []


@pytest.mark.slow
def test_what_a_dead_plan_has_left_is_removed_a_day_later(bench: Bench) -> None:
    folder = bench.facts.parent
    old, young, others = (
        folder / name
        for name in (".facts.duckdb.1.ranges", ".facts.duckdb.2.ranges", ".other.duckdb.1.ranges")
    )
    for path, days in ((old, 2), (young, 0.5), (others, 9)):
        path.mkdir()
        (path / "terms.json").touch()
        then = time.time() - days * 86_400
        os.utime(path, (then, then))
    bench.many("many.plan", Here(folder))
    assert sorted(bench.left()) == [young.name, others.name]


def test_what_a_worker_is_given_names_nobody() -> None:
    given_away = Part("/shared/.facts.duckdb.1.ranges", 3, "x", "0" * 64).written()
    assert {name: type(value) for name, value in given_away.items()} == {
        "folder": str, "number": int, "made_with": str, "terms": str,
    }  # fmt: skip


@pytest.mark.slow
def test_what_earlier_policies_had_promised_counts_in_every_range(
    local: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cooling_of.commit(cooling_of.begun(local), cooling_of.policy(cooling_of.LONG))
    for number in range(12):
        local.uploaded(f"{number:024x}", video(number))
    local.plan()
    local.apply()
    cooling_of.commit(local, cooling_of.policy(cooling_of.SHORT))
    facts = tmp_path / "shared.duckdb"
    local.run("facts", "--out", str(facts))

    @contextmanager
    def engine_at(_address: str) -> Iterator[Here]:
        yield Here(local.root)

    monkeypatch.setattr("retainer.cli.plans.engine_at", engine_at)
    for module in (planning, ranging):
        monkeypatch.setattr(module, "AT_ONCE", 3)
    at = ("--facts", str(facts), "--as-of", "2026-12-05T00:00:00Z")
    one = cooling_of.header(local, *at)
    whole = (local.root / "p.plan").read_bytes()
    cooling_of.header(local, *at, "--on", "tls://x:1")
    assert (local.root / "p.plan").read_bytes() == whole
    assert one.cooled and one.deletes == 0
    lifted = (*at, "--lift", "cooling:policies")
    assert cooling_of.header(local, *lifted, expect=4).deletes > 0
    whole = (local.root / "p.plan").read_bytes()
    cooling_of.header(local, *lifted, "--on", "tls://x:1", expect=4)
    assert (local.root / "p.plan").read_bytes() == whole


# ── with workers as processes ─────────────────────────────────────────────────────────────────────


@pytest.fixture
def lab() -> Iterator[Machines]:
    with machines() as found:
        yield found


@pytest.fixture
def shared(local: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A snapshot of 41 recordings, of which ten are decided at a time."""
    for module in (planning, ranging):
        monkeypatch.setattr(module, "AT_ONCE", 10)
    local.write(POLICY)
    local.many_due(20)
    for number in range(20):
        local.hosted(f"c{number:023x}", video(number))
    facts = tmp_path / "shared" / "facts.duckdb"
    facts.parent.mkdir()
    local.run("facts", "--out", str(facts))
    return facts


def at(facts: Path) -> tuple[str, ...]:
    return ("--as-of", "2026-11-20T00:00:00Z", "--facts", str(facts))


def test_two_machines_make_the_plan_that_one_makes(
    shared: Path, local: Project, lab: Machines
) -> None:
    lab.worker(local)
    lab.worker(local)
    one = local.plan("one.plan", *at(shared))
    many = local.plan("many.plan", *at(shared), "--on", lab.address)
    assert (local.root / "one.plan").read_bytes() == (local.root / "many.plan").read_bytes()
    assert many["header"] == one["header"] and len(many["rows"]) > 40
    assert list(shared.parent.iterdir()) == [shared]


@pytest.mark.slow
def test_a_worker_that_is_killed_while_it_decides(
    shared: Path, local: Project, lab: Machines
) -> None:
    dies = lab.worker(local, "--preload", CHILD, KILLED="yes")
    lab.worker(local, "--preload", CHILD)
    local.plan("one.plan", *at(shared))
    local.plan("many.plan", *at(shared), "--on", lab.address)
    assert (local.root / "one.plan").read_bytes() == (local.root / "many.plan").read_bytes()
    assert lab.processes[dies].wait(30) == -signal.SIGKILL


@pytest.mark.slow
def test_a_range_that_a_worker_does_not_end_is_given_to_another_one(
    shared: Path, local: Project, lab: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranging, "STUCK_SECONDS", 4.0)
    lab.worker(local, "--preload", CHILD, HANGS="yes")
    lab.worker(local, "--preload", CHILD)
    local.plan("one.plan", *at(shared))
    local.plan("many.plan", *at(shared), "--on", lab.address)
    assert (local.root / "one.plan").read_bytes() == (local.root / "many.plan").read_bytes()


@pytest.mark.slow
def test_a_range_that_has_ended_is_not_taken_for_a_stuck_one(bench: Bench) -> None:
    """To take in one of those before it may have taken long."""
    fetched = ranging._fetch

    def slow(*given: Any) -> Any:
        time.sleep(0.5)
        return fetched(*given)

    class Later(Here):
        def submit(self, shard: Shard | Part) -> Future[str | None]:
            told = super().submit(shard)
            later: Future[str | None] = Future()
            seconds = 0.01 if len(self.made) > 1 else 0.0  # all but the first end during its turn
            threading.Timer(seconds, lambda: later.set_result(told.result())).start()
            return later

    bench.monkeypatch.setattr(ranging, "STUCK_SECONDS", 0.3)
    bench.monkeypatch.setattr(ranging, "_fetch", slow)
    engine = Later(bench.facts.parent)
    bench.many("many.plan", engine)
    assert len(engine.made) == len(set(engine.made))


@pytest.mark.slow
def test_a_range_that_nobody_ends_ends_the_plan(bench: Bench) -> None:
    class Nobody(Here):
        def submit(self, shard: Shard | Part) -> Future[str | None]:
            assert isinstance(shard, Part)
            self.made.append(shard.number)
            return Future()

    bench.monkeypatch.setattr(ranging, "STUCK_SECONDS", 0.2)
    engine = Nobody(bench.facts.parent)
    with pytest.raises(StoreFailed, match=r"no worker has decided range 0 within .* 3 times"):
        bench.many("many.plan", engine)
    assert engine.made.count(0) == 3 and bench.left() == []


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_beside_the_facts(
    shared: Path, local: Project, lab: Machines
) -> None:
    lab.worker(local, "--preload", CHILD, HANGS="yes")
    words = ["plan", *at(shared), "--out", "many.plan", "--on", lab.address]
    by_ten = (
        "import sys; from retainer import planning, ranging; from retainer.cli import main\n"
        f"planning.AT_ONCE = ranging.AT_ONCE = 10; sys.argv = ['retainer', *{words!r}]; main()"
    )
    driver = subprocess.Popen([sys.executable, "-c", by_ten], cwd=local.root, env=local.env())
    for _ in range(600):
        if list(shared.parent.glob(".*.ranges/*.parquet")):
            break
        time.sleep(0.05)
    driver.send_signal(signal.SIGINT)
    assert driver.wait(30) == 130
    assert list(shared.parent.iterdir()) == [shared]
    assert not (local.root / "many.plan").exists()


@pytest.mark.slow
def test_a_worker_that_does_not_see_the_facts_says_so(
    shared: Path, local: Project, lab: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the folder is another one there."""
    lab.worker(local, "--preload", CHILD)
    kept = Ranging._leave

    def leave(self: Ranging, asked: Any, draft: Any, folder: Path) -> str:
        digest = kept(self, asked, draft, folder)
        (folder / "terms.json").unlink()
        return digest

    monkeypatch.setattr(Ranging, "_leave", leave)
    said = local.run("plan", *at(shared), "--on", lab.address, expect=1).stderr
    assert "the worker on" in said and "there is no" in said
    assert list(shared.parent.iterdir()) == [shared]


@pytest.mark.slow
def test_a_worker_with_other_rules_is_refused(shared: Path, local: Project, lab: Machines) -> None:
    local.write(POLICY | {"rules": POLICY["rules"][:1]})
    lab.worker(local)
    local.write()
    said = local.run("plan", *at(shared), "--on", lab.address, expect=10).stderr
    assert "its settings or policies are not those of the plan" in said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--on", "tcp://127.0.0.1:1"), "--on needs --facts"),
        (("--on", "tcp://10.0.0.1:8786", "--facts", "facts.duckdb"), "an open scheduler"),
        (("--on", "http://x", "--facts", "facts.duckdb"), "no address of a scheduler"),
        (("--on", "tls://", "--facts", "facts.duckdb"), "no address of a scheduler"),
        (("--on", "127.0.0.1:8786", "--facts", "facts.duckdb"), "no address of a scheduler"),
        (("--on", "tcp://127.0.0.1", "--facts", "facts.duckdb"), "no address of a scheduler"),
    ],
)
def test_what_cannot_be_shared_is_refused(
    local: Project, words: tuple[str, ...], told: str
) -> None:
    local.run("facts", "--out", "facts.duckdb")
    assert told in local.run("plan", *words, expect=64).stderr
