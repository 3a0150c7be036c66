"""What the policies of earlier applies had promised, and those of today promise no more: with
`limits: { cooling: … }` it still counts for a while."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from retainer.errors import RetainerError
from retainer.journal.ledger import Reign
from retainer.model.moment import read_moment, write_moment
from retainer.model.rule import Keep, Match, Policies, Rule, Where
from retainer.model.setting import Settings
from retainer.planning import policy_digest
from retainer.revision import project_at
from retainer.weighing import Cooling


def cooling(
    root: Path, settings: Settings, policies: Policies, reigns: Iterable[Reign], span: timedelta
) -> Cooling:
    """The keeps that still count, each as a rule that asks for nothing else. `reigns`: by which
    policies applies went within the span, the oldest first (`Ledger.applied_within`)."""
    today = {(rule.match, keep) for rule in policies.rules for keep in rule.keeps}
    found: dict[tuple[str, Match, tuple[Keep, ...]], tuple[Rule, str]] = {}
    reigns = tuple(reigns)
    unknown = ""
    own = policy_digest(policies, settings)
    for reign in reigns:
        if reign.policies == own:
            continue
        try:
            was, earlier = _earlier(root, reign)
        except RetainerError as error:
            unknown = (
                "what the policies promised that were applied until "
                f"{reign.until or 'the last apply'} is not known: {error.message}"
            )
            continue
        until = _until(reign, span)
        for rule in earlier.rules:
            keeps = (_where_it_lies_now(keep, was, settings) for keep in rule.keeps)
            promised = tuple(keep for keep in keeps if keep and (rule.match, keep) not in today)
            if promised:
                at = Where(f"{reign.commit[:8]}:{rule.where.file}", rule.where.line)
                cooled = Rule(rule.id, rule.match, at, promised, why="cooling", cooled=True)
                found[rule.id, rule.match, promised] = (cooled, until)
    return Cooling(tuple(found.values()), reigns, unknown)


def _where_it_lies_now(keep: Keep, was: Settings, now: Settings) -> Keep | None:
    """The keep in the store that lies at the same place by now, whatever it is called, else in the
    one that has its name. None: there is neither, so that nothing is copied there or deleted."""
    before = was.store(keep.store)
    place = before.place if before else None
    same = keep.store if now.store(keep.store) else None
    name = next((name for name, each in now.places.items() if each == place), same)
    return replace(keep, store=name) if name else None


def _until(reign: Reign, span: timedelta) -> str:
    """When it ends; empty as long as no apply went by other policies."""
    ended = read_moment(reign.until)
    return write_moment(ended + span) if ended else ""


def _earlier(root: Path, reign: Reign) -> tuple[Settings, Policies]:
    """The settings and policies that were applied, from a commit that has them. Raises
    RetainerError."""
    if not reign.commit:
        raise RetainerError("no commit of git is known that has them")
    settings, policies, _ = project_at(reign.commit, root)
    return settings, policies
