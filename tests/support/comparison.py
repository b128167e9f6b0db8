"""Two made-up evaluations of one eval set, for tests of comparisons and reports."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

from tunix_rt_evaluator.comparisons.model import ComparisonContent, Run, TrainingStep
from tunix_rt_evaluator.comparisons.pairing import compared
from tunix_rt_evaluator.eval_sets.model import EvalItem
from tunix_rt_evaluator.evaluations.model import (
    CheckpointInput,
    Decoding,
    Evaluation,
    EvaluationInput,
    EvaluationSpec,
    Generation,
    ItemResult,
    ModelFacts,
)
from tunix_rt_evaluator.evaluations.results import Totals, graded, manifest
from tunix_rt_evaluator.grading.graders.numeric import NumericGrader
from tunix_rt_evaluator.grading.model import Answer
from tunix_rt_evaluator.grading.reasoning import Splitter, resolved_marks
from tunix_rt_evaluator.grading.service import Grading
from tunix_rt_kit.canonical import digest_bytes
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.values import ChatTemplateFields, JobState, StoredFile

CATEGORIES = ("addition", "multi_step", "percent", "word_problem")
GRADING = Grading()
SPLITTER = Splitter(resolved_marks(None, None), lambda text: len(text.split()))
"""Splits by `<think>` and takes a word for a token."""
_TEMPLATE = ChatTemplateFields(builtin="chatml")


def some_items(count: int = 120) -> list[EvalItem]:
    """Sums with their answers, in four categories."""
    return [
        EvalItem(
            id=f"item-{number:03d}",
            prompt=f"A shop sells {number + 3} apples in the morning and {2 * number + 1} in the afternoon. "
            "How many apples does it sell?",
            accepted_answers=(str(3 * number + 4),),
            grader=NumericGrader(),
            category=CATEGORIES[number % len(CATEGORIES)],
        )
        for number in range(count)
    ]


def answered(
    item: EvalItem, number: int, *, right: bool, style: str, tokens: str = "t", thought: str = ""
) -> ItemResult:
    """The result of an item that was answered right or wrong, behind a thought if there is one."""
    value = int(item.accepted_answers[0]) + (0 if right else 1 + number % 5)
    output = (
        f"Reasoning:\n1. {number + 3} + {2 * number + 1} = {value}\nAnswer: {value}"
        if style == "tuned"
        else f"To solve this, we add the apples of both times of day. The shop sells {value} apples."
    )
    generation = Generation(
        item_id=item.id,
        prompt_tokens=40,
        prompt_token_digest=digest_bytes(f"{tokens} {item.id}".encode()),
        output=f"<think>{thought}</think>{output}" if thought else output,
        output_tokens=len(output) // 4,
        finish_reason="stop",
        seconds=0.05,
    )
    return graded([(item, generation)], GRADING, SPLITTER)[0]


def sampled(item: EvalItem, number: int, *, right: int, samples: int) -> ItemResult:
    """The result of an item of whose samples so many are right, the last ones."""
    answers = [
        answered(item, number, right=place >= samples - right, style="tuned").generation
        for place in range(samples)
    ]
    more = tuple(
        Answer.model_validate({name: getattr(entry, name) for name in Answer.model_fields})
        for entry in answers[1:]
    )
    return graded([(item, answers[0].model_copy(update={"more": more}))], GRADING, SPLITTER)[0]


def finished(
    name: str, results: Sequence[ItemResult], *, checkpoint: bool = False, **spec: object
) -> Evaluation:
    """An evaluation that succeeded with ``results``."""
    trained = None
    if checkpoint:
        trained = CheckpointInput(
            name="trainingJobs/0199aa10-9c52-7d10-a1b2-334455667788/checkpoints/39",
            base_model="smollm2-135m-instruct",
            digest=digest_bytes(b"adapter"),
            files=(StoredFile(path="metrics.jsonl", size_bytes=1, digest=digest_bytes(b"metrics")),),
            manifest_digest=digest_bytes(b"training manifest"),
            dataset_digest=digest_bytes(b"dataset"),
            base_weights_digest=digest_bytes(b"weights"),
            chat_template=_TEMPLATE,
        )
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    evaluation = Evaluation(
        id=name,
        spec=EvaluationSpec.model_validate(
            {
                "eval_set": "sums",
                "base_model": None if trained else "smollm2-135m-instruct",
                "checkpoint": trained.name if trained else None,
                "chat_template": _TEMPLATE,
                "decoding": Decoding(),
            }
            | spec
        ),
        inputs=EvaluationInput(
            eval_set_digest=digest_bytes(b"items"), base_model="smollm2-135m-instruct", checkpoint=trained
        ),
        state=JobState.SUCCEEDED,
        create_time=moment,
        attempt_count=1,
        start_time=moment,
        end_time=moment,
    )
    facts = ModelFacts(
        base_weights_digest=digest_bytes(b"weights"),
        tokenizer_digest=digest_bytes(b"tokenizer"),
        chat_template=_TEMPLATE,
        chat_template_digest=ChatTemplate.built_in("chatml").digest,
        dtype="bfloat16" if evaluation.spec.dtype == "auto" else evaluation.spec.dtype,
        engine="tunix/0.1.7-greedy.1",
        package_versions={"jax": "0.10.2", "google-tunix": "0.1.7"},
        runtime_settings={"jax_enable_x64": "False"} | ({"adapter": "merged"} if checkpoint else {}),
        device="cpu x86_64",
        code_revision="0.1.0+0123456789ab",
    )
    totals = Totals.of(sorted(results, key=lambda result: result.item_id))
    complete = manifest(evaluation, facts, SPLITTER.marks, totals)
    return evaluation.model_copy(
        update={
            "manifest": complete,
            "summary": totals.summary,
            "manifest_file": StoredFile(
                path="manifest.json", size_bytes=2, digest=digest_bytes(name.encode())
            ),
        }
    )


def some_comparison(count: int = 120, steps: int = 39) -> ComparisonContent:
    """A base that is seldom right and a candidate that is more often right."""
    items = some_items(count)
    base = [
        answered(item, number, right=number % 13 == 0, style="plain") for number, item in enumerate(items)
    ]
    tuned = [
        answered(item, number, right=number % 3 == 0 and number % 39 != 0, style="tuned")
        for number, item in enumerate(items)
    ]
    training = [
        TrainingStep(
            step=step,
            loss=0.35 + 2.4 * math.exp(-step / 8) + 0.05 * math.sin(3 * step),
            learning_rate=0.001,
            validation_loss=0.45 + 1.6 * math.exp(-step / 8) if step % 13 == 0 else None,
        )
        for step in range(1, steps + 1)
    ]
    return compared(
        [Run.of(finished("0199aa10-0000-7000-8000-000000000001", base), base)],
        [Run.of(finished("0199aa10-0000-7000-8000-000000000002", tuned, checkpoint=True), tuned)],
        training=training,
    )
