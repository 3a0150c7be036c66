"""The record -> what it says of a recording, a run, or a span of time. Offline, and of everything
that was ever done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from retainer.journal.entry import Entry
from retainer.model.history import Happening, History, RunTold
from retainer.who import known_as

_TOLD = (
    "copied",
    "deleted",
    "failed",
    "skipped",
    "left",
    "restoring",
    "restored",
    "accepted",
    "locked",
)
_CHECKSUMS = ("sha256", "crc64nvme", "crc32c")
_OF_KEYS = ("adopted", "rebuilt", "broken", "unlocked")


def history(
    entries: Iterable[Entry],
    record: str,
    *,
    about: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
) -> History:
    """What was done, oldest first. `about`: the id of a recording, of a rule or an erasure, or of a
    run (its first eight digits suffice); empty for everything. `since` and `until` (not itself)
    bound it."""
    runs: dict[str, RunTold] = {}
    made: dict[str, Counter[str]] = {}
    found: list[Happening] = []
    lines, first, last = 0, "", ""
    for entry in entries:
        lines, first, last = lines + 1, first or entry.seal, entry.seal
        of = entry.particulars
        if entry.event == "start":
            runs[entry.run] = _begun(entry, of)
        elif entry.event == "end" and entry.run in runs:
            runs[entry.run] = _ended(runs[entry.run], entry, of)
        made.setdefault(entry.by, Counter())[entry.event] += 1
        if (since and entry.acted < since) or (until and entry.acted >= until):
            continue
        happening = _happening(entry, of, about, is_run=_is_run(entry, about))
        if happening is not None:
            run = runs.get(entry.by)
            found.append(
                replace(
                    happening,
                    user=run.user if run else "",
                    ticket=run.ticket if run else "",
                    approved_by=run.approved_by if run else (),
                    commit=run.commit if run else "",
                )
            )
    touched = {each.run for each in found}
    told = tuple(
        run if run.ended else _counted(run, made[run.run])
        for run in runs.values()
        if run.run in touched
        or (len(about) >= _RUN_DIGITS and run.run.startswith(about))
        or (
            not about
            and (since is None or (run.ended or run.began) >= since)
            and (until is None or run.began < until)
        )
    )
    return History(about, record, since, until, told, tuple(found), lines, first, last)


def _begun(entry: Entry, of: Mapping[str, Any]) -> RunTold:
    who = _told(of.get("who"))
    return RunTold(
        run=entry.run,
        plan=entry.plan if entry.plan != "-" else "",
        what=_text(of, "what"),
        began=entry.at,
        ended=None,
        user=str(known_as(who)),
        host=_text(of, "host"),
        ticket=_text(of, "ticket"),
        approved_by=tuple(_text(_told(each), "principal") for each in _list(of, "approvals")),
        commit=_text(of, "commit"),
        dirty=bool(of.get("dirty")),
        lifted=tuple(map(str, _list(of, "lifted"))),
        copied=0,
        locked=0,
        deleted=0,
        failed=0,
        skipped=0,
        finished=False,
    )


def _ended(run: RunTold, entry: Entry, of: Mapping[str, Any]) -> RunTold:
    return replace(
        run,
        ended=entry.at,
        finished=bool(of.get("finished")),
        copied=_count(of, "copied"),
        locked=_count(of, "locked"),
        deleted=_count(of, "deleted"),
        failed=_count(of, "failed"),
        skipped=_count(of, "skipped"),
    )


_RUN_DIGITS = 8


def _is_run(entry: Entry, about: str) -> bool:
    return len(about) >= _RUN_DIGITS and entry.by.startswith(about)


def _happening(
    entry: Entry, of: Mapping[str, Any], about: str, *, is_run: bool
) -> Happening | None:
    """What a line tells of a recording; None where it tells nothing, or of another one."""
    if entry.event in _OF_KEYS:
        keys = tuple(key for key in map(str, _list(of, "keys")) if about and about in key)
        if not keys or len(about) < 8:
            return None
        return Happening(
            entry.acted, entry.event, about, _text(of, "store"), entry.by, entry.plan, keys
        )
    if entry.event not in _TOLD:
        return None
    asset = _text(of, "asset")
    if about and about not in (asset, of.get("rule")) and not is_run:
        return None
    record = _told(of.get("record"))
    checksum = next(
        (
            f"{kind} {record[kind]}"
            for kind in ("sha256", "crc64nvme", "crc32c")
            if record.get(kind)
        ),
        "",
    )
    store = _text(record, "store") or _text(of, "store") or ", ".join(map(str, _list(of, "stores")))
    key = record.get("key")
    size = record.get("object_size", of.get("bytes"))
    return Happening(
        at=entry.acted,
        event=entry.event,
        asset_id=asset,
        store=store,
        run=entry.by,
        plan=_text(of, "plan") or entry.plan,
        keys=(str(key),) if key else tuple(map(str, _list(of, "keys"))),
        bytes=size if isinstance(size, int) else None,
        rule=_text(of, "rule"),
        rule_at=_text(of, "rule_at") or _text(of, "at"),
        asked_by=_text(of, "asked_by"),
        why=_text(of, "why"),
        kind=_text(of, "type"),
        created=_text(of, "created"),
        kept_until=_text(of, "kept_until"),
        kept_by=_text(of, "kept_by"),
        due=_text(of, "due"),
        last_copy=last if isinstance(last := of.get("last_copy"), bool) else None,
        witnesses=tuple(
            ":".join(map(str, each[:2]))
            for each in _list(of, "witnesses")
            if isinstance(each, list)
        ),
        recoverable=_text(of, "recoverable"),
        locked_until=_text(of, "until") if entry.event == "locked" else "",
        versions=versions if isinstance(versions := of.get("versions"), int) else None,
        checksum=checksum,
        cause=_text(of, "cause"),
        act=_text(of, "act"),
    )


def _told(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(of: Mapping[str, Any], name: str) -> list[Any]:
    value = of.get(name)
    return value if isinstance(value, list) else []


def _counted(run: RunTold, made: Counter[str]) -> RunTold:
    """A run that told no end, by its lines."""
    return replace(
        run,
        copied=made["copied"],
        locked=made["locked"],
        deleted=made["deleted"],
        failed=made["failed"],
        skipped=made["skipped"],
    )


def _count(of: Mapping[str, Any], name: str) -> int:
    value = of.get(name)
    return value if isinstance(value, int) else 0


def _text(of: Mapping[str, Any], name: str) -> str:
    value = of.get(name)
    return value if isinstance(value, str) else ""
