"""What surrounds every RPC: its id, its log line, the bounds of its request, and its error.

Handlers of all four kinds are wrapped; their behaviours must be coroutine functions or async generators.

How much a request may hold is counted before it is decoded: 4 MiB have room for two million entries, each of
which costs a hundred times its bytes when it is decoded and checked.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError
from google.rpc import code_pb2
from grpc_status import rpc_status

from tunix_rt.wire import REQUEST_ID_KEY, error_status
from tunix_rt_kit.callers import begin_call, current_request_id
from tunix_rt_kit.errors import DomainError, InvalidArgument
from tunix_rt_kit.serving.calls import run_blocking, status_of
from tunix_rt_kit.serving.logging import get_logger

MAX_ENTRIES: Final = 10_000
"""Entries of one repeated field of the contract, or spans of one scope. Most fields take fewer, as their
services say."""
MAX_FIELDS: Final = 500_000
"""Fields of one request, all messages in it together."""

# Messages of these packages are looked into; attributes of spans may hold one another, and are not.
_PACKAGES: Final = ("tunix_rt.", "opentelemetry.proto.trace.", "opentelemetry.proto.collector.trace.")
# A shorter message cannot hold too many entries: the shortest, packed numbers, take a byte each.
_SMALL: Final = MAX_ENTRIES
_MAX_DEPTH: Final = 100  # of protobuf's own reader
_CONTINUED: Final = bytes(range(0x80, 0x100))
_FIXED: Final = {1: 8, 5: 4}  # bytes of a value by wire type
_BYTES: Final = 2  # the wire type of texts, messages and packed numbers

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
                        return await behavior(await received(request), context)
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
    taken, given = (
        "stream" if streaming else "unary"
        for streaming in (handler.request_streaming, handler.response_streaming)
    )
    kind = f"{taken}_{given}"
    behavior = (stream if handler.response_streaming else unary)(getattr(handler, kind))
    make = getattr(grpc, f"{kind}_rpc_method_handler")
    return make(behavior, request_deserializer=None, response_serializer=handler.response_serializer)


def check_bounds(descriptor: Descriptor, data: bytes) -> None:
    """Refuse an encoded message with more than ``MAX_ENTRIES`` in one repeated field.

    Free-form JSON (``google.protobuf.Struct``) is skipped; ``plain_struct`` counts that.

    Raises InvalidArgument: TOO_MANY_ENTRIES, which names the field; REQUEST_MALFORMED.
    """
    if len(data) <= _SMALL:
        return
    try:
        _Count(data).message(descriptor, 0, len(data), "", {}, 0)
    except IndexError as error:
        raise malformed() from error


def malformed() -> InvalidArgument:
    """The error for bytes that are no message of a method's type."""
    return InvalidArgument("the request is not a message of this method's type", reason="REQUEST_MALFORMED")


@dataclass(frozen=True, slots=True)
class _Field:
    """A field that is repeated, or that holds a message (``inner``) in which there may be such a field."""

    name: str
    repeated: bool
    inner: Descriptor | None
    packed: bool


class _Count:
    """Counts the entries in the bytes of one request."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._left = MAX_FIELDS

    def message(
        self, descriptor: Descriptor, at: int, end: int, path: str, counts: dict[str, Any], depth: int
    ) -> None:
        """Count the message between two places.

        ``counts`` is shared by its parts: a field that comes twice is merged.
        """
        fields = _fields(descriptor)
        if depth > _MAX_DEPTH:
            raise malformed()
        while at < end:
            self._take(1)
            tag, at = self._number(at)
            begin, kind = at, tag & 7
            if kind == _BYTES:
                length, begin = self._number(at)
                at = begin + length
            elif kind == 0:
                _, at = self._number(at)
            elif kind in _FIXED:
                at += _FIXED[kind]
            else:
                raise malformed()  # Groups, of which the contract has none.
            if at > end:
                raise malformed()
            field = fields.get(tag >> 3)
            if field is None:
                continue
            inner = field.inner if kind == _BYTES else None
            if not field.repeated:
                if inner is not None:
                    parts = counts.setdefault(field.name, {})
                    self.message(inner, begin, at, f"{path}{field.name}.", parts, depth + 1)
                continue
            before = counts.get(field.name, 0)
            packed = field.packed and kind == _BYTES
            counts[field.name] = before + (self._packed(begin, at) if packed else 1)
            if counts[field.name] > MAX_ENTRIES:
                raise _too_many(f"{path}{field.name}", "entries", MAX_ENTRIES)
            if inner is not None and at - begin > _SMALL:
                self.message(inner, begin, at, f"{path}{field.name}[{before}].", {}, depth + 1)

    def _packed(self, begin: int, end: int) -> int:
        """How many numbers of variable length lie between two places."""
        return len(self._data[begin:end].translate(None, _CONTINUED))

    def _take(self, number: int) -> None:
        self._left -= number
        if self._left < 0:
            raise _too_many("", "fields", MAX_FIELDS)

    def _number(self, at: int) -> tuple[int, int]:
        """A number of variable length, and the place behind it."""
        byte = self._data[at]
        number, shift = byte & 0x7F, 0
        while byte > 0x7F:
            at, shift = at + 1, shift + 7
            if shift > 63:
                raise malformed()
            byte = self._data[at]
            number |= (byte & 0x7F) << shift
        return number, at + 1


def _too_many(field: str, what: str, most: int) -> InvalidArgument:
    description = f"holds more than {most:,} {what}; at most {most:,} would be right"
    reason = "TOO_MANY_ENTRIES"
    if not field:
        return InvalidArgument(f"the request: {description}", reason=reason)
    return InvalidArgument.of_field(field, description, reason=reason)


@cache
def _fields(descriptor: Descriptor) -> Mapping[int, _Field]:
    """The fields of a message that matter, by number."""
    return {
        field.number: _Field(
            name=field.name,
            repeated=field.is_repeated,
            inner=field.message_type if _holds_entries(field) else None,
            packed=field.is_packed,
        )
        for field in descriptor.fields
        if field.is_repeated or _holds_entries(field)
    }


def _holds_entries(field: FieldDescriptor) -> bool:
    inner = field.message_type
    return (
        inner is not None
        and inner.full_name.startswith(_PACKAGES)
        and any(part.is_repeated or _holds_entries(part) for part in inner.fields)
    )
