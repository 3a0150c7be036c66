"""What the journal comes to: all that later runs need of what was done, folded line by line, so
that no command reads more than the last summary and what is open.

What nobody can need any more is dropped when a segment is closed: a plan that has expired, deletes
of more than a day ago. A ledger depends on the lines alone, so that `audit verify` can fold it once
more and compare.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from array import array
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from retainer.errors import RetainerError
from retainer.journal.entry import CLOSED, START, Entry
from retainer.model.moment import read_moment, write_moment
from retainer.model.outcome import LeftOver
from retainer.model.shard import is_of_deletes

FORMAT, WITH_WORKERS = 1, 2
"""Of a summary; the second where other machines may be at work, so that a retainer that knows of
none leaves it alone."""
DAY = timedelta(hours=24)
"""So far back limits count, and so long it is believed that a server honours what it did."""
REMEMBERED = timedelta(days=90)
"""So long it is known that 100ms has nothing of a recording any more; then it is asked once
more."""
ACCEPTED = timedelta(days=400)
"""So long it is known that an acceptance was written down; then it is written once more."""
WITHOUT_END = timedelta(days=31)
"""So long a plan counts as one that may be gone on with, where its run did not say until when."""
_WEAKNESSES = {
    "create": "honours no conditional create: nothing is copied there, and nothing deleted",
    "replace": (
        "honours no conditional replace, so no lock holds there: nothing is deleted there, nor for "
        "a copy there"
    ),
    "delete": (
        "honours no conditional delete: apply looks at each object just before it deletes it"
    ),
    "parts": (
        "honours no condition at the end of an upload in parts: what is long rests on the run's "
        "lock alone"
    ),
    "checksum": "computes no checksum of its own: apply reads back what it wrote",
}
"""What it means that a store lacks an ability, the worst first."""
_POINTS = 3
"""So many anchors of each store are remembered."""


class Rows:
    """Numbers of rows of one plan, a bit for each."""

    def __init__(self, bits: bytes = b"") -> None:
        self._bits = bytearray(bits)

    def add(self, row: int) -> bool:
        """Whether it is new."""
        at, bit = divmod(row, 8)
        if at >= len(self._bits):
            self._bits.extend(bytes(max(at + 1 - len(self._bits), len(self._bits))))
        new = not self._bits[at] & 1 << bit
        self._bits[at] |= 1 << bit
        return new

    def __contains__(self, row: object) -> bool:
        if not isinstance(row, int):
            return False
        at, bit = divmod(row, 8)
        return 0 <= at < len(self._bits) and bool(self._bits[at] & 1 << bit)

    def __iter__(self) -> Iterator[int]:
        for at, byte in enumerate(self._bits):
            for bit in range(8):
                if byte & 1 << bit:
                    yield 8 * at + bit

    def __len__(self) -> int:
        return sum(byte.bit_count() for byte in self._bits)

    def written(self) -> str:
        return _packed(bytes(self._bits).rstrip(b"\0"))


class Marks:
    """Of each row of one plan that was copied, what tells the object that was made from every
    other: eight bytes a row."""

    def __init__(self, marks: array[int] | None = None) -> None:
        self._marks = marks if marks is not None else array("Q")

    def set(self, row: int, mark: int) -> None:
        if row >= len(self._marks):
            self._marks.extend([0] * max(row + 1 - len(self._marks), len(self._marks)))
        self._marks[row] = mark

    def get(self, row: int) -> int:
        """0 where nothing was made."""
        return self._marks[row] if 0 <= row < len(self._marks) else 0

    def written(self) -> str:
        return _packed(self._marks.tobytes().rstrip(b"\0"))

    @staticmethod
    def read(text: str) -> Marks:
        content = _unpacked(text)
        return Marks(array("Q", content + bytes(-len(content) % 8)))


def _packed(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, 6)).decode() if content else ""


def _unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text, validate=True)) if text else b""


def mark_of(key: str, size: int, version: str) -> int:
    """What tells one version of an object from every other, never 0."""
    content = f"{key}\0{size}\0{version}".encode(errors="surrogatepass")
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") | 1


def path_mark(path: str) -> str:
    """What tells one path of a recording from another in the journal: SHA-256, 16 hex digits."""
    return hashlib.sha256(path.partition("?")[0].encode()).hexdigest()[:16]


@dataclass
class Done:
    """What runs of one plan have done, by row number. `uncatalogued`: the records of copies that no
    catalog is known to have. `until`: from when on the plan is refused."""

    finished: bool = False
    until: datetime | None = None
    copied: Marks = field(default_factory=Marks)
    catalogued: Rows = field(default_factory=Rows)
    deleted: Rows = field(default_factory=Rows)
    partly: dict[int, str] = field(default_factory=dict)
    """Rows of which something was deleted, and not all yet: when the last of it was."""
    uncatalogued: dict[int, dict[str, Any]] = field(default_factory=dict)

    def is_as_made(self, row: int, key: str, size: int, version: str) -> bool:
        """Whether an object is the one that was copied for a row, of which a catalog tells."""
        return row in self.catalogued and self.copied.get(row) == mark_of(key, size, version)

    def was_made(self, row: int) -> bool:
        """Whether a row was copied, and a catalog tells of it."""
        return row in self.catalogued and self.copied.get(row) != 0

    def written(self) -> dict[str, Any]:
        return {
            "finished": self.finished,
            "until": write_moment(self.until) if self.until else None,
            "copied": self.copied.written(),
            "catalogued": self.catalogued.written(),
            "deleted": self.deleted.written(),
            "partly": [[row, at] for row, at in sorted(self.partly.items())],
            "uncatalogued": [[row, record] for row, record in sorted(self.uncatalogued.items())],
        }

    @staticmethod
    def read(of: Mapping[str, Any]) -> Done:
        return Done(
            bool(of["finished"]),
            read_moment(of["until"]) if of["until"] else None,
            Marks.read(of["copied"]),
            Rows(_unpacked(of["catalogued"])),
            Rows(_unpacked(of["deleted"])),
            {int(row): str(at) for row, at in of["partly"]},
            {int(row): dict(record) for row, record in of["uncatalogued"]},
        )


@dataclass(frozen=True, slots=True)
class Intended:
    """A delete that was announced, and of which nobody knows whether it was done: one row of one
    plan."""

    at: datetime
    run: str
    plan: str
    row: int
    asset: str
    store: str
    rule: str
    bytes: int
    objects: tuple[tuple[str, int, str], ...]
    asked_by: str = ""
    """`rule` or `erasure`; empty where an older version announced it."""
    versions: tuple[tuple[str, str, int], ...] = ()
    """Where each was to go, for good: key, what the bucket calls it, size in bytes."""
    versions_by: str = ""

    def written(self) -> list[Any]:
        return [
            write_moment(self.at),
            self.run,
            self.plan,
            self.row,
            self.asset,
            self.store,
            self.rule,
            self.bytes,
            [list(each) for each in self.objects],
            *([self.asked_by] if self.asked_by or self.versions else []),
            *([[list(each) for each in self.versions], self.versions_by] if self.versions else []),
        ]

    @staticmethod
    def read(of: list[Any]) -> Intended:
        at, run, plan, row, asset, store, rule, size, objects, *more = of
        untold: list[Any] = ["", [], ""]
        asked_by, versions, versions_by = [*more, *untold[len(more) :]]
        moment = read_moment(at)
        if moment is None:
            raise ValueError("an announcement has no moment")
        return Intended(
            moment,
            str(run),
            str(plan),
            int(row),
            str(asset),
            str(store),
            str(rule),
            int(size),
            tuple((str(key), int(length), str(version)) for key, length, version in objects),
            str(asked_by),
            tuple((str(key), str(name), int(length)) for key, name, length in versions),
            str(versions_by),
        )


@dataclass
class Verified:
    """How far `verify` has read a store: which one, since when, up to which key, and what it found
    broken, or not locked for as long as it was, on its way."""

    identity: str
    began: str
    upto: str
    broken: list[str] = field(default_factory=list)
    unlocked: list[str] = field(default_factory=list)


@dataclass
class Reign:
    """The applies that went one after the other by the same policies: their digest, a commit that
    has just these (empty where none is known), and when others took their place; empty until
    then. Without a digest: applies of before this was written down."""

    policies: str
    commit: str
    until: str = ""

    def written(self) -> list[Any]:
        return [self.policies, self.commit, self.until]


@dataclass
class Ledger:
    """All that later runs need of a journal. `lines` so many there are, `head` the hash of the
    last."""

    lines: int = 0
    head: str = START
    plans: dict[str, Done] = field(default_factory=dict)
    intents: dict[tuple[str, int], Intended] = field(default_factory=dict)
    lately: dict[tuple[str, str, str, str], list[Any]] = field(default_factory=dict)
    """Deletes by plan, store, rule and ten minutes: how many, of how many bytes, the last when."""
    uploads: dict[str, tuple[str, str, str, int]] = field(default_factory=dict)
    """Store, key, run and row of each write that was begun, and neither became a copy nor was given
    up."""
    abilities: dict[str, dict[str, bool]] = field(default_factory=dict)
    """What each store was last seen to honour, by its name."""
    proven: dict[str, dict[str, tuple[bool, str, str]]] = field(default_factory=dict)
    """The same by the place where it lies, with when and by which version of retainer."""
    gone: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Assets whose last copy from 100ms ended in 404 or 410: the mark of the path, and when."""
    accepted: dict[tuple[str, str, str], str] = field(default_factory=dict)
    points: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    """The line and its hash of the last anchors of each store."""
    verified: dict[str, Verified] = field(default_factory=dict)
    untold: dict[str, dict[str, tuple[str, str, int]]] = field(default_factory=dict)
    """Keys that were deleted, and of which no catalog is known to tell so: by store, with when, and
    the plan and row that they went by."""
    erased: dict[str, dict[str, str]] = field(default_factory=dict)
    """Recordings that were deleted for an erasure, and of which the catalog still tells more than
    it may: by store, with the request."""
    purged: dict[str, int] = field(default_factory=dict)
    """Of how many recordings the catalogs tell no more, by the erasure that asked for it."""
    parts: dict[str, int] = field(default_factory=dict)
    """So many parts of each store's catalog were written since it was last made short."""
    seen: dict[str, tuple[str, int, str]] = field(default_factory=dict)
    """How many objects each whole listing showed that a plan was applied of, with what was copied
    and without what was deleted since: by its name, with the store's identity and as of when."""
    reigns: list[Reign] = field(default_factory=list)
    """By which policies applies went, the last ones last."""
    spread: dict[str, tuple[str, dict[str, int]]] = field(default_factory=dict)
    """Runs that give shares of their plan to other machines: the plan, and of each share that may
    be at work, how many of its lines are here."""
    tool: tuple[str, str] = ("", "")
    """The last run, and the version of retainer that it was made with."""

    last: datetime | None = None
    """When the last line was written."""
    _uploads_of: dict[tuple[str, int], list[str]] = field(default_factory=dict)
    """The writes of a run and row, as in `uploads`."""

    def __post_init__(self) -> None:
        for name, (_, _, run, row) in self.uploads.items():
            self._uploads_of.setdefault((run, row), []).append(name)

    # ── folding ─────────────────────────────────────────────────────────────────────────────────

    def add(self, entry: Entry) -> None:
        """One more line. Raises RetainerError for an announcement that cannot be read."""
        self.lines += 1
        self.head, self.last = entry.seal, entry.at
        of = entry.particulars
        plan = of.get("plan", entry.plan)
        if isinstance(of.get("part"), str):
            store = str(of.get("store"))
            self.parts[store] = self.parts.get(store, 0) + 1
        match entry.event:
            case "start":
                self.tool = (entry.run, str(of.get("tool", "")))
                if isinstance(of.get("expires"), str):
                    self._of(plan).until = read_moment(of["expires"])
                for name, identity, objects in of.get("seen", ()):
                    self._see(str(name), str(identity), int(objects), str(of.get("seen_at")))
            case "applies":
                self._reign(write_moment(entry.at), of)
            case "intent" if of["act"] == "delete":
                self.intents |= {(each.plan, each.row): each for each in _intended(entry)}
            case "deleted":
                self._deleted(entry, plan, of)
            case "left" | "skipped" | "failed" if of["act"] == "delete":
                if not of.get("unknown"):
                    self.intents.pop((plan, of["row"]), None)
            case "copied":
                self._copied(entry, plan, of)
            case "failed" if of["act"] == "copy":
                asset = str(of.get("asset", ""))
                if isinstance(of.get("gone"), str):
                    self.gone[asset] = (of["gone"], write_moment(entry.at))
                else:
                    self.gone.pop(asset, None)  # something came, so it was there
            case "catalogued":
                self._catalogued(plan, of)
            case "restored":
                store, keys = str(of.get("store")), of.get("keys", ())
                self._count(store, len(keys), entry.at)
                for key in keys:
                    self.untold.get(store, {}).pop(key, None)
            case "compacted":
                self.parts[str(of.get("store"))] = len(of.get("parts", ()))
                erased = self.erased.get(str(of.get("store")), {})
                for asset in of.get("erased", ()):
                    if request := erased.pop(asset, None):
                        self.purged[request] = self.purged.get(request, 0) + 1
            case "settled":
                told = self.untold.get(str(of.get("store")), {})
                for key in of.get("keys", ()):
                    told.pop(key, None)
            case "upload":
                run = str(of.get("by", entry.run))
                self.uploads[of["upload"]] = (of["store"], of["key"], run, of["row"])
                self._uploads_of.setdefault((run, of["row"]), []).append(of["upload"])
            case "abandoned":
                self.uploads.pop(of["upload"], None)
            case "conditions":
                self._conditions(entry, of)
            case "accepted":
                key = (str(of.get("asset")), str(of.get("at")), str(of.get("why")))
                self.accepted[key] = write_moment(entry.at)
            case "spread":
                self.spread[entry.run] = (of["plan"], {})
            case "given" if entry.run in self.spread:
                self.spread[entry.run][1][of["name"]] = 0
            case "shard" if of["of"] in self.spread:
                shares = self.spread[of["of"]][1]
                shares[of["name"]] = of["lines"]
                if of["whole"]:
                    del shares[of["name"]]
            case "gathered":
                self.spread.pop(of["of"], None)
            case "anchor":
                points = self.points.setdefault(of["store"], [])
                points.append((self.lines, self.head))
                del points[:-_POINTS]
            case "verified" | "broken" | "unlocked":
                self._verified(entry, of)
            case "end" if "what" not in of:
                done = self._going(plan, entry)
                done.finished = done.finished or of["finished"]

    def _of(self, plan: str) -> Done:
        return self.plans.setdefault(plan, Done())

    def _going(self, plan: str, entry: Entry) -> Done:
        """A plan that something was done of: it ends some day, also where no run said when."""
        done = self._of(plan)
        done.until = done.until or entry.at + WITHOUT_END
        return done

    def _deleted(self, entry: Entry, plan: str, of: Mapping[str, Any]) -> None:
        self.intents.pop((plan, of["row"]), None)
        done = self._going(plan, entry)
        row, known = of["row"], _counts_still(done, of["row"], entry.at)
        if of.get("partial"):
            done.partly[row] = write_moment(entry.at)
        else:
            done.partly.pop(row, None)
            done.deleted.add(row)
        bucket = (plan, of["store"], of["rule"], write_moment(entry.at)[:15])
        lately = self.lately.setdefault(bucket, [0, 0, ""])
        lately[0] += not known
        lately[1] += of["bytes"]
        lately[2] = write_moment(entry.at)
        if of.get("asked_by") == "erasure":
            self.erased.setdefault(of["store"], {})[of["asset"]] = of["rule"]
        untold = self.untold.setdefault(of["store"], {})
        keys = [key for key in of.get("keys", ()) if isinstance(key, str)]
        untold |= dict.fromkeys(keys, (write_moment(entry.at), plan, of["row"]))
        self._count(of["store"], -len(keys), entry.at)

    def _copied(self, entry: Entry, plan: str, of: Mapping[str, Any]) -> None:
        record = of["record"]
        done = self._going(plan, entry)
        done.uncatalogued[of["row"]] = record
        mark = mark_of(
            str(record.get("key")), int(record.get("object_size") or 0), str(record.get("version"))
        )
        done.copied.set(of["row"], mark)
        self.gone.pop(str(of.get("asset", "")), None)
        self._count(str(record.get("store")), 1, entry.at)
        for upload in self._uploads_of.pop((str(of.get("by", entry.run)), of["row"]), ()):
            self.uploads.pop(upload, None)

    def _see(self, name: str, identity: str, objects: int, at: str) -> None:
        """A plan that is gone on with, or was made before what another one did, knows less."""
        if name not in self.seen or self.seen[name][2] < at:
            self.seen[name] = (identity, objects, at)

    def _count(self, store: str, more: int, at: datetime) -> None:
        if store in self.seen:
            identity, objects, _ = self.seen[store]
            self.seen[store] = (identity, max(0, objects + more), write_moment(at))

    def _catalogued(self, plan: str, of: Mapping[str, Any]) -> None:
        done = self._of(plan)
        store = str(of.get("store"))
        rows = {row for row in of["rows"] if isinstance(row, int) and row >= 0}
        for row in rows:
            done.catalogued.add(row)
            done.uncatalogued.pop(row, None)
        untold = self.untold.get(store, {})
        for key in [key for key, (_, by, row) in untold.items() if by == plan and row in rows]:
            del untold[key]

    def _conditions(self, entry: Entry, of: Mapping[str, Any]) -> None:
        known = {name: value for name, value in of.items() if isinstance(value, bool)}
        self.abilities.setdefault(of["store"], {}).update(known)
        if of.get("place"):
            tool = self.tool[1] if self.tool[0] == entry.run else ""
            at = write_moment(entry.at)
            self.proven.setdefault(of["place"], {}).update(
                {name: (value, at, tool) for name, value in known.items()}
            )

    def _verified(self, entry: Entry, of: Mapping[str, Any]) -> None:
        store = str(of.get("store"))
        found = self.verified.get(store)
        if entry.event != "verified":
            found = found or self.verified.setdefault(
                store, Verified("", write_moment(entry.at), "")
            )
            keys = found.broken if entry.event == "broken" else found.unlocked
            keys[:] = sorted({*keys, *map(str, of.get("keys", ()))})
            return
        identity, began = str(of.get("identity") or ""), str(of.get("began"))
        same = found if found and (found.began == began or not found.identity) else None
        broken, unlocked = (same.broken, same.unlocked) if same and of.get("upto") else ([], [])
        upto = str(of.get("upto") or "")
        self.verified[store] = Verified(identity, began, upto, broken, unlocked)

    def _reign(self, at: str, of: Mapping[str, Any]) -> None:
        """A run goes by these policies, and has its locks. `after_others`: something was done
        before this was written down."""
        policies, commit = str(of["policies"]), str(of.get("commit") or "")
        if not self.reigns and of.get("after_others"):
            self.reigns.append(Reign("", ""))
        last = self.reigns[-1] if self.reigns else None
        if last is not None and last.policies == policies:
            last.commit = last.commit or commit
            return
        if last is not None:
            last.until = at
        self.reigns.append(Reign(policies, commit))

    # ── what it is asked ────────────────────────────────────────────────────────────────────────

    @property
    def is_empty(self) -> bool:
        return self.lines == 0

    @property
    def has_acted(self) -> bool:
        """Whether anything was ever copied, deleted or recorded."""
        return bool(self.parts)

    def done(self, plan: str) -> Done:
        """What was done of a plan, by its fingerprint, as it is now."""
        return deepcopy(self.plans[plan]) if plan in self.plans else Done()

    def open_intents(self) -> list[Intended]:
        """The deletes, of any plan, that a run was about to make when it ended, or whose answer it
        never saw."""
        return list(self.intents.values())

    def left_over(self) -> list[LeftOver]:
        """What was begun and neither became a copy nor was given up."""
        return [LeftOver(store, key, upload) for upload, (store, key, _, _) in self.uploads.items()]

    def recent_deletes(
        self, now: datetime, *, but: str | None = None
    ) -> dict[tuple[str, str], tuple[int, int]]:
        """How many deletes of how many bytes the last 24 hours saw, by (store, rule), with those
        that may have been made; what lies within ten minutes counts as long as the last of it.

        `but`: a plan whose own are left out.
        """
        since = now - DAY
        found: dict[tuple[str, str], tuple[int, int]] = {}

        def add(store: str, rule: str, count: int, size: int) -> None:
            known = found.get((store, rule), (0, 0))
            found[store, rule] = (known[0] + count, known[1] + size)

        for (plan, store, rule, _), (count, size, at) in list(self.lately.items()):
            moment = read_moment(at)
            if plan != but and moment is not None and moment > since:
                add(store, rule, count, size)
        for each in self.open_intents():
            if each.plan != but and each.at > since:
                known = each.plan in self.plans and _counts_still(
                    self.plans[each.plan], each.row, now
                )
                add(each.store, each.rule, not known, each.bytes)
        return found

    def deleted_by(self, plan: str) -> dict[tuple[str, str], int]:
        """How many deletes one plan has made within a day, by (store, rule)."""
        found: dict[tuple[str, str], int] = {}
        for (of, store, rule, _), (count, _, _) in self.lately.items():
            if of == plan:
                found[store, rule] = found.get((store, rule), 0) + count
        return found

    def applied_within(self, span: timedelta, now: datetime) -> list[Reign]:
        """By which policies applies went at any moment of the span before `now`, the oldest
        first."""
        if not self.reigns and self.has_acted:
            return [Reign("", "")]
        return self._reigned_within(span, now)

    def _reigned_within(self, span: timedelta, now: datetime) -> list[Reign]:
        return [each for each in self.reigns if not each.until or _later(each.until, now - span)]

    def weak_stores(self) -> dict[str, tuple[str, str]]:
        """Stores that were seen to lack an ability, as they were last seen: the worst that is
        lacking, and what that means."""
        return {
            store: next(each for each in _WEAKNESSES.items() if known.get(each[0]) is False)
            for store, known in self.abilities.items()
            if any(known.get(lacks) is False for lacks in _WEAKNESSES)
        }

    def proven_lately(self, now: datetime, tool: str) -> dict[str, dict[str, bool]]:
        """What was found out of servers within a day by this version of retainer, by the place
        where the store lies (`Store.place`)."""
        found: dict[str, dict[str, bool]] = {}
        for place, known in self.proven.items():
            for name, (value, at, by) in known.items():
                moment = read_moment(at)
                if moment is not None and timedelta(0) <= now - moment < DAY and by == tool:
                    found.setdefault(place, {})[name] = value
        return found

    def gone_sources(self) -> dict[str, str]:
        """The assets whose last copy from 100ms ended in 404 or 410, each with the mark of the path
        that it had: it is not tried again each night, until it has another path."""
        return {asset: mark for asset, (mark, _) in self.gone.items()}

    def may_delete(self, run: str) -> bool:
        """Whether somebody to whom a run gave deletes may still be at work on them."""
        _, given = self.spread.get(run, ("", {}))
        return any(map(is_of_deletes, given))

    def has_anchor(self, lines: int, head: str) -> bool:
        """Whether a store was told, lately, that the journal ends there."""
        return lines == 0 or any((lines, head) in points for points in self.points.values())

    # ── the summary of a segment ────────────────────────────────────────────────────────────────

    def forget(self, now: datetime) -> None:
        """Drop what nobody can need any more."""
        day = now - DAY
        self.lately = {
            key: value for key, value in self.lately.items() if _later(str(value[2]), day)
        }
        counted = {plan for plan, _, _, _ in self.lately} | {plan for plan, _ in self.intents}
        self.plans = {
            plan: done
            for plan, done in self.plans.items()
            if plan in counted or (done.until or now) > now
        }
        for done in self.plans.values():
            if done.finished:  # nothing goes on from it
                done.copied, done.catalogued, done.deleted = Marks(), Rows(), Rows()
                done.uncatalogued = {}
        self.proven = {
            place: fresh
            for place, known in self.proven.items()
            if (fresh := {name: seen for name, seen in known.items() if _later(seen[1], day)})
        }
        self.gone = {
            asset: of for asset, of in self.gone.items() if _later(of[1], now - REMEMBERED)
        }
        self.accepted = {key: at for key, at in self.accepted.items() if _later(at, now - ACCEPTED)}
        self.reigns = self._reigned_within(ACCEPTED, now)
        self.untold = {
            store: kept
            for store, keys in self.untold.items()
            if (kept := {key: by for key, by in keys.items() if _later(by[0], now - ACCEPTED)})
        }

    def written(self) -> dict[str, Any]:
        """What a segment is closed with: JSON. What an older version did not know is left out
        where there is none of it."""
        added = {
            "seen": {name: list(of) for name, of in sorted(self.seen.items())},
            "reigns": [each.written() for each in self.reigns],
            "spread": {run: list(of) for run, of in sorted(self.spread.items())},
        }
        return {
            "format": WITH_WORKERS if self.spread else FORMAT,
            "lines": self.lines,
            "plans": {plan: done.written() for plan, done in sorted(self.plans.items())},
            "intents": [each.written() for _, each in sorted(self.intents.items())],
            "lately": [[*key, *value] for key, value in sorted(self.lately.items())],
            "uploads": [[name, *of] for name, of in sorted(self.uploads.items())],
            "abilities": {store: dict(of) for store, of in sorted(self.abilities.items())},
            "proven": {
                place: {name: list(of) for name, of in sorted(known.items())}
                for place, known in sorted(self.proven.items())
            },
            "gone": {asset: list(of) for asset, of in sorted(self.gone.items())},
            "accepted": [[*key, at] for key, at in sorted(self.accepted.items())],
            "points": {
                store: [list(each) for each in points]
                for store, points in sorted(self.points.items())
            },
            "verified": {
                store: [of.identity, of.began, of.upto, of.broken]
                + ([of.unlocked] if of.unlocked else [])  # as summaries of before had it
                for store, of in sorted(self.verified.items())
            },
            "untold": {
                store: {key: list(of) for key, of in sorted(keys.items())}
                for store, keys in sorted(self.untold.items())
            },
            "erased": {store: dict(of) for store, of in sorted(self.erased.items()) if of},
            "parts": dict(sorted(self.parts.items())),
            "purged": dict(sorted(self.purged.items())),
            "tool": list(self.tool),
        } | {name: of for name, of in added.items() if of}

    @staticmethod
    def read(entry: Entry) -> Ledger:
        """The ledger that a segment was closed with. Raises RetainerError."""
        of = entry.particulars
        if of.get("format") not in (FORMAT, WITH_WORKERS):
            raise RetainerError(
                f"the journal's summary of {entry.at:%Y-%m-%d %H:%M} (run {entry.run}) has format "
                f"{of.get('format')}, and this retainer reads {FORMAT}",
                hint="go on with the version of retainer that wrote it, or a newer one",
            )
        try:
            return Ledger(
                lines=of["lines"] + 1,
                head=entry.seal,
                last=entry.at,
                plans={str(plan): Done.read(done) for plan, done in of["plans"].items()},
                intents={(each.plan, each.row): each for each in map(Intended.read, of["intents"])},
                lately={
                    (str(plan), str(store), str(rule), str(when)): [int(count), int(size), str(at)]
                    for plan, store, rule, when, count, size, at in of["lately"]
                },
                uploads={
                    str(name): (str(store), str(key), str(run), int(row))
                    for name, store, key, run, row in of["uploads"]
                },
                abilities={
                    str(store): {str(name): bool(value) for name, value in known.items()}
                    for store, known in of["abilities"].items()
                },
                proven={
                    str(place): {
                        str(name): (bool(value), str(at), str(tool))
                        for name, (value, at, tool) in known.items()
                    }
                    for place, known in of["proven"].items()
                },
                gone={str(asset): (str(mark), str(at)) for asset, (mark, at) in of["gone"].items()},
                accepted={
                    (str(asset), str(at), str(why)): str(when)
                    for asset, at, why, when in of["accepted"]
                },
                points={
                    str(store): [(int(lines), str(head)) for lines, head in points]
                    for store, points in of["points"].items()
                },
                verified={
                    str(store): Verified(
                        str(identity), str(began), str(upto), *([str(k) for k in of] for of in keys)
                    )
                    for store, (identity, began, upto, *keys) in of["verified"].items()
                },
                untold={
                    str(store): {
                        str(key): (str(at), str(plan), int(row))
                        for key, (at, plan, row) in keys.items()
                    }
                    for store, keys in of["untold"].items()
                },
                erased={
                    str(store): {str(asset): str(request) for asset, request in told.items()}
                    for store, told in of["erased"].items()
                },
                parts={str(store): int(count) for store, count in of["parts"].items()},
                purged={str(request): int(count) for request, count in of["purged"].items()},
                seen={
                    str(name): (str(identity), int(objects), str(at))
                    for name, (identity, objects, at) in of.get("seen", {}).items()
                },
                reigns=[
                    Reign(str(policies), str(commit), str(until))
                    for policies, commit, until in of.get("reigns", ())
                ],
                spread={
                    str(run): (str(plan), {str(name): int(count) for name, count in of.items()})
                    for run, (plan, of) in of.get("spread", {}).items()
                },
                tool=(str(of["tool"][0]), str(of["tool"][1])),
            )
        except (KeyError, TypeError, ValueError, AttributeError, zlib.error) as error:
            raise RetainerError(
                f"the journal's summary of {entry.at:%Y-%m-%d %H:%M} (run {entry.run}) cannot be "
                f"read ({type(error).__name__})",
                hint="restore it from a backup; do not edit it",
            ) from None


def _later(at: str, than: datetime) -> bool:
    """Whether a moment is later; one that cannot be read is."""
    moment = read_moment(at)
    return moment is None or moment > than


def closing(ledger: Ledger, run: str, now: datetime, as_of: datetime) -> Entry:
    """The line that closes a segment, without what nobody can need any more at `as_of`."""
    short = Ledger.read(Entry(now, run, "-", CLOSED, ledger.written()))
    short.lines = ledger.lines
    short.forget(as_of)
    return Entry(now, run, "-", CLOSED, short.written() | {"as_of": write_moment(as_of)})


def _counts_still(done: Done, row: int, now: datetime) -> bool:
    """Whether a row counts already among the deletes of the day: it is gone, or a part of it went
    within the day."""
    at = read_moment(done.partly.get(row, ""))
    return row in done.deleted or (at is not None and at > now - DAY)


def _intended(entry: Entry) -> list[Intended]:
    of = entry.particulars
    try:
        return [
            Intended(
                entry.at,
                entry.run,
                str(of.get("plan", entry.plan)),
                int(act["row"]),
                str(act["asset"]),
                of["store"],
                str(act["rule"]),
                int(act["bytes"]),
                tuple((str(key), int(size), str(version)) for key, size, version in act["objects"]),
                str(act.get("asked_by") or ""),
                tuple(
                    (str(key), str(name), int(size)) for key, name, size in act.get("versions", ())
                ),
                str(act.get("versions_by") or ""),
            )
            for act in of["acts"]
        ]
    except (KeyError, TypeError, ValueError):
        message = (
            f"the journal has an announcement of {entry.at:%Y-%m-%d %H:%M} (run {entry.run}) "
            "that cannot be read"
        )
        raise RetainerError(message, hint="restore it from a backup; do not edit it") from None
