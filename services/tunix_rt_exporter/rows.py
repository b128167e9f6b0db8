"""How a trace is written in each format: one line of canonical JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tunix_rt_exporter.model import ReasoningStyle, SourceTrace
from tunix_rt_kit.artifacts import canonical_json
from tunix_rt_kit.chat import ChatTemplate, Message, trace_messages, trace_text
from tunix_rt_kit.errors import InvalidArgument

# What is wrong with one row; anything else is wrong with the template, and so with all of them.
_ROW_REASONS: Final = frozenset({"CHAT_MARKER_IN_CONTENT", "CHAT_MESSAGES_INVALID"})


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
        examples = self._template.split_examples([self._messages(trace) for trace in traces])
        return [
            self._row(trace, prompt, response)
            for trace, (prompt, response) in zip(traces, examples, strict=True)
        ]

    def _messages(self, trace: SourceTrace) -> tuple[Message, Message]:
        return trace_messages(trace.prompt, _contents(trace), trace.final_answer, self._style)

    def _row(self, trace: SourceTrace, prompt: str, response: str) -> RenderedRow:
        row_id = trace.digest.hex()
        shared: dict[str, Any] = {
            "id": row_id,
            "final_answer": trace.final_answer,
            "metadata": trace.metadata,
        }
        whole_text = trace_text(
            "gemma-it",
            trace.prompt,
            _contents(trace),
            trace.final_answer,
            system_instruction=self._template.system_instruction,
            style=self._style,
        )
        example = {
            "id": row_id,
            "prompt": prompt,
            "response": response,
            "metadata": {**trace.metadata, "source_trace_id": row_id},
        }
        return RenderedRow(
            (
                _line({**shared, "prompts": trace.prompt, "trace_steps": trace.steps}),
                _line({**shared, "prompts": whole_text}),
                _line(example),
            ),
            len(trace.steps),
            len(prompt),
            len(response),
        )


def _contents(trace: SourceTrace) -> list[str]:
    return [step["content"] for step in trace.steps]


def _line(row: dict[str, Any]) -> bytes:
    return canonical_json(row) + b"\n"
