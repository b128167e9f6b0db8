"""How items of an eval set look in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tunix_rt import v1
from tunix_rt.cli import tables, text
from tunix_rt.formats.conversations import json_text
from tunix_rt.formats.lines import plain_of
from tunix_rt.turns import call_text, role_of, text_of


def items_table(items: Sequence[v1.EvalItem]) -> tables.Listing:
    """Items, one a row: what each asks, and what is right."""
    rows = tables.table("ITEM", "CATEGORY", "GRADER", "~PROMPT", "ACCEPTED")
    for item in items:
        tables.add_row(
            rows,
            item.id,
            item.category or "-",
            item.grader.WhichOneof("kind") or "-",
            text.ends_of_line(" ".join(_asked(item)), 400),
            text.one_line(_wanted(item), 60 if item.grader.HasField("tool_call") else 32),
        )
    return rows


def _asked(item: v1.EvalItem) -> Iterator[str]:
    """The prompt; or what was said since the user of a conversation spoke last, and the tools."""
    if not item.messages:
        yield text.one_line(item.prompt, 120)
        return
    users = [at for at, turn in enumerate(item.messages) if turn.role == v1.Message.ROLE_USER]
    since = users[-1] if users else 0
    if since:
        yield f"({text.counted(since, 'message')} before)"
    for turn in item.messages[since:]:
        said = " ".join(filter(None, [text_of(turn), *map(call_text, turn.tool_calls)]))
        yield f"{role_of(turn)}: {text.one_line(said, 120)}"
    if item.tools:
        yield text.one_line(f"(tools: {', '.join(tool.name for tool in item.tools)})", 80)


def _wanted(item: v1.EvalItem) -> str:
    """The accepted answers, or the calls that are to be made."""
    expected = item.grader.tool_call
    calls = "no calls" if expected.no_calls else ", ".join(map(_expected, expected.calls))
    return " | ".join(item.accepted_answers) or calls


def _expected(call: v1.ExpectedToolCall) -> str:
    if call.HasField("arguments_schema"):
        return f"{call.name}(by a schema)"
    return f"{call.name}({call.arguments_text or json_text(plain_of(call.arguments))})"
