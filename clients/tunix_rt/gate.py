"""Whether a comparison lets a change through, for CI."""

from __future__ import annotations

from typing import Literal

from tunix_rt import v1
from tunix_rt.errors import InvalidArgumentError

FailOn = Literal["regressed", "not-improved"]


def gate_failure(
    report: v1.ComparisonReport, *, fail_on: FailOn | None = None, max_drop: float | None = None
) -> str | None:
    """Why a comparison does not pass, in one line; None where it does.

    Args:
        report: the comparison.
        fail_on: ``regressed`` stops a candidate that regressed, or of which nothing better can be said than
            that it seems to be worse but the evidence is inconclusive. ``not-improved`` stops every one that
            did not improve.
        max_drop: the most by which the accuracy may be lower than the base's, 0 to 1, whatever the evidence.

    Raises:
        InvalidArgumentError: ``max_drop`` is out of range.
    """
    if max_drop is not None and not 0 <= max_drop <= 1:
        raise InvalidArgumentError(f"max_drop is {max_drop:g}; 0 to 1 would be right, such as 0.02")
    verdict, overall = report.verdict, report.overall
    words = v1.ComparisonReport.Verdict.Name(verdict).removeprefix("VERDICT_").lower().replace("_", " ")
    found = (
        f"base {overall.base.accuracy:.1%}, candidate {overall.candidate.accuracy:.1%}, "
        f"p = {overall.p_value:.2g}"
    )
    worse = verdict == v1.ComparisonReport.VERDICT_INCONCLUSIVE and overall.difference < 0
    if fail_on == "regressed" and (verdict == v1.ComparisonReport.VERDICT_REGRESSED or worse):
        return f"the candidate {'seems to have ' if worse else ''}regressed ({words}: {found})"
    if fail_on == "not-improved" and verdict != v1.ComparisonReport.VERDICT_IMPROVED:
        return f"the candidate did not improve ({words}: {found})"
    # Shares of whole items: 0.12 - 0.10 is a drop of 0.02 and not more.
    if max_drop is not None and -overall.difference > max_drop + 1e-9:
        return f"the accuracy dropped by {-overall.difference:.3f}, more than {max_drop:g} ({found})"
    return None
