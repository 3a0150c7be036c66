"""What a change of policies does, for who reviews it: the verdict, each rule's effect, what is due
anyway, and the first recordings. No name of a room or person is in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta

from retainer.model.change import Becomes, Change, Effect, Impact, Tested
from retainer.model.price import PRICES_OF
from retainer.model.printable import shown
from retainer.views.forecast import MOMENTS, bill, called
from retainer.views.page import (
    Bars,
    Block,
    Column,
    Document,
    Facts,
    Fold,
    Note,
    Prose,
    Reading,
    Section,
    Table,
)
from retainer.views.units import Cell, Weighed, Weight, many, moment, relative, since, size, span
from retainer.views.words import cliff_section, cost_of, listed, who_unlocks_of

WORDS: dict[Becomes, tuple[Weight, str]] = {
    "due now": ("bad", "due now"),
    "for good": ("bad", "deleted with every version, where it could be brought back"),
    "lapses": ("bad", "leaves 100ms without a copy, since no rule keeps it any more"),
    "sooner": ("worry", "deleted sooner"),
    "shorter": ("worry", "kept for less time"),
    "blocked": ("worry", "due once nothing blocks it any more"),
    "held": ("good", "held, so that it stays"),
    "lost": ("worry", "asked for, and cannot be had any more"),
    "not copied": ("plain", "copies that are not made any more"),
    "not missed": ("plain", "lost, and no longer asked for"),
    "spared": ("good", "not deleted now any more"),
    "released": ("good", "no longer due"),
    "copied": ("good", "copied"),
    "later": ("good", "deleted later"),
    "longer": ("good", "kept longer"),
    "otherwise": ("plain", "treated otherwise"),
}
"""What each effect is called, and how much it matters."""


OLD = timedelta(hours=48)
"""Facts of a night are a day old at most, and two after one that failed."""


def impact_page(told: Impact, reading: Reading, code: int, most: int = 20) -> Document:
    """`code`: with what the command ends, which the last line tells; `most`: so many recordings of
    each effect are told."""
    told = shown(told)
    told = replace(
        told, effects=tuple(replace(each, rows=each.rows[:most]) for each in told.effects)
    )
    name = f" · {told.project}" if told.project else ""
    return Document(
        title=f"retainer{name}: {_headline(told)}",
        about=f"decided for {moment(told.now, reading.zone)}",
        verdict=tuple(_verdict(told, reading)),
        blocks=(
            *_effects(told, reading),
            *_in_words(told),
            *_anyway(told, reading),
            *_rows(told, reading),
            *_storage(told),
            *_brakes(told),
            *_unknown(told),
            *_notes(told),
        ),
        mark=f"retainer:impact key={_key(told.project)} base={_key(told.base_commit or told.base)} "
        f"head={_key(told.head_commit)} facts={told.facts_id}",
        foot=_foot(told, reading, code),
        charts=tuple(_charts(told)),
    )


def _charts(told: Impact) -> Iterator[Section]:
    if len(told.effects) > 1:
        bars = Bars(
            "Bytes, by what they come to",
            "bytes",
            ("bytes",),
            tuple(
                (f"{each.item or 'no rule'}: {WORDS[each.becomes][1]}", (float(each.bytes),))
                for each in told.effects
            ),
        )
        yield Section("The effect in bytes", (bars,))
    if told.months:
        ends = tuple((each.month, (float(each.before), float(each.after))) for each in told.months)
        caption = "Bytes of copies whose time is over, by month"
        bars = Bars(caption, "bytes", (told.base, "this change"), ends)
        yield Section("What ends when (24 months)", (bars,))
    if told.cliff:
        yield cliff_section(told.cliff)
    yield from _by_type(told)


def _key(project: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in project)


def _sum(told: Impact, *becomes: Becomes) -> tuple[int, int]:
    """How many copies of how many bytes come to one of these."""
    picked = [effect for effect in told.effects if effect.becomes in becomes]
    return sum(each.copies for each in picked), sum(each.bytes for each in picked)


def _headline(told: Impact) -> str:
    if told.freed:
        return f"this change frees {many(told.freed, 'delete')} that were held back"
    if not told.effects:
        return "no recording is treated differently"
    gone, _ = _sum(told, "due now")
    if gone:
        return f"this change makes {many(gone, 'copy', 'copies')} due for deletion now"
    final, _ = _sum(told, "for good")
    if final:
        return f"this change deletes {many(final, 'copy', 'copies')} for good, with every version"
    lapses, _ = _sum(told, "lapses")
    if lapses:
        return f"this change lets {many(lapses, 'recording')} leave 100ms without a copy"
    later, _ = _sum(told, "blocked")
    if later:
        return f"this change makes {many(later, 'copy', 'copies')} due once nothing blocks them"
    sooner, _ = _sum(told, "sooner", "shorter", "not copied")
    if sooner:
        return f"this change keeps {many(sooner, 'copy', 'copies')} for less time"
    more, _ = _sum(told, "copied", "later", "longer", "spared", "held")
    if more:
        return f"this change keeps {many(more, 'copy', 'copies')} more or longer"
    return f"{many(told.assets, 'recording is', 'recordings are')} treated otherwise"


def _verdict(told: Impact, reading: Reading) -> Iterator[Note]:
    gone, gone_bytes = _sum(told, "due now")
    last = sum(effect.last_copies for effect in told.effects if effect.becomes == "due now")
    if gone:
        which = f"{many(last, 'is', 'are')} the last copy of ours" if last else ""
        stores = sorted(
            {row.store for e in told.effects if e.becomes == "due now" for row in e.rows}
        )
        hidden = [store for store in stores if store in told.recoverable]
        forever = [store for store in stores if store not in told.recoverable]
        back = []
        if forever:
            back.append(f"what goes from {' and '.join(forever)} cannot be brought back")
        if hidden:
            back.append(f"{' and '.join(hidden)} keep what is deleted for a while")
        yield Note(
            "-",
            "bad",
            f"{many(gone, 'copy', 'copies')} ({size(gone_bytes)}) that {told.base} keeps "
            f"{'becomes' if gone == 1 else 'become'} due now"
            + (f"; {which}" if which else "")
            + f". {'; '.join(back).capitalize()}.",
        )
    final, final_bytes = _sum(told, "for good")
    if final:
        yield Note(
            "-",
            "bad",
            f"{many(final, 'copy', 'copies')} ({size(final_bytes)}) that {told.base} deletes go "
            "with every version that the bucket keeps: they could be brought back, and cannot any "
            "more.",
        )
    lapses, lapsing_bytes = _sum(told, "lapses")
    if lapses:
        yield Note(
            "-",
            "bad",
            f"{many(lapses, 'recording')} ({size(lapsing_bytes)}) that {told.base} keeps will "
            "leave 100ms without a copy.",
        )
    later, later_bytes = _sum(told, "blocked")
    if later:
        yield Note(
            "!",
            "worry",
            f"{many(later, 'copy', 'copies')} ({size(later_bytes)}) that {told.base} keeps would "
            "be due, and go once nothing blocks them: when the copy that they wait for is made, a "
            "lock or a hold is over, or a listing has finished.",
        )
    for lock in told.locks:
        kinds = [many(lock.new, "new copy", "new copies")] if lock.new else []
        there = f"{many(lock.longer, 'copy', 'copies')} that lie there longer"
        which = " and ".join([*kinds, *([there] if lock.longer else [])])
        yield Note(
            "!",
            "worry",
            f"{lock.store} would lock {which} ({lock.before:,} on {told.base}), the last "
            f"until {moment(lock.last, reading.zone)}: "
            f"{who_unlocks_of(lock.new + lock.longer, lock.final)}.",
        )
    if told.freed:
        yield Note(
            "-",
            "bad",
            f"{many(told.freed, 'delete')} ({size(told.new.delete_bytes)}) that a limit or a clash "
            f"holds back on {told.base} would run.",
        )
    new = [each for each in told.breaches if each.is_new]
    if told.breaches and told.new.deletes:
        which = ", ".join(
            f"{each.name} of {each.scope.replace(':', ' ')} {_used(each.name, each.after)} of "
            f"{_used(each.name, each.allowed)}"
            for each in told.breaches
        )
        since_when = "" if new else f", as on {told.base}"
        yield Note(
            "!",
            "worry",
            f"The deletes would be held back{since_when}: {which}. Merging deletes nothing by "
            "itself.",
        )
    for clash in told.clashes:
        if clash.is_new:
            yield Note(
                "!",
                "worry",
                f"{clash.keep} keeps {many(clash.assets, 'recording')} longer than {clash.ceiling} "
                "allows: a new clash. The keep wins, and deletes are held back.",
            )
    for change in told.changes:
        if change.turn == "looser":
            yield Note(
                "!",
                "worry",
                f"A brake is looser: {_setting(change)}. More may be deleted without a word.",
            )
        elif change.kind == "settings" and change.turn == "elsewhere":
            yield Note(
                "!",
                "worry",
                f"{change.setting.removeprefix('stores.')} is another place or of another kind "
                f"({_setting(change)}): these facts are of what it was, so that this page cannot "
                "tell what lies there.",
            )
    if told.gathered and reading.clock and reading.clock - told.gathered > OLD:
        yield Note(
            "?",
            "unsure",
            f"These facts are {span(reading.clock - told.gathered)} old: what came or went since "
            "then is not in them.",
        )
    if told.tests and not told.tests.is_well:
        wrong = len(told.tests.failed) + len(told.tests.unread)
        yield Note(
            "!",
            "worry",
            f"{many(wrong, 'policy test')} of {wrong + told.tests.passed:,} "
            f"{'fails' if wrong == 1 else 'fail'} with this change.",
        )
    if told.incomplete:
        yield Note(
            "!",
            "worry",
            f"The facts do not tell all ({'; '.join(told.incomplete)}): there may be more than "
            "this.",
        )
    if not told.effects and not told.freed:
        changed = (
            f"{many(len(told.changes), 'setting')} changed, and no " if told.changes else "No "
        )
        yield Note(
            "=",
            "good",
            f"{changed}recording is treated differently: {told.same:,} pairs of a recording and a "
            "place are decided as before.",
        )
    elif not (gone or final or lapses or later or told.freed):
        yield Note(
            "=",
            "unsure" if told.shortens else "good",
            "Nothing becomes due now"
            + (
                "; something is kept for less time."
                if told.shortens
                else ", and nothing is kept less."
            )
            + f" {many(told.assets, 'recording is', 'recordings are')} treated otherwise.",
        )


def _used(name: str, value: float) -> str:
    if name == "bytes":
        return size(value)
    return f"{value:g} %" if name == "percent" else f"{value:,.0f}"


def _of_item(told: Impact, item: str) -> str:
    """The settings of an item that are others now, on one line."""
    found = [
        _setting(change) for change in told.changes if change.item == item and change.turn != "same"
    ]
    return "; ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")


def _setting(change: Change) -> str:
    if not change.before:
        return f"{change.setting} {change.after} (new)"
    if not change.after:
        return f"{change.setting} {change.before} (gone)"
    return f"{change.setting} {change.before} → {change.after}"


def _effects(told: Impact, reading: Reading) -> Iterator[Block]:
    if not told.effects:
        return
    rows, before = [], None
    for effect in sorted(told.effects, key=lambda each: (_order(told, each.item), each.item)):
        rows.append(
            (
                effect.item or "no rule",
                _of_item(told, effect.item) if effect.item != before else "",
                effect.assets,
                effect.copies,
                effect.bytes,
                _becomes(effect, reading),
            )
        )
        before = effect.item
    yield Section(
        "What the change does",
        (
            Table(
                "",
                (
                    Column("rule"),
                    Column("setting"),
                    Column("recordings", "count"),
                    Column("copies", "count"),
                    Column("size", "bytes"),
                    Column("becomes"),
                ),
                tuple(rows),
            ),
        ),
        f"Same facts, same moment, {told.base} → {told.head}; "
        f"{told.same:,} of {max(told.new.pairs, told.old.pairs):,} pairs of a recording and a "
        "place are treated as before.",
    )


def _order(told: Impact, item: str) -> int:
    """Where an item stands: that with the gravest effect first."""
    order = list(WORDS)
    return min(order.index(effect.becomes) for effect in told.effects if effect.item == item)


def _becomes(effect: Effect, reading: Reading) -> Weighed:
    weight, words = WORDS[effect.becomes]
    extra = ""
    if effect.becomes == "due now" and effect.last_copies:
        extra = f" ({many(effect.last_copies, 'last copy', 'last copies')})"
    elif effect.first and effect.becomes in ("sooner", "shorter", "later", "longer"):
        which = "from" if effect.becomes in ("sooner", "later") else "until"
        first = "the first " if effect.copies > 1 else ""
        extra = f", {first}{which} {since(effect.first, reading.zone)}"
    return Weighed(weight, f"{words}{extra}")


def _in_words(told: Impact) -> Iterator[Block]:
    if told.changes:
        yield Fold(f"Changed settings ({len(told.changes)})", (changes_table(told.changes),))


def changes_table(changes: Sequence[Change]) -> Table:
    """Each changed setting in words."""
    return Table(
        "",
        (
            Column("what"),
            Column("where"),
            Column("setting"),
            Column("before"),
            Column("after"),
            Column("means"),
        ),
        tuple(
            (
                f"{change.kind} {change.item}" if change.kind != "settings" else change.item,
                change.at,
                change.setting,
                change.before,
                change.after,
                _means(change),
            )
            for change in changes
        ),
        is_list=True,
    )


_MEANS = {
    "longer": "stays longer",
    "shorter": "kept for less time",
    "elsewhere": "elsewhere",
    "others": "for other recordings",
    "added": "new",
    "removed": "gone",
    "looser": "a looser brake",
    "tighter": "a tighter brake",
    "otherwise": "another setting",
    "same": "changes nothing",
}


def _means(change: Change) -> str:
    if change.turn == "shorter" and not change.setting.startswith(("keep", "released")):
        return "deleted sooner"
    told = _MEANS[change.turn]
    also = change.shortens and change.turn not in ("shorter", "same")
    return f"{told}; something may go sooner" if also else told


def _anyway(told: Impact, reading: Reading) -> Iterator[Block]:
    rows: list[Block] = []
    if told.both_delete or told.both_copy:
        due = f"{many(told.both_delete, 'delete')} ({size(told.both_delete_bytes)})"
        copies = f"{many(told.both_copy, 'copy', 'copies')} ({size(told.both_copy_bytes)})"
        rows.append(Prose(f"Due on {told.base} too, not from this change: {due}, {copies}."))
    if told.new.at_risk:
        first = told.new.first_leaves_at
        when = f", the first {relative(first, told.now)}" if first and first > told.now else ""
        leave = many(told.new.at_risk, "recording leaves", "recordings leave")
        rows.append(
            Note(
                "!",
                "worry",
                f"{leave} 100ms, with no copy yet{when}; the next apply copies what it can.",
            )
        )
    if told.new.lapsing:
        leave = many(told.new.lapsing, "recording leaves", "recordings leave")
        rows.append(Prose(f"{leave} 100ms uncopied, since no rule keeps that."))
    if told.old.lost:
        rows.append(
            Prose(
                f"{many(told.old.lost, 'recording is', 'recordings are')} lost already on "
                f"{told.base} ({size(told.old.lost_bytes)}), not by this change."
            )
        )
    if rows:
        yield Section("Due anyway", tuple(rows))


_ROW = (
    Column("recording", "id"),
    Column("type"),
    Column("size", "bytes"),
    Column("place", "place"),
    Column("kept before", "through"),
    Column("kept now", "through"),
    Column("by"),
    Column("last copy"),
)


def _rows(told: Impact, reading: Reading) -> Iterator[Block]:
    for effect in told.effects:
        if not effect.rows:
            continue
        rows = [
            (
                row.asset_id,
                row.type,
                row.bytes,
                row.store,
                row.before,
                row.after,
                row.rule,
                "THE LAST COPY" if row.last_copy else "",
            )
            for row in effect.rows
        ]
        _, words = WORDS[effect.becomes]
        yield Fold(
            f"{effect.item or 'no rule'}: {words} "
            f"({len(rows):,} of {many(effect.copies, 'copy', 'copies')}, the largest first)",
            listed(_ROW, rows, effect.copies, reading, ""),
        )


def _storage(told: Impact) -> Iterator[Block]:
    """What both sides come to in bytes and dollars, where that is not the same."""
    before, after = told.lying_before, told.lying_after
    if before == after:
        return
    sides = ((told.base, before), (told.head, after))
    rows: list[tuple[Cell, ...]] = []
    for name, lying in sides:
        sums = (sum(each.bytes[at] for each in lying) for at in range(len(MOMENTS)))
        rows.append((name, *sums, bill(lying, 0), bill(lying, -1)))
    costs = (Column("a month now", "dollars"), Column("in 12 months", "dollars"))
    columns = (Column(""), *(Column(each, "bytes") for each in MOMENTS), *costs)
    unpriced = sorted({each.store for each in (*before, *after) if each.monthly is None})
    without = (
        f" What {', '.join(unpriced)} costs is not known: `prices:` in retainer.yaml says it."
        if unpriced
        else ""
    )
    soon, later = (bill(after, at) - bill(before, at) for at in (1, -1))
    about = (
        f"Storage {cost_of(soon)} in a month, and {cost_of(later).removeprefix('costs ')} in 12. "
        if soon or later
        else ""
    )
    yield Fold(
        "Storage and cost, next 12 months",
        (
            Table("", columns, tuple(rows)),
            Prose(
                f"{about}Of what is known today; estimates by list prices of {PRICES_OF} or by "
                f"`prices:` of retainer.yaml.{without}",
                is_aside=True,
            ),
        ),
    )


def _by_type(told: Impact) -> Iterator[Section]:
    """Bytes by place, class and type: now, and on both sides in a year."""
    sides = [
        {(each.store, each.storage_class, each.type): each for each in lying}
        for lying in (told.lying_before, told.lying_after)
    ]
    if not any(sides):
        return
    rows = []
    for key in sorted(sides[0].keys() | sides[1].keys()):
        was, comes = (side.get(key) for side in sides)
        one = was or comes
        assert one is not None
        rows.append(
            (
                called(one),
                (
                    float(one.bytes[0]),
                    float(was.bytes[-1] if was else 0),
                    float(comes.bytes[-1] if comes else 0),
                ),
            )
        )
    series = ("now", f"{told.base} in 12 months", f"{told.head} in 12 months")
    bars = Bars("Bytes by place, class and type", "bytes", series, tuple(rows))
    yield Section("What lies where, now and in 12 months", (bars,))


def _brakes(told: Impact) -> Iterator[Block]:
    if told.breaches:
        yield Section(
            "Limits that the result breaches",
            (
                Table(
                    "",
                    (
                        Column("limit"),
                        Column("before"),
                        Column("after"),
                        Column("allowed"),
                        Column(""),
                    ),
                    tuple(
                        (
                            f"{each.name} of {each.scope.replace(':', ' ')}",
                            _used(each.name, each.before),
                            _used(each.name, each.after),
                            _used(each.name, each.allowed),
                            "new" if each.is_new else f"on {told.base} too",
                        )
                        for each in told.breaches
                    ),
                ),
            ),
        )


def _unknown(told: Impact) -> Iterator[Block]:
    """What these facts leave open, for these policies."""
    notes = [f"{each}: not all of it is in these facts." for each in told.incomplete]
    notes += [
        f"Whether `{item}` matches {many(count, 'recording')} is not certain."
        for item, count in told.uncertain
    ]
    notes += [
        f"{many(count, 'recording is', 'recordings are')} said to lie in {bucket}, which nobody "
        "declared."
        for bucket, count in told.undeclared
    ]
    if notes:
        yield Section("What is not known", tuple(Note("?", "unsure", text) for text in notes))


def _notes(told: Impact) -> Iterator[Block]:
    rows = []
    if told.tests:
        rows.append(("tests", _tests(told.tests)))
    if told.holds.holds:
        held = many(told.holds.affected, "recording")
        rows.append(
            ("holds", f"{told.holds.holds:,} in force, over {held} that the change touches")
        )
    if told.owners:
        rows.append(("owners", ", ".join(told.owners)))
    if rows:
        yield Facts(tuple(rows))


def _tests(tests: Tested) -> str:
    wrong = [f"{len(tests.failed):,} failed: {'; '.join(tests.failed[:3])}"] if tests.failed else []
    wrong += [f"{name} cannot be read" for name in tests.unread[:3]]
    more = len(tests.failed[3:]) + len(tests.unread[3:])
    return "; ".join([f"{tests.passed:,} passed", *wrong, *([f"{more} more"] if more else [])])


def _foot(told: Impact, reading: Reading, code: int) -> str:
    age = (
        f"facts of {moment(told.gathered, reading.zone)}"
        + (f" ({span(reading.clock - told.gathered)} old" if reading.clock else " (")
        + (", complete" if not told.incomplete else ", incomplete")
        + f"; {told.facts_id})"
        if told.gathered
        else f"facts {told.facts_id}"
    )
    lately = {
        "journal": "deletes of the last 24 hours from the journal here",
        "stores": "deletes of the last 24 hours from the snapshot",
        "nothing": "deletes of the last 24 hours not known",
    }[told.remembered]
    return f"retainer {told.tool} · {age} · {lately} · `retainer impact` exit {code}"
