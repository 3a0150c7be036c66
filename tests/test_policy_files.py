"""What lies under policies/ is a policy or a mistake: what is passed over protects nothing (issue
11, read once, 2)."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from project import Project

from retainer.policy.files import policy_files
from retainer.policy.lint import load_policies
from retainer.policy.load import load_text
from retainer.policy.parse import parse_policies

HOLD = "version: 1\nholds:\n  - { id: LIT-1, why: court, match: all, in: vault }\n"
Place = Callable[[Path], object]


def link(name: str, to: str) -> Place:
    return lambda folder: (folder / name).symlink_to(to)


def text(name: str) -> Place:
    def write(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(HOLD)

    return write


def bound(folder: Path) -> None:
    socket.socket(socket.AF_UNIX).bind(str(folder / "holds.yaml"))


REFUSED: dict[str, Place] = {
    "a link that leads nowhere": link("holds.yaml", "/nowhere/holds.yaml"),
    "a link in a circle": link("holds.yaml", "holds.yaml"),
    "a link to a folder": link("legal", "/tmp"),
    "a folder's link that leads nowhere": link("legal", "/nowhere"),
    "a link to a device": link("holds.yaml", "/dev/zero"),
    "a FIFO": lambda folder: os.mkfifo(folder / "holds.yaml"),
    "a socket": bound,
    "capitals": text("HOLDS.YAML"),
    "mixed case": text("legal/holds.Yml"),
    "JSON": text("holds.json"),
    "a text's end behind it": text("holds.yaml.txt"),
    "an editor's copy": text("holds.yaml~"),
    "no end": text("holds"),
    "a name with an escape": text("\x1b[2Jholds.yaml"),
    "a name that is no UTF-8": lambda folder: Path(
        os.fsdecode(os.fsencode(folder) + b"/\xff.yaml")
    ).write_text(HOLD),
}
READ: dict[str, Place] = {
    "a file": text("holds.yaml"),
    "a hidden file": text(".holds.yaml"),
    "a file in a folder": text("legal/holds.yml"),
    "a file in a hidden folder": text(".legal/holds.yaml"),
    "a folder that is named like a file": text("holds.yaml/x.yaml"),
    "a link to a file elsewhere": lambda folder: (
        (folder.parent / "else.yaml").write_text(HOLD),
        (folder / "holds.yaml").symlink_to("../else.yaml"),
    ),
}
PASSED_OVER = (
    "README",
    "README.md",
    "readme.txt",
    "why.md",
    "CODEOWNERS",
    ".gitignore",
    ".holds.yaml.swp",
)


def mistakes(root: Path) -> list[str]:
    return [
        each.code
        for each in load_policies(root, policy_files(root), "UTC", None)[1]
        if not each.is_warning
    ]


@pytest.mark.parametrize("place", REFUSED.values(), ids=REFUSED)
def test_what_is_not_read_is_a_mistake(tmp_path: Path, place: Place) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "rules.yaml").write_text(
        "version: 1\nrules:\n  - { id: r, match: all, keep: [{ in: vault, for: 1y }] }\n"
    )
    place(folder)
    assert mistakes(tmp_path) == ["P215"]


@pytest.mark.parametrize("place", READ.values(), ids=READ)
def test_what_is_read_is_read(tmp_path: Path, place: Place) -> None:
    (tmp_path / "policies").mkdir()
    place(tmp_path / "policies")
    policies, wrong = load_policies(tmp_path, policy_files(tmp_path), "UTC", None)
    assert ([hold.id for hold in policies.holds], wrong) == (["LIT-1"], [])


def test_what_is_plainly_no_policy_is_passed_over_and_counted(local: Project) -> None:
    for name in PASSED_OVER:
        (local.root / "policies" / name).write_text("# about")
    (local.root / "policies" / ".idea").mkdir()
    told = local.run("validate").stdout
    assert "8 names under policies/ are plainly no policy" in told


def test_a_kubernetes_configmap_is_read_once(tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    (folder / "..2026_11_28").mkdir(parents=True)
    (folder / "..2026_11_28" / "holds.yaml").write_text(HOLD)
    (folder / "..data").symlink_to("..2026_11_28")
    (folder / "holds.yaml").symlink_to("..data/holds.yaml")
    policies, wrong = load_policies(tmp_path, policy_files(tmp_path), "UTC", None)
    assert ([hold.id for hold in policies.holds], wrong) == (["LIT-1"], [])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not read")
@pytest.mark.parametrize(
    "what, mode", [("legal", 0o700), ("legal/holds.yaml", 0o600)], ids=["folder", "file"]
)
def test_what_this_user_may_not_read_is_a_mistake(tmp_path: Path, what: str, mode: int) -> None:
    text("policies/legal/holds.yaml")(tmp_path)
    for path in (tmp_path, *tmp_path.parents):
        path.chmod(path.stat().st_mode | 0o055) if path.is_relative_to("/tmp") and path != Path(
            "/tmp"
        ) else None
    (tmp_path / "policies" / what).chmod(mode)
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os._exit(0 if mistakes(tmp_path) == ["P215"] else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_held_recording_stays_while_the_file_of_its_hold_is_not_mounted(local: Project) -> None:
    local.uploaded("a" * 24, b"\x00\x00\x00\x18ftypisom" * 9)
    (local.root / "policies" / "holds.yaml").symlink_to("/mnt/legal/holds.yaml")
    local.run("plan", "--out", "p.plan", expect=10)
    assert not (local.root / "p.plan").exists()


# ── text that matches nothing, or hides what it says ──────────────────────────────────────────────


def codes(match: str, *, why: str = "court") -> list[tuple[str, bool]]:
    document, wrong = load_text(
        f"version: 1\nholds:\n  - id: H\n    why: {why}\n    in: vault\n    match: {match}\n",
        "a.yaml",
    )
    return [
        (each.code, each.is_warning)
        for each in (*wrong, *(parse_policies(document, "UTC")[1] if document.data else ()))
    ]


@pytest.mark.parametrize(
    "match, code",
    [
        ('{ room: "" }', "P207"),
        ('{ room: "  " }', "P207"),
        ("{ asset_id: '' }", "P207"),
        ('{ room: [a, ""] }', "P207"),
        ('{ room: "board " }', "P218"),
        ('{ room: " board" }', "P218"),
        ("\n      room: |\n        board", "P218"),
        ('{ path: "a\\nb" }', "P218"),
        ('{ metadata: { k: "v " } }', "P218"),
    ],
)
def test_text_that_nothing_has_is_a_mistake(match: str, code: str) -> None:
    assert codes(match) == [(code, False)]


def test_a_comma_is_a_warning_with_the_list_that_was_meant() -> None:
    document, _ = load_text(
        "version: 1\nholds: [{ id: H, why: w, in: v, match: { room: 'board, legal' } }]\n", "a.yaml"
    )
    (told,) = parse_policies(document, "UTC")[1]
    assert (told.code, told.is_warning, told.hint) == (
        "P217",
        True,
        "a list is written [board, legal]",
    )


@pytest.mark.parametrize(
    "match",
    [
        "{ room: board }",
        "{ room: [board, legal] }",
        "{ metadata: { k: 'a, b' } }",
        "{ metadata: { k: '' } }",
    ],
)
def test_what_may_be_meant_is_not_complained_of(match: str) -> None:
    assert codes(match) == []


@pytest.mark.parametrize("why", [r'"a\e[2Jb"', r'"a\u202eb"', r'"a\u200bb"', '"a\\u0007"'])
def test_text_that_does_not_show_is_a_warning(why: str) -> None:
    assert codes("all", why=why) == [("P216", True)]


def test_a_name_in_another_unicode_form_is_the_same_name() -> None:
    document, _ = load_text(
        "version: 1\nholds: [{ id: H, why: w, in: v, match: { room: 'Cafe\u0301' } }]\n", "a.yaml"
    )
    policies, wrong = parse_policies(document, "UTC")
    assert (wrong, policies.holds[0].match.patterns) == ([], ("Caf\u00e9",))  # type: ignore[union-attr]


@pytest.mark.parametrize("letter", ["\x85", "\u2028", "\u2029"])
@pytest.mark.parametrize("quote", ["'", ""])
def test_a_line_is_what_git_and_the_editor_take_for_one(letter: str, quote: str) -> None:
    _, (told,) = load_text(
        f"version: 1\nrules:\n  - id: one\n    why: {quote}a{letter}b{quote}\n    match: all\n",
        "a.yaml",
    )
    assert (told.code, told.span.line, told.span.column) == ("Y007", 4, 11 + len(quote))
    assert f"U+{ord(letter):04X}" in told.message


def test_a_hold_over_20_000_assets_is_ordinary() -> None:
    ids = ", ".join(f"{number:024x}" for number in range(20_000))
    document, wrong = load_text(
        f"version: 1\nholds: [{{ id: H, why: w, in: v, match: {{ asset_id: [{ids}] }} }}]\n",
        "a.yaml",
    )
    assert (wrong, parse_policies(document, "UTC")[1]) == ([], [])
