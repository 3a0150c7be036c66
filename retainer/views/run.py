"""What an apply has done: what became of each group, each cause in one place, and one true next
step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from retainer.model.outcome import Resting, Summary, Trouble
from retainer.model.printable import printable, shown
from retainer.views.page import Block, Command, Document, Note, Prose, Sign
from retainer.views.units import Weight, many, size
from retainer.views.words import few

_ALIKE = 5
"""So many troubles of one kind are told together."""


def run_page(
    done: Summary, path: str, deletes: int, held_back: Sequence[str] = (), until: str = ""
) -> Document:
    """`deletes`: the plan's own count; `held_back`: why none of them could run, and `until` when
    that may stay so."""
    done, path = shown(done), printable(path)
    told = [*_done(done), *_went_wrong(done)]
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
    if done.deleted:
        yield Note(
            "-",
            "bad",
            f"deleted {many(done.deleted, 'copy', 'copies')}, {size(done.deleted_bytes)}",
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


def _went_wrong(done: Summary) -> Iterator[Note]:
    for place, resting in done.resting.items():
        whose = "100ms" if place == "hosted" else place
        yield _resting(
            resting,
            f"{whose} was left alone after it refused, and {many(resting.actions, 'action')} "
            f"with it: {resting.cause}",
        )
    for lacking in done.impossible.values():
        copies = many(lacking.actions, "copy", "copies")
        yield _resting(lacking, f"{lacking.cause}: {copies} not possible there")
    yield from _troubles(done.skipped, "?", "unsure", "was skipped", "were skipped")
    yield from _troubles(done.failed, "!", "bad", "failed", "failed")
    for sentence in done.said:
        yield Note("?", "unsure", sentence)
    for store, cause in done.catalog_failures.items():
        yield Note(
            "!",
            "bad",
            f"the catalog of {store} could not be written, so its new copies do not count "
            f"yet: {cause}",
        )
    if done.left_deletes:
        left = many(done.left_deletes, "delete was", "deletes were")
        yield Note("!", "worry", f"{left} not carried out")
    if done.lost_lock:
        yield Note(
            "!",
            "bad",
            "the run stopped: it lost the lock of a store, or could not renew it in time",
        )


def _resting(resting: Resting, text: str) -> Note:
    return Note("!", "bad", text, resting.hint)


def _troubles(
    troubles: Sequence[Trouble], sign: Sign, weight: Weight, ended: str, together: str
) -> Iterator[Note]:
    """What was not done, each kind of trouble in one place: one cause may concern a whole
    bucket."""
    kinds: dict[tuple[str, str, str, str], list[Trouble]] = {}
    for each in troubles:
        kinds.setdefault(each.kind, []).append(each)
    for (decision, store, bucket, cause), alike in kinds.items():
        hint = alike[0].hint
        if len(alike) < _ALIKE:
            for each in alike:
                text = f"{decision} {each.asset_id} in {store} {ended}: {each.cause}"
                yield Note(sign, weight, text, hint)
            continue
        what = many(len(alike), decision, "copies" if decision == "copy" else f"{decision}s")
        come = f" from {bucket}" if bucket else ""
        first = sorted(each.asset_id for each in alike)[:5]
        yield Note(
            sign,
            weight,
            f"{what}{come} in {store} {together}: {cause}",
            hint,
            (few(first, len(alike)),),
        )


def _next(
    done: Summary, path: str, deletes: int, held_back: Sequence[str], until: str
) -> Iterator[Block]:
    unfinished = (
        done.failed
        or done.resting
        or done.impossible
        or done.interrupted
        or done.lost_lock
        or done.catalog_failures
    )
    if done.finished or (
        done.changed_copies
        and not (done.failed or done.left_deletes or done.resting or done.interrupted)
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
