"""Puts the trainer together."""

from __future__ import annotations

import asyncio

from tunix_rt import v1
from tunix_rt.wire import open_channel
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.database import Database
from tunix_rt_kit.jobs import JobEngine
from tunix_rt_kit.jobs.leases import SqlLeases
from tunix_rt_kit.models.runtime import child_environment, code_revision
from tunix_rt_kit.serving.main import BuiltService, opened_database
from tunix_rt_kit.serving.server import ServiceRegistration
from tunix_rt_trainer.base_models.service import BaseModelService
from tunix_rt_trainer.checkpoints.repository import SqlCheckpointRepository
from tunix_rt_trainer.checkpoints.service import CheckpointService
from tunix_rt_trainer.jobs.job_folders import JobFolders
from tunix_rt_trainer.jobs.repository import SqlJobRepository
from tunix_rt_trainer.jobs.service import JobService
from tunix_rt_trainer.jobs.training import Training
from tunix_rt_trainer.servicer import TrainerServicer
from tunix_rt_trainer.settings import TrainerSettings
from tunix_rt_trainer.tables import leases
from tunix_rt_trainer.upstream import ExporterDatasets

FULL_NAME = "tunix_rt.v1.Trainer"


def build(settings: TrainerSettings, stopping: asyncio.Event) -> BuiltService:
    """The trainer, not started yet; its watches end when ``stopping`` is set."""
    database = Database(settings.database)
    repository = SqlJobRepository(database)
    artifacts = ArtifactStore(settings.artifacts)
    data_dir = settings.data_dir.absolute()
    cache_dir = data_dir / "cache"
    folders = JobFolders(
        data_dir / "training-jobs",
        artifacts,
        models_dir=settings.models,
        cache_dir=cache_dir,
        environment=child_environment(cache_dir / "jax"),
        code_revision=code_revision(),
        metrics_to=settings.sinks,
    )
    models = BaseModelService(settings.models, artifacts)
    checkpoints = CheckpointService(
        repository, SqlCheckpointRepository(database), artifacts, models, data_dir / "exports"
    )
    training = Training(repository, checkpoints, folders, settings.slots)
    engine = JobEngine(SqlLeases(database, leases), [training])
    exporter = open_channel(settings.exporter_target)
    jobs = JobService(repository, ExporterDatasets(exporter), models, engine, folders)
    servicer = TrainerServicer(jobs, checkpoints, models, stopping)

    def start() -> None:
        settings.make_data_dir()
        if database.dialect == "sqlite":
            repository.migrate()
        training.end_left_behind()
        engine.start()

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
    )


def migrate(settings: TrainerSettings) -> None:
    """Bring the schema of the settings' database to the newest revision."""
    with opened_database(settings) as database:
        SqlJobRepository(database).migrate()
