"""Several answers of each item: graded one by one, summed up, listed, graded again and compared."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support import scripted_evaluator as script
from support.evaluating import create, document, eval_set, item, items_of, run, until
from support.evaluating import ended as has_ended
from support.serving import fields, refused
from tunix_rt import v1

RIGHT, WRONG = "Answer: {0}", "I do not know"


def answers(*right: bool, number: int) -> str:
    """What is answered to question ``number``: a sample for each of ``right``."""
    return "~".join((RIGHT if one else WRONG).format(number) for one in right)


def four_of(number: int, base: int, candidate: int = 0, **values: Any) -> v1.EvalItem:
    """A question to which so many of four samples of base and candidate are right, the right ones last."""
    sides = [
        answers(*(place >= 4 - right for place in range(4)), number=number) for right in (base, candidate)
    ]
    return item(number, *sides, **values)


def sampled(samples: int = 4, plan: int = script.SUCCEED, **values: Any) -> v1.Decoding:
    return v1.Decoding(**({"max_new_tokens": plan, "temperature": 0.7, "samples": samples} | values))


async def results_of(evaluator: Any, evaluation: v1.Evaluation) -> dict[str, v1.EvaluationResult]:
    return {result.item_id: result for result in await items_of(evaluator, evaluation)}


async def test_every_sample_is_graded_and_an_item_is_their_majority_and_their_mean(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set([four_of(number, number) for number in range(5)]))
    done = await run(evaluator, decoding=sampled(log_probabilities=True))
    results = await results_of(evaluator, done)
    assert [result.score for result in results.values()] == [0.0, 0.25, 0.5, 0.75, 1.0]
    # Half of them is not more than half.
    assert [result.correct for result in results.values()] == [False, False, False, True, True]
    three = results["q3"]
    assert [sample.correct for sample in three.samples] == [False, True, True, True]
    assert [sample.extracted_answer for sample in three.samples] == ["", "3", "3", "3"]
    assert (three.output, three.extracted_answer) == (WRONG, "")
    assert list(three.log_probabilities) == [-0.5, -0.25, -1.5, 0.0]
    assert all(len(sample.log_probabilities) == 4 for sample in three.samples)
    summary = done.summary
    assert (summary.overall.correct_count, summary.overall.item_count) == (2, 5)
    assert (summary.mean_score, summary.any_correct_count) == (0.5, 4)
    assert summary.generated_tokens == 5 * 4 * 4


async def test_one_answer_of_an_item_is_no_list_of_samples(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set([four_of(1, 4), item(2, "FAIL")]))
    for decoding in (sampled(1), v1.Decoding(max_new_tokens=script.SUCCEED)):
        done = await run(evaluator, decoding=decoding)
        assert done.spec.decoding.samples == 1
        for result in await items_of(evaluator, done):
            assert not result.samples
            assert not result.log_probabilities
        assert done.summary.any_correct_count == 1


async def test_what_was_asked_for_is_told_and_kept_answers_are_counted(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set([item(1, "Answer: 1", prompt="Kept 1.|Answer: 1|"), item(2, "2")]))
    wanted = sampled(2, top_p=0.9, seed=7, log_probabilities=True)
    done = await run(evaluator, decoding=wanted, fresh=True)
    assert done.spec.fresh
    assert done.manifest.spec.decoding == done.spec.decoding
    wanted.batch_size = 16
    assert done.spec.decoding == wanted
    assert [result.cached for result in await items_of(evaluator, done)] == [True, False]
    assert done.summary.cached_count == 1
    # Of what was generated alone: 8 tokens in a quarter of a second.
    assert (done.summary.generated_tokens, done.summary.tokens_per_second) == (16, 32.0)


async def test_samples_that_failed_were_cut_or_cannot_be_graded_are_counted_and_found(evaluator: Any) -> None:
    pattern = {"accepted_answers": ["(a|aa|b?a)+$"], "grader": {"regex": {}}}
    items = [
        item(1, "Answer: 1~LONG", category="cut"),
        item(2, "FAIL", category="failed"),
        item(3, f"nothing~{'a' * 3_000}c", category="slow", **pattern),
    ]
    await evaluator.CreateEvalSet(eval_set(items))
    done = await run(evaluator, decoding=sampled(4))
    summary = done.summary
    assert (summary.truncated_count, summary.failed_count, summary.ungraded_count) == (2, 1, 2)
    results = await results_of(evaluator, done)
    assert not results["q2"].samples
    assert "is not done after 1 s" in results["q3"].grade_error
    assert [bool(sample.grade_error) for sample in results["q3"].samples] == [False, True] * 2

    async def found(**values: Any) -> list[str]:
        request = v1.ListEvaluationItemsRequest(parent=done.name, filter=v1.EvaluationItemFilter(**values))
        return [result.item_id for result in (await evaluator.ListEvaluationItems(request)).results]

    assert await found(finish_reason=v1.FINISH_REASON_LENGTH) == ["q1"]
    assert await found(finish_reason=v1.FINISH_REASON_STOP) == ["q1", "q3"]
    assert await found(finish_reason=v1.FINISH_REASON_FAILED) == ["q2"]
    assert await found(ungraded=True) == ["q3"]


async def test_grading_again_grades_every_sample(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set([four_of(number, number) for number in range(1, 5)]))
    source = await run(evaluator, decoding=sampled(log_probabilities=True))
    corrected = [
        four_of(number, number, accepted_answers=["7"] if number == 4 else [str(number)])
        for number in range(1, 5)
    ]
    await evaluator.CreateEvalSet(eval_set(corrected, "corrected"))
    again = await evaluator.RegradeEvaluation(
        v1.RegradeEvaluationRequest(name=source.name, eval_set="evalSets/corrected")
    )
    done = await until(evaluator, again, has_ended)
    results = await results_of(evaluator, done)
    assert [result.score for result in results.values()] == [0.25, 0.5, 0.75, 0.0]
    assert [sample.correct for sample in results["q4"].samples] == [False] * 4
    assert [sample.extracted_answer for sample in results["q4"].samples] == ["4"] * 4
    before = await results_of(evaluator, source)
    assert results["q4"].samples[1].log_probabilities == before["q4"].samples[1].log_probabilities
    assert done.spec.decoding == source.spec.decoding
    assert (done.summary.mean_score, done.summary.any_correct_count) == (0.375, 3)


@pytest.mark.one_database
async def test_an_item_whose_samples_do_not_fit_in_a_message_fails_by_itself(evaluator: Any) -> None:
    long = "é" * 40_000
    items = [item(1, "Answer: 1"), item(2, long), item(3, "y" * 30_000)]
    await evaluator.CreateEvalSet(eval_set(items))
    done = await run(evaluator, decoding=sampled(64))
    results = await results_of(evaluator, done)
    assert results["q1"].correct
    assert "fewer samples or fewer new tokens" in results["q2"].error
    assert results["q2"].finish_reason == v1.FINISH_REASON_FAILED
    assert len(results["q3"].samples) == 64
    assert done.summary.failed_count == 1
    assert all(result.ByteSize() < 4 << 20 for result in results.values())


@pytest.mark.parametrize(("samples", "items"), [(2, 12), (30, 3)])
@pytest.mark.one_database
async def test_pages_of_long_samples_stay_below_the_message_limit(
    evaluator: Any, samples: int, items: int
) -> None:
    await evaluator.CreateEvalSet(eval_set([item(number, "é" * 45_000) for number in range(items)]))
    done = await run(evaluator, decoding=sampled(samples))
    token, pages = "", []
    while token or not pages:
        request = v1.ListEvaluationItemsRequest(parent=done.name, page_token=token)
        page = await evaluator.ListEvaluationItems(request)
        assert page.ByteSize() < 4 << 20
        pages.append(len(page.results))
        token = page.next_page_token
    assert sum(pages) == items
    # The first sample of each stands three times in a message, and the prompt holds the text too.
    assert max(pages) == (7 << 19) // (90_000 * (samples + 3))


@pytest.mark.parametrize(
    ("decoding", "wrong"),
    [
        ({"temperature": -0.1}, {"temperature": "0, or 0.001 to 5,"}),
        ({"temperature": 5.1}, {"temperature": "0, or 0.001 to 5,"}),
        ({"temperature": 1e-46}, {"temperature": "is 1e-46; 0, or 0.001 to 5,"}),
        ({"temperature": 0.00099}, {"temperature": "0, or 0.001 to 5,"}),
        ({"temperature": float("nan")}, {"temperature": "0, or 0.001 to 5,"}),
        ({"temperature": 1, "top_p": 0}, {"top_p": "0.000001 to 1"}),
        ({"temperature": 1, "top_p": 1e-46}, {"top_p": "is 1e-46; 0.000001 to 1"}),
        ({"temperature": 1, "top_p": 0.00000099}, {"top_p": "0.000001 to 1"}),
        ({"temperature": 1, "top_p": 1.01}, {"top_p": "0.000001 to 1"}),
        ({"temperature": 1, "top_p": float("nan")}, {"top_p": "0.000001 to 1"}),
        ({"temperature": 1, "seed": -1}, {"seed": "0 to 4,294,967,295"}),
        ({"temperature": 1, "seed": 1 << 32}, {"seed": "0 to 4,294,967,295"}),
        ({"temperature": 1, "samples": 0}, {"samples": "1 to 64"}),
        ({"temperature": 1, "samples": 65}, {"samples": "1 to 64"}),
        ({"samples": 2}, {"samples": "a temperature above 0"}),
        ({"top_p": 0.9}, {"top_p": "a temperature above 0"}),
        ({"temperature": 0, "seed": 3}, {"seed": "a temperature above 0"}),
        (
            {"temperature": 1, "samples": 17, "max_new_tokens": 8192, "log_probabilities": True},
            {"samples": "16 at most with log-probabilities of 8,192 tokens"},
        ),
        (
            {"temperature": 9, "top_p": 2, "seed": -2, "samples": 99, "log_probabilities": True},
            {"temperature": "0.001 to 5", "top_p": "to 1", "seed": "0 to", "samples": "1 to 64"},
        ),
    ],
)
async def test_wrong_sampling_is_refused_by_field(
    evaluator: Any, decoding: dict[str, Any], wrong: dict[str, str]
) -> None:
    await evaluator.CreateEvalSet(eval_set([item(1)]))
    error = await refused(create(evaluator, decoding=v1.Decoding(**decoding)))
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "EVALUATION_SPEC_INVALID")
    assert fields(error) == [f"spec.decoding.{field}" for field in wrong]
    for violation, right in zip(error.violations, wrong.values(), strict=True):
        assert right in violation.description
        assert violation.description.endswith("would be right")


@pytest.mark.parametrize(
    "decoding",
    [
        {"temperature": 0.001, "top_p": 0.5},
        {"temperature": 5, "top_p": 1e-6, "seed": (1 << 32) - 1, "samples": 64, "max_new_tokens": 8192},
        {"temperature": 0, "top_p": 1, "seed": 0, "samples": 1, "log_probabilities": True},
        {"temperature": 1, "samples": 16, "max_new_tokens": 8192, "log_probabilities": True},
    ],
)
async def test_the_ends_of_what_is_allowed_are_allowed(evaluator: Any, decoding: dict[str, Any]) -> None:
    await evaluator.CreateEvalSet(eval_set([item(1)]))
    made = await create(evaluator, decoding=v1.Decoding(**decoding))
    for field, value in decoding.items():
        assert getattr(made.spec.decoding, field) == pytest.approx(value)


async def test_samples_are_compared_by_their_means(evaluator: Any, checkpoint: str) -> None:
    # 12 items that go from 1 to 3 of 4, one that goes from 4 to 3.
    items = [four_of(number, 1, 3) for number in range(12)] + [four_of(12, 4, 3)]
    await evaluator.CreateEvalSet(eval_set(items))
    template = v1.ChatTemplate(builtin="chatml")
    base = await run(evaluator, decoding=sampled(log_probabilities=True), chat_template=template)
    candidate = await run(evaluator, decoding=sampled(), checkpoint=checkpoint, fresh=True)
    report = await evaluator.CompareEvaluations(
        v1.CompareEvaluationsRequest(base=base.name, candidate=candidate.name)
    )
    overall = report.overall
    assert (overall.test, overall.interval_method) == ("permutation", "t")
    assert (overall.base.correct_count, overall.base.item_count) == (12 + 4, 13 * 4)
    assert (overall.candidate.correct_count, overall.candidate.item_count) == (13 * 3, 13 * 4)
    assert overall.difference == pytest.approx((12 * 2 - 1) / 52)
    assert (overall.gained_count, overall.lost_count) == (12, 1)
    # Of 2**13 sign changes, those that are as far off: all of one sign, or the small one turned.
    assert overall.p_value == pytest.approx(4 / 2**13)
    # Every sample is right or wrong, so there are no scores to tell of besides.
    assert not report.HasField("scores")
    assert [flip.base.item_id for flip in report.flips] == [
        f"q{number}" for number in (0, 1, 10, 11, *range(2, 10))
    ]
    assert not any(sample.log_probabilities for flip in report.flips for sample in flip.base.samples)
    for format_ in (v1.REPORT_FORMAT_MARKDOWN, v1.REPORT_FORMAT_HTML):
        _, data = await document(evaluator, report, format_)
        assert b"4 samples of each item at temperature 0.7, seed 0" in data
        assert b"1 of 4 samples right" in data
    _, data = await document(evaluator, report, v1.REPORT_FORMAT_JSON)
    assert len(json.loads(data)["flips"][0]["base"]["verdicts"]) == 4


async def test_samples_drawn_otherwise_are_not_compared(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set([four_of(1, 1)]))
    one = await run(evaluator, decoding=sampled())
    for other, wrong in (
        (sampled(seed=1), ["decoding.seed"]),
        (sampled(temperature=1.0, top_p=0.5), ["decoding.temperature", "decoding.top_p"]),
        (sampled(2), ["decoding.samples"]),
        (sampled(log_probabilities=True), []),
    ):
        candidate = await run(evaluator, decoding=other)
        request = v1.CompareEvaluationsRequest(base=one.name, candidate=candidate.name)
        if wrong:
            error = await refused(evaluator.CompareEvaluations(request))
            assert (error.reason, fields(error)) == ("COMPARISON_UNSOUND", wrong)
            request.waivers.append("decoding")
        report = await evaluator.CompareEvaluations(request)
        assert [waiver.description.partition(":")[0] for waiver in report.waivers] == wrong
