"""A store on Google Cloud Storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from itertools import chain
from typing import ClassVar, Self

from retainer.errors import RetainerError, StoreFailed
from retainer.model.diagnosis import Found
from retainer.model.setting import Store
from retainer.patience import Patience
from retainer.ports import Begun, Checksum, Hidden, Look, Seen, StoreReader, untold
from retainer.stop import Stop
from retainer.stores.calls import Body, Described, Nonsense
from retainer.stores.gcs_account import GcsAccount
from retainer.stores.gcs_answers import kept, refusal_of, soft_deleted
from retainer.stores.gcs_calls import GcsCalls
from retainer.stores.parts import Part, Parts
from retainer.stores.proofs import OTHER, Proven, probe_of
from retainer.stores.reads import ObjectReader
from retainer.stores.traits import GCS_FIELDS, gcs_traits
from retainer.stores.verdict import Refusal, Verdict
from retainer.stores.wire import Answer, NoAnswer, Request
from retainer.stores.writes import ObjectWriter


class GcsReader(ObjectReader):
    """Reads one prefix of one bucket. What a listing or a look says of holds and retention is
    complete."""

    calls: GcsCalls

    def __init__(
        self,
        store: Store,
        stop: Stop | None = None,
        patience: Patience | None = None,
        *,
        quick: bool = False,
        account: GcsAccount | None = None,
    ) -> None:
        """`quick`: give up on a silent server in seconds, as a lock must. Raises
        CredentialsRefused."""
        self.account = account or GcsAccount(store)
        super().__init__(store, self.account, self.account.calls, stop, patience, quick=quick)

    def traits(self) -> Sequence[Found]:
        try:
            answer = self.wire.ask(self.calls.setting(GCS_FIELDS))
            if refusal_of(answer) is None:
                return tuple(gcs_traits(self.store, answer))
        except (NoAnswer, Nonsense):
            pass
        said, right = "what its owner has set cannot be read", "the right is storage.buckets.get"
        return (Found(self.name, "unsure", said, right),)

    def keeps_removed(self) -> str | None:
        return self._kept(soft_deleted)

    def hidden(self, seen: Seen) -> Hidden | None:
        """An earlier generation, else what is soft-deleted; a bucket without soft delete refuses to
        be asked for that."""
        for soft in (False, True):
            answer = self.ask("look for", seen.key, self.calls.versions(seen.key, soft=soft))
            told = refusal_of(answer)
            if soft and told is not None and told.verdict is Verdict.CANNOT:
                return None
            says = partial(self.calls.hidden, seen, soft)
            found = self.said("look for", seen.key, answer, says)
            if found is not None:
                return found if isinstance(found, Hidden) else None
        return None


class GcsWriter(ObjectWriter, GcsReader):
    """Changes one prefix of one bucket, always on a condition."""

    def __init__(
        self,
        store: Store,
        stop: Stop | None = None,
        patience: Patience | None = None,
        *,
        quick: bool = False,
        account: GcsAccount | None = None,
        like: GcsAbilities | None = None,
    ) -> None:
        """`like`: what is known of another writer to the same store."""
        GcsReader.__init__(self, store, stop, patience, quick=quick, account=account)
        self.abilities: GcsAbilities = GcsAbilities(self, like)

    def impatient(self) -> Self:
        return type(self)(
            self.store, self._stop, quick=True, account=self.account, like=self.abilities
        )

    # ── long writes: one stream, which goes on where it was cut ─────────────────────────────────

    def create_long(
        self, new: Described, first: Part, parts: Parts, begun: Begun, over: Seen | None
    ) -> Look:
        """`begun` is not told of it: an upload's name is an address that anybody can write to, and
        one that is left behind is no object, costs nothing and ends after a week."""
        upload = self.begin(new, over)
        ended: Answer | None = None
        try:
            start = 0
            for part in chain((first,), parts):
                total = None if parts.has_more() else start + part.size
                if total is not None and not self.abilities.parts and self.is_taken(new.key, over):
                    raise self.taken(new.key)
                answer = self._sent(new.key, upload, part.body, start, total)
                start += part.size
                parts.give_back(part)
                ended = answer if total is not None else None
            assert ended is not None
            version, computed = self.said("write", new.key, ended, self.calls.written)
            return self.made(new.key, start, version, computed)
        except BaseException:
            if ended is None:
                with suppress(RetainerError):
                    self.ask("clear up", new.key, self.calls.given_up(upload))
            raise

    def begin(self, new: Described, over: Seen | None) -> Request:
        """Raises KeyTaken, StoreFailed."""
        condition = self.only_over(over.version if over else None)
        answer = self.ask("write", new.key, self.calls.begin(new, condition))
        told = refusal_of(answer)
        if told is not None and told.verdict is Verdict.UNMET:
            raise self.taken(new.key)
        return self.said("write", new.key, answer, self.calls.begun)

    def _sent(self, key: str, upload: Request, body: Body, start: int, total: int | None) -> Answer:
        """The answer to the last of these bytes. Of a piece the server may keep less than came.
        Raises KeyTaken, StoreFailed."""
        end, at = start + len(body), start
        while True:
            piece = self.calls.goes_on(upload, body[at - start :], at, total)
            answer = self.ask("write", key, piece)
            told = refusal_of(answer)
            if told is not None and told.verdict is Verdict.UNMET:
                raise self.taken(key)
            if told is not None:
                raise self.failure("write", key, told)
            if answer.status != 308:
                if total is None:
                    raise self.nonsense("write", key)
                return answer
            there = kept(answer)
            if there == end and total is None:
                return answer
            if not at < there < end:
                raise StoreFailed(f"{self.where('write', key)}: {there} of {end} bytes were kept")
            at = there

    def abandon(self, key: str, upload: str) -> None:
        """Nothing is left behind that counts."""

    # ── copies on the server's side, retention ──────────────────────────────────────────────────

    def copies_from(self, source: StoreReader) -> bool:
        if not isinstance(source, GcsReader) or source.store.endpoint != self.store.endpoint:
            return False
        return self.abilities.create and self.abilities.copy and self.abilities.checksum

    def copy_within(
        self,
        source: StoreReader,
        seen: Seen,
        checksum: Checksum,
        key: str,
        metadata: Mapping[str, str],
        content_type: str,
        begun: Begun = untold,
        lock_until: datetime | None = None,
    ) -> Seen | None:
        if not isinstance(source, GcsReader) or not self.copies_from(source):
            return None
        new = Described(key, seen.size, metadata, content_type, lock_until)
        token: str | None = None
        while True:
            self.check()
            nothing = self.only_over(None)
            step = self.calls.copy(source.calls, seen, new, token, nothing)
            answer = self.ask("copy to", key, step)
            if told := refusal_of(answer):
                self._not_copied(source, seen, key, told)
                return None
            found = self.said("copy to", key, answer, self.calls.copied)
            if isinstance(found, Seen):
                return found
            token = found

    def _not_copied(self, source: GcsReader, seen: Seen, key: str, told: Refusal) -> None:
        """Returns where these credentials may not. Raises KeyTaken, StoreFailed."""
        match told.verdict:
            case Verdict.UNMET if self.look(key) is not None:
                raise self.taken(key)
            case Verdict.UNMET | Verdict.MISSING:
                raise source.changed("copy", seen)
            case Verdict.REFUSED | Verdict.LOCKED:
                return
        raise self.failure("copy to", key, told)

    def bring_back(self, hidden: Hidden) -> Seen:
        key, token = hidden.seen.key, None
        while True:
            step = self.calls.restore(hidden) if hidden.soft else self.calls.revive(hidden, token)
            answer = self.ask("bring back", key, step)
            told = refusal_of(answer)
            if told is not None and told.verdict is Verdict.UNMET:
                raise self.taken(key)
            if hidden.soft:
                return self.said("bring back", key, answer, partial(self.calls.looked, key)).seen
            found = self.said("bring back", key, answer, self.calls.copied)
            if isinstance(found, Seen):
                return found
            token = found

    def lock(self, seen: Seen, until: datetime) -> None:
        self.account.retain(seen, until)

    def restore(self, seen: Seen) -> None:
        raise StoreFailed(
            f"restore {self.name}:{seen.key}: every class of Google Cloud Storage can be read at "
            "once"
        )


class GcsAbilities(Proven):
    """What a server that speaks the JSON API honours: emulators do not do all that Google does."""

    must_refuse: ClassVar = False

    def __init__(self, writer: GcsWriter, like: GcsAbilities | None = None) -> None:
        super().__init__(writer, like)
        self._writer = writer

    def before_a_lock(self) -> None:
        """In a bucket with a retention policy a lock could not be taken away again."""
        self.find_out("replace")

    def _proofs_of_parts(self, probe: Seen) -> Mapping[str, bool]:
        """fake-gcs-server 1.54 honours the condition of a single write, and not of a stream."""
        writer = self._writer
        new = probe_of(probe.key, len(OTHER))
        begun = writer.ask("probe", "", writer.calls.begin(new, writer.only_over(None)))
        if told := refusal_of(begun):
            return {"parts": self._is_no(told, (412,)), "parts_checksum": self.checksum}
        upload = writer.said("probe", "", begun, writer.calls.begun)
        end = writer.calls.goes_on(upload, OTHER, 0, len(OTHER))
        return {"parts": self.refused(end), "parts_checksum": self.checksum}

    def _copies(self, probe: Seen) -> bool:
        writer = self._writer
        nothing = writer.only_over(None)
        try:
            new = probe_of(probe.key)
            return self.refused(writer.calls.copy(writer.calls, probe, new, None, nothing))
        except RetainerError:
            return False  # copies then go through here
