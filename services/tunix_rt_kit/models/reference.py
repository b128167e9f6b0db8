"""Logits by ``transformers`` and torch, the reference that Tunix's are held against.

Both packages are optional: only ``verify`` and the making of goldens need them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tunix_rt_kit.errors import FailedPrecondition

INSTALL_COMMAND = "pip install torch transformers"

Reference = Callable[[Path, Sequence[Sequence[int]]], Iterator[npt.NDArray[np.float32]]]
"""From a model folder and token sequences to the logits of each: [length, vocabulary] in float32."""

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
"""Short and long, prose, code and chat: a wrong rotary base shows more, the farther tokens are apart."""


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
