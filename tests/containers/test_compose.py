"""The images and docker-compose.yml: a loop on a real model from the host, twice, with restarts in between.

Needs a Docker engine and docker-compose; ``make test-containers`` runs it.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tunix_rt import Client

# Building the images downloads gigabytes.
pytestmark = pytest.mark.timeout(3600)

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "tunix-rt-test"
REVISION = "containertest"
PORTS = {"trace-store": 50051, "exporter": 50052, "trainer": 50053, "evaluator": 50054}
JOBS = ("dataset", "eval set", "base evaluation", "training", "candidate evaluation")
LOOP = """
name: containers
traces: {generate: {count: 32, seed: 5}}
dataset: {id: containers, splits: {train: 0.75, test: 0.25}, seed: 5, chat_template: chatml}
eval_set: {split: test, limit: 4, grader: numeric}
training:
  base_model: smollm2-135m-instruct
  lora: {rank: 4}
  max_steps: 2
  rows_per_batch: 2
  max_length: 128
evaluation: {max_new_tokens: 8, batch_size: 4}
output_dir: out
"""


class Compose:
    """The project's deployment under a name, ports, image tag and password of the test's own."""

    def __init__(self) -> None:
        standalone = shutil.which("docker-compose")
        self._program = [standalone] if standalone else ["docker", "compose"]
        self.ports = _free_ports()
        # No name of a port, image or password may come from the shell of a person who runs a deployment.
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith("TUNIX_RT_")}
        self._environment |= {
            f"TUNIX_RT_{service.upper().replace('-', '_')}_PORT": str(port)
            for service, port in self.ports.items()
        }
        self._environment |= {
            "TUNIX_RT_TAG": "test",
            "TUNIX_RT_POSTGRES_PASSWORD": "of0the0test",
            "TUNIX_RT_REVISION": REVISION,
        }

    def __call__(self, *arguments: str) -> str:
        """Run docker-compose with these arguments; returns what it printed."""
        return _run(
            [*self._program, "--project-directory", str(ROOT), "--file", str(ROOT / "docker-compose.yml"),
             "--project-name", PROJECT, *arguments],
            environment=self._environment, seconds=3000,
        )  # fmt: skip

    @property
    def server(self) -> str:
        """The four services as ``--server`` takes them."""
        return ",".join(f"{service}=localhost:{port}" for service, port in self.ports.items())

    def container(self, service: str) -> dict[str, Any]:
        """What Docker knows of the container of ``service``."""
        (found,) = json.loads(_run(["docker", "inspect", self("ps", "-q", service).strip()]))
        return dict(found)

    def wait_until_healthy(self, seconds: float = 180.0) -> None:
        """Return when all five containers are healthy; fail when one is not in time."""
        end = time.monotonic() + seconds
        for service in ("postgres", *PORTS):
            while (state := self.container(service)["State"])["Health"]["Status"] != "healthy":
                assert time.monotonic() < end, f"{service} is {state}\n{self('logs', '--tail=40', service)}"
                time.sleep(0.5)


class Made(NamedTuple):
    """What a run of the loop left on the host."""

    summary: dict[str, Any]
    folder: Path
    done_before: set[str]
    """The stages whose result was there already."""


@pytest.fixture(scope="module")
def compose() -> Iterator[Compose]:
    """All services, up and healthy; nothing but the images is left afterwards."""
    deployment = Compose()
    with ExitStack() as stack:
        deployment("down", "--volumes", "--remove-orphans")
        stack.callback(deployment, "down", "--volumes", "--remove-orphans")
        begun = time.monotonic()
        deployment("build")
        built = time.monotonic()
        deployment("up", "--detach")
        deployment.wait_until_healthy()
        up = time.monotonic()
        print(f"\nimages built in {built - begun:.0f} s, services healthy after {up - built:.0f} s")
        yield deployment


@pytest.fixture(scope="module")
def first(compose: Compose, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The loop's first run; the services fetch the base model in it."""
    return run_loop(compose, tmp_path_factory.mktemp("first"))


@pytest.fixture
def client(compose: Compose) -> Iterator[Client]:
    with Client(compose.server) as opened:
        yield opened


def run_loop(compose: Compose, folder: Path) -> Made:
    """Run the loop by the command line in ``folder``."""
    (folder / "loop.yaml").write_text(LOOP)
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tunix_rt.cli", "loop", "run", "loop.yaml", "--server", compose.server],
        cwd=folder, env=os.environ | {"NO_COLOR": "1"}, capture_output=True, text=True, timeout=1500,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{compose('logs', '--tail=60')}"
    print(f"\nloop ran in {time.monotonic() - begun:.0f} s\n{done.stderr}")
    known = {line.partition(":")[0] for line in done.stderr.splitlines() if line.endswith("was done before")}
    return Made(json.loads((folder / "out" / "loop.json").read_text()), folder / "out", known)


def kept(client: Client) -> dict[str, list[str]]:
    """The names of all that the services keep."""
    return {
        "traces": sorted(trace.name for trace in client.trace_store.list_traces()),
        "datasets": sorted(dataset.name for dataset in client.exporter.list_datasets()),
        "training jobs": sorted(job.name for job in client.trainer.list_training_jobs()),
        "eval sets": sorted(eval_set.name for eval_set in client.evaluator.list_eval_sets()),
        "evaluations": sorted(evaluation.name for evaluation in client.evaluator.list_evaluations()),
    }


def test_a_loop_from_the_host_leaves_a_report_that_names_all_it_comes_from(
    first: Made, client: Client
) -> None:
    made = first.summary
    assert not first.done_before
    assert made["traces"]["created"] == 32
    assert sum(made["dataset"]["rows"].values()) == 32
    assert made["eval_set"]["item_count"] == 4

    checkpoint = client.trainer.get_checkpoint(made["checkpoint"]["name"])
    manifest = checkpoint.manifest
    assert (checkpoint.step, checkpoint.digest) == (2, made["checkpoint"]["digest"])
    assert manifest.training_job == made["training_job"]["name"]
    assert manifest.dataset_digest == made["dataset"]["digest"]
    assert manifest.code_revision.endswith(f"+{REVISION}")
    stored = client.trainer.read_checkpoint_file(checkpoint.name, checkpoint.manifest_file.path)
    assert f"sha256:{sha256(stored).hexdigest()}" == checkpoint.manifest_file.digest

    report = json.loads((first.folder / "report.json").read_text())
    assert (report["name"], report["digest"]) == (made["comparison"]["name"], made["comparison"]["digest"])
    before, after = (
        client.evaluator.get_evaluation(made[name]["name"])
        for name in ("evaluation_before", "evaluation_after")
    )
    assert before.manifest.eval_set_digest == after.manifest.eval_set_digest == made["eval_set"]["digest"]
    assert before.spec.base_model == "smollm2-135m-instruct"
    assert after.spec.checkpoint == checkpoint.name
    assert after.manifest.checkpoint_digest == checkpoint.digest
    assert after.manifest.training_manifest_digest == checkpoint.manifest_file.digest
    assert after.manifest.dataset_digest == made["dataset"]["digest"]
    assert after.manifest.base_weights_digest == before.manifest.base_weights_digest
    assert before.manifest.base_weights_digest == manifest.base_weights_digest
    answers = list(client.evaluator.list_evaluation_items(after.name))
    assert len(answers) == 4
    assert all(answer.output_tokens for answer in answers)


def test_a_second_run_repeats_nothing(first: Made, compose: Compose, client: Client, tmp_path: Path) -> None:
    before = kept(client)
    again = run_loop(compose, tmp_path)
    assert again.done_before >= set(JOBS)
    assert again.summary == first.summary
    assert kept(client) == before
    assert {name: len(found) for name, found in before.items()} == {
        "traces": 32, "datasets": 1, "training jobs": 1, "eval sets": 1, "evaluations": 2,
    }  # fmt: skip


def test_restarted_and_replaced_containers_keep_their_state(
    first: Made, compose: Compose, client: Client, tmp_path: Path
) -> None:
    before = kept(client)
    old = {service: compose.container(service)["Id"] for service in PORTS}
    compose("restart", "trace-store", "evaluator", "postgres")
    compose("rm", "--stop", "--force", "exporter", "trainer")
    compose("up", "--detach")
    compose.wait_until_healthy()
    new = {service: compose.container(service)["Id"] for service in PORTS}
    assert {service for service in PORTS if new[service] != old[service]} == {"exporter", "trainer"}

    assert kept(client) == before
    again = run_loop(compose, tmp_path)
    assert again.done_before >= set(JOBS)
    for name in ("report.json", "report.md", "report.html", "loop.json"):
        assert (again.folder / name).read_bytes() == (first.folder / name).read_bytes(), name
    base = {model.base_model: model.available for model in client.trainer.list_base_models()}
    assert base["smollm2-135m-instruct"]


def test_the_services_are_the_hosts_alone_and_run_as_an_ordinary_user(compose: Compose) -> None:
    for service, port in PORTS.items():
        container = compose.container(service)
        assert container["NetworkSettings"]["Ports"] == {
            f"{port}/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(compose.ports[service])}]
        }
        assert compose("exec", "-T", service, "id", "-u").strip() != "0"
    assert not any(compose.container("postgres")["NetworkSettings"]["Ports"].values())


def _free_ports() -> dict[str, int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in PORTS]
        for held in sockets:
            held.bind(("127.0.0.1", 0))
        return dict(zip(PORTS, (int(held.getsockname()[1]) for held in sockets), strict=True))


def _run(command: list[str], *, environment: dict[str, str] | None = None, seconds: float = 60.0) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout
