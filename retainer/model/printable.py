"""Text from outside, as it can be shown: what a terminal would obey, or an eye would not see, is
escaped."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, TypeVar

_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Controls of C0 and C1, bidirectional and zero-width characters, fillers, halves of characters,
and tags."""

Value = TypeVar("Value")


def printable(text: str) -> str:
    """The text on one line: `\\n`, `\\x1b` or `\\u202e` in place of what does not show."""
    return _HIDDEN.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    letter = found[0]
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(letter)
    code = ord(letter)
    return short or (
        f"\\x{code:02x}"
        if code < 0x100
        else f"\\u{code:04x}"
        if code < 0x10000
        else f"\\U{code:08x}"
    )


def shown(value: Value) -> Value:
    """A frozen dataclass, tuple, list, dict or text with every text in it as it can be shown."""
    return _shown(value)  # type: ignore[no-any-return]


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value) if _HIDDEN.search(value) else value
    if isinstance(value, tuple):
        return tuple(_shown(item) for item in value)
    if isinstance(value, list):
        return [_shown(item) for item in value]
    if isinstance(value, dict):
        return {key: _shown(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(
            value,
            **{
                field.name: _shown(getattr(value, field.name))
                for field in dataclasses.fields(value)
                if field.init
            },
        )
    return value
