"""What a loop would do, told without doing it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from support.fake_loop import FakeLoopServices
from support.threaded import fake_server
from tunix_rt import Client
from tunix_rt.cli.main import app
from tunix_rt.errors import FormatError
from tunix_rt.loop import LoopConfig, StagePlan, plan_loop, run_loop


@pytest.fixture
def services() -> FakeLoopServices:
    return FakeLoopServices()


@pytest.fixture
def client(services: FakeLoopServices) -> Iterator[Client]:
    with fake_server(services.add) as address, Client(address) as client:
        yield client


def config(folder: Path, **changes: Any) -> LoopConfig:
    settings: dict[str, Any] = {
        "name": "small",
        "traces": {"generate": {"count": 200, "seed": 3}},
        "dataset": {"id": "sums", "version": "1", "splits": {"train": 0.8, "test": 0.2}},
        "eval_set": {"limit": 32},
        "training": {"base_model": "tiny", "max_steps": 20},
        "evaluation": {"max_new_tokens": 40},
        "output_dir": folder / "out",
    }
    return LoopConfig.model_validate(settings | changes)


def planned(config: LoopConfig, client: Client, **options: Any) -> dict[str, StagePlan]:
    return {stage.stage: stage for stage in plan_loop(config, client, **options).stages}


def test_a_plan_says_what_each_stage_would_do_and_makes_nothing(
    client: Client, services: FakeLoopServices, tmp_path: Path
) -> None:
    plan = planned(config(tmp_path), client)
    assert list(plan) == [
        "import", "dataset", "eval_set", "evaluation_before", "training", "evaluation_after", "comparison",
    ]  # fmt: skip
    assert (plan["import"].amounts, plan["import"].bounded) == ({"traces": 200}, False)
    assert (plan["dataset"].amounts, plan["dataset"].bounded) == ({"rows": 200}, True)
    assert plan["evaluation_before"].amounts == {"items": 32, "answers": 32, "tokens": 1280}
    assert plan["training"].amounts["steps"] == 20
    assert plan["training"].seconds == 4 + 6 + 20 * 3
    # Two batches of 16: 32 prompts of about 100 tokens are read, and 1,280 tokens written.
    assert plan["evaluation_after"].seconds == 2 + 32 * 100 / 800 + 1280 / 64
    assert "5 steps of 2 rows measured for 10 s in float32 on cpu" in plan["training"].basis
    assert (services.made, services.traces, services.eval_sets) == ({}, {}, {})
    assert not (tmp_path / "out").exists()


def test_steps_come_from_the_length_of_the_texts_until_the_dataset_is_there(
    client: Client, tmp_path: Path
) -> None:
    given = config(
        tmp_path, training={"base_model": "tiny", "epochs": 2, "rows_per_batch": 4, "packing": False}
    )
    before = planned(given, client)["training"]
    # 160 of 200 traces are learned, four a step, twice.
    assert (before.amounts["steps"], before.bounded) == (80, True)
    assert "exactly known when the dataset is built" in before.does
    run_loop(given, client)
    after = planned(given, client)
    assert "datasets/sums@1, which is there" in after["dataset"].does
    assert (after["training"].bounded, after["dataset"].bounded) == (False, False)


@pytest.mark.parametrize("measures", [True, False])
def test_what_cannot_be_known_is_said(
    client: Client, services: FakeLoopServices, tmp_path: Path, measures: bool
) -> None:
    services.measures = measures
    given = config(tmp_path, traces=None, eval_set={}, training={"base_model": "tiny"})
    plan = planned(given, client)
    assert plan["training"].seconds is None
    assert "known when the dataset is built" in plan["training"].basis
    assert "known when the dataset is built" in plan["evaluation_before"].basis
    known = planned(config(tmp_path), client)
    assert (known["training"].seconds is None) is not measures
    if not measures:
        assert known["training"].basis.startswith("not measured: ")
        assert plan_loop(config(tmp_path), client).seconds is None
    assert (
        planned(config(tmp_path), client, measure=False)["training"].basis == "not measured, as was asked for"
    )


def test_a_wrong_file_is_found(client: Client, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"prompt": 1}\n')
    with pytest.raises(FormatError, match=r"t\.jsonl, line 1"):
        plan_loop(config(tmp_path, traces={"file": tmp_path / "t.jsonl"}), client)


def test_a_table_and_questions_of_their_own_are_counted(client: Client, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("Task,steps,answer\nq,r,a\nw,r,b\n")
    (tmp_path / "q.csv").write_text("question,answer\nq,4|5\n")
    given = config(
        tmp_path,
        traces={"file": tmp_path / "t.csv", "columns": {"prompt": "Task"}},
        eval_set={"file": tmp_path / "q.csv", "answer_separator": "|"},
    )
    plan = planned(given, client)
    assert list(plan)[1:3] == ["eval_set", "dataset"]
    assert plan["import"].amounts == {"traces": 2}
    assert (plan["eval_set"].amounts, plan["eval_set"].bounded) == ({"items": 1}, False)


def test_the_command_shows_the_plan(client: Client, services: FakeLoopServices, tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text(config(tmp_path).model_dump_json(exclude_unset=True))
    arguments = ["loop", "run", str(tmp_path / "loop.yaml"), "--dry-run"]

    def invoke(*more: str) -> Result:
        result = CliRunner().invoke(app, [*arguments, *more, "--server", client.targets.trainer])
        assert result.exit_code == 0, result.output
        return result

    shown = invoke().stdout
    assert "about 20 steps" not in shown
    assert "20 steps" in shown
    assert "up to 26 s" in shown
    assert "training: 3 s a step, from 5 steps of 2 rows measured for 10 s" in shown
    document = json.loads(invoke("--json").stdout)
    assert document["stages"][0]["stage"] == "import"
    assert document["seconds"] == pytest.approx(70 + 2 * 26)
    assert services.made == {}
