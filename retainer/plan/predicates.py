"""A match -> an SQL expression that is true, false, or NULL for "not certain"."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import assert_never

from retainer.database import literal
from retainer.model.rule import (
    NAME_FACTS,
    AllOf,
    AnyOf,
    Between,
    Created,
    Everything,
    Glob,
    Match,
    Metadata,
    Not,
    OneOf,
    Thumbnails,
)


@cache
def sections(file: str, *headings: str) -> tuple[str, ...]:
    """An SQL file of this package, cut before the first line of each section that these words
    head."""
    *parts, rest = (files("retainer.plan").joinpath(file).read_text(encoding="utf-8"),)
    for heading in headings:
        before, found, after = rest.partition(f"-- ── {heading}")
        parts.append(before)
        rest = found + after
    return (*parts, rest)


def filled(template: str, parts: Mapping[str, str]) -> str:
    """An SQL template less its comments, with each `$name` replaced once: what stands in a policy
    is never looked at again."""
    bare = "\n".join(line.split("--", 1)[0] for line in template.splitlines())
    return re.sub(r"\$[a-z_]+", lambda found: parts[found[0]], bare)


def predicate(match: Match, *, under_not: bool = False) -> str:
    """The SQL of a match over the columns of the assets table, with `created` as the trusted date.

    A fact that the asset does not carry is a no; under an odd number of `not` it is not certain,
    and so is, everywhere, a fact that could not be read (it stands in `not_known`).
    """

    def fact(column: str, test: str, value: str | None = None) -> str:
        absent = "" if under_not else f"WHEN {value or column} IS NULL THEN false "
        return f"CASE WHEN {_unread(column)} THEN NULL {absent}ELSE {test} END"

    match match:
        case Everything():
            return "true"
        case OneOf(fact=name, values=values):
            return fact(name, f"nfc_normalize({name}) IN ({_listed(values)})")
        case Glob(fact=name, patterns=patterns) if name in NAME_FACTS:
            # What was seen under several names is matched for certain only where all of them are,
            # or none is.
            tests = [f"(list_transform({name}s, lambda name: {_any_glob('name', patterns)}))"]
            several = (
                f"CASE WHEN list_bool_and{tests[0]} THEN true WHEN NOT "
                f"list_bool_or{tests[0]} THEN false END"
            )
            one = fact(name, _any_glob(name, patterns))
            return f"CASE WHEN {name}s IS NULL OR ({_unread(name)}) THEN {one} ELSE {several} END"
        case Glob(fact=name, patterns=patterns):
            return fact(name, _any_glob(f"nfc_normalize({name})", patterns), name)
        case Between(fact=name, low=low, high=high):
            bounds = [
                f"{name} >= {low!r}" if low is not None else "",
                f"{name} <= {high!r}" if high is not None else "",
            ]
            return fact(name, " AND ".join(filter(None, bounds)))
        case Created(after=after, before=before):
            bounds = [
                f"created >= TIMESTAMP '{after:%Y-%m-%d %H:%M:%S.%f}'" if after else "",
                f"created < TIMESTAMP '{before:%Y-%m-%d %H:%M:%S.%f}'" if before else "",
            ]
            return f"({' AND '.join(filter(None, bounds))})"
        case Metadata(key=key, values=values, low=low, high=high):
            value = metadata_sql(key)
            number = f"TRY_CAST({value} AS DOUBLE)"
            tests = [
                f"{value} IN ({', '.join(map(literal, values))})" if values else "",
                f"{number} >= {low!r}" if low is not None else "",
                f"{number} <= {high!r}" if high is not None else "",
            ]
            # A list or a mapping cannot be compared, so it is not certain.
            scalar = f"CASE WHEN {metadata_sql(key, 'json_type')} NOT IN ('OBJECT', 'ARRAY') THEN"
            told = f"({scalar} {' AND '.join(filter(None, tests))} END)"
            return fact("metadata", told, value)
        case Thumbnails(any=some, patterns=patterns):
            how_many = "coalesce(len(thumbnails), 0)"
            if not patterns:
                test = f"{how_many} {'>' if some else '='} 0"
                return f"CASE WHEN {_unread('thumbnails')} THEN NULL ELSE {test} END"
            fitting = _any_glob("nfc_normalize(face)", patterns)
            return fact(
                "thumbnails", f"list_bool_or(list_transform(thumbnails, lambda face: ({fitting})))"
            )
        case AllOf(parts=parts):
            return (
                "("
                + " AND ".join(f"({predicate(part, under_not=under_not)})" for part in parts)
                + ")"
            )
        case AnyOf(parts=parts):
            return (
                "("
                + " OR ".join(f"({predicate(part, under_not=under_not)})" for part in parts)
                + ")"
            )
        case Not(part=part):
            return f"(NOT ({predicate(part, under_not=not under_not)}))"
        case _:
            assert_never(match)


def metadata_sql(key: str, told: str = "json_extract_string") -> str:
    """SQL: what an asset's metadata have under a key, as text, or what else is told of it: under
    the key as it is, else, where it has dots, under the last part of it below the others."""
    whole = key.replace("~", "~0").replace("/", "~1")
    exact, nested = literal(f"/{whole}"), literal(f"/{whole.replace('.', '/')}")
    found = f"{told}(metadata, {exact})"
    if "." in whole:
        found = (
            f"CASE WHEN json_exists(metadata, {exact}) THEN {found} "
            f"ELSE {told}(metadata, {nested}) END"
        )
    return f"nfc_normalize({found})"


def _listed(values: Sequence[str]) -> str:
    """SQL: what stands in `IN (…)`. A long list is a table, which is joined; as a list each of its
    values would be compared with each row."""
    told = ", ".join(map(literal, values))
    return told if len(values) <= 50 else f"SELECT unnest([{told}])"


def _unread(column: str) -> str:
    """SQL: whether this fact is there, and could not be read."""
    return f"not_known IS NOT NULL AND list_contains(not_known, {literal(column)})"


def _any_glob(column: str, patterns: Sequence[str]) -> str:
    return " OR ".join(_globbed(column, pattern) for pattern in patterns)


def _globbed(column: str, pattern: str) -> str:
    if not set(pattern) & set("*?["):
        return f"{column} = {literal(pattern)}"
    if pattern.endswith("*") and not set(pattern[:-1]) & set("*?["):
        return f"starts_with({column}, {literal(pattern[:-1])})"
    return f"regexp_full_match({column}, {literal(glob_regex(pattern))})"


def glob_regex(pattern: str) -> str:
    """A shell pattern (`* ? [a-z] [!a]`) as an RE2 expression. A `[` that is never closed stands
    for itself."""
    out, position = "(?s)", 0

    def quote(text: str) -> str:
        return "".join(
            c if c.isalnum() or c == "_" else "\\" + c if c.isascii() else c for c in text
        )

    while position < len(pattern):
        letter = pattern[position]
        position += 1
        if letter == "*":
            out += ".*"
        elif letter == "?":
            out += "."
        elif (
            letter == "["
            and (
                end := pattern.find(
                    "]", position + 1 + (pattern[position : position + 1] in ("!", "^"))
                )
            )
            > 0
        ):
            inside = pattern[position:end]
            negated = inside[0] in "!^"
            ranges = _ranges(inside[negated:])
            nothing, anything = "[^\\x{0}-\\x{10FFFF}]", "."
            out += (
                f"[{'^' if negated else ''}{ranges}]"
                if ranges
                else anything
                if negated
                else nothing
            )
            position = end + 1
        else:
            out += quote(letter)
    return out


def _ranges(inside: str) -> str:
    """The inside of a bracket, each end quoted; a range that runs backwards matches nothing, as in
    a shell."""
    out, position = "", 0
    while position < len(inside):
        first = inside[position]
        if inside[position + 1 : position + 2] == "-" and position + 2 < len(inside):
            last = inside[position + 2]
            out += f"\\x{{{ord(first):x}}}-\\x{{{ord(last):x}}}" if first <= last else ""
            position += 3
        else:
            out += f"\\x{{{ord(first):x}}}"
            position += 1
    return out
