"""From rows as 100ms and the stores give them to facts: what could not be read is not known, and
what did not finish says so."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from retainer import database as duck
from retainer.database import fill
from retainer.errors import (
    CredentialsRefused,
    ListingBroken,
    ListingTorn,
    RetainerError,
    SourceFailed,
    StoreFailed,
)
from retainer.inventory import store_list
from retainer.inventory.collect import Listing, collect
from retainer.inventory.facts import STAGES, assemble, open_facts, read_asset, save_snapshot, stage
from retainer.inventory.locate import assets_of_key_sql, key_sql, layout_regex, place_sql
from retainer.model.catalog import CATALOG, CATALOG_PREFIX, part_name
from retainer.model.lifecycle import LifecycleRule
from retainer.model.moment import write_lock
from retainer.model.rule import ASSET_TYPES
from retainer.model.setting import DEFAULT_LAYOUT, Settings, Source, Store
from retainer.model.tables import SNAPSHOT_FORMAT
from retainer.ports import AssetPage, Look, Seen, Stretch, Version, looked_and_read

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
VAULT = Store("vault", "s3://acme-vault/100ms", layouts=(DEFAULT_LAYOUT,))
UPLOADS = Store("uploads", "s3://acme-raw/rec", layout="100ms")
PROJECT = Settings(stores=(VAULT, UPLOADS), source=Source(hosted=("s3://hms-prod-*",)))
KEY = "chat/2026/11/20/r1/{}/a.csv"
"""A key in the vault by the default layout, less the asset's id."""

NO_END = datetime.max  # noqa: DTZ901
"""How the tables give the end of what has none."""

Row = dict[str, Any]


def an_asset(id: str = "a1", **facts: Any) -> Row:
    usual = {
        "type": "chat",
        "status": "completed",
        "room_id": "r1",
        "session_id": "s1",
        "job_id": "j1",
        "path": "s3://hms-prod-eu/x/a.csv",
        "size": 5,
        "duration": 60,
        "created_at": "2026-11-20T00:00:00Z",
        "thumbnails": None,
        "metadata": {},
    }
    return {"id": id, **usual, **facts}


def an_object(key: str, store: str = "vault", **facts: Any) -> Row:
    return {
        "store": store,
        "key": key,
        "size": 5,
        "version": "v1",
        "storage_class": None,
        "locked_until": None,
        "lock_read": True,
        **facts,
    }


def an_entry(id: str = "a1", **facts: Any) -> Row:
    """What the catalog holds of the copy of an asset."""
    row, _ = read_asset(an_asset(id))
    assert row is not None
    copy = {
        "store": "vault",
        "key": KEY.format(id),
        "object_size": 5,
        "version": "v1",
        "copied_at": "2026-11-21 00:00:00",
    }
    return dict.fromkeys(CATALOG) | row | {"room": "sales-1", "template": "default"} | copy | facts


def a_listing(name: str, kind: str = "store", **facts: Any) -> Row:
    return {
        "name": name,
        "kind": kind,
        "complete": True,
        "can_lock": False,
        "strays": 0,
        "stray_bytes": 0,
        **facts,
    }


FINISHED = (a_listing("vault"), a_listing("uploads"), a_listing("100ms chat", "assets"))


def rows_of(connection: duckdb.DuckDBPyConnection, table: str) -> list[Row]:
    found = connection.execute(f"SELECT * FROM {table} ORDER BY ALL")
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


@dataclass
class Facts:
    assets: dict[str, Row]
    copies: dict[tuple[str, str], Row]
    listings: dict[str, Row]

    @classmethod
    def of(cls, connection: duckdb.DuckDBPyConnection) -> Facts:
        assets = {row["asset_id"]: row for row in rows_of(connection, "assets")}
        numbers = {row["asset_no"]: id for id, row in assets.items()}
        copies = {
            (numbers[row["asset_no"]], row["store"]): row for row in rows_of(connection, "copies")
        }
        assert len(copies) == len(rows_of(connection, "copies"))
        return cls(assets, copies, {row["name"]: row for row in rows_of(connection, "listings")})


def connect() -> duckdb.DuckDBPyConnection:
    """A database that may open what the tests write."""
    return duck.connect(Path(tempfile.gettempdir()))


def assembled(
    assets: Iterable[Row] = (),
    objects: Iterable[Row] = (),
    catalog: Iterable[Row] = (),
    rooms: Iterable[Row] = (),
    listings: Iterable[Row] = FINISHED,
    project: Settings = PROJECT,
) -> Facts:
    connection = connect()
    try:
        stage(connection)
        staged = [row for row, _ in map(read_asset, assets) if row is not None]
        listed = [dict.fromkeys(STAGES["listings"]) | row for row in listings]
        for table, rows in {
            "staged_assets": staged,
            "objects": objects,
            "catalog": catalog,
            "rooms": rooms,
            "listings": listed,
        }.items():
            fill(connection, table, STAGES[table], rows)
        assemble(connection, project)
        return Facts.of(connection)
    finally:
        connection.close()


# ── One asset as 100ms gives it ───────────────────────────────────────────────────────────────────


def read(**facts: Any) -> tuple[Row, list[str]]:
    row, told = read_asset(an_asset(**facts))
    assert row is not None
    return row, told


def test_an_asset_is_read_as_100ms_documents_it() -> None:
    row, told = read(
        created_at="2023-03-02T07:44:27.010516042Z",
        metadata={"resolution": {"width": 1280}, "layer": 0},
    )
    assert told == []
    assert {
        name: row[name]
        for name in (
            "asset_id",
            "type",
            "status",
            "room_id",
            "session_id",
            "job_id",
            "path",
            "size",
            "duration",
        )
    } == {
        "asset_id": "a1",
        "type": "chat",
        "status": "completed",
        "room_id": "r1",
        "session_id": "s1",
        "job_id": "j1",
        "path": "s3://hms-prod-eu/x/a.csv",
        "size": 5,
        "duration": 60,
    }
    assert (row["created_at"], row["created_text"]) == (
        "2023-03-02 07:44:27.010516",
        "2023-03-02T07:44:27.010516042Z",
    )
    assert json.loads(row["metadata"]) == {"resolution": {"width": 1280}, "layer": 0}
    assert (row["not_known"], row["thumbnails"], row["known_by"], row["settled"]) == (
        None,
        None,
        "api",
        True,
    )


@pytest.mark.parametrize("id", [None, "", 7, ["a"], {"a": 1}, True, "x" * 201])
def test_a_row_whose_id_cannot_be_read_could_be_any_asset(id: Any) -> None:
    assert read_asset(an_asset(id)) == (None, ["its id is not text that can be printed"])


def test_a_row_without_an_id_could_be_any_asset() -> None:
    assert read_asset({})[0] is None


@pytest.mark.parametrize("fact", ["room_id", "session_id", "job_id", "path"])
@pytest.mark.parametrize("value", [None, ""])
def test_a_text_that_is_null_or_empty_is_absent(fact: str, value: Any) -> None:
    row, told = read(**{fact: value})
    assert (row[fact], row["not_known"], told) == (None, None, [])


@pytest.mark.parametrize("fact", ["type", "status", "room_id", "session_id", "job_id", "path"])
@pytest.mark.parametrize("value", [7, True, ["a"], {"a": 1}, 1.5])
def test_a_text_of_the_wrong_kind_is_not_known(fact: str, value: Any) -> None:
    row, told = read(**{fact: value})
    assert (row[fact], row["not_known"], told) == (
        None,
        [fact],
        [f"its {fact} is of the wrong kind"],
    )


@pytest.mark.parametrize("fact", ["type", "status"])
@pytest.mark.parametrize("value", [None, ""])
def test_a_type_or_status_of_nothing_is_not_known(fact: str, value: Any) -> None:
    assert read(**{fact: value})[0]["not_known"] == [fact]


@pytest.mark.parametrize(
    "fact",
    [
        "type",
        "status",
        "room_id",
        "session_id",
        "path",
        "size",
        "duration",
        "metadata",
        "created_at",
        "thumbnails",
    ],
)
def test_a_key_that_is_left_out_is_absent(fact: str) -> None:
    raw = an_asset()
    del raw[fact]
    row, told = read_asset(raw)
    assert row is not None
    assert (row.get(fact), row["not_known"], told) == (None, None, [])


def test_a_type_that_nobody_knew_of_is_read() -> None:
    assert (read(type="whiteboard")[0]["type"], read(type="whiteboard")[1]) == ("whiteboard", [])


@pytest.mark.parametrize("fact", ["size", "duration"])
@pytest.mark.parametrize(
    "value",
    [
        None,
        0,
        "0",
        -1,
        "-1",
        "big",
        "",
        "nan",
        "inf",
        float("nan"),
        float("inf"),
        True,
        [5],
        {"a": 5},
        2**62,
        1e300,
    ],
)
def test_a_number_that_is_none_or_nought_is_not_known(fact: str, value: Any) -> None:
    row, told = read(**{fact: value}, type="room-composite")
    assert (row[fact], row["not_known"], told) == (None, [fact], [])


@pytest.mark.parametrize("kind", ["chat", "transcript", "summary"])
@pytest.mark.parametrize("value", [0, 0.0, "0"])
def test_what_has_no_duration_says_so(kind: str, value: Any) -> None:
    """Issue 13: a plain no to a match of durations."""
    row, told = read(duration=value, type=kind)
    assert (row["duration"], row["not_known"], told) == (None, None, [])


@pytest.mark.parametrize(
    "value, size",
    [
        (5, 5),
        ("5", 5),
        (5.0, 5),
        ("4000000000", 4 * 10**9),
        (2**53 + 1, 2**53 + 1),
        (2**62 - 1, 2**62 - 1),
    ],
)
def test_a_size_is_read_also_as_text(value: Any, size: int) -> None:
    assert read(size=value)[0]["size"] == size


@pytest.mark.parametrize("value, duration", [(60, 60), ("60", 60), (0.5, 0.5), ("0.5", 0.5)])
def test_a_duration_is_read_also_as_text_and_with_a_fraction(value: Any, duration: float) -> None:
    assert read(duration=value)[0]["duration"] == duration


@pytest.mark.parametrize(
    "text, moment",
    [
        ("2023-03-02T07:44:27.010516042Z", "2023-03-02 07:44:27.010516"),
        ("2023-03-02T07:44:27Z", "2023-03-02 07:44:27.000000"),
        ("2023-03-02t07:44:27z", "2023-03-02 07:44:27.000000"),
        ("2023-03-02T07:44:27+05:30", "2023-03-02 02:14:27.000000"),
        ("2023-03-02T07:44:27.9999999Z", "2023-03-02 07:44:27.999999"),
        ("2024-02-29T00:00:00-01:00", "2024-02-29 01:00:00.000000"),
    ],
)
def test_a_date_is_read_to_the_microsecond_in_utc(text: str, moment: str) -> None:
    row, told = read(created_at=text)
    assert (row["created_at"], row["created_text"], told) == (moment, text, [])


@pytest.mark.parametrize(
    "value",
    [
        "2023-03-02",
        "2023-03-02T07:44:27",
        "2023-03-02 07:44:27Z",
        "02/03/2023",
        "",
        "now",
        "2023-02-29T00:00:00Z",
        "2023-03-02T24:00:00Z",
        "2016-12-31T23:59:60Z",
        "2023-03-02T07:44:27+25:00",
        "2023-03-02T07:44:27.Z",
        "٢٠٢٣-03-02T07:44:27Z",
        "0001-01-01T00:00:00+01:00",
        1677743067,
        ["2023-03-02T07:44:27Z"],
        True,
    ],
)
def test_a_date_that_is_none_is_told_and_never_guessed(value: Any) -> None:
    row, told = read(created_at=value)
    assert (row["created_at"], told) == (None, ["its created_at is not a date with a zone"])


def test_no_date_at_all_is_nothing_to_tell() -> None:
    row, told = read(created_at=None)
    assert (row["created_at"], row["created_text"], told) == (None, None, [])


@pytest.mark.parametrize("year", ["0001", "0999", "9999"])
def test_a_date_far_away_reaches_the_tables_as_it_is(year: str) -> None:
    assert assembled([an_asset(created_at=f"{year}-06-01T00:00:00Z")]).assets["a1"][
        "created_at"
    ] == datetime(int(year), 6, 1)  # noqa: DTZ001


@pytest.mark.parametrize("metadata", [{}, {"num_layers": "4"}, {"a": {"b": [1, None]}}])
def test_metadata_is_kept_as_json(metadata: Row) -> None:
    assert json.loads(read(metadata=metadata)[0]["metadata"]) == metadata


def test_metadata_that_is_null_is_absent() -> None:
    assert read(metadata=None) == (
        read(metadata=None)[0] | {"metadata": None, "not_known": None},
        [],
    )


@pytest.mark.parametrize("metadata", ["none", [1], 7, True, ""])
def test_metadata_that_is_no_mapping_is_not_known_and_neither_are_the_ids_it_could_hold(
    metadata: Any,
) -> None:
    row, told = read(metadata=metadata)
    assert row["metadata"] is None
    assert set(row["not_known"]) == {"metadata", "user_id", "peer_id"}
    assert "its metadata is of the wrong kind" in told


@pytest.mark.parametrize("fact", ["user_id", "peer_id"])
def test_a_user_or_peer_stands_beside_the_metadata_or_in_it(fact: str) -> None:
    assert read(metadata={fact: "u1"})[0][fact] == "u1"
    assert read(metadata={fact: "u1"}, **{fact: "u2"})[0][fact] == "u2"
    assert read(metadata="none", **{fact: "u2"})[0][fact] == "u2"
    assert read()[0][fact] is None


@pytest.mark.parametrize("fact", ["user_id", "peer_id"])
@pytest.mark.parametrize("value", [7, ["u"], {"id": "u"}, False])
def test_a_user_or_peer_of_the_wrong_kind_is_not_known(fact: str, value: Any) -> None:
    assert read(metadata={fact: value})[0]["not_known"] == [fact]
    assert read(**{fact: value})[0]["not_known"] == [fact]


@pytest.mark.parametrize("fact", ["user_id", "peer_id"])
def test_a_user_or_peer_of_nothing_is_absent(fact: str) -> None:
    assert read(metadata={fact: None})[0]["not_known"] is None
    assert read(metadata={fact: ""})[0]["not_known"] is None


@pytest.mark.parametrize(
    "thumbnails, paths", [(None, None), ([], None), (["x.jpg"], ["x.jpg"]), ("x.jpg", ["x.jpg"])]
)
def test_thumbnails_are_noticed(thumbnails: Any, paths: list[str] | None) -> None:
    assert read(thumbnails=thumbnails)[0]["thumbnails"] == paths


@pytest.mark.parametrize("thumbnails", [7, {"a": 1}, ["x.jpg", 7], [["x.jpg"]], ["\ud800"]])
def test_thumbnails_of_the_wrong_kind_are_not_known(thumbnails: Any) -> None:
    row, told = read(thumbnails=thumbnails)
    assert (row["thumbnails"], row["not_known"], told) == (
        None,
        ["thumbnails"],
        ["its thumbnails is of the wrong kind"],
    )


def test_what_is_told_of_an_asset_holds_none_of_its_values() -> None:
    broken = {
        "type": ["secret"],
        "status": {"secret": 1},
        "path": ["secret"],
        "metadata": "secret",
        "user_id": ["secret"],
        "created_at": "secret",
    }
    assert "secret" not in " ".join(read(**broken)[1])


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*an_asset(), "user_id", "peer_id", "xyzzy"]), ANYTHING))
@settings(max_examples=150)
def test_no_row_makes_reading_fail(raw: Row) -> None:
    row, told = read_asset(raw)
    assert row is None or set(row) == set(STAGES["staged_assets"])
    assert all(isinstance(each, str) for each in told)


# ── What is there, and what it is ─────────────────────────────────────────────────────────────────


def test_an_asset_has_the_number_of_its_place_in_the_order_of_ids() -> None:
    facts = assembled(
        [an_asset("b"), an_asset("é"), an_asset("B"), an_asset("a"), an_asset("10"), an_asset("9")]
    )
    assert [id for id, _ in sorted(facts.assets.items(), key=lambda item: item[1]["asset_no"])] == [
        "10",
        "9",
        "B",
        "a",
        "b",
        "é",
    ]
    assert sorted(row["asset_no"] for row in facts.assets.values()) == [1, 2, 3, 4, 5, 6]


def test_a_row_that_is_repeated_is_kept_once() -> None:
    assert len(assembled([an_asset("a"), an_asset("b"), an_asset("a")]).assets) == 2


SOME_ROWS = [
    an_asset("a"),
    an_asset("a", status="failed"),
    an_asset("a", size=7, path=None),
    an_asset("b", type="summary"),
    an_asset("b", type="track"),
    an_asset("c", room_id="r2"),
]
SOME_OBJECTS = [an_object(KEY.format(id)) for id in "abcd"] + [
    an_object("x/a.csv", "uploads"),
    an_object("left/over", size=9),
]
SOME_ENTRIES = [
    an_entry("a"),
    an_entry("b", version="v0"),
    an_entry("b"),
    an_entry("d", copied_at="2026-11-22 00:00:00"),
    an_entry("d", room="old"),
    an_entry("d", store="cold", room="new", copied_at="2026-11-23 00:00:00"),
]
SOME_ROOMS = [{"room_id": "r1", "room": name, "template": None} for name in ("x", "y", None)]


@given(
    st.permutations(SOME_ROWS),
    st.permutations(SOME_OBJECTS),
    st.permutations(SOME_ENTRIES),
    st.permutations(SOME_ROOMS),
)
@settings(max_examples=6)
def test_the_order_of_the_rows_is_of_no_account(
    rows: list[Row], objects: list[Row], entries: list[Row], rooms: list[Row]
) -> None:
    assert assembled(rows, objects, entries, rooms) == assembled(
        SOME_ROWS, SOME_OBJECTS, SOME_ENTRIES, SOME_ROOMS
    )


def test_an_asset_has_the_names_of_its_room_and_template() -> None:
    asset = assembled(
        [an_asset()],
        rooms=[{"room_id": "r1", "room": "sales-1", "template": "default", "template_id": "t1"}],
    ).assets["a1"]
    assert (asset["room"], asset["template"], asset["not_known"]) == ("sales-1", "default", None)
    assert asset["template_id"] == "t1"


def test_a_room_that_the_list_did_not_give_is_not_known() -> None:
    asset = assembled(
        [an_asset(size=0)], rooms=[{"room_id": "r2", "room": "x", "template": "y"}]
    ).assets["a1"]
    assert (asset["room"], asset["template"]) == (None, None)
    assert set(asset["not_known"]) == {"size", "room", "template", "template_id"}


def test_a_room_without_a_name_has_none_and_one_without_a_template_is_not_known() -> None:
    """Issue 13: every room has a template, whose name is deprecated and may be left out."""
    for template, template_id, unknown in (
        ("y", "t1", None),
        (None, "t1", ["template"]),
        ("y", None, ["template_id"]),
        (None, None, ["template", "template_id"]),
    ):
        room = {"room_id": "r1", "room": None, "template": template, "template_id": template_id}
        asset = assembled([an_asset()], rooms=[room]).assets["a1"]
        assert (asset["room"], asset["not_known"]) == (None, unknown)


def test_an_asset_without_a_room_has_none() -> None:
    assert assembled([an_asset(room_id=None)]).assets["a1"]["not_known"] is None


def test_an_asset_whose_room_could_not_be_read_has_a_room_that_is_not_known() -> None:
    assert set(assembled([an_asset(room_id=7)]).assets["a1"]["not_known"]) == {
        "room_id",
        "room",
        "template",
        "template_id",
    }


def test_what_the_api_says_counts_over_what_the_catalog_remembers() -> None:
    facts = assembled(
        [an_asset(status="failed")],
        catalog=[an_entry(), an_entry("b")],
        rooms=[{"room_id": "r1", "room": "now", "template": None}],
    )
    assert (
        facts.assets["a1"]["status"],
        facts.assets["a1"]["room"],
        facts.assets["a1"]["known_by"],
    ) == ("failed", "now", "api")
    assert (facts.assets["b"]["status"], facts.assets["b"]["known_by"]) == ("completed", "catalog")


def test_an_asset_that_the_api_forgot_is_what_the_catalog_remembers() -> None:
    entry = an_entry(
        metadata='{"layer": 0}', user_id="u", peer_id="p", size=5, not_known=["duration"]
    )
    asset = assembled(catalog=[entry], objects=[an_object(KEY.format("a1"))]).assets["a1"]
    remembered = set(entry) & set(asset) - {"created_at", "settled", "known_by"}
    assert remembered >= {"type", "room", "template", "user_id", "size", "metadata", "not_known"}
    assert {name: asset[name] for name in remembered} == {name: entry[name] for name in remembered}
    assert (asset["created_at"], asset["known_by"], asset["settled"]) == (
        datetime(2026, 11, 20),  # noqa: DTZ001
        "catalog",
        True,
    )


def test_of_several_entries_the_one_copied_last_is_remembered() -> None:
    entries = [
        an_entry(copied_at=f"2026-11-{day} 00:00:00", key=f"k{day}", room=f"room-{day}")
        for day in (10, 12, 11)
    ]
    assert assembled(catalog=entries).assets["a1"]["room"] == "room-12"


def test_an_asset_that_an_unfinished_listing_did_not_show_is_not_settled() -> None:
    listings = [
        a_listing("vault"),
        a_listing("100ms chat", "assets"),
        a_listing("100ms track", "assets", complete=False),
    ]
    facts = assembled([an_asset("seen")], catalog=[an_entry("unseen")], listings=listings)
    assert {id: row["settled"] for id, row in facts.assets.items()} == {
        "seen": True,
        "unseen": False,
    }


def test_a_store_whose_listing_did_not_finish_leaves_the_assets_settled() -> None:
    listings = [a_listing("vault", complete=False), a_listing("100ms chat", "assets")]
    assert assembled(catalog=[an_entry()], listings=listings).assets["a1"]["settled"] is True


def test_a_copy_of_which_the_catalog_knows_everything_is_complete() -> None:
    copy = assembled([an_asset()], [an_object(KEY.format("a1"))], [an_entry()]).copies[
        "a1", "vault"
    ]
    assert (
        copy["complete"],
        copy["bytes"],
        copy["shared"],
        copy["locked_until"],
        copy["lock_read"],
    ) == (True, 5, None, None, True)
    assert copy["objects"] == [
        {"key": KEY.format("a1"), "size": 5, "version": "v1", "complete": True}
    ]


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [an_entry(object_size=6)],
        [an_entry(version="v0")],
        [an_entry(store="cold")],
        [an_entry(key="elsewhere")],
        [an_entry(), an_entry(version="v0", copied_at="2026-11-22 00:00:00")],
    ],
    ids=[
        "none",
        "another size",
        "another version",
        "another store",
        "another key",
        "a newer one of another version",
    ],
)
def test_an_object_without_its_own_entry_is_a_partial_copy(entries: list[Row]) -> None:
    copy = assembled([an_asset()], [an_object(KEY.format("a1"))], entries).copies["a1", "vault"]
    assert (copy["complete"], copy["objects"][0]["complete"]) == (False, False)


def test_an_entry_whose_object_is_not_listed_is_no_copy() -> None:
    assert assembled([an_asset()], [], [an_entry()]).copies == {}


def test_an_entry_says_whose_its_object_is_whatever_its_key() -> None:
    copies = assembled(
        [an_asset("a1"), an_asset("b1")],
        [an_object(KEY.format("b1"))],
        [an_entry("a1", key=KEY.format("b1"))],
    ).copies
    assert list(copies) == [("a1", "vault")]


def test_an_object_of_no_known_asset_is_a_stray_and_is_counted() -> None:
    strays = [
        an_object(KEY.format("nobody"), size=7),
        an_object("notes.txt", size=9),
        an_object("x", "uploads", size=3),
    ]
    facts = assembled([an_asset()], [an_object(KEY.format("a1")), *strays])
    assert list(facts.copies) == [("a1", "vault")]
    assert {
        name: (facts.listings[name]["strays"], facts.listings[name]["stray_bytes"])
        for name in ("vault", "uploads")
    } == {"vault": (2, 16), "uploads": (1, 3)}


def test_a_store_of_known_objects_alone_has_no_strays() -> None:
    facts = assembled([an_asset()], [an_object(KEY.format("a1"))])
    assert (facts.listings["vault"]["strays"], facts.listings["vault"]["stray_bytes"]) == (0, 0)


ODD_KEYS = [
    KEY.format("%FF"),
    KEY.format("%C3"),
    KEY.format("%00"),
    KEY.format("%"),
    KEY.format("%ZZ"),
    "\n",
    "é" * 300,
    "a//b",
    "'",
]


@pytest.mark.parametrize("key", ODD_KEYS)
def test_a_key_that_nobody_would_make_is_a_stray_like_any_other(key: str) -> None:
    assert assembled([an_asset()], [an_object(key)]).listings["vault"]["strays"] == 1


def test_a_lock_on_an_object_is_a_lock_on_the_copy() -> None:
    objects = [
        an_object(KEY.format("a1"), locked_until="2027-01-01 00:00:00"),
        an_object(KEY.format("b1"), locked_until="infinity", lock_read=False),
    ]
    copies = assembled([an_asset("a1"), an_asset("b1")], objects).copies
    assert copies["a1", "vault"]["locked_until"] == datetime(2027, 1, 1)  # noqa: DTZ001
    assert (copies["b1", "vault"]["locked_until"], copies["b1", "vault"]["lock_read"]) == (
        NO_END,
        False,
    )


def test_two_objects_of_one_asset_are_one_copy_with_the_strictest_lock() -> None:
    store = Store(
        "vault", "s3://acme-vault", layout="{asset_id}/{filename}", layouts=(DEFAULT_LAYOUT,)
    )
    objects = [
        an_object("a1/a.csv", locked_until="2027-01-01 00:00:00"),
        an_object(KEY.format("a1"), size=6, locked_until="infinity", lock_read=False),
    ]
    facts = assembled(
        [an_asset("a1")],
        objects,
        [an_entry("a1", object_size=6)],
        project=Settings(stores=(store,)),
    )
    copy = facts.copies["a1", "vault"]
    assert (copy["complete"], copy["bytes"], copy["locked_until"], copy["lock_read"]) == (
        True,
        11,
        NO_END,
        False,
    )
    assert [(each["key"], each["complete"]) for each in copy["objects"]] == [
        ("a1/a.csv", False),
        (KEY.format("a1"), True),
    ]


def test_a_copy_under_an_old_layout_is_still_known_and_one_under_a_forgotten_layout_is_a_stray() -> (
    None
):
    objects = [
        an_object("new/a1"),
        an_object("old/b1/x.mp4"),
        an_object(KEY.format("c1")),
        an_object("forgotten/a1"),
    ]
    store = Store(
        "vault",
        "s3://acme-vault",
        layout="new/{asset_id}",
        layouts=("old/{asset_id}/{filename}", DEFAULT_LAYOUT),
    )
    facts = assembled(
        [an_asset("a1"), an_asset("b1"), an_asset("c1")], objects, project=Settings(stores=(store,))
    )
    assert set(facts.copies) == {("a1", "vault"), ("b1", "vault"), ("c1", "vault")}
    assert facts.listings["vault"]["strays"] == 1


def in_uploads(id: str = "a1", key: str = "beam/a.mp4", **facts: Any) -> Row:
    return an_asset(id, path=f"s3://acme-raw/rec/{key}", type="room-composite", **facts)


@pytest.mark.parametrize("told", [5, "5", 0, None, "big", 6, 4])
def test_what_100ms_uploaded_is_complete_whatever_size_the_record_gives(told: Any) -> None:
    """Issue 13: a whole object in our own bucket is never lost for what a record says of it."""
    complete = True
    copy = assembled([in_uploads(size=told)], [an_object("beam/a.mp4", "uploads")]).copies[
        "a1", "uploads"
    ]
    assert (copy["complete"], copy["bytes"], copy["objects"]) == (
        complete,
        5,
        [{"key": "beam/a.mp4", "size": 5, "version": "v1", "complete": complete}],
    )


def test_an_empty_object_is_complete_where_its_record_names_no_size() -> None:
    """Issue 13: empty files are what they are."""
    objects = [an_object("beam/a.mp4", "uploads", size=0), an_object(KEY.format("b1"), size=0)]
    copies = assembled(
        [in_uploads(size=0), an_asset("b1", size=0)],
        objects,
        [an_entry("b1", object_size=0, size=None)],
    ).copies
    assert {key: copy["complete"] for key, copy in copies.items()} == {
        ("a1", "uploads"): True,
        ("b1", "vault"): True,
    }
    told = assembled([in_uploads(size=5)], objects[:1]).copies
    assert not told["a1", "uploads"]["complete"]


@pytest.mark.parametrize("told, complete", [(4, True), (5, True), (6, False), (None, True)])
def test_a_copy_smaller_than_the_record_says_is_not_complete(told: Any, complete: bool) -> None:
    assert (
        assembled([an_asset(size=told)], [an_object(KEY.format("a1"))], [an_entry()]).copies[
            "a1", "vault"
        ]["complete"]
        is complete
    )


@pytest.mark.parametrize("finished", [True, False])
def test_while_a_list_of_assets_is_unfinished_another_owner_of_an_upload_may_be_unseen(
    finished: bool,
) -> None:
    listings = [
        a_listing("vault"),
        a_listing("uploads"),
        a_listing("100ms chat", "assets"),
        a_listing("100ms track", "assets", complete=finished),
    ]
    copies = assembled(
        [in_uploads(), an_asset("b1")],
        [an_object("beam/a.mp4", "uploads"), an_object(KEY.format("b1"))],
        listings=listings,
    ).copies
    assert {store: copy["owners_known"] for (_, store), copy in copies.items()} == {
        "uploads": finished,
        "vault": True,
    }


def test_what_100ms_did_not_upload_is_no_copy() -> None:
    facts = assembled(
        [in_uploads()], [an_object("beam/b.mp4", "uploads"), an_object("beam/a.mp4", "vault")]
    )
    assert facts.copies == {}
    assert facts.listings["uploads"]["strays"] == 1


def test_a_path_in_another_bucket_or_prefix_is_no_copy_in_uploads() -> None:
    paths = [
        "s3://acme-raw/recordings/x",
        "s3://acme-raw/x",
        "gs://acme-raw/rec/x",
        "s3://acme-raw2/rec/x",
        "x",
        "",
    ]
    assert (
        assembled(
            [an_asset(f"a{n}", path=path) for n, path in enumerate(paths)],
            [an_object("x", "uploads")],
        ).copies
        == {}
    )


def test_a_key_that_two_assets_name_is_shared_by_both() -> None:
    objects = [an_object("beam/a.mp4", "uploads"), an_object("beam/b.mp4", "uploads")]
    facts = assembled(
        [in_uploads("a1"), in_uploads("a2", size=6), in_uploads("b1", key="beam/b.mp4")], objects
    )
    assert {id: copy["shared"] for (id, _), copy in facts.copies.items()} == {
        "a1": "beam/a.mp4",
        "a2": "beam/a.mp4",
        "b1": None,
    }
    assert {id: copy["complete"] for (id, _), copy in facts.copies.items()} == {
        "a1": True,
        "a2": True,
        "b1": True,
    }
    assert facts.listings["uploads"]["strays"] == 0


def test_a_key_that_a_remembered_asset_names_too_is_shared() -> None:
    facts = assembled(
        [in_uploads("a1")],
        [an_object("beam/a.mp4", "uploads")],
        [an_entry("a2", path="s3://acme-raw/rec/beam/a.mp4")],
    )
    assert {id: copy["shared"] for (id, _), copy in facts.copies.items()} == {
        "a1": "beam/a.mp4",
        "a2": "beam/a.mp4",
    }


@pytest.mark.parametrize(
    "facts, many",
    [
        ({"type": "room-vod", "path": "s3://acme-raw/rec/vod/a.zip"}, False),
        ({"type": "room-vod", "path": "s3://acme-raw/rec/vod/A.ZIP"}, False),
        ({"type": "room-vod", "path": "s3://acme-raw/rec/vod/master.m3u8"}, True),
        ({"type": "room-vod", "path": None}, True),
        (
            {"type": "room-vod", "path": "s3://acme-raw/rec/vod/a.zip", "thumbnails": ["t.jpg"]},
            True,
        ),
        ({"type": "chat", "path": None}, False),
        ({"type": "room-composite", "thumbnails": ["t.jpg"]}, True),
        ({"type": "whiteboard"}, False),
    ],
)
def test_unzipped_hls_and_thumbnails_are_many_objects(facts: Row, many: bool) -> None:
    assert assembled([an_asset(**facts)]).assets["a1"]["many"] is many


@pytest.mark.parametrize("type", [None, 7])
def test_of_an_asset_of_unknown_type_everything_is_still_said_with_yes_or_no(type: Any) -> None:
    facts = assembled(
        [an_asset(type=type), in_uploads("b1") | {"type": type}],
        [an_object(KEY.format("a1")), an_object("beam/a.mp4", "uploads")],
        [an_entry()],
    )
    assert [row["many"] for row in facts.assets.values()].count(None) == 0
    assert [copy["complete"] for copy in facts.copies.values()].count(None) == 0


VOD = {"type": "room-vod", "path": "s3://acme-raw/rec/hls/1709/master.m3u8", "size": None}
FOLDER = "room-vod/2026/11/20/r1/a1/"


def placed(facts: Facts, store: str, id: str = "a1") -> tuple[bool, list[str]]:
    """Whether a copy is complete, and its objects in the order in which they would be deleted."""
    copy = facts.copies[id, store]
    return copy["complete"], [each["key"] for each in copy["objects"]]


def test_an_unzipped_recording_in_an_upload_bucket_is_the_folder_beside_its_path_and_no_neighbour_with_a_longer_name() -> (
    None
):
    keys = [
        "hls/1709/0/seg.ts",
        "hls/1709/0/index.m3u8",
        "hls/1709/master.m3u8",
        "hls/17091/master.m3u8",
        "hls/170",
        "hls/1709.txt",
        "seg.ts",
    ]
    facts = assembled([an_asset(**VOD)], [an_object(key, "uploads") for key in keys])
    assert placed(facts, "uploads") == (
        True,
        ["hls/1709/master.m3u8", "hls/1709/0/index.m3u8", "hls/1709/0/seg.ts"],
    )
    assert facts.copies["a1", "uploads"]["folder"] == "hls/1709/"
    assert facts.listings["uploads"]["strays"] == 4


def test_a_master_playlist_alone_is_no_complete_recording() -> None:
    facts = assembled(
        [an_asset(**VOD)],
        [
            an_object("hls/1709/master.m3u8", "uploads"),
            an_object("hls/1709/empty", "uploads", size=0),
        ],
    )
    assert placed(facts, "uploads")[0] is False


def test_a_recording_at_the_root_of_an_upload_bucket_does_not_own_the_bucket() -> None:
    asset = an_asset(**VOD | {"path": "s3://acme-raw/rec/master.m3u8"})
    facts = assembled(
        [asset], [an_object(key, "uploads") for key in ("master.m3u8", "seg.ts", "a/b.ts")]
    )
    assert placed(facts, "uploads") == (False, ["master.m3u8"])


def test_what_is_another_recordings_own_path_is_not_taken_along() -> None:
    other = an_asset("b1", path="s3://acme-raw/rec/hls/1709/chat.csv")
    facts = assembled(
        [an_asset(**VOD), other],
        [an_object(f"hls/1709/{name}", "uploads") for name in ("master.m3u8", "0.ts", "chat.csv")],
    )
    assert placed(facts, "uploads") == (True, ["hls/1709/master.m3u8", "hls/1709/0.ts"])
    assert (placed(facts, "uploads", "b1"), facts.copies["b1", "uploads"]["shared"]) == (
        (True, ["hls/1709/chat.csv"]),
        None,
    )


def test_thumbnails_belong_to_a_recording_also_where_it_is_zipped() -> None:
    faces = [f"s3://acme-raw/rec/hls/faces/{number}.jpg" for number in (1, 2)]
    asset = an_asset(
        **VOD | {"path": "s3://acme-raw/rec/hls/1709/a.zip", "thumbnails": faces, "size": 5}
    )
    facts = assembled(
        [asset],
        [
            an_object(key, "uploads")
            for key in ("hls/faces/1.jpg", "hls/faces/2.jpg", "hls/1709/a.zip", "hls/1709/x")
        ],
    )
    assert placed(facts, "uploads") == (
        True,
        ["hls/1709/a.zip", "hls/faces/1.jpg", "hls/faces/2.jpg"],
    )


def test_recordings_that_share_an_object_also_by_way_of_others_are_bound_together() -> None:
    def sharing(id: str, *faces: int) -> Row:
        paths = [f"s3://acme-raw/rec/faces/{face}.jpg" for face in faces]
        return an_asset(id, **VOD | {"path": f"s3://acme-raw/rec/{id}.zip", "thumbnails": paths})

    objects = [
        an_object(key, "uploads")
        for key in (
            "a1.zip",
            "b1.zip",
            "c1.zip",
            "d1.zip",
            *(f"faces/{face}.jpg" for face in range(1, 5)),
        )
    ]
    facts = assembled(
        [sharing("a1", 1), sharing("b1", 1, 2), sharing("c1", 2, 3), sharing("d1", 4)], objects
    )
    assert [facts.copies[id, "uploads"]["shared"] for id in ("a1", "b1", "c1", "d1")] == [
        "faces/1.jpg"
    ] * 3 + [None]


def test_of_two_recordings_in_one_folder_and_of_nested_ones_all_are_bound_together() -> None:
    inner = an_asset("b1", **VOD | {"path": "s3://acme-raw/rec/hls/1709/in/master.m3u8"})
    facts = assembled(
        [an_asset(**VOD), inner],
        [
            an_object(f"hls/1709/{name}", "uploads")
            for name in ("master.m3u8", "in/master.m3u8", "in/0.ts")
        ],
    )
    assert placed(facts, "uploads") == (True, ["hls/1709/master.m3u8", "hls/1709/in/0.ts"])
    assert placed(facts, "uploads", "b1") == (True, ["hls/1709/in/master.m3u8", "hls/1709/in/0.ts"])
    assert (
        facts.copies["a1", "uploads"]["shared"]
        == facts.copies["b1", "uploads"]["shared"]
        == "hls/1709/in/0.ts"
    )


MEMBERS = ("master.m3u8", "0/index.m3u8", "0/seg.ts", "manifest.json")


def a_copied_folder(**changed: Any) -> list[Row]:
    """Catalog entries of a copy of many objects."""
    mark = {"manifest": f"{FOLDER}manifest.json", "manifest_crc32c": "AAAAAA=="}
    facts = {name: value for name, value in (read_asset(an_asset(**VOD))[0] or {}).items()}
    entries = [
        an_entry("a1", **dict.fromkeys(facts), **mark) | {"asset_id": "a1", "key": FOLDER + name}
        for name in MEMBERS[:-1]
    ]
    return [
        *entries,
        an_entry("a1", **facts, **mark) | {"key": mark["manifest"], "members": 3} | changed,
    ]


@pytest.mark.parametrize(
    "missing, changed, complete",
    [
        (None, {}, True),
        *((name, {}, False) for name in MEMBERS),
        (None, {"members": 4}, False),
        (None, {"version": "v0"}, False),
    ],
)
def test_a_copy_of_many_objects_is_complete_with_its_manifest_and_all_that_it_lists(
    missing: str | None, changed: Row, complete: bool
) -> None:
    objects = [an_object(FOLDER + name) for name in MEMBERS if name != missing]
    facts = assembled([an_asset(**VOD)], objects, a_copied_folder(**changed))
    assert placed(facts, "vault") == (
        complete,
        [FOLDER + name for name in MEMBERS if name != missing],
    )
    assert facts.copies["a1", "vault"]["folder"] == (FOLDER if complete else None)
    assert all(each["complete"] is complete for each in facts.copies["a1", "vault"]["objects"])


def test_what_nobody_has_catalogued_in_a_recordings_folder_belongs_to_it_and_is_partial() -> None:
    facts = assembled(
        [an_asset(**VOD)],
        [an_object(FOLDER + name) for name in ("0/1/2/seg.ts", "master.m3u8", "manifest.json")],
    )
    assert placed(facts, "vault") == (
        False,
        [FOLDER + name for name in ("master.m3u8", "0/1/2/seg.ts", "manifest.json")],
    )


def test_a_member_of_an_older_manifest_does_not_make_the_newer_one_whole() -> None:
    entries = a_copied_folder()
    entries[0]["manifest_crc32c"] = "BBBBBB=="
    assert (
        placed(
            assembled([an_asset(**VOD)], [an_object(FOLDER + name) for name in MEMBERS], entries),
            "vault",
        )[0]
        is False
    )


def test_one_file_alone_is_no_copy_of_playlists_and_segments_but_thumbnails_may_appear_after_the_copy() -> (
    None
):
    assets = [an_asset("b1", **VOD), an_asset("c1", thumbnails=["t"])]
    copies = assembled(
        assets, [an_object(KEY.format(id)) for id in ("b1", "c1")], [an_entry("b1"), an_entry("c1")]
    ).copies
    assert (copies["b1", "vault"]["complete"], copies["c1", "vault"]["complete"]) == (False, True)


@pytest.mark.parametrize(
    "name",
    [
        "file-recording/Rec-6544d1e2f3a4b5c6d7e8f901-1704153600-0.mp4",
        "vod/Rec-6544d1e2f3a4b5c6d7e8f901-1704153600.zip",
        "6544d1e2-f3a4-45c6-87e8-f90100000000.webm",
    ],
)
def test_what_is_named_like_a_recording_of_its_own_is_not_taken_along(name: str) -> None:
    keys = ["hls/1709/master.m3u8", "hls/1709/0.ts", f"hls/1709/{name}"]
    assert placed(
        assembled([an_asset(**VOD)], [an_object(key, "uploads") for key in keys]), "uploads"
    ) == (True, keys[:2])


@pytest.mark.parametrize("path", ["beam/day/Rec-1.mp4", "beam/day/Rec-1.zip?x=y", "beam/day/Rec-1"])
def test_a_vod_whose_path_names_no_playlist_claims_no_folder(path: str) -> None:
    asset = an_asset(**VOD | {"path": f"s3://acme-raw/rec/{path}"})
    facts = assembled([asset], [an_object(key, "uploads") for key in (path, "beam/day/other.ts")])
    assert [each["key"] for each in facts.copies["a1", "uploads"]["objects"]] == [path]


def test_a_playlist_of_a_type_that_nobody_knew_of_is_many_objects() -> None:
    assert assembled([an_asset(**VOD | {"type": "room-vod-v2"})]).assets["a1"]["many"] is True


def test_an_inferred_recording_gives_way_to_the_one_that_100ms_names() -> None:
    path = "s3://acme-raw/rec/beam/a.mp4"
    entry = an_entry("inferred-1", store="uploads", key="beam/a.mp4", path=path, inferred="path")
    facts = assembled([in_uploads("b1")], [an_object("beam/a.mp4", "uploads")], [entry])
    assert (
        set(facts.copies) == {("b1", "uploads")} and facts.copies["b1", "uploads"]["shared"] is None
    )


def test_a_recording_of_many_objects_is_remembered_by_its_manifest() -> None:
    facts = assembled([], [an_object(FOLDER + name) for name in MEMBERS], a_copied_folder())
    assert placed(facts, "vault")[0] is True
    assert (
        facts.assets["a1"]["type"],
        facts.assets["a1"]["many"],
        facts.assets["a1"]["known_by"],
    ) == ("room-vod", True, "catalog")


# ── Where it lies ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    connection = connect()
    yield connection
    connection.close()


def asked(database: duckdb.DuckDBPyConnection, sql: str, rows: Sequence[Row]) -> list[Any]:
    """What SQL over these rows (all with the same columns, all text) gives, in their order."""
    columns = list(rows[0])
    unnested = ", ".join(f'unnest(?::VARCHAR[]) AS "{name}"' for name in columns)
    values = [[row[name] for row in rows] for name in columns]
    return [
        row[0]
        for row in database.execute(f"SELECT {sql} FROM (SELECT {unnested})", values).fetchall()
    ]


LAYOUTS = [
    DEFAULT_LAYOUT,
    "{asset_id}",
    "{asset_id}/{filename}",
    "{type}/{asset_id}/{filename}",
    "a.b+(c)[d]^$|*?/{asset_id}",
    "it's/{room_id}/{session_id}/{asset_id}",
    "{yyyy}-{mm}-{dd}/{asset_id}/x.bin",
    "x y/{asset_id}/{asset_id}",
    "aufnahmen-ü/{asset_id}",
    "with\\backslash/{asset_id}",
]
TEXTS = st.one_of(
    st.none(),
    st.text(max_size=12),
    st.sampled_from(
        ["..", ".", "/", "%2F", "a/b", "a.b", "", "room-composite", "s3://b/a/Rec-1.mp4?x=/y"]
    ),
)
IDS = st.one_of(
    st.text(min_size=1, max_size=200),
    st.text(alphabet="ab/.%-_~? '\\{}", min_size=1, max_size=10),
    st.sampled_from(
        [
            "65f0aa11bb22cc33dd44ee55",
            "..",
            ".",
            "%2F",
            "%",
            "a/b",
            "%252F",
            "ü",
            "😀",
            " ",
            "manifest.json",
            "_retainer",
        ]
    ),
)
PLACED = st.fixed_dictionaries(
    {
        "asset_id": IDS,
        "type": TEXTS,
        "room_id": TEXTS,
        "session_id": TEXTS,
        "path": TEXTS,
        "created": st.sampled_from([None, "2026-01-31 23:59:59.999999", "2015-01-01 00:00:00"]),
        "many": st.just(False),
    }
)


@given(st.lists(PLACED, min_size=1, max_size=25))
@example(
    [
        {
            "asset_id": "a-b",
            "type": "x/y",
            "room_id": "..",
            "session_id": "%",
            "path": "s3://b/../..",
            "created": None,
            "many": False,
        }
    ]
)
@settings(max_examples=25)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_key_is_read_back_as_the_asset_that_it_was_made_for(
    database: duckdb.DuckDBPyConnection, layout: str, rows: list[Row]
) -> None:
    store = Store("vault", "s3://acme-vault", layout=layout)
    keys = asked(database, key_sql(store).replace("created", "created::TIMESTAMP"), rows)
    assert asked(database, f"{assets_of_key_sql(store)}[1]", [{"key": key} for key in keys]) == [
        row["asset_id"] for row in rows
    ]
    for key in keys:
        assert key
        assert not key.startswith("/")
        assert not any(piece in ("", ".", "..") for piece in key.split("/"))


@pytest.mark.parametrize(
    "layout", ["{asset_id}-{filename}", "{type}-{asset_id}", "{room_id}_{asset_id}"]
)
def test_a_key_is_read_back_also_where_the_id_has_no_folder_of_its_own(
    database: duckdb.DuckDBPyConnection, layout: str
) -> None:
    store = Store("vault", "s3://acme-vault", layout=layout)
    ids = ["65f0aa11bb22cc33dd44ee55", "3f2504e0-4f89-11d3-9a0c-0305e82c3301", "a_b"]
    usual = {
        "type": "room-composite",
        "room_id": "r_1",
        "session_id": "s1",
        "path": "s3://b/Rec-1.mp4",
        "created": None,
        "many": False,
    }
    rows = [{"asset_id": id, **usual} for id in ids]
    keys = asked(database, key_sql(store).replace("created", "created::TIMESTAMP"), rows)
    assert asked(database, f"{assets_of_key_sql(store)}[1]", [{"key": key} for key in keys]) == ids


@pytest.mark.parametrize(
    "facts, key",
    [
        ({}, "room-composite/2026/01/02/r1/a1/Rec-1.mp4"),
        ({"created": None}, "room-composite/undated/00/00/r1/a1/Rec-1.mp4"),
        ({"room_id": None}, "room-composite/2026/01/02/no-room/a1/Rec-1.mp4"),
        ({"room_id": "///"}, "room-composite/2026/01/02/_/a1/Rec-1.mp4"),
        ({"room_id": "a/../b"}, "room-composite/2026/01/02/a_.._b/a1/Rec-1.mp4"),
        ({"type": None}, "untyped/2026/01/02/r1/a1/Rec-1.mp4"),
        ({"path": None}, "room-composite/2026/01/02/r1/a1/a1.mp4"),
        ({"path": None, "type": "chat"}, "chat/2026/01/02/r1/a1/a1.csv"),
        ({"path": None, "type": "whiteboard"}, "whiteboard/2026/01/02/r1/a1/a1"),
        ({"path": "s3://b/x/"}, "room-composite/2026/01/02/r1/a1/a1.mp4"),
        ({"path": "s3://b/Rec-1.mp4?sig=a/b"}, "room-composite/2026/01/02/r1/a1/Rec-1.mp4"),
        ({"path": "s3://b/.hidden.mp4"}, "room-composite/2026/01/02/r1/a1/hidden.mp4"),
        ({"path": "s3://b/Grüße 1.mp4"}, "room-composite/2026/01/02/r1/a1/Gr_e_1.mp4"),
        ({"asset_id": "a/b.c"}, "room-composite/2026/01/02/r1/a%2Fb%2Ec/Rec-1.mp4"),
        ({"many": True}, "room-composite/2026/01/02/r1/a1/"),
    ],
)
def test_the_key_of_a_copy_says_what_it_is_of(
    database: duckdb.DuckDBPyConnection, facts: Row, key: str
) -> None:
    usual = {
        "asset_id": "a1",
        "type": "room-composite",
        "room_id": "r1",
        "session_id": "s1",
        "path": "s3://b/x/Rec-1.mp4",
        "created": "2026-01-02",
        "many": False,
    }
    assert asked(
        database, key_sql(VAULT).replace("created", "created::TIMESTAMP"), [usual | facts]
    ) == [key]


@pytest.mark.parametrize("key", ["notes.txt", "chat/2026/01/02/r1/a1", "chat/2026/01/02/r1//x"])
def test_a_key_that_no_layout_makes_is_nobodys(
    database: duckdb.DuckDBPyConnection, key: str
) -> None:
    assert set(asked(database, assets_of_key_sql(VAULT), [{"key": key}])[0]) == {None}


@pytest.mark.parametrize(
    "layout",
    ["{type}/{room_id}/{asset_id}/{filename}", "{asset_id}-{filename}", "{type}/{asset_id}"],
)
def test_a_member_is_read_back_as_the_asset_whose_folder_it_is_in(
    database: duckdb.DuckDBPyConnection, layout: str
) -> None:
    store = Store("vault", "s3://acme-vault", layout=layout)
    row = {
        "asset_id": "a1",
        "type": "room-vod",
        "room_id": "r1",
        "session_id": "s1",
        "path": "s3://b/m.m3u8",
        "created": None,
        "many": True,
    }
    (folder,) = asked(database, key_sql(store).replace("created", "created::TIMESTAMP"), [row])
    assert folder.endswith("/")
    for name in ("master.m3u8", "layer-0/seg 1.ts", "a/b/c/d/e"):
        assert "a1" in asked(database, assets_of_key_sql(store), [{"key": folder + name}])[0]


def test_the_regex_of_a_layout_takes_its_letters_literally() -> None:
    assert layout_regex("a.b/{asset_id}") == r"^a\.b/([^/._-]+)$"


@pytest.mark.parametrize(
    "path, place",
    [
        ("s3://acme-raw/rec/beam/a.mp4", None),
        ("s3://acme-raw/record/a.mp4", "elsewhere"),
        ("s3://acme-raw/a.mp4", "elsewhere"),
        ("s3://hms-prod-eu/x/a.mp4", "hosted"),
        ("s3://hms-prod-/a.mp4", "hosted"),
        ("s3://hms-prod-eu", "hosted"),
        ("gs://hms-prod-eu/x", "elsewhere"),
        ("s3://not-hms-prod-eu/x", "elsewhere"),
        ("s3://acme-other/hms-prod-eu", "elsewhere"),
        ("oss://bucket/x", "elsewhere"),
        ("azure://bucket/x", "elsewhere"),
        ("a.mp4", "elsewhere"),
        ("", "elsewhere"),
        (None, "elsewhere"),
        ("s3:///x", "elsewhere"),
    ],
)
def test_a_path_lies_hosted_declared_or_elsewhere(
    database: duckdb.DuckDBPyConnection, path: str | None, place: str | None
) -> None:
    assert asked(database, place_sql(PROJECT), [{"path": path}]) == [place]


@pytest.mark.parametrize(
    "hosted, path, place",
    [
        ("s3://hms-?", "s3://hms-a/x", "hosted"),
        ("s3://hms-?", "s3://hms-ab/x", "elsewhere"),
        ("s3://hms-[ab]", "s3://hms-a/x", "hosted"),
        ("s3://hms-[!a]", "s3://hms-a/x", "elsewhere"),
        ("s3://hms/", "s3://hms/x", "hosted"),
        ("s3://it's", "s3://it's/x", "hosted"),
        ("gs://*", "gs://any/x", "hosted"),
        ("s3://HMS", "s3://hms/x", "elsewhere"),
    ],
)
def test_a_hosted_bucket_is_named_by_a_shell_pattern(
    database: duckdb.DuckDBPyConnection, hosted: str, path: str, place: str
) -> None:
    assert asked(
        database, place_sql(Settings(source=Source(hosted=(hosted,)))), [{"path": path}]
    ) == [place]


def test_nothing_declared_means_that_everything_lies_elsewhere(
    database: duckdb.DuckDBPyConnection,
) -> None:
    assert asked(
        database, place_sql(Settings()), [{"path": "s3://hms-prod-eu/x"}, {"path": None}]
    ) == ["elsewhere", "elsewhere"]


# ── Asking for it all ─────────────────────────────────────────────────────────────────────────────


@dataclass
class FakeRecordings:
    """100ms in memory. An exception in a list is raised when it is reached."""

    lists: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    room_list: Sequence[Any] = ()
    first: Sequence[Any] | Exception = ()
    asked: list[str] = field(default_factory=list)
    workspace: str | None = None
    honours: bool | Exception = True
    by_id: Mapping[str, Any] = field(default_factory=dict)

    @property
    def whose(self) -> str:
        return "ours"

    def assets(self, kind: str | None, start: str | None = None) -> Iterator[AssetPage]:
        self.asked.append(kind or "all")
        for row in raising(self.lists.get(kind or "all", ())):
            yield AssetPage(None, [row])

    def honours_type(self, kind: str) -> bool:
        if isinstance(self.honours, Exception):
            raise self.honours
        return self.honours

    def room(self, room_id: str) -> Any:
        return self.by_id.get(room_id)

    def template(self, template_id: str) -> Any:
        return self.by_id.get(template_id)

    def first_page(self) -> Sequence[Any]:
        if isinstance(self.first, Exception):
            raise self.first
        return self.first

    def rooms(self, *, enabled: bool) -> Iterator[Any]:
        self.asked.append("rooms")
        return raising(
            [
                room
                for room in self.room_list
                if not isinstance(room, dict) or room.get("enabled", True) == enabled
            ]
        )

    def customer(self) -> str | None:
        return self.workspace

    def server_time(self) -> datetime:
        return NOW


@dataclass
class FakeReader:
    """A store in memory: keys and their bytes, and what its listings raise at their end."""

    name: str = "vault"
    content: dict[str, bytes] = field(default_factory=dict)
    locks: bool | Exception = False
    breaks: Exception | None = None
    catalog_breaks: Exception | None = None
    reading: Exception | None = None
    locked_until: datetime | None = None
    reads: int = 0

    def list(self, under: str = "") -> Iterator[Seen]:
        for key, content in sorted(self.content.items()):
            if key.startswith(under or "") and (under or not key.startswith("_retainer/")):
                yield Seen(key, len(content), "v1", locked_until=self.locked_until)
        if broken := self.catalog_breaks if under else self.breaks:
            raise broken

    def list_at_once(self, bounds: Sequence[str], known: Sequence[Stretch] = ()) -> Generator[Seen]:
        yield from self.list()

    def can_lock(self) -> bool:
        if isinstance(self.locks, Exception):
            raise self.locks
        return self.locks

    def keeps_deleted(self) -> str | None:
        return None

    def keeps_removed(self) -> str | None:
        return None

    def versions(self, under: str) -> Iterator[Version]:
        return iter(())

    def lifecycle(self) -> tuple[LifecycleRule, ...] | None:
        return None

    def look(self, key: str) -> Look | None:
        assert key.startswith("_retainer/"), "nothing is looked at one by one here"
        return Look(Seen(key, len(self.content[key]), "v1")) if key in self.content else None

    def unfinished(self) -> Sequence[str]:
        return ()

    def whole(self, key: str, most: int) -> tuple[Look, bytes] | None:
        return looked_and_read(self, key, most)

    def read(self, seen: Seen) -> Iterator[bytes]:
        self.reads += 1
        if self.reading:
            raise self.reading
        yield self.content[seen.key]

    def server_time(self) -> datetime:
        return NOW


def raising(rows: Iterable[Any]) -> Iterator[Any]:
    for row in rows:
        if isinstance(row, Exception):
            raise row
        yield row


def a_part(*entries: Row, folder: Path, now: datetime = NOW) -> tuple[str, bytes]:
    """A part of a catalog: its key in the store, and its bytes."""
    connection, file = connect(), folder / "part.parquet"
    connection.execute(
        f"CREATE TABLE part ({', '.join(f'{name} {kind}' for name, kind in CATALOG.items())})"
    )
    fill(connection, "part", CATALOG, entries)
    connection.execute(f"COPY part TO '{file}' (FORMAT parquet, COMPRESSION uncompressed)")
    connection.close()
    return CATALOG_PREFIX + part_name(file.read_bytes(), now), file.read_bytes()


@dataclass
class Gathered:
    facts: Facts
    listings: dict[str, Listing]


Gather = Callable[..., Gathered]


@pytest.fixture
def gather(tmp_path: Path) -> Gather:
    """Collect from these fakes, with a clock that goes on by a second at every look."""

    def gatherer(
        recordings: FakeRecordings | None = None,
        *readers: FakeReader,
        rooms: bool = True,
        project: Settings = PROJECT,
        **options: Any,
    ) -> Gathered:
        connection, seconds = connect(), iter(range(10**6))
        try:
            listings = collect(
                connection,
                project,
                recordings or FakeRecordings(),
                readers,
                rooms_asked=rooms,
                cache=tmp_path / "cache",
                clock=lambda: NOW + timedelta(seconds=next(seconds)),
                **options,
            )
            return Gathered(Facts.of(connection), {each.name: each for each in listings})
        finally:
            connection.close()

    return gatherer


def told(gathered: Gathered) -> str:
    return " ".join(row["note"] or "" for row in gathered.facts.listings.values())


def test_every_type_and_every_store_and_the_rooms_are_asked(gather: Gather) -> None:
    recordings = FakeRecordings(
        {"chat": [an_asset()]}, [{"id": "r1", "name": "sales-1", "template": "default"}]
    )
    found = gather(
        recordings, FakeReader("vault", {KEY.format("a1"): b"12345"}), FakeReader("uploads")
    )
    assert set(recordings.asked) == {*ASSET_TYPES, "all", "rooms"}
    assert set(found.facts.listings) == {
        *(f"100ms {kind}" for kind in ASSET_TYPES),
        "100ms types",
        "100ms rooms",
        "vault",
        "uploads",
    }
    assert all(row["complete"] and row["note"] is None for row in found.facts.listings.values())
    assert (found.facts.assets["a1"]["room"], found.facts.copies["a1", "vault"]["bytes"]) == (
        "sales-1",
        5,
    )
    assert (found.facts.listings["vault"]["objects"], found.facts.listings["vault"]["bytes"]) == (
        1,
        5,
    )


def test_rooms_are_not_asked_for_when_nobody_looks_at_their_names(gather: Gather) -> None:
    recordings = FakeRecordings({"chat": [an_asset()]})
    found = gather(recordings, rooms=False)
    assert "rooms" not in recordings.asked
    assert set(found.facts.assets["a1"]["not_known"]) == {"room", "template", "template_id"}


def test_a_listing_tells_when_it_began_and_ended(gather: Gather) -> None:
    row = gather(FakeRecordings(), FakeReader()).facts.listings["vault"]
    assert NOW.replace(tzinfo=None) <= row["started_at"] < row["finished_at"]


def test_a_type_that_the_first_page_shows_is_asked_for_and_told(gather: Gather) -> None:
    first = [an_asset(type=kind) for kind in ("whiteboard", "chat", None, 7, "")]
    recordings = FakeRecordings({"whiteboard": [an_asset(type="whiteboard")]}, first=first)
    found = gather(recordings)
    assert set(recordings.asked) == {*ASSET_TYPES, "whiteboard", "all", "rooms"}
    assert found.facts.assets["a1"]["type"] == "whiteboard"
    assert "whiteboard" in told(found)


def test_a_list_of_all_types_that_breaks_leaves_nothing_settled(
    gather: Gather, tmp_path: Path
) -> None:
    key, part = a_part(an_entry("forgotten"), folder=tmp_path)
    recordings = FakeRecordings({"chat": [an_asset("a1")], "all": [ListingBroken("no list")]})
    found = gather(recordings, FakeReader("vault", {key: part}))
    row = found.facts.listings["100ms types"]
    assert (row["kind"], row["complete"]) == ("assets", False)
    assert "no list" in row["note"]
    assert {id: row["settled"] for id, row in found.facts.assets.items()} == {
        "a1": True,
        "forgotten": False,
    }


@pytest.mark.parametrize("error", [ListingBroken("no list"), SourceFailed("no list")])
def test_a_first_page_that_cannot_be_read_leaves_the_lists_of_known_types(
    gather: Gather, error: Exception
) -> None:
    recordings = FakeRecordings(
        {"chat": [an_asset("a1")], "all": [an_asset("b1", type="x-new")]}, first=error
    )
    found = gather(recordings)
    assert set(recordings.asked) == {*ASSET_TYPES, "all", "rooms"}
    assert set(found.facts.assets) == {"a1", "b1"}


def test_a_type_beyond_the_first_page_is_seen_counted_and_told(gather: Gather) -> None:
    rows = [an_asset("a1"), an_asset("b1", type="caption"), an_asset("b2", type="caption")]
    found = gather(FakeRecordings({"chat": rows[:1], "all": [*rows, an_asset("c1", type=None)]}))
    assert set(found.facts.assets) == {"a1", "b1", "b2", "c1"}
    assert found.facts.listings["100ms types"]["objects"] == 3
    assert "does not know: caption (2)" in told(found)


def test_a_filter_that_gives_others_or_leaves_out_its_own_loses_nothing(gather: Gather) -> None:
    short, long = (
        an_asset("a1", type="room-composite"),
        an_asset("b1", type="room-composite-legacy"),
    )
    left_out, bad = an_asset("c1", type="track"), an_asset("d1", type="chat", session_id=5)
    found = gather(
        FakeRecordings(
            {
                "room-composite": [short, long],
                "room-composite-legacy": [long],
                "chat": [bad],
                "all": [short | {"status": "processing"}, long, left_out, bad],
            }
        )
    )
    assert set(found.facts.assets) == {"a1", "b1", "c1", "d1"}
    assert all(row["complete"] for row in found.facts.listings.values())
    assert found.facts.assets["a1"]["status"] == "completed"
    assert found.facts.listings["100ms types"]["objects"] == 1
    assert told(found).count("its session_id is of the wrong kind") == 1


@pytest.mark.parametrize("honours", [False, SourceFailed("it answered 400")])
def test_where_the_type_is_passed_over_or_refused_everything_is_listed_once(
    gather: Gather, honours: bool | Exception
) -> None:
    recordings = FakeRecordings(
        {"all": [an_asset("a1"), an_asset("b1", type="track")]}, honours=honours
    )
    found = gather(recordings)
    assert sorted(recordings.asked) == ["all", "rooms", "rooms"]
    assert set(found.facts.assets) == {"a1", "b1"}
    assert found.facts.listings["100ms assets"]["complete"]


def test_rooms_that_the_list_does_not_show_are_looked_up(gather: Gather) -> None:
    rows = [an_asset(f"a{n}", room_id=f"r{n}") for n in range(4)]
    rooms = [
        {"id": "r0", "name": "open", "template": "t", "template_id": "t1"},
        {"id": "r1", "name": "closed", "template": "", "template_id": "t2", "enabled": False},
    ]
    by_id = {
        "r2": {"id": "r2", "name": "hidden", "template": "t", "template_id": "t1"},
        "t2": {"id": "t2", "name": "classroom"},
    }
    found = gather(FakeRecordings({"chat": rows}, rooms, by_id=by_id))
    assert [found.facts.assets[f"a{n}"]["room"] for n in range(4)] == [
        "open",
        "closed",
        "hidden",
        None,
    ]
    assert found.facts.assets["a1"]["template"] == "classroom"
    assert "does not tell the room of 1 listed recordings (different rooms: 1)" in told(found)


@pytest.mark.parametrize("type", [["chat"], {"a": 1}, "\ud800", True, 1.5])
def test_a_first_page_with_a_type_that_is_none_leaves_the_rest_alone(
    gather: Gather, type: Any
) -> None:
    found = gather(
        FakeRecordings(
            {"chat": [an_asset("a1")]}, first=[an_asset(type=type), an_asset(type="whiteboard")]
        )
    )
    assert "a1" in found.facts.assets
    assert "100ms whiteboard" in found.facts.listings


def test_an_asset_of_a_type_that_only_the_catalog_knows_is_settled_by_the_list_of_all(
    gather: Gather, tmp_path: Path
) -> None:
    key, part = a_part(an_entry(type="whiteboard"), folder=tmp_path)
    found = gather(FakeRecordings(), FakeReader("vault", {key: part}))
    assert found.facts.assets["a1"]["known_by"] == "catalog"
    assert found.facts.assets["a1"]["settled"] is True


def test_a_listing_that_breaks_is_unfinished_and_keeps_what_came(gather: Gather) -> None:
    found = gather(
        FakeRecordings(
            {
                "chat": [an_asset("a1"), an_asset("a2"), ListingBroken("it broke")],
                "track": [an_asset("b1", type="track")],
            }
        )
    )
    assert set(found.facts.assets) == {"a1", "a2", "b1"}
    row = found.facts.listings["100ms chat"]
    assert (row["complete"], row["objects"], row["note"]) == (False, 2, "it broke")
    assert row["finished_at"] is not None
    assert found.facts.listings["100ms track"]["complete"] is True


def test_a_store_whose_listing_breaks_is_unfinished_and_keeps_what_came(gather: Gather) -> None:
    broken = FakeReader("vault", {KEY.format("a1"): b"12345"}, breaks=ListingBroken("it broke"))
    found = gather(FakeRecordings({"chat": [an_asset("a1")]}), broken, FakeReader("uploads"))
    assert (found.facts.listings["vault"]["complete"], found.facts.listings["vault"]["note"]) == (
        False,
        "it broke",
    )
    assert ("a1", "vault") in found.facts.copies
    assert found.facts.listings["uploads"]["complete"] is True


def test_rooms_whose_listing_breaks_are_not_known(gather: Gather) -> None:
    assets = [an_asset("a1", room_id="r1"), an_asset("a2", room_id="r2")]
    found = gather(
        FakeRecordings(
            {"chat": assets},
            [
                {"id": "r1", "name": "x", "template": "y", "template_id": "t"},
                ListingBroken("it broke"),
            ],
        )
    )
    assert (found.facts.assets["a1"]["room"], found.facts.assets["a1"]["not_known"]) == ("x", None)
    assert set(found.facts.assets["a2"]["not_known"]) == {"room", "template", "template_id"}
    assert found.facts.listings["100ms rooms"]["complete"] is False


@pytest.mark.parametrize(
    "room",
    [
        {},
        {"id": 7, "name": "x"},
        {"id": "r1", "name": 7},
        {"id": "r1", "name": "x", "template": []},
        {"id": None},
    ],
)
def test_a_room_that_cannot_be_read_is_not_known(gather: Gather, room: Row) -> None:
    found = gather(FakeRecordings({"chat": [an_asset()]}, [room]))
    assert set(found.facts.assets["a1"]["not_known"]) == {"room", "template", "template_id"}
    assert found.listings["100ms rooms"].strays == 1


@pytest.mark.parametrize("row", [{}, an_asset(None), an_asset(7), an_asset("")])
def test_a_row_without_an_id_makes_its_listing_unfinished(gather: Gather, row: Row) -> None:
    found = gather(FakeRecordings({"chat": [an_asset("a1"), row, an_asset("a2")]}))
    assert set(found.facts.assets) == {"a1", "a2"}
    listing = found.facts.listings["100ms chat"]
    assert (listing["complete"], listing["objects"], listing["strays"]) == (False, 2, 1)
    assert "its id is not text" in listing["note"]
    assert all(
        each["complete"] for name, each in found.facts.listings.items() if name != "100ms chat"
    )


def test_a_row_that_is_partly_unreadable_is_told_and_leaves_its_listing_finished(
    gather: Gather,
) -> None:
    listing = gather(
        FakeRecordings({"chat": [an_asset("a1", path=7, created_at="soon")]})
    ).facts.listings["100ms chat"]
    assert (listing["complete"], listing["strays"]) == (True, 1)
    assert (
        listing["note"]
        == "asset a1: its path is of the wrong kind, its created_at is not a date with a zone"
    )


def test_a_thousand_unreadable_rows_are_counted_and_five_are_told(gather: Gather) -> None:
    listing = gather(
        FakeRecordings({"chat": [an_asset(f"a{n}", path=7) for n in range(1000)]})
    ).facts.listings["100ms chat"]
    assert (listing["strays"], listing["note"].count("asset ")) == (1000, 5)


def test_a_row_that_a_list_repeats_is_kept_once(gather: Gather) -> None:
    found = gather(
        FakeRecordings(
            {"chat": [an_asset("a1"), an_asset("a2"), an_asset("a1")], "track": [an_asset("a2")]}
        )
    )
    assert set(found.facts.assets) == {"a1", "a2"}


def test_which_of_two_rows_of_one_asset_counts_does_not_depend_on_their_order(
    gather: Gather,
) -> None:
    one, other = an_asset("a1", status="completed"), an_asset("a1", status="failed", path=None)
    assert (
        gather(FakeRecordings({"chat": [one, other]})).facts.assets
        == gather(FakeRecordings({"chat": [other, one]})).facts.assets
    )


@pytest.mark.parametrize("fact", ["id", "path", "created_at", "type"])
def test_a_row_of_text_that_is_no_unicode_leaves_the_others_alone(
    gather: Gather, fact: str
) -> None:
    """JSON can spell half a surrogate pair (`"\\ud800"`), and no table can hold it."""
    row = an_asset() | {fact: "a\ud800"}
    assert "a2" in gather(FakeRecordings({"chat": [row, an_asset("a2")]})).facts.assets


def test_a_key_that_is_no_unicode_leaves_the_others_alone(gather: Gather) -> None:
    """A file's name need not be UTF-8; Python then gives it with half a surrogate pair."""
    found = gather(
        FakeRecordings({"chat": [an_asset("a1")]}),
        FakeReader("vault", {KEY.format("a1"): b"12345", "x\udcff": b""}),
    )
    assert ("a1", "vault") in found.facts.copies


@pytest.mark.parametrize("metadata", [{"layer": float("nan")}, {"k": "\ud800"}, {"k": 10**400}])
def test_metadata_that_json_does_not_know_can_still_be_asked_about(
    gather: Gather, metadata: Row, tmp_path: Path
) -> None:
    kept = gather(FakeRecordings({"chat": [an_asset(metadata=metadata)]})).facts.assets["a1"][
        "metadata"
    ]
    with connect() as connection:
        assert connection.execute(
            "SELECT ? IS NULL OR json_extract_string(?, '/x') IS NULL", [kept, kept]
        ).fetchone() == (True,)


@pytest.mark.parametrize("where", ["assets", "rooms", "first page"])
def test_credentials_that_100ms_refuses_stop_everything(gather: Gather, where: str) -> None:
    refused = CredentialsRefused("no")
    recordings = FakeRecordings(
        {"chat": [refused] if where == "assets" else []},
        [refused] if where == "rooms" else [],
        refused if where == "first page" else [],
    )
    with pytest.raises(CredentialsRefused):
        gather(recordings, FakeReader())


@pytest.mark.parametrize("where", ["store", "catalog", "locks"])
def test_credentials_that_a_store_refuses_leave_the_others_alone(
    gather: Gather, where: str
) -> None:
    refused = CredentialsRefused("no")
    reader = FakeReader(locks=refused if where == "locks" else False)
    reader.breaks, reader.catalog_breaks = (
        refused if where == "store" else None,
        refused if where == "catalog" else None,
    )
    found = gather(FakeRecordings({"chat": [an_asset("a1")]}), reader, FakeReader("uploads"))
    assert [
        (found.facts.listings[name]["complete"], found.facts.listings[name]["refused"])
        for name in ("vault", "uploads")
    ] == [(False, True), (True, False)]


def test_progress_tells_every_row_of_every_listing(gather: Gather) -> None:
    seen: dict[str, int] = {}

    def progress(name: str, rows: int) -> None:
        seen[name] = seen.get(name, 0) + rows

    content = {KEY.format(f"a{n}"): b"" for n in range(130)}
    gather(
        FakeRecordings({"chat": [an_asset(f"a{n}") for n in range(250)]}),
        FakeReader("vault", content),
        progress=progress,
    )
    assert (seen["100ms chat"], seen["vault"], seen["100ms track"]) == (250, 130, 0)


# ── Locks ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("can, read", [(False, True), (True, False)])
def test_where_a_bucket_can_lock_a_listing_says_nothing_of_locks(
    gather: Gather, can: bool, read: bool
) -> None:
    found = gather(
        FakeRecordings({"chat": [an_asset()]}),
        FakeReader("vault", {KEY.format("a1"): b"12345"}, locks=can),
    )
    assert (
        found.facts.listings["vault"]["can_lock"],
        found.facts.copies["a1", "vault"]["lock_read"],
    ) == (can, read)


def test_where_nobody_can_say_whether_a_bucket_locks_its_locks_are_not_read(gather: Gather) -> None:
    reader = FakeReader(
        "vault", {KEY.format("a1"): b"12345"}, locks=StoreFailed("it did not answer")
    )
    found = gather(FakeRecordings({"chat": [an_asset()]}), reader)
    assert found.facts.listings["vault"]["complete"] is False
    assert found.facts.copies["a1", "vault"]["lock_read"] is False


def test_a_hold_without_an_end_is_a_lock_for_ever(gather: Gather) -> None:
    reader = FakeReader(
        "vault", {KEY.format("a1"): b"12345"}, locked_until=NO_END.replace(tzinfo=UTC)
    )
    assert (
        gather(FakeRecordings({"chat": [an_asset()]}), reader).facts.copies["a1", "vault"][
            "locked_until"
        ]
        == NO_END
    )


@pytest.mark.parametrize(
    "until, text",
    [
        (None, None),
        (NO_END, "infinity"),
        (datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC), "2027-01-02 03:04:05"),
    ],
)
def test_the_end_of_a_lock_is_written_as_the_tables_read_it(
    until: datetime | None, text: str | None
) -> None:
    assert write_lock(until) == text


# ── Catalogs ──────────────────────────────────────────────────────────────────────────────────────


def test_a_catalog_says_what_a_copy_is(gather: Gather, tmp_path: Path) -> None:
    key, part = a_part(an_entry("a1"), an_entry("a2"), folder=tmp_path)
    reader = FakeReader(
        "vault", {key: part, KEY.format("a1"): b"12345", KEY.format("a2"): b"12345"}
    )
    found = gather(FakeRecordings({"chat": [an_asset("a1")]}), reader)
    assert {id: row["known_by"] for id, row in found.facts.assets.items()} == {
        "a1": "api",
        "a2": "catalog",
    }
    assert all(copy["complete"] for copy in found.facts.copies.values())
    assert found.facts.listings["vault"]["complete"] is True
    assert found.facts.listings["vault"]["objects"] == 2


def test_the_parts_of_a_catalog_are_read_together(gather: Gather, tmp_path: Path) -> None:
    parts = dict(a_part(an_entry(id), folder=tmp_path) for id in ("a1", "a2", "a3"))
    assert set(gather(FakeRecordings(), FakeReader("vault", parts)).facts.assets) == {
        "a1",
        "a2",
        "a3",
    }


def test_a_part_that_was_read_before_is_not_read_again(gather: Gather, tmp_path: Path) -> None:
    reader = FakeReader("vault", dict([a_part(an_entry(), folder=tmp_path)]))
    for _ in range(2):
        assert "a1" in gather(FakeRecordings(), reader).facts.assets
    assert reader.reads == 1


def test_a_part_that_is_gone_from_the_store_is_forgotten(gather: Gather, tmp_path: Path) -> None:
    key, part = a_part(an_entry(), folder=tmp_path)
    assert gather(FakeRecordings(), FakeReader("vault", {key: part})).facts.assets
    assert gather(FakeRecordings(), FakeReader("vault")).facts.assets == {}


def test_the_parts_of_two_stores_are_kept_apart(gather: Gather, tmp_path: Path) -> None:
    key, part = a_part(an_entry(), folder=tmp_path)
    other = Settings(stores=(VAULT, Store("cold", "s3://acme-cold")))
    found = gather(
        FakeRecordings({"chat": [an_asset()]}),
        FakeReader("vault", {key: part, KEY.format("a1"): b"12345"}),
        FakeReader("cold", {KEY.format("a1"): b"12345"}),
        project=other,
    )
    assert {store: copy["complete"] for (_, store), copy in found.facts.copies.items()} == {
        "vault": True,
        "cold": False,
    }


def damaged(part: tuple[str, bytes]) -> dict[str, bytes]:
    key, content = part
    return {key: content[:-100] + bytes([content[-100] ^ 1]) + content[-99:]}


@pytest.mark.parametrize(
    "spoil",
    [
        damaged,
        lambda part: {part[0]: part[1][:-1]},
        lambda part: {part[0]: b""},
        lambda part: {f"{CATALOG_PREFIX}notes.txt": b"hello"},
        lambda part: {part[0] + ".bak": part[1]},
        lambda part: {part[0].replace("2026", "x"): part[1]},
        lambda part: {f"{CATALOG_PREFIX}a/b.parquet": part[1]},
        lambda part: {CATALOG_PREFIX + part_name(b"no parquet", NOW): b"no parquet"},
    ],
    ids=[
        "a flipped bit",
        "a byte less",
        "emptied",
        "a note",
        "a name with an end",
        "a name without a date",
        "a folder",
        "whole, and no table",
    ],
)
def test_a_damaged_or_foreign_part_makes_its_store_unfinished(
    gather: Gather, tmp_path: Path, spoil: Callable[[Any], dict[str, bytes]]
) -> None:
    spoilt = spoil(a_part(an_entry("a2"), folder=tmp_path))
    found = gather(
        FakeRecordings({"chat": [an_asset()]}),
        FakeReader("vault", {**spoilt, KEY.format("a1"): b"12345"}),
        FakeReader("uploads"),
    )
    row = found.facts.listings["vault"]
    assert row["complete"] is False
    assert "catalog" in row["note"]
    assert ("a1", "vault") in found.facts.copies
    assert found.facts.listings["uploads"]["complete"] is True


def test_a_part_of_other_columns_makes_its_store_unfinished(gather: Gather, tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    with connect() as connection:
        connection.execute(f"COPY (SELECT 'a1' AS asset_id) TO '{file}' (FORMAT parquet)")
    found = gather(
        FakeRecordings(),
        FakeReader(
            "vault", {CATALOG_PREFIX + part_name(file.read_bytes(), NOW): file.read_bytes()}
        ),
    )
    assert found.facts.listings["vault"]["complete"] is False


@pytest.mark.parametrize(
    "broken",
    [
        {"catalog_breaks": ListingBroken("it broke")},
        {"reading": StoreFailed("it broke")},
        {"locks": StoreFailed("it broke")},
    ],
    ids=["listing it", "reading it", "asking for locks"],
)
def test_a_catalog_that_cannot_be_read_makes_its_store_unfinished_and_keeps_its_objects(
    gather: Gather, tmp_path: Path, broken: Row
) -> None:
    key, part = a_part(an_entry("a1"), folder=tmp_path)
    found = gather(
        FakeRecordings({"chat": [an_asset()]}),
        FakeReader("vault", {key: part, KEY.format("a1"): b"12345"}, **broken),
    )
    assert (found.facts.listings["vault"]["complete"], found.facts.listings["vault"]["note"]) == (
        False,
        "it broke",
    )
    assert ("a1", "vault") in found.facts.copies


def test_a_part_that_was_damaged_on_this_machine_is_not_believed(
    gather: Gather, tmp_path: Path
) -> None:
    key, part = a_part(an_entry("asset-one"), folder=tmp_path)
    reader = FakeReader("vault", {key: part})
    gather(FakeRecordings(), reader)
    (kept,) = (tmp_path / "cache").rglob("*.parquet")
    kept.write_bytes(part.replace(b"asset-one", b"asset-two"))
    found = gather(FakeRecordings(), reader)
    assert "asset-two" not in found.facts.assets


# ── Snapshots ─────────────────────────────────────────────────────────────────────────────────────


def saved(path: Path, **facts: Any) -> Facts:
    """Save a snapshot of these facts, and return them."""
    with connect() as connection:
        stage(connection)
        rows = [read_asset(raw)[0] for raw in facts.get("assets", [])]
        fill(connection, "staged_assets", STAGES["staged_assets"], [row for row in rows if row])
        for table in ("objects", "catalog", "listings"):
            fill(
                connection,
                table,
                STAGES[table],
                [dict.fromkeys(STAGES[table]) | row for row in facts.get(table, [])],
            )
        assemble(connection, PROJECT)
        path.parent.mkdir(exist_ok=True)
        save_snapshot(connection, path)
        return Facts.of(connection)


def opened(path: Path, table: str, project: Settings = PROJECT) -> list[Row]:
    connection = open_facts(path, project)
    try:
        return rows_of(connection, table)
    finally:
        connection.close()


EVERYTHING = {
    "assets": [
        an_asset("a1"),
        in_uploads("a2"),
        an_asset("a3", path="oss://x/y", created_at="soon", size=0),
        an_asset("a4", status="failed", path=None),
    ],
    "objects": [
        an_object(KEY.format("a1"), locked_until="infinity"),
        an_object("beam/a.mp4", "uploads"),
        an_object("stray"),
    ],
    "catalog": [an_entry("a1"), an_entry("a5")],
    "listings": FINISHED,
}


def test_a_snapshot_holds_the_facts_as_they_were(tmp_path: Path) -> None:
    facts = saved(tmp_path / "new" / "facts.duckdb", **EVERYTHING)
    path = tmp_path / "new" / "facts.duckdb"
    assert {row["asset_id"]: row for row in opened(path, "facts.assets")} == facts.assets
    assert {row["name"]: row for row in opened(path, "facts.listings")} == facts.listings
    assert len(opened(path, "facts.copies")) == len(facts.copies) == 2
    assert NO_END in [row["locked_until"] for row in opened(path, "facts.copies")]


def test_a_snapshot_says_that_it_holds_names(tmp_path: Path) -> None:
    saved(tmp_path / "f")
    (about,) = opened(tmp_path / "f", "facts.about")
    assert (about["format"], about["what"]) == (SNAPSHOT_FORMAT, "retainer facts")
    assert "names" in about["privacy"]


def test_an_opened_snapshot_shows_what_lies_hosted_and_elsewhere(tmp_path: Path) -> None:
    saved(tmp_path / "f", **EVERYTHING)
    lies = {
        row["asset_id"]: (row["lies_hosted"], row["lies_elsewhere"])
        for row in opened(tmp_path / "f", "assets")
    }
    assert {id for id, (hosted, _) in lies.items() if hosted} == {"a1"}
    assert {id for id, (_, elsewhere) in lies.items() if elsewhere} == {"a3"}


def test_a_snapshot_follows_a_change_of_what_is_hosted(tmp_path: Path) -> None:
    saved(tmp_path / "f", assets=[an_asset("a1")])
    for project, lies in ((PROJECT, (True, False)), (Settings(), (False, True))):
        (row,) = opened(tmp_path / "f", "assets", project)
        assert (row["lies_hosted"], row["lies_elsewhere"]) == lies


def test_stores_have_the_order_in_which_they_are_declared(tmp_path: Path) -> None:
    saved(tmp_path / "f")
    stores = {
        row["store"]: (row["scheme"], row["rank"]) for row in opened(tmp_path / "f", "stores")
    }
    assert stores == {"vault": ("s3", 0), "uploads": ("s3", 1)}


def test_a_snapshot_can_lie_under_any_name(tmp_path: Path) -> None:
    path = tmp_path / 'it\'s "mine"; ü.duckdb'
    saved(path, assets=[an_asset("a1")])
    assert [row["asset_id"] for row in opened(path, "facts.assets")] == ["a1"]


def test_an_opened_snapshot_cannot_be_written(tmp_path: Path) -> None:
    saved(tmp_path / "f", assets=[an_asset("a1")])
    connection = open_facts(tmp_path / "f", PROJECT)
    with pytest.raises(duckdb.Error):
        connection.execute("DELETE FROM facts.assets")
    connection.close()


def a_database(path: Path, *statements: str) -> None:
    connection = duckdb.connect(str(path))
    for statement in statements:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda path: None, "there is no snapshot"),
        (lambda path: path.write_text("hello"), "cannot be read as a snapshot"),
        (lambda path: path.write_bytes(b""), ""),
        (lambda path: path.write_bytes(bytes(20_000)), "cannot be read as a snapshot"),
        (lambda path: path.mkdir(), "there is no snapshot"),
        (lambda path: a_database(path, "CREATE TABLE x (y INT)"), "cannot be read as a snapshot"),
        (
            lambda path: a_database(
                path, f"CREATE TABLE about AS SELECT {SNAPSHOT_FORMAT + 1} AS format"
            ),
            f"this retainer reads format {SNAPSHOT_FORMAT}",
        ),
        (
            lambda path: a_database(path, "CREATE TABLE about (format INT)"),
            f"this retainer reads format {SNAPSHOT_FORMAT}",
        ),
        (lambda path: a_database(path, "CREATE TABLE about AS SELECT 3 AS format"), ""),
    ],
    ids=[
        "nothing",
        "text",
        "empty",
        "noughts",
        "a folder",
        "another database",
        "another format",
        "no format",
        "half of one",
    ],
)
def test_a_file_that_is_no_snapshot_is_refused(
    tmp_path: Path, make: Callable[[Path], Any], says: str
) -> None:
    make(tmp_path / "f")
    with pytest.raises(RetainerError) as refused:
        open_facts(tmp_path / "f", PROJECT)
    assert str(tmp_path / "f") in refused.value.message
    assert says in refused.value.message


# ── a long list, in ranges ──────────────────────────────────────────────────────────────────────


@dataclass
class TornReader(FakeReader):
    """A store whose ranges do not meet."""

    bounds: list[Sequence[str]] = field(default_factory=list)

    def list_at_once(self, bounds: Sequence[str], known: Sequence[Stretch] = ()) -> Generator[Seen]:
        self.bounds.append(bounds)
        yield Seen("twice.mp4", 3, "v1")
        raise ListingTorn("the ranges of its list do not meet")


def test_a_list_whose_ranges_do_not_meet_is_read_from_its_beginning(gather: Gather) -> None:
    reader = TornReader(content={"a.mp4": b"abc", "twice.mp4": b"abc"})
    listing = gather(FakeRecordings(), reader).listings["vault"]
    assert (listing.complete, listing.objects, listing.bytes, listing.notes) == (True, 2, 6, [])


def test_a_catalog_says_where_a_long_list_is_split(
    gather: Gather, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_list, "_PAGE", 2)
    monkeypatch.setattr(store_list, "_PAGES", 2)
    keys = [f"k{number:02}" for number in range(22)]
    content = {}
    for number, key in enumerate(keys):
        entry = an_entry(key=key, copied_at=f"2026-10-{number + 1:02} 00:00:00")
        gone = an_entry(key="gone", copied_at="2026-10-01 00:00:00", deleted=True)
        name, part = a_part(entry, gone, folder=tmp_path, now=NOW + timedelta(seconds=number))
        content[name] = part
    reader = TornReader(content=content)
    gather(FakeRecordings(), reader)
    assert reader.bounds == [["k03", "k07", "k11", "k15"]]


def test_a_short_list_is_not_split(gather: Gather, tmp_path: Path) -> None:
    name, part = a_part(an_entry(key="k"), folder=tmp_path)
    reader = TornReader(content={name: part})
    gather(FakeRecordings(), reader)
    assert reader.bounds == [[]]
