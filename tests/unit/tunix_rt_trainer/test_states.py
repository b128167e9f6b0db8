"""States on disk: to the bit, whole or not at all, and passed over when they cannot be used."""

from __future__ import annotations

import json
import re
import resource
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from support.disk import largest_file
from support.job_folder import SPEC, JobFolder
from support.training import CHATML
from tunix_rt_kit.canonical import canonical_json, digest_bytes
from tunix_rt_kit.errors import DomainError
from tunix_rt_kit.jobs.child import JobDir
from tunix_rt_kit.jobs.child_jobs import event_fields
from tunix_rt_kit.models.decoder import Decoder
from tunix_rt_kit.models.export import Conversation
from tunix_rt_trainer.checkpoints.model import TrainingManifest
from tunix_rt_trainer.jobs.model import StepMetrics
from tunix_rt_trainer.worker import states
from tunix_rt_trainer.worker.reporter import Ledger, Reporter
from tunix_rt_trainer.worker.states import (
    JobKeeper,
    SavedState,
    StateStore,
    identity,
    put_tensors,
    tensors_of,
)

IDENTITY = {"spec": {"seed": "1"}, "package_versions": {"jax": "1"}}


def metrics(step: int, loss: float = 0.1) -> StepMetrics:
    return StepMetrics(
        step=step,
        loss=loss,
        learning_rate=1e-3,
        grad_norm=1.0,
        supervised_tokens=10,
        tokens=20,
        tokens_per_second=1.5,
        step_duration_s=0.5,
        eta_s=0.0,
        validation_loss=None if step % 2 else loss / 3,
    )


def state(step: int, *, size: int = 8) -> SavedState:
    random = np.random.default_rng(step)
    return SavedState(
        history=tuple(metrics(number, 1 / number) for number in range(1, step + 1)),
        trained={"a/b": random.standard_normal((size, 3), np.float32)},
        optimizer={"count": np.asarray(step, np.int32), "mu/a/b": random.standard_normal((size, 3))},
    )


def same(one: SavedState | None, other: SavedState) -> bool:
    assert one is not None
    kinds = ("trained", "optimizer")
    return one.history == other.history and all(
        {name: (value.dtype, value.shape, value.tobytes()) for name, value in getattr(one, kind).items()}
        == {name: (value.dtype, value.shape, value.tobytes()) for name, value in getattr(other, kind).items()}
        for kind in kinds
    )


class Store:
    """A store, and what it logged."""

    def __init__(self, root: Path, **changed: Any) -> None:
        self.logged: list[str] = []
        self.store = StateStore(root, IDENTITY | changed, self.logged.append)


def test_a_state_comes_back_to_the_bit_and_two_are_kept(tmp_path: Path) -> None:
    store = Store(tmp_path / "states").store
    assert store.latest() is None
    # Not in the order of their names.
    for step in (6, 9, 12):
        store.write(state(step))
    assert {entry.name for entry in (tmp_path / "states").iterdir()} == {"9", "12"}
    again = Store(tmp_path / "states")
    assert same(again.store.latest(), state(12))
    assert again.logged == []


def test_the_files_of_a_state_are_those_that_earlier_attempts_left(tmp_path: Path) -> None:
    Store(tmp_path).store.write(state(1))
    files = {file.name: file.read_bytes() for file in (tmp_path / "1").iterdir()}
    told = json.loads(files.pop("state.json"))
    assert told == {
        "format": 2,
        "step": 1,
        "identity": IDENTITY,
        "files": {name: digest_bytes(content) for name, content in files.items()},
    }
    assert set(files) == {"history.json", "trained.safetensors", "optimizer.safetensors"}
    assert "validation_loss" not in json.loads(files["history.json"])[0]


def test_a_state_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    store = Store(tmp_path).store
    store.write(state(3))
    begun = (tmp_path / "3").stat().st_ino
    store.write(state(3))
    assert (tmp_path / "3").stat().st_ino == begun
    again = Store(tmp_path).store
    again.latest()
    again.write(state(3))
    assert (tmp_path / "3").stat().st_ino == begun


def test_a_state_of_another_format_is_passed_over(tmp_path: Path) -> None:
    Store(tmp_path).store.write(state(3))
    path = tmp_path / "3" / "state.json"
    path.write_bytes(path.read_bytes().replace(b'"format":2', b'"format":1'))
    again = Store(tmp_path)
    assert again.store.latest() is None
    assert again.logged == ["the state of step 3 is passed over: it was written with another format"]


@given(
    arrays.arrays(
        st.sampled_from([np.float32, np.int32, np.uint8]),
        arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    )
)
def test_any_tensor_comes_back(
    tmp_path_factory: pytest.TempPathFactory, tensor: np.ndarray[Any, Any]
) -> None:
    root = tmp_path_factory.mktemp("states")
    written = SavedState(history=(metrics(1),), trained={"x": tensor}, optimizer={"y": tensor})
    Store(root).store.write(written)
    assert same(Store(root).store.latest(), written)


@pytest.mark.parametrize("name", ["trained.safetensors", "optimizer.safetensors", "history.json"])
@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_a_damaged_state_is_passed_over_for_the_one_before(tmp_path: Path, name: str, damage: str) -> None:
    store = Store(tmp_path).store
    store.write(state(3))
    store.write(state(6))
    path = tmp_path / "6" / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    if damage == "changed":
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[:-1])
    else:
        path.unlink()
    again = Store(tmp_path)
    assert same(again.store.latest(), state(3))
    (line,) = again.logged
    problem = f"{name} is damaged" if damage != "gone" else "it cannot be read: FileNotFoundError: "
    assert line.startswith(f"the state of step 6 is passed over: {problem}") and name in line
    # The damaged one is replaced by that of the attempt that comes to its step.
    again.store.write(state(6))
    assert same(Store(tmp_path).store.latest(), state(6))


def test_the_state_of_another_job_or_of_other_packages_is_passed_over(tmp_path: Path) -> None:
    Store(tmp_path).store.write(state(3))
    other = Store(tmp_path, package_versions={"jax": "2"}, device="another")
    assert other.store.latest() is None
    assert other.logged == [
        "the state of step 3 is passed over: it was written with another device, package_versions"
    ]
    other.store.write(state(2))
    assert {entry.name for entry in tmp_path.iterdir()} == {"2"}


def test_what_a_killed_writer_left_is_no_state(tmp_path: Path) -> None:
    (tmp_path / "9.partial").mkdir()
    (tmp_path / "7").mkdir()
    store = Store(tmp_path)
    assert store.store.latest() is None
    assert len(store.logged) == 1
    store.store.write(state(3))
    assert {entry.name for entry in tmp_path.iterdir()} == {"3"}


def test_what_cannot_be_removed_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "no folder").touch()
    Store(tmp_path).store.write(state(3))
    assert {entry.name for entry in tmp_path.iterdir()} == {"3", "no folder"}


def test_a_full_disk_leaves_the_state_before_and_names_the_folder(tmp_path: Path) -> None:
    store = Store(tmp_path).store
    store.write(state(3))
    with largest_file(200_000), pytest.raises(DomainError) as caught:
        store.write(state(6, size=50_000))
    assert (caught.value.code, caught.value.reason) == ("RESOURCE_EXHAUSTED", "STORAGE_FULL")
    assert str(tmp_path / "6") in caught.value.message
    assert {entry.name for entry in tmp_path.iterdir()} == {"3"}
    assert same(Store(tmp_path).store.latest(), state(3))
    store.write(state(6))
    assert same(Store(tmp_path).store.latest(), state(6))


class Pair(nnx.Module):
    """Two tensors by their paths."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.inner = nnx.Dict(kernel=nnx.Param(jnp.asarray(random.standard_normal((3, 2), np.float32))))
        self.bias = nnx.Param(jnp.asarray(random.standard_normal(2, np.float32)))


def test_tensors_go_out_of_a_module_and_into_another() -> None:
    one, other = Pair(0), Pair(1)
    taken = tensors_of(nnx.state(one))
    assert set(taken) == {"inner/kernel", "bias"}
    assert all(tensor.flags.c_contiguous for tensor in taken.values())
    values = nnx.state(other)
    put_tensors(values, taken)
    nnx.update(other, values)
    assert np.array_equal(one.inner.kernel[...], other.inner.kernel[...])
    kernel = other.inner.kernel[...]
    assert isinstance(kernel, jax.Array) and kernel.sharding == one.inner.kernel[...].sharding
    # A step takes its memory for the result: it is not that of what was read.
    assert not np.shares_memory(np.asarray(kernel), taken["inner/kernel"])
    with pytest.raises(ValueError, match=r"^the state and the model differ in bias$"):
        put_tensors(values, {"inner/kernel": taken["inner/kernel"]})
    with pytest.raises(ValueError, match=r"^inner/kernel has shape \(2, 3\), not \(3, 2\)$"):
        put_tensors(values, {**taken, "inner/kernel": taken["inner/kernel"].T})
    with pytest.raises(ValueError, match="inner/kernel has shape"):
        put_tensors(values, {**taken, "inner/kernel": taken["inner/kernel"].astype(np.float64)})


# What a job leaves at a step.


class Source:
    """Names the examples of each batch."""

    def example_ids(self, step: int) -> list[list[str]]:
        return [[f"example {step}"]]


MANIFEST = TrainingManifest(
    training_job="trainingJobs/a",
    spec=SPEC,
    dataset_digest="sha256:d",
    train_file_digest="sha256:t",
    base_weights_digest="sha256:w",
    tokenizer_digest="sha256:k",
    base_config_digest="sha256:c",
    chat_template_digest="sha256:m",
    data_order_digest="",
    package_versions={"jax": "1"},
    runtime_settings={},
    device="cpu",
    mesh={"data": 1},
    code_revision="1",
)


def keeper_of(folder: JobFolder, base: Path) -> JobKeeper:
    job = JobDir(folder.path)
    ledger = Ledger(folder.path / "ledger.jsonl", Source(), 2)  # type: ignore[arg-type]
    states = StateStore(folder.path / "states", IDENTITY, print)
    return JobKeeper(folder.worker, MANIFEST, ledger, states, base, folder.path, Reporter(job))


def told_of(folder: JobFolder) -> list[dict[str, Any]]:
    events = (folder.path / "events.jsonl").read_text().splitlines()
    return [event_fields(event) | {"kind": event["kind"]} for event in map(json.loads, events)]


def save_adapter(network: Any, folder: Path, *, alpha: float, base_model: str) -> None:
    (folder / "adapter.safetensors").write_text(f"{network} {alpha} {base_model}")


def save_model(network: Any, out: Path, *, base: Path, conversation: Conversation) -> None:
    out.mkdir()
    (out / "model.safetensors").write_text(f"{network} {base}")
    (out / "chat_template.jinja").write_text(conversation.chat_template)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_checkpoint_holds_weights_metrics_ledger_and_manifest(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "save_adapter", save_adapter)
    monkeypatch.setattr(states, "save_model", save_model)
    folder = JobFolder(tmp_path, tmp_path, **({} if method == "lora" else {"method": "full", "lora": None}))
    keeper, network = keeper_of(folder, tmp_path / "base"), cast("Decoder", "the network")
    keeper.checkpoint(network, [metrics(1), metrics(2)], best=True)
    stage, log, told = told_of(folder)
    assert (stage["kind"], stage["stage"]) == ("stage", "saving")
    assert told == {"kind": "checkpoint", "step": 2, "folder": "checkpoints/2", "best": True}
    text, peak = re.split(r" peaked at (.*) GB$", log["line"])[:2]
    assert text == "wrote the checkpoint of step 2; the worker's memory"
    now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    assert now - 0.2 <= float(peak) <= now + 0.1
    contents = folder.contents()
    ledger = b"".join(b'{"example_ids":[["example %d"]],"step":%d}\n' % (n, n + 1) for n in range(2))
    assert contents.pop("ledger.jsonl") == ledger
    # Without what the clock says.
    assert contents.pop("metrics.jsonl").splitlines(keepends=True) == [
        b'{"epoch":0,"grad_norm":1,"learning_rate":0.001,"loss":0.1,"step":1,"supervised_tokens":10,"tokens":20}\n',
        b'{"epoch":0,"grad_norm":1,"learning_rate":0.001,"loss":0.1,"step":2,"supervised_tokens":10,"tokens":20,'
        b'"validation_loss":0.03333333333333333}\n',
    ]
    order = digest_bytes(b'[["example 0"]]\n[["example 1"]]\n')
    expected = MANIFEST.model_copy(update={"data_order_digest": order})
    assert contents.pop("manifest.json") == canonical_json(expected.model_dump(mode="json"))
    if method == "lora":
        assert contents == {"adapter.safetensors": b"the network 8.0 tiny"}
    else:
        assert contents == {
            "model.safetensors": f"the network {tmp_path / 'base'}".encode(),
            "chat_template.jinja": CHATML.jinja_source().encode(),
        }


def test_a_checkpoint_that_is_there_is_told_of_again(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path, tmp_path)
    keeper = keeper_of(folder, tmp_path)
    (tmp_path / "checkpoints" / "6").mkdir(parents=True)
    for step in (3, 6):
        keeper.found(step, best=True)
    assert told_of(folder) == [{"kind": "checkpoint", "step": 6, "folder": "checkpoints/6", "best": True}]
    keeper.state(state(6))
    assert same(Store(tmp_path / "states").store.latest(), state(6))


def test_what_can_change_a_result_keeps_a_job_from_resuming(tmp_path: Path) -> None:
    worker = JobFolder(tmp_path, tmp_path).worker
    validation = worker.inputs.validation
    assert validation is not None
    known = identity(MANIFEST, worker)
    free = {"training_job", "data_order_digest", "code_revision"}
    facts = MANIFEST.model_dump(mode="json")
    assert known == {
        **{name: value for name, value in facts.items() if name not in free},
        "validation_file_digest": validation.digest,
    }
    without = worker.model_copy(update={"inputs": worker.inputs.model_copy(update={"validation": None})})
    assert identity(MANIFEST, without) == {**known, "validation_file_digest": ""}
