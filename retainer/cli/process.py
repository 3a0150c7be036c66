"""One run of the program: its clock, how it is stopped, and how it ends. Every error ends here, as
a sentence on stderr and its exit code."""

from __future__ import annotations

import io
import os
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import rich_click as click
from click.exceptions import Exit

from retainer.errors import RetainerError, WrongUsage
from retainer.private import forget_private_folder
from retainer.stop import Stop, Stopped
from retainer.tracing import end
from retainer.voice import is_json, say, speak

if TYPE_CHECKING:
    from retainer.apply.run import Run


EXIT = {
    "only copies": 2,
    "deletes": 3,
    "held back": 4,
    "partly": 7,
    "incomplete": 8,
    "at risk": 12,
    "interrupted": 130,
}


MEANINGS = {
    0: "Done; for `plan`: a valid plan.",
    1: "Failed.",
    2: "With `--detailed-exitcode`: there are actions, none of them a delete.",
    3: "With `--detailed-exitcode`: there are deletes among the actions; of `impact`: new ones.",
    4: (
        "A limit, a clash, a freeze, a lost record, a clock or another workspace: the plan is "
        "written, its deletes are held back, its copies can run. Or a rule of a bucket's own "
        "deletes what a policy keeps. The plan names what a person could lift."
    ),
    5: "The plan was refused: stale, expired, edited, truncated, applied already. Make a new one.",
    6: "Another run holds the lock of a store or of the state folder. Wait for it.",
    7: "Partly done, or deletes not approved. Run it again to go on.",
    8: "Facts incomplete: no delete that could be concerned is in the plan. Its copies can run.",
    9: "A person said no.",
    10: "Policies, settings or their tests are wrong, also in an `impact`.",
    11: "Credentials are missing or refused; where it is one store's, the rest was done.",
    12: (
        "With `--fail-if-at-risk D`, `--fail-if-lapsing D`: something that is to be kept, or that "
        "no rule keeps, leaves 100ms within D without a copy."
    ),
    64: "Wrong usage.",
    130: "Interrupted; the journal is written, and the same plan goes on.",
}
"""What each exit code means."""


def _clock() -> datetime:
    """Apart from `now`, which commands import by its name, so that a test can set it for all."""
    return datetime.now(UTC)


def now() -> datetime:
    """The clock of this command, read once and passed on."""
    return _clock()


_STOP = Stop()


def stop() -> Stop:
    """What this command is asked to stop by; made anew with each."""
    return _STOP


_GRACE_SECONDS = 8.0
"""So long a command that was asked to stop may take to end by itself; then it ends as a kill would
end it, which loses nothing."""


def main(command: click.Group) -> NoReturn:
    """Run a command line; every error ends here, as a sentence on stderr and its exit code."""
    global _STOP
    _STOP = Stop()
    speak()
    applying.clear()
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # whoever started it has closed it
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
    warnings.simplefilter("ignore")  # what libraries think of keys and versions is nothing for here
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # whatever the locale cannot write
    before = [
        (number, signal.signal(number, _interrupted))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN  # as nohup has it
    ]
    try:
        ended = _run(command)
        code = ended if isinstance(ended, int) else 0
        with suppress(KeyboardInterrupt, Stopped):  # it has ended, whatever is still sent
            end(code)
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    _leave(code)


def _run(command: click.Group) -> object:
    try:
        return command.main(prog_name="retainer", standalone_mode=False)
    except Exit as leave:
        return leave.exit_code
    except (click.Abort, KeyboardInterrupt, Stopped):
        say("interrupted: what had not ended is left as it was; run the command again")
        return EXIT["interrupted"]
    except click.ClickException as error:
        code = WrongUsage.exit_code if isinstance(error, click.UsageError) else 1
        if is_json():
            say(error.format_message(), "error", exit_code=code)
        else:
            error.show()
        return code
    except RetainerError as error:
        say(error.message, "error", error.hint, exit_code=error.exit_code)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return _unforeseen(error)


def _unforeseen(error: Exception) -> int:
    """Tell an error that nobody foresaw: what and where, and where the rest of it was written. Its
    words may hold anything, so they are not told."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    what = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    named = (
        f" ({error.filename})"
        if isinstance(error, OSError) and isinstance(error.filename, str)
        else ""
    )
    text = "".join(traceback.format_exception(error))
    say(
        f"`retainer {' '.join(sys.argv[1:2])}` could not go on: {what}{named}, in "
        f"{Path(last.filename).name}:{last.lineno}",
        "error",
        f"run it again; if it stays so, report it{_kept(text)}",
    )
    return 1


def _kept(text: str) -> str:
    """Write a traceback down, and say where."""
    for folder in _error_folders():
        path = folder / f"error-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.getpid()}.txt"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.touch(0o600, exist_ok=False)
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
        except OSError:
            continue
        return f" with {path} (read that first: it may name recordings)"
    return ""


def _error_folders() -> list[Path]:
    """Where a traceback may be written: the state folder, else the folder for temporary files."""
    from retainer.settings import state_above

    folders = [Path(tempfile.gettempdir())]
    try:
        if state := state_above(Path.cwd()):
            folders.insert(0, state)
    except Exception:
        return folders  # what went wrong may be these very settings
    return folders


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    """The first Ctrl-C, SIGTERM or SIGHUP asks for an end, and a second one ends at once, as a kill
    would."""
    if _STOP.is_asked:
        _exit_now()
    _STOP.ask()
    late = threading.Timer(_GRACE_SECONDS, _exit_now)
    late.daemon = True
    late.start()
    if not applying:
        raise KeyboardInterrupt
    say(
        "stopping: what is under way is given up, and the journal is written (once more to end at "
        "once)"
    )


applying: list[Run] = []
"""The run that is under way: it ends by itself once it is asked to."""


def _exit_now() -> None:
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    forget_private_folder()
    os._exit(EXIT["interrupted"])


def _leave(code: int) -> NoReturn:
    """End. Threads that were given up may still wait for an answer, and are not waited for."""
    if _STOP.is_asked:
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        _exit_now()
    sys.exit(code)
