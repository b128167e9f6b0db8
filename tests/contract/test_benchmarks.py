"""`tunix-rt evalset import bench` against the real evaluator: what is stored, and how answers are graded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from support.migrated import migrated
from support.threaded import real_server
from tunix_rt import Client
from tunix_rt.cli.main import app
from tunix_rt_evaluator.wiring import EvaluatorSettings, build, migrate

pytestmark = pytest.mark.one_database

Run = Callable[..., Result]
ROWS: dict[str, list[dict[str, Any]]] = {
    "gsm8k": [{"question": "Ann has 1,000 eggs and buys 200. How many?", "answer": "1000 + 200\n#### 1,200"}],
    "math500": [
        {"problem": "Sum of $1$ and $1/2$?", "answer": "\\frac{3}{2}", "subject": "Algebra", "level": 1},
        {"problem": "Who is first?", "answer": "\\text{Evelyn}", "subject": "Counting", "level": 5},
        {"problem": "Which?", "answer": "(-\\infty, 3]", "subject": "Algebra", "level": 3},
    ],
    "mmlu": [{"question": "A city?", "choices": ["Water", "Fire", "Paris", "Air"], "answer": 2}],
    "arc": [
        {"question": "Hot?", "choices": {"text": ["ice", "fire"], "label": ["1", "2"]}, "answerKey": "2"}
    ],
    "ifeval": [
        {"key": 1, "prompt": "No commas.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    ],
}  # fmt: skip
# Of each item, by its place: an answer that is right, and some that are not.
ANSWERS: dict[str, list[tuple[str, list[str]]]] = {
    "gsm8k": [("So...\nAnswer: 1200", ["Answer: 1,000", "Answer: 12", "Answer: 1"])],
    "math500": [
        ("Answer: $1.5$", ["Answer: 3", "Answer: \\frac{2}{3}"]),
        ("Answer: $\\text{Evelyn}$", ["Answer: Ann", "Answer: $\\text{Ann}$", "Answer: E"]),
        ("Answer: $x \\le 3$", ["Answer: (-\\infty, 3)", "Answer: 3"]),
    ],
    "mmlu": [("Answer: C", ["Answer: A", "Answer: B", "Answer: 2", "Answer: Water"])],
    "arc": [("Answer: B", ["Answer: A", "Answer: 1", "Answer: ice"])],
    "ifeval": [("None here.", ["Here, one.", ""])],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("benchmarks")
    for name, rows in ROWS.items():
        (made / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return made


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[Client]:
    options = EvaluatorSettings(listen="127.0.0.1:0", data_dir=folder, python_graders="sandboxed")
    migrated(options, migrate)

    def service(stopping: asyncio.Event) -> Any:
        return build(options, stopping)

    with real_server(service) as address, Client(address) as made:
        yield made


@pytest.fixture
def run(client: Client, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TUNIX_RT_SERVER", client.targets.evaluator)
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments: str, exit_code: int = 0) -> Result:
        result = CliRunner().invoke(app, ["evalset", *arguments])
        assert result.exit_code == exit_code, result.output
        return result

    return invoke


@pytest.mark.parametrize("name", ROWS)
def test_a_benchmarks_answers_are_graded_by_its_gold(name: str, run: Run, client: Client) -> None:
    out = run("import", "bench", name, "--from", f"{name}.jsonl", "--id", f"own-{name}", "--json").stdout
    stored = json.loads(out)
    assert stored["item_count"] == len(ROWS[name])
    found = client.evaluator.get_eval_set(stored["name"])
    items = {item.metadata["row"]: item for item in found.items}
    for place, (right, wrong) in enumerate(ANSWERS[name], start=1):
        item = items[place]
        if item.grader.python.source_digest:
            item.grader.python.source = found.python_sources[0]
        assert client.evaluator.grade_answer(item, right).correct, right
        for answer in wrong:
            assert not client.evaluator.grade_answer(item, answer).correct, answer


def test_where_items_come_from_is_kept_and_shown(run: Run, client: Client) -> None:
    run("import", "bench", "gsm8k", "--from", "gsm8k.jsonl", "--split", "test", "--config", "main")
    origin = client.evaluator.get_eval_set("evalSets/gsm8k-main-test").origin
    assert (origin.license, origin.selection, origin.row_count) == ("MIT", "all", 1)
    assert origin.files[0].digest.startswith("sha256:")
    told = " ".join(run("show", "gsm8k-main-test").stdout.split())
    assert "benchmark gsm8k: a file in the form of openai/gsm8k main test" in told
    assert "licence MIT" in told
    assert f"gsm8k.jsonl ({origin.files[0].size_bytes} bytes, {origin.files[0].digest})" in told
    assert "rows all of 1, by gsm8k/1" in told
    [listed] = [one for one in client.evaluator.list_eval_sets() if one.eval_set_id == "gsm8k-main-test"]
    assert listed.origin == origin


def test_a_limit_that_no_file_reaches_is_said(run: Run) -> None:
    command = ("import", "bench", "math500", "--from", "math500.jsonl", "--limit")
    assert "--limit 500 takes all: there are only 3 rows" in run(*command, "500").stderr
    assert "takes all" not in run(*command, "3").stderr


def test_rows_that_the_evaluator_refuses_are_named_or_left_out(
    run: Run, folder: Path, client: Client
) -> None:
    good = ROWS["mmlu"][0]
    rows = [
        good,
        good,
        good | {"question": "Same options?", "choices": ["Air", "air", "Fire", "Ice"]},
        # A letter as an option of another place: what "A" means is not sure.
        good | {"question": "Blood group?", "choices": ["O", "A", "B", "AB"], "answer": 0},
        good | {"question": "Bad index?", "answer": 7},
        good | {"question": "Another city?"},
    ]
    (folder / "bad.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ("import", "bench", "mmlu", "--from", "bad.jsonl", "--id", "bad")
    assert "bad.jsonl, line 5: answer: is 7" in run(*command, exit_code=1).stderr
    (folder / "duplicate.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:2]))
    duplicate = run("import", "bench", "mmlu", "--from", "duplicate.jsonl", exit_code=1).stderr
    assert "duplicate.jsonl, line 2: prompt: is the same as that of items[0]" in duplicate
    assert "--on-error skip leaves such rows out" in duplicate
    told = run(*command, "--on-error", "skip")
    assert "evalSets/bad: 2 items" in told.stdout
    for line in (2, 3, 4, 5):
        assert f"left out: bad.jsonl, line {line}: " in told.stderr
    stored = client.evaluator.get_eval_set("evalSets/bad")
    assert [int(item.metadata["row"]) for item in stored.items] == [1, 6]
    assert stored.origin.selection == "all, 4 of them left out"


def test_what_would_be_right_is_said_once(run: Run, folder: Path) -> None:
    rows = [ROWS["ifeval"][0]]
    rows += [rows[0] | {"key": key, "instruction_id_list": ["other:rule"], "kwargs": [{}]} for key in (8, 9)]
    (folder / "rules.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = run("import", "bench", "ifeval", "--from", "rules.jsonl", "--id", "rules", "--on-error", "skip")
    assert told.stderr.count("holds other:rule, which cannot be checked exactly here") == 2
    assert told.stderr.count("known are") == 1
    assert told.stderr.endswith("exactly here\n")


def test_a_benchmark_may_have_a_grader_of_ones_own(run: Run, folder: Path, client: Client) -> None:
    (folder / "own.py").write_text("def grade(output, item):\n    return False\n")
    run("import", "bench", "ifeval", "--from", "ifeval.jsonl", "--id", "mine", "--grader-file", "own.py")
    stored = client.evaluator.get_eval_set("evalSets/mine")
    assert list(stored.python_sources) == ["def grade(output, item):\n    return False\n"]


TASK = r"""
task: my_sums
dataset_path: json
output_type: generate_until
test_split: test
doc_to_text: "{{question}}\nAnswer:"
doc_to_target: "{{answer}}"
num_fewshot: 5
metric_list:
- {metric: exact_match, regexes_to_ignore: [",", "(?s).*#### "]}
filter_list:
- name: last
  filter: [{function: regex, group_select: -1, regex_pattern: "([0-9,]+)"}, {function: take_first}]
generation_kwargs: {until: ["Q:"], max_gen_toks: 300}
"""


def test_a_task_file_of_lm_eval_is_stored_and_graded_by_its_own_rule(
    run: Run, folder: Path, client: Client
) -> None:
    (folder / "sums.yaml").write_text(TASK)
    command = ("import", "bench", "--task-file", "sums.yaml", "--from", "gsm8k.jsonl")
    assert "num_fewshot: is 5" in run(*command, exit_code=1).stderr
    told = run(*command, "--num-fewshot", "0", "--license", "MIT")
    assert "evalSets/my_sums: 1 item" in told.stdout
    assert "evaluate --max-new-tokens 300" in " ".join(told.stderr.split())
    stored = client.evaluator.get_eval_set("evalSets/my_sums")
    [item] = stored.items
    assert item.prompt == "Ann has 1,000 eggs and buys 200. How many?\nAnswer:"
    item.grader.python.source = stored.python_sources[0]
    right = {text: client.evaluator.grade_answer(item, text).correct for text in ("5 and 1200", "1200 and 5")}
    assert right == {"5 and 1200": True, "1200 and 5": False}
    shown = " ".join(run("show", "my_sums").stdout.split())
    assert "lm-eval task file/1 filter last" in shown
    assert "sums.yaml" in shown
    for wrong, why in (
        (("import", "bench", "gsm8k", "--filter", "last"), "--filter goes with --task-file"),
        (("import", "bench", "gsm8k", "--task-file", "sums.yaml"), "give 'gsm8k' or --task-file, not both"),
        (("import", "bench", "sums.yaml"), "--task-file sums.yaml"),
        (("import", "bench", "--task-file", "sums.yaml", "--num-fewshot", "0"), "give rows by --from"),
        (("import", "bench", "gsm8k", "--from", "a", "--dataset", "b"), "give --from or --dataset, not both"),
    ):
        assert why in " ".join(run(*wrong, exit_code=2).stderr.replace("│", " ").split())


def test_benchmarks_are_listed_and_wrong_names_answered(run: Run, folder: Path) -> None:
    listed = json.loads(run("import", "bench", "--list", "--json").stdout)
    assert [one["name"] for one in listed][:5] == ["gsm8k", "math500", "mmlu", "arc", "ifeval"]
    assert all(one["license"] and one["citation"] for one in listed)
    assert "CC-BY-SA-4.0" in run("import", "bench", "--list").stdout
    assert "did you mean 'gsm8k'?" in run("import", "bench", "gsm8", exit_code=2).stderr
    assert "give a benchmark: gsm8k, math500" in run("import", "bench", exit_code=2).stderr
    assert "--seed goes with --limit" in run("import", "bench", "arc", "--seed", "1", exit_code=2).stderr
    # A file that somebody wants to store under the id bench.
    (folder / "items.jsonl").write_text(
        '{"id": "a", "prompt": "?", "accepted_answers": ["1"], "grader": "text"}\n'
    )
    assert "import -- bench FILE" in " ".join(
        run("import", "bench", "items.jsonl", exit_code=2).stderr.replace("│", " ").split()
    )
    assert "evalSets/bench: 1 item" in run("import", "--", "bench", "items.jsonl").stdout
