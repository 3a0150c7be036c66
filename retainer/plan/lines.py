"""The decision -> the plan's rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from duckdb import DuckDBPyConnection

from retainer.database import literal
from retainer.model.rule import Match
from retainer.model.setting import Lock
from retainer.plan.decide import timestamp
from retainer.plan.predicates import filled, predicate, sections

TOLD_METADATA = (
    "num_layers",
    "max_width",
    "max_height",
    "output_mode",
    "track_id",
    "stream_id",
    "peer_id",
    "track_type",
    "user_id",
    "stream_type",
    "layer",
)
"""The documented metadata keys. A plan tells only these of an asset's metadata: others may hold
anything, also names."""


def make_lines(
    connection: DuckDBPyConnection,
    targets: Mapping[str, str],
    locking: Mapping[str, Lock],
    unlockable: Iterable[str],
    now: datetime,
    only: Match | None,
) -> None:
    """Make the views `lines` and `quiet_lines` from what was decided.

    `targets`: SQL of a copy's key, by the name of its store; `locking`: the stores that lock each
    copy until its keep is over, and how; `unlockable`: those of them whose buckets lock nothing.
    """
    cases = " ".join(f"WHEN {literal(store)} THEN {key}" for store, key in targets.items())
    told = ", ".join(f"'{key}', json_extract(metadata, '/{key}')" for key in TOLD_METADATA)
    target = f"CASE store {cases} END" if cases else "NULL"
    mark = "'~' || left(md5(made_of_version), 8)"
    parts = {
        "$now": timestamp(now),
        "$filled": _names(targets),
        "$locking": _names(locking),
        "$final": _names(store for store, mode in locking.items() if mode == "compliance"),
        "$unlockable": _names(unlockable),
        "$target": target,
        "$beside": f"CASE WHEN ends_with({target}, '/') THEN {target} || {mark} || '/' "
        f"ELSE regexp_replace({target}, '([.][^./]*)?$', {mark} || '\\1') END",
        "$out_of_scope": f"asset_no NOT IN (SELECT asset_no FROM dated WHERE {predicate(only)})"
        if only
        else "false",
        "$metadata": f"CASE WHEN metadata IS NOT NULL THEN json_object({told}) END",
    }
    (sql,) = sections("lines.sql")
    connection.execute(filled(sql, parts))


def _names(stores: Iterable[str]) -> str:
    """SQL: what stands in a list of these; where there is none, a name that no store has."""
    return ", ".join(map(literal, stores)) or "''"
