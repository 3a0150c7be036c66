"""What is decided of all recordings, range by range, and what is added up of it: limits, ceilings,
what matches what, where something is said to lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol

import duckdb

from retainer.database import add_rows, make_room, only_row
from retainer.errors import RetainerError
from retainer.inventory.facts import RANGES_AT_ONCE, narrow, ranges, read_anew
from retainer.inventory.locate import key_sql
from retainer.journal.ledger import Reign
from retainer.model.anchors import deleted_lately, read_anchors
from retainer.model.moment import write_moment
from retainer.model.rule import Erasure, Hold, Match, Policies, Rule
from retainer.model.setting import NO_PATH, Settings
from retainer.plan.decide import Clause, Question, ask, decide_range
from retainer.plan.limits import Deletes, Held, evaluate, remembered
from retainer.plan.lines import make_lines
from retainer.planfile import ACTIONS, ClashState, LimitState, TargetState, Undeclared


@dataclass(frozen=True, slots=True)
class Cooling:
    """What the policies of earlier applies promised and those of today do not. `rules`: each keep
    of theirs, with when it ends to count (RFC 3339, empty where that is open). `reigns`: by which
    policies those applies went; `unknown`: why not all of them are known, in words."""

    rules: tuple[tuple[Rule, str], ...] = ()
    reigns: tuple[Reign, ...] = ()
    unknown: str = ""

    @property
    def weighed(self) -> list[str]:
        """The digests of those policies."""
        return [reign.policies for reign in self.reigns]

    def beside(self, policies: Policies) -> Policies:
        """The policies of today, and what still counts of earlier ones."""
        return replace(policies, rules=(*policies.rules, *(rule for rule, _ in self.rules)))


@dataclass(frozen=True, slots=True)
class Making:
    """What a plan is made with, besides facts and policies."""

    now: datetime
    only: Match | None = None
    scope: str | None = None
    lifts: frozenset[str] = frozenset()
    recent: tuple[Deletes, ...] = ()
    has_journal: bool = False
    """Whether there is a journal here that `recent` was read from."""
    weak: tuple[tuple[str, tuple[str, str]], ...] = ()
    """Stores that lack an ability: which, and what that means."""
    state: str | None = None
    """The state folder's id: what its own journal did is in `recent`, and what others did in the
    stores' memory."""
    gone: tuple[tuple[str, str], ...] = ()
    """What the journal has seen end in 404 or 410: an asset's id, and the mark of its path."""
    frozen: str = ""
    """The freeze that is in force at `now`, in words."""
    cooling: Cooling = field(default_factory=Cooling)

    @property
    def is_cooling_lifted(self) -> bool:
        return "cooling:policies" in self.lifts

    def counting(self, policies: Policies) -> Policies:
        """What is decided by: the policies of today, and what still counts of earlier ones."""
        return policies if self.is_cooling_lifted else self.cooling.beside(policies)


def is_cooled(item: Rule | Hold | Erasure) -> bool:
    return isinstance(item, Rule) and item.cooled


@dataclass(frozen=True, slots=True)
class Weighing:
    """What was decided with: the rules, holds and erasures that counted, and what limits and
    ceilings come to."""

    items: tuple[Rule | Hold | Erasure, ...]
    limits: tuple[LimitState, ...]
    clashes: tuple[ClashState, ...]
    remembered: str
    unlockable: tuple[str, ...]
    """Stores with `lock:` whose buckets lock nothing."""
    matches: tuple[tuple[int, int], ...]
    """Of how many recordings each item is certain, and of how many not."""
    uncovered: tuple[int, int]
    """How many recordings nothing matches, and their bytes."""
    undeclared: tuple[Undeclared, ...]


_LARGE = ("weighed", "member", "acting", "held", "reading", "staying")
"""What is made of each range and takes the most memory; nothing asks for it once the rows are
taken."""


class Take(Protocol):
    """Takes the rows of one range: the views `lines` and `quiet_lines`, and the tables they are
    made of."""

    def __call__(self, *, alone: bool) -> None:
        """`alone`: there is no other range."""


def in_ranges(
    connection: duckdb.DuckDBPyConnection,
    question: Question,
    size: int | None = None,
    together: Callable[[], None] = lambda: None,
) -> Iterator[bool]:
    """Decide so many recordings at a time (None: all at once); after each range, whether it is the
    only one, with the tables and views of decide.sql holding that range.

    What crosses ranges is a key that two recordings name: all that share one are decided together
    before, and memory is that of so many. `together` is called with those decided. Everything else
    of a recording lies in one range, so that it is decided as it would be among all of them.
    """
    every = ranges(connection, size)
    if len(every) == 1:
        decide_range(connection, question, alone=True)
        yield True
        return
    decide_sharers(connection, question)
    together()
    for number, each in enumerate(every):
        if number and number % RANGES_AT_ONCE == 0:
            read_anew(connection)
        narrow(connection, each)
        decide_range(connection, question, alone=False)
        yield False
    narrow(connection)


def decide_sharers(connection: duckdb.DuckDBPyConnection, question: Question) -> None:
    """Decide all recordings that share a key with another one, whatever their range."""
    # a table, so that its size is known: of a query it may be guessed as that of all recordings
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE sharers AS "
        "SELECT DISTINCT asset_no FROM facts.copies WHERE shared IS NOT NULL"
    )
    make_room(connection, only_row(connection, "SELECT count(*) FROM sharers")[0])
    narrow(connection, "asset_no IN (FROM sharers)")
    decide_range(connection, question, alone=True)


@dataclass(frozen=True, slots=True)
class Deciding:
    """What any range of facts that were opened is decided with."""

    connection: duckdb.DuckDBPyConnection
    settings: Settings
    making: Making
    question: Question
    unlockable: tuple[str, ...]
    """Stores with `lock:` whose buckets lock nothing."""

    def lines(self) -> None:
        """The views `lines` and `quiet_lines` of what was decided last."""
        stores = self.settings.stores
        targets = {each.name: key_sql(each) for each in stores if not each.written_by_100ms}
        locking = {each.name: each.lock for each in stores if each.lock}
        make_lines(
            self.connection, targets, locking, self.unlockable, self.making.now, self.making.only
        )

    def come_to(self, sums: Sums) -> Weighing:
        """What all ranges come to; `acts` has what is acted on in them."""
        making, items = self.making, self.question.items
        return Weighing(
            items,
            tuple(_limits(self.connection, self.settings, self.question.clauses, making)),
            tuple(
                ClashState(
                    ceiling=items[ceiling - 1].id,
                    keep=items[keep - 1].id,
                    assets=count,
                    lifted=f"clash:{items[ceiling - 1].id}" in making.lifts,
                )
                for (ceiling, keep), count in sorted(sums.clashes.items())
                # a ceiling that is new would clash with each keep that it takes the place of
                if not is_cooled(items[keep - 1])
            ),
            _remembered(self.connection, making),
            self.unlockable,
            tuple(zip(sums.sure, sums.maybe, strict=True)),
            (sums.uncovered, sums.uncovered_bytes),
            tuple(
                Undeclared(bucket=bucket or NO_PATH, assets=assets, at_risk=sums.at_risk[bucket])
                for bucket, assets in sorted(sums.undeclared.items())
            ),
        )


def deciding(
    connection: duckdb.DuckDBPyConnection, settings: Settings, policies: Policies, making: Making
) -> Deciding:
    """Ask of facts that were opened what is decided at `making.now`."""
    question = ask(connection, making.counting(policies), making.now, settings.timezone)
    return Deciding(connection, settings, making, question, _unlockable(connection, settings))


def weigh(
    asked: Deciding, take: Take, size: int | None, together: Callable[[], None] = lambda: None
) -> Weighing:
    """Decide what was asked, so many recordings at a time (None: all at once, so that what
    decide.sql and lines.sql make is there afterwards). `together`: as `in_ranges`.

    Leaves `acts`: of all ranges the rows that are acted on or worried about, less what only the
    plan file needs; their `n` is the number in the range.
    """
    connection, sums = asked.connection, Sums(len(asked.question.items))
    connection.execute("DROP TABLE IF EXISTS acts")
    for alone in in_ranges(connection, asked.question, size, together):
        asked.lines()
        take(alone=alone)
        sums.add(connection)
        add_rows(connection, "acts", ACTS)
        if not alone:
            connection.execute("; ".join(f"DROP TABLE {table}" for table in _LARGE))
    return asked.come_to(sums)


class Sums:
    """What is added up over the ranges."""

    def __init__(self, items: int) -> None:
        self.sure, self.maybe = [0] * items, [0] * items
        self.clashes: Counter[tuple[int, int]] = Counter()
        self.uncovered = self.uncovered_bytes = 0
        self.undeclared: Counter[str] = Counter()
        self.at_risk: Counter[str] = Counter()

    def add(self, connection: duckdb.DuckDBPyConnection) -> None:
        """The range that was decided last."""
        for place, (sure, maybe) in enumerate(matches(connection, len(self.sure))):
            self.sure[place] += sure
            self.maybe[place] += maybe
        for ceiling, keep, count in connection.execute("FROM clashes").fetchall():
            self.clashes[ceiling, keep] += count
        uncovered, size = only_row(
            connection,
            "SELECT count(*), coalesce(sum(size), 0) FROM member ANTI JOIN matched "
            "USING (cohort_no)",
        )
        self.uncovered += uncovered
        self.uncovered_bytes += size
        for bucket, assets, at_risk in connection.execute("""
            SELECT coalesce(regexp_extract(path, '^[a-z0-9]+://[^/]+'), '') AS bucket, count(*),
                count(*) FILTER (asset_no IN (SELECT asset_no FROM acting WHERE decision = 'copy'
                    AND deadline IS NOT NULL))
            FROM assets WHERE asset_no IN (SELECT asset_no FROM member WHERE lies_elsewhere)
            GROUP BY bucket
        """).fetchall():
            self.undeclared[bucket] += assets
            self.at_risk[bucket] += at_risk

    def join(self, other: Sums) -> None:
        """What other ranges come to."""
        self.sure = [mine + its for mine, its in zip(self.sure, other.sure, strict=True)]
        self.maybe = [mine + its for mine, its in zip(self.maybe, other.maybe, strict=True)]
        self.clashes += other.clashes
        self.uncovered += other.uncovered
        self.uncovered_bytes += other.uncovered_bytes
        self.undeclared += other.undeclared
        self.at_risk += other.at_risk

    def written(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "sure": self.sure,
            "maybe": self.maybe,
            "clashes": [[*pair, count] for pair, count in sorted(self.clashes.items())],
            "uncovered": [self.uncovered, self.uncovered_bytes],
            "undeclared": dict(self.undeclared),
            "at_risk": dict(self.at_risk),
        }

    @staticmethod
    def read(told: Mapping[str, Any]) -> Sums:
        """Raises ValueError, KeyError or TypeError for what is none."""
        sums = Sums(0)
        sums.sure, sums.maybe = list(map(int, told["sure"])), list(map(int, told["maybe"]))
        sums.clashes.update({(int(one), int(two)): int(n) for one, two, n in told["clashes"]})
        sums.uncovered, sums.uncovered_bytes = map(int, told["uncovered"])
        sums.undeclared.update({str(name): int(n) for name, n in told["undeclared"].items()})
        sums.at_risk.update({str(name): int(n) for name, n in told["at_risk"].items()})
        return sums


ACTS = """
    SELECT n, asset_no, store, decision, because, clause_no, bytes, deadline, lock_until,
        lock_mode, doubt, purged_by, decision = 'delete' AND staying.asset_no IS NOT NULL
        AS stays, list_distinct(list_transform(witnesses, lambda w: w.store)) AS witnessed
    FROM acting LEFT JOIN staying USING (asset_no, decision)
"""
"""SQL: of one range what is acted on or worried about, as `acts` keeps it of all."""


def matches(connection: duckdb.DuckDBPyConnection, items: int) -> list[tuple[int, int]]:
    """Of how many recordings each rule, hold and erasure is certain, and of how many not."""
    rows = connection.execute(f"""
        WITH sizes AS (SELECT cohort_no, count(*) AS size FROM member GROUP BY cohort_no)
        SELECT item_no, coalesce(sum(size) FILTER (certain), 0)::BIGINT,
            coalesce(sum(size) FILTER (NOT certain), 0)::BIGINT
        FROM range(1, {items + 1}) AS item(item_no) LEFT JOIN matched USING (item_no) LEFT
            JOIN sizes USING (cohort_no)
        GROUP BY item_no ORDER BY item_no
    """).fetchall()
    return [(sure, maybe) for _, sure, maybe in rows]


def _unlockable(connection: duckdb.DuckDBPyConnection, settings: Settings) -> tuple[str, ...]:
    """The stores with `lock:` of which the bucket says that it locks nothing (only S3 does)."""
    found = connection.execute(
        "SELECT name FROM listings WHERE kind = 'store' AND complete AND can_lock IS FALSE"
    ).fetchall()
    locking = {store.name for store in settings.stores if store.lock and store.scheme == "s3"}
    return tuple(sorted(locking & {name for (name,) in found}))


def _limits(
    connection: duckdb.DuckDBPyConnection,
    settings: Settings,
    clauses: Sequence[Clause],
    making: Making,
) -> list[LimitState]:
    planned = connection.execute(
        "SELECT store, rule, count(*), coalesce(sum(bytes), 0)::BIGINT "
        "FROM acts JOIN names USING (clause_no) WHERE decision = 'delete' "
        "GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    ends = [number for number, clause in enumerate(clauses, 1) if clause.is_end]
    # As an apply counts them: what stays and nobody needs is no witness, and may go any day.
    last = connection.execute(
        "SELECT rule, count(DISTINCT asset_no) FROM acts JOIN names USING (clause_no) "
        f"WHERE {ACTIONS} AND decision = 'delete' AND doubt IS NULL AND witnessed IS NULL "
        "AND clause_no NOT IN (SELECT unnest(?::INTEGER[])) GROUP BY rule",
        [ends],
    ).fetchall()
    held = {
        store: Held(copies, size)
        for store, copies, size in connection.execute(
            "SELECT store, count(*), coalesce(sum(bytes), 0)::BIGINT FROM copies GROUP BY store"
        ).fetchall()
    }
    return [
        LimitState(
            name=limit.name,
            scope=limit.scope,
            used=limit.used,
            allowed=limit.allowed,
            breached=limit.breached,
            lifted=f"{limit.name}:{limit.scope}" in making.lifts,
            lately=limit.lately,
        )
        for limit in evaluate(
            settings.limits,
            (Deletes(*row) for row in planned),
            _recent(connection, making),
            held,
            settings.may_be_emptied,
            dict(last),
        )
    ]


def _recent(connection: duckdb.DuckDBPyConnection, making: Making) -> list[Deletes]:
    """What was deleted in the last 24 hours, by the own journal and by what the stores remember of
    it and of others."""
    mine: list[Deletes] = []
    others: list[Deletes] = []
    for store, text in connection.execute(
        "SELECT name, anchors FROM listings WHERE anchors IS NOT NULL ORDER BY name"
    ).fetchall():
        try:
            own, rest = deleted_lately(read_anchors(text.encode()), making.now, making.state)
        except ValueError:
            raise damaged(store) from None
        mine += [Deletes(store, *each) for each in own]
        others += [Deletes(store, *each) for each in rest]
    return remembered(making.recent, mine, others)


def _remembered(connection: duckdb.DuckDBPyConnection, making: Making) -> str:
    """Whence the deletes of the last 24 hours are known."""
    if making.has_journal:
        return "journal"
    anchored = "SELECT count(*) > 0 FROM listings WHERE anchors IS NOT NULL"
    return "stores" if connection.execute(anchored).fetchone() == (True,) else "nothing"


def damaged(store: str) -> RetainerError:
    """That what a snapshot tells of a store cannot be read."""
    return RetainerError(
        f"what the facts tell of {store} is damaged", hint="gather them anew with `retainer facts`"
    )


def targets_of(connection: duckdb.DuckDBPyConnection, settings: Settings) -> list[TargetState]:
    """How what is copied, or kept, will lie in each store that has something to say of it."""
    found = []
    for store in settings.stores:
        floor = store.storage_class_from if store.storage_class else 0
        copies, small, locked, last, longer, longest, final = connection.execute(
            "SELECT count(*) FILTER (decision = 'copy'), "
            "count(*) FILTER (decision = 'copy' AND bytes < ?), "
            "count(lock_until) FILTER (decision = 'copy'), "
            "max(lock_until) FILTER (decision = 'copy'), "
            "count(*) FILTER (decision = 'keep'), max(lock_until) FILTER (decision = 'keep'), "
            "count(*) FILTER (lock_mode = 'compliance') "
            f"FROM acts WHERE {ACTIONS} AND decision IN ('copy', 'keep') AND store = ?",
            [floor, store.name],
        ).fetchall()[0]
        if (copies and (store.storage_class or store.lock)) or longer:
            locked = locked if store.lock else 0
            found.append(
                TargetState(
                    name=store.name,
                    storage_class=store.storage_class,
                    floor=floor,
                    small=small,
                    lock=store.lock,
                    locked=locked,
                    unlocked=copies - locked if store.lock else 0,
                    lock_last=write_moment(last.replace(tzinfo=UTC))
                    if store.lock and last
                    else None,
                    longer=longer,
                    longest=write_moment(longest.replace(tzinfo=UTC)) if longest else None,
                    longer_final=final,
                )
            )
    return found
