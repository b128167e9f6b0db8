"""One call: its deadline, its request id, its errors."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, TypeVar

import grpc

from tunix_rt.rpc.status import REQUEST_ID_KEY, error_of_call

if TYPE_CHECKING:
    from google.protobuf.message import Message

Request = TypeVar("Request", bound="Message")
Response = TypeVar("Response", bound="Message")


def fresh(request_id: str | None) -> str:
    """``request_id``, or a new one for None, so that every create can be sent again safely."""
    return request_id or uuid.uuid4().hex


class Caller:
    """Makes synchronous calls to one server."""

    def __init__(self, target: str, timeout: float) -> None:
        self.target = target
        self._timeout = timeout

    def unary(
        self,
        method: grpc.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout: float | None,
    ) -> Response:
        """Send one request, take one answer. ``timeout``: seconds, None for the client's."""
        request_id = uuid.uuid4().hex
        try:
            return method(
                request,
                timeout=self._timeout if timeout is None else timeout,
                metadata=((REQUEST_ID_KEY, request_id),),
            )
        except grpc.RpcError as error:
            raise error_of_call(error, self.target, request_id) from error

    def stream(
        self, method: grpc.UnaryStreamMultiCallable[Request, Response], request: Request
    ) -> Iterator[Response]:
        """Send one request, yield the answers. Closing the iterator ends the call."""
        request_id = uuid.uuid4().hex
        call = method(request, metadata=((REQUEST_ID_KEY, request_id),))
        try:
            yield from call
        except grpc.RpcError as error:
            raise error_of_call(error, self.target, request_id) from error
        finally:
            call.cancel()  # type: ignore[no-untyped-call]


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
