"""`tunix-rt evalset` and `evaluation` against the real evaluator, on both databases; no model runs."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from support import scripted_evaluator as script
from support.conversations import adding, conversation, turn
from support.migrated import migrated
from support.threaded import real_server
from support.tiny_model import make_tiny_model
from support.traces import trace
from tunix_rt import Client
from tunix_rt.cli.main import app
from tunix_rt.formats import trace_to_json
from tunix_rt.generate import generate_traces
from tunix_rt_evaluator.evaluations import job_folders
from tunix_rt_evaluator.wiring import EvaluatorSettings, build, migrate

pytestmark = pytest.mark.one_database

TESTS = Path(__file__).parents[1]
Run = Callable[..., Result]
ROWS: list[dict[str, Any]] = [
    {"id": "a", "prompt": "A?|Answer: 5 kg|", "accepted_answers": ["5"], "category": "mass",
     "grader": {"kind": "numeric", "units": ["kg"], "unit_required": True}},
    {"id": "b", "prompt": "B?|Answer: London|", "accepted_answers": ["A"],
     "grader": {"kind": "multiple_choice", "options": ["Paris", "London"]}},
    {"id": "c", "prompt": "C?|Answer: the cat|", "accepted_answers": ["the cat sat"], "grader": "token_f1"},
    {"id": "d", "prompt": "D?|LONG|", "accepted_answers": ["1"], "grader": "numeric"},
    {"id": "e", "prompt": "E?|FAIL|", "accepted_answers": ["1"], "grader": "numeric"},
    {"id": "f", "prompt": f"F?|{'a' * 3_000}c|", "accepted_answers": ["(a|aa|b?a)+$"], "grader": "regex"},
]  # fmt: skip


@pytest.fixture
def client(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(job_folders, "WORKER_MODULE", "support.scripted_evaluator")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))
    make_tiny_model(tmp_path / "models" / "tiny")
    options = EvaluatorSettings(listen="127.0.0.1:0", database_url=database_url, data_dir=tmp_path)
    migrated(options, migrate)

    def service(stopping: asyncio.Event) -> Any:
        return build(options, stopping)

    with real_server(service) as address, Client(address) as client:
        yield client


@pytest.fixture
def run(client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNIX_RT_SERVER", client.targets.evaluator)
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments: str, exit_code: int = 0) -> Result:
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == exit_code, result.output
        return result

    return invoke


@pytest.fixture
def evaluation(run: Run, tmp_path: Path) -> str:
    """The id of an evaluation of ``ROWS``."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    run("evalset", "import", "rows", "rows.jsonl")
    tokens = str(script.SUCCEED)
    out = run("evaluate", "-e", "rows", "-m", "tiny", "--max-new-tokens", tokens, "--json").stdout
    return str(json.loads(out)["name"]).partition("/")[2]


def ids(result: Result) -> list[str]:
    return [entry["item_id"] for entry in json.loads(result.stdout)]


def test_a_grader_for_traces_is_refused_with_items(run: Run, tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    result = run("evalset", "import", "mine", "items.jsonl", "--grader", "math", exit_code=2)
    assert "--grader is for traces" in result.stderr


def test_a_table_of_questions_is_stored(run: Run, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("question,answer,category\nq,4 | four,sums\nr,Paris,\n")
    refused = run("evalset", "import", "t", "t.csv", exit_code=1)
    assert "line 2: accepted_answers: '4 | four' may be several answers" in refused.stderr
    run("evalset", "import", "t", "t.csv", "--answer-separator", "|")
    shown = run("evalset", "show", "t").stdout
    assert "4 | four" in shown
    assert "none 1, sums 1" in shown
    refused = run("evalset", "import", "u", "t.csv", "-f", "native", "--answer-separator", "|", exit_code=2)
    assert "are for --format csv and tsv" in refused.stderr


def test_items_are_filtered(run: Run, evaluation: str) -> None:
    def found(*options: str) -> list[str]:
        return ids(run("evaluation", "items", evaluation, "--json", *options))

    assert found() == ["a", "b", "c", "d", "e", "f"]
    assert found("--right") == ["a", "c"]
    assert found("--wrong", "--limit", "2") == ["b", "d"]
    assert found("--category", "mass") == ["a"]
    assert found("--category", "", "--right") == ["c"]
    assert found("--cut-short") == ["d"]
    assert found("--failed") == ["e"]
    assert found("--ungraded") == ["f"]
    assert found("--grader", "numeric", "--wrong") == ["d", "e"]
    shown = run("evaluation", "items", evaluation, "--ungraded").stdout
    assert "ungraded" in shown
    assert "is not done after 1 s" in shown
    assert "right 0.67" in run("evaluation", "items", evaluation, "--right").stdout
    run("evaluation", "items", evaluation, "--wrong", "--right", exit_code=2)
    run("evaluation", "items", evaluation, "--cut-short", "--failed", exit_code=2)
    wrong = run("evaluation", "items", evaluation, "--grader", "numerik", exit_code=2)
    assert "did you mean 'numeric'?" in wrong.output


def test_an_evaluation_is_graded_again(run: Run, evaluation: str, client: Client) -> None:
    result = run("evaluation", "regrade", evaluation)
    assert f"the answers of {evaluation}" in result.stdout
    assert "2 of 6 right" in result.stdout
    assert "1 answer, counted as wrong; evaluation items --ungraded says why" in result.stdout
    assert "mean score" in result.stdout
    made = json.loads(run("evaluation", "regrade", evaluation, "--grader", "contains", "--json").stdout)
    assert list(made["regrade"]["grader"]) == ["contains"]
    assert made["manifest"]["graders"] == ["contains/2"]
    assert ids(run("evaluation", "items", made["name"], "--right", "--json")) == ["a"]
    detached = run(
        "evaluation", "regrade", evaluation, "--grader", '{"kind": "contains", "all": true}', "--detach"
    )
    assert "contains" not in detached.stderr
    assert len(list(client.evaluator.list_evaluations())) == 4


def test_a_wrong_regrade_is_refused_in_one_line(run: Run, evaluation: str) -> None:
    wrong = run("evaluation", "regrade", evaluation, "--grader", "numerik", exit_code=2)
    assert "--grader: kind is 'numerik', which is no grader; did you mean 'numeric'?" in wrong.output
    wrong = run("evaluation", "regrade", evaluation, "--grader", "{", exit_code=2)
    assert "--grader: is no JSON" in wrong.output
    wrong = run("evaluation", "regrade", evaluation, "--grader", "numeric", exit_code=1)
    assert (
        "error: --grader: does not fit item 'b': its accepted_answers[0] is 'A', which is not one number"
        in wrong.stderr
    )
    wrong = run("evaluation", "regrade", evaluation, "--eval-set", "none", exit_code=1)
    assert "evalSets/none does not exist" in wrong.stderr
    wrong = run("evaluation", "regrade", "none", exit_code=1)
    assert "evaluations/none does not exist" in wrong.stderr


def test_samples_are_asked_for_shown_and_listed(run: Run, client: Client, tmp_path: Path) -> None:
    rows = [
        {
            "id": "a",
            "prompt": "A?|Answer: 1~no~Answer: 1~Answer: 2|",
            "accepted_answers": ["1"],
            "grader": "numeric",
        },
        {
            "id": "b",
            "prompt": "Kept?|no~Answer: 1~Answer: 1|",
            "accepted_answers": ["1"],
            "grader": "numeric",
        },
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run("evalset", "import", "rows", "rows.jsonl")
    shown = run(
        "evaluate", "-e", "rows", "-m", "tiny", "--max-new-tokens", str(script.SUCCEED), "--logprobs",
        "--temperature", "0.7", "--top-p", "0.9", "--seed", "3", "--samples", "4", "--fresh",
    ).stdout  # fmt: skip
    told = " ".join(shown.split())
    for part in (
        "sampled at temperature 0.7, top-p 0.9, seed 3, 4 samples of each item, at most 100 tokens",
        "0 of 2 right",
        "any sample right 2 items",
        "mean score 0.500",
        "kept 1 item taken from earlier evaluations",
    ):
        assert part in told
    [made] = client.evaluator.list_evaluations()
    assert made.spec.fresh
    assert made.spec.decoding.log_probabilities
    listed = json.loads(run("evaluation", "items", made.name, "--json").stdout)
    assert [len(entry["samples"]) for entry in listed] == [4, 4]
    assert listed[0]["samples"][3]["extracted_answer"] == "2"
    assert listed[0]["samples"][3]["log_probabilities"] == [-0.5, -0.25, -1.5, 0.0]
    plain = run("evaluation", "items", made.name).stdout
    assert "sample" not in plain
    assert "wrong 0.50" in plain
    lines = run("evaluation", "items", made.name, "--samples").stdout.splitlines()
    rows_of = [line.split() for line in lines if line.lstrip().startswith("sample ")]
    assert [row[2] for row in rows_of] == [
        "right",
        "wrong",
        "right",
        "wrong",
        "wrong",
        "right",
        "right",
        "wrong",
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--samples", "4"],
            "--samples: is 4; 1, or a temperature above 0, as greedy answers are",
        ),
        (["--top-p", "0.5"], "--top-p: is 0.5; 1, or a temperature above 0"),
        (["--temperature", "-1"], "--temperature: is -1.0; 0, or 0.001 to 5, would be right"),
        (
            ["--temperature", "1", "--seed", "-1"],
            "--seed: is -1; 0 to 4,294,967,295 would be right",
        ),
        (["--temperature", "1", "--samples", str(1 << 40)], "--samples: is 1099511627776, more than"),
    ],
)
def test_sampling_that_contradicts_itself_is_refused_in_one_line(
    run: Run, evaluation: str, client: Client, options: list[str], said: str
) -> None:
    result = run("evaluate", "-e", "rows", "-m", "tiny", *options, exit_code=1)
    assert said in result.stderr
    assert [made.name for made in client.evaluator.list_evaluations()] == [f"evaluations/{evaluation}"]


def test_generated_problems_become_an_eval_set(run: Run, client: Client) -> None:
    result = run("evalset", "generate", "made", "--count", "12", "--seed", "3", "--start", "20")
    assert "evalSets/made: 12 items" in result.stdout
    items = client.evaluator.get_eval_set("evalSets/made").items
    traces = [*generate_traces(20, 3)]
    assert not {item.prompt for item in items} & {trace.prompt for trace in traces}
    wanted = {trace.prompt: trace.final_answer for trace in generate_traces(12, 3, start=20)}
    assert {item.prompt: item.accepted_answers[0] for item in items} == wanted
    assert {item.grader.WhichOneof("kind") for item in items} == {"numeric"}
    run("evalset", "generate", "made", "--count", "12", "--seed", "3", "--start", "20", "-o", "made.jsonl")
    assert "evalSets/again: 12 items" in run("evalset", "import", "again", "made.jsonl").stdout
    first, second = client.evaluator.list_eval_sets()
    assert first.digest == second.digest
    wrong = run("evalset", "generate", "x", "--families", "none", exit_code=2)
    assert "families has 'none'" in wrong.output


def test_conversations_ask_for_their_last_answer(run: Run, client: Client, tmp_path: Path) -> None:
    odd = conversation(turn("user", "q"), turn("assistant", "a"), turn("assistant", "b"))
    (tmp_path / "some.jsonl").write_text("\n".join(map(trace_to_json, (adding(), trace(1), odd))))
    result = run("evalset", "import", "some", "some.jsonl", "-f", "native")
    reason = "1 conversation left out: the turn before the last answer is no user's and no tool's"
    assert reason in result.stderr
    items = client.evaluator.get_eval_set("evalSets/some").items
    plain, added = sorted(items, key=lambda item: len(item.messages))
    assert (len(added.messages), list(added.accepted_answers), plain.prompt) == (
        4,
        ["It is 5."],
        "What is 1 + 1?",
    )
    shown = run("evalset", "show", "some").stdout
    (row,) = [line for line in shown.splitlines() if added.id in line]
    for part in (
        "(1 message before)",
        "user: What is 2 + 3?",
        'add({"b": 3, "a": 2})',
        "tool: 5",
        "(tools: add)",
    ):
        assert part in row
    (tmp_path / "none.jsonl").write_text(trace_to_json(odd))
    refused = run("evalset", "import", "none", "none.jsonl", "-f", "native", exit_code=1)
    assert f"holds no trace that makes an eval item: {reason}" in refused.stderr


def test_expected_calls_are_imported_shown_and_graded(run: Run, tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "eval_sets" / "tool_calls.jsonl"
    assert "evalSets/tools: 5 items" in run("evalset", "import", "tools", str(example)).stdout
    shown = run("evalset", "show", "tools").stdout
    for part in ('calculator({"expression":"123 * 456"})', "forecast(by a schema)", "no calls"):
        assert part in shown
    said = '<tool_call>\n{"name": "calculator", "arguments": {"expression": "%s"}}\n</tool_call>'
    for expression, verdict in (("123 * 456", "right"), ("123 * 457", "wrong")):
        graded = run("grade", said % expression, "--eval-set", "tools", "--item", "multiply").stdout
        assert verdict in graded
    row = json.loads(example.read_text().splitlines()[0])
    wrong = [
        row | {"id": "first"},
        row | {"accepted_answers": ["x"], "messages": [{"role": "user", "content": "y"}]},
    ]
    (tmp_path / "wrong.jsonl").write_text("\n".join(map(json.dumps, wrong)))
    refused = run("evalset", "import", "wrong", "wrong.jsonl", exit_code=1)
    assert "wrong.jsonl, line 2: accepted_answers" in refused.stderr
    wrong[1] = row | {"messages": [{"role": "user", "content": "a\0b"}]}
    (tmp_path / "wrong.jsonl").write_text("\n".join(map(json.dumps, wrong)))
    refused = run("evalset", "import", "wrong", "wrong.jsonl", exit_code=1)
    assert "wrong.jsonl, line 2: messages[0].content[0].text: holds a NUL character" in refused.stderr


def test_gsm8k_lines_become_an_eval_set(run: Run, client: Client, tmp_path: Path) -> None:
    rows = [
        {"question": "One?", "answer": "It is <<1+1=2>>2.\n#### 2"},
        {"question": "Two?", "answer": "Many.\n#### 1,200"},
        {"question": "One?", "answer": "Again.\n#### 2"},
    ]
    (tmp_path / "gsm.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run("evalset", "import", "gsm", "gsm.jsonl", "--format", "gsm8k")
    assert "1 trace left out: their prompts were there already" in result.stderr
    items = client.evaluator.get_eval_set("evalSets/gsm").items
    assert sorted(list(item.accepted_answers) for item in items) == [["1200"], ["2"]]
    assert {item.grader.WhichOneof("kind") for item in items} == {"numeric"}
    run("evalset", "import", "gsm-math", "gsm.jsonl", "--format", "gsm8k", "--grader", "math")
    items = client.evaluator.get_eval_set("evalSets/gsm-math").items
    assert {item.grader.WhichOneof("kind") for item in items} == {"math"}
    wrong = run("evalset", "import", "x", "gsm.jsonl", "-f", "gsm8k", "--grader", "fuzzy", exit_code=2)
    assert "--grader: kind is 'fuzzy', which is no grader; known are contains" in wrong.output


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            ROWS[5] | {"accepted_answers": ["("]},
            "x.jsonl, line 1: accepted_answers[0]: is '(', which is no regular",
        ),
        (
            ROWS[1] | {"accepted_answers": ["C"]},
            "x.jsonl, line 1: accepted_answers[0]: is 'C'; a letter from A to B",
        ),
        (ROWS[0] | {"accepted_answers": []}, "line 1: accepted_answers: needs at least 1"),
        (ROWS[0] | {"grader": "numerik"}, "line 1: grader: kind is 'numerik', which is no grader"),
    ],
)
def test_a_wrong_item_is_refused_in_one_line(
    run: Run, client: Client, tmp_path: Path, row: dict[str, Any], said: str
) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    assert said in run("evalset", "import", "x", "x.jsonl", exit_code=1).stderr
    assert list(client.evaluator.list_eval_sets()) == []


NATIVE = {"trace_version": "1", "steps": [{"i": 0, "type": "reason", "content": "So it is."}]}


def test_an_answer_that_the_grader_cannot_read_is_refused_by_its_line(
    run: Run, client: Client, tmp_path: Path
) -> None:
    rows = [
        NATIVE | {"prompt": f"{answer}?", "final_answer": answer}
        for answer in ["5", "1,200", r"\sqrt{2}", "5", "x>5", "101_2", r"\frac{\pi}{6}"]
    ]
    (tmp_path / "x.jsonl").write_text("\n\n".join(json.dumps(row) for row in rows))
    refused = run("evalset", "import", "x", "x.jsonl", "--format", "native", exit_code=1).stderr
    assert r"x.jsonl, line 5: accepted_answers[0]: is '\\sqrt{2}', which is not one number" in refused
    named = [line.split(":")[0].strip() for line in refused.splitlines() if line.startswith("  ")]
    # The first stands above.
    assert named == ["line 9", "line 11", "line 13"]
    assert list(client.evaluator.list_eval_sets()) == []
    said = run("evalset", "import", "x", "x.jsonl", "--format", "native", "--grader", "auto").stdout
    assert "evalSets/x: 6 items" in said
    items = client.evaluator.get_eval_set("evalSets/x").items
    kinds = {item.accepted_answers[0]: item.grader.WhichOneof("kind") for item in items}
    numbers = dict.fromkeys(["5", "1,200"], "numeric")
    assert kinds == numbers | dict.fromkeys([r"\sqrt{2}", "x>5", "101_2", r"\frac{\pi}{6}"], "math")


def test_an_empty_file_is_no_eval_set(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("")
    assert "holds no eval items" in run("evalset", "import", "x", "x.jsonl", exit_code=1).stderr
