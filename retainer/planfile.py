"""The plan file: one Parquet file whose rows are the decisions, with a header in its metadata (format: docs/plan-file.md)."""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import duckdb
from pydantic import BaseModel, ConfigDict, ValidationError

from retainer.database import connect, literal
from retainer.errors import PlanRefused
from retainer.model.moment import read_moment

FORMAT = "3.0"
_KEY = "retainer.plan"
_NO_DIGEST = "0" * 64
ACTIONS = "decision IN ('copy', 'delete') AND because IS NULL"
ARCHIVED = "decision = 'copy' AND because = 'archived'"

COLUMNS = {
    "n": "INTEGER",  # the number of a row that is acted on or worried about: copies by deadline, deletes, the rest; the quiet rows have none
    "asset_id": "VARCHAR",
    "store": "VARCHAR",
    "decision": "VARCHAR",
    # what blocks a delete: hold, lock, untrusted-time, unknown, unsatisfied, shared; and why a copy or delete is no action:
    # archived (must be restored before it can be read), uncovered (it holds an object that no other copy has), out-of-scope (--only)
    "because": "VARCHAR",
    "rule": "VARCHAR",  # id of the rule, hold or erasure
    "rule_at": "VARCHAR",  # file:line
    "type": "VARCHAR",
    "created": "TIMESTAMP",
    "keep_until": "TIMESTAMP",
    "delete_from": "TIMESTAMP",
    "until": "TIMESTAMP",
    "deadline": "TIMESTAMP",
    "bytes": "BIGINT",
    "last_copy": "BOOLEAN",
    "leaves_at": "TIMESTAMP",  # wanted, and 100ms alone has it: when it leaves
    "assumed": "BOOLEAN",  # it lies in a bucket that nobody declared, so that this moment is assumed
    "source": "VARCHAR",  # where a copy is read from: a store, hosted or elsewhere
    # JSON, on copies and deletes. origin [{key, size, version}]: what a copy from a store is read from; folder: where the names in it
    # begin; target: the copy's key, or with a slash at its end its folder; broken [{key, size, version}]: what a scrub found there and
    # the copy replaces; lock_until: until when it is locked. objects [{key, size, version}]: what a delete deletes, as it was seen and
    # in this order; witnesses [{store, key, size, version}]: the complete copies that make it safe. facts: what holds can match on,
    # less names
    "action": "VARCHAR",
}
"""The rows; pairs with nothing there and nothing needed are left out. Moments in UTC, sizes in bytes. Quiet rows (kept, unmanaged,
lapses) come first; what only others need is NULL on them, also `last_copy` and `assumed`."""


@dataclass(frozen=True, slots=True)
class SourceState:
    name: str
    kind: str
    complete: bool
    objects: int
    bytes: int
    strays: int
    stray_bytes: int
    note: str | None = None
    weak: str | None = None


@dataclass(frozen=True, slots=True)
class LimitState:
    """One limit as evaluated. `scope` is `store:NAME` or `rule:ID`; `used` includes the last 24 hours."""

    name: str
    scope: str
    used: float
    allowed: float
    breached: bool
    lifted: bool

    @property
    def lift(self) -> str:
        return f"--lift {self.name}:{self.scope}"


@dataclass(frozen=True, slots=True)
class ItemState:
    """A rule, hold or erasure as it was when the plan was made."""

    id: str
    kind: str
    at: str
    why: str
    owner: str
    digest: str


@dataclass(frozen=True, slots=True)
class ClashState:
    ceiling: str
    keep: str
    assets: int
    lifted: bool

    @property
    def lift(self) -> str:
        return f"--lift clash:{self.ceiling}"


@dataclass(frozen=True, slots=True)
class Undeclared:
    bucket: str
    assets: int
    at_risk: int


@dataclass(frozen=True, slots=True)
class TargetState:
    """How the copies of this plan will lie in a store. `small`: so many of them stay in the standard class, being under `floor` bytes;
    `locked`: so many are locked, the last of them until `lock_last`."""

    name: str
    storage_class: str | None
    floor: int
    small: int
    lock: str | None
    locked: int
    unlocked: int
    lock_last: str | None


class Header(BaseModel):
    """What a plan says of itself. `digest` is over the whole file (docs/plan-file.md); the fingerprint is the file's SHA-256."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    format: str = FORMAT
    digest: str = _NO_DIGEST
    as_of: str
    created: str
    expires: str
    tool: str
    duckdb: str
    policy_digest: str
    git_commit: str | None
    git_dirty: bool | None
    scope: str | None
    project: str
    items: list[ItemState]
    sources: list[SourceState]
    limits: list[LimitState]
    clashes: list[ClashState]
    undeclared: list[Undeclared]
    targets: list[TargetState]
    uncovered: int
    uncovered_bytes: int
    incomplete: bool
    copies: int
    copy_bytes: int
    deletes: int
    delete_bytes: int
    last_copies: int

    @property
    def plan_id(self) -> str:
        """The plan's short name: the beginning of its digest."""
        return self.digest[:16]

    @property
    def held_back(self) -> list[str]:
        """Why the deletes of this plan may not run, in words; empty when they may."""
        breaches = [f"limit {limit.name} of {limit.scope}" for limit in self.limits if limit.breached and not limit.lifted]
        return breaches + [f"clash of {clash.ceiling} with {clash.keep}" for clash in self.clashes if not clash.lifted]


@dataclass(frozen=True, slots=True)
class PlanFile:
    """A plan that was read and found whole. `connection` holds its rows as the view `plan`."""

    path: Path
    header: Header
    fingerprint: str
    connection: duckdb.DuckDBPyConnection


def _as_text() -> str:
    """SQL: the columns as plain values: moments as RFC 3339 or `forever`."""

    def written(column: str, kind: str) -> str:
        if kind == "TIMESTAMP":
            return f"CASE WHEN isinf({column}) THEN 'forever' ELSE strftime({column}, '%Y-%m-%dT%H:%M:%SZ') END AS {column}"
        return column

    return ", ".join(written(column, kind) for column, kind in COLUMNS.items())


def fingerprint_of(path: Path) -> str:
    """The SHA-256 of a file, as hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_plan(connection: duckdb.DuckDBPyConnection, header: Header, path: Path) -> None:
    """Write the views quiet_lines and lines, in their order, and a header to one file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.half")
    quiet = {row[0] for row in connection.execute("DESCRIBE quiet_lines").fetchall()}
    few = ", ".join(name if name in quiet else f"NULL::{kind} AS {name}" for name, kind in COLUMNS.items())
    connection.execute(
        f"COPY (SELECT {few} FROM quiet_lines UNION ALL SELECT {', '.join(COLUMNS)} FROM lines) TO {literal(str(half))} (FORMAT parquet, "
        "COMPRESSION zstd, COMPRESSION_LEVEL 1, DICTIONARY_SIZE_LIMIT 1000, ROW_GROUP_SIZE 122880, "
        f"KV_METADATA {{'{_KEY}': {literal(_canonical(header))}}})"
    )
    with half.open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as content:
        place = content.rfind(_NO_DIGEST.encode())
        content[place : place + len(_NO_DIGEST)] = hashlib.sha256(content).hexdigest().encode()
    half.replace(path)


def _is_whole(path: Path, digest: str) -> bool:
    """Whether a file is what was written: its SHA-256 with the digest itself blanked out is the digest."""
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        place = content.rfind(digest.encode())
        if len(digest) != len(_NO_DIGEST) or place < 0:
            return False
        whole = hashlib.sha256(memoryview(content)[:place])
        whole.update(_NO_DIGEST.encode())
        whole.update(memoryview(content)[place + len(digest) :])
        return whole.hexdigest() == digest


def _canonical(header: Header) -> str:
    return json.dumps(header.model_dump(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def read_plan(path: Path) -> PlanFile:
    """Read a plan and check that it is whole. Raises PlanRefused when it is truncated, edited or of another major format."""
    refused = "make a new one with `retainer plan --out FILE`"
    if not path.is_file():
        raise PlanRefused(f"there is no plan at {path}", hint=refused)
    fingerprint = fingerprint_of(path)
    connection = connect()
    quoted = literal(str(path))
    try:
        found = connection.execute(f"SELECT value FROM parquet_kv_metadata({quoted}) WHERE key = '{_KEY}'").fetchone()
        if found is None:
            raise PlanRefused(f"{path} is a Parquet file, but no plan of retainer", hint=refused)
        raw: dict[str, Any] = json.loads(bytes(found[0]))
        major = str(raw.get("format", "?")).split(".")[0]
        if major != FORMAT.split(".")[0]:
            raise PlanRefused(f"{path} has plan format {raw.get('format')}; this retainer reads {FORMAT.split('.')[0]}.x", hint=refused)
        header = Header.model_validate(raw)
        if not _is_whole(path, header.digest):
            raise PlanRefused(f"{path} was edited or damaged: it is not the file that `retainer plan` wrote", hint=refused)
        connection.execute(f"CREATE VIEW plan AS FROM read_parquet({quoted})")
        connection.execute(f"CREATE VIEW plan_text AS SELECT {_as_text()} FROM plan")
    except (duckdb.Error, ValueError, ValidationError, KeyError) as error:
        raise PlanRefused(f"{path} is truncated or no plan: {str(error).splitlines()[0]}", hint=refused) from None
    return PlanFile(path, header, fingerprint, connection)


@dataclass(frozen=True, slots=True)
class Planned:
    """One object of a plan: where it lies, and the version it was seen with."""

    store: str
    key: str
    size: int
    version: str


@dataclass(frozen=True, slots=True)
class Action:
    """One copy or delete, as a plan says it.

    A copy is read from the objects of `origin` in the store `source`, or from 100ms where there are none. A `target` with a slash at its end is
    the folder of a recording of many objects, whose names in `origin` begin behind `folder`.
    """

    n: int
    asset_id: str
    store: str
    decision: str
    rule: str
    at: str
    type: str | None
    created: datetime | None
    deadline: datetime | None
    bytes: int | None
    last_copy: bool
    source: str | None
    origin: tuple[Planned, ...]
    folder: str
    target: str | None
    objects: tuple[Planned, ...]
    broken: tuple[Planned, ...]
    witnesses: tuple[Planned, ...]
    lock_until: datetime | None
    facts: dict[str, Any]


def actions(plan: PlanFile, decision: str, *, archived: bool = False) -> Iterator[Action]:
    """The copies or the deletes of a plan, in its order; `archived`: those copies that must wait until their source is restored."""
    cursor = plan.connection.cursor()
    cursor.execute(
        "SELECT n, asset_id, store, decision, rule, rule_at, type, epoch(created), epoch(deadline), bytes, last_copy, source, action "
        f"FROM plan WHERE {ARCHIVED if archived else ACTIONS} AND decision = ? ORDER BY n", [decision]
    )
    while rows := cursor.fetchmany(1000):
        for n, asset_id, store, what, rule, at, kind, created, deadline, size, last, source, text in rows:
            action = json.loads(text)
            yield Action(
                n, asset_id, store, what, rule, at, kind, _moment(created), _moment(deadline), size, last,
                source, tuple(Planned(source, **each) for each in action["origin"] or ()), action["folder"] or "", action["target"],
                tuple(Planned(store, **each) for each in action["objects"] or ()),
                tuple(Planned(store, **each) for each in action["broken"] or ()),
                tuple(Planned(**each) for each in action["witnesses"] or ()), read_moment(action["lock_until"] or ""),
                action["facts"],
            )  # fmt: skip


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def moment_of(text: str) -> datetime:
    """A moment of a header. Raises PlanRefused when it is none."""
    moment = read_moment(text)
    if moment is None:
        raise PlanRefused(f"the plan's header has `{text}` where a moment should be")
    return moment


@dataclass(frozen=True, slots=True)
class Line:
    """One row, as far as a person reads it."""

    asset_id: str
    store: str
    decision: str
    because: tuple[str, ...]
    rule: str | None
    rule_at: str | None
    type: str | None
    bytes: int | None
    until: datetime | None
    deadline: datetime | None
    delete_from: datetime | None
    leaves_at: datetime | None
    assumed: bool
    last_copy: bool
    source: str | None
    lock_until: datetime | None


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that belong together: their number, their bytes, and the first few of them."""

    key: tuple[str, ...]
    count: int
    bytes: int
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything that a plan's text tells, in the order it is told."""

    deletes: tuple[Group, ...]
    at_risk: tuple[Line, ...]
    at_risk_count: int
    first_leaves_at: datetime | None
    copies: tuple[Group, ...]
    blocked: tuple[Group, ...]
    archived: tuple[Group, ...]
    uncovered: tuple[Group, ...]
    out_of_scope: int
    others: tuple[Group, ...]
    totals: tuple[tuple[str, int, int], ...]


_LINE = ("asset_id, store, decision, because, rule, rule_at, type, bytes, CASE WHEN isinf(until) THEN NULL ELSE epoch(until) END AS until, "
         "epoch(deadline) AS deadline, CASE WHEN isinf(delete_from) THEN NULL ELSE epoch(delete_from) END AS delete_from, "
         "epoch(leaves_at) AS leaves_at, assumed, last_copy, source, "
         "CASE decision WHEN 'copy' THEN epoch(json_extract_string(action, '$.lock_until')::TIMESTAMP) END AS lock_until")  # fmt: skip


def _line(*values: Any) -> Line:
    row = dict(zip((each.name for each in fields(Line)), values, strict=True))
    moments = {name: _moment(row[name]) for name in ("until", "deadline", "delete_from", "leaves_at", "lock_until")}
    return Line(**row | moments | {"because": tuple(row["because"].split(", ")) if row["because"] else ()})


def overview(plan: PlanFile, shown: int = 10) -> Overview:
    """Gather what a plan's text tells; of every group the first `shown` rows."""
    connection = plan.connection
    connection.execute(f"CREATE OR REPLACE TEMP TABLE told AS SELECT n, {_LINE} FROM plan WHERE n IS NOT NULL ORDER BY n")

    def lines(where: str, limit: int, order: str = "n") -> tuple[Line, ...]:
        rows = connection.execute(f"SELECT * EXCLUDE n FROM told WHERE {where} ORDER BY {order} LIMIT {limit}").fetchall()
        return tuple(_line(*row) for row in rows)

    def groups(where: str, *by: str) -> tuple[Group, ...]:
        rows = connection.execute(f"""
            SELECT [{', '.join(f"coalesce({column}, '')" for column in by)}] AS key, count(*) OVER same,
                (coalesce(sum(bytes) OVER same, 0))::BIGINT, COLUMNS(* EXCLUDE n)
            FROM told WHERE {where} WINDOW same AS (PARTITION BY {', '.join(by)})
            QUALIFY row_number() OVER (PARTITION BY {', '.join(by)} ORDER BY n) <= {shown} ORDER BY key, n
        """).fetchall()
        return tuple(
            Group(tuple(key), count, size, tuple(_line(*row[3:]) for row in group))
            for (key, count, size), group in groupby(rows, key=lambda row: row[:3])
        )

    risk = connection.execute("SELECT count(DISTINCT asset_id), min(leaves_at) FROM told WHERE leaves_at IS NOT NULL").fetchone()
    aside = connection.execute("SELECT count(*) FROM told WHERE because = 'out-of-scope'").fetchone()
    assert risk is not None and aside is not None
    return Overview(
        deletes=groups(f"{ACTIONS} AND decision = 'delete'", "rule", "rule_at", "store"),
        at_risk=lines("leaves_at IS NOT NULL", shown, "leaves_at, n"),
        at_risk_count=risk[0],
        first_leaves_at=_moment(risk[1]),
        copies=groups(f"{ACTIONS} AND decision = 'copy'", "rule", "rule_at", "store"),
        blocked=groups("decision = 'blocked'", "because"),
        archived=groups("because = 'archived'", "source", "store"),
        uncovered=groups("because = 'uncovered'", "store"),
        out_of_scope=aside[0],
        others=groups("decision IN ('lost', 'unknown', 'waiting')", "decision", "store"),
        totals=tuple(
            connection.execute(
                "SELECT decision, count(*), coalesce(sum(bytes), 0)::BIGINT FROM plan GROUP BY decision ORDER BY decision"
            ).fetchall()
        ),
    )

