"""Duplicates, near-duplicates and splits: which row stays hangs on contents alone, and no row moves."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.datasets import built, read, source
from tunix_rt_exporter.datasets import deduplicate
from tunix_rt_exporter.datasets.deduplicate import Signatures
from tunix_rt_exporter.datasets.model import BuildResult, Parent, SourceTrace, SplitFraction
from tunix_rt_exporter.datasets.rows import RowStore, parent_of
from tunix_rt_exporter.datasets.split import assigned_splits
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.values import Progress

STORY = (
    "On the first day of the fair {who} sold {count} jars of plum jam at the long table near the gate, and "
    "on the second day twice as many jars as that. On the third day it rained and nobody came until the late "
    "afternoon, when one bus of tourists bought the last {left} jars. How many jars did {who} sell in all?"
)
WHO = ("Ada", "Bea", "Cleo", "Dora")
ALL = [{"split": "train", "fraction": 1}]
HALVES = [{"split": "train", "fraction": 0.5}, {"split": "test", "fraction": 0.5}]
NEAR = {"deduplication": {"method": "near", "threshold": 0.7}, "splits": ALL}
APART = {"split_group": {"near_duplicate_threshold": 0.7}, "splits": HALVES}


def story(number: int) -> SourceTrace:
    """One of 40 texts: within ten they are near-duplicates, and the tens have little in common."""
    text = STORY.format(who=WHO[number // 10], count=number, left=9)
    if number >= 20:
        text = text.replace(" the ", f" {WHO[number // 10]} ").replace("jars", f"boxes{number // 10}")
    return source(number, prompt=text, steps=[], final_answer=text[::-1][:40])


STORIES = [story(number) for number in range(40)]
# So that no split is ever empty; they are like nothing else.
ANCHORS = [source(number) for number in range(100, 120)]
NUMBERS = {trace.digest.hex(): number for number, trace in enumerate(STORIES)}
subsets = st.sets(st.integers(0, 39), min_size=1)


def tens(numbers: Iterable[int]) -> set[int]:
    """Which tens stories are of. The first twenty differ in a name and a number, and may count as one."""
    return {max(number // 10, 1) for number in numbers}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("duplicates")


def placed(folder: Path, result: BuildResult) -> dict[str, str]:
    """The split of each row by its id."""
    return {
        json.loads(line)["id"]: split.split
        for split in result.splits
        for line in read(folder, result, split.split, "trace").splitlines()
    }


def report(folder: Path, result: BuildResult) -> list[dict[str, Any]]:
    if result.dropped_rows is None:
        return []
    data = ArtifactStore(folder / "artifacts").read_bytes(result.dropped_rows.digest)
    return [json.loads(line) for line in data.splitlines()]


def test_texts_that_are_equal_after_normalisation_are_duplicates(folder: Path) -> None:
    first = source(1, metadata={"from": "a"})
    second = source(1, metadata={"from": "b"}, prompt="  WHAT is 1 +\n1? ")
    other = source(1, final_answer="3")
    result = built(folder, [[first, second, other]], splits=ALL)
    kept, gone = sorted([first.digest.hex(), second.digest.hex()])
    assert set(placed(folder, result)) == {kept, other.digest.hex()}
    assert [(d.stage, d.row_count) for d in result.dropped] == [("duplicate", 1)]
    assert report(folder, result) == [{"id": gone, "stage": "duplicate", "kept": kept}]
    identical = built(folder, [[first, second, first]], splits=ALL, deduplication={"method": "identical"})
    assert set(placed(folder, identical)) == {first.digest.hex(), second.digest.hex()}


def test_of_near_duplicates_one_is_kept(folder: Path) -> None:
    result = built(folder, [STORIES], **NEAR)
    kept = [NUMBERS[row] for row in placed(folder, result)]
    # The first twenty differ in a name and a number, and are all near-duplicates of each other.
    assert sorted(max(number // 10, 1) for number in kept) == [1, 2, 3]
    lines = report(folder, result)
    assert len(lines) == 37
    assert {line["stage"] for line in lines} == {"near_duplicate"}
    assert {NUMBERS[line["kept"]] for line in lines} <= set(kept)


@given(st.lists(st.sampled_from(["", "?", "!?", "a", "b", "a b", "b a", "a b c", "c b a"]), min_size=1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_short_texts_are_near_duplicates_of_themselves_alone(folder: Path, texts: list[str]) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as own, Signatures(Path(own) / "s", 0.9) as signatures:
        for start in range(0, len(texts), 3):
            signatures.add(texts[start : start + 3])
        instead = signatures.replacements(np.arange(len(texts)))
    firsts = [texts.index(text) for text in texts]
    assert instead.tolist() == [-1 if first == row else first for row, first in enumerate(firsts)]


def test_texts_below_the_threshold_are_all_kept(folder: Path) -> None:
    strict = {"deduplication": {"method": "near", "threshold": 0.95}, "splits": ALL}
    tens = [STORIES[0], STORIES[20], STORIES[30]]
    assert len(placed(folder, built(folder, [tens], **strict))) == 3
    assert len(placed(folder, built(folder, [STORIES[:2]], **strict))) == 2


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(40)), cut=st.integers(0, 40), case=st.sampled_from([NEAR, APART]))
def test_order_and_batches_change_nothing(
    folder: Path, order: list[int], cut: int, case: dict[str, Any]
) -> None:
    expected = built(folder, [STORIES], **case)
    arrived = [replace(STORIES[index], sequence=place + 1) for place, index in enumerate(order)]
    result = built(folder, [arrived[:cut], arrived[cut:]], **case)
    assert (result.digest, result.dropped_rows) == (expected.digest, expected.dropped_rows)


def stories(folder: Path, result: BuildResult) -> dict[int, str]:
    """The split of each story that was kept, by number."""
    return {NUMBERS[row]: split for row, split in placed(folder, result).items() if row in NUMBERS}


def built_of(
    folder: Path, chosen: Iterable[int], case: dict[str, Any], parent: Parent | None = None, seed: int = 0
) -> BuildResult:
    traces = [*ANCHORS, *(STORIES[number] for number in sorted(chosen))]
    return built(folder, [traces], parent=parent, seed=seed, **case)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(few=subsets, more=subsets)
def test_traces_added_later_move_no_row(folder: Path, few: set[int], more: set[int]) -> None:
    before = stories(folder, built_of(folder, few, APART))
    after = stories(folder, built_of(folder, few | more, APART))
    assert all(after[row] == split for row, split in before.items() if row in after)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(few=subsets, more=subsets, case=st.sampled_from([NEAR, APART]))
def test_rows_of_the_parent_stay_where_they_are(
    folder: Path, few: set[int], more: set[int], case: dict[str, Any]
) -> None:
    first = built_of(folder, few, case)
    parent = parent_of(ArtifactStore(folder / "artifacts"), first)
    second = built_of(folder, few | more, case, parent)
    assert placed(folder, first).items() <= placed(folder, second).items()
    assert tens(stories(folder, second)) == tens(few | more)
    assert second.parent_digest == first.digest


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chosen=subsets, seed=st.integers(0, 50))
def test_no_question_is_in_two_splits(folder: Path, chosen: set[int], seed: int) -> None:
    kept = stories(folder, built_of(folder, chosen, APART, seed=seed))
    for (first, split), (second, other) in itertools.combinations(kept.items(), 2):
        assert split == other or first // 10 != second // 10
    assert tens(kept) == tens(chosen)


def test_near_duplicates_go_only_where_their_labels_differ(folder: Path) -> None:
    texts = [STORY.format(who="Ada", count=number, left=9) for number in range(6)]
    rows = np.arange(6)
    with (
        tempfile.TemporaryDirectory(dir=folder) as own,
        Signatures(Path(own) / "s", 0.7) as signatures,
    ):
        signatures.add(texts)
        assert signatures.replacements(rows).tolist() == [-1, 0, 0, 0, 0, 0]
        assert signatures.replacements(rows, rows * 0).tolist() == [-1] * 6
        mixed = signatures.replacements(rows, np.array([1, 1, 0, 1, 0, 1])).tolist()
    assert [mixed[place] for place in (0, 1, 3, 5)] == [-1] * 4
    assert {mixed[2], mixed[4]} <= {0, 1, 3}


def test_a_split_begins_where_the_one_before_it_ends() -> None:
    groups = np.array([0, 2**63 - 1, 2**63, 2**64 - 1], dtype=np.uint64)
    rows = cast(RowStore, SimpleNamespace(keys={"group": groups}))
    splits = [SplitFraction.model_validate(half) for half in HALVES]
    assert assigned_splits(rows, splits).tolist() == [0, 0, 1, 1]


def test_rows_of_one_conversation_share_a_split(folder: Path) -> None:
    traces = [
        source(number, metadata={"conversation": {"id": number % 7}} if number < 70 else {})
        for number in range(100)
    ]
    case = {"split_group": {"metadata_field": "conversation"}, "splits": HALVES}
    splits = placed(folder, built(folder, [traces], **case))
    by_conversation = [{splits[trace.digest.hex()] for trace in traces[k:70:7]} for k in range(7)]
    assert all(len(found) == 1 for found in by_conversation)
    assert len(set.union(*by_conversation)) == 2
    plain = placed(folder, built(folder, [traces], splits=HALVES))
    assert all(splits[trace.digest.hex()] == plain[trace.digest.hex()] for trace in traces[70:])


@pytest.mark.parametrize(
    ("metadata", "right"),
    [
        ({"turn": 1, "conversation": "a"}, "one of 'conversation', 'turn' would be right"),
        ({}, "they have no metadata to group by"),
    ],
)
def test_a_group_key_of_no_trace_is_refused(tmp_path: Path, metadata: dict[str, Any], right: str) -> None:
    traces = [source(number, metadata=metadata) for number in range(3)]
    with pytest.raises(FailedPrecondition) as caught:
        built(tmp_path, [traces[:2], traces[2:]], split_group={"metadata_field": "conversaton"})
    assert caught.value.reason == "SPLIT_GROUP_MISSING"
    problem = "is 'conversaton', which none of the 3 traces has"
    assert caught.value.message == f"spec.split_group.metadata_field: {problem}; {right}"
    assert caught.value.metadata == {"metadata_field": "conversaton", "trace_count": "3"}
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_one_trace_with_the_group_key_is_enough(tmp_path: Path) -> None:
    traces = [source(number, metadata={"k": 1} if number == 299 else {}) for number in range(300)]
    assert built(tmp_path, [traces], split_group={"metadata_field": "k"}).trace_count == 300


def test_the_report_of_dropped_rows_can_be_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ended(Exception):
        pass

    def end(progress: Progress) -> None:
        if progress.stage == "writing dropped rows" and progress.completed == 4:
            assert progress.total == 9
            raise Ended

    monkeypatch.setattr("tunix_rt_exporter.datasets.write.WRITE_BATCH", 2)
    traces = [source(0, metadata={"copy": number}) for number in range(10)]
    with pytest.raises(Ended):
        built(tmp_path, [traces], splits=[{"split": "train", "fraction": 1}], report=end)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"duplicate" in path.read_bytes()]


@pytest.mark.parametrize("case", [NEAR, APART])
def test_a_small_bound_on_buckets_leaves_order_without_a_part(
    folder: Path, case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deduplicate, "BUCKET_ROWS", 1)
    expected = built(folder, [STORIES], **case)
    for step in (3, 7, 9):
        arrived = [STORIES[step * place % 40] for place in range(40)]
        result = built(folder, [arrived], **case)
        assert (result.digest, result.dropped_rows) == (expected.digest, expected.dropped_rows)


def reads(folder: Path, texts: list[str], split: bool, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many signatures are read to compare these texts, every second one in another split."""
    count = 0
    read_them = deduplicate._MappedSignatures.of

    def counted(self: Any, rows: Any, *columns: Any) -> Any:
        nonlocal count
        count += len(rows)
        return read_them(self, rows, *columns)

    rows = np.arange(len(texts))
    with (
        tempfile.TemporaryDirectory(dir=folder) as own,
        Signatures(Path(own) / "s", 0.8) as signatures,
        monkeypatch.context() as patch,
    ):
        patch.setattr(deduplicate._MappedSignatures, "of", counted)
        signatures.add(texts)
        signatures.replacements(rows, rows % 2 if split else None)
    return count


@pytest.mark.parametrize("split", [True, False])
def test_twice_the_rows_take_twice_the_comparisons(
    folder: Path, split: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deduplicate, "BUCKET_ROWS", 16)
    instruction = " ".join(f"say{place}" for place in range(30))
    own = range(0 if split else 8)
    texts = [f"{instruction} {[8 * number + k for k in own]}" for number in range(1600)]
    few, many = (reads(folder, texts[:count], split, monkeypatch) for count in (800, 1600))
    assert many < 2.5 * few


@pytest.mark.parametrize(("case", "stage"), [(NEAR, "comparing texts"), (APART, "comparing prompts")])
def test_comparing_tells_how_far_it_is_and_can_be_ended(
    folder: Path, case: dict[str, Any], stage: str
) -> None:
    class Cancelled(Exception):
        pass

    seen: list[int] = []

    def report(progress: Progress) -> None:
        if progress.stage == stage:
            assert (progress.total, progress.unit) == (600, "rows")
            seen.append(progress.completed)
            if progress.completed >= 300:
                raise Cancelled

    alike = [source(number, prompt=f"{STORY} {number}") for number in range(600)]
    with pytest.raises(Cancelled):
        built(folder, [alike], report=report, **case)
    assert len(seen) > 3
    assert seen == sorted(seen)
