"""How a trace is written in each format: one line of canonical JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from tunix_rt_exporter.datasets.model import ReasoningStyle, SourceTrace
from tunix_rt_kit.canonical import CanonicalPart, canonical_json, canonical_line
from tunix_rt_kit.chat import ChatTemplate, LostText, render_response
from tunix_rt_kit.errors import InvalidArgument

UNRENDERABLE: Final = "unrenderable"
TARGET_LOST: Final = "target_lost"
# What is wrong with one row; anything else is wrong with the template, and so with all of them.
_ROW_REASONS: Final = frozenset({"CHAT_MARKER_IN_CONTENT", "CHAT_MESSAGES_INVALID", "CHAT_TEMPLATE_PREFIX"})
_SOURCE: Final = "source_trace_id"

Turn = tuple[str, str]


@dataclass(frozen=True, slots=True)
class RenderedRow:
    """A row's line in each of ``FORMATS``, in that order, and its figures."""

    lines: tuple[bytes, bytes, bytes]
    steps: int
    prompt_characters: int
    response_characters: int


@dataclass(frozen=True, slots=True)
class Unwritable:
    """Why a trace cannot be a row: the stage that drops it, and what is wrong with it."""

    stage: str
    facts: Mapping[str, Any]


class RowRenderer:
    """Writes traces as rows, by one chat template and reasoning style.

    No text may hold a control text of the template, or one of ``special_tokens``.
    """

    def __init__(
        self, template: ChatTemplate, style: ReasoningStyle, special_tokens: Sequence[str] = ()
    ) -> None:
        self._template = template
        self._style: ReasoningStyle = style
        # Of the format tunix_sft, which trims nothing.
        gemma = ChatTemplate.built_in("gemma-it", system_instruction=template.system_instruction)
        self._gemma = replace(gemma.frame, opening=gemma.frame.opening.removeprefix(gemma.start_of_text))
        held = {*template.control_texts, *gemma.control_texts, *special_tokens}
        # The longest first, so that it is the one that is named.
        self._held = re.compile("|".join(map(re.escape, sorted(held, key=lambda text: (-len(text), text)))))

    def render(self, traces: Sequence[SourceTrace]) -> Iterator[RenderedRow | Unwritable]:
        """The row of each trace, in order, or why it has none: what a row teaches is what its trace says.

        Raises InvalidArgument if it is the template that fails.
        """
        turns = [(trace.prompt, self._response(trace)) for trace in traces]
        held = [self._held.search("\n".join(turn)) for turn in turns]
        clean = [turn for turn, found in zip(turns, held, strict=True) if found is None]
        examples = self._examples(clean)
        for trace, turn, found in zip(traces, turns, held, strict=True):
            yield (
                self._row(trace, turn, next(examples))
                if found is None
                else Unwritable(UNRENDERABLE, {"control_text": found[0]})
            )

    def _examples(self, turns: Sequence[Turn]) -> Iterator[Turn | Unwritable]:
        try:
            yield from self._template.split_turns(turns)
        except InvalidArgument as error:
            if error.reason not in _ROW_REASONS:
                raise
            if len(turns) == 1:
                yield Unwritable(UNRENDERABLE, {"problem": error.message})
                return
            for turn in turns:
                yield from self._examples([turn])

    def _row(self, trace: SourceTrace, turn: Turn, example: Turn | Unwritable) -> RenderedRow | Unwritable:
        if isinstance(example, Unwritable):
            return example
        lost = self._template.frame.lost(turn, example)
        if lost is not None:
            return Unwritable(TARGET_LOST, {"lost": self._parts(trace, lost, example[1])})
        return _row(trace, *example, self._gemma.whole(*turn))

    def _parts(self, trace: SourceTrace, lost: LostText, response: str) -> list[str]:
        """What of the trace is lost: its prompt, or of its reply what the response does not hold."""
        if lost == "prompt":
            return ["prompt"]
        reply = self._template.frame.reply(response)
        missing = [] if reply.endswith(trace.final_answer) else ["answer"]
        if self._style != "answer-only" and any(step["content"] not in reply for step in trace.steps):
            missing.append("reasoning")
        return missing or ["reply"]

    def _response(self, trace: SourceTrace) -> str:
        contents = [step["content"] for step in trace.steps]
        return render_response(contents, trace.final_answer, self._style)


def _row(trace: SourceTrace, prompt: str, response: str, whole_text: str) -> RenderedRow:
    row_id = trace.digest.hex()
    metadata = canonical_json(trace.metadata)
    shared = {"final_answer": trace.final_answer, "id": row_id, "metadata": CanonicalPart(metadata)}
    example = {
        "id": row_id,
        "metadata": CanonicalPart(_with_source(metadata, trace.metadata, row_id)),
        "prompt": prompt,
        "response": response,
    }
    return RenderedRow(
        (
            canonical_line({**shared, "prompts": trace.prompt, "trace_steps": trace.steps}),
            canonical_line({**shared, "prompts": whole_text}),
            canonical_line(example),
        ),
        len(trace.steps),
        len(prompt),
        len(response),
    )


def _with_source(canonical: bytes, metadata: dict[str, Any], row_id: str) -> bytes:
    """The canonical form of metadata with the id of the trace in it."""
    if not metadata:
        return f'{{"{_SOURCE}":"{row_id}"}}'.encode()
    if max(metadata) < _SOURCE:
        return canonical[:-1] + f',"{_SOURCE}":"{row_id}"}}'.encode()
    return canonical_json({**metadata, _SOURCE: row_id})
