"""Settings of the trace store, by flag or by ``TUNIX_RT_TRACE_STORE_...``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from tunix_rt_kit.serving.settings import Address, ServerSettings


class TraceStoreSettings(ServerSettings):
    """Where to serve, and where the traces are kept."""

    model_config = SettingsConfigDict(env_prefix="TUNIX_RT_TRACE_STORE_")

    listen: Address = Field("127.0.0.1:50051", description="address to serve on, host:port; port 0 picks one")
    data_dir: Path = Field(Path("data"), description="folder of the SQLite database, made if it is not there")
    database_url: str = Field(
        "", description="postgresql://... or sqlite:///...; empty means trace-store.db in the data folder"
    )

    @property
    def database(self) -> str:
        """The database URL with its default filled in."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'trace-store.db'}"
