"""What the service adds to a training step: a job through gRPC, child process and event stream, beside the
same step called in a bare script.

Both run the same steps of the same job (LoRA of rank 16, packed rows, 8 of 256 tokens), in turns. Seconds of
a step are those from one step's end to the next one's, as the client hears of them and as the script sees
them; the first two do not count.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks import data, peers
from benchmarks.options import Options
from tunix_rt import Client, jobs, v1
from tunix_rt.importing import import_traces
from tunix_rt_kit.models.runtime import child_environment
from tunix_rt_kit.models.store import ModelStore
from tunix_rt_local import embedded

BASE_MODEL: Final = "smollm2-135m-instruct"
STEPS: Final = 12
WARMUP: Final = 2
_EXAMPLES: Final = 512
# Characters of a trace that is sure to fit into 256 tokens.
_LONGEST: Final = 500


def run(options: Options) -> dict[str, Any]:
    """Median seconds of a step on either side, and the service's over the script's by turns."""
    steps = WARMUP + (options.count or STEPS)
    with tempfile.TemporaryDirectory(prefix="tunix-rt-bench-") as name:
        folder = Path(name)
        base = options.base_model or ModelStore(folder / "models").ensure(BASE_MODEL).path
        variables = child_environment(folder / "data" / "cache" / "jax")
        served, bare = [], []
        with embedded(folder / "data") as server, Client(server.address) as client:
            dataset = _dataset(client, options)
            for _ in range(options.repeats):
                job, seconds = _job(client, dataset, base, steps)
                served.append(_told("service", seconds))
                task = {"job": str(folder / "data" / "training-jobs" / job), "steps": steps}
                found = peers.ask("benchmarks.training_bare", task, variables)
                bare.append(_told("bare", found["seconds"]))
    ratios = [one / other for one, other in zip(served, bare, strict=True)]
    return {
        "steps": steps - WARMUP,
        "repeats": options.repeats,
        "step_seconds": {"service": round(median(served), 3), "bare": round(median(bare), 3)},
        "service_over_bare": round(median(ratios), 4),
        "each_turn": [round(ratio, 4) for ratio in ratios],
    }


def _told(side: str, seconds: Sequence[float]) -> float:
    found = sum(seconds) / len(seconds)
    print(f"training-service  {side}: {found:.3f} s a step", file=sys.stderr, flush=True)
    return found


def _dataset(client: Client, options: Options) -> str:
    traces = data.traces(replace(options, count=None), _EXAMPLES)
    import_traces(client, [trace for trace in traces if _characters(trace) <= _LONGEST])
    spec = v1.DatasetSpec(
        dataset_id="benchmark",
        splits=[v1.SplitFraction(split="train", fraction=1.0)],
        chat_template=v1.ChatTemplate(builtin="chatml"),
    )
    return jobs.wait_for_dataset(client, client.exporter.create_dataset(spec).name).name


def _characters(trace: v1.Trace) -> int:
    return len(trace.prompt) + sum(len(step.content) for step in trace.steps) + len(trace.final_answer)


def _job(client: Client, dataset: str, base: Path, steps: int) -> tuple[str, list[float]]:
    """The id of a finished job, and the seconds of its steps as its watcher hears of them."""
    spec = v1.TrainingSpec(
        base_model=str(base.absolute()),
        dataset=dataset,
        lora=v1.LoraConfig(rank=16),
        max_steps=steps,
        rows_per_batch=8,
        max_length=256,
        packing=True,
    )
    job = client.trainer.create_training_job(spec)
    ends: list[float] = []

    def hear(event: v1.WatchTrainingJobResponse) -> None:
        if event.WhichOneof("part") == "metrics":
            ends.append(time.monotonic())

    jobs.wait_for_training_job(client, job.name, hear)
    return job.name.rpartition("/")[2], seconds_of(ends)


def seconds_of(ends: Sequence[float]) -> list[float]:
    """Seconds of the steps that count, of when each of all steps ended."""
    return [two - one for one, two in pairwise(ends[WARMUP - 1 :])]
