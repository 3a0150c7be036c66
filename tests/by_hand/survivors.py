"""The mistakes that survivors.md explains: what both scripts that plant them leave out of their
reports."""

from __future__ import annotations

import re
from pathlib import Path


def explained() -> set[str]:
    """What each of them does, as it stands in backticks."""
    told = Path(__file__).with_suffix(".md").read_text(encoding="utf-8")
    return set(re.findall(r"^- (`.+`): ", told, re.MULTILINE))
