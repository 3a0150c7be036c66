"""Why one recording is treated as it is."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime

from retainer.model.explanation import Considered, Explanation, Pair, Stage
from retainer.model.moment import read_moment
from retainer.model.printable import shown
from retainer.views.page import Block, Document, Facts, Note, Prose, Reading, Section, Sign
from retainer.views.units import Weight, moment, relative, since, size, through
from retainer.views.words import (
    BECAUSE,
    DECISIONS,
    IN_DOUBT,
    ORIGINS,
    OTHERS,
    deadline,
    held_by,
    with_every_version,
)

_MATCHES: dict[str, tuple[Sign, Weight]] = {
    "yes": ("=", "good"),
    "no": (" ", "plain"),
    "over": (" ", "plain"),
    "not certain": ("?", "unsure"),
}


def explanation_page(told: Explanation, reading: Reading) -> Document:
    """`reading.clock`: how old the facts are depends on the time it is, not on the moment that is
    asked about."""
    told = shown(told)
    erasures = {item.id for item in told.considered if item.kind == "erasure"}
    about = f"as of {moment(told.now, reading.zone)}"
    if told.gathered:
        about += f", from facts gathered {relative(told.gathered, reading.clock or told.now)}"
    return Document(
        told.asset_id,
        (),
        (
            Facts(tuple((name, _fact(name, value, reading)) for name, value in told.facts)),
            Section(
                "Every rule that was considered",
                tuple(_considered(item, told, reading) for item in told.considered),
            ),
            Section(
                "What is decided",
                tuple(_pair(pair, told.now, erasures, reading) for pair in told.pairs)
                or (Prose("nothing lies anywhere, and nothing is asked for"),),
            ),
            *_next(told, erasures, reading),
        ),
        about=about,
    )


def _fact(name: str, value: str, reading: Reading) -> str:
    """A fact with its unit, and a date in the reader's zone beside what 100ms wrote."""
    if name == "size" and value.isdigit():
        return size(int(value)) + (f" ({int(value):,} B)" if int(value) >= 1000 else "")
    if name == "duration":
        return f"{value} s"
    created = read_moment(value) if name == "created" else None
    return f"{moment(created, reading.zone)} ({value})" if created else value


def _considered(item: Considered, told: Explanation, reading: Reading) -> Note:
    sign, weight = _MATCHES[item.matches]
    stages = (stage for stage in told.stages if stage.rule == item.id and item.matches != "no")
    return Note(
        sign,
        weight,
        f"{item.kind} {item.id} ({item.rule_at}): {item.matches}",
        parts=tuple(Note(" ", "plain", _stage(stage, told.now, reading)) for stage in stages),
    )


def _next(told: Explanation, erasures: Collection[str], reading: Reading) -> Iterator[Block]:
    if told.next_at is None:
        yield Prose(
            "Next: by itself nothing changes, as long as the policies and the stores stay as they "
            "are."
        )
        return
    before = {pair.store: pair for pair in told.pairs}
    changed = [
        _pair(pair, told.next_at, erasures, reading)
        for pair in told.next_pairs
        if (was := before.get(pair.store)) is None
        or (was.decision, was.because) != (pair.decision, pair.because)
    ]
    stays = {pair.store for pair in told.next_pairs}
    gone = [
        Note(".", "plain", f"nothing lies in {store} any more, and nothing is asked for there")
        for store in before
        if store not in stays
    ]
    yield Section(
        f"Next: {moment(told.next_at, reading.zone)} ({relative(told.next_at, told.now)}), if "
        "nothing else has changed by then:",
        (*changed, *gone),
    )


def _stage(stage: Stage, now: datetime, reading: Reading) -> str:
    where = f" in {stage.store}" if stage.store else ""
    begins = f" from {since(stage.begins, reading.zone)}" if stage.begins else ""
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
                through(stage.ends, reading.zone)
                if stage.ends or stage.kind == "keep"
                else "until it is released"
            )
            return f"{stage.kind}{where}{begins} {ends}: {state}"
        case "erasure":
            return "erases every copy that no hold and no legal keep protects"
        case _:
            due = (
                "at once"
                if stage.ends is None
                else f"since {since(stage.ends, reading.zone)}"
                if stage.ends <= now
                else since(stage.ends, reading.zone)
            )
            return f"{stage.kind.replace('_', ' ')}{where}: due {due}"


def _lies(pair: Pair) -> str:
    if pair.store in ORIGINS:
        return "it lies there"
    if pair.partial:
        counts = " that counts" if pair.complete else ""
        return f"a partial copy{counts} lies there: {pair.partial}"
    if pair.complete:
        return "a complete copy lies there"
    return "part of it lies there" if pair.there else "nothing lies there"


def _pair(pair: Pair, now: datetime, erasures: Collection[str], reading: Reading) -> Note:
    zone = reading.zone
    extra = ""
    weight: Weight = "plain"
    match pair.decision:
        case "keep":
            extra = f" {through(pair.until, zone)}" if pair.until else " with no end"
            weight = "good"
        case "lapses":
            extra = f" until {moment(pair.until, zone)}" if pair.until else " with no end"
            extra += ", without a copy, since no rule keeps it" if pair.because else ""
        case "copy":
            extra = f" {deadline(pair.deadline, now, zone)}" if pair.deadline else ""
            weight = "good"
        case "blocked":
            extra = ": " + "; ".join(
                held_by(pair.also) if reason == "hold" else BECAUSE.get(reason, reason)
                for reason in pair.because
            )
            weight = "worry"
        case "delete":
            weight = "bad"
            if pair.rule in erasures:
                extra = ", erased"
            elif pair.delete_from:
                extra = f", due since {since(pair.delete_from, zone)}"
                extra += f", until when {pair.also} kept it" if pair.also else ""
            else:
                extra = f", {IN_DOUBT}"
            if pair.versions is not None:
                extra += f", {with_every_version(pair.versions)}"
            extra += f", hidden and recoverable: {pair.recoverable}" if pair.recoverable else ""
        case "lost" | "uncatalogued" | "unknown" | "waiting":
            why = next((each for each in pair.because if each in OTHERS), pair.decision)
            extra = ": " + OTHERS[why]
            extra += " (accepted)" if "accepted" in pair.because else ""
            weight = "worry"
    sign, word = DECISIONS.get(pair.decision, (" ", pair.decision))
    by = f", by {pair.rule}" if pair.rule else ""
    said = f"{word} in {pair.store}{extra}{by} ({_lies(pair)})"
    commands = pair.by_hand if "second-factor" in pair.because else ()
    return Note(sign, weight, said, parts=tuple(map(Prose, commands)))
