"""decide.sql beside the reference, column by column, of cases with all that the SQL is given: also
what the format of decision cases does not say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import product
from random import Random
from typing import Any
from unittest.mock import patch

import generate
import pytest
import reference
from generate import Case, now_of, only, policies_of
from hypothesis import Phase, given, settings

from retainer.cases import Decider
from retainer.database import literal
from retainer.model.moment import write_moment
from retainer.model.rule import Policies
from retainer.plan import matching
from retainer.plan.decide import clauses_of, decide, doubt_of, items_of

Pair = tuple[str, str]
_NOWHERE = """
    CREATE OR REPLACE VIEW assets AS SELECT *,
        asset_no IN (SELECT asset_no FROM places WHERE store = 'hosted') AS lies_hosted,
        asset_no IN (SELECT asset_no FROM places WHERE store = 'elsewhere') AS lies_elsewhere,
        asset_id IN (FROM nowhere) AS lies_nowhere FROM facts
"""
COLUMNS = (
    *("there", "complete", "needed", "clause", "also", "doubt", "purged_by", "keep_until"),
    *("delete_from", "lock_until", "bytes"),
)


@cache
def examples() -> Sequence[Case]:
    found: list[Case] = []

    @settings(max_examples=40, phases=(Phase.generate,))
    @given(generate.cases(assets=120))
    def collect(case: Case) -> None:
        # not drawn: Hypothesis likes to draw one number again and again
        found.append(generate.enriched(case, Random(len(found))))

    collect()
    return found


def _in_sql(texts: Sequence[str]) -> str:
    return ", ".join(map(literal, texts))


def _word(value: bool | int | None) -> str:
    return "NULL" if value is None else str(value)


def _facts(case: Case, doubts: dict[str, str]) -> Iterator[str]:
    """The statements that give the tables what the format does not say."""
    nowhere = [asset["id"] for asset in case["assets"] if asset.get("nowhere")]
    yield "CREATE OR REPLACE TABLE nowhere (asset_id VARCHAR)"
    yield from (f"INSERT INTO nowhere VALUES ({literal(each)})" for each in nowhere)
    yield _NOWHERE
    for told in (False, None):
        these = [each["id"] for each in case["assets"] if each.get("settled", True) is told]
        if these:
            yield f"UPDATE facts SET settled = {_word(told)} WHERE asset_id IN ({_in_sql(these)})"
    if case["assets_unfinished"]:
        said = "NULL" if case["assets_unfinished"] == "unsaid" else "false"
        yield f"INSERT INTO listings (name, kind, complete) VALUES ('assets', 'assets', {said})"
    for copy in case["copies"]:
        changes = [
            f"{name} = {literal(copy[name]) if isinstance(copy[name], str) else _word(copy[name])}"
            for name in (
                *("partial", "superseded", "uncatalogued", "bytes", "shared", "lock_read"),
                *("owners_known", "complete"),
            )
            if name in copy
        ]
        if "locked_until" in copy and not copy.get("locked"):
            changes.append(f"locked_until = {literal(copy['locked_until'][:19])}::TIMESTAMP")
        if "in_doubt" in copy:
            changes.append(f"in_doubt = {literal(doubts[copy['in_doubt']])}")
        if "bytes_of_all" in copy:
            changes.append(f"versions = [{{'size': {copy['bytes_of_all'] - 1}}}, {{'size': 1}}]")
        if changes:
            yield (
                f"UPDATE places SET {', '.join(changes)} WHERE store = {literal(copy['in'])} AND "
                f"asset_no = (SELECT asset_no FROM facts WHERE asset_id = {literal(copy['asset'])})"
            )


def _doubts(policies: Policies) -> dict[str, str]:
    """What a copy remembers of each rule, and of one that there is not, by the id in a case."""
    return {rule.id: doubt_of(rule) for rule in policies.rules} | {"another": "another@1"}


def lay(case: Case, decider: Decider) -> None:
    """Put the facts of a case where the SQL finds them."""
    policies = policies_of(case)
    decider.decide(case, policies, now_of(case), case["timezone"])
    for statement in _facts(case, _doubts(policies)):
        decider.connection.execute(statement)


def found(case: Case, decider: Decider) -> dict[Pair, dict[str, Any]]:
    """What the SQL says of every pair of the case that lies there, and of every clash."""
    policies, now = policies_of(case), now_of(case)
    items = items_of(policies, now)
    with patch.object(matching, "FEW", 0 if case["by_name"] else matching.FEW):
        decide(decider.connection, policies, now, case["timezone"])
    cursor = decider.connection.execute("FROM decided")
    names = [column[0] for column in cursor.description]
    clauses = list(clauses_of(items))
    rules = {doubt: name for name, doubt in _doubts(policies).items()}

    def clause(number: int | None) -> reference.Clause | None:
        each = clauses[number - 1] if number else None
        return each and (each.kind, each.item.id, each.store)

    rows = {}
    for values in cursor.fetchall():
        row = dict(zip(names, values, strict=True))
        pair = row["asset_id"], row["store"]
        assert pair not in rows
        rows[pair] = row | {
            # people are shown moments to the second
            "until": row["until"] and row["until"].replace(microsecond=0),
            "deadline": row["deadline"] and row["deadline"].replace(microsecond=0),
            "because": sorted(row["because"]),
            "clause": clause(row["clause_no"]),
            "also": clause(row["also_no"]),
            "purged_by": clause(row["purged_by"]),
            "doubt": row["doubt"] and rules[row["doubt"]],
        }
    return rows | {
        (items[ceiling - 1].id, items[keep - 1].id): {"decision": "clash", "assets": assets}
        for ceiling, keep, assets in decider.connection.execute("FROM clashes").fetchall()
    }


def wanted(case: Case) -> dict[Pair, dict[str, Any]]:
    """What the reference says of every pair, in the columns that it knows; and of every clash."""

    def shown(value: Any) -> Any:
        return value.replace(tzinfo=None) if isinstance(value, datetime) else value

    rows = {}
    for pair, (decision, row) in reference.decide_rows(case, case["timezone"]).items():
        until = reference.FOREVER if decision.until == "forever" else decision.until
        deadline = None if decision.deadline == "none" else decision.deadline
        rows[pair] = {name: shown(value) for name, value in row.items()} | {
            "decision": decision.is_,
            "because": sorted(decision.because),
            "until": shown(until and until.replace(microsecond=0)),
            "deadline": shown(deadline),
        }
    return rows | {
        pair: {"decision": "clash", "assets": assets}
        for pair, assets in reference.clashes(case, case["timezone"]).items()
    }


def differences(
    case: Case, by_sql: dict[Pair, dict[str, Any]], by_reference: dict[Pair, dict[str, Any]]
) -> list[str]:
    """What the SQL says otherwise. A pair of which nothing is decided may be left out."""
    wrong = [f"{pair}: not in the reference" for pair in by_sql.keys() - by_reference.keys()]
    for pair, says in by_reference.items():
        row = by_sql.get(pair)
        if row is None:
            wrong += [f"{pair}: no row"] if says["decision"] != "none" else []
            continue
        wrong += [
            f"{pair}: {name} is {row.get(name)}, not {value}: {only(case, pair[0])}"
            for name, value in says.items()
            if row.get(name) != value
        ]
    return wrong


def disagreements(case: Case, decider: Decider) -> list[str]:
    """The first few differences of a case."""
    lay(case, decider)
    return differences(case, found(case, decider), wanted(case))[:3]


@pytest.mark.slow
def test_the_sql_says_of_every_pair_what_the_reference_does_column_by_column() -> None:
    seen: Counter[Any] = Counter()
    decider = Decider()
    decider.connection.execute("SET threads = 1")
    for case in examples():
        assert disagreements(case, decider) == []
        for row in wanted(case).values():
            seen.update([row["decision"], *row.get("because", ())])
            seen.update(name for name in COLUMNS if row.get(name) not in (None, False))
    reached = {
        "uncatalogued",
        "accepted",
        "partial",
        "shared",
        "not-kept",
        "doubtful",
        "clash",
        *COLUMNS,
    }
    assert not {name for name in reached if seen[name] < 3}, "the examples reach every column"


AGES = [timedelta(days=days) for days in (1, 7, 11, 13, 15, 45)]
BESIDE = [timedelta(microseconds=micros) for micros in (-1_000_000, -1, 0, 1, 1_000_000)]


def beside_every_age() -> Iterator[Case]:
    """Recordings a second, a microsecond and nothing beside every age at which less is believed or
    asked for, in all that 100ms may say of them."""
    now = datetime(2026, 11, 22, 12, tzinfo=UTC)
    told = list(
        product(
            AGES,
            BESIDE,
            (False, True),
            ((), ("hosted",), ("elsewhere",)),
            ("completed", "failed", "processing"),
            ("s3://b/x.mp4", None),
        )
    )
    later, at_once = {"for": "15d", "after": "7d"}, {"for": "15d"}
    for in_vault, unread, uploads in product(
        (None, "complete", "partial"), (False, True), ([], ["cold"])
    ):
        in_cold = {"in": "cold", **(at_once if uploads else later)}
        assets, copies = [], []
        for number, (age, aside, nowhere, sources, status, path) in enumerate(told):
            asset = {
                "id": f"a{number}",
                "type": "chat",
                "status": status,
                "created_at": (now - age + aside).isoformat(timespec="microseconds"),
                "path": path,
                "size": 1000,
                "nowhere": nowhere,
            }
            assets.append(asset | ({"not_known": ["room"]} if unread else {"room": "x"}))
            copies += [{"asset": asset["id"], "in": place} for place in sources]
            if in_vault:
                lies = {"asset": asset["id"], "in": "vault", "state": in_vault}
                copies.append(lies | ({"in_doubt": "k"} if in_vault == "complete" else {}))
        yield generate.Generated(
            timezone="UTC",
            now=write_moment(now),
            rules=[
                {"id": "k", "match": {"room": "y"}, "keep": [{"in": "vault", "for": "1y"}]},
                {"id": "c", "match": "all", "keep": [in_cold]},
            ],
            uploads=uploads,
            assets=assets,
            copies=copies,
            assets_unfinished=False,
            by_name=False,
        )


@pytest.mark.slow
def test_beside_every_age_the_sql_says_what_the_reference_does() -> None:
    decider = Decider()
    for case in beside_every_age():
        assert disagreements(case, decider) == []


def handed_over() -> Case:
    """Recordings that one keep hands to the next, on the days around it; in a store of which nothing
    was seen, for a hold and an erasure too."""
    now = datetime(2026, 11, 22, tzinfo=UTC)
    days = [start + more for start in (30, 60, 90) for more in range(-2, 3)]
    told = list(product(days, (0, 12), ("p", "q", "r", "s"), ("", "alpha", "beta", "gamma"), "hc"))
    assets, copies = [], []
    for number, (day, hour, room, place, kind) in enumerate(told):
        created = now - timedelta(days=day) + timedelta(hours=hour)
        asset = {"id": f"a{number}", "created_at": write_moment(created), "size": 1, "room": room}
        assets.append(asset | {"type": "chat" if kind == "c" else "transcript"})
        copies += [{"asset": asset["id"], "in": place}] if place else []
        copies += [{"asset": asset["id"], "in": "hosted"}] if day < 40 else []
    handing = [
        {"in": "alpha", "for": "30d"},
        {"in": "beta", "after": "30d", "for": "60d"},
        {"in": "gamma", "after": "60d", "for": "90d"},
    ]
    hours = [
        {"in": "alpha", "for": "720h"},
        {"in": "beta", "after": "720h", "for": "1440h"},
        {"in": "beta", "after": "1440h", "for": "2160h"},
    ]
    held = {"match": {"room": ["q", "r"]}, "in": "delta", "why": "w"}
    until = {"match": {"room": "s"}, "in": "beta", "why": "w", "released": "2026-12-22"}
    return generate.Generated(
        timezone="UTC",
        now=write_moment(now),
        rules=[
            {"id": "k", "match": {"type": "chat"}, "keep": handing},
            {"id": "h", "match": {"type": "transcript"}, "keep": hours},
            {"id": "d", "match": {"room": "r"}, "keep": [{"in": "delta", "for": "1y"}]},
        ],
        holds=[{"id": "x", **held}, {"id": "y", **until}],
        erasures=[{"id": "e", "match": {"room": "r"}, "why": "w"}],
        unfinished=["delta"],
        assets=assets,
        copies=copies,
        assets_unfinished=False,
        by_name=False,
    )


def test_what_one_keep_hands_to_the_next_is_never_without_both() -> None:
    assert disagreements(handed_over(), Decider()) == []


def two_of_each() -> Case:
    """Recordings of every age, for which two of everything ask at the same moment."""
    now = datetime(2026, 11, 22, 12, tzinfo=UTC)
    ages = (None, 10, 40, 300, 400, 800, 1200)
    lies = (
        {},
        {"alpha": {}},
        {"beta": {}},
        {"alpha": {"state": "partial"}, "beta": {}},
        {"alpha": {}, "beta": {"bytes_of_all": 300, "bytes": 100}, "gamma": {}},
        {"beta": {"locked": True}, "gamma": {"in_doubt": "u1"}},
    )
    told = list(product(ages, ("x", "y", "z", "u", None), lies, ((), ("hosted",))))
    assets, copies = [], []
    for number, (age, room, places, sources) in enumerate(told):
        created = None if age is None else write_moment(now - timedelta(days=age))
        asset = {"id": f"a{number}", "created_at": created, "size": 1000, "room": room}
        assets.append(asset | ({} if room else {"not_known": ["room"]}))
        copies += [{"asset": asset["id"], "in": store} | of for store, of in places.items()]
        copies += [{"asset": asset["id"], "in": place} for place in sources]

    def twice(name: str, **of: Any) -> list[dict[str, Any]]:
        return [{"id": f"{name}{number}", **of} for number in (1, 2)]

    long = [{"in": "alpha", "for": "3y"}, {"in": "beta", "for": "3y", "basis": "legal"}]
    clear = {"in": "beta", "after": "30d"}
    return generate.Generated(
        timezone="UTC",
        now=write_moment(now),
        rules=twice("k", match="all", keep=[{"in": "alpha", "for": "1y"}])
        + twice("then", match={"room": "z"}, keep=[{"in": "gamma", "for": "30d"}], then="delete")
        + twice("d", match={"room": ["z", "y"]}, delete=[clear, clear | {"versions": "all"}])
        + twice("top", match={"room": ["x", "z"]}, at_most="2y")
        + twice("u", match={"room": "q"}, keep=[{"in": "gamma", "for": "1y"}])
        + twice("c", match={"room": "u"}, keep=long, cooled=True)
        + twice("long", match={"room": "z"}, keep=long),
        holds=twice("h", match={"room": "x"}, why="w", **{"in": "alpha"}),
        erasures=twice("e", match={"room": "y"}, why="w"),
        assets=assets,
        copies=copies,
        assets_unfinished=False,
        by_name=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("unfinished", [False, True, "unsaid"])
@pytest.mark.parametrize("uploads", [[], ["alpha"]])
def test_of_two_that_ask_at_the_same_moment_the_first_is_named(
    unfinished: bool | str, uploads: list[str]
) -> None:
    told = {"assets_unfinished": unfinished, "uploads": uploads}
    assert disagreements(generate.Generated(two_of_each() | told), Decider()) == []


def every_case() -> Iterator[Case]:
    """Those that notice most in the shortest time first."""
    yield two_of_each()
    for uploads in ([], ["alpha"]):
        told = {"assets_unfinished": "unsaid", "uploads": uploads}
        yield generate.Generated(two_of_each() | told)
    yield handed_over()
    yield from examples()
    yield from beside_every_age()
