"""Commands that run on this computer: base models, the server, the demo. The server itself is a stand-in."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner, Result

from support.fake_loop import FakeLoopServices
from support.threaded import fake_server
from tunix_rt import v1
from tunix_rt.cli.main import app
from tunix_rt.errors import FailedPreconditionError

Run = Callable[..., Result]


class Parity(BaseModel):
    prompt: str = "Hello"
    tokens: int = 4
    max_abs_difference: float = 1.5e-5
    top1_agreement: float = 1.0


class Report(BaseModel):
    path: str = "/models/m"
    passed: bool
    tolerance: float = 1e-3
    max_abs_difference: float = 1.5e-5
    prompts: list[Parity] = [Parity()]
    versions: dict[str, str] = {"jax": "0"}


class Computer:
    """What the stand-in was asked for, and how it answers."""

    def __init__(self) -> None:
        self.services = FakeLoopServices()
        self.served: list[Path] = []
        self.jobs: list[str] = []
        self.beside: str | None = None
        self.pulled: list[tuple[str, Path]] = []
        self.same_logits = True
        self.locked = False

    def require_free(self, data_dir: Path) -> None:
        if self.locked:
            raise FailedPreconditionError(f"{data_dir} is in use by the server at 127.0.0.1:1 (process 7)")

    @contextmanager
    def embedded(self, data_dir: Path, *, jobs: str) -> Iterator[SimpleNamespace]:
        self.require_free(data_dir)
        self.jobs.append(jobs)
        self.served.append(data_dir)
        (data_dir / "server.db").touch()
        with fake_server(self.services.add) as address:
            yield SimpleNamespace(address=address, data_dir=data_dir, grace_s=5.0)

    def serve_forever(
        self, data_dir: Path, listen: str, on_ready: Callable[[str], None], redact_spans: bool
    ) -> None:
        self.served.append(data_dir)
        self.redacts = redact_spans
        on_ready(listen)

    def pull(self, name: str, data_dir: Path, progress: Callable[[str, int, int], None]) -> Path:
        self.pulled.append((name, data_dir))
        for done in (0, 2 << 20):
            progress("download", done, 2 << 20)
        progress("convert", 3, 3)
        folder = data_dir / "models" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def model_folder(self, name: str, data_dir: Path) -> Path:
        return data_dir / "models" / name

    def verify(self, _folder: Path) -> Report:
        return Report(passed=self.same_logits)


@pytest.fixture
def computer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Computer:
    made = Computer()
    local = ModuleType("tunix_rt_local")
    vars(local).update(embedded=made.embedded, serve_forever=made.serve_forever)
    vars(local).update(server_of=lambda _: made.beside, in_use=lambda _: made.locked)
    vars(local).update(model_folder=made.model_folder)
    vars(local).update(require_free=made.require_free, pull_model=made.pull, verify_model=made.verify)
    monkeypatch.setitem(sys.modules, "tunix_rt_local", local)
    monkeypatch.delenv("TUNIX_RT_SERVER", raising=False)
    monkeypatch.setenv("TUNIX_RT_DATA_DIR", str(tmp_path / "own"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").mkdir()
    return made


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def done(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    return result


def test_pull_shows_its_stages_and_where_the_model_is(computer: Computer, tmp_path: Path) -> None:
    result = done(run("models", "pull", "tiny"))
    assert computer.pulled == [("tiny", tmp_path / "own")]
    assert [line.rpartition(" ")[0].rpartition(" ")[0] for line in result.stderr.splitlines()] == [
        "download: 2/2 MiB",
        "convert: 3/3 tensors",
    ]
    assert result.stdout == f"tiny is in {tmp_path / 'own' / 'models' / 'tiny'}\n"


def test_verify_fails_when_the_logits_differ(computer: Computer) -> None:
    assert "same logits: largest difference 1.5e-05" in done(run("models", "verify", "tiny")).stdout
    computer.same_logits = False
    result = run("models", "verify", "tiny", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["passed"] is False


def test_without_a_server_one_is_started_on_the_data_folder(computer: Computer, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    done(run("traces", "generate", "--count", "3"))
    done(run("models", "list", "--data-dir", "other"))
    assert computer.served == [tmp_path / "own", tmp_path / "other"]
    assert len(computer.services.traces) == 3


def test_folder_in_use_is_one_line(computer: Computer, tmp_path: Path) -> None:
    computer.locked = True
    result = run("models", "list")
    assert result.exit_code == 1
    assert result.stderr == f"error: {tmp_path / 'own'} is in use by the server at 127.0.0.1:1 (process 7)\n"


def test_interrupted_wait_says_that_the_job_stops(
    computer: Computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    done(run("traces", "generate", "--count", "20"))
    done(run("dataset", "build", "d"))
    monkeypatch.setattr("tunix_rt.jobs.wait_for_training_job", interrupt)
    earlier = v1.TrainingJob(name="trainingJobs/-", state=v1.TrainingJob.STATE_QUEUED)
    computer.services.jobs[earlier.name] = earlier
    result = run("train", "start", "-d", "d", "-m", "tiny")
    assert result.exit_code == 130
    assert "trainingJobs/- goes on first; it waited or was interrupted" in result.stderr
    assert "the training job stops now; it goes on with: tunix-rt train resume " in result.stderr
    assert computer.jobs == ["end", "run", "run"]


def test_what_was_interrupted_and_goes_on_with_a_command_is_said(computer: Computer) -> None:
    done(run("traces", "generate", "--count", "20"))
    waiting: tuple[Any, ...] = (
        v1.Dataset(name="datasets/waits@1", state=v1.Dataset.STATE_QUEUED),
        v1.Evaluation(name="evaluations/waits", state=v1.Evaluation.STATE_RUNNING),
        v1.Evaluation(name="evaluations/ended", state=v1.Evaluation.STATE_FAILED),
    )
    computer.services.jobs.update({job.name: job for job in waiting})
    built = run("dataset", "build", "d")
    assert "datasets/waits@1 goes on too; it waited or was interrupted" in done(built).stderr
    done(run("evalset", "generate", "e", "--count", "4"))
    evaluated = done(run("evaluate", "-e", "e", "-m", "tiny"))
    assert "evaluations/waits goes on too; it waited or was interrupted" in evaluated.stderr
    assert "evaluations/ended" not in evaluated.stderr
    assert "goes on" not in done(run("evaluate", "-e", "e", "-m", "tiny", "--json")).stderr


def test_up_says_where_it_is_and_how_to_use_it(computer: Computer, tmp_path: Path) -> None:
    job = v1.TrainingJob(name="trainingJobs/j", state=v1.TrainingJob.STATE_QUEUED)
    ended = v1.TrainingJob(name="trainingJobs/k", state=v1.TrainingJob.STATE_SUCCEEDED)
    ending = v1.TrainingJob(name="trainingJobs/c", state=v1.TrainingJob.STATE_CANCELLING)
    evaluation = v1.Evaluation(name="evaluations/e", state=v1.Evaluation.STATE_RUNNING)
    build = v1.Dataset(name="datasets/d@1", state=v1.Dataset.STATE_QUEUED)
    computer.services.jobs = {entry.name: entry for entry in (job, ended, ending, evaluation, build)}
    result = done(run("up", "--listen", "127.0.0.1:4321", "--redact-spans"))
    assert computer.redacts
    # Then what goes on at the next start is looked for.
    assert (computer.served, computer.jobs) == ([tmp_path / "own"] * 2, ["leave"])
    assert result.stderr.splitlines() == [
        "stopped",
        "trainingJobs/j goes on at the next start; look without starting it: tunix-rt train show j",
        "trainingJobs/c ends, as it was cancelled, at the next start; look without starting it: "
        "tunix-rt train show c",
        "evaluations/e goes on at the next start; look without starting it: tunix-rt evaluation show e",
        "datasets/d@1 goes on at the next start; look without starting it: tunix-rt dataset show d@1",
    ]
    for part in ("127.0.0.1:4321", str(tmp_path / "own"), "export TUNIX_RT_SERVER=127.0.0.1:4321", "Ctrl-C"):
        assert part in result.stdout
    document = json.loads(done(run("up", "--listen", "127.0.0.1:4321", "--json")).stdout)
    assert document == {"address": "127.0.0.1:4321", "data_dir": str(tmp_path / "own")}


def test_demo_runs_the_loop_in_its_own_folder(computer: Computer, tmp_path: Path) -> None:
    result = done(run("demo"))
    assert "Verdict: improved" in result.stdout
    assert "candidate answers" in result.stdout
    assert "report: demo-output/report.html" in result.stdout
    data = tmp_path / "demo-output" / "data"
    assert computer.served == [data]
    assert computer.pulled == [("smollm2-135m-instruct", data)]
    assert (tmp_path / "demo-output" / "demo.yaml").exists()
    made = dict(computer.services.made)
    again = done(run("demo", "--json"))
    assert dict(computer.services.made) == made
    assert next(iter(json.loads(again.stdout)["stage_seconds"])) == "model"


def test_fresh_demo_keeps_base_models_and_nothing_else(computer: Computer, tmp_path: Path) -> None:
    done(run("demo"))
    data = tmp_path / "demo-output" / "data"
    (data / "cache").mkdir()
    (data / "models" / "smollm2-135m-instruct" / "config.json").touch()
    (tmp_path / "demo-output" / "old.html").touch()
    computer.services.made.clear()
    done(run("demo", "--fresh"))
    assert not (data / "cache").exists()
    assert not (tmp_path / "demo-output" / "old.html").exists()
    assert (data / "models" / "smollm2-135m-instruct" / "config.json").exists()


def test_fresh_demo_deletes_nothing_under_a_running_server(computer: Computer, tmp_path: Path) -> None:
    done(run("demo"))
    computer.locked = True
    result = run("demo", "--fresh")
    assert result.exit_code == 1
    assert "is in use by the server" in result.stderr
    assert (tmp_path / "demo-output" / "data" / "server.db").exists()
    assert (tmp_path / "demo-output" / "report.html").exists()
