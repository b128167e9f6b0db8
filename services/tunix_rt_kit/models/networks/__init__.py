"""How each family of ``tunix_rt_kit.models.families`` is run: a Tunix model, mended where it is wrong."""

from __future__ import annotations

from typing import Any, Final

from tunix_rt_kit.models.networks.decoder import Caches, Decoder, is_transposed
from tunix_rt_kit.models.networks.gemma import Gemma2, Gemma3
from tunix_rt_kit.models.networks.llama import Llama
from tunix_rt_kit.models.networks.qwen import Qwen2, Qwen3

__all__ = ["NETWORKS", "Caches", "Decoder", "is_transposed"]

NETWORKS: Final[dict[str, Any]] = {
    "llama": Llama,
    "qwen2": Qwen2,
    "qwen3": Qwen3,
    "gemma2": Gemma2,
    "gemma3": Gemma3,
}
"""The class of a family's models by the family's name; called with ``config``, ``dtype`` and ``rngs``."""
