"""A TCP relay before a server that lets each answer come later, as a server far away does.

python benchmarks/delaying.py TARGET_PORT MILLISECONDS      prints the port that it listens on
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


async def _relay(target: int, seconds: float) -> None:
    async def pump(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float
    ) -> None:
        with suppress(ConnectionError):
            while piece := await reader.read(1 << 18):
                if delay:
                    await asyncio.sleep(delay)
                writer.write(piece)
                await writer.drain()
        with suppress(ConnectionError):
            writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, there = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(pump(reader, there, 0.0), pump(back, writer, seconds))

    server = await asyncio.start_server(connected, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


@contextmanager
def delayed(endpoint: str, milliseconds: float) -> Iterator[str]:
    """The same server, so much further away; the relay is a process of its own."""
    if not milliseconds:
        yield endpoint
        return
    target = endpoint.rpartition(":")[2]
    command = [sys.executable, __file__, target, str(milliseconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as relay:
        assert relay.stdout is not None
        try:
            yield f"http://127.0.0.1:{relay.stdout.readline().strip()}"
        finally:
            relay.kill()


if __name__ == "__main__":
    asyncio.run(_relay(int(sys.argv[1]), float(sys.argv[2]) / 1000))
