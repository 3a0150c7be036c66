"""Which store this is, whatever it is called and wherever it is mounted: `_retainer/store.json`."""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass

from retainer.model.setting import OWN_PREFIX

IDENTITY_KEY = f"{OWN_PREFIX}store.json"
IDENTITY_BYTES = 64 << 10
"""An identity is at most so long."""
_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Identity:
    """A store's random id, made with its first write, and 100ms's id of the workspace whose
    recordings lie in it, once one was seen."""

    id: str
    customer: str | None = None

    @staticmethod
    def new(customer: str | None) -> Identity:
        return Identity(uuid.uuid4().hex, customer)

    @staticmethod
    def read(content: bytes) -> Identity:
        """Raises ValueError when it is damaged."""
        try:
            value = json.loads(content)
        except RecursionError:
            raise ValueError("nested too deep") from None
        if (
            not isinstance(value, dict)
            or not isinstance(value.get("id"), str)
            or not _ID.fullmatch(value["id"])
        ):
            raise ValueError("it names no id")
        customer = value.get("customer_id")
        return Identity(value["id"], customer if isinstance(customer, str) and customer else None)

    def write(self) -> bytes:
        about = (
            "retainer made this when it first wrote here: it tells this store from every "
            "other. Do not change it, and copy it nowhere."
        )
        return (
            json.dumps(
                {"id": self.id, "customer_id": self.customer, "about": about}, indent=1
            ).encode()
            + b"\n"
        )
