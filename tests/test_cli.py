"""The command line: what a person meets first."""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import click
import pytest
from project import POLICY, Project, video

from retainer.cli import cli
from retainer.policy.codes import CODES

REPOSITORY = Path(__file__).parents[1]


def retainer(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "retainer", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_demo_tells_its_story_and_ends_with_an_empty_plan(tmp_path: Path) -> None:
    done = retainer(tmp_path, "demo", "--folder", "new")
    assert done.returncode == 0, done.stderr
    for part in (
        "At risk",
        "erasure",
        "copied 13 recordings",
        "deleted 4 copies",
        "Nothing is copied.",
        "Next: nothing.",
        "Try next",
    ):
        assert part in done.stdout
    assert retainer(tmp_path, "demo", "--folder", "new").returncode == 1


def test_init_writes_a_start_that_is_valid_and_changes_nothing_that_exists(tmp_path: Path) -> None:
    assert retainer(tmp_path, "init").returncode == 0
    assert "valid: 3 rules" in retainer(tmp_path, "validate").stdout
    (tmp_path / "retainer.yaml").write_text("mine")
    retainer(tmp_path, "init")
    assert (tmp_path / "retainer.yaml").read_text() == "mine"
    assert (
        (tmp_path / "policies" / "recordings.yaml")
        .read_text()
        .startswith("# yaml-language-server: $schema=")
    )
    assert "$defs" in json.loads((tmp_path / ".retainer" / "schema.json").read_text())


def test_every_mistake_is_shown_with_its_line_underlined(local: Project) -> None:
    (local.root / "policies" / "bad.yml").write_text(
        "version: 1\nrules:\n  - id: x\n    filter: {type: room-compsite}\n"
    )
    done = local.run("validate", expect=10)
    assert "error[P101] policies/bad.yml:4:5: unknown key `filter`" in done.stderr
    assert "    filter: {type: room-compsite}\n      |     ^^^^^^" in done.stderr
    assert "hint: did you mean `match`?" in done.stderr


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_is_explained(code: str, local: Project) -> None:
    assert local.run("help", code).stdout.startswith(f"{code}: ")


def commands(group: click.Group = cli, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*before, name))
        else:
            yield (*before, name)


def examples(words: tuple[str, ...]) -> list[str]:
    """The examples in the help of a command, each as it is typed."""
    command: click.Command = cli
    for word in words:
        assert isinstance(command, click.Group)
        command = command.commands[word]
    text = inspect.cleandoc(command.help or "")
    listed = [line.strip() for line in text.splitlines() if line.startswith("  retainer ")]
    quoted = re.findall(r"`([^`]*)`", " ".join(text.split()))
    told = [*listed, *(each for each in quoted if each.startswith(("retainer ", "mkdir ")))]
    called = f"retainer {' '.join(words)}"
    return [each for each in told if called in each]


@pytest.mark.slow
def test_the_demos_stand_in_answers_on_until_it_is_told_to_end(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "retainer", "demo", "--folder", "new", "--serve"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        lines: list[str] = []
        while not (lines and "retainer plan --out fourth.plan" in lines[-1]):
            lines.append(demo.stdout.readline())
            assert lines[-1], lines
        keys = dict(re.findall(r"(HMS_\w+)=(\S+)", "".join(lines)))
        told = subprocess.run(
            [sys.executable, "-m", "retainer", "plan", "--out", "fourth.plan"],
            cwd=tmp_path / "new",
            env=os.environ | keys,
            capture_output=True,
            text=True,
            check=False,
        )
        demo.send_signal(signal.SIGINT)
        assert demo.wait(20) == 130
    assert told.returncode == 0 and "Next: nothing" in told.stdout, told.stderr


def test_a_pipe_that_is_closed_early_ends_the_demo_without_an_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "retainer", "demo", "--folder", "new"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, text=True, **pipes) as demo:  # type: ignore[call-overload]
        demo.stdout.readline()
        demo.stdout.close()
        assert "error:" not in demo.stderr.read()


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_command_has_an_example_that_it_understands(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = examples(words)
    assert found or words == ("demo",)
    monkeypatch.chdir(tmp_path)
    for name in ("facts.duckdb", "today.plan"):
        (tmp_path / name).touch()
    for example in found:
        typed = re.split(r" *(?:&&|[|>;]) *", example)
        typed = next(each for each in typed if each.startswith(f"retainer {' '.join(words)}"))
        _, *arguments = shlex.split(typed)
        with cli.make_context("retainer", arguments) as context:
            inner, left = context, [*getattr(context, "_protected_args", ()), *context.args]
            while isinstance(inner.command, click.Group):
                _, command, left = inner.command.resolve_command(inner, left)
                assert command is not None
                inner = command.make_context(command.name, left, parent=inner)
                left = [*getattr(inner, "_protected_args", ()), *inner.args]


@pytest.mark.parametrize(
    "words",
    [
        ["plan", "--as-of", "soon"],
        ["plan", "--only", "{typ: chat}"],
        ["apply"],
        ["nothing"],
        ["help", "P999"],
        ["plan", "--fail-if-at-risk", "1y"],
    ],
)
def test_wrong_usage_is_64_with_a_sentence(words: list[str], local: Project) -> None:
    done = local.run(*words, expect=64)
    assert done.stderr.strip() and "Traceback" not in done.stderr


def test_without_credentials_the_exit_code_is_11_and_says_what_to_set(local: Project) -> None:
    local.environment = {"HMS_ACCESS_KEY": "", "HMS_SECRET": ""}
    assert "HMS_ACCESS_KEY" in local.run("plan", expect=11).stderr
    local.environment = {"HMS_SECRET": "wrong-secret-wrong-secret-wrong-secret"}
    done = local.run("plan", expect=11)
    assert "wrong-secret" not in done.stderr


def test_exit_codes_of_a_plan(local: Project) -> None:
    local.hosted("a" * 24, video(1), age=timedelta(days=13))
    assert local.run("plan").returncode == 0
    local.run("plan", "--detailed-exitcode", expect=2)
    local.run("plan", "--detailed-exitcode", "--fail-if-at-risk", "72h", expect=12)
    local.run("plan", "--fail-if-at-risk", "24h", expect=0)
    local.write(POLICY | {"erasures": [{"id": "E", "why": "w", "match": {"asset_id": "b" * 24}}]})
    local.uploaded("b" * 24, video(2))
    local.uploaded("c" * 24, video(3), age=timedelta(days=1))
    local.run("plan", "--detailed-exitcode", expect=3)


@pytest.mark.parametrize("width", [80, 160])
def test_a_plan_fits_the_terminal_and_never_cuts_an_id(width: int, local: Project) -> None:
    from retainer.planfile import overview, read_plan
    from retainer.views.page import Reading
    from retainer.views.plan import plan_page
    from retainer.views.terminal import Page, terminal

    for n in range(3):
        local.hosted(f"a{n:023x}", video(n))
    local.plan()
    plan = read_plan(local.root / "p.plan")
    page = plan_page(plan.header, overview(plan), Reading(), plan.fingerprint, "p.plan")
    text = terminal(page, Page(width), Reading())
    assert all(f"a{n:023x}" in text for n in range(3))
    assert all(len(line) <= width for line in text.splitlines() if "fingerprint" not in line)


def test_an_unknown_asset_is_said_to_be_unknown_with_the_nearest_one(local: Project) -> None:
    local.hosted("a" * 24, video(1))
    local.plan()
    assert f"did you mean {'a' * 24}?" in local.run("explain", "a" * 23 + "b", expect=1).stderr


def test_explain_tells_what_won_and_what_changes_next(local: Project) -> None:
    local.hosted("a" * 24, video(1))
    local.plan()
    text = local.run("explain", "a" * 24).stdout
    assert "rule calls (policies/rules.yaml:3): yes" in text
    assert "copy in vault by" in text and "lost in vault" in text
    later = json.loads(
        local.run("explain", "a" * 24, "--as-of", "2040-01-01", "--format", "json").stdout
    )
    assert later["format_version"] == "1.0" and later["next_at"] is None


def test_policy_tests_run_like_plans(local: Project, tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    case = {
        "name": "n",
        "now": "2026-11-22T00:00:00Z",
        "assets": [{"id": "a", "type": "chat", "created_at": "2026-11-20T00:00:00Z"}],
        "copies": [{"asset": "a", "in": "hosted"}],
        "expect": [{"asset": "a", "in": "vault", "is": "copy"}],
    }
    path.write_text(json.dumps({"version": 1, "tests": [case]}))
    assert "1 passed, 0 failed" in local.run("test", str(path)).stdout
    case["expect"][0]["is"] = "keep"
    path.write_text(json.dumps({"version": 1, "tests": [case]}))
    assert "a in vault: is is copy, expected keep" in local.run("test", str(path), expect=10).stdout
    path.write_text("version: 1\ntests: []\n")
    local.run("test", str(path), expect=10)


def test_the_examples_are_valid_and_their_tests_pass() -> None:
    folder = REPOSITORY / "examples" / "sales"
    assert retainer(folder, "validate").returncode == 0
    assert "2 passed, 0 failed" in retainer(folder, "test", "tests/sales.yaml").stdout


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [
        ({}, False),
        ({"FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ({"FORCE_COLOR": ""}, False),
    ],
)
def test_colour_is_forced_and_refused_by_the_environment(
    environment: dict[str, str], coloured: bool, local: Project
) -> None:
    local.hosted("a" * 24, video(1))
    local.environment = {"NO_COLOR": "", "FORCE_COLOR": ""} | environment
    assert ("\x1b[" in local.run("plan").stdout) is coloured


def test_a_plan_is_told_in_every_form(local: Project) -> None:
    local.hosted("a" * 24, video(1))
    local.run("plan", "--out", "p.plan")
    assert "| recording |" in local.run("show", "p.plan", "--format", "markdown").stdout
    assert local.run("show", "p.plan", "--format", "html").stdout.startswith("<!doctype html>")
    lines = local.run("show", "p.plan", "--format", "csv").stdout.splitlines()
    assert lines[0].startswith("n,asset_id,store,decision") and len(lines) == 3
    assert json.loads(local.run("show", "p.plan", "--format", "gitlab").stdout) == {
        "create": 1,
        "update": 0,
        "delete": 0,
    }


@pytest.mark.parametrize("words", [[], ["catalog"]])
def test_without_a_command_the_help_is_told(words: list[str], local: Project) -> None:
    assert "Usage:" in local.run(*words).stdout
