"""What is to come, for who plans a budget or a night: the verdict, what each day does, what lies
where and about what it costs. No name of a room or person is in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from itertools import groupby

from retainer.model.forecast import MONTHS, Coming, Forecast, Lying
from retainer.model.printable import shown
from retainer.views.page import (
    Bars,
    Block,
    Column,
    Document,
    Note,
    Prose,
    Reading,
    Section,
    Sign,
    Table,
)
from retainer.views.units import Cell, Weight, about, many, moment, size, span
from retainer.views.words import listed

WHAT: dict[str, tuple[Sign, Weight, str]] = {
    "copy": ("+", "good", "copied"),
    "delete": ("-", "bad", "deleted"),
    "leaves": (".", "worry", "leaves 100ms, and no rule keeps it"),
}
ASSUMED = (
    "Assumed: a plan is applied every day and all of it succeeds, no limit or clash holds a delete "
    "back, no rule changes, and nothing new is recorded. Costs are estimates by list prices of {0} "
    "or by `prices:` of retainer.yaml; regions, discounts and what else a cloud bills are not in "
    "them."
)
SHOWN = 200
"""So many lines of what comes a page has."""


def forecast_page(told: Forecast, reading: Reading) -> Document:
    """Where nothing is asked of anybody: no next step."""
    told = shown(told)
    name = f" · {told.project}" if told.project else ""
    return Document(
        title=f"retainer{name}: the next {many(told.days, 'day')}",
        about=f"from {moment(told.now, reading.zone)} on",
        verdict=tuple(_verdict(told)),
        blocks=(
            *_rules(told),
            *_days(told, reading),
            *_where(told),
            *_once(told),
            *_dearer(told),
            *_unknown(told),
            Prose(ASSUMED.format(told.prices_of), is_aside=True),
        ),
        foot=_foot(told, reading),
        charts=tuple(_charts(told)),
    )


def _sum(told: Forecast, what: str) -> tuple[int, int, int]:
    """How many copies of how many bytes, and of how many recordings the last."""
    found = [each for each in told.coming if each.what == what]
    return (
        sum(each.copies for each in found),
        sum(each.bytes for each in found),
        sum(each.last_copies for each in found),
    )


def _verdict(told: Forecast) -> Iterator[Note]:
    first = {
        what: min((each.day for each in told.coming if each.what == what), default=None)
        for what in WHAT
    }
    count, total, last = _sum(told, "delete")
    if count:
        which = f", {last:,} of them the last copy of a recording"
        yield Note(
            "-",
            "bad" if last else "plain",
            f"{many(count, 'copy', 'copies')} ({size(total)}) will be due for deletion, the first "
            f"on {first['delete']}{which if last else ''}.",
        )
    count, total, _ = _sum(told, "leaves")
    if count:
        yield Note(
            ".",
            "worry",
            f"{many(count, 'recording')} ({size(total)}) will leave 100ms without a copy, since no "
            f"rule keeps them, the first on {first['leaves']}.",
        )
    count, total, _ = _sum(told, "copy")
    if count:
        yield Note(
            "+",
            "good",
            f"{many(count, 'copy', 'copies')} ({size(total)}) will be made, the first on "
            f"{first['copy']}.",
        )
    if not told.coming:
        what = f"copied or deleted in {many(told.days, 'day')}"
        if told.incomplete or told.unforeseen:
            text = f"Nothing is known to be {what}, and not all is known."
            yield Note("?", "unsure", text)
        else:
            yield Note("=", "good", f"Nothing will be {what}.")
    now, later = bill(told.lying, 0), bill(told.lying, -1)
    if now or later:
        yield Note(
            "=", "plain", f"Storage costs {about(now)} a month, and {about(later)} in 12 months."
        )


def bill(lying: Sequence[Lying], at: int) -> float:
    """Dollars a month at one of the moments that `Lying` tells, for what has a price."""
    return sum(each.monthly[at] for each in lying if each.monthly)


def _period(day: date, days: int) -> str:
    """The day, or the week or month that it lies in, by how far one looks."""
    if days <= 31:
        return day.isoformat()
    if days <= 190:
        return f"week of {day - timedelta(days=day.weekday())}"
    return f"{day:%Y-%m}"


_SUMS = (Column("copies", "count"), Column("size", "bytes"), Column("last copies", "count"))


def _sums(found: Sequence[Coming]) -> tuple[Cell, ...]:
    return (
        sum(each.copies for each in found),
        sum(each.bytes for each in found),
        sum(each.last_copies for each in found if each.what == "delete") or None,
    )


def _rules(told: Forecast) -> Iterator[Block]:
    """What each rule comes to in all that time."""

    def key(each: Coming) -> tuple[str, str, str]:
        return each.what, each.rule, each.store if each.what != "leaves" else ""

    rows: list[tuple[Cell, ...]] = []
    for (what, rule, store), group in groupby(sorted(told.coming, key=key), key):
        found = list(group)
        days = sorted(each.day for each in found)
        rows.append((WHAT[what][2], rule, store, *_sums(found), f"{days[0]}", f"{days[-1]}"))
    if rows:
        columns = (
            Column("what"),
            Column("by"),
            Column("place", "place"),
            *_SUMS,
            Column("first"),
            Column("last"),
        )
        yield Section("What each rule does", (Table("", columns, tuple(rows)),))


def _days(told: Forecast, reading: Reading) -> Iterator[Block]:
    if not told.coming:
        return

    def key(each: Coming) -> tuple[str, str]:
        return _period(each.day, told.days), each.what

    rows = [
        (period, WHAT[what][2], *_sums(list(group)))
        for (period, what), group in groupby(sorted(told.coming, key=key), key)
    ]
    columns = (Column("when"), Column("what"), *_SUMS)
    every = "`retainer forecast --format csv` lists every day and rule"
    yield Section("When", listed(columns, rows[:SHOWN], len(rows), reading, every))


MOMENTS = ("now", *(f"in {many(months, 'month')}" for months in MONTHS))
"""What the moments that `Lying` tells are called."""


_TOLD = (0, MONTHS.index(3) + 1, MONTHS.index(12) + 1)


def _where(told: Forecast) -> Iterator[Block]:
    if not told.lying:
        return
    by_class: dict[tuple[str, str], list[Lying]] = {}
    for each in told.lying:
        by_class.setdefault((each.store, each.storage_class), []).append(each)
    rows = [
        (
            store,
            storage_class,
            *(sum(each.bytes[at] for each in found) for at in _TOLD),
            *((bill(found, 0), bill(found, -1)) if found[0].monthly else ("not known", "")),
        )
        for (store, storage_class), found in by_class.items()
    ]
    yield Section(
        "What lies where",
        (
            Table(
                "",
                (
                    Column("place", "place"),
                    Column("class"),
                    *(Column(MOMENTS[at], "bytes") for at in _TOLD),
                    Column("a month", "dollars"),
                    Column("in 12 months", "dollars"),
                ),
                tuple(rows),
            ),
        ),
    )


def _once(told: Forecast) -> Iterator[Block]:
    if told.once:
        yield Section(
            f"Costs beside storage, within {many(told.days, 'day')}",
            (
                Table(
                    "",
                    (
                        Column("place", "place"),
                        Column("requests", "dollars"),
                        Column("retrieval", "dollars"),
                        Column("egress", "dollars"),
                        Column("deleted early", "dollars"),
                        Column("all", "dollars"),
                    ),
                    tuple(
                        (
                            each.store,
                            each.requests,
                            each.retrieval,
                            each.egress,
                            each.early,
                            each.total,
                        )
                        for each in told.once
                    ),
                ),
            ),
        )


def _dearer(told: Forecast) -> Iterator[Block]:
    for each in told.dearer:
        when = (
            f"it pays from {many(each.break_even_days, 'day')} on for one of average size"
            if each.break_even_days >= 0
            else "it never pays for one of average size"
        )
        yield Note(
            "!",
            "unsure",
            f"{each.storage_class} in {each.store} costs {about(each.dollars)} more than "
            f"the standard class for {each.copies:,} of {many(each.of, 'copy', 'copies')}: {when}.",
        )


def _unknown(told: Forecast) -> Iterator[Block]:
    notes: list[Block] = []
    for name in told.incomplete:
        text = f"The listing of {name} did not finish: what lies there is not foreseen."
        notes.append(Note("?", "unsure", text))
    if told.unforeseen:
        text = (
            f"Not all is foreseen of {many(told.unforeseen, 'recording')}: a date, a lock, a "
            "listing, or whether a rule matches is not certain."
        )
        notes.append(Note("?", "unsure", text))
    if told.unpriced:
        text = (
            f"What {', '.join(told.unpriced)} costs is not known: `prices:` in retainer.yaml says "
            "it."
        )
        notes.append(Note("?", "unsure", text))
    if notes:
        yield Section("What is not known", tuple(notes))


def _charts(told: Forecast) -> Iterator[Section]:
    if told.coming:
        sums: dict[str, Counter[str]] = {}
        for each in told.coming:
            sums.setdefault(_period(each.day, told.days), Counter())[each.what] += each.bytes
        rows = tuple(
            (period, (float(found["copy"]), float(found["delete"])))
            for period, found in sorted(sums.items())
        )
        caption = "Bytes of copies that are made and deleted"
        bars = Bars(caption, "bytes", ("made", "deleted"), rows)
        yield Section("What comes, in bytes", (bars,))
    if told.lying:
        yield Section("What lies where, by type", (_by_type(told.lying),))


def _by_type(lying: Sequence[Lying]) -> Bars:
    """Bytes now and in a year, by place, class and type."""
    rows = tuple((called(each), (float(each.bytes[0]), float(each.bytes[-1]))) for each in lying)
    return Bars("Bytes by place, class and type", "bytes", ("now", "in 12 months"), rows)


def called(lying: Lying) -> str:
    where = f"{lying.store} {lying.storage_class}".strip()
    return f"{where}: {lying.type or 'of no known recording'}"


def _foot(told: Forecast, reading: Reading) -> str:
    age = f" ({span(reading.clock - told.gathered)} old)" if reading.clock and told.gathered else ""
    gathered = f"facts of {moment(told.gathered, reading.zone)}{age}" if told.gathered else "facts"
    return f"retainer {told.tool} · {gathered} · {told.facts_id}"
