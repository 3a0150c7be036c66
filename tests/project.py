"""A retainer project on real servers, driven through the command line as a person or a runbook
would."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import ssl
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import records
import servers
import yaml
from conftest import make_store, make_writer

from retainer import private, wire, wiring
from retainer.cli import main
from retainer.demo.standin import StandIn
from retainer.journal.entry import CLOSED
from retainer.model.setting import Store
from retainer.ports import StoreWriter
from retainer.sources import answers
from retainer.stores import s3_account
from retainer.stores.parts import crc32c_of

MP4 = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2"
ROOM = "60000000000000000000000a"

POLICY: dict[str, Any] = {
    "version": 1,
    "rules": [
        {
            "id": "calls",
            "match": {"type": ["room-composite", "chat"]},
            "keep": [{"in": "vault", "for": "2y"}],
        },
        {
            "id": "raw",
            "match": {"type": "room-composite"},
            "delete": [{"in": "uploads", "after": "30d"}],
        },
    ],
}


def video(seed: int, size: int = 3000) -> bytes:
    return MP4 + random.Random(seed).randbytes(size)


def git(folder: Path, *words: str) -> str:
    """What git prints, in a folder, as a committer of the tests' own."""
    return subprocess.run(
        ["git", "-c", "user.name=x", "-c", "user.email=x@example.com", "-C", str(folder), *words],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


_read_anew = wire.trusted_authorities


@cache
def _read(_file: str | None, _folder: str | None) -> ssl.SSLContext:
    return _read_anew()


def _trusted() -> ssl.SSLContext:
    """What trusted_authorities says, which takes 20 ms, and which each command asks twice."""
    return _read(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


_credentials: dict[str, str] = {}


def _forget_other_credentials(environment: Mapping[str, str]) -> None:
    """Let boto3's sessions go where the environment names others than the command before did: a new
    one reads 100 ms of JSON."""
    named = {name: value for name, value in environment.items() if name.startswith("AWS_")}
    in_files = {named.get(f"AWS_{what}_FILE") for what in ("CONFIG", "SHARED_CREDENTIALS")}
    if named != _credentials or in_files != {"/dev/null"}:
        s3_account.session.cache_clear()
    _credentials.clear()
    _credentials.update(named)


@dataclass
class Project:
    """A folder with settings and policies, stores on a server, and a stand-in for the 100ms API."""

    root: Path
    api: StandIn
    stores: dict[str, Store]
    limits: dict[str, Any] = field(
        default_factory=lambda: {"count": 500, "percent": 100, "bytes": "1TB"}
    )
    state: dict[str, Any] | None = None
    """A store that has the record, as `state:` names it."""
    environment: dict[str, str] = field(default_factory=dict)
    impatient: bool = False
    """Half a second of patience for the 100ms API, where a test needs a listing that fails for
    good."""

    def write(self, policy: dict[str, Any] = POLICY) -> None:
        stores: dict[str, Any] = {}
        for name, store in self.stores.items():
            said = {
                key: getattr(store, key)
                for key in (
                    "endpoint",
                    "region",
                    "storage_class",
                    "kms_key",
                    "cache_control",
                    "lock",
                )
            }
            said |= {
                "layout": store.layout if store.written_by_100ms else None,
                "tags": dict(store.tags),
                "listing": {"inventory": store.inventory} if store.inventory else None,
            }
            stores[name] = {"url": store.url, "storage_class_from": store.storage_class_from} | {
                key: value for key, value in said.items() if value
            }
        source = {"url": self.api.url, "hosted": ["s3://hms-prod-*"]}
        settings = {
            "version": 1,
            "source": source,
            "stores": stores,
            "limits": {"deletes": self.limits},
        } | ({"state": self.state} if self.state else {})
        (self.root / "policies").mkdir(parents=True, exist_ok=True)
        (self.root / "retainer.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
        (self.root / "policies" / "rules.yaml").write_text(yaml.safe_dump(policy, sort_keys=False))

    def write_from(self, other: Project) -> None:
        """The same settings and policies as another project, as a checkout of the same commit."""
        shutil.copytree(other.root / "policies", self.root / "policies", dirs_exist_ok=True)
        shutil.copy(other.root / "retainer.yaml", self.root / "retainer.yaml")

    def run(self, *words: str, expect: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run a command as `retainer` does, in this process, which saves a second each; `expect` is
        its exit code."""
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.chdir(self.root)
            for name, value in self.env().items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["retainer", *words])
            patch.setattr(private, "_home", private._home)  # of this project, and ends with it
            patch.setattr(sys, "stdin", io.StringIO())
            if self.impatient:
                patch.setattr(wiring, "BUDGET_SECONDS", 0.5)
            _forget_other_credentials(self.env())
            for module in (wire, answers):
                patch.setattr(module, "trusted_authorities", _trusted)
            with pytest.raises(SystemExit) as ended:
                main()
        code = int(str(ended.value.code))
        assert expect is None or code == expect, (
            f"{words} ended with {code}, not {expect}\n{out.getvalue()}\n{err.getvalue()}"
        )
        return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())

    def command(self, *words: str) -> list[str]:
        """The same as a command of its own."""
        return [sys.executable, "-m", "retainer", *words]

    def alone(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The same run as a command of its own, which shares nothing with what ran before."""
        return subprocess.run(
            self.command(*words),
            cwd=self.root,
            env=self.env(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def killed(self, *words: str, **how: str) -> int:
        """What a command ends with that is killed as tests/kill_child.py reads it."""
        child = str(Path(__file__).parent / "kill_child.py")
        return subprocess.run(
            [sys.executable, child, *words],
            cwd=self.root,
            env=self.env() | how,
            capture_output=True,
            timeout=60,
            check=False,
        ).returncode

    def env(self) -> dict[str, str]:
        return (
            os.environ
            | {"HMS_ACCESS_KEY": self.api.access_key, "HMS_SECRET": self.api.secret}
            | self.environment
        )

    def plan(self, name: str = "p.plan", *words: str, expect: int | None = 0) -> dict[str, Any]:
        """Make a plan and return it as JSON."""
        done = self.run("plan", "--out", name, "--format", "json", *words, expect=expect)
        return dict(json.loads(done.stdout))

    def copied_and_due(self, due: str, stays: str) -> Project:
        """Two uploads, both copied: `due` may go from uploads, `stays` is young."""
        self.uploaded(due, video(1))
        self.uploaded(stays, video(2), age=timedelta(days=2))
        self.plan("copies.plan")
        self.apply("copies.plan")
        assert self.plan()["header"]["deletes"] == 1
        return self

    def many_due(self, count: int, name: str = "p.plan", *words: str) -> dict[str, Any]:
        """The plan for so many uploads that are copied and may go, beside one that stays."""
        for number in range(count):
            self.uploaded(f"{number:024x}", video(number))
        self.uploaded("a" * 24, video(99), age=timedelta(days=2))
        self.plan("copies.plan")
        self.apply("copies.plan")
        return self.plan(name, *words)

    def apply(self, name: str = "p.plan", *words: str, expect: int | None = 0) -> dict[str, Any]:
        done = self.run("apply", name, "--format", "json", *words, expect=expect)
        return dict(json.loads(done.stdout)) if done.stdout.startswith("{") else {}

    def apply_all(self, name: str, plan: dict[str, Any]) -> dict[str, Any]:
        return self.apply(name, "--approve-deletes", str(plan["header"]["deletes"]))

    def writer(self, name: str) -> StoreWriter:
        return make_writer(self.stores[name])

    def content(self, name: str) -> dict[str, bytes]:
        """Every object of a store, by key."""
        writer = self.writer(name)
        return {seen.key: b"".join(writer.read(seen)) for seen in writer.list()}

    def journal(self) -> list[dict[str, Any]]:
        return [
            line
            for line in map(json.loads, records.text_of(self.root / ".retainer").splitlines())
            if line["event"] != CLOSED
        ]

    def hosted(
        self,
        name: str,
        content: bytes,
        *,
        age: timedelta = timedelta(days=2),
        kind: str = "room-composite",
        **more: Any,
    ) -> dict[str, Any]:
        """A recording that 100ms hosts."""
        end = "csv" if kind == "chat" else "mp4"
        asset = self._asset(
            name, content, age, kind, f"s3://hms-prod-eu/5f00/beam/{ROOM}/Rec-{name}.{end}", more
        )
        self.api.add_asset(asset, content)
        return asset

    def hosted_vod(
        self,
        name: str,
        files: Mapping[str, bytes],
        *,
        age: timedelta = timedelta(days=2),
        **more: Any,
    ) -> dict[str, Any]:
        """An unzipped recording that 100ms hosts behind a CDN."""
        asset = self._asset(
            name,
            b"",
            age,
            "room-vod",
            f"s3://hms-prod-eu/5f00/hls/{ROOM}/{name}/vod/master.m3u8",
            {"size": None} | more,
        )
        self.api.add_asset(asset, files=files)
        return asset

    def uploaded_vod(
        self,
        name: str,
        files: Mapping[str, bytes],
        *,
        age: timedelta = timedelta(days=60),
        **more: Any,
    ) -> dict[str, Any]:
        """An unzipped recording that 100ms has uploaded to our own bucket, in a folder named like
        it."""
        folder = f"hls/{ROOM}/{name}/vod/"
        for path, content in files.items():
            self.writer("uploads").create(
                folder + path, iter([content]), len(content), {}, "application/octet-stream"
            )
        asset = self._asset(
            name,
            b"",
            age,
            "room-vod",
            f"{self.stores['uploads'].base}{folder}master.m3u8",
            {"size": None} | more,
        )
        self.api.add_asset(asset, hosted=False, readable=False)
        return asset

    def uploaded(
        self, name: str, content: bytes, *, age: timedelta = timedelta(days=60), **more: Any
    ) -> dict[str, Any]:
        """A recording that 100ms has uploaded to our own bucket."""
        store = self.stores["uploads"]
        key = f"beam/{ROOM}/Rec-{name}.mp4"
        if store.scheme == "s3":  # in one piece: moto tells another checksum of several
            servers.s3_client(store.endpoint or "").put_object(
                Bucket=store.bucket,
                Key=store.prefix + key,
                Body=content,
                ContentType="video/mp4",
                ChecksumCRC32C=crc32c_of(content),
            )
        else:
            self.writer("uploads").create(key, iter([content]), len(content), {}, "video/mp4")
        asset = self._asset(name, content, age, "room-composite", store.base + key, more)
        self.api.add_asset(asset, content, hosted=False)
        return asset

    def _asset(
        self, name: str, content: bytes, age: timedelta, kind: str, path: str, more: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "id": name,
            "job_id": "b" + name[1:],
            "room_id": ROOM,
            "session_id": "5e55" + "0" * 20,
            "type": kind,
            "status": "completed",
            "path": path,
            "size": len(content),
            "duration": 60,
            "created_at": (datetime.now(UTC) - age).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "thumbnails": None,
            "metadata": None,
        } | more


def make_project(
    root: Path,
    api: StandIn,
    server: str,
    endpoint: str,
    *,
    uploads_server: str | None = None,
    uploads_endpoint: str = "",
) -> Project:
    """A project with `uploads` (layout 100ms) and `vault` on a server, or with uploads on another
    one."""
    root.mkdir(parents=True, exist_ok=True)
    uploads = make_store(
        uploads_server or server,
        uploads_endpoint if uploads_server else endpoint,
        root / "data",
        name="uploads",
    )
    stores = {
        "uploads": replace(uploads, layout="100ms"),
        "vault": make_store(server, endpoint, root / "data", name="vault"),
    }
    project = Project(root, api, stores)
    project.write()
    return project


def where_versions_are_kept(project: Project) -> Project:
    """The same, with its stores in a bucket that keeps versions."""
    for name, store in project.stores.items():
        prefix = store.url.rpartition("/")[2] + name
        scheme = store.url.partition(":")[0]
        project.stores[name] = replace(store, url=f"{scheme}://lab-versioned/{prefix}")
    project.write(POLICY)
    return project


def pairs(plan: dict[str, Any]) -> dict[tuple[str, str], str]:
    return {(row["asset_id"], row["store"]): row["decision"] for row in plan["rows"]}
