"""Plans and explanations as JSON, with a `format_version`."""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from retainer.model.explanation import Explanation
from retainer.model.moment import write_moment
from retainer.model.outcome import Census, Summary
from retainer.model.printable import printable
from retainer.planfile import action_of

if TYPE_CHECKING:
    from retainer.planfile import Header, PlanFile

FORMAT_VERSION = "1.0"


def plan_json(plan: PlanFile) -> str:
    """The whole plan: header and every row. Moments are RFC 3339, sizes bytes; `forever` is a
    moment without an end."""
    relation = plan.connection.execute("FROM plan_text")
    columns = [column[0] for column in relation.description or ()]
    rows = []
    for values in relation.fetchall():
        row = dict(zip(columns, values, strict=True))
        # What stands in a column is what counts, whatever an action claims beside it.
        rows.append(
            {
                name: value
                for name, value in (action_of(row.pop("action")) | row).items()
                if value is not None
            }
        )
    return _dumped(
        {
            "format_version": FORMAT_VERSION,
            "fingerprint": plan.fingerprint,
            "header": _header(plan.header),
            "rows": rows,
        }
    )


def _header(header: Header) -> dict[str, Any]:
    return header.model_dump() | {"plan_id": header.plan_id, "held_back": header.held_back}


def explanation_json(told: Explanation) -> str:
    return _dumped({"format_version": FORMAT_VERSION, **dataclasses.asdict(told)})


def summary_json(done: Summary) -> str:
    return _dumped(
        {"format_version": FORMAT_VERSION, **dataclasses.asdict(done), "finished": done.finished}
    )


def census_json(census: Census) -> str:
    return _dumped({"format_version": FORMAT_VERSION, **dataclasses.asdict(census)})


def _dumped(value: Any) -> str:
    def plain(item: Any) -> Any:
        if isinstance(item, datetime):
            return write_moment(item)
        raise TypeError(type(item).__name__)

    text = json.dumps(value, indent=2, default=plain, ensure_ascii=False)
    return (
        re.sub(
            r"[^\n -~]",
            lambda found: (
                found[0] if printable(found[0]) == found[0] else json.dumps(found[0])[1:-1]
            ),
            text,
        )
        + "\n"
    )
