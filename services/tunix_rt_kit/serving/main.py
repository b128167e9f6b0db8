"""The entry point that every service's ``__main__`` shares."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

from tunix_rt_kit.errors import DomainError
from tunix_rt_kit.serving.logging import configure_logging
from tunix_rt_kit.serving.server import ServiceRegistration, StartError, serve
from tunix_rt_kit.serving.settings import ServerSettings, SettingsInvalid, load_settings

Settings = TypeVar("Settings", bound=ServerSettings)
OpenServices = Callable[[Settings, asyncio.Event], AbstractAsyncContextManager[Sequence[ServiceRegistration]]]


def run_service(
    settings_type: type[Settings],
    open_services: OpenServices[Settings],
    *,
    program: str,
    argv: Sequence[str] | None = None,
    commands: Mapping[str, Callable[[Settings], None]] | None = None,
) -> int:
    """Parse settings, set up logs, serve until told to stop; returns the exit code.

    Args:
        settings_type: the service's settings.
        open_services: builds the service from its settings and the stop event, and takes it down again
        afterwards. program: the name in messages and in ``--help``. argv: arguments without the program;
        ``sys.argv[1:]`` if None. commands: what else the program does, by the first argument (``migrate``),
        with the same settings.

    A bad setting gives code 2 and a failed start code 1, each with one line on standard error.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = (commands or {}).get(arguments[0]) if arguments else None
    try:
        settings = load_settings(settings_type, arguments[1:] if command else arguments, program=program)
    except SettingsInvalid as error:
        return _fail(program, error, 2)
    configure_logging(settings.log_level, settings.log_format)
    try:
        if command is not None:
            command(settings)
        else:
            asyncio.run(_serve(settings, open_services))
    except (StartError, DomainError) as error:
        return _fail(program, error, 1)
    return 0


async def _serve(settings: Settings, open_services: OpenServices[Settings]) -> None:
    stop = asyncio.Event()
    async with open_services(settings, stop) as services:
        # What was imported stays until the end; looking for garbage in it cost a seventh of a batch's time.
        gc.freeze()
        await serve(settings, services, stop=stop)


def _fail(program: str, error: Exception, code: int) -> int:
    print(f"{program}: {error}", file=sys.stderr)
    return code
