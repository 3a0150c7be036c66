"""What the record says of a recording, of a run, or of a span of time."""

from __future__ import annotations

from collections.abc import Iterator

from retainer.model.history import Happening, History, RunTold
from retainer.model.printable import shown
from retainer.model.report import Report
from retainer.views.page import (
    Block,
    Column,
    Document,
    Facts,
    Note,
    Prose,
    Reading,
    Section,
    Sign,
    Table,
)
from retainer.views.units import Cell, Weight, many, moment, size
from retainer.views.words import BECAUSE, with_every_version

_SIGNS: dict[str, tuple[Sign, Weight]] = {
    "copied": ("+", "good"),
    "restored": ("+", "good"),
    "locked": ("=", "good"),
    "deleted": ("-", "bad"),
    "failed": ("!", "worry"),
    "broken": ("!", "bad"),
    "unlocked": ("!", "bad"),
    "skipped": ("?", "unsure"),
    "left": ("?", "unsure"),
}
_RUNS = (
    Column("run", "id"),
    Column("began", "moment"),
    Column("by"),
    Column("on"),
    Column("ticket"),
    Column("approved by"),
    Column("commit"),
    Column("copied", "count"),
    Column("locked", "count"),
    Column("deleted", "count"),
    Column("failed", "count"),
    Column("end"),
)
_REGISTER = (
    Column("when", "moment"),
    Column("recording", "id"),
    Column("in"),
    Column("size", "bytes"),
    Column("rule"),
    Column("created"),
    Column("kept until"),
    Column("due"),
    Column("last copy"),
    Column("by"),
    Column("ticket"),
    Column("plan", "id"),
)


def history_page(told: History, reading: Reading) -> Document:
    """What was done with a recording, or by a run, in its order."""
    told = shown(told)
    if not told.happenings and not told.runs:
        verdict = Note("?", "unsure", f"The record says nothing of {told.about}.")
        return Document(f"History of {told.about}", (verdict,), (), about=told.record)
    last = told.happenings[-1] if told.happenings else None
    sign, weight = _SIGNS.get(last.event if last else "", (" ", "plain"))
    said = _said(last) if last else many(len(told.runs), "run")
    notes = tuple(_note(each, told.about, reading) for each in told.happenings)
    blocks: list[Block] = [*notes, *_runs(told)]
    return Document(
        f"History of {told.about}",
        (Note(sign, weight, f"Last: {said}."),),
        tuple(blocks),
        about=told.record,
    )


def _note(each: Happening, about: str, reading: Reading) -> Note:
    sign, weight = _SIGNS.get(each.event, (" ", "plain"))
    whose = f"{each.asset_id} " if each.asset_id and each.asset_id != about else ""
    return Note(sign, weight, f"{moment(each.at, reading.zone)}  {whose}{_said(each)}")


def _said(each: Happening) -> str:
    """One happening as a sentence without its moment."""
    where = {"copied": f"to {each.store}", "deleted": f"from {each.store}"}.get(
        each.event, f"in {each.store}" if each.store else ""
    )
    what = f"{each.act} {each.event}" if each.act else each.event
    parts = [f"{what} {where}".strip()]
    if each.rule:
        at = f" ({each.rule_at})" if each.rule_at else ""
        parts[0] += f" for {each.rule}{at}"
    if each.bytes is not None:
        parts.append(size(each.bytes))
    parts += list(_reasons(each))
    by = f" by {each.user}" if each.user else ""
    ticket = f" ({each.ticket})" if each.ticket else ""
    parts.append(f"run {each.run}{by}{ticket}")
    if each.approved_by:
        parts.append(f"approved by {' and '.join(each.approved_by)}")
    return ", ".join(parts)


def _reasons(each: Happening) -> Iterator[str]:
    if each.why:
        yield f"“{each.why}”"
    if each.cause:
        yield each.cause
    if each.kept_until:
        yield f"kept until {each.kept_until}" + (f" by {each.kept_by}" if each.kept_by else "")
    if each.due:
        yield f"due from {each.due}"
    if each.last_copy:
        yield "the last copy"
    elif each.witnesses:
        yield f"safe by {many(len(each.witnesses), 'other object')}"
    if each.versions is not None:
        yield (
            with_every_version(each.versions)
            if each.event == "deleted"
            else f"{many(each.versions, 'version was', 'versions were')} removed for good"
        )
    if each.locked_until:
        yield f"until {each.locked_until}"
    if each.recoverable:
        yield f"recoverable: {each.recoverable}"
    if each.checksum:
        yield f"{each.checksum[:24]}…"


def _runs(told: History) -> list[Block]:
    if not told.runs:
        return []
    return [Section("Runs", (Table("", _RUNS, tuple(_run(each) for each in told.runs)),))]


def _run(run: RunTold) -> tuple[Cell, ...]:
    commit = run.commit[:12] + (" (dirty)" if run.dirty else "")
    end = "finished" if run.finished else "to go on with" if run.ended else "not told"
    return (
        run.run,
        run.began,
        run.user,
        run.host,
        run.ticket,
        ", ".join(run.approved_by),
        commit,
        run.copied,
        run.locked,
        run.deleted,
        run.failed,
        run.what or end,
    )


_PLANS = (
    Column("plan of", "moment"),
    Column("plan", "id"),
    Column("recordings", "count"),
    Column("in"),
    Column("copies", "count"),
    Column("size", "bytes"),
    Column("blocked", "count"),
    Column("lost", "count"),
    Column("lists that did not finish"),
)
_DUE = (
    Column("rule"),
    Column("deleted", "count"),
    Column("days after it was due: median", "count"),
    Column("worst", "count"),
    Column("due, and left by the last plan"),
)
_REQUESTS = (
    Column("id"),
    Column(""),
    Column("recordings", "count"),
    Column("from", "moment"),
    Column("to", "moment"),
    Column("requested"),
    Column("answer by"),
    Column("copies deleted", "count"),
    Column("owner"),
    Column("why"),
)


def _due(report: Report) -> Iterator[Section]:
    if not report.punctual:
        return
    rows = tuple(
        (
            each.rule,
            each.deleted,
            each.median_days,
            each.worst_days,
            ", ".join(f"{count:,} {BECAUSE.get(why, why)}" for why, count in each.left),
        )
        for each in report.punctual
    )
    yield Section("Due and done", (Table("", _DUE, rows),))


def _requests(report: Report) -> Iterator[Section]:
    if not report.requests:
        return
    rows = tuple(
        (
            each.id,
            each.kind,
            each.recordings,
            each.first,
            each.last,
            (each.requested or "")[:10],
            each.answer_by.isoformat() if each.answer_by else "",
            each.deleted if each.kind == "erasure" else None,
            each.owner,
            each.why,
        )
        for each in report.requests
    )
    yield Section("Holds and erasures", (Table("", _REQUESTS, rows),))


def _lost(report: Report, reading: Reading) -> Iterator[Section]:
    if report.lost:
        notes = tuple(
            Note("!", "bad", f"{asset} was wanted in {store}: {moment(at, reading.zone)}")
            for asset, store, at in report.lost
        )
        yield Section("Lost", notes)


def _population(report: Report) -> Iterator[Section]:
    """What each plan that was applied saw, a row for each store."""
    rows = tuple(
        (
            each.at,
            each.plan[:12],
            each.recordings,
            store,
            count,
            total,
            each.blocked,
            each.lost,
            ", ".join(each.unfinished),
        )
        for each in report.plans
        for store, count, total in each.stores or (("nothing", 0, 0),)
    )
    if rows:
        yield Section("What plans saw", (Table("", _PLANS, rows),))


def report_page(report: Report, reading: Reading) -> Document:
    """A span of time: what plans saw, what was due and went, each deletion with what led to it,
    holds, erasures, losses, runs, exceptions, and what the record can prove."""
    report = shown(report)
    told = report.history
    early = told.too_early
    deleted = told.deletions
    if early:
        verdict = Note(
            "!", "bad", f"{many(len(early), 'copy', 'copies')} went before they were due."
        )
    else:
        verdict = Note("=", "good", "Nothing was deleted before it was due.")
    copied = [each for each in told.happenings if each.event == "copied"]
    totals = Facts(
        (
            ("copied", f"{many(len(copied), 'copy', 'copies')}, {_bytes(copied)}"),
            ("deleted", f"{many(len(deleted), 'copy', 'copies')}, {_bytes(deleted)}"),
            ("last copies", many(sum(bool(each.last_copy) for each in deleted), "deletion")),
            ("not done", many(_not_done(told), "attempt")),
            ("runs", f"{len(told.runs):,}"),
        )
    )
    rows = tuple(
        (
            each.at,
            each.asset_id,
            each.store,
            each.bytes,
            each.rule,
            each.created[:10],
            each.kept_until[:10],
            each.due[:10],
            "not told" if each.last_copy is None else "the last copy" if each.last_copy else "",
            ", ".join(filter(None, (each.user, *each.approved_by))),
            each.ticket,
            each.plan[:12],
        )
        for each in deleted
    )
    lifted = [(run, lift) for run in told.runs for lift in run.lifted]
    exceptions: list[Block] = [
        Note("!", "worry", f"{lift} was lifted in run {run.run} by {run.user or 'nobody named'}")
        for run, lift in lifted
    ]
    unended = [run for run in told.runs if run.ended is None]
    exceptions += [
        Note(
            "?",
            "unsure",
            f"run {run.run} of {moment(run.began, reading.zone)} did not tell its end",
        )
        for run in unended
    ]
    blocks: list[Block] = [
        totals,
        Section("Register of deletions", (Table("", _REGISTER, rows, is_list=True),))
        if rows
        else Prose("Nothing was deleted."),
        *_due(report),
        *_requests(report),
        *_lost(report, reading),
        *_population(report),
        *_runs(told),
        Section("Exceptions", tuple(exceptions) or (Prose("None: nothing was lifted."),)),
        Section("Evidence", _evidence(told)),
    ]
    since = moment(told.since, reading.zone) if told.since else "the beginning"
    until = moment(told.until, reading.zone) if told.until else "now"
    return Document("Report", (verdict,), tuple(blocks), about=f"from {since} until {until}")


def _evidence(told: History) -> tuple[Block, ...]:
    return (
        Facts(
            (
                ("record", told.record),
                ("lines", f"{told.lines:,}, each with the hash of the one before"),
                ("first hash", told.first_hash),
                ("last hash", told.last_hash),
            )
        ),
        Prose(
            "The chain shows that no line was changed, taken out or put in. It cannot show that "
            "nobody else deleted anything, nor who really sat at a machine. A record that was cut "
            "at its end is noticed by what the stores remember: `retainer audit verify --stores`.",
            is_aside=True,
        ),
    )


def _bytes(happenings: list[Happening] | tuple[Happening, ...]) -> str:
    return size(sum(each.bytes or 0 for each in happenings))


def _not_done(told: History) -> int:
    return sum(each.event in ("failed", "skipped") for each in told.happenings)
