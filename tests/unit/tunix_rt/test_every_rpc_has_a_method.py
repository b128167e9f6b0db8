"""The contract and the clients cannot drift apart."""

from __future__ import annotations

import inspect
import re

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor

from tunix_rt.evaluator import AsyncEvaluatorClient, EvaluatorClient
from tunix_rt.exporter import AsyncExporterClient, ExporterClient
from tunix_rt.trace_store import AsyncTraceStoreClient, TraceStoreClient
from tunix_rt.trainer import AsyncTrainerClient, TrainerClient
from tunix_rt.wire import is_retried, services

CLIENTS = {
    "TraceStore": (TraceStoreClient, AsyncTraceStoreClient),
    "Exporter": (ExporterClient, AsyncExporterClient),
    "Trainer": (TrainerClient, AsyncTrainerClient),
    "Evaluator": (EvaluatorClient, AsyncEvaluatorClient),
}
METHODS = [method for service in services() for method in service.methods]
# The client deals with these itself: it goes on with a stream or a download that broke.
OWN_FIELDS = {"after_sequence", "offset"}


def snake_case(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def test_every_service_has_its_clients() -> None:
    assert {service.name for service in services()} == set(CLIENTS)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_every_rpc_has_a_method_on_both_clients(method: MethodDescriptor) -> None:
    for client in CLIENTS[method.containing_service.name]:
        function = getattr(client, snake_case(method.name), None)
        assert callable(function), f"{client.__name__} has no {snake_case(method.name)}"
        taken = set(inspect.signature(function).parameters) - {"self", "timeout"}
        assert taken == set(method.input_type.fields_by_name) - OWN_FIELDS, (
            f"{client.__name__}.{function.__name__}"
        )
        assert inspect.getdoc(function)


def test_both_clients_have_the_same_signatures() -> None:
    for client, async_client in CLIENTS.values():
        names = {name for name in vars(client) if not name.startswith("_")}
        assert names == {name for name in vars(async_client) if not name.startswith("_")}
        for name in names:
            parameters = inspect.signature(getattr(client, name)).parameters
            assert parameters == inspect.signature(getattr(async_client, name)).parameters, name


def test_calls_that_could_happen_twice_are_not_retried() -> None:
    once = {method.name for method in METHODS if not is_retried(method)}
    assert {name for name in once if "Delete" not in name} == {"ScoreTrace", "BatchScoreTraces"}
    assert {method.name for method in METHODS if method.name.startswith("Delete")} <= once


def test_calling_the_stub_methods_uses_the_contract_names() -> None:
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        for service in services():
            client = CLIENTS[service.name][0](channel, None)  # type: ignore[arg-type]
            assert {method.name for method in service.methods} <= set(vars(client._stub))
