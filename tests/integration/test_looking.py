"""Commands that only look: they leave jobs alone, need no folder to themselves, and tell what is so."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from typer.testing import CliRunner, Result

import tunix_rt_local
from support.timing import eventually
from support.tiny_model import ONE_LAYER, make_tiny_model
from tunix_rt import Client, v1
from tunix_rt.cli import idle
from tunix_rt.cli.effects import EFFECTS, Effect
from tunix_rt.cli.main import app
from tunix_rt.formats import trace_from_json
from tunix_rt.generate import generate_traces
from tunix_rt.jobs import wait_for_dataset
from tunix_rt_kit.jobs.process import KILLED, WorkerProcess

DATABASES = ("trace-store", "exporter", "trainer", "evaluator")
LEFT_BY_A_KILLED_SERVER = (
    "UPDATE training_jobs SET state = 'RUNNING', attempt_count = 1",
    "INSERT INTO training_job_leases (job_id, owner, expires, at_once) "
    "SELECT id, 'machine 1 1.0 dead', 0, 0 FROM training_jobs",
)


class Folder(NamedTuple):
    """A data folder with jobs that have not ended, and what is in it."""

    path: Path
    traces: tuple[str, str]
    job: str
    evaluation: str


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A folder whose training job a killed server left, and whose evaluation and build wait."""
    path = tmp_path_factory.mktemp("interrupted")
    make_tiny_model(path / "models" / "tiny", config=ONE_LAYER)
    template = v1.ChatTemplate(builtin="chatml")
    spec = v1.DatasetSpec(
        dataset_id="built",
        version="1",
        chat_template=template,
        splits=[v1.SplitFraction(split="train", fraction=0.9), v1.SplitFraction(split="test", fraction=0.1)],
    )
    with tunix_rt_local.embedded(path) as server, Client(server.address) as client:
        stored = client.trace_store.batch_create_traces(
            [trace_from_json(json.dumps(trace.to_dict())) for trace in generate_traces(count=40, seed=1)]
        )
        wait_for_dataset(client, client.exporter.create_dataset(spec).name)
        item = v1.EvalItem(id="1", prompt="1 + 1 = ?", accepted_answers=["2"])
        item.grader.numeric.SetInParent()
        client.evaluator.create_eval_set(v1.EvalSet(eval_set_id="sums", items=[item]))
    with tunix_rt_local.embedded(path, jobs="leave") as server, Client(server.address) as client:
        training = v1.TrainingSpec(base_model="tiny", dataset="datasets/built@1", max_steps=2)
        job = client.trainer.create_training_job(training)
        evaluation = client.evaluator.create_evaluation(
            v1.EvaluationSpec(eval_set="evalSets/sums", base_model="tiny", chat_template=template)
        )
        spec.version = "2"
        client.exporter.create_dataset(spec)
    with sqlite3.connect(path / "trainer.db") as database:
        for statement in LEFT_BY_A_KILLED_SERVER:
            database.execute(statement)
    names = [result.name.partition("/")[2] for result in stored.results]
    return Folder(path, (names[0], names[1]), job.name.partition("/")[2], evaluation.name.partition("/")[2])


@pytest.fixture
def run(folder: Folder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    monkeypatch.delenv("TUNIX_RT_SERVER", raising=False)
    monkeypatch.setenv("TUNIX_RT_DATA_DIR", str(folder.path))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, [*map(str, arguments)])


def jobs_of(folder: Folder) -> dict[str, list[Any]]:
    """All that the databases hold of jobs and leases."""
    found: dict[str, list[Any]] = {}
    for name in DATABASES:
        with sqlite3.connect(folder.path / f"{name}.db") as database:
            tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type='table'")]
            for table in tables:
                if table.endswith("leases") or table in ("training_jobs", "evaluations", "datasets"):
                    found[table] = database.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
    return found


READING = sorted(name for name, effect in EFFECTS.items() if effect is Effect.READS)
ARGUMENTS: dict[str, Callable[[Folder], list[str]]] = {
    "dataset audit": lambda _: ["built", "--against", "sums"],
    "dataset dropped": lambda _: ["built"],
    "dataset export": lambda _: ["built", "-o", "rows.jsonl"],
    "dataset preview": lambda _: ["built"],
    "dataset show": lambda _: ["built@2"],
    "evalset show": lambda _: ["sums"],
    "evaluation items": lambda folder: [folder.evaluation],
    "evaluation show": lambda folder: [folder.evaluation],
    "evaluation watch": lambda folder: [folder.evaluation],
    "grade": lambda _: ["2", "--accepted", "2"],
    "models verify": lambda _: ["smollm2-135m-instruct"],
    "reports improvements": lambda _: ["0" * 32],
    "reports regressions": lambda _: ["0" * 32],
    "reports show": lambda _: ["0" * 32],
    "reports list": lambda _: [],
    "traces compare": lambda folder: [*folder.traces],
    "traces export": lambda _: ["-o", "traces.jsonl"],
    "traces show": lambda folder: [folder.traces[0]],
    "train show": lambda folder: [folder.job],
    "train watch": lambda folder: [folder.job],
}
"""What a command that reads is given here; the others need nothing."""
REFUSED = ("doctor", "evaluation watch", "models verify", "train watch")
"""What has nothing to show here, beside reports."""


def workers_in(folder: Path) -> list[psutil.Process]:
    """The workers that do jobs of a data folder."""
    found = psutil.process_iter(["cmdline"])
    return [process for process in found if f"{folder}/" in " ".join(process.info["cmdline"] or [])]


@pytest.mark.usefixtures("new_workers")
@pytest.mark.parametrize("command", READING)
def test_a_command_that_reads_leaves_jobs_alone(
    command: str, folder: Folder, run: Callable[..., Result]
) -> None:
    before = jobs_of(folder)
    result = run(*command.split(), *ARGUMENTS.get(command, lambda _: [])(folder))
    may_refuse = command in REFUSED or (ARGUMENTS.get(command) and command.startswith("reports "))
    assert result.exit_code == 0 or (may_refuse and result.exit_code == 1), result.output
    assert jobs_of(folder) == before
    assert not workers_in(folder.path)
    assert not (folder.path / "training-jobs" / folder.job).exists()


def test_a_preview_as_a_page_and_a_document_prints_one(run: Callable[..., Result], tmp_path: Path) -> None:
    result = run("dataset", "preview", "built", "--limit", "2", "--html", "page.html", "--json")
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    assert [one["split"] for one in shown] == ["train", "train"]
    page = (tmp_path / "page.html").read_text()
    assert all(f"row {one['row_id'][:12]}" in page for one in shown)


@pytest.mark.parametrize("command", [name for name in READING if name not in (*ARGUMENTS, "doctor")])
def test_a_command_that_reads_makes_no_folder(
    command: str, tmp_path: Path, run: Callable[..., Result]
) -> None:
    missing = tmp_path / "not" / "there"
    result = run(*command.split(), "--data-dir", missing)
    assert result.exit_code == 0 or command == "du", result.output
    assert str(missing) in result.output or "tunix-rt-" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_refused_also_to_who_only_looks(
    tmp_path: Path, run: Callable[..., Result]
) -> None:
    (tmp_path / "file").touch()
    result = run("traces", "list", "--data-dir", tmp_path / "file" / "data")
    assert result.exit_code == 1
    assert f"data folder {tmp_path / 'file' / 'data'}: not a directory" in result.stderr


def test_a_dry_run_and_a_cancellation_start_no_job(folder: Folder, run: Callable[..., Result]) -> None:
    before = jobs_of(folder)
    result = run("train", "start", "-d", "built", "-m", "tiny", "--max-steps", "2", "--dry-run")
    assert result.exit_code == 0, result.output
    assert jobs_of(folder) == before
    result = run("dataset", "export", "built", "-o", "out.jsonl")
    assert result.exit_code == 0, result.output
    assert run("traces", "generate", "--count", "3", "--seed", "9").exit_code == 0
    assert jobs_of(folder) == before


def test_what_was_interrupted_is_shown_as_waiting_with_how_it_goes_on(
    folder: Folder, run: Callable[..., Result]
) -> None:
    shown = run("train", "show", folder.job)
    assert "queued" in shown.stdout
    assert "running" not in shown.stdout
    assert f"it goes on with: tunix-rt train resume {folder.job}, or with: tunix-rt up" in shown.stderr
    document = json.loads(run("train", "show", folder.job, "--json").stdout)
    assert document["state"] == "STATE_QUEUED"
    listed = run("evaluation", "list")
    assert f"it goes on with: tunix-rt evaluation resume {folder.evaluation}" in listed.stderr
    watched = run("train", "watch", folder.job)
    assert watched.exit_code == 1
    assert f"trainingJobs/{folder.job} has not ended, and no server runs it now" in watched.stderr
    assert run("dataset", "show", "built@1").stderr == ""


def test_a_job_that_is_being_cancelled_does_not_go_on() -> None:
    job = v1.TrainingJob(name="trainingJobs/j", state=v1.TrainingJob.STATE_CANCELLING)
    said = "trainingJobs/j has not ended, and no server runs it now; it ends when it is cancelled again"
    assert idle.told([job]).startswith(said)
    assert idle.queued(job) == job


def test_readers_share_a_folder_with_each_other_and_with_a_command_that_writes(
    folder: Folder, run: Callable[..., Result]
) -> None:
    with (
        tunix_rt_local.embedded(folder.path, jobs="leave"),
        tunix_rt_local.embedded(folder.path, jobs="leave"),
        tunix_rt_local.embedded(folder.path, jobs="end"),
    ):
        assert run("traces", "list").exit_code == 0
        shown = run("train", "show", folder.job)
        # Whoever uses the folder may run it.
        assert "running" in shown.stdout
        refused = run("traces", "delete", folder.traces[0], "--yes")
        assert f"in use by another command (process {os.getpid()})" in refused.stderr
    assert tunix_rt_local.server_of(folder.path) is None


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Path]:
    with tunix_rt_local.embedded(tmp_path / "served") as server, Client(server.address) as client:
        client.trace_store.batch_create_traces(
            [trace_from_json(json.dumps(trace.to_dict())) for trace in generate_traces(count=2, seed=1)]
        )
        yield tmp_path / "served"


def test_reading_beside_a_server_asks_that_server(
    serving: Path, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunix_rt_local, "embedded", None)
    result = run("traces", "list", "--json", "--data-dir", serving)
    assert len(json.loads(result.stdout)) == 2
    holder = json.loads((serving / "server.json").read_text())
    (serving / "server.json").write_text(json.dumps(holder | {"start": 1.0}))
    assert tunix_rt_local.server_of(serving) is None


LEFT_RUNNING = {
    "train": ("trainer", "training_jobs", "id", "training_job_leases"),
    "evaluation": ("evaluator", "evaluations", "id", "evaluation_leases"),
    "dataset": ("exporter", "datasets", "build_id", "build_leases"),
}
"""By command: database, table, its column of ids, and table of leases of a job that a killed server left."""


@pytest.fixture
def copy(tmp_path: Path, folder: Folder) -> Folder:
    """The folder's databases alone, to be changed."""
    for name in DATABASES:
        with (
            sqlite3.connect(folder.path / f"{name}.db") as source,
            sqlite3.connect(tmp_path / f"{name}.db") as made,
        ):
            source.backup(made)
    return folder._replace(path=tmp_path)


def leave_running(copy: Folder, command: str) -> str:
    """As if a server had been killed at the copy's unfinished job of a kind; gives the job's name."""
    database, table, key, leases = LEFT_RUNNING[command]
    with sqlite3.connect(copy.path / f"{database}.db") as opened:
        opened.execute(f"UPDATE {table} SET state = 'RUNNING' WHERE state = 'QUEUED'")
        opened.execute(
            f"INSERT OR REPLACE INTO {leases} (job_id, owner, expires, at_once) "
            f"SELECT {key}, 'machine 1 1.0 dead', 0, 0 FROM {table} WHERE state = 'RUNNING'"
        )
    return {"train": copy.job, "evaluation": copy.evaluation, "dataset": "built@2"}[command]


@pytest.mark.parametrize("command", LEFT_RUNNING)
def test_a_cancelled_job_that_a_killed_server_left_ends_and_no_other_starts(
    command: str, copy: Folder, run: Callable[..., Result]
) -> None:
    name = leave_running(copy, command)
    before = jobs_of(copy)
    result = run(command, "cancel", name, "--json", "--data-dir", copy.path)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["state"] == "STATE_CANCELLED"
    after = jobs_of(copy)
    _, table, _, leases = LEFT_RUNNING[command]
    assert after.pop(leases) == []
    assert {name for name in after if after[name] != before[name]} == {table}


@pytest.mark.usefixtures("new_workers")
def test_a_worker_that_heeds_no_cancel_is_ended_before_the_command_is(
    copy: Folder, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunix_rt.cli.session._SETTLED_S", 0.5)
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    deaf = WorkerProcess("support.worker", copy.path / "training-jobs" / copy.job, env=environment)
    deaf.start({"what": "deaf", "attempt": 1})
    eventually(lambda: deaf.events())
    result = run("train", "cancel", leave_running(copy, "train"), "--data-dir", copy.path)
    assert "cancelled" in result.stdout, result.output
    assert deaf.poll() == KILLED


def test_a_list_of_traces_loads_the_trace_store_alone(folder: Folder) -> None:
    program = (
        "import sys\n"
        "from tunix_rt.cli.main import app\n"
        "try:\n    app(['traces', 'list', '--json'])\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'alembic', 'jax', 'jinja2', 'numpy', 'psycopg', 'pyarrow', 'structlog', 'sympy',\n"
        "         'grpc_health.v1', 'grpc_reflection.v1alpha', 'sqlalchemy.dialects.postgresql',\n"
        "         'tunix_rt_evaluator', 'tunix_rt_exporter', 'tunix_rt_trainer'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))\n"
    )
    environment = {**os.environ, "TUNIX_RT_DATA_DIR": str(folder.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.splitlines()[-1] == "heavy: []"
