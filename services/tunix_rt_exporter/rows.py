"""How a trace is written in each format: one line of canonical JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tunix_rt_exporter.model import ReasoningStyle, SourceTrace
from tunix_rt_kit.artifacts import CanonicalPart, canonical_json, canonical_line
from tunix_rt_kit.chat import ChatTemplate, gemma_it, render_response
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
        turns = [(trace.prompt, self._response(trace)) for trace in traces]
        examples = self._template.split_turns(turns)
        in_gemma = examples if self._template == self._gemma else self._gemma.split_turns(turns)
        return [
            _row(trace, prompt, response, asked.removeprefix(gemma_it.BOS) + replied)
            for trace, (prompt, response), (asked, replied) in zip(traces, examples, in_gemma, strict=True)
        ]

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
