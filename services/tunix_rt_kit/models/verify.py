"""Compares what Tunix computes of a model folder with what ``transformers`` computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.models.pretrained import load_model, logits, make_mesh
from tunix_rt_kit.models.runtime import package_versions
from tunix_rt_kit.models.tokenizer import load_tokenizer

INSTALL_COMMAND = "pip install torch transformers"
Reference = Callable[[Path, Sequence[Sequence[int]]], Iterator[npt.NDArray[np.float32]]]
"""From a model folder and token sequences to float32 logits [length, vocabulary] of each."""
PROMPTS = (
    "<|im_start|>user\nWhat is 17 + 25? Think step by step.<|im_end|>\n<|im_start|>assistant\n",
    "The three states of matter that we meet every day are solid, liquid and",
    "def mean(values: list[float]) -> float:\n    return sum(values) /",
    "A baker makes 48 rolls in the morning and 36 in the afternoon. He sells three quarters of the "
    "morning's rolls and half of the others. Rolls that are left over cost 20 cents each, and a "
    "customer who buys at least ten of them pays 15 cents for each. First count what is left: of the "
    "morning's 48 rolls a quarter, 12, stay on the shelf, and of the afternoon's 36 rolls 18 stay. "
    "Together that is 30 rolls. Mrs. Müller takes all of them, so she pays 15 cents for each, which "
    "makes",
)
"""Short and long, prose, code and chat. A wrong rotary base shows most between distant tokens."""
TOLERANCE = 1e-3
"""Largest absolute difference of a logit that passes."""


def transformers_logits(path: Path, sequences: Sequence[Sequence[int]]) -> Iterator[npt.NDArray[np.float32]]:
    """The ``Reference`` computed by ``transformers``, with its plain ("eager") attention.

    Raises:
        FailedPrecondition: TORCH_MISSING, with the command that installs what is missing.
    """
    torch, transformers = _import()
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        str(path), dtype=torch.float32, local_files_only=True, attn_implementation="eager"
    )
    model.eval()

    def run(tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            logits: npt.NDArray[np.float32] = model(torch.tensor([list(tokens)])).logits[0].numpy()
        return logits

    return (run(tokens) for tokens in sequences)


def _import() -> tuple[Any, Any]:
    try:
        import torch
        import transformers
    except ModuleNotFoundError as error:
        raise FailedPrecondition(
            f"package {error.name} is missing, which computes the reference; run: {INSTALL_COMMAND}",
            reason="TORCH_MISSING",
            metadata={"package": str(error.name), "command": INSTALL_COMMAND},
        ) from None
    return torch, transformers


class PromptParity(BaseModel):
    """How one prompt compared.

    ``tokens`` is its length, ``max_abs_difference`` the largest difference of a logit, ``top1_agreement`` the
    share of positions with the same most likely next token.
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
