"""What is wrong in a file, and exactly where."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A stretch of text: lines and columns from 1, `end_column` just past the last character."""

    line: int
    column: int
    end_line: int
    end_column: int


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One mistake: a stable code (see `codes.py`), its place, the line it stands on, a sentence and
    what to do."""

    code: str
    file: str
    span: Span
    message: str
    hint: str | None = None
    text: str = ""
    is_warning: bool = False
    """It stops nothing, and is told."""

    @property
    def order(self) -> tuple[str, Span, str, str]:
        return (self.file, self.span, self.code, self.message)
