"""Adapters and whole models of every family mean to ``peft`` and ``transformers`` what they mean to Tunix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest
import torch
from flax import nnx
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from support.adapters import with_random_lora
from support.tiny_model import make_tiny_model
from tunix_rt_kit.models.export import TARGET_MODULES, merge_adapter
from tunix_rt_kit.models.families import FAMILIES
from tunix_rt_kit.models.lora import load_adapter, save_adapter
from tunix_rt_kit.models.pretrained import load_model, logits, make_mesh, save_model

MESH = make_mesh()
TOKENS = [list(range(40, 100)), list(range(100, 160))]


def of_tunix(model: Any) -> npt.NDArray[np.float32]:
    tokens = jnp.asarray(TOKENS, jnp.int32)
    with MESH, jax.default_matmul_precision("highest"):
        return np.asarray(logits(model, tokens, jnp.ones_like(tokens, bool)))


def of_torch(model: Any) -> npt.NDArray[np.float32]:
    with torch.inference_mode():
        return np.asarray(model.eval()(torch.tensor(TOKENS)).logits)


def in_torch(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


@pytest.fixture(params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return make_tiny_model(tmp_path / "base", family=request.param, scale=0.2)


def test_peft_computes_with_our_adapter_what_tunix_computes(folder: Path, tmp_path: Path) -> None:
    base = load_model(folder, dtype="float32", mesh=MESH)
    adapted = with_random_lora(base, rank=4, alpha=8.0)
    save_adapter(adapted, tmp_path / "adapter", alpha=8.0, base_model=str(folder))
    found = of_torch(PeftModel.from_pretrained(in_torch(folder), tmp_path / "adapter"))
    assert np.abs(found - of_tunix(base)).max() > 0.1
    # Measured: below 5e-5.
    assert np.abs(found - of_tunix(adapted)).max() < 1e-3


def test_tunix_computes_with_pefts_adapter_what_peft_computes(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = LoraConfig(r=3, lora_alpha=5, target_modules=list(TARGET_MODULES), init_lora_weights=False)
    tuned = get_peft_model(in_torch(folder), config)
    tuned.save_pretrained(tmp_path / "adapter")
    base = load_model(folder, dtype="float32", mesh=MESH)
    found = of_tunix(load_adapter(base, tmp_path / "adapter"))
    assert np.abs(found - of_tunix(base)).max() > 0.1
    assert np.abs(found - of_torch(tuned)).max() < 1e-3


def test_transformers_computes_of_a_merged_folder_what_tunix_computes_with_the_adapter(
    folder: Path, tmp_path: Path
) -> None:
    adapted = with_random_lora(load_model(folder, dtype="float32", mesh=MESH), rank=4, alpha=8.0)
    save_adapter(adapted, tmp_path / "adapter", alpha=8.0, base_model=str(folder))
    merge_adapter(folder, tmp_path / "adapter", tmp_path / "merged")
    assert np.abs(of_torch(in_torch(tmp_path / "merged")) - of_tunix(adapted)).max() < 1e-3


def test_transformers_computes_of_a_saved_folder_what_tunix_computes(folder: Path, tmp_path: Path) -> None:
    model = load_model(folder, dtype="float32", mesh=MESH)
    nnx.update(model, jax.tree.map(lambda value: value * 1.25, nnx.state(model)))
    save_model(model, tmp_path / "saved", base=folder)
    found = of_torch(in_torch(tmp_path / "saved"))
    assert np.abs(found - of_torch(in_torch(folder))).max() > 0.1
    assert np.abs(found - of_tunix(model)).max() < 1e-3
