"""What surrounds every RPC.

Handlers of all four kinds are wrapped; their behaviours must be coroutine functions or async generators.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import code_pb2
from grpc_status import rpc_status

from tunix_rt.wire import REQUEST_ID_KEY, error_status
from tunix_rt_kit.callers import begin_call, current_request_id
from tunix_rt_kit.errors import DomainError
from tunix_rt_kit.serving.blocking import run_blocking
from tunix_rt_kit.serving.calls import status_of
from tunix_rt_kit.serving.logging import get_logger
from tunix_rt_kit.serving.request_bounds import check_bounds, malformed

_log = get_logger("tunix_rt.serving")
_QUIET = ("/grpc.health.", "/grpc.reflection.")
_LARGE = 1 << 16  # bytes

if TYPE_CHECKING:  # generic only in the stubs
    _Interceptor = grpc.aio.ServerInterceptor[Any, Any]
else:
    _Interceptor = grpc.aio.ServerInterceptor

Behavior = Callable[[Any, Any], Any]
Handler = Any  # grpc.RpcMethodHandler; its attributes are not in the stubs


class CallInterceptor(_Interceptor):
    """Gives every call an id and an access log line, checks the bounds of requests, and translates errors.

    The request id is the caller's ``x-request-id``, or made. A domain error becomes its canonical code with
    ErrorInfo and BadRequest; anything else a bland INTERNAL, whose request id leads to the traceback in the
    log. Requests are decoded here: bytes that are no message of the method's type are INVALID_ARGUMENT
    (REQUEST_MALFORMED), and so are more entries than ``check_bounds`` lets pass (TOO_MANY_ENTRIES).
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method: str = handler_call_details.method
        offered = ""
        for key, value in handler_call_details.invocation_metadata or ():
            if key == REQUEST_ID_KEY:
                offered = value if isinstance(value, str) else ""
        decode = _decoder(handler.request_deserializer)

        async def received(data: Any) -> Any:
            if handler.request_streaming:
                return _decoded_stream(data, decode)
            # While a large one is decoded, others are served.
            return await run_blocking(decode, data) if len(data) > _LARGE else decode(data)

        def unary(behavior: Behavior) -> Behavior:
            async def call(request: Any, context: Any) -> Any:
                with _request(method, offered, context):
                    try:
                        return await _result(behavior(await received(request), context))
                    except Exception as error:
                        await _abort(error, method, context)

            return call

        def stream(behavior: Behavior) -> Behavior:
            async def call(request: Any, context: Any) -> AsyncIterator[Any]:
                with _request(method, offered, context):
                    try:
                        async for response in _responses(behavior(await received(request), context)):
                            yield response
                    except Exception as error:
                        await _abort(error, method, context)

            return call

        return _rewrapped(handler, unary, stream)


def _decoder(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Decodes a request whose bounds hold, or raises InvalidArgument."""
    # What gRPC is given is the bound method FromString of a message's class.
    descriptor = getattr(getattr(deserialize, "__self__", None), "DESCRIPTOR", None)

    def decode(data: bytes) -> Any:
        if descriptor is not None:
            check_bounds(descriptor, data)
        try:
            return deserialize(data)
        except (DecodeError, ValueError) as error:
            raise malformed() from error

    return decode


async def _decoded_stream(
    requests: AsyncIterator[bytes], decode: Callable[[bytes], Any]
) -> AsyncIterator[Any]:
    async for request in requests:
        yield decode(request)


async def _result(answer: Any) -> Any:
    return await answer if inspect.isawaitable(answer) else answer


async def _responses(answer: Any) -> AsyncIterator[Any]:
    if inspect.isawaitable(answer):
        await answer
        return
    async with aclosing(answer):
        async for response in answer:
            yield response


async def _abort(error: Exception, method: str, context: Any) -> None:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, DomainError):
        status = status_of(error)
    else:
        _log.error("unexpected_error", method=method, exc_info=error)
        request_id = current_request_id()
        status = error_status(
            "INTERNAL",
            f"internal error; request id {request_id}",
            reason="INTERNAL",
            metadata={"request_id": request_id},
        )
    answer = rpc_status.to_status(status)
    await context.abort(
        answer.code,
        answer.details,
        (*answer.trailing_metadata, (REQUEST_ID_KEY, current_request_id())),
    )


@contextmanager
def _request(method: str, offered: str, context: Any) -> Iterator[None]:
    request_id = begin_call(offered, method)
    context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
    started = time.perf_counter()
    code = ""
    try:
        yield
    except (asyncio.CancelledError, GeneratorExit):
        code = "CANCELLED"
        raise
    finally:
        write = _log.debug if method.startswith(_QUIET) else _log.info
        milliseconds = round((time.perf_counter() - started) * 1000, 3)
        write("rpc", method=method, code=code or _code_name(context.code()), milliseconds=milliseconds)


def _code_name(code: Any) -> str:
    number = code.value[0] if isinstance(code, grpc.StatusCode) else int(code or 0)
    name: str = code_pb2.Code.Name(number)
    return name


def _rewrapped(
    handler: Handler, unary: Callable[[Behavior], Behavior], stream: Callable[[Behavior], Behavior]
) -> Handler:
    """The handler with its behaviour wrapped, which gets requests as bytes."""
    codec = {"request_deserializer": None, "response_serializer": handler.response_serializer}
    if handler.request_streaming and handler.response_streaming:
        return grpc.stream_stream_rpc_method_handler(stream(handler.stream_stream), **codec)
    if handler.request_streaming:
        return grpc.stream_unary_rpc_method_handler(unary(handler.stream_unary), **codec)
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(stream(handler.unary_stream), **codec)
    return grpc.unary_unary_rpc_method_handler(unary(handler.unary_unary), **codec)
