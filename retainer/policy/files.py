"""What lies under `policies/` -> the files that are policies. Whatever is neither read nor plainly
none is a mistake."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from retainer.policy.diagnostics import Diagnostic, Span

POLICY_FOLDER = "policies"
_ENDS = (".yaml", ".yml")
_TOOLS = (".git", ".ipynb_checkpoints")
_CONFIGMAP = re.compile(r"\.\.(data(_tmp)?|[0-9]{4}_[0-9_.]+)")
"""What a ConfigMap of Kubernetes has beside the links that lead into it."""


@dataclass
class PolicyFiles:
    """`files`: to be read, in the order of their paths; `wrong`: what lies there and cannot be
    read; `passed_over`: plainly no policies."""

    files: list[Path] = field(default_factory=list)
    wrong: list[Diagnostic] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)


def policy_files(root: Path) -> PolicyFiles:
    """Every `*.yaml` and `*.yml` under `policies/`, at any depth: a hold that is not read would
    protect nothing.

    Passed over are `README*`, `*.md`, `CODEOWNERS`, hidden files that do not end so, hidden folders
    without such, and what a ConfigMap of Kubernetes has beside its links (`..data`).
    """
    found = PolicyFiles()
    folder = root / POLICY_FOLDER
    if os.path.lexists(folder):
        _walk(folder, root, found)
    found.files.sort(key=lambda path: path.relative_to(root).as_posix())
    return found


def _walk(folder: Path, root: Path, found: PolicyFiles) -> None:
    try:
        if not folder.is_dir():
            raise NotADirectoryError(20, "it is no folder")
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        found.wrong.append(
            _mistake(
                folder,
                root,
                f"cannot be read: {error.strerror}",
                "make it readable, or take it away",
            )
        )
        return
    for entry in entries:
        path = Path(entry.path)
        if _is_plainly_none(entry):
            found.passed_over.append(_name(path, root))
        elif entry.is_dir(follow_symlinks=False):
            _walk(path, root, found)
        elif reason := _why_not(entry):
            found.wrong.append(_mistake(path, root, *reason))
        else:
            found.files.append(path)


def _is_plainly_none(entry: os.DirEntry[str]) -> bool:
    name = entry.name
    if _CONFIGMAP.fullmatch(name):
        return True
    is_file = entry.is_file(follow_symlinks=False)
    if name.startswith("."):
        if entry.is_dir(follow_symlinks=False):
            return name in _TOOLS or not any(_policies_in(Path(entry.path)))
        return is_file and not _looks_like_one(name)
    if name == "CODEOWNERS":
        return is_file
    return (
        is_file
        and (name.upper().startswith("README") or name.lower().endswith(".md"))
        and not name.lower().endswith(_ENDS)
    )


def _looks_like_one(name: str) -> bool:
    return name.lower().endswith((*_ENDS, ".json"))


def _policies_in(folder: Path) -> Iterator[Path]:
    """What in a hidden folder may be a policy, or lead to one: that, too, is looked at then."""
    try:
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                yield from _policies_in(Path(entry.path))
            elif entry.is_symlink() or _looks_like_one(entry.name):
                yield Path(entry.path)
    except OSError:
        yield folder


def _why_not(entry: os.DirEntry[str]) -> tuple[str, str] | None:
    """Why an entry is not read as a policy, and what to do; None when it is."""
    meant = "rename it to end in .yaml, or move it out of policies/"
    if not entry.name.isprintable():
        return "has a name that cannot be printed", "rename it"
    try:
        kind = entry.stat().st_mode
    except OSError as error:
        return (
            f"leads to nothing that can be read: {error.strerror}",
            "mount what it leads to, or take the link away",
        )
    if stat.S_ISDIR(kind):
        return (
            "is a link to a folder, which is not followed",
            "put the folder itself here, or link its files one by one",
        )
    if not stat.S_ISREG(kind):
        return "is no file", "take it away"
    if not entry.name.endswith(_ENDS):
        return "is not read as a policy", meant
    return None


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _mistake(path: Path, root: Path, message: str, hint: str) -> Diagnostic:
    return Diagnostic(
        "P215", _name(path, root), Span(1, 1, 1, 1), f"`{_name(path, root)}` {message}", hint
    )
