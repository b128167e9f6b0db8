"""Settings of the exporter, by flag or by ``TUNIX_RT_EXPORTER_...``."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from tunix_rt_kit.serving.settings import Address, ArtifactSettings


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
