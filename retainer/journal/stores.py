"""Which store lies where, as a state folder knows it: so that a disk that is not mounted is not
taken for an empty store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from retainer.errors import RetainerError
from retainer.whole import whole

KNOWN_STORES = "stores.json"


def known_stores(state: Path) -> dict[str, str]:
    """The identity of each store that was seen, by the place where it lies (`Store.place`). Raises
    RetainerError."""
    path = state / KNOWN_STORES
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not all(
            isinstance(value, str) for value in found.values()
        ):
            raise ValueError
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is damaged"
        raise RetainerError(
            f"{path} cannot be read: {reason}",
            hint="restore it; without it an unmounted disk looks like an empty store",
        ) from None
    return found


def remember_stores(state: Path, known: Mapping[str, str], seen: Mapping[str, str]) -> None:
    """Write down what was seen, where that is new. A state folder that cannot be written to is told
    by whoever must write there."""
    if all(known.get(place) == identity for place, identity in seen.items()):
        return
    with suppress(OSError), whole(state / KNOWN_STORES) as made:
        made.write_text(json.dumps({**known, **seen}, indent=1, sort_keys=True), encoding="utf-8")
