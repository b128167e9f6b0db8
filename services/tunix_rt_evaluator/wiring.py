"""Puts the evaluator together."""

from __future__ import annotations

import asyncio

from tunix_rt import v1
from tunix_rt.wire import open_channel
from tunix_rt_evaluator.comparisons.repository import SqlReportRepository
from tunix_rt_evaluator.comparisons.service import ComparisonService
from tunix_rt_evaluator.eval_sets.repository import SqlEvalSetRepository
from tunix_rt_evaluator.eval_sets.service import EvalSetService
from tunix_rt_evaluator.evaluations.base_models import HostBaseModels
from tunix_rt_evaluator.evaluations.generating import Evaluations
from tunix_rt_evaluator.evaluations.grade import Splitters
from tunix_rt_evaluator.evaluations.job_folders import JobFolders, WarmWorkers
from tunix_rt_evaluator.evaluations.regrading import Regrades
from tunix_rt_evaluator.evaluations.repository import SqlEvaluationRepository
from tunix_rt_evaluator.evaluations.service import EvaluationService
from tunix_rt_evaluator.grading.graders.judge import JudgeEndpoint
from tunix_rt_evaluator.grading.service import Grading
from tunix_rt_evaluator.report.store import ReportStore
from tunix_rt_evaluator.servicer import EvaluatorServicer
from tunix_rt_evaluator.settings import EvaluatorSettings
from tunix_rt_evaluator.tables import leases
from tunix_rt_evaluator.upstream import ExporterTrainingData, TrainerCheckpoints
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.database import Database
from tunix_rt_kit.jobs import JobEngine
from tunix_rt_kit.jobs.leases import SqlLeases
from tunix_rt_kit.models.runtime import child_environment, code_revision
from tunix_rt_kit.serving.server import BuiltService, ServiceRegistration, opened_database

FULL_NAME = "tunix_rt.v1.Evaluator"


def build(settings: EvaluatorSettings, stopping: asyncio.Event) -> BuiltService:
    """The evaluator, not started yet; watches end when ``stopping`` is set."""
    database = Database(settings.database)
    eval_sets = SqlEvalSetRepository(database)
    repository = SqlEvaluationRepository(database)
    artifacts = ArtifactStore(settings.artifacts)
    grading = Grading(judge_endpoint(settings))
    models = HostBaseModels(settings.models)
    generating, regrades = _kinds(settings, repository, eval_sets, artifacts, grading, models)
    engine = JobEngine(SqlLeases(database, leases), [generating, regrades])
    trainer = open_channel(settings.trainer_target)
    exporter = open_channel(settings.exporter_target)
    evaluations = EvaluationService(
        repository,
        eval_sets,
        TrainerCheckpoints(trainer),
        models,
        engine,
        grading,
        has_endpoint=bool(settings.endpoint_url),
    )
    comparisons = ComparisonService(
        repository,
        eval_sets,
        SqlReportRepository(database),
        ReportStore(artifacts),
        ExporterTrainingData(exporter),
    )
    servicer = EvaluatorServicer(EvalSetService(eval_sets, grading), evaluations, comparisons, stopping)

    def start() -> None:
        settings.make_data_dir()
        if database.dialect == "sqlite":
            repository.migrate()
        generating.tidy()
        engine.start()

    def end_jobs() -> None:
        engine.stop(settings.calls_and_jobs_s)
        generating.warm_workers.close()

    def stop() -> None:
        end_jobs()
        grading.close()
        trainer.close()
        exporter.close()
        database.close()

    return BuiltService(
        ServiceRegistration(
            FULL_NAME,
            lambda server: v1.add_EvaluatorServicer_to_server(servicer, server),
            ends=(end_jobs,),
        ),
        start,
        stop,
    )


def _kinds(
    settings: EvaluatorSettings,
    repository: SqlEvaluationRepository,
    eval_sets: SqlEvalSetRepository,
    artifacts: ArtifactStore,
    grading: Grading,
    models: HostBaseModels,
) -> tuple[Evaluations, Regrades]:
    data_dir, budget_s = settings.data_dir.absolute(), settings.grading_budget_s
    folders = JobFolders(
        data_dir / "evaluations",
        artifacts,
        endpoint=settings.endpoint,
        models_dir=settings.models,
        environment=child_environment(data_dir / "cache" / "jax"),
        code_revision=code_revision(),
        responses=data_dir / "cache" / "responses.db",
    )
    warm_workers = WarmWorkers(settings.slots, settings.keep_model_s)
    splitters = Splitters(models.token_counter)
    generating = Evaluations(
        repository, eval_sets, folders, artifacts, grading, settings.slots, warm_workers, splitters, budget_s
    )
    return generating, Regrades(repository, eval_sets, artifacts, grading, splitters, budget_s)


def judge_endpoint(settings: EvaluatorSettings) -> JudgeEndpoint:
    """Where judges run, as the settings say."""
    return JudgeEndpoint(
        url=settings.judge_url,
        api_key=settings.judge_api_key.get_secret_value(),
        timeout_s=settings.judge_timeout_s,
        retries=settings.judge_retries,
        concurrency=settings.judge_concurrency,
    )


def migrate(settings: EvaluatorSettings) -> None:
    """Bring the schema of the settings' database to the newest revision."""
    with opened_database(settings) as database:
        SqlEvaluationRepository(database).migrate()
