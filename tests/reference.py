"""The decision of DESIGN.md, sections 4 and 5, written a second time: slow, plain, standard library
only. The oracle of the property tests.

Every function quotes the sentence that it stands for. `# silent:` marks a choice made where the
text says nothing, or two things.
"""

import calendar
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from fnmatch import fnmatchcase
from functools import cache, partial
from operator import eq
from typing import Any
from zoneinfo import ZoneInfo

SOURCES = {"hosted", "elsewhere"}  # "`hosted` and `elsewhere` are reserved store names."
FOREVER = datetime.max.replace(tzinfo=UTC)  # the end of what has no end
DUE = datetime.min.replace(tzinfo=UTC)  # the end of what counts as due already
Gap = Enum(
    "Gap", ["ABSENT", "UNREAD"]
)  # a fact that an asset does not carry; a fact that could not be read


@dataclass(frozen=True)
class Decision:
    is_: str
    until: datetime | str | None = None  # of keep and lapses; "forever": there is no such moment
    deadline: datetime | str | None = None  # of copy; "none": there is no such moment
    because: frozenset[str] = frozenset()  # of blocked
    versions: str = "kept"  # of delete: "all", where each version goes too


Clause = tuple[str, str, str | None]  # what asks: its kind, the id of its item, its store


def rfc3339(text: str) -> datetime | None:
    """ "RFC 3339 with a zone"; None for anything else. What is finer than a microsecond is cut."""
    m = re.fullmatch(
        r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt](?!24)([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]+))?([Zz]|[+-][0-9]{2}:[0-5][0-9])",
        text,
    )
    try:  # silent: a blank in place of the T is not accepted
        return (
            datetime.fromisoformat(f"{m[1]}T{m[2]}.{m[3] or '':0<6.6}{m[4].upper()}").astimezone(
                UTC
            )
            if m
            else None
        )
    except (ValueError, OverflowError):
        return None


@cache
def start_of_day(day: date, zone: ZoneInfo) -> datetime:
    """ "the start of that day in `timezone`": its first instant, though midnight may not exist; of a
    day left out altogether, that of the next."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    early, late = (
        int(midnight.replace(fold=fold).timestamp()) for fold in (1, 0)
    )  # the same; or of two midnights, late is the first one;
    skipped = bisect_left(
        range(early, late),
        True,
        key=lambda second: datetime.fromtimestamp(second, zone).date() >= day,
    )  # or a gap lies between
    return datetime.fromtimestamp(min(early, late) + skipped, UTC)


def moment(value: object, zone: ZoneInfo) -> datetime:
    """ "A date alone (`released`, `requested`) is the start of that day in `timezone`." """
    if isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        value = date.fromisoformat(
            value
        )  # silent: the same for `now` and for the bounds of `created`
    if isinstance(value, date) and not isinstance(value, datetime):
        return start_of_day(value, zone)
    found = value if isinstance(value, datetime) else rfc3339(str(value))
    if found is None or found.tzinfo is None:
        raise ValueError(f"not a date, and not RFC 3339 with a zone: {value!r}")
    return found.astimezone(UTC)


def period_end(created: datetime, period: str, zone: ZoneInfo) -> datetime:
    """ "a period of days, weeks, months or years ends at the start of the day after `local date +
    period`, in `timezone` (31 Jan + 1mo ends with 28 Feb; 29 Feb + 1y with 28 Feb); always counted
    from the original `created_at`, never chained. Hours are exact (to the microsecond)." """
    if period == "forever":
        return FOREVER
    short = re.fullmatch(r"([0-9]+)(h|d|w|mo|y)", period)
    iso = f"P{'T' if short[2] == 'h' else ''}{short[1]}{short[2][0].upper()}" if short else period
    m = re.fullmatch(
        r"P(?:T([0-9]+)H|(?=[0-9])(?:([0-9]+)Y)?(?:([0-9]+)M)?(?:([0-9]+)W)?(?:([0-9]+)D)?)", iso
    )
    if m is None:  # silent: PT90M and PT30S are refused here, as `m` is
        raise ValueError(f"not a duration: {period!r}")
    hours, years, months, weeks, days = (int(part or 0) for part in m.groups())
    try:
        if m[1]:
            return created + timedelta(hours=hours)
        local = created.astimezone(zone).date()
        year, month = divmod(12 * (local.year + years) + local.month - 1 + months, 12)
        in_month = date(year, month + 1, min(local.day, calendar.monthrange(year, month + 1)[1]))
        return start_of_day(
            in_month + timedelta(days=7 * weeks + days + 1), zone
        )  # silent: P1M10D adds the months first
    except (OverflowError, ValueError):
        return FOREVER  # silent: an end past the year 9999


def trusted_created(asset: dict[str, Any], t: datetime) -> datetime | None:
    """ "created_at missing, not RFC 3339 with a zone, before 2015, more than 5 minutes in the
    future": None, untrusted."""
    raw = asset.get("created_at")
    found = raw if isinstance(raw, datetime) else rfc3339(raw) if isinstance(raw, str) else None
    if (
        found is None
        or found.tzinfo is None
        or {"created", "created_at"} & set(asset.get("not_known") or [])
    ):
        return None  # silent: a date that `not_known` lists is not trusted
    return (
        None
        if found < datetime(2015, 1, 1, tzinfo=UTC) or found - t > timedelta(minutes=5)
        else found.astimezone(UTC)
    )  # silent: 2015 in UTC


def all_of(answers: Iterable[bool | None]) -> bool | None:
    """ "A match is yes, no, or not certain" (True, False, None). "Fields side by side mean "and" " """
    found = list(answers)
    if not found:
        raise ValueError("An empty `match` matches nothing and is an error.")
    return False if False in found else None if None in found else True


def any_of(answers: Iterable[bool | None]) -> bool | None:
    """ "a list means "one of" " (an empty one is an error elsewhere; here it is never a yes)"""
    found = list(answers) or [None]
    return True if True in found else None if None in found else False


def text(value: object) -> str | Gap:
    """ "metadata values compare as text (4 == "4", true == "true")" (the brief). silent: so do all
    others."""
    if value is None:
        return (
            Gap.ABSENT
        )  # silent: null is absent everywhere but in `size` and `duration`, within `metadata` too
    if not isinstance(value, str | int | float | date):
        return Gap.UNREAD  # silent: a list or a mapping cannot be compared
    return str(value).lower() if isinstance(value, bool) else str(value)


def number(value: object) -> object:
    """ "A fact that could not be read is not certain: `size` or `duration` null or 0" """
    if isinstance(value, str) and re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
        value = (
            float(value) if "." in value else int(value)
        )  # silent: numbers as strings, which are seen in the wild, are numbers
    return (
        value
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0
        else Gap.UNREAD
    )  # silent: below 0 is not read


def between(span: dict[str, float], value: str) -> bool | None:
    """Issue 13: "with `{min, max}` for numbers"; what is no number is not certain."""
    try:
        found = float(value)
    except ValueError:
        return None
    return bool(span.get("min", found) <= found <= span.get("max", found))


def glob(name: str, pattern: str) -> bool:
    """ "Globs are the shell's (`* ? [ ]`), with case." `[^x]` becomes the `[!x]` that fnmatch knows;
    a `[` that nothing closes is itself."""
    shell = re.sub(
        r"\[([!^]|(?![!^]))(\]?[^\]]+|\])\]|\[",
        lambda m: f"[{'!' if m[1] else ''}{m[2]}]" if m[2] else "[[]",
        pattern,
    )
    return fnmatchcase(name, shell)


TIMELESS = ("chat", "transcript", "summary")
"""Issue 13: "`duration: 0` of what has no duration is a plain no to a duration match"."""


@dataclass(frozen=True)
class Matcher:
    asset: dict[str, Any]
    t: datetime
    zone: ZoneInfo

    def fact(self, name: str) -> object:
        """ "user_id and peer_id come from the asset's own key of that name, else from its
        metadata's" (the brief)"""
        value = self.asset.get("id" if name == "asset_id" else name)
        if name in (self.asset.get("not_known") or []):
            return Gap.UNREAD
        if name == "duration" and value in (0, "0") and self.asset.get("type") in TIMELESS:
            return Gap.ABSENT
        if name in ("size", "duration"):
            return (
                number(value) if name in self.asset else Gap.ABSENT
            )  # "A fact that an asset leaves out is absent" (README)
        if value is None and name in ("user_id", "peer_id"):
            return self.metadata(name)
        return (
            Gap.ABSENT if name == "path" and value == "" else text(value)
        )  # silent: any other empty text is a text

    def metadata(self, key: object) -> object:
        """ "a metadata key is missing": absent."""
        holder = self.asset.get("metadata") or {}
        if "metadata" in (self.asset.get("not_known") or []) or not isinstance(holder, dict):
            return Gap.UNREAD  # silent: metadata that is no mapping could not be read
        flat = {str(name): value for name, value in holder.items()}
        if str(key) not in flat and "." in str(key):  # issue 13: "nested metadata by dotted key"
            found: Any = holder
            for part in str(key).split("."):
                found = found.get(part) if isinstance(found, dict) else None
            return text(found)
        return text(flat.get(str(key)))

    def leaf(self, found: Any, negated: bool, test: Callable[[Any], bool | None]) -> bool | None:
        """ "A fact that an asset does not carry [...] is a no, and *not certain* under a `not` (an
        odd number of them). A fact that could not be read is not certain" """
        return (
            test(found)
            if not isinstance(found, Gap)
            else None
            if found is Gap.UNREAD or negated
            else False
        )

    def one_of(
        self, wanted: Any, found: Any, negated: bool, same: Callable[[Any, Any], bool]
    ) -> bool | None:
        """ "a list means "one of" " """
        choices = wanted if isinstance(wanted, list) else [wanted]
        return self.leaf(
            found, negated, lambda value: any_of(same(value, text(each)) for each in choices)
        )

    def matches(self, match: Any, negated: bool = False) -> bool | None:
        """ "`match: all` is the way to say everything." `negated`: an odd number of `not`s stands
        above."""
        return (
            True
            if match == "all"
            else all_of(self.field(name, wanted, negated) for name, wanted in match.items())
        )

    def field(self, name: str, wanted: Any, negated: bool) -> bool | None:
        """ "`match` is a closed vocabulary, no code" """
        match name:
            case "not":
                return {True: False, False: True, None: None}[self.matches(wanted, not negated)]
            case "any":
                return any_of(self.matches(each, negated) for each in wanted)
            case "all":
                return all_of(self.matches(each, negated) for each in wanted)
            case (
                "size" | "duration"
                # "{min,max} inclusive" (the brief); silent: units (`100GB`, `90s`) are not read here
            ):
                return self.leaf(
                    self.fact(name),
                    negated,
                    lambda n: bool(wanted.get("min", n) <= n <= wanted.get("max", n)),
                )
            # "not certain: [...] `created` with an untrusted date", a missing one too; "after <=
            # created_at < before" (the brief)
            case "created":
                bounds = {"after": DUE, "before": FOREVER} | {
                    key: moment(value, self.zone) for key, value in wanted.items()
                }
                created = trusted_created(self.asset, self.t) or Gap.UNREAD
                return self.leaf(
                    created, negated, lambda at: bool(bounds["after"] <= at < bounds["before"])
                )
            case "metadata":
                return all_of(
                    self.leaf(self.metadata(key), negated, partial(between, value))
                    if isinstance(value, dict)
                    else self.one_of(value, self.metadata(key), negated, eq)
                    for key, value in wanted.items()
                )
            # Issue 13: "`thumbnails` (has any, glob)"; to have none is known of whoever tells none
            case "thumbnails" if name in (self.asset.get("not_known") or []):
                return None
            case "thumbnails" if isinstance(wanted, bool):
                return bool(self.asset.get("thumbnails")) == wanted
            case "thumbnails":
                faces = self.asset.get("thumbnails") or Gap.ABSENT
                return self.leaf(
                    faces,
                    negated,
                    lambda found: any_of(
                        self.one_of(wanted, face, negated, glob) for face in found
                    ),
                )
            case "room" | "template" | "path":
                return self.one_of(wanted, self.fact(name), negated, glob)
            case (
                "type"
                | "status"
                | "room_id"
                | "session_id"
                | "asset_id"
                | "job_id"
                | "template_id"
                | "user_id"
                | "peer_id"
            ):
                return self.one_of(wanted, self.fact(name), negated, eq)
        raise ValueError(f"not in the vocabulary of match: {name!r}")


@dataclass(frozen=True)
class Ask:
    """What a rule, hold or erasure asks for that matches or may match. A hold has begun."""

    number: int  # in the order of the files
    kind: str
    item: str
    store: str | None
    certain: bool
    start: datetime = DUE
    end: datetime = DUE
    legal: bool = False
    cooled: bool = False  # issue 16: "what a shortened or removed keep had promised"
    versions: bool = False

    @property
    def clause(self) -> Clause:
        return self.kind, self.item, self.store


def first(asks: Iterable[Ask], *, end: bool = False) -> Ask | None:
    """The first by the order of the files; `end`: the one that ends first. None: there is none."""
    return min(asks, key=lambda each: (each.end if end else DUE, each.number), default=None)


def last(asks: Iterable[Ask]) -> Ask | None:
    """The one that ends last; among equals the first by the order of the files."""
    return max(asks, key=lambda each: (each.end, -each.number), default=None)


class Pairs:
    """All pairs of one asset: first what matches and what lies where, then the words of section 5,
    then its table."""

    def __init__(self, case: dict[str, Any], asset: dict[str, Any], zone: ZoneInfo) -> None:
        """ "Let *t* be now; moments are cut to the second." "any name that occurs is a store"
        (README)"""
        # silent: t is cut, the end of a period is cut only when it is shown: else "Hours are exact
        # (to the microsecond)" would say nothing
        self.t = moment(case["now"], zone).replace(microsecond=0)
        self.case, self.asset, self.zone = case, asset, zone
        self.rules, self.matcher = case.get("rules") or [], Matcher(asset, self.t, zone)
        self.created = trusted_created(asset, self.t)
        # "hosted only until created_at + 15 days"; "with an untrusted date it is always a source"
        # (the brief)
        self.in_its_15_days = self.created is None or self.t < self.created + timedelta(days=15)
        status = self.matcher.fact("status")
        self.failed = status == "failed"
        asks = list(self.asks())
        # "erasures need a certain yes"; silent: one that is requested later erases now, for
        # `requested` "delays nothing"
        self.erasures = [each for each in asks if each.kind == "erasure"]
        self.erased = any(each.certain for each in self.erasures)
        self.holds = [each for each in asks if each.kind == "hold"]
        # "Where an erasure matches, only keeps with `basis: legal` count"
        self.keeps = [
            each for each in asks if each.kind == "keep" and (each.legal or not self.erased)
        ]
        # "the deletes, `then: delete`s and `at_most`s that match with certainty"
        self.deletes = [
            each for each in asks if each.kind in ("delete", "at_most") and each.certain
        ]
        here = [copy for copy in case.get("copies") or [] if copy["asset"] == asset["id"]]
        self.copies = {copy["in"]: copy for copy in here}
        self.there = {copy["in"] for copy in here} - SOURCES
        told = {
            copy["in"] for copy in here
        } & SOURCES  # silent: `state` says nothing of what lies at a source
        self.sources = set() if self.gone() else told
        # Issue 13: "Anything but completed and failed waits [...] until it is old (24 h)"; "a failed
        # asset with a path and a size is tried"; "a completed asset without a path waits"
        untold = {name for name in ("path", "size") if isinstance(self.matcher.fact(name), Gap)}
        young = self.created is not None and self.created > self.t - timedelta(days=1)
        pathless = "path" in untold and "hosted" not in told
        being_made = pathless or not (status == "completed" or isinstance(status, Gap))
        self.unready = bool(untold) if self.failed else young and being_made
        # silent: given twice: both
        self.complete = self.there - {copy["in"] for copy in here if not self.counts(copy)}
        self.locked = {
            copy["in"]
            for copy in here
            if copy.get("locked", False) is not False
            or (
                moment(copy["locked_until"], zone) > self.t
                if "locked_until" in copy
                else not copy.get("lock_read", True)
            )
        }  # "it could not be read: locked"
        self.versions = {copy["in"]: copy.get("versions", "read") for copy in here}
        self.unfinished = set(case.get("unfinished") or [])
        self.uploads = set(case.get("uploads") or [])
        self.every_list_finished = not self.unfinished and not case.get("assets_unfinished")
        named = {
            place["in"]
            for rule in self.rules
            for key in ("keep", "delete")
            for place in rule.get(key) or []
        }
        seen = {
            each["in"]
            for key in ("holds", "copies")
            for each in case.get(key) or []
            if each.get("in")
        }
        self.stores = (named | seen | self.unfinished) - SOURCES

    def end(self, period: str, untrusted: datetime) -> datetime:
        """Of an untrusted date: "its keeps run and are endless, its deletes count as due" (silent:
        so does one after `forever`)."""
        return untrusted if self.created is None else period_end(self.created, period, self.zone)

    def asks(self) -> Iterator[Ask]:
        """All that is asked, in the order of the files: "keeps and holds anything but a certain
        no"."""
        for number, (kind, item, details) in enumerate(self.asked_of_all(), 1):
            yes = self.matcher.matches(item["match"])
            if yes is not False:
                yield Ask(number, kind, item["id"], certain=yes is True, **details)

    def asked_of_all(self) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
        for rule in self.rules:
            for keep in rule.get("keep") or []:
                where = {"store": keep["in"]}
                yield (
                    "keep",
                    rule,
                    where
                    | {
                        # "(or from the start)"
                        "start": self.end(keep["after"], DUE) if "after" in keep else DUE,
                        "end": self.end(keep["for"], untrusted=FOREVER),
                        "legal": keep.get("basis") == "legal",
                        "cooled": rule.get("cooled", False),
                    },
                )
                if rule.get("then") == "delete":
                    yield "delete", rule, where | {"end": self.end(keep["for"], untrusted=DUE)}
            for delete in rule.get("delete") or []:
                end = self.end(delete["after"], untrusted=DUE)
                every = delete.get("versions") == "all"
                yield "delete", rule, {"store": delete["in"], "end": end, "versions": every}
            if rule.get("at_most"):  # in every store
                yield "at_most", rule, {"store": None, "end": self.end(rule["at_most"], DUE)}
        for hold in self.case.get("holds") or []:
            # "released: 2026-10-01 ends it"; silent: a hold without `in` names no store, and
            # freezes all the same
            end = FOREVER if hold.get("released") is None else moment(hold["released"], self.zone)
            if end > self.t:
                yield "hold", hold, {"store": hold.get("in"), "end": end}
        for erasure in self.case.get("erasures") or []:
            yield "erasure", erasure, {"store": None}

    def gone(self) -> bool:
        """It was asked for, and 100ms said that it is not there. "What was not there is not asked
        for again each night; but while it is young, and once more before it leaves"."""
        if not self.asset.get("nowhere"):
            return False
        if self.created is None:
            return True
        age = self.t - self.created
        leaving = timedelta(days=15, hours=-48) <= age < timedelta(days=15)
        return not (age < timedelta(days=1) or leaving)

    def counts(self, copy: dict[str, Any]) -> bool:
        """Whether a copy is complete. "A partial copy counts once a person has accepted it, and as
        long as its upload is what it was." """
        accepted = self.asset["id"] in (self.case.get("accepted") or [])
        may = "partial" in copy and not copy.get("superseded", False)
        whole = copy.get("state", "complete") == "complete" and copy.get("complete", True)
        return whole or (accepted and may)

    def purging(self, store: str) -> Ask | None:
        """Issue 16: "`delete: { …, versions: all }` on a rule is the only way to remove versions";
        once that delete is due itself, by a trusted date."""
        return first(
            each
            for each in self.deletes
            if each.store == store and each.versions and DUE < each.end <= self.t
        )

    def purged(self, store: str) -> bool:
        return self.purging(store) is not None

    def undone(self, store: str) -> Ask | None:
        """Issue 13: a copy that was made in doubt is undone once its rule "is certain by now not to
        ask for it", within 45 days. The keep of today's rule that it was made for."""
        doubt = self.copies[store].get("in_doubt") if store in self.complete else None
        if self.created is None or self.t >= self.created + timedelta(days=45):
            return None
        return first(
            Ask(number, kind, item["id"], details["store"], certain=False)
            for number, (kind, item, details) in enumerate(self.asked_of_all(), 1)
            if (kind, item["id"], details["store"]) == ("keep", doubt, store)
            and not details["cooled"]
            and self.matcher.matches(item["match"]) is False
        )

    def runs(self, keep: Ask) -> bool:
        """ "A keep **runs** from the end of its `after` (or from the start) to the end of its `for`.
        One that has not begun counts as running too, unless a certain keep that runs in another
        store, or a certain hold, lasts until it begins (its end is not before that start)" """
        if keep.end <= self.t or keep.start <= self.t:
            return (
                self.t < keep.end
                # silent: one that ends before it begins (1mo and 30d, in February) is over at its end
            )
        running_elsewhere = [
            other
            for other in self.keeps
            if other.store != keep.store
            and other.start <= self.t < other.end
            and not other.cooled  # it "only adds to what is kept"
        ]
        return not any(
            other.certain and other.end >= keep.start for other in running_elsewhere + self.holds
        )

    def asking(self, store: str) -> list[Ask]:
        """Each keep that runs in this store, and each hold that names it."""
        running = [keep for keep in self.keeps if self.runs(keep)] + self.holds
        return [each for each in running if each.store == store]

    def asked(self, store: str) -> list[bool]:
        """Of each of those: is it certain?"""
        return [each.certain for each in self.asking(store)]

    def needed(self, store: str) -> bool:
        """ "**needed** = a certain keep runs there, or a certain hold names it. One that is not
        certain makes it needed only if it is complete there already, or nothing complete lies in
        any store." """
        return any(
            certain or store in self.complete or not self.complete for certain in self.asked(store)
        )

    def open(self, store: str) -> bool:
        """ "**open** = a keep or hold, certain or not, runs there, and it is not complete." """
        return bool(self.asked(store)) and store not in self.complete

    def keep_until(self, store: str) -> datetime:
        """ "`keep_until` = the latest end of all keeps that match there." None of these: it is
        past."""
        return max((keep.end for keep in self.keeps if keep.store == store), default=DUE)

    def delete_from(self, store: str) -> datetime | None:
        """ "`delete_from` = the later of `keep_until` and the earliest end of the deletes, [...].
        None of these: never." """
        ends = [each.end for each in self.deletes_in(store)]
        return max(min(ends), self.keep_until(store)) if ends else None

    def deletes_in(self, store: str) -> list[Ask]:
        return [each for each in self.deletes if each.store in (None, store)]

    def named(self, store: str) -> bool:
        """ "a keep that matches (even one that has ended) or a hold names" it"""
        return any(each.store == store for each in self.keeps + self.holds)

    def is_pair(self, store: str) -> bool:
        """ "where something of it lies, or that a keep [...] or a hold names; for an erased asset
        also every store whose listing did not finish" """
        return (
            store in self.there or self.named(store) or (self.erased and store in self.unfinished)
        )

    def source(self, store: str) -> str | None:
        """ "another store's complete copy, else 100ms (hosted only until created_at + 15 days)";
        elsewhere: "past day 15 it is still tried" """
        if self.complete - {store}:
            return "store"
        readable = self.sources if self.in_its_15_days else self.sources - {"hosted"}
        return "100ms" if readable and not self.unready else None

    def doubtful(self, store: str) -> bool:
        """Issue 13: "where all that asks for a copy is uncertain and 100ms still has it, with a
        trusted date, the decision is waiting (because `doubtful`) until created_at + 15 days - 96 h
        and copy from then on" """
        return (
            not any(self.asked(store))
            and self.source(store) == "100ms"
            and self.created is not None
            and self.t < self.created + timedelta(days=15, hours=-96)
        )

    def deadline(self, store: str) -> datetime | str:
        """ "created_at + 15 days - 48 h when only 100ms has it (an asset without a trusted date:
        now; elsewhere and past day 15: none)" """
        if self.source(store) == "store" or not self.in_its_15_days:
            return "none"
        return (
            self.t
            if self.created is None
            else (self.created + timedelta(days=15, hours=-48)).replace(microsecond=0)
        )

    def until(self, store: str) -> datetime | str:
        """ "never ends under a hold that names it or an untrusted date, else `delete_from`, else
        `keep_until`; when erased: `keep_until`" """
        end = (None if self.erased else self.delete_from(store)) or self.keep_until(store)
        endless = (
            any(hold.store == store for hold in self.holds)
            or self.created is None
            or end == FOREVER
        )
        return "forever" if endless else end.replace(microsecond=0)

    def unknown_or_copied(self, store: str) -> Decision | None:
        """ "The first that applies, in the order unknown (the listing), copy, waiting / none, lost /
        unknown" [...]"""
        if (
            store in self.unfinished
            and store not in self.there
            and (self.named(store) or self.erased)
        ):
            return Decision(
                "unknown"
            )  # "the store's listing did not finish, nothing was seen there, and [...]"
        if not self.needed(store) or store in self.complete:
            # silent: "needed, no source" is read as "needed, not complete there, no source"
            return None
        # "What 100ms uploads to is never copied to: it comes from there within days, or not at all."
        if store in self.uploads:
            return Decision("waiting") if self.in_its_7_days() else self.missing(store)
        if self.doubtful(store):
            return Decision("waiting", because=frozenset({"doubtful"}))
        if self.source(store):
            return Decision("copy", deadline=self.deadline(store))
        if self.copies.get(store, {}).get("superseded"):  # what there is of it stays
            return Decision("keep", until=self.until(store))
        if self.unready and not self.failed:
            return Decision("waiting")
        if (
            self.failed
        ):  # "waiting until 7 days old or if its age is not trusted [...], none after that"
            return Decision("waiting" if self.in_its_7_days() else "none")
        found = self.missing(store)
        uncatalogued = found.is_ == "lost" and self.copies.get(store, {}).get("uncatalogued")
        return Decision("uncatalogued") if uncatalogued else found

    def in_its_7_days(self) -> bool:
        return self.created is None or self.t < self.created + timedelta(days=7)

    def missing(self, store: str) -> Decision:
        """ "needed, no source, and every listing finished. Otherwise **unknown**" """
        if not self.every_list_finished:
            return Decision("unknown")
        reasons = {
            "partial": "partial" in self.copies.get(store, {}),
            "accepted": self.asset["id"] in (self.case.get("losses") or []),
        }
        return Decision("lost", because=frozenset(name for name, is_so in reasons.items() if is_so))

    def kept(self, store: str) -> bool:
        """Of a store where something is: "needed and complete; or something is there and t <
        `keep_until`; or, not erased, t < `delete_from`" """
        not_due = not self.erased and self.t < (
            self.delete_from(store) or DUE
        )  # silent: "never" is unmanaged, not kept
        return (
            (self.needed(store) and store in self.complete)
            or self.t < self.keep_until(store)
            or not_due
        )

    def blocked(self, store: str) -> frozenset[str]:
        """The row "blocked", reason by reason."""
        others = self.stores - {store}
        reasons = {
            "hold": bool(self.holds),  # "any hold that may match freezes every copy"
            "lock": store in self.locked,
            "untrusted-time": self.created is None and not self.erased,  # "not for an erasure"
            "versions": self.purged(store) and self.versions[store] == "unread",
            "second-factor": self.purged(store) and self.versions[store] == "by-hand",
            # "not for an erasure"
            "unknown": not self.erased
            and (
                Decision("unknown") in map(self.unknown_or_copied, others)
                or not self.asset.get("settled", True)
                or not self.copies[store].get("owners_known", True)
            ),
            "unsatisfied": any(
                self.open(other) for other in others
            ),  # "another store is open for it; for an erasure too"
        }
        return frozenset(reason for reason, stands in reasons.items() if stands)

    def decide(self, store: str) -> Decision:
        """[...] "keep, delete / blocked, unmanaged, none" """
        early = self.unknown_or_copied(store)
        if early or store not in self.there:
            return early or Decision("none")
        if self.kept(store):
            return Decision("keep", until=self.until(store))
        undone = not self.named(store) and self.undone(store)
        if not self.erased and self.delete_from(store) is None and not undone:
            return Decision("unmanaged")  # "something is there and no delete names it"
        reasons = self.blocked(
            store
        )  # "something is there, it is not kept, t >= `delete_from` or erased"
        if reasons:
            return Decision("blocked", because=reasons)
        return Decision("delete", versions="all" if self.purged(store) else "kept")

    def row(self, store: str, decision: Decision) -> dict[str, Any]:
        """What a plan's row says beside a decision: whose clause it is and why."""
        here, asking = self.copies.get(store, {}), self.asking(store)
        wanted_by = max(
            asking, key=lambda each: (each.certain, each.end, -each.number), default=None
        )
        keeps = [each for each in self.keeps if each.store == store]
        kept_by, deletes = last(keeps), self.deletes_in(store)
        deleted_by, purging = first(deletes, end=True), self.purging(store)
        erasure = first(each for each in self.erasures if each.certain)
        undone = self.undone(store) if store in self.there else None
        due = decision.is_ in ("delete", "blocked")
        match decision.is_:
            case "delete" | "blocked":
                by = erasure or deleted_by or undone
            case "copy" | "waiting" | "lost" | "uncatalogued":
                by = wanted_by
            case "unknown":
                by = wanted_by or kept_by or erasure
            case "keep" if self.needed(store):
                by = wanted_by
            case "keep":
                by = kept_by if self.t < self.keep_until(store) else deleted_by
            case _:
                by = None
        # "the hold that certainly covers what is due, or the keep that was the last to end"
        also = None
        if due and self.holds:
            also = first(each for each in self.holds if each.certain)
        elif due and not self.erased and deleted_by and self.keep_until(store) > deleted_by.end:
            also = kept_by
        doubt = None
        if decision.is_ == "copy" and not any(each.certain for each in asking):
            assert wanted_by is not None
            doubt = wanted_by.item if wanted_by.kind == "keep" and not wanted_by.cooled else None
        elif due and not self.erased and not deleted_by:
            doubt = here.get("in_doubt")
        size = self.matcher.fact("size")
        return {
            "there": store in self.there,
            "complete": store in self.complete,
            "needed": self.needed(store),
            "clause": by and by.clause,
            "also": also and also.clause,
            "doubt": doubt,
            "purged_by": purging.clause if due and purging else None,
            "keep_until": self.keep_until(store) if keeps else None,
            "delete_from": self.delete_from(store),
            "lock_until": self.lock_until(store),
            # "removes versions": all that there is of them
            "bytes": (here.get("bytes_of_all") if purging else None)
            or here.get("bytes")
            or (size if isinstance(size, int) else None),
        }

    def lock_until(self, store: str) -> datetime | None:
        """Issue 16: "A lock is made longer when a keep is"; "nobody may be able to take a lock back:
        only what asks for certain, and asks today, and never beyond a ceiling", nor of what an
        erasure may match."""
        if any(not each.certain for each in self.erasures):
            return None
        keeps = [each for each in self.keeps if each.store == store]
        ends = [each.end for each in keeps if each.certain and not each.cooled]
        ceilings = [each.end for each in self.deletes if each.kind == "at_most"]
        end = min([max(ends, default=DUE), *ceilings])
        if end in (DUE, FOREVER) or end.replace(microsecond=0) <= self.t:
            return None
        return end.replace(microsecond=0)

    def decide_source(self, place: str) -> Decision:
        """ "it lies hosted: 100ms deletes it on created_at + 15 days (`until`; none without a
        trusted date)"; elsewhere is "unmanaged" """
        end = (
            "forever"
            if self.created is None
            else (self.created + timedelta(days=15)).replace(microsecond=0)
        )
        # Issue 13: "What leaves 100ms without any copy because no rule keeps it"
        kept = self.keeps or self.holds or self.erased or self.complete
        because = frozenset() if kept else frozenset({"not-kept"})
        lapses = Decision("lapses", until=end, because=because)
        hosted = lapses if self.in_its_15_days else Decision("none")
        return Decision("unmanaged") if place == "elsewhere" else hosted


def decide(case: dict[str, Any], timezone: str) -> dict[tuple[str, str], Decision]:
    """ "Every (asset, store) pair appears in exactly one decision"; what lies hosted or elsewhere
    "has a row of its own" """
    return {pair: decision for pair, (decision, _) in decide_rows(case, timezone).items()}


def decide_rows(
    case: dict[str, Any], timezone: str
) -> dict[tuple[str, str], tuple[Decision, dict[str, Any]]]:
    """Each decision with its `row`; "A key that two assets name is deleted only when both may go",
    and both in the same way."""
    rows: dict[tuple[str, str], tuple[Decision, dict[str, Any]]] = {}
    sharing: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for asset in case.get("assets") or []:
        pairs = Pairs(case, asset, ZoneInfo(timezone))
        for store in pairs.stores:
            if pairs.is_pair(store):
                decision = pairs.decide(store)
                rows[asset["id"], store] = decision, pairs.row(store, decision)
        for place in pairs.sources:
            told = {"there": True, "complete": True, "needed": False, "clause": None}
            erasure = first(each for each in pairs.erasures if each.certain)
            if place == "hosted" and erasure:
                told["clause"] = erasure.clause
            rows[asset["id"], place] = pairs.decide_source(place), told
        for store in pairs.there:
            if "shared" in pairs.copies[store]:
                key = store, pairs.copies[store]["shared"]
                sharing.setdefault(key, []).append((asset["id"], store))
    for together in sharing.values():
        if len({(rows[pair][0].is_, rows[pair][0].versions) for pair in together}) > 1:
            for pair in together:
                if rows[pair][0].is_ == "delete":
                    rows[pair] = Decision("blocked", because=frozenset({"shared"})), rows[pair][1]
    return rows


def clashes(case: dict[str, Any], timezone: str) -> Counter[tuple[str, str]]:
    """ "A certain keep that reaches beyond an at_most wins, and is a clash": of how many assets, by
    the rules of the ceiling and the keep. Not where an erasure matches."""
    found: Counter[tuple[str, str]] = Counter()
    for asset in case.get("assets") or []:
        pairs = Pairs(case, asset, ZoneInfo(timezone))
        if pairs.created and not pairs.erased:
            found.update(
                {
                    (ceiling.item, keep.item)
                    for ceiling in pairs.deletes
                    for keep in pairs.keeps
                    if ceiling.kind == "at_most" and keep.certain and keep.end > ceiling.end
                }
            )
    return found


def failures(case: dict[str, Any], timezone: str) -> list[str]:
    """ "An expectation checks the fields it names"; "with `exactly: true` [...]: then every pair
    other than `none` must be named" (README)"""
    rows, wrong = decide(case, timezone), []
    for row in case["expect"]:
        got = rows.get((row["asset"], row["in"]), Decision("none"))
        same = got.is_ == row["is"] and got.because == frozenset(row.get("because", got.because))
        same = same and got.versions == row.get("versions", got.versions)
        for name in {"until", "deadline"} & set(row):
            same = same and getattr(got, name) == (
                row[name]
                if row[name] in ("forever", "none")
                else moment(row[name], ZoneInfo(timezone))
            )
        if not same or row["asset"] not in [asset["id"] for asset in case["assets"]]:
            wrong.append(f"expected {row}, got {got}")
    unnamed = {pair for pair, got in rows.items() if got.is_ != "none"} - {
        (row["asset"], row["in"]) for row in case["expect"]
    }
    return wrong + [
        f"{pair} is not named, got {rows[pair]}" for pair in sorted(unnamed) if case.get("exactly")
    ]


if __name__ == "__main__":
    from pathlib import Path

    import yaml

    files = [
        (path.name, yaml.safe_load(path.read_text()))
        for path in sorted(Path("/work/shared/conformance").glob("*.yaml"))
    ]
    results = [
        (name, test["name"], failures(test, file.get("timezone", "UTC")))
        for name, file in files
        for test in file["tests"]
    ]
    bad = [f"{name}: {test}: {problem}" for name, test, problems in results for problem in problems]
    print(
        *bad,
        f"{len(results)} cases, {sum(bool(problems) for _, _, problems in results)} failed",
        sep="\n",
    )
    raise SystemExit(bool(bad) or not results)
