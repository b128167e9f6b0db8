"""Settings of the trace store, by flag or by ``TUNIX_RT_TRACE_STORE_...``."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from tunix_rt_kit.serving.settings import Address, DataSettings


class TraceStoreSettings(DataSettings):
    """Where to serve, and where traces are stored."""

    model_config = SettingsConfigDict(env_prefix="TUNIX_RT_TRACE_STORE_")

    listen: Address = Field("127.0.0.1:50051", description="address to serve on, host:port; port 0 picks one")
