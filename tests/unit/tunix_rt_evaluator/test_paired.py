"""Statistics of paired answers against published tables, against other implementations, and by simulation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from tunix_rt_evaluator.comparisons.paired_statistics import (
    cluster_numbers,
    clustered_error,
    detectable_effect,
    holm,
    mcnemar_exact,
    newcombe_paired,
    paired_difference,
    permutation_p,
    score_difference,
    seed_summary,
    t_interval,
)
from tunix_rt_evaluator.evaluations.results import wilson

Floats = NDArray[np.float64]

# McNemar


# Twice the binomial tail of what changed: 2 * (1 + 11 + 55) / 2**11, and 2 * (1 + 14 + 91) / 2**14.
@pytest.mark.parametrize(
    ("gained", "lost", "p_value"),
    [(9, 2, 134 / 2048), (2, 9, 134 / 2048), (12, 2, 212 / 16384), (5, 5, 1.0), (0, 0, 1.0), (1, 0, 1.0)],
)
def test_exact_mcnemar(gained: int, lost: int, p_value: float) -> None:
    assert mcnemar_exact(gained, lost) == pytest.approx(p_value, rel=1e-12)


# Airway hyper-responsiveness before and after transplantation: M. W. Fagerland, S. Lydersen and P. Laake,
# "The McNemar test for binary matched-pairs data: mid-p and asymptotic are better than exact conditional",
# BMC Medical Research Methodology 13:91 (2013). Complete response before and after therapy: the same authors,
# Statistical Analysis of Contingency Tables (2017), chapter 8, and its R package contingencytables.
@pytest.mark.parametrize(("gained", "lost", "p_value", "digits"), [(7, 1, 0.070, 3), (16, 6, 0.052479, 6)])
def test_exact_mcnemar_of_published_tables(gained: int, lost: int, p_value: float, digits: int) -> None:
    assert round(mcnemar_exact(gained, lost), digits) == p_value


# Holm


def test_holm_of_a_published_table() -> None:
    """SAS/STAT User's Guide, PROC MULTTEST, "Inputting Raw p-Values": 24 tests, one below 0.05."""
    raw = [
        0.28282, 0.30688, 0.71022, 0.77175, 0.78180, 0.88581, 0.54685, 0.84978, 0.24228, 0.58977, 0.03498,
        0.41607, 0.31631, 0.05254, 0.45061, 0.75758, 0.12496, 0.49485, 0.21572, 0.50505, 0.94372, 0.81260,
        0.77596, 0.36889,
    ]  # fmt: skip
    adjusted = holm(raw)
    assert round(adjusted[10], 4) == 0.8395
    assert [value for index, value in enumerate(adjusted) if index != 10] == [1.0] * 23


def test_holm_rejects_what_is_published_to_be_rejected() -> None:
    """Y. Benjamini and Y. Hochberg, "Controlling the false discovery rate", Journal of the Royal Statistical
    Society B 57 (1995) 289-300, section 4.1: with control of the familywise error at 5%, three of these 15.
    """
    raw = [
        0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719,
        0.6528, 0.7590, 1.0,
    ]  # fmt: skip
    assert [value < 0.05 for value in holm(raw)] == [True] * 3 + [False] * 12
    assert holm(raw)[:4] == pytest.approx([15 * 0.0001, 14 * 0.0004, 13 * 0.0019, 12 * 0.0095])
    assert holm([]) == []


# Newcombe


# (20, 12, 2, 16) and (36, 12, 2, 0): Newcombe 1998 (see newcombe_paired), Table III, method 10.
# (14, 5, 0, 22): Altman, Machin, Bryant and Gardner, Statistics with Confidence, 2nd edition (2000), page 52.
@pytest.mark.parametrize(
    ("cells", "lower", "upper", "digits"),
    [
        ((20, 12, 2, 16), 0.0562, 0.3292, 4),
        ((36, 12, 2, 0), 0.0569, 0.3404, 4),
        ((14, 5, 0, 22), 0.011, 0.226, 3),
    ],
)
def test_interval_of_a_paired_difference_of_published_examples(
    cells: tuple[int, int, int, int], lower: float, upper: float, digits: int
) -> None:
    assert newcombe_paired(*cells) == pytest.approx((lower, upper), abs=0.51 * 10**-digits)


def test_the_interval_turns_with_the_sides() -> None:
    lower, upper = newcombe_paired(30, 11, 4, 15)
    assert newcombe_paired(30, 4, 11, 15) == pytest.approx((-upper, -lower))
    assert newcombe_paired(0, 0, 0, 0) == (-1.0, 1.0)


# Clusters

# Thyroid glands of 21 patients seen by PET and by SPECT: N. A. Obuchowski, "On the comparison of correlated
# proportions for clustered data", Statistics in Medicine 17 (1998) 1495-1507.
PET = "000 110 111 1 110 1111 111 11 11 1 110 11 111 11 00 110 110 110 11 1 11"
SPECT = "011 111 111 1 111 1111 111 11 10 1 110 11 111 11 11 110 110 111 11 1 11"
# Patients of 29 psychiatrists: only one of two methods succeeded, only the other did, and all of them:
# V. L. Durkalski and others, "Analysis of clustered matched-pair data", Statistics in Medicine 22 (2003)
# 2417-2428, from K. Petryshen and others (1989).
FIRST_ALONE = [0, 1, 1, 1, 0, 3, 3, 3, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3, 1, 1, 2, 0, 0, 0, 0, 0, 0, 0]
OTHER_ALONE = [4, 2, 3, 2, 1, 3, 0, 2, 2, 4, 2, 4, 3, 2, 1, 3, 1, 2, 0, 0, 0, 2, 1, 2, 2, 0, 0, 1, 1]
PATIENTS = [7, 6, 7, 6, 4, 6, 5, 8, 4, 7, 3, 6, 7, 6, 5, 4, 6, 5, 4, 3, 5, 4, 4, 2, 3, 2, 2, 3, 1]


def thyroids() -> tuple[Floats, list[str]]:
    """Differences of the glands, and the patient of each."""
    pet, spect = PET.split(), SPECT.split()
    differences = [
        int(second) - int(first)
        for one, two in zip(pet, spect, strict=True)
        for first, second in zip(one, two, strict=True)
    ]
    return np.array(differences, float), [
        f"patient {number}" for number, glands in enumerate(pet) for _ in glands
    ]


def psychiatrists() -> tuple[Floats, list[str]]:
    rows = list(zip(FIRST_ALONE, OTHER_ALONE, PATIENTS, strict=True))
    differences = [
        value for lost, won, all_ in rows for value in [-1] * lost + [1] * won + [0] * (all_ - lost - won)
    ]
    return np.array(differences, float), [
        f"psychiatrist {number}" for number, row in enumerate(rows) for _ in range(row[2])
    ]


# Obuchowski's statistic as Durkalski and others (2003) report it, and McNemar's of the same data.
@pytest.mark.parametrize(
    ("data", "items", "clusters", "published", "mcnemar"),
    [(thyroids, 51, 21, 2.86, 4.5), (psychiatrists, 135, 29, 7.19, 11.85)],
)
def test_the_clustered_error_of_published_tables(
    data: Callable[[], tuple[Floats, list[str]]], items: int, clusters: int, published: float, mcnemar: float
) -> None:
    differences, names = data()
    groups = cluster_numbers(names)
    assert (len(differences), len(set(names))) == (items, clusters)
    changed = differences[differences != 0]
    assert round(changed.sum() ** 2 / len(changed), 2) == mcnemar
    statistic = (differences.mean() / clustered_error(differences, groups, mean=0.0)) ** 2
    assert round(statistic, 2) == published


@pytest.mark.parametrize("data", [thyroids, psychiatrists])
def test_the_clustered_interval_is_that_of_statsmodels(
    data: Callable[[], tuple[Floats, list[str]]],
) -> None:
    from statsmodels.regression.linear_model import OLS

    differences, names = data()
    groups = cluster_numbers(names)
    fitted = OLS(differences, np.ones(len(differences))).fit(
        cov_type="cluster", cov_kwds={"groups": groups}, use_t=True
    )
    assert clustered_error(differences, groups) == pytest.approx(float(fitted.bse[0]), rel=1e-12)
    assert t_interval(differences, groups) == pytest.approx(fitted.conf_int()[0], rel=1e-9)


def test_items_without_a_cluster_stand_for_themselves() -> None:
    assert cluster_numbers(["", "a", "", "b", "a"]).tolist() == [0, 1, 2, 3, 1]
    # The classical standard error of a mean.
    values = np.array([0.0, 1.0, 1.0, 0.0, 1.0, -1.0])
    error = clustered_error(values, cluster_numbers([""] * 6))
    assert error == pytest.approx(values.std(ddof=1) / math.sqrt(6))


def test_one_cluster_says_nothing_and_equal_clusters_do_not_say_too_much() -> None:
    one = cluster_numbers(["a"] * 5)
    assert t_interval(np.ones(5), one) == (-1.0, 1.0)
    assert permutation_p(np.ones(5), one) == 1.0
    three = cluster_numbers(list("aabbcc"))
    lower, upper = t_interval(np.zeros(6), three)
    assert lower < -0.4
    assert upper > 0.4
    lower, upper = t_interval(np.ones(6), three)
    assert 0 < lower < 0.5
    assert upper == pytest.approx(1.0)


# Permutation


def test_the_permutation_test_of_a_published_table() -> None:
    """Darwin's 15 pairs of maize: R. A. Fisher, The Design of Experiments (1935), section 21: 863 of 32,768
    arrangements of the signs give so great a sum."""
    eighths_of_an_inch = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48.0])
    found = permutation_p(eighths_of_an_inch, cluster_numbers([""] * 15))
    assert found == pytest.approx(2 * 863 / 32_768, rel=1e-12)


def test_the_permutation_test_is_that_of_all_signs_of_whole_clusters() -> None:
    values = np.array([0.5, 0.25, -0.125, 1.0, 0.0, -0.5, 0.75, 0.25])
    names = ["a", "a", "b", "", "c", "c", "d", ""]
    sums = [0.75, -0.125, 1.0, -0.5, 0.75, 0.25]
    signs = list(itertools.product((1, -1), repeat=6))
    as_far = sum(
        abs(sum(s * v for s, v in zip(sign, sums, strict=True))) >= abs(sum(sums)) - 1e-9 for sign in signs
    )
    assert permutation_p(values, cluster_numbers(names)) == pytest.approx(as_far / len(signs))


def test_sampled_permutations_are_the_same_each_time_and_near_the_exact_test() -> None:
    values = np.array([1.0] * 30 + [-1.0] * 14 + [0.0] * 56)
    groups = cluster_numbers([""] * 100)
    assert permutation_p(values, groups) == permutation_p(values, groups)
    assert permutation_p(values, groups) == pytest.approx(mcnemar_exact(30, 14), abs=0.003)


# Effect, seeds, scores


def test_the_detectable_effect_is_found_four_times_in_five() -> None:
    random = np.random.default_rng(3)
    groups = cluster_numbers([""] * 200)
    effect = detectable_effect(0.05, 200)
    assert effect is not None
    assert effect == pytest.approx(0.05 * (1.960 + 0.842), rel=0.02)
    means = random.normal(effect, 0.05, 4000)
    assert (np.abs(means) > 1.972 * 0.05).mean() == pytest.approx(0.8, abs=0.02)
    # t(97.5%) and t(80%) of three degrees of freedom, from a printed table.
    assert detectable_effect(0.05, 4) == pytest.approx(0.05 * (3.182 + 0.978), rel=1e-3)
    assert detectable_effect(0.0, 200) is None
    assert detectable_effect(clustered_error(np.ones(5), groups[:5] * 0), 1) is None


# Student's sleep data: hours gained with one drug and with another. Student, "The probable error of a mean",
# Biometrika 6 (1908) 1-25; Welch's test of it is the example of t.test in R: t = -1.8608, p-value = 0.07939,
# interval -3.3654832 to 0.2054832.
def test_seeds_are_compared_by_welchs_test() -> None:
    one = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    two = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = seed_summary(two, one)
    assert (found.base_mean, found.candidate_mean) == pytest.approx((2.33, 0.75))
    assert found.base_spread == pytest.approx(2.002249, abs=1e-6)
    assert found.candidate_spread == pytest.approx(1.78901, abs=1e-6)
    assert found.p_value == pytest.approx(0.07939, abs=5e-6)
    assert found.interval is not None
    assert (found.interval.lower, found.interval.upper) == pytest.approx((-3.3654832, 0.2054832), abs=1e-6)
    assert found.test == "Welch t"


def test_one_seed_is_taken_as_it_is() -> None:
    found = seed_summary([0.5], [0.6, 0.62, 0.58])
    turned = seed_summary([0.6, 0.62, 0.58], [0.5])
    assert found.test == turned.test == "one-sample t"
    assert found.base_spread is turned.candidate_spread is None
    assert found.difference == pytest.approx(0.1)
    # t = 0.1 / (0.02 / sqrt(3)) with 2 degrees of freedom.
    assert found.p_value == pytest.approx(0.0130719, abs=1e-5)
    assert turned.p_value == pytest.approx(found.p_value)
    assert turned.difference == pytest.approx(-0.1)
    assert seed_summary([0.5], [0.6, 0.6]).p_value is None


def test_scores_between_right_and_wrong_are_compared_by_their_means() -> None:
    base = [[0.0, 0.5, 0.25, 1.0, 0.5]]
    candidate = [[0.5, 1.0, 0.75, 1.0, 1.0]]
    found = score_difference(base, candidate, [""] * 5)
    assert found is not None
    assert (found.base, found.candidate, found.difference) == pytest.approx((0.45, 0.85, 0.4))
    # Four items that differ, all the same way: 2 of 16.
    assert found.p_value == pytest.approx(2 / 16)
    assert found.interval.lower < 0.4 < found.interval.upper
    assert score_difference([[0, 1]], [[1, 1]], ["", ""]) is None


@pytest.mark.parametrize(
    ("runs", "clusters", "method", "test"),
    [
        (1, "abcd", "Newcombe", "exact McNemar"),
        (2, "abcd", "t", "permutation"),
        (1, "aabb", "clustered t", "permutation"),
        (2, "aabb", "clustered t", "permutation"),
    ],
)
def test_runs_and_clusters_choose_the_statistics(runs: int, clusters: str, method: str, test: str) -> None:
    found = paired_difference([[0, 0, 1, 0]], [[1, 0, 1, 0]] * runs, list(clusters))
    assert (found.interval_method, found.test) == (method, test)


def test_a_paired_difference_counts_what_changed() -> None:
    pairs = [(1, 1)] * 5 + [(0, 1)] * 9 + [(1, 0)] * 2 + [(0, 0)] * 4
    base, candidate = ([float(pair[side]) for pair in pairs] for side in (0, 1))
    result = paired_difference([base], [candidate], [""] * 20)
    assert (result.gained_count, result.lost_count) == (9, 2)
    assert (result.base.correct_count, result.candidate.correct_count) == (7, 14)
    assert result.difference == pytest.approx(0.35)
    assert (result.interval.lower, result.interval.upper) == newcombe_paired(5, 9, 2, 4)
    assert math.isclose(result.p_value, 134 / 2048)
    assert (result.test, result.interval_method, result.cluster_count) == ("exact McNemar", "Newcombe", 0)


def test_several_runs_and_clusters_in_every_figure() -> None:
    base, candidate, names = [[0, 0, 1, 1, 0], [0, 1, 1, 1, 0]], [[1, 1, 0, 1, 1]], ["a", "a", "b", "", "b"]
    groups = cluster_numbers(names)
    before, after = np.array([0, 0.5, 1, 1, 0]), np.array([1, 1, 0, 1, 1.0])
    found = paired_difference(base, candidate, names)
    assert (found.gained_count, found.lost_count, found.cluster_count) == (3, 1, 3)
    assert found.difference == pytest.approx(0.3)
    assert (found.interval.lower, found.interval.upper) == t_interval(after - before, groups)
    assert found.p_value == permutation_p(after - before, groups)
    assert found.detectable == detectable_effect(clustered_error(after - before, groups), 3)
    assert (found.base.item_count, found.base.correct_count, found.base.accuracy) == (10, 5, 0.5)
    lower, upper = t_interval(before, groups)
    assert (found.base.interval.lower, found.base.interval.upper) == (max(0, lower), min(1, upper))
    assert (found.candidate.item_count, found.candidate.correct_count) == (5, 4)
    alike = paired_difference([[1, 1, 1]] * 2, [[0, 0, 0]] * 2, ["a", "a", ""])
    assert (alike.base.interval.lower, alike.base.interval.upper) == wilson(2, 2)
    assert (alike.candidate.interval.lower, alike.candidate.interval.upper) == wilson(0, 2)
    none = paired_difference([[]], [[]], [])
    assert (none.difference, none.p_value, none.detectable) == (0.0, 1.0, None)
    assert (none.base.item_count, none.interval.lower, none.interval.upper) == (0, -1.0, 1.0)


def test_a_score_that_is_between_right_and_wrong_on_one_side_is_enough() -> None:
    for base, candidate in ([[0.5, 1.0]], [[1.0, 1.0]]), ([[1.0, 1.0]], [[0.5, 1.0]]):
        found = score_difference(base, candidate, ["a", "b"])
        assert found is not None
        assert (found.interval.lower, found.interval.upper) == t_interval(
            np.array(candidate[0]) - np.array(base[0]), cluster_numbers(["a", "b"])
        )


# Coverage: how often 95% intervals hold the truth, in --draws simulated comparisons each


@pytest.fixture
def draws(pytestconfig: pytest.Config) -> int:
    return int(pytestconfig.getoption("--draws"))


def check_coverage(name: str, size: int, covered: int, draws: int) -> None:
    share = covered / draws
    print(f"{name}, n = {size}: {share:.2%} of {draws:,}")
    # Three standard errors of the simulation beside what is asked for.
    room = 3 * math.sqrt(0.05 * 0.95 / draws) if draws < 10_000 else 0.0
    assert 0.93 - room <= share <= 0.97 + room


# Probabilities of right in both, base alone, candidate alone, neither.
@pytest.mark.parametrize("size", [25, 100, 400])
@pytest.mark.parametrize("cells", [(0.25, 0.10, 0.25, 0.40), (0.60, 0.08, 0.12, 0.20)])
def test_the_interval_of_a_difference_covers_as_often_as_it_says(
    cells: tuple[float, ...], size: int, draws: int
) -> None:
    tables = np.random.default_rng(size).multinomial(size, cells, size=draws)
    truth, covered = cells[2] - cells[1], 0
    for table, times in zip(*np.unique(tables, axis=0, return_counts=True), strict=True):
        both, lost, gained, neither = (int(count) for count in table)
        lower, upper = newcombe_paired(both, gained, lost, neither)
        covered += int(times) * (lower <= truth <= upper)
    check_coverage(f"Newcombe {cells}", size, covered, draws)


@pytest.mark.parametrize("size", [25, 100, 400])
def test_wilsons_interval_covers_as_often_as_it_says(size: int, draws: int) -> None:
    """Over accuracies from 0 to 1: for a single one the coverage swings, since counts are whole numbers."""
    random = np.random.default_rng(size)
    truths = random.random(draws)
    limits = np.array([wilson(count, size) for count in range(size + 1)])
    counts = random.binomial(size, truths)
    covered = (limits[counts, 0] <= truths) & (truths <= limits[counts, 1])
    check_coverage("Wilson", size, int(covered.sum()), draws)


@pytest.mark.parametrize("size", [25, 100, 400])
def test_the_clustered_interval_covers_as_often_as_it_says(size: int, draws: int) -> None:
    """Clusters of one to four items; whether a cluster's items tend to be gained or lost is its own."""
    random = np.random.default_rng(size)
    sizes = np.resize([1, 2, 3, 4], size)[: size * 2 // 5]
    groups = np.repeat(np.arange(len(sizes)), sizes)
    covered = 0
    for _ in range(draws):
        gains = random.beta(1.0, 3.0, len(sizes))[groups]
        losses = random.beta(0.5, 4.5, len(sizes))[groups] * (1 - gains)
        chance = random.random(len(groups))
        differences = (chance < gains).astype(float) - (chance > 1 - losses)
        lower, upper = t_interval(differences, groups)
        covered += lower <= 0.25 - 0.1 * 0.75 <= upper
    check_coverage(f"clustered t ({len(sizes)} clusters, {len(groups)} items)", size, covered, draws)


@pytest.mark.parametrize("size", [25, 100, 400])
def test_the_interval_of_mean_scores_covers_as_often_as_it_says(size: int, draws: int) -> None:
    random = np.random.default_rng(size)
    groups = cluster_numbers([""] * size)
    base, gain = random.random((draws, size)), random.beta(2, 5, (draws, size))
    covered = 0
    for values in gain * (1 - base):
        lower, upper = t_interval(values, groups)
        covered += lower <= 2 / 7 * 0.5 <= upper
    check_coverage("t of scores", size, covered, draws)
