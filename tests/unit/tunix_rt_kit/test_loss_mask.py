"""What an audit counts, against counting by hand."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunix_rt_kit.chat import Frame
from tunix_rt_kit.errors import DataLoss
from tunix_rt_kit.loss_mask import (
    MAX_NAMED_ROWS,
    ExampleEncoder,
    SplitAudit,
    SplitSupervision,
    TokenExample,
    pack,
    parse_example,
)

END = 2
TOKENS = st.lists(st.sampled_from([END, 3, 4, 5]), max_size=12)
ROWS = st.lists(st.tuples(TOKENS, TOKENS), max_size=40)


def audited(
    rows: Sequence[tuple[list[int], list[int]]], max_length: int, packing: Sequence[int] = ()
) -> SplitSupervision:
    audit = SplitAudit("train", max_length=max_length, end_id=END)
    examples = [
        TokenExample.answering(f"row-{number}", (*prompt, *response), len(prompt))
        for number, (prompt, response) in enumerate(rows)
    ]
    audit.add(examples[: len(rows) // 2])
    audit.add(examples[len(rows) // 2 :])
    return audit.result(packing)


@given(rows=ROWS, max_length=st.integers(1, 24))
def test_counts(rows: list[tuple[list[int], list[int]]], max_length: int) -> None:
    found = audited(rows, max_length)
    # A token is learned when it stands in the response and some token stands before it.
    learned = [[index for index in range(len(p), len(p) + len(r)) if index > 0] for p, r in rows]
    kept = [
        [(p + r)[index] for index in indices if index < max_length]
        for (p, r), indices in zip(rows, learned, strict=True)
    ]
    assert found.row_count == len(rows)
    assert found.token_count == sum(len(p) + len(r) for p, r in rows)
    assert found.supervised_token_count == sum(map(len, learned))
    for part, wrong in (
        (found.truncated, [len(p) + len(r) > max_length for p, r in rows]),
        (found.unsupervised, [not tokens for tokens in kept]),
        (found.end_unsupervised, [END not in tokens for tokens in kept]),
    ):
        ids = [f"row-{number}" for number, is_wrong in enumerate(wrong) if is_wrong]
        assert (part.row_count, list(part.example_row_ids)) == (len(ids), ids[:MAX_NAMED_ROWS])


@given(rows=ROWS)
def test_the_histogram_covers_every_row_once(rows: list[tuple[list[int], list[int]]]) -> None:
    found = audited(rows, 8)
    sizes = Counter(len(r) if p else max(len(r) - 1, 0) for p, r in rows)
    for entry in found.supervised_tokens:
        assert entry.row_count == sum(n for size, n in sizes.items() if entry.lower <= size < entry.upper)
    assert sum(entry.row_count for entry in found.supervised_tokens) == len(rows)
    edges = [(entry.lower, entry.upper) for entry in found.supervised_tokens]
    assert all(first[1] == second[0] for first, second in pairwise(edges))
    if edges:
        assert found.supervised_tokens[0].row_count
        assert found.supervised_tokens[-1].row_count


@given(rows=ROWS, capacity=st.integers(1, 30))
def test_packing_is_the_trainers(rows: list[tuple[list[int], list[int]]], capacity: int) -> None:
    (found,) = audited(rows, 8, [capacity]).packing
    lengths = [min(len(p) + len(r), capacity) for p, r in rows]
    assert found.sequence_count == len(pack(lengths, capacity))
    if found.sequence_count:
        assert found.efficiency == sum(lengths) / (found.sequence_count * capacity)
    assert 0 <= found.efficiency <= 1


class Characters:
    """Every character is a token, an exclamation mark a special one; a capital letter is lost."""

    special_tokens: Mapping[int, str] = {ord("!"): "!"}

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [[ord(character) for character in text.lower()] for text in texts]

    def decode_batch(self, sequences: Sequence[Sequence[int]]) -> list[str]:
        return ["".join(map(chr, ids)) for ids in sequences]


ENCODER = ExampleEncoder(Characters(), Frame(opening="!", between="!", before="", closing="!"))


def line(number: int) -> bytes:
    return json.dumps({"id": str(number), "prompt": "ab", "response": "c" * number}).encode()


def test_lines_are_read_in_batches_and_progress_is_told() -> None:
    audit = SplitAudit("train", max_length=5000, end_id=ord("c"))
    told = list(audit.read((line(number) for number in range(1, 1301)), "train.jsonl", ENCODER))
    assert told == [512, 1024, 1300]
    found = audit.result([])
    assert (found.row_count, found.supervised_token_count) == (1300, sum(range(1, 1301)))
    assert found.end_unsupervised.row_count == 0


@pytest.mark.parametrize(
    "wrong",
    [
        b"{",
        b"[]",
        b'{"id": "a", "prompt": "b"}',
        b'{"id": 1}',
        b'{"id": 1, "segments": []}',
        b'{"id": "a", "segments": [{"text": "b"}]}',
        b'{"id": "a", "segments": [{"text": "b", "learned": 1}]}',
        b'{"id": "a", "segments": {"text": "b"}}',
        b'{"id": "a", "segments": null}',
    ],
)
def test_a_line_that_is_no_example_is_named(wrong: bytes) -> None:
    audit = SplitAudit("train", max_length=8, end_id=END)
    with pytest.raises(DataLoss, match=r"train\.jsonl, line 2: expected a JSON object"):
        list(audit.read([line(1), wrong], "train.jsonl", ENCODER))


@pytest.mark.parametrize(
    ("prompt", "response", "fault"),
    [
        ("!a!", "b!", None),
        ("!a!", "B!", "target_lost"),
        ("!a!", " !", "target_lost"),
        # Accents may be composed.
        ("!a!", "e\u0301!", None),
        ("!a!b!", "b!", "special_token"),
        ("!a!", "b!c!", "special_token"),
        ("a", "b", None),
    ],
)
def test_rows_whose_tokens_say_something_else_are_named(
    prompt: str, response: str, fault: str | None
) -> None:
    audit = SplitAudit("train", max_length=8, end_id=ord("!"))
    rows = [{"id": "fine", "prompt": "!a!", "response": "b!"}]
    rows.append({"id": "row", "prompt": prompt, "response": response})
    assert list(audit.read((json.dumps(row).encode() for row in rows), "train.jsonl", ENCODER)) == [2]
    found = audit.result([])
    for name, named in (("target_lost", found.target_lost), ("special_token", found.special_token)):
        assert named.example_row_ids == (("row",) if fault == name else ())
        assert named.row_count == len(named.example_row_ids)


def segments(*texts: str) -> dict[str, object]:
    """A conversation of which every second text is learned."""
    parts = [{"text": text, "learned": number % 2 == 1} for number, text in enumerate(texts)]
    return {"id": "row", "metadata": {}, "segments": parts}


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (segments("!a!", "b!", "!c!", "d!"), None),
        (segments("!a!", "b!", "!c!d!e!", "d!", "!f!"), None),
        (segments("!a!", "b!", "!c!", "D!"), "target_lost"),
        (segments("!a!", "b!", "!c!", " !"), "target_lost"),
        (segments("!a!", "B!", "!c!", "d!"), "target_lost"),
    ],
)
def test_each_segment_that_is_learned_must_be_what_it_says(row: dict[str, object], fault: str | None) -> None:
    example = parse_example(json.dumps(row), "train.jsonl", 1)
    (found,) = ENCODER.encode([example])
    assert found.fault == fault
    text = "".join(segment.text for segment in example.segments).lower()
    assert "".join(map(chr, found.ids)) == text
    taught = [segment.text.lower() for segment in example.segments if segment.learned]
    assert ["".join(map(chr, found.ids[first:behind])) for first, behind in found.learned] == taught


class Shouting(Characters):
    """Reads two question marks as the special token."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return super().encode_batch([text.replace("??", "!") for text in texts])


@pytest.mark.parametrize("before", ["!a??!", "!a!??b!"])
def test_a_special_token_that_no_text_names_is_a_fault(before: str) -> None:
    example = parse_example(json.dumps(segments("!a!", "b!", before, "d!")), "train.jsonl", 1)
    encoder = ExampleEncoder(Shouting(), Frame(opening="!", between="!", before="", closing="!"))
    (found,) = encoder.encode([example])
    assert found.fault == "special_token"


@pytest.mark.parametrize(
    ("max_length", "unsupervised", "end_unsupervised"),
    [(10, 0, 0), (9, 0, 1), (5, 0, 1), (4, 0, 1), (3, 1, 1)],
)
def test_the_end_of_each_turn_must_be_learned(
    max_length: int, unsupervised: int, end_unsupervised: int
) -> None:
    example = parse_example(json.dumps(segments("!a!", "b!", "!c!", "d!")), "train.jsonl", 1)
    audit = SplitAudit("train", max_length=max_length, end_id=ord("!"))
    audit.add(ENCODER.encode([example]))
    found = audit.result([])
    assert (found.token_count, found.supervised_token_count) == (10, 4)
    assert found.unsupervised.row_count == unsupervised
    assert found.end_unsupervised.row_count == end_unsupervised


def test_a_first_token_is_learned_by_nobody() -> None:
    row = TokenExample("a", (3, 4, 5, 6), ((0, 1), (1, 2), (3, 4)))
    assert row.supervised == ((1, 2), (3, 4))
    assert row.supervised_tokens == 2
    assert not row.ends_learned(3)
