"""What the trainer does with base models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tunix_rt_kit.serving.resources import Paging
from tunix_rt_kit.values import Page
from tunix_rt_trainer.base_models.model import BaseModelSummary


class BaseModels(Protocol):
    """The base models on this host, and those that can be fetched."""

    def list(self) -> Sequence[BaseModelSummary]:
        """All of them."""

    def resolve(self, base_model: str) -> BaseModelSummary:
        """What a name means; raises NotFound(BASE_MODEL_UNKNOWN), FailedPrecondition."""


class BaseModelService:
    """The use cases."""

    def __init__(self, models: BaseModels) -> None:
        self._models = models

    def list_base_models(self, size: int, page_token: str) -> Page[BaseModelSummary]:
        """One page, by id."""
        paging = Paging(size, page_token, method="ListBaseModels")
        models = sorted(self._models.list(), key=lambda model: model.id)
        rest = [model for model in models if model.id > (paging.after("id") or "")]
        return paging.page(rest[: paging.limit + 1], lambda model: {"id": model.id})

    def get_base_model(self, base_model: str) -> BaseModelSummary:
        """One base model; raises NotFound(BASE_MODEL_UNKNOWN), FailedPrecondition(BASE_MODEL_UNSUPPORTED)."""
        return self._models.resolve(base_model)
