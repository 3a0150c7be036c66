"""The only place that names a concrete store or source. A new kind of store is one line here."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Set
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from retainer.errors import CredentialsRefused, RetainerError
from retainer.journal.backend import Backend, Reading
from retainer.journal.folder import FolderBackend
from retainer.journal.shared import SharedBackend, SharedReading
from retainer.model.setting import Settings, Store
from retainer.patience import BUDGET_SECONDS, Patience
from retainer.ports import Body, Downloads, InventoryReports, StoreReader, StoreWriter
from retainer.sources.api import Credentials, HmsApi, server_time
from retainer.stop import Stop


def patience_of(
    how_long: timedelta | None, stop: Stop, on_wait: Callable[[str], None] = lambda _: None
) -> Patience:
    """How long one call to 100ms or to a store is tried again at most (None: two minutes)."""
    seconds = how_long.total_seconds() if how_long else BUDGET_SECONDS
    return Patience(seconds, sleep=stop.pause, on_wait=on_wait)


def open_reader(
    store: Store, stop: Stop | None = None, patience: Patience | None = None
) -> StoreReader:
    """A store that can be looked at. The SDKs are imported late: `--help` needs none of them."""
    match store.scheme:
        case "s3" | "oss":
            from retainer.stores.s3 import S3Reader

            return S3Reader(store, stop, patience)
        case "gs":
            from retainer.stores.gcs import GcsReader

            return GcsReader(store, stop, patience)
        case _:
            from retainer.stores.local import LocalReader

            return LocalReader(store, stop, patience)


def open_reports(
    store: Store, stop: Stop | None = None, patience: Patience | None = None
) -> InventoryReports | None:
    """The reports that a store's bucket writes of itself; None where its settings name none."""
    place = store.reports
    if place is None:
        return None
    from retainer.sources.inventory_reports import BucketReports

    name = place.url.partition("://")[2]
    bucket = replace(place, name=name, url=f"{place.scheme}://{place.bucket}")
    return BucketReports(store, open_reader(bucket, stop, patience), place.prefix)


def open_writer(
    store: Store, stop: Stop | None = None, patience: Patience | None = None
) -> StoreWriter:
    """A store that can be changed; only `apply` asks for one."""
    match store.scheme:
        case "s3" | "oss":
            from retainer.stores.s3 import S3Writer

            return S3Writer(store, stop, patience)
        case "gs":
            from retainer.stores.gcs import GcsWriter

            return GcsWriter(store, stop, patience)
        case _:
            from retainer.stores.local import LocalWriter

            return LocalWriter(store, stop, patience)


def open_record(settings: Settings, folder: Path, stop: Stop, patience: Patience) -> Reading:
    """What was done, to be read: in the state folder, or in the store that has it."""
    if settings.shared is None:
        return FolderBackend(folder)
    store = open_reader(settings.shared, stop, patience)
    return SharedReading(folder, settings.record, store)


def open_backend(settings: Settings, folder: Path, stop: Stop, patience: Patience) -> Backend:
    """The same, to be written to."""
    if settings.shared is None:
        return FolderBackend(folder)
    store = open_writer(settings.shared, stop, patience)
    return SharedBackend(folder, settings.record, store)


def open_stores(
    settings: Settings, needed: Set[str], stop: Stop, patience: Patience
) -> dict[str, StoreWriter]:
    """Every declared store that can be opened. One that cannot fails only its own actions, unless
    nothing at all can be done."""
    opened: dict[str, StoreWriter] = {}
    failure: RetainerError | None = None
    for store in settings.stores:
        try:
            opened[store.name] = open_writer(store, stop, patience)
        except RetainerError as error:
            failure = error if store.name in needed else failure
    if failure is not None and not needed & opened.keys():
        raise failure
    return opened


def open_api(
    settings: Settings, stop: Stop | None = None, patience: Patience | None = None
) -> HmsApi:
    """The 100ms API with the credentials of the environment. Raises CredentialsRefused when there
    are none."""
    source = settings.source
    return HmsApi(
        source.url,
        credentials(),
        patience=patience,
        stop=stop,
        media_hosts=source.media_hosts,
        at_once=source.concurrency,
    )


def open_downloads(
    settings: Settings, stop: Stop, patience: Patience
) -> tuple[Downloads, Downloads]:
    """The bytes of what 100ms lists; without credentials each of them is refused, and what is
    copied from stores is not. And the same, which give up soon on what fails."""
    try:
        api = open_api(settings, stop, patience)
        return api, api.hasty()
    except RetainerError as error:
        return NoDownloads(error), NoDownloads(error)


def clock_of_100ms(settings: Settings) -> Callable[[], datetime]:
    """100ms's clock, which any answer tells, also one that refuses."""
    return partial(server_time, settings.source.url)


def credentials() -> Credentials:
    """HMS_ACCESS_KEY with HMS_SECRET, or HMS_MANAGEMENT_TOKEN; each may be given as a file by
    *_FILE."""
    key, secret, token = (
        _secret(name) for name in ("HMS_ACCESS_KEY", "HMS_SECRET", "HMS_MANAGEMENT_TOKEN")
    )
    if key and secret:
        return Credentials(access_key=key, secret=secret)
    if token:
        return Credentials(token=token)
    raise CredentialsRefused(
        "there are no credentials for the 100ms API",
        hint=(
            "set HMS_ACCESS_KEY and HMS_SECRET (or HMS_MANAGEMENT_TOKEN), or plan from a snapshot "
            "with --facts FILE"
        ),
    )


def _secret(name: str) -> str:
    if path := os.environ.get(f"{name}_FILE"):
        try:
            with Path(path).open(encoding="utf-8") as stream:
                return stream.read(64 << 10).strip()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise CredentialsRefused(
                f"{name}_FILE={path} cannot be read: {reason}",
                hint="it should hold the secret alone",
            ) from None
    return os.environ.get(name, "").strip()


class NoDownloads:
    """In place of the API where there are no credentials for it."""

    def __init__(self, why: RetainerError) -> None:
        self._why = why

    def open(self, asset_id: str) -> Body:
        raise self._why

    def open_beside(self, address: str) -> Body:
        raise self._why

    def room(self, room_id: str) -> Mapping[str, Any] | None:
        raise self._why

    def template(self, template_id: str) -> Mapping[str, Any] | None:
        raise self._why

    def has_more(self, asset_id: str, length: int) -> bool:
        raise self._why

    def may_lead(self, page: str, address: str) -> bool:
        raise self._why


def aws_regions() -> frozenset[str]:
    """The regions of S3, of every partition, as the installed botocore knows them."""
    from retainer.stores.s3_account import regions

    return regions()
