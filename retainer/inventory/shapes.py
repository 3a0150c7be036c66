"""What the path of a recording says of it where nothing else does (docs/reference/100ms-api.md,
"Documented path shapes")."""

from __future__ import annotations

import re

_ID = "[0-9a-f]{24}"
_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_DATE = "(?:[0-9]{8}|[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{4}-[A-Z][a-z]+-[0-9]{2})"
"""`20210721` in every real path seen; a guide has `2021-July-21`."""
_ROOM = f"(?P<room_id>{_ID})"
_SHAPES = {
    "room-composite": (
        rf"beam/{_ROOM}/{_DATE}/Rec-(?P=room_id)-[0-9]+\.mp4",
        rf"hls/{_ROOM}/{_DATE}/[0-9]+/file-recording/Rec-(?P=room_id)-[0-9]+-[^/]+\.mp4",
    ),
    "room-vod": (rf"hls/{_ROOM}/{_DATE}/[0-9]+/(?:hls-)?vod/Rec-(?P=room_id)-[0-9]+\.zip",),
    "chat": (rf"chat/{_ROOM}/{_DATE}/Rec-(?P=room_id)-[0-9]+\.csv",),
    "room-composite-legacy": (
        rf"{_ROOM}/{_DATE}/(?P<session_id>{_ID})/Rec-(?P=session_id)-[0-9]+\.mp4",
    ),
    "stream": (
        rf"{_ROOM}/{_DATE}/(?P<session_id>{_ID})/(?P<peer_id>{_UUID})/{_UUID}/{_UUID}\.mp4",
    ),
    "track": (
        rf"{_ROOM}/{_DATE}/(?P<session_id>{_ID})/(?P<peer_id>{_UUID})/{_UUID}/{_UUID}\.webm",
    ),
}
_PATTERNS = [
    (kind, re.compile(f"(?:^|/)({shape})$")) for kind, shapes in _SHAPES.items() for shape in shapes
]


def recognised(key: str) -> tuple[str, dict[str, str]] | None:
    """The documented part of a key, and what it says: type, room, session, peer; None for any other
    key.

    It says no more: `start_date` and `epoch` are when a recorder started, and not the asset's
    `created_at`, from which periods are counted.
    """
    for kind, pattern in _PATTERNS:
        if found := pattern.search(key):
            return found[1], {
                "type": kind,
                **{name: value for name, value in found.groupdict().items() if value},
            }
    return None
