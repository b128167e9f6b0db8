"""What an evaluation may be asked for, and what it is then made from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support import scripted_evaluator as script
from support.checkpoints import CHATML, FakeTrainer
from support.evaluating import FOUR, create, ended, eval_set, run, running, until
from support.malformed_models import malformed
from support.serving import fields, refused
from support.tiny_model import make_tiny_model
from tunix_rt import v1
from tunix_rt_evaluator.wiring import EvaluatorSettings
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.models.store import ModelStore


async def test_defaults_are_filled_in(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    made = await evaluator.CreateEvaluation(
        v1.CreateEvaluationRequest(spec=v1.EvaluationSpec(eval_set="evalSets/sums", base_model="tiny"))
    )
    assert made.spec.decoding.max_new_tokens == 128
    assert made.spec.decoding.batch_size == 16
    assert made.spec.dtype == v1.DTYPE_AUTO
    assert made.spec.chat_template.jinja
    assert made.spec.chat_template.eos_token == "<|im_end|>"
    assert made.spec.chat_template.digest.startswith("sha256:")


async def test_a_checkpoint_is_asked_in_its_own_template(
    evaluator: Any, checkpoint: str, trainer: tuple[FakeTrainer, str]
) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    done = await run(evaluator, checkpoint=checkpoint)
    assert done.summary.overall.correct_count == 3
    assert done.spec.chat_template.builtin == "chatml"
    assert done.spec.chat_template.digest == CHATML.digest
    known = trainer[0].checkpoints[checkpoint]
    assert done.manifest.checkpoint_digest == known.digest
    assert done.manifest.training_manifest_digest == known.manifest_file.digest
    assert done.manifest.dataset_digest == "sha256:d"


async def test_another_template_than_the_checkpoints_is_refused(evaluator: Any, checkpoint: str) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    same = v1.ChatTemplate(builtin="chatml")
    assert (await create(evaluator, checkpoint=checkpoint, chat_template=same)).name
    other = v1.ChatTemplate(builtin="chatml", system_instruction="Be brief.")
    error = await refused(create(evaluator, checkpoint=checkpoint, chat_template=other))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "CHAT_TEMPLATE_MISMATCH")
    assert error.metadata["checkpoint_chat_template"] == CHATML.digest


async def test_a_checkpoint_of_other_base_weights_is_refused(
    evaluator: Any, trainer: tuple[FakeTrainer, str]
) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    name = trainer[0].add(9, base_weights_digest="sha256:" + "0" * 64)
    error = await refused(create(evaluator, checkpoint=name))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "BASE_MODEL_MISMATCH")
    name = trainer[0].add(10, base_model="absent")
    error = await refused(create(evaluator, checkpoint=name))
    assert (error.code, error.reason) == ("NOT_FOUND", "BASE_MODEL_UNKNOWN")


async def test_a_checkpoint_whose_template_is_read_differently_is_refused(
    evaluator: Any, checkpoint: str, trainer: tuple[FakeTrainer, str]
) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    trainer[0].checkpoints[checkpoint].manifest.chat_template_digest = "sha256:other"
    error = await refused(create(evaluator, checkpoint=checkpoint))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "CHAT_TEMPLATE_MISMATCH")


@pytest.mark.parametrize(
    ("spec", "code", "reason", "wrong"),
    [
        ({"base_model": "nobody"}, "NOT_FOUND", "BASE_MODEL_UNKNOWN", []),
        ({"eval_set": "evalSets/none"}, "NOT_FOUND", "EVAL_SET_NOT_FOUND", []),
        ({"eval_set": "sums"}, "INVALID_ARGUMENT", "RESOURCE_NAME_INVALID", ["spec.eval_set"]),
        (
            {"checkpoint": "trainingJobs/job/checkpoints/1"},
            "NOT_FOUND",
            "CHECKPOINT_NOT_FOUND",
            [],
        ),
        ({"checkpoint": "job/1"}, "INVALID_ARGUMENT", "RESOURCE_NAME_INVALID", ["spec.checkpoint"]),
        ({"base_model": ""}, "INVALID_ARGUMENT", "EVALUATION_SPEC_INVALID", ["spec.base_model"]),
        (
            {"decoding": {"max_new_tokens": 0, "batch_size": 257}, "dtype": 9},
            "INVALID_ARGUMENT",
            "EVALUATION_SPEC_INVALID",
            ["spec.decoding.max_new_tokens", "spec.decoding.batch_size", "spec.dtype"],
        ),
        (
            {"decoding": {"max_new_tokens": 8193}},
            "INVALID_ARGUMENT",
            "EVALUATION_SPEC_INVALID",
            ["spec.decoding.max_new_tokens"],
        ),
        ({"chat_template": {"builtin": "nope"}}, "INVALID_ARGUMENT", "CHAT_TEMPLATE_UNKNOWN", []),
        ({"chat_template": {}}, "INVALID_ARGUMENT", "CHAT_TEMPLATE_INVALID", []),
        (
            {"chat_template": {"builtin": "gemma-it"}},
            "FAILED_PRECONDITION",
            "CHAT_TEMPLATE_MISMATCH",
            [],
        ),
        (
            {"chat_template": {"jinja": "{{ nothing.at.all }}", "eos_token": "x"}},
            "INVALID_ARGUMENT",
            "CHAT_TEMPLATE_INVALID",
            [],
        ),
        (
            {"chat_template": {"builtin": "chatml", "system_instruction": "s" * 20_001}},
            "INVALID_ARGUMENT",
            "CHAT_TEMPLATE_INVALID",
            ["spec.chat_template.system_instruction"],
        ),
    ],
)
async def test_a_wrong_spec_is_refused_by_field(
    evaluator: Any, spec: dict[str, Any], code: str, reason: str, wrong: list[str]
) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    error = await refused(create(evaluator, **spec))
    assert (error.code, error.reason, fields(error)) == (code, reason, wrong)
    assert not (await evaluator.ListEvaluations(v1.ListEvaluationsRequest())).evaluations


async def test_a_base_model_without_a_template_needs_one(evaluator: Any, settings: EvaluatorSettings) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    folder = make_tiny_model(settings.models / "bare")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["chat_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    error = await refused(create(evaluator, base_model="bare"))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "CHAT_TEMPLATE_MISSING")
    assert (await create(evaluator, base_model="bare", chat_template={"builtin": "chatml"})).name


async def test_a_catalogued_model_that_is_not_here_yet_is_asked_in_its_own_template(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    made = await create(evaluator, base_model="smollm2-135m-instruct")
    assert not made.spec.HasField("chat_template")
    done = await until(evaluator, made, ended)
    # The worker found out, and the spec says it.
    assert done.spec.chat_template.jinja == script.OWN["jinja"]


async def test_a_template_in_jinja_is_taken_as_it_is(
    evaluator: Any, trainer: tuple[FakeTrainer, str], settings: EvaluatorSettings
) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    source = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    own = ChatTemplate.from_jinja(source, eos_token="<|im_end|>")
    digest = ModelStore(settings.models).resolve("tiny").weights_digest or ""
    name = trainer[0].add(3, template=own, base_weights_digest=digest)
    done = await run(evaluator, checkpoint=name)
    assert done.spec.chat_template.jinja == source
    assert done.manifest.chat_template_digest == own.digest


@pytest.mark.usefixtures("quick_retries")
async def test_a_trainer_that_is_not_there_is_named(
    evaluator: Any, settings: EvaluatorSettings, checkpoint: str
) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    lonely = settings.model_copy(update={"trainer_target": "127.0.0.1:9"})
    async with running(lonely) as other:
        error = await refused(create(other, checkpoint=checkpoint))
    assert (error.code, error.reason) == ("UNAVAILABLE", "UPSTREAM_UNAVAILABLE")
    assert "trainer" in error.message


async def test_an_evaluations_request_id_is_bound_to_its_body(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    first = await create(evaluator, request_id="r")
    assert (await create(evaluator, request_id="r")).name == first.name
    for dtype in (v1.DTYPE_BFLOAT16, v1.DTYPE_FLOAT32):
        error = await refused(create(evaluator, request_id="r", dtype=dtype))
        assert (error.code, error.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")
    assert (await create(evaluator, request_id="r", dtype=v1.DTYPE_AUTO)).name == first.name
    assert len((await evaluator.ListEvaluations(v1.ListEvaluationsRequest())).evaluations) == 1


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_model_whose_files_are_malformed_is_refused_by_name(evaluator: Any, tmp_path: Path) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    kinds = ("stops", "config.json is", "weights", "another head")
    for name, folder, words in malformed(tmp_path / "models"):
        if name.startswith(kinds):
            error = await refused(create(evaluator, base_model=str(folder)))
            assert (error.code, error.reason) == ("FAILED_PRECONDITION", "BASE_MODEL_UNSUPPORTED"), name
            assert all(word in error.message for word in words), name
    listed = await evaluator.ListEvaluations(v1.ListEvaluationsRequest())
    assert not listed.evaluations
