"""The plans that were applied, as they are kept beside the journal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from retainer.errors import RetainerError
from retainer.journal.backend import APPLIED, Reading
from retainer.planfile import PlanFile, read_plan
from retainer.private import private_file


def applied_plans(record: Reading) -> Iterator[PlanFile]:
    """Each plan that was applied, in no order; its rows can be read until the next one is asked
    for. Raises RetainerError where one of them is not what its name says, or cannot be read."""
    for name in record.archives(APPLIED):
        content = record.archived(name)
        path = private_file(".plan")
        path.write_bytes(content or b"")
        try:
            plan = read_plan(path)
        finally:
            path.unlink()
        with closing(plan.connection):
            if plan.fingerprint not in name:
                raise RetainerError(
                    f"{record.where}: {name} is not the plan that was applied",
                    hint="restore it from a backup; do not edit it",
                )
            yield plan
        plan.copy.unlink()
