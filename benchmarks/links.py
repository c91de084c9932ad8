"""Links of limited bandwidth and latency to a server on this machine: a process that forwards, and takes its time.

Each process that connects has a link of its own, at the same address for all. What its connections carry leaves one
block after the other, at the bandwidth of the link, in each direction by itself, and arrives half of the latency later. A
connection is there after one more latency, as one of TCP is. Nothing is lost, and nothing comes out of order.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import multiprocessing
import os
import socket
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

_HOST = "127.0.0.1"
_BLOCK = 128 << 10
"""Bytes that are taken from a sender at a time."""

_WAITING = 0.04
"""Seconds by which bytes may be ahead of their turn: what waits in a router."""


class Links:
    """Links that are there.

    Attributes
    ----------
    endpoint
        The address of the server through them.
    """

    def __init__(self, endpoint: str, process: int) -> None:
        self.endpoint = endpoint
        self._process = process

    def processor(self) -> float:
        """Return the processor time that they have taken, in seconds."""
        return processor_of(self._process)


@contextlib.contextmanager
def links(port: int, bandwidth: float, latency: float) -> Iterator[Links]:
    """Give links to a port of this machine, for a block.

    Parameters
    ----------
    bandwidth
        Bytes a second, in each direction, of each link.
    latency
        Seconds from a request to its answer, where neither takes any time.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_forward_all, args=(theirs, port, bandwidth, latency), daemon=True)
    process.start()
    try:
        ready: int = ours.recv()
        assert process.pid is not None
        yield Links(f"http://{_HOST}:{ready}", process.pid)
    finally:
        process.terminate()
        process.join()


def processor_of(process: int) -> float:
    """Return the processor time that a process has taken, in seconds."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class _Way:
    """One direction of a link."""

    def __init__(self, bandwidth: float) -> None:
        self._bandwidth = bandwidth
        self._free = 0.0

    def left(self, nbytes: int) -> float:
        """Return when bytes have left that want to leave now."""
        self._free = max(self._free, time.monotonic()) + nbytes / self._bandwidth
        return self._free


def _forward_all(ready: Connection, port: int, bandwidth: float, latency: float) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(ready, port, bandwidth, latency))


async def _serve(ready: Connection, port: int, bandwidth: float, latency: float) -> None:
    loop = asyncio.get_running_loop()
    listening = socket.create_server((_HOST, 0), backlog=64)
    listening.setblocking(False)
    here: int = listening.getsockname()[1]
    ready.send(here)
    of_process: defaultdict[int, tuple[_Way, _Way]] = defaultdict(lambda: (_Way(bandwidth), _Way(bandwidth)))
    at_work = set()
    while True:
        client, (_, there) = await loop.sock_accept(listening)
        try:
            up, down = of_process[_process_at(there, here, list(of_process))]
        except ProcessLookupError:
            client.close()
            continue
        task = asyncio.create_task(_connect(client, port, up, down, latency))
        at_work.add(task)  # a loop keeps no task alive
        task.add_done_callback(at_work.discard)


def _process_at(port: int, to: int, known: list[int]) -> int:
    """Return the process that has connected from one port of this machine to another one, if it is still connected.

    Parameters
    ----------
    known
        Where it is looked for first.
    """
    ends = [f"0100007F:{one:04X}" for one in (port, to)]
    rows = map(str.split, Path("/proc/net/tcp").read_text(encoding="ascii").splitlines())
    socket_of = next((f"socket:[{row[9]}]" for row in rows if row[1:3] == ends), None)
    others = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    for process in itertools.chain(known, others):
        with contextlib.suppress(OSError):
            for file in Path(f"/proc/{process}/fd").iterdir():
                with contextlib.suppress(OSError):  # it has been closed meanwhile
                    if str(file.readlink()) == socket_of:
                        return process
    raise ProcessLookupError(f"nobody has port {port}")


async def _connect(client: socket.socket, port: int, up: _Way, down: _Way, latency: float) -> None:
    """Forward what one connection carries, until both ends have said all."""
    server = socket.socket()
    with client, server:
        for one in (client, server):
            one.setblocking(False)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):
            await asyncio.gather(asyncio.sleep(latency), asyncio.get_running_loop().sock_connect(server, (_HOST, port)))
            both = [
                asyncio.create_task(_forward(client, server, up, latency / 2)),
                asyncio.create_task(_forward(server, client, down, latency / 2)),
            ]
            try:
                await asyncio.gather(*both)
            finally:
                for one_way in both:
                    one_way.cancel()


async def _forward(source: socket.socket, sink: socket.socket, way: _Way, delay: float) -> None:
    """Forward one direction of a connection to its end."""
    loop = asyncio.get_running_loop()
    on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
    arriving = asyncio.create_task(_arrive(sink, on_the_way))
    try:
        while data := await loop.sock_recv(source, _BLOCK):
            left = way.left(len(data))
            on_the_way.put_nowait((left + delay, data))
            await _until(left - _WAITING)
        on_the_way.put_nowait((time.monotonic() + delay, b""))
        await arriving
    finally:
        arriving.cancel()


async def _arrive(sink: socket.socket, on_the_way: asyncio.Queue[tuple[float, bytes]]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due, data = await on_the_way.get()
        await _until(due)
        if not data:
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)
            return
        await loop.sock_sendall(sink, data)


async def _until(moment: float) -> None:
    if (seconds := moment - time.monotonic()) > 0:
        await asyncio.sleep(seconds)
