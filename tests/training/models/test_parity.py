"""Tunix computes of a folder what ``transformers``, llama.cpp and plain numpy compute.

The goldens come from ``python -m support.golden FOLDER OUT.json`` with the versions that they
name; ``tiny_untied_logits.json`` is of the model that ``tiny_untied`` makes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest
from flax import nnx

from support.base_model import Pulled
from support.golden import Golden, main, make_golden, max_difference
from support.numpy_llama import numpy_logits
from support.tiny_model import ONE_LAYER, make_tiny_model
from tunix_rt_kit.canonical import digest_file
from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.models import pretrained as loader
from tunix_rt_kit.models.config import ModelConfig, Rope
from tunix_rt_kit.models.pretrained import verify
from tunix_rt_kit.models.tokenizer import load_tokenizer

GOLDENS = Path(__file__).parents[2] / "goldens"
PROMPT = "Ünï 12 + 30 = 42, for rotary positions that are a little apart."
TINY_CONFIGS: list[dict[str, Any]] = [
    {},
    {"tie_word_embeddings": False, "rope_theta": 500000.0},
    {"num_key_value_heads": 1, "head_dim": 32, "rms_norm_eps": 1e-2},
    {"num_key_value_heads": 4, "num_hidden_layers": 3, "rope_theta": 100.0},
]


def tiny_untied(folder: Path) -> Path:
    config = {"tie_word_embeddings": False, "rope_theta": 500000.0, "num_key_value_heads": 1, "head_dim": 32}
    return make_tiny_model(folder, seed=7, config=config, shards=3, scale=0.2)


def run(model: Any, mesh: jax.sharding.Mesh, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
    ids = jnp.asarray([tokens], jnp.int32)
    with mesh:
        return np.asarray(loader.logits(model, ids, jnp.ones_like(ids, bool))[0])


def run_all(
    model: Any, mesh: jax.sharding.Mesh, sequences: Sequence[Sequence[int]]
) -> npt.NDArray[np.float32]:
    """Logits of all sequences in one padded batch, which compiles once."""
    ids = np.zeros((len(sequences), max(map(len, sequences))), np.int32)
    mask = np.zeros(ids.shape, bool)
    for row, tokens in enumerate(sequences):
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = True
    with mesh:
        return np.asarray(loader.logits(model, jnp.asarray(ids), jnp.asarray(mask)))


def read_golden(name: str) -> Golden:
    return Golden.model_validate_json((GOLDENS / name).read_text("utf-8"))


def logits_of(folder: Path, golden: Golden) -> list[npt.NDArray[np.float32]]:
    """What the model of the golden computes of its prompts."""
    assert golden.weights == {file.name: digest_file(file) for file in sorted(folder.glob("*.safetensors"))}
    mesh = loader.make_mesh()
    model = loader.load_model(folder, dtype="float32", mesh=mesh)
    return list(run_all(model, mesh, [prompt.tokens for prompt in golden.prompts]))


def worst(golden: Golden, found: Sequence[npt.NDArray[np.float32]]) -> float:
    return max(max_difference(p, logits) for p, logits in zip(golden.prompts, found, strict=True))


@pytest.fixture
def tunix_rope(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tunix as it is: it turns every Llama by a base of 1e6.

    What was compiled with it is found again by the model's configuration and the shape of the tokens, which
    no other test may have.
    """
    monkeypatch.setattr(ModelConfig, "rope_of", lambda *_: Rope(1e6))


@pytest.fixture(scope="module")
def of_smollm2(smollm2: Pulled) -> list[npt.NDArray[np.float32]]:
    """What SmolLM2 computes of the prompts of its golden."""
    return logits_of(smollm2.folder, read_golden("smollm2_logits.json"))


@pytest.mark.slow
def test_smollm2_agrees_with_transformers(smollm2: Pulled, of_smollm2: list[npt.NDArray[np.float32]]) -> None:
    golden = read_golden("smollm2_logits.json")
    tokenizer = load_tokenizer(smollm2.folder)
    assert [tokenizer.encode(prompt.text) for prompt in golden.prompts] == [p.tokens for p in golden.prompts]
    assert worst(golden, of_smollm2) < 1e-3


@pytest.mark.slow
@pytest.mark.usefixtures("tunix_rope")
def test_smollm2_disagrees_without_its_rope_base(smollm2: Pulled) -> None:
    golden = read_golden("smollm2_logits.json")
    golden = golden.model_copy(update={"prompts": golden.prompts[:3]})
    assert worst(golden, logits_of(smollm2.folder, golden)) > 1.0


def test_smollm2_continues_text_as_llama_cpp_does_from_the_same_gguf(
    of_smollm2: list[npt.NDArray[np.float32]],
) -> None:
    # llama.cpp rounds activations to 8 bits, so that near ties may fall the other way; with Q and K in the
    # wrong order fewer than 60% agree.
    prompts = json.loads((GOLDENS / "smollm2_llama_cpp.json").read_text("utf-8"))["prompts"][:4]
    same = read_golden("smollm2_logits.json").prompts
    assert [prompt["tokens"] for prompt in prompts] == [prompt.tokens for prompt in same]
    found = [logits.argmax(-1) for logits in of_smollm2]
    agree = [row[: len(p["next"])] == p["next"] for row, p in zip(found, prompts, strict=True)]
    assert np.concatenate(agree).mean() > 0.9


def test_untied_sharded_model_agrees_with_transformers(tmp_path: Path) -> None:
    golden = read_golden("tiny_untied_logits.json")
    assert worst(golden, logits_of(tiny_untied(tmp_path / "model"), golden)) < 1e-4


@pytest.mark.parametrize("config", TINY_CONFIGS, ids=range(len(TINY_CONFIGS)))
@pytest.mark.parametrize("shards", [1, 2])
def test_any_plain_llama_agrees_with_numpy(tmp_path: Path, config: dict[str, Any], shards: int) -> None:
    folder = make_tiny_model(tmp_path / "model", config=config, shards=shards, scale=0.2)
    report = verify(folder, prompts=[PROMPT], reference=numpy_logits)
    assert report.passed
    assert report.max_abs_difference < 1e-4
    assert report.prompts[0].tokens == len(PROMPT.encode())
    assert report.prompts[0].top1_agreement == 1.0


def test_models_with_different_rope_bases_live_side_by_side(tmp_path: Path) -> None:
    mesh = loader.make_mesh()
    folders = [
        make_tiny_model(tmp_path / f"{t}", config=ONE_LAYER | {"rope_theta": t}, scale=0.2)
        for t in (10.0, 1e6)
    ]
    models = [loader.load_model(folder, dtype="float32", mesh=mesh) for folder in folders]
    tokens = load_tokenizer(folders[0]).encode(PROMPT)
    for folder, model in zip(folders, models, strict=True):
        np.testing.assert_allclose(run(model, mesh, tokens), next(numpy_logits(folder, [tokens])), atol=1e-4)


@pytest.mark.usefixtures("tunix_rope")
def test_verify_reports_a_difference(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model", config=ONE_LAYER | {"rope_theta": 123.0}, scale=0.2)
    report = verify(folder, prompts=[PROMPT], reference=numpy_logits)
    assert not report.passed
    assert report.max_abs_difference > report.tolerance


def test_padding_does_not_change_the_logits_of_what_comes_before(tiny: Path) -> None:
    mesh = loader.make_mesh()
    model = loader.load_model(tiny, dtype="float32", mesh=mesh)
    tokens = load_tokenizer(tiny).encode(PROMPT)
    padded = jnp.asarray([tokens + [0] * 9, tokens[:5] + [0] * (len(tokens) + 4)], jnp.int32)
    mask = np.zeros(padded.shape, bool)
    mask[0, : len(tokens)] = mask[1, :5] = True
    with mesh:
        both = np.asarray(loader.logits(model, padded, jnp.asarray(mask)))
    alone = run(model, mesh, tokens)
    np.testing.assert_allclose(both[0, : len(tokens)], alone, atol=1e-5)
    np.testing.assert_allclose(both[1, :5], alone[:5], atol=1e-5)


def test_weights_are_cast_to_the_type_asked_for(tiny: Path) -> None:
    mesh = loader.make_mesh()
    leaves = jax.tree.leaves(nnx.state(loader.load_model(tiny, dtype="bfloat16", mesh=mesh)))
    assert {str(leaf.dtype) for leaf in leaves} == {"bfloat16"}


def test_golden_keeps_four_positions_of_each_prompt(tiny: Path) -> None:
    golden = make_golden(tiny, prompts=[PROMPT, "ab"], reference=numpy_logits)
    assert [[row.position for row in p.rows] for p in golden.prompts] == [[0, 21, 43, 64], [0, 1]]
    (logits,) = numpy_logits(tiny, [golden.prompts[0].tokens])
    assert max_difference(golden.prompts[0], logits) == 0
    assert max_difference(golden.prompts[0], logits + np.float32(0.5)) == pytest.approx(0.5, abs=1e-6)


def test_missing_torch_is_named_with_the_command(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(FailedPrecondition, match="run: pip install torch transformers") as caught:
        verify(tiny)
    assert caught.value.reason == "TORCH_MISSING"


def test_golden_command_tells_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["golden"]) == 2
    assert "FOLDER OUT.json" in capsys.readouterr().err
