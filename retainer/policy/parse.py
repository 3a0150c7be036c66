"""A loaded document -> nouns, with every mistake of shape and meaning that one file can show."""

from __future__ import annotations

import copy
import re
import types
import typing
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import Any

from pydantic import BaseModel, ValidationError

from retainer.model.calendar import start_of_day, zone_named
from retainer.model.moment import read_moment
from retainer.model.printable import printable
from retainer.model.rule import (
    ASSET_TYPES,
    GLOB_FACTS,
    NUMBER_FACTS,
    STATUSES,
    TEXT_FACTS,
    Acceptance,
    AllOf,
    AnyOf,
    Between,
    Created,
    Delete,
    Erasure,
    Everything,
    Glob,
    Hold,
    Keep,
    Match,
    Metadata,
    Not,
    OneOf,
    Policies,
    Rule,
    Thumbnails,
    Where,
)
from retainer.model.setting import RESERVED_STORES
from retainer.policy.diagnostics import Diagnostic, nearest
from retainer.policy.load import SECRET_KEY, SECRET_VALUE, Document, Location, load_text, resolved
from retainer.policy.schema import (
    EVERYTHING,
    UNSEEN,
    AcceptanceItem,
    DecidedItem,
    ErasureItem,
    HoldItem,
    MatchMap,
    PolicyFile,
    Range,
    RuleItem,
)

_KINDS = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "list_type": "a list (lines that begin with `-`)",
    "model_type": "a mapping (`key: value`)",
    "dict_type": "a mapping (`key: value`)",
    "bool_type": "true or false",
    "model_attributes_type": "a mapping (`key: value`)",
}


Model = typing.TypeVar("Model", bound=BaseModel)
Noun = typing.TypeVar("Noun", Rule, Hold, Erasure, Acceptance)


def checked(document: Document, model: type[Model]) -> tuple[Model | None, list[Diagnostic]]:
    """The document as its pydantic model with everything that does not fit; what does not fit is
    left out, or it is None."""
    wrong = list(_credentials(document))
    hidden = {item.span for item in wrong}
    try:
        return model.model_validate(document.data), wrong
    except ValidationError as error:
        mistakes: list[dict[str, Any]] = [
            {**each, "loc": tuple(part for part in each["loc"] if not _is_unseen(part))}
            for each in error.errors(include_url=False)
        ]
    misspelt = {
        (*each["loc"][:-1], _close(model, each["loc"]))
        for each in mistakes
        if each["type"] == "extra_forbidden"
    }
    told = (
        each for each in mistakes if each["type"] != "missing" or tuple(each["loc"]) not in misspelt
    )
    wrong += [
        item for each in told if (item := _translated(document, model, each)).span not in hidden
    ]
    try:
        return model.model_validate(
            _without(document.data, [tuple(each["loc"]) for each in mistakes])
        ), wrong
    except ValidationError:
        return None, wrong


def _is_unseen(part: int | str) -> bool:
    return isinstance(part, str) and part.startswith(UNSEEN)


def _without(data: Any, places: list[Location], here: Location = ()) -> Any:
    """The data less the keys at these places, so that the rest can still be looked at in the same
    run."""
    if isinstance(data, dict):
        return {
            key: _without(item, places, (*here, key))
            for key, item in data.items()
            if (*here, key) not in places
        }
    return data


def _close(model: type[BaseModel], location: Location) -> str | None:
    """The key that was probably meant by an unknown one."""
    return nearest(str(location[-1]), _keys(model, location[:-1]))


def _translated(document: Document, model: type[BaseModel], error: Mapping[str, Any]) -> Diagnostic:
    location: Location = tuple(error["loc"])
    kind, value = error["type"], error.get("input")
    context = error.get("ctx") or {}
    name = next((part for part in reversed(location) if isinstance(part, str)), "")
    if kind == "extra_forbidden":
        close = _close(model, location)
        hint = (
            f"did you mean `{close}`?"
            if close
            else "known here: " + ", ".join(_keys(model, location[:-1]))
        )
        return document.complain("P101", location, f"unknown key `{name}`", hint, key=True)
    if kind == "missing":
        if location == ("version",):
            return document.complain(
                "P106", (), "`version: 1` is missing", "make it the first line of the file"
            )
        return document.complain("P102", location[:-1], f"`{name}` is missing", key=True)
    if location == ("version",):
        return document.complain(
            "P106",
            location,
            f"`{value}` is no version that this retainer knows",
            "write `version: 1`",
        )
    if kind in ("literal_error", "enum"):
        allowed = re.findall(r"'([^']*)'", str(context.get("expected", "")))
        close = nearest(str(value), allowed)
        hint = f"did you mean `{close}`?" if close else "one of: " + ", ".join(allowed)
        return document.complain("P104", location, f"`{value}` is not known here", hint)
    if kind == "P208":
        return document.complain(kind, location, error["msg"])
    if kind in ("too_short", "none_required") or value in ({}, []) or resolved(value) is None:
        if "match" in location or "not" in location:
            return document.complain(
                "P207",
                location,
                f"`{name}` is empty, so it matches nothing",
                "`match: all` is everything",
            )
        return document.complain(
            "P103", location, f"`{name}` is empty", "write a value, or leave the key out"
        )
    if kind == "string_pattern_mismatch":
        return document.complain(
            "P105",
            location,
            f"`{value}` cannot be an id",
            "letters, digits, `-`, `_` and `.`; at most 64",
        )
    if re.fullmatch(r"[A-Z][0-9]{3}", kind):
        return document.complain(kind, location, error["msg"])
    if kind in _KINDS:
        return document.complain("P103", location, f"{_KINDS[kind]} is needed here")
    return document.complain("P103", location, error["msg"][0].lower() + error["msg"][1:])


def _keys(model: Any, location: Location) -> list[str]:
    """The keys that may stand at a location, found by walking the models' annotations."""
    for part in location:
        model = _unwrapped(model)
        if isinstance(model, type) and issubclass(model, BaseModel):
            fields = {field.alias or name: field for name, field in model.model_fields.items()}
            model = fields[str(part)].annotation if part in fields else None
        elif typing.get_origin(model) in (list, dict):
            model = typing.get_args(model)[-1]
    model = _unwrapped(model)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return []
    return [
        key
        for name, field in model.model_fields.items()
        if (key := field.alias or name).isprintable()
    ]


def _unwrapped(annotation: Any) -> Any:
    while True:
        origin = typing.get_origin(annotation)
        if origin is typing.Annotated:
            annotation = typing.get_args(annotation)[0]
        elif origin in (typing.Union, types.UnionType):
            annotation = next(
                item for item in typing.get_args(annotation) if item is not type(None)
            )
        else:
            return annotation


def _credentials(document: Document) -> Iterator[Diagnostic]:
    hint = "remove it here, revoke it, and give it through the environment (`retainer help P209`)"

    def visit(value: Any, location: Location) -> Iterator[Diagnostic]:
        if isinstance(value, dict):
            for key, item in value.items():
                here = (*location, key)
                if SECRET_VALUE.search(key):
                    yield document.complain(
                        "P209", here, "this looks like a credential", hint, key=True
                    )
                elif (
                    SECRET_KEY.search(key) and item not in ("", None) and "metadata" not in location
                ):
                    yield document.complain(
                        "P209", here, f"`{key}` looks like a credential", hint, key=True
                    )
                else:
                    yield from visit(item, here)
        elif isinstance(value, list):
            for number, item in enumerate(value):
                yield from visit(item, (*location, number))
        elif isinstance(value, str) and SECRET_VALUE.search(value):
            yield document.complain("P209", location, "this looks like a credential", hint)

    yield from visit(document.data, ())


_STANDS_IN: Mapping[str, Any] = {
    "id": "something",
    "asset_id": "something",
    "why": "something",
    "in": "something",
    "match": "all",
    "keep": [{"in": "something", "for": "999y"}],
    "for": "999y",
    "delete": [{"in": "something", "after": "1d"}],
    "after": "1d",
    "at_most": "1d",
}
"""What a mistake is taken for once it was complained of: nothing that could be complained of."""


def _mended(model: type[Model], data: Any) -> tuple[Model | None, bool]:
    """An item as its model, with something harmless in place of what is wrong in it (None where
    nothing of it makes sense), and whether nothing was wrong."""
    for mended in range(8):
        try:
            return model.model_validate(data), mended == 0
        except ValidationError as error:
            if not isinstance(data, dict):
                break
            data = copy.deepcopy(data)
            for each in error.errors(include_url=False):
                _mend(data, tuple(part for part in each["loc"] if not _is_unseen(part)))
    return None, False


def _mend(data: Any, location: Location) -> None:
    """Put what stands in for a mistake at its place, or take the nearest key around it away."""
    keys = [number for number, part in enumerate(location) if isinstance(part, str)]
    matches = [n for n in keys if location[n] in ("match", "not", "any", "all") and n < keys[-1]]
    if matches:  # a condition goes as a whole
        keys = [next(n for n in keys if n > matches[-1])]
    if not keys:
        return
    for part in location[: keys[-1]]:
        inside = isinstance(data, dict) and part in data
        inside = inside or (isinstance(data, list) and isinstance(part, int) and part < len(data))
        if not inside:
            return
        data = data[part]
    key = str(location[keys[-1]])
    if not isinstance(data, dict):
        return
    if not matches and key in _STANDS_IN and (key != "after" or "for" not in data):
        data[key] = copy.deepcopy(_STANDS_IN[key])
        return
    data.pop(key, None)
    if matches and not data:
        data[EVERYTHING] = True


class _Parser:
    """Turns one checked file into nouns; `wrong` collects what is said but makes no sense."""

    def __init__(self, document: Document, timezone: str) -> None:
        self.document = document
        self.zone = zone_named(timezone)
        self.wrong: list[Diagnostic] = []
        self.is_sound = True
        """Whether nothing in the item that is being read had to be mended."""

    def complain(
        self,
        code: str,
        location: Location,
        message: str,
        hint: str | None = None,
        *,
        key: bool = False,
    ) -> None:
        self.wrong.append(self.document.complain(code, location, message, hint, key=key))

    def warn(self, code: str, location: Location, message: str, hint: str | None = None) -> None:
        self.wrong.append(
            replace(self.document.complain(code, location, message, hint), is_warning=True)
        )

    def texts(
        self, values: Iterable[str], location: Location, *, may_be_empty: bool = False
    ) -> tuple[str, ...]:
        """The values of a fact, in the form in which facts are compared (NFC). What could never be
        meant so is complained of."""
        listed = [str(value) for value in values]
        for number, value in enumerate(listed):
            place = (*location, number) if (*location, number) in self.document.values else location
            if not value.strip() and not (may_be_empty and value == ""):
                self.complain(
                    "P207",
                    place,
                    f"`{location[-1]}` is empty, so it matches nothing",
                    "write a value, or leave the key out",
                )
            elif value != value.strip() or len(value.splitlines()) > 1:
                self.complain(
                    "P218",
                    place,
                    f"`{location[-1]}` has blanks or a line end around it, so it matches nothing",
                    "write it on one line",
                )
            elif "," in value and not may_be_empty:
                meant = ", ".join(part.strip() for part in value.split(","))
                self.warn(
                    "P217",
                    place,
                    f"`{value}` is one text with a comma in it",
                    f"a list is written [{meant}]",
                )
            self.seen(value, place, f"`{location[-1]}`")
        return tuple(unicodedata.normalize("NFC", value) for value in listed)

    def key(self, key: str, location: Location) -> str:
        if not key or key != key.strip():
            self.complain(
                "P218",
                location,
                "a key of metadata is empty, or has blanks around it",
                "no key that 100ms gives is so",
                key=True,
            )
        self.seen(key, location, "a key of metadata")
        return unicodedata.normalize("NFC", key)

    def seen(self, text: str, location: Location, what: str) -> None:
        """Warn of text that would not look like what it is."""
        text = text.strip()
        if printable(text) != text and len(text.splitlines()) <= 1:
            self.warn(
                "P216",
                location,
                f"{what} has characters that do not show, or hide others",
                f"it reads {printable(text)[:80]}",
            )

    def shown(
        self,
        item: RuleItem | HoldItem | ErasureItem | DecidedItem | AcceptanceItem,
        location: Location,
    ) -> None:
        """Warn of text that would not look like what it is."""
        for key in ("why", "owner"):
            if (text := getattr(item, key, None)) and printable(text.rstrip("\n")) != text.rstrip(
                "\n"
            ).replace("\n", "\\n"):
                self.warn(
                    "P216",
                    (*location, key),
                    f"`{key}` has characters that do not show, or hide others",
                    f"it reads {printable(text)[:80]}",
                )

    def where(self, location: Location) -> Where:
        return Where(self.document.file, self.document.span(location).line)

    def moment(self, text: str | None, location: Location) -> datetime | None:
        if text is None:
            return None
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            try:
                return start_of_day(date.fromisoformat(text), self.zone)
            except (ValueError, OverflowError):
                pass
        elif (moment := read_moment(text)) is not None:
            return moment
        self.complain(
            "P213",
            location,
            f"`{text}` is not a date",
            "write 2026-11-22, or 2026-11-22T10:00:00Z with a zone",
        )
        return None

    def store(self, name: str, location: Location) -> str:
        if name in RESERVED_STORES:
            self.complain(
                "P210",
                location,
                f"`{name}` is not a store: it is what retainer calls a place that it cannot change",
            )
        return name

    def span(self, span: Range, location: Location) -> None:
        if span.min is None and span.max is None:
            self.complain(
                "P207",
                location,
                f"`{location[-1]}` is empty, so it matches nothing",
                "give `min` or `max`",
            )
        if span.min is not None and span.max is not None and span.min > span.max:
            self.complain("P212", location, "`min` is larger than `max`")

    def words(self, values: Iterable[str], known: Sequence[str], location: Location) -> None:
        """Words that 100ms may add to: one that is near a known one is a slip, any other may be
        new."""
        for number, value in enumerate(map(str, values)):
            place = (*location, number) if (*location, number) in self.document.values else location
            if value in known or not value.strip():
                continue
            if close := nearest(value, known):
                said = f"`{value}` is not known here"
                self.complain("P104", place, said, f"did you mean `{close}`?")
            else:
                self.warn(
                    "P219",
                    place,
                    f"`{value}` is no {location[-1]} that this retainer knows",
                    f"known here: {', '.join(known)}",
                )

    def match(self, item: MatchMap, location: Location) -> Match:
        if item.everything:
            return Everything()
        parts: list[Match] = []
        for fact, words in (("type", ASSET_TYPES), ("status", STATUSES)):
            self.words(getattr(item, fact) or (), words, (*location, fact))
        for fact in (*TEXT_FACTS, *GLOB_FACTS):
            if values := getattr(item, fact):
                parts.append(
                    (Glob if fact in GLOB_FACTS else OneOf)(
                        fact, self.texts(values, (*location, fact))
                    )
                )
        for fact in NUMBER_FACTS:
            if span := getattr(item, fact):
                self.span(span, (*location, fact))
                parts.append(Between(fact, span.min, span.max))
        if created := item.created:
            after = self.moment(created.after, (*location, "created", "after"))
            before = self.moment(created.before, (*location, "created", "before"))
            if created.after is None and created.before is None:
                self.complain(
                    "P207",
                    (*location, "created"),
                    "`created` is empty, so it matches nothing",
                    "give `after` or `before`",
                )
            if after and before and after >= before:
                self.complain("P212", (*location, "created"), "`after` is not before `before`")
            parts.append(Created(after, before))
        if item.metadata is not None and not item.metadata:
            self.complain(
                "P207", (*location, "metadata"), "`metadata` is empty, so it matches nothing"
            )
        for key, values in (item.metadata or {}).items():
            here = (*location, "metadata", key)
            name = self.key(key, here)
            if isinstance(values, Range):
                self.span(values, here)
                parts.append(Metadata(name, (), values.min, values.max))
            else:
                parts.append(Metadata(name, self.texts(values, here, may_be_empty=True)))
        match item.thumbnails:
            case None:
                pass
            case bool(some):
                parts.append(Thumbnails(some))
            case patterns:
                parts.append(Thumbnails(True, self.texts(patterns, (*location, "thumbnails"))))
        if item.any:
            parts.append(
                AnyOf(
                    tuple(
                        self.match(part, (*location, "any", n)) for n, part in enumerate(item.any)
                    )
                )
            )
        if item.all:
            parts.append(
                AllOf(
                    tuple(
                        self.match(part, (*location, "all", n)) for n, part in enumerate(item.all)
                    )
                )
            )
        if item.not_:
            parts.append(Not(self.match(item.not_, (*location, "not"))))
        if not parts:
            self.complain(
                "P207",
                location,
                "this match is empty, so it matches nothing",
                "`match: all` is the way to say everything",
            )
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def items(self, section: str, model: type[Model]) -> Iterator[tuple[int, Model]]:
        """The items of a section with their places. What is wrong in one has been complained of,
        and something harmless stands in for it, so that the rest is looked at in the same run."""
        listed = self.document.data.get(section) if isinstance(self.document.data, dict) else None
        for number, data in enumerate(listed if isinstance(listed, list) else ()):
            item, self.is_sound = _mended(model, data)
            if item is not None:
                yield number, item

    def sound(self, nouns: Iterator[Noun]) -> tuple[Noun, ...]:
        """Those in which nothing had to be mended: the others were made to be complained of."""
        return tuple(noun for noun in nouns if self.is_sound)

    def rules(self) -> Iterator[Rule]:
        for number, item in self.items("rules", RuleItem):
            here: Location = ("rules", number)
            self.shown(item, here)
            keeps = []
            for n, keep in enumerate(item.keep or ()):
                place = (*here, "keep", n)
                if keep.after and not keep.for_.is_longer_than(keep.after):
                    message = (
                        f"`for: {keep.for_.text}` is not longer than `after: {keep.after.text}`"
                    )
                    self.complain(
                        "P204",
                        (*place, "for"),
                        message,
                        "both are counted from the recording's creation",
                    )
                if keep.for_.forever and item.then == "delete":
                    self.complain(
                        "P203",
                        (*place, "for"),
                        "`then: delete` can never happen after `for: forever`",
                    )
                keeps.append(
                    Keep(
                        self.store(keep.in_, (*place, "in")),
                        keep.for_,
                        keep.after,
                        keep.basis == "legal",
                    )
                )
            deletes = []
            for n, delete in enumerate(item.delete or ()):
                place = (*here, "delete", n)
                if delete.after.forever:
                    self.complain(
                        "P205", (*place, "after"), "a delete that waits for ever does nothing"
                    )
                deletes.append(
                    Delete(
                        self.store(delete.in_, (*place, "in")),
                        delete.after,
                        versions=delete.versions == "all",
                    )
                )
            if item.at_most and item.at_most.forever:
                self.complain("P205", (*here, "at_most"), "a ceiling without an end does nothing")
            if item.then and not keeps:
                self.complain(
                    "P211",
                    (*here, "then"),
                    "`then` has no `keep` to follow",
                    "to delete after a time, use `delete`",
                )
            if not keeps and not deletes and not item.at_most:
                self.complain(
                    "P205",
                    (*here, "id"),
                    f"the rule `{item.id}` does nothing",
                    "give it `keep`, `delete` or `at_most`",
                )
            yield Rule(
                id=item.id,
                match=self.match(item.match, (*here, "match")),
                where=self.where(here),
                keeps=tuple(keeps),
                deletes=tuple(deletes),
                then_delete=item.then == "delete",
                at_most=item.at_most,
                why=item.why or "",
                owner=item.owner or "",
            )

    def holds(self) -> Iterator[Hold]:
        for number, item in self.items("holds", HoldItem):
            here: Location = ("holds", number)
            self.shown(item, here)
            yield Hold(
                id=item.id,
                match=self.match(item.match, (*here, "match")),
                where=self.where(here),
                store=self.store(item.in_, (*here, "in")),
                released=self.moment(item.released, (*here, "released")),
                why=item.why,
                owner=item.owner or "",
            )

    def erasures(self) -> Iterator[Erasure]:
        for number, item in self.items("erasures", ErasureItem):
            here: Location = ("erasures", number)
            self.shown(item, here)
            told: dict[str, dict[str, None]] = {"erase": {}, "stay": {}}
            for n, each in enumerate(item.decided or ()):
                place = (*here, "decided", n)
                self.shown(each, place)
                for asset_id in self.texts(each.asset_id, (*place, "asset_id")):
                    told[each.decision][asset_id] = None
                    if all(asset_id in ids for ids in told.values()):
                        self.complain(
                            "P220",
                            (*place, "asset_id"),
                            f"`{asset_id}` is to be erased and to stay",
                            "keep what is right of the two",
                        )
            stays, erases = tuple(told["stay"]), tuple(told["erase"])
            yield Erasure(
                id=item.id,
                match=_with_decisions(self.match(item.match, (*here, "match")), stays, erases),
                where=self.where(here),
                requested=self.moment(item.requested, (*here, "requested")),
                why=item.why,
                owner=item.owner or "",
                stays=stays,
                erases=erases,
            )

    def acceptances(self, section: str) -> Iterator[Acceptance]:
        for number, item in self.items(section, AcceptanceItem):
            here: Location = (section, number)
            self.shown(item, here)
            (asset_id,) = self.texts([item.asset_id], (*here, "asset_id"))
            yield Acceptance(asset_id, self.where(here), item.why, item.owner or "")


def _with_decisions(match: Match, stays: tuple[str, ...], erased: tuple[str, ...]) -> Match:
    """What an erasure means once somebody has looked at more recordings than its match can tell."""
    if stays:
        match = AllOf((match, Not(OneOf("asset_id", stays))))
    return AnyOf((match, OneOf("asset_id", erased))) if erased else match


def parse_match(text: str, name: str) -> Match | Diagnostic:
    """A match by itself, as in a rule, such as `{type: chat}` or `all`; or the first mistake in
    it. `name`: what the text is called."""
    document, mistakes = load_text(
        f"version: 1\nrules:\n  - id: only\n    match: {text}\n    at_most: 1d\n", name
    )
    if not mistakes:
        policies, mistakes = parse_policies(document, "UTC")
        mistakes = [mistake for mistake in mistakes if not mistake.is_warning]
        if not mistakes:
            return policies.rules[0].match
    return mistakes[0]


def parse_policies(document: Document, timezone: str) -> tuple[Policies, list[Diagnostic]]:
    """The rules of one file. When anything is wrong, what could be read is returned beside every
    mistake."""
    _, wrong = checked(document, PolicyFile)
    parser = _Parser(document, timezone)
    policies = Policies(
        parser.sound(parser.rules()),
        parser.sound(parser.holds()),
        parser.sound(parser.erasures()),
        parser.sound(parser.acceptances("accept")),
        parser.sound(parser.acceptances("losses")),
    )
    return policies, wrong + parser.wrong
