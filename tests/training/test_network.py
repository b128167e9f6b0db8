"""The network that is trained, and its loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from support.tiny_model import ONE_LAYER, make_tiny_model
from support.training_specs import SPEC
from tunix_rt_kit.loss_mask import TokenExample
from tunix_rt_kit.models.decoder import Decoder
from tunix_rt_kit.models.pretrained import load_model, logits, make_mesh
from tunix_rt_kit.models.runtime import Dtype
from tunix_rt_trainer.jobs.model import LoraConfig
from tunix_rt_trainer.worker.batches import Batch, BatchPlan, BatchSource
from tunix_rt_trainer.worker.network import build_network, loss

LORA = LoraConfig(rank=4, alpha=8.0, target_modules=("q_proj", "v_proj", "down_proj"))
LENGTH = 24


def example(name: str, prompt: int, response: int) -> TokenExample:
    ids = np.random.default_rng(len(name) + prompt).integers(3, 259, prompt + response)
    return TokenExample.answering(name, tuple(int(token) for token in ids), prompt)


EXAMPLES = [example("a", 5, 4), example("bb", 7, 6), example("ccc", 3, 9), example("dddd", 10, 8)]


def network(folder: Path, *, seed: int = 1, dtype: Dtype = "float32") -> Decoder:
    spec = SPEC.model_copy(update={"lora": LORA, "seed": seed, "dtype": dtype})
    return build_network(folder, spec, make_mesh())


def batch(examples: list[TokenExample], *, packing: bool = True) -> Batch:
    plan = BatchPlan(
        [row.id for row in examples],
        [len(row.ids) for row in examples],
        row_length=LENGTH,
        rows_per_batch=8,
        packing=packing,
        seed=0,
        dataset_digest="sha256:d",
    )
    return BatchSource(examples, plan, row_length=LENGTH, pad_id=0, steps=1).batch(0)


def mean_loss(model: Decoder, given: Batch) -> tuple[float, int]:
    @nnx.jit
    def run(model: Decoder, arrays: dict[str, Any]) -> Any:
        return loss(model, **arrays)

    with make_mesh():
        value, sums = run(model, given.arrays)
    assert float(value) == pytest.approx(float(sums["nll_sum"]) / float(sums["weight_sum"]))
    return float(value), int(sums["weight_sum"])


def expected_loss(folder: Path) -> float:
    """The mean over all response tokens, each example by itself, from the logits of every position."""
    model = load_model(folder, dtype="float32", mesh=make_mesh())
    lengths = [len(row.ids) for row in EXAMPLES]
    tokens = jnp.asarray([[*row.ids, *[0] * (max(lengths) - len(row.ids))] for row in EXAMPLES])
    with make_mesh():
        mask = jnp.arange(max(lengths)) < jnp.asarray(lengths)[:, None]
        of_all = np.asarray(logits(model, tokens, mask), np.float64)
    total, count = 0.0, 0
    for row, scores in zip(EXAMPLES, of_all, strict=True):
        log_probability = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
        for position in range(row.learned[0][0], len(row.ids)):
            total -= log_probability[position - 1, row.ids[position]]
            count += 1
    return total / count


@pytest.mark.parametrize("tied", [True, False])
def test_the_loss_is_the_mean_over_response_tokens_packed_or_not(tmp_path: Path, tied: bool) -> None:
    folder = make_tiny_model(tmp_path / "tiny", config=ONE_LAYER | {"tie_word_embeddings": tied})
    expected = expected_loss(folder)
    model = network(folder)
    packed, unpacked = batch(EXAMPLES), batch(EXAMPLES, packing=False)
    assert packed.arrays["tokens"].shape[0] < unpacked.arrays["tokens"].shape[0]
    for given in (packed, unpacked):
        value, count = mean_loss(model, given)
        assert count == 4 + 6 + 9 + 8
        assert value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_adapter_is_float32_and_alone_gets_gradients(tmp_path: Path, dtype: Dtype) -> None:
    model = network(make_tiny_model(tmp_path / "tiny", config=ONE_LAYER), dtype=dtype)
    assert model.embedder.input_embedding.dtype == jnp.dtype(dtype)
    adapter = jax.tree.leaves(nnx.state(model, nnx.LoRAParam))
    assert len(adapter) == 2 * len(LORA.target_modules)
    assert {leaf.dtype for leaf in adapter} == {jnp.dtype("float32")}
    arrays = batch(EXAMPLES).arrays

    @nnx.jit
    def gradients(model: Decoder) -> Any:
        return nnx.grad(loss, argnums=nnx.DiffState(0, nnx.LoRAParam), has_aux=True)(
            model, *(jnp.asarray(value) for value in arrays.values())
        )[0]

    with make_mesh():
        made = jax.tree.leaves(gradients(model))
    assert len(made) == len(adapter)
    assert {leaf.dtype for leaf in made} == {jnp.dtype("float32")}
    # B starts at zero, so A's gradients are zero and B's are not.
    assert sum(bool(jnp.any(leaf != 0)) for leaf in made) == len(adapter) // 2


def test_the_first_adapter_depends_on_all_bits_of_the_seed(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "tiny", config=ONE_LAYER)

    def weights(seed: int) -> bytes:
        leaves = jax.tree.leaves(nnx.state(network(folder, seed=seed), nnx.LoRAParam))
        return b"".join(np.asarray(leaf).tobytes() for leaf in leaves)

    assert weights(5) == weights(5)
    assert len({weights(seed) for seed in (5, 6, 5 + (1 << 32), 5 + (1 << 63))}) == 4
