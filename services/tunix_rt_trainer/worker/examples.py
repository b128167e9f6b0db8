"""Training examples as tokens: read, tokenised, and refused by name where they do not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tunix_rt_kit.artifacts import digest_file
from tunix_rt_kit.errors import DataLoss
from tunix_rt_kit.supervision import ExampleEncoder, TextExample, TokenExample, parse_example
from tunix_rt_trainer.jobs.unlearnable import (
    LOST,
    NAMED,
    NO_END,
    NO_RESPONSE,
    SPECIAL,
    Problem,
    refusal,
    too_long,
)

_CHUNK = 512


def read_examples(path: Path, digest: str) -> list[TextExample]:
    """The rows of a split's file of training examples.

    Raises:
        DataLoss: EXAMPLES_CORRUPT, the file's bytes are not those of ``digest``, or a line is not an example.
    """
    actual = digest_file(path)
    if actual != digest:
        raise DataLoss(
            f"{path.name} has digest {actual}, expected {digest}",
            reason="EXAMPLES_CORRUPT",
            metadata={"file": path.name, "digest": digest, "actual_digest": actual},
        )
    with path.open(encoding="utf-8") as file:
        return [parse_example(line, path.name, number) for number, line in enumerate(file, 1)]


def tokenize(
    examples: Sequence[TextExample], encoder: ExampleEncoder, *, progress: Callable[[int, int], None]
) -> list[TokenExample]:
    """The examples as tokens; ``progress`` is called with (done, total)."""
    tokens: list[TokenExample] = []
    for start in range(0, len(examples), _CHUNK):
        tokens += encoder.encode(examples[start : start + _CHUNK])
        progress(len(tokens), len(examples))
    return tokens


def check_examples(
    examples: Sequence[TokenExample], *, max_length: int, vocab_size: int, end_id: int, split: str
) -> None:
    """Refuse examples that cannot be learned as they are.

    Args:
        examples: the rows of one split.
        max_length: most tokens of an example.
        vocab_size: rows of the model's embedding.
        end_id: the token that ends a turn.
        split: the split's name, for messages.

    Raises:
        FailedPrecondition: EXAMPLE_TOO_LONG, EXAMPLE_WITHOUT_RESPONSE, TOKEN_OUT_OF_VOCABULARY,
        END_NOT_SUPERVISED, TARGET_LOST or SPECIAL_TOKEN_IN_TEXT; each says how many examples are wrong and
        names the first of them.
    """
    _refuse(
        too_long(max_length),
        split,
        ((r.id, f"{len(r.ids)} tokens") for r in examples if len(r.ids) > max_length),
    )
    _refuse(NO_RESPONSE, split, ((r.id, "no token to learn") for r in examples if r.supervised_tokens < 1))
    unknown = Problem(
        "TOKEN_OUT_OF_VOCABULARY",
        f"with a token that the model, which knows {vocab_size}, has no embedding for",
        "the base model's tokenizer and weights must belong together",
    )
    _refuse(unknown, split, ((r.id, f"token {max(r.ids)}") for r in examples if max(r.ids) >= vocab_size))
    learned = ((r.id, r.ids[r.first_supervised :]) for r in examples)
    _refuse(NO_END, split, ((row_id, "no end") for row_id, ids in learned if end_id not in ids))
    for problem, fault in ((LOST, "target_lost"), (SPECIAL, "special_token")):
        _refuse(problem, split, ((r.id, f"{len(r.ids)} tokens") for r in examples if r.fault == fault))


def _refuse(problem: Problem, split: str, wrong: Iterable[tuple[str, str]]) -> None:
    found = list(wrong)
    if found:
        labels = [f"{name} ({detail})" for name, detail in found[:NAMED]]
        raise refusal(problem, split, len(found), found[0][0], labels)
