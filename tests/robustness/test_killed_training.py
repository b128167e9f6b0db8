"""Training whose server, child or both are killed at random moments; ``--kills`` goes further."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from support.timing import eventually
from support.tiny_model import ONE_LAYER, make_tiny_model
from support.trainer_process import TrainerProcess
from support.training import exporting, rows
from tunix_rt import v1

pytestmark = pytest.mark.slow


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    number: int = request.config.getoption("--kills")
    return number


def moments(kills: int, steps: int, chosen: random.Random) -> list[int]:
    """At which step to kill, or 0 for soon after a child has started."""
    early = kills // 3
    at_steps = sorted(chosen.sample(range(1, steps), kills - early))
    before = set(chosen.sample(range(len(at_steps)), early))
    return [at for index, step in enumerate(at_steps) for at in ([0, step] if index in before else [step])]


def test_a_job_ends_in_the_same_bytes_however_often_server_and_child_are_killed(
    tmp_path: Path, kills: int
) -> None:
    chosen, steps = random.Random(kills), 12 + kills
    make_tiny_model(tmp_path / "models" / "tiny", config=ONE_LAYER)
    spec = {
        "max_steps": steps,
        # Steps that take long enough to be hit.
        "rows_per_batch": 60,
        "max_length": 128,
        "packing": False,
        "gradient_accumulation_steps": 2,
        "checkpoint_interval_steps": 2,
        "validation_interval_steps": 7,
    }
    with exporting(tmp_path / "artifacts") as (exporter, address):
        exporter.add(train=rows(60), validation=rows(8, start=60))
        with TrainerProcess(tmp_path, address) as trainer:
            whole = trainer.done(trainer.create(**spec))
            job = trainer.create(**spec)
            child, killed = trainer.child(job), {"server": 0, "child": 0, "both": 0}
            for step in moments(kills, steps, chosen):
                eventually(
                    lambda step=step: child.pid is not None and child.step >= step,  # type: ignore[misc]
                    f"step {step} was not reached",
                )
                time.sleep(chosen.uniform(0, 0.1 if step else 5.0))
                target = chosen.choice(sorted(killed))
                if target != "server":
                    eventually(child.kill, "there was no child to kill")
                if target != "child":
                    trainer.kill()
                    # The child goes on meanwhile, and is not spared.
                    trainer.start(wait=False)
                killed[target] += 1
            job = trainer.done(job)
            assert sum(killed.values()) == kills
            assert job.attempt_count >= 1 + killed["child"] + killed["both"]
            one, other = trainer.checkpoint(whole), trainer.checkpoint(job)
            assert (one.step, one.digest) == (other.step, other.digest)
            assert files(one) == files(other)
            assert one.manifest.data_order_digest == other.manifest.data_order_digest
            assert [step for step, _ in losses(trainer, whole)] == list(range(1, steps + 1))
            # A step that was taken again measured the same again.
            assert dict(losses(trainer, job)) == dict(losses(trainer, whole))
            assert set(losses(trainer, job)) == set(losses(trainer, whole))


def files(checkpoint: v1.Checkpoint) -> dict[str, str]:
    return {file.path: file.digest for file in checkpoint.files}


def losses(trainer: TrainerProcess, job: v1.TrainingJob) -> list[tuple[int, float]]:
    events = trainer.stub.WatchTrainingJob(v1.WatchTrainingJobRequest(name=job.name))
    return [(event.metrics.step, event.metrics.loss) for event in events if event.HasField("metrics")]
