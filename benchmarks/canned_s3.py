"""An S3 that answers from memory, each answer so much later as asked for: what it serves costs it
next to nothing, so that what a client takes is seen.

    python benchmarks/canned_s3.py OBJECTS MILLISECONDS     prints the port that it listens on

It lists the keys of `key_of` in pages of a thousand, takes any write and delete, and gives any
object as 4,096 bytes. It checks nothing, and keeps nothing but the condition that a key is new.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote
from urllib.request import urlopen

PAGE = 1000
BODY = bytes(4096)
ETAG = hashlib.md5(BODY, usedforsecurity=False).hexdigest()


def key_of(number: int) -> str:
    """The keys in their order: 28 days, as many in each as there are."""
    return f"100ms/room-composite/2026/{number // 10_000:04}/60000000000000000000000a/{number:024x}/Rec.mp4"


def number_behind(key: str, objects: int) -> int:
    """The first number whose key comes behind this one."""
    low, high = 0, objects
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if key_of(middle) <= key else (low, middle)
    return low


class Canned:
    def __init__(self, objects: int, seconds: float) -> None:
        self.objects, self.seconds = objects, seconds
        self.requests = 0
        self.pages: dict[int, bytes] = {}

    def page(self, start: int) -> bytes:
        if start not in self.pages:
            end = min(start + PAGE, self.objects)
            items = "".join(
                f"<Contents><Key>{quote(key_of(n))}</Key><LastModified>2026-11-01T00:00:00.000Z"
                f"</LastModified><ETag>&quot;{ETAG}&quot;</ETag><Size>4096</Size>"
                "<StorageClass>STANDARD</StorageClass></Contents>"
                for n in range(start, end)
            )
            more = end < self.objects
            token = f"<NextContinuationToken>{end}</NextContinuationToken>" if more else ""
            self.pages[start] = (
                '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><Name>bench</Name>'
                f"<EncodingType>url</EncodingType><IsTruncated>{str(more).lower()}</IsTruncated>"
                f"{token}{items}</ListBucketResult>"
            ).encode()
        return self.pages[start]

    def folders(self, under: str) -> bytes:
        depth = under.count("/") + 1
        found = {
            "/".join(key_of(n).split("/")[:depth]) + "/"
            for n in range(0, self.objects, 1000)
            if key_of(n).startswith(under)
        }
        each = "".join(
            f"<CommonPrefixes><Prefix>{quote(name)}</Prefix></CommonPrefixes>"
            for name in sorted(found)
        )
        return (
            "<ListBucketResult><Name>bench</Name><EncodingType>url</EncodingType>"
            f"<IsTruncated>false</IsTruncated>{each}</ListBucketResult>"
        ).encode()

    def answer(self, method: str, target: str) -> tuple[int, bytes, dict[str, str]]:
        path, _, text = target.partition("?")
        query = dict(parse_qsl(text, keep_blank_values=True))
        if path == "/requests":
            return 200, str(self.requests).encode(), {}
        self.requests += 1
        tagged = {"ETag": f'"{ETAG}"'}
        if method == "GET" and "prefix" in query and "delimiter" in query:
            return 200, self.folders(query["prefix"]), {}
        if method == "GET" and "prefix" in query:
            if token := query.get("continuation-token"):
                return 200, self.page(int(token)), {}
            if behind := query.get("start-after"):
                return 200, self.page(number_behind(unquote(behind), self.objects)), {}
            return 200, self.page(0), {}
        crc = base64.b64encode(zlib.crc32(BODY).to_bytes(4, "big")).decode()
        match method:
            case "GET" | "HEAD":
                return 200, BODY, tagged | {"x-amz-checksum-crc32": crc}
            case "PUT":
                return 200, b"", tagged
        return 204, b"", {}


async def serve(objects: int, seconds: float) -> None:
    server = Canned(objects, seconds)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, _, rest = head.partition("\r\n")
                method, target, _ = first.split(" ", 2)
                headers = dict(
                    (name.lower(), value.strip())
                    for name, _, value in (line.partition(":") for line in rest.split("\r\n"))
                )
                if length := int(headers.get("content-length") or 0):
                    await reader.readexactly(length)
                status, body, more = server.answer(method, target)
                if server.seconds and target != "/requests":
                    await asyncio.sleep(server.seconds)
                lines = [f"HTTP/1.1 {status} OK", f"Content-Length: {len(body)}"]
                lines += ["Date: Sat, 28 Nov 2026 12:00:00 GMT", "Content-Type: application/xml"]
                lines += [f"{name}: {value}" for name, value in more.items()]
                writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")
                if method != "HEAD":
                    writer.write(body)
                await writer.drain()

    listening = await asyncio.start_server(connected, "127.0.0.1", 0, backlog=512, limit=1 << 20)
    for start in range(0, objects, PAGE):
        server.page(start)
    print(listening.sockets[0].getsockname()[1], flush=True)
    async with listening:
        await listening.serve_forever()


@dataclass(frozen=True)
class Started:
    url: str

    def requests(self) -> int:
        """How many calls came so far."""
        with urlopen(f"{self.url}/requests") as answer:
            return int(answer.read())


@contextmanager
def canned(objects: int, milliseconds: float) -> Iterator[Started]:
    """The server, in a process of its own."""
    command = [sys.executable, __file__, str(objects), str(milliseconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Started(f"http://127.0.0.1:{process.stdout.readline().strip()}")
        finally:
            process.kill()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2]) / 1000))
