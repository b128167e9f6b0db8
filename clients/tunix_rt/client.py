# Generated from aio/client.py by `make proto`: change that one.
"""The client: one object for the four services."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from tunix_rt.aio.client import AsyncClient as AsyncClient
from tunix_rt.errors import InvalidArgumentError
from tunix_rt.evaluator import EvaluatorClient
from tunix_rt.exporter import ExporterClient
from tunix_rt.rpc.caller import Caller, Outages, Waited
from tunix_rt.targets import Targets
from tunix_rt.trace_store import TraceStoreClient
from tunix_rt.trainer import TrainerClient
from tunix_rt.wire import open_channel

SERVER_VARIABLE = "TUNIX_RT_SERVER"


def resolve_targets(server: str | Targets | None) -> Targets:
    """Where the services are; None reads the environment variable ``TUNIX_RT_SERVER``.

    Raises:
        InvalidArgumentError: the value is malformed (SERVER_INVALID), or there is none (SERVER_MISSING).
    """
    if isinstance(server, Targets):
        return server
    if server is None:
        server = os.environ.get(SERVER_VARIABLE, "")
        if not server.strip():
            raise InvalidArgumentError(
                f"no server given; pass one such as 127.0.0.1:50050, or set {SERVER_VARIABLE}",
                reason="SERVER_MISSING",
            )
    return Targets.parse(server)


def check_kind(client: object, function: Callable[..., object]) -> None:
    """Check that a client is of the kind that ``function`` takes.

    Raises:
        TypeError: it is the one for asyncio where the synchronous one is taken, or the other way round.
    """
    taken = Client
    if getattr(client, "asynchronous", taken.asynchronous) == taken.asynchronous:
        return
    name, parts = function.__name__, function.__module__.split(".")
    other = [parts[0], "aio", *parts[1:]]
    raise TypeError(
        f"{name} of {function.__module__} takes a tunix_rt.{taken.__name__}; "
        f"{'.'.join(other)}.{name} takes the {type(client).__name__} that it was given"
    )


class Client:
    """Synchronous access to the four services; use it as a context manager, or ``close()`` it. Thread-safe.

    Args:
        server: ``HOST:PORT`` where all four are on one address, ``HOST`` where each is on its default port,
            ``trace-store=HOST:PORT,exporter=...`` for all four, ``Targets``, or None for the environment
            variable ``TUNIX_RT_SERVER``.
        timeout: seconds that a call other than a stream may take, unless it is given its own.
        on_waiting: called, in any thread, with the address of a server that has not answered for some
            seconds: each time that nothing listens there, and once if it is busy. The address has
            ``seconds``, for how many a server that is away is tried in all.

    Raises:
        InvalidArgumentError: ``server`` is none of these.
    """

    asynchronous: Final = False

    def __init__(
        self,
        server: str | Targets | None = None,
        *,
        timeout: float = 30.0,
        on_waiting: Callable[[Waited], None] | None = None,
    ) -> None:
        self.targets = resolve_targets(server)
        self._channels = {target: open_channel(target) for target in self.targets.distinct()}
        told = None if on_waiting is None else Outages(on_waiting)
        trace_store, exporter, trainer, evaluator = (
            (self._channels[target], Caller(target, timeout, told))
            for target in (
                self.targets.trace_store,
                self.targets.exporter,
                self.targets.trainer,
                self.targets.evaluator,
            )
        )
        self.trace_store = TraceStoreClient(*trace_store)
        self.exporter = ExporterClient(*exporter)
        self.trainer = TrainerClient(*trainer)
        self.evaluator = EvaluatorClient(*evaluator)

    def close(self) -> None:
        """Close the connections; calls in flight end."""
        for channel in self._channels.values():
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
