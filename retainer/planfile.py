"""The plan file: one Parquet file whose rows are the decisions, with a header in its metadata
(format: docs/reference/plan-file.md)."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
from array import array
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import duckdb
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from retainer.database import ALWAYS, NEVER, connect, exactly, literal, only_row
from retainer.errors import PlanRefused, RetainerError, WrongUsage
from retainer.model.moment import moment_at, read_moment
from retainer.model.printable import shown
from retainer.model.setting import LAPSE_DAYS, Lock
from retainer.ports import Seen, Version
from retainer.private import private_file
from retainer.whole import whole

FORMAT = "4.9"
SKEW_SECONDS = 300.0
LARGEST_BYTES = 8 << 30
"""A plan is at most so long; one of ten million assets has some 400 MB."""
KEY = "retainer.plan"
_PIECE = 1 << 20
"""So many bytes of a file are read at a time."""
NO_DIGEST = "0" * 64
DECISIONS = (
    "copy",
    "delete",
    "blocked",
    "lost",
    "uncatalogued",
    "unknown",
    "waiting",
    "keep",
    "unmanaged",
    "lapses",
    "none",
)
AT_ONCE = 61_440
"""So many rows that are acted on are put together at a time: what each takes is some kilobytes."""
LYING = "decision IN ('keep', 'unmanaged', 'blocked', 'delete')"
"""Something of it lies in that place."""
ACTIONS = "n IS NOT NULL AND decision IN ('copy', 'keep', 'delete') AND because IS NULL"
"""Of what is kept, only what is to be locked longer has a number."""
ARCHIVED = "decision = 'copy' AND because = 'archived'"

COLUMNS = {
    # the number of a row that is acted on or worried about: copies by deadline, deletes, what is
    # kept and to be locked longer, the rest; the quiet rows have none
    "n": "INTEGER",
    "asset_id": "VARCHAR",
    "store": "VARCHAR",
    "decision": "VARCHAR",
    # what blocks a delete: hold, lock, versions, second-factor, untrusted-time, unknown,
    # unsatisfied, shared; and why a copy or delete is no action:
    # archived (must be restored before it can be read), uncovered (it holds an object that no other
    # copy has), out-of-scope (--only)
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
    # it lies in a bucket that nobody declared, so that this moment is assumed
    "assumed": "BOOLEAN",
    "source": "VARCHAR",  # where a copy is read from: a store, hosted or elsewhere
    # JSON, on what is acted on. origin [{key, size, version}]: what a copy from a store is read
    # from; folder: where the names in it begin; target: the copy's key, or with a slash at its end
    # its folder; broken [{key, size, version}]: what a scrub found there and the copy replaces;
    # lock_until: until when it is locked, and lock_mode: how. objects [{key, size, version}]: what
    # is locked longer, or what a delete deletes, as it was seen and in this order; removes [{key,
    # size, version, id, current, marker}]: all that the bucket has of them, where each is to go,
    # for good, since removes_by (a rule) asks for that; witnesses [{store, key, size, version}]:
    # the complete copies that make it safe. facts: what holds can match on, less names
    "action": "VARCHAR",
    # the id of what stands beside `rule`: of a delete, the keep that was the last to end; of what a
    # hold blocks, the hold that certainly covers it
    "also": "VARCHAR",
    # of a delete that is for good: so many versions go; NULL: whatever the bucket keeps stays
    "versions": "INTEGER",
}
"""The rows; pairs with nothing there and nothing needed are left out. Moments in UTC (9999-12-31:
never, 0001-01-01: always), sizes in bytes. Quiet rows (kept, unmanaged, lapses) come first; what
only others need is NULL on them, also `last_copy` and `assumed`."""
_ADDED = {"also", "versions"}
"""Columns that the first plans of this major format do not have."""


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
    """What it was seen to lack, in words."""
    copies_not_possible: int = 0
    deletes_not_possible: int = 0
    """Those in it, and those that rest on a copy in it."""
    identity: str | None = None
    customer: str | None = None
    skew_seconds: float | None = None
    """How far its clock was ahead of the machine's that gathered the facts."""
    refused: bool = False
    """Whether its credentials were refused."""
    keeps_deleted: str | None = None
    """How what is deleted there can still be read, in words."""
    keeps_removed: str | None = None
    """The same of what is deleted with every version."""
    reported: str | None = None
    """When the report of its bucket began that was read in place of a list."""
    lost_record: str | None = None
    """Why the journal is not all that was done in this store, in words."""
    lifted: tuple[str, ...] = ()
    """What a person said is to be so: `record`, that it is gone for good; `workspace`, that it may
    be another one; `clock`, that the dates of its files are wrong (of a folder alone);
    `disappeared`, that much is gone from it on purpose."""

    @property
    def place(self) -> str:
        """Whose list it is: a store's, or 100ms's."""
        return self.name if self.kind == "store" else "100ms"


@dataclass(frozen=True, slots=True)
class LimitState:
    """One limit as evaluated. `scope` is `store:NAME` or `rule:ID`; `used` includes the last 24
    hours."""

    name: str
    scope: str
    used: float
    allowed: float
    breached: bool
    lifted: bool
    lately: float = 0.0
    """How much of `used` was deleted in the last 24 hours, before this plan."""

    @property
    def lift(self) -> str:
        return f"--lift {self.name}:{self.scope}"


@dataclass(frozen=True, slots=True)
class OwnRule:
    """A rule of a bucket's own that would delete what an item keeps there, as plan/lifecycles.py
    says it; moments as RFC 3339, `stays` None for ever."""

    store: str
    rule: str
    item: str
    at: str
    kept: str
    strikes: str
    stays: str | None
    lifted: bool

    @property
    def lift(self) -> str:
        return f"--lift lifecycle:{self.store}"


@dataclass(frozen=True, slots=True)
class Cooled:
    """A keep of the policies of an earlier apply that still counts as it was: of which rule, where
    that stood (commit, file and line), in which store and how long, and until when it counts (RFC
    3339; None until an apply goes by other policies)."""

    rule: str
    at: str
    store: str
    kept: str
    until: str | None


@dataclass(frozen=True, slots=True)
class ItemState:
    """A rule, hold or erasure as it was when the plan was made."""

    id: str
    kind: str
    at: str
    why: str
    owner: str
    digest: str
    matches: int = 0
    may_match: int = 0
    """Of how many recordings it is not certain whether it matches them."""
    requested: str | None = None
    """Of an erasure: when the request came."""


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
class Renamed:
    """A room that was seen under several names, or whose template was: rules by name are not
    certain of so many recordings."""

    room_id: str
    what: str
    assets: int


@dataclass(frozen=True, slots=True)
class Superseded:
    """So many copies in a store are of uploads that were overwritten since."""

    store: str
    assets: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """A partial copy that counts since a person accepted it: where it lies, and why it is partial
    in each of those stores. In none: the entry accepts nothing."""

    asset_id: str
    at: str
    why: str
    owner: str
    stores: list[str]
    partial: list[str]


@dataclass(frozen=True, slots=True)
class UnseenKey:
    """A key of metadata that something asks for, and that no recording has."""

    key: str
    item: str
    at: str


@dataclass(frozen=True, slots=True)
class Undeclared:
    bucket: str
    assets: int
    at_risk: int


@dataclass(frozen=True, slots=True)
class TargetState:
    """How the copies of this plan will lie in a store. `small`: so many of them stay in the
    standard class, being under `floor` bytes; `locked`: so many are locked, the last of them until
    `lock_last`; `longer`: so many that lie there are locked longer, the last until `longest`."""

    name: str
    storage_class: str | None
    floor: int
    small: int
    lock: str | None
    locked: int
    unlocked: int
    lock_last: str | None
    longer: int = 0
    longest: str | None = None
    longer_final: int = 0
    """So many of those that are locked longer have, or get, a lock that nobody can take back."""


class Header(BaseModel):
    """What a plan says of itself. `digest` is over the whole file (docs/reference/plan-file.md);
    the fingerprint is the file's SHA-256."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    format: str = FORMAT
    digest: str = NO_DIGEST
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
    renamed: list[Renamed]
    superseded: list[Superseded]
    zones: str
    """The version of the time-zone database (the tzdata package)."""
    customer: str | None
    """100ms's id of the workspace whose recordings these are."""
    uncovered: int
    uncovered_bytes: int
    incomplete: bool
    copies: int
    copy_bytes: int
    deletes: int
    delete_bytes: int
    last_copies: int
    purges: int = 0
    """So many of the deletes are for good, with every version that the bucket keeps."""
    locks: int = 0
    """So many copies that are kept are to be locked longer."""
    timezone: str = "UTC"
    """The calendar of the policies, in which people are told moments."""
    remembered: str = ""
    """Whence the deletes of the last 24 hours are known: `journal`, `stores` (what they remember),
    or `nothing`; empty in plans of older formats."""
    monthly: float | None = None
    """About so many dollars a month more (or less) is stored once it is applied, as far as prices
    are known; None where none is."""
    unpriced: list[str] = []
    """The stores whose price is not known, and that something is copied to or deleted from."""
    accepted: list[Accepted] = []
    unseen_keys: list[UnseenKey] = []
    frozen: str = ""
    """The freeze that was in force, in words; empty where there was none."""
    own_rules: list[OwnRule] = []
    """Rules of the buckets' own that stand against the policies. They block nothing here: the
    bucket deletes, whatever a plan says."""

    unlockable: list[str] = []
    """Stores with `lock:` whose buckets lock nothing."""
    cooled: list[Cooled] = []
    weighed: list[str] = []
    """The digests of the policies of earlier applies whose keeps were weighed."""
    cooling_unknown: str = ""
    """Why what they had promised is not all known; empty where it is."""
    cooling_lifted: bool = False

    @property
    def plan_id(self) -> str:
        """The plan's short name: the beginning of its digest."""
        return self.digest[:16]

    def shown(self) -> Header:
        """The header with every text in it as it can be shown."""
        return self.model_copy(
            update={name: shown(getattr(self, name)) for name in type(self).model_fields}
        )

    @property
    def held_back(self) -> list[str]:
        """Why the deletes of this plan may not run, in words; empty when they may."""
        breaches = [
            f"limit {limit.name} of {limit.scope}"
            for limit in self.limits
            if limit.breached and not limit.lifted
        ]
        clashes = [
            f"clash of {clash.ceiling} with {clash.keep}"
            for clash in self.clashes
            if not clash.lifted
        ]
        doubts = [
            reason for source in self.sources if (reason := self.doubt(source)) and self.deletes
        ]
        if self.cooling_unknown and not self.cooling_lifted and self.deletes:
            doubts.append(f"cooling: {self.cooling_unknown}")
        return breaches + clashes + doubts + [self.frozen] * bool(self.frozen and self.deletes)

    def doubt(self, source: SourceState) -> str | None:
        """Why no delete may rest on a source: its clock, its record, or whose recordings it holds.
        None: nothing speaks against it."""
        if (
            source.skew_seconds is not None
            and abs(source.skew_seconds) > SKEW_SECONDS
            and "clock" not in source.lifted
        ):
            minutes = abs(source.skew_seconds) / 60
            off = f"{minutes:,.0f} minutes" if minutes < 5000 else f"{minutes / 1440:,.0f} days"
            return f"clock: this machine's was {off} off that of {source.name.split()[0]}"
        if source.lost_record and "record" not in source.lifted:
            return f"record of {source.name}"
        if (
            source.kind == "store"
            and source.customer
            and self.customer
            and source.customer != self.customer
            and "workspace" not in source.lifted
        ):
            return f"workspace of {source.name}"
        return None

    def is_lifted(self, what: str, store: str) -> bool:
        """Whether a person said that the record of a store, or its workspace, is to be as it is."""
        return any(
            what in source.lifted
            for source in self.sources
            if source.kind == "store" and source.name == store
        )


@dataclass(frozen=True, slots=True)
class PlanFile:
    """A plan that was read and found whole. `connection` holds its rows as the view `plan`."""

    path: Path
    header: Header
    fingerprint: str
    connection: duckdb.DuckDBPyConnection
    copy: Path
    """The very bytes that were read, in the private folder."""


def _as_text() -> str:
    """SQL: the columns as plain values: moments as RFC 3339 or `forever`."""

    def written(column: str, kind: str) -> str:
        if kind == "TIMESTAMP":
            return (
                f"CASE WHEN {column} >= {NEVER} THEN 'forever' ELSE strftime({column}, "
                f"'%Y-%m-%dT%H:%M:%SZ') END AS {column}"
            )
        return column

    return ", ".join(written(column, kind) for column, kind in COLUMNS.items())


def may_be_written(path: Path, is_ours: Callable[[Path], bool], what: str) -> None:
    """Raises WrongUsage unless nothing lies at a path, or something that `is_ours` knows: an older
    one of what is to be written."""
    hint = f"{what} replaces only an older one; name a file that does not exist"
    try:
        found = path.stat()
    except FileNotFoundError:
        if path.is_symlink():
            raise WrongUsage(f"{path} is a link that leads nowhere", hint=hint) from None
        return
    except (OSError, ValueError) as error:
        raise WrongUsage(
            f"{path} cannot be written: {getattr(error, 'strerror', None) or error}", hint=hint
        ) from None
    if not stat.S_ISREG(found.st_mode):
        raise WrongUsage(f"{path} is no file, so nothing is written there", hint=hint)
    if found.st_size and not is_ours(path):
        raise WrongUsage(f"{path} is something else than {what}, so it is left as it is", hint=hint)


def is_plan(path: Path) -> bool:
    """Whether a file is a plan of any format, by what it says of itself."""
    path = path.resolve()
    try:
        with connect(path.parent) as connection:
            return bool(
                connection.execute(
                    f"SELECT value FROM parquet_kv_metadata({exactly(path)}) WHERE key = '{KEY}'"
                ).fetchone()
            )
    except duckdb.Error:
        return False


def put_in_place(made: Path, path: Path) -> None:
    """Move a file from the private folder to its place, whole or not at all. Raises RetainerError
    when it cannot be written there."""
    try:
        with whole(path) as half:
            try:
                made.rename(half)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                shutil.copyfile(made, half)
    except OSError as error:
        raise RetainerError(
            f"{path} cannot be written: {error.strerror}", hint="is the disk full or read-only?"
        ) from None
    finally:
        with suppress(OSError):
            made.unlink(missing_ok=True)


def _read_once(path: Path) -> tuple[Path, str]:
    """The bytes of a plan as a private file, and their SHA-256: what is checked, shown and done is
    what was read here, at one time."""
    copy, digest, size = private_file(".plan"), hashlib.sha256(), 0
    try:
        with (
            os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as source,
            copy.open("xb") as target,
        ):
            if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
                raise PlanRefused(f"{path} is no file", hint=_AGAIN)
            while piece := source.read(_PIECE):
                size += len(piece)
                if size > LARGEST_BYTES:
                    raise PlanRefused(
                        f"{path} is longer than {LARGEST_BYTES >> 30} GiB: no plan", hint=_AGAIN
                    )
                digest.update(piece)
                target.write(piece)
    except FileNotFoundError:
        raise PlanRefused(f"there is no plan at {path}", hint=_AGAIN) from None
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RetainerError(
                f"{path} could not be read into {copy.parent}: {error.strerror}",
                hint="make room there, or set TMPDIR",
            ) from None
        raise PlanRefused(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}", hint=_AGAIN
        ) from None
    return copy, digest.hexdigest()


def _is_whole(path: Path, digest: str) -> bool:
    """Whether a file is what was written: its SHA-256 with the digest itself blanked out is the
    digest."""
    if len(digest) != len(NO_DIGEST):
        return False
    with path.open("rb") as stream:
        place = place_of_digest(stream, digest)
        return place is not None and digest_of(stream, place) == digest


def place_of_digest(stream: BinaryIO, digest: str) -> int | None:
    """Where a digest stands in a plan, for the last time; it is in the footer."""
    sought = digest.encode()
    end = stream.seek(0, os.SEEK_END)
    while end > 0:
        begin = max(0, end - _PIECE)
        stream.seek(begin)
        if (found := stream.read(end - begin + len(sought) - 1).rfind(sought)) >= 0:
            return begin + found
        end = begin
    return None


def digest_of(stream: BinaryIO, place: int) -> str:
    """The SHA-256 of a plan with the digest that stands at `place` blanked out. It is read piece by
    piece: of a file that is mapped every page counts as memory of this process."""
    whole = hashlib.sha256()
    stream.seek(0)
    left = place
    while left > 0 and (piece := stream.read(min(left, _PIECE))):
        whole.update(piece)
        left -= len(piece)
    whole.update(NO_DIGEST.encode())
    stream.seek(place + len(NO_DIGEST))
    while piece := stream.read(_PIECE):
        whole.update(piece)
    return whole.hexdigest()


def canonical(header: Header) -> str:
    """A header as it stands in the file's metadata: always the same for the same."""
    return json.dumps(header.model_dump(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def read_plan(path: Path) -> PlanFile:
    """Read a plan, once, and check that it is whole. Raises PlanRefused when it is truncated,
    edited or of another major format."""
    copy, fingerprint = _read_once(path)
    connection = connect()
    try:
        found = connection.execute(
            f"SELECT value FROM parquet_kv_metadata({literal(str(copy))}) WHERE key = '{KEY}'"
        ).fetchone()
        if found is None:
            raise PlanRefused(f"{path} is a Parquet file, but no plan of retainer", hint=_AGAIN)
        raw: dict[str, Any] = json.loads(bytes(found[0]))
        major = str(raw.get("format", "?")).split(".")[0]
        if major != FORMAT.split(".")[0]:
            raise PlanRefused(
                f"{path} has plan format {raw.get('format')}; this retainer reads "
                f"{FORMAT.split('.')[0]}.x",
                hint=_AGAIN,
            )
        header = Header.model_validate(raw)
        if not _is_whole(copy, header.digest):
            raise PlanRefused(
                f"{path} was edited or damaged: it is not the file that `retainer plan` wrote",
                hint=_AGAIN,
            )
        for moment in (header.as_of, header.created, header.expires):
            moment_of(moment)
        _take_rows(connection, copy)
        _check_rows(connection, header, path)
    except duckdb.OutOfMemoryException as error:
        raise RetainerError(
            f"{path} cannot be read in the memory that retainer takes, and what it spills to the "
            f"disk: {str(error).splitlines()[0]}",
            hint="is the disk of TMPDIR full? Else it is a fault of retainer: report it",
        ) from None
    except (
        duckdb.Error,
        ValueError,
        ValidationError,
        KeyError,
        AttributeError,
        RecursionError,
    ) as error:
        raise PlanRefused(
            f"{path} is truncated or no plan: "
            + str(error).splitlines()[0].replace(str(copy), str(path)),
            hint=_AGAIN,
        ) from None
    return PlanFile(path, header, fingerprint, connection, copy)


_AGAIN = "make a new one with `retainer plan --out FILE`"


def _take_rows(connection: duckdb.DuckDBPyConnection, copy: Path) -> None:
    """The view `plan`: the numbered rows, which are acted on, from a table; the quiet ones from the
    private copy."""
    file = f"read_parquet({literal(str(copy))})"
    there = {
        name: kind for name, kind, *_ in connection.execute(f"DESCRIBE FROM {file}").fetchall()
    }
    known = frozenset(there)
    there = {name: COLUMNS[name] for name in _ADDED} | there
    if wrong := [name for name, kind in COLUMNS.items() if there.get(name) != kind]:
        raise ValueError(f"its column {wrong[0]} is missing, or of another kind")
    absent = _ADDED - known
    columns = ", ".join(
        f"NULL::{kind} AS {name}" if name in absent else name for name, kind in COLUMNS.items()
    )
    connection.execute(f"CREATE VIEW numbered AS SELECT {columns} FROM {file} WHERE n IS NOT NULL")
    connection.execute(f"CREATE VIEW plan AS SELECT {columns} FROM {file}")
    connection.execute(f"CREATE VIEW plan_text AS SELECT {_as_text()} FROM plan")


def _check_rows(connection: duckdb.DuckDBPyConnection, header: Header, path: Path) -> None:
    """Raises PlanRefused where the rows are not those that the header counts, or none that a plan
    has."""
    decisions = ", ".join(map(literal, DECISIONS))
    row = connection.execute(f"""
        SELECT count(*) FILTER (decision = 'copy' AND {ACTIONS}),
            count(*) FILTER (decision = 'delete' AND {ACTIONS}),
            count(*) FILTER (decision = 'keep' AND {ACTIONS}),
            count(*) - count(DISTINCT n),
                count(*) FILTER (decision IN ('copy', 'keep', 'delete') AND action IS NULL)
        FROM numbered
    """).fetchone()
    assert row is not None
    if row[:3] != (header.copies, header.deletes, header.locks) or row[3] or row[4]:
        raise PlanRefused(
            f"{path} is no plan that retainer made: its rows are not those that its header counts",
            hint=_AGAIN,
        )
    odd = (
        f"asset_id IS NULL OR store IS NULL OR decision IS NULL OR decision NOT IN ({decisions}) "
        "OR (n IS NULL AND decision IN ('copy', 'delete'))"
    )
    far = " OR ".join(
        f"(isfinite({name}) AND {name} NOT IN ({ALWAYS}, {NEVER}) AND {name} NOT BETWEEN "
        "TIMESTAMP '1900-01-01' AND TIMESTAMP '9990-01-01')"
        for name, kind in COLUMNS.items()
        if kind == "TIMESTAMP"
    )
    locks = (
        "decision IN ('copy', 'keep') AND action IS NOT NULL AND json_valid(action) AND "
        "action->>'$.lock_until' IS NOT NULL AND "
        "try_cast(action->>'$.lock_until' AS TIMESTAMP) IS NULL"
    )
    spoilt = "action IS NOT NULL AND NOT json_valid(action)"
    if connection.execute(
        f"SELECT 1 FROM plan WHERE {odd} OR {far} OR {locks} OR {spoilt} "
        f"OR bytes NOT BETWEEN 0 AND {1 << 53} LIMIT 1"
    ).fetchall():
        raise PlanRefused(
            f"{path} is no plan that retainer made: it has a row that means nothing", hint=_AGAIN
        )


class _SaidObject(BaseModel):
    """An object as an `action` names it; `store` only where it may be another one than the
    row's."""

    model_config = ConfigDict(extra="forbid", strict=True)

    key: Annotated[str, Field(min_length=1, max_length=4096)]
    size: Annotated[int, Field(ge=0, le=1 << 53)]
    version: str
    store: str = ""

    def planned(self, store: str | None) -> Planned:
        return Planned(store or "", self.key, self.size, self.version)


class _SaidVersion(_SaidObject):
    id: Annotated[str, Field(min_length=1, max_length=1024)]
    current: bool
    marker: bool

    def listed(self) -> Version:
        seen = Seen(self.key, self.size, self.version)
        return Version(seen, self.id, self.current, self.marker)


class _SaidFacts(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    type: str | None = None
    status: str | None = None
    room_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    peer_id: str | None = None
    path: str | None = None
    size: Annotated[int, Field(ge=0, le=1 << 53)] | None = None
    duration: Annotated[float, Field(allow_inf_nan=False)] | None = None
    created: str | None = None
    metadata: dict[str, Any] | None = None
    thumbnails: list[str] | None = None
    not_known: list[str] | None = None


class _Said(BaseModel):
    """The column `action`, as JSON (docs/reference/plan-file.md)."""

    model_config = ConfigDict(extra="forbid", strict=True)

    origin: list[_SaidObject] | None = None
    folder: str | None = None
    target: str | None = None
    objects: list[_SaidObject] | None = None
    removes: list[_SaidVersion] | None = None
    removes_by: str | None = None
    broken: list[_SaidObject] | None = None
    witnesses: list[_SaidObject] | None = None
    lock_until: str | None = None
    lock_mode: Lock | None = None
    made_of: _SaidObject | None = None
    doubt: str | None = None
    partial: str | None = None
    facts: _SaidFacts


@dataclass(frozen=True, slots=True)
class Planned:
    """One object of a plan: where it lies, and the version it was seen with."""

    store: str
    key: str
    size: int
    version: str


@dataclass(frozen=True, slots=True)
class Action:
    """One copy, lock or delete, as a plan says it.

    A copy is read from the objects of `origin` in the store `source`, or from 100ms where there are
    none. A `target` with a slash at its end is the folder of a recording of many objects, whose
    names in `origin` begin behind `folder`. `made_of`: what 100ms uploaded, by its path and
    version, where the copy is made of that, at first or second hand.
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
    made_of: Planned | None = None
    doubt: str | None = None
    """Of a copy: what asks for it, where nothing is certain to; of a delete: what had asked so, and
    is certain by now not to."""
    partial: str | None = None
    """Of a copy: why what it is read from is no more than a part, which a person accepted."""
    kept_until: str | None = None
    due_from: str | None = None
    """Of a delete: when the last keep ended, and from when on it was due (RFC 3339)."""
    also: str | None = None
    """Of a delete: the keep that was the last to end."""
    versions: tuple[Version, ...] = ()
    """Of a delete: all that the bucket has of its objects, where each is to go, for good."""
    versions_by: str = ""
    """The rule that asks for that."""
    lock_mode: Lock | None = None
    """Of what is locked longer: who will be able to take that back."""

    def size_of(self, keys: Collection[str]) -> int:
        """So many bytes go by a delete of these of its objects."""
        below = (each.seen for each in self.versions if not each.is_current)
        return sum(each.size for each in self.objects if each.key in keys) + sum(
            seen.size for seen in below if seen.key in keys
        )

    @property
    def size(self) -> int:
        """So many bytes go by a delete."""
        return self.size_of({each.key for each in self.objects})

    @property
    def leaves_at(self) -> datetime | None:
        """Of a copy of what 100ms alone has: when it leaves; None where that is not known."""
        if self.deadline is None or self.created is None:
            return None
        return self.created + timedelta(days=LAPSE_DAYS)


def _said(text: str) -> _Said:
    try:
        return _Said.model_validate_json(text)
    except ValidationError as error:
        raise PlanRefused(
            f"the plan has an action that retainer did not write: {error.errors()[0]['msg']}",
            hint=_AGAIN,
        ) from None


def action_of(text: str | None) -> dict[str, Any]:
    """The column `action` of a row as plain values. Raises PlanRefused for what no plan has."""
    return _said(text).model_dump(exclude_none=True) if text else {}


def check_actions(plan: PlanFile) -> None:
    """Look at the actions of the rows that are none to be carried out now. Raises PlanRefused."""
    cursor = plan.connection.cursor()
    cursor.execute(
        f"SELECT action FROM numbered WHERE action IS NOT NULL AND NOT coalesce({ACTIONS}, false)"
    )
    while rows := cursor.fetchmany(1000):
        for (text,) in rows:
            _said(text)


AS_IT_STANDS = ""
"""SQL: the order of the file, which is that of `n`."""
COPY_ORDER = "ORDER BY date_trunc('hour', deadline) NULLS LAST, hash(asset_id), asset_id, n"
"""Within an hour they are spread over the keys of every store and over the servers that they come
from, those of one recording beside each other."""
DELETE_ORDER = "ORDER BY action->>'$.witnesses[0].key' NULLS FIRST, n"
"""What makes them safe lies beside each other, so that it can be looked at together."""


_DECIDED = {"copy": "copy", "lock": "keep", "delete": "delete"}
"""What is decided of what is acted on so: what is locked longer is kept."""


def actions(
    plan: PlanFile,
    decision: str,
    *,
    archived: bool = False,
    order: str = AS_IT_STANDS,
    store: str | None = None,
    only: Collection[int] | None = None,
) -> Iterator[Action]:
    """The copies, the locks or the deletes of a plan, read as they are asked for, some ten thousand
    at a time: only their numbers are put in order together. `archived`: those copies that must
    wait until their source is restored; `store`: in that one; `only`: of these rows."""
    cursor = plan.connection.cursor()
    cursor.execute(
        "CREATE TEMP TABLE turns AS SELECT n FROM numbered "
        f"WHERE {ARCHIVED if archived else ACTIONS} AND decision = $decision "
        "AND ($store IS NULL OR store = $store) "
        f"AND ($only IS NULL OR n IN (SELECT unnest($only::INTEGER[]))) {order}",
        {
            "decision": _DECIDED[decision],
            "store": store,
            "only": None if only is None else sorted(only),
        },
    )
    for first in range(0, only_row(cursor, "SELECT count(*) FROM turns")[0], AT_ONCE):
        turns = f"turns.rowid BETWEEN {first} AND {first + AT_ONCE - 1}"
        cursor.execute(
            "SELECT n, asset_id, store, decision, rule, rule_at, type, epoch(created), "
            "epoch(deadline), bytes, last_copy, source, action, "
            "strftime(keep_until, '%Y-%m-%dT%H:%M:%SZ'), "
            "strftime(delete_from, '%Y-%m-%dT%H:%M:%SZ'), also "
            f"FROM numbered JOIN turns USING (n) WHERE {turns} ORDER BY turns.rowid"
        )
        yield from _actions(cursor)


def _actions(cursor: duckdb.DuckDBPyConnection) -> Iterator[Action]:
    while rows := cursor.fetchmany(1000):
        for (
            n,
            asset_id,
            store,
            what,
            rule,
            at,
            kind,
            created,
            deadline,
            size,
            last,
            source,
            text,
            kept_until,
            due_from,
            also,
        ) in rows:
            said = _said(text)
            yield Action(
                n,
                asset_id,
                store,
                "lock" if what == "keep" else what,
                rule or "",
                at or "",
                kind,
                moment_at(created),
                moment_at(deadline),
                size,
                last,
                source,
                tuple(each.planned(source) for each in said.origin or ()),
                said.folder or "",
                said.target,
                tuple(each.planned(store) for each in said.objects or ()),
                tuple(each.planned(store) for each in said.broken or ()),
                tuple(each.planned(each.store) for each in said.witnesses or ()),
                read_moment(said.lock_until or ""),
                said.facts.model_dump(),
                said.made_of.planned("") if said.made_of else None,
                said.doubt,
                said.partial,
                kept_until,
                due_from,
                also,
                tuple(each.listed() for each in said.removes or ()),
                said.removes_by or "",
                said.lock_mode,
            )


def turns(plan: PlanFile, decision: str, order: str, store: str = "") -> array[int]:
    """The rows of a plan's copies or deletes (`store`: in that one) in the order in which they are
    made."""
    cursor = plan.connection.cursor()
    cursor.execute(
        f"SELECT n FROM numbered WHERE {ACTIONS} AND decision = ? AND (? = '' OR store = ?) "
        f"{order}",
        [decision, store, store],
    )
    found = array("i")
    while rows := cursor.fetchmany(100_000):
        found.extend(n for (n,) in rows)
    return found


def assets_copied(plan: PlanFile, only: Collection[int] | None = None) -> Iterator[str]:
    """The recordings that are copied, in the order of their copies, each once in a row. `only`: by
    these rows."""
    cursor = plan.connection.cursor()
    cursor.execute(
        f"SELECT asset_id FROM numbered WHERE {ACTIONS} AND decision = 'copy' "
        f"AND ($only IS NULL OR n IN (SELECT unnest($only::INTEGER[]))) {COPY_ORDER}",
        {"only": None if only is None else sorted(only)},
    )
    last = None
    while rows := cursor.fetchmany(1000):
        for (asset_id,) in rows:
            if asset_id != last:
                yield asset_id
            last = asset_id


def named_twice(plan: PlanFile) -> list[tuple[str, str, list[int]]]:
    """The objects that more than one delete names: store, key, and the rows."""
    return plan.connection.execute("""
        WITH named AS (
            SELECT n, store, unnest(json_extract_string(action, '$.objects[*].key')) AS key
            FROM numbered WHERE decision = 'delete' AND action IS NOT NULL
        ), perhaps AS (  -- few, and found without holding every key
            SELECT hash(store, key) AS told FROM named GROUP BY told HAVING min(n) < max(n)
        )
        SELECT store, key, list_sort(list(DISTINCT n)) FROM named
        WHERE hash(store, key) IN (FROM perhaps)
        GROUP BY store, key HAVING count(DISTINCT n) > 1 ORDER BY store, key
    """).fetchall()


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
    created: datetime | None
    also: str | None
    doubtful: bool
    """Whether nothing is certain to ask for this copy."""
    versions: int | None
    """So many versions go with it, for good; None: whatever the bucket keeps stays."""


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that belong together: their number, their bytes, and the first few of them. `assets`: of
    so many recordings."""

    key: tuple[str, ...]
    count: int
    bytes: int
    assets: int
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
    locks: tuple[Group, ...]
    archived: tuple[Group, ...]
    uncovered: tuple[Group, ...]
    out_of_scope: int
    lapsing: tuple[int, int, datetime | None]
    """How many recordings leave 100ms without a copy since no rule keeps them, their bytes, and
    when the first does."""
    others: tuple[Group, ...]
    totals: tuple[tuple[str, int, int], ...]
    assets_deleted: int
    assets_copied: int
    """Of how many recordings copies are deleted, and made."""
    charts: Charts | None = None
    """Where those were asked for."""


@dataclass(frozen=True, slots=True)
class Charts:
    """What a plan comes to over time and by place.

    `months`: each of the next 24 in which something ends, how many copies of how many bytes;
    `cliff`: by the days that 100ms still has it, how many recordings a rule keeps, and none;
    `stores`: how many copies of how many bytes lie in each, and so many bytes of them go.
    """

    months: tuple[tuple[str, int, int], ...]
    cliff: tuple[tuple[int, int, int], ...]
    stores: tuple[tuple[str, int, int, int], ...]


_LINE = (
    "asset_id, store, decision, because, rule, rule_at, type, bytes, "
    f"CASE WHEN until < {NEVER} THEN epoch(until) END AS until, epoch(deadline) AS deadline, "
    f"CASE WHEN delete_from > {ALWAYS} AND delete_from < {NEVER} THEN epoch(delete_from) END "
    "AS delete_from, "
    "epoch(leaves_at) AS leaves_at, assumed, last_copy, source, "
    "CASE WHEN decision IN ('copy', 'keep') "
    "THEN epoch(json_extract_string(action, '$.lock_until')::TIMESTAMP) END AS lock_until, "
    "epoch(coalesce(created, try_cast(action->>'$.facts.created' AS TIMESTAMP))) AS created, also, "
    "coalesce(decision = 'copy' AND action->>'$.doubt' IS NOT NULL, false) AS doubtful, versions"
)


def _line(*values: Any) -> Line:
    row = dict(zip((each.name for each in fields(Line)), values, strict=True))
    moments = {
        name: moment_at(row[name])
        for name in ("until", "deadline", "delete_from", "leaves_at", "lock_until", "created")
    }
    return Line(
        **row | moments | {"because": tuple(row["because"].split(", ")) if row["because"] else ()}
    )


def _charts(plan: PlanFile) -> Charts:
    now = f"TIMESTAMP '{moment_of(plan.header.as_of):%Y-%m-%d %H:%M:%S}'"
    ask = plan.connection.execute
    months = ask(
        "SELECT strftime(until, '%Y-%m'), count(*), coalesce(sum(bytes), 0)::BIGINT FROM plan "
        f"WHERE decision = 'keep' AND until < {now} + INTERVAL 24 MONTH GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    cliff = ask(cliff_of("plan", now)).fetchall()
    stores = ask(
        "SELECT store, count(*), coalesce(sum(bytes), 0)::BIGINT, "
        f"coalesce(sum(bytes) FILTER (decision = 'delete' AND {ACTIONS}), 0)::BIGINT FROM plan "
        f"WHERE {LYING} AND store NOT IN ('hosted', 'elsewhere') GROUP BY store ORDER BY store"
    ).fetchall()
    return Charts(tuple(months), tuple(cliff), tuple(stores))


def cliff_of(rows: str, now: str) -> str:
    """SQL: by the days that 100ms still has it, how many recordings a rule keeps, and none."""
    return (
        f"SELECT date_diff('day', {now}, until) AS days, "
        "count(*) FILTER (because IS NULL) AS kept, "
        "count(*) FILTER (because = 'not-kept') AS not_kept "
        f"FROM {rows} WHERE decision = 'lapses' "
        f"AND until BETWEEN {now} AND {now} + INTERVAL 15 DAY GROUP BY days ORDER BY days"
    )


def overview(
    plan: PlanFile,
    shown: int = 10,
    told_losses: frozenset[str] = frozenset(),
    *,
    with_charts: bool = False,
) -> Overview:
    """Gather what a plan's text tells; of every group the first `shown` rows. `told_losses`: assets
    whose loss has been told in full before."""
    connection = plan.connection
    because = (
        "CASE WHEN decision = 'lost' AND asset_id IN (SELECT unnest(?::VARCHAR[])) "
        "THEN concat_ws(', ', because, 'told') ELSE because END AS because"
    )
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE told AS "
        f"SELECT * REPLACE ({because}) FROM (SELECT n, {_LINE} FROM numbered)",
        [sorted(told_losses)],
    )

    def lines(where: str, limit: int, order: str = "n") -> tuple[Line, ...]:
        rows = connection.execute(
            f"SELECT * EXCLUDE n FROM told WHERE {where} ORDER BY {order} LIMIT {limit}"
        ).fetchall()
        return tuple(_line(*row) for row in rows)

    def groups(where: str, *by: str) -> tuple[Group, ...]:
        rows = connection.execute(f"""
            SELECT key, same.rows, same.size, same.assets, told.* EXCLUDE (n)
            FROM (SELECT * REPLACE (unnest(n) AS n) FROM (
                SELECT [{", ".join(f"coalesce({column}, '')" for column in by)}] AS key,
                    count(*) AS rows, coalesce(sum(bytes), 0)::BIGINT AS size,
                    count(DISTINCT asset_id) AS assets, min(n, {shown}) AS n
                FROM told WHERE {where} GROUP BY key
            )) AS same JOIN told USING (n) ORDER BY key, n
        """).fetchall()
        return tuple(
            Group(tuple(key), count, size, assets, tuple(_line(*row[4:]) for row in group))
            for (key, count, size, assets), group in groupby(rows, key=lambda row: row[:4])
        )

    risk = connection.execute(
        "SELECT count(DISTINCT asset_id), min(leaves_at) FROM told WHERE leaves_at IS NOT NULL"
    ).fetchone()
    aside = connection.execute(
        "SELECT count(*) FROM told WHERE because = 'out-of-scope'"
    ).fetchone()
    lapsing = connection.execute(
        "SELECT count(*), coalesce(sum(bytes), 0)::BIGINT, epoch(min(until)) FROM plan "
        "WHERE because = 'not-kept'"
    ).fetchone()
    acted = connection.execute(
        "SELECT count(DISTINCT asset_id) FILTER (decision = 'delete'), "
        f"count(DISTINCT asset_id) FILTER (decision = 'copy') FROM told WHERE {ACTIONS}"
    ).fetchone()
    assert risk is not None and aside is not None and lapsing is not None and acted is not None
    return Overview(
        deletes=groups(
            f"{ACTIONS} AND decision = 'delete'",
            "rule",
            "rule_at",
            "store",
            "(versions IS NOT NULL)::VARCHAR",
        ),
        at_risk=lines("leaves_at IS NOT NULL", shown, "leaves_at, n"),
        at_risk_count=risk[0],
        first_leaves_at=moment_at(risk[1]),
        copies=groups(
            f"{ACTIONS} AND decision = 'copy'", "rule", "rule_at", "store", "doubtful::VARCHAR"
        ),
        locks=groups(f"{ACTIONS} AND decision = 'keep'", "rule", "rule_at", "store"),
        blocked=groups("decision = 'blocked'", "because", "also"),
        archived=groups("because = 'archived'", "source", "store"),
        uncovered=groups("because = 'uncovered'", "store"),
        out_of_scope=aside[0],
        lapsing=(lapsing[0], lapsing[1], moment_at(lapsing[2])),
        others=groups(
            "decision IN ('lost', 'uncatalogued', 'unknown', 'waiting')",
            "decision",
            "store",
            "because",
        ),
        totals=tuple(
            connection.execute(
                "SELECT decision, count(*), coalesce(sum(bytes), 0)::BIGINT FROM plan "
                "WHERE because IS DISTINCT FROM 'out-of-scope' GROUP BY decision ORDER BY decision"
            ).fetchall()
        ),
        assets_deleted=acted[0],
        assets_copied=acted[1],
        charts=_charts(plan) if with_charts else None,
    )
