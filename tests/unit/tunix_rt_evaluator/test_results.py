"""From answers to results: several answers of an item, and what makes the digests that identify them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.comparison import SPLITTER
from tunix_rt_evaluator.comparisons.pairing import report_id
from tunix_rt_evaluator.convert import result_message
from tunix_rt_evaluator.eval_sets.model import EvalItem
from tunix_rt_evaluator.evaluations.model import (
    Decoding,
    Evaluation,
    EvaluationInput,
    EvaluationSpec,
    Generation,
    ItemResult,
    ModelFacts,
    Summary,
)
from tunix_rt_evaluator.evaluations.results import CUT_CALL, Totals, graded, manifest
from tunix_rt_evaluator.grading.graders.numeric import NumericGrader
from tunix_rt_evaluator.grading.graders.strings import ContainsGrader, TextGrader
from tunix_rt_evaluator.grading.model import Answer, Verdict
from tunix_rt_evaluator.grading.reasoning import Splitter, resolved_marks
from tunix_rt_evaluator.grading.service import Grading
from tunix_rt_kit.canonical import digest_json
from tunix_rt_kit.values import ChatTemplateFields, JobState

GRADING = Grading()
FIVE = EvalItem(id="q1", prompt="What is 2 + 3?", accepted_answers=("5",), grader=NumericGrader())
SIX = EvalItem(
    id="q2", prompt="What is 2 + 4?", accepted_answers=("6",), grader=NumericGrader(), category="sums"
)


def answered(*outputs: str, item: str = "q1", **values: Any) -> Generation:
    """What was generated for an item: an answer of four tokens for each output."""
    first, *more = [
        Answer(output=output, output_tokens=4, finish_reason="stop", log_probabilities=(-1.0,) * 4)
        for output in outputs
    ]
    fields = {"item_id": item, "prompt_tokens": 7, "prompt_token_digest": "sha256:p", "seconds": 0.25}
    return Generation.model_validate(first.model_dump() | {"more": tuple(more)} | fields | values)


def summarise(results: Iterable[ItemResult]) -> Summary:
    return Totals.of(results).summary


def before_there_were_samples() -> list[ItemResult]:
    right = Generation(
        item_id="q1",
        prompt_tokens=7,
        prompt_token_digest="sha256:p",
        output="Answer: 5",
        output_tokens=4,
        finish_reason="stop",
        seconds=0.25,
    )
    failed = Generation(
        item_id="q2",
        prompt_tokens=0,
        prompt_token_digest="",
        output="",
        output_tokens=0,
        finish_reason="failed",
        error="it does not fit",
    )
    results = graded([(FIVE, right), (SIX, failed)], GRADING, SPLITTER)
    return [result.model_copy(update={"grader": "numeric/2"}) for result in results]


def test_what_uses_nothing_new_has_the_digests_that_it_had() -> None:
    # Each was worked out by the version that knew one greedy answer of each item and nothing else.
    results = before_there_were_samples()
    decoding = Decoding(max_new_tokens=96, batch_size=8)
    spec = EvaluationSpec(eval_set="sums", base_model="tiny", decoding=decoding, dtype="bfloat16")
    assert Totals.of(results).digest == (
        "sha256:5a4a8eea2a66918e121285b715aafc49388f3f65b8e7b1e38b6179941f1892b4"
    )
    # By it a request that is made again is known.
    assert digest_json(spec.model_dump(mode="json")) == (
        "sha256:8fb0874621d951f6bfec19856dca5a449286202ad72e6aace987afa8abc20607"
    )
    evaluation = Evaluation(
        id="e",
        spec=spec,
        inputs=EvaluationInput(eval_set_digest="sha256:s", base_model="tiny"),
        state=JobState.SUCCEEDED,
        create_time=datetime(2026, 1, 2, tzinfo=UTC),
    )
    facts = ModelFacts(
        base_weights_digest="sha256:w",
        tokenizer_digest="sha256:t",
        chat_template=ChatTemplateFields(builtin="chatml"),
        chat_template_digest="sha256:c",
        engine="scripted/1",
        package_versions={},
        runtime_settings={},
        device="cpu",
        code_revision="r",
    )
    complete = manifest(evaluation, facts, SPLITTER.marks, Totals.of(results))
    # What is new in it is how reasoning is split off, by which such an evaluation differs from one of before.
    before = complete.model_copy(update={"spec": complete.spec.model_copy(update={"reasoning_marks": None})})
    assert digest_json(before.model_dump(mode="json")) == (
        "sha256:c2fe8f47648abcfcc27420ac7727a3262c5cb31f5050c0ea19975d4b314cf830"
    )
    assert complete.spec.reasoning_marks == SPLITTER.marks
    evaluation = evaluation.model_copy(update={"manifest": complete})
    # Of the present revision of reports: those of earlier ones stay under their own ids.
    assert report_id([evaluation], [evaluation]) == "53cd35b2c7847b20cefd89dd58f99e29"


def test_every_sample_and_log_probability_is_in_the_digest_and_no_time_is() -> None:
    def digest(generation: Generation) -> str:
        return Totals.of(graded([(FIVE, generation)], GRADING, SPLITTER)).digest

    one = digest(answered("Answer: 5", "Answer: 6"))
    assert digest(answered("Answer: 5", "Answer: 6", seconds=9.0, cached=True)) == one
    others = [
        answered("Answer: 5"),
        answered("Answer: 5", "Answer: 7"),
        answered("Answer: 6", "Answer: 5"),
        answered("Answer: 5", "Answer: 6", log_probabilities=(-1.0, -1.0, -1.0, -2.0)),
    ]
    assert len({one, *map(digest, others)}) == 5


def test_results_out_of_order_have_no_digest() -> None:
    with pytest.raises(ValueError, match="'q1' came after that of 'q2'"):
        Totals.of(reversed(before_there_were_samples()))


def test_a_stored_result_comes_back_as_it_was() -> None:
    generations = [answered("Answer: 5", "no", "5"), answered("5", cached=True, log_probabilities=())]
    for result in graded([(FIVE, entry) for entry in generations], GRADING, SPLITTER):
        assert ItemResult.model_validate(result.model_dump(mode="json")) == result


@pytest.mark.parametrize(
    ("outputs", "correct", "score"),
    [
        (["Answer: 5"], True, 1.0),
        (["Answer: 5", "no"], False, 0.5),
        (["no", "Answer: 5", "5"], True, 2 / 3),
        (["no", "nothing"], False, 0.0),
    ],
)
def test_an_item_is_right_when_more_than_half_of_its_samples_are(
    outputs: list[str], correct: bool, score: float
) -> None:
    (result,) = graded([(FIVE, answered(*outputs))], GRADING, SPLITTER)
    assert (result.verdict.correct, result.verdict.value) == (correct, pytest.approx(score))
    assert len(result.verdicts) == (len(outputs) if len(outputs) > 1 else 0)


def test_scores_between_0_and_1_are_averaged_over_the_samples() -> None:
    item = EvalItem(id="q1", prompt="?", accepted_answers=("a", "b"), grader=ContainsGrader(all=True))
    (result,) = graded([(item, answered("a and b", "a", "neither"))], GRADING, SPLITTER)
    assert [verdict.value for verdict in result.verdicts] == [1.0, 0.5, 0.0]
    assert (result.verdict.value, result.verdict.correct) == (0.5, False)


def test_samples_are_graded_in_their_places_beside_items_that_failed() -> None:
    failed = before_there_were_samples()[1].generation
    entries = [
        (SIX, failed.model_copy(update={"item_id": "q2"})),
        (FIVE, answered("5", "6")),
        (SIX, answered("5", "6", item="q2")),
    ]
    results = graded(entries, GRADING, SPLITTER)
    assert [[verdict.correct for verdict in result.each] for result in results] == [
        [False],
        [True, False],
        [False, True],
    ]
    summary = summarise(sorted(results, key=lambda result: result.item_id))
    assert (summary.failed_count, summary.any_correct_count) == (1, 2)
    assert summary.mean_score == pytest.approx(1 / 3)


def test_bounds_let_what_is_not_settled_go_either_way() -> None:
    cut = {"finish_reason": "length"}
    right, wrong = answered("Answer: 5"), answered("Answer: 6")
    failed = before_there_were_samples()[1].generation.model_copy(update={"item_id": "q1"})
    entries = [right, right.model_copy(update=cut), wrong, wrong.model_copy(update=cut), failed]
    summary = summarise(graded([(FIVE, entry) for entry in entries], GRADING, SPLITTER))
    assert (summary.worst_correct_count, summary.overall.correct_count, summary.best_correct_count) == (
        1, 2, 4,
    )  # fmt: skip


def test_speed_is_that_of_what_was_generated() -> None:
    made, kept = answered("5", "6", seconds=2.0), answered("5", "5", cached=True, seconds=0.0)
    partly = made.model_copy(update={"kept_tokens": 4})
    assert summarise(graded([(FIVE, partly)], GRADING, SPLITTER)).tokens_per_second == 2.0
    summary = summarise(graded([(FIVE, made), (FIVE, kept)], GRADING, SPLITTER))
    assert (summary.generated_tokens, summary.tokens_per_second, summary.cached_count) == (16, 4.0, 1)
    assert summarise(graded([(FIVE, kept)], GRADING, SPLITTER)).tokens_per_second == 0.0


_TEXTS = st.text(max_size=60)


@given(
    outputs=st.lists(_TEXTS, min_size=1, max_size=5),
    prompt=st.text(min_size=1, max_size=60),
    said=_TEXTS,
    logs=st.lists(st.floats(-1e9, 0.0), max_size=20),
)
def test_a_message_is_never_larger_than_its_result_says(
    outputs: list[str], prompt: str, said: str, logs: list[float]
) -> None:
    item = EvalItem(id="q1", prompt=prompt, accepted_answers=("x",), grader=TextGrader(), category=said)
    (result,) = graded([(item, answered(*outputs, log_probabilities=tuple(logs * 40)))], GRADING, SPLITTER)
    verdict = Verdict(extracted_answer=said, correct=False, error=said, explanation=said)
    result = result.model_copy(
        update={"verdict": verdict, "verdicts": tuple(verdict for _ in result.verdicts)}
    )
    assert result_message(result).ByteSize() <= result.size_bytes


def test_an_item_whose_own_texts_are_too_long_fails_by_itself() -> None:
    # Such as an eval set has that was stored before there was a limit to the number of accepted answers.
    item = EvalItem(id="q1", prompt="?", accepted_answers=("5",) * 130_000, grader=TextGrader())
    (result,) = graded([(item, answered("Answer: 5"))], GRADING, SPLITTER)
    assert (result.generation.finish_reason, result.verdict.correct) == ("failed", False)
    assert result_message(result).ByteSize() < 4 << 20


@pytest.mark.parametrize("form", ["hermes", "llama-3"])
def test_a_mark_of_reasoning_inside_of_a_call_makes_it_wrong_and_never_right(
    form: Literal["hermes", "llama-3"],
) -> None:
    fields = {"id": "q1", "prompt": "?", "accepted_answers": ()}
    call = {"name": "note", "arguments": {"text": "x"}}
    wanted = EvalItem(**fields, grader={"kind": "tool_call", "calls": [call]})
    none = EvalItem(**fields, grader={"kind": "tool_call", "no_calls": True})
    splitter = Splitter(resolved_marks(None, None), lambda _: 0, lambda: form)

    def written(text: str) -> str:
        said = json.dumps({"name": "note", "arguments" if form == "hermes" else "parameters": {"text": text}})
        return f"<tool_call>{said}</tool_call>" if form == "hermes" else said

    def correct(item: EvalItem, output: str) -> tuple[bool, str]:
        (result,) = graded([(item, answered(output))], GRADING, splitter)
        return result.verdict.correct, result.verdict.error

    for inside in ("a </think> b", "<think>a</think>", "a } </think> {"):
        for before in ("", "<think>{Well}, {}</think>\n"):
            assert correct(none, before + written(inside)) == (False, CUT_CALL)
            assert correct(wanted, before + written(inside)) == (False, CUT_CALL)
    # All behind a mark that is never closed is reasoning.
    assert correct(none, written("a <think> b")) == (False, "")
    # Thoughts may hold whole objects, and braces that are none.
    for before in ("", f"<think>{{ So {written('y')} or {{}} </think>\n", "<think>I write {</think>"):
        assert correct(wanted, before + written("x")) == (True, "")
        assert correct(none, f"{before}No.") == (True, "")
