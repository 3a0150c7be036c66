"""A page in a few lines, for a message in a chat: its title and its verdict."""

from __future__ import annotations

from retainer.views.page import Document

MOST_CHARS = 2_800
"""A message of Slack is cut off behind some 3,000 characters in places."""


def notice(document: Document) -> str:
    """Plain text; what is too long ends with a word that says so."""
    lines = [document.title]
    for note in document.verdict:
        lines.append(f"{note.sign} {note.text}")
        if note.hint:
            lines.append(f"   {note.hint}")
    text = "\n".join(lines)
    return text if len(text) <= MOST_CHARS else f"{text[:MOST_CHARS]}… (cut)"
