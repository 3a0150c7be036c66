"""Mistakes, warnings and failed tests in the forms that CI systems show beside the lines they are
about."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from retainer.model.diagnostic import Diagnostic, Span
from retainer.model.outcome import Outcome
from retainer.model.printable import printable, shown
from retainer.views.units import many

MOST_ERRORS = 10
"""GitHub shows ten errors and ten warnings of a step, and passes over the rest without a word
(docs.github.com, "Annotation limits")."""


def of_outcomes(outcomes: Sequence[Outcome]) -> list[Diagnostic]:
    """Failed policy tests as mistakes at the place of their test."""
    found = []
    for outcome in outcomes:
        if outcome.failures:
            file, _, line = outcome.place.rpartition(":")
            at = int(line) if line.isdigit() else 1
            told = f"{outcome.name}: {'; '.join(outcome.failures)}"
            found.append(Diagnostic("T402", file, Span(at, 1, at, 1), told))
    return found


def annotated(
    form: str,
    mistakes: Sequence[Diagnostic],
    titles: Mapping[str, str],
    prefix: str = "",
    suite: str = "retainer",
    passed: Sequence[Outcome] = (),
    checked: Sequence[str] = (),
) -> str:
    """Mistakes as github, gitlab, sarif or junit wants them.

    `titles`: what each code is called; `prefix`: what leads from the repository's root to the
    project, empty or ending in a slash; `passed`: tests that passed, and `checked`: files without a
    mistake, which JUnit counts.
    """
    in_order = sorted(mistakes, key=lambda each: each.order)
    match form:
        case "github":
            return "".join(f"{line}\n" for line in _github(in_order, titles, prefix))
        case "gitlab":
            return _json(list(_gitlab(in_order, prefix)))
        case "sarif":
            return _json(_sarif(in_order, titles, prefix))
        case _:
            return _junit(in_order, prefix, suite, passed, checked)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=True) + "\n"


def _message(mistake: Diagnostic) -> str:
    hint = f" ({mistake.hint})" if mistake.hint else ""
    return printable(mistake.message + hint)


def _github(
    mistakes: Sequence[Diagnostic], titles: Mapping[str, str], prefix: str
) -> Iterator[str]:
    for is_warning, word in ((False, "error"), (True, "warning")):
        alike = [each for each in mistakes if each.is_warning is is_warning]
        for number, each in enumerate(alike[:MOST_ERRORS]):
            left = len(alike) - MOST_ERRORS
            more = (
                f" … and {many(left, f'more {word}')} that GitHub would not show"
                if number == MOST_ERRORS - 1 and left > 0
                else ""
            )
            span = each.span
            where = {"file": prefix + each.file, "line": span.line, "endLine": span.end_line}
            if span.end_line == span.line and span.end_column > span.column:
                where |= {"col": span.column, "endColumn": span.end_column - 1}
            where["title"] = f"{each.code} {titles.get(each.code, '')}".strip()
            told = ",".join(f"{name}={_property(str(value))}" for name, value in where.items())
            yield f"::{word} {told}::{_data(_message(each) + more)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _gitlab(mistakes: Sequence[Diagnostic], prefix: str) -> Iterator[dict[str, Any]]:
    seen: Counter[str] = Counter()
    for each in mistakes:
        # Lines move; the same mistake in the same file stays the same one.
        what = f"{each.code}\0{each.file}\0{each.message}"
        seen[what] += 1
        digest = hashlib.sha256(f"{what}\0{seen[what]}".encode(errors="replace")).hexdigest()
        yield {
            "type": "issue",
            "check_name": each.code,
            "description": _message(each),
            "categories": ["Style" if each.is_warning else "Bug Risk"],
            "severity": "minor" if each.is_warning else "major",
            "fingerprint": digest[:32],
            "location": {
                "path": prefix + each.file,
                "lines": {"begin": each.span.line, "end": each.span.end_line},
            },
        }


def _sarif(
    mistakes: Sequence[Diagnostic], titles: Mapping[str, str], prefix: str
) -> dict[str, Any]:
    codes = sorted({each.code for each in mistakes})
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "retainer",
                        "rules": [
                            {"id": code, "shortDescription": {"text": titles.get(code, code)}}
                            for code in codes
                        ],
                    }
                },
                "columnKind": "unicodeCodePoints",
                "results": [
                    {
                        "ruleId": each.code,
                        "ruleIndex": codes.index(each.code),
                        "level": "warning" if each.is_warning else "error",
                        "message": {"text": _message(each)},
                        "locations": [
                            {
                                "physicalLocation": {
                                    "artifactLocation": {"uri": _uri(prefix + each.file)},
                                    "region": {
                                        "startLine": each.span.line,
                                        "startColumn": each.span.column,
                                        "endLine": each.span.end_line,
                                        "endColumn": max(each.span.end_column, 1),
                                    },
                                }
                            }
                        ],
                    }
                    for each in mistakes
                ],
            }
        ],
    }


def _uri(path: str) -> str:
    """A relative path as a URI reference (RFC 3986)."""
    safe = re.compile(r"[A-Za-z0-9/._~-]")
    return "".join(
        letter
        if safe.fullmatch(letter)
        else "".join(f"%{byte:02X}" for byte in letter.encode(errors="replace"))
        for letter in path
    )


def _junit(
    mistakes: Sequence[Diagnostic],
    prefix: str,
    suite: str,
    passed: Sequence[Outcome],
    checked: Sequence[str],
) -> str:
    wrong = [each for each in mistakes if not each.is_warning]
    files = {each.file for each in mistakes}
    fine = [file for file in checked if file not in files]
    root = ElementTree.Element(
        "testsuite",
        name=suite,
        tests=str(len(mistakes) + len(passed) + len(fine)),
        failures=str(len(wrong)),
        errors="0",
        skipped=str(len(mistakes) - len(wrong)),
    )
    for outcome in shown(tuple(passed)):
        file = prefix + outcome.place.rpartition(":")[0]
        ElementTree.SubElement(root, "testcase", name=outcome.name, classname=file, file=file)
    for file in fine:
        ElementTree.SubElement(
            root, "testcase", name="is valid", classname=prefix + file, file=prefix + file
        )
    for each in mistakes:
        case = ElementTree.SubElement(
            root,
            "testcase",
            name=f"{each.code} at line {each.span.line}",
            classname=printable(prefix + each.file),
            file=printable(prefix + each.file),
        )
        kind = "skipped" if each.is_warning else "failure"
        found = ElementTree.SubElement(case, kind, message=_message(each))
        found.text = f"{printable(each.file)}:{each.span.line}:{each.span.column}"
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
