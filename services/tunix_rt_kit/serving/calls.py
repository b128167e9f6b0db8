"""Calls: synchronous code from asynchronous servers, one service from another, and domain errors as
``google.rpc.Status`` and back again."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache, wraps
from itertools import islice
from typing import Any, Final, ParamSpec, TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from tunix_rt.wire import ERROR_DOMAIN, error_facts, error_status, failed_call
from tunix_rt_kit import errors
from tunix_rt_kit.callers import current_caller, current_service, ended_by_leaving, for_nobody
from tunix_rt_kit.errors import DomainError, FieldViolation

MAX_THREADS = 16
P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")
# Details travel as metadata, of which gRPC peers take 8 KiB by default; base64 adds a third.
_MAX_MESSAGE = 1024
_MAX_VALUE = 256
_MAX_VIOLATIONS_BYTES = 3072
_CLASSES: Final[Mapping[str, type[DomainError]]] = {kind.code: kind for kind in DomainError.__subclasses__()}


async def run_blocking(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``function`` in a worker thread, with this task's context variables.

    Each service has at most ``MAX_THREADS`` threads. When the awaiting task is cancelled, because the client
    went away, the function ends at its next look at ``tunix_rt_kit.callers``. What it committed stays.
    """
    context = contextvars.copy_context()

    def run() -> T:
        try:
            return context.run(function, *args, **kwargs)
        except StopIteration as error:
            # No future takes one: its call would never end.
            raise RuntimeError(f"{function.__qualname__} ended in StopIteration") from error

    try:
        return await asyncio.get_running_loop().run_in_executor(_executor(current_service()), run)
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


def unary(method: Callable[[S, R], T]) -> Callable[[S, R, Any], Coroutine[Any, Any, T]]:
    """A servicer's synchronous method as gRPC calls it; it runs in a worker thread, see ``run_blocking``."""

    @wraps(method)
    async def call(servicer: S, request: R, context: Any) -> T:
        del context
        return await run_blocking(method, servicer, request)

    return call


def streaming(method: Callable[[S, R], Iterator[T]]) -> Callable[[S, R, Any], AsyncIterator[T]]:
    """As ``unary``, for a method that yields the messages of a stream; see ``iterate_blocking``."""

    @wraps(method)
    async def call(servicer: S, request: R, context: Any) -> AsyncIterator[T]:
        del context
        async for message in iterate_blocking(lambda: method(servicer, request)):
            yield message

    return call


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


def answer_of(method: Any, request: Message, timeout: float) -> Any:
    """What another service answers to ``method`` of a stub; raises grpc.RpcError.

    The call ends when nobody waits any more for the one that it is made in.
    """
    call = method.future(request, timeout=timeout)
    with ended_by_leaving(call.cancel):
        return call.result()


def answers_of(method: Any, request: Message, timeout: float | None = None) -> Generator[Any, None, None]:
    """As ``answer_of``, for a stream; it ends too when nobody reads on."""
    call = method(request, timeout=timeout)
    try:
        with ended_by_leaving(call.cancel):
            yield from call
    finally:
        call.cancel()


@contextmanager
def calling(peer: str) -> Iterator[None]:
    """Turn a failed call of another service into what it means here, as `domain_error` does."""
    try:
        yield
    except grpc.RpcError as error:
        raise domain_error(error, peer) from error


def domain_error(error: grpc.RpcError, peer: str) -> DomainError:
    """What another service's failed call means here.

    A status with our ErrorInfo gives the same domain error again; anything else becomes Unavailable
    (``UPSTREAM_UNAVAILABLE``, ``UPSTREAM_DEADLINE``) or FailedPrecondition (``UPSTREAM_FAILED``).

    Args:
        error: raised by the stub.
        peer: name of the other service, for the message.
    """
    code, text, status, _ = failed_call(error)
    if status is not None and code.name in _CLASSES:
        facts = error_facts(status)
        if facts.domain == ERROR_DOMAIN:
            return _CLASSES[code.name](
                status.message,
                reason=facts.reason,
                metadata=facts.metadata,
                violations=[
                    FieldViolation(entry.field, entry.description) for entry in facts.field_violations
                ],
            )
    if code is grpc.StatusCode.UNAVAILABLE:
        return errors.Unavailable(f"{peer} is not reachable: {text}", reason="UPSTREAM_UNAVAILABLE")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.Unavailable(f"{peer} did not answer in time", reason="UPSTREAM_DEADLINE")
    return errors.FailedPrecondition(f"{peer} failed with {code.name}: {text}", reason="UPSTREAM_FAILED")


def status_of(error: DomainError) -> status_pb2.Status:
    """The status of a domain error: code, message, ErrorInfo, and BadRequest if there are field violations.

    Long texts are cut. Violations that do not fit are left out: ``violations_omitted`` of ErrorInfo's
    metadata counts them.
    """
    kept = _fitting(error.violations)
    metadata = {key: _cut(value, _MAX_VALUE) for key, value in error.metadata.items()}
    if len(kept) < len(error.violations):
        metadata["violations_omitted"] = str(len(error.violations) - len(kept))
    return error_status(
        error.code,
        _cut(one_line(error.message), _MAX_MESSAGE),
        reason=error.reason,
        metadata=metadata,
        field_violations=kept,
    )


def one_line(text: str) -> str:
    """``text`` with every run of whitespace as one space."""
    return " ".join(text.split())


def _fitting(violations: Iterable[FieldViolation]) -> list[error_details_pb2.BadRequest.FieldViolation]:
    kept, used = [], 0
    for violation in violations:
        entry = error_details_pb2.BadRequest.FieldViolation(
            field=_cut(violation.field, _MAX_VALUE), description=_cut(violation.description, 2 * _MAX_VALUE)
        )
        used += entry.ByteSize() + 4
        if used > _MAX_VIOLATIONS_BYTES:
            break
        kept.append(entry)
    return kept


def _cut(text: str, limit: int) -> str:
    """``text`` in at most ``limit`` UTF-8 bytes, lone surrogates escaped."""
    data = text.encode("utf-8", "backslashreplace")
    if len(data) > limit:
        data = data[: limit - 3] + b"..."
    return data.decode("utf-8", "ignore")
