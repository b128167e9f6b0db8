"""How a service is started and ends: its grpc.aio server with health, reflection, interceptors and a graceful
end, and the entry point of its program."""

from __future__ import annotations

import asyncio
import faulthandler
import fcntl
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, Protocol, TypeVar, cast

import grpc

from tunix_rt_kit.database import Database
from tunix_rt_kit.errors import DomainError, FailedPrecondition
from tunix_rt_kit.serving.calls import run_blocking
from tunix_rt_kit.serving.interceptors import CallInterceptor
from tunix_rt_kit.serving.logging import configure_logging, get_logger
from tunix_rt_kit.serving.settings import DataSettings, ServerSettings, SettingsInvalid, load_settings
from tunix_rt_kit.serving.watchdog import killed_when_late

if TYPE_CHECKING:  # generic only in the stubs
    _Interceptor = grpc.aio.ServerInterceptor[Any, Any]
else:
    _Interceptor = grpc.aio.ServerInterceptor

_log = get_logger("tunix_rt.serving")
_LEAST_S: Final = 2.0
# How much later a process is killed that could not end itself.
_LAST_S: Final = 0.5
_STANDARD_ERROR: Final = 2
_DATA_DIR_LOCK: Final = "services.lock"
Settings = TypeVar("Settings", bound=ServerSettings)


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
    settings: ServerSettings,
    services: Sequence[ServiceRegistration],
    *,
    stop: asyncio.Event | None = None,
    lazy: LazyServices | None = None,
) -> AsyncIterator[RunningServer]:
    """Serve inside the ``async with`` block, ``lazy`` services too, which have neither health nor reflection.

    At its end health says NOT_SERVING, ``stop`` is set so that watches end, and calls and jobs get most of
    ``settings.shutdown_grace_s``. Raises StartError if the address cannot be bound.
    """
    stop = stop or asyncio.Event()
    server = grpc.aio.server(
        interceptors=[CallInterceptor(), *([lazy] if lazy else [])],
        options=[
            # Two servers on one port would share its calls at random.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", settings.max_message_bytes),
            ("grpc.max_send_message_length", settings.max_message_bytes),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ],
    )
    checks = await _add_services(server, services) if services else None
    address = _bind(server, settings.listen)
    await server.start()
    _log.info("serving", address=address, services=[service.full_name for service in services])
    try:
        yield RunningServer(address, stop)
    finally:
        if checks is not None:
            await checks.enter_graceful_shutdown()
        stop.set()
        calls = server.stop(settings.calls_and_jobs_s)
        jobs = [
            run_blocking(end)
            for service in (*services, *(lazy.registrations if lazy else ()))
            for end in service.ends
        ]
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
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection

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


class StartsJobs(Protocol):
    """Takes up the jobs of a service; ``only_ends`` ends those that are to be cancelled, and no others."""

    def __call__(self, *, only_ends: bool) -> None: ...


def _no_jobs(*, only_ends: bool) -> None:
    """For a service that has none."""


@dataclass(frozen=True, slots=True)
class BuiltService:
    """A service put together from its settings and not yet started.

    ``start`` makes it ready for calls (it migrates the schema), ``start_jobs`` takes up unfinished jobs after
    that, ``stop`` ends it gracefully. All block and raise DomainError. ``stop`` may be called without the
    others. ``data_dir`` is kept from being tidied up meanwhile.
    """

    registration: ServiceRegistration
    start: Callable[[], None]
    stop: Callable[[], None]
    start_jobs: StartsJobs = _no_jobs
    data_dir: Path | None = None


class LazyServices(_Interceptor):
    """Services that are put together and started by the first call of theirs.

    Args:
        builds: what puts a service together, by the service's full name.
        jobs: ``end`` ends the jobs that are to be cancelled, ``leave`` leaves all as they are.
    """

    def __init__(
        self, builds: Mapping[str, Callable[[], BuiltService]], jobs: Literal["end", "leave"]
    ) -> None:
        self._builds = builds
        self._jobs = jobs
        self._turn = asyncio.Lock()
        self._started: dict[str, BuiltService] = {}
        self._handlers: dict[str, _Handlers] = {}
        self._locks = ExitStack()

    @property
    def registrations(self) -> Sequence[ServiceRegistration]:
        """Those of the services that were needed."""
        return [service.registration for service in self._started.values()]

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        name = handler_call_details.method.split("/")[1]
        if name not in self._builds:
            return await continuation(handler_call_details)
        try:
            async with self._turn:
                if name not in self._handlers:
                    await run_blocking(self._start, name)
        except Exception as error:
            return _refusing(error)
        return self._handlers[name].service(handler_call_details)

    def _start(self, name: str) -> None:
        built = self._builds[name]()
        try:
            if built.data_dir is not None:
                self._locks.enter_context(data_dir_lock(built.data_dir, alone=False))
            built.start()
            if self._jobs == "end":
                built.start_jobs(only_ends=True)
        except BaseException:
            built.stop()
            raise
        self._started[name] = built
        handlers = _Handlers()
        built.registration.add(cast(Any, handlers))
        self._handlers[name] = handlers

    def stop(self) -> None:
        """End the services that were needed, the last first."""
        for service in reversed(self._started.values()):
            service.stop()
        self._locks.close()


class _Handlers:
    """Takes what a service registers, in the place of a server that has started already."""

    def __init__(self) -> None:
        self._registered: list[grpc.GenericRpcHandler[Any, Any]] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler[Any, Any]]) -> None:
        self._registered.extend(handlers)

    def add_registered_method_handlers(self, name: str, handlers: Any) -> None:
        """The same handlers, for a way that is faster where there are very many calls."""

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        found = (handlers.service(details) for handlers in self._registered)
        return next((handler for handler in found if handler is not None), None)


def _refusing(error: Exception) -> Any:
    """A handler for a call of a service that cannot start, whatever the call's kind."""
    refusal = _cannot_start(error) if isinstance(error, StartError) else error

    async def refuse(_request: bytes, _context: Any) -> NoReturn:
        raise refusal

    return grpc.unary_unary_rpc_method_handler(cast(Any, refuse), request_deserializer=bytes)


def _cannot_start(error: StartError) -> DomainError:
    return FailedPrecondition(str(error), reason="SERVER_CANNOT_START")


@asynccontextmanager
async def opened(*services: BuiltService) -> AsyncIterator[Sequence[ServiceRegistration]]:
    """Start the services in order with their jobs, give their registrations, and stop them in reverse
    order."""
    started: list[BuiltService] = []
    with ExitStack() as stack:
        try:
            for service in services:
                if service.data_dir is not None:
                    stack.enter_context(data_dir_lock(service.data_dir, alone=False))
                started.append(service)
                await run_blocking(service.start)
                await run_blocking(service.start_jobs, only_ends=False)
            yield [service.registration for service in services]
        finally:
            for service in reversed(started):
                await run_blocking(service.stop)


@contextmanager
def data_dir_lock(data_dir: Path, *, alone: bool) -> Iterator[None]:
    """Use a data folder, as several services may do at once; or have it alone, while none does.

    Raises StartError if others have it, and if it is wanted alone and cannot be locked. A service uses a
    folder that cannot be locked all the same.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(data_dir / _DATA_DIR_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if alone:
            raise StartError(f"data folder {data_dir}: {error.strerror or error}") from error
        # The service itself says what is wrong, if it needs to write.
        yield
        return
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            who = "a server uses it; stop it first" if alone else "it is being tidied up; try again"
            raise StartError(f"data folder {data_dir}: {who}") from error
        except OSError as error:
            # Some network file systems know no locks.
            if alone:
                raise StartError(f"data folder {data_dir} cannot be locked: {error.strerror}") from error
        yield
    finally:
        os.close(descriptor)


@contextmanager
def opened_database(settings: DataSettings) -> Iterator[Database]:
    """The settings' database, for as long as the context is open."""
    database = Database(settings.database)
    try:
        if database.dialect == "sqlite":
            settings.make_data_dir()
        yield database
    finally:
        database.close()


def run_service(
    settings_type: type[Settings],
    build: Callable[[Settings, asyncio.Event], BuiltService],
    migrate: Callable[[Settings], None],
    *,
    program: str,
    argv: Sequence[str] | None = None,
) -> int:
    """Parse settings and set up logs; then serve until told to stop, or migrate the database.

    Args:
        settings_type: the service's settings.
        build: puts the service together from its settings and the stop event.
        migrate: what the command ``migrate`` does.
        program: the name in messages and in ``--help``.
        argv: arguments without the program, ``sys.argv[1:]`` if None: ``serve``, which may be left out, or
            ``migrate``, then flags.

    Returns:
        0; 2 for a bad setting and 1 for a failed start, each with one line on standard error.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments.pop(0) if arguments[:1] in (["serve"], ["migrate"]) else "serve"
    try:
        settings = load_settings(settings_type, arguments, program=program)
    except SettingsInvalid as error:
        return _fail(program, error, 2)
    configure_logging(settings.log_level, settings.log_format)
    try:
        if command == "migrate":
            migrate(settings)
        else:
            asyncio.run(_serve(settings, build))
    except (StartError, DomainError) as error:
        return _fail(program, error, 1)
    return 0


async def _serve(settings: Settings, build: Callable[[Settings, asyncio.Event], BuiltService]) -> None:
    stop = asyncio.Event()
    async with opened(build(settings, stop)) as services:
        # What was imported stays until the end; looking for garbage in it cost a seventh of a batch's time.
        gc.freeze()
        await serve(settings, services, stop=stop)


def _fail(program: str, error: Exception, code: int) -> int:
    print(f"{program}: {error}", file=sys.stderr)
    return code
