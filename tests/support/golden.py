"""Golden logits: a few rows of the reference, kept so that parity is tested where torch is not installed.

``python -m support.golden FOLDER OUT.json``, run in ``tests``, writes them (needs torch and transformers).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from tunix_rt_kit.canonical import digest_file
from tunix_rt_kit.models.hf_folder import weight_files
from tunix_rt_kit.models.pretrained import PROMPTS, Reference, transformers_logits
from tunix_rt_kit.models.runtime import package_versions
from tunix_rt_kit.models.tokenizer import load_tokenizer

_TOP = 64
_SPREAD = 64
_POSITIONS = 4
_ARGUMENTS = 3


class GoldenRow(BaseModel):
    """Logits of some vocabulary ids after the token at ``position`` (from 0)."""

    model_config = ConfigDict(frozen=True)

    position: int
    ids: list[int]
    logits: list[float]


class GoldenPrompt(BaseModel):
    """A prompt, its tokens and some rows of its logits."""

    model_config = ConfigDict(frozen=True)

    text: str
    tokens: list[int]
    rows: list[GoldenRow]


class Golden(BaseModel):
    """What the reference computed in float32 for one model; ``weights`` is file name to digest."""

    model_config = ConfigDict(frozen=True)

    weights: dict[str, str]
    versions: dict[str, str]
    prompts: list[GoldenPrompt]


def make_golden(
    folder: Path, *, prompts: Sequence[str] = PROMPTS, reference: Reference = transformers_logits
) -> Golden:
    """Compute the golden of a Hugging Face folder.

    Of each prompt four positions are kept, the last one among them; of each position the 64 highest logits
    and 64 that are spread evenly over the vocabulary.

    Raises:
        FailedPrecondition: TORCH_MISSING or BASE_MODEL_UNSUPPORTED.
    """
    sequences = load_tokenizer(folder).encode_batch(prompts)
    results = [
        GoldenPrompt(text=text, tokens=tokens, rows=_rows(logits))
        for text, tokens, logits in zip(prompts, sequences, reference(folder, sequences), strict=True)
    ]
    weights = {file.name: digest_file(file) for file in weight_files(folder)}
    return Golden(weights=weights, versions=package_versions(["torch", "transformers"]), prompts=results)


def max_difference(golden: GoldenPrompt, logits: npt.NDArray[np.float32]) -> float:
    """Largest absolute difference between a prompt's golden rows and ``logits`` [length, vocabulary]."""
    return max(
        float(np.abs(logits[row.position, row.ids] - np.asarray(row.logits, np.float32)).max())
        for row in golden.rows
    )


def _rows(logits: npt.NDArray[np.float32]) -> list[GoldenRow]:
    length, vocabulary = logits.shape
    positions = np.unique(np.linspace(0, length - 1, _POSITIONS).round().astype(int))
    spread = np.linspace(0, vocabulary - 1, _SPREAD).round().astype(int)
    rows = []
    for position in positions:
        top = np.argsort(-logits[position], kind="stable")[:_TOP]
        ids = np.unique(np.concatenate([top, spread]))
        values = [float(str(value)) for value in logits[position, ids]]
        rows.append(GoldenRow(position=int(position), ids=ids.tolist(), logits=values))
    return rows


def main(arguments: list[str]) -> int:
    """Write the golden of the folder ``arguments[1]`` to the file ``arguments[2]``."""
    if len(arguments) != _ARGUMENTS:
        sys.stderr.write("usage: python -m support.golden FOLDER OUT.json\n")
        return 2
    golden = make_golden(Path(arguments[1]))
    Path(arguments[2]).write_text(golden.model_dump_json() + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
