"""Pieces of pages that are made from what the tool says, between two comments that name the test
which makes them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]


def hold(
    page: Path, pieces: Mapping[str, str], by: str, lasting: Callable[[str], str] = str.strip
) -> None:
    """Fail where a piece of a page is not what was made, less what `lasting` takes away.

    `RETAINER_WRITE_DOCS=1` writes the pieces anew. Each piece stands in the page once, and the page
    has no other piece by the same test.
    """
    text = page.read_text(encoding="utf-8")
    named = re.findall(rf"<!-- (.+): written by {re.escape(by)} -->", text)
    assert sorted(named) == sorted(pieces), page
    for name, made in pieces.items():
        begin, end = f"<!-- {name}: written by {by} -->\n", f"\n<!-- /{name} -->"
        before, _, rest = text.partition(begin)
        shown, mark, after = rest.partition(end)
        assert mark, (page, name)
        if os.environ.get("RETAINER_WRITE_DOCS"):
            text = f"{before}{begin}{made}{mark}{after}"
        else:
            assert lasting(shown) == lasting(made), f"{page}: {name}; RETAINER_WRITE_DOCS=1 pytest"
    if os.environ.get("RETAINER_WRITE_DOCS"):
        page.write_text(text, encoding="utf-8")


def whole(file: Path, made: str) -> None:
    """Fail where a file is not what was made; `RETAINER_WRITE_DOCS=1` writes it."""
    if os.environ.get("RETAINER_WRITE_DOCS"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(made, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == made, f"{file}; RETAINER_WRITE_DOCS=1 pytest"
