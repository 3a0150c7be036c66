"""What people accept: a partial copy that counts, a loss that is no alarm any more; and what leaves
100ms since no rule keeps it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from project import POLICY, Project, pairs, video
from records import entries

from retainer.apply.copies import Copies

A, B = "a" * 24, "b" * 24
UPLOADS = ("--lift", "empty:store:uploads")


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Copies, "_pause", lambda *_: None)


def partial(local: Project, name: str = A) -> bytes:
    """A recording of which no more than odd bytes came."""
    content = bytes(5000)
    local.hosted(name, content)
    local.plan()
    causes = {each["asset_id"]: each["cause"] for each in local.apply(expect=7)["failed"]}
    assert "counts as partial" in causes[name]
    local.plan()
    return content


def explained(local: Project) -> str:
    return " ".join(local.run("explain", A).stdout.split())


def in_days(days: float) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.slow
def test_a_partial_copy_counts_once_a_person_accepts_it_and_the_record_says_who(
    local: Project,
) -> None:
    partial(local)
    assert pairs(local.plan())[A, "vault"] == "copy"
    assert "a partial copy lies there: the bytes are no mp4" in explained(local)
    told = local.run("accept", A, "--reason", "all that there was", "--owner", "@acme/legal")
    assert "it does not begin like an mp4" in told.stdout
    assert pairs(local.plan())[A, "vault"] == "keep"
    assert "a partial copy that counts lies there: the bytes are no mp4" in explained(local)
    shown = " ".join(local.run("show", "p.plan").stdout.split())
    assert f"The partial copy of {A} in vault counts (policies/accepted.yaml:4: all that" in shown
    local.hosted(B, video(2))
    for _ in range(2):
        local.plan()
        local.apply()
    (entry,) = (each for each in entries(local.root / ".retainer") if each.event == "accepted")
    assert entry.particulars["owner"] == "@acme/legal"
    assert entry.particulars["stores"] == ["vault"]
    census = json.loads(local.run("verify", "vault", "--format", "json").stdout)
    assert (census["looked"], census["broken"]) == (2, [])


def test_what_was_accepted_is_no_better_than_its_bytes(local: Project) -> None:
    partial(local)
    local.run("accept", A, "--reason", "all that there was")
    assert pairs(local.plan())[A, "vault"] == "keep"
    (path,) = (
        each
        for each in Path(local.stores["vault"].prefix).rglob("*.mp4")
        if "_retainer" not in each.parts
    )
    stat = path.stat()
    with path.open("r+b") as stream:
        stream.write(b"x")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    local.run("verify", "vault", expect=1)
    assert pairs(local.plan())[A, "vault"] == "copy"


def test_an_upload_that_came_after_the_accepted_copy_is_copied_and_does_not_go_for_it(
    local: Project,
) -> None:
    local.uploaded(A, bytes(5000))
    local.plan()
    local.apply(expect=7)
    local.plan()
    local.run("accept", A, "--reason", "all that there was")
    assert pairs(local.plan("p.plan", *UPLOADS))[A, "uploads"] == "delete"
    (path,) = Path(local.stores["uploads"].prefix).rglob("*.mp4")
    path.unlink()
    local.uploaded(A, video(1))
    decided = pairs(local.plan(expect=None))
    assert (decided[A, "vault"], decided[A, "uploads"]) == ("copy", "blocked")


def test_a_plan_that_rests_on_what_is_not_accepted_any_more_is_refused(local: Project) -> None:
    partial(local)
    local.run("accept", A, "--reason", "all that there was")
    local.hosted(B, video(2))
    local.plan()
    (local.root / "policies/accepted.yaml").unlink()
    local.apply(expect=5)


def test_what_is_lost_but_for_a_part_says_so_and_can_be_accepted(local: Project) -> None:
    partial(local)
    local.plan("late.plan", "--as-of", in_days(20))
    shown = " ".join(local.run("show", "late.plan").stdout.split())
    assert "Lost: 1 for vault: only a part could be had" in shown
    local.run("accept", A, "--reason", "all that there was")
    assert pairs(local.plan("late.plan", "--as-of", in_days(20)))[A, "vault"] == "keep"


@pytest.mark.parametrize(
    ("before", "sentence"),
    [
        (
            "version: 1\naccept:\n  - {asset_id: x, why: y}\nlosses:\n  - {asset_id: z, why: y}\n",
            "",
        ),
        ("version: 1\naccept: [{asset_id: x, why: y}]\n", ""),
        ("version: 1\naccept:\n  - {asset_id: " + A + ", why: y}\n", "accepts " + A + " already"),
    ],
)
def test_a_file_that_is_written_otherwise_stays_as_it_is(
    local: Project, before: str, sentence: str
) -> None:
    partial(local)
    path = local.root / "policies/accepted.yaml"
    path.write_text(before)
    ended = local.run("accept", A, "--reason", "y", expect=64 if sentence else 1)
    assert (sentence or "add it by hand") in " ".join(ended.stderr.split())
    assert path.read_text() == before


def test_an_entry_keeps_what_stands_in_the_file_and_any_reason_is_one(local: Project) -> None:
    for name in (A, B):
        partial(local, name)
    local.run("accept", A, "--reason", 'it says "yes": #1, {x}')
    path = local.root / "policies/accepted.yaml"
    path.write_text(path.read_text() + "  # seen by two\n")
    local.run("accept", B, "--reason", "no")
    assert "# seen by two" in path.read_text()
    assert set(pairs(local.plan()).values()) == {"keep", "lapses"}


def test_only_what_has_a_partial_copy_can_be_accepted(local: Project) -> None:
    local.hosted(A, video(1))
    local.plan()
    assert "no partial copy" in local.run("accept", A, "--reason", "y", expect=64).stderr
    assert not (local.root / "policies/accepted.yaml").exists()


def test_a_key_of_metadata_that_no_recording_has_is_told(local: Project) -> None:
    asked = {"metadata": {"matter": "LIT-9", "resolution.width": {"min": 1}}}
    local.write(
        POLICY | {"rules": [{"id": "m", "match": asked, "keep": [{"in": "vault", "for": "2y"}]}]}
    )
    local.hosted(A, video(1), metadata={"resolution": {"width": 9}, "Matter": "LIT-9"})
    shown = " ".join(local.run("plan", "--out", "p.plan").stdout.split())
    assert "No recording has the metadata `matter` that m (policies/rules.yaml:3) asks" in shown
    assert "resolution.width" not in shown


def test_the_same_id_twice_is_a_mistake(local: Project) -> None:
    (local.root / "policies/more.yaml").write_text(
        f"version: 1\nlosses:\n  - {{asset_id: {A}, why: y}}\n  - {{asset_id: {A}, why: y}}\n"
    )
    assert "is used already, at policies/more.yaml:3" in " ".join(
        local.run("validate", expect=10).stderr.split()
    )


def test_a_loss_is_told_once_then_counted_and_accepted_it_is_no_alarm(local: Project) -> None:
    local.hosted(A, video(1), age=timedelta(days=20))
    first = " ".join(local.run("plan", "--out", "p.plan").stdout.split())
    assert "Lost: 1 for vault: no copy is left" in first and A in first
    assert "not all is well: 1 lost" in first
    again = " ".join(local.run("plan", "--out", "p.plan").stdout.split())
    assert "Lost: 1 for vault, told before" in again and A not in again
    assert "not all is well: 1 lost" in again
    (local.root / "policies/losses.yaml").write_text(
        f"version: 1\nlosses:\n  - {{asset_id: {A}, why: nobody copied it}}\n"
    )
    last = " ".join(local.run("plan", "--out", "p.plan").stdout.split())
    assert "Lost: 1 for vault, accepted" in last
    assert "Next: nothing. The stores are as the policies want them." in last
    assert "(accepted)" in local.run("explain", A).stdout


def test_what_no_rule_keeps_leaves_100ms_and_that_is_said_on_top(local: Project) -> None:
    local.write(
        POLICY
        | {"rules": [{"id": "a", "match": {"asset_id": B}, "keep": [{"in": "vault", "for": "2y"}]}]}
    )
    local.hosted(A, video(1), age=timedelta(days=13))
    local.hosted(B, video(2))
    out = local.run("plan", "--out", "p.plan").stdout
    top = " ".join(out.partition("Copies")[0].split())
    assert "No rule keeps 1 recording that only 100ms has" in top and "the first in" in top
    assert "1 leaves 100ms uncopied" in top.partition("What needs a person")[0]
    local.run("plan", "--fail-if-lapsing", "24h", "--out", "p.plan")
    local.run("plan", "--fail-if-lapsing", "72h", "--out", "p.plan", expect=12)
    assert "without a copy, since no rule keeps it" in " ".join(
        local.run("explain", A).stdout.split()
    )
    local.apply()
    after = " ".join(local.run("plan", "--out", "p.plan").stdout.split())
    assert "1 leave 100ms, since no rule keeps them" in after


def test_what_lies_where_retainer_has_no_store_or_nowhere_gets_advice_that_can_be_followed(
    local: Project,
) -> None:
    local.hosted(A, video(1), path="azure://acme/rec/a.mp4")
    local.hosted(B, video(2), path=None)
    shown = " ".join(local.run("plan", "--out", "p.plan").stdout.split())
    assert "Nobody declared azure://acme, where 1 recording is said to lie" in shown
    assert "declare it as a store" not in shown
    assert "100ms tells no path of 1 recording" in shown


@pytest.mark.slow
def test_an_accepted_part_is_no_source_while_100ms_may_have_the_whole_and_never_passes_for_it(
    local: Project,
) -> None:
    partial(local)
    local.run("accept", A, "--reason", "all that there was")
    more = {"id": "more", "match": {"asset_id": A}, "keep": [{"in": "cold", "for": "1y"}]}
    local.stores["cold"] = replace(
        local.stores["vault"], name="cold", url=f"{local.stores['vault'].url}-cold"
    )
    Path(local.stores["cold"].prefix).mkdir(parents=True)
    local.write(POLICY | {"rules": [*POLICY["rules"], more]})
    rows = {row["store"]: row for row in local.plan()["rows"] if row["asset_id"] == A}
    assert (rows["cold"]["decision"], rows["cold"]["source"]) == ("copy", "hosted")
    local.api._rows["recording-assets"].clear()
    local.api._listings.clear()
    rows = {row["store"]: row for row in local.plan()["rows"] if row["asset_id"] == A}
    assert (rows["cold"]["decision"], rows["cold"]["source"]) == ("copy", "vault")
    local.apply(expect=None)
    local.plan()
    (local.root / "policies/accepted.yaml").unlink()
    assert {pairs(local.plan())[A, name] for name in ("vault", "cold")} == {"lost"}
