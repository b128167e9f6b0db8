"""What a service's ``wiring.build`` gives to whoever serves it, alone or beside others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tunix_rt_kit.serving.blocking import run_blocking
from tunix_rt_kit.serving.server import ServiceRegistration


@dataclass(frozen=True, slots=True)
class BuiltService:
    """A service put together from its settings and not yet started.

    ``start`` makes it ready for calls (schema, unfinished jobs) and ``stop`` ends it gracefully; both block
    and raise DomainError. ``stop`` may be called without ``start``.
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
