"""How asynchronous servers call synchronous domain and database code, and watch what it does."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from itertools import islice
from typing import ParamSpec, TypeVar

from tunix_rt_kit.callers import current_caller, current_service, for_nobody

MAX_THREADS = 16
P = ParamSpec("P")
T = TypeVar("T")


async def run_blocking(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``function`` in a worker thread, with this task's context variables.

    Each service has at most ``MAX_THREADS`` threads. When the awaiting task is cancelled, because the client
    went away, the function ends at its next look at ``tunix_rt_kit.callers``. What it committed stays.
    """
    context = contextvars.copy_context()
    try:
        return await asyncio.get_running_loop().run_in_executor(
            _executor(current_service()), lambda: context.run(function, *args, **kwargs)
        )
    except asyncio.CancelledError:
        caller = current_caller()
        if caller is not None:
            caller.leave()
        raise


@cache
def _executor(service: str) -> ThreadPoolExecutor:
    # Services in one process call each other: with threads in common, those that wait for an answer could
    # leave none to give it.
    return ThreadPoolExecutor(MAX_THREADS, thread_name_prefix=f"tunix-rt-call-{service.rpartition('.')[2]}")


async def iterate_blocking(make: Callable[[], Iterator[T]], *, batch: int = 1) -> AsyncIterator[T]:
    """Iterate a synchronous iterator in worker threads, ``batch`` items at a time.

    A generator is closed when the loop over it ends early.
    """
    iterator = await run_blocking(make)
    # A caller that goes away ends the wait for the next items, not the thread that is making them.
    turn = threading.Lock()

    def advance() -> list[T]:
        with turn:
            return list(islice(iterator, batch))

    def close() -> None:
        with turn:
            getattr(iterator, "close", lambda: None)()

    try:
        while items := await run_blocking(advance):
            for item in items:
                yield item
    finally:
        with for_nobody():
            await run_blocking(close)


async def watch_state(
    poll: Callable[[], Awaitable[T]],
    *,
    is_terminal: Callable[[T], bool],
    stop: asyncio.Event,
    interval: float = 0.2,
) -> AsyncIterator[T]:
    """Yield the first state that ``poll`` gives, then each that differs from the one before.

    Ends after a terminal state, or when ``stop`` is set: then the server is shutting down.

    Args:
        poll: reads the present state; what it raises ends the watch.
        is_terminal: whether a state is the last one.
        stop: the server's stop event.
        interval: seconds between two polls.
    """
    state = await poll()
    yield state
    while not is_terminal(state):
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), interval)
        if stop.is_set():
            return
        latest = await poll()
        if latest != state:
            state = latest
            yield state
