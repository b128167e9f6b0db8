"""Why rows cannot be trained on, in the same words when a job is created and when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tunix_rt_kit.errors import FailedPrecondition

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
