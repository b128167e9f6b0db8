"""What a call's work does when nobody waits for it any more."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from sqlalchemy import text

from support import echo
from support.serving import assert_ends_when_left
from tunix_rt.wire import open_aio_channel, open_channel
from tunix_rt_kit import callers
from tunix_rt_kit.callers import CallerLeft, begin_call, check, current_caller, ended_by_leaving, holding
from tunix_rt_kit.database import Database
from tunix_rt_kit.jobs.line_child import LineChild
from tunix_rt_kit.serving.calls import answer_of, answers_of, iterate_blocking, run_blocking
from tunix_rt_kit.serving.server import ServiceRegistration, running_server
from tunix_rt_kit.serving.settings import ServerSettings

FOREVER = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c"
# A child that never answers.
SILENT = "import sys\nprint('ready', flush=True)\nfor line in sys.stdin:\n    pass\n"


async def left_after(work: Callable[[], Any], seconds: float = 0.2) -> float:
    """How long ``work`` goes on after its caller has left; it must end by that."""
    ended = threading.Event()

    def noted() -> None:
        try:
            work()
        except CallerLeft:
            ended.set()
            raise

    begin_call()
    task = asyncio.ensure_future(run_blocking(noted))
    await asyncio.sleep(seconds)
    assert not task.done()
    task.cancel()
    left = time.monotonic()
    while not ended.is_set():
        await asyncio.sleep(0.02)
        assert time.monotonic() - left < 5
    return time.monotonic() - left


def loops() -> None:
    while True:
        check()


async def test_a_loop_ends_that_looks_whether_its_caller_is_there() -> None:
    assert await left_after(loops) < 1


async def test_waiting_for_a_lock_ends() -> None:
    lock = threading.Lock()
    with lock:
        assert await left_after(lambda: holding(lock).__enter__()) < 1
    assert lock.acquire(blocking=False)


async def test_a_statement_of_a_database_ends_and_the_connection_is_of_use_again(database_url: str) -> None:
    database = Database(database_url)

    def reads() -> None:
        with database.read() as session:
            session.execute(text(FOREVER))

    def writes() -> None:
        with database.write() as session:
            session.execute(text(FOREVER))

    def answers() -> None:
        with database.read() as session:
            session.execute(text("SELECT 1"))

    try:
        assert await left_after(reads, 0.5) < 1
        assert await left_after(writes, 0.5) < 1
        begin_call()
        await run_blocking(answers)
    finally:
        database.close()


async def test_what_was_stored_is_carried_to_its_end(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/x.db")
    stored, goes_on, done = threading.Event(), threading.Event(), threading.Event()

    def creates() -> None:
        with database.write() as session:
            session.execute(text("CREATE TABLE a (b INTEGER)"))
        stored.set()
        goes_on.wait(5)
        check()
        with database.read() as session:
            session.execute(text("SELECT * FROM a"))
        done.set()

    begin_call()
    task = asyncio.ensure_future(run_blocking(creates))
    await asyncio.to_thread(stored.wait, 5)
    task.cancel()
    goes_on.set()
    assert await asyncio.to_thread(done.wait, 5)
    database.close()


async def test_a_child_that_is_busy_is_ended_and_the_next_caller_gets_another(tmp_path: Path) -> None:
    script = tmp_path / "silent.py"
    script.write_text(SILENT)
    child = LineChild(script)
    assert await left_after(lambda: child.exchange(b"hello", 60), 2.0) < 1
    script.write_text(SILENT.replace("pass", "print('answer', flush=True)"))
    begin_call()
    assert await run_blocking(child.exchange, b"hello", 60) == b"answer"
    child.close()


async def test_work_that_never_began_does_not_begin() -> None:
    begin_call()
    caller = current_caller()
    assert caller is not None
    caller.leave()
    with pytest.raises(CallerLeft), ended_by_leaving(lambda: None):
        pytest.fail("it began")
    with pytest.raises(CallerLeft), holding(threading.Lock()):
        pytest.fail("it began")
    with callers.for_nobody():
        check()


async def busy(request: StringValue, _: Any) -> StringValue:
    if request.value == "wait":
        await run_blocking(loops)
    return request


async def busy_stream(request: StringValue, _: Any) -> AsyncIterator[StringValue]:
    def parts() -> Iterator[StringValue]:
        yield request
        loops()

    async for part in iterate_blocking(parts):
        yield part


def add(server: grpc.aio.Server) -> None:
    codec: dict[str, Any] = {
        "request_deserializer": StringValue.FromString,
        "response_serializer": StringValue.SerializeToString,
    }
    handlers = {
        "UnaryUnary": grpc.unary_unary_rpc_method_handler(busy, **codec),
        "UnaryStream": grpc.unary_stream_rpc_method_handler(busy_stream, **codec),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(echo.FULL_NAME, handlers),))


@pytest.fixture
async def address() -> AsyncIterator[str]:
    settings = ServerSettings(listen="127.0.0.1:0", shutdown_grace_s=0.2)
    async with running_server(settings, [ServiceRegistration(echo.FULL_NAME, add)]) as running:
        yield running.address


@pytest.mark.parametrize("kind", ["UnaryUnary", "UnaryStream"])
async def test_a_server_stops_working_for_a_client_that_has_left(address: str, kind: str) -> None:
    async with open_aio_channel(address) as channel:
        await assert_ends_when_left(asyncio.ensure_future(echo.call(channel, kind, "wait")))


async def test_a_call_to_another_service_ends_with_the_call_that_it_is_made_in(address: str) -> None:
    codec: dict[str, Any] = {
        "request_serializer": StringValue.SerializeToString,
        "response_deserializer": StringValue.FromString,
    }
    path, wait = f"/{echo.FULL_NAME}/", StringValue(value="wait")
    with open_channel(address) as channel:
        unary = channel.unary_unary(f"{path}UnaryUnary", **codec)
        stream = channel.unary_stream(f"{path}UnaryStream", **codec)
        assert await left_after(lambda: answer_of(unary, wait, 60), 0.5) < 1
        assert await left_after(lambda: list(answers_of(stream, wait, 60)), 0.5) < 1


async def test_a_function_that_ends_in_stop_iteration_fails_and_does_not_hang() -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        await asyncio.wait_for(run_blocking(next, iter(())), 10)
