"""The gradient of a batch in parts is that of the whole batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from support.tiny_model import ONE_LAYER, make_tiny_model
from support.training_specs import SPEC
from tunix_rt_kit.loss_mask import TokenExample
from tunix_rt_kit.models.pretrained import make_mesh
from tunix_rt_trainer.jobs.model import LoraConfig
from tunix_rt_trainer.worker.batches import Batch, BatchPlan, BatchSource
from tunix_rt_trainer.worker.network import build_network
from tunix_rt_trainer.worker.step import mean_gradient

LENGTH = 24
LORA = LoraConfig(rank=4, alpha=8.0, target_modules=("q_proj", "down_proj"))


def examples(count: int) -> list[TokenExample]:
    """Rows of very different shares of tokens to learn."""
    random = np.random.default_rng(3)
    made = []
    for number in range(count):
        ids = tuple(int(token) for token in random.integers(3, 259, 20))
        made.append(TokenExample.answering(f"e{number}", ids, 19 if number % 2 else 4))
    return made


def batch(parts: int) -> Batch:
    rows = examples(8)
    plan = BatchPlan(
        [row.id for row in rows],
        [len(row.ids) for row in rows],
        row_length=LENGTH,
        rows_per_batch=8,
        packing=False,
        seed=0,
        dataset_digest="sha256:d",
    )
    return BatchSource(rows, plan, row_length=LENGTH, pad_id=0, steps=1, microbatches=parts).batch(0)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> nnx.Module:
    folder = make_tiny_model(tmp_path_factory.mktemp("models") / "tiny", config=ONE_LAYER)
    made = build_network(folder, SPEC.model_copy(update={"lora": LORA}), make_mesh())
    # B is zero at first, which would hide the gradient of A.
    state = nnx.state(made, nnx.LoRAParam)
    nnx.update(made, jax.tree.map(lambda weight: weight + 0.02, state))
    return made


run = nnx.jit(mean_gradient, static_argnums=2)


def computed(network: nnx.Module, arrays: Mapping[str, Any], parts: int) -> tuple[float, list[Any]]:
    with make_mesh():
        mean, gradient = run(network, arrays, parts)
    return float(mean), [np.asarray(leaf) for leaf in jax.tree.leaves(gradient)]


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_parts_give_the_step_of_the_whole_batch(network: nnx.Module, parts: int) -> None:
    whole, split = batch(1), batch(parts)
    assert split.example_ids == whole.example_ids
    assert split.arrays["tokens"].shape == (parts, 8 // parts, LENGTH)
    expected_loss, expected = computed(network, whole.arrays, 1)
    loss, gradient = computed(network, split.arrays, parts)
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert len(gradient) == len(expected) == 2 * 2
    for one, other in zip(gradient, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6)
        assert one.dtype == np.float32


def test_a_mean_of_the_parts_means_would_be_another_step(network: nnx.Module) -> None:
    split = batch(8)
    one_by_one = [
        computed(network, {name: value[part] for name, value in split.arrays.items()}, 1) for part in range(8)
    ]
    loss, gradient = computed(network, split.arrays, 8)
    assert abs(np.mean([mean for mean, _ in one_by_one]) - loss) > 1e-2
    mean_of_means = [
        np.mean(leaves, axis=0) for leaves in zip(*(made for _, made in one_by_one), strict=True)
    ]
    assert max(np.abs(one - other).max() for one, other in zip(mean_of_means, gradient, strict=True)) > 1e-3


def test_a_batch_without_a_token_to_learn_gives_no_step_and_no_nan(network: nnx.Module) -> None:
    arrays = dict(batch(2).arrays)
    arrays["weights"] = jnp.zeros_like(arrays["weights"])
    loss, gradient = computed(network, arrays, 2)
    assert loss == 0.0
    assert not any(leaf.any() for leaf in gradient)
