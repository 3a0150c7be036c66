"""What a server honours, found out when it is first relied on: some ignore a condition in silence,
and some repeat any checksum that they are sent (docs/reference/stores.md has which)."""

from __future__ import annotations

import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, get_args

from retainer.errors import RetainerError
from retainer.model.setting import OWN_PREFIX
from retainer.ports import Ability, Checksum, Look, Seen
from retainer.stores.calls import Described, Nonsense
from retainer.stores.parts import crc32c_of
from retainer.stores.verdict import Refusal, Verdict
from retainer.stores.wire import Request

if TYPE_CHECKING:
    from retainer.stores.writes import ObjectWriter

PROBE, OTHER = b"probe", b"other"
NEVER_A_NO = (Verdict.CREDENTIALS, Verdict.ELSEWHERE, Verdict.REFUSED, Verdict.BUSY)
"""These say nothing of whether a condition or a checksum is honoured, whatever their status."""


class Put(Protocol):
    """A write of the same bytes with this checksum, over this version (None: over nothing)."""

    def __call__(self, crc32c: str, version: str | None, /) -> Request: ...


class _Proved:
    """An ability, found out when it is first asked for."""

    def __init__(self, name: Ability) -> None:
        self._name = name

    def __get__(self, proven: Proven, _: object = None) -> bool:
        return proven.of(self._name)


class Proven(ABC):
    """The abilities of one store. Safe to use from several threads; each answer raises StoreFailed
    where it cannot be found out."""

    create = _Proved("create")
    replace = _Proved("replace")
    delete = _Proved("delete")
    batch_delete = _Proved("batch_delete")
    parts = _Proved("parts")
    copy = _Proved("copy")
    checksum = _Proved("checksum")
    parts_checksum = _Proved("parts_checksum")

    habits: ClassVar[Mapping[str, bool]] = {}
    """What a writer has to know besides, of how the server wants to be spoken to; what most
    want."""

    must_refuse: ClassVar[bool] = True
    """Whether a checksum is believed only where a wrong one is refused; else also where the true
    one is told nevertheless."""

    def __init__(self, writer: ObjectWriter, like: Proven | None = None) -> None:
        """`like`: of another writer to the same store; what one finds out, both know."""
        self._store = writer
        self._known: dict[str, bool] = {} if like is None else like._known
        self._proving: Any = threading.RLock() if like is None else like._proving

    @property
    def known(self) -> Mapping[str, bool]:
        return dict(self._known)

    def recall(self, known: Mapping[str, bool]) -> None:
        names = (*get_args(Ability), *self.habits)
        with self._proving:
            self._known |= {name: known[name] for name in names if name in known}

    def find_out(self, *abilities: Ability) -> None:
        for ability in abilities:
            self.of(ability)

    def before_a_lock(self) -> None:
        """Nothing: what a lock rests on is found out on the lock itself."""
        return

    def habit(self, name: str) -> bool:
        """How the server wants to be spoken to (`habits`)."""
        return self._known.get(name, self.habits[name])

    def note(self, name: str, value: bool) -> None:
        self._known[name] = value

    @property
    def lock(self) -> bool:
        return self.create and self.replace

    def of(self, ability: Ability) -> bool:
        with self._proving:
            if ability not in self._known:
                self._prove(ability)
            return self._known[ability]

    def _prove(self, ability: Ability) -> None:
        with self._sensible(), self._probe() as probe:
            match ability:
                case "create" | "replace" | "checksum":
                    self.prove_on(probe, PROBE)
                case "delete" | "batch_delete":
                    self._prove_deletes(probe)
                case "parts" | "parts_checksum":
                    self._known |= self._proofs_of_parts(probe)
                case "copy":
                    self._known["copy"] = self.create and self._copies(probe)

    @abstractmethod
    def _proofs_of_parts(self, probe: Seen) -> Mapping[str, bool]:
        """`parts` and `parts_checksum`, found out by a write of the longer kind over a probe."""

    @abstractmethod
    def _copies(self, probe: Seen) -> bool:
        """Whether the call that copies writes over nothing, and has a checksum computed of what it
        wrote."""

    @contextmanager
    def _sensible(self) -> Iterator[None]:
        """Raises StoreFailed for an answer that this cloud would not give."""
        try:
            yield
        except Nonsense:
            raise self._store.nonsense("probe", "") from None

    @contextmanager
    def _probe(self) -> Iterator[Seen]:
        """An object of our own that goes afterwards, whatever comes."""
        key = f"{OWN_PREFIX}probe-{uuid.uuid4().hex}"
        store = self._store
        try:
            answer = store.put(probe_of(key), PROBE, crc32c_of(PROBE))
            version, _ = store.said("probe", "", answer, store.calls.written)
            yield Seen(key, len(PROBE), version)
        finally:
            with suppress(RetainerError):
                store.ask("probe", "", store.calls.delete(key, None))

    # ── single writes, on an object that is ours ────────────────────────────────────────────────

    def prove_on(self, seen: Seen, content: bytes) -> Seen:
        """Find out on an object of ours whether a write over it is refused where nothing may be
        there, or another version, and whether its checksum is computed. The object as it lies then:
        its bytes stay the same. Raises StoreFailed."""
        with self._proving, self._sensible():
            if {"create", "replace", "checksum"} <= self._known.keys():
                return seen
            store, new = self._store, probe_of(seen.key, len(content))
            right, wrong = crc32c_of(content), crc32c_of(content + OTHER)

            def put(crc32c: str, version: str | None, /) -> Request:
                condition = store.only_over(version)
                return store.calls.put(new, content, store.sent(crc32c), **condition)

            create, seen, _ = self._refused_over(seen, put(right, None))
            replace, told = False, None
            if create:
                replace, seen, told = self._replaces(seen, put, right)
            checksum = False
            if replace:  # else it could be written over what is somebody else's by now
                over = put(wrong, seen.version)
                refused, seen, repeated = self._refused_over(seen, over, statuses=(400,))
                told = told if refused else None if self.must_refuse else repeated
                if told is None and refused and store.sent(right):
                    look = store.seen_by_a_reader(seen.key)
                    told = look.checksum if look else None
                checksum = told == Checksum("crc32c", right)
            self._known |= {"create": create, "replace": replace, "checksum": checksum}
            return seen

    def _refused_over(
        self, seen: Seen, request: Request, statuses: tuple[int, ...] = (412,)
    ) -> tuple[bool, Seen, Checksum | None]:
        """Whether a write that must fail does; where it does not, what lies there by then, and the
        checksum that the answer tells."""
        answer = self._store.ask("probe", "", request)
        told = self._store.calls.refusal_of(answer)
        if told is None:
            version, checksum = self._store.calls.written(answer)
            return False, Seen(seen.key, seen.size, version), checksum
        return self._is_no(told, statuses), seen, None

    def _replaces(self, seen: Seen, put: Put, right: str) -> tuple[bool, Seen, Checksum | None]:
        """Whether a write over the right version goes through, and one over another version does
        not; and the checksum that is told of it."""
        store = self._store
        refused, seen, _ = self._refused_over(seen, put(right, store.calls.no_version))
        if not refused:
            return False, seen, None
        answer = store.ask("probe", "", put(right, seen.version))
        told = store.calls.refusal_of(answer)
        if told is None:
            version, checksum = store.calls.written(answer)
            return True, Seen(seen.key, seen.size, version), checksum
        if told.verdict is not Verdict.REFUSED:  # a right to write over things may be lacking
            self._is_no(told)
        return False, seen, None

    def _is_no(self, told: Refusal, statuses: tuple[int, ...] = ()) -> bool:
        """Whether a refusal is one of those that were wanted. Raises StoreFailed,
        CredentialsRefused for one that says nothing of it."""
        if told.verdict in NEVER_A_NO:
            raise self._store.failure("probe", "", told)
        if told.status in statuses or (told.verdict is Verdict.UNMET and 412 in statuses):
            return True
        if told.status in (400, 412, 501) or told.verdict is Verdict.LOCKED:
            return False  # a bucket with retention keeps a probe as it is
        raise self._store.failure("probe", "", told)

    def refused(self, request: Request, statuses: tuple[int, ...] = (412,)) -> bool:
        """Whether a call that must fail does. Raises StoreFailed for any other failure."""
        told = self._store.calls.refusal_of(self._store.ask("probe", "", request))
        return told is not None and self._is_no(told, statuses)

    # ── deletes, on a probe ─────────────────────────────────────────────────────────────────────

    def _prove_deletes(self, probe: Seen) -> None:
        calls = self._store.calls
        delete = self.refused(calls.delete(probe.key, calls.no_version)) and self._is_there(probe)
        batch = delete and self._refuses_batch(probe) and self._is_there(probe)
        self._known |= {"delete": delete, "batch_delete": batch}

    def _is_there(self, probe: Seen) -> bool:
        return self._store.seen_by_a_reader(probe.key) is not None

    def _refuses_batch(self, probe: Seen) -> bool:
        store, other = self._store, Seen(probe.key, probe.size, self._store.calls.no_version)
        answer = store.ask("probe", "", store.calls.delete_many([other]))
        if told := store.calls.refusal_of(answer):
            return self._is_no(told)
        told = store.calls.deleted_many([other], answer).get(other.key)
        try:
            return told is not None and self._is_no(told, (412,))
        except RetainerError:
            return False  # it says nothing of the condition

    # ── what is believed ────────────────────────────────────────────────────────────────────────

    def computes(self, version: str) -> bool | None:
        """Whether the checksum that is told of this version is one that the store computed; None:
        that is not known yet."""
        return self._known.get("checksum")

    def believed(self, look: Look) -> Look:
        """A look, without a checksum of which it is known that the server repeats any that it is
        sent; as it is where nothing is known."""
        if look.checksum is None or self.computes(look.seen.version) is not False:
            return look
        return replace(look, checksum=None)


def probe_of(key: str, size: int = len(PROBE)) -> Described:
    return Described(key, size, {}, "application/octet-stream")
