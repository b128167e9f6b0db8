"""Training examples as tokens: read, tokenised, and refused by name where they do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tunix_rt_kit.artifacts import digest_file
from tunix_rt_kit.errors import DataLoss, FailedPrecondition

_CHUNK = 512
_NAMED = 5


class Tokenizer(Protocol):
    """The part of ``tunix_rt_kit.models.tokenizer.ModelTokenizer`` that is used."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts as they are, no special token added."""


@dataclass(frozen=True, slots=True)
class TextExample:
    """One row of a split: ``id``, rendered ``prompt`` and rendered ``response``."""

    id: str
    prompt: str
    response: str


@dataclass(frozen=True, slots=True)
class TokenExample:
    """One example as token ids: ``ids`` is prompt and response in one, ``prompt_length`` where they meet."""

    id: str
    ids: tuple[int, ...]
    prompt_length: int

    @property
    def supervised_tokens(self) -> int:
        """Tokens of the response that some token stands before, which are those that are learned."""
        return len(self.ids) - max(self.prompt_length, 1)


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
        return [_parse(line, path.name, number) for number, line in enumerate(file, 1)]


def tokenize(
    examples: Sequence[TextExample],
    tokenizer: Tokenizer,
    *,
    max_length: int,
    vocab_size: int,
    split: str,
    progress: Callable[[int, int], None],
) -> list[TokenExample]:
    """Tokenise prompt and response apart and join the ids, so that a prompt alone gives the same tokens.

    Args:
        examples: the rows of one split.
        tokenizer: of the base model.
        max_length: most tokens of an example.
        vocab_size: rows of the model's embedding.
        split: the split's name, for messages.
        progress: called with (done, total).

    Raises:
        FailedPrecondition: EXAMPLE_TOO_LONG, EXAMPLE_WITHOUT_RESPONSE or TOKEN_OUT_OF_VOCABULARY; each says
        how many examples are wrong and names the first of them.
    """
    tokens: list[TokenExample] = []
    for start in range(0, len(examples), _CHUNK):
        chunk = examples[start : start + _CHUNK]
        prompts = tokenizer.encode_batch([row.prompt for row in chunk])
        responses = tokenizer.encode_batch([row.response for row in chunk])
        tokens += [
            TokenExample(row.id, (*prompt, *response), len(prompt))
            for row, prompt, response in zip(chunk, prompts, responses, strict=True)
        ]
        progress(len(tokens), len(examples))
    _refuse(
        ((row.id, f"{len(row.ids)} tokens") for row in tokens if len(row.ids) > max_length),
        split,
        "EXAMPLE_TOO_LONG",
        f"longer than max_length of {max_length} tokens",
    )
    _refuse(
        ((row.id, "no token to learn") for row in tokens if row.supervised_tokens < 1),
        split,
        "EXAMPLE_WITHOUT_RESPONSE",
        "without a response to learn",
    )
    _refuse(
        ((row.id, f"token {max(row.ids)}") for row in tokens if max(row.ids) >= vocab_size),
        split,
        "TOKEN_OUT_OF_VOCABULARY",
        f"with a token that the model, which knows {vocab_size}, has no embedding for",
    )
    return tokens


def _parse(line: str, file: str, number: int) -> TextExample:
    try:
        row = json.loads(line)
        fields = [row["id"], row["prompt"], row["response"]]
    except (ValueError, TypeError, KeyError) as error:
        raise _not_an_example(file, number) from error
    if not all(isinstance(field, str) for field in fields):
        raise _not_an_example(file, number)
    return TextExample(*fields)


def _not_an_example(file: str, number: int) -> DataLoss:
    return DataLoss(
        f"{file}, line {number}: expected a JSON object with the texts id, prompt and response",
        reason="EXAMPLES_CORRUPT",
        metadata={"file": file, "line": str(number)},
    )


def _refuse(wrong: Iterable[tuple[str, str]], split: str, reason: str, problem: str) -> None:
    found = list(wrong)
    if not found:
        return
    first = ", ".join(f"{name} ({detail})" for name, detail in found[:_NAMED])
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    raise FailedPrecondition(
        f"{len(found)} examples of split {split!r} are {problem}: {first}{more}",
        reason=reason,
        metadata={"split": split, "count": str(len(found)), "first_id": found[0][0]},
    )
