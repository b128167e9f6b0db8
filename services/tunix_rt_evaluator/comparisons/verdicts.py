"""What a comparison says about the candidate, by a stated policy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tunix_rt_evaluator.comparisons.model import (
    Contamination,
    OutcomeBounds,
    PairedDifference,
    SeedSummary,
    VerdictName,
)
from tunix_rt_evaluator.comparisons.paired_statistics import SIGNIFICANCE

POLICY: Final = (
    "Improved or regressed: the test over all items gives p < 0.05, and nothing speaks against it. "
    "Inconclusive: p < 0.05, but the difference would be gone or turned if the items that failed, were "
    "not graded or are missing had gone the other way, or it is gone or turned over the items that no "
    "training data gives away, or the test over training seeds does not give p < 0.05 too. "
    "No evidence: p is 0.05 or more; that does not show that both are equally good."
)
"""The policy of ``decide``, for reports and people. Answers that were cut count as what they are."""


def decide(
    overall: PairedDifference,
    bounds: OutcomeBounds,
    contamination: Contamination,
    seeds: SeedSummary | None,
) -> tuple[VerdictName, tuple[str, ...]]:
    """The verdict by ``POLICY``, and the reasons for it where it is not plain."""
    if overall.p_value >= SIGNIFICANCE or overall.difference == 0:
        return "NO_EVIDENCE", tuple(_too_little(overall))
    up = overall.difference > 0
    against = tuple(_against(up, bounds, contamination, seeds))
    if against:
        return "INCONCLUSIVE", against
    return ("IMPROVED" if up else "REGRESSED"), ()


def _against(
    up: bool, bounds: OutcomeBounds, contamination: Contamination, seeds: SeedSummary | None
) -> Iterator[str]:
    hardest = bounds.worst if up else bounds.best
    if bounds.unsettled_count and not _same_way(hardest, up):
        yield (
            f"{bounds.unsettled_count} items failed, were not graded or are missing on a side; had they gone "
            f"the other way, the difference would be {100 * hardest:+.1f} points"
        )
    clean = contamination.clean
    if contamination.items and clean is None:
        yield "the training data gives every item away"
    if clean is not None and not _same_way(clean.difference, up):
        yield (
            f"the training data gives {len(contamination.items)} items away; over the others the difference "
            f"is {100 * clean.difference:+.1f} points"
        )
    if seeds is not None and (seeds.p_value is None or seeds.p_value >= SIGNIFICANCE):
        yield (
            "the accuracies of the training seeds do not vary, so that nothing can be said of other seeds"
            if seeds.p_value is None
            else f"over the training seeds the test gives p = {seeds.p_value:.2g}"
        )


def _too_little(overall: PairedDifference) -> Iterator[str]:
    if overall.detectable is not None:
        yield (
            f"a true difference of {100 * overall.detectable:.1f} points or more would have been shown "
            "four times in five"
        )


def _same_way(difference: float, up: bool) -> bool:
    return difference > 0 if up else difference < 0
