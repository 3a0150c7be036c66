"""Where a worker works: of which version it is, which project it has, and how it is told what goes
wrong there."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retainer.errors import PlanRefused, PoliciesWrong, RetainerError, StoreFailed
from retainer.model.rule import Policies
from retainer.model.setting import Settings
from retainer.settings import find_root, load_project

REST_SECONDS = 15.0
"""So long a worker rests after it could not make a share."""


def must_be_alike(told: Mapping[str, Any], made_with: str) -> None:
    """Raises PlanRefused where whoever gave a share has other versions than these."""
    if told.get("made_with") != made_with:
        raise PlanRefused(
            f"the worker on {os.uname().nodename} has {made_with}, and this run "
            f"{told.get('made_with')}",
            hint="give all of them the same version",
        )


def project_here(root: Path) -> tuple[Settings, Policies, Path]:
    """The project that a worker was started in, and where that lies. Raises PoliciesWrong."""
    found = find_root(root)
    if found is None:
        raise PoliciesWrong(
            "there is no retainer.yaml in the folder that it was started in, or above",
            hint="start it in a folder with the same retainer.yaml and policies/",
        )
    settings, policies, mistakes = load_project(found)
    wrong = [each for each in mistakes if not each.is_warning]
    if wrong:
        raise PoliciesWrong(f"its settings or policies are wrong: {wrong[0].message}")
    return settings, policies, found


def told_from_here(error: RetainerError) -> RetainerError:
    """What went wrong, with where: what stands against every share here, else (after a rest, or a
    machine that can do nothing would take one after the other) a failure where another may do
    better."""
    said = f"the worker on {os.uname().nodename}: {error.message}"
    if isinstance(error, PlanRefused | PoliciesWrong):
        return type(error)(said, hint=error.hint)
    time.sleep(REST_SECONDS)
    return StoreFailed(said, hint=error.hint)
