"""Watching a resource: its present state at once, then every change, to the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def watch_state(
    poll: Callable[[], Awaitable[T]],
    *,
    is_terminal: Callable[[T], bool],
    stop: asyncio.Event,
    interval: float = 0.2,
) -> AsyncIterator[T]:
    """Yield the first state that ``poll`` gives, then each that differs from the one before.

    Ends after a terminal state, or when ``stop`` is set (the server is shutting down; the watcher may call
    again).

    Args:
        poll: reads the present state; what it raises ends the watch.
        is_terminal: whether nothing can follow a state.
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
