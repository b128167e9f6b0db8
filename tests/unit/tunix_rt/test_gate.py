"""What a gate lets through."""

from __future__ import annotations

import pytest

from tunix_rt import v1
from tunix_rt.errors import InvalidArgumentError
from tunix_rt.gate import FailOn, gate_failure

Verdict = v1.ComparisonReport
IMPROVED, REGRESSED = Verdict.VERDICT_IMPROVED, Verdict.VERDICT_REGRESSED
NO_EVIDENCE, INCONCLUSIVE = Verdict.VERDICT_NO_EVIDENCE, Verdict.VERDICT_INCONCLUSIVE


def report(verdict: v1.ComparisonReport.Verdict.ValueType, difference: float = 0.0) -> v1.ComparisonReport:
    return v1.ComparisonReport(
        verdict=verdict,
        overall=v1.PairedDifference(
            base=v1.Accuracy(accuracy=0.5),
            candidate=v1.Accuracy(accuracy=0.5 + difference),
            difference=difference,
            p_value=0.04,
        ),
    )


@pytest.mark.parametrize(
    ("verdict", "difference", "regressed", "not_improved"),
    [
        (IMPROVED, 0.1, True, True),
        (REGRESSED, -0.1, False, False),
        (NO_EVIDENCE, -0.1, True, False),
        (NO_EVIDENCE, 0.1, True, False),
        (INCONCLUSIVE, 0.1, True, False),
        # As a candidate that crashes on half of the items: nobody knows, but it does not look good.
        (INCONCLUSIVE, -0.1, False, False),
    ],
)
def test_a_verdict_passes_or_does_not(
    verdict: v1.ComparisonReport.Verdict.ValueType, difference: float, regressed: bool, not_improved: bool
) -> None:
    found = report(verdict, difference)
    cases: list[tuple[FailOn, bool]] = [("regressed", regressed), ("not-improved", not_improved)]
    for fail_on, passes in cases:
        assert (gate_failure(found, fail_on=fail_on) is None) is passes
    assert gate_failure(found) is None


@pytest.mark.parametrize(
    ("difference", "max_drop", "passes"),
    [
        (-0.02, 0.02, True),
        # Rounding: a little more than 0.02.
        (0.90 - 0.92, 0.02, True),
        (-0.021, 0.02, False),
        (-0.001, 0.0, False),
        (0.0, 0.0, True),
        (0.3, 0.0, True),
    ],
)
def test_a_drop_passes_up_to_the_most_that_is_allowed(
    difference: float, max_drop: float, passes: bool
) -> None:
    assert (gate_failure(report(NO_EVIDENCE, difference), max_drop=max_drop) is None) is passes


def test_the_reason_is_one_line_with_the_figures() -> None:
    why = gate_failure(report(REGRESSED, -0.125), fail_on="regressed")
    assert why == "the candidate regressed (regressed: base 50.0%, candidate 37.5%, p = 0.04)"
    why = gate_failure(report(NO_EVIDENCE, -0.125), max_drop=0.1)
    assert why is not None
    assert why.startswith("the accuracy dropped by 0.125, more than 0.1 (")


@pytest.mark.parametrize("max_drop", [-0.1, 1.1, float("nan")])
def test_a_drop_that_is_none_is_refused(max_drop: float) -> None:
    with pytest.raises(InvalidArgumentError, match="0 to 1"):
        gate_failure(report(IMPROVED), max_drop=max_drop)
