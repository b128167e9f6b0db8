"""Groups of rows, and the splits that they fall into, without a build around them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from support.datasets import source
from tunix_rt_exporter.datasets.deduplicate import Signatures
from tunix_rt_exporter.datasets.model import SplitFraction, SplitGroup
from tunix_rt_exporter.datasets.rows import RowStore
from tunix_rt_exporter.datasets.split import SplitGroups, assigned_splits, without_conflicts
from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.values import Progress


def groups_by(field: str | None) -> SplitGroups:
    return SplitGroups(SplitGroup(metadata_field=field))


@pytest.mark.parametrize(
    ("fractions", "groups", "splits"),
    [
        ([0.25, 0.5, 0.25], [0, 2**62 - 1, 2**62, 3 * 2**62 - 1, 3 * 2**62, 2**64 - 1], [0, 0, 1, 1, 2, 2]),
        ([1], [0, 2**64 - 1], [0, 0]),
        # Fractions need only add to 1 to nine digits.
        ([1, 1e-10], [0, 2**64 - 2, 2**64 - 1], [0, 0, 1]),
    ],
)
def test_a_group_falls_into_the_split_whose_part_of_the_line_it_is_on(
    fractions: list[float], groups: list[int], splits: list[int]
) -> None:
    rows = cast(RowStore, SimpleNamespace(keys={"group": np.array(groups, dtype=np.uint64)}))
    spec = [SplitFraction(split=str(place), fraction=each) for place, each in enumerate(fractions)]
    found = assigned_splits(rows, spec)
    assert (found.dtype, found.tolist()) == (np.int64, splits)


def test_the_group_of_a_trace_is_its_prompt_or_a_value_of_its_metadata() -> None:
    trace = source(1, metadata={"turn": {"b": 2, "a": "\u00e9"}})
    assert groups_by(None).of(trace, "what is it") == "what is it"
    assert groups_by("other").of(trace, "what is it") == "what is it"
    assert groups_by("turn").of(trace, "what is it") == '\0["turn",{"a":"\u00e9","b":2}]'


def test_a_field_may_be_found_in_any_batch() -> None:
    without, having = (
        [source(1, metadata={"a": 1})],
        [source(2, metadata={"a": 1}), source(3, metadata={"k": 0})],
    )
    for batches in ([having], [without, having], [having, without]):
        groups = groups_by("k")
        for batch in batches:
            groups.look_for_field(batch)
        groups.check(9)
    groups_by(None).check(9)
    groups_by("k").check(0)


@pytest.mark.parametrize(("count", "per_trace"), [(12, 1), (1_005, 1), (10, 250)])
def test_the_fields_that_there_are_are_named_up_to_ten(count: int, per_trace: int) -> None:
    groups = groups_by("k")
    names = [f"f{number:04}" for number in range(count * per_trace)]
    # Of so many traces not all are gone through: those that come last have the names that come first.
    traces = [
        source(1, metadata=dict.fromkeys(names[start : start + per_trace], 1))
        for start in range(0, len(names), per_trace)
    ]
    for trace in reversed(traces):
        groups.look_for_field([trace])
    with pytest.raises(FailedPrecondition) as caught:
        groups.check(1)
    first = max(0, len(names) - 1_000)
    assert caught.value.reason == "SPLIT_GROUP_MISSING"
    named = ", ".join(f"'f{first + place:04}'" for place in range(10))
    problem = f"is 'k', which none of the 1 traces has; one of {named} would be right"
    assert caught.value.message == f"spec.split_group.metadata_field: {problem}"
    assert caught.value.metadata == {"metadata_field": "k", "trace_count": "1"}


def test_a_prompt_goes_where_another_split_has_it(tmp_path: Path) -> None:
    seen: list[Progress] = []
    with Signatures(tmp_path / "signatures", 0.7) as prompts:
        prompts.add(["how many jars of plum jam", "how many jars of plum jam", "what is it", "what is it"])
        kept, replaced = without_conflicts(
            np.array([3, 1, 2, 0]), np.array([1, 0, 1, 1]), prompts, cast(Any, seen.append)
        )
    assert kept.tolist() == [3, 1, 2]
    assert (replaced.stage, replaced.rows.tolist(), replaced.kept.tolist()) == ("split_conflict", [0], [1])
    assert {(told.stage, told.total) for told in seen} == {("comparing prompts", 4)}
