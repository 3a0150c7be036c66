"""Ranges of recordings that other machines decide for a plan.

All of them read one snapshot, in a folder that they share. Beside it the command that makes the
plan leaves a folder of its own, and removes it at its end:

    .FACTS.ID.ranges/terms.json      what every range is decided with
                     sharing.parquet what was decided of keys that recordings share
                     NNNNNN-SHA.json what a range comes to, and which files have its rows
                     *.parquet       those, each with a name of its own

Nothing in it is believed for lying there. The SHA-256 of the terms goes to a worker over the
engine, and has that of the rest; that of what a worker tells comes back in the same way, and has
that of its files. A range that is decided twice is decided alike, and each attempt has its own.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any

import duckdb
from pydantic import TypeAdapter, ValidationError

from retainer.cooling import cooling
from retainer.database import add_rows, literal, stands, write_parquet
from retainer.drafting import Draft
from retainer.errors import PoliciesWrong, RetainerError, StoreFailed
from retainer.inventory.facts import AT_ONCE, narrow, open_facts, ranges, replaced, snapshot_of
from retainer.journal.ledger import Reign
from retainer.model.calendar import zones_version
from retainer.model.rule import Match, Policies
from retainer.model.setting import Settings
from retainer.model.shard import Part
from retainer.plan.decide import decide_range
from retainer.planning import item_digest, policy_digest
from retainer.policy.diagnostics import Diagnostic
from retainer.policy.parse import parse_match
from retainer.ports import Engine
from retainer.private import keep_private_in, private_file
from retainer.spreading import AGAIN_SECONDS, TRIES, given_away, made_with
from retainer.stop import Stop
from retainer.weighing import ACTS, Cooling, Deciding, Making, Sums, decide_sharers, deciding
from retainer.workplace import must_be_alike, project_here, told_from_here

SEEN_SECONDS = 60.0
"""So long a file may take to be seen that another machine has written: NFS asks no more often."""
REMOVALS = 10
"""So often it is tried to remove a folder into which a worker may be writing still."""
STUCK_SECONDS = 600.0
"""So long before a range that a worker has not ended is given to another one: of a network disk
that does not answer a worker never hears."""
ABANDONED_SECONDS = 86_400.0
"""What a plan has left behind that was killed is removed by one that begins so much later."""
_TERMS, _SHARING = "terms.json", "sharing.parquet"
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Terms:
    """What every range of a plan is decided with, besides settings and policies, of which there is
    but a digest.

    `facts`: where the snapshot lies, on every machine, and `snapshot` which it is; `sharing`: the
    SHA-256 of what was decided of shared keys; `only`: the text of --only; `gone`, `reigns`: of
    the record, as `Making.gone` and `Cooling.reigns`.
    """

    facts: str
    snapshot: str
    sharing: str
    now: datetime
    only: str | None
    lifts: list[str]
    gone: list[tuple[str, str]]
    reigns: list[tuple[str, str, str]]
    size: int
    question: str


_FORM = TypeAdapter(Terms)


_VERSIONS = f"{made_with()}, tzdata {zones_version()}"
"""As they were when this was loaded: a worker that was upgraded, and goes on, has the old ones."""


def versions() -> str:
    """The versions that a decision rests on."""
    return _VERSIONS


def _snapshot(connection: duckdb.DuckDBPyConnection) -> str:
    """What the facts are that were opened, the same on every machine."""
    found = snapshot_of(connection)
    return f"{found.id} {found.gathered} {found.file}"


def _still_lies(facts: Path, connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether there lies still what was opened."""
    with suppress(OSError):
        return stands(facts) == snapshot_of(connection).file
    return False


def _question(asked: Deciding, policies: Policies) -> str:
    """A digest over all that settings and policies have to say of a range."""
    told = [
        policy_digest(policies, asked.settings),
        [[item_digest(item), str(item.where)] for item in asked.question.items],
        sorted({each.asset_id for each in policies.losses}),
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _carried(source: Path, target: Path) -> str:
    """Copy a file; its SHA-256, of what was written. Raises OSError."""
    digest = hashlib.sha256()
    with source.open("rb") as read, target.open("xb") as written:
        while piece := read.read(_PIECE):
            digest.update(piece)
            written.write(piece)
    return digest.hexdigest()


# ── where the plan is made ───────────────────────────────────────────────────────────────────────


@dataclass
class Ranging:
    """`planning.Elsewhere` on an engine."""

    engine: Engine
    facts: Path
    policies: Policies
    stop: Stop
    waiting: Callable[[str], None]
    """Told of what is waited for."""
    progress: Callable[[int], None]
    """Told how many more recordings were decided, about."""
    _tries: Counter[str] = field(default_factory=Counter)
    _given: dict[str, float] = field(default_factory=dict)
    """When each range was given away last, in monotonic seconds."""

    def __post_init__(self) -> None:
        self.facts = self.facts.absolute()  # as all machines see it, links and all

    def __call__(self, asked: Deciding, draft: Draft) -> Sums | None:
        """Raises RetainerError."""
        count = len(ranges(asked.connection, AT_ONCE))
        if count == 1:
            return None
        with self._shared() as folder:
            try:
                terms = self._leave(asked, draft, folder)
            except OSError as error:
                raise self._unshared(error) from None
            parts = [Part(str(folder), number, versions(), terms) for number in range(count)]
            made = self._have_made(parts, folder)
            sums = Sums(len(asked.question.items))
            for part in parts:
                _take_in(asked.connection, draft, sums, made[part.number], part)
        narrow(asked.connection)
        if not _still_lies(self.facts, asked.connection):
            raise replaced(self.facts)
        return sums

    def _unshared(self, error: OSError) -> RetainerError:
        return RetainerError(
            f"{self.facts.parent} cannot be shared with other machines: {error.strerror}",
            hint="the snapshot must lie in a folder that this user may write to, on all of them",
        )

    @contextmanager
    def _shared(self) -> Iterator[Path]:
        """A folder beside the snapshot, for as long as it is needed. Raises RetainerError."""
        beside, mark = self.facts.parent, f".{self.facts.name}."
        folder = beside / f"{mark}{uuid.uuid4().hex[:12]}.ranges"
        try:
            for left in beside.iterdir():
                if left.name.startswith(mark) and left.suffix == ".ranges":
                    with suppress(OSError):  # another plan may remove it too
                        if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                            shutil.rmtree(left)
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise self._unshared(error) from None
        try:
            yield folder
        finally:
            self._remove(folder)

    def _remove(self, folder: Path) -> None:
        """Under another name first, so that no worker can leave anything more in it."""
        over = folder.with_name(f"{folder.stem}-over.ranges")
        with suppress(OSError):
            folder.rename(over)
        for _ in range(REMOVALS):
            shutil.rmtree(over, ignore_errors=True)
            if not over.exists():
                return
            time.sleep(0.2)
        self.waiting(f"{over}: it could not be removed; remove it by hand")

    def _leave(self, asked: Deciding, draft: Draft, folder: Path) -> str:
        """What the workers go by, and here the empty tables that they fill; the SHA-256 of the
        terms. Raises OSError."""
        connection, making = asked.connection, asked.making
        decide_sharers(connection, asked.question)
        asked.lines()
        draft.learn()
        connection.execute("DROP TABLE IF EXISTS acts")
        add_rows(connection, "acts", f"FROM ({ACTS}) LIMIT 0")
        shared = private_file(".parquet")
        try:
            write_parquet(connection, "FROM sharing ORDER BY ALL", shared)
            sharing = _carried(shared, folder / _SHARING)
        finally:
            shared.unlink(missing_ok=True)
        terms = _FORM.dump_json(
            Terms(
                facts=str(self.facts),
                snapshot=_snapshot(connection),
                sharing=sharing,
                now=making.now,
                only=making.scope,
                lifts=sorted(making.lifts),
                gone=list(making.gone),
                reigns=[(each.policies, each.commit, each.until) for each in making.cooling.reigns],
                size=AT_ONCE,
                question=_question(asked, self.policies),
            )
        )
        (folder / _TERMS).write_bytes(terms)
        return hashlib.sha256(terms).hexdigest()

    def _have_made(self, parts: Sequence[Part], folder: Path) -> dict[int, _Made]:
        """What came of each range, as it ended. Raises RetainerError."""
        waiting = deque(parts)
        going: dict[Future[str | None], Part] = {}
        made: dict[int, _Made] = {}

        def check() -> None:
            self.stop.check()
            for future, part in list(going.items()):
                age = time.monotonic() - self._given[part.name]
                if age > STUCK_SECONDS and not future.done():
                    del going[future]  # what comes of it still is asked for by nobody
                    waiting.append(self._stuck(part))

        ended = given_away(self.engine, waiting, going, self._give, check, self.waiting)
        for future, part in ended:
            try:
                made[part.number] = _fetch(folder, part, future.result())
            except RetainerError as error:
                is_everywhere = error.exit_code != RetainerError.exit_code
                if is_everywhere or self._tries[part.name] == TRIES:
                    raise
                waiting.append(part)
                self.stop.wait(AGAIN_SECONDS * self._tries[part.name])
            else:
                self.progress(AT_ONCE)
        return made

    def _stuck(self, part: Part) -> Part:
        """A range that is to be given away once more. Raises StoreFailed where it was often
        enough."""
        said = f"no worker has decided range {part.number} within {STUCK_SECONDS / 60:.0f} minutes"
        if self._tries[part.name] == TRIES:
            hint = f"can all of them read {self.facts} quickly?"
            raise StoreFailed(f"{said}, {TRIES} times", hint=hint)
        self.waiting(f"{said}, and it is given to another one")
        return part

    def _give(self, part: Part) -> Future[str | None]:
        self._tries[part.name] += 1
        self._given[part.name] = time.monotonic()
        return self.engine.submit(part)


@dataclass(frozen=True, slots=True)
class _Made:
    """What a worker has left of a range, as private files: by what they hold."""

    sums: Sums
    files: Mapping[str, list[Path]]


_FILES = "quiet", "pieces", "acts"


def _fetch(folder: Path, part: Part, digest: str | None) -> _Made:
    """What a worker has left of a range. `digest`: the SHA-256, as the worker told it over the
    engine, of what names its files with theirs. Raises StoreFailed."""
    content = _seen(folder / f"{part.name}-{digest}.json")
    files: dict[str, list[Path]] = {what: [] for what in _FILES}
    try:
        if hashlib.sha256(content).hexdigest() != digest:
            raise ValueError
        told = json.loads(content)
        for what in _FILES:
            for name, of in told[what]:
                files[what].append(_fetched(folder, name, of))
        return _Made(Sums.read(told["sums"]), files)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        for path in chain(*files.values()):
            path.unlink(missing_ok=True)
        raise _unreadable(part, error) from None


def _take_in(
    connection: duckdb.DuckDBPyConnection, draft: Draft, sums: Sums, made: _Made, part: Part
) -> None:
    """What a worker has left of a range joins a draft, and what all ranges come to. Raises
    StoreFailed."""
    draft.join(made.files["quiet"], made.files["pieces"])
    try:
        sums.join(made.sums)
        for acts in made.files["acts"]:
            add_rows(connection, "acts", f"FROM read_parquet({literal(str(acts))})")
            acts.unlink()
    except (ValueError, duckdb.Error) as error:
        raise _unreadable(part, error) from None


def _unreadable(part: Part, error: Exception) -> StoreFailed:
    return StoreFailed(
        f"what a worker left of range {part.number} cannot be read ({type(error).__name__})",
        hint="run it again",
    )


def _seen(path: Path) -> bytes:
    """What a worker says that it has written. Raises StoreFailed where it is not seen here."""
    until = time.monotonic() + SEEN_SECONDS
    while True:
        try:
            return path.read_bytes()
        except OSError:
            if time.monotonic() > until:
                raise StoreFailed(
                    f"{path.parent.parent} is another folder on the workers than here",
                    hint="the snapshot must lie where all of them see the same files",
                ) from None
            time.sleep(0.2)


def _fetched(folder: Path, name: str, digest: str) -> Path:
    """A file of a worker as a private one. Raises ValueError where it is not what was written."""
    if Path(name).name != name:
        raise ValueError(name)
    path = private_file(".parquet")
    try:
        if _carried(folder / name, path) != digest:
            raise ValueError(name)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


# ── on a worker ──────────────────────────────────────────────────────────────────────────────────


def decide_part(told: Mapping[str, Any], root: Path) -> str:
    """Decide a range, and leave what comes of it; the SHA-256 of what tells that. `root`: where the
    worker's project lies, or below it.

    Raises PlanRefused, PoliciesWrong for what stands against every range here, and StoreFailed
    where another machine may do better.
    """
    must_be_alike(told, versions())
    try:
        part = Part(**told)
    except TypeError:
        raise StoreFailed("it is no range that this version knows") from None
    try:
        return _decide(part, Path(part.folder), root)
    except RetainerError as error:
        raise told_from_here(error) from None
    except OSError as error:
        failed = StoreFailed(f"{part.folder}: {error.strerror}")
        raise told_from_here(failed) from None


def _decide(part: Part, folder: Path, root: Path) -> str:
    """Raises RetainerError, OSError."""
    settings, policies, found = project_here(root)
    keep_private_in(found / settings.state)
    terms = _terms(part, folder)
    facts = Path(terms.facts)
    making = _making(terms, settings, policies, found)
    connection = open_facts(facts, settings, dict(making.gone), terms.size)
    acts = private_file(".parquet")
    try:
        with Draft(connection, part.number) as draft:
            connection.execute("SET threads = 1")  # Dask gives as many ranges as it has threads
            asked = deciding(connection, settings, policies, making)
            if _question(asked, policies) != terms.question:
                raise PoliciesWrong(
                    making.cooling.unknown or "its settings or policies are not those of the plan",
                    hint="check out the same commit on all machines, with its history",
                )
            _take_sharing(connection, folder, terms)
            narrow(connection, ranges(connection, terms.size)[part.number])
            decide_range(connection, asked.question, alone=False)
            asked.lines()
            draft.take()
            sums = Sums(len(asked.question.items))
            sums.add(connection)
            write_parquet(connection, f"{ACTS} ORDER BY n", acts)
            quiet, pieces = draft.taken
            if _snapshot(connection) != terms.snapshot or not _still_lies(facts, connection):
                raise StoreFailed(f"{facts} is another snapshot here")
            return _tell(part, folder, {"quiet": quiet, "pieces": pieces, "acts": [acts]}, sums)
    except duckdb.Error as error:  # its words may quote what stands in the facts
        raise StoreFailed(f"{facts} cannot be decided on ({type(error).__name__})") from None
    finally:
        acts.unlink(missing_ok=True)
        connection.close()


def _terms(part: Part, folder: Path) -> Terms:
    """What the command has left. Raises StoreFailed, OSError."""
    try:
        content = (folder / _TERMS).read_bytes()
        if hashlib.sha256(content).hexdigest() != part.terms:
            raise _not_as_left(folder)
        return _FORM.validate_json(content)
    except FileNotFoundError:
        raise StoreFailed(
            f"there is no {folder} here, or the plan was given up",
            hint="the snapshot must lie where all machines see the same files",
        ) from None
    except ValidationError:
        raise StoreFailed(f"what lies in {folder} cannot be read") from None


def _not_as_left(folder: Path) -> StoreFailed:
    return StoreFailed(f"what lies in {folder} is not what the command left there")


def _take_sharing(connection: duckdb.DuckDBPyConnection, folder: Path, terms: Terms) -> None:
    """What was decided of keys that recordings share. Raises StoreFailed, OSError."""
    try:
        shared = _fetched(folder, _SHARING, terms.sharing)
    except ValueError:
        raise _not_as_left(folder) from None
    try:
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE sharing AS SELECT * REPLACE (store::place AS store) "
            f"FROM read_parquet({literal(str(shared))})"
        )
    finally:
        shared.unlink()


def _making(terms: Terms, settings: Settings, policies: Policies, root: Path) -> Making:
    """Raises PoliciesWrong."""
    only: Match | None = None
    if terms.only is not None:
        read = parse_match(terms.only, "--only")
        if isinstance(read, Diagnostic):
            raise PoliciesWrong(f"--only: {read.message}")
        only = read
    was = Cooling()
    if settings.cooling is not None and terms.reigns:
        reigns = [Reign(*each) for each in terms.reigns]
        was = cooling(root, settings, policies, reigns, settings.cooling)
    return Making(
        terms.now,
        only=only,
        scope=terms.only,
        lifts=frozenset(terms.lifts),
        gone=tuple(terms.gone),
        cooling=was,
    )


def _tell(part: Part, folder: Path, files: Mapping[str, Sequence[Path]], sums: Sums) -> str:
    """Leave what comes of a range, its files first; the SHA-256 of what tells it. Raises
    OSError."""
    told: dict[str, Any] = {"sums": sums.written()}
    for what, paths in files.items():
        told[what] = []
        for path in paths:
            name = f"{part.name}-{uuid.uuid4().hex[:12]}.parquet"
            told[what].append([name, _carried(path, folder / name)])
    content = json.dumps(told).encode()
    digest = hashlib.sha256(content).hexdigest()
    with (folder / f"{part.name}-{digest}.json").open("xb") as file:
        file.write(content)
    return digest
