"""The local engine: what ends its answers, what they depend on, and what it says when it cannot answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from support.tiny_model import make_tiny_model
from tunix_rt_evaluator.evaluations.job_folders import WorkerItem, WorkerSpec
from tunix_rt_evaluator.evaluations.model import Decoding
from tunix_rt_evaluator.worker.engine import Completion, Request
from tunix_rt_evaluator.worker.local import Generator, Loaded, LocalEngine
from tunix_rt_kit.errors import FailedPrecondition, ResourceExhausted
from tunix_rt_kit.values import ChatTemplateFields


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_tiny_model(tmp_path / "models" / "base", seed=3, scale=0.3)


def engine(base: Path, loaded: Loaded | None = None, **decoding: Any) -> LocalEngine:
    spec = WorkerSpec(
        evaluation="evaluations/e",
        attempt=1,
        base_model="base",
        models_dir=str(base.parent),
        checkpoint_dir=None,
        base_weights_digest=None,
        chat_template=ChatTemplateFields(builtin="chatml"),
        decoding=Decoding(**({"max_new_tokens": 8} | decoding)),
        dtype="float32",
        items=(WorkerItem(id="q", prompt="How many?"),),
        code_revision="test",
    )
    return LocalEngine(spec, None, loaded or Loaded(), lambda *_: None)


def completed(found: LocalEngine) -> Completion:
    (prompt,), _ = found.read((WorkerItem(id="q", prompt="How many?"),))
    found.prepare(lambda *_: None)
    (completion,) = found.complete([Request(prompt)], lambda: None)
    return completion


def answered(base: Path, loaded: Loaded | None = None) -> tuple[str, int]:
    answer = completed(engine(base, loaded)).answer
    assert answer is not None
    return answer.finish_reason, answer.output_tokens


def edit(path: Path, **fields: Any) -> None:
    values = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(values | fields))


def test_an_answer_ends_at_every_token_that_the_model_says_ends_one(base: Path) -> None:
    assert answered(base) == ("length", 8)
    edit(base / "generation_config.json", eos_token_id=list(range(3, 11)))
    others = engine(base).identity["stops"]
    assert set(range(3, 11)) < set(others)
    every_byte = [list(range(first, first + 8)) for first in range(3, 259, 8)]
    ended = []
    for ids in every_byte:
        edit(base / "generation_config.json", eos_token_id=ids)
        ended.append(answered(base)[0])
        if ended[-1] == "stop":
            break
    assert ended[-1] == "stop"


def test_the_configuration_of_the_model_says_what_ends_an_answer_where_that_of_generation_is_not_there(
    base: Path,
) -> None:
    edit(base / "config.json", eos_token_id=[40, 41])
    assert {40, 41} < set(engine(base).identity["stops"])
    edit(base / "generation_config.json", eos_token_id=42)
    stops = set(engine(base).identity["stops"])
    assert 42 in stops and not {40, 41} & stops
    edit(base / "generation_config.json", eos_token_id=None)
    assert not {40, 41, 42} & set(engine(base).identity["stops"])


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
@pytest.mark.parametrize("value", ["<|im_end|>", [1, -1], list(range(9)), 2.0, True])
def test_end_tokens_that_are_none_are_named(base: Path, file: str, value: Any) -> None:
    edit(base / file, eos_token_id=value)
    with pytest.raises(FailedPrecondition, match=f"{file}: eos_token_id") as caught:
        engine(base)
    assert caught.value.reason == "BASE_MODEL_UNSUPPORTED"


def test_another_configuration_of_the_same_weights_is_another_model(base: Path) -> None:
    loaded = Loaded()
    first = engine(base, loaded, log_probabilities=True)
    before = completed(first).answer
    edit(base / "config.json", rope_theta=3.0)
    second = engine(base, loaded, log_probabilities=True)
    after = completed(second).answer
    assert before is not None
    assert after is not None
    assert before.log_probabilities != after.log_probabilities
    assert first.identity != second.identity
    assert first.facts.base_config_digest != second.facts.base_config_digest
    assert first.facts.base_weights_digest == second.facts.base_weights_digest


@pytest.mark.parametrize("error", [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: no 9 GiB")])
def test_too_little_memory_is_said_with_what_takes_less(
    base: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def run(*_: Any) -> Iterator[None]:
        raise error
        yield

    monkeypatch.setattr(Generator, "run", run)
    with pytest.raises(ResourceExhausted, match="16 answers of up to 8 tokens do not fit") as caught:
        completed(engine(base))
    assert caught.value.reason == "OUT_OF_MEMORY"
    assert "decoding.batch_size" in caught.value.message


def test_an_answer_whose_probabilities_are_no_numbers_fails(base: Path) -> None:
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"] = np.full_like(weights["model.norm.weight"], 3e38)
    save_file(weights, base / "model.safetensors")
    completion = completed(engine(base, log_probabilities=True))
    assert completion.answer is None
    assert "log-probabilities are no finite numbers" in completion.error
