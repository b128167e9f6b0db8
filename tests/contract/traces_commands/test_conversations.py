"""`tunix-rt traces` with conversations, against the real trace store."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from typer.testing import Result

from support.conversations import adding, call, conversation, turn
from support.startup.checked_documents import check
from support.traces import trace
from tunix_rt import Client, import_traces, v1
from tunix_rt.formats import trace_to_json

pytestmark = pytest.mark.one_database

Run = Callable[..., Result]


def names(client: Client) -> list[str]:
    return [entry.name for entry in client.trace_store.stream_traces()]


def lines(*entries: v1.Trace | str) -> str:
    return "".join(f"{entry if isinstance(entry, str) else trace_to_json(entry)}\n" for entry in entries)


ASKED = turn("user", "2 + 2?")


def test_conversations_go_out_and_in_again_to_the_byte(run: Run, client: Client) -> None:
    calls = [call("f", '{"z": 1e999, "a": 1}'), call("g", "no"), call("f", '{"b": 9007199254740993, "a": 1}')]
    hostile = conversation(
        turn("developer", "a", "b\u2028\x1b[31m"),
        turn("user", '"\\\n\t', name="é"),
        turn("assistant", "", train=v1.Message.TRAIN_NO, tool_calls=calls),
        tools=[{"name": "f", "definition_text": "x"}, {"type": "function", "function": {"name": "g"}}],
        metadata={"a": [1.5, None]},
    )
    run("import", "-", input=lines(trace(0), adding(), hostile))
    out = run("export").stdout
    kinds = ["trace-line", "conversation-line", "conversation-line"]
    for line, kind in zip(out.rstrip("\n").split("\n"), kinds, strict=True):
        check(json.loads(line), [kind])
    before = list(client.trace_store.stream_traces())
    # What is shown, and listed, is the contract's form; the store knows all of it again.
    for name in names(client):
        shown = json.loads(run("show", name, "--json").stdout)
        assert "0 stored, 1 skipped" in run("import", "-", input=json.dumps(shown)).stdout
    listed = json.loads(run("list", "--json").stdout)
    assert "0 stored, 3 skipped" in run("import", "-", input=lines(*map(json.dumps, listed))).stdout
    run("delete", *names(client), "--yes")
    assert "3 stored" in run("import", "-", input=out).stdout
    after = list(client.trace_store.stream_traces())
    assert [entry.content_digest for entry in after] == [entry.content_digest for entry in before]
    assert [entry.messages for entry in after] == [entry.messages for entry in before]
    assert run("export").stdout == out


def test_what_is_shown_and_then_changed_in_one_place_alone_is_refused(run: Run, client: Client) -> None:
    import_traces(client, [adding()])
    shown = json.loads(run("show", *names(client), "--json").stdout)
    shown["messages"][2]["tool_calls"][0]["arguments"]["a"] = 9
    refused = run("import", "-", input=json.dumps(shown), exit_code=1).stderr
    assert "messages[2].tool_calls[0].arguments_text" in refused
    shown["messages"][0]["role"] = "ROLE_JUDGE"
    refused = run("import", "-", input=json.dumps(shown), exit_code=1).stderr
    assert "line 1: is no trace as `traces show --json` prints it" in refused


def test_a_conversation_is_shown_turn_by_turn(run: Run, client: Client) -> None:
    last = turn("assistant", train=v1.Message.TRAIN_YES, tool_calls=[call("add", "{\x1b[31m")])
    import_traces(client, [adding(), conversation(ASKED, last)])
    one, two = names(client)
    shown = run("show", one).stdout
    order = ("system", "Be brief.", "user", "What is 2 + 3?", "assistant", "I had better add.", "add  c1",
             '{"b": 3, "a": 2}', "tool  add  result of c1", "5", "It is 5.", "Tools that were offered",
             "Adds two numbers.", '{"type": "object", "properties": {"b"', "source", "made")  # fmt: skip
    rest = shown
    for part in order:
        assert part in rest, (part, shown)
        rest = rest.partition(part)[2]
    shown = run("show", two).stdout
    assert "assistant  train: yes" in shown
    assert "no JSON object, kept as a text" in shown
    assert "{\\x1b[31m" in shown
    table = run("list").stdout
    for parts in (["made  ", " 2 ", "What is 2 + 3?", "It is 5."], [" 1 ", "2 + 2?", "add({\\x1b[31m)"]):
        assert any(all(part in line for part in parts) for line in table.splitlines()), (parts, table)


def test_conversations_are_found_by_form_calls_and_turns(run: Run, client: Client) -> None:
    import_traces(client, [trace(0), adding(), conversation(ASKED, turn("assistant", "4"))])

    def found(*options: str) -> list[int]:
        return sorted(entry["sequence"] for entry in json.loads(run("list", "--json", *options).stdout))

    assert found("--conversations") == [2, 3]
    assert found("--no-conversations") == [1]
    assert found("--tool-calls") == [2]
    assert found("--no-tool-calls", "--conversations") == [3]
    assert found("--min-turns", "2") == [2]
    assert found("--max-turns", "1") == [1, 3]
    assert "--min-turns" in run("list", "--min-turns", "0", exit_code=2).stderr


def test_turns_are_set_side_by_side(run: Run, client: Client) -> None:
    import_traces(client, [adding(), adding(answer="Five."), trace(1)])
    base, other, old = names(client)
    view = [line.split() for line in run("compare", base, other).stdout.splitlines()]
    marks = [(line[0], line[1]) for line in view if line and line[0] in {"=", "~", "+", "-"}]
    assert marks == [("=", "system"), ("=", "user"), ("=", "assistant"), ("=", "tool"), ("~", "assistant")]
    assert " ".join(view[-1]) == "turns: 4 the same, 1 changed; final answers: different"
    mixed = run("compare", base, old).stdout
    assert "system/user" in mixed
    assert trace(1).steps[0].content in mixed
