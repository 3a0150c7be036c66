"""The deletes of one run, on folders: which of them are made, with which others, and what is told of
those that are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from conftest import make_store
from hypothesis import given
from hypothesis import strategies as st

from retainer.apply import delete
from retainer.apply import deletes as deleting
from retainer.apply.deletes import Deletes
from retainer.apply.job import Job, Recheck
from retainer.apply.outcomes import BRAKE_FROM, Outcomes
from retainer.apply.places import REFUSALS, SKEW, Places
from retainer.errors import RetainerError, StoreFailed, StoreRefused
from retainer.planfile import Action, Planned
from retainer.ports import Certain, Deletion, Seen, StoreFailure, Version
from retainer.stop import Stop, Stopped
from retainer.stores.local import LocalWriter

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
TOGETHER, SINGLY = Certain(batch_delete=True), Certain()


class Folder(LocalWriter):
    """One of which every delete is written down; `answer` comes before each."""

    honours = TOGETHER
    calls: list[list[str]]
    answer: Callable[[Seen], Deletion | None] = staticmethod(lambda _seen: None)

    def conditions(self) -> Certain:
        return self.honours

    def delete(self, seen: Seen) -> Deletion:
        self.calls.append([seen.key])
        return self.answer(seen) or super().delete(seen)

    def delete_batch(self, batch: Sequence[Seen]) -> list[Deletion | StoreFailure]:
        self.calls.append([each.key for each in batch])
        return [self.answer(seen) or super(Folder, self).delete(seen) for seen in batch]


@dataclass
class Bench:
    """A run whose deletes are written by hand. `locks`: those that hold; `recheck`: what each last
    look says, the last one again and again."""

    folder: Path
    stores: dict[str, Folder] = field(default_factory=dict)
    due: dict[str, list[Action]] = field(default_factory=dict)
    deleted: set[int] = field(default_factory=set)
    barred: dict[str, str] = field(default_factory=dict)
    unlocked: dict[str, RetainerError] = field(default_factory=dict)
    locks: dict[str, bool] = field(default_factory=dict)
    recheck: list[Recheck] = field(default_factory=lambda: [Recheck(None, {})])
    clocks: dict[str, Callable[[], datetime]] = field(default_factory=dict)
    anchored: list[tuple[str, list[tuple[str, int, int]]]] = field(default_factory=list)
    no_anchor: set[str] = field(default_factory=set)
    lines: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    told: list[tuple[int, str]] = field(default_factory=list)
    asked: int = 0

    def __post_init__(self) -> None:
        for name in ("uploads", "vault"):
            self.stores[name] = folder = Folder(
                replace(make_store("local", "", self.folder), name=name)
            )
            folder.calls = []
            self.locks[name] = True

    def put(self, store: str, key: str) -> Planned:
        content = f"{store} {key}".encode()
        seen = self.stores[store].create(key, iter([content]), len(content), {}, "text/plain").seen
        return Planned(store, key, seen.size, seen.version)

    def add(self, *names: str, store: str = "uploads", safe: str = "vault", **more: Any) -> Action:
        """A delete of a copy of these objects, which rests on a copy elsewhere."""
        number = sum(map(len, self.due.values()))
        told: dict[str, Any] = {
            "n": number,
            "asset_id": f"{number:024}",
            "store": store,
            "decision": "delete",
            "rule": "clear",
            "at": "p.yaml:1",
            "objects": tuple(self.put(store, f"{number}/{name}") for name in names or ("a",)),
            "witnesses": (self.put(safe, f"{number}/w"),),
            "facts": {},
            "origin": (),
            "broken": (),
            "folder": "",
            "last_copy": False,
        }
        absent = ("type", "created", "deadline", "bytes", "source", "target", "lock_until")
        action = Action(**(dict.fromkeys(absent) | told | more))
        self.due.setdefault(store, []).append(action)
        return action

    def _recheck(self) -> Recheck:
        self.asked += 1
        return self.recheck.pop(0) if len(self.recheck) > 1 else self.recheck[0]

    def _anchor(self, store: str, acts: Sequence[tuple[str, int, int]]) -> None:
        if store in self.no_anchor:
            raise StoreFailed("no answer")
        self.anchored.append((store, list(acts)))

    def _watched(self, action: Action, how: str, _why: str | None) -> None:
        self.told.append((action.n, how))

    def made(self) -> Outcomes:
        """The deletes, made as a run makes them, one unit after the other."""

        def write_all(events: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
            self.lines.extend(events)

        plan = SimpleNamespace(
            deleted_in={store: len(of) for store, of in self.due.items()},
            rested_on={"uploads", "vault"},
            deletes=lambda store: iter(self.due[store]),
        )
        journal = SimpleNamespace(
            write=lambda event, **of: self.lines.append((event, of)), write_all=write_all
        )
        bare = {"settled": (), "identities": {}, "asking": {}, "keep_deleted": {}, "places": {}}
        bare |= {"reported": (), "keep_removed": {}, "look_every": None}
        job = cast(
            Job,
            SimpleNamespace(
                **bare,
                **{
                    name: getattr(self, name) for name in ("stores", "barred", "unlocked", "clocks")
                },
                plan=plan,
                journal=journal,
                clock=lambda: NOW,
                watcher=SimpleNamespace(ended=self._watched),
                locks={name: SimpleNamespace(holds=holds) for name, holds in self.locks.items()},
                recheck=self._recheck,
                anchor=self._anchor,
                before=SimpleNamespace(deleted=self.deleted),
                stop=Stop(),
                workers=2,
            ),
        )
        outcomes = Outcomes(job)
        places = Places(job, outcomes)
        places.prove(self.stores, self.stores)
        deletes = Deletes(job, places, outcomes)

        def each(units: Iterator[list[Action]], act: Callable[[list[Action]], None]) -> None:
            for unit in units:
                act(unit)

        try:
            deletes.make(lambda store: deletes.make_in(store, each))
        except Stopped:
            outcomes.summary.interrupted = True
        return outcomes

    def calls(self, store: str = "uploads") -> list[str]:
        return [
            " ".join(call)
            for call in self.stores[store].calls
            if not call[0].startswith("_retainer/")
        ]

    def how(self) -> str:
        return " ".join(f"{number}:{how}" for number, how in sorted(self.told))

    def written(self, event: str, *names: str) -> list[tuple[Any, ...]]:
        return [tuple(of.get(name) for name in names) for what, of in self.lines if what == event]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


# ── before any is made ────────────────────────────────────────────────────────────────────────────


def test_where_an_earlier_run_made_all_of_them_each_is_told_and_nothing_is_asked(
    bench: Bench,
) -> None:
    bench.add(), bench.add(store="vault", safe="uploads")
    bench.deleted = {0, 1}
    bench.recheck = [Recheck("the policies changed", {})]
    summary = bench.made().summary
    assert (summary.already, summary.left_deletes, summary.said) == (2, 0, [])
    assert (bench.how(), bench.asked) == ("0:already 1:already", 0)


@pytest.mark.parametrize(
    ("refused", "off", "said"),
    [
        ("the policies changed", timedelta(), "the policies changed: no deletes"),
        (None, 2 * SKEW, "this machine's clock is 10 minutes off that of vault: no deletes"),
        ("the policies changed", 2 * SKEW, "the policies changed: no deletes"),
    ],
)
def test_the_last_look_before_them_leaves_all_that_are_not_made(
    bench: Bench, refused: str | None, off: timedelta, said: str
) -> None:
    bench.add(), bench.add(), bench.add(store="vault", safe="uploads")
    bench.deleted = {0}
    bench.recheck, bench.clocks = [Recheck(refused, {})], {"vault": lambda: NOW + off}
    summary = bench.made().summary
    assert (summary.already, summary.left_deletes, summary.said) == (1, 2, [said])
    assert (bench.how(), bench.anchored) == ("0:already 1:left 2:left", [])
    assert bench.calls() == bench.calls("vault") == []


def test_a_store_remembers_those_that_are_made_and_no_others(bench: Bench) -> None:
    """What is made already, or rests on a store that cannot be locked, is not about to be."""
    bench.add(), bench.add(store="vault", safe="uploads")
    bench.locks["cold"] = False
    for number, barred in enumerate((False, True, False, True, False)):
        bench.add(rule="clear" if number < 3 else "sweep", safe="vault")
        if barred:
            action = bench.due["uploads"][-1]
            far = replace(action.witnesses[0], store="cold")
            bench.due["uploads"][-1] = replace(action, witnesses=(*action.witnesses, far))
    bench.barred["cold"] = "it is frozen"
    bench.deleted = {0}
    summary = bench.made().summary
    size = bench.due["uploads"][2].size
    assert bench.anchored == [
        ("uploads", [("clear", 2, 2 * size), ("sweep", 1, size)]),
        ("vault", [("clear", 1, bench.due["vault"][0].size)]),
    ]
    assert bench.how() == "0:already 1:deleted 2:deleted 3:left 4:deleted 5:left 6:deleted"
    said = "2 deletes rest on cold, and none of them is made: it is frozen"
    assert (summary.left_deletes, summary.said) == (2, [said])


@pytest.mark.parametrize(
    ("barred", "unusable", "why"),
    [
        ("it is frozen", "it is held", "it is frozen"),
        (None, "it is held", "it is held"),
        (None, None, "its lock was not taken (vault)"),
    ],
)
def test_why_none_rests_on_a_store_is_told_by_the_nearest_reason(
    bench: Bench, barred: str | None, unusable: str | None, why: str
) -> None:
    bench.add()
    del bench.locks["vault"]
    if barred:
        bench.barred["vault"] = barred
    if unusable:
        bench.unlocked["vault"] = StoreFailed(unusable)
    summary = bench.made().summary
    assert summary.said == [f"1 deletes rest on vault, and none of them is made: {why}"]
    assert (bench.how(), bench.anchored) == ("0:left", [])


def test_where_the_store_itself_cannot_be_used_each_of_its_deletes_has_failed(bench: Bench) -> None:
    bench.add(), bench.add()
    bench.unlocked["uploads"] = StoreFailed("it is held", hint="wait")
    del bench.locks["uploads"]
    summary = bench.made().summary
    assert [(each.cause, each.hint) for each in summary.failed] == [("it is held", "wait")] * 2
    assert (summary.left_deletes, summary.said, bench.anchored) == (0, [], [])


def test_a_store_that_cannot_remember_keeps_its_own_and_no_others(bench: Bench) -> None:
    bench.add(), bench.add(), bench.add(store="vault", safe="uploads")
    far = replace(bench.due["uploads"][1].witnesses[0], store="cold")
    bench.due["uploads"][1] = replace(bench.due["uploads"][1], witnesses=(far,))
    bench.barred["cold"] = "it is frozen"
    bench.no_anchor = {"uploads"}
    summary = bench.made().summary
    assert bench.how() == "0:left 1:left 2:deleted" and bench.calls() == []
    assert summary.left_deletes == 2
    assert summary.said == [
        "1 deletes rest on cold, and none of them is made: it is frozen",
        "uploads cannot be made to remember what is deleted there (no answer): no deletes there",
    ]


# ── together, or one by one ───────────────────────────────────────────────────────────────────────


@given(many=st.lists(st.booleans(), max_size=9), together=st.booleans(), size=st.integers(1, 4))
def test_what_is_one_object_goes_with_others_and_all_else_by_itself(
    tmp_path_factory: pytest.TempPathFactory, many: list[bool], together: bool, size: int
) -> None:
    bench = Bench(tmp_path_factory.mktemp("deletes"))
    bench.stores["uploads"].honours = TOGETHER if together else SINGLY
    for of_many in many:
        bench.add(*("a", "b") if of_many else "a")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deleting, "BATCH", size)
        bench.made()
    ones = [f"{number}/a" for number, of_many in enumerate(many) if not of_many]
    batches = [" ".join(ones[at : at + size]) for at in range(0, len(ones), size)]
    twos = [f"{n}/{name}" for n, of_many in enumerate(many) if of_many for name in "ab"]
    assert sorted(bench.calls()) == sorted([*(batches if together else ones), *twos])
    assert bench.how() == " ".join(f"{number}:deleted" for number in range(len(many)))
    announced = [row for (rows,) in bench.written("intent", "rows") for row in rows]
    assert sorted(announced) == list(range(len(many)))


@pytest.mark.parametrize("together", [True, False])
def test_what_a_hold_of_this_moment_may_cover_stays_and_the_others_go(
    bench: Bench, together: bool
) -> None:
    bench.stores["uploads"].honours = TOGETHER if together else SINGLY
    bench.add(), bench.add()
    bench.recheck = [Recheck(None, {0: "hold LIT-1 may cover it"})]
    outcomes = bench.made()
    assert bench.how() == "0:skipped 1:deleted"
    assert [each.cause for each in outcomes.summary.skipped] == ["hold LIT-1 may cover it"]


@pytest.mark.parametrize("together", [True, False])
def test_once_the_plan_is_refused_in_the_middle_the_rest_is_left(
    bench: Bench, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.stores["uploads"].honours = TOGETHER if together else SINGLY
    bench.add(), bench.add()
    monkeypatch.setattr("retainer.apply.lately.LOOK_EVERY", timedelta(seconds=-1))
    bench.recheck = [Recheck(None, {}), Recheck("it has expired", {})]
    summary = bench.made().summary
    assert (bench.how(), bench.calls()) == ("0:left 1:left", [])
    assert (summary.left_deletes, summary.said) == (2, ["it has expired: no deletes"])


def test_the_brake_is_told_once_and_what_a_person_withholds_does_not_pull_it(bench: Bench) -> None:
    bench.stores["uploads"].honours = SINGLY
    for _ in range(2 * BRAKE_FROM):
        bench.add()
    bench.recheck = [Recheck(None, dict.fromkeys(range(BRAKE_FROM), "a hold may cover it"))]
    bench.stores["uploads"].answer = lambda seen: (
        Deletion.CHANGED if int(seen.key.split("/")[0]) < BRAKE_FROM + 5 else None
    )
    summary = bench.made().summary
    assert (len(summary.skipped), summary.deleted) == (BRAKE_FROM + 5, BRAKE_FROM - 5)
    bench = Bench(bench.folder / "again")
    bench.stores["uploads"].honours = SINGLY
    for _ in range(BRAKE_FROM + 5):
        bench.add()
    bench.stores["uploads"].answer = lambda seen: (
        Deletion.CHANGED if int(seen.key.split("/")[0]) < 5 else None
    )
    summary = bench.made().summary
    assert (summary.deleted, summary.left_deletes) == (BRAKE_FROM - 5, 5)
    assert len(summary.said) == 1 and summary.said[0].startswith("5 of 20 deletes failed")


# ── what each rests on ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("together", [True, False])
def test_none_is_made_whose_witness_is_not_as_the_plan_saw_it(bench: Bench, together: bool) -> None:
    bench.stores["uploads"].honours = TOGETHER if together else SINGLY
    actions = [bench.add() for _ in range(3)]
    (gone,) = actions[0].witnesses
    bench.stores["vault"].delete(Seen(gone.key, gone.size, gone.version))
    doubtful = replace(actions[1], doubt="calls@0123456789ab")
    bench.due["uploads"][1] = doubtful
    summary = bench.made().summary
    assert bench.how() == "0:skipped 1:skipped 2:deleted"
    assert sorted(each.cause for each in summary.skipped) == [
        "it does not say of itself that it was copied in doubt",
        "the copy in vault that makes it safe is not there any more",
    ]
    assert bench.calls() == ["2/a"]


@pytest.mark.parametrize("together", [True, False])
def test_none_is_made_once_a_lock_that_it_rests_on_is_lost(bench: Bench, together: bool) -> None:
    bench.stores["uploads"].honours = TOGETHER if together else SINGLY
    bench.add(), bench.add()
    bench.locks["vault"] = False
    summary = bench.made().summary
    assert (bench.how(), bench.calls()) == ("0:resting 1:resting", [])
    assert summary.lost_lock and summary.resting["vault"].actions == 2
    assert summary.failed == []


@pytest.mark.parametrize("together", [True, False])
def test_where_a_witness_cannot_be_looked_at_it_has_failed(
    bench: Bench, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.stores["uploads"].honours = TOGETHER if together else SINGLY
    bench.add(), bench.add()

    def look(key: str) -> Any:
        raise StoreFailed(f"look at {key}: no answer")

    monkeypatch.setattr(bench.stores["vault"], "look", look)
    summary = bench.made().summary
    assert (bench.how(), bench.calls()) == ("0:failed 1:failed", [])
    assert sorted(each.cause for each in summary.failed) == [
        f"look at {number}/w: no answer" for number in range(2)
    ]


def test_a_store_that_refuses_a_look_again_and_again_rests_and_an_answer_counts_anew(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.stores["uploads"].honours = SINGLY
    really = bench.stores["vault"].look
    refused = {1, 2, 4, 5, 6}
    for _ in range(9):
        bench.add()

    def look(key: str) -> Any:
        if int(key.split("/")[0]) in refused:
            raise StoreRefused("403", store="vault")
        return really(key)

    monkeypatch.setattr(bench.stores["vault"], "look", look)
    bench.made()
    ends = ["deleted", "failed", "failed", "deleted", *["failed"] * 3, "resting", "resting"]
    assert bench.how() == " ".join(f"{n}:{how}" for n, how in enumerate(ends))


# ── cut short ─────────────────────────────────────────────────────────────────────────────────────


def test_what_a_stop_cuts_short_is_written_down_as_far_as_it_went(bench: Bench) -> None:
    action = bench.add("a", "b", "c")

    def stopped(seen: Seen) -> None:
        if seen.key.endswith("b"):
            raise Stopped

    bench.stores["uploads"].answer = stopped
    summary = bench.made().summary
    assert summary.interrupted and summary.deleted == 0
    assert bench.written("deleted", "row", "keys", "left", "partial") == [(0, ["0/a"], [], True)]
    assert summary.deleted_bytes == action.objects[0].size


def test_what_a_stop_cuts_short_before_its_first_object_is_told_of_nowhere(bench: Bench) -> None:
    bench.add("a", "b", "c")

    def stopped(_seen: Seen) -> None:
        raise Stopped

    bench.stores["uploads"].answer = stopped
    summary = bench.made().summary
    assert summary.interrupted and (summary.deleted, summary.skipped) == (0, [])
    assert [event for event, _ in bench.lines if event in ("deleted", "skipped")] == []
    assert bench.written("intent", "rows") == [([0],)]
    (([act],),) = bench.written("intent", "acts")
    assert "versions" not in act


# ── without an answer ─────────────────────────────────────────────────────────────────────────────


def test_whether_a_delete_was_done_is_told_by_the_object_and_not_by_what_is_below_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a bucket that keeps versions some stay, and no delete of one object takes them."""
    bench.stores["uploads"].honours = SINGLY
    bench.add()
    below = {"0/a": ["a delete marker", "what was deleted"]}
    monkeypatch.setattr(deleting, "versions_of", lambda _store, _keys: below)

    def unanswered(seen: Seen) -> None:
        LocalWriter.delete(bench.stores["uploads"], seen)
        raise StoreFailed("no answer")

    bench.stores["uploads"].answer = unanswered
    summary = bench.made().summary
    assert (bench.how(), summary.deleted, summary.failed) == ("0:deleted", 1, [])


def test_whether_every_version_went_is_told_by_what_the_bucket_lists(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not by whether something is to be seen under the key, since a look is older than that."""
    bench.stores["uploads"].honours = SINGLY
    (planned,) = bench.add().objects
    seen = Seen(planned.key, planned.size, planned.version, lock_read=True)
    version = Version(seen, "v1", is_current=True)
    bench.due["uploads"] = [
        replace(bench.due["uploads"][0], versions=(version,), versions_by="clear")
    ]
    monkeypatch.setattr(delete, "versions_of", lambda _store, _keys: {planned.key: [version]})
    monkeypatch.setattr(deleting, "versions_of", lambda _store, _keys: {planned.key: []})

    def unanswered(_version: Version) -> Deletion:
        raise StoreFailed("no answer")

    monkeypatch.setattr(bench.stores["uploads"], "remove", unanswered)
    summary = bench.made().summary
    assert (bench.how(), summary.purged, summary.failed) == ("0:deleted", 1, [])
    (([act],),) = bench.written("intent", "acts")
    assert act["versions"] == [[planned.key, "v1", planned.size]]
    assert act["versions_by"] == "clear"


def test_a_store_that_refuses_to_delete_rests_though_it_can_be_looked_at(bench: Bench) -> None:
    bench.stores["uploads"].honours = SINGLY
    for _ in range(REFUSALS + 2):
        bench.add()

    def refused(_seen: Seen) -> None:
        raise StoreRefused("403", store="uploads")

    bench.stores["uploads"].answer = refused
    summary = bench.made().summary
    ends = ["failed"] * REFUSALS + ["resting"] * 2
    assert bench.how() == " ".join(f"{number}:{how}" for number, how in enumerate(ends))
    assert summary.resting["uploads"].actions == 2
