"""Facts and policies -> a plan file: gathers, decides, weighs the limits and writes the header."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb

from retainer.database import connect, only_row, temp_table
from retainer.drafting import Draft
from retainer.errors import RetainerError
from retainer.git import git
from retainer.inventory.collect import NO_REPORTS, NOTHING, ONE_STORE, Judge, collect
from retainer.inventory.facts import (
    AT_ONCE,
    NAMES,
    earlier_names,
    open_facts,
    save_snapshot,
    whole_facts,
)
from retainer.inventory.listing import Listing, Progress
from retainer.model.calendar import zones_version
from retainer.model.lifecycle import read_rules
from retainer.model.moment import write_lock, write_moment
from retainer.model.rule import (
    NAME_FACTS,
    Erasure,
    Hold,
    Policies,
    Rule,
    facts_asked,
    meaning,
    metadata_keys,
)
from retainer.model.setting import Settings
from retainer.model.tables import VERSION
from retainer.plan.decide import ask
from retainer.plan.lifecycles import against
from retainer.plan.predicates import metadata_sql
from retainer.planfile import (
    ACTIONS,
    Accepted,
    Cooled,
    Header,
    ItemState,
    OwnRule,
    Renamed,
    SourceState,
    Superseded,
    UnseenKey,
    put_in_place,
)
from retainer.ports import InventoryReports, Look, Recordings, StoreReader, Version
from retainer.private import private_file
from retainer.settings import uncommitted
from retainer.versions import versions_of
from retainer.weighing import (
    Deciding,
    Making,
    Sums,
    Weighing,
    damaged,
    deciding,
    in_ranges,
    is_cooled,
    matches,
    targets_of,
    weigh,
)

__all__ = ["ONE_STORE", "Making", "gather", "item_digest", "make_plan", "names_of", "policy_digest"]


def item_digest(item: Rule | Hold | Erasure) -> str:
    """What a rule, hold or erasure says, less where it stands: 16 hex digits that change whenever
    its meaning may."""
    return hashlib.sha256(repr((item.id, type(item).__name__, meaning(item))).encode()).hexdigest()[
        :16
    ]


def policy_digest(policies: Policies, settings: Settings) -> str:
    """A digest over the rules, erasures and accepted copies, and what periods and places mean.
    Holds are compared one by one, at apply."""
    items = sorted(item_digest(item) for item in policies.items() if not isinstance(item, Hold))
    accepted = sorted({each.asset_id for each in policies.accepts})
    # how it is found out what lies there decides nothing
    places = [
        {name: told for name, told in asdict(store).items() if name != "inventory"}
        for store in settings.stores
    ]
    return hashlib.sha256(
        json.dumps([items, accepted, settings.timezone, places, settings.source.hosted]).encode()
    ).hexdigest()


def gather(
    settings: Settings,
    policies: Policies,
    recordings: Recordings,
    readers: Sequence[StoreReader],
    *,
    out: Path,
    cache: Path,
    clock: Callable[[], datetime],
    known: Mapping[str, str] | None = None,
    judge: Judge = lambda _anchors: None,
    before: Sequence[Path] = (),
    seen: Mapping[str, tuple[str, int, str]] = NOTHING,
    meant: Collection[str] = (),
    reports: Mapping[str, InventoryReports] = NO_REPORTS,
    lists: Path | None = None,
    record: str = "",
    progress: Progress = lambda _name, _rows: None,
    for_any_policies: bool = False,
) -> list[Listing]:
    """Make a snapshot of what there is, with the locks of every object that is due where a bucket
    can lock.

    `for_any_policies`: ask also for what only other policies than these may match on, the rooms.
    It replaces an older one at `out` only when it is whole; two that are made at once do not meet.
    `known`, `judge`, `seen`, `meant`, `reports`, `lists`, `record`: as `collect`; `before`: older
    snapshots, whose names of rooms are kept. Raises RetainerError where it cannot be written.
    """
    named = sorted({name for path in before for name in earlier_names(path)})
    connection = connect(cache, *([lists] if lists else []))
    try:
        half = private_file(".duckdb")
        temp_table(connection, "earlier", NAMES, named)
        listings = collect(
            connection,
            settings,
            recordings,
            readers,
            rooms_asked=for_any_policies or policies.ask_for_rooms(),
            cache=cache,
            clock=clock,
            known=known,
            judge=judge,
            seen=seen,
            meant=meant,
            reports=reports,
            lists=lists,
            record=record,
            progress=progress,
        )
        save_snapshot(connection, half)
        stores = dict(zip((each.name for each in readers), _stores(listings), strict=True))
        looked_at = {
            reader.name: reader
            for reader in readers
            if stores[reader.name].can_lock or stores[reader.name].reported_at
        }
        asked = policies.purged_in()
        versioned = {reader.name: reader for reader in readers if reader.name in asked}
        if looked_at or versioned:
            _look_at_due(settings, policies, looked_at, versioned, stores, half, clock())
        _see_restored(
            settings, policies, {reader.name: reader for reader in readers}, half, clock()
        )
        put_in_place(half, out)
    except (OSError, duckdb.IOException) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise RetainerError(
            f"{out} cannot be written: {reason}", hint="is the disk full or read-only?"
        ) from None
    finally:
        connection.close()
    return listings


def _stores(listings: Sequence[Listing]) -> list[Listing]:
    return [listing for listing in listings if listing.kind == "store"]


def _look_at_due(
    settings: Settings,
    policies: Policies,
    looked_at: Mapping[str, StoreReader],
    versioned: Mapping[str, StoreReader],
    stores: Mapping[str, Listing],
    snapshot: Path,
    now: datetime,
) -> None:
    """Look at each copy that is due where a bucket can lock, or told of it in a report, and at
    every version of those that go with all of them. A lock that could not be read counts as locked,
    and versions that could not be as versions that nobody knows.

    What a report showed and is not there any more is no copy; what is another thing by now counts
    as locked.
    """
    due = _decided(
        settings,
        policies,
        snapshot,
        now,
        "SELECT asset_no, store, objects, purged_by IS NOT NULL FROM decided JOIN copies "
        "USING (asset_no, store) WHERE verdict = 'due' "
        "AND (decision = 'delete' OR list_has_any(because, ['lock', 'versions']))",
    )
    of_all: list[tuple[object, ...]] = []
    of_one: list[tuple[object, ...]] = []
    gone: list[tuple[int, str]] = []

    def look_at(asset_no: int, store: str, objects: list[dict[str, Any]], *, purged: bool) -> None:
        place = asset_no, store
        if purged and store in versioned:
            found = _versions(versioned[store], objects)
            if found is not None:
                of_all.append((_as_rows(found), _by_hand(found), *_locks(found), *place))
        elif not purged and store in looked_at:
            listing = stores[store]
            may_be_locked = listing.can_lock or listing.locks_unread
            wanted = objects if may_be_locked else [objects[0], *objects[1:][-1:]]
            looks = _looks(looked_at[store], [each["key"] for each in wanted])
            if looks is None:
                return
            found_there = [look for look in looks if look]
            is_same = len(found_there) == len(wanted) and all(
                (look.seen.version, look.seen.size) == (each["version"], each["size"])
                for look, each in zip(found_there, wanted, strict=True)
            )
            if listing.reported_at and not found_there:
                gone.append(place)
            elif listing.reported_at and not is_same:
                of_one.append((None, False, *place))
            elif may_be_locked and len(found_there) == len(wanted):
                until, is_read = _locks(found_there)
                if is_read:
                    of_one.append((until, is_read, *place))

    with ThreadPoolExecutor(16) as pool:
        for done in [pool.submit(look_at, *one, purged=purged) for *one, purged in due]:
            done.result()
    _change(snapshot, "DELETE FROM copies", gone)
    _amend(snapshot, "locked_until = ?::TIMESTAMP, lock_read = ?", of_one)
    _amend(
        snapshot,
        f"versions = ?::{VERSION}[], by_hand = ?::VARCHAR[], locked_until = ?::TIMESTAMP, "
        "lock_read = ?",
        of_all,
    )


def _locks(found: Sequence[Look | Version]) -> tuple[str | None, bool]:
    """Until when the last of these is locked, as DuckDB reads it, and whether that is all known."""
    ends = [each.seen.locked_until for each in found if each.seen.locked_until]
    return write_lock(max(ends, default=None)), all(each.seen.lock_read for each in found)


def _versions(reader: StoreReader, objects: Sequence[Mapping[str, Any]]) -> list[Version] | None:
    """Every version of the objects of a copy, in the order in which they go: of each object what is
    not current before what is. None where they cannot be read, or where one is not as it was
    listed."""
    try:
        found = versions_of(reader, [each["key"] for each in objects])
    except RetainerError:
        return None
    for each in objects:
        now = [one.seen for one in found[each["key"]] if one.is_current and not one.is_marker]
        if [(seen.version, seen.size) for seen in now] != [(each["version"], each["size"])]:
            return None
    return [version for of in found.values() for version in of]


def _as_rows(versions: Sequence[Version]) -> list[dict[str, Any]]:
    return [
        {
            "key": each.seen.key,
            "size": each.seen.size,
            "version": each.seen.version,
            "id": each.id,
            "current": each.is_current,
            "marker": each.is_marker,
        }
        for each in versions
    ]


def _by_hand(versions: Sequence[Version]) -> list[str] | None:
    return [each.by_hand for each in versions if each.by_hand] or None


def _see_restored(
    settings: Settings,
    policies: Policies,
    readers: dict[str, StoreReader],
    snapshot: Path,
    now: datetime,
) -> None:
    """Look at the archived copies that something is to be copied from: a listing may not say that
    they were restored."""
    with duckdb.connect(str(snapshot), read_only=True) as facts:
        if not facts.execute("FROM copies WHERE archived LIMIT 1").fetchall():
            return
    frozen = _decided(
        settings,
        policies,
        snapshot,
        now,
        "SELECT asset_no, store, list_transform(objects, lambda o: o.key) FROM copies WHERE "
        "archived AND complete AND asset_no IN "
        "(SELECT asset_no FROM decided WHERE decision = 'copy')",
    )
    restored = []
    for asset_no, store, keys in frozen:
        looks = _looks(readers[store], keys)
        if looks is not None and all(look is not None and not look.seen.archived for look in looks):
            restored.append((asset_no, store))
    _amend(snapshot, "archived = false", restored)


def _decided(
    settings: Settings, policies: Policies, snapshot: Path, now: datetime, query: str
) -> list[tuple[Any, ...]]:
    """What a query finds of each range once a snapshot is decided."""
    connection = open_facts(snapshot, settings, at_once=AT_ONCE)
    try:
        with whole_facts(snapshot):
            question = ask(connection, policies, now, settings.timezone)
            return [
                row
                for _ in in_ranges(connection, question, AT_ONCE)
                for row in connection.execute(query).fetchall()
            ]
    finally:
        connection.close()


def _looks(reader: StoreReader | None, keys: Sequence[str]) -> list[Look | None] | None:
    """A look at each object of a copy; None when not all of them can be looked at."""
    try:
        return [reader.look(key) for key in keys] if reader else None
    except RetainerError:
        return None


def _amend(snapshot: Path, assignment: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Write into a snapshot what looks have shown: the assignment's values, then asset and store,
    by copy."""
    _change(snapshot, f"UPDATE copies SET {assignment}", rows)


def _change(snapshot: Path, what: str, rows: Sequence[tuple[object, ...]]) -> None:
    """The same change of many copies, all of them or none; a row ends with asset and store."""
    with duckdb.connect(str(snapshot)) as facts:
        facts.begin()
        for row in rows:
            facts.execute(f"{what} WHERE asset_no = ? AND store = ?", row)
        facts.commit()


Elsewhere = Callable[[Deciding, Draft], "Sums | None"]
"""Has the ranges of recordings decided by others, and a draft join what they took; what they come
to. None where there is but one range, which is decided here."""


def make_plan(
    facts: Path,
    settings: Settings,
    policies: Policies,
    project: Path,
    making: Making,
    out: Path,
    *,
    elsewhere: Elsewhere = lambda _asked, _draft: None,
    progress: Callable[[int], None] = lambda _recordings: None,
) -> None:
    """Decide at `making.now` from a snapshot, and write the plan file: range after range of
    recordings, so that memory does not grow with how many there are. `progress` is told how many
    more were decided, about. Raises RetainerError for facts that cannot be read."""
    connection = open_facts(facts, settings, dict(making.gone), AT_ONCE)
    try:
        with whole_facts(facts), Draft(connection) as draft:

            def take(*, alone: bool) -> None:
                draft.take()
                if not alone:
                    progress(AT_ONCE)

            asked = deciding(connection, settings, policies, making)
            sums = elsewhere(asked, draft)
            weighing = asked.come_to(sums) if sums else weigh(asked, take, AT_ONCE)
            header = _header(connection, settings, policies, weighing, project, making)
            made = draft.write(header)
        put_in_place(made, out)
    finally:
        connection.close()


def matches_of(
    facts: Path, settings: Settings, policies: Policies, now: datetime
) -> dict[str, int]:
    """How many recordings of a snapshot each rule, hold and erasure matches, or may, by its id."""
    connection = open_facts(facts, settings, at_once=AT_ONCE)
    try:
        with whole_facts(facts):
            question = ask(connection, policies, now, settings.timezone)
            found = Counter[str]()
            for _ in in_ranges(connection, question, AT_ONCE):
                counts = matches(connection, len(question.items))
                for item, (sure, maybe) in zip(question.items, counts, strict=True):
                    found[item.id] += sure + maybe
    finally:
        connection.close()
    return found


def _header(
    connection: duckdb.DuckDBPyConnection,
    settings: Settings,
    policies: Policies,
    weighing: Weighing,
    project: Path,
    making: Making,
) -> Header:
    items = weighing.items
    copies, copy_bytes, deletes, delete_bytes, last, purges, locks = only_row(
        connection,
        f"""SELECT count(*) FILTER (decision = 'copy'),
            coalesce(sum(bytes) FILTER (decision = 'copy'), 0),
            count(*) FILTER (decision = 'delete'),
                coalesce(sum(bytes) FILTER (decision = 'delete'), 0),
            count(DISTINCT asset_no) FILTER (decision = 'delete' AND NOT stays),
            count(*) FILTER (decision = 'delete' AND purged_by IS NOT NULL),
            count(*) FILTER (decision = 'keep')
            FROM acts WHERE {ACTIONS}""",
    )
    oldest, newest, incomplete = only_row(
        connection,
        "SELECT epoch(min(started_at)), epoch(max(finished_at)), NOT coalesce(bool_and(complete), "
        "true) FROM listings",
    )
    began = _utc(oldest) if oldest is not None else making.now
    uncovered, uncovered_bytes = weighing.uncovered
    head = git(project, "rev-parse", "HEAD")
    monthly, unpriced = _monthly(connection, settings)
    return Header(
        as_of=write_moment(making.now),
        created=write_moment(_utc(newest) if newest is not None else making.now),
        expires=write_moment(began + timedelta(hours=settings.plan_age_hours)),
        tool=version("retainer"),
        duckdb=duckdb.__version__,
        policy_digest=policy_digest(policies, settings),
        git_commit=head.decode().strip() if head else None,
        git_dirty=uncommitted(project),
        scope="a match on names"
        if making.only and facts_asked(making.only) & {*NAME_FACTS, "metadata"}
        else making.scope,
        project=project.name,
        items=[
            ItemState(
                id=item.id,
                kind=type(item).__name__.lower(),
                at=str(item.where),
                why=item.why,
                owner=item.owner,
                digest=item_digest(item),
                matches=sure,
                may_match=maybe,
                requested=write_moment(item.requested)
                if isinstance(item, Erasure) and item.requested
                else None,
            )
            for item, (sure, maybe) in zip(items, weighing.matches, strict=True)
            if not is_cooled(item)
        ],
        cooled=_cooled(making),
        weighed=making.cooling.weighed,
        cooling_unknown=making.cooling.unknown,
        cooling_lifted=making.is_cooling_lifted,
        sources=_sources(connection, making),
        monthly=monthly,
        unpriced=unpriced,
        limits=list(weighing.limits),
        clashes=list(weighing.clashes),
        undeclared=list(weighing.undeclared),
        targets=targets_of(connection, settings),
        renamed=_renamed(connection, policies),
        superseded=[
            Superseded(store=store, assets=count)
            for store, count in connection.execute(
                "SELECT store, count(*) FROM copies WHERE superseded GROUP BY store ORDER BY store"
            ).fetchall()
        ],
        zones=zones_version(),
        timezone=settings.timezone,
        remembered=weighing.remembered,
        frozen=making.frozen,
        unlockable=list(weighing.unlockable),
        own_rules=_own_rules(connection, settings, policies, making),
        customer=_customer(connection),
        accepted=_accepted(connection, policies),
        unseen_keys=_unseen_keys(connection, policies),
        uncovered=uncovered,
        uncovered_bytes=uncovered_bytes,
        incomplete=bool(incomplete),
        copies=copies,
        copy_bytes=copy_bytes,
        deletes=deletes,
        delete_bytes=delete_bytes,
        last_copies=last,
        purges=purges,
        locks=locks,
    )


def _cooled(making: Making) -> list[Cooled]:
    return [
        Cooled(rule.id, str(rule.where), keep.store, keep.period.text, until or None)
        for rule, until in making.cooling.rules
        for keep in rule.keeps
    ]


def _renamed(connection: duckdb.DuckDBPyConnection, policies: Policies) -> list[Renamed]:
    """The rooms that a rule by name is not certain of, since they were seen under several names."""
    asked = frozenset().union(*(facts_asked(item.match) for item in policies.items())) & set(
        NAME_FACTS
    )
    found = []
    for what in sorted(asked):
        found += connection.execute(
            f"SELECT room_id, ?, count(*) FROM assets WHERE {what}s IS NOT NULL GROUP BY room_id "
            "ORDER BY room_id",
            [what],
        ).fetchall()
    return [
        Renamed(room_id=room_id or "", what=what, assets=count) for room_id, what, count in found
    ]


def _accepted(connection: duckdb.DuckDBPyConnection, policies: Policies) -> list[Accepted]:
    """The partial copies that count since a person accepted them."""
    found = dict(
        connection.execute(
            "SELECT asset_id, list(struct_pack(store, partial) ORDER BY store) FROM copies "
            "JOIN assets USING (asset_no) WHERE partial IS NOT NULL "
            "AND asset_id IN (FROM accepted) GROUP BY asset_id"
        ).fetchall()
    )
    return [
        Accepted(
            asset_id=each.asset_id,
            at=str(each.where),
            why=each.why,
            owner=each.owner,
            stores=[copy["store"] for copy in found.get(each.asset_id, ())],
            partial=[copy["partial"] for copy in found.get(each.asset_id, ())],
        )
        for each in policies.accepts
    ]


def _unseen_keys(connection: duckdb.DuckDBPyConnection, policies: Policies) -> list[UnseenKey]:
    """The keys of metadata that no recording has, where there is any recording."""
    asked = {key for item in policies.items() for key in metadata_keys(item.match)}
    unseen = {
        key
        for key in asked
        if connection.execute(
            f"SELECT EXISTS (FROM assets) AND NOT EXISTS (FROM assets WHERE {metadata_sql(key)} "
            "IS NOT NULL)"
        ).fetchone()
        == (True,)
    }
    return [
        UnseenKey(key=key, item=item.id, at=str(item.where))
        for item in policies.items()
        for key in sorted(metadata_keys(item.match) & unseen)
    ]


def names_of(snapshot: Path) -> dict[tuple[str, str], list[str]]:
    """The names that each room and its template were seen with, by (room id, room or template):
    only for eyes that may see them."""
    with duckdb.connect(str(snapshot), read_only=True) as facts:
        rows = facts.execute(
            "SELECT room_id, what, list(name ORDER BY name) FROM names GROUP BY room_id, what"
        ).fetchall()
    return {(room_id, what): names for room_id, what, names in rows}


def _own_rules(
    connection: duckdb.DuckDBPyConnection, settings: Settings, policies: Policies, making: Making
) -> list[OwnRule]:
    """Where a bucket's own rules would take what a policy keeps."""
    found = []
    for name, text in connection.execute(
        "SELECT name, lifecycle FROM listings WHERE kind = 'store' AND lifecycle IS NOT NULL "
        "ORDER BY name"
    ).fetchall():
        store = settings.store(name)
        if store is None:
            continue
        try:
            rules = read_rules(text)
        except ValueError:
            raise damaged(name) from None
        found += [
            OwnRule(
                store=name,
                rule=each.rule,
                item=each.item,
                at=each.at,
                kept=each.kept,
                strikes=write_moment(each.strikes),
                stays=write_moment(each.stays) if each.stays else None,
                lifted=f"lifecycle:{name}" in making.lifts,
            )
            for rule in rules
            for each in against(rule, store, policies, making.now)
        ]
    return found


def _customer(connection: duckdb.DuckDBPyConnection) -> str | None:
    row = connection.execute(
        "SELECT any_value(customer) FROM listings WHERE kind = 'assets'"
    ).fetchone()
    return row[0] if row else None


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _acts(connection: duckdb.DuckDBPyConnection) -> dict[str, tuple[int, int]]:
    """How many copies go to each store, and how many deletes rest on it: there, or since a copy
    there makes them safe."""
    return {
        store: (copies, deletes)
        for store, copies, deletes in connection.execute(f"""
            SELECT store, count(*) FILTER (decision = 'copy'), count(*) FILTER (decision = 'delete')
            FROM (
                SELECT decision, unnest(list_distinct(list_append(coalesce(witnessed, []),
                    store::VARCHAR))) AS store
                FROM acts WHERE {ACTIONS}
            ) GROUP BY store
        """).fetchall()
    }


def _lacking(weakness: tuple[str, str] | None, acts: tuple[int, int]) -> dict[str, Any]:
    """What a store lacks, and how much of the plan is not possible there for it."""
    if weakness is None:
        return {}
    (lacks, words), (copies, deletes) = weakness, acts
    return {
        "weak": words,
        "copies_not_possible": copies if lacks == "create" else 0,
        "deletes_not_possible": deletes if lacks in ("create", "replace") else 0,
    }


def _sources(connection: duckdb.DuckDBPyConnection, making: Making) -> list[SourceState]:
    weak = dict(making.weak)
    acts = _acts(connection) if weak else {}
    rows = connection.execute(
        "SELECT name, kind, complete, coalesce(objects, 0), coalesce(bytes, 0), coalesce(strays, "
        "0), coalesce(stray_bytes, 0), note, "
        "identity, customer, skew_seconds, lost_record, coalesce(refused, false), keeps_deleted, "
        "keeps_removed, epoch(reported_at) "
        "FROM listings "
        "ORDER BY kind, name"
    ).fetchall()
    return [
        SourceState(
            name=name,
            kind=kind,
            complete=complete,
            objects=objects,
            bytes=size,
            strays=strays,
            stray_bytes=stray_bytes,
            note=note,
            **_lacking(weak.get(name) if kind == "store" else None, acts.get(name, (0, 0))),
            identity=identity,
            customer=customer,
            skew_seconds=None if skew is None else round(skew, 0),
            lost_record=lost,
            refused=refused,
            keeps_deleted=keeps_deleted,
            keeps_removed=keeps_removed,
            reported=None if reported is None else write_moment(_utc(reported)),
            lifted=tuple(
                what
                for what in ("record", "workspace", "clock", "disappeared")
                if f"{what}:{name if kind == 'store' else '100ms'}" in making.lifts
            ),
        )
        for (
            name,
            kind,
            complete,
            objects,
            size,
            strays,
            stray_bytes,
            note,
            identity,
            customer,
            skew,
            lost,
            refused,
            keeps_deleted,
            keeps_removed,
            reported,
        ) in rows
    ]


def _monthly(
    connection: duckdb.DuckDBPyConnection, settings: Settings
) -> tuple[float | None, list[str]]:
    """About what the plan changes a month, in dollars, and the stores whose price is not known."""
    found: list[float] = []
    unpriced: list[str] = []
    for name, size in connection.execute(
        "SELECT store::VARCHAR, coalesce(sum(CASE decision WHEN 'copy' THEN bytes ELSE -bytes END),"
        f" 0)::BIGINT FROM acts WHERE {ACTIONS} AND decision IN ('copy', 'delete') "
        "GROUP BY store ORDER BY store"
    ).fetchall():
        store = settings.store(name)
        price = settings.price(store) if store else None
        if price:
            found.append(price.monthly(size))
        else:
            unpriced.append(name)
    return (sum(found) if found else None), unpriced
