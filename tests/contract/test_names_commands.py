"""Names, tags and notes on the command line, against a real exporter and evaluator."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import tunix_rt_local
from tunix_rt.cli.main import app

pytestmark = pytest.mark.one_database

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with tunix_rt_local.embedded(tmp_path_factory.mktemp("data")) as running:
        yield running.address


@pytest.fixture
def run(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNIX_RT_SERVER", server)
    monkeypatch.setenv("COLUMNS", "160")

    def invoke(*arguments: str, exit_code: int = 0) -> Result:
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == exit_code, result.output
        return result

    return invoke


def documents(result: Result) -> Any:
    return json.loads(result.stdout)


def test_an_eval_set_is_named_found_renamed_and_sorted(run: Run) -> None:
    for number, name in enumerate(("Beta", "alpha", "")):
        tags = ["--tag", "draft", "--tag", f"n{number}"]
        labels = ["--name", name, *tags, "--note", "first\nsecond"] if name else []
        run("evalset", "generate", f"set-{number}", "--count", "2", "--seed", str(number), *labels)
    table = run("evalset", "list", "--sort", "name").stdout
    assert [table.index(f"set-{number}") for number in (2, 1, 0)] == sorted(
        table.index(f"set-{number}") for number in range(3)
    )
    assert "draft, n0" in table
    found = documents(run("evalset", "list", "--tag", "draft", "--name", "ALPHA", "--since", "1d", "--json"))
    assert [(entry["eval_set_id"], entry["tags"]) for entry in found] == [("set-1", ["draft", "n1"])]
    assert documents(run("evalset", "list", "--tag", "draft", "--until", "1h", "--json")) == []
    turned = documents(run("evalset", "list", "--note", "SECOND", "--sort=-id", "--json"))
    assert [entry["eval_set_id"] for entry in turned] == ["set-1", "set-0"]
    changed = run("evalset", "update", "set-1", "--name", "gamma", "--remove-tag", "n1", "--tag", "kept")
    assert "gamma" in changed.stdout
    shown = run("evalset", "show", "set-1").stdout
    assert "gamma" in shown
    assert "draft, kept" in shown
    assert "NAME" not in run("evalset", "list", "--name", "nothing is called like this").stdout
    run("evalset", "list", "--limit", str(10**20))
    cleared = documents(
        run("evalset", "update", "set-1", "--clear-tags", "--name", "", "--note", "", "--json")
    )
    assert (cleared["display_name"], cleared["tags"], cleared["note"]) == ("", [], "")


def test_a_dataset_is_named_when_it_is_built_and_later(run: Run) -> None:
    run("traces", "generate", "--count", "12")
    run("dataset", "build", "named", "--name", "First", "--tag", "a")
    run("dataset", "build", "named@2", "--tag", "a")
    # Built again, it is there; what is given is what it is called now.
    run("dataset", "build", "named", "--name", "Again", "--json")
    found = documents(run("dataset", "list", "--dataset", "named", "--sort", "id", "--json"))
    assert [(entry["name"], entry["display_name"], entry["tags"]) for entry in found] == [
        ("datasets/named@1", "Again", ["a"]),
        ("datasets/named@2", "", ["a"]),
    ]
    one = documents(run("dataset", "list", "--dataset", "named@2", "--state", "succeeded", "--json"))
    assert [entry["name"] for entry in one] == ["datasets/named@2"]
    assert documents(run("dataset", "list", "--dataset", "named", "--state", "failed", "--json")) == []
    assert "Again" in run("dataset", "show", "named").stdout


@pytest.mark.parametrize(
    ("arguments", "exit_code", "told"),
    [
        (["--name", "n" * 10_000], 1, "--name: has 10,000 characters; at most 200 would be right"),
        (["--tag", "a,b"], 1, "--tag: is 'a,b'"),
        (["--tag", ""], 1, "--tag: is empty"),
        (["--note", "\0"], 1, "--note: holds the control character U+0000"),
        (["--remove-tag", "x"], 2, "has no tag 'x'"),
        (["--tag", "x", "--remove-tag", "x"], 2, "'x' is given to --tag and to --remove-tag"),
        ([], 2, "nothing to change"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_cannot_be_a_name_is_refused_by_its_option(
    run: Run, arguments: list[str], exit_code: int, told: str
) -> None:
    run("evalset", "generate", "refused", "--count", "1", "--name", "stays")
    result = run("evalset", "update", "refused", *arguments, exit_code=exit_code)
    assert told in " ".join(result.stderr.replace("│", " ").split())
    assert documents(run("evalset", "show", "refused", "--json"))["display_name"] == "stays"


def test_a_list_refuses_an_order_and_a_state_that_it_does_not_know(run: Run) -> None:
    for arguments, told in (
        (["dataset", "list", "--sort", "color"], "'color' is not one of created, name, state, id"),
        (["train", "list", "--state", "done"], "'done' is not one of"),
        (["evaluation", "list", "--since", "soon"], "--since 'soon' is no time"),
        (["reports", "list", "--verdict", "better"], "'better' is not one of"),
    ):
        assert told in " ".join(run(*arguments, exit_code=2).stderr.replace("│", " ").split())


def test_lists_of_jobs_evaluations_and_reports_take_every_condition(run: Run) -> None:
    every = ["--tag", "t", "--name", "n", "--note", "o", "--since", "2d", "--until", "2100-01-01"]
    job = "01919191-0000-7000-8000-000000000000"
    states = ["--state", "queued", "--state", "failed", "--dataset", "d@1"]
    for arguments, none in (
        (
            ["train", "list", *states, "--base-model", "m", "--sort", "state,-created"],
            "no training jobs fit these filters",
        ),
        (
            ["evaluation", "list", *states, "--model", job, "--eval-set", "e", "--sort", "eval-set,model"],
            "no evaluations fit these filters",
        ),
        (
            [
                "reports",
                "list",
                "--verdict",
                "no-evidence",
                "--model",
                "m",
                "--evaluation",
                "e",
                "--sort=verdict",
            ],
            "no reports fit these filters",
        ),
    ):
        assert none in run(*arguments, *every).stdout


def test_a_deletion_says_which_version_of_a_dataset_it_means(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("traces", "generate", "--count", "4")
    run("dataset", "build", "passing")
    monkeypatch.setattr("tunix_rt.cli.deleting.can_ask", lambda: True)
    run_no = CliRunner().invoke(app, ["dataset", "delete", "passing"], input="n\n")
    assert "Delete datasets/passing@1 for good?" in run_no.stderr
    assert run("dataset", "delete", "passing", "--yes").stdout == "1 dataset deleted: datasets/passing@1\n"
