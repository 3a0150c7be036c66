"""`retainer test`: policy tests -> decisions through the same SQL as `plan` -> what did not come
out as expected."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from retainer.database import connect, fill, literal
from retainer.inventory.facts import open_facts, read_asset, whole_facts
from retainer.inventory.locate import MANY_OBJECTS
from retainer.model.calendar import zone_named
from retainer.model.catalog import RECORD
from retainer.model.moment import read_moment, write_moment
from retainer.model.outcome import Outcome, Turn
from retainer.model.rule import Match, Policies
from retainer.model.setting import RESERVED_STORES, Settings
from retainer.model.tables import ASSETS, COPIES, LISTINGS, create
from retainer.plan.decide import DECISIONS, decide, items_of
from retainer.plan.predicates import predicate
from retainer.policy.diagnostics import Diagnostic, nearest
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
            SELECT asset_id, store, decision, because, epoch(until), isinf(until), epoch(deadline),
                decision = 'delete' AND purged_by IS NOT NULL
                FROM decided
        """).fetchall()
        return {
            (asset, store): {
                "is": decision,
                "because": sorted(because),
                "until": "forever" if endless or until is None else _utc(until),
                "deadline": "none" if deadline is None else _utc(deadline),
                "versions": "all" if purged else "kept",
            }
            for asset, store, decision, because, until, endless, deadline, purged in rows
        }

    def touched(self, policies: Policies, now: datetime) -> frozenset[str]:
        """The ids of what matched, for certain or not, in the case that was decided last."""
        items = items_of(policies, now.replace(microsecond=0))
        rows = self.connection.execute("SELECT DISTINCT item_no FROM matched").fetchall()
        return frozenset(items[number - 1].id for (number,) in rows)

    def dates(self) -> list[tuple[datetime, str]]:
        """When each clause that matched begins and ends in the case that was decided last, and
        whose it is: to the first whole second that is not before it."""
        rows = self.connection.execute("""
            SELECT DISTINCT epoch(moment), rule FROM (
                SELECT begins AS moment, clause_no FROM standing
                UNION SELECT ends, clause_no FROM standing
            ) JOIN names USING (clause_no) WHERE isfinite(moment) ORDER BY ALL
        """).fetchall()
        return [(datetime.fromtimestamp(-(-at // 1), UTC), rule) for at, rule in rows]

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
        "versions": None if copy.get("versions") == "unread" else [],
        "by_hand": [] if copy.get("versions") == "by-hand" else None,
    }


def _utc(seconds: float) -> str:
    return write_moment(datetime.fromtimestamp(seconds, UTC))


def run_file(
    path: Path,
    name: str,
    own: Policies | None,
    decider: Decider,
    *,
    boundaries: bool = False,
    asked: Asked | None = None,
) -> tuple[list[Outcome], list[Diagnostic]]:
    """Run every test of a file. `own`: the project's policies, for tests that bring no rules of
    their own; `boundaries`: also decide one second before and at each date of each rule; `asked`:
    answers the file's assertions about real recordings, where there are facts to ask."""
    document, wrong = load_file(path, name)
    if wrong:
        return [], wrong
    known = ("version", "timezone", "tests", "assertions")
    if unknown := [key for key in document.data if key not in known]:
        return [], [_unknown(document, (key,), known) for key in unknown]
    claims = document.data.get("assertions")
    tests = document.data.get("tests", [] if claims else None)
    if not isinstance(tests, list) or not (tests or claims):
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
        outcome, mistakes = _run(document, number, test, timezone, own, decider, boundaries)
        outcomes += outcome
        wrong += mistakes
    found, mistakes = claimed(document, timezone, asked)
    return [*outcomes, *found], [*wrong, *mistakes]


@dataclass(frozen=True, slots=True)
class Claim:
    """An assertion about real recordings: of all that `match`, or may.

    `never`: decisions that none of them may come to, or `deleted`: nothing asks for a delete of
    them, now or later. `kept_in`: in so many stores at least, or in these.
    """

    match: Match
    never: tuple[str, ...]
    kept_in: int | tuple[str, ...]


Asked = Callable[[Claim], list[str]]
"""Answers an assertion with the ids of the recordings that it is not true of."""


_ASSET_KEYS = (
    *("id", "type", "status", "created_at", "room_id", "session_id", "job_id", "template_id"),
    *("user_id", "peer_id", "path", "size", "duration", "metadata", "thumbnails"),
    *("room", "rooms", "template", "templates", "not_known"),
)
_COPY_VERSIONS = ("unread", "by-hand")
_COPY_KEYS = ("asset", "in", "state", "locked", "versions")
_EXPECT_KEYS = ("asset", "in", "is", "until", "deadline", "because", "rule", "versions")


def _unknown(document: Document, spot: tuple[str | int, ...], known: Sequence[str]) -> Diagnostic:
    key = str(spot[-1])
    close = nearest(key, known)
    hint = f"did you mean `{close}`?" if close else f"one of {', '.join(known)}"
    return document.complain("P101", spot, f"unknown key `{key}`", hint, key=True)


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
    boundaries: bool,
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
    turns: tuple[Turn, ...] = ()
    try:
        decided = decider.decide(case, policies, now, timezone)
        touched = decider.touched(policies, now) if policies is own else frozenset()
        if boundaries:
            turns = tuple(_turns(case, policies, timezone, decider))
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
            touched,
            frozenset(str(wanted["in"]) for wanted in case["expect"]),
            turns,
        )
    ], []


def _turns(
    case: dict[str, Any], policies: Policies, timezone: str, decider: Decider
) -> Iterator[Turn]:
    """What changes at each date of each clause that matches, by deciding on both sides of it."""
    for at, rule in decider.dates():
        before = decider.decide(case, policies, at - timedelta(seconds=1), timezone)
        after = decider.decide(case, policies, at, timezone)
        for asset_id, store in sorted({*before, *after}):
            was, comes = (side.get((asset_id, store), _NOTHING) for side in (before, after))
            if (was["is"], was["because"]) != (comes["is"], comes["because"]):
                yield Turn(at, rule, asset_id, store, _decision(was), _decision(comes))


_NOTHING = {"is": "none", "because": [], "until": "forever", "deadline": "none", "versions": "kept"}


def _decision(found: dict[str, Any]) -> str:
    return str(found["is"]) + (f" ({', '.join(found['because'])})" if found["because"] else "")


def _misnamed(
    document: Document, number: int, case: dict[str, Any], policies: Policies
) -> Iterator[Diagnostic]:
    assets = [
        asset.get("id") if isinstance(asset, dict) else None for asset in case.get("assets") or []
    ]
    if not assets or not case.get("expect"):
        yield document.complain("T401", ("tests", number), "a test needs `assets` and `expect`")
    for section, known in (
        ("assets", _ASSET_KEYS),
        ("copies", _COPY_KEYS),
        ("expect", _EXPECT_KEYS),
    ):
        for n, item in enumerate(case.get(section) or []):
            for key in item if isinstance(item, dict) else ():
                if key not in known:
                    yield _unknown(document, ("tests", number, section, n, key), known)
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
            elif section == "copies" and item.get("versions", "unread") not in _COPY_VERSIONS:
                yield document.complain(
                    "P104", spot, f"`versions` of a copy is {' or '.join(_COPY_VERSIONS)}"
                )
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
        found = decided.get(pair, _NOTHING)
        for field in ("is", "until", "deadline", "because", "versions"):
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


_CLAIM_KEYS = ("name", "match", "never", "kept_in")
_EVER = "deleted"


def claimed(
    document: Document, timezone: str, asked: Asked | None
) -> tuple[list[Outcome], list[Diagnostic]]:
    """Answer the assertions of a file. Without facts they are only read, so that a mistake in one
    is told all the same."""
    outcomes: list[Outcome] = []
    wrong: list[Diagnostic] = []
    claims = document.data.get("assertions") or []
    if not isinstance(claims, list):
        return [], [document.complain("P103", ("assertions",), "assertions are a list")]
    for number, written in enumerate(claims):
        here, item = ("assertions", number), resolved(written)
        found, mistakes = _claim(document, here, written, timezone)
        wrong += mistakes
        if found is None or asked is None:
            continue
        offenders = asked(found)
        failure = (
            f"{len(offenders):,} recording{'s' if len(offenders) != 1 else ''} otherwise: "
            + ", ".join(offenders[:10])
            + (f" and {len(offenders) - 10:,} more" if len(offenders) > 10 else "")
        )
        line = document.span((*here, "name")).line
        outcomes.append(
            Outcome(
                str(item.get("name", f"assertion {number + 1}")),
                f"{document.file}:{line}",
                (failure,) if offenders else (),
            )
        )
    return outcomes, wrong


def _claim(
    document: Document, here: tuple[str | int, ...], item: Any, timezone: str
) -> tuple[Claim | None, list[Diagnostic]]:
    if not isinstance(item, dict):
        return None, [document.complain("P103", here, "an assertion is a mapping")]
    if unknown := [key for key in item if key not in _CLAIM_KEYS]:
        return None, [_unknown(document, (*here, key), _CLAIM_KEYS) for key in unknown]
    rule = {"id": "assertion", "match": item.get("match"), "at_most": "1d"}
    part = Document(document.file, {"version": 1, "rules": [rule]}, lines=document.lines)
    depth = len(here)
    for spans, into in ((document.values, part.values), (document.keys, part.keys)):
        into |= {
            ("rules", 0, *place[depth:]): span
            for place, span in spans.items()
            if place[:depth] == here
        }
    policies, found = parse_policies(part, timezone)
    if wrong := [each for each in found if not each.is_warning]:
        return None, wrong
    item = resolved(item)
    never = item.get("never", [])
    never = [never] if isinstance(never, str) else never
    allowed = (_EVER, *DECISIONS)
    if not isinstance(never, list) or any(each not in allowed for each in never):
        told = f"`never` is one of {', '.join(allowed)}"
        return None, [document.complain("P104", (*here, "never"), told)]
    kept = item.get("kept_in", 0)
    if not (
        isinstance(kept, int) or (isinstance(kept, list) and all(isinstance(s, str) for s in kept))
    ):
        told = "`kept_in` is a number of stores, or a list of them"
        return None, [document.complain("P104", (*here, "kept_in"), told)]
    if not never and not kept:
        told = "an assertion needs `never` or `kept_in`"
        return None, [document.complain("T401", here, told)]
    stores = tuple(kept) if isinstance(kept, list) else int(kept)
    return Claim(policies.rules[0].match, tuple(never), stores), []


@contextmanager
def ask(facts: Path, settings: Settings, policies: Policies, now: datetime) -> Iterator[Asked]:
    """A way to ask a snapshot about the recordings in it. Raises RetainerError where it cannot be
    read. One value, so that the snapshot is closed afterwards."""
    connection = open_facts(facts, settings)
    try:
        with whole_facts(facts):
            decide(connection, policies, now, settings.timezone)
            yield lambda claim: _offenders(connection, claim)
    finally:
        connection.close()


def _offenders(connection: duckdb.DuckDBPyConnection, claim: Claim) -> list[str]:
    """The recordings that match, or may, and of which an assertion is not true."""
    tests = []
    decisions = [each for each in claim.never if each != _EVER]
    if decisions:
        listed = ", ".join(map(literal, decisions))
        tests.append(
            f"asset_no IN (SELECT asset_no FROM decided WHERE decision::VARCHAR IN ({listed}))"
        )
    if _EVER in claim.never:
        tests.append(
            "asset_no IN (SELECT asset_no FROM member JOIN standing USING (cohort_no) "
            "WHERE kind IN ('delete', 'at_most', 'erasure'))"
        )
    kept = (
        "SELECT {} FROM member JOIN standing USING (cohort_no) "
        "WHERE member.asset_no = dated.asset_no AND kind = 'keep' AND certain AND ends > begins"
    )
    if isinstance(claim.kept_in, int):
        if claim.kept_in:
            tests.append(f"({kept.format('count(DISTINCT store)')}) < {claim.kept_in}")
    else:
        tests += [f"{literal(store)} NOT IN ({kept.format('store')})" for store in claim.kept_in]
    rows = connection.execute(
        f"SELECT asset_id FROM dated WHERE ({predicate(claim.match)}) IS NOT FALSE "
        f"AND ({' OR '.join(tests)}) ORDER BY asset_id"
    ).fetchall()
    return [asset_id for (asset_id,) in rows]
