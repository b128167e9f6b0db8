"""Tunix computes of every family what ``transformers`` computes: padded, packed, and with a cache.

The goldens come from ``python -m support.tiny_families``; ``tests/peers`` makes them anew.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file
from tunix.models.gemma import model as gemma2
from tunix.models.gemma3 import model as gemma3
from tunix.models.llama3 import model as llama3
from tunix.models.qwen2 import model as qwen2
from tunix.models.qwen3 import model as qwen3

from support.golden import Golden, max_difference
from support.tiny_families import VARIANTS, make_variant
from support.tiny_model import make_tiny_model
from tunix_rt_kit.canonical import digest_file
from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.models.decoder import Decoder
from tunix_rt_kit.models.families import FAMILIES
from tunix_rt_kit.models.hf_folder import read_config
from tunix_rt_kit.models.pretrained import load_model, logits, make_mesh
from tunix_rt_kit.models.store import ModelStore

GOLDENS = Path(__file__).parents[2] / "goldens" / "families"
TOLERANCE = 1e-3
LENGTH = 128
CHUNK = 32
MESH = make_mesh()


class Row:
    """A row of a batch: sequences one after the other, then padding."""

    def __init__(self, sequences: Sequence[Sequence[int]]) -> None:
        self.tokens = np.zeros(LENGTH, np.int32)
        self.positions = np.zeros(LENGTH, np.int32)
        segments = np.full(LENGTH, -1)
        self.starts = []
        start = 0
        for segment, tokens in enumerate(sequences):
            self.starts.append(start)
            here = slice(start, start + len(tokens))
            self.tokens[here] = tokens
            self.positions[here] = np.arange(len(tokens))
            segments[here] = segment
            start += len(tokens)
        self.mask = np.tril(segments[:, None] == segments[None])


@nnx.jit
def forward(model: Decoder, tokens: Any, positions: Any, mask: Any, supervised: Any) -> tuple[Any, Any]:
    return model(tokens, positions, None, mask)[0], model(tokens, positions, None, mask, supervised)[0]


@pytest.fixture(scope="module", params=VARIANTS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Decoder, Golden]:
    folder = make_variant(request.param, tmp_path_factory.mktemp("variant"))
    golden = Golden.model_validate_json((GOLDENS / f"{request.param}.json").read_text("utf-8"))
    assert golden.weights == {file.name: digest_file(file) for file in sorted(folder.glob("*.safetensors"))}
    return load_model(folder, dtype="float32", mesh=MESH), golden


def run(model: Decoder, rows: Sequence[Row], supervised: Sequence[int]) -> tuple[Any, Any]:
    arrays = [np.stack([getattr(row, name) for row in rows]) for name in ("tokens", "positions", "mask")]
    with MESH:
        found = forward(model, *map(jnp.asarray, arrays), jnp.asarray(supervised))
    return np.asarray(found[0]), np.asarray(found[1])


def test_padded_and_packed_rows_agree_with_transformers(case: tuple[Decoder, Golden]) -> None:
    model, golden = case
    long, short = (prompt.tokens for prompt in golden.prompts)
    padded, of_chosen = run(model, [Row([long]), Row([short])], supervised := [3, len(long) - 1, LENGTH + 5])
    packed, _ = run(model, [Row([short, long]), Row([long, short])], supervised)
    # Measured: below 2e-5.
    for row, prompt in enumerate(golden.prompts):
        assert max_difference(prompt, padded[row]) < TOLERANCE
    assert max_difference(golden.prompts[1], packed[0]) < TOLERANCE
    assert max_difference(golden.prompts[0], packed[0, len(short) :]) < TOLERANCE
    assert max_difference(golden.prompts[0], packed[1]) < TOLERANCE
    assert max_difference(golden.prompts[1], packed[1, len(long) :]) < TOLERANCE
    np.testing.assert_allclose(of_chosen, padded.reshape(2 * LENGTH, -1)[supervised], atol=1e-5)


def test_reading_in_chunks_and_then_token_by_token_agrees(case: tuple[Decoder, Golden]) -> None:
    model, golden = case
    prompt = golden.prompts[0]
    padding, length = 5, len(prompt.tokens)
    tokens = np.zeros((1, padding + length), np.int32)
    tokens[0, padding:] = prompt.tokens
    step = jax.jit(partial(_read, nnx.graphdef(model)))
    state, cache = nnx.state(model), model.init_cache(1, LENGTH, jnp.float32)
    found: list[npt.NDArray[np.float32]] = []
    column = 0
    with MESH:
        while column < tokens.shape[1]:
            # The last columns one by one, those before in chunks.
            size = CHUNK if column + CHUNK <= tokens.shape[1] - 8 else 1
            part = jnp.asarray(tokens[:, column : column + size])
            logits, cache = step(state, part, jnp.int32(column), jnp.int32(padding), cache)
            found.append(np.asarray(logits[0]))
            column += size
    assert max_difference(prompt, np.concatenate(found)[padding:]) < TOLERANCE


def _read(graph: Any, state: Any, tokens: Any, column: Any, padding: Any, cache: Any) -> tuple[Any, Any]:
    """Read ``tokens`` from ``column`` on, of a row that begins with ``padding`` columns of nothing."""
    columns = column + jnp.arange(tokens.shape[1])
    keys = jnp.arange(LENGTH)
    mask = (keys[None] <= columns[:, None]) & (keys[None] >= padding)
    positions = jnp.maximum(columns - padding, 0)[None]
    return nnx.merge(graph, state)(tokens, positions, cache, mask[None])  # type: ignore[no-any-return]


def test_the_model_is_tunixs_own(tmp_path: Path) -> None:
    classes = (llama3.Llama3, qwen2.Qwen2, qwen3.Qwen3, gemma2.Gemma, gemma3.Gemma3)
    for family, kind in zip(FAMILIES, classes, strict=True):
        folder = make_tiny_model(tmp_path / family, family=family)
        assert isinstance(load_model(folder, dtype="bfloat16", mesh=MESH), kind)


@pytest.mark.parametrize("family", FAMILIES)
def test_in_bfloat16_the_logits_are_near_and_float32(tmp_path: Path, family: str) -> None:
    folder = make_tiny_model(tmp_path / family, family=family, config={"num_hidden_layers": 1})
    tokens = jnp.arange(3, 100)[None]
    of_float32, of_bfloat16 = (
        load_model(folder, dtype=dtype, mesh=MESH) for dtype in ("float32", "bfloat16")
    )
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(nnx.state(of_bfloat16))} == {"bfloat16"}
    with MESH:
        exact, rounded = (
            np.asarray(logits(model, tokens, jnp.ones_like(tokens, bool)))
            for model in (of_float32, of_bfloat16)
        )
    assert rounded.dtype == np.float32
    error = np.abs(rounded - exact)
    assert 0 < error.mean() < 0.02 * exact.std()


def test_every_weight_is_counted_and_has_a_place_on_the_mesh(tmp_path: Path) -> None:
    for family in FAMILIES:
        model = load_model(make_tiny_model(tmp_path / family, family=family), dtype="float32", mesh=MESH)
        leaves = jax.tree.leaves(nnx.state(model))
        assert all(set(leaf.sharding.mesh.axis_names) == {"fsdp", "tp"} for leaf in leaves)
        assert read_config(tmp_path / family).parameter_count() == sum(leaf.size for leaf in leaves)


ON_FOUR_DEVICES = """
import sys
import jax, jax.numpy as jnp, numpy as np
from flax import nnx
from tunix_rt_kit.models.pretrained import load_model, logits, make_mesh

tokens = jnp.asarray([range(40, 72), range(72, 104)])
types = (jax.sharding.AxisType.Auto,) * 2
for folder in sys.argv[1:]:
    found = []
    for mesh in (make_mesh(), jax.make_mesh((2, 2), ("fsdp", "tp"), axis_types=types)):
        model = load_model(folder, dtype="float32", mesh=mesh)
        with mesh:
            found.append(np.asarray(logits(model, tokens, jnp.ones_like(tokens, bool))))
    split = sum(not leaf.is_fully_replicated for leaf in jax.tree.leaves(nnx.state(model)))
    print(float(np.abs(found[0] - found[1]).max()), split, len(jax.tree.leaves(nnx.state(model))))
"""


@pytest.mark.slow
def test_split_over_devices_a_model_computes_the_same(tmp_path: Path) -> None:
    config = {"vocab_size": 260, "num_hidden_layers": 1}
    folders = [str(make_tiny_model(tmp_path / name, family=name, config=config)) for name in FAMILIES]
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-c", ON_FOUR_DEVICES, *folders]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in found.splitlines()]
    assert len(rows) == len(FAMILIES)
    for difference, split, weights in rows:
        assert float(difference) < 1e-4
        # All but the norms of heads.
        assert int(split) >= int(weights) - 2


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_weight_that_is_no_number_is_named_by_its_tensor(tmp_path: Path, dtype: str, value: float) -> None:
    folder = make_tiny_model(tmp_path / "model", dtype=dtype, shards=2)
    for file in folder.glob("*.safetensors"):
        tensors = load_file(file)
        if (name := "model.layers.1.mlp.up_proj.weight") in tensors:
            tensors[name][7, 3] = value
            save_file(tensors, file)
    store = ModelStore(tmp_path)
    for read in (
        lambda: load_model(folder, dtype="bfloat16", mesh=MESH),
        *[lambda: store.resolve("model")] * 2,
    ):
        with pytest.raises(FailedPrecondition) as caught:
            read()
        assert caught.value.metadata["field"] == name
        assert f"{name} is {value}; each of its 8192 values must be a finite number" in str(caught.value)
