"""What `retainer init` writes: settings, policies with their tests, and the workflow of a CI
system, from a few answers."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from urllib.parse import urlsplit

from jinja2 import Environment, StrictUndefined

from retainer.model.setting import RESERVED_STORES


@dataclass(frozen=True, slots=True)
class StartStore:
    """A store to be declared; `is_upload`: 100ms itself uploads to it."""

    name: str
    url: str
    region: str | None = None
    is_upload: bool = False


@dataclass(frozen=True, slots=True)
class Answers:
    """What is to be declared. The first store is the one that everything is kept in."""

    stores: tuple[StartStore, ...]
    timezone: str = "UTC"
    hosted: tuple[str, ...] = ()
    ci: str | None = None


EXAMPLE = Answers(
    (
        StartStore("vault", "s3://example-vault/100ms", "eu-west-1"),
        StartStore("cold", "gs://example-cold/100ms"),
    )
)
"""What is written where nothing was asked: the repository's own settings and policies."""
IGNORED = (".retainer/*", "!.retainer/schema.json", "*.plan", "facts.duckdb")
"""Lines of .gitignore: the record and what names rooms, but not the editor's schema."""


def named(url: str, taken: tuple[str, ...] = (), *, is_upload: bool = False) -> StartStore:
    """A store by what was typed: a URL, or NAME=URL."""
    name, _, rest = url.partition("=") if re.match(r"[\w.-]+=", url) else ("", "", url)
    preferred = name or ("uploads" if is_upload else "cold" if "vault" in taken else "vault")
    number, found = 1, preferred
    while found in taken or found in RESERVED_STORES:
        number += 1
        found = f"{preferred}-{number}"
    return StartStore(found, rest, None, is_upload)


def start(answers: Answers) -> dict[str, str]:
    """The files of a new project, by their names."""
    kept = [store for store in answers.stores if not store.is_upload]
    schemes = {urlsplit(store.url).scheme for store in answers.stores}
    told = {
        "stores": answers.stores,
        "timezone": answers.timezone,
        "hosted": answers.hosted,
        "first": kept[0].name,
        "second": kept[1].name if len(kept) > 1 else None,
        "only_one_empties": len(answers.stores) > 1,
        "clouds": {"s3": "s3" in schemes, "gs": "gs" in schemes},
        "version": version("retainer"),
    }
    made = {
        "retainer.yaml": "retainer.yaml",
        "policies/recordings.yaml": "recordings.yaml",
        "policies/holds-and-erasures.yaml": "holds-and-erasures.yaml",
        "tests/recordings.yaml": "tests.yaml",
    }
    if answers.ci == "github":
        made[".github/workflows/retention.yml"] = "github.yaml"
    if answers.ci == "gitlab":
        made[".gitlab-ci.yml"] = "gitlab.yaml"
    return {
        name: _environment().from_string(_file(template)).render(told)
        for name, template in made.items()
    }


@cache
def _environment() -> Environment:
    environment = Environment(
        undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    environment.filters["yaml"] = _yaml
    return environment


def _yaml(text: str) -> str:
    """A text as YAML within a flow mapping: as it is where that is plain."""
    return text if re.fullmatch(r"[A-Za-z][\w./:@+~-]*", text) else json.dumps(text)


def _file(name: str) -> str:
    return files("retainer.starter").joinpath(f"{name}.jinja").read_text(encoding="utf-8")


def missing_lines(ignored: bytes) -> bytes:
    """What a .gitignore lacks, to be written at its end. One that ignores all of `.retainer/` would
    hide the schema, so that folder is seen again before its content is not."""
    told = [line.strip() for line in ignored.decode(errors="replace").splitlines()]
    lacking = [line for line in IGNORED if line not in told]
    if lacking and any(line in (".retainer/", ".retainer", "/.retainer/") for line in told):
        lacking = ["!.retainer/", *lacking]
    if not lacking:
        return b""
    end = b"" if not ignored or ignored.endswith(b"\n") else b"\n"
    return end + "".join(f"{line}\n" for line in lacking).encode()
