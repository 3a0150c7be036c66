"""Fixtures: real servers (one of each per test process) and stores on them, each test under a
prefix of its own."""

from __future__ import annotations

import os
import signal
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import pytest
import servers
from botocore.exceptions import ClientError
from fault_proxy import FaultProxy
from gcs_standin import GcsStandIn
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from hypothesis import HealthCheck, settings

from retainer.demo.standin import StandIn
from retainer.model.setting import Store
from retainer.ports import StoreWriter
from retainer.stores.gcs import GcsWriter
from retainer.stores.local import LocalWriter
from retainer.stores.s3 import S3Writer
from retainer.stores.wire import Answer, Request

if TYPE_CHECKING:
    from project import Project

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts a job in the background so; what these tests start is to hear of Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile(
    "ci", deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
settings.load_profile("ci")

os.environ.update(
    AWS_ACCESS_KEY_ID=servers.ADMIN[0],
    AWS_SECRET_ACCESS_KEY=servers.ADMIN[1],
    AWS_EC2_METADATA_DISABLED="true",
    AWS_CONFIG_FILE="/dev/null",
    AWS_SHARED_CREDENTIALS_FILE="/dev/null",
    NO_COLOR="1",
)
for name in (
    "HMS_ACCESS_KEY",
    "HMS_SECRET",
    "HMS_MANAGEMENT_TOKEN",
    "AWS_ENDPOINT_URL",
    "STORAGE_EMULATOR_HOST",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
):
    os.environ.pop(name, None)

SHARED = Path(__file__).parents[2] / "shared"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test of whole commands, beside a stand-in for 100ms, takes seconds, and so does what is
    marked `sampled`: of its cases one runs by default, on another server from test to test, and the
    others run with what is slow."""
    cases = defaultdict(list)
    for item in items:
        if not hasattr(item, "callspec") or item.get_closest_marker("slow"):
            continue
        if "api" in getattr(item, "fixturenames", ()) or item.get_closest_marker("sampled"):
            cases[item.nodeid.partition("[")[0]].append(item)
    for test, some in cases.items():
        del some[crc32(test.encode()) % len(some)]
        for item in some:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def seaweedfs() -> Iterator[str]:
    with servers.seaweedfs() as endpoint:
        client = servers.s3_client(endpoint)
        client.create_bucket(Bucket="lab-plain")
        client.create_bucket(Bucket="lab-reports")
        client.create_bucket(Bucket="lab-versioned")
        client.put_bucket_versioning(
            Bucket="lab-versioned", VersioningConfiguration={"Status": "Enabled"}
        )
        yield endpoint


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    with servers.moto() as endpoint:
        client = servers.s3_client(endpoint)
        client.create_bucket(Bucket="lab-plain")
        client.create_bucket(Bucket="lab-versioned")
        client.put_bucket_versioning(
            Bucket="lab-versioned", VersioningConfiguration={"Status": "Enabled"}
        )
        yield endpoint


def _gcs_buckets(url: str) -> None:
    client = gcs_client(url)
    client.create_bucket("lab-plain")
    client.create_bucket("lab-reports")
    versioned = client.bucket("lab-versioned")
    versioned.versioning_enabled = True
    client.create_bucket(versioned)


def gcs_client(url: str) -> storage.Client:
    return storage.Client(
        project="test", credentials=AnonymousCredentials(), client_options={"api_endpoint": url}
    )


@pytest.fixture(scope="session")
def seaweedfs_as_aws(seaweedfs: str) -> Iterator[str]:
    with FaultProxy(seaweedfs, copies_as_aws=True) as proxy:
        yield proxy.url


@pytest.fixture(scope="session")
def fake_gcs() -> Iterator[str]:
    with servers.fake_gcs() as url:
        _gcs_buckets(url)
        yield url


@pytest.fixture(scope="session")
def strict_gcs() -> Iterator[GcsStandIn]:
    with GcsStandIn() as server:
        _gcs_buckets(server.url)
        yield server


@dataclass(frozen=True)
class Lab:
    """A store under test on a server, and what that server is known to honour."""

    server: str
    writer: StoreWriter
    endpoint: str
    lacks: frozenset[str]

    def needs(self, feature: str) -> None:
        """Skip the test where this server is known not to have what it is about."""
        if feature in self.lacks:
            pytest.skip(reason=f"{self.server} has no {feature}")


SERVERS: dict[str, frozenset[str]] = {
    "local": frozenset(
        {"versions", "server-side copies", "batch deletes", "checksums", "copies in one call"}
    ),
    "seaweedfs": frozenset({"copies in one call"}),
    "seaweedfs_as_aws": frozenset(),
    "moto": frozenset(
        {
            "server-side copies",
            "batch deletes",
            "checksums",
            "copies in one call",
            # 5.2.5 looks whether an object is there, and then writes: under load two creates win
            "creates in one step",
        }
    ),
    "strict_gcs": frozenset(),
    "fake_gcs": frozenset(
        {
            "batch deletes",
            "conditional deletes",
            "versions",
            "conditional reads",
            "conditional streamed uploads",
            "server-side copies",
            "copies in one call",
        }
    ),
}
"""Every server, and what it is known to lack (../shared/lab.md); everything else of the contract
must hold there."""


BY_HAND: dict[str, frozenset[str]] = {
    "ceph": frozenset(
        {
            "conditional deletes",
            "batch deletes",
            "checksums",
            "server-side copies",
            "copies in one call",
            "conditional streamed uploads",
        }
    ),
    "swift": frozenset(),
}
"""Servers that tests/by_hand/run.sh starts; on Swift nothing can be written."""
if by_hand := os.environ.get("LAB_SERVER"):
    SERVERS[by_hand] = BY_HAND[by_hand]


@pytest.fixture(scope="session")
def ceph() -> str:
    return _started_by_hand()


@pytest.fixture(scope="session")
def swift() -> str:
    return _started_by_hand()


def _started_by_hand() -> str:
    endpoint = os.environ["LAB_ENDPOINT"]
    client = servers.s3_client(endpoint)
    servers._ready(lambda: client.create_bucket(Bucket="lab-plain"))
    client.create_bucket(Bucket="lab-versioned")
    with suppress(ClientError):
        client.put_bucket_versioning(
            Bucket="lab-versioned", VersioningConfiguration={"Status": "Enabled"}
        )
    return endpoint


def make_store(
    server: str, endpoint: str, folder: Path, *, name: str = "lab", bucket: str = "lab-plain"
) -> Store:
    """A store of its own on a server: a fresh prefix, or a fresh folder."""
    prefix = f"t{uuid.uuid4().hex[:12]}"
    if server == "local":
        root = folder / prefix
        root.mkdir(parents=True)
        return Store(name, f"file://{root}")
    scheme = "gs" if server.endswith("gcs") else "s3"
    return Store(
        name,
        f"{scheme}://{bucket}/{prefix}",
        region="us-east-1" if scheme == "s3" else None,
        endpoint=endpoint,
    )


def make_writer(store: Store) -> StoreWriter:
    return {"file": LocalWriter, "s3": S3Writer, "gs": GcsWriter}[store.scheme](store)


def endpoint_of(server: str, request: pytest.FixtureRequest) -> str:
    if server == "local":
        return ""
    started = request.getfixturevalue(server)
    return started.url if isinstance(started, GcsStandIn) else str(started)


@pytest.fixture(params=SERVERS)
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Lab:
    server = request.param
    endpoint = endpoint_of(server, request)
    writer = make_writer(make_store(server, endpoint, tmp_path))
    return Lab(server, writer, endpoint, SERVERS[server])


@pytest.fixture
def api() -> Iterator[StandIn]:
    with StandIn() as server:
        yield server


@pytest.fixture
def local(tmp_path: Path, api: StandIn) -> Project:
    """A project whose stores are folders."""
    from project import make_project

    return make_project(tmp_path / "project", api, "local", "")


# ── what goes over the wire ─────────────────────────────────────────────────────────────────────


def operation_of(request: Request) -> str:
    """The name of an S3 call."""
    query = dict(request.query)
    copies = "x-amz-copy-source" in request.headers
    match request.method, query:
        case "PUT", {"partNumber": _}:
            return "UploadPartCopy" if copies else "UploadPart"
        case "PUT", _:
            return "CopyObject" if copies else "PutObject"
        case "POST", {"uploads": _}:
            return "CreateMultipartUpload"
        case "POST", {"uploadId": _}:
            return "CompleteMultipartUpload"
        case "POST", _:
            return "DeleteObjects"
    return request.method


def without(*names: str) -> Callable[[Request], Request]:
    """A request less these headers."""

    def less(request: Request) -> Request:
        left = {name: value for name, value in request.headers.items() if name not in names}
        return replace(request, headers=left)

    return less


def intercept(
    writer: Any, operation: str | None, change: Callable[[Request], Request | Answer]
) -> None:
    """Let calls of one kind (None: all) go through `change`: another call, or an answer in its
    place."""
    ask = writer.wire.ask

    def changed(request: Request) -> Answer:
        if operation not in (None, operation_of(request)):
            return ask(request)
        found = change(request)
        return found if isinstance(found, Answer) else ask(found)

    writer.wire.ask = changed
