"""The families of models that can be run, as descriptions that need no model library.

How each is run is in ``tunix_rt_kit.models.networks``, under the same names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunix_rt_kit.models.families import gemma, llama, qwen
from tunix_rt_kit.models.families.config import ModelConfig, Rope
from tunix_rt_kit.models.families.family import Family
from tunix_rt_kit.models.families.fields import CONFIG_FILE, Fields, unfit, unsupported

__all__ = [
    "CONFIG_FILE",
    "FAMILIES",
    "Family",
    "Fields",
    "ModelConfig",
    "Rope",
    "family_of",
    "unfit",
    "unsupported",
]

FAMILIES: dict[str, Family] = {
    family.name: family for family in (llama.FAMILY, qwen.QWEN2, qwen.QWEN3, gemma.GEMMA2, gemma.GEMMA3)
}
"""Every family by name."""

_MULTIMODAL = "Gemma3ForConditionalGeneration"


def family_of(folder: Path, architectures: Any) -> Family:
    """The family whose ``architectures`` entry a ``config.json`` in ``folder`` has.

    Raises:
        FailedPrecondition: BASE_MODEL_UNSUPPORTED, with the architectures that are known.
    """
    for family in FAMILIES.values():
        if architectures == [family.architecture]:
            return family
    known = ", ".join(family.architecture for family in FAMILIES.values())
    wanted = f"it must name one of {known}"
    if architectures == [_MULTIMODAL]:
        wanted = f"models of text and images are not supported; {wanted}"
    raise unsupported(folder, "architectures", architectures, wanted, file=CONFIG_FILE)
