"""Decision cases for the property tests: policies, and many assets whose dates lie a second beside
every boundary of those policies.

A case is a dict in the format of tests/conformance/README.md, plus `timezone`. Assets do not touch
each other, so one case asks about many pairs.
"""

from __future__ import annotations

import calendar
import json
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import reference
from hypothesis import strategies as st

from retainer.model.moment import read_moment, write_moment
from retainer.model.period import Period, parse_period
from retainer.model.rule import Acceptance, Policies, Where
from retainer.policy.load import load_text
from retainer.policy.parse import parse_policies

Case = dict[str, Any]


class Generated(Case):
    """A case that a failed test does not print in full; `only` shows the part that matters."""

    def __repr__(self) -> str:
        return f"<a case of {len(self['assets'])} assets in {self['timezone']} at {self['now']}>"


STORES = ("alpha", "beta", "gamma")
ZONES = (
    "UTC",
    "Europe/Berlin",
    "Asia/Kolkata",
    "America/New_York",
    "America/Sao_Paulo",
    "Asia/Beirut",
    "Africa/Cairo",
    "Australia/Lord_Howe",
    "America/Nuuk",
    "Atlantic/Azores",
    "America/Havana",
)
"""Half hours, days that begin at 01:00 (Sao Paulo, Beirut, Cairo, Azores) and days whose midnight
comes twice (Azores, Havana)."""

DAYS = (
    date(2018, 11, 4),
    date(2024, 2, 29),
    date(2025, 3, 1),
    date(2025, 3, 30),
    date(2026, 2, 28),
    date(2026, 3, 8),
    date(2026, 3, 29),
    date(2026, 4, 24),
    date(2026, 5, 1),
    date(2026, 10, 25),
    date(2026, 11, 1),
    date(2026, 11, 22),
    date(2027, 1, 1),
)
"""Month ends, leap days, and days on which one of the zones changes its clock."""

PERIODS = (
    "1h",
    "36h",
    "360h",
    "1d",
    "7d",
    "15d",
    "30d",
    "2w",
    "1mo",
    "90d",
    "6mo",
    "1y",
    "365d",
    "7y",
    "P1Y6M",
    "PT48H",
    "P30D",
    "P1M1D",
)
AGES = (1, 5, 7, 7, 10, 11, 11, 13, 45)
"""Days after which less is believed, asked for or undone."""

AFTERS = ("1h", "1d", "30d", "1mo", "90d", "1y")
LASTING = [
    {"for": period} | ({"after": after} if after else {})
    for after in (None, *AFTERS)
    for period in (*PERIODS, "forever")
    if after is None or parse_period(period).is_longer_than(parse_period(after))
]


def policies_of(case: Case) -> Policies:
    """The rules, holds and erasures of a case through the YAML reader, which must accept them; and
    of a rich case what people accepted, and which rules are what earlier policies promised."""
    told = {key: case[key] for key in ("rules", "holds", "erasures") if key in case}
    cooled = {rule["id"] for rule in told.get("rules", ()) if rule.get("cooled")}
    if cooled:
        told["rules"] = [
            {key: of for key, of in rule.items() if key != "cooled"} for rule in told["rules"]
        ]
    text = json.dumps({"version": 1} | told, ensure_ascii=False)
    document, unread = load_text(text, "generated.yaml")
    policies, wrong = parse_policies(document, case.get("timezone", "UTC"))
    wrong = [each for each in wrong if not each.is_warning]
    assert not unread + wrong, (unread + wrong, text)
    here = Where("generated.yaml", 1)
    return replace(
        policies,
        rules=tuple(replace(rule, cooled=rule.id in cooled) for rule in policies.rules),
        accepts=tuple(Acceptance(each, here) for each in case.get("accepted", ())),
        losses=tuple(Acceptance(each, here) for each in case.get("losses", ())),
    )


# ── Policies ──────────────────────────────────────────────────────────────────────────────────────

ROOMS = ("sales-1", "sales-22", "Sales-1", "legal-9", "a[b", "it's", "$now", "$local_day", "r]-^")
GLOBS = (
    "*",
    "sales-*",
    "sales-?",
    "[Ss]ales-1",
    "[!s]*",
    "[^s]*",
    "*-[0-9]",
    "*-[9-0]",
    "*[!9-0]",
    "legal-9",
    "a[b",
    "[]r]*",
    "it's",
    "$now",
    "$local*",
    "?*'*",
)
IDS = ("r1", "r2", "u1", "$hourly", "o'r")
PATHS = ("s3://b/rec/x.mp4", "s3://b/rec/y.zip", "gs://c/x", "")


def _one_or_many(values: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    return st.sampled_from(values) | st.lists(
        st.sampled_from(values), min_size=1, max_size=3, unique=True
    )


_numbers = st.sampled_from(
    [
        {"min": 1000},
        {"max": 1000},
        {"min": 1000, "max": 1000},
        {"min": 999.5, "max": 1000.5},
        {"max": 0},
        {"min": 1001},
    ]
)


def _created(now: datetime, zone: ZoneInfo) -> st.SearchStrategy[dict[str, str]]:
    day = now.astimezone(zone).date()
    return st.sampled_from(
        [
            {"after": (day - timedelta(days=30)).isoformat()},
            {"before": (day - timedelta(days=30)).isoformat()},
            {"before": day.isoformat()},
            {"after": write_moment(now - timedelta(days=15))},
            {"before": write_moment(now - timedelta(hours=36))},
            {"after": "2015-01-01", "before": write_moment(now - timedelta(days=8))},
            {"after": "2026-03-29T00:00:00+05:30"},
        ]
    )


def _fields(now: datetime, zone: ZoneInfo) -> dict[str, st.SearchStrategy[Any]]:
    return {
        "type": _one_or_many(("chat", "room-composite", "transcript")),
        "status": st.sampled_from(
            ["completed", "failed", "processing", "queued", ["completed", "failed"]]
        ),
        "room": _one_or_many(GLOBS),
        "template": _one_or_many(GLOBS),
        "room_id": _one_or_many(IDS),
        "session_id": _one_or_many(IDS),
        "job_id": _one_or_many(IDS),
        "template_id": _one_or_many(IDS),
        "thumbnails": st.sampled_from([True, False, "*.jpg", ["*/x", "s3://b/*.mp4"]]),
        "user_id": _one_or_many(IDS),
        "peer_id": _one_or_many(IDS),
        "asset_id": _one_or_many(tuple(f"a{number}" for number in range(0, 60, 5))),
        "size": _numbers,
        "duration": _numbers,
        "created": _created(now, zone),
        "path": _one_or_many(("s3://b/*", "*.mp4", "gs://c/x", "*")),
        "metadata": st.sampled_from(
            [
                {"n": 4},
                {"n": "4"},
                {"n": [3, "4"]},
                {"live": True},
                {"a/b": "x"},
                {"n": 4, "live": "true"},
                {"user_id": "u1"},
                {"n.w": 4},
                {"n.w": {"min": 1280}},
                {"n": {"max": 4}},
                {"n.w": {"min": 1281, "max": 1920}},
            ]
        ),
    }


def matches(now: datetime, zone: ZoneInfo) -> st.SearchStrategy[Any]:
    fields = _fields(now, zone)
    leaf = st.sampled_from(sorted(fields)).flatmap(
        lambda name: fields[name].map(lambda value: {name: value})
    )
    plain = st.just("all") | leaf | st.tuples(leaf, leaf).map(lambda two: two[0] | two[1])

    def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        some = st.lists(inner, min_size=1, max_size=3)
        return (
            inner.map(lambda one: {"not": one})
            | some.map(lambda all_: {"any": all_})
            | some.map(lambda all_: {"all": all_})
            | st.tuples(leaf, inner).map(lambda two: two[0] | {"not": two[1]})
        )

    return st.one_of(
        st.just("all"), st.just("all"), plain, st.recursive(plain, nested, max_leaves=5)
    )


_stores = st.sampled_from(STORES)


@st.composite
def keeps(draw: st.DrawFn, endless: bool = True) -> dict[str, Any]:
    lasting = draw(
        st.sampled_from(
            LASTING if endless else [each for each in LASTING if each["for"] != "forever"]
        )
    )
    return (
        {"in": draw(_stores)}
        | lasting
        | ({"basis": "legal"} if draw(st.integers(0, 3)) == 0 else {})
    )


@st.composite
def rules(draw: st.DrawFn, now: datetime, zone: ZoneInfo) -> dict[str, Any]:
    rule: dict[str, Any] = {"match": draw(matches(now, zone))}
    kind = draw(
        st.sampled_from(
            ["keep", "keep then delete", "delete", "at_most", "keep and delete", "everything"]
        )
    )
    if "keep" in kind or kind == "everything":
        rule["keep"] = draw(
            st.lists(
                keeps(endless="then" not in kind and kind != "everything"), min_size=1, max_size=3
            )
        )
        if "then" in kind or kind == "everything":
            rule["then"] = "delete"
        elif draw(st.booleans()):
            rule["then"] = "leave"
    if "delete" in kind.replace("then delete", "") or kind == "everything":
        deletes = st.builds(
            lambda store, period, versions: {"in": store, "after": period, **versions},
            _stores,
            st.sampled_from(PERIODS),
            st.sampled_from([{}, {}, {"versions": "all"}]),
        )
        rule["delete"] = draw(st.lists(deletes, min_size=1, max_size=2))
    if kind in ("at_most", "everything"):
        rule["at_most"] = draw(st.sampled_from(PERIODS))
    return rule


@st.composite
def added_keeps(draw: st.DrawFn, now: datetime, zone: ZoneInfo) -> dict[str, Any]:
    """A rule that only keeps."""
    rule = {
        "id": "added",
        "match": draw(matches(now, zone)),
        "keep": draw(st.lists(keeps(), min_size=1, max_size=2)),
    }
    return rule | ({"then": "leave"} if draw(st.booleans()) else {})


@st.composite
def holds(draw: st.DrawFn, now: datetime, zone: ZoneInfo) -> dict[str, Any]:
    day = now.astimezone(zone).date()
    ends = [
        None,
        None,
        write_moment(now),
        write_moment(now + timedelta(seconds=1)),
        write_moment(now - timedelta(seconds=1)),
        day.isoformat(),
        (day + timedelta(days=1)).isoformat(),
        (day + timedelta(days=31)).isoformat(),
        (day - timedelta(days=400)).isoformat(),
    ]
    hold = {"why": "a matter", "match": draw(matches(now, zone)), "in": draw(_stores)}
    released = draw(st.sampled_from(ends))
    return hold | ({"released": released} if released else {})


@st.composite
def erasures(draw: st.DrawFn, now: datetime, zone: ZoneInfo) -> dict[str, Any]:
    requested = draw(st.sampled_from([None, "2026-02-01", "2099-01-01", write_moment(now)]))
    return {"why": "a request", "match": draw(matches(now, zone))} | (
        {"requested": requested} if requested else {}
    )


# ── Facts ─────────────────────────────────────────────────────────────────────────────────────────


@cache
def change_days(zone: ZoneInfo) -> tuple[date, ...]:
    """The days of 2018 to 2030 that are longer or shorter than 24 hours."""
    days = [date(2018, 1, 1) + timedelta(days=number) for number in range(13 * 365)]
    starts = [reference.start_of_day(day, zone) for day in days]
    return tuple(
        day
        for day, start, end in zip(days, starts, starts[1:], strict=False)
        if end - start != timedelta(days=1)
    )


@st.composite
def moments(draw: st.DrawFn, zone: ZoneInfo) -> datetime:
    """A `now`, mostly within a second of the start of a day in the zone."""
    changes = [day + timedelta(days=number) for day in change_days(zone) for number in (0, 1)] or [
        *DAYS
    ]
    day = draw(
        st.sampled_from(DAYS)
        | st.sampled_from(changes)
        | st.dates(date(2016, 1, 1), date(2036, 12, 31))
    )
    aside = draw(st.sampled_from([0, 0, 1, -1, 3600, 43_200, 86_399]))
    return reference.start_of_day(day, zone) + timedelta(seconds=aside)


def _earlier(day: date, period: Period) -> date:
    """The day whose date + period is about this day."""
    months = day.year * 12 + day.month - 1 - period.months
    year, month = divmod(months, 12)
    return date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1])) - timedelta(
        days=period.days
    )


def _asked_periods(case: Case) -> list[Period]:
    texts = {"15d"}
    for rule in case["rules"]:
        texts |= {
            each[key]
            for each in (*rule.get("keep", ()), *rule.get("delete", ()))
            for key in ("for", "after")
            if key in each
        }
        texts |= {rule["at_most"]} if "at_most" in rule else set()
    return [period for text in sorted(texts) if not (period := parse_period(text)).forever]


def _dated(random: Random, now: datetime, zone: ZoneInfo, periods: list[Period]) -> dict[str, Any]:
    """`created_at`: beside a boundary of the case, at an odd place, or no date at all."""
    kind = random.choice(["period"] * 6 + ["lapse", "lapse", "age", "age", "any", "edge", "none"])
    aside = timedelta(seconds=random.choice([0, 1, -1]))
    if random.random() < 0.15:
        aside += timedelta(microseconds=random.choice([1, -1, 500_000, 999_999]))
    match kind:
        case "period":
            period = random.choice(periods)
            if period.exact:
                created = now - timedelta(seconds=period.seconds) + aside
            else:
                day = _earlier(
                    now.astimezone(zone).date() - timedelta(days=random.choice([1, 1, 0, 2])),
                    period,
                )
                created = (
                    datetime.combine(
                        day, random.choice([time(0), time(10, 30), time(23, 59, 59)]), zone
                    ).astimezone(UTC)
                    + aside
                )
        case "lapse":
            created = now - timedelta(days=15) + aside
        case "age":
            created = now - timedelta(days=random.choice(AGES)) + aside
        case "any":
            created = now - timedelta(seconds=random.randint(0, 9 * 365 * 86_400))
        case "edge":
            created = (
                random.choice(
                    [
                        now,
                        now + timedelta(minutes=5),
                        datetime(2015, 1, 1, tzinfo=UTC),
                        now + timedelta(days=200),
                    ]
                )
                + aside
            )
        case _:
            return random.choice(
                [
                    {},
                    {},
                    {"created_at": None},
                    {"created_at": "2026-1-31T10:30:00Z"},
                    {"created_at": "2026-01-31 10:30:00"},
                    {"created_at": "2026-01-31T10:30:00"},
                    {"created_at": 1_700_000_000},
                    {
                        "created_at": write_moment(now - timedelta(days=400)),
                        "not_known": ["created_at"],
                    },
                ]
            )
    if random.random() < 0.2:
        created = created.astimezone(ZoneInfo(random.choice(["Asia/Kolkata", "America/New_York"])))
    return {
        "created_at": created.isoformat(
            timespec="microseconds" if created.microsecond else "seconds"
        ).replace("+00:00", "Z")
    }


_FACTS: dict[str, tuple[Any, ...]] = {
    "type": ("chat", "room-composite", "transcript"),
    "status": ("completed", "completed", "failed", "processing", "queued"),
    "room": (*ROOMS, None),
    "template": ("sales-1", "it's", None),
    "room_id": (*IDS, None),
    "session_id": ("r1", "u1", None),
    "job_id": ("r1", "u1", None),
    "template_id": ("r1", "u1", None),
    "thumbnails": (["s3://b/t.jpg"], ["s3://b/x", "s3://b/y.mp4"], [], None),
    "user_id": ("u1", "o'r", None),
    "peer_id": ("u1", "r2", None),
    "size": (0, 999, 1000, 1001, "1000", None),
    "duration": (0, 999.5, 1000, 1001, None),
    "path": (*PATHS, None),
    "metadata": (
        {"n": 4},
        {"n": "4", "live": True},
        {"n": None},
        {"user_id": "u1", "a/b": "x"},
        {"n": {"w": 1920}, "n.w": "4"},
        {"n": {"w": "1280"}},
        {},
        None,
    ),
}


def _facts(random: Random) -> dict[str, Any]:
    """Each fact given (or null), left out, or not known."""
    facts: dict[str, Any] = {}
    for name, values in _FACTS.items():
        match random.choice(["given", "given", "given", "given", "left out", "not known"]):
            case "given":
                facts[name] = random.choice(values)
            case "not known":
                facts.setdefault("not_known", []).append(name)
    return facts


_LIES = (
    *[None] * 5,
    *[{}] * 6,
    *[{"state": "partial"}] * 2,
    {"locked": True},
    {"state": "partial", "locked": True},
    {"versions": "unread"},
    {"versions": "by-hand"},
)
_SOURCES = (
    (),
    (),
    (),
    ("hosted",),
    ("hosted",),
    ("hosted",),
    ("elsewhere",),
    ("hosted", "elsewhere"),
)


@st.composite
def cases(draw: st.DrawFn, assets: int = 60) -> Case:
    """The facts come from one drawn seed, which is far faster than a draw for each."""
    timezone = draw(st.sampled_from(ZONES))
    zone = ZoneInfo(timezone)
    now = draw(moments(zone))
    case: Case = {
        "timezone": timezone,
        "now": write_moment(now),
        "rules": [draw(rules(now, zone)) for _ in range(draw(st.integers(1, 5)))],
        "holds": draw(
            st.just([]) | st.just([]) | st.lists(holds(now, zone), min_size=1, max_size=2)
        ),
        "erasures": draw(
            st.just([]) | st.just([]) | st.lists(erasures(now, zone), min_size=1, max_size=2)
        ),
        "unfinished": draw(st.sampled_from([[], [], [], ["beta"], ["alpha", "gamma"], ["delta"]])),
        "assets": [],
        "copies": [],
    }
    for section, letter in (("rules", "k"), ("holds", "h"), ("erasures", "e")):
        case[section] = [
            {"id": f"{letter}{number}"} | item for number, item in enumerate(case[section])
        ]
    random, periods = Random(draw(st.integers(0, 2**64 - 1))), _asked_periods(case)
    for number in range(assets):
        asset = {"id": f"a{number}"} | _facts(random)
        dated = _dated(random, now, zone, periods)
        unread = [*asset.get("not_known", []), *dated.pop("not_known", [])]
        case["assets"].append(asset | dated | ({"not_known": unread} if unread else {}))
        lying = [(store, random.choice(_LIES)) for store in STORES]
        case["copies"] += [
            {"asset": asset["id"], "in": store} | lies for store, lies in lying if lies is not None
        ]
        case["copies"] += [{"asset": asset["id"], "in": place} for place in random.choice(_SOURCES)]
    return Generated(case)


def enriched(case: Case, random: Random) -> Case:
    """A case with what its format does not know, and the SQL does: of a rule `cooled`; `accepted`
    and `losses` (ids); `uploads` (stores); `assets_unfinished` (or
    "unsaid"); `by_name`, whether what matches is
    joined by what it names; of an asset `nowhere`, `settled`; of a copy `partial`, `superseded`,
    `uncatalogued`, `in_doubt` (a rule's id), `bytes`, `bytes_of_all`, `shared`, `lock_read`,
    `owners_known`, `locked_until`, and `complete` where that is not known."""
    for rule in case["rules"]:
        if not {"delete", "at_most"} & rule.keys() and rule.get("then") != "delete":
            rule |= {"cooled": True} if random.random() < 0.4 else {}
    ids = [asset["id"] for asset in case["assets"]]
    case["accepted"], case["losses"] = (random.sample(ids, len(ids) // 3) for _ in range(2))
    case["uploads"] = random.choice([[], [], ["gamma"]])
    case["assets_unfinished"] = random.choice([False] * 10 + [True, "unsaid"])
    case["by_name"] = random.random() < 0.4
    if random.random() < 0.5:  # that many assets may match, and few do for certain
        keep = {"in": random.choice(STORES), "for": random.choice(["30d", "1y", "forever"])}
        case["rules"].append({"id": "named", "match": {"room": "sales-*"}, "keep": [keep]})
    lost = set(random.sample(ids, len(ids) // 3))
    for asset in case["assets"]:
        asset |= {"nowhere": True} if random.random() < 0.25 else {}
        asset |= {"settled": random.choice([False, None])} if random.random() < 0.1 else {}
        if random.random() < 0.4:
            asset["not_known"] = sorted({*asset.get("not_known", ()), "room"})
    pairs = {asset_id: number // 2 for number, asset_id in enumerate(ids)}
    doubts = [rule["id"] for rule in case["rules"] if "keep" in rule] + ["another"]
    for copy in case["copies"]:
        if copy["in"] in reference.SOURCES:
            continue
        if copy["asset"] in lost:
            copy["state"] = "partial"
        if copy.get("state") == "partial":
            copy |= {"partial": "odd"} if random.random() < 0.6 else {}
            copy |= {"superseded": True} if random.random() < 0.3 else {}
            copy |= {"uncatalogued": True} if random.random() < 0.4 else {}
        if random.random() < 0.5:
            copy["in_doubt"] = random.choice(doubts)
        copy |= {"bytes": random.randint(1, 99)} if random.random() < 0.7 else {}
        if "versions" not in copy and random.random() < 0.7:
            copy["bytes_of_all"] = random.randint(100, 999)
        if copy["in"] == "alpha" and random.random() < 0.5:
            copy["shared"] = f"key {pairs[copy['asset']]}"
        for fact in ("lock_read", "owners_known", "complete"):
            if random.random() < 0.08:
                copy[fact] = None if fact == "complete" else random.choice([False, None])
        if random.random() < 0.15:
            aside = timedelta(seconds=random.choice([-1, 0, 1]))
            copy["locked_until"] = write_moment(now_of(case) + aside)
    return case


def now_of(case: Case) -> datetime:
    now = read_moment(case["now"])
    assert now is not None
    return now


def only(case: Case, asset_id: str) -> str:
    """The case with one of its assets, as JSON: what a failure shows."""
    part = case | {
        "assets": [asset for asset in case["assets"] if asset["id"] == asset_id],
        "copies": [copy for copy in case["copies"] if copy["asset"] == asset_id],
    }
    return json.dumps(part, ensure_ascii=False, default=str)
