"""The loss mask: which tokens of training examples are learned, and an audit of it."""

from __future__ import annotations

import json
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, Literal, Protocol

from tunix_rt_kit.chat import Frame
from tunix_rt_kit.errors import DataLoss
from tunix_rt_kit.packing import pack
from tunix_rt_kit.values import Value

Fault = Literal["target_lost", "special_token"]
MAX_NAMED_ROWS: Final = 20
_BATCH: Final = 512


class Tokenizer(Protocol):
    """The part of ``tunix_rt_kit.models.tokenizer.TextTokenizer`` that is used."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts as they are, no special token added."""

    def decode_batch(self, sequences: Sequence[Sequence[int]]) -> list[str]:
        """The texts of token ids, special tokens included."""

    @property
    def special_tokens(self) -> Mapping[int, str]:
        """The tokens that control a conversation, by id."""


@dataclass(frozen=True, slots=True)
class TextExample:
    """One row of a split: ``id``, rendered ``prompt`` and rendered ``response``."""

    id: str
    prompt: str
    response: str


@dataclass(frozen=True, slots=True)
class TokenExample:
    """One example as token ids: ``ids`` holds the prompt's, then the response's from ``prompt_length`` on.

    ``fault`` says why it must not be learned. ``target_lost``: its tokens do not give the text of its
    response back, or the response holds no reply. ``special_token``: one of its texts holds a special token.
    """

    id: str
    ids: tuple[int, ...]
    prompt_length: int
    fault: Fault | None = None

    @property
    def first_supervised(self) -> int:
        """Index of the first token that is learned: in the response, with some token before it."""
        return max(self.prompt_length, 1)

    @property
    def supervised_tokens(self) -> int:
        """How many tokens are learned: those of the response that some token stands before."""
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
    """Tokenise prompt and response apart and join them, so that the prompt alone gives the same tokens."""
    prompts = tokenizer.encode_batch([row.prompt for row in examples])
    responses = tokenizer.encode_batch([row.response for row in examples])
    return [
        TokenExample(row.id, (*prompt, *response), len(prompt))
        for row, prompt, response in zip(examples, prompts, responses, strict=True)
    ]


class ExampleEncoder:
    """Tokenises examples, and finds those whose tokens would not teach what their texts say.

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
        """As `encode`, with the fault of each."""
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
    """Whether two texts are equal but for composed accents: some tokenizers compose them (NFC)."""
    return text == other or unicodedata.normalize("NFC", text) == unicodedata.normalize("NFC", other)


def _not_an_example(file: str, number: int) -> DataLoss:
    return DataLoss(
        f"{file}, line {number}: expected a JSON object with the texts id, prompt and response",
        reason="EXAMPLES_CORRUPT",
        metadata={"file": file, "line": str(number)},
    )


class HistogramBin(Value):
    """Rows with at least ``lower`` and fewer than ``upper``."""

    lower: int
    upper: int
    row_count: int


class AuditedRows(Value):
    """How many rows something was found about, and the ids of the first ``MAX_NAMED_ROWS`` of them."""

    row_count: int = 0
    example_row_ids: tuple[str, ...] = ()


class PackingEfficiency(Value):
    """How many sequences of ``max_length`` tokens the rows need, and the share of them that rows fill."""

    max_length: int
    sequence_count: int
    efficiency: float


class SplitSupervision(Value):
    """What a model would learn of a split.

    ``token_count``, ``supervised_token_count`` and the histogram are over whole rows. ``truncated`` are the
    rows that are too long. Of rows that were cut off there, ``unsupervised`` hold no token that is learned,
    and ``end_unsupervised`` no end of turn that is learned. ``target_lost`` and ``special_token`` are the
    faults of ``TokenExample``. The histogram's bins are 0, 1, 2 to 3, 4 to 7 and so on, from the first to the
    last that has rows.
    """

    split: str
    row_count: int
    token_count: int
    supervised_token_count: int
    supervised_tokens: tuple[HistogramBin, ...]
    truncated: AuditedRows
    unsupervised: AuditedRows
    end_unsupervised: AuditedRows
    packing: tuple[PackingEfficiency, ...]
    target_lost: AuditedRows = AuditedRows()
    special_token: AuditedRows = AuditedRows()


class SplitAudit:
    """Audits the rows of one split, taken in order. Four bytes of each stay in memory.

    Args:
        split: its name.
        max_length: most tokens of a row, at least 1.
        end_id: the token that ends a turn.
    """

    def __init__(self, split: str, *, max_length: int, end_id: int) -> None:
        self._split = split
        self._max_length = max_length
        self._end_id = end_id
        self._lengths = array("I")
        self._supervised = 0
        self._bins: dict[int, int] = {}
        self._truncated, self._unsupervised, self._end = _Found(), _Found(), _Found()
        self._faults: dict[Fault, _Found] = {"target_lost": _Found(), "special_token": _Found()}

    def read(self, lines: Iterable[bytes], file: str, encoder: ExampleEncoder) -> Iterator[int]:
        """Take the lines of a file of training examples; yields how many were taken so far.

        Raises DataLoss: EXAMPLES_CORRUPT, naming ``file`` and the line.
        """
        numbered = enumerate(lines, 1)
        while batch := list(islice(numbered, _BATCH)):
            self.add(encoder.encode([parse_example(line, file, number) for number, line in batch]))
            yield batch[-1][0]

    def add(self, rows: Iterable[TokenExample]) -> None:
        """Take rows."""
        for row in rows:
            supervised = row.supervised_tokens
            self._lengths.append(len(row.ids))
            self._supervised += max(supervised, 0)
            size = max(supervised, 0).bit_length()
            self._bins[size] = self._bins.get(size, 0) + 1
            learned = row.ids[row.first_supervised : self._max_length]
            self._truncated.note(row.id, len(row.ids) > self._max_length)
            self._unsupervised.note(row.id, not learned)
            self._end.note(row.id, self._end_id not in learned)
            for fault, found in self._faults.items():
                found.note(row.id, row.fault == fault)

    def result(self, packing_lengths: Sequence[int]) -> SplitSupervision:
        """The audit of what was taken. Rows that are longer than a packed sequence count as cut off."""
        return SplitSupervision(
            split=self._split,
            row_count=len(self._lengths),
            token_count=sum(self._lengths),
            supervised_token_count=self._supervised,
            supervised_tokens=self._histogram(),
            truncated=self._truncated.rows(),
            unsupervised=self._unsupervised.rows(),
            end_unsupervised=self._end.rows(),
            packing=tuple(self._packed(length) for length in packing_lengths),
            target_lost=self._faults["target_lost"].rows(),
            special_token=self._faults["special_token"].rows(),
        )

    def _histogram(self) -> tuple[HistogramBin, ...]:
        if not self._bins:
            return ()
        return tuple(
            HistogramBin(lower=(1 << size) >> 1, upper=1 << size, row_count=self._bins.get(size, 0))
            for size in range(min(self._bins), max(self._bins) + 1)
        )

    def _packed(self, capacity: int) -> PackingEfficiency:
        lengths = array("I", (min(length, capacity) for length in self._lengths))
        sequences = len(pack(lengths, capacity))
        filled = sum(lengths) / (sequences * capacity) if sequences else 0.0
        return PackingEfficiency(max_length=capacity, sequence_count=sequences, efficiency=filled)


class _Found:
    """Counts rows, and remembers the first of them."""

    def __init__(self) -> None:
        self._count = 0
        self._first: list[str] = []

    def note(self, row_id: str, wrong: bool) -> None:
        if wrong:
            self._count += 1
            if len(self._first) < MAX_NAMED_ROWS:
                self._first.append(row_id)

    def rows(self) -> AuditedRows:
        return AuditedRows(row_count=self._count, example_row_ids=tuple(self._first))
