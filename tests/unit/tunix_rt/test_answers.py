"""Answers as traces."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from support.conversations import adding
from tunix_rt import v1
from tunix_rt.answers import answer_trace, answer_traces
from tunix_rt.formats.rows import MAX_STEP

EVALUATION = v1.Evaluation(
    name="evaluations/e",
    spec=v1.EvaluationSpec(eval_set="evalSets/s", checkpoint="trainingJobs/j/checkpoints/4"),
)


def made_of(output: str, **values: Any) -> v1.Trace:
    result = v1.EvaluationResult(
        item_id="q1",
        item_digest="sha256:q",
        prompt="What is 2 + 3?",
        output=output,
        accepted_answers=["5", "five"],
        correct=True,
        grader="numeric/1",
        **values,
    )
    return answer_trace(EVALUATION, result)


@pytest.mark.parametrize(
    ("output", "steps", "answer"),
    [
        ("Reasoning:\n1. Two and three.\n2. That is 5.\nAnswer: 5", ["Two and three.", "That is 5."], "5"),
        ("<think>\nTwo and three.\n\nThat is 5.</think>\nAnswer: 5", ["Two and three.", "That is 5."], "5"),
        ("First this:\n1) add\n   both\n2) done\nAnswer: 5", ["First this:", "add\n   both", "done"], "5"),
        ("Answer: 4\nNo.\nAnswer: 5", ["Answer: 4\nNo."], "5"),
        ("Answer: 5", ["Answer: 5"], "5"),
        ("The sum is 5.", ["The sum is 5."], "The sum is 5."),
        ("Answer:", ["Answer:"], "Answer:"),
        ("a\0b", ["a\ufffdb"], "a\ufffdb"),
    ],
)
def test_reasoning_becomes_steps(output: str, steps: list[str], answer: str) -> None:
    trace = made_of(output)
    assert [step.content for step in trace.steps] == steps
    assert [step.i for step in trace.steps] == list(range(len(steps)))
    assert trace.final_answer == answer


def test_without_a_label_the_graders_reading_is_the_answer() -> None:
    assert made_of("The sum is 5.", extracted_answer="5").final_answer == "5"


def test_a_trace_says_what_it_was_made_of() -> None:
    trace = made_of("Answer: 5", category="sums")
    assert (trace.source, trace.prompt) == ("evaluation", "What is 2 + 3?")
    assert MessageToDict(trace.metadata) == {
        "evaluation": "evaluations/e",
        "eval_set": "evalSets/s",
        "model": "trainingJobs/j/checkpoints/4",
        "item": "q1",
        "item_digest": "sha256:q",
        "correct": True,
        "grader": "numeric/1",
        "output": "Answer: 5",
        "category": "sums",
        "reference_answer": "5",
    }


def test_a_long_text_is_cut_into_steps_and_nothing_is_lost() -> None:
    text = "x" * (2 * MAX_STEP + 5)
    trace = made_of(f"{text}\nAnswer: 5")
    assert [len(step.content) for step in trace.steps] == [MAX_STEP, MAX_STEP, 5]
    assert trace.metadata["output"] == f"{text}\nAnswer: 5"


def test_each_sample_is_a_trace_that_says_which_it_is() -> None:
    result = v1.EvaluationResult(
        item_id="q1",
        prompt="What is 2 + 3?",
        output="Answer: 5",
        correct=True,
        samples=[
            v1.Sample(output="Answer: 5", correct=True),
            v1.Sample(output="It is 6.", extracted_answer="6"),
        ],
    )
    first, second = (answer_trace(EVALUATION, result, sample) for sample in range(2))
    assert (first.final_answer, second.final_answer) == ("5", "6")
    assert (first.metadata["sample"], second.metadata["sample"]) == (0, 1)
    assert (first.metadata["correct"], second.metadata["correct"]) == (True, False)
    assert second.metadata["output"] == "It is 6."
    assert "sample" not in made_of("Answer: 5").metadata


def test_a_trace_names_an_endpoints_model() -> None:
    spec = v1.EvaluationSpec(eval_set="evalSets/s", endpoint_model="qwen3-8b")
    result = v1.EvaluationResult(item_id="q1", prompt="What is 2 + 3?", output="Answer: 5")
    trace = answer_trace(v1.Evaluation(name="evaluations/e", spec=spec), result)
    assert trace.metadata["model"] == "qwen3-8b"


@pytest.mark.parametrize(
    ("reasoning", "answer", "steps", "final"),
    [
        ("Two and three.\n\nThat is 6?", "5", ["Two and three.", "That is 6?"], "5"),
        ("Is it 6?", "So:\nAnswer: 5", ["Is it 6?", "So:"], "5"),
        ("", "The sum is 5.", ["The sum is 5."], "5"),
    ],
)
def test_reasoning_that_was_split_off_becomes_steps(
    reasoning: str, answer: str, steps: list[str], final: str
) -> None:
    trace = made_of(
        f"<think>{reasoning}</think>{answer}",
        reasoning=reasoning,
        answer=answer,
        reasoning_state=v1.REASONING_STATE_CLOSED,
        extracted_answer="5",
    )
    assert [step.content for step in trace.steps] == steps
    assert trace.final_answer == final


@pytest.mark.parametrize(
    ("state", "answer", "wanted"),
    [
        (v1.REASONING_STATE_CLOSED, "5", 1),
        (v1.REASONING_STATE_CLOSED, "", 0),
        (v1.REASONING_STATE_UNCLOSED, "", 0),
        (v1.REASONING_STATE_NONE, "", 1),
    ],
)
def test_reasoning_without_an_answer_is_no_trace(
    state: v1.ReasoningState.ValueType, answer: str, wanted: int
) -> None:
    result = v1.EvaluationResult(
        item_id="q1", prompt="2 + 3?", output="<think>6?", answer=answer, reasoning_state=state
    )

    class Evaluator:
        def get_evaluation(self, _: str) -> v1.Evaluation:
            return EVALUATION

        def get_eval_set(self, _: str) -> v1.EvalSet:
            return v1.EvalSet()

        def list_evaluation_items(self, *_: Any, **__: Any) -> list[v1.EvaluationResult]:
            return [result]

    class Client:
        evaluator = Evaluator()

    client: Any = Client()
    assert len(list(answer_traces(client, "evaluations/e"))) == wanted


def test_an_answer_to_a_conversation_is_its_last_turn() -> None:
    history = adding()
    item = v1.EvalItem(id="q1", messages=history.messages[:4], tools=history.tools)
    output = '<think>Two.</think><tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
    result = v1.EvaluationResult(
        item_id="q1",
        prompt="user: ...",
        output=output,
        reasoning="Two.",
        answer=output.partition("</think>")[2],
    )
    trace = answer_trace(EVALUATION, result, item=item)
    *before, turn = trace.messages
    assert (before, trace.tools, trace.prompt, len(trace.steps)) == (
        history.messages[:4],
        history.tools,
        "",
        0,
    )
    assert (turn.role, turn.reasoning, turn.content[0].text) == (
        v1.Message.ROLE_ASSISTANT,
        "Two.",
        result.answer,
    )
    assert (trace.source, trace.metadata["output"], trace.metadata["item"]) == ("evaluation", output, "q1")
