"""Reasoning is told from the answer, and the answer alone is graded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any, Final

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from support.timing import cheaply
from tunix_rt_evaluator.eval_sets.model import EvalItem
from tunix_rt_evaluator.evaluations.model import Generation, ItemResult
from tunix_rt_evaluator.evaluations.results import UNCLOSED, Totals, graded
from tunix_rt_evaluator.grading.graders.json_schema import JsonSchemaGrader
from tunix_rt_evaluator.grading.graders.math import MathGrader
from tunix_rt_evaluator.grading.graders.multiple_choice import MultipleChoiceGrader
from tunix_rt_evaluator.grading.graders.numeric import NumericGrader
from tunix_rt_evaluator.grading.graders.set import SetGrader
from tunix_rt_evaluator.grading.graders.strings import (
    ContainsGrader,
    FormatGrader,
    RegexGrader,
    TextGrader,
    TokenF1Grader,
)
from tunix_rt_evaluator.grading.model import Answer, Grader, Parts, ReasoningMarks
from tunix_rt_evaluator.grading.reasoning import (
    NAMED,
    NONE,
    Splitter,
    checked_marks,
    described,
    resolved_marks,
    split,
)
from tunix_rt_evaluator.grading.service import Grading
from tunix_rt_kit.serving.requests import Violations
from tunix_rt_kit.values import ChatTemplateFields

GRADING = Grading()
THINK = resolved_marks(None, None)
OPENED = THINK.model_copy(update={"opened": True})


def named(name: str, **values: Any) -> ReasoningMarks:
    return resolved_marks(ReasoningMarks(name=name, **values), None)


def splitter(marks: ReasoningMarks, *, counts: bool = True) -> Splitter:
    """One that takes a word for a token, or knows nothing of tokens."""
    return Splitter(marks, lambda text: len(text.split()) if counts else None)


def result_of(item: EvalItem, output: str, marks: ReasoningMarks = THINK, **values: Any) -> ItemResult:
    generation = Generation(
        item_id=item.id,
        prompt_tokens=7,
        prompt_token_digest="sha256:p",
        **{"output": output, "output_tokens": 100, "finish_reason": "stop"} | values,
    )
    return graded([(item, generation)], GRADING, splitter(marks))[0]


def parts_of(output: str, marks: ReasoningMarks = THINK) -> Parts:
    answer = Answer(output=output, output_tokens=1, finish_reason="stop")
    return answer.parts(split(output, marks))


CITIES = MultipleChoiceGrader(options=("London", "Paris", "Rome"))
PERSON = JsonSchemaGrader(schema={"type": "object", "required": ["age"]})
KINDS: Final[Mapping[str, tuple[Grader, str, str, str]]] = {
    # The grader, the accepted answer, an answer that is right and one that is wrong. A thought holds either.
    "numeric": (NumericGrader(), "14", "Answer: 14", "Answer: 12"),
    "unmarked number": (NumericGrader(), "14", "14", "12"),
    "text": (TextGrader(), "Paris", "Paris", "London"),
    "set": (SetGrader(), "2, 3", "3 and 2", "3 and 4"),
    "math": (MathGrader(), "1/2", "\\boxed{\\frac{1}{2}}", "\\boxed{\\frac{1}{3}}"),
    "choice": (CITIES, "B", "Answer: B", "Answer: C"),
    "regex": (RegexGrader(whole_output=True), "P[a-z]{4}", "It is Paris", "It is Rome"),
    "contains": (ContainsGrader(whole_output=True), "Paris", "It is Paris", "It is Rome"),
    "token_f1": (TokenF1Grader(threshold=0.9), "the red fox", "a red fox", "a grey wolf"),
    "json_schema": (PERSON, '{"age": 3}', '{"age": 3}', '{"age": 4}'),
    "format": (FormatGrader(reasoning_style="answer-only"), "x", "Answer: 5", "It may be 5"),
}
Form = Callable[[str, str], str]
FORMS: Final[Mapping[str, tuple[ReasoningMarks, Form]]] = {
    "in a line": (THINK, lambda thought, answer: f"<think>{thought}</think>{answer}"),
    "on lines": (THINK, lambda thought, answer: f"<think>\n{thought}\n</think>\n\n{answer}\n"),
    "after white space": (THINK, lambda thought, answer: f"\n <think>{thought}</think> {answer}"),
    "opened by the prompt": (OPENED, lambda thought, answer: f"{thought}\n</think>\n\n{answer}"),
    "opened twice": (OPENED, lambda thought, answer: f"<think>\n{thought}\n</think>\n{answer}"),
    "never opened": (THINK, lambda thought, answer: f"{thought}\n</think>\n{answer}"),
    "in capitals": (THINK, lambda thought, answer: f"<THINK>{thought}</Think>{answer}"),
    "in capitals, never opened": (THINK, lambda thought, answer: f"{thought}</THINK>{answer}"),
    "nested": (
        THINK, lambda thought, answer: f"<think>As <think> says: {thought}</think>{answer}",
    ),
    "its end quoted": (
        THINK, lambda thought, answer: f'<think>I close with "</think>". {thought}</think>{answer}',
    ),
    "its end in a block of code": (
        THINK,
        lambda thought, answer: f"<think>\n```\n<think>a</think>\n```\n{thought}</think>{answer}",
    ),
    "closed twice": (THINK, lambda thought, answer: f"<think>a</think>{thought}</think>{answer}"),
    "several": (
        THINK,
        lambda thought, answer: f"<think>{thought}</think>Let me see.<think>{thought}</think>{answer}",
    ),
    "an answer taken back": (
        THINK, lambda thought, answer: f"<think>a</think>{thought}<think>No.</think>{answer}",
    ),
    "thought of afterwards": (
        THINK, lambda thought, answer: f"<think>a</think>{answer}<think>{thought}</think>\n",
    ),
    "text before": (THINK, lambda thought, answer: f"Let me think.\n<think>{thought}</think>{answer}"),
    "begin_of_thought": (
        named("begin_of_thought"),
        lambda thought, answer: f"<|begin_of_thought|>\n\n{thought}\n\n<|end_of_thought|>\n\n"
        f"<|begin_of_solution|>\n\n{answer}\n\n<|end_of_solution|>",
    ),
    "reasoning": (
        named("reasoning"), lambda thought, answer: f"<reasoning>{thought}</reasoning>{answer}",
    ),
    "THINK": (named("THINK"), lambda thought, answer: f"[THINK]{thought}[/THINK]{answer}"),
    "harmony": (
        named("harmony"),
        lambda thought, answer: f"<|channel|>analysis<|message|>{thought}<|end|><|start|>assistant"
        f"<|channel|>final<|message|>{answer}<|return|>",
    ),
    "cohere": (
        named("START_THINKING"),
        lambda thought, answer: f"<|START_THINKING|>{thought}<|END_THINKING|>"
        f"<|START_RESPONSE|>{answer}<|END_RESPONSE|>",
    ),
    "words": (
        named("granite"),
        lambda thought, answer: f"Here is my thought process: {thought}\nHere is my response: {answer}",
    ),
    "one's own": (
        ReasoningMarks(start="((", end="))", opened=False, revision=1),
        lambda thought, answer: f"(({thought})) {answer}",
    ),
}  # fmt: skip
UNCLOSED_FORMS: Final[Mapping[str, tuple[ReasoningMarks, Form]]] = {
    "in capitals and never closed": (THINK, lambda thought, _: f"<THINK>{thought}. But wait"),
    "never closed": (THINK, lambda thought, _: f"<think>{thought}. But wait"),
    "never closed after the prompt": (OPENED, lambda thought, answer: f"{thought} {answer}"),
    "its end only quoted": (THINK, lambda _, answer: f"<think>Close with '</think>'. {answer}"),
    "taken up again": (THINK, lambda thought, answer: f"<think>a</think>{answer}\n<think>{thought}"),
    "answer first": (THINK, lambda thought, answer: f"{answer}\n<think>Let me check: {thought}"),
}


def item(kind: str) -> EvalItem:
    grader, accepted, _, _ = KINDS[kind]
    return EvalItem(id="q1", prompt="What?", accepted_answers=(accepted,), grader=grader)


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_of_every_form_are_graded_by_their_answer(kind: str) -> None:
    # 21 forms for each of 11 graders, 231 outputs, with what is right in the answer; and as many with it in
    # the thought.
    _, _, right, wrong = KINDS[kind]
    for name, (marks, form) in FORMS.items():
        told = {
            (thought, answer): result_of(item(kind), form(thought, answer), marks)
            for thought, answer in ((wrong, right), (right, wrong), (right, right), (wrong, wrong))
        }
        found = {key: result.verdict.correct for key, result in told.items()}
        assert found == {key: key[1] == right for key in found}, (name, told)
        assert all(result.parts[0].state == "closed" for result in told.values()), name


@pytest.mark.parametrize("kind", KINDS)
def test_reasoning_that_an_endpoint_gives_apart_is_not_graded(kind: str) -> None:
    _, _, right, wrong = KINDS[kind]
    for thought, answer in product((right, wrong), repeat=2):
        result = result_of(item(kind), answer, OPENED, reasoning=thought, reasoning_tokens=60)
        assert result.verdict.correct is (answer == right)
        assert result.parts == (Parts(thought, answer, "closed", 60),)
    # Nothing but reasoning came, whether it was cut or not.
    result = result_of(item(kind), "", reasoning=right)
    assert (result.verdict.correct, result.parts[0].state) == (False, "unclosed")


@pytest.mark.parametrize("kind", KINDS)
def test_reasoning_that_is_never_closed_is_no_answer(kind: str) -> None:
    _, _, right, _ = KINDS[kind]
    for name, (marks, form) in UNCLOSED_FORMS.items():
        result = result_of(item(kind), form(right, right), marks)
        assert (result.verdict.correct, result.verdict.explanation) == (False, UNCLOSED), name
        assert (result.parts[0].state, result.parts[0].answer) == ("unclosed", "")
        assert not result.verdict.error


@pytest.mark.parametrize(
    ("output", "reasoning", "answer"),
    [
        # Behind reasoning a mark in code or in quotation marks is only spoken of.
        ("<think>a</think>Use `<think>` and `</think>`.", "a", "Use `<think>` and `</think>`."),
        ("<think>a</think>Write `<think>x</think>` first.", "a", "Write `<think>x</think>` first."),
        ("<think>a</think>It is “</think>”.", "a", "It is “</think>”."),
        ("<think>a</think>As:\n```xml\n<think>b\n```\nDone", "a", "As:\n```xml\n<think>b\n```\nDone"),
        # A quotation that ends where reasoning does is none of the mark.
        ('<think>Is it "Rome"? No: "Paris"</think>"Paris"', 'Is it "Rome"? No: "Paris"', '"Paris"'),
        # A block of code that is never closed, or that holds all of the output, hides nothing.
        ("<think>```\nx\n</think>14", "```\nx\n", "14"),
        ("```\n<think>12?</think>14\n```", "```\n<think>12?", "14\n```"),
        # White space is content, but for the blank lines next to a mark.
        ("<think>a</think>\n\n    return x\n", "a", "    return x\n"),
        ("<think>a</think>  x  ", "a", "x  "),
        ("<think>\n\n</think>\n\nAnswer: 5", "", "Answer: 5"),
        ("<think>a</think>x<think>b</think>y", "a</think>x<think>b", "y"),
        ("<think>a</think>x<think>b</think>", "a\n\nb", "x"),
        ("<think>a</think>", "a", ""),
    ],
)
def test_what_is_reasoning_and_what_is_the_answer(output: str, reasoning: str, answer: str) -> None:
    assert parts_of(output) == Parts(reasoning, answer, "closed", None)


@pytest.mark.parametrize("output", ["", "14", "Say '<think>' aloud: 14", "A < b > c </thinking>"])
def test_without_reasoning_all_of_an_output_is_the_answer(output: str) -> None:
    assert parts_of(output) == Parts("", output, "none", 0)
    assert parts_of(f"<think>a</think>{output}", named(NONE)).state == "none"


_PIECES = st.sampled_from(
    ["<think>", "</think>", "<think>", "</think>", "`", "```\n", '"', "\n", " ", "12", "a<b", "~~~", "é", "“"]
)
_OUTPUTS = st.lists(_PIECES, max_size=24).map("".join)


@given(_OUTPUTS, st.booleans())
@settings(max_examples=200)
def test_a_split_loses_nothing_and_is_total(output: str, opened: bool) -> None:
    found = split(output, OPENED if opened else THINK)
    if found is None:
        assert not opened
        return
    spans = sorted((*found.reasoning, found.answer))
    # What is in no span is marks and white space; in order, the spans do not meet.
    edges = [0, *(edge for span in spans for edge in span), len(output)]
    assert edges == sorted(edges)
    between = "".join(output[begin:end] for begin, end in zip(edges[::2], edges[1::2], strict=True))
    assert not between.replace("<think>", "").replace("</think>", "").strip()
    assert found.closed or found.answer == (len(output), len(output))


_PLAIN = st.text(
    st.sampled_from("12 5\n=Ae.:-\\{}[]()|é") | st.characters(codec="utf-8", exclude_characters="<>`~\"'"),
    max_size=20,
)


@given(first=_PLAIN, second=_PLAIN, answer=_PLAIN, form=st.sampled_from(sorted(FORMS)))
@settings(max_examples=100)
def test_a_verdict_does_not_depend_on_what_stands_in_closed_reasoning(
    first: str, second: str, answer: str, form: str
) -> None:
    # Where nothing replaces it, what was taken back is the answer, and no reasoning.
    assume(answer.strip() or form != "an answer taken back")
    marks, write = FORMS[form]
    question = EvalItem(id="q1", prompt="?", accepted_answers=("12",), grader=NumericGrader())
    # Marks of one's own that a thought may hold would end it.
    found = [
        result_of(question, write(thought.replace("))", ""), answer), marks) for thought in (first, second)
    ]
    assert found[0].verdict == found[1].verdict
    assert found[0].parts[0].answer == found[1].parts[0].answer


def test_an_output_of_a_megabyte_that_opens_10_000_thoughts_is_graded_in_no_time() -> None:
    question = EvalItem(id="q1", prompt="?", accepted_answers=("14",), grader=NumericGrader())
    thoughts = ["<think>" + "12 " * 33, "<think>12</think>" + "so " * 29, '"</think>"`<think>`\n```\n' * 4]
    for thought in thoughts:
        output = thought * 10_000
        with cheaply(1):
            result = result_of(question, output + "</think>14")
        assert result.verdict.correct
        assert not result_of(question, output + "<think>14").verdict.correct


def test_tokens_of_each_part_are_counted_told_or_not_known() -> None:
    answer = Answer(output="<think>a b c</think>d e", output_tokens=9, finish_reason="stop")
    assert splitter(THINK).split(answer).tokens == 3
    cut = answer.model_copy(update={"output": "<think>a b c"})
    # All of it is reasoning, the token that closes the turn included.
    assert splitter(THINK).split(cut).tokens == 9
    told = answer.model_copy(update={"reasoning_tokens": 5})
    assert splitter(THINK, counts=False).split(told).tokens == 5
    assert splitter(THINK, counts=False).split(answer).tokens is None
    # Some endpoints tell how much they reasoned, and not what.
    hidden = Answer(output="14", output_tokens=9, finish_reason="stop", reasoning_tokens=5)
    found = splitter(OPENED).split(hidden)
    assert hidden.parts(found) == Parts("", "14", "closed", 5)


def test_a_summary_counts_reasoning_apart_and_bounds_know_what_was_cut() -> None:
    question = EvalItem(id="q1", prompt="?", accepted_answers=("14",), grader=NumericGrader())
    results = [
        result_of(question, "<think>a b</think>14"),
        result_of(question, "<think>Answer: 14"),
        result_of(question, "<think>Answer: 14", finish_reason="length"),
        result_of(question, "14"),
    ]
    summary = Totals.of(results).summary
    assert (summary.reasoning_count, summary.unclosed_reasoning_count, summary.truncated_count) == (3, 2, 1)
    assert (summary.overall.correct_count, summary.ungraded_count) == (2, 0)
    assert (summary.worst_correct_count, summary.best_correct_count) == (2, 3)
    assert (summary.reasoning_tokens, summary.generated_tokens) == (2 + 100 + 100, 400)
    unknown = result_of(question, "14", reasoning="a")
    unknown = unknown.model_copy(update={"splits": (unknown.splits[0].model_copy(update={"tokens": None}),)})
    assert Totals.of([*results, unknown]).summary.reasoning_tokens is None


def template(behind: str, **values: Any) -> ChatTemplateFields:
    source = "{{ messages[0].content }}<|im_end|>{% if add_generation_prompt %}" + behind + "{% endif %}"
    return ChatTemplateFields(jinja=source, eos_token="<|im_end|>", **values)


@pytest.mark.parametrize(
    ("asked", "fields", "name", "opened"),
    [
        (None, None, "think", False),
        (None, ChatTemplateFields(builtin="chatml"), "think", False),
        # R1's and Qwen3's thinking models open it; Qwen3 that is not to think closes it at once.
        (None, template("<think>\n{# </think> #}"), "think", True),
        (None, template("<think>\n\n</think>\n\n"), "think", False),
        (None, template("{# [THINK] [/THINK] #}"), "THINK", False),
        (None, template("", system_instruction="Use <reasoning></reasoning>."), "reasoning", False),
        (None, template("<THINK>\n{# </THINK> #}"), "think", True),
        (ReasoningMarks(name="thinking"), template("<think>\n"), "thinking", False),
        (ReasoningMarks(name="think"), template("<think>\n"), "think", True),
        (ReasoningMarks(opened=False), template("<think>\n"), "think", False),
        (ReasoningMarks(opened=True), None, "think", True),
        (ReasoningMarks(name=NONE), template("<think>\n"), NONE, False),
        (ReasoningMarks(start="<a>", end="</a>"), template("<a>"), "", True),
    ],
)
def test_marks_are_those_that_are_asked_for_or_that_the_template_tells(
    asked: ReasoningMarks | None, fields: ChatTemplateFields | None, name: str, opened: bool
) -> None:
    found = resolved_marks(asked, fields)
    assert (found.name, found.opened, found.revision) == (name, opened, 1)
    assert resolved_marks(found, None) == found
    if name in NAMED:
        assert (found.start, found.end) == NAMED[name][:2]


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"name": ""}, "name", "is ''; one of think, "),
        ({"name": "Think"}, "name", "is 'Think'; one of think, "),
        ({"name": "think", "end": "</x>"}, "end", "'think' names another pair"),
        ({"name": NONE, "start": "<x>"}, "start", "'none' names another pair"),
        ({"name": NONE, "opened": True}, "opened", "nothing is reasoning"),
        ({"start": "", "end": ""}, "start", "is '' as the start mark; 1 to 100"),
        ({"start": "<x>"}, "end", "is '' as the end mark; 1 to 100 printable"),
        ({"start": "<x>", "end": "<x>"}, "start", "is '<x>' as the start mark, which equals the end mark"),
        ({"start": "<x>", "end": "<x>>"}, "start", "which is a part of the end mark"),
        ({"start": "<x>", "end": "<X>"}, "start", "is '<x>' as the start mark, which equals the end mark"),
        ({"start": "a<x>", "end": "<x>"}, "end", "which is a part of the start mark"),
        ({"start": " \t", "end": "</x>"}, "start", "without white space around them"),
        ({"start": "<x> ", "end": "</x>"}, "start", "without white space around them"),
        ({"start": "<x>", "end": "a\nb"}, "end", "printable"),
        ({"start": "<x>", "end": "\u202e</x>"}, "end", "printable"),
        ({"start": "x" * 101, "end": "</x>"}, "start", "'" + "x" * 100 + "'... as the start mark; 1 to 100"),
    ],
)
def test_marks_that_tell_nothing_apart_are_named(fields: Mapping[str, Any], field: str, words: str) -> None:
    wrong = Violations()
    checked_marks(fields, wrong, "spec.reasoning_marks")
    assert wrong.found[0].field == f"spec.reasoning_marks.{field}"
    assert words in wrong.found[0].description


# Two marks of four characters have at most eight of them.
_APART = [2 * chr(0xE000 + number) for number in range(10)]


@given(start=st.text(min_size=1, max_size=4), end=st.text(min_size=1, max_size=4), output=_OUTPUTS)
def test_any_marks_that_are_let_pass_split_any_output(start: str, end: str, output: str) -> None:
    wrong = Violations()
    marks = checked_marks({"start": start, "end": end}, wrong, "x")
    if not wrong.found:
        # Texts that hold no character of the marks, or a mark begins where one of them ends.
        inside, outside = [text for text in _APART if not set(text) & set(start + end)][:2]
        whole = f"{start}{inside}{end}{outside}"
        assert split(f"{output}{whole}", resolved_marks(marks, None)) is not None
        assert split(whole, resolved_marks(marks, None)).answer[0] == len(whole) - len(outside)


def test_marks_are_asked_for_again_as_they_came_back() -> None:
    for marks in (THINK, OPENED, named("harmony"), named(NONE)):
        wrong = Violations()
        fields = {name: value for name, value in marks.model_dump().items() if value not in ("", None)}
        asked = checked_marks(fields, wrong, "x")
        assert not wrong.found
        assert resolved_marks(asked, None) == marks
    assert described(None) == described(named(NONE))
    assert len({described(marks) for marks in (None, THINK, OPENED, named("THINK"))}) == 4
