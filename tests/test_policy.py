"""Policies are read as they are written, and everything that is wrong in them is told with its
place."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from reference import FOREVER, period_end

from retainer.model.period import Period, parse_period
from retainer.model.rule import (
    AllOf,
    AnyOf,
    Between,
    Created,
    Everything,
    Glob,
    Metadata,
    Not,
    OneOf,
    Policies,
)
from retainer.policy.codes import CODES
from retainer.policy.diagnostics import nearest
from retainer.policy.files import policy_files
from retainer.policy.lint import load_policies
from retainer.policy.load import load_text, resolved
from retainer.policy.parse import parse_policies
from retainer.policy.schema import json_schema

ROOT = Path(__file__).parents[1]
STORES = frozenset({"vault", "cold", "uploads"})
ALL_IS = "`match: all` is everything"
TO_SAY_ALL = "`match: all` is the way to say everything"
ONE_TRUE_YEAR = "keep: [{ in: vault, for: 1y }]"


@dataclass
class Read:
    """What came of reading some policy files."""

    policies: Policies
    wrong: list[Any]

    @property
    def codes(self) -> list[str]:
        return [each.code for each in self.wrong]


Reader = Callable[..., Read]


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    """Read these files (name below policies/ -> content); a text alone is the file `a.yaml`."""

    def reader(
        files: str | bytes | Mapping[str, str | bytes],
        *,
        stores: Iterable[str] | None = STORES,
        timezone: str = "UTC",
    ) -> Read:
        for name, content in (
            {"a.yaml": files} if isinstance(files, str | bytes) else files
        ).items():
            path = tmp_path / "policies" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        known = frozenset(stores) if stores is not None else None
        return Read(*load_policies(tmp_path, policy_files(tmp_path), timezone, known))

    return reader


def rule(match: str = "all", *, id: str = "r", asks: str = ONE_TRUE_YEAR) -> str:
    """A policy file of one rule, each part on a line of its own."""
    return f"version: 1\nrules:\n  - id: {id}\n    match: {match}\n    {asks}\n"


def unmarked(text: str) -> tuple[str, tuple[int, ...]]:
    """The text without its marks « and », and the place between them: line, column, end line, end
    column."""
    place: list[int] = []
    for mark in "«»":
        before, found, _ = text.replace("«" if mark == "»" else "\0", "").partition(mark)
        if found:
            place += [before.count("\n") + 1, len(before) - before.rfind("\n")]
    return text.replace("«", "").replace("»", ""), tuple(place)


# Each line: what is wrong, the code, the hint, and a part of the sentence. « and » enclose what is
# underlined; without », only the
# start is certain. One mistake brings one complaint.
MISTAKES: dict[str, tuple[str, str, str | None, str]] = {
    "a colon in a text": (
        "version: 1\nrules:\n  - id: a\n    why: Acme«: the case\n",
        "Y001",
        'a text that has `: ` in it is put in quotes, such as "Acme: the second case"',
        "a `:` stands where none can",
    ),
    "a tab as indentation": ("version: 1\nrules:\n«\t- id: a\n", "Y001", None, "tab"),
    "a colon without a space": (
        "version: 1\nrules:\n  - id:a\n    match«: all\n",
        "Y001",
        "is a blank missing behind a `:` above?",
        "a `:` stands where none can",
    ),
    "indentation that fits nothing": (
        "version: 1\nrules:\n  - id: a\n   «match: all\n",
        "Y001",
        None,
        "expected",
    ),
    "a bracket closed by another": ("version: 1\nrules: [a«}\n", "Y001", None, ""),
    "a key twice": (
        "version: 1\nrules: []\n«rules»: []\n",
        "Y002",
        "remove one",
        "`rules` stands here twice (first on line 2)",
    ),
    "a key twice, once quoted": (
        'version: 1\nrules: []\n«"rules"»: []\n',
        "Y002",
        "remove one",
        "first on line 2",
    ),
    "a key twice, deep": (rule("{ type: chat, «type»: track }"), "Y002", "remove one", "`type`"),
    "a tag that builds an object": (
        "version: 1\nrules: «!!python/object:os.system []\n",
        "Y003",
        "remove it; policies are plain data",
        "python/object:os.system",
    ),
    "a tag of YAML's own": (
        "version: «!!int 1»\n",
        "Y003",
        "remove it; policies are plain data",
        "int",
    ),
    "a tag of nobody's": (
        rule(asks="at_most: 1y\n    why: «!include x.txt»"),
        "Y003",
        "remove it; policies are plain data",
        "!include",
    ),
    "a tag on a key": (
        "version: 1\n«!x rules»: []\n",
        "Y003",
        "remove it; policies are plain data",
        "!x",
    ),
    "the tag without a name": (rule(id="«! r»"), "Y003", "remove it; policies are plain data", "!"),
    "a merge key": (
        "version: 1\nrules:\n  - &a { id: a, match: all, at_most: 1y }\n  - { «<<»: *a, id: b, match: all, at_most: 1y }\n",
        "Y004",
        "write the keys out",
        "merge keys",
    ),
    "an alias of nothing": (
        "version: 1\nrules: «*nope»\n",
        "Y005",
        "a text that begins with `*` is written in quotes: '*nope'",
        "`*nope`",
    ),
    "an alias of itself": (
        "version: 1\nrules: &a [«*a»]\n",
        "Y005",
        "a text that begins with `*` is written in quotes: '*a'",
        "`*a`",
    ),
    "51 levels": (
        "version: 1\nrules: " + "[" * 50 + "«[»" + "]" * 51 + "\n",
        "Y005",
        None,
        "50 levels",
    ),
    "aliases of 10,020 values": (
        "version: 1\nrules: [&a [" + "x," * 1001 + "]," + "*a," * 9 + "«*a»]\n",
        "Y005",
        "write fewer of them",
        "10,000",
    ),
    "a second document": (
        "version: 1\n«---»\nversion: 1\n",
        "Y008",
        "one file holds one document",
        "second document",
    ),
    "an empty file": ("«", "Y008", "begin with `version: 1`", "empty"),
    "comments alone": ("«# nothing yet\n", "Y008", "begin with `version: 1`", "empty"),
    "a list": ("«- a\n- b\n", "Y008", "begin with `version: 1`", "a mapping is needed"),
    "a word": ("«hello\n", "Y008", "begin with `version: 1`", "a mapping is needed"),
    "null": ("«null\n", "Y008", "begin with `version: 1`", "a mapping is needed"),
    "three dashes": ("«---\n", "Y008", "begin with `version: 1`", "a mapping is needed"),
    "rule for rules": (
        "version: 1\n«rule»:\n  - id: a\n",
        "P101",
        "did you mean `rules`?",
        "`rule`",
    ),
    "a key near no other": (
        "version: 1\n«xyzzy»: 1\n",
        "P101",
        "known here: version, rules, holds, erasures, accept, losses",
        "`xyzzy`",
    ),
    "ttl for for": (
        rule(asks="keep: [{ in: vault, for: 1y, «ttl»: 1y }]"),
        "P101",
        "did you mean `for`?",
        "`ttl`",
    ),
    "a key of match": (
        rule("{ type: chat, «usr_id»: x }"),
        "P101",
        "did you mean `user_id`?",
        "`usr_id`",
    ),
    "a key within any": (
        rule("{ any: [{ type: chat }, { type: chat, «rooom»: x }] }"),
        "P101",
        "did you mean `room`?",
        "`rooom`",
    ),
    "a key within not": (
        rule("{ not: { type: chat, «sesion_id»: x } }"),
        "P101",
        "did you mean `session_id`?",
        "`sesion_id`",
    ),
    "a key within size": (
        rule("{ size: { min: 1, «mx»: 2 } }"),
        "P101",
        "did you mean `max`?",
        "`mx`",
    ),
    "a key within created": (
        rule("{ created: { after: 2026-01-01, «befor»: 2026-02-01 } }"),
        "P101",
        "did you mean `before`?",
        "`befor`",
    ),
    "a key of a hold": (
        "version: 1\nholds: [{ id: h, why: w, match: all, in: vault, «release»: 2026-01-01 }]\n",
        "P101",
        "did you mean `released`?",
        "",
    ),
    "a key of an erasure": (
        "version: 1\nerasures: [{ id: e, why: w, match: all, «request»: 2026-01-01 }]\n",
        "P101",
        "did you mean `requested`?",
        "",
    ),
    "a rule without an id": (
        "version: 1\nrules:\n  - «match: all\n    at_most: 45d\n",
        "P102",
        None,
        "`id` is missing",
    ),
    "a rule without a match": (
        "version: 1\nrules:\n  - «id: a\n    at_most: 45d\n",
        "P102",
        None,
        "`match` is missing",
    ),
    "a keep without a store": (rule(asks="keep: [«{ for: 1y }»]"), "P102", None, "`in` is missing"),
    "a keep without a period": (
        rule(asks="keep: [«{ in: vault }»]"),
        "P102",
        None,
        "`for` is missing",
    ),
    "a delete without a period": (
        rule(asks="delete: [«{ in: vault }»]"),
        "P102",
        None,
        "`after` is missing",
    ),
    "a hold without a reason": (
        "version: 1\nholds: [«{ id: h, match: all, in: vault }»]\n",
        "P102",
        None,
        "`why` is missing",
    ),
    "a hold without a store": (
        "version: 1\nholds: [«{ id: h, why: w, match: all }»]\n",
        "P102",
        None,
        "`in` is missing",
    ),
    "a number for rules": ("version: 1\nrules: «5»\n", "P103", None, "a list"),
    "a word for a rule": ("version: 1\nrules:\n  - «x»\n", "P103", None, "a mapping"),
    "a list for an id": (rule(id="«[r]»"), "P103", None, "text"),
    "null for an id": (
        rule(id="«null»"),
        "P103",
        "write a value, or leave the key out",
        "`id` is empty",
    ),
    "null for why": (
        rule(asks="why: «~»\n    at_most: 1y"),
        "P103",
        "write a value, or leave the key out",
        "`why` is empty",
    ),
    "an empty keep": (
        rule(asks="keep: «[]»\n    at_most: 1y"),
        "P103",
        "write a value, or leave the key out",
        "`keep` is empty",
    ),
    "a mapping for keep": (rule(asks="keep: «{ in: vault, for: 1y }»"), "P103", None, "a list"),
    "a word for a match": (rule("«none»"), "P103", None, "a mapping"),
    "a word for a number": (rule("{ size: { min: «big» } }"), "P103", None, "a number"),
    "true for a number": (rule("{ size: { min: «true» } }"), "P103", None, "number"),
    "an underscore in a number": (rule("{ size: { min: «1_000» } }"), "P103", None, "a number"),
    "a number below nothing": (rule("{ duration: { max: «-1» } }"), "P103", None, "0"),
    "an endless number": (rule("{ size: { max: «.inf» } }"), "P103", None, "number"),
    "a number past all numbers": (rule("{ size: { max: «1e999» } }"), "P103", None, "number"),
    "no number": (rule("{ size: { max: «.nan» } }"), "P103", None, "number"),
    "a list as a key": ("version: 1\n? «[»a, b]\n: c\n", "P103", None, "a key must be text"),
    "room-compsite": (
        rule("{ type: «room-compsite» }"),
        "P104",
        "did you mean `room-composite`?",
        "`room-compsite`",
    ),
    "a type in a list": (
        rule("{ type: [chat, «trnscript»] }"),
        "P104",
        "did you mean `transcript`?",
        "`trnscript`",
    ),
    "a type by another name": (
        rule("{ type: «Room_Composite» }"),
        "P104",
        "did you mean `room-composite`?",
        "`Room_Composite`",
    ),
    "a status that is misspelt": (
        rule("{ status: «complete» }"),
        "P104",
        "did you mean `completed`?",
        "`complete`",
    ),
    "a number that is no range": (
        rule("{ metadata: { resolution.width: { min: «wide» } } }"),
        "P103",
        None,
        "a number",
    ),
    "a range of metadata that is empty": (
        rule("{ metadata: { resolution.width: «{}» } }"),
        "P207",
        "give `min` or `max`",
        "matches nothing",
    ),
    "a range of metadata upside down": (
        rule("{ metadata: { layer: «{ min: 2, max: 1 }» } }"),
        "P212",
        None,
        "`min` is larger than `max`",
    ),
    "thumbnails that are nothing": (
        rule('{ thumbnails: «""» }'),
        "P207",
        "write a value, or leave the key out",
        "matches nothing",
    ),
    "a basis that is none": (
        rule(asks="keep: [{ in: vault, for: 1y, basis: «legall» }]"),
        "P104",
        "did you mean `legal`?",
        "`legall`",
    ),
    "then: remove": (
        rule(asks=f"{ONE_TRUE_YEAR}\n    then: «remove»"),
        "P104",
        "did you mean `delete`?",
        "`remove`",
    ),
    "an id with a space": (
        rule(id="«a b»"),
        "P105",
        "letters, digits, `-`, `_` and `.`; at most 64",
        "`a b`",
    ),
    "an id that begins with a dash": (
        rule(id="«-a»"),
        "P105",
        "letters, digits, `-`, `_` and `.`; at most 64",
        "`-a`",
    ),
    "an id of 65 letters": (
        rule(id="«" + "a" * 65 + "»"),
        "P105",
        "letters, digits, `-`, `_` and `.`; at most 64",
        "",
    ),
    "an id with a letter beyond ASCII": (
        rule(id="«ü»"),
        "P105",
        "letters, digits, `-`, `_` and `.`; at most 64",
        "`ü`",
    ),
    "an id with a line's end": (
        rule(id='«"a\\n"»'),
        "P105",
        "letters, digits, `-`, `_` and `.`; at most 64",
        "",
    ),
    "no version": ("«rules: []\n", "P106", "make it the first line of the file", "missing"),
    "version 2": ("version: «2»\n", "P106", "write `version: 1`", "`2`"),
    "a version in quotes": ("version: «'1'»\n", "P106", "write `version: 1`", "`1`"),
    "version true": ("version: «true»\n", "P106", "write `version: 1`", "`true`"),
    "version null": ("version: «~»\n", "P106", "write `version: 1`", ""),
    "an id of two rules": (
        "version: 1\nrules:\n  - { id: a, match: all, at_most: 1y }\n  - { id: «a», match: all, at_most: 1y }\n",
        "P201",
        "give it another id",
        "`a` is used already, at policies/a.yaml:3",
    ),
    "an id of a rule and a hold": (
        "version: 1\nrules: [{ id: a, match: all, at_most: 1y }]\nholds: [{ id: «a», why: w, match: all, in: vault }]\n",
        "P201",
        "give it another id",
        "policies/a.yaml:2",
    ),
    "an id of a hold and an erasure": (
        "version: 1\nholds: [{ id: a, why: w, match: all, in: vault }]\nerasures: [{ id: «a», why: w, match: all }]\n",
        "P201",
        "give it another id",
        "policies/a.yaml:2",
    ),
    "valut": (
        rule(asks="keep: [{ in: «valut», for: 1y }]"),
        "P202",
        "did you mean `vault`?",
        "`valut`",
    ),
    "a store near no other": (
        rule(asks="keep: [{ in: «xyzzy», for: 1y }]"),
        "P202",
        "declare it under `stores:` in retainer.yaml",
        "`xyzzy`",
    ),
    "a store in a delete": (
        rule(asks="delete: [{ in: «upload», after: 1y }]"),
        "P202",
        "did you mean `uploads`?",
        "`upload`",
    ),
    "a store in a hold": (
        "version: 1\nholds: [{ id: h, why: w, match: all, in: «Vault» }]\n",
        "P202",
        "did you mean `vault`?",
        "`Vault`",
    ),
    "then: delete after for ever": (
        rule(asks="keep: [{ in: vault, for: «forever» }]\n    then: delete"),
        "P203",
        None,
        "`for: forever`",
    ),
    "for as long as after": (
        rule(asks="keep: [{ in: vault, for: «90d», after: 90d }]"),
        "P204",
        "both are counted from the recording's creation",
        "`for: 90d` is not longer than `after: 90d`",
    ),
    "a rule that asks for nothing": (
        "version: 1\nrules: [{ id: «a», match: all }]\n",
        "P205",
        "give it `keep`, `delete` or `at_most`",
        "the rule `a` does nothing",
    ),
    "a delete that never comes": (
        rule(asks="delete: [{ in: vault, after: «forever» }]"),
        "P205",
        None,
        "waits for ever",
    ),
    "a ceiling without an end": (rule(asks="at_most: «forever»"), "P205", None, "without an end"),
    "match: {}": (rule("«{}»"), "P207", TO_SAY_ALL, "empty"),
    "match: []": (rule("«[]»"), "P207", ALL_IS, "`match` is empty"),
    "match: and nothing": (
        "version: 1\nrules:\n  - id: r\n    match:«»\n    at_most: 1y\n",
        "P207",
        ALL_IS,
        "empty",
    ),
    "match: null": (rule("«null»"), "P207", ALL_IS, "empty"),
    "a list of no types": (rule("{ type: «[]» }"), "P207", ALL_IS, "`type` is empty"),
    "a list of no rooms": (rule("{ room: «[]» }"), "P207", ALL_IS, "`room` is empty"),
    "a room that is null": (rule("{ room: [sales, «null»] }"), "P207", ALL_IS, "`room` is empty"),
    "any of nothing": (rule("{ any: «[]» }"), "P207", ALL_IS, "`any` is empty"),
    "all of nothing": (rule("{ all: «[]» }"), "P207", ALL_IS, "`all` is empty"),
    "not nothing": (rule("{ not: «{}» }"), "P207", TO_SAY_ALL, "empty"),
    "one of any empty": (rule("{ any: [{ type: chat }, «{}»] }"), "P207", TO_SAY_ALL, "empty"),
    "a size without bounds": (
        rule("{ size: «{}» }"),
        "P207",
        "give `min` or `max`",
        "`size` is empty",
    ),
    "a duration without bounds": (
        rule("{ duration: «{}» }"),
        "P207",
        "give `min` or `max`",
        "`duration` is empty",
    ),
    "created without bounds": (
        rule("{ created: «{}» }"),
        "P207",
        "give `after` or `before`",
        "`created` is empty",
    ),
    "metadata without keys": (
        rule("{ type: chat, metadata: «{}» }"),
        "P207",
        None,
        "`metadata` is empty",
    ),
    "metadata of no values": (
        rule("{ metadata: { layer: «[]» } }"),
        "P207",
        ALL_IS,
        "`layer` is empty",
    ),
    "minutes or months": (
        rule(asks="keep: [{ in: vault, for: «6m» }]"),
        "P208",
        None,
        "`m` may mean minutes or months; write `6mo` for months",
    ),
    "a period for a ceiling": (rule(asks="at_most: «soon»"), "P208", None, "`soon`: not a period"),
    "nothing for a period": (rule(asks="at_most:«»"), "P208", None, "a period is needed here"),
    "a list for a period": (rule(asks="at_most: «[1d]»"), "P208", None, "a period is needed here"),
    "a keep in hosted": (
        rule(asks="keep: [{ in: «hosted», for: 1y }]"),
        "P210",
        None,
        "`hosted` is not a store",
    ),
    "a delete elsewhere": (
        rule(asks="delete: [{ in: «elsewhere», after: 1y }]"),
        "P210",
        None,
        "`elsewhere` is not a store",
    ),
    "a hold in hosted": (
        "version: 1\nholds: [{ id: h, why: w, match: all, in: «hosted» }]\n",
        "P210",
        None,
        "`hosted` is not a store",
    ),
    "then without keep": (
        rule(asks="at_most: 45d\n    then: «delete»"),
        "P211",
        "to delete after a time, use `delete`",
        "`then` has no `keep`",
    ),
    "then: leave without keep": (
        rule(asks="at_most: 45d\n    then: «leave»"),
        "P211",
        "to delete after a time, use `delete`",
        "",
    ),
    "min above max": (
        rule("{ size: «{ min: 5, max: 4 }» }"),
        "P212",
        None,
        "`min` is larger than `max`",
    ),
    "after at before": (
        rule("{ created: «{ after: 2026-01-02, before: 2026-01-02 }» }"),
        "P212",
        None,
        "`after` is not before `before`",
    ),
    "a date in words": (
        rule("{ created: { after: «yesterday» } }"),
        "P213",
        "write 2026-11-22, or 2026-11-22T10:00:00Z with a zone",
        "`yesterday`",
    ),
    "a time without a zone": (
        rule("{ created: { before: «2026-11-22T10:00:00» } }"),
        "P213",
        "write 2026-11-22, or 2026-11-22T10:00:00Z with a zone",
        "",
    ),
    "a day that does not exist": (
        "version: 1\nholds: [{ id: h, why: w, match: all, in: vault, released: «2026-02-29» }]\n",
        "P213",
        "write 2026-11-22, or 2026-11-22T10:00:00Z with a zone",
        "`2026-02-29`",
    ),
    "the year nought": (
        "version: 1\nerasures: [{ id: e, why: w, match: all, requested: «0000-01-01» }]\n",
        "P213",
        "write 2026-11-22, or 2026-11-22T10:00:00Z with a zone",
        "`0000-01-01`",
    ),
    "what is to be erased and to stay": (
        "version: 1\nerasures:\n  - { id: e, why: w, match: all, decided: [ "
        "{ asset_id: a, decision: stay, why: w }, { asset_id: «a», decision: erase, why: w } ] }\n",
        "P220",
        "keep what is right of the two",
        "`a`",
    ),
    "a date by a key of another kind": (
        "version: 1\nerasures: [{ id: e, why: w, match: all, requested: «[2026-01-01]» }]\n",
        "P103",
        None,
        "text",
    ),
}


@pytest.mark.parametrize("text, code, hint, says", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_with_its_code_its_place_and_what_to_do(
    read: Reader, text: str, code: str, hint: str | None, says: str
) -> None:
    plain, place = unmarked(text)
    found = read(plain).wrong
    assert [each.code for each in found] == [code]
    span = found[0].span
    assert (span.line, span.column, span.end_line, span.end_column)[: len(place)] == place
    assert found[0].file == "policies/a.yaml"
    assert found[0].hint == hint
    assert says in found[0].message
    assert found[0].text == (plain.splitlines() or [""])[span.line - 1]


TOLD_ELSEWHERE = {"Y006", "Y007", "P206", "P209", "P214", "P215", "P216", "P217", "P218", "P219"}


def test_every_code_that_policies_can_bring_has_its_example() -> None:
    assert {code for _, code, _, _ in MISTAKES.values()} | TOLD_ELSEWHERE == {
        code for code in CODES if code[0] in "YP"
    }


@pytest.mark.parametrize(
    ("match", "word"),
    [
        ("{ type: «caption» }", "type"),
        ("{ type: [chat, «caption»] }", "type"),
        ("{ status: «queued» }", "status"),
    ],
)
def test_a_word_that_100ms_may_have_added_is_a_warning(read: Reader, match: str, word: str) -> None:
    """Issue 13: new types appear, and must be kept."""
    plain, place = unmarked(rule(match))
    found = read(plain)
    (told,) = found.wrong
    assert (told.code, told.is_warning, told.span.line, told.span.column) == (
        "P219",
        True,
        *place[:2],
    )
    assert f"no {word} that this retainer knows" in told.message
    assert len(found.policies.rules) == 1


def test_every_code_has_a_title_and_an_explanation() -> None:
    assert all(
        re.fullmatch(r"[A-Z][0-9]{3}", code) and title and text.endswith(".")
        for code, (title, text) in CODES.items()
    )


@pytest.mark.parametrize(
    "word, meant",
    [
        ("filter", "match"),
        ("where", "match"),
        ("when", "match"),
        ("store", "in"),
        ("bucket", "in"),
        ("retention", "for"),
        ("days", "for"),
        ("name", "id"),
        ("description", "why"),
        ("retain", "keep"),
        ("expire", "delete"),
        ("max", "at_most"),
        ("mtch", "match"),
        ("keeps", "keep"),
    ],
)
def test_the_word_that_was_meant_is_found_by_its_meaning_or_its_letters(
    word: str, meant: str
) -> None:
    assert nearest(word, ["id", "why", "match", "keep", "delete", "at_most", "in", "for"]) == meant


def test_a_word_far_from_all_others_has_no_suggestion() -> None:
    assert nearest("xyzzy", ["match", "keep"]) is None


def test_filter_in_place_of_match_is_told_as_the_near_miss_that_it_is(read: Reader) -> None:
    plain, place = unmarked("version: 1\nrules:\n  - id: a\n    «filter»: all\n    at_most: 1y\n")
    (told,) = read(plain).wrong
    assert (told.code, told.hint) == ("P101", "did you mean `match`?")
    assert (told.span.line, told.span.column, told.span.end_line, told.span.end_column) == place


@pytest.mark.parametrize(
    "text", ["version: 1\nrules: 'abc\n", 'version: 1\nrules: "abc\n', "version: 1\nrules: [a, b\n"]
)
def test_what_is_never_closed_is_shown_on_a_line_of_the_file(read: Reader, text: str) -> None:
    (told,) = read(text).wrong
    assert told.code == "Y001"
    assert told.span.line <= len(text.splitlines())
    assert told.text


@pytest.mark.parametrize(
    "content, line",
    [(b"version: 1\nrules: []\n# \xff\n", 3), ("version: 1\n".encode("utf-16"), 1), (b"\xc3", 1)],
)
def test_a_file_that_is_not_utf8_is_told_with_its_line(
    read: Reader, content: bytes, line: int
) -> None:
    (told,) = read(content).wrong
    assert (told.code, told.span.line, told.span.column, told.hint) == (
        "Y007",
        line,
        1,
        "save the file as UTF-8",
    )


@pytest.mark.parametrize("letter", ["\x00", "\x07", "\x1b", "\x7f"])
def test_a_control_character_is_refused_even_in_a_comment(read: Reader, letter: str) -> None:
    assert read(f"version: 1\n# {letter}\n").codes == ["Y007"]


def test_a_file_of_just_1_mib_is_read(read: Reader) -> None:
    assert read("version: 1\n#" + "x" * ((1 << 20) - 12)).wrong == []


def test_a_file_of_a_byte_more_is_refused(read: Reader) -> None:
    (told,) = read("version: 1\n#" + "x" * ((1 << 20) - 11)).wrong
    assert (told.code, told.span.line, told.span.column, told.hint) == ("Y006", 1, 1, "split it")


def test_50_levels_and_10_000_values_are_still_read(read: Reader) -> None:
    assert "Y005" not in read("version: 1\nrules: " + "[" * 49 + "]" * 49 + "\n").codes
    assert "Y005" not in read("version: 1\nrules: [" + "x," * 9996 + "x]\n").codes


def bombs() -> dict[str, str]:
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))
    broken = "&x { id: a, match: { any: [{ tpe: 1 }, { tpe: 2 }] }, kep: 1 }"
    return {
        "nine levels of nine aliases": "version: 1\na0: &a0 [x, x, x, x, x, x, x, x, x]\n" + levels,
        "one broken rule 900 times": f"version: 1\nrules: [{broken}, " + "*x, " * 900 + "]\n",
        "5,000 unknown keys": "version: 1\n" + "".join(f"k{n}: x\n" for n in range(5000)),
        "a million brackets": "[" * 1_000_000,
        "a million blanks": "version: 1\n" + " " * 1_000_000,
        "a long text of what looks like the start of tokens": rule(
            asks=f"at_most: 1y\n    why: {'eyJ-' * 15_000}"
        ),
        "a long text of what looks like the start of passwords": rule(
            asks=f"at_most: 1y\n    why: '{'://a:' * 15_000}'"
        ),
    }


@pytest.mark.parametrize("text", bombs().values(), ids=bombs())
def test_a_file_made_to_be_slow_is_read_or_refused_at_once(read: Reader, text: str) -> None:
    began = time.perf_counter()
    read(text)
    assert time.perf_counter() - began < 60.0


def test_an_alias_that_stays_small_is_read_as_what_it_stands_for(read: Reader) -> None:
    found = read(
        "version: 1\nrules:\n  - { id: a, match: &calls { type: chat }, at_most: 1y }\n  - { id: b, match: *calls, at_most: 2y }\n"
    )
    assert found.wrong == []
    assert (
        found.policies.rules[0].match == found.policies.rules[1].match == OneOf("type", ("chat",))
    )


def test_a_mistake_within_an_alias_is_shown_where_it_is_used(read: Reader) -> None:
    plain, place = unmarked(
        "version: 1\nrules:\n  - { id: a, match: &x { tpye: chat }, at_most: 1y }\n  - { id: b, «match»: *x, at_most: 2y }\n"
    )
    assert (told := read(plain).wrong[-1]).code == "P101"
    assert (told.span.line, told.span.column, told.span.end_line, told.span.end_column) == place


@pytest.mark.parametrize(
    "written",
    [
        "no",
        "yes",
        "on",
        "off",
        "0o17",
        "007",
        "0x1F",
        "1e3",
        "1.50",
        "2026-01-01",
        "12:30:45",
        "true",
        "1_000",
        "=",
    ],
)
def test_a_text_field_keeps_an_unquoted_word_as_it_was_written(read: Reader, written: str) -> None:
    found = read(
        rule(
            f"{{ room: {written}, metadata: {{ mode: [{written}] }} }}",
            asks=f"why: {written}\n    at_most: 1y",
        )
    )
    assert found.wrong == []
    assert found.policies.rules[0].why == written
    assert found.policies.rules[0].match == AllOf(
        (Glob("room", (written,)), Metadata("mode", (written,)))
    )


@pytest.mark.parametrize("written", ["no", "007", "0o17", "1.5", "true", "2026-01-01", "1e3"])
def test_an_id_keeps_an_unquoted_word_as_it_was_written(read: Reader, written: str) -> None:
    found = read(rule(id=written))
    assert (found.wrong, found.policies.rules[0].id) == ([], written)


@pytest.mark.parametrize(
    "written, number",
    [
        ("0o17", 15.0),
        ("017", 17.0),
        ("007", 7.0),
        ("0x1F", 31.0),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("+5", 5.0),
        ("0", 0.0),
        ("10GB", 1e10),
        ("1KiB", 1024.0),
    ],
)
def test_a_number_is_read_by_yaml_1_2(read: Reader, written: str, number: float) -> None:
    found = read(rule(f"{{ size: {{ min: {written} }} }}"))
    assert (found.wrong, found.policies.rules[0].match) == ([], Between("size", number, None))


@pytest.mark.parametrize("written", ["1", "+1", "0x1", "0o1", "01"])
def test_version_1_is_the_number_however_it_is_written(read: Reader, written: str) -> None:
    assert read(f"version: {written}\n").wrong == []


def test_a_text_of_5_000_digits_is_a_text(read: Reader) -> None:
    found = read(rule(asks=f"why: {'1' * 5000}\n    at_most: 1y"))
    assert (found.wrong, found.policies.rules[0].why) == ([], "1" * 5000)


@pytest.mark.parametrize("zeros", [300, 400, 5000])
@pytest.mark.parametrize("unit", ["h", "d", "w", "mo", "y"])
def test_a_period_of_hundreds_of_digits_is_refused_as_too_long(
    read: Reader, unit: str, zeros: int
) -> None:
    assert read(rule(asks=f"at_most: 1{'0' * zeros}{unit}")).codes == ["P208"]


def test_a_byte_order_mark_moves_no_column(read: Reader) -> None:
    plain, place = unmarked("version: «2»\n")
    (told,) = read(b"\xef\xbb\xbf" + plain.encode()).wrong
    assert (told.code, told.span.line, told.span.column, told.text) == (
        "P106",
        *place[:2],
        "version: 2",
    )


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_lines_may_end_as_on_any_system(read: Reader, end: str) -> None:
    plain, place = unmarked(rule("{ type: «caht» }"))
    (told,) = read(plain.replace("\n", end)).wrong
    assert (told.code, told.span.line, told.span.column, told.span.end_column) == (
        "P104",
        place[0],
        place[1],
        place[3],
    )
    assert told.text == "    match: { type: caht }"


def test_a_column_counts_characters_not_bytes(read: Reader) -> None:
    plain, place = unmarked(
        "version: 1\nrules: [{ id: a, why: 'Grüße 😀', match: { type: «caht» }, at_most: 1y }]\n"
    )
    (told,) = read(plain).wrong
    assert (told.span.line, told.span.column, told.span.end_line, told.span.end_column) == place


def test_a_tab_after_a_value_does_no_harm(read: Reader) -> None:
    assert read("version: 1\t# first\nrules: []\n").wrong == []


def test_a_document_may_begin_with_dashes_and_end_with_dots(read: Reader) -> None:
    assert read("%YAML 1.2\n---\nversion: 1\nrules: []\n...\n").wrong == []


def test_every_mistake_of_every_file_is_told_in_one_run_in_the_order_of_the_files(
    read: Reader,
) -> None:
    found = read(
        {
            "c.yaml": rule("{ type: caht }", id="c"),
            "b/deep.yml": "version: 1\nrules: [a}\n",
            "a.yaml": "version: 2\nrules:\n  - { id: c, mtch: all, keep: [{ in: valut, for: 6m }] }\n  - { id: d e, match: {}, at_most: 1y }\n",
        }
    )
    places = [(each.file, each.span.line, each.code) for each in found.wrong]
    assert places == sorted(places, key=lambda place: place[:2])
    assert {(file, code) for file, _, code in places} == {
        ("policies/a.yaml", "P106"),
        ("policies/a.yaml", "P101"),
        ("policies/a.yaml", "P202"),
        ("policies/a.yaml", "P208"),
        ("policies/a.yaml", "P105"),
        ("policies/a.yaml", "P207"),
        ("policies/b/deep.yml", "Y001"),
        ("policies/c.yaml", "P104"),
        ("policies/c.yaml", "P201"),
    }


def test_a_rule_that_is_sound_is_read_beside_one_that_is_not(read: Reader) -> None:
    found = read(
        "version: 1\nrules:\n  - { id: good, match: all, at_most: 1y }\n  - { id: bad, match: all, at_most: soon }\n"
    )
    assert ([each.id for each in found.policies.rules], found.codes) == (["good"], ["P208"])


def test_a_mistake_of_meaning_and_one_of_shape_are_told_together(read: Reader) -> None:
    found = read(
        "version: 1\nrules:\n  - { id: a, match: {}, at_most: 1y }\n  - { id: b, match: all, at_most: soon }\n"
    )
    assert found.codes == ["P207", "P208"]


def test_what_is_wrong_in_a_rule_hides_nothing_else_of_it(read: Reader) -> None:
    found = read(
        "version: 1\nrules:\n  - id: a b\n    match: { type: caht, created: { after: soon }, size: { min: 9, max: 1 } }\n"
        "    keep:\n      - { in: hosted, for: 30d, after: 90d }\n      - { in: vault }\n"
        "      - { in: vault, for: forever }\n    then: delete\n    wy: x\n"
    )
    assert sorted(found.codes) == sorted(
        ["P105", "P104", "P213", "P212", "P210", "P204", "P102", "P203", "P101"]
    )
    assert found.policies.rules == ()


def test_a_mistake_is_told_once(read: Reader) -> None:
    wrong = read(
        "version: 1\nrules:\n  - &r { id: a, match: all, keep: [{ in: valut, for: 1y }] }\n"
    ).wrong
    assert len(wrong) == len(set(wrong)) == 1


def test_yaml_and_yml_files_of_all_folders_are_read_in_the_order_of_their_paths(
    read: Reader,
) -> None:
    found = read(
        {
            "z.yaml": rule(id="z"),
            "a/b/c.yml": rule(id="abc"),
            "a.yml": rule(id="a"),
            "README": "hello",
            ".old.yaml.swp": "x: [",
            "a/README.md": "# rules",
            "CODEOWNERS": "* @legal",
        }
    )
    assert (found.wrong, [each.id for each in found.policies.rules]) == ([], ["a", "abc", "z"])


def test_a_folder_named_like_a_file_is_looked_into(read: Reader) -> None:
    assert [each.id for each in read({"x.yaml/a.yaml": rule(id="a")}).policies.rules] == ["a"]


def test_a_rule_tells_its_file_and_line(read: Reader) -> None:
    found = read(
        {
            "teams/sales.yaml": "version: 1\n\nrules:\n  # calls\n  - id: calls\n    match: all\n    at_most: 1y\n"
        }
    )
    assert str(found.policies.rules[0].where) == "policies/teams/sales.yaml:5"


def test_an_id_used_in_two_files_names_the_first(read: Reader) -> None:
    (told,) = read({"a.yaml": rule(id="x"), "b.yaml": rule(id="x")}).wrong
    assert (told.code, told.file, told.span.line, told.span.column, told.span.end_column) == (
        "P201",
        "policies/b.yaml",
        3,
        9,
        10,
    )
    assert "policies/a.yaml:3" in told.message


def test_an_id_of_a_rule_that_is_wrong_otherwise_is_still_taken(read: Reader) -> None:
    assert sorted(
        read({"a.yaml": rule("{ type: caht }", id="x"), "b.yaml": rule(id="x")}).codes
    ) == ["P104", "P201"]


@pytest.mark.parametrize(
    "files", [{}, {"README.md": "hello"}], ids=["no folder", "no rule file in it"]
)
def test_no_rule_file_at_all_is_an_error(read: Reader, files: dict[str, str]) -> None:
    (told,) = read(files).wrong
    assert (told.code, told.file, told.hint) == (
        "P206",
        "policies/",
        "`retainer init` writes a start",
    )
    assert (told.span.line, told.span.column) == (1, 1)


def test_a_file_that_cannot_be_read_is_not_told_as_no_file(read: Reader) -> None:
    assert read("rules: [\n").codes == ["Y001"]


def test_stores_are_not_checked_where_nobody_knows_them(read: Reader) -> None:
    assert read(rule(asks="keep: [{ in: valut, for: 1y }]"), stores=None).wrong == []


def test_no_file_can_spell_the_inner_name_of_match_all(read: Reader) -> None:
    found = read(rule('{ "\\0all": true, type: chat }'))
    assert found.codes == ["P101"]
    assert not any(each.match == Everything() for each in found.policies.rules)


# ── Periods ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "text, period",
    [
        ("36h", Period(seconds=36 * 3600)),
        ("1h", Period(seconds=3600)),
        ("30d", Period(days=30)),
        ("2w", Period(days=14)),
        ("6mo", Period(months=6)),
        ("7y", Period(months=84)),
        ("007d", Period(days=7)),
        ("forever", Period(forever=True)),
        ("P7Y", Period(months=84)),
        ("P1Y6M", Period(months=18)),
        ("P6M", Period(months=6)),
        ("P2W", Period(days=14)),
        ("P30D", Period(days=30)),
        ("P1M10D", Period(months=1, days=10)),
        ("PT36H", Period(seconds=36 * 3600)),
        ("1000y", Period(months=12000)),
        ("366000d", Period(days=366000)),
    ],
)
def test_a_period_is_read(text: str, period: Period) -> None:
    assert (parse_period(text), parse_period(text).text) == (period, text)


@pytest.mark.parametrize(
    "text, says",
    [
        ("6m", "write `6mo` for months, or hours as `6h`"),
        ("-1d", "negative"),
        ("-P1D", "negative"),
        ("1.5d", "fractions"),
        ("1,5d", "fractions"),
        (".5y", "fractions"),
        ("0d", "nothing"),
        ("0h", "nothing"),
        ("P0D", "nothing"),
        ("PT0H", "nothing"),
        ("P1DT1H", "cannot stand together"),
        ("P1YT36H", "cannot stand together"),
        ("2000y", "longer than 1000 years"),
        ("366001d", "longer than 1000 years"),
        ("30", "not a period"),
        ("d", "not a period"),
        ("30 d", "not a period; did you mean `30d`"),
        ("30D", "not a period; did you mean `30d`"),
        ("1y6mo", "not a period; did you mean `P1Y6M`"),
        ("30days", "not a period; did you mean `30d`"),
        ("7 Years", "not a period; did you mean `7y`"),
        ("Forever", "not a period; did you mean `forever`"),
        ("2h30d", "not a period; write"),
        ("1y1y", "not a period; write"),
        ("P", "not a period"),
        ("PT", "not a period"),
        ("P1YT", "not a period"),
        ("P1.5Y", "not a period"),
        ("P-1D", "not a period"),
        ("P1D1Y", "not a period"),
        ("1M", "not a period"),
        ("Forever", "not a period"),
        ("never", "not a period"),
        ("1s", "not a period"),
        ("30min", "not a period"),
        (" 30d", "not a period"),
        ("30d\n", "not a period"),
        ("+30d", "not a period"),
        ("٣d", "not a period"),
        ("1e3d", "not a period"),
        ("", "not a period"),
        ("null", "not a period"),
    ],
)
def test_what_is_no_period_is_refused_with_a_sentence(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        parse_period(text)


@pytest.mark.parametrize("text", ["P1YT0H", "P0DT36H"])
def test_a_date_and_a_time_part_do_not_stand_together_even_where_one_is_nothing(text: str) -> None:
    with pytest.raises(ValueError, match="cannot stand together"):
        parse_period(text)


@pytest.mark.parametrize(
    "longer, shorter",
    [
        ("7y", "90d"),
        ("1y", "90d"),
        ("13mo", "1y"),
        ("2mo", "1mo"),
        ("31d", "30d"),
        ("37h", "36h"),
        ("forever", "7y"),
        ("forever", "36h"),
        ("P1M10D", "P1M9D"),
        ("2w", "13d"),
        ("3d", "47h"),
        ("48h", "PT47H"),
        ("1y", "1000h"),
    ],
)
def test_a_period_that_ends_later_from_every_day_is_longer(
    read: Reader, longer: str, shorter: str
) -> None:
    assert read(rule(asks=f"keep: [{{ in: vault, for: {longer}, after: {shorter} }}]")).wrong == []


@pytest.mark.parametrize(
    "months, days", [("1mo", "27d"), ("2mo", "58d"), ("1y", "364d"), ("4y", "1459d")]
)
def test_the_shortest_months_are_still_longer_than_fewer_days(
    read: Reader, months: str, days: str
) -> None:
    assert read(rule(asks=f"keep: [{{ in: vault, for: {months}, after: {days} }}]")).wrong == []


@pytest.mark.parametrize(
    "period, other",
    [
        ("90d", "90d"),
        ("30d", "31d"),
        ("1mo", "30d"),
        ("1mo", "28d"),
        ("30d", "1mo"),
        ("31d", "1mo"),
        ("1y", "365d"),
        ("365d", "1y"),
        ("366d", "1y"),
        ("12mo", "1y"),
        ("1y", "12mo"),
        ("P1Y", "1y"),
        ("2w", "14d"),
        ("24h", "1d"),
        ("1d", "24h"),
        ("36h", "1d"),
        ("48h", "1d"),
        ("forever", "forever"),
        ("7y", "forever"),
        ("P2M", "P1M31D"),
        ("1h", "1h"),
    ],
)
def test_a_for_that_does_not_end_after_its_after_from_every_day_is_refused(
    read: Reader, period: str, other: str
) -> None:
    assert read(rule(asks=f"keep: [{{ in: vault, for: {period}, after: {other} }}]")).codes == [
        "P204"
    ]


PERIODS = st.one_of(
    st.builds("{}{}".format, st.integers(1, 800), st.sampled_from(["h", "d", "w", "mo"])),
    st.builds("{}y".format, st.integers(1, 12)),
    st.builds("P{}M{}D".format, st.integers(1, 24), st.integers(1, 60)),
)


@given(
    PERIODS,
    PERIODS,
    st.integers(1_420_070_400, 2_208_988_800).map(
        lambda seconds: datetime.fromtimestamp(seconds, UTC)
    ),
    st.sampled_from(
        ["UTC", "Europe/Berlin", "America/Sao_Paulo", "Asia/Kolkata", "Pacific/Auckland"]
    ).map(ZoneInfo),
)
@example("36h", "1d", datetime(2026, 1, 1, tzinfo=UTC), ZoneInfo("UTC"))
@settings(max_examples=400)
def test_a_period_called_longer_ends_later_whenever_it_begins(
    one: str, other: str, created: datetime, zone: ZoneInfo
) -> None:
    assume(parse_period(one).is_longer_than(parse_period(other)))
    ends = period_end(created, one, zone)
    assert ends == FOREVER or ends > period_end(created, other, zone)


@given(PERIODS, PERIODS)
def test_of_two_periods_at_most_one_is_longer(one: str, other: str) -> None:
    assert not (
        parse_period(one).is_longer_than(parse_period(other))
        and parse_period(other).is_longer_than(parse_period(one))
    )


def test_for_ever_is_longer_than_anything_and_nothing_is_longer_than_it() -> None:
    assert parse_period("forever").is_longer_than(parse_period("1000y"))
    assert not parse_period("1000y").is_longer_than(parse_period("forever"))
    assert not parse_period("forever").is_longer_than(parse_period("forever"))


# ── Credentials ───────────────────────────────────────────────────────────────────────────────────

KEY = "AKIAIOSFODNN7EXAMPLE"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJhY2Nlc3Nfa2V5Ijoi.c2lnbmF0dXJlLXNpZw"
PASSWORD = "hunter2hunter2"
HELP = "remove it here, revoke it, and give it through the environment (`retainer help P209`)"


@pytest.mark.parametrize(
    "key",
    [
        "secret",
        "app_secret",
        "password",
        "passwd",
        "token",
        "HMS_MANAGEMENT_TOKEN",
        "accessKey",
        "access_key",
        "api-key",
        "private_key",
        "credentials",
        "Authorization",
    ],
)
def test_a_key_that_names_a_credential_is_refused_where_it_stands(read: Reader, key: str) -> None:
    key = key.replace("api-key", "api_key")
    plain, place = unmarked(f"version: 1\n«{key}»: {PASSWORD}\n")
    (told,) = read(plain).wrong
    assert (told.code, told.hint, told.text) == ("P209", HELP, "")
    assert (told.span.line, told.span.column, told.span.end_line, told.span.end_column) == place


@pytest.mark.parametrize(
    "value, secret",
    [
        (KEY, KEY),
        (f"my key is {KEY}.", KEY),
        ("ASIAIOSFODNN7EXAMPLE", "ASIA"),
        (JWT, JWT),
        ('"-----BEGIN PRIVATE KEY-----"', "-----BEGIN"),
        ('"-----BEGIN RSA PRIVATE KEY-----"', "-----BEGIN"),
        ("https://x.example/a.mp4?X-Amz-Signature=0123abcd", "0123abcd"),
        ("https://x.example/a.mp4?a=b&X-Goog-Signature=0123abcd", "0123abcd"),
        (f"https://user:{PASSWORD}@x.example/", PASSWORD),
    ],
)
def test_a_value_that_looks_like_a_credential_is_refused_where_it_stands(
    read: Reader, value: str, secret: str
) -> None:
    plain, place = unmarked(rule(asks=f"why: «{value}»\n    at_most: 1y"))
    (told,) = read(plain).wrong
    assert (told.code, told.hint, told.text) == ("P209", HELP, "")
    assert (told.span.line, told.span.column, told.span.end_line, told.span.end_column) == place
    assert secret not in told.message


CARELESS = {
    "alone on its line": (f"version: 1\nsecret: {PASSWORD}\n", PASSWORD),
    "in a list": (f"version: 1\nsecret: [{PASSWORD}]\n", PASSWORD),
    "in a mapping": (f"version: 1\nsecret: {{ value: {PASSWORD} }}\n", PASSWORD),
    "in a block": (f"version: 1\nsecret: |\n  {PASSWORD}\n", PASSWORD),
    "on one line with another mistake": (
        f"version: 1\nrules: [{{ id: a, mtch: all, secret: {PASSWORD}, at_most: 1y }}]\n",
        PASSWORD,
    ),
    "on one line with a tag": (
        f"version: 1\nrules: [{{ id: !x a, match: all, secret: {PASSWORD}, at_most: 1y }}]\n",
        PASSWORD,
    ),
    "twice": (f"version: 1\nsecret: x\nsecret: {PASSWORD}\n", PASSWORD),
    "in place of a date": (
        f"version: 1\nholds: [{{ id: h, why: w, match: all, in: vault, released: {KEY} }}]\n",
        KEY,
    ),
    "in place of a store": (
        f"version: 1\nholds:\n  - id: h\n    why: w\n    match: all\n    in: {KEY}\n",
        KEY,
    ),
    "in place of a period": (rule(asks=f"at_most: {KEY}"), KEY),
    "in place of a type": (rule(f"{{ type: {KEY} }}"), KEY),
    "in place of a version": (f"version: {KEY}\n", KEY),
    "in place of an id": (rule(id=f"'{KEY} '"), KEY),
    "as an id used twice": (
        f"version: 1\nrules: [{{ id: {KEY}, match: all, at_most: 1y }},\n  {{ id: {KEY}, match: all, at_most: 1y }}]\n",
        KEY,
    ),
    "as the id of a rule that does nothing": (
        f"version: 1\nrules: [{{ id: {KEY}, match: all }}]\n",
        KEY,
    ),
    "as a key": (f"version: 1\n{KEY}: x\n", KEY),
    "as metadata": (rule(f"{{ metadata: {{ owner: {KEY} }} }}"), KEY),
}


@pytest.mark.parametrize("text, secret", CARELESS.values(), ids=CARELESS)
def test_no_complaint_repeats_a_credential(read: Reader, text: str, secret: str) -> None:
    found = read(text)
    assert "P209" in found.codes
    assert [
        part
        for each in found.wrong
        for part in (each.message, each.hint or "", each.text)
        if secret in part
    ] == []


@pytest.mark.parametrize(
    "match",
    [
        "{ metadata: { token: abc, secret: [x, y] } }",
        "{ user_id: token-42 }",
        "{ room: password-reset }",
    ],
)
def test_a_match_may_look_at_what_is_merely_named_like_a_credential(
    read: Reader, match: str
) -> None:
    assert read(rule(match)).wrong == []


# ── What is read ──────────────────────────────────────────────────────────────────────────────────

EVERY_KEY = """\
version: 1
rules:
  - id: sales-calls
    why: Sales call records, LEGAL-88
    owner: "@acme/compliance"
    match: { type: [room-composite, transcript, summary], room: sales-* }
    keep:
      - { in: vault, for: 7y, basis: legal }
      - { in: cold, for: 1y, after: 90d }
    then: delete
  - id: raw-uploads
    match:
      all: [{ type: room-composite }, { not: { template: [web*, "class?"] } }]
      any: [{ size: { min: 1, max: 5e9 } }, { duration: { min: 0.5 } }, all]
      status: completed
      room_id: 6544d1e2f3a4b5c6d7e8f901
      session_id: [a, b]
      asset_id: 007
      user_id: u
      peer_id: p
      path: s3://acme-raw/*
      created: { after: 2026-01-01, before: "2026-02-01T00:00:00+05:30" }
      metadata: { layer: 0, track_type: [audio, video] }
    delete: [{ in: uploads, after: 30d }]
  - { id: chat-ceiling, match: { type: chat }, at_most: 45d, then: leave, keep: [{ in: vault, for: PT36H }] }
holds:
  - { id: LIT-204, why: Acme v. Example, owner: "@acme/legal", match: { room_id: 6544d1 }, in: vault, released: 2026-10-01 }
erasures:
  - { id: DSR-17, why: Art. 17 request, owner: me, requested: 2026-11-01, match: { session_id: 65f0aa } }
"""


def test_everything_that_the_language_has_is_read(read: Reader) -> None:
    found = read(EVERY_KEY)
    assert found.wrong == []
    calls, uploads, ceiling = found.policies.rules
    assert (calls.why, calls.owner, calls.then_delete) == (
        "Sales call records, LEGAL-88",
        "@acme/compliance",
        True,
    )
    assert [
        (keep.store, keep.period.text, keep.after and keep.after.text, keep.legal)
        for keep in calls.keeps
    ] == [("vault", "7y", None, True), ("cold", "1y", "90d", False)]
    assert calls.match == AllOf(
        (OneOf("type", ("room-composite", "transcript", "summary")), Glob("room", ("sales-*",)))
    )
    assert [(delete.store, delete.after.text) for delete in uploads.deletes] == [("uploads", "30d")]
    assert (ceiling.at_most and ceiling.at_most.text, ceiling.then_delete) == ("45d", False)
    (hold,), (erasure,) = found.policies.holds, found.policies.erasures
    assert (hold.store, hold.released) == ("vault", datetime(2026, 10, 1, tzinfo=UTC))
    assert (erasure.requested, erasure.match) == (
        datetime(2026, 11, 1, tzinfo=UTC),
        OneOf("session_id", ("65f0aa",)),
    )


def test_a_match_is_read_part_by_part(read: Reader) -> None:
    match = read(EVERY_KEY).policies.rules[1].match
    assert isinstance(match, AllOf)
    assert set(match.parts) == {
        OneOf("status", ("completed",)),
        OneOf("room_id", ("6544d1e2f3a4b5c6d7e8f901",)),
        OneOf("session_id", ("a", "b")),
        OneOf("asset_id", ("007",)),
        OneOf("user_id", ("u",)),
        OneOf("peer_id", ("p",)),
        Glob("path", ("s3://acme-raw/*",)),
        Created(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 31, 18, 30, tzinfo=UTC)),
        Metadata("layer", ("0",)),
        Metadata("track_type", ("audio", "video")),
        AnyOf((Between("size", 1, 5e9), Between("duration", 0.5, None), Everything())),
        AllOf((OneOf("type", ("room-composite",)), Not(Glob("template", ("web*", "class?"))))),
    }


@pytest.mark.parametrize(
    "zone, written, moment",
    [
        ("UTC", "2026-10-01", datetime(2026, 10, 1, tzinfo=UTC)),
        ("Europe/Berlin", "2026-10-01", datetime(2026, 9, 30, 22, tzinfo=UTC)),
        ("Asia/Kolkata", "2026-10-01", datetime(2026, 9, 30, 18, 30, tzinfo=UTC)),
        (
            "America/Sao_Paulo",
            "2018-11-04",
            datetime(2018, 11, 4, 3, tzinfo=UTC),
        ),  # a day that began at one o'clock
        ("Europe/Berlin", "2026-10-01T10:00:00Z", datetime(2026, 10, 1, 10, tzinfo=UTC)),
        (
            "UTC",
            '"2026-10-01t10:00:00.5+02:00"',
            datetime(2026, 10, 1, 8, 0, 0, 500000, tzinfo=UTC),
        ),
    ],
)
def test_a_date_is_the_start_of_its_day_in_the_time_zone(
    read: Reader, zone: str, written: str, moment: datetime
) -> None:
    found = read(
        f"version: 1\nholds: [{{ id: h, why: w, match: all, in: vault, released: {written} }}]\n",
        timezone=zone,
    )
    assert (found.wrong, found.policies.holds[0].released) == ([], moment)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Kolkata", "Pacific/Auckland"])
def test_a_date_before_the_first_moment_there_is_is_told(read: Reader, zone: str) -> None:
    assert read(
        "version: 1\nholds: [{ id: h, why: w, match: all, in: vault, released: 0001-01-01 }]\n",
        timezone=zone,
    ).codes == ["P213"]


def test_left_out_means_what_the_design_says(read: Reader) -> None:
    (found,) = read(rule()).policies.rules
    assert (
        found.then_delete,
        found.at_most,
        found.why,
        found.owner,
        found.deletes,
        found.match,
    ) == (False, None, "", "", (), Everything())
    assert (found.keeps[0].after, found.keeps[0].legal) == (None, False)


# ── The JSON Schema ───────────────────────────────────────────────────────────────────────────────


def plain(text: str) -> Any:
    return resolved(load_text(text, "x.yaml")[0].data)


def fits(text: str) -> bool:
    jsonschema = pytest.importorskip(
        "jsonschema", reason="the jsonschema package is not there to judge the schema with"
    )
    return bool(jsonschema.Draft202012Validator(json_schema()).is_valid(plain(text)))


OWN_FILES = [ROOT / "retainer.yaml", *policy_files(ROOT).files]


def test_the_schema_is_a_schema() -> None:
    jsonschema = pytest.importorskip(
        "jsonschema", reason="the jsonschema package is not there to judge the schema with"
    )
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("path", OWN_FILES, ids=lambda path: path.name)
def test_the_schema_accepts_the_files_of_this_repository(path: Path) -> None:
    assert fits(path.read_text())


def test_the_schema_accepts_everything_that_the_language_has() -> None:
    # An editor reads an unquoted 007 as a number, and asks for quotes.
    assert fits(
        EVERY_KEY.replace("asset_id: 007", 'asset_id: "007"').replace("layer: 0", 'layer: "0"')
    )


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nrule: []\n",
        "version: 2\n",
        "rules: []\n",
        rule("{ tpye: chat }"),
        rule("some"),
        rule("{ any: [] }"),
        rule("{ not: { rom: x } }"),
        rule(asks="keep: [{ in: vault, fro: 1y }]"),
        rule(asks="keep: [{ in: vault, for: 6m }]"),
        rule(asks="keep: [{ in: vault }]"),
        rule(asks="keep: []"),
        rule(id="a b"),
        rule(asks="then: remove"),
        rule('{ "\\0all": true }'),
        "version: 1\nstores: { vault: { ur: s3://b } }\n",
        "version: 1\ntimezon: UTC\nstores: {}\n",
        "version: 1\nsource: { hostd: [] }\n",
        "version: 1\nlimits: { deletes: { cuont: 1 } }\n",
        "version: 1\nholds: [{ id: h, match: all, in: vault }]\n",
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(text: str) -> None:
    assert not fits(text)


def walked(schema: Any) -> Iterable[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
    for each in (
        schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    ):
        yield from walked(each)


def test_every_mapping_of_the_schema_is_closed_and_every_reference_leads_somewhere() -> None:
    schema = json_schema()
    for part in walked(schema):
        if (
            "properties" in part
            and "title" in part
            and isinstance(part["properties"], dict)
            and part.get("type") == "object"
        ):
            assert part["additionalProperties"] is False
        if isinstance(part.get("$ref"), str):
            assert part["$ref"].removeprefix("#/$defs/") in schema["$defs"]


def test_the_schema_names_every_field_of_match_and_nothing_of_the_inside() -> None:
    schema = json_schema()
    assert set(schema["$defs"]["MatchMap"]["properties"]) == {
        "type",
        "status",
        "room",
        "room_id",
        "session_id",
        "asset_id",
        "job_id",
        "template_id",
        "template",
        "user_id",
        "peer_id",
        "size",
        "duration",
        "created",
        "path",
        "metadata",
        "thumbnails",
        "any",
        "all",
        "not",
    }
    assert "\\u0000" not in json.dumps(schema)


# ── Nothing that is written makes the reader fail ─────────────────────────────────────────────────

WORDS = st.sampled_from(
    [
        "version",
        "rules",
        "holds",
        "erasures",
        "id",
        "why",
        "owner",
        "match",
        "keep",
        "delete",
        "at_most",
        "then",
        "in",
        "for",
        "after",
        "basis",
        "released",
        "requested",
        "type",
        "status",
        "room",
        "room_id",
        "session_id",
        "asset_id",
        "template",
        "user_id",
        "peer_id",
        "size",
        "duration",
        "created",
        "path",
        "metadata",
        "any",
        "all",
        "not",
        "min",
        "max",
        "before",
        "<<",
        "secret",
    ]
)
VALUES = st.one_of(
    st.sampled_from(
        [
            "",
            "all",
            "1",
            "1y",
            "45d",
            "6m",
            "forever",
            "vault",
            "hosted",
            "delete",
            "leave",
            "legal",
            "chat",
            "completed",
            "null",
            "~",
            "true",
            "no",
            "2026-01-01",
            "2026-02-30",
            "9999-12-31",
            "0001-01-01",
            "-1",
            "0",
            "1e999",
            ".inf",
            "0o17",
            "9" * 400 + "d",
            "9" * 5000,
            "\0",
            "\0all",
            "é",
            KEY,
            "x y",
            "{asset_id}",
            "[",
            "!x",
            "&a",
            "*a",
        ]
    ),
    st.text(max_size=8),
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
)
TREES = st.recursive(
    VALUES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(WORDS, inner, max_size=5)
        | st.dictionaries(st.text(max_size=5), inner, max_size=2)
    ),
)


def never_raises(text: str) -> None:
    document, wrong = load_text(text, "x.yaml")
    if document.data is not None:
        policies, more = parse_policies(document, "Europe/Berlin")
        assert isinstance(policies, Policies)
        wrong = wrong + more
    for each in wrong:
        assert each.code in CODES
        assert each.span.line >= 1
        assert each.span.column >= 1
        assert "\n" not in each.text


@given(st.text())
@example("")
@example("- a")
@example("{")
@example("? [a]\n: b")
@example("%YAML 2.0\n---\na")
def test_no_text_makes_reading_fail(text: str) -> None:
    never_raises(text)


def test_a_text_that_no_file_can_hold_makes_nothing_fail() -> None:
    never_raises("why: \ud800")


@given(st.dictionaries(WORDS, TREES, max_size=6), st.booleans())
@settings(max_examples=250)
def test_no_shape_of_data_makes_reading_fail(data: dict[str, Any], quoted: bool) -> None:
    text = json.dumps({"version": 1} | data, ensure_ascii=False)
    never_raises(text if quoted else re.sub(r'"([\w.~-]+)"', r"\1", text))


@st.composite
def edited(draw: st.DrawFn) -> str:
    """A valid file with a few pieces cut out, doubled, moved or put in."""
    text = EVERY_KEY
    for _ in range(draw(st.integers(1, 5))):
        first = draw(st.integers(0, len(text)))
        last = min(len(text), first + draw(st.integers(0, 20)))
        signs = st.sampled_from(list("{}[]:,#&*!|>'\"%@\t\n-?~\x85"))
        piece = draw(
            st.one_of(st.just(""), st.just(text[first:last] * 2), st.text(max_size=4), signs)
        )
        text = text[:first] + piece + text[last:]
    return text


@given(edited())
@settings(max_examples=200)
def test_no_edit_of_a_sound_file_makes_reading_fail(text: str) -> None:
    never_raises(text)


@given(st.binary(max_size=200))
@settings(max_examples=100)
def test_no_bytes_make_reading_fail(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("bytes")
    (folder / "policies").mkdir()
    (folder / "policies" / "a.yaml").write_bytes(content)
    _, wrong = load_policies(folder, policy_files(folder), "UTC", STORES)
    assert all(each.code in CODES for each in wrong)
