"""What a family of models is to this package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tunix_rt_kit.models.families.config import ModelConfig
from tunix_rt_kit.models.families.fields import Fields


@dataclass(frozen=True, slots=True)
class Family:
    """A family of models.

    ``architecture`` and ``model_type`` are its names in ``config.json``; ``read`` turns the fields of that
    file into a ``ModelConfig`` and raises FailedPrecondition (BASE_MODEL_UNSUPPORTED) for one that cannot be
    honoured.
    """

    name: str
    architecture: str
    model_type: str
    read: Callable[[Fields], ModelConfig]


def refuse_unknown_arithmetic(fields: Fields, *, activation_field: str, activation: str) -> None:
    """Refuse what no family here computes: other activations, biased projections, quantised weights."""
    fields.require(activation_field, activation)
    fields.refuse("quantization_config")
    fields.refuse("mlp_bias")
