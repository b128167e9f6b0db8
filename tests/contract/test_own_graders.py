"""Graders that users write, through the real evaluator and the command line; no model runs."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import tunix_rt_local
from support import scripted_evaluator as script
from support.migrated import migrated
from support.threaded import real_server
from support.tiny_model import make_tiny_model
from tunix_rt import Client, v1
from tunix_rt.cli.main import app
from tunix_rt.errors import FailedPreconditionError, InvalidArgumentError
from tunix_rt_evaluator.evaluations import job_folders
from tunix_rt_evaluator.wiring import EvaluatorSettings, build, migrate
from tunix_rt_kit.canonical import digest_bytes

pytestmark = pytest.mark.one_database

TESTS = Path(__file__).parents[1]
Run = Callable[..., Result]
SOURCE = """def grade(output, item):
    return output == "Answer: " + item["accepted_answers"][0]


def length(output, item):
    return {"score": min(1.0, len(output) / 20), "explanation": f"{len(output)} characters"}


def broken(output, item):
    return item["nothing"]


def fickle(output, item):
    return (id(object()) >> 12) % 997 / 997
"""
DIGEST = digest_bytes(SOURCE.encode())
ROWS = [
    {"id": "a", "prompt": "A?|Answer: 5|", "accepted_answers": ["5"], "grader": "numeric"},
    {"id": "b", "prompt": "B?|It is 6|", "accepted_answers": ["6"], "grader": "numeric"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("graders")
    (made / "my.py").write_text(SOURCE)
    (made / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    make_tiny_model(made / "models" / "tiny")
    return made


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[Client]:
    options = EvaluatorSettings(listen="127.0.0.1:0", data_dir=folder, python_graders="sandboxed")
    migrated(options, migrate)

    def service(stopping: asyncio.Event) -> Any:
        return build(options, stopping)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job_folders, "WORKER_MODULE", "support.scripted_evaluator")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))
        with real_server(service) as address, Client(address) as made:
            yield made


@pytest.fixture
def run(client: Client, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TUNIX_RT_SERVER", client.targets.evaluator)
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments: str, exit_code: int = 0, **more: Any) -> Result:
        result = CliRunner().invoke(app, list(arguments), **more)
        assert result.exit_code == exit_code, result.output
        return result

    return invoke


@pytest.fixture(scope="module")
def evaluation(client: Client, folder: Path) -> str:
    """The name of an evaluation of ``ROWS``, graded by ``my.py:grade``."""
    runner = CliRunner(env={"TUNIX_RT_SERVER": client.targets.evaluator})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        stored = ["evalset", "import", "own", "rows.jsonl", "--grader-file", "my.py"]
        assert runner.invoke(app, stored).exit_code == 0
        tokens = str(script.SUCCEED)
        made = runner.invoke(
            app, ["evaluate", "-e", "own", "-m", "tiny", "--max-new-tokens", tokens, "--json"]
        )
    assert made.exit_code == 0, made.output
    return str(json.loads(made.stdout)["name"])


def test_an_evaluation_is_graded_by_a_function_of_ones_own(client: Client, evaluation: str) -> None:
    found = client.evaluator.get_evaluation(evaluation)
    assert [f"source={DIGEST} function=grade" in name for name in found.manifest.graders] == [True]
    results = {result.item_id: result for result in client.evaluator.list_evaluation_items(evaluation)}
    assert {key: result.correct for key, result in results.items()} == {"a": True, "b": False}
    assert all(result.grader.startswith("python/1 source=sha256:") for result in results.values())


def test_an_eval_set_has_the_source_once_and_can_be_stored_again(client: Client, evaluation: str) -> None:
    assert evaluation
    stored = client.evaluator.get_eval_set("evalSets/own")
    assert list(stored.python_sources) == [SOURCE]
    assert [item.grader.python.source_digest for item in stored.items] == [DIGEST, DIGEST]
    assert not any(item.grader.python.source for item in stored.items)
    assert client.evaluator.create_eval_set(stored).digest == stored.digest
    # By digest alone: the source is known there.
    del stored.python_sources[:]
    stored.eval_set_id = "again"
    assert list(client.evaluator.create_eval_set(stored).python_sources) == [SOURCE]
    [listed] = [one for one in client.evaluator.list_eval_sets() if one.eval_set_id == "again"]
    assert not listed.python_sources
    # Another source is another eval set.
    stored.eval_set_id = "other"
    for item in stored.items:
        item.grader.python.Clear()
        item.grader.python.source = SOURCE + "# changed\n"
    other = client.evaluator.create_eval_set(stored)
    assert other.digest != listed.digest
    assert list(other.python_sources) == [SOURCE + "# changed\n"]


def test_answers_are_graded_again_by_a_file(run: Run, evaluation: str, client: Client) -> None:
    out = run("evaluation", "regrade", evaluation, "--grader-file", "my.py:length", "--json").stdout
    made = json.loads(out)
    assert made["regrade"]["grader"]["python"]["source"] == SOURCE
    assert made["regrade"]["grader"]["python"]["function"] == "length"
    results = list(client.evaluator.list_evaluation_items(made["name"]))
    assert [(result.score, result.explanation) for result in results] == [
        (0.45, "9 characters"),
        (0.35, "7 characters"),
    ]
    assert made["manifest"]["graders"] != client.evaluator.get_evaluation(evaluation).manifest.graders


def test_two_evaluations_by_different_sources_do_not_compare(
    run: Run, evaluation: str, folder: Path, client: Client
) -> None:
    (folder / "other.py").write_text(SOURCE + "\n")
    out = run("evaluation", "regrade", evaluation, "--grader-file", "other.py", "--json").stdout
    with pytest.raises(FailedPreconditionError) as caught:
        client.evaluator.compare_evaluations(evaluation, json.loads(out)["name"])
    assert "graders" in str(caught.value)


def test_a_grader_that_fails_on_every_answer_fails_the_regrade_with_its_line(
    run: Run, evaluation: str
) -> None:
    told = run("evaluation", "regrade", evaluation, "--grader-file", "my.py:broken", exit_code=1).stderr
    assert "no answer could be graded; the first, 'a': the grader broken gave no grade: line 10" in told
    assert "`return item[\"nothing\"]`, raises KeyError: 'nothing'" in told


def test_a_grader_that_differs_fails_the_regrade_by_name(run: Run, evaluation: str) -> None:
    told = run("evaluation", "regrade", evaluation, "--grader-file", "my.py:fickle", exit_code=1).stderr
    assert f"the grader fickle ({DIGEST}) graded one answer to item 'a' twice and differently" in told


def test_where_the_items_come_from_stands_in_the_manifest(run: Run, evaluation: str, client: Client) -> None:
    assert not client.evaluator.get_evaluation(evaluation).manifest.HasField("eval_set_origin")
    stored = client.evaluator.get_eval_set("evalSets/own")
    stored.eval_set_id = "published"
    stored.origin.CopyFrom(v1.EvalSetOrigin(benchmark="gsm8k", mapping="gsm8k/1", license="MIT"))
    stored.origin.files.add(file_name="test.jsonl", size_bytes=7, digest=DIGEST)
    client.evaluator.create_eval_set(stored)
    command = ("evaluate", "-e", "published", "-m", "tiny", "--max-new-tokens", str(script.SUCCEED), "--json")
    made = client.evaluator.get_evaluation(json.loads(run(*command).stdout)["name"])
    assert made.manifest.eval_set_origin == stored.origin
    again = json.loads(run("evaluation", "regrade", made.name, "--json").stdout)
    assert client.evaluator.get_evaluation(again["name"]).manifest.eval_set_origin == stored.origin
    stored.origin.files[0].digest = "sha256:1"
    with pytest.raises(InvalidArgumentError) as caught:
        client.evaluator.create_eval_set(stored)
    assert [wrong.field for wrong in caught.value.field_violations] == ["eval_set.origin.files[0].digest"]


def test_on_ones_own_computer_ones_own_graders_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grader = v1.Grader(python=v1.PythonGrader(source="def grade(output, item): return output == 'x'"))
    item = v1.EvalItem(grader=grader)
    with tunix_rt_local.embedded(tmp_path, jobs="leave") as server, Client(server.address) as client:
        assert client.evaluator.grade_answer(item, "x").correct
    monkeypatch.setenv("TUNIX_RT_EVALUATOR_PYTHON_GRADERS", "off")
    with tunix_rt_local.embedded(tmp_path, jobs="leave") as server, Client(server.address) as client:
        with pytest.raises(FailedPreconditionError) as caught:
            client.evaluator.grade_answer(item, "x")
        assert caught.value.reason == "PYTHON_GRADERS_OFF"


def test_one_answer_is_tried(run: Run, evaluation: str) -> None:
    right = run("grade", "Answer: 5", "--accepted", "5", "--grader-file", "my.py").stdout
    assert right.split()[:2] == ["grade", "right"]
    wrong = json.loads(run("grade", "5", "-a", "5", "--grader-file", "my.py:length", "--json").stdout)
    assert (wrong["correct"], wrong["score"], wrong["explanation"]) == (False, 0.05, "1 characters")
    piped = run("grade", "-", "-a", "5", "--grader-file", "my.py:grade", input="Answer: 5").stdout
    assert "right" in piped
    kept = run("grade", "--evaluation", evaluation, "--item", "b", "--grader-file", "my.py:length").stdout
    assert "7 characters" in kept
    assert (
        "right" in run("grade", "Answer: 6", "--eval-set", "own", "--item", "b", "--grader", "numeric").stdout
    )
    assert "right" in run("grade", "The total is 56.", "--accepted", "56").stdout
    none = run("grade", "x", "--grader-file", "my.py:broken", exit_code=1).stdout
    assert "line 10" in none


def test_what_is_wrong_with_a_file_is_one_clear_error_before_anything_runs(
    run: Run, folder: Path, client: Client
) -> None:
    (folder / "syntax.py").write_text("def grade(:\n")
    (folder / "net.py").write_text("import socket\ndef grade(output, item):\n    return True\n")
    (folder / "latin.py").write_bytes(b"# caf\xe9\n")
    (folder / "large.py").write_text("#" * (1 << 20))
    (folder / "empty.py").write_text("\n")
    usage = {
        "none.py": "none.py: no such file or directory",
        "latin.py:grade": "latin.py: is not UTF-8 at byte 6",
        "large.py": "large.py: has more than 65,536 bytes",
        "empty.py": "empty.py: is empty",
        "my.py:1x": "'1x' is no name of a Python function; my.py:grade would be right",
        "models": "models: is a folder",
    }
    for given, why in usage.items():
        for command in (
            ["grade", "x"],
            ["evalset", "import", "bad", "rows.jsonl"],
            ["evaluation", "regrade", "e"],
        ):
            told = run(*command, "--grader-file", given, exit_code=2).stderr
            assert "--grader-file" in told
            assert why in " ".join(told.replace("│", " ").split())
    refused = {
        "syntax.py": "syntax.py: line 1: it is no Python",
        "net.py": "net.py: line 1: a grader may not import socket",
        "my.py:absent": "my.py: it has no function absent; its functions are grade, length, broken, fickle; "
        "--grader-file my.py:FUNCTION names one of them",
    }
    for given, why in refused.items():
        for command in (["grade", "x"], ["evalset", "import", "bad", "rows.jsonl"]):
            told = run(*command, "--grader-file", given, exit_code=1).stderr
            assert told.startswith(f"error: {why}")
            assert "Traceback" not in told
    assert "bad" not in [one.eval_set_id for one in client.evaluator.list_eval_sets()]


def test_a_request_names_each_wrong_field(client: Client) -> None:
    item = v1.EvalItem(grader=v1.Grader(python=v1.PythonGrader(source="x = 1")))
    with pytest.raises(InvalidArgumentError) as caught:
        client.evaluator.grade_answer(item, "x")
    assert [wrong.field for wrong in caught.value.field_violations] == ["item.grader.python.source"]
    assert caught.value.reason == "ANSWER_INVALID"
    item.grader.python.source_digest = "sha256:" + "0" * 64
    with pytest.raises(InvalidArgumentError, match="is not that of the source"):
        client.evaluator.grade_answer(item, "x")


def test_a_server_runs_nobodys_graders_unless_it_is_told_to(tmp_path: Path) -> None:
    options = EvaluatorSettings(listen="127.0.0.1:0", data_dir=tmp_path)
    migrated(options, migrate)
    item = v1.EvalItem(
        id="q", prompt="?", grader=v1.Grader(python=v1.PythonGrader(source="def grade(o, i): return True"))
    )
    with real_server(lambda stopping: build(options, stopping)) as address, Client(address) as client:
        for call in (
            lambda: client.evaluator.grade_answer(item, "x"),
            lambda: client.evaluator.create_eval_set(v1.EvalSet(eval_set_id="x", items=[item])),
        ):
            with pytest.raises(FailedPreconditionError) as caught:
                call()
            assert caught.value.reason == "PYTHON_GRADERS_OFF"
            assert "TUNIX_RT_EVALUATOR_PYTHON_GRADERS" in str(caught.value)
