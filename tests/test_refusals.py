"""Hostile inputs, one after the other on one project: each is refused in words, by its own exit
code, and nothing in any store is another one afterwards."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from project import Project, make_project

from retainer import planfile
from retainer.demo.standin import StandIn
from retainer.planfile import read_plan

A, B = "a" * 24, "b" * 24
RULES = "policies/rules.yaml"
SETTINGS = "retainer.yaml"
RULE = "version: 1\nrules: [{ id: r, match: %s, keep: [{ in: vault, for: 1y }] }]\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Two uploads, both copied; one may go from uploads, as p.plan says. facts.duckdb: the same as
    a snapshot."""
    with StandIn() as api:
        made = make_project(tmp_path_factory.mktemp("hostile") / "project", api, "local", "")
        made.copied_and_due(A, B)
        made.run("facts", "--out", "facts.duckdb")
        yield made


def refused(project: Project, code: int, *words: str) -> str:
    """What a command says that ends with this code: a sentence, and no fault of its own."""
    before = {name: project.content(name) for name in project.stores}
    done = project.run(*words, expect=code)
    said = done.stdout + done.stderr
    assert "could not go on" not in said and "Traceback" not in said, said
    assert said.strip()
    assert {name: project.content(name) for name in project.stores} == before
    return said


def with_file(project: Project, name: str, content: bytes, code: int, *words: str) -> str:
    """The same, with a file as it is not meant to be; it is put back afterwards."""
    path = project.root / name
    whole = path.read_bytes() if path.exists() else None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    try:
        return refused(project, code, *words)
    finally:
        if whole is None:
            path.unlink()
        else:
            path.write_bytes(whole)


POLICIES: dict[str, str | bytes] = {
    "nothing at all": "",
    "a list": "- version: 1\n",
    "a number": "7\n",
    "two documents": "version: 1\nrules: []\n---\nversion: 1\n",
    "another version": RULE.replace("version: 1", "version: 2") % "all",
    "a version as text": RULE.replace("version: 1", "version: one") % "all",
    "no version": "rules: []\n",
    "a NUL": "version: 1\nrules: [\0]\n",
    "bytes that are no UTF-8": b"version: 1\nrules: [\xff\xfe]\n",
    "UTF-16": ("version: 1\n" * 3).encode("utf-16"),
    "a tab where blanks belong": "version: 1\nrules:\n\t- id: r\n",
    "an alias of nothing": "version: 1\nrules: *all\n",
    "an anchor that holds itself": "version: 1\nrules: &a [*a]\n",
    "a tag of Python": "version: 1\nrules: !!python/tuple []\n",
    "a key that is a list": "version: 1\n? [a, b]\n: 1\n",
    "a rule without an id": "version: 1\nrules: [{ match: all, at_most: 1y }]\n",
    "an id with a slash": (RULE % "all").replace("id: r", "id: ../r"),
    "an id of a line": (RULE % "all").replace("id: r", 'id: "r\\nx"'),
    "a match of nothing": RULE % "{}",
    "a match that nests a thousand deep": RULE % ("{ not: " * 1000 + "all" + " }" * 1000),
    "a size below nothing": RULE % "{ size: { min: -1 } }",
    "a size beyond every number": RULE % "{ size: { min: 1e999 } }",
    "no number": RULE % "{ duration: { max: .nan } }",
    "a glob that is not closed in a list of lists": RULE % "{ room: [[a]] }",
    "a date of the Bible": RULE % "{ created: { before: -4000-01-01 } }",
    "a period of words": (RULE % "all").replace("1y", "a year"),
    "a period in minutes": (RULE % "all").replace("1y", "5m"),
    "a period of ten billion years": (RULE % "all").replace("1y", "9999999999y"),
    "a period that is negative": (RULE % "all").replace("1y", "-1y"),
    "a store that is not declared": (RULE % "all").replace("vault", "cellar"),
    "a store that stands for none": (RULE % "all").replace("vault", "hosted"),
    "a hold without a store": "version: 1\nholds: [{ id: h, why: w, match: all }]\n",
    "a decision that is none": "version: 1\nerasures: [{ id: e, why: w, match: all, decided: "
    "[{ asset_id: a, decision: perhaps, why: w }] }]\n",
    "a decision about nobody": "version: 1\nerasures: [{ id: e, why: w, match: all, decided: "
    "[{ asset_id: [], decision: stay, why: w }] }]\n",
}


@pytest.mark.parametrize("text", POLICIES.values(), ids=POLICIES)
def test_a_policy_that_is_none_stops_the_plan(project: Project, text: str | bytes) -> None:
    content = text if isinstance(text, bytes) else text.encode()
    said = with_file(project, RULES, content, 10, "plan", "--facts", "facts.duckdb")
    assert f"{RULES}:" in said, "it says where"


def settings(project: Project, old: str, new: str) -> bytes:
    text = (project.root / SETTINGS).read_text()
    assert old in text
    return text.replace(old, new, 1).encode()


WRONG_SETTINGS: dict[str, tuple[str, str]] = {
    "a zone that is a path": ("version: 1", "version: 1\ntimezone: ../../etc/localtime"),
    "a zone that is empty": ("version: 1", 'version: 1\ntimezone: ""'),
    "a state in the policies": ("version: 1", "version: 1\nstate: policies/x"),
    "a state with a NUL": ("version: 1", 'version: 1\nstate: "a\\0b"'),
    "a state of another protocol": ("version: 1", "version: 1\nstate: ftp://host/x"),
    "a state with a password": ("version: 1", "version: 1\nstate: s3://user:secret@bucket/x"),
    "a source with a blank": ("source:", "source_: {}\nsource:"),
    "a limit beyond a hundred percent": ("percent: 100", "percent: 101"),
    "a limit below nothing": ("count: 500", "count: -1"),
    "a limit that is no number": ("count: 500", "count: many"),
    "a size without a unit that there is": ("bytes: 1TB", "bytes: 1parsec"),
    "cooling for ever": ("limits:", "limits:\n  cooling: forever"),
    "cooling without a unit": ("limits:", "limits:\n  cooling: 30"),
    "a plan that lasts for ever": ("limits:", "limits:\n  plan_age: forever"),
    "a store twice": ("stores:", "stores:\n  vault: { url: s3://a/b }"),
    "a store in a store": (
        "stores:",
        "stores:\n  inner: { url: s3://a/b }\n  outer: { url: s3://a }",
    ),
    "a store of no scheme": ("stores:", "stores:\n  odd: { url: /srv/vault }"),
    "a store of another machine": ("stores:", "stores:\n  odd: { url: file://host/vault }"),
    "a layout without an id": ("stores:", "stores:\n  odd: { url: s3://a/b, layout: x }"),
    "a layout that climbs": (
        "stores:",
        'stores:\n  odd: { url: s3://a/b, layout: "../{asset_id}" }',
    ),
    "an endpoint with a password": (
        "stores:",
        "stores:\n  odd: { url: s3://a/b, endpoint: https://u:p@host }",
    ),
    "a lock of another kind": ("stores:", "stores:\n  odd: { url: s3://a/b, lock: soft }"),
}


@pytest.mark.parametrize(("old", "new"), WRONG_SETTINGS.values(), ids=WRONG_SETTINGS)
def test_settings_that_are_none_stop_the_plan(project: Project, old: str, new: str) -> None:
    content = settings(project, old, new)
    said = with_file(project, SETTINGS, content, 10, "plan", "--facts", "facts.duckdb")
    assert "secret" not in said and "u:p@" not in said


def test_settings_that_are_no_file_are_told(project: Project) -> None:
    path = project.root / SETTINGS
    aside = path.rename(project.root / "aside")
    path.mkdir()
    try:
        refused(project, 10, "plan", "--facts", "facts.duckdb")
    finally:
        path.rmdir()
        aside.rename(path)


# ── plans ─────────────────────────────────────────────────────────────────────────────────────────


def header_with(**more: Any) -> Callable[[Path], bytes]:
    """A plan whose header claims something else, by whoever can make a Parquet file, its digest
    right."""

    def forged(path: Path) -> bytes:
        plan = read_plan(path)
        header = plan.header.model_copy(update={"digest": "0" * 64, **more})
        text = planfile.canonical(header).replace("'", "''")
        out = path.with_name("forged.parquet")
        with duckdb.connect() as other:
            other.execute(
                f"COPY (FROM read_parquet('{plan.copy}')) TO '{out}' (FORMAT parquet, "
                f"KV_METADATA {{'retainer.plan': '{text}'}})"
            )
        content = bytearray(out.read_bytes())
        out.unlink()
        place = content.rfind(b"0" * 64)
        content[place : place + 64] = hashlib.sha256(content).hexdigest().encode()
        return bytes(content)

    return forged


FORGED: dict[str, tuple[Callable[[Path], bytes], int]] = {
    "nothing": (lambda _: b"", 5),
    "the beginning of one": (lambda path: path.read_bytes()[:100], 5),
    "one less a byte": (lambda path: path.read_bytes()[:-1], 5),
    "one and a byte": (lambda path: path.read_bytes() + b"x", 5),
    "one flipped in the middle": (
        lambda path: (
            path.read_bytes()[:200] + bytes([path.read_bytes()[200] ^ 1]) + path.read_bytes()[201:]
        ),
        5,
    ),
    "JSON": (lambda _: json.dumps({"format": "4.6"}).encode(), 5),
    "a page of HTML": (lambda _: b"<html>404</html>", 5),
    "the facts": (lambda path: path.with_name("facts.duckdb").read_bytes(), 5),
    "a plan of another format": (header_with(format="5.0"), 5),
    "a plan that has expired": (header_with(expires="2026-01-01T00:00:00Z"), 5),
    "a plan without an end": (header_with(expires="never"), 5),
    "a plan of tomorrow": (header_with(as_of="2099-01-01T00:00:00Z"), 5),
    "a plan of other policies": (header_with(policy_digest="0" * 64), 5),
    "a plan that counts fewer deletes": (header_with(deletes=0), 5),
    "a plan that counts more copies": (header_with(copies=7), 5),
}


@pytest.mark.parametrize(("made", "code"), FORGED.values(), ids=FORGED)
def test_a_plan_that_is_none_is_not_applied(
    project: Project, made: Callable[[Path], bytes], code: int
) -> None:
    content = made(project.root / "p.plan")
    with_file(project, "odd.plan", content, code, "apply", "odd.plan", "--approve-deletes", "1")


def test_an_approval_of_another_number_is_none(project: Project) -> None:
    for number in ("2", "100000000000000000000"):
        refused(project, 64, "apply", "p.plan", "--approve-deletes", number)
    refused(project, 5, "apply", "p.plan", "--fingerprint", "0" * 64)
    refused(project, 5, "apply", ".", "--approve-deletes", "1")
    refused(project, 5, "apply", os.devnull, "--approve-deletes", "1")


# ── facts, words ──────────────────────────────────────────────────────────────────────────────────

FACTS: dict[str, bytes] = {
    "nothing": b"",
    "a text": b"facts\n",
    "the beginning of a database": b"\0" * 8 + b"DUCK" + b"\0" * 4000,
}


@pytest.mark.parametrize("content", FACTS.values(), ids=FACTS)
def test_facts_that_are_none_are_told(project: Project, content: bytes) -> None:
    with_file(project, "odd.duckdb", content, 1, "plan", "--facts", "odd.duckdb")


WORDS: dict[str, tuple[int, tuple[str, ...]]] = {
    "a moment that is none": (64, ("plan", "--as-of", "tomorrow")),
    "a moment without a zone": (64, ("plan", "--as-of", "2026-11-01T10:00:00")),
    "a span that is none": (64, ("plan", "--fail-if-at-risk", "soon")),
    "a match that is none": (64, ("plan", "--only", "{ type: [ }")),
    "a match of everything in another language": (64, ("plan", "--only", "SELECT 1")),
    "a limit that is none": (64, ("plan", "--lift", "everything")),
    "a form that is none": (64, ("plan", "--format", "pdf")),
    "a plan over the settings": (64, ("plan", "--out", SETTINGS)),
    "a plan over a folder": (64, ("plan", "--out", "policies")),
    "a plan below a file": (64, ("plan", "--out", f"{SETTINGS}/x.plan")),
    "facts over a plan": (64, ("facts", "--out", "p.plan")),
    "an id that is a path": (1, ("explain", "../../etc/passwd")),
    "an id of ten thousand letters": (1, ("explain", "x" * 10_000)),
    "a code that is none": (64, ("help", "P999")),
    "a command that is none": (64, ("delete", "everything")),
}


@pytest.mark.parametrize(("code", "words"), WORDS.values(), ids=WORDS)
def test_words_that_mean_nothing_are_told(
    project: Project, code: int, words: tuple[str, ...]
) -> None:
    refused(project, code, *words)


# ── the record, the catalog ───────────────────────────────────────────────────────────────────────


def segments(project: Project) -> list[Path]:
    return sorted((project.root / ".retainer" / "journal").glob("*.jsonl"))


RECORDS: dict[str, Callable[[bytes], bytes]] = {
    "a line that is no JSON": lambda text: b"{\n" + text,
    "a line that is a list": lambda text: b"[]\n" + text,
    "a line in the middle that was taken out": lambda text: b"".join(
        line for n, line in enumerate(text.splitlines(keepends=True)) if n != 1
    ),
    "two lines in the other order": lambda text: b"".join(
        [text.splitlines(keepends=True)[n] for n in (1, 0)] + text.splitlines(keepends=True)[2:]
    ),
    "a word changed": lambda text: text.replace(b'"copied"', b'"edited"', 1),
    "a NUL in a line": lambda text: text.replace(b'"event"', b'"ev\0nt"', 1),
}


@pytest.mark.parametrize("change", RECORDS.values(), ids=RECORDS)
def test_a_record_that_was_edited_is_told_by_an_audit(
    project: Project, change: Callable[[bytes], bytes]
) -> None:
    path = max(segments(project), key=lambda each: each.stat().st_size)
    name = str(path.relative_to(project.root))
    changed = change(path.read_bytes())
    assert changed != path.read_bytes()
    said = with_file(project, name, changed, 1, "audit", "verify")
    assert path.name in said or "line" in said
