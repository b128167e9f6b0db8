"""How a trace is written in each format: one line of canonical JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Final

from tunix_rt_exporter.model import ReasoningStyle, SourceTrace
from tunix_rt_kit.artifacts import canonical_json, canonical_string
from tunix_rt_kit.chat import ChatTemplate, Message, gemma_it, trace_messages
from tunix_rt_kit.errors import InvalidArgument

# What is wrong with one row; anything else is wrong with the template, and so with all of them.
_ROW_REASONS: Final = frozenset({"CHAT_MARKER_IN_CONTENT", "CHAT_MESSAGES_INVALID"})


_SOURCE: Final = "source_trace_id"


@dataclass(frozen=True, slots=True)
class RenderedRow:
    """A row's line in each of ``FORMATS``, in that order, and its figures."""

    lines: tuple[bytes, bytes, bytes]
    steps: int
    prompt_characters: int
    response_characters: int


class RowRenderer:
    """Writes traces as rows, by one chat template and reasoning style."""

    def __init__(self, template: ChatTemplate, style: ReasoningStyle) -> None:
        self._template = template
        self._style: ReasoningStyle = style
        # Writes the whole texts of the format tunix_sft.
        self._gemma = ChatTemplate.built_in("gemma-it", system_instruction=template.system_instruction)

    def render(self, traces: Sequence[SourceTrace]) -> Iterator[RenderedRow | None]:
        """The row of each trace, in order; None for a trace that the template cannot take.

        Raises InvalidArgument if it is the template that fails.
        """
        try:
            yield from self._all(traces)
        except InvalidArgument as error:
            if error.reason not in _ROW_REASONS:
                raise
            if len(traces) == 1:
                yield None
                return
            for trace in traces:
                yield from self.render([trace])

    def _all(self, traces: Sequence[SourceTrace]) -> list[RenderedRow]:
        conversations = [self._messages(trace) for trace in traces]
        examples = self._template.split_examples(conversations)
        whole_texts: Iterable[str | None] = repeat(None)
        if self._template != self._gemma:
            whole_texts = [
                self._gemma.render(messages).removeprefix(gemma_it.BOS) for messages in conversations
            ]
        return [
            _row(trace, prompt, response, whole_text)
            for trace, (prompt, response), whole_text in zip(traces, examples, whole_texts, strict=False)
        ]

    def _messages(self, trace: SourceTrace) -> tuple[Message, Message]:
        contents = [step["content"] for step in trace.steps]
        return trace_messages(trace.prompt, contents, trace.final_answer, self._style)


def _row(trace: SourceTrace, prompt: str, response: str, whole_text: str | None) -> RenderedRow:
    """The row of a trace; without a ``whole_text``, that is the prompt and the response in Gemma's turns."""
    # The canonical JSON of rows whose keys are known is put together from that of their values.
    text = canonical_string
    row_id = trace.digest.hex()
    asked, replied = text(prompt), text(response)
    whole = text(whole_text) if whole_text is not None else _joined(asked, replied)
    steps = ",".join(
        [
            f'{{"content":{text(step["content"])},"i":{step["i"]},"type":{text(step["type"])}}}'
            for step in trace.steps
        ]
    )
    metadata = canonical_json(trace.metadata).decode()
    traced = _with_source(metadata, trace.metadata, row_id)
    shared = f'{{"final_answer":{text(trace.final_answer)},"id":"{row_id}","metadata":{metadata},"prompts":'
    return RenderedRow(
        (
            f'{shared}{text(trace.prompt)},"trace_steps":[{steps}]}}\n'.encode(),
            f"{shared}{whole}}}\n".encode(),
            f'{{"id":"{row_id}","metadata":{traced},"prompt":{asked},"response":{replied}}}\n'.encode(),
        ),
        len(trace.steps),
        len(prompt),
        len(response),
    )


def _joined(prompt: str, response: str) -> str:
    """Two canonical strings as one, without the opening of the sequence."""
    return f'"{prompt[1:-1].removeprefix(gemma_it.BOS)}{response[1:]}'


def _with_source(canonical: str, metadata: dict[str, Any], row_id: str) -> str:
    """The canonical form of metadata with the id of the trace in it."""
    if not metadata:
        return f'{{"{_SOURCE}":"{row_id}"}}'
    if max(metadata) < _SOURCE:
        return f'{canonical[:-1]},"{_SOURCE}":"{row_id}"}}'
    return canonical_json({**metadata, _SOURCE: row_id}).decode()
