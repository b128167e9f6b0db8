"""The evaluator with its real worker on a tiny model: base and adapter, run twice, compared."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import pytest_asyncio

from support.checkpoints import FakeTrainer, training
from support.migrated import migrated
from support.serving import served
from support.tiny_model import ONE_LAYER, make_tiny_model
from tunix_rt import v1
from tunix_rt_evaluator.wiring import EvaluatorSettings, build, migrate
from tunix_rt_kit.models.export import merge_adapter
from tunix_rt_kit.models.lora import apply_lora, save_adapter
from tunix_rt_kit.models.pretrained import load_model, make_mesh
from tunix_rt_kit.models.runtime import fast_dtype
from tunix_rt_kit.models.store import ModelStore

ITEMS = [
    v1.EvalItem(id=f"q{number}", prompt="Count on. " * (number % 5 + 1) + str(number), accepted_answers=["4"])
    for number in range(10)
]


# One worker answers for all tests: it takes seconds to start, and compiles as long.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluator")


@pytest.fixture(scope="module")
def trainer(data_dir: Path) -> Iterator[tuple[FakeTrainer, str]]:
    with training(data_dir / "artifacts") as served_trainer:
        yield served_trainer


@pytest.fixture(scope="module")
def settings(data_dir: Path, trainer: tuple[FakeTrainer, str]) -> EvaluatorSettings:
    make_tiny_model(data_dir / "models" / "tiny", config=ONE_LAYER | {"max_position_embeddings": 256})
    made = EvaluatorSettings(
        listen="127.0.0.1:0",
        data_dir=data_dir,
        trainer_target=trainer[1],
        # Who asks it about datasets is told at once that there is no exporter.
        exporter_target=trainer[1],
        shutdown_grace_s=10.0,
    )
    migrated(made, migrate)
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def evaluator(settings: EvaluatorSettings) -> AsyncIterator[Any]:
    stop = asyncio.Event()
    async with served(build(settings, stop), stop=stop) as channel:
        stub = v1.EvaluatorStub(channel)
        wanted = v1.EvalSet(eval_set_id="counts", items=ITEMS)
        await stub.CreateEvalSet(v1.CreateEvalSetRequest(eval_set=wanted))
        yield stub


async def run(evaluator: Any, **spec: Any) -> v1.Evaluation:
    values = {
        "eval_set": "evalSets/counts",
        "decoding": v1.Decoding(max_new_tokens=20, batch_size=4),
        "chat_template": v1.ChatTemplate(builtin="chatml"),
    } | spec
    made = await evaluator.CreateEvaluation(v1.CreateEvaluationRequest(spec=v1.EvaluationSpec(**values)))
    states = [state async for state in evaluator.WatchEvaluation(v1.WatchEvaluationRequest(name=made.name))]
    return states[-1]


async def outputs(evaluator: Any, evaluation: v1.Evaluation) -> dict[str, str]:
    request = v1.ListEvaluationItemsRequest(parent=evaluation.name)
    return {
        result.item_id: result.output for result in (await evaluator.ListEvaluationItems(request)).results
    }


def make_adapter(settings: EvaluatorSettings, folder: Path) -> Path:
    """An adapter that changes what the tiny model says."""
    mesh = make_mesh()
    with mesh:
        tuned = apply_lora(
            load_model(settings.models / "tiny", dtype="float32", mesh=mesh), rank=4, alpha=8.0, seed=1
        )
        random = np.random.default_rng(0)
        for layer in tuned.layers:
            b = layer.mlp.down_proj.kernel_lora_b
            b[...] = jnp.asarray(random.normal(size=b.shape, scale=0.3), jnp.float32)
    save_adapter(tuned, folder, alpha=8.0, base_model="tiny")
    return folder


async def test_base_and_adapter_are_answered_the_same_each_time_and_compared(
    evaluator: Any, settings: EvaluatorSettings, trainer: tuple[FakeTrainer, str], tmp_path: Path
) -> None:
    digest = ModelStore(settings.models).resolve("tiny").weights_digest or ""
    adapter = make_adapter(settings, tmp_path / "adapter")
    checkpoint = trainer[0].add(4, weights=adapter, base_weights_digest=digest)

    base = await run(evaluator, base_model="tiny")
    assert base.state == v1.Evaluation.STATE_SUCCEEDED, base.error
    again = await run(evaluator, base_model="tiny", fresh=True)
    tuned = await run(evaluator, checkpoint=checkpoint)
    assert base.manifest.results_digest == again.manifest.results_digest
    assert await outputs(evaluator, base) == await outputs(evaluator, again)
    assert await outputs(evaluator, tuned) != await outputs(evaluator, base)
    assert base.manifest.base_weights_digest == tuned.manifest.base_weights_digest == digest
    assert base.manifest.engine.startswith("tunix/")
    fast = v1.Dtype.Value(f"DTYPE_{fast_dtype(jax.default_backend()).upper()}")
    assert {run.dtype for done in (base, again, tuned) for run in (done.spec, done.manifest.spec)} == {fast}
    assert base.manifest.package_versions["jax"]
    assert tuned.manifest.runtime_settings["adapter"] == "merged in float32"
    assert [timing.stage for timing in base.stage_timings] == [
        "loading the model",
        "compiling",
        "generating",
    ]
    assert base.summary.tokens_per_second > 0
    # One process did all three, one after the other.
    assert len({worker_pid(settings, evaluation) for evaluation in (base, again, tuned)}) == 1

    report = await evaluator.CompareEvaluations(
        v1.CompareEvaluationsRequest(base=base.name, candidate=tuned.name)
    )
    assert report.overall.base.item_count == len(ITEMS)


async def test_answers_are_kept_for_the_next_evaluation_unless_they_are_wanted_fresh(
    evaluator: Any,
) -> None:
    first, kept, other = [
        await run(evaluator, base_model="tiny", decoding=v1.Decoding(max_new_tokens=longest, batch_size=4))
        for longest in (18, 18, 19)
    ]
    assert [done.summary.cached_count for done in (first, kept, other)] == [0, len(ITEMS), 0]
    assert kept.manifest.results_digest == first.manifest.results_digest
    assert [timing.stage for timing in kept.stage_timings] == ["generating"]
    request = v1.ListEvaluationItemsRequest(parent=kept.name)
    assert all(result.cached for result in (await evaluator.ListEvaluationItems(request)).results)
    report = await evaluator.CompareEvaluations(
        v1.CompareEvaluationsRequest(base=first.name, candidate=kept.name)
    )
    assert report.overall.base.correct_count == report.overall.candidate.correct_count


async def test_samples_are_drawn_by_the_seed(evaluator: Any) -> None:
    drawn = {"max_new_tokens": 16, "batch_size": 4, "temperature": 1.0, "samples": 3}
    one, two, other = [
        await run(evaluator, base_model="tiny", fresh=True, decoding=v1.Decoding(seed=seed, **drawn))
        for seed in (1, 1, 2)
    ]
    assert one.manifest.results_digest == two.manifest.results_digest != other.manifest.results_digest
    request = v1.ListEvaluationItemsRequest(parent=one.name)
    for result in (await evaluator.ListEvaluationItems(request)).results:
        assert len(result.samples) == 3
        assert result.samples[0].output == result.output
        assert len({sample.output for sample in result.samples}) == 3


def worker_pid(settings: EvaluatorSettings, evaluation: v1.Evaluation) -> int:
    folder = settings.data_dir / "evaluations" / evaluation.name.rpartition("/")[2]
    return int(json.loads((folder / "worker.pid").read_text())["pid"])


async def test_a_checkpoint_of_all_weights_answers_as_the_same_weights_by_adapter(
    evaluator: Any, settings: EvaluatorSettings, trainer: tuple[FakeTrainer, str], tmp_path: Path
) -> None:
    digest = ModelStore(settings.models).resolve("tiny").weights_digest or ""
    adapter = make_adapter(settings, tmp_path / "adapter")
    merge_adapter(settings.models / "tiny", adapter, tmp_path / "whole")
    by_adapter = await run(
        evaluator, checkpoint=trainer[0].add(5, weights=adapter, base_weights_digest=digest)
    )
    whole = await run(
        evaluator, checkpoint=trainer[0].add(6, weights=tmp_path / "whole", base_weights_digest=digest)
    )
    assert whole.state == v1.Evaluation.STATE_SUCCEEDED, whole.error
    assert await outputs(evaluator, whole) == await outputs(evaluator, by_adapter)
    assert "adapter" not in whole.manifest.runtime_settings
