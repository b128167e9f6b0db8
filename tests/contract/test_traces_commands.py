"""`tunix-rt traces` against the real trace store, on both databases."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from support.conversations import adding, call, conversation, turn
from support.migrated import migrated
from support.startup.checked_documents import check
from support.threaded import real_server
from support.traces import step, trace
from tunix_rt import Client, import_traces, v1
from tunix_rt.cli.main import app
from tunix_rt.formats import trace_to_json
from tunix_rt_trace_store.wiring import TraceStoreSettings, build, migrate

pytestmark = pytest.mark.one_database

Run = Callable[..., Result]


@pytest.fixture
def client(database_url: str, tmp_path: Path) -> Iterator[Client]:
    options = TraceStoreSettings(listen="127.0.0.1:0", database_url=database_url, data_dir=tmp_path)
    migrated(options, migrate)

    def service(stopping: asyncio.Event) -> Any:
        return build(options, stopping)

    with real_server(service) as address, Client(address) as client:
        yield client


@pytest.fixture
def run(client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNIX_RT_SERVER", client.targets.trace_store)
    monkeypatch.setenv("COLUMNS", "160")

    def invoke(*arguments: str, exit_code: int = 0, input: str | bytes | None = None) -> Result:
        result = CliRunner().invoke(app, ["traces", *arguments], input=input)
        assert result.exit_code == exit_code, result.output
        return result

    return invoke


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
    folder = Path(__file__).parents[2] / "examples" / "traces"
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


def test_listing_takes_every_condition(run: Run, client: Client) -> None:
    import_traces(client, [trace(number, source=f"s{number % 2}") for number in range(4)])
    first, *_ = names(client)
    client.trace_store.create_trace(trace(9, metadata={"other": True}))
    client.trace_store.score_trace(first)

    def listed(*arguments: str) -> list[str]:
        found = json.loads(run("list", "--json", *arguments).stdout)
        return sorted(entry["prompt"] for entry in found)

    prompts = [trace(number).prompt for number in range(4)]
    assert listed("--source", "s0", "--source", "s1") == prompts
    assert listed("--where", "number=2") == [prompts[2]]
    assert listed("--where", "other") == [trace(9).prompt]
    assert listed("--without", "other") == prompts
    assert listed("--min-score", "structure=1") == [prompts[0]]
    assert listed("--min-score", "structure=99.9") == []
    assert listed("--contains", "3 +", "--created-after", "1h") == [prompts[3]]
    assert listed("--created-before", "2026-01-01") == []


def test_a_key_that_no_trace_has_is_named_with_those_near_it(run: Run, tmp_path: Path) -> None:
    metadata = {"Level": "easy", "Nr.": 1}
    (tmp_path / "traces.jsonl").write_text(lines(trace(1, metadata=metadata)))
    run("import", "traces.jsonl")
    for command in (("list",), ("score",), ("export", "-o", "out.jsonl")):
        told = run(*command, "--where", "level=easy", "--where", "nr").stderr
        assert "--where: no trace has the metadata key 'level'; near it: 'Level'" in told
        assert "--where: no trace has the metadata key 'nr'; near it: 'Nr.'" in told
    assert "'topic'; their keys: 'Level', 'Nr.'" in run("list", "--where", "topic=x").stderr
    for found in (("--where", "Level=hard"), ("--where", "Nr."), ("--without", "level"), ("--source", "s")):
        assert "key" not in run("list", *found).stderr


def test_pages_of_a_listing_join_without_gap(run: Run, client: Client) -> None:
    import_traces(client, [trace(number) for number in range(7)])
    seen, arguments = [], ["list", "--limit", "3", "--json"]
    while True:
        result = run(*arguments)
        page = [entry["name"] for entry in json.loads(result.stdout)]
        assert len(page) == min(3, 7 - len(seen))
        seen += page
        if not result.stderr:
            break
        token = json.loads(result.stderr)["next_page_token"]
        plain = run("list", "--limit", "3", *arguments[4:]).stderr
        assert plain == f"there are more: --page-token {token}\n"
        arguments = ["list", "--limit", "3", "--json", "--page-token", token]
    assert seen == names(client)[::-1]
    refused = run("list", "--source", "x", "--page-token", arguments[-1], exit_code=1)
    assert "--page-token" in refused.stderr


def test_named_traces_are_scored_and_shown_with_their_scores(run: Run, client: Client) -> None:
    import_traces(client, [trace(1), trace(2)])
    one, two = names(client)
    shown = run("score", one, two, "--by", "structure", "--by", "answer").stdout
    assert shown.count("structure") == shown.count("reference_answer") == 2
    assert "100" in shown
    document = json.loads(run("show", one, "--json").stdout)
    assert {score["criterion"]: score["value"] for score in document["scores"]}["answer"] == 100
    assert "score answer" in run("show", one).stdout
    # What is shown can be imported.
    assert "0 stored, 1 skipped" in run("import", "-", input=json.dumps(document)).stdout


def test_a_row_of_a_dataset_leads_to_its_trace(run: Run, client: Client) -> None:
    import_traces(client, [trace(1), trace(2)])
    stored = next(iter(client.trace_store.list_traces()))
    for digest in (stored.content_digest, stored.content_digest[7:], stored.content_digest[7:19]):
        assert json.loads(run("show", digest, "--json").stdout)["name"] == stored.name
    assert json.loads(run("score", stored.content_digest, "--json").stdout)[0]["trace"] == stored.name
    run("delete", stored.content_digest[7:19], "--yes")
    assert stored.name not in names(client)


def test_the_latest_score_of_each_criterion_is_shown(run: Run, client: Client) -> None:
    import_traces(client, [trace(1)])
    (name,) = names(client)
    client.trace_store.score_trace(name, criteria=["structure"])
    older = [v1.TraceScore(trace=name, criterion="judge", value=value / 200) for value in range(150)]
    client.trace_store.write_scores(older)
    client.trace_store.write_scores([v1.TraceScore(trace=name, criterion="taste", value=0.25)])
    client.trace_store.write_scores([v1.TraceScore(trace=name, criterion="judge", value=0.875)])

    def shown() -> tuple[dict[str, float], str]:
        result = run("show", name, "--json")
        notice = run("show", name).stderr
        assert (json.loads(result.stderr)["message"] + "\n" if result.stderr else "") == notice
        scores = json.loads(result.stdout)["scores"]
        return {score["criterion"]: score["value"] for score in scores}, notice

    scores, notice = shown()
    assert (list(scores), scores["judge"], notice) == (["judge", "structure", "taste"], 0.875, "")
    client.trace_store.write_scores([v1.TraceScore(trace=name, criterion="taste", value=0.5)] * 100)
    scores, notice = shown()
    assert scores == {"judge": 0.875, "taste": 0.5}
    assert notice == "there are more scores; these are the latest of the newest 200\n"


def test_a_named_trace_that_cannot_be_scored_is_named(run: Run, client: Client) -> None:
    import_traces(client, [trace(1), trace(2, metadata={"no": "reference"})])
    one, two = names(client)
    refused = run("score", one, two, "--by", "answer", exit_code=1)
    assert refused.stderr.startswith(f"error: {two}: criterion 'answer' needs metadata.reference_answer")


def test_all_traces_of_a_filter_are_scored(run: Run, client: Client) -> None:
    entries = [trace(number) for number in range(20)] + [trace(99, metadata={"no": "reference"})]
    import_traces(client, entries)
    result = run("score", "--all", "--by", "structure", "--by", "answer")
    rows = {row[0]: row[1:] for row in map(str.split, result.stdout.splitlines()) if len(row) == 5}
    assert rows["structure"][0] == "21"
    assert rows["answer"] == ["20", "100.0", "100.0", "100.0"]
    assert "1 trace without reference_answer" in result.stderr
    scores = json.loads(run("score", "--where", "number", "--json").stdout)
    assert [score["trace"] for score in scores] == names(client)[:20]
    assert {score["criterion"] for score in scores} == {"structure"}
    assert run("score", "--source", "nowhere").stdout == "no traces were scored\n"
    for wrong in ((), ("x", "--all"), ("--all", "--source", "tests")):
        assert "say which traces" in run("score", *wrong, exit_code=2).stderr


def test_two_traces_are_set_side_by_side(run: Run, client: Client) -> None:
    changed = trace(1, final_answer="three")
    changed.steps[1].content = "1 + 1 = 3"
    changed.steps.append(step(2, content="Done."))
    import_traces(client, [trace(1), changed])
    base, other = names(client)
    client.trace_store.score_trace(base)
    view = [line.split() for line in run("compare", base, other).stdout.splitlines()]
    marks = [(line[0], line[1]) for line in view if line and line[0] in {"=", "~", "+", "-"}]
    assert marks == [("=", "prompt"), ("=", "step"), ("~", "step"), ("+", "step"), ("~", "answer")]
    assert any(line[:1] == ["structure"] and line[-2:] == ["-", "-"] for line in view)
    summary = " ".join(view[-1])
    assert summary == "steps: 1 the same, 1 changed, 1 only in the other; final answers: different"
    document = json.loads(run("compare", base, other, "--json").stdout)
    assert document["other"]["trace"]["final_answer"] == "three"
    assert "traces/nope does not exist" in run("compare", base, "nope", exit_code=1).stderr


def test_deleting_asks_and_deletes_all_or_none(
    run: Run, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_traces(client, [trace(number) for number in range(3)])
    there = names(client)
    assert "traces/nope does not exist" in run("delete", there[0], "nope", "--yes", exit_code=1).stderr
    refused = run("delete", there[0], exit_code=2).stderr
    assert refused.startswith(there[0].partition("/")[2])
    assert "--yes deletes without asking" in " ".join(refused.split())
    assert names(client) == there
    assert run("delete", there[0], there[0].partition("/")[2], "--yes").stdout == "1 trace deleted\n"
    assert json.loads(run("delete", there[1], "--yes", "--json").stdout) == {"deleted": [there[1]]}
    assert names(client) == there[2:]

    monkeypatch.setattr("tunix_rt.cli.deleting.can_ask", lambda: True)
    assert "Delete 1 trace for good?" in run("delete", there[2], exit_code=1, input="n\n").stderr
    assert names(client) == there[2:]
    run("delete", there[2], input="y\n")
    assert names(client) == []


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


def test_traces_are_deleted_by_a_filter_after_a_question(
    run: Run, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_traces(client, [trace(number, source="a" if number < 7 else "b") for number in range(9)])
    there = names(client)
    dry = run("delete", "--source", "a", "--dry-run").stdout.splitlines()
    assert [line.split()[0] for line in dry[:5]] == [name[7:] for name in there[:5]]
    assert dry[5:] == ["and 2 more", "7 traces would be deleted"]
    found = json.loads(run("delete", "--source", "a", "--dry-run", "--json").stdout)
    assert found == {"found": there[:7]}
    refused = " ".join(run("delete", "--source", "a", exit_code=2).stderr.split())
    assert "--yes deletes without asking" in refused
    assert "no question is asked" in run("delete", "--source", "a", "--json", exit_code=2).stderr
    for wrong in ((), (there[0], "--source", "a")):
        assert "say which traces" in run("delete", *wrong, "--yes", exit_code=2).stderr
    assert names(client) == there

    monkeypatch.setattr("tunix_rt.cli.deleting.can_ask", lambda: True)
    refused = run("delete", "--where", "number=8", exit_code=1, input="n\n").stderr
    assert "Delete 1 trace for good?" in refused
    assert there[8][7:] in refused
    assert names(client) == there
    assert run("delete", "--source", "a", input="y\n").stdout.endswith("7 traces deleted\n")
    assert names(client) == there[7:]
    assert run("delete", "--source", "a", "--yes").stdout == "no traces fit these filters\n"
    assert json.loads(run("delete", "--source", "b", "--yes", "--json").stdout) == {"deleted": there[7:]}


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
