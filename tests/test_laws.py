"""The laws of DESIGN.md, section 5, as properties of the SQL; and the SQL against the reference, pair by pair and field by field.

Every example is a case with dozens of assets beside the boundaries of its policies (generate.py).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import cache
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import generate
import reference
from generate import Case, now_of, only, policies_of
from hypothesis import given, settings
from hypothesis import strategies as st

from retainer.cases import Decider
from retainer.model.moment import write_moment
from retainer.plan.decide import Clause, clauses_of, decide, items_of

Pair = tuple[str, str]
Decisions = dict[Pair, dict[str, Any]]

NOTHING = {"is": "none", "because": [], "until": "forever", "deadline": "none"}
SOURCES = ("hosted", "elsewhere")


@cache
def _decider() -> Decider:
    decider = Decider()
    decider.connection.execute("SET threads = 1")
    return decider


def decided(case: Case) -> Decisions:
    return _decider().decide(case, policies_of(case), now_of(case), case["timezone"])


def decided_after(case: Case, *statements: str) -> list[dict[str, Any]]:
    """Every row of `decided` (with asset_id) and its clause, once the facts were changed by SQL: for facts that a case cannot tell."""
    connection, policies, now = _decider().connection, policies_of(case), now_of(case)
    decided(case)
    for statement in statements:
        connection.execute(statement)
    if statements:
        decide(connection, policies, now, case["timezone"])
    cursor = connection.execute("SELECT asset_id, decided.* FROM decided JOIN assets USING (asset_no) ORDER BY ALL")
    names = [column[0] for column in cursor.description]
    clauses = list(clauses_of(items_of(policies, now)))
    rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return [row | {"clause": clauses[row["clause_no"] - 1] if row["clause_no"] else None} for row in rows]


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
    copies = sorted((decision["deadline"], pair) for pair, decision in decisions.items() if decision["is"] == "copy")
    return [(pair, "copy") for _, pair in copies] + [(pair, "delete") for pair in sorted(deletes_of(decisions))]


def complete_stores(case: Case) -> dict[str, set[str]]:
    stores: dict[str, set[str]] = defaultdict(set)
    for copy in case["copies"]:
        if copy["in"] not in SOURCES and copy.get("state", "complete") == "complete":
            stores[copy["asset"]].add(copy["in"])
    return stores


# ── The SQL and the reference ───────────────────────────────────────────────────────────────────────────────────────


def _shown(decision: reference.Decision) -> dict[str, Any]:
    def text(value: datetime | str | None, none: str) -> str:
        return write_moment(value) if isinstance(value, datetime) else value or none

    return {"is": decision.is_, "because": sorted(decision.because), "until": text(decision.until, "forever"),
            "deadline": text(decision.deadline, "none")}  # fmt: skip


def test_the_sql_decides_every_pair_as_the_reference_does_field_by_field() -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=140)
    @given(generate.cases())
    def check(case: Case) -> None:
        wanted = {pair: _shown(decision) for pair, decision in reference.decide(case, case["timezone"]).items()}
        found = decided(case)
        for pair in sorted(wanted.keys() | found.keys()):
            assert (pair, found.get(pair, NOTHING)) == (pair, wanted.get(pair, NOTHING)), only(case, pair[0])
        for decision in wanted.values():
            seen.update([decision["is"], *decision["because"]])

    check()
    everything = {"copy", "keep", "delete", "blocked", "lost", "waiting", "unknown", "unmanaged", "lapses", "none",
                  "hold", "lock", "untrusted-time", "unsatisfied"}  # fmt: skip
    assert not {name for name in everything if seen[name] < 20}, "the generated cases reach every decision and every reason"


# ── Law 1 ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _takes_over(before: reference.Pairs, after: reference.Pairs) -> bool:
    """Whether a keep that has not begun, and counted as running, is bridged now."""
    return any(keep.start > before.t and before.runs(keep) and not after.runs(keep) for keep in before.keeps)


@st.composite
def _with_an_added_keep(draw: st.DrawFn) -> tuple[Case, Case]:
    case = draw(generate.cases())
    keep = draw(generate.added_keeps(now_of(case), ZoneInfo(case["timezone"])))
    rules = list(case["rules"])
    rules.insert(draw(st.integers(0, len(rules))), keep)
    return case, case | {"rules": rules}


@settings(max_examples=60)
@given(_with_an_added_keep())
def test_law_1_adding_a_keep_never_raises_the_number_of_deletes_of_an_asset(two: tuple[Case, Case]) -> None:
    before, after = two
    fewer, more = (Counter(asset for asset, _ in deletes_of(decided(case))) for case in (before, after))
    for asset in more:
        if more[asset] > fewer[asset]:
            assert _takes_over(pairs_of(before, asset), pairs_of(after, asset)), (only(before, asset), after["rules"])


@st.composite
def _with_an_added_hold(draw: st.DrawFn) -> tuple[Case, Case]:
    case = draw(generate.cases())
    hold = {"id": "added"} | draw(generate.holds(now_of(case), ZoneInfo(case["timezone"])))
    return case, case | {"holds": [*case["holds"], hold]}


@settings(max_examples=40)
@given(_with_an_added_hold())
def test_law_1_adding_a_hold_never_adds_a_delete_and_freezes_all_that_it_may_match(two: tuple[Case, Case]) -> None:
    before, after = two
    deletes = deletes_of(decided(after))
    assert deletes <= deletes_of(decided(before))
    for asset, store in sorted(deletes):
        assert not pairs_of(after, asset).holds, (store, only(after, asset))


# ── Law 2 ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=60)
@given(generate.cases(), st.sets(st.sampled_from((*generate.STORES, "delta")), min_size=1), st.randoms(use_true_random=False))
def test_law_2_an_unfinished_listing_never_adds_a_delete_whatever_it_did_not_see(case: Case, stores: set[str], random: Random) -> None:
    seen = [copy for copy in case["copies"] if copy["in"] not in stores or random.random() < 0.5]
    less = case | {"unfinished": sorted({*case["unfinished"], *stores}), "copies": seen}
    added = deletes_of(decided(less)) - deletes_of(decided(case))
    assert not added, [only(less, asset) for asset, _ in sorted(added)[:1]]


@settings(max_examples=25)
@given(generate.cases(exact=True))
def test_law_2_nothing_but_an_erasure_deletes_an_asset_that_an_unfinished_list_of_assets_did_not_show(case: Case) -> None:
    settled = {(row["asset_id"], row["store"]): row for row in decided_after(case)}
    unfinished = decided_after(case, "UPDATE assets SET settled = false",
                               "INSERT INTO listings (name, kind, complete) VALUES ('assets', 'assets', false)")  # fmt: skip
    for row in unfinished:
        before = settled[row["asset_id"], row["store"]]
        if row["decision"] == "delete":
            assert row["erased"], only(case, row["asset_id"])
            assert before["decision"] == "delete", only(case, row["asset_id"])
        elif before["decision"] == "delete":
            assert row["decision"] == "blocked", only(case, row["asset_id"])
            assert row["because"] == ["unknown"], only(case, row["asset_id"])
        elif before["decision"] == "lost":
            assert row["decision"] == "unknown", only(case, row["asset_id"])


# ── Law 3 ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=30)
@given(generate.cases())
def test_law_3_without_a_delete_an_at_most_or_an_erasure_nothing_is_due(case: Case) -> None:
    rules = [{key: value for key, value in rule.items() if key not in ("delete", "then", "at_most")} for rule in case["rules"]]
    only_keeps = case | {"rules": [rule for rule in rules if "keep" in rule], "erasures": []}
    for pair, decision in decided(only_keeps).items():
        assert decision["is"] not in ("delete", "blocked"), (pair, only(only_keeps, pair[0]))


def _asks_now(clause: Clause, case: Case, asset_id: str, store: str) -> bool:
    """Whether this clause, by itself, asks that what lies there goes now."""
    pairs = pairs_of(case, asset_id)
    item = next(item for section in ("rules", "erasures") for item in case[section] if item["id"] == clause.item.id)
    if pairs.matcher.matches(item["match"]) is not True:
        return False
    if clause.kind == "erasure":
        return True
    assert clause.ends is not None
    return clause.kind in ("delete", "at_most") and clause.store in (None, store) and pairs.end(clause.ends.text, reference.DUE) <= pairs.t


@settings(max_examples=60)
@given(generate.cases())
def test_law_3_every_delete_names_a_rule_or_erasure_that_asks_for_it_now(case: Case) -> None:
    for row in decided_after(case):
        if row["decision"] == "delete":
            assert row["clause"] is not None
            assert _asks_now(row["clause"], case, row["asset_id"], row["store"]), (row["clause"], only(case, row["asset_id"]))


# ── Law 4 ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=50)
@given(generate.cases())
def test_law_4_every_pair_appears_in_exactly_one_decision(case: Case) -> None:
    rows = Counter((row["asset_id"], row["store"]) for row in decided_after(case))
    assert [pair for pair, count in rows.items() if count > 1] == []
    assert rows.keys() == reference.decide(case, case["timezone"]).keys()


@settings(max_examples=50)
@given(generate.cases())
def test_law_4_every_decision_stands_with_its_reason(case: Case) -> None:
    kinds = {
        "copy": {"keep", "hold"}, "waiting": {"keep", "hold"}, "lost": {"keep", "hold"}, "unknown": {"keep", "hold", "erasure"},
        "keep": {"keep", "hold", "delete", "at_most"}, "delete": {"delete", "at_most", "erasure"}, "blocked": {"delete", "at_most", "erasure"},
    }  # fmt: skip
    for row in decided_after(case):
        clause, decision = row["clause"], row["decision"]
        shown = (decision, row["because"], clause, only(case, row["asset_id"]))
        assert bool(row["because"]) == (decision == "blocked"), shown
        if decision in kinds:
            assert clause is not None, shown
            assert clause.kind in kinds[decision], shown
            assert clause.store in (None, row["store"]), shown
        else:
            assert clause is None or (clause.kind == "erasure" and decision == "lapses"), shown


# ── Law 5 ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=50)
@given(generate.cases(), st.randoms(use_true_random=False))
def test_law_5_the_order_of_the_facts_does_not_matter(case: Case, random: Random) -> None:
    before = decided_after(case)
    facts = {key: random.sample(case[key], len(case[key])) for key in ("assets", "copies", "unfinished")}
    assert decided_after(case | facts) == before


@settings(max_examples=30)
@given(generate.cases(), st.randoms(use_true_random=False))
def test_law_5_nor_does_the_order_of_the_rules(case: Case, random: Random) -> None:
    policies = {key: random.sample(case[key], len(case[key])) for key in ("rules", "holds", "erasures")}
    policies["rules"] = [rule | {key: random.sample(rule[key], len(rule[key])) for key in ("keep", "delete") if key in rule}
                         for rule in policies["rules"]]  # fmt: skip
    assert decided(case | policies) == decided(case)


# ── Law 6 ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=50)
@given(generate.cases())
def test_law_6_the_plan_after_an_apply_holds_only_deletes_that_were_unsatisfied_and_the_one_after_that_is_empty(case: Case) -> None:
    first = decided(case)
    then = applied(case, plan_of(first))
    second = decided(then)
    for pair, action in plan_of(second):
        shown = (pair, action, first.get(pair), only(case, pair[0]))
        assert action == "delete", shown
        assert first[pair]["is"] == "blocked", shown
        assert first[pair]["because"] == ["unsatisfied"], shown
    third = decided(applied(then, plan_of(second)))
    assert plan_of(third) == []


# ── Law 7 ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _wanted(case: Case, asset_id: str) -> bool:
    pairs = pairs_of(case, asset_id)
    return bool(pairs.holds) or any(map(pairs.needed, pairs.stores))


@settings(max_examples=60)
@given(generate.cases())
def test_law_7_no_prefix_of_a_plan_in_any_order_takes_the_last_complete_copy_of_an_asset_that_is_needed_or_held(case: Case) -> None:
    lies, deletes = complete_stores(case), deletes_of(decided(case))
    for asset, stores in lies.items():
        left = {store for store in stores if (asset, store) not in deletes}  # even if no copy succeeds
        assert left or not _wanted(case, asset), only(case, asset)


@settings(max_examples=40)
@given(generate.cases(), st.randoms(use_true_random=False))
def test_law_7_after_every_prefix_what_is_needed_still_lies_somewhere_and_a_new_plan_takes_none_of_it(case: Case, random: Random) -> None:
    plan = plan_of(decided(case))
    cut = applied(case, plan[: random.randint(0, len(plan))])
    plan = plan_of(decided(cut))
    later = applied(cut, random.sample(plan, random.randint(0, len(plan))))
    for asset in complete_stores(case):
        for state in (cut, later):
            assert complete_stores(state)[asset] or not _wanted(state, asset), only(case, asset)


@settings(max_examples=25)
@given(generate.cases(unfinished=False), st.lists(st.integers(0, 800), min_size=4, max_size=4), st.randoms(use_true_random=False))
def test_law_7_as_time_goes_by_no_gap_is_left_in_which_the_last_copy_goes(case: Case, days: list[int], random: Random) -> None:
    """Plans at later and later moments, each carried out in part: what lay complete while it was needed later still lies there."""
    start, zone = now_of(case), ZoneInfo(case["timezone"])
    ahead = {}
    for asset in case["assets"]:
        pairs = reference.Pairs(case, asset, zone)
        certain = [keep.end for keep in pairs.keeps if keep.certain]
        ahead[asset["id"]] = max(certain, default=reference.DUE) if pairs.created else reference.DUE
    lay = {asset for asset, stores in complete_stores(case).items() if stores}
    for day in sorted(days):
        now = start + timedelta(days=day)
        case = case | {"now": write_moment(now)}
        plan = plan_of(decided(case))
        case = applied(case, sorted(random.sample(plan, len(plan) * 3 // 4), key=plan.index))
        lies = complete_stores(case)
        for asset in lay:
            assert lies[asset] or now >= ahead[asset], only(case, asset)


# ── What the format of the cases cannot say ─────────────────────────────────────────────────────────────────────────


@settings(max_examples=30)
@given(generate.cases(exact=True))
def test_a_key_that_two_assets_name_is_deleted_only_when_both_may_go(case: Case) -> None:
    alone = {(row["asset_id"], row["store"]): row["decision"] for row in decided_after(case)}
    shared = decided_after(case, "UPDATE copies SET shared = 'key ' || asset_no // 2 WHERE store = 'alpha'")
    together: dict[str, set[str]] = defaultdict(set)
    for row in shared:
        if row["shared"]:
            together[row["shared"]].add(alone[row["asset_id"], row["store"]])
    assert together or not any(copy["in"] == "alpha" for copy in case["copies"])
    for row in shared:
        before = alone[row["asset_id"], row["store"]]
        if row["shared"] and before == "delete" and together[row["shared"]] != {"delete"}:
            assert (row["decision"], row["because"]) == ("blocked", ["shared"])
        else:
            assert row["decision"] == before


@settings(max_examples=30)
@given(generate.cases(exact=True))
def test_where_a_lock_could_not_be_read_nothing_is_deleted(case: Case) -> None:
    before = {(row["asset_id"], row["store"]): row for row in decided_after(case)}
    for row in decided_after(case, "UPDATE copies SET lock_read = false"):
        was = before[row["asset_id"], row["store"]]
        if was["decision"] in ("delete", "blocked"):
            assert row["decision"] == "blocked"
            assert set(row["because"]) == {"lock", *was["because"]}
        else:
            assert row["decision"] == was["decision"]


@settings(max_examples=30)
@given(generate.cases())
def test_every_certain_keep_that_reaches_beyond_a_certain_at_most_is_a_clash(case: Case) -> None:
    case = case | {"erasures": []}
    decided(case)
    found = {(case["rules"][ceiling - 1]["id"], case["rules"][keep - 1]["id"]): assets
             for ceiling, keep, assets in _decider().connection.execute("FROM clashes").fetchall()}  # fmt: skip
    wanted: Counter[tuple[str, str]] = Counter()
    for asset in case["assets"]:
        pairs = reference.Pairs(case, asset, ZoneInfo(case["timezone"]))
        certain = [rule for rule in case["rules"] if pairs.created and pairs.matcher.matches(rule["match"]) is True]
        for ceiling in certain:
            for rule in certain:
                ends = [pairs.end(keep["for"], reference.FOREVER) for keep in rule.get("keep", ())]
                if "at_most" in ceiling and ends and max(ends) > pairs.end(ceiling["at_most"], reference.DUE):
                    wanted[ceiling["id"], rule["id"]] += 1
    assert found == wanted
