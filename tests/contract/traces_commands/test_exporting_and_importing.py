"""`tunix-rt traces export` and `import` against the real trace store."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import Result

from support.conversations import call, conversation, turn
from support.startup.checked_documents import check
from support.traces import step, trace
from tunix_rt import Client, import_traces, v1
from tunix_rt.formats import trace_to_json

pytestmark = pytest.mark.one_database

Run = Callable[..., Result]


def names(client: Client) -> list[str]:
    return [entry.name for entry in client.trace_store.stream_traces()]


def errors(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def lines(*entries: v1.Trace | str) -> str:
    return "".join(f"{entry if isinstance(entry, str) else trace_to_json(entry)}\n" for entry in entries)


def test_what_is_exported_is_imported_to_the_same_digests(run: Run, client: Client, tmp_path: Path) -> None:
    odd = trace(9, metadata={"a": [1.5, 1e300, None, {"é": "\u2028"}]}, prompt='"\\\n\t', source="é")
    stored = [trace(number) for number in range(5)] + [odd]
    import_traces(client, stored)
    before = [entry.content_digest for entry in client.trace_store.stream_traces()]
    for file in ("t.jsonl", "t.jsonl.gz", "t.jsonl.zst"):
        assert "6 traces of snapshot 6 written" in run("export", "-o", file).stdout
        assert json.loads(run("import", file, "--json").stdout) == {
            "read": 6,
            "created": 0,
            "skipped": 6,
            "bad": 0,
            "left_out": {},
            "columns": {},
            "redacted": {},
        }
    for name in names(client):
        client.trace_store.delete_trace(name)
    run("import", "t.jsonl.zst")
    assert [entry.content_digest for entry in client.trace_store.stream_traces()] == before
    assert sorted(path.name for path in tmp_path.glob("*.jsonl*")) == ["t.jsonl", "t.jsonl.gz", "t.jsonl.zst"]


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXT, TEXT, TEXT, st.dictionaries(TEXT, VALUES, max_size=3))
def test_any_trace_goes_out_and_in_again_as_the_same_content(
    run: Run, prompt: str, content: str, answer: str, metadata: dict[str, Any]
) -> None:
    written = trace(
        0, prompt=prompt, final_answer=answer, steps=[step(0, content=content)], metadata=metadata
    )
    run("import", "-", input=lines(written))
    run("export", "-o", "all.jsonl.gz")
    assert json.loads(run("import", "all.jsonl.gz", "--json").stdout)["created"] == 0


def test_an_export_takes_a_filter_and_a_snapshot_and_goes_to_stdout(run: Run, client: Client) -> None:
    import_traces(client, [trace(number, source="a" if number % 2 else "b") for number in range(6)])
    out = run("export", "--source", "a", "--as-of", "4").stdout
    assert [json.loads(line)["prompt"] for line in out.splitlines()] == [trace(1).prompt, trace(3).prompt]
    assert run("export", "-o", "[red]a.gz").stdout.endswith("written to [red]a.gz\n")
    summary = json.loads(run("export", "--source", "a", "-o", "a.jsonl", "--json").stdout)
    assert summary == {"as_of": 6, "traces": 3, "file": "a.jsonl"}
    import_traces(client, [trace(9, source="", metadata={})])
    for line in run("export").stdout.splitlines():
        check(json.loads(line), ["trace-line"])


def test_an_export_that_fails_leaves_what_was_there(run: Run, client: Client, tmp_path: Path) -> None:
    import_traces(client, [trace(0)])
    (tmp_path / "t.jsonl").write_text("mine")
    assert "--as-of: is 99" in run("export", "-o", "t.jsonl", "--as-of", "99", exit_code=1).stderr
    assert (tmp_path / "t.jsonl").read_text() == "mine"
    assert run("export", "-o", ".", exit_code=1).stderr == "error: .: is a folder; give a file\n"
    assert not list(tmp_path.glob(".t.jsonl*"))


def test_bad_lines_are_kept_and_can_be_mended(run: Run, client: Client, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(
        lines(trace(0), "{", trace(1), trace_to_json(trace(2)).replace('"i":0', '"i":-1'), trace(3))
    )
    result = run("import", "in.jsonl", "--on-error", "skip", "--errors", "bad.jsonl")
    assert "5 traces read, 3 stored, 0 skipped as stored already, 2 bad: see bad.jsonl" in result.stdout
    bad = errors(tmp_path / "bad.jsonl")
    assert [entry["line"] for entry in bad] == [2, 4]
    assert "not JSON" in bad[0]["error"]
    assert "steps[0].i: is -1" in bad[1]["error"]

    again = run("import", "in.jsonl", "--on-error", "skip", "--errors", "bad.jsonl", exit_code=2)
    assert "bad.jsonl is there already" in " ".join(again.stderr.replace("│", " ").split())
    mended = lines(*(json.dumps(entry | {"text": entry["text"].replace("-1", "0")}) for entry in bad[1:]))
    (tmp_path / "bad.jsonl").write_text(mended)
    assert "1 trace read, 1 stored" in run("import", "bad.jsonl").stdout
    assert {entry.prompt for entry in client.trace_store.stream_traces()} == {
        trace(i).prompt for i in range(4)
    }


def test_traces_that_only_the_server_refuses_are_taken_out(
    run: Run, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A client that is older than the server does not know all that is wrong.
    monkeypatch.setattr("tunix_rt.formats.rows.checked", lambda made, *_: made)
    nul = {number: trace_to_json(trace(number)).replace("We have", "\\u0000We") for number in range(500, 560)}
    entries = [nul.get(number) or trace(number) for number in range(1200)]
    (tmp_path / "in.jsonl").write_text(lines("{", *entries))
    skip = ("--on-error", "skip", "--errors", "bad.jsonl", "--json")
    summary = json.loads(run("import", "in.jsonl", "--format", "native", *skip).stdout)
    assert summary == {
        "read": 1201,
        "created": 1140,
        "skipped": 0,
        "bad": 61,
        "left_out": {},
        "columns": {},
        "redacted": {},
    }
    bad = errors(tmp_path / "bad.jsonl")
    assert sorted(entry["line"] for entry in bad) == [1, *(number + 2 for number in nul)]
    refused = {entry["line"]: entry for entry in bad if entry["line"] > 1}
    for number, line in nul.items():
        assert refused[number + 2]["text"] == line
        assert (
            "the server refused it: steps[0].content: holds a NUL character" in refused[number + 2]["error"]
        )
    assert len(names(client)) == 1140


def test_what_is_redacted_is_neither_sent_nor_shown(
    run: Run, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = ("ann@example.com", "4111111111111111", "sk-ant-api03-Zz9Yy8Xx7Ww6")
    told = " or ".join(secrets)
    tool = '{"to": "ann\\u0040example.com", "n": 12345678901234567890}'
    talk = conversation(
        turn("user", told, name="ann@example.com"),
        turn("assistant", reasoning=told, tool_calls=[call("mail", tool, "c1")]),
        turn("tool", tool, tool_call_id="c1"),
        metadata={"card": 4111111111111111, told: [told]},
    )
    refused = trace_to_json(trace(1)).replace('"i":0', f'"{told}":0')
    (tmp_path / "in.jsonl").write_text(lines(talk, talk, refused, f"{{ {told}"))
    options = ("--redact", "--on-error", "skip", "--errors", "bad.jsonl")
    result = run("import", "in.jsonl", *options)
    assert "4 traces read, 1 stored, 1 skipped as stored already, 2 bad" in result.stdout
    assert result.stdout.endswith("32 values redacted: 8 API_KEY, 10 CARD, 14 EMAIL\n")
    (stored,) = client.trace_store.stream_traces()
    assert stored.messages[1].tool_calls[0].arguments_text == (
        '{"to": "<EMAIL_1>", "n": 12345678901234567890}'
    )
    assert stored.messages[0].content[0].text == "<EMAIL_1> or <CARD_1> or <API_KEY_1>"
    kept = (tmp_path / "bad.jsonl").read_text()
    seen = result.output + kept + trace_to_json(stored)
    stopped = run("import", "in.jsonl", "--redact", "--json", exit_code=1)
    for secret in secrets:
        assert secret not in seen + stopped.output
    assert kept.count("<API_KEY_1>") >= 2
    found = json.loads(run("import", "-", "--redact", "--json", input=lines(talk)).stdout)["redacted"]
    assert found == {"API_KEY": 4, "CARD": 5, "EMAIL": 7}
    assert "goes with --redact" in run("import", "in.jsonl", "--redact-skip", "CARD", exit_code=2).output
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    missing = run("import", "in.jsonl", "--redact", "--redact-with", "presidio", exit_code=1)
    assert "--redact-with: Presidio is not installed; pip install 'tunix-rt[redact]'" in missing.stderr


def test_an_import_without_one_good_line_fails(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("{\n[\n")
    result = run("import", "in.jsonl", "--on-error", "skip", "--errors", "bad.jsonl", exit_code=1)
    assert "error: in.jsonl: has no good line; bad.jsonl says what is wrong with each" in result.stderr
    assert len(errors(tmp_path / "bad.jsonl")) == 2


def test_without_bad_lines_there_is_no_file_of_errors(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(lines(trace(0)))
    result = run("import", "in.jsonl", "--on-error", "skip", "--errors", "bad.jsonl")
    assert result.stdout == "1 trace read, 1 stored, 0 skipped as stored already\n"
    assert not (tmp_path / "bad.jsonl").exists()


def test_errors_that_cannot_be_written_stop_the_import(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(lines(trace(0), "{"))
    result = run("import", "in.jsonl", "--on-error", "skip", "--errors", "/dev/full", exit_code=1)
    assert result.stderr.splitlines()[-1] == (
        "error: 1 trace stored, then: /dev/full: cannot be written: No space left on device"
    )
    result = run("import", "in.jsonl", "--on-error", "skip", "--errors", "no/bad.jsonl", exit_code=1)
    assert "error: no/bad.jsonl: No such file or directory" in result.stderr


EXAMPLES = (
    *("alpaca.json", "anthropic_messages.jsonl", "messages.parquet", "openai_chat_log.jsonl"),
    *("openai_fine_tuning.jsonl", "openai_responses_log.jsonl", "openthoughts.jsonl", "sharegpt_tools.jsonl"),
)


def test_examples_of_chats_are_stored_without_an_option(run: Run, client: Client) -> None:
    folder = Path(__file__).parents[3] / "examples" / "traces"
    results = {name: json.loads(run("import", str(folder / name), "--json").stdout) for name in EXAMPLES}
    assert all(result["created"] and not result["bad"] for result in results.values())
    assert results["anthropic_messages.jsonl"]["left_out"] == {"signatures of a thought left out": 1}
    told = run("import", str(folder / "openai_responses_log.jsonl")).stdout.splitlines()
    assert told[1:] == ["1 tool of type web_search left out"]
    assert sum(1 for _ in client.trace_store.stream_traces()) == 18


def test_chats_and_parquet_are_stored(run: Run, client: Client, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    messages = [
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": "<think>One and one.</think>2"},
    ]
    run("import", "-", input=json.dumps({"messages": messages}))
    pq.write_table(pa.table({"q": ["2 + 2?"], "s": ["Two and two."], "a": [4]}), tmp_path / "t.parquet")
    columns = ("--column", "prompt=q", "--column", "steps=s", "--column", "final_answer=a")
    told = run("import", "t.parquet", *columns).stdout
    assert "1 trace read, 1 stored" in told
    assert told.endswith("fields: prompt from q, steps from s, final_answer from a\n")
    assert [
        (entry.prompt, [step.content for step in entry.steps], entry.final_answer)
        for entry in client.trace_store.stream_traces()
    ] == [("1 + 1?", ["One and one."], "2"), ("2 + 2?", ["Two and two."], "4")]


def test_tables_are_stored_and_their_bad_rows_can_be_mended(run: Run, client: Client, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('Task;Work;answer\nq;"r\n\ns";a\nw;;a\n')
    options = ("--delimiter", ";", "--column", "prompt=Task", "--column", "steps=Work")
    assert "line 5: completion: has no reasoning" in run("import", "t.csv", *options, exit_code=1).stderr
    bad = ("--on-error", "skip", "--errors", "bad.jsonl")
    assert "1 bad: see bad.jsonl" in run("import", "t.csv", *options, *bad).stdout
    (entry,) = errors(tmp_path / "bad.jsonl")
    assert (entry["line"], json.loads(entry["text"])) == (5, {"prompt": "w", "completion": "a"})
    assert "1 stored" in run("import", "bad.jsonl", "--answers-only").stdout
    first, second = client.trace_store.stream_traces()
    assert [step.content for step in first.steps] == ["r", "s"]
    assert (second.steps[0].type, second.final_answer) == ("answer", "a")
    assert "takes one ASCII character" in run("import", "t.csv", "--delimiter", "::", exit_code=2).stderr
    table = "Prompt\tsteps\tanswer\tLevel\tgrade\nx\tr\ta\teasy\t7\n"
    told = run("import", "-", "--format", "tsv", "--column", "metadata.g=grade", input=table).stdout
    assert told.splitlines()[-1] == (
        "fields: prompt from Prompt, completion from answer, steps from steps; "
        "in the metadata, which no model is shown: grade as g, Level"
    )


def test_an_import_names_the_source_of_lines_that_have_none(run: Run, client: Client) -> None:
    nameless = trace(0)
    nameless.source = ""
    given = lines(nameless, trace(1, source="own"))
    run("import", "-", "--source", "mine", input=given)
    assert [entry.source for entry in client.trace_store.stream_traces()] == ["mine", "own"]
    assert "0 stored" in run("import", "-", "--source", "mine", input=given).stdout
    assert "up to 64 characters" in run("import", "-", "--source", "x" * 65, input=given, exit_code=2).stderr
    assert "it is empty" in run("import", "-", "--source", "", input=given, exit_code=2).stderr


def test_a_data_set_of_the_hub_is_stored_with_its_revision(
    run: Run, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    missing = run("import", "hf://datasets/someone/chats", exit_code=1)
    (told,) = missing.output.splitlines()
    assert "hf://datasets/someone/chats" in told
    assert "Couldn't reach" in told
    assert "HF_TOKEN" in told
    assert "hf://datasets/OWNER/NAME" in run("import", "hf://datasets/chats", exit_code=1).output
    assert "--split goes with" in run("import", "t.jsonl", "--split", "test", exit_code=2).output

    folder = tmp_path / "chats"
    folder.mkdir()
    calling = '{"id": "c", "type": "function", "function": {"name": "add", "arguments": %s}}'
    rows = [
        json.dumps(
            {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi."}]}
        ),
        *(
            '{"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "", '
            f'"tool_calls": [{calling % arguments}]}}], "split": "hard"}}'
            for arguments in ('{"b": 1, "a": 12345678901234567890}', '{"a": {"unit": [1, "x"]}}')
        ),
    ]
    (folder / "train.jsonl").write_text("\n".join(rows))
    load = datasets.load_dataset_builder

    def builder(name: str, config: str, revision: str | None) -> Any:
        """That of a folder, with the addresses that files of the hub have."""
        assert (name, config, revision) == ("someone/chats", "default", "main")
        found = load(str(folder))
        files = {"train": ["hf://datasets/someone/chats@0123abcd/train.jsonl"]}
        return SimpleNamespace(
            config=SimpleNamespace(data_files=files),
            info=found.info,
            as_streaming_dataset=found.as_streaming_dataset,
        )

    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda *_, **__: ["default", "other"])
    monkeypatch.setattr(datasets, "load_dataset_builder", builder)
    address = "hf://datasets/someone/chats@main"
    assert "it has train: --split" in run("import", address, "--split", "test", exit_code=1).output
    wrong = run("import", "hf://datasets/someone/chats/third@main", exit_code=1).output
    assert "default, other; give one: hf://datasets/someone/chats/CONFIG@main" in wrong
    assert "3 traces read, 3 stored" in run("import", address).stdout
    stored = list(client.trace_store.stream_traces())
    origin = {"dataset": "someone/chats", "split": "train", "revision": "0123abcd"}
    assert [dict(found.metadata["hub"]) for found in stored] == [origin] * 3
    assert {found.source for found in stored} == {"someone/chats"}
    calls = [call.arguments_text for found in stored for turn in found.messages for call in turn.tool_calls]
    assert calls == ['{"b":1,"a":12345678901234567890}', '{"a":{"unit":[1,"x"]}}']
    (folder / "train.jsonl").write_text(rows[0] + '\n{"messages": "none"}\n')
    assert "chats@main, line 2: messages" in run("import", address, exit_code=1).output
