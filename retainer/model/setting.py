"""What `retainer.yaml` says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

HOSTED = "hosted"
ELSEWHERE = "elsewhere"
RESERVED_STORES = (HOSTED, ELSEWHERE)

LAYOUT_100MS = "100ms"
DEFAULT_LAYOUT = "{type}/{yyyy}/{mm}/{dd}/{room_id}/{asset_id}/{filename}"
OWN_PREFIX = "_retainer/"
"""What retainer keeps for itself in a store: the catalog, the lock, probes."""

LAPSE_DAYS = 15
"""100ms deletes what it hosts 15 days after `created_at` (100ms-api.md)."""


@dataclass(frozen=True, slots=True)
class Store:
    """A declared place. `url` is `s3://bucket/prefix`, `gs://bucket/prefix` or `file:///folder`, without a slash at the end."""

    name: str
    url: str
    layout: str = DEFAULT_LAYOUT
    layouts: tuple[str, ...] = ()
    region: str | None = None
    endpoint: str | None = None
    storage_class: str | None = None

    @property
    def scheme(self) -> str:
        return self.url.split("://", 1)[0]

    @property
    def bucket(self) -> str:
        return "" if self.scheme == "file" else self.url.split("://", 1)[1].split("/", 1)[0]

    @property
    def prefix(self) -> str:
        """The key prefix inside the bucket: empty, or with a slash at its end. For `file` the folder itself."""
        rest = self.url.split("://", 1)[1]
        inside = rest if self.scheme == "file" else rest.partition("/")[2]
        return inside.rstrip("/") + "/" if inside.strip("/") else ""

    @property
    def base(self) -> str:
        """What every `path` that lies in this store begins with."""
        return f"{self.url}/"

    @property
    def written_by_100ms(self) -> bool:
        return self.layout == LAYOUT_100MS


@dataclass(frozen=True, slots=True)
class DeleteLimits:
    """What one plan may delete: per store and per rule, with the last 24 hours of the journal. `bytes` in bytes."""

    count: int = 500
    percent: float = 10.0
    bytes: int = 100_000_000_000


@dataclass(frozen=True, slots=True)
class Source:
    """The 100ms API and the buckets that are 100ms's own (patterns over `scheme://bucket`)."""

    url: str = "https://api.100ms.live/v2"
    hosted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    stores: tuple[Store, ...] = ()
    source: Source = Source()
    timezone: str = "UTC"
    limits: DeleteLimits = field(default_factory=DeleteLimits)
    plan_age_hours: float = 24.0
    state: str = ".retainer"

    def store(self, name: str) -> Store | None:
        return next((store for store in self.stores if store.name == name), None)


CloudKind = Literal["s3", "gs", "file"]
