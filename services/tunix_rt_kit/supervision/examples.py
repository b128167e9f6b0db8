"""Training examples as text and as tokens."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from tunix_rt_kit.chat import Frame
from tunix_rt_kit.errors import DataLoss

Fault = Literal["target_lost", "special_token"]


class Tokenizer(Protocol):
    """The part of ``tunix_rt_kit.models.tokenizer.TextTokenizer`` that is used."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts as they are, no special token added."""

    def decode_batch(self, sequences: Sequence[Sequence[int]]) -> list[str]:
        """The texts of token ids, special tokens included."""

    @property
    def special_tokens(self) -> Mapping[int, str]:
        """By id, the tokens that control a conversation."""


@dataclass(frozen=True, slots=True)
class TextExample:
    """One row of a split: ``id``, rendered ``prompt`` and rendered ``response``."""

    id: str
    prompt: str
    response: str


@dataclass(frozen=True, slots=True)
class TokenExample:
    """One example as token ids: ``ids`` is prompt and response in one, ``prompt_length`` where they meet.

    ``fault`` says why it must not be learned: ``target_lost``, its tokens do not say the text of its
    response, or that holds no reply; ``special_token``, a text of it holds a special token.
    """

    id: str
    ids: tuple[int, ...]
    prompt_length: int
    fault: Fault | None = None

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


class ExampleEncoder:
    """Makes tokens of examples, and finds those whose tokens would not teach what their texts say.

    Args:
        tokenizer: of the model.
        frame: what the chat template writes around texts.
    """

    def __init__(self, tokenizer: Tokenizer, frame: Frame) -> None:
        self._tokenizer = tokenizer
        self._frame = frame
        self._special = frozenset(tokenizer.special_tokens)
        around = (f"{frame.opening}{frame.between}", f"{frame.before}{frame.closing}")
        self._own = self._controls(token for ids in tokenizer.encode_batch(around) for token in ids)

    def encode(self, examples: Sequence[TextExample]) -> list[TokenExample]:
        """As the function ``encode``, with the fault of each."""
        rows = encode(examples, self._tokenizer)
        learned = self._tokenizer.decode_batch([row.ids[row.prompt_length :] for row in rows])
        return [
            row if fault is None else replace(row, fault=fault)
            for row, fault in zip(rows, map(self._fault, examples, rows, learned), strict=True)
        ]

    def _fault(self, example: TextExample, row: TokenExample, learned: str) -> Fault | None:
        if not _equal(learned, example.response) or not self._frame.reply(example.response).strip():
            return "target_lost"
        return "special_token" if self._controls(row.ids) - self._own else None

    def _controls(self, ids: Iterable[int]) -> Counter[int]:
        return Counter(token for token in ids if token in self._special)


def _equal(text: str, other: str) -> bool:
    """Whether two texts are equal, however their accents are composed: some tokenizers compose them (NFC)."""
    return text == other or unicodedata.normalize("NFC", text) == unicodedata.normalize("NFC", other)


def _not_an_example(file: str, number: int) -> DataLoss:
    return DataLoss(
        f"{file}, line {number}: expected a JSON object with the texts id, prompt and response",
        reason="EXAMPLES_CORRUPT",
        metadata={"file": file, "line": str(number)},
    )
