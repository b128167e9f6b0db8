"""Which rows are replaced by which, row by row and without a build around them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from tunix_rt_exporter.datasets import deduplicate
from tunix_rt_exporter.datasets.deduplicate import (
    Signatures,
    by_precedence,
    comparing,
    without_duplicates,
    without_near_duplicates,
)
from tunix_rt_exporter.datasets.rows import RowStore
from tunix_rt_kit.values import Progress

WORDS = [f"word{number}" for number in range(400)]


def rows_of(**keys: list[bytes]) -> RowStore:
    """Rows of which nothing is known but these keys."""
    return cast(RowStore, SimpleNamespace(keys={name: np.array(values) for name, values in keys.items()}))


def texts_of(seed: int, count: int, changed: int, length: int = 60) -> list[str]:
    """One text of random words, and others in which some of its words are others."""
    rng = random.Random(seed)
    first = rng.choices(WORDS, k=length)
    texts = [first]
    for _ in range(count - 1):
        other = list(first)
        for place in rng.sample(range(length), changed):
            other[place] = rng.choice(WORDS)
        texts.append(other)
    return [" ".join(text) for text in texts]


@contextmanager
def signatures_of(folder: Path, texts: Sequence[str], threshold: float = 0.7) -> Iterator[Signatures]:
    with Signatures(folder / "signatures", threshold) as signatures:
        signatures.add(texts)
        yield signatures


def shares(folder: Path, texts: Sequence[str]) -> np.ndarray[Any, Any]:
    """The share of equal permutations of each pair of texts."""
    with Signatures(folder / "all", 0.7) as signatures:
        signatures.add(texts)
        signatures.flush()
        found = np.fromfile(folder / "all", dtype=np.uint32).reshape(len(texts), -1)
    return (found[:, None] == found[None]).mean(axis=2)


def test_of_rows_of_one_text_the_first_stays() -> None:
    rows = rows_of(text=[b"a", b"b", b"a", b"c", b"b", b"a"])
    kept, replaced = without_duplicates(np.array([5, 4, 3, 2, 0]), rows)
    assert kept.tolist() == [5, 4, 3]
    assert (replaced.stage, replaced.rows.tolist(), replaced.kept.tolist()) == ("duplicate", [2, 0], [5, 5])
    kept, replaced = without_duplicates(np.array([0, 3, 2]), rows)
    assert (kept.tolist(), replaced.rows.tolist(), replaced.kept.tolist()) == ([0, 3], [2], [0])


def test_rows_of_the_parent_come_first_in_their_order() -> None:
    digests = [hashlib.sha256(bytes([number])).digest() for number in range(5)]
    candidates = np.array([4, 0, 3, 1])
    parent = digests[1] + digests[2] + digests[3]
    assert by_precedence(candidates, rows_of(digest=digests), parent).tolist() == [3, 1, 4, 0]
    assert by_precedence(candidates, rows_of(digest=digests), b"").tolist() == candidates.tolist()


def test_a_text_has_the_signature_it_always_had(tmp_path: Path) -> None:
    """Where this fails, a dataset built again has other rows: the rule's version must change too."""
    with signatures_of(tmp_path, ["A cat sat on 1,000 mats.", "a b", "?!", ""]) as signatures:
        signatures.add(["a cat", "a cat sat"])
        signatures.flush()
        found = (tmp_path / "signatures").read_bytes()
    assert len(found) == 6 * 512
    assert (
        hashlib.sha256(found).hexdigest()
        == "f8e6247d1d5f20a440596c0f7bc73490711b6ce094bc5c51a60381aed196229a"
    )
    assert not (tmp_path / "signatures").exists()


def test_near_duplicates_name_the_first_of_them_by_its_number(tmp_path: Path) -> None:
    seen: list[Progress] = []
    texts = [*texts_of(1, 3, 2), *texts_of(2, 2, 2), *texts_of(3, 1, 0)]
    with signatures_of(tmp_path, texts) as signatures:
        kept, replaced = without_near_duplicates(np.array([5, 2, 4, 1, 3, 0]), signatures, seen.append)
        one, two, unlike = (signatures.replacements(np.array(rows)) for rows in ([0], [1, 0], [0, 3]))
    assert kept.tolist() == [5, 2, 4]
    assert replaced.stage == "near_duplicate"
    assert (replaced.rows.tolist(), replaced.kept.tolist()) == ([1, 3, 0], [2, 4, 2])
    assert (one.tolist(), two.tolist(), unlike.tolist()) == ([-1], [-1, 1], [-1, -1])
    assert {(told.stage, told.total) for told in seen} == {("comparing texts", 6)}


@pytest.mark.parametrize(
    ("labels", "instead"),
    [
        ([0, 0, 0, 0], [-1, -1, -1, -1]),
        ([2, 2, 2, 2], [-1, -1, -1, -1]),
        ([0, 1, 0, 1], [-1, 0, -1, 0]),
        ([1, 0, 0, 1], [-1, 0, 0, -1]),
        ([0, 1, 2, 2], [-1, 0, 0, 0]),
        ([2, 0, 2, 1], [-1, 0, -1, 0]),
    ],
)
def test_near_duplicates_of_one_label_stay(tmp_path: Path, labels: list[int], instead: list[int]) -> None:
    # The row before them all is like none of them.
    texts = [*texts_of(9, 1, 0), *texts_of(4, 4, 1)]
    with signatures_of(tmp_path, texts) as signatures:
        found = signatures.replacements(np.arange(5), np.array([0, *labels]))
        none = signatures.replacements(np.array([], dtype=int), np.array([], dtype=int))
    assert found.tolist() == [-1, *(row if row < 0 else row + 1 for row in instead)]
    assert none.tolist() == []


def test_a_row_that_went_replaces_none(tmp_path: Path) -> None:
    first = texts_of(5, 1, 0)[0].split()
    # Each is a near-duplicate of its neighbours, and not of the next but one.
    texts = [" ".join([*first[5 * step :], *WORDS[: 5 * step]]) for step in range(3)]
    share = shares(tmp_path, texts)
    assert share[0, 1] > 0.8 < share[1, 2]
    assert share[0, 2] < 0.76
    with signatures_of(tmp_path, texts, 0.8) as signatures:
        assert signatures.replacements(np.arange(3)).tolist() == [-1, 0, -1]


def test_a_pair_counts_from_the_threshold_on(tmp_path: Path) -> None:
    texts = texts_of(6, 2, 3)
    equal = round(128 * shares(tmp_path, texts)[0, 1])
    for threshold, instead in ((equal / 128, [-1, 0]), ((equal + 0.5) / 128, [-1, -1])):
        with signatures_of(tmp_path, texts, threshold) as signatures:
            assert signatures.replacements(np.arange(2)).tolist() == instead


def test_most_pairs_at_the_threshold_are_found(tmp_path: Path) -> None:
    texts = [text for seed in range(100) for text in texts_of(seed, 2, 5)]
    share = shares(tmp_path, texts)
    near = [place for place in range(0, 200, 2) if 0.7 <= share[place, place + 1] < 0.75]
    assert len(near) > 10
    with signatures_of(tmp_path, texts) as signatures:
        found = signatures.replacements(np.arange(200))
    assert sum(found[place + 1] == place for place in near) >= 0.8 * len(near)


@pytest.mark.parametrize("bound", ["_CHUNK", "_COMPARED_AT_ONCE"])
def test_how_many_rows_are_read_at_once_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    texts = [text for seed in range(6) for text in texts_of(seed, 6, 10)]
    rows = np.random.default_rng(0).permutation(36)
    with signatures_of(tmp_path, texts, 0.5) as signatures:
        alone, apart = signatures.replacements(rows), signatures.replacements(rows, rows % 3)
        monkeypatch.setattr(deduplicate, bound, 2)
        assert signatures.replacements(rows).tolist() == alone.tolist()
        assert signatures.replacements(rows, rows % 3).tolist() == apart.tolist()
    # Which of several is named hangs on the order of buckets, and stands in the report of dropped rows.
    found = [
        {int(row): int(other) for row, other in zip(rows, each, strict=True) if other >= 0}
        for each in (alone, apart)
    ]
    assert found == [
        {30: 34, 0: 4, 18: 21, 6: 10, 12: 16, 5: 2, 24: 26},
        {30: 34, 0: 4, 18: 20, 6: 10, 12: 16, 24: 26},
    ]


def test_a_bucket_that_is_full_does_not_keep_a_row_from_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deduplicate, "BUCKET_ROWS", 1)
    texts = [text for seed in range(15) for text in texts_of(seed, 2, 15)]
    rows = [
        text
        for first, second in zip(texts[::2], texts[1::2], strict=True)
        for text in (first, second, second)
    ]
    with signatures_of(tmp_path, rows, 0.6) as signatures:
        found = signatures.replacements(np.arange(45), np.array([0, 0, 1] * 15))
    assert found.reshape(15, 3).tolist() == [[-1, -1, row] for row in range(1, 45, 3)]


@pytest.mark.parametrize(("bound", "instead"), [(1, 0), (2, 1), (3, 2)])
def test_of_a_large_bucket_only_the_first_rows_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: int, instead: int
) -> None:
    with signatures_of(tmp_path, texts_of(7, 1, 0) * 5) as signatures:
        monkeypatch.setattr(deduplicate, "BUCKET_ROWS", bound)
        found = signatures.replacements(np.arange(5), np.array([0, 0, 0, 0, 1]))
    assert found.tolist() == [-1, -1, -1, -1, instead]


@pytest.mark.parametrize("threshold", [0.5, 0.95])
def test_a_row_is_compared_with_those_of_its_buckets_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threshold: float
) -> None:
    compared = []
    read = deduplicate._MappedSignatures.of

    def of(self: Any, rows: Any, *columns: Any) -> Any:
        if not columns:
            compared.append(rows.tolist())
        return read(self, rows, *columns)

    monkeypatch.setattr(deduplicate._MappedSignatures, "of", of)
    # Of each three texts, two are equal and one is like no other.
    texts = [texts_of(seed, 1, 0)[0] for row in range(20) for seed in (row, row, 100 + row)]
    with signatures_of(tmp_path, texts, threshold) as signatures:
        signatures.replacements(np.arange(60))
    assert compared == [[row + 1, row] for row in range(0, 60, 3)]


def test_progress_is_told_now_and_then(tmp_path: Path) -> None:
    seen: list[int] = []
    texts = texts_of(8, 1, 0) * 300
    with signatures_of(tmp_path, texts) as signatures:
        signatures.replacements(np.arange(300), report=seen.append)
    assert sorted(set(seen)) == [0, 128, 256]
    assert seen == sorted(seen)


def test_what_is_told_while_rows_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10, 110))
    monkeypatch.setattr(deduplicate.time, "monotonic", lambda: float(next(clock)))
    seen: list[Progress] = []
    told = comparing("comparing texts", 100, seen.append)
    for count in range(0, 101, 5):
        told(count)
    assert seen[1] == Progress(stage="comparing texts", completed=5, total=100, unit="rows", eta_s=None)
    assert seen[10] == Progress(stage="comparing texts", completed=50, total=100, unit="rows", eta_s=10.0)
    assert [entry.completed for entry in seen if entry.eta_s is None] == [0, 5, 10, 15, 20]
