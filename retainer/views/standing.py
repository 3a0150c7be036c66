"""What holds and erasures come to now."""

from __future__ import annotations

from collections.abc import Iterator

from retainer.model.printable import shown
from retainer.model.standing import Barred, ErasureNow, HoldNow, Standing
from retainer.views.page import Block, Column, Command, Document, Note, Reading, Table
from retainer.views.units import many, moment, relative, span
from retainer.views.words import BECAUSE

_HOLDS = (
    Column("hold"),
    Column("recordings", "count"),
    Column("perhaps", "count"),
    Column("in"),
    Column("complete there", "count"),
    Column("stops", "count"),
    Column("at"),
    Column("why"),
)
_TO_DECIDE = (Column("recording"), Column("type"), Column("created", "moment"), Column("session"))
_MOST = 20
_ERASURES = (
    Column("erasure"),
    Column("state"),
    Column("recordings", "count"),
    Column("due", "count"),
    Column("blocked", "count"),
    Column("lapse", "count"),
    Column("answer by"),
    Column("at"),
    Column("why"),
)


def holds_page(told: Standing, reading: Reading) -> Document:
    """What each hold covers, and whether each recording of it has its copy."""
    told = shown(told)
    rows = tuple(
        (
            each.id,
            each.recordings,
            each.perhaps or None,
            each.store,
            each.complete,
            each.stops,
            each.at,
            each.why,
        )
        for each in told.holds
    )
    unmet = [each for each in told.holds if not each.is_met]
    if not told.holds:
        verdict = Note("=", "good", "No hold is in force.")
    elif unmet:
        are = many(len(unmet), "hold is", "holds are")
        verdict = Note("!", "worry", f"{are} not met: not each recording has a complete copy.")
    else:
        verdict = Note("=", "good", "Each recording under a hold has a complete copy.")
    blocks: list[Block] = [Table("", _HOLDS, rows)] if rows else []
    blocks += [note for each in told.holds for note in _of_a_hold(each, told, reading)]
    if unmet:
        blocks.append(Command("retainer plan", "to see what is to be copied"))
    return Document("Holds", (verdict,), tuple(blocks), about=_from(told, reading))


def _of_a_hold(hold: HoldNow, told: Standing, reading: Reading) -> Iterator[Note]:
    covered = hold.recordings + hold.perhaps
    if not covered:
        yield Note(
            "!",
            "worry",
            f"{hold.id} covers no recording that is known",
            "is its match spelt as 100ms spells it (case, blanks)?",
        )
    if hold.only_at_100ms and hold.first_leaves:
        when = (
            f"{moment(hold.first_leaves, reading.zone)} ({relative(hold.first_leaves, told.now)})"
        )
        are = many(hold.only_at_100ms, "recording is", "recordings are")
        yield Note("!", "worry", f"{hold.id}: {are} only at 100ms, the first until {when}")
    if hold.lost:
        yield Note("!", "bad", f"{hold.id}: {many(hold.lost, 'recording')} lost")
    if hold.released:
        until = moment(hold.released, reading.zone)
        yield Note("?", "plain", f"{hold.id} ends on {until}")


def erasures_page(told: Standing, reading: Reading) -> Document:
    """How far each request is, and what stands against it."""
    told = shown(told)
    rows = tuple(
        (
            each.id,
            each.state,
            each.recordings,
            each.due or None,
            sum(barred.copies for barred in each.barred) or None,
            each.lapsing or None,
            each.answer_by.isoformat() if each.answer_by else None,
            each.at,
            each.why,
        )
        for each in told.erasures
    )
    open_ = [each for each in told.erasures if each.state != "done"]
    if not told.erasures:
        verdict = Note("=", "good", "No erasure is asked for.")
    elif open_:
        are = many(len(open_), "erasure is", "erasures are")
        verdict = Note("!", "worry", f"{are} not done yet.")
    else:
        verdict = Note("=", "good", "Every erasure is done, as far as copies are known.")
    blocks: list[Block] = [Table("", _ERASURES, rows)] if rows else []
    blocks += [note for each in told.erasures for note in _of_an_erasure(each, told, reading)]
    for each in told.recoverable if told.erasures else ():
        blocks.append(Note("?", "unsure", f"What is deleted can still be read in {each}"))
    if any(each.due for each in told.erasures):
        blocks.append(Command("retainer plan", "to see what is deleted"))
    return Document("Erasures", (verdict,), tuple(blocks), about=_from(told, reading))


def _of_an_erasure(each: ErasureNow, told: Standing, reading: Reading) -> Iterator[Note]:
    if each.requested and is_late(each, told, reading):
        age = span(told.now - each.requested)
        yield Note("!", "worry", f"{each.id} was requested {age} ago, and its month is over")
    for barred in each.barred:
        yield Note("!", "worry", f"{each.id}: {_barred(barred, reading)}")
    if each.lapsing and each.last_lapses:
        when = moment(each.last_lapses, reading.zone)
        lie = many(each.lapsing, "recording lapses", "recordings lapse")
        yield Note(".", "plain", f"{each.id}: {lie} at 100ms, the last on {when}")
    if each.forgotten:
        were = many(each.forgotten, "copy was", "copies were")
        yield Note("=", "good", f"{each.id}: {were} deleted, and the catalogs tell no more of them")
    if each.unknown:
        pairs = many(each.unknown, "copy", "copies")
        yield Note("?", "unsure", f"{each.id}: of {pairs} a listing did not finish")
    if each.perhaps:
        may = many(each.perhaps, "recording")
        yield Note(
            "?", "unsure", f"{each.id} may mean {may} more, and deletes only what is certain"
        )
    if each.undecided:
        more = many(len(each.undecided), "recording")
        yield Note(
            "!",
            "worry",
            f"{each.id}: {more} of the same sessions may show the person, and nobody has decided",
            "look at each, and write `decided:` into the erasure (docs/how-to/erasure.md)",
            (_to_decide(each),),
        )

    if each.is_blind:
        yield Note(
            "!",
            "worry",
            f"{each.id}: nothing that tells the person is known any more, and nobody has decided "
            "what else of their sessions shows them",
            "`retainer history` of the erasure names what went: look at what else those sessions "
            "have, and write `decided:` into the erasure",
        )
    if each.misfits:
        first = ", ".join(each.misfits[:5]) + (" and more" if len(each.misfits) > 5 else "")
        yield Note(
            "?",
            "unsure",
            f"{each.id}: decided of {first}, of which no recording of those sessions is known",
            "look that each id is spelt as 100ms spells it: a `stay` that fits nothing protects "
            "nothing",
        )


def _to_decide(each: ErasureNow) -> Table:
    few = each.undecided[:_MOST]
    return Table(
        "",
        _TO_DECIDE,
        tuple((one.asset_id, one.type, one.created, one.session_id) for one in few),
        more=len(each.undecided) - len(few),
        all_at="`retainer erasure list --format json` lists every one",
        is_list=True,
    )


def is_late(erasure: ErasureNow, told: Standing, reading: Reading) -> bool:
    """Whether the month of a request is over, and it is not done."""
    today = told.now.astimezone(reading.zone).date()
    is_over = erasure.answer_by is not None and today > erasure.answer_by
    return is_over and erasure.state != "done"


def _barred(barred: Barred, reading: Reading) -> str:
    words = BECAUSE | {
        "legal": "a keep with `basis: legal` protects them",
        "undeclared": "nobody declared that bucket, so nothing can be deleted there",
    }
    why = "; ".join(words.get(each, each) for each in barred.because.split(", "))
    until = f", until {moment(barred.until, reading.zone)}" if barred.until else ""
    return f"{many(barred.copies, 'copy', 'copies')} in {barred.store} stay: {why}{until}"


def _from(told: Standing, reading: Reading) -> str:
    if told.gathered is None:
        return f"as of {moment(told.now, reading.zone)}"
    return (
        f"as of {moment(told.now, reading.zone)}, from facts gathered "
        f"{span(told.now - told.gathered)} before"
    )
