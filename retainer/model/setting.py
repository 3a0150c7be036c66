"""What `retainer.yaml` says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Literal
from urllib.parse import urlsplit

from retainer.model.price import PRICES, STANDARD, Price

HOSTED = "hosted"
ELSEWHERE = "elsewhere"
RESERVED_STORES = (HOSTED, ELSEWHERE)
STATE = "state"
"""What the store is called in which several machines keep their record."""

LAYOUT_100MS = "100ms"
DEFAULT_LAYOUT = "{type}/{yyyy}/{mm}/{dd}/{room_id}/{asset_id}/{filename}"
OWN_PREFIX = "_retainer/"
"""What retainer keeps for itself in a store: the catalog, the lock, probes."""
MANIFEST = "manifest.json"
"""What a copy of many objects ends with, in its folder."""

SCHEMES = ("s3://", "oss://", "gs://", "file://")
"""How the url of a store begins; 100ms names other clouds too (100ms-api.md)."""
NO_PATH = "(no path)"
"""Stands for the bucket of a recording that has none."""
LAPSE_DAYS = 15
"""100ms deletes what it hosts 15 days after `created_at` (100ms-api.md)."""


ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")
"""Classes of S3 from which nothing can be read at once."""
Lock = Literal["governance", "compliance"]
"""Whether someone with the right to can take a lock back, or nobody can."""


@dataclass(frozen=True, slots=True)
class Store:
    """A declared place. `url` is `s3://bucket/prefix`, `oss://…`, `gs://…` or `file:///folder`,
    without a slash at the end.

    At most `concurrency` calls are made to it at once. Objects of fewer than `storage_class_from`
    bytes stay in the standard class: AWS bills the colder ones as if they had 128 KiB. With a
    `lock`, every copy is locked until its keep is over. What `may_be_emptied` is limited by `count`
    and `bytes` alone.
    """

    name: str
    url: str
    layout: str = DEFAULT_LAYOUT
    layouts: tuple[str, ...] = ()
    region: str | None = None
    endpoint: str | None = None
    addressing: Literal["virtual", "path"] | None = None
    profile: str | None = None
    role_arn: str | None = None
    impersonate: str | None = None
    concurrency: int | None = None
    storage_class: str | None = None
    storage_class_from: int = 128 << 10
    kms_key: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    cache_control: str | None = None
    lock: Lock | None = None
    may_be_emptied: bool = False
    inventory: str | None = None
    """Where its bucket's own reports lie, which are read in place of a list."""

    def class_of(self, key: str, size: int) -> str | None:
        """The storage class for an object of so many bytes; None: the bucket's own, as for all that
        must be readable at once."""
        ours = key.startswith(OWN_PREFIX) or key.endswith(f"/{MANIFEST}")
        return self.storage_class if size >= self.storage_class_from and not ours else None

    @property
    def scheme(self) -> str:
        return self.url.split("://", 1)[0]

    @property
    def bucket(self) -> str:
        return "" if self.scheme == "file" else self.url.split("://", 1)[1].split("/", 1)[0]

    @property
    def prefix(self) -> str:
        """The key prefix inside the bucket: empty, or with a slash at its end. For `file` the
        folder itself."""
        rest = self.url.split("://", 1)[1]
        inside = rest if self.scheme == "file" else rest.partition("/")[2]
        return inside.rstrip("/") + "/" if inside.strip("/") else ""

    @property
    def base(self) -> str:
        """What every `path` that lies in this store begins with."""
        return f"{self.url}/"

    @property
    def place(self) -> str:
        """Where the store lies, spelt in one way: the same for two urls that certainly lead to one
        place."""
        if self.scheme == "file":
            return f"file://{self.prefix}"
        return f"{self.scheme}://{_host(self.scheme, self.endpoint)}/{self.bucket}/{self.prefix}"

    @property
    def reports(self) -> Store | None:
        """The place that its bucket's own reports lie in, by the way that leads to the store; None
        where its settings name none."""
        return replace(self, url=self.inventory) if self.inventory else None

    @property
    def written_by_100ms(self) -> bool:
        return self.layout == LAYOUT_100MS


_AWS = re.compile(r"([a-z0-9.-]+\.)?s3([.-][a-z0-9-]+)*\.amazonaws\.com(\.cn)?")


def _host(scheme: str, endpoint: str | None) -> str:
    """The server of an endpoint: in small letters, without a port that goes without saying, and
    each cloud by one name."""
    if endpoint is None:
        return {"s3": "aws", "gs": "google"}.get(scheme, "")
    parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
    try:
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return endpoint
    if scheme == "s3" and _AWS.fullmatch(host):
        return "aws"
    if scheme == "gs" and host == "storage.googleapis.com":
        return "google"
    if host in ("localhost", "::1") or host.startswith("127."):
        host = "localhost"
    return host if port in (None, 80, 443) else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class DeleteLimits:
    """What one plan may delete: per store and per rule, with the last 24 hours of the journal.
    `bytes` in bytes."""

    count: int = 500
    percent: float = 10.0
    bytes: int = 100_000_000_000
    last_copies: int = 0
    """So many last copies one plan may delete by a rule that only says `delete:`, which does not
    say that the recording is to end."""
    disappeared: float = 50.0
    """A list in which more percent of what the last run saw is missing counts as unfinished."""


MEDIA_HOSTS = ("cdn.100ms.live", "media-cdn-in3.100ms.live", "sh-cdn-in3.100ms.live")
"""From where 100ms was seen to serve VOD (docs/reference/100ms-api.md, "Where the bytes are")."""


CALLS_AT_ONCE = 16
"""To 100ms, those for the bytes of recordings aside."""


@dataclass(frozen=True, slots=True)
class Source:
    """The 100ms API and the buckets that are 100ms's own (patterns over `scheme://bucket`)."""

    url: str = "https://api.100ms.live/v2"
    hosted: tuple[str, ...] = ()
    allow_http: bool = False
    """Whether the API may be asked without TLS, other than on this machine."""
    media_hosts: tuple[str, ...] = MEDIA_HOSTS
    """Patterns of hosts that the playlists of a hosted recording may lead to, beside its own."""
    concurrency: int = CALLS_AT_ONCE
    """At most so many calls of the API at once."""


@dataclass(frozen=True, slots=True)
class Settings:
    stores: tuple[Store, ...] = ()
    source: Source = Source()
    timezone: str = "UTC"
    limits: DeleteLimits = field(default_factory=DeleteLimits)
    second_person: bool = False
    """Whether deletes want an approval that somebody else has signed."""
    cooling: timedelta | None = None
    """So long a keep still counts as it was, once it is shortened or gone."""
    plan_age_hours: float = 24.0
    state: str = ".retainer"
    """The folder of what this machine keeps for itself, and of the record where nobody shares
    it."""
    shared: Store | None = None
    """Where the record lies that several machines share."""
    prices: tuple[tuple[str, Price], ...] = ()
    """What people wrote of a store, by its name."""

    @property
    def record(self) -> str:
        """Where the record lies, for people."""
        return self.shared.url if self.shared else self.state

    @property
    def places(self) -> dict[str, str]:
        """Where each store lies (`Store.place`), by its name."""
        return {store.name: store.place for store in self.stores}

    @property
    def may_be_emptied(self) -> frozenset[str]:
        """The stores whose emptying needs nobody's word."""
        return frozenset(store.name for store in self.stores if store.may_be_emptied)

    def identities(self, known: Mapping[str, str]) -> dict[str, str]:
        """The identity of each store whose place has one; `known`: by places."""
        return {name: known[place] for name, place in self.places.items() if place in known}

    def price(self, store: Store, storage_class: str | None = None) -> Price | None:
        """What a store costs, as people wrote it, else by the list for a class (its own, without
        one); None where no list says: a folder, or a server with an `endpoint`."""
        own = dict(self.prices).get(store.name)
        if own or store.endpoint:
            return own
        wanted = storage_class or store.storage_class or STANDARD
        return PRICES.get(store.scheme, {}).get(wanted)

    def store(self, name: str) -> Store | None:
        return next((store for store in self.stores if store.name == name), None)
