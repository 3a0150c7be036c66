"""`retainer test`: policy tests -> decisions through the same SQL as `plan` -> what did not come
out as expected."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from retainer.database import connect, fill
from retainer.inventory.facts import read_asset
from retainer.inventory.locate import MANY_OBJECTS
from retainer.model.calendar import zone_named
from retainer.model.catalog import RECORD
from retainer.model.moment import read_moment, write_moment
from retainer.model.outcome import Outcome
from retainer.model.rule import Policies
from retainer.model.setting import RESERVED_STORES
from retainer.model.tables import ASSETS, COPIES, LISTINGS, create
from retainer.plan.decide import DECISIONS, decide
from retainer.policy.diagnostics import Diagnostic
from retainer.policy.load import Document, load_file, resolved
from retainer.policy.parse import parse_policies


class Decider:
    """Decides test cases one after another on one DuckDB connection."""

    def __init__(self) -> None:
        self.connection = connect()
        for name, columns in {"facts": ASSETS, "places": COPIES, "listings": LISTINGS}.items():
            self.connection.execute(create(name, columns))
        self.connection.execute("""
            CREATE VIEW copies AS FROM places WHERE store NOT IN ('hosted', 'elsewhere');
            CREATE VIEW assets AS SELECT *,
                asset_no IN (SELECT asset_no FROM places WHERE store = 'hosted') AS lies_hosted,
                asset_no IN (SELECT asset_no FROM places
                    WHERE store = 'elsewhere') AS lies_elsewhere,
                false AS lies_nowhere FROM facts
        """)
        self.connection.execute(
            "CREATE TABLE stores (store VARCHAR, scheme VARCHAR, rank INTEGER, filled BOOLEAN)"
        )
        self.connection.execute(create("staged", RECORD))

    def decide(
        self, case: dict[str, Any], policies: Policies, now: datetime, timezone: str
    ) -> dict[tuple[str, str], dict[str, Any]]:
        """Every decision of a case by (asset id, store); moments as text, `forever` and `none`
        where there is none."""
        connection = self.connection
        for table in ("facts", "places", "listings", "stores", "staged"):
            connection.execute(f"DELETE FROM {table}")
        self._assets(case.get("assets") or [])
        copies = case.get("copies") or []
        unfinished = set(case.get("unfinished") or [])
        uploads = set(case.get("uploads") or [])
        numbers = dict(connection.execute("SELECT asset_id, asset_no FROM assets").fetchall())
        fill(connection, "places", COPIES, (_copy_row(copy, numbers) for copy in copies))
        names = policies.stores_named() | {copy["in"] for copy in copies} | unfinished
        stores = sorted(names - set(RESERVED_STORES))
        for rank, store in enumerate(stores):
            connection.execute(
                "INSERT INTO stores VALUES (?, 'test', ?, ?)", [store, rank, store not in uploads]
            )
            connection.execute(
                "INSERT INTO listings (name, kind, complete, can_lock) VALUES (?, 'store', ?, "
                "false)",
                [store, store not in unfinished],
            )
        decide(connection, policies, now, timezone)
        rows = connection.execute("""
            SELECT asset_id, store, decision, because, epoch(until), isinf(until), epoch(deadline)
                FROM decided
        """).fetchall()
        return {
            (asset, store): {
                "is": decision,
                "because": sorted(because),
                "until": "forever" if endless or until is None else _utc(until),
                "deadline": "none" if deadline is None else _utc(deadline),
            }
            for asset, store, decision, because, until, endless, deadline in rows
        }

    def _assets(self, assets: list[dict[str, Any]]) -> None:
        def rows() -> Iterator[dict[str, Any]]:
            for asset in assets:
                row, _ = read_asset(asset)
                if row is None:
                    raise ValueError("an asset without an id")
                unread = [*(row["not_known"] or []), *asset.get("not_known", [])]
                row |= {
                    name: asset.get(name)
                    for name in ("room", "template", "template_id", "rooms", "templates")
                } | dict.fromkeys(asset.get("not_known", []))
                if "metadata" in unread:
                    unread += [name for name in ("user_id", "peer_id") if row[name] is None]
                if {"created", "created_at"} & set(unread):
                    row["created_at"] = None
                yield row | {"not_known": unread or None}

        fill(self.connection, "staged", RECORD, rows())
        picked = ", ".join(
            name
            if name not in ("asset_no", "many")
            else "row_number() OVER (ORDER BY asset_id)"
            if name == "asset_no"
            else MANY_OBJECTS
            for name in ASSETS
        )
        self.connection.execute(f"INSERT INTO facts SELECT {picked} FROM staged")


def _copy_row(copy: dict[str, Any], numbers: dict[str, int]) -> dict[str, Any]:
    return dict.fromkeys(COPIES) | {
        "asset_no": numbers[copy["asset"]],
        "store": copy["in"],
        "complete": copy.get("state", "complete") == "complete",
        "locked_until": "infinity" if copy.get("locked") else None,
        "lock_read": True,
        "owners_known": True,
    }


def _utc(seconds: float) -> str:
    return write_moment(datetime.fromtimestamp(seconds, UTC))


def run_file(
    path: Path, name: str, own: Policies | None, decider: Decider
) -> tuple[list[Outcome], list[Diagnostic]]:
    """Run every test of a file. `own`: the project's policies, for tests that bring no rules of
    their own."""
    document, wrong = load_file(path, name)
    if wrong:
        return [], wrong
    tests = document.data.get("tests")
    if not isinstance(tests, list) or not tests:
        return [], [
            document.complain(
                "T401", (), "the file has no tests", "write at least one under `tests:`"
            )
        ]
    timezone = str(document.data.get("timezone", "UTC"))
    try:
        zone_named(timezone)
    except ValueError:
        return [], [document.complain("S305", ("timezone",), f"`{timezone}` is not a time zone")]
    outcomes = []
    for number, test in enumerate(tests):
        outcome, mistakes = _run(document, number, test, timezone, own, decider)
        outcomes += outcome
        wrong += mistakes
    return outcomes, wrong


_TEST_KEYS = {
    "name",
    "now",
    "rules",
    "holds",
    "erasures",
    "assets",
    "copies",
    "unfinished",
    "uploads",
    "expect",
    "exactly",
}


def _run(
    document: Document,
    number: int,
    test: Any,
    timezone: str,
    own: Policies | None,
    decider: Decider,
) -> tuple[list[Outcome], list[Diagnostic]]:
    here = ("tests", number)
    if not isinstance(test, dict):
        return [], [document.complain("P103", here, "a test is a mapping")]
    if unknown := [key for key in test if key not in _TEST_KEYS]:
        return [], [
            document.complain("P101", (*here, key), f"unknown key `{key}`", key=True)
            for key in unknown
        ]
    case = resolved(test)
    now = read_moment(str(case.get("now", "")))
    if now is None:
        return [], [
            document.complain(
                "P213", (*here, "now"), "a test needs `now`, such as 2026-11-22T00:00:00Z"
            )
        ]
    brought = {key: test[key] for key in ("rules", "holds", "erasures") if key in test}
    if brought:
        part = Document(document.file, {"version": 1, **brought}, lines=document.lines)
        part.values = {
            place[2:]: span for place, span in document.values.items() if place[:2] == here
        }
        part.keys = {place[2:]: span for place, span in document.keys.items() if place[:2] == here}
        policies, found = parse_policies(part, timezone)
        if wrong := [each for each in found if not each.is_warning]:
            return [], wrong
    elif own is not None:
        policies = own
    else:
        return [], [
            document.complain(
                "T401", here, "the test brings no rules, and there are no policies here to test"
            )
        ]
    if wrong := list(_misnamed(document, number, case, policies)):
        return [], wrong
    try:
        decided = decider.decide(case, policies, now, timezone)
    except (ValueError, TypeError, AttributeError, KeyError, duckdb.Error) as error:
        return [], [
            document.complain("T401", here, f"the test cannot be run: {str(error).splitlines()[0]}")
        ]
    place = document.span((*here, "name"))
    return [
        Outcome(
            str(case.get("name", f"test {number + 1}")),
            f"{document.file}:{place.line}",
            tuple(_compared(case, decided)),
        )
    ], []


def _misnamed(
    document: Document, number: int, case: dict[str, Any], policies: Policies
) -> Iterator[Diagnostic]:
    assets = [
        asset.get("id") if isinstance(asset, dict) else None for asset in case.get("assets") or []
    ]
    if not assets or not case.get("expect"):
        yield document.complain("T401", ("tests", number), "a test needs `assets` and `expect`")
    for n, asset in enumerate(assets):
        if not isinstance(asset, str) or assets.count(asset) > 1:
            yield document.complain(
                "T401", ("tests", number, "assets", n), "an asset needs an id of its own"
            )
    for section in ("copies", "expect"):
        for n, item in enumerate(case.get(section) or []):
            spot = ("tests", number, section, n)
            if not isinstance(item, dict) or not isinstance(item.get("in"), str):
                yield document.complain("T401", spot, "say which `asset`, and `in` which store")
            elif item.get("asset") not in assets:
                yield document.complain(
                    "T401", spot, f"the asset `{item.get('asset')}` does not exist in this test"
                )
            elif section == "copies" and item.get("state", "complete") not in (
                "complete",
                "partial",
            ):
                yield document.complain("P104", spot, "`state` is complete or partial")
            elif section == "expect" and item.get("is") not in DECISIONS:
                yield document.complain("P104", spot, f"`is` is one of {', '.join(DECISIONS)}")
            elif "rule" in item and item["rule"] not in {each.id for each in policies.items()}:
                yield document.complain(
                    "T401", spot, f"the rule `{item['rule']}` does not exist in this test"
                )


def _compared(
    case: dict[str, Any], decided: dict[tuple[str, str], dict[str, Any]]
) -> Iterator[str]:
    named = set()
    for wanted in case["expect"]:
        pair = (wanted["asset"], wanted["in"])
        named.add(pair)
        found = decided.get(
            pair, {"is": "none", "because": [], "until": "forever", "deadline": "none"}
        )
        for field in ("is", "until", "deadline", "because"):
            if field not in wanted:
                continue
            expected = sorted(wanted[field]) if field == "because" else str(wanted[field])
            if field in ("until", "deadline") and (moment := read_moment(str(expected))):
                expected = write_moment(moment)
            if found[field] != expected:
                yield (
                    f"{pair[0]} in {pair[1]}: {field} is {_said(found[field])}, expected "
                    f"{_said(expected)}"
                )
    if case.get("exactly"):
        for pair, found in sorted(decided.items()):
            if pair not in named and found["is"] != "none":
                yield (
                    f"{pair[0]} in {pair[1]}: {found['is']} is not named, and the test says "
                    "`exactly`"
                )


def _said(value: Any) -> str:
    return ", ".join(value) or "nothing" if isinstance(value, list) else str(value)
