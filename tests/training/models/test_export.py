"""Whole models as Hugging Face folders: trained weights, and adapters merged into their base."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from support.adapters import with_random_lora
from support.tiny_model import CHAT_TEMPLATE, ONE_LAYER, make_tiny_model
from tunix_rt_kit.errors import AlreadyExists, FailedPrecondition, InvalidArgument
from tunix_rt_kit.models.export import Conversation, merge_adapter
from tunix_rt_kit.models.families import FAMILIES
from tunix_rt_kit.models.hf_folder import read_special_tokens
from tunix_rt_kit.models.lora import apply_lora, save_adapter
from tunix_rt_kit.models.pretrained import load_model, logits, make_mesh, save_model

MESH = make_mesh()
OTHER_TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|endoftext|>{% endfor %}"


def load(folder: Path, dtype: str = "float32") -> Any:
    return load_model(folder, dtype=dtype, mesh=MESH)


def computed(model: Any) -> npt.NDArray[np.float32]:
    tokens = jnp.asarray([range(40, 80)], jnp.int32)
    with MESH:
        return np.asarray(logits(model, tokens, jnp.ones_like(tokens, bool)))


def weights(folder: Path) -> dict[str, npt.NDArray[Any]]:
    return {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}


def adapter_for(folder: Path, target: Path, **settings: Any) -> tuple[Path, Any]:
    adapted = with_random_lora(load(folder), **settings)
    save_adapter(adapted, target, alpha=8.0, base_model=str(folder))
    return target, adapted


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_merged_model_computes_what_the_adapted_one_computes(tmp_path: Path, family: str) -> None:
    base = make_tiny_model(tmp_path / "base", family=family, config=ONE_LAYER, scale=0.2, shards=2)
    adapter, adapted = adapter_for(base, tmp_path / "adapter")
    merge_adapter(base, adapter, tmp_path / "out")
    expected = computed(adapted)
    assert np.abs(expected - computed(load(base))).max() > 0.1
    np.testing.assert_allclose(computed(load(tmp_path / "out")), expected, atol=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_merging_rounds_once_and_touches_nothing_else(tmp_path: Path, dtype: str) -> None:
    base = make_tiny_model(tmp_path / "base", dtype=dtype, shards=3)
    (base / "LICENSE").write_text("yours")
    adapter, _ = adapter_for(base, tmp_path / "adapter", target_modules=["k_proj", "down_proj"])
    merge_adapter(base, adapter, tmp_path / "out")
    before, after, pairs = (
        weights(base),
        weights(tmp_path / "out"),
        load_file(adapter / "adapter_model.safetensors"),
    )
    assert before.keys() == after.keys()
    for name, weight in before.items():
        module = f"base_model.model.{name.removesuffix('.weight')}"
        expected = weight
        if f"{module}.lora_A.weight" in pairs:
            product = pairs[f"{module}.lora_B.weight"] @ pairs[f"{module}.lora_A.weight"]
            expected = (weight.astype(np.float32) + 2 * product).astype(weight.dtype)
            assert (expected != weight).any()
        assert after[name].dtype == weight.dtype
        assert (after[name] == expected).all()
    same = [
        "LICENSE",
        "config.json",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    for name in same:
        assert (tmp_path / "out" / name).read_bytes() == (base / name).read_bytes()


def test_the_same_merge_makes_the_same_bytes(tmp_path: Path) -> None:
    base = make_tiny_model(tmp_path / "base", dtype="bfloat16")
    adapter, _ = adapter_for(base, tmp_path / "adapter")
    for name in ("a", "b"):
        merge_adapter(base, adapter, tmp_path / name, conversation=Conversation(CHAT_TEMPLATE, "<|im_end|>"))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_template_and_end_of_turn_of_the_training_go_with_the_model(tmp_path: Path) -> None:
    base = make_tiny_model(tmp_path / "base")
    (base / "chat_template.jinja").write_text("the base model's")
    (base / "special_tokens_map.json").write_text('{"eos_token": "<|im_end|>"}')
    (base / "generation_config.json").write_text('{"eos_token_id": [2], "temperature": 0.7}')
    adapter, _ = adapter_for(base, tmp_path / "adapter")
    merge_adapter(base, adapter, tmp_path / "out", conversation=Conversation(OTHER_TEMPLATE, "<|endoftext|>"))
    special = read_special_tokens(tmp_path / "out")
    assert (special.chat_template, special.eos_token) == (OTHER_TEMPLATE, "<|endoftext|>")
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert generation == {"eos_token_id": [0, 2], "temperature": 0.7}
    assert (
        json.loads((tmp_path / "out" / "special_tokens_map.json").read_text())["eos_token"] == "<|endoftext|>"
    )
    with pytest.raises(FailedPrecondition, match=r"eos_token is '<\|nope\|>'"):
        merge_adapter(base, adapter, tmp_path / "no", conversation=Conversation(OTHER_TEMPLATE, "<|nope|>"))
    assert not (tmp_path / "no").exists()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["adapter", "base", "out"]


def test_an_export_has_no_byte_order_mark_which_transformers_takes_for_an_error(tmp_path: Path) -> None:
    base = make_tiny_model(tmp_path / "base")
    adapter, _ = adapter_for(base, tmp_path / "adapter")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (base / name).write_bytes(b"\xef\xbb\xbf" + (base / name).read_bytes())
    merge_adapter(base, adapter, tmp_path / "out", conversation=Conversation(CHAT_TEMPLATE, "<|im_end|>"))
    for file in (tmp_path / "out").glob("*.json"):
        json.loads(file.read_text("utf-8"))


def test_an_adapter_of_another_model_is_refused_by_tensor(tmp_path: Path) -> None:
    base = make_tiny_model(tmp_path / "base")
    deeper = make_tiny_model(tmp_path / "deeper", config={"num_hidden_layers": 3})
    adapter, _ = adapter_for(deeper, tmp_path / "adapter")
    with pytest.raises(InvalidArgument, match=r"model\.layers\.2\..* has no place in the model"):
        merge_adapter(base, adapter, tmp_path / "out")
    adapter, _ = adapter_for(base, tmp_path / "shallow")
    with pytest.raises(InvalidArgument, match=r"layers\.2\.self_attn\.q_proj\.lora_A\.weight' is missing"):
        merge_adapter(deeper, adapter, tmp_path / "out")
    with pytest.raises(AlreadyExists, match="exists already"):
        merge_adapter(base, adapter, base)


def test_merging_needs_no_jax() -> None:
    code = (
        "import sys, tunix_rt_kit.models.export; print(sorted({'jax', 'flax', 'torch'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shards", [1, 2])
def test_a_saved_model_is_what_it_was_loaded_from(tmp_path: Path, family: str, shards: int) -> None:
    base = make_tiny_model(tmp_path / "base", family=family, dtype="bfloat16", shards=shards)
    model = load(base)
    for name in ("a", "b"):
        save_model(model, tmp_path / name, base=base)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    before, after = weights(base), weights(tmp_path / "a")
    assert before.keys() == after.keys()
    assert all((before[name] == after[name]).all() for name in before)
    assert contents(tmp_path / "a").keys() == contents(base).keys()


def test_trained_weights_are_saved_in_the_types_of_the_base(tmp_path: Path) -> None:
    base = make_tiny_model(
        tmp_path / "base", dtype="bfloat16", config={"tie_word_embeddings": False}, shards=3
    )
    model = load(base)
    nnx.update(model, jax.tree.map(lambda value: value * 1.5, nnx.state(model)))
    save_model(model, tmp_path / "out", base=base, conversation=Conversation(CHAT_TEMPLATE, "<|im_end|>"))
    after = weights(tmp_path / "out")
    for name, weight in weights(base).items():
        expected = (weight.astype(np.float32) * np.float32(1.5)).astype(weight.dtype)
        assert (after[name] == expected).all()
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text()) == {"eos_token_id": 2}


def test_a_stale_head_is_not_kept_beside_a_tied_one(tmp_path: Path) -> None:
    base = make_tiny_model(tmp_path / "base")
    file = base / "model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]}, file)
    save_model(load(base), tmp_path / "out", base=base)
    assert "lm_head.weight" not in weights(tmp_path / "out")


def test_a_model_with_an_adapter_is_not_saved_as_a_whole(tmp_path: Path) -> None:
    base = make_tiny_model(tmp_path / "base")
    adapted = apply_lora(load(base), rank=2, alpha=2.0, seed=0)
    with pytest.raises(InvalidArgument, match="save the adapter"):
        save_model(adapted, tmp_path / "out", base=base)
    assert not (tmp_path / "out").exists()
