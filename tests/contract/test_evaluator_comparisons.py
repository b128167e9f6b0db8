"""Comparisons over a real channel, on both databases: waivers, seeds, clusters, contamination, lists."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from sqlalchemy import text

from support.checkpoints import FakeTrainer
from support.evaluating import document, eval_set, item, run
from support.migrated import migrated
from support.serving import fields, refused, served
from support.threaded import fake_server, free_address
from support.tiny_model import make_tiny_model
from tunix_rt import v1
from tunix_rt_evaluator.evaluations import job_folders
from tunix_rt_evaluator.wiring import EvaluatorSettings, build, migrate
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.database import Database
from tunix_rt_kit.models.store import ModelStore

TESTS = Path(__file__).parents[1]
Verdict = v1.ComparisonReport
LookUp = v1.Contamination
# The base is wrong in all, the candidate right in all; four items of one source each.
TWELVE = [
    item(number, "no", f"Answer: {number}", cluster=f"source {number % 3}", category=f"c{number % 2}")
    for number in range(12)
]


class FakeExporter(v1.ExporterServicer):
    """Says of every dataset that ``rows`` leak items."""

    def __init__(self) -> None:
        self.rows: list[v1.ContaminatedRow] = []
        self.asked: list[tuple[str, str]] = []
        self.broken = False

    def AuditContamination(
        self, request: v1.AuditContaminationRequest, context: Any
    ) -> Iterator[v1.AuditContaminationResponse]:
        self.asked.append((request.name, request.eval_set))
        if self.broken:
            context.abort(grpc.StatusCode.INTERNAL, "the disk is on fire")
        yield v1.AuditContaminationResponse(compared_row_count=1, total_row_count=2)
        yield v1.AuditContaminationResponse(rows=self.rows, compared_row_count=2, total_row_count=2)

    def gives_away(self, item_id: str, split: str = "train") -> None:
        self.rows.append(
            v1.ContaminatedRow(
                row_id=f"row of {item_id}",
                split=split,
                eval_item=item_id,
                match=v1.ContaminatedRow.MATCH_NGRAM,
            )
        )


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations are acted out by ``support.scripted_evaluator``."""
    monkeypatch.setattr(job_folders, "WORKER_MODULE", "support.scripted_evaluator")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))


@pytest.fixture
def exporter() -> FakeExporter:
    return FakeExporter()


@pytest.fixture
def trainer(tmp_path: Path) -> FakeTrainer:
    return FakeTrainer(tmp_path / "artifacts")


@pytest.fixture
def settings(
    database_url: str, tmp_path: Path, trainer: FakeTrainer, exporter: FakeExporter
) -> Iterator[EvaluatorSettings]:
    make_tiny_model(tmp_path / "models" / "tiny")

    def add(server: grpc.Server) -> None:
        v1.add_TrainerServicer_to_server(trainer, server)
        v1.add_ExporterServicer_to_server(exporter, server)

    with fake_server(add) as address:
        made = EvaluatorSettings(
            listen="127.0.0.1:0",
            database_url=database_url,
            data_dir=tmp_path,
            trainer_target=address,
            exporter_target=address,
            shutdown_grace_s=10.0,
        )
        migrated(made, migrate)
        yield made


@pytest.fixture
async def evaluator(settings: EvaluatorSettings) -> AsyncIterator[Any]:
    stop = asyncio.Event()
    async with served(build(settings, stop), stop=stop) as channel:
        yield v1.EvaluatorStub(channel)


@pytest.fixture
def checkpoints(settings: EvaluatorSettings, trainer: FakeTrainer) -> list[str]:
    """Names of three checkpoints of the model "tiny", as three training seeds leave them."""
    digest = ModelStore(settings.models).resolve("tiny").weights_digest or ""
    return [trainer.add(step, base_weights_digest=digest) for step in (7, 8, 9)]


async def base_of(evaluator: Any, **spec: Any) -> v1.Evaluation:
    return await run(evaluator, chat_template=v1.ChatTemplate(builtin="chatml"), **spec)


async def compare(
    evaluator: Any, base: v1.Evaluation, candidate: v1.Evaluation, **values: Any
) -> v1.ComparisonReport:
    return await evaluator.CompareEvaluations(
        v1.CompareEvaluationsRequest(base=base.name, candidate=candidate.name, **values)
    )


async def listed(evaluator: Any) -> list[v1.ComparisonReport]:
    return list((await evaluator.ListComparisonReports(v1.ListComparisonReportsRequest())).comparison_reports)


# Waivers


@pytest.mark.one_database
async def test_what_is_waived_is_compared_and_stands_on_the_report(
    evaluator: Any, checkpoints: list[str]
) -> None:
    await evaluator.CreateEvalSet(eval_set(TWELVE))
    base = await base_of(evaluator, dtype=v1.DTYPE_FLOAT32)
    candidate = await run(evaluator, checkpoint=checkpoints[0])
    error = await refused(compare(evaluator, base, candidate))
    assert (error.reason, fields(error)) == ("COMPARISON_UNSOUND", ["dtype"])
    error = await refused(compare(evaluator, base, candidate, waivers=["engine"]))
    assert fields(error) == ["dtype"]
    report = await compare(evaluator, base, candidate, waivers=["dtype", "engine"])
    assert [(waiver.reason, waiver.description) for waiver in report.waivers] == [
        ("dtype", "dtype: base has float32, candidate has bfloat16")
    ]
    for format_ in (v1.REPORT_FORMAT_MARKDOWN, v1.REPORT_FORMAT_HTML, v1.REPORT_FORMAT_JSON):
        _, data = await document(evaluator, report, format_)
        assert b"base has float32, candidate has bfloat16" in data
    # What was waived once is not waived for the next who asks.
    assert fields(await refused(compare(evaluator, base, candidate))) == ["dtype"]
    assert (await compare(evaluator, base, candidate, waivers=["dtype"])).name == report.name


@pytest.mark.one_database
async def test_an_unknown_waiver_is_named(evaluator: Any, checkpoints: list[str]) -> None:
    await evaluator.CreateEvalSet(eval_set(TWELVE))
    base, candidate = await base_of(evaluator), await run(evaluator, checkpoint=checkpoints[0])
    error = await refused(compare(evaluator, base, candidate, waivers=["dtype", "all"]))
    assert (error.code, error.reason, fields(error)) == (
        "INVALID_ARGUMENT",
        "WAIVER_UNKNOWN",
        ["waivers[1]"],
    )
    assert not await listed(evaluator)


# Clusters, categories and seeds


@pytest.mark.one_database
async def test_items_of_one_source_are_not_independent(evaluator: Any, checkpoints: list[str]) -> None:
    await evaluator.CreateEvalSet(eval_set(TWELVE))
    base, candidate = await base_of(evaluator), await run(evaluator, checkpoint=checkpoints[0])
    report = await compare(evaluator, base, candidate)
    overall = report.overall
    assert (overall.test, overall.interval_method) == ("permutation", "clustered t")
    assert (overall.cluster_count, overall.gained_count) == (3, 12)
    # Three sources whose signs can change: 8 ways, 2 of them as far off.
    assert overall.p_value == 0.25
    assert report.verdict == Verdict.VERDICT_NO_EVIDENCE
    assert [entry.adjusted_p_value for entry in report.categories] == [0.5, 0.5]
    assert [entry.difference.p_value for entry in report.categories] == [0.25, 0.25]


@pytest.mark.one_database
async def test_several_training_seeds_are_compared_by_mean_and_spread(
    evaluator: Any, checkpoints: list[str], exporter: FakeExporter
) -> None:
    right = [item(number, "no", f"Answer: {number}") for number in range(12)]
    await evaluator.CreateEvalSet(eval_set(right))
    base = await base_of(evaluator)
    seeds = [await run(evaluator, checkpoint=name) for name in checkpoints]
    more = [seed.name for seed in seeds[1:]]
    report = await compare(evaluator, base, seeds[0], more_candidates=more)
    assert list(report.more_candidates) == more
    assert list(report.seeds.candidate) == [1.0, 1.0, 1.0]
    assert (report.seeds.candidate_mean, report.seeds.candidate_spread) == (1.0, 0.0)
    assert not report.seeds.HasField("base_spread")
    # Every seed ends the same, so nothing can be said of other seeds.
    assert not report.seeds.HasField("p_value")
    assert report.verdict == Verdict.VERDICT_INCONCLUSIVE
    assert "do not vary" in report.verdict_reasons[0]
    assert report.overall.candidate.item_count == 36
    assert (await compare(evaluator, base, seeds[0], more_candidates=more[::-1])).name == report.name
    assert (await compare(evaluator, base, seeds[0])).name != report.name
    assert exporter.asked == [("datasets/d@1", "evalSets/sums")] * 2


@pytest.mark.one_database
async def test_one_seed_twice_is_refused(evaluator: Any, checkpoints: list[str]) -> None:
    await evaluator.CreateEvalSet(eval_set(TWELVE))
    base, other = await base_of(evaluator), await base_of(evaluator)
    candidate = await run(evaluator, checkpoint=checkpoints[0])
    again = await run(evaluator, checkpoint=checkpoints[0])
    error = await refused(compare(evaluator, base, candidate, more_candidates=[again.name]))
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "SEED_REPEATED")
    assert fields(error) == ["more_candidates[0]"]
    error = await refused(compare(evaluator, base, candidate, more_bases=[other.name]))
    assert fields(error) == ["more_bases[0]"]
    error = await refused(compare(evaluator, base, candidate, more_bases=["x"]))
    assert (error.reason, fields(error)) == ("RESOURCE_NAME_INVALID", ["more_bases[0]"])


# Contamination


@pytest.mark.one_database
async def test_items_that_the_training_split_leaks_are_left_out_of_a_second_result(
    evaluator: Any, checkpoints: list[str], exporter: FakeExporter
) -> None:
    gained = [item(number, "no", f"Answer: {number}") for number in range(12)]
    await evaluator.CreateEvalSet(eval_set(gained))
    for name in ("q3", "q1"):
        exporter.gives_away(name)
    exporter.gives_away("q5", split="validation")
    base, candidate = await base_of(evaluator), await run(evaluator, checkpoint=checkpoints[0])
    report = await compare(evaluator, base, candidate)
    found = report.contamination
    assert (found.state, list(found.datasets)) == (LookUp.STATE_LOOKED_UP, ["datasets/d@1"])
    assert [(entry.item_id, entry.row_id, entry.match) for entry in found.items] == [
        ("q1", "row of q1", "ngram"),
        ("q3", "row of q3", "ngram"),
    ]
    assert (found.item_count, found.clean.gained_count, found.clean.base.item_count) == (2, 10, 10)
    assert report.verdict == Verdict.VERDICT_IMPROVED
    for format_ in (v1.REPORT_FORMAT_MARKDOWN, v1.REPORT_FORMAT_HTML):
        _, data = await document(evaluator, report, format_)
        assert b"gives 2 items away" in data
        assert b"datasets/d@1" in data
    # Asked again, nobody reads the training data again.
    assert (await compare(evaluator, base, candidate)) == report
    assert len(exporter.asked) == 1


@pytest.mark.one_database
async def test_two_base_models_have_no_training_data(evaluator: Any, exporter: FakeExporter) -> None:
    await evaluator.CreateEvalSet(eval_set(TWELVE))
    report = await compare(evaluator, await base_of(evaluator), await base_of(evaluator))
    assert report.contamination.state == LookUp.STATE_NOT_APPLICABLE
    assert not exporter.asked


@pytest.mark.usefixtures("quick_retries")
@pytest.mark.parametrize("gone", [True, False], ids=["unreachable", "broken"])
@pytest.mark.one_database
async def test_an_exporter_that_cannot_say_is_named_and_asked_again(
    settings: EvaluatorSettings, checkpoints: list[str], exporter: FakeExporter, gone: bool
) -> None:
    exporter.broken = True
    first = settings.model_copy(update={"exporter_target": free_address()} if gone else {})
    stop = asyncio.Event()
    async with served(build(first, stop), stop=stop) as channel:
        stub: Any = v1.EvaluatorStub(channel)
        await stub.CreateEvalSet(eval_set(TWELVE))
        base, candidate = await base_of(stub), await run(stub, checkpoint=checkpoints[0])
        without = await compare(stub, base, candidate)
    assert without.contamination.state == LookUp.STATE_NOT_LOOKED_UP
    assert "exporter" in without.contamination.reason
    exporter.broken = False
    stop = asyncio.Event()
    async with served(build(settings, stop), stop=stop) as channel:
        stub = v1.EvaluatorStub(channel)
        now = await compare(stub, base, candidate)
        assert now.contamination.state == LookUp.STATE_LOOKED_UP
        assert now.name != without.name


# How the candidate was trained, and what makes a comparison void

MANIFEST = {
    "training_job": "trainingJobs/job",
    "dataset_digest": "sha256:d",
    "spec": {
        "base_model": "tiny",
        "dataset": "datasets/d@1",
        "method": "lora",
        "lora": {"rank": 8, "alpha": 32.0},
        "optimizer": {"learning_rate": 0.0005, "schedule": "cosine"},
        "epochs": 2.0,
        "rows_per_batch": 4,
        "max_length": 128,
        "seed": 7,
        "dtype": "float32",
    },
}
LEDGER = b'{"example_ids":[["a","b"],["c"]],"step":1}\n{"example_ids":[["a"],["d"]],"step":2}\n'


@pytest.mark.one_database
async def test_provenance_names_what_a_checkpoint_was_trained_on_and_how(
    evaluator: Any, settings: EvaluatorSettings, trainer: FakeTrainer
) -> None:
    await evaluator.CreateEvalSet(eval_set(TWELVE))
    digest = ModelStore(settings.models).resolve("tiny").weights_digest or ""
    made = json.dumps(MANIFEST).encode()
    known = trainer.add(30, base_weights_digest=digest, manifest=made, ledger=LEDGER)
    base, candidate = await base_of(evaluator), await run(evaluator, checkpoint=known)
    report = await compare(evaluator, base, candidate)
    assert not report.HasField("base_training")
    found = report.candidate_training
    assert (found.dataset, found.learned_row_count, found.steps) == ("datasets/d@1", 4, 30)
    assert (found.method, found.schedule) == (v1.TUNING_METHOD_LORA, v1.LEARNING_RATE_SCHEDULE_COSINE)
    assert (found.learning_rate, found.lora_rank, found.lora_alpha) == (0.0005, 8, 32.0)
    assert (found.epochs, found.rows_per_batch, found.seed) == (2.0, 4, 7)
    (listed_report,) = await listed(evaluator)
    assert listed_report.candidate_training == found
    for format_ in (v1.REPORT_FORMAT_MARKDOWN, v1.REPORT_FORMAT_HTML):
        text = (await document(evaluator, report, format_))[1].decode()
        for part in (
            "datasets/d@1",
            "0.0005, cosine",
            "8, 32 (lora)",
            "30 (epochs asked for: 2)",
            "Training seed",
        ):
            assert part in text, part


@pytest.mark.one_database
async def test_a_training_manifest_that_is_gone_or_of_another_form_is_said_to_be_unknown(
    evaluator: Any, checkpoints: list[str], settings: EvaluatorSettings, trainer: FakeTrainer
) -> None:
    await evaluator.CreateEvalSet(eval_set(TWELVE))
    base = await base_of(evaluator)
    digest = ModelStore(settings.models).resolve("tiny").weights_digest or ""
    lost = trainer.add(31, base_weights_digest=digest, manifest=b'{"lost": 1}')
    candidates = [await run(evaluator, checkpoint=name) for name in (checkpoints[0], lost)]
    file = trainer.checkpoints[lost].manifest_file.digest
    Path(ArtifactStore(settings.artifacts).uri(file).removeprefix("file://")).unlink()
    for candidate in candidates:
        report = await compare(evaluator, base, candidate)
        assert not report.HasField("candidate_training")
        text = (await document(evaluator, report, v1.REPORT_FORMAT_MARKDOWN))[1].decode()
        assert "not known: the training manifest is gone, or of another version" in text


@pytest.mark.one_database
async def test_a_comparison_with_itself_or_with_equal_answers_is_warned_of(evaluator: Any) -> None:
    await evaluator.CreateEvalSet(eval_set(TWELVE))
    base, again = await base_of(evaluator), await base_of(evaluator)
    itself, equal = await compare(evaluator, base, base), await compare(evaluator, base, again)
    Warned = v1.ComparisonWarning
    assert [entry.reason for entry in itself.warnings] == [Warned.REASON_SAME_EVALUATION]
    assert [entry.reason for entry in equal.warnings] == [Warned.REASON_EQUAL_ANSWERS]
    for report in (itself, equal):
        (warning,) = report.warnings
        assert base.name in warning.description
        assert report.verdict == Verdict.VERDICT_NO_EVIDENCE
        for format_ in (v1.REPORT_FORMAT_MARKDOWN, v1.REPORT_FORMAT_HTML, v1.REPORT_FORMAT_JSON):
            assert warning.description in (await document(evaluator, report, format_))[1].decode()


# Lists


async def test_a_list_needs_no_artifact(
    evaluator: Any, checkpoints: list[str], settings: EvaluatorSettings
) -> None:
    await evaluator.CreateEvalSet(eval_set(TWELVE))
    base, candidate = await base_of(evaluator), await run(evaluator, checkpoint=checkpoints[0])
    lost, kept = await compare(evaluator, base, candidate), await compare(evaluator, candidate, base)
    Path(ArtifactStore(settings.artifacts).uri(lost.digest).removeprefix("file://")).unlink()
    for report in (lost, kept):
        report.ClearField("flips")
        report.ClearField("training_metrics")
    assert await listed(evaluator) == sorted((lost, kept), key=lambda report: report.name)
    error = await refused(evaluator.GetComparisonReport(v1.GetComparisonReportRequest(name=lost.name)))
    assert error.reason == "ARTIFACT_MISSING"


async def test_a_report_of_an_older_version_is_listed_by_what_is_known(
    evaluator: Any, checkpoints: list[str], settings: EvaluatorSettings
) -> None:
    await evaluator.CreateEvalSet(eval_set(TWELVE))
    base, candidate = await base_of(evaluator), await run(evaluator, checkpoint=checkpoints[0])
    report = await compare(evaluator, base, candidate)
    database = Database(settings.database)
    with database.write() as session:
        session.execute(text("UPDATE comparison_reports SET facts = NULL"))
    database.close()
    (old,) = await listed(evaluator)
    assert (old.name, old.digest, old.create_time) == (report.name, report.digest, report.create_time)
    assert not old.HasField("base")
    assert await evaluator.GetComparisonReport(v1.GetComparisonReportRequest(name=old.name)) == report
