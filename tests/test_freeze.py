"""A freeze stops every delete of every run on its state, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from project import Project, video

from retainer.journal.folder import FolderBackend
from retainer.journal.freeze import Freeze, end_freeze, freeze, freeze_in

A, B, C = "a" * 24, "b" * 24, "c" * 24
NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
WHY = "INC-42: why did these go?"
ME = {"user": "dana"}


@pytest.fixture
def due(local: Project) -> Project:
    return local.copied_and_due(A, B)


def test_it_begins_is_told_and_ends(tmp_path: Path) -> None:
    assert freeze_in(FolderBackend(tmp_path), NOW) is None
    freeze(FolderBackend(tmp_path), WHY, None, NOW, ME)
    assert freeze_in(FolderBackend(tmp_path), NOW + 9000 * HOUR) == Freeze(WHY, NOW, None)
    end_freeze(FolderBackend(tmp_path), "it is understood", NOW + HOUR, ME)
    assert freeze_in(FolderBackend(tmp_path), NOW + 2 * HOUR) is None
    assert (tmp_path / "freezes.jsonl").read_text().count("\n") == 2, "each is kept"


def test_it_is_over_at_its_moment_and_not_before(tmp_path: Path) -> None:
    freeze(FolderBackend(tmp_path), WHY, NOW + HOUR, NOW, ME)
    assert freeze_in(FolderBackend(tmp_path), NOW + HOUR - timedelta(seconds=1)) is not None
    assert freeze_in(FolderBackend(tmp_path), NOW + HOUR) is None


@pytest.mark.parametrize(
    "line",
    [
        b'{"event": "end", "reason": "x"}',
        b'{"event": "end"}\n',
        b'{"event": "thaw", "reason": "x"}\n',
        b'{"event": "freeze", "reason": "x", "until": "soon"}\n',
        b"[]\n",
        b"\xff\n",
        b"\n",
    ],
)
def test_what_cannot_be_read_counts_as_a_freeze(tmp_path: Path, line: bytes) -> None:
    freeze(FolderBackend(tmp_path), WHY, None, NOW, ME)
    end_freeze(FolderBackend(tmp_path), "over", NOW, ME)
    with (tmp_path / "freezes.jsonl").open("ab") as stream:
        stream.write(line)
    assert freeze_in(FolderBackend(tmp_path), NOW) is not None
    end_freeze(FolderBackend(tmp_path), "somebody has looked", NOW, ME)
    assert freeze_in(FolderBackend(tmp_path), NOW) is None


def test_a_file_that_may_not_be_read_counts_as_a_freeze(tmp_path: Path) -> None:
    (tmp_path / "freezes.jsonl").mkdir()
    found = freeze_in(FolderBackend(tmp_path), NOW)
    assert found is not None and "cannot be read" in found.words


def test_a_plan_is_held_back_and_says_why(due: Project) -> None:
    due.run("freeze", "--reason", WHY)
    done = due.run("plan", "--out", "q.plan", expect=4)
    assert WHY in done.stdout and "`retainer freeze --end --reason WHY` ends it" in done.stdout
    assert WHY in due.run("freeze").stdout
    due.run("freeze", "--end", "--reason", "understood")
    assert "no freeze" in due.run("freeze").stdout
    assert due.apply("q.plan", "--approve-deletes", "1")["deleted"] == 1


def test_a_plan_without_deletes_is_as_it_was(local: Project) -> None:
    local.hosted(A, video(1))
    local.run("freeze", "--reason", WHY)
    local.run("plan", "--out", "p.plan")
    assert local.apply("p.plan")["copied"] == 1


def test_a_plan_of_before_deletes_nothing_and_still_copies(due: Project) -> None:
    due.hosted(C, video(3))
    due.plan("q.plan")
    due.run("freeze", "--reason", WHY)
    done = due.run("apply", "q.plan", "--approve-deletes", "1", expect=4)
    assert WHY in done.stderr and "copied 1" in done.stdout
    assert A in "".join(due.content("uploads"))


def test_a_run_that_is_on_its_way_hears_of_it(
    due: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins while the copies are made: the last look before the deletes sees it."""
    from retainer.apply.copies import Copies

    due.hosted(C, video(3))
    due.plan("q.plan")
    make = Copies.make

    def frozen_meanwhile(self: Copies, actions: object) -> None:
        freeze(FolderBackend(due.root / ".retainer"), WHY, None, datetime.now(UTC), ME)
        make(self, actions)  # type: ignore[arg-type]

    monkeypatch.setattr(Copies, "make", frozen_meanwhile)
    done = due.run("apply", "q.plan", "--approve-deletes", "1", expect=7)
    assert WHY in done.stdout
    assert A in "".join(due.content("uploads"))
    monkeypatch.undo()
    due.run("freeze", "--end", "--reason", "over")
    assert due.apply("q.plan", "--approve-deletes", "1")["deleted"] == 1


@pytest.mark.parametrize(
    "words",
    [
        ("--end",),
        ("--until", "2030-01-01"),
        ("--reason", " "),
        ("--reason", "x" * 501),
        ("--reason", "x", "--until", "2020-01-01"),
        ("--reason", "x", "--end", "--until", "2030-01-01"),
    ],
)
def test_what_makes_no_sense_changes_nothing(local: Project, words: tuple[str, ...]) -> None:
    local.run("freeze", *words, expect=64)
    assert not (local.root / ".retainer" / "freezes.jsonl").exists()


def test_a_reason_never_comes_from_the_environment(local: Project) -> None:
    local.environment["RETAINER_FREEZE_REASON"] = "left over"
    local.environment["RETAINER_FREEZE_END"] = "1"
    assert "no freeze" in local.run("freeze", expect=None).stdout


def test_what_cannot_be_written_is_an_error_that_says_so(local: Project) -> None:
    (local.root / ".retainer" / "freezes.jsonl").mkdir(parents=True)
    done = local.run("freeze", "--reason", WHY, expect=1)
    assert "cannot be written" in done.stderr
