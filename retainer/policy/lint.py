"""What only shows across files: ids used twice, stores that nobody declared, and no rule file at
all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from retainer.model.rule import Policies
from retainer.model.setting import RESERVED_STORES
from retainer.policy.diagnostics import Diagnostic, Span, nearest
from retainer.policy.files import POLICY_FOLDER, PolicyFiles
from retainer.policy.load import Document, Location, load_file
from retainer.policy.parse import parse_policies


def load_policies(
    root: Path,
    found: PolicyFiles,
    timezone: str,
    stores: frozenset[str] | None,
    locking: frozenset[str] = frozenset(),
) -> tuple[Policies, list[Diagnostic]]:
    """The policies of all files and all their mistakes. `stores`: those declared, or None where
    that is not checked; `locking`: those of them that lock their copies."""
    documents: list[tuple[Document, Policies]] = []
    wrong: list[Diagnostic] = list(found.wrong)
    for path in found.files:
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
        document, unread = load_file(path, name)
        wrong += unread
        if document.data is not None:
            policies, mistakes = parse_policies(document, timezone)
            wrong += mistakes
            documents.append((document, policies))
            wrong += _undeclared(document, stores) if stores is not None else ()
            wrong += _locked_for_ever(document, policies, locking)
    wrong += _used_twice(documents)
    if not documents and not wrong:
        message = f"there is no rule file under {POLICY_FOLDER}/"
        wrong.append(
            Diagnostic(
                "P206",
                f"{POLICY_FOLDER}/",
                Span(1, 1, 1, 1),
                message,
                "`retainer init` writes a start",
            )
        )
    whole = Policies(
        tuple(rule for _, policies in documents for rule in policies.rules),
        tuple(hold for _, policies in documents for hold in policies.holds),
        tuple(erasure for _, policies in documents for erasure in policies.erasures),
        tuple(accepted for _, policies in documents for accepted in policies.accepts),
        tuple(loss for _, policies in documents for loss in policies.losses),
    )
    return whole, sorted(set(wrong), key=lambda diagnostic: diagnostic.order)


_NAMED_BY = (
    ("rules", "id"),
    ("holds", "id"),
    ("erasures", "id"),
    ("accept", "asset_id"),
    ("losses", "asset_id"),
)


def _items(document: Document) -> Iterator[tuple[tuple[str, str], Location]]:
    """Every id of a document as it was written, with what it must be the only one of, whether or
    not the rest of its item makes sense."""
    data = document.data if isinstance(document.data, dict) else {}
    for section, key in _NAMED_BY:
        items = data.get(section)
        for number, item in enumerate(items if isinstance(items, list) else ()):
            if isinstance(item, dict) and isinstance(item.get(key), str):
                one_of = section if key == "asset_id" else ""
                yield (one_of, str(item[key])), (section, number, key)


def _used_twice(documents: list[tuple[Document, Policies]]) -> Iterator[Diagnostic]:
    first: dict[tuple[str, str], str] = {}
    for document, _ in documents:
        for named, location in _items(document):
            span = document.span(location)
            section, name = named
            if named in first:
                hint = "one entry is enough" if section else "give it another id"
                yield document.complain(
                    "P201", location, f"the id `{name}` is used already, at {first[named]}", hint
                )
            first.setdefault(named, f"{document.file}:{span.line}")


def _locked_for_ever(
    document: Document, policies: Policies, locking: frozenset[str]
) -> Iterator[Diagnostic]:
    for rule in policies.rules:
        for keep in rule.keeps:
            if keep.period.forever and keep.store in locking:
                rules = document.data["rules"] if isinstance(document.data, dict) else ()
                number = next(
                    (
                        n
                        for n, item in enumerate(rules)
                        if isinstance(item, dict) and item.get("id") == rule.id
                    ),
                    None,
                )
                if number is None:
                    continue
                clause = rule.keeps.index(keep)
                message = (
                    f"`{keep.store}` locks its copies until their keep is over, and this one "
                    "never is"
                )
                hint = "give it an end, or keep it in a store without `lock`"
                yield document.complain(
                    "P214", ("rules", number, "keep", clause, "for"), message, hint
                )


def _undeclared(document: Document, stores: frozenset[str]) -> Iterator[Diagnostic]:
    data = document.data if isinstance(document.data, dict) else {}

    def listed(section: str) -> list[Any]:
        items = data.get(section)
        return items if isinstance(items, list) else []

    places: list[tuple[object, Location]] = []
    for number, item in enumerate(listed("rules")):
        for clause in ("keep", "delete"):
            clauses = item.get(clause) if isinstance(item, dict) else None
            for n, entry in enumerate(clauses if isinstance(clauses, list) else ()):
                if isinstance(entry, dict):
                    places.append((entry.get("in"), ("rules", number, clause, n, "in")))
    for number, item in enumerate(listed("holds")):
        if isinstance(item, dict):
            places.append((item.get("in"), ("holds", number, "in")))
    for name, location in places:
        if isinstance(name, str) and name not in stores and name not in RESERVED_STORES:
            close = nearest(name, sorted(stores))
            hint = (
                f"did you mean `{close}`?"
                if close
                else "declare it under `stores:` in retainer.yaml"
            )
            yield document.complain("P202", location, f"the store `{name}` is not declared", hint)
