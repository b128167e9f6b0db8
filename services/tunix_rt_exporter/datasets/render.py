"""How a trace is written in each format: one line of canonical JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

from tunix_rt_exporter.datasets.model import (
    ChangedHistory,
    ReasoningStyle,
    SourceTrace,
    TrainOn,
    content_text,
)
from tunix_rt_kit.canonical import CanonicalPart, canonical_json, canonical_line
from tunix_rt_kit.chat import ChatTemplate, LostText, Message, render_response
from tunix_rt_kit.chat.conversations import (
    Conversation,
    ConversationRenderer,
    RenderedConversation,
    Unrendered,
)
from tunix_rt_kit.chat.messages import ToolCall
from tunix_rt_kit.errors import InvalidArgument

UNRENDERABLE: Final = "unrenderable"
TARGET_LOST: Final = "target_lost"
CHANGED_HISTORY: Final = "changed_history"
MAX_EXAMPLES_BYTES: Final = 64 << 20
"""Of one conversation, which may be an example for each of its turns, each longer than the one before."""
_RENDERED_AT_ONCE: Final = 32 << 20
# What is wrong with one row; anything else is wrong with the template, and so with all of them.
_ROW_REASONS: Final = frozenset({"CHAT_MARKER_IN_CONTENT", "CHAT_MESSAGES_INVALID", "CHAT_TEMPLATE_PREFIX"})
_SOURCE: Final = "source_trace_id"

Turn = tuple[str, str]


@dataclass(frozen=True, slots=True)
class RenderedRow:
    """A row's line in each of ``FORMATS``, in that order, and its figures; of a conversation also
    ``examples``, the lines of its training examples."""

    lines: tuple[bytes, bytes, bytes]
    steps: int
    prompt_characters: int
    response_characters: int
    examples: bytes = b""


@dataclass(frozen=True, slots=True)
class Unwritable:
    """Why a trace cannot be a row: the stage that drops it, and what is wrong with it."""

    stage: str
    facts: Mapping[str, Any]


class RowRenderer:
    """Writes traces as rows, by one chat template and reasoning style.

    No text may hold a control text of the template, or one of ``special_tokens``. ``train_on`` and
    ``changed_history`` are about conversations.
    """

    def __init__(
        self,
        template: ChatTemplate,
        style: ReasoningStyle,
        special_tokens: Sequence[str] = (),
        *,
        train_on: TrainOn = "all_assistants",
        changed_history: ChangedHistory = "each_turn",
    ) -> None:
        self._template = template
        self._style: ReasoningStyle = style
        self._special_tokens = special_tokens
        self._train_on: TrainOn = train_on
        self._changed_history: ChangedHistory = changed_history
        # Of the format tunix_sft, which trims nothing.
        gemma = ChatTemplate.built_in("gemma-it", system_instruction=template.system_instruction)
        self._gemma = replace(gemma.frame, opening=gemma.frame.opening.removeprefix(gemma.start_of_text))
        held = {*template.control_texts, *gemma.control_texts, *special_tokens}
        # The longest first, so that it is the one that is named.
        self._held = re.compile("|".join(map(re.escape, sorted(held, key=lambda text: (-len(text), text)))))

    def render(self, traces: Sequence[SourceTrace]) -> Iterator[RenderedRow | Unwritable]:
        """The row of each trace, in order, or why it has none: what a row teaches is what its trace says.

        A conversation has a turn that is learned. Raises InvalidArgument if it is the template that fails.
        """
        answers = self._answers([trace for trace in traces if not trace.messages])
        conversations = self._conversations([trace for trace in traces if trace.messages])
        for trace in traces:
            yield next(conversations if trace.messages else answers)

    def _answers(self, traces: Sequence[SourceTrace]) -> Iterator[RenderedRow | Unwritable]:
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

    def _conversations(self, traces: Sequence[SourceTrace]) -> Iterator[RenderedRow | Unwritable]:
        for part in _parts_of(traces):
            asked = [
                Conversation(
                    messages=[chat_message(message) for message in trace.messages],
                    learned=trace.learned_turns(self._train_on),
                    tools=trace.tools,
                )
                for trace in part
            ]
            for trace, found in zip(part, self._conversation_renderer.render(asked), strict=True):
                yield _unrendered(found) if isinstance(found, Unrendered) else _conversation_row(trace, found)

    @cached_property
    def _conversation_renderer(self) -> ConversationRenderer:
        return ConversationRenderer(
            self._template, special_tokens=self._special_tokens, changed_history=self._changed_history
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


def chat_message(message: Mapping[str, Any]) -> Message:
    """A conversation's message, as the format ``trace`` has it, as chat templates take it."""
    return Message(
        role=message["role"],
        content=content_text(message),
        reasoning=message.get("reasoning", ""),
        tool_calls=tuple(ToolCall(**call) for call in message.get("tool_calls", ())),
        tool_call_id=message.get("tool_call_id", ""),
        name=message.get("name", ""),
    )


def _parts_of(traces: Sequence[SourceTrace]) -> Iterator[Sequence[SourceTrace]]:
    """Conversations in parts that are rendered at once: each may be written once for each of its turns."""
    part: list[SourceTrace] = []
    size = 0
    for trace in traces:
        written = len(trace.messages) * sum(len(content_text(message)) for message in trace.messages)
        if part and size + written > _RENDERED_AT_ONCE:
            yield part
            part, size = [], 0
        part.append(trace)
        size += written
    if part:
        yield part


def _unrendered(found: Unrendered) -> Unwritable:
    if found.reason == "TARGET_LOST":
        return Unwritable(TARGET_LOST, {"lost": found.facts["lost"]})
    if found.reason == "CHAT_MARKER_IN_CONTENT":
        return Unwritable(UNRENDERABLE, {"control_text": found.facts["control_text"]})
    stage = CHANGED_HISTORY if found.reason == "CHAT_TEMPLATE_HISTORY" else UNRENDERABLE
    return Unwritable(stage, {"problem": found.message})


def _conversation_row(
    trace: SourceTrace, examples: Sequence[RenderedConversation]
) -> RenderedRow | Unwritable:
    row_id = trace.digest.hex()
    metadata = CanonicalPart(canonical := canonical_json(trace.metadata))
    with_source = CanonicalPart(_with_source(canonical, trace.metadata, row_id))
    prompt, response = examples[-1].last_turn
    lines = b"".join(
        canonical_line(
            {
                "id": row_id if len(examples) == 1 else f"{row_id}:{example.turns[-1].message}",
                "metadata": with_source,
                "segments": [{"learned": part.learned, "text": part.text} for part in example.segments],
            }
        )
        for example in examples
    )
    if len(lines) > MAX_EXAMPLES_BYTES:
        problem = f"its training examples have {len(lines)} bytes; at most {MAX_EXAMPLES_BYTES} are written"
        return Unwritable(UNRENDERABLE, {"problem": problem})
    shared = {"id": row_id, "metadata": metadata}
    example = {"id": row_id, "metadata": with_source, "prompt": prompt, "response": response}
    learned = sum(turn.end - turn.start for example in examples for turn in example.turns)
    return RenderedRow(
        (
            canonical_line({**shared, "messages": trace.messages, "tools": trace.tools}),
            canonical_line(
                {**shared, "final_answer": trace.final_answer or response, "prompts": prompt + response}
            ),
            canonical_line(example),
        ),
        sum(len(example.turns) for example in examples),
        sum(len(example.text) for example in examples) - learned,
        learned,
        lines,
    )


def example_of(line: bytes) -> bytes:
    """A line of the format ``training_example`` as one of ``conversation_example``."""
    row = json.loads(line)
    segments = [{"learned": False, "text": row["prompt"]}, {"learned": True, "text": row["response"]}]
    return canonical_line(
        {
            "id": row["id"],
            "metadata": CanonicalPart(canonical_json(row["metadata"])),
            "segments": [segment for segment in segments if segment["text"]],
        }
    )


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
