"""A grpc.aio server with health, reflection, interceptors and a graceful end."""

from __future__ import annotations

import asyncio
import faulthandler
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tunix_rt_kit.serving.blocking import run_blocking
from tunix_rt_kit.serving.interceptors import CallInterceptor
from tunix_rt_kit.serving.logging import get_logger
from tunix_rt_kit.serving.settings import ServerSettings
from tunix_rt_kit.serving.watchdog import killed_when_late

_log = get_logger("tunix_rt.serving")
_LEAST_S: Final = 2.0
# How much later a process is killed that could not end itself.
_LAST_S: Final = 0.5
_STANDARD_ERROR: Final = 2


class StartError(Exception):
    """The server cannot start; the message is one line that says why."""


@dataclass(frozen=True, slots=True)
class ServiceRegistration:
    """One service to serve.

    ``full_name`` is its protobuf name, such as ``tunix_rt.v1.TraceStore``; ``add`` registers its servicer.
    Each of ``ends`` ends jobs while the last calls are served, within ``calls_and_jobs_s`` of the service's
    settings; it blocks, and may be called again.
    """

    full_name: str
    add: Callable[[grpc.aio.Server], None]
    ends: Sequence[Callable[[], None]] = ()


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that answers on ``address`` (``host:port``) until ``stop`` is set."""

    address: str
    stop: asyncio.Event


@asynccontextmanager
async def running_server(
    settings: ServerSettings, services: Sequence[ServiceRegistration], *, stop: asyncio.Event | None = None
) -> AsyncIterator[RunningServer]:
    """Serve inside the ``async with`` block.

    At its end health says NOT_SERVING, ``stop`` is set so that watches end, and calls and jobs get most of
    ``settings.shutdown_grace_s``. Raises StartError if the address cannot be bound.
    """
    stop = stop or asyncio.Event()
    server = grpc.aio.server(
        interceptors=[CallInterceptor()],
        options=[
            # Two servers on one port would share its calls at random.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", settings.max_message_bytes),
            ("grpc.max_send_message_length", settings.max_message_bytes),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ],
    )
    checks = await _add_services(server, services)
    address = _bind(server, settings.listen)
    await server.start()
    _log.info("serving", address=address, services=[service.full_name for service in services])
    try:
        yield RunningServer(address, stop)
    finally:
        await checks.enter_graceful_shutdown()
        stop.set()
        calls = server.stop(settings.calls_and_jobs_s)
        jobs = [run_blocking(end) for service in services for end in service.ends]
        for outcome in await asyncio.gather(calls, *jobs, return_exceptions=True):
            if isinstance(outcome, Exception):
                _log.error("stop_failed", exc_info=outcome)
        _log.info("stopped", address=address)


async def serve(
    settings: ServerSettings,
    services: Sequence[ServiceRegistration],
    *,
    stop: asyncio.Event | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until ``stop`` is set or SIGTERM or SIGINT comes; a second signal ends the process at once.

    After a signal the process ends within ``settings.shutdown_grace_s``, or two seconds if that is less.
    Where a thread is stuck, it ends with code 1 and every thread's stack on standard error; where a thread
    holds the interpreter's lock, SIGTERM ends it half a second later by SIGKILL.

    Must run in the main thread. ``on_ready`` is called with the bound address. Raises StartError.
    """
    stop = stop or asyncio.Event()
    with _stopped_by_signals(stop, settings.shutdown_grace_s):
        async with running_server(settings, services, stop=stop) as running:
            if on_ready is not None:
                on_ready(running.address)
            await stop.wait()


async def _add_services(server: grpc.aio.Server, services: Sequence[ServiceRegistration]) -> Any:
    checks = health.aio.HealthServicer()  # type: ignore[attr-defined]
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    for service in services:
        service.add(server)
        await checks.set(service.full_name, health_pb2.HealthCheckResponse.SERVING)
    names = [*(service.full_name for service in services), health.SERVICE_NAME, reflection.SERVICE_NAME]
    reflection.enable_server_reflection(names, server)
    return checks


def _bind(server: grpc.aio.Server, listen: str) -> str:
    host = listen.rpartition(":")[0]
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError as error:
        raise StartError(
            f"cannot listen on {listen}: the port is in use, or the address is not this machine's"
        ) from error
    if not port:
        raise StartError(f"cannot listen on {listen}")
    if listen.startswith("unix:"):
        return listen
    return f"{host}:{port}"


@contextmanager
def _stopped_by_signals(stop: asyncio.Event, grace_s: float) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)

    def restore() -> None:
        for number in signals:
            loop.remove_signal_handler(number)

    def end(name: str) -> None:
        _log.info("stopping", signal=name)
        # This timer needs nothing of Python: a stuck thread would keep the process for ever.
        faulthandler.dump_traceback_later(max(grace_s, _LEAST_S), exit=True, file=_STANDARD_ERROR)
        restore()
        stop.set()

    for number in signals:
        loop.add_signal_handler(number, end, number.name)
    with killed_when_late(max(grace_s, _LEAST_S) + _LAST_S):
        try:
            yield
        finally:
            restore()
