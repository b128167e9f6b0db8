"""Logs of agents and of model calls as conversations: each form's example, and what goes wrong with logs."""

from __future__ import annotations

import io
import json
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from tunix_rt import v1
from tunix_rt.errors import FormatError
from tunix_rt.formats import Lossy, Record, read_records, read_traces, trace_to_json
from tunix_rt_trace_store import convert
from tunix_rt_trace_store.traces.conversation import CONVERSATION

EXAMPLES = Path(__file__).parents[4] / "examples/traces"
LOGS = (
    *("inspect.eval", "inspect.json", "claude-code.jsonl", "codex.jsonl", "atif.json"),
    *("otlp-gen-ai.json", "otlp-gen-ai-events.jsonl", "otlp-openinference.json"),
    *("phoenix-spans.json", "phoenix-dataframe.jsonl", "langfuse-trace.json", "langfuse-observations.jsonl"),
)


def checked(trace: v1.Trace) -> None:
    """Raises for a trace that the store would refuse."""
    CONVERSATION.validate_python(convert.draft(trace).content)


def read(data: bytes | str, **options: Any) -> tuple[list[Record], list[str]]:
    lossy = Lossy()
    source = io.BytesIO(data.encode() if isinstance(data, str) else data)
    return list(read_records(source, lossy=lossy, **options)), lossy.lines()


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def said(trace: v1.Trace | None) -> list[str]:
    assert trace is not None
    roles = (v1.Message.Role.Name(message.role)[5:].lower() for message in trace.messages)
    return [
        f"{role}: {''.join(part.text for part in message.content)}"
        for role, message in zip(roles, trace.messages, strict=True)
    ]


@pytest.mark.parametrize("name", LOGS)
def test_the_example_of_each_form(name: str, snapshot: SnapshotAssertion) -> None:
    lossy = Lossy()
    traces = list(read_traces(EXAMPLES / name, lossy=lossy))
    for trace in traces:
        checked(trace)
    found = {"traces": [json.loads(trace_to_json(trace)) for trace in traces], "left_out": lossy.lines()}
    assert json.dumps(found, indent=1, ensure_ascii=False) == snapshot


SESSION: dict[str, Any] = {"sessionId": "s1", "uuid": "u1", "parentUuid": None, "isSidechain": False}


def human(text: Any, uuid: str = "u1", parent: str | None = None, **fields: Any) -> dict[str, Any]:
    message = {"role": "user", "content": text}
    return {**SESSION, "type": "user", "uuid": uuid, "parentUuid": parent, "message": message, **fields}


def model(*blocks: Any, uuid: str = "a1", parent: str | None = "u1", **fields: Any) -> dict[str, Any]:
    message = {"id": f"msg-{uuid}", "role": "assistant", "content": list(blocks)}
    return {**SESSION, "type": "assistant", "uuid": uuid, "parentUuid": parent, "message": message, **fields}


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


def use(call_id: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": "Bash", "input": {"command": "ls"}}


@pytest.mark.parametrize("name", ["claude-code.jsonl", "codex.jsonl"])
@pytest.mark.parametrize("left", [1, 40])
def test_a_session_that_is_still_being_written_is_read_up_to_its_last_line(name: str, left: int) -> None:
    data = (EXAMPLES / name).read_bytes()
    whole, last = data[: data.rstrip().rindex(b"\n") + 1], data[data.rstrip().rindex(b"\n") + 1 :]
    (expected,), before = read(whole)
    (found,), told = read(whole + last[:left])
    assert found.trace == expected.trace
    assert set(told) - set(before) == {"1 last line cut off (is the file still being written?) and left out"}


def test_a_line_in_the_middle_that_is_wrong_is_named() -> None:
    records, _ = read(lines(human("Hi")) + '{"type": "us\n' + lines(model(text("Hello."))))
    assert "line 2: not JSON" in str(records[0].error)
    assert said(records[1].trace) == ["user: Hi", "assistant: Hello."]


@pytest.mark.parametrize("name", ["otlp-gen-ai-events.jsonl", "phoenix-dataframe.jsonl", "atif.json"])
def test_a_wrong_line_leaves_the_other_spans_and_trajectories(name: str) -> None:
    rows = [json.dumps(json.loads(row)) for row in _documents_in(name)]
    (expected,), before = read("\n".join([*rows, ""]))
    records, told = read("\n".join([rows[0], "{bad", "[1]", *rows[1:], rows[0][:90]]))
    wrong = [str(record.error) for record in records if record.error]
    assert [record.trace for record in records if record.trace] == [expected.trace]
    assert "not JSON" in wrong[0]
    assert "expected a JSON object" in wrong[1]
    assert set(told) - set(before) == {"1 last line cut off (is the file still being written?) and left out"}


def _documents_in(name: str) -> list[str]:
    whole = (EXAMPLES / name).read_text(encoding="utf-8")
    return whole.splitlines() if name.endswith("l") else [whole]


@pytest.mark.parametrize(
    ("lost", "told"), [('{"n": 1e400}', "beyond 1.8e308"), ('{"n": 1, "n": 2}', "n: stands twice")]
)
def test_what_a_call_would_lose_is_refused(lost: str, told: str) -> None:
    line = lines(model(use("t1"))).replace('{"command": "ls"}', lost)
    records, _ = read(lines(human("Go.")) + line)
    assert told in str(records[0].error)


def test_arguments_in_spans_that_are_no_object_are_counted_or_refused() -> None:
    said_so = json.dumps(
        [{"role": "assistant", "parts": [{"type": "tool_call", "name": "f", "arguments": "f(1)"}]}]
    )
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.input.messages": json.dumps([{"role": "user", "content": "Go."}]),
        "gen_ai.output.messages": said_so,
    }
    values = [{"key": key, "value": {"stringValue": value}} for key, value in attributes.items()]
    span = {"traceId": "a" * 32, "spanId": "b" * 16, "attributes": values}
    row = lines({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})
    (record,), told = read(row)
    assert record.trace is not None
    assert "1 call whose arguments are no JSON object kept as text" in told
    (record,), _ = read(row, bad_arguments="refuse")
    assert "a call of f whose arguments are no JSON object" in str(record.error)


def test_what_was_asked_while_the_model_worked_is_kept() -> None:
    queued = {"type": "queued_command", "prompt": "In euros.", "commandMode": "prompt"}
    result = [{"type": "tool_result", "tool_use_id": "t1", "content": "a"}]
    rows = [
        human("List."),
        model(use("t1")),
        human(result, "r1", "a1"),
        {**SESSION, "type": "attachment", "uuid": "q1", "parentUuid": "r1", "attachment": queued},
        model(text("1 euro."), uuid="a2", parent="q1"),
    ]
    (record,), told = read(lines(*rows))
    assert said(record.trace) == [
        "user: List.",
        "assistant: ",
        "tool: a",
        "user: In euros.",
        "assistant: 1 euro.",
    ]
    assert told == []


def test_thoughts_between_marks_are_the_reasoning_of_their_turn() -> None:
    (record,), _ = read(lines(human("Hi"), model(text("<think>Greet.</think>\n\nHello."))))
    assert said(record.trace)[1] == "assistant: Hello."
    assert record.trace is not None
    assert record.trace.messages[1].reasoning == "Greet."


def test_an_interrupted_call_keeps_its_place() -> None:
    rows = [
        human("List."),
        model(use("t1"), use("t2"), uuid="a1"),
        human([{"type": "tool_result", "tool_use_id": "t2", "content": "b"}], "r2", "a1"),
        human("Stop.", "u2", "r2"),
        model(text("Stopped."), uuid="a2", parent="u2"),
    ]
    (record,), told = read(lines(*rows))
    assert record.trace is not None
    checked(record.trace)
    # Results stand in the order of their calls, as templates without ids need it.
    assert said(record.trace)[2:4] == ["tool: [no result: the call was interrupted]", "tool: b"]
    assert [turn.tool_call_id for turn in record.trace.messages[2:4]] == ["t1", "t2"]
    assert told == ["1 call without a result answered '[no result: the call was interrupted]'"]
    # At the end the answer may be the call.
    (record,), told = read(lines(*rows[:2]))
    assert [len(message.tool_calls) for message in record.trace.messages] == [0, 2]  # type: ignore[union-attr]
    assert told == []


def test_each_session_of_a_file_is_a_conversation() -> None:
    second = [
        human("And you?", "v1", sessionId="s2"),
        model(text("I too."), uuid="b1", parent="v1", sessionId="s2"),
    ]
    records, _ = read(lines(human("Hi"), model(text("Hello.")), *second))
    assert [said(record.trace)[0] for record in records] == ["user: Hi", "user: And you?"]
    meta = json.loads((EXAMPLES / "codex.jsonl").read_text().splitlines()[0])
    other = json.dumps({**meta, "payload": {**meta["payload"], "id": "other"}})
    whole = (EXAMPLES / "codex.jsonl").read_text()
    records, _ = read(whole + other + whole.partition("\n")[2].join("\n\n"))
    assert [record.trace.metadata["session_id"] for record in records if record.trace][1] == "other"


def test_what_follows_a_record_that_is_not_there_follows_the_one_above() -> None:
    told = {"type": "new-kind", "sessionId": "s1", "uuid": "n1", "parentUuid": "a1"}
    more = [human("More?", "u2", "n1"), model(text("No."), uuid="a2", parent="gone")]
    summary = human("So far: no.", "c1", isCompactSummary=True)
    last = [human("Bye.", "u3", "c1"), model(text("Bye."), uuid="a3", parent="u3")]
    (record,), left = read(lines(human("Hi"), model(text("Yo.")), told, *more, summary, *last))
    assert [one.partition(": ")[2] for one in said(record.trace)] == [
        "Hi",
        "Yo.",
        "More?",
        "No.",
        "Bye.",
        "Bye.",
    ]
    assert left == ["1 record 'new-kind' left out", "1 summary of a compaction left out"]
    again = [human("Hi!", "v1"), model(text("Hello."), uuid="b1", parent="v1")]
    (record,), left = read(lines(human("Hi"), model(text("Yo.")), *again))
    assert said(record.trace) == ["user: Hi!", "assistant: Hello."]
    assert left == ["2 messages that were taken back left out"]


def test_other_lines_with_the_keys_of_logs_are_no_logs() -> None:
    said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    beside = {
        "schema_version": "1.0",
        "type": "system",
        "uuid": "u1",
        "sessionId": "s1",
        "batches": [],
        "eval": {},
    }
    (record,), _ = read(lines({"messages": said, **beside}))
    assert record.trace is not None, record.error
    assert record.trace.messages[0].content[0].text == "Hi"


def test_the_first_layout_of_codex_is_read() -> None:
    def item(role: str, kind: str, content: str) -> dict[str, Any]:
        return {"type": "message", "role": role, "content": [{"type": kind, "text": content}]}

    head = {"id": "c1", "timestamp": "2025-07-01T10:00:00.000Z", "instructions": None, "git": {}}
    call = {"type": "local_shell_call", "call_id": "l1", "action": {"type": "exec", "command": ["ls"]}}
    result = {"type": "function_call_output", "call_id": "l1", "output": {"content": "a", "success": True}}
    state = {"record_type": "state"}
    rows = [
        head,
        item("user", "input_text", "List."),
        state,
        call,
        result,
        item("assistant", "output_text", "a."),
    ]
    (record,), left = read(lines(*rows))
    assert said(record.trace) == ["user: List.", "assistant: ", "tool: a", "assistant: a."]
    assert record.trace is not None
    assert record.trace.messages[1].tool_calls[0].arguments_text == '{"command":["ls"]}'
    assert left == []


def test_a_fork_of_a_codex_session_is_one_session() -> None:
    def head(name: str) -> dict[str, Any]:
        return {"type": "session_meta", "payload": {"id": name, "base_instructions": {"text": "Be brief."}}}

    def item(role: str, kind: str, content: str) -> dict[str, Any]:
        said_so = {"type": "message", "role": role, "content": [{"type": kind, "text": content}]}
        return {"type": "response_item", "payload": said_so}

    turns = [item("user", "input_text", "List."), item("assistant", "output_text", "a.")]
    fork, other = read(lines(head("fork"), head("parent"), *turns, head("other"), *turns))[0]
    for record, name in ((fork, "fork"), (other, "other")):
        assert said(record.trace) == ["system: Be brief.", "user: List.", "assistant: a."]
        assert record.trace is not None
        assert record.trace.metadata["session_id"] == name


def test_the_namespace_of_a_codex_call_is_counted() -> None:
    asked = {"type": "message", "role": "user", "content": "Go."}
    call = {"type": "function_call", "name": "run", "namespace": "mcp__x", "arguments": "{}", "call_id": "c"}
    rows = [{"type": "session_meta", "payload": {"id": "s"}}]
    rows += [{"type": "response_item", "payload": item} for item in (asked, call)]
    assert read(lines(*rows))[1] == ["1 namespace of a tool that was called left out"]


def test_a_sub_agents_own_file_is_a_conversation() -> None:
    (record,), told = read(lines(human("Search.", isSidechain=True), model(text("Found."), isSidechain=True)))
    assert said(record.trace) == ["user: Search.", "assistant: Found."]
    assert told == []


def test_text_that_no_trace_can_hold_is_mended_and_counted() -> None:
    (record,), told = read(lines(human("a\0b"), model(text("\ud83d"))))
    assert said(record.trace) == ["user: a\ufffdb", "assistant: \ufffd"]
    assert told == ["2 texts with NUL or half of a character with U+FFFD instead"]


def test_images_are_refused_unless_they_are_to_be_left_out() -> None:
    rows = lines(human([{"type": "image", "source": {}}, text("What is it?")]), model(text("A cat.")))
    (record,), _ = read(rows)
    assert "session s1 holds media (image)" in str(record.error)
    (record,), told = read(rows, media="leave-out")
    assert said(record.trace)[0] == "user: [image]\n\nWhat is it?"
    assert told == ["1 image left out, with [image] in its place"]


def test_what_is_too_large_is_named_by_its_session() -> None:
    (record,), _ = read(lines(human("x" * 500_001), model(text("Hello."))))
    assert "session s1 has a text of 500,001 characters" in str(record.error)
    (record,), _ = read(lines(human("Hi")))
    assert "session s1 holds no answer of the assistant's" in str(record.error)


def archive(tmp_path: Path, *entries: tuple[zipfile.ZipInfo | str, bytes]) -> Path:
    path = tmp_path / "log.eval"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("header.json", b'{"eval": {"task": "t"}}')
        for entry, data in entries:
            made.writestr(entry, data)
    return path


def link() -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("samples/1_epoch_1.json")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize(
    ("entry", "data", "said"),
    [
        (link(), b"/etc/passwd", "is a link"),
        ("../samples/1_epoch_1.json", b"{}", "lies outside of the archive"),
        ("samples/1_epoch_1.json", b"0" * (8 << 20), "unpacks from"),
    ],
)
def test_archives_that_are_not_to_be_trusted_are_refused(
    tmp_path: Path, entry: zipfile.ZipInfo | str, data: bytes, said: str
) -> None:
    with pytest.raises(FormatError, match=said):
        list(read_traces(archive(tmp_path, (entry, data))))


def test_archives_that_hold_no_log_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.eval"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("a.txt", b"a")
    with pytest.raises(FormatError, match="no log of Inspect AI's"):
        list(read_traces(path))
    with pytest.raises(FormatError, match="cannot be read from a pipe"):
        read((EXAMPLES / "inspect.eval").read_bytes())
    path.write_bytes((EXAMPLES / "inspect.eval").read_bytes()[:-40])
    with pytest.raises(FormatError, match="damaged ZIP archive"):
        list(read_traces(path))


def test_a_wrong_sample_leaves_the_others(tmp_path: Path) -> None:
    good = {"id": 2, "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]}
    path = archive(
        tmp_path, ("samples/1_epoch_1.json", b"{"), ("samples/2_epoch_1.json", json.dumps(good).encode())
    )
    bad, record = read_records(path)
    assert "'samples/1_epoch_1.json', which is not JSON" in str(bad.error)
    assert said(record.trace) == ["user: Hi", "assistant: Yo"]


def test_a_call_that_inspect_could_not_read_is_counted() -> None:
    log = json.loads((EXAMPLES / "inspect.json").read_text(encoding="utf-8"))
    call = {"id": "c", "function": "f", "arguments": {}, "parse_error": "Error parsing: {bad"}
    turns = [{"role": "user", "content": "Go."}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    log["samples"] = [{"id": "s", "epoch": 1, "messages": turns}]
    _, told = read(json.dumps(log))
    assert told == ["1 argument text that Inspect could not read and the log does not hold, left out"]


def test_a_sample_in_pieces_is_put_together(tmp_path: Path) -> None:
    folder = "samples/1_epoch_1"
    messages = [{"role": "user", "content": "attachment://0"}, {"role": "assistant", "content": "Yo"}]
    pieces = {
        "sample.json": {"id": 1, "epoch": 1, "message_refs": [[0, 1], [2, 3]]},
        "messages/0.json": [messages[0], {"role": "user", "content": "not this"}],
        "messages/2.json": [messages[1]],
        "attachments/0.json": ["A long text."],
    }
    path = archive(
        tmp_path, *((f"{folder}/{name}", json.dumps(one).encode()) for name, one in pieces.items())
    )
    (record,) = read_records(path)
    assert said(record.trace) == ["user: A long text.", "assistant: Yo"]


def test_spans_without_content_say_how_to_switch_it_on() -> None:
    document = json.loads((EXAMPLES / "otlp-gen-ai.json").read_text())
    for span in document["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        span["attributes"] = [row for row in span["attributes"] if not row["key"].endswith("messages")]
    with pytest.raises(FormatError, match="OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"):
        read(json.dumps(document))


def test_steps_that_are_not_to_be_learned_are_left_out() -> None:
    done = {"results": [{"content": "Done."}]}
    steps = [
        {"source": "user", "message": "Go."},
        {"source": "agent", "message": "Old.", "is_copied_context": True},
        {
            "source": "agent",
            "message": "Auto.",
            "llm_call_count": 0,
            "observation": done,
        },
        {"source": "agent", "message": "New."},
    ]
    document = {"schema_version": "ATIF-v1.8", "agent": {"name": "a", "version": "1"}, "steps": steps}
    (record,), told = read(json.dumps(document))
    assert said(record.trace) == ["user: Go.\n\nDone.", "assistant: New."]
    assert len(told) == 2


ODD = [None, True, 7, "", "\ud800", [], {}, [1], {"a": 1}]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([path] if path else []), *(place for key, one in inner for place in places(one, (*path, key)))]


@pytest.mark.parametrize("name", [name for name in LOGS if not name.endswith(".eval")])
def test_whatever_stands_where_something_else_was_is_read_or_refused(name: str) -> None:
    content = (EXAMPLES / name).read_text()
    rows = [json.loads(line) for line in content.splitlines()] if ".jsonl" in name else [json.loads(content)]
    every = places(rows)
    for number, place in enumerate(every[:: 1 + len(every) // 60]):
        changed = json.loads(json.dumps(rows))
        inner = changed
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = ODD[number % len(ODD)]
        try:
            found, _ = read(lines(*changed), media="leave-out")
        except FormatError:
            continue
        assert all(record.trace is not None or record.error is not None for record in found)
