"""Several devices, which a CPU acts out in a process of its own, and memory that runs out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.server_process import environment
from support.tiny_model import ONE_LAYER, make_tiny_model
from tunix_rt_kit.errors import DomainError
from tunix_rt_trainer.jobs.model import MeshShape
from tunix_rt_trainer.worker.network import make_mesh

_TRAIN = """
import json, sys
from pathlib import Path

import jax

from support.job_folder import JobFolder, Killed
from tunix_rt_kit.errors import DomainError
from tunix_rt_trainer.jobs.model import MeshShape

root = Path(sys.argv[1])


def trained(name, kill_at=0, **spec):
    folder = JobFolder(root / name, root / "models", max_steps=3, **spec)

    def before(kind, fields):
        if kind == "metrics" and fields["step"] == kill_at:
            raise Killed

    try:
        folder.train(before)
    except Killed:
        folder.next_attempt()
        folder.train()
    return folder


def losses(folder):
    return {event["step"]: event["loss"] for event in folder.events("metrics")}


# What one device learns is near what four do, and need not be compiled as users do.
jax.config.update("jax_disable_most_optimizations", True)
one = trained("one", validation=False)
jax.config.update("jax_disable_most_optimizations", False)
jax.clear_caches()
spread = {"mesh": MeshShape(fsdp=2, tp=2), "gradient_accumulation_steps": 2}
whole = trained("four", **spread)
killed = trained("killed", kill_at=3, checkpoint_interval_steps=2, **spread)
try:
    trained("tp", base_model="odd", mesh=MeshShape(fsdp=1, tp=2))
    refused = ""
except DomainError as error:
    refused = f"{error.reason}: {error}"
print(json.dumps({
    "one": losses(one),
    "four": losses(whole),
    "resumed": [event["step"] for event in killed.events("resumed")],
    "same": killed.contents()["adapter_model.safetensors"] == whole.contents()["adapter_model.safetensors"],
    "mesh": dict(whole.manifest().mesh),
    "refused": refused,
}))
"""


def in_a_process(script: str, *arguments: str, **variables: str) -> Any:
    """What a script printed as its last line."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=environment() | variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.usefixtures("optimized_processes")
def test_a_job_on_four_devices_learns_what_it_learns_on_one_and_goes_on_to_the_bit(tmp_path: Path) -> None:
    # As many rows of embeddings as two devices can share.
    make_tiny_model(tmp_path / "models" / "tiny", config=ONE_LAYER | {"vocab_size": 260})
    make_tiny_model(tmp_path / "models" / "odd", config=ONE_LAYER)
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    told = in_a_process(_TRAIN, str(tmp_path), XLA_FLAGS=flags, JAX_PLATFORMS="cpu")
    assert told["mesh"] == {"fsdp": 2, "tp": 2}
    assert told["four"] == pytest.approx(told["one"], rel=1e-5)
    assert told["one"]["3"] < told["one"]["1"]
    assert (told["resumed"], told["same"]) == ([2], True)
    assert told["refused"].startswith("MESH_INVALID: spec.mesh: fsdp 1 x tp 2 does not divide the model")


def test_a_mesh_of_more_devices_than_there_are_is_refused_by_number() -> None:
    with pytest.raises(DomainError) as caught:
        make_mesh(MeshShape(fsdp=64, tp=32))
    assert (caught.value.code, caught.value.reason) == ("FAILED_PRECONDITION", "MESH_INVALID")
    assert "fsdp 64 x tp 32 takes 2048 devices; this host has" in caught.value.message


_EXHAUST = """
import json, resource, sys
from pathlib import Path
from support.job_folder import JobFolder
from tunix_rt_kit.errors import DomainError

root = Path(sys.argv[1])
spec = {"rows_per_batch": 40, "max_length": 1024, "packing": False, "remat": "none", "max_steps": 1}
folder = JobFolder(root / "job", root / "models", **spec)
# Room for the program and the model, and for less than a tenth of the attention of such a batch.
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (3 << 29), resource.RLIM_INFINITY))
try:
    folder.train()
    told = {}
except DomainError as error:
    told = {"code": error.code, "reason": error.reason, "message": error.message}
print(json.dumps(told))
"""


@pytest.mark.slow
def test_a_batch_beyond_the_memory_says_what_takes_less(tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "models" / "tiny", config=ONE_LAYER)
    told = in_a_process(_EXHAUST, str(tmp_path), JAX_PLATFORMS="cpu")
    assert (told["code"], told["reason"]) == ("RESOURCE_EXHAUSTED", "OUT_OF_MEMORY")
    assert told["message"].startswith("40 rows of 1024 tokens at a time do not fit")
    for advice in ("rows_per_batch", "gradient_accumulation_steps", 'remat "full"', "max_length"):
        assert advice in told["message"]
