"""Files that only this user may look into, and that go with this process: spills, spools, and what
was read once. They may hold the names of rooms."""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path

_home: Path | None = None
_mine: dict[Path | None, Path] = {}
_guard = threading.RLock()


def keep_private_in(state: Path) -> None:
    """Make private folders below a project's state from now on, and not where all users have
    theirs."""
    global _home
    _home = state / "private"


def private_folder() -> Path:
    """The folder of this process, made anew where somebody took it away. Those that killed
    processes left are removed."""
    with _guard:
        return _private_folder()


def _private_folder() -> Path:
    folder = _mine.get(_home)
    if folder is None or not folder.is_dir():
        folder = _held_in(_home) if _home is not None else None
        folder = folder or Path(tempfile.mkdtemp(prefix="retainer-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        _mine[_home] = folder
    return folder


def _held_in(home: Path) -> Path | None:
    """A folder of our own there, held until this process ends; None where none can be made."""
    with suppress(OSError):
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in home.iterdir():
            _remove_unless_held(left)
        folder = Path(tempfile.mkdtemp(dir=home, prefix=_NOT_HELD_YET))
        with suppress(OSError):  # not every disk can hold
            fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
        return folder.rename(home / folder.name.removeprefix(_NOT_HELD_YET))
    return None


_NOT_HELD_YET = "new-"


def _remove_unless_held(folder: Path) -> None:
    """Remove what a process left that was killed."""
    with suppress(OSError):
        if folder.name.startswith(_NOT_HELD_YET) and time.time() - folder.stat().st_mtime < 60:
            return
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(held)


def forget_private_folder() -> None:
    """Remove it, where the process ends without its farewells."""
    for folder in _mine.values():
        shutil.rmtree(folder, ignore_errors=True)


def private_file(end: str) -> Path:
    """The name of a file that does not exist yet, in the private folder."""
    return private_folder() / f"{uuid.uuid4().hex}{end}"
