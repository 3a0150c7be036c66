"""An entry that accepts a partial copy -> the file of policies that has it."""

from __future__ import annotations

import json

from retainer.errors import RetainerError
from retainer.policy.files import POLICY_FOLDER
from retainer.policy.load import load_text
from retainer.policy.parse import parse_policies

ACCEPTED = f"{POLICY_FOLDER}/accepted.yaml"
"""Where such entries are written, one on each line."""
_START = "# Partial copies that count, since a person looked at them.\nversion: 1\naccept:\n"


def with_acceptance(text: str | None, asset_id: str, why: str, owner: str | None) -> str:
    """The text of that file with one entry more; None: there is no such file yet. Everything else
    in it stays as it is.

    Raises RetainerError where the file is so written that an entry at its end would not be one.
    """
    entry = {"asset_id": asset_id, "why": why} | ({"owner": owner} if owner else {})
    told = ", ".join(
        f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in entry.items()
    )
    line = f"  - {{ {told} }}\n"
    before = _START if text is None else text if text.endswith("\n") else f"{text}\n"
    old, new = _accepts(text or "version: 1\n"), _accepts(before + line)
    if old is None or new != [*old, (asset_id, why, owner or "")]:
        raise RetainerError(
            f"{ACCEPTED} is so written that an entry at its end would not be one",
            hint=f"add it by hand, under `accept:`: {line.strip()}",
        )
    return before + line


def _accepts(text: str) -> list[tuple[str, str, str]] | None:
    """What a file accepts; None where anything in it is wrong."""
    document, wrong = load_text(text, ACCEPTED)
    if wrong or document.data is None:
        return None
    policies, mistakes = parse_policies(document, "UTC")
    if any(not each.is_warning for each in mistakes):
        return None
    return [(each.asset_id, each.why, each.owner) for each in policies.accepts]
