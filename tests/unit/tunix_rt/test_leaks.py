# ruff: noqa: ARG002  (gRPC hands every method a context)
"""Looking for leaks among more datasets than one message holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from support.threaded import fake_server
from tunix_rt import Client, v1
from tunix_rt.leaks import leaking_datasets

COUNT = 200
# A chat template of some models is as long.
TEMPLATE = v1.ChatTemplate(jinja="x" * 40_000)


class Exporter(v1.ExporterServicer):
    def ListDatasets(self, request: v1.ListDatasetsRequest, context: Any) -> v1.ListDatasetsResponse:
        start = int(request.page_token or 0)
        end = min(start + request.page_size, COUNT)
        datasets = [
            v1.Dataset(
                name=f"datasets/d{number}@1",
                state=v1.Dataset.STATE_SUCCEEDED,
                spec=v1.DatasetSpec(chat_template=TEMPLATE),
            )
            for number in range(start, end)
        ]
        return v1.ListDatasetsResponse(datasets=datasets, next_page_token=str(end) if end < COUNT else "")

    def AuditContamination(
        self, request: v1.AuditContaminationRequest, context: Any
    ) -> Iterator[v1.AuditContaminationResponse]:
        rows = [v1.ContaminatedRow(row_id="1", split="test")] if request.name == "datasets/d199@1" else []
        yield v1.AuditContaminationResponse(rows=rows)


class Evaluator(v1.EvaluatorServicer):
    def GetEvalSet(self, request: v1.GetEvalSetRequest, context: Any) -> v1.EvalSet:
        return v1.EvalSet(name=request.name)


def test_datasets_with_long_templates_are_all_looked_at() -> None:
    with (
        fake_server(
            lambda server: v1.add_ExporterServicer_to_server(Exporter(), server),
            lambda server: v1.add_EvaluatorServicer_to_server(Evaluator(), server),
        ) as address,
        Client(address) as client,
    ):
        assert [leak.dataset.name for leak in leaking_datasets(client, "evalSets/e")] == ["datasets/d199@1"]
