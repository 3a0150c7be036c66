"""The README's pictures are what the tool really says. `RETAINER_WRITE_DOCS=1 pytest
tests/test_readme.py` writes them anew."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

from pages import only_commands
from pictures import hold
from project import ROOM, Project, make_project, video

from retainer.demo.standin import StandIn

README = Path(__file__).parents[1] / "README.md"
POLICY = """\
version: 1
rules:
  - id: sales-calls
    why: Sales call records, LEGAL-88
    match: { type: [room-composite, transcript], room: sales-* }
    keep: [ { in: vault, for: 7y } ]
    then: delete
  - id: raw-uploads
    why: The upload bucket is for arriving, not for keeping
    match: { type: room-composite, room: sales-* }
    delete: [ { in: uploads, after: 30d } ]
"""


def story(tmp_path: Path, api: StandIn) -> tuple[str, str]:
    """What a plan says of that policy, and what a change of it does."""
    project = make_project(tmp_path / "acme", api, "local", "")
    api.add_room({"id": ROOM, "name": "sales-weekly"})
    (project.root / "policies" / "rules.yaml").unlink()
    (project.root / "policies" / "sales.yaml").write_text(POLICY)
    for number, days in enumerate((41.3, 38.3, 21.3)):
        name, content = f"6544d1e2f3a4b5c6d7e8f91{number}", video(number, 5000)
        project.uploaded(name, content, age=timedelta(days=days))
    project.run("plan", "--out", "old.plan")
    project.run("apply", "old.plan")
    for number, days in enumerate((13.4, 4.3, 2.3)):
        name, content = f"6544d1e2f3a4b5c6d7e8f90{number}", video(number + 3, 5000)
        project.hosted(name, content, age=timedelta(days=days))
    plan = project.run("plan", "--out", "tonight.plan").stdout
    as_base(project)
    changed = POLICY.replace("after: 30d", "after: 20d")
    (project.root / "policies" / "sales.yaml").write_text(changed)
    comment = project.run("impact", "--base", "../main", "--format", "markdown", expect=None).stdout
    return plan, comment


def as_base(project: Project) -> None:
    base = project.root.parent / "main"
    (base / "policies").mkdir(parents=True)
    for name in ("retainer.yaml", "policies/sales.yaml"):
        (base / name).write_text((project.root / name).read_text())


VARYING = re.compile(
    r"\b[0-9]{4}-[0-9]{2}-[0-9]{2}( [0-9]{2}:[0-9]{2})?\b|\b[0-9a-f]{8,64}\b|\b[0-9]+ seconds?\b"
    r"|DuckDB [0-9.]+|tzdata [0-9.]+"
)


def lasting(text: str) -> str:
    """What stays from day to day: without dates, ids, ages and versions."""
    return VARYING.sub("…", text)


def pictures(plan: str, comment: str) -> dict[str, str]:
    upto = plan.index("What to know besides")
    return {
        "policy": f"```yaml\n# policies/sales.yaml\n{POLICY}```",
        "plan": f"```\n$ retainer plan --out tonight.plan\n{plan[:upto].rstrip()}\n```",
        "comment": quoted(comment),
    }


def quoted(comment: str) -> str:
    """The comment less its last line, as GitHub shows it inside a quotation."""
    kept = comment[: comment.index("<sub>retainer")].replace("../main", "main").strip()
    kept = re.sub(r"(?s)<!--.*?-->\n", "", kept)
    # GitHub shows no alert inside a quotation
    kept = re.sub(r"> \[!(\w+)\]\n> ", lambda found: f"**{found[1].capitalize()}:** ", kept)
    return "\n".join(f"> {line}".rstrip() for line in kept.splitlines())


def test_the_pictures_of_the_readme_are_what_is_said(tmp_path: Path, api: StandIn) -> None:
    hold(README, pictures(*story(tmp_path, api)), "tests/test_readme.py", lasting)


def test_every_command_of_the_readme_is_one_that_there_is() -> None:
    only_commands(README.read_text())
