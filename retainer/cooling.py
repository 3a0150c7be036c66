"""What the policies of earlier applies had promised, and those of today promise no more: with
`limits: { cooling: … }` it still counts for a while."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

from retainer.errors import RetainerError
from retainer.journal.ledger import Reign
from retainer.model.moment import read_moment, write_moment
from retainer.model.rule import Policies, Rule, Where
from retainer.model.setting import Settings
from retainer.planning import Cooling, policy_digest
from retainer.revision import project_at


def cooling(
    root: Path, settings: Settings, policies: Policies, reigns: Iterable[Reign], span: timedelta
) -> Cooling:
    """The keeps that still count, each as a rule that asks for nothing else. `reigns`: by which
    policies applies went within the span (`Ledger.applied_within`)."""
    today = {(rule.match, keep) for rule in policies.rules for keep in rule.keeps}
    found: dict[Rule, str] = {}
    weighed: list[str] = []
    unknown = ""
    own = policy_digest(policies, settings)
    for reign in reigns:
        weighed.append(reign.policies)
        if reign.policies == own:
            continue
        try:
            earlier = _earlier(root, reign)
        except RetainerError as error:
            unknown = (
                "what the policies promised that were applied until "
                f"{reign.until or 'the last apply'} is not known: {error.message}"
            )
            continue
        until = _until(reign, span)
        for rule in earlier.rules:
            promised = tuple(keep for keep in rule.keeps if (rule.match, keep) not in today)
            if promised:
                at = Where(f"{reign.commit[:8]}:{rule.where.file}", rule.where.line)
                found[Rule(rule.id, rule.match, at, promised, why="cooling")] = until
    return Cooling(tuple(_latest(found).items()), tuple(weighed), unknown)


def _latest(found: dict[Rule, str]) -> dict[Rule, str]:
    """What several commits promised alike once, as the last of them did."""
    last = {(rule.id, rule.match, rule.keeps): rule for rule in found}
    return {rule: found[rule] for rule in last.values()}


def _until(reign: Reign, span: timedelta) -> str:
    """When it ends; empty as long as no apply went by other policies."""
    ended = read_moment(reign.until)
    return write_moment(ended + span) if ended else ""


def _earlier(root: Path, reign: Reign) -> Policies:
    """The policies that were applied, from the commit that they were in. Raises RetainerError."""
    if not reign.commit:
        raise RetainerError("they were in no commit of git")
    settings, policies, short = project_at(reign.commit, root)
    if reign.dirty and policy_digest(policies, settings) != reign.policies:
        raise RetainerError(f"they differed from commit {short}")
    return policies
