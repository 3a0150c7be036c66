"""A plan, and a run, as metrics: the text format of Prometheus, for node_exporter's textfile
collector. No name of a room or person is in them, and no recording's id."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from retainer.model.outcome import Summary
from retainer.planfile import Header, Overview
from retainer.views.plan import moment_of

OF_A_PLAN = {
    "retainer_plan_timestamp_seconds": "When the facts of the last plan were gathered.",
    "retainer_plan_actions": "Copies, locks and deletes that the last plan asks for, by what.",
    "retainer_plan_bytes": "Bytes of its copies and deletes, by what.",
    "retainer_plan_last_copies": "Recordings of which the last plan deletes the last copy.",
    "retainer_plan_decisions": "Pairs of a recording and a place, by decision.",
    "retainer_plan_held_back": "1 where a limit, a clash or a doubt holds the deletes back.",
    "retainer_at_risk_recordings": "Recordings that leave 100ms and have no copy yet.",
    "retainer_at_risk_first_timestamp_seconds": "When the first of those leaves.",
    "retainer_not_kept_recordings": "Recordings that leave 100ms since no rule keeps them.",
    "retainer_listing_complete": "1 where the listing of a source finished, by source.",
    "retainer_limit_used_ratio": "How much of a limit is used, by limit and scope; 1 is all of it.",
}
"""Each metric of a plan, and what it is."""
OF_A_RUN = {
    "retainer_run_timestamp_seconds": "When the last run ended.",
    "retainer_run_success": "1 where the last run did all that its plan asked for.",
    "retainer_run_exit_code": "With what the last run ended.",
    "retainer_run_actions": "Actions of the last run, by outcome.",
    "retainer_run_bytes": "Bytes of the last run, by outcome.",
}
"""Each metric of a run, and what it is."""


class _Told:
    """A registry of gauges that are known by name."""

    def __init__(self, known: Mapping[str, str]) -> None:
        self.registry = CollectorRegistry()
        self._known = known
        self._made: dict[str, Gauge] = {}

    def set(self, name: str, value: float, **labels: str) -> None:
        if name not in self._made:
            self._made[name] = Gauge(name, self._known[name], list(labels), registry=self.registry)
        gauge = self._made[name]
        (gauge.labels(**labels) if labels else gauge).set(value)

    def text(self) -> str:
        return generate_latest(self.registry).decode()


def plan_metrics(header: Header, view: Overview) -> str:
    """Of the last plan."""
    told = _Told(OF_A_PLAN)
    told.set("retainer_plan_timestamp_seconds", moment_of(header.created).timestamp())
    for what, count, size in (
        ("copy", header.copies, header.copy_bytes),
        ("delete", header.deletes, header.delete_bytes),
    ):
        told.set("retainer_plan_actions", count, what=what)
        told.set("retainer_plan_bytes", size, what=what)
    told.set("retainer_plan_actions", header.locks, what="lock")
    told.set("retainer_plan_last_copies", header.last_copies)
    for decision, count, _ in view.totals:
        told.set("retainer_plan_decisions", count, decision=decision)
    told.set("retainer_plan_held_back", bool(header.held_back))
    told.set("retainer_at_risk_recordings", view.at_risk_count)
    if view.first_leaves_at:
        first = view.first_leaves_at.timestamp()
        told.set("retainer_at_risk_first_timestamp_seconds", first)
    told.set("retainer_not_kept_recordings", view.lapsing[0])
    for source in header.sources:
        told.set("retainer_listing_complete", source.complete, source=source.name)
    for limit in header.limits:
        if limit.allowed:
            used = limit.used / limit.allowed
            told.set("retainer_limit_used_ratio", used, limit=limit.name, scope=limit.scope)
    return told.text()


def _ended(code: int, ended: float) -> _Told:
    told = _Told(OF_A_RUN)
    told.set("retainer_run_timestamp_seconds", ended)
    told.set("retainer_run_success", code == 0)
    told.set("retainer_run_exit_code", code)
    return told


def refused_metrics(code: int, ended: float) -> str:
    """Of a run that did nothing, and ended at `ended` (seconds since 1970) with an exit code."""
    return _ended(code, ended).text()


def run_metrics(done: Summary, code: int, ended: float) -> str:
    """Of the last run, which ended at `ended` (seconds since 1970) with an exit code."""
    told = _ended(code, ended)
    for outcome, count in {
        "copied": done.copied,
        "deleted": done.deleted,
        "failed": len(done.failed),
        "skipped": len(done.skipped),
        "already": done.already,
        "left": done.left_deletes,
        "resting": sum(each.actions for each in done.resting.values()),
    }.items():
        told.set("retainer_run_actions", count, outcome=outcome)
    told.set("retainer_run_bytes", done.copied_bytes, outcome="copied")
    told.set("retainer_run_bytes", done.deleted_bytes, outcome="deleted")
    return told.text()
