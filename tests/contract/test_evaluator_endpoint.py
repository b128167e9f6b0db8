"""Evaluations of an endpoint's models over a real channel, on both databases, with the real worker."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import SecretStr

from support.evaluating import create, document, ended, eval_set, item, items_of, run, until
from support.fake_endpoint import FakeEndpoint, Reply, answering, completion
from support.migrated import migrated
from support.serving import fields, refused, served
from support.tiny_model import make_tiny_model
from tunix_rt import v1
from tunix_rt_evaluator.evaluations import job_folders
from tunix_rt_evaluator.openai_endpoint import API_KEY_VARIABLE
from tunix_rt_evaluator.wiring import EvaluatorSettings, build, migrate

pytestmark = pytest.mark.one_database

TESTS = Path(__file__).parents[1]
KEY = "sk-not-to-be-seen"
State = v1.Evaluation
EIGHT = [item(number) for number in range(8)]


class Model:
    """Answers "Say N." with N where it knows that; ``replies`` are other replies to some of the questions."""

    def __init__(self) -> None:
        self.known = set(range(8))
        self.replies: dict[int, Reply] = {}
        self.open = threading.Event()
        self.open.set()

    def answer(self, prompt: str) -> Reply:
        self.open.wait(60)
        if not prompt.startswith("Say "):
            return self.replies.get(-1, completion("yes"))
        number = int(prompt.removeprefix("Say ").partition(".")[0])
        text = f"Answer: {number if number in self.known else 'none'}"
        return self.replies.get(number, completion(text, usage={"completion_tokens": 5, "prompt_tokens": 9}))


@pytest.fixture
def model() -> Iterator[Model]:
    made = Model()
    yield made
    made.open.set()


@pytest.fixture
def endpoint(model: Model) -> Iterator[FakeEndpoint]:
    with answering(model.answer) as made:
        yield made


@pytest.fixture(autouse=True)
def no_model_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A child that imports a model library fails."""
    folder = tmp_path / "without"
    folder.mkdir()
    for name in ("jax", "flax", "tokenizers"):
        (folder / f"{name}.py").write_text(f"raise ImportError('an endpoint needs no {name}')\n")
    path = os.pathsep.join([str(folder), str(TESTS), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)


@pytest.fixture
def settings(database_url: str, tmp_path: Path, endpoint: FakeEndpoint) -> EvaluatorSettings:
    made = EvaluatorSettings(
        listen="127.0.0.1:0",
        database_url=database_url,
        data_dir=tmp_path,
        shutdown_grace_s=10.0,
        endpoint_url=endpoint.url,
        endpoint_api_key=SecretStr(KEY),
        endpoint_retries=0,
    )
    migrated(made, migrate)
    return made


@asynccontextmanager
async def running(settings: EvaluatorSettings) -> AsyncIterator[Any]:
    """A stub of an evaluator that has the eval set, as long as the block lasts."""
    stop = asyncio.Event()
    async with served(build(settings, stop), stop=stop) as channel:
        stub = v1.EvaluatorStub(channel)
        await stub.CreateEvalSet(eval_set(EIGHT))
        yield stub


@pytest.fixture
async def evaluator(settings: EvaluatorSettings) -> AsyncIterator[Any]:
    async with running(settings) as stub:
        yield stub


async def test_a_model_is_evaluated_by_its_name_and_no_key_is_written_down(
    evaluator: Any, endpoint: FakeEndpoint, tmp_path: Path
) -> None:
    done = await run(evaluator, endpoint_model="m")
    spec, manifest = done.spec, done.manifest
    assert done.summary.overall.correct_count == 8
    assert done.summary.generated_tokens == 40
    assert (spec.endpoint_model, spec.base_model) == ("m", "")
    assert spec.dtype == v1.DTYPE_UNSPECIFIED
    assert not spec.HasField("chat_template")
    assert manifest.spec == spec
    assert manifest.engine.startswith("openai/")
    assert dict(manifest.runtime_settings) == {"endpoint_model": "m"}
    assert manifest.base_weights_digest == manifest.tokenizer_digest == manifest.chat_template_digest == ""
    results = await items_of(evaluator, done)
    assert [result.output for result in results] == [f"Answer: {number}" for number in range(8)]
    assert len({result.prompt_token_digest for result in results}) == 8
    assert {(result.prompt_tokens, result.output_tokens) for result in results} == {(9, 5)}

    assert {request["key"] for request in endpoint.requests} == {f"Bearer {KEY}"}
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "spec.json" for path in written)
    assert not [path for path in written if KEY.encode() in path.read_bytes()]


async def test_several_samples_are_asked_for_by_seeds_of_their_own(
    evaluator: Any, endpoint: FakeEndpoint
) -> None:
    decoding = v1.Decoding(max_new_tokens=16, temperature=0.5, samples=3, seed=4)
    done = await run(evaluator, endpoint_model="m", decoding=decoding)
    assert [len(result.samples) for result in await items_of(evaluator, done)] == [3] * 8
    assert len({request["seed"] for request in endpoint.requests}) == 25


async def test_an_item_that_gets_no_answer_fails_and_says_why(evaluator: Any, model: Model) -> None:
    model.replies = {2: Reply({"error": {"message": "that is too long"}}, 400), 5: completion("", "length")}
    done = await run(evaluator, endpoint_model="m")
    assert (done.summary.failed_count, done.summary.truncated_count) == (1, 1)
    assert (done.summary.overall.correct_count, done.summary.overall.item_count) == (6, 8)
    results = {result.item_id: result for result in await items_of(evaluator, done)}
    assert "answers 400: that is too long" in results["q2"].error
    assert results["q2"].finish_reason == v1.FINISH_REASON_FAILED
    assert results["q5"].finish_reason == v1.FINISH_REASON_LENGTH


@pytest.mark.parametrize(
    ("reply", "code", "reason"),
    [
        (Reply({"error": {"message": f"{KEY} is no key"}}, 401), 9, "ENDPOINT_ACCESS_DENIED"),
        (Reply({"error": {"message": "no such model"}}, 404), 9, "ENDPOINT_MODEL_UNKNOWN"),
        (Reply("<html>"), 9, "ENDPOINT_REPLY_INVALID"),
        (Reply({}, 503), 14, "ENDPOINT_FAILING"),
    ],
)
async def test_an_endpoint_that_refuses_all_fails_the_evaluation(
    evaluator: Any, model: Model, reply: Reply, code: int, reason: str
) -> None:
    model.replies = {-1: reply}
    done = await until(evaluator, await create(evaluator, endpoint_model="m"), ended)
    assert done.state == State.STATE_FAILED
    assert done.error.code == code
    assert reason in str(done.error.details[0].value)
    assert KEY not in str(done)
    assert not await items_of(evaluator, done)


async def test_an_endpoint_that_is_down_fails_the_evaluation(settings: EvaluatorSettings) -> None:
    with answering(lambda _: completion("x")) as gone:
        url = gone.url
    async with running(settings.model_copy(update={"endpoint_url": url})) as evaluator:
        done = await until(evaluator, await create(evaluator, endpoint_model="m"), ended)
    assert done.state == State.STATE_FAILED
    assert (done.error.code, f"the endpoint at {url} cannot be reached" in done.error.message) == (14, True)


async def test_a_slow_endpoint_keeps_no_cancel_waiting(
    evaluator: Any, endpoint: FakeEndpoint, model: Model
) -> None:
    model.open.clear()
    made = await create(evaluator, endpoint_model="m")
    await until(evaluator, made, lambda _: endpoint.requests)
    await evaluator.CancelEvaluation(v1.CancelEvaluationRequest(name=made.name))
    done = await until(evaluator, made, ended)
    assert done.state == State.STATE_CANCELLED
    assert not model.open.is_set()


async def test_what_means_nothing_for_an_endpoint_is_refused_by_name(evaluator: Any) -> None:
    error = await refused(
        create(
            evaluator,
            endpoint_model="m\n",
            chat_template=v1.ChatTemplate(builtin="chatml"),
            dtype=v1.DTYPE_BFLOAT16,
        )
    )
    assert error.reason == "EVALUATION_SPEC_INVALID"
    assert fields(error) == ["spec.endpoint_model", "spec.chat_template", "spec.dtype"]


async def test_an_evaluator_without_an_endpoint_says_which_setting_names_one(
    settings: EvaluatorSettings,
) -> None:
    async with running(settings.model_copy(update={"endpoint_url": ""})) as evaluator:
        error = await refused(create(evaluator, endpoint_model="m"))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "ENDPOINT_NOT_CONFIGURED")
    assert "TUNIX_RT_EVALUATOR_ENDPOINT_URL" in error.message
    assert error.metadata["setting"] == "endpoint_url"


async def test_two_models_of_an_endpoint_are_compared(evaluator: Any, model: Model) -> None:
    model.known = {0, 1}
    base = await run(evaluator, endpoint_model="before")
    model.known = set(range(8))
    tuned = await run(evaluator, endpoint_model="after")
    again = await run(evaluator, endpoint_model="after")
    other = await run(evaluator, endpoint_model="after-2")
    wanted = v1.CompareEvaluationsRequest(base=base.name, candidate=tuned.name)
    report = await evaluator.CompareEvaluations(wanted)
    assert (report.overall.base.correct_count, report.overall.candidate.correct_count) == (2, 8)
    assert not report.waivers
    _, markdown = await document(evaluator, report, v1.REPORT_FORMAT_MARKDOWN)
    for row in ("| Model | `before` | `after` |", "| Base weights digest | `not known` | `not known` |"):
        assert row in markdown.decode()
    for format_ in (v1.REPORT_FORMAT_HTML, v1.REPORT_FORMAT_JSON):
        assert (await document(evaluator, report, format_))[1]
    wanted.more_candidates.append(other.name)
    assert (await evaluator.CompareEvaluations(wanted)).seeds.candidate == [1.0, 1.0]
    wanted.more_candidates[0] = again.name
    assert (await refused(evaluator.CompareEvaluations(wanted))).reason == "SEED_REPEATED"


async def test_an_endpoints_model_and_a_local_one_are_compared_only_where_that_is_waived(
    evaluator: Any, settings: EvaluatorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tiny_model(settings.models / "tiny")
    theirs = await run(evaluator, endpoint_model="m")
    monkeypatch.setattr(job_folders, "WORKER_MODULE", "support.scripted_evaluator")
    ours = await run(evaluator)
    wanted = v1.CompareEvaluationsRequest(base=ours.name, candidate=theirs.name)
    error = await refused(evaluator.CompareEvaluations(wanted))
    assert error.reason == "COMPARISON_UNSOUND"
    waivers = ["chat_template", "dtype", "engine", "prompt_tokens"]
    assert sorted(fields(error)) == waivers
    wanted.waivers.extend(waivers)
    report = await evaluator.CompareEvaluations(wanted)
    assert sorted(waiver.reason for waiver in report.waivers) == waivers


def environments() -> list[dict[str, str]]:
    """Those of the evaluation children of this process."""
    children = psutil.Process().children()
    return [child.environ() for child in children if "evaluations" in child.cmdline()[-1]]


@pytest.mark.usefixtures("new_workers")
async def test_the_key_reaches_the_child_that_asks_and_no_other(
    settings: EvaluatorSettings, endpoint: FakeEndpoint, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a server has it whose key came by the environment.
    monkeypatch.setenv(API_KEY_VARIABLE, KEY)
    make_tiny_model(settings.models / "tiny")
    async with running(settings.model_copy(update={"keep_model_s": 60.0})) as evaluator:
        with monkeypatch.context() as scripted:
            scripted.setattr(job_folders, "WORKER_MODULE", "support.scripted_evaluator")
            await run(evaluator)
        (local,) = environments()
        assert KEY not in local.values()
        model.open.clear()
        made = await create(evaluator, endpoint_model="m")
        await until(evaluator, made, lambda _: endpoint.requests)
        assert KEY in [environment.get(API_KEY_VARIABLE) for environment in environments()]
        model.open.set()
        assert (await until(evaluator, made, ended)).state == State.STATE_SUCCEEDED
    assert {request["key"] for request in endpoint.requests} == {f"Bearer {KEY}"}


async def test_answers_of_an_endpoint_are_graded_again(evaluator: Any, endpoint: FakeEndpoint) -> None:
    done = await run(evaluator, endpoint_model="m")
    asked = len(endpoint.requests)
    grader = v1.Grader(contains=v1.ContainsGrader())
    again = await evaluator.RegradeEvaluation(v1.RegradeEvaluationRequest(name=done.name, grader=grader))
    graded = await until(evaluator, again, ended)
    assert graded.state == State.STATE_SUCCEEDED, graded
    assert graded.spec.endpoint_model == "m"
    assert len(endpoint.requests) == asked
