"""Every method of both clients sends the request of its RPC, each argument in the field of its name."""

from __future__ import annotations

import hashlib
import inspect
import io
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from support.threaded import fake_server
from tunix_rt import AsyncClient, Client, v1
from tunix_rt.wire import services

METHODS = [method for service in services() for method in service.methods]
OWN_FIELDS = {"after_sequence", "offset"}
EMPTY_FILE = v1.DownloadHeader(digest=f"sha256:{hashlib.sha256(b'').hexdigest()}")


def snake_case(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


class Recorder(grpc.GenericRpcHandler):
    """Answers every call of the contract with an empty message, and keeps what was asked."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, bytes]] = []
        self._methods = {f"/{m.containing_service.full_name}/{m.name}": m for m in METHODS}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = self._methods[handler_call_details.method]

        def answer(request: bytes) -> Any:
            self.requests.append((method.name, request))
            response = GetMessageClass(method.output_type)()
            if "header" in method.output_type.fields_by_name and method.name.startswith("Read"):
                response.header.CopyFrom(EMPTY_FILE)
            return response

        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(
                lambda request, _: iter([answer(request)]),
                response_serializer=lambda message: message.SerializeToString(),
            )
        return grpc.unary_unary_rpc_method_handler(
            lambda request, _: answer(request),
            response_serializer=lambda message: message.SerializeToString(),
        )


def sample(field: FieldDescriptor) -> Any:
    """A value for a field that is not its default."""
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        message = GetMessageClass(field.message_type)()
        fields = field.message_type.fields
        scalars = (inner for inner in fields if inner.type != FieldDescriptor.TYPE_MESSAGE)
        # One that holds nothing but messages, such as a grader, gets the first of them.
        inner = next(scalars, fields[0] if fields else None)
        if inner is None:
            message.SetInParent()
        elif inner.is_repeated:
            getattr(message, inner.name).extend(sample(inner))
        elif inner.type == FieldDescriptor.TYPE_MESSAGE:
            getattr(message, inner.name).CopyFrom(sample(inner))
        else:
            setattr(message, inner.name, sample(inner))
        return [message] if field.is_repeated else message
    value = field.name if field.type == FieldDescriptor.TYPE_STRING else 1
    return [value] if field.is_repeated else value


def arguments_of(method: MethodDescriptor) -> dict[str, Any]:
    return {field.name: sample(field) for field in method.input_type.fields if field.name not in OWN_FIELDS}


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def address(recorder: Recorder) -> Iterator[str]:
    with fake_server(lambda server: server.add_generic_rpc_handlers((recorder,))) as address:
        yield address


def check(recorder: Recorder, method: MethodDescriptor) -> None:
    ((name, data),) = recorder.requests
    request = GetMessageClass(method.input_type)
    assert name == method.name
    assert request.FromString(data) == request(**arguments_of(method))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_a_call_sends_its_request(address: str, recorder: Recorder, method: MethodDescriptor) -> None:
    with Client(address) as client:
        calls = getattr(client, snake_case(method.containing_service.name))
        answer = getattr(calls, snake_case(method.name))(**arguments_of(method))
        if hasattr(answer, "__iter__") and not isinstance(answer, bytes):
            list(answer)
    check(recorder, method)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
async def test_a_call_in_asyncio_sends_its_request(
    address: str, recorder: Recorder, method: MethodDescriptor
) -> None:
    async with AsyncClient(address) as client:
        calls = getattr(client, snake_case(method.containing_service.name))
        answer = getattr(calls, snake_case(method.name))(**arguments_of(method))
        if inspect.isawaitable(answer):
            await answer
        else:
            assert isinstance(answer, AsyncIterator) or hasattr(answer, "__aiter__")
            _ = [entry async for entry in answer]
    check(recorder, method)


DOWNLOADS = [
    ("exporter", "download_dataset", {"name": "d", "split": "s"}, "ReadDataset"),
    ("trainer", "download_checkpoint_file", {"name": "c", "path": "p"}, "ReadCheckpointFile"),
    ("evaluator", "download_comparison_report", {"name": "r"}, "ReadComparisonReport"),
]


@pytest.mark.parametrize(("service", "name", "arguments", "rpc"), DOWNLOADS)
async def test_downloads_write_files(
    address: str,
    recorder: Recorder,
    tmp_path: Path,
    service: str,
    name: str,
    arguments: dict[str, str],
    rpc: str,
) -> None:
    place = "to" if service == "trainer" else "path"
    with Client(address) as client:
        getattr(getattr(client, service), name)(**arguments, **{place: tmp_path / "sync"})
    async with AsyncClient(address) as async_client:
        await getattr(getattr(async_client, service), name)(**arguments, **{place: tmp_path / "async"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["async", "sync"]
    assert [called for called, _ in recorder.requests] == [rpc, rpc]
    assert recorder.requests[0] == recorder.requests[1]


@pytest.mark.parametrize(
    ("name", "arguments", "rpc"),
    [
        ("read_dataset_into", {"name": "d", "split": "s", "format": 2}, "ReadDataset"),
        ("read_dropped_rows_into", {"name": "d"}, "ReadDroppedRows"),
    ],
)
async def test_downloads_go_into_open_files(
    address: str, recorder: Recorder, name: str, arguments: dict[str, Any], rpc: str
) -> None:
    with Client(address) as client:
        assert getattr(client.exporter, name)(file=io.BytesIO(), **arguments) == EMPTY_FILE
    async with AsyncClient(address) as async_client:
        assert await getattr(async_client.exporter, name)(file=io.BytesIO(), **arguments) == EMPTY_FILE
    sent = GetMessageClass(next(m for m in METHODS if m.name == rpc).input_type)(**arguments)
    assert [(called, sent.FromString(data)) for called, data in recorder.requests] == [(rpc, sent)] * 2


@pytest.mark.parametrize("method", [m for m in METHODS if "request_id" in m.input_type.fields_by_name])
def test_creates_carry_a_fresh_request_id(address: str, recorder: Recorder, method: MethodDescriptor) -> None:
    arguments = arguments_of(method)
    del arguments["request_id"]
    with Client(address) as client:
        create = getattr(getattr(client, snake_case(method.containing_service.name)), snake_case(method.name))
        create(**arguments)
        create(**arguments)
    ids = [GetMessageClass(method.input_type).FromString(data).request_id for _, data in recorder.requests]
    assert len(set(ids)) == 2
    assert all(1 <= len(request_id) <= 64 for request_id in ids)


class Deadlines(v1.TrainerServicer):
    """Keeps how long each caller would wait."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def CreateTrainingJob(self, _: v1.CreateTrainingJobRequest, context: Any) -> v1.TrainingJob:
        self.seconds.append(context.time_remaining())
        return v1.TrainingJob()


async def test_a_training_job_may_take_long_to_be_admitted() -> None:
    trainer = Deadlines()
    with fake_server(lambda server: v1.add_TrainerServicer_to_server(trainer, server)) as address:
        with Client(address, timeout=5) as client:
            client.trainer.create_training_job(v1.TrainingSpec())
        async with AsyncClient(address, timeout=5) as client:
            await client.trainer.create_training_job(v1.TrainingSpec())
            await client.trainer.create_training_job(v1.TrainingSpec(), timeout=20)
    assert [round(seconds, -1) for seconds in trainer.seconds] == [600, 600, 20]
