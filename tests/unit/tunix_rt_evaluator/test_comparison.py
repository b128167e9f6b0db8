"""What may be compared, and what a comparison says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from support.comparison import answered, finished, sampled, some_comparison, some_items
from tunix_rt_evaluator.comparisons.model import Contamination, LeakedItem, Reason, Run
from tunix_rt_evaluator.comparisons.paired_statistics import holm
from tunix_rt_evaluator.comparisons.pairing import compared, report_id
from tunix_rt_evaluator.comparisons.policy import REASONS, check_sound, checked_waivers
from tunix_rt_evaluator.evaluations.model import Decoding, ItemResult
from tunix_rt_evaluator.report import words
from tunix_rt_evaluator.report.repository import DOCUMENTS
from tunix_rt_kit.errors import FailedPrecondition, InvalidArgument

ITEMS = some_items(12)
BASE = [answered(item, number, right=number < 4, style="plain") for number, item in enumerate(ITEMS)]
TUNED = [answered(item, number, right=number > 1, style="tuned") for number, item in enumerate(ITEMS)]


def unsound(*runs: Run, waived: frozenset[Reason] = frozenset()) -> Any:
    with pytest.raises(FailedPrecondition) as caught:
        check_sound(runs, waived)
    assert caught.value.reason == "COMPARISON_UNSOUND"
    return caught.value


def with_manifest(run: Run, changes: Mapping[str, Any]) -> Run:
    evaluation = run.evaluation
    assert evaluation.manifest is not None
    manifest = evaluation.manifest.model_copy(update=changes)
    return Run(evaluation.model_copy(update={"manifest": manifest}), run.results)


def base(results: Sequence[ItemResult] = BASE, **spec: Any) -> Run:
    return Run.of(finished("a", results, **spec), results)


def tuned(results: Sequence[ItemResult] = TUNED, **spec: Any) -> Run:
    return Run.of(finished("b", results, **spec), results)


def test_the_same_questions_asked_in_the_same_way_may_be_compared() -> None:
    assert check_sound([base(), tuned(checkpoint=True)]) == ()


CHANGES = [
    ({"eval_set_digest": "sha256:x"}, "eval_set"),
    ({"chat_template_digest": "sha256:x"}, "chat_template"),
    ({"graders": ("numeric/1",)}, "graders"),
    ({"engine": "tunix/9"}, "engine"),
]


@pytest.mark.parametrize(("changes", "field"), CHANGES)
def test_each_difference_is_named_with_both_values(changes: dict[str, Any], field: str) -> None:
    error = unsound(base(), with_manifest(tuned(), changes))
    assert [violation.field for violation in error.violations] == [field]
    (value,) = changes.values()
    assert (value if isinstance(value, str) else value[0]) in error.violations[0].description


@pytest.mark.parametrize(("changes", "field"), CHANGES)
def test_each_difference_can_be_waived_and_stands_on_the_report(
    changes: dict[str, Any], field: Reason
) -> None:
    runs = [base(), with_manifest(tuned(), changes)]
    waivers = check_sound(runs, frozenset({field}))
    assert [waiver.reason for waiver in waivers] == [field]
    assert "candidate has" in waivers[0].description
    assert compared(runs[:1], runs[1:], waivers=waivers).waivers == waivers
    others: frozenset[Reason] = frozenset(REASONS) - {field}
    unsound(*runs, waived=others)


def test_what_does_not_differ_is_not_waived() -> None:
    assert check_sound([base(), tuned()], frozenset(REASONS)) == ()


@pytest.mark.parametrize("wrong", [["everything"], ["dtype", "Engine"], [""]])
def test_an_unknown_waiver_is_refused_by_its_place(wrong: list[str]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        checked_waivers(wrong)
    assert [violation.field for violation in caught.value.violations] == [f"waivers[{len(wrong) - 1}]"]
    assert "prompt_tokens" in caught.value.message


def test_decoding_and_type_are_part_of_the_question() -> None:
    other = tuned(decoding={"max_new_tokens": 7, "batch_size": 3}, dtype="float32")
    error = unsound(base(), other)
    assert [violation.field for violation in error.violations] == [
        "decoding.max_new_tokens",
        "decoding.batch_size",
        "dtype",
    ]
    waivers = check_sound([base(), other], frozenset[Reason]({"decoding", "dtype"}))
    assert [waiver.reason for waiver in waivers] == ["decoding", "decoding", "dtype"]


def test_prompts_that_became_other_tokens_are_named() -> None:
    odd = [*TUNED[:-1], answered(ITEMS[-1], 11, right=True, style="tuned", tokens="other")]
    error = unsound(base(), tuned(odd))
    assert [violation.field for violation in error.violations] == ["prompt_tokens"]
    assert "item-011" in error.violations[0].description


def test_an_item_that_one_of_them_lacks_is_named_and_bounds_say_what_it_could_change() -> None:
    runs = [base(), tuned(TUNED[1:])]
    assert "items" in [violation.field for violation in unsound(*runs).violations]
    waivers = check_sound(runs, frozenset[Reason]({"items"}))
    content = compared(runs[:1], runs[1:], waivers=waivers)
    assert content.overall.base.item_count == 11
    assert content.bounds is not None
    # 10 of 12 right after, or 11 with the missing item; 4 before. Item 0 was right before.
    assert content.bounds.unsettled_count == 1
    assert content.bounds.worst == pytest.approx(10 / 12 - 4 / 12)
    assert content.bounds.best == pytest.approx(11 / 12 - 4 / 12)


def test_nothing_in_common_is_nothing_to_compare() -> None:
    with pytest.raises(FailedPrecondition) as caught:
        check_sound([base(BASE[:3]), tuned(TUNED[3:])], frozenset(REASONS))
    assert caught.value.reason == "COMPARISON_EMPTY"


def test_every_seed_is_held_to_the_base() -> None:
    seeds = [tuned(), with_manifest(tuned(), {"engine": "tunix/9"})]
    error = unsound(base(), *seeds)
    assert [violation.field for violation in error.violations] == ["engine"]
    assert "evaluations/b has tunix/9" in error.violations[0].description


def test_flips_come_right_ones_first_and_by_item() -> None:
    content = compared([base(BASE[::-1])], [tuned()])
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
    raw = [entry.difference.p_value for entry in content.categories]
    assert [entry.adjusted_p_value for entry in content.categories] == holm(raw)


def test_a_report_is_named_by_what_it_compares() -> None:
    first, second, third = finished("a", BASE), finished("b", TUNED), finished("c", TUNED[:5])
    assert report_id([first], [second]) == report_id([finished("a", BASE)], [finished("b", TUNED)])
    assert report_id([first], [second, third]) != report_id([first], [second])
    assert report_id([first], [second]) != report_id([second], [first])
    assert report_id([first], [second]) != report_id([first], [second], looked_up=False)
    assert len(report_id([first], [second])) == 32


def test_the_example_improved() -> None:
    assert some_comparison().verdict == "IMPROVED"


# Clusters, seeds, answers that are not settled, contamination


def many(right: Callable[[int], bool], style: str = "plain", count: int = 60) -> list[ItemResult]:
    return [
        answered(item, number, right=right(number), style=style)
        for number, item in enumerate(some_items(count))
    ]


def never(_: int) -> bool:
    return False


def changed(result: ItemResult, **generation: Any) -> ItemResult:
    return result.model_copy(update={"generation": result.generation.model_copy(update=generation)})


def test_clusters_make_the_test_and_the_interval_wider() -> None:
    before, after = base(many(never)), tuned(many(lambda number: number % 10 < 2, "tuned"))
    alone = compared([before], [after]).overall
    clusters = {f"item-{number:03d}": f"source {number % 10}" for number in range(60)}
    together = compared([before], [after], clusters=clusters).overall
    assert (alone.test, alone.interval_method, alone.cluster_count) == ("exact McNemar", "Newcombe", 0)
    assert (together.test, together.interval_method, together.cluster_count) == (
        "permutation",
        "clustered t",
        10,
    )
    # All items of two sources of ten were gained: two signs that can change, so 4 ways, 2 of them as far off.
    assert together.p_value == 0.5
    assert together.interval.lower < alone.interval.lower < together.difference
    assert compared([before], [after], clusters=clusters).verdict == "NO_EVIDENCE"


def test_several_seeds_give_mean_spread_and_a_test_over_seeds() -> None:
    before = base(many(lambda number: number < 20))
    seeds = [
        tuned(many(lambda number, most=most: number < most, "tuned"))  # type: ignore[misc]
        for most in (40, 41, 43)
    ]
    content = compared([before], seeds)
    assert content.seeds is not None
    assert content.seeds.candidate == pytest.approx((40 / 60, 41 / 60, 43 / 60))
    assert content.seeds.candidate_mean == pytest.approx(124 / 180)
    assert content.seeds.candidate_spread == pytest.approx(np.std([40 / 60, 41 / 60, 43 / 60], ddof=1))
    assert (content.seeds.base_spread, content.seeds.test) == (None, "one-sample t")
    assert content.overall.test == "permutation"
    assert content.overall.difference == pytest.approx(124 / 180 - 20 / 60)
    candidate = content.overall.candidate
    assert (candidate.item_count, candidate.correct_count) == (180, 124)
    assert candidate.accuracy == pytest.approx(124 / 180)
    assert candidate.interval.lower < candidate.accuracy < candidate.interval.upper
    assert content.verdict == "IMPROVED"
    assert [entry.id for entry in content.more_candidates] == ["b", "b"]


def test_seeds_that_scatter_are_inconclusive() -> None:
    before = base(many(lambda number: number < 20))
    seeds = [tuned(many(lambda number, most=most: number < most, "tuned")) for most in (18, 60)]  # type: ignore[misc]
    content = compared([before], seeds)
    assert content.overall.p_value < 0.05
    assert content.verdict == "INCONCLUSIVE"
    assert "over the training seeds the test gives p" in content.verdict_reasons[0]


def test_items_that_failed_make_a_verdict_inconclusive_when_they_could_turn_it() -> None:
    after = many(lambda number: number < 12, "tuned")
    failed = [
        changed(result, finish_reason="failed", output="") if number >= 48 else result
        for number, result in enumerate(many(never))
    ]
    content = compared([base(failed)], [tuned(after)])
    assert content.overall.p_value < 0.05
    assert content.bounds is not None
    assert (content.bounds.unsettled_count, content.bounds.worst) == (12, 0.0)
    assert content.verdict == "INCONCLUSIVE"
    one_less = [*failed[:48], *many(never)[48:49], *failed[49:]]
    assert compared([base(one_less)], [tuned(after)]).verdict == "IMPROVED"


def test_answers_that_could_not_be_graded_are_not_settled_and_scores_are_compared_by_their_means() -> None:
    def with_verdict(result: ItemResult, **values: Any) -> ItemResult:
        return result.model_copy(update={"verdict": result.verdict.model_copy(update=values)})

    before = [with_verdict(result, score=0.25) for result in many(never)]
    after = many(lambda number: number < 12, "tuned")
    after[59] = with_verdict(after[59], error="the judge is not there")
    content = compared([base(before)], [tuned(after)])
    assert content.scores is not None
    assert (content.scores.base, content.scores.candidate) == pytest.approx((0.25, 0.2))
    assert content.bounds is not None
    assert (content.bounds.unsettled_count, content.bounds.best) == (1, pytest.approx(13 / 60))
    assert compared([base(many(never))], [tuned(many(never))]).scores is None


def test_answers_that_were_cut_are_bounded_apart_and_count_as_what_they_are() -> None:
    cut = [changed(result, finish_reason="length") for result in many(never)]
    content = compared([base(cut)], [tuned(many(lambda number: number < 12, "tuned"))])
    assert content.verdict == "IMPROVED"
    assert content.bounds is not None
    assert (content.bounds.unsettled_count, content.bounds.truncated_count) == (0, 60)
    assert content.bounds.worst == content.bounds.best == pytest.approx(0.2)
    assert (content.bounds.worst_with_truncated, content.bounds.best_with_truncated) == pytest.approx(
        (0.2 - 1.0, 0.2)
    )


def leaked(numbers: Iterable[int]) -> Contamination:
    return Contamination(
        state="LOOKED_UP",
        datasets=("datasets/d@1",),
        items=tuple(
            LeakedItem(item_id=f"item-{number:03d}", dataset="datasets/d@1", row_id="r", match="exact")
            for number in numbers
        ),
    )


def test_the_result_is_repeated_over_the_items_that_were_not_leaked() -> None:
    before, after = base(many(never)), tuned(many(lambda number: number < 20, "tuned"))
    content = compared([before], [after], contamination=leaked(range(10)))
    assert content.contamination is not None
    assert content.contamination.clean is not None
    assert content.contamination.clean.base.item_count == 50
    assert content.contamination.clean.gained_count == 10
    assert content.verdict == "IMPROVED"
    all_gone = compared([before], [after], contamination=leaked(range(20)))
    assert all_gone.verdict == "INCONCLUSIVE"
    assert "20 items away" in all_gone.verdict_reasons[0]
    nothing_left = compared([before], [after], contamination=leaked(range(60)))
    assert nothing_left.verdict == "INCONCLUSIVE"
    assert nothing_left.verdict_reasons == ("the training data gives every item away",)


def test_items_that_were_not_compared_are_not_counted_as_leaked() -> None:
    content = compared([base()], [tuned()], contamination=leaked([5, 500]))
    assert content.contamination is not None
    assert [entry.item_id for entry in content.contamination.items] == ["item-005"]


# Several samples of each item


SAMPLED = Decoding(temperature=0.7, samples=4)


def of_samples(right: Callable[[int], int], count: int = 40) -> list[ItemResult]:
    """Results of items of whose four samples so many are right."""
    return [
        sampled(item, number, right=right(number), samples=4) for number, item in enumerate(some_items(count))
    ]


def test_the_share_of_right_samples_is_what_an_item_counts() -> None:
    before, after = of_samples(lambda number: number % 3), of_samples(lambda number: number % 3 + 1)
    content = compared([base(before, decoding=SAMPLED)], [tuned(after, decoding=SAMPLED)])
    overall = content.overall
    shares = [number % 3 / 4 for number in range(40)]
    assert overall.base.accuracy == pytest.approx(np.mean(shares))
    assert (overall.base.item_count, overall.base.correct_count) == (160, sum(n % 3 for n in range(40)))
    assert overall.difference == pytest.approx(0.25)
    assert (overall.test, overall.interval_method) == ("permutation", "t")
    assert (overall.gained_count, overall.lost_count) == (40, 0)
    # Only those with 2 of 4 before and 3 of 4 after have another verdict.
    assert [flip.base.item_id for flip in content.flips] == [f"item-{n:03d}" for n in range(2, 40, 3)]
    assert content.scores is None
    assert content.verdict == "IMPROVED"
    assert len(content.base_output_tokens) == 160


def test_what_samples_show_is_not_what_their_majority_shows() -> None:
    # By majority nothing changes; the candidate is right three times as often all the same.
    before, after = of_samples(lambda _: 0), of_samples(lambda _: 2)
    content = compared([base(before, decoding=SAMPLED)], [tuned(after, decoding=SAMPLED)])
    assert not content.flips
    assert content.verdict == "IMPROVED"


def test_samples_that_were_cut_or_not_graded_are_bounded_one_by_one() -> None:
    before, after = of_samples(lambda _: 2), of_samples(lambda _: 2)
    cut = after[0].generation.more[0].model_copy(update={"finish_reason": "length"})
    after[0] = changed(after[0], more=(cut, *after[0].generation.more[1:]))
    lost = after[1].verdicts[0].model_copy(update={"error": "the judge is not there"})
    after[1] = after[1].model_copy(update={"verdicts": (lost, *after[1].verdicts[1:])})
    bounds = compared([base(before, decoding=SAMPLED)], [tuned(after, decoding=SAMPLED)]).bounds
    assert bounds is not None
    assert (bounds.unsettled_count, bounds.truncated_count) == (1, 1)
    # One of 160 answers each; both are wrong as they stand.
    assert (bounds.worst, bounds.best) == pytest.approx((0.0, 1 / 160))
    assert (bounds.worst_with_truncated, bounds.best_with_truncated) == pytest.approx((0.0, 2 / 160))


def test_an_item_that_failed_is_wrong_in_every_sample() -> None:
    before, after = of_samples(lambda _: 4), of_samples(lambda _: 4)
    failed = sampled(some_items(1)[0], 0, right=0, samples=1)
    after[0] = changed(failed, finish_reason="failed", output="")
    content = compared([base(before, decoding=SAMPLED)], [tuned(after, decoding=SAMPLED)])
    assert (content.overall.candidate.correct_count, content.overall.candidate.item_count) == (156, 160)
    assert content.overall.difference == pytest.approx(-1 / 40)
    assert content.bounds is not None
    assert content.bounds.unsettled_count == 1


def test_seeds_of_samples_have_an_accuracy_each() -> None:
    seeds = [tuned(of_samples(lambda _, n=n: n), decoding=SAMPLED) for n in (1, 2, 4)]  # type: ignore[misc]
    content = compared([base(of_samples(lambda _: 0), decoding=SAMPLED)], seeds)
    assert content.seeds is not None
    assert content.seeds.candidate == (0.25, 0.5, 1.0)
    assert content.overall.candidate.item_count == 3 * 160


def test_how_answers_are_sampled_is_part_of_the_question_and_what_is_kept_of_them_is_not() -> None:
    other = SAMPLED.model_copy(update={"seed": 1, "temperature": 1.0, "log_probabilities": True})
    error = unsound(base(decoding=SAMPLED), tuned(decoding=other))
    assert [violation.field for violation in error.violations] == ["decoding.temperature", "decoding.seed"]
    same = SAMPLED.model_copy(update={"log_probabilities": True})
    assert check_sound([base(decoding=SAMPLED), tuned(decoding=same, fresh=True)]) == ()


def resting(results: Sequence[ItemResult], unmarked: int) -> list[ItemResult]:
    """The same with the verdicts on the last items that are right resting on unmarked answers."""
    right = [result.item_id for result in results if result.verdict.correct][-unmarked:] if unmarked else []
    return [
        result.model_copy(
            update={"verdict": result.verdict.model_copy(update={"unmarked": result.item_id in right})}
        )
        for result in results
    ]


def test_a_comparison_says_what_rests_on_unmarked_answers_and_what_is_found_without_them() -> None:
    many = some_items(40)
    before = [answered(item, number, right=number < 10, style="tuned") for number, item in enumerate(many)]
    after = [answered(item, number, right=number < 30, style="tuned") for number, item in enumerate(many)]
    content = compared([base(resting(before, 0))], [tuned(resting(after, 20))])
    assert content.verdict == "IMPROVED"
    found = content.unmarked
    assert found is not None
    assert (found.base_count, found.candidate_count, found.candidate_correct_count) == (0, 20, 20)
    assert (found.without.difference, found.verdict) == (0.0, "NO_EVIDENCE")
    sentence = words.unmarked(content)
    assert "20 verdicts of the candidate (20 right) rest on an answer that nothing marks" in sentence
    assert "no evidence of a difference, base 25.0%, candidate 25.0%" in sentence
    for kind in ("markdown", "html"):
        assert sentence in DOCUMENTS[kind].render("comparisonReports/a", "sha256:a", content)
    plain = compared([base(resting(before, 0))], [tuned(resting(after, 0))])
    assert (plain.unmarked, words.unmarked(plain)) == (None, "")


def test_tokens_of_reasoning_are_counted_on_each_side() -> None:
    thought = [
        answered(item, number, right=True, style="tuned", thought="a b c d")
        for number, item in enumerate(ITEMS)
    ]
    content = compared([base()], [tuned(thought)])
    assert content.base_parts is not None
    assert content.candidate_parts is not None
    assert (content.base_parts.reasoning_count, content.base_parts.reasoning_tokens) == (0, 0)
    assert content.candidate_parts.reasoning_count == content.candidate_parts.answer_count == len(ITEMS)
    # Four words and the marks around them.
    assert content.candidate_parts.reasoning_tokens == 4 * len(ITEMS)
    rows = {label: (before, after) for label, before, after in words.counted(content)}
    assert rows["Tokens of reasoning"] == ("0 (0.0 each)", "48 (4.0 each)")
    assert compared([base()], [tuned()]).base_parts is None
