"""A bucket that is looked at, whatever the cloud: what each call means, and what it promises."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import TypeVar

from retainer.errors import ListingBroken, RetainerError, StoreFailed
from retainer.lane import MOST_AT_ONCE
from retainer.model.lifecycle import LifecycleRule
from retainer.model.moment import read_http_date
from retainer.model.setting import OWN_PREFIX, Store
from retainer.patience import Patience
from retainer.ports import Look, Seen, Stretch, Version, too_long
from retainer.stop import Stop
from retainer.stores.calls import Account, Calls, Nonsense, Page, VersionPage
from retainer.stores.ranges import in_ranges, split
from retainer.stores.sentences import TRY_AGAIN, failure_of
from retainer.stores.verdict import Refusal, Verdict
from retainer.stores.wire import Answer, NoAnswer, Request, Wire

Says = TypeVar("Says")
Told = TypeVar("Told", Page, VersionPage)

RESUMES = 3
"""So often in a row a read is gone on with that brings no new byte."""


class ObjectReader:
    """Reads one prefix of one bucket."""

    def __init__(
        self,
        store: Store,
        account: Account,
        calls: Calls,
        stop: Stop | None,
        patience: Patience | None,
        *,
        quick: bool,
    ) -> None:
        """`quick`: give up on a silent server in seconds, as a lock must."""
        self.name = store.name
        self.store, self.calls = store, calls
        self._cloud, self._stop = account, stop or Stop()
        at_once = store.concurrency or MOST_AT_ONCE
        self.wire = Wire(
            account,
            account.host,
            self._stop,
            patience,
            name=store.name,
            at_once=at_once,
            quick=quick,
        )
        self._tells_restores = self._tells_checksums = True

    # ── what an answer means ────────────────────────────────────────────────────────────────────

    def ask(self, verb: str, key: str, request: Request) -> Answer:
        """One call. A bucket that turns out to be in another region is asked there. Raises
        StoreFailed when no answer comes."""
        asked = self._cloud.region
        try:
            answer = self.wire.ask(request)
            if self._leads_on(self.calls.refusal_of(answer), asked):
                answer = self.wire.ask(request)
        except NoAnswer as error:
            raise self._unanswered(verb, key, error) from None
        return answer

    def _leads_on(self, told: Refusal | None, asked: str) -> bool:
        leads_to = told.leads_to if told else None
        return leads_to is not None and self._cloud.moves_to(leads_to, asked)

    def said(self, verb: str, key: str, answer: Answer, says: Callable[[Answer], Says]) -> Says:
        """What an answer says. Raises what `failure` makes of a refusal, and StoreFailed where it
        is none that this cloud would give."""
        if told := self.calls.refusal_of(answer):
            raise self.failure(verb, key, told)
        try:
            return says(answer)
        except Nonsense:
            raise self.nonsense(verb, key) from None

    def failure(self, verb: str, key: str, told: Refusal) -> RetainerError:
        """A refusal as a sentence."""
        return failure_of(self.name, self._cloud, self.where(verb, key), told)

    def where(self, verb: str, key: str) -> str:
        return f"{verb} {self.name}:{key}" if key else f"{verb} {self.name}"

    def nonsense(self, verb: str, key: str) -> StoreFailed:
        return StoreFailed(
            f"{self.where(verb, key)}: the answer is none that {self._cloud.cloud} would give",
            hint="does something else answer in its place?",
        )

    def _unanswered(self, verb: str, key: str, error: NoAnswer) -> StoreFailed:
        unknown = str(error) == "NameResolutionError"
        hint = f"there is no {self._cloud.host}: look at its `url` and `endpoint`"
        said = f"{self.where(verb, key)}: {error}"
        return StoreFailed(said, hint=hint if unknown else TRY_AGAIN)

    def changed(self, verb: str, seen: Seen) -> StoreFailed:
        return StoreFailed(
            f"{self.where(verb, seen.key)}: it changed since it was seen", hint="plan again"
        )

    # ── lists and looks ─────────────────────────────────────────────────────────────────────────

    def list(self, under: str = "") -> Iterator[Seen]:
        for page in self._pages(under, partial(self._page, under, None)):
            for seen in page.objects:
                if seen.key and (under or not seen.key.startswith(OWN_PREFIX)):
                    yield seen

    def _pages(self, under: str, asked: Callable[[str | None], Told]) -> Iterator[Told]:
        """Page by page, up to the last. Raises ListingBroken."""
        then: str | None = None
        try:
            while True:
                page = asked(then)
                yield page
                if page.then is None:
                    return
                if page.then == then:
                    raise StoreFailed(f"{self.where('list', under)}: the list goes in a circle")
                then = page.then
        except StoreFailed as error:
            raise ListingBroken(error.message, hint=error.hint) from None

    def list_at_once(
        self, bounds: Sequence[str], known: Sequence[Stretch] = ()
    ) -> Generator[Seen | Stretch]:
        try:
            first = None if bounds or known else self._page("", None, None)
            if first is not None and first.then is None:
                pages: Iterator[Sequence[Seen] | Stretch] = iter([first.objects])
            else:
                pages = in_ranges(partial(self._page, ""), bounds or self._folded(), known)
            for page in pages:
                if isinstance(page, Stretch):
                    yield page
                    continue
                for seen in page:
                    if seen.key and not seen.key.startswith(OWN_PREFIX):
                        yield seen
        except StoreFailed as error:
            raise ListingBroken(error.message, hint=error.hint) from None

    def some_between(self, first: str, last: str, pages: int) -> Iterator[Seen]:
        then: str | None = None
        try:
            for _ in range(pages):
                page = self._page("", first[:-1] or None, then)
                yield from (seen for seen in page.objects if first <= seen.key <= last)
                beyond = any(seen.key > last for seen in page.objects)
                if page.then in (None, then) or beyond:
                    return
                then = page.then
        except StoreFailed as error:
            raise ListingBroken(error.message, hint=error.hint) from None

    def _folded(self) -> Sequence[str]:
        """Where a list may be split of which nothing is known; nowhere, where folders are not
        told."""
        try:
            return split(self._folders)
        except StoreFailed:
            return []

    def _folders(self, under: str) -> Sequence[str]:
        answer = self.ask("list", under, self.calls.folders(under))
        return self.said("list", under, answer, self.calls.folders_told)

    def _page(self, under: str, after: str | None, then: str | None) -> Page:
        """What comes behind a key, or goes on from a page."""
        self._stop.check()
        page = self._asked_page(under, after, then)
        if after is None or not page.objects or page.objects[0].key != after:
            return page
        return Page(page.objects[1:], page.then)  # GCS begins with the key itself

    def _asked_page(self, under: str, after: str | None, then: str | None) -> Page:
        extras = self._tells_restores
        list_call = partial(self.calls.list, under, then, after=after)
        answer = self.ask("list", under, list_call(extras=extras))
        if extras and self._is_too_much(answer):  # Backblaze B2 refuses the header that asks for it
            answer = self.ask("list", under, list_call(extras=False))
            self._tells_restores = self.calls.refusal_of(answer) is not None
        return self.said("list", under, answer, self.calls.listed)

    def _is_too_much(self, answer: Answer) -> bool:
        """Whether a server may have refused what not all of them have a word for."""
        told = self.calls.refusal_of(answer)
        return told is not None and told.verdict is Verdict.CANNOT

    def can_lock(self) -> bool:
        """Where a look tells all of locks, nothing else needs to be known of the bucket."""
        return False

    def versions(self, under: str) -> Iterator[Version]:
        for page in self._pages(under, partial(self._page_of_versions, under)):
            of = [each for each in page.versions if self._is_under(under, each.seen.key)]
            yield from of
            if len(of) < len(page.versions):
                return  # behind those of a key come those of keys that begin with it

    def _page_of_versions(self, under: str, then: str | None) -> VersionPage:
        self._stop.check()
        answer = self.ask("list", under, self.calls.versions(under, then))
        return self.said("list", under, answer, self.calls.versions_told)

    @staticmethod
    def _is_under(under: str, key: str) -> bool:
        return key.startswith(under) if under.endswith("/") else key == under

    def keeps_deleted(self) -> str | None:
        return self._kept(self.calls.keeps)

    def _kept(self, says: Callable[[Answer], str | None]) -> str | None:
        """What the bucket's answer says of what it keeps; None where it gives none."""
        try:
            answer = self.wire.ask(self.calls.keeping())
            return says(answer) if self.calls.refusal_of(answer) is None else None
        except (NoAnswer, Nonsense):
            return None

    def keeps_removed(self) -> str | None:
        """A version that was removed is gone, unless a cloud says otherwise."""
        return None

    def lifecycle(self) -> Sequence[LifecycleRule] | None:
        try:
            return self.calls.rules(self.wire.ask(self.calls.lifecycle()))
        except (NoAnswer, Nonsense):
            return None

    def look(self, key: str) -> Look | None:
        answer = self.looked_at(key)
        return None if answer is None else self.said_of(key, answer)

    def looked_at(self, key: str) -> Answer | None:
        """The answer to a look; None where nothing is there."""
        extras = self._tells_checksums
        answer = self.ask("look at", key, self.calls.look(key, extras=extras))
        if extras and self._is_too_much(answer):  # Backblaze B2 refuses the header that asks for it
            answer = self.ask("look at", key, self.calls.look(key, extras=False))
            told = self.calls.refusal_of(answer)
            only_the_header = told is None or told.verdict is Verdict.MISSING
            self._tells_checksums = not only_the_header
        told = self.calls.refusal_of(answer)
        return None if told is not None and told.verdict is Verdict.MISSING else answer

    def said_of(self, key: str, answer: Answer) -> Look:
        return self.said("look at", key, answer, partial(self.calls.looked, key))

    def check(self) -> None:
        """Raises Stopped when nothing more may be begun."""
        self._stop.check()

    def unfinished(self) -> Sequence[str]:
        return ()

    def server_time(self) -> datetime:
        date = read_http_date(self.wire.date)
        if date is None:
            answer = self.ask("reach", "", self.calls.bucket())
            date = read_http_date(answer.headers.get("date"))
        if date is None:
            raise StoreFailed(f"reach {self.name}: the server does not tell its time")
        return date

    # ── bytes ───────────────────────────────────────────────────────────────────────────────────

    def read(self, seen: Seen) -> Iterator[bytes]:
        count = idle = 0
        while count < seen.size or count == seen.size == 0:
            try:
                with self.wire.open(self.calls.read(seen, count)) as (answer, body):
                    self._is_still(seen, answer, count)
                    for piece in body:
                        if not seen.key.startswith(OWN_PREFIX):
                            self._stop.check()
                        count, idle = count + len(piece), 0
                        yield piece
                break
            except NoAnswer as error:
                idle += 1
                if idle > RESUMES or self._stop.pause(0.2 * idle):
                    raise self._unanswered("read", seen.key, error) from None
        if count != seen.size:
            raise StoreFailed(
                f"read {self.name}:{seen.key}: {count} bytes came, {seen.size} were seen"
            )

    def _is_still(self, seen: Seen, answer: Answer, start: int) -> None:
        """Raises StoreFailed where an answer to a read is a refusal, another object's, or begins
        elsewhere: not every server honours the condition of a read."""
        told = self.calls.refusal_of(answer)
        if told is not None and told.verdict in (Verdict.UNMET, Verdict.MISSING):
            raise self.changed("read", seen)
        if told is not None:
            raise self.failure("read", seen.key, told)
        version = self.calls.version_in(answer)
        if version and version != seen.version:
            raise self.changed("read", seen)
        begins = answer.headers.get("content-range", "").startswith(f"bytes {start}-")
        if start and (answer.status != 206 or not begins):
            raise StoreFailed(f"read {self.name}:{seen.key}: it cannot be gone on with")

    def whole(self, key: str, most: int) -> tuple[Look, bytes] | None:
        return self._whole(key, most, extras=self._tells_checksums)

    def _whole(self, key: str, most: int, *, extras: bool) -> tuple[Look, bytes] | None:
        try:
            asked = self._cloud.region
            with self.wire.open(self.calls.whole(key, extras=extras)) as (answer, body):
                told = self.calls.refusal_of(answer)
                if told is not None and told.verdict is Verdict.CANNOT and extras:
                    found = self._whole(key, most, extras=False)
                    self._tells_checksums = False  # only the header was not taken
                    return found
                if told is not None and told.verdict is Verdict.MISSING:
                    return None
                if self._leads_on(told, asked):
                    return self._whole(key, most, extras=extras)
                look = self.said("read", key, answer, partial(self.calls.opened, key))
                if look.seen.size > most:
                    raise too_long(self.name, key, look.seen.size)
                content = b"".join(body)
        except NoAnswer as error:
            raise self._unanswered("read", key, error) from None
        if len(content) != look.seen.size:
            raise StoreFailed(f"read {self.name}:{key}: {len(content)} bytes came")
        return look, content
