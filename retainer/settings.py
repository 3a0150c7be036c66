"""`retainer.yaml` -> Settings, found upward from the working directory."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from retainer.errors import PoliciesWrong
from retainer.git import git
from retainer.model.calendar import zone_named, zone_names
from retainer.model.period import Period
from retainer.model.price import Price
from retainer.model.printable import printable
from retainer.model.rule import Policies
from retainer.model.setting import (
    DEFAULT_LAYOUT,
    LAYOUT_100MS,
    RESERVED_STORES,
    SCHEMES,
    STATE,
    DeleteLimits,
    Settings,
    Source,
    Store,
)
from retainer.policy.diagnostics import Diagnostic, nearest
from retainer.policy.files import POLICY_FOLDER, policy_files
from retainer.policy.lint import load_policies
from retainer.policy.load import Document, load_file
from retainer.policy.parse import checked
from retainer.policy.schema import PlaceItem, SettingsFile

SETTINGS_FILE = "retainer.yaml"
_LOCAL = ".retainer"
"""Where a machine keeps its facts and caches when the record lies in a store."""
LONGEST_COOLING_DAYS = 400
"""So far back the record knows by which policies applies went (journal/ledger.py)."""
_LAYOUT_FIELDS = ("type", "yyyy", "mm", "dd", "room_id", "session_id", "asset_id", "filename")


_LOOKS_LIKE_SETTINGS = re.compile(r"(?i)retainer\.(ya?ml|json)(\.txt)?")


def uncommitted(root: Path) -> bool | None:
    """Whether settings or policies differ from those of the commit that their folder is at; None
    where it is in no repository."""
    status = git(root, "status", "--porcelain", "--", SETTINGS_FILE, POLICY_FOLDER)
    return None if status is None else bool(status)


def find_root(start: Path) -> Path | None:
    """The nearest folder upward that holds `retainer.yaml`, or None. What only looks like it ends
    the search: it would be passed over.

    Raises PoliciesWrong for that.
    """
    for folder in (start, *start.parents):
        if os.path.lexists(folder / SETTINGS_FILE):
            return folder
        try:
            alike = next(
                (
                    path
                    for path in sorted(folder.iterdir())
                    if _LOOKS_LIKE_SETTINGS.fullmatch(path.name)
                ),
                None,
            )
        except OSError:
            continue  # a folder above that may only be passed through
        if alike:
            raise PoliciesWrong(
                f"{alike} is not read: the settings are called {SETTINGS_FILE}",
                hint=f"rename it to {SETTINGS_FILE}",
            )
    return None


def load_settings(root: Path) -> tuple[Settings | None, list[Diagnostic]]:
    """The settings of a project, or None with everything that is wrong in them."""
    document, wrong = load_file(root / SETTINGS_FILE, SETTINGS_FILE)
    return _settings(document, wrong)


def state_above(start: Path) -> Path | None:
    """The state folder of the project that a folder lies in; None where there is none, or where its
    settings cannot be read. Raises PoliciesWrong, as `find_root`."""
    root = find_root(start)
    settings = load_settings(root)[0] if root else None
    return root / settings.state if root and settings else None


def _settings(
    document: Document, wrong: list[Diagnostic]
) -> tuple[Settings | None, list[Diagnostic]]:
    if document.data is None:
        return None, wrong
    file, more = checked(document, SettingsFile)
    wrong = [*wrong, *more]
    if file is None:
        return None, wrong
    shared = _shared(file.state)
    settings = Settings(
        stores=tuple(
            replace(
                _place(name, item),
                layout=item.layout,
                layouts=tuple(
                    dict.fromkeys(
                        [*item.layouts, *([DEFAULT_LAYOUT] if item.layout != LAYOUT_100MS else [])]
                    )
                ),
                storage_class=item.storage_class,
                storage_class_from=item.storage_class_from,
                kms_key=item.kms_key,
                tags=tuple(item.tags.items()),
                cache_control=item.cache_control,
                lock=item.lock,
                may_be_emptied=item.may_be_emptied,
                inventory=item.listing.inventory.rstrip("/") if item.listing.inventory else None,
            )
            for name, item in file.stores.items()
        ),
        source=Source(
            file.source.url.rstrip("/"),
            tuple(file.source.hosted),
            file.source.allow_http,
            tuple(host.lower() for host in file.source.media_hosts),
            file.source.concurrency,
        ),
        timezone=file.timezone,
        limits=DeleteLimits(
            file.limits.deletes.count,
            file.limits.deletes.percent,
            file.limits.deletes.bytes,
            file.limits.deletes.last_copies,
            file.limits.disappeared,
        ),
        second_person=file.limits.second_person,
        cooling=timedelta(hours=_hours(file.limits.cooling)) if file.limits.cooling else None,
        plan_age_hours=_hours(file.limits.plan_age),
        state=_LOCAL if shared else str(file.state),
        shared=shared,
        prices=tuple(
            (name, Price(each.storage, each.put, each.retrieval, each.egress, each.least_days))
            for name, each in file.prices.items()
        ),
    )
    if file.limits.plan_age.forever:
        wrong.append(
            document.complain(
                "P208", ("limits", "plan_age"), "a plan cannot last for ever", "the default is 24h"
            )
        )
    cooling = file.limits.cooling
    if cooling and (cooling.forever or _hours(cooling) > 24 * LONGEST_COOLING_DAYS):
        said = f"earlier policies are remembered for {LONGEST_COOLING_DAYS} days at the most"
        wrong.append(document.complain("P208", ("limits", "cooling"), said, "such as 30d"))
    wrong += list(_mistakes(document, settings))
    return settings, wrong


def _shared(state: str | PlaceItem) -> Store | None:
    """The place that several machines keep their record in; None where `state:` names a folder."""
    if isinstance(state, PlaceItem):
        return _place(STATE, state)
    return _place(STATE, PlaceItem(url=state)) if "://" in state else None


def _place(name: str, item: PlaceItem) -> Store:
    """Where something lies, and the way there."""
    return Store(
        name=name,
        url=item.url.rstrip("/") if not re.fullmatch(r"file:/*", item.url) else item.url,
        region=item.region,
        endpoint=item.endpoint.rstrip("/") if item.endpoint else None,
        addressing=item.addressing,
        profile=item.profile,
        role_arn=item.role_arn,
        impersonate=item.impersonate,
        concurrency=item.concurrency,
    )


def _hours(age: Period) -> float:
    """A plan's age in hours; a month counts as 30 days here. One without an end, which is a
    mistake, as a day."""
    return 24.0 if age.forever else age.seconds / 3600 + age.days * 24.0 + age.months * 720.0


def load_project(root: Path) -> tuple[Settings, Policies, list[Diagnostic]]:
    """Settings and policies of a project, with every mistake of every file; check those before
    using the rest."""
    document, wrong = load_file(root / SETTINGS_FILE, SETTINGS_FILE)
    settings, wrong = _settings(document, wrong)
    stores = _declared(document)
    usable = settings if settings and not any(item.code == "S305" for item in wrong) else Settings()
    locking = frozenset(store.name for store in usable.stores if store.lock)
    policies, mistakes = load_policies(root, policy_files(root), usable.timezone, stores, locking)
    return settings or Settings(), policies, wrong + mistakes


def _declared(document: Document) -> frozenset[str] | None:
    """The names of the stores, whatever is wrong with them; None where nothing could be read."""
    declared = document.data.get("stores") if isinstance(document.data, dict) else None
    return (
        frozenset(map(str, declared))
        if isinstance(declared, dict)
        else (frozenset() if document.data is not None else None)
    )


def _mistakes(document: Document, settings: Settings) -> Iterator[Diagnostic]:
    try:
        zone_named(settings.timezone)
    except ValueError:
        close = nearest(settings.timezone, zone_names())
        hint = f"did you mean `{close}`?" if close else "IANA names, such as Europe/Berlin"
        yield document.complain(
            "S305", ("timezone",), f"`{settings.timezone}` is not a time zone", hint
        )
    try:
        address = urlsplit(settings.source.url)
        is_address = (
            address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
        )
        is_address = is_address and not re.search(r"\s", settings.source.url)
    except ValueError:
        address, is_address = urlsplit(""), False
    yield from _shared_mistakes(document, settings)
    state = Path(os.path.normpath(settings.state.replace("\0", "")))
    if re.match(r"[A-Za-z0-9+.-]+:", settings.state):
        yield document.complain(
            "S311",
            ("state",),
            f"`{printable(settings.state)}` is neither a folder nor a place that machines share",
            "s3://bucket/prefix, gs://…, file:///folder, or a folder such as .retainer",
        )
    elif (
        "\0" in settings.state or not settings.state.strip() or state.parts[:1] == (POLICY_FOLDER,)
    ):
        yield document.complain(
            "S311",
            ("state",),
            f"`{printable(settings.state)}` is no folder for the record",
            "the default is .retainer",
        )
    if not is_address:
        yield document.complain(
            "S310",
            ("source", "url"),
            f"`{settings.source.url}` is no address of a server",
            "the default is https://api.100ms.live/v2",
        )
    elif (
        address.scheme == "http"
        and not settings.source.allow_http
        and not is_loopback(address.hostname or "")
    ):
        message = (
            "over http:// anybody on the way reads the token, and can answer in place of 100ms"
        )
        yield document.complain(
            "S310",
            ("source", "url"),
            message,
            "write https://, or add `allow_http: true` beside it",
        )
    for store in settings.stores:
        if store.endpoint and (reason := _endpoint_mistake(store.endpoint)):
            yield document.complain(
                "S303",
                ("stores", store.name, "endpoint"),
                f"`{store.endpoint}` {reason}",
                "such as https://s3.example.com",
            )
        if store.region and not re.fullmatch(r"[A-Za-z0-9-]{1,63}", store.region):
            yield document.complain(
                "S303",
                ("stores", store.name, "region"),
                f"`{store.region}` is no region",
                "such as eu-west-1",
            )
    for number, pattern in enumerate(settings.source.hosted):
        if not re.fullmatch(r"[a-z0-9]+://[^/]+/?", pattern):
            message = f"`{pattern}` names no bucket, so it would never match"
            yield document.complain(
                "S308",
                ("source", "hosted", number),
                message,
                "write scheme and bucket alone, such as s3://hms-prod-*",
            )
    for number, host in enumerate(settings.source.media_hosts):
        if not re.fullmatch(r"[a-z0-9.*?\[\]_:-]*[a-z0-9\]]", host) or host.strip("*?.") == "":
            yield document.complain(
                "S308",
                ("source", "media_hosts", number),
                f"`{host}` is no host, so it would never match",
                "write the host alone, such as cdn.example.com or *.example.com",
            )
    names = [store.name for store in settings.stores]
    for name, _ in settings.prices:
        if name not in names:
            close = nearest(name, names)
            yield document.complain(
                "S312",
                ("prices", name),
                f"`{name}` is not a declared store",
                f"did you mean `{close}`?" if close else "prices are written by a store's name",
                key=True,
            )
    sound = []
    for store in settings.stores:
        here = ("stores", store.name)
        if store.name in RESERVED_STORES:
            yield document.complain(
                "P210",
                here,
                f"`{store.name}` is not a name for a store",
                "give it another name",
                key=True,
            )
        if reason := _url_mistake(store):
            yield document.complain(
                "S303",
                (*here, "url"),
                f"`{store.url}` {reason}",
                "s3://bucket/prefix, gs://… or file:///folder",
            )
        else:
            sound.append(store)
            for key, reason in _cannot(store):
                yield document.complain("S309", (*here, key), reason, key=True)
        for number, layout in enumerate((store.layout, *store.layouts)):
            place = (*here, "layout") if number == 0 else (*here, "layouts", number - 1)
            if layout == LAYOUT_100MS and number == 0:
                continue
            fields = re.findall(r"\{([^}]*)\}", layout)
            if "asset_id" not in fields:
                yield document.complain(
                    "S304",
                    place,
                    "the layout does not contain {asset_id}",
                    f"the default is {DEFAULT_LAYOUT}",
                )
            if set(re.sub(r"\{[^{}]*\}", "", layout)) & set("{}"):
                yield document.complain(
                    "S304",
                    place,
                    "the layout has a brace that is not closed",
                    f"the default is {DEFAULT_LAYOUT}",
                )
            for field in fields:
                if field not in _LAYOUT_FIELDS:
                    close = nearest(field, _LAYOUT_FIELDS)
                    yield document.complain(
                        "S304",
                        place,
                        f"`{{{field}}}` is not a field",
                        f"did you mean `{{{close}}}`?" if close else None,
                    )
            if (
                layout.startswith(("/", "_retainer"))
                or "//" in layout
                or ".." in layout.split("/")
                or layout.endswith("/")
            ):
                yield document.complain(
                    "S304",
                    place,
                    "the layout is not a plain relative key",
                    f"the default is {DEFAULT_LAYOUT}",
                )
    for number, store in enumerate(sound):
        for other in sound[:number]:
            if _overlap(store, other):
                message = f"`{store.name}` and `{other.name}` lie inside one another"
                yield document.complain(
                    "S301", ("stores", store.name, "url"), message, "give each a prefix of its own"
                )
        if store.reports and not _reports_mistake(store, store.reports):
            for other in (each for each in sound if _overlap(each, store.reports)):
                message = f"the reports of `{store.name}` lie in `{other.name}`, as its objects"
                yield document.complain(
                    "S301",
                    ("stores", store.name, "listing", "inventory"),
                    message,
                    "give them a place of their own",
                )
        for pattern in settings.source.hosted:
            if _fits(f"{store.scheme}://{store.bucket}", pattern):
                message = (
                    f"`{store.name}` lies in a bucket that `source.hosted` declares as 100ms's own"
                )
                yield document.complain("S302", ("stores", store.name, "url"), message)


def _shared_mistakes(document: Document, settings: Settings) -> Iterator[Diagnostic]:
    """What is wrong with a place that several machines keep their record in."""
    shared = settings.shared
    if shared is None:
        return
    reason = _url_mistake(shared) or (_endpoint_mistake(shared.endpoint) if shared.endpoint else "")
    if reason:
        yield document.complain(
            "S311", ("state",), f"`{printable(shared.url)}` {reason}", "such as s3://bucket/prefix"
        )
        return
    for store in settings.stores:
        if not _url_mistake(store) and _overlap(store, shared):
            yield document.complain(
                "S311",
                ("state",),
                f"the record and `{store.name}` lie inside one another",
                "give the record a prefix, or a bucket, of its own",
            )
        if store.name == STATE:
            yield document.complain(
                "P210",
                ("stores", STATE),
                f"`{STATE}` is what the place of the record is called",
                "give this store another name",
                key=True,
            )


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    return host in ("localhost", "::1") or bool(re.fullmatch(r"127(\.[0-9]{1,3}){3}", host))


def _endpoint_mistake(endpoint: str) -> str | None:
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or any(letter.isspace() or not letter.isprintable() for letter in endpoint):
        return "is no http or https address"
    return (
        "has a user, a password or a query"
        if "@" in parts.netloc or parts.query or parts.fragment
        else None
    )


def _url_mistake(store: Store) -> str | None:
    if store.url.startswith("azure://"):
        return "cannot be declared: what lies in Azure is read through 100ms"
    if not store.url.startswith(SCHEMES):
        return "has no scheme that retainer knows"
    if store.scheme == "oss" and not store.endpoint:
        return "needs an `endpoint`, such as https://oss-ap-south-1.aliyuncs.com"
    if not store.url.isprintable() or "?" in store.url or "#" in store.url:
        return "has a query, a fragment or a control character"
    try:
        parts = urlsplit(store.url)
    except ValueError:
        return "is not a url"
    if parts.query or parts.fragment or "@" in parts.netloc:
        return "has a query, a user or a password"
    if any(piece in (".", "..") for piece in parts.path.split("/")) or "//" in parts.path:
        return "has `.`, `..` or `//` in its path"
    if parts.scheme == "file":
        return (
            None
            if not parts.netloc and parts.path.strip("/")
            else "is not an absolute folder (three slashes: file:///folder)"
        )
    return (
        None
        if re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", parts.netloc)
        else "has no valid bucket name"
    )


def _cannot(store: Store) -> Iterator[tuple[str, str]]:
    """Settings that this kind of store does not have, and why."""
    written = {
        "storage_class": store.storage_class,
        "kms_key": store.kms_key,
        "tags": store.tags,
        "cache_control": store.cache_control,
        "lock": store.lock,
    }
    for key in (key for key, value in written.items() if value):
        if store.written_by_100ms:
            yield (
                key,
                f"100ms writes to `{store.name}`, retainer does not: `{key}` would never apply",
            )
        elif store.scheme == "file":
            yield key, f"a folder has no `{key}`"
        elif store.scheme == "gs" and key == "tags":
            yield key, "objects of Google Cloud Storage have no tags"
    of_aws = {"addressing": store.addressing, "profile": store.profile, "role_arn": store.role_arn}
    if store.scheme not in ("s3", "oss"):
        yield from ((key, f"only s3:// and oss:// have `{key}`") for key in of_aws if of_aws[key])
    if store.scheme != "gs" and store.impersonate:
        yield "impersonate", "only gs:// has `impersonate`"
    if store.reports and (reason := _reports_mistake(store, store.reports)):
        yield "listing", reason
    if store.scheme == "file" and store.concurrency:
        yield "concurrency", "a folder has no `concurrency`"
    if wrong := [
        text
        for pair in store.tags
        for text in pair
        if not re.fullmatch(r"[\w\s+\-=.:/@]{0,256}", text)
    ]:
        yield (
            "tags",
            f"`{wrong[0]}` is no text that a tag of S3 can have (letters, digits, spaces and + - = "
            ". _ : / @)",
        )


def _reports_mistake(store: Store, reports: Store) -> str | None:
    """Why no report of this store's bucket can lie where its settings say; None where it can."""
    place = printable(reports.url)
    if store.scheme not in ("s3", "gs"):
        return f"only s3:// and gs:// have reports, `{store.name}` is {store.scheme}://"
    if reports.scheme != store.scheme:
        return f"`{place}` is no place for reports: {store.scheme}://bucket/folder"
    if reason := _url_mistake(reports):
        return f"`{place}` {reason}"
    if not reports.prefix:
        return f"`{place}` names no folder: {store.scheme}://bucket/folder"
    return None


def _overlap(one: Store, other: Store) -> bool:
    """Whether two stores lie inside one another, however their urls are spelt: by links, mounts,
    ports and names of one server."""
    if one.scheme == other.scheme == "file":
        here, there = _ways(one.prefix), _ways(other.prefix)
        return here[0] in there or there[0] in here
    return one.place.startswith(other.place) or other.place.startswith(one.place)


def _ways(folder: str) -> list[tuple[int, int] | str]:
    """A folder and those that it lies in, from the inside out: by device and inode where they
    exist, so that a bind mount is seen too."""
    real = Path(os.path.realpath(folder))
    found: list[tuple[int, int] | str] = []
    for path in (real, *real.parents):
        try:
            stat = path.stat()
            found.append((stat.st_dev, stat.st_ino))
        except OSError:
            found.append(str(path))
    return found


def _fits(bucket: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(bucket, pattern.rstrip("/"))
