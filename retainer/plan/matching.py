"""What matches what: of each asset the rules, holds and erasures that match it, for certain or not,
without looking at all of them.

A few items are looked at one by one, as expressions over the assets. Where there are many, most of
them name something (a room, an id, the beginning of a name): those are joined by what they name, so
that thousands of rules cost little more than a dozen. What a match asks besides that name is then
looked at only where the name fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from duckdb import DuckDBPyConnection

from retainer.database import literal, temp_table
from retainer.model.rule import NAME_FACTS, TEXT_FACTS, AllOf, Everything, Glob, Match, OneOf
from retainer.plan.predicates import predicate

FEW = 64
"""So many items are looked at one by one."""
AT_ONCE = 64
"""So many in one statement: DuckDB's time for it grows with the square of the expressions in it."""


@dataclass(frozen=True, slots=True)
class Named:
    """An item that matches only what has one of these values (or beginnings) of a fact, and of that
    what `rest` matches."""

    item_no: int
    fact: str
    values: tuple[str, ...]
    is_prefix: bool
    rest: Match


@dataclass(frozen=True, slots=True)
class Matching:
    """How an asset's matches are written: `told`, SQL over `dated` and what `joins` adds to it, so
    that assets alike in all their matches have one text. The tables that read such a text: items,
    named (decide.sql, "matched")."""

    told: str
    joins: str


def make_matches(connection: DuckDBPyConnection, matches: Sequence[Match]) -> Matching:
    """Find out from the view `dated` what matches what; `matches` are numbered from 1."""
    named = _all_named(matches)
    by_name = {each.item_no for each in named}
    singly = [number for number in range(1, len(matches) + 1) if number not in by_name]
    rests = list(dict.fromkeys(each.rest for each in named))
    rest_no = {rest: number for number, rest in enumerate(rests, 1)}
    temp_table(
        connection,
        "items",
        {"item_no": "INTEGER", "position": "INTEGER"},
        [(number, place) for place, number in enumerate(singly, 1)],
    )
    temp_table(
        connection,
        "named",
        {"item_no": "INTEGER", "fact": "VARCHAR", "rest_no": "INTEGER"},
        [(each.item_no, each.fact, rest_no[each.rest]) for each in named],
    )
    if len(singly) <= FEW and not named:
        return Matching(_concat(matches), "")
    told, joins = _letters(
        connection, "letters", [matches[number - 1] for number in singly], "dated"
    )
    if not named:
        return Matching(told, joins)
    temp_table(
        connection,
        "namings",
        {"item_no": "INTEGER", "fact": "VARCHAR", "is_prefix": "BOOLEAN", "value": "VARCHAR"},
        [
            (each.item_no, each.fact, each.is_prefix, value)
            for each in named
            for value in each.values
        ],
    )
    facts = sorted({each.fact for each in named})
    _hits(connection, facts, rests)
    _unread(connection, facts, rests)
    told = (
        f"concat_ws('|', {told}, coalesce(hits.codes, ''), coalesce(unread.facts, ''), "
        "coalesce(unread.letters, ''))"
    )
    return Matching(
        told, f"{joins} LEFT JOIN hits USING (asset_no) LEFT JOIN unread USING (asset_no)"
    )


def named_items(matches: Sequence[Match]) -> frozenset[int]:
    """The numbers, from 1, of those that are joined by what they name."""
    return frozenset(each.item_no for each in _all_named(matches))


def _all_named(matches: Sequence[Match]) -> list[Named]:
    if len(matches) <= FEW:
        return []
    return [each for number, match in enumerate(matches, 1) if (each := _named(number, match))]


def _named(number: int, match: Match) -> Named | None:
    parts = match.parts if isinstance(match, AllOf) else (match,)
    for place, part in sorted(enumerate(parts), key=lambda each: _worth(each[1])):
        rest = parts[:place] + parts[place + 1 :]
        others: Match = Everything() if not rest else rest[0] if len(rest) == 1 else AllOf(rest)
        match part:
            case OneOf(fact=fact, values=values) if fact in TEXT_FACTS and fact not in (
                "type",
                "status",
            ):
                return Named(number, fact, values, False, others)
            case Glob(fact=fact, patterns=patterns) if fact in NAME_FACTS and not any(
                set(each) & set("*?[") for each in patterns
            ):
                return Named(number, fact, patterns, False, others)
            case Glob(fact=fact, patterns=patterns) if fact in NAME_FACTS and all(
                len(each) > 1 and each.endswith("*") and not set(each[:-1]) & set("*?[")
                for each in patterns
            ):
                return Named(number, fact, tuple(each[:-1] for each in patterns), True, others)
    return None


def _worth(part: Match) -> int:
    """Ids tell more than names, and names more than their beginnings."""
    return 0 if isinstance(part, OneOf) else 1


def _letter(match: Match) -> str:
    """SQL: y, n, or ? for "not certain"."""
    return f"CASE ({predicate(match)}) WHEN true THEN 'y' WHEN false THEN 'n' ELSE '?' END"


def _concat(matches: Sequence[Match]) -> str:
    return f"concat({', '.join(map(_letter, matches))})" if matches else "''"


def _letters(
    connection: DuckDBPyConnection, table: str, matches: Sequence[Match], assets: str
) -> tuple[str, str]:
    """Tables of letters, a few matches each, and the SQL of all letters of an asset, with the joins
    it needs."""
    chunks = [matches[start : start + AT_ONCE] for start in range(0, len(matches), AT_ONCE)]
    for number, chunk in enumerate(chunks):
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE {table}_{number} AS SELECT asset_no, {_concat(chunk)} "
            f"AS letters FROM {assets}"
        )
    told = ", ".join(f"{table}_{number}.letters" for number in range(len(chunks)))
    return f"concat({told})" if chunks else "''", " ".join(
        f"JOIN {table}_{number} USING (asset_no)" for number in range(len(chunks))
    )


def _hits(connection: DuckDBPyConnection, facts: Sequence[str], rests: Sequence[Match]) -> None:
    """hits(asset_no, codes): of each asset the items that it has the name of, as text: twice their
    number, and one more where it is certain."""
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE fits (asset_no INTEGER, item_no INTEGER, name VARCHAR, names "
        "INTEGER)"
    )
    for fact in facts:
        known = f"NOT coalesce(list_contains(not_known, {literal(fact)}), false)"
        several = f"{fact}s" if fact in NAME_FACTS else "NULL::VARCHAR[]"
        # What was seen under several names has an item's name for certain only where all of them
        # are such.
        lengths = [
            row[0]
            for row in connection.execute(
                "SELECT DISTINCT CASE WHEN is_prefix THEN length(value) END FROM namings WHERE "
                "fact = ? ORDER BY ALL",
                [fact],
            ).fetchall()
        ]
        for length in lengths:
            told = (
                "value = name"
                if length is None
                else f"value = left(name, {length}) AND length(name) >= {length}"
            )
            which = "NOT is_prefix" if length is None else f"is_prefix AND length(value) = {length}"
            connection.execute(f"""
                INSERT INTO fits
                WITH called AS (
                    SELECT asset_no, unnest(coalesce({several}, [nfc_normalize({fact})])) AS name,
                        coalesce(len({several}), 1) AS names
                    FROM dated WHERE {known} AND ({fact} IS NOT NULL OR {several} IS NOT NULL)
                )
                SELECT asset_no, item_no, name, names FROM called
                    JOIN (FROM namings WHERE fact = {literal(fact)} AND {which}) AS named ON {told}
            """)
    connection.execute("""
        CREATE OR REPLACE TEMP TABLE fitting AS
        SELECT asset_no, item_no, count(DISTINCT name) = any_value(names) AS certain,
            any_value(rest_no) AS rest_no
        FROM fits JOIN named USING (item_no) GROUP BY asset_no, item_no
    """)
    for start in range(0, len(rests), AT_ONCE):
        chunk = [
            (number, rest)
            for number, rest in enumerate(rests[start : start + AT_ONCE], start + 1)
            if not isinstance(rest, Everything)
        ]
        if chunk:
            cases = " ".join(f"WHEN {number} THEN {_letter(rest)}" for number, rest in chunk)
            numbers = ", ".join(str(number) for number, _ in chunk)
            connection.execute(f"""
                CREATE OR REPLACE TEMP TABLE fitting AS
                SELECT asset_no, item_no, certain AND coalesce(told, 'y') = 'y' AS certain, rest_no
                FROM fitting LEFT JOIN (
                    SELECT asset_no, rest_no, CASE rest_no {cases} END AS told
                    FROM dated JOIN (SELECT DISTINCT asset_no, rest_no FROM fitting
                        WHERE rest_no IN ({numbers})) AS pair USING (asset_no)
                ) AS looked USING (asset_no, rest_no)
                WHERE coalesce(told, 'y') <> 'n'
            """)
    connection.execute("""
        CREATE OR REPLACE TEMP TABLE hits AS
        SELECT asset_no, string_agg((item_no * 2 + certain::INTEGER)::VARCHAR,
            ' ' ORDER BY item_no) AS codes FROM fitting GROUP BY asset_no
    """)


def _unread(connection: DuckDBPyConnection, facts: Sequence[str], rests: Sequence[Match]) -> None:
    """unread(asset_no, facts, letters): the assets of which a name could not be read, and what
    matches of what is asked besides it."""
    told = ", ".join(
        f"CASE WHEN list_contains(not_known, {literal(fact)}) THEN {literal(fact)} END"
        for fact in facts
    )
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE doubted AS
        SELECT * FROM (
            SELECT asset_no, array_to_string(list_filter([{told}], lambda fact: fact IS NOT NULL),
                ',') AS facts
            FROM dated WHERE not_known IS NOT NULL
        ) WHERE facts <> ''
    """)
    letters, joins = _letters(
        connection, "doubts", rests, "dated WHERE asset_no IN (SELECT asset_no FROM doubted)"
    )
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE unread AS SELECT asset_no, facts, {letters} AS letters FROM "
        f"doubted {joins}"
    )
