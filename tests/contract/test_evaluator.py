"""The evaluator over a real channel, on both databases; its worker acts out evaluations without a model."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from google.rpc import error_details_pb2

from support import scripted_evaluator as script
from support.checkpoints import CHATML, FakeTrainer, training
from support.evaluating import FOUR, create, document, ended, eval_set, get, item, items_of, run, until
from support.serving import fields, refused, served
from support.tiny_model import make_tiny_model
from tunix_rt import v1
from tunix_rt_evaluator import job_folders
from tunix_rt_evaluator.model import EvaluationState, EvaluationUpdate, WorkerSpec
from tunix_rt_evaluator.repository import SqlEvaluationRepository
from tunix_rt_evaluator.settings import EvaluatorSettings
from tunix_rt_evaluator.wiring import build, migrate
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.database import Database
from tunix_rt_kit.jobs import WorkerProcess
from tunix_rt_kit.models.store import ModelStore

TESTS = Path(__file__).parents[1]
State = v1.Evaluation


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations are acted out by ``support.scripted_evaluator``."""
    monkeypatch.setattr(job_folders, "WORKER_MODULE", "support.scripted_evaluator")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))


@pytest.fixture
def trainer(tmp_path: Path) -> Iterator[tuple[FakeTrainer, str]]:
    with training(tmp_path / "artifacts") as served_trainer:
        yield served_trainer


@pytest.fixture
def settings(database_url: str, tmp_path: Path, trainer: tuple[FakeTrainer, str]) -> EvaluatorSettings:
    make_tiny_model(tmp_path / "models" / "tiny")
    made = EvaluatorSettings(
        listen="127.0.0.1:0",
        database_url=database_url,
        data_dir=tmp_path,
        trainer_target=trainer[1],
        shutdown_grace_s=10.0,
    )
    migrate(made)
    return made


@pytest.fixture
def checkpoint(settings: EvaluatorSettings, trainer: tuple[FakeTrainer, str]) -> str:
    """Name of a checkpoint of the model "tiny"."""
    digest = ModelStore(settings.models).resolve("tiny").weights_digest or ""
    return trainer[0].add(7, base_weights_digest=digest)


@asynccontextmanager
async def running(settings: EvaluatorSettings) -> AsyncIterator[Any]:
    """A stub of an evaluator, as long as the block lasts."""
    stop = asyncio.Event()
    async with served(build(settings, stop), stop=stop) as channel:
        yield v1.EvaluatorStub(channel)


@pytest.fixture
async def evaluator(settings: EvaluatorSettings) -> AsyncIterator[Any]:
    async with running(settings) as stub:
        yield stub


def error_info(evaluation: v1.Evaluation) -> error_details_pb2.ErrorInfo:
    info = error_details_pb2.ErrorInfo()
    assert evaluation.error.details[0].Unpack(info)
    return info


# Eval sets


async def test_an_eval_set_is_kept_whole_and_named_by_its_items(evaluator: Any) -> None:
    given = [
        item(1, category="sums", difficulty="easy", cluster="c", grader={"numeric": {"tolerance": 0.5}}),
        item(2, accepted_answers=["two", "a pair"], grader={"text": {}}),
        item(3, accepted_answers=["3", "three"]),
        item(4),
    ]
    given[0].metadata.update({"source": "here", "page": 3})
    made = await evaluator.CreateEvalSet(eval_set(given, description="small"))
    assert made.name == "evalSets/sums"
    assert (made.item_count, made.description) == (4, "small")
    stored = await evaluator.GetEvalSet(v1.GetEvalSetRequest(name=made.name))
    assert stored == made
    assert stored.items[0] == given[0]
    assert stored.items[1] == given[1]
    # Without a grader: text where an answer is no number, else numeric.
    assert stored.items[2].grader.WhichOneof("kind") == "text"
    assert stored.items[3].grader.WhichOneof("kind") == "numeric"


async def test_the_digest_does_not_depend_on_order_or_description(evaluator: Any) -> None:
    first = await evaluator.CreateEvalSet(eval_set(FOUR, "one", description="a"))
    second = await evaluator.CreateEvalSet(eval_set(FOUR[::-1], "two"))
    other = await evaluator.CreateEvalSet(eval_set(FOUR[:3], "three"))
    assert first.digest == second.digest != other.digest
    assert [entry.id for entry in second.items] == ["q1", "q2", "q3", "q4"]


async def test_an_id_is_bound_to_its_items(evaluator: Any) -> None:
    first = await evaluator.CreateEvalSet(eval_set(FOUR))
    assert await evaluator.CreateEvalSet(eval_set(FOUR[::-1])) == first
    error = await refused(evaluator.CreateEvalSet(eval_set(FOUR[:3])))
    assert (error.code, error.reason) == ("ALREADY_EXISTS", "EVAL_SET_EXISTS")
    assert error.metadata["digest"] == first.digest


async def test_an_eval_sets_request_id_is_bound_to_its_body(evaluator: Any) -> None:
    first = await evaluator.CreateEvalSet(eval_set(FOUR, request_id="r"))
    assert await evaluator.CreateEvalSet(eval_set(FOUR, request_id="r")) == first
    error = await refused(evaluator.CreateEvalSet(eval_set(FOUR, "other", request_id="r")))
    assert (error.code, error.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")


@pytest.mark.parametrize(
    ("items", "wrong"),
    [
        ([], ["eval_set.items"]),
        ([item(1), item(1, prompt="other")], ["eval_set.items[1].id"]),
        ([item(1), item(2, prompt=item(1).prompt)], ["eval_set.items[1].prompt"]),
        ([item(1, accepted_answers=[])], ["eval_set.items[0].accepted_answers"]),
        ([item(1, accepted_answers=["1", ""])], ["eval_set.items[0].accepted_answers[1]"]),
        ([item(1, id=""), item(2, prompt="")], ["eval_set.items[0].id", "eval_set.items[1].prompt"]),
        ([item(1, id="x" * 129)], ["eval_set.items[0].id"]),
        ([item(1, id="a\0b")], ["eval_set.items[0].id"]),
        ([item(1, prompt="x" * 50_001)], ["eval_set.items[0].prompt"]),
        (
            [item(1, category="c" * 65, cluster="c" * 129)],
            ["eval_set.items[0].category", "eval_set.items[0].cluster"],
        ),
        (
            [item(1, accepted_answers=["1", "one"], grader={"numeric": {}})],
            ["eval_set.items[0].accepted_answers[1]"],
        ),
        ([item(1, grader={"numeric": {"tolerance": -1}})], ["eval_set.items[0].grader.numeric.tolerance"]),
        (
            [item(1, grader={"numeric": {"tolerance": float("nan")}})],
            ["eval_set.items[0].grader.numeric.tolerance"],
        ),
        ([item(1, metadata={"x": float("inf")})], ["eval_set.items[0].metadata"]),
    ],
)
async def test_a_wrong_eval_set_is_refused_by_field(
    evaluator: Any, items: list[v1.EvalItem], wrong: list[str]
) -> None:
    error = await refused(evaluator.CreateEvalSet(eval_set(items)))
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "EVAL_SET_INVALID")
    assert fields(error) == wrong
    assert not (await evaluator.ListEvalSets(v1.ListEvalSetsRequest())).eval_sets


async def test_a_duplicate_names_the_item_that_it_repeats(evaluator: Any) -> None:
    error = await refused(evaluator.CreateEvalSet(eval_set([item(1), item(2, prompt=item(1).prompt)])))
    assert "items[0]" in error.violations[0].description
    assert "'q1'" in error.violations[0].description


async def test_an_eval_set_that_is_too_big_or_too_long_is_refused(evaluator: Any) -> None:
    big = [item(number, prompt="x" * 49_000 + str(number)) for number in range(81)]
    error = await refused(evaluator.CreateEvalSet(eval_set(big)))
    assert fields(error) == ["eval_set.items"]
    assert "bytes" in error.message
    error = await refused(evaluator.CreateEvalSet(eval_set(FOUR, description="d" * 1001)))
    assert fields(error) == ["eval_set.description"]


@pytest.mark.parametrize("name", ["", "Big", "a/b", "-a", "x" * 65])
async def test_a_wrong_eval_set_id_is_refused(evaluator: Any, name: str) -> None:
    error = await refused(evaluator.CreateEvalSet(eval_set(FOUR, name)))
    assert (error.reason, fields(error)) == ("RESOURCE_ID_INVALID", ["eval_set.eval_set_id"])


async def test_eval_sets_are_listed_newest_first_without_items(evaluator: Any) -> None:
    for number in range(5):
        await evaluator.CreateEvalSet(eval_set(FOUR, f"set{number}"))
    names: list[str] = []
    token = ""
    while True:
        page = await evaluator.ListEvalSets(v1.ListEvalSetsRequest(page_size=2, page_token=token))
        names += [entry.eval_set_id for entry in page.eval_sets]
        assert all(not entry.items and entry.item_count == 4 for entry in page.eval_sets)
        token = page.next_page_token
        if not token:
            break
    assert names == ["set4", "set3", "set2", "set1", "set0"]


async def test_an_unknown_eval_set_is_not_found(evaluator: Any) -> None:
    error = await refused(evaluator.GetEvalSet(v1.GetEvalSetRequest(name="evalSets/none")))
    assert (error.code, error.reason) == ("NOT_FOUND", "EVAL_SET_NOT_FOUND")
    error = await refused(evaluator.GetEvalSet(v1.GetEvalSetRequest(name="sets/none")))
    assert (error.reason, fields(error)) == ("RESOURCE_NAME_INVALID", ["name"])


# Evaluations


async def test_an_evaluation_answers_grades_and_sums_up(evaluator: Any, settings: EvaluatorSettings) -> None:
    stored = await evaluator.CreateEvalSet(eval_set(FOUR))
    made = await create(evaluator)
    assert made.name.startswith("evaluations/")
    done = await until(evaluator, made, ended)
    assert done.state == State.STATE_SUCCEEDED
    overall = done.summary.overall
    assert (overall.item_count, overall.correct_count, overall.accuracy) == (4, 2, 0.5)
    assert 0 < overall.interval.lower < 0.5 < overall.interval.upper < 1
    assert overall.interval.confidence == 0.95
    assert [(entry.category, entry.accuracy.correct_count) for entry in done.summary.categories] == [
        ("sums", 1),
        ("words", 1),
    ]
    assert (done.summary.generated_tokens, done.summary.tokens_per_second) == (16, 16.0)
    assert [timing.stage for timing in done.stage_timings] == ["loading the model", "generating"]
    assert done.attempt_count == 1
    assert done.start_time.ToDatetime() <= done.end_time.ToDatetime()
    manifest = done.manifest
    assert manifest.evaluation == done.name
    assert manifest.eval_set_digest == stored.digest
    assert manifest.graders == ["numeric/2"]
    assert manifest.engine == "scripted/1"
    assert manifest.chat_template_digest == done.spec.chat_template.digest
    assert manifest.checkpoint_digest == ""
    content = ArtifactStore(settings.artifacts).read_bytes(done.manifest_file.digest)
    assert json.loads(content)["results_digest"] == manifest.results_digest


async def test_item_results_hold_what_was_asked_answered_and_graded(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set([*FOUR, item(5, "FAIL"), item(6, "LONG")]))
    done = await run(evaluator)
    results = {result.item_id: result for result in await items_of(evaluator, done)}
    right = results["q1"]
    assert (right.correct, right.extracted_answer, right.output) == (True, "1", "Answer: 1")
    assert right.prompt == FOUR[0].prompt
    assert list(right.accepted_answers) == ["1"]
    assert right.finish_reason == v1.FINISH_REASON_STOP
    assert right.latency.ToMilliseconds() == 250
    assert right.grader == "numeric/2"
    assert (results["q3"].correct, results["q3"].extracted_answer) == (False, "")
    failed = results["q5"]
    assert (failed.correct, failed.finish_reason, failed.error) == (
        False,
        v1.FINISH_REASON_FAILED,
        "it does not fit",
    )
    assert results["q6"].finish_reason == v1.FINISH_REASON_LENGTH
    assert (done.summary.failed_count, done.summary.truncated_count) == (1, 1)
    assert len({result.item_digest for result in results.values()}) == 6


async def test_items_are_listed_by_id_a_page_at_a_time(evaluator: Any) -> None:
    names = ["b", "B", "a1", "a10", "a2", "é", "_"]
    await evaluator.CreateEvalSet(eval_set([item(number, id=name) for number, name in enumerate(names)]))
    done = await run(evaluator)
    listed: list[str] = []
    token = ""
    while True:
        request = v1.ListEvaluationItemsRequest(parent=done.name, page_size=2, page_token=token)
        page = await evaluator.ListEvaluationItems(request)
        assert len(page.results) <= 2
        listed += [result.item_id for result in page.results]
        token = page.next_page_token
        if not token:
            break
    assert listed == sorted(names)


async def test_a_page_of_items_stops_short_of_the_message_limit(evaluator: Any) -> None:
    long = [item(number, "Answer: " + "y" * 49_000) for number in range(35)]
    await evaluator.CreateEvalSet(eval_set(long))
    done = await run(evaluator)
    first = await evaluator.ListEvaluationItems(v1.ListEvaluationItemsRequest(parent=done.name))
    assert 0 < len(first.results) < 50
    assert first.ByteSize() < 4 << 20
    count, page = len(first.results), first
    while page.next_page_token:
        page = await evaluator.ListEvaluationItems(
            v1.ListEvaluationItemsRequest(parent=done.name, page_token=page.next_page_token)
        )
        count += len(page.results)
    assert count == 35


async def test_equal_answers_have_one_results_digest_whatever_the_times(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    first, second = await run(evaluator), await run(evaluator)
    assert first.name != second.name
    assert first.manifest.results_digest == second.manifest.results_digest


async def test_defaults_are_filled_in(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    made = await evaluator.CreateEvaluation(
        v1.CreateEvaluationRequest(spec=v1.EvaluationSpec(eval_set="evalSets/sums", base_model="tiny"))
    )
    assert made.spec.decoding.max_new_tokens == 128
    assert made.spec.decoding.batch_size == 16
    assert made.spec.dtype == v1.DTYPE_BFLOAT16
    assert made.spec.chat_template.jinja
    assert made.spec.chat_template.eos_token == "<|im_end|>"
    assert made.spec.chat_template.digest.startswith("sha256:")


async def test_a_checkpoint_is_asked_in_its_own_template_with_its_own_files(
    evaluator: Any, checkpoint: str, settings: EvaluatorSettings, trainer: tuple[FakeTrainer, str]
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
    folder = settings.data_dir / "evaluations" / done.name.removeprefix("evaluations/") / "checkpoint"
    assert (folder / "adapter_model.safetensors").read_bytes() == b"adapter_model.safetensors 7"


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
    assert done.spec.chat_template.jinja == script.OWN.jinja


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
    error = await refused(create(evaluator, request_id="r", dtype=v1.DTYPE_FLOAT32))
    assert (error.code, error.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")
    assert len((await evaluator.ListEvaluations(v1.ListEvaluationsRequest())).evaluations) == 1


async def test_evaluations_are_listed_newest_first(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    made = [(await create(evaluator)).name for _ in range(3)]
    page = await evaluator.ListEvaluations(v1.ListEvaluationsRequest(page_size=2))
    assert [entry.name for entry in page.evaluations] == made[:0:-1]
    request = v1.ListEvaluationsRequest(page_size=2, page_token=page.next_page_token)
    rest = await evaluator.ListEvaluations(request)
    assert [entry.name for entry in rest.evaluations] == made[:1]
    assert not rest.next_page_token


async def test_foreign_page_tokens_are_refused(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    first, second = await run(evaluator), await run(evaluator)
    request = v1.ListEvaluationItemsRequest(parent=first.name, page_size=1)
    token = (await evaluator.ListEvaluationItems(request)).next_page_token
    for call in (
        evaluator.ListEvaluationItems(v1.ListEvaluationItemsRequest(parent=second.name, page_token=token)),
        evaluator.ListEvaluations(v1.ListEvaluationsRequest(page_token=token)),
        evaluator.ListEvalSets(v1.ListEvalSetsRequest(page_token="made up")),
    ):
        error = await refused(call)
        assert (error.reason, fields(error)) == ("PAGE_TOKEN_INVALID", ["page_token"])


@pytest.mark.parametrize("method", ["GetEvaluation", "CancelEvaluation"])
async def test_an_unknown_evaluation_is_not_found(evaluator: Any, method: str) -> None:
    request = getattr(v1, f"{method}Request")(name="evaluations/none")
    error = await refused(getattr(evaluator, method)(request))
    assert (error.code, error.reason) == ("NOT_FOUND", "EVALUATION_NOT_FOUND")


async def test_items_of_an_unknown_evaluation_are_not_found(evaluator: Any) -> None:
    error = await refused(
        evaluator.ListEvaluationItems(v1.ListEvaluationItemsRequest(parent="evaluations/none"))
    )
    assert error.reason == "EVALUATION_NOT_FOUND"


async def test_watching_begins_with_the_present_and_ends_with_the_end(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    made = await create(evaluator)
    states = [entry async for entry in evaluator.WatchEvaluation(v1.WatchEvaluationRequest(name=made.name))]
    assert states[-1].state == State.STATE_SUCCEEDED
    assert states[-1] == await get(evaluator, made)
    again = [entry async for entry in evaluator.WatchEvaluation(v1.WatchEvaluationRequest(name=made.name))]
    assert again == [states[-1]]
    with pytest.raises(Exception, match="does not exist"):
        async for _ in evaluator.WatchEvaluation(v1.WatchEvaluationRequest(name="evaluations/none")):
            pass


async def test_progress_is_told_while_it_runs(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    made = await create(evaluator, script.WAIT)
    now = await until(evaluator, made, lambda entry: entry.progress.completed == 2)
    assert now.state == State.STATE_RUNNING
    assert (now.progress.stage, now.progress.total, now.progress.unit) == ("generating", 4, "items")
    assert now.progress.eta.seconds == 1
    await evaluator.CancelEvaluation(v1.CancelEvaluationRequest(name=made.name))
    await until(evaluator, made, ended)


async def test_a_cancelled_evaluation_keeps_what_was_answered(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    made = await create(evaluator, script.WAIT)
    await until(evaluator, made, lambda entry: entry.progress.completed == 2)
    asked = await evaluator.CancelEvaluation(v1.CancelEvaluationRequest(name=made.name))
    assert asked.state in (State.STATE_CANCELLING, State.STATE_CANCELLED)
    done = await until(evaluator, made, ended)
    assert done.state == State.STATE_CANCELLED
    assert not done.HasField("summary")
    assert [result.item_id for result in await items_of(evaluator, done)] == ["q1", "q2"]
    assert await evaluator.CancelEvaluation(v1.CancelEvaluationRequest(name=made.name)) == done


async def test_a_queued_evaluation_is_cancelled_at_once_and_never_runs(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    first = await create(evaluator, script.WAIT)
    await until(evaluator, first, lambda entry: entry.state == State.STATE_RUNNING)
    second = await create(evaluator)
    done = await evaluator.CancelEvaluation(v1.CancelEvaluationRequest(name=second.name))
    assert done.state == State.STATE_CANCELLED
    await evaluator.CancelEvaluation(v1.CancelEvaluationRequest(name=first.name))
    await until(evaluator, first, ended)
    assert (await get(evaluator, second)).attempt_count == 0


async def test_cancelling_again_ends_a_worker_that_does_not_listen(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    made = await create(evaluator, script.DEAF)
    await until(evaluator, made, lambda entry: entry.progress.completed == 2)
    for _ in range(2):
        await evaluator.CancelEvaluation(v1.CancelEvaluationRequest(name=made.name))
    assert (await until(evaluator, made, ended)).state == State.STATE_CANCELLED


@pytest.mark.parametrize(
    ("plan", "reason", "text"),
    [
        (script.REFUSE, "BASE_MODEL_MISMATCH", "not this model"),
        (script.DIE, "WORKER_CRASHED", "SIGKILL"),
        (script.CRASH, "WORKER_CRASHED", "the end is near"),
        (script.BUG, "WORKER_FAILED", "no such luck"),
        (script.FORGET, "WORKER_INCOMPLETE", "1 of 4"),
    ],
)
async def test_a_failure_says_why(evaluator: Any, plan: int, reason: str, text: str) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    done = await until(evaluator, await create(evaluator, plan), ended)
    assert done.state == State.STATE_FAILED
    assert error_info(done).reason == reason
    assert text in done.error.message
    # The next one runs all the same.
    assert (await run(evaluator)).summary.overall.item_count == 4


async def test_a_missing_adapter_file_fails_the_evaluation(
    evaluator: Any, checkpoint: str, trainer: tuple[FakeTrainer, str]
) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    file = next(entry for entry in trainer[0].checkpoints[checkpoint].files if "safetensors" in entry.path)
    Path(file.uri.removeprefix("file://")).unlink()
    done = await until(evaluator, await create(evaluator, checkpoint=checkpoint), ended)
    assert done.state == State.STATE_FAILED
    assert error_info(done).reason == "ARTIFACT_MISSING"


async def test_a_stopped_server_leaves_its_evaluation_to_the_next_one(
    settings: EvaluatorSettings,
) -> None:
    async with running(settings) as first:
        await first.CreateEvalSet(eval_set(FOUR))
        made = await create(first, script.WAIT_ONCE)
        waiting = await create(first)
        await until(first, made, lambda entry: entry.progress.completed == 2)
        before = await items_of(first, made)
    async with running(settings) as second:
        done = await until(second, made, ended)
        assert done.state == State.STATE_SUCCEEDED
        assert done.attempt_count == 2
        results = await items_of(second, done)
        assert len(results) == 4
        assert results[:2] == before
        assert (await until(second, waiting, ended)).state == State.STATE_SUCCEEDED


async def test_a_child_that_outlived_its_server_is_taken_over(settings: EvaluatorSettings) -> None:
    async with running(settings) as first:
        await first.CreateEvalSet(eval_set(FOUR))
        made = await create(first, script.WAIT_ONCE)
        await until(first, made, lambda entry: entry.progress.completed == 2)
    # As a server leaves things that was killed in the second attempt.
    folder = settings.data_dir / "evaluations" / made.name.removeprefix("evaluations/")
    spec = WorkerSpec.model_validate_json((folder / "spec.json").read_bytes())
    database = Database(settings.database)
    assert SqlEvaluationRepository(database).change_state(
        made.name.removeprefix("evaluations/"),
        [EvaluationState.QUEUED],
        EvaluationState.RUNNING,
        EvaluationUpdate(attempt_count=2),
    )
    database.close()
    orphan = WorkerProcess("support.scripted_evaluator", folder)
    orphan.start(spec.model_copy(update={"attempt": 2}).model_dump(mode="json"))
    async with running(settings) as second:
        done = await until(second, made, ended)
        assert done.state == State.STATE_SUCCEEDED
        assert done.attempt_count == 2
        assert len(await items_of(second, done)) == 4
    assert orphan.wait(10.0) == 0


async def test_watches_end_when_the_server_stops(settings: EvaluatorSettings) -> None:
    async with running(settings) as first:
        await first.CreateEvalSet(eval_set(FOUR))
        made = await create(first, script.WAIT)
        await until(first, made, lambda entry: entry.progress.completed == 2)
        seen: list[v1.Evaluation] = []

        async def watch() -> None:
            async for entry in first.WatchEvaluation(v1.WatchEvaluationRequest(name=made.name)):
                seen.append(entry)

        watching = asyncio.ensure_future(watch())
        while not seen:
            await asyncio.sleep(0.02)
    await asyncio.gather(watching, return_exceptions=True)
    assert seen[-1].state == State.STATE_RUNNING
    async with running(settings) as second:
        await second.CancelEvaluation(v1.CancelEvaluationRequest(name=made.name))
        assert (await until(second, made, ended)).state == State.STATE_CANCELLED


# Comparisons


async def both(evaluator: Any, checkpoint: str, **spec: Any) -> tuple[v1.Evaluation, v1.Evaluation]:
    template = v1.ChatTemplate(builtin="chatml")
    base = await run(evaluator, chat_template=template, **spec)
    return base, await run(evaluator, checkpoint=checkpoint, **spec)


async def compare(evaluator: Any, base: v1.Evaluation, candidate: v1.Evaluation) -> v1.ComparisonReport:
    return await evaluator.CompareEvaluations(
        v1.CompareEvaluationsRequest(base=base.name, candidate=candidate.name)
    )


async def test_a_comparison_pairs_items_and_tests_the_difference(evaluator: Any, checkpoint: str) -> None:
    gained = [item(number, "no", f"Answer: {number}") for number in range(10, 22)]
    await evaluator.CreateEvalSet(eval_set([*FOUR, *gained]))
    base, candidate = await both(evaluator, checkpoint)
    report = await compare(evaluator, base, candidate)
    overall = report.overall
    assert (overall.base.correct_count, overall.candidate.correct_count) == (2, 15)
    assert (overall.gained_count, overall.lost_count) == (14, 1)
    assert overall.difference == pytest.approx(13 / 16)
    assert overall.interval.lower < 13 / 16 < overall.interval.upper
    # Twice the binomial tail of 15 items: (1 + 15) / 2**15.
    assert overall.p_value == pytest.approx(2 * 16 / 2**15)
    assert report.verdict == v1.ComparisonReport.VERDICT_IMPROVED
    assert [entry.category for entry in report.categories] == ["", "sums", "words"]
    assert [flip.base.item_id for flip in report.flips][:2] == ["q10", "q11"]
    assert report.flips[-1].base.item_id == "q4"
    assert report.flips[-1].base.correct
    assert not report.flips[-1].candidate.correct
    assert [entry.loss for entry in report.training_metrics] == [3.0, 2.0, 1.5]
    assert report.training_metrics[-1].validation_loss == 1.25
    assert not report.training_metrics[0].HasField("validation_loss")
    assert report.base == base
    assert report.candidate == candidate


async def test_comparing_again_gives_the_same_report(
    evaluator: Any, checkpoint: str, settings: EvaluatorSettings
) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    base, candidate = await both(evaluator, checkpoint)
    first = await compare(evaluator, base, candidate)
    assert await compare(evaluator, base, candidate) == first
    assert await evaluator.GetComparisonReport(v1.GetComparisonReportRequest(name=first.name)) == first
    turned = await compare(evaluator, candidate, base)
    assert turned.name != first.name
    assert turned.overall.difference == -first.overall.difference
    assert first.verdict == turned.verdict == v1.ComparisonReport.VERDICT_NO_EVIDENCE
    assert ArtifactStore(settings.artifacts).exists(first.digest)


async def test_every_unsound_difference_is_named(evaluator: Any, checkpoint: str) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    await evaluator.CreateEvalSet(eval_set([*FOUR[1:], item(5, accepted_answers=["x"])], "other"))
    base, candidate = await both(evaluator, checkpoint)
    worse = await run(
        evaluator,
        script.WAIT_ONCE - 6,
        eval_set="evalSets/other",
        chat_template=v1.ChatTemplate(builtin="chatml", system_instruction="Hm."),
        decoding=v1.Decoding(max_new_tokens=64, batch_size=2),
        dtype=v1.DTYPE_FLOAT32,
    )
    error = await refused(compare(evaluator, worse, candidate))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "COMPARISON_UNSOUND")
    assert fields(error) == [
        "eval_set",
        "chat_template",
        "decoding.max_new_tokens",
        "decoding.batch_size",
        "dtype",
        "graders",
        "items",
        "prompt_tokens",
    ]
    assert "q1" in error.violations[-2].description
    assert (await compare(evaluator, base, candidate)).name


async def test_only_finished_evaluations_are_compared(evaluator: Any, checkpoint: str) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    base, candidate = await both(evaluator, checkpoint)
    failed = await until(evaluator, await create(evaluator, script.REFUSE), ended)
    error = await refused(compare(evaluator, base, failed))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "EVALUATION_NOT_SUCCEEDED")
    assert "candidate" in error.message
    for request, field in (
        (v1.CompareEvaluationsRequest(base="x", candidate=candidate.name), "base"),
        (v1.CompareEvaluationsRequest(base=base.name, candidate="x"), "candidate"),
    ):
        error = await refused(evaluator.CompareEvaluations(request))
        assert (error.reason, fields(error)) == ("RESOURCE_NAME_INVALID", [field])


async def test_reports_are_listed_by_pages(evaluator: Any, checkpoint: str) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    base, candidate = await both(evaluator, checkpoint)
    reports = [await compare(evaluator, base, candidate), await compare(evaluator, candidate, base)]
    found, token = [], ""
    while True:
        request = v1.ListComparisonReportsRequest(page_size=1, page_token=token)
        page = await evaluator.ListComparisonReports(request)
        found += page.comparison_reports
        token = page.next_page_token
        if not token:
            break
    for report in reports:
        report.ClearField("flips")
        report.ClearField("training_metrics")
    assert found == sorted(reports, key=lambda report: report.name)
    for request, field in (
        (v1.ListComparisonReportsRequest(page_size=-1), "page_size"),
        (v1.ListComparisonReportsRequest(page_token="made-up"), "page_token"),
    ):
        assert fields(await refused(evaluator.ListComparisonReports(request))) == [field]


async def test_reports_are_read_as_documents(evaluator: Any, checkpoint: str) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    report = await compare(evaluator, *await both(evaluator, checkpoint))
    media = {}
    for format_ in (v1.REPORT_FORMAT_MARKDOWN, v1.REPORT_FORMAT_JSON, v1.REPORT_FORMAT_HTML):
        header, data = await document(evaluator, report, format_)
        assert header.size_bytes == len(data)
        assert header.digest == "sha256:" + hashlib.sha256(data).hexdigest()
        media[header.media_type] = (header.file_name, data)
        _, rest = await document(evaluator, report, format_, offset=100)
        assert rest == data[100:]
        _, nothing = await document(evaluator, report, format_, offset=len(data))
        assert nothing == b""
    assert {kind: name for kind, (name, _) in media.items()} == {
        "text/markdown": "report.md",
        "application/json": "report.json",
        "text/html": "report.html",
    }
    values = json.loads(media["application/json"][1])
    assert (values["name"], values["digest"]) == (report.name, report.digest)
    header, data = await document(evaluator, report, v1.REPORT_FORMAT_UNSPECIFIED)
    assert data == media["text/markdown"][1]


async def test_a_wrong_read_of_a_report_is_refused(evaluator: Any, checkpoint: str) -> None:
    await evaluator.CreateEvalSet(eval_set(FOUR))
    report = await compare(evaluator, *await both(evaluator, checkpoint))

    async def read(**values: Any) -> None:
        request = v1.ReadComparisonReportRequest(**({"name": report.name} | values))
        async for _ in evaluator.ReadComparisonReport(request):
            pass

    for values, reason in (
        ({"offset": -1}, "OFFSET_INVALID"),
        ({"offset": 1 << 40}, "OFFSET_INVALID"),
        ({"format": 9}, "REPORT_FORMAT_INVALID"),
        ({"name": "comparisonReports/none"}, "COMPARISON_REPORT_NOT_FOUND"),
        ({"name": "reports/none"}, "RESOURCE_NAME_INVALID"),
    ):
        assert (await refused(read(**values))).reason == reason
    error = await refused(
        evaluator.GetComparisonReport(v1.GetComparisonReportRequest(name="comparisonReports/none"))
    )
    assert (error.code, error.reason) == ("NOT_FOUND", "COMPARISON_REPORT_NOT_FOUND")


async def test_a_report_with_more_flips_than_a_message_holds_has_them_in_its_documents(
    evaluator: Any, checkpoint: str
) -> None:
    long = "y" * 20_000
    changed = [item(number, long, f"{long}\nAnswer: {number}") for number in range(60)]
    await evaluator.CreateEvalSet(eval_set(changed))
    report = await compare(evaluator, *await both(evaluator, checkpoint))
    assert report.overall.gained_count == 60
    assert 0 < len(report.flips) < 60
    assert report.ByteSize() < 4 << 20
    _, data = await document(evaluator, report, v1.REPORT_FORMAT_JSON)
    assert len(json.loads(data)["flips"]) == 60


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
