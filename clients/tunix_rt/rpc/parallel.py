"""Calls that run beside each other: threads of a synchronous client, tasks of an asyncio one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeAlias, TypeVar

T = TypeVar("T")


Running: TypeAlias = Future
"""A call that runs in a thread."""


class Calls:
    """Up to ``most`` calls at once, in threads."""

    def __init__(self, most: int) -> None:
        self._pool = ThreadPoolExecutor(most, thread_name_prefix="tunix-rt")
        self._closed = threading.Event()

    def start(self, call: Callable[..., T], *arguments: Any) -> Future[T]:
        """Have ``call`` done, or queued while ``most`` run."""
        return self._pool.submit(call, *arguments)

    def pause(self, seconds: float) -> bool:
        """Wait inside a call; returns whether nobody waits for its result any more."""
        return self._closed.wait(seconds)

    def close(self) -> None:
        """Nobody waits any more: what runs ends at its next pause, what is queued never begins."""
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)


class AsyncRunning(Generic[T]):
    """A call that runs as a task."""

    def __init__(self, task: asyncio.Task[T]) -> None:
        self._task = task

    async def result(self) -> T:
        """What it returns, or what it raises."""
        return await self._task


class AsyncCalls:
    """Up to ``most`` calls at once, as tasks."""

    def __init__(self, most: int) -> None:
        self._slots = asyncio.Semaphore(most)
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, call: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> AsyncRunning[T]:
        """Have ``call`` done, or queued while ``most`` run."""

        async def run() -> T:
            async with self._slots:
                return await call(*arguments)

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return AsyncRunning(task)

    async def pause(self, seconds: float) -> bool:
        """Wait inside a call; a call that nobody waits for is cancelled here, so this returns False."""
        await asyncio.sleep(seconds)
        return False

    async def close(self) -> None:
        """Nobody waits any more: what runs is cancelled."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
