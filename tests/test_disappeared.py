"""A list in which much is missing of what it had is unfinished, until a person says that this is
meant."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from project import Project, video

from retainer.inventory.collect import Listing, _miss
from retainer.planfile import read_plan
from retainer.ports import Deletion
from retainer.stores import local as local_store

MANY = 24


@pytest.fixture
def copied(local: Project) -> Project:
    """Many uploads, each copied to the vault; the first may go from where it came."""
    for number in range(MANY):
        age = timedelta(days=40 if number == 0 else 2)
        local.uploaded(f"{number:024x}", video(number), age=age)
    local.plan("copies.plan")
    local.apply("copies.plan")
    return local


def lose(project: Project, count: int) -> None:
    """So many copies are gone from the vault, and nobody knows by whom."""
    for key in sorted(project.content("vault"))[:count]:
        Path(project.stores["vault"].prefix, key).unlink()


def test_a_store_that_lost_much_is_not_believed_until_a_person_says_so(copied: Project) -> None:
    copied.plan("seen.plan")
    assert read_plan(copied.root / "seen.plan").header.deletes == 1
    copied.run("apply", "seen.plan", "--approve-deletes", "1")
    lose(copied, 22)
    done = copied.run("plan", "--out", "after.plan", expect=8)
    said = " ".join(done.stdout.split())
    assert "vault did not finish after 2" in said
    assert "22 of the 24 that it had at the last apply are gone from it" in said
    assert read_plan(copied.root / "after.plan").header.deletes == 0
    facts = copied.run("facts", "--out", "facts.duckdb", expect=8)
    assert "a listing did not finish" in facts.stderr
    copied.run("plan", "--lift", "disappeared:cellar", expect=64)
    copied.run("plan", "--lift", "disappeared:vault", "--out", "meant.plan")
    copied.run("facts", "--lift", "disappeared:vault", "--out", "facts.duckdb")
    copied.apply("meant.plan")
    starts = [each for each in copied.journal() if each["event"] == "start"]
    assert starts[-1]["of"]["lifted"] == ["disappeared:vault"]
    copied.run("plan", "--out", "again.plan")


def test_what_retainer_deleted_itself_is_not_missed(copied: Project) -> None:
    rules = [{"id": "end", "match": "all", "at_most": "1d"}]
    copied.write({"version": 1, "rules": rules})
    deletes = str(2 * MANY)
    empties = [f"empty:store:{name}" for name in ("uploads", "vault")]
    copied.run("plan", "--out", "p.plan", "--lift", empties[0], "--lift", empties[1])
    copied.run("apply", "p.plan", "--approve-deletes", deletes)
    assert not copied.content("uploads") and not copied.content("vault")
    copied.run("plan", "--out", "next.plan")


def test_what_100ms_drops_all_at_once_is_not_believed_either(copied: Project) -> None:
    for number in range(4, MANY):
        del copied.api._rows["recording-assets"][f"{number:024x}"]
    copied.api._listings.clear()
    said = " ".join(copied.run("plan", "--out", "p.plan", expect=8).stdout.split())
    assert "20 of the 24 that it had at the last apply are gone from it" in said, said
    copied.run("plan", "--out", "p.plan", "--lift", "disappeared:100ms")


@pytest.mark.parametrize(
    ("had", "has", "most", "believed"),
    [
        (40, 20, 50.0, True),
        (41, 20, 50.0, False),
        (19, 0, 50.0, True),
        (20, 0, 50.0, False),
        (1000, 0, 100.0, True),
        (1000, 979, 2.0, False),
        (20, 30, 0.0, True),
    ],
)
def test_a_share_and_a_number_must_be_missing(
    had: int, has: int, most: float, believed: bool
) -> None:
    listing = Listing("vault", "store", datetime.now(UTC), complete=True, objects=has, identity="x")
    _miss(listing, {"vault": ("x", had, "")}, most)
    assert listing.complete is believed
    other = replace(listing, complete=True, identity="y", notes=[])
    _miss(other, {"vault": ("x", had, "")}, most)
    assert other.complete  # another store now has this name


def test_a_plan_that_knows_less_than_the_record_does_not_count(copied: Project) -> None:
    """Two plans of one moment: what the first deleted is not missed once the second was applied."""
    copied.write({"version": 1, "rules": [{"id": "end", "match": "all", "at_most": "1d"}]})
    words = [word for name in copied.stores for word in ("--lift", f"empty:store:{name}")]
    copied.run("plan", "--out", "a.plan", *words)
    copied.run("plan", "--out", "b.plan", *words)
    copied.run("apply", "b.plan", "--approve-deletes", str(2 * MANY))
    copied.run("apply", "a.plan", expect=None)
    copied.run("plan", "--out", "next.plan")


def test_a_lift_in_the_facts_is_told_by_the_plan(copied: Project) -> None:
    copied.plan("seen.plan")
    copied.run("apply", "seen.plan", "--approve-deletes", "1")
    lose(copied, 22)
    copied.run("facts", "--lift", "disappeared:vault", "--out", "facts.duckdb")
    text = copied.run("plan", "--facts", "facts.duckdb", "--out", "p.plan").stdout
    assert "a person said that this is meant" in " ".join(text.split())


def test_a_folder_that_another_delete_took_does_not_make_a_file_gone_before(
    local: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two deletes empty one folder: the second takes it away before the first has synced it."""
    local.uploaded("a" * 24, video(1))
    store = local.writer("uploads")
    (seen,) = store.list()
    sync = local_store._sync

    def late(folder: Path) -> None:
        folder.rmdir()
        sync(folder)

    monkeypatch.setattr(local_store, "_sync", late)
    assert store.delete(seen) is Deletion.DELETED
    assert store.delete(seen) is Deletion.GONE
