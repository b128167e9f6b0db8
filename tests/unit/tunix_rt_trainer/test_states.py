"""States on disk: to the bit, whole or not at all, and passed over when they cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from support.disk import largest_file
from tunix_rt_kit.errors import DomainError
from tunix_rt_trainer.jobs.model import StepMetrics
from tunix_rt_trainer.worker.states import SavedState, StateStore, put_tensors, tensors_of

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
    for step in (3, 6, 9):
        store.write(state(step))
    assert {entry.name for entry in (tmp_path / "states").iterdir()} == {"6", "9"}
    again = Store(tmp_path / "states")
    assert same(again.store.latest(), state(9))
    assert again.logged == []


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
    assert line.startswith("the state of step 6 is passed over") and name in line
    # The damaged one is replaced by that of the attempt that comes to its step.
    again.store.write(state(6))
    assert same(Store(tmp_path).store.latest(), state(6))


def test_the_state_of_another_job_or_of_other_packages_is_passed_over(tmp_path: Path) -> None:
    Store(tmp_path).store.write(state(3))
    other = Store(tmp_path, package_versions={"jax": "2"})
    assert other.store.latest() is None
    assert other.logged == [
        "the state of step 3 is passed over: it was written with another package_versions"
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


def test_tensors_go_out_of_a_module_and_into_another() -> None:
    one, other = (nnx.Linear(3, 2, rngs=nnx.Rngs(seed)) for seed in (0, 1))
    taken = tensors_of(nnx.state(one))
    assert set(taken) == {"kernel", "bias"}
    values = nnx.state(other)
    put_tensors(values, taken)
    nnx.update(other, values)
    assert jnp.array_equal(one.kernel[...], other.kernel[...])
    assert isinstance(other.kernel[...], jax.Array)
    with pytest.raises(ValueError, match="bias"):
        put_tensors(values, {"kernel": taken["kernel"]})
    with pytest.raises(ValueError, match="kernel has shape"):
        put_tensors(values, {"kernel": taken["kernel"].T, "bias": taken["bias"]})
