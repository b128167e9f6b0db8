"""Settings of the trainer, by flag or ``TUNIX_RT_TRAINER_...``, and what puts it together by them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Final

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from tunix_rt import v1
from tunix_rt.wire import open_channel
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.database import Database
from tunix_rt_kit.jobs.engine import JobEngine
from tunix_rt_kit.jobs.leases import SqlLeases
from tunix_rt_kit.models.runtime import child_environment, code_revision
from tunix_rt_kit.serving.server import BuiltService, ServiceRegistration, opened_database
from tunix_rt_kit.serving.settings import Address, ModelSettings
from tunix_rt_kit.values import Stored
from tunix_rt_trainer.base_models import BaseModelService
from tunix_rt_trainer.checkpoints.repository import SqlCheckpointRepository
from tunix_rt_trainer.checkpoints.service import CheckpointService
from tunix_rt_trainer.jobs.model import MetricsSink
from tunix_rt_trainer.jobs.repository import SqlJobRepository
from tunix_rt_trainer.jobs.service import JobService
from tunix_rt_trainer.jobs.training import JobFolders, Training
from tunix_rt_trainer.servicer import TrainerServicer
from tunix_rt_trainer.tables import leases
from tunix_rt_trainer.upstream import ExporterDatasets

_MODULES: Final[Mapping[MetricsSink, str]] = {
    "tensorboard": "tensorboardX",
    "mlflow": "mlflow",
    "wandb": "wandb",
}


def _names(value: str) -> list[str]:
    return [] if value == "none" else [name for part in value.split(",") if (name := part.strip())]


class TrainerSettings(ModelSettings):
    """Where to serve, where jobs, models and artifacts are kept, and whom to ask for datasets."""

    model_config = SettingsConfigDict(env_prefix="TUNIX_RT_TRAINER_")

    listen: Address = Field("127.0.0.1:50053", description="address to serve on, host:port; port 0 picks one")
    exporter_target: Address = Field("127.0.0.1:50052", description="address of the exporter, host:port")
    slots: int = Field(1, ge=1, le=64, description="how many jobs run at once; one per device is right")

    metrics_to: str = Field(
        "tensorboard",
        description="where metrics go beside the jobs' own events, of tensorboard, mlflow and wandb, with a "
        "comma between; none means nowhere",
    )

    @field_validator("metrics_to")
    @classmethod
    def _known_sinks(cls, value: str) -> str:
        given = _names(value)
        if unknown := set(given) - set(_MODULES):
            raise ValueError(f"{min(unknown)!r} is none of {', '.join(_MODULES)}")
        for name, module in _MODULES.items():
            if name in given and find_spec(module) is None:
                raise ValueError(f"{name} needs a package: pip install 'tunix-rt[{name}]'")
        return value

    @property
    def sinks(self) -> tuple[MetricsSink, ...]:
        """Where metrics go, by name."""
        return tuple(name for name in _MODULES if name in _names(self.metrics_to))


FULL_NAME = "tunix_rt.v1.Trainer"
_JOBS: Final = "training-jobs"


def build(settings: TrainerSettings, stopping: asyncio.Event) -> BuiltService:
    """The trainer, not started yet; its watches end when ``stopping`` is set."""
    database = Database(settings.database)
    repository = SqlJobRepository(database)
    artifacts = ArtifactStore(settings.artifacts)
    folders = _folders(settings, artifacts)
    models = BaseModelService(settings.models, artifacts, repository.base_models)
    checkpoints = CheckpointService(
        repository,
        SqlCheckpointRepository(database),
        artifacts,
        models,
        settings.data_dir.absolute() / "exports",
        folders.discard_checkpoint,
    )
    training = Training(repository, checkpoints, folders, settings.slots)
    engine = JobEngine(SqlLeases(database, leases), [training])
    exporter = open_channel(settings.exporter_target)
    jobs = JobService(
        repository,
        ExporterDatasets(exporter),
        models,
        engine,
        folders.lines,
        folders.discard,
        folders.measure,
    )
    servicer = TrainerServicer(jobs, checkpoints, models, stopping)

    def start() -> None:
        settings.make_data_dir()
        if database.dialect == "sqlite":
            repository.migrate()

    def start_jobs(*, only_ends: bool) -> None:
        training.end_left_behind()
        engine.start(only_ends=only_ends)

    def end_jobs() -> None:
        engine.stop(settings.calls_and_jobs_s)

    def stop() -> None:
        end_jobs()
        exporter.close()
        database.close()

    return BuiltService(
        ServiceRegistration(
            FULL_NAME,
            lambda server: v1.add_TrainerServicer_to_server(servicer, server),
            ends=(end_jobs,),
        ),
        start,
        stop,
        start_jobs,
        settings.data_dir,
    )


def _folders(settings: TrainerSettings, artifacts: ArtifactStore) -> JobFolders:
    data_dir = settings.data_dir.absolute()
    cache_dir = data_dir / "cache"
    return JobFolders(
        data_dir / _JOBS,
        artifacts,
        models_dir=settings.models,
        cache_dir=cache_dir,
        environment=child_environment(cache_dir / "jax"),
        code_revision=code_revision(),
        metrics_to=settings.sinks,
    )


def stored(settings: TrainerSettings) -> list[Stored]:
    """What the trainer keeps, deleted or not."""
    folder = settings.data_dir.absolute() / _JOBS
    models = BaseModelService(settings.models, ArtifactStore(settings.artifacts))
    with opened_database(settings) as database:
        jobs = SqlJobRepository(database).stored(folder)
        return [*jobs, *SqlCheckpointRepository(database).stored(), *models.stored()]


def migrate(settings: TrainerSettings) -> None:
    """Bring the schema of the settings' database to the newest revision."""
    with opened_database(settings) as database:
        SqlJobRepository(database).migrate()
