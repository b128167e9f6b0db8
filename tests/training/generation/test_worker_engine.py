"""Generation in slots against the model run token by token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from support.tiny_model import ONE_LAYER, make_tiny_model
from tunix_rt_evaluator.evaluations.model import Decoding
from tunix_rt_evaluator.worker.compiled import CompiledFunctions
from tunix_rt_evaluator.worker.engine import Prompt, Request, token_digest
from tunix_rt_evaluator.worker.local import BaseWeights, Generator, Output, bucket
from tunix_rt_kit.jobs.child import JobCancelled
from tunix_rt_kit.models.decoder import Decoder
from tunix_rt_kit.models.families import FAMILIES
from tunix_rt_kit.models.pretrained import load_model, logits, make_mesh

CONTEXT = 128
NEW = 20
NO_STOP = (1_000_000,)


@pytest.fixture(scope="module")
def mesh() -> jax.sharding.Mesh:
    return make_mesh()


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = ONE_LAYER | {"tie_word_embeddings": request.param, "rope_theta": 500.0}
    return make_tiny_model(tmp_path_factory.mktemp("model") / "m", seed=5, config=config)


@pytest.fixture(scope="module")
def model(folder: Path, mesh: jax.sharding.Mesh) -> Decoder:
    return load_model(folder, dtype="float32", mesh=mesh)


@pytest.fixture(scope="module")
def compiled(model: Decoder, mesh: jax.sharding.Mesh) -> CompiledFunctions:
    return CompiledFunctions(nnx.split(model)[0], "float32", mesh)


def some_prompts(*lengths: int) -> list[Prompt]:
    random = np.random.default_rng(11)
    found = []
    for number, length in enumerate(lengths):
        ids = tuple(int(i) for i in random.integers(3, 259, length))
        found.append(Prompt(f"p{number}", "", ids, token_digest(ids)))
    return found


def generator(
    model: Decoder,
    compiled: CompiledFunctions,
    *,
    stops: tuple[int, ...] = NO_STOP,
    longest: int = 101,
    **decoding: Any,
) -> Generator:
    settings = Decoding(**({"max_new_tokens": NEW, "batch_size": 2} | decoding))
    return Generator(
        nnx.split(model)[1],
        compiled,
        settings,
        stop_ids=stops,
        pad_id=0,
        context_length=CONTEXT,
        longest=longest,
    )


def answers(found: Generator, prompts: list[Prompt], samples: int = 1) -> dict[tuple[str, int], Output]:
    requests = [Request(prompt, sample) for prompt in prompts for sample in range(samples)]
    outputs = list(found.run(requests, lambda: None))
    assert len(outputs) == len(requests)
    return {(output.request.prompt.item_id, output.request.sample): output for output in outputs}


def one_by_one(model: Decoder, prompt: Prompt, count: int) -> tuple[int, ...]:
    ids = list(prompt.ids)
    for _ in range(count):
        ids.append(int(jnp.argmax(next_logits(model, ids))))
    return tuple(ids[len(prompt.ids) :])


def next_logits(model: Decoder, ids: list[int]) -> jax.Array:
    tokens = np.zeros((1, CONTEXT), np.int32)
    tokens[0, : len(ids)] = ids
    mask = np.arange(CONTEXT)[None] < len(ids)
    return logits(model, jnp.asarray(tokens), jnp.asarray(mask))[0, len(ids) - 1]


LENGTHS = (3, 17, 32, 33, 40, 64, 65, 101, 1, 16, 31, 48, 66, 80, 96, 100, 2, 50, 7, 90)


@pytest.fixture(scope="module")
def expected(model: Decoder) -> dict[str, tuple[int, ...]]:
    return {prompt.item_id: one_by_one(model, prompt, NEW) for prompt in some_prompts(*LENGTHS)}


@pytest.mark.parametrize("rows", [1, 24])
def test_however_many_rows_it_writes_what_the_model_writes_token_by_token(
    model: Decoder, compiled: CompiledFunctions, expected: dict[str, tuple[int, ...]], rows: int
) -> None:
    found = answers(generator(model, compiled, batch_size=rows), some_prompts(*LENGTHS))
    assert {name: output.ids for (name, _), output in found.items()} == expected
    assert not any(output.stopped for output in found.values())


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "llama"])
def test_models_of_the_other_families_write_what_they_write_token_by_token(
    tmp_path: Path, mesh: jax.sharding.Mesh, family: str
) -> None:
    """Windows of 8 tokens are shorter than every prompt."""
    # Gemma has two kinds of layers.
    config = {} if family.startswith("gemma") else ONE_LAYER
    folder = make_tiny_model(tmp_path, family=family, scale=0.2, config=config)
    other = load_model(folder, dtype="float32", mesh=mesh)
    prompts = some_prompts(17, 40, 65)
    compiled = CompiledFunctions(nnx.split(other)[0], "float32", mesh)
    found = answers(generator(other, compiled, longest=65, max_new_tokens=8), prompts)
    for prompt in prompts:
        assert found[prompt.item_id, 0].ids == one_by_one(other, prompt, 8)


def test_an_answer_ends_at_a_stop_token_and_its_row_takes_the_next_prompt(
    model: Decoder, compiled: CompiledFunctions
) -> None:
    prompts = some_prompts(5, 9, 21, 30, 12, 7, *range(40, 70))
    free = answers(generator(model, compiled), prompts)
    stop = free["p1", 0].ids[6]
    stopped = answers(generator(model, compiled, stops=(stop, 7_777_777)), prompts)
    for name, output in free.items():
        at = output.ids.index(stop) + 1 if stop in output.ids else NEW
        assert (stopped[name].ids, stopped[name].stopped) == (output.ids[:at], stop in output.ids)
    assert stopped["p1", 0].stopped
    assert len(stopped["p1", 0].ids) <= 7


def test_an_answer_ends_at_the_end_of_the_context(model: Decoder, compiled: CompiledFunctions) -> None:
    prompts = some_prompts(CONTEXT - 1, CONTEXT - 5, 8)
    found = answers(generator(model, compiled, longest=CONTEXT - 1), prompts)
    assert [len(found[f"p{number}", 0].ids) for number in range(3)] == [1, 5, NEW]


def test_one_new_token_needs_no_decoding(model: Decoder, compiled: CompiledFunctions) -> None:
    prompts = some_prompts(6, 9, 12)
    found = answers(generator(model, compiled, max_new_tokens=1), prompts)
    assert [found[f"p{number}", 0].ids for number in range(3)] == [
        one_by_one(model, prompt, 1) for prompt in prompts
    ]


def test_log_probabilities_are_those_of_the_model(model: Decoder, compiled: CompiledFunctions) -> None:
    (prompt,) = some_prompts(19)
    found = answers(generator(model, compiled, log_probabilities=True, temperature=0.7, seed=3), [prompt])
    output, ids = found["p0", 0], list(prompt.ids)
    assert len(output.log_probabilities) == NEW
    for token, log in zip(output.ids, output.log_probabilities, strict=True):
        assert log == pytest.approx(float(jax.nn.log_softmax(next_logits(model, ids))[token]), abs=1e-4)
        ids.append(token)


def test_samples_differ_by_number_and_seed_and_are_the_same_again(
    model: Decoder, compiled: CompiledFunctions
) -> None:
    prompts = some_prompts(11, 23)
    # With log-probabilities, whose functions were compiled already.
    made, once_more, of_two = (
        generator(model, compiled, temperature=1.0, seed=seed, log_probabilities=True) for seed in (1, 1, 2)
    )
    first = answers(made, prompts, samples=3)
    again = answers(once_more, prompts[::-1], samples=3)
    other = answers(of_two, prompts, samples=3)
    assert {key: output.ids for key, output in first.items()} == {
        key: output.ids for key, output in again.items()
    }
    assert len({output.ids for output in [*first.values(), *other.values()]}) == 12


def test_a_run_ends_when_the_check_raises(model: Decoder, compiled: CompiledFunctions) -> None:
    checks = []

    def check() -> None:
        checks.append(1)
        if len(checks) == 2:
            raise JobCancelled

    with pytest.raises(JobCancelled):
        list(generator(model, compiled).run([Request(prompt) for prompt in some_prompts(6, 7, 8, 9)], check))


@pytest.mark.optimized
def test_not_a_bit_of_an_answer_in_bfloat16_depends_on_the_batch_size(
    folder: Path, mesh: jax.sharding.Mesh
) -> None:
    rounded = BaseWeights(folder, mesh).model(None, "bfloat16")
    compiled, prompts = CompiledFunctions(nnx.split(rounded)[0], "bfloat16", mesh), some_prompts(*LENGTHS)
    of_sizes = []
    for rows in (16, 1, 3, 9, 24):
        found = answers(generator(rounded, compiled, batch_size=rows, log_probabilities=True), prompts)
        of_sizes.append({name: (output.ids, output.log_probabilities) for name, output in found.items()})
    assert all(found == of_sizes[0] for found in of_sizes)


@pytest.mark.optimized
@pytest.mark.parametrize("temperature", [0.0, 0.9], ids=["greedy", "drawn"])
def test_not_a_bit_of_an_answer_depends_on_its_neighbours_or_its_row(
    model: Decoder, mesh: jax.sharding.Mesh, temperature: float
) -> None:
    compiled, prompts = CompiledFunctions(nnx.split(model)[0], "float32", mesh), some_prompts(*LENGTHS)
    made = generator(
        model, compiled, batch_size=4, temperature=temperature, log_probabilities=True, stops=(7, 9, 44)
    )
    together = answers(made, prompts)
    for some in (prompts[:3], prompts[::-1][:18], [prompts[4]]):
        for key, output in answers(made, some).items():
            assert output.ids == together[key].ids
            assert output.log_probabilities == together[key].log_probabilities


def test_buckets_are_few_multiples_of_32_and_hold_the_length() -> None:
    assert [bucket(length) for length in (1, 32, 33, 65, 97, 129, 200, 300)] == [
        32, 32, 64, 96, 128, 192, 256, 384,
    ]  # fmt: skip
    assert all(bucket(length) >= length for length in range(1, 3000))
