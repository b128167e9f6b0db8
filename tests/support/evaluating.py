"""Asks an evaluator, whose worker ``support.scripted_evaluator`` acts out, over a real channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from google.rpc import error_details_pb2

from support import scripted_evaluator as script
from support.serving import served
from tunix_rt import v1
from tunix_rt_evaluator.wiring import EvaluatorSettings, build

State = v1.Evaluation


@asynccontextmanager
async def running(settings: EvaluatorSettings) -> AsyncIterator[Any]:
    """A stub of an evaluator, as long as the block lasts."""
    stop = asyncio.Event()
    async with served(build(settings, stop), stop=stop) as channel:
        yield v1.EvaluatorStub(channel)


def item(number: int, base: str = "", candidate: str = "", **values: Any) -> v1.EvalItem:
    """Question ``number``, whose right answer is its number, and what base and candidate say to it."""
    wanted = {
        "id": f"q{number}",
        "prompt": f"Say {number}.|{base}|{candidate}",
        "accepted_answers": [str(number)],
    }
    return v1.EvalItem(**(wanted | values))


def eval_set(items: Sequence[v1.EvalItem], name: str = "sums", **values: Any) -> v1.CreateEvalSetRequest:
    request_id = values.pop("request_id", "")
    return v1.CreateEvalSetRequest(
        eval_set=v1.EvalSet(eval_set_id=name, items=items, **values), request_id=request_id
    )


FOUR = [
    item(1, "Answer: 1", "Answer: 1", category="sums"),
    item(2, "Answer: 3", "Answer: 2", category="sums"),
    item(3, "I do not know", "Reasoning:\n1. So.\nAnswer: 3", category="words"),
    item(4, "Answer: 4", "LONG", category="words"),
]


async def create(
    evaluator: Any, plan: int = script.SUCCEED, request_id: str = "", **spec: Any
) -> v1.Evaluation:
    values = {"eval_set": "evalSets/sums", "decoding": v1.Decoding(max_new_tokens=plan)} | spec
    if "checkpoint" not in values:
        values = {"base_model": "tiny"} | values
    return await evaluator.CreateEvaluation(
        v1.CreateEvaluationRequest(spec=v1.EvaluationSpec(**values), request_id=request_id)
    )


async def get(evaluator: Any, evaluation: v1.Evaluation) -> v1.Evaluation:
    return await evaluator.GetEvaluation(v1.GetEvaluationRequest(name=evaluation.name))


async def until(
    evaluator: Any, evaluation: v1.Evaluation, reached: Callable[[v1.Evaluation], Any]
) -> v1.Evaluation:
    for _ in range(600):
        latest = await get(evaluator, evaluation)
        if reached(latest):
            return latest
        await asyncio.sleep(0.05)
    raise AssertionError(f"the evaluation stayed {latest}")


def ended(evaluation: v1.Evaluation) -> bool:
    return evaluation.state in (State.STATE_SUCCEEDED, State.STATE_FAILED, State.STATE_CANCELLED)


async def run(evaluator: Any, plan: int = script.SUCCEED, **spec: Any) -> v1.Evaluation:
    done = await until(evaluator, await create(evaluator, plan, **spec), ended)
    assert done.state == State.STATE_SUCCEEDED, done
    return done


async def items_of(evaluator: Any, evaluation: v1.Evaluation) -> list[v1.EvaluationResult]:
    request = v1.ListEvaluationItemsRequest(parent=evaluation.name)
    return list((await evaluator.ListEvaluationItems(request)).results)


async def document(
    evaluator: Any, report: v1.ComparisonReport, format_: int, offset: int = 0
) -> tuple[v1.DownloadHeader, bytes]:
    request = v1.ReadComparisonReportRequest(name=report.name, format=format_, offset=offset)
    parts = [part async for part in evaluator.ReadComparisonReport(request)]
    return parts[0].header, b"".join(part.chunk for part in parts[1:])


def error_info(evaluation: v1.Evaluation) -> error_details_pb2.ErrorInfo:
    """Why one failed."""
    info = error_details_pb2.ErrorInfo()
    assert evaluation.error.details[0].Unpack(info)
    return info
