"""The evaluator's settings, and how it is put together."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from tunix_rt import v1
from tunix_rt.wire import open_channel
from tunix_rt_evaluator.comparisons.service import ComparisonService
from tunix_rt_evaluator.eval_sets.repository import SqlEvalSetRepository
from tunix_rt_evaluator.eval_sets.service import EvalSetService
from tunix_rt_evaluator.evaluations.job_folders import JobFolders, WarmWorkers
from tunix_rt_evaluator.evaluations.jobs import Evaluations, JobContext, Regrades
from tunix_rt_evaluator.evaluations.repository import SqlEvaluationRepository
from tunix_rt_evaluator.evaluations.results import Splitters
from tunix_rt_evaluator.evaluations.service import EvaluationService
from tunix_rt_evaluator.grading.graders.judge import JudgeEndpoint
from tunix_rt_evaluator.grading.graders.python import PythonGraders, PythonPolicy
from tunix_rt_evaluator.grading.service import Grading
from tunix_rt_evaluator.openai_endpoint import Endpoint, check_url
from tunix_rt_evaluator.report.repository import SqlReportRepository
from tunix_rt_evaluator.servicer import EvaluatorServicer
from tunix_rt_evaluator.tables import leases
from tunix_rt_evaluator.upstream import ExporterTrainingData, HostBaseModels, TrainerCheckpoints
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.database import Database
from tunix_rt_kit.jobs.engine import JobEngine
from tunix_rt_kit.jobs.leases import SqlLeases
from tunix_rt_kit.models.runtime import child_environment, code_revision
from tunix_rt_kit.serving.server import BuiltService, ServiceRegistration, opened_database
from tunix_rt_kit.serving.settings import Address, ModelSettings
from tunix_rt_kit.values import Stored


def _url_or_none(url: str) -> str:
    return check_url(url) if url else ""


class EvaluatorSettings(ModelSettings):
    """Where to serve, where evaluations, models and artifacts are kept, and whom to ask for checkpoints and
    training data; by flag or by ``TUNIX_RT_EVALUATOR_...``."""

    model_config = SettingsConfigDict(env_prefix="TUNIX_RT_EVALUATOR_")

    listen: Address = Field("127.0.0.1:50054", description="address to serve on, host:port; port 0 picks one")
    trainer_target: Address = Field("127.0.0.1:50053", description="address of the trainer, host:port")
    exporter_target: Address = Field(
        "127.0.0.1:50052",
        description="address of the exporter, host:port; it is asked which items training data leaks",
    )
    slots: int = Field(
        1, ge=1, le=64, description="how many evaluations run at once; one per device is right"
    )
    keep_model_s: float | None = Field(
        None,
        ge=0,
        le=86_400,
        description="how long a model stays loaded after an evaluation, in seconds; left out: 60, and 0 on a "
        "GPU, whose memory the next program needs",
    )
    judge_url: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="base of an OpenAI-compatible API whose models grade answers, such as "
        "http://localhost:8000/v1; empty: none",
    )
    judge_api_key: SecretStr = Field(
        SecretStr(""), description="key for that API; better by the environment than by a flag"
    )
    judge_timeout_s: float = Field(60.0, gt=0, le=3_600, description="how long a judge may take to answer")
    judge_retries: int = Field(
        3, ge=0, le=20, description="how often a judge is asked again that gave no answer, 429 or 5xx"
    )
    judge_concurrency: int = Field(8, ge=1, le=256, description="how many answers a judge is asked at once")
    grading_budget_s: float = Field(
        14_400.0,
        gt=0,
        le=31_536_000,
        description="how long grading the answers of one evaluation may take, in seconds; then it has failed",
    )
    python_graders: PythonPolicy = Field(
        "off",
        description="whose graders written in Python are run: off, nobody's; sandboxed, anybody's who may "
        "call this server, in processes that Linux keeps from files and network; trusted, those of people "
        "who may run what they like here, on any platform",
    )
    endpoint_url: Annotated[str, AfterValidator(_url_or_none)] = Field(
        "",
        description="base of an OpenAI-compatible API whose models are evaluated, such as "
        "http://localhost:8000/v1; empty: none",
    )
    endpoint_api_key: SecretStr = Field(
        SecretStr(""), description="key for that API; better by the environment than by a flag"
    )
    endpoint_timeout_s: float = Field(
        600.0, gt=0, le=3_600, description="how long the endpoint may take for one answer"
    )
    endpoint_retries: int = Field(
        3,
        ge=0,
        le=20,
        description="how often a request to the endpoint is tried again that got no answer or a 5xx; after a "
        "429 it waits for its turn",
    )

    @property
    def endpoint(self) -> Endpoint:
        """Where models run that are evaluated by name."""
        return Endpoint(
            url=self.endpoint_url,
            api_key=self.endpoint_api_key.get_secret_value(),
            timeout_s=self.endpoint_timeout_s,
            retries=self.endpoint_retries,
        )

    @property
    def judge(self) -> JudgeEndpoint:
        """Where judges run."""
        return JudgeEndpoint(
            url=self.judge_url,
            api_key=self.judge_api_key.get_secret_value(),
            timeout_s=self.judge_timeout_s,
            retries=self.judge_retries,
            concurrency=self.judge_concurrency,
        )


FULL_NAME = "tunix_rt.v1.Evaluator"
_FOLDERS: Final = "evaluations"


def _grading(settings: EvaluatorSettings, eval_sets: SqlEvalSetRepository) -> Grading:
    return Grading(settings.judge, PythonGraders(settings.python_graders, eval_sets))


def build(settings: EvaluatorSettings, stopping: asyncio.Event) -> BuiltService:
    """The evaluator, not started yet; watches end when ``stopping`` is set."""
    database = Database(settings.database)
    eval_sets = SqlEvalSetRepository(database)
    repository = SqlEvaluationRepository(database)
    artifacts = ArtifactStore(settings.artifacts)
    # Of its own: whoever tries slow graders by calls must not hold up jobs.
    grading, for_calls = (_grading(settings, eval_sets) for _ in range(2))
    models = HostBaseModels(settings.models)
    splitters = Splitters(models.token_counter)
    context = JobContext(repository, eval_sets, artifacts, grading, splitters, settings.grading_budget_s)
    generating, regrades = _kinds(settings, context)
    engine = JobEngine(SqlLeases(database, leases), [generating, regrades])
    trainer = open_channel(settings.trainer_target)
    exporter = open_channel(settings.exporter_target)
    evaluations = EvaluationService(
        repository,
        eval_sets,
        TrainerCheckpoints(trainer),
        models,
        engine,
        for_calls,
        generating.folders.discard,
        has_endpoint=bool(settings.endpoint_url),
        measured=generating.folders.measure,
    )
    datasets, reports = ExporterTrainingData(exporter), SqlReportRepository(database, artifacts)
    comparisons = ComparisonService(repository, eval_sets, reports, datasets)
    sets = EvalSetService(eval_sets, for_calls, datasets)
    servicer = EvaluatorServicer(sets, evaluations, comparisons, stopping)

    def start() -> None:
        settings.make_data_dir()
        if database.dialect == "sqlite":
            repository.migrate()

    def start_jobs(*, only_ends: bool) -> None:
        generating.tidy()
        engine.start(only_ends=only_ends)

    def end_jobs() -> None:
        engine.stop(settings.calls_and_jobs_s)
        generating.warm_workers.close()

    def stop() -> None:
        end_jobs()
        for one in (grading, for_calls, trainer, exporter, database):
            one.close()

    return BuiltService(
        ServiceRegistration(
            FULL_NAME,
            lambda server: v1.add_EvaluatorServicer_to_server(servicer, server),
            ends=(end_jobs,),
        ),
        start,
        stop,
        start_jobs,
        settings.data_dir,
    )


def _kinds(settings: EvaluatorSettings, context: JobContext) -> tuple[Evaluations, Regrades]:
    data_dir = settings.data_dir.absolute()
    folders = JobFolders(
        data_dir / _FOLDERS,
        context.artifacts,
        endpoint=settings.endpoint,
        models_dir=settings.models,
        environment=child_environment(data_dir / "cache" / "jax"),
        code_revision=code_revision(),
        responses=data_dir / "cache" / "responses.db",
    )
    warm_workers = WarmWorkers(settings.slots, settings.keep_model_s)
    return Evaluations(context, folders, warm_workers, settings.slots), Regrades(context)


def stored(settings: EvaluatorSettings) -> list[Stored]:
    """What the evaluator keeps, deleted or not."""
    folder = settings.data_dir.absolute() / _FOLDERS
    with opened_database(settings) as database:
        evaluations = SqlEvaluationRepository(database).stored(folder)
        reports = SqlReportRepository(database, ArtifactStore(settings.artifacts))
        return [*evaluations, *reports.stored()]


def migrate(settings: EvaluatorSettings) -> None:
    """Bring the schema of the settings' database to the newest revision."""
    with opened_database(settings) as database:
        SqlEvaluationRepository(database).migrate()
