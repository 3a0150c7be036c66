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
from retainer.model.rule import Policies
from retainer.model.setting import ARCHIVES, Settings, Store
from retainer.own import anchors_in, identity_in, must_be
from retainer.plan.lifecycles import Against, against, concerns
from retainer.planfile import SKEW_SECONDS
from retainer.ports import InventoryReports, Recordings, StoreReader

_HOUR = timedelta(hours=1)
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
    reports: Callable[[], InventoryReports | None],
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
    yield from reader.traits()
    yield from _of_reports(store, reports, now(), timedelta(hours=settings.plan_age_hours))
    yield from _of_deletes(name, reader)
    yield from _of_runs(name, reader, past)
    yield from of_lifecycle(store, reader.lifecycle(), policies, now())


def _of_reports(
    store: Store, reports: Callable[[], InventoryReports | None], now: datetime, age: timedelta
) -> Iterator[Found]:
    """Whether the reports that stand for a list are there, and young enough for a plan."""
    try:
        opened = reports()
        if opened is None:
            return
        report = opened.newest(now)
    except RetainerError as error:
        yield Found(store.name, "bad", f"its bucket's reports: {error.message}", error.hint)
        return
    if report is None:
        yield Found(
            store.name,
            "worry",
            f"no finished report lies in {store.inventory}",
            "the first one comes within 48 hours; the store is listed until then",
        )
        return
    old, hours = ((now - report.at) / _HOUR, age / _HOUR)
    said = f"its bucket's newest report is {old:,.0f} hours old ({len(report.files):,} files)"
    if report.leaves_time(now, age):
        yield Found(store.name, "well", said)
    else:
        hint = "set `limits.plan_age` to two days and more; the store is listed until then"
        yield Found(store.name, "worry", f"{said}, and plans last {hours:g}: it is not read", hint)


def _of_deletes(name: str, reader: StoreReader) -> Iterator[Found]:
    if how := reader.keeps_deleted():
        yield Found(name, "told", f"what is deleted is hidden, and recoverable: {how}")
    else:
        yield Found(name, "told", "what is deleted there is gone for ever, as far as it tells")


def _of_runs(name: str, reader: StoreReader, past: Callable[[], Past]) -> Iterator[Found]:
    """What runs have left there: a lock, and what it remembers of the record."""
    try:
        ledger, judge = past()
        held, said = lock_in(reader), judge(anchors_in(reader, or_hidden=True)[1])
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


def of_lifecycle(
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
    clashes = [_clash(each) for rule in rules for each in against(rule, store, policies, now)]
    yield from clashes
    concerned = [rule for rule in rules if concerns(rule, store)]
    for rule in concerned:
        if rule.act == "move" and not rule.versions and rule.to in ARCHIVES:
            yield Found(
                name,
                "unsure",
                f"the bucket's {rule.id} {rule.words}: it must be restored before it can be read "
                "or copied",
                "`apply --restore` asks for that",
            )
    if not clashes:
        many = len(concerned)
        said = f"{many} rules of the bucket's own" if many else "no rule of the bucket's own"
        yield Found(name, "well", f"{said} stands against the policies")


def _clash(each: Against) -> Found:
    if each.kept == "a hold":
        text, hint = f"the hold {each.item} lets nothing go", _NO_RULE_WHILE_HELD
    else:
        stays = f"until {each.stays:%Y-%m-%d}" if each.stays else "for ever"
        text = (
            f"{each.item} ({each.at}) keeps {each.kept} there: what is made now would go on "
            f"{each.strikes:%Y-%m-%d}, and is to stay {stays}"
        )
        hint = "take that rule of the bucket away, or narrow it to other prefixes"
    return Found(each.store, "worry", f"the bucket's {each.rule}, and {text}", hint)


_NO_RULE_WHILE_HELD = "take that rule of the bucket away while the hold stands"
