"""Reasoning is split off before anything is graded, and told of everywhere."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select, update

from support import scripted_evaluator as script
from support.evaluating import create, document, ended, eval_set, item, items_of, run, running, until
from support.serving import fields, refused
from tunix_rt import v1
from tunix_rt_evaluator.tables import evaluations, results
from tunix_rt_evaluator.wiring import EvaluatorSettings
from tunix_rt_kit.database import Database

pytestmark = pytest.mark.one_database

THOUGHTS = [
    item(1, "<think>Answer: 2</think>\n\nAnswer: 1", "<think>Is it 2?</think>Answer: 1"),
    item(2, "<think>The answer is 2. Let me check", "<think>So it is 3</think>Answer: 2"),
    item(3, "<reasoning>Answer: 4</reasoning> Answer: 3", "<reasoning>It is 3.</reasoning>It is 4."),
    item(4, "Answer: 4", "Answer: 4"),
]
States = v1.ReasoningState


async def regraded(evaluator: Any, source: v1.Evaluation, **values: Any) -> v1.Evaluation:
    request = v1.RegradeEvaluationRequest(name=source.name, **values)
    done = await until(evaluator, await evaluator.RegradeEvaluation(request), ended)
    assert done.state == v1.Evaluation.STATE_SUCCEEDED, done
    return done


async def verdicts(evaluator: Any, evaluation: v1.Evaluation) -> list[bool]:
    return [result.correct for result in await items_of(evaluator, evaluation)]


def without(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def as_before(settings: EvaluatorSettings, evaluation: v1.Evaluation) -> None:
    """Leave an evaluation as a version left it that graded whole outputs."""
    database, id_ = Database(settings.database), evaluation.name.removeprefix("evaluations/")
    with database.write() as session:
        row = session.execute(select(evaluations).where(evaluations.c.id == id_)).one()
        values: dict[str, Any] = {"spec": without(row.spec, "reasoning_marks")}
        if row.manifest is not None:
            spec = without(row.manifest["spec"], "reasoning_marks")
            values["manifest"] = {**row.manifest, "spec": spec}
            values["summary"] = without(row.summary, *(name for name in row.summary if "reasoning" in name))
        session.execute(update(evaluations).where(evaluations.c.id == id_).values(**values))
        for found in session.execute(select(results).where(results.c.evaluation_id == id_)).all():
            old = without(found.result, "splits")
            old["verdict"] = {**old["verdict"], "correct": True, "explanation": ""}
            session.execute(
                update(results)
                .where(results.c.evaluation_id == id_, results.c.item_id == found.item_id)
                .values(result=old)
            )
    database.close()


async def test_results_and_summary_tell_reasoning_from_the_answer(
    evaluator: Any, settings: EvaluatorSettings
) -> None:
    await evaluator.CreateEvalSet(eval_set(THOUGHTS))
    done = await run(evaluator)
    first, second, third, fourth = await items_of(evaluator, done)
    assert (first.correct, first.reasoning, first.answer) == (True, "Answer: 2", "Answer: 1")
    assert first.output == THOUGHTS[0].prompt.split("|")[1]
    assert first.reasoning_state == States.REASONING_STATE_CLOSED
    # By the tokenizer of the model that wrote it, marks included: at most as many as were written at all.
    assert 0 < first.reasoning_tokens <= first.output_tokens
    assert (second.correct, second.answer, second.reasoning_state) == (
        False,
        "",
        States.REASONING_STATE_UNCLOSED,
    )
    assert second.explanation == "its reasoning was never closed, so that there is no answer"
    assert second.reasoning_tokens == second.output_tokens
    assert third.reasoning_state == States.REASONING_STATE_NONE
    assert (fourth.reasoning, fourth.answer, fourth.reasoning_tokens) == ("", "Answer: 4", 0)
    assert (done.summary.reasoning_count, done.summary.unclosed_reasoning_count) == (2, 1)
    assert done.summary.reasoning_tokens == first.reasoning_tokens + second.reasoning_tokens
    marks = v1.ReasoningMarks(name="think", start="<think>", end="</think>", opened=False, revision=1)
    assert done.manifest.spec.reasoning_marks == done.spec.reasoning_marks == marks
    wanted = v1.EvaluationItemFilter(unclosed_reasoning=True)
    request = v1.ListEvaluationItemsRequest(parent=done.name, filter=wanted)
    assert [found.item_id for found in (await evaluator.ListEvaluationItems(request)).results] == ["q2"]
    # As an earlier version left it, it opens and says what it said; its answers get new verdicts.
    as_before(settings, done)
    old = await evaluator.GetEvaluation(v1.GetEvaluationRequest(name=done.name))
    assert not old.manifest.spec.HasField("reasoning_marks")
    before = await items_of(evaluator, old)
    assert [result.correct for result in before] == [True] * 4
    assert {result.reasoning_state for result in before} == {States.REASONING_STATE_NONE}
    new = await regraded(evaluator, old)
    assert await verdicts(evaluator, new) == [True, False, True, True]
    assert new.spec.reasoning_marks == marks
    error = await refused(
        evaluator.CompareEvaluations(v1.CompareEvaluationsRequest(base=old.name, candidate=new.name))
    )
    assert (error.reason, fields(error)) == ("COMPARISON_UNSOUND", ["reasoning_marks"])


async def test_other_marks_are_another_evaluation_of_the_same_outputs(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set(THOUGHTS))
    source = await run(evaluator, reasoning_marks=v1.ReasoningMarks(name="reasoning"))
    assert await verdicts(evaluator, source) == [True, True, True, True]
    none = await regraded(evaluator, source, reasoning_marks=v1.ReasoningMarks(name="none"))
    assert none.manifest.spec.reasoning_marks.name == "none"
    think = await regraded(evaluator, source, reasoning_marks=v1.ReasoningMarks(name="think"))
    assert await verdicts(evaluator, think) == [True, False, True, True]
    # Left out, they are those of the source; an evaluation's own marks can be asked for.
    assert (await regraded(evaluator, think)).spec.reasoning_marks == think.spec.reasoning_marks
    again = await run(evaluator, reasoning_marks=think.spec.reasoning_marks)
    assert again.manifest.results_digest == think.manifest.results_digest
    request = v1.CompareEvaluationsRequest(base=source.name, candidate=think.name)
    error = await refused(evaluator.CompareEvaluations(request))
    assert (error.reason, error.metadata["waivers"]) == ("COMPARISON_UNSOUND", "reasoning")
    assert fields(error) == ["reasoning_marks"]
    request.waivers.append("reasoning")
    waived = await evaluator.CompareEvaluations(request)
    assert "<reasoning> to </reasoning>" in waived.waivers[0].description
    # Marks that tell nothing apart are refused, here and there.
    for values, field in (({"start": "", "end": "</x>"}, "start"), ({"start": "<x>", "end": "\t"}, "end")):
        marks = v1.ReasoningMarks(**values)
        error = await refused(create(evaluator, reasoning_marks=marks))
        assert (error.reason, fields(error)) == (
            "EVALUATION_SPEC_INVALID",
            [f"spec.reasoning_marks.{field}"],
        )
        again = v1.RegradeEvaluationRequest(name=source.name, reasoning_marks=marks)
        error = await refused(evaluator.RegradeEvaluation(again))
        assert (error.reason, fields(error)) == ("REASONING_MARKS_INVALID", [f"reasoning_marks.{field}"])


async def test_a_prompt_that_opens_the_reasoning_leaves_an_answer_only_behind_its_end(
    evaluator: Any,
) -> None:
    jinja = (
        "{% for m in messages %}{% if m.role == 'assistant' %}<think>{{ m.content }}<|im_end|>"
        "{% else %}{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<think>{% endif %}"
    )
    template = v1.ChatTemplate(jinja=jinja, eos_token="<|im_end|>")
    opened = [item(1, "It is 2.</think>1"), item(2, "The answer is 2. But wait")]
    await evaluator.CreateEvalSet(eval_set(opened))
    done = await run(evaluator, chat_template=template)
    assert done.spec.reasoning_marks.opened
    first, second = await items_of(evaluator, done)
    assert (first.correct, first.reasoning, first.answer) == (True, "It is 2.", "1")
    assert (second.correct, second.reasoning_state) == (False, States.REASONING_STATE_UNCLOSED)


async def test_each_sample_is_split_and_texts_are_left_out_where_they_do_not_fit(evaluator: Any) -> None:
    long = "<think>" + "y" * 40_000 + "</think>"
    await evaluator.CreateEvalSet(eval_set([item(1, "<think>a</think>1~<think>1~1")]))
    decoding = v1.Decoding(max_new_tokens=script.SUCCEED, temperature=1, samples=3)
    (result,) = await items_of(evaluator, await run(evaluator, decoding=decoding))
    assert [(sample.correct, sample.answer) for sample in result.samples] == [
        (True, "1"),
        (False, ""),
        (True, ""),
    ]
    assert [sample.reasoning_state for sample in result.samples] == [2, 3, 1]
    assert (result.correct, result.reasoning) == (True, "a")
    many = v1.Decoding(max_new_tokens=script.SUCCEED, temperature=1, samples=64)
    await evaluator.CreateEvalSet(eval_set([item(1, f"{long}1")], "long"))
    (result,) = await items_of(evaluator, await run(evaluator, eval_set="evalSets/long", decoding=many))
    assert result.ByteSize() < 4 << 20
    assert (result.correct, result.answer, len(result.reasoning)) == (True, "1", 40_000)
    assert {(sample.correct, sample.answer, sample.reasoning) for sample in result.samples} == {
        (True, "", "")
    }
    assert {sample.reasoning_state for sample in result.samples} == {States.REASONING_STATE_CLOSED}


async def test_a_report_folds_reasoning_and_counts_its_tokens(evaluator: Any, checkpoint: str) -> None:
    await evaluator.CreateEvalSet(eval_set(THOUGHTS))
    template = v1.ChatTemplate(builtin="chatml")
    base = await run(evaluator, chat_template=template)
    candidate = await run(evaluator, checkpoint=checkpoint)
    request = v1.CompareEvaluationsRequest(base=base.name, candidate=candidate.name)
    report = await evaluator.CompareEvaluations(request)
    texts = {}
    for format_ in (v1.REPORT_FORMAT_HTML, v1.REPORT_FORMAT_MARKDOWN, v1.REPORT_FORMAT_JSON):
        _, content = await document(evaluator, report, format_)
        texts[format_] = content.decode()
    page = texts[v1.REPORT_FORMAT_HTML]
    assert '<details class="reasoning">' in page
    assert "Reasoning never closed, wrong" in page
    assert "Tokens of reasoning" in page
    assert "<details><summary>Reasoning" in texts[v1.REPORT_FORMAT_MARKDOWN]
    assert '"reasoning": "The answer is 2. Let me check"' in texts[v1.REPORT_FORMAT_JSON]


async def test_what_an_earlier_version_graded_before_it_was_stopped_is_graded_again(
    settings: EvaluatorSettings,
) -> None:
    async with running(settings) as first:
        await first.CreateEvalSet(eval_set(THOUGHTS))
        made = await create(first, script.WAIT_ONCE)
        await until(first, made, lambda entry: entry.progress.completed == 2)
    as_before(settings, made)
    async with running(settings) as second:
        done = await until(second, made, ended)
        assert done.state == v1.Evaluation.STATE_SUCCEEDED
        assert await verdicts(second, done) == [True, False, True, True]
        assert done.summary.unclosed_reasoning_count == 1
