"""The laws of DESIGN.md, section 5, as properties of the SQL; and the SQL against the reference,
pair by pair and field by field.

Every example is a case with dozens of assets beside the boundaries of its policies (generate.py). A
decision takes as long for one asset as for fifty, and most of what a test takes, so the examples
are drawn and decided once, for all laws.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import generate
import pytest
import reference
from generate import Case, now_of, only, policies_of
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from retainer.cases import Decider
from retainer.model.moment import write_moment
from retainer.plan.decide import Clause, clauses_of, decide, items_of
from retainer.private import private_folder

Pair = tuple[str, str]
Decisions = dict[Pair, dict[str, Any]]
Rows = list[dict[str, Any]]

NOTHING = {"is": "none", "because": [], "until": "forever", "deadline": "none", "versions": "kept"}
SOURCES = ("hosted", "elsewhere")


def _decider() -> Decider:
    """One for as long as the private folder stays, which a test of commands may have removed."""
    return _decider_in(private_folder())


@cache
def _decider_in(_folder: Path) -> Decider:
    decider = Decider()
    decider.connection.execute("SET threads = 1")
    return decider


def decided(case: Case) -> Decisions:
    return _decider().decide(case, policies_of(case), now_of(case), case["timezone"])


def _rows(case: Case) -> Rows:
    """Every row of the table `decided` (with its asset_id), and the clause that it names."""
    cursor = _decider().connection.execute("FROM decided ORDER BY ALL")
    names = [column[0] for column in cursor.description]
    clauses = list(clauses_of(items_of(policies_of(case), now_of(case))))
    rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return [
        row | {"clause": clauses[row["clause_no"] - 1] if row["clause_no"] else None}
        for row in rows
    ]


def rows_of(case: Case) -> Rows:
    decided(case)
    return _rows(case)


def rows_after(case: Case, *statements: str) -> Rows:
    """The rows once these statements have changed the facts to what the format of the cases cannot
    say."""
    decided(case)
    for statement in statements:
        _decider().connection.execute(statement)
    decide(_decider().connection, policies_of(case), now_of(case), case["timezone"])
    return _rows(case)


@dataclass(frozen=True)
class Example:
    """A case with its decisions, and what the laws change about it."""

    case: Case
    added_keep: dict[str, Any]
    added_hold: dict[str, Any]
    unfinished: frozenset[str]
    days: tuple[int, ...]
    seed: int
    decisions: Decisions
    rows: Rows


@st.composite
def _drawn(draw: st.DrawFn) -> tuple[Any, ...]:
    case = draw(generate.cases())
    now, zone = now_of(case), ZoneInfo(case["timezone"])
    return (
        case,
        draw(generate.added_keeps(now, zone)),
        {"id": "added"} | draw(generate.holds(now, zone)),
        draw(st.frozensets(st.sampled_from((*generate.STORES, "delta")), min_size=1)),
        tuple(sorted(draw(st.lists(st.integers(0, 800), min_size=4, max_size=4)))),
        draw(st.integers(0, 2**32)),
    )


@cache
def _examples() -> Sequence[Example]:
    found: list[Example] = []

    @settings(max_examples=80, phases=(Phase.generate,))
    @given(_drawn())
    def collect(drawn: tuple[Any, ...]) -> None:
        found.append(Example(*drawn, decided(drawn[0]), _rows(drawn[0])))

    collect()
    return found


def examples(count: int) -> Sequence[Example]:
    return _examples()[:count]


def deletes_of(decisions: Decisions) -> set[Pair]:
    return {pair for pair, decision in decisions.items() if decision["is"] == "delete"}


def pairs_of(case: Case, asset_id: str) -> reference.Pairs:
    asset = next(asset for asset in case["assets"] if asset["id"] == asset_id)
    return reference.Pairs(case, asset, ZoneInfo(case["timezone"]))


def applied(case: Case, plan: Iterable[tuple[Pair, str]]) -> Case:
    """The case after these actions of a plan, all of which succeeded."""
    lies = {(copy["asset"], copy["in"]): copy for copy in case["copies"]}
    for pair, action in plan:
        if action == "delete":
            del lies[pair]
        else:
            lies[pair] = lies.get(pair, {"asset": pair[0], "in": pair[1]}) | {"state": "complete"}
    return case | {"copies": list(lies.values())}


def plan_of(decisions: Decisions) -> list[tuple[Pair, str]]:
    """The actions in the order of an apply: copies by deadline, then deletes."""
    copies = sorted(
        (decision["deadline"], pair)
        for pair, decision in decisions.items()
        if decision["is"] == "copy"
    )
    return [(pair, "copy") for _, pair in copies] + [
        (pair, "delete") for pair in sorted(deletes_of(decisions))
    ]


def complete_stores(case: Case) -> dict[str, set[str]]:
    stores: dict[str, set[str]] = defaultdict(set)
    for copy in case["copies"]:
        if copy["in"] not in SOURCES and copy.get("state", "complete") == "complete":
            stores[copy["asset"]].add(copy["in"])
    return stores


# ── The SQL and the reference ─────────────────────────────────────────────────────────────────────


def _shown(decision: reference.Decision) -> dict[str, Any]:
    def text(value: datetime | str | None, none: str) -> str:
        return write_moment(value) if isinstance(value, datetime) else value or none

    return {
        "is": decision.is_,
        "because": sorted(decision.because),
        "until": text(decision.until, "forever"),
        "deadline": text(decision.deadline, "none"),
        "versions": decision.versions,
    }


def test_the_sql_decides_every_pair_as_the_reference_does_field_by_field() -> None:
    seen: Counter[str] = Counter()
    for example in examples(80):
        case, found = example.case, example.decisions
        wanted = {
            pair: _shown(decision)
            for pair, decision in reference.decide(case, case["timezone"]).items()
        }
        for pair in sorted(wanted.keys() | found.keys()):
            assert (pair, found.get(pair, NOTHING)) == (pair, wanted.get(pair, NOTHING)), only(
                case, pair[0]
            )
        for decision in wanted.values():
            seen.update([decision["is"], *decision["because"], decision["versions"]])
    everything = {
        "copy",
        "keep",
        "delete",
        "blocked",
        "lost",
        "waiting",
        "unknown",
        "unmanaged",
        "lapses",
        "none",
        "hold",
        "lock",
        "untrusted-time",
        "unsatisfied",
        "versions",
        "second-factor",
        "all",
    }
    assert not {name for name in everything if seen[name] < 3}, (
        "the examples reach every decision and every reason"
    )


# ── Law 1 ─────────────────────────────────────────────────────────────────────────────────────────


def _takes_over(before: reference.Pairs, after: reference.Pairs) -> bool:
    """Whether a keep that has not begun, and counted as running, is bridged now."""
    return any(
        keep.start > before.t and before.runs(keep) and not after.runs(keep)
        for keep in before.keeps
    )


def test_law_1_adding_a_keep_never_raises_the_number_of_deletes_of_an_asset() -> None:
    for example in examples(50):
        before = example.case
        at = Random(example.seed).randint(0, len(before["rules"]))
        after = before | {
            "rules": [*before["rules"][:at], example.added_keep, *before["rules"][at:]]
        }
        fewer, more = (
            Counter(asset for asset, _ in deletes_of(decisions))
            for decisions in (example.decisions, decided(after))
        )
        for asset in more:
            if more[asset] > fewer[asset]:
                assert _takes_over(pairs_of(before, asset), pairs_of(after, asset)), (
                    example.added_keep,
                    only(before, asset),
                )


def test_law_1_adding_a_hold_never_adds_a_delete_and_freezes_all_that_it_may_match() -> None:
    for example in examples(35):
        after = example.case | {"holds": [*example.case["holds"], example.added_hold]}
        deletes = deletes_of(decided(after))
        assert deletes <= deletes_of(example.decisions), (
            example.added_hold,
            deletes - deletes_of(example.decisions),
        )
        for asset, store in sorted(deletes):
            assert not pairs_of(after, asset).holds, (store, only(after, asset))


# ── Law 2 ─────────────────────────────────────────────────────────────────────────────────────────


def test_law_2_an_unfinished_listing_never_adds_a_delete_whatever_it_did_not_see() -> None:
    for example in examples(50):
        case, random = example.case, Random(example.seed)
        seen = [
            copy
            for copy in case["copies"]
            if copy["in"] not in example.unfinished or random.random() < 0.5
        ]
        less = case | {
            "unfinished": sorted({*case["unfinished"], *example.unfinished}),
            "copies": seen,
        }
        added = deletes_of(decided(less)) - deletes_of(example.decisions)
        assert not added, [only(less, asset) for asset, _ in sorted(added)[:1]]


def test_law_2_nothing_but_an_erasure_deletes_an_asset_that_an_unfinished_list_of_assets_did_not_show() -> (
    None
):
    for example in examples(12):
        settled = {(row["asset_id"], row["store"]): row for row in example.rows}
        for row in rows_after(
            example.case,
            "UPDATE facts SET settled = false",
            "INSERT INTO listings (name, kind, complete) VALUES ('assets', 'assets', false)",
        ):
            was, shown = (
                settled[row["asset_id"], row["store"]]["decision"],
                only(example.case, row["asset_id"]),
            )
            if row["decision"] == "delete":
                assert (was, pairs_of(example.case, row["asset_id"]).erased) == ("delete", True), (
                    shown
                )
            elif was == "delete":
                assert (row["decision"], row["because"]) == ("blocked", ["unknown"]), shown
            else:
                assert row["decision"] == {"lost": "unknown"}.get(was, was), shown


# ── Law 3 ─────────────────────────────────────────────────────────────────────────────────────────


def test_law_3_without_a_delete_an_at_most_or_an_erasure_nothing_is_due() -> None:
    for example in examples(20):
        rules = [
            {key: value for key, value in rule.items() if key not in ("delete", "then", "at_most")}
            for rule in example.case["rules"]
        ]
        only_keeps = example.case | {
            "rules": [rule for rule in rules if "keep" in rule],
            "erasures": [],
        }
        for pair, decision in decided(only_keeps).items():
            assert decision["is"] not in ("delete", "blocked"), (pair, only(only_keeps, pair[0]))


def _asks_now(clause: Clause, case: Case, asset_id: str, store: str) -> bool:
    """Whether this clause, by itself, asks that what lies there goes now."""
    pairs = pairs_of(case, asset_id)
    item = next(
        item
        for section in ("rules", "erasures")
        for item in case[section]
        if item["id"] == clause.item.id
    )
    if pairs.matcher.matches(item["match"]) is not True:
        return False
    if clause.kind == "erasure":
        return True
    assert clause.ends is not None
    return (
        clause.kind in ("delete", "at_most")
        and clause.store in (None, store)
        and pairs.end(clause.ends.text, reference.DUE) <= pairs.t
    )


def test_law_3_every_delete_names_a_rule_or_erasure_that_asks_for_it_now() -> None:
    for example in examples(80):
        for row in example.rows:
            if row["decision"] == "delete":
                assert row["clause"] is not None
                assert _asks_now(row["clause"], example.case, row["asset_id"], row["store"]), (
                    row["clause"],
                    only(example.case, row["asset_id"]),
                )


# ── Law 4 ─────────────────────────────────────────────────────────────────────────────────────────


def test_law_4_every_pair_appears_in_exactly_one_decision() -> None:
    """A pair of which nothing is decided (`none`) may be left out."""
    for example in examples(80):
        rows = Counter((row["asset_id"], row["store"]) for row in example.rows)
        assert [pair for pair, count in rows.items() if count > 1] == []
        pairs = reference.decide(example.case, example.case["timezone"])
        assert rows.keys() <= pairs.keys()
        assert {pair for pair, decision in pairs.items() if decision.is_ != "none"} <= rows.keys()


def test_law_4_every_decision_stands_with_its_reason() -> None:
    kinds = {
        "copy": {"keep", "hold"},
        "waiting": {"keep", "hold"},
        "lost": {"keep", "hold"},
        "unknown": {"keep", "hold", "erasure"},
        "keep": {"keep", "hold", "delete", "at_most"},
        "delete": {"delete", "at_most", "erasure"},
        "blocked": {"delete", "at_most", "erasure"},
    }
    for example in examples(80):
        for row in example.rows:
            clause, decision = row["clause"], row["decision"]
            shown = (decision, row["because"], clause, only(example.case, row["asset_id"]))
            may_be = {"waiting": ["doubtful"], "lapses": ["not-kept"]}.get(decision)
            told = decision == "blocked" or row["because"] == may_be
            assert bool(row["because"]) == told, shown
            if decision in kinds:
                assert clause is not None, shown
                assert clause.kind in kinds[decision], shown
                assert clause.store in (None, row["store"]), shown
            else:
                assert clause is None or (clause.kind == "erasure" and decision == "lapses"), shown


# ── Law 5 ─────────────────────────────────────────────────────────────────────────────────────────


def _shuffled(items: dict[str, Any], keys: Iterable[str], random: Random) -> dict[str, Any]:
    return items | {key: random.sample(items[key], len(items[key])) for key in keys if key in items}


def test_law_5_the_order_of_the_facts_does_not_matter() -> None:
    for example in examples(35):
        assert (
            rows_of(
                _shuffled(example.case, ("assets", "copies", "unfinished"), Random(example.seed))
            )
            == example.rows
        )


def test_law_5_nor_does_the_order_of_the_rules() -> None:
    for example in examples(25):
        random = Random(example.seed)
        case = _shuffled(example.case, ("rules", "holds", "erasures"), random)
        assert (
            decided(
                case
                | {"rules": [_shuffled(rule, ("keep", "delete"), random) for rule in case["rules"]]}
            )
            == example.decisions
        )


# ── Law 6 ─────────────────────────────────────────────────────────────────────────────────────────


def test_law_6_the_plan_after_an_apply_holds_only_deletes_that_were_unsatisfied_and_the_one_after_that_is_empty() -> (
    None
):
    waited = 0
    for example in examples(40):
        then = applied(example.case, plan_of(example.decisions))
        second = plan_of(decided(then))
        for pair, action in second:
            was = example.decisions[pair]
            assert (action, was["is"], was["because"]) == ("delete", "blocked", ["unsatisfied"]), (
                pair,
                only(example.case, pair[0]),
            )
        assert plan_of(decided(applied(then, second))) == []
        waited += len(second)
    assert waited > 20


# ── Law 7 ─────────────────────────────────────────────────────────────────────────────────────────


def _wanted(case: Case, asset_id: str) -> bool:
    """Whether the asset is needed in some store, or held."""
    pairs = pairs_of(case, asset_id)
    return bool(pairs.holds) or any(map(pairs.needed, pairs.stores))


def test_law_7_no_prefix_of_a_plan_in_any_order_takes_the_last_complete_copy_of_an_asset_that_is_needed_or_held() -> (
    None
):
    for example in examples(80):
        deletes = deletes_of(example.decisions)
        for asset, stores in complete_stores(example.case).items():
            left = {
                store for store in stores if (asset, store) not in deletes
            }  # even if no copy succeeds
            assert left or not _wanted(example.case, asset), only(example.case, asset)


def test_law_7_after_every_prefix_what_is_needed_still_lies_somewhere_and_a_new_plan_takes_none_of_it() -> (
    None
):
    for example in examples(30):
        random, plan = Random(example.seed), plan_of(example.decisions)
        cut = applied(example.case, plan[: random.randint(0, len(plan))])
        plan = plan_of(decided(cut))
        later = applied(cut, random.sample(plan, random.randint(0, len(plan))))
        for asset in complete_stores(example.case):
            for state in (cut, later):
                assert complete_stores(state)[asset] or not _wanted(state, asset), only(
                    example.case, asset
                )


def test_law_7_as_time_goes_by_no_gap_is_left_in_which_the_last_copy_goes() -> None:
    """Plans at later and later moments, each carried out in part: what lay complete stays until the
    last certain keep is over."""
    for example in examples(12):
        random, case = Random(example.seed), example.case | {"unfinished": []}
        ends = {}
        for asset in complete_stores(case):
            pairs = pairs_of(case, asset)
            ends[asset] = max(
                (keep.end for keep in pairs.keeps if keep.certain and pairs.created),
                default=reference.DUE,
            )
        for day in example.days:
            now = now_of(example.case) + timedelta(days=day)
            case = case | {"now": write_moment(now)}
            plan = plan_of(decided(case))
            case = applied(case, sorted(random.sample(plan, len(plan) * 3 // 4), key=plan.index))
            lies = complete_stores(case)
            for asset, end in ends.items():
                assert lies[asset] or now >= end, (case["now"], only(example.case, asset))


# ── What the format of the cases cannot say ───────────────────────────────────────────────────────


def test_a_key_that_two_assets_name_is_deleted_only_when_both_may_go() -> None:
    apart = 0
    for example in examples(12):
        alone = {(row["asset_id"], row["store"]): row for row in example.rows}
        keys = {
            asset["id"]: number // 2
            for number, asset in enumerate(
                sorted(example.case["assets"], key=lambda asset: asset["id"]), 1
            )
        }
        together: dict[int, set[tuple[str, bool]]] = defaultdict(set)
        for copy in example.case["copies"]:
            if copy["in"] == "alpha":
                row = alone[copy["asset"], "alpha"]
                together[keys[copy["asset"]]].add((row["decision"], row["purged_by"] is None))
        for row in rows_after(
            example.case, "UPDATE places SET shared = 'key ' || asset_no // 2 WHERE store = 'alpha'"
        ):
            was = alone[row["asset_id"], row["store"]]
            if (
                was["decision"] == "delete"
                and row["store"] == "alpha"
                # what one of them deletes for good, the other may want back
                and together[keys[row["asset_id"]]] not in ({("delete", True)}, {("delete", False)})
            ):
                assert (row["decision"], row["because"]) == ("blocked", ["shared"])
                apart += 1
            else:
                assert (row["decision"], row["because"]) == (was["decision"], was["because"])
    assert apart > 5


@pytest.mark.sampled
@pytest.mark.parametrize(
    "fact",
    ["places SET complete", "places SET lock_read", "places SET owners_known", "facts SET settled"],
)
def test_what_a_snapshot_leaves_open_is_never_taken_for_the_better(fact: str) -> None:
    for example in examples(6):
        every_third = "WHERE asset_no % 3 = 0"
        left_open = rows_after(example.case, f"UPDATE {fact} = NULL {every_third}")
        assert left_open == rows_after(example.case, f"UPDATE {fact} = false {every_third}")


def test_where_a_lock_could_not_be_read_nothing_is_deleted() -> None:
    for example in examples(10):
        before = {(row["asset_id"], row["store"]): row for row in example.rows}
        for row in rows_after(example.case, "UPDATE places SET lock_read = false"):
            was = before[row["asset_id"], row["store"]]
            if was["decision"] in ("delete", "blocked"):
                assert (row["decision"], set(row["because"])) == (
                    "blocked",
                    {"lock", *was["because"]},
                )
            else:
                assert row["decision"] == was["decision"]


def test_where_another_owner_of_the_object_may_be_unseen_only_an_erasure_deletes() -> None:
    for example in examples(10):
        before = {(row["asset_id"], row["store"]): row["decision"] for row in example.rows}
        for row in rows_after(example.case, "UPDATE places SET owners_known = false"):
            was, erased = (
                before[row["asset_id"], row["store"]],
                pairs_of(example.case, row["asset_id"]).erased,
            )
            assert row["decision"] == ("blocked" if was == "delete" and not erased else was)
            assert was != "delete" or row["because"] == ([] if erased else ["unknown"])
