"""Settings and policies, beside what 100ms, each bucket and the record are really like."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from retainer.errors import RetainerError
from retainer.journal.anchors import Judge, judge_of
from retainer.journal.backend import Reading
from retainer.journal.freeze import freeze_in
from retainer.journal.journal import read_ledger
from retainer.journal.ledger import Ledger
from retainer.journal.lock import lock_in
from retainer.model.diagnosis import Found
from retainer.model.lifecycle import LifecycleRule
from retainer.model.period import Period
from retainer.model.rule import Policies
from retainer.model.setting import Settings, Store
from retainer.own import anchors_in, identity_in, must_be
from retainer.planfile import SKEW_SECONDS
from retainer.ports import Recordings, StoreReader

Past = tuple[Ledger, Judge]
"""What the record comes to, and what it says to what a store remembers."""


def read_past(record: Reading) -> Past:
    """Raises RetainerError."""
    ledger = read_ledger(record)
    return ledger, judge_of(record, ledger)


def of_100ms(opened: Callable[[], Recordings], now: Callable[[], datetime]) -> Iterator[Found]:
    """Whether 100ms answers, for whom, and what time it is there."""
    try:
        api = opened()
        customer = api.customer()
        api.first_page()
        skew = now() - api.server_time()
    except RetainerError as error:
        yield Found("100ms", "bad", error.message, error.hint)
        return
    whose = f"workspace {customer}" if customer else "a workspace that it does not name"
    yield Found("100ms", "well", f"it answers, for {whose}")
    yield from _clock("100ms", skew)


def _clock(place: str, skew: timedelta) -> Iterator[Found]:
    if abs(skew.total_seconds()) > SKEW_SECONDS:
        off = f"{abs(skew).total_seconds() / 60:,.0f} minutes"
        which = "ahead of" if skew > timedelta() else "behind"
        yield Found(
            place,
            "bad",
            f"this machine's clock is {off} {which} its: nothing is deleted",
            "set this machine's clock (NTP)",
        )


def of_record(record: Reading, past: Callable[[], Past], now: datetime) -> Iterator[Found]:
    """Whether the record can be read, and whether it forbids deletes."""
    try:
        ledger, _ = past()
    except RetainerError as error:
        yield Found("record", "bad", error.message, error.hint)
        return
    if ledger.is_empty:
        yield Found("record", "told", f"{record.where} is empty: nothing was done yet")
    else:
        yield Found("record", "well", f"{record.where} has {ledger.lines:,} lines")
    if opened := ledger.open_intents():
        yield Found(
            "record",
            "unsure",
            f"{len(opened):,} deletes were announced by runs that died",
            "the next apply looks at each, and writes down what became of it",
        )
    try:
        held = record.held()
    except RetainerError as error:
        held = error.message
    if held:
        yield Found("record", "unsure", held, "wait for it, or `retainer apply --wait 15m`")
    if frozen := freeze_in(record, now):
        yield Found("record", "worry", frozen.words, "retainer freeze --end --reason WHY")


def of_approvals(settings: Settings, allowed: Path) -> Iterator[Found]:
    """Whether anybody can approve, where a second person must."""
    if not settings.second_person:
        return
    try:
        lines = allowed.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    keys = sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in lines)
    if keys:
        yield Found("approvals", "well", f"{keys} keys stand in {allowed.name}")
    else:
        said = f"nobody can approve: {allowed.name} beside retainer.yaml has no key"
        yield Found("approvals", "worry", said, "docs/how-to/second-person.md")


def of_store(
    store: Store,
    opened: Callable[[], StoreReader],
    policies: Policies,
    settings: Settings,
    past: Callable[[], Past],
    known: dict[str, str],
    now: Callable[[], datetime],
) -> Iterator[Found]:
    """Whether a store can be reached, is the one that it was, and will keep what it is to keep."""
    name = store.name
    try:
        reader = opened()
        identity = identity_in(reader)
        must_be(name, identity[1] if identity else None, settings.identities(known).get(name))
        anything = next(iter(reader.list()), None)
        skew = now() - reader.server_time()
    except RetainerError as error:
        yield Found(name, "bad", error.message, error.hint)
        return
    whose = f"identity {identity[1].id[:8]}" if identity else "no run has written there yet"
    yield Found(
        name,
        "well",
        f"it can be listed ({'something' if anything else 'nothing'} lies there), {whose}",
    )
    yield from _clock(name, skew)
    yield from _of_deletes(name, reader)
    yield from _of_runs(name, reader, past)
    yield from _of_lifecycle(store, reader.lifecycle(), policies, now())


def _of_deletes(name: str, reader: StoreReader) -> Iterator[Found]:
    if how := reader.keeps_deleted():
        yield Found(name, "told", f"what is deleted is hidden, and recoverable: {how}")
    else:
        yield Found(name, "told", "what is deleted there is gone for ever, as far as it tells")


def _of_runs(name: str, reader: StoreReader, past: Callable[[], Past]) -> Iterator[Found]:
    """What runs have left there: a lock, and what it remembers of the record."""
    try:
        ledger, judge = past()
        held, said = lock_in(reader), judge(anchors_in(reader)[1])
    except RetainerError as error:
        yield Found(name, "bad", error.message, error.hint)
        return
    if held is not None and held.is_dead:
        yield Found(name, "told", f"{held.words(name)}: the next apply takes it")
    elif held is not None:
        yield Found(name, "unsure", held.words(name), "wait for it, or `retainer apply --wait 15m`")
    if said:
        hint = f"bring that record back, or plan with `--lift record:{name}` if it is gone for good"
        yield Found(name, "worry", f"{said}: nothing is deleted there", hint)
    if weak := ledger.weak_stores().get(name):
        yield Found(name, "unsure", f"it {weak[1]}", "docs/reference/stores.md")


def _of_lifecycle(
    store: Store, rules: Sequence[LifecycleRule] | None, policies: Policies, now: datetime
) -> Iterator[Found]:
    """Rules of the bucket's own that may strike before a policy allows it."""
    name = store.name
    if rules is None:
        yield Found(
            name,
            "unsure",
            "whether the bucket deletes by rules of its own cannot be read",
            f"`retainer iam --for plan` has the right that it takes for {name}",
        )
        return
    prefix = store.prefix if store.scheme != "file" else ""
    clashes = [
        clash
        for rule in rules
        if rule.concerns(prefix) and not rule.versions
        for clash in conflicts(rule, store, policies, now)
    ]
    yield from clashes
    concerned = sum(rule.concerns(prefix) for rule in rules)
    if not clashes:
        said = (
            f"{concerned} rules of the bucket's own" if concerned else "no rule of the bucket's own"
        )
        yield Found(name, "well", f"{said} stands against the policies")


def conflicts(
    rule: LifecycleRule, store: Store, policies: Policies, now: datetime
) -> Iterator[Found]:
    """Where a rule of the bucket may delete what a policy keeps there, or archive it. For one that
    is made now both ends are told."""
    said = f"the bucket's {rule.id} {rule.words}"
    strikes = rule.earliest(now)
    if rule.act == "move":
        if rule.to in _ARCHIVES:
            yield Found(
                store.name,
                "unsure",
                f"{said}: it must be restored before it can be read or copied",
                "`apply --restore` asks for that",
            )
        return
    for policy in policies.rules:
        for keep in policy.keeps:
            if keep.store != store.name or _outlasts(rule, keep.period):
                continue
            ends = "for ever" if keep.period.forever else f"until {keep.period.ends(now):%Y-%m-%d}"
            yield Found(
                store.name,
                "worry",
                f"{said}, and {policy.id} ({policy.where.file}:{policy.where.line}) keeps "
                f"{keep.period.text} there: what is made now would go on {strikes:%Y-%m-%d}, and "
                f"is to stay {ends}",
                "take that rule of the bucket away, or narrow it to other prefixes",
            )
    for hold in policies.holds:
        if hold.store == store.name and (hold.released is None or hold.released > strikes):
            yield Found(
                store.name,
                "worry",
                f"{said}, and the hold {hold.id} lets nothing go",
                "take that rule of the bucket away while the hold stands",
            )


_ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")
"""Classes from which nothing can be read at once."""


def _outlasts(rule: LifecycleRule, period: Period) -> bool:
    """Whether a rule strikes no earlier than a period ends, whenever it begins."""
    if rule.days is None or rule.on is not None or rule.days <= 0:
        return False
    return Period(seconds=rule.days * 86400, text=f"{rule.days}d").reaches(period)
