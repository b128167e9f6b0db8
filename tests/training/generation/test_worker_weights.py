"""The weights that an evaluation runs: of every family, in the type that was asked for, base or tuned."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from support.adapters import with_random_lora
from support.tiny_model import make_tiny_model
from tunix_rt_evaluator.worker.local import BaseWeights
from tunix_rt_kit.models.decoder import Decoder
from tunix_rt_kit.models.families import FAMILIES
from tunix_rt_kit.models.lora import load_adapter, save_adapter
from tunix_rt_kit.models.pretrained import load_model, logits, make_mesh

TOKENS = jnp.asarray(np.random.default_rng(1).integers(3, 259, (2, 24)), jnp.int32)
WHOLE = jnp.ones((2, 24), bool)
SHALLOW = {"num_hidden_layers": 1}
TYPES = [("bfloat16", "float32"), ("bfloat16", "bfloat16"), ("float16", "bfloat16")]


@pytest.fixture(scope="module")
def mesh() -> jax.sharding.Mesh:
    return make_mesh()


def loaded(folder: Path, dtype: str, mesh: jax.sharding.Mesh) -> Decoder:
    model = load_model(folder, dtype=dtype, mesh=mesh)
    model.only_run()
    return model


def written(model: Decoder) -> jax.Array:
    """Logits, and a test that what they are made of has the type of the weights."""
    positions = jnp.broadcast_to(jnp.arange(24), (2, 24))
    mask = jnp.broadcast_to(jnp.tril(jnp.ones((24, 24), bool)), (2, 24, 24))
    hidden = jax.eval_shape(lambda: model.hidden_states(TOKENS, positions, None, mask)[0])
    assert hidden.dtype == jax.tree.leaves(nnx.state(model))[0].dtype
    return logits(model, TOKENS, WHOLE)


@pytest.mark.parametrize(
    ("family", "stored", "wanted"),
    [*((family, "float32", "bfloat16") for family in FAMILIES), *(("llama", *types) for types in TYPES)],
)
def test_a_base_model_computes_as_one_that_was_loaded_in_the_type(
    tmp_path: Path, mesh: jax.sharding.Mesh, family: str, stored: str, wanted: str
) -> None:
    folder = make_tiny_model(tmp_path, family=family, dtype=stored, scale=0.2, config=SHALLOW)
    found = written(BaseWeights(folder, mesh).model(None, wanted))
    assert jnp.array_equal(found, written(loaded(folder, wanted, mesh)))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("wanted", ["bfloat16", "float32"])
def test_a_merged_adapter_computes_in_the_type_and_leaves_the_base_as_it_was(
    tmp_path: Path, mesh: jax.sharding.Mesh, family: str, wanted: str
) -> None:
    folder = make_tiny_model(tmp_path / "base", family=family, dtype="bfloat16", scale=0.2, config=SHALLOW)
    tuned, adapter = load_model(folder, dtype="float32", mesh=mesh), tmp_path / "adapter"
    save_adapter(with_random_lora(tuned), adapter, alpha=8.0, base_model="m")
    base = BaseWeights(folder, mesh)
    before = written(base.model(None, wanted))
    merged = written(base.model(adapter, wanted))
    applied = logits(load_adapter(load_model(folder, dtype="float32", mesh=mesh), adapter), TOKENS, WHOLE)
    assert float(jnp.abs(merged - before).max()) > 0.1
    assert float(jnp.abs(merged - applied).max()) < (1e-3 if wanted == "float32" else 0.3)
    assert jnp.array_equal(written(base.model(None, wanted)), before)


def test_a_whole_model_needs_no_base(tmp_path: Path, mesh: jax.sharding.Mesh) -> None:
    folder = make_tiny_model(tmp_path / "tuned")
    found = written(BaseWeights(tmp_path / "absent", mesh).model(folder, "float32"))
    assert jnp.array_equal(found, written(loaded(folder, "float32", mesh)))
