"""The one place where asynchronous servers call synchronous domain and database code."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import islice
from typing import ParamSpec, TypeVar

from tunix_rt_kit.callers import current_caller, for_nobody
from tunix_rt_kit.serving.context import current_service

MAX_THREADS = 16

P = ParamSpec("P")
T = TypeVar("T")


async def run_blocking(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``function`` in a worker thread with this task's context variables, at most ``MAX_THREADS`` at once
    for each service.

    If the awaiting task is cancelled, as it is when a client goes away, the caller has left: the function
    ends where it looks for that (``tunix_rt_kit.callers``). What it has committed stays committed.
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
    """Iterate a synchronous iterator, made and advanced in worker threads, ``batch`` items a hop.

    A generator is closed, in a worker thread too, when the loop over it ends early.
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
