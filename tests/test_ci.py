"""What runs in CI and on servers: each file is read by its own format's validator, and the whole
story is played in a repository that `retainer init` wrote."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from project import Project, git, make_project, video

from retainer.demo.standin import StandIn
from retainer.starter import EXAMPLE, IGNORED, Answers, StartStore, missing_lines, named, start

REPOSITORY = Path(__file__).parent.parent
A, B = "a" * 24, "b" * 24


def tool(*words: str, folder: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    """A validator of the test environment."""
    program = Path(sys.executable).parent / words[0]
    return subprocess.run(
        [str(program), *words[1:]], cwd=folder, capture_output=True, text=True, check=False
    )


def files_of(answers: Answers, folder: Path) -> Path:
    for name, content in start(answers).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


ONE = Answers((StartStore("vault", "s3://acme-vault/100ms", "eu-west-1"),))
ALL = Answers(
    (
        StartStore("vault", "s3://acme-vault/100ms", "eu-west-1"),
        StartStore("cold", "gs://acme-cold"),
        StartStore("uploads", "s3://acme-raw/rec", None, True),
    ),
    "Asia/Kolkata",
    ("s3://hms-prod-*",),
)


@pytest.mark.parametrize("answers", [EXAMPLE, ONE, ALL], ids=["example", "one bucket", "all"])
def test_a_start_names_only_what_is_declared_and_its_tests_pass(
    answers: Answers, tmp_path: Path, local: Project
) -> None:
    files_of(answers, tmp_path)
    project = Project(tmp_path, local.api, {})
    assert "valid: 3 rules" in project.run("validate").stdout
    assert ", 0 failed" in project.run("test").stdout
    assert "No test touches" not in project.run("test").stdout
    declared = {store.name for store in answers.stores}
    text = (tmp_path / "policies" / "recordings.yaml").read_text()
    assert set(re.findall(r"in: (\w+)", text)) <= declared


def test_the_repositorys_own_settings_are_what_init_writes() -> None:
    for name, content in start(EXAMPLE).items():
        if not name.startswith("tests/"):
            assert (REPOSITORY / name).read_text() == content, name


@pytest.mark.parametrize("answers", [ONE, ALL], ids=["one bucket", "all"])
def test_the_workflow_for_github_is_one(answers: Answers, tmp_path: Path) -> None:
    from dataclasses import replace

    files_of(replace(answers, ci="github"), tmp_path)
    path = tmp_path / ".github" / "workflows" / "retention.yml"
    done = tool("check-jsonschema", "--builtin-schema", "vendor.github-workflows", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    done = tool("actionlint", "-shellcheck=", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = yaml.safe_load(path.read_text())["jobs"]
    for name in ("check", "impact"):
        told = json.dumps(jobs[name])
        assert "secrets." not in told and "environment" not in jobs[name], name


def test_the_pipeline_for_gitlab_is_one(tmp_path: Path) -> None:
    from dataclasses import replace

    files_of(replace(ONE, ci="gitlab"), tmp_path)
    schema = ("--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci")
    done = tool("check-jsonschema", *schema, str(tmp_path / ".gitlab-ci.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_action_is_one() -> None:
    done = tool("check-jsonschema", "--builtin-schema", "vendor.github-actions", "action.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_container_file_has_nothing_that_hadolint_warns_of() -> None:
    done = tool("hadolint", "examples/container/Dockerfile")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_cronjob_is_one() -> None:
    done = tool("kubernetes-validate", "--strict", "examples/kubernetes/cronjob.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_timer_is_one(tmp_path: Path) -> None:
    if not (analyze := shutil.which("systemd-analyze")):
        pytest.skip("systemd-analyze is not on this machine")
    for name in ("retainer.service", "retainer.timer"):
        text = (REPOSITORY / "examples" / "systemd" / name).read_text()
        (tmp_path / name).write_text(text.replace("/srv/retention/nightly.sh", sys.executable))
    done = subprocess.run(
        [analyze, "verify", str(tmp_path / "retainer.service"), str(tmp_path / "retainer.timer")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "retainer" not in done.stderr, done.stderr


def test_the_script_of_the_timer_is_the_one_that_the_page_shows_and_a_test_runs() -> None:
    script = (REPOSITORY / "examples" / "systemd" / "nightly.sh").read_text()
    page = (REPOSITORY / "docs" / "how-to" / "cron.md").read_text()
    assert f"<<'SCRIPT'\n{script}SCRIPT\n" in page


@pytest.mark.slow
def test_a_night_that_could_not_see_a_store_does_not_end_well(local: Project) -> None:
    """Its copies are made, and yet it ends with 8: nobody would hear of the outage."""
    local.hosted("a" * 24, video(1))
    script = local.root / "nightly.sh"
    shutil.copy(REPOSITORY / "examples" / "systemd" / "nightly.sh", script)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def night() -> int:
        return subprocess.run([script], env=local.env() | {"PATH": path}, check=False).returncode

    assert night() == 0
    (local.root / "data").rename(local.root / "unmounted")
    assert night() == 8


def test_the_hooks_run_commands_that_exist(local: Project) -> None:
    for hook in yaml.safe_load((REPOSITORY / ".pre-commit-hooks.yaml").read_text()):
        program, command, *options = hook["entry"].split()
        assert program == "retainer"
        told = local.run(command, "--help").stdout
        assert all(option in told for option in options)


def test_a_gitignore_is_completed_and_the_schema_stays_seen(tmp_path: Path) -> None:
    assert missing_lines(b"").decode().splitlines() == list(IGNORED)
    before = b"caf\xe9\r\nnode_modules/\n.retainer/"
    after = before + missing_lines(before)
    assert after.startswith(before + b"\n!.retainer/\n") and missing_lines(after) == b""
    (tmp_path / ".gitignore").write_bytes(after)
    (tmp_path / ".retainer").mkdir()
    for name in ("schema.json", "journal.lock"):
        (tmp_path / ".retainer" / name).touch()
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    assert git(tmp_path, "ls-files").split() == [".gitignore", ".retainer/schema.json"]


def test_init_in_a_project_adds_no_rule_and_follows_no_link(local: Project) -> None:
    (local.root / ".github" / "workflows").mkdir(parents=True)
    outside = local.root.parent / "outside.yml"
    (local.root / ".github" / "workflows" / "retention.yml").symlink_to(outside)
    before = sorted(path.name for path in (local.root / "policies").iterdir())
    told = local.run("init", "--ci", "github").stdout
    assert "= .github/workflows/retention.yml is there already" in told
    assert not outside.exists()
    assert sorted(path.name for path in (local.root / "policies").iterdir()) == before
    assert not (local.root / "tests").exists()
    assert "no store is written" in local.run("init", "--store", "s3://a/b", expect=64).stderr


@pytest.mark.parametrize(
    ("url", "taken", "name", "address"),
    [
        ("s3://b/p", (), "vault", "s3://b/p"),
        ("gs://b", ("vault",), "cold", "gs://b"),
        ("gs://b", ("vault", "cold"), "cold-2", "gs://b"),
        ("eu=s3://b/p=1", (), "eu", "s3://b/p=1"),
        ("hosted=s3://b", (), "hosted-2", "s3://b"),
    ],
)
def test_a_store_is_named_by_what_was_typed(
    url: str, taken: tuple[str, ...], name: str, address: str
) -> None:
    assert (named(url, taken).name, named(url, taken).url) == (name, address)


def test_init_writes_nothing_where_an_answer_is_wrong(local: Project, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    done = Project(folder, local.api, {}).run("init", "--store", "ftp://x/y", expect=64)
    assert "no scheme that retainer knows" in done.stderr and list(folder.iterdir()) == []


def test_rights_to_read_are_no_rights_to_write(local: Project, tmp_path: Path) -> None:
    files_of(ALL, tmp_path)
    project = Project(tmp_path, local.api, {})
    told = project.run("iam", "--for", "plan", "--cloud", "aws").stdout
    actions = {each for part in json.loads(told)["Statement"] for each in part["Action"]}
    assert not [each for each in actions if re.search("Put|Delete|Restore|Abort", each)]
    told = project.run("iam", "--for", "apply", "--cloud", "aws").stdout
    statements = {part["Sid"]: part for part in json.loads(told)["Statement"]}
    assert statements["Uploads2Write"]["Resource"] == ["arn:aws:s3:::acme-raw/rec/_retainer/*"]
    assert statements["Vault1Delete"]["Action"] == ["s3:DeleteObject"]
    assert len(statements) == len(json.loads(told)["Statement"])
    assert "DeleteObjectVersion" not in told and '"*"' not in told
    back = project.run("iam", "--for", "restore", "--cloud", "aws").stdout
    statements = {part["Sid"]: part for part in json.loads(back)["Statement"]}
    assert statements["Vault1Removes"]["Action"] == ["s3:DeleteObjectVersion"]
    assert statements["Vault1Versions"]["Action"] == ["s3:ListBucketVersions"]
    google = json.loads(project.run("iam", "--for", "plan", "--cloud", "google").stdout)
    assert google["buckets"] == ["gs://acme-cold"]
    assert not [p for p in google["role"]["includedPermissions"] if "create" in p or "delete" in p]


@pytest.mark.slow
def test_the_whole_story_of_a_repository(seaweedfs: str, tmp_path: Path, api: StandIn) -> None:
    """init, a policy change, validate, lint, test, impact, comment, approval, apply, and then
    nothing is left to do."""
    project = make_project(tmp_path / "project", api, "seaweedfs", seaweedfs)
    store = project.stores["vault"]
    shutil.rmtree(project.root / "policies")
    (project.root / "retainer.yaml").unlink()
    project.run("init", "--store", f"vault={store.url}", "--ci", "github")
    settings = yaml.safe_load((project.root / "retainer.yaml").read_text())
    settings["source"] = {"url": project.api.url, "hosted": ["s3://hms-prod-*"]}
    settings["stores"]["vault"] |= {"endpoint": store.endpoint, "region": "us-east-1"}
    settings["limits"]["deletes"]["percent"] = 100
    (project.root / "retainer.yaml").write_text(yaml.safe_dump(settings))
    for command in ("validate", "lint", "test"):
        project.run(command)
    git(project.root, "init", "-q", "-b", "main")
    git(project.root, "add", "-A")
    git(project.root, "commit", "-qm", "start")
    assert ".retainer/schema.json" in git(project.root, "ls-files")
    old, young = A, B
    project.hosted(old, b"SenderName\n" * 9, kind="chat", age=timedelta(days=14))
    project.hosted(young, video(2), age=timedelta(days=2))
    plan = project.plan("first.plan")
    assert (plan["header"]["copies"], plan["header"]["deletes"]) == (2, 0)
    project.apply("first.plan")
    project.run("facts", "--out", "facts.duckdb")  # the night

    git(project.root, "checkout", "-qb", "change")
    policy = project.root / "policies" / "recordings.yaml"
    policy.write_text(
        policy.read_text()
        .replace(
            "keep: [{ in: vault, for: 2y }]\n    then", "keep: [{ in: vault, for: 10d }]\n    then"
        )
        .replace("match: all\n    keep", "match: { type: [room-composite, track] }\n    keep")
    )
    assert "passed" in project.run("test", expect=10).stdout  # the change breaks what was promised
    tests = project.root / "tests" / "recordings.yaml"
    tests.write_text(
        tests.read_text().replace(
            "asset: young, in: vault, is: keep", "asset: young, in: vault, is: delete"
        )
    )
    project.run("test")
    project.run("lint")
    git(project.root, "commit", "-qam", "chats go after ten days")
    told = project.run(
        *("impact", "--base", "main", "--facts", "facts.duckdb", "--format", "markdown"),
        *("--out", "comment.md", "--html", "impact.html"),
        expect=3,
    )
    assert told.stdout == ""
    comment = (project.root / "comment.md").read_text()
    assert "1 copy" in comment and "chat-and-words" in comment and "last copy" in comment
    assert "keep in vault 2y → 10d" in comment

    plan = project.plan("tonight.plan")
    assert plan["header"]["deletes"] == 1
    fingerprint = plan["fingerprint"]
    done = project.apply(
        "tonight.plan", "--fingerprint", fingerprint[:12], "--approve-deletes", "1"
    )
    assert done["deleted"] == 1
    last = project.plan("last.plan")
    assert (last["header"]["copies"], last["header"]["deletes"]) == (0, 0)
    assert "The stores are as the policies want them" in project.run("show", "last.plan").stdout


def test_the_sample_repository_is_what_init_writes() -> None:
    from dataclasses import replace

    folder = REPOSITORY / "examples" / "one-bucket"
    for name, content in start(replace(ONE, ci="github")).items():
        assert (folder / name).read_text() == content, name
    assert (folder / ".gitignore").read_bytes() == missing_lines(b"")
