"""A whole loop from Python against the four real services and a tiny model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.threaded import free_address, real_server
from support.tiny_model import ONE_LAYER, make_tiny_model
from tunix_rt import Client, LoopConfig, LoopEvent, Targets, run_loop, v1
from tunix_rt.errors import AlreadyExistsError, NotFoundError, TunixRtError
from tunix_rt.generate import generate_traces
from tunix_rt.leaks import leaking_datasets
from tunix_rt_evaluator.wiring import EvaluatorSettings
from tunix_rt_evaluator.wiring import build as build_evaluator
from tunix_rt_exporter.wiring import ExporterSettings
from tunix_rt_exporter.wiring import build as build_exporter
from tunix_rt_trace_store.wiring import TraceStoreSettings
from tunix_rt_trace_store.wiring import build as build_trace_store
from tunix_rt_trainer.wiring import TrainerSettings
from tunix_rt_trainer.wiring import build as build_trainer


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of the four services, each on an address of its own, as four machines would have them."""
    data = tmp_path_factory.mktemp("services")
    make_tiny_model(data / "models" / "tiny", config=ONE_LAYER)
    targets = Targets(free_address(), free_address(), free_address(), free_address())
    trace_store = TraceStoreSettings(listen=targets.trace_store, data_dir=data)
    exporter = ExporterSettings(
        listen=targets.exporter,
        data_dir=data,
        trace_store_target=targets.trace_store,
        evaluator_target=targets.evaluator,
    )
    trainer = TrainerSettings(listen=targets.trainer, data_dir=data, exporter_target=targets.exporter)
    evaluator = EvaluatorSettings(
        listen=targets.evaluator,
        data_dir=data,
        trainer_target=targets.trainer,
        exporter_target=targets.exporter,
    )
    with (
        real_server(lambda stopping: build_trace_store(trace_store, stopping), targets.trace_store),
        real_server(lambda stopping: build_exporter(exporter, stopping), targets.exporter),
        real_server(lambda stopping: build_trainer(trainer, stopping), targets.trainer),
        real_server(lambda stopping: build_evaluator(evaluator, stopping), targets.evaluator),
        Client(targets) as client,
    ):
        yield client


def config(folder: Path, **changes: Any) -> LoopConfig:
    document: dict[str, Any] = {
        "name": "tiny",
        "traces": {"generate": {"count": 60, "seed": 5}},
        "dataset": {
            "id": "tiny",
            "chat_template": "model",
            "splits": {"train": 0.7, "validation": 0.1, "test": 0.2},
        },
        "eval_set": {"limit": 6},
        "training": {
            "base_model": "tiny",
            "max_steps": 3,
            "rows_per_batch": 2,
            "max_length": 512,
            "dtype": "float32",
        },
        "evaluation": {"max_new_tokens": 8, "batch_size": 4, "dtype": "float32"},
        "output_dir": folder,
    }
    return LoopConfig.model_validate(document | changes)


def test_a_loop_runs_on_real_services_and_a_second_run_repeats_nothing(
    client: Client, tmp_path: Path
) -> None:
    events: list[LoopEvent] = []
    result = run_loop(config(tmp_path), client, on_event=events.append)
    assert result.report.base.name == result.evaluation_before.name
    assert result.report.candidate.name == result.evaluation_after.name
    assert result.report.overall.base.item_count == result.eval_set.item_count == 6
    assert [metrics.step for metrics in result.report.training_metrics] == [1, 2, 3]
    assert [event.metrics.step for event in events if event.metrics is not None] == [1, 2, 3]
    asked = {item.prompt for item in client.evaluator.get_eval_set(result.eval_set.name).items}
    learned = client.exporter.read_dataset(result.dataset.name, "train", format=v1.DATASET_FORMAT_TRACE)
    assert not asked & {json.loads(line)["prompts"] for line in learned.splitlines()}
    looked_up = result.report.contamination
    assert looked_up.state == v1.Contamination.STATE_LOOKED_UP
    assert (list(looked_up.datasets), looked_up.item_count) == ([result.dataset.name], 0)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert b"<html" in files["report.html"].lower()
    assert json.loads(files["report.json"])

    again: list[LoopEvent] = []
    repeated = run_loop(config(tmp_path), client, on_event=again.append)
    assert repeated.summary() == result.summary()
    assert [event.kind for event in again if event.kind in ("finished", "skipped")] == ["skipped"] * 6 + [
        "finished"
    ]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files
    assert len(list(client.trainer.list_training_jobs())) == 1
    assert len(list(client.evaluator.list_evaluations())) == 2

    file = result.checkpoint.files[0]
    header = client.trainer.download_checkpoint_file(result.checkpoint.name, file.path, tmp_path / "weights")
    assert (header.digest, header.size_bytes) == (file.digest, (tmp_path / "weights").stat().st_size)
    items = list(client.evaluator.list_evaluation_items(result.evaluation_after.name, page_size=4))
    assert {item.prompt for item in items} == asked


def test_a_dataset_version_stays_bound_to_its_content(client: Client, tmp_path: Path) -> None:
    dataset = {"id": "bound", "chat_template": "chatml"}
    run_dataset = config(tmp_path, name="bound", dataset=dataset, training={"base_model": "no-such-model"})
    with pytest.raises(TunixRtError, match="no-such-model"):
        run_loop(run_dataset, client)
    changed = config(
        tmp_path, name="bound", dataset=dataset | {"seed": 9}, training={"base_model": "no-such-model"}
    )
    with pytest.raises(AlreadyExistsError, match="datasets/bound@1 is bound"):
        run_loop(changed, client)


def test_a_leak_is_followed_to_checkpoints_and_reports(client: Client, tmp_path: Path) -> None:
    long = [trace.prompt for trace in generate_traces(60, seed=5) if len(trace.prompt.split()) > 13][:4]
    items = [
        {"id": f"q{n}", "prompt": f"Please solve: {prompt}", "accepted_answers": ["1"], "grader": "numeric"}
        for n, prompt in enumerate(long)
    ]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    loop = config(
        tmp_path / "out",
        name="leaking",
        dataset={"id": "leaking", "chat_template": "model", "splits": {"train": 1}, "ngram_words": 0},
        eval_set={"file": str(tmp_path / "items.jsonl"), "id": "asked"},
    )
    result = run_loop(loop, client)
    seen: list[tuple[str, int, int]] = []
    found = {
        leak.dataset.name: leak
        for leak in leaking_datasets(
            client, "evalSets/asked", on_progress=lambda d, done, all_: seen.append((d.name, done, all_))
        )
    }
    leak = found["datasets/leaking@1"]
    assert {row.eval_item for row in leak.learned_rows} >= {"q0", "q1", "q2", "q3"}
    assert list(leak.checkpoints) == [result.checkpoint.name]
    assert list(leak.evaluations) == [result.evaluation_after.name]
    assert list(leak.reports) == [result.report.name]
    learned = {row.eval_item for row in leak.learned_rows}
    assert {item.item_id for item in result.report.contamination.items} == learned
    assert result.report.contamination.item_count == len(learned)
    assert (result.dataset.name, 60, 60) in seen
    exact = v1.Decontamination(ngram_words=0)
    assert not list(leaking_datasets(client, "evalSets/asked", decontamination=exact))
    with pytest.raises(NotFoundError):
        list(leaking_datasets(client, "evalSets/none"))


def test_a_held_out_split_touches_no_checkpoint(client: Client, tmp_path: Path) -> None:
    result = run_loop(config(tmp_path), client)
    (leak,) = leaking_datasets(
        client,
        result.eval_set.name,
        dataset=result.dataset.name,
        decontamination=v1.Decontamination(ngram_words=0),
    )
    assert {row.split for row in leak.rows} == {"test"}
    assert not (leak.learned_rows or leak.checkpoints or leak.evaluations or leak.reports)
