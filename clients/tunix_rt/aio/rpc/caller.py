"""One call: its deadline, its request id, its pages, its errors."""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Final, TypeVar

import grpc
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import code_pb2, status_pb2

from tunix_rt.aio.rpc.pager import AsyncPager, Item, PageType
from tunix_rt.errors import DeadlineExceededError, FieldViolation, TunixRtError, UnavailableError, class_of
from tunix_rt.wire import REQUEST_ID_KEY, error_facts, failed_call

if TYPE_CHECKING:
    from google.protobuf.message import Message

Request = TypeVar("Request", bound="Message")
Response = TypeVar("Response", bound="Message")

# Seconds without an answer, since the first call that got none, after which it is told that nothing listens,
# or that a server which does gives no answer.
_AWAY_S: Final = 0.5
_SILENT_S: Final = 3.0
# How long gRPC tries a call again by itself, and how long it may take to find that nothing listens.
_TRIED_S: Final = 3.0
_KNOCK_S: Final = 0.5
_NOT_THERE = (
    "connection refused",
    "failed to connect",
    "dns resolution",
    "name resolution",
    "no route to host",
)


# What makes a call again and again says here for how long.
_patience: ContextVar[float] = ContextVar("tunix_rt_patience", default=_TRIED_S)


class Waited(str):
    """The address of a server that gives no answer. ``seconds`` is how long it is tried in all; 0 for one
    that is there and busy."""

    seconds: float

    def __new__(cls, target: str, seconds: float) -> Waited:
        made = super().__new__(cls, target)
        made.seconds = seconds
        return made


class Outages:
    """Calls ``tell``, in any thread, when a client waits: once for each time that a server is away, and once
    for servers that are busy."""

    def __init__(self, tell: Callable[[Waited], None]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._told: set[str] = set()

    def away(self, target: str, seconds: float) -> None:
        """Nothing listens at ``target``, which is tried for so many seconds in all."""
        self._once(target, Waited(target, seconds))

    def busy(self, target: str) -> None:
        """There is a server at ``target``, but no answer."""
        self._once("busy", Waited(target, 0.0))

    def answered(self, target: str) -> None:
        """The server at ``target`` is not away."""
        self._told.discard(target)

    def _once(self, key: str, waited: Waited) -> None:
        with self._lock:
            if key in self._told:
                return
            self._told.add(key)
        self._tell(waited)


@contextmanager
def patient(seconds: float) -> Iterator[None]:
    """Around calls that are made again, for up to so many seconds, while the server is away."""
    token = _patience.set(seconds)
    try:
        yield
    finally:
        _patience.reset(token)


def mask_of(paths: FieldMask | Sequence[str]) -> FieldMask:
    """A field mask, which may be given by its paths."""
    return paths if isinstance(paths, FieldMask) else FieldMask(paths=paths)


def fresh(request_id: str | None) -> str:
    """``request_id``, or a new one for None, so that every create can be sent again safely."""
    return request_id or uuid.uuid4().hex


class AsyncCaller:
    """Makes calls to one server.

    Args:
        target: its address.
        timeout: seconds that a unary call may take.
        outages: is told when an answer is long in coming.
    """

    def __init__(self, target: str, timeout: float, outages: Outages | None = None) -> None:
        self.target = target
        self._timeout = timeout
        self._outages = outages
        self._away_since: float | None = None

    async def unary(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout: float | None,
    ) -> Response:
        """Send one request, take one answer. ``timeout``: seconds, None for the client's."""
        request_id = uuid.uuid4().hex
        with self._noticed() as answered:
            try:
                response = await method(
                    request,
                    timeout=self._timeout if timeout is None else timeout,
                    metadata=((REQUEST_ID_KEY, request_id),),
                )
            except grpc.RpcError as error:
                raise error_of_call(error, self.target, request_id) from error
            answered()
            return response

    def pages(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Any, PageType],
        request: Any,
        items: Callable[[PageType], Iterable[Item]],
        timeout: float | None,
    ) -> AsyncPager[Item, PageType]:
        """The ``items`` of a listing, from the page on that ``request`` asks for."""

        async def fetch(token: str) -> PageType:
            asked = deepcopy(request)
            asked.page_token = token
            return await self.unary(method, asked, timeout)  # type: ignore[type-var]

        return AsyncPager(fetch, items, request.page_token)

    async def stream(
        self, method: grpc.aio.UnaryStreamMultiCallable[Request, Response], request: Request
    ) -> AsyncIterator[Response]:
        """Send one request, yield the answers. Closing the iterator ends the call."""
        request_id = uuid.uuid4().hex
        call = method(request, metadata=((REQUEST_ID_KEY, request_id),))
        with self._noticed() as answered:
            try:
                async for response in call:
                    answered()
                    yield response
            except grpc.RpcError as error:
                raise error_of_call(error, self.target, request_id) from error
            finally:
                call.cancel()  # sync: call.cancel()  # type: ignore[no-untyped-call]

    @contextmanager
    def _noticed(self) -> Iterator[Callable[[], None]]:
        """Around a call: tells of it if it waits; gives what is to be called when there is an answer."""
        outages = self._outages
        if outages is None:
            yield lambda: None
            return
        began, over = time.monotonic(), threading.Event()
        first = self._away_since or began
        late = threading.Timer(
            max(0.0, first + _AWAY_S - began), self._tell, [outages, first, over, _patience.get()]
        )
        late.daemon = True
        late.start()

        def answered() -> None:
            over.set()
            late.cancel()
            self._away_since = None
            outages.answered(self.target)

        try:
            yield answered
        except (UnavailableError, DeadlineExceededError):
            self._away_since = self._away_since or began
            raise
        finally:
            over.set()
            late.cancel()

    def _tell(self, outages: Outages, first: float, over: threading.Event, patience: float) -> None:
        """Tell of a call that has waited, of a server that is there only later; ``over`` ends the wait."""
        if not _listens(self.target):
            outages.away(self.target, patience)
        elif not over.wait(max(0.0, first + _SILENT_S - time.monotonic())):
            outages.busy(self.target)


def _listens(target: str) -> bool:
    """Whether something takes connections at ``host:port`` or ``unix:PATH``."""
    path = target.removeprefix("unix:")
    try:
        if path != target:
            with socket.socket(socket.AF_UNIX) as knocking:
                knocking.settimeout(_KNOCK_S)
                knocking.connect(path)
            return True
        host, _, port = target.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_S).close()
    except (OSError, ValueError):
        return False
    return True


def error_of_call(error: grpc.RpcError, target: str, request_id: str) -> TunixRtError:
    """The library's error for a call to ``target`` that failed.

    Args:
        error: what gRPC raised: a call's own error, sync or asyncio.
        target: ``host:port`` of the server.
        request_id: the id that the call was sent with, used unless the server names another.
    """
    code, text, status, answered_id = failed_call(error)
    request_id = answered_id or request_id
    if status is not None:
        facts = facts_of_status(status)
        return class_of(code.name)(status.message or text, request_id=request_id, **facts)
    if code is grpc.StatusCode.CANCELLED and not text.startswith("Channel closed"):
        # A server that stops drops the calls that outlast its grace with this code; no caller asked for it.
        code, text = grpc.StatusCode.UNAVAILABLE, "the server stopped"
    message, reason = _plain(code, text, target)
    return class_of(code.name)(
        message, code=code.name, reason=reason, metadata={"target": target}, request_id=request_id
    )


def facts_of_status(status: status_pb2.Status) -> dict[str, Any]:
    """``code``, ``reason``, ``metadata`` and ``field_violations`` of a status, as errors take them."""
    facts = error_facts(status)
    return {
        "code": code_pb2.Code.Name(status.code),
        "reason": facts.reason,
        "metadata": facts.metadata,
        "field_violations": [
            FieldViolation(entry.field, entry.description) for entry in facts.field_violations
        ],
    }


def _plain(code: grpc.StatusCode, text: str, target: str) -> tuple[str, str]:
    """Message and reason of an error that gRPC itself made."""
    if code is grpc.StatusCode.UNAVAILABLE:
        if any(phrase in text.lower() for phrase in _NOT_THERE):
            return (
                f"no tunix-rt server at {target} (start one with `tunix-rt up`, or check the address)",
                "SERVER_NOT_FOUND",
            )
        return f"the connection to the tunix-rt server at {target} broke: {text}", "CONNECTION_BROKEN"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"the tunix-rt server at {target} did not answer in time", "DEADLINE_EXCEEDED"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return f"the server at {target} does not offer this call: {text}", "NOT_OFFERED"
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "message larger than max" in text:
        return f"a message is larger than 4 MiB: {text}", "MESSAGE_TOO_LARGE"
    return f"the server at {target} answered {code.name}: {text or 'no reason given'}", ""
