"""A plan and a catalog opened by other programs than retainer's own DuckDB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars
import pyarrow.parquet
import pytest
from project import Project, make_project, pairs, video

from retainer.demo.standin import StandIn
from retainer.model.catalog import CATALOG, CATALOG_PREFIX
from retainer.planfile import COLUMNS

A, B = "a" * 24, "b" * 24
KEEP = {"in": "vault", "for": "forever"}


@pytest.fixture
def project(tmp_path: Path, api: StandIn) -> Project:
    project = make_project(tmp_path / "project", api, "local", None)
    project.write({"version": 1, "rules": [{"id": "all", "match": "all", "keep": [KEEP]}]})
    return project


def read_by_others(path: Path) -> list[dict[str, Any]]:
    """The rows, as pyarrow and polars agree on them."""
    table = pyarrow.parquet.read_table(path)
    rows: list[dict[str, Any]] = table.to_pylist()
    assert polars.read_parquet(path).height == len(rows)
    assert all(field.nullable for field in table.schema), "whatever the rows of the day"
    return rows


def test_a_plan_opens_in_every_reader_also_where_something_never_ends(project: Project) -> None:
    """Issue 13, `../shared/field/d10*`: Parquet has no infinity."""
    project.hosted(A, video(1))
    project.plan()
    project.apply()
    project.hosted(B, video(2), created_at="not a date")
    shown = project.plan("again.plan")
    rows = {
        row["asset_id"]: row
        for row in read_by_others(project.root / "again.plan")
        if row["store"] == "vault"
    }
    assert rows.keys() == {A, B}
    assert rows[A].keys() == COLUMNS.keys()
    assert (rows[A]["until"].year, rows[A]["keep_until"].year) == (9999, 9999)
    assert pairs(shown)[A, "vault"] == "keep"
    told = {(row["asset_id"], row["store"]): row for row in shown["rows"]}
    assert told[A, "vault"]["until"] == "forever"


def test_parts_of_a_catalog_have_one_schema_whatever_is_in_them(project: Project) -> None:
    for name in (A, B):
        project.hosted(name, video(1), peer_id="p" if name == A else None)
        project.plan()
        project.apply()
    parts = sorted((Path(project.stores["vault"].prefix) / CATALOG_PREFIX).iterdir())
    assert len(parts) == 2
    assert all(read_by_others(part)[0].keys() == CATALOG.keys() for part in parts)
    first, second = (pyarrow.parquet.read_schema(part) for part in parts)
    assert first.equals(second)
