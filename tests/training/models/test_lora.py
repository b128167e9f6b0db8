"""LoRA on a Tunix Llama and adapters in PEFT's format."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest
import qwix
from flax import nnx
from safetensors.numpy import load_file, save_file

from support.adapters import lora_parameters, with_random_lora
from support.numpy_llama import numpy_logits
from support.tiny_model import ONE_LAYER, make_tiny_model
from tunix_rt_kit.errors import DataLoss, InvalidArgument
from tunix_rt_kit.models import pretrained as loader
from tunix_rt_kit.models.export import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_WEIGHTS_FILE,
    TARGET_MODULES,
    read_adapter,
    write_adapter,
)
from tunix_rt_kit.models.families import FAMILIES
from tunix_rt_kit.models.lora import (
    apply_lora,
    load_adapter,
    save_adapter,
)

MESH = loader.make_mesh()
TEXT = "user: what is 2 + 2?"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A tiny random model of one layer: what is computed does not depend on how many there are."""
    return make_tiny_model(tmp_path / "tiny", config=ONE_LAYER)


@pytest.fixture
def two_layers(tmp_path: Path) -> Path:
    """A tiny random model of two layers."""
    return make_tiny_model(tmp_path / "two")


def load(folder: Path, dtype: str = "float32") -> Any:
    return loader.load_model(folder, dtype=dtype, mesh=MESH)


def logits(model: Any) -> npt.NDArray[Any]:
    tokens = jnp.asarray([list(TEXT.encode())], jnp.int32)
    with MESH:
        return np.asarray(loader.logits(model, tokens, jnp.ones_like(tokens, bool)))


def bits(model: Any) -> dict[str, bytes]:
    return {path: np.asarray(v[...]).tobytes() for path, v in lora_parameters(model)}


def test_fresh_lora_changes_nothing_and_its_seed_decides_it(tiny: Path) -> None:
    base = load(tiny)
    adapted = apply_lora(base, rank=4, alpha=8.0, seed=1)
    np.testing.assert_array_equal(logits(adapted), logits(base))
    assert bits(adapted) == bits(apply_lora(base, rank=4, alpha=8.0, seed=1))
    assert bits(adapted) != bits(apply_lora(base, rank=4, alpha=8.0, seed=2))
    assert lora_parameters(base) == []


def test_every_projection_gets_a_pair_of_the_rank(two_layers: Path) -> None:
    parameters = lora_parameters(apply_lora(load(two_layers), rank=4, alpha=8.0, seed=0))
    assert len(parameters) == 2 * len(TARGET_MODULES) * 2
    widths = {
        "q": (64, 64),
        "k": (64, 32),
        "v": (64, 32),
        "o": (64, 64),
        "g": (64, 128),
        "u": (64, 128),
        "d": (128, 64),
    }
    expected = 2 * sum(4 * (a + b) for a, b in widths.values())
    assert sum(parameter.size for _, parameter in parameters) == expected


def test_only_the_targets_get_a_pair(two_layers: Path) -> None:
    adapted = apply_lora(load(two_layers), rank=2, alpha=2.0, target_modules=["q_proj", "down_proj"], seed=0)
    projections = {path.split(".")[3] for path, _ in lora_parameters(adapted)}
    assert projections == {"q_proj", "down_proj"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adapter_comes_back_to_the_bit(tiny: Path, tmp_path: Path, dtype: str) -> None:
    base = load(tiny, dtype)
    adapted = with_random_lora(base)
    save_adapter(adapted, tmp_path / "adapter", alpha=8.0, base_model="tiny")
    restored = load_adapter(base, tmp_path / "adapter")
    assert bits(restored) == bits(adapted)
    np.testing.assert_array_equal(logits(restored), logits(adapted))
    assert not np.array_equal(logits(restored), logits(base))


def test_same_weights_make_the_same_files(tiny: Path, tmp_path: Path) -> None:
    base = load(tiny, "bfloat16")
    for name in ("a", "b"):
        save_adapter(with_random_lora(base), tmp_path / name, alpha=8.0, base_model="tiny")
    for file in (ADAPTER_WEIGHTS_FILE, ADAPTER_CONFIG_FILE):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_adapter_means_what_peft_means_by_it(tmp_path: Path) -> None:
    """Base weights plus ``alpha / r * B @ A``, by PEFT's names, make the same model."""
    config = ONE_LAYER | {"num_key_value_heads": 1, "head_dim": 32}
    folder = make_tiny_model(tmp_path / "base", config=config, scale=0.2)
    targets = ["q_proj", "k_proj", "o_proj", "up_proj", "down_proj"]
    adapted = with_random_lora(load(folder), target_modules=targets)
    save_adapter(adapted, tmp_path / "adapter", alpha=8.0, base_model=str(folder))
    config = json.loads((tmp_path / "adapter" / ADAPTER_CONFIG_FILE).read_text())
    assert config["target_modules"] == targets
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (4, 8.0, "LORA")
    adapter = load_file(tmp_path / "adapter" / ADAPTER_WEIGHTS_FILE)
    merged = load_file(folder / "model.safetensors")
    for name in [name for name in adapter if ".lora_A." in name]:
        target = name.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight")
        merged[target] += 8.0 / 4 * adapter[name.replace("lora_A", "lora_B")] @ adapter[name]
    save_file(merged, folder / "model.safetensors")
    (expected,) = numpy_logits(folder, [list(TEXT.encode())])
    np.testing.assert_allclose(logits(adapted)[0], expected, atol=1e-4)


def test_float32_adapter_runs_on_a_bfloat16_model(tiny: Path, tmp_path: Path) -> None:
    save_adapter(with_random_lora(load(tiny)), tmp_path / "adapter", alpha=8.0, base_model="tiny")
    restored = load_adapter(load(tiny, "bfloat16"), tmp_path / "adapter")
    assert {str(parameter.dtype) for _, parameter in lora_parameters(restored)} == {"bfloat16"}
    assert str(logits(restored).dtype) == "float32"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "rank is 0; it must be at least 1"),
        ({"alpha": 0.0}, "alpha is 0.0; it must be positive"),
        ({"target_modules": []}, "target_modules is \\[\\]; it must name some of q_proj"),
        ({"target_modules": ["q_proj", "wq"]}, "target_modules is .*'wq'"),
    ],
)
def test_wrong_settings_are_named(tiny: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message) as caught:
        apply_lora(load(tiny), **({"rank": 4, "alpha": 8.0, "seed": 0} | settings))
    assert caught.value.reason == "LORA_INVALID"


def test_model_without_lora_has_no_adapter(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="no LoRA weights"):
        save_adapter(load(tiny), tmp_path / "adapter", alpha=8.0, base_model="tiny")


@pytest.fixture
def adapter(tiny: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    save_adapter(with_random_lora(load(tiny)), folder, alpha=8.0, base_model="tiny")
    return folder


def test_adapter_of_another_model_is_refused(two_layers: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    save_adapter(with_random_lora(load(two_layers)), adapter, alpha=8.0, base_model="tiny")
    deeper = make_tiny_model(tmp_path / "deeper", config={"num_hidden_layers": 3})
    with pytest.raises(InvalidArgument, match=r"'.*layers\.2\.self_attn\.q_proj\.lora_A\.weight' is missing"):
        load_adapter(load(deeper), adapter)
    shallower = make_tiny_model(tmp_path / "shallower", config={"num_hidden_layers": 1})
    with pytest.raises(InvalidArgument, match=r"layers\.1\..* has no place in the model"):
        load_adapter(load(shallower), adapter)
    wider = make_tiny_model(tmp_path / "wider", config={"hidden_size": 96})
    with pytest.raises(InvalidArgument, match=r"has shape \[4, 64\], not \[4, 96\]") as caught:
        load_adapter(load(wider), adapter)
    assert caught.value.reason == "ADAPTER_MISMATCH"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("use_rslora", True),
        ("peft_type", "IA3"),
        ("target_modules", ".*_proj"),
        ("bias", "all"),
        ("use_dora", True),
        ("fan_in_fan_out", True),
        ("rank_pattern", {"q_proj": 2}),
        ("r", None),
    ],
)
def test_adapter_of_another_kind_is_refused(tiny: Path, adapter: Path, field: str, value: Any) -> None:
    config = json.loads((adapter / ADAPTER_CONFIG_FILE).read_text()) | {field: value}
    (adapter / ADAPTER_CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(InvalidArgument, match=field) as caught:
        load_adapter(load(tiny), adapter)
    assert caught.value.metadata["field"] == field


def test_adapter_with_values_that_none_can_have_is_refused(tmp_path: Path) -> None:
    pair = np.ones((2, 4), np.float32), np.ones((4, 2), np.float32)
    write_adapter(tmp_path, {"model.layers.0.mlp.up_proj": pair}, rank=2, alpha=1.0, base_model="x")
    config = json.loads((tmp_path / ADAPTER_CONFIG_FILE).read_text())
    assert read_adapter(tmp_path).rank == 2
    for field, value in [
        ("r", "2"),
        ("r", True),
        ("r", 10**9),
        ("lora_alpha", float("nan")),
        ("lora_alpha", [1]),
        ("target_modules", [["up_proj"]]),
        ("target_modules", ["lm_head"]),
        ("target_modules", {"up_proj": 1}),
    ]:
        (tmp_path / ADAPTER_CONFIG_FILE).write_text(json.dumps(config | {field: value}))
        with pytest.raises(InvalidArgument, match=field) as caught:
            read_adapter(tmp_path)
        assert caught.value.metadata["field"] == field
    for damaged in (b"[]", b"\xff\xfe", b"[" * 100_000):
        (tmp_path / ADAPTER_CONFIG_FILE).write_bytes(damaged)
        with pytest.raises(DataLoss, match="cannot be read"):
            read_adapter(tmp_path)
    (tmp_path / ADAPTER_CONFIG_FILE).write_text(json.dumps(config))
    (tmp_path / ADAPTER_WEIGHTS_FILE).unlink()
    os.mkfifo(tmp_path / ADAPTER_WEIGHTS_FILE)
    with pytest.raises(DataLoss, match="is a named pipe"):
        read_adapter(tmp_path)


@pytest.mark.parametrize("file", [ADAPTER_WEIGHTS_FILE, ADAPTER_CONFIG_FILE])
def test_damaged_adapter_is_named(tiny: Path, adapter: Path, file: str) -> None:
    (adapter / file).write_bytes(b"{")
    with pytest.raises(DataLoss, match=f"adapter in {adapter} cannot be read"):
        load_adapter(load(tiny), adapter)
    (adapter / file).unlink()
    with pytest.raises(DataLoss, match=f"adapter in {adapter} cannot be read"):
        load_adapter(load(tiny), adapter)


def test_an_adapter_of_no_numbers_is_named_by_its_tensor(tiny: Path, adapter: Path) -> None:
    tensors = load_file(adapter / ADAPTER_WEIGHTS_FILE)
    name = sorted(tensors)[2]
    tensors[name] = np.full_like(tensors[name], np.nan)
    save_file(tensors, adapter / ADAPTER_WEIGHTS_FILE)
    with pytest.raises(DataLoss, match=name) as caught:
        load_adapter(load(tiny), adapter)
    assert caught.value.reason == "ADAPTER_INVALID"


PROJECTIONS = {"q_proj": ("attn", "w"), "o_proj": ("attn", "w"), "down_proj": ("mlp", "kernel")}


def projection(layer: Any, name: str) -> tuple[Any, str]:
    parent, weight = PROJECTIONS[name]
    return getattr(getattr(layer, parent), name), weight


@pytest.mark.parametrize("family", FAMILIES)
def test_quantised_weights_are_small_and_near_and_of_the_targets_alone(tmp_path: Path, family: str) -> None:
    base = load(make_tiny_model(tmp_path / "base", family=family, config={"num_hidden_layers": 1}))
    adapted = apply_lora(
        base, rank=4, alpha=8.0, seed=0, quantization="nf4", target_modules=list(PROJECTIONS)
    )
    plain = nnx.clone(base)
    for layer, quantised in zip(plain.layers, adapted.layers, strict=True):
        for name in PROJECTIONS:
            (module, weight), (stored, _) = projection(layer, name), projection(quantised, name)
            array, before = getattr(stored, weight).value.array, getattr(module, weight)[...]
            assert str(array.qvalue.dtype) == "uint4"
            assert array.qvalue.nbytes + array.scale.nbytes < 0.35 * before.nbytes
            restored = qwix.dequantize(array)
            # Half the mean distance of two quantiles, for weights of a normal distribution.
            assert 0 < float(jnp.abs(restored - before).mean()) < 0.1 * float(before.std())
            getattr(module, weight)[...] = restored
    # What is computed is what the stored weights mean, and all other weights are as they were.
    np.testing.assert_allclose(logits(adapted), logits(plain), atol=1e-4)
    difference = np.abs(logits(adapted) - logits(base))
    assert 0 < difference.mean() < 0.25 * logits(base).std()


def test_an_adapter_on_quantised_weights_learns_and_is_saved_like_any_other(
    tiny: Path, tmp_path: Path
) -> None:
    base = load(tiny, "bfloat16")
    adapted = with_random_lora(base, quantization="nf4")
    tokens = jnp.asarray([list(TEXT.encode())], jnp.int32)

    def total(model: Any) -> Any:
        return (loader.logits(model, tokens, jnp.ones_like(tokens, bool)) ** 2).sum()

    with MESH:
        gradient = nnx.jit(nnx.grad(total, argnums=nnx.DiffState(0, nnx.LoRAParam)))
        gradients = jax.tree.leaves(gradient(adapted))
    assert len(gradients) == len(lora_parameters(adapted))
    assert all(bool(jnp.isfinite(leaf).all()) and bool((leaf != 0).any()) for leaf in gradients)
    save_adapter(adapted, tmp_path / "adapter", alpha=8.0, base_model="tiny")
    assert bits(load_adapter(base, tmp_path / "adapter")) == bits(adapted)
    restored = load_adapter(base, tmp_path / "adapter", quantization="nf4")
    np.testing.assert_array_equal(logits(restored), logits(adapted))
    assert not np.array_equal(logits(restored), logits(load_adapter(base, tmp_path / "adapter")))


def test_a_tile_that_does_not_fit_is_named(tiny: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"tile_size is 32; it must divide head_dim \(16\)"):
        apply_lora(load(tiny), rank=4, alpha=8.0, seed=0, quantization="nf4", tile_size=32)
