"""Answers of two evaluations as traces in a real trace store, set side by side."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Value

from support.migrated import migrated
from support.threaded import fake_server, free_address, real_server
from tunix_rt import Client, Targets, v1
from tunix_rt.answers import answer_traces
from tunix_rt.importing import import_traces
from tunix_rt_trace_store.wiring import TraceStoreSettings, build, migrate

pytestmark = pytest.mark.one_database


class FakeEvaluator(v1.EvaluatorServicer):
    """Two evaluations with answers to the same 30 questions, the last of each failed; one with samples."""

    def GetEvaluation(self, request: v1.GetEvaluationRequest, _: Any) -> v1.Evaluation:
        spec = v1.EvaluationSpec(eval_set="evalSets/s", base_model=f"model of {request.name}")
        return v1.Evaluation(name=request.name, spec=spec)

    def GetEvalSet(self, request: v1.GetEvalSetRequest, _: Any) -> v1.EvalSet:
        return v1.EvalSet(name=request.name)

    def ListEvaluationItems(
        self, request: v1.ListEvaluationItemsRequest, _: Any
    ) -> v1.ListEvaluationItemsResponse:
        def answer(number: int) -> str:
            last = number if request.parent == "evaluations/b" else number + 1
            return "" if number == 29 else f"Reasoning:\n1. Think.\n2. So {last}.\nAnswer: {last}"

        if request.parent == "evaluations/sampled":
            samples = [v1.Sample(output=f"Answer: {one}", correct=one == "7") for one in ("7", "8", "7")]
            samples.append(v1.Sample())
            result = v1.EvaluationResult(item_id="q7", prompt="Say 7.", output="Answer: 7", samples=samples)
            return v1.ListEvaluationItemsResponse(results=[result])
        return v1.ListEvaluationItemsResponse(
            results=[
                v1.EvaluationResult(
                    item_id=f"q{number:02d}",
                    prompt=f"Say {number}.",
                    output=answer(number),
                    accepted_answers=[str(number)],
                    correct=request.parent == "evaluations/b",
                )
                for number in range(30)
            ]
        )


@pytest.fixture
def client(database_url: str, tmp_path: Path) -> Iterator[Client]:
    settings = TraceStoreSettings(
        listen=free_address(), database_url=database_url, data_dir=tmp_path, log_level="error"
    )
    migrated(settings, migrate)

    def add(server: grpc.Server) -> None:
        v1.add_EvaluatorServicer_to_server(FakeEvaluator(), server)

    with (
        fake_server(add) as evaluator,
        real_server(lambda stopping: build(settings, stopping), settings.listen) as store,
        Client(Targets(store, store, store, evaluator)) as client,
    ):
        yield client


def test_answers_are_stored_once_and_can_be_compared_step_by_step(client: Client) -> None:
    for name in ("evaluations/a", "evaluations/b"):
        result = import_traces(client, answer_traces(client, name))
        assert (result.created, result.skipped) == (29, 0)
    again = import_traces(client, answer_traces(client, "evaluations/a"))
    assert (again.created, again.skipped) == (0, 29)

    def trace_of(evaluation: str) -> v1.Trace:
        wanted = v1.TraceFilter(
            sources=["evaluation"],
            metadata=[
                v1.MetadataCondition(key="evaluation", equals=Value(string_value=evaluation)),
                v1.MetadataCondition(key="item", equals=Value(string_value="q07")),
            ],
        )
        (found,) = client.trace_store.list_traces(filter=wanted)
        return found

    base, candidate = trace_of("evaluations/a"), trace_of("evaluations/b")
    compared = client.trace_store.compare_traces(base.name, candidate.name)
    assert not compared.same_final_answer
    assert [row.relation for row in compared.alignment] == [
        v1.StepAlignment.RELATION_SAME,
        v1.StepAlignment.RELATION_CHANGED,
    ]
    scores = {
        trace.name: client.trace_store.score_trace(trace.name, criteria=["answer"]).scores[0].value
        for trace in (base, candidate)
    }
    assert scores == {base.name: 0.0, candidate.name: 100.0}


def test_each_sample_is_stored_and_can_be_found_by_its_number(client: Client) -> None:
    result = import_traces(client, answer_traces(client, "evaluations/sampled"))
    # Two samples of an item may say the same, and one said nothing.
    assert (result.created, result.skipped) == (3, 0)
    again = import_traces(client, answer_traces(client, "evaluations/sampled"))
    assert (again.created, again.skipped) == (0, 3)
    wanted = v1.TraceFilter(
        metadata=[
            v1.MetadataCondition(key="item", equals=Value(string_value="q7")),
            v1.MetadataCondition(key="sample", equals=Value(number_value=1)),
        ]
    )
    (found,) = client.trace_store.list_traces(filter=wanted)
    assert (found.final_answer, found.metadata["correct"]) == ("8", False)
