"""Greedy generation against the model run token by token, and adapters merged against adapters applied."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from support.tiny_model import make_tiny_model
from tunix_rt_evaluator.worker.batches import Prompt, plan_batches
from tunix_rt_evaluator.worker.engine import Engine, Output
from tunix_rt_evaluator.worker.weights import load_weights
from tunix_rt_kit.jobs import JobCancelled
from tunix_rt_kit.models.families import FAMILIES
from tunix_rt_kit.models.loader import load_model, logits, make_mesh
from tunix_rt_kit.models.lora import apply_lora, load_adapter, save_adapter
from tunix_rt_kit.models.networks import Decoder

CONTEXT = 128
NEW = 20
NO_STOP = (1_000_000,)


@pytest.fixture(scope="module")
def mesh() -> jax.sharding.Mesh:
    return make_mesh()


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = {"tie_word_embeddings": request.param, "rope_theta": 500.0}
    return make_tiny_model(tmp_path_factory.mktemp("model") / "m", seed=5, config=config)


@pytest.fixture(scope="module")
def model(folder: Path, mesh: jax.sharding.Mesh) -> Decoder:
    return load_model(folder, dtype="float32", mesh=mesh)


def some_prompts(*lengths: int) -> list[Prompt]:
    random = np.random.default_rng(11)
    return [
        Prompt(f"p{number}", tuple(int(i) for i in random.integers(3, 259, length)))
        for number, length in enumerate(lengths)
    ]


def generate(
    model: Decoder,
    mesh: jax.sharding.Mesh,
    prompts: list[Prompt],
    *,
    rows: int,
    stops: tuple[int, ...] = NO_STOP,
    new: int = NEW,
) -> dict[str, Output]:
    engine = Engine(model, mesh, stop_ids=stops, pad_id=0, context_length=CONTEXT)
    outputs = {}
    for batch in plan_batches(prompts, batch_size=rows, max_new_tokens=new):
        engine.compile(batch.shape)
        results = engine.run(batch, lambda: None)
        outputs |= {prompt.item_id: result for prompt, result in zip(batch.prompts, results, strict=True)}
    return outputs


def one_by_one(model: Decoder, prompt: Prompt, count: int) -> tuple[int, ...]:
    ids = list(prompt.ids)
    for _ in range(count):
        tokens = np.zeros((1, CONTEXT), np.int32)
        tokens[0, : len(ids)] = ids
        mask = np.arange(CONTEXT)[None] < len(ids)
        ids.append(int(jnp.argmax(logits(model, jnp.asarray(tokens), jnp.asarray(mask))[0, len(ids) - 1])))
    return tuple(ids[len(prompt.ids) :])


def test_batched_and_padded_it_writes_what_the_model_writes_token_by_token(
    model: Decoder, mesh: jax.sharding.Mesh
) -> None:
    prompts = some_prompts(3, 17, 32, 33, 40, 64, 65, 101)
    outputs = generate(model, mesh, prompts, rows=2)
    for prompt in prompts:
        assert outputs[prompt.item_id] == Output(one_by_one(model, prompt, NEW), stopped=False)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "llama"])
def test_models_of_the_other_families_write_what_they_write_token_by_token(
    tmp_path: Path, mesh: jax.sharding.Mesh, family: str
) -> None:
    """Windows of 8 tokens are shorter than every prompt, and prompts are padded on the left."""
    other = load_model(make_tiny_model(tmp_path, family=family, scale=0.2), dtype="float32", mesh=mesh)
    prompts = some_prompts(17, 40, 65)
    outputs = generate(other, mesh, prompts, rows=3, new=8)
    for prompt in prompts:
        assert outputs[prompt.item_id].ids == one_by_one(other, prompt, 8)


def test_a_row_stops_at_a_stop_token_while_others_go_on(model: Decoder, mesh: jax.sharding.Mesh) -> None:
    prompts = some_prompts(5, 9, 21)
    free = generate(model, mesh, prompts, rows=4)
    stop = free["p1"].ids[6]
    stopped = generate(model, mesh, prompts, rows=4, stops=(stop, 7_777_777))
    for name, output in free.items():
        at = output.ids.index(stop) + 1 if stop in output.ids else NEW
        assert stopped[name] == Output(output.ids[:at], stopped=stop in output.ids)
    assert stopped["p1"].stopped
    assert len(stopped["p1"].ids) <= 7


def test_a_row_ends_at_the_end_of_the_context(model: Decoder, mesh: jax.sharding.Mesh) -> None:
    outputs = generate(model, mesh, some_prompts(CONTEXT - 1, CONTEXT - 5, 8), rows=3)
    assert [len(outputs[f"p{number}"].ids) for number in range(3)] == [1, 5, NEW]


def test_one_new_token_needs_no_decoding(model: Decoder, mesh: jax.sharding.Mesh) -> None:
    prompts = some_prompts(6)
    assert generate(model, mesh, prompts, rows=1, new=1)["p0"].ids == one_by_one(model, prompts[0], 1)


def test_a_run_ends_when_the_check_raises(model: Decoder, mesh: jax.sharding.Mesh) -> None:
    engine = Engine(model, mesh, stop_ids=NO_STOP, pad_id=0, context_length=CONTEXT)
    (batch,) = plan_batches(some_prompts(6), batch_size=1, max_new_tokens=40)
    engine.compile(batch.shape)
    checks = []

    def check() -> None:
        checks.append(1)
        if len(checks) == 2:
            raise JobCancelled

    with pytest.raises(JobCancelled):
        engine.run(batch, check)


def test_a_merged_adapter_computes_what_the_applied_one_computes(
    folder: Path, mesh: jax.sharding.Mesh, tmp_path: Path
) -> None:
    base = load_model(folder, dtype="float32", mesh=mesh)
    with mesh:
        tuned = apply_lora(base, rank=4, alpha=8.0, seed=1)
        random = np.random.default_rng(0)
        for layer in tuned.layers:
            for projection, name in (
                (layer.attn.q_proj, "w"),
                (layer.attn.o_proj, "w"),
                (layer.mlp.down_proj, "kernel"),
            ):
                b = getattr(projection, f"{name}_lora_b")
                b[...] = jnp.asarray(random.normal(size=b.shape, scale=0.1), jnp.float32)
    save_adapter(tuned, tmp_path, alpha=8.0, base_model="m")
    merged = load_weights(folder, tmp_path, dtype="float32", mesh=mesh)
    applied = load_adapter(load_model(folder, dtype="float32", mesh=mesh), tmp_path)
    tokens = jnp.asarray(np.random.default_rng(1).integers(3, 259, (2, 24)), jnp.int32)
    mask = jnp.ones((2, 24), bool)
    expected = logits(applied, tokens, mask)
    assert float(jnp.abs(expected - logits(base, tokens, mask)).max()) > 0.05
    assert float(jnp.abs(expected - logits(merged, tokens, mask)).max()) < 1e-4


def test_merged_weights_have_the_type_that_was_asked_for(
    folder: Path, mesh: jax.sharding.Mesh, tmp_path: Path
) -> None:
    tuned = apply_lora(load_model(folder, dtype="float32", mesh=mesh), rank=2, alpha=2.0, seed=0)
    save_adapter(tuned, tmp_path, alpha=2.0, base_model="m")
    merged = load_weights(folder, tmp_path, dtype="bfloat16", mesh=mesh)
    base = load_weights(folder, None, dtype="bfloat16", mesh=mesh)
    assert merged.layers[0].attn.q_proj.w.dtype == jnp.bfloat16
    # B is still zero, so merging changed nothing.
    assert jnp.array_equal(merged.layers[1].mlp.up_proj.kernel[...], base.layers[1].mlp.up_proj.kernel[...])
