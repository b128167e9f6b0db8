"""A model's answers as traces, to read step by step and to compare with ``CompareTraces``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from tunix_rt import v1
from tunix_rt.client import Client
from tunix_rt.formats.conversations import MAX_MESSAGE_TEXT
from tunix_rt.formats.rows import MAX_STEP, MAX_STEPS, MAX_TEXT, TRACE_VERSION, paragraphs

SOURCE: Final = "evaluation"
"""The source of traces that were made of answers."""

_HEADING: Final = re.compile(r"\A\s*(?:<think>|Reasoning:)\s*")
_LABEL: Final = "Answer:"
_NUMBERED: Final = re.compile(r"^[ \t]*\d{1,4}[.)][ \t]+", re.MULTILINE)


def answer_traces(client: Client, evaluation: str) -> Iterator[v1.Trace]:
    """The answers of ``evaluations/{evaluation}``, each as a trace, ordered by item id.

    The metadata names the evaluation, the eval set, the model and the item, and holds the whole output, its
    grade and an accepted answer; of several samples of an item also which one it is, from 0. Items for which
    nothing was generated are left out, and so is reasoning without an answer. The same evaluation always
    gives the same traces. An answer to a conversation is its last turn, with its calls as the model wrote
    them in the text.

    Raises:
        NotFoundError: there is no such evaluation.
    """
    found = client.evaluator.get_evaluation(evaluation)
    items = client.evaluator.get_eval_set(found.spec.eval_set).items
    conversations = {item.id: item for item in items if item.messages}
    for result in client.evaluator.list_evaluation_items(evaluation, page_size=1000):
        samples: Sequence[int | None] = range(len(result.samples)) or [None]
        for sample in samples:
            if _has_answer(_answered(result, sample)):
                yield answer_trace(found, result, sample, conversations.get(result.item_id))


def answer_trace(
    evaluation: v1.Evaluation,
    result: v1.EvaluationResult,
    sample: int | None = None,
    item: v1.EvalItem | None = None,
) -> v1.Trace:
    """One answer, which is not empty, as a trace; of several samples, the one with the index ``sample``.

    Its reasoning becomes steps, and so does the part of the answer before ``Answer:``. Where ``item`` is a
    conversation, the trace is that with the answer as its last turn.
    """
    answered = _answered(result, sample)
    output, reasoning, text = (
        part.replace("\0", "\ufffd")
        for part in (answered.output, answered.reasoning, answered.answer or answered.output)
    )
    if item is not None and item.messages:
        turn = v1.Message(role=v1.Message.ROLE_ASSISTANT, reasoning=reasoning[:MAX_MESSAGE_TEXT])
        turn.content.add(text=text[:MAX_MESSAGE_TEXT])
        trace = v1.Trace(messages=[*item.messages, turn], tools=item.tools)
    else:
        trace = _of_question(result.prompt, reasoning, text, answered)
    trace.trace_version, trace.source = TRACE_VERSION, SOURCE
    spec = evaluation.spec
    trace.metadata.update(
        {
            "evaluation": evaluation.name,
            "eval_set": spec.eval_set,
            "model": spec.checkpoint or spec.endpoint_model or spec.base_model,
            "item": result.item_id,
            "item_digest": result.item_digest,
            "correct": answered.correct,
            "grader": result.grader,
            "output": output,
        }
    )
    if sample is not None:
        trace.metadata["sample"] = sample
    if result.category:
        trace.metadata["category"] = result.category
    if result.accepted_answers:
        # Where the trace store's criterion "answer" looks.
        trace.metadata["reference_answer"] = result.accepted_answers[0]
    return trace


def _of_question(
    prompt: str, reasoning: str, text: str, answered: v1.EvaluationResult | v1.Sample
) -> v1.Trace:
    before, label, answer = text.rpartition(_LABEL)
    if not label:
        before, answer = "" if reasoning else text, answered.extracted_answer.replace("\0", "\ufffd")
    steps = [*_steps(reasoning), *_steps(before)] or list(_pieces([text]))
    return v1.Trace(
        prompt=prompt,
        steps=[v1.TraceStep(i=i, type="reason", content=text) for i, text in enumerate(steps[:MAX_STEPS])],
        final_answer=(answer.strip() or text.strip())[:MAX_TEXT],
    )


def _answered(result: v1.EvaluationResult, sample: int | None) -> v1.EvaluationResult | v1.Sample:
    return result if sample is None else result.samples[sample]


def _has_answer(answered: v1.EvaluationResult | v1.Sample) -> bool:
    """Whether there is more than reasoning; of a sample whose texts were left out, whether one was read."""
    if answered.reasoning_state == v1.REASONING_STATE_CLOSED:
        return bool(answered.answer.strip() or answered.extracted_answer)
    return answered.reasoning_state != v1.REASONING_STATE_UNCLOSED and bool(answered.output.strip())


def _steps(reasoning: str) -> Iterator[str]:
    """Numbered lines where there are some, else paragraphs."""
    text = _HEADING.sub("", reasoning).replace("</think>", "\n\n")
    starts = [match.start() for match in _NUMBERED.finditer(text)]
    if starts:
        parts = [text[: starts[0]], *(text[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True))]
        yield from _pieces(_NUMBERED.sub("", part) for part in parts)
    else:
        yield from _pieces(paragraphs(text))


def _pieces(texts: Iterable[str]) -> Iterator[str]:
    """The texts that hold something, cut where they are longer than a step may be."""
    for text in map(str.strip, texts):
        yield from (text[start : start + MAX_STEP] for start in range(0, len(text), MAX_STEP))
