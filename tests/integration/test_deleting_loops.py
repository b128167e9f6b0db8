"""A loop and what it left are deleted, and the data folder gets its space back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import tunix_rt_local
from support import scripted_evaluator, scripted_trainer
from support.tiny_model import ONE_LAYER, make_tiny_model
from tunix_rt import Client, LoopConfig, run_loop, v1
from tunix_rt.deleting import delete
from tunix_rt.errors import FailedPreconditionError, NotFoundError
from tunix_rt.jobs import wait_for_evaluation, wait_for_training_job
from tunix_rt.loop import LoopEvent
from tunix_rt.loop.removal import plan_removal, remove_loop
from tunix_rt_evaluator.evaluations import job_folders
from tunix_rt_kit.database import Database
from tunix_rt_trainer.jobs import training

TESTS = Path(__file__).parents[1]


@pytest.fixture
def data_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A data folder with a base model; its jobs are acted out without one."""
    monkeypatch.setattr(training, "WORKER_MODULE", "support.scripted_trainer")
    monkeypatch.setattr(job_folders, "WORKER_MODULE", "support.scripted_evaluator")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))
    make_tiny_model(tmp_path / "data" / "models" / "tiny", config=ONE_LAYER)
    return tmp_path / "data"


def config(folder: Path, name: str = "first", **changes: Any) -> LoopConfig:
    document: dict[str, Any] = {
        "name": name,
        "traces": {"generate": {"count": 40, "seed": 5}},
        "dataset": {"id": name, "chat_template": "model", "splits": {"train": 0.8, "test": 0.2}},
        "eval_set": {"limit": 4},
        "training": {"base_model": "tiny", "seed": scripted_trainer.SUCCEED, "max_length": 512},
        "evaluation": {"max_new_tokens": scripted_evaluator.SUCCEED, "dtype": "float32"},
        "output_dir": folder / name,
    }
    return LoopConfig.model_validate(document | changes)


def names(client: Client) -> set[str]:
    lists: tuple[Any, ...] = (
        client.exporter.list_datasets(),
        client.evaluator.list_eval_sets(),
        client.evaluator.list_evaluations(),
        client.trainer.list_training_jobs(),
        client.evaluator.list_comparison_reports(),
    )
    return {entry.name for found in lists for entry in found}


def left_on_disk(data_dir: Path) -> set[str]:
    """Kinds of what takes space, but for the databases, the model and what it was made ready with."""
    fixed = {"database", "base model", "other files", "cache"}
    return {entry.kind for entry in tunix_rt_local.disk_usage(data_dir)} - fixed


def test_a_loop_is_deleted_whole_and_can_be_run_again(data_dir: Path, tmp_path: Path) -> None:
    made = config(tmp_path)
    refusals = set()

    def delete_it(event: LoopEvent) -> None:
        if event.kind in ("started", "finished"):
            with pytest.raises(FailedPreconditionError, match="runs") as caught:
                plan_removal(client, made.output_dir)
            refusals.add(caught.value.reason)

    with tunix_rt_local.embedded(data_dir) as server, Client(server.address) as client:
        result = run_loop(made, client, on_event=delete_it)
        assert refusals == {"LOOP_RUNNING"}
        there = names(client)
        assert len(there) == 6
        removal = plan_removal(client, made.output_dir)
        assert (set(removal.names), removal.kept) == (there, {})
        assert [name.partition("/")[0] for name in removal.names] == [
            "comparisonReports", "evaluations", "evaluations", "trainingJobs", "datasets", "evalSets",
        ]  # fmt: skip
        # What it made since it was looked at would be forgotten with its notes.
        noted = (made.output_dir / "loop-state.json").read_text()
        (made.output_dir / "loop-state.json").write_text(
            noted.replace('"made": [', '"made": ["datasets/b@1",')
        )
        with pytest.raises(FailedPreconditionError, match="datasets/b@1") as changed:
            remove_loop(client, removal)
        assert changed.value.reason == "LOOP_CHANGED"
        (made.output_dir / "loop-state.json").write_text(noted)
        assert names(client) == there
        assert remove_loop(client, removal) == list(removal.names)
        assert names(client) == set()
        assert list(made.output_dir.iterdir()) == []
        # What it was is still told.
        assert client.exporter.get_dataset(result.dataset.name).digest == result.dataset.digest
        assert client.evaluator.get_comparison_report(result.report.name).digest == result.report.digest
    assert left_on_disk(data_dir) == set()
    assert tunix_rt_local.collect_garbage(data_dir, free=False) == []
    with tunix_rt_local.embedded(data_dir) as server, Client(server.address) as client:
        again = run_loop(made, client)
        assert again.training_job.name != result.training_job.name
        assert again.summary()["dataset"] == result.summary()["dataset"]
        assert again.eval_set.digest == result.eval_set.digest


def test_what_others_use_is_kept_and_goes_by_force(data_dir: Path, tmp_path: Path) -> None:
    made = config(tmp_path)
    with tunix_rt_local.embedded(data_dir) as server, Client(server.address) as client:
        result = run_loop(made, client)
        mine = client.evaluator.create_evaluation(result.evaluation_after.spec)
        mine = wait_for_evaluation(client, mine.name)
        job, dataset, eval_set = result.training_job.name, result.dataset.name, result.eval_set.name
        with pytest.raises(FailedPreconditionError, match=mine.name) as caught:
            delete(client, result.checkpoint.name)
        assert caught.value.reason == "CHECKPOINT_IN_USE"
        with pytest.raises(FailedPreconditionError, match=job) as caught:
            delete(client, dataset)
        assert caught.value.reason == "DATASET_IN_USE"
        removal = plan_removal(client, made.output_dir)
        assert removal.kept == {job: (mine.name,), dataset: (job,), eval_set: (mine.name,)}
        remove_loop(client, removal)
        assert names(client) == {mine.name, job, dataset, eval_set}
        # The notes stay with what is left, so that it can be deleted later.
        forced = plan_removal(client, made.output_dir, force=True)
        assert forced.names == (job, dataset, eval_set)
        remove_loop(client, forced, force=True)
        assert names(client) == {mine.name}
        with pytest.raises(NotFoundError, match="was deleted at"):
            client.evaluator.create_evaluation(result.evaluation_after.spec)
    assert left_on_disk(data_dir) == {"evaluation"}


def test_what_runs_is_not_deleted_and_what_is_not_the_loops_own_stays(data_dir: Path, tmp_path: Path) -> None:
    made = config(tmp_path)
    with tunix_rt_local.embedded(data_dir) as server, Client(server.address) as client:
        result = run_loop(made, client)
        waiting = v1.TrainingSpec()
        waiting.CopyFrom(result.training_job.spec)
        waiting.seed = scripted_trainer.WAIT
        job = client.trainer.create_training_job(waiting)
        with pytest.raises(FailedPreconditionError, match="cancel those first") as caught:
            delete(client, result.dataset.name, force=True)
        assert caught.value.metadata["used_by"] == job.name
        state = made.output_dir / "loop-state.json"
        notes = json.loads(state.read_text())
        state.write_text(json.dumps(notes | {"made": [*notes["made"], job.name]}))
        with pytest.raises(FailedPreconditionError, match=job.name) as caught:
            plan_removal(client, made.output_dir, force=True)
        assert caught.value.reason == "LOOP_RUNNING"
        client.trainer.cancel_training_job(job.name)
        with pytest.raises(Exception, match="cancelled"):
            wait_for_training_job(client, job.name)
        # Another loop finds dataset and eval set there: they are not its own.
        second = config(tmp_path, "second", dataset=made.dataset.model_dump(exclude_unset=True))
        run_loop(second, client)
        removal = plan_removal(client, second.output_dir)
        assert not {result.dataset.name, result.eval_set.name} & {*removal.names, *removal.kept}
        with pytest.raises(FailedPreconditionError) as caught:
            plan_removal(client, tmp_path)
        assert caught.value.reason == "LOOP_UNKNOWN"


def test_what_a_loop_of_an_earlier_version_made_is_told_by_its_result_which_stays_with_what_is_kept(
    data_dir: Path, tmp_path: Path
) -> None:
    made = config(tmp_path)
    with tunix_rt_local.embedded(data_dir) as server, Client(server.address) as client:
        result = run_loop(made, client)
        folder = made.output_dir
        state = json.loads((folder / "loop-state.json").read_text())
        (folder / "loop-state.json").write_text(json.dumps({"import": state["import"]}))
        whole = names(client)
        assert set(plan_removal(client, folder).names) == whole
        mine = client.evaluator.create_evaluation(result.evaluation_after.spec)
        mine = wait_for_evaluation(client, mine.name)
        removal = plan_removal(client, folder)
        kept = {result.training_job.name, result.dataset.name, result.eval_set.name}
        assert set(removal.kept) == kept
        assert {path.name for path in removal.files} == {"report.html", "report.json", "report.md"}
        remove_loop(client, removal)
        assert {path.name for path in folder.iterdir()} == {"loop.json", "loop-state.json"}
        # When nothing uses it any more, the rest goes, too.
        delete(client, mine.name)
        again = plan_removal(client, folder)
        assert (set(again.names), again.kept) == (kept, {})
        remove_loop(client, again)
        assert (names(client), list(folder.iterdir())) == (set(), [])


def test_a_dataset_that_a_loop_found_there_is_told_and_stays(data_dir: Path, tmp_path: Path) -> None:
    made = config(tmp_path)
    with tunix_rt_local.embedded(data_dir) as server, Client(server.address) as client:
        result = run_loop(made, client)
        notes = json.loads((made.output_dir / "loop-state.json").read_text())
        notes["made"].remove(result.dataset.name)
        (made.output_dir / "loop-state.json").write_text(json.dumps(notes))
        removal = plan_removal(client, made.output_dir, force=True)
        assert removal.not_its_own == (result.dataset.name,)
        assert result.dataset.name not in removal.names
    # Where the loop did not run, its notes are not deleted for nothing.
    with tunix_rt_local.embedded(tmp_path / "other") as server, Client(server.address) as client:
        with pytest.raises(FailedPreconditionError, match=r"was ever here.*name that one") as caught:
            plan_removal(client, made.output_dir)
        assert caught.value.reason == "LOOP_ELSEWHERE"
        with pytest.raises(FailedPreconditionError, match="is not there") as caught:
            plan_removal(client, tmp_path / "moved")
        assert str(tmp_path / "moved") in caught.value.message


def test_files_are_freed_though_a_database_is_of_an_earlier_version(data_dir: Path, tmp_path: Path) -> None:
    with tunix_rt_local.embedded(data_dir) as server, Client(server.address) as client:
        report = run_loop(config(tmp_path), client).report
    (data_dir / "exporter.db").unlink()
    database = Database(f"sqlite:///{data_dir / 'exporter.db'}")
    database.upgrade("tunix_rt_exporter:migrations", "exporter_version", "0003")
    database.close()
    digest = report.digest.removeprefix("sha256:")
    stored = data_dir / "artifacts" / "sha256" / digest[:2] / digest
    assert stored.exists()
    # As the commands do, which start only the services that they call.
    with tunix_rt_local.embedded(data_dir, jobs="end") as server, Client(server.address) as client:
        delete(client, report.name)
    assert not stored.exists()
