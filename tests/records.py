"""The journal of a state folder, as tests look at it and spoil it."""

from __future__ import annotations

import shutil
from pathlib import Path

from retainer.journal.entry import CLOSED, Entry
from retainer.journal.folder import OLD_JOURNAL, SEGMENTS, FolderBackend
from retainer.journal.journal import read_journal, read_ledger
from retainer.journal.ledger import Intended, Ledger


def entries(state: Path) -> list[Entry]:
    """Every line of every run, less the summaries that segments are closed with."""
    return [each for each in read_journal(FolderBackend(state)) if each.event != CLOSED]


def ledger(state: Path) -> Ledger:
    return read_ledger(FolderBackend(state))


def open_intents(state: Path) -> list[Intended]:
    return ledger(state).open_intents()


def segments(state: Path) -> list[Path]:
    """The files, oldest first."""
    old = [state / OLD_JOURNAL] if (state / OLD_JOURNAL).exists() else []
    return [*old, *sorted((state / SEGMENTS).glob("*.jsonl"))]


def text_of(state: Path) -> bytes:
    """All of it as it lies on the disk."""
    return b"".join(path.read_bytes() for path in segments(state))


def cut(state: Path, lines: int) -> None:
    """As if only its first lines were there."""
    for path in segments(state):
        content = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(content[:lines]))
        lines = max(0, lines - len(content))
        if not path.stat().st_size:
            path.unlink()


def remove(state: Path) -> None:
    shutil.rmtree(state / SEGMENTS, ignore_errors=True)
    (state / OLD_JOURNAL).unlink(missing_ok=True)
