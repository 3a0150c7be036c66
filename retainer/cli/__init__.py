"""The command line: each command strings the stages together. Only what is here prints, and only
here errors are caught (process.py)."""

from __future__ import annotations

from typing import NoReturn

from retainer.cli import ahead, applies, check, copies, plans, process, records, start
from retainer.cli.group import cli, take_from_environment

__all__ = [
    "ahead",
    "applies",
    "check",
    "cli",
    "copies",
    "main",
    "plans",
    "process",
    "records",
    "start",
]

take_from_environment(cli)


def main() -> NoReturn:
    """Run the command line."""
    process.main(cli)
