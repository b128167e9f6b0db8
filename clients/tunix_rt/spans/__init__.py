"""Spans of OpenTelemetry as conversations, for whoever has spans: the trace store live, imports from files.

``conversations`` takes the spans of one trace of OpenTelemetry, a tree, and gives the conversations in it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tunix_rt import v1
from tunix_rt.spans.calls import (
    UNREADABLE,
    ModelCall,
    Span,
    SpanEvent,
    holds_content,
    is_about_models,
    is_model_call,
    read_call,
)
from tunix_rt.spans.messages import SpanError
from tunix_rt.turns import in_call_order, tool_name

__all__ = [
    "CONTENT_IS_OFF",
    "WITHOUT_CONTENT",
    "Conversations",
    "RefusedSpan",
    "Span",
    "SpanEvent",
    "conversations",
    "cycles",
    "holds_content",
    "is_about_models",
    "is_model_call",
]

CONTENT_IS_OFF: Final = (
    "instrumentations leave messages out unless told: where the application runs, set "
    "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=span_only and "
    "OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental for those of OpenTelemetry, "
    "TRACELOOP_TRACE_CONTENT=true for OpenLLMetry, and unset OPENINFERENCE_HIDE_INPUTS and "
    "OPENINFERENCE_HIDE_OUTPUTS for OpenInference"
)
"""What to do where the calls of a model come without what was said."""

WITHOUT_CONTENT: Final = "calls of a model without its messages or its answer"
"""The kind under which those that are left out for that are counted."""

_SOURCE_CHARACTERS: Final = 64
_CONVERSATION_ID: Final = ("gen_ai.conversation.id", "session.id")
_MODEL: Final = ("gen_ai.response.model", "gen_ai.request.model", "llm.model_name")


@dataclass(frozen=True, slots=True)
class RefusedSpan:
    """A span that should have been in a conversation and is in none, and why, in one line."""

    span_id: str
    reason: str


@dataclass(slots=True)
class Conversations:
    """What the spans of one trace give: ``traces`` in the order in which they begin, ready to be stored; the
    spans that are ``refused``; and, by kind, how much was ``left_out``."""

    traces: list[v1.Trace] = field(default_factory=list)
    refused: list[RefusedSpan] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def conversations(spans: Iterable[Span], *, each_call: bool = False) -> Conversations:
    """The conversations in the spans of one trace of OpenTelemetry.

    A call whose messages begin with all that was said in an earlier one, and its answer, goes on with that
    conversation: so an agent's calls become one, and those of an agent that it asks another. What two
    instrumentations tell of one call counts once, and so does an agent's own span beside those of its calls.

    Args:
        spans: of one trace, in any order, each id once.
        each_call: make every call a conversation of its own.
    """
    found = Conversations()
    spans = list(spans)
    inside = cycles({span.span_id: span.parent_id for span in spans})
    for span in spans:
        if span.span_id in inside:
            found.refused.append(RefusedSpan(span.span_id, f"is inside itself: {inside[span.span_id]}"))
    tree = [span for span in spans if span.span_id not in inside]
    calls = _calls(tree, found)
    threads = [_Thread.of(call, []) for call in calls] if each_call else _threads(calls)
    found.traces = [thread.trace() for thread in threads]
    for trace in found.traces:
        if not trace.tools and any(message.tool_calls for message in trace.messages):
            found.left_out["conversations that call tools whose definitions were not recorded"] += 1
    return found


def cycles(parents: Mapping[str, str]) -> dict[str, str]:
    """The spans that are among their own ancestors, each with the way round, "a in b in a".

    ``parents`` has the id of each span's parent, which need not be there itself.
    """
    state: dict[str, int] = {}
    found: dict[str, str] = {}
    for number, start in enumerate(parents):
        way: list[str] = []
        at = start
        while at in parents and at not in state:
            state[at] = number
            way.append(at)
            at = parents[at]
        if at in parents and state[at] == number and at in way:
            round_ = way[way.index(at) :]
            shown = round_[:4] + (["..."] if len(round_) > 4 else [])
            found.update(dict.fromkeys(round_, " in ".join([*shown, at])))
    return found


def _calls(spans: Sequence[Span], found: Conversations) -> list[ModelCall]:
    """The calls with content in the order in which they began, each once; what is wrong is noted."""
    read: dict[str, ModelCall] = {}
    for span in sorted(spans, key=lambda span: (span.start_ns, span.end_ns, span.span_id)):
        left_out: Counter[str] = Counter()
        try:
            call = read_call(span, left_out)
        except (SpanError, UnicodeEncodeError) as error:
            # JSON can write half of a character as an escape; no text can hold it.
            reason = str(error) if isinstance(error, SpanError) else "holds half of a character"
            found.refused.append(RefusedSpan(span.span_id, reason))
            continue
        except UNREADABLE as error:
            # Programs of all kinds write attributes; one of them must not keep the others from being read.
            reason = f"has messages in a form that is not known ({type(error).__name__})"
            found.refused.append(RefusedSpan(span.span_id, reason))
            continue
        if call is not None and span.failed:
            found.left_out["calls of a model that failed"] += 1
        elif call is not None:
            read[span.span_id] = call
            found.left_out.update(left_out)
        elif is_model_call(span.attributes):
            found.left_out["calls of a model that failed" if span.failed else WITHOUT_CONTENT] += 1
    told = _told_by_others(read, {span.span_id: span.parent_id for span in spans})
    return [call for span_id, call in read.items() if span_id not in told]


def _told_by_others(read: Mapping[str, ModelCall], parents: Mapping[str, str]) -> set[str]:
    """The spans whose calls are told by spans inside them: agents, and calls that were recorded twice."""
    told: set[str] = set()
    nearest: dict[str, str] = {}
    for span_id, call in read.items():
        way: list[str] = []
        at = parents[span_id]
        while at in parents and at not in read and at not in nearest:
            way.append(at)
            at = parents[at]
        found = nearest.get(at, at)
        nearest.update(dict.fromkeys(way, found))
        outer = read.get(found)
        if outer is not None and (
            not is_model_call(outer.span.attributes) or _key(outer.answer) == _key(call.answer)
        ):
            told.add(found)
    return told


Key = tuple[Any, ...]


@dataclass(slots=True)
class _Thread:
    """A conversation as far as it is known: its messages, what tells each, and the calls in it."""

    messages: list[v1.Message]
    keys: list[Key]
    tools: dict[str, v1.Tool]
    calls: list[ModelCall]

    @classmethod
    def of(cls, call: ModelCall, keys: list[Key]) -> _Thread:
        thread = cls([], [], {}, [])
        thread.add(call, keys)
        return thread

    def add(self, call: ModelCall, keys: list[Key]) -> None:
        """Go on with a call whose messages have ``keys``, of which the first are this thread's."""
        self.messages += [*call.messages[len(self.messages) :], call.answer]
        self.keys = [*keys, _key(call.answer)]
        self.tools |= {tool_name(tool): tool for tool in call.tools}
        self.calls.append(call)

    def trace(self) -> v1.Trace:
        last = self.calls[-1].span
        source = next((call.span.service for call in self.calls if call.span.service), "")
        made = v1.Trace(
            trace_version="1.0",
            messages=[self.messages[place] for place in in_call_order(self.messages)],
            tools=self.tools.values(),
            source=source if 0 < len(source) <= _SOURCE_CHARACTERS else "otlp",
        )
        facts: dict[str, Any] = {
            "otel_trace_id": last.trace_id,
            "otel_span_ids": [call.span.span_id for call in self.calls],
            "model": _fact(last, *_MODEL),
            "conversation_id": _fact(last, *_CONVERSATION_ID),
            "agent": _fact(last, "gen_ai.agent.name", "agent.name"),
            "finish_reason": _finish_reason(last),
        }
        made.metadata.update({name: value for name, value in facts.items() if value})
        return made


def _fact(span: Span, *names: str) -> str:
    return next((value for name in names if isinstance(value := span.attributes.get(name), str)), "")


def _finish_reason(span: Span) -> str:
    given = span.attributes.get("gen_ai.response.finish_reasons", span.attributes.get("llm.finish_reason"))
    first = given[0] if isinstance(given, list | tuple) and given else given
    return first if isinstance(first, str) else ""


def _threads(calls: Iterable[ModelCall]) -> list[_Thread]:
    threads: list[_Thread] = []
    by_mark: dict[int, _Thread] = {}
    for call in calls:
        keys = [_key(message) for message in call.messages]
        marks = _marks(keys)
        thread = next((by_mark[mark] for mark in reversed(marks) if mark in by_mark), None)
        if thread is not None and keys[: len(thread.keys)] == thread.keys:
            del by_mark[marks[len(thread.keys) - 1]]
            thread.add(call, keys)
        else:
            thread = _Thread.of(call, keys)
            threads.append(thread)
        by_mark[hash((marks[-1] if marks else 0, thread.keys[-1]))] = thread
    return threads


def _marks(keys: Iterable[Key]) -> list[int]:
    """A number for each beginning of the list, from the shortest on."""
    marks, mark = [], 0
    for key in keys:
        mark = hash((mark, key))
        marks.append(mark)
    return marks


def _key(message: v1.Message) -> Key:
    """What tells a message where it comes again in the next call: thoughts, ids and names are often left out
    there, and white space is changed."""
    text = "".join(part.text for part in message.content).strip()
    calls = tuple((call.name, _arguments(call.arguments_text)) for call in message.tool_calls)
    return message.role, text, calls


def _arguments(text: str) -> str:
    try:
        return json.dumps(json.loads(text), sort_keys=True)
    except (ValueError, RecursionError):
        return text
