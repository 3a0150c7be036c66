"""Settings and policies as they are in another folder, or were in a commit of git, whose working
tree is not touched."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from retainer.errors import PoliciesWrong, WrongUsage
from retainer.git import git
from retainer.model.rule import Policies
from retainer.model.setting import Settings
from retainer.policy.files import POLICY_FOLDER, policy_files
from retainer.private import private_file
from retainer.settings import SETTINGS_FILE, load_project, uncommitted

LARGEST_BYTES = 64 << 20
"""What a commit has of settings and policies is at most so long."""


def project_at(base: str, root: Path) -> tuple[Settings, Policies, str]:
    """The settings and policies of `base`, a folder with a retainer.yaml or a commit of the git
    repository that `root` lies in, and that commit (empty where there is none).

    Raises WrongUsage where it is neither, and PoliciesWrong where they are wrong there.
    """
    folder = Path(base)
    commit = git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{base}^{{commit}}")
    if base and (folder / SETTINGS_FILE).is_file():
        if commit is not None:
            raise WrongUsage(
                f"`{base}` is a folder and a commit too", hint=f"write ./{base} for the folder"
            )
        if folder.resolve() == root.resolve():
            raise WrongUsage(f"`{base}` is the project itself: nothing could differ from it")
        settings, policies = _loaded(folder, base)
        return settings, policies, commit_of(folder)
    if commit is None:
        raise WrongUsage(
            f"`{base}` is no folder with a {SETTINGS_FILE}, and no commit of a git repository here",
            hint="such as origin/main, with `fetch-depth: 0` at the checkout, or ../main",
        )
    name = commit.decode().strip()
    settings, policies = _loaded(_written(root, name), base)
    return settings, policies, name[:12]


def commit_of(root: Path) -> str:
    """The commit that a folder is at, and `-dirty` where its settings or policies differ from it;
    empty where it is in no repository."""
    told = git(root, "rev-parse", "HEAD")
    if told is None:
        return ""
    return told.decode().strip()[:12] + ("-dirty" if uncommitted(root) else "")


def commit_with(root: Path) -> str:
    """The commit that a folder is at, where it has just the settings and policies that lie there,
    byte for byte, whatever git shows or hides of them; else empty."""
    told = git(root, "rev-parse", "HEAD")
    if told is None:
        return ""
    commit = told.decode().strip()
    try:
        there = _written(root, commit)
        return commit if _texts(there) == _texts(root) else ""
    except (OSError, PoliciesWrong):
        return ""


def _texts(folder: Path) -> dict[str, bytes]:
    """What settings and policies say, by where they lie."""
    paths = [folder / SETTINGS_FILE, *policy_files(folder).files]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def prefix_of(root: Path) -> str:
    """What leads from the root of a repository to the project in it, such as `ops/retention/`;
    empty where they are one, or there is no repository."""
    told = git(root, "rev-parse", "--show-prefix")
    return os.fsdecode(told).strip("\n") if told else ""


def _loaded(folder: Path, base: str) -> tuple[Settings, Policies]:
    settings, policies, mistakes = load_project(folder)
    wrong = [each for each in mistakes if not each.is_warning]
    if wrong:
        first = wrong[0]
        raise PoliciesWrong(
            f"the policies at {base} are wrong, so nothing can be compared with them: "
            f"{first.file}:{first.span.line}: {first.message}"
            + (f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""),
            hint="name a base whose policies are valid",
        )
    return settings, policies


def _written(root: Path, commit: str) -> Path:
    """The settings and policies of a commit as files in the private folder. Raises PoliciesWrong
    for what a commit may hold and no policy may be: links, and submodules."""
    listed = git(root, "ls-tree", "-r", "-z", commit, "--", SETTINGS_FILE, POLICY_FOLDER) or b""
    folder = private_file("-base")
    folder.mkdir()
    (folder / POLICY_FOLDER).mkdir()
    total = 0
    for entry in filter(None, listed.split(b"\0")):
        about, _, name = entry.partition(b"\t")
        mode, kind, digest = about.split(b" ")[:3]
        path = PurePosixPath(os.fsdecode(name))
        if kind != b"blob" or mode == b"120000" or path.is_absolute() or ".." in path.parts:
            raise PoliciesWrong(
                f"{path} is no plain file in {commit[:12]}, so it cannot be read from there",
                hint="check that commit out beside this folder, and name it: --base DIR",
            )
        content = git(root, "cat-file", "blob", digest.decode()) or b""
        total += len(content)
        if total > LARGEST_BYTES:
            raise PoliciesWrong(
                f"the policies of {commit[:12]} are longer than {LARGEST_BYTES >> 20} MiB"
            )
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return folder
