"""Training examples as text and as tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tunix_rt_kit.errors import DataLoss


class Tokenizer(Protocol):
    """The part of ``tunix_rt_kit.models.tokenizer.TextTokenizer`` that is used."""

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
    def first_supervised(self) -> int:
        """Where in ``ids`` the tokens begin that are learned: in the response, with some token before."""
        return max(self.prompt_length, 1)

    @property
    def supervised_tokens(self) -> int:
        """Tokens of the response that some token stands before, which are those that are learned."""
        return len(self.ids) - self.first_supervised


def parse_example(line: str | bytes, file: str, number: int) -> TextExample:
    """A line of a file of training examples.

    Raises:
        DataLoss: EXAMPLES_CORRUPT, naming the file and the line's number.
    """
    try:
        row = json.loads(line)
        fields = [row["id"], row["prompt"], row["response"]]
    except (ValueError, TypeError, KeyError) as error:
        raise _not_an_example(file, number) from error
    if not all(isinstance(field, str) for field in fields):
        raise _not_an_example(file, number)
    return TextExample(*fields)


def encode(examples: Sequence[TextExample], tokenizer: Tokenizer) -> list[TokenExample]:
    """Tokenise prompt and response apart and join the ids, so that a prompt alone gives the same tokens."""
    prompts = tokenizer.encode_batch([row.prompt for row in examples])
    responses = tokenizer.encode_batch([row.response for row in examples])
    return [
        TokenExample(row.id, (*prompt, *response), len(prompt))
        for row, prompt, response in zip(examples, prompts, responses, strict=True)
    ]


def _not_an_example(file: str, number: int) -> DataLoss:
    return DataLoss(
        f"{file}, line {number}: expected a JSON object with the texts id, prompt and response",
        reason="EXAMPLES_CORRUPT",
        metadata={"file": file, "line": str(number)},
    )
