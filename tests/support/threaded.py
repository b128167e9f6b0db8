"""Servers in threads of their own, for tests of the synchronous client."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc

from tunix_rt_kit.serving.server import BuiltService, opened, running_server
from tunix_rt_kit.serving.settings import ServerSettings


@contextmanager
def fake_server(*add: Callable[[grpc.Server], None], port: int = 0) -> Iterator[str]:
    """The address of a server with servicers that a test made up."""
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    for register in add:
        register(server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield f"127.0.0.1:{bound}"
    finally:
        server.stop(0.2).wait()


@contextmanager
def real_server(build: Callable[[asyncio.Event], BuiltService], listen: str = "127.0.0.1:0") -> Iterator[str]:
    """The address of a server that serves a real service."""
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    ready = threading.Event()
    address = ""
    failure: BaseException | None = None

    async def serve() -> None:
        nonlocal address
        settings = ServerSettings(listen=listen, log_level="error", shutdown_grace_s=0.2)
        async with (
            opened(build(stop)) as registrations,
            running_server(settings, registrations, stop=stop) as server,
        ):
            address = server.address
            ready.set()
            await stop.wait()

    def run() -> None:
        nonlocal failure
        try:
            loop.run_until_complete(serve())
        except BaseException as error:
            failure = error
        finally:
            loop.close()
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait(30)
    try:
        if failure is not None:
            raise failure
        yield address
    finally:
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)
        thread.join(30)


def free_address() -> str:
    """An address of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
