"""What servicers share: page tokens, resource names, violations, watches, worker threads."""

from __future__ import annotations

import asyncio
import base64
import contextvars
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from tunix_rt_kit.callers import begin_call, current_request_id
from tunix_rt_kit.errors import DomainError, InvalidArgument
from tunix_rt_kit.serving.calls import MAX_THREADS, iterate_blocking, run_blocking, watch_state
from tunix_rt_kit.serving.requests import (
    Paging,
    Violations,
    check_id,
    new_id,
    parse_name,
    parse_names,
)

POSITION = {"create_time": "2024-01-01T00:00:00Z", "id": "a/é", "n": 3}


def test_a_page_token_gives_its_position_back() -> None:
    token = Paging(0, "", method="f").token(POSITION)
    assert token.isascii() and "=" not in token
    following, first = Paging(0, token, method="f"), Paging(0, "", method="f")
    assert {name: following.after(name) for name in POSITION} == POSITION
    assert [first.after(name) for name in POSITION] == [None] * len(POSITION)


def test_a_token_of_another_filter_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="another filter") as caught:
        Paging(0, Paging(0, "", method="f").token(POSITION), method="g")
    assert caught.value.violations[0].field == "page_token"
    assert caught.value.reason == "PAGE_TOKEN_INVALID"


TOKEN = Paging(0, "", method="f").token(POSITION)
FORGED = base64.urlsafe_b64encode(json.dumps({"after": {}, "filter": "sha256:f"}).encode()).decode()


@pytest.mark.parametrize(
    "token", ["x", "é", "!!!!", TOKEN[:-1], TOKEN[1:], TOKEN + "AAAA", "A" * 40, FORGED, TOKEN + "\n"]
)
def test_a_made_up_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidArgument, match="not a token that this service gave"):
        Paging(0, token, method="f")


def test_page_sizes() -> None:
    assert [Paging(size, "").limit for size in (0, 1, 1000, 5000)] == [50, 1, 1000, 1000]
    assert [Paging(size, "", most=9).limit for size in (0, 1, 1000)] == [9, 1, 9]
    with pytest.raises(InvalidArgument, match="page_size: -1 is negative"):
        Paging(-1, "")


def test_resource_names() -> None:
    assert parse_name("traces/{trace}", "traces/0192-a.b_c") == "0192-a.b_c"
    pattern = "trainingJobs/{job}/checkpoints/{checkpoint}"
    assert parse_names(pattern, "trainingJobs/j1/checkpoints/39") == {"job": "j1", "checkpoint": "39"}


@pytest.mark.parametrize(
    "name",
    [
        "",
        "traces/",
        "traces/a/b",
        "trace/a",
        "traces/A",
        "traces/-a",
        "traces/a\n",
        "traces/" + "a" * 65,
        "xtraces/a",
    ],
)
def test_a_wrong_resource_name_is_named_with_its_field(name: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_name("traces/{trace}", name, field="parent")
    assert caught.value.reason == "RESOURCE_NAME_INVALID"
    assert caught.value.violations[0].field == "parent"
    assert repr(name) in str(caught.value) and "traces/{trace}" in str(caught.value)


def test_new_ids_are_ids_that_sort_by_time() -> None:
    ids = [new_id() for _ in range(1000)]
    assert ids == sorted(ids) and len(set(ids)) == 1000
    assert all(check_id(value, "id") == value == value.lower() for value in ids)


def test_violations_are_named_together() -> None:
    violations = Violations()
    violations.raise_if_any("TRACE_INVALID")
    assert violations.check(True, "a", "fine")
    assert not violations.check(False, "b", "'x' must be a number")
    violations.add("c", "must not be empty")
    with pytest.raises(InvalidArgument) as caught:
        violations.raise_if_any("TRACE_INVALID", "trace 3", metadata={"index": "3"})
    assert str(caught.value) == "trace 3: b: 'x' must be a number (and 1 more)"
    assert [violation.field for violation in caught.value.violations] == ["b", "c"]
    assert (caught.value.reason, caught.value.metadata) == ("TRACE_INVALID", {"index": "3"})


def test_a_reason_must_be_upper_snake() -> None:
    with pytest.raises(ValueError, match="UPPER_SNAKE"):
        DomainError("x", reason="trace invalid")


def states(*values: str) -> tuple[list[str], AsyncIterator[str], asyncio.Event]:
    left, stop = list(values), asyncio.Event()

    async def poll() -> str:
        return left.pop(0) if len(left) > 1 else left[0]

    watch = watch_state(poll, is_terminal=lambda state: state == "done", stop=stop, interval=0.001)
    return left, watch, stop


async def test_a_watch_gives_the_first_state_each_change_and_ends() -> None:
    _, watch, _ = states("queued", "queued", "running", "running", "done")
    assert [state async for state in watch] == ["queued", "running", "done"]


async def test_a_watch_of_what_is_over_gives_one_state() -> None:
    _, watch, _ = states("done")
    assert [state async for state in watch] == ["done"]


async def test_a_watch_ends_when_the_server_stops() -> None:
    _, watch, stop = states("running")
    seen = []
    async for state in watch:
        seen.append(state)
        stop.set()
    assert seen == ["running"]


async def test_worker_threads_see_the_request_and_leave_the_loop_free() -> None:
    begin_call("r-7")
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")
    variable.set(5)
    release = threading.Event()

    def work(factor: int, *, offset: int) -> tuple[int, str, bool]:
        release.wait(10)
        return variable.get() * factor + offset, current_request_id(), threading.current_thread() is main

    main = threading.current_thread()
    pending = asyncio.create_task(run_blocking(work, 2, offset=1))
    await asyncio.sleep(0.01)
    release.set()
    assert await pending == (11, "r-7", False)


async def test_a_service_whose_calls_all_wait_leaves_threads_to_the_others() -> None:
    release = threading.Event()

    async def call(method: str, work: Callable[[], object]) -> object:
        begin_call("", method)
        return await run_blocking(work)

    waiting = [
        asyncio.create_task(call("/tunix_rt.v1.Trainer/Create", lambda: release.wait(20)))
        for _ in range(MAX_THREADS)
    ]
    await asyncio.sleep(0.05)
    try:
        answer = await asyncio.wait_for(call("/tunix_rt.v1.Exporter/Get", lambda: "here"), 10)
    finally:
        release.set()
    assert answer == "here"
    assert all(await asyncio.gather(*waiting))


async def test_an_exception_in_a_worker_thread_arrives() -> None:
    with pytest.raises(InvalidArgument):
        await run_blocking(Paging, -1, "")


@pytest.mark.parametrize("batch", [1, 3, 100])
async def test_a_synchronous_iterator_is_iterated_and_closed(batch: int) -> None:
    closed = []

    def numbers() -> Iterator[int]:
        try:
            yield from range(10)
        finally:
            closed.append(threading.current_thread())

    assert [number async for number in iterate_blocking(numbers, batch=batch)] == list(range(10))
    stream = iterate_blocking(numbers, batch=batch)
    async for number in stream:
        if number == 4:
            break
    await stream.aclose()  # type: ignore[attr-defined]
    assert len(closed) == 2 and threading.current_thread() not in closed


async def test_many_calls_at_once_use_a_bounded_number_of_threads() -> None:
    seen = set()

    def work() -> None:
        seen.add(threading.current_thread().name)
        time.sleep(0.001)

    await asyncio.gather(*(run_blocking(work) for _ in range(200)))
    assert len(seen) <= 16
