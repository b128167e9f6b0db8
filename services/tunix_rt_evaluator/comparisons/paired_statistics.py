"""The statistics of two sides that answered the same items: differences, intervals, tests, power."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from tunix_rt_evaluator.comparisons.model import (
    IntervalName,
    PairedDifference,
    ScoreDifference,
    SeedSummary,
    SeedTestName,
)
from tunix_rt_evaluator.evaluations.model import CONFIDENCE, Accuracy, Interval
from tunix_rt_evaluator.evaluations.results import accuracy, wilson
from tunix_rt_kit.callers import check

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SIGNIFICANCE: Final = 0.05
"""Level below which a p-value counts as evidence."""
POWER: Final = 0.8
"""How often a true difference of the detectable size is shown."""
RESAMPLES: Final = 1 << 15
"""Sign changes that a permutation test samples. With 15 clusters or fewer it tries all of them."""
_SEED: Final = 20_260_101
_RESAMPLES_AT_ONCE: Final = 512


def paired_difference(
    base: Sequence[Sequence[float]], candidate: Sequence[Sequence[float]], clusters: Sequence[str]
) -> PairedDifference:
    """Compare the accuracies of two sides over the same items.

    One run a side without clusters: Newcombe's interval and the exact McNemar test. Otherwise an item counts
    with its mean over the runs; the interval is a t interval of the mean difference, robust to clusters, and
    the test permutes the sides of whole clusters.

    Args:
        base: for each run, 1 or 0 for each item: right or wrong.
        candidate: likewise, over the same items.
        clusters: the cluster of each item; items with "" stand for themselves.
    """
    import numpy as np

    before, after = np.asarray(base, float), np.asarray(candidate, float)
    groups = cluster_numbers(clusters)
    count, cluster_count = len(groups), len(set(groups.tolist()))
    first, second = before.mean(axis=0), after.mean(axis=0)
    differences = second - first
    clustered = cluster_count < count
    plain = not clustered and len(before) == len(after) == 1
    gained, lost = int((differences > 0).sum()), int((differences < 0).sum())
    error = clustered_error(differences, groups)
    method: IntervalName
    if plain:
        both = int((first * second).sum())
        limits = newcombe_paired(both, gained, lost, count - both - gained - lost)
        method, p_value = "Newcombe", mcnemar_exact(gained, lost)
    else:
        limits = t_interval(differences, groups)
        method, p_value = "clustered t" if clustered else "t", permutation_p(differences, groups)
    return PairedDifference(
        base=_accuracy(before, groups),
        candidate=_accuracy(after, groups),
        difference=float(differences.mean()) if count else 0.0,
        interval=Interval(lower=limits[0], upper=limits[1]),
        gained_count=gained,
        lost_count=lost,
        p_value=p_value,
        test="exact McNemar" if plain else "permutation",
        interval_method=method,
        detectable=detectable_effect(error, cluster_count),
        cluster_count=cluster_count if clustered else 0,
    )


def score_difference(
    base: Sequence[Sequence[float]], candidate: Sequence[Sequence[float]], clusters: Sequence[str]
) -> ScoreDifference | None:
    """Compare mean scores of 0 to 1, as ``paired_difference``; None where every score is 0 or 1."""
    import numpy as np

    before, after = np.asarray(base, float), np.asarray(candidate, float)
    if _binary(before) and _binary(after):
        return None
    groups = cluster_numbers(clusters)
    first, second = before.mean(axis=0), after.mean(axis=0)
    lower, upper = t_interval(second - first, groups)
    return ScoreDifference(
        base=float(first.mean()),
        candidate=float(second.mean()),
        difference=float((second - first).mean()),
        interval=Interval(lower=lower, upper=upper),
        p_value=permutation_p(second - first, groups),
    )


def mcnemar_exact(gained: int, lost: int) -> float:
    """Two-sided p-value of the exact McNemar test (binomial on the items that changed); 1 when none did."""
    from statsmodels.stats.contingency_tables import mcnemar

    if gained + lost == 0:
        return 1.0
    return min(1.0, float(mcnemar([[0, lost], [gained, 0]], exact=True).pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted for there being several (Holm 1979), in the same order."""
    from statsmodels.stats.multitest import multipletests

    if not p_values:
        return []
    return [float(value) for value in multipletests(p_values, method="holm")[1]]


def permutation_p(differences: Floats, groups: NDArray[np.intp]) -> float:
    """Two-sided p-value of the permutation test: under no difference the two sides could change places.

    The differences of a cluster change their signs together (Fisher 1935, section 21, with a cluster for a
    pair). Up to 32,768 sign changes are all tried. Of more, that many are sampled, always the same ones.
    """
    import numpy as np
    from scipy.stats import permutation_test

    sums = np.bincount(groups, weights=differences) if len(groups) else np.zeros(0)
    # A cluster whose items cancel out is the same either way.
    sums = sums[np.abs(sums) > 1e-12]
    if not len(sums):
        return 1.0
    if len(sums) == 1:
        # SciPy wants two. Either sign is as far from 0.
        return 1.0

    def total(changed: Floats, axis: int) -> Floats:
        check()
        sums_of: Floats = changed.sum(axis=axis)
        return sums_of

    found = permutation_test(
        (sums,),
        total,
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=_RESAMPLES_AT_ONCE,
        rng=np.random.default_rng(_SEED),
    )
    return min(1.0, float(found.pvalue))


def cluster_numbers(clusters: Sequence[str]) -> NDArray[np.intp]:
    """Each item's cluster as a number from 0; an item with "" gets a number of its own."""
    import numpy as np

    known: dict[str, int] = {}
    numbers = [known.setdefault(name or f"\0{index}", len(known)) for index, name in enumerate(clusters)]
    return np.asarray(numbers, np.intp)


def clustered_error(values: Floats, groups: NDArray[np.intp], mean: float | None = None) -> float:
    """Standard error of the mean of values that are alike within a cluster; NaN for fewer than two clusters.

    The square root of K / (K - 1) times the sum over the K clusters of the squared sum of deviations, over
    N (Liang and Zeger 1986; as ``cov_type="cluster"`` of statsmodels). With ``mean=0`` the deviations are
    those under no difference, and ``values.mean() / error`` is the statistic of N. A. Obuchowski, "On the
    comparison of correlated proportions for clustered data", Statistics in Medicine 17 (1998) 1495-1507.
    """
    import numpy as np

    count, clusters = len(values), int(groups.max()) + 1 if len(groups) else 0
    if clusters < 2:
        return math.nan
    around = float(values.mean()) if mean is None else mean
    sums = np.bincount(groups, weights=values - around)
    return math.sqrt(clusters / (clusters - 1) * float((sums**2).sum())) / count


def t_interval(
    values: Floats, groups: NDArray[np.intp], confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Interval of a mean difference of scores, by Student's t with one degree of freedom fewer than clusters.

    If all clusters have the same mean there is no error to estimate. The interval is then Newcombe's, as if
    each cluster were one pair and all pairs came out alike (``newcombe_paired``).
    """
    from scipy.stats import t

    error = clustered_error(values, groups)
    if math.isnan(error):
        return -1.0, 1.0
    clusters = int(groups.max()) + 1
    mean = float(values.mean())
    if error < 1e-12:
        half = abs(mean) * clusters
        sides = (half, 0.0) if mean > 0 else (0.0, half)
        rest = max(0.0, clusters - half)
        return newcombe_paired(rest / 2, *sides, rest / 2, confidence)
    reach = float(t.ppf((1 + confidence) / 2, clusters - 1)) * error
    return max(-1.0, mean - reach), min(1.0, mean + reach)


def detectable_effect(error: float, clusters: int) -> float | None:
    """The smallest true difference that a test at 5% detects four times in five (power 80%).

    It is (t(97.5%) + t(80%)) times the standard error; None if nothing varied or there are fewer than two
    clusters.

    E. Miller, "Adding error bars to evals", arXiv:2411.00640, section 5, with t for the normal quantiles.
    """
    from scipy.stats import t

    if clusters < 2 or math.isnan(error) or error < 1e-12:
        return None
    quantiles = t.ppf([1 - SIGNIFICANCE / 2, POWER], clusters - 1)
    return min(1.0, float(quantiles.sum()) * error)


def newcombe_paired(
    both: float, only_first: float, only_second: float, neither: float, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Interval of the difference of two paired proportions, first minus second.

    Method 10 of R. G. Newcombe, "Improved confidence intervals for the difference between binomial
    proportions based on paired data", Statistics in Medicine 17 (1998) 2635-2650: Wilson's limits of both
    proportions, put together with the correlation of the pairs, whose positive covariance is corrected for
    continuity.

    Args:
        both: items that are right in both.
        only_first: right in the first alone.
        only_second: right in the second alone.
        neither: wrong in both.
        confidence: level of the interval.

    Returns:
        Lower and upper limit; (-1, 1) for no items.
    """
    total = both + only_first + only_second + neither
    if not total:
        return -1.0, 1.0
    first, second = both + only_first, both + only_second
    p1, p2 = first / total, second / total
    (l1, u1), (l2, u2) = wilson(first, total, confidence), wilson(second, total, confidence)
    phi = _phi(both, only_first, only_second, neither)

    def distance(below: float, above: float) -> float:
        return math.sqrt(max(0.0, below**2 - 2 * phi * below * above + above**2))

    difference = (only_first - only_second) / total
    return difference - distance(p1 - l1, u2 - p2), difference + distance(u1 - p1, p2 - l2)


def seed_summary(base: Sequence[float], candidate: Sequence[float]) -> SeedSummary:
    """Compare the accuracies of several training seeds.

    Two or more seeds a side: Welch's t test. One base: whether the candidates' mean is the base's accuracy,
    which is taken as it is (one-sample t test); likewise for one candidate.

    Args:
        base: accuracy of each base seed; at least one.
        candidate: of each candidate seed; at least one, and two or more on one side.
    """
    import numpy as np
    from scipy.stats import ttest_1samp, ttest_ind

    before, after = np.asarray(base, float), np.asarray(candidate, float)
    difference = float(after.mean() - before.mean())
    several: SeedTestName = "Welch t" if min(len(before), len(after)) > 1 else "one-sample t"
    interval, p_value = None, None
    if max(np.ptp(before), np.ptp(after)) > 0:
        if several == "Welch t":
            found = ttest_ind(after, before, equal_var=False)
        else:
            found = ttest_1samp(after - before if len(before) == 1 else after[0] - before, 0.0)
        limits = found.confidence_interval(CONFIDENCE)
        interval = Interval(lower=float(limits.low), upper=float(limits.high))
        p_value = float(found.pvalue)
    return SeedSummary(
        base=tuple(base),
        candidate=tuple(candidate),
        base_mean=float(before.mean()),
        candidate_mean=float(after.mean()),
        base_spread=_spread(before),
        candidate_spread=_spread(after),
        difference=difference,
        interval=interval,
        p_value=p_value,
        test=several,
    )


def _accuracy(scores: Floats, groups: NDArray[np.intp]) -> Accuracy:
    """One run: Wilson's interval. Otherwise the t interval of the items' means."""
    answers, right = int(scores.size), int((scores >= 1).sum())
    if len(scores) == 1:
        return accuracy(right, answers)
    means = scores.mean(axis=0)
    clusters = len(set(groups.tolist()))
    if means.size and float(means.min()) == float(means.max()):
        # Nothing varies, so there is no error to go by: as one answer a cluster.
        lower, upper = wilson(float(means[0]) * clusters, clusters)
    else:
        lower, upper = t_interval(means, groups)
    return Accuracy(
        item_count=answers,
        correct_count=right,
        accuracy=float(means.mean()),
        interval=Interval(lower=max(0.0, lower), upper=min(1.0, upper)),
    )


def _binary(scores: Any) -> bool:
    return bool(((scores == 0) | (scores == 1)).all())


def _spread(values: Floats) -> float | None:
    return float(values.std(ddof=1)) if len(values) > 1 else None


def _phi(both: float, only_first: float, only_second: float, neither: float) -> float:
    """Correlation of the pairs as method 10 takes it: 0 where a margin is empty."""
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    if not margins:
        return 0.0
    covariance = both * neither - only_first * only_second
    half = (both + only_first + only_second + neither) / 2
    corrected = max(covariance - half, 0.0) if covariance > 0 else covariance
    return corrected / math.sqrt(margins)
