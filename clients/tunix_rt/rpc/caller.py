"""One call: its deadline, its request id, its errors."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import grpc

from tunix_rt.errors import DeadlineExceededError, UnavailableError
from tunix_rt.rpc.status import error_of_call
from tunix_rt.wire import REQUEST_ID_KEY

if TYPE_CHECKING:
    from google.protobuf.message import Message

Request = TypeVar("Request", bound="Message")
Response = TypeVar("Response", bound="Message")

# Seconds without an answer to a call, and since a call that failed for want of the server was begun when the
# next one is, after which it is told that somebody waits. What gRPC tries again by itself takes less.
_SILENT_S: Final = 3.0
_AWAY_S: Final = 1.0


def fresh(request_id: str | None) -> str:
    """``request_id``, or a new one for None, so that every create can be sent again safely."""
    return request_id or uuid.uuid4().hex


class Caller:
    """Makes synchronous calls to one server.

    Args:
        target: its address.
        timeout: seconds that a unary call may take.
        on_waiting: called with ``target``, in any thread, when an answer is long in coming.
    """

    def __init__(self, target: str, timeout: float, on_waiting: Callable[[str], None] | None = None) -> None:
        self.target = target
        self._timeout = timeout
        self._on_waiting = on_waiting
        self._away_since: float | None = None

    def unary(
        self,
        method: grpc.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout: float | None,
    ) -> Response:
        """Send one request, take one answer. ``timeout``: seconds, None for the client's."""
        request_id = uuid.uuid4().hex
        with self._noticed() as answered:
            try:
                response = method(
                    request,
                    timeout=self._timeout if timeout is None else timeout,
                    metadata=((REQUEST_ID_KEY, request_id),),
                )
            except grpc.RpcError as error:
                raise error_of_call(error, self.target, request_id) from error
            answered()
            return response

    def stream(
        self, method: grpc.UnaryStreamMultiCallable[Request, Response], request: Request
    ) -> Iterator[Response]:
        """Send one request, yield the answers. Closing the iterator ends the call."""
        request_id = uuid.uuid4().hex
        call = method(request, metadata=((REQUEST_ID_KEY, request_id),))
        with self._noticed() as answered:
            try:
                for response in call:
                    answered()
                    yield response
            except grpc.RpcError as error:
                raise error_of_call(error, self.target, request_id) from error
            finally:
                call.cancel()  # type: ignore[no-untyped-call]

    @contextmanager
    def _noticed(self) -> Iterator[Callable[[], None]]:
        """Around a call: tells of it if it waits; gives what is to be called when there is an answer."""
        if self._on_waiting is None:
            yield lambda: None
            return
        began = time.monotonic()
        late = threading.Timer(_SILENT_S, self._on_waiting, [self.target])
        late.daemon = True
        late.start()
        if self._away_since is not None and began - self._away_since >= _AWAY_S:
            self._on_waiting(self.target)

        def answered() -> None:
            late.cancel()
            self._away_since = None

        try:
            yield answered
        except (UnavailableError, DeadlineExceededError):
            self._away_since = self._away_since or began
            raise
        finally:
            late.cancel()


class AsyncCaller:
    """Makes asyncio calls to one server."""

    def __init__(self, target: str, timeout: float) -> None:
        self.target = target
        self._timeout = timeout

    async def unary(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout: float | None,
    ) -> Response:
        """As ``Caller.unary``."""
        request_id = uuid.uuid4().hex
        try:
            return await method(
                request,
                timeout=self._timeout if timeout is None else timeout,
                metadata=((REQUEST_ID_KEY, request_id),),
            )
        except grpc.RpcError as error:
            raise error_of_call(error, self.target, request_id) from error

    async def stream(
        self, method: grpc.aio.UnaryStreamMultiCallable[Request, Response], request: Request
    ) -> AsyncIterator[Response]:
        """As ``Caller.stream``."""
        request_id = uuid.uuid4().hex
        call = method(request, metadata=((REQUEST_ID_KEY, request_id),))
        try:
            async for response in call:
                yield response
        except grpc.RpcError as error:
            raise error_of_call(error, self.target, request_id) from error
        finally:
            call.cancel()
