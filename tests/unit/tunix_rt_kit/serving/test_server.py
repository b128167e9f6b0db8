"""A real server behind a real channel."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal

import grpc
import psutil
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from support import echo
from tunix_rt.wire import open_aio_channel, open_channel
from tunix_rt_kit.errors import FailedPrecondition, NotFound, Unavailable
from tunix_rt_kit.serving.calls import domain_error
from tunix_rt_kit.serving.server import (
    BuiltService,
    LazyServices,
    RunningServer,
    StartError,
    running_server,
    serve,
)
from tunix_rt_kit.serving.settings import ServerSettings


def settings(**values: Any) -> ServerSettings:
    return ServerSettings(**{"listen": "127.0.0.1:0", "shutdown_grace_s": 2.0, **values})


@asynccontextmanager
async def echo_server(**values: Any) -> AsyncIterator[tuple[RunningServer, grpc.aio.Channel]]:
    async with (
        running_server(settings(**values), [echo.REGISTRATION]) as running,
        open_aio_channel(running.address) as channel,
    ):
        yield running, channel


def details(error: grpc.aio.AioRpcError) -> tuple[error_details_pb2.ErrorInfo, error_details_pb2.BadRequest]:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        if not detail.Unpack(info):
            assert detail.Unpack(bad)
    return info, bad


@pytest.mark.parametrize("kind", echo.KINDS)
async def test_every_kind_of_handler_answers_and_returns_the_request_id(kind: str) -> None:
    async with echo_server() as (_, channel):
        answers, rpc = await echo.call(channel, kind, "hello", metadata=(("x-request-id", "mine-1"),))
        assert answers[-1] == "hello"
        assert ("x-request-id", "mine-1") in list(await rpc.trailing_metadata())


class Builds:
    """Counts what is done with a lazy service, whose first start fails."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __call__(self) -> BuiltService:
        def start() -> None:
            self.calls.append("start")
            if len(self.calls) == 1:
                raise FailedPrecondition("the disk is away", reason="DISK_AWAY")

        return BuiltService(
            echo.REGISTRATION,
            start,
            lambda: self.calls.append("stop"),
            lambda *, only_ends: self.calls.append(f"only ends: {only_ends}"),
        )


@pytest.mark.parametrize("jobs", ["end", "leave"])
async def test_a_lazy_service_starts_with_its_first_call_and_the_others_do_not(
    jobs: Literal["end", "leave"],
) -> None:
    echoing, other = Builds(), Builds()
    lazy = LazyServices({echo.FULL_NAME: echoing, "tunix_rt.test.Other": other}, jobs)
    async with (
        running_server(settings(), [], lazy=lazy) as running,
        open_aio_channel(running.address) as channel,
    ):
        assert echoing.calls == []
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await echo.call(channel, "UnaryStream", "hello")
        assert details(caught.value)[0].reason == "DISK_AWAY"
        calls = [echo.call(channel, kind, "hello") for kind in (*echo.KINDS, *echo.KINDS)]
        assert [answers[-1] for answers, _ in await asyncio.gather(*calls)] == ["hello"] * len(calls)
    lazy.stop()
    started = ["start", "only ends: True"] if jobs == "end" else ["start"]
    assert echoing.calls == ["start", "stop", *started, "stop"]
    assert other.calls == []


async def test_a_request_id_that_is_no_plain_token_is_replaced() -> None:
    async with echo_server() as (_, channel):
        for offered in ("two words", "x" * 129):
            _, rpc = await echo.call(channel, "UnaryUnary", "hi", metadata=(("x-request-id", offered),))
            returned = dict(list(await rpc.trailing_metadata()))["x-request-id"]
            assert len(returned) == 32 and returned != offered


@pytest.mark.parametrize("kind", echo.KINDS)
async def test_a_domain_error_arrives_with_code_reason_and_metadata(kind: str) -> None:
    async with echo_server() as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await echo.call(channel, kind, "domain")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == "no such echo"
    info, _ = details(caught.value)
    assert (info.reason, info.domain, dict(info.metadata)) == ("ECHO_NOT_FOUND", "tunix-rt", {"echo": "x"})
    assert "x-request-id" in dict(list(caught.value.trailing_metadata()))


@pytest.mark.parametrize("kind", echo.KINDS)
async def test_field_violations_arrive_as_bad_request(kind: str) -> None:
    async with echo_server() as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await echo.call(channel, kind, "fields")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    found = [(entry.field, entry.description) for entry in details(caught.value)[1].field_violations]
    assert found == [("a.b", "must be 1"), ("c", "must be 2")]


async def test_more_violations_than_metadata_carries_are_cut_and_counted() -> None:
    async with echo_server() as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await echo.call(channel, "UnaryUnary", "many")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    info, bad = details(caught.value)
    assert int(info.metadata["violations_omitted"]) + len(bad.field_violations) == 1000
    assert bad.field_violations[0].field == "rows[0]"


@pytest.mark.parametrize("kind", echo.KINDS)
async def test_an_unknown_exception_is_a_bland_internal_and_a_log_line(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="tunix_rt.serving"):
        async with echo_server() as (_, channel):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await echo.call(channel, kind, "bug", metadata=(("x-request-id", "find-me"),))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert caught.value.details() == "internal error; request id find-me"
    assert "secret" not in str(caught.value.trailing_metadata())
    events = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    (unexpected,) = [event for event in events if event["event"] == "unexpected_error"]
    assert unexpected["request_id"] == "find-me"
    assert isinstance(unexpected["exc_info"], KeyError)


@pytest.mark.parametrize(
    ("word", "code"),
    [("hello", "OK"), ("domain", "NOT_FOUND"), ("bug", "INTERNAL"), ("abort", "OUT_OF_RANGE")],
)
async def test_each_call_gives_one_access_log_line(
    word: str, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="tunix_rt.serving"):
        async with echo_server() as (_, channel):
            try:
                await echo.call(channel, "UnaryUnary", word)
            except grpc.aio.AioRpcError as error:
                assert error.code().name == code
    lines = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    (line,) = [entry for entry in lines if entry["event"] == "rpc"]
    assert (line["method"], line["code"]) == (f"/{echo.FULL_NAME}/UnaryUnary", code)
    assert line["milliseconds"] >= 0 and line["request_id"]


@pytest.mark.parametrize("kind", ["unary_unary", "stream_unary"])
async def test_bytes_that_are_no_message_are_the_callers_mistake(kind: str) -> None:
    async with echo_server() as (_, channel):
        path = f"/{echo.FULL_NAME}/{'UnaryUnary' if kind == 'unary_unary' else 'StreamUnary'}"
        junk = b"\x0a\xff\xff"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            if kind == "unary_unary":
                await channel.unary_unary(path)(junk)
            else:
                await channel.stream_unary(path)([junk])
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details(caught.value)[0].reason == "REQUEST_MALFORMED"


async def test_a_message_over_the_limit_is_refused_by_both_sides() -> None:
    async with echo_server(max_message_bytes=2048) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await echo.call(channel, "UnaryUnary", "x" * 4096)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_health_and_reflection_name_the_service() -> None:
    async with echo_server() as (_, channel):
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", echo.FULL_NAME):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(health_pb2.HealthCheckRequest(service="nobody"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        async for answer in reflection.ServerReflectionInfo(iter([request])):
            names = {service.name for service in answer.list_services_response.service}
            assert {echo.FULL_NAME, "grpc.health.v1.Health"} <= names
            break


async def test_a_port_in_use_is_one_clear_error() -> None:
    async with echo_server() as (running, _):
        with pytest.raises(StartError) as caught:
            async with running_server(settings(listen=running.address), [echo.REGISTRATION]):
                pytest.fail("two servers share a port")
    assert str(caught.value) == (
        f"cannot listen on {running.address}: the port is in use, or the address is not this machine's"
    )


@asynccontextmanager
async def serving(**values: Any) -> AsyncIterator[tuple[asyncio.Event, asyncio.Task[None], grpc.aio.Channel]]:
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    server = asyncio.create_task(
        serve(settings(**values), [echo.REGISTRATION], stop=stop, on_ready=ready.set_result)
    )
    async with open_aio_channel(await ready) as channel:
        yield stop, server, channel
    stop.set()
    await server


async def test_stop_lets_a_running_call_end() -> None:
    async with serving() as (stop, server, channel):
        slow = asyncio.create_task(echo.call(channel, "UnaryUnary", "slow"))
        await asyncio.sleep(0.1)
        stop.set()
        assert (await slow)[0] == ["slow"]
        await server


async def test_a_call_that_outlives_the_grace_is_cut() -> None:
    async with serving(shutdown_grace_s=0.2) as (stop, server, channel):
        hanging = asyncio.create_task(echo.call(channel, "UnaryUnary", "hang"))
        await asyncio.sleep(0.1)
        stop.set()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await hanging
        await server
        assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


async def test_health_says_not_serving_while_the_server_ends() -> None:
    async with serving() as (stop, _, channel):
        slow = asyncio.create_task(echo.call(channel, "UnaryUnary", "slow"))
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(service=echo.FULL_NAME)
        )
        seen = [(await watch.read()).status]
        stop.set()
        seen.append((await watch.read()).status)
        watch.cancel()
        await slow
    assert seen == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING]


async def test_a_failed_call_becomes_the_same_domain_error_in_the_calling_service() -> None:
    async with echo_server() as (running, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await echo.call(channel, "UnaryUnary", "domain")
        again = domain_error(caught.value, "the echo")
        assert isinstance(again, NotFound) and again.reason == "ECHO_NOT_FOUND"
        assert again.metadata == {"echo": "x"}
    with open_channel(running.address) as gone, pytest.raises(grpc.RpcError) as dead:
        gone.unary_unary(
            f"/{echo.FULL_NAME}/UnaryUnary",
            request_serializer=StringValue.SerializeToString,
            response_deserializer=StringValue.FromString,
        )(StringValue(value="x"), timeout=5)
    unavailable = domain_error(dead.value, "the echo")
    assert isinstance(unavailable, Unavailable) and unavailable.reason == "UPSTREAM_UNAVAILABLE"
    assert str(unavailable).startswith("the echo is not reachable")


MAIN = """
import sys
from contextlib import suppress
from support import echo
from tunix_rt_kit.serving.server import BuiltService, run_service
from tunix_rt_kit.serving.settings import ServerSettings

def build(settings, stop):
    return BuiltService(echo.REGISTRATION, lambda: None, lambda: print("taken down", flush=True))

def migrate(settings):
    print(settings.log_level)

sys.exit(run_service(ServerSettings, build, migrate, program="echo"))
"""


def launch(*arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *arguments],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_gracefully(number: int) -> None:
    process = launch("--listen", "127.0.0.1:0")
    assert process.stderr is not None and process.stdout is not None
    line = json.loads(process.stderr.readline())
    assert line["event"] == "serving" and line["services"] == [echo.FULL_NAME]
    with open_channel(line["address"]) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert out == "taken down\n"
    events = [json.loads(entry)["event"] for entry in err.splitlines()]
    assert events == ["stopping", "stopped"]


async def test_a_signal_ends_the_process_whatever_a_thread_does() -> None:
    process = launch("--listen", "127.0.0.1:0", "--shutdown-grace-s", "1")
    assert process.stderr is not None
    address = json.loads(process.stderr.readline())["address"]
    async with open_aio_channel(address) as channel:
        call = asyncio.ensure_future(echo.call(channel, "UnaryUnary", "stuck"))
        await asyncio.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        _, err = await asyncio.to_thread(process.communicate, timeout=20)
        assert time.monotonic() - began < 4
        assert process.returncode == 1
        assert "run_blocking" not in err and "Thread 0x" in err
        with pytest.raises(grpc.aio.AioRpcError):
            await call


async def test_sigterm_ends_the_process_also_while_the_interpreters_lock_is_held() -> None:
    process = launch("--listen", "127.0.0.1:0", "--shutdown-grace-s", "1")
    assert process.stderr is not None
    address = json.loads(process.stderr.readline())["address"]
    (watchdog,) = psutil.Process(process.pid).children()
    async with open_aio_channel(address) as channel:
        call = asyncio.ensure_future(echo.call(channel, "UnaryUnary", "locked"))
        await asyncio.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        await asyncio.to_thread(process.communicate, timeout=20)
        assert time.monotonic() - began < 4
        assert process.returncode == -signal.SIGKILL
        with pytest.raises(grpc.aio.AioRpcError):
            await call
    with suppress(psutil.NoSuchProcess):
        watchdog.wait(5)
    assert not watchdog.is_running()


def test_a_server_whose_watchdog_was_killed_serves_on_and_ends_well() -> None:
    process = launch("--listen", "127.0.0.1:0")
    assert process.stderr is not None
    process.stderr.readline()
    for child in psutil.Process(process.pid).children():
        child.kill()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "taken down\n"), err


def test_bad_settings_and_a_failed_start_are_one_line_each() -> None:
    out, err = launch("--listen", "nowhere").communicate(timeout=20)
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("echo: listen: 'nowhere' is not accepted: it must be host:port")
    process = launch("--listen", "192.0.2.1:1")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert err.splitlines()[-1].startswith("echo: cannot listen on 192.0.2.1:1")


def test_a_command_runs_instead_of_the_server() -> None:
    process = launch("migrate", "--log-level", "debug")
    assert process.communicate(timeout=20)[0] == "debug\n"
    assert process.returncode == 0
