"""What an apply has done: what became of each group, each cause in one place, and one true next
step."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from retainer.model.outcome import Resting, Summary, Trouble
from retainer.model.printable import printable, shown
from retainer.views.page import Block, Command, Document, Note, Prose, Reading, Sign
from retainer.views.plan import moment_of
from retainer.views.units import Weight, many, moment, relative, size, span
from retainer.views.words import few, who_unlocks_of

if TYPE_CHECKING:
    from retainer.planfile import Header


def beginning(
    header: Header,
    fingerprint: str,
    copied_to: Collection[str],
    locked_in: Collection[str],
    deleted_in: Mapping[str, int],
    reading: Reading,
    *,
    held_back: bool = False,
) -> str:
    """What an apply is about to do, in a sentence or two: which plan, of which policies and facts,
    what goes (unless it is held back) and whether that can be brought back, and what is copied
    first."""
    header = header.shown()
    policies = f"policies {header.git_commit[:7]}" if header.git_commit else "policies"
    policies += ", with changes that are not committed" * bool(header.git_dirty)
    gathered = moment_of(header.created)
    age = f", {span(reading.clock - gathered)} old" if reading.clock else ""
    facts = f"facts of {moment(gathered, reading.zone)}{age}"
    copies = (
        f"{many(header.copies, 'copy', 'copies')} to {_and(sorted(copied_to))} "
        f"({size(header.copy_bytes)})"
        if header.copies
        else "no copies"
    )
    plan = f"Plan with fingerprint {fingerprint[:12]} ({policies}; {facts})"
    locks = _locks_of(header, locked_in, reading)
    if not header.deletes:
        return f"{plan}: {copies}, and no deletes.{locks}"
    if held_back:
        deletes = many(header.deletes, "delete that is", "deletes that are")
        return f"{plan}: {copies}, and {deletes} held back.{locks}"
    back = {source.name: source.keeps_deleted for source in header.sources}
    forever = sorted(store for store in deleted_in if not back.get(store))
    hidden = [f"{store} {back[store]}" for store in sorted(deleted_in) if back.get(store)]
    fate = [f"for ever in {_and(forever)}"] if forever else []
    fate += [f"recoverable in {each}" for each in hidden]
    if header.purges:
        others = [f"the others {'; '.join(fate)}"] if header.purges < header.deletes else []
        fate = [f"{header.purges:,} with every version that the bucket keeps", *others]
    last = f", {header.last_copies:,} of them the last copy of a recording"
    first = f"{copies} first, then " if header.copies else ""
    return (
        f"{plan}: {first}"
        f"{many(header.deletes, 'delete')} in {_and(sorted(deleted_in))} "
        f"({size(header.delete_bytes)}{last if header.last_copies else ''}; {'; '.join(fate)})."
        f"{locks}"
    )


def _locks_of(header: Header, locked_in: Collection[str], reading: Reading) -> str:
    """What is locked longer, until when, and who could take that back."""
    if not header.locks:
        return ""
    ends = [each.longest for each in header.targets if each.longest]
    final = sum(each.longer_final for each in header.targets)
    until = f", the last until {moment(moment_of(max(ends)), reading.zone)}" if ends else ""
    return (
        f" {many(header.locks, 'copy', 'copies')} in {_and(sorted(locked_in))} locked longer"
        f"{until}: {who_unlocks_of(header.locks, final)}."
    )


def _and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), *names[-1:]] if len(names) > 1 else names)


def run_page(
    done: Summary,
    path: str,
    deletes: int,
    reading: Reading,
    held_back: Sequence[str] = (),
    until: str = "",
) -> Document:
    """`deletes`: the plan's own count; `held_back`: why none of them could run, and `until` when
    that may stay so."""
    done, path = shown(done), printable(path)
    told = [*_done(done), *_went_wrong(done, reading)]
    if not told:
        told = [Note("=", "plain", "There was nothing to do.")]
    left = _next(done, path, deletes, held_back, until)
    return Document(f"Run of {path}", tuple(told), tuple(left))


def _done(done: Summary) -> Iterator[Note]:
    if done.copied:
        yield Note(
            "+",
            "good",
            f"copied {many(done.copied, 'recording')}, {size(done.copied_bytes)}, each verified",
        )
    if done.locked:
        longer = f"locked {many(done.locked, 'copy', 'copies')} longer, each looked at"
        yield Note("=", "good", longer)
    if done.locked_already:
        were = many(done.locked_already, "copy was", "copies were")
        yield Note("=", "plain", f"{were} locked for long enough already")
    if done.deleted:
        yield Note(
            "-",
            "bad",
            f"deleted {many(done.deleted, 'copy', 'copies')}, {size(done.deleted_bytes)}"
            + (f", {done.purged:,} of them for good, with every version" if done.purged else ""),
        )
    if done.restored:
        yield Note(
            "+",
            "good",
            f"asked for {many(done.restored, 'recording')} to be restored from an archive; plan "
            "again in some hours",
        )
    if done.already:
        had = f"{many(done.already, 'action')} had been done by an earlier run"
        yield Note("=", "plain", had)


def _leaving(count: int, first: datetime | None, of: int, reading: Reading) -> str:
    """How many of these leave 100ms, and when the first does."""
    if not count or first is None:
        return ""
    which = "it leaves" if of == 1 else f"{count:,} of them {'leaves' if count == 1 else 'leave'}"
    when = f"on {moment(first, reading.zone)}"
    if reading.clock:
        when += f" ({relative(first, reading.clock)})"
    return f"; {which} 100ms{', the first' if count > 1 else ''} {when}"


def _went_wrong(done: Summary, reading: Reading) -> Iterator[Note]:
    for place, resting in done.resting.items():
        whose = "100ms" if place == "hosted" else place
        yield _resting(
            resting,
            f"{whose} was left alone after it refused, and {many(resting.actions, 'action')} "
            f"with it: {resting.cause}{_of_resting(resting, reading)}",
        )
    for lacking in done.impossible.values():
        copies = many(lacking.actions, "copy", "copies")
        leave = _of_resting(lacking, reading)
        yield _resting(lacking, f"{lacking.cause}: {copies} not possible there{leave}")
    yield from _troubles(done.skipped, "?", "unsure", "was skipped", "were skipped", reading)
    yield from _troubles(done.failed, "!", "bad", "failed", "failed", reading)
    for sentence in done.said:
        yield Note("?", "unsure", sentence)
    for store, cause in done.catalog_failures.items():
        yield Note(
            "!",
            "bad",
            f"the catalog of {store} could not be written, so its new copies do not count "
            f"yet: {cause}",
        )
    if done.left_locks:
        left = many(done.left_locks, "copy was", "copies were")
        yield Note("!", "worry", f"{left} not locked longer")
    if done.left_deletes:
        left = many(done.left_deletes, "delete was", "deletes were")
        yield Note("!", "worry", f"{left} not carried out")
    if done.lost_lock:
        yield Note(
            "!",
            "bad",
            "the run stopped: it lost the lock of a store, or could not renew it in time",
        )


def _of_resting(resting: Resting, reading: Reading) -> str:
    return _leaving(resting.leaving, resting.first_leaves_at, resting.actions, reading)


def _resting(resting: Resting, text: str) -> Note:
    return Note("!", "bad", text, resting.hint)


def _plural(decision: str) -> str:
    return "copies" if decision == "copy" else f"{decision}s"


def _troubles(
    troubles: Sequence[Trouble],
    sign: Sign,
    weight: Weight,
    ended: str,
    together: str,
    reading: Reading,
) -> Iterator[Note]:
    """What was not done, each cause once: how many, the first few, and how many of them leave 100ms
    before when."""
    kinds: dict[tuple[str, str, str, str], list[Trouble]] = {}
    for each in troubles:
        kinds.setdefault(each.kind, []).append(each)
    for (decision, store, bucket, cause), alike in kinds.items():
        ends = [each.leaves_at for each in alike if each.leaves_at]
        leave = _leaving(len(ends), min(ends, default=None), len(alike), reading)
        if len(alike) == 1:
            (each,) = alike
            told = f"{decision} {each.asset_id}" if each.asset_id else _plural(decision)
            place = f" in {store}" if store else ""
            text = f"{told}{place} {ended}: {each.cause}{leave}"
            yield Note(sign, weight, text, each.hint)
            continue
        what = many(len(alike), decision, _plural(decision))
        come = f" from {bucket}" if bucket else ""
        first = sorted(each.asset_id for each in alike)[:5]
        yield Note(
            sign,
            weight,
            f"{what}{come} in {store} {together}: {cause}{leave}",
            alike[0].hint,
            (few(first, len(alike)),),
        )


def _next(
    done: Summary, path: str, deletes: int, held_back: Sequence[str], until: str
) -> Iterator[Block]:
    unfinished = (
        done.failed
        or done.left_locks
        or done.resting
        or done.impossible
        or done.interrupted
        or done.lost_lock
        or done.catalog_failures
    )
    if done.finished or (
        done.changed_copies
        and not (done.failed or done.left_deletes or done.left_locks)
        and not (done.resting or done.interrupted)
        and not done.impossible
    ):
        yield Command("retainer plan", "to see what the stores are like now")
    elif done.left_deletes and held_back and not unfinished:
        yield Prose(
            f"Next: nothing is left to do but {many(done.left_deletes, 'delete')}, held back: "
            f"{'; '.join(held_back)}" + (f"; {until}" if until else "")
        )
    elif done.left_deletes and not unfinished:
        yield Command(
            f"retainer apply {path} --approve-deletes {deletes}",
            "once somebody has read which those are: `retainer show` lists them",
        )
    else:
        yield Command(f"retainer apply {path}", "which goes on where this run ended")
