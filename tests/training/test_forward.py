"""The forward computations of the trainer against Tunix's own modules, with their gradients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from support.tiny_families import make_variant
from support.tiny_model import ONE_LAYER, make_tiny_model
from tunix_rt_kit.models.export import TARGET_MODULES
from tunix_rt_kit.models.lora import apply_lora
from tunix_rt_kit.models.pretrained import load_model, make_mesh
from tunix_rt_kit.models.runtime import Dtype
from tunix_rt_trainer.jobs.model import Remat
from tunix_rt_trainer.worker.network import Computation, set_computation, supervised_logits

RANK, ALPHA = 4, 12.0
LENGTH = 16
REMATS: tuple[Remat, ...] = ("none", "dots", "full")
PACKED = [[1] * 5 + [2] * 8 + [0] * 3, [1] * 3 + [2] * 4 + [3] * 9, [1] * LENGTH]
PADDED = [[1] * 5 + [0] * 11, [1] * 13 + [0] * 3, [1] * LENGTH]
TUNIX_LAYERS: dict[str, tuple[int, Remat]] = {"qwen3_tied": (1, "full"), "gemma3_scaled": (2, "dots")}
"""Of families without a forward of ours, the layers of a variant (Gemma has two kinds) and what is kept."""


def inputs(rows: list[list[int]]) -> tuple[jax.Array, ...]:
    """Tokens, positions and mask of rows of segment numbers, and indices of tokens in any order."""
    segments = np.asarray(rows)
    random = np.random.default_rng(0)
    starts = np.diff(segments, axis=1, prepend=-1) != 0
    at = np.arange(LENGTH)
    positions = at - np.maximum.accumulate(np.where(starts, at, 0), axis=1)
    mask = (segments[:, :, None] == segments[:, None, :]) & np.tri(LENGTH, dtype=bool)
    learned = np.append(random.permutation(np.nonzero(segments.reshape(-1))[0])[: 7 * len(rows)], 0)
    return tuple(
        jnp.asarray(value, kind)
        for value, kind in (
            (random.integers(3, 259, segments.shape), jnp.int32),
            (positions, jnp.int32),
            (mask, jnp.bool_),
            (learned, jnp.int32),
        )
    )


def with_adapter_at_work(model: Any) -> Any:
    """The model with all of its adapter random, so that it changes the logits and A has gradients too."""
    random = np.random.default_rng(1)
    weights = nnx.state(model, nnx.LoRAParam)
    nnx.update(model, jax.tree.map(lambda w: jnp.asarray(random.normal(0, 0.1, w.shape), w.dtype), weights))
    return model


def llama(folder: Path, dtype: str = "float32", **config: Any) -> Any:
    made = load_model(make_tiny_model(folder, config=config), dtype=dtype, mesh=make_mesh())
    with make_mesh():
        return with_adapter_at_work(
            apply_lora(made, rank=RANK, alpha=ALPHA, target_modules=TARGET_MODULES[:-2], seed=0)
        )


def of_family(folder: Path, variant: str, layers: int) -> Any:
    made = load_model(make_variant(variant, folder, layers=layers), dtype="float32", mesh=make_mesh())
    with make_mesh():
        return with_adapter_at_work(
            apply_lora(made, rank=RANK, alpha=ALPHA, target_modules=("q_proj", "down_proj"), seed=0)
        )


def tunix_logits(model: Any, tokens: Any, positions: Any, mask: Any, learned: Any) -> jax.Array:
    logits: jax.Array = model(tokens, positions, None, mask)[0]
    return logits.reshape(-1, logits.shape[-1])[learned].astype(jnp.float32)


def outcome(
    model: Any, compute: Callable[..., jax.Array], given: tuple[jax.Array, ...]
) -> tuple[jax.Array, list[jax.Array]]:
    """Logits, and the gradients of a sum over them that weighs every logit differently."""

    def total(model: Any) -> tuple[jax.Array, jax.Array]:
        logits = compute(model, *given)
        return (logits * jnp.sin(jnp.arange(logits.size)).reshape(logits.shape)).sum(), logits

    @nnx.jit
    def run(model: Any) -> Any:
        wanted = nnx.DiffState(0, nnx.LoRAParam)
        return nnx.value_and_grad(total, argnums=wanted, has_aux=True)(model)

    with make_mesh():
        (_, logits), gradients = run(model)
    return logits, jax.tree.leaves(gradients)


def assert_same_as_tunix(model: Any, given: tuple[jax.Array, ...], *remats: Remat) -> None:
    assert_same(model, given, outcome(model, tunix_logits, given), *remats)


def assert_same(
    model: Any,
    given: tuple[jax.Array, ...],
    expected: tuple[jax.Array, list[jax.Array]],
    *remats: Remat,
) -> None:
    wanted, wanted_gradients = expected
    assert all(bool(jnp.any(gradient != 0)) for gradient in wanted_gradients)
    for remat in remats:
        set_computation(model, Computation("float32", ALPHA / RANK, remat))
        found, gradients = outcome(model, supervised_logits, given)
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, wanted, atol=2e-5, rtol=1e-4)
        assert len(gradients) == len(wanted_gradients) > 0
        for one, other in zip(gradients, wanted_gradients, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4 * float(jnp.abs(other).max()))


@pytest.fixture(scope="module")
def of_tunix(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, tuple[jax.Array, list[jax.Array]]]:
    """A llama in float32, and what Tunix's own modules compute of packed and of padded rows."""
    model = llama(tmp_path_factory.mktemp("llama") / "tiny")
    return model, outcome(model, tunix_logits, inputs(PACKED + PADDED))


def test_llama_has_tunix_logits_and_gradients(of_tunix: tuple[Any, Any]) -> None:
    model, expected = of_tunix
    assert_same(model, inputs(PACKED + PADDED), expected, *REMATS)


@pytest.mark.parametrize(
    "config",
    [
        ONE_LAYER | {"tie_word_embeddings": False, "rope_theta": 500_000.0, "num_key_value_heads": 4},
        {"num_key_value_heads": 1, "head_dim": 32, "rms_norm_eps": 1e-3, "num_hidden_layers": 3},
    ],
)
def test_any_shape_of_llama_has_tunix_logits(tmp_path: Path, config: dict[str, Any]) -> None:
    assert_same_as_tunix(llama(tmp_path / "tiny", **config), inputs(PACKED), "dots")


def test_in_bfloat16_our_llama_is_nearer_to_the_exact_logits_than_tunix(
    tmp_path: Path, of_tunix: tuple[Any, Any]
) -> None:
    given = inputs(PACKED + PADDED)
    _, (exact, exact_gradients) = of_tunix
    model = llama(tmp_path / "tiny", dtype="bfloat16")
    tunix, tunix_gradients = outcome(model, tunix_logits, given)
    set_computation(model, Computation("bfloat16", ALPHA / RANK, "dots"))
    ours, our_gradients = outcome(model, supervised_logits, given)

    def error(values: list[jax.Array], wanted: list[jax.Array]) -> float:
        pairs = zip(values, wanted, strict=True)
        return float(sum(jnp.abs(value.astype(jnp.float32) - exact).sum() for value, exact in pairs))

    assert error([ours], [exact]) < error([tunix], [exact])
    assert error(our_gradients, exact_gradients) < error(tunix_gradients, exact_gradients)


@pytest.mark.parametrize("variant", TUNIX_LAYERS)
def test_a_family_without_a_forward_of_ours_runs_tunix_layers(tmp_path: Path, variant: str) -> None:
    layers, remat = TUNIX_LAYERS[variant]
    assert_same_as_tunix(of_family(tmp_path / "tiny", variant, layers), inputs(PACKED), remat)


def test_a_scaled_rope_turns_as_tunix_layers_do(tmp_path: Path) -> None:
    model = of_family(tmp_path / "tiny", "llama_scaled_untied", layers=1)
    assert_same_as_tunix(model, inputs(PACKED), "dots")


def gradients_of_all_weights(model: Any, compute: Callable[..., jax.Array]) -> list[jax.Array]:
    given = inputs(PACKED)

    @nnx.jit
    def run(model: Any) -> Any:
        return nnx.grad(lambda m: jnp.sin(compute(m, *given)).sum())(model)

    with make_mesh():
        return jax.tree.leaves(run(model))


@pytest.fixture(scope="module")
def full_of_tunix(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[jax.Array]]:
    """A llama in float32 without an adapter, and the gradients that Tunix's own modules have."""
    folder = make_tiny_model(tmp_path_factory.mktemp("llama") / "tiny", config=ONE_LAYER)
    model = load_model(folder, dtype="float32", mesh=make_mesh())
    return model, gradients_of_all_weights(model, tunix_logits)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_full_weights_in_float32_have_tunix_gradients(
    full_of_tunix: tuple[Any, list[jax.Array]], dtype: Dtype
) -> None:
    model, wanted = full_of_tunix
    set_computation(model, Computation(dtype, 1.0, "dots"))
    tolerance = {"float32": 1e-4, "bfloat16": 5e-2}[dtype]
    for one, other in zip(gradients_of_all_weights(model, supervised_logits), wanted, strict=True):
        assert one.dtype == jnp.float32
        np.testing.assert_allclose(one, other, atol=tolerance * float(jnp.abs(other).max()))


def test_quantised_llama_has_tunix_logits_and_gradients(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "tiny", config=ONE_LAYER)
    model = load_model(folder, dtype="float32", mesh=make_mesh())
    with make_mesh():
        adapted = apply_lora(model, rank=RANK, alpha=ALPHA, seed=1, quantization="nf4")
    assert_same_as_tunix(with_adapter_at_work(adapted), inputs(PACKED), "dots")
