"""An HTTP proxy that stands in front of a store and spoils what it is told to spoil; everything
else goes through byte for byte.

But for CopyObject, where it is asked for: SeaweedFS lets the copy have the checksum of its source,
whatever kind it is asked for. AWS computes that kind of what it wrote. The proxy does so by means
of a copy in parts, of which SeaweedFS computes checksums too.
"""

from __future__ import annotations

import http.client
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import unquote

import servers
from botocore.exceptions import ClientError

from retainer.demo.standin import ALWAYS

_HOP = {"connection", "keep-alive", "transfer-encoding", "expect"}
ERROR = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{}</Code><Message>made by a '
    "fault</Message></Error>"
)
CODES = {
    400: "InvalidRequest",
    403: "AccessDenied",
    404: "NoSuchBucket",
    409: "ConditionalRequestConflict",
    412: "PreconditionFailed",
    429: "TooManyRequests",
    500: "InternalError",
    503: "SlowDown",
    507: "InsufficientStorage",
}


@dataclass
class Fault:
    """What becomes of the first `times` requests of this method in whose path and query the pattern
    `part` is found."""

    method: str
    part: str
    times: int = ALWAYS
    skip: int = 0
    """So many of them, the first ones, go through."""
    status: int | None = None
    """The proxy refuses with it; the store never hears of the request."""
    body: bytes | None = None
    """The proxy answers 200 with it; the store never hears of the request."""
    instead: bytes | None = None
    """The store's own answer, but for its body."""
    delay: float = 0.0
    """Seconds between the store's answer and its passing on."""
    cut: int | None = None
    """The store has done what was asked, but of its answer's body only so many bytes pass on; -1:
    not even the status."""
    seen: int = 0


class FaultProxy:
    """Runs from `up` to `down`; in between, and again after another `up`, it has the same port."""

    def __init__(self, store: str, *, copies_as_aws: bool = False) -> None:
        self.store = store.removeprefix("http://")
        self.refuses: Callable[[str, str, Mapping[str, str]], tuple[int, str] | None] = (
            lambda method, path, headers: None
        )
        """Status and code for what this store does not know; the names of headers are in small
        letters."""
        self.copies = servers.s3_client(store) if copies_as_aws else None
        self.faults: list[Fault] = []
        self.struck: set[str] = set()
        """The parts of the faults that struck."""
        self._guard = threading.Lock()
        self._port = 0
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def up(self) -> None:
        if self._server is None:
            self._server = _Server(("127.0.0.1", self._port), self)
            self._port = self._server.server_address[1]
            threading.Thread(
                target=self._server.serve_forever, args=(0.01,), daemon=True, name="fault-proxy"
            ).start()

    def down(self) -> None:
        """From now on connections are refused."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def strike(self, method: str, target: str) -> Fault | None:
        with self._guard:
            for fault in self.faults:
                if fault.method == method and re.search(fault.part, target):
                    fault.seen += 1
                    if fault.skip < fault.seen <= fault.skip + fault.times:
                        self.struck.add(fault.part)
                        return fault
        return None


class _Server(ThreadingHTTPServer):
    request_queue_size = 64
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], proxy: FaultProxy) -> None:
        self.proxy = proxy
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that hung up


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: Any) -> None:
        pass

    def _pass_on(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        told = {name.lower(): value for name, value in self.headers.items()}
        if refused := self.server.proxy.refuses(self.command, self.path, told):
            body = ERROR.format(refused[1]).encode()
            self._answer(refused[0], [("Content-Type", "application/xml")], body)
            return
        fault = self.server.proxy.strike(self.command, self.path)
        if fault and (fault.status or fault.body is not None):
            body = ERROR.format(CODES[fault.status]).encode() if fault.status else fault.body or b""
            self._answer(fault.status or 200, [("Content-Type", "application/xml")], body)
            return
        if (
            self.server.proxy.copies
            and "x-amz-copy-source" in self.headers
            and "partNumber" not in self.path
        ):
            status, body = copied_as_aws(
                self.server.proxy.copies, unquote(self.path.partition("?")[0]), self.headers
            )
            self._answer(
                status, [("Content-Type", "application/xml")], body, fault.cut if fault else None
            )
            return
        store = http.client.HTTPConnection(self.server.proxy.store, timeout=60)
        store.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _HOP:
                store.putheader(name, value)
        store.endheaders(sent or None)
        came = store.getresponse()
        body = came.read()
        store.close()
        if fault and fault.instead is not None:
            body = fault.instead
        if fault and fault.delay:
            time.sleep(fault.delay)
        self._answer(came.status, came.getheaders(), body, fault.cut if fault else None)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on

    def _answer(
        self, status: int, headers: list[tuple[str, str]], body: bytes, cut: int | None = None
    ) -> None:
        if cut != -1:
            self.send_response_only(status)
            told = dict((name.lower(), value) for name, value in headers)
            for name, value in headers:
                if name.lower() not in _HOP | {"content-length"}:
                    self.send_header(name, value)
            self.send_header(
                "Content-Length",
                told.get("content-length", "0") if self.command == "HEAD" else str(len(body)),
            )
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)


def copied_as_aws(client: Any, path: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
    """What AWS would do and answer: both conditions, and a checksum of the asked-for kind of what
    was written."""
    (bucket, key), (source, origin) = (
        path[1:].split("/", 1),
        unquote(headers["x-amz-copy-source"]).lstrip("/").split("/", 1),
    )
    place = {"Bucket": bucket, "Key": key}
    metadata = {
        name.lower().removeprefix("x-amz-meta-"): value
        for name, value in headers.items()
        if name.lower().startswith("x-amz-meta-")
    }
    condition = (
        {"CopySourceIfMatch": headers["x-amz-copy-source-if-match"]}
        if "x-amz-copy-source-if-match" in headers
        else {}
    )
    only = {"IfNoneMatch": headers["if-none-match"]} if "if-none-match" in headers else {}
    try:
        upload = place | {
            "UploadId": client.create_multipart_upload(
                **place,
                Metadata=metadata,
                ContentType=headers.get("Content-Type", "binary/octet-stream"),
                ChecksumAlgorithm=headers["x-amz-checksum-algorithm"],
                ChecksumType="FULL_OBJECT",
            )["UploadId"]
        }
        try:
            part = client.upload_part_copy(
                **upload, PartNumber=1, CopySource={"Bucket": source, "Key": origin}, **condition
            )["CopyPartResult"]
            parts = [
                {"PartNumber": 1}
                | {name: value for name, value in part.items() if name != "LastModified"}
            ]
            done = client.complete_multipart_upload(
                **upload, MultipartUpload={"Parts": parts}, **only
            )
        except ClientError:
            client.abort_multipart_upload(**upload)
            raise
    except ClientError as error:
        code, status = (
            error.response["Error"]["Code"],
            error.response["ResponseMetadata"]["HTTPStatusCode"],
        )
        return status, ERROR.format(code).encode()
    return 200, f"<CopyObjectResult><ETag>{done['ETag']}</ETag></CopyObjectResult>".encode()


@contextmanager
def raw_server(answer: bytes) -> Iterator[str]:
    """A server that knows no HTTP: to every request it says these bytes and hangs up. Yields its
    address."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                asked = b""
                while b"\r\n\r\n" not in asked and (piece := connection.recv(65536)):
                    asked += piece
                connection.sendall(answer)

    threading.Thread(target=serve, daemon=True, name="raw-server").start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
