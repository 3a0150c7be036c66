"""The limits on deletes, at and beside each boundary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from project import POLICY, Project, video

from retainer.model.setting import DeleteLimits
from retainer.plan.limits import PERCENT_FROM, Deletes, Held, Limit, evaluate

WIDE = DeleteLimits(count=10**9, percent=100, bytes=10**18)


def deletes(count: int, bytes: int = 0, *, store: str = "vault", rule: str = "r") -> Deletes:
    return Deletes(store, rule, count, bytes)


def holding(**copies: int) -> dict[str, Held]:
    return {store: Held(count, 0) for store, count in copies.items()}


def judged(
    limits: DeleteLimits,
    planned: Iterable[Deletes],
    recent: Iterable[Deletes] = (),
    held: Mapping[str, Held] | None = None,
) -> dict[tuple[str, str], Limit]:
    found = evaluate(limits, planned, recent, {"vault": Held(10**6, 0)} if held is None else held)
    named = {(each.name, each.scope): each for each in found}
    assert len(named) == len(found)
    return named


def breaches(*args: object, **named: object) -> set[tuple[str, str]]:
    return {key for key, limit in judged(*args, **named).items() if limit.breached}  # type: ignore[arg-type]


# ── Count ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("count, over", [(499, False), (500, False), (501, True)])
def test_as_many_deletes_as_the_limit_are_allowed_and_one_more_is_not(
    count: int, over: bool
) -> None:
    found = judged(DeleteLimits(), [deletes(count)])
    for scope in ("store:vault", "rule:r"):
        assert found["count", scope] == Limit("count", scope, count, 500, over)


@pytest.mark.parametrize("before, over", [(99, False), (100, False), (101, True)])
def test_the_deletes_of_the_last_24_hours_count(before: int, over: bool) -> None:
    found = judged(DeleteLimits(), [deletes(400)], [deletes(before)])
    assert (found["count", "store:vault"].used, found["count", "store:vault"].breached) == (
        400 + before,
        over,
    )
    assert (found["count", "rule:r"].used, found["count", "rule:r"].breached) == (
        400 + before,
        over,
    )


def test_the_rules_of_one_store_are_counted_together() -> None:
    planned = [deletes(300, rule="a"), deletes(201, rule="b")]
    assert breaches(DeleteLimits(), planned) == {("count", "store:vault")}


def test_the_stores_of_one_rule_are_counted_together() -> None:
    planned = [deletes(300, store="vault"), deletes(201, store="cold")]
    assert breaches(DeleteLimits(), planned, held=holding(vault=10**6, cold=10**6)) == {
        ("count", "rule:r")
    }


def test_what_another_rule_deleted_today_counts_for_the_store_alone() -> None:
    assert breaches(DeleteLimits(), [deletes(400)], [deletes(200, rule="other")]) == {
        ("count", "store:vault")
    }


def test_what_the_rule_deleted_today_elsewhere_counts_for_the_rule_alone() -> None:
    assert breaches(DeleteLimits(), [deletes(400)], [deletes(200, store="cold")]) == {
        ("count", "rule:r")
    }


def test_a_limit_of_nothing_is_breached_by_the_first_delete() -> None:
    assert breaches(DeleteLimits(count=0), [deletes(1)]) == {
        ("count", "store:vault"),
        ("count", "rule:r"),
    }


# ── Bytes ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size, over", [(10**11 - 1, False), (10**11, False), (10**11 + 1, True)])
def test_as_many_bytes_as_the_limit_are_allowed_and_one_more_is_not(size: int, over: bool) -> None:
    found = judged(DeleteLimits(), [deletes(1, size)])
    for scope in ("store:vault", "rule:r"):
        assert found["bytes", scope] == Limit("bytes", scope, size, 10**11, over)


@pytest.mark.parametrize("before, over", [(10**10, False), (10**10 + 1, True)])
def test_the_bytes_of_the_last_24_hours_count(before: int, over: bool) -> None:
    assert (
        judged(DeleteLimits(), [deletes(1, 9 * 10**10)], [deletes(1, before)])[
            "bytes", "store:vault"
        ].breached
        is over
    )


# ── Percent ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "count, held, over",
    [
        (19, 20, False),
        (19, 100, False),
        (20, 201, False),
        (20, 200, False),
        (20, 199, True),
        (21, 210, False),
        (21, 209, True),
        (1, 2, False),
        (100, 1000, False),
        (101, 1000, True),
    ],
)
def test_ten_percent_are_allowed_and_percent_counts_from_20_deletes_up(
    count: int, held: int, over: bool
) -> None:
    found = judged(DeleteLimits(), [deletes(count)], held=holding(vault=held))[
        "percent", "store:vault"
    ]
    assert (found.used, found.allowed, found.breached) == (round(100 * count / held, 2), 10, over)


def test_percent_begins_with_20() -> None:
    assert PERCENT_FROM == 20


@pytest.mark.parametrize("before, over", [(9, False), (10, True)])
def test_the_20_are_reached_with_the_last_24_hours(before: int, over: bool) -> None:
    assert (
        judged(DeleteLimits(), [deletes(10)], [deletes(before)], holding(vault=30))[
            "percent", "store:vault"
        ].breached
        is over
    )


@pytest.mark.parametrize("held, over", [(180, False), (179, True)])
def test_a_percentage_is_of_what_there_was_24_hours_ago(held: int, over: bool) -> None:
    """20 went already, of `held` + 20; nothing more is planned than to reach 10 percent of that."""
    found = judged(DeleteLimits(percent=15), [deletes(10)], [deletes(20)], holding(vault=held))[
        "percent", "store:vault"
    ]
    assert (found.used, found.breached) == (round(3000 / (held + 20), 2), over)


def test_a_fraction_of_a_percent_can_be_the_limit() -> None:
    limits = DeleteLimits(percent=0.1)
    assert (
        judged(limits, [deletes(20)], held=holding(vault=20_000))["percent", "store:vault"].breached
        is False
    )
    assert (
        judged(limits, [deletes(21)], held=holding(vault=20_000))["percent", "store:vault"].breached
        is True
    )


def test_0_percent_allow_no_delete_and_100_percent_allow_all_but_one() -> None:
    assert breaches(DeleteLimits(percent=0), [deletes(1)]) == {("percent", "store:vault")}
    assert breaches(DeleteLimits(percent=0), []) == set()
    assert breaches(WIDE, [deletes(99)], held=holding(vault=100)) == set()


def test_one_store_of_two_is_judged_by_what_it_holds_itself() -> None:
    planned = [deletes(30, store="vault"), deletes(30, store="cold", rule="s")]
    assert breaches(DeleteLimits(), planned, held=holding(vault=1000, cold=100)) == {
        ("percent", "store:cold")
    }


def test_what_is_rounded_for_people_is_not_what_is_judged() -> None:
    found = judged(DeleteLimits(), [deletes(10_001)], held=holding(vault=100_009))[
        "percent", "store:vault"
    ]
    assert (found.used, found.breached) == (10.0, True)


# ── Emptying a store ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("copies", [1, 2, 19, 1000])
def test_emptying_a_store_is_always_a_breach(copies: int) -> None:
    found = judged(WIDE, [deletes(copies)], held=holding(vault=copies))
    assert found["empty", "store:vault"] == Limit("empty", "store:vault", copies, copies - 1, True)


@pytest.mark.parametrize("copies", [2, 19, 1000])
def test_leaving_one_copy_is_not_emptying(copies: int) -> None:
    assert breaches(WIDE, [deletes(copies - 1)], held=holding(vault=copies)) == set()


def test_two_rules_that_empty_a_store_together_are_a_breach() -> None:
    assert breaches(WIDE, [deletes(2, rule="a"), deletes(3, rule="b")], held=holding(vault=5)) == {
        ("empty", "store:vault")
    }


def test_deletes_of_yesterday_alone_do_not_empty_what_is_there_today() -> None:
    assert breaches(WIDE, [deletes(1)], [deletes(100)], holding(vault=2)) == set()


def test_emptying_one_store_says_nothing_of_another() -> None:
    assert breaches(WIDE, [deletes(5)], held=holding(vault=10, cold=5)) == set()


def test_a_store_of_which_nothing_is_known_is_judged_by_count_and_bytes() -> None:
    assert breaches(DeleteLimits(), [deletes(501, 10**12)], held={}) >= {
        ("count", "store:vault"),
        ("bytes", "store:vault"),
    }


# ── What is shown ─────────────────────────────────────────────────────────────────────────────────


def test_without_deletes_there_is_nothing_to_judge() -> None:
    assert evaluate(DeleteLimits(count=0), [], [deletes(1000)], holding(vault=10)) == []


def test_only_what_the_plan_touches_is_judged() -> None:
    found = judged(
        DeleteLimits(),
        [deletes(1)],
        [deletes(900, store="cold", rule="old")],
        holding(vault=10, cold=10),
    )
    assert {scope for _, scope in found} == {"store:vault", "rule:r"}


def test_breaches_come_first_and_the_order_is_total() -> None:
    planned = [deletes(600, rule="b"), deletes(1, store="cold", rule="a")]
    found = evaluate(DeleteLimits(), planned, [], holding(vault=10**6, cold=10**6))
    assert [(each.breached, each.scope, each.name) for each in found] == sorted(
        ((each.breached, each.scope, each.name) for each in found),
        key=lambda each: (not each[0], each[1], each[2]),
    )
    assert [each.breached for each in found][:2] == [True, True]


SOME = st.lists(
    st.builds(
        Deletes,
        st.sampled_from(["vault", "cold"]),
        st.sampled_from(["a", "b"]),
        st.integers(1, 60),
        st.integers(0, 10**12),
    ),
    max_size=6,
)


@given(SOME, SOME, st.integers(0, 200), st.randoms(use_true_random=False))
def test_the_order_in_which_deletes_are_told_is_of_no_account(
    planned: list[Deletes], recent: list[Deletes], copies: int, random: object
) -> None:
    held = holding(vault=copies, cold=50)
    shuffled = sorted(planned, key=lambda _: random.random())  # type: ignore[attr-defined]
    assert evaluate(DeleteLimits(), planned, recent, held) == evaluate(
        DeleteLimits(), shuffled, list(reversed(recent)), held
    )


@given(SOME, SOME, SOME)
def test_what_was_deleted_before_never_makes_room(
    planned: list[Deletes], recent: list[Deletes], more: list[Deletes]
) -> None:
    held = holding(vault=500, cold=500)
    before = {
        (each.name, each.scope)
        for each in evaluate(DeleteLimits(), planned, recent, held)
        if each.breached
    }
    after = {
        (each.name, each.scope)
        for each in evaluate(DeleteLimits(), planned, [*recent, *more], held)
        if each.breached
    }
    assert before <= after


@given(SOME)
def test_more_deletes_of_the_same_kind_never_make_room(planned: list[Deletes]) -> None:
    held = holding(vault=500, cold=500)
    before = {
        (each.name, each.scope)
        for each in evaluate(DeleteLimits(), planned, [], held)
        if each.breached
    }
    after = {
        (each.name, each.scope)
        for each in evaluate(DeleteLimits(), [*planned, *planned], [], held)
        if each.breached
    }
    assert before <= after


def test_a_delete_alone_takes_no_last_copy() -> None:
    planned = [Deletes("uploads", "raw", 3, 30), Deletes("vault", "raw", 5, 50)]
    held = {"uploads": Held(90, 900), "vault": Held(90, 900)}

    def last(limits: DeleteLimits, takes: int) -> list[tuple[str, float, bool]]:
        found = evaluate(limits, planned, [], held, (), {"raw": takes})
        return [(each.scope, each.used, each.breached) for each in found if "last" in each.name]

    assert last(DeleteLimits(), 0) == []
    assert last(DeleteLimits(), 2) == [("rule:raw", 2, True)]
    assert last(DeleteLimits(last_copies=2), 2) == [("rule:raw", 2, False)]


def test_a_ceiling_far_away_does_not_switch_the_brake_off(local: Project) -> None:
    rule = {
        "id": "raw",
        "match": "all",
        "delete": [{"in": "uploads", "after": "1d"}],
        "at_most": "999y",
    }
    local.write({"version": 1, "rules": [rule]})
    local.uploaded("a" * 24, video(1))
    local.uploaded("b" * 24, video(2), age=timedelta(hours=1))
    text = local.run("plan", "--out", "p.plan", expect=4).stdout
    assert "last_copies of rule raw: 1 of 0" in text
    ending = {"id": "raw", "match": "all", "at_most": "30d"}
    local.write({"version": 1, "rules": [ending]})
    assert "last_copies" not in local.run("plan", "--out", "p.plan").stdout


def test_a_forgotten_upload_is_held_back_until_a_person_lifts_it(local: Project) -> None:
    local.write(POLICY | {"rules": [rule for rule in POLICY["rules"] if rule["id"] == "raw"]})
    local.uploaded("a" * 24, video(1))
    local.uploaded("b" * 24, video(2), age=timedelta(days=1))
    text = local.run("plan", "--out", "p.plan", expect=4).stdout
    assert "last_copies of rule raw: 1 of 0; `--lift last_copies:rule:raw` lifts it" in text
    done = local.apply("p.plan", "--approve-deletes", "1", expect=4)
    assert done["deleted"] == 0 and done["left_deletes"] == 1
    local.run("plan", "--out", "p.plan", "--lift", "last_copies:rule:raw")
    assert local.apply("p.plan", "--approve-deletes", "1")["deleted"] == 1


@pytest.mark.parametrize(
    ("lift", "hint"),
    [
        ("count:store:valut", "did you mean `count:store:vault`?"),
        ("cuont:rule:raw", "did you mean `count:rule:raw`?"),
        ("percent:rule:raw", None),
        ("everything", None),
    ],
)
def test_a_lift_of_what_is_no_limit_is_wrong_usage(
    lift: str, hint: str | None, local: Project
) -> None:
    done = local.run("plan", "--lift", lift, expect=64)
    assert f"`{lift}` is no limit" in done.stderr and (hint or "") in done.stderr


def test_a_copy_that_nothing_asks_for_is_no_witness_in_a_plan_as_in_an_apply(
    local: Project,
) -> None:
    """Else an apply holds back what no plan can lift."""
    local.uploaded("a" * 24, video(1))
    local.plan("copies.plan")
    local.apply("copies.plan")
    gone = {"id": "gone", "match": "all", "delete": [{"in": "vault", "after": "1d"}]}
    local.write({"version": 1, "rules": [gone]})
    empties = ("--lift", "empty:store:vault")
    text = local.run("plan", "--out", "p.plan", *empties, expect=4).stdout
    assert "`--lift last_copies:rule:gone` lifts it" in text
    local.run("plan", "--out", "p.plan", *empties, "--lift", "last_copies:rule:gone")
    local.run("apply", "p.plan", "--approve-deletes", "1")
    assert local.content("uploads") and not local.content("vault")


@pytest.mark.parametrize(
    "lift", ["count:store:vault", "last_copies:rule:raw", "empty:store:uploads", "clock:vault"]
)
def test_a_lift_of_a_limit_that_is_not_breached_is_none_the_less_allowed(
    lift: str, local: Project
) -> None:
    local.run("plan", "--lift", lift)
