"""Plans, explanations, diagnostics and summaries as text for a terminal or a log. No meaning is
carried by colour alone."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from retainer.model.diagnostic import Diagnostic
from retainer.model.explanation import Explanation, Pair, Stage
from retainer.model.moment import read_moment
from retainer.model.outcome import Census, Outcome, Summary, Trouble
from retainer.model.printable import printable, shown
from retainer.model.setting import NO_PATH, SCHEMES
from retainer.views.units import many, moment, relative, size, span

if TYPE_CHECKING:
    from retainer.planfile import (
        Group,
        Header,
        Line,
        Overview,
        SourceState,
        TargetState,
        Undeclared,
    )

_COLOURS = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "bold": "1", "dim": "2"}


@dataclass(frozen=True, slots=True)
class Page:
    """How text is laid out: its width in columns, and whether colour may be used."""

    width: int = 100
    colour: bool = False

    def paint(self, text: str, *styles: str) -> str:
        codes = ";".join(_COLOURS[style] for style in styles)
        return f"\x1b[{codes}m{text}\x1b[0m" if self.colour and codes else text

    def wrapped(self, text: str, indent: str = "", hanging: str = "") -> str:
        return textwrap.fill(
            text,
            max(self.width, 40),
            initial_indent=indent,
            subsequent_indent=hanging or indent,
            break_long_words=False,
            break_on_hyphens=False,
        )


BECAUSE = {
    "hold": "a hold may cover them",
    "lock": "the bucket locks them, or its locks could not be read",
    "untrusted-time": "nobody knows how old they are",
    "unknown": "a listing did not finish, so a copy that matters may exist unseen",
    "unsatisfied": "a copy that is required elsewhere is not complete yet",
    "shared": "another asset names the same object and may not go",
    "doubtful": "what asks for it is not certain, and 100ms has it for a while yet",
}
IN_DOUBT = "copied in doubt, and the rule is certain by now not to ask for it"
ORIGINS = {"hosted": "100ms", "elsewhere": "a bucket nobody declared, through 100ms"}


def _moment_of(text: str) -> datetime:
    return read_moment(text) or datetime.max.replace(tzinfo=UTC)


Names = Mapping[tuple[str, str], Sequence[str]]
"""The names that a room (or its template) was seen with, by its id and which of the two; empty for
eyes that may not see them."""


def plan_text(
    header: Header,
    view: Overview,
    page: Page,
    fingerprint: str,
    path: str,
    names: Names | None = None,
) -> str:
    """A plan as people review it: what speaks against it first, then deletes, what is at risk, and
    the rest."""
    header, view, path, names = (
        header.shown(),
        shown(view),
        printable(path),
        shown(dict(names or {})),
    )
    now = _moment_of(header.as_of)
    out: list[str] = []
    title = f"Plan {header.plan_id}, as of {moment(now)}" + (
        f", only {header.scope}" if header.scope else ""
    )
    out += [page.paint(title, "bold"), ""]
    out += _lapsing(view, page, now)
    out += _doubts(header, page)
    out += _holds_nothing(header, page)
    out += _renamed(header, page, names)
    out += _deletes(header, view, page, now)
    out += _at_risk(view, page, now)
    out += _copies(header, view, page, now)
    out += _archived(view, page)
    out += _uncovered(view, page)
    out += _blocked(view, page)
    out += _others(view, page)
    out += _clashes(header, page)
    out += _not_covered(header, page)
    out += _sources(header, page)
    out += _limits(header, page)
    out += _totals(header, view, page)
    out += _next(header, view, page, path, fingerprint)
    return "\n".join(out) + "\n"


def _lapsing(view: Overview, page: Page, now: datetime) -> Iterator[str]:
    """What will be gone since nothing asks for it: nobody may have thought of it."""
    count, total, first = view.lapsing
    if not count:
        return
    when = f", the first {relative(first, now)}" if first and first > now else ""
    text = (
        f"! No rule keeps {many(count, 'recording')} that only 100ms has, {size(total)}: "
        f"{'it leaves' if count == 1 else 'they leave'} there without a copy{when}"
    )
    yield page.wrapped(page.paint(text, "yellow", "bold"), "", "  ")
    yield ""


def _doubts(header: Header, page: Page) -> Iterator[str]:
    """Why no delete may rest on a clock, a journal, or what lies in a store, and how a person says
    that it may."""
    told = False
    for source in header.sources:
        reason = header.doubt(source)
        if reason is None:
            continue
        told = True
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
        yield page.wrapped(
            page.paint(f"! No delete may be made: {text}", "yellow", "bold"), "", "  "
        )
        yield page.wrapped(f"hint: {after}", "  ", "        ")
    if told:
        yield ""


def _holds_nothing(header: Header, page: Page) -> Iterator[str]:
    """Holds, rules and erasures that match no recording: misspelt ones protect and erase
    nothing."""
    idle = [item for item in header.items if not item.matches and not item.may_match]
    for item in idle:
        if item.kind == "hold":
            text = (
                f"! The hold {item.id} ({item.at}) covers no recording that is known: is its "
                "match spelt as 100ms spells it (case, blanks)?"
            )
            yield page.wrapped(page.paint(text, "yellow", "bold"), "", "  ")
    for item in header.items:
        if item.kind == "hold" and not item.matches and item.may_match:
            yield page.wrapped(
                f"? The hold {item.id} covers none for certain, and may cover "
                f"{many(item.may_match, 'recording')}.",
                "",
                "  ",
            )
    for unseen in header.unseen_keys:
        yield page.wrapped(
            f"? No recording has the metadata `{unseen.key}` that {unseen.item} ({unseen.at}) asks "
            "for: is it spelt as 100ms spells it?",
            "",
            "  ",
        )
    for each in header.accepted:
        if each.stores:
            text = (
                f"= The partial copy of {each.asset_id} in {', '.join(each.stores)} counts "
                f"({each.at}: {each.why}): {each.partial[0]}"
            )
        else:
            text = (
                f"? {each.at} accepts a partial copy of {each.asset_id}, and none is known: it has "
                "a whole one, or none"
            )
        yield page.wrapped(text, "", "  ")
    if header.accepted or header.unseen_keys:
        yield ""
    others = [item for item in idle if item.kind != "hold"]
    if others:
        few = ", ".join(f"{item.kind} {item.id} ({item.at})" for item in others[:5]) + (
            f" and {len(others) - 5:,} more" if len(others) > 5 else ""
        )
        yield page.wrapped(
            f"? {'This matches' if len(others) == 1 else 'These match'} no recording that is "
            f"known: {few}.",
            "",
            "  ",
        )
    if idle:
        yield ""


def _renamed(header: Header, page: Page, names: Names) -> Iterator[str]:
    for room in header.renamed[:5]:
        seen = names.get((room.room_id, room.what))
        how = (
            ", ".join(f"`{name}`" for name in seen)
            if seen
            else "several names (`retainer plan --names` tells them)"
        )
        whose = "" if room.what == "room" else "'s template"
        text = (
            f"! The room {room.room_id}{whose} was seen under {how}: what matches by name is not "
            f"certain of its {many(room.assets, 'recording')} "
            "where the names differ in that, so holds hold and deletes wait"
        )
        yield page.wrapped(page.paint(text, "yellow"), "", "  ")
    if len(header.renamed) > 5:
        yield f"  … and {len(header.renamed) - 5:,} more"
    for store in header.superseded:
        what = many(store.assets, "recording was", "recordings were")
        text = (
            f"! {what} overwritten in an upload bucket after being copied to {store.store}: "
            "they are copied beside the older copies, which stay"
        )
        yield page.wrapped(page.paint(text, "yellow"), "", "  ")
    if header.renamed or header.superseded:
        yield ""


def _rows(
    group: Group, page: Page, sign: str, colour: str, tail: object, now: datetime
) -> Iterator[str]:
    for line in group.lines:
        words = [line.asset_id, line.type or "", size(line.bytes)]
        extra = tail(line, now) if callable(tail) else ""
        yield page.wrapped(
            " ".join(filter(None, [*words, extra])), f"    {page.paint(sign, colour)} ", "        "
        )
    if group.count > len(group.lines):
        yield (
            f"      … and {group.count - len(group.lines):,} more (`retainer show PLAN --format "
            "json` lists every one)"
        )


def _few(group: Group, page: Page, *, with_store: bool = False) -> Iterator[str]:
    """The first five recordings of a group that someone should look at."""
    for line in group.lines[:5]:
        place, rule = (
            f" in {line.store}" if with_store else "",
            f", by {line.rule}" if line.rule else "",
        )
        yield f"    {page.paint('!', 'yellow')} {line.asset_id}{place}{rule}"
    if group.count > 5:
        yield f"      … and {group.count - 5:,} more"


def _whose(header: Header, rule: str, at: str) -> str:
    why = next((item.why for item in header.items if item.id == rule), "")
    return f"{rule} ({at})" + (f": {why}" if why else "")


def _deletes(header: Header, view: Overview, page: Page, now: datetime) -> Iterator[str]:
    if not header.deletes:
        yield f"{page.paint('-', 'red')} Nothing is deleted."
        yield ""
        return
    last = (
        f"; {many(header.last_copies, 'takes', 'take')} the last copy anywhere"
        if header.last_copies
        else ""
    )
    yield page.wrapped(
        page.paint(
            f"- Delete {many(header.deletes, 'copy', 'copies')}, {size(header.delete_bytes)}{last}",
            "red",
            "bold",
        ),
        "",
        "  ",
    )
    kept = {source.name: source.keeps_deleted for source in header.sources}
    erasures = {item.id for item in header.items if item.kind == "erasure"}
    for group in view.deletes:
        rule, at, store = group.key
        yield page.wrapped(
            f"{many(group.count, 'copy', 'copies')} in {store}, {size(group.bytes)}, by "
            f"{_whose(header, rule, at)}",
            "  ",
            "    ",
        )

        if how := kept.get(store):
            yield page.wrapped(f"hidden, and recoverable: {how}", "    ", "    ")

        def due(line: Line, now: datetime) -> str:
            why = "erased" if line.rule in erasures else IN_DOUBT
            since = f"due since {moment(line.delete_from)}" if line.delete_from else why
            return since + (", THE LAST COPY" if line.last_copy else "")

        yield from _rows(group, page, "-", "red", due, now)
    yield ""


def _at_risk(view: Overview, page: Page, now: datetime) -> Iterator[str]:
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
    headline = f"! At risk: {which} only at 100ms, and will be gone{first}"
    yield page.wrapped(page.paint(headline, "yellow", "bold"), "", "  ")
    for line in view.at_risk:
        assumed = " (assumed: it lies in a bucket that nobody declared)" if line.assumed else ""
        known = line.leaves_at is not None and line.leaves_at > now
        when = "leaves at any moment: its age is not known"
        if known and line.leaves_at:
            when = f"leaves {moment(line.leaves_at)}, {relative(line.leaves_at, now)}"
        text = f"{line.asset_id} {line.type or ''} to {line.store}, {when}{assumed}"
        yield page.wrapped(text, f"    {page.paint('!', 'yellow')} ", "        ")
    if view.at_risk_count > len(view.at_risk):
        yield f"      … and {view.at_risk_count - len(view.at_risk):,} more"
    yield ""


def _copies(header: Header, view: Overview, page: Page, now: datetime) -> Iterator[str]:
    if not header.copies:
        yield f"{page.paint('+', 'green')} Nothing is copied."
        yield ""
        return
    yield page.paint(
        f"+ Copy {many(header.copies, 'recording')}, {size(header.copy_bytes)}", "green", "bold"
    )
    for group in view.copies:
        rule, at, store = group.key
        yield page.wrapped(
            f"{group.count:,} to {store}, {size(group.bytes)}, for {_whose(header, rule, at)}",
            "  ",
            "    ",
        )

        def when(line: Line, now: datetime) -> str:
            origin = f"from {ORIGINS.get(line.source or '', line.source or '')}"
            locked = f", locked until {moment(line.lock_until)}" if line.lock_until else ""
            return origin + (f", {_deadline(line.deadline, now)}" if line.deadline else "") + locked

        yield from _rows(group, page, "+", "green", when, now)
    for target in header.targets:
        for note in _how_it_lies(target):
            yield page.wrapped(note, "  ", "    ")
    yield ""


def _how_it_lies(target: TargetState) -> Iterator[str]:
    if target.small:
        yield (
            f"{target.small:,} of those to {target.name} are under {size(target.floor)} and stay "
            f"in the standard class: {target.storage_class} "
            "is billed as if they were that long"
        )
    if target.locked and target.lock_last:
        back = (
            "nobody can take that back"
            if target.lock == "compliance"
            else "only someone with the right to bypass governance can take that back"
        )
        last = moment(_moment_of(target.lock_last))
        yield (
            f"! {target.name} locks {many(target.locked, 'copy', 'copies')} ({target.lock}), the "
            f"last until {last}: {back}"
        )
    if target.unlocked:
        yield (
            f"{many(target.unlocked, 'copy', 'copies')} to {target.name} cannot be locked: no "
            "end of a keep is known"
        )


def _uncovered(view: Overview, page: Page) -> Iterator[str]:
    for group in view.uncovered:
        (store,) = group.key
        which = f"{many(group.count, 'recording')}, {size(group.bytes)}"
        text = (
            f"! Due in {store}, but left alone: {which}: among its objects is one that no other "
            "copy has; look at it, and move it away"
        )
        yield page.wrapped(page.paint(text, "yellow"), "", "  ")
        yield from _few(group, page)
        yield ""


def _archived(view: Overview, page: Page) -> Iterator[str]:
    for group in view.archived:
        source, store = group.key
        which = (
            f"{many(group.count, 'recording is', 'recordings are')} to be copied to {store}, "
            f"{size(group.bytes)}"
        )
        text = (
            f"! Archived: {which}, and must be restored in {source} first: `retainer apply PLAN "
            "--restore` asks for it; plan again in some hours"
        )
        yield page.wrapped(page.paint(text, "yellow"), "", "  ")
        yield from _few(group, page)
        yield ""


def _deadline(deadline: datetime, now: datetime) -> str:
    late = (
        f"overdue by {span(now - deadline)}"
        if deadline < now
        else "at once"
        if deadline == now
        else relative(deadline, now)
    )
    return f"by {moment(deadline)} ({late})"


def _blocked(view: Overview, page: Page) -> Iterator[str]:
    if not view.blocked:
        return
    yield page.paint(
        "! Due, but left alone: "
        f"{many(sum(group.count for group in view.blocked), 'copy', 'copies')}",
        "yellow",
        "bold",
    )
    for group in view.blocked:
        reasons = "; ".join(BECAUSE.get(reason, reason) for reason in group.key[0].split(", "))
        yield page.wrapped(f"{group.count:,}, {size(group.bytes)}: {reasons}", "  ", "    ")
        yield from _few(group, page, with_store=True)
    yield ""


_OTHERS = {
    "lost": "no copy is left anywhere that retainer can read, and 100ms has dropped it",
    "partial": (
        "only a part could be had before 100ms dropped it; look at it, and "
        "`retainer accept ID --reason WHY` lets it count"
    ),
    "uncatalogued": (
        "something lies under its key that the catalog does not vouch for; `retainer "
        "catalog rebuild STORE` looks at it"
    ),
    "unknown": "whether a copy exists is not known, since a listing did not finish",
    "waiting": "it is less than 7 days old, and 100ms may still deliver it there",
    "doubtful": (
        "what asks for it is not certain, such as by the name of a room that is not known; it is "
        "copied from four days before 100ms drops it"
    ),
}


def _others(view: Overview, page: Page) -> Iterator[str]:
    for group in view.others:
        decision, store, reasons = group.key
        because = reasons.split(", ")
        if "accepted" in because or "told" in because:
            how = "accepted" if "accepted" in because else "told before (`retainer show`)"
            yield page.wrapped(f"! Lost: {group.count:,} for {store}, {how}", "", "  ")
            continue
        why = _OTHERS.get(because[0], _OTHERS[decision])
        yield page.wrapped(
            page.paint(f"! {decision.capitalize()}: {group.count:,} for {store}: {why}", "yellow"),
            "",
            "  ",
        )
        yield from _few(group, page)
    if view.others:
        yield ""


def _clashes(header: Header, page: Page) -> Iterator[str]:
    for clash in header.clashes:
        lift = (
            "lifted"
            if clash.lifted
            else f"the deletes of this plan are held back; change one of them, or `{clash.lift}`"
        )
        text = (
            f"! Clash: {clash.keep} keeps {many(clash.assets, 'recording')} longer than "
            f"{clash.ceiling} allows. The keep wins; {lift}"
        )
        yield page.wrapped(page.paint(text, "yellow"), "", "  ")
        yield ""


def _not_covered(header: Header, page: Page) -> Iterator[str]:
    if header.uncovered:
        yield page.wrapped(
            f"? No rule covers {many(header.uncovered, 'recording')}, "
            f"{size(header.uncovered_bytes)}.",
            "",
            "  ",
        )
    strays = [source for source in header.sources if source.kind == "store" and source.strays]
    for source in strays:
        text = (
            f"? {source.name} holds {many(source.strays, 'object')} of no known recording, "
            f"{size(source.stray_bytes)}. They are never touched."
        )
        yield page.wrapped(text, "", "  ")
    for bucket in header.undeclared:
        yield page.wrapped(_undeclared(bucket), "", "  ")
    if header.uncovered or strays or header.undeclared:
        yield ""


def _undeclared(bucket: Undeclared) -> str:
    """Where recordings are said to lie that no settings name, and what can be done."""
    lie = many(bucket.assets, "recording is", "recordings are")
    if bucket.bucket == NO_PATH:
        which = many(bucket.assets, "recording")
        return f"? 100ms tells no path of {which}: what it has is asked for by id."
    said = (
        f"? Nobody declared {bucket.bucket}, where {lie} said to lie. If it is 100ms's own, add it "
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
    return f"? {source.name} {source.weak}{lost}"


def _sources(header: Header, page: Page) -> Iterator[str]:
    unfinished = [source for source in header.sources if not source.complete]
    if unfinished:
        text = "! The facts are incomplete: no delete that could be concerned is in this plan."
        yield page.paint(text, "yellow", "bold")
    for source in header.sources:
        if not source.complete:
            yield page.wrapped(
                f"! {source.name} did not finish after {source.objects:,}: "
                f"{source.note or 'no reason was given'}",
                "    ",
                "      ",
            )
        elif source.note:
            yield page.wrapped(f"? {source.name}: {source.note}", "    ", "      ")
        if source.weak:
            yield page.wrapped(_weakness(source), "    ", "      ")
    if any(not source.complete or source.note or source.weak for source in header.sources):
        yield ""


def _limit_value(name: str, value: float) -> str:
    return (
        size(value) if name == "bytes" else f"{value:g} %" if name == "percent" else f"{value:,.0f}"
    )


def _limits(header: Header, page: Page) -> Iterator[str]:
    breached = [limit for limit in header.limits if limit.breached]
    if breached:
        yield page.paint(
            "! Limits are breached: the deletes of this plan are held back, its copies can run.",
            "yellow",
            "bold",
        )
    for limit in header.limits:
        unjudged = limit.name == "percent" and limit.used > limit.allowed and not limit.breached
        value = (
            f"{_limit_value(limit.name, limit.used)} of {_limit_value(limit.name, limit.allowed)}"
        )
        what = f"{limit.name} of {limit.scope.replace(':', ' ')}: {value}" + (
            " (counted from 20 deletes on)" if unjudged else ""
        )
        if limit.breached:
            yield page.wrapped(
                f"! {what}; " + ("lifted" if limit.lifted else f"`{limit.lift}` lifts it"),
                "    ",
                "      ",
            )
        else:
            yield f"    {page.paint(what, 'dim')}"
    if header.limits:
        yield page.paint(
            "    (with the deletes of the last 24 hours, here and on other machines)", "dim"
        )
        yield ""


_WORDS = {
    "copy": "+ copy",
    "delete": "- delete",
    "keep": "= keep",
    "blocked": "! blocked",
    "lost": "! lost",
    "uncatalogued": "! uncatalogued",
    "unknown": "! unknown",
    "waiting": "! waiting",
    "unmanaged": "? unmanaged",
    "lapses": ". lapses at 100ms",
    "none": ". nothing to do",
}


def _totals(header: Header, view: Overview, page: Page) -> Iterator[str]:
    yield page.paint("Totals, in pairs of a recording and a place", "bold")
    for decision, count, total in view.totals:
        yield f"    {_WORDS.get(decision, decision):<20} {count:>11,}  {size(total):>9}"
    yield (
        f"    {'  all':<20} {sum(count for _, count, _ in view.totals):>11,}  "
        f"{size(sum(total for _, _, total in view.totals)):>9}"
    )
    if view.out_of_scope:
        yield (
            f"    of these, {many(view.out_of_scope, 'action lies', 'actions lie')} outside "
            "--only, and not in the plan"
        )
    yield ""


_WORRIES = {
    "lost": "lost",
    "uncatalogued": "uncatalogued (`retainer catalog rebuild STORE`)",
    "unknown": "unknown",
}
"""What is not well where there is nothing to do, by decision."""


def _next(header: Header, view: Overview, page: Page, path: str, fingerprint: str) -> Iterator[str]:
    if not header.copies and not header.deletes:
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
            yield (
                "Next: retainer plan, when what did not finish can be read again. Until then "
                "nothing is to be done."
            )
        elif worries:
            yield page.wrapped(
                f"Next: nothing that retainer can do, and not all is well: {'; '.join(worries)}"
            )
        else:
            yield "Next: nothing. The stores are as the policies want them."
        return
    held = "; its deletes are held back" if header.held_back and header.deletes else ""
    approve = (
        f" --approve-deletes {header.deletes}" if header.deletes and not header.held_back else ""
    )
    yield page.wrapped(f"Fingerprint {fingerprint}")
    yield f"Next: retainer apply {path}{approve}"
    yield f"      before {moment(_moment_of(header.expires))}{held}"


def mistakes_text(mistakes: Sequence[Diagnostic], page: Page) -> str:
    """Every mistake with its place, the line underlined, and a hint; warnings first."""
    out: list[str] = []
    for mistake in sorted(mistakes, key=lambda mistake: not mistake.is_warning):
        span = mistake.span
        word = (
            page.paint("warning", "yellow", "bold")
            if mistake.is_warning
            else page.paint("error", "red", "bold")
        )
        out.append(
            f"{word}[{mistake.code}] {printable(mistake.file)}:{span.line}:{span.column}: "
            f"{printable(mistake.message)}"
        )
        if mistake.text:
            gutter = f"{span.line:>5} | "
            text, column, width = _windowed(*_escaped(mistake), page.width - len(gutter))
            out.append(page.paint(gutter, "dim") + text)
            out.append(
                page.paint(" " * 6 + "| ", "dim")
                + " " * (column - 1)
                + page.paint("^" * max(1, width), "red")
            )
        if mistake.hint:
            out.append(
                page.wrapped(f"hint: {printable(mistake.hint)}", "        ", "              ")
            )
    wrong = [mistake for mistake in mistakes if not mistake.is_warning]
    out.append("")
    if wrong:
        files = len({mistake.file for mistake in wrong})
        out.append(
            f"{many(len(wrong), 'mistake')} in {many(files, 'file')}. `retainer help CODE` "
            "explains a code."
        )
    return "\n".join(out) + "\n"


def _escaped(mistake: Diagnostic) -> tuple[str, int, int]:
    """The line of a mistake as it can be shown, and where the mistake stands in it: its column from
    1, and its width."""
    text, start = mistake.text.rstrip().replace("\t", " "), mistake.span.column - 1
    before, wrong, after = (
        printable(text[part])
        for part in (
            slice(start),
            slice(start, start + _width(mistake)),
            slice(start + _width(mistake), None),
        )
    )
    return before + wrong + after, len(before) + 1, len(wrong)


def _width(mistake: Diagnostic) -> int:
    span = mistake.span
    return (
        span.end_column - span.column
        if span.end_line == span.line
        else len(mistake.text.rstrip()) - span.column + 1
    )


def _windowed(text: str, column: int, width: int, room: int) -> tuple[str, int, int]:
    """The part of a long line around its mistake: the text, and where the mistake stands in it."""
    start = 0 if column - 1 + width <= room else max(0, column - 1 - room // 3)
    shown = text[start : start + max(room, 20)]
    return shown, column - start, max(1, min(width, len(shown) - (column - start) + 1))


def table(rows: Iterable[Sequence[str]], indent: str = "  ") -> str:
    """Columns side by side, each as wide as its widest text."""
    listed = [list(row) for row in rows]
    widths = [max(len(row[n]) for row in listed) for n in range(len(listed[0]))] if listed else []
    return "\n".join(
        indent
        + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in listed
    )


def explanation_text(told: Explanation, page: Page) -> str:
    """Why one asset is treated as it is."""
    told = shown(told)
    out = [page.paint(f"{told.asset_id}, as of {moment(told.now)}", "bold")]
    if told.gathered:
        out.append(page.paint(f"from facts gathered {relative(told.gathered, told.now)}", "dim"))
    out += [
        "",
        table((name, value) for name, value in told.facts),
        "",
        page.paint("Every rule that was considered", "bold"),
    ]
    for item in told.considered:
        sign = {
            "yes": page.paint("=", "green"),
            "no": " ",
            "over": " ",
            "not certain": page.paint("?", "yellow"),
        }[item.matches]
        out.append(f"  {sign} {item.kind} {item.id} ({item.rule_at}): {item.matches}")
        for stage in told.stages:
            if stage.rule == item.id and item.matches != "no":
                out.append(page.wrapped(_stage(stage, told.now), "      "))
    erasures = {item.id for item in told.considered if item.kind == "erasure"}
    out += ["", page.paint("What is decided", "bold")]
    out += [_pair(pair, told.now, erasures, page) for pair in told.pairs] or [
        "  nothing lies anywhere, and nothing is asked for"
    ]
    out.append("")
    if told.next_at is None:
        out.append(
            "Next: by itself nothing changes, as long as the policies and the stores stay as they "
            "are."
        )
    else:
        out.append(
            f"Next: {moment(told.next_at)} ({relative(told.next_at, told.now)}), if nothing else "
            "has changed by then:"
        )
        before = {pair.store: pair for pair in told.pairs}
        changed = [
            pair
            for pair in told.next_pairs
            if (was := before.get(pair.store)) is None
            or (was.decision, was.because) != (pair.decision, pair.because)
        ]
        out += [_pair(pair, told.next_at, erasures, page) for pair in changed]
    return "\n".join(out) + "\n"


def _stage(stage: Stage, now: datetime) -> str:
    where = f" in {stage.store}" if stage.store else ""
    begins = f" from {moment(stage.begins)}" if stage.begins else ""
    match stage.kind:
        case "keep" | "hold":
            state = (
                "runs"
                if stage.runs
                else "is over"
                if stage.ends and stage.ends <= now
                else "has not begun"
            )
            ends = (
                moment(stage.ends)
                if stage.ends
                else "it is released"
                if stage.kind == "hold"
                else "forever"
            )
            return f"{stage.kind}{where}{begins} until {ends}: {state}"
        case "erasure":
            return "erases every copy that no hold and no legal keep protects"
        case _:
            due = (
                "at once"
                if stage.ends is None
                else f"since {moment(stage.ends)}"
                if stage.ends <= now
                else moment(stage.ends)
            )
            return f"{stage.kind.replace('_', ' ')}{where}: due {due}"


def _pair(pair: Pair, now: datetime, erasures: Collection[str], page: Page) -> str:
    by = f", by {pair.rule}" if pair.rule else ""
    lies = (
        "a complete copy lies there"
        if pair.complete
        else "part of it lies there"
        if pair.there
        else "nothing lies there"
    )
    if pair.partial:
        lies = f"a partial copy{' that counts' if pair.complete else ''} lies there: {pair.partial}"
    if pair.store in ORIGINS:
        lies = "it lies there"
    words = _WORDS.get(pair.decision, pair.decision)
    extra = ""
    match pair.decision:
        case "keep" | "lapses":
            extra = f" until {moment(pair.until)}" if pair.until else " with no end"
            extra += ", without a copy, since no rule keeps it" if pair.because else ""
        case "copy":
            extra = f" {_deadline(pair.deadline, now)}" if pair.deadline else ""
        case "blocked":
            extra = ": " + "; ".join(BECAUSE.get(reason, reason) for reason in pair.because)
        case "delete":
            why = "erased" if pair.rule in erasures else IN_DOUBT
            extra = f", due since {moment(pair.delete_from)}" if pair.delete_from else f", {why}"
            extra += f", hidden and recoverable: {pair.recoverable}" if pair.recoverable else ""
        case "lost" | "uncatalogued" | "unknown" | "waiting":
            why = next((each for each in pair.because if each in _OTHERS), pair.decision)
            extra = ": " + _OTHERS[why]
            extra += " (accepted)" if "accepted" in pair.because else ""
    return page.wrapped(f"{words} in {pair.store}{extra}{by} ({lies})", "  ", "      ")


_ALIKE = 5
"""So many troubles of one kind are told together."""


def _troubles(
    troubles: Sequence[Trouble], page: Page, sign: str, ended: str, together: str
) -> Iterator[str]:
    """What was not done, each kind of trouble in one place: one cause may concern a whole
    bucket."""
    kinds: dict[tuple[str, str, str, str], list[Trouble]] = {}
    for each in troubles:
        kinds.setdefault(each.kind, []).append(each)
    for (decision, store, bucket, cause), alike in kinds.items():
        if len(alike) >= _ALIKE:
            what = many(len(alike), decision, "copies" if decision == "copy" else f"{decision}s")
            come = f" from {bucket}" if bucket else ""
            told = [f"{what}{come} in {store} {together}: {cause}"]
        else:
            told = [
                f"{decision} {each.asset_id} in {store} {ended}: {each.cause}" for each in alike
            ]
        for text in told:
            styles = ["red"] if sign == "!" else []
            yield page.wrapped(page.paint(f"{sign} {text}", *styles), "", "    ")
            if alike[0].hint:
                yield page.wrapped(f"hint: {alike[0].hint}", "    ")
        if len(alike) >= _ALIKE:
            few = ", ".join(sorted(each.asset_id for each in alike)[:5])
            more = f" and {len(alike) - 5:,} more" if len(alike) > 5 else ""
            yield page.wrapped(f"{few}{more}", "    ")


def summary_text(done: Summary, page: Page, path: str) -> str:
    """What an apply has done, each failure with its cause and what to do."""
    done, path, out = shown(done), printable(path), []
    if done.copied:
        out.append(
            f"{page.paint('+', 'green')} copied {many(done.copied, 'recording')}, "
            f"{size(done.copied_bytes)}, each verified"
        )
    if done.deleted:
        out.append(
            f"{page.paint('-', 'red')} deleted {many(done.deleted, 'copy', 'copies')}, "
            f"{size(done.deleted_bytes)}"
        )
    if done.restored:
        out.append(
            f"+ asked for {many(done.restored, 'recording')} to be restored from an archive; plan "
            "again in some hours"
        )
    if done.already:
        out.append(f"= {many(done.already, 'action')} had been done by an earlier run")
    for place, resting in done.resting.items():
        whose = "100ms" if place == "hosted" else place
        text = (
            f"! {whose} was left alone after it refused, and {many(resting.actions, 'action')} "
            f"with it: {resting.cause}"
        )
        out.append(page.wrapped(page.paint(text, "red"), "", "    "))
        if resting.hint:
            out.append(page.wrapped(f"hint: {resting.hint}", "    "))
    for lacking in done.impossible.values():
        copies = many(lacking.actions, "copy", "copies")
        text = f"! {lacking.cause}: {copies} not possible there"
        out.append(page.wrapped(page.paint(text, "red"), "", "    "))
        if lacking.hint:
            out.append(page.wrapped(f"hint: {lacking.hint}", "    "))
    out += _troubles(done.skipped, page, "?", "was skipped", "were skipped")
    out += _troubles(done.failed, page, "!", "failed", "failed")
    out += [page.wrapped(f"? {sentence}", "", "    ") for sentence in done.said]
    for store, cause in done.catalog_failures.items():
        text = (
            f"! the catalog of {store} could not be written, so its new copies do not count "
            f"yet: {cause}"
        )
        out.append(page.wrapped(page.paint(text, "red"), "", "    "))
    if done.left_deletes:
        out.append(f"! {many(done.left_deletes, 'delete was', 'deletes were')} not carried out")
    if done.lost_lock:
        out.append("! the run stopped: it lost the lock of a store, or could not renew it in time")
    if not out:
        out.append("There was nothing to do.")
    if done.finished or (
        done.changed_copies
        and not (done.failed or done.left_deletes or done.resting or done.interrupted)
        and not done.impossible
    ):
        out.append("Next: retainer plan, to see what the stores are like now")
    else:
        out.append(f"Next: retainer apply {path}, which goes on where this run ended")
    return "\n".join(out) + "\n"


def census_text(census: Census, page: Page, what: str, store: str) -> str:
    """What a look at the objects of a store has found. `what`: what became of those that are
    counted."""
    census = shown(census)
    away = {"missing": census.missing, "another object": census.replaced}
    counted = (
        census.looked - len(census.failed) - len(census.broken)
        if what == "verified"
        else census.recorded
    )
    out = [
        f"{page.paint('=', 'green')} {what}: {many(counted, 'object')} in {store}"
        + (f", {size(census.bytes)} read" if census.bytes else "")
    ]
    if census.unknown:
        out.append(
            f"? {many(census.unknown, 'object', 'objects')} left alone: nothing says what they are"
        )
    if census.archived:
        out.append(
            f"? {many(census.archived, 'object is', 'objects are')} in an archive and cannot be "
            "read back"
        )
    out += [page.paint(f"! broken: {store}:{key}", "red") for key in census.broken]
    for word, keys in away.items():
        out += [page.paint(f"! {word}: {store}:{key}", "red") for key in keys[:20]]
        if len(keys) > 20:
            out.append(
                f"  … and {len(keys) - 20:,} more of these (`--format json` lists every one)"
            )
    for trouble in census.failed:
        out.append(
            page.wrapped(page.paint(f"! {trouble.asset_id}: {trouble.cause}", "red"), "", "    ")
        )
        if trouble.hint:
            out.append(page.wrapped(f"hint: {trouble.hint}", "    "))
    out += [page.wrapped(f"? {sentence}", "", "    ") for sentence in census.said]
    if census.broken or census.missing:
        out.append("Next: retainer plan, which repairs them from another copy where there is one")
    elif census.replaced:
        out.append(
            "Next: look at them; what somebody else put there is never touched (`retainer catalog "
            f"rebuild {store}` takes up what is a copy)"
        )
    elif what != "verified":
        out.append("Next: retainer plan, to see what they mean")
    return "\n".join(out) + "\n"


def outcomes_text(outcomes: Sequence[Outcome], page: Page) -> str:
    """What policy tests found."""
    out = []
    outcomes = [shown(outcome) for outcome in outcomes]
    failed = [outcome for outcome in outcomes if outcome.failures]
    for outcome in failed:
        out.append(f"{page.paint('FAILED', 'red', 'bold')} {outcome.place}: {outcome.name}")
        out += [page.wrapped(failure, "    ") for failure in outcome.failures]
    out.append(f"{len(outcomes) - len(failed)} passed, {len(failed)} failed")
    return "\n".join(out) + "\n"
