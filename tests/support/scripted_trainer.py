"""A worker that acts out a training job without a model; the seed of its spec says how it goes.

It reads and writes plain JSON, and its adapter is written by hand: hundreds of tests start it, and NumPy and
the services' models take half a second to import.
"""

from __future__ import annotations

import json
import os
import random
import signal
import struct
import sys
import time
from array import array
from pathlib import Path
from typing import Any

from tunix_rt_kit.canonical import canonical_json, digest_file
from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.jobs.child import JobCancelled, JobDir, run_worker

SUCCEED, WAIT, DEAF, REFUSE, DIE, CRASH, WAIT_ONCE, BUG = range(8)
STEPS = 3
RANK, SCALE = 4096, 0.5
_WIDTH = 64
_LAYERS = 2
Json = dict[str, Any]


def work(job: JobDir) -> None:
    worker = job.spec
    spec = worker["spec"]
    if spec["dtype"] == "auto":
        spec["dtype"] = "float32"
    plan = int(spec["seed"])
    job.emit("attempt", number=worker["attempt"])
    job.emit("stage", stage="preparing data", completed=0, total=0, unit="")
    job.emit("plan", max_steps=STEPS, dtype=spec["dtype"])
    job.emit("log", line=f"attempt {worker['attempt']} of {spec['dataset']}")
    print("about to train", flush=True)
    if plan == REFUSE:
        raise FailedPrecondition("rows are too long", reason="EXAMPLE_TOO_LONG", metadata={"count": "2"})
    job.emit("stage", stage="training", completed=0, total=STEPS, unit="steps")
    if plan == BUG:
        raise RuntimeError("no such luck")
    step(job, 1)
    if plan == DIE:
        os.kill(os.getpid(), signal.SIGKILL)
    if plan == CRASH:
        print("the end is near", flush=True)
        os._exit(7)
    waits = plan in (WAIT, DEAF) or (plan == WAIT_ONCE and worker["attempt"] == 1)
    while waits:
        if job.cancel_requested and plan != DEAF:
            checkpoint(job, worker, 1)
            raise JobCancelled
        time.sleep(0.02)
    for number in range(2, STEPS + 1):
        step(job, number)
    checkpoint(job, worker, STEPS)


def step(job: JobDir, number: int) -> None:
    job.emit(
        "metrics",
        step=number,
        loss=4.0 / number,
        learning_rate=0.001,
        grad_norm=1.0,
        supervised_tokens=10,
        tokens=20,
        tokens_per_second=200.0,
        step_duration_s=0.1,
        eta_s=0.1 * (STEPS - number),
    )
    job.emit("progress", stage="training", completed=number, total=STEPS, unit="steps")


def checkpoint(job: JobDir, worker: Json, number: int) -> None:
    folder = job.path / "checkpoints" / str(number)
    folder.mkdir(parents=True, exist_ok=True)
    spec, inputs = worker["spec"], worker["inputs"]
    write_adapter(folder, spec["base_model"])
    (folder / "metrics.jsonl").write_text('{"loss":4.0,"step":1}\n')
    manifest = {
        "training_job": worker["job_name"],
        "spec": {**spec, "max_steps": STEPS},
        "dataset_digest": inputs["dataset_digest"],
        "train_file_digest": inputs["train"]["digest"],
        "base_weights_digest": digest_file(
            Path(worker["models_dir"]) / spec["base_model"] / "model.safetensors"
        ),
        "tokenizer_digest": "sha256:t",
        "base_config_digest": "sha256:c",
        "chat_template_digest": inputs["chat_template_digest"],
        "data_order_digest": "sha256:o",
        "package_versions": {"jax": "1"},
        "runtime_settings": {"XLA_FLAGS": ""},
        "device": "cpu",
        "mesh": {"fsdp": 1},
        "code_revision": worker["code_revision"],
    }
    (folder / "manifest.json").write_bytes(canonical_json(manifest))
    job.emit("checkpoint", step=number, folder=f"checkpoints/{number}")


def write_adapter(folder: Path, base_model: str) -> None:
    """An adapter in PEFT's layout for query projections, so wide that it is sent in pieces."""
    modules = [f"base_model.model.model.layers.{layer}.self_attn.q_proj" for layer in range(_LAYERS)]
    shapes = {"lora_A": [RANK, _WIDTH], "lora_B": [_WIDTH, RANK]}
    size = RANK * _WIDTH * 4
    names = [(f"{module}.{part}.weight", shape) for module in modules for part, shape in shapes.items()]
    header: Json = {
        name: {"dtype": "F32", "shape": shape, "data_offsets": [number * size, (number + 1) * size]}
        for number, (name, shape) in enumerate(names)
    }
    head = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    head += b" " * (-len(head) % 8)
    noise = random.Random(1)
    some = array("f", (noise.gauss(0.0, 1.0) for _ in range(4_099))).tobytes()
    data = (some * (len(names) * size // len(some) + 1))[: len(names) * size]
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + data)
    config = {
        "base_model_name_or_path": base_model,
        "bias": "none",
        "lora_alpha": RANK * SCALE,
        "peft_type": "LORA",
        "r": RANK,
        "target_modules": ["q_proj"],
        "task_type": "CAUSAL_LM",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))


if __name__ == "__main__":
    sys.exit(run_worker(work))
