"""Why rows cannot be trained on and jobs do not fit into memory, in the same words wherever it is found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_trainer.jobs.model import TrainingSpec

NAMED: Final = 5
"""How many of the rows are named."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with rows: the error's reason, what follows "N examples are", and what would be right."""

    reason: str
    text: str
    remedy: str


def too_long(max_length: int) -> Problem:
    """They have more tokens than a row of a batch."""
    return Problem(
        "EXAMPLE_TOO_LONG",
        f"longer than max_length of {max_length} tokens",
        "set a larger max_length, or leave these traces out of the dataset",
    )


NO_RESPONSE: Final = Problem(
    "EXAMPLE_WITHOUT_RESPONSE", "without a response to learn", "leave these traces out of the dataset"
)
NO_END: Final = Problem(
    "END_NOT_SUPERVISED",
    "without the token that ends a turn in what is learned, so the model would not learn to stop",
    "build the dataset for this model (tunix-rt dataset build --base-model), with its own chat template",
)

LOST: Final = Problem(
    "TARGET_LOST",
    "no longer what they were once they are tokens: the tokenizer writes another response, or there is none",
    "leave these traces out of the dataset, or train a model whose tokenizer can write them",
)
SPECIAL: Final = Problem(
    "SPECIAL_TOKEN_IN_TEXT",
    "with a special token of the model in a text, which would be read as a command",
    "build the dataset for this model (tunix-rt dataset build --base-model), which leaves these traces out",
)


def refusal(
    problem: Problem, split: str, count: int, first_id: str, labels: Sequence[str], dataset: str = ""
) -> FailedPrecondition:
    """The error for ``count`` rows, of which ``labels`` names at least the first ``NAMED``.

    With ``dataset`` it is an error about the field ``spec.dataset``.
    """
    named = labels[:NAMED]
    about = f"{count} examples of split {split!r}"
    if dataset:
        about = f"spec.dataset: {about} of {dataset}"
    more = f" and {count - len(named)} more" if count > len(named) else ""
    return FailedPrecondition(
        f"{about} are {problem.text}: {', '.join(named)}{more}; {problem.remedy}",
        reason=problem.reason,
        metadata={"split": split, "count": str(count), "first_id": first_id},
    )


_COUNTERS: Final = Path("/proc/vmstat")


def advice(spec: TrainingSpec) -> str:
    """The settings that take less memory, of those that can still be changed."""
    settings = ["a smaller rows_per_batch"]
    if spec.gradient_accumulation_steps < spec.rows_per_batch:
        settings.append("more gradient_accumulation_steps")
    if spec.remat != "full":
        settings.append('remat "full"')
    settings.append("a shorter max_length")
    return f"{', '.join(settings[:-1])} or {settings[-1]} takes less"


def rows_at_a_time(spec: TrainingSpec) -> str:
    """How many rows of which length are computed at a time."""
    rows = spec.rows_per_batch // spec.gradient_accumulation_steps
    return f"{rows} rows of {spec.max_length} tokens at a time"


def processes_killed_for_memory() -> int | None:
    """How many processes the system has killed since its start because memory ran out; None if unknown."""
    try:
        lines = _COUNTERS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)
