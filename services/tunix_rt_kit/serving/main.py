"""The entry point that all services share, and a service that is ready to be served."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from tunix_rt_kit.database import Database
from tunix_rt_kit.errors import DomainError
from tunix_rt_kit.serving.blocking import run_blocking
from tunix_rt_kit.serving.logging import configure_logging
from tunix_rt_kit.serving.server import ServiceRegistration, StartError, serve
from tunix_rt_kit.serving.settings import DataSettings, ServerSettings, SettingsInvalid, load_settings

Settings = TypeVar("Settings", bound=ServerSettings)


@dataclass(frozen=True, slots=True)
class BuiltService:
    """A service put together from its settings and not yet started.

    ``start`` makes it ready for calls (it migrates the schema and takes up unfinished jobs), ``stop`` ends it
    gracefully. Both block and raise DomainError. ``stop`` may be called without ``start``.
    """

    registration: ServiceRegistration
    start: Callable[[], None]
    stop: Callable[[], None]


@asynccontextmanager
async def opened(*services: BuiltService) -> AsyncIterator[Sequence[ServiceRegistration]]:
    """Start the services in order, give their registrations, and stop them in reverse order."""
    started: list[BuiltService] = []
    try:
        for service in services:
            started.append(service)
            await run_blocking(service.start)
        yield [service.registration for service in services]
    finally:
        for service in reversed(started):
            await run_blocking(service.stop)


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
