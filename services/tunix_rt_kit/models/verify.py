"""Does Tunix compute of a model folder what ``transformers`` computes?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import BaseModel, ConfigDict

from tunix_rt_kit.models.loader import load_model, logits, make_mesh
from tunix_rt_kit.models.reference import PROMPTS, Reference, transformers_logits
from tunix_rt_kit.models.runtime import package_versions
from tunix_rt_kit.models.tokenizer import load_tokenizer

TOLERANCE = 1e-3
"""Largest absolute difference of a logit that passes, in float32."""


class PromptParity(BaseModel):
    """How one prompt compared.

    ``tokens`` is its length, ``max_abs_difference`` the largest difference of any logit, ``top1_agreement``
    the share of positions at which both name the same most likely next token.
    """

    model_config = ConfigDict(frozen=True)

    prompt: str
    tokens: int
    max_abs_difference: float
    top1_agreement: float


class VerifyReport(BaseModel):
    """Result of ``verify``; ``passed`` where no logit differs by more than ``tolerance``."""

    model_config = ConfigDict(frozen=True)

    path: Path
    passed: bool
    tolerance: float
    max_abs_difference: float
    prompts: list[PromptParity]
    versions: dict[str, str]


def verify(
    path: Path | str,
    *,
    prompts: Sequence[str] = PROMPTS,
    tolerance: float = TOLERANCE,
    reference: Reference = transformers_logits,
) -> VerifyReport:
    """Compare Tunix's logits with the reference's, both in float32, at every position of every prompt.

    Raises:
        FailedPrecondition: TORCH_MISSING with the command that installs what is missing, or
            BASE_MODEL_UNSUPPORTED.
    """
    folder = Path(path)
    sequences = load_tokenizer(folder).encode_batch(prompts)
    expected = reference(folder, sequences)
    mesh = make_mesh()
    model = load_model(folder, dtype="float32", mesh=mesh)
    results = []
    for prompt, tokens, wanted in zip(prompts, sequences, expected, strict=True):
        ids = jnp.asarray([tokens], jnp.int32)
        with mesh, jax.default_matmul_precision("highest"):
            found = np.asarray(logits(model, ids, jnp.ones_like(ids, bool))[0])
        parity = PromptParity(
            prompt=prompt,
            tokens=len(tokens),
            max_abs_difference=float(np.abs(found - wanted).max()),
            top1_agreement=float((found.argmax(-1) == wanted.argmax(-1)).mean()),
        )
        results.append(parity)
    worst = max(result.max_abs_difference for result in results)
    return VerifyReport(
        path=folder,
        passed=worst <= tolerance,
        tolerance=tolerance,
        max_abs_difference=worst,
        prompts=results,
        versions=package_versions(["jax", "google-tunix", "torch", "transformers"]),
    )
