"""The examples in JavaScript and TypeScript, against the four services."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tunix_rt_local
from support.documents import ROOT
from support.tiny_model import ONE_LAYER, make_tiny_model
from support.traces import trace
from tunix_rt import Client, import_traces, v1
from tunix_rt.formats import trace_from_json
from tunix_rt.generate import generate_traces
from tunix_rt.jobs import wait_for_dataset, wait_for_training_job

COUNT = 130
"""Of traces: more than a page of what the examples ask for."""
PROMPT = "Was ist „zwei“\tund\n2 ± 🙂?"
COMMANDS = {"node": "", "typescript": "built/"}


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The address of services that hold traces and a training job, and the job's name."""
    folder = tmp_path_factory.mktemp("data")
    make_tiny_model(folder / "models" / "tiny", config=ONE_LAYER)
    with tunix_rt_local.embedded(folder) as server, Client(server.address) as client:
        made = (trace_from_json(json.dumps(one.to_dict())) for one in generate_traces(count=COUNT, seed=1))
        import_traces(client, [trace(prompt=PROMPT), *made])
        spec = v1.DatasetSpec(dataset_id="sums", chat_template=v1.ChatTemplate(builtin="chatml"))
        dataset = wait_for_dataset(client, client.exporter.create_dataset(spec).name)
        training = v1.TrainingSpec(base_model="tiny", dataset=dataset.name, max_steps=3, rows_per_batch=2)
        job = wait_for_training_job(client, client.trainer.create_training_job(training).name)
        yield server.address, job.name


def ran(language: str, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    folder = ROOT / "examples" / "clients" / language
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = ["node", f"{COMMANDS[language]}{script}.js", *arguments]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("language", COMMANDS)
def test_all_pages_of_traces_are_listed(services: tuple[str, str], language: str) -> None:
    done = ran(language, "list-traces", services[0])
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len({line.split("\t")[0] for line in lines}) == COUNT + 1
    assert sum('\t"Was ist „zwei“\\tund\\n2 ± 🙂?"' in line for line in lines) == 1


@pytest.mark.parametrize("language", COMMANDS)
def test_a_job_is_watched_to_its_end(services: tuple[str, str], language: str) -> None:
    done = ran(language, "watch-job", *services)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    steps = [line for line in lines if line.startswith("step ")]
    assert [line.split("\t")[0] for line in steps] == ["step 1", "step 2", "step 3"]
    assert all(float(line.split("loss ")[1]) > 0 for line in steps)
    assert "checkpoint of step 3" in lines
    assert lines[-1] == "STATE_SUCCEEDED"
    assert lines.count("STATE_RUNNING") <= 1


@pytest.mark.parametrize("language", COMMANDS)
def test_a_refusal_has_its_reason(services: tuple[str, str], language: str) -> None:
    name = "trainingJobs/00000000-0000-7000-8000-000000000000"
    done = ran(language, "watch-job", services[0], name)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("NOT_FOUND (TRAINING_JOB_NOT_FOUND): ")
    assert name in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("language", COMMANDS)
def test_a_server_that_is_away_and_a_missing_argument_are_one_line(language: str) -> None:
    for call in (["list-traces", "127.0.0.1:1"], ["watch-job", "127.0.0.1:1", "trainingJobs/none"]):
        away = ran(language, *call)
        assert (away.returncode, away.stderr.split(":")[0]) == (1, "UNAVAILABLE")
        assert len(away.stderr.splitlines()) == 1
    usage = ran(language, "list-traces")
    assert (usage.returncode, usage.stderr.split(":")[0]) == (2, "usage")
