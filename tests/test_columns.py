"""decide.sql beside the reference, column by column, of cases with all that the SQL is given: also
what the format of decision cases does not say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cache
from typing import Any

import generate
import reference
from generate import Case, now_of, only, policies_of
from hypothesis import Phase, given, settings

from retainer.cases import Decider
from retainer.database import literal
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
    @given(generate.rich_cases())
    def collect(case: Case) -> None:
        found.append(case)

    collect()
    return found


def _facts(case: Case, doubts: dict[str, str]) -> Iterator[str]:
    """The statements that give the tables what the format does not say."""
    nowhere = [asset["id"] for asset in case["assets"] if asset.get("nowhere")]
    yield "CREATE OR REPLACE TABLE nowhere (asset_id VARCHAR)"
    yield from (f"INSERT INTO nowhere VALUES ({literal(each)})" for each in nowhere)
    yield _NOWHERE
    for asset in case["assets"]:
        settled = str(asset.get("settled", True))
        yield f"UPDATE facts SET settled = {settled} WHERE asset_id = {literal(asset['id'])}"
    if case["assets_unfinished"]:
        yield "INSERT INTO listings (name, kind, complete) VALUES ('assets', 'assets', false)"
    for copy in case["copies"]:
        changes = [
            f"{name} = {copy[name] if isinstance(copy[name], bool | int) else literal(copy[name])}"
            for name in (
                *("partial", "superseded", "uncatalogued", "bytes", "shared", "lock_read"),
                "owners_known",
            )
            if name in copy
        ]
        if "in_doubt" in copy:
            changes.append(f"in_doubt = {literal(doubts.get(copy['in_doubt'], 'another@1'))}")
        if "bytes_of_all" in copy:
            changes.append(f"versions = [{{'size': {copy['bytes_of_all'] - 1}}}, {{'size': 1}}]")
        if changes:
            yield (
                f"UPDATE places SET {', '.join(changes)} WHERE store = {literal(copy['in'])} AND "
                f"asset_no = (SELECT asset_no FROM facts WHERE asset_id = {literal(copy['asset'])})"
            )


def lay(case: Case, decider: Decider) -> None:
    """Put the facts of a case where the SQL finds them."""
    policies = policies_of(case)
    decider.decide(case, policies, now_of(case), case["timezone"])
    for statement in _facts(case, {rule.id: doubt_of(rule) for rule in policies.rules}):
        decider.connection.execute(statement)


def found(case: Case, decider: Decider) -> dict[Pair, dict[str, Any]]:
    """What the SQL says of every pair of the case that lies there."""
    policies, now = policies_of(case), now_of(case)
    doubts = {rule.id: doubt_of(rule) for rule in policies.rules}
    decide(decider.connection, policies, now, case["timezone"])
    cursor = decider.connection.execute("FROM decided")
    names = [column[0] for column in cursor.description]
    clauses = list(clauses_of(items_of(policies, now.replace(microsecond=0))))
    rules = {doubt: name for name, doubt in doubts.items()} | {"another@1": "another", None: None}

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
            "doubt": rules[row["doubt"]],
        }
    return rows


def wanted(case: Case) -> dict[Pair, dict[str, Any]]:
    """What the reference says of every pair, in the columns that it knows."""

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
    return rows


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
            f"{pair}: {name} is {row[name]}, not {value}: {only(case, pair[0])}"
            for name, value in says.items()
            if row[name] != value
        ]
    return wrong


def test_the_sql_says_of_every_pair_what_the_reference_does_column_by_column() -> None:
    seen: Counter[Any] = Counter()
    decider = Decider()
    decider.connection.execute("SET threads = 1")
    for case in examples():
        lay(case, decider)
        says = wanted(case)
        assert differences(case, found(case, decider), says)[:3] == []
        for row in says.values():
            seen.update([row["decision"], *row["because"]])
            seen.update(name for name in COLUMNS if row.get(name) not in (None, False))
    reached = {"uncatalogued", "accepted", "partial", "shared", "not-kept", "doubtful", *COLUMNS}
    assert not {name for name in reached if seen[name] < 3}, "the examples reach every column"
