"""Who runs a command: the user of the system, and what a CI says of itself."""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping

_CI = {
    "GITHUB_ACTIONS": ("github", "GITHUB_ACTOR", "GITHUB_REPOSITORY", "GITHUB_RUN_ID"),
    "GITLAB_CI": ("gitlab", "GITLAB_USER_LOGIN", "CI_PROJECT_PATH", "CI_JOB_ID"),
    "JENKINS_URL": ("jenkins", "BUILD_USER_ID", "JOB_NAME", "BUILD_ID"),
    "BUILDKITE": (
        "buildkite",
        "BUILDKITE_BUILD_CREATOR",
        "BUILDKITE_PIPELINE_SLUG",
        "BUILDKITE_BUILD_ID",
    ),
    "CIRCLECI": ("circleci", "CIRCLE_USERNAME", "CIRCLE_PROJECT_REPONAME", "CIRCLE_WORKFLOW_ID"),
}
"""By the variable that tells the CI: its name, and the variables with who started it, of what, and
the job. From each one's documentation of its predefined variables."""
_TOLD = ("actor", "project", "job")
_LONGEST = 200


def known_as(who: Mapping[str, str]) -> str:
    """By what name somebody is known best."""
    return who.get("actor") or who.get("user") or ""


def who() -> dict[str, str]:
    """`user`: the user of this system; and in a CI `ci`, `actor`, `project` and `job`, as far as it
    tells them. They are what the environment says, and no proof."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):
        user = f"uid {os.getuid()}"
    found = {"user": user}
    for variable, (ci, *names) in _CI.items():
        if os.environ.get(variable):
            told = {name: os.environ.get(of, "") for name, of in zip(_TOLD, names, strict=True)}
            found |= {"ci": ci} | {name: text for name, text in told.items() if text}
            break
    return {name: text[:_LONGEST] for name, text in found.items()}
