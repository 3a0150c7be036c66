"""The reference is made from the code, and every example in it is one that retainer takes.
`RETAINER_WRITE_DOCS=1 pytest tests/test_reference.py` writes it anew."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from pictures import ROOT, hold, whole
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from retainer.cli import cli
from retainer.cli.process import MEANINGS
from retainer.cli.start import ANSWERS
from retainer.policy import schema
from retainer.policy.codes import CODES
from retainer.policy.schema import EVERYTHING, json_schema
from retainer.settings import load_project
from retainer.views.machine import schema_of
from retainer.views.metrics import OF_A_PLAN, OF_A_RUN

REFERENCE = ROOT / "docs" / "reference"
BY = "tests/test_reference.py"


# ── commands ──────────────────────────────────────────────────────────────────────────────────────


def commands(
    group: click.Group = cli, before: str = "retainer"
) -> Iterator[tuple[str, click.Command]]:
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, f"{before} {name}")
        else:
            yield f"{before} {name}", command


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def told_of(command: click.Command) -> str:
    """What its help says, with its examples as a block."""
    text = inspect.cleandoc(command.help or "").replace("\b\n", "")
    before, found, after = re.split(r"(?:Examples?|For example): ", text, maxsplit=1), "", ""
    if len(before) == 1:
        return text
    text, after = before[0].rstrip(), " ".join(before[1].split())
    found = "\n".join(re.findall(r"`([^`]+)`", after))
    return f"{text}\n\n```bash\n{found}\n```"


def options(command: click.Command, called: str) -> str:
    context = click.Context(command, info_name=called)
    rows = []
    for each in command.params:
        if isinstance(each, click.Option) and not each.hidden:
            record = each.get_help_record(context)
            assert record is not None
            says = re.sub(r"\s*\[(?:default|env var|required|x>|[0-9]+<).*$", "", each.help or "")
            needed = " Must be there." if each.required else ""
            variable = f"`{each.envvar}`" if each.envvar else ""
            names = f"`{cell(record[0])}`"
            rows.append(f"| {names} | {cell(says)}{needed} | {variable} |")
    return "\n".join(["| option | what it does | variable |", "|---|---|---|", *rows])


def command_pages() -> str:
    pieces = []
    for called, command in commands():
        usage = " ".join(command.collect_usage_pieces(click.Context(command, info_name=called)))
        pieces.append(
            f"## {called.removeprefix('retainer ')}\n\n`{called} {usage}`\n\n{told_of(command)}"
            + (f"\n\n{options(command, called)}" if command.params else "")
        )
    own = options(cli, "retainer")
    return f"## Before any command\n\n{own}\n\n" + "\n\n".join(pieces)


def test_the_commands() -> None:
    hold(REFERENCE / "commands.md", {"commands": command_pages()}, BY)


# ── the language ──────────────────────────────────────────────────────────────────────────────────

POLICY_KEYS = (
    "PolicyFile",
    "RuleItem",
    "MatchMap",
    "SizeRange",
    "Range",
    "CreatedRange",
    "KeepItem",
    "DeleteItem",
    "HoldItem",
    "ErasureItem",
    "DecidedItem",
    "AcceptanceItem",
)
SETTINGS_KEYS = (
    "SettingsFile",
    "SourceItem",
    "StoreItem",
    "ListingItem",
    "PlaceItem",
    "LimitsItem",
    "DeleteLimitsItem",
    "PriceItem",
)


def fields_of(model: str) -> dict[str, FieldInfo]:
    found: type[BaseModel] = getattr(schema, model)
    named = {info.alias or name: info for name, info in found.model_fields.items()}
    return {name: info for name, info in named.items() if name != EVERYTHING}


def written_as(value: Any) -> str:
    return (
        yaml.safe_dump(value, default_flow_style=True, width=500, sort_keys=False)
        .removesuffix("...\n")
        .strip()
    )


def default_of(info: FieldInfo) -> str:
    if info.is_required():
        return "must be there"
    default = info.get_default(call_default_factory=True)
    if default is None or default in ([], {}) or isinstance(default, BaseModel):
        return ""
    return f"`{getattr(default, 'text', None) or written_as(default)}`"


def keys(model: str) -> str:
    rows = [
        f"| `{name}` | {cell(info.description or '')} | `{cell(written_as({name: example}))[1:-1]}` | "
        f"{cell(default_of(info))} |"
        for name, info in fields_of(model).items()
        for example in info.examples or ()
    ]
    return "\n".join(["| key | what it says | an example | left out |", "|---|---|---|---|", *rows])


def test_the_policy_language() -> None:
    hold(REFERENCE / "policies.md", {f"keys of {each}": keys(each) for each in POLICY_KEYS}, BY)


def test_the_settings() -> None:
    hold(REFERENCE / "settings.md", {f"keys of {each}": keys(each) for each in SETTINGS_KEYS}, BY)


def test_every_model_of_the_language_is_in_the_reference() -> None:
    models = {
        name
        for name, each in vars(schema).items()
        if inspect.isclass(each) and issubclass(each, schema.Strict) and each is not schema.Strict
    }
    assert models == {*POLICY_KEYS, *SETTINGS_KEYS}


KEEP = {"in": "vault", "for": "9y"}
RULE = {"id": "r", "match": {"type": "chat"}, "keep": [KEEP]}
HOLD = {"id": "h", "why": "w", "match": {"type": "chat"}, "in": "vault"}
ERASURE = {"id": "e", "why": "w", "match": {"type": "chat"}}
SETTINGS = {
    "version": 1,
    "stores": {
        "vault": {"url": "s3://acme-vault/100ms"},
        "uploads": {"url": "s3://acme-raw/rec", "layout": "100ms"},
    },
}


def matching(condition: dict[str, Any]) -> dict[str, Any]:
    return {"version": 1, "rules": [RULE | {"match": condition}]}


def policies_with(model: str, entry: dict[str, Any]) -> dict[str, Any]:
    """The smallest policy file in which such an entry stands where it belongs."""
    match model:
        case "PolicyFile":
            return {"version": 1, "rules": [RULE]} | entry
        case "RuleItem":
            rule = {} if "delete" in entry or "at_most" in entry else {"keep": [KEEP]}
            return {"version": 1, "rules": [{"id": "r", "match": {"type": "chat"}} | rule | entry]}
        case "MatchMap":
            return matching(entry)
        case "SizeRange":
            return matching({"size": entry})
        case "Range":
            return matching({"duration": entry})
        case "CreatedRange":
            return matching({"created": entry})
        case "KeepItem":
            return {"version": 1, "rules": [RULE | {"keep": [KEEP | entry]}]}
        case "DeleteItem":
            ends = {"in": "uploads", "after": "30d"} | entry
            return {"version": 1, "rules": [RULE | {"delete": [ends]}]}
        case "HoldItem":
            return {"version": 1, "rules": [RULE], "holds": [HOLD | entry]}
        case "ErasureItem":
            return {"version": 1, "rules": [RULE], "erasures": [ERASURE | entry]}
        case "DecidedItem":
            looked = {"asset_id": "a", "decision": "stay", "why": "w"} | entry
            return {"version": 1, "rules": [RULE], "erasures": [ERASURE | {"decided": [looked]}]}
        case "AcceptanceItem":
            accepted = {"asset_id": "a", "why": "w"} | entry
            return {"version": 1, "rules": [RULE], "accept": [accepted]}
    raise AssertionError(model)


def settings_with(model: str, entry: dict[str, Any]) -> dict[str, Any]:
    store = {"url": "s3://acme-vault/100ms"}
    if "impersonate" in entry:
        store = {"url": "gs://acme-vault/100ms"}
    match model:
        case "SettingsFile":
            return SETTINGS | entry
        case "SourceItem":
            return SETTINGS | {"source": entry}
        case "StoreItem":
            return SETTINGS | {"stores": {"vault": store | entry}}
        case "ListingItem":
            return SETTINGS | {"stores": {"vault": store | {"listing": entry}}}
        case "PlaceItem":
            state = {"url": "s3://acme-audit/retainer"} | entry
            elsewhere = {"vault": {"url": "s3://acme-archive/100ms"}}
            return SETTINGS | {"stores": elsewhere, "state": state}
        case "LimitsItem":
            return SETTINGS | {"limits": entry}
        case "DeleteLimitsItem":
            return SETTINGS | {"limits": {"deletes": entry}}
        case "PriceItem":
            return SETTINGS | {"prices": {"vault": {"storage": 0.02} | entry}}
    raise AssertionError(model)


EVERY_KEY = [
    (model, name, example)
    for model in (*POLICY_KEYS, *SETTINGS_KEYS)
    for name, info in fields_of(model).items()
    for example in info.examples or [None]
]


@pytest.mark.parametrize(
    ("model", "name", "example"), EVERY_KEY, ids=[f"{each[0]}.{each[1]}" for each in EVERY_KEY]
)
def test_every_key_has_a_meaning_and_an_example_that_is_valid(
    model: str, name: str, example: object, tmp_path: Path
) -> None:
    info = fields_of(model)[name]
    assert info.description, "it says nothing"
    assert example is not None, "it has no example"
    settings, policies = SETTINGS, {"version": 1, "rules": [RULE]}
    if model in POLICY_KEYS:
        policies = policies_with(model, {name: example})
    else:
        settings = settings_with(model, {name: example})
    (tmp_path / "policies").mkdir()
    (tmp_path / "retainer.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    (tmp_path / "policies" / "p.yaml").write_text(yaml.safe_dump(policies, sort_keys=False))
    wrong = [each for each in load_project(tmp_path)[2] if not each.is_warning]
    if name == "stores" or (model == "StoreItem" and wrong):
        wrong = [each for each in wrong if each.place.startswith("retainer.yaml")]
    assert wrong == []


def test_a_wrong_example_would_be_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        test_every_key_has_a_meaning_and_an_example_that_is_valid(
            "KeepItem", "for", "7 years", tmp_path
        )


# ── codes, schemas, metrics ───────────────────────────────────────────────────────────────────────


def test_the_exit_codes() -> None:
    rows = [f"| {code} | {text} |" for code, text in MEANINGS.items()]
    table = "\n".join(["| exit | meaning |", "|--:|---|", *rows])
    hold(REFERENCE / "exit-codes.md", {"exit codes": table}, BY)
    hold(ROOT / "README.md", {"exit codes": table}, BY)


def test_the_error_codes() -> None:
    told = [f"## {code}: {title}\n\n{text}" for code, (title, text) in CODES.items()]
    hold(REFERENCE / "error-codes.md", {"error codes": "\n\n".join(told)}, BY)


def described(found: dict[str, Any]) -> str:
    """The keys of an answer, one level deep."""
    rows = []
    for name, each in found.get("properties", {}).items():
        kind = each.get("type") or each.get("$ref", "").rpartition("/")[2]
        kind = kind or " or ".join(
            str(one.get("type") or one.get("$ref", "").rpartition("/")[2])
            for one in each.get("anyOf", ())
        )
        kind = kind if isinstance(kind, str) else " or ".join(kind)
        rows.append(f"| `{name}` | {cell(each.get('description') or kind)} |")
    return "\n".join(["| key | what it is |", "|---|---|", *rows])


def test_the_schemas() -> None:
    pieces = {f"keys of {each}": described(schema_of(each)) for each in ANSWERS}
    hold(REFERENCE / "schemas.md", pieces, BY)
    schemas = {"policies": json_schema()} | {each: schema_of(each) for each in ANSWERS}
    for name, told in schemas.items():
        whole(REFERENCE / "schemas" / f"{name}.json", json.dumps(told, indent=2) + "\n")


def test_the_metrics() -> None:
    def table(metrics: dict[str, str]) -> str:
        rows = [f"| `{name}` | {text} |" for name, text in metrics.items()]
        return "\n".join(["| metric | what it is |", "|---|---|", *rows])

    pieces = {"metrics of a plan": table(OF_A_PLAN), "metrics of a run": table(OF_A_RUN)}
    hold(REFERENCE / "metrics.md", pieces, BY)
