"""The record and the plans that were applied -> a report of a span of time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from statistics import median

from retainer.applied import applied_plans
from retainer.journal.backend import Reading
from retainer.model.history import History
from retainer.model.moment import read_moment
from retainer.model.report import PlanSeen, Punctual, Report, Request
from retainer.planfile import LYING, PlanFile, moment_of
from retainer.standing import a_month_after

Left = dict[str, list[tuple[str, int]]]


def report(record: Reading, told: History) -> Report:
    """`told`: what the record says of the span. Of the plans those count that were decided in
    it. Raises RetainerError where a plan cannot be read."""
    seen: list[PlanSeen] = []
    requests: dict[str, Request] = {}
    lost: dict[tuple[str, str], datetime] = {}
    last: tuple[datetime, Left] | None = None
    for plan in applied_plans(record):
        at = moment_of(plan.header.as_of)
        if (told.since and at < told.since) or (told.until and at >= told.until):
            continue
        seen.append(_seen(plan, at))
        for request in _requests(plan, at):
            known = requests.get(request.id)
            requests[request.id] = _together(known, request) if known else request
        for asset, store in _lost(plan):
            lost[asset, store] = min(at, lost.get((asset, store), at))
        if last is None or at > last[0]:
            last = at, _left(plan)
    gone: dict[str, int] = defaultdict(int)
    for each in told.deletions:
        gone[each.rule] += each.asked_by == "erasure"
    return Report(
        told,
        tuple(sorted(seen, key=lambda each: (each.at, each.plan))),
        tuple(_punctual(told, last[1] if last else {})),
        tuple(
            replace(each, deleted=gone[each.id])
            for each in sorted(requests.values(), key=lambda each: (each.kind, each.id))
        ),
        tuple((asset, store, at) for (asset, store), at in sorted(lost.items())),
    )


def _seen(plan: PlanFile, at: datetime) -> PlanSeen:
    ask = plan.connection.execute
    stores = ask(
        "SELECT store, count(*), coalesce(sum(bytes), 0)::BIGINT FROM plan "
        f"WHERE {LYING} AND store <> 'hosted' GROUP BY store ORDER BY store"
    ).fetchall()
    row = ask(
        "SELECT count(DISTINCT asset_id), count(*) FILTER (decision = 'blocked'), "
        "count(*) FILTER (decision = 'lost') FROM plan"
    ).fetchone()
    assert row is not None
    recordings, blocked, lost = row
    unfinished = tuple(each.name for each in plan.header.sources if not each.complete)
    return PlanSeen(at, plan.fingerprint, recordings, tuple(stores), unfinished, blocked, lost)


def _requests(plan: PlanFile, at: datetime) -> Iterator[Request]:
    for item in plan.header.items:
        if item.kind not in ("hold", "erasure"):
            continue
        came = read_moment(item.requested or "")
        yield Request(
            id=item.id,
            kind=item.kind,
            why=item.why,
            owner=item.owner,
            first=at,
            last=at,
            recordings=item.matches + item.may_match,
            requested=item.requested,
            answer_by=a_month_after(came.date()) if came else None,
        )


def _together(known: Request, again: Request) -> Request:
    newest = again if again.last >= known.last else known
    return replace(
        newest,
        first=min(known.first, again.first),
        last=max(known.last, again.last),
        recordings=max(known.recordings, again.recordings),
    )


def _lost(plan: PlanFile) -> list[tuple[str, str]]:
    return plan.connection.execute(
        "SELECT DISTINCT asset_id, store FROM plan WHERE decision = 'lost'"
    ).fetchall()


def _left(plan: PlanFile) -> Left:
    """What was due and was no delete of the plan, by rule and reason."""
    found: Left = defaultdict(list)
    for rule, because, count in plan.connection.execute(
        "SELECT coalesce(rule, ''), coalesce(because, ''), count(*) FROM plan "
        "WHERE decision = 'blocked' OR (decision = 'delete' AND because IS NOT NULL) "
        "GROUP BY ALL ORDER BY ALL"
    ).fetchall():
        found[rule].append((because, count))
    return found


def _punctual(told: History, left: Left) -> Iterator[Punctual]:
    """By rule how late what went was. An erasure is due when it comes, which is told with it."""
    late: dict[str, list[float]] = defaultdict(list)
    count: dict[str, int] = defaultdict(int)
    for each in told.deletions:
        count[each.rule] += 1
        due = read_moment(each.due)
        if due is not None and each.asked_by != "erasure":
            late[each.rule].append((each.at - due).total_seconds() / 86400)
    for rule in sorted({*count, *left}):
        days = late.get(rule)
        yield Punctual(
            rule,
            count[rule],
            round(median(days), 1) if days else None,
            round(max(days), 1) if days else None,
            tuple(left.get(rule, ())),
        )
