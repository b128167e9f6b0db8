"""What a failed call tells, and which calls may be sent again, for the client and the services alike."""

from __future__ import annotations

from typing import Any

import grpc
from google.rpc import error_details_pb2

from tunix_rt.wire import error_facts, error_status, failed_call, is_retried, retried_methods, services
from tunix_rt_kit.errors import FailedPrecondition, InvalidArgument
from tunix_rt_kit.serving.calls import domain_error

WRONG = error_details_pb2.BadRequest.FieldViolation(field="spec.seed", description="is -1")


class Failed(grpc.RpcError):
    """The error of a call that ended with this code and metadata."""

    def __init__(self, code: grpc.StatusCode | None, text: str, *metadata: tuple[str, Any]) -> None:
        self.given = code, text, metadata

    def code(self) -> grpc.StatusCode | None:
        return self.given[0]

    def details(self) -> str:
        return self.given[1]

    def trailing_metadata(self) -> tuple[tuple[str, Any], ...]:
        return self.given[2]


def invalid() -> bytes:
    status = error_status(
        "INVALID_ARGUMENT",
        "spec.seed: is -1",
        reason="SPEC_INVALID",
        metadata={"a": "b"},
        field_violations=[WRONG],
    )
    return status.SerializeToString()


def test_what_is_written_into_a_status_is_read_out_of_it() -> None:
    failed = failed_call(
        Failed(
            grpc.StatusCode.INVALID_ARGUMENT,
            "a\n text",
            ("x-request-id", "r1"),
            ("grpc-status-details-bin", invalid()),
        )
    )
    assert (failed.text, failed.request_id) == ("a text", "r1")
    assert failed.status is not None
    assert error_facts(failed.status) == ("tunix-rt", "SPEC_INVALID", {"a": "b"}, [WRONG])


def test_a_status_of_another_code_than_the_calls_is_not_believed() -> None:
    error = Failed(grpc.StatusCode.INTERNAL, "broken", ("grpc-status-details-bin", invalid()))
    assert failed_call(error) == (grpc.StatusCode.INTERNAL, "broken", None, "")
    seen = domain_error(error, "the exporter")
    assert isinstance(seen, FailedPrecondition) and seen.reason == "UPSTREAM_FAILED"
    assert failed_call(Failed(None, "")).code is grpc.StatusCode.UNKNOWN


def test_an_error_of_another_domain_is_not_one_of_ours() -> None:
    status = error_status("INVALID_ARGUMENT", "no", reason="SPEC_INVALID", metadata={})
    for domain, kind in (("tunix-rt", InvalidArgument), ("googleapis.com", FailedPrecondition)):
        info = error_details_pb2.ErrorInfo(reason="SPEC_INVALID", domain=domain)
        status.details[0].Pack(info)
        error = Failed(
            grpc.StatusCode.INVALID_ARGUMENT, "no", ("grpc-status-details-bin", status.SerializeToString())
        )
        assert type(domain_error(error, "the exporter")) is kind


def test_reads_and_creates_are_sent_again_and_deletions_are_not() -> None:
    assert {"tunix_rt.v1.TraceStore/GetTrace", "tunix_rt.v1.Trainer/CreateTrainingJob"} <= set(
        retried_methods()
    )
    others = [method.name for service in services() for method in service.methods if not is_retried(method)]
    assert [name for name in others if "Delete" not in name] == ["ScoreTrace", "BatchScoreTraces"]
    assert {name for name in others if name.startswith("Delete")} == {
        method.name
        for service in services()
        for method in service.methods
        if method.name.startswith("Delete")
    }
