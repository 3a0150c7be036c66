"""Ranges of recordings that other machines decide for a plan.

All of them read one snapshot, in a folder that they share. Beside it the command that makes the
plan leaves a folder of its own, and removes it at its end:

    .FACTS.ID.ranges/terms.json      what every range is decided with
                     sharing.parquet what was decided of keys that recordings share
                     NNNNNN.json     what a range comes to, and which files have its rows
                     *.parquet       those, each with a name of its own

A range that is decided twice is decided alike, and the last to tell of it counts: nothing here is
acted on.
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
from pathlib import Path
from typing import Any

import duckdb
from pydantic import TypeAdapter, ValidationError

from retainer.cooling import cooling
from retainer.database import add_rows, literal, write_parquet
from retainer.drafting import Draft
from retainer.errors import PoliciesWrong, RetainerError, StoreFailed
from retainer.inventory.facts import AT_ONCE, narrow, open_facts, ranges, snapshot_of, whole_facts
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
from retainer.whole import whole
from retainer.workplace import must_be_alike, project_here, told_from_here

SEEN_SECONDS = 60.0
"""So long a file may take to be seen that another machine has written: NFS asks no more often."""
ABANDONED_SECONDS = 86_400.0
"""What a plan has left behind that was killed is removed by one that begins so much later."""
_TERMS, _SHARING = "terms.json", "sharing.parquet"
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Terms:
    """What every range of a plan is decided with, besides settings and policies, of which there is
    but a digest.

    `facts`: where the snapshot lies, on every machine, and `snapshot` which it is; `only`: the
    text of --only; `gone`, `reigns`: of the record, as `Making.gone` and `Cooling.reigns`.
    """

    facts: str
    snapshot: str
    now: datetime
    only: str | None
    lifts: list[str]
    gone: list[tuple[str, str]]
    reigns: list[tuple[str, str, str]]
    size: int
    question: str


_FORM = TypeAdapter(Terms)


def versions() -> str:
    """The versions that a decision rests on."""
    return f"{made_with()}, tzdata {zones_version()}"


def _snapshot(connection: duckdb.DuckDBPyConnection) -> str:
    snapshot = snapshot_of(connection)
    return f"{snapshot.id} {snapshot.gathered}"


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

    def __call__(self, asked: Deciding, draft: Draft) -> Sums | None:
        """Raises RetainerError."""
        count = len(ranges(asked.connection, AT_ONCE))
        if count == 1:
            return None
        try:
            with self._shared() as folder:
                self._leave(asked, draft, folder)
                parts = [Part(str(folder), number, versions()) for number in range(count)]
                self._have_made(parts)
                sums = Sums(len(asked.question.items))
                for part in parts:
                    _take_in(asked.connection, draft, sums, folder, part)
                narrow(asked.connection)
                return sums
        except OSError as error:
            raise RetainerError(
                f"{self.facts.parent} cannot be shared with other machines: {error.strerror}",
                hint="the snapshot must lie in a folder that this user may write to, on all of "
                "them",
            ) from None

    @contextmanager
    def _shared(self) -> Iterator[Path]:
        """A folder beside the snapshot, for as long as it is needed."""
        beside, mark = self.facts.resolve().parent, f".{self.facts.name}."
        for left in beside.iterdir():
            if left.name.startswith(mark) and left.suffix == ".ranges":
                with suppress(OSError):  # another plan may remove it too
                    if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                        shutil.rmtree(left)
        folder = beside / f"{mark}{uuid.uuid4().hex[:12]}.ranges"
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _leave(self, asked: Deciding, draft: Draft, folder: Path) -> None:
        """What the workers go by; and here the empty tables that they fill."""
        connection, making = asked.connection, asked.making
        decide_sharers(connection, asked.question)
        asked.lines()
        draft.learn()
        connection.execute("DROP TABLE IF EXISTS acts")
        add_rows(connection, "acts", f"FROM ({ACTS}) LIMIT 0")
        shared = private_file(".parquet")
        write_parquet(connection, "FROM sharing ORDER BY ALL", shared)
        _carried(shared, folder / _SHARING)
        shared.unlink()
        terms = Terms(
            facts=str(self.facts.resolve()),
            snapshot=_snapshot(connection),
            now=making.now,
            only=making.scope,
            lifts=sorted(making.lifts),
            gone=list(making.gone),
            reigns=[(each.policies, each.commit, each.until) for each in making.cooling.reigns],
            size=AT_ONCE,
            question=_question(asked, self.policies),
        )
        with whole(folder / _TERMS) as half:
            half.write_bytes(_FORM.dump_json(terms))

    def _have_made(self, parts: Sequence[Part]) -> None:
        waiting = deque(parts)
        going: dict[Future[None], Part] = {}
        ended = given_away(self.engine, waiting, going, self._give, self.stop.check, self.waiting)
        for future, part in ended:
            try:
                future.result()
            except RetainerError as error:
                is_everywhere = error.exit_code != RetainerError.exit_code
                if is_everywhere or self._tries[part.name] == TRIES:
                    raise
                waiting.append(part)
                self.stop.wait(AGAIN_SECONDS * self._tries[part.name])
            else:
                self.progress(AT_ONCE)

    def _give(self, part: Part) -> Future[None]:
        self._tries[part.name] += 1
        return self.engine.submit(part)


def _take_in(
    connection: duckdb.DuckDBPyConnection, draft: Draft, sums: Sums, folder: Path, part: Part
) -> None:
    """What a worker has left of a range joins a draft, and what all ranges come to. Raises
    RetainerError, OSError."""
    try:
        told = _seen(folder / f"{part.name}.json")
        files = {what: [_fetched(folder, *each) for each in told[what]] for what in _FILES}
        sums.join(Sums.read(told["sums"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreFailed(
            f"what a worker left of range {part.number} cannot be read ({type(error).__name__})",
            hint="run it again",
        ) from None
    draft.join(files["quiet"], files["pieces"])
    for acts in files["acts"]:
        add_rows(connection, "acts", f"FROM read_parquet({literal(str(acts))})")
        acts.unlink()


_FILES = "quiet", "pieces", "acts"


def _seen(path: Path) -> Mapping[str, Any]:
    """What a worker says that it has written. Raises StoreFailed where it is not seen here."""
    until = time.monotonic() + SEEN_SECONDS
    while True:
        try:
            told: Mapping[str, Any] = json.loads(path.read_bytes())
            return told
        except FileNotFoundError:
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
    if _carried(folder / name, path) != digest:
        path.unlink()
        raise ValueError(name)
    return path


# ── on a worker ──────────────────────────────────────────────────────────────────────────────────


def decide_part(told: Mapping[str, Any], root: Path) -> None:
    """Decide a range, and leave what comes of it. `root`: where the worker's project lies, or below
    it.

    Raises PlanRefused, PoliciesWrong for what stands against every range here, and StoreFailed
    where another machine may do better.
    """
    must_be_alike(told, versions())
    try:
        part = Part(**told)
    except TypeError:
        raise StoreFailed("it is no range that this version knows") from None
    try:
        _decide(part, Path(part.folder), root)
    except RetainerError as error:
        raise told_from_here(error) from None
    except OSError as error:
        failed = StoreFailed(f"{part.folder}: {error.strerror}")
        raise told_from_here(failed) from None


def _decide(part: Part, folder: Path, root: Path) -> None:
    """Raises RetainerError, OSError."""
    settings, policies, found = project_here(root)
    keep_private_in(found / settings.state)
    try:
        terms = _FORM.validate_json((folder / _TERMS).read_bytes())
    except FileNotFoundError:
        raise StoreFailed(
            f"there is no {folder} here, or the plan was given up",
            hint="the snapshot must lie where all machines see the same files",
        ) from None
    except ValidationError:
        raise StoreFailed(f"what lies in {folder} cannot be read") from None
    facts, files = Path(terms.facts), dict[str, list[Path]]()
    making = _making(terms, settings, policies, found)
    connection = open_facts(facts, settings, dict(making.gone), terms.size)
    try:
        with whole_facts(facts), Draft(connection, part.number) as draft:
            connection.execute("SET threads = 1")  # Dask gives as many ranges as it has threads
            asked = deciding(connection, settings, policies, making)
            if _question(asked, policies) != terms.question:
                raise PoliciesWrong(
                    "its settings or policies are not those of the plan",
                    hint="check out the same commit on all machines",
                )
            if _snapshot(connection) != terms.snapshot:
                raise StoreFailed(f"{facts} is another snapshot here")
            shared = private_file(".parquet")
            _carried(folder / _SHARING, shared)
            connection.execute(
                "CREATE OR REPLACE TEMP TABLE sharing AS SELECT * REPLACE (store::place AS store) "
                f"FROM read_parquet({literal(str(shared))})"
            )
            shared.unlink()
            narrow(connection, ranges(connection, terms.size)[part.number])
            decide_range(connection, asked.question, alone=False)
            asked.lines()
            draft.take()
            sums = Sums(len(asked.question.items))
            sums.add(connection)
            acts = private_file(".parquet")
            write_parquet(connection, f"{ACTS} ORDER BY n", acts)
            files["quiet"], files["pieces"] = draft.taken
            files["acts"] = [acts]
            _tell(part, folder, files, sums)
            acts.unlink()
    finally:
        connection.close()


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


def _tell(part: Part, folder: Path, files: Mapping[str, Sequence[Path]], sums: Sums) -> None:
    """Leave what comes of a range, its files first. Raises OSError."""
    told: dict[str, Any] = {"sums": sums.written()}
    for what, paths in files.items():
        told[what] = []
        for path in paths:
            name = f"{part.name}-{uuid.uuid4().hex[:12]}.parquet"
            told[what].append([name, _carried(path, folder / name)])
    half = folder / f"{part.name}-{uuid.uuid4().hex[:12]}.half"
    half.write_text(json.dumps(told))
    half.replace(folder / f"{part.name}.json")
