"""The loss mask: which tokens of training examples are learned, and an audit of it."""

from __future__ import annotations

import json
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, Literal, Protocol

from tunix_rt_kit.chat import Frame, Segment
from tunix_rt_kit.errors import DataLoss
from tunix_rt_kit.packing import pack
from tunix_rt_kit.values import Value

Fault = Literal["target_lost", "special_token"]
Span = tuple[int, int]
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
    """One example of a split: its ``id``, and its rendered text as segments.

    ``of_conversation``: it may hold several turns, which the template did not write around one question.
    """

    id: str
    segments: tuple[Segment, ...]
    of_conversation: bool = False

    @classmethod
    def answering(cls, name: str, prompt: str, response: str) -> TextExample:
        """A rendered prompt, and its rendered response, which is learned."""
        return cls(name, (Segment(prompt, False), Segment(response, True)))


@dataclass(frozen=True, slots=True)
class TokenExample:
    """One example as token ids; ``learned`` holds the first token, and that behind the last, of each segment
    that is learned, in order.

    ``fault`` says why it must not be learned. ``target_lost``: its tokens do not give the text of what is
    learned back, or a response holds no reply. ``special_token``: one of its texts holds a special token.
    """

    id: str
    ids: tuple[int, ...]
    learned: tuple[Span, ...]
    fault: Fault | None = None

    @classmethod
    def answering(cls, name: str, ids: tuple[int, ...], prompt_length: int) -> TokenExample:
        """A prompt of so many tokens, and its response, which is learned."""
        return cls(name, ids, ((prompt_length, len(ids)),))

    @property
    def supervised(self) -> tuple[Span, ...]:
        """``learned`` without a first token, which no token stands before."""
        return tuple((max(start, 1), end) for start, end in self.learned if end > max(start, 1))

    @property
    def supervised_tokens(self) -> int:
        """How many tokens are learned."""
        return sum(end - start for start, end in self.supervised)

    def ends_learned(self, end_id: int, max_length: int | None = None) -> bool:
        """Whether each segment that is learned teaches ``end_id``, in the first ``max_length`` tokens."""
        ids = self.ids[:max_length]
        return bool(self.learned) and all(end_id in ids[max(start, 1) : end] for start, end in self.learned)


def parse_example(line: str | bytes, file: str, number: int) -> TextExample:
    """A line of a file of training examples: with ``segments``, or with ``prompt`` and ``response``.

    Raises:
        DataLoss: EXAMPLES_CORRUPT, naming the file and the line's number.
    """
    try:
        row = json.loads(line)
        if "segments" in row:
            parts = [(each["text"], each["learned"]) for each in row["segments"]]
            fits = all(isinstance(text, str) and isinstance(learned, bool) for text, learned in parts)
            example = TextExample(row["id"], tuple(Segment(*part) for part in parts), of_conversation=True)
        else:
            fits = isinstance(row["prompt"], str) and isinstance(row["response"], str)
            example = TextExample.answering(row["id"], row["prompt"], row["response"])
    except (ValueError, TypeError, KeyError) as error:
        raise _not_an_example(file, number) from error
    if not (fits and isinstance(example.id, str)):
        raise _not_an_example(file, number)
    return example


def encode(examples: Sequence[TextExample], tokenizer: Tokenizer) -> list[TokenExample]:
    """Tokenise segments apart and join them, so that what stands before one alone gives the same tokens."""
    return _joined_all(examples, tokenizer.encode_batch(segment_texts(examples)))


def segment_texts(examples: Sequence[TextExample]) -> list[str]:
    """The texts of all segments of examples, in order."""
    return [segment.text for row in examples for segment in row.segments]


def _joined_all(examples: Sequence[TextExample], encoded: Sequence[Sequence[int]]) -> list[TokenExample]:
    parts = iter(encoded)
    return [_joined(row, [next(parts) for _ in row.segments]) for row in examples]


def _joined(row: TextExample, parts: Sequence[Sequence[int]]) -> TokenExample:
    ids: list[int] = []
    learned: list[Span] = []
    for segment, part in zip(row.segments, parts, strict=True):
        if segment.learned:
            learned.append((len(ids), len(ids) + len(part)))
        ids += part
    return TokenExample(row.id, tuple(ids), tuple(learned))


class Encoder(Protocol):
    """What an audit reads examples with."""

    def encode(self, examples: Sequence[TextExample]) -> Sequence[TokenExample]:
        """Each example as tokens, with its fault."""


class ExampleEncoder:
    """Tokenises examples, and finds those whose tokens would not teach what their texts say.

    Args:
        tokenizer: of the model.
        frame: what the chat template writes around texts.
    """

    def __init__(self, tokenizer: Tokenizer, frame: Frame) -> None:
        self._tokenizer = tokenizer
        self._frame = frame
        self._special = dict(tokenizer.special_tokens)
        # The longest first, as tokenizers find them.
        texts = sorted(self._special.values(), key=lambda text: (-len(text), text))
        self._written = re.compile("|".join(map(re.escape, texts)) or "(?!)")
        around = (f"{frame.opening}{frame.between}", f"{frame.before}{frame.closing}")
        self._own = self._controls(token for ids in tokenizer.encode_batch(around) for token in ids)

    def encode(
        self, examples: Sequence[TextExample], encoded: Sequence[Sequence[int]] | None = None
    ) -> list[TokenExample]:
        """As `encode`, with the fault of each; ``encoded`` are the tokens of ``segment_texts``, if known."""
        if encoded is None:
            encoded = self._tokenizer.encode_batch(segment_texts(examples))
        rows = _joined_all(examples, encoded)
        learned = iter(
            self._tokenizer.decode_batch([row.ids[start:end] for row in rows for start, end in row.learned])
        )
        faults = (
            self._fault(example, row, [next(learned) for _ in row.learned])
            for example, row in zip(examples, rows, strict=True)
        )
        return [
            row if fault is None else replace(row, fault=fault)
            for row, fault in zip(rows, faults, strict=True)
        ]

    def _fault(self, example: TextExample, row: TokenExample, decoded: Sequence[str]) -> Fault | None:
        taught = [segment.text for segment in example.segments if segment.learned]
        if not all(_equal(*pair) for pair in zip(decoded, taught, strict=True)):
            return "target_lost"
        if not all(self._frame.reply(text).strip() for text in taught):
            return "target_lost"
        found = self._controls(row.ids)
        if example.of_conversation:
            return None if self._named(found) == self._stand_in(example) else "special_token"
        return "special_token" if found - self._own else None

    def _named(self, found: Counter[int]) -> Counter[str]:
        named: Counter[str] = Counter()
        for token, count in found.items():
            named[self._special[token]] += count
        return named

    def _stand_in(self, example: TextExample) -> Counter[str]:
        """How often the text of each special token stands in the example, whose texts hold none."""
        return Counter(found for each in example.segments for found in self._written.findall(each.text))

    def _controls(self, ids: Iterable[int]) -> Counter[int]:
        return Counter(token for token in ids if token in self._special)


def _equal(text: str, other: str) -> bool:
    """Whether two texts are equal but for composed accents: some tokenizers compose them (NFC)."""
    return text == other or unicodedata.normalize("NFC", text) == unicodedata.normalize("NFC", other)


def _not_an_example(file: str, number: int) -> DataLoss:
    return DataLoss(
        f"{file}, line {number}: expected a JSON object with the texts id, prompt and response, "
        "or with id and segments",
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


Part = Literal["system", "developer", "user", "assistant", "tool", "template", "unproved"]


class RoleSupervision(Value):
    """What a model would learn of what one role says, over whole rows.

    ``part`` is the role; ``template`` is what the chat template writes outside of turns, ``unproved`` the
    training examples in which it cannot be proved who speaks where. Turns that are supervised have a token
    that is, end marks and tool calls that are have no token that is not.
    """

    part: Part
    token_count: int = 0
    supervised_token_count: int = 0
    turn_count: int = 0
    supervised_turn_count: int = 0
    end_mark_count: int = 0
    supervised_end_mark_count: int = 0
    tool_call_count: int = 0
    supervised_tool_call_count: int = 0


class SplitSupervision(Value):
    """What a model would learn of a split.

    ``token_count``, ``supervised_token_count`` and the histogram are over whole rows. ``truncated`` are the
    rows that are too long. Of rows that were cut off there, ``unsupervised`` hold no token that is learned,
    and those of ``end_unsupervised`` do not learn the end of each turn. ``target_lost`` and ``special_token``
    are the faults of ``TokenExample``. The histogram's bins are 0, 1, 2 to 3, 4 to 7 and so on, from the
    first to the last that has rows.

    ``roles`` has the parts that there are in these rows. Rows of ``supervised_elsewhere`` learn a token that
    is not the assistant's, or is of a turn that the dataset does not teach; those of ``end_mark_masked`` do
    not learn an end mark of a turn that it teaches; of those of ``unproved_roles`` it cannot be proved who
    speaks where.
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
    roles: tuple[RoleSupervision, ...] = ()
    supervised_elsewhere: AuditedRows = AuditedRows()
    end_mark_masked: AuditedRows = AuditedRows()
    unproved_roles: AuditedRows = AuditedRows()


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
        self._truncated, self._unsupervised, self._end = FoundRows(), FoundRows(), FoundRows()
        self._faults: dict[Fault, FoundRows] = {"target_lost": FoundRows(), "special_token": FoundRows()}

    def read(self, lines: Iterable[bytes], file: str, encoder: Encoder) -> Iterator[int]:
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
            self._supervised += supervised
            size = supervised.bit_length()
            self._bins[size] = self._bins.get(size, 0) + 1
            self._truncated.note(row.id, len(row.ids) > self._max_length)
            self._unsupervised.note(row.id, not any(start < self._max_length for start, _ in row.supervised))
            self._end.note(row.id, not row.ends_learned(self._end_id, self._max_length))
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


class FoundRows:
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
