"""The pages of docs/: what they tell a reader to type is typed here, on real servers, and what they
say comes back does.

In a page, a block of `sh` is typed as it stands, and must end with 0 or with what its last line
says (`# exit 4`); a block of `yaml` that begins with the name of a file is written there; a block
of `text` is what the block before it prints, line by line, `…` standing for anything. A block of
`bash` is for another machine than this one: it is read, and not run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import boto3
import pytest
import servers
import yaml
from conftest import gcs_client
from google.api_core.exceptions import Conflict
from pages import only_commands
from pictures import ROOT
from project import MP4, Project, video

from retainer.demo.standin import StandIn
from retainer.policy.diagnostics import Diagnostic
from retainer.settings import load_project
from retainer.stores.parts import crc32c_of
from retainer.views.words import BECAUSE, DECISIONS, OTHERS

DOCS = ROOT / "docs"
PAGES = sorted(
    [
        *(each for each in DOCS.rglob("*.md") if "decisions" not in each.parts),
        *(ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md")),
    ]
)
SITE = [each for each in PAGES if each.is_relative_to(DOCS) and "dev" not in each.parts]


class Block(NamedTuple):
    """A fenced block of a page: in what language, and where it begins."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(each[1], each[2], text[: each.start()].count("\n") + 1) for each in found]


def ids(pages: list[Path]) -> list[str]:
    return [str(each.relative_to(ROOT)) for each in pages]


# ── what is read ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_every_command_of_a_page_is_one_that_there_is(page: Path) -> None:
    only_commands(page.read_text(encoding="utf-8"))
    for block in blocks(page):
        if block.language in ("sh", "bash"):
            done = subprocess.run(
                ["bash", "-n"], input=block.text, text=True, capture_output=True, check=False
            )
            assert done.returncode == 0, f"{page}:{block.line}: {done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_every_yaml_of_a_page_is_valid(page: Path, tmp_path: Path) -> None:
    for block in blocks(page):
        if block.language == "yaml":
            assert mistakes_in(block, tmp_path / str(block.line)) == [], f"{page}:{block.line}"


STORES = ("vault", "cold", "uploads", "archive")


def mistakes_in(block: Block, folder: Path) -> list[Diagnostic] | list[str]:
    """What is wrong with a file that a page shows; its first line names it."""
    named = re.match(r"# (\S+)", block.text)
    if named is None:
        return ["its first line does not name the file"]
    name = named[1]
    if not name.startswith(("policies/", "retainer.yaml")):
        yaml.safe_load(block.text)
        return []
    files = {
        "retainer.yaml": yaml.safe_dump(
            {
                "version": 1,
                "stores": {
                    each: {"url": f"s3://acme-{each}/100ms"}
                    | ({"layout": "100ms"} if each == "uploads" else {})
                    for each in STORES
                },
            }
        ),
        "policies/base.yaml": "version: 1\nrules:\n"
        "  - { id: base, match: all, keep: [{ in: vault, for: 1y }] }\n",
    }
    files[name] = block.text
    if name == "retainer.yaml":
        first = next(iter(yaml.safe_load(block.text)["stores"]))
        files["policies/base.yaml"] = files["policies/base.yaml"].replace("vault", first)
    for place, text in files.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(text)
    return [each for each in load_project(folder)[2] if not each.is_warning]


def test_every_store_of_the_table_of_makers_is_one(tmp_path: Path) -> None:
    page = (DOCS / "how-to" / "s3-compatible.md").read_text()
    rows = re.findall(
        r"^\| [^|]+\| .*?`(https:[^`]+)` \|(?: `region: ([^`]+)`)?", page, re.MULTILINE
    )
    assert len(rows) == 5
    for number, (endpoint, region) in enumerate(rows):
        scheme = "oss" if "aliyuncs" in endpoint else "s3"
        store = {"url": f"{scheme}://acme-vault/100ms", "endpoint": endpoint}
        store |= {"region": region} if region else {}
        text = yaml.safe_dump({"version": 1, "stores": {"vault": store}})
        block = Block("yaml", f"# retainer.yaml\n{text}", 0)
        assert mistakes_in(block, tmp_path / str(number)) == [], endpoint


def prose(page: Path) -> Iterator[tuple[int, str]]:
    """The lines of a page that a person reads as sentences: no code, no table, nothing that was
    made from code."""
    is_code = is_made = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            is_code = not is_code
        elif re.match(r"<!-- .*written by", line) or line.startswith("<!-- /"):
            is_made = not line.startswith("<!-- /")
        elif not (is_code or is_made or line.startswith(("|", "<"))):
            yield number, line


def sentences(page: Path) -> Iterator[tuple[int, str]]:
    told: list[str] = []
    began = 0
    for number, line in [*prose(page), (0, "")]:
        begins = re.match(r"\s*(?:#|[-*] |[0-9]+\. |>|!!!)", line)
        if told and (begins or not line.strip()):
            for each in re.split(r"(?<=[.!?:;])\s+", " ".join(told)):
                yield began, each
            told = []
        if line.strip():
            began = began if told else number
            told.append(re.sub(r"^\s*(?:#+|[-*]|[0-9]+\.|>)\s+", "", line).strip())


def words_of(sentence: str) -> list[str]:
    """What is read as words; a piece of code, or a link's address, is one."""
    plain = re.sub(r"`[^`]*`", "code", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", sentence))
    return [each for each in plain.split() if re.search(r"\w", each)]


@pytest.mark.parametrize("page", SITE, ids=ids(SITE))
def test_a_page_is_written_in_short_sentences_and_short_lines(page: Path) -> None:
    long = [
        f"{page.name}:{number}: {len(words_of(sentence))} words: {sentence}"
        for number, sentence in sentences(page)
        if len(words_of(sentence)) >= 25
    ]
    wide = [f"{page.name}:{number}: {line}" for number, line in prose(page) if len(line) >= 120]
    assert long + wide == []


# ── what is built ─────────────────────────────────────────────────────────────────────────────────


def built(folder: Path) -> subprocess.CompletedProcess[str]:
    """The site, from the pages as they lie here."""
    shutil.copytree(DOCS, folder / "docs")
    shutil.copy(ROOT / "zensical.toml", folder)
    return build(folder)


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("zensical"), "build", "--strict"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_site_is_built_without_a_warning_and_asks_nobody_for_anything(tmp_path: Path) -> None:
    done = built(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        fetched = re.findall(
            r"<(?:script|link|img)[^>]+(?:src|href)=\"?(https?:[^\" >]+)", page.read_text()
        )
        assert fetched == [], page


def test_a_link_that_leads_nowhere_would_be_noticed(tmp_path: Path) -> None:
    assert built(tmp_path).returncode == 0
    page = tmp_path / "docs" / "index.md"
    page.write_text(page.read_text() + "\n[away](how-to/nowhere.md)\n")
    done = build(tmp_path)
    assert done.returncode != 0 and "page does not exist" in done.stdout + done.stderr


def test_every_page_is_in_the_navigation() -> None:
    named = set(re.findall(r"\"([^\"]+\.md)\"", (ROOT / "zensical.toml").read_text()))
    assert named == {each.relative_to(DOCS).as_posix() for each in SITE}


def test_every_word_that_a_plan_uses_is_in_the_glossary() -> None:
    glossary = (DOCS / "reference" / "glossary.md").read_text()
    told = {
        word.strip()
        for each in re.findall(r"^- \*\*([^*]+)\*\*", glossary, re.M)
        for word in each.split(",")
    }
    used = {word for _, word in DECISIONS.values()} | BECAUSE.keys() | OTHERS.keys()
    used |= {"archived", "uncovered", "out-of-scope", "at risk", "last copy", "witness"}
    assert used <= told, used - told


# ── what is typed ─────────────────────────────────────────────────────────────────────────────────

PLAYED = [each for each in SITE if any(block.language == "sh" for block in blocks(each))]
BUCKETS = ("acme-vault", "acme-uploads", "acme-cold")
SALES, SUPPORT = "60" + "a" * 22, "60" + "b" * 22
HELD = "65f0aa11bb22cc33dd44ee55"


@dataclass
class Reader:
    """Someone who types a page into a terminal."""

    folder: Path
    environment: dict[str, str]
    api: str
    printed: str = ""
    behind: list[subprocess.Popen[str]] = field(default_factory=list)

    def read(self, page: Path) -> None:
        for block in blocks(page):
            where = f"{page.relative_to(ROOT)}:{block.line}"
            match block.language:
                case "sh":
                    self._type(block.text, where)
                case "yaml":
                    named = re.match(r"# (\S+)", block.text)
                    assert named is not None, where
                    file = self.folder / named[1]
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_text(block.text)
                case "text":
                    self._sees(block.text, where)
            self._asks_the_stand_in()

    def _type(self, text: str, where: str) -> None:
        if re.search(r"^retainer demo .*--serve", text, re.MULTILINE):
            self._serve(text)
            return
        told = re.search(r"# exit ([0-9]+)\s*$", text)
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", text],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        self.printed = done.stdout + done.stderr
        expected = int(told[1]) if told else 0
        assert done.returncode == expected, f"{where}: {done.returncode}\n{text}\n{self.printed}"

    def _serve(self, text: str) -> None:
        """What goes on in a first terminal; the second one is in the folder that it made, with the
        keys that it printed."""
        command = text.strip().splitlines()[-1]
        behind = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.behind.append(behind)
        assert behind.stdout is not None
        lines: list[str] = []
        while not (lines and "retainer plan --out fourth.plan" in lines[-1]):
            lines.append(behind.stdout.readline())
            assert lines[-1], lines
        self.printed = "".join(lines)
        self.environment |= dict(re.findall(r"(HMS_\w+)=(\S+)", self.printed))
        self.folder = Path(re.findall(r"^  cd (\S+)$", self.printed, re.MULTILINE)[-1])
        self.api = ""

    def _sees(self, text: str, where: str) -> None:
        at = 0
        told = [" ".join(line.split()) for line in self.printed.splitlines()]
        for line in filter(None, (" ".join(line.split()) for line in text.splitlines())):
            pattern = ".*".join(map(re.escape, line.split("…")))
            found = next((n for n in range(at, len(told)) if re.search(pattern, told[n])), None)
            assert found is not None, f"{where}: `{line}` is not in\n{self.printed}"
            at = found + 1

    def _asks_the_stand_in(self) -> None:
        """100ms is played by the stand-in, whatever the page's settings say."""
        file = self.folder / "retainer.yaml"
        if self.api and file.exists():
            settings = yaml.safe_load(file.read_text())
            source = settings.setdefault("source", {}) or {}
            settings["source"] = source | {"url": self.api, "hosted": ["s3://hms-prod-*"]}
            file.write_text(yaml.safe_dump(settings, sort_keys=False))

    def close(self) -> None:
        for each in self.behind:
            each.terminate()
            each.wait(20)


@pytest.fixture
def reader(seaweedfs: str, fake_gcs: str, tmp_path: Path, api: StandIn) -> Iterator[Reader]:
    """In an empty folder, with an account of 100ms and buckets on a server that are named as in the
    pages."""
    client = servers.s3_client(seaweedfs)
    empty(client)
    cold = gcs_client(fake_gcs).bucket("acme-cold")
    with suppress(Conflict):
        cold.create()
    for blob in cold.list_blobs():
        blob.delete()
    furnish(api, client)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "AWS_ENDPOINT_URL_S3": seaweedfs,
        "AWS_ACCESS_KEY_ID": servers.ADMIN[0],
        "AWS_SECRET_ACCESS_KEY": servers.ADMIN[1],
        "AWS_REGION": "us-east-1",
        "STORAGE_EMULATOR_HOST": fake_gcs,
        "HMS_ACCESS_KEY": api.access_key,
        "HMS_SECRET": api.secret,
        "HOME": str(tmp_path),
    }
    (tmp_path / "work").mkdir()
    reader = Reader(tmp_path / "work", environment, api.url)
    yield reader
    reader.close()


def empty(client: boto3.client) -> None:
    made = {each["Name"] for each in client.list_buckets()["Buckets"]}
    for bucket in BUCKETS:
        if bucket not in made:
            client.create_bucket(Bucket=bucket)
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for each in page.get("Contents", ()):
                client.delete_object(Bucket=bucket, Key=each["Key"])


def furnish(api: StandIn, client: boto3.client) -> None:
    """Two rooms; five recordings that 100ms hosts, one of them close to its end; three that it has
    uploaded to our own bucket long ago."""
    api.add_room({"id": SALES, "name": "sales-weekly"})
    api.add_room({"id": SUPPORT, "name": "support-desk"})
    scene = Project(Path(), api, {})
    for number, days in enumerate((13.4, 6.3, 4.3, 2.3, 1.3)):
        room = SALES if number % 2 == 0 else SUPPORT
        kind = "chat" if number == 3 else "room-composite"
        content = b"SenderName,Message\n" if kind == "chat" else video(number)
        scene.hosted(
            f"6544d1e2f3a4b5c6d7e8f90{number}",
            content,
            age=timedelta(days=days),
            kind=kind,
            room_id=room,
            session_id=HELD if number == 2 else f"5e55{number:020x}",
        )
    for number, days in enumerate((60.3, 50.3, 40.3)):
        name = f"6544d1e2f3a4b5c6d7e8f91{number}"
        content = MP4 + bytes([number]) * 900
        key = f"rec/beam/{SALES}/Rec-{name}.mp4"
        client.put_object(
            Bucket="acme-uploads", Key=key, Body=content, ChecksumCRC32C=crc32c_of(content)
        )
        asset = scene._asset(
            name,
            content,
            timedelta(days=days),
            "room-composite",
            f"s3://acme-uploads/{key}",
            {"room_id": SALES},
        )
        api.add_asset(asset, content, hosted=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", PLAYED, ids=ids(PLAYED))
def test_what_a_page_tells_to_type_does_what_it_says(page: Path, reader: Reader) -> None:
    reader.read(page)
