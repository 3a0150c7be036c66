"""What a look at the objects of a store has found."""

from __future__ import annotations

from collections.abc import Iterator

from retainer.model.outcome import Census
from retainer.model.printable import shown
from retainer.views.page import Block, Command, Document, Note, Prose
from retainer.views.units import many, size


def census_page(census: Census, what: str, store: str) -> Document:
    """`what`: what became of those that are counted: adopted, catalogued anew, verified."""
    census = shown(census)
    return Document(
        f"{store}: {what}", tuple(_found(census, what, store)), tuple(_next(census, what, store))
    )


def _found(census: Census, what: str, store: str) -> Iterator[Note]:
    counted = (
        census.looked - len(census.failed) - len(census.broken)
        if what == "verified"
        else census.recorded
    )
    read = f", {size(census.bytes)} read" if census.bytes else ""
    before = (
        f" ({many(census.known, 'object is', 'objects are')} in the catalog already)"
        if what != "verified" and census.known
        else ""
    )
    yield Note("=", "good", f"{what}: {many(counted, 'object')} in {store}{before}{read}")
    if census.unknown:
        left = many(census.unknown, "object", "objects")
        yield Note("?", "unsure", f"{left} left alone: nothing says what they are")
    if census.archived:
        are = many(census.archived, "object is", "objects are")
        yield Note("?", "unsure", f"{are} in an archive and cannot be read back")
    for key in census.broken:
        yield Note("!", "bad", f"broken: {store}:{key}")
    told = {
        "missing": census.missing,
        "another object": census.replaced,
        "not locked for as long as it was": census.unlocked,
    }
    for word, keys in told.items():
        for key in keys[:20]:
            yield Note("!", "bad", f"{word}: {store}:{key}")
        if len(keys) > 20:
            more = f"… and {len(keys) - 20:,} more of these (`--format json` lists every one)"
            yield Note(" ", "plain", more)
    for trouble in census.failed:
        yield Note("!", "bad", f"{trouble.asset_id}: {trouble.cause}", trouble.hint)
    for sentence in census.said:
        yield Note("?", "unsure", sentence)


def _next(census: Census, what: str, store: str) -> Iterator[Block]:
    if census.broken or census.missing:
        yield Command("retainer plan", "which repairs them from another copy where there is one")
    elif census.unlocked:
        yield Command("retainer plan", "which locks them again; who took the locks back?")
    elif census.replaced:
        yield Prose(
            "Next: look at them; what somebody else put there is never touched (`retainer catalog "
            f"rebuild {store}` takes up what is a copy)"
        )
    elif what != "verified":
        yield Command("retainer plan", "to see what they mean")
