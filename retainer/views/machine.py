"""Plans and explanations as JSON, with a `format_version`."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from retainer.model.certificate import Certificate
from retainer.model.change import Change, Impact
from retainer.model.diagnosis import Diagnosis
from retainer.model.explanation import Explanation
from retainer.model.forecast import Coming, Forecast
from retainer.model.history import Happening, History
from retainer.model.moment import write_moment
from retainer.model.outcome import Census, Summary
from retainer.model.printable import printable
from retainer.model.report import Report
from retainer.model.restoration import Restoration
from retainer.model.standing import Standing
from retainer.planfile import COLUMNS, Header, action_of

if TYPE_CHECKING:
    from retainer.planfile import PlanFile

FORMAT_VERSION = "1.0"


def plan_json(plan: PlanFile) -> str:
    """The whole plan: header and every row. Moments are RFC 3339, sizes bytes; `forever` is a
    moment without an end."""
    return _dumped(
        {
            "format_version": FORMAT_VERSION,
            "fingerprint": plan.fingerprint,
            "header": _header(plan.header),
            "rows": list(_rows(plan)),
        }
    )


def plan_widget(plan: PlanFile) -> str:
    """What GitLab shows of a plan on a merge request (`artifacts:reports:terraform`)."""
    header = plan.header
    return (
        json.dumps({"create": header.copies, "update": header.locks, "delete": header.deletes})
        + "\n"
    )


def plan_lines(plan: PlanFile) -> Iterator[str]:
    """The rows of a plan as JSON Lines, read as they are asked for."""
    for row in _rows(plan):
        yield _ascii_safe(json.dumps(row, ensure_ascii=False)) + "\n"


def plan_csv(plan: PlanFile) -> Iterator[str]:
    """The rows of a plan as CSV (RFC 4180), with a header; what is not there is empty."""
    columns = [name for name in COLUMNS if name != "action"]
    yield from _csv(columns, _rows(plan))


def _csv(columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    yield ",".join(columns) + "\r\n"
    for row in rows:
        yield ",".join(_field(row.get(name)) for name in columns) + "\r\n"


def _field(value: Any) -> str:
    """One field. What a spreadsheet would take for a formula is marked as text."""
    if value is None:
        return ""
    text = printable(str(value).lower() if isinstance(value, bool) else str(value))
    if text[:1] in ("=", "+", "@") or (text[:1] == "-" and not isinstance(value, (int, float))):
        text = f"'{text}"
    return '"' + text.replace('"', '""') + '"' if re.search(r'[",]', text) else text


def _rows(plan: PlanFile) -> Iterator[dict[str, Any]]:
    cursor = plan.connection.cursor()
    cursor.execute("FROM plan_text")
    columns = [column[0] for column in cursor.description or ()]
    while some := cursor.fetchmany(1000):
        for values in some:
            row = dict(zip(columns, values, strict=True))
            # What stands in a column is what counts, whatever an action claims beside it.
            yield {
                name: value
                for name, value in (action_of(row.pop("action")) | row).items()
                if value is not None
            }


def _header(header: Header) -> dict[str, Any]:
    return header.model_dump() | {"plan_id": header.plan_id, "held_back": header.held_back}


def explanation_json(told: Explanation) -> str:
    return _dumped({"format_version": FORMAT_VERSION, **dataclasses.asdict(told)})


def summary_json(done: Summary) -> str:
    return _dumped(
        {"format_version": FORMAT_VERSION, **dataclasses.asdict(done), "finished": done.finished}
    )


def impact_json(told: Impact) -> str:
    """What a change of policies does. Moments are RFC 3339, sizes bytes."""
    flags = {
        "shortens": told.shortens,
        "deletes_more": told.deletes_more,
        "breaches_more": told.breaches_more,
    }
    return _dumped({"format_version": FORMAT_VERSION, **dataclasses.asdict(told), **flags})


def changes_json(changes: Sequence[Change]) -> str:
    """What is written otherwise in the policies."""
    told = [dataclasses.asdict(change) for change in changes]
    return _dumped({"format_version": FORMAT_VERSION, "changes": told})


def forecast_json(told: Forecast) -> str:
    """What is to come. Moments are RFC 3339, days dates in the policies' zone, sizes bytes, costs
    dollars."""
    return _dumped({"format_version": FORMAT_VERSION, **dataclasses.asdict(told)})


def forecast_lines(told: Forecast) -> Iterator[str]:
    """What comes day by day, as JSON Lines."""
    for each in told.coming:
        row = dataclasses.asdict(each) | {"day": each.day.isoformat()}
        yield _ascii_safe(json.dumps(row, ensure_ascii=False)) + "\n"


def forecast_csv(told: Forecast) -> Iterator[str]:
    """What comes day by day, as CSV."""
    columns = [field.name for field in dataclasses.fields(Coming)]
    yield from _csv(columns, map(dataclasses.asdict, told.coming))


def standing_json(told: Standing) -> str:
    """What holds and erasures come to. Moments are RFC 3339, days dates in the policies' zone."""
    holds = [dataclasses.asdict(each) | {"is_met": each.is_met} for each in told.holds]
    erasures = [dataclasses.asdict(each) | {"state": each.state} for each in told.erasures]
    return _dumped(
        {
            "format_version": FORMAT_VERSION,
            "now": told.now,
            "gathered": told.gathered,
            "holds": holds,
            "erasures": erasures,
            "recoverable": told.recoverable,
        }
    )


def history_json(told: History) -> str:
    """What the record says of a recording, a run or a span of time."""
    return _dumped({"format_version": FORMAT_VERSION, **dataclasses.asdict(told)})


def report_json(told: Report) -> str:
    """What the record, and the plans that were applied, say of a span of time."""
    found = dataclasses.asdict(told)
    return _dumped({"format_version": FORMAT_VERSION, **found.pop("history"), **found})


def register_csv(told: History) -> Iterator[str]:
    """The register of deletions as CSV; what is several things has blanks between them."""
    columns = [field.name for field in dataclasses.fields(Happening)]
    for_csv = (
        {
            name: " ".join(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(each).items()
        }
        | {"at": write_moment(each.at)}
        for each in told.deletions
    )
    yield from _csv(columns, for_csv)


def diagnosis_json(told: Diagnosis) -> str:
    """What the doctor found."""
    found = {"is_well": told.is_well, **dataclasses.asdict(told)}
    return _dumped({"format_version": FORMAT_VERSION, **found})


def certificate_json(told: Certificate) -> str:
    """What became of what was asked for."""
    found = {"is_gone": told.is_gone, **dataclasses.asdict(told)}
    return _dumped({"format_version": FORMAT_VERSION, **found})


def restoration_json(told: Restoration) -> str:
    """What can be brought back, or was."""
    found = {"recoverable": told.recoverable, **dataclasses.asdict(told)}
    return _dumped({"format_version": FORMAT_VERSION, **found})


def census_json(census: Census) -> str:
    return _dumped({"format_version": FORMAT_VERSION, **dataclasses.asdict(census)})


def _dumped(value: Any) -> str:
    def plain(item: Any) -> Any:
        if isinstance(item, datetime):
            return write_moment(item)
        if isinstance(item, date):
            return item.isoformat()
        raise TypeError(type(item).__name__)

    return _ascii_safe(json.dumps(value, indent=2, default=plain, ensure_ascii=False)) + "\n"


def _ascii_safe(text: str) -> str:
    """JSON in which what a terminal would obey is escaped."""
    return re.sub(
        r"[^\n -~]",
        lambda found: found[0] if printable(found[0]) == found[0] else json.dumps(found[0])[1:-1],
        text,
    )


def schema_of(form: str) -> dict[str, Any]:
    """The JSON Schema of what a command answers with `--format json`; of `row`, a line of
    `jsonl`."""
    kinds: dict[str, Any] = {
        "apply": Summary,
        "certificate": Certificate,
        "doctor": Diagnosis,
        "explain": Explanation,
        "forecast": Forecast,
        "history": History,
        "impact": Impact,
        "restore": Restoration,
        "standing": Standing,
        "verify": Census,
    }
    version = {"format_version": {"type": "string", "const": FORMAT_VERSION}}
    if form == "report":
        told = TypeAdapter(Report).json_schema(mode="serialization")
        history = told["$defs"].pop("History")
        of_plans = {name: of for name, of in told["properties"].items() if name != "history"}
        told["properties"] = version | history["properties"] | of_plans
        told["required"] = ["format_version", *history["required"], *of_plans]
    elif form in kinds:
        told = TypeAdapter(kinds[form]).json_schema(mode="serialization")
        more = {
            "apply": ("finished",),
            "certificate": ("is_gone",),
            "doctor": ("is_well",),
            "impact": ("shortens", "deletes_more", "breaches_more"),
        }.get(form, ())
        if form == "restore":
            told["properties"] |= {"recoverable": {"type": "integer"}}
        told["properties"] |= version | {name: {"type": "boolean"} for name in more}
        told["required"] = ["format_version", *told.get("required", [])]
    elif form == "policy-diff":
        change = TypeAdapter(Change).json_schema(mode="serialization")
        told = _object(version | {"changes": {"type": "array", "items": change}})
    elif form == "row":
        told = _object({name: _KINDS[kind] for name, kind in COLUMNS.items() if name != "action"})
        told["required"] = ["asset_id", "store", "decision"]
    else:
        header = Header.model_json_schema(mode="serialization")
        told = _object(
            version
            | {
                "fingerprint": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                "header": {"$ref": "#/$defs/Header"},
                "rows": {"type": "array", "items": schema_of("row")},
            }
        )
        told["$defs"] = header.pop("$defs", {}) | {"Header": header}
        told["properties"]["rows"]["items"].pop("$schema")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | told


_KINDS: dict[str, dict[str, Any]] = {
    "INTEGER": {"type": "integer"},
    "BIGINT": {"type": "integer"},
    "BOOLEAN": {"type": "boolean"},
    "VARCHAR": {"type": "string"},
    "TIMESTAMP": {"type": "string", "description": "RFC 3339 in UTC, or `forever`"},
}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": sorted(properties)}
