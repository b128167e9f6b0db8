"""Rows of a complete dataset as a model learns them: texts, what of them is learned, and tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tunix_rt_exporter.audits.roles import row_of
from tunix_rt_exporter.audits.service import LEARNED_SPLIT, split_named, stored_tokenizer
from tunix_rt_exporter.datasets.model import CONVERSATION_EXAMPLE, BuildResult, Dataset, SplitFiles
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.chat import ChatTemplate, Segment
from tunix_rt_kit.errors import InvalidArgument, NotFound
from tunix_rt_kit.loss_mask import ExampleEncoder, TextExample, TokenExample, parse_example
from tunix_rt_kit.models.tokenizer import TextTokenizer
from tunix_rt_kit.serving.requests import Violations

DEFAULT_ROWS: Final = 3
MAX_ROWS: Final = 1_000
_ROW_ID: Final = re.compile("[0-9a-f]{4,64}")
# What one message holds, so that it stays well below the limit whatever the characters are.
_CHARACTERS: Final = 1 << 16
_TOKENS: Final = 1 << 14


@dataclass(frozen=True, slots=True)
class PreviewToken:
    """A token: ``text`` is what it alone is decoded to, and ``learned`` what the loss mask says."""

    id: int
    text: str
    learned: bool


@dataclass(frozen=True, slots=True)
class PreviewPart:
    """A part of the training example ``example_number`` of a row, from 1: segments of its text, or tokens."""

    split: str
    row_id: str
    example_number: int
    segments: Sequence[Segment] = ()
    tokens: Sequence[PreviewToken] = ()
    fault: str = ""


class RowPreviews:
    """Shows rows.

    Args:
        complete_dataset: gives a dataset that was built, by name, and what came of it; or raises.
        artifacts: where the rows and tokenizers are.
    """

    def __init__(
        self, complete_dataset: Callable[[str], tuple[Dataset, BuildResult]], artifacts: ArtifactStore
    ) -> None:
        self._complete_dataset = complete_dataset
        self._artifacts = artifacts

    def preview(
        self, name: str, *, split: str = "", row_id: str = "", count: int = 0, tokenizer_digest: str = ""
    ) -> Iterator[PreviewPart]:
        """The first ``count`` rows of a split, or one row, as the files have them that are trained on.

        Raises InvalidArgument (PREVIEW_INVALID, SPLIT_UNKNOWN, ROW_AMBIGUOUS, TOKENIZER_INVALID), NotFound
        (DATASET_NOT_FOUND, ROW_NOT_FOUND, TOKENIZER_NOT_FOUND), FailedPrecondition(DATASET_NOT_READY),
        DataLoss.
        """
        row_id = row_id.removeprefix("sha256:")
        _check(row_id, count)
        dataset, result = self._complete_dataset(name)
        splits = [split_named(result, split or LEARNED_SPLIT)] if split or not row_id else [*result.splits]
        if row_id:
            splits, row_id = self._found(splits, row_id)
        encoder = tokenizer = None
        if tokenizer_digest:
            tokenizer = stored_tokenizer(self._artifacts, tokenizer_digest)
            encoder = ExampleEncoder(tokenizer, ChatTemplate.of(dataset.spec.chat_template).frame)
        shown: dict[str, int] = {}
        for place in splits:
            for example in self._examples(place, row_id):
                row = row_of(example)
                if row not in shown and len(shown) == (count or DEFAULT_ROWS):
                    return
                shown[row] = shown.get(row, 0) + 1
                part = PreviewPart(place.split, row, shown[row])
                yield from _parts(part, example, encoder, tokenizer)

    def _found(self, splits: Sequence[SplitFiles], begun: str) -> tuple[list[SplitFiles], str]:
        """The split that holds the row whose id begins with some digits, and its id."""
        found = {row_of(example): split for split in splits for example in self._examples(split, begun)}
        where = "the dataset" if len(splits) > 1 else f"split {splits[0].split}"
        if not found:
            raise NotFound.of_field(
                "row_id",
                f"no row of {where} has an id that begins with {begun}",
                reason="ROW_NOT_FOUND",
            )
        if len(found) > 1:
            some = ", ".join(sorted(found)[:3])
            raise InvalidArgument.of_field(
                "row_id",
                f"is {begun}, with which {len(found)} ids begin, such as {some}; more digits would be right",
                reason="ROW_AMBIGUOUS",
            )
        ((row_id, split),) = found.items()
        return [split], row_id

    def _examples(self, split: SplitFiles, begun: str) -> Iterator[TextExample]:
        """The training examples of the rows whose ids begin so."""
        file = split.files.get(CONVERSATION_EXAMPLE) or split.files["training_example"]
        wanted = begun.encode()
        for number, line in enumerate(self._artifacts.iter_lines(file.digest), 1):
            # Most lines are not read as JSON where one row is looked for.
            if wanted in line:
                example = parse_example(line, file.path, number)
                if example.id.startswith(begun):
                    yield example


def _check(row_id: str, count: int) -> None:
    wrong = Violations()
    wrong.check(
        not row_id or _ROW_ID.fullmatch(row_id) is not None,
        "row_id",
        f"is {row_id[:80]!r}; the 64 hex digits of an id, or the first 4 or more of them, would be right",
    )
    right = f"1 to {MAX_ROWS:,}, or 0 for {DEFAULT_ROWS}, would be right"
    wrong.check(0 <= count <= MAX_ROWS, "row_count", f"is {count}; {right}")
    wrong.check(not (row_id and count), "row_count", f"is {count}, but row_id names one row; leave out one")
    wrong.raise_if_any("PREVIEW_INVALID")


def _parts(
    part: PreviewPart, example: TextExample, encoder: ExampleEncoder | None, tokenizer: TextTokenizer | None
) -> Iterator[PreviewPart]:
    encoded: TokenExample | None = None
    if encoder is not None:
        (encoded,) = encoder.encode([example])
        part = replace(part, fault=encoded.fault or "")
    segments = [
        Segment(segment.text[at : at + _CHARACTERS], segment.learned)
        for segment in example.segments
        for at in range(0, len(segment.text), _CHARACTERS)
    ]
    gathered: list[Segment] = []
    for segment in segments:
        if gathered and sum(len(each.text) for each in gathered) + len(segment.text) > _CHARACTERS:
            yield replace(part, segments=gathered)
            gathered = []
        gathered.append(segment)
    yield replace(part, segments=gathered)
    if encoded is None or tokenizer is None:
        return
    learned = {place for start, end in encoded.supervised for place in range(start, end)}
    for at in range(0, len(encoded.ids), _TOKENS):
        ids = encoded.ids[at : at + _TOKENS]
        texts = tokenizer.decode_batch([[one] for one in ids])
        tokens = [
            PreviewToken(one, text, place in learned)
            for place, (one, text) in enumerate(zip(ids, texts, strict=True), at)
        ]
        yield replace(part, tokens=tokens)
