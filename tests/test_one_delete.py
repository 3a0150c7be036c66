"""One delete, call by call, on a shelf that answers as it is told to; and how what was written, or is
to stay, is looked at. What real servers answer is in the tests of the stores."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from retainer.apply import delete as deleting
from retainer.apply.delete import delete_one, not_in_doubt
from retainer.apply.verify import Counted, as_recorded, checksum_of, locked, proven_same
from retainer.errors import SourceFailed, StoreFailed, Unverified
from retainer.planfile import Action, Planned
from retainer.ports import (
    Checksum,
    Deletion,
    Digest,
    Look,
    Seen,
    StoreFailure,
    StoreWriter,
    Version,
)

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
D, CHANGED, GONE, LOCKED = Deletion.DELETED, Deletion.CHANGED, Deletion.GONE, Deletion.LOCKED


@dataclass
class Shelf:
    """A store of which every call is written down."""

    answers: dict[str, Deletion | StoreFailure] = field(default_factory=dict)
    batch: bool = False
    there: dict[str, list[Version]] = field(default_factory=dict)
    looks: dict[str, Look | None] = field(default_factory=dict)
    content: bytes = b""
    calls: list[str] = field(default_factory=list)
    sticky: bool = False
    name: str = "vault"

    def conditions(self) -> Any:
        return SimpleNamespace(batch_delete=self.batch)

    def server_time(self) -> datetime:
        return NOW

    def delete(self, seen: Seen) -> Deletion:
        self.calls.append(f"{seen.key}@{seen.version}")
        return cast(Deletion, self.answers.get(seen.key, D))

    def delete_batch(self, batch: Sequence[Seen]) -> list[Deletion | StoreFailure]:
        self.calls.append("+".join(each.key for each in batch))
        return [self.answers.get(each.key, D) for each in batch]

    def versions(self, prefix: str) -> Iterator[Version]:
        yield from [each for of in self.there.values() for each in of if each.seen.key == prefix]

    def remove(self, version: Version) -> Deletion:
        self.calls.append(version.id)
        answer = cast(Deletion, self.answers.get(version.id, D))
        if answer in (D, GONE) and not self.sticky:
            self.there[version.seen.key].remove(version)
        return answer

    def look(self, key: str) -> Look | None:
        self.calls.append(f"look {key}")
        return self.looks.get(key)

    def read(self, _seen: Seen) -> Iterator[bytes]:
        yield from (self.content[:4], self.content[4:])

    def lock(self, seen: Seen, until: datetime) -> None:
        self.calls.append(f"lock {until:%Y}")
        look = self.looks[seen.key]
        if look is not None and not self.sticky:
            self.looks[seen.key] = replace(look, seen=replace(look.seen, retained_until=until))


def action(*keys: str, **more: Any) -> Action:
    objects = [Planned("uploads", key, 1, "v") for key in keys]
    told = {"objects": objects, "versions": (), "doubt": None, "facts": {}, "witnesses": []}
    return cast(Action, SimpleNamespace(**(told | more)))


def deleted(
    shelf: Shelf, of: Action, stop_after: int = 99
) -> tuple[list[Deletion], list[str], dict[str, int]]:
    """The outcomes, the calls, and how many versions of each object went. `stop_after`: so many
    calls, and the run is stopped."""
    outcomes: list[Deletion] = []
    removed: Counter[str] = Counter()
    left = iter(range(stop_after))

    def check() -> None:
        shelf.calls.append("?")
        if next(left, None) is None:
            raise KeyboardInterrupt

    try:
        delete_one(of, cast(StoreWriter, shelf), outcomes, check, removed)
    except (KeyboardInterrupt, StoreFailed) as error:
        shelf.calls.append(type(error).__name__)
    return outcomes, shelf.calls, dict(removed)


@pytest.mark.parametrize(
    ("keys", "answers", "outcomes", "calls"),
    [
        ("a", {}, [D], "? a@v"),
        ("a", {"a": LOCKED}, [LOCKED], "? a@v"),
        ("ab", {}, [D, D], "? a@v ? b@v"),
        ("abcd", {}, [D, D, D, D], "? a@v ? b@v ? c@v ? d@v"),
        ("abcd", {"a": CHANGED}, [CHANGED], "? a@v"),
        ("abcd", {"a": LOCKED}, [LOCKED], "? a@v"),
        ("abcd", {"a": GONE, "c": GONE}, [GONE, D, GONE, D], "? a@v ? b@v ? c@v ? d@v"),
        ("abcd", {"b": LOCKED}, [D, LOCKED, D], "? a@v ? b@v ? c@v"),
        ("abcd", {"c": CHANGED}, [D, D, CHANGED], "? a@v ? b@v ? c@v"),
    ],
)
def test_the_first_goes_first_and_the_last_once_all_else_is_gone(
    keys: str, answers: dict[str, Any], outcomes: list[Deletion], calls: str
) -> None:
    shelf = Shelf(answers)
    assert deleted(shelf, action(*keys)) == (outcomes, calls.split(), {})


@pytest.mark.parametrize("after", range(4))
def test_the_run_is_asked_before_every_call(after: int) -> None:
    outcomes, calls, _ = deleted(Shelf(), action(*"abcd"), after)
    assert (outcomes, calls.count("?")) == ([D] * after, after + 1)
    outcomes, calls, _ = deleted(Shelf(batch=True), action(*"abcd"), min(after, 2))
    assert (len(outcomes), calls.count("?")) == ([0, 1, 3, 3][after], min(after, 2) + 1)


def test_in_batches_the_first_and_the_last_go_by_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deleting, "BATCH", 2)
    calls = "? a@v ? b+c ? d ? e@v"
    assert deleted(Shelf(batch=True), action(*"abcde")) == ([D] * 5, calls.split(), {})
    broken = Shelf({"c": StoreFailure("no answer")}, batch=True)
    assert deleted(broken, action(*"abcde"))[:2] == (
        [D, D],
        ["?", "a@v", "?", "b+c", "StoreFailed"],
    )
    odd = Shelf({"d": LOCKED}, batch=True)
    assert deleted(odd, action(*"abcde"))[:2] == (
        [D, D, D, LOCKED],
        ["?", "a@v", "?", "b+c", "?", "d"],
    )


# ── every version ─────────────────────────────────────────────────────────────────────────────────


def version(key: str, id: str, *, current: bool = False, **more: Any) -> Version:
    seen = {"size": 1, "version": "v", "lock_read": True} | {
        name: more.pop(name)
        for name in ("size", "version", "lock_read", "locked_until")
        if name in more
    }
    return Version(Seen(key, **seen), id, is_current=current, **more)


def both() -> dict[str, list[Version]]:
    return {
        "a": [
            version("a", "a2", current=True),
            version("a", "a1"),
            version("a", "a0", is_marker=True),
        ],
        "b": [version("b", "b1", current=True)],
    }


def purged(shelf: Shelf, stop_after: int = 99, **more: Any) -> tuple[Any, ...]:
    planned = tuple(each for of in both().values() for each in of)
    shelf.looks.setdefault("a", Look(Seen("a", 1, "v")))
    return deleted(shelf, action("a", "b", versions=planned, **more), stop_after)


def test_every_version_goes_the_current_one_last_and_markers_are_not_counted() -> None:
    outcomes, calls, removed = purged(Shelf(there=both()))
    assert (outcomes, removed) == ([D, D], {"a": 2, "b": 1})
    assert " ".join(calls) == "? a1 ? look a a0 ? a2 ? b1 ?"


def test_what_an_earlier_try_took_is_gone_and_what_was_gone_is_not_counted() -> None:
    there = both()
    there["b"] = []
    outcomes, _, removed = purged(Shelf({"a1": GONE}, there=there))
    assert (outcomes, removed) == ([D, GONE], {"a": 1})


def test_what_was_gone_keeps_nothing_else_from_going() -> None:
    there = both()
    there["a"] = []
    outcomes, calls, removed = purged(Shelf(there=there))
    assert (outcomes, " ".join(calls), removed) == ([GONE, D], "? b1 ?", {"b": 1})


@pytest.mark.parametrize(
    ("odd", "outcome"),
    [
        (version("a", "a3"), CHANGED),
        (version("a", "a1", size=2), CHANGED),
        (version("a", "a1", version="w"), CHANGED),
        (version("a", "a1", current=True), CHANGED),
        (version("a", "a1", is_marker=True), CHANGED),
        (version("a", "a1", lock_read=False), LOCKED),
        (version("a", "a1", locked_until=NOW + SECOND), LOCKED),
        (version("a", "a1", by_hand="aws s3api …"), LOCKED),
    ],
)
def test_nothing_goes_where_one_version_is_not_as_the_plan_saw_it_or_is_locked(
    odd: Version, outcome: Deletion
) -> None:
    there = both()
    there["a"][1] = odd
    assert purged(Shelf(there=there)) == ([outcome, outcome], [], {})


def test_a_lock_that_is_over_holds_nothing() -> None:
    there = both()
    there["a"][1] = version("a", "a1", locked_until=NOW)
    assert purged(Shelf(there=there))[0] == [D, D]


def test_nothing_goes_where_what_was_current_is_not() -> None:
    there = both()
    del there["a"][0]
    assert purged(Shelf(there=there)) == ([CHANGED, CHANGED], [], {})


@pytest.mark.parametrize("look", [None, Look(Seen("a", 1, "w"))], ids=["gone", "another"])
def test_a_server_that_takes_it_for_a_delete_of_the_object_is_noticed(look: Look | None) -> None:
    outcomes, calls, removed = purged(Shelf(there=both(), looks={"a": look}))
    assert (outcomes, " ".join(calls), removed) == ([CHANGED], "? a1 ? look a", {"a": 1})


@pytest.mark.parametrize("answer", [CHANGED, LOCKED])
def test_a_version_that_stays_ends_it(answer: Deletion) -> None:
    outcomes, calls, removed = purged(Shelf({"a0": answer}, there=both()))
    assert (outcomes, " ".join(calls), removed) == ([answer], "? a1 ? look a a0", {"a": 1})


def test_what_is_there_after_all_were_removed_is_told() -> None:
    assert purged(Shelf(there=both(), sticky=True))[1][-2:] == ["?", "StoreFailed"]


@pytest.mark.parametrize(("after", "gone"), [(0, 0), (1, 1), (3, 3), (4, 4)])
def test_the_run_is_asked_before_every_version(after: int, gone: int) -> None:
    _, calls, _ = purged(Shelf(there=both()), after)
    assert len([each for each in calls if each[0] in "ab"]) == gone


# ── what may stand against it ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("doubt", "told", "may"),
    [
        (None, None, True),
        ("r@1", {"in_doubt": "r@1"}, True),
        ("r@1", {"in_doubt": "r@2"}, False),
        ("r@1", {}, False),
        ("r@1", None, False),
    ],
)
def test_a_copy_goes_for_a_doubt_that_it_tells_itself(
    doubt: str | None, told: dict[str, str] | None, may: bool
) -> None:
    metadata = None if told is None else {"retainer-record": json.dumps(told)}
    shelf = Shelf(looks={"b": Look(Seen("b", 1, "v"), metadata=metadata)})
    if told == {}:
        shelf.looks.clear()
    assert (not_in_doubt(action("a", "b", doubt=doubt), cast(StoreWriter, shelf)) is None) is may


# ── what was written ──────────────────────────────────────────────────────────────────────────────

NINE = b"123456789"
SUMS = {"crc32c": "e3069283", "crc64nvme": "ae8b14860a799888"}
"""Of those nine digits, as catalogues of checksums have them (reveng.sourceforge.io)."""


def summed(kind: Any, number: str = "") -> Checksum:
    return Checksum(kind, base64.b64encode(bytes.fromhex(number or SUMS[kind])).decode())


@pytest.mark.parametrize("kind", SUMS)
def test_a_checksum_of_another_kind_than_the_store_tells_is_that_of_the_bytes(kind: Any) -> None:
    shelf, other = (
        cast(StoreWriter, Shelf(content=NINE)),
        next(each for each in SUMS if each != kind),
    )
    seen, wrong = Seen("a", 9, "v"), summed(kind, "00" * (4 if kind == "crc32c" else 8))
    assert checksum_of(shelf, Look(seen), kind) == summed(kind)
    assert checksum_of(shelf, Look(seen, checksum=summed(other)), kind) == summed(kind)
    assert checksum_of(shelf, Look(seen, checksum=wrong), kind) == wrong


@pytest.mark.parametrize("kind", SUMS)
def test_bytes_have_the_checksum_that_is_stored_with_them_or_end_in_an_error(kind: Any) -> None:
    assert b"".join(Counted([NINE], told=summed(kind))) == NINE
    with pytest.raises(SourceFailed, match="do not have the checksum"):
        list(Counted([NINE[:8]], told=summed(kind)))


@pytest.mark.parametrize("kind", SUMS)
def test_what_is_as_recorded_has_its_size_and_its_checksum(kind: Any) -> None:
    shelf = Shelf(content=NINE, looks={"a": Look(Seen("a", 9, "v"))})
    store = cast(StoreWriter, shelf)
    assert as_recorded(store, "a", 9, summed(kind)) == shelf.looks["a"]
    assert as_recorded(store, "a", 8, summed(kind)) is None
    assert as_recorded(store, "b", 9, summed(kind)) is None
    shelf.content = b"123456780"
    assert as_recorded(store, "a", 9, summed(kind)) is None


def test_what_was_written_is_proven_by_size_and_checksum_and_else_by_its_bytes() -> None:
    right = Digest(9, summed("crc32c").value, hashlib.sha256(NINE).hexdigest())
    seen = Seen("a", 9, "v")
    for content, look, problem in (
        (b"", None, "is not there"),
        (b"", Look(Seen("a", 8, "v"), checksum=summed("crc32c")), "has 8 bytes, 9 were sent"),
        (b"", Look(seen, checksum=summed("crc32c")), None),
        (NINE, Look(seen), None),
        (NINE, Look(seen, checksum=summed("crc64nvme")), None),
        (b"123456780", Look(seen), "another checksum"),
        (b"123456780", Look(seen, checksum=summed("crc64nvme")), "another checksum"),
    ):
        store = cast(StoreWriter, Shelf(content=content, looks={"a": look}))
        if problem is None:
            assert proven_same(store, "a", right) == look
        else:
            with pytest.raises(Unverified, match=problem):
                proven_same(store, "a", right)


# ── what is to be locked ──────────────────────────────────────────────────────────────────────────

UNTIL = datetime(2030, 1, 1, tzinfo=UTC)
LATER, SOONER = UNTIL + SECOND, UNTIL - SECOND


def retained(until: datetime | None, mode: Any = "governance", tag: str = "v") -> Look:
    return Look(Seen("a", 1, tag, retained_until=until, lock_mode=mode))


@pytest.mark.parametrize(
    ("look", "mode", "calls", "end"),
    [
        (retained(UNTIL), None, "look a", UNTIL),
        (retained(LATER), None, "look a", LATER),
        (retained(SOONER), None, "look a announced lock 2030 look a", UNTIL),
        (retained(None), None, "look a announced lock 2030 look a", UNTIL),
        (retained(SOONER, "compliance"), None, "look a announced lock 2030 look a", UNTIL),
        (retained(SOONER, "compliance"), "compliance", "look a announced lock 2030 look a", UNTIL),
        (retained(SOONER, "compliance"), "governance", "look a", SOONER),
        (retained(NOW + SECOND, "compliance"), "governance", "look a", NOW + SECOND),
        (retained(NOW, "compliance"), "governance", "look a announced lock 2030 look a", UNTIL),
        (retained(SOONER), "governance", "look a announced lock 2030 look a", UNTIL),
        (retained(None, tag="w"), None, "look a", None),
        (None, None, "look a", None),
    ],
)
def test_it_is_looked_at_before_and_after_and_locked_only_where_that_is_longer(
    look: Look | None, mode: Any, calls: str, end: datetime | None
) -> None:
    shelf = Shelf(looks={"a": look})
    found = locked(
        cast(StoreWriter, shelf),
        Seen("a", 1, "v"),
        UNTIL,
        lambda: shelf.calls.append("announced"),
        mode,
    )
    assert " ".join(shelf.calls) == calls
    assert (found and (found[0].retained_until, found[1])) == (end and (end, "lock" in calls))


def test_a_lock_that_was_asked_for_and_is_not_there_is_told() -> None:
    shelf = Shelf(looks={"a": retained(SOONER)}, sticky=True)
    with pytest.raises(Unverified, match="without its lock"):
        locked(cast(StoreWriter, shelf), Seen("a", 1, "v"), UNTIL)
    assert shelf.calls == ["look a", "lock 2030", "look a"]
