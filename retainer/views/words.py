"""The words that several pages share: decisions, their reasons, and where something comes from."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, tzinfo

from retainer.views.page import Bars, Block, Column, Note, Prose, Reading, Section, Sign, Table
from retainer.views.units import Cell, about, many, moment, relative, shown_cell, span

BECAUSE = {
    "hold": "a hold may cover them",
    "lock": "the bucket locks them, or its locks could not be read",
    "versions": "which versions of them the bucket keeps could not be read",
    "second-factor": "the bucket removes versions only for a person with a second factor; "
    "`retainer explain ID` has the commands",
    "untrusted-time": "nobody knows how old they are",
    "unknown": "a listing did not finish, so a copy that matters may exist unseen",
    "unsatisfied": "a copy that is required elsewhere is not complete yet",
    "shared": "another asset names the same object and may not go",
    "doubtful": "what asks for it is not certain, and 100ms has it for a while yet",
}
OTHERS = {
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
    "waiting": (
        "100ms has no file of it yet; it is less than 7 days old, and may still be delivered"
    ),
    "doubtful": (
        "what asks for it is not certain, such as by the name of a room that is not known; it is "
        "copied from four days before 100ms drops it"
    ),
}
"""Of what is neither copied nor deleted: why, by decision or reason."""
IN_DOUBT = "copied in doubt, and the rule is certain by now not to ask for it"
ORIGINS = {"hosted": "100ms", "elsewhere": "a bucket nobody declared, through 100ms"}
DECISIONS: dict[str, tuple[Sign, str]] = {
    "copy": ("+", "copy"),
    "delete": ("-", "delete"),
    "keep": ("=", "keep"),
    "blocked": ("!", "blocked"),
    "lost": ("!", "lost"),
    "uncatalogued": ("!", "uncatalogued"),
    "unknown": ("!", "unknown"),
    "waiting": ("!", "waiting"),
    "unmanaged": ("?", "unmanaged"),
    "lapses": (".", "lapses at 100ms"),
    "none": (".", "nothing to do"),
}


def with_every_version(count: int) -> str:
    """How a copy went for good."""
    return f"with every version ({count:,}), for good"


def who_unlocks(mode: str | None) -> str:
    """Who can take a lock back."""
    if mode == "compliance":
        return "nobody can take that back"
    return "only someone with the right to bypass governance can take that back"


def who_unlocks_of(locks: int, final: int) -> str:
    """The same of several, of which so many are final."""
    if 0 < final < locks:
        return f"nobody can take {final:,} of those back"
    return who_unlocks("compliance" if final else None)


def held_by(hold: str | None, copies: int = 1) -> str:
    """How a hold stops something: it covers it where that is certain, and else it may."""
    what = "it" if copies == 1 else "them"
    return f"the hold {hold} covers {what}" if hold else f"a hold may cover {what}"


def deadline(when: datetime, now: datetime, zone: tzinfo) -> str:
    """Until when a copy must be made, and how long that is."""
    late = (
        f"overdue by {span(now - when)}"
        if when < now
        else "at once"
        if when == now
        else relative(when, now)
    )
    return f"by {moment(when, zone)} ({late})"


def cost_of(more: float) -> str:
    """What changes a month, in dollars."""
    if abs(more) < 0.01:
        return "costs as much a month as before"
    return f"costs {about(abs(more))} a month {'more' if more > 0 else 'less'}"


def cliff_section(cliff: Sequence[tuple[int, int, int]]) -> Section:
    """What leaves 100ms by itself, by the days until then."""
    days = tuple((many(day, "day"), (float(kept), float(none))) for day, kept, none in cliff)
    caption = "Recordings at 100ms, by the days until it drops them"
    bars = Bars(caption, "count", ("a rule keeps it", "no rule keeps it"), days)
    return Section("The cliff: what leaves 100ms", (bars,))


ALL_ROWS = "`retainer show PLAN --format json` lists every one"


def listed(
    columns: Sequence[Column],
    rows: Sequence[tuple[Cell, ...]],
    count: int,
    reading: Reading,
    all_at: str = ALL_ROWS,
) -> tuple[Block, ...]:
    """Rows of recordings, the first of `count`. What is the same in all of them is said once above
    them, and what none has not at all."""
    told = [n for n in range(len(columns)) if any(row[n] not in (None, "") for row in rows)]
    alike = [
        n
        for n in told
        if columns[n].kind != "id" and len({row[n] for row in rows}) == 1 and 1 < len(rows) == count
    ]
    picked = [n for n in told if n not in alike]
    table = Table(
        "",
        tuple(columns[n] for n in picked),
        tuple(tuple(row[n] for n in picked) for row in rows),
        max(0, count - len(rows)),
        all_at,
        is_list=True,
    )
    if not alike:
        return (table,)
    once = ", ".join(
        f"{columns[n].title} {shown_cell(rows[0][n], columns[n].kind, reading.zone)}".strip()
        for n in alike
    )
    return (Prose(f"Each of them: {once}", is_aside=True), table)


def few(ids: Sequence[str], count: int) -> Note:
    """The first recordings of a group that someone should look at."""
    more = f" and {count - len(ids):,} more" if count > len(ids) else ""
    return Note(" ", "plain", f"{', '.join(ids)}{more}")
