"""YAML text -> plain data with the place of every value. YAML 1.2 core schema, and nothing that
hides what is written."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from retainer.policy.diagnostics import Diagnostic, Span

_LARGEST_FILE = 1 << 20
_MOST_COPIED = 10_000
"""So many values may be there only since aliases repeat them; what is plainly there is bounded by
the size of the file."""
_DEEPEST = 50
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Location = tuple[str | int, ...]


class Plain(str):
    """An unquoted scalar, as it was written; `resolved` gives its YAML 1.2 core value."""

    __slots__ = ()


_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


def resolved(value: Any) -> Any:
    """The value with every plain scalar resolved by the YAML 1.2 core schema; `no` and dates stay
    text."""
    if isinstance(value, dict):
        return {str(key): resolved(item) for key, item in value.items()}
    if isinstance(value, list):
        return [resolved(item) for item in value]
    if not isinstance(value, Plain):
        return value
    if value in ("", "~", "null", "Null", "NULL"):
        return None
    if value in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return value.lower() == "true"
    if _INT.fullmatch(value) and len(value) < 1000:
        return int(value)
    if _OCTAL.fullmatch(value):
        return int(value[2:], 8)
    if _HEX.fullmatch(value):
        return int(value[2:], 16)
    if _FLOAT.fullmatch(value):
        return float(value)
    return str(value)


SECRET_KEY = re.compile(
    r"(?i)(secret|passw|token|credential|access_?key|private_?key|api_?key|authorization)"
)
SECRET_VALUE = re.compile(
    r"(?:AKIA|ASIA)[A-Z0-9]{16}|-----BEGIN [A-Z ]{0,40}PRIVATE "
    r"KEY|eyJ[\w-]{8,500}\.eyJ[\w-]{1,2000}\.[\w-]{1,1000}"
    r"|[?&](?:X-Amz-Signature|X-Goog-Signature|Signature|sig)=[^&\s]*|://[^/\s:@]{1,200}:[^/\s@]{1,200}@"
)
SECRET_ENTRY = re.compile(SECRET_KEY.pattern + r"[\w-]*[\"']?\s*:")


@dataclass
class Document:
    """One file: its data, the spans of its values and keys by location, and its lines."""

    file: str
    data: Any = None
    values: dict[Location, Span] = field(default_factory=dict)
    keys: dict[Location, Span] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def span(self, location: Location, *, key: bool = False) -> Span:
        """The place of a value (or of its key): the nearest enclosing one where the location itself
        has none."""
        while True:
            if key and location in self.keys:
                return self.keys[location]
            if location in self.values:
                return self.values[location]
            if not location:
                return Span(1, 1, 1, 2)
            location = location[:-1]

    def complain(
        self,
        code: str,
        location: Location,
        message: str,
        hint: str | None = None,
        *,
        key: bool = False,
    ) -> Diagnostic:
        return self.at(code, self.span(location, key=key), message, hint)

    def at(self, code: str, span: Span, message: str, hint: str | None = None) -> Diagnostic:
        """A complaint; what looks like a credential is in neither its words nor the line that it
        shows."""
        text = self.lines[span.line - 1] if 0 < span.line <= len(self.lines) else ""
        words = SECRET_VALUE.sub("…", message), SECRET_VALUE.sub("…", hint) if hint else None
        return Diagnostic(code, self.file, span, *words, "" if _may_hold_a_secret(text) else text)


@lru_cache(1)  # a long line may have thousands of mistakes
def _may_hold_a_secret(line: str) -> bool:
    return bool(SECRET_VALUE.search(line) or SECRET_ENTRY.search(line))


class _Stop(Exception):
    """Reading this document cannot go on."""


class _Reader:
    """Builds data from the parser's events, and collects what is wrong on the way."""

    def __init__(self, document: Document, text: str) -> None:
        self.document = document
        self.events: Iterator[Any] = iter(yaml.parse(text, Loader=_Loader))
        self.wrong: list[Diagnostic] = []
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.nodes = self.copied = 0

    def complain(self, code: str, event: Any, message: str, hint: str | None = None) -> None:
        self.wrong.append(self.document.at(code, _span(event), message, hint))

    def read(self) -> Any:
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                return self.node(next(self.events), (), 0)
        return None

    def node(self, event: Any, location: Location, depth: int) -> Any:
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                self.complain(
                    "Y005",
                    event,
                    f"`*{event.anchor}` refers to nothing that was finished before it",
                    f"a text that begins with `*` is written in quotes: '*{event.anchor}'",
                )
                raise _Stop
            value, size = self.anchors[event.anchor]
            self.nodes += size
            self.copied += size
            if self.copied > _MOST_COPIED:
                self.complain(
                    "Y005",
                    event,
                    f"aliases make this file grow by more than {_MOST_COPIED:,} values",
                    "write fewer of them",
                )
                raise _Stop
            self.document.values[location] = _span(event)
            return value
        before = self.nodes
        self.nodes += 1
        if depth > _DEEPEST:
            self.complain("Y005", event, f"nested more than {_DEEPEST} levels deep")
            raise _Stop
        if event.tag is not None:
            self.complain(
                "Y003",
                event,
                f"the tag `{event.tag}` is not allowed",
                "remove it; policies are plain data",
            )
        if isinstance(event, yaml.ScalarEvent):
            value = event.value if event.style in ("'", '"', "|", ">") else Plain(event.value)
            self.document.values[location] = _span(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = []
            for item in iter(lambda: next(self.events), None):
                if isinstance(item, yaml.SequenceEndEvent):
                    self.document.values[location] = _span(event, item)
                    break
                value.append(self.node(item, (*location, len(value)), depth + 1))
        else:
            value = self.mapping(event, location, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = (value, self.nodes - before)
        return value

    def mapping(self, start: Any, location: Location, depth: int) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for event in iter(lambda: next(self.events), None):
            if isinstance(event, yaml.MappingEndEvent):
                self.document.values[location] = _span(start, event)
                break
            if not isinstance(event, yaml.ScalarEvent):
                self.complain("P103", event, "a key must be text")
                raise _Stop
            key, here = str(event.value), (*location, str(event.value))
            if event.tag is not None and event.tag != "!":
                self.complain(
                    "Y003",
                    event,
                    f"the tag `{event.tag}` is not allowed",
                    "remove it; policies are plain data",
                )
            if "\0" in key:
                key = key.replace("\0", "\ufffd")  # no key of ours can be spelt in a file
                here = (*location, key)
            if key == "<<" and not event.style:
                self.complain("Y004", event, "merge keys are not allowed", "write the keys out")
            elif key in value:
                first = self.document.keys[here]
                self.complain(
                    "Y002",
                    event,
                    f"`{key}` stands here twice (first on line {first.line})",
                    "remove one",
                )
            self.document.keys.setdefault(here, _span(event))
            item = self.node(next(self.events), here, depth + 1)
            if key != "<<":
                value[key] = item
        return value


def _span(start: Any, end: Any | None = None) -> Span:
    first, last = start.start_mark, (end or start).end_mark
    return Span(first.line + 1, first.column + 1, last.line + 1, last.column + 1)


def load_text(text: str, file: str) -> tuple[Document, list[Diagnostic]]:
    """Read one YAML document; `file` is the name that diagnostics show. Never raises for bad
    input."""
    document = Document(file, lines=re.split("\r\n|\r|\n", text.removesuffix("\n")))
    if odd := re.search("[\x85\u2028\u2029]", text):
        # YAML 1.1, and with it libyaml, ends a line there; git, editors and YAML 1.2 do not.
        line = len(re.findall("\r\n|\r|\n", text[: odd.start()])) + 1
        column = odd.start() - max(
            text.rfind("\n", 0, odd.start()), text.rfind("\r", 0, odd.start())
        )
        name = unicodedata.name(odd[0], "NEXT LINE")
        message = (
            f"U+{ord(odd[0]):04X} ({name}) stands here, which some programs take for the end "
            "of a line"
        )
        return document, [
            document.at(
                "Y007",
                Span(line, column, line, column + 1),
                message,
                "take it away; in quotes it can be written as \\u2028",
            )
        ]
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        return document, [
            document.at(
                "Y007",
                Span(1, 1, 1, 2),
                "the text holds half a character",
                "save the file as UTF-8",
            )
        ]
    reader = _Reader(document, text)
    try:
        document.data = reader.read()
        for event in reader.events:
            if isinstance(event, yaml.DocumentStartEvent):
                reader.complain(
                    "Y008", event, "a second document begins here", "one file holds one document"
                )
                break
    except _Stop:
        document.data = None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problem = error.problem or "cannot be read"
        if line <= len(document.lines) and document.lines[line - 1][column - 1 : column] == "\t":
            problem = "found a tab, which cannot indent anything: use spaces"
        hint = None
        if "mapping values are not allowed" in problem:
            problem = "a `:` stands where none can"
            before = document.lines[line - 1][: column - 1] if line <= len(document.lines) else ""
            hint = (
                'a text that has `: ` in it is put in quotes, such as "Acme: the second case"'
                if ": " in before
                else "is a blank missing behind a `:` above?"
            )
        if line > len(document.lines) and document.lines:
            line, column = len(document.lines), len(document.lines[-1]) + 1
        reader.wrong.append(
            document.at("Y001", Span(line, column, line, column + 1), problem, hint)
        )
        document.data = None
    except yaml.YAMLError as error:
        reader.wrong.append(document.at("Y007", Span(1, 1, 1, 2), str(error).splitlines()[0]))
        document.data = None
    if document.data is None and not reader.wrong:
        reader.wrong.append(
            document.at("Y008", Span(1, 1, 1, 2), "the file is empty", "begin with `version: 1`")
        )
    elif not reader.wrong and not isinstance(document.data, dict):
        reader.wrong.append(
            document.at(
                "Y008", Span(1, 1, 1, 2), "a mapping is needed here", "begin with `version: 1`"
            )
        )
    if not isinstance(document.data, dict):
        document.data = None
    return document, reader.wrong


def load_file(path: Path, file: str) -> tuple[Document, list[Diagnostic]]:
    """Read one YAML file, once. What cannot be read is a mistake as well."""
    empty = Document(file)

    def unread(code: str, line: int, message: str, hint: str) -> tuple[Document, list[Diagnostic]]:
        return empty, [empty.at(code, Span(line, 1, line, 2), message, hint)]

    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                return unread("P215", 1, "this is no file", "a policy is a file that can be read")
            content = stream.read(_LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return unread(
            "P215", 1, f"the file cannot be read: {reason}", "make it readable, or take it away"
        )
    if len(content) > _LARGEST_FILE:
        return unread("Y006", 1, f"the file is larger than {_LARGEST_FILE >> 20} MiB", "split it")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return unread("Y007", line, f"byte {error.start} is not UTF-8", "save the file as UTF-8")
    return load_text(text, file)
