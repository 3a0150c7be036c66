"""A certificate: what is gone, by whose word, and what is left."""

from __future__ import annotations

from collections.abc import Iterator

from retainer.model.certificate import Certificate
from retainer.model.history import Happening
from retainer.model.printable import shown
from retainer.views.page import Block, Column, Document, Facts, Note, Prose, Reading, Section, Table
from retainer.views.units import many, moment, size
from retainer.views.words import with_every_version

_LEFT = (Column("recording", "id"), Column("in"), Column("", "moment"), Column("known by"))


def certificate_page(told: Certificate, reading: Reading) -> Document:
    """What became of every copy that the record knows of."""
    told = shown(told)
    blocks: list[Block] = []
    if told.deleted:
        notes = tuple(_gone(each, reading) for each in told.deleted)
        blocks.append(Section("What was deleted", notes))
    if told.left:
        left = tuple((each.asset_id, each.store, each.at, _known_by(each)) for each in told.left)
        blocks.append(Section("What is left", (Table("", _LEFT, left, is_list=True),)))
    if told.lapses:
        notes = tuple(
            Note(
                ".",
                "plain",
                f"{asset}: at 100ms, "
                + (f"until {moment(until, reading.zone)}" if until else "until nobody knows when"),
            )
            for asset, until in told.lapses
        )
        blocks.append(Section("What 100ms alone can delete", notes))
    blocks.append(Section("Looked at since", tuple(_looked(told, reading))))
    blocks.append(Section("Catalogs", (_purged(told),)))
    blocks.append(Section("Evidence", _evidence(told)))
    return Document(
        f"Certificate for {told.about}",
        (_verdict(told),),
        tuple(blocks),
        about=f"made {moment(told.made, reading.zone)} from {told.record}",
    )


def _verdict(told: Certificate) -> Note:
    if not told.recordings:
        return Note("?", "unsure", f"The record knows nothing of {told.about}.")
    of = many(len(told.recordings), "recording")
    if told.is_gone:
        hidden = sum(bool(each.recoverable) for each in told.deleted)
        also = (
            f" {many(hidden, 'copy is', 'copies are')} hidden, and recoverable for a while."
            if hidden
            else ""
        )
        return Note("=", "good", f"No copy of {of} is left that the record knows of.{also}")
    there = sum(each.is_there is not False for each in told.looked)
    parts = [many(len(told.left), "copy", "copies") + " left"] if told.left else []
    parts += [f"{many(there, 'object')} there, or not looked at"] if there else []
    parts += ["100ms has some of it"] if told.lapses else []
    return Note("!", "worry", f"Not all of {of} is gone: {', '.join(parts) or 'nothing went'}.")


def _gone(each: Happening, reading: Reading) -> Note:
    last = " (the last copy)" if each.last_copy else ""
    long = f", {size(each.bytes)}" if each.bytes is not None else ""
    return Note(
        "-",
        "plain",
        f"{moment(each.at, reading.zone)}: {each.asset_id} from {each.store}{last}{long}",
        parts=tuple(Prose(line) for line in _grounds(each)),
    )


def _grounds(each: Happening) -> Iterator[str]:
    """By whose word it went, what it was, and until when it can be brought back."""
    at = f" ({each.rule_at})" if each.rule_at else ""
    yield f"for {each.asked_by} {each.rule}{at}" + (f": {each.why}" if each.why else "")
    said = [f"applied by {each.user or 'nobody named'}", f"run {each.run}"]
    said += [f"ticket {each.ticket}"] if each.ticket else []
    said += [f"approved by {' and '.join(each.approved_by)}"] if each.approved_by else []
    said += [f"plan {each.plan[:12]}"]
    said += [f"policies of commit {each.commit[:12]}"] if each.commit else []
    yield ", ".join(said)
    yield from each.keys
    if each.versions is not None:
        yield with_every_version(each.versions)
    if each.recoverable:
        yield f"recoverable: {each.recoverable}"


def _known_by(each: Happening) -> str:
    return "a plan saw it" if each.event == "seen" else f"{each.event} by run {each.run}"


def _looked(told: Certificate, reading: Reading) -> Iterator[Note]:
    if not told.looked:
        yield Note("?", "unsure", "The stores were not asked: `--stores` looks at each object.")
        return
    absent = sum(each.is_there is False for each in told.looked)
    at = moment(told.made, reading.zone)
    yield Note("=", "plain", f"{many(absent, 'object is', 'objects are')} not there at {at}")
    for each in told.looked:
        if each.is_there:
            yield Note("!", "bad", f"{each.store}:{each.key} is there")
        elif each.note:
            yield Note("?", "unsure", f"{each.store}:{each.key}: {each.note}")
        elif each.hidden:
            behind = many(each.hidden, "version is", "versions are")
            yield Note("?", "unsure", f"{each.store}:{each.key}: {behind} hidden behind it")


def _purged(told: Certificate) -> Note:
    erased = {each.asset_id for each in told.deleted if each.asked_by == "erasure"}
    if not erased:
        return Note(" ", "plain", "No erasure asked for it: the catalogs still tell of it.")
    rest = erased - set(told.purged)
    if rest:
        still = f"of {many(len(rest), 'recording')} they still tell more, until their next tidying"
        return Note(
            "?", "unsure", f"Of what was erased the catalogs keep id, size, checksum; {still}"
        )
    return Note("=", "good", "Of what was erased the catalogs keep id, size and checksum alone.")


def _evidence(told: Certificate) -> tuple[Block, ...]:
    return (
        Facts(
            (
                ("lines of the record", f"{told.lines:,}"),
                ("plans that were read", f"{told.plans:,}"),
                ("first hash", told.first_hash),
                ("last hash", told.last_hash),
            )
        ),
        Prose(
            "It speaks of what retainer copied and deleted. It cannot know of downloads, backups, "
            "or what others copied. It has ids and keys, and no name of a person, a room or "
            "a session.",
            is_aside=True,
        ),
    )
