"""Plans that are made range by range of recordings: the same, row for row, as of all at once."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from copy import deepcopy
from dataclasses import fields, is_dataclass
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import duckdb
import generate
import pytest
from generate import Case, now_of, policies_of
from hypothesis import Phase, given, settings
from test_columns import examples, lay
from test_impact import two_policies

import retainer.impact
from retainer import drafting, forecasting, planning, standing, weighing
from retainer.cases import Decider
from retainer.errors import RetainerError
from retainer.forecasting import forecast
from retainer.impact import Side, impact
from retainer.inventory.facts import NAMES, open_facts, ranges
from retainer.model.setting import DeleteLimits, Settings, Source, Store
from retainer.model.tables import ASSETS, COPIES, LISTINGS, SNAPSHOT_FORMAT, create
from retainer.plan.decide import ask
from retainer.planfile import overview, read_plan
from retainer.planning import Making, make_plan, matches_of
from retainer.weighing import in_ranges

SIZE = 64
HOSTED = "s3://hms-prod-x/"


def empty_snapshot(path: Path) -> duckdb.DuckDBPyConnection:
    """A snapshot with nothing in it, to be filled and closed."""
    made = duckdb.connect(str(path))
    tables = {"assets": ASSETS, "copies": COPIES, "listings": LISTINGS, "names": NAMES}
    for table, columns in tables.items():
        made.execute(create(table, columns))
    made.execute(
        f"CREATE TABLE about AS SELECT {SNAPSHOT_FORMAT} AS format, 'retainer facts' AS what"
    )
    return made


def snapshot(case: Case, decider: Decider, path: Path) -> None:
    """The facts of a case in a file, with what the format of decision cases leaves out: where 100ms
    has each recording, what lies where, and keys that recordings share."""
    lay(case, decider)
    asked = {
        "assets": f"""
            SELECT * REPLACE ('api' AS known_by, CASE
                WHEN asset_no IN (SELECT asset_no FROM places WHERE store = 'hosted')
                    THEN '{HOSTED}' || asset_id || '.mp4'
                WHEN asset_no IN (SELECT asset_no FROM places WHERE store = 'elsewhere')
                    THEN 's3://b' || asset_no % 3 || '/' || asset_id || '.mp4'
                ELSE path END AS path) FROM facts ORDER BY asset_no""",
        "copies": """
            -- as text: in Python an infinite moment is the last of the year 9999
            SELECT * REPLACE (locked_until::VARCHAR AS locked_until,
                locked_through::VARCHAR AS locked_through, bytes * 12345677 AS bytes,
                CASE WHEN asset_no % 7 > 0 THEN [struct_pack(
                key := coalesce(shared, asset_no || '/' || store), size := 1 + asset_no,
                version := 'v' || asset_no, complete := coalesce(complete, false))] END AS objects)
            FROM copies ORDER BY asset_no, store""",
        "listings": f"SELECT {', '.join(LISTINGS)} FROM listings",
    }
    with empty_snapshot(path) as made:
        for table, question in asked.items():
            rows = decider.connection.execute(question).fetchall()
            if rows:
                made.executemany(
                    f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows
                )


@contextmanager
def limited(size: int, threads: int, rows: int) -> Iterator[None]:
    """So many recordings at a time, on so many threads, so many rows put together at once."""

    def opened(*given: Any, **more: Any) -> Any:
        connection = open_facts(*given, **more)
        connection.execute(f"SET threads = {threads}")
        return connection

    with ExitStack() as patches:
        patches.enter_context(patch.object(planning, "AT_ONCE", size))
        patches.enter_context(patch.object(planning, "open_facts", opened))
        patches.enter_context(patch.object(drafting, "AT_ONCE", rows))
        patches.enter_context(patch.object(weighing, "RANGES_AT_ONCE", 3))
        yield


def planned(path: Path) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
    """The header and the rows of a plan, in their order."""
    plan = read_plan(path)
    try:
        rows = plan.connection.execute("FROM plan").fetchall()
        return plan.header.model_dump(exclude={"digest"}), rows
    finally:
        plan.connection.close()


def settings_of(case: Case) -> Settings:
    names = policies_of(case).stores_named() | {copy["in"] for copy in case["copies"]}
    stores = sorted(names - {"hosted", "elsewhere"})
    uploads = set(case.get("uploads") or [])
    return Settings(
        tuple(
            Store(
                name,
                f"s3://{name}/x",
                region="eu-west-1",
                layout="100ms" if name in uploads else "{type}/{asset_id}/{filename}",
                lock="governance" if place == 0 else None,
                storage_class="GLACIER_IR" if place == 1 else None,
                storage_class_from=1,
            )
            for place, name in enumerate(stores)
        ),
        Source(hosted=(f"{HOSTED[:-1]}*",)),
        timezone=case["timezone"],
        limits=DeleteLimits(count=3, percent=5.0, bytes=100),
    )


def make(case: Case, facts: Path, out: Path) -> None:
    making = Making(now_of(case))
    make_plan(facts, settings_of(case), policies_of(case), out.parent, making, out)


@pytest.fixture(scope="module")
def decider() -> Decider:
    return Decider()


@pytest.mark.slow
def test_a_plan_is_the_same_row_for_row_in_one_range_and_in_many(
    tmp_path: Path, decider: Decider
) -> None:
    made: list[Case] = []
    seen: set[str] = set()

    @settings(max_examples=4, phases=(Phase.generate,))
    @given(generate.cases(assets=SIZE))
    def compare(case: Case) -> None:
        case = generate.enriched(case, Random(len(made)))
        facts = tmp_path / f"{len(made)}.duckdb"
        snapshot(case, decider, facts)
        plans = []
        for parts, threads, rows in ((1, 2, 61_440), (1, 1, 7), (7, 2, 5), (SIZE, 1, 7))[
            : 4 if not made else 3
        ]:
            out = tmp_path / f"{len(made)}-{parts}-{threads}.plan"
            size = -(-SIZE // parts) if parts > 1 else SIZE // 2
            with limited(size, threads, rows):
                with closing(open_facts(facts, Settings())) as opened:
                    assert len(ranges(opened, size)) == parts
                make(case, facts, out)
            plans.append(planned(out))
        whole, *others = plans
        seen.update(row[3] for row in whole[1])
        urgent = [row[1] for row in whole[1] if row[3] == "copy" and row[12] is not None]
        if urgent != sorted(urgent):
            seen.add("deadlines across ranges")
        with limited(10, 2, 7):
            counts = matches_of(facts, settings_of(case), policies_of(case), now_of(case))
        for item in whole[0]["items"]:
            assert counts[item["id"]] == item["matches"] + item["may_match"]
        for header, rows_of in others:
            assert header == whole[0]
            assert rows_of == whole[1]
        made.append(case)

    compare()
    assert seen >= {"copy", "delete", "blocked", "keep", "lapses", "unmanaged", "unknown"}
    assert "deadlines across ranges" in seen


def an_example() -> Case:
    """A copy: the examples are made once for all tests, and enriching one changes it."""
    return generate.enriched(deepcopy(examples()[0]), Random(1))


def plain(value: Any) -> Any:
    """A value of dataclasses as plain ones, with as many digits as do not depend on the order in
    which numbers are added."""
    if is_dataclass(value):
        return [plain(getattr(value, each.name)) for each in fields(value)]
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value


@pytest.mark.slow
def test_what_a_change_does_and_what_is_to_come_are_the_same_in_one_range_and_in_many(
    tmp_path: Path, decider: Decider
) -> None:
    """As are what holds and erasures come to."""
    made: list[Case] = []
    seen: set[str] = set()

    @settings(max_examples=4, phases=(Phase.generate,))
    @given(two_policies())
    def compare(pair: tuple[Case, Case]) -> None:
        case = generate.enriched(pair[0], Random(len(made)))
        other = case | {key: pair[1][key] for key in ("rules", "holds", "erasures")}
        # a person's erasure asks for the other recordings of its sessions
        person = {"id": "E", "why": "x", "match": {"user_id": "u1"}}
        asking = policies_of(case | {"erasures": [*case["erasures"], person]})
        facts = tmp_path / f"{uuid4()}.duckdb"
        snapshot(case, decider, facts)
        now = now_of(case)
        old, new = (Side(settings_of(each), policies_of(each), "x", "") for each in (case, other))
        answers = []
        for size in (SIZE, 5, 1)[: 3 if not made else 2]:
            with ExitStack() as patches:
                for module in (retainer.impact, forecasting, standing):
                    patches.enter_context(patch.object(module, "AT_ONCE", size))
                told = impact(facts, old, new, "p", Making(now), 5)
                ahead = forecast(facts, old.settings, old.policies, "p", Making(now), 3650)
                stands = standing.standing(facts, old.settings, asking, now, {}, {})
            answers.append([plain(each) for each in (told, ahead, stands)])
        seen.update(effect.becomes for effect in told.effects)
        seen.update(each.what for each in ahead.coming)
        seen.update("dearer" for _ in ahead.dearer)
        seen.update("early" for each in ahead.once if each.early)
        seen.update("undecided" for each in stands.erasures if each.undecided)
        seen.update("barred" for each in stands.erasures if each.barred)
        for answer in answers[1:]:
            assert answer == answers[0]
        made.append(case)

    compare()
    assert seen >= {*("due now", "later", "copy", "delete", "barred", "undecided", "early")}, seen


@pytest.mark.sampled
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE listings SET objects = coalesce(objects, 0) + 1",
        "UPDATE copies SET complete = true",  # of the same lists
        None,
    ],
)
def test_facts_that_are_replaced_while_they_are_read_are_noticed(
    change: str | None, tmp_path: Path, decider: Decider
) -> None:
    """A folder of facts that a job at night writes anew, or removes."""
    case = an_example()
    facts, others = tmp_path / "facts.duckdb", tmp_path / "others.duckdb"
    snapshot(case, decider, facts)
    snapshot(case, decider, others)
    if change:
        with duckdb.connect(str(others)) as changed:
            changed.execute(change)
    with patch.object(weighing, "RANGES_AT_ONCE", 2):
        connection = open_facts(facts, settings_of(case))
        with closing(connection):
            question = ask(connection, policies_of(case), now_of(case), "UTC")
            going = in_ranges(connection, question, 1)
            next(going)
            if change:
                others.replace(facts)
            else:
                facts.unlink()
            next(going)
            with pytest.raises(RetainerError, match="was replaced while it was read"):
                next(going)


def sharing(after: str, created: Sequence[str]) -> Case:
    """Uploads that were made then, each of which shares its key with the one three further on; a
    rule deletes them."""
    ids = [f"{number:024}" for number in range(len(created))]
    return {
        "now": "2026-11-30T12:00:00Z",
        "timezone": "UTC",
        "rules": [{"id": "raw", "match": "all", "delete": [{"in": "uploads", "after": after}]}],
        "assets": [
            {"id": each, "type": "chat", "created_at": at}
            for each, at in zip(ids, created, strict=True)
        ],
        "copies": [
            {"asset": each, "in": "uploads", "shared": f"key {number % 3}", "bytes": 1}
            for number, each in enumerate(ids)
        ],
        "assets_unfinished": False,
        "by_name": False,
    }


@pytest.mark.slow
def test_what_is_to_come_of_a_key_that_recordings_far_apart_share_is_the_same(
    tmp_path: Path, decider: Decider
) -> None:
    """Both of a pair go once the younger one is due."""
    case = sharing("1y", [f"2026-0{month}-01T00:00:00Z" for month in range(1, 7)])
    facts = tmp_path / "facts.duckdb"
    snapshot(case, decider, facts)
    side, making = Side(settings_of(case), policies_of(case), "x", ""), Making(now_of(case))
    told = []
    for size in (6, 2, 1):
        with ExitStack() as patches:
            for module in (retainer.impact, forecasting):
                patches.enter_context(patch.object(module, "AT_ONCE", size))
            ahead = forecast(facts, side.settings, side.policies, "p", making, 3650)
            lying = impact(facts, side, side, "p", making).lying_after
        told.append((ahead.coming, ahead.lying, lying))
    assert [(each.day.month, each.copies) for each in told[0][0]] == [(4, 2), (5, 2), (6, 2)]
    assert told[1:] == told[:1] * 2


def test_a_key_that_recordings_far_apart_share_goes_only_when_all_of_them_may(
    tmp_path: Path, decider: Decider
) -> None:
    """Of one of three pairs one is held; the others may go."""
    case = sharing("30d", ["2026-01-01T00:00:00Z"] * 6)
    ids = [each["id"] for each in case["assets"]]
    hold = {"id": "LIT-1", "why": "x", "in": "uploads", "match": {"asset_id": ids[5]}}
    case |= {"holds": [hold]}
    facts, out = tmp_path / "facts.duckdb", tmp_path / "p.plan"
    snapshot(case, decider, facts)
    for size in (3, 2, 1):
        with limited(size, 2, 7):
            make(case, facts, out)
        _, rows = planned(out)
        told = {row[1]: (row[3], row[4]) for row in rows}
        assert told == {
            **dict.fromkeys([ids[0], ids[1], ids[3], ids[4]], ("delete", None)),
            ids[2]: ("blocked", "shared"),
            ids[5]: ("keep", None),
        }


def test_a_plan_of_many_worries_is_told_in_little_memory(tmp_path: Path) -> None:
    """A million of them had ended `show` for want of it."""
    count, facts, out = 300_000, tmp_path / "facts.duckdb", tmp_path / "p.plan"
    with empty_snapshot(facts) as made:
        made.execute(f"""
            INSERT INTO assets BY NAME
            SELECT i AS asset_no, printf('%024d', i) AS asset_id, 'chat' AS type,
                'completed' AS status, TIMESTAMP '2026-01-01' AS created_at, true AS settled,
                'catalog' AS known_by, false AS many FROM range(1, {count} + 1) AS _(i);
            INSERT INTO listings BY NAME
            SELECT 'vault' AS name, 'store' AS kind, true AS complete,
                TIMESTAMP '2026-11-30' AS started_at, TIMESTAMP '2026-11-30' AS finished_at
        """)
    case: Case = {
        "now": "2026-11-30T00:00:00Z",
        "timezone": "UTC",
        "rules": [{"id": "chats", "match": "all", "keep": [{"in": "vault", "for": "forever"}]}],
        "copies": [],
    }
    make(case, facts, out)
    plan = read_plan(out)
    with closing(plan.connection):
        plan.connection.execute("SET memory_limit = '80MB'")
        (lost,) = overview(plan).others
    assert (lost.count, lost.assets, [line.asset_id for line in lost.lines]) == (
        count,
        count,
        [f"{number:024}" for number in range(1, 11)],
    )


@pytest.mark.slow
def test_whatever_decides_takes_the_memory_of_a_range(tmp_path: Path) -> None:
    """An impact of more than a million had ended for want of it, where the pairs of a range were
    sorted and written. (What takes ten million to fail is measured by benchmarks alone.)"""
    count, facts = 1_200_000, tmp_path / "facts.duckdb"
    with empty_snapshot(facts) as made:
        made.execute(f"""
            INSERT INTO assets BY NAME
            SELECT i AS asset_no, printf('%024d', i) AS asset_id, 'chat' AS type,
                'completed' AS status, md5(i::VARCHAR) AS room_id, md5(i::VARCHAR) AS session_id,
                's3://hms-prod-x/' || md5(i::VARCHAR) || '/' || md5(i::VARCHAR) AS path,
                TIMESTAMP '2026-01-01' + to_seconds(i) AS created_at, true AS settled,
                1000 AS size, 'api' AS known_by, false AS many FROM range(1, {count} + 1) AS _(i);
            INSERT INTO copies BY NAME
            SELECT asset_no, 'vault' AS store, true AS complete, true AS lock_read, size AS bytes,
                [struct_pack(key := path, size := size, version := md5(path), complete := true)]
                    AS objects, false AS archived, true AS owners_known
            FROM assets;
            INSERT INTO listings BY NAME
            SELECT 'vault' AS name, 'store' AS kind, true AS complete,
                TIMESTAMP '2026-11-30' AS started_at, TIMESTAMP '2026-11-30' AS finished_at
        """)
    case: Case = {
        "now": "2026-11-30T00:00:00Z",
        "timezone": "UTC",
        "rules": [{"id": "chats", "match": "all", "keep": [{"in": "vault", "for": "1y"}]}],
        "copies": [{"asset": "x", "in": "vault"}],
    }
    settings, policies, making = settings_of(case), policies_of(case), Making(now_of(case))
    longer = policies_of(case | {"rules": [{**case["rules"][0], "then": "delete"}]})
    sides = [Side(settings, each, "x", "") for each in (policies, longer)]
    make(case, facts, tmp_path / "p.plan")
    told = impact(facts, *sides, "p", making)
    assert [(each.becomes, each.copies) for each in told.effects] == [("sooner", count)]
    ahead = forecast(facts, settings, longer, "p", making, 3650)
    assert sum(each.copies for each in ahead.coming) == count
    plan = read_plan(tmp_path / "p.plan")
    with closing(plan.connection):
        assert plan.header.items[0].matches == count


def test_a_plan_of_many_ranges_in_which_nothing_is_done(tmp_path: Path, decider: Decider) -> None:
    case, facts, plans = an_example(), tmp_path / "facts.duckdb", []
    snapshot(case, decider, facts)
    case |= {"rules": [], "holds": [], "erasures": []}
    for size in (len(case["assets"]), 7):
        with limited(size, 2, 7):
            make(case, facts, tmp_path / f"{size}.plan")
        plans.append(planned(tmp_path / f"{size}.plan"))
    assert plans[0] == plans[1]
    assert plans[0][1] and all(row[0] is None for row in plans[0][1])


def test_a_query_of_what_is_decided_is_answered_by_every_range(
    tmp_path: Path, decider: Decider
) -> None:
    """As locks and versions are asked of what is due."""
    case = an_example()
    facts = tmp_path / "facts.duckdb"
    snapshot(case, decider, facts)
    found = []
    for size in (len(case["assets"]), 7):
        with limited(size, 2, 7):
            found.append(
                planning._decided(
                    settings_of(case),
                    policies_of(case),
                    facts,
                    now_of(case),
                    "SELECT asset_no, store, decision FROM decided ORDER BY asset_no, store",
                )
            )
    assert found[0] == found[1] and len(found[0]) > len(case["assets"])


def test_a_disk_that_is_full_is_told_as_that(
    tmp_path: Path, decider: Decider, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = an_example()
    facts = tmp_path / "facts.duckdb"
    snapshot(case, decider, facts)

    def full(*_: object) -> None:
        raise duckdb.IOException('Could not write file "/tmp/x": No space left on device')

    monkeypatch.setattr(drafting, "write_parquet", full)
    with pytest.raises(RetainerError, match="the disk is full"):
        make(case, facts, tmp_path / "p.plan")
    assert not (tmp_path / "p.plan").exists()


def test_a_disk_that_is_full_at_last_is_told_as_that(
    tmp_path: Path, decider: Decider, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = an_example()
    facts = tmp_path / "facts.duckdb"
    snapshot(case, decider, facts)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(drafting, "bind", full)
    with pytest.raises(RetainerError, match=r"cannot be written in .*: No space left"):
        make(case, facts, tmp_path / "p.plan")
    assert not (tmp_path / "p.plan").exists()
