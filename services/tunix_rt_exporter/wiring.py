"""Settings of the exporter, by flag or ``TUNIX_RT_EXPORTER_...``, and what puts it together by them."""

from __future__ import annotations

import asyncio

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from tunix_rt import v1
from tunix_rt.wire import open_channel
from tunix_rt_exporter.audits.preview import RowPreviews
from tunix_rt_exporter.audits.repository import SqlAuditRepository
from tunix_rt_exporter.audits.service import DatasetAudits
from tunix_rt_exporter.datasets.build import Builds
from tunix_rt_exporter.datasets.derived import DatasetFiles
from tunix_rt_exporter.datasets.repository import SqlDatasetRepository, SqlDerivedFiles
from tunix_rt_exporter.datasets.service import ExporterService
from tunix_rt_exporter.servicer import ExporterServicer
from tunix_rt_exporter.tables import build_leases
from tunix_rt_exporter.upstream import GrpcEvalSetSource, GrpcTraceSource
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.database import Database
from tunix_rt_kit.jobs.engine import JobEngine
from tunix_rt_kit.jobs.leases import SqlLeases
from tunix_rt_kit.serving.server import BuiltService, ServiceRegistration, opened_database
from tunix_rt_kit.serving.settings import Address, ArtifactSettings
from tunix_rt_kit.values import Stored


class ExporterSettings(ArtifactSettings):
    """Where to serve, where the datasets are kept, and which services they are made with."""

    model_config = SettingsConfigDict(env_prefix="TUNIX_RT_EXPORTER_")

    listen: Address = Field("127.0.0.1:50052", description="address to serve on, host:port; port 0 picks one")
    trace_store_target: Address = Field("127.0.0.1:50051", description="address of the trace store")
    evaluator_target: Address = Field(
        "127.0.0.1:50054", description="address of the evaluator, asked for eval sets only"
    )
    build_slots: int = Field(1, ge=1, le=16, description="builds that run at once")
    upstream_patience_s: float = Field(
        60.0,
        ge=0,
        le=86_400,
        description="seconds that a build waits for the next trace while the store is away or silent",
    )


FULL_NAME = "tunix_rt.v1.Exporter"


def build(settings: ExporterSettings, stopping: asyncio.Event) -> BuiltService:
    """The exporter, not started yet; ``stopping`` is the server's stop event, which ends watches."""
    database = Database(settings.database)
    repository = SqlDatasetRepository(database)
    artifacts = ArtifactStore(settings.artifacts)
    trace_store = open_channel(settings.trace_store_target)
    evaluator = open_channel(settings.evaluator_target)
    traces = GrpcTraceSource(trace_store, settings.upstream_patience_s)
    eval_sets = GrpcEvalSetSource(evaluator)
    builds = Builds(
        repository,
        traces=traces,
        eval_sets=eval_sets,
        artifacts=artifacts,
        folder=settings.data_dir.absolute() / "exporter-builds",
        slots=settings.build_slots,
    )
    leases = SqlLeases(database, build_leases)
    engine = JobEngine(leases, [builds])
    files = DatasetFiles(artifacts, SqlDerivedFiles(database))
    service = ExporterService(
        repository,
        traces=traces,
        eval_sets=eval_sets,
        artifacts=artifacts,
        files=files,
        engine=engine,
    )
    audits = DatasetAudits(
        service.complete_dataset,
        eval_sets=eval_sets,
        artifacts=artifacts,
        repository=SqlAuditRepository(database),
    )
    servicer = ExporterServicer(service, audits, RowPreviews(service.complete_dataset, artifacts), stopping)

    def start() -> None:
        settings.make_data_dir()
        if database.dialect == "sqlite":
            repository.migrate()

    def start_jobs(*, only_ends: bool) -> None:
        builds.remove_leftovers(leases)
        engine.start(only_ends=only_ends)

    def end_jobs() -> None:
        engine.stop(settings.calls_and_jobs_s)

    def stop() -> None:
        end_jobs()
        trace_store.close()
        evaluator.close()
        database.close()

    registration = ServiceRegistration(
        FULL_NAME, lambda server: v1.add_ExporterServicer_to_server(servicer, server), ends=(end_jobs,)
    )
    return BuiltService(registration, start, stop, start_jobs, settings.data_dir)


def stored(settings: ExporterSettings) -> list[Stored]:
    """What the exporter keeps, deleted or not."""
    with opened_database(settings) as database:
        return SqlDatasetRepository(database).stored()


def migrate(settings: ExporterSettings) -> None:
    """Bring the schema of the settings' database to the newest revision."""
    with opened_database(settings) as database:
        SqlDatasetRepository(database).migrate()
