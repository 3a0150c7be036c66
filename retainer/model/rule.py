"""What policies say: matches, rules, holds and erasures."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from retainer.model.period import Period

ASSET_TYPES = (
    "room-composite",
    "room-composite-legacy",
    "room-vod",
    "chat",
    "transcript",
    "summary",
    "track",
    "stream",
)
STATUSES = ("completed", "failed", "processing")
"""Any other word means the same as `processing`: not yet."""

TEXT_FACTS = (
    "type",
    "status",
    "room_id",
    "session_id",
    "asset_id",
    "job_id",
    "template_id",
    "user_id",
    "peer_id",
)
GLOB_FACTS = ("room", "template", "path")
NUMBER_FACTS = ("size", "duration")
FACTS = (*TEXT_FACTS, *GLOB_FACTS, *NUMBER_FACTS, "created", "metadata", "thumbnails")
PERSON_FACTS = ("user_id", "peer_id")
"""Facts that tell a person. Streams carry both, tracks `peer_id` alone, nothing else any."""
NAME_FACTS = ("room", "template")
"""Facts that are names: they never appear in a plan, a journal or a log."""


@dataclass(frozen=True, slots=True)
class Everything:
    """`match: all`."""


@dataclass(frozen=True, slots=True)
class OneOf:
    """The fact is one of these values, letter by letter."""

    fact: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Glob:
    """The fact fits one of these shell patterns, with case."""

    fact: str
    patterns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Between:
    """The number lies between `low` and `high`, both included. `size` in bytes, `duration` in
    seconds."""

    fact: str
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Created:
    """The asset was created at or after `after` and before `before` (UTC)."""

    after: datetime | None
    before: datetime | None


@dataclass(frozen=True, slots=True)
class Metadata:
    """The metadata's `key` is one of these values, compared as text; or (`low`, `high`) a number
    between these, both included. A key with dots is looked for as it is, then as a path."""

    key: str
    values: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Thumbnails:
    """Whether the recording has any; or (`patterns`) one whose path fits one of these."""

    any: bool
    patterns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AllOf:
    parts: tuple[Match, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    parts: tuple[Match, ...]


@dataclass(frozen=True, slots=True)
class Not:
    part: Match


Match = Everything | OneOf | Glob | Between | Created | Metadata | Thumbnails | AllOf | AnyOf | Not


def facts_asked(match: Match) -> frozenset[str]:
    """The names of the facts that a match looks at."""
    match match:
        case Everything():
            return frozenset()
        case OneOf(fact=fact) | Glob(fact=fact) | Between(fact=fact):
            return frozenset({fact})
        case Created():
            return frozenset({"created"})
        case Metadata():
            return frozenset({"metadata"})
        case Thumbnails():
            return frozenset({"thumbnails"})
        case AllOf(parts=parts) | AnyOf(parts=parts):
            return frozenset().union(*(facts_asked(part) for part in parts))
        case Not(part=part):
            return facts_asked(part)


def metadata_keys(match: Match) -> frozenset[str]:
    """The keys of metadata that a match looks at."""
    match match:
        case Metadata(key=key):
            return frozenset({key})
        case AllOf(parts=parts) | AnyOf(parts=parts):
            return frozenset().union(*map(metadata_keys, parts))
        case Not(part=part):
            return metadata_keys(part)
        case Everything() | OneOf() | Glob() | Between() | Created() | Thumbnails():
            return frozenset()


@dataclass(frozen=True, slots=True)
class Where:
    """A place in a policy file: its path relative to the project, its line from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Keep:
    """Keep a copy in `store` from the end of `after` (or at once) to the end of `period`."""

    store: str
    period: Period
    after: Period | None = None
    legal: bool = False


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete what lies in `store` once `after` is over and nothing requires it; `versions`: with
    every version that the bucket keeps of it, for good."""

    store: str
    after: Period
    versions: bool = field(default=False, repr=False)


@dataclass(frozen=True, slots=True)
class Rule:
    id: str
    match: Match
    where: Where
    keeps: tuple[Keep, ...] = ()
    deletes: tuple[Delete, ...] = ()
    then_delete: bool = False
    at_most: Period | None = None
    why: str = ""
    owner: str = ""
    cooled: bool = False
    """Whether it is what policies of earlier applies promised, and those of today do not."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing that may match is deleted, and a copy is required in `store`, until `released`
    (UTC)."""

    id: str
    match: Match
    where: Where
    store: str
    released: datetime | None = None
    why: str = ""
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Erasure:
    """A person's request to have what matches erased; `requested` starts the request's clock and
    delays nothing. `stays`, `erases`: recordings of which somebody decided that they do not show
    the person, or do; `match` leaves the former out, and has the latter in it."""

    id: str
    match: Match
    where: Where
    requested: datetime | None = None
    why: str = ""
    owner: str = ""
    stays: tuple[str, ...] = ()
    erases: tuple[str, ...] = ()

    @property
    def is_of_a_person(self) -> bool:
        """Whether it asks for what only some recordings of a session tell."""
        return bool(facts_asked(self.match) & {*PERSON_FACTS})


def meaning(item: Rule | Hold | Erasure) -> tuple[object, ...]:
    """What an item says, less what it is called, where it stands, and why and whose it is."""
    match item:
        case Rule():
            said = (item.match, item.keeps, item.deletes, item.then_delete, item.at_most)
            # Beside the rest, so that digests stay that were made before there was such a word.
            versions = tuple(n for n, each in enumerate(item.deletes) if each.versions)
            return (*said, versions) if versions else said
        case Hold():
            return (item.match, item.store, item.released)
        case Erasure():
            return (item.match,)


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What a person accepted of one recording: that its partial copy counts as a copy, or that it
    is lost."""

    asset_id: str
    where: Where
    why: str = ""
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Policies:
    """All rules, holds and erasures, in the order of their files and lines; `accepts`: partial
    copies that count, and `losses`: losses that are no alarm any more."""

    rules: tuple[Rule, ...] = ()
    holds: tuple[Hold, ...] = ()
    erasures: tuple[Erasure, ...] = ()
    accepts: tuple[Acceptance, ...] = ()
    losses: tuple[Acceptance, ...] = ()

    def stores_named(self) -> frozenset[str]:
        keeps = {keep.store for rule in self.rules for keep in rule.keeps}
        deletes = {delete.store for rule in self.rules for delete in rule.deletes}
        return frozenset(keeps | deletes | {hold.store for hold in self.holds})

    def purged_in(self) -> frozenset[str]:
        """The stores in which a rule deletes every version."""
        deletes = (delete for rule in self.rules for delete in rule.deletes)
        return frozenset(delete.store for delete in deletes if delete.versions)

    def ask_for_rooms(self) -> bool:
        """Whether anything looks at a room's or template's name or a template's id, so that the
        rooms have to be fetched."""
        of_rooms = {*NAME_FACTS, "template_id"}
        return any(facts_asked(item.match) & of_rooms for item in self.items())

    def ending(self) -> frozenset[str]:
        """The ids of what says by itself that a recording is to end: `then: delete`, `at_most`, and
        erasures. A `delete` alone only clears one place."""
        rules = {rule.id for rule in self.rules if rule.then_delete or rule.at_most}
        return frozenset(rules | {erasure.id for erasure in self.erasures})

    def items(self) -> tuple[Rule | Hold | Erasure, ...]:
        return (*self.rules, *self.holds, *self.erasures)
