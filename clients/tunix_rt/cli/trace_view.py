"""Traces as people read them, both forms: on one line, and whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.text import Text

from tunix_rt import v1
from tunix_rt.cli import tables
from tunix_rt.cli.documents import as_document
from tunix_rt.escapes import visible
from tunix_rt.turns import call_text, role_of, text_of

_TRAIN = {v1.Message.TRAIN_YES: "train: yes", v1.Message.TRAIN_NO: "train: no"}


def turn_text(trace: v1.Trace, index: int) -> Text:
    """All that is said in a turn: reasoning, text and calls, one below the other."""
    if not trace.messages:
        said = [trace.prompt] if index == 0 else [step.content for step in trace.steps]
        return Text(visible("\n".join(said if index == 0 else [*said, trace.final_answer])))
    turn = trace.messages[index]
    parts = [Text(visible(turn.reasoning), style="italic")] if turn.reasoning else []
    parts += [Text(visible(text_of(turn)))] if text_of(turn) else []
    parts += [Text(visible(call_text(call))) for call in turn.tool_calls]
    return Text("\n").join(parts)


def trace_panel(trace: v1.Trace, scores: Sequence[v1.TraceScore] = ()) -> Panel:
    """A trace as it is read: what was said in order, and its facts and scores below."""
    metadata = as_document(trace.metadata)
    sheet = tables.facts(
        [
            ("source", trace.source),
            ("version", trace.trace_version),
            ("stored", tables.moment(trace.create_time)),
            ("sequence", str(trace.sequence)),
            ("digest", trace.content_digest),
            *((f"metadata {key}", str(metadata[key])) for key in sorted(metadata)),
            *((f"score {score.criterion}", _score(score)) for score in scores),
        ]
    )
    said = _conversation(trace) if trace.messages else _one_answer(trace)
    return Panel(Group(*said, sheet), title=Text(trace.name), title_align="left", padding=(1, 2))


def _one_answer(trace: v1.Trace) -> Iterator[RenderableType]:
    yield Text(visible(trace.prompt))
    yield Text()
    yield tables.facts(
        (f"{step.i}", Text.assemble((f"{visible(step.type)}  ", "dim"), visible(step.content)))
        for step in trace.steps
    )
    yield Text()
    yield Text.assemble(("Answer  ", "bold"), visible(trace.final_answer))
    yield Text()


def _conversation(trace: v1.Trace) -> Iterator[RenderableType]:
    for turn in trace.messages:
        answered = f"result of {turn.tool_call_id}" if turn.tool_call_id else ""
        beside = [turn.name, answered, _TRAIN.get(turn.train, "")]
        yield Text.assemble(
            (role_of(turn), "bold"), *((f"  {visible(fact)}", "dim") for fact in beside if fact)
        )
        yield Padding(Group(*_said(turn)), (0, 0, 1, 2))
    if trace.tools:
        yield Text("Tools that were offered", style="bold")
        yield Padding(tables.facts(map(_offered, trace.tools)), (0, 0, 1, 2))


def _said(turn: v1.Message) -> Iterator[RenderableType]:
    if turn.reasoning:
        yield tables.facts([("reasoning", Text(visible(turn.reasoning), style="italic"))])
    if said := text_of(turn):
        yield Text(visible(said))
    elif not turn.tool_calls:
        yield Text("(empty)", style="dim")
    if turn.tool_calls:
        yield tables.facts(("call", _call(call)) for call in turn.tool_calls)


def _call(call: v1.ToolCall) -> Text:
    kept = "" if call.HasField("arguments") else "  no JSON object, kept as a text"
    name = f"{call.name}  {call.id}" if call.id else call.name
    return Text.assemble((visible(name), "cyan"), (kept, "dim"), f"\n{visible(call.arguments_text)}")


def _offered(tool: v1.Tool) -> tuple[str, Text]:
    """A tool's name; what it does, and its parameters in their order."""
    try:
        definition = json.loads(tool.definition_text)
        function = definition["function"] if definition.get("type") == "function" else definition
        parameters = (
            json.dumps(function["parameters"], ensure_ascii=False) if "parameters" in function else ""
        )
    except (ValueError, KeyError, AttributeError, TypeError):
        parameters = tool.definition_text
    lines = [visible(tool.description)] if tool.description else []
    shown = Text("\n".join(lines))
    if parameters:
        shown.append(("\n" if lines else "") + visible(parameters), "dim")
    return tool.name, shown


def _score(score: v1.TraceScore) -> RenderableType:
    return Text.assemble(f"{score.value:g}", (f"  {tables.age(score.create_time)} ago", "dim"))
