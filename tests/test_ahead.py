"""What is foreseen is what the decision comes to: against plans that are made and applied one day
after another."""

from __future__ import annotations

import copy
import csv
import io
import json
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from typing import Any

import duckdb
import pytest
import yaml
from generate import Case, now_of, only
from icalendar import Calendar
from project import POLICY, Project, video
from test_laws import Pair, _decider, applied, decided, examples, plan_of

from retainer.forecasting import _break_even
from retainer.model.moment import write_moment
from retainer.model.price import PRICES, Price
from retainer.plan.ahead import look_ahead

Coming = dict[int, set[tuple[str, Pair]]]

UNFORESEEN = """
    SELECT asset_id FROM member JOIN matched USING (cohort_no) WHERE NOT certain
    UNION SELECT asset_id FROM member WHERE created IS NULL OR settled IS NOT TRUE OR unready
    UNION SELECT asset_id FROM decided WHERE decision IN ('unknown', 'waiting')
    UNION SELECT asset_id FROM member JOIN copies USING (asset_no)
        WHERE versions IS NULL OR by_hand IS NOT NULL
"""
"""Of what is not certain today nothing is foreseen, or not on its day."""


def foreseen(case: Case) -> tuple[Coming, set[str]]:
    """What comes with each daily plan, and the recordings of which that cannot be said."""
    decided(case)
    connection = _decider().connection
    look_ahead(connection, now_of(case))
    found: Coming = defaultdict(set)
    rows = connection.execute(
        "SELECT plan, what, asset_id, store FROM coming JOIN member USING (asset_no) "
        "WHERE what <> 'leaves'"
    ).fetchall()
    for plan, what, asset_id, store in rows:
        found[plan].add((what, (asset_id, store)))
    unforeseen = {asset_id for (asset_id,) in connection.execute(UNFORESEEN).fetchall()}
    return found, unforeseen


@pytest.mark.slow
def test_what_is_foreseen_is_what_the_plans_of_those_days_do() -> None:
    seen = 0
    for example in examples(30):
        case, now = example.case, now_of(example.case)
        if case.get("unfinished"):
            continue
        coming, unforeseen = foreseen(case)
        days = sorted({max(0, day + near) for day in coming for near in (-1, 0, 1)})[:12]
        before = -1
        for day in days:
            today = case | {"now": write_moment(now + timedelta(days=day))}
            plan = plan_of(decided(today))
            wanted = {each for past in range(before + 1, day + 1) for each in coming.get(past, ())}
            found = {(what, pair) for pair, what in plan}
            told = {each for each in found if each[1][0] not in unforeseen}
            foretold = {each for each in wanted if each[1][0] not in unforeseen}
            for what, pair in sorted(told ^ foretold):
                raise AssertionError((day, what, pair, only(example.case, pair[0])))
            case = applied(case, plan)
            before = day
            seen += len(told)
    assert seen > 200


# ── What a forecast tells ─────────────────────────────────────────────────────────────────────────

A, B, C = "a" * 24, "b" * 24, "c" * 24


@pytest.fixture
def kept(local: Project) -> Project:
    """Three uploads that are copied: 60, 40 and 2 days old; an upload goes 90 days after it was
    made."""
    for name, days in ((A, 60), (B, 40), (C, 2)):
        local.uploaded(name, video(days), age=timedelta(days=days))
    policy = copy.deepcopy(POLICY)
    policy["rules"][1]["delete"] = [{"in": "uploads", "after": "90d"}]
    local.write(policy)
    local.plan("copies.plan")
    local.apply("copies.plan")
    local.plan()
    return local


def told(project: Project, *words: str, expect: int = 0) -> dict[str, Any]:
    answer = project.run("forecast", "--format", "json", *words, expect=expect)
    return dict(json.loads(answer.stdout))


def priced(project: Project, **prices: dict[str, float]) -> None:
    path = project.root / "retainer.yaml"
    settings = yaml.safe_load(path.read_text()) | {"prices": prices}
    path.write_text(yaml.safe_dump(settings))


def test_each_delete_is_told_with_its_day_and_rule(kept: Project) -> None:
    today = datetime.now(UTC).date()
    found = told(kept, "--days", "60")["coming"]
    assert [(each["what"], each["rule"], each["store"], each["copies"]) for each in found] == [
        ("delete", "raw", "uploads", 1)
    ] * 2
    # the day after local date + period begins: 30 days from now is the last that it is kept
    assert [(date.fromisoformat(each["day"]) - today).days for each in found] == [31, 51]
    assert all(each["last_copies"] == 0 for each in found)
    assert len(told(kept, "--days", "30")["coming"]) == 0


def test_a_plan_of_that_day_deletes_what_was_foreseen(kept: Project) -> None:
    first = told(kept, "--days", "40")["coming"][0]
    later = date.fromisoformat(first["day"])
    plan = kept.plan("later.plan", "--as-of", later.isoformat() + "T12:00:00Z", expect=None)
    assert plan["header"]["deletes"] == first["copies"]
    plan = kept.plan("sooner.plan", "--as-of", (later - timedelta(days=2)).isoformat(), expect=None)
    assert plan["header"]["deletes"] == 0


def test_the_forms_tell_the_same_days(kept: Project) -> None:
    rows = told(kept)["coming"]
    lines = kept.run("forecast", "--format", "jsonl").stdout.splitlines()
    assert [json.loads(line) for line in lines] == rows
    table = list(csv.DictReader(io.StringIO(kept.run("forecast", "--format", "csv").stdout)))
    assert [each["day"] for each in table] == [each["day"] for each in rows]
    calendar = kept.run("forecast", "--format", "ics").stdout
    events = Calendar.from_ical(calendar).walk("VEVENT")
    assert [each["dtstart"].dt.isoformat() for each in events] == [each["day"] for each in rows]
    assert all("1 copy deleted" in each["summary"] for each in events)
    again = Calendar.from_ical(kept.run("forecast", "--format", "ics").stdout)
    assert [e["uid"] for e in again.walk("VEVENT")] == [e["uid"] for e in events]
    text = " ".join(kept.run("forecast").stdout.split())
    assert "3 copies (9.07 kB) will be due for deletion" in text and "deleted raw uploads 3" in text
    told_of = kept.run("forecast", "--format", "html", "--out", "f.html").stdout
    assert told_of == "" and "What lies where" in (kept.root / "f.html").read_text()


def test_incomplete_facts_are_said_and_end_with_8(kept: Project) -> None:
    with duckdb.connect(str(kept.root / ".retainer" / "facts.duckdb")) as facts:
        facts.execute("UPDATE listings SET complete = false WHERE name = 'vault'")
    assert told(kept, expect=8)["incomplete"] == ["vault"]
    text = kept.run("forecast", expect=8).stdout
    assert "The listing of vault did not finish" in text


def test_a_bill_is_what_the_prices_say(kept: Project) -> None:
    assert told(kept)["unpriced"] == ["uploads", "vault"]
    gib = 1 << 30
    priced(kept, vault={"storage": gib, "least_days": 10}, uploads={"storage": 2 * gib})
    found = told(kept)
    lying = {each["store"]: each for each in found["lying"]}
    size = lying["vault"]["bytes"][0]
    assert lying["vault"]["monthly"][0] == pytest.approx(size)
    assert lying["uploads"]["monthly"][0] == pytest.approx(2 * lying["uploads"]["bytes"][0])
    assert lying["uploads"]["bytes"][-1] == 0 and found["unpriced"] == []
    plan = kept.plan("priced.plan")
    assert plan["header"]["monthly"] is None and not plan["header"]["unpriced"]  # nothing to do
    later = (datetime.now(UTC) + timedelta(days=99)).isoformat()[:10]
    plan = kept.plan("priced.plan", "--as-of", later, expect=4)  # it would empty the store
    assert plan["header"]["monthly"] == pytest.approx(-2 * plan["header"]["delete_bytes"])
    assert "a month less" in kept.run("show", "priced.plan").stdout


def test_what_no_rule_keeps_is_told_before_it_leaves(local: Project) -> None:
    local.hosted(A, b"WEBVTT\n", kind="transcript", age=timedelta(days=3))
    local.plan()
    (found,) = told(local, "--days", "14")["coming"]
    assert (found["what"], found["rule"], found["recordings"]) == ("leaves", "", 1)
    assert (date.fromisoformat(found["day"]) - datetime.now(UTC).date()).days in (12, 13)
    text = " ".join(local.run("forecast").stdout.split())
    assert "1 recording (7 B) will leave 100ms without a copy" in text


# ── What it costs ─────────────────────────────────────────────────────────────────────────────────


def test_a_least_time_is_billed_whatever_is_deleted_before() -> None:
    price = Price(storage=0.004, put=0.02, least_days=90)
    gib = 1 << 30
    assert price.early(gib, 30) == pytest.approx(0.004 * 60 / 30.44)
    assert price.early(gib, 90) == 0 == price.early(gib, 400)
    assert price.kept(gib, 1000, 30) == pytest.approx(0.02 + 0.004 * 90 / 30.44)


@pytest.mark.parametrize(("size", "days"), [(1 << 30, 16), (1 << 20, 36), (100_000, 259)])
def test_a_colder_class_pays_from_its_break_even_on(size: int, days: int) -> None:
    """By hand for GLACIER_IR beside STANDARD: 90 days of 0.004 cost what 16 of 0.023 do; and of small
    objects the dearer request (0.015 a thousand) comes first."""
    cold, standard = PRICES["s3"]["GLACIER_IR"], PRICES["s3"]["STANDARD"]
    even = _break_even(cold, standard, size, 1)
    assert even == days
    assert cold.kept(size, 1, even) <= standard.kept(size, 1, even)
    assert cold.kept(size, 1, even - 1) > standard.kept(size, 1, even - 1)
