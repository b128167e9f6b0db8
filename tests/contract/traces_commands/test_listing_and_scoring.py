"""`tunix-rt traces` that look at traces, score and delete them, against the real trace store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from support.traces import step, trace
from tunix_rt import Client, import_traces, v1
from tunix_rt.formats import trace_to_json

pytestmark = pytest.mark.one_database

Run = Callable[..., Result]


def names(client: Client) -> list[str]:
    return [entry.name for entry in client.trace_store.stream_traces()]


def lines(*entries: v1.Trace | str) -> str:
    return "".join(f"{entry if isinstance(entry, str) else trace_to_json(entry)}\n" for entry in entries)


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
