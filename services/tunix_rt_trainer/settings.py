"""Settings of the trainer, by flag or by ``TUNIX_RT_TRAINER_...``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Final

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from tunix_rt_kit.serving.settings import Address, ModelSettings
from tunix_rt_trainer.jobs.model import MetricsSink

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
