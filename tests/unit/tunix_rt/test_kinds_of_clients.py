"""What takes a client says so where it is given the one of the other kind."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from tunix_rt import AsyncClient, Client, importing, jobs, loop
from tunix_rt.aio import importing as aio_importing
from tunix_rt.aio import jobs as aio_jobs
from tunix_rt.aio import loop as aio_loop

AWAY = "127.0.0.1:1"


def taking_a_client(*modules: Any) -> list[Callable[..., Any]]:
    """The public functions of modules that take a client."""
    found = [
        function
        for module in modules
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if name in getattr(module, "__all__", dir(module))
        and "client" in inspect.signature(function).parameters
    ]
    return [function for function in found if not function.__name__.startswith(("_", "check"))]


def given(function: Callable[..., Any], client: object) -> Any:
    """What a call with this client returns; its other arguments do not matter."""
    needed = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is inspect.Parameter.empty and name != "client"
    ]
    return function(client=client, **dict.fromkeys(needed))


@pytest.mark.parametrize(
    "function", taking_a_client(importing, jobs, loop), ids=lambda function: function.__name__
)
async def test_a_synchronous_function_names_the_one_in_asyncio(function: Callable[..., Any]) -> None:
    async with AsyncClient(AWAY) as client:
        with pytest.raises(TypeError) as caught:
            given(function, client)
    name, home = function.__name__, function.__module__
    aio = home.replace("tunix_rt.", "tunix_rt.aio.")
    assert str(caught.value) == (
        f"{name} of {home} takes a tunix_rt.Client; {aio}.{name} takes the AsyncClient that it was given"
    )


@pytest.mark.parametrize(
    "function", taking_a_client(aio_importing, aio_jobs, aio_loop), ids=lambda function: function.__name__
)
async def test_a_function_in_asyncio_names_the_synchronous_one(function: Callable[..., Any]) -> None:
    with Client(AWAY) as client, pytest.raises(TypeError) as caught:
        await given(function, client)
    name, home = function.__name__, function.__module__
    other = home.replace("aio.", "")
    assert str(caught.value) == (
        f"{name} of {home} takes a tunix_rt.AsyncClient; {other}.{name} takes the Client that it was given"
    )


def test_all_that_waits_imports_and_loops_is_there_in_both() -> None:
    names = [
        {function.__name__ for function in taking_a_client(*modules)}
        for modules in ((importing, jobs, loop), (aio_importing, aio_jobs, aio_loop))
    ]
    assert names[0] == names[1]
    assert names[0] >= {"import_traces", "run_loop", "wait_for_dataset", "wait_for_training_job"}
