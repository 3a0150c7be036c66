"""A plan as people review it: the verdict, what needs a person, deletes, copies, and the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING

from retainer.model.moment import read_moment
from retainer.model.printable import printable, shown
from retainer.model.setting import NO_PATH, SCHEMES
from retainer.views.page import (
    Bars,
    Block,
    Column,
    Command,
    Document,
    Facts,
    Note,
    Prose,
    Reading,
    Section,
    Table,
)
from retainer.views.units import many, moment, relative, since, size, span
from retainer.views.words import (
    BECAUSE,
    DECISIONS,
    IN_DOUBT,
    ORIGINS,
    OTHERS,
    cliff_section,
    cost_of,
    deadline,
    few,
    held_by,
    listed,
    who_unlocks,
    who_unlocks_of,
)

if TYPE_CHECKING:
    from retainer.planfile import (
        Group,
        Header,
        LimitState,
        Line,
        Overview,
        SourceState,
        TargetState,
        Undeclared,
    )

Names = Mapping[tuple[str, str], Sequence[str]]
"""The names that a room (or its template) was seen with, by its id and which of the two; empty for
eyes that may not see them."""
SKEW = timedelta(minutes=5)
"""No date of a recording is trusted that lies further in the future."""


def plan_page(
    header: Header,
    view: Overview,
    reading: Reading,
    fingerprint: str,
    path: str,
    names: Names | None = None,
    *,
    applied: bool = False,
) -> Document:
    """`reading.clock` decides whether the plan can still be applied, and how old its facts are;
    `applied`: whether it was, to its end."""
    header, view, path, names = (
        header.shown(),
        shown(view),
        printable(path),
        shown(dict(names or {})),
    )
    now = moment_of(header.as_of)
    urgent = [
        *_at_risk(view, now, reading),
        *_lapsing(view, now),
        *_own_rules(header, reading),
        *_unlockable(header),
        *_doubts(header),
        *_cooling(header, reading),
        *_breaches(header, view, now, reading),
        *_unfinished(header),
        *_others(view),
        *_clashes(header),
        *_holds_nothing(header),
        *_renamed(header, names),
        *_archived(view),
        *_uncovered(view),
    ]
    sections: list[tuple[str, Sequence[Block]]] = [
        ("What needs a person", urgent),
        ("Deletes", [*_deletes(header, view, now, reading)]),
        ("Copies", [*_copies(header, view, now, reading)]),
        ("Locks made longer", [*_locks(header, view, reading)]),
        ("Due, but left alone", [*_blocked(view)]),
        ("Holds and erasures", [*_held(header)]),
        ("What to know besides", [*_besides(header)]),
        ("Limits", [*_limits(header)]),
        ("Totals, in pairs of a recording and a place", [*_totals(header, view)]),
        ("This plan", [*_itself(header, fingerprint, reading)]),
    ]
    return Document(
        title=f"Plan {header.plan_id}",
        about=", ".join((f"fingerprint {fingerprint[:12]}", *_about(header, now, reading))),
        verdict=tuple(_verdict(header, view, now, reading)),
        blocks=(
            *(Section(title, tuple(blocks)) for title, blocks in sections if blocks),
            *_next(header, view, path, now, reading, applied),
        ),
        charts=tuple(_charts(view)),
    )


def _charts(view: Overview) -> Iterator[Section]:
    """What ends when, what leaves 100ms when, and what lies where."""
    charts = view.charts
    if charts is None:
        return
    if charts.cliff:
        yield cliff_section(charts.cliff)
    if charts.months:
        ends = tuple((month, (float(size),)) for month, _, size in charts.months)
        bars = Bars("Bytes of copies whose time is over, by month", "bytes", ("bytes",), ends)
        yield Section("What ends when (24 months)", (bars,))
    if charts.stores:
        rows = tuple(
            (store, (float(size), float(size - go))) for store, _, size, go in charts.stores
        )
        bars = Bars("Bytes by store", "bytes", ("now", "after this plan's deletes"), rows)
        yield Section("What lies where", (bars,))


def moment_of(text: str) -> datetime:
    """A moment of a header; one that cannot be read is for ever away."""
    return read_moment(text) or datetime.max.replace(tzinfo=UTC)


def _about(header: Header, now: datetime, reading: Reading) -> Iterator[str]:
    yield f"as of {moment(now, reading.zone)}"
    if header.scope:
        yield f"only {header.scope}"
    gathered = moment_of(header.created)
    if reading.clock:
        yield f"from facts that are {span(reading.clock - gathered)} old"
    else:
        yield f"from facts of {moment(gathered, reading.zone)}"
    reports: dict[str, list[str]] = {}
    for source in header.sources:
        if source.reported:
            at = moment_of(source.reported)
            old = f"that is {span(reading.clock - at)} old" if reading.clock else ""
            reports.setdefault(old or f"of {moment(at, reading.zone)}", []).append(source.name)
    for old, names in reports.items():
        yield f"{' and '.join(names)} from a report {old}"


def _verdict(header: Header, view: Overview, now: datetime, reading: Reading) -> Iterator[Note]:
    told = []
    if header.deletes:
        last = (
            f", {header.last_copies:,} of them the last copy of ours" if header.last_copies else ""
        )
        for_good = (
            f", {header.purges:,} for good, with every version of them" if header.purges else ""
        )
        told.append(
            f"Delete {_of(header.deletes, view.assets_deleted)}, {size(header.delete_bytes)}"
            f"{last}{for_good}."
        )
    else:
        told.append("Nothing is deleted.")
    if header.copies:
        told.append(f"Make {_of(header.copies, view.assets_copied)}, {size(header.copy_bytes)}.")
    else:
        told.append("Nothing is copied.")
    if header.locks:
        told.append(f"Lock {many(header.locks, 'copy', 'copies')} longer.")
    if view.at_risk_count:
        told.append(f"{view.at_risk_count:,} at risk: 100ms alone has what is to be kept.")
    if view.lapsing[0]:
        leave = many(view.lapsing[0], "leaves", "leave")
        told.append(f"{leave} 100ms uncopied, since no rule keeps that.")
    yield Note(
        "-" if header.deletes else "+" if header.copies else "=",
        "bad" if header.deletes else "good",
        " ".join(told),
    )
    if header.held_back and header.deletes:
        yield Note(
            "!",
            "worry",
            f"The deletes of this plan are held back, its copies can run: "
            f"{'; '.join(header.held_back)}.",
        )
    if header.incomplete:
        text = "The facts are incomplete: no delete that could be concerned is in this plan."
        yield Note("!", "worry", text)
    if unusable := not_applicable(header, now, reading):
        yield Note("!", "worry", f"This plan can be read, not applied: {unusable}.")


def not_applicable(header: Header, now: datetime, reading: Reading) -> str | None:
    """Why a plan cannot be applied at the reader's time, whatever it says; None where it can."""
    if reading.clock is None:
        return None
    if now > reading.clock + SKEW:
        return f"it is for {moment(now, reading.zone)}, which is still to come"
    expires = moment_of(header.expires)
    if expires <= reading.clock:
        return (
            f"its facts are of {moment(moment_of(header.created), reading.zone)}, and a plan of "
            f"them could be applied until {moment(expires, reading.zone)}"
        )
    return None


def _lapsing(view: Overview, now: datetime) -> Iterator[Note]:
    """What will be gone since nothing asks for it: nobody may have thought of it."""
    count, total, first = view.lapsing
    if count:
        when = f", the first {relative(first, now)}" if first and first > now else ""
        leave = "it leaves" if count == 1 else "they leave"
        yield Note(
            "!",
            "worry",
            f"No rule keeps {many(count, 'recording')} that only 100ms has, {size(total)}: "
            f"{leave} there without a copy{when}",
        )


def _unlockable(header: Header) -> Iterator[Note]:
    for store in header.unlockable:
        yield Note(
            "!",
            "worry",
            f"{store} is to lock its copies (`lock:`), and its bucket locks nothing: copies to it "
            "fail, and what lies there can be deleted by others",
            "Object Lock is switched on when a bucket is made, or by its owner later; or take "
            "`lock:` out",
        )


def _own_rules(header: Header, reading: Reading) -> Iterator[Note]:
    """Rules of buckets that take what policies keep: nothing that is done here stops them."""
    for store, told in groupby(header.own_rules, key=lambda each: each.store):
        rules = list(told)
        rows = [
            Note(
                "!",
                "worry",
                f"{each.rule}; {each.item} ({each.at}) keeps {each.kept}: what is made now would "
                f"go on {_day(each.strikes, reading)} and is to stay "
                + (f"until {_day(each.stays, reading)}" if each.stays else "for ever"),
            )
            for each in rules[:5]
        ]
        if len(rules) > 5:
            rows.append(Note(" ", "plain", f"… and {len(rules) - 5:,} more"))
        text = f"The bucket of {store} deletes by rules of its own what is to be kept there"
        yield Note(
            "!",
            "worry",
            text + (", and that was lifted" if rules[0].lifted else ""),
            "take those rules of the bucket away, or narrow them"
            + ("" if rules[0].lifted else f"; `{rules[0].lift}` if it is meant so"),
            parts=tuple(rows),
        )


def _day(text: str, reading: Reading) -> str:
    return moment(moment_of(text), reading.zone)


_COOLED = (
    Column("rule"),
    Column("kept"),
    Column("in"),
    Column("counts until", "moment"),
    Column("stood at"),
)


def _cooling(header: Header, reading: Reading) -> Iterator[Note]:
    """What earlier policies had promised, and is still kept for that."""
    if header.cooling_unknown and header.deletes:
        text = header.cooling_unknown
        if header.cooling_lifted:
            yield Note("?", "unsure", f"Lifted: {text}")
        else:
            text = f"The deletes of this plan are held back: {text}"
            hint = (
                "plan where that commit is (a clone that is not shallow), or, if nothing that was "
                "shortened is to count, `--lift cooling:policies`"
            )
            yield Note("!", "worry", text, hint)
    if header.cooled:
        rows = tuple(
            (
                each.rule,
                each.kept,
                each.store,
                moment_of(each.until) if each.until else None,
                each.at,
            )
            for each in header.cooled
        )
        counts = (
            "was shortened or taken out, and does not count any more: `--lift cooling:policies`"
            if header.cooling_lifted
            else "was shortened or taken out, and still counts as it was (`limits: cooling`)"
        )
        yield Note(
            "?",
            "unsure",
            f"{many(len(header.cooled), 'keep')} {counts}",
            parts=(Table("", _COOLED, rows),),
        )


def _doubts(header: Header) -> Iterator[Note]:
    """Why no delete may rest on a clock, a journal, or what lies in a store, or none may be made at
    all, and how a person says that it may."""
    if header.frozen and header.deletes:
        ends = "`retainer freeze --end --reason WHY` ends it"
        yield Note("!", "worry", f"No delete may be made: {header.frozen}", ends)
    for source in header.sources:
        reason = header.doubt(source)
        if reason is None:
            continue
        if reason.startswith("clock"):
            text, after = reason.removeprefix("clock: "), "set the clock, and plan again"
            if source.kind == "store":
                after += (
                    "; a folder's clock is the newest date of its files: correct that, or "
                    f"`--lift clock:{source.name}`"
                )
        elif reason.startswith("record"):
            text = f"{source.name}: {source.lost_record}"
            after = (
                "bring that journal back, or say that it is gone for good with `--lift "
                f"record:{source.name}`"
            )
        else:
            text = (
                f"{source.name} holds the recordings of another workspace ({source.customer}) "
                f"than these credentials see ({header.customer})"
            )
            after = f"use the other credentials, or `--lift workspace:{source.name}`"
        yield Note("!", "worry", f"No delete may be made: {text}", after)


def _holds_nothing(header: Header) -> Iterator[Note]:
    """Holds, rules and erasures that match no recording: misspelt ones protect and erase
    nothing."""
    idle = [item for item in header.items if not item.matches and not item.may_match]
    for item in header.items:
        if item.kind == "hold" and item in idle:
            yield Note(
                "!",
                "worry",
                f"The hold {item.id} ({item.at}) covers no recording that is known: is its "
                "match spelt as 100ms spells it (case, blanks)?",
            )
        elif item.kind == "hold" and not item.matches:
            yield Note(
                "?",
                "unsure",
                f"The hold {item.id} covers none for certain, and may cover "
                f"{many(item.may_match, 'recording')}.",
            )
    for unseen in header.unseen_keys:
        yield Note(
            "?",
            "unsure",
            f"No recording has the metadata `{unseen.key}` that {unseen.item} ({unseen.at}) asks "
            "for: is it spelt as 100ms spells it?",
        )
    for each in header.accepted:
        if not each.stores:
            yield Note(
                "?",
                "unsure",
                f"{each.at} accepts a partial copy of {each.asset_id}, and none is known: it has "
                "a whole one, or none",
            )
    others = [item for item in idle if item.kind != "hold"]
    if others:
        named = ", ".join(f"{item.kind} {item.id} ({item.at})" for item in others[:5])
        more = f" and {len(others) - 5:,} more" if len(others) > 5 else ""
        these = "This matches" if len(others) == 1 else "These match"
        yield Note("?", "unsure", f"{these} no recording that is known: {named}{more}.")


def _renamed(header: Header, names: Names) -> Iterator[Note]:
    for room in header.renamed[:5]:
        seen = names.get((room.room_id, room.what))
        how = (
            ", ".join(f"`{name}`" for name in seen)
            if seen
            else "several names (`retainer plan --names` tells them)"
        )
        whose = "" if room.what == "room" else "'s template"
        yield Note(
            "!",
            "worry",
            f"The room {room.room_id}{whose} was seen under {how}: what matches by name is not "
            f"certain of its {many(room.assets, 'recording')} "
            "where the names differ in that, so holds hold and deletes wait",
        )
    if len(header.renamed) > 5:
        yield Note(" ", "plain", f"… and {len(header.renamed) - 5:,} more rooms")
    for store in header.superseded:
        what = many(store.assets, "recording was", "recordings were")
        yield Note(
            "!",
            "worry",
            f"{what} overwritten in an upload bucket after being copied to {store.store}: "
            "they are copied beside the older copies, which stay",
        )


def _whose(header: Header, rule: str, at: str) -> str:
    why = next((item.why for item in header.items if item.id == rule), "")
    return f"{rule} ({at})" + (f": {why}" if why else "")


_GOING = (
    Column("recording", "id"),
    Column("type"),
    Column("size", "bytes"),
    Column("due since", "since"),
    Column("why then"),
    Column("last copy"),
)


def _deletes(header: Header, view: Overview, now: datetime, reading: Reading) -> Iterator[Block]:
    kept = {source.name: source.keeps_deleted for source in header.sources}
    removed = {source.name: source.keeps_removed for source in header.sources}
    erasures = {item.id: item for item in header.items if item.kind == "erasure"}
    for group in view.deletes:
        rule, at, store, for_good = group.key
        parts: list[Block] = []
        if for_good == "true":
            until = removed.get(store)
            parts.append(
                Prose(
                    "each with every version that the bucket keeps of it: "
                    + (f"recoverable only while {until}" if until else "nothing brings them back")
                )
            )
        elif how := kept.get(store):
            parts.append(Prose(f"hidden, and recoverable: {how}"))
        request = erasures.get(rule)
        if request:
            came = read_moment(request.requested or "")
            parts.append(
                Prose(f"erased, as requested on {since(came, reading.zone)}" if came else "erased")
            )
        rows = [_going(line, is_erased=request is not None) for line in group.lines]
        if for_good == "true":
            together = zip(rows, group.lines, strict=True)
            wide = [(*row, line.versions or 0) for row, line in together]
            parts += listed((*_GOING, Column("versions", "count")), wide, group.count, reading)
        else:
            parts += listed(_GOING, rows, group.count, reading)
        yield Note(
            "-",
            "bad",
            f"{_of(group.count, group.assets)} in {store}, {size(group.bytes)}, "
            f"by {_whose(header, rule, at)}",
            parts=tuple(parts),
        )


def _of(copies: int, recordings: int) -> str:
    """Copies as copies, and of how many recordings where those are fewer."""
    told = many(copies, "copy", "copies")
    return told if copies == recordings else f"{told} of {many(recordings, 'recording')}"


def _going(
    line: Line, *, is_erased: bool
) -> tuple[str, str | None, int | None, datetime | None, str, str]:
    """A row of what is deleted. What is erased is due whatever other rules say of its date."""
    due = None if is_erased else line.delete_from
    why = ""
    if not is_erased:
        why = f"{line.also} kept it until then" if line.also else "" if due else IN_DOUBT
    last = "THE LAST COPY" if line.last_copy else ""
    return line.asset_id, line.type, line.bytes, due, why, last


_LEAVING = (
    Column("recording", "id"),
    Column("type"),
    Column("to", "place"),
    Column("leaves", "moment"),
    Column("note"),
)


def _at_risk(view: Overview, now: datetime, reading: Reading) -> Iterator[Note]:
    if not view.at_risk_count:
        return
    leaves = view.first_leaves_at
    first = (
        ""
        if leaves is None
        else f", the first {relative(leaves, now)}"
        if leaves > now
        else ", some at any moment"
    )
    which = many(
        view.at_risk_count,
        "recording that is to be kept exists",
        "recordings that are to be kept exist",
    )
    rows = [
        (
            line.asset_id,
            line.type,
            line.store,
            line.leaves_at if line.leaves_at and line.leaves_at > now else None,
            _leaving_note(line, now, reading),
        )
        for line in view.at_risk
    ]
    yield Note(
        "!",
        "worry",
        f"At risk: {which} only at 100ms, and will be gone{first}",
        parts=listed(_LEAVING, rows, max(view.at_risk_count, len(rows)), reading),
    )


def _leaving_note(line: Line, now: datetime, reading: Reading) -> str:
    told = []
    if line.leaves_at is None or line.leaves_at <= now:
        ahead = line.created is not None and line.created > now + SKEW
        told.append(
            f"it was not made yet then (recorded {moment(line.created, reading.zone)})"
            if ahead
            else "leaves at any moment: its age is not known"
        )
    else:
        told.append(relative(line.leaves_at, now))
    if line.assumed:
        told.append("assumed: it lies in a bucket that nobody declared")
    return "; ".join(told)


_COMING = (
    Column("recording", "id"),
    Column("type"),
    Column("size", "bytes"),
    Column("from"),
    Column("to be made"),
    Column("locked until", "moment"),
)


def _copies(header: Header, view: Overview, now: datetime, reading: Reading) -> Iterator[Block]:
    for group in view.copies:
        rule, at, store, doubtful = group.key
        rows = [
            (
                line.asset_id,
                line.type,
                line.bytes,
                ORIGINS.get(line.source or "", line.source or ""),
                deadline(line.deadline, now, reading.zone) if line.deadline else "",
                line.lock_until,
            )
            for line in group.lines
        ]
        perhaps = doubtful == "true"
        yield Note(
            "+",
            "unsure" if perhaps else "good",
            f"{_of(group.count, group.assets)} to {store}, {size(group.bytes)}, "
            f"{'perhaps ' if perhaps else ''}for {_whose(header, rule, at)}",
            "it is not certain that this rule asks for them, such as by a room's name that could "
            "not be read; what is copied so is undone once it is certain"
            if perhaps
            else None,
            parts=listed(_COMING, rows, group.count, reading),
        )
    for target in header.targets:
        yield from _how_it_lies(target, reading)


def _how_it_lies(target: TargetState, reading: Reading) -> Iterator[Note]:
    if target.small:
        yield Note(
            " ",
            "plain",
            f"{target.small:,} of those to {target.name} are under {size(target.floor)} and stay "
            f"in the standard class: {target.storage_class} "
            "is billed as if they were that long",
        )
    if target.locked and target.lock_last:
        which = f"{many(target.locked, 'copy', 'copies')} ({target.lock})"
        yield _until(target, which, target.lock_last, who_unlocks(target.lock), reading)
    if target.unlocked:
        yield Note(
            " ",
            "plain",
            f"{many(target.unlocked, 'copy', 'copies')} to {target.name} cannot be locked: no "
            "end of a keep is known",
        )


def _until(target: TargetState, which: str, last: str, back: str, reading: Reading) -> Note:
    """Until when a store locks what, and who can take that back."""
    until = moment(moment_of(last), reading.zone)
    return Note("!", "worry", f"{target.name} locks {which}, the last until {until}: {back}")


_LONGER = (
    Column("recording", "id"),
    Column("type"),
    Column("size", "bytes"),
    Column("locked until", "moment"),
)


def _locks(header: Header, view: Overview, reading: Reading) -> Iterator[Block]:
    for group in view.locks:
        rule, at, store = group.key
        rows = [(line.asset_id, line.type, line.bytes, line.lock_until) for line in group.lines]
        yield Note(
            "=",
            "plain",
            f"{_of(group.count, group.assets)} in {store}, {size(group.bytes)}, kept for "
            f"{_whose(header, rule, at)}",
            "its lock ends before its keep does, or is not known yet",
            parts=listed(_LONGER, rows, group.count, reading),
        )
    for target in header.targets:
        if target.longer and target.longest:
            which = f"{many(target.longer, 'copy', 'copies')} longer"
            back = who_unlocks_of(target.longer, target.longer_final)
            yield _until(target, which, target.longest, back, reading)


def _named(group: Group, *, with_store: bool = False) -> Note:
    """The first five recordings of a group that someone should look at."""
    return few(
        [
            line.asset_id
            + (f" in {line.store}" if with_store else "")
            + (f", by {line.rule}" if line.rule and with_store else "")
            for line in group.lines[:5]
        ],
        group.count,
    )


def _uncovered(view: Overview) -> Iterator[Note]:
    for group in view.uncovered:
        (store,) = group.key
        which = f"{many(group.count, 'recording')}, {size(group.bytes)}"
        yield Note(
            "!",
            "worry",
            f"Due in {store}, but left alone: {which}: among its objects is one that no other "
            "copy has; look at it, and move it away",
            parts=(_named(group),),
        )


def _archived(view: Overview) -> Iterator[Note]:
    for group in view.archived:
        source, store = group.key
        which = (
            f"{many(group.count, 'recording is', 'recordings are')} to be copied to {store}, "
            f"{size(group.bytes)}"
        )
        yield Note(
            "!",
            "worry",
            f"Archived: {which}, and must be restored in {source} first: `retainer apply PLAN "
            "--restore` asks for it; plan again in some hours",
            parts=(_named(group),),
        )


def _blocked(view: Overview) -> Iterator[Block]:
    for group in view.blocked:
        because, hold = group.key
        reasons = "; ".join(
            held_by(hold, group.count) if reason == "hold" else BECAUSE.get(reason, reason)
            for reason in because.split(", ")
        )
        yield Note(
            "!",
            "worry",
            f"{_of(group.count, group.assets)}, {size(group.bytes)}: {reasons}",
            parts=(_named(group, with_store=True),),
        )


def _others(view: Overview) -> Iterator[Note]:
    for group in view.others:
        decision, store, reasons = group.key
        because = reasons.split(", ")
        if "accepted" in because or "told" in because:
            how = "accepted" if "accepted" in because else "told before (`retainer show`)"
            yield Note("!", "plain", f"Lost: {group.count:,} for {store}, {how}")
            continue
        why = OTHERS.get(because[0], OTHERS[decision])
        yield Note(
            "!",
            "worry",
            f"{decision.capitalize()}: {group.count:,} for {store}: {why}",
            parts=(_named(group),),
        )


def _clashes(header: Header) -> Iterator[Note]:
    for clash in header.clashes:
        lift = (
            "lifted"
            if clash.lifted
            else f"deletes are held back; change one of them, or `{clash.lift}`"
        )
        yield Note(
            "!",
            "worry",
            f"Clash: {clash.keep} keeps {many(clash.assets, 'recording')} longer than "
            f"{clash.ceiling} allows. The keep wins; {lift}",
        )


def _held(header: Header) -> Iterator[Block]:
    """What stands beside the rules: each hold and erasure, and over how many recordings."""
    rows = [
        (each.kind, each.id, each.matches, each.may_match or None, each.at, each.why)
        for each in header.items
        if each.kind in ("hold", "erasure") and (each.matches or each.may_match)
    ]
    if rows:
        columns = (
            Column("what"),
            Column("id"),
            Column("recordings", "count"),
            Column("perhaps", "count"),
            Column("at"),
            Column("why"),
        )
        yield Table("", columns, tuple(rows))


def _besides(header: Header) -> Iterator[Note]:
    for each in header.accepted:
        if each.stores:
            yield Note(
                "=",
                "plain",
                f"The partial copy of {each.asset_id} in {', '.join(each.stores)} counts "
                f"({each.at}: {each.why}): {each.partial[0]}",
            )
    if header.uncovered:
        yield Note(
            "?",
            "plain",
            f"No rule covers {many(header.uncovered, 'recording')}, "
            f"{size(header.uncovered_bytes)}.",
        )
    for source in header.sources:
        if source.kind == "store" and source.strays:
            yield Note(
                "?",
                "plain",
                f"{source.name} holds {many(source.strays, 'object')} of no known recording, "
                f"{size(source.stray_bytes)}. They are never touched.",
            )
    for bucket in header.undeclared:
        yield Note("?", "unsure", _undeclared(bucket))
    for source in header.sources:
        if source.complete and source.note:
            yield Note("?", "unsure", f"{source.name}: {source.note}")
        if source.weak:
            yield Note("?", "unsure", _weakness(source))


def _undeclared(bucket: Undeclared) -> str:
    """Where recordings are said to lie that no settings name, and what can be done."""
    lie = many(bucket.assets, "recording is", "recordings are")
    if bucket.bucket == NO_PATH:
        which = many(bucket.assets, "recording")
        return f"100ms tells no path of {which}: what it has is asked for by id."
    said = (
        f"Nobody declared {bucket.bucket}, where {lie} said to lie. If it is 100ms's own, add it "
        "to `source.hosted` in retainer.yaml; "
    )
    if bucket.bucket.startswith(SCHEMES):
        return said + "if it is yours, declare it as a store with `layout: 100ms`."
    return (
        f"{said}if it is yours, retainer cannot change what lies there: it copies from it through "
        "100ms's addresses, each file by itself, and no unzipped HLS."
    )


def _weakness(source: SourceState) -> str:
    """What a store lacks, and how much of the plan is not possible there for it."""
    copies, deletes = source.copies_not_possible, source.deletes_not_possible
    told = [many(copies, "copy", "copies")] if copies else []
    told += [many(deletes, "delete")] if deletes else []
    lost = f". Not possible for that: {' and '.join(told)} of this plan" if told else ""
    return f"{source.name} {source.weak}{lost}"


def _unfinished(header: Header) -> Iterator[Note]:
    """The listings that did not finish, each cause once."""
    causes: dict[str, list[SourceState]] = {}
    for source in header.sources:
        if not source.complete:
            causes.setdefault(source.note or "no reason was given", []).append(source)
    for cause, sources in causes.items():
        names = [source.name for source in sources]
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        which = (
            f"{names[0]} did not finish"
            if len(names) == 1
            else f"{', '.join(names[:5])}{more}: {len(names)} listings did not finish"
        )
        yield Note(
            "!", "worry", f"{which} after {sum(each.objects for each in sources):,}: {cause}"
        )


def _limit_value(name: str, value: float) -> str:
    return (
        size(value) if name == "bytes" else f"{value:g} %" if name == "percent" else f"{value:,.0f}"
    )


def _limit(limit: LimitState) -> str:
    if limit.name == "empty":
        return f"emptying of {limit.scope.replace(':', ' ')}"
    return f"{limit.name} of {limit.scope.replace(':', ' ')}"


def _used(limit: LimitState) -> str:
    used = f"{_limit_value(limit.name, limit.used)} of {_limit_value(limit.name, limit.allowed)}"
    unjudged = limit.name == "percent" and limit.used > limit.allowed and not limit.breached
    return used + (" (counted from 20 deletes on)" if unjudged else "")


def _breaches(header: Header, view: Overview, now: datetime, reading: Reading) -> Iterator[Note]:
    breached = [limit for limit in header.limits if limit.breached]
    if not breached:
        return
    rows = tuple(
        Note(
            "!",
            "worry",
            f"{_limit(limit)}: {_used(limit)}; "
            + ("lifted" if limit.lifted else f"`{limit.lift}` lifts it"),
        )
        for limit in breached
    )
    held = not all(limit.lifted for limit in breached)
    text = "Limits are breached" + (
        ": the deletes of this plan are held back, its copies can run." if held else ", and lifted."
    )
    yield Note("!", "worry", text, until_when(breached, now, reading), parts=rows)


def until_when(limits: Sequence[LimitState], now: datetime, reading: Reading) -> str | None:
    """When what is held back may be free by itself: once the deletes of the last 24 hours are
    older, where the plan alone would fit. None where a person has to lift it."""
    held = [limit for limit in limits if limit.breached and not limit.lifted]
    if not held:
        return None
    if any(limit.used - limit.lately > limit.allowed or not limit.lately for limit in held):
        return "it stays so until the policies or `limits:` change, or a person lifts it"
    at = moment(now + timedelta(hours=24), reading.zone)
    return (
        f"what was deleted in the last 24 hours counts too: plan again by {at}, when that is over"
    )


def _limits(header: Header) -> Iterator[Block]:
    if not header.limits:
        return
    yield Table(
        "",
        (Column("limit"), Column("used of allowed"), Column("")),
        tuple(
            (
                _limit(limit),
                _used(limit),
                ("lifted" if limit.lifted else "breached") if limit.breached else "",
            )
            for limit in sorted(header.limits, key=lambda limit: not limit.breached)
        ),
    )
    known = {
        "journal": "with the deletes of the last 24 hours, here and on other machines",
        "stores": "with the deletes of the last 24 hours that the stores remember; there is no "
        "journal here",
        "nothing": "without the deletes of the last 24 hours: there is no journal here, and no "
        "store remembers any",
    }.get(header.remembered)
    if known:
        yield Prose(f"({known})", is_aside=True)


def _totals(header: Header, view: Overview) -> Iterator[Block]:
    rows = [
        ("{} {}".format(*DECISIONS.get(decision, (" ", decision))), count, total)
        for decision, count, total in view.totals
    ]
    everything = (
        "  all",
        sum(count for _, count, _ in view.totals),
        sum(total for _, _, total in view.totals),
    )
    yield Table(
        "",
        (Column("decision"), Column("pairs", "count"), Column("size", "bytes")),
        (*rows, everything),
    )
    if header.monthly is not None:
        without = f"; {', '.join(header.unpriced)} not counted" if header.unpriced else ""
        yield Prose(f"storage then {cost_of(header.monthly)} (an estimate{without})", is_aside=True)
    if view.out_of_scope:
        yield Prose(
            f"besides, {many(view.out_of_scope, 'action lies', 'actions lie')} outside --only, "
            "and not in the plan"
        )


def _itself(header: Header, fingerprint: str, reading: Reading) -> Iterator[Block]:
    commit = header.git_commit
    policies = (
        "not under version control"
        if commit is None
        else f"commit {commit[:12]}"
        + (", with changes that are not committed" * bool(header.git_dirty))
    )
    yield Facts(
        (
            ("fingerprint", fingerprint),
            ("policies", policies),
            ("facts", f"gathered {moment(moment_of(header.created), reading.zone)}"),
            ("expires", moment(moment_of(header.expires), reading.zone)),
            ("made by", f"retainer {header.tool}, DuckDB {header.duckdb}, tzdata {header.zones}"),
        )
    )


_WORRIES = {
    "lost": "lost",
    "uncatalogued": "uncatalogued (`retainer catalog rebuild STORE`)",
    "unknown": "unknown",
}
"""What is not well where there is nothing to do, by decision."""


def _next(
    header: Header, view: Overview, path: str, now: datetime, reading: Reading, applied: bool
) -> Iterator[Block]:
    if applied:
        yield Prose("Next: nothing: this plan was applied, to its end.")
        return
    if unusable := not_applicable(header, now, reading):
        yield Prose(f"Next: nothing can be done with this plan: {unusable}.")
        return
    if not header.copies and not header.deletes and not header.locks:
        yield Prose(_nothing_to_do(header, view))
        return
    if not header.copies and not header.locks and header.held_back:
        stays = until_when(header.limits, now, reading)
        yield Prose(
            "Next: nothing that this plan can do: its deletes are held back"
            + (f"; {stays}" if stays else "")
        )
        return
    held = "; its deletes are held back" if header.held_back and header.deletes else ""
    approve = (
        f" --approve-deletes {header.deletes}" if header.deletes and not header.held_back else ""
    )
    yield Command(
        f"retainer apply {path}{approve}",
        f"before {moment(moment_of(header.expires), reading.zone)}{held}",
    )


def _nothing_to_do(header: Header, view: Overview) -> str:
    worrying: dict[str, int] = {}
    for group in view.others:
        decision, _, because = group.key
        if decision in _WORRIES and "accepted" not in because:
            worrying[decision] = worrying.get(decision, 0) + group.count
    worries = [f"{count:,} {_WORRIES[decision]}" for decision, count in worrying.items()]
    if view.at_risk_count:
        worries.append(f"{view.at_risk_count:,} at risk")
    if view.lapsing[0]:
        worries.append(f"{view.lapsing[0]:,} leave 100ms, since no rule keeps them")
    if header.incomplete:
        return (
            "Next: retainer plan, when what did not finish can be read again. Until then "
            "nothing is to be done."
        )
    if worries:
        return f"Next: nothing that retainer can do, and not all is well: {'; '.join(worries)}"
    return "Next: nothing. The stores are as the policies want them."
