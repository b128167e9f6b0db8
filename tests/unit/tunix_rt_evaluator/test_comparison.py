"""What may be compared, and what a comparison says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from support.comparison import answered, finished, some_comparison, some_items
from tunix_rt_evaluator.comparison import check_sound, compared, report_id
from tunix_rt_evaluator.model import Evaluation, ItemResult
from tunix_rt_kit.errors import FailedPrecondition

ITEMS = some_items(12)
BASE = [answered(item, number, right=number < 4, style="plain") for number, item in enumerate(ITEMS)]
TUNED = [answered(item, number, right=number > 1, style="tuned") for number, item in enumerate(ITEMS)]


def unsound(first: Evaluation, before: list[ItemResult], second: Evaluation, after: list[ItemResult]) -> Any:
    with pytest.raises(FailedPrecondition) as caught:
        check_sound(first, before, second, after)
    assert caught.value.reason == "COMPARISON_UNSOUND"
    return caught.value


def with_manifest(evaluation: Evaluation, changes: Mapping[str, Any]) -> Evaluation:
    assert evaluation.manifest is not None
    return evaluation.model_copy(update={"manifest": evaluation.manifest.model_copy(update=changes)})


def test_the_same_questions_asked_in_the_same_way_may_be_compared() -> None:
    check_sound(finished("a", BASE), BASE, finished("b", TUNED, checkpoint=True), TUNED)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"eval_set_digest": "sha256:x"}, "eval_set"),
        ({"chat_template_digest": "sha256:x"}, "chat_template"),
        ({"graders": ("numeric/2",)}, "graders"),
        ({"engine": "tunix/9"}, "engine"),
    ],
)
def test_each_difference_is_named_with_both_values(changes: dict[str, Any], field: str) -> None:
    first, second = finished("a", BASE), finished("b", TUNED)
    error = unsound(first, BASE, with_manifest(second, changes), TUNED)
    assert [violation.field for violation in error.violations] == [field]
    (value,) = changes.values()
    assert (value if isinstance(value, str) else value[0]) in error.violations[0].description


def test_decoding_and_type_are_part_of_the_question() -> None:
    other = finished("b", TUNED, decoding={"max_new_tokens": 7, "batch_size": 3}, dtype="float32")
    error = unsound(finished("a", BASE), BASE, other, TUNED)
    assert [violation.field for violation in error.violations] == [
        "decoding.max_new_tokens",
        "decoding.batch_size",
        "dtype",
    ]


def test_prompts_that_became_other_tokens_are_named() -> None:
    odd = [*TUNED[:-1], answered(ITEMS[-1], 11, right=True, style="tuned", tokens="other")]
    error = unsound(finished("a", BASE), BASE, finished("b", odd), odd)
    assert [violation.field for violation in error.violations] == ["prompt_tokens"]
    assert "item-011" in error.violations[0].description


def test_an_item_that_one_of_them_lacks_is_named() -> None:
    error = unsound(finished("a", BASE), BASE, finished("b", TUNED[1:]), TUNED[1:])
    assert "items" in [violation.field for violation in error.violations]


def test_flips_come_right_ones_first_and_by_item() -> None:
    content = compared(finished("a", BASE), BASE[::-1], finished("b", TUNED), TUNED)
    assert [flip.base.item_id for flip in content.flips] == [
        *[f"item-{number:03d}" for number in range(4, 12)],
        "item-000",
        "item-001",
    ]
    assert (content.overall.gained_count, content.overall.lost_count) == (8, 2)
    per_category = {entry.category: entry.difference for entry in content.categories}
    assert list(per_category) == sorted(per_category)
    assert sum(entry.gained_count for entry in per_category.values()) == 8
    assert sum(entry.base.item_count for entry in per_category.values()) == 12


def test_a_report_is_named_by_what_it_compares() -> None:
    first, second = finished("a", BASE), finished("b", TUNED)
    assert report_id(first, second) == report_id(finished("a", BASE), finished("b", TUNED))
    assert report_id(first, second) != report_id(second, first)
    assert len(report_id(first, second)) == 32


def test_the_example_improved() -> None:
    assert some_comparison().verdict == "IMPROVED"
